/*
 * test_dedupe_cut.c - the dedupe index of a node among others: what it admitted is withdrawn when
 * another leader has other entries, and what others have admitted is entered. Against the exact
 * reference of dedupe_rig.h, whose log here has an end that is not committed.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>

#include "tests/lib/dedupe_rig.h"

#define EVENTS 60u

static void open_with(struct rig *g, uint64_t table_keys)
{
    dedupe_rig_make(g);
    g->config.table_keys_max = table_keys;
    g->config.summary_bytes_max = 64 << 10;
    dedupe_rig_open(g);
}

/* The events of an index, as the reference has them; returns how many. */
static size_t events_of(const struct rig *g, uint64_t index, struct key128 *key, uint64_t *content)
{
    size_t n = 0;

    for (uint64_t i = g->count; i-- > 0 && g->log[i].place.index >= index;)
        n += g->log[i].place.index == index;
    for (uint64_t i = g->count; i-- > 0 && g->log[i].place.index >= index;) {
        if (g->log[i].place.index != index)
            continue;
        key[g->log[i].place.slot] = g->log[i].event.key;
        content[g->log[i].place.slot] = g->log[i].event.content;
    }
    return n;
}

/* Another leader has other entries from this index on. */
static void withdraw(struct rig *g, uint64_t from)
{
    struct key128 key[EVENTS];
    uint64_t content[EVENTS];
    uint8_t verdict[EVENTS] = { 0 };

    for (; g->index >= from; g->index--) {
        size_t n = events_of(g, g->index, key, content);

        dedupe_withdraw(g->d, key, sizeof key[0], verdict, n, g->index);
        while (g->count > 0 && g->log[g->count - 1].place.index == g->index)
            g->count--;
    }
    dedupe_cut(g->d, from);
}

static void a_withdrawn_key_is_new_again_and_only_that(void **state)
{
    struct rig g;
    struct dedupe_place p;
    uint8_t verdict[4];
    uint64_t content[4] = { 10, 11, 12, 10 };
    struct key128 key[4] = { dedupe_rig_key(1), dedupe_rig_key(2), dedupe_rig_key(3),
                             dedupe_rig_key(2) };
    struct dedupe_place first[4];

    open_with(&g, 0);
    assert_int_equal(dedupe_rig_admit(&g, key[0], 10), DEDUPE_NEW);
    dedupe_commit(g.d, 1);
    /* Of index 2: the first is a duplicate, the last one of the call itself. */
    assert_int_equal(dedupe_ready(g.d, 4), 0);
    assert_int_equal(dedupe_admit(g.d, key, sizeof key[0], content, 4, 2, verdict, first), 2);
    assert_memory_equal(verdict, ((uint8_t[]){ 1, 0, 0, 2 }), 4);
    dedupe_withdraw(g.d, key, sizeof key[0], verdict, 4, 2);
    dedupe_cut(g.d, 2);
    assert_int_equal(dedupe_lookup(g.d, key[1], &p), 0);
    assert_int_equal(dedupe_lookup(g.d, key[2], &p), 0);
    assert_int_equal(dedupe_lookup(g.d, key[0], &p), 1);
    assert_int_equal(p.index, 1);
    assert_int_equal(dedupe_rig_stats(&g).keys, 1);
    /* The index is to be had again. */
    assert_int_equal(dedupe_rig_admit(&g, key[2], 12), DEDUPE_NEW);
    assert_int_equal(g.index, 2);
    dedupe_rig_check_all(&g);
    dedupe_rig_fini(&g);
}

static void what_is_withdrawn_from_a_frozen_table_is_not_written(void **state)
{
    struct rig g;
    struct dedupe_place p;

    open_with(&g, 100);
    for (uint64_t i = 1; i <= 150; i++)
        assert_int_equal(dedupe_rig_admit(&g, dedupe_rig_key(i), i), DEDUPE_NEW);
    dedupe_commit(g.d, 80);
    assert_int_equal(dedupe_do_work(g.d), 0); /* the frozen table goes to 100 */
    withdraw(&g, 91);
    while (dedupe_do_work(g.d) > 0)
        ;
    assert_int_equal(dedupe_rig_stats(&g).runs, 0); /* 81..90 may be withdrawn yet */
    dedupe_commit(g.d, 90);
    dedupe_rig_settle(&g);
    assert_int_equal(dedupe_rig_stats(&g).runs, 1);
    assert_int_equal(dedupe_rig_stats(&g).covered_index, 90);
    assert_int_equal(dedupe_rig_stats(&g).keys, 90);
    assert_int_equal(dedupe_lookup(g.d, dedupe_rig_key(91), &p), 0);
    assert_int_equal(dedupe_rig_admit(&g, dedupe_rig_key(91), 91), DEDUPE_NEW);
    dedupe_rig_restart(&g);
    dedupe_rig_check_all(&g);
    dedupe_rig_fini(&g);
}

/* Entries without events went, too, before those that were withdrawn. A table that is full with the
 * next leader's entry covers what is before that, and nothing of what has gone. */
static void what_has_gone_without_events_is_not_covered(void **state)
{
    struct rig g;
    struct key128 key[EVENTS];
    uint64_t content[EVENTS];

    open_with(&g, 100);
    for (uint64_t i = 1; i <= 80; i++)
        assert_int_equal(dedupe_rig_admit(&g, dedupe_rig_key(i), i), DEDUPE_NEW);
    dedupe_commit(g.d, 80);
    g.index = 89; /* nine entries of its own that are no blocks */
    for (uint64_t i = 90; i <= 95; i++)
        assert_int_equal(dedupe_rig_admit(&g, dedupe_rig_key(i), i), DEDUPE_NEW);
    for (uint64_t from = 90; g.index >= from; g.index--) {
        assert_int_equal(events_of(&g, g.index, key, content), 1);
        dedupe_withdraw(g.d, key, sizeof key[0], (uint8_t[]){ DEDUPE_NEW }, 1, g.index);
        g.count--;
    }
    dedupe_cut(g.d, 81);
    for (uint16_t s = 0; s < 30; s++)
        dedupe_rig_remember(&g, (struct dedupe_event){ dedupe_rig_key(1000 + s), s },
                            (struct dedupe_place){ 81, s });
    g.index = 81;
    assert_int_equal(events_of(&g, 81, key, content), 30);
    assert_int_equal(dedupe_enter(g.d, key, sizeof key[0], content, 30, 81), 0);
    dedupe_commit(g.d, 81);
    dedupe_rig_settle(&g);
    assert_int_equal(dedupe_rig_stats(&g).runs, 1);
    assert_int_equal(dedupe_rig_stats(&g).covered_index, 80);
    dedupe_rig_restart(&g);
    dedupe_rig_check_all(&g);
    dedupe_rig_fini(&g);
    (void)state;
}

static void a_frozen_table_that_loses_every_key_is_the_spare_one_again(void **state)
{
    struct rig g;

    open_with(&g, 100);
    for (int round = 0; round < 3; round++) {
        for (uint64_t i = 1; i <= 150; i++)
            assert_int_equal(dedupe_rig_admit(&g, dedupe_rig_key(i), i), DEDUPE_NEW);
        assert_int_equal(dedupe_do_work(g.d), 0);
        withdraw(&g, 1);
        assert_int_equal(dedupe_rig_stats(&g).keys, 0);
        assert_int_equal(dedupe_do_work(g.d), 0);
    }
    for (uint64_t i = 1; i <= 350; i++)
        assert_int_equal(dedupe_rig_admit(&g, dedupe_rig_key(i), i), DEDUPE_NEW);
    dedupe_rig_settle(&g);
    assert_int_equal(dedupe_rig_stats(&g).runs, 3);
    dedupe_rig_check_all(&g);
    dedupe_rig_restart(&g);
    dedupe_rig_check_all(&g);
    dedupe_rig_fini(&g);
}

static void an_entry_is_entered_wholly_or_not_at_all_and_any_number_of_times(void **state)
{
    struct rig g;
    struct key128 key[EVENTS];
    uint64_t content[EVENTS];
    struct dedupe_place p;

    open_with(&g, 100);
    for (uint64_t index = 1; index <= 4; index++) {
        for (uint16_t s = 0; s < 50; s++)
            dedupe_rig_remember(&g, (struct dedupe_event){ dedupe_rig_key(index * 100 + s), index },
                                (struct dedupe_place){ index, s });
        g.index = index;
        assert_int_equal(events_of(&g, index, key, content), 50);
        for (int again = 0; again < 2; again++)
            assert_int_equal(dedupe_enter(g.d, key, sizeof key[0], content, 50, index), 0);
        assert_int_equal(dedupe_rig_stats(&g).keys, index * 50);
        dedupe_commit(g.d, index);
    }
    /* Both tables are full, and nobody has written the frozen one. */
    for (uint16_t s = 0; s < 50; s++) {
        key[s] = dedupe_rig_key(500 + s);
        dedupe_rig_remember(&g, (struct dedupe_event){ key[s], content[s] },
                            (struct dedupe_place){ 5, s });
    }
    g.index = 5;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(dedupe_enter(g.d, key, sizeof key[0], content, 50, 5), -EAGAIN);
        assert_int_equal(dedupe_lookup(g.d, key[0], &p), 0);
    }
    assert_int_equal(dedupe_rig_stats(&g).keys, 200);
    while (dedupe_do_work(g.d) > 0)
        ;
    assert_int_equal(dedupe_lookup(g.d, key[0], &p), 0); /* acknowledges the run */
    while (dedupe_do_work(g.d) > 0)
        ;
    assert_int_equal(dedupe_enter(g.d, key, sizeof key[0], content, 50, 5), 0);
    dedupe_commit(g.d, 5);
    dedupe_rig_check_all(&g);
    /* What a run covers, and what only a table has, may be given again. */
    for (uint64_t index = 1; index <= 5; index++) {
        assert_int_equal(events_of(&g, index, key, content), 50);
        assert_int_equal(dedupe_enter(g.d, key, sizeof key[0], content, 50, index), 0);
    }
    assert_int_equal(dedupe_rig_stats(&g).keys, 250);
    dedupe_rig_check_all(&g);
    dedupe_rig_restart(&g);
    dedupe_rig_check_all(&g);
    dedupe_rig_fini(&g);
}

/* Both tables are full with what this node has admitted, so the frozen one waits for the commit of
 * entries that are to be applied: these must not ask for room. */
static void what_is_there_needs_no_room(void **state)
{
    struct rig g;
    struct key128 key[EVENTS];
    uint64_t content[EVENTS];

    open_with(&g, 100);
    for (uint64_t i = 1; i <= 200; i++)
        assert_int_equal(dedupe_rig_admit(&g, dedupe_rig_key(i), i), DEDUPE_NEW);
    assert_int_equal(dedupe_ready(g.d, 1), -EAGAIN);
    assert_int_equal(dedupe_do_work(g.d), 0);
    for (uint64_t index = 1; index <= 200; index++) {
        assert_int_equal(events_of(&g, index, key, content), 1);
        assert_int_equal(dedupe_enter(g.d, key, sizeof key[0], content, 1, index), 0);
        dedupe_commit(g.d, index);
    }
    dedupe_rig_settle(&g);
    assert_int_equal(dedupe_rig_stats(&g).keys, 200);
    dedupe_rig_check_all(&g);
    dedupe_rig_fini(&g);
}

static void a_full_disk_is_told_and_nothing_is_lost(void **state)
{
    struct rig g;
    struct rlimit old, none;
    struct key128 key[EVENTS];
    uint64_t content[EVENTS] = { 0 };
    int r, refused = 0;

    signal(SIGXFSZ, SIG_IGN);
    open_with(&g, 9000);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    none = old;
    none.rlim_cur = 8192;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    while (refused < 10) {
        for (uint16_t s = 0; s < EVENTS; s++)
            key[s] = dedupe_rig_key((g.index + 1) * 100 + s);
        r = dedupe_enter(g.d, key, sizeof key[0], content, EVENTS, g.index + 1);
        assert_true(r == 0 || r == -ENOSPC || r == -EAGAIN);
        refused += r == -ENOSPC;
        if (r == 0) {
            g.index++;
            for (uint16_t s = 0; s < EVENTS; s++)
                dedupe_rig_remember(&g, (struct dedupe_event){ key[s], 0 },
                                    (struct dedupe_place){ g.index, s });
            dedupe_commit(g.d, g.index);
        }
        assert_true(dedupe_do_work(g.d) <= 0);
    }
    assert_true(g.count >= 17000);
    dedupe_rig_check_all(&g);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    dedupe_rig_settle(&g);
    assert_int_equal(dedupe_enter(g.d, key, sizeof key[0], content, EVENTS, g.index + 1), 0);
    dedupe_rig_fini(&g);
}

/* Enters an entry of another node at the next index; where there is no other thread, what that
 * would do is done here. */
static void enter_random(struct rig *g, unsigned turn, bool alone)
{
    struct key128 key[EVENTS];
    uint64_t content[EVENTS];
    uint16_t n = (uint16_t)(1 + dedupe_rig_random(g) % EVENTS);
    int r;

    for (uint16_t s = 0; s < n; s++) {
        key[s] = dedupe_rig_key(1ull << 50 | (uint64_t)turn << 16 | s);
        content[s] = key[s].lo ^ 1;
    }
    while ((r = dedupe_enter(g->d, key, sizeof key[0], content, n, g->index + 1)) == -EAGAIN) {
        if (alone)
            assert_true(dedupe_do_work(g->d) >= 0);
        else
            sched_yield();
    }
    assert_int_equal(r, 0);
    for (uint16_t s = 0; s < n; s++)
        dedupe_rig_remember(g, (struct dedupe_event){ key[s], content[s] },
                            (struct dedupe_place){ g->index + 1, s });
    dedupe_commit(g->d, ++g->index);
}

/* A node that leads, loses its place, follows and leads again. */
static void verdicts_agree_with_the_reference_through_cuts_and_terms(void **state)
{
    struct rig g;
    uint64_t cuts = 0;

    open_with(&g, 400);
    for (unsigned turn = 0; turn < 400; turn++) {
        uint64_t committed = g.index, blocks = dedupe_rig_random(&g) % 12;

        for (uint64_t i = 0; i < blocks; i++) {
            size_t n = 1 + dedupe_rig_random(&g) % EVENTS;

            /* With what is not committed both tables may be full: no more then. */
            if (dedupe_ready(g.d, n) == -EAGAIN)
                break;
            dedupe_rig_admit_random(&g, n);
            if (dedupe_rig_random(&g) % 4 == 0)
                assert_true(dedupe_do_work(g.d) >= 0);
            if (dedupe_rig_random(&g) % 4 == 0)
                committed += dedupe_rig_random(&g) % (g.index - committed + 1);
            if (committed > 0)
                dedupe_commit(g.d, committed);
        }
        cuts += g.index > committed;
        withdraw(&g, committed + 1);
        for (uint64_t i = dedupe_rig_random(&g) % 4; i > 0; i--)
            enter_random(&g, turn * 4 + (unsigned)i, true);
        if (g.index > 0)
            dedupe_commit(g.d, g.index);
        if (turn % 50 == 49)
            dedupe_rig_restart(&g);
        if (turn % 10 == 9)
            dedupe_rig_check_all(&g);
    }
    assert_true(cuts > 100 && g.runs_written > 50);
    dedupe_rig_settle(&g);
    assert_int_equal(dedupe_rig_stats(&g).keys, g.count);
    dedupe_rig_check_all(&g);
    dedupe_rig_fini(&g);
}

static atomic_bool stop;

static void *work(void *arg)
{
    while (!atomic_load(&stop)) {
        int r = dedupe_do_work(arg);

        assert_true(r >= 0);
        if (r == 0)
            sched_yield();
    }
    return NULL;
}

/* The same with two threads; to be run under BUILD=tsan too. */
static void cuts_while_another_thread_writes(void **state)
{
    struct rig g;
    pthread_t thread;

    open_with(&g, 400);
    assert_int_equal(pthread_create(&thread, NULL, work, g.d), 0);
    for (unsigned turn = 0; turn < 400; turn++) {
        uint64_t committed = g.index;
        struct key128 key[EVENTS];
        uint64_t content[EVENTS];
        size_t n;

        for (int i = 0; i < 10; i++) {
            if (dedupe_ready(g.d, EVENTS) == 0)
                dedupe_rig_admit_random(&g, EVENTS);
        }
        committed += (g.index - committed) / 2;
        if (committed > 0)
            dedupe_commit(g.d, committed);
        withdraw(&g, committed + 1);
        enter_random(&g, turn, false);
        /* And once more, as if read from the disk. */
        n = events_of(&g, g.index, key, content);
        assert_int_equal(dedupe_enter(g.d, key, sizeof key[0], content, n, g.index), 0);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    dedupe_rig_check_all(&g);
    dedupe_rig_restart(&g);
    dedupe_rig_check_all(&g);
    assert_int_equal(dedupe_rig_stats(&g).keys, g.count);
    dedupe_rig_fini(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_withdrawn_key_is_new_again_and_only_that),
        cmocka_unit_test(what_is_withdrawn_from_a_frozen_table_is_not_written),
        cmocka_unit_test(what_has_gone_without_events_is_not_covered),
        cmocka_unit_test(a_frozen_table_that_loses_every_key_is_the_spare_one_again),
        cmocka_unit_test(an_entry_is_entered_wholly_or_not_at_all_and_any_number_of_times),
        cmocka_unit_test(what_is_there_needs_no_room),
        cmocka_unit_test(a_full_disk_is_told_and_nothing_is_lost),
        cmocka_unit_test(verdicts_agree_with_the_reference_through_cuts_and_terms),
        cmocka_unit_test(cuts_while_another_thread_writes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
