/*
 * test_cluster.c - the single-voter host on a real directory; the test plays the worker.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cluster/internal.h"
#include "tests/lib/test_app.h"

static struct test_app t;
static bool synced_parent, synced_dir;

/* In place of libc's: notes which directories are made durable. */
int fsync(int fd)
{
    char name[64], path[256] = "";

    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    if (readlink(name, path, sizeof path - 1) > 0 && strncmp(path, t.dir, strlen(path)) == 0) {
        synced_dir = synced_dir || strcmp(path, t.dir) == 0;
        synced_parent = synced_parent || strcmp(path, t.dir) != 0;
    }
    return (int)syscall(SYS_fsync, fd);
}

static int setup(void **state)
{
    (void)state;
    test_app_init(&t);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_app_fini(&t);
    return 0;
}

static struct cluster_status status(void)
{
    static struct cluster_status s;

    cluster_status(t.cluster, &s);
    return s;
}

static void a_new_node_leads_with_configuration_barrier_and_genesis(void **state)
{
    struct cluster_status s;

    (void)state;
    test_app_start(&t);
    s = status();
    assert_int_equal(s.state, CLUSTER_LEADER);
    assert_int_equal(s.epoch, 1);
    assert_int_equal(s.last_index, 3);
    assert_int_equal(s.commit_index, 3);
    assert_int_equal(s.applied_index, 3);
    assert_int_equal(t.applied_entries, 3);
    assert_int_equal(cluster_commit_index(t.cluster), 3);
}

static void a_new_data_directory_is_durable_in_the_one_above_it(void **state)
{
    (void)state;
    assert_int_equal(rmdir(t.dir), 0);
    synced_parent = synced_dir = false;
    test_app_start(&t);
    assert_true(synced_dir);
    assert_true(synced_parent);
}

static void a_block_is_answered_with_its_place_and_only_after_it_is_durable(void **state)
{
    struct block *b;

    (void)state;
    test_app_start(&t);
    for (int i = 0; i < TEST_APP_BLOCKS; i++) {
        test_app_fill(&t, i, 100, 128, (uint64_t)i * 100);
        test_app_submit(&t, i);
    }
    for (int i = 0; i < TEST_APP_BLOCKS; i++) {
        b = test_app_answer(&t);
        assert_ptr_equal(b, t.block[i]);
        assert_int_equal(b->index, 4 + i);
        assert_int_equal(b->accepted, 100);
        assert_true(b->term >> CLUSTER_EPOCH_SHIFT == 1);
        /* The public index is what readers may see; it never lags behind an answer. */
        assert_true(cluster_commit_index(t.cluster) >= b->index);
        assert_true(status().persisted_index >= b->index);
    }
    assert_int_equal(status().events, TEST_APP_BLOCKS * 100);
    assert_false(t.out_of_order);
}

static void a_restart_applies_everything_again_in_order_and_raises_the_term(void **state)
{
    uint64_t term, last;
    uint8_t id[16], digest[SHA256_BYTES];

    (void)state;
    test_app_start(&t);
    for (int round = 0; round < 40; round++) { /* 1 MiB segments: several of them */
        test_app_fill(&t, round % TEST_APP_BLOCKS, 1000, 200, (uint64_t)round * 1000);
        test_app_submit(&t, round % TEST_APP_BLOCKS);
        assert_int_equal(test_app_answer(&t)->accepted, 1000);
    }
    term = status().term;
    last = status().last_index;
    memcpy(id, cluster_id(t.cluster), sizeof id);
    memcpy(digest, status().digest, sizeof digest);
    for (int restart = 0; restart < 3; restart++) {
        test_app_stop(&t);
        test_app_start(&t);
        assert_memory_equal(cluster_id(t.cluster), id, sizeof id);
        assert_int_equal(t.opened_last_index, last);
        assert_int_equal(status().last_index, ++last); /* this term's barrier */
        assert_int_equal(t.applied_entries, last);
        assert_int_equal(t.applied_events, 40000);
        assert_int_equal(status().events, 40000);
        assert_int_equal(status().events_by_type[1], 40000);
        assert_false(t.out_of_order);
        assert_true(status().term > term);
        term = status().term;
    }
    assert_true(status().checkpoint_index > 3);
    assert_memory_not_equal(status().digest, digest, sizeof digest);
}

static void wait_for_last_index(uint64_t index)
{
    while (status().last_index < index && status().state == CLUSTER_LEADER) {
    }
    for (int i = 0; i < 5; i++) /* each is at least one turn */
        assert_int_equal(status().last_index, index);
}

static void age_seals_a_segment_with_events_and_no_other(void **state)
{
    (void)state;
    t.segment_age_ns = 1;
    test_app_start(&t);
    wait_for_last_index(3);
    test_app_fill(&t, 0, 10, 100, 0);
    test_app_submit(&t, 0);
    test_app_answer(&t);
    wait_for_last_index(5);
    for (uint64_t i = 0; i < 3; i++) {
        test_app_stop(&t);
        test_app_start(&t);
        wait_for_last_index(6 + i); /* barriers only: they stay in one segment */
    }
    /* What a start finds unsealed is sealed by its age too. */
    t.segment_age_ns = 0;
    test_app_stop(&t);
    test_app_start(&t);
    test_app_fill(&t, 0, 10, 100, 10);
    test_app_submit(&t, 0);
    test_app_answer(&t);
    wait_for_last_index(10);
    t.segment_age_ns = 1;
    test_app_stop(&t);
    test_app_start(&t);
    wait_for_last_index(12); /* barrier, seal */
    while (status().checkpoint_index < 12 && status().state == CLUSTER_LEADER) {
    }
    assert_true(status().log_bytes < (1u << 20) + 65536); /* sealed ones are cut */
}

static void damaged_checkpoints_cost_time_and_nothing_else(void **state)
{
    char path[512];
    struct dirent *d;
    DIR *dir;
    int damaged = 0;

    (void)state;
    test_app_start(&t);
    for (int round = 0; round < 20; round++) {
        test_app_fill(&t, 0, 1000, 200, (uint64_t)round * 1000);
        test_app_submit(&t, 0);
        test_app_answer(&t);
    }
    test_app_stop(&t);
    snprintf(path, sizeof path, "%s/checkpoint", t.dir);
    dir = opendir(path);
    assert_non_null(dir);
    while ((d = readdir(dir)) != NULL) {
        uint8_t b = 0;
        int fd;

        if (strncmp(d->d_name, "checkpoint-", 11) != 0)
            continue;
        snprintf(path, sizeof path, "%s/checkpoint/%s", t.dir, d->d_name);
        fd = open(path, O_RDWR);
        assert_int_equal(pread(fd, &b, 1, 40), 1);
        b ^= 1;
        assert_int_equal(pwrite(fd, &b, 1, 40), 1);
        close(fd);
        damaged++;
    }
    closedir(dir);
    assert_true(damaged > 0);
    test_app_start(&t);
    assert_int_equal(status().events, 20000);
    assert_int_equal(t.applied_events, 20000);
    assert_false(t.out_of_order);
}

static void a_block_with_duplicates_enters_the_log_without_them(void **state)
{
    struct block *b;

    (void)state;
    test_app_start(&t);
    t.admit_left = 60;
    test_app_fill(&t, 0, 100, 128, 0);
    test_app_submit(&t, 0);
    b = test_app_answer(&t);
    assert_int_equal(b->accepted, 60);
    assert_int_equal(b->index, 4);
    assert_int_equal(status().events, 60);
    t.admit_left = 0;
    test_app_fill(&t, 1, 100, 128, 0);
    test_app_submit(&t, 1);
    b = test_app_answer(&t);
    assert_int_equal(b->accepted, 0);
    assert_int_equal(b->index, 0);
    assert_int_equal(status().last_index, 4);
    t.admit_left = -1;
}

static void
a_full_disk_refuses_the_block_before_the_log_sees_it_and_goes_on_when_there_is_room(void **state)
{
    struct block *b;

    (void)state;
    test_app_start(&t);
    t.ready = -ENOSPC;
    test_app_fill(&t, 0, 10, 128, 0);
    test_app_submit(&t, 0);
    b = test_app_answer(&t);
    assert_int_equal(b->index, 0);
    assert_int_equal(b->accepted, 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(b->verdict[i], VERDICT_REFUSED);
    assert_true(status().disk_full);
    assert_int_equal(status().last_index, 3);
    t.ready = 0;
    test_app_fill(&t, 0, 10, 128, 0);
    test_app_submit(&t, 0);
    b = test_app_answer(&t);
    assert_int_equal(b->index, 4);
    assert_false(status().disk_full);
}

static void a_final_error_of_the_app_ends_the_node_without_an_answer(void **state)
{
    (void)state;
    test_app_start(&t);
    t.ready = -EIO;
    test_app_fill(&t, 0, 10, 128, 0);
    test_app_submit(&t, 0);
    while (status().state != CLUSTER_FAILED) {
    }
    test_app_stop(&t);
    assert_true(strlen(t.failure) > 0);
    assert_true(ring_empty(&t.link.answer));
}

static void a_directory_is_opened_by_one_process_at_a_time(void **state)
{
    static struct test_app second;
    char error[LOG_ERROR_BYTES] = "";

    (void)state;
    test_app_start(&t);
    test_app_init(&second);
    rmdir(second.dir);
    snprintf(second.dir, sizeof second.dir, "%s", t.dir);
    assert_true(test_app_try_start(&second, error) < 0);
    assert_non_null(strstr(error, "in use"));
    snprintf(second.dir, sizeof second.dir, "/tmp/sluice-none");
    test_app_fini(&second);
}

static void a_log_that_vanished_is_refused(void **state)
{
    char command[256], error[LOG_ERROR_BYTES] = "";

    (void)state;
    test_app_start(&t);
    test_app_stop(&t);
    snprintf(command, sizeof command, "rm -f %s/log/*.seg %s/log/mark", t.dir, t.dir);
    assert_int_equal(system(command), 0);
    assert_true(test_app_try_start(&t, error) < 0);
    assert_true(strlen(error) > 20);
}

/* In the data directory. */
static void run(const char *what)
{
    char command[512];

    snprintf(command, sizeof command, "cd %s && %s", t.dir, what);
    assert_int_equal(system(command), 0);
}

static void an_old_copy_of_the_state_file_is_refused(void **state)
{
    char error[LOG_ERROR_BYTES] = "";

    (void)state;
    test_app_start(&t);
    test_app_stop(&t);
    run("cp log/state state.old");
    for (int restart = 0; restart < 3; restart++) {
        test_app_start(&t);
        test_app_stop(&t);
    }
    run("cp log/state state.new && cp state.old log/state");
    assert_true(test_app_try_start(&t, error) < 0);
    assert_non_null(strstr(error, "old copy"));
    run("cp state.new log/state");
    test_app_start(&t);
}

static void fill_segments(void)
{
    for (int round = 0; round < 20; round++) {
        test_app_fill(&t, 0, 1000, 200, (uint64_t)round * 1000);
        test_app_submit(&t, 0);
        test_app_answer(&t);
    }
}

/* Below the checkpoint, where only an app that has kept nothing reads: every record of it is good,
 * and what was cut behind them may have been there, too. */
static void nothing_of_an_old_copy_of_a_segment_is_applied(void **state)
{
    const char *first = "log/0000000000000001-0000000000000001.seg";
    char error[LOG_ERROR_BYTES] = "", command[256];

    (void)state;
    test_app_start(&t);
    test_app_fill(&t, 0, 1000, 200, 0);
    test_app_submit(&t, 0);
    test_app_answer(&t);
    test_app_stop(&t);
    snprintf(command, sizeof command, "cp %s old.seg", first);
    run(command);
    test_app_start(&t);
    fill_segments();
    assert_true(status().checkpoint_index > 4);
    test_app_stop(&t);
    snprintf(command, sizeof command, "cp %s new.seg && cp old.seg %s", first, first);
    run(command);
    t.applied_entries = t.applied_events = 0;
    assert_true(test_app_try_start(&t, error) < 0);
    assert_non_null(strstr(error, "the segment of record 1 is damaged"));
    assert_int_equal(t.applied_entries, 0);
    snprintf(command, sizeof command, "cp new.seg %s", first);
    run(command);
    test_app_start(&t);
    assert_int_equal(t.applied_events, 21000);
}

static void checkpoints_beyond_the_log_do_not_push_out_its_own(void **state)
{
    (void)state;
    test_app_start(&t);
    test_app_stop(&t);
    run("mkdir checkpoint && cd checkpoint && "
        "touch checkpoint-00000000ffffffff checkpoint-00000000fffffffe");
    test_app_start(&t);
    fill_segments();
    test_app_stop(&t);
    test_app_start(&t);
    assert_true(status().checkpoint_index > 3);
}

static void an_empty_log_beside_checkpoints_is_refused(void **state)
{
    char error[LOG_ERROR_BYTES] = "";

    (void)state;
    test_app_start(&t);
    fill_segments();
    test_app_stop(&t);
    run("mv log elsewhere"); /* or the file system that it is on is not mounted */
    assert_true(test_app_try_start(&t, error) < 0);
    assert_non_null(strstr(error, "checkpoint"));
    run("rm -r log && mv elsewhere log");
    test_app_start(&t);
    assert_int_equal(status().events, 20000);
}

static void a_setting_is_an_entry_and_is_applied(void **state)
{
    sluice_v1_Setting s = sluice_v1_Setting_init_zero;
    char sentence[LOG_ERROR_BYTES];

    (void)state;
    test_app_start(&t);
    strncpy(s.key, "skew.past_ms", sizeof s.key - 1);
    strncpy(s.value, "1000", sizeof s.value - 1);
    assert_int_equal(cluster_propose_setting(t.cluster, &s, sentence), 4);
    assert_int_equal(cluster_propose_setting(t.cluster, &s, sentence), 5);
    assert_int_equal(cluster_commit_index(t.cluster), 5);
}

static void *commit_later(void *arg)
{
    (void)arg;
    test_app_fill(&t, 0, 10, 128, 0);
    test_app_submit(&t, 0);
    return NULL;
}

static void a_watcher_is_woken_when_the_commit_index_moves(void **state)
{
    struct wake w;
    pthread_t thread;

    (void)state;
    test_app_start(&t);
    assert_int_equal(wake_open(&w), 0);
    assert_int_equal(cluster_watch(t.cluster, &w), 0);
    wake_prepare(&w);
    assert_int_equal(cluster_commit_index(t.cluster), 3);
    assert_int_equal(pthread_create(&thread, NULL, commit_later, NULL), 0);
    while (cluster_commit_index(t.cluster) < 4) {
        struct pollfd p = { .fd = w.fd, .events = POLLIN };

        assert_int_equal(poll(&p, 1, 20000), 1);
        wake_drain(&w);
        wake_prepare(&w);
    }
    pthread_join(thread, NULL);
    test_app_answer(&t);
    cluster_unwatch(t.cluster, &w);
    wake_close(&w);
}

static void stopping_commits_and_answers_what_was_handed_over(void **state)
{
    (void)state;
    test_app_start(&t);
    for (int i = 0; i < TEST_APP_BLOCKS; i++) {
        test_app_fill(&t, i, 500, 200, (uint64_t)i * 500);
        test_app_submit(&t, i);
    }
    test_app_stop(&t);
    for (int i = 0; i < TEST_APP_BLOCKS; i++) {
        struct block *b = ring_pop(&t.link.answer);

        assert_non_null(b);
        assert_int_equal(b->index, 4 + i);
    }
    test_app_start(&t);
    assert_int_equal(t.applied_events, TEST_APP_BLOCKS * 500);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static void on_problem(void *arg, const char *sentence)
{
    (void)arg;
    fail_msg("%s", sentence);
}

struct changing {
    struct change_request request;
    char sentence[CHANGE_SENTENCE_BYTES];
    int result;
    _Atomic bool done;
};

static void on_changed(void *arg, int result, const char *sentence)
{
    struct changing *h = arg;

    h->result = result;
    snprintf(h->sentence, sizeof h->sentence, "%s", sentence);
    h->done = true;
}

static void begin_change(void *arg)
{
    struct changing *h = arg;

    (void)change_begin(t.cluster, &h->request, on_changed, h);
}

/* Its sentence. */
static const char *change(struct changing *h, int result)
{
    const struct timespec ms = { .tv_nsec = 1000000 };

    h->done = false;
    assert_int_equal(cluster_call(t.cluster, begin_change, h), 0);
    for (int i = 0; i < 20000 && !h->done; i++)
        nanosleep(&ms, NULL);
    assert_true(h->done);
    assert_int_equal(h->result, result);
    return h->sentence;
}

static void a_cluster_of_one_does_not_grow_and_its_log_says_that_it_was_asked(void **state)
{
    struct changing h = { .request = { .kind = CHANGE_ADD, .actor = "uid 0" } };
    struct log_verify_report report;
    char log_dir[96];

    (void)state;
    test_app_start(&t);
    h.request.member =
        (struct member){ .node = 2, .role = MEMBER_VOTER, .port = 7400, .region = 1 };
    snprintf(h.request.member.host, sizeof h.request.member.host, "elsewhere");
    assert_string_equal(change(&h, -EINVAL), "a member that is added has a data directory");
    h.request.member.directory_id[0] = 2;
    assert_non_null(strstr(change(&h, -EPERM), "does not grow one by one"));
    assert_int_equal(status().last_index, 5); /* configuration, barrier, genesis; asked, refused */
    test_app_stop(&t);
    snprintf(log_dir, sizeof log_dir, "%s/log", t.dir);
    assert_int_equal(log_verify(log_dir, on_problem, NULL, &report), 0);
    assert_int_equal(report.records, 5);
    test_app_start(&t);
    assert_int_equal(status().applied_index, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_new_node_leads_with_configuration_barrier_and_genesis),
        T(a_new_data_directory_is_durable_in_the_one_above_it),
        T(a_block_is_answered_with_its_place_and_only_after_it_is_durable),
        T(a_restart_applies_everything_again_in_order_and_raises_the_term),
        T(age_seals_a_segment_with_events_and_no_other),
        T(damaged_checkpoints_cost_time_and_nothing_else),
        T(a_block_with_duplicates_enters_the_log_without_them),
        T(a_full_disk_refuses_the_block_before_the_log_sees_it_and_goes_on_when_there_is_room),
        T(a_final_error_of_the_app_ends_the_node_without_an_answer),
        T(a_directory_is_opened_by_one_process_at_a_time),
        T(a_log_that_vanished_is_refused),
        T(an_old_copy_of_the_state_file_is_refused),
        T(nothing_of_an_old_copy_of_a_segment_is_applied),
        T(checkpoints_beyond_the_log_do_not_push_out_its_own),
        T(an_empty_log_beside_checkpoints_is_refused),
        T(a_setting_is_an_entry_and_is_applied),
        T(a_watcher_is_woken_when_the_commit_index_moves),
        T(stopping_commits_and_answers_what_was_handed_over),
        T(a_cluster_of_one_does_not_grow_and_its_log_says_that_it_was_asked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
