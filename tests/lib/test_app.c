/*
 * test_app.c - see test_app.h.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <ftw.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/test_app.h"
#include "base/clock.h"
#include "tests/lib/quiet_app.h"

static int app_ready(void *arg, size_t n)
{
    (void)n;
    return ((struct test_app *)arg)->ready;
}

static int app_admit(void *arg, struct block *b, uint64_t index)
{
    struct test_app *t = arg;

    (void)index;
    if (t->admit_left < 0)
        return (int)b->events;
    for (uint32_t i = (uint32_t)t->admit_left; i < b->events; i++)
        b->verdict[i] = VERDICT_DUPLICATE;
    return t->admit_left;
}

static void app_withdraw(void *arg, const struct block *b)
{
    const struct test_app *t = arg;

    (void)b;
    if (t->peering == NULL)
        fail_msg("a single node withdraws nothing");
}

static int app_apply(void *arg, const struct log_record *r, const void *payload,
                     enum cluster_apply how)
{
    struct test_app *t = arg;
    struct block_view v;

    if ((how == APPLY_START) == t->opened)
        t->out_of_order = true;
    if (t->last_applied != 0 && r->index != t->last_applied + 1)
        t->out_of_order = true;
    t->last_applied = r->index;
    t->applied_entries++;
    if (r->type == LOG_EVENTS) {
        if (block_view(&v, payload, r->payload_bytes) < 0)
            return -EBADMSG;
        t->applied_events += v.header->events;
        for (uint32_t i = 0; i < v.header->events; i++) {
            uint64_t number;

            memcpy(&number, v.payload + v.desc[i].offset, sizeof number);
            if (number < TEST_APP_NUMBERS)
                t->seen[number]++;
        }
    }
    return 0;
}

static int app_open(void *arg, const uint8_t id[16], uint64_t last_index, uint64_t *ret_covered)
{
    (void)id;
    ((struct test_app *)arg)->opened_last_index = last_index;
    *ret_covered = 0; /* everything is to be replayed */
    return 0;
}

static void app_opened(void *arg) { ((struct test_app *)arg)->opened = true; }

static void app_failed(void *arg, const char *sentence)
{
    struct test_app *t = arg;

    snprintf(t->failure, sizeof t->failure, "%s", sentence);
    t->failed = true;
    wake_up(&t->link.wake);
}

static int app_load(void *arg, const struct cluster_checkpoint *c)
{
    (void)arg;
    return c->settings == 0 ? 0 : -EBADMSG;
}

void test_app_init(struct test_app *t)
{
    memset(t, 0, sizeof *t);
    t->admit_left = -1;
    snprintf(t->dir, sizeof t->dir, "/tmp/sluice-cluster-XXXXXX");
    assert_non_null(mkdtemp(t->dir));
    assert_int_equal(ring_init(&t->link.submit, TEST_APP_BLOCKS), 0);
    assert_int_equal(ring_init(&t->link.answer, TEST_APP_BLOCKS), 0);
    assert_int_equal(wake_open(&t->link.wake), 0);
    for (int i = 0; i < TEST_APP_BLOCKS; i++) {
        t->block[i] = calloc(1, sizeof *t->block[i]);
        assert_non_null(t->block[i]);
        assert_int_equal(block_init(t->block[i], 0), 0);
    }
}

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *f)
{
    (void)s, (void)flag, (void)f;
    return remove(path);
}

void test_app_fini(struct test_app *t)
{
    test_app_stop(t);
    for (int i = 0; i < TEST_APP_BLOCKS; i++) {
        block_fini(t->block[i]);
        free(t->block[i]);
    }
    ring_fini(&t->link.submit);
    ring_fini(&t->link.answer);
    wake_close(&t->link.wake);
    nftw(t->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int test_app_try_start(struct test_app *t, char error[LOG_ERROR_BYTES])
{
    const struct cluster_config config = {
        .dir = t->dir,
        .node = t->node ? t->node : 1,
        .peering = t->peering,
        .region = t->region != 0 ? t->region : 1,
        .segment_age_ns_max = t->segment_age_ns ? t->segment_age_ns : 300000000000ull,
        .log = { .segment_bytes = 1 << 20,
                 .disk_free_bytes_min = 0,
                 .writes_max = 8,
                 .mark_idle_ms = 10 },
        .scrub_bytes_per_s = t->scrub_bytes_per_s,
        .scrub_pause_ms = 1,
        .disk = t->disk,
        .link = &t->link,
        .links = 1,
    };
    struct cluster_app app = quiet_app(t);

    app.ready = app_ready;
    app.admit = app_admit;
    app.withdraw = app_withdraw;
    app.apply = app_apply;
    app.open = app_open;
    app.opened = app_opened;
    app.failed = app_failed;
    app.load = app_load;
    t->applied_entries = t->applied_events = t->last_applied = 0;
    t->out_of_order = t->opened = false;
    t->failed = false;
    memset(t->seen, 0, sizeof t->seen);
    return cluster_start(&t->cluster, &config, &app, error);
}

void test_app_start(struct test_app *t)
{
    char error[LOG_ERROR_BYTES] = "";

    if (test_app_try_start(t, error) < 0)
        fail_msg("the cluster does not start: %s", error);
}

void test_app_stop(struct test_app *t)
{
    cluster_stop(t->cluster);
    t->cluster = NULL;
}

void test_app_fill(struct test_app *t, int i, uint32_t n, uint32_t bytes, uint64_t first)
{
    struct block *b = t->block[i];

    block_reset(b);
    b->receive_time_ns = clock_unix_ns();
    for (uint32_t e = 0; e < n; e++) {
        uint64_t number = first + e;

        memset(block_payload(b) + b->bytes, (int)(number & 0xff), bytes);
        memcpy(block_payload(b) + b->bytes, &number, sizeof number);
        b->desc[e] = (struct block_desc){
            .key = { number, ~number },
            .offset = b->bytes,
            .bytes = (uint16_t)bytes,
            .type = 1,
        };
        b->type[e] = 1;
        b->verdict[e] = VERDICT_COMMITTED;
        b->request_of[e] = REQUEST_NONE;
        b->by_type[1]++;
        b->bytes += bytes;
        b->events++;
    }
    block_seal(b, t->node ? t->node : 1, 1);
}

void test_app_submit(struct test_app *t, int i)
{
    assert_true(ring_push(&t->link.submit, t->block[i]));
    cluster_wake(t->cluster);
}

struct block *test_app_answer_or_failure(struct test_app *t)
{
    for (;;) {
        struct pollfd p = { .fd = t->link.wake.fd, .events = POLLIN };
        bool failed = t->failed; /* before the ring: what was answered before it counts */
        struct block *b = ring_pop(&t->link.answer);

        if (b != NULL || failed)
            return b;
        wake_prepare(&t->link.wake);
        if (ring_empty(&t->link.answer) && !t->failed && poll(&p, 1, 20000) != 1)
            fail_msg("neither an answer nor a failure within 20 s");
        wake_done(&t->link.wake);
        wake_drain(&t->link.wake);
    }
}

struct block *test_app_answer(struct test_app *t)
{
    struct block *b = test_app_answer_or_failure(t);

    if (b == NULL)
        fail_msg("the node failed: %s", t->failure);
    return b;
}
