/*
 * test_validate.c - each rule of validate, at both sides of its limit.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "tests/lib/edit.h"
#include "tests/lib/line.h"
#include "tests/lib/sample.h"

#define REASON(name) sluice_v1_Reason_##name
#define NONE         REASON(REASON_NONE)

static struct edit e, detail;

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

/* An event of `type` with the detail in `detail` as field detail_field (0: none). */
static void event_begin(unsigned type, unsigned detail_field)
{
    e.bytes = 0;
    edit_number(&e, 1, type);
    edit_text(&e, 2, "src");
    edit_fixed64(&e, 4, SAMPLE_TIME_NS);
    if (detail_field != 0)
        edit_message(&e, detail_field, &detail);
}

static unsigned check(struct line *l)
{
    unsigned reason = line_validate(l, e.data, e.bytes);

    assert_true(reason != NONE || l->ev[0].reason == NONE);
    return reason;
}

static unsigned check_detail(struct line *l, unsigned type)
{
    event_begin(type, type < 4 ? type + 5 : 9);
    return check(l);
}

static void samples_are_valid(void **state)
{
    static const unsigned types[] = { 1, 2, 3, SAMPLE_CUSTOM };
    struct line *l = *state;
    uint8_t buf[SAMPLE_BYTES_MAX];

    for (uint64_t n = 0; n < 400; n++) {
        size_t bytes = sample_event(
            buf, sizeof buf,
            &(struct sample){ .type = types[n % 4], .n = n, .attributes = n % 3 == 0 });

        assert_int_equal(line_validate(l, buf, bytes), NONE);
    }
}

static void a_type_must_be_known_and_admitted(void **state)
{
    struct line *l = *state;

    detail.bytes = 0;
    for (unsigned type = 0; type < 128; type++) {
        event_begin(type, type >= 1 && type <= 3 ? type + 5 : 0);
        assert_int_equal(check(l), (type >= 1 && type <= 3) || type == SAMPLE_CUSTOM
                                       ? NONE
                                       : REASON(TYPE_UNKNOWN));
    }
    line_set(l, "admit.quote", "drop");
    assert_int_equal(check_detail(l, 2), REASON(TYPE_NOT_ADMITTED));
    assert_int_equal(l->ledger.refused[2], 1);
    assert_int_equal(l->ledger.reason[REASON(TYPE_NOT_ADMITTED)], 1);
    assert_int_equal(check_detail(l, 1), NONE);
    /* An invalid event of a refused type is invalid. */
    e.bytes = 0;
    edit_number(&e, 1, 2);
    edit_message(&e, 7, &detail);
    assert_int_equal(check(l), REASON(SOURCE_MISSING));
}

static void the_detail_must_be_that_of_the_type(void **state)
{
    static const unsigned fields[] = { 0, 6, 7, 8, 9 };
    static const unsigned types[] = { 1, 2, 3, SAMPLE_CUSTOM };
    struct line *l = *state;

    detail.bytes = 0;
    for (size_t t = 0; t < 4; t++) {
        for (size_t f = 0; f < 5; f++) {
            bool match =
                types[t] < 4 ? fields[f] == types[t] + 5 : fields[f] == 0 || fields[f] == 9;

            event_begin(types[t], fields[f]);
            assert_int_equal(check(l), match ? NONE : REASON(TYPE_DETAIL_MISMATCH));
        }
    }
}

static void source_and_timestamp_must_be_there(void **state)
{
    struct line *l = *state;

    e.bytes = 0;
    edit_number(&e, 1, SAMPLE_CUSTOM);
    edit_text(&e, 2, "");
    edit_fixed64(&e, 4, SAMPLE_TIME_NS);
    assert_int_equal(check(l), REASON(SOURCE_MISSING));
    e.bytes = 0;
    edit_number(&e, 1, SAMPLE_CUSTOM);
    edit_text(&e, 2, "s");
    assert_int_equal(check(l), REASON(TIMESTAMP_MISSING));
    edit_fixed64(&e, 4, 0);
    assert_int_equal(check(l), REASON(TIMESTAMP_MISSING));
}

static unsigned check_time(struct line *l, uint64_t time_ns)
{
    e.bytes = 0;
    edit_number(&e, 1, SAMPLE_CUSTOM);
    edit_text(&e, 2, "s");
    edit_fixed64(&e, 4, time_ns);
    return check(l);
}

static void timestamps_keep_within_the_skew_of_the_settings(void **state)
{
    struct line *l = *state;
    uint64_t now = SAMPLE_TIME_NS + NS_PER_MS; /* line_receive() */
    uint64_t past = l->admission.settings.skew_past_ms * NS_PER_MS;
    uint64_t future = l->admission.settings.skew_future_ms * NS_PER_MS;

    assert_int_equal(check_time(l, now), NONE);
    assert_int_equal(check_time(l, now - past), NONE);
    assert_int_equal(check_time(l, now - past - 1), REASON(TIMESTAMP_PAST));
    assert_int_equal(check_time(l, now + future), NONE);
    assert_int_equal(check_time(l, now + future + 1), REASON(TIMESTAMP_FUTURE));
    assert_int_equal(check_time(l, 1), REASON(TIMESTAMP_PAST));
    assert_int_equal(check_time(l, UINT64_MAX), REASON(TIMESTAMP_FUTURE));

    line_set(l, "skew.past_ms", "0");
    line_set(l, "skew.future_ms", "0");
    assert_int_equal(check_time(l, now), NONE);
    assert_int_equal(check_time(l, now - 1), REASON(TIMESTAMP_PAST));
    assert_int_equal(check_time(l, now + 1), REASON(TIMESTAMP_FUTURE));
    line_set(l, "skew.past_ms", "31622400000");
    assert_int_equal(check_time(l, now - 31622400000 * NS_PER_MS), NONE);
    assert_int_equal(check_time(l, now - 31622400000 * NS_PER_MS - 1), REASON(TIMESTAMP_PAST));
}

static void a_nul_in_a_string_would_make_two_sources_look_like_one(void **state)
{
    struct line *l = *state;

    e.bytes = 0;
    edit_number(&e, 1, SAMPLE_CUSTOM);
    edit_bytes(&e, 2, "a\0b", 3);
    edit_fixed64(&e, 4, SAMPLE_TIME_NS);
    assert_int_equal(check(l), REASON(UTF8_INVALID));
    event_begin(SAMPLE_CUSTOM, 0);
    edit_bytes(&e, 5, "\0", 1);
    assert_int_equal(check(l), REASON(UTF8_INVALID));
    /* An id is bytes. */
    event_begin(SAMPLE_CUSTOM, 0);
    edit_bytes(&e, 3, "a\0b", 3);
    assert_int_equal(check(l), NONE);
}

static void every_string_must_be_utf8(void **state)
{
    static const char *const bad[] = { "\xff", "aaaaaaaa\xc3", "\xc0\xaf", "\xed\xa0\x80" };
    struct line *l = *state;

    for (size_t i = 0; i < 4; i++) {
        e.bytes = 0;
        edit_number(&e, 1, SAMPLE_CUSTOM);
        edit_text(&e, 2, bad[i]);
        edit_fixed64(&e, 4, SAMPLE_TIME_NS);
        assert_int_equal(check(l), REASON(UTF8_INVALID));
        event_begin(SAMPLE_CUSTOM, 0);
        edit_text(&e, 5, bad[i]);
        assert_int_equal(check(l), REASON(UTF8_INVALID));
        for (unsigned field = 1; field <= 2; field++) {
            detail.bytes = 0;
            edit_text(&detail, field, bad[i]);
            event_begin(SAMPLE_CUSTOM, 10);
            assert_int_equal(check(l), REASON(UTF8_INVALID));
        }
        detail.bytes = 0;
        edit_text(&detail, 1, bad[i]);
        assert_int_equal(check_detail(l, SAMPLE_CUSTOM), REASON(UTF8_INVALID));
        /* Bytes are not text. */
        detail.bytes = 0;
        edit_text(&detail, 2, bad[i]);
        event_begin(SAMPLE_CUSTOM, 9);
        edit_text(&e, 3, bad[i]);
        assert_int_equal(check(l), NONE);
    }
    detail.bytes = 0;
    event_begin(SAMPLE_CUSTOM, 0);
    edit_text(&e, 5,
              "\xe6\x97\xa5\xe7\xb5\x8c"
              "225 \xf0\x9f\x98\x80");
    assert_int_equal(check(l), NONE);
}

static void enrichment_is_not_for_producers(void **state)
{
    struct line *l = *state;

    event_begin(SAMPLE_CUSTOM, 0);
    edit_text(&e, 15, "");
    assert_int_equal(check(l), REASON(ENRICHMENT_PRESENT));
    event_begin(SAMPLE_CUSTOM, 0);
    edit_text(&e, 15, "\xff\xff not even a message");
    assert_int_equal(check(l), REASON(ENRICHMENT_PRESENT));
}

static void a_traceparent_has_25_bytes_or_none(void **state)
{
    struct line *l = *state;
    uint8_t zeros[32] = { 0 };

    for (size_t n = 0; n <= 26; n++) {
        event_begin(SAMPLE_CUSTOM, 0);
        edit_bytes(&e, 11, zeros, n);
        assert_int_equal(check(l), n == 0 || n == 25 ? NONE
                                   : n > 25          ? REASON(DECODE_BOUNDS)
                                                     : REASON(VALUE_OUT_OF_RANGE));
    }
}

static void an_event_is_at_most_as_long_as_the_settings_say(void **state)
{
    struct line *l = *state;
    static uint8_t zeros[EVENT_BYTES_MAX + 100];

    line_set(l, "event.bytes_max", "256");
    for (size_t bytes = 250; bytes <= 260; bytes++) {
        event_begin(SAMPLE_CUSTOM, 0);
        edit_bytes(&e, 100, zeros, bytes - e.bytes - 4);
        assert_int_equal(e.bytes, bytes);
        assert_int_equal(check(l), bytes <= 256 ? NONE : REASON(DECODE_BOUNDS));
    }
    /* A setting above what a block can hold does not lift that limit. */
    line_set(l, "event.bytes_max", "65535");
    for (size_t bytes = EVENT_BYTES_MAX - 1; bytes <= EVENT_BYTES_MAX + 1; bytes++) {
        event_begin(SAMPLE_CUSTOM, 0);
        edit_bytes(&e, 100, zeros, bytes - e.bytes - 5);
        assert_int_equal(e.bytes, bytes);
        assert_int_equal(check(l), bytes <= EVENT_BYTES_MAX ? NONE : REASON(DECODE_BOUNDS));
    }
}

static unsigned check_trade(struct line *l, int64_t price, uint64_t size, uint64_t price_scale,
                            uint64_t size_scale, uint64_t aggressor)
{
    detail.bytes = 0;
    edit_signed(&detail, 1, price);
    edit_number(&detail, 2, price_scale);
    edit_number(&detail, 3, size);
    edit_number(&detail, 4, size_scale);
    edit_number(&detail, 9, aggressor);
    return check_detail(l, 1);
}

static void a_trades_numbers_have_ranges(void **state)
{
    struct line *l = *state;

    assert_int_equal(check_trade(l, 1, 1, 18, 18, 2), NONE);
    assert_int_equal(check_trade(l, -3763, 1, 2, 0, 0), NONE); /* WTI, 2020-04-20 */
    assert_int_equal(check_trade(l, 0, 0, 0, 0, 0), NONE);
    assert_int_equal(check_trade(l, INT64_MAX, INT64_MAX, 0, 0, 1), NONE);
    assert_int_equal(check_trade(l, INT64_MIN + 1, 1, 0, 0, 0), NONE);
    assert_int_equal(check_trade(l, INT64_MIN, 1, 0, 0, 0), REASON(VALUE_OUT_OF_RANGE));
    assert_int_equal(check_trade(l, 1, 1ull << 63, 0, 0, 0), REASON(VALUE_OUT_OF_RANGE));
    assert_int_equal(check_trade(l, 1, 1, 19, 0, 0), REASON(VALUE_OUT_OF_RANGE));
    assert_int_equal(check_trade(l, 1, 1, 0, 19, 0), REASON(VALUE_OUT_OF_RANGE));
    assert_int_equal(check_trade(l, 1, 1, 0, 0, 3), REASON(VALUE_OUT_OF_RANGE));
    assert_int_equal(check_trade(l, 1, 1, 0, 0, UINT64_MAX), REASON(VALUE_OUT_OF_RANGE));
}

static void a_quotes_numbers_have_ranges(void **state)
{
    static const uint64_t good[7] = { 0, 0, 0, 0, 0, 18, 18 };
    static const uint64_t bad[7] = { 0, UINT64_MAX, 1ull << 63, UINT64_MAX, 1ull << 63, 19, 19 };
    struct line *l = *state;

    for (unsigned broken = 0; broken <= 6; broken++) {
        detail.bytes = 0;
        for (unsigned f = 1; f <= 6; f++)
            edit_number(&detail, f, f == broken ? bad[f] : good[f]);
        assert_int_equal(check_detail(l, 2), broken == 0 ? NONE : REASON(VALUE_OUT_OF_RANGE));
    }
}

struct level {
    int64_t price;
    uint64_t size;
};

static unsigned check_book(struct line *l, bool snapshot, unsigned side, struct level a,
                           struct level b)
{
    struct edit level;

    detail.bytes = 0;
    for (unsigned i = 0; i < 2; i++) {
        level.bytes = 0;
        edit_signed(&level, 1, i == 0 ? a.price : b.price);
        edit_number(&level, 2, i == 0 ? a.size : b.size);
        edit_message(&detail, side, &level);
    }
    edit_number(&detail, 7, snapshot);
    return check_detail(l, 3);
}

static void a_snapshot_is_ordered_best_first(void **state)
{
    const struct level low = { 10, 1 }, high = { 11, 1 }, none = { 9, 0 }, huge = { 9, 1ull << 63 };
    struct line *l = *state;

    assert_int_equal(check_book(l, true, 1, high, low), NONE);
    assert_int_equal(check_book(l, true, 1, low, high), REASON(VALUE_OUT_OF_RANGE));
    assert_int_equal(check_book(l, true, 1, low, low), REASON(VALUE_OUT_OF_RANGE));
    assert_int_equal(check_book(l, true, 2, low, high), NONE);
    assert_int_equal(check_book(l, true, 2, high, low), REASON(VALUE_OUT_OF_RANGE));
    assert_int_equal(check_book(l, true, 2, high, high), REASON(VALUE_OUT_OF_RANGE));
    assert_int_equal(check_book(l, true, 1, high, none), REASON(VALUE_OUT_OF_RANGE));
    for (unsigned side = 1; side <= 2; side++) {
        assert_int_equal(check_book(l, false, side, low, high), NONE);
        assert_int_equal(check_book(l, false, side, high, low), NONE);
        assert_int_equal(check_book(l, false, side, low, low), NONE);
        assert_int_equal(check_book(l, false, side, none, low), NONE);
        assert_int_equal(check_book(l, false, side, low, huge), REASON(VALUE_OUT_OF_RANGE));
        assert_int_equal(check_book(l, false, side, (struct level){ INT64_MIN, 1 }, low),
                         REASON(VALUE_OUT_OF_RANGE));
    }
    for (unsigned field = 3; field <= 4; field++) {
        detail.bytes = 0;
        edit_number(&detail, field, 19);
        assert_int_equal(check_detail(l, 3), REASON(VALUE_OUT_OF_RANGE));
    }
}

static void a_validate_out_of_time_refuses_the_rest(void **state)
{
    struct line *l = *state;

    event_begin(SAMPLE_CUSTOM, 0);
    for (size_t i = 0; i < 4; i++)
        line_receive(l, i, e.data, e.bytes, SAMPLE_TIME_NS);
    l->stages.stage_ns_max[STAGE_VALIDATE] = 0;
    assert_int_equal(decode_run(&l->stages, l->ev, 4), 4);
    assert_int_equal(validate_run(&l->stages, l->ev, 4), 1);
    assert_int_equal(l->ledger.refused[SAMPLE_CUSTOM], 3);
    assert_int_equal(l->ledger.reason[REASON(STAGE_TIMEOUT)], 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(samples_are_valid),
        TEST(a_type_must_be_known_and_admitted),
        TEST(the_detail_must_be_that_of_the_type),
        TEST(source_and_timestamp_must_be_there),
        TEST(timestamps_keep_within_the_skew_of_the_settings),
        TEST(every_string_must_be_utf8),
        TEST(a_nul_in_a_string_would_make_two_sources_look_like_one),
        TEST(enrichment_is_not_for_producers),
        TEST(a_traceparent_has_25_bytes_or_none),
        TEST(an_event_is_at_most_as_long_as_the_settings_say),
        TEST(a_trades_numbers_have_ranges),
        TEST(a_quotes_numbers_have_ranges),
        TEST(a_snapshot_is_ordered_best_first),
        TEST(a_validate_out_of_time_refuses_the_rest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
