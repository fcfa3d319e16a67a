/*
 * test_log_reader.c - a reader beside a log whose end is cut and written again: what it has read
 * ahead is never given for what is there now.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "tests/lib/log_fixture.h"

#define RECORDS_MAX 400u

static char dir[FIXTURE_DIR_BYTES];
static struct disk *disk;
static struct log *owner;
static struct log_reader *reader;
static uint8_t *buf;
static uint32_t salts[RECORDS_MAX]; /* which of the records that had this index */
static uint32_t salt;
static uint64_t seed;

static int replay(void *arg, const struct log_record *r, const void *payload)
{
    return (void)arg, (void)r, (void)payload, 0;
}

static int setup(void **state)
{
    struct log_config config = fixture_config();
    char error[LOG_ERROR_BYTES];

    (void)state;
    fixture_dir_make(dir);
    seed = 1;
    salt = 0;
    buf = aligned_alloc(LOG_ALIGN, LOG_RECORD_BYTES_MAX);
    assert_non_null(buf);
    assert_int_equal(disk_uring_open(&disk, dir, 32), 0);
    assert_int_equal(log_open(&owner, disk, &config, &fixture_origin, replay, NULL, error), 0);
    assert_int_equal(log_reader_open(&reader, dir), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    log_reader_close(reader);
    log_close(owner);
    disk->ops->fini(disk);
    free(buf);
    fixture_dir_remove(dir);
    return 0;
}

static uint64_t draw(uint64_t below)
{
    uint64_t z = (seed += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    return (z ^ (z >> 27)) % below;
}

static void append(uint64_t n, uint32_t bytes)
{
    for (; n > 0; n--) {
        assert_int_equal(fixture_append(owner, FIXTURE_TERM, LOG_EVENTS, bytes, ++salt), 0);
        salts[log_last_index(owner)] = salt;
    }
}

static void get(uint64_t index)
{
    struct log_record record;
    const void *payload;
    int e = log_reader_get(reader, index, buf, LOG_RECORD_BYTES_MAX, &record, &payload);

    if (e < 0)
        fail_msg("record %llu: %s", (unsigned long long)index, strerror(-e));
    assert_int_equal(record.index, index);
    if (!fixture_payload_is(payload, record.payload_bytes, index, salts[index]))
        fail_msg("record %llu is one that was cut", (unsigned long long)index);
    assert_int_equal(log_reader_crc(buf), crc32c(0, payload, record.payload_bytes));
}

static void what_was_read_ahead_and_cut_is_not_given(void **state)
{
    (void)state;
    append(10, 1000);
    log_reader_bound(reader, 5);
    for (uint64_t i = 1; i <= 5; i++)
        get(i); /* all ten are in memory now, and the CRCs are right */
    assert_int_equal(log_truncate(owner, 6), 0);
    append(5, 1000);
    log_reader_bound(reader, 10);
    for (uint64_t i = 6; i <= 10; i++)
        get(i);
}

static void what_lies_at_other_places_than_before_is_found(void **state)
{
    (void)state;
    append(10, 9000);
    log_reader_bound(reader, 5);
    for (uint64_t i = 1; i <= 5; i++)
        get(i);
    assert_int_equal(log_truncate(owner, 6), 0);
    append(20, 2000);
    log_reader_bound(reader, 25);
    for (uint64_t i = 6; i <= 25; i++)
        get(i);
}

static void who_tells_no_bound_reads_every_record_anew(void **state)
{
    (void)state;
    append(10, 1000);
    for (uint64_t i = 1; i <= 10; i++)
        get(i);
    assert_int_equal(log_truncate(owner, 6), 0);
    append(5, 1000);
    for (uint64_t i = 6; i <= 10; i++)
        get(i);
}

/* As tail and get ask: in order, and here and there, while the log goes on and is cut. */
static void through_many_cuts_only_what_is_committed_is_given(void **state)
{
    uint64_t committed = 0, next = 1, cuts = 0;

    (void)state;
    while (log_last_index(owner) < RECORDS_MAX - 20) {
        append(1 + draw(8), draw(4) == 0 ? 60000 : (uint32_t)draw(9000));
        if (draw(3) == 0)
            committed += draw(log_last_index(owner) - committed + 1);
        if (committed > 0)
            log_reader_bound(reader, committed);
        for (uint64_t n = draw(12); n > 0 && next <= committed; n--)
            get(next++);
        if (committed > 0 && draw(2) == 0)
            get(1 + draw(committed));
        if (draw(2) == 0 && log_last_index(owner) > committed) {
            assert_int_equal(
                log_truncate(owner, committed + 1 + draw(log_last_index(owner) - committed)), 0);
            cuts++;
        }
    }
    assert_true(cuts > 30 && next > 100);
}

#define UNIT(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT(what_was_read_ahead_and_cut_is_not_given),
        UNIT(what_lies_at_other_places_than_before_is_found),
        UNIT(who_tells_no_bound_reads_every_record_anew),
        UNIT(through_many_cuts_only_what_is_committed_is_given),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
