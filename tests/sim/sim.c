/*
 * sim.c - a simulator of a cluster: the real nodes (cluster/), on disks in memory, in a network and
 * a time of its own, with everything that can go wrong following from a seed.
 *
 *   sim [-s FIRST] [-n SEEDS] [-1] [-v]    -1: until one fails; -v: with a trace
 *
 * One seed is one run, in a process of its own. It has a phase of faults (power cuts, of one or
 * all, partitions, one-way too, broken connections, slow disks, stopped processes, jumping clocks),
 * then everything heals and the cluster has to come together. Checked all the while:
 *
 *   - a term has one leader, and it has every entry that was committed in an earlier one
 *   - every node applies the same entries in the same order, without a gap
 *   - what has a receipt is at its place, with its content, on every node in the end
 *   - the hash chains are equal in the end
 *
 * A seed that fails prints one line and its trace is printed by `sim -s SEED -v`.
 *
 * Links are what TCP gives: in order, without duplicates, and a connection that breaks loses all
 * that is under way. Checkpoints are files of the real file system (in /dev/shm) and do not break.
 */
#include <assert.h>
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "cluster/internal.h"
#include "tests/lib/test_disk.h"

#define NODES        3
#define BLOCKS       8
#define INDEX_MAX    20000
#define TERMS_MAX    20000
#define RECEIPTS_MAX 20000
#define LINK_MAX     4096 /* messages under way on one link */
#define FAULTS_NS    (20ull * NS_PER_S)
#define HEAL_NS      (30ull * NS_PER_S)
#define EVENTS_MAX   20u

struct message {
    uint64_t due_ns;
    struct raft_message raft;
    struct proposal *entry[1024];
    unsigned entries, taken;
    struct message *next;
};

struct link {
    struct message *head, **tail;
    unsigned n;
    uint64_t blocked_ns; /* until then */
    bool waits;          /* for room at the receiver */
};

struct sim_node {
    struct cluster *c;
    struct disk *disk;
    struct cluster_link link;
    struct block *block[BLOCKS];
    uint64_t content[BLOCKS]; /* number of the block's first event, 0: free */
    char dir[64];
    uint64_t turn_ns, disk_ns, up_ns, stopped_ns, slow_ns;
    int64_t clock_ns; /* off the true time */
    uint64_t applied;
    bool led;
    void (*work)(struct cluster *);
    void (*work_done)(struct cluster *, int);
    uint64_t work_ns;
};

struct committed {
    uint64_t term, in_term; /* of the entry; of the first who knew it to be committed */
    uint8_t sha256[SHA256_BYTES];
    uint64_t number; /* of its first event */
    bool known;
};

struct receipt {
    uint64_t index, number;
};

static struct {
    uint64_t seed, random, now_ns, number;
    struct sim_node node[NODES + 1];
    struct link link[NODES + 1][NODES + 1];
    struct committed entry[INDEX_MAX];
    uint64_t committed;
    unsigned leader[TERMS_MAX]; /* by the term's counter */
    struct receipt receipt[RECEIPTS_MAX];
    uint64_t receipts, refused, crashes, elections, messages, withdrawn;
    uint64_t client_ns, chaos_ns;
    bool healing, verbose;
    struct cluster_bootstrap bootstrap;
} sim;

/* --- chance, time and trace ---------------------------------------------------------------------
 */

static uint64_t draw(uint64_t below)
{
    uint64_t z = (sim.random += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (z ^ (z >> 31)) % below;
}

static uint64_t between(uint64_t low, uint64_t high) { return low + draw(high - low + 1); }
static bool chance(unsigned percent) { return draw(100) < percent; }

static void say(const char *format, va_list a)
{
    printf("%10.3f ms  ", (double)sim.now_ns / 1e6);
    vprintf(format, a);
    printf("\n");
}

__attribute__((format(printf, 1, 2))) static void trace(const char *format, ...)
{
    va_list a;

    if (!sim.verbose)
        return;
    va_start(a, format);
    say(format, a);
    va_end(a);
}

__attribute__((format(printf, 1, 2), noreturn)) static void violation(const char *format, ...)
{
    va_list a;

    va_start(a, format);
    printf("seed %" PRIu64 " ", sim.seed);
    say(format, a);
    va_end(a);
    fflush(stdout);
    _exit(1);
}

static unsigned number_of(const struct sim_node *n) { return (unsigned)(n - sim.node); }

static uint64_t sim_monotonic(void *arg) { return (void)arg, sim.now_ns + NS_PER_S; }

static uint64_t sim_unix(void *arg)
{
    const struct sim_node *n = arg;

    return 1790000000ull * NS_PER_S + sim.now_ns +
           (uint64_t)(n->clock_ns + (int64_t)NS_PER_S * 3600);
}

static void sim_random(void *arg, void *ret, size_t bytes)
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

/* --- the network --------------------------------------------------------------------------------
 */

static void message_free(struct message *m)
{
    for (unsigned i = m->taken; i < m->entries; i++)
        proposal_free(m->entry[i]);
    free(m);
}

static void link_break(unsigned from, unsigned to)
{
    struct link *l = &sim.link[from][to];

    while (l->head != NULL) {
        struct message *m = l->head;

        l->head = m->next;
        message_free(m);
    }
    l->tail = &l->head;
    l->n = 0;
    l->waits = false;
}

static int sim_send(void *arg, const struct raft_message *raft)
{
    struct sim_node *n = arg;
    unsigned from = number_of(n), to = (unsigned)raft->server_id;
    struct link *l = &sim.link[from][to];
    struct message *m;
    uint64_t last_ns = 0;

    assert(to >= 1 && to <= NODES && to != from);
    if (l->n == LINK_MAX || sim.now_ns < l->blocked_ns || sim.node[to].c == NULL ||
        (!sim.healing && draw(2000) == 0))
        link_break(from, to);
    if (sim.now_ns < l->blocked_ns || sim.node[to].c == NULL)
        return 0;
    m = calloc(1, sizeof *m);
    m->raft = *raft;
    m->raft.server_id = from;
    m->raft.server_address = "";
    if (raft->type == RAFT_APPEND_ENTRIES) {
        m->raft.append_entries.entries = NULL;
        assert(raft->append_entries.n_entries <= 1024);
        for (unsigned i = 0; i < raft->append_entries.n_entries; i++) {
            struct peer_entry e;
            int rc = node_entry(n->c, raft->append_entries.prev_log_index + 1 + i, &e);

            if (rc < 0 && test_disk_is_off(n->disk)) {
                message_free(m);
                return rc;
            }
            if (rc < 0)
                violation("node %u has no entry %llu to send: %s", from,
                          raft->append_entries.prev_log_index + 1 + i, strerror(-rc));
            m->entry[i] =
                proposal_new((enum log_type)e.record->type, e.payload, e.record->payload_bytes);
            m->entry[i]->write.record = *e.record;
            m->entries++;
        }
    }
    for (struct message *x = l->head; x != NULL; x = x->next)
        last_ns = x->due_ns;
    m->due_ns = sim.now_ns + between(50000, chance(3) ? 60 * NS_PER_MS : 2 * NS_PER_MS);
    if (m->due_ns < last_ns)
        m->due_ns = last_ns;
    *l->tail = m;
    l->tail = &m->next;
    l->n++;
    sim.messages++;
    return 0;
}

/* --- the application ----------------------------------------------------------------------------
 */

static int app_ready(void *arg, size_t n) { return (void)arg, (void)n, 0; }

static int app_admit(void *arg, struct block *b, uint64_t index)
{
    return (void)arg, (void)index, (int)b->events;
}

static uint64_t number_in(const struct log_record *r, const void *payload)
{
    struct block_view v;
    uint64_t number = 0;

    if (r->type == LOG_EVENTS && block_view(&v, payload, r->payload_bytes) == 0)
        memcpy(&number, v.payload + v.desc[0].offset, sizeof number);
    return number;
}

static int app_apply(void *arg, const struct log_record *r, const void *payload, bool ours)
{
    struct sim_node *n = arg;
    struct committed *e = &sim.entry[r->index % INDEX_MAX];

    (void)ours;
    if (r->index >= INDEX_MAX)
        violation("more entries than the simulator holds");
    if (n->applied != 0 && r->index != n->applied + 1)
        violation("node %u applies %" PRIu64 " after %" PRIu64, number_of(n), r->index, n->applied);
    n->applied = r->index;
    if (!e->known) {
        *e = (struct committed){ .term = r->term,
                                 .in_term = n->c->state.term,
                                 .number = number_in(r, payload),
                                 .known = true };
        memcpy(e->sha256, r->payload_sha256, sizeof e->sha256);
        if (r->index > sim.committed)
            sim.committed = r->index;
    } else if (e->term != r->term || memcmp(e->sha256, r->payload_sha256, sizeof e->sha256) != 0) {
        violation("node %u applies another entry %" PRIu64 " (term %" PRIx64 ", not %" PRIx64 ")",
                  number_of(n), r->index, r->term, e->term);
    }
    return 0;
}

static int app_open(void *arg, const uint8_t id[16], uint64_t last_index, uint64_t *ret_covered)
{
    (void)arg, (void)id, (void)last_index;
    *ret_covered = UINT64_MAX; /* what the checkpoint covers is not asked for again */
    return 0;
}

static void app_failed(void *arg, const char *sentence) { (void)arg, (void)sentence; }
static void app_save(void *arg, struct cluster_checkpoint *k) { (void)arg, k->settings = 0; }
static int app_load(void *arg, const struct cluster_checkpoint *k) { return (void)arg, (void)k, 0; }

/* --- nodes --------------------------------------------------------------------------------------
 */

static void node_start(struct sim_node *n)
{
    const struct cluster_config config = {
        .dir = n->dir,
        .node = (uint16_t)number_of(n),
        .region = 1,
        .segment_age_ns_max = 5 * NS_PER_S,
        .log = { .segment_bytes = 1 << 20, .writes_max = 8, .mark_idle_ms = 10 },
        .disk = n->disk,
        .link = &n->link,
        .links = 1,
        .bootstrap = &sim.bootstrap,
    };
    const struct cluster_app app = { n,        app_ready,  app_admit, app_apply,
                                     app_open, app_failed, app_save,  app_load };
    const struct node_environment environment = { sim_monotonic, sim_unix, sim_random, sim_send,
                                                  n };
    int e;

    n->applied = 0;
    n->led = false;
    n->c = node_new(&config, &app, &environment);
    n->c->background = sim_background;
    n->work = NULL;
    e = node_open(n->c);
    if (e < 0)
        violation("node %u does not start: %s", number_of(n), n->c->error);
    trace("node %u starts: term %" PRIx64 ", log to %" PRIu64 ", applied %" PRIu64, number_of(n),
          n->c->state.term, log_last_index(n->c->log), n->c->applied_index);
    test_disk_stall(n->disk, true);
    n->turn_ns = sim.now_ns;
    n->disk_ns = UINT64_MAX;
}

static void node_crash(struct sim_node *n)
{
    trace("node %u: power cut", number_of(n));
    test_disk_power_cut(n->disk);
    for (unsigned i = 1; i <= NODES; i++) {
        link_break(number_of(n), i);
        link_break(i, number_of(n));
    }
    node_free(n->c);
    n->c = NULL;
    while (ring_pop(&n->link.submit) != NULL || ring_pop(&n->link.answer) != NULL) {
    }
    memset(n->content, 0, sizeof n->content);
    test_disk_power_on(n->disk, draw(UINT64_MAX));
    n->up_ns = sim.now_ns + between(NS_PER_MS, 3 * NS_PER_S);
    sim.crashes++;
}

static void check_leader(struct sim_node *n)
{
    uint64_t term = n->c->state.term & ((1u << CLUSTER_EPOCH_SHIFT) - 1);
    bool leads = consensus_leads(n->c);

    if (leads && !n->led) {
        if (term >= TERMS_MAX)
            violation("term %" PRIu64, term);
        if (sim.leader[term] != 0 && sim.leader[term] != number_of(n))
            violation("term %" PRIu64 " has two leaders, nodes %u and %u", term, sim.leader[term],
                      number_of(n));
        sim.leader[term] = number_of(n);
        sim.elections++;
        trace("node %u leads term %" PRIu64 ", log to %" PRIu64, number_of(n), term,
              log_last_index(n->c->log));
        for (uint64_t i = sim.committed; i > n->c->applied_index; i--) {
            if (sim.entry[i].in_term < n->c->state.term &&
                consensus_term(n->c, i) != sim.entry[i].term)
                violation("node %u leads term %" PRIu64 " without entry %" PRIu64
                          ", which was committed",
                          number_of(n), term, i);
        }
    }
    n->led = leads;
}

static void take_answers(struct sim_node *n)
{
    struct block *b;

    while ((b = ring_pop(&n->link.answer)) != NULL) {
        unsigned at = 0;

        while (n->block[at] != b)
            at++;
        if (b->verdict[0] == VERDICT_COMMITTED) {
            const struct committed *e = &sim.entry[b->index];

            if (!e->known || e->number != n->content[at] || e->term != b->term)
                violation("node %u gives a receipt for block %" PRIu64 " at %" PRIu64
                          ", where block %" PRIu64 " is",
                          number_of(n), n->content[at], b->index, e->number);
            assert(sim.receipts < RECEIPTS_MAX);
            sim.receipt[sim.receipts++] = (struct receipt){ b->index, n->content[at] };
        } else {
            sim.refused++;
        }
        n->content[at] = 0;
    }
}

/* The node has failed: only when its disk did. */
static void check_error(struct sim_node *n, int e)
{
    if (e < 0)
        violation("node %u failed: %s", number_of(n), n->c->error);
}

static void node_run(struct sim_node *n)
{
    int e;

    while ((e = node_turn(n->c)) > 0) {
    }
    check_error(n, e);
    check_leader(n);
    take_answers(n);
    n->turn_ns = node_deadline_ns(n->c, sim.now_ns + NS_PER_S) - NS_PER_S;
    if (n->turn_ns <= sim.now_ns)
        n->turn_ns = sim.now_ns + 1000;
    if (n->disk_ns == UINT64_MAX && test_disk_in_flight(n->disk) > 0)
        n->disk_ns = sim.now_ns + between(50000, sim.now_ns < n->slow_ns ? 400 * NS_PER_MS
                                                 : chance(3)             ? 50 * NS_PER_MS
                                                                         : NS_PER_MS);
}

static void node_disk(struct sim_node *n)
{
    n->disk_ns = UINT64_MAX;
    for (unsigned i = 1; i <= NODES; i++)
        sim.link[i][number_of(n)].waits = false;
    test_disk_stall(n->disk, false);
    check_error(n, log_do_work(n->c->log, sim_monotonic(n)));
    test_disk_stall(n->disk, true);
    node_run(n);
}

/* --- what happens -------------------------------------------------------------------------------
 */

static void deliver(unsigned from, unsigned to)
{
    struct link *l = &sim.link[from][to];
    struct sim_node *n = &sim.node[to];
    struct message *m = l->head;
    unsigned taken;
    int e;

    if (sim.now_ns < l->blocked_ns) {
        link_break(from, to);
        return;
    }
    e = consensus_receive(n->c, &m->raft, m->entry + m->taken, &taken);
    m->taken += taken;
    if (e == -EAGAIN) {
        l->waits = true;
        if (n->disk_ns == UINT64_MAX)
            n->disk_ns = sim.now_ns + NS_PER_MS;
        return;
    }
    if (e == -EBADMSG)
        violation("node %u does not believe node %u", to, from);
    check_error(n, e);
    l->head = m->next;
    if (l->head == NULL)
        l->tail = &l->head;
    l->n--;
    message_free(m);
    node_run(n);
}

static void block_fill(struct block *b, uint64_t first, uint32_t n)
{
    block_reset(b);
    for (uint32_t e = 0; e < n; e++) {
        uint64_t number = first + e;

        memset(block_payload(b) + b->bytes, (int)(number & 0xff), 64);
        memcpy(block_payload(b) + b->bytes, &number, sizeof number);
        b->desc[e] = (struct block_desc){
            .key = { number, ~number }, .offset = b->bytes, .bytes = 64, .type = 1
        };
        b->type[e] = 1;
        b->request_of[e] = REQUEST_NONE;
        b->by_type[1]++;
        b->bytes += 64;
        b->events++;
    }
    memset(b->verdict, VERDICT_COMMITTED, b->events);
    block_seal(b, 1, 1);
}

static void client(void)
{
    struct sim_node *n = &sim.node[between(1, NODES)];
    uint32_t events = (uint32_t)between(1, EVENTS_MAX);

    sim.client_ns = sim.now_ns + between(NS_PER_MS, 20 * NS_PER_MS);
    for (unsigned i = 0; i < BLOCKS && n->c != NULL; i++) {
        if (n->content[i] != 0)
            continue;
        n->content[i] = sim.number + 1;
        block_fill(n->block[i], sim.number + 1, events);
        sim.number += events;
        if (!ring_push(&n->link.submit, n->block[i]))
            assert(!"the ring holds all blocks");
        n->turn_ns = sim.now_ns;
        return;
    }
}

static void partition(void)
{
    uint64_t until = sim.now_ns + between(50 * NS_PER_MS, 3 * NS_PER_S);
    unsigned a = (unsigned)between(1, NODES);
    bool out = chance(70), in = !out || chance(70);

    trace("node %u is cut off%s%s until %.3f ms", a, out ? ", says nothing" : "",
          in ? ", hears nothing" : "", (double)until / 1e6);
    for (unsigned i = 1; i <= NODES; i++) {
        if (out)
            sim.link[a][i].blocked_ns = until;
        if (in)
            sim.link[i][a].blocked_ns = until;
    }
}

static void chaos(void)
{
    struct sim_node *n = &sim.node[between(1, NODES)];
    uint64_t what = draw(100);

    sim.chaos_ns = sim.now_ns + between(20 * NS_PER_MS, 800 * NS_PER_MS);
    if (what < 25) {
        if (n->c != NULL)
            node_crash(n);
    } else if (what < 32) {
        for (n = &sim.node[1]; n <= &sim.node[NODES]; n++) {
            if (n->c != NULL && chance(80))
                node_crash(n);
        }
    } else if (what < 60) {
        partition();
    } else if (what < 70) {
        link_break((unsigned)between(1, NODES), (unsigned)between(1, NODES));
    } else if (what < 82) {
        n->slow_ns = sim.now_ns + between(100 * NS_PER_MS, 3 * NS_PER_S);
        trace("node %u has a slow disk", number_of(n));
    } else if (what < 94) {
        n->stopped_ns = sim.now_ns + between(50 * NS_PER_MS, 2 * NS_PER_S);
        trace("node %u is stopped", number_of(n));
    } else {
        n->clock_ns = (int64_t)between(0, 1200 * NS_PER_S) - (int64_t)(600 * NS_PER_S);
    }
}

static void heal(void)
{
    sim.healing = true;
    trace("all heals");
    for (unsigned i = 1; i <= NODES; i++) {
        struct sim_node *n = &sim.node[i];

        n->slow_ns = n->stopped_ns = 0;
        if (n->c == NULL)
            n->up_ns = sim.now_ns;
        for (unsigned j = 1; j <= NODES; j++)
            sim.link[i][j].blocked_ns = 0;
    }
}

static uint64_t later(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* When node n has something to do, at the earliest. */
static uint64_t node_next(const struct sim_node *n)
{
    uint64_t at = n->turn_ns;

    if (n->c == NULL)
        return n->up_ns;
    if (n->disk_ns < at)
        at = n->disk_ns;
    if (n->work != NULL && n->work_ns < at)
        at = n->work_ns;
    for (unsigned i = 1; i <= NODES; i++) {
        const struct link *l = &sim.link[i][number_of(n)];

        if (l->head != NULL && !l->waits && l->head->due_ns < at)
            at = l->head->due_ns;
    }
    return later(at, n->stopped_ns);
}

static void node_do(struct sim_node *n)
{
    if (n->c == NULL) {
        node_start(n);
        return;
    }
    if (n->work != NULL && n->work_ns <= sim.now_ns) {
        void (*work)(struct cluster *) = n->work;

        n->work = NULL;
        work(n->c);
        n->work_done(n->c, 0);
        return;
    }
    if (n->disk_ns <= sim.now_ns) {
        node_disk(n);
        return;
    }
    for (unsigned i = 1; i <= NODES; i++) {
        const struct link *l = &sim.link[i][number_of(n)];

        if (l->head != NULL && !l->waits && l->head->due_ns <= sim.now_ns) {
            deliver(i, number_of(n));
            return;
        }
    }
    node_run(n);
}

/* The next thing that happens, whatever it is. */
static void step(void)
{
    struct sim_node *next = NULL;
    uint64_t at = sim.client_ns;

    if (!sim.healing && sim.chaos_ns < at)
        at = sim.chaos_ns;
    for (unsigned i = 1; i <= NODES; i++) {
        if (node_next(&sim.node[i]) < at) {
            next = &sim.node[i];
            at = node_next(next);
        }
    }
    sim.now_ns = later(at, sim.now_ns);
    if (next != NULL)
        node_do(next);
    else if (at == sim.client_ns)
        client();
    else
        chaos();
}

/* --- a run --------------------------------------------------------------------------------------
 */

static bool together(void)
{
    uint8_t first[SHA256_BYTES], other[SHA256_BYTES];

    for (unsigned i = 1; i <= NODES; i++) {
        struct cluster *c = sim.node[i].c;

        if (c == NULL || c->applied_index != log_last_index(c->log) ||
            c->applied_index != sim.committed || c->appended_n > 0)
            return false;
        log_digest(c->log, i == 1 ? first : other);
        if (i > 1 && memcmp(first, other, sizeof first) != 0)
            violation("the chains of nodes 1 and %u differ at %" PRIu64, i, sim.committed);
    }
    return true;
}

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *f)
{
    (void)s, (void)flag, (void)f;
    return remove(path);
}

static void sim_open(uint64_t seed)
{
    sim.seed = sim.random = seed;
    sim_random(NULL, sim.bootstrap.cluster_id, sizeof sim.bootstrap.cluster_id);
    sim.bootstrap.time_ns = 1790000000ull * NS_PER_S;
    for (unsigned i = 1; i <= NODES; i++) {
        struct sim_node *n = &sim.node[i];

        sim.bootstrap.member[sim.bootstrap.members++] = (uint16_t)i;
        n->disk = test_disk_make(draw(UINT64_MAX));
        snprintf(n->dir, sizeof n->dir, "/dev/shm/sluice-sim-%d-%u", (int)getpid(), i);
        if (ring_init(&n->link.submit, BLOCKS) < 0 || ring_init(&n->link.answer, BLOCKS) < 0 ||
            wake_open(&n->link.wake) < 0)
            violation("no memory");
        for (unsigned b = 0; b < BLOCKS; b++) {
            n->block[b] = calloc(1, sizeof *n->block[b]);
            if (n->block[b] == NULL || block_init(n->block[b], 0) < 0)
                violation("no memory");
        }
        for (unsigned j = 1; j <= NODES; j++)
            sim.link[i][j].tail = &sim.link[i][j].head;
    }
    for (unsigned i = 1; i <= NODES; i++)
        node_start(&sim.node[i]);
    sim.chaos_ns = 2 * NS_PER_S;
}

static void sim_close(void)
{
    for (unsigned i = 1; i <= NODES; i++) {
        struct sim_node *n = &sim.node[i];

        for (unsigned j = 1; j <= NODES; j++)
            link_break(i, j);
        test_disk_stall(n->disk, false);
        node_free(n->c);
        test_disk_free(n->disk);
        for (unsigned b = 0; b < BLOCKS; b++) {
            block_fini(n->block[b]);
            free(n->block[b]);
        }
        ring_fini(&n->link.submit);
        ring_fini(&n->link.answer);
        wake_close(&n->link.wake);
        nftw(n->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    }
}

static void say_nodes(void)
{
    for (unsigned i = 1; i <= NODES; i++) {
        const struct cluster *c = sim.node[i].c;

        if (c == NULL)
            continue;
        trace("node %u: state %d, term %" PRIx64 ", log to %" PRIu64 ", durable %" PRIu64
              ", committed %" PRIu64 ", applied %" PRIu64
              ", %u not applied, lead %d, %s, answers %d",
              i, c->raft.state, c->state.term, log_last_index(c->log), log_persisted_index(c->log),
              c->commit_index, c->applied_index, c->appended_n, c->lead,
              c->arrived ? "blocks wait" : "no block waits", c->answers != NULL);
    }
}

static void run(uint64_t seed)
{
    uint64_t receipts;

    sim_open(seed);
    while (sim.now_ns < FAULTS_NS)
        step();
    heal();
    receipts = sim.receipts;
    while (sim.now_ns < FAULTS_NS + HEAL_NS && sim.receipts < receipts + 50)
        step();
    if (sim.receipts < receipts + 50) {
        say_nodes();
        violation("all is well again for %llu s, but there are only %" PRIu64 " receipts",
                  HEAL_NS / NS_PER_S, sim.receipts - receipts);
    }
    sim.client_ns = UINT64_MAX;
    while (sim.now_ns < FAULTS_NS + 2 * HEAL_NS && !together())
        step();
    say_nodes();
    if (!together())
        violation("the nodes do not come together: %" PRIu64 ", %" PRIu64 " and %" PRIu64
                  " applied of %" PRIu64,
                  sim.node[1].applied, sim.node[2].applied, sim.node[3].applied, sim.committed);
    for (uint64_t i = 0; i < sim.receipts; i++) {
        if (sim.entry[sim.receipt[i].index].number != sim.receipt[i].number)
            violation("block %" PRIu64 " has a receipt for %" PRIu64 " and is not there",
                      sim.receipt[i].number, sim.receipt[i].index);
    }
    trace("%" PRIu64 " entries, %" PRIu64 " receipts, %" PRIu64 " refused, %" PRIu64
          " elections, %" PRIu64 " crashes, %" PRIu64 " messages",
          sim.committed, sim.receipts, sim.refused, sim.elections, sim.crashes, sim.messages);
    sim_close();
}

int main(int argc, char **argv)
{
    uint64_t first = (uint64_t)time(NULL) * 1000, seeds = 0, bad = 0, done = 0;
    bool until_bad = false, given = false;
    int opt;

    while ((opt = getopt(argc, argv, "s:n:1v")) != -1) {
        if (opt == 's')
            first = strtoull(optarg, NULL, 10), given = true;
        else if (opt == 'n')
            seeds = strtoull(optarg, NULL, 10);
        else if (opt == '1')
            until_bad = true;
        else if (opt == 'v')
            sim.verbose = true;
        else
            return 2;
    }
    if (seeds == 0)
        seeds = given ? 1 : 100;
    for (uint64_t seed = first; seed < first + seeds && !(until_bad && bad > 0); seed++) {
        fflush(stdout);
        pid_t pid = fork();
        int status = 0;

        if (pid == 0) {
            run(seed);
            exit(0);
        }
        if (pid < 0 || waitpid(pid, &status, 0) < 0)
            return 1;
        if (WIFSIGNALED(status))
            printf("seed %" PRIu64 " ended by signal %d\n", seed, WTERMSIG(status));
        bad += status != 0;
        done++;
    }
    printf("%" PRIu64 " seeds from %" PRIu64 ", %" PRIu64 " failed\n", done, first, bad);
    return bad > 0;
}
