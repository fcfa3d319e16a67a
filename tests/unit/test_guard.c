/*
 * test_guard.c - the rules that the host adds to the engine, and that the engine needs them.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster/internal.h"
#include "tests/lib/test_disk.h"

static struct cluster *new_cluster(uint64_t term)
{
    struct cluster *c = calloc(1, sizeof *c);
    uint8_t state[sizeof c->state] = { 0 };

    assert_non_null(c);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    c->config.node = 7;
    c->config.dir = "test";
    c->disk = test_disk_make(1);
    assert_int_equal(twoslot_open(&c->state_file, c->disk, "state", 1, state, sizeof state), 0);
    c->state.term = term;
    return c;
}

static void free_cluster(struct cluster *c)
{
    twoslot_close(&c->state_file);
    test_disk_free(c->disk);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->changed);
    free(c);
}

static void a_sole_voter_raises_its_term_durably_before_it_starts(void **state)
{
    const uint64_t term = (3ull << CLUSTER_EPOCH_SHIFT) | 5;
    struct cluster *c = new_cluster(term);
    struct node_state stored;
    struct twoslot again;

    (void)state;
    assert_int_equal(guard_start_term(c, true), 0);
    twoslot_close(&c->state_file);
    assert_int_equal(twoslot_open(&again, c->disk, "state", 1, &stored, sizeof stored), 0);
    assert_int_equal(stored.term, term + 1);
    assert_int_equal(stored.voted_for, 7);
    twoslot_close(&again);
    assert_int_equal(twoslot_open(&c->state_file, c->disk, "state", 1, &stored, sizeof stored), 0);
    free_cluster(c);
}

static void a_voter_among_others_keeps_its_term(void **state)
{
    const uint64_t term = (3ull << CLUSTER_EPOCH_SHIFT) | 5;
    struct cluster *c = new_cluster(term);

    (void)state;
    assert_int_equal(guard_start_term(c, false), 0);
    assert_int_equal(c->state.term, term);
    assert_int_equal(c->state.voted_for, 0);
    free_cluster(c);
}

static void the_last_term_of_an_epoch_is_not_followed_by_the_next_epochs_first(void **state)
{
    const uint64_t term = (4ull << CLUSTER_EPOCH_SHIFT) - 1;
    struct cluster *c = new_cluster(term);

    (void)state;
    assert_int_equal(guard_start_term(c, true), -EOVERFLOW);
    assert_int_equal(c->state.term, term);
    assert_non_null(strstr(c->error, "used up"));
    free_cluster(c);
}

/* Starts an engine in a child on a snapshot at `index` and two entries, all of `term`. Returns the
 * wait status. */
static int start_engine(uint64_t index, uint64_t term)
{
    pid_t child = fork();
    int status = -1;

    assert_true(child >= 0);
    if (child == 0) {
        struct raft_entry entry[2] = { { .term = term, .type = RAFT_COMMAND },
                                       { .term = term, .type = RAFT_COMMAND } };
        struct raft_snapshot_metadata m = { .index = index,
                                            .term = term,
                                            .configuration_index = 1 };
        struct raft_event event = { .type = RAFT_START };
        struct raft_update update;
        struct raft r;
        int null = open("/dev/null", O_WRONLY);

        dup2(null, 2); /* glibc's word on the overflow */
        signal(SIGABRT, SIG_DFL);
        memset(&r, 0, sizeof r);
        raft_configuration_init(&m.configuration);
        if (raft_init(&r, NULL, NULL, 1, "") != 0 ||
            raft_configuration_add(&m.configuration, 1, "", RAFT_STANDBY))
            _exit(2);
        r.tracer = NULL;
        event.start.term = term;
        event.start.metadata = &m;
        event.start.start_index = index + 1;
        event.start.entries = entry;
        event.start.n_entries = 2;
        _exit(raft_step(&r, &event, &update) == 0 ? 0 : 3);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void a_start_that_would_overflow_the_engines_text_is_foreseen(void **state)
{
    const uint64_t large = 1000000000000000000ull; /* 19 digits */
    int status;

    (void)state;
    assert_int_equal(guard_start_digits(1000000, 1000001, 1048577, 1000002, 1048577), 0);
    status = start_engine(1000000, 1048577);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);

    assert_int_equal(guard_start_digits(large, large + 1, large, large + 2, large), -EOVERFLOW);
    status = start_engine(large, large);
    assert_true(WIFSIGNALED(status));
}

/* What a node can reach in practice is far from the limit. */
static void no_log_of_this_world_has_too_many_digits(void **state)
{
    const uint64_t term = (1000ull << CLUSTER_EPOCH_SHIFT) | 0xfffff, last = 100000000000ull;

    (void)state;
    assert_int_equal(guard_start_digits(last - 99999, last - 99998, term, last, term), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sole_voter_raises_its_term_durably_before_it_starts),
        cmocka_unit_test(a_voter_among_others_keeps_its_term),
        cmocka_unit_test(the_last_term_of_an_epoch_is_not_followed_by_the_next_epochs_first),
        cmocka_unit_test(a_start_that_would_overflow_the_engines_text_is_foreseen),
        cmocka_unit_test(no_log_of_this_world_has_too_many_digits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
