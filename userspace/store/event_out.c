/*
 * event_out.c - see event_out.h.
 */
#include "store/event_out.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pb_encode.h>
#include <stdio.h>
#include <string.h>

#include "base/field_walk.h"
#include "cluster/cluster.h"
#include "proto/event.pb.h"

_Static_assert(sluice_v1_Enrichment_size + 2 <= EVENT_OUT_ENRICHMENT_MAX, "tag, length, message");
_Static_assert(sluice_v1_Enrichment_size < 128, "its length is one byte");

void event_out_init(struct event_out *ret, const struct log_record *record,
                    const struct block_view *view, uint32_t slot)
{
    const struct block_header *h = view->header;
    sluice_v1_Enrichment e = sluice_v1_Enrichment_init_zero;
    pb_ostream_t out = pb_ostream_from_buffer(ret->enrichment, sizeof ret->enrichment);
    const struct block_desc *d;
    bool ok;
    int n;

    assert(record->type == LOG_EVENTS && slot < h->events);
    d = &view->desc[slot];
    n = snprintf(e.ingestion_id, sizeof e.ingestion_id, "%" PRIu64 "-%" PRIu64 "-%" PRIu32,
                 record->term >> CLUSTER_EPOCH_SHIFT, record->index, slot);
    assert(n > 0 && (size_t)n < sizeof e.ingestion_id);
    e.receive_time_ns = h->receive_time_ns + d->receive_delta_ns;
    e.node = h->node;
    e.region = h->region;
    e.session = (sluice_v1_Session)(d->session_flags & 0x0f);
    e.record_time_ns = record->time_ns;
    e.id_assigned = (d->session_flags & DESC_ID_ASSIGNED) != 0;
    ok = pb_encode_tag(&out, PB_WT_STRING, sluice_v1_Event_enrichment_tag) &&
         pb_encode_submessage(&out, sluice_v1_Enrichment_fields, &e);
    assert(ok);
    ret->enrichment_bytes = (uint32_t)out.bytes_written;
    ret->event = view->payload + d->offset;
    ret->event_bytes = d->bytes;
    assert(d->offset + d->bytes <= view->payload_bytes);
}

void event_out_write(const struct event_out *o, uint8_t *buf)
{
    memcpy(buf, o->event, o->event_bytes);
    memcpy(buf + o->event_bytes, o->enrichment, o->enrichment_bytes);
}

/* Reads one decimal number and moves on; false when there is none or it is above max. */
static bool id_number(const char **at, uint64_t max, uint64_t *ret)
{
    const char *p = *at;
    uint64_t n = 0;

    if (*p < '0' || *p > '9' || (p[0] == '0' && p[1] >= '0' && p[1] <= '9'))
        return false;
    for (; *p >= '0' && *p <= '9'; p++) {
        unsigned digit = (unsigned)(*p - '0');

        if (n > (max - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    *at = p;
    *ret = n;
    return true;
}

int ingestion_id_parse(struct ingestion_id *ret, const char *text)
{
    uint64_t epoch, index, slot;

    if (!id_number(&text, UINT64_MAX >> CLUSTER_EPOCH_SHIFT, &epoch) || *text++ != '-' ||
        !id_number(&text, UINT64_MAX, &index) || *text++ != '-' ||
        !id_number(&text, BLOCK_EVENTS_MAX - 1, &slot) || *text != '\0' || index == 0)
        return -EINVAL;
    *ret = (struct ingestion_id){ .epoch = epoch, .index = index, .slot = (uint32_t)slot };
    return 0;
}

int event_names_find(struct event_names *ret, const uint8_t *event, size_t bytes)
{
    struct field_walk walk;
    struct field f;
    int rc;

    *ret = (struct event_names){ 0 };
    field_walk_init(&walk, event, bytes);
    while ((rc = field_walk_next(&walk, &f)) > 0) {
        if (f.wire != PB_WT_STRING)
            continue;
        if (f.tag == sluice_v1_Event_source_tag) {
            ret->source = f.data;
            ret->source_bytes = (uint32_t)f.bytes;
        } else if (f.tag == sluice_v1_Event_id_tag) {
            ret->id = f.data;
            ret->id_bytes = (uint32_t)f.bytes;
        } else if (f.tag == sluice_v1_Event_symbol_tag) {
            ret->symbol = f.data;
            ret->symbol_bytes = (uint32_t)f.bytes;
        }
    }
    return rc;
}
