/*
 * sim.c - a simulator of a cluster: the real nodes (cluster/), on disks in memory, in a network and
 * a time of its own, with everything that can go wrong following from a seed.
 *
 *   sim [-s FIRST] [-n SEEDS] [-j JOBS] [-1] [-v]    -1: until one fails; -v: with a trace
 *
 * One seed is one run, in a process of its own. It has a phase of faults (power cuts, of one or
 * all, partitions, one-way too, rot, old files that come back, slow disks, full ones and ones that
 * fail, machines that are lost, broken connections, stopped processes, clocks that jump and drift),
 * in which an operator changes members and moves the lead; then everything heals, and the cluster
 * has to come together, with the members that are asked for in the end. Checked all the while:
 *
 *   - a term has one leader, and it has every entry that was committed in an earlier one
 *   - every node applies the same entries in the same order, without a gap
 *   - what has a receipt is at its place in the committed log, with its content
 *   - no event is in the committed log twice; a duplicate and a conflict are answered with the
 *     first place, once that is committed
 *   - what a leader says to be durable in both regions is so, on majorities of both
 *   - every block is answered once; when all is well again, a member that does not lead refuses
 *     none
 *   - the configuration that a node's engine goes by is its log's
 *   - in the end all members' hash chains, segments, settings and dedupe indexes are equal
 *
 * A seed that fails prints one line and its trace is printed by `sim -s SEED -v`.
 *
 * Links are what TCP gives: in order, without duplicates, and a connection that breaks loses all
 * that is under way. Checkpoints and dedupe indexes are files of the
 * real file system (in /dev/shm) and do not break; but an index is removed now and then.
 */
#include <assert.h>
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/report.h"
#include "cluster/log_private.h"
#include "tests/lib/test_disk.h"
#include "tests/sim/sim.h"

#define DIRS "/dev/shm/sluice-sim-%d-%u" /* process, node */

struct sim sim;

/* --- chance, time and trace ---------------------------------------------------------------------
 */

uint64_t draw(uint64_t below)
{
    uint64_t z = (sim.random += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (z ^ (z >> 31)) % below;
}

uint64_t between(uint64_t low, uint64_t high) { return low + draw(high - low + 1); }
bool chance(unsigned percent) { return draw(100) < percent; }

static void say(const char *format, va_list a)
{
    printf("%10.3f ms  ", (double)sim.now_ns / 1e6);
    vprintf(format, a);
    printf("\n");
}

void trace(const char *format, ...)
{
    va_list a;

    if (!sim.verbose)
        return;
    va_start(a, format);
    say(format, a);
    va_end(a);
}

void violation(const char *format, ...)
{
    va_list a;

    va_start(a, format);
    printf("seed %" PRIu64 " ", sim.seed);
    say(format, a);
    va_end(a);
    fflush(stdout);
    _exit(1);
}

/* --- what happens -------------------------------------------------------------------------------
 */

struct sim_node *the_leader(void)
{
    for (unsigned i = 1; i <= sim.nodes; i++) {
        if (sim.node[i].c != NULL && sim.node[i].led)
            return &sim.node[i];
    }
    return NULL;
}

/* While a node fetches, it and the leader are hit more often. */
static struct sim_node *victim(void)
{
    struct sim_node *n = &sim.node[between(1, sim.nodes)], *leader = the_leader(), *fetching = NULL;

    for (unsigned i = 1; i <= sim.nodes; i++) {
        if (sim.node[i].c != NULL && sim.node[i].fetching)
            fetching = &sim.node[i];
    }
    if (fetching != NULL && leader != NULL && chance(50))
        n = chance(50) ? fetching : leader;
    return n;
}

static void partition(void)
{
    uint64_t until = sim.now_ns + between(50 * NS_PER_MS, 3 * NS_PER_S);
    unsigned a = number_of(victim());
    bool out = chance(70), in = !out || chance(70);

    trace("node %u is cut off%s%s until %.3f ms", a, out ? ", says nothing" : "",
          in ? ", hears nothing" : "", (double)until / 1e6);
    for (unsigned i = 1; i <= sim.nodes; i++) {
        if (out)
            sim.link[a][i].blocked_ns = until;
        if (in)
            sim.link[i][a].blocked_ns = until;
    }
}

static bool one_is_down_for_long(void)
{
    for (unsigned i = 1; i <= sim.nodes; i++) {
        if (sim.node[i].c == NULL && !sim.node[i].gone && sim.node[i].up_ns > sim.now_ns + NS_PER_S)
            return sim.long_percent > 0;
    }
    return false;
}

/* Into two groups that do not hear each other. */
void split(void)
{
    uint64_t until = sim.now_ns + between(50 * NS_PER_MS, 3 * NS_PER_S),
             one = draw(2u << sim.nodes);

    trace("groups: %" PRIx64 " and the others, until %.3f ms", one, (double)until / 1e6);
    for (unsigned i = 1; i <= sim.nodes; i++) {
        for (unsigned j = 1; j <= sim.nodes; j++) {
            if (((one >> i) & 1) != ((one >> j) & 1))
                sim.link[i][j].blocked_ns = until;
        }
    }
}

static void chaos(void)
{
    struct sim_node *n = victim();
    uint64_t what = draw(100);

    sim.chaos_ns = sim.now_ns + between(20 * NS_PER_MS, 800 * NS_PER_MS);
    if (chance(10))
        rot_running(n);
    for (unsigned i = 1; i <= sim.nodes; i++) {
        rot_remember(&sim.node[i]);
        if (sim.now_ns >= sim.node[i].full_ns)
            loss_make_room(&sim.node[i]);
    }
    if (!plan_runs() && chance(sim.loss_percent)) {
        if (chance(10))
            loss_of_machine(n);
        else if (chance(50))
            loss_fill(n);
        else
            loss_fail_write(n);
        return;
    }
    if (sim.two && chance(15)) {
        if (chance(50))
            loss_of_most();
        region_fault();
        return;
    }
    if (one_is_down_for_long() && chance(80)) /* the others are to get on meanwhile */
        return;
    if (what < 25) {
        if (n->c != NULL)
            machine_crash(n);
    } else if (what < 32) {
        for (n = &sim.node[1]; n <= &sim.node[sim.nodes]; n++) {
            if (n->c != NULL && chance(80))
                machine_crash(n);
        }
    } else if (what < 52) {
        partition();
    } else if (what < 60) {
        split();
    } else if (what < 70) {
        link_break((unsigned)between(1, sim.nodes), (unsigned)between(1, sim.nodes));
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
    sim.fetch_bytes_per_s = 0; /* it may be below what is added meanwhile */
    trace("all heals");
    for (unsigned i = 1; i <= sim.nodes; i++) {
        struct sim_node *n = &sim.node[i];

        n->slow_ns = n->stopped_ns = 0;
        loss_make_room(n);
        n->fails_at = 0;
        test_disk_fault_at(n->disk, TEST_DISK_NEVER, TEST_DISK_ERROR, 0, 0);
        if (n->gone)
            continue;
        if (n->c == NULL && n->up_ns != UINT64_MAX)
            n->up_ns = sim.now_ns;
        else if (n->c == NULL)
            continue; /* it has no place yet */
        else
            n->c->config.fetch_bytes_per_s = 0;
        for (unsigned j = 1; j <= sim.nodes; j++)
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
    if (n->store_ns < at)
        at = n->store_ns;
    if (n->scrub_ns < at)
        at = n->scrub_ns;
    for (unsigned i = 1; i <= sim.nodes; i++) {
        const struct link *l = &sim.link[i][number_of(n)];

        if (l->head != NULL && !l->waits && l->head->due_ns < at)
            at = l->head->due_ns;
    }
    return later(at, n->stopped_ns);
}

static void node_do(struct sim_node *n)
{
    if (n->c == NULL) {
        machine_start(n);
        return;
    }
    if (n->work != NULL && n->work_ns <= sim.now_ns) {
        void (*work)(struct cluster *) = n->work;

        n->work = NULL;
        work(n->c);
        n->work_done(n->c, 0);
        return;
    }
    if (n->store_ns <= sim.now_ns) {
        app_work(n);
        return;
    }
    if (n->scrub_ns <= sim.now_ns) {
        rot_scrub(n);
        return;
    }
    if (n->disk_ns <= sim.now_ns) {
        machine_disk(n);
        return;
    }
    for (unsigned i = 1; i <= sim.nodes; i++) {
        const struct link *l = &sim.link[i][number_of(n)];

        if (l->head != NULL && !l->waits && l->head->due_ns <= sim.now_ns) {
            deliver(i, number_of(n));
            return;
        }
    }
    machine_run(n);
}

/* The next thing that happens, whatever it is. */
static void step(void)
{
    struct sim_node *next = NULL;
    uint64_t at = sim.client_ns;

    if (!sim.healing && sim.chaos_ns < at)
        at = sim.chaos_ns;
    if (sim.operator.next_ns<at)
        at = sim.operator.next_ns;
    if (sim.failover_ns < at)
        at = sim.failover_ns;
    for (unsigned i = 1; i <= sim.nodes; i++) {
        if (node_next(&sim.node[i]) < at) {
            next = &sim.node[i];
            at = node_next(next);
        }
    }
    sim.now_ns = later(at, sim.now_ns);
    if (next != NULL)
        node_do(next);
    else if (at == sim.client_ns)
        client_send();
    else if (at == sim.operator.next_ns)
        operator_ask();
    else if (at == sim.failover_ns)
        failover_ask();
    else
        chaos();
}

/* --- a run --------------------------------------------------------------------------------------
 */

static bool is_newer(const struct cluster *a, const struct cluster *b)
{
    uint64_t ea = history_configured(a), eb = history_configured(b);

    return ea != eb ? ea > eb : a->configuration_index > b->configuration_index;
}

/* Those who are members by the newest configuration that anybody has applied. */
int newest_members(struct member ret[CLUSTER_MEMBERS_MAX])
{
    const struct cluster *newest = sim.node[1].c;

    for (unsigned i = 2; i <= sim.nodes; i++) {
        const struct cluster *c = sim.node[i].c;

        if (newest == NULL || (c != NULL && is_newer(c, newest)))
            newest = c;
    }
    return newest != NULL ? operator_members(newest, ret) : 0;
}

static bool all_answered(void)
{
    for (unsigned i = 1; i <= sim.nodes; i++) {
        for (unsigned b = 0; b < BLOCKS; b++) {
            if (sim.node[i].sent[b].events != 0)
                return false;
        }
    }
    return true;
}

static bool together(void)
{
    uint8_t first[SHA256_BYTES], other[SHA256_BYTES];
    struct member m[CLUSTER_MEMBERS_MAX];
    int n = newest_members(m);

    for (int i = 0; i < n; i++) {
        struct cluster *c = sim.node[m[i].node].c;

        if (c == NULL || c->repair.at_start || c->repair.active || c->recovery.fenced ||
            c->state.term >> CLUSTER_EPOCH_SHIFT != sim.newest->epoch ||
            c->applied_index != log_last_index(c->log) ||
            c->applied_index != sim.newest->committed || c->appended_n > 0 ||
            (sim.two && c->region.index < sim.newest->committed))
            return false;
        log_digest(c->log, i == 0 ? first : other);
        if (i > 0 && memcmp(first, other, sizeof first) != 0)
            violation("the chains of nodes %u and %u differ at %" PRIu64, m[0].node, m[i].node,
                      sim.newest->committed);
    }
    return n > 0;
}

/* The same content makes the same segments, whoever led, whatever was fetched or mended. */
static void check_segments(const struct sim_node *n, const struct sim_node *other)
{
    const struct segment_list *a = &n->c->log->segments, *b = &other->c->log->segments;
    size_t i = 0;

    while (i < a->n && i < b->n && a->at[i].first == b->at[i].first &&
           a->at[i].epoch == b->at[i].epoch)
        i++;
    if (i < a->n || i < b->n)
        violation("nodes %u and %u have %zu and %zu segments, and differ in number %zu",
                  number_of(n), number_of(other), a->n, b->n, i + 1);
}

static void check_end(void)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    int n = newest_members(m);

    for (int i = 0; i < n; i++) {
        check_segments(&sim.node[m[i].node], &sim.node[m[0].node]);
        app_check_end(&sim.node[m[i].node], &sim.node[m[0].node]);
    }
}

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *f)
{
    (void)s, (void)flag, (void)f;
    return remove(path);
}

void remove_dir(const char *dir) { nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS); }

static void remove_dirs(pid_t pid)
{
    char dir[64];

    for (unsigned i = 1; i <= NODES; i++) {
        snprintf(dir, sizeof dir, DIRS, (int)pid, i);
        remove_dir(dir);
    }
}

/* Half of the runs have nodes that forget so soon, and are down for so long, that others have to
 * fetch. */
static void draw_kind(void)
{
    sim.segment_age_ns = 5 * NS_PER_S;
    if (chance(50)) {
        sim.trailing = (unsigned)between(5, 100);
        sim.segment_age_ns = between(NS_PER_S / 2, 3 * NS_PER_S);
        sim.long_percent = (unsigned)between(0, 50);
        sim.to_leader_percent = (unsigned)between(0, 80);
        if (chance(75))
            sim.fetch_bytes_per_s = between(100 << 10, 500 << 10);
    }
    if (chance(50))
        sim.rot_percent = (unsigned)between(5, 60);
    if (chance(50))
        sim.loss_percent = (unsigned)between(5, 40);
    if (chance(50))
        sim.drift = between(1, 20);
}

static void sim_open(uint64_t seed)
{
    sim.seed = sim.random = seed;
    sim.two = chance(30);
    sim.founders = sim.two ? 2 * FOUNDERS : FOUNDERS;
    sim.nodes = sim.two ? 2 * FOUNDERS + chance(50) : chance(70) ? FOUNDERS + JOINERS : FOUNDERS;
    sim.spare_region = (uint8_t)between(1, 2);
    sim.wan_ns = between(5 * NS_PER_MS, 80 * NS_PER_MS);
    remove_dirs(getpid()); /* of a process of that number that was killed */
    sim_random(NULL, sim.bootstrap.cluster_id, sizeof sim.bootstrap.cluster_id);
    sim.bootstrap.time_ns = 1790000000ull * NS_PER_S;
    draw_kind();
    for (unsigned i = 1; i <= NODES; i++) {
        if (i <= sim.founders)
            sim.bootstrap.member[sim.bootstrap.members++] = operator_member(i);
        snprintf(sim.node[i].dir, sizeof sim.node[i].dir, DIRS, (int)getpid(), i);
        machine_make(&sim.node[i]);
    }
    for (unsigned i = 1; i <= sim.nodes; i++)
        machine_start(&sim.node[i]);
    sim.chaos_ns = 2 * NS_PER_S;
    sim.operator.next_ns = NS_PER_S;
    sim.fails_over = sim.two && chance(60);
    sim.failover_ns = sim.fails_over ? between(2 * NS_PER_S, 8 * NS_PER_S) : UINT64_MAX;
    if (!sim.two && sim.nodes > FOUNDERS && chance(5))
        plan_begin();
}

static void sim_close(void)
{
    for (unsigned i = 1; i <= NODES; i++) {
        struct sim_node *n = &sim.node[i];

        for (unsigned j = 1; j <= NODES; j++)
            link_break(i, j);
        if (n->c != NULL) {
            test_disk_stall(n->disk, false);
            sim.forwarded += n->c->forward.sent;
            sim.resent += n->c->forward.resent;
            node_free(n->c);
            app_stop(n);
        }
        test_disk_free(n->disk);
        free(n->old.bytes);
        for (unsigned b = 0; b < BLOCKS; b++) {
            block_fini(n->block[b]);
            free(n->block[b]);
        }
        ring_fini(&n->link.submit);
        ring_fini(&n->link.answer);
        wake_close(&n->link.wake);
    }
}

static void say_nodes(void)
{
    for (unsigned i = 1; i <= sim.nodes; i++) {
        const struct cluster *c = sim.node[i].c;

        if (c == NULL)
            continue;
        if (c->repair.at_start || c->recovery.fenced) {
            trace("node %u, of epoch %" PRIu64 ", repairs its log, or is fenced: %s%s, copy %d", i,
                  c->state.term >> CLUSTER_EPOCH_SHIFT, c->repair.note, c->recovery.note,
                  c->recovery.copy);
            continue;
        }
        trace("node %u: state %d, term %" PRIx64 ", log to %" PRIu64 ", durable %" PRIu64
              ", committed %" PRIu64 ", applied %" PRIu64 ", in both regions %" PRIu64
              ", %u not applied, lead %d, %s, answers %d%s",
              i, c->raft.state, c->state.term, log_last_index(c->log), log_persisted_index(c->log),
              c->commit_index, c->applied_index, c->region.index, c->appended_n, c->lead,
              c->arrived ? "blocks wait" : "no block waits", c->answers != NULL,
              c->repair.active ? ", repairs" : "");
    }
}

/* Nobody sends anything to one that is no member any more. */
static bool all_mended(void)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    int n = newest_members(m);

    return sim.rotten == 0 || members_find(m, (unsigned)n, (uint16_t)sim.rotten) == NULL;
}

/* Whoever leads. */
static bool all_give_receipts(void)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    int n = newest_members(m);
    uint64_t all = 0;

    for (unsigned i = 1; i <= sim.nodes; i++)
        all += sim.node[i].receipts;
    for (int i = 0; sim.settled && i < n; i++) {
        if (sim.node[m[i].node].receipts < 10)
            return false;
    }
    return n > 0 && all >= 50;
}

static bool all_reconciled(void)
{
    return !sim.fails_over || (failover_reconciled() && operator_satisfied());
}

static bool all_together(void) { return together() && all_answered() && all_mended(); }

/* Steps until that is so, or that many stretches of healing have passed. It is looked at once a
 * millisecond. */
static bool step_until(unsigned stretches, bool (*is_so)(void))
{
    const uint64_t until_ns = FAULTS_NS + stretches * HEAL_NS;
    uint64_t look_ns = sim.now_ns;

    while (sim.now_ns < until_ns) {
        if (sim.now_ns >= look_ns && is_so())
            return true;
        if (sim.now_ns >= look_ns)
            look_ns = sim.now_ns + NS_PER_MS;
        step();
    }
    return is_so();
}

static void run(uint64_t seed)
{
    bool quiet; /* members change with nothing else in the log */

    sim_open(seed);
    quiet = chance(50);
    while (sim.now_ns < FAULTS_NS)
        step();
    heal();
    quiet = quiet && sim.lost == 0; /* or one of the members may never come */
    sim.settled = quiet;
    if (quiet)
        sim.operator.next_ns = UINT64_MAX;
    if (!step_until(1, all_give_receipts)) {
        say_nodes();
        for (unsigned i = 1; i <= sim.nodes; i++)
            trace("node %u has given %" PRIu64 " receipts since", i, sim.node[i].receipts);
        violation("all is well again for %llu s, but there are too few receipts",
                  HEAL_NS / NS_PER_S);
    }
    if (quiet)
        sim.client_ns = UINT64_MAX;
    sim.settled = false;
    operator_end();
    if (!step_until(2, operator_satisfied)) {
        say_nodes();
        violation("the members are not as they were asked for");
    }
    sim.client_ns = UINT64_MAX;
    (void)step_until(3, all_reconciled); /* another epoch may have the members of before */
    sim.operator.next_ns = UINT64_MAX;
    (void)step_until(3, all_together);
    say_nodes();
    if (!all_answered())
        violation("a block has no answer");
    if (!all_mended())
        violation("record %" PRIu64 " of node %u is not mended", sim.rot_index, sim.rotten);
    if (!together())
        violation("the members do not come together, of %" PRIu64 " entries",
                  sim.newest->committed);
    check_end();
    history_check_end();
    trace("%u events, %" PRIu64 " duplicates, %" PRIu64 " conflicts, %" PRIu64
          " blocks withdrawn, %" PRIu64 " waits for room, %" PRIu64 " indexes rebuilt, %" PRIu64
          " steps of the stores",
          sim.number, sim.duplicates, sim.conflicts, sim.withdrawn, sim.waits, sim.rebuilds,
          sim.store_works);
    sim_close();
    trace("%" PRIu64 " entries, %" PRIu64 " receipts, %" PRIu64 " refused, %" PRIu64
          " elections, %" PRIu64 " crashes, %" PRIu64 " messages, %" PRIu64 " of %" PRIu64
          " operations done, %" PRIu64 " blocks forwarded, %" PRIu64
          " of them again without an answer, %" PRIu64 " of %" PRIu64 " fetches, rot in %" PRIu64
          " places, mended in %" PRIu64 ", %" PRIu64 " old files, %" PRIu64 " disks full, %" PRIu64
          " failed, %" PRIu64 " lost, %" PRIu64 " of %" PRIu64 " failovers, %" PRIu64
          " nodes rejoined, %" PRIu64 " events set aside, %" PRIu64 " of them were missing",
          sim.newest->committed, sim.receipts, sim.refused, sim.elections, sim.crashes,
          sim.messages, sim.operator.done, sim.operator.asked, sim.forwarded, sim.resent,
          sim.fetched, sim.fetches, sim.rots, sim.mended, sim.restored, sim.fulls, sim.failures,
          sim.lost, sim.failed_over, sim.failovers, sim.rejoined, sim.orphans, sim.reconciled);
}

#define JOBS_MAX 64u

static struct {
    pid_t pid; /* 0: none */
    uint64_t seed;
} job[JOBS_MAX];

/* The next run that ends. Returns its job. */
static unsigned wait_for_one(uint64_t *bad)
{
    int status = 0;
    pid_t pid = wait(&status);
    unsigned i = 0;

    while (job[i].pid != pid)
        i++;
    remove_dirs(pid);
    if (WIFSIGNALED(status)) /* it has not said so itself */
        printf("seed %" PRIu64 " ended by signal %d\n", job[i].seed, WTERMSIG(status));
    *bad += status != 0;
    job[i].pid = 0;
    return i;
}

int main(int argc, char **argv)
{
    uint64_t first = (uint64_t)time(NULL) * 1000, seeds = 0, bad = 0, done = 0;
    unsigned jobs = 1, running = 0;
    bool until_bad = false, given = false;
    int opt;

    while ((opt = getopt(argc, argv, "s:n:j:1v")) != -1) {
        if (opt == 's')
            first = strtoull(optarg, NULL, 10), given = true;
        else if (opt == 'n')
            seeds = strtoull(optarg, NULL, 10);
        else if (opt == 'j' && atoi(optarg) > 0 && atoi(optarg) <= (int)JOBS_MAX)
            jobs = (unsigned)atoi(optarg);
        else if (opt == '1')
            until_bad = true;
        else if (opt == 'v')
            sim.verbose = true;
        else
            return 2;
    }
    /* Large buffers come and go with every start of a node: they are kept, not given back. */
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, INT_MAX);
    report_init(REPORT_ERROR, REPORT_TEXT, 2); /* the trace says what happens */
    if (seeds == 0)
        seeds = given ? 1 : 100;
    for (uint64_t seed = first; seed < first + seeds && !(until_bad && bad > 0); seed++) {
        unsigned at = running < jobs ? running++ : wait_for_one(&bad);

        fflush(stdout);
        job[at].seed = seed;
        job[at].pid = fork();
        if (job[at].pid == 0) {
            run(seed);
            exit(0);
        }
        if (job[at].pid < 0)
            return 1;
        done++;
    }
    for (; running > 0; running--)
        (void)wait_for_one(&bad);
    printf("%" PRIu64 " seeds from %" PRIu64 ", %" PRIu64 " failed\n", done, first, bad);
    return bad > 0;
}
