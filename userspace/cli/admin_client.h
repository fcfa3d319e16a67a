/*
 * admin_client.h - the CLI's end of the admin socket, or of a connection over TLS to a node.
 *
 * Thread:  one.
 * Memory:  one buffer of a response, allocated when connected.
 * Errors:  0 or negative errno; -ETIMEDOUT: no answer in time; -ECONNRESET: the daemon hung up.
 */
#ifndef SLUICE_CLI_ADMIN_CLIENT_H
#define SLUICE_CLI_ADMIN_CLIENT_H

#include "base/admin_frame.h"
#include "base/tls.h"

#define ADMIN_CLIENT_ERROR_BYTES 768u

struct admin_client {
    int fd;          /* -1: not connected */
    struct tls *tls; /* NULL: the socket */
    uint8_t *buf;
    size_t at, bytes; /* [at, bytes) came and is not consumed */
};

int admin_client_open(struct admin_client *ret, const char *path);
/* address: HOST:PORT. On failure error is one sentence. -EINVAL: what was given is not right. */
int admin_client_open_tls(struct admin_client *ret, const char *address,
                          const struct tls_files *files, char error[ADMIN_CLIENT_ERROR_BYTES]);
/* Accepts one that was never opened, if zeroed with fd -1. */
void admin_client_close(struct admin_client *c);
int admin_client_send(struct admin_client *c, const struct admin_request *r);
/* What TLS has to say about the last error, or NULL. */
const char *admin_client_error(const struct admin_client *c);
/* timeout_ms: for each piece that comes; -1: for ever. ret points into the buffer, until the next
 * call. */
int admin_client_next(struct admin_client *c, int timeout_ms, struct admin_response *ret);
/* Can admin_client_next() return without waiting? */
bool admin_client_ready(const struct admin_client *c);

#endif
