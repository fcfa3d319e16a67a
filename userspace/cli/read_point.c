/*
 * read_point.c - what a read at this node may have missed, before `get` and `tail` read.
 *
 * A node that follows may be behind. With --barrier it waits until it has all that was committed
 * when it was asked; otherwise its bound is told, on stderr, and --max-lag-s refuses a larger one.
 */
#include "cli/read_point.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LAG_S_MAX (UINT32_MAX / 1000)

int read_point_option(struct read_point_options *o, int opt, const char *command)
{
    uint64_t s;

    if (opt == READ_POINT_BARRIER) {
        o->barrier = true;
        return -1;
    }
    if (!cli_number(optarg, LAG_S_MAX, &s) || s == 0)
        return cli_usage(command, "--max-lag-s takes seconds, from 1 to %u", (unsigned)LAG_S_MAX);
    o->lag_s_max = (uint32_t)s;
    return -1;
}

static void tell(const sluice_v1_ReadPoint *p)
{
    char time[CLI_TIME_BYTES];

    fprintf(stderr, "node %" PRIu32 " follows ", p->node);
    if (p->leader != 0)
        fprintf(stderr, "node %" PRIu32, p->leader);
    else
        fprintf(stderr, "nobody now");
    fprintf(stderr, ", and has applied to index %" PRIu64 ", of %s; ", (uint64_t)p->applied_index,
            cli_time(time, p->last_time_ns));
    if (p->lag_ns == UINT64_MAX)
        fprintf(stderr, "how far that is behind is not known (--barrier waits for it)\n");
    else
        fprintf(stderr, "it may be %.1f s behind\n", (double)p->lag_ns / 1e9);
}

int read_point(const struct cli_options *o, const struct read_point_options *r)
{
    const struct admin_request request = {
        .which = ADMIN_READ_POINT,
        .read_point = { .barrier = r->barrier, .lag_ms_max = r->lag_s_max * 1000 },
    };
    sluice_v1_ReadPoint p = sluice_v1_ReadPoint_init_zero;
    int rc = cli_call(o, &request, ADMIN_BODY_READ_POINT, sluice_v1_ReadPoint_fields, &p);

    if (rc == CLI_OK && !r->barrier && p.members > 1 && p.node != p.leader)
        tell(&p);
    return rc;
}
