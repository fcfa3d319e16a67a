/*
 * test_repair.c - nodes whose log has rotted, in one process, over real connections and on real
 * files: what is damaged while a node is down, or while it runs, comes from the others.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "cluster/log.h"
#include "tests/lib/daemon.h"
#include "tests/lib/test_app.h"

#define NODES        3
#define WAIT_NS      (20 * NS_PER_S)
#define SEGMENTS_MAX 64

static struct test_app app[NODES];
static struct cluster_peering peering[NODES];
static sluice_v1_Member member[NODES];

static void pause_briefly(void)
{
    const struct timespec ms = { .tv_nsec = 5000000 };

    nanosleep(&ms, NULL);
}

static struct cluster_status status_of(int i)
{
    struct cluster_status s;

    cluster_status(app[i].cluster, &s);
    return s;
}

static int leader(void)
{
    uint64_t until = clock_monotonic_ns() + WAIT_NS;

    while (clock_monotonic_ns() < until) {
        for (int i = 0; i < NODES; i++) {
            if (app[i].cluster != NULL && status_of(i).state == CLUSTER_LEADER)
                return i;
        }
        pause_briefly();
    }
    fail_msg("no node leads");
    return -1;
}

/* Blocks of 200 kB: four fill a segment. */
static void blocks_at(int i, unsigned n)
{
    static uint64_t next = 1;

    for (unsigned b = 0; b < n; b++) {
        test_app_fill(&app[i], 0, 100, 2000, next);
        next += 100;
        test_app_submit(&app[i], 0);
        assert_int_equal(test_app_answer(&app[i])->verdict[0], VERDICT_COMMITTED);
    }
}

static void wait_for_state(int i, enum cluster_state from, bool is)
{
    uint64_t until = clock_monotonic_ns() + WAIT_NS;

    while ((status_of(i).state == from) != is) {
        struct cluster_status s = status_of(i);

        if (s.state == CLUSTER_FAILED || clock_monotonic_ns() > until)
            fail_msg("node %d: state %d, %s %s", i + 1, s.state, s.error, s.note);
        pause_briefly();
    }
}

/* All nodes that run have applied what this one has, and have the same chain. */
static void assert_together(int as)
{
    struct cluster_status first = status_of(as), other;

    for (int i = 0; i < NODES; i++) {
        if (app[i].cluster == NULL)
            continue;
        wait_for_state(i, CLUSTER_REPAIRING, false);
        assert_int_equal(cluster_wait(app[i].cluster, first.applied_index, WAIT_NS), 0);
        other = status_of(i);
        if (other.last_index == first.last_index)
            assert_memory_equal(other.digest, first.digest, sizeof first.digest);
        assert_false(app[i].out_of_order);
    }
}

static int setup(void **state)
{
    char sentence[LOG_ERROR_BYTES] = "";
    int lead;

    memset(member, 0, sizeof member);
    memset(peering, 0, sizeof peering);
    for (int i = 0; i < NODES; i++) {
        test_app_init(&app[i]);
        app[i].node = (uint16_t)(i + 1);
        app[i].peering = &peering[i];
        app[i].scrub_bytes_per_s = *state != NULL ? 1u << 30 : 0;
        snprintf(peering[i].listen, sizeof peering[i].listen, "127.0.0.1:%u", daemon_port_free());
        peering[i].user_timeout_ms = 5000;
        member[i].node = (uint32_t)i + 1;
        memcpy(member[i].address, peering[i].listen, sizeof peering[i].listen);
        test_app_start(&app[i]);
    }
    assert_int_equal(cluster_found(app[0].cluster, member, NODES, sentence), 0);
    lead = leader();
    blocks_at(lead, 14);
    assert_together(lead);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < NODES; i++)
        test_app_fini(&app[i]);
    return 0;
}

/* --- damage -------------------------------------------------------------------------------------
 */

static char *in_dir(int i, const char *name)
{
    static char path[PATH_MAX];

    snprintf(path, sizeof path, "%s/log/%s", app[i].dir, name);
    return path;
}

static int by_name(const void *a, const void *b) { return strcmp(a, b); }

/* The n-th segment of a node, from behind if n is negative. */
static char *segment(int i, int n)
{
    static char name[SEGMENTS_MAX][64];
    DIR *d = opendir(in_dir(i, ""));
    struct dirent *e;
    int found = 0;

    assert_non_null(d);
    while ((e = readdir(d)) != NULL && found < SEGMENTS_MAX) {
        if (strstr(e->d_name, ".seg") != NULL)
            snprintf(name[found++], sizeof name[0], "%.63s", e->d_name);
    }
    closedir(d);
    qsort(name, (size_t)found, sizeof name[0], by_name);
    n = n < 0 ? found + n : n;
    assert_in_range(n, 0, found - 1);
    return in_dir(i, name[n]);
}

static void flip(const char *path, off_t at)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 8;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    assert_int_equal(fsync(fd), 0);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

/* The last block of a file that is not zero. */
static off_t last_block(const char *path)
{
    static uint8_t block[4096];
    static const uint8_t zero[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t last = 0;

    assert_true(fd >= 0);
    for (off_t at = 0; pread(fd, block, sizeof block, at) == (ssize_t)sizeof block;
         at += (off_t)sizeof block) {
        if (memcmp(block, zero, sizeof zero) != 0)
            last = at;
    }
    close(fd);
    return last;
}

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *f)
{
    (void)s, (void)flag, (void)f;
    return remove(path);
}

static void drop_checkpoints(int i)
{
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%s/checkpoint", app[i].dir);
    nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void no_problem(void *arg, const char *sentence)
{
    (void)arg;
    fail_msg("%s", sentence);
}

/* Every node, taken down, has a log without a fault. */
static void assert_sound(void)
{
    struct log_verify_report report;

    for (int i = 0; i < NODES; i++) {
        test_app_stop(&app[i]);
        assert_int_equal(log_verify(in_dir(i, ""), no_problem, NULL, &report), 0);
        assert_false(report.torn_tail);
        assert_true(report.segments >= 3);
    }
}

/* --- tests --------------------------------------------------------------------------------------
 */

/* Below the checkpoint, where it shows when the app is given it, and above. */
static void rot_in_any_segment_is_mended_at_the_next_start(void **state)
{
    int lead = leader(), node = (lead + 1) % NODES;

    (void)state;
    for (int round = 0; round < 4; round++) {
        test_app_stop(&app[node]);
        if (round % 2 == 1)
            drop_checkpoints(node);
        flip(segment(node, round / 2), 4096 + 300);
        flip(segment(node, round / 2), round == 1 ? 20 : 8192 + 4096 * 50);
        test_app_start(&app[node]);
        assert_together(lead);
        assert_string_equal(status_of(node).note, "");
        blocks_at(lead, 1);
        assert_together(lead);
    }
    assert_sound();
}

static void a_missing_segment_is_made_anew(void **state)
{
    int lead = leader(), node = (lead + 1) % NODES;

    (void)state;
    test_app_stop(&app[node]);
    drop_checkpoints(node);
    assert_int_equal(unlink(segment(node, 1)), 0);
    test_app_start(&app[node]);
    assert_together(lead);
    assert_sound();
}

/* What it may have acknowledged it does not cut: without the others it waits. */
static void rot_at_the_end_waits_for_the_others(void **state)
{
    int lead = leader(), node = (lead + 1) % NODES;
    struct cluster_status s;
    char *path;

    (void)state;
    for (int i = 0; i < NODES; i++)
        test_app_stop(&app[i]);
    path = segment(node, -1);
    flip(path, last_block(path) + 200);
    test_app_start(&app[node]);
    wait_for_state(node, CLUSTER_REPAIRING, true);
    s = status_of(node);
    assert_non_null(strstr(s.note, "damaged"));
    assert_int_equal(s.last_index, 0);
    test_app_start(&app[lead]);
    /* One vote is no majority, and the node that repairs has none. */
    wait_for_state(lead, CLUSTER_FOLLOWER, true);
    assert_int_equal(status_of(node).state, CLUSTER_REPAIRING);
    for (int i = 0; i < NODES; i++) {
        if (app[i].cluster == NULL)
            test_app_start(&app[i]);
    }
    lead = leader();
    assert_together(lead);
    blocks_at(lead, 2);
    assert_together(lead);
    assert_sound();
}

/* Two of three, and the third is not there. */
static void two_nodes_with_rot_in_different_places_mend_each_other(void **state)
{
    int third = leader(), one = (third + 1) % NODES, two = (third + 2) % NODES, lead;

    (void)state;
    for (int i = 0; i < NODES; i++)
        test_app_stop(&app[i]);
    flip(segment(one, 0), 4096 + 300);
    flip(segment(two, 1), 4096 + 300);
    test_app_start(&app[one]);
    test_app_start(&app[two]);
    wait_for_state(one, CLUSTER_REPAIRING, false);
    wait_for_state(two, CLUSTER_REPAIRING, false);
    lead = leader();
    blocks_at(lead, 2);
    assert_together(lead);
    test_app_start(&app[third]);
    assert_together(lead);
    assert_sound();
}

static void wait_for_repairs(int i, uint64_t n)
{
    uint64_t until = clock_monotonic_ns() + WAIT_NS;

    while (status_of(i).repaired_segments < n) {
        if (clock_monotonic_ns() > until)
            fail_msg("node %d: %s", i + 1, status_of(i).note);
        pause_briefly();
    }
}

static void wait_for_pass(int i)
{
    uint64_t until = clock_monotonic_ns() + WAIT_NS, passes = status_of(i).scrub_passes + 2;

    while (status_of(i).scrub_passes < passes) {
        assert_true(clock_monotonic_ns() < until);
        pause_briefly();
    }
}

/* Of the leader and of another, in two segments each. */
static void the_scrub_has_rot_mended_while_the_nodes_run(void **state)
{
    int lead = leader();

    (void)state;
    for (int i = 0; i < NODES - 1; i++) {
        wait_for_pass(i);
        assert_int_equal(status_of(i).repaired_segments, 0);
        flip(segment(i, i), 4096 + 300);
        wait_for_repairs(i, 1);
        flip(segment(i, 2), i == 0 ? 20 : 4096 + 20);
        wait_for_repairs(i, 2);
        wait_for_pass(i);
        assert_in_range(status_of(i).repaired_segments, 2, 3); /* it may just have looked */
        assert_string_equal(status_of(i).note, "");
    }
    blocks_at(lead, 2);
    assert_together(lead);
    assert_sound();
}

static void a_leader_with_rot_goes_on_and_brings_up_who_is_behind(void **state)
{
    int lead = leader(), node = (lead + 1) % NODES;
    unsigned sealed;

    (void)state;
    test_app_stop(&app[node]);
    blocks_at(lead, 12);
    sealed = (unsigned)status_of(lead).log_bytes >> 20;
    flip(segment(lead, (int)sealed - 3), 4096 + 300);
    test_app_start(&app[node]);
    assert_together(lead);
    assert_false(app[lead].failed);
    wait_for_repairs(lead, 1);
    blocks_at(leader(), 1);
    assert_sound();
}

static void a_node_alone_finds_its_rot_and_says_so(void **state)
{
    struct test_app *t = &app[0];
    uint64_t until = clock_monotonic_ns() + WAIT_NS;

    (void)state;
    for (int i = 0; i < NODES; i++)
        test_app_stop(&app[i]);
    test_app_fini(t);
    test_app_init(t);
    t->scrub_bytes_per_s = 1u << 30;
    test_app_start(t);
    blocks_at(0, 10);
    wait_for_pass(0);
    assert_string_equal(status_of(0).note, "");
    flip(segment(0, 0), 4096 + 300);
    while (strstr(status_of(0).note, "damaged") == NULL) {
        assert_true(clock_monotonic_ns() < until);
        pause_briefly();
    }
    blocks_at(0, 2);
    assert_false(t->failed);
}

/* Nobody to ask: as ever. */
static void a_node_alone_refuses_to_start(void **state)
{
    char error[LOG_ERROR_BYTES] = "";

    (void)state;
    for (int i = 0; i < NODES; i++)
        test_app_stop(&app[i]);
    drop_checkpoints(0);
    flip(segment(0, 0), 4096 + 300);
    app[0].peering = NULL;
    assert_true(test_app_try_start(&app[0], error) < 0);
    assert_non_null(strstr(error, "rot"));
    app[0].peering = &peering[0];
}

int main(void)
{
    static bool with_scrub = true;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rot_in_any_segment_is_mended_at_the_next_start, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_missing_segment_is_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(rot_at_the_end_waits_for_the_others, setup, teardown),
        cmocka_unit_test_setup_teardown(two_nodes_with_rot_in_different_places_mend_each_other,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_node_alone_refuses_to_start, setup, teardown),
        cmocka_unit_test_prestate_setup_teardown(the_scrub_has_rot_mended_while_the_nodes_run,
                                                 setup, teardown, &with_scrub),
        cmocka_unit_test_prestate_setup_teardown(
            a_leader_with_rot_goes_on_and_brings_up_who_is_behind, setup, teardown, &with_scrub),
        cmocka_unit_test_prestate_setup_teardown(a_node_alone_finds_its_rot_and_says_so, setup,
                                                 teardown, &with_scrub),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
