/*
 * test_log.c - the log on the real disk: appending, rolling, sealing, reopening, truncating.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster/block.h"
#include "cluster/segment.h"
#include "cluster/state.h"
#include "cluster/twoslot.h"
#include "tests/lib/log_fixture.h"

struct ctx {
    char dir[FIXTURE_DIR_BYTES];
    char error[LOG_ERROR_BYTES];
    struct disk *disk;
    struct log *log;
    struct log_origin origin;
    uint64_t replayed, first_replayed;
    bool blocks; /* the records hold blocks, not what the fixture fills in */
};

static int on_replay(void *arg, const struct log_record *r, const void *payload)
{
    struct ctx *c = arg;

    if (c->replayed == 0)
        c->first_replayed = r->index;
    else
        assert_int_equal(r->index, c->first_replayed + c->replayed);
    assert_true(c->blocks || fixture_payload_is(payload, r->payload_bytes, r->index, 0));
    c->replayed++;
    return 0;
}

static int open_log(struct ctx *c)
{
    struct log_config config = fixture_config();
    int r;

    c->replayed = 0;
    assert_int_equal(disk_uring_open(&c->disk, c->dir, 32), 0);
    r = log_open(&c->log, c->disk, &config, &c->origin, on_replay, c, c->error);
    if (r != 0) {
        c->disk->ops->fini(c->disk);
        c->log = NULL;
    }
    return r;
}

static void close_log(struct ctx *c)
{
    if (c->log != NULL) {
        log_close(c->log);
        c->disk->ops->fini(c->disk);
    }
    c->log = NULL;
}

static void append_n(struct ctx *c, int n, uint32_t bytes)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(fixture_append(c->log, FIXTURE_TERM, LOG_EVENTS, bytes, 0), 0);
}

static int setup(void **state)
{
    struct ctx *c = calloc(1, sizeof *c);

    fixture_dir_make(c->dir);
    c->origin = fixture_origin;
    *state = c;
    return open_log(c);
}

static int teardown(void **state)
{
    struct ctx *c = *state;

    close_log(c);
    fixture_dir_remove(c->dir);
    free(c);
    return 0;
}

static void what_was_appended_is_there_after_a_restart(void **state)
{
    struct ctx *c = *state;
    uint8_t before[SHA256_BYTES], after[SHA256_BYTES];

    append_n(c, 30, 5000);
    append_n(c, 10, 200000);
    append_n(c, 5, 0);
    assert_int_equal(log_persisted_index(c->log), 45);
    log_digest(c->log, before);
    close_log(c);
    assert_int_equal(open_log(c), 0);
    assert_int_equal(c->replayed, 45);
    assert_int_equal(log_last_index(c->log), 45);
    assert_int_equal(log_last_term(c->log), FIXTURE_TERM);
    assert_int_equal(log_last_time_ns(c->log), 45000);
    log_digest(c->log, after);
    assert_memory_equal(before, after, SHA256_BYTES);
    append_n(c, 20, 100000);
    close_log(c);
    assert_int_equal(open_log(c), 0);
    assert_int_equal(c->replayed, 65);
}

static void a_segment_ends_when_another_record_might_not_fit(void **state)
{
    struct ctx *c = *state;
    uint64_t offset = LOG_ALIGN;
    struct stat st;

    assert_false(log_at_segment_end(c->log));
    for (int i = 0; i < 40; i++) {
        uint32_t bytes = (uint32_t)(i * 7919 % 250000);
        bool ends;

        assert_int_equal(fixture_append(c->log, FIXTURE_TERM, LOG_EVENTS, bytes, 0), 0);
        offset += record_bytes(bytes);
        ends = (1u << 20) - offset < LOG_RECORD_BYTES_MAX;
        assert_int_equal(log_at_segment_end(c->log), ends);
        if (ends)
            offset = LOG_ALIGN;
    }
    assert_int_equal(stat(fixture_path(c->dir, "0000000000000002-0000000000000001.seg"), &st), 0);
    assert_int_equal(st.st_size, 1 << 20);
    assert_true(log_disk_bytes(c->log) >= 4u << 20);
    assert_int_equal(log_disk_bytes(c->log) % (1u << 20), 0);
}

static void a_seal_ends_its_segment_and_the_next_has_the_next_epoch(void **state)
{
    struct ctx *c = *state;

    append_n(c, 3, 100);
    assert_false(log_at_segment_end(c->log));
    assert_int_equal(fixture_append(c->log, FIXTURE_TERM, LOG_SEAL, 0, 0), 0);
    assert_true(log_at_segment_end(c->log));
    close_log(c);
    assert_int_equal(open_log(c), 0);
    assert_true(log_at_segment_end(c->log));
    assert_int_equal(fixture_append(c->log, 5ull << 20, LOG_BARRIER, 0, 0), 0);
    assert_false(log_at_segment_end(c->log));
    assert_int_equal(access(fixture_path(c->dir, "0000000000000005-0000000000000005.seg"), F_OK),
                     0);
    assert_int_equal(log_first_index(c->log), 1);
}

static void two_logs_with_the_same_records_have_the_same_digest(void **state)
{
    struct ctx *c = *state, other = { .origin = fixture_origin };
    uint8_t a[SHA256_BYTES], b[SHA256_BYTES];

    fixture_dir_make(other.dir);
    assert_int_equal(open_log(&other), 0);
    append_n(c, 9, 200000);
    append_n(&other, 5, 200000);
    close_log(&other);
    assert_int_equal(open_log(&other), 0);
    append_n(&other, 4, 200000);
    log_digest(c->log, a);
    log_digest(other.log, b);
    assert_memory_equal(a, b, SHA256_BYTES);
    append_n(&other, 1, 1);
    log_digest(other.log, b);
    assert_memory_not_equal(a, b, SHA256_BYTES);
    close_log(&other);
    fixture_dir_remove(other.dir);
}

static void reserve_refuses_when_writes_max_are_in_flight(void **state)
{
    struct ctx *c = *state;
    struct fixture_write *f[16];

    append_n(c, 1, 100);
    for (uint64_t i = 0; i < 16; i++) {
        assert_int_equal(log_reserve(c->log, 100), 0);
        f[i] = fixture_write_make(i + 2, FIXTURE_TERM, LOG_EVENTS, 100, 0);
        assert_int_equal(log_append(c->log, &f[i]->write), 0);
    }
    assert_int_equal(log_reserve(c->log, 100), -EAGAIN);
    assert_int_equal(log_last_index(c->log), 17);
    assert_int_equal(log_persisted_index(c->log), 1);
    while (!f[15]->done)
        assert_true(fixture_turn(c->log) >= 0);
    assert_int_equal(log_persisted_index(c->log), 17);
    for (int i = 0; i < 16; i++) {
        assert_true(f[i]->done);
        fixture_write_free(f[i]);
    }
}

static void the_mark_is_written_when_the_log_falls_idle(void **state)
{
    struct ctx *c = *state;
    int n = 0;

    append_n(c, 3, 100);
    assert_true(log_deadline_ns(c->log) != UINT64_MAX);
    while (log_deadline_ns(c->log) != UINT64_MAX) {
        assert_true(fixture_turn(c->log) >= 0);
        n++;
    }
    assert_true(n >= 10);
    assert_true(fixture_turn(c->log) >= 0); /* the next segment may just have become ready */
    assert_true(log_deadline_ns(c->log) == UINT64_MAX);
}

static void get_and_check(struct log_reader *r, uint64_t index, void *buf)
{
    struct log_record record;
    const void *payload;
    int e = log_reader_get(r, index, buf, LOG_RECORD_BYTES_MAX, &record, &payload);

    if (e != 0)
        fail_msg("record %llu: %s", (unsigned long long)index, strerror(-e));
    assert_int_equal(record.index, index);
    assert_true(fixture_payload_is(payload, record.payload_bytes, index, 0));
}

static void truncated_records_never_come_back(void **state)
{
    const uint64_t cuts[] = { 38, 33, 20, 19, 6, 2, 1 };
    struct ctx *c = *state;
    uint8_t digest[50][SHA256_BYTES], now[SHA256_BYTES];

    log_digest(c->log, digest[0]);
    for (int i = 1; i <= 40; i++) {
        append_n(c, 1, 100000);
        log_digest(c->log, digest[i]);
    }
    assert_int_equal(log_truncate(c->log, 42), -EINVAL);
    assert_int_equal(log_truncate(c->log, 0), -EINVAL);
    assert_int_equal(log_truncate(c->log, 41), 0);
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        assert_int_equal(log_truncate(c->log, cuts[i]), 0);
        assert_int_equal(log_last_index(c->log), cuts[i] - 1);
        assert_int_equal(log_last_time_ns(c->log), (cuts[i] - 1) * 1000);
        log_digest(c->log, now);
        assert_memory_equal(now, digest[cuts[i] - 1], SHA256_BYTES);
        if (i % 2 == 0)
            append_n(c, 2, 50000); /* goes on from there, over what was cut */
        close_log(c);
        assert_int_equal(open_log(c), 0);
        assert_int_equal(c->replayed, cuts[i] - 1 + (i % 2 == 0 ? 2 : 0));
    }
    append_n(c, 20, 100000);
    close_log(c);
    assert_int_equal(open_log(c), 0);
    assert_int_equal(c->replayed, 22);
}

static void a_start_from_a_checkpoint_reads_only_what_is_above_it(void **state)
{
    struct ctx *c = *state;
    struct log_origin end = { 0 }, middle = { 0 };

    while (!log_at_segment_end(c->log) || log_last_index(c->log) < 10)
        append_n(c, 1, 150000);
    end = (struct log_origin){ .index = log_last_index(c->log),
                               .term = FIXTURE_TERM,
                               .time_ns = log_last_time_ns(c->log) };
    log_digest(c->log, end.digest);
    append_n(c, 2, 1000);
    middle = (struct log_origin){ .index = log_last_index(c->log),
                                  .term = FIXTURE_TERM,
                                  .time_ns = log_last_time_ns(c->log) };
    log_digest(c->log, middle.digest);
    append_n(c, 3, 1000);
    for (int i = 0; i < 2; i++) {
        close_log(c);
        c->origin = i ? middle : end;
        assert_int_equal(open_log(c), 0);
        assert_int_equal(c->first_replayed, c->origin.index + 1);
        assert_int_equal(c->replayed, i ? 3 : 5);
        assert_int_equal(log_first_index(c->log), 1);
        assert_int_equal(log_truncate(c->log, c->origin.index), -EINVAL);
    }
    close_log(c);
    c->origin.digest[0] ^= 1;
    assert_int_equal(open_log(c), -EILSEQ);
    c->origin = end;
    c->origin.digest[0] ^= 1;
    assert_int_equal(open_log(c), -EILSEQ);
    c->origin.index = 1000;
    assert_int_equal(open_log(c), -EUCLEAN);
    assert_non_null(strstr(c->error, "before the checkpoint at 1000"));
    /* A segment below the checkpoint is not read, but missed. */
    c->origin = end;
    assert_int_equal(unlink(fixture_path(c->dir, "0000000000000002-0000000000000007.seg")), 0);
    assert_int_equal(open_log(c), -EILSEQ);
    assert_non_null(strstr(c->error, "is missing"));
}

/* Appends until it is killed; tells through fd what is durable. */
static void append_for_ever(struct ctx *c, int fd)
{
    struct fixture_write *f[16] = { NULL };

    for (uint64_t i = 1;; i++) {
        struct fixture_write **slot = &f[i % 16];
        uint64_t persisted;

        while (*slot != NULL && !(*slot)->done)
            fixture_turn(c->log);
        fixture_write_free(*slot);
        if (fixture_reserve(c->log, 30000) != 0)
            _exit(1);
        *slot = fixture_write_make(i, FIXTURE_TERM, LOG_EVENTS, (uint32_t)(i * 131 % 30000), 0);
        if (log_append(c->log, &(*slot)->write) != 0)
            _exit(2);
        persisted = log_persisted_index(c->log);
        if (write(fd, &persisted, sizeof persisted) != sizeof persisted)
            _exit(3);
    }
}

static void a_killed_process_leaves_all_that_was_durable(void **state)
{
    struct ctx *c = *state;

    for (int round = 1; round <= 6; round++) {
        uint64_t persisted = 0, next;
        int fd[2], status;
        pid_t child;

        close_log(c);
        fixture_dir_remove(c->dir);
        fixture_dir_make(c->dir);
        assert_int_equal(pipe(fd), 0);
        child = fork();
        if (child == 0) {
            close(fd[0]);
            if (open_log(c) == 0)
                append_for_ever(c, fd[1]);
            _exit(4);
        }
        close(fd[1]);
        while (persisted < (uint64_t)round * 23 && read(fd[0], &next, sizeof next) == sizeof next)
            persisted = next;
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        while (read(fd[0], &next, sizeof next) == sizeof next)
            persisted = next;
        close(fd[0]);
        assert_int_equal(open_log(c), 0); /* checks every payload */
        assert_true(c->replayed >= persisted);
        append_n(c, 2, 100);
    }
}

static void a_log_may_begin_behind_a_checkpoint(void **state)
{
    struct ctx *c = *state;

    close_log(c);
    c->origin = (struct log_origin){ .index = 500, .term = 9, .time_ns = 77, .digest = { 4 } };
    assert_int_equal(open_log(c), 0);
    assert_int_equal(log_last_index(c->log), 500);
    assert_int_equal(log_last_term(c->log), 9);
    assert_int_equal(log_first_index(c->log), 501);
    append_n(c, 3, 10);
    close_log(c);
    assert_int_equal(open_log(c), 0);
    assert_int_equal(log_last_index(c->log), 503);
}

static int stop_at_3(void *arg, const struct log_record *r, const void *payload)
{
    return r->index == 3 ? 99 : 0;
}

static void the_replay_can_stop_the_start(void **state)
{
    struct ctx *c = *state;
    struct log_config config = fixture_config();

    append_n(c, 5, 10);
    close_log(c);
    assert_int_equal(disk_uring_open(&c->disk, c->dir, 32), 0);
    assert_int_equal(log_open(&c->log, c->disk, &config, &c->origin, stop_at_3, c, c->error), 99);
    c->log = NULL;
    c->disk->ops->fini(c->disk);
    assert_int_equal(open_log(c), 0);
    assert_int_equal(c->replayed, 5);
}

/* --- reader ----------------------------------------------------------------------------------- */

struct follower {
    const char *dir;
    _Atomic uint64_t persisted;
    _Atomic bool over;
    uint64_t gets;
};

/* Reads every record as soon as it is durable, and old ones in between. */
static void *follow(void *arg)
{
    struct follower *f = arg;
    void *buf = aligned_alloc(LOG_ALIGN, LOG_RECORD_BYTES_MAX);
    struct log_reader *r;
    uint64_t next = 1;

    assert_int_equal(log_reader_open(&r, f->dir), 0);
    while (!atomic_load(&f->over) || next <= atomic_load(&f->persisted)) {
        if (next > atomic_load(&f->persisted))
            continue;
        get_and_check(r, next, buf);
        get_and_check(r, next * 31 % (next + 1) % next + 1, buf);
        next++;
        f->gets++;
    }
    log_reader_close(r);
    free(buf);
    return NULL;
}

static void a_reader_in_another_thread_sees_every_durable_record(void **state)
{
    struct ctx *c = *state;
    struct follower f = { .dir = c->dir };
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, follow, &f), 0);
    for (uint32_t i = 0; i < 120; i++) {
        append_n(c, 1, i * 7919 % 120000);
        atomic_store(&f.persisted, log_persisted_index(c->log));
    }
    atomic_store(&f.over, true);
    pthread_join(thread, NULL);
    assert_int_equal(f.gets, 120);
}

static void a_reader_goes_through_segments_that_are_sealed_and_cut_meanwhile(void **state)
{
    struct ctx *c = *state;
    uint8_t *buf = aligned_alloc(LOG_ALIGN, LOG_RECORD_BYTES_MAX);
    struct log_reader *r, *behind;

    assert_int_equal(log_reader_open(&r, c->dir), 0);
    assert_int_equal(log_reader_open(&behind, c->dir), 0);
    append_n(c, 3, 20000);
    get_and_check(behind, 1, buf); /* knows the file with its full length */
    for (uint64_t next = 1; next <= 60;) {
        append_n(c, 5, 30000);
        for (; next <= log_persisted_index(c->log); next++)
            get_and_check(r, next, buf);
        assert_int_equal(fixture_append(c->log, FIXTURE_TERM, LOG_SEAL, 0, 0), 0);
    }
    for (uint64_t i = 2; i <= log_persisted_index(c->log); i++)
        get_and_check(behind, i, buf);
    for (uint64_t i = log_persisted_index(c->log); i > 3; i -= 1 + i % 3)
        get_and_check(r, i, buf);
    log_reader_close(r);
    log_reader_close(behind);
    free(buf);
}

static void a_reader_says_what_is_not_there_and_what_is_rotten(void **state)
{
    struct ctx *c = *state;
    uint8_t *buf = aligned_alloc(LOG_ALIGN, LOG_RECORD_BYTES_MAX);
    struct log_record record;
    const void *payload;
    struct log_reader *r;

    assert_int_equal(log_reader_open(&r, c->dir), 0);
    assert_int_equal(log_reader_get(r, 1, buf, 4096, &record, &payload), -ENOENT);
    append_n(c, 20, 100000);
    assert_int_equal(log_reader_get(r, 21, buf, 4096, &record, &payload), -ENOENT);
    assert_int_equal(log_reader_get(r, 20, buf, 4096, &record, &payload), -ENOBUFS);
    for (uint64_t i = 20; i > 0; i--)
        get_and_check(r, i, buf);
    /* After a truncation and other records in their place. */
    assert_int_equal(log_truncate(c->log, 3), 0);
    assert_int_equal(log_reader_get(r, 3, buf, LOG_RECORD_BYTES_MAX, &record, &payload), -ENOENT);
    assert_int_equal(log_reader_get(r, 15, buf, LOG_RECORD_BYTES_MAX, &record, &payload), -ENOENT);
    for (int i = 0; i < 18; i++)
        assert_int_equal(fixture_append(c->log, 8ull << 20, LOG_EVENTS, 70000, 0), 0);
    for (uint64_t i = 1; i <= 20; i++)
        get_and_check(r, i, buf);
    close_log(c);
    {
        FILE *f = fopen(fixture_path(c->dir, "0000000000000002-0000000000000001.seg"), "r+b");

        assert_non_null(f);
        assert_int_equal(fseek(f, 4096 + 50000, SEEK_SET), 0);
        assert_int_equal(fputc(0x5a, f), 0x5a);
        fclose(f);
    }
    assert_int_equal(log_reader_get(r, 1, buf, LOG_RECORD_BYTES_MAX, &record, &payload), -EILSEQ);
    get_and_check(r, 2, buf);
    log_reader_close(r);
    free(buf);
}

/* --- verification ----------------------------------------------------------------------------- */

static char problems[4][LOG_ERROR_BYTES];
static unsigned problem_n;

static void on_problem(void *arg, const char *sentence)
{
    snprintf(problems[problem_n++ % 4], LOG_ERROR_BYTES, "%s", sentence);
}

static void append_block(struct ctx *c, uint32_t events)
{
    static struct block b;

    c->blocks = true;
    assert_int_equal(fixture_reserve(c->log, BLOCK_PAYLOAD_MAX), 0);
    assert_int_equal(block_init(&b, 0), 0);
    for (; b.events < events; b.events++) {
        b.desc[b.events] = (struct block_desc){ .offset = b.bytes, .bytes = 50 };
        b.verdict[b.events] = VERDICT_COMMITTED;
        b.bytes += 50;
    }
    block_seal(&b, 1, 1);
    b.write.record.index = log_last_index(c->log) + 1;
    b.write.record.term = FIXTURE_TERM;
    {
        struct fixture_write *f = fixture_write_make(b.write.record.index, FIXTURE_TERM, LOG_EVENTS,
                                                     b.write.record.payload_bytes, 0);

        memcpy((uint8_t *)f->write.buf + LOG_HEADER_BYTES, block_payload(&b),
               b.write.record.payload_bytes);
        log_write_seal(&f->write);
        assert_int_equal(log_append(c->log, &f->write), 0);
        while (!f->done)
            assert_true(fixture_turn(c->log) >= 0);
        fixture_write_free(f);
    }
    block_fini(&b);
}

static int verify(struct ctx *c, struct log_verify_report *report)
{
    problem_n = 0;
    return log_verify(c->dir, on_problem, NULL, report);
}

static void spoil(struct ctx *c, const char *name, long offset, uint8_t byte)
{
    FILE *f = fopen(fixture_path(c->dir, name), "r+b");

    assert_non_null(f);
    assert_int_equal(fseek(f, offset, SEEK_SET), 0);
    assert_int_equal(fputc(byte, f), byte);
    fclose(f);
}

static uint64_t file_bytes(struct ctx *c, const char *name)
{
    struct stat st;

    assert_int_equal(stat(fixture_path(c->dir, name), &st), 0);
    return (uint64_t)st.st_size;
}

static void verification_counts_everything_and_finds_any_damage(void **state)
{
    const char *first = "0000000000000002-0000000000000001.seg";
    struct ctx *c = *state;
    struct log_verify_report report;
    uint8_t digest[SHA256_BYTES];
    uint64_t second;

    for (uint32_t i = 0; i < 12; i++)
        append_block(c, 1000 + i);
    assert_int_equal(fixture_append(c->log, FIXTURE_TERM, LOG_SEAL, 0, 0), 0);
    append_block(c, 5);
    log_digest(c->log, digest);
    assert_int_equal(verify(c, &report), -EBUSY);
    close_log(c);
    assert_int_equal(verify(c, &report), 0);
    assert_int_equal(report.records, 14);
    assert_int_equal(report.first_index, 1);
    assert_int_equal(report.last_index, 14);
    assert_int_equal(report.events, 12 * 1000 + 66 + 5);
    assert_int_equal(report.segments, 3);
    /* The second one was sealed by index 13, and cut behind it. */
    second = file_bytes(c, "0000000000000002-000000000000000a.seg");
    assert_int_equal(second, 0x47000);
    assert_int_equal(report.bytes, (2 << 20) + second);
    assert_false(report.torn_tail);
    assert_memory_equal(report.digest, digest, SHA256_BYTES);

    spoil(c, first, (1 << 20) - 5, 1); /* behind the last record of a whole segment */
    assert_int_equal(verify(c, &report), -EILSEQ);
    assert_int_equal(problem_n, 1);
    assert_non_null(strstr(problems[0], "are not zero"));
    spoil(c, first, (1 << 20) - 5, 0);

    spoil(c, first, 4096 + 1000, 0xa5);
    assert_int_equal(verify(c, &report), -EILSEQ);
    assert_non_null(strstr(problems[0], "offset 4096, record 1: the payload's CRC"));
    assert_true(report.records >= 4); /* the segments behind it were still checked */
}

static void verification_tells_a_torn_tail_from_rot(void **state)
{
    struct ctx *c = *state;
    struct log_verify_report report;

    append_block(c, 5);
    close_log(c);
    spoil(c, "0000000000000002-0000000000000001.seg", 4096 * 2 + 9, 0xa5);
    assert_int_equal(verify(c, &report), 0);
    assert_true(report.torn_tail);
    spoil(c, "mark", 100, 0xa5);
    assert_int_equal(verify(c, &report), -EILSEQ);
    assert_non_null(strstr(problems[0], "one of the two copies"));
    assert_int_equal(open_log(c), 0); /* cuts the one, repairs the other */
    close_log(c);
    assert_int_equal(verify(c, &report), 0);
    assert_false(report.torn_tail);
    spoil(c, "0000000000000002-0000000000000001.seg", 4096 + 9, 0xa5);
    assert_int_equal(verify(c, &report), -EILSEQ);
    assert_non_null(strstr(problems[0], "record 1"));
}

static void verification_looks_at_both_copies_of_the_state(void **state)
{
    struct node_state s = { .term = FIXTURE_TERM, .node = 1, .region = 2 };
    struct ctx *c = *state;
    struct log_verify_report report;
    struct twoslot slots;

    append_block(c, 5);
    assert_int_equal(twoslot_open(&slots, c->disk, STATE_NAME, STATE_MAGIC, &s, sizeof s), 0);
    twoslot_close(&slots);
    close_log(c);
    assert_int_equal(verify(c, &report), 0);
    spoil(c, STATE_NAME, 4096 + 100, 0xa5);
    assert_int_equal(verify(c, &report), -EILSEQ);
    assert_int_equal(problem_n, 1);
    assert_non_null(strstr(problems[0], "state: one of the two copies"));
    spoil(c, STATE_NAME, 100, 0xa5);
    assert_int_equal(verify(c, &report), -EILSEQ);
    assert_int_equal(problem_n, 1);
    assert_non_null(strstr(problems[0], "state, offset 0: both copies"));
    assert_int_equal(open_log(c), 0);
    s.term = 7; /* no epoch */
    assert_int_equal(c->disk->ops->remove(c->disk, STATE_NAME), 0);
    assert_int_equal(twoslot_open(&slots, c->disk, STATE_NAME, STATE_MAGIC, &s, sizeof s), 0);
    twoslot_close(&slots);
    close_log(c);
    assert_int_equal(verify(c, &report), -EILSEQ);
    assert_non_null(strstr(problems[0], "contradicts itself"));
}

static void verification_wants_blocks_in_event_records(void **state)
{
    struct ctx *c = *state;
    struct log_verify_report report;

    append_n(c, 1, 500);
    close_log(c);
    assert_int_equal(verify(c, &report), -EILSEQ);
    assert_non_null(strstr(problems[0], "is not a block"));
}

#define UNIT(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT(what_was_appended_is_there_after_a_restart),
        UNIT(a_segment_ends_when_another_record_might_not_fit),
        UNIT(a_seal_ends_its_segment_and_the_next_has_the_next_epoch),
        UNIT(two_logs_with_the_same_records_have_the_same_digest),
        UNIT(reserve_refuses_when_writes_max_are_in_flight),
        UNIT(the_mark_is_written_when_the_log_falls_idle),
        UNIT(truncated_records_never_come_back),
        UNIT(a_start_from_a_checkpoint_reads_only_what_is_above_it),
        UNIT(a_killed_process_leaves_all_that_was_durable),
        UNIT(a_log_may_begin_behind_a_checkpoint),
        UNIT(the_replay_can_stop_the_start),
        UNIT(a_reader_in_another_thread_sees_every_durable_record),
        UNIT(a_reader_goes_through_segments_that_are_sealed_and_cut_meanwhile),
        UNIT(a_reader_says_what_is_not_there_and_what_is_rotten),
        UNIT(verification_counts_everything_and_finds_any_damage),
        UNIT(verification_tells_a_torn_tail_from_rot),
        UNIT(verification_looks_at_both_copies_of_the_state),
        UNIT(verification_wants_blocks_in_event_records),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
