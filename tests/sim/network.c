/*
 * network.c - the links between the nodes: each carries messages in order, late, or breaks and
 * loses all that is under way.
 */
#include "tests/sim/sim.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/test_disk.h"

static void message_free(struct message *m)
{
    for (unsigned i = m->taken; i < m->entries; i++)
        proposal_free(m->entry[i]);
    free(m);
}

void link_break(unsigned from, unsigned to)
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

int sim_send(void *arg, const struct raft_message *raft)
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

void deliver(unsigned from, unsigned to)
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
    machine_check(n, e);
    l->head = m->next;
    if (l->head == NULL)
        l->tail = &l->head;
    l->n--;
    message_free(m);
    machine_run(n);
}
