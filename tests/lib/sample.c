/*
 * sample.c - events as a feed would send them.
 */
#include "tests/lib/sample.h"

#include <assert.h>
#include <pb_encode.h>
#include <stdio.h>
#include <string.h>

#include "proto/event.pb.h"

static const char *const symbols[] = { "AAPL", "MSFT", "NVDA", "AMZN", "SPY", "BRK.B", "ESZ6" };
#define SYMBOLS (sizeof symbols / sizeof symbols[0])

static void trade_make(sluice_v1_Trade *t, uint64_t n)
{
    *t = (sluice_v1_Trade){
        .price = 1875000 + (int64_t)(n % 997) * 25,
        .price_scale = 4,
        .size = 1 + n % 500,
        .venue = "XNAS",
        .conditions = "@ FT",
        .sequence = 1000000 + n,
        .aggressor = n % 2 == 0 ? sluice_v1_Side_BUY : sluice_v1_Side_SELL,
        .currency = "USD",
    };
    snprintf(t->trade_id, sizeof t->trade_id, "%llu", 5000000000ull + (unsigned long long)n);
}

static void quote_make(sluice_v1_Quote *q, uint64_t n)
{
    *q = (sluice_v1_Quote){
        .bid_price = 1874900 + (int64_t)(n % 997) * 25,
        .bid_size = 300,
        .ask_price = 1875100 + (int64_t)(n % 997) * 25,
        .ask_size = 1 + n % 700,
        .price_scale = 4,
        .bid_venue = "ARCX",
        .ask_venue = "BATS",
        .conditions = "R",
        .sequence = 2000000 + n,
        .currency = "USD",
    };
}

static void orderbook_make(sluice_v1_OrderBook *b, uint64_t n)
{
    *b = (sluice_v1_OrderBook){
        .bids_count = (pb_size_t)(1 + n % 10),
        .asks_count = (pb_size_t)(1 + n % 7),
        .price_scale = 2,
        .venue = "XNYS",
        .sequence = 3000000 + n,
        .is_snapshot = true,
        .currency = "USD",
    };
    for (pb_size_t i = 0; i < b->bids_count; i++)
        b->bids[i] = (sluice_v1_Level){ .price = 18700 - i, .size = 100u * (i + 1), .orders = i };
    for (pb_size_t i = 0; i < b->asks_count; i++)
        b->asks[i] = (sluice_v1_Level){ .price = 18701 + i, .size = 200u * (i + 1), .orders = i };
}

static void custom_make(sluice_v1_Custom *c, uint64_t n)
{
    *c = (sluice_v1_Custom){ .schema = "acme.signal.v1" };
    c->body.size = (pb_size_t)(16 + n % 100);
    memset(c->body.bytes, (int)(n % 251), c->body.size);
}

static void extras_make(sluice_v1_Event *e)
{
    e->attributes_count = 2;
    strcpy(e->attributes[0].key, "feed");
    strcpy(e->attributes[0].value, "utp-b");
    strcpy(e->attributes[1].key, "desk");
    strcpy(e->attributes[1].value, "z\xc3\xbcrich");
    e->traceparent.size = 25;
    memset(e->traceparent.bytes, 0xa5, 25);
}

static void event_make(sluice_v1_Event *e, const struct sample *s)
{
    *e = (sluice_v1_Event){
        .type = (sluice_v1_EventType)s->type,
        .source = "feed-nyc-1",
        .timestamp_ns = s->time_ns != 0 ? s->time_ns : SAMPLE_TIME_NS + s->n * 1000,
    };
    strcpy(e->symbol, symbols[s->n % SYMBOLS]);
    if (!s->without_id)
        e->id.size = (pb_size_t)snprintf((char *)e->id.bytes, sizeof e->id.bytes, "%u-%012llu",
                                         s->type, (unsigned long long)s->n);
    switch (s->type) {
    case sluice_v1_EventType_TRADE:
        e->which_detail = sluice_v1_Event_trade_tag;
        trade_make(&e->detail.trade, s->n);
        e->detail.trade.venue_timestamp_ns = e->timestamp_ns - 20000;
        break;
    case sluice_v1_EventType_QUOTE:
        e->which_detail = sluice_v1_Event_quote_tag;
        quote_make(&e->detail.quote, s->n);
        e->detail.quote.venue_timestamp_ns = e->timestamp_ns - 20000;
        break;
    case sluice_v1_EventType_ORDERBOOK:
        e->which_detail = sluice_v1_Event_orderbook_tag;
        orderbook_make(&e->detail.orderbook, s->n);
        break;
    default:
        e->which_detail = sluice_v1_Event_custom_tag;
        custom_make(&e->detail.custom, s->n);
        break;
    }
    if (s->attributes)
        extras_make(e);
}

static size_t event_put(uint8_t *buf, size_t buf_bytes, const sluice_v1_Event *e)
{
    pb_ostream_t out = pb_ostream_from_buffer(buf, buf_bytes);
    bool ok = pb_encode(&out, sluice_v1_Event_fields, e);

    assert(ok);
    return out.bytes_written;
}

/* Makes the string longer by up to `bytes`; returns what did not fit. */
static size_t string_grow(char *s, size_t s_bytes, size_t bytes)
{
    size_t n = strlen(s), more = s_bytes - 1 - n < bytes ? s_bytes - 1 - n : bytes;

    memset(s + n, '0', more);
    s[n + more] = 0;
    return bytes - more;
}

/* A byte more of a field is a byte more of the event, but where a length grows a byte too: then
 * that byte is taken away again. */
static void event_grow(sluice_v1_Event *e, ptrdiff_t bytes)
{
    if (e->which_detail == sluice_v1_Event_trade_tag) {
        sluice_v1_Trade *t = &e->detail.trade;

        size_t rest = bytes > 0 ? (size_t)bytes : 0;

        rest = string_grow(t->trade_id, sizeof t->trade_id, rest);
        rest = string_grow(t->conditions, sizeof t->conditions, rest);
        assert(rest == 0);
    } else {
        assert(e->which_detail == sluice_v1_Event_custom_tag);
        e->detail.custom.body.size = (pb_size_t)(e->detail.custom.body.size + bytes);
        assert(e->detail.custom.body.size <= sizeof e->detail.custom.body.bytes);
    }
}

size_t sample_event(uint8_t *buf, size_t buf_bytes, const struct sample *s)
{
    static __thread sluice_v1_Event e;
    size_t bytes;

    event_make(&e, s);
    bytes = event_put(buf, buf_bytes, &e);
    for (int i = 0; i < 2 && s->bytes_exact != 0 && bytes != s->bytes_exact; i++) {
        event_grow(&e, (ptrdiff_t)s->bytes_exact - (ptrdiff_t)bytes);
        bytes = event_put(buf, buf_bytes, &e);
    }
    assert(s->bytes_exact == 0 || bytes == s->bytes_exact);
    return bytes;
}

size_t sample_batch(uint8_t *buf, size_t buf_bytes, const unsigned *types, size_t n, uint64_t seq,
                    bool receipt_wanted)
{
    static __thread uint8_t event[SAMPLE_BYTES_MAX];
    pb_ostream_t out = pb_ostream_from_buffer(buf, buf_bytes);
    sluice_v1_EventBatch rest = { .producer = "sampler", .seq = seq };
    size_t types_n = 0, bytes;
    bool ok = true;

    rest.receipt_wanted = receipt_wanted;
    while (types[types_n] != 0)
        types_n++;
    for (size_t i = 0; i < n; i++) {
        bytes = sample_event(event, sizeof event,
                             &(struct sample){ .type = types[i % types_n], .n = i });
        ok = ok && pb_encode_tag(&out, PB_WT_STRING, sluice_v1_EventBatch_events_tag) &&
             pb_encode_string(&out, event, bytes);
    }
    ok = ok && pb_encode(&out, sluice_v1_EventBatch_fields, &rest);
    assert(ok);
    return out.bytes_written;
}

uint64_t sample_random(struct sample_random *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15ull;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint64_t sample_below(struct sample_random *r, uint64_t limit)
{
    assert(limit > 0);
    return sample_random(r) % limit;
}
