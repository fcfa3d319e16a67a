/*
 * pki_rig.c - see pki_rig.h.
 */
#include "tests/lib/pki_rig.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cli/cert.h"

#define DAY_S 86400

static void put(const struct pki *p, const char *file, X509 *x, EVP_PKEY *key)
{
    char path[PKI_PATH_BYTES];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s.crt", p->dir, file);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(PEM_write_X509(f, x), 1);
    assert_int_equal(fclose(f), 0);
    if (key == NULL)
        return;
    snprintf(path, sizeof path, "%s/%s.key", p->dir, file);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(PEM_write_PKCS8PrivateKey(f, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(f), 0);
}

static X509 *make(const struct pki *p, const struct certificate *who, EVP_PKEY *key)
{
    struct certificate_hosts hosts = { .n = 0 };
    struct cert_order o = {
        .who = who, .hosts = &hosts, .key = key, .ca = p->ca, .ca_key = p->ca_key
    };
    X509 *x = cert_make(&o);

    assert_non_null(x);
    return x;
}

void pki_open(struct pki *p)
{
    struct certificate who = { .role = CERTIFICATE_CA, .name = "test" };

    *p = (struct pki){ .ca = NULL };
    fixture_dir_make(p->dir);
    who.from_s = time(NULL) - DAY_S;
    who.until_s = who.from_s + 3650ll * DAY_S;
    p->ca_key = cert_make_key();
    assert_non_null(p->ca_key);
    p->ca = make(p, &who, p->ca_key);
    put(p, "ca", p->ca, NULL);
}

void pki_close(struct pki *p)
{
    X509_free(p->ca);
    EVP_PKEY_free(p->ca_key);
    fixture_dir_remove(p->dir);
}

void pki_add_dated(struct pki *p, const char *file, enum certificate_role role, uint16_t node,
                   int64_t from_s, int64_t until_s)
{
    struct certificate who = { .role = role, .node = node };
    EVP_PKEY *key = cert_make_key();
    X509 *x;

    assert_non_null(key);
    snprintf(who.name, sizeof who.name, "%s", file);
    who.from_s = time(NULL) + from_s;
    who.until_s = time(NULL) + until_s;
    x = make(p, &who, key);
    put(p, file, x, key);
    X509_free(x);
    EVP_PKEY_free(key);
}

void pki_add(struct pki *p, const char *file, enum certificate_role role, uint16_t node)
{
    pki_add_dated(p, file, role, node, -300, 365ll * DAY_S);
}

void pki_add_as(struct pki *p, const char *file, struct rig_certificate *c)
{
    EVP_PKEY *key = rig_key();
    X509 *x;

    c->ca = p->ca;
    c->ca_key = p->ca_key;
    c->from_s = time(NULL) - 300;
    x = rig_certificate(c);
    put(p, file, x, key);
    X509_free(x);
    EVP_PKEY_free(key);
}

const struct tls_files *pki_files(const struct pki *p, const char *file, struct pki_files *ret)
{
    snprintf(ret->ca, sizeof ret->ca, "%s/ca.crt", p->dir);
    snprintf(ret->cert, sizeof ret->cert, "%s/%s.crt", p->dir, file);
    snprintf(ret->key, sizeof ret->key, "%s/%s.key", p->dir, file);
    ret->files = (struct tls_files){ ret->ca, ret->cert, ret->key };
    return &ret->files;
}

struct tls_context *pki_context(const struct pki *p, const char *file)
{
    char error[TLS_ERROR_BYTES];
    struct tls_context *x;
    struct pki_files f;

    if (tls_context_new(&x, pki_files(p, file, &f), error) < 0)
        fail_msg("%s", error);
    return x;
}
