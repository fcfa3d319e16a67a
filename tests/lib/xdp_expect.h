/*
 * xdp_expect.h - one frame through the XDP program, and exactly what it must do: the verdict, and
 * which counters it moves. All others must stand still.
 */
#ifndef SLUICE_TESTS_XDP_EXPECT_H
#define SLUICE_TESTS_XDP_EXPECT_H

#include "xdp_rig.h"

#define EVENT_1                                                                                    \
    "\x08\x01\x12\x04"                                                                             \
    "feed"

/* Clears the counters, runs the frame, and compares all of them. */
void expect_frame(struct xdp_rig *r, const void *frame, size_t bytes, int verdict,
                  const struct xdp_counters *moved);
void expect(struct xdp_rig *r, const struct frame *f, int verdict,
            const struct xdp_counters *moved);

/* XDP_PASS, and no counter moved. */
void expect_untouched(struct xdp_rig *r, const struct frame *f);
/* Arrived, and sent to a socket of this class. */
void expect_redirected(struct xdp_rig *r, const struct frame *f, unsigned type, unsigned class);
/* Arrived, and dropped. payload_bytes: as the program counts them. */
void expect_dropped(struct xdp_rig *r, const struct frame *f, unsigned type,
                    enum drop_reason reason);
void expect_dropped_bytes(struct xdp_rig *r, const struct frame *f, unsigned type,
                          enum drop_reason reason, size_t payload_bytes);

/* From 2001:db8::1 to 2001:db8:1::1. */
void frame_v6(struct frame *f);

#endif
