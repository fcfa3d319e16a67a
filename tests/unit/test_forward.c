/*
 * test_forward.c - one node by itself that forwards its blocks; the leader is played by the test,
 * post by post.
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

/* --- the other node's side ----------------------------------------------------------------------
 */

static const struct peer_forward *forward_sent(unsigned i)
{
    struct peer_forward_view v;

    assert_true(i < t.posts);
    assert_int_equal(t.sent[i].type, PEER_FORWARD);
    assert_int_equal(peer_forward_get(&v, SELF, t.sent[i].body, t.sent[i].bytes), 0);
    return v.head;
}

static struct {
    struct peer_forwarded head;
    struct peer_exception exception[EVENTS];
} word;

/* Of the i-th post; exceptions are in word.exception already. */
static int say(unsigned i, uint16_t from, enum peer_outcome outcome, uint32_t exceptions)
{
    const struct peer_forward *f = forward_sent(i);

    word.head = (struct peer_forwarded){
        .process = f->process, .id = f->id, .events = f->events, .outcome = outcome
    };
    if (outcome == PEER_DECIDED) {
        word.head.exceptions = exceptions;
        word.head.accepted = f->events - exceptions;
        word.head.index = word.head.accepted > 0 ? 70 + i : 0;
        word.head.term = t.c->state.term;
    }
    return node_receive(t.c, from, PEER_FORWARDED, &word,
                        sizeof word.head + exceptions * sizeof word.exception[0]);
}

/* --- a node that follows ------------------------------------------------------------------------
 */

static void a_block_goes_to_the_leader_as_its_worker_has_sealed_it(void **state)
{
    struct peer_forward_view v;
    struct block *b = t.block[0];

    (void)state;
    node_rig_start(false);
    node_rig_submit(0);
    node_rig_turn();
    assert_int_equal(t.posts, 0); /* nobody is known to lead */
    node_rig_follow(OTHER);
    assert_int_equal(t.posts, 1);
    assert_int_equal(t.sent[0].to, OTHER);
    assert_int_equal(peer_forward_get(&v, SELF, t.sent[0].body, t.sent[0].bytes), 0);
    assert_int_equal(v.block.payload_bytes, b->write.record.payload_bytes);
    assert_memory_equal(v.block.payload, block_payload(b), v.block.payload_bytes);
    assert_memory_equal(v.content, b->content, EVENTS * sizeof b->content[0]);
    assert_memory_equal(v.head->payload_sha256, b->write.record.payload_sha256, SHA256_BYTES);
    assert_null(node_rig_answer());
    assert_int_equal(say(0, OTHER, PEER_DECIDED, 0), 0);
    node_rig_turn();
    assert_ptr_equal(node_rig_answer(), b);
    assert_int_equal(b->index, 70);
    assert_int_equal(b->term, t.c->state.term);
    assert_int_equal(b->accepted, EVENTS);
    assert_int_equal(b->exceptions, 0);
    assert_true(t.c->applied_index < 70);
    assert_int_equal(t.admitted, 0);
    assert_int_equal(t.c->forward.waiting, 0);
}

/* 2 and 3 are of request 0, 4 is nobody's, 9 of request 2. */
static void what_was_left_out_is_an_exception_of_the_request_that_waits_for_it(void **state)
{
    static const uint16_t left_out[] = { 2, 3, 4, 9 };
    struct block *b = t.block[0], *same = t.foreign;

    (void)state;
    node_rig_start(false);
    node_rig_follow(OTHER);
    node_rig_submit(0);
    node_rig_turn();
    for (unsigned i = 0; i < 4; i++)
        word.exception[i] = (struct peer_exception){
            .first_index = 40 + i,
            .position = left_out[i],
            .first_slot = (uint16_t)(5 + i),
            .reason = i == 1 ? sluice_v1_Reason_ID_CONFLICT : sluice_v1_Reason_DUPLICATE,
        };
    b->exception[b->exceptions++] = (struct block_exception){ .request = 1, .reason = 3 };
    assert_int_equal(say(0, OTHER, PEER_DECIDED, 4), 0);
    node_rig_turn();
    assert_ptr_equal(node_rig_answer(), b);
    assert_int_equal(b->exceptions, 4); /* the worker's own, and three of four */
    assert_int_equal(b->exception[1].request, 0);
    assert_int_equal(b->exception[1].position, 2);
    assert_int_equal(b->exception[1].first_index, 40);
    assert_int_equal(b->exception[1].first_slot, 5);
    assert_int_equal(b->exception[1].reason, sluice_v1_Reason_DUPLICATE);
    assert_int_equal(b->exception[2].position, 3);
    assert_int_equal(b->exception[2].reason, sluice_v1_Reason_ID_CONFLICT);
    assert_int_equal(b->exception[3].request, 2);
    assert_int_equal(b->exception[3].position, 1);
    assert_int_equal(b->exception[3].first_slot, 8);
    assert_int_equal(b->verdict[3], VERDICT_CONFLICT);
    assert_int_equal(b->verdict[4], VERDICT_DUPLICATE);
    assert_int_equal(b->accepted, EVENTS - 4);
    /* Its payload is by now what the leader has in the log: assigned ids are read from it. */
    node_rig_fill(same, SELF, 1000);
    for (unsigned i = 0; i < 4; i++)
        same->verdict[left_out[i]] = VERDICT_DUPLICATE;
    block_seal(same, SELF, 1);
    assert_memory_equal(block_payload(b), block_payload(same), same->write.record.payload_bytes);
}

static void nothing_of_a_block_may_be_new(void **state)
{
    struct block *b = t.block[0];

    (void)state;
    node_rig_start(false);
    node_rig_follow(OTHER);
    node_rig_submit(0);
    node_rig_turn();
    for (unsigned i = 0; i < EVENTS; i++)
        word.exception[i] = (struct peer_exception){ .first_index = 9,
                                                     .position = (uint16_t)i,
                                                     .reason = sluice_v1_Reason_DUPLICATE };
    assert_int_equal(say(0, OTHER, PEER_DECIDED, EVENTS), 0);
    node_rig_turn();
    assert_ptr_equal(node_rig_answer(), b);
    assert_int_equal(b->accepted, 0);
    assert_int_equal(b->index, 0);
    assert_int_equal(b->exceptions, EVENTS - 3);
}

static void answers_leave_in_the_order_of_the_blocks(void **state)
{
    (void)state;
    node_rig_start(false);
    node_rig_follow(OTHER);
    for (unsigned i = 0; i < 3; i++)
        node_rig_submit(i);
    node_rig_turn();
    assert_int_equal(say(2, OTHER, PEER_DECIDED, 0), 0);
    assert_int_equal(say(1, OTHER, PEER_DISK_FULL, 0), 0);
    node_rig_turn();
    assert_null(node_rig_answer());
    assert_int_equal(say(0, OTHER, PEER_DECIDED, 0), 0);
    node_rig_turn();
    for (unsigned i = 0; i < 3; i++) {
        assert_ptr_equal(node_rig_answer(), t.block[i]);
        assert_int_equal(t.block[i]->verdict[0], i == 1 ? VERDICT_REFUSED : VERDICT_COMMITTED);
        assert_int_equal(t.block[i]->index, i == 1 ? 0 : 70 + i);
    }
    assert_int_equal(t.block[1]->refuse_reason, sluice_v1_Reason_DISK_FULL);
}

static void what_does_not_fit_into_the_window_waits(void **state)
{
    (void)state;
    node_rig_start(false);
    node_rig_follow(OTHER);
    for (unsigned i = 0; i < BLOCKS; i++)
        node_rig_submit(i);
    node_rig_turn();
    assert_int_equal(t.posts, CLUSTER_FORWARD_WINDOW);
    assert_non_null(t.c->arrived);
    assert_int_equal(say(3, OTHER, PEER_DECIDED, 0), 0);
    node_rig_turn();
    assert_int_equal(t.posts, CLUSTER_FORWARD_WINDOW + 1);
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (i != 3)
            assert_int_equal(say(i, OTHER, PEER_DECIDED, 0), 0);
        node_rig_turn();
    }
    for (unsigned i = 0; i < BLOCKS; i++)
        assert_ptr_equal(node_rig_answer(), t.block[i]);
    assert_int_equal(t.posts, BLOCKS);
}

static void without_an_answer_the_same_block_is_sent_again(void **state)
{
    (void)state;
    node_rig_start(false);
    node_rig_follow(OTHER);
    node_rig_submit(0);
    node_rig_turn();
    node_rig_later_ms(900);
    assert_int_equal(t.posts, 1);
    assert_true(node_deadline_ns(t.c, t.now_ns) <= t.now_ns + 100 * NS_PER_MS);
    node_rig_later_ms(100);
    assert_int_equal(t.posts, 2);
    assert_int_equal(t.sent[1].bytes, t.sent[0].bytes);
    assert_memory_equal(t.sent[1].body, t.sent[0].body, t.sent[0].bytes);
    assert_int_equal(t.c->forward.resent, 1);
    node_rig_follow(THIRD); /* at once, to another leader */
    assert_int_equal(t.posts, 3);
    assert_int_equal(t.sent[2].to, THIRD);
    assert_memory_equal(t.sent[2].body, t.sent[0].body, t.sent[0].bytes);
    /* The first one's word is as good. */
    assert_int_equal(say(0, OTHER, PEER_DECIDED, 0), 0);
    node_rig_turn();
    assert_ptr_equal(node_rig_answer(), t.block[0]);
    assert_int_equal(say(2, THIRD, PEER_DECIDED, 0), 0);
    node_rig_turn();
    assert_null(node_rig_answer());
}

static void one_that_does_not_take_it_is_asked_again_more_and_more_rarely(void **state)
{
    static const unsigned delay_ms[] = { 20, 40, 80, 160, 160 };

    (void)state;
    node_rig_start(false);
    node_rig_follow(OTHER);
    node_rig_submit(0);
    node_rig_turn();
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(say(i, THIRD, PEER_AGAIN, 0), 0); /* of no interest */
        assert_int_equal(say(i, OTHER, PEER_AGAIN, 0), 0);
        node_rig_turn();
        node_rig_later_ms(delay_ms[i] - 1);
        assert_int_equal(t.posts, i + 1);
        node_rig_later_ms(1);
        assert_int_equal(t.posts, i + 2);
    }
    assert_int_equal(t.c->forward.resent, 0);
}

static void without_a_connection_it_is_tried_again(void **state)
{
    (void)state;
    node_rig_start(false);
    node_rig_follow(OTHER);
    t.post_error = -EAGAIN;
    node_rig_submit(0);
    node_rig_turn();
    t.post_error = 0;
    node_rig_turn();
    assert_int_equal(t.posts, 0);
    assert_true(node_deadline_ns(t.c, t.now_ns) <= t.now_ns + 20 * NS_PER_MS);
    node_rig_later_ms(20);
    assert_int_equal(t.posts, 1);
}

static void a_block_that_nobody_decides_about_is_refused_in_the_end(void **state)
{
    (void)state;
    node_rig_start(false);
    node_rig_follow(OTHER);
    for (unsigned i = 0; i < CLUSTER_FORWARD_WINDOW + 1; i++)
        node_rig_submit(i);
    node_rig_turn();
    node_rig_later_ms(CLUSTER_FORWARD_MS - 1);
    assert_null(node_rig_answer());
    assert_int_equal(node_deadline_ns(t.c, t.now_ns), t.now_ns + NS_PER_MS);
    node_rig_later_ms(1);
    for (unsigned i = 0; i < CLUSTER_FORWARD_WINDOW + 1; i++) {
        assert_ptr_equal(node_rig_answer(), t.block[i]);
        assert_int_equal(t.block[i]->verdict[EVENTS - 1], VERDICT_REFUSED);
        assert_int_equal(t.block[i]->refuse_reason, sluice_v1_Reason_NOT_LEADER);
    }
    assert_int_equal(t.c->forward.waiting, 0);
    /* Its memory may be another's by now. */
    node_rig_submit(0);
    node_rig_turn();
    assert_int_equal(say(0, OTHER, PEER_DECIDED, 0), 0);
    node_rig_turn();
    assert_null(node_rig_answer());
}

static void an_answer_is_for_one_block_of_one_process(void **state)
{
    (void)state;
    node_rig_start(false);
    node_rig_follow(OTHER);
    node_rig_submit(0);
    node_rig_submit(1);
    node_rig_turn();
    assert_int_equal(say(0, OTHER, PEER_DECIDED, 0), 0);
    node_rig_turn();
    assert_ptr_equal(node_rig_answer(), t.block[0]);
    assert_int_equal(say(0, OTHER, PEER_DECIDED, 0), 0);
    word.head.id = forward_sent(1)->id;
    word.head.process++;
    assert_int_equal(node_receive(t.c, OTHER, PEER_FORWARDED, &word, sizeof word.head), 0);
    node_rig_turn();
    assert_null(node_rig_answer());
    word.head.process--;
    word.head.events = word.head.accepted = EVENTS - 1;
    assert_int_equal(node_receive(t.c, OTHER, PEER_FORWARDED, &word, sizeof word.head), -EBADMSG);
    node_rig_turn();
    assert_null(node_rig_answer());
}

static void nothing_is_allocated_for_a_block(void **state)
{
    (void)state;
    node_rig_start(false);
    node_rig_follow(OTHER);
    for (unsigned i = 0; i < 200; i++) {
        if (i == 100) {
            alloc_guard_watch(gettid());
            alloc_guard_arm();
        }
        t.posts = 0;
        node_rig_submit(0);
        node_rig_turn();
        assert_int_equal(say(0, OTHER, PEER_DECIDED, 0), 0);
        node_rig_turn();
        assert_ptr_equal(node_rig_answer(), t.block[0]);
    }
    if (alloc_guard_disarm() > 0 && alloc_guard_works()) {
        alloc_guard_print();
        fail_msg("the node that forwards allocates");
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, node_rig_setup, node_rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_block_goes_to_the_leader_as_its_worker_has_sealed_it),
        TEST(what_was_left_out_is_an_exception_of_the_request_that_waits_for_it),
        TEST(nothing_of_a_block_may_be_new),
        TEST(answers_leave_in_the_order_of_the_blocks),
        TEST(what_does_not_fit_into_the_window_waits),
        TEST(without_an_answer_the_same_block_is_sent_again),
        TEST(one_that_does_not_take_it_is_asked_again_more_and_more_rarely),
        TEST(without_a_connection_it_is_tried_again),
        TEST(a_block_that_nobody_decides_about_is_refused_in_the_end),
        TEST(an_answer_is_for_one_block_of_one_process),
        TEST(nothing_is_allocated_for_a_block),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
