/*
 * tls.h - mutual TLS 1.3: who speaks, and bytes that nobody else reads.
 *
 * Both sides always show a certificate that our CA has signed itself, that is in its time, may be
 * used for its side, and has one role of Sluice (certificate.h). Host names are not looked at: who
 * the peer is stands in its certificate, and whether that one may do what it wants is for the
 * caller to say, after the handshake. A client that the server refuses learns that with its first
 * read: in TLS 1.3 its own handshake is over by then.
 *
 * There is no resumption, so every connection checks the certificates anew; no early data and no
 * renegotiation. Nothing is asked of a list of revoked certificates.
 *
 * A connection is of one of two kinds. On a descriptor it reads and writes itself, never blocks and
 * never raises SIGPIPE. In memory the caller moves the bytes: tls_feed() takes what came,
 * tls_drain() gives what has to go, after every call of any other function.
 *
 * Thread:  a context any, at once; a connection belongs to one thread at a time.
 * Memory:  a context may be freed before its connections. A quiet connection has no buffers; a busy
 *          one has two of TLS_HELD_BYTES and OpenSSL's own two of a record.
 * Limits:  below. What a peer sends before its handshake is done is bounded by
 *          TLS_HANDSHAKE_BYTES_MAX; how long it takes is for the caller to bound.
 * Errors:  -EAGAIN; -ECONNRESET when the bytes end without a close_notify, so that nobody takes a
 *          cut for an end; -EACCES when one side does not take the other's certificate; -EPROTO for
 *          what is no TLS 1.3; or the system's. All but -EAGAIN are for good, and tls_error() is
 *          one sentence without a full stop.
 */
#ifndef SLUICE_BASE_TLS_H
#define SLUICE_BASE_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/certificate.h"

#define TLS_ERROR_BYTES         512u
#define TLS_RECORD_BYTES        16384u      /* RFC 8446, section 5.1: of plaintext */
#define TLS_HELD_BYTES          (32u << 10) /* encrypted, of one direction */
#define TLS_HANDSHAKE_BYTES_MAX (32u << 10) /* from a peer that nobody knows yet */

struct tls_files {
    const char *ca, *cert, *key; /* PEM: one certificate each, and a key without a password */
};

struct tls_context;

/* Reads the files. They must belong together and be good now; the key may not be readable by every
 * user. error is one sentence without a full stop. */
int tls_context_new(struct tls_context **ret, const struct tls_files *files,
                    char error[TLS_ERROR_BYTES]);
void tls_context_free(struct tls_context *x);
/* Who we are. */
const struct certificate *tls_context_identity(const struct tls_context *x);

struct tls;

/* Borrows fd, which need not be non-blocking; closing it is the caller's. 0 or -ENOMEM. */
int tls_new_fd(struct tls **ret, struct tls_context *x, bool server, int fd);
int tls_new_memory(struct tls **ret, struct tls_context *x, bool server);
/* Tells the peer nothing. */
void tls_free(struct tls *t);

/* 0: done, and tls_peer() is known. */
int tls_handshake(struct tls *t);
bool tls_is_ready(const struct tls *t); /* has it been done? */
const struct certificate *tls_peer(const struct tls *t);
/* Has the time of the peer's certificate run out since? A connection outlives it otherwise. */
bool tls_peer_expired(const struct tls *t, uint64_t now_unix_ns);

/* After -EAGAIN: POLLIN or POLLOUT. */
short tls_wants(const struct tls *t);
const char *tls_error(const struct tls *t);

/* These two handshake first where that has not been done.
 *
 * As many bytes as are there; 0 is the peer's close_notify. */
ssize_t tls_read(struct tls *t, void *buf, size_t n);
/* Returns the bytes taken, which may be fewer than all; of small ones together one record is made.
 * After -EAGAIN the next call must begin with the same bytes, wherever they are then: some of them
 * may be in an encrypted record already. */
ssize_t tls_writev(struct tls *t, const struct iovec *iov, int n);

/* Would tls_read() find something that poll() does not know of? */
bool tls_pending(const struct tls *t);

/* Says that no more will be written. -EAGAIN as above; -EBUSY when a write is half done, which must
 * be ended first. 0 also where there is nobody to tell. */
int tls_close_notify(struct tls *t);

/* Of the kind in memory. tls_feed() returns how many bytes it has taken: fewer than all when
 * TLS_HELD_BYTES are held, and then tls_read() or tls_handshake() comes first. */
size_t tls_feed(struct tls *t, const void *bytes, size_t n);
/* No more will come. */
void tls_feed_end(struct tls *t);
size_t tls_drain(struct tls *t, void *buf, size_t n);
size_t tls_feedable(const struct tls *t);
size_t tls_drainable(const struct tls *t);

#endif
