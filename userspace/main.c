/*
 * main.c - sluiced: one node. Without arguments: on loopback, data under ./sluice-data.
 *
 * Exit: 0 stopped by SIGTERM or SIGINT, 1 could not start, 2 usage or config, 3 failed while
 * running (nothing was answered after the failure; see the last line on stderr).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/report.h"
#include "client/sluice.h"
#include "pipeline.h"

static const char usage[] =
    "Usage: sluiced [--config FILE] [--data DIR]\n"
    "\n"
    "Collects market-data events (protobuf over UDP and TCP) into a durable log.\n"
    "Without arguments it listens on loopback, port 7400, and keeps its data in "
    "./sluice-data.\n"
    "\n"
    "  --config FILE   YAML file; deploy/config/sluiced.yaml shows every key\n"
    "  --data DIR      data directory; overrides data.dir of the file\n"
    "  --help          this text\n"
    "  --version       print the version\n"
    "\n"
    "Examples:\n"
    "  sluiced\n"
    "  sluiced --config /etc/sluice/sluiced.yaml\n"
    "\n"
    "SIGTERM and SIGINT: stops taking, commits and answers what it took, and exits with 0.\n";

struct arguments {
    const char *config_file, *data_dir;
};

/* Returns -1 to go on, or the exit code. */
static int parse_arguments(int argc, char **argv, struct arguments *ret)
{
    static const struct option options[] = {
        { "config", required_argument, NULL, 'c' },
        { "data", required_argument, NULL, 'd' },
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'v' },
        { NULL, 0, NULL, 0 },
    };
    int o;

    while ((o = getopt_long(argc, argv, "c:d:h", options, NULL)) != -1) {
        switch (o) {
        case 'c':
            ret->config_file = optarg;
            break;
        case 'd':
            ret->data_dir = optarg;
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        case 'v':
            puts("sluiced " SLUICE_VERSION);
            return 0;
        default:
            fputs("Try 'sluiced --help'.\n", stderr);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "sluiced: unexpected argument '%s'\nTry 'sluiced --help'.\n", argv[optind]);
        return 2;
    }
    return -1;
}

static int load_config(const struct arguments *a, struct config *config)
{
    char error[CONFIG_ERROR_BYTES];
    int e =
        a->config_file ? config_load(a->config_file, config, error) : config_init_defaults(config);

    if (e < 0) {
        fprintf(stderr, "sluiced: %s\n", a->config_file ? error : strerror(-e));
        return 2;
    }
    if (a->data_dir != NULL) {
        if (strlen(a->data_dir) >= sizeof config->data.dir) {
            fputs("sluiced: --data: name too long\n", stderr);
            return 2;
        }
        snprintf(config->data.dir, sizeof config->data.dir, "%s", a->data_dir);
    }
    return 0;
}

/* Started without them, the log's files would get the numbers 0 to 2, and reports would be written
 * into them. */
static void open_standard_files(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}

/* A shell's soft limit is made for programs that use select(); connections need more. */
static void descriptors_raise(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        report_warn("descriptors", "RLIMIT_NOFILE: %s", strerror(errno));
}

/* io_uring's rings are locked memory, and count when the privileges are gone. */
static void locked_memory_raise(void)
{
    struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };

    if (setrlimit(RLIMIT_MEMLOCK, &limit) == 0 || getrlimit(RLIMIT_MEMLOCK, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_MEMLOCK, &limit);
}

int main(int argc, char **argv)
{
    struct arguments arguments = { NULL, NULL };
    char error[PIPELINE_ERROR_BYTES];
    struct pipeline *p = NULL;
    static struct config config;
    sigset_t signals;
    int rc = parse_arguments(argc, argv, &arguments), got = 0;

    open_standard_files();
    if (rc >= 0)
        return rc;
    rc = load_config(&arguments, &config);
    if (rc != 0)
        return rc;
    report_init((enum report_level)config.log_level, REPORT_AUTO, 2);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* the write then fails, and says so */
    descriptors_raise();
    locked_memory_raise();
    /* Blocked in every thread; main waits for them. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    if (pipeline_start(&p, &config, error) < 0) {
        report_error("start_failed", "%s", error);
        config_fini(&config);
        return 1;
    }
    report_info("started", "node %u, region %u, data in %s, port %u", config.node.id,
                config.node.region, config.data.dir, config.ingest.port);
    while (sigwait(&signals, &got) != 0) {
    }
    report_info("stopping", "signal %d: no more is taken; committing what was", got);
    pipeline_stop(p);
    report_info("stopped", "all that was taken is committed and answered");
    config_fini(&config);
    return 0;
}
