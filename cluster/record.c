/*
 * record.c - encodes and checks records; the layout is drawn in record.h.
 */
#include "cluster/record.h"

#include <string.h>

uint32_t record_seed(const uint8_t before_segment[SHA256_BYTES])
{
    return crc32c(0, before_segment, SHA256_BYTES);
}

static uint32_t header_crc(const struct record_header *h, uint32_t seed, uint64_t offset)
{
    const size_t skipped = offsetof(struct record_header, version);

    return crc32c(crc32c(seed, &offset, sizeof offset), (const uint8_t *)h + skipped,
                  sizeof *h - skipped);
}

void record_encode(void *buf, uint32_t seed, uint64_t offset, const uint8_t before[SHA256_BYTES],
                   const struct log_record *record, uint32_t payload_crc, uint64_t durable)
{
    struct record_header *h = buf;
    size_t used = LOG_HEADER_BYTES + record->payload_bytes;

    assert(((uintptr_t)buf & (LOG_ALIGN - 1)) == 0 && offset % LOG_ALIGN == 0);
    assert(durable < record->index);
    *h = (struct record_header){
        .magic = RECORD_MAGIC,
        .version = RECORD_VERSION,
        .payload_crc = payload_crc,
        .durable = durable,
        .agreed = { .index = record->index,
                    .term = record->term,
                    .time_ns = record->time_ns,
                    .type = record->type,
                    .payload_bytes = record->payload_bytes },
    };
    memcpy(h->agreed.before, before, SHA256_BYTES);
    memcpy(h->agreed.payload_sha256, record->payload_sha256, SHA256_BYTES);
    h->header_crc = header_crc(h, seed, offset);
    memset((uint8_t *)buf + used, 0, record_bytes(record->payload_bytes) - used);
}

void record_digest(const struct record_header *h, uint8_t ret[SHA256_BYTES])
{
    sha256(ret, &h->agreed, sizeof h->agreed, NULL, 0);
}

const char *record_check_header(const struct record_header *h, uint32_t seed, uint64_t offset)
{
    if (h->magic != RECORD_MAGIC)
        return "no record header";
    if (h->header_crc != header_crc(h, seed, offset))
        return "the header's CRC does not match";
    if (h->version != RECORD_VERSION)
        return "a record version that this build does not know";
    if (h->agreed.payload_bytes > LOG_RECORD_BYTES_MAX - LOG_HEADER_BYTES)
        return "the payload is longer than a record may be";
    if (h->agreed.type < LOG_EVENTS || h->agreed.type >= LOG_TYPE_END)
        return "an unknown record type";
    if (h->durable >= h->agreed.index)
        return "it claims to have been durable before it was written";
    return NULL;
}

const char *record_check_payload(const struct record_header *h)
{
    const uint8_t *p = (const uint8_t *)h;
    size_t used = LOG_HEADER_BYTES + h->agreed.payload_bytes;
    size_t all = record_bytes(h->agreed.payload_bytes);

#ifndef PLANT_LOG_SKIP_CRC
    if (crc32c(0, p + LOG_HEADER_BYTES, h->agreed.payload_bytes) != h->payload_crc)
        return "the payload's CRC does not match";
#endif
    for (; used < all; used++)
        if (p[used] != 0)
            return "the bytes behind the payload are not zero";
    return NULL;
}

void record_decode(const struct record_header *h, struct log_record *ret)
{
    *ret = (struct log_record){
        .index = h->agreed.index,
        .term = h->agreed.term,
        .time_ns = h->agreed.time_ns,
        .type = h->agreed.type,
        .payload_bytes = h->agreed.payload_bytes,
    };
    memcpy(ret->payload_sha256, h->agreed.payload_sha256, SHA256_BYTES);
}

bool record_is_zero(const void *p, size_t bytes)
{
    const uint64_t *w = p;
    uint64_t any = 0;

    assert(bytes % 8 == 0 && ((uintptr_t)p & 7) == 0);
    for (size_t i = 0; i < bytes / 8; i++)
        any |= w[i];
    return any == 0;
}
