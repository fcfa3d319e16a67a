/*
 * history.c - the committed log, epoch by epoch: what all nodes of an epoch have to agree on.
 *
 * A forced failover begins an epoch with the log of one of the nodes that survive. Up to where that
 * and the older epoch's committed log part they are one; what is behind that in the older one is
 * lost for the new one, and must be nothing that was said to be durable in both regions. What of it
 * had a receipt has to be in the newest log in the end: its producer has sent it again, or a node
 * of the old region has set it aside, and offers it again.
 */
#include "tests/sim/sim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What has rotted is what some epoch's nodes have committed there (rot.c). */
static const struct committed *known(uint64_t index)
{
    for (unsigned epoch = EPOCHS_MAX - 1; epoch > 0; epoch--) {
        if (sim.history[epoch] != NULL && sim.history[epoch]->entry[index].known)
            return &sim.history[epoch]->entry[index];
    }
    return NULL;
}

/* The node may be about to apply what its own reader has read. */
static const struct log_record *read_entry(struct sim_node *n, uint64_t index)
{
    static _Alignas(4096) uint8_t buf[LOG_RECORD_BYTES_MAX];
    static struct log_record record;
    const struct committed *was = known(index);
    struct log_reader *r;
    const void *payload;
    int e;

    if (log_reader_open_on(&r, n->disk) < 0)
        violation("no memory");
    e = log_reader_get(r, index, buf, sizeof buf, &record, &payload);
    log_reader_close(r);
    if (e == -EILSEQ && sim.rotten == number_of(n) && was != NULL) {
        record.term = was->term;
        memcpy(record.payload_sha256, was->sha256, SHA256_BYTES);
    } else if (e < 0) {
        violation("node %u cannot read entry %" PRIu64, number_of(n), index);
    }
    return &record;
}

/* The log that the node's epoch begins with. */
static void read_log(struct sim_node *n, struct history *h)
{
    for (uint64_t i = 1; i <= log_last_index(n->c->log) && i < INDEX_MAX; i++) {
        uint64_t term = read_entry(n, i)->term;

        if (term >> CLUSTER_EPOCH_SHIFT == h->epoch)
            break;
        h->term[i] = term;
        h->last = i;
    }
}

void history_check_region(uint64_t index, uint64_t term)
{
    const struct history *h = sim.newest;

    if (index > 0 && h->epoch > 1 && term >> CLUSTER_EPOCH_SHIFT < h->epoch &&
        (index > h->last || h->term[index] != term))
        violation("epoch %" PRIu64 " begins behind entry %" PRIu64 ", and without entry %" PRIu64
                  " of term %" PRIx64 ", which both regions had",
                  h->epoch, h->last, index, term);
}

static bool is_same(struct sim_node *n, const struct history *h, uint64_t i)
{
    const struct log_record *r = read_entry(n, i);

    return h->entry[i].known && h->entry[i].term == r->term &&
           memcmp(h->entry[i].sha256, r->payload_sha256, SHA256_BYTES) == 0;
}

/* What the two share. */
static void inherit(struct history *h, const struct history *parent)
{
    memcpy(h->entry, parent->entry, (h->fork + 1) * sizeof h->entry[0]);
    h->committed = h->fork;
    for (uint32_t i = 1; i <= sim.number; i++) {
        if (parent->event[i].place.index != 0 && parent->event[i].place.index <= h->fork)
            h->event[i] = parent->event[i];
    }
}

static struct history *begin(struct sim_node *n, uint64_t epoch)
{
    struct history *h = calloc(1, sizeof *h);
    uint64_t before;

    if (h == NULL)
        violation("no memory");
    h->epoch = epoch;
    sim.history[epoch] = h;
    if (sim.newest == NULL || epoch > sim.newest->epoch)
        sim.newest = h;
    if (epoch == 1)
        return h;
    read_log(n, h);
    before = h->term[h->last] >> CLUSTER_EPOCH_SHIFT;
    while (before > 0 && sim.history[before] == NULL)
        before--;
    if (before == 0)
        violation("epoch %" PRIu64 " begins with nothing", epoch);
    h->parent = sim.history[before];
    h->fork = h->last < h->parent->committed ? h->last : h->parent->committed;
    while (h->fork > 0 && !is_same(n, h->parent, h->fork))
        h->fork--;
    trace("epoch %" PRIu64 " begins behind entry %" PRIu64 " of epoch %" PRIu64 ", where %" PRIu64
          " are committed",
          epoch, h->fork, before, h->parent->committed);
    history_check_region(sim.region, sim.region_term);
    inherit(h, h->parent);
    return h;
}

struct history *history_of(struct sim_node *n, uint64_t term)
{
    uint64_t epoch = term >> CLUSTER_EPOCH_SHIFT;

    if (epoch == 0 || epoch >= EPOCHS_MAX)
        violation("node %u is of epoch %" PRIu64, number_of(n), epoch);
    return sim.history[epoch] != NULL ? sim.history[epoch] : begin(n, epoch);
}

uint64_t history_configured(const struct cluster *c)
{
    const struct history *h = sim.history[c->state.term >> CLUSTER_EPOCH_SHIFT];

    return h != NULL ? h->entry[c->configuration_index].term >> CLUSTER_EPOCH_SHIFT : 0;
}

void history_follow(struct sim_node *n)
{
    uint64_t epoch = n->c->state.term >> CLUSTER_EPOCH_SHIFT;

    if (epoch == n->epoch && n->c->recovery.fenced == n->fenced)
        return;
    if (epoch < n->epoch)
        violation("node %u goes back to epoch %" PRIu64 " from %" PRIu64, number_of(n), epoch,
                  n->epoch);
    trace("node %u: epoch %" PRIu64 "%s, log to %" PRIu64, number_of(n), epoch,
          n->c->recovery.fenced ? ", fenced" : "", log_last_index(n->c->log));
    sim.rejoined += n->epoch != 0 && epoch != n->epoch;
    n->epoch = epoch;
    n->fenced = n->c->recovery.fenced;
    n->epoch_ns = sim.now_ns;
    if (n->reconciles == RECONCILED)
        n->reconciles = RECONCILE_NOT;
    if (!n->fenced)
        (void)history_of(n, n->c->state.term);
    if (!n->fenced && number_of(n) == sim.declared.survivor && !loss_is_declared())
        loss_offer(epoch);
}

/* --- the end ------------------------------------------------------------------------------------
 */

static bool found[NUMBERS_MAX + 1];

static void read_orphans(const struct sim_node *n, const struct orphan_file *f)
{
    struct orphan_reader *r;
    struct log_record record;
    const void *payload;
    uint64_t events = 0, committed = 0;
    int e = f->error != 0 ? f->error : orphan_reader_open(&r, n->dir, f->name);

    if (e < 0)
        violation("node %u: %s cannot be read: %s", number_of(n), f->name, strerror(-e));
    while ((e = orphan_reader_next(r, &record, &payload)) == 1) {
        struct block_view v;

        if (record.type != LOG_EVENTS)
            continue;
        if (block_view(&v, payload, record.payload_bytes) < 0)
            violation("node %u: %s has no block at %" PRIu64, number_of(n), f->name, record.index);
        for (uint32_t i = 0; i < v.header->events; i++)
            found[client_event_read(v.payload + v.desc[i].offset).number] = true;
        events += v.header->events;
        committed += record.index <= f->head.committed ? v.header->events : 0;
    }
    orphan_reader_close(r);
    if (e < 0 || events != f->head.events || committed != f->head.events_committed)
        violation("node %u: %s is damaged, or has %" PRIu64 " events, not %" PRIu64 ", %" PRIu64
                  " of them committed, not %" PRIu64,
                  number_of(n), f->name, events, f->head.events, committed,
                  f->head.events_committed);
    sim.orphans += events;
}

void history_check_end(void)
{
    static struct orphan_file file[ORPHANS_MAX];

    for (unsigned i = 1; i <= sim.nodes; i++) {
        int n = orphan_list(sim.node[i].dir, file, ORPHANS_MAX);

        if (n < 0)
            violation("node %u: orphans: %s", i, strerror(-n));
        for (int f = 0; f < n; f++)
            read_orphans(&sim.node[i], &file[f]);
    }
    for (unsigned epoch = 1; epoch < EPOCHS_MAX; epoch++) {
        const struct history *h = sim.history[epoch];

        for (uint32_t i = 1; h != NULL && i <= sim.number; i++) {
            if (h->event[i].receipted && sim.newest->event[i].place.index == 0)
                violation("event %u had a receipt in epoch %u, at entry %" PRIu64
                          ", and is not in the log%s",
                          i, epoch, h->event[i].place.index,
                          found[i] ? ", though it was set aside and offered again"
                                   : ", nor was it set aside");
        }
    }
}
