/*
 * test_peer_forward.c - the bodies of FORWARD and FORWARDED: what is written is read, and whatever
 * cannot be is refused, field by field.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/peer_forward.h"
#include "proto/wire.pb.h"

#define FROM   2
#define EVENTS 12u

static struct block *block;

static struct {
    struct peer_forward head;
    uint8_t rest[PEER_FORWARD_MAX - sizeof(struct peer_forward)];
} asked __attribute__((aligned(8)));
static size_t asked_bytes;

static struct {
    struct peer_forwarded head;
    struct peer_exception exception[EVENTS];
} word;

static int setup(void **state)
{
    (void)state;
    block = calloc(1, sizeof *block);
    return block == NULL || block_init(block, 0) < 0;
}

static int teardown(void **state)
{
    (void)state;
    block_fini(block);
    free(block);
    return 0;
}

static void make_forward(void)
{
    struct iovec iov[PEER_FORWARD_IOVS];
    struct peer_forward head;
    uint8_t *to = (uint8_t *)&asked;

    block_reset(block);
    for (uint32_t i = 0; i < EVENTS; i++) {
        memset(block_payload(block) + block->bytes, 'a' + (int)i, 9);
        block->desc[i] = (struct block_desc){ .offset = block->bytes, .bytes = 9, .type = 1 };
        block->content[i] = i * 3;
        block->verdict[i] = VERDICT_COMMITTED;
        block->bytes += 9;
        block->events++;
    }
    block_seal(block, FROM, 1);
    peer_forward_put(&head, block, 5, 1, iov);
    for (unsigned i = 0; i < PEER_FORWARD_IOVS; to += iov[i++].iov_len)
        memcpy(to, iov[i].iov_base, iov[i].iov_len);
    asked_bytes = (size_t)(to - (uint8_t *)&asked);
}

static void what_is_written_is_read(void **state)
{
    struct peer_forward_view v;

    (void)state;
    make_forward();
    assert_int_equal(peer_forward_get(&v, FROM, &asked, asked_bytes), 0);
    assert_int_equal(v.head->process, 5);
    assert_int_equal(v.head->id, 1);
    assert_int_equal(v.head->events, EVENTS);
    assert_memory_equal(v.head->payload_sha256, block->write.record.payload_sha256, SHA256_BYTES);
    assert_int_equal(v.block.payload_bytes, block->write.record.payload_bytes);
    assert_memory_equal(v.block.payload, block_payload(block), v.block.payload_bytes);
    assert_memory_equal(v.content, block->content, EVENTS * sizeof block->content[0]);
}

static void break_at(size_t at, size_t bytes, uint64_t value)
{
    struct peer_forward_view v;

    make_forward();
    memcpy((uint8_t *)&asked + at, &value, bytes);
    if (at >= sizeof asked.head)
        asked.head.payload_crc = crc32c(0, asked.rest, asked.head.payload_bytes);
    if (peer_forward_get(&v, FROM, &asked, asked_bytes) != -EBADMSG)
        fail_msg("%zu bytes at %zu may be %llu", bytes, at, (unsigned long long)value);
}

#define HEAD(field)  offsetof(struct peer_forward, field), sizeof asked.head.field
#define BLOCK(field) (64 + offsetof(struct block_header, field)), 2

static void a_forwarded_block_that_cannot_be_is_not_believed(void **state)
{
    struct peer_forward_view v;

    (void)state;
    make_forward();
    assert_int_equal(peer_forward_get(&v, FROM, &asked, asked_bytes), 0);
    assert_int_equal(peer_forward_get(&v, (FROM + 1), &asked, asked_bytes), -EBADMSG);
    for (size_t n = 0; n < asked_bytes; n += 8)
        assert_int_equal(peer_forward_get(&v, FROM, &asked, n), -EBADMSG);
    assert_int_equal(peer_forward_get(&v, FROM, &asked, asked_bytes + 8), -EBADMSG);
    break_at(HEAD(id), 0);
    break_at(HEAD(zero), 1);
    break_at(HEAD(events), 0);
    break_at(HEAD(events), EVENTS - 1);
    break_at(HEAD(events), BLOCK_EVENTS_MAX + 1);
    break_at(HEAD(events), UINT32_MAX);
    break_at(HEAD(payload_bytes), 0);
    break_at(HEAD(payload_bytes), block->write.record.payload_bytes + 8);
    break_at(HEAD(payload_bytes), UINT32_MAX & ~7u);
    break_at(HEAD(payload_crc), block->write.payload_crc ^ 1);
    break_at(BLOCK(node), (FROM + 1));
    break_at(BLOCK(magic), 0);
    break_at(64 + offsetof(struct block_header, region), 1, 3);
    make_forward();
    asked.rest[sizeof(struct block_header)] ^= 1; /* of an event */
    assert_int_equal(peer_forward_get(&v, FROM, &asked, asked_bytes), -EBADMSG);
    /* One event more in the payload, and one hash less behind it. */
    make_forward();
    asked.head.events--;
    assert_int_equal(peer_forward_get(&v, FROM, &asked, asked_bytes - 8), -EBADMSG);
}

static int get_word(size_t bytes)
{
    const struct peer_exception *x;
    const struct peer_forwarded *h;

    return peer_forwarded_get(&h, &x, &word, bytes);
}

static void make_word(void)
{
    memset(&word, 0, sizeof word);
    word.head = (struct peer_forwarded){ .process = 1,
                                         .id = 2,
                                         .index = 3,
                                         .term = 4,
                                         .events = EVENTS,
                                         .accepted = EVENTS - 2,
                                         .outcome = PEER_DECIDED,
                                         .exceptions = 2 };
    word.exception[0] = (struct peer_exception){ 1, 0, 0, sluice_v1_Reason_DUPLICATE, 0 };
    word.exception[1] = (struct peer_exception){ 1, 5, 0, sluice_v1_Reason_ID_CONFLICT, 0 };
}

#define BREAK(field, value)                                                                        \
    do {                                                                                           \
        make_word();                                                                               \
        word.field = (value);                                                                      \
        if (get_word(bytes) != -EBADMSG)                                                           \
            fail_msg("%s may be %llu", #field, (unsigned long long)(value));                       \
    } while (0)

static void an_answer_that_cannot_be_is_not_believed(void **state)
{
    const size_t bytes = sizeof word.head + 2 * sizeof word.exception[0];

    (void)state;
    make_word();
    assert_int_equal(get_word(bytes), 0);
    for (size_t n = 0; n < bytes; n += 8)
        assert_int_equal(get_word(n), -EBADMSG);
    assert_int_equal(get_word(bytes + 8), -EBADMSG);
    BREAK(head.id, 0);
    BREAK(head.index, 0);
    BREAK(head.term, 0);
    BREAK(head.events, 0);
    BREAK(head.events, EVENTS + 1);
    BREAK(head.events, BLOCK_EVENTS_MAX + 1);
    BREAK(head.accepted, EVENTS);
    BREAK(head.outcome, 0);
    BREAK(head.outcome, PEER_AGAIN);
    BREAK(head.outcome, PEER_OUTCOME_END);
    BREAK(head.exceptions, 1);
    BREAK(head.exceptions, UINT32_MAX);
    BREAK(exception[0].position, 5);
    BREAK(exception[1].position, EVENTS);
    BREAK(exception[1].position, 0);
    BREAK(exception[0].first_index, 0);
    BREAK(exception[0].first_slot, BLOCK_EVENTS_MAX);
    BREAK(exception[0].reason, 0);
    BREAK(exception[0].reason, sluice_v1_Reason_DISK_FULL);
    BREAK(exception[0].zero, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(a_forwarded_block_that_cannot_be_is_not_believed),
        cmocka_unit_test(an_answer_that_cannot_be_is_not_believed),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
