/*
 * test_worker_udp.c - datagrams through real sockets: every one is counted once, under its reason.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/lib/ingest_rig.h"

static uint8_t big[1 << 17];

static void single_events_over_both_families_are_committed(void **state)
{
    struct rig r;
    uint8_t event[512];

    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    for (int v6 = 0; v6 < 2; v6++) {
        int fd = rig_udp(&r, v6);

        for (uint64_t i = 1; i <= 100; i++)
            rig_send(fd, event, rig_event(event, sizeof event, 1 + i % 2, (uint32_t)v6, i));
        close(fd);
    }
    RIG_WAIT(&r, l->committed[1] + l->committed[2] == 200);
    assert_int_equal(r.snap.ledger.committed[1], 100);
    assert_int_equal(r.snap.ledger.datagrams_seen, 200);
    assert_int_equal(r.snap.ledger.datagrams_delivered, 200);
    rig_close(&r);
}

static void batches_are_committed(void **state)
{
    struct rig r;

    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    for (int v6 = 0; v6 < 2; v6++) {
        int fd = rig_udp(&r, v6);

        for (uint64_t i = 0; i < 20; i++)
            rig_send(fd, big, rig_batch(big, sizeof big, 1, 50, 1 + i * 50, 0, false));
        close(fd);
    }
    RIG_WAIT(&r, l->committed[1] == 2000);
    assert_int_equal(r.snap.ledger.datagrams_delivered, 40);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_events_over_both_families_are_committed),
        cmocka_unit_test(batches_are_committed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
