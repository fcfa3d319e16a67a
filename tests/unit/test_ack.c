/*
 * test_ack.c - verdicts into receipts and the ledger: duplicates, conflicts, refusals, slots,
 * order.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/lib/ingest_rig.h"

enum { WELCOME = 1, RECEIPT = 2 };

static uint8_t batch[1 << 18], frame[1 << 18];
static struct rig_stream stream;
static struct rig_receipt receipt;

/* What the cluster's thread decided, by the number in the event's id: ids are 1, 2, ... */
struct placed {
    uint64_t index;
    uint32_t slot;
};
static struct placed placed[1 << 16];
/* Sockets order the two threads too, but a race detector does not know that. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The id is the last field but four; it is found by its tag and length: 1a 08. */
static uint32_t number_of(const uint8_t *event, size_t bytes)
{
    for (size_t i = 0; i + 10 <= bytes; i++) {
        uint64_t id;

        if (event[i] != 0x1a || event[i + 1] != 8)
            continue;
        memcpy(&id, event + i + 2, 8);
        return (uint32_t)id;
    }
    return 0;
}

/* Every third is a duplicate, every seventh a conflict. */
static void decide_mixed(void *arg, struct block *b)
{
    for (uint32_t i = 0; i < b->events; i++) {
        uint32_t n = number_of(block_payload(b) + b->desc[i].offset, b->desc[i].bytes);

        if (n == 0) /* without an id */
            continue;
        if (n % 3 == 0)
            fake_cluster_verdict(b, i, VERDICT_DUPLICATE, 1000 + n, (uint16_t)(n % 100));
        else if (n % 7 == 0)
            fake_cluster_verdict(b, i, VERDICT_CONFLICT, 0, 0);
    }
}

/* Where each event really is: read from the block as a reader of the log would. */
static void seen(void *arg, const struct block *b)
{
    struct block_view v;

    if (b->accepted == 0)
        return;
    assert(block_view(&v, block_payload(b), b->write.record.payload_bytes) == 0);
    assert(v.header->events == b->accepted);
    pthread_mutex_lock(&lock);
    for (uint32_t s = 0; s < v.header->events; s++) {
        uint32_t n = number_of(v.payload + v.desc[s].offset, v.desc[s].bytes);

        assert(n < 1 << 16);
        placed[n] = (struct placed){ .index = b->index, .slot = s };
    }
    pthread_mutex_unlock(&lock);
}

static void open_stream(const struct rig *r)
{
    const uint8_t *body;
    uint8_t hello[128];
    size_t bytes;

    stream.fd = rig_tcp(r, false);
    stream.bytes = 0;
    rig_send(stream.fd, hello, rig_hello(hello, 1, NULL));
    assert_int_equal(rig_next(&stream, &body, &bytes), WELCOME);
}

static void request(uint64_t number, uint32_t events, uint64_t id)
{
    size_t bytes = rig_batch(batch, sizeof batch, 1, events, id, 0, false);

    rig_send(stream.fd, frame, rig_batch_frame(frame, sizeof frame, number, batch, bytes));
}

static void next_receipt(uint64_t number)
{
    const uint8_t *body;
    size_t bytes;

    assert_int_equal(rig_next(&stream, &body, &bytes), RECEIPT);
    assert_true(rig_receipt_decode(&receipt, body, bytes));
    assert_int_equal(receipt.r.request, number);
}

static void every_accepted_event_is_where_the_receipt_says(void **state)
{
    enum { REQUESTS = 100, EVENTS = 30 };
    struct rig r;
    uint32_t duplicates = 0, conflicts = 0;

    rig_init(&r);
    rig_open(&r);
    r.cluster.decide = decide_mixed;
    r.cluster.seen = seen;
    rig_start(&r);
    open_stream(&r);
    for (uint64_t q = 0; q < REQUESTS; q++)
        request(q, EVENTS, 1 + q * EVENTS);
    for (uint64_t q = 0; q < REQUESTS; q++) {
        uint32_t slot, e = 0;

        next_receipt(q);
        pthread_mutex_lock(&lock);
        slot = receipt.r.first_slot;
        for (uint32_t i = 0; i < EVENTS; i++) {
            uint64_t n = 1 + q * EVENTS + i;

            if (n % 3 != 0 && n % 7 != 0) {
                assert_int_equal(placed[n].index, receipt.r.index);
                assert_int_equal(placed[n].slot, slot++);
                continue;
            }
            assert_int_equal(receipt.exception[e].position, i);
            if (n % 3 == 0) {
                assert_int_equal(receipt.exception[e].reason, sluice_v1_Reason_DUPLICATE);
                assert_int_equal(receipt.exception[e].first.index, 1000 + n);
                assert_int_equal(receipt.exception[e].first.slot, n % 100);
                duplicates++;
            } else {
                assert_int_equal(receipt.exception[e].reason, sluice_v1_Reason_ID_CONFLICT);
                assert_false(receipt.exception[e].has_first);
                conflicts++;
            }
            e++;
        }
        pthread_mutex_unlock(&lock);
        assert_int_equal(receipt.exceptions, e);
        assert_int_equal(receipt.r.accepted, slot - receipt.r.first_slot);
        assert_int_equal(receipt.r.accepted + receipt.r.duplicates + receipt.r.refused, EVENTS);
        assert_int_equal(receipt.r.epoch, FAKE_EPOCH);
    }
    close(stream.fd);
    RIG_WAIT(&r, l->duplicate[1] == duplicates && l->conflict[1] == conflicts);
    assert_int_equal(r.snap.ledger.committed[1], REQUESTS * EVENTS - duplicates - conflicts);
    rig_close(&r);
}

static uint32_t ids_checked;

/* An assigned id is the event's last field: 1a 10 and 16 bytes. */
static struct {
    uint8_t id[16];
    uint64_t index;
    uint32_t slot;
} assigned[1024];
static uint32_t assigned_n;

static void seen_assigned(void *arg, const struct block *b)
{
    struct block_view v;

    if (b->accepted == 0)
        return;
    assert(block_view(&v, block_payload(b), b->write.record.payload_bytes) == 0);
    pthread_mutex_lock(&lock);
    for (uint32_t s = 0; s < v.header->events; s++) {
        const uint8_t *end = v.payload + v.desc[s].offset + v.desc[s].bytes;

        if (!(v.desc[s].session_flags & DESC_ID_ASSIGNED))
            continue;
        assert(end[-18] == 0x1a && end[-17] == 0x10 && assigned_n < 1024);
        memcpy(assigned[assigned_n].id, end - 16, 16);
        assigned[assigned_n].index = b->index;
        assigned[assigned_n++].slot = s;
    }
    pthread_mutex_unlock(&lock);
}

static void assigned_ids_are_those_in_the_log(void **state)
{
    struct rig r;

    rig_init(&r);
    rig_open(&r);
    r.cluster.decide = decide_mixed; /* closes up blocks that hold other requests, too */
    r.cluster.seen = seen_assigned;
    rig_start(&r);
    open_stream(&r);
    for (uint64_t q = 0; q < 10; q++) {
        request(2 * q, 20, 1);
        request(2 * q + 1, 20, 0);
    }
    for (uint64_t q = 0; q < 10; q++) {
        next_receipt(2 * q);
        assert_int_equal(receipt.assigned, 0);
        next_receipt(2 * q + 1);
        assert_int_equal(receipt.assigned, 20);
        pthread_mutex_lock(&lock);
        for (uint32_t i = 0; i < 20; i++) {
            uint32_t k = 0;

            assert_int_equal(receipt.id[i].position, i);
            while (k < assigned_n && memcmp(assigned[k].id, receipt.id[i].id.bytes, 16) != 0)
                k++;
            assert_true(k < assigned_n);
            assert_int_equal(assigned[k].index, receipt.r.index);
            assert_int_equal(assigned[k].slot, receipt.r.first_slot + i);
            ids_checked++;
        }
        pthread_mutex_unlock(&lock);
    }
    assert_int_equal(ids_checked, 200);
    close(stream.fd);
    rig_close(&r);
}

static void decide_refused(void *arg, struct block *b)
{
    for (uint32_t i = 0; i < b->events; i++)
        fake_cluster_verdict(b, i, VERDICT_REFUSED, 0, 0);
    b->refuse_reason = sluice_v1_Reason_DISK_FULL;
}

static void a_refused_block_says_why_for_each_event(void **state)
{
    struct rig r;

    rig_init(&r);
    rig_open(&r);
    r.cluster.decide = decide_refused;
    rig_start(&r);
    open_stream(&r);
    request(1, 10, 1);
    next_receipt(1);
    assert_int_equal(receipt.r.accepted, 0);
    assert_int_equal(receipt.r.refused, 10);
    assert_int_equal(receipt.r.index, 0);
    assert_int_equal(receipt.r.durability, 0);
    assert_int_equal(receipt.exceptions, 10);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(receipt.exception[i].position, i);
        assert_int_equal(receipt.exception[i].reason, sluice_v1_Reason_DISK_FULL);
    }
    close(stream.fd);
    RIG_WAIT(&r, l->refused[1] == 10 && l->reason[sluice_v1_Reason_DISK_FULL] == 10);
    rig_close(&r);
}

/* Admitted first, and so told of a first place; then another leader had other entries. */
static void decide_duplicate_then_refused(void *arg, struct block *b)
{
    for (uint32_t i = 0; i < b->events; i++)
        fake_cluster_verdict(b, i, VERDICT_DUPLICATE, 77, 7);
    for (uint32_t i = 0; i < b->events; i++)
        b->verdict[i] = VERDICT_REFUSED;
    b->refuse_reason = sluice_v1_Reason_NOT_LEADER;
}

static void a_refused_block_says_nothing_of_a_first_place(void **state)
{
    struct rig r;

    rig_init(&r);
    rig_open(&r);
    r.cluster.decide = decide_duplicate_then_refused;
    rig_start(&r);
    open_stream(&r);
    request(1, 10, 1);
    next_receipt(1);
    assert_int_equal(receipt.r.refused, 10);
    assert_int_equal(receipt.r.duplicates, 0);
    assert_int_equal(receipt.exceptions, 10);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(receipt.exception[i].reason, sluice_v1_Reason_NOT_LEADER);
        assert_false(receipt.exception[i].has_first);
    }
    close(stream.fd);
    rig_close(&r);
}

static void decide_all_duplicates(void *arg, struct block *b)
{
    for (uint32_t i = 0; i < b->events; i++)
        fake_cluster_verdict(b, i, VERDICT_DUPLICATE, UINT64_MAX, UINT16_MAX - 1);
}

static void the_longest_receipt_fits_into_what_was_reserved(void **state)
{
    struct rig r;

    rig_init(&r);
    r.config.ingest.tcp.output_bytes_max = 64 * 1024;
    r.config.ingest.tcp.frame_bytes_max = 128 * 1024;
    rig_open(&r);
    r.cluster.decide = decide_all_duplicates;
    rig_start(&r);
    open_stream(&r);
    for (uint64_t q = 0; q < 5; q++) {
        request(UINT64_MAX - q, 1024, 1);
        next_receipt(UINT64_MAX - q);
        assert_int_equal(receipt.r.duplicates, 1024);
        assert_int_equal(receipt.exceptions, 1024);
        assert_int_equal(receipt.exception[1023].first.index, UINT64_MAX);
    }
    close(stream.fd);
    rig_close(&r);
}

static void a_request_without_valid_events_is_answered_in_its_turn(void **state)
{
    struct rig r;

    rig_init(&r);
    r.config.pipeline.blocks = 64;
    rig_open(&r);
    fake_cluster_hold(&r.cluster, true);
    rig_start(&r);
    open_stream(&r);
    for (uint64_t q = 0; q < 30; q += 2) {
        request(q, 3, 1);
        RIG_WAIT(&r, l->frames == q + 2);
        rig_send(stream.fd, frame,
                 rig_batch_frame(frame, sizeof frame, q + 1, (const uint8_t *)"\x0a\x00", 2));
        RIG_WAIT(&r, l->frames == q + 3);
    }
    assert_int_equal(r.snap.ledger.receipts, 0);
    fake_cluster_hold(&r.cluster, false);
    for (uint64_t q = 0; q < 30; q++) {
        next_receipt(q);
        assert_int_equal(receipt.r.accepted, q % 2 == 0 ? 3 : 0);
        assert_int_equal(receipt.r.refused, q % 2 == 0 ? 0 : 1);
    }
    close(stream.fd);
    rig_close(&r);
}

static void the_requests_of_a_block_are_bounded(void **state)
{
    enum { REQUESTS = 3 * BLOCK_REQUESTS_MAX };
    struct rig r;

    rig_init(&r);
    r.config.ingest.tcp.output_bytes_max = 1 << 20;
    r.config.pipeline.blocks = 64;
    r.config.pipeline.block_age_us_max = 1000000;
    rig_open(&r);
    fake_cluster_hold(&r.cluster, true);
    rig_start(&r);
    open_stream(&r);
    for (uint64_t q = 0; q < REQUESTS; q++)
        request(q, 1, 1 + q);
    RIG_WAIT(&r, l->frames == REQUESTS + 1);
    rig_check_balance(&r.snap.ledger);
    fake_cluster_hold(&r.cluster, false);
    for (uint64_t q = 0; q < REQUESTS; q++) {
        next_receipt(q);
        assert_int_equal(receipt.r.accepted, 1);
    }
    close(stream.fd);
    rig_close(&r);
}

static void a_udp_receipt_carries_what_fits(void **state)
{
    static uint8_t reply[65536];
    struct rig r;
    size_t bytes;
    size_t n;
    int fd;

    rig_init(&r);
    rig_open(&r);
    r.cluster.decide = decide_all_duplicates;
    rig_start(&r);
    fd = rig_udp(&r, false);
    bytes = rig_batch(batch, sizeof batch, 1, 30, 1, 5, true);
    rig_send(fd, batch, bytes);
    n = rig_answer(fd, reply, sizeof reply);
    assert_true(n > 0 && n <= bytes);
    assert_true(rig_receipt_decode(&receipt, reply, n));
    assert_int_equal(receipt.r.duplicates, 30);
    assert_int_equal(receipt.exceptions, 30);
    assert_false(receipt.r.truncated);
    close(fd);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_accepted_event_is_where_the_receipt_says),
        cmocka_unit_test(assigned_ids_are_those_in_the_log),
        cmocka_unit_test(a_refused_block_says_why_for_each_event),
        cmocka_unit_test(a_refused_block_says_nothing_of_a_first_place),
        cmocka_unit_test(the_longest_receipt_fits_into_what_was_reserved),
        cmocka_unit_test(a_request_without_valid_events_is_answered_in_its_turn),
        cmocka_unit_test(the_requests_of_a_block_are_bounded),
        cmocka_unit_test(a_udp_receipt_carries_what_fits),
    };

    if (getenv("TEST_FILTER")) /* cmocka's pattern of the tests to run */
        cmocka_set_test_filter(getenv("TEST_FILTER"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
