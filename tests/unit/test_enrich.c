/*
 * test_enrich.c - sessions, assigned ids, identity and content.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/clock.h"
#include "tests/lib/edit.h"
#include "tests/lib/line.h"
#include "tests/lib/sample.h"

#define HOUR_NS (3600 * NS_PER_S)

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

static const struct event *enrich(struct line *l, const void *data, size_t bytes, uint64_t time_ns)
{
    line_receive(l, 0, data, bytes, time_ns);
    assert_int_equal(decode_run(&l->stages, l->ev, 1), 1);
    assert_int_equal(validate_run(&l->stages, l->ev, 1), 1);
    assert_int_equal(enrich_run(&l->stages, l->ev, 1), 1);
    return &l->ev[0];
}

static const struct event *enrich_sample(struct line *l, struct sample s)
{
    static uint8_t buf[SAMPLE_BYTES_MAX];
    size_t bytes;

    if (s.time_ns == 0)
        s.time_ns = SAMPLE_TIME_NS;
    bytes = sample_event(buf, sizeof buf, &s);
    return enrich(l, buf, bytes, s.time_ns);
}

static void the_session_is_that_of_the_events_own_time(void **state)
{
    /* Hours after 09:30 in New York on a Tuesday. */
    static const struct {
        int minutes;
        uint8_t session;
    } at[] = { { 0, sluice_v1_Session_REGULAR },   { -1, sluice_v1_Session_PRE_MARKET },
               { 389, sluice_v1_Session_REGULAR }, { 390, sluice_v1_Session_POST_MARKET },
               { -600, sluice_v1_Session_CLOSED }, { 0, sluice_v1_Session_REGULAR } };
    struct line *l = *state;

    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        uint64_t t = SAMPLE_TIME_NS + (uint64_t)((int64_t)at[i].minutes * 60 * (int64_t)NS_PER_S);

        for (unsigned type = 1; type <= 3; type++) {
            const struct event *ev =
                enrich_sample(l, (struct sample){ .type = type, .time_ns = t });

            assert_int_equal(ev->session, at[i].session);
        }
    }
    assert_int_equal(enrich_sample(l, (struct sample){ .type = SAMPLE_CUSTOM })->session,
                     sluice_v1_Session_SESSION_UNSPECIFIED);
}

/* A market that is open when New York is not, found by the venue of each kind of event. */
static void the_calendar_is_that_of_the_venue(void **state)
{
    struct line *l = *state;
    char error[CALENDAR_ERROR_BYTES];
    struct calendar *c = calendar_set_add(&l->set, "tokyo", error);
    static struct edit e, detail;

    assert_non_null(c);
    assert_int_equal(calendar_add_zone(c, "JST-9", error), 0);
    assert_int_equal(calendar_add_hours(c, SESSION_REGULAR, "09:00", "15:30", error), 0);
    assert_int_equal(calendar_add_venue(&l->set, c, "XTKS", error), 0);
    assert_int_equal(calendar_seal(c, error), 0);
    for (unsigned i = 0; i < 5; i++) {
        /* Trade.venue, Quote.bid_venue, Quote.ask_venue, OrderBook.venue, and no venue. */
        static const unsigned detail_field[] = { 6, 7, 7, 8, 6 }, venue[] = { 5, 7, 8, 5, 0 };
        uint64_t t = SAMPLE_TIME_NS + 11 * HOUR_NS; /* 20:30 in New York, 10:30 in Tokyo */

        detail.bytes = e.bytes = 0;
        if (venue[i] != 0)
            edit_text(&detail, venue[i], "XTKS");
        edit_number(&e, 1, detail_field[i] - 5);
        edit_text(&e, 2, "s");
        edit_fixed64(&e, 4, t);
        edit_message(&e, detail_field[i], &detail);
        assert_int_equal(enrich(l, e.data, e.bytes, t)->session,
                         venue[i] != 0 ? SESSION_REGULAR : SESSION_CLOSED);
    }
}

static void a_missing_id_is_assigned_and_counts_up(void **state)
{
    struct line *l = *state;
    const struct sample without = { .type = 1, .without_id = true }, with = { .type = 1, .n = 5 };
    uint8_t expected[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0xff };
    const struct event *ev;
    struct key128 first;

    l->stages.id_counter = 0xff;
    ev = enrich_sample(l, without);
    assert_true(ev->id_assigned);
    assert_memory_equal(ev->assigned_id, expected, 16);
    assert_int_equal(ev->id.bytes, 16);
    first = ev->key;
    ev = enrich_sample(l, with);
    assert_false(ev->id_assigned);
    ev = enrich_sample(l, without);
    expected[14] = 1;
    expected[15] = 0;
    assert_memory_equal(ev->assigned_id, expected, 16);
    assert_true(ev->key.lo != first.lo && ev->key.hi != first.hi);
}

static void the_identity_is_source_and_id_and_the_content_is_all_bytes(void **state)
{
    struct line *l = *state;
    const struct sample s = { .type = 1, .n = 3 };
    struct sample other = s;
    const struct event *ev = enrich_sample(l, s);
    struct key128 key = hash_event_key(l->stages.hash_key, ev->source.data, ev->source.bytes,
                                       ev->id.data, ev->id.bytes);
    uint64_t content = hash_content(l->stages.hash_key, ev->raw.data, ev->raw.bytes);

    assert_true(ev->key.lo == key.lo && ev->key.hi == key.hi);
    assert_true(ev->content == content);
    other.attributes = true;
    ev = enrich_sample(l, other);
    assert_true(ev->key.lo == key.lo && ev->key.hi == key.hi);
    assert_true(ev->content != content);
    other = s;
    other.n = 4;
    ev = enrich_sample(l, other);
    assert_true(ev->key.lo != key.lo && ev->key.hi != key.hi);
    l->stages.hash_key[3] ^= 1;
    ev = enrich_sample(l, s);
    assert_true(ev->key.lo != key.lo && ev->content != content);
}

static void a_nul_in_an_id_makes_another_identity(void **state)
{
    static struct edit e;
    struct line *l = *state;
    struct key128 key[2];

    for (unsigned i = 0; i < 2; i++) {
        e.bytes = 0;
        edit_number(&e, 1, SAMPLE_CUSTOM);
        edit_bytes(&e, 2, "s", 1);
        edit_bytes(&e, 3, "i\0", 1 + i);
        edit_fixed64(&e, 4, SAMPLE_TIME_NS);
        key[i] = enrich(l, e.data, e.bytes, SAMPLE_TIME_NS)->key;
    }
    assert_true(key[0].lo != key[1].lo && key[0].hi != key[1].hi);
}

static void an_enrich_out_of_time_refuses_the_rest(void **state)
{
    struct line *l = *state;
    uint8_t buf[SAMPLE_BYTES_MAX];
    size_t bytes = sample_event(buf, sizeof buf, &(struct sample){ .type = 1 });

    for (size_t i = 0; i < 3; i++)
        line_receive(l, i, buf, bytes, SAMPLE_TIME_NS);
    l->stages.stage_ns_max[STAGE_ENRICH] = 0;
    assert_int_equal(stages_run(&l->stages, l->ev, 3), 1);
    assert_int_equal(l->ledger.refused[1], 2);
    assert_true(line_balances(l));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_session_is_that_of_the_events_own_time),
        TEST(the_calendar_is_that_of_the_venue),
        TEST(a_missing_id_is_assigned_and_counts_up),
        TEST(the_identity_is_source_and_id_and_the_content_is_all_bytes),
        TEST(a_nul_in_an_id_makes_another_identity),
        TEST(an_enrich_out_of_time_refuses_the_rest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
