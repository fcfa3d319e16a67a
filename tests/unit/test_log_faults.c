/*
 * test_log_faults.c - a scripted run of the log on a disk that fails at every single operation.
 *
 * The script appends (several writes in flight), falls idle (mark), seals, rolls, truncates within
 * a segment and across one. The model knows what was appended and what was reported durable. After
 * a fault the log is opened again, and has to hold an exact prefix of what was appended, with all
 * that was reported.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/log_private.h"
#include "tests/lib/log_fixture.h"
#include "tests/lib/test_disk.h"

#define RECORDS_MAX 128
#define WRITES_ALL  256

struct wanted {
    uint64_t term;
    uint32_t type, bytes, salt;
};

struct run {
    struct disk *disk;
    struct log *log;
    char error[LOG_ERROR_BYTES];
    /* The model. */
    struct wanted wanted[RECORDS_MAX + 1];
    uint64_t appended, reported;
    uint64_t cutting; /* a log_truncate() from here was under way */
    bool failed;
    uint64_t replayed;
    uint32_t salt;
    struct fixture_write *write[WRITES_ALL];
    size_t writes;
};

static int on_replay(void *arg, const struct log_record *r, const void *payload)
{
    struct run *run = arg;
    const struct wanted *w = &run->wanted[r->index];

    assert_int_equal(r->index, run->replayed + 1);
    assert_true(r->index <= run->appended);
    assert_int_equal(r->term, w->term);
    assert_int_equal(r->type, w->type);
    assert_int_equal(r->payload_bytes, w->bytes);
    assert_int_equal(r->time_ns, r->index * 1000);
    assert_true(fixture_payload_is(payload, w->bytes, r->index, w->salt));
    run->replayed++;
    return 0;
}

static int run_open(struct run *run)
{
    struct log_config config = fixture_config();

    run->replayed = 0;
    run->log = NULL;
    return log_open(&run->log, run->disk, &config, &fixture_origin, on_replay, run, run->error);
}

static void run_close(struct run *run)
{
    log_close(run->log);
    run->log = NULL;
    for (size_t i = 0; i < run->writes; i++)
        fixture_write_free(run->write[i]);
    run->writes = 0;
}

static void run_init(struct run *run, uint64_t seed)
{
    *run = (struct run){ .disk = test_disk_make(seed) };
}

static void run_fini(struct run *run)
{
    run_close(run);
    test_disk_free(run->disk);
}

static struct run *current;

static void on_done(struct log_write *w)
{
    assert_false(current->failed);
    assert_int_equal(w->record.index, current->reported + 1);
    current->reported = w->record.index;
}

static bool note(struct run *run, int r)
{
    if (r < 0)
        run->failed = true;
    return r >= 0;
}

static bool append(struct run *run, uint64_t term, uint32_t type, uint32_t bytes)
{
    struct fixture_write *f;

    if (!note(run, fixture_reserve(run->log, bytes)))
        return false;
    f = fixture_write_make(run->appended + 1, term, type, bytes, ++run->salt);
    f->write.done = on_done;
    assert_true(run->writes < WRITES_ALL && run->appended < RECORDS_MAX);
    run->write[run->writes++] = f;
    current = run;
    if (!note(run, log_append(run->log, &f->write)))
        return false;
    run->appended++;
    run->wanted[run->appended] = (struct wanted){ term, type, bytes, run->salt };
    return true;
}

static bool drain(struct run *run)
{
    while (run->reported < run->appended)
        if (!note(run, fixture_turn(run->log)))
            return false;
    return true;
}

/* Several in flight at a time. */
static bool burst(struct run *run, uint64_t term, int n, uint32_t bytes)
{
    for (int i = 0; i < n; i++) {
        if (!append(run, term, LOG_EVENTS, bytes + (uint32_t)i * 700))
            return false;
        if (i % 5 == 4 && !note(run, fixture_turn(run->log)))
            return false;
    }
    return true;
}

static bool idle(struct run *run)
{
    bool ok = drain(run);

    for (int i = 0; ok && i < 25; i++)
        ok = note(run, fixture_turn(run->log));
    return ok;
}

static bool cut(struct run *run, uint64_t from)
{
    if (!drain(run))
        return false;
    run->cutting = from;
    run->reported = from - 1;
    if (!note(run, log_truncate(run->log, from)))
        return false;
    run->cutting = 0;
    run->appended = from - 1;
    return true;
}

static bool script(struct run *run)
{
    const uint64_t t = FIXTURE_TERM, later = 4ull << 20;

    current = run;
    return burst(run, t, 7, 3000) && idle(run) && burst(run, t, 6, 150000) &&
           append(run, t + 1, LOG_SEAL, 0) && burst(run, t + 1, 5, 100) && cut(run, 17) &&
           burst(run, t + 2, 6, 200000) && cut(run, 12) && burst(run, later, 9, 5000) &&
           idle(run) && cut(run, 14) && append(run, later + 1, LOG_BARRIER, 0) && drain(run);
}

/* What a start has found is what the model allows. */
static void check_found(struct run *run)
{
    uint64_t last = log_last_index(run->log);

    assert_int_equal(last, run->replayed);
    assert_int_equal(last, log_persisted_index(run->log));
    if (run->cutting != 0) {
        assert_true(last == run->appended || last == run->cutting - 1);
    } else {
        assert_true(last >= run->reported);
        assert_true(last <= run->appended);
    }
    run->appended = run->reported = last;
    run->cutting = 0;
    run->failed = false;
}

static void must_open(struct run *run)
{
    int r = run_open(run);

    if (r != 0)
        fail_msg("refused: %s", run->error);
    check_found(run);
}

/* The log goes on, and what it then holds survives one more power cut. */
static void check_goes_on(struct run *run, uint64_t seed)
{
    const uint64_t term = 6ull << 20;

    current = run;
    assert_true(append(run, term, LOG_EVENTS, 9000) && append(run, term, LOG_SEAL, 0) &&
                append(run, term + 1, LOG_EVENTS, 100) && drain(run));
    test_disk_power_cut(run->disk);
    run_close(run);
    test_disk_power_on(run->disk, seed);
    must_open(run);
}

static uint64_t operations_of_script(uint64_t seed)
{
    struct run run;
    uint64_t n;

    run_init(&run, seed);
    assert_int_equal(run_open(&run), 0);
    assert_true(script(&run));
    run_close(&run);
    n = test_disk_operations(run.disk);
    run_fini(&run);
    return n;
}

/* Runs the script with the power going at operation `at`, up to the power being on again. */
static void crash_at(struct run *run, uint64_t seed, uint64_t at)
{
    run_init(run, seed);
    test_disk_fault_at(run->disk, at, TEST_DISK_POWER_CUT, 0, 0);
    if (run_open(run) == 0)
        script(run);
    test_disk_power_cut(run->disk);
    run_close(run);
    test_disk_power_on(run->disk, seed * 77 + at);
}

/* All of them with SLUICE_MODE=full, half otherwise. */
static uint64_t seeds(uint64_t full)
{
    const char *mode = getenv("SLUICE_MODE");

    return mode != NULL && strcmp(mode, "full") == 0 ? full : (full + 1) / 2;
}

static void a_power_cut_at_any_operation_loses_nothing_reported(void **state)
{
    struct run run;

    for (uint64_t seed = 1; seed <= seeds(6); seed++) {
        uint64_t n = operations_of_script(seed);

        for (uint64_t at = 0; at <= n; at++) {
            crash_at(&run, seed, at);
            must_open(&run);
            check_goes_on(&run, seed);
            run_fini(&run);
        }
    }
}

static void a_power_cut_during_recovery_changes_nothing_of_that(void **state)
{
    struct run run;

    for (uint64_t seed = 21; seed <= 20 + seeds(2); seed++) {
        uint64_t n = operations_of_script(seed);

        for (uint64_t at = 0; at <= n; at++) {
            bool hit = true;

            for (uint64_t again = 0; hit; again++) {
                crash_at(&run, seed, at);
                test_disk_fault_at(run.disk, test_disk_operations(run.disk) + again,
                                   TEST_DISK_POWER_CUT, 0, 0);
                hit = run_open(&run) != 0;
                if (hit) {
                    assert_true(test_disk_is_off(run.disk));
                    test_disk_power_on(run.disk, seed + again);
                    must_open(&run);
                } else {
                    check_found(&run);
                    test_disk_fault_at(run.disk, TEST_DISK_NEVER, TEST_DISK_ERROR, 0, 0);
                }
                if (again % 3 == 0 || !hit)
                    check_goes_on(&run, seed);
                run_fini(&run);
            }
        }
    }
}

static void check_is_final(struct run *run, int error)
{
    struct fixture_write *f = fixture_write_make(run->appended + 1, 9ull << 20, LOG_EVENTS, 10, 1);
    uint64_t reported = run->reported;

    for (int i = 0; i < 20; i++)
        assert_int_equal(fixture_turn(run->log), error);
    assert_int_equal(log_reserve(run->log, 10), error);
    assert_int_equal(log_append(run->log, &f->write), error);
    assert_int_equal(log_truncate(run->log, 1), error);
    assert_int_equal(run->reported, reported);
    fixture_write_free(f);
}

static void an_error_at_any_operation_is_final_and_nothing_is_reported_after_it(void **state)
{
    struct run run;
    int finals = 0;

    for (uint64_t seed = 31; seed <= 30 + seeds(4); seed++) {
        uint64_t n = operations_of_script(seed);

        for (uint64_t at = 0; at < n; at++) {
            run_init(&run, seed);
            test_disk_fault_at(run.disk, at, TEST_DISK_ERROR, -EIO, 0);
            if (run_open(&run) == 0 && !script(&run)) {
                check_is_final(&run, -EIO);
                finals++;
            }
            run_close(&run);
            must_open(&run);
            check_goes_on(&run, seed);
            run_fini(&run);
        }
    }
    assert_true(finals > 25 * (int)seeds(4)); /* 100 with all seeds, as before they were halved */
}

/* --- damage at rest --------------------------------------------------------------------------- */

/* Three segments, closed, so that the mark says all. */
static void make_closed(struct run *run)
{
    run_init(run, 5);
    assert_int_equal(run_open(run), 0);
    current = run;
    assert_true(burst(run, FIXTURE_TERM, 5, 3000) && append(run, FIXTURE_TERM, LOG_SEAL, 0) &&
                burst(run, FIXTURE_TERM, 4, 240000) && burst(run, FIXTURE_TERM, 6, 20000) &&
                drain(run));
    run_close(run);
    assert_non_null(strstr(test_disk_name(run->disk, 2), ".seg"));
}

static void must_refuse(struct run *run, const char *says)
{
    uint32_t before = test_disk_digest(run->disk);
    int r = run_open(run);

    if (r == 0)
        fail_msg("accepted up to record %llu", (unsigned long long)log_last_index(run->log));
    assert_int_equal(r, -EILSEQ);
    if (strstr(run->error, says) == NULL)
        fail_msg("says: %s", run->error);
    assert_int_equal(before, test_disk_digest(run->disk));
}

/* Where the content of a segment ends. */
static uint64_t content_end(const uint8_t *p, uint64_t bytes)
{
    while (bytes > 0 && p[bytes - 1] == 0)
        bytes--;
    return (bytes + LOG_ALIGN - 1) / LOG_ALIGN * LOG_ALIGN;
}

static void a_flipped_bit_in_any_piece_is_refused_once_the_mark_is_written(void **state)
{
    struct run run;
    uint64_t bytes, end;
    int flips = 0;

    make_closed(&run);
    for (size_t i = 0; i < 3; i++) {
        uint8_t *p = test_disk_bytes(run.disk, test_disk_name(run.disk, i), &bytes);

        end = content_end(p, bytes);
        for (uint64_t at = 0; at < end; at += 512, flips++) {
            uint64_t where = at + (at / 512 * 37) % 512;
            uint8_t bit = (uint8_t)(1 << (at / 512 % 8));

            p[where] ^= bit;
            must_refuse(&run, ".seg, offset ");
            p[where] ^= bit;
        }
    }
    assert_true(flips > 2000);
    must_open(&run);
    assert_int_equal(run.appended, 16);
    run_fini(&run);
}

static void a_flipped_bit_in_one_copy_of_the_mark_is_repaired_in_both_is_refused(void **state)
{
    struct run run;
    uint8_t *p;

    make_closed(&run);
    must_open(&run); /* removes the prepared segment, which would count as a difference */
    run_close(&run);
    p = test_disk_bytes(run.disk, "mark", NULL);
    for (size_t at = 0; at < 8192; at += 512) {
        uint32_t good = test_disk_digest(run.disk);

        p[at] ^= 4;
        must_open(&run);
        run_close(&run);
        assert_int_equal(good, test_disk_digest(run.disk));
    }
    p[1] ^= 1;
    p[4096 + 4] ^= 1;
    must_refuse(&run, "both copies of the mark");
    run_fini(&run);
}

static void a_missing_segment_is_refused(void **state)
{
    const char *says[] = { "is missing", "is missing", "vanished", "is missing" };

    for (size_t i = 0; i < 3; i++) {
        struct run run;
        char name[64];

        make_closed(&run);
        strcpy(name, test_disk_name(run.disk, i));
        test_disk_drop(run.disk, name);
        must_refuse(&run, says[i == 2 ? 3 : i]);
        while (strstr(test_disk_name(run.disk, 0), ".seg") != NULL) {
            strcpy(name, test_disk_name(run.disk, 0));
            test_disk_drop(run.disk, name);
        }
        must_refuse(&run, "vanished");
        run_fini(&run);
    }
}

static void a_missing_mark_is_refused(void **state)
{
    struct run run;

    make_closed(&run);
    test_disk_drop(run.disk, "mark");
    must_refuse(&run, "mark is missing");
    assert_int_equal(log_mark_init(run.disk, 16), 0);
    assert_int_equal(log_mark_init(run.disk, 16), -EEXIST);
    must_open(&run);
    run_fini(&run);
}

static void a_shortened_or_stretched_segment_is_refused(void **state)
{
    const uint64_t sizes[] = { 0, 512, 4096, 8192, 500000, (1u << 20) - 4096, (1u << 20) + 4096 };

    for (size_t i = 0; i < 3; i++)
        for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
            struct run run;

            make_closed(&run);
            test_disk_resize(run.disk, test_disk_name(run.disk, i), sizes[k]);
            must_refuse(&run, ".seg, offset 0");
            run_fini(&run);
        }
}

static void a_sealed_segment_may_have_its_full_length_or_end_with_the_seal(void **state)
{
    struct run run;
    uint64_t bytes;
    uint8_t *p;

    make_closed(&run);
    p = test_disk_bytes(run.disk, test_disk_name(run.disk, 0), &bytes);
    assert_int_equal(bytes, content_end(p, bytes)); /* was cut */
    assert_int_equal(bytes, 40960);
    must_open(&run);
    assert_int_equal(log_disk_bytes(run.log), bytes + (2u << 20));
    run_close(&run);
    test_disk_resize(run.disk, test_disk_name(run.disk, 0), 1u << 20);
    must_open(&run);
    assert_int_equal(run.appended, 16);
    run_close(&run);
    /* Cut behind another record. */
    test_disk_resize(run.disk, test_disk_name(run.disk, 0), bytes - 4096);
    must_refuse(&run, "offset 0, record 1: the file is not as long");
    run_fini(&run);
}

static void the_last_segment_must_not_be_cut_behind_its_seal(void **state)
{
    struct run run;
    uint64_t bytes;
    const char *name;
    uint8_t *p;

    run_init(&run, 5);
    assert_int_equal(run_open(&run), 0);
    current = &run;
    assert_true(burst(&run, FIXTURE_TERM, 5, 3000) && append(&run, FIXTURE_TERM, LOG_SEAL, 0) &&
                drain(&run));
    run_close(&run);
    name = test_disk_name(run.disk, 0);
    p = test_disk_bytes(run.disk, name, &bytes);
    assert_int_equal(bytes, 1u << 20); /* nothing has begun behind it */
    test_disk_resize(run.disk, name, content_end(p, bytes));
    must_refuse(&run, "the file is not as long");
    test_disk_resize(run.disk, name, 1u << 20);
    must_open(&run);
    /* An append behind it makes it one that is not the last, and it is cut. */
    assert_true(append(&run, FIXTURE_TERM, LOG_BARRIER, 0) && drain(&run));
    test_disk_bytes(run.disk, test_disk_name(run.disk, 0), &bytes);
    assert_int_equal(bytes, 40960);
    /* The last again by a truncation, it has its length back. */
    assert_int_equal(log_truncate(run.log, 7), 0);
    test_disk_bytes(run.disk, test_disk_name(run.disk, 0), &bytes);
    assert_int_equal(bytes, 1u << 20);
    run.appended = run.reported = 6;
    run_close(&run);
    must_open(&run);
    assert_true(append(&run, FIXTURE_TERM, LOG_BARRIER, 0) && drain(&run));
    assert_int_equal(log_disk_bytes(run.log), 40960 + (1u << 20));
    /* Into it, when there is no space for what it gave away: nothing is changed. */
    test_disk_set_free(run.disk, 900000);
    assert_int_equal(log_cut_room(run.log, 3), -ENOSPC);
    assert_int_equal(log_cut_room(run.log, 8), 0); /* nothing to fill up */
    assert_int_equal(log_truncate(run.log, 3), -ENOSPC);
    assert_int_equal(log_last_index(run.log), 7);
    test_disk_set_free(run.disk, 1 << 24);
    assert_int_equal(log_cut_room(run.log, 3), 0);
    assert_int_equal(log_truncate(run.log, 3), 0);
    run.appended = run.reported = 2;
    assert_true(burst(&run, FIXTURE_TERM, 3, 100) && drain(&run));
    run_close(&run);
    must_open(&run);
    assert_int_equal(run.appended, 5);
    run_fini(&run);
}

static void swapped_renamed_and_duplicated_segments_are_refused(void **state)
{
    struct run run;
    char a[64], b[64];
    uint64_t bytes;

    make_closed(&run);
    strcpy(a, test_disk_name(run.disk, 0));
    strcpy(b, test_disk_name(run.disk, 1));
    test_disk_move(run.disk, a, "x");
    test_disk_move(run.disk, b, a);
    test_disk_move(run.disk, "x", b);
    must_refuse(&run, "name does not match");
    run_fini(&run);

    make_closed(&run);
    test_disk_put(run.disk, "0000000000000003-0000000000000001.seg",
                  test_disk_bytes(run.disk, a, &bytes), 1u << 20);
    must_refuse(&run, "second segment");
    run_fini(&run);

    make_closed(&run);
    test_disk_put(run.disk, "0000000000000002-00000000000000001.seg", NULL, 0);
    must_refuse(&run, "not the name of a segment");
    run_fini(&run);
}

static void an_old_copy_of_the_last_segment_is_refused(void **state)
{
    struct run run;
    static uint8_t old[1 << 20];
    char name[64];

    run_init(&run, 8);
    assert_int_equal(run_open(&run), 0);
    assert_true(burst(&run, FIXTURE_TERM, 5, 3000) && drain(&run));
    strcpy(name, test_disk_name(run.disk, 0));
    memcpy(old, test_disk_bytes(run.disk, name, NULL), sizeof old);
    assert_true(burst(&run, FIXTURE_TERM, 5, 3000) && drain(&run));
    run_close(&run);
    test_disk_put(run.disk, name, old, sizeof old);
    must_refuse(&run, "record 6: the record is missing");
    run_fini(&run);
}

static void what_an_interrupted_preparation_left_is_removed(void **state)
{
    struct run run;

    make_closed(&run);
    test_disk_drop(run.disk, "next.tmp");
    test_disk_put(run.disk, "next.tmp", NULL, 4096);
    must_open(&run);
    assert_null(test_disk_bytes(run.disk, "next.tmp", NULL));
    check_goes_on(&run, 1);
    run_fini(&run);
}

/* --- lost and misdirected writes -------------------------------------------------------------- */

static void lying_disk(enum test_disk_fault fault, int64_t shift)
{
    int refused = 0;

    for (uint64_t back = 1; back <= 6; back++) {
        struct run run;

        run_init(&run, 3);
        assert_int_equal(run_open(&run), 0);
        assert_true(burst(&run, FIXTURE_TERM, 4, 3000) && idle(&run));
        /* The next operations are the writes of these records. */
        test_disk_fault_at(run.disk, test_disk_operations(run.disk) + back - 1, fault, 0, shift);
        assert_true(burst(&run, FIXTURE_TERM, 6, 100) && drain(&run));
        run_close(&run);
        must_refuse(&run, "rot and not a torn write");
        refused++;
        run_fini(&run);
    }
    assert_int_equal(refused, 6);
}

static void a_write_that_the_disk_swallowed_is_found(void **state)
{
    lying_disk(TEST_DISK_SWALLOW, 0);
}

static void a_write_that_went_elsewhere_is_found(void **state)
{
    lying_disk(TEST_DISK_MISDIRECT, 65536);
}

static void a_later_record_proves_rot_without_the_mark(void **state)
{
    struct run run;

    run_init(&run, 3);
    assert_int_equal(run_open(&run), 0);
    for (int i = 0; i < 4; i++)
        assert_true(append(&run, FIXTURE_TERM, LOG_EVENTS, 100) && drain(&run));
    test_disk_power_cut(run.disk);
    run_close(&run);
    test_disk_power_on(run.disk, 1);
    test_disk_bytes(run.disk, test_disk_name(run.disk, 0), NULL)[4096 * 2 + 200] ^= 1;
    must_refuse(&run, "a later record says 3");
    run_fini(&run);
}

static void what_cannot_be_read_counts_as_bad(void **state)
{
    struct run run;
    char last[64];

    make_closed(&run);
    strcpy(last, test_disk_name(run.disk, 2));
    test_disk_unreadable(run.disk, last, 8192, 4096);
    must_refuse(&run, "rot and not a torn write");
    test_disk_unreadable(run.disk, last, 0, 4096);
    must_refuse(&run, "segment header cannot be read");
    /* Behind the end: it never held anything. */
    test_disk_unreadable(run.disk, last, 900000 / 4096 * 4096, 4096);
    must_open(&run);
    assert_int_equal(run.appended, 16);
    run_fini(&run);
}

/* --- a full disk ------------------------------------------------------------------------------ */

static void wait_for(struct run *run, int wanted)
{
    for (int i = 0; i < 1000 && log_reserve(run->log, 100) != wanted; i++)
        assert_true(fixture_turn(run->log) >= 0);
    assert_int_equal(log_reserve(run->log, 100), wanted);
}

static void a_full_disk_refuses_before_the_append_and_recovers_by_itself(void **state)
{
    struct run run;

    run_init(&run, 3);
    test_disk_fail_file(run.disk, "next.tmp", -ENOSPC);
    assert_int_equal(run_open(&run), 0);
    wait_for(&run, -ENOSPC);
    assert_null(test_disk_bytes(run.disk, "next.tmp", NULL));
    assert_true(log_deadline_ns(run.log) != UINT64_MAX);
    test_disk_fail_file(run.disk, NULL, 0);
    wait_for(&run, 0);
    assert_true(burst(&run, FIXTURE_TERM, 3, 100) && drain(&run));
    /* The prepared segment holds the space that appends need: only the next one is refused. */
    test_disk_set_free(run.disk, 0);
    assert_true(append(&run, FIXTURE_TERM, LOG_SEAL, 0) && drain(&run));
    assert_true(burst(&run, FIXTURE_TERM, 3, 100) && append(&run, FIXTURE_TERM, LOG_SEAL, 0));
    assert_true(drain(&run));
    wait_for(&run, -ENOSPC);
    assert_int_equal(log_cut_room(run.log, 2), -ENOSPC);
    test_disk_set_free(run.disk, 1 << 24);
    /* Who is told so by this must not be told otherwise by the next append. */
    assert_int_equal(log_cut_room(run.log, 2), 0);
    assert_int_equal(log_reserve(run.log, 100), -EAGAIN);
    wait_for(&run, 0);
    assert_true(burst(&run, FIXTURE_TERM, 3, 100) && drain(&run));
    run_close(&run);
    must_open(&run);
    assert_int_equal(run.appended, 11);
    run_fini(&run);
}

static void nothing_is_reported_while_the_disk_stalls(void **state)
{
    struct run run;

    run_init(&run, 3);
    assert_int_equal(run_open(&run), 0);
    assert_true(burst(&run, FIXTURE_TERM, 3, 100) && idle(&run));
    test_disk_stall(run.disk, true);
    assert_true(burst(&run, FIXTURE_TERM, 16, 100));
    for (int i = 0; i < 50; i++)
        assert_true(fixture_turn(run.log) >= 0);
    assert_int_equal(run.reported, 3);
    assert_int_equal(log_reserve(run.log, 100), -EAGAIN);
    test_disk_stall(run.disk, false);
    assert_true(drain(&run));
    run_fini(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_power_cut_at_any_operation_loses_nothing_reported),
        cmocka_unit_test(a_power_cut_during_recovery_changes_nothing_of_that),
        cmocka_unit_test(an_error_at_any_operation_is_final_and_nothing_is_reported_after_it),
        cmocka_unit_test(a_flipped_bit_in_any_piece_is_refused_once_the_mark_is_written),
        cmocka_unit_test(a_flipped_bit_in_one_copy_of_the_mark_is_repaired_in_both_is_refused),
        cmocka_unit_test(a_missing_segment_is_refused),
        cmocka_unit_test(a_missing_mark_is_refused),
        cmocka_unit_test(a_shortened_or_stretched_segment_is_refused),
        cmocka_unit_test(a_sealed_segment_may_have_its_full_length_or_end_with_the_seal),
        cmocka_unit_test(the_last_segment_must_not_be_cut_behind_its_seal),
        cmocka_unit_test(swapped_renamed_and_duplicated_segments_are_refused),
        cmocka_unit_test(an_old_copy_of_the_last_segment_is_refused),
        cmocka_unit_test(what_an_interrupted_preparation_left_is_removed),
        cmocka_unit_test(a_write_that_the_disk_swallowed_is_found),
        cmocka_unit_test(a_write_that_went_elsewhere_is_found),
        cmocka_unit_test(a_later_record_proves_rot_without_the_mark),
        cmocka_unit_test(what_cannot_be_read_counts_as_bad),
        cmocka_unit_test(a_full_disk_refuses_before_the_append_and_recovers_by_itself),
        cmocka_unit_test(nothing_is_reported_while_the_disk_stalls),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
