/*
 * test_block.c - see test_block.h. Lays the block out by hand, as block.h draws it.
 */
#include "tests/lib/test_block.h"

#include <assert.h>
#include <pb_encode.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

struct test_record *test_record_open(uint64_t index, uint64_t term)
{
    struct test_record *r = calloc(1, sizeof *r);

    if (r == NULL)
        return NULL;
    r->record = (struct log_record){
        .index = index, .term = term, .time_ns = TEST_RECEIVE_NS + index, .type = LOG_EVENTS
    };
    r->payload_bytes = sizeof(struct block_header);
    return r;
}

void test_record_add(struct test_record *r, const uint8_t *event, size_t bytes, unsigned type,
                     const char *symbol, bool id_assigned)
{
    struct block_desc *d = &r->desc[r->events];

    assert(r->events < BLOCK_EVENTS_MAX && r->payload_bytes + bytes + 64 < BLOCK_PAYLOAD_MAX);
    *d = (struct block_desc){ .timestamp_ns = 1,
                              .receive_delta_ns = r->events,
                              .offset = r->payload_bytes,
                              .bytes = (uint16_t)bytes,
                              .type = (uint8_t)type,
                              .session_flags = (uint8_t)(3 | (id_assigned ? DESC_ID_ASSIGNED : 0)),
                              .symbol_hash = hash_symbol(symbol, strlen(symbol)) };
    d->key.lo = r->events;
    memcpy(r->payload + r->payload_bytes, event, bytes);
    r->payload_bytes += (uint32_t)bytes;
    r->events++;
}

void test_record_seal(struct test_record *r)
{
    uint32_t offset = (r->payload_bytes + 7) & ~7u;
    struct block_header h = { .magic = BLOCK_MAGIC,
                              .version = BLOCK_VERSION,
                              .node = 7,
                              .events = r->events,
                              .desc_offset = offset,
                              .receive_time_ns = TEST_RECEIVE_NS,
                              .region = 2 };

    assert(offset + r->events * sizeof(struct block_desc) <= BLOCK_PAYLOAD_MAX);
    memcpy(r->payload, &h, sizeof h);
    memcpy(r->payload + offset, r->desc, r->events * sizeof(struct block_desc));
    r->payload_bytes = offset + r->events * (uint32_t)sizeof(struct block_desc);
    r->record.payload_bytes = r->payload_bytes;
}

size_t test_trade(uint8_t *buf, size_t cap, const char *source, const char *id, const char *symbol)
{
    sluice_v1_Event e = sluice_v1_Event_init_zero;
    pb_ostream_t out = pb_ostream_from_buffer(buf, cap);
    bool ok;

    e.type = sluice_v1_EventType_TRADE;
    strcpy(e.source, source);
    strcpy(e.symbol, symbol);
    e.id.size = (pb_size_t)strlen(id);
    memcpy(e.id.bytes, id, strlen(id));
    e.timestamp_ns = TEST_RECEIVE_NS;
    e.which_detail = sluice_v1_Event_trade_tag;
    e.detail.trade.price = 1875000;
    e.detail.trade.price_scale = 4;
    e.detail.trade.size = 100;
    ok = pb_encode(&out, sluice_v1_Event_fields, &e);
    assert(ok);
    return out.bytes_written;
}
