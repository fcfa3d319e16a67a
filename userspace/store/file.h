/*
 * file.h - the few operations on files in one directory that the dedupe index is written with.
 *
 * Everything that changes the disk goes through here, so that a test can stop or fail each step.
 * Thread:  any. Errors:  negative errno. No room is always -ENOSPC (also for a quota or a file size
 * limit) and changes nothing that was synced; a failed sync is never -ENOSPC, because what it
 * leaves on the disk is unknown: it is final.
 */
#ifndef SLUICE_STORE_FILE_H
#define SLUICE_STORE_FILE_H

#include <stddef.h>
#include <stdint.h>

enum file_op {
    FILE_CREATE,
    FILE_ALLOCATE,
    FILE_WRITE,
    FILE_TRUNCATE,
    FILE_SYNC,
    FILE_RENAME,
    FILE_REMOVE,
    FILE_SYNC_DIR,
};

/* For tests: called before each operation. 0: do it; below 0: return that instead of doing it;
 * above 0: say it was done without doing it. fd is -1 where there is none. */
typedef int (*file_fault_fn)(enum file_op op, int fd);
extern file_fault_fn file_fault;

int file_create(int dirfd, const char *name); /* replaces; returns a descriptor */
int file_allocate(int fd, uint64_t bytes);    /* 0 where the system cannot */
int file_write(int fd, const void *buf, size_t bytes, uint64_t offset);
int file_truncate(int fd, uint64_t bytes);
int file_sync(int fd);
int file_rename(int dirfd, const char *from, const char *to);
int file_remove(int dirfd, const char *name); /* 0 also when there is none */
int file_sync_dir(int dirfd);

/* Reads exactly bytes; -EILSEQ when the file is too short. */
int file_read(int fd, void *buf, size_t bytes, uint64_t offset);

#endif
