/*
 * test_cli.c - the program `sluice` itself: help, usage, exit codes, and its output against a
 * server with a made-up daemon behind it.
 *
 * test_cli_xdp.c has what is about XDP. Without the program the test is skipped.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/columns.h"
#include "tests/lib/cli_rig.h"
#include "tests/lib/log_fixture.h"

static const char *const commands[] = { "status", "ledger", "tail", "get", "config", "bench",
                                        "send",   "log",    "xdp",  "tap", "cert",   "cluster" };

static void help_lists_the_commands_and_the_exit_codes(void **state)
{
    size_t i;

    assert_int_equal(sluice(NULL, "help"), 0);
    for (i = 0; i < sizeof commands / sizeof *commands; i++)
        has(commands[i]);
    has("Exit codes: 0 ok, 1 negative finding, 2 usage, 3 cannot reach the daemon, 4 refused.");
    assert_int_equal(sluice(NULL, "--help"), 0);
    assert_int_equal(sluice(NULL, "%s", ""), 2);
    assert_int_equal(sluice(NULL, "--version"), 0);
    has("sluice ");
    assert_true(isdigit((unsigned char)got.text[7]));
}

static void every_command_has_help_with_examples(void **state)
{
    size_t i;

    for (i = 0; i < sizeof commands / sizeof *commands; i++) {
        assert_int_equal(sluice(NULL, "%s --help", commands[i]), 0);
        has("Examples:\n");
        has("Exit codes:");
        assert_int_equal(sluice(NULL, "help %s", commands[i]), 0);
        has("Examples:\n");
    }
}

static void an_unknown_command_is_answered_with_the_nearest(void **state)
{
    assert_int_equal(sluice(NULL, "stauts"), 2);
    has("did you mean 'status'?");
    assert_int_equal(sluice(NULL, "tial"), 2);
    has("did you mean 'tail'?");
    assert_int_equal(sluice(NULL, "xylophone"), 2);
    assert_null(strstr(got.text, "did you mean"));
    assert_int_equal(sluice(NULL, "help confg"), 2);
    has("did you mean 'config'?");
}

static void wrong_usage_ends_with_2(void **state)
{
    static const char *const bad[] = {
        "status extra",
        "status --nonsense",
        "ledger extra",
        "get",
        "get a b",
        "get '' --source s",
        "get hex:abc --source s",
        "get hex:zz --source s",
        "get x --source ''",
        "tail extra",
        "tail --from 0",
        "tail --from x",
        "tail --count 0",
        "tail --count -1",
        "tail --source ''",
        "config",
        "config nonsense",
        "config check",
        "config set a",
        "config get a b",
        "config show extra",
        "bench --rate x",
        "bench --batch 0",
        "bench --connections 17",
        "bench extra",
        "tap",
        "tap extra",
        "tap --dropped ''",
        "tap --dropped all --count 0",
        "tap --dropped all extra",
        "bench --seconds 0",
        "cert",
        "cert nonsense",
        "cert create-node --id 0 --host a",
        "cert create-client --role nobody --name x",
        "cert show",
    };
    size_t i;

    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (sluice(NULL, "%s", bad[i]) != 2)
            fail_msg("sluice %s ended with %d: %s", bad[i], got.code, got.text);
    }
}

static void without_a_daemon_it_ends_with_3_and_says_so(void **state)
{
    struct fixture *x = *state;

    assert_int_equal(sluice(x, "status"), 3);
    has("does not exist");
    assert_int_equal(sluice(x, "tail"), 3);
    assert_int_equal(sluice(x, "ledger --socket ./nowhere.sock"), 3);
    has("./nowhere.sock");
    assert_int_equal(sluice(x, "bench --to 127.0.0.1:1 --seconds 1"), 3);
    has("no daemon answers at 127.0.0.1:1");
}

static void status_is_a_table_or_a_document(void **state)
{
    struct fixture *x = *state;
    json_t *j;

    fake_admin_block(&x->fake, 3);
    serve(x, true);
    assert_int_equal(sluice(x, "status"), 0);
    has("leader, term 3145733, epoch 3");
    has("native on eth0 (4 queues), generic on eth1");
    has("no XDP: \"socket\" mode");
    assert_int_equal(sluice(x, "status --json"), 0);
    j = document();
    assert_string_equal(json_string_value(json_object_get(j, "role")), "leader");
    assert_int_equal(json_integer_value(json_object_get(j, "events")), 1234567);
    assert_int_equal(json_integer_value(json_object_get(j, "commitIndex")), 1);
    assert_string_equal(json_string_value(json_object_get(j, "xdp")),
                        "native on eth0 (4 queues), generic on eth1");
    assert_string_equal(json_string_value(json_array_get(json_object_get(j, "notes"), 0)),
                        "no XDP: \"socket\" mode");
    json_decref(j);
}

static void a_ledger_that_does_not_balance_ends_with_1(void **state)
{
    struct fixture *x = *state;
    json_t *j;

    serve(x, true);
    assert_int_equal(sluice(x, "ledger"), 0);
    has("1234560");
    has("source_missing");
    has("balances");
    assert_int_equal(sluice(x, "ledger --json"), 0);
    j = document();
    assert_true(json_is_true(json_object_get(j, "balances")));
    assert_int_equal(json_integer_value(json_object_get(
                         json_object_get(json_object_get(j, "events"), "total"), "committed")),
                     1234560);
    json_decref(j);
    atomic_store(&x->fake.unbalanced, true);
    assert_int_equal(sluice(x, "ledger"), 1);
    has("DOES NOT BALANCE");
    assert_int_equal(sluice(x, "ledger --json"), 1);
    j = document();
    assert_true(json_is_false(json_object_get(j, "balances")));
    json_decref(j);
}

static void tail_prints_what_matches_as_json_lines(void **state)
{
    struct fixture *x = *state;
    json_t *j;

    fake_admin_append_other(&x->fake, LOG_GENESIS);
    fake_admin_block(&x->fake, 12);
    serve(x, true);
    assert_int_equal(sluice(x, "tail --no-follow --json"), 0);
    assert_int_equal(lines(), 12);
    assert_int_equal(sluice(x, "tail --from first --count 5"), 0);
    assert_int_equal(lines(), 5);
    assert_int_equal(sluice(x, "tail --no-follow --type quote"), 0);
    assert_int_equal(lines(), 4);
    assert_int_equal(sluice(x, "tail --no-follow --type 1 --type 2"), 0);
    assert_int_equal(lines(), 8);
    assert_int_equal(sluice(x, "tail --no-follow --type news"), 0); /* named by the settings */
    assert_int_equal(lines(), 0);
    assert_int_equal(sluice(x, "tail --no-follow --type nonsense"), 2);
    assert_int_equal(sluice(x, "tail --no-follow --source feed-0 --symbol S2"), 0);
    assert_int_equal(lines(), 3);
    assert_int_equal(sluice(x, "tail --from 2 --count 1 --json"), 0);
    j = document();
    assert_string_equal(json_string_value(json_object_get(j, "symbol")), "S0");
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(j, "enrichment"), "ingestionId")),
        "3-2-0");
    json_decref(j);
}

static void get_prints_one_event_or_ends_with_1(void **state)
{
    struct fixture *x = *state;
    json_t *j;

    fake_admin_block(&x->fake, 5);
    serve(x, true);
    assert_int_equal(sluice(x, "get 3-1-4 --json"), 0);
    j = document();
    assert_string_equal(json_string_value(json_object_get(j, "source")), "feed-0");
    json_decref(j);
    assert_int_equal(sluice(x, "get 1-3 --source feed-1"), 0);
    has("3-1-3");
    assert_int_equal(sluice(x, "get hex:312d33 --source feed-1"), 0);
    has("3-1-3");
    assert_int_equal(sluice(x, "get 3-1-5"), 1);
    has("there is no such event");
    assert_int_equal(sluice(x, "get 1-3 --source feed-0"), 1);
    assert_int_equal(sluice(x, "get nonsense"), 4);
}

static void settings_are_shown_and_changed(void **state)
{
    struct fixture *x = *state;
    json_t *j;

    serve(x, true);
    assert_int_equal(sluice(x, "config get"), 0);
    has("type.news");
    assert_int_equal(sluice(x, "config get class.trade --json"), 0);
    j = document();
    assert_int_equal(json_array_size(j), 1);
    json_decref(j);
    assert_int_equal(sluice(x, "config get no.such"), 1);
    assert_int_equal(sluice(x, "config history --json"), 0);
    j = document();
    assert_int_equal(json_array_size(j), 3);
    json_decref(j);
    assert_int_equal(sluice(x, "config set class.trade 2"), 0);
    has("from log index 42 on");
    assert_string_equal(x->fake.set_value, "2");
    assert_int_equal(sluice(x, "config set class.trade ''"), 0);
    assert_string_equal(x->fake.set_value, "");
    assert_int_equal(sluice(x, "config set shadow promote"), 0);
    has("shadow: promote at log index 42");
    assert_int_equal(sluice(x, "config set no.such 1"), 4);
    has("there is no setting no.such");
}

static void configurations_are_checked_and_shown(void **state)
{
    struct fixture *x = *state;

    serve(x, true);
    assert_int_equal(sluice(x, "config show"), 0);
    has("node.id 1 default");
    assert_int_equal(sluice(x, "config show --json"), 0);
    has("{\"file\":\"x\"}");
    assert_int_equal(sluice(x, "config show --sample >good.yaml"), 0);
    assert_int_equal(sluice(x, "config check good.yaml"), 0);
    assert_int_equal(sluice(x, "config show --file good.yaml --json"), 0);
    json_decref(document());
    assert_int_equal(sluice(x, "config check good.yaml --json"), 0);
    json_decref(document());
    assert_int_equal(sluice(x, "config check nowhere.yaml"), 1);
    assert_int_equal(sluice(x, "config check /dev/null --json"), 0);
    assert_int_equal(sluice(x, "status --config good.yaml"), 3); /* its own socket, not ours */
    {
        char path[128];
        FILE *f;

        snprintf(path, sizeof path, "%s/bad.yaml", x->dir);
        f = fopen(path, "w");
        assert_non_null(f);
        fputs("node:\n  idd: 1\n", f);
        fclose(f);
    }
    assert_int_equal(sluice(x, "config check bad.yaml"), 1);
    has("bad.yaml:2:");
    assert_int_equal(sluice(x, "config check bad.yaml --json"), 1);
    json_decref(document());
    assert_int_equal(sluice(x, "status --config bad.yaml"), 2);
    assert_int_equal(sluice(x, "config show >/dev/full"), 4);
    sluice(x, "help; rm -f good.yaml bad.yaml");
}

static int no_replay(void *arg, const struct log_record *record, const void *payload) { return 0; }

/* A log of five records in dir. */
static void make_log(const char *dir)
{
    struct log_config config = fixture_config();
    char error[LOG_ERROR_BYTES];
    struct disk *disk;
    struct log *l;
    unsigned i;

    assert_int_equal(disk_uring_open(&disk, dir, 8), 0);
    assert_int_equal(log_open(&l, disk, &config, &fixture_origin, no_replay, NULL, error), 0);
    for (i = 0; i < 5; i++)
        assert_int_equal(fixture_append(l, FIXTURE_TERM, LOG_SETTING, 5000, 7), 0);
    log_close(l);
    disk->ops->fini(disk);
}

/* Turns one byte of the first record's payload. */
static void make_rot(const char *dir)
{
    char command[PATH_MAX + 128];

    snprintf(command, sizeof command,
             "printf '\\377' | dd of=$(ls %s/*.seg | head -1) bs=1 seek=5000 conv=notrunc "
             "2>/dev/null",
             dir);
    assert_int_equal(system(command), 0);
}

static void a_log_on_disk_is_verified(void **state)
{
    char dir[FIXTURE_DIR_BYTES];
    json_t *j;

    fixture_dir_make(dir);
    /* Where there is no log, nothing must not pass for a good one. */
    assert_int_equal(sluice(NULL, "log verify %s", dir), 4);
    has("there is no log");
    assert_int_equal(sluice(NULL, "log verify %s/nowhere", dir), 4);
    assert_int_equal(sluice(NULL, "log verify"), 2);
    assert_int_equal(sluice(NULL, "log nonsense %s", dir), 2);
    make_log(dir);
    assert_int_equal(sluice(NULL, "log verify %s", dir), 0);
    has("1 to 5");
    make_rot(dir);
    assert_int_equal(sluice(NULL, "log verify %s", dir), 1);
    has("problem: ");
    assert_int_equal(sluice(NULL, "log verify %s --json", dir), 1);
    j = document();
    assert_true(json_array_size(json_object_get(j, "problems")) > 0);
    json_decref(j);
    fixture_dir_remove(dir);
}

static void numbers_get_separators_for_people(void **state)
{
    char text[COLUMNS_NUMBER_BYTES];

    assert_string_equal(columns_number_text(text, 0, true), "0");
    assert_string_equal(columns_number_text(text, 999, true), "999");
    assert_string_equal(columns_number_text(text, 1000, true), "1,000");
    assert_string_equal(columns_number_text(text, 1234567, true), "1,234,567");
    assert_string_equal(columns_number_text(text, 1234567, false), "1234567");
    assert_string_equal(columns_number_text(text, UINT64_MAX, true), "18,446,744,073,709,551,615");
}

static void columns_are_aligned(void **state)
{
    static struct columns t;
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);

    columns_init(&t, "lr", true);
    columns_text(&t, "a"), columns_number(&t, 1);
    columns_text(&t, "M\xc3\xbcnchen"), columns_number(&t, 1000);
    columns_print(&t, f, 2);
    fclose(f);
    assert_string_equal(text, "  a            1\n  M\xc3\xbcnchen  1,000\n");
    free(text);
}

#define SERVED(f) cmocka_unit_test_setup_teardown(f, admin_fixture_setup, admin_fixture_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_lists_the_commands_and_the_exit_codes),
        cmocka_unit_test(every_command_has_help_with_examples),
        cmocka_unit_test(an_unknown_command_is_answered_with_the_nearest),
        cmocka_unit_test(wrong_usage_ends_with_2),
        SERVED(without_a_daemon_it_ends_with_3_and_says_so),
        SERVED(status_is_a_table_or_a_document),
        SERVED(a_ledger_that_does_not_balance_ends_with_1),
        SERVED(tail_prints_what_matches_as_json_lines),
        SERVED(get_prints_one_event_or_ends_with_1),
        SERVED(settings_are_shown_and_changed),
        SERVED(configurations_are_checked_and_shown),
        cmocka_unit_test(a_log_on_disk_is_verified),
        cmocka_unit_test(numbers_get_separators_for_people),
        cmocka_unit_test(columns_are_aligned),
    };

    if (!cli_rig_find(argv[0]))
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
