/*
 * fuzz_orphan.c - any bytes as an orphan file: it is listed, and read to its end or to where it is
 * found to be damaged.
 *
 *   byte 0: bit 0: the CRCs and the chain of the records that are there are made right first, and
 *           what the head says of them, so that what lies behind these is reached
 *   rest:   the file
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/orphan.h"
#include "cluster/record.h"

#define FILE_BYTES (1u << 20)
#define NAME       "orphan-1-2-3-00"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char dir[300];

static void remove_dir(void)
{
    char path[400];

    snprintf(path, sizeof path, "%s/orphans/" NAME, dir);
    (void)unlink(path);
    snprintf(path, sizeof path, "%s/orphans", dir);
    (void)rmdir(path);
    (void)rmdir(dir);
}

static void make_dir(void)
{
    const char *tmp = getenv("TMPDIR");
    char path[400];

    snprintf(dir, sizeof dir, "%s/fuzz-orphan-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(dir) == NULL)
        abort();
    snprintf(path, sizeof path, "%s/orphans", dir);
    if (mkdir(path, 0700) < 0)
        abort();
    atexit(remove_dir);
}

static void put_file(const uint8_t *bytes, size_t n)
{
    char path[400];
    int fd;

    snprintf(path, sizeof path, "%s/orphans/" NAME, dir);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, bytes, n) != (ssize_t)n)
        abort();
    close(fd);
}

/* As far as there are headers. No log comes to an index beyond 48 bits. */
static void mend(uint8_t *file, size_t bytes)
{
    struct orphan_head *head = (struct orphan_head *)file;
    const size_t skipped = offsetof(struct orphan_head, node);
    uint8_t digest[SHA256_BYTES];
    size_t at = LOG_ALIGN;
    uint64_t n = 0;

    head->magic = ORPHAN_MAGIC;
    head->version = ORPHAN_VERSION;
    head->first = head->first % (1ull << 48) + 1;
    memcpy(digest, head->before, SHA256_BYTES);
    while (at + LOG_ALIGN <= bytes) {
        struct record_header *r = (struct record_header *)(file + at);

        if (r->magic != RECORD_MAGIC)
            break;
        r->agreed.payload_bytes %= LOG_RECORD_BYTES_MAX - LOG_HEADER_BYTES + 1;
        if (record_bytes(r->agreed.payload_bytes) > bytes - at)
            r->agreed.payload_bytes = LOG_ALIGN - LOG_HEADER_BYTES;
        r->agreed.index = head->first + n++;
        memcpy(r->agreed.before, digest, SHA256_BYTES);
        r->payload_crc = crc32c(0, r + 1, r->agreed.payload_bytes);
        record_digest(r, digest);
        at += record_bytes(r->agreed.payload_bytes);
    }
    head->last = head->first + (n > 0 ? n - 1 : 0);
    memcpy(head->after, digest, SHA256_BYTES);
    head->crc = crc32c(0, file + skipped, sizeof *head - skipped);
}

/* Returns how it ended; what was read, and a sum of it, are to be the same every time. */
static int read_all(uint64_t *ret_records, uint32_t *ret_crc)
{
    struct orphan_reader *r = NULL;
    const struct orphan_head *h;
    struct log_record record;
    const void *payload;
    int e = orphan_reader_open(&r, dir, NAME);

    *ret_records = *ret_crc = 0;
    assert((e == 0) == (r != NULL) && (e == 0 || e == -EILSEQ));
    if (e < 0)
        return e;
    h = orphan_reader_head(r);
    assert(h->first > 0 && h->first <= h->last);
    while ((e = orphan_reader_next(r, &record, &payload)) == 1) {
        assert(record.index == h->first + *ret_records && record.index <= h->last);
        assert(record.payload_bytes <= LOG_RECORD_BYTES_MAX - LOG_HEADER_BYTES);
        *ret_crc = crc32c(*ret_crc, payload, record.payload_bytes);
        ++*ret_records;
    }
    assert(e == -EILSEQ || (e == 0 && *ret_records == h->last - h->first + 1));
    assert(e != 0 || orphan_reader_next(r, &record, &payload) == 0);
    orphan_reader_close(r);
    return e;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static uint8_t file[FILE_BYTES] __attribute__((aligned(4096)));
    static struct orphan_file listed[2];
    uint64_t records, again;
    uint32_t crc, crc_again;
    int e;

    if (bytes < 1 || bytes - 1 > sizeof file)
        return 0;
    if (dir[0] == '\0')
        make_dir();
    bytes--;
    memcpy(file, data + 1, bytes);
    if ((data[0] & 1) && bytes >= LOG_ALIGN)
        mend(file, bytes);
    put_file(file, bytes);
    assert(orphan_list(dir, listed, 2) == 1 && strcmp(listed[0].name, NAME) == 0);
    e = read_all(&records, &crc);
    assert(listed[0].error == 0 || (listed[0].error == e && records == 0));
    assert(read_all(&again, &crc_again) == e && again == records && crc_again == crc);
    return 0;
}
