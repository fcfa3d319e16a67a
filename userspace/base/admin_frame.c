/*
 * admin_frame.c - see admin_frame.h.
 *
 * A response is written front to back in one pass: body first in size, then the head, then the body
 * itself, so events are copied once, from the log's buffer into the connection's.
 */
#include "base/admin_frame.h"

#include <assert.h>
#include <errno.h>
#include <pb_decode.h>
#include <pb_encode.h>
#include <string.h>

#include "base/field_walk.h"

/* Field numbers of AdminResponse outside its body, and of EventResponse. */
enum { RESPONSE_ERROR = 1, RESPONSE_CODE = 2, RESPONSE_DONE = 3 };
enum { EVENT_EVENT = 1, EVENT_INDEX = 2, EVENT_SLOT = 3 };

/* A tag below 16 is one byte. */
_Static_assert(ADMIN_REQUEST_BODY_MAX < 16 && ADMIN_RESPONSE_BODY_MAX < 16, "string_bytes()");
_Static_assert(sluice_v1_PolicyTestRequest_size > sluice_v1_TailRequest_size &&
                   sluice_v1_PolicyTestRequest_size > sluice_v1_TapRequest_size &&
                   sluice_v1_PolicyTestRequest_size > sluice_v1_ClusterInitRequest_size &&
                   sluice_v1_PolicyTestRequest_size > sluice_v1_MembershipRequest_size &&
                   ADMIN_REQUEST_ENCODED_MAX <= ADMIN_REQUEST_BYTES_MAX,
               "the longest request");

static size_t varint_bytes(uint64_t value)
{
    size_t n = 1;

    while (value >>= 7)
        n++;
    assert(n <= 10);
    return n;
}

/* Bytes of a field with a one-byte tag. */
static size_t string_bytes(size_t bytes) { return 1 + varint_bytes(bytes) + bytes; }
static size_t number_bytes(uint64_t value) { return value ? 1 + varint_bytes(value) : 0; }

int admin_frame_find(const uint8_t *data, size_t bytes, size_t bytes_max, size_t *ret_head,
                     size_t *ret_body)
{
    uint64_t length = 0;
    size_t i;

    assert(bytes_max <= UINT32_MAX);
    for (i = 0; i < bytes && i < ADMIN_DELIMITER_MAX; i++) {
        length |= (uint64_t)(data[i] & 0x7f) << (7 * i);
        if ((data[i] & 0x80) == 0)
            break;
    }
    if (i == ADMIN_DELIMITER_MAX)
        return -EBADMSG;
    if (i == bytes)
        return -EAGAIN;
    if (length > bytes_max)
        return -EMSGSIZE;
    *ret_head = i + 1;
    *ret_body = (size_t)length;
    return bytes - *ret_head < length ? -EAGAIN : 0;
}

static const pb_msgdesc_t *request_fields(uint32_t which)
{
    static const pb_msgdesc_t *const fields[] = {
        [ADMIN_STATUS] = sluice_v1_StatusRequest_fields,
        [ADMIN_LEDGER] = sluice_v1_LedgerRequest_fields,
        [ADMIN_GET] = sluice_v1_GetRequest_fields,
        [ADMIN_TAIL] = sluice_v1_TailRequest_fields,
        [ADMIN_SETTINGS] = sluice_v1_SettingsRequest_fields,
        [ADMIN_SETTING_SET] = sluice_v1_SettingSetRequest_fields,
        [ADMIN_CONFIG_SHOW] = sluice_v1_ConfigShowRequest_fields,
        [ADMIN_XDP_STATUS] = sluice_v1_XdpStatusRequest_fields,
        [ADMIN_POLICY_TEST] = sluice_v1_PolicyTestRequest_fields,
        [ADMIN_TAP] = sluice_v1_TapRequest_fields,
        [ADMIN_CLUSTER_STATUS] = sluice_v1_ClusterStatusRequest_fields,
        [ADMIN_CLUSTER_INIT] = sluice_v1_ClusterInitRequest_fields,
        [ADMIN_CLUSTER_CHANGE] = sluice_v1_MembershipRequest_fields,
        [ADMIN_READ_POINT] = sluice_v1_ReadPointRequest_fields,
        [ADMIN_RECOVERY] = sluice_v1_RecoveryRequest_fields,
    };

    return which < sizeof fields / sizeof *fields ? fields[which] : NULL;
}

int admin_request_decode(struct admin_request *ret, const uint8_t *message, size_t bytes)
{
    struct field_walk walk;
    struct field f, body = { 0 };
    pb_istream_t in;
    int rc;

    field_walk_init(&walk, message, bytes);
    while ((rc = field_walk_next(&walk, &f)) > 0) {
        if (request_fields(f.tag) == NULL)
            continue;
        if (f.wire != PB_WT_STRING || body.tag != 0)
            return -EBADMSG;
        body = f;
    }
    if (rc < 0 || body.tag == 0)
        return -EBADMSG;
    memset(ret, 0, sizeof *ret);
    in = pb_istream_from_buffer(body.data, body.bytes);
    /* The members of the union all begin where it begins. */
    if (!pb_decode(&in, request_fields(body.tag), &ret->status))
        return -EBADMSG;
    ret->which = (enum admin_request_body)body.tag;
    return 0;
}

int64_t admin_request_encode(const struct admin_request *r, uint8_t *buf, size_t cap)
{
    const pb_msgdesc_t *fields = request_fields(r->which);
    pb_ostream_t out = pb_ostream_from_buffer(buf, cap);
    size_t body, message;

    assert(fields != NULL);
    if (!pb_get_encoded_size(&body, fields, &r->status))
        return -EMSGSIZE;
    message = string_bytes(body);
    assert(message <= ADMIN_REQUEST_BYTES_MAX);
    if (!pb_encode_varint(&out, message) || !pb_encode_tag(&out, PB_WT_STRING, r->which) ||
        !pb_encode_varint(&out, body) || !pb_encode(&out, fields, &r->status))
        return -EMSGSIZE;
    assert(out.bytes_written == varint_bytes(message) + message);
    return (int64_t)out.bytes_written;
}

int admin_response_decode(struct admin_response *ret, const uint8_t *message, size_t bytes)
{
    struct field_walk walk;
    struct field f;
    size_t length;
    int rc;

    memset(ret, 0, sizeof *ret);
    field_walk_init(&walk, message, bytes);
    while ((rc = field_walk_next(&walk, &f)) > 0) {
        switch (f.tag) {
        case RESPONSE_ERROR:
            if (f.wire != PB_WT_STRING)
                return -EBADMSG;
            length = f.bytes < ADMIN_ERROR_BYTES ? f.bytes : ADMIN_ERROR_BYTES - 1;
            memcpy(ret->error, f.data, length);
            ret->error[length] = '\0';
            break;
        case RESPONSE_CODE:
            ret->code = (uint32_t)f.value;
            break;
        case RESPONSE_DONE:
            ret->done = f.value != 0;
            break;
        default:
            if (f.tag < ADMIN_BODY_STATUS || f.tag > ADMIN_RESPONSE_BODY_MAX)
                break;
            if (f.wire != PB_WT_STRING || ret->body != NULL)
                return -EBADMSG;
            ret->which = (enum admin_response_body)f.tag;
            ret->body = f.data;
            ret->body_bytes = f.bytes;
        }
    }
    assert(ret->error[ADMIN_ERROR_BYTES - 1] == '\0');
    return rc;
}

int64_t admin_response_begin(uint8_t *buf, size_t cap, const char *error, uint32_t code, bool done,
                             enum admin_response_body which, size_t body_bytes)
{
    size_t error_bytes = error ? strnlen(error, ADMIN_ERROR_BYTES - 1) : 0;
    pb_ostream_t out = pb_ostream_from_buffer(buf, cap);
    size_t message;
    bool ok;

    assert(which != ADMIN_BODY_NONE || body_bytes == 0);
    message = (error_bytes ? string_bytes(error_bytes) : 0) + number_bytes(code) +
              number_bytes(done) + (which ? string_bytes(body_bytes) : 0);
    if (message > ADMIN_RESPONSE_BYTES_MAX || varint_bytes(message) + message > cap)
        return -EMSGSIZE;
    ok = pb_encode_varint(&out, message);
    if (error_bytes)
        ok = ok && pb_encode_tag(&out, PB_WT_STRING, RESPONSE_ERROR) &&
             pb_encode_string(&out, (const pb_byte_t *)error, error_bytes);
    if (code)
        ok = ok && pb_encode_tag(&out, PB_WT_VARINT, RESPONSE_CODE) && pb_encode_varint(&out, code);
    if (done)
        ok = ok && pb_encode_tag(&out, PB_WT_VARINT, RESPONSE_DONE) && pb_encode_varint(&out, 1);
    if (which)
        ok = ok && pb_encode_tag(&out, PB_WT_STRING, which) && pb_encode_varint(&out, body_bytes);
    assert(ok);
    assert(out.bytes_written + body_bytes == varint_bytes(message) + message);
    return (int64_t)out.bytes_written;
}

int64_t admin_response_encode(uint8_t *buf, size_t cap, bool done, enum admin_response_body which,
                              const pb_msgdesc_t *fields, const void *message)
{
    pb_ostream_t out;
    int64_t head;
    size_t body;

    assert(which != ADMIN_BODY_NONE);
    if (!pb_get_encoded_size(&body, fields, message))
        return -EMSGSIZE;
    head = admin_response_begin(buf, cap, NULL, 0, done, which, body);
    if (head < 0)
        return head;
    out = pb_ostream_from_buffer(buf + head, body);
    if (!pb_encode(&out, fields, message))
        return -EMSGSIZE;
    assert(out.bytes_written == body);
    return head + (int64_t)body;
}

int64_t admin_response_event(uint8_t *buf, size_t cap, bool done, const struct admin_event *e,
                             uint8_t **ret_event)
{
    size_t body = string_bytes(e->event_bytes) + number_bytes(e->index) + number_bytes(e->slot);
    int64_t head = admin_response_begin(buf, cap, NULL, 0, done, ADMIN_BODY_EVENT, body);
    pb_ostream_t out;
    bool ok = true;

    if (head < 0)
        return head;
    out = pb_ostream_from_buffer(buf + head, body);
    if (e->index)
        ok = pb_encode_tag(&out, PB_WT_VARINT, EVENT_INDEX) && pb_encode_varint(&out, e->index);
    if (e->slot)
        ok = ok && pb_encode_tag(&out, PB_WT_VARINT, EVENT_SLOT) && pb_encode_varint(&out, e->slot);
    ok = ok && pb_encode_tag(&out, PB_WT_STRING, EVENT_EVENT) &&
         pb_encode_varint(&out, e->event_bytes);
    assert(ok && out.bytes_written + e->event_bytes == body);
    *ret_event = buf + head + out.bytes_written;
    return head + (int64_t)body;
}

int admin_event_decode(struct admin_event *ret, const uint8_t *body, size_t bytes)
{
    struct field_walk walk;
    struct field f;
    int rc;

    memset(ret, 0, sizeof *ret);
    field_walk_init(&walk, body, bytes);
    while ((rc = field_walk_next(&walk, &f)) > 0) {
        if (f.tag == EVENT_EVENT && f.wire == PB_WT_STRING) {
            ret->event = f.data;
            ret->event_bytes = f.bytes;
        } else if (f.tag == EVENT_INDEX) {
            ret->index = f.value;
        } else if (f.tag == EVENT_SLOT) {
            ret->slot = (uint32_t)f.value;
        }
    }
    if (rc < 0 || ret->event == NULL)
        return -EBADMSG;
    assert(ret->event >= body && ret->event + ret->event_bytes <= body + bytes);
    return 0;
}
