/*
 * log_private.h - what the files of the log share; nobody else includes it.
 *
 *   log.c      append, completions in index order, the mark, close
 *   prepare.c  the next segment: zeros written ahead; free space
 *   recover.c  log_open(): scan, torn or rotten
 *   cut.c      removing the end of the log: log_truncate(), torn tails
 *   damage.c   what of a segment is bad, and what it takes to mend it
 *   rebuild.c  mending it
 *
 * The mark file says what is durable when nothing in the log itself can: a twoslot of struct mark.
 * cut_from != 0: everything from that index on is being removed, and a start has to finish that.
 */
#ifndef SLUICE_CLUSTER_LOG_PRIVATE_H
#define SLUICE_CLUSTER_LOG_PRIVATE_H

#include "cluster/scan.h"
#include "cluster/twoslot.h"

#define MARK_MAGIC     0x4b524d53u /* "SMRK" */
#define PREPARE_BYTES  (1u << 20)  /* zeros in one write */
#define FREE_CHECK_NS  100000000ull
#define FREE_UNCHECKED UINT64_MAX

struct mark {
    uint64_t durable;
    uint64_t cut_from; /* 0: no cut in progress */
};
_Static_assert(sizeof(struct mark) == 16, "stored");

enum prepare_state { PREPARE_NONE, PREPARE_FILLING, PREPARE_READY, PREPARE_NO_SPACE };

/* The segment that is appended to. */
struct tail {
    int file; /* -1: none; the next append begins a segment */
    uint32_t seed;
    uint64_t offset, bytes;
    bool ended, sealed; /* sealed: by a LOG_SEAL */
};

struct log {
    struct disk *disk;
    struct log_config config;
    struct log_origin origin;
    int error; /* final */
    uint64_t now_ns;

    uint64_t last_index, last_term, last_time_ns; /* appended */
    uint8_t digest[SHA256_BYTES];
    struct segment_list segments;
    struct tail tail;

    struct log_write *first, *last; /* in flight, by index */
    uint32_t in_flight;
    uint64_t persisted;
    uint64_t idle_since_ns;

    struct twoslot mark_file;
    struct mark mark;

    enum prepare_state prepare;
    int next_file;
    uint64_t next_offset;
    struct disk_write next_io;
    bool next_writing;
    uint64_t free_bytes, free_checked_ns;
    unsigned names_left; /* segments whose names have room in the directory */

    void *zeros; /* PREPARE_BYTES */
    void *page;  /* LOG_ALIGN */
};

/* log.c. Makes e final; returns what is final. */
int log_fail(struct log *l, int e);
int log_mark_write(struct log *l, uint64_t durable, uint64_t cut_from);

/* prepare.c */
int prepare_do_work(struct log *l);
int prepare_take(struct log *l, uint64_t term); /* makes the prepared file the tail */
void prepare_check_free(struct log *l);
void prepare_fini(struct log *l);

/* cut.c. Removes records from `from` on: keeps the first `keep` segments, and of the last of these,
 * when file >= 0, what is below offset; dirty_end is where zeros begin again. */
struct cut {
    uint64_t from;
    size_t keep;
    int file;
    uint64_t offset, dirty_end;
};
int cut_run(struct log *l, const struct cut *c);

/* damage.c. What is known of a segment that is not as it should be: i of the keep ones that count.
 */
struct damage_place {
    const struct segment *at;
    size_t i, keep;
    uint64_t durable;       /* this was, for sure */
    uint64_t segment_bytes; /* of new ones */
    bool linked;            /* what follows is known: of the record before its first one */
    uint64_t term, time_ns;
    uint8_t before[SHA256_BYTES];
};
/* All of it is to be made anew. buf: SCAN_BYTES. Returns 0, with ret->first 0 when too little is
 * known, or the disk's error. */
int damage_of_segment(struct disk *d, const struct damage_place *p, void *buf,
                      struct log_damage *ret);
/* From where s stands on; next: the segment behind, which may be the last; NULL: this is the last,
 * and was durable to that index. */
int damage_in_segment(struct scan *s, const struct segment *next, bool next_is_last,
                      uint64_t durable, struct log_damage *ret);
/* The segment that would begin with record `first` is not there, nor any up to record `to`, where
 * next begins; NULL: there is none. */
int damage_missing(struct disk *d, const struct damage_place *p, uint64_t first, uint64_t to,
                   const struct segment *next, void *buf, struct log_damage *ret);

/* Durably gives the file of the open segment its full length again, without space: it is about to
 * be the last one. */
int cut_make_full(struct log *l, struct scan *s, struct segment *segment);

#endif
