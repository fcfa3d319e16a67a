/*
 * loss.c - disks that fill up, that fail, and that are lost with their machine.
 *
 * A full disk holds what it has; a start of a new segment is what it refuses. A write that fails
 * ends the node, which is started again by its supervisor. A machine that is lost never comes back:
 * another one takes its place, with a new number and an empty disk, which the operator has to put
 * in. Lost is a machine only while a majority of those that know the newest members remains, with
 * whole disks.
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

/* Is nobody else missing, and does each member know who the others are? */
static bool may_lose(const struct sim_node *n)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    int members = newest_members(m);

    if (sim.healing || sim.two || plan_runs() || sim.nodes == NODES || sim.rotten != 0 || n->gone)
        return false;
    for (unsigned i = 1; i <= sim.nodes; i++) {
        const struct sim_node *other = &sim.node[i];

        if (!other->gone && (other->c == NULL || !other->opened || counts_on_gone(other)))
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
