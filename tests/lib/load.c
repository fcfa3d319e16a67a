/*
 * load.c - see load.h.
 */
#include "tests/lib/load.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/lib/frames.h"
#include "tests/lib/sender_shared.h"
#include "tests/lib/sender.skel.h"
#include "tests/lib/sample.h"

#define EVENT_BYTES 128u
#define BATCH       16u /* frames at a time: what is due leaves with the last of them */
#define LEAD_NS     50000000u

__attribute__((noreturn)) static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct sender_state *state_of(const struct load *l) { return &l->program->bss->state; }

static void on_stop(int signal) { (void)signal; }

void load_open(struct load *l, const struct veth *v)
{
    struct sigaction stop = { .sa_handler = on_stop }; /* no SA_RESTART: it ends the run */

    memset(l, 0, sizeof *l);
    l->veth = v;
    l->program = sender__open_and_load();
    if (!l->program)
        die("the kernel does not take the program");
    state_of(l)->ifindex = v->sender_ifindex;
    sigaction(SIGUSR1, &stop, NULL);
}

void load_close(struct load *l) { sender__destroy(l->program); }

/* --- frames -----------------------------------------------------------------------------------
 */

/* The frame, and the sum that its checksum is made of: with ids of zero. */
static void stream_set(struct load *l, struct sender_stream *s, const struct load_kind *k)
{
    uint8_t *payload = malloc(k->bytes), built[SENDER_FRAME_BYTES + 256];
    struct frame f;
    uint16_t checksum;

    if (!payload)
        die("no memory");
    memcpy(payload, k->payload, k->bytes);
    for (uint32_t i = 0; i < k->ids; i++)
        memset(payload + k->id_at + i * k->stride, 0, 8);
    frame_init(&f, payload, k->bytes);
    memcpy(f.mac, l->veth->daemon_mac, sizeof f.mac);
    f.source = frame_address(VETH_SENDER_IP);
    f.destination = frame_address(VETH_DAEMON_IP);
    f.source_port = k->source_port;
    f.port = k->port;
    memset(s, 0, sizeof *s);
    s->bytes = (uint32_t)frame_build(&f, built, sizeof built);
    if (s->bytes >= SENDER_FRAME_BYTES)
        die("a frame is too long");
    memcpy(s->frame, built, s->bytes);
    memcpy(&checksum, built + SENDER_CHECKSUM_AT, 2);
    s->sum = (uint16_t)~checksum;
    s->ids = k->ids;
    s->id_at = SENDER_CHECKSUM_AT + 2 + k->id_at;
    s->stride = k->stride;
    s->interval_ns = k->per_s ? NS_PER_S / k->per_s : 0;
    free(payload);
}

/* --- sending ----------------------------------------------------------------------------------
 */

#define PROCESSORS_MAX 256u

unsigned load_processor(void)
{
    unsigned long long sum[PROCESSORS_MAX] = { 0 };
    unsigned n = 0, least = 0;
    FILE *f = fopen("/proc/interrupts", "r");
    char line[8192], *at, *end;

    /* The first line names the processors, one word each; the others are `NUMBER: COUNT...`, or of
     * the processors' own. */
    if (f && fgets(line, sizeof line, f)) {
        for (char *word = strtok(line, " \n"); word && n < PROCESSORS_MAX;
             word = strtok(NULL, " \n"))
            n++;
    }
    while (f && fgets(line, sizeof line, f)) {
        (void)strtoul(line, &at, 10);
        if (*at++ != ':')
            continue;
        for (unsigned i = 0; i < n; i++, at = end)
            sum[i] += strtoull(at, &end, 10);
    }
    if (f)
        fclose(f);
    for (unsigned i = 1; i < n; i++) {
        if (sum[i] <= sum[least])
            least = i;
    }
    return least;
}

static void *load_main(void *arg)
{
    struct load *l = arg;
    struct sender_state *s = state_of(l);
    sigset_t others;
    cpu_set_t own;
    LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = s->stream[0].frame,
                .data_size_in = s->stream[0].bytes, .repeat = INT32_MAX, .batch_size = BATCH,
                .flags = BPF_F_TEST_XDP_LIVE_FRAMES);
    int rc;

    /* What ends the program is main's to handle, which may have something to take away. */
    sigfillset(&others);
    sigdelset(&others, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &others, NULL);
    CPU_ZERO(&own);
    CPU_SET(load_processor(), &own);
    (void)sched_setaffinity(0, sizeof own, &own);
    veth_enter(l->veth->sender);
    l->began = 1;
    rc = bpf_prog_test_run_opts(bpf_program__fd(l->program->progs.sender), &opts);
    l->cpu_ns += clock_read(CLOCK_THREAD_CPUTIME_ID);
    l->ended = 1;
    if (rc != 0 && rc != -EINTR) {
        errno = -rc;
        die("live frames");
    }
    return NULL;
}

void load_start(struct load *l, const struct load_kind *first, const struct load_kind *second)
{
    struct sender_state *s = state_of(l);
    struct timespec pause = { .tv_nsec = 1000000 };

    stream_set(l, &s->stream[0], first);
    memset(&s->stream[1], 0, sizeof s->stream[1]);
    if (second)
        stream_set(l, &s->stream[1], second);
    if (second && s->stream[1].bytes != s->stream[0].bytes) {
        errno = EINVAL;
        die("streams of different frames");
    }
    s->stop_ns = UINT64_MAX;
    s->stream[0].due_ns = s->stream[1].due_ns = clock_monotonic_ns() + LEAD_NS;
    l->began = l->ended = 0;
    if (pthread_create(&l->thread, NULL, load_main, l) != 0)
        die("thread");
    while (clock_monotonic_ns() < s->stream[0].due_ns && l->began == 0)
        nanosleep(&pause, NULL);
}

void load_stop(struct load *l)
{
    struct timespec pause = { .tv_nsec = 1000000 };

    state_of(l)->stop_ns = 0;
    /* Before the run has begun, a signal is lost. */
    while (l->ended == 0) {
        pthread_kill(l->thread, SIGUSR1);
        nanosleep(&pause, NULL);
    }
    pthread_join(l->thread, NULL);
}

uint64_t load_for(struct load *l, const struct load_kind *first, const struct load_kind *second,
                  double seconds)
{
    uint64_t ns;
    struct timespec t;

    load_start(l, first, second);
    state_of(l)->stop_ns = ns = clock_monotonic_ns() + LEAD_NS + (uint64_t)(seconds * 1e9);
    t = (struct timespec){ (time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S) };
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
    }
    load_stop(l);
    return load_sent(l, 0);
}

uint64_t load_sent(const struct load *l, unsigned stream)
{
    return state_of(l)->stream[stream].sent;
}

uint64_t load_spun_ns(const struct load *l) { return state_of(l)->spun_ns; }

uint64_t load_cpu_ns(const struct load *l) { return l->cpu_ns; }

/* --- payloads ---------------------------------------------------------------------------------
 */

void load_events(struct load_kind *k, uint8_t *buf, uint32_t bytes, unsigned type, uint32_t n)
{
    struct sample sample = { .type = type, .time_ns = clock_unix_ns(), .bytes_exact = EVENT_BYTES };
    uint32_t at = 0, head = n > 0 ? 3 : 0;
    char id[32];
    uint8_t *found;

    *k = (struct load_kind){ .payload = buf, .source_port = 5000, .port = LOAD_PORT };
    k->ids = n > 0 ? n : 1;
    snprintf(id, sizeof id, "%u-%012u", type, 0);
    for (uint32_t i = 0; i < k->ids; i++) {
        if (at + head + EVENT_BYTES > bytes)
            die("a buffer is too small");
        if (n > 0) {
            buf[at++] = 0x0a;
            buf[at++] = (uint8_t)(EVENT_BYTES | 0x80);
            buf[at++] = EVENT_BYTES >> 7;
        }
        sample_event(buf + at, EVENT_BYTES, &sample);
        at += EVENT_BYTES;
    }
    k->bytes = at;
    found = memmem(buf, at, id, strlen(id));
    if (!found)
        die("no id");
    k->id_at = (uint32_t)(found - buf);
    k->stride = EVENT_BYTES + head;
}
