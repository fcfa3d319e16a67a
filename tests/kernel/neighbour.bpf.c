/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * neighbour.bpf.c - somebody else's XDP program: counts what it sees, and lets it pass.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} seen SEC(".maps");

SEC("xdp")
int neighbour(struct xdp_md *ctx)
{
    __u32 key = 0;
    __u64 *n = bpf_map_lookup_elem(&seen, &key);

    if (n)
        __sync_fetch_and_add(n, 1);
    return XDP_PASS;
}
