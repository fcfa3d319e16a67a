/*
 * test_worker_tcp.c - connections through real sockets: frames, receipts, limits, ends.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/lib/ingest_rig.h"

enum { WELCOME = 1, RECEIPT = 2, ERROR_FRAME = 3, PONG = 4 };

static uint8_t batch[1 << 18], frame[1 << 18];
static struct rig_stream stream;
static struct rig_receipt receipt;

static void next_is(int tag, const uint8_t **ret, size_t *ret_bytes)
{
    assert_int_equal(rig_next(&stream, ret, ret_bytes), tag);
}

static void open_stream(const struct rig *r, bool v6)
{
    const uint8_t *body;
    size_t bytes;

    stream.fd = rig_tcp(r, v6);
    stream.bytes = 0;
    rig_send(stream.fd, frame, rig_hello(frame, 1, NULL));
    next_is(WELCOME, &body, &bytes);
}

static void next_receipt(uint64_t request)
{
    const uint8_t *body;
    size_t bytes;

    next_is(RECEIPT, &body, &bytes);
    assert_true(rig_receipt_decode(&receipt, body, bytes));
    assert_int_equal(receipt.r.request, request);
    assert_int_equal(receipt.r.accepted + receipt.r.duplicates + receipt.r.refused,
                     receipt.r.accepted + receipt.exceptions);
}

static size_t request_of(uint8_t *buf, size_t cap, uint64_t request, uint32_t n, uint64_t id)
{
    size_t bytes = rig_batch(batch, sizeof batch, 1, n, id, 0, false);

    return rig_batch_frame(buf, cap, request, batch, bytes);
}

static void a_batch_gets_its_receipt_over_both_families(void **state)
{
    struct rig r;

    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    for (int v6 = 0; v6 < 2; v6++) {
        open_stream(&r, v6);
        rig_send(stream.fd, frame, request_of(frame, sizeof frame, 42, 100, 1));
        next_receipt(42);
        assert_int_equal(receipt.r.accepted, 100);
        assert_int_equal(receipt.r.epoch, FAKE_EPOCH);
        assert_int_equal(receipt.r.term, FAKE_TERM);
        assert_int_equal(receipt.r.durability, sluice_v1_Durability_QUORUM);
        close(stream.fd);
    }
    RIG_WAIT(&r, l->connections_closed == 2);
    assert_int_equal(r.snap.ledger.committed[1], 200);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_gets_its_receipt_over_both_families),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
