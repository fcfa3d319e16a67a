/*
 * xdp.c - `sluice xdp`: the prefilter in the driver. See xdp.h for its parts.
 */
#include "cli/xdp.h"

#include <stdio.h>
#include <string.h>

static const char help[] =
    "sluice xdp status                the interfaces, what was dropped and why, does it balance?\n"
    "sluice xdp top                   the rates: by interface, class, reason, type and source\n"
    "sluice xdp policy get            the policy: types, limits, sources\n"
    "sluice xdp policy set TYPE ACTION\n"
    "                                 accept, drop, \"sample N\" (one in N), \"rate N [burst B]\"\n"
    "                                 (events a second), or default\n"
    "sluice xdp policy set TYPE class N\n"
    "                                 0 (dropped last) to 3, or default\n"
    "sluice xdp policy set source NETWORK allow|deny|none|default\n"
    "sluice xdp policy set limit source_per_s|source_burst|syn_per_s|syn_burst N|default\n"
    "sluice xdp policy promote        puts the shadow policy in force\n"
    "sluice xdp policy discard        drops the shadow policy\n"
    "sluice xdp policy test           what would become of a datagram?\n\n"
    "The policy is replicated, and holds for sockets too. Changes to the shadow are not in force:\n"
    "`status` counts what they would have done.\n"
    "Exit code 1 when the account does not balance, when the tested datagram would be dropped,\n"
    "and when there is no shadow to show.\n\n"
    "Options:\n"
    "  --shadow         with policy get, set, test: the shadow policy\n"
    "  --interval MS    with top: time between two looks (default 1000)\n"
    "  --count N        with top: end after N of them\n"
    "  --hex HEX        with policy test: the datagram's payload\n"
    "  --file FILE      with policy test: the same from a file; - is stdin\n"
    "  --event JSON     with policy test: one event, as `sluice send --json` takes it\n"
    "  --from ADDRESS   with policy test: the sender's IP address\n" CLI_OPTIONS_HELP
    "\nExamples:\n"
    "  sluice xdp status\n"
    "  sluice xdp top --interval 5000\n"
    "  sluice xdp policy set quote rate 500 burst 50\n"
    "  sluice xdp policy set --shadow source 10.1.0.0/16 allow\n"
    "  sluice xdp policy get --shadow\n"
    "  sluice xdp policy promote\n"
    "  sluice xdp policy test --hex 0801 --from 192.0.2.9\n"
    "  sluice xdp policy test --event '{\"type\":\"TRADE\",\"source\":\"a\"}' --from 10.1.0.7\n" //
    CLI_EXIT_HELP;

/* Options that not every command takes. */
enum {
    TAKES_SHADOW = 1 << 0,
    TAKES_INTERVAL = 1 << 1,
    TAKES_COUNT = 1 << 2,
    TAKES_HEX = 1 << 3,
    TAKES_FILE = 1 << 4,
    TAKES_EVENT = 1 << 5,
    TAKES_FROM = 1 << 6,
};

static const struct xdp_command {
    const char *word, *second; /* NULL: there is only one */
    int (*run)(const struct xdp_options *o);
    unsigned takes;
    bool arguments;
} commands[] = {
    { "status", NULL, xdp_status, 0, false },
    { "top", NULL, xdp_top, TAKES_INTERVAL | TAKES_COUNT, false },
    { "policy", "get", xdp_policy_get, TAKES_SHADOW, false },
    { "policy", "set", xdp_policy_set, TAKES_SHADOW, true },
    { "policy", "test", xdp_policy_test,
      TAKES_SHADOW | TAKES_HEX | TAKES_FILE | TAKES_EVENT | TAKES_FROM, false },
    { "policy", "promote", xdp_policy_promote, 0, false },
    { "policy", "discard", xdp_policy_discard, 0, false },
};

static const struct option options[] = { { "shadow", no_argument, NULL, TAKES_SHADOW },
                                         { "interval", required_argument, NULL, TAKES_INTERVAL },
                                         { "count", required_argument, NULL, TAKES_COUNT },
                                         { "hex", required_argument, NULL, TAKES_HEX },
                                         { "file", required_argument, NULL, TAKES_FILE },
                                         { "event", required_argument, NULL, TAKES_EVENT },
                                         { "from", required_argument, NULL, TAKES_FROM },
                                         CLI_LONG_OPTIONS };

int xdp_fetch(const struct xdp_options *o, bool sources, sluice_v1_XdpStatusResponse *ret)
{
    struct admin_request r = { .which = ADMIN_XDP_STATUS, .xdp_status.sources = sources };

    return cli_call(&o->common, &r, ADMIN_BODY_XDP_STATUS, sluice_v1_XdpStatusResponse_fields, ret);
}

static int take_option(struct xdp_options *o, int opt)
{
    switch (opt) {
    case TAKES_SHADOW:
        o->shadow = true;
        return -1;
    case TAKES_INTERVAL:
        if (!cli_number(optarg, 3600000, &o->interval_ms) || o->interval_ms < 10)
            return cli_usage("xdp", "--interval takes milliseconds, 10 to 3600000");
        return -1;
    case TAKES_COUNT:
        if (!cli_number(optarg, UINT64_MAX, &o->count) || o->count == 0)
            return cli_usage("xdp", "--count takes a number above 0");
        return -1;
    case TAKES_HEX:
        o->hex = optarg;
        return -1;
    case TAKES_FILE:
        o->file = optarg;
        return -1;
    case TAKES_EVENT:
        o->event = optarg;
        return -1;
    case TAKES_FROM:
        o->from = optarg;
        return -1;
    default:
        return cli_option(&o->common, opt, help);
    }
}

/* Finds the command of the words and moves o->arg behind them. Returns NULL after saying why. */
static const struct xdp_command *find_command(struct xdp_options *o)
{
    const char *second = o->args > 1 ? o->arg[1] : NULL;

    if (o->args == 0) {
        cli_usage("xdp", "status, top or policy?");
        return NULL;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const struct xdp_command *c = &commands[i];
        int words = c->second ? 2 : 1;

        if (strcmp(o->arg[0], c->word) != 0 ||
            (c->second && (second == NULL || strcmp(second, c->second) != 0)))
            continue;
        o->arg += words;
        o->args -= words;
        return c;
    }
    if (strcmp(o->arg[0], "policy") != 0)
        cli_usage("xdp", "there is no 'xdp %s': status, top or policy", o->arg[0]);
    else if (second == NULL)
        cli_usage("xdp", "policy get, set, test, promote or discard?");
    else
        cli_usage("xdp", "there is no 'xdp policy %s': get, set, test, promote or discard", second);
    return NULL;
}

static int check_options(const struct xdp_command *c, unsigned given)
{
    for (size_t i = 0; options[i].name != NULL; i++) {
        unsigned bit = (unsigned)options[i].val;

        if (options[i].val <= TAKES_FROM && (given & bit) != 0 && (c->takes & bit) == 0)
            return cli_usage("xdp", "%s%s%s takes no --%s", c->word, c->second ? " " : "",
                             c->second ? c->second : "", options[i].name);
    }
    return CLI_OK;
}

int xdp_main(int argc, char **argv)
{
    struct xdp_options o = { .interval_ms = 1000 };
    const struct xdp_command *c;
    unsigned given = 0;
    int opt, rc;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        rc = take_option(&o, opt);
        if (rc >= 0)
            return rc;
        if (opt <= TAKES_FROM)
            given |= (unsigned)opt;
    }
    o.args = argc - optind;
    o.arg = argv + optind;
    c = find_command(&o);
    if (c == NULL)
        return CLI_USAGE;
    if (o.args > 0 && !c->arguments)
        return cli_usage("xdp", "what is '%s' for?", o.arg[0]);
    rc = check_options(c, given);
    return rc == CLI_OK ? c->run(&o) : rc;
}
