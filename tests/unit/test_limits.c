/*
 * test_limits.c - sampling and rates on given times: a burst and no more, refilled by time, apart
 * for every source; and by threads that meet on one entry, where a rate may let at most one event
 * more through for each of them.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "ingest/limits.h"
#include "tests/lib/frames.h"
#include "tests/lib/ingest_rig.h"

#define INTERVAL_NS (100 * NS_PER_US) /* all of a test is shorter than POLICY_AHEAD_NS */
#define BURST       20u
#define BURST_NS    (BURST * INTERVAL_NS)
#define START_NS    (1000 * NS_PER_S)
#define THREADS     4u

static struct limits limits;

static int set_up(void **state) { return limits_open(&limits, NULL, 1024); }

static int tear_down(void **state)
{
    limits_close(&limits);
    return 0;
}

static bool take(const char *source, enum bucket_kind kind, uint64_t now_ns)
{
    struct in6_addr ip = frame_address(source);

    return limits_take(&limits, &ip, kind, now_ns, INTERVAL_NS, BURST_NS);
}

/* How many of `tries` at this time. */
static unsigned take_many(const char *source, uint64_t now_ns, unsigned tries)
{
    unsigned taken = 0;

    for (unsigned i = 0; i < tries; i++)
        taken += take(source, BUCKET_DATAGRAMS, now_ns);
    return taken;
}

static void a_source_has_its_burst_and_then_what_time_gives(void **state)
{
    uint64_t now = START_NS;

    (void)state;
    assert_int_equal(take_many("192.0.2.1", now, 100), BURST);
    assert_int_equal(take_many("192.0.2.1", now + INTERVAL_NS - 1, 100), 0);
    assert_int_equal(take_many("192.0.2.1", now + INTERVAL_NS, 100), 1);
    assert_int_equal(take_many("192.0.2.1", now + 4 * INTERVAL_NS + 5, 100), 3);
    /* A second at the rate, one try every third of an interval. */
    now += NS_PER_S;
    assert_int_equal(take_many("192.0.2.1", now, 100), BURST);
    for (unsigned i = 1; i <= 300; i++)
        assert_int_equal(take_many("192.0.2.1", now + i * INTERVAL_NS / 3, 2), i % 3 == 0);
    /* However long it was quiet, it has a burst and no more. */
    assert_int_equal(take_many("192.0.2.1", now + 86400 * NS_PER_S, 100), BURST);
    /* A time that other threads have left behind gives nothing and harms nothing. */
    now += 86400 * NS_PER_S;
    assert_int_equal(take_many("192.0.2.1", now - NS_PER_S / 2, 100), 0);
    assert_int_equal(take_many("192.0.2.1", now + INTERVAL_NS, 100), 1);
}

static void what_is_not_taken_uses_nothing_up(void **state)
{
    (void)state;
    assert_int_equal(take_many("192.0.2.1", START_NS, BURST), BURST);
    for (unsigned i = 0; i < 10000; i++)
        assert_false(take("192.0.2.1", BUCKET_DATAGRAMS, START_NS));
    assert_int_equal(take_many("192.0.2.1", START_NS + BURST_NS, 100), BURST);
}

static void sources_and_kinds_have_buckets_of_their_own(void **state)
{
    (void)state;
    assert_int_equal(take_many("192.0.2.1", START_NS, 100), BURST);
    assert_int_equal(take_many("192.0.2.2", START_NS, 100), BURST);
    assert_int_equal(take_many("2001:db8::1", START_NS, 100), BURST);
    assert_int_equal(take_many("2001:db8::2", START_NS, 100), BURST);
    assert_true(take("192.0.2.1", BUCKET_SHADOW_DATAGRAMS, START_NS));
    assert_true(take("192.0.2.1", BUCKET_SYN, START_NS));
    assert_false(take("192.0.2.1", BUCKET_DATAGRAMS, START_NS));
    assert_false(take("2001:db8::1", BUCKET_DATAGRAMS, START_NS));
}

static void as_many_as_there_is_room_for_are_remembered(void **state)
{
    unsigned forgotten = 0;

    (void)state;
    limits_close(&limits);
    assert_int_equal(limits_open(&limits, NULL, 4096), 0);
    for (unsigned i = 0; i < 100; i++) {
        struct in6_addr ip = frame_address("10.0.0.0");

        ip.s6_addr[15] = (uint8_t)i;
        for (unsigned k = 0; k < BURST; k++)
            assert_true(
                limits_take(&limits, &ip, BUCKET_DATAGRAMS, START_NS, INTERVAL_NS, BURST_NS));
    }
    for (unsigned i = 0; i < 100; i++) {
        struct in6_addr ip = frame_address("10.0.0.0");

        ip.s6_addr[15] = (uint8_t)i;
        forgotten += limits_take(&limits, &ip, BUCKET_DATAGRAMS, START_NS, INTERVAL_NS, BURST_NS);
    }
    /* A fifth one comes to one of these 1024 sets in one of 14,000 tables, and two sets never. */
    assert_true(forgotten <= 5);
}

static void a_full_set_forgets_the_one_that_is_quiet_for_longest(void **state)
{
    static const char *const sources[] = { "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4" };

    (void)state;
    limits_close(&limits);
    assert_int_equal(limits_open(&limits, NULL, 4), 0); /* one set */
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(take_many(sources[i], START_NS + i, 100), BURST);
    assert_int_equal(take_many(sources[0], START_NS + INTERVAL_NS, 100), 1);
    /* The second one is now the quietest, and the newcomer finds a full bucket, not its. */
    assert_int_equal(take_many("192.0.2.5", START_NS + INTERVAL_NS, 100), BURST);
    assert_int_equal(take_many(sources[0], START_NS + INTERVAL_NS, 100), 0);
    assert_int_equal(take_many(sources[2], START_NS + INTERVAL_NS, 100), 0);
    assert_int_equal(take_many(sources[3], START_NS + INTERVAL_NS, 100), 0);
    assert_int_equal(take_many("192.0.2.5", START_NS + INTERVAL_NS, 100), 0);
    /* That came back as a new source: what is forgotten is forgiven. */
    assert_int_equal(take_many(sources[1], START_NS + INTERVAL_NS, 100), BURST);
}

/* --- threads ------------------------------------------------------------------------------------
 */

struct hammer {
    pthread_barrier_t *barrier;
    struct in6_addr ip;
    _Atomic uint64_t *now_ns; /* all threads see and move one clock */
    uint64_t step_ns;         /* each try moves it by that */
    unsigned tries, taken;
};

static void *hammer_source(void *arg)
{
    struct hammer *h = arg;

    pthread_barrier_wait(h->barrier);
    for (unsigned i = 0; i < h->tries; i++) {
        uint64_t now = atomic_fetch_add(h->now_ns, h->step_ns);

        h->taken += limits_take(&limits, &h->ip, BUCKET_DATAGRAMS, now, INTERVAL_NS, BURST_NS);
    }
    return NULL;
}

/* Returns what all threads together have taken. */
static unsigned hammer(void *(*run)(void *), struct hammer *h, unsigned n)
{
    pthread_barrier_t barrier;
    pthread_t thread[THREADS];
    unsigned taken = 0;

    assert_true(n <= THREADS);
    assert_int_equal(pthread_barrier_init(&barrier, NULL, n), 0);
    for (unsigned i = 0; i < n; i++) {
        h[i].barrier = &barrier;
        h[i].taken = 0;
        assert_int_equal(pthread_create(&thread[i], NULL, run, &h[i]), 0);
    }
    for (unsigned i = 0; i < n; i++) {
        pthread_join(thread[i], NULL);
        taken += h[i].taken;
    }
    pthread_barrier_destroy(&barrier);
    return taken;
}

/* An event that has lost the race POLICY_RACES_MAX times is taken unasked: one a thread at the end
 * of a burst, and each is paid for by the time after. */
static void threads_on_one_source_take_no_more_than_its_burst_and_time(void **state)
{
    enum { TRIES = 20000, ROUNDS = 20 };
    _Atomic uint64_t now = START_NS;
    struct hammer h[THREADS];
    unsigned taken;

    (void)state;
    for (unsigned i = 0; i < THREADS; i++)
        h[i] = (struct hammer){ .ip = frame_address("192.0.2.1"), .now_ns = &now, .tries = TRIES };
    assert_true(take("192.0.2.1", BUCKET_DATAGRAMS, START_NS)); /* it has its entry */
    taken = 1 + hammer(hammer_source, h, THREADS);
    assert_in_range(taken, BURST, BURST + THREADS - 1);
    for (unsigned round = 0; round < ROUNDS; round++) {
        atomic_fetch_add(&now, BURST_NS + THREADS * INTERVAL_NS);
        assert_in_range(hammer(hammer_source, h, THREADS), BURST, BURST + THREADS - 1);
    }
    /* While time goes on: 1,000 intervals in all. */
    for (unsigned i = 0; i < THREADS; i++)
        h[i].step_ns = 1000 * INTERVAL_NS / (THREADS * TRIES);
    atomic_fetch_add(&now, 2 * BURST_NS);
    assert_in_range(hammer(hammer_source, h, THREADS), 1000, 1000 + BURST + THREADS);
}

/* Nor when all of them find it new, or in the place of one that had used up its burst. */
static void threads_that_bring_a_source_have_one_burst_together(void **state)
{
    enum { TRIES = 100, ROUNDS = 300 };
    _Atomic uint64_t now = START_NS;
    struct hammer h[THREADS];

    (void)state;
    for (unsigned crowded = 0; crowded < 2; crowded++) {
        limits_close(&limits);
        assert_int_equal(limits_open(&limits, NULL, crowded ? 4 : 1024), 0);
        for (unsigned round = 0; round < ROUNDS; round++) {
            struct in6_addr ip = frame_address("10.0.0.0");

            ip.s6_addr[14] = (uint8_t)(round / 256);
            ip.s6_addr[15] = (uint8_t)round;
            for (unsigned i = 0; i < THREADS; i++)
                h[i] = (struct hammer){ .ip = ip, .now_ns = &now, .tries = TRIES };
            assert_in_range(hammer(hammer_source, h, THREADS), BURST, BURST + THREADS - 1);
        }
    }
}

/* Nor do sources of one set take from one another, while there is room for all of them. */
static void threads_on_sources_of_one_set_have_a_burst_each(void **state)
{
    static const char *const sources[THREADS] = { "192.0.2.1", "192.0.2.2", "2001:db8::1", "::1" };
    _Atomic uint64_t now = START_NS;
    struct hammer h[THREADS];

    (void)state;
    limits_close(&limits);
    assert_int_equal(limits_open(&limits, NULL, THREADS), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        h[i] = (struct hammer){ .ip = frame_address(sources[i]), .now_ns = &now, .tries = 20000 };
        assert_true(take(sources[i], BUCKET_DATAGRAMS, START_NS));
    }
    assert_int_equal(hammer(hammer_source, h, THREADS), THREADS * (BURST - 1));
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(h[i].taken, BURST - 1);
}

/* --- types --------------------------------------------------------------------------------------
 */

static void limits_of_types_are_the_programs_where_there_is_one(void **state)
{
    static struct policy_cells cells;
    struct limits other;

    (void)state;
    assert_non_null(limits.cells);
    assert_ptr_not_equal(limits.cells, &cells);
    assert_int_equal(limits_open(&other, &cells, 16), 0);
    assert_ptr_equal(other.cells, &cells);
    cells.at[1][POLICY_TYPES - 1].turn = 5;
    limits_close(&other); /* they are not ours to unmap */
    assert_int_equal(cells.at[1][POLICY_TYPES - 1].turn, 5);
    limits_close(&other); /* and once more is harmless */
}

static struct policy_type sampled = { .action = POLICY_SAMPLE, .every = 10 };
static struct policy_type rated = { .action = POLICY_RATE };

static void *hammer_sampled(void *arg)
{
    struct hammer *h = arg;
    struct policy_cell *cell = &limits.cells->at[0][1];

    pthread_barrier_wait(h->barrier);
    for (unsigned i = 0; i < h->tries; i++)
        h->taken += policy_event(&sampled, cell) == REASON_NONE;
    return NULL;
}

static void *hammer_rated(void *arg)
{
    struct hammer *h = arg;
    struct policy_cell *cell = &limits.cells->at[0][2];

    pthread_barrier_wait(h->barrier);
    for (unsigned i = 0; i < h->tries; i++)
        h->taken += policy_event(&rated, cell) == REASON_NONE;
    return NULL;
}

static void one_in_n_is_one_in_n_of_what_all_threads_have(void **state)
{
    struct hammer h[THREADS];

    (void)state;
    for (unsigned i = 0; i < THREADS; i++)
        h[i] = (struct hammer){ .tries = 25000 };
    assert_int_equal(hammer(hammer_sampled, h, THREADS), THREADS * 2500);
    /* The first one is taken, then every tenth. */
    memset(limits.cells, 0, sizeof *limits.cells);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(policy_event(&sampled, &limits.cells->at[0][1]),
                         i % 10 == 0 ? REASON_NONE : REASON_SAMPLED_OUT);
    /* Whoever only looks at the type does not count. */
    assert_int_equal(policy_type(&sampled), REASON_NONE);
    assert_int_equal(limits.cells->at[0][1].turn, 100);
}

/* The clock is the real one here: time is measured around it. */
static void a_types_rate_is_one_for_all_threads(void **state)
{
    struct hammer h[THREADS];
    uint64_t before, passed;
    unsigned taken;

    (void)state;
    rated.interval_ns = NS_PER_MS;
    rated.burst_ns = 100 * NS_PER_MS;
    for (unsigned i = 0; i < THREADS; i++)
        h[i] = (struct hammer){ .tries = 20000 };
    before = policy_now_ns();
    taken = hammer(hammer_rated, h, THREADS);
    passed = policy_now_ns() - before;
    assert_in_range(taken, 100, 100 + passed / NS_PER_MS + THREADS - 1);
    assert_int_equal(policy_type(&rated), REASON_NONE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_source_has_its_burst_and_then_what_time_gives),
        TEST(what_is_not_taken_uses_nothing_up),
        TEST(sources_and_kinds_have_buckets_of_their_own),
        TEST(as_many_as_there_is_room_for_are_remembered),
        TEST(a_full_set_forgets_the_one_that_is_quiet_for_longest),
        TEST(threads_on_one_source_take_no_more_than_its_burst_and_time),
        TEST(threads_that_bring_a_source_have_one_burst_together),
        TEST(threads_on_sources_of_one_set_have_a_burst_each),
        TEST(limits_of_types_are_the_programs_where_there_is_one),
        TEST(one_in_n_is_one_in_n_of_what_all_threads_have),
        TEST(a_types_rate_is_one_for_all_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
