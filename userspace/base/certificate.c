/*
 * certificate.c - see certificate.h.
 */
#include "base/certificate.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define URN "urn:sluice:"

static const struct role {
    const char *name, *prefix;
    uint32_t usage; /* extended; of a CA's there is nothing to say */
} roles[] = {
    [CERTIFICATE_CA] = { "ca", URN "ca:", 0 },
    [CERTIFICATE_NODE] = { "node", URN "node:", XKU_SSL_SERVER | XKU_SSL_CLIENT },
    [CERTIFICATE_ADMIN] = { "admin", URN "client:admin:", XKU_SSL_CLIENT },
    [CERTIFICATE_PRODUCER] = { "producer", URN "client:producer:", XKU_SSL_CLIENT },
    [CERTIFICATE_READER] = { "reader", URN "client:reader:", XKU_SSL_CLIENT },
};

_Static_assert(sizeof roles / sizeof *roles == CERTIFICATE_ROLES, "one line a role");
_Static_assert(sizeof(URN "client:producer:") - 1 + CERTIFICATE_NAME_BYTES <= CERTIFICATE_URI_BYTES,
               "the longest URI");
_Static_assert(sizeof(URN "node:65535:") - 1 + CERTIFICATE_NAME_BYTES <= CERTIFICATE_URI_BYTES,
               "a node's URI");

static int refuse(int error, const char *why, const char **ret_why)
{
    assert(error < 0);
    ERR_clear_error(); /* what OpenSSL noted on the way is not the next caller's */
    *ret_why = why;
    return error;
}

/* Letters and digits of ASCII alone: the locale has no say. */
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_alnum(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* --- roles ---------------------------------------------------------------------------------- */

const char *certificate_role_name(enum certificate_role role)
{
    assert(role < CERTIFICATE_ROLES);
    return roles[role].name;
}

bool certificate_name_valid(const char *text, size_t bytes)
{
    if (bytes == 0 || bytes >= CERTIFICATE_NAME_BYTES)
        return false;
    for (size_t i = 0; i < bytes; i++)
        if (!is_alnum(text[i]) && text[i] != '.' && text[i] != '_' && text[i] != '-')
            return false;
    return true;
}

void certificate_uri(const struct certificate *c, char ret[CERTIFICATE_URI_BYTES])
{
    int n;

    assert(c->role < CERTIFICATE_ROLES && (c->node > 0) == (c->role == CERTIFICATE_NODE));
    assert(certificate_name_valid(c->name, strnlen(c->name, sizeof c->name)));
    if (c->role == CERTIFICATE_NODE)
        n = snprintf(ret, CERTIFICATE_URI_BYTES, "%s%u:%s", roles[c->role].prefix, c->node,
                     c->name);
    else
        n = snprintf(ret, CERTIFICATE_URI_BYTES, "%s%s", roles[c->role].prefix, c->name);
    assert(n > 0 && n < (int)CERTIFICATE_URI_BYTES);
}

/* Takes at most five digits, so that nothing overflows, and the colon behind them. */
static const char *node_parse(const char *at, uint16_t *ret)
{
    uint32_t id = 0;

    for (unsigned i = 0; i < 5 && is_digit(*at); i++)
        id = 10 * id + (uint32_t)(*at++ - '0');
    if (*at != ':' || id == 0 || id > CERTIFICATE_NODE_MAX)
        return NULL;
    *ret = (uint16_t)id;
    return at + 1;
}

/* Role, node and name of a URI without NULs. 0 or -EINVAL. */
static int uri_parse(const char *uri, size_t bytes, struct certificate *ret)
{
    char text[CERTIFICATE_URI_BYTES], again[CERTIFICATE_URI_BYTES];

    if (bytes >= sizeof text)
        return -EINVAL;
    memcpy(text, uri, bytes);
    text[bytes] = '\0';
    for (unsigned role = 0; role < CERTIFICATE_ROLES; role++) {
        const char *at = text + strlen(roles[role].prefix);

        if (strncmp(text, roles[role].prefix, strlen(roles[role].prefix)) != 0)
            continue;
        ret->role = (enum certificate_role)role;
        ret->node = 0;
        if (role == CERTIFICATE_NODE)
            at = node_parse(at, &ret->node);
        if (at == NULL || !certificate_name_valid(at, strlen(at)))
            return -EINVAL;
        snprintf(ret->name, sizeof ret->name, "%s", at);
        /* Only what we would write ourselves: 03 is no 3. */
        certificate_uri(ret, again);
        return strcmp(text, again) == 0 ? 0 : -EINVAL;
    }
    return -EINVAL;
}

/* --- subject alternative names -------------------------------------------------------------- */

static int names_get(X509 *x, GENERAL_NAMES **ret, const char **ret_why)
{
    int found;
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, &found, NULL);

    if (names == NULL && found == -1)
        return refuse(-EINVAL, "has no role of Sluice: it has no subject alternative names",
                      ret_why);
    if (names == NULL)
        return refuse(-EINVAL, "has subject alternative names that are broken or there twice",
                      ret_why);
    if (sk_GENERAL_NAME_num(names) > (int)CERTIFICATE_NAMES_MAX) {
        GENERAL_NAMES_free(names);
        return refuse(-EINVAL, "has more than 64 subject alternative names", ret_why);
    }
    *ret = names;
    return 0;
}

_Static_assert(CERTIFICATE_NAMES_MAX == 64, "the sentence above says so");

static int names_role(const GENERAL_NAMES *names, struct certificate *ret, const char **ret_why)
{
    unsigned found = 0;

    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        const char *uri;
        size_t bytes;

        if (name->type != GEN_URI)
            continue;
        uri = (const char *)ASN1_STRING_get0_data(name->d.uniformResourceIdentifier);
        bytes = (size_t)ASN1_STRING_length(name->d.uniformResourceIdentifier);
        /* A reader in C would see another URI than one in Java. */
        if (memchr(uri, '\0', bytes) != NULL)
            return refuse(-EINVAL, "has a URI with a NUL in it", ret_why);
        /* urn: and what follows are the same in capitals (RFC 8141, section 3.1): so it is ours,
         * and then refused as not canonical, rather than not seen. */
        if (bytes < sizeof URN - 1 || strncasecmp(uri, URN, sizeof URN - 1) != 0)
            continue;
#ifndef PLANT_CERTIFICATE_TWO_ROLES
        if (found++ > 0)
            return refuse(-EINVAL, "has more than one role of Sluice", ret_why);
#else
        found++;
#endif
        if (uri_parse(uri, bytes, ret) < 0)
            return refuse(-EINVAL, "has a urn:sluice: that names no role, node or name", ret_why);
    }
    if (found == 0)
        return refuse(-EINVAL, "has no role of Sluice: no urn:sluice: is in it", ret_why);
    return 0;
}

/* Does what the certificate may be used for agree with the role? */
static int check_usage(X509 *x, enum certificate_role role, const char **ret_why)
{
    int ca = X509_check_ca(x);

    if (role == CERTIFICATE_CA && ca != 1)
        return refuse(-EINVAL, "contradicts itself: its role is ca, and it may not sign others",
                      ret_why);
    if (role == CERTIFICATE_CA)
        return 0;
    /* Anything but 0 is some reader's CA: old ones took those without basicConstraints. */
    if (ca != 0)
        return refuse(-EINVAL, "contradicts itself: it may sign others, and its role is not ca",
                      ret_why);
    if (X509_get_extended_key_usage(x) != roles[role].usage)
        return refuse(-EINVAL, "contradicts itself: its role asks for another extended key usage",
                      ret_why);
    return 0;
}

static int time_get(const ASN1_TIME *t, int64_t *ret)
{
    struct tm tm;

    if (t == NULL || ASN1_TIME_to_tm(t, &tm) != 1)
        return -EINVAL;
    *ret = timegm(&tm);
    return 0;
}

int certificate_read(X509 *x, struct certificate *ret, const char **ret_why)
{
    struct certificate c = { .node = 0 };
    GENERAL_NAMES *names;
    int rc;

    assert(x != NULL);
    if (X509_get_version(x) != X509_VERSION_3 ||
        (X509_get_extension_flags(x) & EXFLAG_INVALID) != 0)
        return refuse(-EINVAL, "has extensions that are broken or there twice", ret_why);
    rc = names_get(x, &names, ret_why);
    if (rc < 0)
        return rc;
    rc = names_role(names, &c, ret_why);
    GENERAL_NAMES_free(names);
    if (rc == 0)
        rc = check_usage(x, c.role, ret_why);
    if (rc < 0)
        return rc;
    if (time_get(X509_get0_notBefore(x), &c.from_s) < 0 ||
        time_get(X509_get0_notAfter(x), &c.until_s) < 0 || c.until_s < c.from_s)
        return refuse(-EINVAL, "has dates that are none", ret_why);
    assert((c.node > 0) == (c.role == CERTIFICATE_NODE) && c.name[0] != '\0');
    *ret = c;
    return 0;
}

/* --- hosts ---------------------------------------------------------------------------------- */

size_t certificate_host_address(const char *host, uint8_t ret[16])
{
    if (inet_pton(AF_INET, host, ret) == 1)
        return 4;
    return inet_pton(AF_INET6, host, ret) == 1 ? 16 : 0;
}

/* RFC 1123, section 2.1; no last dot, no wildcard. Its last label is not all digits, or 10.0.0.300
 * would be a name. */
static bool is_dns_name(const char *text)
{
    size_t label = 0;
    bool digits = true;

    if (strlen(text) >= CERTIFICATE_HOST_BYTES)
        return false;
    for (const char *at = text; *at; at++) {
        if (*at == '.') {
            if (label == 0 || at[-1] == '-')
                return false;
            label = 0;
            digits = true;
            continue;
        }
        if (!is_alnum(*at) && (*at != '-' || label == 0))
            return false;
        if (++label > 63)
            return false;
        digits &= is_digit(*at);
    }
    return label > 0 && !digits && text[strlen(text) - 1] != '-';
}

int certificate_hosts_add(struct certificate_hosts *h, const char *text, size_t bytes,
                          const char **ret_why)
{
    char host[CERTIFICATE_HOST_BYTES];
    uint8_t address[16];
    size_t address_bytes;

    assert(h->n <= CERTIFICATE_HOSTS_MAX);
    if (bytes == 0 || bytes >= sizeof host || memchr(text, '\0', bytes) != NULL)
        return refuse(-EINVAL, "is neither a DNS name nor an IP address", ret_why);
    for (size_t i = 0; i < bytes; i++)
        host[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] | 0x20 : text[i]);
    host[bytes] = '\0';
    address_bytes = certificate_host_address(host, address);
    if (address_bytes > 0)
        inet_ntop(address_bytes == 4 ? AF_INET : AF_INET6, address, host, sizeof host);
    else if (!is_dns_name(host))
        return refuse(-EINVAL, "is neither a DNS name nor an IP address", ret_why);
    for (unsigned i = 0; i < h->n; i++)
        if (strcmp(h->at[i], host) == 0)
            return refuse(-EEXIST, "is there twice", ret_why);
    if (h->n == CERTIFICATE_HOSTS_MAX)
        return refuse(-E2BIG, "is one host too many: 16 fit", ret_why);
    snprintf(h->at[h->n++], sizeof h->at[0], "%s", host);
    return 0;
}

_Static_assert(CERTIFICATE_HOSTS_MAX == 16, "the sentence above says so");

/* One alternative name; those that are no hosts are left out. */
static int add_name(struct certificate_hosts *h, const GENERAL_NAME *name)
{
    const char *ignored;
    char text[INET6_ADDRSTRLEN], *dns;
    uint8_t address[16];
    size_t bytes;

    if (name->type == GEN_IPADD) {
        bytes = (size_t)ASN1_STRING_length(name->d.iPAddress);
        if (bytes != 4 && bytes != 16)
            return -EINVAL;
        inet_ntop(bytes == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(name->d.iPAddress), text,
                  sizeof text);
        return certificate_hosts_add(h, text, strlen(text), &ignored);
    }
    if (name->type != GEN_DNS)
        return 0;
    dns = (char *)ASN1_STRING_get0_data(name->d.dNSName);
    bytes = (size_t)ASN1_STRING_length(name->d.dNSName);
    /* Behind a DNS name OpenSSL puts a NUL, so it can be read as text. */
    if (memchr(dns, '\0', bytes) != NULL || certificate_host_address(dns, address) > 0)
        return -EINVAL;
    return certificate_hosts_add(h, dns, bytes, &ignored);
}

int certificate_read_hosts(X509 *x, struct certificate_hosts *ret, const char **ret_why)
{
    struct certificate_hosts h = { .n = 0 };
    GENERAL_NAMES *names;
    int rc = names_get(x, &names, ret_why);

    if (rc < 0)
        return rc;
    for (int i = 0; rc == 0 && i < sk_GENERAL_NAME_num(names); i++)
        rc = add_name(&h, sk_GENERAL_NAME_value(names, i));
    GENERAL_NAMES_free(names);
    if (rc < 0)
        return refuse(-EINVAL, "has host names that are none, there twice or more than 16",
                      ret_why);
    *ret = h;
    return 0;
}

/* --- files ---------------------------------------------------------------------------------- */

/* The certificate of one PEM block, all of it; NULL when it is broken. */
static X509 *block_parse(const char *header, const unsigned char *der, long bytes)
{
    const unsigned char *end = der;
    X509 *x = header[0] == '\0' ? d2i_X509(NULL, &end, bytes) : NULL;

    if (x != NULL && end != der + bytes) {
        X509_free(x);
        return NULL;
    }
    return x;
}

int certificate_parse(const void *data, size_t bytes, X509 **ret, const char **ret_why)
{
    X509 *x = NULL, *next;
    unsigned char *der;
    char *name, *header;
    const char *why = NULL;
    BIO *in;
    long n;

    if (bytes > CERTIFICATE_FILE_BYTES_MAX)
        return refuse(-EFBIG, "is longer than 64 KiB: no certificate of Sluice is", ret_why);
    in = BIO_new_mem_buf(data, (int)bytes);
    if (in == NULL)
        return refuse(-ENOMEM, "does not fit into memory", ret_why);
    /* Each turn takes at least one line of what is bounded above. */
    while (why == NULL && PEM_read_bio(in, &name, &header, &der, &n) == 1) {
        if (strcmp(name, PEM_STRING_X509) == 0) {
            next = block_parse(header, der, n);
            if (next == NULL)
                why = "has a certificate that is broken";
            else if (x != NULL)
                why = "has more than one certificate";
            X509_free(x);
            x = next;
        }
        OPENSSL_free(name);
        OPENSSL_free(header);
        OPENSSL_clear_free(der, (size_t)n); /* it may have been a key */
    }
    BIO_free(in);
    if (why == NULL && x == NULL)
        why = "is no certificate in PEM";
    if (why != NULL) {
        X509_free(x);
        return refuse(-EBADMSG, why, ret_why);
    }
    ERR_clear_error(); /* the end of the file is one of PEM_read_bio()'s errors */
    *ret = x;
    return 0;
}

_Static_assert(CERTIFICATE_FILE_BYTES_MAX == 64 << 10, "the sentence above says so");

int certificate_load_fd(int fd, X509 **ret, const char **ret_why)
{
    char data[CERTIFICATE_FILE_BYTES_MAX + 1]; /* one more, to see that there is more */
    size_t bytes = 0;
    struct stat st;
    ssize_t n;

    assert(fd >= 0);
    if (fstat(fd, &st) < 0)
        return refuse(-errno, strerror(errno), ret_why);
    if (!S_ISREG(st.st_mode)) /* a pipe could keep us waiting */
        return refuse(-EBADMSG, "is not a regular file", ret_why);
    do {
        n = read(fd, data + bytes, sizeof data - bytes);
        if (n < 0)
            return refuse(-errno, "cannot be read", ret_why);
        bytes += (size_t)n;
    } while (n > 0 && bytes < sizeof data);
    return certificate_parse(data, bytes, ret, ret_why);
}

int certificate_load(const char *path, X509 **ret, const char **ret_why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc;

    if (fd < 0)
        return refuse(-errno,
                      errno == ENOENT   ? "does not exist"
                      : errno == EACCES ? "may not be read by this user"
                                        : "cannot be opened",
                      ret_why);
    rc = certificate_load_fd(fd, ret, ret_why);
    close(fd);
    return rc;
}
