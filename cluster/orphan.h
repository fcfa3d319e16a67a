/*
 * orphan.h - what a node had that is not in the cluster's log: set aside in files of their own.
 *
 * After a forced failover the lost region's nodes may have entries that the new epoch's log does
 * not have, receipted or not. Before a node's log is cut for that (recovery.c), they go to a file
 *
 *   <dir>/orphans/orphan-<epoch>-<first index>-<last index>-<first 16 digits of the last digest>
 *
 * in hex digits, and, once all its events were offered to the cluster again (reconcile.c), to
 * `reconciled-...`. Nothing here removes one.
 *
 *   | struct orphan_head, zeros to 4 KiB | records, as in a segment: each to a 4 KiB boundary |
 *
 * The records are the bytes of the node's segments: their payloads have the CRCs, and the chain
 * goes from head.before to head.after. A file has its name only when all of it is durable.
 *
 * Thread: a struct is its owner's. Memory: LOG_RECORD_BYTES_MAX when it is read. Errors: negative
 * errno; -EILSEQ: the file is damaged.
 */
#ifndef SLUICE_CLUSTER_ORPHAN_H
#define SLUICE_CLUSTER_ORPHAN_H

#include "cluster/log.h"

#define ORPHAN_MAGIC      0x4e524f53u /* "SORN" */
#define ORPHAN_VERSION    1u
#define ORPHAN_NAME_BYTES 96u
#define ORPHANS_MAX       256u /* files that are listed */

struct orphan_head {
    uint32_t magic, version;
    uint32_t crc; /* CRC32C of all that follows */
    uint16_t node;
    uint16_t region;
    uint8_t cluster_id[16];
    uint64_t epoch; /* of the last record */
    uint64_t into;  /* the epoch for which it was cut */
    uint64_t first, last;
    uint64_t events, entries, bytes; /* bytes: of records */
    uint64_t committed;              /* the highest index that this node knew to be committed */
    uint64_t events_committed;       /* of events, those up to there */
    uint64_t first_time_ns, last_time_ns; /* Unix, of the first and the last record */
    uint64_t set_aside_ns;                /* Unix */
    uint8_t before[SHA256_BYTES];         /* the chain's digest at first - 1 */
    uint8_t after[SHA256_BYTES];          /* and at last */
};
_Static_assert(sizeof(struct orphan_head) % 8 == 0 && sizeof(struct orphan_head) <= 4096, "stored");

struct orphan_file {
    char name[ORPHAN_NAME_BYTES];
    bool reconciled;
    int error; /* 0, or why the head cannot be read */
    struct orphan_head head;
};

/* The files under dir (a data directory), by name. Returns how many, at most max; if there are
 * more, those that are not reconciled before the others; or a negative errno; a directory that is
 * not there has none. */
int orphan_list(const char *dir, struct orphan_file *ret, int max);

/* Reads a file from its beginning; every record is checked, and the last digest at the end. */
struct orphan_reader;
int orphan_reader_open(struct orphan_reader **ret, const char *dir, const char *name);
/* The next record, its payload borrowed until the next call. Returns 1, 0: there is no more, or a
 * negative errno. */
int orphan_reader_next(struct orphan_reader *r, struct log_record *ret, const void **ret_payload);
const struct orphan_head *orphan_reader_head(const struct orphan_reader *r);
void orphan_reader_close(struct orphan_reader *r);

/* All of it was offered again: it has another name from now on. */
int orphan_mark_reconciled(const char *dir, const char *name);

#endif
