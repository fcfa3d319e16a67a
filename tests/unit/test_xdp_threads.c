/*
 * test_xdp_threads.c - the XDP program on several CPUs at once, each in a thread: what is shared
 * (cells, buckets) is counted exactly, no datagram is lost from the counters, and none sees half of
 * a change of the policy.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <bpf/bpf.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/xdp_expect.h"

#define THREADS 4u
#define RUNS    20000u /* of each thread */
#define SECOND  1000000000ull
#define LONG    (3600 * SECOND)

static struct xdp_rig rig;
static _Alignas(8) uint8_t frame[256];
static size_t frame_bytes;
static atomic_uint taken, running;

static void frame_is(unsigned type, const char *source)
{
    uint8_t event[2] = { 0x08, (uint8_t)type };
    struct frame f;

    frame_init(&f, event, sizeof event);
    f.source = frame_address(source);
    frame_bytes = frame_build(&f, frame, sizeof frame);
}

static void *send_many(void *arg)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET((unsigned)(uintptr_t)arg % (unsigned)rig.cpus, &one);
    sched_setaffinity(0, sizeof one, &one); /* where it can be; the test holds anywhere */
    for (unsigned i = 0; i < RUNS; i++)
        atomic_fetch_add(&taken, xdp_rig_run(&rig, frame, frame_bytes) == XDP_REDIRECT);
    atomic_fetch_sub(&running, 1);
    return NULL;
}

static void threads_begin(pthread_t *threads)
{
    atomic_store(&taken, 0);
    atomic_store(&running, THREADS);
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, send_many, (void *)i), 0);
}

static unsigned threads_end(pthread_t *threads)
{
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    return atomic_load(&taken);
}

static unsigned send_all(void)
{
    pthread_t threads[THREADS];

    xdp_rig_clear(&rig);
    threads_begin(threads);
    return threads_end(threads);
}

static struct policy policy_of(struct policy_type type)
{
    struct policy p;

    xdp_rig_policy(&p);
    p.type[1] = type;
    memset(rig.cells, 0, sizeof *rig.cells);
    return p;
}

static void counters_are(unsigned due, enum drop_reason reason)
{
    struct xdp_counters count;

    xdp_rig_counters(&rig, &count);
    assert_int_equal(count.arrived, THREADS * RUNS);
    assert_int_equal(count.type_arrived[1], THREADS * RUNS);
    assert_int_equal(count.redirected[0], due);
    assert_int_equal(count.dropped[reason], THREADS * RUNS - due);
    assert_int_equal(count.type_dropped[1], THREADS * RUNS - due);
}

static void one_in_n_is_one_in_n_of_all_cpus(void **state)
{
    struct policy p = policy_of((struct policy_type){ .action = POLICY_SAMPLE, .every = 8 });

    xdp_rig_set_policy(&rig, &p, false);
    frame_is(1, "192.0.2.1");
    assert_int_equal(send_all(), THREADS * RUNS / 8);
    counters_are(THREADS * RUNS / 8, REASON_SAMPLED_OUT);
}

static void a_types_rate_is_one_of_all_cpus(void **state)
{
    struct policy p = policy_of((struct policy_type){
        .action = POLICY_RATE, .interval_ns = LONG, .burst_ns = 1000 * LONG });
    unsigned n;

    xdp_rig_set_policy(&rig, &p, false);
    frame_is(1, "192.0.2.1");
    n = send_all();
    /* After POLICY_RACES_MAX lost races one is taken, whatever the rate; it pays for it later. */
    assert_in_range(n, 1000, 1000 + THREADS);
    counters_are(n, REASON_TYPE_RATE);
}

static void a_sources_rate_is_one_of_all_cpus(void **state)
{
    struct policy p = policy_of((struct policy_type){ .action = POLICY_ACCEPT });
    struct bucket_key key = { .kind = BUCKET_DATAGRAMS };
    struct in6_addr source = frame_address("192.0.2.1");
    struct bucket b;
    unsigned n;

    p.source_interval_ns = LONG;
    p.source_burst_ns = 1000 * LONG;
    xdp_rig_set_policy(&rig, &p, false);
    frame_is(1, "192.0.2.1");
    n = send_all();
    /* And every CPU may have seen no bucket at first. */
    assert_in_range(n, 1000, 1000 + 2 * THREADS);
    counters_are(n, REASON_SOURCE_RATE);
    memcpy(&key.source, &source, sizeof source);
    assert_int_equal(
        bpf_map__lookup_elem(rig.skel->maps.buckets, &key, sizeof key, &b, sizeof b, 0), 0);
    assert_in_range(b.taken, n - THREADS, n);
    assert_int_equal(b.dropped, THREADS * RUNS - n);
}

/* One generation allows the source and puts the type into class 1, the other denies it and has
 * class 2; the banks change too. */
static void no_datagram_sees_half_of_a_change(void **state)
{
    struct policy p = policy_of((struct policy_type){ .action = POLICY_ACCEPT, .class = 1 });
    struct xdp_counters sum = { 0 }, count;
    uint32_t word = rig.control->word, turns = 0;
    pthread_t threads[THREADS];

    xdp_rig_set_policy(&rig, &p, false);
    rig.control->word = word ^ WORD_GENERATION;
    p.type[1].class = 2;
    xdp_rig_set_policy(&rig, &p, false);
    xdp_rig_rule(&rig, "192.0.2.1/32", SOURCE_DENY, false);
    frame_is(1, "192.0.2.1");
    for (uint32_t bank = 0; bank < 2; bank++) {
        rig.control->word = (word & ~WORD_BANK) | bank;
        xdp_rig_clear(&rig);
    }
    threads_begin(threads);
    while (atomic_load(&running) > 0) {
        /* The version goes up with every change, as it must. */
        __atomic_store_n(&rig.control->word, word + WORD_VERSION * turns + turns % 4,
                         __ATOMIC_RELEASE);
        turns++;
        sched_yield();
    }
    threads_end(threads);
    for (uint32_t bank = 0; bank < 2; bank++) {
        rig.control->word = (word & ~WORD_BANK) | bank;
        xdp_rig_counters(&rig, &count);
        sum.arrived += count.arrived;
        sum.redirected[1] += count.redirected[1];
        sum.redirected[2] += count.redirected[2];
        sum.dropped[REASON_SOURCE_DENIED] += count.dropped[REASON_SOURCE_DENIED];
    }
    rig.control->word = word + WORD_VERSION * (turns + 2);
    assert_int_equal(sum.arrived, THREADS * RUNS);
    assert_int_equal(sum.redirected[1] + sum.dropped[REASON_SOURCE_DENIED], THREADS * RUNS);
    assert_int_equal(sum.redirected[2], 0);
    assert_true(sum.redirected[1] > 0 && sum.dropped[REASON_SOURCE_DENIED] > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_in_n_is_one_in_n_of_all_cpus),
        cmocka_unit_test(a_types_rate_is_one_of_all_cpus),
        cmocka_unit_test(a_sources_rate_is_one_of_all_cpus),
        cmocka_unit_test(no_datagram_sees_half_of_a_change),
    };
    int rc = xdp_rig_open(&rig);

    if (rc != 0)
        return rc;
    xdp_rig_sockets(&rig);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    xdp_rig_close(&rig);
    return rc;
}
