/*
 * walk.c - before the stages: the events in a batch, and the type of an event by its first bytes.
 *
 * Thread:  any; no state.
 * Memory:  the slices borrow the caller's bytes.
 * Errors:  a batch is malformed or not as a whole, also when a singular field is there twice; what
 *          is inside its events is decode's business.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/utf8.h"
#include "base/wire.h"
#include "ingest/stages.h"

#define PRODUCER_BYTES_MAX (sizeof(((sluice_v1_EventBatch *)NULL)->producer) - 1)

static int batch_field(struct batch_walk *b, uint32_t number, struct wire *w)
{
    uint64_t value;

    switch (number) {
    case sluice_v1_EventBatch_producer_tag:
        if (!wire_bytes(w, &b->producer.data, &b->producer.bytes))
            return -EBADMSG;
        if (b->producer.bytes > PRODUCER_BYTES_MAX)
            return -EBADMSG;
        return utf8_valid(b->producer.data, b->producer.bytes) ? 0 : -EBADMSG;
    case sluice_v1_EventBatch_seq_tag:
        return wire_varint(w, &b->seq) ? 0 : -EBADMSG;
    default:
        assert(number == sluice_v1_EventBatch_receipt_wanted_tag);
        if (!wire_varint(w, &value))
            return -EBADMSG;
        b->receipt_wanted = value != 0;
        return 0;
    }
}

int batch_walk(struct batch_walk *ret, struct slice *slices, uint32_t max, const uint8_t *data,
               size_t bytes)
{
    static const uint8_t wire_of[] = {
        [sluice_v1_EventBatch_events_tag] = WIRE_LENGTH,
        [sluice_v1_EventBatch_producer_tag] = WIRE_LENGTH,
        [sluice_v1_EventBatch_seq_tag] = WIRE_VARINT,
        [sluice_v1_EventBatch_receipt_wanted_tag] = WIRE_VARINT,
    };
    struct wire w = wire_init(data, bytes);
    struct batch_walk b = { 0 };
    uint32_t seen = 0, number;
    struct slice event;
    unsigned type;
    int r;

    if (bytes > UINT32_MAX)
        return -EBADMSG;
    while (wire_left(&w) > 0) {
        if (!wire_tag(&w, &number, &type))
            return -EBADMSG;
        if (number >= sizeof wire_of) {
            if (!wire_skip(&w, type))
                return -EBADMSG;
            continue;
        }
        if (type != wire_of[number])
            return -EBADMSG;
        if (number == sluice_v1_EventBatch_events_tag) {
            if (!wire_bytes(&w, &event.data, &event.bytes))
                return -EBADMSG;
            if (b.events < max)
                slices[b.events] = event;
            b.events++;
            b.event_bytes += event.bytes;
            continue;
        }
        if ((seen & 1u << number) != 0)
            return -EBADMSG;
        seen |= 1u << number;
        r = batch_field(&b, number, &w);
        if (r != 0)
            return r;
    }
    *ret = b;
    return b.events > max ? -E2BIG : 0;
}

unsigned event_peek_type(const uint8_t *data, size_t bytes)
{
    struct wire w = wire_init(data, bytes);
    uint64_t type;

    if (bytes < 2 || *w.at++ != 0x08 || !wire_varint(&w, &type) || type >= BLOCK_TYPES)
        return 0;
    return (unsigned)type;
}
