/*
 * fuzz_segment.c - any bytes as a segment file: a start and a check must refuse or accept, not
 * crash.
 *
 *   byte 0: bit 0: repair all CRCs first, so that what lies behind them is reached
 *           bit 1: the file is cut behind its content, as after a seal, and another one follows it,
 *           whose first index is bits 2 and up
 *   byte 1: what the mark says is durable
 *   rest:   the file from its first byte on, cut off or filled with zeros to 1 MiB
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/segment.h"
#include "tests/lib/log_fixture.h"
#include "tests/lib/test_disk.h"

#define FILE_BYTES (1u << 20)
#define FIRST_NAME "0000000000000002-0000000000000001.seg"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void ignore_problem(void *arg, const char *sentence)
{
    assert(sentence[0] != '\0');
    ++*(uint64_t *)arg;
}

static void repair(uint8_t *file)
{
    struct segment_header *h = (struct segment_header *)file;
    struct segment s = { .epoch = h->epoch, .first = h->first };
    uint8_t before[SHA256_BYTES];
    uint64_t offset = LOG_ALIGN;
    uint32_t seed;

    memcpy(before, h->before, SHA256_BYTES);
    if (s.first > 0)
        segment_encode(h, &s, h->previous_first % s.first, FILE_BYTES, before);
    seed = record_seed(before);
    while (offset < FILE_BYTES - LOG_RECORD_BYTES_MAX) {
        struct record_header *r = (struct record_header *)(file + offset);
        struct log_record record;
        uint64_t durable;

        if (r->magic != RECORD_MAGIC)
            break;
        record_decode(r, &record);
        record.payload_bytes %= LOG_RECORD_BYTES_MAX - LOG_HEADER_BYTES + 1;
        durable = record.index > 0 ? r->durable % record.index : 0;
        if (record.index == 0)
            break;
        memcpy(before, r->agreed.before, SHA256_BYTES);
        record_encode(r, seed, offset, before, &record, crc32c(0, r + 1, record.payload_bytes),
                      durable);
        offset += record_bytes(record.payload_bytes);
    }
}

/* Cuts the file, and puts an empty segment behind it. */
static void follow(struct disk *d, const uint8_t *file, uint64_t first)
{
    static struct segment_header next;
    struct segment s = { .epoch = 2, .first = first };
    char name[SEGMENT_NAME_BYTES];
    uint64_t end = FILE_BYTES;
    uint8_t before[SHA256_BYTES];

    while (end > LOG_ALIGN && record_is_zero(file + end - LOG_ALIGN, LOG_ALIGN))
        end -= LOG_ALIGN;
    test_disk_resize(d, FIRST_NAME, end);
    sha256(before, file + end - LOG_ALIGN + offsetof(struct record_header, agreed),
           sizeof(struct record_agreed), NULL, 0);
    segment_encode(&next, &s, 0, FILE_BYTES, before);
    segment_name(&s, name);
    test_disk_put(d, name, &next, sizeof next);
    test_disk_resize(d, name, FILE_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static uint8_t file[FILE_BYTES] __attribute__((aligned(4096)));
    struct log_config config = fixture_config();
    struct log_verify_report report;
    char error[LOG_ERROR_BYTES];
    struct log *l = NULL;
    uint64_t problems = 0;
    struct disk *d;
    int r;

    if (bytes < 2)
        return 0;
    memset(file, 0, sizeof file);
    memcpy(file, data + 2, bytes - 2 < sizeof file ? bytes - 2 : sizeof file);
    if (data[0] & 1)
        repair(file);
    d = test_disk_make(1);
    test_disk_put(d, FIRST_NAME, file, sizeof file);
    if (data[0] & 2)
        follow(d, file, 2 + (data[0] >> 2));
    if (log_mark_init(d, data[1]) != 0)
        abort();
    r = log_verify_disk(d, ignore_problem, &problems, &report);
    assert((r == 0) == (problems == 0) && problems == report.problems);
    r = log_open(&l, d, &config, &fixture_origin, NULL, NULL, error);
    assert((r == 0) == (l != NULL) && (r == 0 || error[0] != '\0'));
    if (l != NULL) {
        /* What was accepted is accepted again, and nothing is left to cut. */
        uint64_t last = log_last_index(l);

        assert(last >= data[1]);
        log_close(l);
        r = log_open(&l, d, &config, &fixture_origin, NULL, NULL, error);
        assert(r == 0 && log_last_index(l) == last);
        log_close(l);
    }
    test_disk_free(d);
    return 0;
}
