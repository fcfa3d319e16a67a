/*
 * log.c - appends, reports what is durable in index order, writes the mark.
 *
 * log.h is the contract; log_private.h names the files of this module and what each is for.
 */
#include "cluster/log_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int log_fail(struct log *l, int e)
{
    assert(e < 0);
    if (l->error == 0)
        l->error = e;
    return l->error;
}

int log_mark_write(struct log *l, uint64_t durable, uint64_t cut_from)
{
    int r;

    assert(cut_from == 0 || cut_from == durable + 1);
    l->mark = (struct mark){ .durable = durable, .cut_from = cut_from };
    r = twoslot_write(&l->mark_file, &l->mark, sizeof l->mark);
    return r < 0 ? log_fail(l, r) : 0;
}

int log_mark_init(struct disk *d, uint64_t durable)
{
    struct mark m = { 0 };
    struct twoslot t;
    int r = twoslot_peek(d, SEGMENT_MARK, MARK_MAGIC, &m, sizeof m);

    if (r != -ENOENT)
        return r < 0 && r != -EILSEQ ? r : -EEXIST;
    m = (struct mark){ .durable = durable };
    r = twoslot_open(&t, d, SEGMENT_MARK, MARK_MAGIC, &m, sizeof m);
    if (r >= 0)
        twoslot_close(&t);
    return r < 0 ? r : 0;
}

int log_reserve_own(struct log *l, uint32_t payload_bytes)
{
    assert(payload_bytes <= LOG_RECORD_BYTES_MAX - LOG_HEADER_BYTES);
    if (l->error < 0)
        return l->error;
    if (l->in_flight >= l->config.writes_max)
        return -EAGAIN;
    if (!l->tail.ended)
        return 0; /* any record fits: that is what "not ended" means */
    if (l->prepare != PREPARE_READY)
        return l->prepare == PREPARE_NO_SPACE ? -ENOSPC : -EAGAIN;
    return l->in_flight > 0 ? -EAGAIN : 0;
}

int log_reserve(struct log *l, uint32_t payload_bytes)
{
    if (l->error == 0 && l->in_flight < l->config.writes_max &&
        l->free_bytes < l->config.disk_free_bytes_min)
        return -ENOSPC;
    return log_reserve_own(l, payload_bytes);
}

void log_write_seal(struct log_write *w)
{
    const uint8_t *payload = (const uint8_t *)w->buf + LOG_HEADER_BYTES;

    w->payload_crc = crc32c(0, payload, w->record.payload_bytes);
    sha256(w->record.payload_sha256, payload, w->record.payload_bytes, NULL, 0);
}

/* Reports, in index order, what is durable together with all before it. */
static void report_done(struct log *l)
{
    struct log_write *w;

    while (l->error == 0 && (w = l->first) != NULL && w->complete) {
        l->first = w->next;
        if (l->first == NULL)
            l->last = NULL;
        l->in_flight--;
        assert(w->record.index == l->persisted + 1);
        l->persisted = w->record.index;
        w->done(w);
    }
    if (l->in_flight == 0)
        l->idle_since_ns = l->now_ns;
}

#ifdef PLANT_LOG_HOLE
/* The planted bug: whatever completes is reported at once, with what is before it still in flight.
 */
static void report_hole(struct log *l, struct log_write *w)
{
    struct log_write **at = &l->first, *last = NULL;

    for (; *at != w; at = &(*at)->next)
        last = *at;
    *at = w->next;
    if (l->last == w)
        l->last = last;
    l->in_flight--;
    if (w->record.index > l->persisted)
        l->persisted = w->record.index;
    w->done(w);
}
#endif

static void on_written(struct disk_write *io, int result)
{
    struct log_write *w = (struct log_write *)((char *)io - offsetof(struct log_write, io));
    struct log *l = io->owner;

#ifdef PLANT_LOG_NO_FLUSH
    return; /* the planted bug: it was reported when it was submitted */
#endif
    assert(!w->complete);
    if (result < 0) {
        log_fail(l, result);
        return;
    }
    w->complete = true;
#ifdef PLANT_LOG_HOLE
    report_hole(l, w);
    return;
#endif
    report_done(l);
}

static void enlist(struct log *l, struct log_write *w)
{
    w->complete = false;
    w->next = NULL;
    if (l->last != NULL)
        l->last->next = w;
    else
        l->first = w;
    l->last = w;
    l->in_flight++;
}

int log_append(struct log *l, struct log_write *w)
{
    const struct log_record *r = &w->record;
    uint32_t bytes = record_bytes(r->payload_bytes);
    int e;

    if (l->error < 0)
        return l->error;
    assert(r->index == l->last_index + 1 && l->in_flight < l->config.writes_max);
    assert(r->term >= l->last_term && r->time_ns >= l->last_time_ns);
    if (l->tail.ended) {
        e = prepare_take(l, r->term);
        if (e < 0)
            return e;
    }
    assert(l->tail.offset + bytes <= l->tail.bytes);
    record_encode(w->buf, l->tail.seed, l->tail.offset, l->digest, r, w->payload_crc, l->persisted);
    record_digest(w->buf, l->digest);
    w->io = (struct disk_write){ .file = l->tail.file,
                                 .buf = w->buf,
                                 .bytes = bytes,
                                 .offset = l->tail.offset,
                                 .done = on_written,
                                 .owner = l };
    l->tail.offset += bytes;
    l->tail.sealed = r->type == LOG_SEAL;
    l->tail.ended = segment_ends(l->tail.bytes, l->tail.offset, r->type);
    l->last_index = r->index;
    l->last_term = r->term;
    l->last_time_ns = r->time_ns;
    enlist(l, w);
    l->disk->ops->write(l->disk, &w->io);
    return 0;
}

static bool mark_is_due(const struct log *l)
{
    return l->in_flight == 0 && l->mark.durable != l->persisted;
}

static uint64_t mark_due_ns(const struct log *l)
{
    return l->idle_since_ns + l->config.mark_idle_ms * 1000000ull;
}

/* Submits and collects until nothing more happens; what done() appends goes out too. */
static int turn(struct log *l, bool wait)
{
    int n, total = 0;

    do {
        n = prepare_do_work(l);
        if (n < 0)
            break;
        total += n;
        n = l->disk->ops->poll(l->disk, wait);
        total += n;
        wait = false;
#ifdef PLANT_LOG_NO_FLUSH
        for (struct log_write *w = l->first; w != NULL; w = w->next)
            w->complete = true;
        report_done(l);
#endif
    } while (n > 0 && l->error == 0 && total < 1024);
    return l->error < 0 ? l->error : total;
}

static int do_work(struct log *l, uint64_t now_ns, bool wait)
{
    int n;

    if (l->error < 0)
        return l->error;
    assert(now_ns >= l->now_ns);
    l->now_ns = now_ns;
    n = turn(l, wait);
    if (n >= 0 && mark_is_due(l) && now_ns >= mark_due_ns(l)) {
        if (log_mark_write(l, l->persisted, 0) < 0)
            return l->error;
        n++;
    }
    return n;
}

int log_do_work(struct log *l, uint64_t now_ns) { return do_work(l, now_ns, false); }
int log_wait(struct log *l, uint64_t now_ns) { return do_work(l, now_ns, true); }

uint64_t log_deadline_ns(const struct log *l)
{
    uint64_t due = UINT64_MAX, again = l->free_checked_ns + FREE_CHECK_NS;

    if (l->error < 0)
        return UINT64_MAX;
    if (l->prepare == PREPARE_NONE)
        return l->now_ns; /* nothing in flight would wake the owner */
    if (mark_is_due(l))
        due = mark_due_ns(l);
    if (l->prepare == PREPARE_NO_SPACE || l->free_bytes < l->config.disk_free_bytes_min)
        due = due < again ? due : again;
    return due;
}

void log_close(struct log *l)
{
    if (l == NULL)
        return;
    /* After an error too: the disk still reads the callers' buffers. */
    while (l->disk->ops->poll(l->disk, true) > 0) {
    }
    if (l->error == 0 && l->mark_file.page != NULL && mark_is_due(l))
        log_mark_write(l, l->persisted, 0);
    prepare_fini(l);
    if (l->tail.file >= 0)
        l->disk->ops->close(l->disk, l->tail.file);
    twoslot_close(&l->mark_file);
    segment_list_fini(&l->segments);
    free(l->zeros);
    free(l->page);
    free(l);
}

uint64_t log_last_index(const struct log *l) { return l->last_index; }
uint64_t log_last_term(const struct log *l) { return l->last_term; }
uint64_t log_last_time_ns(const struct log *l) { return l->last_time_ns; }
uint64_t log_persisted_index(const struct log *l) { return l->persisted; }

uint64_t log_first_index(const struct log *l)
{
    return l->segments.n ? l->segments.at[0].first : l->origin.index + 1;
}

void log_digest(const struct log *l, uint8_t ret[SHA256_BYTES])
{
    memcpy(ret, l->digest, SHA256_BYTES);
}

bool log_at_segment_end(const struct log *l) { return l->last_index > 0 && l->tail.ended; }

uint64_t log_segment_first(const struct log *l)
{
    if (l->tail.ended)
        return l->last_index + 1;
    assert(l->segments.n > 0 && l->segments.at[l->segments.n - 1].first <= l->last_index);
    return l->segments.at[l->segments.n - 1].first;
}

uint64_t log_disk_bytes(const struct log *l)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < l->segments.n; i++)
        sum += l->segments.at[i].bytes;
    return sum;
}
