/*
 * test_recovery.c - one node that is asked for a promise, to copy and to finish, by a coordinator
 * that the test plays post by post: what it answers, what is on its disk by then, and what it does
 * not do.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/peer_fetch.h"
#include "proto/wire.pb.h"
#include "tests/lib/log_fixture.h"
#include "tests/lib/node_rig.h"

#define EPOCH   2u
#define ATTEMPT 70u
#define TERM(e) ((uint64_t)(e) << CLUSTER_EPOCH_SHIFT)

/* --- the coordinator's side ---------------------------------------------------------------------
 */

static const uint8_t audit[8] = { 0x0a, 6, 'n', 'o', 'b', 'o', 'd', 'y' };

static struct {
    struct peer_recover head;
    uint8_t rest[PEER_CONFIGURATION_BYTES_MAX + 64];
} asked __attribute__((aligned(8)));

static struct peer_recover request(enum recover_step step, uint64_t epoch, uint64_t attempt)
{
    return (struct peer_recover){ .step = (uint16_t)step, .epoch = epoch, .attempt = attempt };
}

static int ask(uint16_t from, const struct peer_recover *q)
{
    size_t bytes = sizeof asked.head;
    int n;

    memset(&asked, 0, sizeof asked);
    asked.head = *q;
    if (q->step == RECOVER_FINISH) {
        n = members_encode(t.bootstrap.member, t.bootstrap.members, asked.rest + sizeof audit,
                           PEER_CONFIGURATION_BYTES_MAX);
        assert_true(n > 0);
        memcpy(asked.rest, audit, sizeof audit);
        asked.head.audit_bytes = sizeof audit;
        asked.head.change_bytes = (uint32_t)n;
        bytes += sizeof audit + peer_recover_padded((uint32_t)n);
    }
    return node_receive(t.c, from, PEER_RECOVER, &asked, bytes);
}

/* The last thing that it has said. */
static const struct peer_recover *told(uint16_t to)
{
    static struct peer_recover_view v;
    const struct sent *s;

    assert_in_range(t.posts, 1, POSTS);
    s = &t.sent[t.posts - 1];
    assert_int_equal(s->to, to);
    assert_int_equal(s->type, PEER_RECOVER);
    assert_null(peer_recover_get(&v, s->body, s->bytes));
    assert_int_equal(v.head.answer, 1);
    return &v.head;
}

/* Until it is answered, and by what. */
static int asks(uint16_t from, struct peer_recover q)
{
    const struct peer_recover *a;

    t.posts = 0;
    assert_int_equal(ask(from, &q), 0);
    node_rig_turn();
    assert_int_equal(t.posts, 1);
    a = told(from);
    assert_int_equal(a->step, q.step);
    assert_int_equal(a->epoch, q.epoch);
    assert_int_equal(a->attempt, q.attempt);
    assert_int_equal(a->started, t.c->state.term >> CLUSTER_EPOCH_SHIFT);
    assert_int_equal(a->promised, t.c->state.promised);
    assert_int_equal(a->index, log_last_index(t.c->log));
    assert_int_equal(a->term, log_last_term(t.c->log));
    return a->status;
}

static int promises(uint64_t epoch, uint64_t attempt)
{
    return asks(OTHER, request(RECOVER_PROMISE, epoch, attempt));
}

/* What the log's end is, as a COPY or, with the entry behind it, a FINISH says. */
static struct peer_recover at_end(enum recover_step step, uint64_t epoch, uint64_t attempt)
{
    struct peer_recover q = request(step, epoch, attempt);

    q.index = log_last_index(t.c->log) + (step == RECOVER_FINISH);
    q.term = log_last_term(t.c->log);
    q.time_ns = log_last_time_ns(t.c->log) + 5;
    q.source = OTHER;
    log_digest(t.c->log, q.digest);
    return q;
}

static void restart(void)
{
    node_free(t.c);
    t.c = NULL;
    node_rig_start(false);
}

static void assert_fenced(uint64_t epoch, uint64_t attempt)
{
    assert_true(t.c->recovery.fenced);
    assert_true(recovery_is_promised(t.c));
    assert_false(t.c->raft_open);
    assert_false(t.c->app_open);
    assert_int_equal(t.c->state.promised, epoch);
    assert_int_equal(t.c->state.attempt, attempt);
    assert_int_equal(t.c->state.term >> CLUSTER_EPOCH_SHIFT, 1);
}

/* Entries of this term behind what the node has, while it is down. */
static void append(uint64_t term, enum log_type type, uint32_t bytes, const void *payload,
                   uint64_t time_ns)
{
    struct log_config config = { .segment_bytes = 1 << 20, .writes_max = 64, .mark_idle_ms = 10 };
    struct log_origin origin = { .index = 0 };
    char error[LOG_ERROR_BYTES] = "";
    struct fixture_write *f;
    struct log *l;

    sha256(config.genesis, t.bootstrap.cluster_id, sizeof t.bootstrap.cluster_id, NULL, 0);
    memcpy(origin.digest, config.genesis, sizeof origin.digest);
    assert_int_equal(log_open(&l, t.disk, &config, &origin, NULL, NULL, error), 0);
    assert_int_equal(fixture_reserve(l, bytes), 0);
    f = fixture_write_make(log_last_index(l) + 1, term, type, bytes, 1);
    if (payload != NULL)
        memcpy((uint8_t *)f->write.buf + LOG_HEADER_BYTES, payload, bytes);
    f->write.record.time_ns = time_ns;
    log_write_seal(&f->write);
    assert_int_equal(log_append(l, &f->write), 0);
    while (!f->done)
        assert_true(fixture_turn(l) >= 0);
    fixture_write_free(f);
    log_close(l);
}

/* With a few of its epoch. */
static void start(void)
{
    node_rig_start(false);
    node_free(t.c);
    t.c = NULL;
    for (unsigned i = 0; i < 4; i++)
        append(TERM(1) | 1, LOG_SETTING, 800 * i, NULL, 1000 + i);
    node_rig_start(false);
    assert_int_equal(log_last_index(t.c->log), 5);
}

/* --- looking ------------------------------------------------------------------------------------
 */

static void a_look_changes_nothing(void **state)
{
    const struct peer_recover *a;
    struct node_state was;
    uint8_t digest[SHA256_BYTES];
    uint32_t disk;

    (void)state;
    start();
    node_rig_later_ms(100);
    was = t.c->state;
    disk = test_disk_digest(t.disk);
    for (uint64_t epoch = 0; epoch < 5; epoch++) {
        assert_int_equal(asks(THIRD, request(RECOVER_LOOK, epoch, epoch)), 0);
        a = told(THIRD);
        assert_int_equal(a->index, 5);
        assert_int_equal(a->term, TERM(1) | 1);
        assert_int_equal(a->time_ns, 1003);
        log_digest(t.c->log, digest);
        assert_memory_equal(a->digest, digest, SHA256_BYTES);
        assert_int_equal(a->started, 1);
        assert_int_equal(a->promised, 0);
        assert_int_equal(a->settled, 1); /* what a cluster begins with is committed */
        assert_int_equal(recovery_digest(t.c, 1, digest), 0);
        assert_memory_equal(a->settled_digest, digest, SHA256_BYTES);
        assert_int_equal(a->leader, 0);
        assert_true(a->silent_ms == UINT64_MAX);
    }
    assert_memory_equal(&t.c->state, &was, sizeof was);
    assert_int_equal(test_disk_digest(t.disk), disk);
    assert_false(t.c->recovery.fenced);
    node_rig_follow(OTHER);
    node_rig_later_ms(40);
    assert_int_equal(asks(THIRD, request(RECOVER_LOOK, 1, 0)), 0);
    assert_int_equal(told(THIRD)->leader, OTHER);
    assert_int_equal(told(THIRD)->silent_ms, 40);
    assert_int_equal(promises(EPOCH, ATTEMPT), 0);
    assert_int_equal(asks(THIRD, request(RECOVER_LOOK, 1, 0)), 0);
    assert_int_equal(told(THIRD)->leader, 0);
    assert_int_equal(told(THIRD)->promised, EPOCH);
    assert_int_equal(told(THIRD)->settled, 0);
}

static void a_body_that_cannot_be_is_not_heard(void **state)
{
    struct peer_recover q = request(RECOVER_PROMISE, EPOCH, ATTEMPT);

    (void)state;
    start();
    q.attempt = 0;
    assert_int_equal(ask(OTHER, &q), -EBADMSG);
    q = request(RECOVER_FINISH + 1, EPOCH, ATTEMPT);
    assert_int_equal(ask(OTHER, &q), -EBADMSG);
    assert_int_equal(node_receive(t.c, OTHER, PEER_RECOVER, &asked, 8), -EBADMSG);
    node_rig_turn();
    assert_int_equal(t.posts, 0);
    assert_int_equal(t.c->state.promised, 0);
}

/* --- promises -----------------------------------------------------------------------------------
 */

static void a_promise_is_answered_once_the_engine_has_stopped(void **state)
{
    struct peer_recover q = request(RECOVER_PROMISE, EPOCH, ATTEMPT);

    (void)state;
    start();
    node_rig_follow(OTHER);
    assert_int_equal(ask(OTHER, &q), 0);
    assert_int_equal(t.posts, 0);
    assert_int_equal(t.c->state.promised, EPOCH);
    node_rig_turn();
    assert_int_equal(t.posts, 1);
    assert_int_equal(told(OTHER)->status, 0);
    assert_int_equal(told(OTHER)->index, 5);
    assert_fenced(EPOCH, ATTEMPT);
    node_rig_later_ms(400000); /* it stands for no election */
    assert_fenced(EPOCH, ATTEMPT);
    assert_int_equal(t.posts, 1);
    assert_int_equal(log_last_index(t.c->log), 5);
}

/* What this node's workers wait for is refused, and so is what they bring later, in time. */
static void what_was_taken_is_refused_when_a_node_promises(void **state)
{
    struct block *b;

    (void)state;
    start();
    node_rig_follow(OTHER);
    node_rig_submit(0);
    node_rig_turn();
    assert_int_equal(t.posts, 1);
    assert_int_equal(t.sent[0].type, PEER_FORWARD);
    assert_null(node_rig_answer());
    assert_int_equal(promises(EPOCH, ATTEMPT), 0);
    b = node_rig_answer();
    assert_ptr_equal(b, t.block[0]);
    assert_int_equal(b->refuse_reason, sluice_v1_Reason_NOT_LEADER);
    assert_null(node_rig_answer());
    node_rig_submit(1);
    node_rig_turn();
    for (unsigned i = 0; i < 2 * CLUSTER_FORWARD_MS / 100 && (b = node_rig_answer()) == NULL; i++)
        node_rig_later_ms(100);
    assert_ptr_equal(b, t.block[1]);
    assert_int_equal(b->refuse_reason, sluice_v1_Reason_NOT_LEADER);
    assert_int_equal(t.posts, 1);
    assert_fenced(EPOCH, ATTEMPT);
}

static void a_promise_outlives_a_restart(void **state)
{
    (void)state;
    start();
    assert_int_equal(promises(EPOCH, ATTEMPT), 0);
    for (unsigned i = 0; i < 3; i++) {
        restart();
        assert_fenced(EPOCH, ATTEMPT);
        node_rig_later_ms(400000);
        assert_fenced(EPOCH, ATTEMPT);
        assert_int_equal(promises(EPOCH, ATTEMPT + 1), -EEXIST);
        assert_int_equal(promises(EPOCH, ATTEMPT), 0);
        assert_int_equal(log_last_index(t.c->log), 5);
    }
    assert_int_equal(promises(EPOCH + 2, ATTEMPT + 1), 0);
    restart();
    assert_fenced(EPOCH + 2, ATTEMPT + 1);
}

static void an_epoch_is_promised_to_one_attempt_only(void **state)
{
    (void)state;
    start();
    assert_int_equal(promises(1, ATTEMPT), -ESTALE); /* it is of that */
    assert_int_equal(t.c->state.promised, 0);
    assert_false(t.c->recovery.fenced);
    assert_int_equal(promises(4, ATTEMPT), 0);
    assert_int_equal(promises(4, ATTEMPT + 1), -EEXIST);
    assert_int_equal(promises(4, ATTEMPT), 0);
    assert_int_equal(promises(3, ATTEMPT), -EEXIST);
    assert_int_equal(promises(3, ATTEMPT + 1), -EEXIST);
    assert_int_equal(promises(1, ATTEMPT), -ESTALE);
    assert_fenced(4, ATTEMPT);
    assert_int_equal(promises(5, ATTEMPT + 2), 0);
    assert_int_equal(promises(4, ATTEMPT), -EEXIST);
    assert_fenced(5, ATTEMPT + 2);
}

/* Two that ask before there was time for an answer: the later epoch has it. */
static void of_two_promises_before_the_answer_only_the_kept_one_is_confirmed(void **state)
{
    struct peer_recover one = request(RECOVER_PROMISE, EPOCH, ATTEMPT),
                        two = request(RECOVER_PROMISE, EPOCH + 1, ATTEMPT + 1);

    (void)state;
    start();
    assert_int_equal(ask(OTHER, &one), 0);
    assert_int_equal(ask(THIRD, &two), 0);
    node_rig_turn();
    for (unsigned i = 0; i < t.posts; i++) {
        struct peer_recover_view v;

        assert_null(peer_recover_get(&v, t.sent[i].body, t.sent[i].bytes));
        assert_true(v.head.status != 0 || v.head.epoch == EPOCH + 1);
    }
    assert_int_equal(told(THIRD)->status, 0);
    assert_fenced(EPOCH + 1, ATTEMPT + 1);
}

/* Returns whether it said yes, with the power gone at that operation of the disk. */
static bool promises_with_a_cut_at(uint64_t at)
{
    struct peer_recover q = request(RECOVER_PROMISE, EPOCH, ATTEMPT);
    int e;

    start();
    t.posts = 0;
    if (at != TEST_DISK_NEVER)
        test_disk_fault_at(t.disk, test_disk_operations(t.disk) + at, TEST_DISK_POWER_CUT, 0, 0);
    e = ask(OTHER, &q);
    for (unsigned i = 0; e >= 0 && i < 64; i++)
        e = node_turn(t.c);
    for (unsigned i = 0; i < t.posts; i++)
        assert_int_equal(told(OTHER)->status, 0);
    if (!test_disk_is_off(t.disk))
        test_disk_power_cut(t.disk);
    node_free(t.c);
    t.c = NULL;
    test_disk_power_on(t.disk, at);
    node_rig_start(false);
    return t.posts > 0;
}

static void a_promise_is_durable_before_it_is_answered(void **state)
{
    unsigned kept = 0;
    uint64_t at = 0;

    assert_true(promises_with_a_cut_at(TEST_DISK_NEVER));
    assert_fenced(EPOCH, ATTEMPT);
    do {
        assert_int_equal(node_rig_teardown(state), 0);
        assert_int_equal(node_rig_setup(state), 0);
        if (promises_with_a_cut_at(at))
            break;
        kept += t.c->state.promised == EPOCH;
        if (t.c->state.promised == EPOCH)
            assert_fenced(EPOCH, ATTEMPT); /* it had time to write that, and not to say so */
        else
            assert_int_equal(t.c->state.promised, 0);
        assert_int_equal(log_last_index(t.c->log), 5);
    } while (++at < 50);
    assert_fenced(EPOCH, ATTEMPT);
    assert_in_range(at, 2, 49); /* two slots */
    assert_true(kept > 0);
}

static void one_whose_disk_fails_promises_nothing(void **state)
{
    struct peer_recover q = request(RECOVER_PROMISE, EPOCH, ATTEMPT);

    (void)state;
    start();
    test_disk_fail_file(t.disk, STATE_NAME, -EIO);
    assert_true(ask(OTHER, &q) < 0);
    assert_non_null(strstr(t.c->error, "state"));
    assert_int_equal(t.posts, 0);
    test_disk_fail_file(t.disk, NULL, 0);
}

/* --- what is heard ------------------------------------------------------------------------------
 */

static const enum peer_type engines[] = {
    PEER_REQUEST_VOTE,     PEER_REQUEST_VOTE_RESULT, PEER_APPEND_ENTRIES,
    PEER_INSTALL_SNAPSHOT, PEER_TIMEOUT_NOW,         PEER_APPEND_ENTRIES_RESULT,
    PEER_FORWARD,          PEER_FORWARDED,           PEER_REGION,
};
static const enum peer_type always[] = { PEER_FETCH, PEER_FETCHED, PEER_RECOVER };

#define N(array) (sizeof(array) / sizeof *(array))

static void messages_of_other_epochs_are_not_heard(void **state)
{
    (void)state;
    start();
    for (uint64_t epoch = 0; epoch < 6; epoch++) {
        for (unsigned i = 0; i < N(engines); i++)
            assert_int_equal(recovery_hears(t.c, OTHER, engines[i], epoch), epoch == 1);
        for (unsigned i = 0; i < N(always); i++)
            assert_int_equal(recovery_hears(t.c, OTHER, always[i], epoch),
                             always[i] != PEER_FETCHED || epoch == 1); /* it would be applied */
    }
}

static void a_fenced_node_hears_what_brings_it_on_and_nothing_else(void **state)
{
    (void)state;
    start();
    assert_int_equal(promises(EPOCH, ATTEMPT), 0);
    for (unsigned round = 0; round < 2; round++) {
        for (uint64_t epoch = 0; epoch < 6; epoch++) {
            for (unsigned i = 0; i < N(engines); i++)
                assert_false(recovery_hears(t.c, OTHER, engines[i], epoch));
            for (unsigned i = 0; i < N(always); i++)
                assert_true(recovery_hears(t.c, OTHER, always[i], epoch));
        }
        restart();
    }
}

/* Every 100 ms, until it is of that epoch. */
static void who_is_of_a_later_epoch_is_asked_about_it(void **state)
{
    struct peer_recover_view v;

    (void)state;
    start();
    (void)recovery_hears(t.c, OTHER, PEER_PING, 1);
    (void)recovery_hears(t.c, 0, PEER_PING, 7);
    node_rig_later_ms(1000);
    assert_int_equal(t.posts, 0);
    (void)recovery_hears(t.c, THIRD, PEER_APPEND_ENTRIES, 7);
    for (unsigned i = 1; i < 5; i++) {
        node_rig_turn();
        assert_int_equal(t.posts, i);
        assert_int_equal(t.sent[i - 1].to, THIRD);
        assert_int_equal(t.sent[i - 1].type, PEER_RECOVER);
        assert_null(peer_recover_get(&v, t.sent[i - 1].body, t.sent[i - 1].bytes));
        assert_int_equal(v.head.step, RECOVER_LOOK);
        assert_int_equal(v.head.answer, 0);
        assert_int_equal(v.head.epoch, 0);
        assert_in_range(node_deadline_ns(t.c, t.now_ns), t.now_ns, t.now_ns + 100 * NS_PER_MS);
        node_rig_later_ms(99);
        assert_int_equal(t.posts, i);
        t.now_ns += NS_PER_MS;
    }
}

/* --- copies -------------------------------------------------------------------------------------
 */

static void assert_untouched(uint64_t last)
{
    assert_int_equal(log_last_index(t.c->log), last);
    assert_int_equal(t.c->recovery.copy, COPY_NONE);
    assert_false(t.c->recovery.asked);
}

static void copy_and_finish_of_another_attempt_are_refused(void **state)
{
    static const enum recover_step step[] = { RECOVER_COPY, RECOVER_FINISH };

    (void)state;
    start();
    for (unsigned i = 0; i < N(step); i++) {
        struct peer_recover q = at_end(step[i], EPOCH, ATTEMPT);

        assert_int_equal(asks(OTHER, q), -EEXIST); /* nothing is promised */
        assert_false(t.c->recovery.fenced);
    }
    assert_int_equal(promises(EPOCH, ATTEMPT), 0);
    for (unsigned i = 0; i < N(step); i++) {
        assert_int_equal(asks(OTHER, at_end(step[i], EPOCH, ATTEMPT + 1)), -EEXIST);
        assert_int_equal(asks(OTHER, at_end(step[i], EPOCH + 1, ATTEMPT)), -EEXIST);
        assert_int_equal(asks(OTHER, at_end(step[i], EPOCH + 1, ATTEMPT + 1)), -EEXIST);
        assert_untouched(5);
    }
    assert_int_equal(promises(EPOCH + 2, ATTEMPT + 1), 0);
    for (unsigned i = 0; i < N(step); i++)
        assert_int_equal(asks(OTHER, at_end(step[i], EPOCH, ATTEMPT)), -EEXIST);
    assert_untouched(5);
    assert_fenced(EPOCH + 2, ATTEMPT + 1);
}

static void a_copy_of_what_is_there_is_answered_at_once(void **state)
{
    struct peer_recover q;

    (void)state;
    start();
    assert_int_equal(promises(EPOCH, ATTEMPT), 0);
    assert_int_equal(asks(OTHER, at_end(RECOVER_COPY, EPOCH, ATTEMPT)), 0);
    q = at_end(RECOVER_COPY, EPOCH, ATTEMPT);
    q.source = SELF; /* it is the one that has it */
    assert_int_equal(asks(OTHER, q), 0);
    assert_memory_equal(told(OTHER)->digest, q.digest, SHA256_BYTES);
    q.digest[3] ^= 1; /* and has it no more, or never had */
    assert_int_equal(asks(OTHER, q), -ESTALE);
    assert_int_equal(log_last_index(t.c->log), 5);
    assert_fenced(EPOCH, ATTEMPT);
}

/* Whom it asks, and for what: the entry behind the last that both may have says where they part. */
static void another_log_is_asked_for_at_its_owner(void **state)
{
    struct peer_recover q;
    struct peer_fetch m;

    (void)state;
    start();
    assert_int_equal(promises(EPOCH, ATTEMPT), 0);
    q = at_end(RECOVER_COPY, EPOCH, ATTEMPT);
    q.index = 9;
    q.source = THIRD;
    t.posts = 0;
    assert_int_equal(ask(OTHER, &q), 0);
    node_rig_turn();
    assert_int_equal(t.posts, 1);
    assert_int_equal(t.sent[0].to, THIRD);
    assert_int_equal(t.sent[0].type, PEER_FETCH);
    assert_null(peer_fetch_get(&m, t.sent[0].body, t.sent[0].bytes));
    assert_int_equal(m.from, 6);
    assert_false(m.more);
    node_rig_later_ms(500); /* it is not answered, and not asked again and again */
    assert_int_equal(t.posts, 1);
    assert_int_equal(ask(OTHER, &q), 0);
    node_rig_turn();
    assert_int_equal(t.posts, 1);
    node_rig_later_ms(600);
    assert_int_equal(t.posts, 2);
    assert_int_equal(t.sent[1].type, PEER_FETCH);
    assert_int_equal(log_last_index(t.c->log), 5);
}

/* --- the new epoch ------------------------------------------------------------------------------
 */

static void assert_begun(uint64_t first, uint64_t time_ns)
{
    struct peer_entry e;
    uint8_t bytes[CLUSTER_CONFIGURATION_BYTES_MAX];
    int n = members_encode(t.bootstrap.member, t.bootstrap.members, bytes, sizeof bytes);

    assert_false(t.c->recovery.fenced);
    assert_false(recovery_is_promised(t.c));
    assert_true(t.c->raft_open);
    assert_int_equal(t.c->state.term, TERM(EPOCH));
    assert_int_equal(t.c->state.voted_for, 0);
    assert_int_equal(log_persisted_index(t.c->log), first + 1);
    assert_int_equal(log_last_index(t.c->log), first + 1);
    assert_int_equal(node_entry(t.c, first, &e), 0);
    assert_int_equal(e.record->type, LOG_AUDIT);
    assert_int_equal(e.record->term, TERM(EPOCH));
    assert_int_equal(e.record->time_ns, time_ns);
    assert_int_equal(e.record->payload_bytes, sizeof audit);
    assert_memory_equal(e.payload, audit, sizeof audit);
    assert_int_equal(node_entry(t.c, first + 1, &e), 0);
    assert_int_equal(e.record->type, LOG_CHANGE);
    assert_int_equal(e.record->term, TERM(EPOCH));
    assert_true(n > 0 && e.record->payload_bytes >= (uint32_t)n);
    assert_memory_equal(e.payload, bytes, n);
}

static void a_finish_begins_the_epoch_and_is_answered_again(void **state)
{
    struct peer_recover q;

    (void)state;
    start();
    assert_int_equal(promises(EPOCH, ATTEMPT), 0);
    q = at_end(RECOVER_FINISH, EPOCH, ATTEMPT);
    assert_int_equal(asks(OTHER, q), 0);
    assert_int_equal(told(OTHER)->started, EPOCH);
    assert_begun(6, q.time_ns);
    assert_int_equal(asks(OTHER, q), 0);
    restart();
    assert_begun(6, q.time_ns);
    assert_int_equal(asks(OTHER, q), 0);
    assert_int_equal(promises(EPOCH, ATTEMPT), -ESTALE);
    assert_int_equal(promises(EPOCH, ATTEMPT + 1), -ESTALE);
    assert_int_equal(asks(OTHER, at_end(RECOVER_COPY, EPOCH, ATTEMPT)), -EEXIST);
    assert_begun(6, q.time_ns);
    assert_int_equal(promises(EPOCH + 1, ATTEMPT), 0);
    assert_true(t.c->recovery.fenced);
}

static void a_finish_for_another_log_is_refused(void **state)
{
    (void)state;
    start();
    assert_int_equal(promises(EPOCH, ATTEMPT), 0);
    for (unsigned i = 0; i < 5; i++) {
        struct peer_recover q = at_end(RECOVER_FINISH, EPOCH, ATTEMPT);

        if (i == 0)
            q.digest[SHA256_BYTES - 1] ^= 1;
        else if (i == 1)
            q.index++;
        else if (i == 2)
            q.index--;
        else if (i == 3)
            q.index = 1;
        else
            q.time_ns = log_last_time_ns(t.c->log) - 1;
        assert_int_equal(asks(OTHER, q), -EEXIST);
        assert_untouched(5);
        assert_fenced(EPOCH, ATTEMPT);
    }
}

static void no_copy_goes_over_the_entries_of_the_epoch(void **state)
{
    struct peer_recover q, first;
    uint8_t digest[SHA256_BYTES], whole[SHA256_BYTES];

    (void)state;
    start();
    assert_int_equal(promises(EPOCH, ATTEMPT), 0);
    q = at_end(RECOVER_FINISH, EPOCH, ATTEMPT);
    first = at_end(RECOVER_COPY, EPOCH, ATTEMPT);
    node_free(t.c); /* one of its two entries, and the power goes */
    t.c = NULL;
    append(TERM(EPOCH), LOG_AUDIT, sizeof audit, audit, q.time_ns);
    node_rig_start(false);
    assert_fenced(EPOCH, ATTEMPT);
    assert_int_equal(asks(OTHER, first), -EEXIST);
    assert_int_equal(asks(OTHER, at_end(RECOVER_COPY, EPOCH, ATTEMPT)), -EEXIST);
    assert_untouched(6);
    assert_int_equal(asks(OTHER, q), 0);
    assert_begun(6, q.time_ns);
    log_digest(t.c->log, digest);
    assert_int_equal(node_rig_teardown(state), 0); /* as one has it that did both at once */
    assert_int_equal(node_rig_setup(state), 0);
    start();
    assert_int_equal(promises(EPOCH, ATTEMPT), 0);
    assert_int_equal(asks(OTHER, q), 0);
    log_digest(t.c->log, whole);
    assert_memory_equal(digest, whole, SHA256_BYTES);
}

/* Wherever the power goes: it is fenced, or of the epoch, and asked again it comes there. */
static void a_finish_that_is_cut_short_is_done_again(void **state)
{
    struct peer_recover q;
    bool answered = false;
    uint64_t at = 0;
    int e;

    for (; at < 200 && !answered; at++) {
        if (at > 0) {
            assert_int_equal(node_rig_teardown(state), 0);
            assert_int_equal(node_rig_setup(state), 0);
        }
        start();
        assert_int_equal(promises(EPOCH, ATTEMPT), 0);
        q = at_end(RECOVER_FINISH, EPOCH, ATTEMPT);
        t.posts = 0;
        test_disk_fault_at(t.disk, test_disk_operations(t.disk) + at, TEST_DISK_POWER_CUT, 0, 0);
        e = ask(OTHER, &q);
        for (unsigned i = 0; e >= 0 && i < 64; i++)
            e = node_turn(t.c);
        answered = t.posts > 0;
        if (!test_disk_is_off(t.disk))
            test_disk_power_cut(t.disk);
        node_free(t.c);
        t.c = NULL;
        test_disk_power_on(t.disk, at);
        node_rig_start(false);
        if (answered)
            assert_begun(6, q.time_ns);
        if (t.c->recovery.fenced)
            assert_fenced(EPOCH, ATTEMPT);
        assert_int_equal(asks(OTHER, q), 0);
        assert_begun(6, q.time_ns);
    }
    assert_in_range(at, 4, 199);
}

/* --- what others say ----------------------------------------------------------------------------
 */

static int says(uint16_t from, uint64_t started, uint64_t settled)
{
    struct peer_recover a = {
        .step = RECOVER_LOOK, .answer = 1, .started = started, .promised = started
    };

    a.settled = settled;
    log_digest(t.c->log, a.settled_digest);
    return ask(from, &a);
}

static void only_a_later_epoch_that_has_begun_is_joined(void **state)
{
    (void)state;
    start();
    assert_int_equal(says(OTHER, 7, 0), 0); /* nothing of it is committed */
    assert_int_equal(says(OTHER, 1, 5), 0);
    assert_int_equal(says(OTHER, 0, 5), 0);
    node_rig_turn();
    assert_int_equal(t.c->state.promised, 0);
    assert_false(t.c->recovery.fenced);
    assert_int_equal(promises(8, ATTEMPT), 0);
    assert_int_equal(says(OTHER, 7, 5), 0); /* less than what was promised */
    node_rig_turn();
    assert_fenced(8, ATTEMPT);
}

/* Promised to no attempt, so that none can have it; and durable, too. */
static void a_node_that_rejoins_is_fenced_until_it_has_that_log(void **state)
{
    struct peer_fetch m;

    (void)state;
    start();
    assert_int_equal(says(THIRD, 7, 12), 0);
    assert_int_equal(t.c->state.promised, 7);
    node_rig_turn();
    assert_fenced(7, 0);
    assert_true(t.posts > 0);
    assert_int_equal(t.sent[t.posts - 1].to, THIRD);
    assert_int_equal(t.sent[t.posts - 1].type, PEER_FETCH);
    assert_null(peer_fetch_get(&m, t.sent[t.posts - 1].body, t.sent[t.posts - 1].bytes));
    assert_int_equal(m.from, 6);
    assert_int_equal(promises(7, ATTEMPT), -EEXIST);
    assert_int_equal(asks(OTHER, at_end(RECOVER_COPY, 7, ATTEMPT)), -EEXIST);
    assert_int_equal(asks(OTHER, at_end(RECOVER_FINISH, 7, ATTEMPT)), -EEXIST);
    restart();
    assert_fenced(7, 0);
}

static void who_rejoins_is_of_no_attempt_any_more(void **state)
{
    (void)state;
    start();
    assert_int_equal(promises(7, ATTEMPT), 0);
    assert_int_equal(says(THIRD, 7, 12), 0);
    node_rig_turn();
    assert_int_equal(asks(OTHER, at_end(RECOVER_COPY, 7, ATTEMPT)), -EEXIST);
    assert_int_equal(asks(OTHER, at_end(RECOVER_FINISH, 7, ATTEMPT)), -EEXIST);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, node_rig_setup, node_rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_look_changes_nothing),
        TEST(a_body_that_cannot_be_is_not_heard),
        TEST(a_promise_is_answered_once_the_engine_has_stopped),
        TEST(what_was_taken_is_refused_when_a_node_promises),
        TEST(a_promise_outlives_a_restart),
        TEST(an_epoch_is_promised_to_one_attempt_only),
        TEST(of_two_promises_before_the_answer_only_the_kept_one_is_confirmed),
        TEST(a_promise_is_durable_before_it_is_answered),
        TEST(one_whose_disk_fails_promises_nothing),
        TEST(messages_of_other_epochs_are_not_heard),
        TEST(a_fenced_node_hears_what_brings_it_on_and_nothing_else),
        TEST(who_is_of_a_later_epoch_is_asked_about_it),
        TEST(copy_and_finish_of_another_attempt_are_refused),
        TEST(a_copy_of_what_is_there_is_answered_at_once),
        TEST(another_log_is_asked_for_at_its_owner),
        TEST(a_finish_begins_the_epoch_and_is_answered_again),
        TEST(a_finish_for_another_log_is_refused),
        TEST(no_copy_goes_over_the_entries_of_the_epoch),
        TEST(a_finish_that_is_cut_short_is_done_again),
        TEST(only_a_later_epoch_that_has_begun_is_joined),
        TEST(a_node_that_rejoins_is_fenced_until_it_has_that_log),
        TEST(who_rejoins_is_of_no_attempt_any_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
