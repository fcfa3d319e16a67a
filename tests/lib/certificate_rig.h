/*
 * certificate_rig.h - certificates as anybody may make them, hostile ones among them.
 *
 * Key, serial and dates are fixed and the signature is Ed25519's, so the same description gives the
 * same bytes. The functions end the test when OpenSSL cannot. One thread.
 */
#ifndef SLUICE_TESTS_CERTIFICATE_RIG_H
#define SLUICE_TESTS_CERTIFICATE_RIG_H

#include <openssl/x509v3.h>
#include <stdbool.h>

#define RIG_NAMES_MAX 20

struct rig_name {
    int type; /* GEN_URI, GEN_DNS, GEN_IPADD, GEN_EMAIL */
    const char *data;
    size_t bytes;
};

#define RIG_NAME(type, literal)                                                                    \
    {                                                                                              \
        type, literal, sizeof(literal) - 1                                                         \
    }

struct rig_certificate {
    struct rig_name name[RIG_NAMES_MAX]; /* up to the first without data */
    const char *basic;                   /* basicConstraints as in openssl.cnf; NULL: CA:FALSE */
    const char *usage;                   /* extendedKeyUsage; NULL: none */
    const char *key_usage;               /* NULL: none */
    unsigned more_names;                 /* DNS names behind those above */
    bool names_twice, usage_twice;       /* the extension is there twice */
    bool version_1;                      /* without any extension */
    int64_t from_s, until_s;             /* 0: RIG_FROM_S, RIG_UNTIL_S */
    X509 *ca;                            /* NULL: it signs itself */
    EVP_PKEY *ca_key;
};

#define RIG_FROM_S  1772548200 /* 2026-03-03T14:30:00Z */
#define RIG_UNTIL_S 4102444800 /* 2100-01-01T00:00:00Z */

/* The key of every one of them; to be freed. */
EVP_PKEY *rig_key(void);

/* As a reader of its DER gets it. */
X509 *rig_certificate(const struct rig_certificate *c);

/* Its PEM; returns the bytes. */
size_t rig_pem(X509 *x, char *ret, size_t bytes_max);

#endif
