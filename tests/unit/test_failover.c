/*
 * test_failover.c - one of two regions goes on without the other, and that one comes back; and what
 * is refused.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cluster/log_private.h"
#include "tests/lib/regions_rig.h"

static int refused(unsigned at, uint8_t region)
{
    int e = regions_begin(at, (struct failover_request){ .region = region });

    assert_int_equal(regions_outcome[at].told, 1);
    assert_int_equal(regions_outcome[at].result, e);
    assert_int_equal(regions_node[at].c->failover.step, FAILOVER_NONE);
    return e;
}

static void the_next_epoch_is_the_regions_lowest_above_all_that_were_seen(void **state)
{
    (void)state;
    for (uint8_t region = 1; region <= 2; region++) {
        for (uint64_t seen = 0; seen < 50; seen++) {
            uint64_t next = seen + 1;

            while (next < region || (next - region) % 2 != 0)
                next++;
            assert_int_equal(failover_next_epoch(seen, region), next);
        }
    }
}

static void what_cannot_be_is_refused_at_once(void **state)
{
    const struct failover_request again = { .region = 2 };
    int (*post)(void *arg, const struct node_post *p) = regions_node[4].c->environment.post;

    (void)state;
    assert_int_equal(refused(4, 0), -EINVAL);
    assert_int_equal(refused(4, 3), -EINVAL);
    assert_non_null(strstr(regions_outcome[4].report.sentence, "1 or 2"));
    assert_int_equal(refused(4, 255), -EINVAL);
    assert_int_equal(refused(4, 1), -EINVAL); /* it is of region 2 */
    assert_non_null(strstr(regions_outcome[4].report.sentence, "region 2"));
    assert_int_equal(refused(1, 2), -EINVAL);
    regions_node[4].c->environment.post = NULL;
    assert_int_equal(refused(4, 2), -ENXIO);
    regions_node[4].c->environment.post = post;
    (void)regions_begin(4, (struct failover_request){ .region = 2, .dry_run = true });
    assert_int_equal(failover_begin(regions_node[4].c, &again, regions_told, &regions_node[5]),
                     -EBUSY);
    assert_int_equal(regions_outcome[5].result, -EBUSY);
    assert_int_equal(regions_outcome[4].told, 0);
    assert_int_equal(regions_finish(4), 0); /* the first goes on */
    regions_assert_nothing_promised();
}

static void one_that_would_vote_alone_is_not_made(void **state)
{
    assert_int_equal(regions_teardown(state), 0);
    regions_make(4);
    (void)regions_leader_of(1);
    regions_settle(1, 4);
    assert_int_equal(refused(4, 2), -EPERM);
    assert_non_null(strstr(regions_outcome[4].report.sentence, "1 members"));
    assert_int_equal(regions_node[4].c->state.promised, 0);
}

static void a_region_that_is_led_has_nothing_to_fail_over(void **state)
{
    (void)state;
    assert_int_equal(regions_fail_over(2, 1), -EPERM);
    regions_pass_ms(1000);
    regions_assert_nothing_promised();
}

static void a_dry_run_says_what_there_is_and_changes_nothing(void **state)
{
    uint64_t last = log_last_index(regions_node[4].c->log);

    (void)state;
    (void)regions_begin(4, (struct failover_request){ .region = 2, .dry_run = true });
    assert_int_equal(regions_finish(4), 0);
    assert_int_equal(regions_outcome[4].report.epoch, 2);
    assert_int_equal(regions_outcome[4].report.index, last);
    assert_int_equal(regions_outcome[4].report.term, log_last_term(regions_node[4].c->log));
    assert_int_equal(regions_outcome[4].report.committed, last);
    assert_int_equal(regions_outcome[4].report.events, EVENTS);
    assert_int_equal(regions_outcome[4].report.answering, 3);
    assert_int_equal(regions_outcome[4].report.others, 3);
    assert_int_equal(regions_outcome[4].report.old_leader,
                     regions_leader_of(1)); /* and may be accepting */
    regions_part(true);
    regions_pass_ms(1500);
    (void)regions_begin(4, (struct failover_request){ .region = 2, .dry_run = true });
    assert_int_equal(regions_finish(4), 0);
    assert_int_equal(regions_outcome[4].report.others, 0);
    assert_int_equal(regions_outcome[4].report.old_leader, 0);
    assert_in_range(regions_outcome[4].report.silent_ms, 1400, 10000);
    regions_assert_nothing_promised();
}

static void a_minority_of_the_region_changes_nothing(void **state)
{
    uint64_t begun_ns = regions_now_ns;

    (void)state;
    regions_cut_off(5, true);
    regions_cut_off(6, true);
    assert_int_equal(regions_fail_over(4, 2), -EHOSTUNREACH);
    assert_true(regions_now_ns >= begun_ns + NS_PER_S);
    regions_assert_nothing_promised();
}

static void commits_go_on(unsigned at, uint64_t epoch)
{
    unsigned l = regions_leader_of(regions_of(at));

    regions_commit_block(at);
    assert_int_equal(regions_epoch_of(l), epoch);
}

/* Node 6 has an entry that 4 and 5 lack; it was not there when the old region had committed more.
 */
static void the_region_goes_on_with_its_best_log(void **state)
{
    uint64_t had;
    struct member m[CLUSTER_MEMBERS_MAX];
    int n;

    (void)state;
    for (unsigned i = 1; i <= 3; i++) {
        regions_cut_between(i, 4, true);
        regions_cut_between(i, 5, true);
    }
    regions_commit_block(1);
    regions_settle(1, 3);
    regions_pass_ms(100);
    regions_part(true);
    regions_commit_block(1);
    had = log_last_index(regions_node[6].c->log);
    assert_true(had > log_last_index(regions_node[4].c->log) &&
                had < log_last_index(regions_node[1].c->log));
    assert_int_equal(regions_fail_over(4, 2), 0);
    assert_int_equal(regions_outcome[4].report.epoch, 2);
    assert_int_equal(regions_outcome[4].report.node, 6);
    assert_int_equal(regions_outcome[4].report.index, had);
    assert_int_equal(regions_of(regions_outcome[4].report.leader), 2);
    assert_int_equal(regions_outcome[4].report.leader, regions_leader_of(2));
    regions_settle(4, 6);
    for (unsigned i = 4; i <= 6; i++) {
        assert_int_equal(regions_epoch_of(i), 2);
        assert_int_equal(regions_node[i].c->events, 2 * EVENTS);
        n = recovery_members(regions_node[i].c, m);
        assert_int_equal(n, NODES);
        for (int j = 0; j < n; j++)
            assert_int_equal(m[j].role, m[j].region == 2 ? MEMBER_VOTER : MEMBER_STANDBY);
    }
    commits_go_on(5, 2);
    regions_settle(4, 6);
}

static void reconciled(void *arg, int result, const struct reconcile_report *report)
{
    assert_int_equal(result, 0);
    *(struct reconcile_report *)arg = *report;
}

/* Set aside once on each of its nodes; offered again, and in the log. */
static void the_old_region_comes_back_and_loses_nothing(void **state)
{
    static struct orphan_file file[4];
    uint64_t same = log_last_index(regions_node[4].c->log), last;

    (void)state;
    regions_part(true);
    regions_commit_block(1);
    regions_commit_block(2);
    regions_settle(1, 3);
    last = log_last_index(regions_node[1].c->log);
    assert_int_equal(regions_fail_over(5, 2), 0);
    commits_go_on(4, 2);
    assert_int_equal(regions_epoch_of(1), 1);
    regions_part(false);
    regions_settle(1, NODES);
    for (unsigned i = 1; i <= NODES; i++) {
        int n = orphan_list(regions_node[i].dir, file, 4);

        assert_int_equal(regions_epoch_of(i), 2);
        assert_int_equal(regions_node[i].c->events, 2 * EVENTS);
        assert_int_equal(n, i <= 3);
        if (i > 3)
            continue;
        assert_int_equal(file[0].error, 0);
        assert_int_equal(file[0].head.node, i);
        assert_int_equal(file[0].head.first, same + 1);
        assert_int_equal(file[0].head.last, last);
        assert_int_equal(file[0].head.events, 2 * EVENTS);
        assert_int_equal(file[0].head.committed, last);
        assert_int_equal(file[0].head.into, 2);
    }
    assert_int_equal(regions_leader_of(ANYWHERE), regions_leader_of(2));
    for (unsigned i = 1; i <= 3; i += 2) {
        struct reconcile_report report = { .files = 0 };

        reconcile_begin(regions_node[i].c, reconciled, &report);
        for (unsigned ms = 0; ms < WAIT_MS && report.sentence[0] == '\0'; ms++)
            regions_turn();
        assert_int_equal(report.files, 1);
        assert_int_equal(report.accepted, 2 * EVENTS); /* this app takes all for new */
        assert_int_equal(report.duplicates + report.conflicts, 0);
        assert_int_equal(orphan_list(regions_node[i].dir, file, 4), 1);
        assert_true(file[0].reconciled);
        report.files = 9;
        report.sentence[0] = '\0';
        reconcile_begin(regions_node[i].c, reconciled, &report);
        regions_pass_ms(10);
        assert_int_equal(report.files, 0); /* there is nothing more to offer */
    }
    regions_settle(1, NODES);
    assert_int_equal(regions_node[6].c->events, 6 * EVENTS);
}

/* What stands on the entries that go is rolled back first: the app is told how far. */
static void the_app_is_told_how_far_the_log_goes_back(void **state)
{
    uint64_t same = log_last_index(regions_node[4].c->log), lowest = UINT64_MAX;

    (void)state;
    regions_part(true);
    regions_commit_block(1);
    regions_settle(1, 3);
    assert_int_equal(regions_fail_over(4, 2), 0);
    regions_part(false);
    regions_node[2].opened_at = UINT64_MAX;
    for (unsigned ms = 0; ms < WAIT_MS && regions_epoch_of(2) == 1; ms++) {
        regions_turn();
        if (regions_node[2].opened_at < lowest)
            lowest = regions_node[2].opened_at;
        if (regions_node[2].c->recovery.copy == COPY_FETCH)
            assert_int_equal(regions_node[2].opened_at, same);
    }
    assert_int_equal(lowest, same);
    regions_settle(1, NODES);
}

static unsigned fenced(unsigned from, unsigned to)
{
    unsigned n = 0;

    for (unsigned i = from; i <= to; i++)
        n += regions_node[i].c->recovery.fenced;
    return n;
}

/* The one that leads the others is gone in the middle: a promise is never taken back, and the next
 * attempt takes a higher epoch, at a node that has heard of neither. */
/* A bit, in its payload. */
static void rot(unsigned n, uint64_t index)
{
    struct segment_list list;
    bool found = false;

    assert_int_equal(segment_list_read(&list, regions_node[n].disk), 0);
    for (size_t i = 0; i < list.n && !found; i++) {
        char name[SEGMENT_NAME_BYTES];
        uint64_t bytes;
        uint8_t *p;

        segment_name(&list.at[i], name);
        p = test_disk_bytes(regions_node[n].disk, name, &bytes);
        for (uint64_t at = LOG_ALIGN; at + LOG_ALIGN <= bytes && !found;) {
            struct record_header *h = (void *)(p + at);

            if (h->magic != RECORD_MAGIC)
                break;
            found = h->agreed.index == index;
            if (found)
                p[at + LOG_HEADER_BYTES] ^= 1;
            at += record_bytes(h->agreed.payload_bytes);
        }
    }
    assert_true(found);
    segment_list_fini(&list);
}

/* What only the old region had has rotted there: what the new epoch has in that place is another.
 */
static void rot_is_not_mended_with_what_another_epoch_has_there(void **state)
{
    uint64_t last;

    (void)state;
    regions_part(true);
    regions_commit_block(1);
    regions_settle(1, 3);
    last = log_last_index(regions_node[1].c->log);
    regions_pass_ms(3000); /* the mark says that it is durable */
    for (unsigned n = 1; n <= 3; n++)
        regions_stop(n);
    assert_int_equal(regions_fail_over(4, 2), 0);
    commits_go_on(5, 2);
    assert_true(log_last_index(regions_node[4].c->log) >= last);
    rot(1, last);
    regions_node[1].ends = "the cluster has gone on in epoch 2";
    regions_part(false);
    regions_start(1);
    for (unsigned ms = 0; regions_node[1].c != NULL; ms++) {
        assert_true(ms < WAIT_MS);
        regions_turn();
    }
    regions_start(2); /* whose log is whole comes back */
    regions_start(3);
    regions_settle(2, NODES);
}

static void an_attempt_that_ends_in_the_middle_is_followed_by_another(void **state)
{
    (void)state;
    regions_part(true);
    regions_cut_off(6, true);
    (void)regions_begin(4, (struct failover_request){ .region = 2, .timeout_ms = 5000 });
    for (unsigned ms = 0; ms < WAIT_MS && fenced(4, 6) < 2; ms++)
        regions_turn();
    assert_int_equal(fenced(4, 5), 2);
    regions_cut_off(4, true);
    assert_int_equal(regions_finish(4), -ETIMEDOUT);
    assert_non_null(strstr(regions_outcome[4].report.sentence, "promised"));
    for (unsigned i = 4; i <= 5; i++) {
        regions_stop(i);
        regions_start(i);
        assert_true(regions_node[i].c->recovery.fenced);
        assert_int_equal(regions_node[i].c->state.promised, 2);
        assert_int_equal(regions_epoch_of(i), 1);
    }
    regions_pass_ms(5000);
    assert_int_equal(fenced(4, 5), 2);
    assert_int_equal(regions_node[6].c->state.promised, 0);
    regions_cut_between(5, 6, false);
    assert_int_equal(regions_fail_over(6, 2), 0);
    assert_int_equal(regions_outcome[6].report.epoch, 4);
    commits_go_on(5, 4);
    assert_true(regions_node[4].c->recovery.fenced);
    regions_cut_off(4, false);
    regions_cut_off(6, false);
    regions_part(false);
    regions_settle(1, NODES);
    assert_int_equal(regions_epoch_of(4), 4);
    assert_int_equal(regions_epoch_of(1), 4);
}

/* Of two at once one has a majority, or none; whoever asks again comes to an end. */
static void of_two_attempts_at_once_at_most_one_begins_an_epoch(void **state)
{
    int one, other;

    for (unsigned round = 0; round < 4; round++) {
        if (round > 0) {
            assert_int_equal(regions_teardown(state), 0);
            assert_int_equal(regions_setup(state), 0);
        }
        regions_part(true);
        (void)regions_begin(4, (struct failover_request){ .region = 2, .timeout_ms = 10000 });
        regions_pass_ms(round);
        (void)regions_begin(6, (struct failover_request){ .region = 2, .timeout_ms = 10000 });
        one = regions_finish(4);
        other = regions_finish(6);
        assert_true(one < 0 || other < 0);
        if (one < 0 && other < 0)
            assert_int_equal(regions_fail_over(5, 2), 0);
        commits_go_on(5, regions_epoch_of(regions_leader_of(2)));
        regions_part(false);
        regions_settle(1, NODES);
    }
}

/* And back: the first region takes the next of its own. */
static void a_region_may_fail_over_again_and_back(void **state)
{
    (void)state;
    regions_part(true);
    assert_int_equal(regions_fail_over(4, 2), 0);
    regions_part(false);
    regions_settle(1, NODES);
    assert_int_equal(regions_fail_over(4, 2), -EPERM); /* it is the active one */
    regions_part(true);
    regions_commit_block(4);
    regions_settle(4, 6);
    assert_int_equal(regions_fail_over(1, 1), 0);
    assert_int_equal(regions_outcome[1].report.epoch, 3);
    commits_go_on(2, 3);
    regions_part(false);
    regions_settle(1, NODES);
    assert_int_equal(regions_epoch_of(5), 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, regions_setup, regions_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_epoch_is_the_regions_lowest_above_all_that_were_seen),
        TEST(what_cannot_be_is_refused_at_once),
        TEST(one_that_would_vote_alone_is_not_made),
        TEST(a_region_that_is_led_has_nothing_to_fail_over),
        TEST(a_dry_run_says_what_there_is_and_changes_nothing),
        TEST(a_minority_of_the_region_changes_nothing),
        TEST(the_region_goes_on_with_its_best_log),
        TEST(the_old_region_comes_back_and_loses_nothing),
        TEST(the_app_is_told_how_far_the_log_goes_back),
        TEST(rot_is_not_mended_with_what_another_epoch_has_there),
        TEST(an_attempt_that_ends_in_the_middle_is_followed_by_another),
        TEST(of_two_attempts_at_once_at_most_one_begins_an_epoch),
        TEST(a_region_may_fail_over_again_and_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
