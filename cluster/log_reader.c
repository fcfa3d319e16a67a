/*
 * log_reader.c - finds and reads single records while the log's owner goes on.
 *
 * A segment is found by its name, a record in it by walking the headers before it, in large reads;
 * every WAY_STEP-th offset is kept, for the WAYS segments used last. What is kept is only a hint: a
 * header that does not fit makes the way be walked again, and a file that was removed since is let
 * go.
 *
 * Direct reads (tmpfs: buffered), so that what the owner wrote directly is never hidden by a stale
 * page cache.
 *
 * Thread:  one owner, any thread.  Memory:  allocated on opening, ways grow with the segments.
 */
#include "cluster/segment.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WAYS       8
#define WAY_STEP   16
#define WALK_BYTES (2 * LOG_RECORD_BYTES_MAX)

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
    uint8_t *buf; /* WALK_BYTES */
};

static void way_close(struct log_reader *r, struct way *w)
{
    if (w->file >= 0)
        r->disk->ops->close(r->disk, w->file);
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
    r->buf = aligned_alloc(LOG_ALIGN, WALK_BYTES);
    if (r->buf == NULL) {
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
    for (int i = 0; i < WAYS; i++)
        way_close(r, &r->way[i]);
    segment_list_fini(&r->list);
    if (r->disk_is_ours)
        r->disk->ops->fini(r->disk);
    free(r->buf);
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
        n = segment_read(r->disk, w->file, &w->segment, last, r->buf, &header, &why);
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

static int way_step(struct way *w)
{
    if ((w->end_index - w->segment.first) % WAY_STEP != 0)
        return 0;
    if (w->n == w->room) {
        size_t room = w->room ? w->room * 2 : 256;
        uint64_t *p = realloc(w->offset, room * sizeof *p);

        if (p == NULL)
            return -ENOMEM;
        w->offset = p;
        w->room = room;
    }
    assert(w->end_offset % LOG_ALIGN == 0);
    w->offset[w->n++] = w->end_offset;
    return 0;
}

/* Walks headers from (*offset, *at) to index; extends the way when it goes beyond its end. */
static int walk(struct log_reader *r, struct way *w, uint64_t index, uint64_t *offset, uint64_t at)
{
    uint64_t loaded_at = 0, loaded = 0;
    const struct record_header *h;
    int64_t n;

    assert(w->file >= 0 && *offset >= LOG_ALIGN);
    while (at < index) {
        if (*offset + LOG_ALIGN > w->segment.bytes)
            return -ENOENT;
        if (*offset < loaded_at || *offset + LOG_ALIGN > loaded_at + loaded) {
            loaded = w->segment.bytes - *offset;
            loaded = loaded < WALK_BYTES ? loaded : WALK_BYTES;
            loaded_at = *offset;
            n = r->disk->ops->read(r->disk, w->file, r->buf, loaded, loaded_at);
            if (n < 0 || (uint64_t)n != loaded)
                return n < 0 ? (int)n : -EIO;
        }
        assert(*offset >= loaded_at && *offset + LOG_ALIGN <= loaded_at + loaded);
        h = (const struct record_header *)(r->buf + (*offset - loaded_at));
        if (record_is_zero(h, LOG_ALIGN))
            return -ENOENT;
        if (record_check_header(h, w->seed, *offset) != NULL || h->agreed.index != at)
            return -EILSEQ;
        if (at == w->end_index && (n = way_step(w)) < 0)
            return (int)n;
        *offset += record_bytes(h->agreed.payload_bytes);
        if (at++ == w->end_index) {
            w->end_index = at;
            w->end_offset = *offset;
        }
    }
    return 0;
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
    const struct record_header *h = buf;
    uint32_t bytes;
    int64_t n;

    if (offset + LOG_ALIGN > w->segment.bytes)
        return -ENOENT;
    n = r->disk->ops->read(r->disk, w->file, buf, LOG_ALIGN, offset);
    if (n != LOG_ALIGN)
        return n < 0 ? (int)n : -EIO;
    if (record_is_zero(buf, LOG_ALIGN))
        return -ENOENT;
    if (record_check_header(h, w->seed, offset) != NULL || h->agreed.index != index)
        return -EILSEQ;
    bytes = record_bytes(h->agreed.payload_bytes);
    if (bytes > cap)
        return -ENOBUFS;
    if (offset + bytes > w->segment.bytes)
        return -EILSEQ;
    if (bytes > LOG_ALIGN) {
        n = r->disk->ops->read(r->disk, w->file, (uint8_t *)buf + LOG_ALIGN, bytes - LOG_ALIGN,
                               offset + LOG_ALIGN);
        if (n != (int64_t)(bytes - LOG_ALIGN))
            return n < 0 ? (int)n : -EIO;
    }
    return record_check_payload(h) != NULL ? -EILSEQ : 0;
}

/* One try, with the segments that are known. */
static int try_get(struct log_reader *r, uint64_t index, void *buf, size_t cap)
{
    const struct segment *s = find_segment(r, index);
    struct way *w;
    uint64_t offset;
    int e;

    if (s == NULL)
        return -ENOENT;
    e = get_way(r, s, &w);
    if (e == 0)
        e = find_offset(r, w, index, &offset);
    if (e == 0)
        e = read_at(r, w, offset, index, buf, cap);
    if (e == -EILSEQ || e == -ENOENT)
        way_close(r, w); /* it may be out of date: a truncation, a new segment */
    return e;
}

int log_reader_get(struct log_reader *r, uint64_t index, void *buf, size_t cap,
                   struct log_record *ret, const void **ret_payload)
{
    int e;

    assert(((uintptr_t)buf & (LOG_ALIGN - 1)) == 0 && cap >= LOG_ALIGN && index > 0);
    e = try_get(r, index, buf, cap);
    if (e == -ENOENT || e == -EILSEQ) {
        segment_list_fini(&r->list);
        e = segment_list_read(&r->list, r->disk);
        if (e == 0)
            e = try_get(r, index, buf, cap);
    }
    if (e < 0)
        return e;
    record_decode(buf, ret);
    *ret_payload = (uint8_t *)buf + LOG_HEADER_BYTES;
    return 0;
}
