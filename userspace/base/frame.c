/*
 * frame.c - the TCP frames and the UDP receipt. Read by base/wire.h, written by nanopb.
 */
#include "base/frame.h"

#include <assert.h>
#include <errno.h>
#include <pb_decode.h>
#include <pb_encode.h>

#include "base/utf8.h"
#include "base/wire.h"

/* --- reading -------------------------------------------------------------------------------- */

static int varint32(struct wire *w, uint32_t *ret)
{
    uint64_t value;

    if (!wire_varint(w, &value) || value > UINT32_MAX)
        return -EBADMSG;
    *ret = (uint32_t)value;
    return 0;
}

/* Finds the one field of a oneof whose members are the messages 1..kind_max. */
static int body_find(struct frame *ret, struct wire w, uint32_t kind_max)
{
    uint32_t number, kind = 0;
    unsigned type;

    while (wire_left(&w) > 0) {
        if (!wire_tag(&w, &number, &type))
            return -EBADMSG;
        if (number > kind_max) {
            if (!wire_skip(&w, type))
                return -EBADMSG;
            continue;
        }
        if (kind != 0 || type != WIRE_LENGTH)
            return -EBADMSG;
        kind = number;
        if (!wire_bytes(&w, &ret->body, &ret->body_bytes))
            return -EBADMSG;
    }
    ret->kind = kind;
    return kind != 0 ? 0 : -EBADMSG;
}

static int frame_parse(struct frame *ret, const void *data, size_t bytes, uint32_t frame_bytes_max,
                       uint32_t kind_max)
{
    size_t head_bytes = bytes < FRAME_LENGTH_BYTES_MAX ? bytes : FRAME_LENGTH_BYTES_MAX;
    struct wire w = wire_init(data, head_bytes);
    struct frame f = { 0 };
    uint64_t length;
    int r;

    assert(frame_bytes_max <= UINT32_MAX - FRAME_LENGTH_BYTES_MAX);
    if (!wire_varint(&w, &length)) {
        if (bytes >= FRAME_LENGTH_BYTES_MAX)
            return -EBADMSG;
        ret->frame_bytes = 0;
        return -EAGAIN;
    }
    if (length > frame_bytes_max)
        return -EMSGSIZE;
    f.frame_bytes = (uint32_t)(w.at - (const uint8_t *)data) + (uint32_t)length;
    if (bytes < f.frame_bytes) {
        ret->frame_bytes = f.frame_bytes;
        return -EAGAIN;
    }
    r = body_find(&f, wire_init(w.at, (size_t)length), kind_max);
    if (r == 0)
        *ret = f;
    return r;
}

int frame_parse_client(struct frame *ret, const void *data, size_t bytes, uint32_t frame_bytes_max)
{
    return frame_parse(ret, data, bytes, frame_bytes_max, CLIENT_PING);
}

int frame_parse_server(struct frame *ret, const void *data, size_t bytes, uint32_t frame_bytes_max)
{
    return frame_parse(ret, data, bytes, frame_bytes_max, SERVER_PONG);
}

static int message_get(const pb_msgdesc_t *fields, void *ret, const struct frame *f)
{
    pb_istream_t in = pb_istream_from_buffer(f->body, f->body_bytes);

    return pb_decode(&in, fields, ret) ? 0 : -EBADMSG;
}

int frame_get_hello(sluice_v1_Hello *ret, const struct frame *f)
{
    int r = message_get(sluice_v1_Hello_fields, ret, f);

    assert(f->kind == CLIENT_HELLO);
    if (r == 0 && !utf8_valid(ret->producer, strlen(ret->producer)))
        r = -EBADMSG;
    return r;
}

/* Ping and Pong: a nonce in field 1. */
static int nonce_get(uint64_t *ret, const struct frame *f)
{
    struct wire w = wire_init(f->body, f->body_bytes);
    uint64_t nonce = 0;
    uint32_t number;
    unsigned type;

    while (wire_left(&w) > 0) {
        if (!wire_tag(&w, &number, &type))
            return -EBADMSG;
        if (number == sluice_v1_Ping_nonce_tag) {
            if (type != WIRE_VARINT || !wire_varint(&w, &nonce))
                return -EBADMSG;
        } else if (!wire_skip(&w, type)) {
            return -EBADMSG;
        }
    }
    *ret = nonce;
    return 0;
}

int frame_get_ping(uint64_t *ret_nonce, const struct frame *f)
{
    assert(f->kind == CLIENT_PING);
    return nonce_get(ret_nonce, f);
}

int frame_get_pong(uint64_t *ret_nonce, const struct frame *f)
{
    _Static_assert(sluice_v1_Ping_nonce_tag == sluice_v1_Pong_nonce_tag, "nonce_get() reads both");
    assert(f->kind == SERVER_PONG);
    return nonce_get(ret_nonce, f);
}

static int batch_field(struct frame_batch *b, uint32_t number, struct wire *w)
{
    switch (number) {
    case sluice_v1_Batch_request_tag:
        return wire_varint(w, &b->request) ? 0 : -EBADMSG;
    case sluice_v1_Batch_batch_tag:
        return wire_bytes(w, &b->batch, &b->batch_bytes) ? 0 : -EBADMSG;
    default:
        assert(number == sluice_v1_Batch_durability_tag);
        return varint32(w, &b->durability);
    }
}

int frame_get_batch(struct frame_batch *ret, const struct frame *f)
{
    struct wire w = wire_init(f->body, f->body_bytes);
    struct frame_batch b = { 0 };
    uint32_t seen = 0, number;
    unsigned type;
    int r;

    assert(f->kind == CLIENT_BATCH);
    while (wire_left(&w) > 0) {
        if (!wire_tag(&w, &number, &type))
            return -EBADMSG;
        if (number > sluice_v1_Batch_durability_tag) {
            if (!wire_skip(&w, type))
                return -EBADMSG;
            continue;
        }
        /* Two batches would have to be joined, which cannot be done in place. */
        if ((seen & 1u << number) != 0)
            return -EBADMSG;
        seen |= 1u << number;
        if (type != (number == sluice_v1_Batch_batch_tag ? WIRE_LENGTH : WIRE_VARINT))
            return -EBADMSG;
        r = batch_field(&b, number, &w);
        if (r != 0)
            return r;
    }
    *ret = b;
    return 0;
}

int frame_get_welcome(sluice_v1_Welcome *ret, const struct frame *f)
{
    assert(f->kind == SERVER_WELCOME);
    return message_get(sluice_v1_Welcome_fields, ret, f);
}

int frame_get_error(sluice_v1_Error *ret, const struct frame *f)
{
    int r = message_get(sluice_v1_Error_fields, ret, f);

    assert(f->kind == SERVER_ERROR);
    if (r == 0 && !utf8_valid(ret->message, strlen(ret->message)))
        r = -EBADMSG;
    return r;
}

/* --- reading a receipt ---------------------------------------------------------------------- */

static int position_get(struct receipt_exception *e, struct wire w)
{
    uint32_t number;
    unsigned type;

    while (wire_left(&w) > 0) {
        if (!wire_tag(&w, &number, &type))
            return -EBADMSG;
        if (number > sluice_v1_Position_slot_tag) {
            if (!wire_skip(&w, type))
                return -EBADMSG;
            continue;
        }
        if (type != WIRE_VARINT)
            return -EBADMSG;
        if (number == sluice_v1_Position_index_tag && !wire_varint(&w, &e->first_index))
            return -EBADMSG;
        if (number == sluice_v1_Position_slot_tag && varint32(&w, &e->first_slot) != 0)
            return -EBADMSG;
    }
    return 0;
}

static int exception_get(struct receipt_exception *ret, struct wire w)
{
    struct receipt_exception e = { 0 };
    const uint8_t *data;
    uint32_t number, bytes;
    unsigned type;
    int r = 0;

    while (wire_left(&w) > 0 && r == 0) {
        if (!wire_tag(&w, &number, &type))
            return -EBADMSG;
        if (number == sluice_v1_Exception_position_tag && type == WIRE_VARINT)
            r = varint32(&w, &e.position);
        else if (number == sluice_v1_Exception_reason_tag && type == WIRE_VARINT)
            r = varint32(&w, &e.reason);
        else if (number == sluice_v1_Exception_first_tag && type == WIRE_LENGTH)
            r = wire_bytes(&w, &data, &bytes) ? position_get(&e, wire_init(data, bytes)) : -EBADMSG;
        else if (number <= sluice_v1_Exception_first_tag || !wire_skip(&w, type))
            r = -EBADMSG;
    }
    *ret = e;
    return r;
}

static int assigned_get(struct receipt_assigned *ret, struct wire w)
{
    struct receipt_assigned a = { 0 };
    uint32_t number;
    unsigned type;
    int r = 0;

    while (wire_left(&w) > 0 && r == 0) {
        if (!wire_tag(&w, &number, &type))
            return -EBADMSG;
        if (number == sluice_v1_AssignedId_position_tag && type == WIRE_VARINT)
            r = varint32(&w, &a.position);
        else if (number == sluice_v1_AssignedId_id_tag && type == WIRE_LENGTH)
            r = wire_bytes(&w, &a.id, &a.id_bytes) && a.id_bytes <= FRAME_RECEIPT_IDS_MAX
                    ? 0
                    : -EBADMSG;
        else if (number <= sluice_v1_AssignedId_id_tag || !wire_skip(&w, type))
            r = -EBADMSG;
    }
    *ret = a;
    return r;
}

static int receipt_number(struct receipt *r, uint32_t number, struct wire *w)
{
    uint64_t value;

    switch (number) {
    case sluice_v1_Receipt_request_tag:
        return wire_varint(w, &r->request) ? 0 : -EBADMSG;
    case sluice_v1_Receipt_epoch_tag:
        return wire_varint(w, &r->epoch) ? 0 : -EBADMSG;
    case sluice_v1_Receipt_term_tag:
        return wire_varint(w, &r->term) ? 0 : -EBADMSG;
    case sluice_v1_Receipt_index_tag:
        return wire_varint(w, &r->index) ? 0 : -EBADMSG;
    case sluice_v1_Receipt_first_slot_tag:
        return varint32(w, &r->first_slot);
    case sluice_v1_Receipt_durability_tag:
        return varint32(w, &r->durability);
    case sluice_v1_Receipt_accepted_tag:
        return varint32(w, &r->accepted);
    case sluice_v1_Receipt_duplicates_tag:
        return varint32(w, &r->duplicates);
    case sluice_v1_Receipt_refused_tag:
        return varint32(w, &r->refused);
    default:
        assert(number == sluice_v1_Receipt_truncated_tag);
        if (!wire_varint(w, &value))
            return -EBADMSG;
        r->truncated = value != 0;
        return 0;
    }
}

static int receipt_list(struct receipt *r, uint32_t number, struct wire *w)
{
    struct receipt_exception e;
    struct receipt_assigned a;
    const uint8_t *data;
    uint32_t bytes;

    if (!wire_bytes(w, &data, &bytes))
        return -EBADMSG;
    if (number == sluice_v1_Receipt_exceptions_tag) {
        r->exceptions++;
        return exception_get(&e, wire_init(data, bytes));
    }
    assert(number == sluice_v1_Receipt_assigned_tag);
    r->assigned++;
    return assigned_get(&a, wire_init(data, bytes));
}

int frame_get_receipt(struct receipt *ret, const void *data, size_t bytes)
{
    struct wire w = wire_init(data, bytes);
    struct receipt rec = { .data = w.at, .bytes = bytes };
    uint32_t number;
    unsigned type;
    int r;

    while (wire_left(&w) > 0) {
        if (!wire_tag(&w, &number, &type))
            return -EBADMSG;
        if (number > sluice_v1_Receipt_assigned_tag)
            r = wire_skip(&w, type) ? 0 : -EBADMSG;
        else if (number >= sluice_v1_Receipt_exceptions_tag)
            r = type == WIRE_LENGTH ? receipt_list(&rec, number, &w) : -EBADMSG;
        else
            r = type == WIRE_VARINT ? receipt_number(&rec, number, &w) : -EBADMSG;
        if (r != 0)
            return r;
    }
    *ret = rec;
    return 0;
}

/* The next field `wanted`, from *at on. The receipt was checked, so nothing can fail but reaching
 * its end. */
static bool receipt_next(const struct receipt *r, size_t *at, uint32_t wanted, struct wire *ret)
{
    struct wire w = wire_init(r->data, r->bytes);
    uint32_t number, bytes;
    const uint8_t *data;
    unsigned type;
    bool ok;

    assert(*at <= r->bytes);
    w.at += *at;
    while (wire_left(&w) > 0) {
        ok = wire_tag(&w, &number, &type);
        assert(ok);
        if (number == wanted) {
            ok = wire_bytes(&w, &data, &bytes);
            assert(ok);
            *ret = wire_init(data, bytes);
            *at = (size_t)(w.at - r->data);
            return true;
        }
        ok = wire_skip(&w, type);
        assert(ok);
    }
    *at = r->bytes;
    return false;
}

bool receipt_next_exception(const struct receipt *r, size_t *at, struct receipt_exception *ret)
{
    struct wire w;
    int got;

    if (!receipt_next(r, at, sluice_v1_Receipt_exceptions_tag, &w))
        return false;
    got = exception_get(ret, w);
    assert(got == 0);
    return true;
}

bool receipt_next_assigned(const struct receipt *r, size_t *at, struct receipt_assigned *ret)
{
    struct wire w;
    int got;

    if (!receipt_next(r, at, sluice_v1_Receipt_assigned_tag, &w))
        return false;
    got = assigned_get(ret, w);
    assert(got == 0);
    return true;
}

/* --- writing -------------------------------------------------------------------------------- */

/* Writes a body; the same bytes each time it is called with the same argument. */
typedef bool (*body_fn)(pb_ostream_t *s, const void *arg);

static pb_ostream_t ostream(uint8_t *buf, size_t buf_bytes)
{
    pb_ostream_t sizing = PB_OSTREAM_SIZING;

    return buf != NULL ? pb_ostream_from_buffer(buf, buf_bytes) : sizing;
}

static ssize_t written(bool ok, const pb_ostream_t *s)
{
    assert(s->bytes_written <= INT32_MAX);
    return ok ? (ssize_t)s->bytes_written : -ENOBUFS;
}

/* `more` bytes follow the body and belong to it. */
static ssize_t frame_put(uint8_t *buf, size_t buf_bytes, uint32_t kind, body_fn body,
                         const void *arg, uint32_t more)
{
    pb_ostream_t s = ostream(NULL, 0);
    uint64_t body_bytes;
    bool ok = body(&s, arg);

    assert(ok); /* a string without an end, or bytes beyond their bound: the caller's mistake */
    body_bytes = (uint64_t)s.bytes_written + more;
    s = ostream(buf, buf_bytes);
    ok = pb_encode_varint(&s, 1 + wire_varint_bytes(body_bytes) + body_bytes) &&
         pb_encode_tag(&s, PB_WT_STRING, kind) && pb_encode_varint(&s, body_bytes) && body(&s, arg);
    return written(ok, &s);
}

/* proto3 leaves zeros out. */
static bool put_number(pb_ostream_t *s, uint32_t number, uint64_t value)
{
    return value == 0 || (pb_encode_tag(s, PB_WT_VARINT, number) && pb_encode_varint(s, value));
}

static bool hello_body(pb_ostream_t *s, const void *arg)
{
    return pb_encode(s, sluice_v1_Hello_fields, arg);
}

static bool welcome_body(pb_ostream_t *s, const void *arg)
{
    return pb_encode(s, sluice_v1_Welcome_fields, arg);
}

static bool error_body(pb_ostream_t *s, const void *arg)
{
    return pb_encode(s, sluice_v1_Error_fields, arg);
}

static bool nonce_body(pb_ostream_t *s, const void *arg)
{
    return put_number(s, sluice_v1_Ping_nonce_tag, *(const uint64_t *)arg);
}

/* The batch comes last, so that its bytes need not be moved behind the head. */
static bool batch_body(pb_ostream_t *s, const void *arg)
{
    const struct frame_batch *b = arg;

    return put_number(s, sluice_v1_Batch_request_tag, b->request) &&
           put_number(s, sluice_v1_Batch_durability_tag, b->durability) &&
           pb_encode_tag(s, PB_WT_STRING, sluice_v1_Batch_batch_tag) &&
           pb_encode_varint(s, b->batch_bytes);
}

ssize_t frame_put_hello(uint8_t *buf, size_t buf_bytes, const sluice_v1_Hello *hello)
{
    return frame_put(buf, buf_bytes, CLIENT_HELLO, hello_body, hello, 0);
}

ssize_t frame_put_ping(uint8_t *buf, size_t buf_bytes, uint64_t nonce)
{
    return frame_put(buf, buf_bytes, CLIENT_PING, nonce_body, &nonce, 0);
}

ssize_t frame_put_batch_head(uint8_t *buf, size_t buf_bytes, const struct frame_batch *batch)
{
    return frame_put(buf, buf_bytes, CLIENT_BATCH, batch_body, batch, batch->batch_bytes);
}

ssize_t frame_put_event_head(uint8_t *buf, size_t buf_bytes, uint32_t event_bytes)
{
    pb_ostream_t s = ostream(buf, buf_bytes);
    bool ok = pb_encode_tag(&s, PB_WT_STRING, sluice_v1_EventBatch_events_tag) &&
              pb_encode_varint(&s, event_bytes);

    return written(ok, &s);
}

ssize_t frame_put_welcome(uint8_t *buf, size_t buf_bytes, const sluice_v1_Welcome *welcome)
{
    return frame_put(buf, buf_bytes, SERVER_WELCOME, welcome_body, welcome, 0);
}

ssize_t frame_put_error(uint8_t *buf, size_t buf_bytes, const sluice_v1_Error *error)
{
    return frame_put(buf, buf_bytes, SERVER_ERROR, error_body, error, 0);
}

ssize_t frame_put_pong(uint8_t *buf, size_t buf_bytes, uint64_t nonce)
{
    return frame_put(buf, buf_bytes, SERVER_PONG, nonce_body, &nonce, 0);
}

/* --- writing a receipt ---------------------------------------------------------------------- */

/* Bytes that put_number() writes; all numbers of the inner messages are below 16. */
static uint32_t number_bytes(uint64_t value)
{
    return value == 0 ? 0 : 1 + wire_varint_bytes(value);
}

/* The lengths are computed, not found by a trial run as pb_encode_submessage() does: a receipt may
 * hold thousands of these. */
static bool exception_put(pb_ostream_t *s, const struct receipt_exception *e)
{
    uint32_t first = number_bytes(e->first_index) + number_bytes(e->first_slot);
    uint32_t bytes = number_bytes(e->position) + number_bytes(e->reason);

    if (first > 0)
        bytes += 1 + wire_varint_bytes(first) + first;
    if (!pb_encode_tag(s, PB_WT_STRING, sluice_v1_Receipt_exceptions_tag) ||
        !pb_encode_varint(s, bytes) ||
        !put_number(s, sluice_v1_Exception_position_tag, e->position) ||
        !put_number(s, sluice_v1_Exception_reason_tag, e->reason))
        return false;
    return first == 0 || (pb_encode_tag(s, PB_WT_STRING, sluice_v1_Exception_first_tag) &&
                          pb_encode_varint(s, first) &&
                          put_number(s, sluice_v1_Position_index_tag, e->first_index) &&
                          put_number(s, sluice_v1_Position_slot_tag, e->first_slot));
}

static bool assigned_put(pb_ostream_t *s, const struct receipt_assigned *a)
{
    uint32_t bytes = number_bytes(a->position) + 1 + wire_varint_bytes(a->id_bytes) + a->id_bytes;

    assert(a->id_bytes <= FRAME_RECEIPT_IDS_MAX);
    return pb_encode_tag(s, PB_WT_STRING, sluice_v1_Receipt_assigned_tag) &&
           pb_encode_varint(s, bytes) &&
           put_number(s, sluice_v1_AssignedId_position_tag, a->position) &&
           pb_encode_tag(s, PB_WT_STRING, sluice_v1_AssignedId_id_tag) &&
           pb_encode_string(s, a->id, a->id_bytes);
}

static bool receipt_body(pb_ostream_t *s, const void *arg)
{
    const struct receipt *r = arg;
    const uint64_t number[] = {
        [sluice_v1_Receipt_request_tag] = r->request,
        [sluice_v1_Receipt_epoch_tag] = r->epoch,
        [sluice_v1_Receipt_term_tag] = r->term,
        [sluice_v1_Receipt_index_tag] = r->index,
        [sluice_v1_Receipt_first_slot_tag] = r->first_slot,
        [sluice_v1_Receipt_durability_tag] = r->durability,
        [sluice_v1_Receipt_accepted_tag] = r->accepted,
        [sluice_v1_Receipt_duplicates_tag] = r->duplicates,
        [sluice_v1_Receipt_refused_tag] = r->refused,
        [sluice_v1_Receipt_truncated_tag] = r->truncated,
    };

    for (uint32_t i = 1; i < sizeof number / sizeof number[0]; i++) {
        if (!put_number(s, i, number[i]))
            return false;
    }
    for (uint32_t i = 0; i < r->exceptions; i++) {
        if (!exception_put(s, &r->exception[i]))
            return false;
    }
    for (uint32_t i = 0; i < r->assigned; i++) {
        if (!assigned_put(s, &r->assigned_id[i]))
            return false;
    }
    return true;
}

ssize_t frame_put_receipt(uint8_t *buf, size_t buf_bytes, const struct receipt *r)
{
    return frame_put(buf, buf_bytes, SERVER_RECEIPT, receipt_body, r, 0);
}

ssize_t frame_put_bare_receipt(uint8_t *buf, size_t buf_bytes, const struct receipt *r)
{
    pb_ostream_t s = ostream(buf, buf_bytes);
    bool ok = receipt_body(&s, r);

    return written(ok, &s);
}

void frame_set_durability(uint8_t *buf, size_t bytes, bool bare, uint32_t durability)
{
    struct wire w = wire_init(buf, bytes);
    uint32_t number = 0;
    uint64_t value = 0;
    unsigned type;
    bool ok = true;

    assert(durability > 0 && durability < 0x80); /* one byte, as the one before */
    if (!bare)
        ok = wire_varint(&w, &value) && wire_tag(&w, &number, &type) && wire_varint(&w, &value);
    while (ok && number != sluice_v1_Receipt_durability_tag) {
        ok = wire_tag(&w, &number, &type);
        if (number != sluice_v1_Receipt_durability_tag)
            ok = ok && wire_varint(&w, &value);
    }
    assert(ok && wire_left(&w) > 0);
    buf[w.at - buf] = (uint8_t)durability;
}
