/*
 * cert_show.c - `sluice cert show`, and what the commands that make one say at their end.
 */
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/hash.h"
#include "base/hex.h"
#include "cli/cert.h"
#include "cli/columns.h"

#define NAME_TEXT_BYTES   1024u /* a subject; ours have below 100 */
#define SERIAL_TEXT_BYTES 41u   /* RFC 5280: at most 20 bytes */
#define DAY_S             86400

/* A certificate as texts. */
struct shown {
    struct certificate who;
    struct certificate_hosts hosts;
    char subject[NAME_TEXT_BYTES], issuer[NAME_TEXT_BYTES];
    char serial[SERIAL_TEXT_BYTES];
    char fingerprint[2 * SHA256_BYTES + 1];
    char from[CERT_TIME_BYTES], until[CERT_TIME_BYTES];
    int64_t days_left;
    bool early, late;
};

const char *cert_time(char ret[CERT_TIME_BYTES], int64_t unix_s)
{
    time_t s = (time_t)unix_s;
    struct tm tm;

    if (gmtime_r(&s, &tm) == NULL || strftime(ret, CERT_TIME_BYTES, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        snprintf(ret, CERT_TIME_BYTES, "-");
    return ret;
}

/* RFC 4514, in printable ASCII whatever is in it. */
static void name_text(char ret[NAME_TEXT_BYTES], const X509_NAME *name)
{
    BIO *b = BIO_new(BIO_s_mem());
    int n;

    ret[0] = '\0';
    if (b != NULL && X509_NAME_print_ex(b, name, 0, XN_FLAG_RFC2253) >= 0) {
        n = BIO_read(b, ret, NAME_TEXT_BYTES - 1);
        ret[n > 0 ? n : 0] = '\0';
    }
    BIO_free(b);
}

static void serial_text(char ret[SERIAL_TEXT_BYTES], const ASN1_INTEGER *serial)
{
    int bytes = ASN1_STRING_length(serial);

    if (bytes <= (int)(SERIAL_TEXT_BYTES - 1) / 2)
        hex_put(ret, ASN1_STRING_get0_data(serial), (size_t)bytes);
    else
        snprintf(ret, SERIAL_TEXT_BYTES, "longer than 20 bytes");
}

static int shown_init(struct shown *s, X509 *x, const char **ret_why)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned bytes = 0;
    int64_t now_s = time(NULL), left_s;
    int rc = certificate_read(x, &s->who, ret_why);

    if (rc == 0)
        rc = certificate_read_hosts(x, &s->hosts, ret_why);
    if (rc < 0)
        return rc;
    name_text(s->subject, X509_get_subject_name(x));
    name_text(s->issuer, X509_get_issuer_name(x));
    serial_text(s->serial, X509_get0_serialNumber(x));
    if (X509_digest(x, EVP_sha256(), digest, &bytes) == 1)
        hex_put(s->fingerprint, digest, bytes);
    cert_time(s->from, s->who.from_s);
    cert_time(s->until, s->who.until_s);
    s->early = now_s < s->who.from_s;
    s->late = now_s > s->who.until_s;
    /* Whole days, rounded down: 0 on the last one, below 0 behind it. */
    left_s = s->who.until_s - now_s;
    s->days_left = left_s / DAY_S - (left_s % DAY_S < 0);
    return 0;
}

static void add_row(struct columns *t, const char *what, const char *value)
{
    columns_text(t, "%s", what);
    columns_text(t, "%s", value);
}

static int print_text(const struct shown *s, const char *const files[2])
{
    struct columns *t = calloc(1, sizeof *t);
    size_t i;

    if (t == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    columns_init(t, "ll", false);
    if (files != NULL) {
        add_row(t, "key", files[0]);
        add_row(t, "certificate", files[1]);
    }
    add_row(t, "role", certificate_role_name(s->who.role));
    if (s->who.node > 0)
        columns_text(t, "node"), columns_text(t, "%u", s->who.node);
    add_row(t, "name", s->who.name);
    for (i = 0; i < s->hosts.n; i++)
        add_row(t, i == 0 ? "hosts" : "", s->hosts.at[i]);
    add_row(t, "subject", s->subject);
    add_row(t, "issuer", s->issuer);
    add_row(t, "CA", s->who.role == CERTIFICATE_CA ? "yes" : "no");
    add_row(t, "valid from", s->from);
    add_row(t, "valid until", s->until);
    columns_text(t, "days left");
    columns_text(t, "%lld%s", (long long)s->days_left,
                 s->early  ? " (NOT YET VALID)"
                 : s->late ? " (EXPIRED)"
                           : "");
    add_row(t, "serial", s->serial);
    add_row(t, "SHA-256", s->fingerprint);
    columns_print(t, stdout, 0);
    free(t);
    return CLI_OK;
}

static json_t *shown_json(const struct shown *s, const char *const files[2])
{
    char uri[CERTIFICATE_URI_BYTES];
    json_t *hosts = json_array(), *j;

    for (unsigned i = 0; i < s->hosts.n; i++)
        json_array_append_new(hosts, json_string(s->hosts.at[i]));
    certificate_uri(&s->who, uri);
    j = json_pack("{s:s, s:o, s:s, s:s, s:o, s:s, s:s, s:b, s:s, s:s, s:I, s:b, s:s, s:s}", "role",
                  certificate_role_name(s->who.role), "node",
                  s->who.node > 0 ? json_integer(s->who.node) : json_null(), "name", s->who.name,
                  "uri", uri, "hosts", hosts, "subject", s->subject, "issuer", s->issuer, "ca",
                  s->who.role == CERTIFICATE_CA, "validFrom", s->from, "validUntil", s->until,
                  "daysLeft", (json_int_t)s->days_left, "validNow", !s->early && !s->late, "serial",
                  s->serial, "fingerprintSha256", s->fingerprint);
    if (files != NULL) {
        json_object_set_new(j, "keyFile", json_string(files[0]));
        json_object_set_new(j, "certificateFile", json_string(files[1]));
    }
    return j;
}

int cert_print(X509 *x, const char *name, bool json, const char *const files[2])
{
    struct shown *s = calloc(1, sizeof *s);
    const char *why = NULL;
    int code;

    if (s == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    if (shown_init(s, x, &why) < 0) {
        free(s);
        return cli_error(CLI_NEGATIVE, "%s %s", name, why);
    }
    code = s->early || s->late ? CLI_NEGATIVE : CLI_OK;
    if (json)
        code = cli_print_json(shown_json(s, files), code);
    else
        code = print_text(s, files) == CLI_OK ? cli_finish(code) : CLI_REFUSED;
    free(s);
    return code;
}

int cert_show(const char *path, bool json)
{
    const char *why = NULL;
    X509 *x;
    int rc = certificate_load(path, &x, &why);

    if (rc < 0)
        return cli_error(rc == -EBADMSG || rc == -EFBIG ? CLI_NEGATIVE : CLI_REFUSED, "%s %s", path,
                         why);
    rc = cert_print(x, path, json, NULL);
    X509_free(x);
    return rc;
}
