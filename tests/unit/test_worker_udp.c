/*
 * test_worker_udp.c - datagrams through real sockets: every one is counted once, under its reason.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/wire.h"
#include "tests/lib/alloc_guard.h"
#include "tests/lib/ingest_rig.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

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

/* By the cursor that decode uses: not by the walk that is tested. */
static bool fields_add_up(const uint8_t *data, size_t bytes)
{
    struct wire w = wire_init(data, bytes);
    uint32_t field;
    unsigned type;

    while (wire_left(&w) > 0) {
        if (!wire_tag(&w, &field, &type) || !wire_skip(&w, type))
            return false;
    }
    return true;
}

static void every_hostile_datagram_is_counted_under_its_reason(void **state)
{
    static const uint8_t broken_batch[] = { 0x0a, 0x7f, 0x08, 0x01 };
    static const uint8_t bare_type[] = { 0x08, 0x01 };
    static const uint8_t broken_event[] = { 0x08, 0x01, 0x12, 0x40, 'x' };
    static const uint8_t no_type[] = { 0x08, 0x00 };
    struct rig r;
    uint8_t event[512];
    size_t bytes, whole = 0;
    int fd;

    rig_init(&r);
    r.config.ingest.udp.datagram_bytes_max = 1500;
    rig_open(&r);
    rig_start(&r);
    fd = rig_udp(&r, false);
    for (unsigned first = 0; first < 256; first++) { /* 254 that are not ours */
        uint8_t junk[2] = { (uint8_t)first, 0xff };

        if (first != 0x08 && first != 0x0a)
            rig_send(fd, junk, sizeof junk);
    }
    assert_int_equal(send(fd, "", 0, 0), 0);
    memset(big, 0x08, 1501);
    rig_send(fd, big, 1501);
    rig_send(fd, broken_batch, sizeof broken_batch);
    memset(big, 0, 1500); /* empty events: 0a 00 */
    for (unsigned i = 0; i < 1500; i += 2)
        big[i] = 0x0a;
    rig_send(fd, big, 1500); /* 750 of them, malformed each for itself */
    rig_send(fd, bare_type, sizeof bare_type);
    rig_send(fd, broken_event, sizeof broken_event);
    rig_send(fd, no_type, sizeof no_type);
    bytes = rig_event(event, sizeof event, 1, 1, 1);
    for (size_t cut = 2; cut < bytes; cut++) { /* every truncation */
        rig_send(fd, event, cut);
        whole += fields_add_up(event, cut);
    }
    rig_send(fd, event, bytes);
    close(fd);
    RIG_WAIT(&r, l->datagrams_seen == 254 + 7 + bytes - 2 + 1 &&
                     l->datagrams_delivered == 1 + 1 + whole + 1 && l->committed[1] >= 1);
    assert_true(whole > 0 && whole < bytes - 2);
    assert_int_equal(r.snap.ledger.datagram_drop[DROP_EVENT_MALFORMED], 1 + bytes - 2 - whole);
    assert_int_equal(r.snap.ledger.datagram_drop[DROP_TYPE_UNKNOWN], 1);
    assert_int_equal(r.snap.ledger.datagram_drop[DROP_NOT_PROTOBUF], 254);
    assert_int_equal(r.snap.ledger.datagram_drop[DROP_EMPTY], 1);
    assert_int_equal(r.snap.ledger.datagram_drop[DROP_NO_BUFFER], 1);
    assert_int_equal(r.snap.ledger.datagram_drop[DROP_BATCH_MALFORMED], 1);
    rig_check_balance(&r.snap.ledger);
    rig_close(&r);
}

static void a_batch_of_too_many_events_is_dropped_whole(void **state)
{
    struct rig r;
    int fd;

    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    fd = rig_udp(&r, true);
    for (unsigned i = 0; i < 2 * 1025; i += 2) {
        big[i] = 0x0a;
        big[i + 1] = 0;
    }
    rig_send(fd, big, 2 * 1025);
    rig_send(fd, big, 2 * 1024); /* the most there may be: each event is refused for itself */
    close(fd);
    RIG_WAIT(&r, l->datagrams_seen == 2 && l->decoded[0] == 1024);
    assert_int_equal(r.snap.ledger.datagram_drop[DROP_BATCH_TOO_LARGE], 1);
    assert_int_equal(r.snap.ledger.invalid[0], 1024);
    rig_close(&r);
}

static void sources_that_are_not_allowed_are_dropped(void **state)
{
    struct rig r;
    uint8_t event[512];
    size_t bytes = rig_event(event, sizeof event, 1, 1, 1);
    int fd;

    rig_init(&r);
    /* All of IPv6, which is not IPv4, and one IPv4 neighbour. */
    r.config.ingest.udp.allow.n = 2;
    memset(&r.config.ingest.udp.allow.at, 0, sizeof r.config.ingest.udp.allow.at);
    memset(r.config.ingest.udp.allow.at[1].ip.s6_addr + 10, 0xff, 2);
    memcpy(r.config.ingest.udp.allow.at[1].ip.s6_addr + 12, "\x7f\0\0\x02", 4);
    r.config.ingest.udp.allow.at[1].bits = 128;
    rig_open(&r);
    rig_start(&r);
    for (int v6 = 0; v6 < 2; v6++) {
        fd = rig_udp(&r, v6);
        rig_send(fd, event, bytes);
        close(fd);
    }
    RIG_WAIT(&r, l->datagrams_seen == 2 && l->committed[1] == 1);
    assert_int_equal(r.snap.ledger.datagram_drop[DROP_SOURCE_DENIED], 1);
    rig_close(&r);
}

static void an_empty_allow_list_admits_nobody(void **state)
{
    struct rig r;
    uint8_t event[512];
    size_t bytes = rig_event(event, sizeof event, 1, 1, 1);

    rig_init(&r);
    r.config.ingest.udp.allow.n = 0;
    rig_open(&r);
    rig_start(&r);
    for (int v6 = 0; v6 < 2; v6++) {
        int fd = rig_udp(&r, v6);

        rig_send(fd, event, bytes);
        close(fd);
    }
    RIG_WAIT(&r, l->datagram_drop[DROP_SOURCE_DENIED] == 2);
    rig_close(&r);
}

/* Sends n datagrams of `bytes` bytes each, as bursts that the sender's kernel cuts apart. */
static void send_burst(int fd, const uint8_t *data, size_t bytes, unsigned n)
{
    int segment = (int)bytes;

    assert_int_equal(setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment), 0);
    assert_int_equal(send(fd, data, bytes * n, 0), bytes * n);
    segment = 0;
    assert_int_equal(setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment), 0);
}

static void bursts_are_taken_apart_and_each_datagram_judged(void **state)
{
    struct rig r;
    uint8_t event[512];
    size_t bytes;

    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    for (int v6 = 0; v6 < 2; v6++) {
        int fd = rig_udp(&r, v6);

        bytes = rig_event(event, sizeof event, 2, 1, 1);
        for (unsigned i = 0; i < 60; i++)
            memcpy(big + i * bytes, event, bytes);
        big[7 * bytes] = 0xff; /* one is not ours, one is of another class */
        big[9 * bytes + 1] = 0x01;
        send_burst(fd, big, bytes, 60);
        /* The last one of a burst may be shorter. */
        assert_int_equal(send(fd, big, bytes, 0), bytes);
        close(fd);
    }
    RIG_WAIT(&r, l->datagrams_seen == 122 && l->committed[2] == 2 * 59);
    assert_int_equal(r.snap.ledger.datagram_drop[DROP_NOT_PROTOBUF], 2);
    assert_int_equal(r.snap.ledger.datagrams_delivered, 120);
    rig_check_balance(&r.snap.ledger);
    rig_close(&r);
}

static void what_the_kernel_drops_is_counted_exactly(void **state)
{
    struct rig r;
    uint8_t event[512];
    size_t bytes = rig_event(event, sizeof event, 1, 1, 1);
    int fd;

    rig_init(&r);
    r.config.ingest.udp.receive_buffer_bytes = 16384;
    rig_open(&r);
    /* Nobody reads yet: most of these find the socket full. */
    fd = rig_udp(&r, false);
    for (unsigned i = 0; i < 1000; i++)
        rig_send(fd, event, bytes);
    rig_start(&r);
    RIG_WAIT(&r, l->datagrams_seen == 1000 &&
                     l->datagrams_delivered + l->datagram_drop[DROP_KERNEL] == 1000 &&
                     l->committed[1] == l->datagrams_delivered);
    assert_true(r.snap.ledger.datagram_drop[DROP_KERNEL] > 0);
    assert_true(r.snap.ledger.datagrams_delivered > 0);
    /* And the counter goes on from there. */
    for (unsigned i = 0; i < 10; i++)
        rig_send(fd, event, bytes);
    RIG_WAIT(&r, l->datagrams_seen == 1010);
    close(fd);
    rig_close(&r);
}

static void behind_the_lowest_class_is_dropped_first_and_nothing_is_lost_uncounted(void **state)
{
    enum { TRADES = 100, OTHERS = 2000 };
    struct rig r;
    unsigned first = 0;
    uint8_t event[512];
    size_t bytes;
    int fd;

    rig_init(&r);
    r.config.ingest.udp.buffers = 512;
    r.config.pipeline.blocks = 2;
    r.config.pipeline.block_bytes_max = 20 * 1024;
    rig_open(&r);
    fake_cluster_hold(&r.cluster, true);
    rig_start(&r);
    fd = rig_udp(&r, false);
    /* Fill every block, so that the worker is behind. */
    for (; r.snap.blocks_free > 0 || atomic_load(&r.cluster.held) < 2; first++) {
        rig_send(fd, event, rig_event(event, sizeof event, 1, 2, first + 1));
        if (first % 50 == 0)
            (void)rig_snapshot(&r);
        assert_true(first < 5000);
    }
    RIG_WAIT(&r, l->datagrams_seen >= 1);
    bytes = rig_event(event, sizeof event, 2, 1, 1);
    for (unsigned i = 0; i < OTHERS; i++) {
        rig_send(fd, event, bytes);
        if (i % 100 == 0) /* leave it time to read: the kernel's drops are another test's */
            (void)rig_snapshot(&r);
    }
    bytes = rig_event(event, sizeof event, 1, 1, 1);
    for (unsigned i = 0; i < TRADES; i++)
        rig_send(fd, event, bytes);
    RIG_WAIT(&r, l->datagram_drop[DROP_OVERLOAD_1] > 0);
    rig_check_balance(&r.snap.ledger);
    fake_cluster_hold(&r.cluster, false);
    RIG_WAIT(&r, l->committed[1] + l->committed[2] + l->datagram_drop[DROP_OVERLOAD_1] +
                         l->datagram_drop[DROP_KERNEL] ==
                     first + OTHERS + TRADES);
    assert_int_equal(r.snap.ledger.datagram_drop[DROP_OVERLOAD_0], 0);
    assert_true(r.snap.ledger.committed[1] + r.snap.ledger.datagram_drop[DROP_KERNEL] >=
                first + TRADES);
    close(fd);
    rig_close(&r);
}

/* Or every turn writes a record of its own, however slow the disk is. */
static void while_two_blocks_are_away_the_third_grows(void **state)
{
    enum { EVENTS = 12 };
    struct rig r;
    uint8_t event[512];
    int fd;

    rig_init(&r);
    r.config.pipeline.block_age_us_max = 1000000;
    rig_open(&r);
    fake_cluster_hold(&r.cluster, true);
    rig_start(&r);
    fd = rig_udp(&r, false);
    for (unsigned i = 1; i <= EVENTS; i++) {
        rig_send(fd, event, rig_event(event, sizeof event, 1, 1, i));
        RIG_WAIT(&r, l->decoded[1] == i);
        assert_true(r.snap.blocks - r.snap.blocks_free <= 3);
    }
    fake_cluster_hold(&r.cluster, false);
    RIG_WAIT(&r, l->committed[1] == EVENTS);
    close(fd);
    rig_close(&r);
}

static struct rig_receipt receipt;

static void a_receipt_comes_when_wanted_and_is_never_larger_than_its_request(void **state)
{
    struct rig r;
    static uint8_t reply[65536];
    uint8_t empty[2] = { 0x20, 0x01 };
    size_t n;
    size_t bytes;

    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    for (int v6 = 0; v6 < 2; v6++) {
        int fd = rig_udp(&r, v6);

        bytes = rig_batch(big, sizeof big, 1, 50, 1, 77, true);
        rig_send(fd, big, bytes);
        n = rig_answer(fd, reply, sizeof reply);
        assert_true(n > 0 && n <= bytes);
        assert_true(rig_receipt_decode(&receipt, reply, n));
        assert_int_equal(receipt.r.request, 77);
        assert_int_equal(receipt.r.accepted, 50);
        assert_int_equal(receipt.r.durability, sluice_v1_Durability_QUORUM);
        assert_int_equal(receipt.r.epoch, FAKE_EPOCH);
        assert_false(receipt.r.truncated);
        /* Assigned ids come along while they fit. */
        bytes = rig_batch(big, sizeof big, 1, 20, 0, 78, true);
        rig_send(fd, big, bytes);
        n = rig_answer(fd, reply, sizeof reply);
        assert_true(n > 0 && n <= bytes);
        assert_true(rig_receipt_decode(&receipt, reply, n));
        assert_int_equal(receipt.r.accepted, 20);
        assert_int_equal(receipt.assigned, 20);
        /* 100 empty events: 100 exceptions do not fit into 200 bytes. */
        for (unsigned i = 0; i < 100; i++) {
            big[2 * i] = 0x0a;
            big[2 * i + 1] = 0;
        }
        memcpy(big + 200, empty, 2);
        rig_send(fd, big, 202);
        n = rig_answer(fd, reply, sizeof reply);
        assert_true(n > 0 && n <= 202);
        assert_true(rig_receipt_decode(&receipt, reply, n));
        assert_true(receipt.r.truncated);
        assert_int_equal(receipt.r.refused, 100);
        assert_int_equal(receipt.exceptions, 0);
        assert_int_equal(receipt.r.index, 0);
        /* The smallest request that asks for one. */
        memcpy(big, "\x0a\x00\x20\x01", 4);
        rig_send(fd, big, 4);
        n = rig_answer(fd, reply, sizeof reply);
        assert_true(n > 0 && n <= 4);
        assert_true(rig_receipt_decode(&receipt, reply, n));
        assert_int_equal(receipt.r.refused, 1);
        RIG_WAIT(&r, l->udp_receipts == 4u * (unsigned)(v6 + 1));
        close(fd);
    }
    assert_int_equal(r.snap.ledger.udp_receipts_unsent, 0);
    rig_close(&r);
}

/* A client that has connected its socket hears nobody else. */
static void a_receipt_comes_from_the_address_that_was_asked(void **state)
{
    static const struct in6_addr any4 = { .s6_addr = { [10] = 0xff, [11] = 0xff } };
    struct sockaddr_in to = { .sin_family = AF_INET };
    static uint8_t reply[65536];
    struct rig r;
    size_t bytes;
    int fd;

    rig_init(&r);
    r.config.ingest.address.at[0].ip = any4;
    r.config.ingest.address.at[1].ip = in6addr_any;
    rig_open(&r);
    rig_start(&r);
    fd = rig_udp(&r, false);
    to.sin_port = htons(r.udp_port);
    assert_int_equal(inet_pton(AF_INET, "127.0.0.5", &to.sin_addr), 1);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    bytes = rig_batch(big, sizeof big, 1, 50, 1, 79, true);
    rig_send(fd, big, bytes);
    assert_true(rig_receipt_decode(&receipt, reply, rig_answer(fd, reply, sizeof reply)));
    assert_int_equal(receipt.r.request, 79);
    close(fd);
    fd = rig_udp(&r, true);
    rig_send(fd, big, bytes);
    assert_true(rig_receipt_decode(&receipt, reply, rig_answer(fd, reply, sizeof reply)));
    close(fd);
    rig_close(&r);
}

static void what_was_sent_before_a_drain_is_taken(void **state)
{
    struct rig r;
    uint8_t event[512];
    size_t bytes = rig_event(event, sizeof event, 1, 1, 1);
    int fd;

    rig_init(&r);
    r.config.ingest.udp.receive_buffer_bytes = 1 << 20;
    rig_open(&r);
    fd = rig_udp(&r, false);
    for (unsigned i = 0; i < 300; i++)
        rig_send(fd, event, bytes);
    worker_drain(r.worker);
    rig_start(&r);
    RIG_WAIT(&r, worker_drained(r.worker));
    (void)rig_snapshot(&r);
    assert_int_equal(r.snap.ledger.datagrams_delivered, 300);
    assert_int_equal(r.snap.ledger.committed[1], 300);
    rig_send(fd, event, bytes); /* too late */
    RIG_WAIT(&r, l->datagram_drop[DROP_STOPPING] == 1);
    close(fd);
    rig_close(&r);
}

static void new_settings_are_seen_by_the_next_turn(void **state)
{
    struct rig r;
    static struct admission next;
    struct settings changed;
    uint8_t event[512];
    int fd;

    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    changed = r.admission.settings;
    assert_int_equal(settings_apply(&changed, "admit.trade", "drop"), 0);
    admission_init(&next, &changed, &r.config.ingest.udp.allow);
    fd = rig_udp(&r, false);
    rig_send(fd, event, rig_event(event, sizeof event, 1, 1, 1));
    RIG_WAIT(&r, l->committed[1] == 1);
    worker_set_admission(r.worker, &next);
    RIG_WAIT(&r, l && worker_admission_seen(r.worker) == &next);
    rig_send(fd, event, rig_event(event, sizeof event, 1, 1, 2));
    RIG_WAIT(&r, l->datagram_drop[DROP_TYPE_DROPPED] == 1);
    close(fd);
    rig_close(&r);
}

static void damaged_datagrams_are_all_accounted_for(void **state)
{
    enum { DATAGRAMS = 20000 };
    uint64_t seed = 1;
    struct rig r;
    size_t bytes;
    int fd;

    rig_init(&r);
    r.config.ingest.udp.receive_buffer_bytes = 1 << 22;
    rig_open(&r);
    rig_start(&r);
    fd = rig_udp(&r, false);
    for (unsigned i = 0; i < DATAGRAMS; i++) {
        if (rig_random(&seed) % 2)
            bytes = rig_event(big, sizeof big, 1 + i % 2, 1, i);
        else
            bytes = rig_batch(big, sizeof big, 1, 1 + i % 10, i, i, i % 3 == 0);
        for (uint64_t k = rig_random(&seed) % 4; k > 0; k--)
            big[rig_random(&seed) % bytes] = (uint8_t)rig_random(&seed);
        if (rig_random(&seed) % 8 == 0)
            bytes = rig_random(&seed) % bytes;
        /* Receipts that nobody reads fill this socket's buffer and are dropped there. */
        assert_int_equal(send(fd, big, bytes, 0), bytes);
        if (i % 1000 == 0)
            rig_check_balance(rig_snapshot(&r));
    }
    RIG_WAIT(&r, l->datagrams_seen == DATAGRAMS);
    rig_check_balance(&r.snap.ledger);
    close(fd);
    rig_close(&r);
}

static void an_idle_worker_sleeps(void **state)
{
    struct rig r;
    struct timespec cpu, later, second = { .tv_sec = 1 };
    int fd[32];

    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    for (unsigned i = 0; i < 32; i++) /* idle connections are looked at, but rarely */
        fd[i] = rig_tcp(&r, i % 2);
    RIG_WAIT(&r, r.snap.connections == 32);
    /* CPU time, not wall time: nothing that the machine does beside can add to it. */
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    nanosleep(&second, NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &later);
    assert_true((later.tv_sec - cpu.tv_sec) * 1000000000ll + later.tv_nsec - cpu.tv_nsec <
                50000000ll);
    for (unsigned i = 0; i < 32; i++)
        close(fd[i]);
    rig_close(&r);
}

static void an_address_that_is_taken_is_an_error_that_names_it(void **state)
{
    struct rig r;
    struct worker *w = NULL;
    struct worker_config wc;
    struct sockaddr_in a = { .sin_family = AF_INET };
    socklen_t len = sizeof a;
    char error[256];
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    rig_init(&r);
    r.config.ingest.port = ntohs(a.sin_port);
    assert_int_equal(fake_cluster_open(&r.cluster), 0);
    wc = (struct worker_config){
        .config = &r.config,
        .link = &r.cluster.link,
    };
    assert_int_equal(worker_open(&w, &wc, error), -EADDRINUSE);
    assert_null(w);
    assert_non_null(strstr(error, "127.0.0.1"));
    worker_close(NULL);
    close(fd);
    fake_cluster_close(&r.cluster);
    config_fini(&r.config);
}

static void nothing_is_allocated_once_it_runs(void **state)
{
    struct rig r;
    uint8_t event[512];
    int fd;

    if (!alloc_guard_works()) {
        print_message("skipped: the sanitizer brings an allocator of its own\n");
        skip();
    }
    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    (void)rig_snapshot(&r);
    alloc_guard_arm();
    fd = rig_udp(&r, false);
    for (unsigned i = 0; i < 200; i++) {
        rig_send(fd, event, rig_event(event, sizeof event, 1, 1, i + 1));
        rig_send(fd, big, rig_batch(big, sizeof big, 1, 20, 1, i + 1, true));
    }
    RIG_WAIT(&r, l->committed[1] == 200 * 21);
    assert_int_equal(alloc_guard_disarm(), 0);
    close(fd);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_events_over_both_families_are_committed),
        cmocka_unit_test(batches_are_committed),
        cmocka_unit_test(every_hostile_datagram_is_counted_under_its_reason),
        cmocka_unit_test(a_batch_of_too_many_events_is_dropped_whole),
        cmocka_unit_test(sources_that_are_not_allowed_are_dropped),
        cmocka_unit_test(an_empty_allow_list_admits_nobody),
        cmocka_unit_test(bursts_are_taken_apart_and_each_datagram_judged),
        cmocka_unit_test(what_the_kernel_drops_is_counted_exactly),
        cmocka_unit_test(behind_the_lowest_class_is_dropped_first_and_nothing_is_lost_uncounted),
        cmocka_unit_test(while_two_blocks_are_away_the_third_grows),
        cmocka_unit_test(a_receipt_comes_when_wanted_and_is_never_larger_than_its_request),
        cmocka_unit_test(a_receipt_comes_from_the_address_that_was_asked),
        cmocka_unit_test(what_was_sent_before_a_drain_is_taken),
        cmocka_unit_test(new_settings_are_seen_by_the_next_turn),
        cmocka_unit_test(damaged_datagrams_are_all_accounted_for),
        cmocka_unit_test(an_idle_worker_sleeps),
        cmocka_unit_test(an_address_that_is_taken_is_an_error_that_names_it),
        cmocka_unit_test(nothing_is_allocated_once_it_runs),
    };

    if (getenv("TEST_FILTER")) /* cmocka's pattern of the tests to run */
        cmocka_set_test_filter(getenv("TEST_FILTER"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
