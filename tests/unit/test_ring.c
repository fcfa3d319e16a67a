/*
 * test_ring.c - the ring and the wake between two threads: nothing is lost, doubled or reordered.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <poll.h>
#include <pthread.h>

#include "base/ring.h"
#include "base/wake.h"

static void a_ring_of_n_slots_takes_n_pointers_and_no_more(void **state)
{
    struct ring r;
    int item[5];

    (void)state;
    assert_int_equal(ring_init(&r, 3), -EINVAL);
    assert_int_equal(ring_init(&r, 4), 0);
    assert_true(ring_empty(&r));
    assert_null(ring_pop(&r));
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < 4; i++)
            assert_true(ring_push(&r, &item[i]));
        assert_false(ring_push(&r, &item[4]));
        for (int i = 0; i < 4; i++)
            assert_ptr_equal(ring_pop(&r), &item[i]);
        assert_null(ring_pop(&r));
    }
    ring_fini(&r);
}

#define ITEMS 200000u

struct pair {
    struct ring ring;
    struct wake wake;
};

static void *produce(void *arg)
{
    struct pair *p = arg;

    for (uintptr_t i = 1; i <= ITEMS; i++) {
        while (!ring_push(&p->ring, (void *)i))
            sched_yield();
        wake_up(&p->wake);
    }
    return NULL;
}

/* The consumer sleeps whenever it finds the ring empty; a lost wake-up would hang the test. */
static void every_pointer_arrives_once_in_order_and_no_wake_is_lost(void **state)
{
    struct pair p;
    pthread_t thread;
    uintptr_t expected = 1;

    (void)state;
    assert_int_equal(ring_init(&p.ring, 64), 0);
    assert_int_equal(wake_open(&p.wake), 0);
    assert_int_equal(pthread_create(&thread, NULL, produce, &p), 0);
    while (expected <= ITEMS) {
        void *got = ring_pop(&p.ring);

        if (got != NULL) {
            assert_int_equal((uintptr_t)got, expected);
            expected++;
            continue;
        }
        wake_prepare(&p.wake);
        if (ring_empty(&p.ring)) {
            struct pollfd f = { .fd = p.wake.fd, .events = POLLIN };

            assert_int_equal(poll(&f, 1, 20000), 1);
        }
        wake_done(&p.wake);
        wake_drain(&p.wake);
    }
    pthread_join(thread, NULL);
    assert_null(ring_pop(&p.ring));
    wake_close(&p.wake);
    ring_fini(&p.ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ring_of_n_slots_takes_n_pointers_and_no_more),
        cmocka_unit_test(every_pointer_arrives_once_in_order_and_no_wake_is_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
