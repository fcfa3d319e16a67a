/*
 * network.c - the links between the nodes: each carries messages in order, late, or breaks and
 * loses all that is under way.
 */
#include "tests/sim/sim.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/peer.h"
#include "cluster/peer_decoder.h"

#define POST_IOVS 256u
#define PING_NS   (PEER_PING_MS * NS_PER_MS)

static void message_free(struct message *m)
{
    for (unsigned i = m->taken; i < m->entries; i++)
        proposal_free(m->entry[i]);
    if (m->decoded && m->type == PEER_INSTALL_SNAPSHOT && !m->given) {
        raft_configuration_close(&m->raft.install_snapshot.conf);
        raft_free(m->raft.install_snapshot.data.base);
    }
    free(m->bytes);
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

/* Behind what is under way on that link already. */
static void post(unsigned from, unsigned to, const void *head, size_t bytes,
                 const struct iovec *iov, int iovs)
{
    struct link *l = &sim.link[from][to];
    struct message *m = calloc(1, sizeof *m);
    uint64_t last_ns = 0;

    for (int i = 1; i < iovs; i++)
        bytes += iov[i].iov_len;
    m->bytes = malloc(bytes);
    m->n = iovs > 0 ? iov[0].iov_len : bytes;
    memcpy(m->bytes, head, m->n);
    for (int i = 1; i < iovs; i++) {
        memcpy(m->bytes + m->n, iov[i].iov_base, iov[i].iov_len);
        m->n += iov[i].iov_len;
    }
    for (struct message *x = l->head; x != NULL; x = x->next)
        last_ns = x->due_ns;
    m->due_ns = sim.now_ns + between(50000, chance(3) ? 60 * NS_PER_MS : 2 * NS_PER_MS);
    if (region_of(from) != region_of(to))
        m->due_ns += between(sim.wan_ns / 2, sim.wan_ns);
    if (m->due_ns < last_ns)
        m->due_ns = last_ns;
    *l->tail = m;
    l->tail = &m->next;
    l->n++;
    sim.messages++;
}

/* As many messages as its entries need. Each entry is copied, as the next one's reading ends it. */
static int send_entries(struct sim_node *n, unsigned to, struct raft_append_entries a)
{
    static _Alignas(8) uint8_t buf[PEER_APPEND_BUF(PEER_ENTRIES_MAX)];
    static uint8_t payload[PEER_ENTRIES_MAX][LOG_RECORD_BYTES_MAX];
    static struct log_record record[PEER_ENTRIES_MAX];
    static struct peer_packer packer = { .level = 1 };
    struct peer_entry entry[PEER_ENTRIES_MAX];
    struct iovec iov[PEER_ENTRIES_MAX + 1];
    unsigned left = a.n_entries;

    do {
        unsigned many = left < PEER_ENTRIES_MAX ? left : PEER_ENTRIES_MAX;
        int iovs;

        for (unsigned i = 0; i < many; i++) {
            struct peer_entry e;
            int rc = node_entry(n->c, a.prev_log_index + 1 + i, &e);

            if (rc == -EILSEQ) { /* rot: the connection ends (peer_out.c) */
                link_break(number_of(n), to);
                return 0;
            }
            if (rc < 0)
                violation("node %u has no entry %llu to send: %s", number_of(n),
                          a.prev_log_index + 1 + i, strerror(-rc));
            record[i] = *e.record;
            memcpy(payload[i], e.payload, e.record->payload_bytes);
            entry[i] = (struct peer_entry){ &record[i], payload[i], e.payload_crc, 0, NULL };
            if (region_of(number_of(n)) != region_of(to))
                peer_pack(&packer, &entry[i], false);
        }
        a.n_entries = many > 0 ? peer_entries_fit(entry, many) : 0;
        iovs = peer_encode_append_entries(buf, sizeof buf, n->c->state.term >> CLUSTER_EPOCH_SHIFT,
                                          &a, entry, iov, PEER_ENTRIES_MAX + 1);
        if (iovs < 0)
            violation("a message cannot be encoded: %s", strerror(-iovs));
        post(number_of(n), to, buf, iov[0].iov_len, iov, iovs);
        if (a.n_entries > 0)
            a.prev_log_term = record[a.n_entries - 1].term;
        a.prev_log_index += a.n_entries;
        left -= a.n_entries;
    } while (left > 0);
    return 0;
}

int sim_send(void *arg, const struct raft_message *raft)
{
    static _Alignas(8) uint8_t buf[PEER_HEADER_BYTES + PEER_HEAD_MAX];
    struct sim_node *n = arg;
    unsigned from = number_of(n), to = (unsigned)raft->server_id;
    struct link *l = &sim.link[from][to];
    ssize_t bytes;

    assert(to >= 1 && to <= NODES && to != from);
    if (raft->type == RAFT_APPEND_ENTRIES_RESULT && raft->append_entries_result.rejected == 0 &&
        raft->append_entries_result.last_log_index > log_persisted_index(n->c->log))
        violation("node %u promises entry %llu, but has only %" PRIu64 " durably", from,
                  raft->append_entries_result.last_log_index, log_persisted_index(n->c->log));
    if (l->n == LINK_MAX || sim.now_ns < l->blocked_ns || sim.node[to].c == NULL ||
        (!sim.healing && draw(2000) == 0))
        link_break(from, to);
    if (sim.now_ns < l->blocked_ns || sim.node[to].c == NULL)
        return 0;
    if (raft->type == RAFT_APPEND_ENTRIES)
        return send_entries(n, to, raft->append_entries);
    bytes = peer_encode(buf, sizeof buf, n->c->state.term >> CLUSTER_EPOCH_SHIFT, raft);
    if (bytes < 0)
        violation("a message of type %d cannot be encoded: %s", raft->type, strerror((int)-bytes));
    post(from, to, buf, (size_t)bytes, NULL, 0);
    return 0;
}

int sim_post(void *arg, const struct node_post *p)
{
    static _Alignas(8) uint8_t header[PEER_HEADER_BYTES];
    struct sim_node *n = arg;
    struct link *l = &sim.link[number_of(n)][p->to];
    struct iovec iov[POST_IOVS + 1] = { { header, sizeof header } };

    assert(p->to >= 1 && p->to <= NODES && p->to != number_of(n) && p->iovs <= POST_IOVS);
    if (p->type == PEER_REGION) /* and it may give up its place in the same turn */
        region_check(n);
    if (l->n >= LINK_MAX / 2 || sim.now_ns < l->blocked_ns || sim.node[p->to].c == NULL)
        return -EAGAIN;
    memcpy(iov + 1, p->iov, p->iovs * sizeof *iov);
    peer_frame_put_post(header, p->type, n->c->state.term >> CLUSTER_EPOCH_SHIFT, p->iov, p->iovs);
    post(number_of(n), p->to, header, sizeof header, iov, (int)p->iovs + 1);
    return 0;
}

/* From its bytes, in pieces. */
static void decode(struct message *m, unsigned from)
{
    static struct peer_decoder d; /* for as long as the process lives */
    const struct peer_message *got;
    size_t at = 0;
    int e = d.head == NULL ? peer_decoder_init(&d, &proposal_memory, PEER_TYPES_WELCOMED) : 0;

    while (e == 0) {
        void *to;
        size_t want = peer_decoder_want(&d, &to), piece = between(1, 4096);

        if (want > piece)
            want = piece;
        if (want == 0 || want > m->n - at)
            violation("a message of %zu bytes ends early, at %zu", m->n, at);
        memcpy(to, m->bytes + at, want);
        at += want;
        e = peer_decoder_got(&d, want);
    }
    if (e < 0 || at != m->n)
        violation("a message of node %u cannot be decoded: %s", from, peer_decoder_error(&d));
    got = peer_decoder_message(&d);
    m->type = (enum peer_type)got->frame.type;
    m->epoch = got->frame.epoch;
    m->raft = got->raft;
    m->raft.server_id = from;
    m->raft.server_address = "";
    if (m->type == PEER_APPEND_ENTRIES) {
        m->entries = m->raft.append_entries.n_entries;
        for (unsigned i = 0; i < m->entries; i++)
            m->entry[i] = (struct proposal *)got->write[i];
    }
    if (m->type == PEER_INSTALL_SNAPSHOT && peer_snapshot_take(&m->raft.install_snapshot, got) != 0)
        violation("no memory");
    m->decoded = true;
}

static bool has_as_member(unsigned node, unsigned other)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    int n = recovery_members(sim.node[node].c, m);

    return n > 0 && members_find(m, (unsigned)n, (uint16_t)other) != NULL;
}

/* On its own connection to a member, or to one that has it as a member and has dialled it: says its
 * epoch, and nothing else. */
static void ping(unsigned from, unsigned to)
{
    struct cluster *c = sim.node[from].c, *other = sim.node[to].c;

    if (from == to || c == NULL || other == NULL || c->state.term <= other->state.term ||
        sim.now_ns < sim.link[from][to].blocked_ns || sim.now_ns < sim.node[from].stopped_ns ||
        sim.now_ns < sim.node[to].stopped_ns)
        return;
    if (!has_as_member(from, to) && !has_as_member(to, from))
        return;
    (void)recovery_hears(other, (uint16_t)from, PEER_PING, c->state.term >> CLUSTER_EPOCH_SHIFT);
    sim.node[to].turn_ns = sim.now_ns;
}

/* All members have connections to all, whether they have something to say or not. */
static void ping_all(void)
{
    if (sim.now_ns < sim.ping_ns)
        return;
    sim.ping_ns = sim.now_ns + PING_NS;
    for (unsigned from = 1; from <= sim.nodes; from++) {
        for (unsigned to = 1; to <= sim.nodes; to++)
            ping(from, to);
    }
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
    if (!m->decoded)
        decode(m, from);
    repair_introduced(n->c, (uint16_t)from); /* by the HELLO of its connection */
    ping_all();
    if (!recovery_hears(n->c, (uint16_t)from, m->type, m->epoch)) {
        e = 0;
    } else if (m->type >= PEER_POST_FIRST) {
        e = node_receive(n->c, (uint16_t)from, m->type, m->bytes + PEER_HEADER_BYTES,
                         m->n - PEER_HEADER_BYTES);
    } else {
        m->given = true;
        e = consensus_receive(n->c, &m->raft, m->entry + m->taken, &taken);
        m->taken += taken;
    }
    if (e == -EAGAIN) {
        l->waits = true;
        if (n->disk_ns == UINT64_MAX)
            n->disk_ns = sim.now_ns + NS_PER_MS;
        return;
    }
    if (e == -EBADMSG)
        violation("node %u does not believe node %u", to, from);
    if (!machine_check(n, e))
        return; /* with its links */
    l->head = m->next;
    if (l->head == NULL)
        l->tail = &l->head;
    l->n--;
    message_free(m);
    machine_run(n);
}
