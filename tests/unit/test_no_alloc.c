/*
 * test_no_alloc.c - a whole node takes hundreds of thousands of events over TCP and UDP, and
 * neither its worker nor its cluster thread allocates.
 *
 * Threads: those two alone are watched. Others may allocate: libuv's pool (the bytes of a
 * checkpoint), the store thread (tables and runs), admin and keeper. At a segment's end the cluster
 * thread may, for the engine's configuration and the list of segments: a bounded number of times
 * for 64 MiB of log, which the last test bounds.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ftw.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/frame.h"
#include "pipeline_internal.h"
#include "tests/lib/alloc_guard.h"
#include "tests/lib/ingest_rig.h"

#define BATCH                   200u
#define WARM                    100u  /* batches before the watch begins, over each transport */
#define BATCHES                 1200u /* over each transport */
#define IN_FLIGHT               16u
#define SEGMENT                 (2ull << 20)
#define RIG_EVENT_BYTES_MIN     60u
#define SEGMENT_ALLOCATIONS_MAX 16u

static struct config config;
static struct pipeline *node;
static struct rig ports; /* for rig_tcp() and rig_udp() only */
static char dir[64];
static uint64_t next_id;
static uint8_t batch[1 << 17], frame[1 << 17];
static struct rig_stream stream;

static uint16_t port_free(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static void node_start(uint64_t segment_bytes)
{
    const char *tmp = getenv("TMPDIR");
    char error[PIPELINE_ERROR_BYTES];

    snprintf(dir, sizeof dir, "%s/no-alloc-XXXXXX", tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(config_init_defaults(&config), 0);
    snprintf(config.data.dir, sizeof config.data.dir, "%s/data", dir);
    config.log.segment_bytes = segment_bytes;
    ports.udp_port = ports.tcp_port = config.ingest.port = port_free();
    if (pipeline_start(&node, &config, error) < 0)
        fail_msg("%s", error);
    next_id = 1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

static void node_stop(void)
{
    pipeline_stop(node);
    config_fini(&config);
    assert_int_equal(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* New ids to the batches; n of them with a receipt for each. */
static void tcp_batches(int fd, unsigned n)
{
    unsigned sent = 0, answered = 0;
    const uint8_t *receipt;
    size_t bytes;

    stream = (struct rig_stream){ .fd = fd };
    while (answered < n) {
        while (sent < n && sent - answered < IN_FLIGHT) {
            bytes = rig_batch(batch, sizeof batch, 1, BATCH, next_id, 0, false);
            next_id += BATCH;
            sent++;
            rig_send(fd, frame, rig_batch_frame(frame, sizeof frame, sent, batch, bytes));
        }
        if (rig_next(&stream, &receipt, &bytes) == SERVER_RECEIPT)
            answered++;
    }
}

/* As many datagrams, each sent when the receipt for the one before it has come. */
static void udp_batches(int fd, unsigned n, unsigned events)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    uint8_t receipt[65536];

    for (unsigned i = 0; i < n; i++) {
        size_t bytes = rig_batch(batch, sizeof batch, 1, events, next_id, i + 1, true);

        next_id += events;
        rig_send(fd, batch, bytes);
        assert_int_equal(poll(&p, 1, RIG_DEADLINE_S * 1000), 1);
        assert_true(recv(fd, receipt, sizeof receipt, 0) > 0);
    }
}

static uint64_t committed(void)
{
    struct cluster_status s;

    cluster_status(node->cluster, &s);
    return s.events;
}

static void skip_without_guard(void)
{
    if (alloc_guard_works())
        return;
    print_message("skipped: the sanitizer brings an allocator of its own\n");
    skip();
}

static void watch(const char *name)
{
    pid_t thread = alloc_guard_thread(name);

    assert_int_not_equal(thread, 0);
    alloc_guard_watch(thread);
}

static void worker_and_cluster_thread_allocate_nothing_under_load(void **state)
{
    uint8_t hello[64];
    uint64_t n;
    int tcp, udp;

    skip_without_guard();
    node_start(96ull << 20); /* more than is sent: no segment ends */
    watch("worker-0");
    watch("sluice-cluster");
    tcp = rig_tcp(&ports, false);
    udp = rig_udp(&ports, false);
    rig_send(tcp, hello, rig_hello(hello, 1, NULL));
    tcp_batches(tcp, WARM);
    udp_batches(udp, WARM, 50);
    alloc_guard_arm();
    tcp_batches(tcp, BATCHES);
    udp_batches(udp, BATCHES, 50);
    close(tcp);
    tcp = rig_tcp(&ports, false); /* connections come and go */
    rig_send(tcp, hello, rig_hello(hello, 1, NULL));
    next_id -= BATCH; /* a duplicate */
    tcp_batches(tcp, 1);
    n = alloc_guard_disarm();
    if (n > 0)
        alloc_guard_print();
    assert_int_equal(n, 0);
    assert_int_equal(committed(), next_id - 1);
    close(tcp);
    close(udp);
    node_stop();
}

static void a_segment_s_end_allocates_a_bounded_number_of_times(void **state)
{
    uint8_t hello[64];
    uint64_t n, segments;
    int tcp;

    skip_without_guard();
    node_start(SEGMENT);
    watch("sluice-cluster");
    tcp = rig_tcp(&ports, false);
    rig_send(tcp, hello, rig_hello(hello, 1, NULL));
    tcp_batches(tcp, 1);
    alloc_guard_arm();
    tcp_batches(tcp, BATCHES);
    n = alloc_guard_disarm();
    close(tcp);
    segments = next_id * RIG_EVENT_BYTES_MIN / SEGMENT;
    assert_true(segments >= 4);
    if (n > segments * SEGMENT_ALLOCATIONS_MAX)
        alloc_guard_print();
    print_message("%ju allocations in at least %ju segments\n", (uintmax_t)n, (uintmax_t)segments);
    assert_true(n <= segments * SEGMENT_ALLOCATIONS_MAX);
    node_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worker_and_cluster_thread_allocate_nothing_under_load),
        cmocka_unit_test(a_segment_s_end_allocates_a_bounded_number_of_times),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
