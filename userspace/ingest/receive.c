/*
 * receive.c - datagrams into the pipeline, from the driver's rings and the kernel's sockets alike:
 * what the policy says of them, who is served first, and what becomes of each.
 *
 * Classes are served in their order, the highest first. Every SHARE_NS one of the lower ones, in
 * turn, goes before all of them for CLASS_SHARE events, so that none starves while a higher one has
 * more than there is room for. Blocks are answered in order, so what a class has at the log stands
 * in the way of all that comes after: while a higher class is in use, a lower one has events in no
 * more than BLOCKS_LOWER blocks there and EVENTS_LOWER in the open one, and waits for the rest of
 * its time in its ring.
 *
 * Thread:  the worker's.
 * Memory:  none; datagrams stay where they came in until admit_flush() has run.
 * Limits:  TURN_EVENTS_MAX events a turn.
 * Counts:  datagrams_seen, _delivered, datagram_drop[]: every datagram exactly once; shadow_drop[].
 */
#include <net/if.h>
#include <string.h>

#include "ingest/worker_internal.h"

#define REJECTED_BYTES_PER_EVENT 128u /* a walk over these takes as long as an event */
#define SHARE_NS                 NS_PER_MS
#define CLASS_SHARE              64u
#define BLOCKS_LOWER             1u
#define EVENTS_LOWER             128u
#define IN_USE_NS                NS_PER_S
#define QUANTUM_EVENTS           128u /* of a lower class, before higher ones are looked at again */

/* A datagram is seen when it is decided what becomes of it: what waits in a queue is no different
 * from what waits in the socket. So the ledger balances after every turn. */
void receive_count(struct worker *w, enum datagram_drop reason, uint32_t n)
{
    w->ledger.datagrams_seen += n;
    w->ledger.datagram_drop[reason] += n;
}

void receive_drop(struct worker *w, enum datagram_drop reason, const struct datagram *d)
{
    receive_count(w, reason, 1);
    if ((atomic_load_explicit(&w->tap.mask, memory_order_relaxed) >> reason & 1) != 0)
        tap_sample(w, reason, d);
}

static void deliver(struct worker *w)
{
    w->ledger.datagrams_seen++;
    w->ledger.datagrams_delivered++;
}

/* --- the policy, where the program in the driver has not decided --------------------------------
 */

/* What one policy says. The source's rate comes before its type's, which is everybody's: a source
 * over its own uses up none of that. */
static enum drop_reason judge(struct worker *w, unsigned which, const struct walk *walk,
                              unsigned rule, const struct in6_addr *source, unsigned *ret_class)
{
    const struct policy *p = &w->stages.admission->policy[which];
    struct policy_cell *cells = w->stages.limits->cells->at[which];
    unsigned type = walk->type[0] & (POLICY_TYPES - 1);
    struct policy_verdict v;

    *ret_class = XDP_CLASSES - 1;
    if (rule != SOURCE_ALLOW)
        return REASON_SOURCE_DENIED;
    v = policy_datagram(p, walk);
    *ret_class = v.class;
    if (v.reason != REASON_NONE)
        return v.reason;
    if (p->source_interval_ns != 0 &&
        !limits_take(w->stages.limits, source,
                     which == POLICY_SHADOW ? BUCKET_SHADOW_DATAGRAMS : BUCKET_DATAGRAMS,
                     policy_now_ns(), p->source_interval_ns, p->source_burst_ns))
        return REASON_SOURCE_RATE;
    return walk->batch ? REASON_NONE : policy_event(&p->type[type], &cells[type]);
}

bool receive_judge(struct worker *w, struct datagram *d, const struct source_verdict *source,
                   unsigned *ret_class)
{
    const struct admission *a = w->stages.admission;
    enum drop_reason reason, shadow;
    unsigned ignored;
    struct walk walk;

    walk_datagram(&walk, d->bytes.data, d->bytes.bytes);
    reason = judge(w, POLICY_ACTIVE, &walk, source->rule[POLICY_ACTIVE], &source->ip, ret_class);
    if (a->shadow) {
        shadow = judge(w, POLICY_SHADOW, &walk, source->rule[POLICY_SHADOW], &source->ip, &ignored);
        if (reason == REASON_NONE && shadow != REASON_NONE)
            w->ledger.shadow_drop[prefilter_drop(shadow)]++;
        else if (reason != REASON_NONE && shadow == REASON_NONE)
            w->ledger.shadow_taken++;
    }
    if (reason != REASON_NONE) {
        receive_drop(w, prefilter_drop(reason), d);
        return false;
    }
    return true;
}

void receive_source(const struct worker *w, const struct in6_addr *ip, struct source_verdict *ret)
{
    const struct admission *a = w->stages.admission;

    ret->ip = *ip;
    for (unsigned i = 0; i < POLICY_N; i++)
        ret->rule[i] = (uint8_t)admission_source(&a->sources[i], ip);
}

/* --- serving ------------------------------------------------------------------------------------
 */

/* Which of our sockets answers: the one with the address that the datagram was sent to. */
static uint32_t socket_of(const struct worker *w, const struct packet *p)
{
    for (uint32_t i = 0; i < w->udp.n; i++) {
        if (memcmp(&w->udp.at[i].ip, &p->destination, sizeof p->destination) == 0)
            return i;
    }
    for (uint32_t i = 0; i < w->udp.n; i++) {
        const struct in6_addr *ip = &w->udp.at[i].ip;

        if (listener_is_any(ip) && IN6_IS_ADDR_V4MAPPED(ip) == (p->ipv4_header_bytes != 0))
            return i;
    }
    return 0;
}

/* Who is to get a receipt, by which socket, and from which address. */
static void answer_to(const struct worker *w, const struct datagram *d, struct block_request *r)
{
    const struct packet *p = d->packet;

    r->transport = TRANSPORT_UDP;
    r->connection = d->socket;
    if (!p) {
        r->peer = *d->peer;
        r->local = *d->local;
        return;
    }
    r->connection = socket_of(w, p);
    if (listener_is_any(&w->udp.at[r->connection].ip))
        memcpy(&r->local, &p->destination, sizeof r->local);
    r->peer = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = p->source_port };
    memcpy(&r->peer.sin6_addr, &p->source, sizeof r->peer.sin6_addr);
    if (IN6_IS_ADDR_LINKLOCAL(&r->peer.sin6_addr))
        r->peer.sin6_scope_id = d->ifindex;
}

static enum admit serve_batch(struct worker *w, const struct datagram *d)
{
    struct block_request request;
    struct batch_walk walk;
    enum admit a;
    int rc = batch_walk(&walk, w->slices, BATCH_EVENTS_MAX, d->bytes.data, d->bytes.bytes);

    if (rc < 0) {
        receive_drop(w, rc == -E2BIG ? DROP_BATCH_TOO_LARGE : DROP_BATCH_MALFORMED, d);
        /* To find that out took as long as some events do: a flood of these must not make long
         * turns, in which TCP waits. */
        w->turn_events += d->bytes.bytes / REJECTED_BYTES_PER_EVENT;
        return ADMIT_OK;
    }
    a = admit_request(w, walk.events, walk.event_bytes, walk.receipt_wanted);
    if (a == ADMIT_WAIT)
        return a;
    if (a == ADMIT_TOO_LARGE) {
        receive_drop(w, DROP_BATCH_TOO_LARGE, d);
        return ADMIT_OK;
    }
    deliver(w);
    w->turn_events += walk.events;
    if (walk.receipt_wanted) {
        request = (struct block_request){
            .request = walk.seq,
            .bytes = d->bytes.bytes,
            .positions = (uint16_t)walk.events,
        };
        answer_to(w, d, &request);
    }
    admit_events(w, w->slices, walk.events, walk.receipt_wanted ? &request : NULL);
    return ADMIT_OK;
}

static enum admit serve_event(struct worker *w, const struct datagram *d)
{
    enum admit a = admit_request(w, 1, d->bytes.bytes, false);

    if (a == ADMIT_WAIT)
        return a;
    if (a == ADMIT_TOO_LARGE) {
        receive_drop(w, DROP_BATCH_TOO_LARGE, d);
        return ADMIT_OK;
    }
    deliver(w);
    admit_single(w, d->bytes, d->decided);
    return ADMIT_OK;
}

static enum admit serve(struct worker *w, unsigned class, const struct datagram *d)
{
    enum admit a;

    w->turn_events++;
    a = d->bytes.data[0] == 0x0a ? serve_batch(w, d) : serve_event(w, d);
    if (a == ADMIT_OK && class > w->open_class)
        w->open_class = (uint8_t) class;
    return a;
}

/* Up to `until` events of the turn. Rings and sockets take turns, a datagram each. False when there
 * is no block left. */
static bool serve_class(struct worker *w, unsigned class, uint32_t until)
{
    bool ring = w->rings.n > 0, socket = w->udp.n > 0;
    uint32_t before = w->turn_events;
    struct datagram d;

    while ((ring || socket) && w->turn_events < until) {
        ring = ring && afxdp_next(w, class, &d);
        if (ring) {
            if (serve(w, class, &d) == ADMIT_WAIT)
                return false;
            afxdp_done(w, class);
        }
        socket = socket && udp_next(w, class, &d);
        if (socket) {
            if (serve(w, class, &d) == ADMIT_WAIT)
                return false;
            udp_done(w, class);
        }
    }
    if (w->turn_events > before)
        w->class_ns[class] = w->now_ns;
    return true;
}

bool receive_may(const struct worker *w, unsigned class)
{
    const struct block *open = w->stages.open;
    uint32_t there = 0;

    for (unsigned c = class; c < WORKER_CLASSES; c++)
        there += w->class_at_cluster[c];
    if (there < BLOCKS_LOWER && (!open || w->open_class < class || open->events < EVENTS_LOWER))
        return true;
    for (unsigned c = 0; c < class; c++) {
        if (w->class_ns[c] + IN_USE_NS > w->now_ns)
            return false;
    }
    return true;
}

static uint32_t at_most(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* The highest class that has something is served; a lower one only for a while, since in that time
 * something of a higher one may have come. False when there is no block left. */
static bool serve_all(struct worker *w)
{
    unsigned class = 0;

    while (class < WORKER_CLASSES && w->turn_events < TURN_EVENTS_MAX) {
        uint32_t before = w->turn_events;
        uint32_t until = at_most(before + QUANTUM_EVENTS, TURN_EVENTS_MAX);

        if (!receive_may(w, class)) {
            class ++;
            continue;
        }
        if (!serve_class(w, class, until))
            return false;
        class = w->turn_events > before && class > 0 ? 0 : class + (w->turn_events < until);
    }
    return true;
}

/* By time and not by turns: a turn is as long as there is something to do. One for which there was
 * no block stays due. */
static bool serve_share(struct worker *w)
{
    unsigned class = w->share_class % (WORKER_CLASSES - 1) + 1;

    if (w->now_ns < w->share_ns)
        return true;
    if (!serve_class(w, class, CLASS_SHARE))
        return false;
    w->share_ns = w->now_ns + SHARE_NS;
    w->share_class = class;
    return true;
}

void receive_serve(struct worker *w)
{
    uint64_t before = w->ledger.datagrams_delivered;
    bool room;

    w->turn_events = 0;
    room = serve_share(w) && serve_all(w);
    /* First until they had something. */
    w->datagrams_first = !room && (!w->datagrams_first || w->ledger.datagrams_delivered == before);
    admit_flush(w);
    udp_shed(w);
}

bool receive_waiting(const struct worker *w)
{
    for (unsigned class = 0; class < WORKER_CLASSES; class ++) {
        if (receive_may(w, class) && (udp_waiting(w, class) || afxdp_waiting(w, class)))
            return true;
    }
    return false;
}

bool receive_empty(const struct worker *w)
{
    for (unsigned class = 0; class < WORKER_CLASSES; class ++) {
        if (udp_waiting(w, class) || afxdp_waiting(w, class))
            return false;
    }
    return true;
}
