/*
 * config.c - `sluice config`: the node's configuration file, and the cluster's replicated settings.
 */
#include "base/config.h"

#include <errno.h>
#include <inttypes.h>
#include <pb_decode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/field_walk.h"
#include "cli/cli.h"
#include "cli/columns.h"

static const char help[] =
    "sluice config check FILE          is this a good configuration file for sluiced?\n"
    "sluice config show [--file FILE]  the effective configuration: of the daemon, or of a file\n"
    "sluice config get [KEY]           the cluster's settings, or one of them\n"
    "sluice config set KEY VALUE       changes a setting; an empty VALUE takes it back\n"
    "sluice config history             every change of a setting: when, by whom\n\n"
    "The file holds what is this node's own; settings are replicated through the log.\n"
    "Exit code 1 when the file is bad, or there is no such setting.\n\n"
    "Options:\n"
    "  --file FILE      with show: this file, no daemon needed\n"
    "  --sample         with show: a commented file with every key at its "
    "default\n" CLI_OPTIONS_HELP "\nExamples:\n"
    "  sluice config check /etc/sluice/sluiced.yaml\n"
    "  sluice config show --json\n"
    "  sluice config set type.news 64\n"
    "  sluice config set class.quote ''\n"
    "  sluice config set admit.quote 'rate 5000 burst 500'\n"
    "  sluice config set source.10.1.0.0/16 deny\n"
    "  sluice config set shadow.admit.trade 'sample 10'\n"
    "  sluice config set shadow promote\n"
    "  sluice config get skew.past_ms\n" CLI_EXIT_HELP;

struct config_options {
    struct cli_options common;
    const char *file;
    bool sample;
    int args;
    char **arg; /* behind the subcommand */
};

/* --- the file ----------------------------------------------------------------------------------
 */

/* Loads a file (NULL: the defaults), says what is wrong with it, or prints it. */
static int file_print(const char *file, const enum config_format *format, int bad)
{
    char error[CONFIG_ERROR_BYTES] = "";
    struct config *c = calloc(1, sizeof *c);
    int rc, code = CLI_OK;

    if (c == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    rc = file ? config_load(file, c, error) : config_init_defaults(c);
    if (rc < 0)
        code = cli_error(bad, "%s", error[0] ? error : strerror(-rc));
    else if (format == NULL)
        printf("%s: good\n", file);
    else if (config_print(c, *format, stdout) < 0)
        code = cli_error(CLI_REFUSED, "the output cannot be written");
    config_fini(c);
    free(c);
    return cli_finish(code);
}

static int check(const struct config_options *o)
{
    char error[CONFIG_ERROR_BYTES] = "";
    struct config *c;
    int rc;

    if (o->args != 1)
        return cli_usage("config", "check takes one file");
    if (!o->common.json)
        return file_print(o->arg[0], NULL, CLI_NEGATIVE);
    c = calloc(1, sizeof *c);
    if (c == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    rc = config_load(o->arg[0], c, error);
    config_fini(c);
    free(c);
    return cli_print_json(json_pack("{s:s, s:b, s:s}", "file", o->arg[0], "good", rc == 0, "error",
                                    rc < 0 && !error[0] ? strerror(-rc) : error),
                          rc == 0 ? CLI_OK : CLI_NEGATIVE);
}

static int show_daemon(const struct config_options *o)
{
    struct admin_request r = { .which = ADMIN_CONFIG_SHOW };
    uint32_t wanted = o->common.json ? sluice_v1_ConfigShowResponse_json_tag
                                     : sluice_v1_ConfigShowResponse_text_tag;
    struct admin_response response;
    struct admin_client c;
    struct field_walk walk;
    struct field f;
    int rc = cli_ask(&c, &o->common, &r);

    if (rc == CLI_OK)
        rc = cli_response(&c, false, &response);
    if (rc == CLI_OK) {
        field_walk_init(&walk, response.body, response.body_bytes);
        while (field_walk_next(&walk, &f) > 0) {
            if (f.tag == wanted && f.wire == PB_WT_STRING)
                fwrite(f.data, 1, f.bytes, stdout);
        }
    }
    admin_client_close(&c);
    return cli_finish(rc);
}

static int show(const struct config_options *o)
{
    enum config_format format = o->common.json ? CONFIG_JSON : CONFIG_TEXT;

    if (o->args != 0)
        return cli_usage("config", "show takes no '%s'; --file names a file", o->arg[0]);
    if (o->sample)
        format = CONFIG_SAMPLE;
    if (o->file != NULL || o->sample)
        return file_print(o->file, &format, CLI_NEGATIVE);
    return show_daemon(o);
}

/* --- settings ----------------------------------------------------------------------------------
 */

struct settings_printer {
    const char *key; /* NULL: all */
    bool history;
    unsigned found;
    json_t *list; /* NULL: into table */
    struct columns *table;
};

static void print_header(struct settings_printer *p)
{
    static const char *const heads[2][5] = { { "key", "value", "", NULL },
                                             { "index", "time", "by", "key", "value" } };
    int i;

    columns_init(p->table, p->history ? "rlrll" : "lll", false);
    for (i = 0; i < 5 && heads[p->history][i] != NULL; i++)
        columns_text(p->table, "%s", heads[p->history][i]);
}

static void print_row(struct settings_printer *p, const sluice_v1_SettingEntry *e)
{
    char time[CLI_TIME_BYTES];

    if (p->table->cells / p->table->columns == COLUMNS_ROWS_MAX) {
        columns_print(p->table, stdout, 0);
        print_header(p);
    }
    if (p->history) {
        columns_number(p->table, e->index);
        columns_text(p->table, "%s", cli_time(time, e->time_ns));
        if (e->by[0] != '\0')
            columns_text(p->table, "%s", e->by);
        else
            columns_number(p->table, e->uid);
    }
    columns_text(p->table, "%s", e->key);
    columns_text(p->table, "%s", e->value);
    if (!p->history)
        columns_text(p->table, "%s", e->is_default ? "default" : "");
}

static json_t *entry_json(const sluice_v1_SettingEntry *e, bool history)
{
    if (!history)
        return json_pack("{s:s, s:s, s:b}", "key", e->key, "value", e->value, "default",
                         e->is_default);
    return json_pack("{s:I, s:I, s:I, s:s*, s:s, s:s}", "index", (json_int_t)e->index, "timeNs",
                     (json_int_t)e->time_ns, "uid", (json_int_t)e->uid, "by",
                     e->by[0] != '\0' ? e->by : NULL, "key", e->key, "value", e->value);
}

static int settings_walk(struct settings_printer *p, const struct admin_response *response)
{
    struct field_walk walk;
    struct field f;
    int rc;

    field_walk_init(&walk, response->body, response->body_bytes);
    while ((rc = field_walk_next(&walk, &f)) > 0) {
        sluice_v1_SettingEntry e = sluice_v1_SettingEntry_init_zero;
        pb_istream_t in;

        if (f.tag != sluice_v1_SettingsResponse_settings_tag || f.wire != PB_WT_STRING)
            continue;
        in = pb_istream_from_buffer(f.data, f.bytes);
        if (!pb_decode(&in, sluice_v1_SettingEntry_fields, &e))
            return -EBADMSG;
        if (p->key != NULL && strcmp(p->key, e.key) != 0)
            continue;
        p->found++;
        if (p->list != NULL)
            json_array_append_new(p->list, entry_json(&e, p->history));
        else
            print_row(p, &e);
    }
    return rc;
}

static int settings_show(const struct config_options *o, const char *key, bool history)
{
    struct admin_request r = { .which = ADMIN_SETTINGS, .settings.history = history };
    struct settings_printer p = { .key = key, .history = history };
    struct admin_response response;
    struct admin_client c;
    int rc;

    p.table = calloc(1, sizeof *p.table);
    if (p.table == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    p.list = o->common.json ? json_array() : NULL;
    print_header(&p);
    rc = cli_ask(&c, &o->common, &r);
    if (rc == CLI_OK)
        rc = cli_response(&c, false, &response);
    if (rc == CLI_OK && settings_walk(&p, &response) < 0)
        rc = cli_error(CLI_REFUSED, "the daemon's answer is not of this version");
    if (rc == CLI_OK && key != NULL && p.found == 0)
        rc = cli_error(CLI_NEGATIVE, "there is no setting '%s'; sluice config get lists them", key);
    if (rc == CLI_OK && p.list != NULL)
        rc = cli_print_json(json_incref(p.list), CLI_OK);
    else if (rc == CLI_OK && (p.found > 0 || !history))
        columns_print(p.table, stdout, 0);
    json_decref(p.list);
    columns_fini(p.table);
    free(p.table);
    admin_client_close(&c);
    return cli_finish(rc);
}

static int set(const struct config_options *o)
{
    struct admin_request r = { .which = ADMIN_SETTING_SET };
    sluice_v1_SettingEntry e = sluice_v1_SettingEntry_init_zero;
    int rc;

    if (o->args != 2)
        return cli_usage("config", "set takes a key and a value ('' for the default)");
    if (strlen(o->arg[0]) >= sizeof r.setting_set.key ||
        strlen(o->arg[1]) >= sizeof r.setting_set.value)
        return cli_usage("config", "a key has at most %zu bytes, a value %zu",
                         sizeof r.setting_set.key - 1, sizeof r.setting_set.value - 1);
    snprintf(r.setting_set.key, sizeof r.setting_set.key, "%s", o->arg[0]);
    snprintf(r.setting_set.value, sizeof r.setting_set.value, "%s", o->arg[1]);
    rc = cli_call(&o->common, &r, ADMIN_BODY_SETTING, sluice_v1_SettingEntry_fields, &e);
    if (rc != CLI_OK)
        return rc;
    if (o->common.json)
        return cli_print_json(json_pack("{s:s, s:s, s:I}", "key", e.key, "value", e.value, "index",
                                        (json_int_t)e.index),
                              CLI_OK);
    if (strcmp(e.key, "shadow") == 0)
        printf("shadow: %s at log index %" PRIu64 "\n", e.value, (uint64_t)e.index);
    else if (e.value[0] != '\0')
        printf("%s is %s from log index %" PRIu64 " on\n", e.key, e.value, (uint64_t)e.index);
    else
        printf("%s is at its default from log index %" PRIu64 " on\n", e.key, (uint64_t)e.index);
    return cli_finish(CLI_OK);
}

static int run(const struct config_options *o, const char *what)
{
    if (strcmp(what, "check") == 0)
        return check(o);
    if (strcmp(what, "show") == 0)
        return show(o);
    if (strcmp(what, "set") == 0)
        return set(o);
    if (strcmp(what, "get") == 0 && o->args <= 1)
        return settings_show(o, o->args == 1 ? o->arg[0] : NULL, false);
    if (strcmp(what, "history") == 0 && o->args == 0)
        return settings_show(o, NULL, true);
    if (strcmp(what, "get") == 0 || strcmp(what, "history") == 0)
        return cli_usage("config", "%s: too many arguments", what);
    return cli_usage("config", "there is no 'config %s': check, show, get, set or history", what);
}

int config_main(int argc, char **argv)
{
    static const struct option options[] = { { "file", required_argument, NULL, 'f' },
                                             { "sample", no_argument, NULL, 's' },
                                             CLI_LONG_OPTIONS };
    struct config_options o = { 0 };
    int opt, rc;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (opt == 'f') {
            o.file = optarg;
            continue;
        }
        if (opt == 's') {
            o.sample = true;
            continue;
        }
        rc = cli_option(&o.common, opt, help);
        if (rc >= 0)
            return rc;
    }
    if (optind == argc)
        return cli_usage("config", "check, show, get, set or history?");
    o.args = argc - optind - 1;
    o.arg = argv + optind + 1;
    return run(&o, argv[optind]);
}
