/*
 * peer_decoder.h - cuts the stream of a peer into messages; it is asked where the bytes go, so the
 * payload of an entry goes from the connection to where the disk writes it from, without a copy,
 * unless it comes packed.
 *
 *   while (connection has bytes) {
 *       n = read(connection, where, peer_decoder_want(d, &where));
 *       r = peer_decoder_got(d, n);
 *       if (r == 1) handle(peer_decoder_message(d));
 *       if (r < 0)  say peer_decoder_error(d), close the connection
 *   }
 *
 * Thread:  one.
 * Memory:  one buffer for heads, at init. Entries come from entry_alloc(), one at a time as the
 *          stream reaches them, and are the decoder's until peer_decoder_message() gives them to
 *          the caller; peer_decoder_reset() and _fini() free those that were not given.
 * Limits:  those of peer_frame.h, checked before anything is asked for. A message may need
 *          PEER_ENTRIES_MAX entries at once: who has fewer must in the end refuse, not say -EAGAIN,
 *          or the connection waits for ever.
 * Errors:  a stream that has one is at its end: nothing is wanted any more, and every call says the
 *          same error. A payload's CRC is checked when its last byte came; its SHA-256 is not.
 */
#ifndef SLUICE_CLUSTER_PEER_DECODER_H
#define SLUICE_CLUSTER_PEER_DECODER_H

#include "cluster/peer_message.h"
#include "cluster/peer_pack.h"

struct peer_decoder_memory {
    /* Room for a record: *ret gets a write whose buf is 4 KiB-aligned, with record_bytes() of the
     * payload. record is complete, its index included; the decoder fills ret's record and
     * payload_crc. Returns 0; -EAGAIN: not now; another negative errno ends the connection. */
    int (*entry_alloc)(void *arg, const struct log_record *record, struct log_write **ret);
    void (*entry_free)(void *arg, struct log_write *w);
    void *arg;
};

enum peer_decoder_state {
    PEER_DECODER_HEADER,
    PEER_DECODER_HEAD,
    PEER_DECODER_ENTRY,   /* entry_alloc() is to be asked */
    PEER_DECODER_PAYLOAD, /* of entry begun - 1 */
    PEER_DECODER_MESSAGE, /* whole, and not given yet */
    PEER_DECODER_FAILED,
};

struct peer_decoder {
    struct peer_decoder_memory memory;
    enum peer_decoder_state state;
    uint32_t types;        /* that are accepted */
    uint32_t at, bytes;    /* of what the state reads */
    uint32_t crc;          /* of the payload so far */
    uint32_t packed_bytes; /* of the entry begun last; 0: it comes as it is */
    struct peer_unpacker unpacker;
    unsigned begun; /* entries that entry_alloc() gave memory for, and are ours */
    uint8_t *head;  /* PEER_HEAD_MAX bytes */
    struct peer_header header;
    struct peer_message message;
    struct log_write *write[PEER_ENTRIES_MAX];
    int failure;
    char error[PEER_ERROR_BYTES];
};

/* The first message must be of a type in `types`. Returns 0 or -ENOMEM. */
int peer_decoder_init(struct peer_decoder *d, const struct peer_decoder_memory *memory,
                      uint32_t types);
/* Frees what was not given. Safe on a decoder that is all zero. */
void peer_decoder_fini(struct peer_decoder *d);

/* For a new connection: as after init. */
void peer_decoder_reset(struct peer_decoder *d, uint32_t types);

/* From the next message on: one of another type is an error. 0: nothing more may come. */
void peer_decoder_accept(struct peer_decoder *d, uint32_t types);

/* Where the next bytes of the stream go, and how many at most. 0: none now, since a message is
 * there, entry_alloc() said -EAGAIN, or the stream is at its end. */
size_t peer_decoder_want(struct peer_decoder *d, void **ret);

/* n bytes were put there. Returns 0, 1 when a message is there, or the error. With n = 0 it asks
 * entry_alloc() again, if that said -EAGAIN. */
int peer_decoder_got(struct peer_decoder *d, size_t n);

/* The message: valid until the next call of peer_decoder_got(), but its entries now belong to the
 * caller. Once, after got() said 1. */
const struct peer_message *peer_decoder_message(struct peer_decoder *d);

/* One sentence, after an error. */
const char *peer_decoder_error(const struct peer_decoder *d);

#endif
