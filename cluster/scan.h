/*
 * scan.h - reads one segment from its beginning, record by record, with every check.
 *
 * In large pieces, the next one being read while one is checked, so that a start runs at the disk's
 * speed. What cannot be read counts as bad, like what does not match.
 *
 * Thread:  any, one owner.  Memory:  buf is the caller's.  Errors:  see scan_next().
 */
#ifndef SLUICE_CLUSTER_SCAN_H
#define SLUICE_CLUSTER_SCAN_H

#include "cluster/ahead.h"
#include "cluster/segment.h"

#define SCAN_BYTES AHEAD_BYTES

enum scan_result {
    SCAN_RECORD,
    SCAN_NONE,  /* zeros where the next record would be */
    SCAN_BAD,   /* something else: why says what */
    SCAN_ENDED, /* the last record ended the segment */
};

struct scan {
    struct disk *disk;
    int file; /* -1: closed */
    struct ahead ahead;
    struct segment segment; /* bytes: of the file; header.segment_bytes is what it was made with */
    struct segment_header header;
    uint32_t seed;
    const char *why;
    /* Behind the last good record. */
    uint64_t offset, index, term, time_ns; /* index: of the next record */
    uint8_t digest[SHA256_BYTES];
    bool ended, sealed; /* sealed: by a LOG_SEAL */
};

/* Opens a segment and checks its header and its length; last: no segment is behind it. buf:
 * SCAN_BYTES, 4 KiB aligned. Returns 0, -EILSEQ (why is set) or the disk's error; the file is
 * closed then. */
int scan_open(struct scan *s, struct disk *d, const struct segment *segment, bool last, void *buf);
/* The same without a look at the header: what it should say of the record before is given. */
int scan_open_headless(struct scan *s, struct disk *d, const struct segment *segment,
                       const uint8_t before[SHA256_BYTES], void *buf);
void scan_close(struct scan *s);

/* Ends the scan, but for the file, which becomes the caller's. */
int scan_take_file(struct scan *s);

/* ret (borrowed until the next call) is set for SCAN_RECORD. */
enum scan_result scan_next(struct scan *s, const struct record_header **ret);

/* What lies behind the last good record: the end of the last block that is not zero (offset if all
 * are), the highest durable index that any whole record header there states, and the highest index
 * of one. */
struct scan_rest {
    uint64_t dirty_end, durable, highest;
};
void scan_rest(struct scan *s, struct scan_rest *ret);

/* The first whole record header behind the last good record whose index is above that, and below
 * limit: where the segment goes on behind what is bad. What is in its payload was not looked at. */
struct scan_anchor {
    uint64_t offset, index;
    uint8_t before[SHA256_BYTES];
};
bool scan_anchor(struct scan *s, uint64_t above, uint64_t limit, struct scan_anchor *ret);

#endif
