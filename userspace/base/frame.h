/*
 * frame.h - the TCP frames and the UDP receipt (wire.proto), for the server and for libsluice.
 *
 *   varint length | ClientFrame or ServerFrame: one tag, length, body
 *
 * Thread:  any; no state.
 * Memory:  parsed frames borrow the caller's bytes. frame_put_x() writes to buf, and with buf NULL
 *          writes nothing. Nothing is allocated.
 * Limits:  frame_bytes_max of the caller; FRAME_LENGTH_BYTES_MAX; strings as in wire.options.
 * Errors:  get: -EBADMSG. put: the exact size of what is (or, with buf NULL, would be) written, or
 *          -ENOBUFS when it is more than buf_bytes; buf then holds rubbish.
 */
#ifndef SLUICE_BASE_FRAME_H
#define SLUICE_BASE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/wire.pb.h"

#define FRAME_LENGTH_BYTES_MAX 5u  /* of the varint in front */
#define FRAME_BATCH_HEAD_MAX   40u /* what frame_put_batch_head() writes at most */
#define FRAME_EVENT_HEAD_MAX   6u
#define FRAME_RECEIPT_IDS_MAX  16u /* bytes of an assigned id */

/* The tags of the two oneofs. */
enum client_frame { CLIENT_HELLO = 1, CLIENT_BATCH = 2, CLIENT_PING = 3 };
enum server_frame { SERVER_WELCOME = 1, SERVER_RECEIPT = 2, SERVER_ERROR = 3, SERVER_PONG = 4 };

struct frame {
    uint32_t kind; /* enum client_frame or server_frame */
    uint32_t body_bytes;
    const uint8_t *body;
    uint32_t frame_bytes; /* of the stream, its length included: where the next frame begins */
};

/* Looks at the first frame of a stream. frame_bytes_max bounds what the length in front says.
 * Returns 0; -EAGAIN when it is not all there (frame_bytes then says how many bytes of the stream
 * it takes, 0 if that is not known yet; the other fields are untouched); -EMSGSIZE when it is
 * longer than frame_bytes_max; -EBADMSG when it is not a frame, has no body that we know, or two.
 * Unknown fields beside the body are skipped. */
int frame_parse_client(struct frame *ret, const void *data, size_t bytes, uint32_t frame_bytes_max);
int frame_parse_server(struct frame *ret, const void *data, size_t bytes, uint32_t frame_bytes_max);

/* --- from the client ------------------------------------------------------------------------ */

int frame_get_hello(sluice_v1_Hello *ret, const struct frame *f);
int frame_get_ping(uint64_t *ret_nonce, const struct frame *f);

struct frame_batch {
    uint64_t request;
    uint32_t durability;  /* enum Durability, not checked */
    uint32_t batch_bytes; /* a serialized EventBatch; 0 if there is none */
    const uint8_t *batch;
};
/* The batch itself is not looked at. */
int frame_get_batch(struct frame_batch *ret, const struct frame *f);

ssize_t frame_put_hello(uint8_t *buf, size_t buf_bytes, const sluice_v1_Hello *hello);
ssize_t frame_put_ping(uint8_t *buf, size_t buf_bytes, uint64_t nonce);
/* Everything of a batch frame but the batch, whose batch_bytes bytes must follow. */
ssize_t frame_put_batch_head(uint8_t *buf, size_t buf_bytes, const struct frame_batch *batch);
/* What stands before an event of event_bytes bytes in an EventBatch. */
ssize_t frame_put_event_head(uint8_t *buf, size_t buf_bytes, uint32_t event_bytes);

/* --- from the server ------------------------------------------------------------------------ */

struct receipt_exception {
    uint64_t first_index; /* both 0: there is no first */
    uint32_t first_slot;
    uint32_t position;
    uint32_t reason; /* enum Reason */
};

struct receipt_assigned {
    uint32_t position;
    uint32_t id_bytes; /* <= FRAME_RECEIPT_IDS_MAX */
    const uint8_t *id; /* borrowed */
};

struct receipt {
    uint64_t request, epoch, term, index;
    uint32_t first_slot, durability;
    uint32_t accepted, duplicates, refused;
    bool truncated;
    uint32_t exceptions, assigned; /* how many there are */

    /* For frame_put only: the caller's arrays. */
    const struct receipt_exception *exception;
    const struct receipt_assigned *assigned_id;

    /* From frame_get only: what receipt_next_x() walks over. */
    const uint8_t *data;
    size_t bytes;
};

/* A bare Receipt, as in a UDP answer. All of it is checked, so walking over it cannot fail. */
int frame_get_receipt(struct receipt *ret, const void *data, size_t bytes);

/* Walks over a receipt from frame_get_receipt(); *at starts at 0. False at the end. */
bool receipt_next_exception(const struct receipt *r, size_t *at, struct receipt_exception *ret);
bool receipt_next_assigned(const struct receipt *r, size_t *at, struct receipt_assigned *ret);

int frame_get_welcome(sluice_v1_Welcome *ret, const struct frame *f);
int frame_get_error(sluice_v1_Error *ret, const struct frame *f);
int frame_get_pong(uint64_t *ret_nonce, const struct frame *f);

ssize_t frame_put_welcome(uint8_t *buf, size_t buf_bytes, const sluice_v1_Welcome *welcome);
ssize_t frame_put_receipt(uint8_t *buf, size_t buf_bytes, const struct receipt *r);
ssize_t frame_put_bare_receipt(uint8_t *buf, size_t buf_bytes, const struct receipt *r); /* UDP */
/* Changes the durability in what one of these has put; neither is 0. */
void frame_set_durability(uint8_t *buf, size_t bytes, bool bare, uint32_t durability);
ssize_t frame_put_error(uint8_t *buf, size_t buf_bytes, const sluice_v1_Error *error);
ssize_t frame_put_pong(uint8_t *buf, size_t buf_bytes, uint64_t nonce);

#endif
