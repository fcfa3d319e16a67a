/*
 * test_commit.c - what is committed, on a node that is turned by hand and in a time of its own:
 * entries for which there is no room yet, blocks whose entries another leader has replaced, and
 * those that another node has admitted.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pb_encode.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cluster/internal.h"
#include "proto/wire.pb.h"
#include "store/apply.h"
#include "tests/lib/quiet_app.h"
#include "tests/lib/test_app.h"
#include "tests/lib/test_disk.h"

static struct test_app t; /* its blocks, link and directory */
static struct cluster *node;
static struct store *store;
static uint64_t now_ns;

/* The app: applies what it is told to. */
static int answer;
static unsigned applied, asked;

static uint64_t test_monotonic(void *arg) { return (void)arg, now_ns; }
static uint64_t test_unix(void *arg) { return (void)arg, 1790000000 * NS_PER_S + now_ns; }
static void test_random(void *arg, void *ret, size_t n) { (void)arg, memset(ret, 7, n); }

static void app_failed(void *arg, const char *sentence)
{
    (void)arg;
    fail_msg("%s", sentence);
}

static int app_apply(void *arg, const struct log_record *r, const void *payload,
                     enum cluster_apply how)
{
    (void)arg, (void)payload, (void)how;
    if (r->type != LOG_EVENTS)
        return 0;
    asked++;
    applied += answer == 0;
    return answer;
}

static void make(const struct cluster_app *app)
{
    static const struct node_environment environment = { .monotonic_ns = test_monotonic,
                                                         .unix_ns = test_unix,
                                                         .random = test_random };
    struct cluster_config config = {
        .dir = t.dir,
        .node = 1,
        .region = 1,
        .segment_age_ns_max = 300 * NS_PER_S,
        .log = { .segment_bytes = 1 << 20, .writes_max = 8, .mark_idle_ms = 10 },
        .disk = t.disk,
        .link = &t.link,
        .links = 1,
    };

    node = node_new(&config, app, &environment);
    assert_non_null(node);
}

static void turn(void)
{
    int e;

    while ((e = node_turn(node)) > 0) {
    }
    if (e < 0)
        fail_msg("%s", node->error);
}

static int setup(void **state)
{
    (void)state;
    test_app_init(&t);
    t.disk = test_disk_make(1);
    now_ns = NS_PER_S;
    answer = 0;
    applied = asked = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    node_free(node);
    node = NULL;
    store_fini(store);
    store = NULL;
    test_disk_free(t.disk);
    t.disk = NULL;
    test_app_fini(&t);
    return 0;
}

/* A node that leads and has taken a block of 10 events, which the app does not take yet. */
static void submit_refused(int error)
{
    struct cluster_app app = quiet_app(NULL);

    app.apply = app_apply;
    make(&app);
    if (node_open(node) < 0)
        fail_msg("%s", node->error);
    for (int i = 0; i < 100 && node->lead != LEAD_READY; i++) {
        turn();
        now_ns += NS_PER_MS;
    }
    assert_int_equal(node->lead, LEAD_READY);
    answer = error;
    test_app_fill(&t, 0, 10, 100, 1);
    assert_true(ring_push(&t.link.submit, t.block[0]));
    for (int i = 0; i < 100 && asked == 0; i++)
        turn(); /* the disk completes when it likes */
    assert_int_equal(asked, 1);
}

static void wait_and_take(uint64_t wait_ns)
{
    uint64_t index = node->applied_index, begun_ns = now_ns;

    for (unsigned i = 1; i <= 3; i++) {
        /* Nobody asks before the time, and the node does not sleep longer. */
        assert_true(node_deadline_ns(node, now_ns) <= begun_ns + i * wait_ns);
        now_ns = begun_ns + i * wait_ns - 1;
        turn();
        assert_int_equal(asked, i);
        now_ns++;
        turn();
        assert_int_equal(asked, i + 1);
    }
    assert_int_equal(applied, 0);
    assert_int_equal(node->applied_index, index);
    assert_int_equal(node->events, 0);
    assert_true(ring_empty(&t.link.answer));
    answer = 0;
    now_ns += wait_ns;
    turn();
    assert_int_equal(applied, 1);
    assert_int_equal(node->applied_index, index + 1);
    assert_int_equal(node->events, 10); /* counted once */
    assert_int_equal(node->apply_wait, 0);
    assert_ptr_equal(ring_pop(&t.link.answer), t.block[0]);
    assert_int_equal(t.block[0]->verdict[0], VERDICT_COMMITTED);
}

static void an_entry_waits_while_a_table_is_written(void **state)
{
    (void)state;
    submit_refused(-EAGAIN);
    assert_false(node->disk_full);
    wait_and_take(NS_PER_MS);
}

static void an_entry_waits_while_the_disk_is_full_and_that_is_told(void **state)
{
    (void)state;
    submit_refused(-ENOSPC);
    assert_true(node->disk_full);
    wait_and_take(100 * NS_PER_MS);
    assert_false(node->disk_full);
}

static void a_node_may_end_while_an_entry_waits(void **state)
{
    (void)state;
    submit_refused(-ENOSPC);
    assert_false(commit_idle(node)); /* its block has no answer */
    forward_give_up(node);
    turn();
    assert_ptr_equal(ring_pop(&t.link.answer), t.block[0]);
    assert_int_equal(t.block[0]->verdict[0], VERDICT_REFUSED);
    assert_int_equal(node->apply_wait, -ENOSPC);
    assert_true(commit_idle(node));
}

/* --- withdrawn ----------------------------------------------------------------------------------
 */

static void on_settings(void *arg, const struct settings *s) { (void)arg, (void)s; }

static void make_with_store(void)
{
    static char dir[128];
    const struct store_config config = { .dir = dir,
                                         .dedupe_memory_bytes_max = DEDUPE_MEMORY_BYTES_MIN,
                                         .on_settings = on_settings,
                                         .failed = app_failed };
    const uint8_t id[16] = { 1 };
    struct cluster_app app;
    uint64_t covered;

    snprintf(dir, sizeof dir, "%s/dedupe", t.dir);
    assert_int_equal(store_init(&store, &config), 0);
    store_app(store, &app);
    make(&app);
    assert_int_equal(app.open(app.arg, id, 0, &covered), 0);
    app.opened(app.arg);
}

/* Block i, of these events, as if the worker had refused one of the request before. */
static struct block *admit(int i, uint32_t n, const uint64_t *numbers, uint64_t index)
{
    struct block *b = t.block[i];
    int left;

    test_app_fill(&t, i, n, 100, 1);
    b->requests = 1;
    b->request[0] = (struct block_request){ .events = (uint16_t)n, .positions = (uint16_t)n + 1 };
    b->exception[b->exceptions++] =
        (struct block_exception){ .position = 0, .reason = sluice_v1_Reason_SOURCE_MISSING };
    for (uint32_t e = 0; e < n; e++) {
        b->desc[e].key = (struct key128){ numbers[e] << 40, numbers[e] };
        b->content[e] = numbers[e];
        b->request_of[e] = 0;
        b->position[e] = (uint16_t)(1 + e);
    }
    b->wait_index = 0;
    b->exceptions_before = b->exceptions;
    assert_int_equal(node->app.ready(store, n), 0);
    left = node->app.admit(store, b, index);
    assert_true(left >= 0);
    b->accepted = (uint32_t)left;
    b->index = left > 0 ? index : 0;
    if (left > 0)
        b->wait_index = index;
    commit_answer_later(node, b);
    return b;
}

static void assert_refused(const struct block *b)
{
    for (uint32_t e = 0; e < b->events; e++)
        assert_int_equal(b->verdict[e], VERDICT_REFUSED);
    assert_int_equal(b->refuse_reason, sluice_v1_Reason_NOT_LEADER);
    assert_int_equal(b->accepted, 0);
    assert_int_equal(b->index, 0);
    assert_int_equal(b->wait_index, 0); /* answered at once */
    assert_int_equal(b->exceptions, 1); /* what the worker said, and nothing of a first place */
    assert_int_equal(b->exception[0].reason, sluice_v1_Reason_SOURCE_MISSING);
}

static void what_was_admitted_for_a_cut_entry_is_forgotten_and_refused(void **state)
{
    const struct block *kept, *duplicates, *waits, *last, *x;
    int i = 0;

    (void)state;
    make_with_store();
    kept = admit(0, 3, (uint64_t[]){ 1, 2, 3 }, 10);
    waits = admit(1, 3, (uint64_t[]){ 2, 4, 5 }, 11); /* one of them is in entry 10 */
    duplicates = admit(2, 2, (uint64_t[]){ 4, 1 }, 12);
    last = admit(3, 2, (uint64_t[]){ 5, 6 }, 12);
    assert_int_equal(waits->exceptions, 2);
    assert_int_equal(duplicates->index, 0);
    assert_int_equal(duplicates->wait_index, 11);
    assert_int_equal(duplicates->exceptions, 3);

    commit_withdraw(node, 11);

    for (x = node->answers; x != NULL; x = x->next) /* in the same order */
        assert_ptr_equal(x, t.block[i++]);
    assert_int_equal(i, 4);
    assert_ptr_equal(node->answers_tail, &t.block[3]->next);
    assert_int_equal(kept->index, 10);
    assert_int_equal(kept->wait_index, 10);
    assert_int_equal(kept->verdict[0], VERDICT_COMMITTED);
    assert_refused(waits);
    assert_refused(duplicates);
    assert_refused(last);

    /* Sent again: new, but for those of entry 10. */
    x = admit(4, 6, (uint64_t[]){ 6, 5, 4, 3, 2, 1 }, 11);
    assert_memory_equal(x->verdict, ((uint8_t[]){ 0, 0, 0, 1, 1, 1 }), 6);
    assert_int_equal(x->exception[1].first_index, 10);
    node->answers = NULL;
}

/* --- entered ------------------------------------------------------------------------------------
 */

static void apply_genesis(uint8_t hash_key[HASH_KEY_BYTES])
{
    sluice_v1_Genesis g = { .format = BLOCK_VERSION };
    _Alignas(8) uint8_t bytes[sluice_v1_Genesis_size + 8] = { 0 };
    pb_ostream_t s = pb_ostream_from_buffer(bytes, sizeof bytes);
    struct log_record r = { .index = 2, .type = LOG_GENESIS };

    memset(g.hash_key, 5, sizeof g.hash_key);
    memcpy(hash_key, g.hash_key, HASH_KEY_BYTES);
    assert_true(pb_encode(&s, sluice_v1_Genesis_fields, &g));
    r.payload_bytes = (uint32_t)(s.bytes_written + 7) / 8 * 8;
    assert_int_equal(node->app.apply(store, &r, bytes, APPLY_OTHERS), 0);
}

static void what_another_node_has_admitted_is_known_here(void **state)
{
    struct block *b = t.block[0], *again = t.block[1];
    uint8_t hash_key[HASH_KEY_BYTES];
    struct log_record r = { .index = 10, .type = LOG_EVENTS };
    struct dedupe_stats stats;

    (void)state;
    make_with_store();
    apply_genesis(hash_key);
    test_app_fill(&t, 0, 5, 100, 1);
    r.payload_bytes = b->write.record.payload_bytes;
    /* Once from memory and once from the disk, say. */
    for (int i = 0; i < 2; i++)
        assert_int_equal(node->app.apply(store, &r, block_payload(b), APPLY_OTHERS), 0);
    store_stats(store, &stats);
    assert_int_equal(stats.keys, 5);

    test_app_fill(&t, 1, 7, 100, 0); /* another one before them and behind them */
    for (uint32_t e = 0; e < 7; e++)
        again->content[e] =
            hash_content(hash_key, block_payload(again) + again->desc[e].offset, 100);
    again->content[5]++;
    assert_int_equal(node->app.ready(store, 7), 0);
    assert_int_equal(node->app.admit(store, again, 11), 2);
    assert_memory_equal(again->verdict, ((uint8_t[]){ 0, 1, 1, 1, 1, 2, 0 }), 7);
    assert_int_equal(again->wait_index, 10);
}

/* Its entry may be committed yet, or cut: nothing is applied any more, so no run says either. */
static void before_a_stop_all_is_refused_and_nothing_more_applied(void **state)
{
    uint64_t index;

    (void)state;
    submit_refused(-EAGAIN);
    index = node->applied_index;
    forward_give_up(node);
    answer = 0;
    now_ns += NS_PER_S;
    turn();
    assert_int_equal(node->applied_index, index);
    assert_int_equal(applied, 0);
    assert_ptr_equal(ring_pop(&t.link.answer), t.block[0]);
    assert_int_equal(t.block[0]->verdict[0], VERDICT_REFUSED);
    assert_int_equal(t.block[0]->refuse_reason, sluice_v1_Reason_NOT_LEADER);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_entry_waits_while_a_table_is_written),
        T(an_entry_waits_while_the_disk_is_full_and_that_is_told),
        T(a_node_may_end_while_an_entry_waits),
        T(before_a_stop_all_is_refused_and_nothing_more_applied),
        T(what_was_admitted_for_a_cut_entry_is_forgotten_and_refused),
        T(what_another_node_has_admitted_is_known_here),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
