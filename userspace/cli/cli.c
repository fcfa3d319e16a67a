/*
 * cli.c - see cli.h.
 */
#include "cli/cli.h"

#include <errno.h>
#include <pb_decode.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/config.h"

#define ANSWER_MS_MAX 20000 /* a daemon that says nothing for so long does not answer */

int cli_error(int code, const char *format, ...)
{
    va_list args;

    fputs("sluice: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return code;
}

int cli_usage(const char *name, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "sluice %s: ", name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nTry: sluice %s --help\n", name);
    return CLI_USAGE;
}

bool cli_tls_option(struct tls_files *f, int opt)
{
    const char **to = opt == CLI_OPT_CA     ? &f->ca
                      : opt == CLI_OPT_CERT ? &f->cert
                      : opt == CLI_OPT_KEY  ? &f->key
                                            : NULL;

    if (to != NULL)
        *to = optarg;
    return to != NULL;
}

unsigned cli_tls_files(struct tls_files *f)
{
    const char **to[] = { &f->ca, &f->cert, &f->key };
    static const char *const name[] = { "SLUICE_CA", "SLUICE_CERT", "SLUICE_KEY" };
    unsigned n = 0;

    for (unsigned i = 0; i < 3; i++) {
        const char *given = getenv(name[i]);

        if (*to[i] == NULL && given != NULL && given[0] != '\0')
            *to[i] = given;
        n += *to[i] != NULL;
    }
    return n;
}

int cli_option(struct cli_options *o, int opt, const char *help)
{
    switch (opt) {
    case CLI_OPT_SOCKET:
        o->socket = optarg;
        return -1;
    case CLI_OPT_CONFIG:
        o->config = optarg;
        return -1;
    case CLI_OPT_ADDRESS:
        o->address = optarg;
        return -1;
    case CLI_OPT_CA:
    case CLI_OPT_CERT:
    case CLI_OPT_KEY:
        (void)cli_tls_option(&o->tls, opt);
        return -1;
    case CLI_OPT_JSON:
        o->json = true;
        return -1;
    case CLI_OPT_HELP:
        fputs(help, stdout);
        return cli_finish(CLI_OK);
    default: /* getopt_long() has said what is wrong */
        fputs("Try: --help shows the options\n", stderr);
        return CLI_USAGE;
    }
}

bool cli_number(const char *text, uint64_t max, uint64_t *ret)
{
    char *end;

    if (text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    *ret = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0' && *ret <= max;
}

/* The socket's path from the options, the environment, a configuration, or its default. */
static int socket_path(const struct cli_options *o, char ret[CONFIG_PATH_BYTES])
{
    const char *given = o->socket ? o->socket : o->config ? NULL : getenv("SLUICE_SOCKET");
    char error[CONFIG_ERROR_BYTES] = "";
    struct config *config;
    int rc;

    if (given != NULL && given[0] != '\0') {
        snprintf(ret, CONFIG_PATH_BYTES, "%s", given);
        return CLI_OK;
    }
    config = calloc(1, sizeof *config);
    if (config == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    rc = o->config ? config_load(o->config, config, error) : config_init_defaults(config);
    if (rc == 0)
        config_admin_socket(config, ret);
    config_fini(config);
    free(config);
    if (rc < 0)
        return cli_error(CLI_USAGE, "%s", error[0] ? error : strerror(-rc));
    return CLI_OK;
}

static int cannot_reach(const char *path, int rc)
{
    switch (-rc) {
    case ENOENT:
        return cli_error(
            CLI_UNREACHABLE,
            "no daemon: %s does not exist. Is sluiced running, and from this directory?"
            " --socket PATH names another place",
            path);
    case ECONNREFUSED:
        return cli_error(CLI_UNREACHABLE, "no daemon answers on %s: sluiced is not running", path);
    case EACCES:
    case EPERM:
        return cli_error(CLI_REFUSED, "%s: you may not use this socket (admin.uids, its mode)",
                         path);
    default:
        return cli_error(CLI_UNREACHABLE, "%s: %s", path, strerror(-rc));
    }
}

static int open_socket(struct admin_client *c, const struct cli_options *o)
{
    char path[CONFIG_PATH_BYTES];
    int rc = socket_path(o, path);

    if (rc != CLI_OK)
        return rc;
    if (o->tls.ca != NULL || o->tls.cert != NULL || o->tls.key != NULL)
        return cli_error(CLI_USAGE, "--ca, --cert and --key are for --address HOST:PORT");
    rc = admin_client_open(c, path);
    return rc < 0 ? cannot_reach(path, rc) : CLI_OK;
}

static int open_address(struct admin_client *c, const struct cli_options *o)
{
    char sentence[ADMIN_CLIENT_ERROR_BYTES];
    struct tls_files files = o->tls;
    int rc;

    if (o->socket != NULL || o->config != NULL)
        return cli_error(CLI_USAGE, "--address is instead of --socket and --config");
    if (cli_tls_files(&files) < 3)
        return cli_error(CLI_USAGE, "--address needs --ca, --cert and --key, or $SLUICE_CA, "
                                    "$SLUICE_CERT and $SLUICE_KEY");
    rc = admin_client_open_tls(c, o->address, &files, sentence);
    if (rc == 0)
        return CLI_OK;
    return cli_error(rc == -EINVAL                    ? CLI_USAGE
                     : rc == -EACCES || rc == -EPROTO ? CLI_REFUSED
                                                      : CLI_UNREACHABLE,
                     "%s", sentence);
}

int cli_ask(struct admin_client *c, const struct cli_options *o, const struct admin_request *r)
{
    int rc;

    *c = (struct admin_client){ .fd = -1 };
    rc = o->address != NULL ? open_address(c, o) : open_socket(c, o);
    if (rc != CLI_OK)
        return rc;
    rc = admin_client_send(c, r);
    if (rc == -EACCES || rc == -EPROTO)
        return cli_error(CLI_REFUSED, "%s", admin_client_error(c));
    if (rc < 0)
        return cli_error(CLI_UNREACHABLE, "the request cannot be sent: %s", strerror(-rc));
    return CLI_OK;
}

int cli_response(struct admin_client *c, bool wait, struct admin_response *ret)
{
    int rc = cli_response_in(c, wait ? -1 : ANSWER_MS_MAX, ret);

    if (rc == -1)
        return cli_error(CLI_UNREACHABLE, "the daemon does not answer within %d s",
                         ANSWER_MS_MAX / 1000);
    return rc;
}

int cli_response_in(struct admin_client *c, int ms, struct admin_response *ret)
{
    int rc = admin_client_next(c, ms, ret);

    if (rc == -ETIMEDOUT)
        return -1;
    if (rc == -EACCES || (rc == -EPROTO && admin_client_error(c) != NULL))
        return cli_error(CLI_REFUSED, "%s", admin_client_error(c));
    if (rc == -ECONNRESET)
        return cli_error(CLI_UNREACHABLE, "the daemon closed the connection");
    if (rc == -EMSGSIZE || rc == -EBADMSG)
        return cli_error(CLI_REFUSED, "the daemon's answer is not of this version");
    if (rc < 0)
        return cli_error(CLI_UNREACHABLE, "the connection to the daemon broke: %s", strerror(-rc));
    if (ret->error[0] == '\0' && ret->code == 0)
        return CLI_OK;
    return cli_error(ret->code == ENOENT ? CLI_NEGATIVE : CLI_REFUSED, "%s",
                     ret->error[0] ? ret->error : strerror((int)ret->code));
}

int cli_call(const struct cli_options *o, const struct admin_request *r,
             enum admin_response_body which, const pb_msgdesc_t *fields, void *ret_message)
{
    struct admin_client c;
    struct admin_response response;
    pb_istream_t in;
    int rc = cli_ask(&c, o, r);

    if (rc == CLI_OK)
        rc = cli_response(&c, false, &response);
    if (rc == CLI_OK) {
        in = pb_istream_from_buffer(response.body, response.body_bytes);
        if (response.which != which || !pb_decode(&in, fields, ret_message))
            rc = cli_error(CLI_REFUSED, "the daemon's answer is not of this version");
    }
    admin_client_close(&c);
    return rc;
}

int cli_finish(int code)
{
    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return code;
    return cli_error(CLI_REFUSED, "the output cannot be written: %s", strerror(errno));
}

int cli_print_json(json_t *document, int code)
{
    size_t layout = isatty(STDOUT_FILENO) ? JSON_INDENT(2) : JSON_COMPACT;

    if (document == NULL || json_dumpf(document, stdout, layout | JSON_REAL_PRECISION(12)) < 0) {
        json_decref(document);
        return cli_error(CLI_REFUSED, "the output cannot be written");
    }
    json_decref(document);
    putchar('\n');
    return cli_finish(code);
}

const char *cli_bytes(char ret[CLI_BYTES_BYTES], uint64_t n)
{
    static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
    double value = (double)n;
    unsigned i;

    for (i = 0; value >= 1024 && i + 1 < sizeof unit / sizeof *unit; i++)
        value /= 1024;
    snprintf(ret, CLI_BYTES_BYTES, i ? "%.1f %s" : "%.0f %s", value, unit[i]);
    return ret;
}

const char *cli_time(char ret[CLI_TIME_BYTES], uint64_t unix_ns)
{
    time_t s = (time_t)(unix_ns / 1000000000u);
    struct tm tm;
    size_t n;

    if (unix_ns == 0 || gmtime_r(&s, &tm) == NULL)
        return "-";
    n = strftime(ret, CLI_TIME_BYTES, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(ret + n, CLI_TIME_BYTES - n, ".%03uZ", (unsigned)(unix_ns / 1000000u % 1000u));
    return ret;
}
