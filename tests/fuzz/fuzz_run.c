/*
 * fuzz_run.c - any bytes as MANIFEST and run files of a dedupe index. The index must open, say that
 * it covers no more than the log holds, take a replay and then know every key of it.
 *
 * First byte: bit 0: bytes are laid over a sound run file, else they are the run; bit 1: over
 * MANIFEST instead; bit 2: checksums of directory, header and MANIFEST are made right, so that what
 * lies behind them is reached; bit 3: open with verify. Next two bytes: offset in 8 bytes; then the
 * bytes.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/dedupe.h"
#include "store/file.h"

#define FILE_BYTES_MAX   (64u << 10)
#define KEYS             300u
#define PAGE_BYTES       4096u
#define DIRECTORY_END    (PAGE_BYTES + 32768u)
#define DIRECTORY_CRC_AT 76u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[256];
static uint8_t run[FILE_BYTES_MAX], manifest[PAGE_BYTES];
static size_t run_bytes;

static int skip_syncs(enum file_op op, int fd) { return op == FILE_SYNC || op == FILE_SYNC_DIR; }

static struct key128 key_of(uint64_t n)
{
    return (struct key128){ n * 0x9e3779b97f4a7c15ull, n * 0xc2b2ae3d27d4eb4full };
}

static struct dedupe_config config_of(bool verify)
{
    return (struct dedupe_config){
        .dir = dir,
        .memory_bytes_max = DEDUPE_MEMORY_BYTES_MIN,
        .log_last_index = KEYS,
        .verify = verify,
        .table_keys_max = 150,
        .summary_bytes_max = 4096,
    };
}

static void replay_and_check(struct dedupe *d, uint64_t covered)
{
    struct dedupe_place p;
    int r = 0;

    for (uint64_t i = covered + 1; i <= KEYS && r == 0; i++)
        r = dedupe_replay(d, key_of(i), i, (struct dedupe_place){ i, 0 });
    for (uint64_t i = 1; i <= KEYS && r >= 0; i++) {
        r = dedupe_lookup(d, key_of(i), &p);
        r = r < 0 ? r : 0;
    }
    assert(r == 0 || r == -EILSEQ);
}

static size_t file_io(const char *name, void *buf, size_t bytes, bool put)
{
    char path[300];
    ssize_t n;
    int fd;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    fd = open(path, put ? O_WRONLY | O_CREAT | O_TRUNC : O_RDONLY, 0600);
    assert(fd >= 0);
    n = put ? write(fd, buf, bytes) : read(fd, buf, bytes);
    assert(n >= 0);
    close(fd);
    return (size_t)n;
}

/* One sound index of one run, to lay the bytes over. */
static void make_sound(void)
{
    struct dedupe_config c = config_of(false);
    const char *tmp = getenv("TMPDIR");
    struct dedupe *d;
    uint64_t covered;

    snprintf(dir, sizeof dir, "%s/fuzz-run-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(dir) == NULL)
        abort();
    file_fault = skip_syncs;
    if (dedupe_open(&d, &c, &covered) < 0)
        abort();
    replay_and_check(d, 0);
    while (dedupe_do_work(d) > 0)
        ;
    dedupe_close(d);
    run_bytes = file_io("0000000000000001.run", run, sizeof run, false);
    assert(run_bytes > PAGE_BYTES &&
           file_io("MANIFEST", manifest, PAGE_BYTES, false) == PAGE_BYTES);
}

static void remove_dir(void)
{
    char command[300];

    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    if (system(command) != 0)
        fprintf(stderr, "%s stays\n", dir);
}

static void fix_crc(uint8_t *page)
{
    uint32_t crc = crc32c(0, page, PAGE_BYTES - 4);

    memcpy(page + PAGE_BYTES - 4, &crc, 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t r[FILE_BYTES_MAX], m[PAGE_BYTES];
    size_t at, bytes = run_bytes;
    struct dedupe_config c;
    struct dedupe *d;
    uint64_t covered = 0;

    if (dir[0] == '\0') {
        make_sound();
        atexit(remove_dir);
        bytes = run_bytes;
    }
    if (size < 3)
        return 0;
    c = config_of(data[0] & 8);
    at = ((size_t)data[1] | (size_t)data[2] << 8) * 8;
    memcpy(r, run, run_bytes);
    memcpy(m, manifest, PAGE_BYTES);
    if (data[0] & 2) {
        for (size_t i = 3; i < size && at + i - 3 < PAGE_BYTES; i++)
            m[at + i - 3] = data[i];
    } else if (data[0] & 1) {
        for (size_t i = 3; i < size && at + i - 3 < run_bytes; i++)
            r[at + i - 3] = data[i];
    } else {
        bytes = size - 3 < sizeof r ? size - 3 : sizeof r;
        memcpy(r, data + 3, bytes);
    }
    if (data[0] & 4) {
        if (bytes >= DIRECTORY_END) {
            uint32_t crc = crc32c(0, r + PAGE_BYTES, DIRECTORY_END - PAGE_BYTES);

            memcpy(r + DIRECTORY_CRC_AT, &crc, sizeof crc);
        }
        if (bytes >= PAGE_BYTES)
            fix_crc(r);
        /* MANIFEST's copy of the header's CRC: first run, after seq, from, to. */
        if (!(data[0] & 2))
            memcpy(m + 16 + 24 + 24, r + PAGE_BYTES - 4, 4);
        fix_crc(m);
    }
    file_io("0000000000000001.run", r, bytes, true);
    file_io("MANIFEST", m, PAGE_BYTES, true);
    assert(dedupe_open(&d, &c, &covered) == 0);
    assert(covered <= KEYS);
    replay_and_check(d, covered);
    dedupe_close(d);
    return 0;
}
