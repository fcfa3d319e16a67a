/*
 * ledger.h - the account of everything seen: datagrams, and events by type.
 *
 *   datagrams  seen    = dropped (by reason) + delivered
 *   events     decoded = invalid + refused + duplicate + conflict + in flight + committed
 *                        (+ unaccounted at a crash)
 *
 * Every term is counted where it happens and none is computed from others; in_flight is counted by
 * walking the blocks that the worker has open or handed over.
 *
 * Thread: one struct ledger per worker, written by it alone; others get a copy from the worker.
 */
#ifndef SLUICE_BASE_LEDGER_H
#define SLUICE_BASE_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEDGER_TYPES   128u
#define LEDGER_REASONS 32u /* enum Reason of wire.proto below 32 */

/* What became of a datagram that did not reach decode. */
enum datagram_drop {
    DROP_KERNEL,        /* the socket's receive buffer was full (SO_RXQ_OVFL) */
    DROP_NO_BUFFER,     /* received, but longer than a buffer: MSG_TRUNC */
    DROP_SOURCE_DENIED, /* not on ingest.udp.allow */
    DROP_EMPTY,
    DROP_NOT_OURS,        /* first byte is neither 0x08 nor 0x0a */
    DROP_BATCH_MALFORMED, /* the batch cannot be walked to its end */
    DROP_BATCH_TOO_LARGE, /* more events than a batch may have */
    DROP_OVERLOAD_0,      /* no room, by class: the lowest class goes first */
    DROP_OVERLOAD_1,
    DROP_OVERLOAD_2,
    DROP_OVERLOAD_3,
    DROP_STOPPING,
    DROP_N,
};

struct ledger {
    uint64_t datagrams_seen;
    uint64_t datagrams_delivered;
    uint64_t datagram_drop[DROP_N];

    uint64_t decoded[LEDGER_TYPES]; /* type 0: the type is not known */
    uint64_t invalid[LEDGER_TYPES];
    uint64_t refused[LEDGER_TYPES];
    uint64_t duplicate[LEDGER_TYPES];
    uint64_t conflict[LEDGER_TYPES];
    uint64_t in_flight[LEDGER_TYPES]; /* only in copies */
    uint64_t committed[LEDGER_TYPES];
    uint64_t unaccounted[LEDGER_TYPES]; /* in flight when a run ended without closing its ledger */

    uint64_t reason[LEDGER_REASONS];       /* invalid and refused events by enum Reason */
    uint64_t stage_events[4], stage_ns[4]; /* decode, validate, enrich, batch */

    /* TCP */
    uint64_t connections_accepted, connections_refused, connections_closed, connections_timed_out;
    uint64_t frames, frames_malformed, receipts, receipts_undeliverable, receive_paused;
    uint64_t udp_receipts, udp_receipts_unsent;
};

/* Adds `from` to `to`, term by term. */
void ledger_add(struct ledger *to, const struct ledger *from);

struct ledger_sums {
    uint64_t dropped, decoded, invalid, refused, duplicate, conflict, in_flight, committed,
        unaccounted;
    bool datagrams_balance, events_balance;
    bool type_balances[LEDGER_TYPES];
};

/* Adds up and compares: per type, in all, and the reasons against invalid + refused. */
void ledger_check(const struct ledger *l, struct ledger_sums *ret);

const char *datagram_drop_name(enum datagram_drop d);
const char *reason_name(unsigned reason); /* enum Reason, lower case */

#endif
