/*
 * main.c - `sluice`: one table of commands.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/send.h"
#include "client/sluice.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    { "status", status_main, "what the node is and how it is doing" },
    { "ledger", ledger_main, "what became of every datagram and event" },
    { "send", send_main, "sends events: generated, or from JSON lines or CSV" },
    { "tail", tail_main, "committed events, as they come or from an index on" },
    { "get", get_main, "one event by its id" },
    { "log", log_main, "checks a log on disk" },
    { "bench", bench_main, "a quick load on a running daemon, with latencies" },
    { "config", config_main, "the configuration file, and the replicated settings" },
    { "xdp", xdp_main, "the prefilter in the driver: state, rates, policy" },
    { "tap", tap_main, "samples of dropped datagrams" },
    { "cluster", cluster_main, "a cluster of nodes: its state, its members, who leads" },
    { "cert", cert_main, "certificates for TLS: a CA, nodes, clients" },
};

#define COMMANDS (sizeof commands / sizeof *commands)

static int print_help(FILE *f)
{
    size_t i;

    fputs("sluice - sends, reads and administers; sluiced is the daemon\n\nCommands:\n", f);
    for (i = 0; i < COMMANDS; i++)
        fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].help);
    fputs("  help       this text, or that of a command\n"
          "\nOptions: --help (of every command too, with examples), --version\n"
          "\nThe daemon is reached over its admin socket: --socket PATH, $SLUICE_SOCKET, --config\n"
          "FILE, or ./sluice-data/admin.sock.\n" CLI_EXIT_HELP "\nExamples:\n"
          "  sluice send --generate 1000\n"
          "  sluice tail --no-follow --count 10\n"
          "  sluice ledger --json\n"
          "  sluice help status\n",
          f);
    return f == stdout ? cli_finish(CLI_OK) : CLI_USAGE;
}

static const struct command *command_find(const char *name)
{
    size_t i;

    for (i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

/* Edits (insert, delete, replace) from a to b; names longer than the table are not near. */
static unsigned edit_distance(const char *a, const char *b)
{
    enum { N = 24 };
    size_t a_bytes = strlen(a), b_bytes = strlen(b), i, k;
    unsigned d[N + 1][N + 1];

    if (a_bytes > N || b_bytes > N)
        return N;
    for (i = 0; i <= a_bytes; i++) {
        for (k = 0; k <= b_bytes; k++) {
            unsigned best;

            if (i == 0 || k == 0) {
                d[i][k] = (unsigned)(i + k);
                continue;
            }
            best = d[i - 1][k - 1] + (a[i - 1] != b[k - 1]);
            best = d[i - 1][k] + 1 < best ? d[i - 1][k] + 1 : best;
            d[i][k] = d[i][k - 1] + 1 < best ? d[i][k - 1] + 1 : best;
        }
    }
    return d[a_bytes][b_bytes];
}

static int unknown(const char *name)
{
    unsigned best = 3; /* further away is no mistyping */
    const char *near = NULL;
    size_t i;

    for (i = 0; i < COMMANDS; i++) {
        unsigned d = edit_distance(name, commands[i].name);

        if (d < best) {
            best = d;
            near = commands[i].name;
        }
    }
    if (near != NULL)
        return cli_error(CLI_USAGE, "there is no command '%s'; did you mean '%s'?", name, near);
    return cli_error(CLI_USAGE, "there is no command '%s'; sluice help lists them", name);
}

static int help_of(const char *name)
{
    const struct command *c = command_find(name);
    char help_option[] = "--help";
    char *argv[] = { NULL, help_option, NULL };

    if (c == NULL)
        return unknown(name);
    argv[0] = (char *)c->name;
    return c->run(2, argv);
}

int main(int argc, char **argv)
{
    static char name[32];
    const struct command *c;

    if (argc < 2)
        return print_help(stderr);
    if (strcmp(argv[1], "--version") == 0) {
        printf("sluice %s\n", SLUICE_VERSION);
        return cli_finish(CLI_OK);
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)
        return argc > 2 ? help_of(argv[2]) : print_help(stdout);
    c = command_find(argv[1]);
    if (c == NULL)
        return unknown(argv[1]);
    snprintf(name, sizeof name, "sluice %s", c->name); /* getopt_long() says it in its messages */
    argv[1] = name;
    return c->run(argc - 1, argv + 1);
}
