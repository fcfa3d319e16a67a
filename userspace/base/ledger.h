/*
 * ledger.h - the account of everything seen: datagrams, and events by type.
 *
 *   interface  arrived = dropped in the driver (by reason) + redirected + passed
 *   datagrams  seen    = dropped (by reason) + delivered
 *   events     decoded = invalid + refused + duplicate + conflict + in flight + committed
 *                        (+ unaccounted at a crash)
 *
 * Every term is counted where it happens and none is computed from others; in_flight is counted by
 * walking the blocks that the worker has open or handed over. `interface` is what the program in
 * the driver saw (ingest/prefilter.h); its drops are among the datagrams' too, what it redirected
 * comes out of the AF_XDP rings, and what it passed comes to the kernel's sockets.
 *
 * Thread: one struct ledger per worker, written by it alone; others get a copy from the worker.
 */
#ifndef SLUICE_BASE_LEDGER_H
#define SLUICE_BASE_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEDGER_TYPES   128u
#define LEDGER_CLASSES 4u
#define LEDGER_REASONS 32u /* enum Reason of wire.proto below 32 */

/* What became of a datagram that did not reach decode. */
enum datagram_drop {
    DROP_KERNEL,        /* the socket's receive buffer was full (SO_RXQ_OVFL) */
    DROP_NO_BUFFER,     /* received, but longer than ingest.udp.datagram_bytes_max */
    DROP_SOURCE_DENIED, /* neither ingest.udp.allow nor the settings allow it */
    DROP_EMPTY,
    DROP_NOT_PROTOBUF,    /* first byte is neither 0x08 nor 0x0a */
    DROP_BATCH_MALFORMED, /* the batch cannot be walked to its end */
    DROP_BATCH_TOO_LARGE, /* more events than a batch may have */
    DROP_OVERLOAD_0,      /* no room, by class: the lowest class goes first */
    DROP_OVERLOAD_1,
    DROP_OVERLOAD_2,
    DROP_OVERLOAD_3,
    DROP_STOPPING,
    DROP_LENGTH,          /* its headers do not fit its length */
    DROP_CHECKSUM,        /* IP's or UDP's, where the kernel has not looked */
    DROP_EVENT_MALFORMED, /* a single event that cannot be walked to its end */
    DROP_TYPE_UNKNOWN,    /* no event in it has a type that is known */
    DROP_TYPE_DROPPED,    /* the policy drops every event in it */
    DROP_SAMPLED_OUT,
    DROP_TYPE_RATE,
    DROP_SOURCE_RATE,
    DROP_RING_FULL_0, /* the AF_XDP ring of its class was full */
    DROP_RING_FULL_1,
    DROP_RING_FULL_2,
    DROP_RING_FULL_3,
    DROP_FILL_EMPTY, /* the AF_XDP sockets had no frame to put it into */
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

    /* The program in the driver. */
    uint64_t xdp_arrived, xdp_passed, xdp_redirected[LEDGER_CLASSES];
    uint64_t xdp_drop[DROP_N]; /* of datagram_drop: dropped there */
    uint64_t xdp_fragments, xdp_tcp_passed, xdp_tcp_denied, xdp_tcp_syn_rate;
    uint64_t ring_taken[LEDGER_CLASSES];   /* datagrams that came out of AF_XDP rings */
    uint64_t ring_waiting[LEDGER_CLASSES]; /* only in copies: that are in them */

    /* What the shadow policy, since it was begun, would have dropped and was not, and the other way
     * round. */
    uint64_t shadow_drop[DROP_N], shadow_taken;               /* datagrams */
    uint64_t shadow_refused[LEDGER_REASONS], shadow_admitted; /* events; [0]: neither */

    /* TCP */
    uint64_t connections_accepted, connections_refused, connections_closed, connections_timed_out;
    uint64_t connections_denied; /* by their source; among the refused */
    uint64_t frames, frames_malformed, receipts, receipts_undeliverable, receive_paused;
    uint64_t udp_receipts, udp_receipts_unsent;
    /* For requests that wanted both regions: confirmed by both; by the active one alone, and said
     * so; told REGION_UNREACHABLE, though their events are committed. */
    uint64_t region_receipts, region_degraded, region_late;
};

/* Adds `from` to `to`, term by term. */
void ledger_add(struct ledger *to, const struct ledger *from);

/* A new shadow policy begins to count at 0. */
void ledger_forget_shadow(struct ledger *l);

struct ledger_sums {
    uint64_t dropped, decoded, invalid, refused, duplicate, conflict, in_flight, committed,
        unaccounted;
    uint64_t xdp_dropped, xdp_redirected, ring_dropped, ring_taken, ring_waiting;
    bool datagrams_balance, events_balance, xdp_balances;
    bool type_balances[LEDGER_TYPES];
};

/* Adds up and compares: per type, in all, and the reasons against invalid + refused. */
void ledger_check(const struct ledger *l, struct ledger_sums *ret);

const char *datagram_drop_name(enum datagram_drop d);
const char *reason_name(unsigned reason); /* enum Reason, lower case */

#endif
