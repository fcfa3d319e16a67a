/*
 * validate.c - second stage: is what decode found an event that we take?
 *
 * Rules, and why:
 *   type         built in or named by the settings, and admitted by them.
 *   detail       TRADE, QUOTE and ORDERBOOK carry theirs; a user's type carries Custom or nothing.
 *   source       1..64 bytes: with the id it is the event's identity.
 *   strings      UTF-8, or libraries refuse the whole event when it is read back; without NUL, or
 *                two sources would look like one to programs in C.
 *   timestamp    there, and within skew.past_ms and skew.future_ms of its arrival: a clock that is
 *                wrong by a day must be noticed where it is, not when the index is asked.
 *   traceparent  25 bytes or absent.
 *   scales       0..18: 10^18 is the largest power of ten in 64 bits.
 *   prices       any but INT64_MIN, which cannot be negated. Negative ones are real (oil futures in
 *                April 2020, spreads), and so is zero.
 *   sizes        at most INT64_MAX, so that readers may compute with signed numbers. Zero is real:
 *                an empty side of a quote, a level to be removed, an index print.
 *   aggressor    one that we know.
 *   order book   a snapshot's levels are strictly ordered, best first, and each has a size; what is
 *                not a snapshot is a set of changes, in any order. Crossed books are real.
 *   enrichment   absent: it is ours to give.
 *   bytes        at most event.bytes_max.
 *
 * Thread:  the worker of the struct stages.
 * Memory:  none.
 * Counts:  what it refuses, by event_refuse().
 */
#include <assert.h>

#include <string.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "ingest/admission.h"
#include "ingest/limits.h"
#include "ingest/stages.h"

#define REASON(name) sluice_v1_Reason_##name
#define SCALE_MAX    18u
#define TRACE_BYTES  25u

static bool price_valid(int64_t price) { return price != INT64_MIN; }
static bool size_valid(uint64_t size) { return size <= INT64_MAX; }

static bool trade_valid(const sluice_v1_Trade *t)
{
    return t->price_scale <= SCALE_MAX && t->size_scale <= SCALE_MAX && price_valid(t->price) &&
           size_valid(t->size) && t->aggressor <= sluice_v1_Side_SELL;
}

static bool quote_valid(const sluice_v1_Quote *q)
{
    return q->price_scale <= SCALE_MAX && q->size_scale <= SCALE_MAX && price_valid(q->bid_price) &&
           price_valid(q->ask_price) && size_valid(q->bid_size) && size_valid(q->ask_size);
}

/* falling: the best price is the highest one, as on the bid side. */
static bool levels_valid(const sluice_v1_Level *level, size_t n, bool snapshot, bool falling)
{
    for (size_t i = 0; i < n; i++) {
        if (!price_valid(level[i].price) || !size_valid(level[i].size))
            return false;
        if (!snapshot)
            continue;
        if (level[i].size == 0)
            return false;
        if (i > 0 &&
            (falling ? level[i].price >= level[i - 1].price : level[i].price <= level[i - 1].price))
            return false;
    }
    return true;
}

static bool orderbook_valid(const sluice_v1_OrderBook *b)
{
    return b->price_scale <= SCALE_MAX && b->size_scale <= SCALE_MAX &&
           levels_valid(b->bids, b->bids_count, b->is_snapshot, true) &&
           levels_valid(b->asks, b->asks_count, b->is_snapshot, false);
}

/* UTF-8 without NUL: to C such a string ends at the NUL, and two sources would look like one. */
static bool slice_utf8(const struct slice *s)
{
    return s->bytes == 0 || (memchr(s->data, 0, s->bytes) == NULL && utf8_valid(s->data, s->bytes));
}

/* The strings of trades, quotes and order books were checked by decode, on their way. */
static bool strings_valid(const struct event *ev)
{
    if (!slice_utf8(&ev->source) || !slice_utf8(&ev->symbol))
        return false;
    for (uint32_t i = 0; i < ev->attributes; i++) {
        if (!slice_utf8(&ev->attribute_key[i]) || !slice_utf8(&ev->attribute_value[i]))
            return false;
    }
    return ev->detail != sluice_v1_Event_custom_tag || slice_utf8(&ev->schema);
}

static bool detail_matches(const struct event *ev)
{
    switch (ev->type) {
    case sluice_v1_EventType_TRADE:
        return ev->detail == sluice_v1_Event_trade_tag;
    case sluice_v1_EventType_QUOTE:
        return ev->detail == sluice_v1_Event_quote_tag;
    case sluice_v1_EventType_ORDERBOOK:
        return ev->detail == sluice_v1_Event_orderbook_tag;
    default:
        return ev->detail == 0 || ev->detail == sluice_v1_Event_custom_tag;
    }
}

static bool detail_valid(const struct event *ev)
{
    switch (ev->detail) {
    case sluice_v1_Event_trade_tag:
        return trade_valid(&ev->trade);
    case sluice_v1_Event_quote_tag:
        return quote_valid(&ev->quote);
    case sluice_v1_Event_orderbook_tag:
        return orderbook_valid(&ev->orderbook);
    default:
        return true;
    }
}

static unsigned timestamp_check(const struct settings *c, const struct event *ev)
{
    if (ev->timestamp_ns == 0)
        return REASON(TIMESTAMP_MISSING);
    /* As differences: neither can overflow, whatever the producer says. */
    if (ev->timestamp_ns > ev->receive_time_ns)
        return ev->timestamp_ns - ev->receive_time_ns > c->skew_future_ms * NS_PER_MS
                   ? REASON(TIMESTAMP_FUTURE)
                   : REASON(REASON_NONE);
    return ev->receive_time_ns - ev->timestamp_ns > c->skew_past_ms * NS_PER_MS
               ? REASON(TIMESTAMP_PAST)
               : REASON(REASON_NONE);
}

static unsigned event_check(const struct settings *c, const struct event *ev)
{
    if (ev->type == 0 || !c->known[ev->type])
        return REASON(TYPE_UNKNOWN);
    if (ev->raw.bytes > c->event_bytes_max)
        return REASON(DECODE_BOUNDS);
    if (ev->enriched)
        return REASON(ENRICHMENT_PRESENT);
    if (!detail_matches(ev))
        return REASON(TYPE_DETAIL_MISMATCH);
    if (ev->source.bytes == 0)
        return REASON(SOURCE_MISSING);
    if (!strings_valid(ev))
        return REASON(UTF8_INVALID);
    if (ev->traceparent.bytes != 0 && ev->traceparent.bytes != TRACE_BYTES)
        return REASON(VALUE_OUT_OF_RANGE);
    if (!detail_valid(ev))
        return REASON(VALUE_OUT_OF_RANGE);
    return timestamp_check(c, ev);
}

static unsigned policy_reason(const struct stages *s, unsigned which, unsigned type)
{
    const struct policy_type *t = &s->admission->policy[which].type[type];

    switch (policy_event(t, &s->limits->cells->at[which][type])) {
    case REASON_TYPE_DROPPED:
    case REASON_TYPE_UNKNOWN:
        return REASON(TYPE_NOT_ADMITTED);
    case REASON_SAMPLED_OUT:
        return REASON(SAMPLED_OUT);
    case REASON_TYPE_RATE:
        return REASON(RATE_LIMITED);
    default:
        return REASON(REASON_NONE);
    }
}

/* Does it have to be durable in both regions, and cannot be? */
static bool region_is_missing(const struct stages *s, const struct event *ev)
{
    if (s->region_stops)
        return true;
    return s->region_fails &&
           (s->region_wanted || s->admission->settings.durability[ev->type] == SETTINGS_REGION);
}

/* Last, so that `refused` counts only what would have been taken. Of events that came alone in a
 * datagram it is decided already, as their datagrams. */
static unsigned policy_check(struct stages *s, const struct event *ev)
{
    unsigned reason, shadow;

    if (ev->decided)
        return REASON(REASON_NONE);
    reason = policy_reason(s, POLICY_ACTIVE, ev->type);
    if (s->admission->shadow) {
        shadow = policy_reason(s, POLICY_SHADOW, ev->type);
        if (reason == REASON(REASON_NONE))
            s->ledger->shadow_refused[shadow]++;
        else if (shadow == REASON(REASON_NONE))
            s->ledger->shadow_admitted++;
    }
    return reason;
}

size_t validate_run(struct stages *s, struct event *ev, size_t n)
{
    struct stage_watch watch = { .start_ns = n > 1 ? clock_monotonic_ns() : 0 };
    unsigned reason;
    size_t left = 0;

    assert(n <= EVENTS_RUN_MAX);
    for (size_t i = 0; i < n; i++) {
        if (ev[i].reason != REASON(REASON_NONE))
            continue;
        reason = stage_is_late(s, STAGE_VALIDATE, &watch, i)
                     ? REASON(STAGE_TIMEOUT)
                     : event_check(&s->admission->settings, &ev[i]);
        if (reason == REASON(REASON_NONE))
            reason = policy_check(s, &ev[i]);
        if (reason == REASON(REASON_NONE) && s->admission->settings.ingest_paused)
            reason = REASON(PAUSED);
        if (reason == REASON(REASON_NONE) && region_is_missing(s, &ev[i]))
            reason = REASON(REGION_UNREACHABLE);
        if (reason != REASON(REASON_NONE))
            event_refuse(s, &ev[i], reason);
        else
            left++;
    }
    return left;
}
