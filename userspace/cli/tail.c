/*
 * tail.c - `sluice tail`: events as they are committed, or those from an index on.
 */
#include <errno.h>
#include <pb_decode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/field_walk.h"
#include "base/settings.h"
#include "cli/cli.h"
#include "cli/event_line.h"
#include "cli/read_point.h"

static const char help[] =
    "sluice tail [options]\n\n"
    "Prints committed events, one a line, in the order of the log; new ones as they come.\n\n"
    "Options:\n"
    "  --from INDEX     begin at this log index; `first` is the log's first (default: now on)\n"
    "  --no-follow      end at what is committed now; begins at the first index without --from\n"
    "  --count N        end after N events\n"
    "  --type TYPE      only this type (name or number); may be given again\n"
    "  --source SOURCE  only this source\n"
    "  --symbol SYMBOL  only this symbol\n" READ_POINT_HELP CLI_OPTIONS_HELP "\nExamples:\n"
    "  sluice tail\n"
    "  sluice tail --type trade --symbol AAPL --count 10\n"
    "  sluice tail --from first --no-follow --json >events.jsonl\n" CLI_EXIT_HELP;

struct tail_options {
    struct cli_options common;
    struct read_point_options point;
    const char *from;
    const char *type[32];
    unsigned types;
    bool no_follow;
};

/* The settings in force, for the names of the users' types. */
static int settings_fetch(const struct cli_options *o, struct settings *ret)
{
    struct admin_request r = { .which = ADMIN_SETTINGS };
    struct admin_response response;
    struct admin_client c;
    struct field_walk walk;
    struct field f;
    int rc;

    settings_init(ret);
    rc = cli_ask(&c, o, &r);
    if (rc == CLI_OK)
        rc = cli_response(&c, false, &response);
    if (rc == CLI_OK) {
        field_walk_init(&walk, response.body, response.body_bytes);
        while (field_walk_next(&walk, &f) > 0) {
            sluice_v1_SettingEntry entry = sluice_v1_SettingEntry_init_zero;
            pb_istream_t in = pb_istream_from_buffer(f.data, f.bytes);

            if (f.wire == PB_WT_STRING && pb_decode(&in, sluice_v1_SettingEntry_fields, &entry) &&
                strncmp(entry.key, "type.", 5) == 0)
                settings_apply(ret, entry.key, entry.value);
        }
    }
    admin_client_close(&c);
    return rc;
}

static int tail_types(const struct tail_options *o, sluice_v1_TailRequest *r)
{
    struct settings *settings;
    unsigned i;
    int rc = CLI_OK;

    if (o->types == 0)
        return CLI_OK;
    settings = malloc(sizeof *settings);
    if (settings == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    settings_init(settings);
    for (i = 0; rc == CLI_OK && i < o->types; i++) {
        uint64_t number;
        int type = settings_type(settings, o->type[i]);

        if (type < 0 && cli_number(o->type[i], SETTINGS_TYPES - 1, &number))
            type = (int)number; /* the log may hold types that have no name any more */
        if (type < 0) {         /* perhaps a name that the settings gave */
            rc = settings_fetch(&o->common, settings);
            type = settings_type(settings, o->type[i]);
        }
        if (rc == CLI_OK && type < 0)
            rc = cli_usage("tail", "there is no event type '%s'", o->type[i]);
        r->types[i] = (uint32_t)type;
    }
    r->types_count = (pb_size_t)i;
    free(settings);
    return rc;
}

/* `first` is not what the daemon understands; it says what its first index is. */
static int tail_from(const struct tail_options *o, sluice_v1_TailRequest *r)
{
    const char *from = o->from ? o->from : o->no_follow ? "first" : NULL;
    struct admin_request ask = { .which = ADMIN_STATUS };
    sluice_v1_StatusResponse *status;
    int rc;

    if (from == NULL)
        return CLI_OK;
    if (strcmp(from, "first") != 0) {
        if (cli_number(from, UINT64_MAX, &r->from_index) && r->from_index > 0)
            return CLI_OK;
        return cli_usage("tail", "--from takes a log index above 0, or first");
    }
    status = calloc(1, sizeof *status);
    if (status == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    rc = cli_call(&o->common, &ask, ADMIN_BODY_STATUS, sluice_v1_StatusResponse_fields, status);
    r->from_index = status->first_index ? status->first_index : 1;
    free(status);
    return rc;
}

static int tail_text(char *ret, size_t cap, const char *name)
{
    if (optarg[0] == '\0' || strlen(optarg) >= cap)
        return cli_usage("tail", "a %s has 1 to %zu bytes", name, cap - 1);
    snprintf(ret, cap, "%s", optarg);
    return -1;
}

/* Takes one option. Returns -1 to go on, or an exit code. */
static int tail_option(struct tail_options *o, sluice_v1_TailRequest *r, int opt)
{
    switch (opt) {
    case 'f':
        o->from = optarg;
        return -1;
    case 'n':
        o->no_follow = true;
        return -1;
    case 'c':
        if (!cli_number(optarg, UINT64_MAX, &r->count_max) || r->count_max == 0)
            return cli_usage("tail", "--count takes a number above 0");
        return -1;
    case 't':
        if (o->types == sizeof o->type / sizeof *o->type)
            return cli_usage("tail", "at most %u types", o->types);
        o->type[o->types++] = optarg;
        return -1;
    case 's':
        return tail_text(r->source, sizeof r->source, "source");
    case 'y':
        return tail_text(r->symbol, sizeof r->symbol, "symbol");
    case READ_POINT_BARRIER:
    case READ_POINT_LAG:
        return read_point_option(&o->point, opt, "tail");
    default:
        return cli_option(&o->common, opt, help);
    }
}

/* Prints what comes; flushes whenever there is nothing more to read at once. */
static int tail_print(struct admin_client *c, bool json)
{
    struct admin_response response;
    int rc;

    for (;;) {
        if (!admin_client_ready(c)) {
            rc = cli_finish(CLI_OK);
            if (rc != CLI_OK)
                return rc;
        }
        rc = cli_response(c, true, &response);
        if (rc != CLI_OK)
            return rc;
        if (response.which != ADMIN_BODY_NONE) {
            rc = event_line_print(&response, json);
            if (rc != CLI_OK)
                return rc;
        }
        if (response.done)
            return CLI_OK;
    }
}

int tail_main(int argc, char **argv)
{
    static const struct option options[] = { { "from", required_argument, NULL, 'f' },
                                             { "no-follow", no_argument, NULL, 'n' },
                                             { "count", required_argument, NULL, 'c' },
                                             { "type", required_argument, NULL, 't' },
                                             { "source", required_argument, NULL, 's' },
                                             { "symbol", required_argument, NULL, 'y' },
                                             READ_POINT_LONG_OPTIONS,
                                             CLI_LONG_OPTIONS };
    struct tail_options o = { 0 };
    struct admin_request r = { .which = ADMIN_TAIL };
    struct admin_client c = { .fd = -1 };
    int opt, rc;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        rc = tail_option(&o, &r.tail, opt);
        if (rc >= 0)
            return rc;
    }
    if (optind < argc)
        return cli_usage("tail", "what is '%s' for?", argv[optind]);
    r.tail.follow = !o.no_follow;
    rc = tail_from(&o, &r.tail);
    if (rc == CLI_OK)
        rc = tail_types(&o, &r.tail);
    if (rc == CLI_OK)
        rc = read_point(&o.common, &o.point);
    if (rc == CLI_OK)
        rc = cli_ask(&c, &o.common, &r);
    if (rc == CLI_OK)
        rc = tail_print(&c, o.common.json);
    admin_client_close(&c);
    return cli_finish(rc);
}
