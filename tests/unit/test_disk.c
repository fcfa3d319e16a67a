/*
 * test_disk.c - the real disk: durable writes, bounds in flight, one owner of a directory.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "tests/lib/log_fixture.h"
#include "userspace/base/clock.h"

static char dir[FIXTURE_DIR_BYTES];
static struct disk *disk;
static uint8_t page[8][4096] __attribute__((aligned(4096)));
static uint8_t back[4096] __attribute__((aligned(4096)));

static int setup(void **state)
{
    fixture_dir_make(dir);
    return disk_uring_open(&disk, dir, 4);
}

static int teardown(void **state)
{
    disk->ops->fini(disk);
    fixture_dir_remove(dir);
    return 0;
}

static void files_are_opened_for_direct_and_synchronous_writes(void **state)
{
    int file = disk->ops->open(disk, "a", true);

    assert_true(file >= 0);
    assert_int_equal(fcntl(file, F_GETFL) & O_DSYNC, O_DSYNC);
    assert_int_equal(!(fcntl(file, F_GETFL) & O_DIRECT), disk->buffered);
    assert_true(fcntl(file, F_GETFD) & FD_CLOEXEC);
    disk->ops->close(disk, file);
    file = disk->ops->open(disk, "a", false);
    assert_int_equal(fcntl(file, F_GETFL) & O_DSYNC, O_DSYNC);
    disk->ops->close(disk, file);
}

static int completed, last_result;

static void on_done(struct disk_write *w, int result)
{
    completed++;
    last_result = result;
    *(bool *)w->owner = true;
}

static void more_writes_than_fit_the_ring_all_complete(void **state)
{
    struct disk_write w[64];
    bool done[64] = { false };
    int file = disk->ops->open(disk, "a", true);
    struct pollfd p = { .fd = disk->ops->event_fd(disk), .events = POLLIN };
    bool told = true;
    int n = 0;

    completed = 0;
    for (int i = 0; i < 64; i++) {
        memset(page[i % 8], i % 8, 4096);
        w[i] = (struct disk_write){ .file = file,
                                    .buf = page[i % 8],
                                    .bytes = 4096,
                                    .offset = (uint64_t)i * 4096,
                                    .done = on_done,
                                    .owner = &done[i] };
        disk->ops->write(disk, &w[i]);
    }
    n += disk->ops->poll(disk, false);
    while (n < 64) {
        told = told && poll(&p, 1, 10000) == 1;
        n += disk->ops->poll(disk, !told); /* in any case, as w goes with this function */
    }
    assert_true(told); /* the event descriptor tells of completions */
    assert_int_equal(completed, 64);
    assert_int_equal(last_result, 0);
    assert_int_equal(disk->ops->poll(disk, true), 0);
    assert_int_equal(disk->ops->size(disk, file), 64 * 4096);
    for (int i = 0; i < 64; i++) {
        assert_true(done[i]);
        assert_int_equal(disk->ops->read(disk, file, back, 4096, (uint64_t)i * 4096), 4096);
        assert_memory_equal(back, page[i % 8], 4096);
    }
    assert_int_equal(disk->ops->read(disk, file, back, 4096, 64 * 4096), 0);
    disk->ops->close(disk, file);
}

/* How many completions the kernel has put into the process's one ring, by its descriptor's fdinfo.
 */
static unsigned completions_in_ring(void)
{
    char path[64], link[64], line[128];
    unsigned tail = 0;

    for (int fd = 0; fd < 64; fd++) {
        FILE *f;
        ssize_t n;

        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        n = readlink(path, link, sizeof link - 1);
        if (n < 0)
            continue;
        link[n] = '\0';
        if (strcmp(link, "anon_inode:[io_uring]") != 0)
            continue;
        snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
        f = fopen(path, "re");
        assert_non_null(f);
        while (fgets(line, sizeof line, f) != NULL && sscanf(line, "CqTail: %u", &tail) != 1)
            ;
        fclose(f);
    }
    return tail;
}

static void a_write_that_waited_for_room_is_not_forgotten(void **state)
{
    struct disk_write w[6];
    bool done[6] = { false };
    int file = disk->ops->open(disk, "a", true), n;
    struct pollfd p = { .fd = disk->ops->event_fd(disk), .events = POLLIN };
    const uint64_t give_up = clock_monotonic_ns() + 10000000000;
    bool told = true;

    completed = 0;
    for (int i = 0; i < 6; i++) {
        w[i] = (struct disk_write){ .file = file,
                                    .buf = page[i],
                                    .bytes = 4096,
                                    .offset = (uint64_t)i * 4096,
                                    .done = on_done,
                                    .owner = &done[i] };
        disk->ops->write(disk, &w[i]);
    }
    n = disk->ops->poll(disk, false);
    /* All four that fit complete before the next look: nothing is in flight then. */
    while (completions_in_ring() < 4)
        assert_true(clock_monotonic_ns() < give_up);
    while (n < 6) {
        told = told && poll(&p, 1, 10000) == 1;
        n += disk->ops->poll(disk, !told); /* in any case, as w goes with this function */
    }
    assert_true(told);
    assert_int_equal(completed, 6);
    disk->ops->close(disk, file);
}

static void a_file_gets_shorter_and_longer_with_zeros(void **state)
{
    int file = disk->ops->open(disk, "a", true);

    memset(page, 7, sizeof page);
    assert_int_equal(disk->ops->write_now(disk, file, page, sizeof page, 0), 0);
    assert_int_equal(disk->ops->truncate(disk, file, 8192), 0);
    assert_int_equal(disk->ops->size(disk, file), 8192);
    assert_int_equal(disk->ops->truncate(disk, file, 16384), 0);
    assert_int_equal(disk->ops->size(disk, file), 16384);
    assert_int_equal(disk->ops->read(disk, file, back, 4096, 4096), 4096);
    assert_memory_equal(back, page[1], 4096);
    assert_int_equal(disk->ops->read(disk, file, back, 4096, 8192), 4096);
    memset(page[1], 0, 4096);
    assert_memory_equal(back, page[1], 4096);
    disk->ops->close(disk, file);
}

static void reads_ahead_give_what_reads_give(void **state)
{
    static uint8_t ahead[12][8192] __attribute__((aligned(4096)));
    struct disk_read r[12];
    int file = disk->ops->open(disk, "a", true);

    for (int i = 0; i < 8; i++)
        memset(page[i], i + 1, sizeof page[i]);
    assert_int_equal(disk->ops->write_now(disk, file, page, sizeof page, 0), 0);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 12; i++) { /* more than the ring takes */
            r[i] = (struct disk_read){
                .file = file, .buf = ahead[i], .bytes = 8192, .offset = (uint64_t)i * 4096
            };
            disk->ops->read_begin(disk, &r[i]);
        }
        for (int k = 0; k < 12; k++) { /* waited for in another order */
            int i = k * 5 % 12;

            /* From page 7 on the file ends. */
            assert_int_equal(disk->ops->read_wait(disk, &r[i]), i < 7 ? 8192 : i == 7 ? 4096 : 0);
            if (i < 8)
                assert_memory_equal(ahead[i], page[i], i < 7 ? 8192 : 4096);
        }
        disk->ops->fini(disk);
        assert_int_equal(disk_uring_open_read(&disk, dir), 0); /* again on one for reading */
        disk->ops->close(disk, file);
        file = disk->ops->open(disk, "a", false);
    }
    r[0] = (struct disk_read){ .file = -1, .buf = ahead[0], .bytes = 4096 };
    disk->ops->read_begin(disk, &r[0]);
    assert_int_equal(disk->ops->read_wait(disk, &r[0]), -EBADF);
    disk->ops->close(disk, file);
}

static void a_failing_write_tells_its_error(void **state)
{
    bool done = false;
    struct disk_write w = { .file = open("/dev/null", O_RDONLY | O_CLOEXEC),
                            .buf = page[0],
                            .bytes = 4096,
                            .done = on_done,
                            .owner = &done };

    disk->ops->write(disk, &w);
    while (!done)
        disk->ops->poll(disk, true);
    assert_int_equal(last_result, -EBADF);
    assert_int_equal(disk->ops->write_now(disk, w.file, page[0], 4096, 0), -EBADF);
    close(w.file);
}

static void a_directory_has_one_owner(void **state)
{
    struct disk *other;
    int file;

    assert_int_equal(disk_uring_open(&other, dir, 4), -EBUSY);
    assert_int_equal(disk_uring_open_read(&other, dir), -EBUSY);
    assert_int_equal(disk_uring_open_shared(&other, dir), 0);
    other->ops->fini(other);
    disk->ops->fini(disk);
    assert_int_equal(disk_uring_open_read(&disk, dir), 0);
    assert_int_equal(disk_uring_open_read(&other, dir), 0);
    other->ops->fini(other);
    assert_int_equal(disk_uring_open(&other, dir, 4), -EBUSY);
    disk->ops->fini(disk);
    assert_int_equal(disk_uring_open(&disk, dir, 4), 0);
    file = disk->ops->open(disk, "a", true);
    assert_true(file >= 0);
    disk->ops->close(disk, file);
}

static void a_reader_changes_nothing(void **state)
{
    struct disk *r;

    assert_int_equal(disk_uring_open_shared(&r, dir), 0);
    assert_int_equal(r->ops->open(r, "a", true), -EROFS);
    assert_int_equal(r->ops->rename(r, "LOCK", "b"), -EROFS);
    assert_int_equal(r->ops->remove(r, "LOCK"), -EROFS);
    assert_int_equal(r->ops->sync_dir(r), -EROFS);
    assert_int_equal(r->ops->truncate(r, 0, 4096), -EROFS);
    assert_int_equal(r->ops->write_now(r, 0, page[0], 4096, 0), -EROFS);
    assert_int_equal(r->ops->poll(r, true), 0);
    r->ops->fini(r);
}

static int count_name(void *arg, const char *name)
{
    ++*(int *)arg;
    return strcmp(name, "stop") == 0 ? 7 : 0;
}

static void names_are_made_moved_removed_and_listed(void **state)
{
    int n = 0, file = disk->ops->open(disk, "a", true);

    disk->ops->close(disk, file);
    assert_int_equal(disk->ops->open(disk, "a", true), -EEXIST);
    assert_int_equal(disk->ops->open(disk, "b", false), -ENOENT);
    assert_int_equal(disk->ops->rename(disk, "a", "b"), 0);
    assert_int_equal(disk->ops->rename(disk, "a", "b"), -ENOENT);
    assert_int_equal(disk->ops->sync_dir(disk), 0);
    assert_int_equal(mkdir(fixture_path(dir, "sub"), 0700), 0);
    assert_int_equal(disk->ops->list(disk, count_name, &n), 0);
    assert_int_equal(n, 2); /* b and LOCK; no directories */
    assert_int_equal(rmdir(fixture_path(dir, "sub")), 0);
    assert_int_equal(disk->ops->rename(disk, "b", "stop"), 0);
    assert_int_equal(disk->ops->list(disk, count_name, &n), 7);
    assert_int_equal(disk->ops->remove(disk, "stop"), 0);
    assert_int_equal(disk->ops->remove(disk, "stop"), -ENOENT);
    assert_true(disk->ops->free_bytes(disk) > 0);
}

static int count_names(void *arg, const char *name)
{
    (void)name;
    ++*(unsigned *)arg;
    return 0;
}

/* On ext4, where a directory would otherwise grow when the disk is full already. */
static void room_for_names_is_taken_and_nothing_stays(void **state)
{
    unsigned before = 0, after = 0;
    struct statfs fs;
    struct stat s;

    disk->ops->close(disk, disk->ops->open(disk, "a", true));
    assert_int_equal(disk->ops->list(disk, count_names, &before), 0);
    for (int again = 0; again < 2; again++)
        disk->ops->reserve_names(disk, 256);
    assert_int_equal(disk->ops->list(disk, count_names, &after), 0);
    assert_int_equal(after, before);
    assert_int_equal(stat(dir, &s), 0);
    assert_int_equal(statfs(dir, &fs), 0);
    if (fs.f_type == EXT4_SUPER_MAGIC)
        assert_true(s.st_size >= 256 * 48);
    /* What a crash leaves is no file of the log. */
    close(open(fixture_path(dir, "names.tmp.00000000x"), O_CREAT | O_RDWR, 0600));
    after = 0;
    assert_int_equal(disk->ops->list(disk, count_names, &after), 0);
    assert_int_equal(after, before);
}

static void a_missing_directory_is_an_error(void **state)
{
    struct disk *d;

    assert_int_equal(disk_uring_open(&d, fixture_path(dir, "none"), 4), -ENOENT);
    assert_int_equal(disk_uring_open_read(&d, fixture_path(dir, "LOCK")), -ENOTDIR);
}

#define UNIT(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT(files_are_opened_for_direct_and_synchronous_writes),
        UNIT(more_writes_than_fit_the_ring_all_complete),
        UNIT(a_write_that_waited_for_room_is_not_forgotten),
        UNIT(a_file_gets_shorter_and_longer_with_zeros),
        UNIT(reads_ahead_give_what_reads_give),
        UNIT(a_failing_write_tells_its_error),
        UNIT(a_directory_has_one_owner),
        UNIT(a_reader_changes_nothing),
        UNIT(names_are_made_moved_removed_and_listed),
        UNIT(room_for_names_is_taken_and_nothing_stays),
        UNIT(a_missing_directory_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
