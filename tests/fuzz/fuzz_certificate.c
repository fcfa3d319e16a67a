/*
 * fuzz_certificate.c - any bytes as a certificate, in DER or as a file in PEM: refused with a
 * sentence and without a trace in OpenSSL's queue of errors, or read; and what is read is in
 * bounds, and is what its own URI says.
 */
#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <string.h>

#include "base/certificate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Is this URI, and no other that a reader could take for ours, among the names? */
static void check_uri(X509 *x, const char *uri)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    unsigned ours = 0;

    assert(names != NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);
        const char *text;

        if (n->type != GEN_URI)
            continue;
        text = (const char *)ASN1_STRING_get0_data(n->d.uniformResourceIdentifier);
        if (strncasecmp(text, "urn:sluice:", 11) != 0)
            continue;
        ours++;
        assert(strcmp(text, uri) == 0);
        assert(strlen(uri) == (size_t)ASN1_STRING_length(n->d.uniformResourceIdentifier));
    }
    assert(ours == 1);
    GENERAL_NAMES_free(names);
}

static void check_hosts(const struct certificate_hosts *h)
{
    struct certificate_hosts again = { .n = 0 };
    const char *why;

    assert(h->n <= CERTIFICATE_HOSTS_MAX);
    for (unsigned i = 0; i < h->n; i++) {
        assert(certificate_hosts_add(&again, h->at[i], strlen(h->at[i]), &why) == 0);
        assert(strcmp(again.at[i], h->at[i]) == 0);
    }
}

static void check(X509 *x)
{
    char uri[CERTIFICATE_URI_BYTES];
    struct certificate_hosts hosts;
    struct certificate who;
    const char *why = NULL;

    if (certificate_read(x, &who, &why) == 0) {
        assert(who.role < CERTIFICATE_ROLES && who.from_s <= who.until_s);
        assert((who.node > 0) == (who.role == CERTIFICATE_NODE));
        assert((X509_check_ca(x) != 0) == (who.role == CERTIFICATE_CA));
        certificate_uri(&who, uri);
        check_uri(x, uri);
    } else {
        assert(why != NULL && ERR_peek_error() == 0);
    }
    why = NULL;
    if (certificate_read_hosts(x, &hosts, &why) == 0)
        check_hosts(&hosts);
    else
        assert(why != NULL && ERR_peek_error() == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const unsigned char *at = data;
    const char *why = NULL;
    X509 *x = NULL;
    int rc;

    if (bytes > CERTIFICATE_FILE_BYTES_MAX)
        return 0;
    x = d2i_X509(NULL, &at, (long)bytes);
    ERR_clear_error();
    if (x != NULL)
        check(x);
    X509_free(x);
    x = NULL;
    rc = certificate_parse(data, bytes, &x, &why);
    assert((rc == 0) == (x != NULL) && (rc == 0) == (why == NULL));
    assert(ERR_peek_error() == 0 && (rc == 0 || rc == -EBADMSG));
    if (rc == 0)
        check(x);
    X509_free(x);
    return 0;
}
