/*
 * test_read_csv.c - CSV into events: quoting, columns by type, errors with line and column.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "cli/read_csv.h"

static struct form form;
static struct read_csv reader;
static FILE *in;

static int begin(const char *text)
{
    in = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
    assert_non_null(in);
    return read_csv_init(&reader, in);
}

static void end(void)
{
    read_csv_fini(&reader);
    fclose(in);
}

static void next(int rc)
{
    int got = read_csv_next(&reader, &form);

    if (got != rc)
        fail_msg("%d instead of %d: %s", got, rc, reader.error);
}

static void error_says(const char *words)
{
    if (!strstr(reader.error, words))
        fail_msg("\"%s\" says nothing of \"%s\"", reader.error, words);
}

static void each_type_takes_its_own_columns(void **state)
{
    const sluice_v1_Event *e = &form.event;

    assert_int_equal(begin("source,id,timestamp,symbol,price,size,venue,bid_price,askPrice,bids,"
                           "attributes.feed,type\n"
                           "s,t1,2026-01-05T14:30:00Z,AAPL,187.50,100,XNAS,,,,,TRADE\n"
                           "s,hex:6162,17,AAPL,,,,187.4,187.61,,cqs,quote\r\n"
                           "\n"
                           "s,b1,18,AAPL,,,XNAS,,,1.5:100:2 1.25:50,,3"),
                     0);
    next(1);
    assert_int_equal(e->type, 1);
    assert_int_equal(e->which_detail, sluice_v1_Event_trade_tag);
    assert_string_equal(e->source, "s");
    assert_memory_equal(e->id.bytes, "t1", 2);
    assert_int_equal(e->id.size, 2);
    assert_true(e->timestamp_ns == 1767623400000000000u);
    assert_int_equal(e->detail.trade.price, 18750);
    assert_int_equal(e->detail.trade.price_scale, 2);
    assert_int_equal(e->detail.trade.size, 100);
    assert_string_equal(e->detail.trade.venue, "XNAS");
    next(1);
    assert_int_equal(e->which_detail, sluice_v1_Event_quote_tag);
    assert_memory_equal(e->id.bytes, "ab", 2);
    assert_int_equal(e->detail.quote.bid_price, 18740);
    assert_int_equal(e->detail.quote.ask_price, 18761);
    assert_int_equal(e->attributes_count, 1);
    assert_string_equal(e->attributes[0].key, "feed");
    next(1);
    assert_int_equal(e->which_detail, sluice_v1_Event_orderbook_tag);
    assert_int_equal(e->detail.orderbook.bids_count, 2);
    assert_int_equal(e->detail.orderbook.bids[0].price, 150);
    assert_int_equal(e->detail.orderbook.bids[0].orders, 2);
    assert_int_equal(e->detail.orderbook.bids[1].price, 125);
    assert_int_equal(e->detail.orderbook.bids[1].size, 50);
    next(0);
    end();
}

static void quotes_hold_commas_quotes_and_line_ends(void **state)
{
    assert_int_equal(begin("type,source,symbol\n1,\"a,b\",\"say \"\"x\"\"\"\n"
                           "1,\"two\nlines\",\"\"\n1,bad\"quote,y\n2,c,d\n"),
                     0);
    next(1);
    assert_string_equal(form.event.source, "a,b");
    assert_string_equal(form.event.symbol, "say \"x\"");
    next(1);
    assert_string_equal(form.event.source, "two\nlines");
    assert_string_equal(form.event.symbol, "");
    next(1);
    assert_string_equal(form.event.source, "bad\"quote"); /* a quote inside is text */
    next(1);
    assert_int_equal(form.event.type, 2);
    next(0);
    end();
}

static void errors_name_line_and_column_and_reading_goes_on(void **state)
{
    assert_int_equal(begin("type,source,id,price,bid_price\n"
                           "TRADE,s,1,1.5x,\n"
                           "TRADE,s,1,,2\n"
                           "TRADE,s\n"
                           "TRADE,s,\"1\"x,1,\n"
                           "FOO,s,1,,\n"
                           ",s,1,,\n"
                           "TRADE,s,\"1\n2\",1,\n"
                           "TRADE,s,1,zzz,\n"
                           "TRADE,s,2,1,\n"
                           "TRADE,s,\"3,1,\n"),
                     0);
    next(-EINVAL);
    error_says("line 2, column 4 (price): ");
    next(-EINVAL);
    error_says("line 3, column 5 (bid_price): an event of this type has no such field");
    next(-EINVAL);
    error_says("line 4: 2 cells, the header has 5");
    next(-EINVAL);
    error_says("line 5, column 3: text behind");
    next(-EINVAL);
    error_says("line 6, column 1 (type): ");
    next(-EINVAL);
    error_says("line 7: has no type");
    next(1);
    next(-EINVAL);
    error_says("line 10, column 4"); /* the row before took two lines */
    next(1);
    assert_memory_equal(form.event.id.bytes, "2", 1);
    next(-EINVAL);
    error_says("line 12, column 3: a quote without its end");
    next(0);
    end();
}

static void headers_that_cannot_be_are_refused(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        { "\n", "no header" },
        { "source,id\n", "no column \"type\"" },
        { "type,prise\n", "line 1, column 2: \"prise\"" },
        { "type,type\n", "twice" },
        { "type,\"id\n", "quote" },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(begin(cases[i].text), -EINVAL);
        error_says(cases[i].words);
        end();
    }
    assert_int_equal(begin("\xef\xbb\xbftype,source\n1,s\n"), 0);
    next(1);
    end();
}

/* It ended the row, and what followed was taken for the next one. */
static void a_nul_behind_a_quote_ends_no_row(void **state)
{
    static const char csv[] = "type,source\n\"1\"\0,s\n";

    in = fmemopen((void *)(uintptr_t)csv, sizeof(csv) - 1, "r");
    assert_non_null(in);
    assert_int_equal(read_csv_init(&reader, in), 0);
    next(-EINVAL);
    error_says("text behind a closing quote");
    next(0);
    end();
}

static void levels_that_cannot_be_are_refused(void **state)
{
    static const char *const wrong[] = { "1", "1:", ":1", "1:2:3:4", "1:2 x", "1:-2" };
    char text[64];

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        snprintf(text, sizeof(text), "type,bids\n3,%s\n", wrong[i]);
        assert_int_equal(begin(text), 0);
        next(-EINVAL);
        error_says("line 2, column 2 (bids): ");
        end();
    }
}

static void rows_as_long_as_can_be_and_longer_stay_in_their_room(void **state)
{
    static char text[2 * CSV_ROW_BYTES_MAX + 64];

    for (unsigned quoted = 0; quoted < 2; quoted++)
        for (size_t bytes = CSV_ROW_BYTES_MAX - 3; bytes < CSV_ROW_BYTES_MAX + 4; bytes++) {
            char *at = stpcpy(text, quoted ? "type,source\n1,\"" : "type,source\n1,");

            memset(at, 'x', bytes);
            strcpy(at + bytes, quoted ? "\"\n2,s\n" : "\n2,s\n");
            assert_int_equal(begin(text), 0);
            next(-EINVAL);
            next(1);
            assert_int_equal(form.event.type, 2);
            end();
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_type_takes_its_own_columns),
        cmocka_unit_test(quotes_hold_commas_quotes_and_line_ends),
        cmocka_unit_test(errors_name_line_and_column_and_reading_goes_on),
        cmocka_unit_test(headers_that_cannot_be_are_refused),
        cmocka_unit_test(a_nul_behind_a_quote_ends_no_row),
        cmocka_unit_test(levels_that_cannot_be_are_refused),
        cmocka_unit_test(rows_as_long_as_can_be_and_longer_stay_in_their_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
