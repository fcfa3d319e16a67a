/*
 * test_hold.c - receipts for both regions, through real sockets: when they wait, for what, and what
 * they say when the other region does not confirm.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/frame.h"
#include "tests/lib/ingest_rig.h"

enum { WELCOME = 1, RECEIPT = 2 };

static uint8_t batch[1 << 16], frame[1 << 17];
static struct rig_stream stream;
static struct rig_receipt receipt;
static struct rig r;

static void begin(const char *unreachable, const char *wait_ms)
{
    const uint8_t *body;
    uint8_t hello[128];
    size_t bytes;

    rig_set(&r, "region.unreachable", unreachable);
    rig_set(&r, "region.wait_ms", wait_ms);
    rig_open(&r);
    rig_start(&r);
    stream.fd = rig_tcp(&r, false);
    stream.bytes = 0;
    rig_send(stream.fd, hello, rig_hello(hello, 1, NULL));
    assert_int_equal(rig_next(&stream, &body, &bytes), WELCOME);
}

static void end(void)
{
    close(stream.fd);
    rig_close(&r);
}

static void send_bytes(uint64_t request, const uint8_t *body, size_t bytes, uint32_t durability)
{
    const struct frame_batch b = { .request = request,
                                   .durability = durability,
                                   .batch_bytes = (uint32_t)bytes };
    ssize_t head = frame_put_batch_head(frame, sizeof frame, &b);

    assert_true(head > 0 && (size_t)head + bytes <= sizeof frame);
    memcpy(frame + head, body, bytes);
    rig_send(stream.fd, frame, (size_t)head + bytes);
}

/* n trades from id on, to be durable so far. */
static void send_batch(uint64_t request, uint32_t n, uint64_t id, uint32_t durability)
{
    send_bytes(request, batch, rig_batch(batch, sizeof batch, 1, n, id, 0, false), durability);
}

static void next_receipt(uint64_t request, uint32_t durability)
{
    const uint8_t *body;
    size_t bytes;

    assert_int_equal(rig_next(&stream, &body, &bytes), RECEIPT);
    assert_true(rig_receipt_decode(&receipt, body, bytes));
    assert_int_equal(receipt.r.request, request);
    assert_int_equal(receipt.r.durability, durability);
}

#define QUORUM   sluice_v1_Durability_QUORUM
#define REGION   sluice_v1_Durability_REGION
#define DEGRADED sluice_v1_Durability_DEGRADED
#define LATE     sluice_v1_Reason_REGION_UNREACHABLE

/* --- waiting -----------------------------------------------------------------------------------
 */

static void a_receipt_waits_for_the_other_region_and_only_that(void **state)
{
    rig_init(&r);
    begin("wait", "60000");
    fake_cluster_region(&r.cluster, 0, true);
    send_batch(1, 10, 1, REGION); /* index 1 */
    RIG_WAIT(&r, l->committed[1] == 10);
    send_batch(2, 10, 11, QUORUM); /* index 2 */
    next_receipt(2, QUORUM);
    send_batch(3, 10, 21, REGION);
    RIG_WAIT(&r, l->committed[1] == 30);
    fake_cluster_region(&r.cluster, 1, true);
    next_receipt(1, REGION);
    assert_int_equal(receipt.r.accepted, 10);
    assert_int_equal(receipt.r.index, 1);
    assert_int_equal(r.snap.ledger.region_receipts, 0); /* of before */
    fake_cluster_region(&r.cluster, 3, true);
    next_receipt(3, REGION);
    /* What both have already is answered at once. */
    fake_cluster_region(&r.cluster, 4, true);
    send_batch(4, 5, 41, REGION);
    next_receipt(4, REGION);
    RIG_WAIT(&r, l->region_receipts == 3 && l->receipts == 4);
    assert_int_equal(r.snap.ledger.region_late + r.snap.ledger.region_degraded, 0);
    end();
}

static void a_type_has_a_floor(void **state)
{
    static uint8_t reply[65536];
    int fd;

    rig_init(&r);
    rig_set(&r, "durability.trade", "region");
    rig_set(&r, "region.wait_ms", "60000");
    rig_open(&r);
    rig_start(&r);
    fake_cluster_region(&r.cluster, 0, true);
    fd = rig_udp(&r, false);
    rig_send(fd, batch, rig_batch(batch, sizeof batch, 1, 20, 1, 7, true));
    RIG_WAIT(&r, l->committed[1] == 20);
    /* One of another type waits for nobody. */
    rig_send(fd, batch, rig_batch(batch, sizeof batch, 2, 20, 100, 8, true));
    assert_true(rig_receipt_decode(&receipt, reply, rig_answer(fd, reply, sizeof reply)));
    assert_int_equal(receipt.r.request, 8);
    assert_int_equal(receipt.r.durability, QUORUM);
    fake_cluster_region(&r.cluster, 1, true);
    assert_true(rig_receipt_decode(&receipt, reply, rig_answer(fd, reply, sizeof reply)));
    assert_int_equal(receipt.r.request, 7);
    assert_int_equal(receipt.r.durability, REGION);
    assert_int_equal(receipt.r.accepted, 20);
    close(fd);
    rig_close(&r);
}

static void all_duplicates(void *arg, struct block *b)
{
    (void)arg;
    for (uint32_t i = 0; i < b->events; i++)
        fake_cluster_verdict(b, i, VERDICT_DUPLICATE, 40, (uint16_t)i);
}

static void a_duplicate_waits_for_the_first_one(void **state)
{
    rig_init(&r);
    begin("wait", "60000");
    r.cluster.decide = all_duplicates;
    fake_cluster_region(&r.cluster, 39, true);
    send_batch(1, 3, 1, REGION);
    RIG_WAIT(&r, l->duplicate[1] == 3);
    send_batch(2, 3, 1, QUORUM);
    next_receipt(2, QUORUM);
    fake_cluster_region(&r.cluster, 40, true);
    next_receipt(1, REGION);
    assert_int_equal(receipt.r.duplicates, 3);
    end();
}

/* --- not confirmed -----------------------------------------------------------------------------
 */

static void what_is_late_is_to_be_sent_again(void **state)
{
    rig_init(&r);
    begin("wait", "10");
    fake_cluster_region(&r.cluster, 0, false); /* whether it can be reached is all the same */
    send_batch(1, 10, 1, REGION);
    next_receipt(1, 0);
    assert_int_equal(receipt.r.accepted, 0);
    assert_int_equal(receipt.r.refused, 10);
    assert_int_equal(receipt.exceptions, 1);
    assert_int_equal(receipt.exception[0].reason, LATE);
    RIG_WAIT(&r, l->region_late == 1);
    assert_int_equal(r.snap.ledger.committed[1], 10); /* which is the truth */
    end();
}

static void where_the_settings_degrade_the_receipt_says_so(void **state)
{
    rig_init(&r);
    begin("degrade", "60000");
    fake_cluster_region(&r.cluster, 0, true);
    send_batch(1, 10, 1, REGION);
    RIG_WAIT(&r, l->committed[1] == 10);
    assert_int_equal(r.snap.ledger.receipts, 0); /* it may come yet */
    fake_cluster_region(&r.cluster, 0, false);
    next_receipt(1, DEGRADED);
    assert_int_equal(receipt.r.accepted, 10);
    assert_int_equal(receipt.r.index, 1);
    send_batch(2, 1000, 11, REGION); /* nobody waits for what is not there */
    next_receipt(2, DEGRADED);
    assert_int_equal(receipt.r.accepted, 1000);
    RIG_WAIT(&r, l->region_degraded == 2);
    assert_int_equal(r.snap.ledger.region_receipts, 0);
    end();
}

static void where_they_fail_it_is_refused_before_it_is_taken(void **state)
{
    rig_init(&r);
    begin("fail", "60000");
    fake_cluster_region(&r.cluster, 0, false);
    send_batch(1, 10, 1, REGION);
    next_receipt(1, 0);
    assert_int_equal(receipt.r.refused, 10);
    assert_int_equal(receipt.exceptions, 10);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(receipt.exception[i].reason, LATE);
    send_batch(2, 10, 1, QUORUM);
    next_receipt(2, QUORUM);
    assert_int_equal(receipt.r.accepted, 10);
    RIG_WAIT(&r, l->refused[1] == 10 && l->reason[LATE] == 10 && l->committed[1] == 10);
    /* One that was taken while it could be reached. */
    fake_cluster_region(&r.cluster, 0, true);
    RIG_WAIT(&r, true);
    send_batch(3, 10, 11, REGION);
    RIG_WAIT(&r, l->committed[1] == 20);
    fake_cluster_region(&r.cluster, 0, false);
    next_receipt(3, 0);
    assert_int_equal(receipt.exception[0].reason, LATE);
    RIG_WAIT(&r, l->region_late == 1);
    end();
}

static void after_so_long_alone_nothing_is_taken(void **state)
{
    rig_init(&r);
    rig_set(&r, "region.stop_after_s", "60");
    begin("wait", "60000");
    fake_cluster_region(&r.cluster, 0, false);
    atomic_store(&r.cluster.link.region_lost_ns, clock_monotonic_ns());
    send_batch(1, 10, 1, QUORUM);
    next_receipt(1, QUORUM);
    assert_int_equal(receipt.r.accepted, 10);
    assert_true(clock_monotonic_ns() > 61 * NS_PER_S); /* this machine is up for longer */
    atomic_store(&r.cluster.link.region_lost_ns, clock_monotonic_ns() - 60 * NS_PER_S);
    RIG_WAIT(&r, true);
    send_batch(2, 10, 11, QUORUM);
    next_receipt(2, 0);
    assert_int_equal(receipt.r.refused, 10);
    assert_int_equal(receipt.exception[9].reason, LATE);
    fake_cluster_region(&r.cluster, 0, true);
    atomic_store(&r.cluster.link.region_lost_ns, 0);
    RIG_WAIT(&r, true);
    send_batch(3, 10, 21, QUORUM);
    next_receipt(3, QUORUM);
    end();
}

/* --- limits and ends ---------------------------------------------------------------------------
 */

/* In their order all the same. */
static void what_finds_no_room_makes_the_oldest_late(void **state)
{
    enum { MANY = 12000 };
    unsigned late = 0;

    rig_init(&r);
    r.config.pipeline.held_bytes_max = 1 << 20;
    r.config.ingest.tcp.output_bytes_max = 4 << 20;
    begin("wait", "60000");
    fake_cluster_region(&r.cluster, 0, true);
    for (unsigned i = 1; i <= MANY; i++)
        send_batch(i, 1, i, REGION);
    RIG_WAIT(&r, l->committed[1] == MANY && l->in_flight[1] == 0);
    assert_in_range(r.snap.ledger.region_late, 1000, MANY - 5000);
    assert_int_equal(r.snap.ledger.region_late, r.snap.ledger.receipts);
    fake_cluster_region(&r.cluster, MANY, true);
    for (unsigned i = 1; i <= MANY; i++) {
        bool is_late = i <= r.snap.ledger.region_late;

        next_receipt(i, is_late ? 0 : REGION);
        assert_int_equal(receipt.r.accepted, !is_late);
        late += is_late;
    }
    RIG_WAIT(&r, l->region_receipts == MANY - late);
    end();
}

/* Between those that wait are some that only wait for their turn. */
static void what_waits_for_nothing_is_never_late(void **state)
{
    static const uint8_t malformed[] = { 0x0a, 0x01, 0xff };
    enum { MANY = 12000 };

    rig_init(&r);
    r.config.pipeline.held_bytes_max = 1 << 20;
    r.config.ingest.tcp.output_bytes_max = 4 << 20;
    begin("degrade", "60000");
    fake_cluster_region(&r.cluster, 0, true);
    for (unsigned i = 1; i <= MANY; i++) {
        if (i % 2 == 0)
            send_bytes(i, malformed, sizeof malformed, REGION);
        else
            send_batch(i, 1, i, REGION);
    }
    RIG_WAIT(&r, l->committed[1] == MANY / 2 && l->in_flight[1] == 0 && l->invalid[0] == MANY / 2);
    assert_in_range(r.snap.ledger.region_degraded, 500, MANY / 2 - 2000);
    fake_cluster_region(&r.cluster, MANY, true);
    for (unsigned i = 1; i <= MANY; i++) {
        bool is_late = (i + 1) / 2 <= r.snap.ledger.region_degraded;

        next_receipt(i, i % 2 == 0 ? 0 : is_late ? DEGRADED : REGION);
        assert_int_equal(receipt.r.accepted, i % 2);
        if (i % 2 == 0)
            assert_int_equal(receipt.exception[0].reason, sluice_v1_Reason_DECODE_MALFORMED);
    }
    RIG_WAIT(&r, l->region_receipts + l->region_degraded == MANY / 2);
    assert_int_equal(r.snap.ledger.region_late, 0);
    end();
}

static void who_has_gone_is_not_answered(void **state)
{
    const struct linger reset = { .l_onoff = 1 };

    rig_init(&r);
    begin("wait", "60000");
    fake_cluster_region(&r.cluster, 0, true);
    send_batch(1, 10, 1, REGION);
    RIG_WAIT(&r, l->committed[1] == 10);
    assert_int_equal(setsockopt(stream.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
    close(stream.fd);
    RIG_WAIT(&r, l->connections_closed == 1);
    fake_cluster_region(&r.cluster, 1, true);
    RIG_WAIT(&r, l->receipts_undeliverable == 1);
    rig_close(&r);
}

static void a_worker_that_ends_waits_a_second_at_most(void **state)
{
    rig_init(&r);
    begin("wait", "60000");
    fake_cluster_region(&r.cluster, 0, true);
    send_batch(1, 10, 1, REGION);
    RIG_WAIT(&r, l->committed[1] == 10);
    worker_drain(r.worker);
    next_receipt(1, 0);
    assert_int_equal(receipt.exception[0].reason, LATE);
    end();
}

/* A failover has begun another epoch: its log has other entries at those places, and both regions
 * have them. Whatever the policy, nothing is said of the old ones. */
static void of_an_epoch_that_has_passed_nothing_is_confirmed(void **state)
{
    static const char *const policy[] = { "wait", "degrade", "fail" };

    for (unsigned i = 0; i < 3; i++) {
        rig_init(&r);
        begin(policy[i], "60000");
        fake_cluster_region(&r.cluster, 0, true);
        send_batch(1, 10, 1, REGION);
        RIG_WAIT(&r, l->committed[1] == 10);
        atomic_store(&r.cluster.link.region_epoch, FAKE_EPOCH + 2);
        atomic_store(&r.cluster.link.region_index, 5);
        wake_up(&r.cluster.link.wake);
        next_receipt(1, 0);
        assert_int_equal(receipt.exception[0].reason, LATE);
        /* Nor if it is decided only then. */
        send_batch(2, 10, 11, REGION);
        next_receipt(2, 0);
        assert_int_equal(receipt.exception[0].reason, LATE);
        RIG_WAIT(&r, l->region_late == 2);
        assert_int_equal(r.snap.ledger.region_receipts + r.snap.ledger.region_degraded, 0);
        end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_receipt_waits_for_the_other_region_and_only_that),
        cmocka_unit_test(a_type_has_a_floor),
        cmocka_unit_test(a_duplicate_waits_for_the_first_one),
        cmocka_unit_test(what_is_late_is_to_be_sent_again),
        cmocka_unit_test(where_the_settings_degrade_the_receipt_says_so),
        cmocka_unit_test(where_they_fail_it_is_refused_before_it_is_taken),
        cmocka_unit_test(after_so_long_alone_nothing_is_taken),
        cmocka_unit_test(what_finds_no_room_makes_the_oldest_late),
        cmocka_unit_test(what_waits_for_nothing_is_never_late),
        cmocka_unit_test(who_has_gone_is_not_answered),
        cmocka_unit_test(a_worker_that_ends_waits_a_second_at_most),
        cmocka_unit_test(of_an_epoch_that_has_passed_nothing_is_confirmed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
