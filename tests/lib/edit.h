/*
 * edit.h - serialized messages by hand: what nanopb would refuse to write.
 *
 * Appends fields to a buffer; a wrong length or a forbidden wire type is the caller's wish.
 */
#ifndef SLUICE_TESTS_EDIT_H
#define SLUICE_TESTS_EDIT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct edit {
    size_t bytes;
    uint8_t data[70000];
};

static inline void edit_varint(struct edit *e, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        e->data[e->bytes++] = (uint8_t)(v | 0x80);
    e->data[e->bytes++] = (uint8_t)v;
}

static inline void edit_number(struct edit *e, uint32_t field, uint64_t v)
{
    edit_varint(e, field << 3);
    edit_varint(e, v);
}

static inline void edit_signed(struct edit *e, uint32_t field, int64_t v)
{
    edit_number(e, field, ((uint64_t)v << 1) ^ (uint64_t)(v >> 63));
}

static inline void edit_fixed64(struct edit *e, uint32_t field, uint64_t v)
{
    edit_varint(e, field << 3 | 1);
    memcpy(e->data + e->bytes, &v, 8);
    e->bytes += 8;
}

static inline void edit_bytes(struct edit *e, uint32_t field, const void *data, size_t bytes)
{
    assert(e->bytes + bytes + 16 <= sizeof e->data);
    edit_varint(e, field << 3 | 2);
    edit_varint(e, bytes);
    memcpy(e->data + e->bytes, data, bytes);
    e->bytes += bytes;
}

static inline void edit_text(struct edit *e, uint32_t field, const char *text)
{
    edit_bytes(e, field, text, strlen(text));
}

static inline void edit_message(struct edit *e, uint32_t field, const struct edit *inner)
{
    edit_bytes(e, field, inner->data, inner->bytes);
}

#endif
