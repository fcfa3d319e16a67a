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
#include <string.h>

#include "cluster/segment.h"
#include "tests/lib/log_fixture.h"

struct ctx {
    char dir[FIXTURE_DIR_BYTES];
    char error[LOG_ERROR_BYTES];
    struct disk *disk;
    struct log *log;
    struct log_origin origin;
    uint64_t replayed, first_replayed;
};

static int on_replay(void *arg, const struct log_record *r, const void *payload)
{
    struct ctx *c = arg;

    if (c->replayed == 0)
        c->first_replayed = r->index;
    else
        assert_int_equal(r->index, c->first_replayed + c->replayed);
    assert_true(fixture_payload_is(payload, r->payload_bytes, r->index, 0));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_appended_is_there_after_a_restart, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
