/*
 * cut.c - removes the end of the log so that it never comes back.
 *
 * The end in this order, so that a crash at any point leaves a start the same cut to finish: the
 * mark says from where (both slots durable); later segments are removed, the last first; the rest
 * of the one that stays is overwritten with zeros; the mark says that the cut is over. If that one
 * had been cut behind its seal, its file has got its full length back before all this (zeros
 * without space, which the overwriting then takes): the last segment is never a short one.
 */
#include "cluster/log_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int remove_segments(struct log *l, size_t keep)
{
    char name[SEGMENT_NAME_BYTES];
    int r;

    assert(keep <= l->segments.n);
    if (keep == l->segments.n)
        return 0;
    while (l->segments.n > keep) {
        segment_name(&l->segments.at[l->segments.n - 1], name);
        r = l->disk->ops->remove(l->disk, name);
        if (r < 0)
            return r;
        l->segments.n--;
    }
    return l->disk->ops->sync_dir(l->disk);
}

static int write_zeros(struct log *l, int file, uint64_t offset, uint64_t end)
{
    uint64_t bytes;
    int r = 0;

    for (; r == 0 && offset < end; offset += bytes) {
        bytes = end - offset < PREPARE_BYTES ? end - offset : PREPARE_BYTES;
        r = l->disk->ops->write_now(l->disk, file, l->zeros, bytes, offset);
    }
    return r;
}

int cut_run(struct log *l, const struct cut *c)
{
    int r = 0;

    assert(c->from > l->origin.index && l->in_flight == 0);
    if (l->mark.cut_from != c->from)
        r = log_mark_write(l, c->from - 1, c->from);
    if (r == 0)
        r = remove_segments(l, c->keep);
    if (r == 0 && c->file >= 0)
        r = write_zeros(l, c->file, c->offset, c->dirty_end);
    if (r == 0)
        r = log_mark_write(l, c->from - 1, 0);
    return r < 0 ? log_fail(l, r) : 0;
}

/* Reads the segment up to record index; s then stands behind it. */
static int find_end(struct scan *s, struct log *l, const struct segment *segment, uint64_t index,
                    void *buf)
{
    const struct record_header *h;
    bool last = segment == &l->segments.at[l->segments.n - 1];
    int r = scan_open(s, l->disk, segment, last, buf);

    while (r == 0 && s->index <= index)
        if (scan_next(s, &h) != SCAN_RECORD)
            r = -EILSEQ;
    if (r < 0)
        scan_close(s);
    return r;
}

/* The log ends where s stands; s's file becomes the tail. */
static void take_position(struct log *l, struct scan *s)
{
    l->last_term = s->term;
    l->last_time_ns = s->time_ns;
    memcpy(l->digest, s->digest, SHA256_BYTES);
    l->tail = (struct tail){ .file = scan_take_file(s),
                             .seed = s->seed,
                             .offset = s->offset,
                             .bytes = s->segment.bytes,
                             .ended = s->ended,
                             .sealed = s->sealed };
}

static void take_origin(struct log *l)
{
    l->last_term = l->origin.term;
    l->last_time_ns = l->origin.time_ns;
    memcpy(l->digest, l->origin.digest, SHA256_BYTES);
    l->tail = (struct tail){ .file = -1, .ended = true };
}

int cut_make_full(struct log *l, struct scan *s, struct segment *segment)
{
    uint64_t full = s->header.segment_bytes;
    int r;

    assert(s->file >= 0 && s->segment.bytes <= full && segment->first == s->segment.first);
    if (s->segment.bytes == full)
        return 0;
    r = l->disk->ops->truncate(l->disk, s->file, full);
    if (r == 0)
        s->segment.bytes = segment->bytes = full;
    return r < 0 ? log_fail(l, r) : 0;
}

/* Of the cut: the zeros behind what stays take the space that sealing gave back. */
static int take_back(struct log *l, struct scan *s, struct segment *segment)
{
    uint64_t missing = s->header.segment_bytes - s->segment.bytes;

    assert(missing < s->header.segment_bytes);
    prepare_check_free(l);
    return l->free_bytes < missing ? -ENOSPC : cut_make_full(l, s, segment);
}

static int truncate_to(struct log *l, uint64_t from, void *buf)
{
    struct scan s = { .file = -1 };
    struct cut c = { .from = from, .keep = l->segments.n, .file = -1 };
    int r = 0;

    while (c.keep > 0 && l->segments.at[c.keep - 1].first >= from)
        c.keep--;
    if (c.keep > 0) {
        /* Before anything changes: rot found here refuses the cut. */
        r = find_end(&s, l, &l->segments.at[c.keep - 1], from - 1, buf);
        if (r < 0)
            return log_fail(l, r);
        r = take_back(l, &s, &l->segments.at[c.keep - 1]);
        if (r < 0) {
            scan_close(&s);
            return r;
        }
        c.file = s.file;
        c.offset = s.offset;
        /* Behind a segment that was begun and got no record a start leaves no file open. */
        c.dirty_end =
            c.keep == l->segments.n && l->tail.file >= 0 ? l->tail.offset : s.segment.bytes;
    }
    assert(c.keep > 0 || from == l->origin.index + 1);
    assert(c.offset <= c.dirty_end);
    r = cut_run(l, &c);
    if (r < 0) {
        scan_close(&s);
        return r;
    }
    if (l->tail.file >= 0)
        l->disk->ops->close(l->disk, l->tail.file);
    if (c.keep > 0)
        take_position(l, &s);
    else
        take_origin(l);
    l->last_index = l->persisted = from - 1;
    return 0;
}

int log_cut_room(struct log *l, uint64_t from)
{
    uint64_t bytes = l->config.segment_bytes; /* at most, to fill a segment up again */

    if (l->segments.n == 0 || from > l->segments.at[l->segments.n - 1].first)
        return 0;
    if (l->prepare != PREPARE_READY)
        bytes += l->config.segment_bytes + l->config.disk_free_bytes_min;
    prepare_check_free(l);
    return l->free_bytes < bytes ? -ENOSPC : 0;
}

int log_truncate(struct log *l, uint64_t from)
{
    void *buf;
    int r;

    if (l->error < 0)
        return l->error;
    assert(l->in_flight == 0 && l->persisted == l->last_index);
    if (from <= l->origin.index || from > l->last_index + 1)
        return -EINVAL;
    if (from == l->last_index + 1)
        return 0;
    buf = aligned_alloc(LOG_ALIGN, SCAN_BYTES);
    if (buf == NULL)
        return -ENOMEM;
    r = truncate_to(l, from, buf);
    free(buf);
    return r;
}
