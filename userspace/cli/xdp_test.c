/*
 * xdp_test.c - `sluice xdp policy test`: what would become of a datagram? The daemon says, by the
 * same code that decides; nothing is sent or counted.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/read_json.h"
#include "cli/text.h"
#include "cli/xdp.h"

#define DATAGRAM_BYTES_MAX sizeof(((sluice_v1_PolicyTestRequest *)0)->datagram.bytes)

static int too_long(void)
{
    return cli_error(CLI_USAGE, "a datagram may have at most %zu bytes here", DATAGRAM_BYTES_MAX);
}

static int take_hex(const char *hex, sluice_v1_PolicyTestRequest *r)
{
    ssize_t n = text_hex(hex, strlen(hex), r->datagram.bytes, DATAGRAM_BYTES_MAX);

    if (n == -EMSGSIZE)
        return too_long();
    if (n < 0)
        return cli_usage("xdp", "--hex takes pairs of hexadecimal digits");
    r->datagram.size = (pb_size_t)n;
    return CLI_OK;
}

static int take_file(const char *path, sluice_v1_PolicyTestRequest *r)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rbe");
    bool bad, more;

    if (f == NULL)
        return cli_error(CLI_USAGE, "%s: %s", path, strerror(errno));
    r->datagram.size = (pb_size_t)fread(r->datagram.bytes, 1, DATAGRAM_BYTES_MAX, f);
    more = getc(f) != EOF;
    bad = ferror(f) != 0;
    if (f != stdin)
        fclose(f);
    if (bad)
        return cli_error(CLI_USAGE, "%s: it cannot be read", path);
    return more ? too_long() : CLI_OK;
}

static int take_event(const char *json, sluice_v1_PolicyTestRequest *r)
{
    size_t bytes = strlen(json);
    struct form *form = calloc(1, sizeof *form);
    char *marked = malloc(6 * bytes + 16);
    int rc = CLI_OK;
    ssize_t n;

    if (form == NULL || marked == NULL) {
        rc = cli_error(CLI_REFUSED, "no memory");
        goto done;
    }
    if (read_json_parse(form, json, bytes, marked) < 0) {
        rc = cli_usage("xdp", "--event: %s", form->error);
        goto done;
    }
    n = form_encode(form, r->datagram.bytes, DATAGRAM_BYTES_MAX);
    if (n < 0)
        rc = too_long();
    else
        r->datagram.size = (pb_size_t)n;
done:
    free(form);
    free(marked);
    return rc;
}

static int take_from(const char *address, sluice_v1_PolicyTestRequest *r)
{
    struct in6_addr ip;

    if (address == NULL)
        return cli_usage("xdp", "policy test needs --from ADDRESS, the sender's");
    if (inet_pton(AF_INET, address, &ip) != 1 && inet_pton(AF_INET6, address, &ip) != 1)
        return cli_usage("xdp", "--from takes an IPv4 or IPv6 address, not '%s'", address);
    snprintf(r->from, sizeof r->from, "%s", address);
    return CLI_OK;
}

static json_t *answer_json(const sluice_v1_PolicyTestResponse *p)
{
    json_t *events = json_array();

    for (pb_size_t i = 0; i < p->events_count; i++) {
        const sluice_v1_PolicyTestEvent *e = &p->events[i];

        json_array_append_new(events, json_pack("{s:I, s:s, s:s, s:I}", "type", (json_int_t)e->type,
                                                "name", e->name, "action", e->action, "class",
                                                (json_int_t)e->class));
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:b, s:o, s:s}", "verdict", p->verdict, "reason",
                     p->reason, "rule", p->rule, "format", p->format, "class", (json_int_t)p->class,
                     "complete", p->complete, "events", events, "note", p->note);
}

static void answer_print(const sluice_v1_PolicyTestResponse *p, bool shadow)
{
    struct columns *t = calloc(1, sizeof *t);

    if (t == NULL)
        return;
    columns_init(t, "ll", false);
    columns_text(t, "verdict");
    columns_text(t, "%s%s%s%s", p->verdict, p->reason[0] ? ": " : "", p->reason,
                 shadow ? " (by the shadow policy)" : "");
    columns_text(t, "source");
    columns_text(t, "%s", p->rule);
    columns_text(t, "format");
    columns_text(t, "%s%s", p->format, p->complete ? "" : ", of which not all was seen");
    columns_text(t, "class");
    columns_text(t, "%" PRIu32, p->class);
    if (p->note[0] != '\0') {
        columns_text(t, "note");
        columns_text(t, "%s", p->note);
    }
    columns_print(t, stdout, 0);
    if (p->events_count > 0) {
        printf("\n");
        columns_init(t, "lll", false);
        columns_text(t, "event");
        columns_text(t, "action");
        columns_text(t, "class");
        for (pb_size_t i = 0; i < p->events_count; i++) {
            const sluice_v1_PolicyTestEvent *e = &p->events[i];

            columns_text(t, "%s (%" PRIu32 ")", e->name[0] ? e->name : "unknown", e->type);
            columns_text(t, "%s", e->action);
            columns_text(t, "%" PRIu32, e->class);
        }
        columns_print(t, stdout, 0);
    }
    free(t);
}

int xdp_policy_test(const struct xdp_options *o)
{
    struct admin_request r = { .which = ADMIN_POLICY_TEST, .policy_test.shadow = o->shadow };
    sluice_v1_PolicyTestResponse p = sluice_v1_PolicyTestResponse_init_zero;
    int rc;

    if ((o->hex != NULL) + (o->file != NULL) + (o->event != NULL) != 1)
        return cli_usage("xdp", "policy test needs one of --hex, --file and --event");
    rc = take_from(o->from, &r.policy_test);
    if (rc == CLI_OK)
        rc = o->hex    ? take_hex(o->hex, &r.policy_test)
             : o->file ? take_file(o->file, &r.policy_test)
                       : take_event(o->event, &r.policy_test);
    if (rc == CLI_OK)
        rc = cli_call(&o->common, &r, ADMIN_BODY_POLICY_TEST, sluice_v1_PolicyTestResponse_fields,
                      &p);
    if (rc != CLI_OK)
        return rc;
    rc = strcmp(p.verdict, "drop") == 0 ? CLI_NEGATIVE : CLI_OK;
    if (o->common.json)
        return cli_print_json(answer_json(&p), rc);
    answer_print(&p, o->shadow);
    return cli_finish(rc);
}
