/*
 * test_apply.c - the store on a real cluster: duplicates, settings and the dedupe index over
 * restarts.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <pb_encode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/apply.h"
#include "tests/lib/settings_rig.h"
#include "tests/lib/test_app.h"

static struct test_app t; /* its blocks, link and directory; the app is the store */
static struct store *store;
static uint64_t past_ms;
static struct settings seen; /* the last that the store gave */
static unsigned seen_n;

static void on_settings(void *arg, const struct settings *s)
{
    (void)arg;
    past_ms = s->skew_past_ms;
    seen = *s;
    seen_n++;
}

static void on_failed(void *arg, const char *sentence)
{
    (void)arg;
    fail_msg("failed: %s", sentence);
}

static void start(void)
{
    char dir[128], error[LOG_ERROR_BYTES] = "";
    struct store_config config = { .dir = dir,
                                   .dedupe_memory_bytes_max = 32 << 20,
                                   .on_settings = on_settings,
                                   .failed = on_failed };
    struct cluster_config cluster = {
        .dir = t.dir,
        .node = 1,
        .region = 1,
        .segment_age_ns_max = 300000000000ull,
        .log = { .segment_bytes = 1 << 20, .writes_max = 8, .mark_idle_ms = 10 },
        .link = &t.link,
        .links = 1,
    };
    struct cluster_app app;

    snprintf(dir, sizeof dir, "%s/dedupe", t.dir);
    assert_int_equal(store_init(&store, &config), 0);
    store_app(store, &app);
    app.failed = on_failed;
    if (cluster_start(&t.cluster, &cluster, &app, error) < 0)
        fail_msg("no start: %s", error);
    assert_int_equal(store_start(store), 0);
}

static void stop(void)
{
    test_app_stop(&t);
    store_fini(store);
    store = NULL;
}

/* Numbers from first on; their content is what a replay computes. */
static struct block *send_block(uint32_t n, uint64_t first)
{
    const uint8_t *key = cluster_hash_key(t.cluster);
    struct block *b = t.block[0];

    test_app_fill(&t, 0, n, 200, first);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t number = first + i;

        b->desc[i].key = hash_event_key(key, "test", 4, &number, sizeof number);
        b->content[i] = hash_content(key, block_payload(b) + b->desc[i].offset, 200);
    }
    block_seal(b, 1, 1);
    test_app_submit(&t, 0);
    return test_app_answer(&t);
}

static int64_t set_key(const char *key, const char *value)
{
    sluice_v1_Setting s = sluice_v1_Setting_init_zero;
    char sentence[LOG_ERROR_BYTES];
    int64_t index;

    snprintf(s.key, sizeof s.key, "%s", key);
    snprintf(s.value, sizeof s.value, "%s", value);
    index = cluster_propose_setting(t.cluster, &s, sentence);
    assert_true(index > 0);
    return index;
}

static void set(const char *value) { set_key("skew.past_ms", value); }

static void run(const char *what)
{
    char command[256];

    snprintf(command, sizeof command, "cd %s && %s", t.dir, what);
    assert_int_equal(system(command), 0);
}

static int setup(void **state)
{
    (void)state;
    test_app_init(&t);
    start();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stop();
    test_app_fini(&t);
    return 0;
}

static void an_event_is_accepted_once_over_blocks_restarts_and_a_lost_index(void **state)
{
    static const char *const between[] = { "true", "rm -r dedupe", "rm -r checkpoint",
                                           "rm -r dedupe checkpoint" };
    struct cluster_status s;

    (void)state;
    for (uint64_t i = 0; i < 20; i++)
        assert_int_equal(send_block(1000, i * 1000)->accepted, 1000);
    for (unsigned restart = 0; restart < 4; restart++) {
        stop();
        run(between[restart]);
        start();
        for (uint64_t i = 0; i < 20; i++) {
            struct block *b = send_block(1000, i * 1000);

            assert_int_equal(b->accepted, 0);
            for (uint32_t e = 0; e < 1000; e++)
                assert_int_equal(b->verdict[e], VERDICT_DUPLICATE);
        }
        assert_int_equal(send_block(1000, 19500 + restart * 500)->accepted, 500);
        for (unsigned i = 0; i < 6; i++) /* a checkpoint for the next round */
            send_block(1000, 30000 + restart * 6000 + i * 1000);
    }
    cluster_status(t.cluster, &s);
    assert_int_equal(s.events, 20000 + 4 * 500 + 24000);
    assert_int_equal(s.events_by_type[1], s.events);
}

static void a_setting_is_applied_once_whether_a_checkpoint_has_it_or_not(void **state)
{
    size_t n;

    (void)state;
    set("1000");
    for (uint64_t i = 0; i < 12; i++)
        send_block(1000, i * 1000);
    set("2000");
    for (int restart = 0; restart < 3; restart++) {
        assert_int_equal(past_ms, 2000);
        (void)store_history(store, &n);
        assert_int_equal(n, 2);
        stop();
        if (restart == 1)
            run("rm -r dedupe");
        past_ms = 0;
        start();
    }
}

/* Makes as many lines as there can be; the values are such as differ from every default. */
static void fill_settings(struct settings *s)
{
    static const char *const types[] = { "trade", "quote", "orderbook" };
    static const char *const numbers[] = { "limit.source_per_s", "limit.source_burst",
                                           "limit.syn_per_s",    "limit.syn_burst",
                                           "skew.past_ms",       "skew.future_ms",
                                           "event.bytes_max" };
    char key[SETTINGS_KEY_BYTES], value[32];

    for (unsigned i = 0; i < SETTINGS_TYPES_SET; i++) {
        snprintf(value, sizeof value, "%u", i + 61);
        snprintf(key, sizeof key, "type.the_longest_name_of_a_type_%u", i + 61);
        if (i >= 3)
            settings_takes(s, key, value);
        for (unsigned shadow = 0; shadow < 2; shadow++) {
            const char *type = i < 3 ? types[i] : value, *before = shadow ? "shadow." : "";

            snprintf(key, sizeof key, "%sclass.%s", before, type);
            settings_takes(s, key, i < 3 ? "3" : "0");
            snprintf(key, sizeof key, "durability.%s", type);
            if (!shadow)
                settings_takes(s, key, "region");
            snprintf(key, sizeof key, "%sadmit.%s", before, type);
            settings_takes(s, key, "rate 10000000 burst 10000000");
        }
    }
    for (unsigned i = 0; i < SETTINGS_SOURCES_MAX; i++) {
        snprintf(key, sizeof key, "shadow.source.2001:1db8:3333:4444:5555:6666:7777:8%x",
                 0x100 + i);
        settings_takes(s, key + 7, "deny");
        settings_takes(s, key, "allow");
    }
    settings_takes(s, "region.unreachable", "fail");
    settings_takes(s, "region.wait_ms", "777");
    settings_takes(s, "region.stop_after_s", "777");
    settings_takes(s, "ingest.paused", "1");
    for (unsigned i = 0; i < 7; i++) {
        settings_takes(s, numbers[i], "777");
        snprintf(key, sizeof key, "shadow.%s", numbers[i]);
        if (i < 4)
            settings_takes(s, key, "778");
    }
}

/* More than 64 KiB of them, which is where nanopb's own arrays end. */
static void a_checkpoint_holds_as_many_settings_as_there_can_be(void **state)
{
    static struct settings wanted;
    static struct settings_lines lines;
    struct cluster_status status;
    uint64_t last = 0;

    (void)state;
    settings_init(&wanted);
    fill_settings(&wanted);
    lines = *settings_lines(&wanted);
    assert_int_equal(lines.n, SETTINGS_LINES_MAX);
    for (uint32_t i = 0; i < lines.n; i++) {
        assert_string_not_equal(lines.at[i].value, lines.at[i].value_default);
        last = (uint64_t)set_key(lines.at[i].key, lines.at[i].value);
    }
    assert_memory_equal(&seen, &wanted, sizeof wanted);
    cluster_status(t.cluster, &status);
    for (uint64_t i = 0; status.checkpoint_index < last && i < 1000; i++) {
        send_block(1000, i * 1000);
        cluster_status(t.cluster, &status);
    }
    assert_true(status.checkpoint_index >= last);
    stop();
    memset(&seen, 0, sizeof seen);
    seen_n = 0;
    start();
    assert_int_equal(seen_n, 1); /* at once, from the checkpoint, not one by one from the log */
    assert_memory_equal(&seen, &wanted, sizeof wanted);
}

/* The log goes back behind the only setting, and there is no checkpoint: a failover elsewhere. */
static void a_setting_that_is_rolled_back_is_not_in_force(void **state)
{
    struct store_config config = { .dir = t.dir,
                                   .dedupe_memory_bytes_max = 32 << 20,
                                   .on_settings = on_settings,
                                   .failed = on_failed };
    const uint8_t id[16] = { 1 };
    const sluice_v1_Setting change = { .key = "skew.past_ms", .value = "777" };
    struct log_record r = { .index = 2, .term = 1, .type = LOG_SETTING };
    uint8_t payload[sluice_v1_Setting_size];
    pb_ostream_t out = pb_ostream_from_buffer(payload, sizeof payload);
    struct settings defaults;
    struct cluster_app app;
    uint64_t covered;

    (void)state;
    stop();
    settings_init(&defaults);
    assert_true(pb_encode(&out, sluice_v1_Setting_fields, &change));
    r.payload_bytes = (uint32_t)out.bytes_written;
    assert_int_equal(store_init(&store, &config), 0);
    store_app(store, &app);
    seen_n = 0;
    assert_int_equal(app.open(app.arg, id, 0, &covered), 0);
    app.opened(app.arg);
    assert_int_equal(seen_n, 0); /* the defaults are known */
    assert_int_equal(app.apply(app.arg, &r, payload, APPLY_OTHERS), 0);
    assert_int_equal(past_ms, 777);
    app.close(app.arg);
    assert_int_equal(app.open(app.arg, id, 3, &covered), 0);
    app.opened(app.arg);
    r = (struct log_record){ .index = 2, .term = 1, .type = LOG_BARRIER };
    assert_int_equal(app.apply(app.arg, &r, NULL, APPLY_OTHERS), 0);
    assert_int_equal(past_ms, 777); /* it may come yet */
    r.index = 3;
    assert_int_equal(app.apply(app.arg, &r, NULL, APPLY_OTHERS), 0);
    assert_int_equal(past_ms, defaults.skew_past_ms);
    assert_int_equal(seen_n, 2);
    app.close(app.arg);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_event_is_accepted_once_over_blocks_restarts_and_a_lost_index),
        T(a_setting_is_applied_once_whether_a_checkpoint_has_it_or_not),
        T(a_checkpoint_holds_as_many_settings_as_there_can_be),
        T(a_setting_that_is_rolled_back_is_not_in_force),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
