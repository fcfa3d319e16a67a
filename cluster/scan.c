/*
 * scan.c - reads a segment in large pieces and checks it; see scan.h.
 */
#include "cluster/scan.h"

#include <errno.h>
#include <string.h>

/* The bytes of the file at offset, in memory. */
static const void *piece(struct scan *s, uint64_t offset, uint64_t bytes)
{
    const void *p = NULL;
    int r = ahead_get(&s->ahead, offset, bytes, &p);

    assert(r == 0 && p != NULL); /* it patches what cannot be read */
    return p;
}

int scan_open(struct scan *s, struct disk *d, const struct segment *segment, bool last, void *buf)
{
    char name[SEGMENT_NAME_BYTES];
    int64_t bytes;
    int r;

    assert(((uintptr_t)buf & (LOG_ALIGN - 1)) == 0);
    *s = (struct scan){ .disk = d,
                        .segment = *segment,
                        .ahead = { .file = -1, .buf = buf, .patch = true } };
    segment_name(segment, name);
    s->file = d->ops->open(d, name, false);
    if (s->file < 0)
        return s->file;
    bytes = d->ops->size(d, s->file);
    s->segment.bytes = bytes < 0 ? 0 : (uint64_t)bytes;
    r = bytes < 0 ? (int)bytes : 0;
    if (r == 0 && segment_read(d, s->file, &s->segment, last, buf, &s->header, &s->why) < 0)
        r = -EILSEQ; /* what cannot be read, too */
    if (r < 0) {
        scan_close(s);
        return r;
    }
    ahead_begin(&s->ahead, d, s->file, s->segment.bytes, AHEAD_PIECE);
    s->seed = record_seed(s->header.before);
    s->offset = LOG_ALIGN;
    s->index = segment->first;
    memcpy(s->digest, s->header.before, SHA256_BYTES);
    return 0;
}

int scan_open_headless(struct scan *s, struct disk *d, const struct segment *segment,
                       const uint8_t before[SHA256_BYTES], void *buf)
{
    char name[SEGMENT_NAME_BYTES];
    int64_t bytes;

    assert(((uintptr_t)buf & (LOG_ALIGN - 1)) == 0);
    *s = (struct scan){ .disk = d,
                        .segment = *segment,
                        .ahead = { .file = -1, .buf = buf, .patch = true } };
    segment_name(segment, name);
    s->file = d->ops->open(d, name, false);
    if (s->file < 0)
        return s->file;
    bytes = d->ops->size(d, s->file);
    if (bytes < 0) {
        scan_close(s);
        return (int)bytes;
    }
    s->segment.bytes = (uint64_t)bytes / LOG_ALIGN * LOG_ALIGN;
    ahead_begin(&s->ahead, d, s->file, s->segment.bytes, AHEAD_PIECE);
    s->seed = record_seed(before);
    s->offset = LOG_ALIGN;
    s->index = segment->first;
    memcpy(s->digest, before, SHA256_BYTES);
    return 0;
}

int scan_take_file(struct scan *s)
{
    int file = s->file;

    assert(file >= 0);
    ahead_drop(&s->ahead);
    s->file = -1;
    return file;
}

void scan_close(struct scan *s)
{
    ahead_drop(&s->ahead);
    if (s->file >= 0)
        s->disk->ops->close(s->disk, s->file);
    s->file = -1;
}

/* Does the record continue what was read before it? */
static const char *check_link(const struct scan *s, const struct record_agreed *a)
{
    if (a->index != s->index)
        return "its index is not the next one";
    if (memcmp(a->before, s->digest, SHA256_BYTES) != 0)
        return "it does not link to the record before";
    if (a->term < s->term || a->time_ns < s->time_ns)
        return "its term or time is below the record before";
    if (a->index == s->segment.first && segment_epoch(a->term) != s->segment.epoch)
        return "its epoch is not the segment's";
    return NULL;
}

enum scan_result scan_next(struct scan *s, const struct record_header **ret)
{
    const struct record_header *h;
    uint32_t bytes;

    if (s->ended)
        return SCAN_ENDED;
    if (s->offset == s->segment.bytes)
        return SCAN_NONE; /* the file was cut, and not where it ended */
    h = piece(s, s->offset, LOG_ALIGN);
    if (record_is_zero(h, LOG_ALIGN))
        return SCAN_NONE;
    s->why = record_check_header(h, s->seed, s->offset);
    if (s->why == NULL)
        s->why = check_link(s, &h->agreed);
    if (s->why != NULL)
        return SCAN_BAD;
    bytes = record_bytes(h->agreed.payload_bytes);
    if (bytes > s->segment.bytes - s->offset) {
        s->why = "it goes on behind the end of the file";
        return SCAN_BAD;
    }
    h = piece(s, s->offset, bytes);
    s->why = record_check_payload(h);
    if (s->why != NULL)
        return SCAN_BAD;
    record_digest(h, s->digest);
    s->offset += bytes;
    s->index++;
    s->term = h->agreed.term;
    s->time_ns = h->agreed.time_ns;
    s->sealed = h->agreed.type == LOG_SEAL;
    s->ended = segment_ends(s->header.segment_bytes, s->offset, h->agreed.type);
    *ret = h;
    return SCAN_RECORD;
}

void scan_rest(struct scan *s, struct scan_rest *ret)
{
    const struct record_header *h;

    *ret = (struct scan_rest){ .dirty_end = s->offset };
    for (uint64_t at = s->offset; at < s->segment.bytes; at += LOG_ALIGN) {
        h = piece(s, at, LOG_ALIGN);
        if (record_is_zero(h, LOG_ALIGN))
            continue;
        ret->dirty_end = at + LOG_ALIGN;
        if (record_check_header(h, s->seed, at) != NULL || h->agreed.index < s->index)
            continue;
        if (h->durable > ret->durable)
            ret->durable = h->durable;
        if (h->agreed.index > ret->highest)
            ret->highest = h->agreed.index;
    }
}

bool scan_anchor(struct scan *s, uint64_t above, uint64_t limit, struct scan_anchor *ret)
{
    const struct record_header *h;

    for (uint64_t at = s->offset; at < s->segment.bytes; at += LOG_ALIGN) {
        h = piece(s, at, LOG_ALIGN);
        if (record_is_zero(h, LOG_ALIGN) || record_check_header(h, s->seed, at) != NULL)
            continue;
        if (h->agreed.index <= above || h->agreed.index >= limit ||
            h->agreed.index - s->index > (at - s->offset) / LOG_ALIGN)
            continue;
        *ret = (struct scan_anchor){ .offset = at, .index = h->agreed.index };
        memcpy(ret->before, h->agreed.before, SHA256_BYTES);
        return true;
    }
    return false;
}
