/*
 * field_walk.c - see field_walk.h.
 *
 * A string's place is found from what the stream has left, so no copy is needed to read it.
 */
#include "base/field_walk.h"

#include <assert.h>
#include <errno.h>

void field_walk_init(struct field_walk *w, const void *data, size_t bytes)
{
    static const uint8_t nothing[1];
    const uint8_t *at = data ? data : nothing;

    assert(data != NULL || bytes == 0);
    w->in = pb_istream_from_buffer(at, bytes);
    w->end = at + bytes;
}

static bool walk_string(struct field_walk *w, struct field *ret)
{
    uint64_t length;

    if (!pb_decode_varint(&w->in, &length) || length > w->in.bytes_left)
        return false;
    ret->data = w->end - w->in.bytes_left;
    ret->bytes = (size_t)length;
    return pb_read(&w->in, NULL, ret->bytes);
}

int field_walk_next(struct field_walk *w, struct field *ret)
{
    uint32_t fixed32;
    bool eof, ok;

    if (w->in.bytes_left == 0)
        return 0;
    *ret = (struct field){ 0 };
    if (!pb_decode_tag(&w->in, &ret->wire, &ret->tag, &eof) || ret->tag == 0)
        return -EBADMSG;
    switch (ret->wire) {
    case PB_WT_VARINT:
        ok = pb_decode_varint(&w->in, &ret->value);
        break;
    case PB_WT_64BIT:
        ok = pb_decode_fixed64(&w->in, &ret->value);
        break;
    case PB_WT_32BIT:
        ok = pb_decode_fixed32(&w->in, &fixed32);
        ret->value = ok ? fixed32 : 0;
        break;
    case PB_WT_STRING:
        ok = walk_string(w, ret);
        break;
    default:
        ok = false;
    }
    if (!ok)
        return -EBADMSG;
    assert(ret->wire != PB_WT_STRING || (ret->data != NULL && ret->data + ret->bytes <= w->end));
    return 1;
}
