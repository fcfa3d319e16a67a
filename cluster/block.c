/*
 * block.c - empties, seals and parses blocks; the layout is drawn in block.h.
 */
#include "cluster/block.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(LOG_HEADER_BYTES % 8 == 0 && BLOCK_PAYLOAD_MAX % 8 == 0, "descriptors are aligned");
_Static_assert(sizeof(struct block_desc) % 8 == 0, "descriptors are aligned");
_Static_assert(BLOCK_BYTES_MAX == LOG_RECORD_BYTES_MAX, "a block is a record");

int block_init(struct block *b, uint32_t worker)
{
    memset(b, 0, sizeof *b);
    b->worker = worker;
    b->buf = aligned_alloc(LOG_ALIGN, BLOCK_BYTES_MAX);
    if (b->buf == NULL)
        return -ENOMEM;
    memset(b->buf, 0, BLOCK_BYTES_MAX);
    block_reset(b);
    return 0;
}

void block_fini(struct block *b)
{
    free(b->buf);
    b->buf = NULL;
}

void block_reset(struct block *b)
{
    b->events = b->requests = b->exceptions = b->accepted = 0;
    b->bytes = sizeof(struct block_header);
    b->opened_ns = b->receive_time_ns = 0;
    b->refuse_reason = 0;
    b->index = b->term = b->wait_index = 0;
    b->next = NULL;
    memset(b->by_type, 0, sizeof b->by_type);
    memset(&b->write, 0, sizeof b->write);
}

static uint32_t round_up_8(uint32_t n) { return (n + 7) & ~7u; }

/* Moves the bytes of the events that stay to the front, their offsets go to offset[] in original
 * order. Returns the end of the last one. While none was left out, nothing is moved. */
static uint32_t close_up(struct block *b, uint32_t offset[BLOCK_EVENTS_MAX])
{
    uint8_t *p = block_payload(b);
    uint32_t end = sizeof(struct block_header);

    b->accepted = 0;
    for (uint32_t i = 0; i < b->events; i++) {
        const struct block_desc *d = &b->desc[i];

        assert(b->verdict[i] < VERDICT_N && d->offset >= end);
        if (b->verdict[i] != VERDICT_COMMITTED)
            continue;
        if (d->offset != end)
            memmove(p + end, p + d->offset, d->bytes);
        offset[i] = end;
        end += d->bytes;
        b->accepted++;
    }
    return end;
}

void block_seal(struct block *b, uint16_t node, uint8_t region)
{
    uint32_t offset[BLOCK_EVENTS_MAX];
    uint8_t *p = block_payload(b);
    struct block_header *h = (struct block_header *)p;
    struct block_desc *desc;
    uint32_t end, start;

    assert(b->events <= BLOCK_EVENTS_MAX);
    assert(round_up_8(b->bytes) + b->events * sizeof *desc <= BLOCK_PAYLOAD_MAX);
    end = close_up(b, offset);
    assert(end <= b->bytes);
    start = round_up_8(end);
    memset(p + end, 0, start - end);
    desc = (struct block_desc *)(p + start);
    for (uint32_t i = 0; i < b->events; i++) {
        if (b->verdict[i] != VERDICT_COMMITTED)
            continue;
        *desc = b->desc[i];
        desc->offset = offset[i];
        desc++;
    }
    *h = (struct block_header){ .magic = BLOCK_MAGIC,
                                .version = BLOCK_VERSION,
                                .node = node,
                                .events = b->accepted,
                                .desc_offset = start,
                                .receive_time_ns = b->receive_time_ns,
                                .region = region };
    b->write.buf = b->buf;
    b->write.record.type = LOG_EVENTS;
    b->write.record.payload_bytes = (uint32_t)((uint8_t *)desc - p);
    log_write_seal(&b->write);
}

static bool header_is_good(const struct block_header *h, uint32_t payload_bytes)
{
    static const uint8_t zero[sizeof h->zero];

    if (h->magic != BLOCK_MAGIC || h->version != BLOCK_VERSION)
        return false;
    if (h->events == 0 || h->events > BLOCK_EVENTS_MAX || memcmp(h->zero, zero, sizeof zero) != 0)
        return false;
    if (h->desc_offset % 8 != 0 || h->desc_offset <= sizeof *h || h->desc_offset > payload_bytes)
        return false;
    return payload_bytes - h->desc_offset == h->events * sizeof(struct block_desc);
}

void block_fill(struct block *b, const struct block_view *v, const uint64_t *content)
{
    const uint32_t events = v->header->events;
    const struct block_desc *last = &v->desc[events - 1];

    assert(events > 0 && events <= BLOCK_EVENTS_MAX && v->payload_bytes <= BLOCK_PAYLOAD_MAX);
    block_reset(b);
    memcpy(block_payload(b), v->payload, v->payload_bytes);
    memcpy(b->desc, v->desc, events * sizeof b->desc[0]);
    memcpy(b->content, content, events * sizeof b->content[0]);
    b->events = b->accepted = events;
    b->bytes = last->offset + last->bytes;
    b->receive_time_ns = v->header->receive_time_ns;
    for (uint32_t i = 0; i < events; i++) {
        b->position[i] = (uint16_t)i;
        b->type[i] = b->desc[i].type;
    }
    memset(b->request_of, 0, events * sizeof b->request_of[0]);
    memset(b->verdict, VERDICT_COMMITTED, events);
    b->request[0] =
        (struct block_request){ .events = (uint16_t)events, .positions = (uint16_t)events };
    b->requests = 1;
    b->write.buf = b->buf;
    b->write.record.type = LOG_EVENTS;
}

int block_view(struct block_view *ret, const void *payload, uint32_t payload_bytes)
{
    const struct block_header *h = payload;
    const uint8_t *p = payload;
    const struct block_desc *desc;
    uint32_t end = sizeof *h;

    assert(((uintptr_t)payload & 7) == 0);
    if (payload_bytes <= sizeof *h || payload_bytes > BLOCK_PAYLOAD_MAX ||
        !header_is_good(h, payload_bytes))
        return -EBADMSG;
    desc = (const struct block_desc *)(p + h->desc_offset);
    for (uint32_t i = 0; i < h->events; i++) {
        if (desc[i].offset != end || desc[i].bytes == 0 || desc[i].type >= BLOCK_TYPES ||
            desc[i].bytes > h->desc_offset - end)
            return -EBADMSG;
        end += desc[i].bytes;
    }
    if (round_up_8(end) != h->desc_offset)
        return -EBADMSG;
    for (; end < h->desc_offset; end++)
        if (p[end] != 0)
            return -EBADMSG;
    *ret = (struct block_view){
        .header = h, .desc = desc, .payload = p, .payload_bytes = payload_bytes
    };
    return 0;
}
