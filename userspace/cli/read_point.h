/*
 * read_point.h - --barrier and --max-lag-s, for commands that read events. See read_point.c.
 */
#ifndef SLUICE_CLI_READ_POINT_H
#define SLUICE_CLI_READ_POINT_H

#include "cli/cli.h"

struct read_point_options {
    bool barrier;
    uint32_t lag_s_max; /* 0: no limit */
};

enum { READ_POINT_BARRIER = 2000, READ_POINT_LAG };

#define READ_POINT_LONG_OPTIONS                                                                    \
    { "barrier", no_argument, NULL, READ_POINT_BARRIER },                                          \
    {                                                                                              \
        "max-lag-s", required_argument, NULL, READ_POINT_LAG                                       \
    }

#define READ_POINT_HELP                                                                            \
    "  --barrier        wait until this node has all that is committed now (asks the leader)\n"    \
    "  --max-lag-s N    refuse if this node may be more than N seconds behind\n"

/* One of READ_POINT_LONG_OPTIONS. Returns -1 to go on, or an exit code. */
int read_point_option(struct read_point_options *o, int opt, const char *command);

/* Before anything is read. Returns CLI_OK, or an exit code after saying why on stderr. */
int read_point(const struct cli_options *o, const struct read_point_options *r);

#endif
