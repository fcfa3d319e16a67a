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

/* --- what goes between nodes --------------------------------------------------------------------
 */

#define TERM ((1ull << CLUSTER_EPOCH_SHIFT) | 9)

static uint64_t test_now_ns;

static uint64_t now_ns(void *arg) { return (void)arg, test_now_ns; }

/* An engine that is voter 7 of 7, 8 and 9, with that CHANGE as its only entry. */
static struct cluster *new_member(void)
{
    struct cluster *c = new_cluster(TERM);
    struct raft_configuration configuration;
    struct raft_buffer encoded;
    struct raft_entry entry = { .term = TERM, .type = RAFT_CHANGE };
    struct raft_event event = { .type = RAFT_START };
    struct raft_update update;

    raft_configuration_init(&configuration);
    assert_int_equal(raft_configuration_add(&configuration, 7, "7", RAFT_VOTER), 0);
    assert_int_equal(raft_configuration_add(&configuration, 8, "8", RAFT_VOTER), 0);
    assert_int_equal(raft_configuration_add(&configuration, 9, "9", RAFT_VOTER), 0);
    assert_int_equal(raft_configuration_encode(&configuration, &encoded), 0);
    raft_configuration_close(&configuration);
    assert_int_equal(raft_init(&c->raft, NULL, NULL, 7, "7"), 0);
    c->raft_open = true;
    c->raft.tracer = NULL;
    c->environment.monotonic_ns = now_ns;
    entry.buf = encoded;
    event.start.term = TERM;
    event.start.start_index = 1;
    event.start.entries = &entry;
    event.start.n_entries = 1;
    assert_int_equal(raft_step(&c->raft, &event, &update), 0);
    raft_free(encoded.base);
    return c;
}

static void free_member(struct cluster *c)
{
    raft_close(&c->raft, NULL);
    free_cluster(c);
}

static void engine(struct cluster *c, struct raft_event event)
{
    struct raft_update update;

    event.time = test_now_ns / 1000000;
    assert_int_equal(raft_step(&c->raft, &event, &update), 0);
    if (update.flags & RAFT_UPDATE_ENTRIES)
        raft_free(update.entries.batch[0].batch);
    c->state.term = raft_current_term(&c->raft);
}

static void receive(struct cluster *c, struct raft_message m)
{
    m.server_id = 8;
    m.server_address = "8";
    engine(c, (struct raft_event){ .type = RAFT_RECEIVE, .receive = { &m } });
}

static struct cluster *new_leader(void)
{
    struct cluster *c = new_member();

    raft_set_pre_vote(&c->raft, false);
    test_now_ns = (uint64_t)raft_timeout(&c->raft) * 1000000;
    engine(c, (struct raft_event){ .type = RAFT_TIMEOUT });
    receive(c, (struct raft_message){ .type = RAFT_REQUEST_VOTE_RESULT,
                                      .request_vote_result = {
                                          .version = 2, .term = TERM + 1, .vote_granted = true } });
    assert_true(consensus_leads(c));
    return c;
}

/* E7 */
static void an_answer_to_an_old_term_promises_nothing(void **state)
{
    struct cluster *c = new_member();
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES_RESULT,
                              .append_entries_result = { .last_log_index = 123 } };

    (void)state;
    guard_answer(c, false, &m);
    assert_int_equal(m.append_entries_result.last_log_index, 123);
    guard_answer(c, true, &m);
    assert_int_equal(m.append_entries_result.last_log_index, 0);
    m.append_entries_result.rejected = 5;
    m.append_entries_result.last_log_index = UINT64_MAX;
    guard_answer(c, true, &m);
    assert_int_equal(m.append_entries_result.last_log_index, 0);
    free_member(c);
}

/* E10 */
static void a_denied_pre_vote_teaches_the_term(void **state)
{
    struct cluster *c = new_member();
    struct raft_message m = { .type = RAFT_REQUEST_VOTE_RESULT };
    struct raft_request_vote_result *r = &m.request_vote_result;

    (void)state;
    *r = (struct raft_request_vote_result){ .term = TERM - 4, .pre_vote = true };
    guard_answer(c, false, &m);
    assert_int_equal(r->term, TERM);
    *r = (struct raft_request_vote_result){ .term = TERM - 4,
                                            .pre_vote = true,
                                            .vote_granted = true };
    guard_answer(c, false, &m);
    assert_int_equal(r->term, TERM - 4);
    *r = (struct raft_request_vote_result){ .term = TERM - 4 };
    guard_answer(c, false, &m);
    assert_int_equal(r->term, TERM - 4);
    free_member(c);
}

/* E9 */
static void a_late_rejection_takes_nothing_back(void **state)
{
    struct cluster *c = new_leader();
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES_RESULT, .server_id = 8 };
    struct raft_append_entries_result *r = &m.append_entries_result;
    raft_index match;

    (void)state;
    *r = (struct raft_append_entries_result){ .version = 1, .term = TERM + 1, .last_log_index = 1 };
    receive(c, m);
    assert_int_equal(raft_match_index(&c->raft, 8, &match), 0);
    assert_int_equal(match, 1);
    r->rejected = 1;
    r->last_log_index = 0;
    guard_rejection(c, &m);
    assert_int_equal(r->rejected, 0);
    assert_int_equal(r->last_log_index, 0);
    r->rejected = 5; /* above what is confirmed: a rejection, but its hint is not below that */
    r->last_log_index = 0;
    guard_rejection(c, &m);
    assert_int_equal(r->rejected, 5);
    assert_int_equal(r->last_log_index, 1);
    r->term = TERM; /* of an old term: the engine's business */
    r->rejected = 1;
    guard_rejection(c, &m);
    assert_int_equal(r->rejected, 1);
    free_member(c);
}

/* E11 */
static void one_that_is_no_voter_yet_can_vote_and_forgets_a_silent_leader(void **state)
{
    struct cluster *c = new_member();
    struct raft_server *self = &c->raft.configuration.servers[0];
    struct guard_vote g;

    (void)state;
    test_now_ns = 0;
    guard_vote_begin(c, &g); /* a voter that hears its leader: nothing to do */
    assert_null(g.server);
    guard_vote_end(c, &g);
    self->role = RAFT_STANDBY;
    c->raft.follower_state.current_leader.id = 8;
    c->raft.follower_state.current_leader.address = raft_calloc(1, 2);
    c->heard_ms = 1000;
    test_now_ns = (1000ull + c->raft.election_timeout) * 1000000;
    guard_vote_begin(c, &g);
    assert_int_equal(self->role, RAFT_VOTER);
    assert_int_equal(c->raft.follower_state.current_leader.id, 8);
    guard_vote_end(c, &g);
    assert_int_equal(self->role, RAFT_STANDBY);
    test_now_ns += 1000000;
    guard_vote_begin(c, &g);
    assert_int_equal(c->raft.follower_state.current_leader.id, 0);
    assert_null(c->raft.follower_state.current_leader.address); /* or it would answer node 0 */
    guard_vote_end(c, &g);
    free_member(c);
}

static void wait_room(struct cluster *c, int wanted)
{
    for (int i = 0; i < 1000 && log_reserve_own(c->log, 0) != wanted; i++) {
        test_now_ns += 100000000;
        assert_true(log_do_work(c->log, test_now_ns) >= 0);
    }
    assert_int_equal(log_reserve_own(c->log, 0), wanted);
}

/* Its log has no segment yet, and there is no room for one. */
static void one_without_room_for_an_entry_does_not_campaign_and_votes(void **state)
{
    const struct log_config config = { .segment_bytes = 1 << 20,
                                       .writes_max = 8,
                                       .mark_idle_ms = 10 };
    const struct log_origin origin = { 0 };
    struct cluster *c = new_member();
    struct raft_message now = { .type = RAFT_TIMEOUT_NOW, .server_id = 8, .server_address = "8" };
    struct appended room = { 0 };
    struct guard_vote g;
    unsigned taken = 1;

    (void)state;
    c->appended = &room;
    c->appended_max = 1;
    test_disk_set_free(c->disk, 0);
    assert_int_equal(log_open(&c->log, c->disk, &config, &origin, NULL, NULL, c->error), 0);
    wait_room(c, -ENOSPC);
    assert_false(guard_may_lead(c));
    test_now_ns += (raft_timeout(&c->raft) + 1) * 1000000;
    assert_int_equal(consensus_tick(c), 0);
    now.timeout_now.term = TERM;
    now.timeout_now.last_log_index = 1;
    now.timeout_now.last_log_term = TERM;
    assert_int_equal(consensus_receive(c, &now, NULL, &taken), 0);
    assert_int_equal(taken, 0);
    assert_int_equal(c->raft.state, RAFT_FOLLOWER);
    assert_int_equal(raft_current_term(&c->raft), TERM);
    assert_true(c->raft_timeout_ms > test_now_ns / 1000000); /* it looks again, and not at once */
    c->raft.follower_state.current_leader.id = 8;
    c->heard_ms = 0;
    guard_vote_begin(c, &g);
    assert_int_equal(c->raft.follower_state.current_leader.id, 0);
    guard_vote_end(c, &g);
    test_disk_set_free(c->disk, 1 << 24);
    wait_room(c, 0);
    assert_true(guard_may_lead(c));
    log_close(c->log);
    free_member(c);
}

/* E18 */
static void one_that_installs_a_snapshot_can_vote_and_forgets_a_silent_leader(void **state)
{
    struct cluster *c = new_member();
    struct guard_vote g;

    (void)state;
    c->raft.snapshot.installing = true;
    c->raft.follower_state.current_leader.id = 8;
    c->heard_ms = 1000;
    test_now_ns = (1000ull + c->raft.election_timeout) * 1000000;
    guard_vote_begin(c, &g);
    assert_false(c->raft.snapshot.installing);
    assert_int_equal(c->raft.follower_state.current_leader.id, 8);
    guard_vote_end(c, &g);
    assert_true(c->raft.snapshot.installing);
    test_now_ns += 1000000;
    guard_vote_begin(c, &g);
    assert_int_equal(c->raft.follower_state.current_leader.id, 0);
    guard_vote_end(c, &g);
    c->raft.snapshot.installing = false;
    free_member(c);
}

/* E19 */
static void one_that_installs_a_snapshot_says_where_its_log_ends(void **state)
{
    const struct log_config config = { .segment_bytes = 1 << 20, .writes_max = 1 };
    struct cluster *c = new_member();
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES_RESULT };
    struct raft_append_entries_result *r = &m.append_entries_result;
    char error[LOG_ERROR_BYTES];
    struct log *log;
    int e = log_open(&log, c->disk, &config, &(struct log_origin){ 0 }, NULL, NULL, error);

    (void)state;
    assert_int_equal(e, 0);
    c->log = log; /* empty */
    c->raft.snapshot.installing = true;
    c->raft.trail.snapshot.index = 50;
    *r = (struct raft_append_entries_result){ .rejected = 90, .last_log_index = 50 };
    guard_answer(c, false, &m);
    assert_int_equal(r->rejected, 90);
    assert_int_equal(r->last_log_index, 0);
    *r = (struct raft_append_entries_result){ .last_log_index = 0 }; /* to a heartbeat: as it is */
    guard_answer(c, false, &m);
    assert_int_equal(r->rejected, 0);
    c->fetch.refuses = true; /* to entries behind the snapshot */
    guard_answer(c, false, &m);
    assert_int_equal(r->rejected, 50);
    assert_int_equal(r->last_log_index, 0);
    c->raft.snapshot.installing = false;
    c->raft.trail.snapshot.index = 0;
    log_close(log);
    free_member(c);
}

/* E13, E14 */
static void timers_are_never_in_the_past_and_a_leaders_not_too_often(void **state)
{
    struct cluster *c = new_leader();
    uint64_t now_ms = test_now_ns / 1000000;

    (void)state;
    c->ticked_ms = now_ms;
    assert_true(raft_timeout(&c->raft) < now_ms + 2 * c->raft.heartbeat_timeout);
    assert_int_equal(guard_timeout_ms(c, now_ms), now_ms + 2 * c->raft.heartbeat_timeout);
    assert_int_equal(guard_timeout_ms(c, now_ms + 100000), now_ms + 100001);
    free_member(c);
    c = new_member();
    assert_int_equal(guard_timeout_ms(c, 0), raft_timeout(&c->raft));
    assert_int_equal(guard_timeout_ms(c, 1000000), 1000001);
    free_member(c);
}

/* E15 */
static void a_rejection_skips_the_whole_term_that_differs(void **state)
{
    struct cluster *c = new_member();
    struct raft_trail real = c->raft.trail, *t = &c->raft.trail;
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES_RESULT };
    struct raft_append_entries_result *r = &m.append_entries_result;

    (void)state;
    t->size = 4;
    t->front = 0;
    t->back = 3;
    t->offset = 0;
    t->records = calloc(4, sizeof *t->records);
    t->records[0].index = 10, t->records[0].term = TERM - 3;
    t->records[1].index = 20, t->records[1].term = TERM - 2;
    t->records[2].index = 30, t->records[2].term = TERM;
    assert_int_equal(consensus_term(c, 10), TERM - 3);
    assert_int_equal(consensus_term(c, 11), TERM - 2);
    assert_int_equal(consensus_term(c, 31), 0);
    *r = (struct raft_append_entries_result){ .rejected = 15, .last_log_index = 30 };
    guard_answer(c, false, &m);
    assert_int_equal(r->last_log_index, 10);
    c->commit_index = 13; /* what is committed cannot differ */
    *r = (struct raft_append_entries_result){ .rejected = 15, .last_log_index = 30 };
    guard_answer(c, false, &m);
    assert_int_equal(r->last_log_index, 13);
    free(t->records);
    *t = real;
    free_member(c);
}

/* --- members -------------------------------------------------------------------------------------
 */

/* Node `from` has the leader's log up to an index. */
static void answer(struct cluster *c, uint64_t from, uint64_t last_index)
{
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES_RESULT,
                              .server_id = from,
                              .server_address = "",
                              .append_entries_result = { .version = 1,
                                                         .term = c->state.term,
                                                         .last_log_index = last_index } };

    guard_heard(c, &m);
    engine(c, (struct raft_event){ .type = RAFT_RECEIVE, .receive = { &m } });
}

/* Submits an entry, which is durable at once. Takes bytes, the engine's memory. */
static void submit(struct cluster *c, enum raft_entry_type type, void *bytes, size_t n)
{
    struct raft_entry entry = {
        .term = c->state.term, .type = type, .buf = { bytes, n }, .batch = bytes
    };

    engine(c, (struct raft_event){ .type = RAFT_SUBMIT, .submit = { &entry, 1 } });
    engine(c, (struct raft_event){ .type = RAFT_PERSISTED_ENTRIES,
                                   .persisted_entries = { raft_last_index(&c->raft) } });
}

/* A leader that may change its members: 7, with 8 and 9. */
static struct cluster *new_settled_leader(void)
{
    struct cluster *c = new_leader();

    c->lead = LEAD_READY;
    answer(c, 8, 1);
    answer(c, 9, 1);
    return c;
}

/* E4 */
static void members_do_not_change_before_an_entry_of_the_term_is_committed(void **state)
{
    struct cluster *c = new_settled_leader();
    char why[64] = "";

    (void)state;
    assert_true(guard_change(c, 0, why, sizeof why));
    c->lead = LEAD_BEGUN;
    assert_false(guard_change(c, 0, why, sizeof why));
    assert_non_null(strstr(why, "begun to lead"));
    free_member(c);
}

/* E12 */
static void members_do_not_change_while_a_voter_is_silent(void **state)
{
    struct cluster *c = new_settled_leader();
    char why[64] = "";

    (void)state;
    test_now_ns += (2ull * c->raft.election_timeout + 1) * 1000000;
    answer(c, 8, 1);
    assert_false(guard_change(c, 0, why, sizeof why));
    assert_string_equal(why, "node 9 does not answer");
    assert_true(guard_change(c, 9, why, sizeof why)); /* that is replaced */
    assert_false(guard_change(c, 8, why, sizeof why));
    answer(c, 9, 1);
    assert_true(guard_change(c, 0, why, sizeof why));
    free_member(c);
}

/* What a member that was removed answers must not push out what a member has. */
static void only_members_are_heard(void **state)
{
    struct cluster *c = new_settled_leader();

    (void)state;
    for (uint64_t stranger = 20; stranger < 30; stranger++)
        answer(c, stranger, 1);
    assert_true(guard_healthy(c, 8));
    assert_true(guard_healthy(c, 9));
    assert_false(guard_healthy(c, 20));
    free_member(c);
}

/* The bytes of a configuration in which node 10 is a standby, beside the others. */
static struct raft_buffer with_standby(struct cluster *c)
{
    struct raft_configuration next;
    struct raft_buffer b;

    raft_configuration_init(&next);
    for (unsigned i = 0; i < c->raft.configuration.n; i++) {
        const struct raft_server *s = &c->raft.configuration.servers[i];

        assert_int_equal(raft_configuration_add(&next, s->id, s->address, s->role), 0);
    }
    assert_int_equal(raft_configuration_add(&next, 10, "10", RAFT_STANDBY), 0);
    assert_int_equal(raft_configuration_encode(&next, &b), 0);
    raft_configuration_close(&next);
    return b;
}

static void commit_standby(struct cluster *c, struct raft_buffer b)
{
    struct raft_event told = { .type = RAFT_CONFIGURATION, .configuration = { .index = 2 } };

    raft_configuration_init(&told.configuration.conf);
    assert_int_equal(raft_configuration_decode(&b, &told.configuration.conf), 0);
    submit(c, RAFT_CHANGE, b.base, b.len);
    answer(c, 8, 2);
    assert_int_equal(raft_commit_index(&c->raft), 2);
    engine(c, told);
}

/* E2, the leader's part */
static void a_change_waits_until_every_voter_has_the_one_before(void **state)
{
    struct cluster *c = new_settled_leader();
    char why[64] = "";

    (void)state;
    commit_standby(c, with_standby(c));
    assert_false(guard_change(c, 0, why, sizeof why));
    assert_string_equal(why, "node 9 does not have the last change yet");
    assert_true(guard_change(c, 9, why, sizeof why));
    answer(c, 9, 2);
    assert_true(guard_change(c, 0, why, sizeof why)); /* 10 does not vote */
    free_member(c);
}

/* E17: the engine needs it, and it helps. */
static void an_idle_catch_up_is_over_with_one_more_entry(void **state)
{
    struct cluster *c = new_settled_leader();
    int status = -1;

    (void)state;
    commit_standby(c, with_standby(c));
    answer(c, 9, 2);
    answer(c, 10, 2);
    engine(c, (struct raft_event){ .type = RAFT_CATCH_UP, .catch_up = { 10 } });
    for (int i = 0; i < 10; i++)
        answer(c, 10, 2);
    assert_int_equal(raft_catch_up(&c->raft, 10, &status), 0);
    assert_int_equal(status, RAFT_CATCH_UP_RUNNING);
    assert_true(guard_catch_up(c, 10));
    assert_false(guard_catch_up(c, 8));
    submit(c, RAFT_BARRIER, raft_calloc(1, 8), 8);
    assert_false(guard_catch_up(c, 10)); /* one is enough */
    answer(c, 10, 3);
    assert_int_equal(raft_catch_up(&c->raft, 10, &status), 0);
    assert_int_equal(status, RAFT_CATCH_UP_FINISHED);
    assert_false(guard_catch_up(c, 10));
    free_member(c);
}

/* E5 */
static void the_lead_goes_only_to_who_has_all_of_the_log(void **state)
{
    struct cluster *c = new_settled_leader();

    (void)state;
    assert_true(guard_transfer(c, 8));
    submit(c, RAFT_BARRIER, raft_calloc(1, 8), 8);
    assert_false(guard_transfer(c, 8));
    answer(c, 8, 2);
    assert_true(guard_transfer(c, 8));
    assert_false(guard_transfer(c, 9));
    assert_false(guard_transfer(c, 20));
    free_member(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sole_voter_raises_its_term_durably_before_it_starts),
        cmocka_unit_test(a_voter_among_others_keeps_its_term),
        cmocka_unit_test(the_last_term_of_an_epoch_is_not_followed_by_the_next_epochs_first),
        cmocka_unit_test(a_start_that_would_overflow_the_engines_text_is_foreseen),
        cmocka_unit_test(no_log_of_this_world_has_too_many_digits),
        cmocka_unit_test(an_answer_to_an_old_term_promises_nothing),
        cmocka_unit_test(a_denied_pre_vote_teaches_the_term),
        cmocka_unit_test(a_late_rejection_takes_nothing_back),
        cmocka_unit_test(one_that_is_no_voter_yet_can_vote_and_forgets_a_silent_leader),
        cmocka_unit_test(one_without_room_for_an_entry_does_not_campaign_and_votes),
        cmocka_unit_test(one_that_installs_a_snapshot_can_vote_and_forgets_a_silent_leader),
        cmocka_unit_test(one_that_installs_a_snapshot_says_where_its_log_ends),
        cmocka_unit_test(timers_are_never_in_the_past_and_a_leaders_not_too_often),
        cmocka_unit_test(a_rejection_skips_the_whole_term_that_differs),
        cmocka_unit_test(members_do_not_change_before_an_entry_of_the_term_is_committed),
        cmocka_unit_test(members_do_not_change_while_a_voter_is_silent),
        cmocka_unit_test(only_members_are_heard),
        cmocka_unit_test(a_change_waits_until_every_voter_has_the_one_before),
        cmocka_unit_test(an_idle_catch_up_is_over_with_one_more_entry),
        cmocka_unit_test(the_lead_goes_only_to_who_has_all_of_the_log),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
