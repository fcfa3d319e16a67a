/*
 * reconcile.c - offers what this node has set aside (orphan.c) to the cluster again.
 *
 * Each block of a file goes the way of any block of this node, to admission at whoever leads: what
 * is in the log again by now, since its producer has sent it again, is a duplicate there; what is
 * not enters it; an id that has another event by now is a conflict, and its event stays in the
 * file. So it may be done again, after any interruption, from the beginning. Entries that are no
 * events, settings and audit, are counted and not offered: an operator decides about those.
 *
 * A file of which all was offered, and nothing was in conflict, gets another name. None is removed.
 *
 * Thread: the node's. Memory: BLOCKS blocks and a reader while it runs. Errors: of a file, its
 * result; others are final for the node.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/report.h"
#include "cluster/internal.h"

#define BLOCKS      4u
#define AGAIN_NS    (100 * NS_PER_MS) /* to one that was refused */
#define PATIENCE_NS (30 * NS_PER_S)   /* without any that was taken */

struct offer {
    struct block block;
    enum { OFFER_FREE, OFFER_READY, OFFER_SENT } state;
    uint64_t retry_ns;
    uint8_t *payload; /* as it is in the file: the block's may have been closed up */
    uint32_t payload_bytes;
};
_Static_assert(offsetof(struct offer, block) == 0, "an offer is found by its block");

struct reconcile {
    struct orphan_file file[ORPHANS_MAX];
    int files, at;
    struct orphan_reader *reader; /* of file[at]; NULL: it is not open */
    bool ended;                   /* all of it was read */
    int broken;                   /* or no more of it can be: why */
    uint64_t conflicts;           /* of this file */
    struct offer offer[BLOCKS];
    uint64_t content[BLOCK_EVENTS_MAX];
    uint64_t progress_ns;
    struct reconcile_report report;
    void (*done)(void *arg, int result, const struct reconcile_report *report);
    void *arg;
};

__attribute__((format(printf, 3, 4))) static int end(struct cluster *c, int result,
                                                     const char *format, ...)
{
    struct reconcile *r = c->reconcile;
    void (*done)(void *, int, const struct reconcile_report *) = r->done;
    struct reconcile_report report = r->report;
    void *arg = r->arg;
    va_list a;

    va_start(a, format);
    vsnprintf(report.sentence, sizeof report.sentence, format, a);
    va_end(a);
    reconcile_close(c);
    done(arg, result, &report);
    return 1;
}

void reconcile_close(struct cluster *c)
{
    struct reconcile *r = c->reconcile;

    if (r == NULL)
        return;
    orphan_reader_close(r->reader);
    for (unsigned i = 0; i < BLOCKS; i++) {
        block_fini(&r->offer[i].block);
        free(r->offer[i].payload);
    }
    free(r);
    c->reconcile = NULL;
}

/* Is any of its blocks with the cluster? */
static bool is_waited_for(const struct reconcile *r)
{
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (r->offer[i].state == OFFER_SENT)
            return true;
    }
    return false;
}

static struct reconcile *reconcile_new(void)
{
    struct reconcile *r = calloc(1, sizeof *r);
    bool ok = r != NULL;

    for (unsigned i = 0; ok && i < BLOCKS; i++) {
        r->offer[i].payload = aligned_alloc(8, LOG_RECORD_BYTES_MAX);
        ok = r->offer[i].payload != NULL && block_init(&r->offer[i].block, RECONCILE_WORKER) == 0;
    }
    return r;
}

static bool is_idle(const struct reconcile *r)
{
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (r->offer[i].state != OFFER_FREE)
            return false;
    }
    return true;
}

void reconcile_begin(struct cluster *c,
                     void (*done)(void *arg, int result, const struct reconcile_report *report),
                     void *arg)
{
    struct reconcile_report no = { .files = 0 };
    struct reconcile *r;
    int e = 0;

    if (c->reconcile != NULL)
        e = -EBUSY;
    else if (c->log == NULL || c->repair.at_start || c->recovery.fenced || !c->have_genesis)
        e = -EAGAIN;
    else if ((c->reconcile = reconcile_new()) == NULL)
        e = -ENOMEM;
    if (e == 0) {
        r = c->reconcile;
        r->files = orphan_list(c->config.dir, r->file, ORPHANS_MAX);
        if (r->offer[BLOCKS - 1].block.buf == NULL)
            e = -ENOMEM;
        else if (r->files < 0)
            e = r->files;
        r->done = done;
        r->arg = arg;
        r->progress_ns = node_now_ns(c);
        if (e == 0)
            return;
        reconcile_close(c);
    }
    snprintf(no.sentence, sizeof no.sentence, "node %u: %s", c->config.node,
             e == -EBUSY    ? "it is at it already"
             : e == -EAGAIN ? "its log is not open: see sluice cluster status"
                            : strerror(-e));
    done(arg, e, &no);
}

/* --- a file -------------------------------------------------------------------------------------
 */

/* Returns 1, or what done was told. */
static int open_next(struct cluster *c)
{
    struct reconcile *r = c->reconcile;
    const struct orphan_file *f = &r->file[r->at];
    int e;

    assert(r->reader == NULL && r->at < r->files && is_idle(r));
    if (f->reconciled) {
        r->at++;
        return 1;
    }
    e = f->error != 0 ? f->error : orphan_reader_open(&r->reader, c->config.dir, f->name);
    if (e == 0 && memcmp(f->head.cluster_id, c->state.cluster_id, sizeof f->head.cluster_id) != 0)
        return end(c, -EINVAL, "node %u: %s is of another cluster", c->config.node, f->name);
    if (e < 0)
        return end(c, e, "node %u: %s cannot be read: %s", c->config.node, f->name,
                   e == -EILSEQ ? "it is damaged" : strerror(-e));
    r->ended = false;
    r->conflicts = 0;
    return 1;
}

static int close_file(struct cluster *c)
{
    struct reconcile *r = c->reconcile;
    const struct orphan_file *f = &r->file[r->at];
    int e;

    assert(r->ended && is_idle(r) && r->at < r->files);
    orphan_reader_close(r->reader);
    r->reader = NULL;
    r->at++;
    r->report.files++;
    e = r->conflicts == 0 ? orphan_mark_reconciled(c->config.dir, f->name) : 0;
    if (e < 0)
        return end(c, e, "node %u: %s: %s", c->config.node, f->name, strerror(-e));
    return 1;
}

/* The next block into a free place. Returns 1; 0: it was no block, or there is none; or -EILSEQ. */
static int read_block(struct cluster *c, struct offer *o)
{
    struct reconcile *r = c->reconcile;
    struct log_record record;
    struct block_view v;
    const void *payload;
    int e;

    assert(o->state == OFFER_FREE && !r->ended && r->reader != NULL);
    e = orphan_reader_next(r->reader, &record, &payload);

    if (e <= 0) {
        r->ended = e == 0;
        return e;
    }
    if (record.type != LOG_EVENTS) {
        r->report.others += record.type == LOG_SETTING || record.type == LOG_AUDIT;
        return 0;
    }
    if (block_view(&v, payload, record.payload_bytes) < 0)
        return -EILSEQ;
    memcpy(o->payload, payload, record.payload_bytes);
    o->payload_bytes = record.payload_bytes;
    o->state = OFFER_READY;
    o->retry_ns = 0;
    return 1;
}

static void send_block(struct cluster *c, struct offer *o)
{
    struct reconcile *r = c->reconcile;
    struct block *b = &o->block;
    struct block_view v;
    int e = block_view(&v, o->payload, o->payload_bytes);

    assert(e == 0);
    for (uint32_t i = 0; i < v.header->events; i++)
        r->content[i] =
            hash_content(c->genesis_hash_key, v.payload + v.desc[i].offset, v.desc[i].bytes);
    block_fill(b, &v, r->content);
    block_seal(b, 0, c->config.region);
    b->next = NULL;
    b->wait_index = 0;
    b->refuse_reason = 0;
    b->exceptions = b->exceptions_before = 0;
    b->forward = (struct block_forward){ .arrived_ns = node_now_ns(c) };
    memset(b->verdict, VERDICT_COMMITTED, b->events);
    *c->arrived_tail = b;
    c->arrived_tail = &b->next;
    o->state = OFFER_SENT;
}

void reconcile_answered(struct cluster *c, struct block *b)
{
    struct reconcile *r = c->reconcile;
    struct offer *o = (struct offer *)b;

    assert(r != NULL && b->worker == RECONCILE_WORKER && o->state == OFFER_SENT);
    if (b->refuse_reason != 0) {
        o->state = OFFER_READY;
        o->retry_ns = node_now_ns(c) + AGAIN_NS;
        return;
    }
    for (uint32_t i = 0; i < b->events; i++) {
        r->report.accepted += b->verdict[i] == VERDICT_COMMITTED;
        r->report.duplicates += b->verdict[i] == VERDICT_DUPLICATE;
        r->report.conflicts += b->verdict[i] == VERDICT_CONFLICT;
        r->conflicts += b->verdict[i] == VERDICT_CONFLICT;
    }
    assert(r->report.conflicts >= r->conflicts);
    o->state = OFFER_FREE;
    r->progress_ns = node_now_ns(c);
}

/* --- turns --------------------------------------------------------------------------------------
 */

static int offers_turn(struct cluster *c, uint64_t now_ns)
{
    struct reconcile *r = c->reconcile;
    int done = 0;

    for (unsigned i = 0; i < BLOCKS; i++) {
        struct offer *o = &r->offer[i];

        if (o->state == OFFER_FREE && !r->ended) {
            int e = read_block(c, o);

            if (e < 0) { /* what was sent is answered first */
                r->broken = e;
                r->ended = true;
            }
            done += e == 1 || !r->ended;
        }
        if (o->state == OFFER_READY && now_ns >= o->retry_ns) {
            send_block(c, o);
            done++;
        }
    }
    return done;
}

int reconcile_turn(struct cluster *c, uint64_t now_ns)
{
    struct reconcile *r = c->reconcile;

    if (r == NULL || atomic_load(&c->drain_wanted))
        return 0;
    if (r->reader == NULL && r->at < r->files)
        return open_next(c);
    if (r->reader == NULL)
        return end(c, 0,
                   "node %u: %u files offered again: %" PRIu64
                   " events were missing and are in the "
                   "log now, %" PRIu64 " were in it, %" PRIu64 " conflict with others of their id",
                   c->config.node, r->report.files, r->report.accepted, r->report.duplicates,
                   r->report.conflicts);
    if (r->ended && is_idle(r) && r->broken < 0)
        return end(c, r->broken, "node %u: %s is damaged", c->config.node, r->file[r->at].name);
    if (r->ended && is_idle(r))
        return close_file(c);
    if (now_ns >= r->progress_ns + PATIENCE_NS && !is_waited_for(r))
        return end(c, -ETIMEDOUT, "node %u: nothing is taken; ask again", c->config.node);
    return offers_turn(c, now_ns);
}

uint64_t reconcile_deadline_ns(const struct cluster *c, uint64_t now_ns)
{
    const struct reconcile *r = c->reconcile;
    uint64_t at = r != NULL && is_idle(r) && !atomic_load(&c->drain_wanted) ? now_ns : UINT64_MAX;

    for (unsigned i = 0; r != NULL && i < BLOCKS; i++) {
        if (r->offer[i].state == OFFER_READY && r->offer[i].retry_ns < at)
            at = r->offer[i].retry_ns;
    }
    return at < now_ns ? now_ns : at;
}
