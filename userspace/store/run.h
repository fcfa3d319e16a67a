/*
 * run.h - one run file of the dedupe index: entries in key order, with a filter. The format is
 * drawn in run.c.
 *
 * A run is written once (run_writer), under a temporary name, and never changed after. Everything
 * in it is under a CRC32C: header and directory are checked when it is opened, the filter when it
 * is read, each page when it is read.
 *
 * Thread:  a struct run is not changed while it is open, so any thread may find in it; writers and
 *          cursors have one owner.
 * Memory:  the caller's; nothing here allocates.
 * Errors:  -EILSEQ: the file is not what was written. Other negative errnos are the disk's.
 */
#ifndef SLUICE_STORE_RUN_H
#define SLUICE_STORE_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/entry.h"
#include "store/filter.h"

#define RUN_PAGE_BYTES    4096u
#define RUN_PAGE_ENTRIES  127u
#define RUN_DIRECTORY     4096u
#define RUN_NAME_BYTES    24u
#define RUN_WRITER_PAGES  32u
#define RUN_WRITER_BLOCKS 256u
#define RUN_CURSOR_PAGES  8u

struct run_info {
    uint64_t log_id;   /* whose keys these are */
    uint64_t seq;      /* names the file; never used again */
    uint64_t from, to; /* with all runs up to from, covers the log up to to */
    uint64_t last;     /* the highest index of an entry */
    uint64_t count;    /* entries */
    uint64_t filter_blocks;
    uint32_t filter_crc, directory_crc;
    uint32_t pages_crc;  /* over the CRCs of the pages */
    uint32_t header_crc; /* depends on all of the above, so it stands for the file */
};

struct run {
    struct run_info info;
    int fd; /* -1 when closed */
    /* directory[b]: number of entries whose lo has its upper 12 bits below b. */
    uint64_t directory[RUN_DIRECTORY + 1];
};

static inline uint64_t run_pages(const struct run_info *i)
{
    return (i->count + RUN_PAGE_ENTRIES - 1) / RUN_PAGE_ENTRIES;
}
static inline uint64_t run_filter_bytes(const struct run_info *i)
{
    return i->filter_blocks * FILTER_BLOCK_BYTES;
}
uint64_t run_file_bytes(const struct run_info *i);

void run_name(char ret[RUN_NAME_BYTES], uint64_t seq, bool temporary);

/* Opens `<seq>.run` and checks its header, directory and size. -ENOENT when there is none. */
int run_open(struct run *r, int dirfd, uint64_t seq);
void run_close(struct run *r);

/* Reads and checks the filter: run_filter_bytes() to ret. */
int run_read_filter(const struct run *r, uint64_t *ret);

/* Reads everything: pages, their order, directory and filter. page: two pages to work in. */
int run_verify(const struct run *r, void *page);

/* Looks key up in the file, in one or two page reads as a rule. page: one page to work in. Returns
 * 1 and the entry, 0, or a negative errno. */
int run_find(const struct run *r, struct key128 key, void *page, struct entry *ret);

/* Walks a run in key order. */
struct run_cursor {
    const struct run *run;
    const struct entry *entry; /* NULL at the end */
    struct key128 before;
    uint64_t page, pages_read; /* of the entry; read so far */
    uint32_t at, page_at;      /* within page; within buf */
    uint32_t pages_crc;
    _Alignas(64) uint8_t buf[RUN_CURSOR_PAGES * RUN_PAGE_BYTES];
};
int run_cursor_init(struct run_cursor *c, const struct run *r);
int run_cursor_next(struct run_cursor *c);

struct run_writer {
    struct run *run;
    int dirfd, fd;
    uint64_t count_max;
    uint64_t pages_written, filter_written; /* pages; blocks */
    uint32_t page_fill, page_at;            /* entries in the page; page in the buffer */
    uint32_t directory_next;
    struct key128 before;
    _Alignas(64) uint8_t pages[RUN_WRITER_PAGES * RUN_PAGE_BYTES];
    _Alignas(64) uint64_t filter[RUN_WRITER_BLOCKS * FILTER_WORDS];
};

/* Starts `<seq>.tmp` for at most count_max (> 0) entries, with its space allocated; r is the
 * caller's and becomes the open run when run_writer_finish() has returned 0. */
int run_writer_start(struct run_writer *w, struct run *r, int dirfd, uint64_t count_max,
                     const struct run_info *info);
/* Adds an entry above the one before. */
int run_writer_add(struct run_writer *w, const struct entry *e);
/* Makes the file durable under its name. */
int run_writer_finish(struct run_writer *w);
/* Removes what was written, under either name. Safe on a writer that never started. */
void run_writer_abort(struct run_writer *w);

#endif
