/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * maps.bpf.h - the program's maps; shared.h says what is in them.
 */
#ifndef SLUICE_BPF_MAPS_H
#define SLUICE_BPF_MAPS_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "shared.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct xdp_control);
} control SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 4);
    __type(key, __u32);
    __type(value, struct policy);
} policies SEC(".maps");

struct sources4 {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, XDP_RULES_MAX);
    __type(key, struct source_key4);
    __type(value, __u32);
} sources4_0 SEC(".maps"), sources4_1 SEC(".maps"), sources4_2 SEC(".maps"),
    sources4_3 SEC(".maps");

struct sources6 {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, XDP_RULES_MAX);
    __type(key, struct source_key6);
    __type(value, __u32);
} sources6_0 SEC(".maps"), sources6_1 SEC(".maps"), sources6_2 SEC(".maps"),
    sources6_3 SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct policy_cells);
} cells SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, XDP_SOURCES_MAX);
    __type(key, struct bucket_key);
    __type(value, struct bucket);
} buckets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, XDP_INTERFACES_MAX * 2);
    __type(key, __u32);
    __type(value, struct xdp_cpu);
} counters SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __uint(max_entries, XDP_INTERFACES_MAX *XDP_QUEUES_MAX *XDP_CLASSES);
    __type(key, __u32);
    __type(value, __u32);
} sockets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 256 * 1024);
} samples SEC(".maps");

/* The daemon puts the one map into the other again and again: when that returns, every program that
 * ran before has ended. */
struct grace_inner {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} grace_inner SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 1);
    __type(key, __u32);
    __array(values, struct grace_inner);
} grace SEC(".maps") = { .values = { &grace_inner } };

#endif
