/*
 * peer_message.h - the engine's messages as bytes: the heads of the frames from REQUEST_VOTE on.
 *
 * Every head begins with the sender's term and the engine's version of the message; `zero` is zero.
 *
 *   REQUEST_VOTE           | term | version, disrupt_leader, pre_vote, zero[5] | candidate_id |
 *                          | last_log_index | last_log_term |                          40 bytes
 *   REQUEST_VOTE_RESULT    | term | version, vote_granted, pre_vote, zero, features u16,
 *                          | capacity u16 |                                            16 bytes
 *   APPEND_ENTRIES         | term | version, zero[3], entries u32 | prev_log_index |
 *                          | prev_log_term | leader_commit |                           40 bytes
 *                          and for each entry:
 *                          | term | time_ns | type u32, payload_bytes u32 |
 *                          | payload_crc u32, packed_bytes u32 | payload_sha256 |      64 bytes
 *                          and behind the head the payloads, each a multiple of 8 bytes; one
 *                          whose packed_bytes is not 0 is packed (peer_pack.h), and so long
 *   APPEND_ENTRIES_RESULT  | term | version, zero[3], features u16, capacity u16 | rejected |
 *                          | last_log_index |                                          32 bytes
 *   INSTALL_SNAPSHOT       | term | version, zero[7] | last_index | last_term | conf_index |
 *                          | configuration_bytes u32, data_bytes u32 |                 48 bytes
 *                          | configuration | zeros to 8 | data | zeros to 8 |
 *   TIMEOUT_NOW            | term | version, zero[7] | last_log_index | last_log_term | 32 bytes
 *   PING                   empty
 *
 * An entry's type is the log's (enum log_type), its index prev_log_index and its place. The
 * configuration is as raft_configuration_encode() makes it, in a snapshot as in the payload of a
 * LOG_CHANGE. The engine believes its lengths, so they are checked here.
 *
 * What may not be in a message is refused by the same lines on both sides: what a node would not
 * take it does not send.
 *
 * Thread:  any; no state.
 * Memory:  encoding borrows everything; payloads are not copied, the caller's iovecs point at them.
 *          Decoded messages borrow the head. What the engine is to own is allocated by
 *          peer_snapshot_take() only.
 * Errors:  encoding: -EINVAL (the message cannot be), -EMSGSIZE (a part is too large), -ENOBUFS
 *          (buf or iov is too small), -ENOMEM. Decoding: NULL or what is wrong.
 */
#ifndef SLUICE_CLUSTER_PEER_MESSAGE_H
#define SLUICE_CLUSTER_PEER_MESSAGE_H

#include <raft.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "cluster/peer_frame.h"

/* What peer_encode_append_entries() needs in buf for n entries. */
#define PEER_APPEND_BUF(n) (PEER_HEADER_BYTES + PEER_APPEND_BYTES + (n)*PEER_ENTRY_BYTES)

/* An entry to be sent: from a struct log_write, or as log_reader_get() returned it (the CRC is then
 * in the record's header). All borrowed. */
struct peer_entry {
    const struct log_record *record;
    const void *payload;
    uint32_t payload_crc;
    uint32_t packed_bytes; /* 0: it is sent as it is */
    const void *packed;
};

/* An entry as it is sent, without its payload. */
struct peer_wire_entry {
    uint64_t term;
    uint64_t time_ns;
    uint32_t type; /* enum log_type */
    uint32_t payload_bytes;
    uint32_t payload_crc;
    uint32_t packed_bytes;
    uint8_t payload_sha256[SHA256_BYTES];
};
_Static_assert(sizeof(struct peer_wire_entry) == PEER_ENTRY_BYTES, "sent");

void peer_wire_entry_put(struct peer_wire_entry *ret, const struct peer_entry *entry);
void peer_wire_entry_get(struct log_record *ret, const struct peer_wire_entry *w, uint64_t index);
/* Type, lengths and reserved bytes. Returns NULL or what is wrong. */
const char *peer_wire_entry_check(const struct peer_wire_entry *w);

/* How many of the first n entries go into one message; at least 1 if n is. A longer message of the
 * engine has to be sent as several. */
unsigned peer_entries_fit(const struct peer_entry *entry, unsigned n);

/* Writes header and head to buf (aligned to 8) and fills iov: buf first, then the payloads that are
 * not empty. m->n_entries entries of entry[] are sent, m->entries is not looked at. Returns the
 * number of iovecs (at most 1 + m->n_entries), or an error. */
int peer_encode_append_entries(void *buf, size_t cap, uint64_t epoch,
                               const struct raft_append_entries *m, const struct peer_entry *entry,
                               struct iovec *iov, unsigned iov_max);

/* Every other message of the engine: writes the whole frame to buf (aligned to 8; PEER_HEADER_BYTES
 * + PEER_HEAD_MAX are enough for any). Returns its size, or an error. */
ssize_t peer_encode(void *buf, size_t cap, uint64_t epoch, const struct raft_message *m);

/* A PING. Returns its size or -ENOBUFS. */
ssize_t peer_encode_ping(void *buf, size_t cap, uint64_t epoch);

/* A message that was received. */
struct peer_message {
    struct peer_frame frame; /* HELLO, WELCOME and REFUSE: see handshake.h */

    /* REQUEST_VOTE up to TIMEOUT_NOW. server_id and server_address are the caller's to fill: they
     * belong to the connection. append_entries.entries is NULL, and install_snapshot has neither
     * configuration nor data: see below. */
    struct raft_message raft;

    /* APPEND_ENTRIES: raft.append_entries.n_entries of them. write[] itself belongs to the decoder,
     * what it points at to who called peer_decoder_message(). */
    struct log_write *const *write;

    /* INSTALL_SNAPSHOT; borrowed. */
    const void *configuration, *data;
    uint32_t configuration_bytes, data_bytes;
};

/* Reads the head of a frame that peer_frame_check() has passed. Of APPEND_ENTRIES all heads of
 * entries are checked. ret is filled if NULL is returned. */
const char *peer_message_get(struct peer_message *ret, const struct peer_frame *f);

/* Entry i of a head that peer_message_get() has passed. */
void peer_entry_get(struct log_record *ret, uint32_t *ret_payload_crc, uint32_t *ret_packed_bytes,
                    const struct peer_message *m, unsigned i);

/* Checks a configuration in the engine's encoding. Returns NULL or what is wrong. */
const char *peer_configuration_check(const void *data, size_t bytes);

/* What the engine gets for a received entry: term, type, and the payload in w->buf, borrowed. */
struct raft_entry peer_raft_entry(const struct log_write *w);

/* Gives ret->conf and ret->data memory of the engine's (raft_malloc()) and fills them from m, an
 * INSTALL_SNAPSHOT; the other fields are as in m->raft. Returns 0 or -ENOMEM. */
int peer_snapshot_take(struct raft_install_snapshot *ret, const struct peer_message *m);

#endif
