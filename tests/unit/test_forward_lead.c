/*
 * test_forward_lead.c - one node by itself that leads and takes blocks of another, which is played
 * by the test, post by post.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "proto/wire.pb.h"
#include "tests/lib/alloc_guard.h"
#include "tests/lib/node_rig.h"

/* --- a node that leads --------------------------------------------------------------------------
 */

static struct {
    struct peer_forward head;
    uint8_t rest[PEER_FORWARD_MAX - sizeof(struct peer_forward)];
} asked __attribute__((aligned(8)));
static size_t asked_bytes;

static void make_forward(uint16_t from, uint64_t process, uint64_t id)
{
    struct iovec iov[PEER_FORWARD_IOVS];
    struct peer_forward head;
    uint8_t *to = (uint8_t *)&asked;

    node_rig_fill(t.foreign, from, id * 1000);
    peer_forward_put(&head, t.foreign, process, id, iov);
    for (unsigned i = 0; i < PEER_FORWARD_IOVS; to += iov[i++].iov_len)
        memcpy(to, iov[i].iov_base, iov[i].iov_len);
    asked_bytes = (size_t)(to - (uint8_t *)&asked);
}

static int ask(uint64_t process, uint64_t id)
{
    make_forward(OTHER, process, id);
    return node_receive(t.c, OTHER, PEER_FORWARD, &asked, asked_bytes);
}

static const struct peer_forwarded *told(unsigned i, const struct peer_exception **ret)
{
    const struct peer_exception *x;
    const struct peer_forwarded *h;

    assert_true(i < t.posts);
    assert_int_equal(t.sent[i].to, OTHER);
    assert_int_equal(t.sent[i].type, PEER_FORWARDED);
    assert_int_equal(peer_forwarded_get(&h, &x, t.sent[i].body, t.sent[i].bytes), 0);
    if (ret != NULL)
        *ret = x;
    return h;
}

static void lead(void)
{
    node_rig_start(true);
    for (unsigned i = 0; i < 1000 && t.c->lead != LEAD_READY; i++)
        node_rig_later_ms(1);
    assert_int_equal(t.c->lead, LEAD_READY);
}

static void a_forwarded_block_is_answered_when_it_is_committed(void **state)
{
    uint64_t last;
    const struct peer_forwarded *h;
    struct peer_entry e;

    (void)state;
    lead();
    last = log_last_index(t.c->log);
    test_disk_stall(t.disk, true);
    assert_int_equal(ask(5, 1), 0);
    node_rig_turn();
    assert_int_equal(log_last_index(t.c->log), last + 1);
    assert_int_equal(t.posts, 0);
    test_disk_stall(t.disk, false);
    node_rig_turn();
    assert_int_equal(t.posts, 1);
    h = told(0, NULL);
    assert_int_equal(h->outcome, PEER_DECIDED);
    assert_int_equal(h->process, 5);
    assert_int_equal(h->id, 1);
    assert_int_equal(h->index, last + 1);
    assert_int_equal(h->term, t.c->state.term);
    assert_int_equal(h->accepted, EVENTS);
    assert_int_equal(h->exceptions, 0);
    assert_int_equal(node_entry(t.c, last + 1, &e), 0);
    assert_int_equal(e.record->payload_bytes, t.foreign->write.record.payload_bytes);
    assert_memory_equal(e.payload, block_payload(t.foreign), e.record->payload_bytes);
    assert_null(node_rig_answer()); /* no worker of this node has to do with it */
}

static void every_event_that_is_left_out_is_named(void **state)
{
    const struct peer_exception *x;
    const struct peer_forwarded *h;
    struct block_view v;
    struct peer_entry e;

    (void)state;
    lead();
    t.duplicates = 3;
    t.conflicts = 1;
    assert_int_equal(ask(5, 1), 0);
    node_rig_turn();
    h = told(0, &x);
    assert_int_equal(h->accepted, EVENTS - 4);
    assert_int_equal(h->exceptions, 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(x[i].position, i);
        assert_int_equal(x[i].first_index, 1);
        assert_int_equal(x[i].first_slot, 100 + i);
        assert_int_equal(x[i].reason,
                         i < 3 ? sluice_v1_Reason_DUPLICATE : sluice_v1_Reason_ID_CONFLICT);
    }
    assert_int_equal(node_entry(t.c, h->index, &e), 0);
    assert_int_equal(block_view(&v, e.payload, e.record->payload_bytes), 0);
    assert_int_equal(v.header->events, EVENTS - 4);
    assert_int_equal(v.header->node, OTHER); /* and not of this node */
    t.duplicates = EVENTS - 1;
    assert_int_equal(ask(5, 2), 0);
    node_rig_turn();
    h = told(1, &x);
    assert_int_equal(h->accepted, 0);
    assert_int_equal(h->index, 0);
    assert_int_equal(h->exceptions, EVENTS);
}

static void a_block_that_comes_twice_is_taken_once(void **state)
{
    (void)state;
    lead();
    test_disk_stall(t.disk, true);
    assert_int_equal(ask(5, 1), 0);
    node_rig_turn();
    assert_int_equal(ask(5, 1), 0);
    node_rig_turn();
    assert_int_equal(t.admitted, 1);
    t.post_error = -EAGAIN; /* and the connection is gone when it could be answered */
    test_disk_stall(t.disk, false);
    node_rig_turn();
    assert_int_equal(t.posts, 0);
    t.post_error = 0;
    assert_int_equal(ask(5, 1), 0);
    assert_int_equal(t.posts, 1);
    node_rig_turn();
    assert_int_equal(t.admitted, 1);
    assert_int_equal(t.posts, 1);
    /* Once the answer is given, it is forgotten: it is a block with events that are known. */
    assert_int_equal(ask(5, 1), 0);
    node_rig_turn();
    assert_int_equal(t.admitted, 2);
}

static void an_answer_waits_for_the_connection_but_not_for_ever(void **state)
{
    (void)state;
    lead();
    t.post_error = -EAGAIN;
    assert_int_equal(ask(5, 1), 0);
    node_rig_turn();
    assert_int_equal(t.c->forward.unsent, 1);
    assert_true(node_deadline_ns(t.c, t.now_ns) <= t.now_ns + 20 * NS_PER_MS);
    t.post_error = 0;
    node_rig_later_ms(20);
    assert_int_equal(t.posts, 1);
    assert_int_equal(told(0, NULL)->outcome, PEER_DECIDED);
    assert_int_equal(t.c->forward.unsent, 0);
    t.post_error = -EAGAIN;
    assert_int_equal(ask(5, 2), 0);
    node_rig_turn();
    node_rig_later_ms(CLUSTER_FORWARD_MS);
    assert_int_equal(t.c->forward.unsent, 0);
    /* Nor when its process is no more. */
    assert_int_equal(ask(5, 3), 0);
    node_rig_turn();
    assert_int_equal(t.c->forward.unsent, 1);
    t.post_error = 0;
    assert_int_equal(ask(6, 3), 0);
    node_rig_later_ms(20);
    assert_int_equal(t.posts, 2);
    assert_int_equal(told(1, NULL)->process, 6);
    assert_int_equal(t.c->forward.unsent, 0);
}

static void there_is_room_for_one_nodes_window(void **state)
{
    (void)state;
    lead();
    t.ready = -EAGAIN;
    for (uint64_t id = 1; id <= CLUSTER_FORWARD_WINDOW; id++)
        assert_int_equal(ask(5, id), 0);
    node_rig_turn();
    assert_int_equal(t.posts, 0);
    assert_int_equal(ask(5, CLUSTER_FORWARD_WINDOW + 1), 0);
    assert_int_equal(t.posts, 1);
    assert_int_equal(told(0, NULL)->outcome, PEER_AGAIN);
    assert_int_equal(told(0, NULL)->id, CLUSTER_FORWARD_WINDOW + 1);
    t.ready = -ENOSPC;
    node_rig_turn();
    assert_int_equal(t.posts, 1 + CLUSTER_FORWARD_WINDOW);
    for (unsigned i = 1; i < t.posts; i++)
        assert_int_equal(told(i, NULL)->outcome, PEER_DISK_FULL);
    t.ready = 0;
    assert_int_equal(ask(5, CLUSTER_FORWARD_WINDOW + 1), 0);
    node_rig_turn();
    assert_int_equal(told(t.posts - 1, NULL)->outcome, PEER_DECIDED);
}

static void who_does_not_lead_takes_nothing(void **state)
{
    (void)state;
    node_rig_start(false);
    assert_int_equal(ask(5, 1), 0);
    node_rig_follow(THIRD);
    assert_int_equal(ask(5, 2), 0);
    node_rig_turn();
    assert_int_equal(t.posts, 2);
    assert_int_equal(told(1, NULL)->outcome, PEER_AGAIN);
    t.post_error = -EAGAIN; /* the other will ask again */
    assert_int_equal(ask(5, 3), 0);
    node_rig_turn();
    assert_int_equal(t.c->forward.unsent, 0);
}

/* It is durable here, and nobody ever says whether the next leader has it. */
/* By node THIRD, at this index. */
static void decided(const struct block *b, uint64_t index)
{
    const struct peer_forwarded body __attribute__((aligned(8))) = {
        .process = t.c->forward.process,
        .id = b->forward.id,
        .index = index,
        .term = t.c->state.term,
        .events = b->events,
        .accepted = b->events,
        .outcome = PEER_DECIDED,
    };

    assert_int_not_equal(body.id, 0);
    assert_int_equal(node_receive(t.c, THIRD, PEER_FORWARDED, &body, sizeof body), 0);
}

static void what_a_former_leader_hears_no_more_of_is_refused(void **state)
{
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES, .server_id = THIRD };
    uint64_t last;
    unsigned taken;

    (void)state;
    lead();
    test_disk_stall(t.disk, true);
    node_rig_submit(0);
    node_rig_turn();
    assert_int_equal(ask(5, 1), 0);
    node_rig_turn();
    last = log_last_index(t.c->log);
    node_rig_follow(THIRD);
    test_disk_stall(t.disk, false);
    node_rig_turn();
    node_rig_later_ms(CLUSTER_FORWARD_MS - 1);
    assert_null(node_rig_answer());
    assert_int_equal(node_deadline_ns(t.c, t.now_ns), t.now_ns + NS_PER_MS);
    /* The next leader has decided another, further on than this log goes. */
    node_rig_submit(1);
    node_rig_turn();
    decided(t.block[1], last + 10);
    node_rig_turn();
    assert_null(node_rig_answer()); /* in the order in which they came */
    node_rig_later_ms(1);
    assert_ptr_equal(node_rig_answer(), t.block[0]);
    assert_ptr_equal(node_rig_answer(), t.block[1]);
    assert_int_equal(t.block[1]->index, last + 10);
    assert_int_equal(t.block[0]->refuse_reason, sluice_v1_Reason_NOT_LEADER);
    assert_int_equal(told(1, NULL)->outcome, PEER_AGAIN);
    assert_true(t.c->applied_index < last);
    assert_int_equal(t.withdrawn, 2); /* their events may come again, and be new */
    assert_int_equal(t.cut_from, t.withdrawn_index);
    /* Their memory is used again; the entries are in the log as they were. */
    memset(t.block[0]->buf, 0xff, BLOCK_BYTES_MAX);
    m.server_address = "";
    m.append_entries = (struct raft_append_entries){ .term = t.c->state.term,
                                                     .prev_log_index = last,
                                                     .prev_log_term = log_last_term(t.c->log),
                                                     .leader_commit = last };
    assert_int_equal(consensus_receive(t.c, &m, NULL, &taken), 0);
    node_rig_turn();
    assert_int_equal(t.c->applied_index, last);
    assert_int_equal(t.applied_ours, 0);
    assert_null(node_rig_answer());
}

/* With the pool and all that the engine needs in place. */
static void nothing_is_allocated_for_a_block(void **state)
{
    (void)state;
    lead();
    for (uint64_t id = 1; id <= 120; id++) {
        if (id == 60) {
            alloc_guard_watch(gettid());
            alloc_guard_arm();
        }
        t.posts = 0;
        assert_int_equal(ask(5, id), 0);
        node_rig_turn();
        assert_int_equal(t.posts, 1);
    }
    if (alloc_guard_disarm() > 0 && alloc_guard_works()) {
        alloc_guard_print();
        fail_msg("the leader allocates");
    }
}

static void what_is_not_believed_is_said_so(void **state)
{
    const struct peer_forwarded nothing = { .process = 0 };

    (void)state;
    lead();
    make_forward(THIRD, 5, 1);
    assert_int_equal(node_receive(t.c, OTHER, PEER_FORWARD, &asked, asked_bytes), -EBADMSG);
    assert_int_equal(node_receive(t.c, OTHER, PEER_FORWARDED, &nothing, sizeof nothing), -EBADMSG);
    node_rig_turn();
    assert_int_equal(t.posts, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, node_rig_setup, node_rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_forwarded_block_is_answered_when_it_is_committed),
        TEST(every_event_that_is_left_out_is_named),
        TEST(a_block_that_comes_twice_is_taken_once),
        TEST(an_answer_waits_for_the_connection_but_not_for_ever),
        TEST(there_is_room_for_one_nodes_window),
        TEST(who_does_not_lead_takes_nothing),
        TEST(what_a_former_leader_hears_no_more_of_is_refused),
        TEST(nothing_is_allocated_for_a_block),
        TEST(what_is_not_believed_is_said_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
