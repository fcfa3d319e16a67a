/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * policy.h - what the policy says of an event and of a datagram; compiled for the kernel and for
 * the workers, so that it holds whichever way an event takes.
 *
 * A datagram of one event is decided as a whole. A batch is dropped as a whole only if the walk has
 * reached its end, the policy drops every event in it, and nobody waits for a receipt; else the
 * worker decides event by event.
 * Its class is the lowest of the events that the walk has reached.
 *
 * Rates are the generic cell rate algorithm (ITU-T I.371): a cell keeps the theoretical arrival
 * time, tat; an event is taken if that is at most burst_ns ahead, and moves it by interval_ns.
 */
#ifndef SLUICE_BPF_POLICY_H
#define SLUICE_BPF_POLICY_H

#ifndef __bpf__
#include <time.h>
#endif

#include "protobuf.h"
#include "shared.h"

#define POLICY_AHEAD_NS  1000000000u
#define POLICY_RACES_MAX 4 /* then the event is taken, so that the loop is bounded */

/* CLOCK_MONOTONIC in nanoseconds; asked for only where a rate is set. */
static __always_inline __u64 policy_now_ns(void)
{
#ifdef __bpf__
    return bpf_ktime_get_ns();
#else
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (__u64)t.tv_sec * 1000000000u + (__u64)t.tv_nsec;
#endif
}

/* For BPF clang has no atomic load; a volatile one is the same there. */
#ifdef __bpf__
#define LOAD_SHARED(p) (*(volatile const __u64 *)(p))
#else
#define LOAD_SHARED(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#endif

/* Returns 1 when it is taken. */
static __always_inline int rate_take(__u64 *tat_ns, __u64 now_ns, __u64 interval_ns, __u64 burst_ns)
{
    for (int i = 0; i < POLICY_RACES_MAX; i++) {
        __u64 old = LOAD_SHARED(tat_ns), next = (old > now_ns ? old : now_ns) + interval_ns;

        if (next - now_ns > burst_ns) {
            /* Further ahead than this rate can have put it: a slower one did, before a change. Not
             * another thread whose clock this one has not seen yet: that is not so far ahead. */
            if (next - now_ns > burst_ns + 2 * interval_ns + POLICY_AHEAD_NS)
                __sync_val_compare_and_swap(tat_ns, old, now_ns + burst_ns);
            return 0;
        }
        if (__sync_val_compare_and_swap(tat_ns, old, next) == old)
            return 1;
    }
    __sync_fetch_and_add(tat_ns, interval_ns);
    return 1;
}

/* What the policy says of a type, whatever came before. Returns REASON_NONE or why it is dropped.
 */
static __always_inline enum drop_reason policy_type(const struct policy_type *t)
{
    return t->action == POLICY_DROP      ? REASON_TYPE_DROPPED
           : t->action == POLICY_UNKNOWN ? REASON_TYPE_UNKNOWN
                                         : REASON_NONE;
}

/* One event of this type, with what came before: this one counts. */
static __always_inline enum drop_reason policy_event(const struct policy_type *t,
                                                     struct policy_cell *cell)
{
    if (t->action == POLICY_SAMPLE && t->every != 0)
        return __sync_fetch_and_add(&cell->turn, 1) % t->every == 0 ? REASON_NONE
                                                                    : REASON_SAMPLED_OUT;
    if (t->action == POLICY_RATE)
        return rate_take(&cell->tat_ns, policy_now_ns(), t->interval_ns, t->burst_ns)
                   ? REASON_NONE
                   : REASON_TYPE_RATE;
    return policy_type(t);
}

#define POLICY_REFUSES (1u << POLICY_DROP | 1u << POLICY_UNKNOWN)

struct policy_verdict {
    __u32 reason; /* enum drop_reason; REASON_NONE: goes on */
    __u32 class;
};

/* All that can be decided of a datagram by looking at it alone. After REASON_NONE come its source's
 * rate and then, of a single event, policy_event(): a source over its own rate uses up none of the
 * type's, which is everybody's. */
static __always_inline struct policy_verdict policy_datagram(const struct policy *p,
                                                             const struct walk *w)
{
    struct policy_verdict v = { REASON_NONE, 0 };
    __u32 classes = 0, actions = 0; /* bits: without branches, the verifier has one path */

    if (w->status != WALK_OK) {
        v.class = XDP_CLASSES - 1;
        v.reason = w->status == WALK_EMPTY          ? REASON_EMPTY
                   : w->status == WALK_NOT_PROTOBUF ? REASON_NOT_PROTOBUF
                   : w->batch                       ? REASON_BATCH_MALFORMED
                                                    : REASON_EVENT_MALFORMED;
        return v;
    }
    if (!w->batch) {
        __u32 type = w->type[0] & (POLICY_TYPES - 1);

        v.class = p->type[type].class & (XDP_CLASSES - 1);
        v.reason = policy_type(&p->type[type]);
        return v;
    }
    for (__u32 i = 0; i < WALK_EVENTS; i++) {
        const struct policy_type *t = &p->type[w->type[i] & (POLICY_TYPES - 1)];

        if (i >= w->events)
            break;
        classes |= 1u << (t->class & (XDP_CLASSES - 1));
        actions |= 1u << (t->action & 7);
    }
    v.class = w->events == 0 || (classes & 8) ? 3 : (classes & 4) ? 2 : (classes & 2) != 0;
    if (w->complete && !w->receipt && actions != 0 && (actions & ~POLICY_REFUSES) == 0)
        v.reason = (actions & 1u << POLICY_DROP) ? REASON_TYPE_DROPPED : REASON_TYPE_UNKNOWN;
    return v;
}

_Static_assert((POLICY_TYPES & (POLICY_TYPES - 1)) == 0, "masks");

#endif
