/*
 * bench_node.c - a whole daemon over TCP on loopback: events made durable per second, and how long
 * a receipt takes at a steady rate. The sender shares the machine with the daemon.
 *
 * Events are trades of 128 bytes with ids of their own (dedupe, hash chain and checksums at work),
 * sent as tests/lib/lane.h says. Every receipt must say that all of its batch was accepted, or the
 * bench fails.
 *
 *   rate      LANES connections, as many batches in flight as the daemon takes; from the first send
 *             to the last receipt. Then the daemon is killed and started on that log, and the log
 *             is verified and measured.
 *   latency   one connection, a batch every 1/LATENCY_BATCHES_PER_S s whatever the daemon does;
 * from when a batch was due to its receipt.
 *
 * SLUICE_BENCH_NODE_EVENTS, _LANES and _BATCH change the first; SLUICE_BENCH_NODE_ONLY=rate or
 * latency leaves the other one out.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "cluster/log.h"
#include "tests/lib/daemon.h"
#include "tests/lib/lane.h"

#define EVENT_BYTES           128u
#define EVENTS                6000000u
#define LANES                 4u
#define BATCH_EVENTS          200u
#define WINDOW                64u /* batches in flight on a connection at most */
#define LATENCY_BATCH         10u
#define LATENCY_BATCHES_PER_S 2000u
#define LATENCY_S             10u
#define IDLE_S                2u

static struct daemon sluiced;

__attribute__((noreturn)) static void fail(const char *what)
{
    fprintf(stderr, "bench_node: %s\n", what);
    exit(1);
}

static uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static bool is_left_out(const char *part)
{
    const char *only = getenv("SLUICE_BENCH_NODE_ONLY");

    return only != NULL && strcmp(only, part) != 0;
}

/* --- rate ------------------------------------------------------------------------------------- */

static uint64_t own_cpu_ns(void) { return clock_read(CLOCK_PROCESS_CPUTIME_ID); }

/* Returns the events sent. */
static uint64_t measure_rate(void)
{
    uint64_t lanes = env_number("SLUICE_BENCH_NODE_LANES", LANES), start, spent, cpu, own;
    uint64_t batch = env_number("SLUICE_BENCH_NODE_BATCH", BATCH_EVENTS), per_lane, events;
    const struct lane_kind kind = { EVENT_BYTES, (uint32_t)batch, WINDOW, .custom = false };
    struct lane *lane[LANES_MAX];

    if (lanes == 0 || lanes > LANES_MAX || batch == 0 || batch > 480)
        fail("SLUICE_BENCH_NODE_LANES: 1 to 16; SLUICE_BENCH_NODE_BATCH: 1 to 480");
    per_lane = env_number("SLUICE_BENCH_NODE_EVENTS", EVENTS) / batch / lanes;
    events = per_lane * lanes * batch;
    for (uint64_t i = 0; i < lanes; i++) {
        lane[i] = lane_open(&kind, &sluiced, 1, 0);
        lane[i]->wanted = per_lane;
    }
    cpu = daemon_cpu_ns(&sluiced);
    own = own_cpu_ns();
    start = clock_monotonic_ns();
    while (lanes_turn(lane, (unsigned)lanes, 1000)) {
    }
    spent = clock_monotonic_ns() - start;
    cpu = daemon_cpu_ns(&sluiced) - cpu;
    own = own_cpu_ns() - own;
    for (uint64_t i = 0; i < lanes; i++)
        lane_close(lane[i]);
    printf("bench log_events_per_s_durable %.0f events/s\n", (double)events * 1e9 / (double)spent);
    printf("bench node_cpu_ns_per_event %.0f ns\n", (double)cpu / (double)events);
    fprintf(stderr,
            "# %llu events in batches of %llu on %llu connections in %.2f s; processor time an "
            "event: daemon %.0f ns, this sender %.0f ns\n",
            (unsigned long long)events, (unsigned long long)batch, (unsigned long long)lanes,
            (double)spent / 1e9, (double)cpu / (double)events, (double)own / (double)events);
    daemon_print_threads(&sluiced);
    return events;
}

/* --- the log that is left --------------------------------------------------------------------- */

static void on_problem(void *arg, const char *sentence)
{
    (void)arg;
    fprintf(stderr, "bench_node: %s\n", sentence);
}

/* Bytes that the log's records take on disk. */
static uint64_t records_bytes(const char *dir, const struct log_verify_report *report)
{
    void *buf = aligned_alloc(LOG_ALIGN, LOG_RECORD_BYTES_MAX);
    uint64_t sum = 0;
    struct log_reader *reader;
    struct log_record r;
    const void *payload;

    if (buf == NULL || log_reader_open(&reader, dir) < 0)
        fail("the log cannot be read");
    log_reader_bound(reader, report->last_index);
    for (uint64_t i = report->first_index; i <= report->last_index; i++) {
        if (log_reader_get(reader, i, buf, LOG_RECORD_BYTES_MAX, &r, &payload) < 0)
            fail("a record cannot be read");
        sum += (LOG_HEADER_BYTES + r.payload_bytes + LOG_ALIGN - 1) / LOG_ALIGN * LOG_ALIGN;
    }
    log_reader_close(reader);
    free(buf);
    return sum;
}

static void measure_log(uint64_t events)
{
    struct log_verify_report report;
    sluice_v1_StatusResponse status;
    uint64_t start, spent, bytes;
    char dir[320];

    daemon_status(&sluiced, &status);
    printf("bench rss_mb %.1f MB\n", (double)status.rss_bytes / 1e6);
    daemon_kill(&sluiced);
    start = clock_monotonic_ns();
    daemon_start(&sluiced);
    spent = clock_monotonic_ns() - start;
    daemon_status(&sluiced, &status);
    if (status.events != events)
        fail("the log holds another number of events than were receipted");
    daemon_kill(&sluiced);
    snprintf(dir, sizeof dir, "%s/log", sluiced.data);
    if (log_verify(dir, on_problem, NULL, &report) < 0 || report.events != events)
        fail("the log is not what it should be");
    bytes = records_bytes(dir, &report);
    printf("bench start_s_per_gb %.3f s\n", (double)spent / 1e9 / ((double)bytes / 1e9));
    printf("bench log_bytes_per_payload_byte %.4f ratio\n",
           (double)bytes / (double)(events * EVENT_BYTES));
    fprintf(stderr, "# %.2f GB of log in %llu records of %.0f events; started on it in %.3f s\n",
            (double)bytes / 1e9, (unsigned long long)report.records,
            (double)events / (double)report.records, (double)spent / 1e9);
}

/* --- latency ---------------------------------------------------------------------------------- */

static void measure_latency(void)
{
    const uint64_t batches = LATENCY_S * LATENCY_BATCHES_PER_S, warm = LATENCY_BATCHES_PER_S / 2;
    const struct lane_kind kind = { EVENT_BYTES, LATENCY_BATCH, WINDOW, .custom = false };
    struct lane *l = lane_open(&kind, &sluiced, 1, 0);
    uint64_t *ns = malloc((warm + batches) * sizeof *ns);

    assert(ns != NULL);
    lane_pace(l, LATENCY_BATCHES_PER_S, warm + batches, ns);
    lane_close(l);
    printf("bench receipt_latency_rate %u events/s\n", LATENCY_BATCHES_PER_S * LATENCY_BATCH);
    printf("bench receipt_latency_us_p50 %.0f us\n", lane_quantile(ns + warm, batches, 0.5) / 1e3);
    printf("bench receipt_latency_us_p99 %.0f us\n", lane_quantile(ns + warm, batches, 0.99) / 1e3);
    printf("bench receipt_latency_us_p99.9 %.0f us\n",
           lane_quantile(ns + warm, batches, 0.999) / 1e3);
    fprintf(stderr,
            "# latency: %u batches of %u events a second for %u s, from when due; worst %.0f us\n",
            LATENCY_BATCHES_PER_S, LATENCY_BATCH, LATENCY_S, (double)ns[warm + batches - 1] / 1e3);
    free(ns);
}

static void measure_idle(void)
{
    struct timespec t = { .tv_sec = IDLE_S };
    uint64_t cpu = daemon_cpu_ns(&sluiced), start = clock_monotonic_ns();

    nanosleep(&t, NULL);
    printf("bench idle_cpu_percent %.2f %%\n",
           (double)(daemon_cpu_ns(&sluiced) - cpu) * 100 / (double)(clock_monotonic_ns() - start));
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    daemon_close_at_exit(&sluiced);
    if (!is_left_out("rate")) {
        daemon_open(&sluiced);
        measure_log(measure_rate());
        daemon_close(&sluiced);
    }
    if (!is_left_out("latency")) {
        daemon_open(&sluiced);
        measure_latency();
        measure_idle();
        daemon_close(&sluiced);
    }
    return 0;
}
