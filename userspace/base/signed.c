/*
 * signed.c - see signed.h.
 */
#include "base/signed.h"

#include <openssl/pem.h> /* cms.h has PEM only behind this */

#include <assert.h>
#include <errno.h>
#include <openssl/cms.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/tls_internal.h"

static int refuse(char error[TLS_ERROR_BYTES], int rc, const char *what, const char *why)
{
    assert(rc < 0);
    snprintf(error, TLS_ERROR_BYTES, "%s%s", what, why);
    ERR_clear_error();
    return rc;
}

/* All that is in b, terminated. */
static int take(char **ret, BIO *b, size_t max)
{
    char *from;
    long n = BIO_get_mem_data(b, &from);
    char *to = n >= 0 && (size_t)n <= max ? malloc((size_t)n + 1) : NULL;

    if (to == NULL)
        return n >= 0 && (size_t)n <= max ? -ENOMEM : -EFBIG;
    if (n > 0)
        memcpy(to, from, (size_t)n);
    to[n] = '\0';
    *ret = to;
    return (int)n;
}

int signed_make(char **ret, const struct tls_context *x, const char *text, size_t bytes)
{
    X509 *cert = SSL_CTX_get0_certificate(x->ctx);
    EVP_PKEY *key = SSL_CTX_get0_privatekey(x->ctx);
    CMS_ContentInfo *cms = NULL;
    BIO *in, *out;
    int n = -ENOMEM;

    if (bytes > SIGNED_TEXT_BYTES_MAX)
        return -EFBIG;
    in = BIO_new_mem_buf(text, (int)bytes);
    out = BIO_new(BIO_s_mem());
    if (in != NULL && out != NULL)
        cms = CMS_sign(cert, key, NULL, in, CMS_BINARY | CMS_NOSMIMECAP);
    if (cms != NULL && PEM_write_bio_CMS(out, cms) == 1)
        n = take(ret, out, SIGNED_BYTES_MAX);
    CMS_ContentInfo_free(cms);
    BIO_free(in);
    BIO_free(out);
    ERR_clear_error();
    return n;
}

/* What the signer says of when; -1: nothing. Signed itself, so to be believed as its text is. */
static int64_t time_of(CMS_SignerInfo *s)
{
    int at = CMS_signed_get_attr_by_NID(s, NID_pkcs9_signingTime, -1);
    ASN1_TYPE *t = at >= 0 ? X509_ATTRIBUTE_get0_type(CMS_signed_get_attr(s, at), 0) : NULL;
    struct tm tm;

    if (t == NULL || (t->type != V_ASN1_UTCTIME && t->type != V_ASN1_GENERALIZEDTIME) ||
        ASN1_TIME_to_tm((const ASN1_TIME *)t->value.asn1_string, &tm) != 1)
        return -1;
    return timegm(&tm);
}

/* What trusts this CA alone, as of then. */
static X509_STORE *store_new(X509 *ca, int64_t time_s)
{
    X509_STORE *s = X509_STORE_new();
    X509_VERIFY_PARAM *p = s != NULL ? X509_STORE_get0_param(s) : NULL;

    if (p == NULL || X509_STORE_add_cert(s, ca) != 1 ||
        X509_VERIFY_PARAM_set_purpose(p, X509_PURPOSE_ANY) != 1) {
        X509_STORE_free(s);
        return NULL;
    }
    X509_VERIFY_PARAM_set_depth(p, 0); /* signed by the CA itself */
    X509_VERIFY_PARAM_set_time(p, time_s);
    return s;
}

static int verify(char **ret, struct certificate *ret_signer, int64_t time_s, CMS_ContentInfo *cms,
                  X509 *ca, char error[TLS_ERROR_BYTES])
{
    X509_STORE *store = store_new(ca, time_s);
    BIO *out = BIO_new(BIO_s_mem());
    STACK_OF(X509) *signers = NULL;
    const char *why;
    int rc;

    if (store == NULL || out == NULL)
        rc = refuse(error, -ENOMEM, "no memory", "");
    else if (CMS_verify(cms, NULL, store, NULL, out, CMS_BINARY) != 1 ||
             (signers = CMS_get0_signers(cms)) == NULL || sk_X509_num(signers) != 1)
        rc = refuse(error, -EACCES, "the signature is wrong: the text was changed, or ",
                    "whoever signed it has no certificate of this CA");
    else if (certificate_read(sk_X509_value(signers, 0), ret_signer, &why) < 0)
        rc = refuse(error, -EACCES, "the certificate of whoever signed it ", why);
    else if (ret_signer->role != CERTIFICATE_NODE)
        rc = refuse(error, -EACCES, "it was not signed by a node, but by one whose role is ",
                    certificate_role_name(ret_signer->role));
    else if ((rc = take(ret, out, SIGNED_TEXT_BYTES_MAX)) < 0)
        rc = refuse(error, rc, "the text cannot be taken: ", strerror(-rc));
    sk_X509_free(signers);
    X509_STORE_free(store);
    BIO_free(out);
    return rc;
}

int signed_open(char **ret, struct certificate *ret_signer, int64_t *ret_time_s, const char *pem,
                size_t bytes, const char *ca_path, char error[TLS_ERROR_BYTES])
{
    STACK_OF(CMS_SignerInfo) * signers;
    CMS_ContentInfo *cms = NULL;
    const char *why;
    X509 *ca;
    BIO *in;
    int rc;

    if (bytes > SIGNED_BYTES_MAX)
        return refuse(error, -EFBIG, "it is longer than 16 KiB", "");
    rc = certificate_load(ca_path, &ca, &why);
    if (rc < 0) {
        snprintf(error, TLS_ERROR_BYTES, "%s %s", ca_path, why);
        return rc;
    }
    in = BIO_new_mem_buf(pem, (int)bytes);
    if (in != NULL)
        cms = PEM_read_bio_CMS(in, NULL, NULL, NULL);
    /* Of others this gives NULL, too. */
    signers = cms != NULL ? CMS_get0_SignerInfos(cms) : NULL;
    if (signers == NULL || sk_CMS_SignerInfo_num(signers) != 1)
        rc = refuse(error, -EBADMSG, "it is no text that one has signed, in PEM", "");
    else if ((*ret_time_s = time_of(sk_CMS_SignerInfo_value(signers, 0))) < 0)
        rc = refuse(error, -EBADMSG, "it does not say when it was signed", "");
    else
        rc = verify(ret, ret_signer, *ret_time_s, cms, ca, error);
    CMS_ContentInfo_free(cms);
    BIO_free(in);
    X509_free(ca);
    ERR_clear_error();
    return rc;
}
