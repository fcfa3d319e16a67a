/*
 * rebuild.c - a segment made anew from what is good of it and from records of other nodes.
 *
 *   | header | good records | records from elsewhere | the rest of the old file, or zeros |
 *
 * All goes to `repair.tmp`, in synchronous writes, and that is renamed over the segment when it is
 * whole. A start ignores and removes a `repair.tmp`. The old file is not kept: what it holds beside
 * good records is rot, and the space of a segment may be all that there is.
 *
 * What comes from elsewhere has to link to the record before it, and the record behind it, whose
 * header is whole, to it: then it is, to the bit, what was there.
 *
 * Thread:  one owner, the disk's.  Memory:  AHEAD_BYTES and OUT_BYTES.
 * Errors:  log.h says; after one there is nothing left to do but log_rebuild_close().
 */
#include "cluster/log_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OUT_BYTES  (1u << 20)
#define COPY_BYTES LOG_RECORD_BYTES_MAX /* in one step */

enum rebuild_phase { COPY_GOOD, TAKE_RECORDS, COPY_REST, FILL, WHOLE };

struct log_rebuild {
    struct disk *disk;
    struct log_damage damage;
    enum rebuild_phase phase;
    struct segment segment; /* as it will be named */
    int file, old;          /* -1: not open */
    struct ahead ahead;     /* of the old one; what cannot be read there becomes no record */
    uint64_t at;            /* bytes that are in the file */
    uint8_t *out;           /* OUT_BYTES, to be written behind them */
    size_t out_bytes;
    /* Behind the last record that was added. */
    uint64_t offset, next, term, time_ns;
    uint8_t digest[SHA256_BYTES];
    uint32_t seed;
    bool linked, sealed, ended;
};

static int remove_old_try(struct disk *d)
{
    int e = d->ops->remove(d, SEGMENT_REPAIR);

    return e == -ENOENT ? 0 : e;
}

static int open_files(struct log_rebuild *r)
{
    const struct log_damage *m = &r->damage;
    char name[SEGMENT_NAME_BYTES];
    int e = remove_old_try(r->disk);

    if (e < 0)
        return e;
    r->file = r->disk->ops->open(r->disk, SEGMENT_REPAIR, true);
    if (r->file < 0)
        return r->file;
    if (m->missing || (m->from == m->first && m->rest == 0))
        return 0;
    segment_name(&r->segment, name);
    r->old = r->disk->ops->open(r->disk, name, false);
    if (r->old < 0)
        return r->old;
    ahead_begin(&r->ahead, r->disk, r->old, m->bytes, AHEAD_PIECE_MIN);
    return 0;
}

int log_rebuild_open(struct log_rebuild **ret, struct disk *d, const struct log_damage *damage)
{
    struct log_rebuild *r = calloc(1, sizeof *r);
    int e = -ENOMEM;

    assert(damage->first > 0 && damage->from >= damage->first && damage->to + 1 >= damage->from);
    assert(damage->linked || (damage->anchored && damage->from == damage->first));
    if (r == NULL)
        return e;
    r->disk = d;
    r->damage = *damage;
    r->file = r->old = -1;
    r->segment = (struct segment){ .epoch = damage->epoch, .first = damage->first };
    r->ahead = (struct ahead){ .file = -1, .patch = true };
    r->ahead.buf = aligned_alloc(LOG_ALIGN, AHEAD_BYTES);
    r->out = aligned_alloc(LOG_ALIGN, OUT_BYTES);
    r->phase = damage->from > damage->first ? COPY_GOOD : TAKE_RECORDS;
    r->offset = damage->offset;
    r->next = damage->from;
    r->term = damage->term;
    r->time_ns = damage->time_ns;
    r->linked = damage->linked;
    memcpy(r->digest, damage->before, SHA256_BYTES);
    r->seed = damage->seed;
    assert(damage->from > damage->first || r->offset == LOG_ALIGN);
    if (r->ahead.buf != NULL && r->out != NULL)
        e = open_files(r);
    if (e < 0) {
        log_rebuild_close(r);
        return e;
    }
    *ret = r;
    return 0;
}

void log_rebuild_close(struct log_rebuild *r)
{
    if (r == NULL)
        return;
    if (r->ahead.file >= 0)
        ahead_drop(&r->ahead);
    if (r->old >= 0)
        r->disk->ops->close(r->disk, r->old);
    if (r->file >= 0) {
        r->disk->ops->close(r->disk, r->file);
        (void)remove_old_try(r->disk); /* or the next start does */
    }
    free(r->ahead.buf);
    free(r->out);
    free(r);
}

static int write_behind(struct log_rebuild *r, const void *bytes, size_t n)
{
    int e = r->disk->ops->write_now(r->disk, r->file, bytes, n, r->at);

    assert(n % LOG_ALIGN == 0 && r->at % LOG_ALIGN == 0);
    if (e == 0)
        r->at += n;
    return e;
}

static int flush(struct log_rebuild *r)
{
    int e = r->out_bytes > 0 ? write_behind(r, r->out, r->out_bytes) : 0;

    r->out_bytes = 0;
    return e;
}

/* The next piece of the old file up to `end`. Returns 1, 0: all is there, or an error. */
static int copy(struct log_rebuild *r, uint64_t end)
{
    uint64_t n = end - r->at;
    const void *p;
    int e;

    assert(r->old >= 0 && r->at <= end && r->out_bytes == 0);
    if (n == 0)
        return 0;
    if (n > COPY_BYTES)
        n = COPY_BYTES;
    e = ahead_get(&r->ahead, r->at, n, &p);
    if (e == 0)
        e = write_behind(r, p, n);
    return e < 0 ? e : 1;
}

static int fill(struct log_rebuild *r)
{
    uint64_t n = r->damage.segment_bytes - r->at;
    int e;

    assert(r->at <= r->damage.segment_bytes);
    if (n == 0)
        return 0;
    if (n > OUT_BYTES)
        n = OUT_BYTES;
    memset(r->out, 0, n);
    e = write_behind(r, r->out, n);
    return e < 0 ? e : 1;
}

/* The header of a segment of which nothing is used, once it is known what it begins with. */
static void begin(struct log_rebuild *r, uint64_t term)
{
    const struct log_damage *m = &r->damage;

    assert(r->at == 0 && r->out_bytes == 0 && r->offset == LOG_ALIGN);
    if (term != 0)
        r->segment.epoch = segment_epoch(term);
    segment_encode((struct segment_header *)r->out, &r->segment, m->previous_first,
                   m->segment_bytes, r->digest);
    r->out_bytes = LOG_ALIGN;
    r->seed = record_seed(r->digest);
}

/* No more records: do they fit what is behind them? */
static int take_end(struct log_rebuild *r)
{
    const struct log_damage *m = &r->damage;
    bool all = r->next > m->to;
    int e;

    if (r->at == 0 && r->out_bytes == 0)
        begin(r, 0);
    /* The end of what is missing may be several segments away; the one that is behind it, not. */
    if (!all && (m->rest != 0 || !m->linked || (!m->last && !m->missing)))
        return -EILSEQ;
#ifndef PLANT_REPAIR_UNCHECKED
    if (all && m->anchored && memcmp(r->digest, m->after, SHA256_BYTES) != 0)
        return -EILSEQ;
#endif
    if (m->rest != 0 && (r->offset != m->rest || r->ended))
        return -EILSEQ;
    if (m->rest == 0 && !m->last && !r->ended)
        return -EILSEQ;
    e = flush(r);
    assert(e < 0 || r->at == r->offset);
    r->phase = m->rest != 0 ? COPY_REST : FILL;
    return e;
}

int log_rebuild_step(struct log_rebuild *r)
{
    const struct log_damage *m = &r->damage;
    int e = 0;

    assert(r->file >= 0);
    if (r->phase == COPY_GOOD) {
        e = copy(r, m->offset);
        if (e == 0)
            r->phase = TAKE_RECORDS;
    }
    if (e == 0 && r->phase == TAKE_RECORDS && r->next > m->to) /* the header alone was bad */
        e = take_end(r);
    if (e == 0 && r->phase == COPY_REST) {
        e = copy(r, m->bytes);
        if (e == 0)
            r->phase = FILL;
    }
    /* A segment that has one behind it, and ended by its seal, is as long as its content. */
    if (e == 0 && r->phase == FILL) {
        e = m->last || (m->rest == 0 && !r->sealed) ? fill(r) : 0;
        if (e == 0)
            r->phase = WHOLE;
    }
    return e;
}

uint64_t log_rebuild_next(const struct log_rebuild *r)
{
    return r->phase == TAKE_RECORDS && r->next <= r->damage.to ? r->next : 0;
}

uint64_t log_rebuild_term(const struct log_rebuild *r) { return r->term; }

/* Can the record be there? */
static bool fits(const struct log_rebuild *r, const uint8_t *before,
                 const struct log_record *record)
{
    uint64_t end = r->offset + record_bytes(record->payload_bytes);

    assert(record->index == r->next && record->payload_bytes <= LOG_RECORD_BYTES_MAX);
#ifndef PLANT_REPAIR_UNCHECKED
    if (before != NULL && r->linked && memcmp(before, r->digest, SHA256_BYTES) != 0)
        return false;
#endif
    if (record->term < r->term || record->time_ns < r->time_ns)
        return false;
    return end <= (r->damage.rest != 0 ? r->damage.rest : r->damage.segment_bytes);
}

int log_rebuild_add(struct log_rebuild *r, const uint8_t *before, const struct log_record *record,
                    const void *payload, uint32_t payload_crc)
{
    uint32_t bytes = record_bytes(record->payload_bytes);
    uint8_t *to;
    int e = 0;

    assert(r->phase == TAKE_RECORDS && r->next <= r->damage.to && (before != NULL || r->linked));
    if (!fits(r, before, record))
        return -EILSEQ;
    if (!r->linked)
        memcpy(r->digest, before, SHA256_BYTES);
    r->linked = true;
    if (r->next == r->damage.first)
        begin(r, record->term);
    if (r->out_bytes + bytes > OUT_BYTES)
        e = flush(r);
    if (e < 0)
        return e;
    to = r->out + r->out_bytes;
    if (record->payload_bytes > 0)
        memcpy(to + LOG_HEADER_BYTES, payload, record->payload_bytes);
    /* All before it was durable here once, and is again when this has its name. */
    record_encode(to, r->seed, r->offset, r->digest, record, payload_crc, record->index - 1);
    record_digest((const struct record_header *)to, r->digest);
    r->out_bytes += bytes;
    r->offset += bytes;
    r->next++;
    assert(r->at + r->out_bytes == r->offset && r->out_bytes <= OUT_BYTES);
    r->term = record->term;
    r->time_ns = record->time_ns;
    r->sealed = record->type == LOG_SEAL;
    r->ended = segment_ends(r->damage.segment_bytes, r->offset, record->type);
    if (r->next <= r->damage.to && !r->ended)
        return 1;
    return take_end(r);
}

int log_rebuild_commit(struct log_rebuild *r)
{
    struct segment old = { .epoch = r->damage.epoch, .first = r->damage.first };
    const struct disk_ops *ops = r->disk->ops;
    char name[SEGMENT_NAME_BYTES];
    int e = 0;

    assert(r->phase == WHOLE && r->out_bytes == 0);
    /* What took the place of its first record is of another epoch. */
    if (!r->damage.missing && old.epoch != r->segment.epoch) {
        segment_name(&old, name);
        e = ops->remove(r->disk, name);
        if (e == 0)
            e = ops->sync_dir(r->disk);
    }
    segment_name(&r->segment, name);
    if (e == 0)
        e = ops->rename(r->disk, SEGMENT_REPAIR, name);
    if (e == 0)
        e = ops->sync_dir(r->disk);
    if (e < 0)
        return e;
    ops->close(r->disk, r->file);
    r->file = -1;
    return 0;
}
