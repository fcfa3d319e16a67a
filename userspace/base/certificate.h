/*
 * certificate.h - whom a certificate speaks for, and nothing else: not whether it is to be trusted.
 *
 * A certificate of Sluice says who its holder is in one URI among its subject alternative names:
 *
 *   urn:sluice:ca:NAME                 signs the others
 *   urn:sluice:node:ID:NAME            a node of the cluster; ID is 1 to 65535
 *   urn:sluice:client:admin:NAME       | who may administer,
 *   urn:sluice:client:producer:NAME    | send events,
 *   urn:sluice:client:reader:NAME      | read events
 *
 * NAME is [A-Za-z0-9._-]{1,64}. There is one way to write each; any other is refused, as is a
 * second URI of Sluice's, however it is written. Subject and host names say nothing about the role.
 * What the certificate may be used for must agree with the role, so that no client passes for a
 * node: a CA is a CA (basicConstraints) and no other is, a node has the extended key usages
 * serverAuth and clientAuth, a client has clientAuth alone.
 *
 * The chain, the dates against the clock, and the peer's host name are for the TLS library to
 * check.
 *
 * Thread:  any; an X509 belongs to one at a time.
 * Memory:  certificate_load() and certificate_parse() give an X509, to be freed with X509_free().
 * Limits:  below; certificates come from anybody.
 * Errors:  -EBADMSG for what is no certificate, -EINVAL for one that is not Sluice's, -EFBIG, or
 *          the system's; and *ret_why is a sentence's end: "FILE " WHY. It is set on failure only.
 */
#ifndef SLUICE_BASE_CERTIFICATE_H
#define SLUICE_BASE_CERTIFICATE_H

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CERTIFICATE_NODE_MAX       65535u
#define CERTIFICATE_NAME_BYTES     65u  /* the terminator included, here and below */
#define CERTIFICATE_URI_BYTES      96u  /* urn:sluice:client:producer: and a name */
#define CERTIFICATE_HOST_BYTES     254u /* RFC 1035: 253 characters */
#define CERTIFICATE_HOSTS_MAX      16u
#define CERTIFICATE_NAMES_MAX      64u /* subject alternative names of any kind */
#define CERTIFICATE_FILE_BYTES_MAX (64u << 10)

enum certificate_role {
    CERTIFICATE_CA,
    CERTIFICATE_NODE,
    CERTIFICATE_ADMIN,
    CERTIFICATE_PRODUCER,
    CERTIFICATE_READER,
    CERTIFICATE_ROLES,
};

struct certificate {
    enum certificate_role role;
    uint16_t node; /* 0 unless the role is CERTIFICATE_NODE */
    char name[CERTIFICATE_NAME_BYTES];
    int64_t from_s, until_s; /* Unix time; valid at both */
};

/* DNS names in small letters, and addresses as inet_ntop() writes them. */
struct certificate_hosts {
    unsigned n;
    char at[CERTIFICATE_HOSTS_MAX][CERTIFICATE_HOST_BYTES];
};

/* "ca", "node", "admin", "producer", "reader". */
const char *certificate_role_name(enum certificate_role role);
bool certificate_name_valid(const char *text, size_t bytes);

/* The URI of a role, node and name that are valid. */
void certificate_uri(const struct certificate *c, char ret[CERTIFICATE_URI_BYTES]);

int certificate_read(X509 *x, struct certificate *ret, const char **ret_why);

/* Its DNS names and addresses. -EINVAL also when one of them is none. */
int certificate_read_hosts(X509 *x, struct certificate_hosts *ret, const char **ret_why);

/* Adds a host as a person writes it. -EINVAL when it is neither DNS name nor address, -EEXIST when
 * it is there, -E2BIG when it would be one too many. */
int certificate_hosts_add(struct certificate_hosts *h, const char *text, size_t bytes,
                          const char **ret_why);

/* Is it an address? ret: its 4 or 16 bytes. Returns how many, or 0. */
size_t certificate_host_address(const char *host, uint8_t ret[16]);

/* PEM with exactly one certificate; what else is in it, but for other certificates, is skipped. */
int certificate_parse(const void *data, size_t bytes, X509 **ret, const char **ret_why);
/* The same from a regular file, open for reading or not yet. */
int certificate_load_fd(int fd, X509 **ret, const char **ret_why);
int certificate_load(const char *path, X509 **ret, const char **ret_why);

#endif
