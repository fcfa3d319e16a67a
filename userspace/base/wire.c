/*
 * wire.c - the rarer half of the cursor over protobuf's wire format.
 */
#include "base/wire.h"

bool wire_varint_long(struct wire *w, uint64_t *ret)
{
    const uint8_t *p = w->at;
    size_t n = wire_left(w) < 10 ? wire_left(w) : 10;
    uint64_t value = 0;

    assert(w->at <= w->end);
    for (size_t i = 0; i < n; i++) {
        /* The tenth byte has room for one bit. */
        if (i == 9 && p[i] > 1)
            return false;
        value |= (uint64_t)(p[i] & 0x7f) << (7 * i);
        if (p[i] < 0x80) {
            w->at = p + i + 1;
            *ret = value;
            return true;
        }
    }
    return false;
}

bool wire_skip(struct wire *w, unsigned type)
{
    const uint8_t *data;
    uint32_t bytes;
    uint64_t value;

    assert(type <= 7);
    switch (type) {
    case WIRE_VARINT:
        return wire_varint(w, &value);
    case WIRE_FIXED64:
        return wire_fixed64(w, &value);
    case WIRE_LENGTH:
        return wire_bytes(w, &data, &bytes);
    case WIRE_FIXED32:
        if (wire_left(w) < 4)
            return false;
        w->at += 4;
        return true;
    default:
        return false;
    }
}
