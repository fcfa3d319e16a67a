/*
 * test_read_json.c - JSON lines into events: exact numbers, both spellings, errors with their line.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/read_json.h"

static struct form form;

static int parse(const char *line)
{
    char *marked = malloc(6 * strlen(line) + 16);
    int rc = read_json_parse(&form, line, strlen(line), marked);

    free(marked);
    return rc;
}

static void accepts(const char *line)
{
    if (parse(line) != 0)
        fail_msg("%s: %s", line, form.error);
}

/* The error names what is wrong by these words. */
static void refuses(const char *line, const char *words)
{
    assert_int_equal(parse(line), -EINVAL);
    if (!strstr(form.error, words))
        fail_msg("%s: \"%s\" says nothing of \"%s\"", line, form.error, words);
}

static void both_spellings_of_names_are_taken(void **state)
{
    const sluice_v1_Event *e = &form.event;

    accepts("{\"type\":\"TRADE\",\"source\":\"s\",\"id\":\"text:t-1\",\"timestampNs\":\"17\","
            "\"symbol\":\"AAPL\",\"trade\":{\"price\":\"1875000\",\"priceScale\":4,\"size\":100,"
            "\"tradeId\":\"x\",\"aggressor\":\"SELL\",\"venueTimestampNs\":\"5\"},"
            "\"attributes\":{\"a\":\"b\"}}");
    assert_int_equal(e->type, sluice_v1_EventType_TRADE);
    assert_string_equal(e->source, "s");
    assert_int_equal(e->id.size, 3);
    assert_memory_equal(e->id.bytes, "t-1", 3);
    assert_int_equal(e->timestamp_ns, 17);
    assert_int_equal(e->which_detail, sluice_v1_Event_trade_tag);
    assert_int_equal(e->detail.trade.price, 1875000);
    assert_int_equal(e->detail.trade.price_scale, 4);
    assert_int_equal(e->detail.trade.size, 100);
    assert_string_equal(e->detail.trade.trade_id, "x");
    assert_int_equal(e->detail.trade.aggressor, sluice_v1_Side_SELL);
    assert_int_equal(e->detail.trade.venue_timestamp_ns, 5);
    assert_int_equal(e->attributes_count, 1);
    assert_string_equal(e->attributes[0].value, "b");
    accepts("{\"type\":1,\"timestamp_ns\":18,\"trade\":{\"price_scale\":4,\"trade_id\":\"y\"}}");
    assert_int_equal(e->timestamp_ns, 18);
    assert_int_equal(e->detail.trade.price_scale, 4);
    assert_string_equal(e->detail.trade.trade_id, "y");
    assert_int_equal(e->attributes_count, 0); /* nothing is left of the line before */
}

static void decimals_become_exact_integers_and_a_scale(void **state)
{
    static const struct {
        const char *price;
        int64_t value;
        uint32_t scale;
    } cases[] = {
        { "187.50", 18750, 2 },
        { "\"187.50\"", 18750, 2 },
        { "-0.01", -1, 2 },
        { "0.1", 1, 1 },
        { "187", 187, 0 },
        { "1.5e2", 150, 0 },
        { "25e-3", 25, 3 },
        { "9007199254740993.1", 90071992547409931, 1 }, /* no double holds it */
        { "0.123456789012345678", 123456789012345678, 18 },
        { "9223372036854775807", INT64_MAX, 0 },
        { "-9223372036854775808", INT64_MIN, 0 },
        { "922337203685477.5807", INT64_MAX, 4 },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char line[128];

        snprintf(line, sizeof(line), "{\"trade\":{\"price\":%s}}", cases[i].price);
        accepts(line);
        assert_true(form.event.detail.trade.price == cases[i].value);
        assert_int_equal(form.event.detail.trade.price_scale, cases[i].scale);
        assert_int_equal(form.event.type, sluice_v1_EventType_TRADE);
    }
}

static void a_given_scale_is_kept_and_must_hold_the_value(void **state)
{
    const sluice_v1_Quote *q = &form.event.detail.quote;

    accepts("{\"quote\":{\"bidPrice\":187.5,\"askPrice\":\"187.51\",\"priceScale\":4}}");
    assert_int_equal(q->bid_price, 1875000);
    assert_int_equal(q->ask_price, 1875100);
    accepts("{\"quote\":{\"bidPrice\":\"1875000\",\"priceScale\":4}}"); /* as protobuf writes it */
    assert_int_equal(q->bid_price, 1875000);
    accepts("{\"quote\":{\"bidPrice\":187,\"askPrice\":187.055,\"bidSize\":0.5,\"askSize\":2}}");
    assert_int_equal(q->price_scale, 3);
    assert_int_equal(q->bid_price, 187000);
    assert_int_equal(q->ask_price, 187055);
    assert_int_equal(q->size_scale, 1);
    assert_int_equal(q->bid_size, 5);
    assert_int_equal(q->ask_size, 20);
    refuses("{\"quote\":{\"bidPrice\":187.505,\"priceScale\":2}}", "more decimals");
    refuses("{\"quote\":{\"bidPrice\":1,\"priceScale\":19}}", "price_scale");
    refuses("{\"quote\":{\"bidPrice\":9223372036854775807.5}}", "bid_price");
    refuses("{\"quote\":{\"bidPrice\":9223372036854775807,\"askPrice\":0.5}}", "bid_price");
    refuses("{\"quote\":{\"bidSize\":-1}}", "negative");
}

static void books_take_levels_of_one_scale(void **state)
{
    const sluice_v1_OrderBook *b = &form.event.detail.orderbook;
    char line[4096] = "{\"orderbook\":{\"bids\":[";

    accepts("{\"orderbook\":{\"bids\":[{\"price\":1.5,\"size\":\"10\",\"orders\":3},{\"price\":1}],"
            "\"asks\":[{\"price\":2.25}],\"isSnapshot\":true}}");
    assert_int_equal(b->bids_count, 2);
    assert_int_equal(b->asks_count, 1);
    assert_int_equal(b->price_scale, 2);
    assert_int_equal(b->bids[0].price, 150);
    assert_int_equal(b->bids[0].size, 10);
    assert_int_equal(b->bids[0].orders, 3);
    assert_int_equal(b->bids[1].price, 100);
    assert_int_equal(b->bids[1].size, 0);
    assert_int_equal(b->asks[0].price, 225);
    assert_true(b->is_snapshot);
    for (int i = 0; i < 51; i++)
        strcat(line, i ? ",{}" : "{}");
    strcat(line, "]}}");
    refuses(line, "50 levels");
}

static void bytes_are_base64_hex_or_text(void **state)
{
    const sluice_v1_Event *e = &form.event;

    accepts("{\"type\":1,\"id\":\"aWQx\"}");
    assert_int_equal(e->id.size, 3);
    assert_memory_equal(e->id.bytes, "id1", 3);
    accepts("{\"type\":1,\"id\":\"hex:00fF\"}");
    assert_int_equal(e->id.size, 2);
    assert_memory_equal(e->id.bytes, "\x00\xff", 2);
    accepts("{\"type\":1,\"id\":\"_-8\"}"); /* the URL's alphabet, no padding */
    assert_memory_equal(e->id.bytes, "\xff\xef", 2);
    refuses("{\"type\":1,\"id\":\"trade-1!\"}", "base64");
    refuses("{\"type\":1,\"id\":\"aWR=\"}", "base64"); /* left-over bits */
    refuses("{\"type\":1,\"id\":\"hex:0\"}", "id");
    refuses("{\"type\":1,\"id\":5}", "string");
    form.text_ids = true;
    accepts("{\"type\":1,\"id\":\"AAPL\"}");
    assert_int_equal(e->id.size, 4);
    accepts("{\"type\":1,\"id\":\"base64:AAPL\"}");
    assert_int_equal(e->id.size, 3);
    form.text_ids = false;
    accepts("{\"type\":1,\"traceparent\":"
            "\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}");
    assert_int_equal(e->traceparent.size, 25);
    assert_int_equal(e->traceparent.bytes[0], 0x0a);
    assert_int_equal(e->traceparent.bytes[16], 0xb7);
    assert_int_equal(e->traceparent.bytes[24], 1);
    refuses("{\"type\":1,\"traceparent\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"}", "25");
}

static void times_are_nanoseconds_or_rfc_3339(void **state)
{
    accepts("{\"type\":1,\"timestamp\":\"2026-01-05T14:30:00.5Z\"}");
    assert_true(form.event.timestamp_ns == 1767623400500000000u);
    accepts("{\"type\":1,\"timestamp\":\"2026-01-05T15:30:00.500000000+01:00\"}");
    assert_true(form.event.timestamp_ns == 1767623400500000000u);
    accepts("{\"type\":1,\"timestampNs\":18446744073709551615}");
    assert_true(form.event.timestamp_ns == UINT64_MAX);
    refuses("{\"type\":1,\"timestamp\":\"2026-02-30T00:00:00Z\"}", "timestamp_ns");
    refuses("{\"type\":1,\"timestamp\":\"2026-01-05T14:30:00\"}", "timestamp_ns");
    refuses("{\"type\":1,\"timestamp\":18446744073709551616}", "timestamp_ns");
    refuses("{\"type\":1,\"timestamp\":1.5}", "timestamp_ns");
}

static void what_is_wrong_is_named(void **state)
{
    refuses("", "not JSON");
    refuses("[]", "object");
    refuses("{\"type\":1}x", "not JSON");
    refuses("{\"type\":1,\"type\":2}", "duplicate");
    refuses("{\"typ\":1}", "\"typ\"");
    refuses("{\"trade\":{\"prise\":1}}", "\"prise\"");
    refuses("{\"trade\":5}", "trade");
    refuses("{\"trade\":{},\"quote\":{}}", "both");
    refuses("{}", "type");
    refuses("{\"type\":\"TRAD\"}", "TRAD");
    refuses("{\"type\":1,\"source\":5}", "string");
    refuses("{\"type\":1,\"source\":\"0123456789012345678901234567890123456789"
            "0123456789012345678901234\"}",
            "64");
    refuses("{\"trade\":{\"price\":\"1.2.3\"}}", "number");
    refuses("{\"trade\":{\"price\":1.2.3}}", "number");
    refuses("{\"trade\":{\"price\":-}}", "number");
    refuses("{\"trade\":{\"priceScale\":1.5}}", "price_scale");
    refuses("{\"orderbook\":{\"isSnapshot\":1}}", "true or false");
    refuses("{\"type\":1,\"attributes\":{\"a\":1}}", "\"a\"");
    accepts("{\"type\":1,\"symbol\":null,\"enrichment\":{\"node\":5}}");
    assert_false(form.event.has_enrichment);
    accepts("{\"type\":\"quote\",\"source\":\"1,2 {-3}\\\"4\"}"); /* numbers in strings stay */
    assert_string_equal(form.event.source, "1,2 {-3}\"4");
}

static void lines_are_counted_and_reading_goes_on_behind_a_bad_one(void **state)
{
    static const char text[] = "{\"type\":1}\n\n  \r\nnonsense\n{\"type\":2}";
    FILE *in = fmemopen((void *)(uintptr_t)text, sizeof(text) - 1, "r");
    struct read_json r;

    assert_int_equal(read_json_init(&r, in), 0);
    assert_int_equal(read_json_next(&r, &form), 1);
    assert_int_equal(read_json_next(&r, &form), -EINVAL);
    assert_non_null(strstr(r.error, "line 4: not JSON"));
    assert_int_equal(read_json_next(&r, &form), 1);
    assert_int_equal(form.event.type, 2);
    assert_int_equal(read_json_next(&r, &form), 0);
    read_json_fini(&r);
    fclose(in);
}

static void a_line_too_long_is_an_error_of_its_own(void **state)
{
    size_t bytes = JSON_LINE_BYTES_MAX + 100;
    char *text = malloc(bytes + 12);
    struct read_json r;

    memset(text, ' ', bytes);
    text[0] = '{';
    memcpy(text + bytes, "\n{\"type\":3}\n", 12);
    FILE *in = fmemopen(text, bytes + 12, "r");

    assert_int_equal(read_json_init(&r, in), 0);
    assert_int_equal(read_json_next(&r, &form), -EINVAL);
    assert_non_null(strstr(r.error, "line 1: longer"));
    assert_int_equal(read_json_next(&r, &form), 1);
    assert_int_equal(form.event.type, 3);
    read_json_fini(&r);
    fclose(in);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_spellings_of_names_are_taken),
        cmocka_unit_test(decimals_become_exact_integers_and_a_scale),
        cmocka_unit_test(a_given_scale_is_kept_and_must_hold_the_value),
        cmocka_unit_test(books_take_levels_of_one_scale),
        cmocka_unit_test(bytes_are_base64_hex_or_text),
        cmocka_unit_test(times_are_nanoseconds_or_rfc_3339),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(lines_are_counted_and_reading_goes_on_behind_a_bad_one),
        cmocka_unit_test(a_line_too_long_is_an_error_of_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
