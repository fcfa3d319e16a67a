/*
 * log_reader.c - finds and reads single records while the log's owner goes on.
 *
 * A segment is found by its name, a record in it by walking the headers before it, in large reads;
 * every WAY_STEP-th offset is kept, for the WAYS segments used last. What is kept is only a hint: a
 * header that does not fit makes the way be walked again, and a file that was removed since is let
 * go.
 *
 * Who asks for one record after the other is served from pieces of the file that are read ahead. A
 * record that is not there in memory, or not whole, is read again before that is believed: the
 * piece may be older than the record. And a record that is there may have been cut since, unless it
 * was committed when the piece was read: memory is forgotten before a record above that is looked
 * for, so what is found was on the disk after the caller knew that it will stay.
 *
 * Direct reads (tmpfs: buffered), so that what the owner wrote directly is never hidden by a stale
 * page cache.
 *
 * Thread:  one owner, any thread.  Memory:  allocated on opening, ways grow with the segments.
 */
#include "cluster/ahead.h"
#include "cluster/segment.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WAYS     8
#define WAY_STEP 16

struct way {
    int file; /* -1: free */
    struct segment segment;
    uint32_t seed;
    uint64_t used;    /* when, by the reader's count of gets */
    uint64_t *offset; /* of records first, first + WAY_STEP, ... */
    size_t n, room;
    uint64_t end_offset, end_index; /* how far it was walked: the next record */
};

struct log_reader {
    struct disk *disk;
    bool disk_is_ours;
    struct segment_list list;
    struct way way[WAYS];
    uint64_t gets;
    uint64_t bound;      /* nothing up to here is ever cut */
    uint64_t read_bound; /* what it was before anything of what is in memory was read */
    void *page;          /* LOG_ALIGN */
    struct ahead ahead;
    /* Behind the record that was read last: next_index 0: nowhere. */
    struct way *next_way;
    uint64_t next_index, next_offset;
};

static void way_close(struct log_reader *r, struct way *w)
{
    if (w->file >= 0) {
        if (r->ahead.file == w->file) {
            ahead_drop(&r->ahead);
            r->ahead.file = -1;
            r->next_index = 0;
        }
        r->disk->ops->close(r->disk, w->file);
    }
    free(w->offset);
    *w = (struct way){ .file = -1 };
}

static struct log_reader *reader_new(void)
{
    struct log_reader *r = calloc(1, sizeof *r);

    if (r == NULL)
        return NULL;
    for (int i = 0; i < WAYS; i++)
        r->way[i].file = -1;
    r->ahead = (struct ahead){ .file = -1, .buf = aligned_alloc(LOG_ALIGN, AHEAD_BYTES) };
    r->page = aligned_alloc(LOG_ALIGN, LOG_ALIGN);
    if (r->ahead.buf == NULL || r->page == NULL) {
        free(r->ahead.buf);
        free(r->page);
        free(r);
        return NULL;
    }
    return r;
}

int log_reader_open(struct log_reader **ret, const char *dir)
{
    struct log_reader *r = reader_new();
    int e = r ? disk_uring_open_shared(&r->disk, dir) : -ENOMEM;

    if (e < 0) {
        log_reader_close(r);
        return e;
    }
    r->disk_is_ours = true;
    *ret = r;
    return 0;
}

int log_reader_open_on(struct log_reader **ret, struct disk *d)
{
    struct log_reader *r = reader_new();

    if (r == NULL)
        return -ENOMEM;
    r->disk = d;
    *ret = r;
    return 0;
}

void log_reader_close(struct log_reader *r)
{
    if (r == NULL)
        return;
    if (r->disk != NULL)
        ahead_drop(&r->ahead);
    for (int i = 0; i < WAYS; i++)
        way_close(r, &r->way[i]);
    segment_list_fini(&r->list);
    if (r->disk_is_ours)
        r->disk->ops->fini(r->disk);
    free(r->ahead.buf);
    free(r->page);
    free(r);
}

/* The last segment that begins at or below index, or NULL. */
static const struct segment *find_segment(const struct log_reader *r, uint64_t index)
{
    size_t low = 0, high = r->list.n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (r->list.at[middle].first <= index)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? &r->list.at[low - 1] : NULL;
}

static int open_way(struct log_reader *r, struct way *w, const struct segment *s)
{
    const struct disk_ops *ops = r->disk->ops;
    bool last = s == &r->list.at[r->list.n - 1];
    struct segment_header header;
    const char *why;
    char name[SEGMENT_NAME_BYTES];
    int64_t n;

    way_close(r, w);
    segment_name(s, name);
    w->file = ops->open(r->disk, name, false);
    if (w->file < 0) {
        int e = w->file;

        w->file = -1;
        return e;
    }
    n = ops->size(r->disk, w->file);
    w->segment = *s;
    w->segment.bytes = n < 0 ? 0 : (uint64_t)n;
    /* A segment that was the last when the list was read may have been cut since: -EILSEQ then, and
     * log_reader_get() reads the list again. */
    if (n >= 0)
        n = segment_read(r->disk, w->file, &w->segment, last, r->page, &header, &why);
    if (n < 0) {
        way_close(r, w);
        return (int)n;
    }
    w->seed = record_seed(header.before);
    w->end_offset = LOG_ALIGN;
    w->end_index = s->first;
    return 0;
}

/* The way of segment s: one that is open and still that file, or a new one. */
static int get_way(struct log_reader *r, const struct segment *s, struct way **ret)
{
    struct way *oldest = &r->way[0];

    for (int i = 0; i < WAYS; i++) {
        struct way *w = &r->way[i];

        if (w->file >= 0 && r->disk_is_ours && !disk_uring_is_linked(r->disk, w->file))
            way_close(r, w); /* removed by a truncation */
        if (w->file >= 0 && w->segment.first == s->first && w->segment.epoch == s->epoch) {
            *ret = w;
            w->used = ++r->gets;
            return 0;
        }
        if (w->used < oldest->used)
            oldest = w;
    }
    *ret = oldest;
    oldest->used = ++r->gets;
    return open_way(r, oldest, s);
}

/* A record of `bytes` bytes was met at (offset, index); the way goes on behind it if it ended
 * there.
 */
static int way_extend(struct way *w, uint64_t index, uint32_t bytes)
{
    if (index != w->end_index)
        return 0;
    if ((index - w->segment.first) % WAY_STEP == 0) {
        if (w->n == w->room) {
            size_t room = w->room ? w->room * 2 : 256;
            uint64_t *p = realloc(w->offset, room * sizeof *p);

            if (p == NULL)
                return -ENOMEM;
            w->offset = p;
            w->room = room;
        }
        w->offset[w->n++] = w->end_offset;
    }
    assert(w->end_offset % LOG_ALIGN == 0 && bytes % LOG_ALIGN == 0);
    w->end_index++;
    w->end_offset += bytes;
    return 0;
}

/* The checked header of record index at offset, borrowed. */
static int get_header(struct log_reader *r, const struct way *w, uint64_t offset, uint64_t index,
                      const struct record_header **ret)
{
    const void *p;
    int e;

    assert(w->file >= 0 && w->file == r->ahead.file && offset >= LOG_ALIGN);
    if (offset + LOG_ALIGN > w->segment.bytes)
        return -ENOENT;
    e = ahead_get(&r->ahead, offset, LOG_ALIGN, &p);
    if (e < 0)
        return e == -ENODATA ? -ENOENT : e; /* the file was cut behind its seal */
    if (record_is_zero(p, LOG_ALIGN))
        return -ENOENT;
    *ret = p;
    if (record_check_header(p, w->seed, offset) != NULL || (*ret)->agreed.index != index)
        return -EILSEQ;
    return 0;
}

/* Walks headers from (*offset, at) to index. */
static int walk(struct log_reader *r, struct way *w, uint64_t index, uint64_t *offset, uint64_t at)
{
    const struct record_header *h;
    uint32_t bytes;
    int e = 0;

    for (; e == 0 && at < index; at++) {
        e = get_header(r, w, *offset, at, &h);
        if (e < 0)
            break;
        bytes = record_bytes(h->agreed.payload_bytes);
        e = way_extend(w, at, bytes);
        *offset += bytes;
    }
    return e;
}

/* Finds the record's offset. */
static int find_offset(struct log_reader *r, struct way *w, uint64_t index, uint64_t *ret)
{
    size_t step = (index - w->segment.first) / WAY_STEP;
    uint64_t at;

    assert(index >= w->segment.first && w->end_index >= w->segment.first);
    if (index >= w->end_index) {
        *ret = w->end_offset;
        at = w->end_index;
    } else {
        assert(step < w->n);
        *ret = w->offset[step];
        at = w->segment.first + step * WAY_STEP;
    }
    return walk(r, w, index, ret, at);
}

/* Reads the record at offset into buf. */
static int read_at(struct log_reader *r, struct way *w, uint64_t offset, uint64_t index, void *buf,
                   size_t cap)
{
    const struct record_header *h;
    const void *p;
    uint32_t bytes;
    int e = get_header(r, w, offset, index, &h);

    if (e < 0)
        return e;
    bytes = record_bytes(h->agreed.payload_bytes);
    if (bytes > cap)
        return -ENOBUFS;
    if (offset + bytes > w->segment.bytes)
        return -EILSEQ;
    e = ahead_get(&r->ahead, offset, bytes, &p);
    if (e < 0)
        return e == -ENODATA ? -ENOENT : e;
    if (record_check_payload(p) != NULL)
        return -EILSEQ;
    memcpy(buf, p, bytes);
    r->next_way = w;
    r->next_index = index + 1;
    r->next_offset = offset + bytes;
    return way_extend(w, index, bytes);
}

/* One try, with the segments that are known; next: the record behind the one read last. */
static int try_get(struct log_reader *r, uint64_t index, bool next, void *buf, size_t cap)
{
    const struct segment *s = find_segment(r, index);
    uint32_t piece = AHEAD_PIECE_MIN;
    struct way *w;
    uint64_t offset;
    bool there;
    int e;

    if (s == NULL)
        return -ENOENT;
    e = get_way(r, s, &w);
    there = e == 0;
    if (e == 0) {
        /* Into the next segment at the same pace; at the log's end with a small step. */
        if (next && r->ahead.piece > piece && w->file != r->ahead.file)
            piece = r->ahead.piece;
        ahead_begin(&r->ahead, r->disk, w->file, w->segment.bytes, piece);
    }
    if (e == 0)
        e = find_offset(r, w, index, &offset);
    if (e == 0)
        e = read_at(r, w, offset, index, buf, cap);
    /* A segment behind which there is another has all of its records. */
    if (e == -ENOENT && there && s != &r->list.at[r->list.n - 1])
        e = -EILSEQ;
    if (e == -EILSEQ || e == -ENOENT)
        way_close(r, w); /* it may be out of date: a truncation, a new segment */
    return e;
}

void log_reader_bound(struct log_reader *r, uint64_t index)
{
    if (index > r->bound)
        r->bound = index;
}

uint32_t log_reader_crc(const void *buf)
{
    return ((const struct record_header *)buf)->payload_crc;
}

int log_reader_get(struct log_reader *r, uint64_t index, void *buf, size_t cap,
                   struct log_record *ret, const void **ret_payload)
{
    bool next = index == r->next_index;
    int e;

    assert(((uintptr_t)buf & (LOG_ALIGN - 1)) == 0 && cap >= LOG_ALIGN && index > 0);
#ifndef PLANT_READER_UNBOUNDED
    if (index > r->read_bound) {
        if (r->ahead.file >= 0)
            ahead_drop(&r->ahead);
        r->read_bound = r->bound;
    }
#endif
    e = next ? read_at(r, r->next_way, r->next_offset, index, buf, cap) : -ENOENT;
    if (e == -ENOENT || e == -EILSEQ) {
        r->next_index = 0;
        e = try_get(r, index, next, buf, cap);
    }
    if (e == -ENOENT || e == -EILSEQ) {
        segment_list_fini(&r->list);
        e = segment_list_read(&r->list, r->disk);
        if (e == 0)
            e = try_get(r, index, next, buf, cap);
    }
    if (e < 0)
        return e;
    record_decode(buf, ret);
    *ret_payload = (uint8_t *)buf + LOG_HEADER_BYTES;
    return 0;
}
