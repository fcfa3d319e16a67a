/*
 * ledger.c - `sluice ledger`: the account of every datagram and every event, and whether it adds
 * up.
 */
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/columns.h"

static const char help[] =
    "sluice ledger [--json]\n\n"
    "Shows what became of everything that the node has seen since its account was opened:\n"
    "  datagrams  seen = dropped, by reason + delivered\n"
    "  events     decoded = invalid + refused + duplicate + conflict + in flight + committed\n"
    "             + unaccounted (in flight when an earlier run was killed)\n"
    "  xdp        arrived = dropped, by reason + redirected + passed, where there is XDP; and of\n"
    "             what was redirected: taken + ring full + waiting\n"
    "  log        what it holds of this node's events of this run = committed (+ in flight, and "
    "at\n"
    "             most those that went to two leaders, as the first answer did not come)\n"
    "Each figure is counted where it happens. Exit code 1 when they do not balance.\n\n"
    "Options:\n" CLI_OPTIONS_HELP "\nExamples:\n"
    "  sluice ledger\n"
    "  sluice ledger --json | jq '.events.total.committed'\n"
    "  sluice ledger >/dev/null || echo 'events are unaccounted for'\n" CLI_EXIT_HELP;

static bool has_xdp(const sluice_v1_LedgerResponse *l) { return l->has_xdp && l->xdp.present; }

static bool ledger_balances(const sluice_v1_LedgerResponse *l)
{
    return l->datagrams_balance && l->events_balance && l->log_agrees &&
           (!has_xdp(l) || (l->xdp.balances && l->xdp.rings_agree));
}

static json_t *counts_json(const sluice_v1_LedgerDrop *list, pb_size_t n)
{
    json_t *o = json_object();
    pb_size_t i;

    for (i = 0; i < n; i++)
        json_object_set_new(o, list[i].reason, json_integer((json_int_t)list[i].count));
    return o;
}

static json_t *type_json(const sluice_v1_LedgerType *t)
{
    return json_pack("{s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "type",
                     (json_int_t)t->type, "name", t->name, "decoded", (json_int_t)t->decoded,
                     "invalid", (json_int_t)t->invalid, "refused", (json_int_t)t->refused,
                     "duplicate", (json_int_t)t->duplicate, "conflict", (json_int_t)t->conflict,
                     "inFlight", (json_int_t)t->in_flight, "committed", (json_int_t)t->committed,
                     "unaccounted", (json_int_t)t->unaccounted, "balances", t->balances);
}

static json_t *xdp_json(const sluice_v1_XdpLedger *x)
{
    return json_pack(
        "{s:I, s:I, s:o, s:I, s:I, s:b, s:{s:I, s:I, s:I, s:b}, s:I, s:{s:I, s:I, s:I}}", "arrived",
        (json_int_t)x->arrived, "dropped", (json_int_t)x->dropped, "drops",
        counts_json(x->drops, x->drops_count), "redirected", (json_int_t)x->redirected, "passed",
        (json_int_t)x->passed, "balance", x->balances, "rings", "taken", (json_int_t)x->ring_taken,
        "full", (json_int_t)x->ring_dropped, "waiting", (json_int_t)x->ring_waiting, "agree",
        x->rings_agree, "fragments", (json_int_t)x->fragments, "tcp", "passed",
        (json_int_t)x->tcp_passed, "denied", (json_int_t)x->tcp_denied, "synRate",
        (json_int_t)x->tcp_syn_rate);
}

static json_t *ledger_json(const sluice_v1_LedgerResponse *l)
{
    json_t *types = json_array(), *o;
    pb_size_t i;

    for (i = 0; i < l->types_count; i++)
        json_array_append_new(types, type_json(&l->types[i]));
    o = json_pack(
        "{s:I, s:{s:I, s:I, s:o, s:b}, s:{s:o, s:o, s:o, s:I, s:b}, s:o, "
        "s:{s:I, s:I, s:I, s:I, s:I, s:b}, s:b}",
        "sinceNs", (json_int_t)l->since_ns, "datagrams", "seen", (json_int_t)l->datagrams_seen,
        "delivered", (json_int_t)l->datagrams_delivered, "drops",
        counts_json(l->drops, l->drops_count), "balance", l->datagrams_balance, "events", "types",
        types, "total", type_json(&l->total), "reasons", counts_json(l->reasons, l->reasons_count),
        "unaccounted", (json_int_t)l->unaccounted, "balance", l->events_balance, "streams",
        counts_json(l->streams, l->streams_count), "log", "events", (json_int_t)l->log_events,
        "eventsBefore", (json_int_t)l->log_events_before, "own", (json_int_t)l->own_events,
        "doubtful", (json_int_t)l->doubtful_events, "orphaned", (json_int_t)l->orphaned_events,
        "agrees", l->log_agrees, "balances", ledger_balances(l));
    if (o != NULL && has_xdp(l))
        json_object_set_new(o, "xdp", xdp_json(&l->xdp));
    return o;
}

static const char *verdict(bool balances) { return balances ? "balances" : "DOES NOT BALANCE"; }

static void print_datagrams(struct columns *t, const sluice_v1_LedgerResponse *l, bool sep)
{
    pb_size_t i;

    printf("datagrams\n");
    columns_init(t, "lrl", sep);
    columns_text(t, "seen");
    columns_number(t, l->datagrams_seen);
    columns_text(t, "%s", verdict(l->datagrams_balance));
    columns_text(t, "delivered");
    columns_number(t, l->datagrams_delivered);
    columns_text(t, "%s", "");
    for (i = 0; i < l->drops_count; i++) {
        columns_text(t, "dropped: %s", l->drops[i].reason);
        columns_number(t, l->drops[i].count);
        columns_text(t, "%s", "");
    }
    columns_print(t, stdout, 2);
}

static void xdp_row(struct columns *t, const char *name, uint64_t n, const char *verdict_text)
{
    columns_text(t, "%s", name);
    columns_number(t, n);
    columns_text(t, "%s", verdict_text);
}

static void print_xdp(struct columns *t, const sluice_v1_XdpLedger *x, bool sep)
{
    pb_size_t i;

    printf("\nxdp\n");
    columns_init(t, "lrl", sep);
    xdp_row(t, "arrived", x->arrived, verdict(x->balances));
    for (i = 0; i < x->drops_count; i++) {
        columns_text(t, "dropped: %s", x->drops[i].reason);
        columns_number(t, x->drops[i].count);
        columns_text(t, "%s", "");
    }
    xdp_row(t, "dropped in the kernel", x->dropped, "");
    xdp_row(t, "passed to the kernel's sockets", x->passed, "");
    xdp_row(t, "redirected", x->redirected, verdict(x->rings_agree));
    xdp_row(t, "  taken from the rings", x->ring_taken, "");
    xdp_row(t, "  ring full", x->ring_dropped, "");
    xdp_row(t, "  waiting", x->ring_waiting, "");
    xdp_row(t, "fragments, passed", x->fragments, "");
    xdp_row(t, "tcp: passed", x->tcp_passed, "");
    xdp_row(t, "tcp: denied", x->tcp_denied, "");
    xdp_row(t, "tcp: syn_rate", x->tcp_syn_rate, "");
    columns_print(t, stdout, 2);
}

static void type_row(struct columns *t, const sluice_v1_LedgerType *e, const char *name)
{
    columns_text(t, "%s", name);
    columns_number(t, e->decoded);
    columns_number(t, e->invalid);
    columns_number(t, e->refused);
    columns_number(t, e->duplicate);
    columns_number(t, e->conflict);
    columns_number(t, e->in_flight);
    columns_number(t, e->committed);
    columns_number(t, e->unaccounted);
    columns_text(t, "%s", verdict(e->balances));
}

static void print_events(struct columns *t, const sluice_v1_LedgerResponse *l, bool sep)
{
    static const char *const head[] = { "type",        "decoded",  "invalid",   "refused",
                                        "duplicate",   "conflict", "in flight", "committed",
                                        "unaccounted", "" };
    pb_size_t i;
    size_t k;

    printf("\nevents\n");
    columns_init(t, "lrrrrrrrrl", sep);
    for (k = 0; k < sizeof head / sizeof *head; k++)
        columns_text(t, "%s", head[k]);
    for (i = 0; i < l->types_count; i++)
        type_row(t, &l->types[i], l->types[i].name[0] ? l->types[i].name : "unknown");
    type_row(t, &l->total, "total");
    columns_print(t, stdout, 2);
}

static void print_counts(struct columns *t, const char *title, const sluice_v1_LedgerDrop *list,
                         pb_size_t n, bool sep)
{
    pb_size_t i;

    if (n == 0)
        return;
    printf("\n%s\n", title);
    columns_init(t, "lr", sep);
    for (i = 0; i < n; i++) {
        columns_text(t, "%s", list[i].reason);
        columns_number(t, list[i].count);
    }
    columns_print(t, stdout, 2);
}

static void print_log(struct columns *t, const sluice_v1_LedgerResponse *l, bool sep)
{
    printf("\nlog\n");
    columns_init(t, "lrl", sep);
    columns_text(t, "events in the log");
    columns_number(t, l->log_events);
    columns_text(t, "%s", "");
    columns_text(t, "of those from earlier runs");
    columns_number(t, l->log_events_before);
    columns_text(t, "%s", "");
    columns_text(t, "of those taken by this node in this run");
    columns_number(t, l->own_events);
    columns_text(t, "%s", l->log_agrees ? "agrees" : "DIFFERS FROM THE LEDGER");
    if (l->doubtful_events > 0) {
        columns_text(t, "of those at most, answered otherwise");
        columns_number(t, l->doubtful_events);
        columns_text(t, "%s", "sent to two leaders, or not answered in time");
    }
    if (l->orphaned_events > 0) {
        columns_text(t, "of those once, set aside since");
        columns_number(t, l->orphaned_events);
        columns_text(t, "%s", "by a failover: see sluice cluster orphans");
    }
    columns_print(t, stdout, 2);
}

static void print_text(const sluice_v1_LedgerResponse *l)
{
    struct columns *t = calloc(1, sizeof *t);
    bool sep = isatty(STDOUT_FILENO);
    char since[CLI_TIME_BYTES];

    if (t == NULL)
        return;
    printf("since %s\n\n", cli_time(since, l->since_ns));
    print_datagrams(t, l, sep);
    if (has_xdp(l))
        print_xdp(t, &l->xdp, sep);
    print_events(t, l, sep);
    print_counts(t, "invalid and refused events, by reason", l->reasons, l->reasons_count, sep);
    print_counts(t, "streams", l->streams, l->streams_count, sep);
    print_log(t, l, sep);
    free(t);
}

int ledger_main(int argc, char **argv)
{
    static const struct option options[] = { CLI_LONG_OPTIONS };
    struct cli_options o = { 0 };
    struct admin_request r = { .which = ADMIN_LEDGER };
    sluice_v1_LedgerResponse *l;
    int opt, rc;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        rc = cli_option(&o, opt, help);
        if (rc >= 0)
            return rc;
    }
    if (optind < argc)
        return cli_usage("ledger", "what is '%s' for?", argv[optind]);
    l = calloc(1, sizeof *l);
    if (l == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    rc = cli_call(&o, &r, ADMIN_BODY_LEDGER, sluice_v1_LedgerResponse_fields, l);
    if (rc == CLI_OK) {
        rc = ledger_balances(l) ? CLI_OK : CLI_NEGATIVE;
        if (o.json) {
            rc = cli_print_json(ledger_json(l), rc);
        } else {
            print_text(l);
            rc = cli_finish(rc);
        }
    }
    free(l);
    return rc;
}
