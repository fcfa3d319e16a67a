/*
 * cli.h - what the commands of `sluice` share: exit codes, options, the way to the daemon.
 *
 * Every command is `int x_main(int argc, char **argv)`, argv[0] being its name; it returns an exit
 * code. Results go to stdout, everything else to stderr. One thread.
 */
#ifndef SLUICE_CLI_CLI_H
#define SLUICE_CLI_CLI_H

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/admin_frame.h"
#include "cli/admin_client.h"

enum cli_exit {
    CLI_OK = 0,
    CLI_NEGATIVE = 1,    /* the answer is no: not found, does not balance, damaged */
    CLI_USAGE = 2,       /* wrong options or arguments */
    CLI_UNREACHABLE = 3, /* no daemon answers */
    CLI_REFUSED = 4,     /* the daemon, or the system, refuses */
};

/* Options that every command of the daemon takes; append CLI_LONG_OPTIONS to its own. */
struct cli_options {
    const char *socket;   /* NULL: see cli_ask() */
    const char *config;   /* a sluiced.yaml, for its socket */
    const char *address;  /* HOST:PORT: over TLS, not by a socket */
    struct tls_files tls; /* NULL: as the environment says */
    bool json;
};

enum {
    CLI_OPT_SOCKET = 1000,
    CLI_OPT_CONFIG,
    CLI_OPT_ADDRESS,
    CLI_OPT_CA,
    CLI_OPT_CERT,
    CLI_OPT_KEY,
    CLI_OPT_JSON,
    CLI_OPT_HELP,
};

/* Of every command that may speak TLS. */
#define CLI_TLS_LONG_OPTIONS                                                                       \
    { "ca", required_argument, NULL, CLI_OPT_CA },                                                 \
        { "cert", required_argument, NULL, CLI_OPT_CERT },                                         \
    {                                                                                              \
        "key", required_argument, NULL, CLI_OPT_KEY                                                \
    }

#define CLI_LONG_OPTIONS                                                                           \
    { "socket", required_argument, NULL, CLI_OPT_SOCKET },                                         \
        { "config", required_argument, NULL, CLI_OPT_CONFIG },                                     \
        { "address", required_argument, NULL, CLI_OPT_ADDRESS }, CLI_TLS_LONG_OPTIONS,             \
        { "json", no_argument, NULL, CLI_OPT_JSON }, { "help", no_argument, NULL, CLI_OPT_HELP },  \
    {                                                                                              \
        NULL, 0, NULL, 0                                                                           \
    }

#define CLI_TLS_HELP                                                                               \
    "  --ca FILE --cert FILE --key FILE  for TLS: the CA's certificate, one of your own\n"         \
    "                   and its key (default: $SLUICE_CA, $SLUICE_CERT, $SLUICE_KEY)\n"

/* What --help says of them, and of the exit codes. */
#define CLI_OPTIONS_HELP                                                                           \
    "  --json           machine-readable output\n"                                                 \
    "  --socket PATH    the daemon's admin socket (default: $SLUICE_SOCKET, or the\n"              \
    "                   configuration's, or ./sluice-data/admin.sock)\n"                           \
    "  --config FILE    the daemon's configuration file: its socket is used\n"                     \
    "  --address HOST:PORT  a node's admin.listen, over TLS, instead of a socket\n" CLI_TLS_HELP   \
    "  --help           this text\n"

#define CLI_EXIT_HELP                                                                              \
    "\nExit codes: 0 ok, 1 negative finding, 2 usage, 3 cannot reach the daemon, 4 refused.\n"

/* Takes an option that getopt_long() returned and the command does not know. Returns -1 to go on,
 * or the exit code to leave with (help was printed, or the usage error told). */
int cli_option(struct cli_options *o, int opt, const char *help);

/* "sluice NAME: ..." on stderr, and the way to --help. Returns CLI_USAGE. */
int cli_usage(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same without the pointer to --help. Returns code. */
int cli_error(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A decimal number of at most max; false when text is none. */
bool cli_number(const char *text, uint64_t max, uint64_t *ret);

/* One of CLI_TLS_LONG_OPTIONS into f; false for any other. */
bool cli_tls_option(struct tls_files *f, int opt);
/* Takes what was not given from the environment. Returns how many of the three there are. */
unsigned cli_tls_files(struct tls_files *f);

/* Connects and sends. Returns CLI_OK, or an exit code after saying why on stderr. c is to be closed
 * in every case. */
int cli_ask(struct admin_client *c, const struct cli_options *o, const struct admin_request *r);

/* The next response. Returns CLI_OK with *ret (in c's buffer until the next call), or an exit code
 * after saying why on stderr. wait: for ever, as for a tail. */
int cli_response(struct admin_client *c, bool wait, struct admin_response *ret);

/* The same, for so many ms at most; -1: nothing has come. */
int cli_response_in(struct admin_client *c, int ms, struct admin_response *ret);

/* Ask, and one response whose body must be `which`, decoded into message. */
int cli_call(const struct cli_options *o, const struct admin_request *r,
             enum admin_response_body which, const pb_msgdesc_t *fields, void *ret_message);

/* Prints and releases a JSON document. Returns code, or CLI_REFUSED when it cannot be written. */
int cli_print_json(json_t *document, int code);

/* Flushes stdout. Returns code, or CLI_REFUSED with a sentence when what was printed was lost. */
int cli_finish(int code);

/* 12345678 as "11.8 MiB". */
#define CLI_BYTES_BYTES 32u
const char *cli_bytes(char ret[CLI_BYTES_BYTES], uint64_t n);

/* Unix time as RFC 3339 with milliseconds, UTC; "-" for 0. */
#define CLI_TIME_BYTES 32u
const char *cli_time(char ret[CLI_TIME_BYTES], uint64_t unix_ns);

/* The commands. */
int status_main(int argc, char **argv);
int ledger_main(int argc, char **argv);
int get_main(int argc, char **argv);
int tail_main(int argc, char **argv);
int config_main(int argc, char **argv);
int log_main(int argc, char **argv);
int bench_main(int argc, char **argv);
int xdp_main(int argc, char **argv);
int tap_main(int argc, char **argv);
int cert_main(int argc, char **argv);
int cluster_main(int argc, char **argv);

#endif
