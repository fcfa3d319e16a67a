/*
 * fuzz_twoslot.c - any bytes as the mark: its two slots are used, repaired or refused.
 *
 * byte 0: bit 0: the first slot's CRC is made right, bit 1: the second's; rest: the file.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/hash.h"
#include "cluster/log_private.h"
#include "tests/lib/log_fixture.h"
#include "tests/lib/test_disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void repair(uint8_t *slot)
{
    uint32_t crc;

    memset(slot + 4, 0, 4);
    crc = crc32c(0, slot, 4096);
    memcpy(slot + 4, &crc, 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct log_config config = fixture_config();
    uint8_t file[8192] = { 0 };
    char error[LOG_ERROR_BYTES];
    struct mark peeked = { 0 }, opened = { 0 }, again = { 0 };
    struct log *l = NULL;
    struct twoslot t;
    struct disk *d;
    int r, p;

    if (bytes < 1)
        return 0;
    memcpy(file, data + 1, bytes - 1 < sizeof file ? bytes - 1 : sizeof file);
    for (int i = 0; i < 2; i++)
        if (data[0] & (1 << i))
            repair(file + 4096 * i);
    d = test_disk_make(1);
    test_disk_put(d, SEGMENT_MARK, file, bytes - 1 < sizeof file ? bytes - 1 : sizeof file);
    p = twoslot_peek(d, SEGMENT_MARK, MARK_MAGIC, &peeked, sizeof peeked);
    r = twoslot_open(&t, d, SEGMENT_MARK, MARK_MAGIC, &opened, sizeof opened);
    assert((p < 0) == (r < 0) && (r >= 0 || r == -EILSEQ));
    if (r >= 0) {
        assert(memcmp(&peeked, &opened, sizeof opened) == 0);
        twoslot_close(&t);
        r = twoslot_open(&t, d, SEGMENT_MARK, MARK_MAGIC, &again, sizeof again);
        assert(r == 0 && memcmp(&again, &opened, sizeof opened) == 0);
        twoslot_close(&t);
    }
    r = log_open(&l, d, &config, &fixture_origin, NULL, NULL, error);
    assert((r == 0) == (l != NULL));
    log_close(l);
    test_disk_free(d);
    return 0;
}
