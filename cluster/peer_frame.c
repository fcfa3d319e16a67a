/*
 * peer_frame.c - the header of the frames between nodes; see peer_frame.h. Any thread, no memory.
 */
#include "cluster/peer_frame.h"

#include <stddef.h>

#include "cluster/cluster.h"

#define EPOCH_MAX (UINT64_MAX >> CLUSTER_EPOCH_SHIFT)

static const struct {
    const char *name;
    uint32_t head_min, head_max, step; /* min, min + step, ... max */
} type_table[PEER_TYPE_END] = {
    [PEER_HELLO] = { "HELLO", 8, PEER_HANDSHAKE_MAX, 8 },
    [PEER_WELCOME] = { "WELCOME", 8, PEER_HANDSHAKE_MAX, 8 },
    [PEER_REFUSE] = { "REFUSE", 8, PEER_HANDSHAKE_MAX, 8 },
    [PEER_REQUEST_VOTE] = { "REQUEST_VOTE", PEER_REQUEST_VOTE_BYTES, PEER_REQUEST_VOTE_BYTES, 8 },
    [PEER_REQUEST_VOTE_RESULT] = { "REQUEST_VOTE_RESULT", PEER_VOTE_RESULT_BYTES,
                                   PEER_VOTE_RESULT_BYTES, 8 },
    [PEER_APPEND_ENTRIES] = { "APPEND_ENTRIES", PEER_APPEND_BYTES, PEER_APPEND_HEAD_MAX,
                              PEER_ENTRY_BYTES },
    [PEER_APPEND_ENTRIES_RESULT] = { "APPEND_ENTRIES_RESULT", PEER_APPEND_RESULT_BYTES,
                                     PEER_APPEND_RESULT_BYTES, 8 },
    [PEER_INSTALL_SNAPSHOT] = { "INSTALL_SNAPSHOT", PEER_SNAPSHOT_BYTES, PEER_SNAPSHOT_HEAD_MAX,
                                8 },
    [PEER_TIMEOUT_NOW] = { "TIMEOUT_NOW", PEER_TIMEOUT_NOW_BYTES, PEER_TIMEOUT_NOW_BYTES, 8 },
    [PEER_PING] = { "PING", 0, 0, 8 },
    [PEER_FETCH] = { "FETCH", 8, PEER_POST_MAX, 8 },
    [PEER_FETCHED] = { "FETCHED", 8, PEER_POST_MAX, 8 },
    [PEER_FORWARD] = { "FORWARD", 8, PEER_POST_MAX, 8 },
    [PEER_FORWARDED] = { "FORWARDED", 8, PEER_POST_MAX, 8 },
    [PEER_CALL] = { "CALL", 8, PEER_POST_MAX, 8 },
    [PEER_REPLY] = { "REPLY", 8, PEER_POST_MAX, 8 },
    [PEER_REGION] = { "REGION", 16, 16, 8 },
    [PEER_RECOVER] = { "RECOVER", 8, PEER_POST_MAX, 8 },
};

static uint32_t header_crc(const struct peer_header *h)
{
    const size_t skipped = offsetof(struct peer_header, type);

    return crc32c(0, (const uint8_t *)h + skipped, sizeof *h - skipped);
}

static void header_put(struct peer_header *h, enum peer_type type, uint64_t epoch,
                       uint32_t head_bytes, uint32_t head_crc, uint32_t payload_bytes)
{
    assert(((uintptr_t)h & 7) == 0 && head_bytes % 8 == 0 && payload_bytes % 8 == 0);
    *h = (struct peer_header){
        .magic = PEER_MAGIC,
        .type = (uint16_t)type,
        .body_bytes = head_bytes + payload_bytes,
        .head_bytes = head_bytes,
        .head_crc = head_crc,
        .epoch = epoch,
    };
    h->crc = header_crc(h);
    assert(peer_frame_check(h, UINT32_MAX) == NULL);
}

void peer_frame_put(void *buf, enum peer_type type, uint64_t epoch, uint32_t head_bytes,
                    uint32_t payload_bytes)
{
    uint32_t crc = crc32c(0, (struct peer_header *)buf + 1, head_bytes);

    header_put(buf, type, epoch, head_bytes, crc, payload_bytes);
}

void peer_frame_put_post(void *buf, enum peer_type type, uint64_t epoch, const struct iovec *iov,
                         unsigned iovs)
{
    uint32_t crc = 0, bytes = 0;

    assert(type >= PEER_POST_FIRST);
    for (unsigned i = 0; i < iovs; i++) {
        crc = crc32c(crc, iov[i].iov_base, iov[i].iov_len);
        bytes += (uint32_t)iov[i].iov_len;
    }
    header_put(buf, type, epoch, bytes, crc, 0);
}

const char *peer_frame_check(const struct peer_header *h, uint32_t types)
{
    if (h->magic != PEER_MAGIC)
        return "this is not a frame of a Sluice node";
    if (h->crc != header_crc(h))
        return "the header's CRC does not match";
    if (h->type == 0 || h->type >= PEER_TYPE_END)
        return "a type that this build does not know";
    if (h->flags != 0)
        return "flags that this build does not know";
    if ((types & PEER_TYPE_SET(h->type)) == 0)
        return "a frame of this type may not come here";
    if (h->head_bytes < type_table[h->type].head_min ||
        h->head_bytes > type_table[h->type].head_max ||
        (h->head_bytes - type_table[h->type].head_min) % type_table[h->type].step != 0)
        return "no frame of this type has a head of this length";
    if (h->body_bytes > PEER_BODY_MAX)
        return "the body is longer than a frame's may be";
    if (h->body_bytes < h->head_bytes || h->body_bytes % 8 != 0)
        return "the body's length cannot be";
    if (h->type != PEER_APPEND_ENTRIES && h->body_bytes != h->head_bytes)
        return "there is something behind the head";
    if (h->epoch > EPOCH_MAX)
        return "an epoch that no term can have";
    return NULL;
}

const char *peer_type_name(uint32_t type)
{
    return type > 0 && type < PEER_TYPE_END ? type_table[type].name : "frame";
}
