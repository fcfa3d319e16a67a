/*
 * xdp_top.c - `sluice xdp top`: what comes in, a second, since the last look.
 *
 * A block is what two looks differ by. On a terminal it is drawn over the last one, elsewhere the
 * blocks follow one another. A counter that has become smaller began anew: its whole value counts.
 * Rows that stood still are left out for people, not in JSON.
 */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/xdp.h"

struct look {
    sluice_v1_XdpStatusResponse s;
    uint64_t at_ns; /* monotonic */
};

struct block {
    const sluice_v1_XdpStatusResponse *now, *before;
    double seconds;
    bool separators;
    FILE *out;
    struct columns table;
};

static double rate(const struct block *b, uint64_t now, uint64_t before)
{
    uint64_t more = now >= before ? now - before : now;

    return (double)more / b->seconds;
}

/* Small ones with a decimal. */
static void cell(struct block *b, uint64_t now, uint64_t before)
{
    double r = rate(b, now, before);
    char text[COLUMNS_NUMBER_BYTES];

    if (r < 99.95 && r > 0)
        columns_text(&b->table, "%.1f", r);
    else
        columns_text(&b->table, "%s",
                     columns_number_text(text, (uint64_t)(r + 0.5), b->separators));
}

static void head(struct block *b, const char *align, const char *const *names)
{
    columns_init(&b->table, align, b->separators);
    for (; *names != NULL; names++)
        columns_text(&b->table, "%s", *names);
}

/* Prints the table if it has more than its head. */
static void finish(struct block *b)
{
    if (b->table.cells == b->table.columns) {
        columns_fini(&b->table);
        return;
    }
    putc('\n', b->out);
    columns_print(&b->table, b->out, 2);
}

/* --- what was there at the last look; zeros if it was not --------------------------------------
 */

static const sluice_v1_XdpInterface *interface_before(const struct block *b,
                                                      const sluice_v1_XdpInterface *now)
{
    static const sluice_v1_XdpInterface none;

    for (pb_size_t i = 0; i < b->before->interfaces_count; i++) {
        const sluice_v1_XdpInterface *x = &b->before->interfaces[i];

        if (x->ifindex == now->ifindex && strcmp(x->name, now->name) == 0)
            return x;
    }
    return &none;
}

static const sluice_v1_XdpClass *class_before(const struct block *b, uint32_t class)
{
    static const sluice_v1_XdpClass none;

    for (pb_size_t i = 0; i < b->before->classes_count; i++) {
        if (b->before->classes[i].class == class)
            return &b->before->classes[i];
    }
    return &none;
}

static const sluice_v1_XdpType *type_before(const struct block *b, uint32_t number)
{
    static const sluice_v1_XdpType none;

    for (pb_size_t i = 0; i < b->before->types_count; i++) {
        if (b->before->types[i].number == number)
            return &b->before->types[i];
    }
    return &none;
}

static uint64_t drops_before(const struct block *b, const char *reason)
{
    for (pb_size_t i = 0; i < b->before->drops_count; i++) {
        if (strcmp(b->before->drops[i].reason, reason) == 0)
            return b->before->drops[i].count;
    }
    return 0;
}

/* NULL: it was not among the first, and what it had then is not known. */
static const sluice_v1_XdpSource *source_before(const struct block *b, const char *address)
{
    for (pb_size_t i = 0; i < b->before->sources_count; i++) {
        if (strcmp(b->before->sources[i].address, address) == 0)
            return &b->before->sources[i];
    }
    return NULL;
}

/* --- for people ---------------------------------------------------------------------------------
 */

static void interfaces_text(struct block *b)
{
    static const char *const names[] = { "interface", "mode",      "arrived/s", "redirected/s",
                                         "passed/s",  "dropped/s", "bytes/s",   NULL };

    head(b, "llrrrrr", names);
    for (pb_size_t i = 0; i < b->now->interfaces_count; i++) {
        const sluice_v1_XdpInterface *n = &b->now->interfaces[i], *p = interface_before(b, n);

        columns_text(&b->table, "%s", n->name);
        columns_text(&b->table, "%s", n->mode);
        cell(b, n->arrived, p->arrived);
        cell(b, n->redirected, p->redirected);
        cell(b, n->passed, p->passed);
        cell(b, n->dropped, p->dropped);
        cell(b, n->bytes, p->bytes);
    }
    finish(b);
}

static void classes_text(struct block *b)
{
    static const char *const names[] = { "class",   "redirected/s", "ring full/s",
                                         "taken/s", "waiting",      NULL };

    head(b, "lrrrr", names);
    for (pb_size_t i = 0; i < b->now->classes_count; i++) {
        const sluice_v1_XdpClass *n = &b->now->classes[i], *p = class_before(b, n->class);

        columns_text(&b->table, "%" PRIu32, n->class);
        cell(b, n->redirected, p->redirected);
        cell(b, n->ring_full, p->ring_full);
        cell(b, n->taken, p->taken);
        columns_number(&b->table, n->waiting);
    }
    finish(b);
}

static void drops_text(struct block *b)
{
    static const char *const names[] = { "reason", "dropped/s", NULL };

    head(b, "lr", names);
    for (pb_size_t i = 0; i < b->now->drops_count; i++) {
        const sluice_v1_LedgerDrop *n = &b->now->drops[i];

        if (n->count == drops_before(b, n->reason))
            continue;
        columns_text(&b->table, "%s", n->reason);
        cell(b, n->count, drops_before(b, n->reason));
    }
    finish(b);
}

static void types_text(struct block *b)
{
    static const char *const names[] = { "type", "arrived/s", "dropped/s", NULL };

    head(b, "lrr", names);
    for (pb_size_t i = 0; i < b->now->types_count; i++) {
        const sluice_v1_XdpType *n = &b->now->types[i], *p = type_before(b, n->number);

        if (n->arrived == p->arrived && n->dropped == p->dropped)
            continue;
        if (n->name[0] != '\0')
            columns_text(&b->table, "%s", n->name);
        else
            columns_text(&b->table, "%" PRIu32, n->number);
        cell(b, n->arrived, p->arrived);
        cell(b, n->dropped, p->dropped);
    }
    finish(b);
}

static void sources_text(struct block *b)
{
    static const char *const names[] = {
        "source", "taken/s", "dropped/s", "taken", "dropped", NULL
    };

    head(b, "lrrrr", names);
    for (pb_size_t i = 0; i < b->now->sources_count; i++) {
        const sluice_v1_XdpSource *n = &b->now->sources[i], *p = source_before(b, n->address);

        columns_text(&b->table, "%s", n->address);
        if (p != NULL) {
            cell(b, n->taken, p->taken);
            cell(b, n->dropped, p->dropped);
        } else {
            columns_text(&b->table, "-");
            columns_text(&b->table, "-");
        }
        columns_number(&b->table, n->taken);
        columns_number(&b->table, n->dropped);
    }
    finish(b);
}

static void block_text(struct block *b)
{
    char time[CLI_TIME_BYTES];

    fprintf(b->out, "%s  %s, policy version %" PRIu64 ", over %.1f s%s\n",
            cli_time(time, clock_unix_ns()), b->now->mode, (uint64_t)b->now->policy_version,
            b->seconds, b->now->balances ? "" : "; DOES NOT BALANCE");
    interfaces_text(b);
    classes_text(b);
    drops_text(b);
    types_text(b);
    sources_text(b);
}

/* Lines that the terminal shows; 0: all. What scrolled away could not be drawn over. */
static unsigned terminal_lines(void)
{
    struct winsize w;

    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row > 1 ? w.ws_row - 1u : 0;
}

static void redraw(const char *text)
{
    unsigned lines = terminal_lines(), n = 0;

    fputs("\033[H", stdout);
    for (; *text != '\0' && (lines == 0 || n < lines); text++) {
        if (*text == '\n') {
            fputs("\033[K", stdout);
            n++;
        }
        putchar(*text);
    }
    fputs("\033[J", stdout);
}

/* Written into memory first, so that a terminal shows no half of it: every line clears what it does
 * not cover, and the last all below. */
static int block_print(struct block *b)
{
    bool terminal = isatty(STDOUT_FILENO);
    char *text = NULL;
    size_t bytes = 0;

    b->separators = terminal;
    b->out = open_memstream(&text, &bytes);
    if (b->out == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    block_text(b);
    if (fclose(b->out) != 0) {
        free(text);
        return cli_error(CLI_REFUSED, "no memory");
    }
    if (terminal)
        redraw(text);
    else
        printf("%s\n", text);
    free(text);
    return cli_finish(CLI_OK);
}

/* --- as a document ------------------------------------------------------------------------------
 */

static json_t *interfaces_json(const struct block *b)
{
    json_t *list = json_array();

    for (pb_size_t i = 0; i < b->now->interfaces_count; i++) {
        const sluice_v1_XdpInterface *n = &b->now->interfaces[i], *p = interface_before(b, n);

        json_array_append_new(
            list, json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f}", "name", n->name, "mode", n->mode,
                            "arrived", rate(b, n->arrived, p->arrived), "redirected",
                            rate(b, n->redirected, p->redirected), "passed",
                            rate(b, n->passed, p->passed), "dropped",
                            rate(b, n->dropped, p->dropped), "bytes", rate(b, n->bytes, p->bytes)));
    }
    return list;
}

static json_t *classes_json(const struct block *b)
{
    json_t *list = json_array();

    for (pb_size_t i = 0; i < b->now->classes_count; i++) {
        const sluice_v1_XdpClass *n = &b->now->classes[i], *p = class_before(b, n->class);

        json_array_append_new(
            list, json_pack("{s:I, s:f, s:f, s:f, s:I}", "class", (json_int_t)n->class,
                            "redirected", rate(b, n->redirected, p->redirected), "ringFull",
                            rate(b, n->ring_full, p->ring_full), "taken",
                            rate(b, n->taken, p->taken), "waiting", (json_int_t)n->waiting));
    }
    return list;
}

static json_t *drops_json(const struct block *b)
{
    json_t *o = json_object();

    for (pb_size_t i = 0; i < b->now->drops_count; i++) {
        const sluice_v1_LedgerDrop *n = &b->now->drops[i];

        json_object_set_new(o, n->reason, json_real(rate(b, n->count, drops_before(b, n->reason))));
    }
    return o;
}

static json_t *types_json(const struct block *b)
{
    json_t *list = json_array();

    for (pb_size_t i = 0; i < b->now->types_count; i++) {
        const sluice_v1_XdpType *n = &b->now->types[i], *p = type_before(b, n->number);

        json_array_append_new(list,
                              json_pack("{s:I, s:s, s:f, s:f}", "type", (json_int_t)n->number,
                                        "name", n->name, "arrived", rate(b, n->arrived, p->arrived),
                                        "dropped", rate(b, n->dropped, p->dropped)));
    }
    return list;
}

static json_t *sources_json(const struct block *b)
{
    json_t *list = json_array();

    for (pb_size_t i = 0; i < b->now->sources_count; i++) {
        const sluice_v1_XdpSource *n = &b->now->sources[i], *p = source_before(b, n->address);

        json_array_append_new(
            list, json_pack("{s:s, s:o, s:o, s:I, s:I}", "address", n->address, "takenPerS",
                            p ? json_real(rate(b, n->taken, p->taken)) : json_null(), "droppedPerS",
                            p ? json_real(rate(b, n->dropped, p->dropped)) : json_null(), "taken",
                            (json_int_t)n->taken, "dropped", (json_int_t)n->dropped));
    }
    return list;
}

static json_t *block_json(const struct block *b)
{
    return json_pack("{s:I, s:f, s:s, s:I, s:b, s:o, s:o, s:o, s:o, s:o}", "timeNs",
                     (json_int_t)clock_unix_ns(), "seconds", b->seconds, "mode", b->now->mode,
                     "policyVersion", (json_int_t)b->now->policy_version, "balances",
                     b->now->balances, "interfaces", interfaces_json(b), "classes", classes_json(b),
                     "drops", drops_json(b), "types", types_json(b), "sources", sources_json(b));
}

/* --- the loop -----------------------------------------------------------------------------------
 */

/* The sources that were busiest since the last look come first; then those not known then, in the
 * daemon's order. */
static void sort_sources(const struct block *b, sluice_v1_XdpStatusResponse *now)
{
    double key[sizeof now->sources / sizeof now->sources[0]];

    for (pb_size_t i = 0; i < now->sources_count; i++) {
        const sluice_v1_XdpSource x = now->sources[i], *p = source_before(b, x.address);
        double busy = p ? rate(b, x.taken, p->taken) + rate(b, x.dropped, p->dropped) : -1;
        pb_size_t to = i;

        for (; to > 0 && key[to - 1] < busy; to--) {
            key[to] = key[to - 1];
            now->sources[to] = now->sources[to - 1];
        }
        key[to] = busy;
        now->sources[to] = x;
    }
}

static int look_take(const struct xdp_options *o, struct look *ret)
{
    int rc;

    memset(ret, 0, sizeof *ret);
    rc = xdp_fetch(o, true, &ret->s);
    ret->at_ns = clock_monotonic_ns();
    return rc;
}

static void wait_until(uint64_t ns)
{
    for (uint64_t now = clock_monotonic_ns(); now < ns; now = clock_monotonic_ns())
        poll(NULL, 0, (int)((ns - now + NS_PER_MS - 1) / NS_PER_MS));
}

static int block_show(const struct xdp_options *o, struct look *now, const struct look *before)
{
    struct block *b = calloc(1, sizeof *b);
    int rc;

    if (b == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    b->now = &now->s;
    b->before = &before->s;
    b->seconds = (double)(now->at_ns - before->at_ns) / (double)NS_PER_S;
    sort_sources(b, &now->s);
    rc = o->common.json ? cli_print_json(block_json(b), CLI_OK) : block_print(b);
    free(b);
    return rc;
}

int xdp_top(const struct xdp_options *o)
{
    struct look *look = calloc(2, sizeof *look);
    unsigned at = 0;
    uint64_t shown;
    int rc;

    if (look == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    rc = look_take(o, &look[at]);
    if (rc == CLI_OK && !o->common.json && isatty(STDOUT_FILENO))
        fputs("\033[2J", stdout);
    for (shown = 0; rc == CLI_OK && (o->count == 0 || shown < o->count); shown++) {
        wait_until(look[at].at_ns + o->interval_ms * NS_PER_MS);
        rc = look_take(o, &look[!at]);
        if (rc == CLI_OK)
            rc = block_show(o, &look[!at], &look[at]);
        at = !at;
    }
    free(look);
    return rc;
}
