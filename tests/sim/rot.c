/*
 * rot.c - bits flip in what is durable, or an old copy of a file comes back, on one node at a time,
 * while it is down or runs; and what a node does about it while it runs, as the scrub of the daemon
 * does (cluster/scrub.c).
 *
 * Only where a start can tell that it was durable: by the mark, or by a segment behind it. Where
 * nobody could, it is a torn write.
 */
#include "tests/sim/sim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/log_private.h"
#include "tests/lib/test_disk.h"

struct place {
    char name[SEGMENT_NAME_BYTES];
    uint64_t index, offset, bytes;
};

/* The records of a segment up to `last`; one of them, or the last, is chosen. */
static unsigned look(struct sim_node *n, const struct segment *s, uint64_t last, bool at_end,
                     unsigned seen, struct place *ret)
{
    char name[SEGMENT_NAME_BYTES];
    uint64_t bytes = 0;
    const uint8_t *p;

    segment_name(s, name);
    p = test_disk_bytes(n->disk, name, &bytes);
    for (uint64_t at = LOG_ALIGN; at + LOG_ALIGN <= bytes;) {
        struct record_header h;

        memcpy(&h, p + at, sizeof h);
        if (h.magic != RECORD_MAGIC || h.agreed.index > last)
            break;
        if (sim.fails_over && (sim.newest->entry[h.agreed.index].term != h.agreed.term ||
                               h.agreed.index > sim.region))
            break; /* nobody of a later epoch has it, or it may be so after a failover */
        seen++;
        if (at_end || draw(seen) == 0) {
            *ret = (struct place){ .index = h.agreed.index,
                                   .offset = at,
                                   .bytes = LOG_HEADER_BYTES + h.agreed.payload_bytes };
            memcpy(ret->name, name, sizeof name);
        }
        at += record_bytes(h.agreed.payload_bytes);
    }
    return seen;
}

static void flip(struct sim_node *n, struct place *w)
{
    uint8_t *p;

    if (!sim.fails_over && chance(10)) { /* the segment's header */
        w->offset = 0;
        w->bytes = LOG_ALIGN;
    }
    p = test_disk_bytes(n->disk, w->name, NULL);
    p[w->offset + draw(w->bytes)] ^= (uint8_t)(1u << draw(8));
    sim.rotten = number_of(n);
    sim.rot_index = w->index;
    sim.rots++;
    trace("node %u: rot in record %" PRIu64 "%s", number_of(n), w->index,
          w->offset == 0 ? "'s segment's header" : "");
}

/* Enough others are there, and whole, to mend it. */
static bool may_rot(void)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    int n = newest_members(m);

    return sim.rot_percent > 0 && sim.rotten == 0 && sim.lost == 0 && !sim.healing &&
           !plan_runs() && members_voters(m, n > 0 ? (unsigned)n : 0) >= 3;
}

/* The last segment is kept as it is now, to come back later. */
void rot_remember(struct sim_node *n)
{
    struct old_file *o = &n->old;
    const struct segment_list *list;
    const uint8_t *p;

    if (sim.rot_percent == 0 || n->c == NULL || !n->opened || !chance(3))
        return;
    list = &n->c->log->segments;
    if (list->n == 0)
        return;
    segment_name(&list->at[list->n - 1], o->name);
    p = test_disk_bytes(n->disk, o->name, &o->n);
    free(o->bytes);
    o->bytes = malloc(o->n);
    if (p == NULL || o->bytes == NULL)
        violation("the last segment of node %u is not there", number_of(n));
    memcpy(o->bytes, p, o->n);
    o->next = log_last_index(n->c->log) + 1;
}

/* Somebody has put back an old copy of a segment: as if it had lost its end. False: there is none
 * of which a start could know that there was more. */
static bool bring_back(struct sim_node *n, const struct segment_list *list, uint64_t durable)
{
    struct old_file *o = &n->old;
    size_t i = 0;
    char name[SEGMENT_NAME_BYTES] = "";

    for (; o->bytes != NULL && i < list->n; i++) {
        segment_name(&list->at[i], name);
        if (strcmp(name, o->name) == 0)
            break;
    }
    if (durable < n->durable)
        durable = 0; /* of what was durable the mark does not say all */
    if (o->bytes == NULL || i == list->n ||
        o->next > (i + 1 < list->n ? list->at[i + 1].first - 1 : durable))
        return false;
    test_disk_put(n->disk, o->name, o->bytes, o->n);
    sim.rotten = number_of(n);
    sim.rot_index = o->next;
    sim.restored++;
    trace("node %u: an old copy of %s, to record %" PRIu64 " at most", number_of(n), o->name,
          o->next - 1);
    return true;
}

/* The oldest segments are gone, which a start with a checkpoint does not read. False: there is but
 * one. */
static bool lose_oldest(struct sim_node *n, const struct segment_list *list)
{
    char name[SEGMENT_NAME_BYTES];
    size_t many;

    if (list->n < 2)
        return false;
    many = (size_t)between(1, list->n - 1);
    for (size_t i = 0; i < many; i++) {
        segment_name(&list->at[i], name);
        test_disk_drop(n->disk, name);
    }
    sim.rotten = number_of(n);
    sim.rot_index = 1;
    sim.restored++;
    trace("node %u: its oldest %zu segments are gone", number_of(n), many);
    return true;
}

/* What is only in the old epoch's log nobody of a later one can mend: then the node is given up. So
 * is one whose log ends in what is bad, since all that it may have acknowledged has to come. */
static uint64_t mends_to(uint64_t last)
{
    if (!sim.fails_over)
        return last;
    last = last == UINT64_MAX || last == 0 ? last : last - 1;
    return sim.region < last ? sim.region : last;
}

void rot_at_start(struct sim_node *n)
{
    struct segment_list list;
    struct mark mark = { 0 };
    struct place w = { .index = 0 };
    bool at_end = chance(40);
    unsigned seen = 0;

    if (!may_rot() || !chance(sim.rot_percent) || segment_list_read(&list, n->disk) < 0)
        return;
    if (twoslot_peek(n->disk, SEGMENT_MARK, MARK_MAGIC, &mark, sizeof mark) >= 0 &&
        mark.cut_from == 0 &&
        !(!sim.fails_over && chance(30) && bring_back(n, &list, mark.durable)) &&
        !(!sim.fails_over && chance(15) && lose_oldest(n, &list))) {
        for (size_t i = 0; i < list.n; i++)
            seen = look(n, &list.at[i], mends_to(i + 1 < list.n ? UINT64_MAX : mark.durable),
                        at_end, seen, &w);
    }
    segment_list_fini(&list);
    if (w.index != 0)
        flip(n, &w);
}

void rot_running(struct sim_node *n)
{
    const struct segment_list *list;
    struct place w = { .index = 0 };
    unsigned seen = 0;

    if (!may_rot() || n->c == NULL || n->c->repair.at_start || n->c->fetch.active)
        return;
    list = &n->c->log->segments;
    for (size_t i = 0; i + 1 < list->n && list->at[i + 1].first <= n->c->applied_index; i++)
        seen = look(n, &list->at[i], mends_to(UINT64_MAX), false, seen, &w);
    if (w.index != 0)
        flip(n, &w);
}

/* Is what has rotted whole again? */
static void check_mended(struct sim_node *n)
{
    struct log_damage m;
    int e;

    if (sim.rotten != number_of(n) || n->c->repair.at_start || n->c->repair.active)
        return;
    e = log_check_segment(n->disk, sim.rot_index, 1 << 20, NULL, NULL, &m, NULL);
    if (e != -EILSEQ) { /* -ENOENT: in the last one, which the start has read */
        trace("node %u: record %" PRIu64 " is whole", number_of(n), sim.rot_index);
        sim.rotten = 0;
        sim.mended++;
    }
}

void rot_scrub(struct sim_node *n)
{
    const struct segment_list *list = n->c->log != NULL ? &n->c->log->segments : NULL;
    struct log_damage m;
    size_t i = 0;
    int e;

    n->scrub_ns = sim.now_ns + between(50 * NS_PER_MS, 400 * NS_PER_MS);
    if (list == NULL || n->c->repair.at_start)
        return;
    check_mended(n);
    if (list->n < 2 ||
        (sim.rotten != number_of(n) && !chance(20))) /* it is seldom needed, and dear */
        return;
    while (i + 1 < list->n && list->at[i].first < n->scrub_index)
        i++;
    if (i + 1 == list->n)
        i = 0;
    n->scrub_index = list->at[i].first + 1;
    e = log_check_segment(n->disk, list->at[i].first, 1 << 20, NULL, NULL, &m, NULL);
    if (e == -EILSEQ && m.first != 0) {
        e = repair_segment(n->c, &m);
        trace("node %u: the scrub finds record %" PRIu64 ": %s", number_of(n), m.from,
              strerror(-e));
        n->turn_ns = sim.now_ns;
    }
}
