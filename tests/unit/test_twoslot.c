/*
 * test_twoslot.c - a value in two slots survives a cut at any operation and the loss of either
 * slot.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/twoslot.h"
#include "tests/lib/test_disk.h"

#define MAGIC 0x31545354u

struct value {
    uint64_t n;
    uint8_t filling[1000];
};

static struct value make_value(uint64_t n)
{
    struct value v = { .n = n };

    memset(v.filling, (int)n, sizeof v.filling);
    return v;
}

static int open_at(struct twoslot *t, struct disk *d, uint64_t *ret)
{
    struct value v = make_value(1);
    int r = twoslot_open(t, d, "state", MAGIC, &v, sizeof v);

    if (r >= 0) {
        struct value same = make_value(v.n);

        assert_memory_equal(&v, &same, sizeof v);
        *ret = v.n;
    }
    return r;
}

/* Writes 2..6; returns the last that was promised, 0 when not even opening was. */
static uint64_t write_some(struct disk *d)
{
    struct twoslot t;
    uint64_t n = 0;

    if (open_at(&t, d, &n) < 0)
        return 0;
    for (uint64_t next = n + 1; next <= 6; next++) {
        struct value v = make_value(next);

        if (twoslot_write(&t, &v, sizeof v) < 0)
            break;
        n = next;
    }
    twoslot_close(&t);
    return n;
}

static void a_cut_at_any_operation_leaves_the_old_or_the_new_value(void **state)
{
    for (uint64_t seed = 1; seed <= 40; seed++)
        for (uint64_t at = 0; at < 16; at++) {
            struct disk *d = test_disk_make(seed);
            struct twoslot t;
            uint64_t promised, n, again;

            test_disk_fault_at(d, at, TEST_DISK_POWER_CUT, 0, 0);
            promised = write_some(d);
            test_disk_power_cut(d);
            test_disk_power_on(d, seed + at);
            assert_true(open_at(&t, d, &n) >= 0);
            assert_true(n == promised || n == promised + 1);
            twoslot_close(&t);
            /* What was read once is in both slots by then. */
            memset(test_disk_bytes(d, "state", NULL) + (seed % 2) * 4096, 0x55, 4096);
            assert_int_equal(open_at(&t, d, &again), 1);
            assert_int_equal(again, n);
            twoslot_close(&t);
            test_disk_free(d);
        }
}

static void one_bad_slot_is_repaired_and_two_are_refused(void **state)
{
    struct disk *d = test_disk_make(1);
    struct twoslot t;
    uint64_t n, bytes;
    uint8_t *p;

    assert_int_equal(write_some(d), 6);
    p = test_disk_bytes(d, "state", &bytes);
    assert_int_equal(bytes, 8192);
    for (size_t at = 0; at < 8192; at += 61) {
        p[at] ^= 0x10;
        assert_int_equal(open_at(&t, d, &n), 1);
        assert_int_equal(n, 6);
        twoslot_close(&t);
        assert_int_equal(open_at(&t, d, &n), 0);
        twoslot_close(&t);
    }
    p[3000] ^= 1;
    p[5000] ^= 1;
    assert_int_equal(open_at(&t, d, &n), -EILSEQ);
    assert_null(t.page);
    test_disk_free(d);
}

static void an_unreadable_slot_counts_as_bad(void **state)
{
    struct disk *d = test_disk_make(1);
    struct twoslot t;
    struct value v;
    uint64_t n;

    assert_int_equal(write_some(d), 6);
    test_disk_unreadable(d, "state", 0, 4096);
    assert_int_equal(open_at(&t, d, &n), 1);
    twoslot_close(&t);
    assert_int_equal(n, 6);
    test_disk_unreadable(d, "state", 4096, 4096);
    assert_int_equal(twoslot_peek(d, "state", MAGIC, &v, sizeof v), 1);
    assert_int_equal(v.n, 6);
    test_disk_unreadable(d, "state", 0, 8192);
    assert_int_equal(open_at(&t, d, &n), -EILSEQ);
    test_disk_free(d);
}

static void another_kind_or_length_is_refused(void **state)
{
    struct disk *d = test_disk_make(1);
    struct value v;
    struct twoslot t;

    assert_int_equal(write_some(d), 6);
    assert_int_equal(twoslot_open(&t, d, "state", MAGIC + 1, &v, sizeof v), -EILSEQ);
    assert_int_equal(twoslot_open(&t, d, "state", MAGIC, &v, sizeof v - 1), -EILSEQ);
    assert_int_equal(twoslot_peek(d, "state", MAGIC, &v, sizeof v - 1), -EILSEQ);
    assert_int_equal(twoslot_peek(d, "other", MAGIC, &v, sizeof v), -ENOENT);
    test_disk_resize(d, "state", 4096);
    assert_int_equal(twoslot_peek(d, "state", MAGIC, &v, sizeof v), 1);
    test_disk_resize(d, "state", 0);
    assert_int_equal(twoslot_open(&t, d, "state", MAGIC, &v, sizeof v), -EILSEQ);
    test_disk_free(d);
}

static void a_lost_write_to_one_slot_does_no_harm(void **state)
{
    struct disk *d = test_disk_make(1);
    struct twoslot t;
    uint64_t n;

    for (uint64_t at = 5; at < 15; at++) {
        test_disk_free(d);
        d = test_disk_make(1);
        test_disk_fault_at(d, at, TEST_DISK_SWALLOW, 0, 0);
        assert_int_equal(write_some(d), 6);
        assert_true(open_at(&t, d, &n) >= 0);
        assert_int_equal(n, 6);
        twoslot_close(&t);
    }
    test_disk_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cut_at_any_operation_leaves_the_old_or_the_new_value),
        cmocka_unit_test(one_bad_slot_is_repaired_and_two_are_refused),
        cmocka_unit_test(an_unreadable_slot_counts_as_bad),
        cmocka_unit_test(another_kind_or_length_is_refused),
        cmocka_unit_test(a_lost_write_to_one_slot_does_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
