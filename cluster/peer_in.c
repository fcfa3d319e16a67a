/*
 * peer_in.c - a node that has dialled this one: its HELLO, then its messages, which go into the
 * engine or to node.c in their order. The cluster thread's; limits are in peer.h.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/peer_internal.h"

#define TWICE_NS     (10 * NS_PER_S) /* between two sentences about it */
#define DIRECT_BYTES (16u << 10)     /* from here on a payload is read to its place, not staged */
#define ANSWER_MAX   (4u << 20)      /* answers that the caller does not read */

static void in_ready(struct peer_link *l, int events);

void in_accept(struct peers *p, int fd)
{
    struct peer_in *in = calloc(1, sizeof *in), **place = NULL;

    for (unsigned i = 0; i < PEER_IN_MAX && place == NULL; i++) {
        if (p->in[i] == NULL)
            place = &p->in[i];
    }
    assert(place != NULL); /* peer.c does not accept otherwise */
    if (in == NULL || (in->stage = malloc(PEER_STAGE_BYTES)) == NULL ||
        peer_decoder_init(&in->decoder, &proposal_memory, PEER_TYPES_FIRST) < 0) {
        if (in != NULL)
            free(in->stage);
        free(in);
        link_close(link_new(p, fd, true, in_ready, NULL)); /* with the descriptor */
        return;
    }
    in->p = p;
    in->decoder.unpacker.hash_key = p->c->genesis_hash_key; /* zeros until it is known */
    in->number = ++p->in_number;
    in->deadline_ns = node_now_ns(p->c) + PEER_HELLO_MS * NS_PER_MS;
    in->link = link_new(p, fd, true, in_ready, in);
    if (in->link == NULL) {
        peer_decoder_fini(&in->decoder);
        free(in->stage);
        free(in);
        return;
    }
    *place = in;
    link_peer(in->link);
    link_poll(in->link, UV_READABLE);
}

static void in_forget_message(struct peer_in *in)
{
    for (unsigned i = in->taken; i < in->entries; i++)
        proposal_free(in->entry[i]);
    in->entries = in->taken = 0;
    in->message = NULL;
    in->waits = false;
}

void in_close(struct peer_in *in, const char *error)
{
    static struct report_limit limit;
    struct peers *p = in->p;

    if (error != NULL)
        report_every(&limit, NS_PER_S, REPORT_WARN, "peer_in", "node %u at %s: %s", in->node,
                     in->link->address, error);
    for (unsigned i = 0; i < PEER_IN_MAX; i++) {
        if (p->in[i] == in)
            p->in[i] = NULL;
    }
    in_forget_message(in);
    link_close(in->link);
    peer_decoder_fini(&in->decoder);
    free(in->stage);
    free(in->answer);
    free(in);
}

/* --- HELLO --------------------------------------------------------------------------------------
 */

/* Sent at once or not at all: it is the first that goes this way, or the last. */
static bool in_say(struct peer_in *in, const void *frame, int n)
{
    struct iovec iov = { (void *)(uintptr_t)frame, (size_t)n };

    assert(n > 0);
    return link_writev(in->link, &iov, 1) == n;
}

static void in_refuse(struct peer_in *in, const struct refusal *r)
{
    _Alignas(8) uint8_t frame[HANDSHAKE_FRAME_MAX];
    uint64_t epoch = in->p->c->state.term >> CLUSTER_EPOCH_SHIFT;

    (void)in_say(in, frame, handshake_put_refusal(frame, sizeof frame, epoch, r));
    in_close(in, r->sentence);
}

/* What is known of the dialler. A node that lags behind may not know it yet; one that leads knows
 * everybody, but for those that took part in an earlier epoch only, which have to hear of this one.
 */
static const struct handshake_known *in_known(const struct peer_in *in, const struct hello *h,
                                              struct handshake_known *stranger)
{
    const struct peer_out *o = peers_out(in->p, h->node);

    if (o != NULL && o->member)
        return &o->known;
    if (consensus_leads(in->p->c) && h->epoch >= in->p->c->state.term >> CLUSTER_EPOCH_SHIFT)
        return NULL;
    *stranger = (struct handshake_known){ .node = h->node, .region = (uint8_t)h->region };
    return stranger;
}

/* A process that was superseded by another, and comes again, has not ended: there are two. */
static void in_note_process(struct peer_in *in, const struct hello *h, uint64_t superseded)
{
    static struct report_limit limit;
    struct peer_out *o = peers_out(in->p, h->node);

    if (o == NULL || superseded == h->process)
        return;
    if (o->superseded == h->process)
        report_every(&limit, TWICE_NS, REPORT_WARN, "peer_twice",
                     "node %u runs twice, at %s and elsewhere, with one data directory: was it "
                     "copied? Stop one of them",
                     h->node, h->address);
    o->superseded = superseded;
}

/* What came on an older connection of that node is not to be mixed with this one's. */
static bool in_supersede(struct peer_in *in, const struct hello *h)
{
    for (unsigned i = 0; i < PEER_IN_MAX; i++) {
        struct peer_in *old = in->p->in[i];

        if (old == NULL || old == in || old->state != IN_UP || old->node != h->node ||
            old->calls_only)
            continue;
        if (old->process == h->process && old->connection >= h->connection)
            return false;
        in_note_process(in, h, old->process);
        in_close(old, NULL);
    }
    return true;
}

static void in_heard(struct peer_in *in, uint64_t epoch)
{
    struct peer_out *o = peers_out(in->p, in->node);

    in->epoch = epoch;
    if (o != NULL)
        o->epoch = epoch;
}

/* Returns false when in is gone. */
static bool in_hello(struct peer_in *in, const struct peer_frame *f)
{
    _Alignas(8) uint8_t frame[HANDSHAKE_FRAME_MAX];
    struct cluster *c = in->p->c;
    struct handshake_self self = peers_self(in->p);
    struct handshake_known stranger;
    struct welcome w = { .magic = HANDSHAKE_MAGIC, .node = c->config.node };
    struct refusal refusal;
    struct hello h;
    const char *wrong = handshake_get_hello(&h, f);
    int notes;

    if (wrong == NULL)
        wrong = link_identity(in->link, h.node);
    if (wrong != NULL) {
        in_close(in, wrong);
        return false;
    }
    in->node = h.node;
    notes = handshake_check(&self, in_known(in, &h, &stranger), &h, &refusal);
    if (notes < 0) {
        in_refuse(in, &refusal);
        return false;
    }
    in->calls_only = (notes & HANDSHAKE_CALLS_ONLY) != 0;
    if (!in->calls_only && !in_supersede(in, &h)) {
        in_close(in, "an older connection than the one it has");
        return false;
    }
    in->process = h.process;
    in->connection = h.connection;
    w.version = handshake_version(&self, &h);
    memcpy(w.directory_id, self.directory_id, sizeof w.directory_id);
    if (!in_say(in, frame, handshake_put_welcome(frame, sizeof frame, self.epoch, &w))) {
        in_close(in, "it takes no WELCOME");
        return false;
    }
    in->state = IN_UP;
    peer_decoder_accept(&in->decoder,
                        in->calls_only ? PEER_TYPE_SET(PEER_CALL) : PEER_TYPES_WELCOMED);
    if (in->calls_only) {
        node_offered(c, &h);
    } else {
        peers_introduced(in->p, &h);
        in_heard(in, h.epoch);
        repair_introduced(c, h.node);
        (void)recovery_hears(c, h.node, PEER_HELLO, h.epoch);
    }
    return true;
}

/* --- messages -----------------------------------------------------------------------------------
 */

static int in_take_raft(struct peer_in *in)
{
    unsigned taken = 0;
    int e = 0;

    assert(in->taken <= in->entries && !in->calls_only);
    if (in->raft.type == RAFT_INSTALL_SNAPSHOT) /* taken at once: it does not come here again */
        e = peer_snapshot_take(&in->raft.install_snapshot, in->message);
    if (e == 0)
        e = consensus_receive(in->p->c, &in->raft, in->entry + in->taken, &taken);
    in->taken += taken;
    assert(in->taken <= in->entries && (e != 0 || in->taken == in->entries));
    return e;
}

/* The message that is there. Returns 1: done; 0: it waits; -ECONNRESET: in is gone; or a final
 * error. */
static int in_take(struct peer_in *in)
{
    const struct peer_frame *f = &in->message->frame;
    struct cluster *c = in->p->c;
    int e = 0;

    if (!in->calls_only && f->epoch != in->epoch)
        in_heard(in, f->epoch);
    if (!in->calls_only && !recovery_hears(c, in->node, f->type, f->epoch)) {
        in_forget_message(in);
        return 1;
    }
    if (f->type == PEER_CALL)
        call_received(in, f->head, f->head_bytes);
    else if (f->type >= PEER_POST_FIRST)
        e = node_receive(c, in->node, (enum peer_type)f->type, f->head, f->head_bytes);
    else if (f->type != PEER_PING)
        e = in_take_raft(in);
    if (e == -EAGAIN) {
        in->waits = true;
        return 0;
    }
    if (e == -EBADMSG) {
        in_close(in, "it sends what no node of this cluster sends");
        return -ECONNRESET;
    }
    if (e < 0)
        return e;
    in_forget_message(in);
    return 1;
}

static int in_message(struct peer_in *in)
{
    const struct peer_message *m = peer_decoder_message(&in->decoder);

    assert(in->message == NULL && !in->waits);
    if (in->state == IN_HELLO)
        return in_hello(in, &m->frame) ? 1 : -ECONNRESET;
    in->message = m;
    in->taken = in->entries = 0;
    in->raft = m->raft;
    in->raft.server_id = in->node;
    in->raft.server_address = "";
    if (m->frame.type == PEER_APPEND_ENTRIES) {
        in->entries = m->raft.append_entries.n_entries;
        for (unsigned i = 0; i < in->entries; i++)
            in->entry[i] = (struct proposal *)m->write[i];
    }
    return in_take(in);
}

/* Some bytes to the decoder, from the stage or from the connection. Returns 1, 0: there are none
 * now, or -ECONNRESET: in is gone. */
static int in_feed(struct peer_in *in, int *ret_got)
{
    void *to;
    size_t want = peer_decoder_want(&in->decoder, &to);
    ssize_t n;

    assert(want > 0);
    if (in->stage_at == in->stage_n && want < DIRECT_BYTES) {
        n = link_read(in->link, in->stage, PEER_STAGE_BYTES);
        if (n > 0) {
            in->stage_at = 0;
            in->stage_n = (size_t)n;
        }
    } else if (in->stage_at == in->stage_n) {
        n = link_read(in->link, to, want);
        if (n > 0)
            *ret_got = peer_decoder_got(&in->decoder, (size_t)n);
        return n > 0 ? 1 : n == -EAGAIN ? 0 : (in_close(in, link_error(in->link, n)), -ECONNRESET);
    } else {
        n = 1;
    }
    if (n == -EAGAIN)
        return 0;
    if (n <= 0) {
        in_close(in, in->state == IN_UP && n == 0 ? NULL : link_error(in->link, n));
        return -ECONNRESET;
    }
    assert(in->stage_at < in->stage_n && in->stage_n <= PEER_STAGE_BYTES);
    if (want > in->stage_n - in->stage_at)
        want = in->stage_n - in->stage_at;
    memcpy(to, in->stage + in->stage_at, want);
    in->stage_at += want;
    *ret_got = peer_decoder_got(&in->decoder, want);
    return 1;
}

/* What has come, PEER_READ_BYTES at most. Returns 1: there may be more; 0: not now; -ECONNRESET: in
 * is gone; or a final error. */
static int in_read(struct peer_in *in)
{
    for (size_t done = 0; done < PEER_READ_BYTES / 64; done++) {
        int got = 0, e = in_feed(in, &got);

        if (e <= 0)
            return e;
        if (got < 0) {
            in_close(in, peer_decoder_error(&in->decoder));
            return -ECONNRESET;
        }
        e = got == 1 ? in_message(in) : 1;
        if (e <= 0)
            return e;
    }
    return 1;
}

static void in_ready(struct peer_link *l, int events)
{
    struct peer_in *in = l->owner;

    (void)events;
    assert(in->link == l);
    in->readable = true; /* the turn before the next sleep reads it */
}

static int in_secure(struct peer_in *in)
{
    int e = link_handshake(in->link);
    const char *wrong;

    if (e == -EAGAIN)
        return 0;
    wrong = e < 0 ? link_error(in->link, e) : link_identity(in->link, 0);
    if (wrong != NULL) {
        in_close(in, wrong);
        return -ECONNRESET;
    }
    in->state = IN_HELLO;
    return 1;
}

/* --- answers ------------------------------------------------------------------------------------
 */

static int in_write_answers(struct peer_in *in)
{
    while (in->answer_at < in->answer_n) {
        struct iovec iov = { in->answer + in->answer_at, in->answer_n - in->answer_at };
        ssize_t n = link_writev(in->link, &iov, 1);

        if (n == -EAGAIN)
            return 0;
        if (n < 0) {
            in_close(in, link_error(in->link, n));
            return -ECONNRESET;
        }
        in->answer_at += (size_t)n;
    }
    in->answer_at = in->answer_n = 0;
    return 0;
}

/* Written by the next turn. */
void in_answer(struct peer_in *in, const void *frame, size_t n)
{
    assert(in->state == IN_UP && n > 0);
    if (in->answer_n + n > in->answer_cap) {
        uint8_t *more =
            in->answer_n + n > ANSWER_MAX ? NULL : realloc(in->answer, in->answer_n + n);

        if (more == NULL) {
            report_warn("peer_in", "node %u: an answer is lost: no room", in->node);
            return;
        }
        in->answer = more;
        in->answer_cap = in->answer_n + n;
    }
    memcpy(in->answer + in->answer_n, frame, n);
    in->answer_n += n;
}

int in_turn(struct peer_in *in, uint64_t now_ns)
{
    int e = 0, work = 0;

    if (in->state != IN_UP && now_ns >= in->deadline_ns) {
        in_close(in, "no HELLO in time");
        return 1;
    }
    if (link_expired(in->link, in->p->c)) {
        in_close(in, "its certificate has expired");
        return 1;
    }
    if (in->readable && in->state == IN_TLS) {
        e = in_secure(in);
        if (e < 0)
            return 1;
        in->readable = e == 1;
    }
    if (in->waits) {
        in->waits = false;
        e = in_take(in);
        work = e == 1;
    }
    if (e >= 0 && in->readable && !in->waits && in->state != IN_TLS) {
        e = in_read(in);
        work = 1;
        if (e == 0 && !in->waits)
            in->readable = false;
    }
    if (e == -ECONNRESET)
        return 1;
    if (e < 0)
        return e;
    if (in_write_answers(in) < 0)
        return 1;
    if (in->state != IN_TLS)
        link_poll(in->link, (in->waits ? 0 : UV_READABLE) | (in->answer_n > 0 ? UV_WRITABLE : 0));
    return work;
}
