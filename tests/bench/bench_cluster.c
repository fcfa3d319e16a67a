/*
 * bench_cluster.c - three daemons that are one cluster, on loopback, with their logs on one disk
 * and this sender on the same machine: what it costs, and what becomes of it when a node goes.
 *
 * Events are trades of 128 bytes with ids of their own, sent over TCP to the leader by the lanes of
 * tests/lib/lane.h; a receipt says that a majority has them on disk. After every part but
 * `overhead` all three nodes must hold exactly what was acknowledged, with equal chain digests, in
 * their status and, once they are killed, in their directories as `sluice log verify` reads them;
 * otherwise the bench fails.
 *
 *   rate      LANES connections with WINDOW batches of 200 in flight each
 * (replicated_events_per_s_3), and with batches of 480, near the 64 KiB that a frame may have
 * (replicated_mb_per_s_3: 10^6 bytes of events); from the first send to the last receipt single one
 * event a message, SINGLE_WINDOW messages in flight on each of LANES connections
 *             (replicated_events_per_s_3_single)
 *   latency   one connection, a batch of 10 every 500 us (20,000 events/s) whatever the daemons do;
 *             from when a batch was due to its receipt (replicated_latency_us_*)
 *   overhead  commit_overhead_ns_per_event: processor time of the three daemons an event, less that
 *             of a lone daemon (a cluster of one, no peers) that takes the same load (as in `rate`,
 *             batches of 200) just before: what the two other copies and the agreement cost. All
 *             threads count, the sender's do not.
 *   kill      leader_kill_gap_ms: under load (LANES connections with KILL_WINDOW batches of 10) the
 *             leader is killed (SIGKILL); from then to the first receipt of an event that was first
 *             sent after it. The producers dial the other nodes as their connection breaks, and
 *             send what was not answered again. Then the killed node is started, and the next kill
 *             waits until it has what the leader has. The median, and the worst (stderr).
 *   catchup   catchup_mb_per_s: a follower is killed, CATCHUP_MB (10^6 bytes of events) are
 * written, it is started; these bytes over the time from its start until it has all of the leader's
 * log, durable. Nothing is sent meanwhile. down      one_node_down_p99_ratio: `latency` with a
 * follower killed over the same just before; the median of DOWN_PAIRS such pairs, the node started
 * and caught up between them
 *
 * A name that ends in _tls is of nodes that talk TLS to each other (rate, latency); producers do
 * not in any part.
 *
 * SLUICE_BENCH_CLUSTER_S: seconds of each measure (10); _KILLS (7), _CATCHUP_MB (1000), _LANES (4);
 * _ONLY: the parts, by the names above. Fewer kills than 7 or less than 1000 MB are for trying.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "tests/lib/lane.h"
#include "tests/lib/trio.h"

#define EVENT_BYTES   128u
#define LANES         4u
#define WINDOW        64u
#define BATCH         200u
#define LARGE_BATCH   480u
#define LARGE_EVENT   4096u
#define LARGE_EVENTS  15u
#define SINGLE_WINDOW 2048u
#define PACE_BATCH    10u
#define PACE_PER_S    2000u
#define KILL_WINDOW   16u
#define KILLS         7u
#define KILLS_MAX     100u
#define KILL_SETTLE_S 0.5
#define CATCHUP_MB    1000u
#define DOWN_PAIRS    3u
#define RETURN_NS_MAX (120 * NS_PER_S)

static struct trio trio;

__attribute__((noreturn)) static void fail(const char *what)
{
    fprintf(stderr, "bench_cluster: %s\n", what);
    exit(1);
}

static uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static double seconds(void) { return (double)env_number("SLUICE_BENCH_CLUSTER_S", 10); }

static bool is_wanted(const char *part)
{
    const char *only = getenv("SLUICE_BENCH_CLUSTER_ONLY"), *at;
    const size_t n = strlen(part);

    if (only == NULL)
        return true;
    for (at = only; (at = strstr(at, part)) != NULL; at += n) {
        if ((at == only || at[-1] == ' ') && (at[n] == '\0' || at[n] == ' '))
            return true;
    }
    return false;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *v, unsigned n)
{
    qsort(v, n, sizeof *v, compare);
    return n % 2 == 1 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* --- rate, single ----------------------------------------------------------------------------- */

static unsigned lanes_open(struct lane *lane[], const struct lane_kind *kind,
                           const struct daemon *to, unsigned tos, unsigned at)
{
    uint64_t lanes = env_number("SLUICE_BENCH_CLUSTER_LANES", LANES);

    if (lanes == 0 || lanes > LANES_MAX)
        fail("SLUICE_BENCH_CLUSTER_LANES: 1 to 16");
    for (unsigned i = 0; i < lanes; i++)
        lane[i] = lane_open(kind, to, tos, at);
    return (unsigned)lanes;
}

/* A closed loop at one daemon; returns the events. */
static uint64_t load(const struct lane_kind *kind, const struct daemon *to, double for_s,
                     uint64_t *ret_ns)
{
    struct lane *lane[LANES_MAX];
    unsigned lanes = lanes_open(lane, kind, to, 1, 0);
    uint64_t events = lanes_run(lane, lanes, for_s, ret_ns);

    for (unsigned i = 0; i < lanes; i++)
        lane_close(lane[i]);
    return events;
}

static void print_threads(void)
{
    if (getenv("BENCH_VERBOSE") == NULL)
        return;
    for (unsigned i = 0; i < TRIO_NODES; i++)
        daemon_print_threads(&trio.node[i]);
}

/* Returns the events a second. */
static double measure_rate(const struct lane_kind *kind, bool tls)
{
    uint64_t events, ns, cpu;

    trio_open(&trio, tls);
    if (kind->custom)
        trio_set(&trio, "type.signal", "64");
    cpu = trio_cpu_ns(&trio);
    events = load(kind, &trio.node[trio_leader(&trio)], seconds(), &ns);
    cpu = trio_cpu_ns(&trio) - cpu;
    fprintf(stderr,
            "# %llu events in batches of %u in %.2f s%s; processor time of the three daemons an "
            "event %.0f ns\n",
            (unsigned long long)events, kind->batch, (double)ns / 1e9, tls ? ", TLS" : "",
            (double)cpu / (double)events);
    print_threads();
    trio_check(&trio, events);
    trio_close(&trio);
    return (double)events * 1e9 / (double)ns;
}

static void measure_rates(bool tls)
{
    const struct lane_kind batches = { EVENT_BYTES, BATCH, WINDOW, .custom = false },
                           large = { EVENT_BYTES, LARGE_BATCH, WINDOW, .custom = false },
                           bytes = { LARGE_EVENT, LARGE_EVENTS, WINDOW, .custom = true };
    const char *suffix = tls ? "_tls" : "";
    double rate = measure_rate(&batches, tls);

    printf("bench replicated_events_per_s_3%s %.0f events/s\n", suffix, rate);
    rate = measure_rate(&large, tls);
    printf("bench replicated_mb_per_s_3_128%s %.1f MB/s\n", suffix, rate * EVENT_BYTES / 1e6);
    rate = measure_rate(&bytes, tls);
    printf("bench replicated_mb_per_s_3%s %.1f MB/s\n", suffix, rate * LARGE_EVENT / 1e6);
}

static void measure_single(void)
{
    const struct lane_kind single = { EVENT_BYTES, 1, SINGLE_WINDOW, .custom = false };

    printf("bench replicated_events_per_s_3_single %.0f events/s\n", measure_rate(&single, false));
}

/* --- overhead --------------------------------------------------------------------------------- */

static void measure_overhead(void)
{
    const struct lane_kind kind = { EVENT_BYTES, BATCH, WINDOW, .custom = false };
    static struct daemon lone;
    uint64_t events, ns, cpu;
    double one, three;

    daemon_close_at_exit(&lone);
    daemon_open(&lone);
    cpu = daemon_cpu_ns(&lone);
    events = load(&kind, &lone, seconds(), &ns);
    one = (double)(daemon_cpu_ns(&lone) - cpu) / (double)events;
    daemon_close(&lone);

    trio_open(&trio, false);
    cpu = trio_cpu_ns(&trio);
    events = load(&kind, &trio.node[trio_leader(&trio)], seconds(), &ns);
    three = (double)(trio_cpu_ns(&trio) - cpu) / (double)events;
    trio_close(&trio);
    printf("bench commit_overhead_ns_per_event %.0f ns\n", three - one);
    fprintf(stderr, "# processor time an event: three daemons %.0f ns, a lone one %.0f ns\n", three,
            one);
}

/* --- latency ---------------------------------------------------------------------------------- */

/* The receipts' times in ret_ns, sorted; returns how many. Adds to *events what was sent. */
static uint64_t pace(uint64_t **ret_ns, uint64_t *events)
{
    const uint64_t batches = (uint64_t)(seconds() * PACE_PER_S), warm = PACE_PER_S / 2;
    const struct lane_kind kind = { EVENT_BYTES, PACE_BATCH, WINDOW, .custom = false };
    struct lane *l = lane_open(&kind, &trio.node[trio_leader(&trio)], 1, 0);
    uint64_t *ns = malloc((warm + batches) * sizeof *ns);

    assert(ns != NULL);
    lane_pace(l, PACE_PER_S, warm + batches, ns);
    lane_close(l);
    *events += (warm + batches) * PACE_BATCH;
    memmove(ns, ns + warm, batches * sizeof *ns);
    (void)lane_quantile(ns, batches, 0);
    *ret_ns = ns;
    return batches;
}

static void measure_latency(bool tls)
{
    const char *suffix = tls ? "_tls" : "";
    uint64_t *ns, n, events = 0;

    trio_open(&trio, tls);
    n = pace(&ns, &events);
    printf("bench replicated_latency_us_p50%s %.0f us\n", suffix, lane_quantile(ns, n, 0.5) / 1e3);
    printf("bench replicated_latency_us_p99%s %.0f us\n", suffix, lane_quantile(ns, n, 0.99) / 1e3);
    printf("bench replicated_latency_us_p99.9%s %.0f us\n", suffix,
           lane_quantile(ns, n, 0.999) / 1e3);
    fprintf(stderr, "# latency%s: %u batches of %u events a second, from when due; worst %.0f us\n",
            suffix, PACE_PER_S, PACE_BATCH, (double)ns[n - 1] / 1e3);
    free(ns);
    trio_check(&trio, events);
    trio_close(&trio);
}

static double pace_p99(uint64_t *events)
{
    uint64_t *ns, n = pace(&ns, events);
    double p99 = lane_quantile(ns, n, 0.99);

    free(ns);
    return p99;
}

static void measure_down(void)
{
    double ratio[DOWN_PAIRS];
    uint64_t events = 0;

    trio_open(&trio, false);
    for (unsigned i = 0; i < DOWN_PAIRS; i++) {
        unsigned follower = (trio_leader(&trio) + 1 + i % 2) % TRIO_NODES;
        double healthy = pace_p99(&events), down;

        daemon_kill(&trio.node[follower]);
        down = pace_p99(&events);
        ratio[i] = down / healthy;
        fprintf(stderr, "# p99: %.0f us with three nodes, %.0f us with two\n", healthy / 1e3,
                down / 1e3);
        (void)trio_restart(&trio, follower);
    }
    printf("bench one_node_down_p99_ratio %.2f ratio\n", median(ratio, DOWN_PAIRS));
    trio_check(&trio, events);
    trio_close(&trio);
}

/* --- kill ------------------------------------------------------------------------------------- */

/* Goes on sending until there is a receipt of a frame that had no id yet at the kill. Returns the
 * gap. */
static uint64_t gap_ns(struct lane *lane[], unsigned lanes, uint64_t killed_ns)
{
    uint64_t first_new[LANES_MAX];

    for (unsigned i = 0; i < lanes; i++)
        first_new[i] = lane[i]->renewed;
    for (;;) {
        (void)lanes_turn(lane, lanes, 100);
        for (unsigned i = 0; i < lanes; i++) {
            if (lane[i]->answered > first_new[i])
                return clock_monotonic_ns() - killed_ns;
        }
        if (clock_monotonic_ns() - killed_ns > RETURN_NS_MAX)
            fail("no receipt after the leader was killed");
    }
}

static void run_for(struct lane *lane[], unsigned lanes, double for_s)
{
    uint64_t until = clock_monotonic_ns() + (uint64_t)(for_s * 1e9);

    while (clock_monotonic_ns() < until)
        (void)lanes_turn(lane, lanes, 10);
}

/* Goes on sending until that node has what another one had a moment before. */
static void run_until_back(struct lane *lane[], unsigned lanes, unsigned node)
{
    const unsigned other = (node + 1) % TRIO_NODES;
    const uint64_t until = clock_monotonic_ns() + RETURN_NS_MAX;
    sluice_v1_StatusResponse theirs, its;

    do {
        if (clock_monotonic_ns() > until)
            fail("the killed node does not catch up");
        daemon_status(&trio.node[other], &theirs);
        run_for(lane, lanes, 0.02);
    } while (!daemon_try_status(&trio.node[node], &its) || its.applied_index < theirs.commit_index);
}

static void measure_kill(void)
{
    const struct lane_kind kind = { EVENT_BYTES, PACE_BATCH, KILL_WINDOW, .custom = false };
    uint64_t kills = env_number("SLUICE_BENCH_CLUSTER_KILLS", KILLS), events = 0;
    struct lane *lane[LANES_MAX];
    double ms[KILLS_MAX];
    unsigned lanes;

    if (kills == 0 || kills > KILLS_MAX)
        fail("SLUICE_BENCH_CLUSTER_KILLS: 1 to 100");
    trio_open(&trio, false);
    lanes = lanes_open(lane, &kind, trio.node, TRIO_NODES, trio_leader(&trio));
    for (unsigned i = 0; i < lanes; i++)
        lane[i]->wanted = UINT64_MAX;
    for (uint64_t k = 0; k < kills; k++) {
        unsigned leader;
        uint64_t at;

        run_for(lane, lanes, KILL_SETTLE_S);
        leader = trio_leader(&trio);
        for (unsigned i = 0; i < lanes; i++)
            lane_move(lane[i], leader);
        run_for(lane, lanes, KILL_SETTLE_S);
        at = clock_monotonic_ns();
        daemon_kill(&trio.node[leader]);
        ms[k] = (double)gap_ns(lane, lanes, at) / 1e6;
        fprintf(stderr, "# kill %llu: %.1f ms\n", (unsigned long long)k + 1, ms[k]);
        daemon_launch(&trio.node[leader]);
        run_until_back(lane, lanes, leader);
    }
    for (unsigned i = 0; i < lanes; i++)
        lane[i]->wanted = lane[i]->renewed;
    while (lanes_turn(lane, lanes, 100)) {
    }
    for (unsigned i = 0; i < lanes; i++) {
        events += lane[i]->answered * PACE_BATCH;
        lane_close(lane[i]);
    }
    printf("bench leader_kill_gap_ms_median %.1f ms\n", median(ms, (unsigned)kills));
    fprintf(stderr, "# kills: best %.1f ms, worst %.1f ms\n", ms[0], ms[kills - 1]);
    trio_check(&trio, events);
    trio_close(&trio);
}

/* --- catch-up --------------------------------------------------------------------------------- */

static void measure_catchup(void)
{
    const struct lane_kind kind = { EVENT_BYTES, LARGE_BATCH, WINDOW, .custom = false };
    uint64_t frames = env_number("SLUICE_BENCH_CLUSTER_CATCHUP_MB", CATCHUP_MB) * 1000000 /
                      EVENT_BYTES / LARGE_BATCH;
    uint64_t bytes, events = 0, ns;
    struct lane *lane[LANES_MAX];
    unsigned lanes, follower;

    trio_open(&trio, false);
    follower = (trio_leader(&trio) + 1) % TRIO_NODES;
    daemon_kill(&trio.node[follower]);
    lanes = lanes_open(lane, &kind, &trio.node[trio_leader(&trio)], 1, 0);
    for (unsigned i = 0; i < lanes; i++)
        lane[i]->wanted = frames / lanes + 1;
    while (lanes_turn(lane, lanes, 1000)) {
    }
    for (unsigned i = 0; i < lanes; i++) {
        events += lane[i]->answered * LARGE_BATCH;
        lane_close(lane[i]);
    }
    bytes = events * EVENT_BYTES;
    ns = trio_restart(&trio, follower);
    printf("bench catchup_mb_per_s %.1f MB/s\n", (double)bytes * 1e3 / (double)ns);
    fprintf(stderr, "# caught up with %.2f GB in %.2f s, the start included\n", (double)bytes / 1e9,
            (double)ns / 1e9);
    trio_check(&trio, events);
    trio_close(&trio);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (is_wanted("rate")) {
        measure_rates(false);
        measure_rates(true);
    }
    if (is_wanted("single"))
        measure_single();
    if (is_wanted("latency")) {
        printf("bench replicated_latency_rate %u events/s\n", PACE_PER_S * PACE_BATCH);
        measure_latency(false);
        measure_latency(true);
    }
    if (is_wanted("overhead"))
        measure_overhead();
    if (is_wanted("down"))
        measure_down();
    if (is_wanted("kill"))
        measure_kill();
    if (is_wanted("catchup"))
        measure_catchup();
    return 0;
}
