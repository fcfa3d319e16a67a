/*
 * stages.c - what the stages have in common, and all four in their order.
 *
 * Thread:  the worker of the struct stages.
 * Memory:  none.
 * Counts:  invalid, refused and reason; stage_events and stage_ns.
 */
#include "ingest/stages.h"

#include <assert.h>

#include "base/clock.h"

#define REASON(name) sluice_v1_Reason_##name

_Static_assert(LEDGER_TYPES == BLOCK_TYPES && LEDGER_TYPES == SETTINGS_TYPES, "one range of types");
_Static_assert(EVENT_BYTES_MAX + 2 + ASSIGNED_ID_BYTES <= UINT16_MAX, "block_desc.bytes");
_Static_assert(EVENTS_RUN_MAX *(EVENT_BYTES_MAX + 2 + ASSIGNED_ID_BYTES) < UINT32_MAX, "sums");

static bool reason_is_refusal(unsigned reason)
{
    switch (reason) {
    case REASON(TYPE_NOT_ADMITTED):
    case REASON(OVERLOADED):
    case REASON(DISK_FULL):
    case REASON(STOPPING):
    case REASON(STAGE_TIMEOUT):
    case REASON(SAMPLED_OUT):
    case REASON(RATE_LIMITED):
    case REASON(REGION_UNREACHABLE):
    case REASON(PAUSED):
        return true;
    default:
        return false;
    }
}

void event_refuse(struct stages *s, struct event *ev, unsigned reason)
{
    assert(reason != REASON(REASON_NONE) && reason < LEDGER_REASONS);
    assert(ev->reason == REASON(REASON_NONE));
    assert(ev->type < LEDGER_TYPES);
    ev->reason = (uint8_t)reason;
    if (reason_is_refusal(reason))
        s->ledger->refused[ev->type]++;
    else
        s->ledger->invalid[ev->type]++;
    s->ledger->reason[reason]++;
}

/* The clock on the wall also runs while others have the processor: a thread that had to wait for it
 * has done nothing wrong. So a stage that is over its limit there gets the limit once more, in its
 * own processor time from here on. That clock costs a system call, which is rare here. */
static bool stage_has_worked_less(struct stages *s, enum stage stage, uint64_t start_ns)
{
    uint64_t now_ns = clock_read(CLOCK_THREAD_CPUTIME_ID);

    if (s->over_start_ns != start_ns || s->over_stage != stage) {
        s->over_start_ns = start_ns;
        s->over_stage = (uint8_t)stage;
        s->over_cpu_ns = now_ns;
    }
    return now_ns - s->over_cpu_ns < s->stage_ns_max[stage];
}

/* Asked for every fourth event, so by the coarse clock first, which costs a fifth. It only lags:
 * while it has not reached the limit, what is left of a tick is all that can be missed; when it
 * has, it may have jumped there, and the exact clock decides. */
bool stage_in_time(struct stages *s, enum stage stage, uint64_t start_ns)
{
    uint64_t max_ns;

    assert(stage < STAGE_N);
    max_ns = s->stage_ns_max[stage];
    if (max_ns == 0)
        return false;
    if (clock_read(CLOCK_MONOTONIC_COARSE) < start_ns + max_ns)
        return true;
    if (clock_monotonic_ns() - start_ns < max_ns)
        return true;
    return stage_has_worked_less(s, stage, start_ns);
}

size_t stages_run(struct stages *s, struct event *ev, size_t n)
{
    static size_t (*const run[STAGE_N])(struct stages *, struct event *, size_t) = {
        [STAGE_DECODE] = decode_run,
        [STAGE_VALIDATE] = validate_run,
        [STAGE_ENRICH] = enrich_run,
        [STAGE_BATCH] = batch_run,
    };
    uint64_t before_ns = clock_monotonic_ns(), after_ns;
    size_t left = n;

    for (unsigned i = 0; i < STAGE_N; i++) {
        s->ledger->stage_events[i] += left;
        left = run[i](s, ev, n);
        after_ns = clock_monotonic_ns();
        s->ledger->stage_ns[i] += after_ns - before_ns;
        before_ns = after_ns;
    }
    return left;
}
