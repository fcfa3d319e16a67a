/*
 * block_standin.c - enough of cluster/block.c for the tests of the stages until that is there.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/block.h"

int block_init(struct block *b, uint32_t worker)
{
    b->buf = aligned_alloc(LOG_ALIGN, BLOCK_BYTES_MAX);
    b->worker = worker;
    return b->buf != NULL ? 0 : -ENOMEM;
}

void block_fini(struct block *b) { free(b->buf); }

void block_reset(struct block *b)
{
    b->events = b->requests = b->exceptions = b->accepted = 0;
    b->bytes = sizeof(struct block_header);
    memset(b->by_type, 0, sizeof b->by_type);
    memset(b->verdict, 0, sizeof b->verdict);
}

void block_seal(struct block *b, uint16_t node, uint8_t region)
{
    uint8_t *p = block_payload(b);
    uint32_t at = (b->bytes + 7) & ~7u, bytes;

    memset(p + b->bytes, 0, at - b->bytes);
    memcpy(p + at, b->desc, b->events * sizeof b->desc[0]);
    bytes = at + b->events * (uint32_t)sizeof b->desc[0];
    *(struct block_header *)p = (struct block_header){ .magic = BLOCK_MAGIC,
                                                       .version = BLOCK_VERSION,
                                                       .node = node,
                                                       .region = region,
                                                       .events = b->events,
                                                       .desc_offset = at,
                                                       .receive_time_ns = b->receive_time_ns };
    b->accepted = b->events;
    b->write.record.payload_bytes = bytes;
    b->write.payload_crc = crc32c(0, p, bytes);
    sha256(b->write.record.payload_sha256, p, bytes, NULL, 0);
}

int block_view(struct block_view *ret, const void *payload, uint32_t payload_bytes)
{
    const struct block_header *h = payload;

    if (payload_bytes < sizeof *h || h->magic != BLOCK_MAGIC)
        return -EBADMSG;
    *ret = (struct block_view){ h, (const void *)((const uint8_t *)payload + h->desc_offset),
                                payload, payload_bytes };
    return 0;
}
