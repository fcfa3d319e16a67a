/*
 * event_out.h - an event as readers get it: its stored bytes, and its enrichment appended.
 *
 * What the producer sent is never decoded or changed. Enrichment (field 15) is made from the
 * block's header, the event's descriptor and the record: where the event is, when it came and when
 * the log took it. Protobuf lets it simply follow the other fields.
 *
 * Thread:  any; no state.
 * Memory:  borrows the block; event_out_write() fills the caller's buffer.
 */
#ifndef SLUICE_STORE_EVENT_OUT_H
#define SLUICE_STORE_EVENT_OUT_H

#include <stdint.h>

#include "cluster/block.h"
#include "cluster/log.h"

#define EVENT_OUT_ENRICHMENT_MAX 112u /* encoded, tag and length included */

struct event_out {
    const uint8_t *event; /* in the block */
    uint32_t event_bytes;
    uint32_t enrichment_bytes;
    uint8_t enrichment[EVENT_OUT_ENRICHMENT_MAX];
};

/* Prepares the event in `slot` (below the block's number of events) of the block in `record`. */
void event_out_init(struct event_out *ret, const struct log_record *record,
                    const struct block_view *view, uint32_t slot);

static inline size_t event_out_bytes(const struct event_out *o)
{
    return (size_t)o->event_bytes + o->enrichment_bytes;
}

/* Writes exactly event_out_bytes(). */
void event_out_write(const struct event_out *o, uint8_t *buf);

/* An event's place in the log, "<epoch>-<index>-<slot>" as text. */
struct ingestion_id {
    uint64_t epoch, index;
    uint32_t slot;
};

/* Accepts decimal digits only, no sign, no leading zeros. Returns 0 or -EINVAL. */
int ingestion_id_parse(struct ingestion_id *ret, const char *text);

/* The fields that readers filter by. */
struct event_names {
    const uint8_t *source, *id, *symbol; /* in the event; NULL when absent */
    uint32_t source_bytes, id_bytes, symbol_bytes;
};

/* Finds them without decoding the rest; of a repeated field, the last counts. Returns 0 or -EBADMSG
 * (not protobuf; decode admits no such event). */
int event_names_find(struct event_names *ret, const uint8_t *event, size_t bytes);

#endif
