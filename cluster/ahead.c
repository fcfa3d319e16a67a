/*
 * ahead.c - two pieces of a file in memory, one of them being read; see ahead.h.
 */
#include "cluster/ahead.h"

#include <errno.h>
#include <string.h>

#define UNREADABLE 0xee /* fills blocks that cannot be read: neither zeros nor a record */

static uint8_t *piece_of(struct ahead *a, unsigned half)
{
    return a->buf + half * (LOG_RECORD_BYTES_MAX + AHEAD_PIECE) + LOG_RECORD_BYTES_MAX;
}

static int64_t finish(struct ahead *a)
{
    assert(a->reading);
    a->reading = false;
    return a->disk->ops->read_wait(a->disk, &a->read);
}

void ahead_drop(struct ahead *a)
{
    if (a->reading)
        finish(a);
    a->loaded = 0;
    a->piece = AHEAD_PIECE_MIN;
}

void ahead_begin(struct ahead *a, struct disk *d, int file, uint64_t file_bytes, uint32_t piece)
{
    assert(piece % LOG_ALIGN == 0 && piece >= AHEAD_PIECE_MIN && piece <= AHEAD_PIECE);
    assert(((uintptr_t)a->buf & (LOG_ALIGN - 1)) == 0);
    ahead_drop(a);
    a->disk = d;
    a->file = file;
    a->file_bytes = file_bytes;
    a->piece = piece;
}

/* Begins to read what is at offset into the half that is not in use. */
static void begin(struct ahead *a, uint64_t offset, uint64_t bytes)
{
    assert(!a->reading && offset < a->file_bytes && bytes <= AHEAD_PIECE);
    if (bytes > a->file_bytes - offset)
        bytes = a->file_bytes - offset;
    a->read = (struct disk_read){
        .file = a->file, .buf = piece_of(a, !a->half), .bytes = bytes, .offset = offset
    };
    a->reading = true;
    a->disk->ops->read_begin(a->disk, &a->read);
}

/* Reads block by block, so that one bad sector does not hide its neighbours. */
static void read_blocks(struct ahead *a)
{
    uint8_t *to = a->read.buf;
    int64_t n;

    for (uint64_t i = 0; i < a->read.bytes; i += LOG_ALIGN) {
        n = a->disk->ops->read(a->disk, a->file, to + i, LOG_ALIGN, a->read.offset + i);
        if (n != LOG_ALIGN)
            memset(to + i, UNREADABLE, LOG_ALIGN);
    }
}

/* Waits for the read; returns the bytes that are there then, or a negative errno. */
static int64_t take(struct ahead *a)
{
    int64_t n = finish(a);

    if (n == (int64_t)a->read.bytes)
        return n;
    if (a->patch) {
        read_blocks(a);
        return (int64_t)a->read.bytes;
    }
    return n < 0 ? n : n / LOG_ALIGN * LOG_ALIGN;
}

static int load(struct ahead *a, uint64_t offset, uint64_t bytes)
{
    bool follows = a->loaded > 0 && offset >= a->at && offset <= a->at + a->loaded;
    uint64_t keep = follows ? a->at + a->loaded - offset : 0;
    uint64_t want = bytes > a->piece ? bytes : a->piece;
    uint8_t *to = piece_of(a, !a->half);
    int64_t n;

    assert(keep < bytes && keep % LOG_ALIGN == 0);
    if (a->reading && a->read.offset != offset + keep)
        finish(a);
    if (!a->reading)
        begin(a, offset + keep, want);
    n = take(a);
    if (n < 0) {
        a->loaded = 0;
        return (int)n;
    }
    if (keep > 0)
        memcpy(to - keep, a->base + (offset - a->at), keep);
    a->base = to - keep;
    a->at = offset;
    a->loaded = keep + (uint64_t)n;
    a->half = !a->half;
    if (follows && a->piece < AHEAD_PIECE)
        a->piece = 2 * a->piece < AHEAD_PIECE ? 2 * a->piece : AHEAD_PIECE;
    if (a->loaded < bytes)
        return -ENODATA;
    if (a->piece == AHEAD_PIECE && a->at + a->loaded < a->file_bytes)
        begin(a, a->at + a->loaded, AHEAD_PIECE);
    return 0;
}

int ahead_get(struct ahead *a, uint64_t offset, uint64_t bytes, const void **ret)
{
    int e = 0;

    assert(bytes > 0 && bytes <= LOG_RECORD_BYTES_MAX && bytes % LOG_ALIGN == 0);
    assert(offset % LOG_ALIGN == 0 && offset + bytes <= a->file_bytes);
    if (offset < a->at || offset + bytes > a->at + a->loaded)
        e = load(a, offset, bytes);
    if (e < 0)
        return e;
    assert(offset >= a->at && offset + bytes <= a->at + a->loaded);
    *ret = a->base + (offset - a->at);
    return 0;
}
