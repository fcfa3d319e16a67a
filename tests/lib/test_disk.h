/*
 * test_disk.h - a disk in memory that loses, tears, reorders, rots, stalls and refuses.
 *
 * Implements struct disk_ops (cluster/disk.h). Everything random follows from the seed and the
 * order of calls. Every change of the medium and every opening is one operation, counted from 0 in
 * the order in which they happen (an asynchronous write: when it completes): that count is what
 * faults are aimed at.
 *
 * Power cut: each asynchronous write that was handed over and has not completed is lost, kept, or
 * kept as a random subset of its 512-byte pieces; so is a synchronous write that was under way.
 * Creations, renames and removals since the last sync_dir() are kept up to a random one. A file
 * that was shortened may be as long as before again, with what it held.
 *
 * Thread:  one.  Memory:  its own; test_disk_free() frees it.
 */
#ifndef SLUICE_TESTS_TEST_DISK_H
#define SLUICE_TESTS_TEST_DISK_H

#include "cluster/disk.h"

#define TEST_DISK_NEVER UINT64_MAX

/* What happens to operation number `at`. */
enum test_disk_fault {
    TEST_DISK_ERROR,     /* it fails with `error` and changes nothing */
    TEST_DISK_POWER_CUT, /* the power goes while it is under way; all after it fails with -EIO */
    TEST_DISK_SWALLOW,   /* a write reports success and changes nothing */
    TEST_DISK_MISDIRECT, /* a write lands `shift` bytes further */
};

struct disk *test_disk_make(uint64_t seed);
void test_disk_free(struct disk *d);

/* One fault at a time; at counts operations from test_disk_make() on. */
void test_disk_fault_at(struct disk *d, uint64_t at, enum test_disk_fault kind, int error,
                        int64_t shift);
/* Every write to `name` (NULL: none) fails with error; error 0: no more. */
void test_disk_fail_file(struct disk *d, const char *name, int error);
/* Every read of these blocks fails with -EIO; bytes 0: no more. */
void test_disk_unreadable(struct disk *d, const char *name, uint64_t offset, uint64_t bytes);
uint64_t test_disk_operations(const struct disk *d);
bool test_disk_is_off(const struct disk *d);
/* Cuts the power now. */
void test_disk_power_cut(struct disk *d);
/* On again, with what the cut has left; every handle is gone, no fault is set. */
void test_disk_power_on(struct disk *d, uint64_t seed);
/* Writes that have not completed. */
size_t test_disk_in_flight(const struct disk *d);
/* Withholds completions, but from who waits for one. */
void test_disk_stall(struct disk *d, bool stalled);
void test_disk_set_free(struct disk *d, int64_t bytes);

/* The medium, for looking and for damage. Returns NULL when there is no such file. */
uint8_t *test_disk_bytes(struct disk *d, const char *name, uint64_t *ret_bytes);
/* A file as if it had always been there; NULL bytes: zeros. */
void test_disk_put(struct disk *d, const char *name, const void *bytes, uint64_t n);
void test_disk_resize(struct disk *d, const char *name, uint64_t n);
void test_disk_drop(struct disk *d, const char *name);
void test_disk_move(struct disk *d, const char *from, const char *to);
/* CRC of all names and contents. */
uint32_t test_disk_digest(struct disk *d);
/* The n-th name in order, or NULL. */
const char *test_disk_name(struct disk *d, size_t n);

#endif
