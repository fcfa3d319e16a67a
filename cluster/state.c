/*
 * state.c - term, vote and identity: durable in both slots before anything that depends on them
 * happens.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "cluster/internal.h"

/* What a new directory starts with: the first term of this region's first epoch. */
static void state_fresh(struct cluster *c, struct node_state *s)
{
    *s = (struct node_state){
        .term =
            STATE_FIRST_TERM(c->config.join_epoch != 0 ? c->config.join_epoch : c->config.region),
        .node = c->config.node,
        .region = c->config.region,
    };
    if (c->config.bootstrap != NULL)
        memcpy(s->cluster_id, c->config.bootstrap->cluster_id, sizeof s->cluster_id);
    else if (c->config.join_cluster_id != NULL)
        memcpy(s->cluster_id, c->config.join_cluster_id, sizeof s->cluster_id);
    else
        node_random(c, s->cluster_id, sizeof s->cluster_id);
    node_random(c, s->directory_id, sizeof s->directory_id);
}

struct found {
    bool state, mark, segments;
};

static int find_file(void *arg, const char *name)
{
    struct found *f = arg;
    const char *dot = strrchr(name, '.');

    f->state = f->state || strcmp(name, STATE_NAME) == 0;
    f->mark = f->mark || strcmp(name, "mark") == 0;
    f->segments = f->segments || (dot != NULL && strcmp(dot, ".seg") == 0);
    return 0;
}

int state_open(struct cluster *c)
{
    struct found found = { false, false, false };
    int e = c->disk->ops->list(c->disk, find_file, &found);

    c->segments_found = found.segments;
    if (e == 0 && (found.mark || found.segments) && !found.state)
        return cluster_fail(c, -EILSEQ,
                            "%s/log/state is missing beside a log; without its term and vote this "
                            "node must not start",
                            c->config.dir);
    if (e < 0)
        return cluster_fail(c, e, "%s/log: %s", c->config.dir, strerror(-e));

    state_fresh(c, &c->state);
    e = twoslot_open(&c->state_file, c->disk, STATE_NAME, STATE_MAGIC, &c->state, sizeof c->state);
    if (e == -EILSEQ) { /* one that an older build has written gets its new length, slot by slot */
        e = twoslot_open(&c->state_file, c->disk, STATE_NAME, STATE_MAGIC, &c->state,
                         STATE_BYTES_BEFORE);
        c->state.promised = c->state.attempt = 0;
        if (e >= 0)
            e = twoslot_write(&c->state_file, &c->state, sizeof c->state);
    }
    if (e == -EILSEQ)
        return cluster_fail(
            c, e,
            "%s/log/state: both slots are damaged; term and vote are not known, so this "
            "node must not start: remove it from its cluster, and add it with a new directory and "
            "id",
            c->config.dir);
    if (e < 0)
        return cluster_fail(c, e, "%s/log/state: %s", c->config.dir, strerror(-e));
    if (c->state.node != c->config.node || c->state.region != c->config.region)
        return cluster_fail(c, -EINVAL,
                            "%s belongs to node %u of region %u, but the config says node %u of "
                            "region %u",
                            c->config.dir, c->state.node, c->state.region, c->config.node,
                            c->config.region);
    if (c->state.term >> CLUSTER_EPOCH_SHIFT == 0)
        return cluster_fail(c, -EILSEQ, "%s/log/state: term %llu has no epoch", c->config.dir,
                            (unsigned long long)c->state.term);
    return 0;
}

int state_write(struct cluster *c)
{
    int e = twoslot_write(&c->state_file, &c->state, sizeof c->state);

    assert(c->state.term >> CLUSTER_EPOCH_SHIFT > 0);
    if (e < 0)
        return cluster_fail(c, e, "%s/log/state: write failed: %s", c->config.dir, strerror(-e));
    return 0;
}

/* One that died before it had an entry may have voted, and promised, in that cluster: that it
 * keeps. In another it has promised nothing. */
void state_enter(struct node_state *s, const uint8_t cluster_id[16], uint64_t epoch)
{
    bool again = memcmp(s->cluster_id, cluster_id, sizeof s->cluster_id) == 0;

    memcpy(s->cluster_id, cluster_id, sizeof s->cluster_id);
    if (!again)
        s->promised = s->attempt = 0;
    if (epoch == 0 || (again && s->term >= STATE_FIRST_TERM(epoch)))
        return;
    s->term = STATE_FIRST_TERM(epoch);
    s->voted_for = 0;
}

/* The first of the first member's region. A node's own may be another, for it is of another region,
 * or was offered a place before and has heard of a term there; that one it keeps, if it is higher,
 * and what it may have promised in it. */
int state_first_term(struct cluster *c, uint64_t *ret)
{
    const struct cluster_bootstrap *b = c->config.bootstrap;
    struct node_state *s = &c->state;
    bool unused = s->term == STATE_FIRST_TERM(s->region) && s->voted_for == 0;

    *ret = b != NULL ? STATE_FIRST_TERM(b->member[0].region) : s->term;
    if (s->term == *ret || (s->term > *ret && !unused))
        return 0;
    s->term = *ret;
    s->voted_for = 0;
    return state_write(c);
}
