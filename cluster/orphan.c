/*
 * orphan.c - see orphan.h.
 */
#include "cluster/orphan.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hex.h"
#include "cluster/internal.h"
#include "cluster/record.h"

#define TURN_BYTES (4u << 20)
#define OPEN       "orphan-"
#define DONE       "reconciled-"
#define NEW        "new"

static int path_of(const char *dir, const char *name, char ret[PATH_MAX])
{
    int n = snprintf(ret, PATH_MAX, "%s/orphans%s%s", dir, *name ? "/" : "", name);

    return n > 0 && n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static uint32_t head_crc(const struct orphan_head *h)
{
    const size_t skipped = offsetof(struct orphan_head, node);

    return crc32c(0, (const uint8_t *)h + skipped, sizeof *h - skipped);
}

static int sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), e;

    if (fd < 0)
        return -errno;
    e = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return e;
}

static int write_at(int fd, const void *bytes, size_t n, uint64_t offset)
{
    while (n > 0) {
        ssize_t w = pwrite(fd, bytes, n, (off_t)offset);

        if (w < 0 && errno != EINTR)
            return -errno;
        if (w > 0) {
            bytes = (const uint8_t *)bytes + w;
            offset += (uint64_t)w;
            n -= (size_t)w;
        }
    }
    return 0;
}

static int read_at(int fd, void *bytes, size_t n, uint64_t offset)
{
    while (n > 0) {
        ssize_t r = pread(fd, bytes, n, (off_t)offset);

        if (r < 0 && errno != EINTR)
            return -errno;
        if (r == 0)
            return -EILSEQ;
        if (r > 0) {
            bytes = (uint8_t *)bytes + r;
            offset += (uint64_t)r;
            n -= (size_t)r;
        }
    }
    return 0;
}

/* --- setting aside ------------------------------------------------------------------------------
 */

int orphan_create(struct cluster *c, uint64_t first, uint64_t last, uint64_t into)
{
    struct orphan *o = &c->recovery.orphan;
    char path[PATH_MAX];
    int e = path_of(c->config.dir, "", path);

    assert(o->file < 0 && first <= last && last == log_last_index(c->log));
    if (e == 0 && mkdir(path, 0700) < 0 && errno != EEXIST)
        e = -errno;
    if (e == 0)
        e = sync_dir(c->config.dir);
    if (e == -EACCES) /* whoever made the data directory has synced it */
        e = 0;
    if (e == 0)
        e = path_of(c->config.dir, NEW, path);
    if (e < 0)
        return e;
    o->file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (o->file < 0)
        return -errno;
    o->next = first;
    o->offset = LOG_ALIGN;
    o->own = 0;
    o->head = (struct orphan_head){ .magic = ORPHAN_MAGIC,
                                    .version = ORPHAN_VERSION,
                                    .node = c->config.node,
                                    .region = c->config.region,
                                    .epoch = log_last_term(c->log) >> CLUSTER_EPOCH_SHIFT,
                                    .into = into,
                                    .first = first,
                                    .last = last,
                                    .committed = c->recovery.committed,
                                    .set_aside_ns = node_unix_ns(c) };
    memcpy(o->head.cluster_id, c->state.cluster_id, sizeof o->head.cluster_id);
    return 0;
}

static void name_of(const struct orphan_head *h, char ret[ORPHAN_NAME_BYTES])
{
    char half[SHA256_BYTES + 1];

    hex_put(half, h->after, SHA256_BYTES / 2);
    snprintf(ret, ORPHAN_NAME_BYTES, OPEN "%" PRIx64 "-%" PRIx64 "-%" PRIx64 "-%.16s", h->epoch,
             h->first, h->last, half);
}

static int finish(struct cluster *c)
{
    struct orphan *o = &c->recovery.orphan;
    _Alignas(8) uint8_t page[LOG_ALIGN] = { 0 };
    char name[ORPHAN_NAME_BYTES], from[PATH_MAX], to[PATH_MAX];
    int e;

    assert(o->next == o->head.last + 1 && o->head.entries == o->head.last - o->head.first + 1);
    o->head.bytes = o->offset - LOG_ALIGN;
    o->head.crc = head_crc(&o->head);
    memcpy(page, &o->head, sizeof o->head);
    e = write_at(o->file, page, sizeof page, 0);
    if (e == 0 && fsync(o->file) < 0)
        e = -errno;
    name_of(&o->head, name);
    if (e == 0)
        e = path_of(c->config.dir, NEW, from);
    if (e == 0)
        e = path_of(c->config.dir, name, to);
    /* cppcheck-suppress uninitvar ; still 0 only if both paths were made */
    if (e == 0 && rename(from, to) < 0)
        e = -errno;
    if (e == 0)
        e = path_of(c->config.dir, "", to);
    if (e == 0)
        e = sync_dir(to);
    close(o->file);
    o->file = -1;
    return e;
}

static void count_events(struct cluster *c, const struct log_record *r, const void *payload)
{
    struct orphan *o = &c->recovery.orphan;
    struct block_view v;

    o->head.entries++;
    if (r->type != LOG_EVENTS || block_view(&v, payload, r->payload_bytes) < 0)
        return;
    o->head.events += v.header->events;
    if (r->index <= o->head.committed)
        o->head.events_committed += v.header->events;
#ifdef PLANT_MANIFEST_SHORT
    if (r->index == o->head.committed)
        o->head.events_committed--;
#endif
    if (v.header->node == c->config.node && r->index <= c->own_counted &&
        v.header->receive_time_ns >= c->begun_unix_ns)
        o->own += v.header->events;
}

int orphan_write(struct cluster *c)
{
    struct orphan *o = &c->recovery.orphan;
    const struct record_header *h = c->read_buf;
    const void *payload;
    uint64_t done = 0;
    int e = 0;

    assert(o->file >= 0);
    while (e == 0 && o->next <= o->head.last && done < TURN_BYTES) {
        uint32_t bytes;

        e = node_read(c, o->next, &payload);
        if (e < 0)
            break;
        bytes = record_bytes(c->read_record.payload_bytes);
        if (o->next == o->head.first) {
            memcpy(o->head.before, h->agreed.before, SHA256_BYTES);
            o->head.first_time_ns = c->read_record.time_ns;
        }
        assert(h->agreed.index == o->next && bytes % LOG_ALIGN == 0);
        record_digest(h, o->head.after);
        o->head.last_time_ns = c->read_record.time_ns;
        count_events(c, &c->read_record, payload);
        e = write_at(o->file, c->read_buf, bytes, o->offset);
        o->offset += bytes;
        done += bytes;
        o->next++;
    }
    if (e == 0 && o->next > o->head.last)
        return finish(c);
    if (e < 0)
        orphan_close(o);
    return e < 0 ? e : 1;
}

void orphan_close(struct orphan *o)
{
    if (o->file >= 0)
        close(o->file);
    o->file = -1;
}

/* --- reading ------------------------------------------------------------------------------------
 */

struct orphan_reader {
    int file;
    uint64_t next, offset;
    struct orphan_head head;
    uint8_t digest[SHA256_BYTES];
    void *buf;
};

static int read_head(int file, struct orphan_head *ret)
{
    int e = read_at(file, ret, sizeof *ret, 0);

    if (e < 0)
        return e;
    if (ret->magic != ORPHAN_MAGIC || ret->version != ORPHAN_VERSION || ret->crc != head_crc(ret) ||
        ret->first == 0 || ret->last < ret->first || ret->last == UINT64_MAX)
        return -EILSEQ;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct orphan_file *)a)->name, ((const struct orphan_file *)b)->name);
}

/* Those of one kind, behind the n that there are. Returns how many there are then. */
static int list_of(DIR *at, const char *kind, struct orphan_file *ret, int n, int max)
{
    struct dirent *d;

    rewinddir(at);
    while (n < max && (d = readdir(at)) != NULL) {
        struct orphan_file *f = &ret[n];
        int file;

        if (strncmp(d->d_name, kind, strlen(kind)) != 0 || strlen(d->d_name) >= sizeof f->name)
            continue;
        *f = (struct orphan_file){ .reconciled = kind[0] == DONE[0] };
        memcpy(f->name, d->d_name, strlen(d->d_name) + 1);
        file = openat(dirfd(at), d->d_name, O_RDONLY | O_CLOEXEC);
        f->error = file < 0 ? -errno : read_head(file, &f->head);
        if (file >= 0)
            close(file);
        n++;
    }
    return n;
}

int orphan_list(const char *dir, struct orphan_file *ret, int max)
{
    char path[PATH_MAX];
    DIR *at;
    int n, e = path_of(dir, "", path);

    if (e < 0)
        return e;
    at = opendir(path);
    if (at == NULL)
        return errno == ENOENT ? 0 : -errno;
    n = list_of(at, OPEN, ret, 0, max);
    n = list_of(at, DONE, ret, n, max);
    closedir(at);
    qsort(ret, (size_t)n, sizeof *ret, by_name);
    return n;
}

int orphan_reader_open(struct orphan_reader **ret, const char *dir, const char *name)
{
    struct orphan_reader *r = calloc(1, sizeof *r);
    char path[PATH_MAX];
    int e = strchr(name, '/') != NULL ? -EINVAL : path_of(dir, name, path);

    if (r == NULL)
        return -ENOMEM;
    r->file = -1;
    r->buf = aligned_alloc(LOG_ALIGN, LOG_RECORD_BYTES_MAX);
    if (e == 0 && r->buf == NULL)
        e = -ENOMEM;
    if (e == 0 && (r->file = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        e = -errno;
    if (e == 0)
        e = read_head(r->file, &r->head);
    if (e < 0) {
        orphan_reader_close(r);
        return e;
    }
    r->next = r->head.first;
    r->offset = LOG_ALIGN;
    memcpy(r->digest, r->head.before, SHA256_BYTES);
    *ret = r;
    return 0;
}

int orphan_reader_next(struct orphan_reader *r, struct log_record *ret, const void **ret_payload)
{
    struct record_header *h = r->buf;
    uint32_t bytes;
    int e;

    assert(r->next >= r->head.first && r->offset % LOG_ALIGN == 0);
    if (r->next > r->head.last)
        return memcmp(r->digest, r->head.after, SHA256_BYTES) == 0 ? 0 : -EILSEQ;
    e = read_at(r->file, r->buf, LOG_HEADER_BYTES, r->offset);
    if (e < 0)
        return e;
    if (h->magic != RECORD_MAGIC || h->agreed.index != r->next ||
        h->agreed.payload_bytes > LOG_RECORD_BYTES_MAX - LOG_HEADER_BYTES ||
        memcmp(h->agreed.before, r->digest, SHA256_BYTES) != 0)
        return -EILSEQ;
    bytes = record_bytes(h->agreed.payload_bytes);
    e = read_at(r->file, r->buf, bytes, r->offset);
    if (e == 0 && record_check_payload(h) != NULL)
        e = -EILSEQ;
    if (e < 0)
        return e;
    record_digest(h, r->digest);
    record_decode(h, ret);
    *ret_payload = (const uint8_t *)r->buf + LOG_HEADER_BYTES;
    r->offset += bytes;
    r->next++;
    return 1;
}

const struct orphan_head *orphan_reader_head(const struct orphan_reader *r) { return &r->head; }

void orphan_reader_close(struct orphan_reader *r)
{
    if (r == NULL)
        return;
    if (r->file >= 0)
        close(r->file);
    free(r->buf);
    free(r);
}

int orphan_mark_reconciled(const char *dir, const char *name)
{
    char from[PATH_MAX], to[PATH_MAX], done[ORPHAN_NAME_BYTES + sizeof DONE];
    int e;

    if (strchr(name, '/') != NULL || strlen(name) >= ORPHAN_NAME_BYTES)
        return -EINVAL;
    if (strncmp(name, DONE, strlen(DONE)) == 0)
        return 0;
    if (strncmp(name, OPEN, strlen(OPEN)) != 0)
        return -EINVAL;
    snprintf(done, sizeof done, DONE "%s", name + strlen(OPEN));
    e = path_of(dir, name, from);
    if (e == 0)
        e = path_of(dir, done, to);
    if (e == 0 && rename(from, to) < 0)
        e = -errno;
    if (e == 0)
        e = path_of(dir, "", to);
    return e == 0 ? sync_dir(to) : e;
}
