/*
 * test_log_repair.c - rot in the log, wherever it is, is mended with the records of another log:
 * bytes are flipped, files dropped, cut and exchanged, and the power goes at every operation of the
 * mending. The other log is a second one of the same content, or, where it has to differ, not.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/log_private.h"
#include "tests/lib/log_fixture.h"
#include "tests/lib/test_disk.h"

#define ROUNDS_MAX 64

static struct disk *disk, *other;
static uint64_t replayed, records;
static uint8_t digest[SHA256_BYTES];
static void *buf;

static int count(void *arg, const struct log_record *r, const void *payload)
{
    (void)arg, (void)payload;
    assert_int_equal(r->index, replayed + 1);
    replayed = r->index;
    return 0;
}

static int open_log(struct disk *d, struct log **ret, struct log_damage *damage)
{
    struct log_config config = fixture_config();
    char error[LOG_ERROR_BYTES];

    replayed = 0;
    return log_open_damage(ret, d, &config, &fixture_origin, count, NULL, error, damage);
}

/* A sealed segment, a full one, a sealed one of a later epoch, and a last one with small and large
 * records. salt: of the records from `from` on. Ends with the mark written. */
static void make_log(struct disk *d, uint64_t from, uint32_t salt, uint64_t term, unsigned more)
{
    struct log_damage damage;
    struct log *l;

    assert_int_equal(open_log(d, &l, &damage), 0);
    for (unsigned i = 0; log_last_index(l) < 34 + more; i++) {
        uint64_t index = log_last_index(l) + 1;
        uint32_t bytes = index % 2 == 0 ? 120000 : 700 * (uint32_t)index;
        uint64_t t = index < 20 ? FIXTURE_TERM : FIXTURE_TERM + (3ull << 20);
        uint32_t type = index == 9 || index == 24 ? LOG_SEAL : LOG_EVENTS;

        assert_int_equal(fixture_append(l, index < from ? t : term, type,
                                        type == LOG_SEAL ? 0 : bytes, index < from ? 1 : salt),
                         0);
    }
    records = log_last_index(l);
    log_digest(l, digest);
    log_close(l);
}

static int setup(void **state)
{
    (void)state;
    disk = test_disk_make(1);
    other = test_disk_make(2);
    buf = aligned_alloc(LOG_ALIGN, LOG_RECORD_BYTES_MAX);
    make_log(disk, UINT64_MAX, 0, 0, 0);
    make_log(other, UINT64_MAX, 0, 0, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_disk_free(disk);
    test_disk_free(other);
    free(buf);
    return 0;
}

/* What the other log has goes in. Returns what the mending returns. */
static int mend(const struct log_damage *m)
{
    struct log_rebuild *r = NULL;
    struct log_reader *reader;
    int e = log_rebuild_open(&r, disk, m);

    assert_int_equal(log_reader_open_on(&reader, other), 0);
    while (e >= 0) {
        const struct record_header *h = buf;
        struct log_record record;
        const void *payload;
        uint64_t next;

        e = log_rebuild_step(r);
        if (e != 0)
            continue;
        next = log_rebuild_next(r);
        if (next == 0)
            break;
        e = log_reader_get(reader, next, buf, LOG_RECORD_BYTES_MAX, &record, &payload);
        assert_int_equal(e, 0);
        e = log_rebuild_add(r, h->agreed.before, &record, payload, h->payload_crc);
    }
    if (e >= 0)
        e = log_rebuild_commit(r);
    log_rebuild_close(r);
    log_reader_close(reader);
    return e;
}

/* Opens, and mends until all is good. Returns how many segments were mended. */
static unsigned mend_all(void)
{
    struct log_damage m;
    struct log *l;
    unsigned n = 0;
    int e;

    while ((e = open_log(disk, &l, &m)) < 0) {
        assert_true(e == -EILSEQ || e == -EUCLEAN);
        assert_int_not_equal(m.first, 0);
        assert_true(n++ < ROUNDS_MAX);
        assert_int_equal(mend(&m), 0);
    }
    log_close(l);
    return n;
}

static void assert_whole(void)
{
    uint8_t found[SHA256_BYTES];
    struct log_damage m;
    struct log *l;

    assert_int_equal(open_log(disk, &l, &m), 0);
    assert_int_equal(log_last_index(l), records);
    assert_int_equal(replayed, records);
    log_digest(l, found);
    assert_memory_equal(found, digest, sizeof digest);
    log_close(l);
}

static const char *segment(unsigned n)
{
    const char *name = test_disk_name(disk, n);

    assert_non_null(name);
    assert_non_null(strstr(name, ".seg"));
    return name;
}

static unsigned segments(void)
{
    unsigned n = 0;
    const char *name;

    while ((name = test_disk_name(disk, n)) != NULL && strstr(name, ".seg") != NULL)
        n++;
    return n;
}

static void flip(const char *name, uint64_t at)
{
    uint64_t bytes;
    uint8_t *p = test_disk_bytes(disk, name, &bytes);

    assert_true(at < bytes);
    p[at] ^= 0x10;
}

/* The place of the last record of a segment, or of the first one. */
static uint64_t record_at(const char *name, bool last)
{
    uint64_t bytes, at = LOG_ALIGN;
    const uint8_t *p = test_disk_bytes(disk, name, &bytes);

    for (uint64_t i = LOG_ALIGN; last && i < bytes; i += LOG_ALIGN) {
        uint32_t magic;

        memcpy(&magic, p + i, sizeof magic);
        if (magic == RECORD_MAGIC)
            at = i;
    }
    return at;
}

static void a_flipped_bit_anywhere_is_mended(void **state)
{
    static const uint64_t places[] = { 0, 20, 40, 4096 + 8, 4096 + 70, 4096 + 170, 20480 + 3 };

    (void)state;
    assert_true(segments() >= 4);
    for (unsigned s = 0; s < segments(); s++) {
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            flip(segment(s), places[i]);
            assert_int_equal(mend_all(), 1);
            assert_whole();
        }
        flip(segment(s), record_at(segment(s), true) + 30);
        assert_int_equal(mend_all(), 1);
        assert_whole();
    }
    for (unsigned s = 0; s < segments(); s++) {
        uint64_t at = record_at(segment(s), false);

        flip(segment(s), 12);
        flip(segment(s), at + 9);
        flip(segment(s), record_at(segment(s), true) + 64);
    }
    assert_true(mend_all() >= segments());
    assert_whole();
}

static void files_that_are_gone_or_cut_are_made_anew(void **state)
{
    uint64_t bytes;

    (void)state;
    for (unsigned s = 0; s < segments(); s++) {
        unsigned n = segments();

        test_disk_drop(disk, segment(s));
        assert_true(mend_all() >= 1);
        assert_int_equal(segments(), n);
        assert_whole();
        test_disk_bytes(disk, segment(s), &bytes);
        test_disk_resize(disk, segment(s), 3 * LOG_ALIGN);
        assert_true(mend_all() >= 1);
        assert_whole();
        test_disk_resize(disk, segment(s), 0);
        assert_true(mend_all() >= 1);
        assert_whole();
    }
    test_disk_drop(disk, segment(1));
    test_disk_drop(disk, segment(1));
    assert_true(mend_all() >= 2);
    assert_whole();
    test_disk_drop(disk, segment(segments() - 1));
    test_disk_drop(disk, segment(segments() - 1));
    assert_true(mend_all() >= 2);
    assert_whole();
}

static void blocks_that_cannot_be_read_are_mended(void **state)
{
    (void)state;
    for (unsigned s = 0; s < segments(); s++) {
        for (uint64_t at = 0; at <= 2 * LOG_ALIGN; at += LOG_ALIGN) {
            struct log_damage m;
            struct log *l;

            test_disk_unreadable(disk, segment(s), at, 1);
            assert_int_equal(open_log(disk, &l, &m), -EILSEQ);
            assert_int_equal(mend(&m), 0);
            test_disk_unreadable(disk, segment(s), 0, 0); /* the new file is elsewhere */
            assert_whole();
        }
    }
}

/* Nothing of what is good is asked for. */
static void only_what_is_bad_is_asked_for(void **state)
{
    struct log_damage m;
    struct log *l;

    (void)state;
    flip(segment(0), record_at(segment(0), false) + 200);
    assert_int_equal(open_log(disk, &l, &m), -EILSEQ);
    assert_int_equal(m.from, 1);
    assert_int_equal(m.to, 1);
    assert_true(m.linked && m.anchored && !m.last);
    flip(segment(0), record_at(segment(0), false) + 200);
    /* In the last segment, with nothing behind: up to the mark. */
    flip(segment(segments() - 1), record_at(segment(segments() - 1), true) + 200);
    assert_int_equal(open_log(disk, &l, &m), -EILSEQ);
    assert_int_equal(m.from, records);
    assert_int_equal(m.to, records);
    assert_true(m.linked && !m.anchored && m.last);
    assert_int_equal(mend_all(), 1);
    assert_whole();
}

/* The rot of the n-th case; returns false behind the last. */
static bool rot(unsigned n)
{
    unsigned last = segments() - 1;

    switch (n) {
    case 0:
        flip(segment(1), record_at(segment(1), false) + 100);
        return true;
    case 1:
        flip(segment(0), 5);
        return true;
    case 2:
        flip(segment(last), record_at(segment(last), true) + 100);
        return true;
    case 3:
        flip(segment(last), record_at(segment(last), false) + 100);
        return true;
    case 4:
        test_disk_drop(disk, segment(last));
        return true;
    case 5:
        test_disk_drop(disk, segment(1));
        return true;
    default:
        return false;
    }
}

static void a_power_cut_at_any_operation_leaves_the_old_file_or_the_new(void **state)
{
    (void)state;
    for (unsigned n = 0; rot(n); n++) {
        bool cut = true;

        assert_true(mend_all() >= 1);
        for (uint64_t at = 0; cut; at++) {
            struct log_damage m, again;
            struct log *l;
            int e;

            /* Each run makes some files: the disk has places for so many. */
            test_disk_free(disk);
            disk = test_disk_make(1000 * n + at);
            make_log(disk, UINT64_MAX, 0, 0, 0);
            rot(n);
            assert_int_equal(open_log(disk, &l, &m), -EILSEQ);
            test_disk_fault_at(disk, test_disk_operations(disk) + at, TEST_DISK_POWER_CUT, 0, 0);
            e = mend(&m);
            cut = test_disk_is_off(disk);
            assert_int_equal(e, cut ? -EIO : 0);
            test_disk_power_cut(disk);
            test_disk_power_on(disk, at);
            e = open_log(disk, &l, &again);
            if (e == 0)
                log_close(l);
            else
                assert_true(e == -EILSEQ && again.from >= m.from);
            assert_true(e == 0 || cut || again.from > m.from);
            mend_all();
            assert_whole();
        }
    }
}

static void an_error_of_the_disk_is_told_and_changes_nothing(void **state)
{
    struct log_damage m;
    struct log *l;
    unsigned failures = 0;

    (void)state;
    flip(segment(1), record_at(segment(1), false) + 100);
    assert_int_equal(open_log(disk, &l, &m), -EILSEQ);
    for (uint64_t at = 0;; at++) {
        test_disk_fault_at(disk, test_disk_operations(disk) + at, TEST_DISK_ERROR, -ENOSPC, 0);
        if (mend(&m) == 0)
            break;
        failures++;
    }
    test_disk_fault_at(disk, TEST_DISK_NEVER, TEST_DISK_ERROR, 0, 0);
    assert_true(failures >= 3);
    assert_whole();
}

/* The file that was being made when the power went is no part of the log. */
static void what_a_mending_left_behind_goes_with_the_next_start(void **state)
{
    (void)state;
    test_disk_put(disk, SEGMENT_REPAIR, NULL, 5 * LOG_ALIGN);
    assert_whole();
    assert_null(test_disk_bytes(disk, SEGMENT_REPAIR, NULL));
}

/* Other records than there were, before the place, at it or behind it, are refused. */
static void records_of_another_log_do_not_get_in(void **state)
{
    static const uint64_t from[] = { 5, 11, 12, 13, 34 };
    struct log_damage m;
    struct log *l;

    (void)state;
    for (size_t i = 0; i < sizeof from / sizeof *from; i++) {
        uint32_t before;

        test_disk_free(other);
        other = test_disk_make(7);
        make_log(other, from[i], 99, FIXTURE_TERM + (3ull << 20), 0);
        if (from[i] == 34)
            continue;
        test_disk_free(disk);
        disk = test_disk_make(8);
        make_log(disk, UINT64_MAX, 0, 0, 0);
        flip(segment(1), record_at(segment(1), false) + 8192); /* in its first or second record */
        assert_int_equal(open_log(disk, &l, &m), -EILSEQ);
        before = test_disk_digest(disk);
        if (from[i] > m.to)
            assert_int_equal(mend(&m), 0);
        else
            assert_int_equal(mend(&m), -EILSEQ);
        if (from[i] <= m.to)
            assert_int_equal(test_disk_digest(disk), before);
    }
}

/* Until what the others have fits: what is here was never committed. */
static void mend_widening(unsigned *ret_widened)
{
    struct log_damage m, wide;
    struct log *l;
    unsigned n = 0;
    int e;

    *ret_widened = 0;
    while ((e = open_log(disk, &l, &m)) < 0) {
        assert_int_equal(e, -EILSEQ);
        assert_int_not_equal(m.first, 0);
        wide = m;
        while ((e = mend(&wide)) == -EILSEQ) {
            assert_true(n++ < ROUNDS_MAX);
            assert_int_equal(log_damage_widen(disk, &fixture_origin, &wide), 0);
            assert_true(wide.to >= m.to && wide.last && wide.first <= m.first);
            (*ret_widened)++;
        }
        assert_int_equal(e, 0);
        assert_true(n++ < ROUNDS_MAX);
    }
    log_close(l);
}

/* This node's records from `from` on are not the ones that were committed. Whatever of them rots,
 * the log then has the committed ones, as far at least as it went. */
static void what_was_never_committed_makes_room(void **state)
{
    static const uint64_t from[] = { 3, 10, 12, 21, 30, 34 };
    unsigned widened, most = 0;

    (void)state;
    for (size_t i = 0; i < sizeof from / sizeof *from; i++) {
        for (unsigned n = 0; rot(n); n++) {
            uint64_t had;

            test_disk_free(disk);
            test_disk_free(other);
            disk = test_disk_make(10 + i);
            other = test_disk_make(20 + n);
            make_log(disk, from[i], 99, FIXTURE_TERM + (3ull << 20), 0);
            had = records;
            make_log(other, from[i], 7, FIXTURE_TERM + (4ull << 20), 8);
            assert_true(rot(n));
            mend_widening(&widened);
            most = widened > most ? widened : most;
            if (widened > 0) {
                struct log_reader *a, *b;
                struct log_record r;
                const void *p;
                uint8_t before[SHA256_BYTES];

                assert_int_equal(log_reader_open_on(&a, disk), 0);
                assert_int_equal(log_reader_open_on(&b, other), 0);
                assert_int_equal(log_reader_get(a, had, buf, LOG_RECORD_BYTES_MAX, &r, &p), 0);
                record_digest(buf, before);
                assert_int_equal(log_reader_get(b, had, buf, LOG_RECORD_BYTES_MAX, &r, &p), 0);
                record_digest(buf, digest);
                assert_memory_equal(before, digest, sizeof digest);
                log_reader_close(a);
                log_reader_close(b);
            }
        }
    }
    assert_true(most >= 2);
}

static void a_look_at_one_segment_finds_its_rot(void **state)
{
    const uint64_t bytes = fixture_config().segment_bytes;
    struct log_damage m;

    (void)state;
    for (uint64_t index = 1; index <= 24; index++)
        assert_int_equal(log_check_segment(disk, index, bytes, NULL, NULL, &m, NULL), 0);
    assert_int_equal(log_check_segment(disk, records, bytes, NULL, NULL, &m, NULL), -ENOENT);
    flip(segment(1), record_at(segment(1), false) + 100);
    assert_int_equal(log_check_segment(disk, 9, bytes, NULL, NULL, &m, NULL), 0);
    assert_int_equal(log_check_segment(disk, 10, bytes, NULL, NULL, &m, NULL), -EILSEQ);
    assert_int_equal(m.from, 10);
    assert_int_equal(mend(&m), 0);
    assert_int_equal(log_check_segment(disk, 10, bytes, NULL, NULL, &m, NULL), 0);
    flip(segment(1), 100);
    assert_int_equal(log_check_segment(disk, 11, bytes, NULL, NULL, &m, NULL), -EILSEQ);
    assert_true(!m.linked && m.anchored);
    assert_int_equal(mend(&m), 0);
    assert_whole();
}

/* Segment 1 of a log that went another way from record `from` on. */
static void put_old_copy(uint64_t from, uint64_t bytes_kept)
{
    struct disk *old = test_disk_make(3);
    char name[SEGMENT_NAME_BYTES];
    uint64_t bytes;
    uint8_t *p;

    snprintf(name, sizeof name, "%s", segment(1));
    make_log(old, from, 7, FIXTURE_TERM, 0);
    p = test_disk_bytes(old, name, &bytes);
    assert_non_null(p);
    assert_true(bytes_kept < bytes);
    if (bytes_kept > 0)
        memset(p + bytes_kept, 0, bytes - bytes_kept);
    test_disk_put(disk, name, p, bytes);
    test_disk_free(old);
    make_log(other, UINT64_MAX, 0, 0, 0); /* for `digest` */
}

static void an_old_copy_of_a_segment_gives_way(void **state)
{
    const uint64_t bytes = fixture_config().segment_bytes;
    struct log_reader *reader;
    struct log_record record;
    struct log_damage m;
    const void *payload;

    (void)state;
    /* With another end: only the segment behind it shows that. */
    put_old_copy(12, 0);
    assert_int_equal(log_check_segment(disk, 10, bytes, NULL, NULL, &m, NULL), -EILSEQ);
    assert_int_equal(m.from, 10);
    assert_true(!m.linked && m.anchored);
    assert_int_equal(mend(&m), 0);
    assert_whole();

    /* Without its end, and what there is was never committed: the rest does not go on from it. */
    put_old_copy(10, record_at(segment(1), true));
    assert_int_equal(log_check_segment(disk, 10, bytes, NULL, NULL, &m, NULL), -EILSEQ);
    assert_true(m.linked && m.from > 10);
    assert_int_equal(log_reader_open_on(&reader, disk), 0);
    assert_int_equal(log_reader_get(reader, m.from, buf, LOG_RECORD_BYTES_MAX, &record, &payload),
                     -EILSEQ);
    log_reader_close(reader);
    assert_int_equal(mend(&m), -EILSEQ);
    assert_int_equal(log_damage_whole(disk, bytes, &m), 0);
    assert_int_equal(m.from, 10);
    assert_int_equal(mend(&m), 0);
    assert_whole();
    assert_int_equal(log_damage_whole(disk, bytes, &m), -ENOENT);
}

static struct log_origin checkpoint_at(uint64_t index)
{
    const struct record_header *h = buf;
    struct log_origin ret = { .index = index };
    struct log_record record;
    struct log_reader *reader;
    const void *payload;

    assert_int_equal(log_reader_open_on(&reader, disk), 0);
    assert_int_equal(log_reader_get(reader, index, buf, LOG_RECORD_BYTES_MAX, &record, &payload),
                     0);
    ret.term = record.term;
    ret.time_ns = record.time_ns;
    assert_int_equal(
        log_reader_get(reader, index + 1, buf, LOG_RECORD_BYTES_MAX, &record, &payload), 0);
    memcpy(ret.digest, h->agreed.before, SHA256_BYTES);
    log_reader_close(reader);
    return ret;
}

/* A start with a checkpoint in the last segment does not know what that one begins with; the first
 * record does. */
static void the_last_header_is_made_anew_with_a_checkpoint_behind_it(void **state)
{
    struct log_config config = fixture_config();
    struct log_origin origin = checkpoint_at(records - 1);
    char error[LOG_ERROR_BYTES];
    struct log_damage m;
    struct log *l;

    (void)state;
    flip(segment(segments() - 1), 100);
    assert_int_equal(log_open_damage(&l, disk, &config, &origin, NULL, NULL, error, &m), -EILSEQ);
    assert_true(m.last && m.linked);
    assert_true(m.from > m.to); /* no record is needed */
    assert_int_equal(mend(&m), 0);
    assert_int_equal(log_open_damage(&l, disk, &config, &origin, NULL, NULL, error, &m), 0);
    log_close(l);
    assert_whole();
}

/* However many of the oldest: a start with a checkpoint behind them does not read them, but the
 * header of what is there says that there was more. */
static void the_oldest_segments_are_missed_behind_a_checkpoint(void **state)
{
    struct log_config config = fixture_config();
    const struct log_origin origin = checkpoint_at(records - 1), early = checkpoint_at(5);
    char error[LOG_ERROR_BYTES];

    (void)state;
    memcpy(config.genesis, fixture_origin.digest, SHA256_BYTES);
    for (unsigned gone = 1; gone < segments(); gone++) {
        struct log_damage m;
        struct log *l;
        unsigned n = 0;

        for (int behind = 0; behind < 2; behind++, n = 0) { /* the checkpoint, of what is gone */
            for (unsigned i = 0; i < gone; i++)
                test_disk_drop(disk, segment(0));
            while (log_open_damage(&l, disk, &config, behind ? &origin : &early, NULL, NULL, error,
                                   &m) == -EILSEQ) {
                assert_true(m.missing && m.linked && m.anchored);
                assert_int_equal(mend(&m), 0);
                assert_true(n++ < gone);
            }
            assert_int_equal(n, gone);
            log_close(l);
            assert_whole();
        }
    }
}

/* A checkpoint at the last record of a segment: a cut just behind it reads that segment, so a start
 * has to as well. One that did not would end at the same cut again and again. */
static void a_start_finds_rot_that_a_cut_behind_the_checkpoint_would_meet(void **state)
{
    struct log_config config = fixture_config();
    struct log_origin origin = checkpoint_at(9);
    char error[LOG_ERROR_BYTES];
    struct log_damage m;
    struct log *l;

    (void)state;
    assert_non_null(strstr(segment(1), "-000000000000000a.seg"));

    flip(segment(0), record_at(segment(0), false) + 100);
    assert_int_equal(log_open_damage(&l, disk, &config, &origin, NULL, NULL, error, &m), -EILSEQ);
    assert_int_equal(m.first, 1);
    assert_int_equal(mend(&m), 0);
    assert_int_equal(log_open_damage(&l, disk, &config, &origin, NULL, NULL, error, &m), 0);
    assert_int_equal(log_truncate(l, 10), 0);
    assert_int_equal(log_last_index(l), 9);
    log_close(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_flipped_bit_anywhere_is_mended, setup, teardown),
        cmocka_unit_test_setup_teardown(files_that_are_gone_or_cut_are_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(blocks_that_cannot_be_read_are_mended, setup, teardown),
        cmocka_unit_test_setup_teardown(only_what_is_bad_is_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(a_power_cut_at_any_operation_leaves_the_old_file_or_the_new,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(an_error_of_the_disk_is_told_and_changes_nothing, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_a_mending_left_behind_goes_with_the_next_start, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(records_of_another_log_do_not_get_in, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_never_committed_makes_room, setup, teardown),
        cmocka_unit_test_setup_teardown(a_look_at_one_segment_finds_its_rot, setup, teardown),
        cmocka_unit_test_setup_teardown(an_old_copy_of_a_segment_gives_way, setup, teardown),
        cmocka_unit_test_setup_teardown(the_last_header_is_made_anew_with_a_checkpoint_behind_it,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(the_oldest_segments_are_missed_behind_a_checkpoint, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            a_start_finds_rot_that_a_cut_behind_the_checkpoint_would_meet, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
