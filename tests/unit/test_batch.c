/*
 * test_batch.c - what stands in the block: bytes, descriptors, exceptions, counts.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <pb_decode.h>
#include <string.h>

#include "base/clock.h"
#include "tests/lib/line.h"
#include "tests/lib/sample.h"

#define REASON(name) sluice_v1_Reason_##name

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

static uint8_t sample[EVENTS_RUN_MAX][1024];

static size_t make(struct line *l, size_t i, struct sample s)
{
    size_t bytes = sample_event(sample[i], sizeof sample[i], &s);

    line_receive(l, i, sample[i], bytes, SAMPLE_TIME_NS);
    return bytes;
}

static void bytes_and_descriptors_say_what_came(void **state)
{
    static const unsigned types[] = { 1, 2, 3, SAMPLE_CUSTOM };
    struct line *l = *state;
    const struct block *b = &l->block;
    struct block_view view;
    size_t bytes[8];

    /* A block that was used before holds the verdicts on other events. */
    memset(l->block.verdict, VERDICT_DUPLICATE, sizeof l->block.verdict);
    for (size_t i = 0; i < 8; i++) {
        bytes[i] = make(l, i, (struct sample){ .type = types[i % 4], .n = i });
        l->ev[i].receive_time_ns += i * 10;
        l->ev[i].request = (uint16_t)(i / 4);
        l->ev[i].position = (uint16_t)(i % 4);
    }
    assert_int_equal(stages_run(&l->stages, l->ev, 8), 8);
    assert_int_equal(b->events, 8);
    assert_true(b->opened_ns != 0);
    assert_int_equal(b->receive_time_ns, l->ev[0].receive_time_ns);
    block_seal(&l->block, 1, 2);
    assert_int_equal(block_view(&view, block_payload(b), b->write.record.payload_bytes), 0);
    assert_int_equal(view.header->events, 8);
    for (size_t i = 0, at = sizeof(struct block_header); i < 8; at += bytes[i++]) {
        const struct block_desc *d = &view.desc[i];

        assert_int_equal(d->offset, at);
        assert_int_equal(d->bytes, bytes[i]);
        assert_memory_equal(view.payload + d->offset, sample[i], bytes[i]);
        assert_int_equal(d->type, types[i % 4]);
        assert_int_equal(d->timestamp_ns, SAMPLE_TIME_NS + i * 1000);
        assert_int_equal(d->receive_delta_ns, i * 10);
        assert_int_equal(d->session_flags, i % 4 < 3 ? sluice_v1_Session_REGULAR
                                                     : sluice_v1_Session_SESSION_UNSPECIFIED);
        assert_int_equal(d->symbol_hash, hash_symbol(l->ev[i].symbol.data, l->ev[i].symbol.bytes));
        assert_true(d->key.lo == l->ev[i].key.lo && d->key.hi == l->ev[i].key.hi);
        assert_true(b->content[i] == l->ev[i].content);
        assert_int_equal(b->type[i], types[i % 4]);
        assert_int_equal(b->verdict[i], VERDICT_COMMITTED);
        assert_int_equal(b->request_of[i], i / 4);
        assert_int_equal(b->position[i], i % 4);
    }
    for (size_t t = 0; t < 4; t++)
        assert_int_equal(b->by_type[types[t]], 2);
    assert_int_equal(b->exceptions, 0);
    assert_true(line_balances(l));
}

static void an_assigned_id_is_appended_as_the_field(void **state)
{
    struct line *l = *state;
    const struct block_desc *d = l->block.desc;
    static sluice_v1_Event e;
    pb_istream_t in;
    size_t bytes = make(l, 0, (struct sample){ .type = 1, .without_id = true });

    assert_int_equal(stages_run(&l->stages, l->ev, 1), 1);
    assert_int_equal(d->bytes, bytes + 18);
    assert_int_equal(d->session_flags, sluice_v1_Session_REGULAR | DESC_ID_ASSIGNED);
    assert_memory_equal(block_payload(&l->block) + d->offset, sample[0], bytes);
    /* So that the stored bytes, sent again, are a duplicate and no conflict. */
    assert_true(l->block.content[0] ==
                hash_content(l->stages.hash_key, block_payload(&l->block) + d->offset, d->bytes));
    in = pb_istream_from_buffer(block_payload(&l->block) + d->offset, d->bytes);
    assert_true(pb_decode(&in, sluice_v1_Event_fields, &e));
    assert_int_equal(e.id.size, 16);
    assert_memory_equal(e.id.bytes, l->ev[0].assigned_id, 16);
}

/* What was stored with an assigned id, even behind an empty one, is taken when it comes again. */
static void what_is_stored_can_be_sent_again(void **state)
{
    static uint8_t again[1024];
    struct line *l = *state;
    const struct block_desc *d = l->block.desc;
    size_t bytes = make(l, 0, (struct sample){ .type = 2, .without_id = true });

    memcpy(sample[0] + bytes, "\x1a\x00", 2);
    line_receive(l, 0, sample[0], bytes + 2, SAMPLE_TIME_NS);
    assert_int_equal(stages_run(&l->stages, l->ev, 1), 1);
    memcpy(again, block_payload(&l->block) + d->offset, d->bytes);
    assert_int_equal(line_run(l, again, d->bytes), 0);
    assert_false(l->ev[0].id_assigned);
    assert_true(d[0].key.lo == d[1].key.lo && d[0].key.hi == d[1].key.hi);
}

static void refused_events_leave_exceptions_where_somebody_waits(void **state)
{
    struct line *l = *state;
    const struct block *b = &l->block;

    for (size_t i = 0; i < 6; i++) {
        make(l, i, (struct sample){ .type = 1, .n = i });
        if (i % 2 == 1)
            sample[i][0] = 0x0b;
        l->ev[i].request = i < 4 ? 3 : REQUEST_NONE;
        l->ev[i].position = (uint16_t)(100 + i);
    }
    assert_int_equal(stages_run(&l->stages, l->ev, 6), 3);
    assert_int_equal(b->events, 3);
    assert_int_equal(b->exceptions, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(b->exception[i].request, 3);
        assert_int_equal(b->exception[i].position, 101 + 2 * i);
        assert_int_equal(b->exception[i].reason, REASON(DECODE_MALFORMED));
        assert_int_equal(b->exception[i].first_index, 0);
    }
    assert_int_equal(b->position[1], 102);
    assert_int_equal(l->ledger.decoded[1], 3);
    assert_int_equal(l->ledger.invalid[0], 3);
    assert_true(line_balances(l));
}

static void the_receive_time_is_clamped_to_what_a_descriptor_holds(void **state)
{
    static const int64_t delta[] = {
        0, -5, UINT32_MAX - 1ll, UINT32_MAX, UINT32_MAX + 1ll, INT64_MAX / 4
    };
    static const uint32_t stored[] = { 0, 0, UINT32_MAX - 1, UINT32_MAX, UINT32_MAX, UINT32_MAX };
    struct line *l = *state;
    uint64_t first;

    line_set(l, "skew.past_ms", "31622400000");
    for (size_t i = 0; i < 6; i++) {
        make(l, i, (struct sample){ .type = 1, .n = i });
        first = l->ev[0].receive_time_ns;
    }
    assert_int_equal(decode_run(&l->stages, l->ev, 6), 6);
    assert_int_equal(validate_run(&l->stages, l->ev, 6), 6);
    assert_int_equal(enrich_run(&l->stages, l->ev, 6), 6);
    for (size_t i = 0; i < 6; i++)
        l->ev[i].receive_time_ns = first + (uint64_t)delta[i];
    assert_int_equal(batch_run(&l->stages, l->ev, 6), 6);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(l->block.desc[i].receive_delta_ns, stored[i]);
}

static void a_block_takes_events_to_its_last(void **state)
{
    struct line *l = *state;
    struct block_view view;

    for (size_t i = 0; i < BLOCK_EVENTS_MAX; i++) {
        static const uint8_t small[] = "\x08\x40\x12\x01s\x1a\x01i\x21\x00\x00\x00\x00\x00\x00\x00";
        uint8_t event[sizeof small];
        uint64_t time_ns = SAMPLE_TIME_NS;

        memcpy(event, small, sizeof small);
        memcpy(event + 9, &time_ns, 8);
        line_receive(l, 0, event, 17, SAMPLE_TIME_NS);
        assert_int_equal(stages_run(&l->stages, l->ev, 1), 1);
    }
    assert_int_equal(l->block.by_type[SAMPLE_CUSTOM], BLOCK_EVENTS_MAX);
    block_seal(&l->block, 1, 1);
    assert_int_equal(l->block.accepted, BLOCK_EVENTS_MAX);
    assert_int_equal(
        block_view(&view, block_payload(&l->block), l->block.write.record.payload_bytes), 0);
    assert_true(line_balances(l));
}

static void a_batch_out_of_time_refuses_the_rest_and_says_so(void **state)
{
    struct line *l = *state;

    for (size_t i = 0; i < 4; i++) {
        make(l, i, (struct sample){ .type = 2, .n = i });
        l->ev[i].request = 0;
    }
    l->stages.stage_ns_max[STAGE_BATCH] = 0;
    assert_int_equal(stages_run(&l->stages, l->ev, 4), 1);
    assert_int_equal(l->block.events, 1);
    assert_int_equal(l->block.exceptions, 3);
    assert_int_equal(l->block.exception[2].reason, REASON(STAGE_TIMEOUT));
    assert_int_equal(l->ledger.refused[2], 3);
    assert_true(line_balances(l));
}

/* Any mixture of good, broken, repeated and refused events: the ledger balances after every run,
 * and the exceptions are as many as the refused ones. */
static void the_ledger_balances_whatever_comes(void **state)
{
    struct line *l = *state;
    struct sample_random r = { 42 };

    line_set(l, "admit.quote", "drop");
    for (unsigned round = 0; round < 3000; round++) {
        size_t n = 1 + sample_below(&r, EVENTS_RUN_MAX), added;
        uint32_t exceptions;

        if (l->block.events + EVENTS_RUN_MAX > 200 || l->block.exceptions > 3000)
            line_reset(l);
        exceptions = l->block.exceptions;
        for (size_t i = 0; i < n; i++) {
            struct sample s = { .type = 1 + (unsigned)sample_below(&r, 3),
                                .n = sample_below(&r, 9),
                                .without_id = sample_below(&r, 4) == 0 };
            size_t bytes = make(l, i, s);

            l->ev[i].request = 0;
            if (sample_below(&r, 3) == 0)
                sample[i][sample_below(&r, bytes)] ^= (uint8_t)(1u << sample_below(&r, 8));
            if (sample_below(&r, 8) == 0) {
                memcpy(sample[i] + bytes, "\x2a\x00", 2); /* symbol again */
                l->ev[i].raw.bytes += 2;
            }
        }
        added = stages_run(&l->stages, l->ev, n);
        assert_int_equal(l->block.exceptions - exceptions, n - added);
        assert_true(line_balances(l));
    }
}

static void a_stage_is_in_time_until_its_limit(void **state)
{
    struct line *l = *state;
    uint64_t now = clock_monotonic_ns(), limit = now / 2; /* not before the machine started */

    for (enum stage i = STAGE_DECODE; i < STAGE_N; i++) {
        l->stages.stage_ns_max[i] = limit;
        assert_true(stage_in_time(&l->stages, i, now));
        assert_true(stage_in_time(&l->stages, i, now - limit / 2));
        l->stages.stage_ns_max[i] = 0;
        assert_false(stage_in_time(&l->stages, i, now));
    }
}

static void every_stage_is_timed_and_counted(void **state)
{
    struct line *l = *state;

    make(l, 0, (struct sample){ .type = 1 });
    make(l, 1, (struct sample){ .type = 1 });
    make(l, 2, (struct sample){ .type = 1 });
    sample[0][0] = 0x0b;          /* decode refuses it */
    l->ev[1].receive_time_ns = 1; /* validate refuses it */
    assert_int_equal(stages_run(&l->stages, l->ev, 3), 1);
    assert_int_equal(l->ledger.stage_events[STAGE_DECODE], 3);
    assert_int_equal(l->ledger.stage_events[STAGE_VALIDATE], 2);
    assert_int_equal(l->ledger.stage_events[STAGE_ENRICH], 1);
    assert_int_equal(l->ledger.stage_events[STAGE_BATCH], 1);
    for (unsigned i = 0; i < STAGE_N; i++)
        assert_true(l->ledger.stage_ns[i] > 0);
}

static void a_stage_that_only_waited_for_the_processor_goes_on(void **state)
{
    const uint64_t limit_ns = 5 * NS_PER_MS;
    struct stages s = { .stage_ns_max = { limit_ns, limit_ns, limit_ns, limit_ns } };
    uint64_t begun_ns = clock_monotonic_ns() - 1000 * limit_ns, cpu_ns;

    (void)state;
    /* Its start is long ago, and it has not worked since it was found to be late. */
    s.stage_ns_max[STAGE_BATCH] = NS_PER_S;
    assert_true(stage_in_time(&s, STAGE_BATCH, begun_ns));
    s.stage_ns_max[STAGE_BATCH] = limit_ns;
    cpu_ns = clock_read(CLOCK_THREAD_CPUTIME_ID);
    while (clock_read(CLOCK_THREAD_CPUTIME_ID) - cpu_ns < limit_ns) {
    }
    assert_false(stage_in_time(&s, STAGE_BATCH, begun_ns));
    /* Another stage has its own time. */
    s.stage_ns_max[STAGE_DECODE] = NS_PER_S;
    assert_true(stage_in_time(&s, STAGE_DECODE, begun_ns));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bytes_and_descriptors_say_what_came),
        TEST(an_assigned_id_is_appended_as_the_field),
        TEST(what_is_stored_can_be_sent_again),
        TEST(refused_events_leave_exceptions_where_somebody_waits),
        TEST(the_receive_time_is_clamped_to_what_a_descriptor_holds),
        TEST(a_block_takes_events_to_its_last),
        TEST(a_batch_out_of_time_refuses_the_rest_and_says_so),
        TEST(the_ledger_balances_whatever_comes),
        TEST(a_stage_is_in_time_until_its_limit),
        TEST(every_stage_is_timed_and_counted),
        TEST(a_stage_that_only_waited_for_the_processor_goes_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
