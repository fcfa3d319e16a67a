/*
 * get.c - `sluice get`: one event, by its place in the log or by source and id.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/event_line.h"
#include "cli/read_point.h"

static const char help[] =
    "sluice get ID [--source SOURCE] [--barrier] [--max-lag-s N] [--json]\n\n"
    "Prints one event. ID is an ingestion id, <epoch>-<index>-<slot>, as tail shows it; with\n"
    "--source it is the event's own id, and `hex:...` gives one that is not text.\n"
    "At a node that follows, what was committed last may not be there yet: how far it may be "
    "behind\n"
    "is told on stderr.\n"
    "Exit code 1 when there is no such event.\n\n"
    "Options:\n"
    "  --source SOURCE  ID is the id that this source gave the event\n" READ_POINT_HELP
        CLI_OPTIONS_HELP "\nExamples:\n"
    "  sluice get 3-1042-7\n"
    "  sluice get order-77 --source feed-a --json --barrier\n"
    "  sluice get hex:0a1b2c --source feed-a\n" CLI_EXIT_HELP;

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The id's bytes from its text. False when it is too long or not hexadecimal. */
static bool id_bytes(sluice_v1_GetRequest *r, const char *text)
{
    size_t length = strlen(text), i;

    if (strncmp(text, "hex:", 4) != 0) {
        if (length == 0 || length > sizeof r->id.bytes)
            return false;
        memcpy(r->id.bytes, text, length);
        r->id.size = (pb_size_t)length;
        return true;
    }
    text += 4;
    length -= 4;
    if (length == 0 || length % 2 != 0 || length / 2 > sizeof r->id.bytes)
        return false;
    for (i = 0; i < length; i += 2) {
        int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);

        if (high < 0 || low < 0)
            return false;
        r->id.bytes[i / 2] = (pb_byte_t)(high << 4 | low);
    }
    r->id.size = (pb_size_t)(length / 2);
    return true;
}

static int get_request(sluice_v1_GetRequest *r, const char *id, const char *source)
{
    if (source == NULL) {
        if (strlen(id) >= sizeof r->ingestion_id)
            return cli_usage("get", "'%s' is no ingestion id; is --source missing?", id);
        snprintf(r->ingestion_id, sizeof r->ingestion_id, "%s", id);
        return CLI_OK;
    }
    if (source[0] == '\0' || strlen(source) >= sizeof r->source)
        return cli_usage("get", "a source has 1 to %zu bytes", sizeof r->source - 1);
    snprintf(r->source, sizeof r->source, "%s", source);
    if (!id_bytes(r, id))
        return cli_usage("get", "an id has 1 to %zu bytes (hex: two digits each)",
                         sizeof r->id.bytes);
    return CLI_OK;
}

int get_main(int argc, char **argv)
{
    static const struct option options[] = { { "source", required_argument, NULL, 's' },
                                             READ_POINT_LONG_OPTIONS,
                                             CLI_LONG_OPTIONS };
    struct read_point_options point = { 0 };
    struct cli_options o = { 0 };
    struct admin_request r = { .which = ADMIN_GET };
    struct admin_response response;
    struct admin_client c;
    const char *source = NULL;
    int opt, rc;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (opt == 's') {
            source = optarg;
            continue;
        }
        if (opt == READ_POINT_BARRIER || opt == READ_POINT_LAG)
            rc = read_point_option(&point, opt, "get");
        else
            rc = cli_option(&o, opt, help);
        if (rc >= 0)
            return rc;
    }
    if (argc - optind != 1)
        return cli_usage("get", "give one id");
    rc = get_request(&r.get, argv[optind], source);
    if (rc == CLI_OK)
        rc = read_point(&o, &point);
    if (rc != CLI_OK)
        return rc;
    rc = cli_ask(&c, &o, &r);
    if (rc == CLI_OK)
        rc = cli_response(&c, false, &response);
    if (rc == CLI_OK)
        rc = event_line_print(&response, o.json);
    admin_client_close(&c);
    return cli_finish(rc);
}
