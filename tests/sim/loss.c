/*
 * loss.c - disks that fill up, that fail, and that are lost with their machine.
 *
 * A full disk holds what it has; a start of a new segment is what it refuses. A write that fails
 * ends the node, which is started again by its supervisor. A machine that is lost never comes back:
 * another one takes its place, with a new number and an empty disk, which the operator has to put
 * in. Lost is a machine only while a majority of those that know the newest members remains, with
 * whole disks.
 *
 * Of two regions, two machines of one may be lost at once, where the third one has all that the two
 * had: the operator declares them dead, and has it go on with two new ones.
 */
#include "tests/sim/sim.h"

#include <errno.h>
#include <string.h>

#include "tests/lib/test_disk.h"

#define SEGMENT_BYTES (1u << 20)
#define FULL_AFTER_NS (12 * NS_PER_S) /* so late an answer may come that says so */

void loss_fill(struct sim_node *n)
{
    n->full_ns = sim.now_ns + between(100 * NS_PER_MS, 4 * NS_PER_S);
    test_disk_set_free(n->disk, (int64_t)draw(SEGMENT_BYTES));
    trace("node %u: the disk is full until %.3f ms", number_of(n), (double)n->full_ns / 1e6);
    sim.fulls++;
}

void loss_make_room(struct sim_node *n)
{
    if (n->full_ns == 0)
        return;
    n->full_ns = 0;
    sim.full_ns = sim.now_ns;
    test_disk_set_free(n->disk, INT64_MAX);
    trace("node %u: the disk has room again", number_of(n));
}

bool loss_may_be_full(void)
{
    bool now = sim.full_ns != 0 && sim.now_ns < sim.full_ns + FULL_AFTER_NS;

    for (unsigned i = 1; i <= sim.nodes && !now; i++)
        now = sim.node[i].full_ns != 0;
    return now;
}

void loss_fail_write(struct sim_node *n)
{
    if (n->c == NULL || !n->opened)
        return;
    n->fails_at = test_disk_operations(n->disk) + draw(30);
    test_disk_fault_at(n->disk, n->fails_at, TEST_DISK_ERROR, -EIO, 0);
}

bool loss_has_failed(const struct sim_node *n)
{
    return n->fails_at != 0 && test_disk_operations(n->disk) > n->fails_at;
}

/* Does a node's log, committed or not, have one as a member that has gone? After a start that is
 * more than what it has applied. */
static bool counts_on_gone(const struct sim_node *n)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    int members = consensus_members(n->c, m);

    for (int i = 0; i < members; i++) {
        if (sim.node[m[i].node].gone)
            return true;
    }
    return false;
}

/* Is nobody else missing, and does each member know who the others are? In the middle of a change,
 * of four voters, who is left may need a failover, as declared dead. */
static bool may_lose(const struct sim_node *n)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    int members = newest_members(m);

    if (sim.healing || sim.two || plan_runs() || sim.nodes == NODES || sim.rotten != 0 || n->gone)
        return false;
    for (unsigned i = 1; i <= sim.nodes; i++) {
        const struct sim_node *other = &sim.node[i];

        if (!other->gone && (other->c == NULL || !other->opened || counts_on_gone(other) ||
                             other->c->raft.configuration_uncommitted_index != 0))
            return false;
        if (other->gone && members_find(m, (unsigned)members, (uint16_t)i) != NULL)
            return false;
    }
    return members_voters(m, (unsigned)members) >= FOUNDERS;
}

void loss_of_machine(struct sim_node *n)
{
    struct sim_node *new = &sim.node[sim.nodes + 1];

    if (!may_lose(n))
        return;
    trace("node %u is lost with its disk; node %u is new", number_of(n), sim.nodes + 1);
    machine_crash(n);
    n->gone = true;
    n->up_ns = UINT64_MAX;
    sim.lost++;
    sim.nodes++;
    new->up_ns = sim.now_ns + between(NS_PER_MS, NS_PER_S);
}

/* --- most of a region ---------------------------------------------------------------------------
 */

/* Has it set aside anything that was not offered again? */
static bool has_orphans(const struct sim_node *n)
{
    static struct orphan_file file[ORPHANS_MAX];
    int files = orphan_list(n->dir, file, ORPHANS_MAX);

    for (int i = 0; i < files; i++) {
        if (!file[i].reconciled)
            return true;
    }
    return files < 0;
}

static bool is_whole(const struct sim_node *n)
{
    return n->c != NULL && n->opened && !n->gone && !n->c->recovery.fenced &&
           !n->c->repair.at_start && !n->c->fetch.active && n->c->recovery.copy == COPY_NONE &&
           !recovery_is_promised(n->c) && !has_orphans(n);
}

/* What the other one may have acknowledged is on this one's disk, if both are of one epoch. */
static bool has_all_of(const struct sim_node *n, const struct sim_node *other)
{
    const struct log *a = n->c->log, *b = other->c->log;

    return n->epoch == other->epoch && log_persisted_index(a) == log_last_index(a) &&
           (log_last_term(a) != log_last_term(b) ? log_last_term(a) > log_last_term(b)
                                                 : log_last_index(a) >= log_last_index(b));
}

/* May the two others of its region be lost, by its own configuration? */
static bool may_be_left(const struct sim_node *n, unsigned ret_dead[2])
{
    struct member m[CLUSTER_MEMBERS_MAX];
    int members = is_whole(n) ? recovery_members(n->c, m) : 0;
    unsigned others = 0, self = 0;

    for (int i = 0; i < members; i++) {
        struct sim_node *other = &sim.node[m[i].node];

        if (m[i].region != region_of(number_of(n)))
            continue;
        if (other == n) {
            self++;
            continue;
        }
        if (others == 2 || !is_whole(other) || !has_all_of(n, other))
            return false;
        ret_dead[others++] = m[i].node;
    }
    return self == 1 && others == 2;
}

/* Are the members those of the beginning, for all that run? Otherwise one that was taken out, and
 * has not heard of it, might be the one that is left. */
static bool are_founders(void)
{
    for (unsigned i = 1; i <= 2 * FOUNDERS; i++) {
        struct member m[CLUSTER_MEMBERS_MAX];
        const struct sim_node *n = &sim.node[i];

        if (n->c == NULL || n->removed || recovery_members(n->c, m) != 2 * FOUNDERS)
            return false;
        for (unsigned k = 1; k <= 2 * FOUNDERS; k++) {
            if (members_find(m, 2 * FOUNDERS, (uint16_t)k) == NULL)
                return false;
        }
    }
    return true;
}

void loss_of_most(void)
{
    struct declared *d = &sim.declared;
    unsigned i = (unsigned)between(1, sim.nodes), dead[2];

    if (!sim.fails_over || sim.healing || d->survivor != 0 || sim.lost > 0 || sim.rotten != 0 ||
        sim.nodes + 2 > NODES || region_of(i) != sim.spare_region || !are_founders() ||
        !may_be_left(&sim.node[i], dead))
        return;
    d->survivor = i;
    d->index = log_last_index(sim.node[i].c->log);
    for (unsigned k = 0; k < 2; k++) {
        struct sim_node *n = &sim.node[dead[k]];

        machine_crash(n);
        n->gone = true;
        n->up_ns = UINT64_MAX;
        d->dead[k] = dead[k];
        d->fresh[k] = ++sim.nodes;
        sim.node[sim.nodes].up_ns = UINT64_MAX;
        sim.lost++;
    }
    trace("nodes %u and %u are lost with their disks, node %u is left; nodes %u and %u are new",
          dead[0], dead[1], i, d->fresh[0], d->fresh[1]);
}

bool loss_is_declared(void)
{
    const struct declared *d = &sim.declared;
    const struct sim_node *n = &sim.node[d->survivor];
    struct member m[CLUSTER_MEMBERS_MAX];
    int members;

    if (d->survivor == 0)
        return false;
    members = n->c != NULL ? recovery_members(n->c, m) : 0;
    return members <= 0 || members_find(m, (unsigned)members, (uint16_t)d->dead[0]) != NULL;
}

bool loss_is_offered(void)
{
    const struct declared *d = &sim.declared;

    return sim.node[d->fresh[0]].join_epoch != 0 || sim.node[d->fresh[1]].join_epoch != 0;
}

void loss_offer(uint64_t epoch)
{
    for (unsigned k = 0; k < 2; k++) {
        struct sim_node *n = &sim.node[sim.declared.fresh[k]];

        if (n->up_ns == UINT64_MAX && n->c == NULL && n->join_epoch == 0) {
            n->join_epoch = epoch;
            n->up_ns = sim.now_ns + between(NS_PER_MS, NS_PER_S);
        }
    }
}
