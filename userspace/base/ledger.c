/*
 * ledger.c - adding ledgers up, and finding out that one does not balance.
 *
 * Thread:  any, on the caller's copies.
 * Memory:  none.
 */
#include "base/ledger.h"

#include <assert.h>

#include "proto/wire.pb.h"

/* Every member is a uint64_t, so that a new one cannot be forgotten in ledger_add(). */
#define LEDGER_WORDS (sizeof(struct ledger) / sizeof(uint64_t))
_Static_assert(sizeof(struct ledger) % sizeof(uint64_t) == 0, "counters only");
_Static_assert(_sluice_v1_Reason_MAX >= LEDGER_REASONS, "DUPLICATE is no reason to refuse");

void ledger_add(struct ledger *to, const struct ledger *from)
{
    uint64_t *t = (uint64_t *)to;
    const uint64_t *f = (const uint64_t *)from;

    assert(to != NULL && from != NULL && to != from);
    for (size_t i = 0; i < LEDGER_WORDS; i++)
        t[i] += f[i];
}

void ledger_forget_shadow(struct ledger *l)
{
    memset(l->shadow_drop, 0, sizeof l->shadow_drop);
    memset(l->shadow_refused, 0, sizeof l->shadow_refused);
    l->shadow_taken = l->shadow_admitted = 0;
}

static uint64_t ledger_accounted(const struct ledger *l, unsigned type)
{
    return l->invalid[type] + l->refused[type] + l->duplicate[type] + l->conflict[type] +
           l->in_flight[type] + l->committed[type] + l->unaccounted[type];
}

static void ledger_sum(const struct ledger *l, struct ledger_sums *ret)
{
    for (unsigned i = 0; i < DROP_N; i++) {
        ret->dropped += l->datagram_drop[i];
        ret->xdp_dropped += l->xdp_drop[i];
        if (i >= DROP_RING_FULL_0 && i <= DROP_FILL_EMPTY)
            ret->ring_dropped += l->datagram_drop[i];
    }
    for (unsigned c = 0; c < LEDGER_CLASSES; c++) {
        ret->xdp_redirected += l->xdp_redirected[c];
        ret->ring_taken += l->ring_taken[c];
        ret->ring_waiting += l->ring_waiting[c];
    }
    for (unsigned t = 0; t < LEDGER_TYPES; t++) {
        ret->decoded += l->decoded[t];
        ret->invalid += l->invalid[t];
        ret->refused += l->refused[t];
        ret->duplicate += l->duplicate[t];
        ret->conflict += l->conflict[t];
        ret->in_flight += l->in_flight[t];
        ret->committed += l->committed[t];
        ret->unaccounted += l->unaccounted[t];
    }
}

void ledger_check(const struct ledger *l, struct ledger_sums *ret)
{
    uint64_t reasons = 0;

    assert(l != NULL && ret != NULL);
    *ret = (struct ledger_sums){ .events_balance = true };
    ledger_sum(l, ret);
    ret->datagrams_balance = l->datagrams_seen == ret->dropped + l->datagrams_delivered;
    ret->xdp_balances = l->xdp_arrived == ret->xdp_dropped + ret->xdp_redirected + l->xdp_passed;
    for (unsigned t = 0; t < LEDGER_TYPES; t++) {
        ret->type_balances[t] = l->decoded[t] == ledger_accounted(l, t);
        ret->events_balance = ret->events_balance && ret->type_balances[t];
    }
    for (unsigned i = 0; i < LEDGER_REASONS; i++)
        reasons += l->reason[i];
    if (reasons != ret->invalid + ret->refused || l->reason[sluice_v1_Reason_REASON_NONE] != 0)
        ret->events_balance = false;
}

const char *datagram_drop_name(enum datagram_drop d)
{
    static const char *const name[DROP_N] = {
        [DROP_KERNEL] = "kernel",
        [DROP_NO_BUFFER] = "no_buffer",
        [DROP_SOURCE_DENIED] = "source_denied",
        [DROP_EMPTY] = "empty",
        [DROP_NOT_PROTOBUF] = "not_protobuf",
        [DROP_BATCH_MALFORMED] = "batch_malformed",
        [DROP_BATCH_TOO_LARGE] = "batch_too_large",
        [DROP_OVERLOAD_0] = "overload_0",
        [DROP_OVERLOAD_1] = "overload_1",
        [DROP_OVERLOAD_2] = "overload_2",
        [DROP_OVERLOAD_3] = "overload_3",
        [DROP_STOPPING] = "stopping",
        [DROP_LENGTH] = "length",
        [DROP_CHECKSUM] = "checksum",
        [DROP_EVENT_MALFORMED] = "event_malformed",
        [DROP_TYPE_UNKNOWN] = "type_unknown",
        [DROP_TYPE_DROPPED] = "type_dropped",
        [DROP_SAMPLED_OUT] = "sampled_out",
        [DROP_TYPE_RATE] = "type_rate",
        [DROP_SOURCE_RATE] = "source_rate",
        [DROP_RING_FULL_0] = "ring_full_0",
        [DROP_RING_FULL_1] = "ring_full_1",
        [DROP_RING_FULL_2] = "ring_full_2",
        [DROP_RING_FULL_3] = "ring_full_3",
        [DROP_FILL_EMPTY] = "fill_empty",
    };

    assert((unsigned)d < DROP_N);
    assert(name[d] != NULL);
    return name[d];
}

const char *reason_name(unsigned reason)
{
    static const char *const name[] = {
        [sluice_v1_Reason_REASON_NONE] = "none",
        [sluice_v1_Reason_DECODE_MALFORMED] = "decode_malformed",
        [sluice_v1_Reason_DECODE_BOUNDS] = "decode_bounds",
        [sluice_v1_Reason_TYPE_UNKNOWN] = "type_unknown",
        [sluice_v1_Reason_TYPE_NOT_ADMITTED] = "type_not_admitted",
        [sluice_v1_Reason_TYPE_DETAIL_MISMATCH] = "type_detail_mismatch",
        [sluice_v1_Reason_SOURCE_MISSING] = "source_missing",
        [sluice_v1_Reason_UTF8_INVALID] = "utf8_invalid",
        [sluice_v1_Reason_TIMESTAMP_MISSING] = "timestamp_missing",
        [sluice_v1_Reason_TIMESTAMP_PAST] = "timestamp_past",
        [sluice_v1_Reason_TIMESTAMP_FUTURE] = "timestamp_future",
        [sluice_v1_Reason_VALUE_OUT_OF_RANGE] = "value_out_of_range",
        [sluice_v1_Reason_ENRICHMENT_PRESENT] = "enrichment_present",
        [sluice_v1_Reason_ID_CONFLICT] = "id_conflict",
        [sluice_v1_Reason_OVERLOADED] = "overloaded",
        [sluice_v1_Reason_DISK_FULL] = "disk_full",
        [sluice_v1_Reason_STOPPING] = "stopping",
        [sluice_v1_Reason_STAGE_TIMEOUT] = "stage_timeout",
        [sluice_v1_Reason_BATCH_TOO_LARGE] = "batch_too_large",
        [sluice_v1_Reason_FIELD_REPEATED] = "field_repeated",
        [sluice_v1_Reason_SAMPLED_OUT] = "sampled_out",
        [sluice_v1_Reason_RATE_LIMITED] = "rate_limited",
        [sluice_v1_Reason_NOT_LEADER] = "not_leader",
        [sluice_v1_Reason_REGION_UNREACHABLE] = "region_unreachable",
        [sluice_v1_Reason_PAUSED] = "paused",
    };

    if (reason == sluice_v1_Reason_DUPLICATE)
        return "duplicate";
    /* A newer server may send reasons that this client does not know. */
    return reason < sizeof name / sizeof name[0] && name[reason] != NULL ? name[reason] : "unknown";
}
