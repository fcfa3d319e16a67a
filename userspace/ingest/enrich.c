/*
 * enrich.c - third stage: the session, an id where there is none, the identity and the content.
 *
 * Receive time, node and region are the block's, and become Event.enrichment when it is read.
 *
 * Thread:  the worker of the struct stages.
 * Memory:  none.
 * Counts:  only what it refuses when its time is up.
 */
#include "ingest/enrich.h"

#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "ingest/stages.h"

#define REASON(name) sluice_v1_Reason_##name

/* Of the event's own time, on the calendar of its venue. Custom events have no venue that we know
 * of, so no session. */
static uint8_t session_of(struct calendars *c, const struct event *ev)
{
    const char *venue;
    uint32_t i;

    switch (ev->detail) {
    case sluice_v1_Event_trade_tag:
        venue = ev->trade.venue;
        break;
    case sluice_v1_Event_quote_tag:
        venue = ev->quote.bid_venue[0] != 0 ? ev->quote.bid_venue : ev->quote.ask_venue;
        break;
    case sluice_v1_Event_orderbook_tag:
        venue = ev->orderbook.venue;
        break;
    default:
        return SESSION_NONE;
    }
    i = calendar_of_venue(c->set, venue, strlen(venue));
    assert(i < c->set->n);
    return (uint8_t)calendar_session_at(c->set->calendar[i], &c->cursor[i], ev->timestamp_ns);
}

/* Prefix and a counter that never goes back: two of one worker differ, and so do two workers' and
 * two runs' by the random prefix. */
static void id_assign(struct stages *s, struct event *ev)
{
    uint64_t counter = __builtin_bswap64(s->id_counter++);

    memcpy(ev->assigned_id, s->id_prefix, sizeof s->id_prefix);
    memcpy(ev->assigned_id + sizeof s->id_prefix, &counter, sizeof counter);
    _Static_assert(sizeof s->id_prefix + sizeof counter == ASSIGNED_ID_BYTES, "prefix, counter");
    ev->id = (struct slice){ ev->assigned_id, ASSIGNED_ID_BYTES };
    ev->id_assigned = true;
}

static void event_enrich(struct stages *s, struct event *ev)
{
    if (ev->id.bytes == 0)
        id_assign(s, ev);
    ev->session = session_of(s->calendars, ev);
    ev->key =
        hash_event_key(s->hash_key, ev->source.data, ev->source.bytes, ev->id.data, ev->id.bytes);
    ev->content = hash_content(s->hash_key, ev->raw.data, ev->raw.bytes);
}

size_t enrich_run(struct stages *s, struct event *ev, size_t n)
{
    struct stage_watch watch = { .start_ns = n > 1 ? clock_monotonic_ns() : 0 };
    size_t left = 0;

    assert(n <= EVENTS_RUN_MAX);
    for (size_t i = 0; i < n; i++) {
        if (ev[i].reason != REASON(REASON_NONE))
            continue;
        if (stage_is_late(s, STAGE_ENRICH, &watch, i)) {
            event_refuse(s, &ev[i], REASON(STAGE_TIMEOUT));
            continue;
        }
        event_enrich(s, &ev[i]);
        left++;
    }
    return left;
}
