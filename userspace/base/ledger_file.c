/*
 * ledger_file.c - see ledger_file.h.
 */
#include "base/ledger_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"

#define LEDGER_FILE_MAGIC   0x474c4c53u /* "SLLG" */
#define LEDGER_FILE_VERSION 3u

struct ledger_image {
    uint32_t magic, version, closed, crc;
    uint64_t since_ns;
    struct ledger ledger;
};

static uint32_t image_crc(const struct ledger_image *i)
{
    _Static_assert(offsetof(struct ledger_image, since_ns) == 16, "stored");
    return crc32c(i->closed, &i->since_ns, sizeof *i - offsetof(struct ledger_image, since_ns));
}

int ledger_file_open(struct ledger_file *f, const char *dir, struct ledger *ret,
                     uint64_t *ret_since_ns, uint64_t *ret_lost)
{
    struct ledger_image image;
    ssize_t n;
    int fd;

    *ret_lost = 0;
    memset(ret, 0, sizeof *ret);
    if (snprintf(f->path, sizeof f->path, "%s/ledger", dir) >= (int)sizeof f->path ||
        snprintf(f->tmp, sizeof f->tmp, "%s/ledger.new", dir) >= (int)sizeof f->tmp)
        return -ENAMETOOLONG;
    fd = open(f->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    n = read(fd, &image, sizeof image);
    close(fd);
    if (n != (ssize_t)sizeof image || image.magic != LEDGER_FILE_MAGIC ||
        image.version != LEDGER_FILE_VERSION || image.crc != image_crc(&image))
        return -EILSEQ;
    *ret = image.ledger;
    *ret_since_ns = image.since_ns;
    for (unsigned t = 0; t < LEDGER_TYPES; t++) {
        ret->unaccounted[t] += ret->in_flight[t];
        *ret_lost += ret->in_flight[t];
        ret->in_flight[t] = 0;
    }
    return 0;
}

int ledger_file_save(struct ledger_file *f, const struct ledger *l, uint64_t since_ns, bool closed)
{
    struct ledger_image image;
    int fd = open(f->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), e = 0;
    ssize_t n;

    if (fd < 0)
        return -errno;
    memset(&image, 0, sizeof image);
    image.magic = LEDGER_FILE_MAGIC;
    image.version = LEDGER_FILE_VERSION;
    image.closed = closed;
    image.since_ns = since_ns;
    image.ledger = *l;
    image.crc = image_crc(&image);
    n = write(fd, &image, sizeof image);
    if (n != (ssize_t)sizeof image)
        e = n < 0 ? -errno : -ENOSPC;
    if (e == 0 && fdatasync(fd) < 0)
        e = -errno;
    close(fd);
    if (e == 0 && rename(f->tmp, f->path) < 0)
        e = -errno;
    return e;
}
