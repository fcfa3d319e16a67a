/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * sender.bpf.c - the sender of load.c: run on live frames, it sends them out of an interface, each
 * when it is due.
 *
 * Two streams of frames of one size. The first is paced; the second has what time is left, or a
 * pace of its own. Every event gets a new id, and the UDP checksum follows: it is that of the frame
 * with ids of zero, plus the ids.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "sender_shared.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct sender_state state;

#define SPIN_NS 1000 /* then the kernel may do something else */
#define LATE_NS                                                                                    \
    1000000 /* what was due longer ago is left out, so that no burst follows a pause               \
             */

static __always_inline int is_due(struct sender_stream *s, __u64 now_ns)
{
    if (s->bytes == 0 || now_ns < s->due_ns)
        return 0;
    if (s->due_ns + LATE_NS < now_ns)
        s->due_ns = now_ns;
    s->due_ns += s->interval_ns;
    return 1;
}

static __always_inline __u32 fold(__u32 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

static __always_inline int send(struct xdp_md *ctx, struct sender_stream *s)
{
    __u32 at = s->id_at, sum = s->sum, part, bytes = s->bytes & 2047;

    /* Anew each time: GRO at the other end writes into headers, and frames come back. */
    if (bytes == 0 || bpf_xdp_store_bytes(ctx, 0, s->frame, bytes) < 0)
        return XDP_ABORTED;
    for (__u32 i = 0; i < SENDER_IDS_MAX && i < s->ids; i++) {
        __u8 *p = (__u8 *)(long)ctx->data + (at & 2047);
        __u64 id = state.next_id++;

        if (p + 8 > (__u8 *)(long)ctx->data_end)
            return XDP_ABORTED;
        *(__u64 *)(void *)p = id;
        part = fold((id & 0xffff) + (id >> 16 & 0xffff) + (id >> 32 & 0xffff) + (id >> 48));
        /* At an odd offset the bytes change places (RFC 1071). */
        sum += at & 1 ? (part & 0xff) << 8 | part >> 8 : part;
        at += s->stride;
    }
    if (s->ids > 0) {
        __u8 *p = (__u8 *)(long)ctx->data + SENDER_CHECKSUM_AT;

        if (p + 2 > (__u8 *)(long)ctx->data_end)
            return XDP_ABORTED;
        part = ~fold(sum) & 0xffff;
        *(__u16 *)(void *)p = part ? (__u16)part : 0xffff;
    }
    s->sent++;
    return (int)bpf_redirect(state.ifindex, 0);
}

static long spin(__u32 i, __u64 *until_ns) { return bpf_ktime_get_ns() >= *until_ns; }

SEC("xdp")
int sender(struct xdp_md *ctx)
{
    __u64 now_ns = bpf_ktime_get_ns(), until_ns = now_ns + SPIN_NS;

    if (now_ns >= state.stop_ns)
        return XDP_DROP;
    if (is_due(&state.stream[0], now_ns))
        return send(ctx, &state.stream[0]);
    if (is_due(&state.stream[1], now_ns))
        return send(ctx, &state.stream[1]);
    if (state.stream[0].due_ns < until_ns)
        until_ns = state.stream[0].due_ns;
    bpf_loop(SPIN_NS, spin, &until_ns, 0);
    state.spun_ns += bpf_ktime_get_ns() - now_ns;
    return XDP_DROP;
}
