/*
 * machine.c - a node on its disk: its time, power cuts and starts, and what must hold of it all the
 * while.
 */
#include "tests/sim/sim.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/log_private.h"
#include "proto/wire.pb.h"
#include "tests/lib/test_disk.h"

unsigned number_of(const struct sim_node *n) { return (unsigned)(n - sim.node); }

/* A node's own time, which runs faster or slower than the true one. */
static uint64_t sim_monotonic(void *arg)
{
    const struct sim_node *n = arg;

    return NS_PER_S + sim.now_ns + (uint64_t)((int64_t)sim.now_ns * n->drift / 1024);
}

/* When it will be that time at node n. */
static uint64_t true_time(const struct sim_node *n, uint64_t monotonic_ns)
{
    if (monotonic_ns > UINT64_MAX / 2)
        return UINT64_MAX;
    return (monotonic_ns - NS_PER_S) * 1024 / (uint64_t)(1024 + n->drift) + 2;
}

static uint64_t sim_unix(void *arg)
{
    const struct sim_node *n = arg;

    return 1790000000ull * NS_PER_S + sim_monotonic(arg) - NS_PER_S +
           (uint64_t)(n->clock_ns + (int64_t)NS_PER_S * 3600);
}

void sim_random(void *arg, void *ret, size_t bytes)
{
    (void)arg;
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)ret)[i] = (uint8_t)draw(256);
}

static int sim_background(struct cluster *c, void (*fn)(struct cluster *),
                          void (*done)(struct cluster *, int))
{
    struct sim_node *n = c->environment.arg;

    n->work = fn;
    n->work_done = done;
    n->work_ns = sim.now_ns + between(NS_PER_MS, 50 * NS_PER_MS);
    return 0;
}

/* --- nodes --------------------------------------------------------------------------------------
 */

/* The node is open: with all that it ever said to be durable. */
static void check_opened(struct sim_node *n)
{
    if (n->opened || n->c->repair.at_start)
        return;
    n->opened = true;
    if (log_last_index(n->c->log) < n->durable)
        violation("node %u has its log to %" PRIu64 " only; to %" PRIu64 " it was durable",
                  number_of(n), log_last_index(n->c->log), n->durable);
    trace("node %u starts: term %" PRIx64 ", log to %" PRIu64 ", applied %" PRIu64, number_of(n),
          n->c->state.term, log_last_index(n->c->log), n->c->applied_index);
}

void machine_make(struct sim_node *n)
{
    n->disk = test_disk_make(draw(UINT64_MAX));
    if (sim.drift > 0)
        n->drift = (int64_t)draw(2 * sim.drift + 1) - (int64_t)sim.drift;
    if (ring_init(&n->link.submit, BLOCKS) < 0 || ring_init(&n->link.answer, BLOCKS) < 0 ||
        wake_open(&n->link.wake) < 0)
        violation("no memory");
    for (unsigned b = 0; b < BLOCKS; b++) {
        n->block[b] = calloc(1, sizeof *n->block[b]);
        if (n->block[b] == NULL || block_init(n->block[b], 0) < 0)
            violation("no memory");
    }
    for (unsigned j = 1; j <= NODES; j++)
        sim.link[number_of(n)][j].tail = &sim.link[number_of(n)][j].head;
}

void machine_start(struct sim_node *n)
{
    const struct cluster_config config = {
        .dir = n->dir,
        .node = (uint16_t)number_of(n),
        .region = region_of(number_of(n)),
        .segment_age_ns_max = sim.segment_age_ns,
        .log = { .segment_bytes = 1 << 20, .writes_max = 8, .mark_idle_ms = 10 },
        .disk = n->disk,
        .link = &n->link,
        .links = 1,
        .bootstrap = number_of(n) <= sim.founders ? &sim.bootstrap : NULL,
        .join_cluster_id = number_of(n) > sim.founders ? sim.bootstrap.cluster_id : NULL,
        .join_epoch = n->join_epoch != 0 ? n->join_epoch : 1,
        .trailing = sim.trailing,
        .fetch_bytes_per_s = sim.fetch_bytes_per_s,
    };
    struct cluster_app app;
    const struct node_environment environment = { sim_monotonic, sim_unix, sim_random,
                                                  sim_send,      sim_post, n };
    int e;

    n->applied = n->changing = n->region_known = 0;
    n->led = n->fetching = n->opened = false;
    rot_at_start(n);
    app_start(n, &app);
    n->c = node_new(&config, &app, &environment);
    n->c->background = sim_background;
    n->work = NULL;
    e = node_open(n->c);
    if (e < 0)
        violation("node %u does not start: %s", number_of(n), n->c->error);
    check_opened(n);
    if (n->c->repair.at_start)
        trace("node %u does not start yet: %s", number_of(n), n->c->repair.note);
    test_disk_stall(n->disk, true);
    n->scrub_ns = sim.now_ns + NS_PER_S;
    n->turn_ns = sim.now_ns;
    n->disk_ns = UINT64_MAX;
}

void machine_crash(struct sim_node *n)
{
    if (n->reconciles == RECONCILES)
        n->reconciles = RECONCILE_NOT;
    if (n->opened && n->c->log == NULL) { /* its disk has failed while it opened it again */
        n->durable = n->persisted;
        trace("node %u: power cut, durable to %" PRIu64, number_of(n), n->durable);
    } else if (n->opened) {
        n->durable = log_persisted_index(n->c->log);
        if (loss_has_failed(n) && strncmp(n->c->error, "log: cut", 8) == 0)
            n->durable = n->c->log->mark.durable; /* the next start ends the cut */
        trace("node %u: power cut, durable to %" PRIu64 " of %" PRIu64, number_of(n), n->durable,
              log_last_index(n->c->log));
    } else {
        trace("node %u: power cut while it repairs its log", number_of(n));
    }
    region_remember(n);
    test_disk_power_cut(n->disk);
    for (unsigned i = 1; i <= sim.nodes; i++) {
        link_break(number_of(n), i);
        link_break(i, number_of(n));
    }
    sim.forwarded += n->c->forward.sent;
    sim.resent += n->c->forward.resent;
    node_free(n->c);
    n->c = NULL;
    app_stop(n);
    operator_crashed(n);
    while (ring_pop(&n->link.submit) != NULL || ring_pop(&n->link.answer) != NULL) {
    }
    client_lost(n);
    test_disk_power_on(n->disk, draw(UINT64_MAX));
    n->fails_at = 0;
    n->up_ns = sim.now_ns + (chance(sim.long_percent) ? between(5 * NS_PER_S, 10 * NS_PER_S)
                                                      : between(NS_PER_MS, 3 * NS_PER_S));
    sim.crashes++;
}

static void check_leader(struct sim_node *n)
{
    uint64_t term = n->c->state.term & ((1u << CLUSTER_EPOCH_SHIFT) - 1);
    uint64_t epoch = n->c->state.term >> CLUSTER_EPOCH_SHIFT;
    const struct history *h = history_of(n, n->c->state.term);
    bool leads = consensus_leads(n->c);

    if (leads && !n->led) {
        if (term >= TERMS_MAX)
            violation("term %" PRIu64, term);
        if (sim.leader[epoch][term] != 0 && sim.leader[epoch][term] != number_of(n))
            violation("term %" PRIu64 " has two leaders, nodes %u and %u", term,
                      sim.leader[epoch][term], number_of(n));
        sim.leader[epoch][term] = number_of(n);
        sim.elections++;
        if (plan_runs())
            sim.operator.next_ns = sim.now_ns;
        trace("node %u leads term %" PRIu64 ", log to %" PRIu64, number_of(n), term,
              log_last_index(n->c->log));
        for (uint64_t i = h->committed; i > n->c->applied_index; i--) {
            if (h->entry[i].in_term < n->c->state.term &&
                consensus_term(n->c, i) != h->entry[i].term)
                violation("node %u leads term %" PRIu64 " without entry %" PRIu64
                          ", which was committed",
                          number_of(n), term, i);
        }
    }
    n->led = leads;
    if (leads)
        n->led_ns = sim.now_ns;
}

static void check_fetching(struct sim_node *n)
{
    const struct fetch *f = &n->c->fetch;

    if (f->active && !n->fetching) {
        sim.fetches++;
        trace("node %u, log to %" PRIu64 ", fetches up to %llu", number_of(n),
              log_last_index(n->c->log), f->to.index);
    } else if (!f->active && n->fetching) {
        sim.fetched++;
        trace("node %u has fetched, log to %" PRIu64, number_of(n), log_last_index(n->c->log));
    }
    n->fetching = f->active;
}

/* A voter that does not have even the entry that made it a member could only stand in the way. */
static void check_promoted(const struct sim_node *n)
{
    const struct raft_configuration *all = &n->c->raft.configuration;

    for (unsigned i = 0; i < all->n; i++) {
        const struct raft_server *s = &all->servers[i];
        raft_index match = 0;

        if (s->role == RAFT_VOTER && operator_role(n->c, (unsigned)s->id) == MEMBER_STANDBY &&
            (raft_match_index(&n->c->raft, s->id, &match) != 0 ||
             match < n->c->configuration_index))
            violation("node %u promotes node %llu, which has the log to %llu only", number_of(n),
                      s->id, match);
    }
}

/* What the engine goes by is what the log says. */
static void check_configuration(struct sim_node *n)
{
    struct raft *r = &n->c->raft;
    struct raft_buffer b;

    if (r->configuration_uncommitted_index != n->changing) {
        n->changing = r->configuration_uncommitted_index;
        if (n->changing != 0 && plan_runs() && n->led)
            plan_changes(n);
        else if (n->changing != 0 && !plan_runs() && !sim.healing && chance(15))
            split();
        if (n->changing != 0 && n->led)
            check_promoted(n);
    }
    if (history_configured(n->c) > sim.newest_change_epoch ||
        (history_configured(n->c) == sim.newest_change_epoch &&
         n->c->configuration_index > sim.newest_change)) {
        sim.newest_change = n->c->configuration_index;
        sim.newest_change_epoch = history_configured(n->c);
        region_check_members();
    }
    if (n->changing != 0 || n->c->configuration_index == 0 || n->c->fetch.active)
        return;
    if (r->configuration_committed_index < n->c->configuration_index)
        violation("node %u goes by configuration %llu, but has applied %" PRIu64, number_of(n),
                  r->configuration_committed_index, n->c->configuration_index);
    if (r->configuration_committed_index > n->c->configuration_index)
        return;
    if (raft_configuration_encode(&r->configuration, &b) != 0)
        violation("no memory");
    if (b.len != n->c->configuration_bytes || memcmp(b.base, n->c->configuration, b.len) != 0)
        violation("node %u goes by another configuration than its log's at %" PRIu64, number_of(n),
                  n->c->configuration_index);
    raft_free(b.base);
}

static void take_answers(struct sim_node *n)
{
    struct block *b;

    while ((b = ring_pop(&n->link.answer)) != NULL) {
        unsigned at = 0;

        while (n->block[at] != b)
            at++;
        client_answered(n, at);
    }
}

/* The node has failed: only when its disk did. */
bool machine_check(struct sim_node *n, int e)
{
    if (e >= 0)
        return true;
    if (loss_has_failed(n)) {
        trace("node %u: a write has failed: %s", number_of(n), n->c->error);
        sim.failures++;
    } else if (e == -EILSEQ && sim.rotten == number_of(n)) {
        trace("node %u met rot where it cannot go on: %s", number_of(n), n->c->error);
    } else {
        violation("node %u failed: %s", number_of(n), n->c->error);
    }
    machine_crash(n);
    return false;
}

void machine_run(struct sim_node *n)
{
    int e;

    do {
        if (n->opened)
            n->persisted = log_persisted_index(n->c->log);
        e = node_turn(n->c);
        if (n->c->repair.at_start && n->opened) { /* what it has opened again is rotten */
            n->opened = false;
            n->durable = 0;
        }
    } while (e > 0);
    if (!machine_check(n, e))
        return;
    check_opened(n);
    if (n->opened)
        history_follow(n);
    if (n->opened && n->fenced) {
        n->led = n->fetching = false;
        n->changing = 0;
        take_answers(n);
    } else if (n->opened) {
        check_leader(n);
        region_check(n);
        check_configuration(n);
        check_fetching(n);
        take_answers(n);
    }
    n->turn_ns = true_time(n, node_deadline_ns(n->c, sim_monotonic(n)));
    if (n->turn_ns <= sim.now_ns)
        n->turn_ns = sim.now_ns + 1000;
    if (n->disk_ns == UINT64_MAX && test_disk_in_flight(n->disk) > 0)
        n->disk_ns = sim.now_ns + between(50000, sim.now_ns < n->slow_ns ? 400 * NS_PER_MS
                                                 : chance(3)             ? 50 * NS_PER_MS
                                                                         : NS_PER_MS);
}

void machine_disk(struct sim_node *n)
{
    bool ok = true;

    n->disk_ns = UINT64_MAX;
    for (unsigned i = 1; i <= sim.nodes; i++)
        sim.link[i][number_of(n)].waits = false;
    test_disk_stall(n->disk, false);
    if (n->opened)
        ok = machine_check(n, log_do_work(n->c->log, sim_monotonic(n)));
    if (!ok)
        return;
    test_disk_stall(n->disk, true);
    machine_run(n);
}
