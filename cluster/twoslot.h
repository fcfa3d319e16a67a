/*
 * twoslot.h - a small file that is never half new: the same bytes in two slots, written one after
 * the other.
 *
 *   | slot 0, 4 KiB | slot 1, 4 KiB |   slot: magic, version, CRC32C, sequence, length, payload,
 * zeros
 *
 * A write makes slot 0 durable, then slot 1, and only then returns: any single slot may later rot
 * or be torn and the other still has the value. Of two valid slots the higher sequence counts; one
 * bad or older slot is repaired when the file is opened, so a value once read never goes back; two
 * bad slots are rot: -EILSEQ.
 */
#ifndef SLUICE_CLUSTER_TWOSLOT_H
#define SLUICE_CLUSTER_TWOSLOT_H

#include "cluster/disk.h"

#define TWOSLOT_PAYLOAD_MAX 4000u

struct twoslot {
    struct disk *disk;
    int file; /* -1 when closed */
    uint64_t sequence;
    void *page; /* 4 KiB, aligned */
};

/* Opens name on d, creating it with the given payload when it does not exist (written under a
 * temporary name, synced, renamed, directory synced). Fills payload (bytes of it, the exact stored
 * length) with the current value. magic tells kinds of files apart. Returns 0, 1 when a slot was
 * repaired, -EILSEQ when both slots are bad or of another kind or length, or the disk's error. */
int twoslot_open(struct twoslot *t, struct disk *d, const char *name, uint32_t magic, void *payload,
                 size_t bytes);

/* Durable in both slots when it returns 0; any error is final for the node. bytes may be more than
 * what was opened: from then on it is opened as that, also when a crash comes between the slots. */
int twoslot_write(struct twoslot *t, const void *payload, size_t bytes);
void twoslot_close(struct twoslot *t);

/* Reads the value without repairing or creating anything. Returns 0, 1 when one slot is bad,
 * -EILSEQ when both are, -ENOENT, or the disk's error. */
int twoslot_peek(struct disk *d, const char *name, uint32_t magic, void *payload, size_t bytes);

#endif
