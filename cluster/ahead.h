/*
 * ahead.h - reads a segment file mostly forwards, in large pieces, the next one while the caller
 * works on this one.
 *
 *   buf: | room | piece | room | piece |
 *
 * What is left of one piece when the next is wanted (less than a record) is copied into the room in
 * front of that one, so a record always lies in one run of memory.
 *
 * Thread:  one owner, the disk's.  Memory:  buf is the caller's, AHEAD_BYTES, 4 KiB aligned, and
 * the disk's while a read is under way: ahead_drop() ends that.
 */
#ifndef SLUICE_CLUSTER_AHEAD_H
#define SLUICE_CLUSTER_AHEAD_H

#include "cluster/record.h"

#define AHEAD_PIECE     (2u << 20)
#define AHEAD_PIECE_MIN (64u << 10)
#define AHEAD_BYTES     (2u * (LOG_RECORD_BYTES_MAX + AHEAD_PIECE))

struct ahead {
    struct disk *disk;
    int file; /* -1: none */
    uint64_t file_bytes;
    uint8_t *buf;
    uint8_t *base; /* where the byte at `at` is */
    uint64_t at, loaded;
    unsigned half;  /* that `base` is in the room or the piece of */
    uint32_t piece; /* doubles while it is read on, up to AHEAD_PIECE; reads ahead from then on */
    bool patch;     /* blocks that cannot be read become something that is no record, and not zero */
    bool reading;
    struct disk_read read;
};

/* From now on about this file; what is in memory is forgotten. piece: of the first read. */
void ahead_begin(struct ahead *a, struct disk *d, int file, uint64_t file_bytes, uint32_t piece);

/* Forgets what is in memory and waits for what is under way. */
void ahead_drop(struct ahead *a);

/* The bytes at offset, borrowed until the next call; at most LOG_RECORD_BYTES_MAX, within
 * file_bytes. Returns 0 (always when patch is set), -ENODATA (the file has become shorter) or the
 * disk's error. */
int ahead_get(struct ahead *a, uint64_t offset, uint64_t bytes, const void **ret);

#endif
