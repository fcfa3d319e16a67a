/*
 * test_disk.c - see test_disk.h.
 */
#include "tests/lib/test_disk.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

#define NAME_BYTES  64
#define INODES_MAX  512
#define ENTRIES_MAX 128
#define FLIGHT_MAX  256
#define PENDING_MAX 256
#define PIECE       512u

struct inode {
    uint8_t *bytes;
    uint64_t size, room;
    uint64_t uncut; /* what it was before it was shortened, until that is durable; 0: it is */
};

struct entry {
    char name[NAME_BYTES];
    int inode;
};

struct directory {
    struct entry at[ENTRIES_MAX];
    size_t n;
};

enum change_kind { CHANGE_CREATE, CHANGE_RENAME, CHANGE_REMOVE };

struct change {
    enum change_kind kind;
    char from[NAME_BYTES], to[NAME_BYTES];
    int inode;
};

struct test_disk {
    struct disk disk;
    uint64_t random, operations;
    struct inode inode[INODES_MAX];
    int inodes;
    struct directory now, durable;
    struct change pending[PENDING_MAX];
    size_t pendings;
    struct disk_write *queued[FLIGHT_MAX], *flight[FLIGHT_MAX];
    size_t queues, flights, reads;
    bool off, stalled;
    int64_t free_bytes;
    uint64_t fault_at;
    enum test_disk_fault fault;
    int fault_error;
    int64_t fault_shift;
    char fail_name[NAME_BYTES];
    int fail_error;
    char unreadable_name[NAME_BYTES];
    uint64_t unreadable_at, unreadable_bytes;
};

static struct test_disk *of(struct disk *d) { return (struct test_disk *)d; }
static const struct test_disk *of_const(const struct disk *d)
{
    return (const struct test_disk *)d;
}

static uint64_t draw(struct test_disk *t, uint64_t below)
{
    uint64_t z = (t->random += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (z ^ (z >> 31)) % below;
}

/* --- directory ------------------------------------------------------------------------------ */

static struct entry *find(struct directory *dir, const char *name)
{
    for (size_t i = 0; i < dir->n; i++)
        if (strcmp(dir->at[i].name, name) == 0)
            return &dir->at[i];
    return NULL;
}

static void unlink_name(struct directory *dir, const char *name)
{
    struct entry *e = find(dir, name);

    if (e != NULL)
        *e = dir->at[--dir->n];
}

static void link_name(struct directory *dir, const char *name, int inode)
{
    struct entry *e;

    assert(strlen(name) < NAME_BYTES && dir->n < ENTRIES_MAX);
    unlink_name(dir, name);
    e = &dir->at[dir->n++];
    strcpy(e->name, name);
    e->inode = inode;
}

static void apply(struct directory *dir, const struct change *c)
{
    if (c->kind != CHANGE_CREATE)
        unlink_name(dir, c->from);
    if (c->kind != CHANGE_REMOVE)
        link_name(dir, c->to, c->inode);
}

static void change(struct test_disk *t, enum change_kind kind, const char *from, const char *to,
                   int inode)
{
    struct change *c = &t->pending[t->pendings++];

    assert(t->pendings <= PENDING_MAX);
    *c = (struct change){ .kind = kind, .inode = inode };
    strcpy(c->from, from);
    strcpy(c->to, to);
    apply(&t->now, c);
}

/* --- the medium ----------------------------------------------------------------------------- */

static void grow(struct inode *f, uint64_t size)
{
    if (size > f->room) {
        f->room = size > 2 * f->room ? size : 2 * f->room;
        f->bytes = realloc(f->bytes, f->room);
        assert(f->bytes != NULL);
    }
    if (size > f->size) {
        memset(f->bytes + f->size, 0, size - f->size);
        f->size = size;
    }
}

static void store(struct inode *f, const void *buf, size_t bytes, uint64_t offset)
{
    grow(f, offset + bytes);
    memcpy(f->bytes + offset, buf, bytes);
}

/* What a write that was cut off has left. */
static void store_in_part(struct test_disk *t, int file, const void *buf, size_t bytes,
                          uint64_t offset)
{
    uint64_t fate = draw(t, 4);

    if (fate == 0)
        return;
    for (size_t at = 0; at < bytes; at += PIECE)
        if (fate == 1 || draw(t, 2) == 0)
            store(&t->inode[file], (const uint8_t *)buf + at, PIECE, offset + at);
}

static void power_off(struct test_disk *t)
{
    size_t kept = draw(t, t->pendings + 1);

    for (size_t i = 0; i < t->flights; i++) {
        const struct disk_write *w = t->flight[i];

        store_in_part(t, w->file, w->buf, w->bytes, w->offset);
    }
    for (size_t i = 0; i < kept; i++)
        apply(&t->durable, &t->pending[i]);
    t->pendings = 0;
    for (int i = 0; i < t->inodes; i++) {
        if (t->inode[i].uncut > 0 && draw(t, 2) == 0)
            t->inode[i].size = t->inode[i].uncut; /* the old bytes are still there */
        t->inode[i].uncut = 0;
    }
    t->off = true;
}

/* Counts one operation; returns 1: go on, 0: pretend, or the error to give. w: the asynchronous
 * write that it is, which is in flight. */
static int operation(struct test_disk *t, const char *name)
{
    if (t->off)
        return -EIO;
    if (t->operations++ == t->fault_at) {
        if (t->fault == TEST_DISK_ERROR)
            return t->fault_error;
        if (t->fault == TEST_DISK_POWER_CUT) {
            power_off(t);
            return -EIO;
        }
        return t->fault == TEST_DISK_SWALLOW ? 0 : 2;
    }
    if (name != NULL && t->fail_error != 0 && strcmp(name, t->fail_name) == 0)
        return t->fail_error;
    return 1;
}

static const char *name_of(const struct test_disk *t, int inode)
{
    for (size_t i = 0; i < t->now.n; i++)
        if (t->now.at[i].inode == inode)
            return t->now.at[i].name;
    return NULL;
}

/* --- operations ----------------------------------------------------------------------------- */

static int td_open(struct disk *d, const char *name, bool create)
{
    struct test_disk *t = of(d);
    struct entry *e = find(&t->now, name);
    int r;

    if (t->off)
        return -EIO;
    if (!create)
        return e != NULL ? e->inode : -ENOENT;
    if (e != NULL)
        return -EEXIST;
    r = operation(t, name);
    if (r < 0)
        return r;
    assert(t->inodes < INODES_MAX);
    change(t, CHANGE_CREATE, "", name, t->inodes);
    return t->inodes++;
}

static void td_close(struct disk *d, int file) { assert(file >= 0 && file < of(d)->inodes); }

static int64_t td_read(struct disk *d, int file, void *buf, size_t bytes, uint64_t offset)
{
    struct test_disk *t = of(d);
    const struct inode *f = &t->inode[file];
    const char *name = name_of(t, file);

    assert(bytes % 4096 == 0 && offset % 4096 == 0 && ((uintptr_t)buf & 4095) == 0);
    if (t->off)
        return -EIO;
    if (t->unreadable_bytes > 0 && name != NULL && strcmp(name, t->unreadable_name) == 0 &&
        offset < t->unreadable_at + t->unreadable_bytes && t->unreadable_at < offset + bytes)
        return -EIO;
    if (offset >= f->size)
        return 0;
    if (bytes > f->size - offset)
        bytes = f->size - offset;
    memcpy(buf, f->bytes + offset, bytes);
    return (int64_t)bytes;
}

/* Read at once: the oldest content that may be seen. */
static void td_read_begin(struct disk *d, struct disk_read *r)
{
    assert(!r->pending);
    r->result = td_read(d, r->file, r->buf, r->bytes, r->offset);
    r->pending = true;
    of(d)->reads++;
}

static int64_t td_read_wait(struct disk *d, struct disk_read *r)
{
    assert(r->pending && of(d)->reads > 0);
    r->pending = false;
    of(d)->reads--;
    return r->result;
}

static int64_t td_size(struct disk *d, int file)
{
    return of(d)->off ? -EIO : (int64_t)of(d)->inode[file].size;
}

static void td_write(struct disk *d, struct disk_write *w)
{
    struct test_disk *t = of(d);

    assert(t->queues < FLIGHT_MAX && w->bytes % 4096 == 0 && w->offset % 4096 == 0);
    for (size_t i = 0; i < t->queues; i++)
        assert(t->queued[i] != w);
    t->queued[t->queues++] = w;
}

/* One of the writes in flight, whichever, completes. */
static void complete_one(struct test_disk *t)
{
    size_t i = draw(t, t->flights);
    struct disk_write *w = t->flight[i];
    int r = operation(t, name_of(t, w->file));

    t->flight[i] = t->flight[--t->flights];
    if (r > 0)
        store(&t->inode[w->file], w->buf, w->bytes,
              w->offset + (r == 2 ? (uint64_t)t->fault_shift : 0));
    w->done(w, r < 0 ? r : 0);
}

static int td_poll(struct disk *d, bool wait)
{
    struct test_disk *t = of(d);
    size_t n = 0;

    for (size_t i = 0; i < t->queues; i++) {
        assert(t->flights < FLIGHT_MAX);
        t->flight[t->flights++] = t->queued[i];
    }
    t->queues = 0;
    if (t->flights > 0 && (wait || !t->stalled))
        n = t->off ? t->flights : wait + draw(t, t->flights + 1 - wait);
    for (size_t i = 0; i < n && t->flights > 0; i++)
        complete_one(t);
    return (int)n;
}

static int td_truncate(struct disk *d, int file, uint64_t bytes)
{
    struct test_disk *t = of(d);
    struct inode *f = &t->inode[file];
    bool was_off = t->off;
    int r = operation(t, name_of(t, file));
    bool done = r > 0 || (t->off && !was_off && draw(t, 2) == 0);

    assert(bytes % 4096 == 0);
    if (done && bytes < f->size) {
        f->uncut = r > 0 ? f->size : 0;
        f->size = bytes;
    } else if (done) {
        f->uncut = 0;
        grow(f, bytes);
    }
    return r < 0 ? r : 0;
}

static int td_write_now(struct disk *d, int file, const void *buf, size_t bytes, uint64_t offset)
{
    struct test_disk *t = of(d);
    bool was_off = t->off;
    int r = operation(t, name_of(t, file));

    if (r < 0 && t->off && !was_off)
        store_in_part(t, file, buf, bytes, offset);
    if (r > 0)
        store(&t->inode[file], buf, bytes, offset + (r == 2 ? (uint64_t)t->fault_shift : 0));
    return r < 0 ? r : 0;
}

static int td_rename(struct disk *d, const char *from, const char *to)
{
    struct test_disk *t = of(d);
    struct entry *e = find(&t->now, from);
    int r = operation(t, from);

    if (r < 0)
        return r;
    if (e == NULL)
        return -ENOENT;
    change(t, CHANGE_RENAME, from, to, e->inode);
    return 0;
}

static int td_remove(struct disk *d, const char *name)
{
    struct test_disk *t = of(d);
    int r;

    if (!t->off && find(&t->now, name) == NULL)
        return -ENOENT;
    r = operation(t, NULL);
    if (r < 0)
        return r;
    change(t, CHANGE_REMOVE, name, "", -1);
    return 0;
}

static int td_sync_dir(struct disk *d)
{
    struct test_disk *t = of(d);
    int r = operation(t, NULL);

    if (r < 0)
        return r;
    t->durable = t->now;
    t->pendings = 0;
    return 0;
}

static void td_reserve_names(struct disk *d, unsigned names) {}

static int td_list(struct disk *d, int (*each)(void *arg, const char *name), void *arg)
{
    struct test_disk *t = of(d);
    int r = t->off ? -EIO : 0;

    for (size_t i = 0; r == 0 && i < t->now.n; i++)
        r = each(arg, t->now.at[i].name);
    return r;
}

static int64_t td_free_bytes(struct disk *d) { return of(d)->free_bytes; }
static int td_event_fd(struct disk *d) { return -1; }
static void td_fini(struct disk *d) {}

static const struct disk_ops td_ops = {
    .open = td_open,
    .close = td_close,
    .read = td_read,
    .read_begin = td_read_begin,
    .read_wait = td_read_wait,
    .size = td_size,
    .write = td_write,
    .poll = td_poll,
    .truncate = td_truncate,
    .write_now = td_write_now,
    .rename = td_rename,
    .remove = td_remove,
    .sync_dir = td_sync_dir,
    .reserve_names = td_reserve_names,
    .list = td_list,
    .free_bytes = td_free_bytes,
    .event_fd = td_event_fd,
    .fini = td_fini,
};

/* --- control -------------------------------------------------------------------------------- */

struct disk *test_disk_make(uint64_t seed)
{
    struct test_disk *t = calloc(1, sizeof *t);

    assert(t != NULL);
    t->disk.ops = &td_ops;
    t->random = seed;
    t->free_bytes = INT64_MAX;
    t->fault_at = TEST_DISK_NEVER;
    return &t->disk;
}

void test_disk_free(struct disk *d)
{
    struct test_disk *t = of(d);

    assert(t->reads == 0); /* each was waited for */
    for (int i = 0; i < t->inodes; i++)
        free(t->inode[i].bytes);
    free(t);
}

void test_disk_fault_at(struct disk *d, uint64_t at, enum test_disk_fault kind, int error,
                        int64_t shift)
{
    struct test_disk *t = of(d);

    t->fault_at = at;
    t->fault = kind;
    t->fault_error = error;
    t->fault_shift = shift;
}

void test_disk_fail_file(struct disk *d, const char *name, int error)
{
    strcpy(of(d)->fail_name, name != NULL ? name : "");
    of(d)->fail_error = error;
}

void test_disk_unreadable(struct disk *d, const char *name, uint64_t offset, uint64_t bytes)
{
    strcpy(of(d)->unreadable_name, name);
    of(d)->unreadable_at = offset;
    of(d)->unreadable_bytes = bytes;
}

uint64_t test_disk_operations(const struct disk *d) { return of_const(d)->operations; }
bool test_disk_is_off(const struct disk *d) { return of_const(d)->off; }

void test_disk_power_cut(struct disk *d)
{
    if (!of(d)->off)
        power_off(of(d));
}

void test_disk_power_on(struct disk *d, uint64_t seed)
{
    struct test_disk *t = of(d);

    assert(t->off);
    t->off = t->stalled = false;
    t->queues = t->flights = 0;
    t->random = seed;
    t->now = t->durable;
    t->fault_at = TEST_DISK_NEVER;
    t->fail_error = 0;
}

size_t test_disk_in_flight(const struct disk *d)
{
    return of_const(d)->queues + of_const(d)->flights;
}

void test_disk_stall(struct disk *d, bool stalled) { of(d)->stalled = stalled; }
void test_disk_set_free(struct disk *d, int64_t bytes) { of(d)->free_bytes = bytes; }

uint8_t *test_disk_bytes(struct disk *d, const char *name, uint64_t *ret_bytes)
{
    struct entry *e = find(&of(d)->now, name);

    if (e == NULL)
        return NULL;
    if (ret_bytes != NULL)
        *ret_bytes = of(d)->inode[e->inode].size;
    return of(d)->inode[e->inode].bytes;
}

void test_disk_put(struct disk *d, const char *name, const void *bytes, uint64_t n)
{
    struct test_disk *t = of(d);
    int inode = t->inodes++;

    assert(inode < INODES_MAX);
    grow(&t->inode[inode], n);
    if (bytes != NULL && n > 0)
        memcpy(t->inode[inode].bytes, bytes, n);
    link_name(&t->now, name, inode);
    link_name(&t->durable, name, inode);
}

void test_disk_resize(struct disk *d, const char *name, uint64_t n)
{
    struct inode *f = &of(d)->inode[find(&of(d)->now, name)->inode];

    if (n < f->size)
        f->size = n;
    else
        grow(f, n);
}

void test_disk_drop(struct disk *d, const char *name)
{
    unlink_name(&of(d)->now, name);
    unlink_name(&of(d)->durable, name);
}

void test_disk_move(struct disk *d, const char *from, const char *to)
{
    int inode = find(&of(d)->now, from)->inode;

    test_disk_drop(d, from);
    link_name(&of(d)->now, to, inode);
    link_name(&of(d)->durable, to, inode);
}

static int entry_by_name(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

const char *test_disk_name(struct disk *d, size_t n)
{
    struct directory *dir = &of(d)->now;

    qsort(dir->at, dir->n, sizeof dir->at[0], entry_by_name);
    return n < dir->n ? dir->at[n].name : NULL;
}

uint32_t test_disk_digest(struct disk *d)
{
    const char *name;
    uint32_t crc = 0;
    uint64_t bytes = 0;

    for (size_t i = 0; (name = test_disk_name(d, i)) != NULL; i++) {
        const uint8_t *p = test_disk_bytes(d, name, &bytes);

        crc = crc32c(crc32c(crc, name, strlen(name)), p, bytes);
    }
    return crc;
}
