/*
 * test_print_event.c - events as JSON lines that read back to the same bytes, and as lines to read.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pb_encode.h>
#include <stdlib.h>
#include <string.h>

#include "cli/generate.h"
#include "cli/print_event.h"
#include "cli/read_json.h"

static struct form form;
static uint8_t encoded[65536];
static sluice_v1_Event event;
static char *text;
static size_t text_bytes;

static size_t encode(void)
{
    pb_ostream_t out = pb_ostream_from_buffer(encoded, sizeof(encoded));

    assert_true(pb_encode(&out, sluice_v1_Event_fields, &event));
    return out.bytes_written;
}

static int print(int (*how)(FILE *, const uint8_t *, size_t), const uint8_t *data, size_t bytes)
{
    free(text);
    text = NULL;
    FILE *out = open_memstream(&text, &text_bytes);
    int rc = how(out, data, bytes);

    fclose(out);
    return rc;
}

static void reads_back(const uint8_t *data, size_t bytes)
{
    static uint8_t again[65536];

    assert_int_equal(print(event_print_json, data, bytes), 0);
    assert_ptr_equal(strchr(text, '\n'), text + text_bytes - 1); /* one line */
    char *marked = malloc(6 * text_bytes + 16);

    if (read_json_parse(&form, text, text_bytes, marked) != 0)
        fail_msg("%s: %s", text, form.error);
    free(marked);
    assert_int_equal(form_encode(&form, again, sizeof(again)), bytes);
    assert_memory_equal(again, data, bytes);
}

static void generated_events_read_back_as_the_same_bytes(void **state)
{
    static uint8_t buf[GENERATE_EVENT_BYTES_MAX];
    struct generate_options o;
    struct generate *g;

    generate_options_init(&o);
    generate_parse_mix(&o, "trade,quote,book,custom");
    assert_int_equal(generate_open(&g, &o), 0);
    for (uint64_t n = 0; n < 2000; n++)
        reads_back(buf, (size_t)generate_event(g, n, buf));
    generate_close(g);
}

static void extreme_values_read_back(void **state)
{
    memset(&event, 0, sizeof(event));
    event.type = (sluice_v1_EventType)127;
    event.timestamp_ns = UINT64_MAX;
    strcpy(event.source, "quote \" backslash \\ tab \t \xc3\xa9 \x7f");
    event.id.size = 64;
    for (int i = 0; i < 64; i++)
        event.id.bytes[i] = (uint8_t)(i * 5);
    event.traceparent.size = 25;
    memset(event.traceparent.bytes, 0xa5, 25);
    event.which_detail = sluice_v1_Event_trade_tag;
    event.detail.trade.price = INT64_MIN;
    event.detail.trade.price_scale = 18;
    event.detail.trade.size = UINT64_MAX;
    event.detail.trade.sequence = UINT64_MAX;
    event.attributes_count = 16;
    for (int i = 0; i < 16; i++)
        snprintf(event.attributes[i].key, 33, "k%d\n", i);
    reads_back(encoded, encode());
    for (size_t n = 0; n < 3; n++) { /* all lengths of base64's end */
        event.id.size = (pb_size_t)(5 + n);
        reads_back(encoded, encode());
    }
    event.which_detail = sluice_v1_Event_orderbook_tag;
    memset(&event.detail, 0, sizeof(event.detail));
    event.detail.orderbook.bids_count = event.detail.orderbook.asks_count = 50;
    for (int i = 0; i < 50; i++)
        event.detail.orderbook.bids[i].price = -i;
    reads_back(encoded, encode());
}

static void enrichment_is_printed_and_skipped_when_read(void **state)
{
    memset(&event, 0, sizeof(event));
    event.type = sluice_v1_EventType_QUOTE;
    strcpy(event.source, "s");
    size_t plain_bytes = encode();
    uint8_t plain[256], again[256];

    memcpy(plain, encoded, plain_bytes);
    event.has_enrichment = true;
    strcpy(event.enrichment.ingestion_id, "2-17-3");
    event.enrichment.node = 4;
    event.enrichment.session = sluice_v1_Session_PRE_MARKET;
    event.enrichment.record_time_ns = 5;
    event.enrichment.id_assigned = true;
    assert_int_equal(print(event_print_json, encoded, encode()), 0);
    assert_string_equal(text,
                        "{\"type\":\"QUOTE\",\"source\":\"s\",\"enrichment\":{\"ingestionId\":"
                        "\"2-17-3\",\"node\":4,\"session\":\"PRE_MARKET\",\"recordTimeNs\":"
                        "\"5\",\"idAssigned\":true}}\n");
    char *marked = malloc(6 * text_bytes + 16);

    assert_int_equal(read_json_parse(&form, text, text_bytes, marked), 0);
    free(marked);
    assert_int_equal(form_encode(&form, again, sizeof(again)), plain_bytes);
    assert_memory_equal(again, plain, plain_bytes);
}

static void a_line_to_read_tells_the_essentials(void **state)
{
    memset(&event, 0, sizeof(event));
    event.type = sluice_v1_EventType_TRADE;
    strcpy(event.source, "feed\x1b[2J");
    memcpy(event.id.bytes, "t-1", 3);
    event.id.size = 3;
    event.timestamp_ns = 1767623400500000000u;
    strcpy(event.symbol, "AAPL");
    event.which_detail = sluice_v1_Event_trade_tag;
    event.detail.trade.price = -5;
    event.detail.trade.price_scale = 2;
    event.detail.trade.size = 1250;
    event.detail.trade.size_scale = 1;
    strcpy(event.detail.trade.currency, "USD");
    strcpy(event.detail.trade.venue, "XNAS");
    event.has_enrichment = true;
    strcpy(event.enrichment.ingestion_id, "2-17-3");
    assert_int_equal(print(event_print_text, encoded, encode()), 0);
    assert_string_equal(text, "2-17-3 2026-01-05T14:30:00.500000000Z TRADE feed?[2J/t-1 AAPL "
                              "-0.05 x 125.0 USD at XNAS\n");
    event.has_enrichment = false;
    event.id.bytes[0] = 0;
    event.which_detail = 0;
    event.symbol[0] = '\0';
    event.type = (sluice_v1_EventType)64;
    assert_int_equal(print(event_print_text, encoded, encode()), 0);
    assert_string_equal(text, "- 2026-01-05T14:30:00.500000000Z 64 feed?[2J/hex:002d31 -\n");
}

/* U+009B begins a command as ESC [ does; other text of that range's first byte is text. */
static void no_control_character_reaches_the_terminal(void **state)
{
    memset(&event, 0, sizeof(event));
    event.type = sluice_v1_EventType_TRADE;
    strcpy(event.source, "a\xc2\x9b"
                         "2J\xc2\xa0\x7f");
    strcpy(event.symbol, "\xc2\x85\xc3\x9b");
    assert_int_equal(print(event_print_text, encoded, encode()), 0);
    assert_non_null(strstr(text, " TRADE a?2J\xc2\xa0?/- ?\xc3\x9b"));
    assert_int_equal(print(event_print_json, encoded, encode()), 0);
    assert_non_null(strstr(text, "\"source\":\"a\\u009b2J\xc2\xa0\\u007f\""));
    assert_non_null(strstr(text, "\"symbol\":\"\\u0085\xc3\x9b\""));
    reads_back(encoded, encode());
}

static void what_is_no_event_prints_nothing(void **state)
{
    assert_int_equal(print(event_print_json, (const uint8_t *)"\x08", 1), -EBADMSG);
    assert_int_equal(text_bytes, 0);
    assert_int_equal(print(event_print_text,
                           (const uint8_t *)"\x12\x7f"
                                            "abc",
                           5),
                     -EBADMSG);
    assert_int_equal(text_bytes, 0);
}

static int end(void **state)
{
    free(text);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generated_events_read_back_as_the_same_bytes),
        cmocka_unit_test(extreme_values_read_back),
        cmocka_unit_test(enrichment_is_printed_and_skipped_when_read),
        cmocka_unit_test(a_line_to_read_tells_the_essentials),
        cmocka_unit_test(no_control_character_reaches_the_terminal),
        cmocka_unit_test(what_is_no_event_prints_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, end);
}
