/*
 * test_ledger_file.c - the account that outlives a run.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ledger_file.h"

static char dir[] = "/tmp/sluice-ledger-XXXXXX";
static struct ledger_file file;

static struct ledger balanced(void)
{
    struct ledger l;

    memset(&l, 0, sizeof l);
    l.datagrams_seen = 12;
    l.datagrams_delivered = 10;
    l.datagram_drop[DROP_KERNEL] = 2;
    l.decoded[1] = 100;
    l.committed[1] = 90;
    l.duplicate[1] = 3;
    l.in_flight[1] = 7;
    return l;
}

static void a_directory_without_an_account_starts_one(void **state)
{
    struct ledger l;
    uint64_t since = 42, lost = 1;

    (void)state;
    assert_int_equal(ledger_file_open(&file, dir, &l, &since, &lost), 0);
    assert_int_equal(since, 42);
    assert_int_equal(lost, 0);
    assert_int_equal(l.decoded[1], 0);
}

static void what_was_in_flight_at_a_crash_becomes_unaccounted_and_the_account_balances(void **state)
{
    struct ledger l = balanced(), back;
    struct ledger_sums sums;
    uint64_t since = 1, lost = 0;

    (void)state;
    assert_int_equal(ledger_file_save(&file, &l, 7, false), 0);
    assert_int_equal(ledger_file_open(&file, dir, &back, &since, &lost), 0);
    assert_int_equal(since, 7);
    assert_int_equal(lost, 7);
    assert_int_equal(back.in_flight[1], 0);
    assert_int_equal(back.unaccounted[1], 7);
    assert_int_equal(back.committed[1], 90);
    ledger_check(&back, &sums);
    assert_true(sums.events_balance && sums.datagrams_balance);
    assert_int_equal(sums.unaccounted, 7);
}

static void a_closed_account_goes_on_as_it_was(void **state)
{
    struct ledger l = balanced(), back;
    uint64_t since = 1, lost = 9;

    (void)state;
    l.committed[1] += l.in_flight[1];
    l.in_flight[1] = 0;
    assert_int_equal(ledger_file_save(&file, &l, 7, true), 0);
    assert_int_equal(ledger_file_open(&file, dir, &back, &since, &lost), 0);
    assert_int_equal(lost, 0);
    assert_memory_equal(&back, &l, sizeof l);
}

static void a_flipped_byte_anywhere_is_noticed(void **state)
{
    struct ledger l = balanced(), back;
    uint64_t since = 1, lost = 0;
    off_t bytes;
    int fd;

    (void)state;
    assert_int_equal(ledger_file_save(&file, &l, 7, false), 0);
    fd = open(file.path, O_RDWR);
    assert_true(fd >= 0);
    bytes = lseek(fd, 0, SEEK_END);
    for (off_t at = 0; at < bytes; at += 97) {
        uint8_t b;

        assert_int_equal(pread(fd, &b, 1, at), 1);
        b ^= 0x10;
        assert_int_equal(pwrite(fd, &b, 1, at), 1);
        assert_int_equal(ledger_file_open(&file, dir, &back, &since, &lost), -EILSEQ);
        assert_int_equal(back.decoded[1], 0);
        b ^= 0x10;
        assert_int_equal(pwrite(fd, &b, 1, at), 1);
    }
    assert_int_equal(ftruncate(fd, bytes - 1), 0);
    assert_int_equal(ledger_file_open(&file, dir, &back, &since, &lost), -EILSEQ);
    close(fd);
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    unlink(file.path);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_directory_without_an_account_starts_one),
        cmocka_unit_test(
            what_was_in_flight_at_a_crash_becomes_unaccounted_and_the_account_balances),
        cmocka_unit_test(a_closed_account_goes_on_as_it_was),
        cmocka_unit_test(a_flipped_byte_anywhere_is_noticed),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
