/*
 * decode.c - first stage: from the bytes of an Event to struct event, without copying.
 *
 * One pass over the wire format. Strings and bytes of the top level become slices of the receive
 * buffer with their exact lengths; a trade, quote or order book is stored into nanopb's generated
 * struct, by tables made at compile time from nanopb's field lists, so that types and bounds are
 * those of event.options. pb_decode() itself cannot be used: it cuts strings at a NUL, takes a
 * singular field twice, does not check UTF-8, and tells malformed from too long only by a message.
 *
 * Accepts less than protobuf does, never more: what passes decode and validate is read alike by
 * every protobuf library. Fields that are not known are passed over and stay in the event's bytes.
 *
 * Thread:  the worker of the struct stages.
 * Memory:  none; the slices borrow ev->raw.
 * Limits:  EVENT_BYTES_MAX, proto/event.options.
 * Counts:  ledger.decoded for every event, whatever becomes of it.
 */
#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "base/wire.h"
#include "ingest/admission.h"
#include "ingest/stages.h"

#define REASON(name) sluice_v1_Reason_##name

/* --- tables from nanopb's field lists ------------------------------------------------------- */

enum kind {
    KIND_NONE, /* no such field */
    KIND_SINT64,
    KIND_UINT32,
    KIND_UINT64,
    KIND_UENUM,
    KIND_BOOL,
    KIND_FIXED64,
    KIND_STRING,
    KIND_MESSAGE,
};

enum {
    WIRE_OF_SINT64 = WIRE_VARINT,
    WIRE_OF_UINT32 = WIRE_VARINT,
    WIRE_OF_UINT64 = WIRE_VARINT,
    WIRE_OF_UENUM = WIRE_VARINT,
    WIRE_OF_BOOL = WIRE_VARINT,
    WIRE_OF_FIXED64 = WIRE_FIXED64,
    WIRE_OF_STRING = WIRE_LENGTH,
    WIRE_OF_MESSAGE = WIRE_LENGTH,
};

struct field {
    uint8_t kind, wire;
    uint16_t offset;       /* in the generated struct */
    uint16_t bytes;        /* of the member; repeated: of one element */
    uint16_t count_offset; /* repeated: of the member that counts */
    uint16_t count_max;    /* repeated */
};

struct message {
    const struct field *field; /* by field number */
    uint32_t fields, bytes;
};

#define MEMBER(type, name) (((type *)NULL)->name)
#define FIELD_SINGULAR(type, ltype, name)                                                          \
    {                                                                                              \
        KIND_##ltype, WIRE_OF_##ltype, offsetof(type, name), sizeof(MEMBER(type, name)), 0, 0      \
    }
#define FIELD_REPEATED(type, ltype, name)                                                          \
    {                                                                                              \
        KIND_##ltype, WIRE_OF_##ltype, offsetof(type, name), sizeof(MEMBER(type, name)[0]),        \
            offsetof(type, name##_count),                                                          \
            sizeof(MEMBER(type, name)) / sizeof(MEMBER(type, name)[0])                             \
    }
#define FIELD(type, atype, htype, ltype, name, tag) [tag] = FIELD_##htype(type, ltype, name),

#define MESSAGE(name, type)                                                                        \
    static const struct field name##_field[] = { type##_FIELDLIST(FIELD, type) };                  \
    _Static_assert(sizeof(type) <= UINT16_MAX, "offsets have 16 bits");                            \
    _Static_assert(sizeof name##_field / sizeof name##_field[0] <= 32, "seen has 32 bits");        \
    static const struct message name##_message = {                                                 \
        name##_field,                                                                              \
        sizeof name##_field / sizeof name##_field[0],                                              \
        sizeof(type),                                                                              \
    }

_Static_assert(sizeof(sluice_v1_Side) == sizeof(uint32_t), "UENUM is stored as 32 bits");

MESSAGE(level, sluice_v1_Level);
MESSAGE(trade, sluice_v1_Trade);
MESSAGE(quote, sluice_v1_Quote);
MESSAGE(orderbook, sluice_v1_OrderBook);

/* --- a detail ------------------------------------------------------------------------------- */

static unsigned message_decode(const struct message *m, struct wire w, uint8_t *out);

static unsigned string_decode(const struct field *f, struct wire *w, uint8_t *out)
{
    const uint8_t *text;
    uint32_t bytes;

    if (!wire_bytes(w, &text, &bytes))
        return REASON(DECODE_MALFORMED);
    if (bytes >= f->bytes)
        return REASON(DECODE_BOUNDS);
    /* In the struct a NUL ends the string, so one inside would make two strings equal. */
    if (memchr(text, 0, bytes) != NULL || !utf8_valid(text, bytes))
        return REASON(UTF8_INVALID);
    memcpy(out + f->offset, text, bytes);
    return REASON(REASON_NONE);
}

/* Goes one level deep: the only message inside a detail is Level. */
static unsigned level_decode(const struct field *f, struct wire *w, uint8_t *out)
{
    const uint8_t *data;
    uint8_t *level;
    uint32_t bytes;
    pb_size_t count;

    if (!wire_bytes(w, &data, &bytes))
        return REASON(DECODE_MALFORMED);
    memcpy(&count, out + f->count_offset, sizeof count);
    if (count >= f->count_max)
        return REASON(DECODE_BOUNDS);
    assert(f->bytes == level_message.bytes);
    level = out + f->offset + (size_t)count * f->bytes;
    count++;
    memcpy(out + f->count_offset, &count, sizeof count);
    return message_decode(&level_message, wire_init(data, bytes), level);
}

static unsigned varint_decode(const struct field *f, struct wire *w, uint8_t *out)
{
    uint64_t value;
    uint32_t narrow;

    if (!wire_varint(w, &value))
        return REASON(DECODE_MALFORMED);
    narrow = (uint32_t)value;
    switch (f->kind) {
    case KIND_SINT64:
        value = (uint64_t)wire_unzigzag(value);
        memcpy(out + f->offset, &value, sizeof value);
        return REASON(REASON_NONE);
    case KIND_UINT64:
        memcpy(out + f->offset, &value, sizeof value);
        return REASON(REASON_NONE);
    case KIND_BOOL:
        out[f->offset] = value != 0;
        return REASON(REASON_NONE);
    default:
        /* Libraries cut a number that is too long for its field, each in its own way. */
        if (value > INT32_MAX && (f->kind == KIND_UENUM || value > UINT32_MAX))
            return REASON(VALUE_OUT_OF_RANGE);
        memcpy(out + f->offset, &narrow, sizeof narrow);
        return REASON(REASON_NONE);
    }
}

static unsigned field_decode(const struct field *f, struct wire *w, uint8_t *out)
{
    uint64_t value;

    switch (f->kind) {
    case KIND_STRING:
        return string_decode(f, w, out);
    case KIND_FIXED64:
        if (!wire_fixed64(w, &value))
            return REASON(DECODE_MALFORMED);
        memcpy(out + f->offset, &value, sizeof value);
        return REASON(REASON_NONE);
    default:
        return varint_decode(f, w, out);
    }
}

/* Stores the message into the generated struct at out. */
static unsigned message_decode(const struct message *m, struct wire w, uint8_t *out)
{
    uint32_t seen = 0, number;
    unsigned type, reason;

    memset(out, 0, m->bytes);
    while (wire_left(&w) > 0) {
        if (!wire_tag(&w, &number, &type))
            return REASON(DECODE_MALFORMED);
        if (number >= m->fields || m->field[number].kind == KIND_NONE) {
            if (!wire_skip(&w, type))
                return REASON(DECODE_MALFORMED);
            continue;
        }

        const struct field *f = &m->field[number];

        if (type != f->wire)
            return REASON(DECODE_MALFORMED);
        if (f->kind == KIND_MESSAGE) {
            reason = level_decode(f, &w, out);
        } else {
            if ((seen & 1u << number) != 0)
                return REASON(FIELD_REPEATED);
            seen |= 1u << number;
            reason = field_decode(f, &w, out);
        }
        if (reason != REASON(REASON_NONE))
            return reason;
    }
    return REASON(REASON_NONE);
}

/* A length-delimited field of at most bytes_max bytes. */
static unsigned slice_decode(struct wire *w, uint32_t bytes_max, struct slice *ret)
{
    if (!wire_bytes(w, &ret->data, &ret->bytes))
        return REASON(DECODE_MALFORMED);
    return ret->bytes > bytes_max ? REASON(DECODE_BOUNDS) : REASON(REASON_NONE);
}

/* A message of two length-delimited fields, 1 and 2: Custom, and an entry of a map. */
static unsigned pair_decode(struct wire *w, const uint32_t bytes_max[2], struct slice ret[2])
{
    struct slice body;
    uint32_t seen = 0, number;
    unsigned type, reason = slice_decode(w, UINT32_MAX, &body);

    if (reason != REASON(REASON_NONE))
        return reason;

    struct wire in = wire_init(body.data, body.bytes);

    ret[0] = ret[1] = (struct slice){ 0 };
    while (wire_left(&in) > 0) {
        if (!wire_tag(&in, &number, &type))
            return REASON(DECODE_MALFORMED);
        if (number > 2) {
            if (!wire_skip(&in, type))
                return REASON(DECODE_MALFORMED);
            continue;
        }
        if (type != WIRE_LENGTH)
            return REASON(DECODE_MALFORMED);
        if ((seen & 1u << number) != 0)
            return REASON(FIELD_REPEATED);
        seen |= 1u << number;
        reason = slice_decode(&in, bytes_max[number - 1], &ret[number - 1]);
        if (reason != REASON(REASON_NONE))
            return reason;
    }
    return REASON(REASON_NONE);
}

static unsigned custom_decode(struct event *ev, struct wire *w)
{
    static const uint32_t bytes_max[2] = {
        sizeof(MEMBER(sluice_v1_Custom, schema)) - 1,
        sizeof(MEMBER(sluice_v1_Custom_body_t, bytes)),
    };
    struct slice pair[2] = { { 0 } };
    unsigned reason = pair_decode(w, bytes_max, pair);

    ev->schema = pair[0];
    return reason;
}

static unsigned detail_decode(struct event *ev, uint32_t number, struct wire *w)
{
    struct slice body;
    unsigned reason;

    if (ev->detail != 0)
        return REASON(FIELD_REPEATED);
    ev->detail = (pb_size_t)number;
    if (number == sluice_v1_Event_custom_tag)
        return custom_decode(ev, w);
    reason = slice_decode(w, UINT32_MAX, &body);
    if (reason != REASON(REASON_NONE))
        return reason;
    switch (number) {
    case sluice_v1_Event_trade_tag:
        return message_decode(&trade_message, wire_init(body.data, body.bytes),
                              (uint8_t *)&ev->trade);
    case sluice_v1_Event_quote_tag:
        return message_decode(&quote_message, wire_init(body.data, body.bytes),
                              (uint8_t *)&ev->quote);
    default:
        return message_decode(&orderbook_message, wire_init(body.data, body.bytes),
                              (uint8_t *)&ev->orderbook);
    }
}

/* --- the event ------------------------------------------------------------------------------ */

static bool slice_equal(const struct slice *a, const struct slice *b)
{
    return a->bytes == b->bytes && (a->bytes == 0 || memcmp(a->data, b->data, a->bytes) == 0);
}

/* A key that is there twice is refused like a singular field: libraries keep the last one, but what
 * reads the bytes as a list would see both. */
static unsigned attribute_decode(struct event *ev, struct wire *w)
{
    static const uint32_t bytes_max[2] = {
        sizeof(MEMBER(sluice_v1_Event_AttributesEntry, key)) - 1,
        sizeof(MEMBER(sluice_v1_Event_AttributesEntry, value)) - 1,
    };
    struct slice pair[2] = { { 0 } };
    unsigned reason = pair_decode(w, bytes_max, pair);

    if (reason != REASON(REASON_NONE))
        return reason;
    if (ev->attributes == EVENT_ATTRIBUTES_MAX)
        return REASON(DECODE_BOUNDS);
    for (uint32_t i = 0; i < ev->attributes; i++) {
        if (slice_equal(&ev->attribute_key[i], &pair[0]))
            return REASON(FIELD_REPEATED);
    }
    ev->attribute_key[ev->attributes] = pair[0];
    ev->attribute_value[ev->attributes++] = pair[1];
    return REASON(REASON_NONE);
}

static unsigned type_decode(struct event *ev, struct wire *w)
{
    uint64_t type;

    if (!wire_varint(w, &type))
        return REASON(DECODE_MALFORMED);
    if (type >= BLOCK_TYPES)
        return REASON(TYPE_UNKNOWN);
    ev->type = (uint8_t)type;
    return REASON(REASON_NONE);
}

#define STRING_MAX(name) (sizeof(MEMBER(sluice_v1_Event, name)) - 1)
#define BYTES_MAX(name)  sizeof(MEMBER(sluice_v1_Event_##name##_t, bytes))

static unsigned event_field_decode(struct event *ev, uint32_t number, struct wire *w)
{
    const uint8_t *data;
    uint32_t bytes;

    switch (number) {
    case sluice_v1_Event_type_tag:
        return type_decode(ev, w);
    case sluice_v1_Event_source_tag:
        return slice_decode(w, STRING_MAX(source), &ev->source);
    case sluice_v1_Event_id_tag:
        return slice_decode(w, BYTES_MAX(id), &ev->id);
    case sluice_v1_Event_timestamp_ns_tag:
        return wire_fixed64(w, &ev->timestamp_ns) ? REASON(REASON_NONE) : REASON(DECODE_MALFORMED);
    case sluice_v1_Event_symbol_tag:
        return slice_decode(w, STRING_MAX(symbol), &ev->symbol);
    case sluice_v1_Event_attributes_tag:
        return attribute_decode(ev, w);
    case sluice_v1_Event_traceparent_tag:
        return slice_decode(w, BYTES_MAX(traceparent), &ev->traceparent);
    case sluice_v1_Event_enrichment_tag:
        /* validate refuses it, so what is in it does not matter. */
        ev->enriched = true;
        return wire_bytes(w, &data, &bytes) ? REASON(REASON_NONE) : REASON(DECODE_MALFORMED);
    default:
        return detail_decode(ev, number, w);
    }
}

/* Wire types of the fields of Event, plus one; 0: there is no such field. */
static const uint8_t event_wire[16] = {
    [sluice_v1_Event_type_tag] = WIRE_VARINT + 1,
    [sluice_v1_Event_source_tag] = WIRE_LENGTH + 1,
    [sluice_v1_Event_id_tag] = WIRE_LENGTH + 1,
    [sluice_v1_Event_timestamp_ns_tag] = WIRE_FIXED64 + 1,
    [sluice_v1_Event_symbol_tag] = WIRE_LENGTH + 1,
    [sluice_v1_Event_trade_tag] = WIRE_LENGTH + 1,
    [sluice_v1_Event_quote_tag] = WIRE_LENGTH + 1,
    [sluice_v1_Event_orderbook_tag] = WIRE_LENGTH + 1,
    [sluice_v1_Event_custom_tag] = WIRE_LENGTH + 1,
    [sluice_v1_Event_attributes_tag] = WIRE_LENGTH + 1,
    [sluice_v1_Event_traceparent_tag] = WIRE_LENGTH + 1,
    [sluice_v1_Event_enrichment_tag] = WIRE_LENGTH + 1,
};

static void event_clear(struct event *ev)
{
    ev->type = 0;
    ev->attributes = 0;
    ev->enriched = false;
    ev->detail = 0;
    ev->timestamp_ns = 0;
    ev->source = ev->id = ev->symbol = ev->traceparent = (struct slice){ 0 };
    ev->session = 0;
    ev->id_assigned = false;
}

static unsigned event_decode(struct event *ev)
{
    struct wire w = wire_init(ev->raw.data, ev->raw.bytes);
    uint32_t seen = 0, number;
    unsigned type, reason;

    if (ev->raw.bytes > EVENT_BYTES_MAX) {
        ev->type = (uint8_t)event_peek_type(ev->raw.data, ev->raw.bytes);
        return REASON(DECODE_BOUNDS);
    }
    while (wire_left(&w) > 0) {
        if (!wire_tag(&w, &number, &type))
            return REASON(DECODE_MALFORMED);
        if (number >= sizeof event_wire || event_wire[number] == 0) {
            if (!wire_skip(&w, type))
                return REASON(DECODE_MALFORMED);
            continue;
        }
        if (type + 1 != event_wire[number])
            return REASON(DECODE_MALFORMED);
        if ((seen & 1u << number) != 0)
            return REASON(FIELD_REPEATED);
        reason = event_field_decode(ev, number, &w);
        if (reason != REASON(REASON_NONE))
            return reason;
        /* An empty id is none: the assigned one is appended, and what is then stored must be
         * accepted when it is sent again. */
        if (number != sluice_v1_Event_attributes_tag &&
            (number != sluice_v1_Event_id_tag || ev->id.bytes > 0))
            seen |= 1u << number;
    }
    return REASON(REASON_NONE);
}

/* Types that nobody has named count as 0, whatever number they carry. */
static uint8_t type_counted(const struct stages *s, unsigned type)
{
    assert(type < LEDGER_TYPES);
    return s->admission->settings.known[type] ? (uint8_t)type : 0;
}

size_t decode_run(struct stages *s, struct event *ev, size_t n)
{
    struct stage_watch watch = { .start_ns = n > 1 ? clock_monotonic_ns() : 0 };
    unsigned reason;
    size_t left = 0;

    assert(n <= EVENTS_RUN_MAX);
    for (size_t i = 0; i < n; i++) {
        if (ev[i].reason != REASON(REASON_NONE))
            continue;
        event_clear(&ev[i]);
        if (stage_is_late(s, STAGE_DECODE, &watch, i)) {
            reason = REASON(STAGE_TIMEOUT);
            ev[i].type = (uint8_t)event_peek_type(ev[i].raw.data, ev[i].raw.bytes);
        } else {
            reason = event_decode(&ev[i]);
        }
        ev[i].type = type_counted(s, ev[i].type);
#ifdef PLANT_LEDGER_MISCOUNT
        if (reason != REASON(FIELD_REPEATED))
#endif
            s->ledger->decoded[ev[i].type]++;
        if (reason != REASON(REASON_NONE))
            event_refuse(s, &ev[i], reason);
        else
            left++;
    }
    return left;
}
