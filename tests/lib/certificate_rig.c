/*
 * certificate_rig.c - see certificate_rig.h.
 */
#include "tests/lib/certificate_rig.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>

static void add_extension(X509 *x, int nid, const char *value)
{
    X509V3_CTX context;
    X509_EXTENSION *e;

    X509V3_set_ctx(&context, x, x, NULL, NULL, 0);
    e = X509V3_EXT_nconf_nid(NULL, &context, nid, value);
    assert_non_null(e);
    assert_int_equal(X509_add_ext(x, e, -1), 1);
    X509_EXTENSION_free(e);
}

static void push_name(GENERAL_NAMES *names, const struct rig_name *n)
{
    ASN1_STRING *s =
        ASN1_STRING_type_new(n->type == GEN_IPADD ? V_ASN1_OCTET_STRING : V_ASN1_IA5STRING);
    GENERAL_NAME *name = GENERAL_NAME_new();

    assert_int_equal(ASN1_STRING_set(s, n->data, (int)n->bytes), 1);
    GENERAL_NAME_set0_value(name, n->type, s);
    assert_true(sk_GENERAL_NAME_push(names, name) > 0);
}

static void add_names(X509 *x, const struct rig_certificate *c)
{
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    char host[32];

    for (unsigned i = 0; i < RIG_NAMES_MAX && c->name[i].data != NULL; i++)
        push_name(names, &c->name[i]);
    for (unsigned i = 0; i < c->more_names; i++) {
        struct rig_name n = { GEN_DNS, host, 0 };

        n.bytes = (size_t)snprintf(host, sizeof host, "h%u.example", i);
        push_name(names, &n);
    }
    for (int i = 0; i < (c->names_twice ? 2 : 1) && sk_GENERAL_NAME_num(names) > 0; i++)
        assert_int_equal(X509_add1_ext_i2d(x, NID_subject_alt_name, names, 0, X509V3_ADD_APPEND),
                         1);
    GENERAL_NAMES_free(names);
}

static X509 *again(X509 *x)
{
    unsigned char *der = NULL;
    int bytes = i2d_X509(x, &der);
    const unsigned char *at = der;
    X509 *read;

    assert_true(bytes > 0);
    read = d2i_X509(NULL, &at, bytes);
    assert_non_null(read);
    OPENSSL_free(der);
    X509_free(x);
    return read;
}

EVP_PKEY *rig_key(void)
{
    static const unsigned char secret[32] = "a key that everybody may have   ";
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, secret, sizeof secret);

    assert_non_null(key);
    return key;
}

X509 *rig_certificate(const struct rig_certificate *c)
{
    EVP_PKEY *key = rig_key();
    X509 *x = X509_new();

    X509_set_version(x, c->version_1 ? X509_VERSION_1 : X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 7);
    ASN1_TIME_set(X509_getm_notBefore(x), c->from_s ? c->from_s : RIG_FROM_S);
    ASN1_TIME_set(X509_getm_notAfter(x), c->until_s ? c->until_s : RIG_UNTIL_S);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)"anybody", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(c->ca ? c->ca : x));
    X509_set_pubkey(x, key);
    if (!c->version_1) {
        add_extension(x, NID_basic_constraints, c->basic ? c->basic : "critical,CA:FALSE");
        for (int i = 0; i < (c->usage_twice ? 2 : 1) && c->usage != NULL; i++)
            add_extension(x, NID_ext_key_usage, c->usage);
        if (c->key_usage != NULL)
            add_extension(x, NID_key_usage, c->key_usage);
        add_names(x, c);
    }
    assert_true(X509_sign(x, c->ca ? c->ca_key : key, c->ca ? EVP_sha256() : NULL) > 0);
    EVP_PKEY_free(key);
    return again(x);
}

size_t rig_pem(X509 *x, char *ret, size_t bytes_max)
{
    BIO *b = BIO_new(BIO_s_mem());
    int n;

    assert_int_equal(PEM_write_bio_X509(b, x), 1);
    n = BIO_read(b, ret, (int)bytes_max);
    assert_true(n > 0 && (size_t)n < bytes_max);
    BIO_free(b);
    return (size_t)n;
}
