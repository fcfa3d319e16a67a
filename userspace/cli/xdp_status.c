/*
 * xdp_status.c - `sluice xdp status`: how packets come in, and what became of them on the way.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/xdp.h"

/* --- as a document ------------------------------------------------------------------------------
 */

static json_t *interface_json(const sluice_v1_XdpInterface *i)
{
    return json_pack("{s:s, s:I, s:s, s:s, s:b, s:I, s:I, s:b, s:s, s:I, s:I, s:I, s:I, s:I, s:I, "
                     "s:I, s:I, s:I}",
                     "name", i->name, "ifindex", (json_int_t)i->ifindex, "mode", i->mode, "attach",
                     i->attach, "attached", i->attached, "programId", (json_int_t)i->program_id,
                     "queues", (json_int_t)i->queues, "zeroCopy", i->zero_copy, "note", i->note,
                     "arrived", (json_int_t)i->arrived, "redirected", (json_int_t)i->redirected,
                     "passed", (json_int_t)i->passed, "dropped", (json_int_t)i->dropped,
                     "fragments", (json_int_t)i->fragments, "tcpPassed", (json_int_t)i->tcp_passed,
                     "tcpDenied", (json_int_t)i->tcp_denied, "tcpSynRate",
                     (json_int_t)i->tcp_syn_rate, "bytes", (json_int_t)i->bytes);
}

static json_t *counts_json(const sluice_v1_LedgerDrop *list, pb_size_t n)
{
    json_t *o = json_object();

    for (pb_size_t i = 0; i < n; i++)
        json_object_set_new(o, list[i].reason, json_integer((json_int_t)list[i].count));
    return o;
}

static json_t *status_json(const sluice_v1_XdpStatusResponse *s)
{
    json_t *interfaces = json_array(), *classes = json_array(), *types = json_array();

    for (pb_size_t i = 0; i < s->interfaces_count; i++)
        json_array_append_new(interfaces, interface_json(&s->interfaces[i]));
    for (pb_size_t i = 0; i < s->classes_count; i++) {
        const sluice_v1_XdpClass *c = &s->classes[i];

        json_array_append_new(classes,
                              json_pack("{s:I, s:I, s:I, s:I, s:I}", "class", (json_int_t)c->class,
                                        "redirected", (json_int_t)c->redirected, "ringFull",
                                        (json_int_t)c->ring_full, "taken", (json_int_t)c->taken,
                                        "waiting", (json_int_t)c->waiting));
    }
    for (pb_size_t i = 0; i < s->types_count; i++) {
        const sluice_v1_XdpType *t = &s->types[i];

        json_array_append_new(
            types, json_pack("{s:I, s:s, s:I, s:I}", "type", (json_int_t)t->number, "name", t->name,
                             "arrived", (json_int_t)t->arrived, "dropped", (json_int_t)t->dropped));
    }
    return json_pack(
        "{s:s, s:s, s:b, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:{s:b, s:I, s:o, s:I, s:o}}", "mode",
        s->mode, "note", s->note, "balances", s->balances, "policyVersion",
        (json_int_t)s->policy_version, "fillEmpty", (json_int_t)s->fill_empty, "interfaces",
        interfaces, "drops", counts_json(s->drops, s->drops_count), "workerDrops",
        counts_json(s->worker_drops, s->worker_drops_count), "classes", classes, "types", types,
        "shadow", "on", s->shadow_on, "taken", (json_int_t)s->shadow_taken, "drops",
        counts_json(s->shadow, s->shadow_count), "eventsAdmitted",
        (json_int_t)s->shadow_events_admitted, "events",
        counts_json(s->shadow_events, s->shadow_events_count));
}

/* --- for people ---------------------------------------------------------------------------------
 */

static void head(struct columns *t, const char *title, const char *align, const char *const *names,
                 bool sep)
{
    printf("\n%s\n", title);
    columns_init(t, align, sep);
    for (; *names != NULL; names++)
        columns_text(t, "%s", *names);
}

static void print_interfaces(struct columns *t, const sluice_v1_XdpStatusResponse *s, bool sep)
{
    static const char *const names[] = { "name",       "mode",   "attached", "program",
                                         "queues",     "frames", "arrived",  "dropped",
                                         "redirected", "passed", "bytes",    NULL };

    head(t, "interfaces", "lllrrlrrrrr", names, sep);
    for (pb_size_t k = 0; k < s->interfaces_count; k++) {
        const sluice_v1_XdpInterface *i = &s->interfaces[k];

        columns_text(t, "%s", i->name);
        columns_text(t, "%s", i->mode);
        columns_text(t, "%s", !i->attached ? "no" : i->attach[0] ? i->attach : "yes");
        columns_text(t, "%" PRIu32, i->program_id);
        columns_number(t, i->queues);
        columns_text(t, "%s", i->zero_copy ? "zero copy" : "copied");
        columns_number(t, i->arrived);
        columns_number(t, i->dropped);
        columns_number(t, i->redirected);
        columns_number(t, i->passed);
        columns_number(t, i->bytes);
    }
    columns_print(t, stdout, 2);
    for (pb_size_t k = 0; k < s->interfaces_count; k++) {
        if (s->interfaces[k].note[0] != '\0')
            printf("  %s: %s\n", s->interfaces[k].name, s->interfaces[k].note);
    }
}

static void print_others(struct columns *t, const sluice_v1_XdpStatusResponse *s, bool sep)
{
    static const char *const names[] = { "name",       "fragments", "tcp passed",
                                         "tcp denied", "syn rate",  NULL };

    head(t, "fragments and TCP, beside the account", "lrrrr", names, sep);
    for (pb_size_t k = 0; k < s->interfaces_count; k++) {
        const sluice_v1_XdpInterface *i = &s->interfaces[k];

        columns_text(t, "%s", i->name);
        columns_number(t, i->fragments);
        columns_number(t, i->tcp_passed);
        columns_number(t, i->tcp_denied);
        columns_number(t, i->tcp_syn_rate);
    }
    columns_print(t, stdout, 2);
}

static void print_classes(struct columns *t, const sluice_v1_XdpStatusResponse *s, bool sep)
{
    static const char *const names[] = { "class", "redirected", "ring full",
                                         "taken", "waiting",    NULL };

    head(t, "classes", "lrrrr", names, sep);
    for (pb_size_t i = 0; i < s->classes_count; i++) {
        const sluice_v1_XdpClass *c = &s->classes[i];

        columns_text(t, "%" PRIu32, c->class);
        columns_number(t, c->redirected);
        columns_number(t, c->ring_full);
        columns_number(t, c->taken);
        columns_number(t, c->waiting);
    }
    columns_print(t, stdout, 2);
}

static void print_counts(struct columns *t, const char *title, const char *what,
                         const sluice_v1_LedgerDrop *list, pb_size_t n, bool sep)
{
    const char *const names[] = { "reason", what, NULL };

    head(t, title, "lr", names, sep);
    for (pb_size_t i = 0; i < n; i++) {
        columns_text(t, "%s", list[i].reason);
        columns_number(t, list[i].count);
    }
    columns_print(t, stdout, 2);
}

static void print_types(struct columns *t, const sluice_v1_XdpStatusResponse *s, bool sep)
{
    static const char *const names[] = { "type", "arrived", "dropped", NULL };

    head(t, "datagrams by their first event's type", "lrr", names, sep);
    for (pb_size_t i = 0; i < s->types_count; i++) {
        if (s->types[i].name[0] != '\0')
            columns_text(t, "%s", s->types[i].name);
        else
            columns_text(t, "%" PRIu32, s->types[i].number);
        columns_number(t, s->types[i].arrived);
        columns_number(t, s->types[i].dropped);
    }
    columns_print(t, stdout, 2);
}

static void print_text(const sluice_v1_XdpStatusResponse *s)
{
    struct columns *t = calloc(1, sizeof *t);
    bool sep = isatty(STDOUT_FILENO);

    if (t == NULL)
        return;
    columns_init(t, "ll", sep);
    columns_text(t, "mode");
    columns_text(t, "%s", s->mode);
    columns_text(t, "policy");
    columns_text(t, "version %" PRIu64 "%s", (uint64_t)s->policy_version,
                 s->shadow_on ? ", and a shadow that is counted" : "");
    columns_text(t, "account");
    columns_text(t, "%s", s->balances ? "balances" : "DOES NOT BALANCE");
    if (s->note[0] != '\0') {
        columns_text(t, "note");
        columns_text(t, "%s", s->note);
    }
    if (s->fill_empty > 0) {
        columns_text(t, "no frames");
        columns_text(t, "%" PRIu64 " times a driver found no frame to receive into",
                     (uint64_t)s->fill_empty);
    }
    columns_print(t, stdout, 0);
    if (s->interfaces_count > 0) {
        print_interfaces(t, s, sep);
        print_others(t, s, sep);
    }
    if (s->classes_count > 0)
        print_classes(t, s, sep);
    if (s->drops_count > 0)
        print_counts(t, "dropped in the kernel", "datagrams", s->drops, s->drops_count, sep);
    if (s->worker_drops_count > 0)
        print_counts(t, "dropped behind it", "datagrams", s->worker_drops, s->worker_drops_count,
                     sep);
    if (s->shadow_on) {
        print_counts(t, "taken, but the shadow policy would have dropped it", "datagrams",
                     s->shadow, s->shadow_count, sep);
        printf("  dropped, but the shadow policy would have taken it: %" PRIu64 "\n",
               (uint64_t)s->shadow_taken);
        print_counts(t, "the same of events that were decided one by one", "events",
                     s->shadow_events, s->shadow_events_count, sep);
        printf("  refused, but the shadow policy would have taken it: %" PRIu64 "\n",
               (uint64_t)s->shadow_events_admitted);
    }
    if (s->types_count > 0)
        print_types(t, s, sep);
    free(t);
}

int xdp_status(const struct xdp_options *o)
{
    sluice_v1_XdpStatusResponse *s = calloc(1, sizeof *s);
    int rc;

    if (s == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    rc = xdp_fetch(o, false, s);
    if (rc == CLI_OK) {
        rc = s->balances ? CLI_OK : CLI_NEGATIVE;
        if (o->common.json) {
            rc = cli_print_json(status_json(s), rc);
        } else {
            print_text(s);
            rc = cli_finish(rc);
        }
    }
    free(s);
    return rc;
}
