/*
 * sluice.c - three daemons under the load that drive.h gives to others, by the lanes of
 * tests/lib/lane.h; the same arguments (the ports are not looked at: the daemons are started here,
 * and get ports of their own) and the same line of output. All events have ids and are
 * deduplicated. An open loop has one connection.
 *
 * In the end all three must hold exactly what was acknowledged, with one chain, on their disks.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "tests/bench/peers/drive.h"
#include "tests/lib/lane.h"
#include "tests/lib/trio.h"

static struct trio trio;

static uint64_t run_closed(const struct drive_options *o, const struct lane_kind *kind,
                           const struct daemon *to)
{
    struct lane *lane[LANES_MAX];
    uint64_t events, ns;

    for (unsigned i = 0; i < o->connections; i++)
        lane[i] = lane_open(kind, to, 1, 0);
    events = lanes_run(lane, o->connections, o->seconds, &ns);
    printf("%.0f %llu 0 0\n", (double)events * 1e9 / (double)ns,
           (unsigned long long)(events / o->events));
    for (unsigned i = 0; i < o->connections; i++)
        lane_close(lane[i]);
    return events;
}

static uint64_t run_paced(const struct drive_options *o, const struct lane_kind *kind,
                          const struct daemon *to)
{
    const uint64_t messages = (uint64_t)(o->seconds * (double)o->per_s), skip = messages / 10;
    uint64_t *ns = malloc(messages * sizeof *ns), start, spent;
    struct lane *l = lane_open(kind, to, 1, 0);

    assert(ns != NULL && messages > skip);
    start = clock_monotonic_ns();
    lane_pace(l, o->per_s, messages, ns);
    spent = clock_monotonic_ns() - start;
    lane_close(l);
    printf("%.0f %llu %.0f %.0f\n", (double)messages * o->events * 1e9 / (double)spent,
           (unsigned long long)messages, lane_quantile(ns + skip, messages - skip, 0.5) / 1e3,
           lane_quantile(ns + skip, messages - skip, 0.99) / 1e3);
    free(ns);
    return messages * o->events;
}

int main(int argc, char **argv)
{
    struct drive_options o;
    struct lane_kind kind;
    uint64_t events;

    drive_options(&o, argc, argv);
    if (o.connections > LANES_MAX)
        drive_fail("at most %u connections", LANES_MAX);
    kind = (struct lane_kind){ DRIVE_EVENT_BYTES, o.events, o.window, .custom = false };
    trio_open(&trio, false);
    events = (o.paced ? run_paced : run_closed)(&o, &kind, &trio.node[trio_leader(&trio)]);
    trio_check(&trio, events);
    trio_close(&trio);
    return 0;
}
