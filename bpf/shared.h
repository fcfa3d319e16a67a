/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * shared.h - what the program in the driver and the daemon both know: reasons, counters, the
 * policy, and the control block. Compiled by both; every struct is fixed in size and layout.
 *
 *   map        kind                    key                              value
 *   ---------  ----------------------  -------------------------------  ---------------------------
 *   control    array, mapped           0                                struct xdp_control
 *   policies   array                   generation * 2 + shadow          struct policy
 *   sources4_  four LPM tries          the same, then struct source_key4  enum source_rule
 *   sources6_  four LPM tries          the same, then struct source_key6  enum source_rule
 *   cells      array, mapped           0                                struct policy_cells
 *   buckets    LRU hash                struct bucket_key                struct bucket
 *   counters   per-CPU array           interface * 2 + bank             struct xdp_cpu
 *   sockets    XSKMAP                  socket_index()                   AF_XDP socket
 *   samples    ring buffer             -                                struct drop_sample
 *   grace      array of arrays         0                                its update waits for RCU
 *
 * A packet reads control.word once: it says which generation of the policy holds and which bank of
 * the counters is in use. So no packet sees half of a change, and a bank that has been switched off
 * and waited for (grace) stands still, with every packet in it counted wholly.
 */
#ifndef SLUICE_BPF_SHARED_H
#define SLUICE_BPF_SHARED_H

#include <linux/types.h>

#define POLICY_TYPES       128u
#define XDP_CLASSES        4u
#define XDP_QUEUES_MAX     64u /* of one interface; packets of others go the kernel's way */
#define XDP_INTERFACES_MAX 8u
#define XDP_ADDRESSES_MAX  64u
#define XDP_SOURCES_MAX    65536u /* that the buckets remember; the longest unused is forgotten */
#define XDP_RULES_MAX      1024u  /* prefixes in one trie */
#define DROP_SAMPLE_BYTES  256u
#define SAMPLE_INTERVAL_NS 1000000u    /* 1,000 samples a second ... */
#define SAMPLE_BURST_NS    (100000000) /* ... and 100 at once */

/* Why a datagram was dropped. Worker and program count by the same. */
enum drop_reason {
    REASON_SOURCE_DENIED,   /* its source is not allowed, or cannot come from outside */
    REASON_LENGTH,          /* UDP and IP disagree on its length */
    REASON_EMPTY,           /* no payload */
    REASON_NOT_PROTOBUF,    /* first byte is neither 0x08 (Event) nor 0x0a (EventBatch) */
    REASON_EVENT_MALFORMED, /* a single event whose fields do not add up */
    REASON_BATCH_MALFORMED, /* the same of a batch, outside of its events */
    REASON_TYPE_UNKNOWN,    /* nothing in it has a type that is known */
    REASON_TYPE_DROPPED,    /* the policy drops every event in it */
    REASON_SAMPLED_OUT,     /* not the one in N of its type */
    REASON_TYPE_RATE,       /* its type's rate is used up */
    REASON_SOURCE_RATE,     /* its source's rate is used up */
    REASONS,
};
#define REASON_NONE REASONS

/* Datagrams to our port that go the kernel's way. */
enum pass_reason {
    PASS_NO_SOCKET, /* no AF_XDP socket for this queue */
    PASS_OVERSIZE,  /* longer than a frame of the UMEM */
    PASSES,
};

enum tcp_reason {
    TCP_PASSED,
    TCP_DENIED,
    TCP_SYN_RATE,
    TCP_REASONS,
};

/* The bytes as in a packet; IPv4 as a mapped address. */
struct address {
    __u64 half[2];
};

/* Of one interface, one bank, one CPU; or sums of these. arrived = redirected + passed + dropped:
 * counted where each happens. */
struct xdp_counters {
    __u64 arrived; /* UDP datagrams to our port, whole ones */
    __u64 redirected[XDP_CLASSES];
    __u64 passed[PASSES];
    __u64 dropped[REASONS];
    __u64 type_arrived[POLICY_TYPES]; /* by the first event's type; 0: none or unknown */
    __u64 type_dropped[POLICY_TYPES];
    __u64 shadow[REASONS];  /* would have been dropped by the shadow policy, and was not */
    __u64 shadow_taken;     /* would have been taken by the shadow policy, and was dropped */
    __u64 fragments;        /* of UDP to our addresses: they have no port, or not all of it */
    __u64 tcp[TCP_REASONS]; /* segments to our port */
    __u64 bytes;            /* of the payloads of what arrived */
    __u64 sampled_bytes;    /* of frames that went into the ring of samples */
};

/* What one CPU keeps of one interface, in one bank. Sources come in runs, and a trie takes longer
 * than all the rest: so the last source's rule is kept, while the policy and our addresses are the
 * same; and the last of our addresses that something came to. */
struct xdp_cpu {
    struct xdp_counters count;
    struct address source, destination;
    __u32 word, address_changes, destination_changes, rule;
    __u32 ipv4, unused; /* IPv6 can carry a mapped address as well; its rule is another one */
};

enum policy_action {
    POLICY_ACCEPT,
    POLICY_DROP,
    POLICY_SAMPLE,  /* one in `every` */
    POLICY_RATE,    /* GCRA with interval_ns and burst_ns */
    POLICY_UNKNOWN, /* nobody has named this type */
};

struct policy_type {
    __u8 action, class, zero[2];
    __u32 every;
    __u64 interval_ns, burst_ns;
};

struct policy {
    struct policy_type type[POLICY_TYPES];
    __u64 source_interval_ns, source_burst_ns; /* 0: no limit */
    __u64 syn_interval_ns, syn_burst_ns;
};

enum source_rule { SOURCE_ALLOW = 1, SOURCE_DENY };

struct source_key4 {
    __u32 bits;
    __u8 ip[4];
};

struct source_key6 {
    __u32 bits;
    __u8 ip[16];
};

/* What sampling and rates of one type remember; the program and the workers use the same one, so
 * that a limit is one limit whichever way events take. */
struct policy_cell {
    __u64 tat_ns; /* GCRA's theoretical arrival time, CLOCK_MONOTONIC */
    __u64 turn;   /* of sampling */
    __u64 zero[6];
};

struct policy_cells {
    struct policy_cell at[2][POLICY_TYPES]; /* active, shadow */
};

enum bucket_kind { BUCKET_DATAGRAMS, BUCKET_SYN, BUCKET_SHADOW_DATAGRAMS };

struct bucket_key {
    struct address source;
    __u64 kind;
};

struct bucket {
    __u64 tat_ns;
    __u64 taken, dropped;
};

struct xdp_interface {
    __u32 ifindex; /* 0: unused */
    __u8 mac[6];
    __u16 queues;          /* with AF_XDP sockets: 0 to queues - 1 */
    __u32 frame_bytes_max; /* what fits a frame of the UMEM */
};

/* control.word: the version of the policy above them, so that every change makes it another. */
#define WORD_BANK       1u
#define WORD_GENERATION 2u
#define WORD_VERSION    4u

struct xdp_control {
    __u32 word;
    __u16 port;  /* network order; 0: nothing is ours */
    __u8 shadow; /* 1: the shadow policy is looked at too */
    __u8 zero;
    __u32 addresses, address_changes; /* how often they have changed: 1 at the least */
    __u32 sample_mask, unused;        /* by drop_reason: which are sampled */
    __u64 sample_tat_ns;
    struct address address[XDP_ADDRESSES_MAX]; /* ours */
    struct xdp_interface interface[XDP_INTERFACES_MAX];
};

struct drop_sample {
    __u64 time_ns; /* CLOCK_MONOTONIC */
    struct address source;
    __u32 ifindex;     /* 0: from a socket */
    __u32 queue;       /* or the worker */
    __u32 frame_bytes; /* of the whole frame; from a socket, of the datagram */
    __u16 bytes;       /* of data */
    __u16 payload;     /* where in data it begins */
    __u16 source_port; /* network order */
    __u8 reason;       /* enum drop_reason; from a worker, enum datagram_drop */
    __u8 in_kernel;
    __u8 data[DROP_SAMPLE_BYTES];
};

static inline __u32 word_slot(__u32 word, __u32 shadow)
{
    return (word & WORD_GENERATION) / WORD_GENERATION * 2 + (shadow & 1);
}

static inline __u32 socket_index(__u32 interface, __u32 queue, __u32 class)
{
    return (interface * XDP_QUEUES_MAX + queue) * XDP_CLASSES + class;
}

_Static_assert(sizeof(struct policy_type) == 24 && sizeof(struct policy) == 128 * 24 + 32,
               "layout");
_Static_assert(sizeof(struct policy_cell) == 64, "one cache line each");
_Static_assert(sizeof(struct xdp_interface) == 16, "no padding");
_Static_assert(sizeof(struct xdp_cpu) < 32768, "a per-CPU value");
_Static_assert(REASONS < 32, "sample_mask");
_Static_assert((XDP_INTERFACES_MAX & (XDP_INTERFACES_MAX - 1)) == 0, "masks");
_Static_assert((XDP_QUEUES_MAX & (XDP_QUEUES_MAX - 1)) == 0 && XDP_CLASSES == 4, "socket_index()");

#endif
