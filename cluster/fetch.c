/*
 * fetch.c - brings up a node that is too far behind for the engine, or empty: the log is the
 * snapshot.
 *
 * The engine of a leader keeps terms for a limited part of the log. A follower that is behind that
 * is sent a snapshot: its data is the digest of the chain at its last index, nothing else. The
 * follower then asks for the entries that it lacks up to there, which are all committed, appends
 * and applies them as any others, and tells the engine when it has them. Whatever a crash leaves
 * is a log: the next start goes on from its end.
 *
 * What the follower had above its commit index may be of another leader: the chain's digest before
 * the first entry that comes says whether it is. If so, it is cut where the two logs part, which a
 * binary search finds, and not before: of what is below this node may be counted on to have it, by
 * a leader that took it for committed, and by both regions (region.c).
 *
 * Who is asked sends only what it has applied, a post a turn and as many bytes as it was granted.
 * The follower grants more as it goes on, so that at most FETCH_WINDOW bytes wait in its memory. A
 * post may be lost with its connection: after a while of silence it asks anew, the leader first,
 * then one after the other.
 *
 * Thread:  the cluster thread's.  Memory:  while it is fetched, up to FETCH_WINDOW and one post;
 * for serving, a post and a reader, from the first request on.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/report.h"
#include "cluster/internal.h"
#include "cluster/peer_fetch.h"
#include "cluster/record.h"

#define FETCH_WINDOW     (4 << 20)
#define FETCH_PROBE      1 /* one entry: a body may go beyond what was asked for by one */
#define FETCH_GRANT_MIN  (64 << 10)
#define FETCH_POST       (256 << 10) /* a turn sends up to the entry that reaches it */
#define FETCH_SILENCE_NS (1 * NS_PER_S)
#define FETCH_RETRY_NS   (10 * NS_PER_MS) /* a post did not go */
#define FETCH_CREDIT_MAX ((int64_t)PEER_FETCH_BYTES_MAX)
_Static_assert(FETCH_POST + PEER_ENTRY_BYTES + PEER_PAYLOAD_MAX <= PEER_POST_MAX, "fits");

/* A body that was received: all checked but its place. */
struct fetched {
    struct fetched *next;
    struct peer_fetched body;
    size_t bytes;
    _Alignas(8) uint8_t copy[];
};

/* --- the leader's offer -------------------------------------------------------------------------
 */

int fetch_offer(struct cluster *c, struct raft_install_snapshot *m)
{
    struct raft_buffer b;
    struct peer_entry entry;
    uint64_t index = m->last_index;
    int e = node_entry(c, index, &entry);

    raft_configuration_init(&m->conf);
    assert(m->last_index <= c->applied_index && m->conf_index <= m->last_index);
    if (e == 0) {
        record_digest((const void *)((const uint8_t *)entry.payload - LOG_HEADER_BYTES),
                      c->fetch.offer);
        m->data = (struct raft_buffer){ c->fetch.offer, sizeof c->fetch.offer };
        index = m->conf_index;
        e = node_entry(c, index, &entry);
    }
    if (e == 0 && entry.record->type != LOG_CHANGE)
        e = -EILSEQ;
    if (e == -EILSEQ) {
        atomic_store(&c->scrub_wanted, index);
        report_warn("offer", "entry %" PRIu64 " is damaged here: no snapshot is offered", index);
        return -EAGAIN;
    }
    if (e < 0)
        return cluster_fail(c, e, "log: index %" PRIu64 " cannot be read: %s", index, strerror(-e));
    b = (struct raft_buffer){ (void *)(uintptr_t)entry.payload, entry.record->payload_bytes };
    if (raft_configuration_decode(&b, &m->conf) != 0)
        return cluster_fail(c, -EBADMSG,
                            "log: the configuration at index %" PRIu64 " cannot be read", index);
    return 0;
}

void fetch_offer_end(struct raft_install_snapshot *m) { raft_configuration_close(&m->conf); }

/* --- the node that is behind --------------------------------------------------------------------
 */

static void fetch_drop_queue(struct fetch *f)
{
    while (f->queue != NULL) {
        struct fetched *q = f->queue;

        f->queue = q->next;
        free(q);
    }
    f->tail = &f->queue;
    f->queued = f->granted = 0;
}

int fetch_begin(struct cluster *c, uint16_t from, struct raft_update *u)
{
    struct fetch *f = &c->fetch;

    assert(!f->active && u->snapshot.chunk.len == sizeof f->digest && u->snapshot.last);
    f->to = u->snapshot.metadata;
    memcpy(f->digest, u->snapshot.chunk.base, sizeof f->digest);
    raft_free(u->snapshot.chunk.base);
    f->active = true;
    f->checked = f->searching = false;
    f->offered_by = from;
    f->silences = 0;
    f->ask_ns = f->retry_ns = 0;
    fetch_drop_queue(f);
    if (f->to.index <= c->commit_index)
        return cluster_fail(c, -EPROTO,
                            "engine: it wants a snapshot at index %llu, but %" PRIu64
                            " is committed here",
                            f->to.index, c->commit_index);
#ifndef PLANT_FETCH_UNCHECKED
    /* It has another entry there. */
    if (log_last_index(c->log) >= f->to.index)
        return propose_withdraw(c, f->to.index);
#endif
    return 0;
}

/* One that stands still knows it, too, if what it shares with the others has the genesis: theirs
 * may be another (commit.c). */
static bool knows_key(const struct cluster *c)
{
    return c->have_genesis ||
           (c->begun && c->recovery.fenced && c->genesis_index <= c->recovery.same);
}

static uint16_t fetch_choose(const struct cluster *c)
{
    const struct raft_configuration *conf = &c->fetch.to.configuration;
    uint64_t node = c->raft.follower_state.current_leader.id;

    assert(c->fetch.active && !consensus_leads(c) && c->fetch.offered_by != c->config.node);
    if (c->fetch.silences > 0 && conf->n > 0)
        node = conf->servers[(c->fetch.silences - 1) % conf->n].id;
    return node == 0 || node == c->config.node ? c->fetch.offered_by : (uint16_t)node;
}

static void fetch_refill(struct cluster *c, uint64_t now_ns)
{
    struct fetch *f = &c->fetch;
    uint64_t rate = c->config.fetch_bytes_per_s, past = now_ns - f->tokens_ns;
    const int64_t tokens_max = (int64_t)(rate / 4) + FETCH_GRANT_MIN;

    if (past < NS_PER_MS) /* or what is below a byte would be lost each time */
        return;
    if (past > NS_PER_S)
        past = NS_PER_S;
    f->tokens_ns = now_ns;
    f->tokens += (int64_t)((double)rate * (double)past / (double)NS_PER_S);
    if (f->tokens > tokens_max)
        f->tokens = tokens_max;
}

/* Bytes that may be asked for now. */
static int64_t fetch_grant(const struct cluster *c)
{
    const struct fetch *f = &c->fetch;
    int64_t room = FETCH_WINDOW - f->granted - f->queued;

    assert(f->granted >= 0 && f->granted <= FETCH_WINDOW && f->queued >= 0);
    if (room < FETCH_WINDOW / 2)
        return 0;
    if (c->config.fetch_bytes_per_s == 0)
        return room;
    if (f->tokens < FETCH_GRANT_MIN)
        return 0;
    return room < f->tokens ? room : f->tokens;
}

uint8_t fetch_packs(const struct cluster *c) { return knows_key(c) ? FETCH_LEAN : FETCH_PACKED; }

/* Begins anew, or wants more of what is under way. */
static int fetch_ask(struct cluster *c, uint64_t now_ns, bool more)
{
    struct fetch *f = &c->fetch;
    int64_t grant = fetch_grant(c), bytes = f->searching && grant > 0 ? FETCH_PROBE : grant;
    struct peer_fetch m = { .from = f->next,
                            .to = f->searching ? f->next : f->to.index,
                            .bytes = (uint32_t)bytes,
                            .more = more,
                            .packs = fetch_packs(c) };
    uint8_t body[PEER_FETCH_BYTES] __attribute__((aligned(8)));
    struct iovec iov = { body, sizeof body };
    struct node_post post = { .type = PEER_FETCH, .iov = &iov, .iovs = 1 };
    int e;

    assert(f->next > 0 && f->next <= f->to.index && (!more || f->source != 0));
    if (bytes == 0 || now_ns < f->retry_ns)
        return 0;
    if (!more)
        f->source = fetch_choose(c);
    post.to = f->source;
    peer_fetch_put(body, &m);
    e = c->environment.post(c->environment.arg, &post);
    if (e < 0 && e != -EAGAIN)
        return cluster_fail(c, e, "a message to node %u: %s", post.to, strerror(-e));
    if (e < 0) {
        f->retry_ns = now_ns + FETCH_RETRY_NS;
        f->silences += !more;
        return 0;
    }
    if (!more) {
        f->ask_ns = now_ns + FETCH_SILENCE_NS;
        f->silences++; /* until something comes */
    }
    f->granted += bytes;
    if (c->config.fetch_bytes_per_s != 0)
        f->tokens -= bytes;
    return 1;
}

/* The entry whose digest is asked about: by what comes behind it. */
static uint64_t fetch_probe(const struct fetch *f)
{
    assert(f->searching && f->same + 1 < f->differs);
    return f->same + (f->differs - f->same) / 2;
}

static int fetch_ask_turn(struct cluster *c, uint64_t now_ns)
{
    struct fetch *f = &c->fetch;

    if (f->searching && f->same + 1 == f->differs)
        return 0; /* there is no room to cut it */
    if (f->queue == NULL && now_ns >= f->ask_ns) {
        f->granted = 0;
        f->next = f->searching ? fetch_probe(f) + 1 : log_last_index(c->log) + 1;
        return f->next <= f->to.index ? fetch_ask(c, now_ns, false) : 0;
    }
    return !f->searching && f->silences == 0 && f->next <= f->to.index ? fetch_ask(c, now_ns, true)
                                                                       : 0;
}

/* Does what has come go on where our log ends? If not, where the two part is searched for from now
 * on. Returns 1, 0: it does not; or an error. */
static int fetch_check_link(struct cluster *c, const struct fetched *q)
{
    struct fetch *f = &c->fetch;
    uint8_t digest[SHA256_BYTES];

    assert(q->body.from == log_last_index(c->log) + 1);
    log_digest(c->log, digest);
#ifdef PLANT_FETCH_UNCHECKED
    f->checked = true;
    c->commit_index = log_last_index(c->log);
    return 1;
#endif
    if (memcmp(digest, q->body.before, sizeof digest) == 0) {
        f->checked = true;
        if (log_last_index(c->log) > c->commit_index)
            c->commit_index = log_last_index(c->log);
        return 1;
    }
    if (f->checked || log_last_index(c->log) <= c->commit_index)
        return cluster_fail(c, -EILSEQ,
                            "the log differs from node %u's at or before index %" PRIu64
                            ", where both are committed",
                            f->source, q->body.from - 1);
    f->searching = true;
    f->same = c->commit_index;
    f->differs = log_last_index(c->log);
#ifdef PLANT_FETCH_CUT_ALL
    f->differs = f->same + 1;
#endif
    fetch_drop_queue(f);
    f->ask_ns = 0;
    return 0;
}

/* The source's digest at f->same + 1 .. f->differs - 1 has come; once there is none between, what
 * is behind f->same is cut. Returns 0, -EAGAIN: there is no room to do so now, or an error. */
static int fetch_search(struct cluster *c)
{
    struct fetch *f = &c->fetch;
    uint8_t digest[SHA256_BYTES];
    int e;

    assert(f->searching && f->same >= c->commit_index && f->differs <= log_last_index(c->log));
    assert(f->same < f->differs);
    if (f->queue != NULL) {
        assert(f->queue->body.from == fetch_probe(f) + 1);
        e = recovery_digest(c, fetch_probe(f), digest);
        if (e < 0) /* rot: the next start mends it */
            return cluster_fail(c, e, "log: index %" PRIu64 " cannot be read: %s", fetch_probe(f),
                                strerror(-e));
        if (memcmp(digest, f->queue->body.before, sizeof digest) == 0)
            f->same = fetch_probe(f);
        else
            f->differs = fetch_probe(f);
        fetch_drop_queue(f);
        f->ask_ns = 0;
    }
    if (f->same + 1 < f->differs)
        return 0;
    if (log_cut_room(c->log, f->same + 1) == -ENOSPC) {
        f->ask_ns = node_now_ns(c) + FETCH_SILENCE_NS;
        c->disk_full = true;
        return 0;
    }
    f->searching = false;
    f->checked = true; /* what is left is committed */
    f->ask_ns = 0;
    c->commit_index = f->same;
    e = propose_withdraw(c, f->same + 1);
    return e < 0 ? e : 1;
}

/* The last one is there: is it the log that was offered? */
static int fetch_check_end(struct cluster *c)
{
    uint8_t digest[SHA256_BYTES];

    assert(log_last_index(c->log) == c->fetch.to.index && c->fetch.checked);
    log_digest(c->log, digest);
#ifndef PLANT_FETCH_UNCHECKED
    if (memcmp(digest, c->fetch.digest, sizeof digest) != 0)
        return cluster_fail(c, -EILSEQ,
                            "the log that was fetched up to index %llu from node %u is not the one "
                            "that node %u has offered: the chain's digests differ",
                            c->fetch.to.index, c->fetch.source, c->fetch.offered_by);
#endif
    return 0;
}

/* One entry. Returns 1, 0: there is no room now, or an error. */
static int fetch_append(struct cluster *c, const struct log_record *r,
                        const struct peer_entry *entry)
{
    struct proposal *p;
    int e;

    assert(r->index == log_last_index(c->log) + 1 && r->index <= c->fetch.to.index);
    if (r->term < log_last_term(c->log) || r->time_ns < log_last_time_ns(c->log) ||
        r->term > c->fetch.to.term)
        return cluster_fail(c, -EILSEQ,
                            "node %u has sent an entry %" PRIu64 " that cannot be there",
                            c->fetch.source, r->index);
    e = propose_room(c, r->payload_bytes);
    if (e == -EAGAIN || e == -ENOSPC)
        return 0;
    if (e < 0)
        return cluster_fail(c, e, "log: %s", strerror(-e));
    p = proposal_room(r->payload_bytes);
    if (p == NULL)
        return cluster_fail(c, -ENOMEM, "fetching: out of memory");
    p->write.record = *r;
    p->write.payload_crc = entry->payload_crc;
    if (r->payload_bytes > 0)
        memcpy((uint8_t *)p->write.buf + LOG_HEADER_BYTES, entry->payload, r->payload_bytes);
    e = propose_take(c, p, r->index);
    if (e < 0) {
        proposal_failed(c, p);
        return e;
    }
    if (r->index > c->commit_index)
        c->commit_index = r->index;
    e = r->index == c->fetch.to.index ? fetch_check_end(c) : 0;
    return e < 0 ? e : 1;
}

/* What has come goes into the log. */
static int fetch_queue_turn(struct cluster *c)
{
    struct fetch *f = &c->fetch;
    int done = 0;

    while (f->queue != NULL && !f->searching) {
        struct fetched *q = f->queue;
        struct peer_fetched rest = q->body;
        struct log_record record;
        struct peer_entry entry;
        int e = rest.done == 0 ? fetch_check_link(c, q) : 1;

        if (e <= 0)
            return e < 0 ? e : done + 1;
        while (peer_fetched_next(&rest, &record, &entry)) {
            e = fetch_append(c, &record, &entry);
            if (e <= 0)
                return e < 0 ? e : done;
            q->body = rest;
            done++;
        }
        f->queue = q->next;
        if (f->queue == NULL)
            f->tail = &f->queue;
        f->queued -= (int64_t)q->bytes;
        assert(f->queued >= 0 && (f->queue != NULL || f->queued == 0));
        free(q);
    }
    return done;
}

static bool fetch_is_whole(const struct cluster *c)
{
    uint64_t index = c->fetch.to.index;

#ifdef PLANT_FETCH_EARLY
    return log_last_index(c->log) == index;
#endif
    return log_last_index(c->log) == index && c->applied_index == index;
}

static int fetch_own_turn(struct cluster *c, uint64_t now_ns)
{
    struct fetch *f = &c->fetch;
    int done = fetch_queue_turn(c), e;

    if (done >= 0 && f->searching) {
        e = fetch_search(c);
        done = e < 0 ? e : done + e;
    }
    if (done < 0)
        return done;
    assert(log_last_index(c->log) <= f->to.index || f->queue == NULL);
    if (fetch_is_whole(c)) {
        assert(f->queue == NULL);
        f->active = false;
        fetch_drop_queue(f);
        e = consensus_fetched(c, &f->to);
        return e < 0 ? e : done + 1;
    }
    fetch_refill(c, now_ns);
    e = fetch_ask_turn(c, now_ns);
    return e < 0 ? e : done + e;
}

/* Is it what is waited for? What was asked before, of this node or another, may still come. */
static bool fetch_expects(const struct fetch *f, uint16_t from, const struct peer_fetched *m)
{
    return from == f->source && m->from == f->next && f->granted > 0 &&
           m->from + m->entries - 1 <= f->to.index;
}

int fetch_unpack(struct cluster *c, const void **body, size_t *bytes)
{
    struct fetch *f = &c->fetch;
    int e;

    if (!peer_fetched_is_packed(*body, *bytes))
        return 0;
    if (f->unpacked == NULL)
        f->unpacked = aligned_alloc(8, PEER_POST_MAX);
    /* As it was when it was asked for; of another it does not become what its CRC says. */
    f->unpacker.hash_key = c->have_genesis || c->begun ? c->genesis_hash_key : NULL;
    e = f->unpacked != NULL ? peer_fetched_unpack(&f->unpacker, *body, *bytes, f->unpacked, bytes)
                            : -ENOMEM;
    *body = f->unpacked;
    return e == -ENOMEM ? cluster_fail(c, e, "fetching: out of memory") : e;
}

int fetch_received(struct cluster *c, uint16_t from, const void *body, size_t bytes)
{
    struct fetch *f = &c->fetch;
    struct peer_fetched m;
    struct fetched *q;

    if (peer_fetched_get(&m, body, bytes) != NULL)
        return -EBADMSG;
    if (!f->active || !fetch_expects(f, from, &m))
        return 0;
    if (peer_fetched_check_payloads(&m) != NULL)
        return -EBADMSG;
    q = malloc(sizeof *q + bytes);
    if (q == NULL)
        return cluster_fail(c, -ENOMEM, "fetching: out of memory");
    assert(((uintptr_t)q->copy & 7) == 0 && (f->searching || f->next > log_last_index(c->log)));
    memcpy(q->copy, body, bytes);
    q->next = NULL;
    q->bytes = bytes;
    q->body = m;
    q->body.body = q->copy;
    q->body.before = q->copy + (m.before - (const uint8_t *)body);
    *f->tail = q;
    f->tail = &q->next;
    f->next += m.entries;
    f->queued += (int64_t)bytes;
    f->granted -= (int64_t)bytes;
    if (f->granted < 0) {
        f->tokens += f->granted;
        f->granted = 0;
    }
    f->silences = 0;
    f->ask_ns = node_now_ns(c) + FETCH_SILENCE_NS;
    return 0;
}

/* --- whom it asks -------------------------------------------------------------------------------
 */

/* Between regions, a line is what there is least of. */
static bool is_far(struct cluster *c, uint16_t node)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    int n = c->log == NULL || c->repair.at_start ? 0 : recovery_members(c, m);
    const struct member *found = n > 0 ? members_find(m, (unsigned)n, node) : NULL;

    return found != NULL && found->region != c->config.region;
}

int fetch_asked(struct cluster *c, uint16_t from, const void *body, size_t bytes)
{
    struct fetch *f = &c->fetch;
    struct fetch_request *r = NULL;
    struct peer_fetch m;

    if (from == 0 || peer_fetch_get(&m, body, bytes) != NULL)
        return -EBADMSG;
    for (unsigned i = 0; i < CLUSTER_MEMBERS_MAX; i++) {
        if (f->request[i].node == from)
            r = &f->request[i];
    }
    if (m.more) {
        if (r != NULL && r->credit + m.bytes <= FETCH_CREDIT_MAX)
            r->credit += m.bytes;
        return 0;
    }
    for (unsigned i = 0; i < CLUSTER_MEMBERS_MAX && r == NULL; i++) {
        if (f->request[i].node == 0)
            r = &f->request[i];
    }
    if (r == NULL) /* there are fewer others than places, so one is of a node that has left */
        r = &f->request[f->turn % CLUSTER_MEMBERS_MAX];
    assert(m.from > 0 && m.to >= m.from && m.bytes > 0);
    *r = (struct fetch_request){
        .node = from,
        .recovers = m.recovers,
        .packs = c->config.peering != NULL && is_far(c, from) ? m.packs : FETCH_PLAIN,
        .next = m.from,
        .to = m.to,
        .credit = m.bytes,
        .since_ns = node_now_ns(c),
    };
    return 0;
}

/* What is certainly committed; a node that repairs its log knows of its checkpoint at least, and a
 * fenced one what it knew. Of that its peers of the failover want all: it is durable, and nothing
 * adds to it. */
static uint64_t fetch_limit(const struct cluster *c, const struct fetch_request *r)
{
    if (c->log != NULL && !c->repair.at_start && c->recovery.fenced)
        return r->recovers ? log_persisted_index(c->log) : c->recovery.committed;
    return c->repair.at_start && c->origin.index > c->applied_index ? c->origin.index
                                                                    : c->applied_index;
}

/* When something can be sent, UINT64_MAX: it waits for credit, or for what is not applied yet. */
static uint64_t request_due_ns(const struct cluster *c, const struct fetch_request *r)
{
    if (r->node == 0 || r->credit <= 0 || r->next > r->to || r->next > fetch_limit(c, r))
        return UINT64_MAX;
    return r->retry_ns;
}

static int fetch_prepare(struct cluster *c)
{
    struct fetch *f = &c->fetch;

    assert(c->disk != NULL && c->environment.post != NULL);
    if (f->buf == NULL)
        f->buf = aligned_alloc(8, PEER_POST_MAX);
    if (f->buf == NULL)
        return -ENOMEM;
    return f->reader == NULL ? log_reader_open_on(&f->reader, c->disk) : 0;
}

/* The body of a post, from the disk. Returns its size or an error; *ret_plain: what its size is
 * unpacked. */
static int64_t fetch_fill(struct cluster *c, const struct fetch_request *r, uint64_t *ret_next,
                          int64_t *ret_plain)
{
    struct fetch *f = &c->fetch;
    const struct record_header *h = c->read_buf;
    uint64_t last = r->to < fetch_limit(c, r) ? r->to : fetch_limit(c, r), i;
    int64_t want = r->credit < FETCH_POST ? r->credit : FETCH_POST;
    size_t used = 0, before;
    int64_t plain = PEER_FETCHED_BYTES;
    int e = fetch_prepare(c);

    assert(r->next <= last && want > 0);
    f->packer.level = r->packs != FETCH_PLAIN ? (int)c->config.peering->pack_level : 0;
    f->packer.hash_key = knows_key(c) && r->packs == FETCH_LEAN ? c->genesis_hash_key : NULL;
    if (e == 0)
        log_reader_bound(f->reader, c->recovery.fenced ? 0 : c->applied_index);
    for (i = r->next; e == 0 && i <= last && (used == 0 || plain < want); i++) {
        struct peer_entry entry = { .record = &c->read_record };

        e = log_reader_get(f->reader, i, c->read_buf, LOG_RECORD_BYTES_MAX, &c->read_record,
                           &entry.payload);
        if (e < 0)
            break;
        entry.payload_crc = h->payload_crc;
        if (used == 0)
            used = peer_fetched_begin(f->buf, i, h->agreed.before);
        peer_pack(&f->packer, &entry, r->packs == FETCH_LEAN);
        before = used;
        used = peer_fetched_add(f->buf, used, &entry);
        plain += PEER_ENTRY_BYTES + (int64_t)c->read_record.payload_bytes;
        assert(used > before && plain <= (int64_t)PEER_POST_MAX);
    }
    *ret_next = i;
    *ret_plain = plain;
    return e < 0 ? e : (int64_t)used;
}

/* Sends a post of what r wants. What cannot be read here, another node may have. */
static int fetch_serve(struct cluster *c, struct fetch_request *r, uint64_t now_ns)
{
    uint64_t next;
    int64_t plain, bytes = fetch_fill(c, r, &next, &plain);
    struct iovec iov = { c->fetch.buf, (size_t)bytes };
    struct node_post post = { .to = r->node, .type = PEER_FETCHED, .iov = &iov, .iovs = 1 };
    int e;

    if (bytes < 0) {
        if (bytes == -EILSEQ)
            atomic_store(&c->scrub_wanted, next);
        r->node = 0;
        return 0;
    }
    e = c->environment.post(c->environment.arg, &post);
    if (e == -EAGAIN) {
        r->retry_ns = now_ns + FETCH_RETRY_NS;
        if (now_ns - r->since_ns >= FETCH_SILENCE_NS)
            r->node = 0; /* by now it has asked another */
        return 0;
    }
    if (e < 0)
        return cluster_fail(c, e, "a message to node %u: %s", r->node, strerror(-e));
    assert(next > r->next && next <= r->to + 1 && next <= fetch_limit(c, r) + 1);
    r->next = next;
    r->credit -= plain;
    r->since_ns = now_ns;
    if (r->next > r->to)
        r->node = 0;
    return 1;
}

/* --- turns --------------------------------------------------------------------------------------
 */

int fetch_turn(struct cluster *c, uint64_t now_ns)
{
    struct fetch *f = &c->fetch;
    int done = f->active ? fetch_own_turn(c, now_ns) : 0;

    assert(f->active || f->queue == NULL);
    /* One post, whoever's turn it is. */
    for (unsigned i = 0; done >= 0 && i < CLUSTER_MEMBERS_MAX; i++) {
        struct fetch_request *r = &f->request[(f->turn + i) % CLUSTER_MEMBERS_MAX];

        if (request_due_ns(c, r) <= now_ns) {
            int e = fetch_serve(c, r, now_ns);

            f->turn += i + 1;
            return e < 0 ? e : done + e;
        }
    }
    return done;
}

/* When there are tokens enough to ask. */
static uint64_t fetch_tokens_due_ns(const struct cluster *c)
{
    const struct fetch *f = &c->fetch;
    double missing = FETCH_GRANT_MIN - (double)f->tokens;
    double rate = (double)c->config.fetch_bytes_per_s;

    if (rate == 0 || missing <= 0)
        return f->tokens_ns;
    return f->tokens_ns + (uint64_t)(missing / rate * (double)NS_PER_S) + NS_PER_MS;
}

/* When this node is to ask. While what has come waits for room in the log, the log's completions
 * are what it goes on with. */
static uint64_t fetch_ask_due_ns(const struct cluster *c, uint64_t now_ns)
{
    const struct fetch *f = &c->fetch;
    bool anew = f->queue == NULL && f->ask_ns <= now_ns;
    bool more = !f->searching && f->silences == 0 &&
                FETCH_WINDOW - f->granted - f->queued >= FETCH_WINDOW / 2;
    uint64_t at = UINT64_MAX;

    if (!f->active || (f->queue == NULL && log_last_index(c->log) == f->to.index))
        return UINT64_MAX;
    if (anew || (more && f->next <= f->to.index))
        at = fetch_tokens_due_ns(c);
    if (at < f->retry_ns)
        at = f->retry_ns;
    return f->queue == NULL && !anew && f->ask_ns < at ? f->ask_ns : at;
}

uint64_t fetch_deadline_ns(const struct cluster *c, uint64_t now_ns)
{
    const struct fetch *f = &c->fetch;
    uint64_t at = fetch_ask_due_ns(c, now_ns), due;

    for (unsigned i = 0; i < CLUSTER_MEMBERS_MAX; i++) {
        due = request_due_ns(c, &f->request[i]);
        at = due < at ? due : at;
    }
    return at;
}

void fetch_log_cut(struct cluster *c)
{
    log_reader_close(c->fetch.reader);
    c->fetch.reader = NULL;
}

void fetch_close(struct cluster *c)
{
    struct fetch *f = &c->fetch;

    fetch_drop_queue(f);
    assert(f->queue == NULL && f->queued == 0);
    if (f->active)
        raft_configuration_close(&f->to.configuration);
    f->active = false;
    log_reader_close(f->reader);
    f->reader = NULL;
    free(f->buf);
    free(f->unpacked);
    f->buf = f->unpacked = NULL;
    peer_packer_fini(&f->packer);
    peer_unpacker_fini(&f->unpacker);
}
