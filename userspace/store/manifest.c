/*
 * manifest.c - MANIFEST, one page of 4 KiB, replaced as a whole:
 *
 *   | magic, 8 bytes | version, 4 | zero, 4 | struct manifest | zeros | CRC32C of all before it, 4
 * |
 */
#include "store/manifest.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

#include "base/hash.h"
#include "store/file.h"

#define MANIFEST_MAGIC     0x46494e414d535544ull /* "DUSMANIF" */
#define MANIFEST_VERSION   1u
#define MANIFEST_BYTES     4096u
#define MANIFEST_TEMPORARY "MANIFEST.tmp"

struct page {
    uint64_t magic;
    uint32_t version, zero;
    struct manifest manifest;
    uint8_t zeros[MANIFEST_BYTES - 20 - sizeof(struct manifest)];
    uint32_t crc;
};
_Static_assert(sizeof(struct manifest_run) == 32, "stored");
_Static_assert(sizeof(struct manifest) == 24 + 32 * MANIFEST_RUNS_MAX, "stored");
_Static_assert(sizeof(struct page) == MANIFEST_BYTES, "stored");

static bool manifest_is_sound(const struct manifest *m)
{
    uint64_t covered = 0;

    if (m->count > MANIFEST_RUNS_MAX)
        return false;
    for (uint32_t i = 0; i < m->count; i++) {
        const struct manifest_run *r = &m->run[i];

        if (r->from != covered || r->to < r->from || r->seq >= m->seq_next)
            return false;
        for (uint32_t j = 0; j < i; j++)
            if (m->run[j].seq == r->seq)
                return false;
        covered = r->to;
    }
    return true;
}

int manifest_read(int dirfd, struct manifest *ret)
{
    struct page p;
    int fd = openat(dirfd, MANIFEST_NAME, O_RDONLY | O_CLOEXEC), e;

    if (fd < 0)
        return -errno;
    e = file_read(fd, &p, sizeof p, 0);
    if (e == 0 && lseek(fd, 0, SEEK_END) != (off_t)sizeof p)
        e = -EILSEQ;
    close(fd);
    if (e < 0)
        return e;
    if (p.magic != MANIFEST_MAGIC || p.version != MANIFEST_VERSION ||
        p.crc != crc32c(0, &p, sizeof p - sizeof p.crc) || !manifest_is_sound(&p.manifest))
        return -EILSEQ;
    *ret = p.manifest;
    return 0;
}

int manifest_write(int dirfd, const struct manifest *m)
{
    struct page p = { .magic = MANIFEST_MAGIC, .version = MANIFEST_VERSION, .manifest = *m };
    int fd = file_create(dirfd, MANIFEST_TEMPORARY), e;

    assert(manifest_is_sound(m));
    if (fd < 0)
        return fd;
    p.crc = crc32c(0, &p, sizeof p - sizeof p.crc);
    e = file_write(fd, &p, sizeof p, 0);
    if (e == 0)
        e = file_sync(fd);
    close(fd);
    if (e == 0)
        e = file_rename(dirfd, MANIFEST_TEMPORARY, MANIFEST_NAME);
    if (e == 0)
        return file_sync_dir(dirfd);
    (void)file_remove(dirfd, MANIFEST_TEMPORARY);
    return e;
}
