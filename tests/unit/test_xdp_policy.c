/*
 * test_xdp_policy.c - the XDP program on policies: what each action does to single events and to
 * batches, what goes the kernel's way, and the shadow policy.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <bpf/bpf.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/lib/edit.h"
#include "tests/lib/xdp_expect.h"

#define SECOND 1000000000ull
#define LONG   (3600 * SECOND)

/* Types with one action each, of the policy of these tests. */
enum { ACCEPT_0 = 1, ACCEPT_1, ACCEPT_2, ACCEPT_3, DROP, UNKNOWN, SAMPLE, RATE };

static struct xdp_rig rig;

static struct policy each_action(void)
{
    struct policy p;

    xdp_rig_policy(&p);
    for (unsigned t = ACCEPT_0; t <= ACCEPT_3; t++)
        p.type[t] = (struct policy_type){ .action = POLICY_ACCEPT, .class = (uint8_t)(t - 1) };
    p.type[DROP] = (struct policy_type){ .action = POLICY_DROP, .class = 1 };
    p.type[UNKNOWN] = (struct policy_type){ .action = POLICY_UNKNOWN, .class = 3 };
    p.type[SAMPLE] = (struct policy_type){ .action = POLICY_SAMPLE, .class = 1, .every = 10 };
    p.type[RATE] = (struct policy_type){
        .action = POLICY_RATE, .class = 2, .interval_ns = LONG, .burst_ns = 5 * LONG
    };
    return p;
}

static int setup(void **state)
{
    struct policy p = each_action();

    xdp_rig_set_policy(&rig, &p, false);
    xdp_rig_set_policy(&rig, &p, true);
    memset(rig.cells, 0, sizeof *rig.cells);
    rig.control->shadow = 0;
    rig.control->interface[0].queues = 1;
    xdp_rig_clear(&rig);
    return 0;
}

static struct frame frame_of(const struct edit *e)
{
    struct frame f;

    frame_init(&f, e->data, e->bytes);
    return f;
}

static const struct edit *event_of(uint64_t type)
{
    static struct edit e;

    e.bytes = 0;
    edit_number(&e, 1, type);
    edit_text(&e, 2, "feed");
    return &e;
}

static struct frame event_frame(uint64_t type) { return frame_of(event_of(type)); }

/* Of the types in turn, until a 0. */
static struct frame batch_frame(const unsigned *types)
{
    static struct edit batch;

    batch.bytes = 0;
    for (; *types != 0; types++)
        edit_message(&batch, 1, event_of(*types));
    return frame_of(&batch);
}

#define BATCH(...) batch_frame((const unsigned[]){ __VA_ARGS__, 0 })

static int send_one(const struct frame *f)
{
    static _Alignas(8) uint8_t frame[4096];

    return xdp_rig_run(&rig, frame, frame_build(f, frame, sizeof frame));
}

static unsigned taken_of(struct frame f, unsigned n)
{
    unsigned taken = 0;

    for (unsigned i = 0; i < n; i++)
        taken += send_one(&f) != XDP_DROP;
    return taken;
}

/* --- single events --------------------------------------------------------------------------- */

static void every_type_has_its_action_and_class(void **state)
{
    static const enum policy_action actions[] = { POLICY_ACCEPT, POLICY_DROP, POLICY_UNKNOWN };
    struct policy p;

    for (unsigned round = 0; round < 3; round++) {
        xdp_rig_policy(&p);
        for (unsigned t = 0; t < POLICY_TYPES; t++)
            p.type[t] = (struct policy_type){ .action = actions[(t + round) % 3],
                                              .class = (uint8_t)((t / 3 + round) % 4) };
        xdp_rig_set_policy(&rig, &p, false);
        for (unsigned t = 0; t < POLICY_TYPES; t++) {
            struct frame f = event_frame(t);

            if ((t + round) % 3 == 0)
                expect_redirected(&rig, &f, t, (t / 3 + round) % 4);
            else
                expect_dropped(&rig, &f, t,
                               (t + round) % 3 == 1 ? REASON_TYPE_DROPPED : REASON_TYPE_UNKNOWN);
        }
    }
}

static void a_type_out_of_range_is_type_0(void **state)
{
    static const uint64_t types[] = { 128, 129, 255, 256, 16384, 1ull << 32, UINT64_MAX };

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        struct frame f = event_frame(types[i]);

        expect_dropped(&rig, &f, 0, REASON_TYPE_UNKNOWN);
        f = batch_frame((const unsigned[]){ types[i] > 200 ? 255 : 128, 0 });
        expect_dropped(&rig, &f, 0, REASON_TYPE_UNKNOWN);
    }
}

static void what_is_not_an_event_is_dropped_by_its_kind(void **state)
{
    struct frame f;

    for (unsigned first = 0; first < 256; first++) {
        uint8_t data[2] = { (uint8_t)first, 1 };

        frame_init(&f, data, 2);
        if (first == 0x08)
            expect_redirected(&rig, &f, 1, 0);
        else if (first == 0x0a) /* an event of a byte that is not there */
            expect_dropped(&rig, &f, 0, REASON_BATCH_MALFORMED);
        else
            expect_dropped(&rig, &f, 0, REASON_NOT_PROTOBUF);
        frame_init(&f, data, 1);
        expect_dropped(&rig, &f, 0,
                       first == 0x08   ? REASON_EVENT_MALFORMED
                       : first == 0x0a ? REASON_BATCH_MALFORMED
                                       : REASON_NOT_PROTOBUF);
    }
    frame_init(&f, "\x08\x05\x12\x7f", 4);
    expect_dropped(&rig, &f, 5, REASON_EVENT_MALFORMED);
}

static void one_in_n_is_taken_exactly(void **state)
{
    static const unsigned every[] = { 1, 2, 7, 10, 1000 };
    struct frame f = event_frame(SAMPLE);
    struct policy p = each_action();

    for (size_t i = 0; i < 5; i++) {
        memset(rig.cells, 0, sizeof *rig.cells);
        p.type[SAMPLE].every = every[i];
        xdp_rig_set_policy(&rig, &p, false);
        for (unsigned n = 0; n < 10000; n++)
            assert_int_equal(send_one(&f), n % every[i] ? XDP_DROP : XDP_REDIRECT);
        assert_int_equal(rig.cells->at[0][SAMPLE].turn, 10000);
    }
    p.type[SAMPLE].every = 0; /* no settings ask for it; it must not divide by it */
    xdp_rig_set_policy(&rig, &p, false);
    assert_int_equal(taken_of(event_frame(SAMPLE), 10), 10);
}

static void sampled_types_have_a_turn_each(void **state)
{
    struct policy p = each_action();
    struct edit other = *event_of(ACCEPT_2);
    struct frame a = event_frame(SAMPLE), b = frame_of(&other);

    p.type[ACCEPT_2] = p.type[SAMPLE];
    xdp_rig_set_policy(&rig, &p, false);
    for (unsigned n = 0; n < 31; n++) {
        assert_int_equal(send_one(&a), n % 10 ? XDP_DROP : XDP_REDIRECT);
        assert_int_equal(send_one(&b), n % 10 ? XDP_DROP : XDP_REDIRECT);
    }
    for (unsigned n = 0; n < 9; n++)
        expect_dropped(&rig, &a, SAMPLE, REASON_SAMPLED_OUT);
    expect_redirected(&rig, &a, SAMPLE, 1);
}

static void a_type_has_its_burst_and_no_more(void **state)
{
    struct frame f = event_frame(RATE);

    for (unsigned n = 0; n < 5; n++)
        expect_redirected(&rig, &f, RATE, 2);
    for (unsigned n = 0; n < 5; n++)
        expect_dropped(&rig, &f, RATE, REASON_TYPE_RATE);
    f.source = frame_address("192.0.2.200"); /* whoever sends */
    expect_dropped(&rig, &f, RATE, REASON_TYPE_RATE);
}

static void the_worker_and_the_program_share_a_types_rate(void **state)
{
    struct policy p = each_action();
    unsigned taken = 0;

    for (unsigned n = 0; n < 2; n++)
        taken += policy_event(&p.type[RATE], &rig.cells->at[0][RATE]) == REASON_NONE;
    taken += taken_of(event_frame(RATE), 10);
    taken += policy_event(&p.type[RATE], &rig.cells->at[0][RATE]) == REASON_NONE;
    assert_int_equal(taken, 5);
}

static void wait_until(uint64_t ns)
{
    struct timespec t = { (time_t)(ns / SECOND), (long)(ns % SECOND) };

    while (policy_now_ns() < ns)
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static void what_a_type_may_take_comes_back_with_time(void **state)
{
    const uint64_t interval = SECOND / 4, burst = 3 * interval;
    struct policy p = each_action();
    uint64_t before, after, tat, taken;

    p.type[RATE].interval_ns = interval;
    p.type[RATE].burst_ns = burst;
    xdp_rig_set_policy(&rig, &p, false);
    assert_in_range(taken_of(event_frame(RATE), 20), 3, 4);
    for (unsigned wait = 1; wait <= 2; wait++) {
        tat = rig.cells->at[0][RATE].tat_ns;
        wait_until(tat - burst + wait * interval);
        before = policy_now_ns();
        taken = taken_of(event_frame(RATE), 20);
        after = policy_now_ns();
        assert_in_range(taken, (before + burst - tat) / interval, (after + burst - tat) / interval);
        assert_true(taken >= wait);
    }
}

/* A slow rate that was used up must not hold on when a faster one takes its place. */
static void a_rate_that_is_raised_holds_soon(void **state)
{
    const uint64_t interval = SECOND / 100, burst = 10 * interval;
    struct policy p = each_action();
    uint64_t begun;

    assert_int_equal(taken_of(event_frame(RATE), 20), 5);
    assert_true(rig.cells->at[0][RATE].tat_ns > policy_now_ns() + 4 * LONG);
    p.type[RATE].interval_ns = interval;
    p.type[RATE].burst_ns = burst;
    xdp_rig_set_policy(&rig, &p, false);
    begun = policy_now_ns();
    while (taken_of(event_frame(RATE), 1) == 0 && policy_now_ns() < begun + 20 * SECOND)
        continue;
    assert_true(policy_now_ns() < begun + 20 * SECOND);
    assert_true(rig.cells->at[0][RATE].tat_ns <= policy_now_ns() + burst);
}

/* --- batches --------------------------------------------------------------------------------- */

static void a_batch_is_dropped_only_with_all_its_events(void **state)
{
    struct frame f;

    expect_dropped(&rig, (f = BATCH(DROP), &f), DROP, REASON_TYPE_DROPPED);
    expect_dropped(&rig, (f = BATCH(DROP, DROP, DROP), &f), DROP, REASON_TYPE_DROPPED);
    expect_dropped(&rig, (f = BATCH(UNKNOWN), &f), UNKNOWN, REASON_TYPE_UNKNOWN);
    expect_dropped(&rig, (f = BATCH(UNKNOWN, 99, 128), &f), UNKNOWN, REASON_TYPE_UNKNOWN);
    expect_dropped(&rig, (f = BATCH(UNKNOWN, DROP), &f), UNKNOWN, REASON_TYPE_DROPPED);
    expect_dropped(&rig, (f = BATCH(DROP, UNKNOWN), &f), DROP, REASON_TYPE_DROPPED);
    for (unsigned good = ACCEPT_0; good <= RATE; good++) {
        if (good == DROP || good == UNKNOWN)
            continue;
        for (unsigned at = 0; at < WALK_EVENTS; at++) {
            unsigned types[WALK_EVENTS + 1] = { 0 };

            for (unsigned i = 0; i < WALK_EVENTS; i++)
                types[i] = i % 2 ? DROP : UNKNOWN;
            types[at] = good;
            f = batch_frame(types);
            assert_int_equal(send_one(&f), XDP_REDIRECT);
        }
    }
}

static void a_batch_longer_than_the_walk_is_not_dropped(void **state)
{
    struct xdp_counters moved = { .arrived = 1 };
    unsigned types[WALK_EVENTS + 2] = { 0 };
    struct frame f;

    for (unsigned i = 0; i < WALK_EVENTS; i++)
        types[i] = DROP;
    f = batch_frame(types);
    expect_dropped(&rig, &f, DROP, REASON_TYPE_DROPPED);
    types[WALK_EVENTS] = DROP; /* the worker has to look at the last one */
    f = batch_frame(types);
    moved.bytes = f.bytes;
    moved.type_arrived[DROP] = moved.redirected[1] = 1;
    expect(&rig, &f, XDP_REDIRECT, &moved);
}

static void a_batch_neither_samples_nor_limits(void **state)
{
    assert_int_equal(taken_of(BATCH(SAMPLE, SAMPLE), 50), 50);
    assert_int_equal(taken_of(BATCH(RATE, RATE), 50), 50);
    assert_int_equal(rig.cells->at[0][SAMPLE].turn, 0);
    assert_int_equal(rig.cells->at[0][RATE].tat_ns, 0);
}

static void a_batch_goes_to_the_lowest_class_in_it(void **state)
{
    for (unsigned set = 1; set < 16; set++) {
        for (unsigned turn = 0; turn < 4; turn++) {
            unsigned types[5] = { 0 }, n = 0, lowest = 0;
            struct frame f;

            for (unsigned i = 0; i < 4; i++) {
                unsigned class = (i + turn) % 4;

                if ((set >> class & 1) == 0)
                    continue;
                types[n++] = ACCEPT_0 + class;
                lowest = class > lowest ? class : lowest;
            }
            f = batch_frame(types);
            expect_redirected(&rig, &f, types[0], lowest);
        }
    }
}

/* --- the kernel's way ------------------------------------------------------------------------ */

static void what_goes_the_kernels_way_is_not_sampled_or_limited(void **state)
{
    struct frame f;

    rig.control->interface[0].queues = 0;
    assert_int_equal(taken_of(event_frame(SAMPLE), 50), 50);
    assert_int_equal(taken_of(event_frame(RATE), 50), 50);
    assert_int_equal(rig.cells->at[0][SAMPLE].turn, 0);
    assert_int_equal(rig.cells->at[0][RATE].tat_ns, 0);
    f = event_frame(DROP);
    expect_dropped(&rig, &f, DROP, REASON_TYPE_DROPPED);
    f = event_frame(UNKNOWN);
    expect_dropped(&rig, &f, UNKNOWN, REASON_TYPE_UNKNOWN);
    rig.control->interface[0].queues = 1;
    assert_int_equal(taken_of(event_frame(SAMPLE), 50), 5);
}

/* --- the shadow policy ----------------------------------------------------------------------- */

/* `active` for the type in the policy, `other` in the shadow; what moves beside the arrival. */
static void shadow_is(struct policy_type active, struct policy_type other,
                      struct xdp_counters moved)
{
    struct policy p = each_action();
    struct frame f = event_frame(9);

    p.type[9] = active;
    xdp_rig_set_policy(&rig, &p, false);
    p.type[9] = other;
    xdp_rig_set_policy(&rig, &p, true);
    moved.arrived = 1;
    moved.bytes = f.bytes;
    moved.type_arrived[9] = 1;
    if (active.action == POLICY_ACCEPT) {
        moved.redirected[active.class] = 1;
    } else {
        moved.dropped[active.action == POLICY_DROP ? REASON_TYPE_DROPPED : REASON_TYPE_UNKNOWN] = 1;
        moved.type_dropped[9] = 1;
    }
    expect(&rig, &f, active.action == POLICY_ACCEPT ? XDP_REDIRECT : XDP_DROP, &moved);
}

static void the_shadow_is_counted_and_changes_no_verdict(void **state)
{
    struct policy_type accept = { .action = POLICY_ACCEPT, .class = 2 };
    struct policy_type lower = { .action = POLICY_ACCEPT, .class = 3 };
    struct policy_type drop = { .action = POLICY_DROP, .class = 1 };
    struct policy_type unknown = { .action = POLICY_UNKNOWN, .class = 1 };
    struct xdp_counters nothing = { 0 }, taken = { .shadow_taken = 1 };

    for (unsigned on = 0; on < 2; on++) {
        rig.control->shadow = (uint8_t)on;
        shadow_is(accept, accept, nothing);
        shadow_is(accept, lower, nothing);
        shadow_is(accept, drop, (struct xdp_counters){ .shadow = { [REASON_TYPE_DROPPED] = on } });
        shadow_is(accept, unknown,
                  (struct xdp_counters){ .shadow = { [REASON_TYPE_UNKNOWN] = on } });
        shadow_is(drop, drop, nothing);
        shadow_is(drop, unknown, nothing);
        shadow_is(drop, accept, on ? taken : nothing);
        shadow_is(unknown, accept, on ? taken : nothing);
    }
}

static void the_shadow_has_its_own_sources(void **state)
{
    struct xdp_counters moved = { .arrived = 1, .shadow = { [REASON_SOURCE_DENIED] = 1 } };
    struct xdp_counters taken = { .arrived = 1, .shadow_taken = 1 };
    struct frame f = event_frame(ACCEPT_0);

    rig.control->shadow = 1;
    moved.bytes = taken.bytes = f.bytes;
    moved.type_arrived[ACCEPT_0] = taken.type_arrived[ACCEPT_0] = 1;
    moved.redirected[0] = taken.type_dropped[ACCEPT_0] = 1;
    taken.dropped[REASON_SOURCE_DENIED] = 1;
    xdp_rig_rule(&rig, "192.0.2.0/25", SOURCE_DENY, true);
    for (int i = 0; i < 3; i++)
        expect(&rig, &f, XDP_REDIRECT, &moved);
    xdp_rig_rule(&rig, "192.0.2.0/25", 0, true);
    xdp_rig_rule(&rig, "203.0.113.0/24", SOURCE_ALLOW, true);
    f.source = frame_address("203.0.113.1");
    for (int i = 0; i < 3; i++)
        expect(&rig, &f, XDP_DROP, &taken);
    xdp_rig_rule(&rig, "203.0.113.0/24", 0, true);
}

static void the_shadow_has_its_own_cells(void **state)
{
    struct xdp_counters count;

    rig.control->shadow = 1;
    assert_int_equal(taken_of(event_frame(SAMPLE), 20), 2);
    assert_int_equal(taken_of(event_frame(RATE), 20), 5);
    assert_int_equal(rig.cells->at[0][SAMPLE].turn, 20);
    assert_int_equal(rig.cells->at[1][SAMPLE].turn, 20);
    xdp_rig_counters(&rig, &count);
    for (unsigned r = 0; r < REASONS; r++)
        assert_int_equal(count.shadow[r], 0); /* it agrees on every one */
    assert_int_equal(count.shadow_taken, 0);
    /* The shadow's used up, the active's fresh: they differ on all. */
    memset(&rig.cells->at[0], 0, sizeof rig.cells->at[0]);
    assert_int_equal(taken_of(event_frame(RATE), 5), 5);
    xdp_rig_counters(&rig, &count);
    assert_int_equal(count.shadow[REASON_TYPE_RATE], 5);
    assert_int_equal(rig.cells->at[1][RATE].turn, 0);
}

static void the_shadow_has_its_own_buckets(void **state)
{
    struct policy p = each_action();
    struct xdp_counters count;
    struct frame f = event_frame(ACCEPT_0);

    f.source = frame_address("192.0.2.60");
    p.source_interval_ns = LONG;
    p.source_burst_ns = 3 * LONG;
    xdp_rig_set_policy(&rig, &p, true);
    rig.control->shadow = 1;
    assert_int_equal(taken_of(f, 10), 10);
    xdp_rig_counters(&rig, &count);
    assert_int_equal(count.shadow[REASON_SOURCE_RATE], 7);
    p.source_burst_ns = 5 * LONG;
    xdp_rig_set_policy(&rig, &p, false);
    assert_int_equal(taken_of(f, 10), 5);
    xdp_rig_counters(&rig, &count);
    assert_int_equal(count.shadow[REASON_SOURCE_RATE], 12);
    assert_int_equal(count.dropped[REASON_SOURCE_RATE], 5);
    assert_int_equal(count.shadow_taken, 0);
}

static void what_was_dropped_unseen_is_not_asked_of_the_shadow(void **state)
{
    struct frame f = event_frame(ACCEPT_0);

    rig.control->shadow = 1;
    f.udp_length = 3;
    expect_dropped(&rig, &f, 0, REASON_LENGTH);
    f.udp_length = -1;
    xdp_rig_rule(&rig, "0.0.0.0/0", SOURCE_ALLOW, true);
    f.source = frame_address("127.0.0.1");
    expect_dropped(&rig, &f, ACCEPT_0, REASON_SOURCE_DENIED);
    xdp_rig_rule(&rig, "0.0.0.0/0", 0, true);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_type_has_its_action_and_class),
        TEST(a_type_out_of_range_is_type_0),
        TEST(what_is_not_an_event_is_dropped_by_its_kind),
        TEST(one_in_n_is_taken_exactly),
        TEST(sampled_types_have_a_turn_each),
        TEST(a_type_has_its_burst_and_no_more),
        TEST(the_worker_and_the_program_share_a_types_rate),
        TEST(what_a_type_may_take_comes_back_with_time),
        TEST(a_rate_that_is_raised_holds_soon),
        TEST(a_batch_is_dropped_only_with_all_its_events),
        TEST(a_batch_longer_than_the_walk_is_not_dropped),
        TEST(a_batch_neither_samples_nor_limits),
        TEST(a_batch_goes_to_the_lowest_class_in_it),
        TEST(what_goes_the_kernels_way_is_not_sampled_or_limited),
        TEST(the_shadow_is_counted_and_changes_no_verdict),
        TEST(the_shadow_has_its_own_sources),
        TEST(the_shadow_has_its_own_cells),
        TEST(the_shadow_has_its_own_buckets),
        TEST(what_was_dropped_unseen_is_not_asked_of_the_shadow),
    };
    int rc = xdp_rig_open(&rig);

    if (rc != 0)
        return rc;
    xdp_rig_sockets(&rig);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    xdp_rig_close(&rig);
    return rc;
}
