/*
 * retry.c - requests that the server cannot take now, to be sent again later.
 *
 * A batch is sent again whole, with the same bytes: what the server has of it already it answers as
 * duplicates. Of those the first answer counts, which is kept beside the request. Events to which
 * the server has given an id could not be recognised, so a batch with such ones is not sent again.
 *
 * Thread:  the client's.
 * Memory:  32 bytes for each event of a batch that was decided in part, until it is answered.
 * Limits:  options.retry_ms_max, from when the batch was first sent.
 */
#include "client/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "proto/wire.pb.h"

#define PAUSE_MS_MIN 10u
#define PAUSE_STEPS  16u
#define STRAY_MS_MAX 1000u /* an election takes less; who then knows no leader is cut off */

_Static_assert(sizeof(struct sluice_outcome) == 32 || sizeof(void *) != 8, "as said above");

static bool comes_again(uint32_t reason)
{
    return reason == sluice_v1_Reason_NOT_LEADER || reason == sluice_v1_Reason_OVERLOADED ||
           reason == sluice_v1_Reason_STOPPING || reason == sluice_v1_Reason_REGION_UNREACHABLE ||
           reason == sluice_v1_Reason_PAUSED;
}

/* What was decided before stays. Returns how many events are to come again; *ret_ids: may they? */
static uint32_t merge(struct sluice_client *c, const struct request *r, bool *ret_may)
{
    uint32_t n = 0;

    *ret_may = true;
    for (uint32_t i = 0; i < r->events; i++) {
        if (r->kept && !comes_again(r->kept[i].reason))
            c->outcome[i] = r->kept[i];
        n += comes_again(c->outcome[i].reason);
        *ret_may &= c->outcome[i].id == NULL;
    }
    return n;
}

/* Longer each time; half of it is jitter, so that clients do not come back all at once. */
static uint64_t pause_ns(struct sluice_client *c, const struct request *r)
{
    uint64_t ms = (uint64_t)PAUSE_MS_MIN << (r->retries < PAUSE_STEPS ? r->retries : PAUSE_STEPS);

    if (ms > c->options.backoff_ms_max)
        ms = c->options.backoff_ms_max;
    return ms * NS_PER_MS / 2 + client_random(c) % (ms * NS_PER_MS / 2 + 1);
}

/* Some of a batch may have been decided before: of all of it the least is true. */
uint32_t retry_durability(const struct request *r, uint32_t durability)
{
    uint32_t before = r->durability;

    if (before == 0 || durability == 0)
        return before | durability;
    if (before == sluice_v1_Durability_DEGRADED || durability == sluice_v1_Durability_DEGRADED)
        return sluice_v1_Durability_DEGRADED;
    return before < durability ? before : durability;
}

bool retry_later(struct sluice_client *c, struct request *r, uint32_t durability)
{
    uint64_t now_ns = clock_monotonic_ns(), pause = pause_ns(c, r);
    bool may;
    uint32_t n = merge(c, r, &may);

    assert(r->attempts > 0);
    if (n == 0 || !may || now_ns + pause > r->first_sent_ns + c->options.retry_ms_max * NS_PER_MS)
        return false;
    if (n < r->events && !r->kept) {
        r->kept = malloc(r->events * sizeof(*r->kept));
        if (!r->kept)
            return false; /* it is told as it is */
    }
    if (r->kept)
        memcpy(r->kept, c->outcome, r->events * sizeof(*r->kept));
    r->durability = retry_durability(r, durability);
    r->retries++;
    client_put_off(c, r, now_ns + pause);
    return true;
}

int retry_stray(struct sluice_client *c, const struct sluice_outcome *outcome, uint32_t events)
{
    struct connection *conn = &c->connection;
    uint64_t now_ns = clock_monotonic_ns();
    bool stray = false;

    for (uint32_t i = 0; i < events; i++)
        stray |= outcome[i].reason == sluice_v1_Reason_NOT_LEADER;
    if (!stray) {
        conn->stray_ns = 0;
        return 0;
    }
    if (conn->stray_ns == 0)
        conn->stray_ns = now_ns;
    if (c->addresses == 1 || now_ns - conn->stray_ns < STRAY_MS_MAX * NS_PER_MS)
        return 0;
    client_say(c, 0, "%s: does not lead, and knows nobody who does", conn->peer);
    return -ECONNABORTED;
}
