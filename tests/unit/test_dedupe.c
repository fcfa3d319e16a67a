/*
 * test_dedupe.c - the dedupe index against an exact reference: verdicts and places in memory, in
 * the runs, across merges and restarts; its memory cap; a full disk. Damage and crashes are in
 * test_dedupe_damage.c.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "tests/lib/dedupe_rig.h"

static void open_with(struct rig *g, uint64_t table_keys, uint64_t filter_bytes)
{
    dedupe_rig_make(g);
    g->config.table_keys_max = table_keys;
    g->config.filter_bytes_max = filter_bytes;
    g->config.summary_bytes_max = 64 << 10; /* soon full, so that what is behind it is asked too */
    dedupe_rig_open(g);
}

static void a_new_key_is_new_and_then_a_duplicate_or_a_conflict(void **state)
{
    struct rig g;
    struct dedupe_place p;

    open_with(&g, 0, 0);
    assert_int_equal(dedupe_rig_admit(&g, dedupe_rig_key(1), 7), DEDUPE_NEW);
    assert_int_equal(dedupe_rig_admit(&g, dedupe_rig_key(2), 7), DEDUPE_NEW);
    assert_int_equal(dedupe_rig_admit(&g, dedupe_rig_key(1), 7), DEDUPE_DUPLICATE);
    assert_int_equal(g.first.index, 1);
    assert_int_equal(dedupe_rig_admit(&g, dedupe_rig_key(2), 8), DEDUPE_CONFLICT);
    assert_int_equal(g.first.index, 2);
    assert_int_equal(dedupe_lookup(g.d, dedupe_rig_key(2), &p), 1);
    assert_int_equal(p.index, 2);
    assert_int_equal(p.slot, 0);
    assert_int_equal(dedupe_lookup(g.d, dedupe_rig_key(3), &p), 0);
    dedupe_rig_fini(&g);
}

static void within_one_call_the_second_event_of_a_key_is_the_duplicate(void **state)
{
    struct dedupe_event e[5] = { { dedupe_rig_key(1), 1 },
                                 { dedupe_rig_key(2), 2 },
                                 { dedupe_rig_key(1), 1 },
                                 { dedupe_rig_key(3), 3 },
                                 { dedupe_rig_key(2), 9 } };
    uint64_t content[5];
    uint8_t verdict[5];
    struct dedupe_place first[5];
    struct rig g;

    open_with(&g, 0, 0);
    for (int i = 0; i < 5; i++)
        content[i] = e[i].content;
    assert_int_equal(dedupe_ready(g.d, 5), 0);
    assert_int_equal(dedupe_admit(g.d, &e[0].key, sizeof e[0], content, 5, 40, verdict, first), 3);
    assert_memory_equal(verdict, ((uint8_t[]){ 0, 0, 1, 0, 2 }), 5);
    assert_int_equal(first[2].index, 40);
    assert_int_equal(first[2].slot, 0);
    assert_int_equal(first[3].slot, 2); /* slots count the new ones alone */
    assert_int_equal(first[4].slot, 1);
    dedupe_rig_fini(&g);
}

static void keys_with_one_equal_half_are_different_keys(void **state)
{
    struct rig g;
    struct dedupe_place p;

    open_with(&g, 64, 0);
    for (uint64_t i = 0; i < 200; i++) {
        struct key128 low = { 77, dedupe_rig_key(i).hi }, high = { dedupe_rig_key(i).lo, 77 };

        assert_int_equal(dedupe_rig_admit(&g, low, i), DEDUPE_NEW);
        assert_int_equal(dedupe_rig_admit(&g, high, i), DEDUPE_NEW);
    }
    dedupe_rig_settle(&g);
    assert_true(dedupe_rig_stats(&g).runs > 0);
    for (uint64_t i = 0; i < 200; i++) {
        struct key128 low = { 77, dedupe_rig_key(i).hi };

        assert_int_equal(dedupe_rig_admit(&g, low, i), DEDUPE_DUPLICATE);
        assert_int_equal(g.first.index, 2 * i + 1);
        low.hi ^= 1;
        assert_int_equal(dedupe_lookup(g.d, low, &p), 0);
    }
    dedupe_rig_fini(&g);
}

/* Random new keys, duplicates and conflicts in calls of random size, against the reference. */
static void model(struct rig *g, uint64_t calls, unsigned restart_every)
{
    for (uint64_t i = 0; i < calls; i++) {
        dedupe_rig_admit_random(g, 1 + dedupe_rig_random(g) % 700);
        if (dedupe_rig_random(g) % 4 == 0)
            dedupe_rig_commit(g, g->index - dedupe_rig_random(g) % 3);
        if (dedupe_rig_random(g) % 3 == 0)
            dedupe_rig_work(g);
        if (restart_every > 0 && i % restart_every == restart_every - 1)
            dedupe_rig_restart(g);
    }
    dedupe_rig_commit(g, g->index);
    dedupe_rig_check_all(g);
}

static void verdicts_agree_with_an_exact_reference_through_runs_and_merges(void **state)
{
    struct rig g;
    struct dedupe_stats s;

    open_with(&g, 3000, 0);
    model(&g, 1000, 0);
    dedupe_rig_settle(&g);
    dedupe_rig_check_all(&g);
    s = dedupe_rig_stats(&g);
    assert_true(g.count > 150000 && s.keys == g.count);
    assert_true(s.runs <= 12 && g.runs_written > 50); /* so there were merges */
    assert_int_equal(s.runs_unfiltered, 0);
    dedupe_rig_fini(&g);
}

static void verdicts_agree_when_hardly_a_run_has_its_filter(void **state)
{
    struct rig g;

    open_with(&g, 3000, 32 << 10);
    model(&g, 250, 0);
    dedupe_rig_settle(&g);
    assert_true(dedupe_rig_stats(&g).runs_unfiltered > 0);
    assert_true(dedupe_rig_stats(&g).disk_lookups > 10000);
    dedupe_rig_check_all(&g);
    dedupe_rig_fini(&g);
}

static void a_restart_with_replay_from_the_covered_index_forgets_nothing(void **state)
{
    struct rig g;

    open_with(&g, 3000, 0);
    model(&g, 400, 37);
    dedupe_rig_fini(&g);
}

static void replay_of_what_is_covered_changes_nothing(void **state)
{
    struct rig g;

    open_with(&g, 2000, 0);
    model(&g, 60, 0);
    dedupe_rig_settle(&g);
    dedupe_rig_close(&g);
    dedupe_rig_open_only(&g);
    dedupe_rig_replay(&g, 0); /* from the first index, whatever is covered */
    assert_int_equal(dedupe_rig_stats(&g).keys, g.count);
    dedupe_rig_check_all(&g);
    dedupe_rig_fini(&g);
}

static void a_table_frozen_within_an_entry_does_not_cover_that_entry(void **state)
{
    struct rig g;

    open_with(&g, 500, 0);
    dedupe_rig_close(&g);
    /* One entry of the log with more keys than a table. */
    for (unsigned slot = 0; slot < 1700; slot++)
        dedupe_rig_remember(&g, (struct dedupe_event){ dedupe_rig_key(slot), slot },
                            (struct dedupe_place){ 1, (uint16_t)slot });
    g.index = 1;
    dedupe_rig_open_only(&g);
    dedupe_rig_replay(&g, 0);
    dedupe_rig_settle(&g);
    assert_true(dedupe_rig_stats(&g).runs > 0);
    assert_int_equal(dedupe_rig_stats(&g).covered_index, 0);
    dedupe_rig_restart(&g);
    assert_int_equal(dedupe_rig_stats(&g).keys, 1700);
    dedupe_rig_check_all(&g);
    dedupe_rig_fini(&g);
}

static void what_is_not_committed_is_not_written(void **state)
{
    struct rig g;
    struct dedupe_place p;

    open_with(&g, 100, 0);
    for (uint64_t i = 0; i < 150; i++)
        assert_int_equal(dedupe_rig_admit(&g, dedupe_rig_key(i), i), DEDUPE_NEW);
    while (dedupe_do_work(g.d) > 0)
        ;
    assert_int_equal(dedupe_rig_stats(&g).runs, 0);
    dedupe_rig_commit(&g, 99);
    while (dedupe_do_work(g.d) > 0)
        ;
    assert_int_equal(dedupe_rig_stats(&g).runs, 0);
    /* The log ends at 99: the events above it may be sent again and must be new. */
    dedupe_rig_close(&g);
    g.count = 99;
    g.index = 99;
    dedupe_rig_open(&g);
    assert_int_equal(dedupe_lookup(g.d, dedupe_rig_key(99), &p), 0);
    assert_int_equal(dedupe_rig_admit(&g, dedupe_rig_key(99), 99), DEDUPE_NEW);
    dedupe_rig_commit(&g, 100);
    dedupe_rig_check_all(&g);
    dedupe_rig_fini(&g);
}

static void runs_of_a_longer_or_of_another_log_are_not_used(void **state)
{
    struct rig g;
    uint64_t covered;

    for (int other = 0; other < 2; other++) {
        open_with(&g, 500, 0);
        model(&g, 20, 0);
        dedupe_rig_settle(&g);
        covered = dedupe_rig_stats(&g).covered_index;
        assert_true(covered > 0);
        dedupe_rig_close(&g);
        g.config.log_last_index = other ? g.index : covered - 1;
        g.config.log_id = (uint64_t)other;
        assert_int_equal(dedupe_open(&g.d, &g.config, &g.covered), 0);
        assert_true(g.covered < covered);
        assert_int_equal(dedupe_rig_stats(&g).runs > 0, !other);
        dedupe_rig_replay(&g, g.covered);
        dedupe_rig_check_all(&g);
        dedupe_rig_fini(&g);
    }
}

static void the_memory_cap_holds_with_every_table_and_filter(void **state)
{
    struct rig g;
    struct dedupe_stats s;
    uint64_t most = 0, least;

    open_with(&g, 20000, 256 << 10);
    least = dedupe_rig_stats(&g).memory_bytes;
    for (int i = 0; i < 400; i++) {
        dedupe_rig_admit_random(&g, 1000);
        dedupe_rig_commit(&g, g.index);
        while (dedupe_do_work(g.d) > 0) {
            s = dedupe_rig_stats(&g);
            assert_true(s.memory_bytes <= g.config.memory_bytes_max);
            most = s.memory_bytes > most ? s.memory_bytes : most;
        }
    }
    assert_true(dedupe_rig_stats(&g).runs_unfiltered > 0); /* the cap was felt */
    assert_true(most > least + (128 << 10) && most <= least + (256 << 10));
    dedupe_rig_check_all(&g);
    dedupe_rig_close(&g);
    g.config.memory_bytes_max = DEDUPE_MEMORY_BYTES_MIN - 1;
    assert_int_equal(dedupe_open(&g.d, &g.config, &g.covered), -EINVAL);
    dedupe_rig_fini(&g);
}

static void a_key_that_a_filter_takes_for_present_is_still_new(void **state)
{
    struct rig g;
    struct dedupe_place p;
    struct dedupe_stats s;
    uint64_t before;

    open_with(&g, 5000, 0);
    for (uint64_t i = 0; i < 60; i++)
        dedupe_rig_admit_random(&g, 500);
    dedupe_rig_commit(&g, g.index);
    dedupe_rig_settle(&g);
    dedupe_rig_restart(&g); /* now the summary knows none of the runs */
    dedupe_rig_settle(&g);
    before = dedupe_rig_stats(&g).disk_lookups;
    for (uint64_t i = 0; i < 300000; i++)
        assert_int_equal(dedupe_lookup(g.d, dedupe_rig_key(1ull << 40 | i), &p), 0);
    s = dedupe_rig_stats(&g);
    assert_true(s.disk_lookups - before > 10); /* there were false positives, and they were few */
    assert_true(s.disk_lookups - before < 300000 * s.runs / 200);
    dedupe_rig_fini(&g);
}

static void
when_the_disk_is_full_admission_goes_on_until_the_table_is_and_then_recovers(void **state)
{
    struct rig g;
    struct rlimit old, none;
    unsigned refused = 0;
    int r;

    signal(SIGXFSZ, SIG_IGN);
    open_with(&g, 9000, 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    none = old;
    none.rlim_cur = 8192;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    while (refused < 10) {
        r = dedupe_ready(g.d, 500);
        if (r == 0)
            dedupe_rig_admit_random(&g, 500);
        else
            refused++;
        assert_true(r == 0 || r == -ENOSPC);
        dedupe_rig_commit(&g, g.index);
        r = dedupe_do_work(g.d);
        assert_true(r == 0 || r == -ENOSPC);
    }
    assert_true(g.count >= 17000);             /* both tables */
    assert_int_equal(dedupe_rig_files(&g), 1); /* MANIFEST */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    dedupe_rig_settle(&g);
    assert_int_equal(dedupe_ready(g.d, 500), 0);
    dedupe_rig_settle(&g);
    assert_int_equal(dedupe_rig_stats(&g).runs, 2);
    dedupe_rig_restart(&g);
    dedupe_rig_check_all(&g);
    dedupe_rig_fini(&g);
}

static void there_are_never_more_runs_than_the_limit(void **state)
{
    struct rig g;

    /* No do_work but when admission must wait, and then one step: merges are always behind. */
    open_with(&g, 2000, 0);
    for (int i = 0; i < 600; i++) {
        dedupe_rig_admit_random(&g, 500);
        dedupe_rig_commit(&g, g.index);
        assert_true(dedupe_rig_stats(&g).runs <= DEDUPE_RUNS_MAX);
    }
    dedupe_rig_check_all(&g);
    dedupe_rig_fini(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_key_is_new_and_then_a_duplicate_or_a_conflict),
        cmocka_unit_test(within_one_call_the_second_event_of_a_key_is_the_duplicate),
        cmocka_unit_test(keys_with_one_equal_half_are_different_keys),
        cmocka_unit_test(verdicts_agree_with_an_exact_reference_through_runs_and_merges),
        cmocka_unit_test(verdicts_agree_when_hardly_a_run_has_its_filter),
        cmocka_unit_test(a_restart_with_replay_from_the_covered_index_forgets_nothing),
        cmocka_unit_test(replay_of_what_is_covered_changes_nothing),
        cmocka_unit_test(a_table_frozen_within_an_entry_does_not_cover_that_entry),
        cmocka_unit_test(what_is_not_committed_is_not_written),
        cmocka_unit_test(runs_of_a_longer_or_of_another_log_are_not_used),
        cmocka_unit_test(the_memory_cap_holds_with_every_table_and_filter),
        cmocka_unit_test(a_key_that_a_filter_takes_for_present_is_still_new),
        cmocka_unit_test(
            when_the_disk_is_full_admission_goes_on_until_the_table_is_and_then_recovers),
        cmocka_unit_test(there_are_never_more_runs_than_the_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
