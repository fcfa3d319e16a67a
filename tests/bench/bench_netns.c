/*
 * bench_netns.c - the daemon behind a network interface: two network namespaces with a veth pair
 * between them, a sender in the one, sluiced (one worker) in the other, by AF_XDP (native) and by
 * the kernel's sockets. Needs root; without, nothing is printed.
 *
 * The sender (tests/lib/load.h) keeps a processor, and what a driver does in its softirq is done
 * there; the daemon and everything else go where the scheduler puts them. Datagrams
 * have complete checksums, which is looked at in software either way; ids are all new.
 *
 *   ingest     one worker of this process into blocks, batches of 10 events, as in bench_ingest.c
 *   loss-free  the highest pace of datagrams with one event at which every one is committed: by
 *              bisection with probes of PROBE_S, then CONFIRM_S at that pace. What is lost is lost
 *              anywhere, the driver's queue included. A pace that loses is tried twice, as this
 *              machine may have done something else.
 *   cpu        at CPU_RATE datagrams a second: the time of all threads of the process, and that of
 *              the driver's softirq: of the sender's thread, in which it runs, without waiting and
 *              less that of the sender alone, whose frames a program of two instructions drops at
 *              the other end. What all processors did is said beside it (stderr): the same if the
 *              machine does nothing else, but for what the kernel's own threads do for the disk.
 *   flood      WANTED_RATE trades a second under as many datagrams of a type that is dropped as the
 *              sender can send: the part of what was sent that was committed, over the same without
 *   class      UDP batches of 10 trades (class 0) that want receipts, LATENCY_RATE a second, under
 *              as many events of class 3 as can be sent: from when due to the receipt
 *
 * The same for peers that are installed (tests/lib/peer.h): lines `peer NAME FIGURE VALUE UNIT` and
 * `ratio FIGURE OURS/THEIRS`. rsyslogd has taken a datagram when its line is in the file.
 *
 * SLUICE_BENCH_NETNS_ONLY: the parts to run, by the names above. SLUICE_BENCH_XDP: more keys of
 * ingest.xdp, as in ", ring: 8192". BENCH_VERBOSE: every probe, and what became of the datagrams.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/frame.h"
#include "proto/event.pb.h"
#include "tests/lib/daemon.h"
#include "tests/lib/fake_cluster.h"
#include "tests/lib/load.h"
#include "tests/lib/peer.h"
#include "ingest/worker.h"

#define INGEST_S     2.0
#define SENDER_S     1.0
#define PROBE_S      1.0
#define CONFIRM_S    3.0
#define CONFIRMS_MAX 8u
#define RATE_MIN     20000.0
#define RATE_STEP    1.05 /* between a pace that loses and one that does not */
#define SETTLE_MS    400  /* nothing more is committed */
#define CPU_RATE     100000u
#define CPU_S        2.0
#define CPU_ROUNDS   3u
#define WANTED_RATE  50000u
#define FLOOD_S      2.0
#define FLOOD_TYPE   64u
#define FLOOD_PORT   5001u /* its source port */
#define LATENCY_RATE 1000u
#define LATENCY_S    3u
#define LATENCY_WARM 200u
#define GIVE_UP_MS   2000

enum mode { AFXDP, SOCKET, RSYSLOG, XDP_FILTER };

static const char *const mode_name[] = { "afxdp", "socket", "rsyslog", "xdp-filter" };

static struct veth veth;
static struct load load;
static struct daemon sluiced;
static struct peer_rsyslog rsyslog;
static struct load_kind single, batch, dropped;
static uint8_t single_bytes[256], batch_bytes[1500], flood_bytes[256];
static double sender_pps_max;

__attribute__((noreturn)) static void fail(const char *what)
{
    fprintf(stderr, "bench_netns: %s\n", what);
    exit(1);
}

static bool is_left_out(const char *part)
{
    const char *only = getenv("SLUICE_BENCH_NETNS_ONLY");

    return only != NULL && strstr(only, part) == NULL;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *v, unsigned n)
{
    qsort(v, n, sizeof *v, compare);
    return v[n / 2];
}

/* --- what takes the datagrams -------------------------------------------------------------------
 */

#define INGEST_LINES                                                                               \
    "  address: [" VETH_DAEMON_IP "]\n  insecure: true\n  udp: {allow: [10.99.0.0/24]}\n"

static bool has_program(void)
{
    return veth_run(veth.daemon, "ip link show d0 2>/dev/null | grep -q xdp") == 0;
}

static const char *program_dir(void)
{
    const char *bin = getenv("SLUICE_BIN");

    return bin ? bin : "build/release";
}

static void setting(const char *key, const char *value)
{
    if (veth_run(veth.home, "%s/sluice config set --socket %s/admin.sock %s '%s' >/dev/null",
                 program_dir(), sluiced.data, key, value) != 0)
        fail("a setting was refused");
}

/* What became of the datagrams, for whoever looks into it. */
static void say_ledger(void)
{
    if (getenv("BENCH_VERBOSE"))
        (void)veth_run(veth.daemon,
                       "{ %s/sluice ledger --socket %s/admin.sock; "
                       "ip -s link show d0; ethtool -S d0; } >&2",
                       program_dir(), sluiced.data);
}

/* False: it is not installed. */
static bool taker_open(enum mode m)
{
    const char *dir = getenv("SLUICE_BENCH_DIR"), *more = getenv("SLUICE_BENCH_XDP");
    static char ingest_lines[512]; /* of the daemon, as long as it is there */

    if (m == RSYSLOG)
        return peer_rsyslog_open(&rsyslog, &veth, dir ? dir : "/tmp", LOAD_PORT);
    if (m == XDP_FILTER && !peer_xdp_filter_open(&veth, FLOOD_PORT))
        return false;
    snprintf(ingest_lines, sizeof ingest_lines,
             INGEST_LINES "  xdp: {mode: %s, interfaces: [d0]%s}", m == AFXDP ? "native" : "socket",
             more ? more : "");
    daemon_open_in(&sluiced, veth.daemon, LOAD_PORT, ingest_lines);
    if (has_program() != (m == AFXDP || m == XDP_FILTER))
        fail("the interface has not got the program that it should have");
    setting("type.noise", "64");
    return true;
}

static void taker_close(enum mode m)
{
    if (m == RSYSLOG)
        peer_rsyslog_close(&rsyslog);
    else
        daemon_close(&sluiced);
    if (m == XDP_FILTER)
        peer_xdp_filter_close(&veth);
}

/* What it has taken so far, for good. */
static uint64_t taken_now(enum mode m)
{
    sluice_v1_StatusResponse status;

    if (m == RSYSLOG)
        return peer_rsyslog_lines(&rsyslog);
    daemon_status(&sluiced, &status);
    return status.events;
}

/* Once it has taken `until`, or no more comes. */
static uint64_t taken(enum mode m, uint64_t until)
{
    uint64_t n = taken_now(m), since = clock_monotonic_ns();

    while (n < until && clock_monotonic_ns() - since < SETTLE_MS * NS_PER_MS) {
        uint64_t now;

        poll(NULL, 0, 5);
        now = taken_now(m);
        if (now != n)
            since = clock_monotonic_ns();
        n = now;
    }
    return n;
}

/* --- one worker into blocks ---------------------------------------------------------------------
 */

static void ingest(struct prefilter *f, struct worker *w)
{
    static struct worker_snapshot snap;
    struct timespec t = { .tv_nsec = 300000000 };
    uint64_t start, end, from, to;

    load_start(&load, &batch, NULL);
    nanosleep(&t, NULL); /* warm */
    start = clock_monotonic_ns();
    worker_snapshot(w, &snap);
    from = snap.ledger.committed[1];
    t = (struct timespec){ .tv_sec = (time_t)INGEST_S };
    nanosleep(&t, NULL);
    worker_snapshot(w, &snap);
    to = snap.ledger.committed[1];
    end = clock_monotonic_ns();
    load_stop(&load);
    prefilter_stop(f);
    worker_drain(w);
    while (!worker_drained(w))
        poll(NULL, 0, 1);
    worker_snapshot(w, &snap);
    if (snap.ledger.ring_taken[0] == 0)
        fail("nothing came by AF_XDP");
    printf("bench ingest_events_per_s_afxdp %.0f events/s\n",
           (double)(to - from) * 1e9 / (double)(end - start));
    fprintf(stderr, "# in batches of %u events; %.0f datagrams a second were sent\n", batch.ids,
            (double)load_sent(&load, 0) * 1e9 / ((double)(end - start) + 3e8));
}

static void measure_ingest(void)
{
    static const char text[] = "ingest:\n" INGEST_LINES "  port: 7400\n  workers: 1\n"
                               "  xdp: {mode: native, interfaces: [d0]}\n";
    static const uint8_t id[16] = "a bench's id", key[16] = "a bench's key";
    static struct fake_cluster cluster;
    static struct admission admission;
    static struct settings settings;
    static struct config config;
    char error[CONFIG_ERROR_BYTES];
    struct limits limits;
    struct prefilter *f;
    struct worker *w;
    struct worker_config wc = {
        .config = &config,
        .link = &cluster.link,
        .wake_cluster = fake_cluster_wake,
        .wake_arg = &cluster,
        .limits = &limits,
    };

    veth_enter(veth.daemon);
    if (config_parse("bench", text, strlen(text), &config, error) != 0)
        fail(error);
    settings_init(&settings);
    admission_init(&admission, &settings, &config.ingest.udp.allow);
    if (fake_cluster_open(&cluster) != 0 || prefilter_open(&f, &config) != 0 ||
        limits_open(&limits, prefilter_cells(f), 1024) != 0)
        fail("no memory");
    wc.prefilter = f;
    if (worker_open(&w, &wc, error) != 0)
        fail(error);
    worker_set_admission(w, &admission);
    if (fake_cluster_start(&cluster) != 0 || worker_start(w, id, key) != 0 ||
        prefilter_push(f, &admission) != 0)
        fail("the worker does not start");
    prefilter_go(f, LOAD_PORT);
    if (prefilter_port(f, 0)->mode != PREFILTER_NATIVE || !prefilter_port(f, 0)->rings)
        fail(prefilter_port(f, 0)->note);
    ingest(f, w);
    worker_close(w);
    prefilter_close(f);
    limits_close(&limits);
    fake_cluster_close(&cluster);
    config_fini(&config);
    veth_enter(veth.home);
}

/* --- the sender alone ---------------------------------------------------------------------------
 */

/* A program at d0 that drops everything. */
static void sink_open(void)
{
    struct bpf_insn drop[] = {
        { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = XDP_DROP },
        { .code = BPF_JMP | BPF_EXIT },
    };
    int fd = bpf_prog_load(BPF_PROG_TYPE_XDP, "sink", "Dual BSD/GPL", drop, 2, NULL);

    veth_enter(veth.daemon);
    if (fd < 0 || bpf_xdp_attach((int)veth.daemon_ifindex, fd, XDP_FLAGS_DRV_MODE, NULL) != 0)
        fail("d0 takes no program");
    veth_enter(veth.home);
    close(fd);
}

static void sink_close(void) { (void)veth_run(veth.daemon, "ip link set dev d0 xdp off"); }

static void measure_sender(void)
{
    struct load_kind k = single;

    k.per_s = 0;
    sink_open();
    sender_pps_max = (double)load_for(&load, &k, NULL, SENDER_S) / SENDER_S;
    sink_close();
    printf("bench sender_pps_max %.0f pps\n", sender_pps_max);
}

/* --- loss-free ----------------------------------------------------------------------------------
 */

/* The pace at which it was sent, which a busy machine may make less; 0 when some were lost, or the
 * sender was too slow. */
static double holds(enum mode m, double rate, double seconds)
{
    for (unsigned i = 0; i < 2; i++) {
        uint64_t before = taken(m, UINT64_MAX), sent, got;
        struct load_kind k = single;

        k.per_s = (uint64_t)rate;
        sent = load_for(&load, &k, NULL, seconds);
        got = taken(m, before + sent) - before;
        if (getenv("BENCH_VERBOSE"))
            fprintf(stderr, "# %s: at %.0f pps sent %ju, %jd lost\n", mode_name[m], rate,
                    (uintmax_t)sent, (intmax_t)(sent - got));
        if (got < sent && m != RSYSLOG)
            say_ledger();
        if (got == sent && (double)sent >= 0.9 * rate * seconds)
            return (double)sent / seconds;
        if (got < sent * 99 / 100)
            return 0;
    }
    return 0;
}

static double loss_free(enum mode m)
{
    double low = RATE_MIN, high = sender_pps_max;

    while (high / low > RATE_STEP) {
        double rate = (low + high) / 2;

        if (holds(m, rate, PROBE_S) > 0)
            low = rate;
        else
            high = rate;
    }
    for (unsigned i = 0; i < CONFIRMS_MAX; i++) {
        double pace = holds(m, low, CONFIRM_S);

        if (pace > 0)
            return pace;
        low *= 0.9;
    }
    fprintf(stderr, "# %s loses some at every pace that was tried\n", mode_name[m]);
    return low;
}

/* --- CPU ----------------------------------------------------------------------------------------
 */

/* Nanoseconds in which a processor was idle, or not ours, of all processors. */
static double idle_ns(void)
{
    unsigned long long user, nice, system, idle, iowait, irq, softirq, steal;
    FILE *f = fopen("/proc/stat", "r");

    if (!f || fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle,
                     &iowait, &irq, &softirq, &steal) != 8)
        fail("/proc/stat");
    fclose(f);
    return (double)(idle + iowait + steal) * 1e9 / (double)sysconf(_SC_CLK_TCK);
}

struct cpu_time {
    double process, sender; /* nanoseconds a datagram: of the process, of the sender's processor */
    double machine;         /* of all that was not idle */
};

/* For CPU_S at CPU_RATE; `m` < 0: the sender alone. */
static struct cpu_time cpu_time(int m)
{
    double cpus = (double)sysconf(_SC_NPROCESSORS_ONLN), idle, spun;
    uint64_t start, sent, own, theirs, before = m < 0 ? 0 : taken((enum mode)m, UINT64_MAX);
    struct daemon process = { .pid = m == RSYSLOG ? rsyslog.pid : sluiced.pid };
    struct load_kind k = single;
    struct cpu_time t = { 0 };

    k.per_s = CPU_RATE;
    start = clock_monotonic_ns();
    theirs = m < 0 ? 0 : daemon_cpu_ns(&process);
    idle = idle_ns();
    spun = (double)load_spun_ns(&load);
    own = load_cpu_ns(&load);
    sent = load_for(&load, &k, NULL, CPU_S);
    if (m >= 0 && taken((enum mode)m, before + sent) != before + sent)
        fprintf(stderr, "# %s lost some at %u pps\n", mode_name[m], CPU_RATE);
    spun = (double)load_spun_ns(&load) - spun;
    idle = idle_ns() - idle;
    t.sender = ((double)(load_cpu_ns(&load) - own) - spun) / (double)sent;
    t.process = m < 0 ? 0 : (double)(daemon_cpu_ns(&process) - theirs) / (double)sent;
    t.machine = ((double)(clock_monotonic_ns() - start) * cpus - idle - spun) / (double)sent;
    return t;
}

/* Medians. */
static struct cpu_time cpu_time_median(int m)
{
    double process[CPU_ROUNDS], sender[CPU_ROUNDS], machine[CPU_ROUNDS];

    for (unsigned i = 0; i < CPU_ROUNDS; i++) {
        struct cpu_time t = cpu_time(m);

        process[i] = t.process;
        sender[i] = t.sender;
        machine[i] = t.machine;
    }
    return (struct cpu_time){ median(process, CPU_ROUNDS), median(sender, CPU_ROUNDS),
                              median(machine, CPU_ROUNDS) };
}

/* Microseconds a datagram beyond what the sender alone takes. */
static double cpu_us(enum mode m, const struct cpu_time *alone)
{
    struct cpu_time t = cpu_time_median((int)m);

    fprintf(stderr,
            "# %s at %u pps: %.2f us a datagram in the process, %.2f us in the driver's softirq; "
            "%.2f us of all that the machine did\n",
            mode_name[m], CPU_RATE, t.process / 1e3, (t.sender - alone->sender) / 1e3,
            (t.machine - alone->machine) / 1e3);
    return (t.process + t.sender - alone->sender) / 1e3;
}

static void print_figure(enum mode m, const char *name, const double by_mode[3], const char *unit)
{
    const char *short_name = strncmp(name, "ingest_", 7) == 0 ? name + 7 : name;

    if (m != RSYSLOG) {
        printf("bench %s_%s %.3f %s\n", name, mode_name[m], by_mode[m], unit);
        return;
    }
    printf("peer rsyslog %s %.3f %s\n", short_name, by_mode[m], unit);
    printf("ratio %s %.2f\n", short_name, by_mode[AFXDP] / by_mode[m]);
}

static void measure_rates(void)
{
    double cpu[3] = { 0 }, pps[3] = { 0 };
    struct cpu_time alone = { 0 };

    if (!is_left_out("cpu")) {
        sink_open();
        alone = cpu_time_median(-1);
        sink_close();
    }
    for (unsigned m = AFXDP; m <= RSYSLOG; m++) {
        if (!taker_open((enum mode)m)) {
            fputs("# no rsyslogd (package rsyslog): not compared\n", stderr);
            break;
        }
        if (!is_left_out("cpu"))
            cpu[m] = cpu_us((enum mode)m, &alone);
        if (getenv("BENCH_VERBOSE") && m != RSYSLOG)
            daemon_print_threads(&sluiced);
        if (!is_left_out("loss-free"))
            pps[m] = loss_free((enum mode)m);
        taker_close((enum mode)m);
        if (!is_left_out("loss-free"))
            print_figure((enum mode)m, "ingest_loss_free_pps", pps, "pps");
        if (!is_left_out("cpu"))
            print_figure((enum mode)m, "cpu_us_per_datagram", cpu, "us");
    }
}

/* --- flood --------------------------------------------------------------------------------------
 */

/* The part of the wanted events that is committed. */
static double goodput(enum mode m, bool flood)
{
    uint64_t before = taken(m, UINT64_MAX), sent, got;
    struct load_kind k = single;

    k.per_s = WANTED_RATE;
    sent = load_for(&load, &k, flood ? &dropped : NULL, FLOOD_S);
    got = taken(m, before + sent) - before;
    fprintf(stderr, "# %s%s: %ju of %ju wanted events committed", mode_name[m],
            flood ? " under a flood" : "", (uintmax_t)got, (uintmax_t)sent);
    if (flood)
        fprintf(stderr, ", %.0f others a second", (double)load_sent(&load, 1) / FLOOD_S);
    fputc('\n', stderr);
    return (double)got / (double)sent;
}

static double goodput_ratio(enum mode m)
{
    double quiet = goodput(m, false);

    return quiet > 0 ? goodput(m, true) / quiet : 0;
}

static void measure_flood(void)
{
    double ratio[2] = { 0 }, theirs;

    for (unsigned m = AFXDP; m <= SOCKET; m++) {
        (void)taker_open((enum mode)m);
        setting("admit.noise", "drop");
        ratio[m] = goodput_ratio((enum mode)m);
        taker_close((enum mode)m);
        printf("bench flood_goodput_ratio_%s %.3f ratio\n", m == AFXDP ? "xdp" : "off", ratio[m]);
    }
    if (!taker_open(XDP_FILTER)) {
        fputs("# no xdp-filter (package xdp-tools): not compared\n", stderr);
        return;
    }
    /* It can be told of the flood's source port only. */
    theirs = goodput_ratio(XDP_FILTER);
    taker_close(XDP_FILTER);
    printf("peer xdp-filter flood_goodput_ratio %.3f ratio\n", theirs);
    printf("ratio flood_goodput_ratio %.2f\n", theirs > 0 ? ratio[AFXDP] / theirs : 0);
}

/* --- class latency ------------------------------------------------------------------------------
 */

#define SEQ_FIRST (1u << 28) /* a varint of five bytes, and all that follow too */

struct prober {
    struct load_kind kind; /* its events */
    uint8_t bytes[1500];
    uint32_t n;
    uint64_t next_id;
    int fd;
    uint64_t start_ns;
    double us[LATENCY_WARM + LATENCY_RATE * LATENCY_S];
};

static struct prober prober;

static void prober_open(struct prober *p)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(LOAD_PORT) };

    load_events(&p->kind, p->bytes, sizeof p->bytes - 16, 1, 10);
    p->n = p->kind.bytes;
    p->bytes[p->n++] = sluice_v1_EventBatch_seq_tag << 3;
    p->n += 5;
    p->bytes[p->n++] = sluice_v1_EventBatch_receipt_wanted_tag << 3;
    p->bytes[p->n++] = 1;
    p->next_id = 1ull << 60; /* none that the sender has */
    veth_enter(veth.sender);
    p->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    veth_enter(veth.home);
    inet_pton(AF_INET, VETH_DAEMON_IP, &to.sin_addr);
    if (p->fd < 0 || connect(p->fd, (struct sockaddr *)&to, sizeof to) < 0)
        fail("no socket");
}

static void prober_send(struct prober *p, uint32_t i)
{
    uint8_t *seq = p->bytes + p->kind.bytes + 1;
    uint32_t v = SEQ_FIRST + i;

    for (uint32_t e = 0; e < p->kind.ids; e++, p->next_id++)
        memcpy(p->bytes + p->kind.id_at + e * p->kind.stride, &p->next_id, 8);
    for (unsigned b = 0; b < 5; b++, v >>= 7)
        seq[b] = (uint8_t)(v | (b < 4 ? 0x80 : 0));
    if (send(p->fd, p->bytes, p->n, 0) != (ssize_t)p->n)
        p->us[i] = GIVE_UP_MS * 1e3;
}

static uint64_t due_ns(const struct prober *p, uint64_t i)
{
    return p->start_ns + i * (NS_PER_S / LATENCY_RATE);
}

static uint32_t prober_take(struct prober *p, uint32_t sent)
{
    uint8_t buf[2048];
    uint32_t taken_n = 0;
    struct receipt r;
    ssize_t n;

    while ((n = recv(p->fd, buf, sizeof buf, MSG_DONTWAIT)) > 0) {
        uint64_t now = clock_monotonic_ns(), i;

        if (frame_get_receipt(&r, buf, (size_t)n) < 0 || r.request < SEQ_FIRST)
            fail("a datagram that is no receipt");
        i = r.request - SEQ_FIRST;
        if (i < sent && p->us[i] == GIVE_UP_MS * 1e3 && r.accepted == p->kind.ids) {
            p->us[i] = (double)(now - due_ns(p, i)) / 1e3;
            taken_n++;
        }
    }
    return taken_n;
}

/* The 99th percentile; a batch without a receipt took GIVE_UP_MS. */
static double latency_p99_us(struct prober *p)
{
    const uint32_t all = LATENCY_WARM + LATENCY_RATE * LATENCY_S;
    uint32_t sent = 0, answered = 0;
    uint64_t end;

    for (uint32_t i = 0; i < all; i++)
        p->us[i] = GIVE_UP_MS * 1e3;
    p->start_ns = clock_monotonic_ns();
    end = due_ns(p, all) + GIVE_UP_MS * NS_PER_MS;
    while (answered < all && clock_monotonic_ns() < end) {
        struct pollfd fd = { .fd = p->fd, .events = POLLIN };
        uint64_t now = clock_monotonic_ns(), due = sent < all ? due_ns(p, sent) : end;
        struct timespec t = { .tv_nsec = due > now ? (long)(due - now) % (long)NS_PER_S : 0 };

        if (ppoll(&fd, 1, &t, NULL) > 0)
            answered += prober_take(p, sent);
        while (sent < all && clock_monotonic_ns() >= due_ns(p, sent))
            prober_send(p, sent++);
    }
    fprintf(stderr, "# %u of %u batches of class 0 have a receipt\n", answered, all);
    qsort(p->us + LATENCY_WARM, all - LATENCY_WARM, sizeof p->us[0], compare);
    fprintf(stderr, "# p50 %.0f us\n", p->us[LATENCY_WARM + (all - LATENCY_WARM) / 2]);
    return p->us[LATENCY_WARM + (all - LATENCY_WARM) * 99 / 100];
}

static void measure_class(void)
{
    struct sched_param first = { .sched_priority = 1 }, normal = { 0 };
    struct load_kind k = dropped;
    cpu_set_t senders, all, others;
    double quiet, flood;

    (void)taker_open(AFXDP);
    setting("admit.noise", "accept");
    prober_open(&prober);
    (void)prctl(PR_SET_TIMERSLACK, 1ul);
    /* What is measured is the daemon's time, and not the wait for a processor that the sender,
     * which does not leave the kernel, gives up only at a tick. This program is on the sender's, so
     * that the driver's softirq stays there, but goes first; the daemon is on the others. */
    CPU_ZERO(&senders);
    CPU_SET(load_processor(), &senders);
    (void)sched_getaffinity(0, sizeof all, &all);
    (void)sched_setaffinity(0, sizeof senders, &senders);
    CPU_XOR(&others, &all, &senders);
    if (CPU_COUNT(&others) > 0)
        daemon_run_on(&sluiced, &others);
    (void)sched_setscheduler(0, SCHED_FIFO, &first);
    quiet = latency_p99_us(&prober);
    (void)sched_setscheduler(0, SCHED_OTHER, &normal); /* the sender's thread inherits it */
    load_start(&load, &k, NULL);
    (void)sched_setscheduler(0, SCHED_FIFO, &first);
    flood = latency_p99_us(&prober);
    (void)sched_setscheduler(0, SCHED_OTHER, &normal);
    (void)sched_setaffinity(0, sizeof all, &all);
    load_stop(&load);
    say_ledger();
    close(prober.fd);
    taker_close(AFXDP);
    printf("bench class_latency_us_p99_quiet %.0f us\n", quiet);
    printf("bench class_latency_us_p99_flood %.0f us\n", flood);
    printf("bench class_latency_ratio %.2f ratio\n", flood / quiet);
}

static void rsyslog_close(void) { peer_rsyslog_close(&rsyslog); }

static void on_signal(int signal)
{
    rsyslog_close();
    daemon_close(&sluiced);
    _exit(128 + signal);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (geteuid() != 0) {
        fputs("# bench_netns: skipped: it needs root\n", stderr);
        return 0;
    }
    daemon_close_at_exit(&sluiced);
    atexit(rsyslog_close);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGHUP, on_signal);
    veth_open(&veth);
    load_open(&load, &veth);
    load_events(&single, single_bytes, sizeof single_bytes, 1, 0);
    load_events(&batch, batch_bytes, sizeof batch_bytes, 1, 10);
    load_events(&dropped, flood_bytes, sizeof flood_bytes, FLOOD_TYPE, 0);
    dropped.source_port = FLOOD_PORT;
    measure_sender();
    if (!is_left_out("ingest"))
        measure_ingest();
    if (!is_left_out("loss-free") || !is_left_out("cpu"))
        measure_rates();
    if (!is_left_out("flood"))
        measure_flood();
    if (!is_left_out("class"))
        measure_class();
    load_close(&load);
    veth_close(&veth);
    return 0;
}
