/*
 * manifest.h - which run files make up the dedupe index. The format is drawn in manifest.c.
 *
 * Thread:  one at a time. Errors:  reading a file that is missing or not what was written gives
 * -ENOENT and -EILSEQ. manifest_write() replaces the old one wholly or, when it fails with -ENOSPC,
 * not at all; any other error is final.
 */
#ifndef SLUICE_STORE_MANIFEST_H
#define SLUICE_STORE_MANIFEST_H

#include <stdint.h>

#define MANIFEST_NAME     "MANIFEST"
#define MANIFEST_RUNS_MAX 24u

struct manifest_run {
    uint64_t seq, from, to;
    uint32_t header_crc, zero;
};

struct manifest {
    uint64_t log_id;
    uint64_t seq_next; /* above that of every file ever written */
    uint32_t count, zero;
    struct manifest_run run[MANIFEST_RUNS_MAX]; /* oldest first: run[i].from == run[i-1].to */
};

int manifest_read(int dirfd, struct manifest *ret);
int manifest_write(int dirfd, const struct manifest *m);

#endif
