/*
 * block_lean.c - see block_lean.h. The event's fields are found by a walk over its top level: what
 * is in a log was decoded, and has each of them once.
 */
#include "cluster/block_lean.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/wire.h"
#include "cluster/block.h"
#include "proto/event.pb.h"

/* What an event says of its descriptor. False: it is no event that a log would have. */
static bool describe(const uint8_t *key, const uint8_t *event, uint32_t bytes,
                     struct block_desc *ret)
{
    const uint8_t *source = NULL, *id = NULL, *symbol = NULL;
    uint32_t source_bytes = 0, id_bytes = 0, symbol_bytes = 0, number;
    struct wire w = wire_init(event, bytes);
    uint64_t type_of = 0, time_ns = 0;
    unsigned type;
    bool ok = true;

    while (ok && wire_left(&w) > 0) {
        ok = wire_tag(&w, &number, &type);
        if (!ok)
            break;
        if (number == sluice_v1_Event_type_tag && type == WIRE_VARINT)
            ok = wire_varint(&w, &type_of);
        else if (number == sluice_v1_Event_source_tag && type == WIRE_LENGTH)
            ok = wire_bytes(&w, &source, &source_bytes);
        else if (number == sluice_v1_Event_id_tag && type == WIRE_LENGTH)
            ok = wire_bytes(&w, &id, &id_bytes);
        else if (number == sluice_v1_Event_timestamp_ns_tag && type == WIRE_FIXED64)
            ok = wire_fixed64(&w, &time_ns);
        else if (number == sluice_v1_Event_symbol_tag && type == WIRE_LENGTH)
            ok = wire_bytes(&w, &symbol, &symbol_bytes);
        else
            ok = wire_skip(&w, type);
    }
    if (!ok || type_of >= BLOCK_TYPES)
        return false;
    ret->key = hash_event_key(key, source_bytes > 0 ? (const void *)source : "", source_bytes,
                              id_bytes > 0 ? (const void *)id : "", id_bytes);
    ret->timestamp_ns = time_ns;
    ret->type = (uint8_t)type_of;
    ret->symbol_hash = hash_symbol(symbol_bytes > 0 ? (const void *)symbol : "", symbol_bytes);
    return true;
}

/* The three columns behind desc_offset. */
#define LEAN_EVENT_BYTES (sizeof(uint32_t) + sizeof(uint16_t) + sizeof(uint8_t))

uint32_t block_lean_put(const uint8_t *key, const void *payload, uint32_t payload_bytes, void *ret)
{
    struct block_view v;
    uint32_t before = 0, events;
    uint8_t *delta, *bytes, *flags;

    assert(((uintptr_t)payload & 7) == 0 && ((uintptr_t)ret & 7) == 0 && payload != ret);
    if (block_view(&v, payload, payload_bytes) < 0)
        return 0;
    events = v.header->events;
    delta = (uint8_t *)ret + v.header->desc_offset;
    bytes = delta + events * sizeof(uint32_t);
    flags = bytes + events * sizeof(uint16_t);
    memcpy(ret, payload, v.header->desc_offset);
    for (uint32_t i = 0; i < events; i++) {
        const struct block_desc *d = &v.desc[i];
        struct block_desc again = *d;
        uint32_t more = d->receive_delta_ns - before;

        if (!describe(key, v.payload + d->offset, d->bytes, &again) ||
            memcmp(&again, d, sizeof again) != 0)
            return 0;
        before = d->receive_delta_ns;
        memcpy(delta + i * sizeof more, &more, sizeof more);
        memcpy(bytes + i * sizeof d->bytes, &d->bytes, sizeof d->bytes);
        flags[i] = d->session_flags;
    }
    return v.header->desc_offset + events * (uint32_t)LEAN_EVENT_BYTES;
}

int block_lean_get(const uint8_t *key, const void *lean, size_t bytes, void *ret,
                   uint32_t payload_bytes)
{
    const struct block_header *h = lean;
    uint32_t offset = sizeof *h, before = 0;
    const uint8_t *delta, *lengths, *flags;
    struct block_desc *desc;

    assert(((uintptr_t)lean & 7) == 0 && ((uintptr_t)ret & 7) == 0 && lean != ret);
    if (bytes < sizeof *h || h->events == 0 || h->events > BLOCK_EVENTS_MAX ||
        h->desc_offset % 8 != 0 || h->desc_offset < sizeof *h || h->desc_offset > bytes)
        return -EBADMSG;
    if (bytes - h->desc_offset != h->events * LEAN_EVENT_BYTES || payload_bytes < h->desc_offset ||
        payload_bytes - h->desc_offset != h->events * sizeof *desc)
        return -EBADMSG;
    memcpy(ret, lean, h->desc_offset);
    delta = (const uint8_t *)lean + h->desc_offset;
    lengths = delta + h->events * sizeof(uint32_t);
    flags = lengths + h->events * sizeof(uint16_t);
    desc = (struct block_desc *)((uint8_t *)ret + h->desc_offset);
    for (uint32_t i = 0; i < h->events; i++) {
        struct block_desc d = { .offset = offset, .session_flags = flags[i] };
        uint32_t more;

        memcpy(&more, delta + i * sizeof more, sizeof more);
        memcpy(&d.bytes, lengths + i * sizeof d.bytes, sizeof d.bytes);
        d.receive_delta_ns = before += more;
        if (d.bytes > h->desc_offset - offset ||
            !describe(key, (const uint8_t *)lean + offset, d.bytes, &d))
            return -EBADMSG;
        offset += d.bytes;
        desc[i] = d;
    }
    return 0;
}
