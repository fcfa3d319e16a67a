/*
 * wire.h - a strict cursor over protobuf's wire format.
 *
 * Stricter than protobuf asks for, so that what passes here passes in every library: no groups, no
 * field number 0 or above 2^29-1, no varint over 10 bytes or over 64 bits, no length past the end.
 *
 * Thread:  any; the cursor is the caller's.
 * Memory:  borrows the bytes; nothing is copied.
 * Errors:  false, and the cursor is of no more use.
 */
#ifndef SLUICE_BASE_WIRE_H
#define SLUICE_BASE_WIRE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_LENGTH = 2, WIRE_FIXED32 = 5 };

#define WIRE_FIELD_MAX ((1u << 29) - 1)

struct wire {
    const uint8_t *at, *end;
};

static inline struct wire wire_init(const void *data, size_t bytes)
{
    assert(data != NULL || bytes == 0);
    /* NULL + 0 is not C's, so an empty input gets an address of its own. */
    const uint8_t *p = data != NULL ? data : (const uint8_t *)"";

    return (struct wire){ p, p + bytes };
}

static inline size_t wire_left(const struct wire *w) { return (size_t)(w->end - w->at); }

bool wire_varint_long(struct wire *w, uint64_t *ret);

/* Most varints of an event have one byte. */
static inline bool wire_varint(struct wire *w, uint64_t *ret)
{
    if (__builtin_expect(w->at < w->end && *w->at < 0x80, 1)) {
        *ret = *w->at++;
        return true;
    }
    return wire_varint_long(w, ret);
}

/* Reads field number and wire type. */
static inline bool wire_tag(struct wire *w, uint32_t *ret_field, unsigned *ret_type)
{
    const uint8_t *from = w->at;
    uint64_t tag;

    if (!wire_varint(w, &tag) || tag > UINT32_MAX || w->at - from > 5)
        return false;
    *ret_field = (uint32_t)(tag >> 3);
    *ret_type = tag & 7;
    return *ret_field != 0;
}

static inline bool wire_bytes(struct wire *w, const uint8_t **ret, uint32_t *ret_bytes)
{
    uint64_t n;

    if (!wire_varint(w, &n) || n > wire_left(w) || n > UINT32_MAX)
        return false;
    *ret = w->at;
    *ret_bytes = (uint32_t)n;
    w->at += n;
    return true;
}

static inline bool wire_fixed64(struct wire *w, uint64_t *ret)
{
    if (wire_left(w) < 8)
        return false;
    _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "protobuf's fixed64 is memcpy()");
    memcpy(ret, w->at, 8);
    w->at += 8;
    return true;
}

/* Passes over a field's value. False for groups too. */
bool wire_skip(struct wire *w, unsigned type);

static inline int64_t wire_unzigzag(uint64_t v) { return (int64_t)(v >> 1) ^ -(int64_t)(v & 1); }

/* Bytes that v takes as a varint. */
static inline uint32_t wire_varint_bytes(uint64_t v)
{
    return (uint32_t)(70 - __builtin_clzll(v | 1)) / 7;
}

#endif
