/*
 * field_walk.h - the top-level fields of a serialized message, one after the other, nothing copied.
 *
 * For messages that are not decoded as one struct: frames, stored events. Built on nanopb's
 * primitives, so that there is one reader of the wire format.
 *
 * Thread:  any; a walk is the caller's memory.
 * Memory:  what a field points to is the walked buffer's.
 * Errors:  -EBADMSG for everything that is not well-formed protobuf.
 */
#ifndef SLUICE_BASE_FIELD_WALK_H
#define SLUICE_BASE_FIELD_WALK_H

#include <pb_decode.h>
#include <stddef.h>
#include <stdint.h>

struct field {
    uint32_t tag;
    pb_wire_type_t wire;
    uint64_t value;      /* PB_WT_VARINT, PB_WT_32BIT, PB_WT_64BIT */
    const uint8_t *data; /* PB_WT_STRING; never NULL then */
    size_t bytes;
};

struct field_walk {
    pb_istream_t in;
    const uint8_t *end;
};

/* data may be NULL when bytes is 0. */
void field_walk_init(struct field_walk *w, const void *data, size_t bytes);

/* Returns 1 and a field, 0 at the end, or -EBADMSG. */
int field_walk_next(struct field_walk *w, struct field *ret);

#endif
