/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * sender_shared.h - what sender.bpf.c and load.c share.
 */
#ifndef SLUICE_TESTS_SENDER_SHARED_H
#define SLUICE_TESTS_SENDER_SHARED_H

#include <linux/types.h>

#define SENDER_IDS_MAX     16
#define SENDER_FRAME_BYTES 2048
#define SENDER_CHECKSUM_AT 40 /* Ethernet, IPv4 without options, UDP */

struct sender_stream {
    __u64 due_ns, interval_ns; /* CLOCK_MONOTONIC */
    __u64 sent;
    __u32 bytes;              /* 0: no such stream */
    __u32 ids, id_at, stride; /* eight bytes each */
    __u32 sum;                /* of the frame with ids of zero */
    __u8 frame[SENDER_FRAME_BYTES];
};

struct sender_state {
    __u64 stop_ns, next_id;
    __u64 spun_ns; /* in which the sender had nothing to do, and kept its processor */
    __u32 ifindex;
    struct sender_stream stream[2];
};

#endif
