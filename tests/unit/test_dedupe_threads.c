/*
 * test_dedupe_threads.c - one thread admits while another works: runs appear and go under the
 * admitting thread's hands. To be run under BUILD=tsan too.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "tests/lib/dedupe_rig.h"

struct worker {
    struct dedupe *d;
    _Atomic bool stop;
    _Atomic uint64_t done;
    int error;
};

static void *work(void *arg)
{
    struct worker *w = arg;

    while (!atomic_load(&w->stop)) {
        struct dedupe_stats s;
        int r = dedupe_do_work(w->d);

        if (r < 0) {
            w->error = r;
            break;
        }
        dedupe_stats(w->d, &s);
        if (r == 0)
            sched_yield();
        else
            atomic_fetch_add(&w->done, (uint64_t)r);
    }
    return NULL;
}

static void admit_all(struct rig *g, uint64_t filter_bytes)
{
    struct worker w = { 0 };
    pthread_t thread;

    dedupe_rig_make(g);
    g->config.table_keys_max = 2000;
    g->config.filter_bytes_max = filter_bytes;
    dedupe_rig_open(g);
    w.d = g->d;
    assert_int_equal(pthread_create(&thread, NULL, work, &w), 0);
    for (int i = 0; i < 300; i++) {
        int r;

        while ((r = dedupe_ready(g->d, 500)) == -EAGAIN)
            sched_yield();
        assert_int_equal(r, 0);
        dedupe_rig_admit_random(g, 500);
        dedupe_commit(g->d, g->index);
    }
    atomic_store(&w.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(w.error, 0);
    assert_true(atomic_load(&w.done) > 100);
    dedupe_rig_check_all(g);
    dedupe_rig_restart(g);
    dedupe_rig_check_all(g);
    dedupe_rig_fini(g);
}

static void admission_and_work_in_two_threads_agree_with_the_reference(void **state)
{
    struct rig g;

    admit_all(&g, 0);
}

static void filters_come_and_go_while_another_thread_looks_into_them(void **state)
{
    struct rig g;

    admit_all(&g, 96 << 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(admission_and_work_in_two_threads_agree_with_the_reference),
        cmocka_unit_test(filters_come_and_go_while_another_thread_looks_into_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
