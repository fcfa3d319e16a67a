/*
 * xdp_expect.c - see xdp_expect.h.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "xdp_expect.h"

#include <stdio.h>
#include <string.h>

void expect_frame(struct xdp_rig *r, const void *frame, size_t bytes, int verdict,
                  const struct xdp_counters *moved)
{
    struct xdp_counters count;
    const __u64 *is = (const __u64 *)&count, *due = (const __u64 *)moved;
    int got;

    xdp_rig_clear(r);
    got = xdp_rig_run(r, frame, bytes);
    xdp_rig_counters(r, &count);
    for (size_t i = 0; i < sizeof count / sizeof *is; i++) {
        if (is[i] != due[i])
            print_message("counter %zu moved by %llu and not by %llu\n", i,
                          (unsigned long long)is[i], (unsigned long long)due[i]);
    }
    assert_int_equal(got, verdict);
    assert_memory_equal(&count, moved, sizeof count);
}

void expect(struct xdp_rig *r, const struct frame *f, int verdict, const struct xdp_counters *moved)
{
    static _Alignas(8) uint8_t frame[8192];

    expect_frame(r, frame, frame_build(f, frame, sizeof frame), verdict, moved);
}

void expect_untouched(struct xdp_rig *r, const struct frame *f)
{
    expect(r, f, XDP_PASS, &(struct xdp_counters){ 0 });
}

void expect_redirected(struct xdp_rig *r, const struct frame *f, unsigned type, unsigned class)
{
    struct xdp_counters moved = { .arrived = 1, .bytes = f->bytes };

    moved.type_arrived[type] = 1;
    moved.redirected[class] = 1;
    expect(r, f, XDP_REDIRECT, &moved);
}

void expect_dropped_bytes(struct xdp_rig *r, const struct frame *f, unsigned type,
                          enum drop_reason reason, size_t payload_bytes)
{
    struct xdp_counters moved = { .arrived = 1, .bytes = payload_bytes };

    moved.type_arrived[type] = moved.type_dropped[type] = 1;
    moved.dropped[reason] = 1;
    expect(r, f, XDP_DROP, &moved);
}

void expect_dropped(struct xdp_rig *r, const struct frame *f, unsigned type,
                    enum drop_reason reason)
{
    expect_dropped_bytes(r, f, type, reason, reason == REASON_LENGTH ? 0 : f->bytes);
}

void frame_v6(struct frame *f)
{
    f->v6 = true;
    f->source = frame_address("2001:db8::1");
    f->destination = frame_address("2001:db8:1::1");
}
