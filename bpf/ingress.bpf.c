/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * ingress.bpf.c - the program in the driver: what is ours, what kind it is, and where it goes.
 *
 * Per datagram to our port: source (allowed, denied, impossible), lengths, the walk to the events'
 * types, the policy, the source's rate; then the AF_XDP socket of (interface, queue, class), or the
 * kernel's way. Everything else passes untouched. Every exit is counted.
 *
 * Order of the checks: the cheap ones first, and what changes state (rates) last, so that what is
 * dropped anyway uses up nobody's rate.
 */
#include "maps.bpf.h"

#include "packet.h"
#include "policy.h"
#include "protobuf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define TCP_SYN_FLAG 0x02
#define TCP_ACK_FLAG 0x10

/* What a packet is judged by: numbers only, as global functions know no other pointers. */
struct facts {
    struct address source;
    __u32 word, address_changes;
    __u32 interface;
    __u32 ipv4;
    __u32 class; /* set by judge() */
    __u32 defer; /* it will go the kernel's way: the worker samples and limits, as it cannot know
                  * what was done here */
    struct walk walk;
};

/* What the stages of one packet share; lives on the stack of sluice_ingress(). */
struct passage {
    struct xdp_md *ctx;
    const struct xdp_control *control;
    struct xdp_cpu *cpu;
    struct xdp_counters *count; /* the CPU's */
    __u32 payload;              /* offset in the frame */
    __u16 source_port;
    struct facts facts;
};

static __always_inline const void *lookup(void *map, __u32 key)
{
    return bpf_map_lookup_elem(map, &key);
}

/* In 64 bits, and out of the compiler's sight: the verifier follows that. */
static __always_inline __u64 frame_bytes(const struct xdp_md *ctx)
{
    __u64 bytes = (__u64)((long)ctx->data_end - (long)ctx->data);

    __asm__ volatile("" : "+r"(bytes));
    return bytes;
}

/* --- is it ours? --------------------------------------------------------------------------------
 */

/* A global function: verified once, not once for every way to get here. */
__noinline int address_is_ours(const struct address *a)
{
    const struct xdp_control *c = lookup(&control, 0);

    if (!a || !c)
        return 0;
    for (__u32 i = 0; i < XDP_ADDRESSES_MAX; i++) {
        if (i >= c->addresses)
            return 0;
        if (c->address[i].half[1] == a->half[1] && c->address[i].half[0] == a->half[0])
            return 1;
    }
    return 0;
}

static __always_inline int is_ours(struct xdp_cpu *cpu, __u32 changes, const struct address *a)
{
    if (cpu->destination.half[1] == a->half[1] && cpu->destination.half[0] == a->half[0] &&
        cpu->destination_changes == changes)
        return 1;
    if (!address_is_ours(a))
        return 0;
    cpu->destination = *a;
    cpu->destination_changes = changes;
    return 1;
}

/* The interface's place in the control block, if the frame is for its address; else
 * XDP_INTERFACES_MAX or more. `zero` hides from the verifier which place it is: it would follow
 * each of them through all that comes after. */
static __always_inline __u32 interface_of(const struct xdp_control *c, __u32 ifindex,
                                          const struct packet *p)
{
    for (__u32 i = 0; i < XDP_INTERFACES_MAX; i++) {
        if (c->interface[i].ifindex != ifindex)
            continue;
        if (LOAD_RAW(__u32, p->mac) == LOAD_RAW(__u32, c->interface[i].mac) &&
            LOAD_RAW(__u16, p->mac + 4) == LOAD_RAW(__u16, c->interface[i].mac + 4))
            return i ^ *(const volatile __u8 *)&c->zero;
        break;
    }
    return XDP_INTERFACES_MAX;
}

/* --- its source ---------------------------------------------------------------------------------
 */

/* Eight maps by name and not two of maps: their look-up is then a direct call. */
#define RULE_OF(family, key)                                                                       \
    (at == 0   ? bpf_map_lookup_elem(&sources##family##_0, key)                                    \
     : at == 1 ? bpf_map_lookup_elem(&sources##family##_1, key)                                    \
     : at == 2 ? bpf_map_lookup_elem(&sources##family##_2, key)                                    \
               : bpf_map_lookup_elem(&sources##family##_3, key))

static __noinline __u32 rule_look_up(const struct facts *f, __u32 shadow)
{
    __u32 at = word_slot(f->word, shadow);
    const __u32 *rule;

    if (source_is_martian(&f->source, f->ipv4 != 0) || address_is_ours(&f->source))
        return SOURCE_DENY;
    if (f->ipv4) {
        struct source_key4 key = { .bits = 32 };

        *(__u32 *)(void *)key.ip = (__u32)(f->source.half[1] >> 32);
        rule = RULE_OF(4, &key);
    } else {
        struct source_key6 key = { .bits = 128 };

        __builtin_memcpy(key.ip, &f->source, 16);
        rule = RULE_OF(6, &key);
    }
    return rule ? *rule : 0;
}

static __always_inline __u32 source_rule(const struct facts *f, struct xdp_cpu *cpu, __u32 shadow)
{
    __u32 rule;

    if (!shadow && cpu->source.half[1] == f->source.half[1] &&
#ifndef PLANT_XDP_CACHE_STALE
        cpu->word == f->word && cpu->address_changes == f->address_changes &&
#endif
        cpu->source.half[0] == f->source.half[0] && cpu->ipv4 == f->ipv4)
        return cpu->rule;
    rule = rule_look_up(f, shadow);
    if (!shadow) {
        cpu->source = f->source;
        cpu->word = f->word;
        cpu->address_changes = f->address_changes;
        cpu->ipv4 = f->ipv4;
        cpu->rule = rule;
    }
    return rule;
}

/* Returns 1 when the source may send one more. */
static __always_inline int source_rate(const struct facts *f, enum bucket_kind kind,
                                       __u64 interval_ns, __u64 burst_ns)
{
    struct bucket_key key = { f->source, kind };
    struct bucket *b = bpf_map_lookup_elem(&buckets, &key);
    __u64 now_ns = policy_now_ns();

    if (!b) {
        struct bucket fresh = { .tat_ns = now_ns + interval_ns, .taken = 1 };

        /* Another CPU may have been faster; one datagram more or less. */
        bpf_map_update_elem(&buckets, &key, &fresh, BPF_NOEXIST);
        return 1;
    }
    if (rate_take(&b->tat_ns, now_ns, interval_ns, burst_ns)) {
        __sync_fetch_and_add(&b->taken, 1);
        return 1;
    }
    __sync_fetch_and_add(&b->dropped, 1);
    return 0;
}

/* --- the datagram -------------------------------------------------------------------------------
 */

/* Global functions again: of what `w` points to the verifier keeps nothing in mind, so one round of
 * the loop looks like every other. */
__noinline int walk_slow(struct xdp_md *ctx, struct walk *w, __u32 payload)
{
    const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end;

    return w ? walk_step(w, data + (payload & 0x3fff), end) : 1;
}

static __always_inline int walk_rare(struct walk *w, struct walk_frame *frame, __u32 payload)
{
    return walk_slow((struct xdp_md *)frame, w, payload);
}

__noinline int walk_types(struct xdp_md *ctx, struct walk *w, __u32 payload)
{
    const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end;

    if (w)
        walk_all(w, data + (payload & 0x3fff), end, walk_rare, (struct walk_frame *)ctx, payload);
    return 0;
}

/* What one policy says, the active one or the shadow: an enum drop_reason, and the class. */
static __always_inline __u32 judge(struct facts *f, struct xdp_cpu *cpu, __u32 shadow)
{
    struct policy_cells *cell = (struct policy_cells *)lookup(&cells, 0);
    const struct policy *p = lookup(&policies, word_slot(f->word, shadow));
    struct policy_verdict v;
    __u32 type;

    f->class = XDP_CLASSES - 1;
    if (!p || !cell) /* arrays always have their entries */
        return REASON_SOURCE_DENIED;
    if (source_rule(f, cpu, shadow & 1) != SOURCE_ALLOW)
        return REASON_SOURCE_DENIED;
    v = policy_datagram(p, &f->walk);
    f->class = v.class;
    if (v.reason != REASON_NONE || f->defer)
        return v.reason;
    if (p->source_interval_ns != 0 &&
        !source_rate(f, shadow ? BUCKET_SHADOW_DATAGRAMS : BUCKET_DATAGRAMS, p->source_interval_ns,
                     p->source_burst_ns))
        return REASON_SOURCE_RATE;
    type = f->walk.type[0] & (POLICY_TYPES - 1);
    return f->walk.batch ? REASON_NONE : policy_event(&p->type[type], &cell->at[shadow & 1][type]);
}

__noinline int judge_shadow(struct facts *f)
{
    return f ? judge(f, NULL, 1) : REASON_SOURCE_DENIED;
}

_Static_assert((DROP_SAMPLE_BYTES & (DROP_SAMPLE_BYTES - 1)) == 0, "a mask");

/* Returns how many bytes it has put into the ring. */
static __noinline __u32 sample(struct passage *g, __u32 reason)
{
    struct xdp_control *c = (struct xdp_control *)lookup(&control, 0);
    __u64 now_ns = policy_now_ns();
    struct drop_sample *s;
    __u64 bytes;

    if (!c || !rate_take(&c->sample_tat_ns, now_ns, SAMPLE_INTERVAL_NS, SAMPLE_BURST_NS))
        return 0;
    s = bpf_ringbuf_reserve(&samples, sizeof *s, 0);
    if (!s)
        return 0;
    bytes = frame_bytes(g->ctx);
    s->time_ns = now_ns;
    s->ifindex = g->ctx->ingress_ifindex;
    s->queue = g->ctx->rx_queue_index;
    s->frame_bytes = (__u32)bytes;
    if (bytes > DROP_SAMPLE_BYTES)
        bytes = DROP_SAMPLE_BYTES;
    /* No change, as a frame has a byte: but Linux 6.1 learns no lower bound from a test for 0. */
    bytes = ((bytes - 1) & (DROP_SAMPLE_BYTES - 1)) + 1;
    s->bytes = (__u16)bytes;
    s->source = g->facts.source;
    s->source_port = g->source_port;
    s->payload = (__u16)g->payload;
    s->reason = (__u8)reason;
    s->in_kernel = 1;
    if (bpf_xdp_load_bytes(g->ctx, 0, s->data, (__u32)bytes) < 0)
        bytes = s->bytes = 0;
    bpf_ringbuf_submit(s, 0);
    return (__u32)bytes;
}

static __always_inline int drop(struct passage *g, __u32 reason)
{
    if (reason >= REASONS)
        return XDP_ABORTED; /* cannot be: for the verifier */
    g->count->dropped[reason]++;
    g->count->type_dropped[g->facts.walk.type[0] & (POLICY_TYPES - 1)]++;
    if ((g->control->sample_mask >> reason & 1) != 0)
        g->count->sampled_bytes += sample(g, reason);
    return XDP_DROP;
}

static __always_inline void shadow_count(struct passage *g, __u32 active)
{
    __u32 reason = judge_shadow(&g->facts);

    if (active != REASON_NONE)
        g->count->shadow_taken += reason == REASON_NONE;
    else if (reason < REASONS)
        g->count->shadow[reason]++;
}

static __always_inline const struct xdp_interface *interface_at(const struct passage *g)
{
    return &g->control->interface[g->facts.interface & (XDP_INTERFACES_MAX - 1)];
}

static __always_inline int goes_to_ring(const struct passage *g)
{
    const struct xdp_interface *i = interface_at(g);

    return g->ctx->rx_queue_index < i->queues && frame_bytes(g->ctx) <= i->frame_bytes_max;
}

static __always_inline int deliver(struct passage *g, __u32 class)
{
    const struct xdp_interface *i = interface_at(g);
    __u32 at =
        socket_index(g->facts.interface & (XDP_INTERFACES_MAX - 1),
                     g->ctx->rx_queue_index & (XDP_QUEUES_MAX - 1), class & (XDP_CLASSES - 1));

    if (!g->facts.defer && bpf_redirect_map(&sockets, at, XDP_PASS) == XDP_REDIRECT) {
        g->count->redirected[class & (XDP_CLASSES - 1)]++;
        return XDP_REDIRECT;
    }
    if (g->facts.defer && g->ctx->rx_queue_index < i->queues)
        g->count->passed[PASS_OVERSIZE]++;
    else
        g->count->passed[PASS_NO_SOCKET]++;
    return XDP_PASS;
}

static __always_inline int udp(struct passage *g, enum packet_kind kind, const struct packet *p)
{
    const __u8 *end = (const __u8 *)(long)g->ctx->data_end;
    __u32 reason, class;

    g->count->arrived++;
    g->count->bytes += p->payload_bytes;
    g->facts.walk.type[0] = 0;
    reason = kind == PACKET_LENGTH ? REASON_LENGTH : REASON_NONE;
    if (reason == REASON_NONE && !walk_begin(&g->facts.walk, p->udp + 8, end, p->payload_bytes))
        walk_types(g->ctx, &g->facts.walk, g->payload);
    g->count->type_arrived[g->facts.walk.type[0] & (POLICY_TYPES - 1)]++;
    if (reason != REASON_NONE)
        return drop(g, reason);
    g->facts.defer = !goes_to_ring(g);
    reason = judge(&g->facts, g->cpu, 0);
    class = g->facts.class;
    /* What goes the kernel's way the worker counts. */
    if (g->control->shadow && (!g->facts.defer || reason != REASON_NONE))
        shadow_count(g, reason);
    if (reason != REASON_NONE)
        return drop(g, reason);
    return deliver(g, class);
}

static __always_inline int tcp(struct passage *g, const struct packet *p)
{
    const struct policy *policy = lookup(&policies, word_slot(g->facts.word, 0));

    if (source_rule(&g->facts, g->cpu, 0) == SOURCE_DENY) {
        g->count->tcp[TCP_DENIED]++;
        return XDP_DROP;
    }
    if ((p->flags & (TCP_SYN_FLAG | TCP_ACK_FLAG)) == TCP_SYN_FLAG && policy &&
        policy->syn_interval_ns != 0 &&
        !source_rate(&g->facts, BUCKET_SYN, policy->syn_interval_ns, policy->syn_burst_ns)) {
        g->count->tcp[TCP_SYN_RATE]++;
        return XDP_DROP;
    }
    g->count->tcp[TCP_PASSED]++;
    return XDP_PASS;
}

SEC("xdp")
int sluice_ingress(struct xdp_md *ctx)
{
    const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end;
    const struct xdp_control *c;
    struct packet p;
    struct passage g;
    enum packet_kind kind = packet_parse(data, end, &p);

    if (kind == PACKET_OTHER)
        return XDP_PASS;
    c = lookup(&control, 0);
    if (!c || (kind != PACKET_FRAGMENT && p.port != c->port) || c->port == 0)
        return XDP_PASS;
    g.facts.interface = interface_of(c, ctx->ingress_ifindex, &p);
    if (g.facts.interface >= XDP_INTERFACES_MAX)
        return XDP_PASS;
    g.ctx = ctx;
    g.control = c;
    g.facts.word = *(const volatile __u32 *)&c->word;
    g.facts.address_changes = *(const volatile __u32 *)&c->address_changes;
    g.facts.source = p.source;
    g.source_port = p.source_port;
    g.facts.ipv4 = p.ipv4_header_bytes != 0;
    g.cpu = (struct xdp_cpu *)lookup(&counters, g.facts.interface * 2 + (g.facts.word & WORD_BANK));
    if (!g.cpu || !is_ours(g.cpu, g.facts.address_changes, &p.destination))
        return XDP_PASS;
    g.count = &g.cpu->count;
    if (kind == PACKET_FRAGMENT) {
        g.count->fragments++;
        return XDP_PASS;
    }
    if (kind == PACKET_TCP)
        return tcp(&g, &p);
    g.payload = (__u32)(p.udp + 8 - data);
    if (g.payload > 0x3fff)
        return XDP_PASS;
    return udp(&g, kind, &p);
}
