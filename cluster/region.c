/*
 * region.c - how far the log is durable in both regions: what a receipt for REGION waits for.
 *
 * The leader knows it from what the members confirm: of each region, the highest index that a
 * majority of its members has, and of all regions the lowest, no further than what is committed.
 * An entry of the leader's own term must be there or below: one of an older term may be on
 * majorities and still be replaced by another region's log (figure 8 of the Raft paper, where the
 * next leader comes by a failover). Once it is so for an index it stays so, whoever leads. So every
 * node may be told, and whatever it has been told holds: blocks that were committed by one leader
 * may be confirmed by the next.
 *
 * The leader tells the others when it has become more, and again and again, since a post may be
 * lost with its connection; and whether it hears a majority of each region at all.
 *
 *   REGION   0       8         12     16
 *            | index | reaches | zero |
 *
 * Thread: the node's. Memory: struct cluster, and what the links say to the workers. Errors: of the
 * log's configuration, which are final.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cluster/internal.h"

#define REGIONS     2u
#define TELL_NS     (1 * NS_PER_MS)   /* between two, when it has become more */
#define REPEAT_NS   (100 * NS_PER_MS) /* when it has not */
#define BELIEVED_NS (NS_PER_S)        /* a leader that says nothing may hear nobody */

#ifdef PLANT_REGION_ONE_STANDBY
#define MAJORITY(n) ((n) > 0 ? 1u : 0u)
#else
#define MAJORITY(n) ((n) / 2 + 1)
#endif

struct region_post {
    uint64_t index;
    uint32_t reaches;
    uint32_t zero;
};
_Static_assert(sizeof(struct region_post) == 16, "sent");

/* Who is of which region, by the engine's configuration, committed or not. */
static int region_members(struct cluster *c)
{
    const struct raft *r = &c->raft;
    struct region *g = &c->region;
    struct member m[CLUSTER_MEMBERS_MAX];
    int n;

    if (g->members > 0 && g->seen_committed == r->configuration_committed_index &&
        g->seen_uncommitted == r->configuration_uncommitted_index)
        return 0;
    n = consensus_members(c, m);
    if (n < 0)
        return cluster_fail(c, n, "the members of the configuration cannot be read: %s",
                            strerror(-n));
    g->members = (unsigned)n;
    g->two = false;
    for (unsigned i = 0; i < g->members; i++) {
        g->node[i] = m[i].node;
        g->of[i] = m[i].region;
        g->two = g->two || g->of[i] != c->config.region;
    }
    g->seen_committed = r->configuration_committed_index;
    g->seen_uncommitted = r->configuration_uncommitted_index;
    return 0;
}

/* What a majority of that region's members has; 0: it has fewer than two, and so none to lose. */
static uint64_t region_match(const struct cluster *c, uint8_t region, bool *ret_heard)
{
    const struct region *g = &c->region;
    uint64_t match[CLUSTER_MEMBERS_MAX];
    unsigned n = 0, heard = 0;

    for (unsigned i = 0; i < g->members; i++) {
        raft_index at = 0;
        unsigned to = n;

        if (g->of[i] != region)
            continue;
        if (g->node[i] == c->config.node)
            at = log_persisted_index(c->log);
        else
            (void)raft_match_index(&c->raft, g->node[i], &at);
        heard += g->node[i] == c->config.node || guard_healthy(c, g->node[i]);
        for (; to > 0 && match[to - 1] < at; to--) /* the highest first */
            match[to] = match[to - 1];
        match[to] = at;
        n++;
    }
    assert(n <= g->members && heard <= n);
    *ret_heard = n > 1 && heard >= n / 2 + 1;
    return n > 1 ? match[MAJORITY(n) - 1] : 0;
}

/* To the workers. Either one that is about to sleep sees it, or it is seen to hold something. */
static void region_publish(struct cluster *c)
{
    /* Receipts of the epoch before the promised one are not given any more. */
    uint64_t epoch =
        recovery_is_promised(c) ? c->state.promised : c->state.term >> CLUSTER_EPOCH_SHIFT;

    for (unsigned i = 0; i < c->config.links; i++) {
        atomic_store_explicit(&c->config.link[i].region_reached, c->region.reached,
                              memory_order_relaxed);
        atomic_store_explicit(&c->config.link[i].region_lost_ns, c->region.lost_ns,
                              memory_order_relaxed);
        atomic_store_explicit(&c->config.link[i].region_epoch, epoch, memory_order_relaxed);
        atomic_store_explicit(&c->config.link[i].region_index, c->region.index,
                              memory_order_release);
    }
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < c->config.links; i++) {
        if (atomic_load_explicit(&c->config.link[i].holds, memory_order_relaxed))
            wake_up(&c->config.link[i].wake);
    }
}

void region_fenced(struct cluster *c)
{
    c->region.reached = false;
    region_publish(c);
}

/* What is in both regions its leader says again: in the log of another epoch, which may begin
 * without some of what most of a region had (--dead), an index is another entry's. */
void region_opened(struct cluster *c)
{
    c->region.members = 0; /* they are read anew */
    c->region.index = c->region.told_index = 0;
    region_publish(c);
}

static void region_know(struct cluster *c, uint64_t index, bool reached, uint64_t now_ns)
{
    struct region *g = &c->region;
    bool lost = !reached && g->spoken && g->lost_ns == 0;
    bool news = index > g->index || reached != g->reached || lost;

    if (index > g->index)
        g->index = index;
    g->reached = reached;
    if (reached)
        g->lost_ns = 0;
    else if (lost)
        g->lost_ns = now_ns;
    g->said_ns = now_ns;
    if (news)
        region_publish(c);
}

/* Of the leader. */
static void region_count(struct cluster *c, uint64_t now_ns)
{
    uint64_t index = c->commit_index;
    bool reaches = true;

    for (uint8_t region = 1; region <= REGIONS; region++) {
        bool heard;
        uint64_t match = region_match(c, region, &heard);

        index = match < index ? match : index;
        reaches = reaches && heard;
    }
#ifndef PLANT_REGION_OLD_TERM
    if (index < c->lead_index)
        index = 0;
#endif
    region_know(c, index, reaches, now_ns);
}

static int region_tell(struct cluster *c, uint64_t now_ns)
{
    struct region *g = &c->region;
    struct region_post body = { .index = g->index, .reaches = g->reached };
    const struct iovec iov = { &body, sizeof body };

    assert(g->index >= g->told_index && g->two);
    g->told_index = g->index;
    g->told_ns = now_ns;
    for (unsigned i = 0; i < g->members; i++) {
        const struct node_post post = {
            .to = g->node[i], .type = PEER_REGION, .iov = &iov, .iovs = 1
        };
        int e;

        if (g->node[i] == c->config.node)
            continue;
        e = c->environment.post(c->environment.arg, &post);
        if (e < 0 && e != -EAGAIN) /* it is repeated */
            return cluster_fail(c, e, "a post to node %u: %s", g->node[i], strerror(-e));
    }
    return 1;
}

/* What was said to be durable in a region is on a majority of the members that it had then. Members
 * that come and go one by one could take that majority apart, before others have what it had. So
 * before each of them, a majority of those of now has it all: also what an earlier leader has said,
 * which was committed, and so is below this one's first entry. Of one member alone nothing more is
 * said; but it may be the last that has what was. */
bool region_allows(struct cluster *c, uint8_t region, bool leaves, char *ret_why, size_t bytes)
{
    uint64_t wanted = c->region.index > c->lead_index ? c->region.index : c->lead_index;
    unsigned members = 0;
    bool heard;

    assert(consensus_leads(c));
#ifdef PLANT_REGION_UNSETTLED
    return true;
#endif
    if (region_members(c) < 0) /* which ends the node */
        return false;
    for (unsigned i = 0; i < c->region.members; i++)
        members += c->region.of[i] == region;
    if (!c->region.two || (members < 2 && !leaves) ||
        (members >= 2 && region_match(c, region, &heard) >= wanted))
        return true;
    if (members < 2) {
        snprintf(
            ret_why, bytes,
            "it is the last of region %u, with what was said to be durable there; stop it, and "
            "say that it is dead",
            region);
        return false;
    }
    snprintf(ret_why, bytes, "most of region %u does not have the log to index %" PRIu64 " yet",
             region, wanted);
    return false;
}

uint64_t region_deadline_ns(const struct cluster *c)
{
    const struct region *g = &c->region;

    if (c->lead == LEAD_NONE || c->environment.post == NULL || !g->two)
        return UINT64_MAX;
    return g->told_ns + (g->index > g->told_index ? TELL_NS : REPEAT_NS);
}

int region_turn(struct cluster *c, uint64_t now_ns)
{
    struct region *g = &c->region;
    int e;

    if (c->lead == LEAD_NONE || c->environment.post == NULL) {
        if (now_ns >= g->said_ns + BELIEVED_NS)
            region_know(c, 0, false, now_ns);
        return 0;
    }
    e = region_members(c);
    if (e < 0)
        return e;
    if (!g->two)
        return 0;
    g->spoken = true;
    region_count(c, now_ns);
    return now_ns >= region_deadline_ns(c) ? region_tell(c, now_ns) : 0;
}

int region_told(struct cluster *c, const void *body, size_t bytes)
{
    const struct region_post *p = body;

    assert(((uintptr_t)body & 7) == 0);
    if (bytes != sizeof *p || p->reaches > 1 || p->zero != 0)
        return -EBADMSG;
    c->region.spoken = true;
    region_know(c, p->index, c->lead == LEAD_NONE ? p->reaches != 0 : c->region.reached,
                node_now_ns(c));
    return 0;
}
