/*
 * test_decode.c - decode on valid, broken and hostile bytes; walking over batches.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pb_decode.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/line.h"
#include "tests/lib/sample.h"

#define REASON(name) sluice_v1_Reason_##name
#define BYTES(text)  (const uint8_t *)(text), sizeof(text) - 1
#define DECODE(text) line_decode(l, BYTES(text))
#define SLICE_IS(s, text)                                                                          \
    do {                                                                                           \
        assert_int_equal((s).bytes, sizeof(text) - 1);                                             \
        assert_memory_equal((s).data, text, sizeof(text) - 1);                                     \
    } while (0)

static const unsigned all_types[] = { 1, 2, 3, SAMPLE_CUSTOM };

static int setup(void **state)
{
    *state = line_new();
    return 0;
}

static int teardown(void **state)
{
    line_free(*state);
    return 0;
}

/* Bytes of an exact size on the heap, so that the sanitizer sees one read past them. */
static uint8_t *exact(const void *data, size_t bytes)
{
    uint8_t *p = malloc(bytes > 0 ? bytes : 1);

    assert_non_null(p);
    memcpy(p, data, bytes);
    return p;
}

static void detail_is_what_nanopb_reads(const struct event *ev, const uint8_t *data, size_t bytes)
{
    static sluice_v1_Event e;
    pb_istream_t in = pb_istream_from_buffer(data, bytes);

    assert_true(pb_decode(&in, sluice_v1_Event_fields, &e));
    assert_int_equal(ev->type, e.type);
    assert_int_equal(ev->detail, e.which_detail);
    assert_int_equal(ev->timestamp_ns, e.timestamp_ns);
    assert_int_equal(ev->source.bytes, strlen(e.source));
    assert_memory_equal(ev->source.data, e.source, ev->source.bytes);
    assert_int_equal(ev->symbol.bytes, strlen(e.symbol));
    assert_memory_equal(ev->symbol.data, e.symbol, ev->symbol.bytes);
    assert_int_equal(ev->id.bytes, e.id.size);
    assert_memory_equal(ev->id.data, e.id.bytes, ev->id.bytes);
    assert_int_equal(ev->attributes, e.attributes_count);
    for (size_t i = 0; i < ev->attributes; i++) {
        assert_memory_equal(ev->attribute_key[i].data, e.attributes[i].key,
                            strlen(e.attributes[i].key));
        assert_memory_equal(ev->attribute_value[i].data, e.attributes[i].value,
                            strlen(e.attributes[i].value));
    }
    /* The structs hold no padding that decode leaves alone: it clears all of them first, as nanopb
     * does with e. */
    switch (ev->detail) {
    case sluice_v1_Event_trade_tag:
        assert_memory_equal(&ev->trade, &e.detail.trade, sizeof ev->trade);
        break;
    case sluice_v1_Event_quote_tag:
        assert_memory_equal(&ev->quote, &e.detail.quote, sizeof ev->quote);
        break;
    case sluice_v1_Event_orderbook_tag:
        assert_int_equal(ev->orderbook.bids_count, e.detail.orderbook.bids_count);
        assert_int_equal(ev->orderbook.asks_count, e.detail.orderbook.asks_count);
        for (size_t i = 0; i < e.detail.orderbook.bids_count; i++) {
            assert_int_equal(ev->orderbook.bids[i].price, e.detail.orderbook.bids[i].price);
            assert_int_equal(ev->orderbook.bids[i].size, e.detail.orderbook.bids[i].size);
            assert_int_equal(ev->orderbook.bids[i].orders, e.detail.orderbook.bids[i].orders);
        }
        for (size_t i = 0; i < e.detail.orderbook.asks_count; i++) {
            assert_int_equal(ev->orderbook.asks[i].price, e.detail.orderbook.asks[i].price);
            assert_int_equal(ev->orderbook.asks[i].size, e.detail.orderbook.asks[i].size);
        }
        assert_string_equal(ev->orderbook.venue, e.detail.orderbook.venue);
        assert_int_equal(ev->orderbook.sequence, e.detail.orderbook.sequence);
        assert_int_equal(ev->orderbook.is_snapshot, e.detail.orderbook.is_snapshot);
        break;
    default:
        assert_int_equal(ev->schema.bytes, strlen(e.detail.custom.schema));
        assert_memory_equal(ev->schema.data, e.detail.custom.schema, ev->schema.bytes);
    }
}

static void valid_events_have_the_values_that_nanopb_reads(void **state)
{
    struct line *l = *state;
    uint8_t buf[SAMPLE_BYTES_MAX];
    size_t bytes;

    for (size_t t = 0; t < 4; t++) {
        for (uint64_t n = 0; n < 300; n++) {
            struct sample s = {
                .type = all_types[t], .n = n * n, .attributes = n % 3 == 0, .without_id = n % 5 == 0
            };

            bytes = sample_event(buf, sizeof buf, &s);
            assert_int_equal(line_decode(l, buf, bytes), REASON(REASON_NONE));
            detail_is_what_nanopb_reads(&l->ev[0], buf, bytes);
        }
        assert_int_equal(l->ledger.decoded[all_types[t]], 300);
    }
}

static void nothing_of_the_event_before_is_left_over(void **state)
{
    struct line *l = *state;
    uint8_t buf[SAMPLE_BYTES_MAX];
    size_t bytes = sample_event(buf, sizeof buf, &(struct sample){ .type = 1, .attributes = true });

    assert_int_equal(line_decode(l, buf, bytes), 0);
    assert_int_equal(DECODE("\x08\x01\x32\x00"), REASON(REASON_NONE));
    assert_int_equal(l->ev[0].attributes, 0);
    assert_int_equal(l->ev[0].source.bytes, 0);
    assert_int_equal(l->ev[0].timestamp_ns, 0);
    assert_int_equal(l->ev[0].trade.price, 0);
    assert_string_equal(l->ev[0].trade.venue, "");
    assert_int_equal(DECODE("\x08\x01"), REASON(REASON_NONE));
    assert_int_equal(l->ev[0].detail, 0);
}

static void a_nul_does_not_cut_a_slice(void **state)
{
    struct line *l = *state;

    assert_int_equal(DECODE("\x08\x01\x12\x05"
                            "a\0b\0c"
                            "\x1a\x03\0\0\1"
                            "\x2a\x02\0x"
                            "\x52\x0a\x0a\x03k\0y\x12\x03v\0w"),
                     REASON(REASON_NONE));
    SLICE_IS(l->ev[0].source, "a\0b\0c");
    SLICE_IS(l->ev[0].id, "\0\0\1");
    SLICE_IS(l->ev[0].symbol, "\0x");
    SLICE_IS(l->ev[0].attribute_key[0], "k\0y");
    SLICE_IS(l->ev[0].attribute_value[0], "v\0w");
}

static void a_nul_inside_a_detail_is_refused(void **state)
{
    struct line *l = *state;

    assert_int_equal(DECODE("\x08\x01\x32\x06\x2a\x04X\0AS"), REASON(UTF8_INVALID));
    assert_int_equal(DECODE("\x08\x01\x32\x06\x2a\x04XNAS"), REASON(REASON_NONE));
    assert_int_equal(DECODE("\x08\x02\x3a\x06\x3a\x04X\0AS"), REASON(UTF8_INVALID));
    assert_int_equal(DECODE("\x08\x01\x32\x06\x2a\x04XN\xc0S"), REASON(UTF8_INVALID));
}

static void a_singular_field_that_is_there_twice_is_refused(void **state)
{
    struct line *l = *state;
    static const struct {
        const char *data;
        size_t bytes;
    } twice[] = {
        { "\x08\x01\x08\x01", 4 },
        { "\x12\x01"
          "a\x12\x01"
          "b",
          6 },
        { "\x12\x00\x12\x01"
          "b",
          5 },
        { "\x1a\x01"
          "a\x1a\x01"
          "b",
          6 },
        { "\x1a\x01"
          "a\x1a\x00",
          5 },
        { "\x21"
          "12345678\x21"
          "12345678",
          18 },
        { "\x2a\x00\x2a\x00", 4 },
        { "\x32\x00\x32\x00", 4 },
        { "\x32\x00\x3a\x00", 4 }, /* the oneof */
        { "\x4a\x00\x42\x00", 4 },
        { "\x5a\x00\x5a\x00", 4 },
        { "\x7a\x00\x7a\x00", 4 },
        { "\x32\x04\x08\x01\x08\x01", 6 },         /* Trade.price */
        { "\x32\x04\x2a\x00\x2a\x00", 6 },         /* Trade.venue */
        { "\x42\x06\x0a\x04\x08\x01\x08\x01", 8 }, /* Level.price */
        { "\x4a\x04\x0a\x00\x0a\x00", 6 },         /* Custom.schema */
        { "\x52\x04\x0a\x00\x0a\x00", 6 },         /* an attribute's key */
        { "\x52\x03\x0a\x01k\x52\x03\x0a\x01k", 10 },
    };

    for (size_t i = 0; i < sizeof twice / sizeof twice[0]; i++)
        assert_int_equal(line_decode(l, twice[i].data, twice[i].bytes), REASON(FIELD_REPEATED));
    assert_int_equal(l->ledger.decoded[0] + l->ledger.decoded[1], sizeof twice / sizeof twice[0]);
    assert_true(line_balances(l));

    /* An empty id is none, so that an assigned one may follow it. */
    assert_int_equal(DECODE("\x08\x01\x1a\x00\x1a\x01"
                            "a"),
                     REASON(REASON_NONE));
    SLICE_IS(l->ev[0].id, "a");
}

static void what_is_not_protobuf_is_malformed(void **state)
{
    struct line *l = *state;
    static const struct {
        const char *data;
        size_t bytes;
    } bad[] = {
        { "\x00\x00", 2 },                                          /* field 0 */
        { "\x80\x80\x80\x80\x10\x00", 6 },                          /* field 2^29 */
        { "\x88\x80\x80\x80\x80\x00\x01", 7 },                      /* a tag of six bytes */
        { "\x0b", 1 },                                              /* groups */
        { "\x0c", 1 },                                              /* ... */
        { "\xa3\x06\xa4\x06", 4 },                                  /* ... of an unknown field */
        { "\x0e\x00", 2 },                                          /* wire types 6 */
        { "\xa7\x06\x00", 3 },                                      /* ... and 7 */
        { "\x08", 1 },                                              /* ends after a tag */
        { "\x08\x80", 2 },                                          /* inside a varint */
        { "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11 },     /* 65 bits */
        { "\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 12 }, /* 11 bytes */
        { "\x12\x02"
          "a",
          3 }, /* length past the end */
        { "\x12\xff\xff\xff\xff\x0f", 6 },
        { "\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11 },
        { "\x21"
          "1234567",
          8 },
        { "\xa5\x06"
          "123",
          5 },                         /* unknown fixed32, cut */
        { "\x0a\x01\x01", 3 },         /* type with the wrong wire type */
        { "\x10\x01", 2 },             /* source as a varint */
        { "\x20\x01", 2 },             /* timestamp as a varint */
        { "\x30\x01", 2 },             /* trade as a varint */
        { "\x78\x01", 2 },             /* enrichment as a varint */
        { "\x32\x02\x0a\x00", 4 },     /* Trade.price as bytes */
        { "\x32\x02\x08\x80", 4 },     /* a varint that ends with its message */
        { "\x32\x03\x2a\x02X", 5 },    /* a string past its message's end */
        { "\x42\x03\x0a\x02\x08", 5 }, /* a level past its order book's end */
        { "\x4a\x02\x08\x01", 4 },     /* schema as a varint */
        { "\x52\x03\x0a\x02k", 5 },    /* a key past its entry's end */
        { "\x08\x01\x32\x00\x00", 5 }, /* garbage behind */
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint8_t *p = exact(bad[i].data, bad[i].bytes);

        assert_int_equal(line_decode(l, p, bad[i].bytes), REASON(DECODE_MALFORMED));
        free(p);
    }
    assert_true(line_balances(l));
}

static void a_type_outside_the_range_is_unknown_not_malformed(void **state)
{
    struct line *l = *state;

    assert_int_equal(DECODE("\x08\x80\x01"), REASON(TYPE_UNKNOWN));
    assert_int_equal(DECODE("\x08\x81\x80\x80\x80\x10"), REASON(TYPE_UNKNOWN)); /* 2^32 + 1 */
    assert_int_equal(DECODE("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), REASON(TYPE_UNKNOWN));
    assert_int_equal(l->ledger.decoded[0], 3);
    assert_int_equal(l->ledger.invalid[0], 3);
    /* A number that nobody has named is left to validate, and counts as type 0. */
    assert_int_equal(DECODE("\x08\x7f"), REASON(REASON_NONE));
    assert_int_equal(l->ev[0].type, 0);
    assert_int_equal(l->ledger.decoded[0], 4);
}

static unsigned decode_of_length(struct line *l, const char *head, size_t head_bytes, size_t bytes)
{
    static uint8_t buf[EVENT_BYTES_MAX + 64];
    size_t at = head_bytes;

    memcpy(buf, head, head_bytes);
    for (size_t n = bytes; at++, n >= 0x80; n >>= 7)
        buf[at - 1] = (uint8_t)(n | 0x80);
    buf[at - 1] = (uint8_t)(bytes < 0x80 ? bytes : bytes < 0x4000 ? bytes >> 7 : bytes >> 14);
    memset(buf + at, 'x', bytes);
    return line_decode(l, buf, at + bytes);
}

static void every_bound_is_met_exactly(void **state)
{
    struct line *l = *state;
    static const struct {
        uint8_t field;
        size_t max;
    } bound[] = { { 2, 64 }, { 3, 64 }, { 5, 32 }, { 11, 25 } };
    char head[4] = { 0x08, 0x01 };

    for (size_t i = 0; i < sizeof bound / sizeof bound[0]; i++) {
        head[2] = (char)(bound[i].field << 3 | 2);
        assert_int_equal(decode_of_length(l, head, 3, bound[i].max), REASON(REASON_NONE));
        assert_int_equal(decode_of_length(l, head, 3, bound[i].max + 1), REASON(DECODE_BOUNDS));
        assert_int_equal(l->ev[0].type, 1);
    }
}

/* An event with `n` order book levels, or `n` attributes with different keys. */
static unsigned decode_repeated(struct line *l, bool attributes, unsigned n)
{
    uint8_t buf[2048] = { 0x08, 0x03, 0x42 };
    size_t at = attributes ? 2 : 5;

    for (unsigned i = 0; i < n; i++) {
        const uint8_t attribute[] = { 0x52, 3, 0x0a, 1, (uint8_t)('a' + i) };
        const uint8_t level[] = { 0x12, 2, 0x10, 7 };

        memcpy(buf + at, attributes ? attribute : level, attributes ? 5 : 4);
        at += attributes ? 5 : 4;
    }
    if (!attributes) {
        buf[3] = (uint8_t)((at - 5) | 0x80);
        buf[4] = (uint8_t)((at - 5) >> 7);
    }
    return line_decode(l, buf, at);
}

static void lists_hold_as_many_as_their_bound_and_no_more(void **state)
{
    struct line *l = *state;

    assert_int_equal(decode_repeated(l, false, 50), REASON(REASON_NONE));
    assert_int_equal(l->ev[0].orderbook.asks_count, 50);
    assert_int_equal(l->ev[0].orderbook.asks[49].size, 7);
    assert_int_equal(decode_repeated(l, false, 51), REASON(DECODE_BOUNDS));
    assert_int_equal(decode_repeated(l, true, 16), REASON(REASON_NONE));
    assert_int_equal(l->ev[0].attributes, 16);
    assert_int_equal(decode_repeated(l, true, 17), REASON(DECODE_BOUNDS));
}

static void strings_and_bodies_inside_have_bounds_too(void **state)
{
    struct line *l = *state;
    static uint8_t buf[SAMPLE_BYTES_MAX];
    struct sample s = { .type = SAMPLE_CUSTOM };
    size_t bytes = sample_event(buf, sizeof buf, &s);

    assert_int_equal(DECODE("\x08\x01\x32\x0a\x2a\x08XXXXXXXX"), REASON(REASON_NONE));
    assert_int_equal(DECODE("\x08\x01\x32\x0b\x2a\x09XXXXXXXXX"), REASON(DECODE_BOUNDS));
    assert_int_equal(DECODE("\x08\x01\x32\x06\x52\x04XXXX"), REASON(REASON_NONE));
    assert_int_equal(DECODE("\x08\x01\x32\x07\x52\x05XXXXX"), REASON(DECODE_BOUNDS));
    /* Three length fields (event, detail, body) grow from one to three bytes: detail and body. */
    for (size_t body = 16380; body <= 16388; body++) {
        size_t at = 0;
        const uint8_t head[] = { 0x08,
                                 0x40,
                                 0x4a,
                                 (uint8_t)((body + 4) | 0x80),
                                 (uint8_t)((body + 4) >> 7 | 0x80),
                                 (uint8_t)((body + 4) >> 14),
                                 0x12,
                                 (uint8_t)(body | 0x80),
                                 (uint8_t)(body >> 7 | 0x80),
                                 (uint8_t)(body >> 14) };

        memcpy(buf, head, sizeof head);
        at = sizeof head;
        memset(buf + at, 0, body);
        assert_int_equal(line_decode(l, buf, at + body),
                         body <= 16384 ? REASON(REASON_NONE) : REASON(DECODE_BOUNDS));
    }
    assert_true(bytes > 0);
    /* A number that does not fit its field. */
    assert_int_equal(DECODE("\x08\x01\x32\x06\x10\xff\xff\xff\xff\x0f"), REASON(REASON_NONE));
    assert_int_equal(DECODE("\x08\x01\x32\x06\x10\x80\x80\x80\x80\x10"),
                     REASON(VALUE_OUT_OF_RANGE));
    assert_int_equal(DECODE("\x08\x01\x32\x06\x48\x80\x80\x80\x80\x08"),
                     REASON(VALUE_OUT_OF_RANGE));
}

static void an_event_above_the_limit_is_refused_unread(void **state)
{
    struct line *l = *state;
    uint8_t *p = calloc(1, EVENT_BYTES_MAX + 1);

    memcpy(p, "\x08\x02\xa2\x06", 4);
    assert_int_equal(line_decode(l, p, EVENT_BYTES_MAX + 1), REASON(DECODE_BOUNDS));
    assert_int_equal(l->ledger.invalid[2], 1);
    assert_true(line_balances(l));
    free(p);
}

static void unknown_fields_are_passed_over(void **state)
{
    struct line *l = *state;

    assert_int_equal(DECODE("\x08\x01"
                            "\xa0\x06\x05"
                            "\xa1\x06"
                            "12345678"
                            "\xa2\x06\x02zz"
                            "\xa5\x06"
                            "1234"
                            "\x12\x01s"
                            "\x32\x09\x80\x01\x05\x08\x06\xa2\x01\x01x"
                            "\x52\x06\x0a\x01k\x1a\x01z"),
                     REASON(REASON_NONE));
    SLICE_IS(l->ev[0].source, "s");
    SLICE_IS(l->ev[0].attribute_key[0], "k");
    assert_int_equal(l->ev[0].trade.price, 3);
    /* The highest field number there is. */
    assert_int_equal(DECODE("\xf8\xff\xff\xff\x0f\x01\x08\x01"), REASON(REASON_NONE));
    assert_int_equal(l->ev[0].type, 1);
}

static void every_truncation_is_survived_and_accounted_for(void **state)
{
    struct line *l = *state;
    uint8_t buf[SAMPLE_BYTES_MAX];
    uint64_t runs = 0;

    for (size_t t = 0; t < 4; t++) {
        struct sample s = { .type = all_types[t], .n = 9, .attributes = true };
        size_t bytes = sample_event(buf, sizeof buf, &s);

        for (size_t cut = 0; cut < bytes; cut++, runs++) {
            uint8_t *p = exact(buf, cut);

            line_run(l, p, cut);
            free(p);
        }
    }
    assert_true(line_balances(l));
    assert_int_equal(l->ledger.stage_events[STAGE_DECODE], runs);
}

static void every_flipped_bit_is_survived_and_accounted_for(void **state)
{
    struct line *l = *state;
    uint8_t buf[SAMPLE_BYTES_MAX];
    uint64_t decoded = 0, runs = 0;

    for (size_t t = 0; t < 4; t++) {
        struct sample s = { .type = all_types[t], .n = 8, .attributes = true };
        size_t bytes = sample_event(buf, sizeof buf, &s);

        for (size_t bit = 0; bit < bytes * 8; bit++, runs++) {
            uint8_t *p = exact(buf, bytes);

            p[bit / 8] ^= (uint8_t)(1u << bit % 8);
            line_reset(l);
            line_run(l, p, bytes);
            assert_true(line_balances(l));
            for (unsigned i = 0; i < LEDGER_TYPES; i++)
                decoded += l->ledger.decoded[i];
            free(p);
        }
    }
    assert_int_equal(decoded, runs);
}

static void every_short_message_is_survived(void **state)
{
    struct line *l = *state;
    uint8_t *p = malloc(3);

    for (unsigned a = 0; a < 256; a++) {
        p[0] = (uint8_t)a;
        for (unsigned b = 0; b < 256; b++) {
            p[1] = (uint8_t)b;
            line_run(l, p, 2);
        }
    }
    assert_true(line_balances(l));
    free(p);
}

static void a_decode_out_of_time_refuses_the_rest(void **state)
{
    struct line *l = *state;
    uint8_t buf[SAMPLE_BYTES_MAX];
    size_t bytes = sample_event(buf, sizeof buf, &(struct sample){ .type = 2 });

    l->stages.stage_ns_max[STAGE_DECODE] = 0;
    for (size_t i = 0; i < 5; i++)
        line_receive(l, i, buf, bytes, SAMPLE_TIME_NS);
    assert_int_equal(decode_run(&l->stages, l->ev, 5), 1);
    assert_int_equal(l->ev[0].reason, REASON(REASON_NONE));
    assert_int_equal(l->ev[4].reason, REASON(STAGE_TIMEOUT));
    assert_int_equal(l->ledger.decoded[2], 5);
    assert_int_equal(l->ledger.refused[2], 4);
    assert_int_equal(l->ledger.invalid[2], 0);
}

static void a_batch_is_walked_without_copying(void **state)
{
    static uint8_t buf[SAMPLE_BYTES_MAX];
    static const unsigned types[] = { 1, 2, 3, SAMPLE_CUSTOM, 0 };
    size_t bytes = sample_batch(buf, sizeof buf, types, 20, 77, true), at = 0;
    struct slice slices[20];
    struct batch_walk b;

    assert_int_equal(batch_walk(&b, slices, 20, buf, bytes), 0);
    assert_int_equal(b.events, 20);
    assert_int_equal(b.seq, 77);
    assert_true(b.receipt_wanted);
    SLICE_IS(b.producer, "sampler");
    for (size_t i = 0; i < 20; i++) {
        assert_in_range(slices[i].data - buf, at, bytes);
        assert_int_equal(event_peek_type(slices[i].data, slices[i].bytes), types[i % 4]);
        at += slices[i].bytes;
    }
    assert_int_equal(b.event_bytes, at);
    assert_int_equal(batch_walk(&b, slices, 19, buf, bytes), -E2BIG);
    assert_int_equal(b.events, 20);
}

static void a_broken_batch_is_refused_as_a_whole(void **state)
{
    struct slice slices[4];
    struct batch_walk b;

    assert_int_equal(batch_walk(&b, slices, 4, BYTES("")), 0);
    assert_int_equal(b.events, 0);
    assert_int_equal(batch_walk(&b, slices, 4, NULL, 0), 0);
    assert_int_equal(batch_walk(&b, slices, 4, BYTES("\x0a\x00\x0a\x00")), 0);
    assert_int_equal(b.events, 2);
    assert_int_equal(batch_walk(&b, slices, 4, BYTES("\xa2\x06\x01z\x0a\x00")), 0);
    assert_int_equal(b.events, 1);
    assert_int_equal(batch_walk(&b, slices, 4, BYTES("\x0a\x02\x08")), -EBADMSG);
    assert_int_equal(batch_walk(&b, slices, 4, BYTES("\x08\x02")), -EBADMSG);
    assert_int_equal(batch_walk(&b, slices, 4, BYTES("\x12\x01\xff")), -EBADMSG);
    assert_int_equal(batch_walk(&b, slices, 4, BYTES("\x18\x01\x18\x02")), -EBADMSG);
    assert_int_equal(batch_walk(&b, slices, 4, BYTES("\x18")), -EBADMSG);
    assert_int_equal(batch_walk(&b, slices, 4, BYTES("\x0b\x0c")), -EBADMSG);
    assert_int_equal(batch_walk(&b, slices, 4,
                                BYTES("\x12\x41"
                                      "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
                                      "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")),
                     -EBADMSG);
}

static void a_batch_cut_anywhere_ends_at_an_event_or_is_refused(void **state)
{
    static uint8_t buf[SAMPLE_BYTES_MAX];
    static const unsigned types[] = { 1, 2, 0 };
    size_t bytes = sample_batch(buf, sizeof buf, types, 3, 5, false);
    struct slice slices[8];
    struct batch_walk b;
    unsigned whole = 0;

    for (size_t cut = 0; cut < bytes; cut++) {
        uint8_t *p = exact(buf, cut);

        if (batch_walk(&b, slices, 8, p, cut) == 0)
            whole++;
        free(p);
    }
    /* Nothing; after each event; after the producer. */
    assert_int_equal(whole, 5);
}

static void the_type_is_peeked_only_where_the_kernel_sees_it(void **state)
{
    assert_int_equal(event_peek_type(BYTES("\x08\x03")), 3);
    assert_int_equal(event_peek_type(BYTES("\x08\x7f")), 127);
    assert_int_equal(event_peek_type(BYTES("\x08\x80\x01")), 0);
    assert_int_equal(event_peek_type(BYTES("\x08")), 0);
    assert_int_equal(event_peek_type(BYTES("\x08\x80")), 0);
    assert_int_equal(event_peek_type(BYTES("")), 0);
    assert_int_equal(event_peek_type(NULL, 0), 0);
    assert_int_equal(event_peek_type(BYTES("\x12\x00\x08\x03")), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(valid_events_have_the_values_that_nanopb_reads),
        TEST(nothing_of_the_event_before_is_left_over),
        TEST(a_nul_does_not_cut_a_slice),
        TEST(a_nul_inside_a_detail_is_refused),
        TEST(a_singular_field_that_is_there_twice_is_refused),
        TEST(what_is_not_protobuf_is_malformed),
        TEST(a_type_outside_the_range_is_unknown_not_malformed),
        TEST(every_bound_is_met_exactly),
        TEST(lists_hold_as_many_as_their_bound_and_no_more),
        TEST(strings_and_bodies_inside_have_bounds_too),
        TEST(an_event_above_the_limit_is_refused_unread),
        TEST(unknown_fields_are_passed_over),
        TEST(every_truncation_is_survived_and_accounted_for),
        TEST(every_flipped_bit_is_survived_and_accounted_for),
        TEST(every_short_message_is_survived),
        TEST(a_decode_out_of_time_refuses_the_rest),
        cmocka_unit_test(a_batch_is_walked_without_copying),
        cmocka_unit_test(a_broken_batch_is_refused_as_a_whole),
        cmocka_unit_test(a_batch_cut_anywhere_ends_at_an_event_or_is_refused),
        cmocka_unit_test(the_type_is_peeked_only_where_the_kernel_sees_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
