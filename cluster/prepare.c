/*
 * prepare.c - the next segment: a file of zeros, written ahead, so that an append needs no metadata
 * and never meets a full disk. Room for its name in the directory is taken ahead, too.
 *
 * `next.tmp` is filled by one asynchronous write at a time, in pieces of PREPARE_BYTES. When the
 * tail has ended and all of it is durable, the file gets its header, its name, and becomes the
 * tail. No space: the file is removed again, and tried anew when the disk says that there is room.
 */
#include "cluster/log_private.h"

#include <errno.h>
#include <string.h>

#define NAMES_RESERVED 256u

static bool has_room(const struct log *l)
{
    return l->free_bytes >= l->config.segment_bytes &&
           l->free_bytes - l->config.segment_bytes >= l->config.disk_free_bytes_min;
}

void prepare_check_free(struct log *l)
{
    int64_t n = l->disk->ops->free_bytes(l->disk);

    l->free_bytes = n < 0 ? 0 : (uint64_t)n;
    l->free_checked_ns = l->now_ns;
    if (l->prepare == PREPARE_NO_SPACE && has_room(l))
        l->prepare = PREPARE_NONE;
}

/* Gives back the space of a file that could not be filled. */
static int give_up(struct log *l)
{
    int r = 0;

    if (l->next_file >= 0) {
        l->disk->ops->close(l->disk, l->next_file);
        l->next_file = -1;
        r = l->disk->ops->remove(l->disk, SEGMENT_NEXT);
    }
    prepare_check_free(l);
    l->prepare = PREPARE_NO_SPACE;
    return r < 0 ? log_fail(l, r) : 0;
}

static void on_filled(struct disk_write *w, int result)
{
    struct log *l = w->owner;

    assert(l->next_writing && l->prepare == PREPARE_FILLING);
    l->next_writing = false;
    if (result == -ENOSPC || result == -EDQUOT) {
        give_up(l);
        return;
    }
    if (result < 0) {
        log_fail(l, result);
        return;
    }
    l->next_offset += w->bytes;
    if (l->next_offset == l->config.segment_bytes)
        l->prepare = PREPARE_READY;
}

static void fill(struct log *l)
{
    uint64_t left = l->config.segment_bytes - l->next_offset;

    assert(left > 0 && !l->next_writing);
    l->next_io = (struct disk_write){
        .file = l->next_file,
        .buf = l->zeros,
        .bytes = left < PREPARE_BYTES ? left : PREPARE_BYTES,
        .offset = l->next_offset,
        .done = on_filled,
        .owner = l,
    };
    l->next_writing = true;
    l->disk->ops->write(l->disk, &l->next_io);
}

/* While there is space. */
static void reserve_names(struct log *l)
{
    if (l->names_left > 0)
        return;
    l->disk->ops->reserve_names(l->disk, NAMES_RESERVED);
    l->names_left = NAMES_RESERVED / 2; /* they spread by their hashes */
}

static int begin(struct log *l)
{
    int r;

    prepare_check_free(l);
    if (!has_room(l)) {
        l->prepare = PREPARE_NO_SPACE;
        return 0;
    }
    reserve_names(l);
    r = l->disk->ops->open(l->disk, SEGMENT_NEXT, true);
    if (r == -ENOSPC || r == -EDQUOT) {
        l->prepare = PREPARE_NO_SPACE;
        return 0;
    }
    if (r < 0)
        return log_fail(l, r);
    l->next_file = r;
    l->next_offset = 0;
    l->prepare = PREPARE_FILLING;
    return 1;
}

int prepare_do_work(struct log *l)
{
    int r = 0;

    if (l->now_ns - l->free_checked_ns >= FREE_CHECK_NS || l->free_bytes == FREE_UNCHECKED)
        prepare_check_free(l);
    if (l->prepare == PREPARE_NONE)
        r = begin(l);
    if (r >= 0 && l->prepare == PREPARE_FILLING && !l->next_writing)
        fill(l);
    return r;
}

/* The tail has been left: gives back what a sealed segment does not use. Its successor is durable,
 * so a start sees at any time either length of a segment that is not the last. */
static int trim(struct log *l, struct segment *s)
{
    int r;

    assert(l->tail.ended && l->tail.offset <= l->tail.bytes && s->bytes == l->tail.bytes);
    if (!l->tail.sealed || l->tail.offset == l->tail.bytes)
        return 0;
    r = l->disk->ops->truncate(l->disk, l->tail.file, l->tail.offset);
    if (r == 0)
        s->bytes = l->tail.offset;
    return r;
}

int prepare_take(struct log *l, uint64_t term)
{
    struct disk *d = l->disk;
    struct segment s = { .epoch = segment_epoch(term),
                         .first = l->last_index + 1,
                         .bytes = l->config.segment_bytes };
    uint64_t previous = l->segments.n ? l->segments.at[l->segments.n - 1].first : 0;
    char name[SEGMENT_NAME_BYTES];
    int r;

    /* What makes a segment's existence a proof. */
    assert(l->in_flight == 0 && l->persisted == l->last_index);
    assert(l->prepare == PREPARE_READY && l->tail.ended);
    segment_name(&s, name);
    segment_encode(l->page, &s, previous, s.bytes, l->digest);
    r = d->ops->write_now(d, l->next_file, l->page, LOG_ALIGN, 0);
    if (r == 0)
        r = d->ops->rename(d, SEGMENT_NEXT, name);
    if (r == 0)
        r = d->ops->sync_dir(d);
    if (r == 0)
        r = segment_list_add(&l->segments, s);
    if (r == 0 && l->tail.file >= 0)
        r = trim(l, &l->segments.at[l->segments.n - 2]);
    if (r < 0)
        return log_fail(l, r);
    if (l->tail.file >= 0)
        d->ops->close(d, l->tail.file);
    l->tail = (struct tail){
        .file = l->next_file, .seed = record_seed(l->digest), .offset = LOG_ALIGN, .bytes = s.bytes
    };
    l->next_file = -1;
    l->prepare = PREPARE_NONE;
    l->names_left--;
    return 0;
}

void prepare_fini(struct log *l)
{
    assert(!l->next_writing);
    if (l->next_file >= 0)
        l->disk->ops->close(l->disk, l->next_file);
    l->next_file = -1;
}
