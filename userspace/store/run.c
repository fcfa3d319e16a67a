/*
 * run.c - the format of a run file, and reading it.
 *
 *   0      | header, one page: struct header, zeros, CRC32C of all before it in the last 4 bytes
 *   4 KiB  | directory: 4096 x 8 bytes; [b] is the number of entries whose lo >> 52 is below b
 *   36 KiB | filter: info.filter_blocks x 64 bytes, whole pages (filter.h)
 *   ...    | pages of 4 KiB:
 *          |   127 entries x 32 bytes (entry.h), in key order; the last page is filled with zeros
 *          |   seq, 8 bytes | page number, 8 | entries, 4 | zeros, 8 | CRC32C of all before it, 4
 *
 * All integers are little-endian. The header has the CRCs of directory and filter, and one over the
 * CRCs of the pages; MANIFEST has the header's. A page says which run and which page it is, so one
 * that was written to the wrong place is found. The filter precedes the pages because its size is
 * known first, and both are written from front to back (filter.h).
 *
 * To find a key: the directory says which entries share its upper 12 bits, and the next bits how
 * far among them it will be. The error of that guess is about half the square root of their number;
 * for 100 million keys, half a page.
 */
#include "store/run.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/file.h"
#include "store/run_format.h"

uint64_t run_file_bytes(const struct run_info *i)
{
    return run_pages_offset(i) + run_pages(i) * RUN_PAGE_BYTES;
}

void run_name(char ret[RUN_NAME_BYTES], uint64_t seq, bool temporary)
{
    snprintf(ret, RUN_NAME_BYTES, "%016llx.%s", (unsigned long long)seq, temporary ? "tmp" : "run");
}

static bool header_is_sound(const struct run_header *h, uint64_t seq)
{
    const struct run_info *i = &h->info;

    return h->magic == RUN_MAGIC && h->version == RUN_VERSION && h->zero == 0 &&
           h->crc == crc32c(0, h, RUN_CRC_OFFSET) && i->header_crc == 0 && i->seq == seq &&
           i->count > 0 && i->count <= RUN_COUNT_MAX && i->from <= i->to &&
           i->to <= ENTRY_INDEX_MAX && i->last <= ENTRY_INDEX_MAX && i->filter_blocks > 0 &&
           i->filter_blocks % FILTER_PAGE_BLOCKS == 0 && i->filter_blocks <= RUN_COUNT_MAX;
}

static bool directory_is_sound(const struct run *r)
{
    if (crc32c(0, r->directory, RUN_DIRECTORY_BYTES) != r->info.directory_crc ||
        r->directory[0] != 0)
        return false;
    for (uint32_t b = 0; b < RUN_DIRECTORY; b++)
        if (r->directory[b] > r->directory[b + 1])
            return false;
    return true;
}

int run_open(struct run *r, int dirfd, uint64_t seq)
{
    struct run_header h;
    struct stat st;
    char name[RUN_NAME_BYTES];
    int e;

    run_name(name, seq, false);
    r->fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0)
        return -errno;
    e = fstat(r->fd, &st) < 0 ? -errno : file_read(r->fd, &h, sizeof h, 0);
    if (e < 0)
        goto fail;
    e = -EILSEQ;
    if (!header_is_sound(&h, seq) || (uint64_t)st.st_size != run_file_bytes(&h.info))
        goto fail;
    r->info = h.info;
    r->info.header_crc = h.crc;
    e = file_read(r->fd, r->directory, RUN_DIRECTORY_BYTES, RUN_PAGE_BYTES);
    if (e < 0)
        goto fail;
    r->directory[RUN_DIRECTORY] = r->info.count;
    e = -EILSEQ;
    if (!directory_is_sound(r))
        goto fail;
    (void)posix_fadvise(r->fd, 0, 0, POSIX_FADV_RANDOM);
    return 0;
fail:
    run_close(r);
    return e;
}

void run_close(struct run *r)
{
    if (r->fd >= 0)
        close(r->fd);
    r->fd = -1;
}

int run_read_filter(const struct run *r, uint64_t *ret)
{
    uint64_t bytes = run_filter_bytes(&r->info);
    int e = file_read(r->fd, ret, bytes, RUN_FILTER_OFFSET);

    if (e < 0)
        return e;
    return crc32c(0, ret, bytes) == r->info.filter_crc ? 0 : -EILSEQ;
}

static uint32_t page_entries(const struct run_info *i, uint64_t page)
{
    uint64_t left = i->count - page * RUN_PAGE_ENTRIES;

    return left < RUN_PAGE_ENTRIES ? (uint32_t)left : RUN_PAGE_ENTRIES;
}

static bool page_is_sound(const struct run *r, uint64_t number, const struct run_page *p)
{
    return p->crc == crc32c(0, p, RUN_CRC_OFFSET) && p->seq == r->info.seq && p->page == number &&
           p->count == page_entries(&r->info, number);
}

static int page_read(const struct run *r, uint64_t number, struct run_page *p)
{
    int e =
        file_read(r->fd, p, RUN_PAGE_BYTES, run_pages_offset(&r->info) + number * RUN_PAGE_BYTES);

    if (e < 0)
        return e;
    return page_is_sound(r, number, p) ? 0 : -EILSEQ;
}

static int page_find(const struct run_page *p, struct key128 key, struct entry *ret)
{
    uint32_t low = 0, high = p->count;

    while (low < high) {
        uint32_t mid = (low + high) / 2;
        int c = entry_compare(&p->entry[mid].key, &key);

        if (c == 0) {
            *ret = p->entry[mid];
            return 1;
        }
        if (c < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return 0;
}

/* Where key would be, judged from entry number `near` that has the key `at`. */
static uint64_t guess_from(const struct run_info *i, struct key128 key, uint64_t near,
                           struct key128 at)
{
    uint64_t step;

    if (key.lo < at.lo) {
        step = entry_scale(at.lo - key.lo, i->count);
        return step > near ? 0 : near - step;
    }
    step = entry_scale(key.lo - at.lo, i->count);
    return near + step < i->count ? near + step : i->count - 1;
}

int run_find(const struct run *r, struct key128 key, void *page, struct entry *ret)
{
    struct run_page *p = page;
    uint64_t b = key.lo >> 52, first = r->directory[b], end = r->directory[b + 1];
    uint64_t guess = first + entry_scale(key.lo << 12, end - first), low, high, at;
    int e;

    if (first == end)
        return 0;
    low = first / RUN_PAGE_ENTRIES; /* pages low..high may have the key */
    high = (end - 1) / RUN_PAGE_ENTRIES;
    for (uint32_t tries = 0;; tries++) {
        /* Uniform keys are found at once; any others at last by halving. */
        at = tries < 4 ? guess / RUN_PAGE_ENTRIES : low + (high - low) / 2;
        at = at < low ? low : at > high ? high : at;
        e = page_read(r, at, p);
        if (e < 0)
            return e;
        if (entry_compare(&key, &p->entry[0].key) < 0) {
            if (at == low)
                return 0;
            high = at - 1;
            guess = guess_from(&r->info, key, at * RUN_PAGE_ENTRIES, p->entry[0].key);
        } else if (entry_compare(&key, &p->entry[p->count - 1].key) > 0) {
            if (at == high)
                return 0;
            low = at + 1;
            guess = guess_from(&r->info, key, at * RUN_PAGE_ENTRIES + p->count - 1,
                               p->entry[p->count - 1].key);
        } else {
            return page_find(p, key, ret);
        }
    }
}

int run_cursor_init(struct run_cursor *c, const struct run *r)
{
    assert(r->info.count > 0);
    c->run = r;
    c->page = UINT64_MAX; /* the next page is 0 */
    c->pages_read = 0;
    c->page_at = 0;
    c->at = RUN_PAGE_ENTRIES;
    c->pages_crc = 0;
    c->entry = NULL;
    return run_cursor_next(c);
}

static int cursor_fill(struct run_cursor *c)
{
    uint64_t left = run_pages(&c->run->info) - c->pages_read;
    uint64_t pages = left < RUN_CURSOR_PAGES ? left : RUN_CURSOR_PAGES;
    int e = file_read(c->run->fd, c->buf, pages * RUN_PAGE_BYTES,
                      run_pages_offset(&c->run->info) + c->pages_read * RUN_PAGE_BYTES);

    c->pages_read += pages;
    c->page_at = 0;
    return e;
}

int run_cursor_next(struct run_cursor *c)
{
    const struct run_page *p = (const void *)(c->buf + c->page_at * RUN_PAGE_BYTES);
    bool first = c->entry == NULL;
    int e;

    if (!first)
        c->before = c->entry->key;
    if (first || ++c->at == p->count) {
        if (++c->page == run_pages(&c->run->info)) {
            c->entry = NULL;
            return 0;
        }
        if (first || ++c->page_at == RUN_CURSOR_PAGES) {
            e = cursor_fill(c);
            if (e < 0)
                return e;
        }
        p = (const void *)(c->buf + c->page_at * RUN_PAGE_BYTES);
        if (!page_is_sound(c->run, c->page, p))
            return -EILSEQ;
        c->pages_crc = crc32c(c->pages_crc, &p->crc, sizeof p->crc);
        c->at = 0;
    }
    c->entry = &p->entry[c->at];
    if (c->entry->place == 0 || (!first && entry_compare(&c->before, &c->entry->key) >= 0))
        return -EILSEQ;
    return 0;
}

/* Reads the filter page with the block, unless it is the one in `page`. */
static int verify_filter(const struct run *r, struct key128 key, uint64_t *page, uint64_t *number)
{
    uint64_t block = filter_block(key, r->info.filter_blocks), want = block / FILTER_PAGE_BLOCKS;
    struct filter_bits bits = filter_bits(key);
    int e;

    if (want != *number) {
        e = file_read(r->fd, page, RUN_PAGE_BYTES, RUN_FILTER_OFFSET + want * RUN_PAGE_BYTES);
        if (e < 0)
            return e;
        *number = want;
    }
    return filter_may_have(page + block % FILTER_PAGE_BLOCKS * FILTER_WORDS, &bits) ? 0 : -EILSEQ;
}

static int verify_filter_crc(const struct run *r, void *page)
{
    uint32_t crc = 0;
    int e;

    for (uint64_t at = 0; at < run_filter_bytes(&r->info); at += RUN_PAGE_BYTES) {
        e = file_read(r->fd, page, RUN_PAGE_BYTES, RUN_FILTER_OFFSET + at);
        if (e < 0)
            return e;
        crc = crc32c(crc, page, RUN_PAGE_BYTES);
    }
    return crc == r->info.filter_crc ? 0 : -EILSEQ;
}

int run_verify(const struct run *r, void *page)
{
    struct run_page *p = page;
    uint64_t *filter = (uint64_t *)((uint8_t *)page + RUN_PAGE_BYTES);
    uint64_t filter_page = UINT64_MAX, last = 0, n = 0;
    struct key128 before = { 0, 0 };
    uint32_t crc = 0;
    int e = verify_filter_crc(r, filter);

    for (uint64_t at = 0; e == 0 && at < run_pages(&r->info); at++) {
        e = page_read(r, at, p);
        if (e < 0)
            return e;
        crc = crc32c(crc, &p->crc, sizeof p->crc);
        for (uint32_t i = 0; e == 0 && i < p->count; i++, n++) {
            const struct entry *x = &p->entry[i];
            uint64_t b = x->key.lo >> 52;

            if ((n > 0 && entry_compare(&before, &x->key) >= 0) || x->place == 0 ||
                n < r->directory[b] || n >= r->directory[b + 1])
                return -EILSEQ;
            before = x->key;
            last = entry_index(x) > last ? entry_index(x) : last;
            e = verify_filter(r, x->key, filter, &filter_page);
        }
    }
    if (e < 0)
        return e;
    return crc == r->info.pages_crc && last == r->info.last ? 0 : -EILSEQ;
}
