/*
 * bench_decode.c - what an event costs in the stages, on 128-byte trades.
 *
 *   decode_ns_per_event    decode and validate
 *   pipeline_ns_per_event  all four stages into blocks, and sealing them (CRC, SHA-256)
 *
 * Each figure is the median of ROUNDS passes over the same events. SLUICE_BENCH_EVENTS says how
 * many events a pass has. CPU time, so that a busy machine does not change the figure.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "tests/lib/line.h"
#include "tests/lib/sample.h"

#define EVENT_BYTES 128u
#define SAMPLES     4096u
#define ROUNDS      9u

static uint8_t samples[SAMPLES][EVENT_BYTES];

static size_t run_receive(struct line *l, size_t at, size_t n)
{
    size_t run = n - at < EVENTS_RUN_MAX ? n - at : EVENTS_RUN_MAX;

    for (size_t i = 0; i < run; i++)
        line_receive(l, i, samples[(at + i) % SAMPLES], EVENT_BYTES, SAMPLE_TIME_NS);
    return run;
}

static void decode_pass(struct line *l, size_t n)
{
    for (size_t at = 0, run; at < n; at += run) {
        run = run_receive(l, at, n);
        decode_run(&l->stages, l->ev, run);
        if (validate_run(&l->stages, l->ev, run) != run)
            abort();
    }
}

static void pipeline_pass(struct line *l, size_t n)
{
    for (size_t at = 0, run; at < n; at += run) {
        run = run_receive(l, at, n);
        if (l->block.bytes +
                (l->block.events + run) * (sizeof(struct block_desc) + EVENT_BYTES + 18) >
            BLOCK_PAYLOAD_MAX) {
            block_seal(&l->block, 1, 1);
            block_reset(&l->block);
        }
        if (stages_run(&l->stages, l->ev, run) != run)
            abort();
    }
    block_seal(&l->block, 1, 1);
    block_reset(&l->block);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void measure(const char *name, void (*pass)(struct line *, size_t), struct line *l, size_t n)
{
    double ns[ROUNDS];
    uint64_t start;

    pass(l, SAMPLES);
    for (size_t i = 0; i < ROUNDS; i++) {
        start = clock_read(CLOCK_THREAD_CPUTIME_ID);
        pass(l, n);
        ns[i] = (double)(clock_read(CLOCK_THREAD_CPUTIME_ID) - start) / (double)n;
    }
    qsort(ns, ROUNDS, sizeof ns[0], compare);
    printf("bench %s %.1f ns\n", name, ns[ROUNDS / 2]);
}

int main(void)
{
    const char *events = getenv("SLUICE_BENCH_EVENTS");
    size_t n = events != NULL ? strtoul(events, NULL, 10) : 200000;
    struct line *l = line_new();

    for (size_t i = 0; i < SAMPLES; i++)
        sample_event(samples[i], EVENT_BYTES,
                     &(struct sample){ .type = sluice_v1_EventType_TRADE,
                                       .n = i,
                                       .time_ns = SAMPLE_TIME_NS + i,
                                       .bytes_exact = EVENT_BYTES });
    measure("decode_ns_per_event", decode_pass, l, n);
    measure("pipeline_ns_per_event", pipeline_pass, l, n);
    line_free(l);
    return 0;
}
