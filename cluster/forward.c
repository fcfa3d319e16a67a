/*
 * forward.c - blocks to the leader, and what became of them back.
 *
 * A node that does not lead sends its workers' blocks to the one that does. They stay its own, in
 * their place among the answers (commit.c), so that those leave in the order in which the blocks
 * came, whatever becomes of each. When the leader has committed a block, or found its events to be
 * duplicates, it says so, and the block is answered as if it had been decided here; it does not
 * wait for this node's own log.
 *
 * A block that may be lost is sent again, as it is: when no answer comes for a time, when the term
 * has changed, when it was not taken. The first sending may have been committed all the same; then
 * the second finds duplicates of it, and the producer is told of duplicates, with their place. That
 * is as good as a receipt: the event is in the log, and it is known where. A node that becomes
 * leader itself decides about what it has in hand. What is not decided about in time is refused, so
 * that the producer, which may have a better way, hears of it; NOT_LEADER promises nothing about
 * the log, and sending again is safe.
 *
 * For blocks of other nodes the leader has a pool, of as many for each as one may have on the way.
 * From there they go the way of all blocks (propose.c). A node that has no room, or does not lead,
 * says so at once: a post that waited would hold up the engine's messages behind it.
 *
 * Thread:  the cluster thread's.
 * Memory:  the pool, block by block when it is first needed; then nothing more.
 * Limits:  CLUSTER_FORWARD_WINDOW blocks of a node, CLUSTER_MEMBERS_MAX nodes. Who has no place in
 *          the window waits, the workers run out of blocks and the sockets are no longer read.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cluster/internal.h"
#include "cluster/peer_forward.h"
#include "proto/wire.pb.h"

#define AGAIN_MS_MIN  20u /* to one that does not take it; doubled */
#define AGAIN_MS_MAX  200u
#define UNANSWERED_NS (1 * NS_PER_S)

/* A block of another node. */
struct room {
    struct block block;
    enum { ROOM_FREE, ROOM_TAKEN, ROOM_ANSWERED } state;
    uint16_t node;
    uint64_t process, id;
    uint64_t give_up_ns; /* ROOM_ANSWERED: the other has given up by then */
};
_Static_assert(offsetof(struct room, block) == 0, "a room is found by its block");
_Static_assert(CLUSTER_FORWARD_WINDOW *PEER_FORWARD_MAX < 3u << 20, "what a node has on the way");
_Static_assert(AGAIN_MS_MAX *NS_PER_MS < UNANSWERED_NS, "a no is heard before silence is");

struct forward_peer {
    uint16_t node; /* 0: none */
    uint64_t process;
    struct room *room[CLUSTER_FORWARD_WINDOW]; /* NULL: not needed yet */
};

struct forward_pool {
    struct forward_peer peer[CLUSTER_MEMBERS_MAX];
    uint64_t retry_ns; /* of answers that could not be posted */
    struct peer_exception exception[BLOCK_EVENTS_MAX];
};

void forward_init(struct cluster *c)
{
    node_random(c, &c->forward.process, sizeof c->forward.process);
}

void forward_fini(struct cluster *c)
{
    struct forward_pool *p = c->forward.pool;

    for (unsigned i = 0; p != NULL && i < CLUSTER_MEMBERS_MAX; i++) {
        for (unsigned r = 0; r < CLUSTER_FORWARD_WINDOW; r++) {
            if (p->peer[i].room[r] != NULL)
                block_fini(&p->peer[i].room[r]->block);
            free(p->peer[i].room[r]);
        }
    }
    free(p);
    c->forward.pool = NULL;
}

static uint64_t limit_ns(const struct cluster *c)
{
    return (c->config.forward_ms ? c->config.forward_ms : CLUSTER_FORWARD_MS) * NS_PER_MS;
}

/* Whom to send to; 0: nobody, this node leads or knows no leader. */
static uint16_t target(const struct cluster *c)
{
    uint16_t leader = consensus_leader(c);

    return c->environment.post != NULL && leader != c->config.node ? leader : 0;
}

/* --- blocks of this node ------------------------------------------------------------------------
 */

void forward_begin(struct cluster *c, struct block *b)
{
    assert(b->events > 0 && b->worker != FORWARDED_WORKER && !forward_waits(b));
    assert(b->accepted == b->events);
    b->forward = (struct block_forward){ .id = ++c->forward.last_id,
                                         .arrived_ns = b->forward.arrived_ns,
                                         .delay_ms = AGAIN_MS_MIN };
    b->index = b->term = 0;
    b->wait_index = UINT64_MAX;
    c->forward.waiting++;
}

/* It is decided, and so is b->wait_index. */
static void forward_end(struct cluster *c, struct block *b)
{
    assert(c->forward.waiting > 0 && b->wait_index != UINT64_MAX);
    c->forward.waiting--;
    b->forward.id = 0;
    /* An earlier sending of it may be in the log, whatever was the answer to this one. */
    if (!is_of_worker(b))
        return;
    if (b->forward.again || (b->forward.sent && (b->refuse_reason != 0 || c->lead == LEAD_READY)))
        c->events_doubtful += b->events - b->accepted;
}

static bool is_too_old(const struct cluster *c, const struct block *b, uint64_t now_ns)
{
    return now_ns >= b->forward.arrived_ns + limit_ns(c);
}

/* Those that fit into the window. Blocks of other nodes came while this one led. */
static int take_arrived(struct cluster *c, uint64_t now_ns)
{
    int done = propose_collect(c, now_ns), e = 0;
    struct block **link = &c->arrived;

    assert(c->lead != LEAD_READY);

    while (*link != NULL && e == 0) {
        struct block *b = *link;

        if (b->worker == FORWARDED_WORKER) {
            *link = b->next;
            propose_refuse(b, sluice_v1_Reason_NOT_LEADER);
            e = forward_answer(c, b);
            done++;
        } else if (link == &c->arrived && is_too_old(c, b, now_ns)) {
            *link = b->next;
            propose_refuse(b, sluice_v1_Reason_NOT_LEADER);
            commit_answer_later(c, b);
            done++;
        } else if (link == &c->arrived && c->forward.waiting < CLUSTER_FORWARD_WINDOW) {
            *link = b->next;
            forward_begin(c, b);
            commit_answer_later(c, b);
            done++;
        } else {
            link = &b->next;
        }
    }
    for (link = &c->arrived; *link != NULL; link = &(*link)->next) {
    }
    c->arrived_tail = link;
    return e < 0 ? e : done;
}

/* When b wants to be sent to this leader: at once, if nobody of this term has it. */
static uint64_t due_ns(const struct cluster *c, const struct block *b, uint16_t leader)
{
    bool elsewhere =
        b->forward.to != 0 && (b->forward.to != leader || b->forward.term != c->state.term);

    return elsewhere ? 0 : b->forward.due_ns;
}

static int send_block(struct cluster *c, struct block *b, uint16_t leader, uint64_t now_ns)
{
    struct peer_forward head;
    struct iovec iov[PEER_FORWARD_IOVS];
    const struct node_post post = {
        .to = leader, .type = PEER_FORWARD, .iov = iov, .iovs = PEER_FORWARD_IOVS
    };
    int e;

    assert(forward_waits(b) && b->wait_index == UINT64_MAX && leader != c->config.node);
    peer_forward_put(&head, b, c->forward.process, b->forward.id, iov);
    e = c->environment.post(c->environment.arg, &post);
    if (e == -EAGAIN) {
        c->forward.blocked_ns = now_ns + AGAIN_MS_MIN * NS_PER_MS;
        return 0;
    }
    if (e < 0)
        return cluster_fail(c, e, "a block to node %u: %s", leader, strerror(-e));
    c->forward.sent++;
    c->forward.resent += b->forward.to != 0;
    b->forward.to = leader;
    b->forward.term = c->state.term;
    b->forward.due_ns = now_ns + UNANSWERED_NS;
    b->forward.again = b->forward.sent;
    b->forward.sent = true;
    return 1;
}

static void give_up(struct cluster *c, struct block *b)
{
    propose_refuse(b, sluice_v1_Reason_NOT_LEADER);
    if (forward_waits(b))
        forward_end(c, b);
}

/* The first of those that wait, to whoever leads; refuses what has waited for too long. */
static int send_waiting(struct cluster *c, uint64_t now_ns)
{
    uint16_t leader = target(c);
    unsigned place = 0;
    int done = 0, e;

    for (struct block *b = c->answers; b != NULL; b = b->next) {
        if (b->wait_index <= c->applied_index)
            continue;
        if (!forward_waits(b)) {
            /* One that has led and was removed then, or is cut off, may never hear of it. */
            done += is_too_old(c, b, now_ns) && !consensus_leads(c) && commit_abandon(c);
            continue;
        }
        if (is_too_old(c, b, now_ns)) {
            give_up(c, b);
            done++;
            continue;
        }
        /* There may be more than fit: what was cut when another took the lead. */
        if (leader == 0 || place++ >= CLUSTER_FORWARD_WINDOW || now_ns < c->forward.blocked_ns ||
            now_ns < due_ns(c, b, leader))
            continue;
        e = send_block(c, b, leader, now_ns);
        if (e < 0)
            return e;
        done += e;
    }
    return done;
}

/* This node leads now. */
static int decide_waiting(struct cluster *c)
{
    int done = 0;

    assert(c->lead == LEAD_READY && consensus_leads(c));
    for (struct block *b = c->answers; c->forward.waiting > 0; b = b->next) {
        int e;

        assert(b != NULL);
        if (!forward_waits(b))
            continue;
        assert(b->wait_index == UINT64_MAX);
        b->wait_index = 0;
        e = propose_block(c, b);
        if (e <= 0) {
            b->wait_index = UINT64_MAX;
            return e < 0 ? e : done;
        }
        forward_end(c, b);
        done++;
    }
    return done;
}

/* Entries that were admitted here stay in the log, and may be committed or cut yet: what admission
 * has entered is neither confirmed nor withdrawn, so that no run will be written of it. The next
 * start finds out. */
void forward_give_up(struct cluster *c)
{
    assert(log_persisted_index(c->log) == log_last_index(c->log));
    (void)propose_collect(c, node_now_ns(c));
    while (c->arrived != NULL) {
        struct block *b = c->arrived;

        c->arrived = b->next;
        propose_refuse(b, sluice_v1_Reason_NOT_LEADER);
        commit_answer_later(c, b);
    }
    c->arrived_tail = &c->arrived;
    (void)propose_release(c, log_persisted_index(c->log));
    for (struct block *b = c->answers; b != NULL; b = b->next) {
        if (b->wait_index <= c->applied_index)
            continue;
        if (!forward_waits(b) && is_of_worker(b))
            c->events_doubtful += b->accepted; /* they may be committed yet */
        give_up(c, b);
    }
    c->commit_ended = true;
}

/* What is left out has an exception where somebody is to be answered for it. */
static void set_exceptions(struct block *b, const struct peer_exception *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = x[i].position;

        assert(at < b->events && b->verdict[at] == VERDICT_COMMITTED);

        b->verdict[at] =
            x[i].reason == sluice_v1_Reason_DUPLICATE ? VERDICT_DUPLICATE : VERDICT_CONFLICT;
        if (b->request_of[at] == REQUEST_NONE)
            continue;
        assert(b->exceptions < BLOCK_EXCEPTIONS_MAX);
        b->exception[b->exceptions++] = (struct block_exception){
            .first_index = x[i].first_index,
            .request = b->request_of[at],
            .position = b->position[at],
            .first_slot = x[i].first_slot,
            .reason = x[i].reason,
        };
    }
}

/* As propose_block() would have left it here; the payload too, for the assigned ids. */
static void set_decided(struct block *b, const struct peer_forwarded *h,
                        const struct peer_exception *x)
{
    const struct block_header header = *(const struct block_header *)block_payload(b);

    assert(h->accepted + h->exceptions == b->events && b->wait_index == UINT64_MAX);
    set_exceptions(b, x, h->exceptions);
    if (h->accepted > 0 && h->exceptions > 0)
        block_seal(b, header.node, header.region);
    assert(b->accepted == h->accepted || h->accepted == 0);
    b->accepted = h->accepted;
    b->index = h->index;
    b->term = h->term;
    b->wait_index = 0;
}

static struct block *find_waiting(const struct cluster *c, const struct peer_forwarded *h)
{
    struct block *b = c->answers;

#ifdef PLANT_FORWARD_WRONG_BLOCK
    while (b != NULL && !(forward_waits(b) && b->forward.sent && b->events == h->events))
        b = b->next;
    return b;
#endif
    if (h->process != c->forward.process)
        return NULL;
    while (b != NULL && b->forward.id != h->id)
        b = b->next;
    return b;
}

/* That it was committed is true whoever says so, also of an earlier sending; that it was not taken
 * is of interest only from whom it was sent to last. */
int forward_receive_answer(struct cluster *c, uint16_t from, const void *body, size_t bytes)
{
    const struct peer_forwarded *h;
    const struct peer_exception *x;
    struct block *b;

    if (peer_forwarded_get(&h, &x, body, bytes) < 0)
        return -EBADMSG;
    b = find_waiting(c, h);
    if (b == NULL)
        return 0;
    if (b->events != h->events || !b->forward.sent)
        return -EBADMSG;
    if (h->outcome == PEER_DECIDED) {
        set_decided(b, h, x);
        forward_end(c, b);
    } else if (from == b->forward.to && h->outcome == PEER_DISK_FULL) {
        propose_refuse(b, sluice_v1_Reason_DISK_FULL);
        forward_end(c, b);
    } else if (from == b->forward.to) {
        b->forward.to = 0;
        b->forward.due_ns = node_now_ns(c) + b->forward.delay_ms * NS_PER_MS;
        b->forward.delay_ms *= b->forward.delay_ms * 2 <= AGAIN_MS_MAX ? 2 : 1;
    }
    return 0;
}

/* --- blocks of other nodes ----------------------------------------------------------------------
 */

static void room_free(struct cluster *c, struct room *room)
{
    assert(room->state == ROOM_ANSWERED && c->forward.unsent > 0);
    room->state = ROOM_FREE;
    c->forward.unsent--;
}

static int post_answer(struct cluster *c, uint16_t to, const struct peer_forwarded *h)
{
    const struct iovec iov[2] = {
        { (void *)(uintptr_t)h, sizeof *h },
        { c->forward.pool != NULL ? c->forward.pool->exception : NULL,
          h->exceptions * sizeof(struct peer_exception) },
    };
    const struct node_post post = {
        .to = to, .type = PEER_FORWARDED, .iov = iov, .iovs = h->exceptions > 0 ? 2 : 1
    };
    int e;

    assert(to != c->config.node && h->id > 0);
    e = c->environment.post(c->environment.arg, &post);
    if (e < 0 && e != -EAGAIN)
        return cluster_fail(c, e, "an answer to node %u: %s", to, strerror(-e));
    return e;
}

/* Not taken. When that cannot be said, the other will ask again. */
static int post_again(struct cluster *c, uint16_t to, const struct peer_forward *f)
{
    const struct peer_forwarded h = {
        .process = f->process, .id = f->id, .events = f->events, .outcome = PEER_AGAIN
    };
    int e = post_answer(c, to, &h);

    return e == -EAGAIN ? 0 : e;
}

/* Returns 1 when the room is free again, 0: later, or a negative errno. */
static int room_answer(struct cluster *c, struct room *room)
{
    const struct block *b = &room->block;
    struct peer_forwarded h = {
        .process = room->process, .id = room->id, .events = b->events, .outcome = PEER_DECIDED
    };
    int e;

    assert(room->state == ROOM_ANSWERED && b->events > 0);
    if (b->refuse_reason != 0) {
        h.outcome = b->refuse_reason == sluice_v1_Reason_DISK_FULL ? PEER_DISK_FULL : PEER_AGAIN;
    } else {
        assert(b->exceptions == b->events - b->accepted);
        h.index = b->index;
        h.term = b->term;
        h.accepted = b->accepted;
        h.exceptions = b->exceptions;
    }
    for (uint32_t i = 0; i < h.exceptions; i++)
        c->forward.pool->exception[i] = (struct peer_exception){
            .first_index = b->exception[i].first_index,
            .position = b->exception[i].position,
            .first_slot = b->exception[i].first_slot,
            .reason = b->exception[i].reason,
        };
    e = post_answer(c, room->node, &h);
    if (e == -EAGAIN && h.outcome != PEER_AGAIN)
        return 0;
    if (e < 0 && e != -EAGAIN)
        return e;
    room_free(c, room);
    return 1;
}

int forward_answer(struct cluster *c, struct block *b)
{
    struct room *room = (struct room *)b;
    int e;

    assert(b->worker == FORWARDED_WORKER && room->state == ROOM_TAKEN);
    room->state = ROOM_ANSWERED;
    room->give_up_ns = node_now_ns(c) + limit_ns(c);
    c->forward.unsent++;
    e = room_answer(c, room);
    return e < 0 ? e : 0;
}

/* Answers that could not be posted, or are for a process that is no more. */
static int answer_again(struct cluster *c, uint64_t now_ns)
{
    struct forward_pool *p = c->forward.pool;
    int done = 0;

    if (c->forward.unsent == 0 || now_ns < p->retry_ns)
        return 0;
    p->retry_ns = now_ns + AGAIN_MS_MIN * NS_PER_MS;
    for (unsigned i = 0; i < CLUSTER_MEMBERS_MAX; i++) {
        for (unsigned r = 0; r < CLUSTER_FORWARD_WINDOW; r++) {
            struct room *room = p->peer[i].room[r];
            int e = 1;

            if (room == NULL || room->state != ROOM_ANSWERED)
                continue;
            if (room->process != p->peer[i].process || now_ns >= room->give_up_ns)
                room_free(c, room);
            else
                e = room_answer(c, room);
            if (e < 0)
                return e;
            done += e;
        }
    }
    return done;
}

static bool is_idle(const struct forward_peer *p)
{
    for (unsigned r = 0; r < CLUSTER_FORWARD_WINDOW; r++) {
        if (p->room[r] != NULL && p->room[r]->state != ROOM_FREE)
            return false;
    }
    return true;
}

/* The place of this node in the pool, or that of another that has nothing in it. */
static struct forward_peer *find_peer(struct cluster *c, uint16_t node)
{
    struct forward_peer *idle = NULL;

    if (c->forward.pool == NULL)
        c->forward.pool = calloc(1, sizeof *c->forward.pool);
    if (c->forward.pool == NULL)
        return NULL;
    for (unsigned i = 0; i < CLUSTER_MEMBERS_MAX; i++) {
        struct forward_peer *p = &c->forward.pool->peer[i];

        if (p->node == node)
            return p;
        if (is_idle(p) && (idle == NULL || idle->node != 0))
            idle = p;
    }
    if (idle != NULL)
        idle->node = node;
    return idle;
}

static struct room *room_new(void)
{
    struct room *room = calloc(1, sizeof *room);

    if (room != NULL && block_init(&room->block, FORWARDED_WORKER) < 0) {
        free(room);
        return NULL;
    }
    return room;
}

/* NULL: there is none, or no memory for one. */
static struct room *find_room(struct forward_peer *p)
{
    for (unsigned r = 0; r < CLUSTER_FORWARD_WINDOW; r++) {
        if (p->room[r] == NULL)
            p->room[r] = room_new();
        if (p->room[r] == NULL || p->room[r]->state == ROOM_FREE)
            return p->room[r];
    }
    return NULL;
}

static void fill_block(struct block *b, const struct peer_forward_view *v)
{
    assert(b->worker == FORWARDED_WORKER && v->block.header->events == v->head->events);
    block_fill(b, &v->block, v->content);
    b->write.record.payload_bytes = v->head->payload_bytes;
    b->write.payload_crc = v->head->payload_crc;
    memcpy(b->write.record.payload_sha256, v->head->payload_sha256, SHA256_BYTES);
}

/* 1: this block is here already, and will be answered, or is now. */
static int receive_resent(struct cluster *c, struct forward_peer *p, const struct peer_forward *h)
{
    if (p->process != h->process) {
        p->process = h->process; /* answers for the one before have nobody to go to */
        return 0;
    }
    for (unsigned r = 0; r < CLUSTER_FORWARD_WINDOW; r++) {
        struct room *room = p->room[r];
        int e;

        if (room == NULL || room->state == ROOM_FREE || room->process != h->process ||
            room->id != h->id)
            continue;
        e = room->state == ROOM_ANSWERED ? room_answer(c, room) : 0;
        return e < 0 ? e : 1;
    }
    return 0;
}

/* One that ends takes no more: what it has in hand would never be all answered. */
static bool takes_blocks(const struct cluster *c)
{
    return c->lead == LEAD_READY && !atomic_load(&c->drain_wanted) && !atomic_load(&c->stop_wanted);
}

int forward_receive(struct cluster *c, uint16_t from, const void *body, size_t bytes)
{
    struct peer_forward_view v;
    struct forward_peer *p;
    struct room *room;
    int e;

    if (peer_forward_get(&v, from, body, bytes) < 0)
        return -EBADMSG;
    p = takes_blocks(c) ? find_peer(c, from) : NULL;
    e = p != NULL ? receive_resent(c, p, v.head) : 0;
    if (e != 0)
        return e < 0 ? e : 0;
    room = p != NULL ? find_room(p) : NULL;
    if (room == NULL)
        return post_again(c, from, v.head);
    assert(room->state == ROOM_FREE && from != c->config.node);
    fill_block(&room->block, &v);
    assert(room->block.exceptions == 0);
    room->block.exceptions_before = 0;
    room->block.forward = (struct block_forward){ .arrived_ns = node_now_ns(c) };
    room->state = ROOM_TAKEN;
    room->node = from;
    room->process = v.head->process;
    room->id = v.head->id;
    *c->arrived_tail = &room->block;
    c->arrived_tail = &room->block.next;
    return 0;
}

/* --- turns --------------------------------------------------------------------------------------
 */

int forward_turn(struct cluster *c, uint64_t now_ns)
{
    int done = answer_again(c, now_ns), e;

    if (done < 0)
        return done;
    if (c->lead == LEAD_READY) {
        e = decide_waiting(c);
        return e < 0 ? e : done + e;
    }
    e = take_arrived(c, now_ns);
    if (e < 0)
        return e;
    done += e;
    e = send_waiting(c, now_ns);
    return e < 0 ? e : done + e;
}

uint64_t forward_deadline_ns(const struct cluster *c)
{
    uint64_t at = c->forward.unsent > 0 ? c->forward.pool->retry_ns : UINT64_MAX, due;
    uint16_t leader = target(c);
    bool leads = consensus_leads(c);
    unsigned place = 0;

    if (c->lead == LEAD_READY)
        return at;
    if (c->arrived != NULL && c->arrived->forward.arrived_ns + limit_ns(c) < at)
        at = c->arrived->forward.arrived_ns + limit_ns(c);
    for (const struct block *b = c->answers; b != NULL; b = b->next) {
        if (b->wait_index <= c->applied_index || (leads && !forward_waits(b)))
            continue;
        if (!forward_waits(b) && b->index > log_persisted_index(c->log))
            continue; /* it cannot be given up before its write has ended, and that wakes */
        due = b->forward.arrived_ns + limit_ns(c);
        if (due < at)
            at = due;
        if (!forward_waits(b) || leader == 0 || place++ >= CLUSTER_FORWARD_WINDOW)
            continue;
        due = due_ns(c, b, leader);
        if (due < c->forward.blocked_ns)
            due = c->forward.blocked_ns;
        if (due < at)
            at = due;
    }
    return at;
}
