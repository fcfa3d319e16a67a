/*
 * file.c - see file.h.
 */
#include "store/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

file_fault_fn file_fault;

static int fault(enum file_op op, int fd) { return file_fault != NULL ? file_fault(op, fd) : 0; }

static int error_of(int e) { return e == EDQUOT || e == EFBIG ? -ENOSPC : -e; }

static int final_error_of(int e)
{
    int r = error_of(e);

    return r == -ENOSPC ? -EIO : r;
}

int file_create(int dirfd, const char *name)
{
    int r = fault(FILE_CREATE, -1), fd;

    if (r != 0)
        return r;
    fd = openat(dirfd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return fd < 0 ? error_of(errno) : fd;
}

int file_allocate(int fd, uint64_t bytes)
{
    int r = fault(FILE_ALLOCATE, fd);

    if (r != 0)
        return r < 0 ? r : 0;
    if (fallocate(fd, 0, 0, (off_t)bytes) == 0 || errno == EOPNOTSUPP || errno == ENOSYS)
        return 0;
    return error_of(errno);
}

int file_write(int fd, const void *buf, size_t bytes, uint64_t offset)
{
    const char *p = buf;
    int r = fault(FILE_WRITE, fd);

    if (r != 0)
        return r < 0 ? r : 0;
    while (bytes > 0) {
        ssize_t n = pwrite(fd, p, bytes, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_of(errno);
        if (n == 0)
            return -EIO;
        p += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

int file_truncate(int fd, uint64_t bytes)
{
    int r = fault(FILE_TRUNCATE, fd);

    if (r != 0)
        return r < 0 ? r : 0;
    return ftruncate(fd, (off_t)bytes) < 0 ? error_of(errno) : 0;
}

int file_sync(int fd)
{
    int r = fault(FILE_SYNC, fd);

    if (r != 0)
        return r < 0 ? r : 0;
    return fsync(fd) < 0 ? final_error_of(errno) : 0;
}

int file_rename(int dirfd, const char *from, const char *to)
{
    int r = fault(FILE_RENAME, -1);

    if (r != 0)
        return r < 0 ? r : 0;
    return renameat(dirfd, from, dirfd, to) < 0 ? error_of(errno) : 0;
}

int file_remove(int dirfd, const char *name)
{
    int r = fault(FILE_REMOVE, -1);

    if (r != 0)
        return r < 0 ? r : 0;
    return unlinkat(dirfd, name, 0) < 0 && errno != ENOENT ? error_of(errno) : 0;
}

int file_sync_dir(int dirfd)
{
    int r = fault(FILE_SYNC_DIR, -1);

    if (r != 0)
        return r < 0 ? r : 0;
    return fsync(dirfd) < 0 ? final_error_of(errno) : 0;
}

int file_read(int fd, void *buf, size_t bytes, uint64_t offset)
{
    char *p = buf;

    while (bytes > 0) {
        ssize_t n = pread(fd, p, bytes, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EILSEQ;
        p += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}
