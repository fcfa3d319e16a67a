/*
 * disk.h - the one table of operations through which the log touches storage.
 *
 * disk_uring.c is the real one (io_uring, O_DIRECT|O_DSYNC, one directory); tests/lib/test_disk.c
 * loses, tears, reorders, rots, stalls and refuses. Names are file names within the disk's
 * directory.
 *
 * Contract: a write that has completed is durable (as after O_DSYNC), and so is what sync_dir()
 * returned for; sync_dir() also makes durable what any write before it, of an earlier process too,
 * has left in the device's cache. Writes in flight may reach the medium in any order, in part
 * (512-byte pieces) or not at all. Buffers, lengths and offsets of reads and writes are multiples
 * of 4 KiB.
 */
#ifndef SLUICE_CLUSTER_DISK_H
#define SLUICE_CLUSTER_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct disk;

/* One asynchronous write; the caller's memory until done() ran (from disk_poll() only). */
struct disk_write {
    int file;
    const void *buf;
    size_t bytes;
    uint64_t offset;
    void (*done)(struct disk_write *w,
                 int result); /* 0 or a negative errno; a short write is -EIO */
    void *owner;
    struct disk_write *next;
};

/* One read ahead; the caller's memory, and buf the disk's, until read_wait(). */
struct disk_read {
    int file;
    void *buf;
    size_t bytes;
    uint64_t offset;
    /* the disk's own */
    int64_t result;
    bool pending;
};

struct disk_ops {
    /* Opens (create: makes, failing with -EEXIST) a file for direct I/O. Returns a handle >= 0. */
    int (*open)(struct disk *d, const char *name, bool create);
    void (*close)(struct disk *d, int file);
    /* Returns bytes read (short only at the end of the file) or a negative errno. */
    int64_t (*read)(struct disk *d, int file, void *buf, size_t bytes, uint64_t offset);
    /* Begins a read; read_wait() waits for it, runs no done(), and returns what read() would have
     * at any time in between. A few may be under way. Every one that was begun has to be waited
     * for. */
    void (*read_begin)(struct disk *d, struct disk_read *r);
    int64_t (*read_wait)(struct disk *d, struct disk_read *r);
    int64_t (*size)(struct disk *d, int file);
    /* Queues; handed over by poll(). Never fails here: errors come to done(). */
    void (*write)(struct disk *d, struct disk_write *w);
    /* Submits what is queued and runs done() for what has completed; wait: blocks until something
     * has, if anything is in flight. Returns the number of completions. */
    int (*poll)(struct disk *d, bool wait);
    /* Sets the file's length. Growing (by zeros that need not have space yet) is durable when it
     * returns. Shrinking need not be: a power cut may bring the old length and content back. */
    int (*truncate)(struct disk *d, int file, uint64_t bytes);
    /* Durable when it returns. */
    int (*write_now)(struct disk *d, int file, const void *buf, size_t bytes, uint64_t offset);
    int (*rename)(struct disk *d, const char *from, const char *to);
    int (*remove)(struct disk *d, const char *name);
    int (*sync_dir)(struct disk *d);
    /* Takes room in the directory for so many files' names more, as far as that can be had, so that
     * a rename does not meet a full disk. */
    void (*reserve_names)(struct disk *d, unsigned names);
    /* Calls each() for every file name; nonzero ends the walk and is returned. */
    int (*list)(struct disk *d, int (*each)(void *arg, const char *name), void *arg);
    /* Bytes that files may still take, or a negative errno. */
    int64_t (*free_bytes)(struct disk *d);
    /* For the event loop: readable when poll() has completions to run; -1 if there is none. */
    int (*event_fd)(struct disk *d);
    void (*fini)(struct disk *d);
};

struct disk {
    const struct disk_ops *ops;
    bool buffered; /* the file system (tmpfs) has no O_DIRECT: for tests, to be told in status */
};

/* The real disk: dir must exist. writes_max bounds the writes in flight. Returns 0, -EBUSY (another
 * process has this directory open, for a second now), -EOPNOTSUPP (the file system refuses O_DIRECT
 * and is not tmpfs) or another negative errno. */
int disk_uring_open(struct disk **ret, const char *dir, unsigned writes_max);

/* For reading only: changes nothing, every writing operation gives -EROFS. -EBUSY as above. */
int disk_uring_open_read(struct disk **ret, const char *dir);

/* For reading only, beside the process that has the directory open: takes no lock. */
int disk_uring_open_shared(struct disk **ret, const char *dir);

/* Does the open file still have a name? */
bool disk_uring_is_linked(struct disk *d, int file);

#endif
