/*
 * run_write.c - writing a run file: pages and filter from front to back in two small buffers,
 * directory and header at the end. The format is drawn in run.c.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "store/file.h"
#include "store/run_format.h"

/* Starts writing back what was written, so that the sync at the end has little left to do. */
static int write_behind(int fd, const void *buf, size_t bytes, uint64_t offset)
{
    int e = file_write(fd, buf, bytes, offset);

    if (e == 0)
        (void)sync_file_range(fd, (off_t)offset, (off_t)bytes, SYNC_FILE_RANGE_WRITE);
    return e;
}

int run_writer_start(struct run_writer *w, struct run *r, int dirfd, uint64_t count_max,
                     const struct run_info *info)
{
    struct run_info most = *info;
    char name[RUN_NAME_BYTES];
    int e;

    assert(count_max > 0 && count_max <= RUN_COUNT_MAX);
    most.count = count_max;
    most.filter_blocks = filter_blocks(count_max);
    *w = (struct run_writer){ .run = r, .dirfd = dirfd, .fd = -1, .count_max = count_max };
    r->info = most;
    r->info.count = 0;
    r->info.filter_crc = r->info.pages_crc = r->info.header_crc = 0;
    r->fd = -1;
    run_name(name, info->seq, true);
    w->fd = file_create(dirfd, name);
    if (w->fd < 0)
        return w->fd;
    e = file_allocate(w->fd, run_file_bytes(&most));
    if (e < 0)
        run_writer_abort(w);
    return e;
}

static int flush_pages(struct run_writer *w)
{
    uint64_t offset = run_pages_offset(&w->run->info) + w->pages_written * RUN_PAGE_BYTES;
    int e;

    if (w->page_at == 0)
        return 0;
    e = write_behind(w->fd, w->pages, (size_t)w->page_at * RUN_PAGE_BYTES, offset);
    w->pages_written += w->page_at;
    w->page_at = 0;
    return e;
}

static int seal_page(struct run_writer *w)
{
    struct run_page *p = (void *)(w->pages + (size_t)w->page_at * RUN_PAGE_BYTES);
    uint32_t fill = w->page_fill;

    memset(&p->entry[fill], 0, RUN_PAGE_BYTES - fill * sizeof p->entry[0]);
    p->seq = w->run->info.seq;
    p->page = w->pages_written + w->page_at;
    p->count = fill;
    p->crc = crc32c(0, p, RUN_CRC_OFFSET);
    w->run->info.pages_crc = crc32c(w->run->info.pages_crc, &p->crc, sizeof p->crc);
    w->page_fill = 0;
    w->page_at++;
    return w->page_at == RUN_WRITER_PAGES ? flush_pages(w) : 0;
}

/* Writes the blocks in the buffer, and makes it the window on those that follow. */
static int flush_filter(struct run_writer *w)
{
    struct run_info *i = &w->run->info;
    uint64_t left = i->filter_blocks - w->filter_written;
    uint64_t blocks = left < RUN_WRITER_BLOCKS ? left : RUN_WRITER_BLOCKS;
    uint64_t offset = RUN_FILTER_OFFSET + w->filter_written * FILTER_BLOCK_BYTES;
    int e = write_behind(w->fd, w->filter, blocks * FILTER_BLOCK_BYTES, offset);

    i->filter_crc = crc32c(i->filter_crc, w->filter, blocks * FILTER_BLOCK_BYTES);
    w->filter_written += blocks;
    memset(w->filter, 0, sizeof w->filter);
    return e;
}

int run_writer_add(struct run_writer *w, const struct entry *e)
{
    struct run_info *i = &w->run->info;
    struct run_page *p = (void *)(w->pages + (size_t)w->page_at * RUN_PAGE_BYTES);
    uint64_t block = filter_block(e->key, i->filter_blocks);
    int r;

    assert(i->count < w->count_max && e->place != 0);
    assert(i->count == 0 || entry_compare(&w->before, &e->key) < 0);
    while (block >= w->filter_written + RUN_WRITER_BLOCKS) {
        r = flush_filter(w);
        if (r < 0)
            return r;
    }
    filter_set(w->filter + (block - w->filter_written) * FILTER_WORDS, e->key);
    while (w->directory_next <= e->key.lo >> 52)
        w->run->directory[w->directory_next++] = i->count;
    p->entry[w->page_fill++] = *e;
    w->before = e->key;
    i->count++;
    if (entry_index(e) > i->last)
        i->last = entry_index(e);
    return w->page_fill == RUN_PAGE_ENTRIES ? seal_page(w) : 0;
}

static int write_header(struct run_writer *w)
{
    struct run *r = w->run;
    struct run_header h = { .magic = RUN_MAGIC, .version = RUN_VERSION };
    int e;

    while (w->directory_next <= RUN_DIRECTORY)
        r->directory[w->directory_next++] = r->info.count;
    r->info.directory_crc = crc32c(0, r->directory, RUN_DIRECTORY_BYTES);
    h.info = r->info;
    h.crc = crc32c(0, &h, RUN_CRC_OFFSET);
    r->info.header_crc = h.crc;
    e = file_write(w->fd, r->directory, RUN_DIRECTORY_BYTES, RUN_PAGE_BYTES);
    return e < 0 ? e : file_write(w->fd, &h, sizeof h, 0);
}

int run_writer_finish(struct run_writer *w)
{
    struct run *r = w->run;
    char name[RUN_NAME_BYTES], temporary[RUN_NAME_BYTES];
    int e = 0;

    assert(r->info.count > 0);
    if (w->page_fill > 0)
        e = seal_page(w);
    if (e == 0)
        e = flush_pages(w);
    while (e == 0 && w->filter_written < r->info.filter_blocks)
        e = flush_filter(w);
    if (e == 0)
        e = write_header(w);
    /* Merging may have found fewer keys than space was allocated for. */
    if (e == 0)
        e = file_truncate(w->fd, run_file_bytes(&r->info));
    if (e == 0)
        e = file_sync(w->fd);
    run_name(name, r->info.seq, false);
    run_name(temporary, r->info.seq, true);
    if (e == 0)
        e = file_rename(w->dirfd, temporary, name);
    if (e == 0)
        e = file_sync_dir(w->dirfd);
    if (e < 0) {
        run_writer_abort(w);
        return e;
    }
    r->fd = w->fd;
    w->fd = -1;
    (void)posix_fadvise(r->fd, 0, 0, POSIX_FADV_RANDOM);
    return 0;
}

void run_writer_abort(struct run_writer *w)
{
    char name[RUN_NAME_BYTES];

    if (w->fd < 0)
        return;
    for (int temporary = 0; temporary < 2; temporary++) {
        run_name(name, w->run->info.seq, temporary);
        (void)file_remove(w->dirfd, name); /* what stays is not in MANIFEST: removed at open */
    }
    close(w->fd);
    w->fd = -1;
}
