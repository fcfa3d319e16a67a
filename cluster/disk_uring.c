/*
 * disk_uring.c - the real disk: one directory, io_uring for the log's writes.
 *
 * Files are opened O_DIRECT|O_DSYNC, so a completed write is on the medium. Writes are handed over
 * in one submission by poll(); what does not fit into the ring waits in a list. Reads ahead have a
 * ring of their own, made with the first one; without it they are done when they are waited for.
 * Everything else is a plain system call on the caller's thread. A file handle is its descriptor.
 *
 * Thread:  one at a time (it may be opened by another than the one that goes on to use it).
 * Memory:  the rings; struct disk_write is the caller's until its done().
 * Limits:  writes_max in flight; READS_MAX reads ahead.
 * Errors:  negative errno; EIO for a short write.
 */
#include "cluster/disk.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define LOCK_NAME      "LOCK"
#define RESERVED_NAMES "names.tmp."
#define READS_MAX      8u
#ifdef PLANT_LOG_NO_DSYNC
#define DSYNC_FLAG 0
#else
#define DSYNC_FLAG O_DSYNC
#endif

struct disk_uring {
    struct disk disk;
    int dir, lock, event;
    bool read_only, ring_made;
    unsigned writes_max, in_flight;
    struct disk_write *first, *last; /* not yet handed over */
    struct io_uring ring;
    bool reads_tried, reads_made;
    unsigned reads_in_flight;
    struct io_uring reads;
};

static struct disk_uring *uring_of(struct disk *d) { return (struct disk_uring *)d; }

static int uring_open_file(struct disk *d, const char *name, bool create)
{
    struct disk_uring *u = uring_of(d);
    int flags = (u->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | DSYNC_FLAG;
    int fd;

    assert(strchr(name, '/') == NULL);
    if (create && u->read_only)
        return -EROFS;
    if (!d->buffered)
        flags |= O_DIRECT;
    fd = openat(u->dir, name, flags | (create ? O_CREAT | O_EXCL : 0), 0640);
    return fd < 0 ? -errno : fd;
}

static void uring_close_file(struct disk *d, int file)
{
    assert(file >= 0);
    close(file);
}

static int64_t uring_read(struct disk *d, int file, void *buf, size_t bytes, uint64_t offset)
{
    size_t got = 0;
    ssize_t n;

    assert(bytes % 4096 == 0 && offset % 4096 == 0 && ((uintptr_t)buf & 4095) == 0);
    while (got < bytes) {
        n = pread(file, (uint8_t *)buf + got, bytes - got, (off_t)(offset + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        got += (size_t)n;
        if (n % 4096 != 0 || n == 0)
            break;
    }
    return (int64_t)got;
}

static void uring_read_begin(struct disk *d, struct disk_read *r)
{
    struct disk_uring *u = uring_of(d);
    struct io_uring_sqe *sqe;

    assert(r->bytes % 4096 == 0 && r->offset % 4096 == 0 && ((uintptr_t)r->buf & 4095) == 0);
    r->pending = false;
    r->result = -EAGAIN;
    if (!u->reads_tried)
        u->reads_made = io_uring_queue_init(READS_MAX, &u->reads, 0) == 0;
    u->reads_tried = true;
    if (!u->reads_made || u->reads_in_flight == READS_MAX)
        return;
    sqe = io_uring_get_sqe(&u->reads);
    if (sqe == NULL)
        return;
    io_uring_prep_read(sqe, r->file, r->buf, (unsigned)r->bytes, r->offset);
    io_uring_sqe_set_data(sqe, r);
    r->pending = true;
    u->reads_in_flight++;
    /* If the kernel does not take it now, read_wait() hands it over again. */
    io_uring_submit(&u->reads);
}

static int64_t uring_read_wait(struct disk *d, struct disk_read *r)
{
    struct disk_uring *u = uring_of(d);
    struct io_uring_cqe *cqe;

    while (r->pending) {
        struct disk_read *other;

        io_uring_submit_and_wait(&u->reads, 1);
        if (io_uring_peek_cqe(&u->reads, &cqe) != 0)
            continue;
        other = io_uring_cqe_get_data(cqe);
        assert(other->pending && u->reads_in_flight > 0);
        other->result = cqe->res;
        other->pending = false;
        u->reads_in_flight--;
        io_uring_cqe_seen(&u->reads, cqe);
    }
    if (r->result == (int64_t)r->bytes)
        return r->result;
    /* Not begun, short, or failed: read() knows what that means. */
    return uring_read(d, r->file, r->buf, r->bytes, r->offset);
}

static int64_t uring_size(struct disk *d, int file)
{
    struct stat st;

    return fstat(file, &st) < 0 ? -errno : (int64_t)st.st_size;
}

static void uring_write(struct disk *d, struct disk_write *w)
{
    struct disk_uring *u = uring_of(d);

    assert(w->bytes > 0 && w->bytes % 4096 == 0 && w->offset % 4096 == 0);
    assert(((uintptr_t)w->buf & 4095) == 0 && !u->read_only);
    w->next = NULL;
    if (u->last != NULL)
        u->last->next = w;
    else
        u->first = w;
    u->last = w;
}

static void fill_ring(struct disk_uring *u)
{
    struct io_uring_sqe *sqe;
    struct disk_write *w;

    while ((w = u->first) != NULL && u->in_flight < u->writes_max) {
        sqe = io_uring_get_sqe(&u->ring);
        if (sqe == NULL)
            return;
        u->first = w->next;
        if (u->first == NULL)
            u->last = NULL;
        io_uring_prep_write(sqe, w->file, w->buf, (unsigned)w->bytes, w->offset);
        io_uring_sqe_set_data(sqe, w);
        u->in_flight++;
    }
}

static int collect(struct disk_uring *u)
{
    struct io_uring_cqe *cqe;
    int n = 0;

    while (io_uring_peek_cqe(&u->ring, &cqe) == 0) {
        struct disk_write *w = io_uring_cqe_get_data(cqe);
        int result = cqe->res;

        io_uring_cqe_seen(&u->ring, cqe);
        assert(u->in_flight > 0);
        u->in_flight--;
        if (result >= 0)
            result = (size_t)result == w->bytes ? 0 : -EIO;
        w->done(w, result);
        n++;
    }
    return n;
}

/* Collects before it fills, so that a write that waits for room is handed over by the call that
 * made the room: with nothing in flight, there would be no completion to tell of it. What the
 * second look collects has completed after the event was cleared, and has made it readable. */
static int uring_poll(struct disk *d, bool wait)
{
    struct disk_uring *u = uring_of(d);
    uint64_t told;
    int r, n;

    if (u->read_only)
        return 0;
    if (read(u->event, &told, sizeof told) < 0)
        assert(errno == EAGAIN || errno == EINTR);
    n = collect(u);
    fill_ring(u);
    do {
        wait = wait && n == 0 && u->in_flight > 0 && io_uring_cq_ready(&u->ring) == 0;
        r = wait ? io_uring_submit_and_wait(&u->ring, 1) : io_uring_submit(&u->ring);
    } while (r == -EINTR);
    /* EAGAIN and EBUSY leave the entries in the ring for the next call. */
    assert(r >= 0 || r == -EAGAIN || r == -EBUSY);
    if (io_uring_sq_ready(&u->ring) > 0)
        (void)eventfd_write(u->event, 1);
    return n + collect(u);
}

static int uring_truncate(struct disk *d, int file, uint64_t bytes)
{
    int64_t before = uring_size(d, file);

    assert(bytes % 4096 == 0);
    if (uring_of(d)->read_only)
        return -EROFS;
    if (before < 0)
        return (int)before;
    if (ftruncate(file, (off_t)bytes) < 0)
        return -errno;
    return bytes > (uint64_t)before && fsync(file) < 0 ? -errno : 0;
}

static int uring_write_now(struct disk *d, int file, const void *buf, size_t bytes, uint64_t offset)
{
    ssize_t n;

    assert(bytes % 4096 == 0 && offset % 4096 == 0 && ((uintptr_t)buf & 4095) == 0);
    if (uring_of(d)->read_only)
        return -EROFS;
    do
        n = pwrite(file, buf, bytes, (off_t)offset);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    return (size_t)n == bytes ? 0 : -EIO;
}

static int uring_rename(struct disk *d, const char *from, const char *to)
{
    struct disk_uring *u = uring_of(d);

    if (u->read_only)
        return -EROFS;
    return renameat(u->dir, from, u->dir, to) < 0 ? -errno : 0;
}

static int uring_remove(struct disk *d, const char *name)
{
    struct disk_uring *u = uring_of(d);

    if (u->read_only)
        return -EROFS;
    return unlinkat(u->dir, name, 0) < 0 ? -errno : 0;
}

static int uring_sync_dir(struct disk *d)
{
    struct disk_uring *u = uring_of(d);

    if (u->read_only)
        return -EROFS;
    /* The lock file's sync is for the device's cache, should the directory have nothing to write.
     */
    return fsync(u->dir) < 0 || fsync(u->lock) < 0 ? -errno : 0;
}

static int uring_list(struct disk *d, int (*each)(void *arg, const char *name), void *arg)
{
    int fd = openat(uring_of(d)->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;

    if (dir == NULL) {
        r = -errno;
        if (fd >= 0)
            close(fd);
        return r;
    }
    while (r == 0) {
        errno = 0;
        e = readdir(dir);
        if (e == NULL) {
            r = -errno;
            break;
        }
        if (strncmp(e->d_name, RESERVED_NAMES, strlen(RESERVED_NAMES)) != 0 &&
            (e->d_type == DT_REG || e->d_type == DT_UNKNOWN))
            r = each(arg, e->d_name);
    }
    closedir(dir);
    return r;
}

/* At 48 bytes a name. A directory of ext4 grows with its names and never gets smaller: links with
 * long names make it as large as the files' names will need, and go again. Where a file system sees
 * to that itself, or has no links, nothing is lost. What a crash leaves goes with the next call. */
static void uring_reserve_names(struct disk *d, unsigned names)
{
    const int dir = uring_of(d)->dir;
    const size_t entry = 8 + NAME_MAX + 1, file = 48;
    unsigned links = (unsigned)(names * file / entry) + 1;
    char name[NAME_MAX + 1];
    int n;

    if (uring_of(d)->read_only)
        return;
    memset(name, 'x', sizeof name - 1);
    name[NAME_MAX] = '\0';
    for (int take = 1; take >= 0; take--) {
        for (unsigned i = 0; i < links; i++) {
            n = snprintf(name, sizeof name, RESERVED_NAMES "%08u", i);
            name[n] = 'x'; /* up to the end */
            if (take && linkat(dir, LOCK_NAME, dir, name, 0) < 0 && errno != EEXIST)
                break;
            if (!take)
                (void)unlinkat(dir, name, 0);
        }
    }
}

static int64_t uring_free_bytes(struct disk *d)
{
    struct statvfs s;

    if (fstatvfs(uring_of(d)->dir, &s) < 0)
        return -errno;
    return (int64_t)((uint64_t)s.f_bavail * s.f_frsize);
}

static int uring_event_fd(struct disk *d) { return uring_of(d)->event; }

static void uring_fini(struct disk *d)
{
    struct disk_uring *u = uring_of(d);

    if (u->ring_made) {
        while (u->first != NULL || u->in_flight > 0)
            uring_poll(d, true);
        io_uring_unregister_files(&u->ring);
        io_uring_queue_exit(&u->ring);
    }
    assert(u->reads_in_flight == 0);
    if (u->reads_made)
        io_uring_queue_exit(&u->reads);
    if (u->event >= 0)
        close(u->event);
    if (u->lock >= 0)
        close(u->lock);
    if (u->dir >= 0)
        close(u->dir);
    free(u);
}

static const struct disk_ops uring_ops = {
    .open = uring_open_file,
    .close = uring_close_file,
    .read = uring_read,
    .read_begin = uring_read_begin,
    .read_wait = uring_read_wait,
    .size = uring_size,
    .write = uring_write,
    .poll = uring_poll,
    .truncate = uring_truncate,
    .write_now = uring_write_now,
    .rename = uring_rename,
    .remove = uring_remove,
    .sync_dir = uring_sync_dir,
    .reserve_names = uring_reserve_names,
    .list = uring_list,
    .free_bytes = uring_free_bytes,
    .event_fd = uring_event_fd,
    .fini = uring_fini,
};

/* A killed process's writes go on for a moment after it is gone, and its ring keeps the lock until
 * they have ended (see make_ring()): so the next one is given a second to get it. */
static int wait_for_lock(int fd, int kind)
{
    const struct timespec pause = { .tv_nsec = 10000000 };

    for (int i = 0; flock(fd, kind | LOCK_NB) < 0; i++) {
        if (errno != EWOULDBLOCK)
            return -errno;
        if (i == 100)
            return -EBUSY;
        nanosleep(&pause, NULL);
    }
    return 0;
}

/* Takes the directory for this process alone (a reader: shares it with readers). */
static int take_lock(struct disk_uring *u)
{
    int flags = u->read_only ? O_RDONLY : O_RDWR | O_CREAT;

    u->lock = openat(u->dir, LOCK_NAME, flags | O_CLOEXEC, 0640);
    if (u->lock < 0)
        return u->read_only && errno == ENOENT ? 0 : -errno;
    return wait_for_lock(u->lock, u->read_only ? LOCK_SH : LOCK_EX);
}

/* Finds out whether files can be opened O_DIRECT; only tmpfs may do without. */
static int probe_direct(struct disk_uring *u)
{
    struct statfs fs;
    int fd;

    if (fstatfs(u->dir, &fs) < 0)
        return -errno;
    u->disk.buffered = fs.f_type == TMPFS_MAGIC;
    if (u->disk.buffered || u->lock < 0)
        return 0;
    fd = openat(u->dir, LOCK_NAME, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0)
        return errno == EINVAL ? -EOPNOTSUPP : -errno;
    close(fd);
    return 0;
}

static int make_ring(struct disk_uring *u)
{
    int r = io_uring_queue_init(u->writes_max, &u->ring, 0);

    if (r < 0)
        return r;
    u->ring_made = true;
    /* The ring lives until its last write has ended, even when the process is killed. Holding the
     * lock file, it keeps a successor from reading a log that is still being written. */
    r = io_uring_register_files(&u->ring, &u->lock, 1);
    if (r < 0)
        return r;
    u->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (u->event < 0)
        return -errno;
    return io_uring_register_eventfd(&u->ring, u->event);
}

enum access { ACCESS_OWNER, ACCESS_READER, ACCESS_SHARED };

static int open_disk(struct disk **ret, const char *dir, unsigned writes_max, enum access access)
{
    struct disk_uring *u = calloc(1, sizeof *u);
    int r;

    if (u == NULL)
        return -ENOMEM;
    u->disk.ops = &uring_ops;
    u->read_only = access != ACCESS_OWNER;
    u->writes_max = writes_max;
    u->lock = u->event = -1;
    u->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    r = u->dir < 0 ? -errno : 0;
    if (r == 0 && access != ACCESS_SHARED)
        r = take_lock(u);
    if (r == 0)
        r = probe_direct(u);
    if (r == 0 && access == ACCESS_OWNER)
        r = make_ring(u);
    if (r < 0) {
        uring_fini(&u->disk);
        return r;
    }
    *ret = &u->disk;
    return 0;
}

int disk_uring_open(struct disk **ret, const char *dir, unsigned writes_max)
{
    assert(writes_max > 0 && writes_max <= 4096);
    return open_disk(ret, dir, writes_max, ACCESS_OWNER);
}

int disk_uring_open_read(struct disk **ret, const char *dir)
{
    return open_disk(ret, dir, 1, ACCESS_READER);
}

int disk_uring_open_shared(struct disk **ret, const char *dir)
{
    return open_disk(ret, dir, 1, ACCESS_SHARED);
}

bool disk_uring_is_linked(struct disk *d, int file)
{
    struct stat st;

    assert(d->ops == &uring_ops);
    return fstat(file, &st) == 0 && st.st_nlink > 0;
}
