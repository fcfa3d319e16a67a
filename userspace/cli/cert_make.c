/*
 * cert_make.c - keys, and certificates of RFC 5280; see cert.h.
 *
 * The keys are ECDSA on P-256, signed with SHA-256: the one signature that every TLS 1.3 stack must
 * have (RFC 8446, section 9.1), so Python's, Java's and Go's take it in every version and in their
 * FIPS modes. Ed25519 is optional there: Java has it since 15 only.
 */
#include "cli/cert.h"

#include <assert.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <string.h>

#define SERIAL_BYTES 16 /* random, so no two are the same without a list of those given out */

EVP_PKEY *cert_make_key(void) { return EVP_EC_gen("P-256"); }

bool cert_is_our_key(const EVP_PKEY *key)
{
    char group[32];
    size_t n;

    return EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_group_name(key, group, sizeof group, &n) == 1 &&
           strcmp(group, "prime256v1") == 0;
}

static bool set_serial(X509 *x)
{
    unsigned char bytes[SERIAL_BYTES];
    ASN1_INTEGER *serial;
    BIGNUM *n;
    bool ok;

    if (RAND_bytes(bytes, sizeof bytes) != 1)
        return false;
    bytes[0] |= bytes[0] == 0; /* so it is not 0, and always as long */
    n = BN_bin2bn(bytes, sizeof bytes, NULL);
    serial = n ? BN_to_ASN1_INTEGER(n, NULL) : NULL;
    ok = serial != NULL && X509_set_serialNumber(x, serial) == 1;
    ASN1_INTEGER_free(serial);
    BN_free(n);
    return ok;
}

/* For people. The role is in it so that no holder has the CA's name: that would look self-signed.
 */
static X509_NAME *make_subject(const struct certificate *who)
{
    const unsigned char *role = (const unsigned char *)certificate_role_name(who->role);
    X509_NAME *name = X509_NAME_new();

    if (name != NULL &&
        X509_NAME_add_entry_by_txt(name, "O", MBSTRING_ASC, (const unsigned char *)"Sluice", -1, -1,
                                   0) == 1 &&
        X509_NAME_add_entry_by_txt(name, "OU", MBSTRING_ASC, role, -1, -1, 0) == 1 &&
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)who->name, -1,
                                   -1, 0) == 1)
        return name;
    X509_NAME_free(name);
    return NULL;
}

static bool set_names(X509 *x, const struct cert_order *o)
{
    X509_NAME *subject = make_subject(o->who);
    bool ok = subject != NULL && X509_set_subject_name(x, subject) == 1 &&
              X509_set_issuer_name(x, o->ca ? X509_get_subject_name(o->ca) : subject) == 1;

    X509_NAME_free(subject);
    return ok;
}

static bool set_dates(X509 *x, const struct certificate *who)
{
    ASN1_TIME *from = ASN1_TIME_set(NULL, (time_t)who->from_s);
    ASN1_TIME *until = ASN1_TIME_set(NULL, (time_t)who->until_s);
    bool ok =
        from && until && X509_set1_notBefore(x, from) == 1 && X509_set1_notAfter(x, until) == 1;

    ASN1_TIME_free(from);
    ASN1_TIME_free(until);
    return ok;
}

/* An extension as openssl.cnf writes it; value is never made of what was given to us. */
static bool add_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509_EXTENSION *e;
    bool ok;

    X509V3_set_ctx(&context, issuer, x, NULL, NULL, 0);
    e = X509V3_EXT_nconf_nid(NULL, &context, nid, value);
    ok = e != NULL && X509_add_ext(x, e, -1) == 1;
    X509_EXTENSION_free(e);
    return ok;
}

/* Takes value. */
static bool push_name(GENERAL_NAMES *names, int type, ASN1_STRING *value)
{
    GENERAL_NAME *name = GENERAL_NAME_new();

    if (name == NULL || value == NULL || sk_GENERAL_NAME_push(names, name) <= 0) {
        GENERAL_NAME_free(name);
        ASN1_STRING_free(value);
        return false;
    }
    GENERAL_NAME_set0_value(name, type, value);
    return true;
}

static ASN1_STRING *make_string(int type, const void *data, size_t bytes)
{
    ASN1_STRING *s = ASN1_STRING_type_new(type);

    if (s != NULL && ASN1_STRING_set(s, data, (int)bytes) == 1)
        return s;
    ASN1_STRING_free(s);
    return NULL;
}

static bool push_host(GENERAL_NAMES *names, const char *host)
{
    uint8_t address[16];
    size_t bytes = certificate_host_address(host, address);

    if (bytes > 0)
        return push_name(names, GEN_IPADD, make_string(V_ASN1_OCTET_STRING, address, bytes));
    return push_name(names, GEN_DNS, make_string(V_ASN1_IA5STRING, host, strlen(host)));
}

static bool add_alternative_names(X509 *x, const struct cert_order *o)
{
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    char uri[CERTIFICATE_URI_BYTES];
    bool ok;

    certificate_uri(o->who, uri);
    ok =
        names != NULL && push_name(names, GEN_URI, make_string(V_ASN1_IA5STRING, uri, strlen(uri)));
    for (unsigned i = 0; ok && i < o->hosts->n; i++)
        ok = push_host(names, o->hosts->at[i]);
    ok = ok && X509_add1_ext_i2d(x, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1;
    GENERAL_NAMES_free(names);
    return ok;
}

static bool add_extensions(X509 *x, const struct cert_order *o)
{
    bool ca = o->who->role == CERTIFICATE_CA;
    const char *usage = o->who->role == CERTIFICATE_NODE ? "serverAuth,clientAuth" : "clientAuth";

    return add_extension(x, x, NID_basic_constraints,
                         ca ? "critical,CA:TRUE,pathlen:0" : "critical,CA:FALSE") &&
           add_extension(x, x, NID_key_usage,
                         ca ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature") &&
           add_extension(x, x, NID_subject_key_identifier, "hash") &&
           (ca || (add_extension(x, x, NID_ext_key_usage, usage) &&
                   add_extension(x, o->ca, NID_authority_key_identifier, "keyid:always"))) &&
           add_alternative_names(x, o);
}

X509 *cert_make(const struct cert_order *o)
{
    X509 *x = X509_new();

    assert((o->ca == NULL) == (o->who->role == CERTIFICATE_CA) && o->who->from_s < o->who->until_s);
    if (x != NULL && X509_set_version(x, X509_VERSION_3) == 1 && set_serial(x) && set_names(x, o) &&
        set_dates(x, o->who) && X509_set_pubkey(x, o->key) == 1 && add_extensions(x, o) &&
        X509_sign(x, o->ca ? o->ca_key : o->key, EVP_sha256()) > 0)
        return x;
    X509_free(x);
    return NULL;
}
