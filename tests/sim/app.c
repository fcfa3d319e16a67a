/*
 * app.c - the store (userspace/store) on each node, as the daemon has it but for its thread: its
 * work is done here, a step now and then, and late when the disk is slow. Tables are small, so that
 * a run has its share of frozen tables, runs, merges and waits for room.
 */
#include "tests/sim/sim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TABLE_KEYS    60
#define SUMMARY_BYTES (16 << 10)
#define FILTER_BYTES  (48 << 10)

static int app_ready(void *arg, size_t events)
{
    struct sim_node *n = arg;

    return n->app.ready(n->app.arg, events);
}

static int app_admit(void *arg, struct block *b, uint64_t index)
{
    struct sim_node *n = arg;

    return n->app.admit(n->app.arg, b, index);
}

static void app_withdraw(void *arg, const struct block *b)
{
    struct sim_node *n = arg;

    sim.withdrawn++;
    n->app.withdraw(n->app.arg, b);
}

static void app_cut(void *arg, uint64_t from)
{
    struct sim_node *n = arg;

    n->app.cut(n->app.arg, from);
}

/* An entry that nobody has known to be committed: its events are in the log from now on. */
static void note_events(struct history *h, const struct log_record *r, const void *payload)
{
    struct block_view v;

    if (r->type != LOG_EVENTS)
        return;
    if (block_view(&v, payload, r->payload_bytes) < 0)
        violation("entry %" PRIu64 " is not a block", r->index);
    for (uint32_t i = 0; i < v.header->events; i++) {
        struct sim_event e = client_event_read(v.payload + v.desc[i].offset);
        struct accepted *a = &h->event[e.number];

        if (a->place.index != 0)
            violation("event %u is in the log at %" PRIu64 " slot %u and at %" PRIu64 " slot %u",
                      e.number, a->place.index, a->place.slot, r->index, i);
        *a = (struct accepted){ .place = { r->index, (uint16_t)i }, .version = e.version };
    }
}

static int app_apply(void *arg, const struct log_record *r, const void *payload,
                     enum cluster_apply how)
{
    struct sim_node *n = arg;
    struct history *h = history_of(n, n->c->state.term);
    struct committed *e = &h->entry[r->index % INDEX_MAX];
    int rc;

    if (r->index >= INDEX_MAX)
        violation("more entries than the simulator holds");
    if (n->applied != 0 && r->index != n->applied + 1)
        violation("node %u applies %" PRIu64 " after %" PRIu64, number_of(n), r->index, n->applied);
    rc = n->app.apply(n->app.arg, r, payload, how);
    sim.waits += rc == -EAGAIN;
    if (rc < 0)
        return rc;
    n->applied = r->index;
    if (!e->known) {
        *e = (struct committed){ .term = r->term, .in_term = n->c->state.term, .known = true };
        memcpy(e->sha256, r->payload_sha256, sizeof e->sha256);
        if (r->index > h->committed)
            h->committed = r->index;
        note_events(h, r, payload);
    } else if (e->term != r->term || memcmp(e->sha256, r->payload_sha256, sizeof e->sha256) != 0) {
        violation("node %u applies another entry %" PRIu64 " (term %" PRIx64 ", not %" PRIx64 ")",
                  number_of(n), r->index, r->term, e->term);
    }
    return 0;
}

static int app_open(void *arg, const uint8_t id[16], uint64_t last_index, uint64_t *ret_covered)
{
    struct sim_node *n = arg;
    int e = n->app.open(n->app.arg, id, last_index, ret_covered);

    trace("node %u: the dedupe index covers %" PRIu64, number_of(n), e == 0 ? *ret_covered : 0);
    return e;
}

static void app_opened(void *arg)
{
    struct sim_node *n = arg;

    n->app.opened(n->app.arg);
}

static void app_close(void *arg)
{
    struct sim_node *n = arg;

    n->applied = 0;
    n->app.close(n->app.arg);
}

static void app_failed(void *arg, const char *sentence)
{
    violation("node %u failed: %s", number_of(arg), sentence);
}

static void app_save(void *arg, struct cluster_checkpoint *k)
{
    struct sim_node *n = arg;

    n->app.save(n->app.arg, k);
}

static int app_load(void *arg, const struct cluster_checkpoint *k)
{
    struct sim_node *n = arg;

    return n->app.load(n->app.arg, k);
}

static void on_settings(void *arg, const struct settings *s) { (void)arg, (void)s; }

void app_start(struct sim_node *n, struct cluster_app *ret)
{
    const struct store_config config = {
        .dir = n->dedupe_dir,
        .dedupe_memory_bytes_max = DEDUPE_MEMORY_BYTES_MIN,
        .dedupe_table_keys_max = TABLE_KEYS,
        .dedupe_summary_bytes_max = SUMMARY_BYTES,
        .dedupe_filter_bytes_max = FILTER_BYTES,
        .on_settings = on_settings,
        .failed = app_failed,
        .arg = n,
    };

    snprintf(n->dedupe_dir, sizeof n->dedupe_dir, "%s/dedupe", n->dir);
    if (chance(15)) {
        remove_dir(n->dedupe_dir);
        sim.rebuilds++;
    }
    if (store_init(&n->store, &config) < 0)
        violation("no memory");
    store_app(n->store, &n->app);
    n->store_ns = sim.now_ns;
    *ret = (struct cluster_app){ .arg = n,
                                 .ready = app_ready,
                                 .admit = app_admit,
                                 .withdraw = app_withdraw,
                                 .cut = app_cut,
                                 .apply = app_apply,
                                 .open = app_open,
                                 .opened = app_opened,
                                 .close = app_close,
                                 .failed = app_failed,
                                 .save = app_save,
                                 .load = app_load };
}

void app_stop(struct sim_node *n)
{
    store_fini(n->store);
    n->store = NULL;
}

void app_work(struct sim_node *n)
{
    int e = n->opened ? store_do_work(n->store) : 0;

    if (e < 0)
        violation("node %u: the dedupe index fails: %s", number_of(n), strerror(-e));
    sim.store_works += e > 0;
    n->store_ns = sim.now_ns + between(50000, e == 0 ? 20 * NS_PER_MS : 2 * NS_PER_MS);
    if (sim.now_ns < n->slow_ns)
        n->store_ns += between(0, NS_PER_S);
}

/* What a node knows of an event must be what the log says. */
static void check_event(struct sim_node *n, uint32_t number)
{
    const struct accepted *a = &sim.newest->event[number];
    struct dedupe_place p = { 0 };
    int found = store_lookup(n->store, "sim", 3, &number, sizeof number, &p);

    if (found < 0)
        violation("node %u: event %u cannot be looked up: %s", number_of(n), number,
                  strerror(-found));
    if (found == 0 && a->place.index != 0)
        violation("node %u does not know event %u of entry %" PRIu64, number_of(n), number,
                  a->place.index);
    if (p.index != a->place.index || p.slot != a->place.slot)
        violation("node %u has event %u at %" PRIu64 " slot %u, not at %" PRIu64 " slot %u",
                  number_of(n), number, p.index, p.slot, a->place.index, a->place.slot);
}

void app_check_end(struct sim_node *n, struct sim_node *other)
{
    size_t history, others;

    for (uint32_t number = 1; number <= sim.number; number++)
        check_event(n, number);
    (void)store_history(n->store, &history);
    (void)store_history(other->store, &others);
    if (history != others || memcmp(store_settings(n->store), store_settings(other->store),
                                    sizeof(struct settings)) != 0)
        violation("nodes %u and %u differ in their settings", number_of(n), number_of(other));
}
