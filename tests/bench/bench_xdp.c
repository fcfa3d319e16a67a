/*
 * bench_xdp.c - nanoseconds a packet of the program in the driver, by BPF_PROG_TEST_RUN: for each
 * verdict, and for a program that does nothing, which is what the measuring itself takes. Needs
 * root; without, nothing is printed.
 *
 * Rounds over all of them, one after the other, so that what else the machine does falls on all
 * alike; the median of the rounds. The frame stays in the cache, and so do the maps, as with one
 * source that sends many: no branch is predicted wrong.
 *
 * Beside it xdp-filter (package xdp-tools), where it is installed, with one rule for a port.
 */
#include <assert.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/peer.h"
#include "tests/lib/sample.h"
#include "tests/lib/veth.h"
#include "tests/lib/xdp_rig.h"

#define ROUNDS       15u
#define REPEAT       200000u
#define BATCH_EVENTS 10u
#define EVENT_BYTES  128u
#define CASES_MAX    10u
#define DROPPED_TYPE 2u
#define LIMITED      "xdp_ns_per_packet_accept_limited"

struct bench_case {
    const char *name;
    int fd;
    size_t bytes;
    uint8_t frame[2048];
    double ns[ROUNDS];
};

static struct bench_case cases[CASES_MAX];
static unsigned cases_n;
static struct xdp_rig rig;

static struct bench_case *add(const char *name, int fd, bool v6, const void *payload, size_t bytes)
{
    struct bench_case *c = &cases[cases_n++];
    struct frame f;

    assert(cases_n <= CASES_MAX);
    frame_init(&f, payload, bytes);
    if (v6) {
        f.v6 = true;
        f.source = frame_address("2001:db8::1");
        f.destination = frame_address("2001:db8:1::1");
    }
    c->name = name;
    c->fd = fd;
    c->bytes = frame_build(&f, c->frame, sizeof c->frame);
    return c;
}

/* The verdict must be the one that is to be measured. */
static void add_verdict(const char *name, int verdict, bool v6, const void *payload, size_t bytes)
{
    struct bench_case *c = add(name, rig.fd, v6, payload, bytes);
    int got = xdp_rig_run(&rig, c->frame, c->bytes);

    if (got != verdict) {
        fprintf(stderr, "bench_xdp: %s: the program's verdict is %d and not %d\n", name, got,
                verdict);
        exit(1);
    }
}

static int program_empty(void)
{
    struct bpf_insn pass[] = {
        { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = XDP_PASS },
        { .code = BPF_JMP | BPF_EXIT },
    };

    return bpf_prog_load(BPF_PROG_TYPE_XDP, "empty", "Dual BSD/GPL", pass,
                         sizeof pass / sizeof pass[0], NULL);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(struct bench_case *c)
{
    qsort(c->ns, ROUNDS, sizeof c->ns[0], compare);
    return c->ns[ROUNDS / 2];
}

/* A limit that is never reached: looked up and taken from, each time. */
static void rig_limit(bool on)
{
    struct policy p;

    xdp_rig_policy(&p);
    p.type[DROPPED_TYPE].action = POLICY_DROP;
    p.source_interval_ns = on ? 1 : 0;
    p.source_burst_ns = on ? UINT64_MAX / 4 : 0;
    xdp_rig_set_policy(&rig, &p, false);
}

static void measure(void)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < cases_n; i++) {
            struct bench_case *c = &cases[i];

            /* Only while this one is measured, so that the others stay without. */
            if (strcmp(c->name, LIMITED) == 0)
                rig_limit(true);
            c->ns[round] = xdp_rig_time(&rig, c->fd, c->frame, c->bytes, REPEAT);
            if (strcmp(c->name, LIMITED) == 0)
                rig_limit(false);
        }
    }
}

/* What comes back is not looked at; xdp-filter lets it pass. */
static int program_xdp_filter(struct veth *v)
{
    int fd;

    if (!peer_xdp_filter_open(v, 9)) {
        fputs("# no xdp-filter (package xdp-tools): not compared\n", stderr);
        return -1;
    }
    fd = peer_xdp_filter_program(v);
    if (fd < 0)
        fprintf(stderr, "# xdp-filter's program cannot be run: %s\n", strerror(errno));
    return fd;
}

static void add_all(void)
{
    static uint8_t trade[EVENT_BYTES], quote[EVENT_BYTES], malformed[EVENT_BYTES], batch[1600];
    static const unsigned types[] = { 1, 0 };
    struct sample s = { .type = 1, .bytes_exact = EVENT_BYTES };
    size_t bytes;

    sample_event(trade, sizeof trade, &s);
    memcpy(quote, trade, sizeof quote);
    quote[1] = DROPPED_TYPE;
    /* The second field is longer than the datagram. */
    memcpy(malformed, trade, sizeof malformed);
    malformed[3] = 0x7f;
    bytes = sample_batch(batch, sizeof batch, types, BATCH_EVENTS, 0, false);
    rig_limit(false);
    add("xdp_ns_per_packet_empty", program_empty(), false, trade, sizeof trade);
    add_verdict("xdp_ns_per_packet_accept", XDP_REDIRECT, false, trade, sizeof trade);
    add_verdict("xdp_ns_per_packet_accept_v6", XDP_REDIRECT, true, trade, sizeof trade);
    add_verdict(LIMITED, XDP_REDIRECT, false, trade, sizeof trade);
    add_verdict("xdp_ns_per_packet_batch", XDP_REDIRECT, false, batch, bytes);
    add_verdict("xdp_ns_per_packet_drop", XDP_DROP, false, quote, sizeof quote);
    add_verdict("xdp_ns_per_packet_malformed", XDP_DROP, false, malformed, sizeof malformed);
}

static void print_all(struct bench_case *peer)
{
    double ours = 0, theirs, empty = median(&cases[0]);

    for (unsigned i = 0; i < cases_n; i++) {
        if (&cases[i] == peer)
            continue;
        printf("bench %s %.0f ns\n", cases[i].name, median(&cases[i]));
        if (strcmp(cases[i].name, "xdp_ns_per_packet_accept") == 0)
            ours = median(&cases[i]) - empty;
    }
    if (peer) {
        theirs = median(peer) - empty;
        printf("peer xdp-filter xdp_ns_per_packet_accept %.0f ns\n", median(peer));
        /* Above what measuring takes. */
        if (theirs > 0)
            printf("ratio xdp_ns_per_packet_accept %.2f\n", ours / theirs);
    }
}

int main(void)
{
    struct bench_case *peer = NULL;
    struct sample s = { .type = 1, .bytes_exact = EVENT_BYTES };
    static uint8_t trade[EVENT_BYTES];
    struct veth veth;
    int fd;

    if (geteuid() != 0) {
        fputs("# bench_xdp: skipped: it needs root\n", stderr);
        return 0;
    }
    if (xdp_rig_open(&rig) != 0)
        return 1;
    xdp_rig_sockets(&rig);
    add_all();
    veth_open(&veth);
    fd = program_xdp_filter(&veth);
    sample_event(trade, sizeof trade, &s);
    if (fd >= 0)
        peer = add("xdp-filter", fd, false, trade, sizeof trade);
    measure();
    print_all(peer);
    veth_close(&veth);
    xdp_rig_close(&rig);
    return 0;
}
