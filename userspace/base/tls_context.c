/*
 * tls_context.c - the files of one side, checked, as what all of its connections share; see tls.h.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/tls_internal.h"

#define KEY_FILE_BYTES_MAX 16384u      /* RSA with 16,384 bits has 12.9 KB */
#define CHAIN_BYTES_MAX    (16l << 10) /* certificates that a peer shows: one, and no chain */

static const char suites[] =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

__attribute__((format(printf, 3, 4))) static int refuse(char error[TLS_ERROR_BYTES], int rc,
                                                        const char *format, ...)
{
    va_list list;

    assert(rc < 0);
    va_start(list, format);
    vsnprintf(error, TLS_ERROR_BYTES, format, list);
    va_end(list);
    ERR_clear_error();
    return rc;
}

const char *tls_verify_text(int code)
{
    switch (code) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return "has expired";
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return "is not valid yet";
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_CERT_CHAIN_TOO_LONG:
        return "is not signed by our CA";
    case X509_V_ERR_INVALID_PURPOSE:
        return "may not be used for its side of a connection";
    case X509_V_ERR_APPLICATION_VERIFICATION:
        return "has no role of Sluice";
    default:
        return X509_verify_cert_error_string(code);
    }
}

/* --- files ---------------------------------------------------------------------------------- */

static int load(X509 **ret, struct certificate *ret_who, const char *path,
                char error[TLS_ERROR_BYTES])
{
    const char *why;
    X509 *x;
    int rc = certificate_load(path, &x, &why);

    if (rc < 0)
        return refuse(error, rc, "%s %s", path, why);
    rc = certificate_read(x, ret_who, &why);
    if (rc < 0) {
        X509_free(x);
        return refuse(error, rc, "%s %s", path, why);
    }
    *ret = x;
    return 0;
}

/* OpenSSL would ask for a password on the terminal. */
static int no_password(char *ret, int bytes, int writing, void *arg) { return -1; }

/* The bytes of a regular file that is not for everybody. */
static ssize_t key_bytes(const char *path, char data[KEY_FILE_BYTES_MAX],
                         char error[TLS_ERROR_BYTES])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not keep us waiting */
    struct stat st;
    ssize_t n = 0;

    if (fd < 0 || fstat(fd, &st) < 0)
        n = refuse(error, -errno, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        n = refuse(error, -EBADMSG, "%s is not a regular file", path);
    else if ((st.st_mode & (S_IRWXO | S_IWGRP)) != 0)
        n = refuse(error, -EACCES, "others can read or change %s: chmod go-rwx it", path);
    else if (st.st_size > (off_t)KEY_FILE_BYTES_MAX)
        n = refuse(error, -EFBIG, "%s is longer than 16 KiB: no private key is", path);
    if (n == 0)
        n = read(fd, data, KEY_FILE_BYTES_MAX);
    if (n < 0 && fd >= 0 && error[0] == '\0')
        n = refuse(error, -errno, "%s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return n;
}

static int load_key(EVP_PKEY **ret, const char *path, char error[TLS_ERROR_BYTES])
{
    char data[KEY_FILE_BYTES_MAX];
    EVP_PKEY *key = NULL;
    ssize_t n = key_bytes(path, data, error);
    BIO *b;

    if (n < 0)
        return (int)n;
    b = BIO_new_mem_buf(data, (int)n);
    if (b != NULL)
        key = PEM_read_bio_PrivateKey(b, NULL, no_password, NULL);
    BIO_free(b);
    OPENSSL_cleanse(data, sizeof data);
    if (key == NULL)
        return refuse(error, -EBADMSG, "%s is no private key in PEM without a password", path);
    ERR_clear_error();
    *ret = key;
    return 0;
}

static const char *date(char ret[32], int64_t unix_s)
{
    time_t t = (time_t)unix_s;
    struct tm tm;

    if (gmtime_r(&t, &tm) == NULL || strftime(ret, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        snprintf(ret, 32, "a day that is none");
    return ret;
}

/* Is it signed by the CA, and are both in their time? */
static int check_chain(SSL_CTX *ctx, X509 *cert, const struct certificate who[2],
                       const struct tls_files *f, char error[TLS_ERROR_BYTES])
{
    X509_STORE_CTX *c = X509_STORE_CTX_new();
    int code = X509_V_ERR_OUT_OF_MEM, depth = 0;
    char day[32];

    if (c != NULL && X509_STORE_CTX_init(c, SSL_CTX_get_cert_store(ctx), cert, NULL) == 1) {
        X509_STORE_CTX_set_depth(c, 0);
        code = X509_verify_cert(c) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(c);
        depth = X509_STORE_CTX_get_error_depth(c) > 0;
    }
    X509_STORE_CTX_free(c);
    if (code == X509_V_OK)
        return 0;
    if (code == X509_V_ERR_CERT_HAS_EXPIRED)
        return refuse(error, -EACCES, "%s has expired: it was good until %s",
                      depth ? f->ca : f->cert, date(day, who[depth].until_s));
    if (code == X509_V_ERR_CERT_NOT_YET_VALID)
        return refuse(error, -EACCES, "%s is not valid yet: it will be from %s",
                      depth ? f->ca : f->cert, date(day, who[depth].from_s));
    if (strcmp(tls_verify_text(code), "is not signed by our CA") == 0)
        return refuse(error, -EACCES, "%s is not signed by %s", f->cert, f->ca);
    return refuse(error, -EACCES, "%s %s", f->cert, tls_verify_text(code));
}

/* --- the context ---------------------------------------------------------------------------- */

static SSL_CTX *make(X509 *ca)
{
    SSL_CTX *c = SSL_CTX_new(TLS_method());

    if (c == NULL)
        return NULL;
    SSL_CTX_set_options(c, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    SSL_CTX_clear_mode(c, SSL_MODE_AUTO_RETRY); /* tls_read() counts what is no data */
    SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                            SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_max_cert_list(c, CHAIN_BYTES_MAX);
    SSL_CTX_set_verify_depth(c, 0); /* signed by the CA itself */
    SSL_CTX_set_security_level(c, 2);
    SSL_CTX_set_read_ahead(c, 0);
    if (SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) == 1 &&
        SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION) == 1 &&
        SSL_CTX_set_ciphersuites(c, suites) == 1 && SSL_CTX_set_num_tickets(c, 0) == 1 &&
        SSL_CTX_set_max_early_data(c, 0) == 1 && SSL_CTX_add_client_CA(c, ca) == 1 &&
        X509_STORE_add_cert(SSL_CTX_get_cert_store(c), ca) == 1)
        return c;
    SSL_CTX_free(c);
    return NULL;
}

/* who: of the certificate, and of the CA. */
static int build(SSL_CTX **ret, X509 *ca, X509 *cert, EVP_PKEY *key,
                 const struct certificate who[2], const struct tls_files *f,
                 char error[TLS_ERROR_BYTES])
{
    SSL_CTX *c;
    int rc;

    if (who[1].role != CERTIFICATE_CA)
        return refuse(error, -EINVAL, "%s is not a CA's certificate: its role is %s", f->ca,
                      certificate_role_name(who[1].role));
    if (who[0].role == CERTIFICATE_CA)
        return refuse(error, -EINVAL, "%s is the certificate of a CA: a connection needs its own",
                      f->cert);
    if (X509_check_private_key(cert, key) != 1)
        return refuse(error, -EINVAL, "%s is not the key of %s", f->key, f->cert);
    c = make(ca);
    if (c == NULL)
        return refuse(error, -ENOMEM, "OpenSSL offers no TLS 1.3 here");
    rc = check_chain(c, cert, who, f, error);
    if (rc == 0 && (SSL_CTX_use_certificate(c, cert) != 1 || SSL_CTX_use_PrivateKey(c, key) != 1))
        rc = refuse(error, -EINVAL, "OpenSSL does not take %s: %s", f->cert,
                    ERR_reason_error_string(ERR_peek_error()));
    if (rc < 0)
        SSL_CTX_free(c);
    else
        *ret = c;
    return rc;
}

int tls_context_new(struct tls_context **ret, const struct tls_files *f,
                    char error[TLS_ERROR_BYTES])
{
    struct tls_context *x = calloc(1, sizeof *x);
    struct certificate who[2] = { 0 };
    X509 *ca = NULL, *cert = NULL;
    EVP_PKEY *key = NULL;
    int rc;

    assert(f->ca && f->cert && f->key);
    error[0] = '\0';
    if (x == NULL)
        return refuse(error, -ENOMEM, "no memory for TLS");
    rc = load(&ca, &who[1], f->ca, error);
    if (rc == 0)
        rc = load(&cert, &who[0], f->cert, error);
    if (rc == 0)
        rc = load_key(&key, f->key, error);
    if (rc == 0)
        rc = build(&x->ctx, ca, cert, key, who, f, error);
    X509_free(ca);
    X509_free(cert);
    EVP_PKEY_free(key);
    if (rc < 0) {
        free(x);
        assert(error[0] != '\0');
        return rc;
    }
    x->who = who[0];
    ERR_clear_error();
    *ret = x;
    return 0;
}

void tls_context_free(struct tls_context *x)
{
    if (x == NULL)
        return;
    SSL_CTX_free(x->ctx);
    free(x);
}

const struct certificate *tls_context_identity(const struct tls_context *x) { return &x->who; }
