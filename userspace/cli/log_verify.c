/*
 * log_verify.c - `sluice log verify DIR`: checks a log on disk, no daemon needed.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hex.h"
#include "cli/cli.h"
#include "cli/columns.h"
#include "cluster/log.h"

static const char help[] =
    "sluice log verify DIR [--json]\n\n"
    "Checks everything in a data directory's log: every segment, record, checksum and digest, the\n"
    "hash chain, the mark, term and vote. Changes nothing; the daemon must not be running there. "
    "DIR is\n"
    "the data directory, or the log directory in it.\n"
    "Exit code 1 when anything is wrong. A write that was cut short and never acknowledged at the\n"
    "end of the log is told, but is no finding: the next start cuts it.\n\n"
    "Options:\n"
    "  --json           machine-readable output\n"
    "  --help           this text\n"
    "\nExamples:\n"
    "  sluice log verify ./sluice-data\n"
    "  sluice log verify /var/lib/sluice --json | jq .digest\n"
    "\nExit codes: 0 ok, 1 findings, 2 usage, 4 there is no log, or it cannot be read.\n";

struct findings {
    json_t *list; /* with --json */
};

static void on_problem(void *arg, const char *sentence)
{
    struct findings *f = arg;

    if (f->list != NULL)
        json_array_append_new(f->list, json_string(sentence));
    else
        printf("problem: %s\n", sentence);
}

static void print_text(const struct log_verify_report *r)
{
    struct columns *t = calloc(1, sizeof *t);
    char digest[2 * SHA256_BYTES + 1], a[COLUMNS_NUMBER_BYTES], b[COLUMNS_NUMBER_BYTES];
    bool sep = isatty(STDOUT_FILENO);

    if (t == NULL)
        return;
    columns_init(t, "ll", sep);
    columns_text(t, "segments");
    columns_number(t, r->segments);
    columns_text(t, "records");
    columns_number(t, r->records);
    columns_text(t, "indexes");
    columns_text(t, "%s to %s", columns_number_text(a, r->first_index, sep),
                 columns_number_text(b, r->last_index, sep));
    columns_text(t, "events");
    columns_number(t, r->events);
    columns_text(t, "bytes");
    columns_number(t, r->bytes);
    hex_put(digest, r->digest, sizeof r->digest);
    columns_text(t, "digest");
    columns_text(t, "%s", digest);
    columns_text(t, "tail");
    columns_text(t, "%s",
                 r->torn_tail ? "ends in a write that was never acknowledged; a start cuts it"
                              : "complete");
    columns_text(t, "problems");
    columns_number(t, r->problems);
    columns_print(t, stdout, 0);
    free(t);
}

static json_t *report_json(const struct log_verify_report *r, json_t *problems)
{
    char digest[2 * SHA256_BYTES + 1];

    hex_put(digest, r->digest, sizeof r->digest);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:b, s:o}", "segments",
                     (json_int_t)r->segments, "records", (json_int_t)r->records, "bytes",
                     (json_int_t)r->bytes, "events", (json_int_t)r->events, "firstIndex",
                     (json_int_t)r->first_index, "lastIndex", (json_int_t)r->last_index, "digest",
                     digest, "tornTail", r->torn_tail, "problems", problems);
}

/* The log's directory: `log` in a data directory, or the one that is given. */
static int find_log(const char *dir, char ret[PATH_MAX], bool *ret_in_data)
{
    struct stat st;
    bool in_data = *ret_in_data = snprintf(ret, PATH_MAX, "%s/log", dir) < PATH_MAX &&
                                  stat(ret, &st) == 0 && S_ISDIR(st.st_mode);

    if (!in_data && snprintf(ret, PATH_MAX, "%s", dir) >= PATH_MAX)
        return cli_error(CLI_USAGE, "the directory's name is too long");
    if (stat(ret, &st) < 0)
        return cli_error(CLI_REFUSED, "%s: %s", ret, strerror(errno));
    return CLI_OK;
}

/* Every log has a mark file from its first start on: without one and without a segment there is
 * nothing to verify, and nothing must not pass for a good log. */
static bool holds_log(const char *dir, const struct log_verify_report *r)
{
    char mark[PATH_MAX + 8];

    snprintf(mark, sizeof mark, "%s/mark", dir);
    return r->segments > 0 || access(mark, F_OK) == 0;
}

/* A log that was made by hand has none; a node's has, or it may vote twice. */
static bool lacks_state(const char *dir)
{
    char state[PATH_MAX + 8];

    snprintf(state, sizeof state, "%s/state", dir);
    return access(state, F_OK) < 0;
}

static int verify(const char *dir, bool of_node, bool json)
{
    struct findings f = { .list = json ? json_array() : NULL };
    struct log_verify_report r = { 0 };
    int rc = log_verify(dir, on_problem, &f, &r), code;

    if ((rc == 0 || rc == -EILSEQ) && of_node && holds_log(dir, &r) && lacks_state(dir)) {
        on_problem(&f, "state: term and vote are missing, and the node does not start: remove it "
                       "from its cluster, and add it with a new directory and id");
        r.problems++;
        rc = -EILSEQ;
    }
    code = rc == 0 ? CLI_OK : CLI_NEGATIVE;

    if ((rc < 0 && rc != -EILSEQ) || !holds_log(dir, &r)) {
        json_decref(f.list);
        if (rc == -EBUSY)
            return cli_error(CLI_REFUSED, "%s: a daemon is running there; stop it first", dir);
        return cli_error(CLI_REFUSED, "%s: %s", dir,
                         rc < 0 && rc != -EILSEQ ? strerror(-rc) : "there is no log");
    }
    if (json)
        return cli_print_json(report_json(&r, f.list), code);
    print_text(&r);
    return cli_finish(code);
}

int log_main(int argc, char **argv)
{
    static const struct option options[] = { { "json", no_argument, NULL, CLI_OPT_JSON },
                                             { "help", no_argument, NULL, CLI_OPT_HELP },
                                             { NULL, 0, NULL, 0 } };
    struct cli_options o = { 0 };
    char dir[PATH_MAX];
    bool of_node;
    int opt, rc;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        rc = cli_option(&o, opt, help);
        if (rc >= 0)
            return rc;
    }
    if (argc - optind < 1 || strcmp(argv[optind], "verify") != 0)
        return cli_usage("log", "the one thing to do with a log is: verify DIR");
    if (argc - optind != 2)
        return cli_usage("log", "verify takes one data directory");
    rc = find_log(argv[optind + 1], dir, &of_node);
    return rc == CLI_OK ? verify(dir, of_node, o.json) : rc;
}
