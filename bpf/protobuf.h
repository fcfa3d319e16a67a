/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * protobuf.h - the types of the events in a datagram, by a bounded walk over protobuf's wire
 * format; compiled for the kernel and for the workers, so that both classify alike.
 *
 *   Event       08 <type> ...              type is field 1, and the first
 *   EventBatch  0a <bytes> <Event> ...     events are field 1; other fields may stand between them
 *
 * One step() a field, at most WALK_STEPS of them, WALK_EVENTS events and WALK_BYTES: what is behind
 * is not looked at, and `complete` stays 0. A step is as strict as base/wire.h: no groups, no field
 * 0, no varint over 64 bits, no length past the end. Inside an event of a batch nothing is an
 * error: that event has type 0 then, and the worker refuses it alone.
 *
 * Memory: borrows the datagram. Every byte is checked against the frame's end and the datagram's.
 */
#ifndef SLUICE_BPF_PROTOBUF_H
#define SLUICE_BPF_PROTOBUF_H

#include "packet.h"
#include "shared.h"

#define WALK_STEPS  32u
#define WALK_EVENTS 16u
#define WALK_BYTES  0x3fc0u /* the last field begins before */

/* In the kernel the verifier wants a bound on every offset. Tag and length of a field are at most
 * 20 bytes, so that no walk comes to this one. */
#ifdef __bpf__
#define WALK_OFFSET(at) ((at)&0x3fff)
#else
#define WALK_OFFSET(at) (at)
#endif

enum walk_status { WALK_OK, WALK_EMPTY, WALK_NOT_PROTOBUF, WALK_MALFORMED };

struct walk {
    __u32 at, end;   /* offsets in the datagram */
    __u32 stop;      /* end, or WALK_BYTES */
    __u32 event_end; /* of the event that is being walked; 0: between events */
    __u8 batch;
    __u8 status; /* enum walk_status */
    __u8 complete;
    __u8 events;
    __u8 receipt, zero[3];  /* of a batch: its sender waits for an answer */
    __u8 type[WALK_EVENTS]; /* 0: none, or out of range */
};

/* Wire types of EventBatch's fields 1 to 4, plus one. */
#define BATCH_WIRE(field) ((field) >= 1 && (field) <= 4 ? ((field) <= 2 ? 3u : 1u) : 0u)

/* A varint at offset *at, below end. Returns 0, or -1 past the end or past 64 bits. */
static __always_inline int walk_varint(const __u8 *data, const __u8 *frame_end, __u32 *at,
                                       __u32 end, __u64 *ret)
{
    __u64 value = 0;

    for (__u32 i = 0; i < 10; i++) {
        const __u8 *p = data + WALK_OFFSET(*at) + i;
        __u8 byte;

        if (*at + i >= end || p + 1 > frame_end)
            return -1;
        byte = *p;
        if (i == 9 && byte > 1)
            return -1;
        value |= (__u64)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *ret = value;
            *at += i + 1;
            return 0;
        }
    }
    return -1;
}

static __always_inline void walk_event_is(struct walk *w, __u64 type)
{
    __u32 n = w->events;

    if (n < WALK_EVENTS)
        w->type[n] = type < POLICY_TYPES ? (__u8)type : 0;
    w->events = (__u8)(n + 1);
    w->at = w->event_end;
    w->event_end = 0;
}

static __always_inline int walk_is_over(struct walk *w)
{
    if (w->at < w->end)
        return w->events >= WALK_EVENTS || w->at >= WALK_BYTES;
    w->complete = 1;
    return 1;
}

/* Something in here does not add up: the event's own trouble, or the whole datagram's. */
static __always_inline int walk_bad(struct walk *w)
{
    if (w->batch && w->event_end != 0) {
        walk_event_is(w, 0);
#ifdef PLANT_XDP_BROKEN_LAST
        return 0;
#endif
        return walk_is_over(w);
    }
    w->status = WALK_MALFORMED;
    return 1;
}

/* One field. Returns 1 when the walk is over. `data` is the datagram, frame_end the end of what may
 * be read. */
static __always_inline int walk_step(struct walk *w, const __u8 *data, const __u8 *frame_end)
{
    __u32 end = w->event_end ? w->event_end : w->end, at = w->at, from = at, field, wire;
    __u64 value, bytes;

    if (w->event_end != 0 && at >= end) {
        walk_event_is(w, 0);
        return walk_is_over(w);
    }
    if (walk_varint(data, frame_end, &at, end, &value) < 0 || value > 0xffffffff || at - from > 5)
        return walk_bad(w);
    field = (__u32)value >> 3;
    wire = (__u32)value & 7;
    if (field == 0)
        return walk_bad(w);
    if (w->batch && w->event_end == 0 && BATCH_WIRE(field) != 0 && BATCH_WIRE(field) != wire + 1)
        return walk_bad(w);
    if (wire == 0 || wire == 2) {
        if (walk_varint(data, frame_end, &at, end, &value) < 0)
            return walk_bad(w);
        bytes = wire == 2 ? value : 0;
    } else if (wire == 1) {
        bytes = 8;
    } else if (wire == 5) {
        bytes = 4;
    } else {
        return walk_bad(w);
    }
#ifndef PLANT_XDP_LENGTH_UNCHECKED
    if (bytes > end - at)
        return walk_bad(w);
#endif
    if (field == 1 && wire == 0 && (w->event_end != 0 || (!w->batch && w->events == 0))) {
        if (w->event_end == 0)
            w->event_end = at; /* a single event: on with its other fields */
        walk_event_is(w, value);
    } else if (field == 1 && w->batch && w->event_end == 0) {
        w->at = at;
        w->event_end = at + (__u32)bytes;
        if (bytes != 0)
            return 0;
        walk_event_is(w, 0);
    } else {
        if (field == 4 && w->batch && w->event_end == 0)
            w->receipt = value != 0;
        w->at = at + (__u32)bytes;
    }
    return w->event_end != 0 ? w->at >= WALK_BYTES : walk_is_over(w);
}

/* What nearly all fields are: a tag of one byte, a length or number of one or two. Returns the
 * bytes that the field at p takes of the `left` that there are, or 0 when walk_step() has to look;
 * that would come to the same. Six bytes may be read. */
static __always_inline __u32 quick_field(const __u8 *p, __u32 left)
{
    __u32 bytes = p[1], head = 2;

    if (p[0] >= 0x80 || p[0] < 0x08)
        return 0;
    if ((p[0] & 7) == 1)
        return left >= 9 ? 9 : 0;
    if (bytes >= 0x80) {
        if (p[2] >= 0x80)
            return 0;
        bytes = (bytes & 0x7f) | (__u32)p[2] << 7;
        head = 3;
    }
    if ((p[0] & 7) == 0)
        return head;
    return (p[0] & 7) == 2 && bytes <= left - head ? head + bytes : 0;
}

/* The same in a batch, for an event that begins with its type. */
static __always_inline __u32 quick_event(const __u8 *p, __u32 left, __u8 *ret_type)
{
    __u32 bytes = p[1], head = 2;

    if (p[0] != 0x0a)
        return 0;
    if (bytes >= 0x80) {
        if (p[2] >= 0x80)
            return 0;
        bytes = (bytes & 0x7f) | (__u32)p[2] << 7;
        head = 3;
        p++;
    }
    if (bytes < 2 || bytes > left - head || p[2] != 0x08 || p[3] >= POLICY_TYPES)
        return 0;
    *ret_type = p[3];
    return head + bytes;
}
_Static_assert((WALK_EVENTS & (WALK_EVENTS - 1)) == 0, "a mask");
_Static_assert(POLICY_TYPES == 128, "a varint of one byte is a type");

/* Looks at the first byte. Returns 1 when there is nothing to walk. */
static __always_inline int walk_begin(struct walk *w, const __u8 *data, const __u8 *frame_end,
                                      __u32 bytes)
{
    w->at = 0;
    w->end = bytes;
    w->stop = bytes < WALK_BYTES ? bytes : WALK_BYTES;
    w->event_end = 0;
    w->batch = 0;
    w->complete = 0;
    w->events = 0;
    w->receipt = 0;
    w->status = WALK_EMPTY;
    if (bytes == 0)
        return 1;
    w->status = WALK_NOT_PROTOBUF;
    if (data + 1 > frame_end || (data[0] != 0x08 && data[0] != 0x0a))
        return 1;
    w->status = WALK_OK;
    w->batch = data[0] == 0x0a;
    /* Nearly always: a single event's type, of one byte. */
    if (w->batch || bytes < 2 || data + 2 > frame_end || data[1] >= POLICY_TYPES)
        return 0;
    w->type[0] = data[1];
    w->events = 1;
    w->at = 2;
    w->complete = bytes == 2;
    return w->complete;
}

/* walk_step() for the rare field; the kernel's way there is longer. */
struct walk_frame;
#define WALK_RARE(name) int (*name)(struct walk *, struct walk_frame *, __u32)

/* The walk, after walk_begin() has returned 0. `at` is kept out of memory, which would cost more
 * than all the rest; but it comes from there, so that the verifier does not count along. */
static __always_inline void walk_all(struct walk *w, const __u8 *data, const __u8 *frame_end,
                                     WALK_RARE(rare), struct walk_frame *frame, __u32 payload)
{
    __u32 at = w->at, end = w->end, batch = w->batch;
    __u32 stop = w->stop;

    for (__u32 i = 0; i < WALK_STEPS; i++) {
        const __u8 *p;
        __u32 left, took = 0;
        __u8 type = 0;

        at = WALK_OFFSET(at);
        p = data + at;
        left = end - at;

        if (left >= 6 && p + 6 <= frame_end && w->event_end == 0) {
            if (batch)
                took = quick_event(p, left, &type);
            else if (w->events != 0)
                took = quick_field(p, left);
        }
        if (took == 0) {
            w->at = at;
            if (rare(w, frame, payload))
                return;
            at = w->at;
            continue;
        }
        if (batch) {
            w->type[w->events & (WALK_EVENTS - 1)] = type;
            w->events++;
        }
        at += took;
        if (at >= end)
            w->complete = 1;
        if (at >= stop || w->events >= WALK_EVENTS)
            return;
    }
}

#ifndef __bpf__
struct walk_frame {
    const __u8 *data, *end;
};

static inline int walk_rare(struct walk *w, struct walk_frame *f, __u32 payload)
{
    return walk_step(w, f->data + payload, f->end);
}

static inline void walk_datagram(struct walk *w, const __u8 *data, __u32 bytes)
{
    struct walk_frame f = { data, data + bytes };

    if (!walk_begin(w, data, data + bytes, bytes))
        walk_all(w, data, data + bytes, walk_rare, &f, 0);
}
#endif

#endif
