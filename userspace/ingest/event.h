/*
 * event.h - an event on its way through the stages, and what the stages share.
 *
 * decode -> validate -> enrich -> batch; each is `size_t x_run(struct stages *, struct event *ev,
 * size_t n)` over at most EVENTS_RUN_MAX events, and looks only at events whose reason is still
 * REASON_NONE. The slices point into the receive buffer, which the caller keeps until batch has
 * copied the event's bytes into the open block: the only copy that is made of them.
 */
#ifndef SLUICE_INGEST_EVENT_H
#define SLUICE_INGEST_EVENT_H

#include <stdint.h>

#include "base/ledger.h"
#include "base/settings.h"
#include "cluster/block.h"
#include "proto/event.pb.h"
#include "proto/wire.pb.h"

#define EVENTS_RUN_MAX       16u
#define EVENT_BYTES_MAX      60000u /* fits block_desc.bytes with an assigned id behind it */
#define EVENT_ATTRIBUTES_MAX 16u

struct slice {
    const uint8_t *data;
    uint32_t bytes;
};

struct event {
    /* From receive. */
    struct slice raw;
    uint64_t receive_time_ns; /* Unix */
    uint16_t request;         /* index into the open block's request[], or REQUEST_NONE */
    uint16_t position;        /* in its request */
    bool decided;             /* what the policy says of its type is done */

    /* From decode. */
    uint8_t type;   /* 0: not known */
    uint8_t reason; /* enum Reason; REASON_NONE: goes on */
    uint8_t attributes;
    bool enriched;    /* field 15 was there */
    pb_size_t detail; /* tag of the detail, 0 if none */
    uint64_t timestamp_ns;
    struct slice source, id, symbol, traceparent;
    struct slice attribute_key[EVENT_ATTRIBUTES_MAX], attribute_value[EVENT_ATTRIBUTES_MAX];
    union {
        sluice_v1_Trade trade;
        sluice_v1_Quote quote;
        sluice_v1_OrderBook orderbook;
        struct slice schema; /* Custom */
    };

    /* From enrich. */
    uint8_t session;
    bool id_assigned;
    uint8_t assigned_id[ASSIGNED_ID_BYTES];
    struct key128 key;
    uint64_t content;
};

struct admission; /* admission.h */
struct calendars; /* enrich.h */
struct limits;    /* limits.h */

/* What the stages of one worker work with. One thread. */
struct stages {
    const struct admission *admission; /* swapped between runs */
    struct limits *limits;
    struct ledger *ledger;
    uint64_t stage_ns_max[4];
    uint64_t over_start_ns, over_cpu_ns; /* stages.c: the stage that is over its limit */
    uint8_t over_stage;
    uint64_t now_unix_ns; /* of this run */
    uint8_t hash_key[HASH_KEY_BYTES];
    uint16_t node;
    uint8_t region;
    uint8_t id_prefix[8]; /* of assigned ids: random at start, different in every worker */
    uint64_t id_counter;
    struct calendars *calendars;
    bool region_stops;  /* nothing is taken, as the other region is out of reach for too long */
    bool region_fails;  /* what wants to be durable in both regions is refused now ... */
    bool region_wanted; /* ... and these events do, whatever their types */
    struct block *open; /* batch fills it; the caller makes sure that a run's events fit */
};

#endif
