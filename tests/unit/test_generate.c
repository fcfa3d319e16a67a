/*
 * test_generate.c - generated events: repeatable, unique, well-formed, exactly as long as asked.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pb_decode.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/generate.h"
#include "proto/event.pb.h"

#define TIME_NS 1767623400000000000u

static uint8_t buf[GENERATE_EVENT_BYTES_MAX], other[GENERATE_EVENT_BYTES_MAX];
static sluice_v1_Event event;

static struct generate *open_with(struct generate_options *o)
{
    struct generate *g;

    assert_int_equal(generate_open(&g, o), 0);
    return g;
}

static size_t make(struct generate *g, uint64_t n)
{
    ssize_t bytes = generate_event(g, n, buf);

    assert_true(bytes > 0);
    pb_istream_t in = pb_istream_from_buffer(buf, (size_t)bytes);

    assert_true(pb_decode(&in, sluice_v1_Event_fields, &event));
    return (size_t)bytes;
}

static void the_same_options_make_the_same_bytes_from_any_start(void **state)
{
    struct generate_options o;

    generate_options_init(&o);
    o.time_from_ns = TIME_NS;
    struct generate *a = open_with(&o), *b = open_with(&o);

    for (uint64_t n = 0; n < 500; n++)
        make(a, n);
    for (uint64_t n = 0; n < 1000; n += 7) {
        size_t bytes = make(a, n);

        assert_int_equal(generate_event(b, n, other), bytes);
        assert_memory_equal(buf, other, bytes);
        assert_true(event.timestamp_ns == TIME_NS + n * 1000);
    }
    generate_close(b);
    o.seed = 2;
    b = open_with(&o);
    unsigned different = 0;

    for (uint64_t n = 0; n < 100; n++) {
        size_t bytes = make(a, n);
        ssize_t bytes_b = generate_event(b, n, other);

        different += (ssize_t)bytes != bytes_b || memcmp(buf, other, bytes) != 0;
    }
    assert_true(different > 90);
    generate_close(a);
    generate_close(b);
}

static void events_are_what_sluice_takes(void **state)
{
    unsigned by_type[4] = { 0 };
    struct generate_options o;

    generate_options_init(&o);
    struct generate *g = open_with(&o);
    uint64_t before_ns = clock_unix_ns();

    for (uint64_t n = 0; n < 20000; n++) {
        char id[GENERATE_ID_BYTES_MAX];

        make(g, n);
        assert_in_range(event.type, 1, 3);
        by_type[event.type]++;
        assert_int_equal(buf[0], 8);
        assert_int_equal(buf[1], event.type);
        assert_string_equal(event.source, "generate");
        assert_int_equal(event.id.size, generate_id(g, n, id));
        assert_memory_equal(event.id.bytes, id, event.id.size);
        assert_true(event.timestamp_ns >= before_ns && event.timestamp_ns <= clock_unix_ns());
        assert_int_equal(event.which_detail, 5 + event.type);
        assert_false(event.has_enrichment);
        assert_true(event.symbol[0]);
        if (event.type == 1) {
            assert_true(event.detail.trade.price > 0 && event.detail.trade.size > 0);
            assert_true(event.detail.trade.sequence == n + 1);
        }
        if (event.type == 2)
            assert_true(event.detail.quote.bid_price > 0 &&
                        event.detail.quote.bid_price < event.detail.quote.ask_price);
        if (event.type == 3) {
            const sluice_v1_OrderBook *b = &event.detail.orderbook;

            assert_in_range(b->bids_count, 1, 10);
            assert_true(b->bids[b->bids_count - 1].price > 0);
            for (unsigned i = 1; i < b->bids_count; i++)
                assert_true(b->bids[i].price < b->bids[i - 1].price &&
                            b->asks[i].price > b->asks[i - 1].price);
            assert_true(b->bids[0].price < b->asks[0].price);
        }
    }
    /* 30 : 60 : 10 */
    assert_in_range(by_type[1], 5000, 7000);
    assert_in_range(by_type[2], 11000, 13000);
    assert_in_range(by_type[3], 1500, 2500);
    generate_close(g);
}

static void prices_wander_and_do_not_jump(void **state)
{
    struct generate_options o;
    int64_t last = 0, lowest = INT64_MAX, highest = 0;

    generate_options_init(&o);
    o.symbols = 1;
    generate_parse_mix(&o, "quote");
    struct generate *g = open_with(&o);

    for (uint64_t n = 0; n < 50000; n++) {
        make(g, n);
        int64_t bid = event.detail.quote.bid_price;

        if (last)
            assert_true(llabs(bid - last) < last / 100);
        last = bid;
        lowest = bid < lowest ? bid : lowest;
        highest = bid > highest ? bid : highest;
    }
    assert_true(highest - lowest > lowest / 500);
    generate_close(g);
}

static void exact_sizes_are_exact(void **state)
{
    static const char *const mixes[] = { "trade", "quote", "book", "custom",
                                         "trade,quote,book,custom" };

    for (size_t i = 0; i < sizeof(mixes) / sizeof(mixes[0]); i++)
        for (uint32_t size = 160; size <= 2400; size += size < 700 ? 1 : 37) {
            struct generate_options o;

            generate_options_init(&o);
            assert_int_equal(generate_parse_mix(&o, mixes[i]), 0);
            o.event_bytes = size;
            o.run = UINT64_MAX;
            struct generate *g = open_with(&o);

            for (uint64_t n = 100; n < 110; n++)
                assert_int_equal(make(g, n), size);
            generate_close(g);
        }
}

static void custom_events_reach_any_size_up_to_the_largest_body(void **state)
{
    struct generate_options o;

    generate_options_init(&o);
    generate_parse_mix(&o, "custom");
    for (uint32_t size = 2400; size <= 16384; size += size < 16300 ? 111 : 1) {
        o.event_bytes = size;
        struct generate *g = open_with(&o);

        assert_int_equal(make(g, 5), size);
        assert_int_equal(event.type, 64);
        generate_close(g);
    }
}

static void sizes_that_cannot_be_are_refused(void **state)
{
    struct generate_options o;

    generate_options_init(&o);
    generate_parse_mix(&o, "trade");
    o.event_bytes = 30;
    struct generate *g = open_with(&o);

    assert_int_equal(generate_event(g, 0, buf), -EMSGSIZE);
    generate_close(g);
    o.event_bytes = 10000;
    g = open_with(&o);
    assert_int_equal(generate_event(g, 0, buf), -EMSGSIZE);
    generate_close(g);
}

static void options_that_cannot_be_are_refused(void **state)
{
    static const char *const wrong[] = { "",        "trad",    "trade:",       "trade:x",
                                         "trade:0", "trade=1", "trade:1,foo:2" };
    struct generate_options o;
    struct generate *g;

    generate_options_init(&o);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(generate_parse_mix(&o, wrong[i]), -EINVAL);
    o.symbols = 0;
    assert_int_equal(generate_open(&g, &o), -EINVAL);
    generate_options_init(&o);
    o.source = "";
    assert_int_equal(generate_open(&g, &o), -EINVAL);
    generate_options_init(&o);
    o.custom_type = 63;
    assert_int_equal(generate_open(&g, &o), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_options_make_the_same_bytes_from_any_start),
        cmocka_unit_test(events_are_what_sluice_takes),
        cmocka_unit_test(prices_wander_and_do_not_jump),
        cmocka_unit_test(exact_sizes_are_exact),
        cmocka_unit_test(custom_events_reach_any_size_up_to_the_largest_body),
        cmocka_unit_test(sizes_that_cannot_be_are_refused),
        cmocka_unit_test(options_that_cannot_be_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
