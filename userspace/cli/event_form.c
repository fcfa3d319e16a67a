/*
 * event_form.c - see event_form.h: tables of fields, and one field at a time from text.
 */
#include "cli/event_form.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <pb_encode.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "cli/text.h"

#define SCALE_MAX 18

/* --- tables --------------------------------------------------------------------------------- */

#define ROW(message, at, rule, type, field, tag)                                                   \
    { .name = #field,                                                                              \
      .kind = FORM_##type,                                                                         \
      .offset = offsetof(message, field),                                                          \
      .bytes = sizeof(((message *)0)->field) },
#define TABLE(lower, message)                                                                      \
    static const struct form_field lower##_fields[] = { message##_FIELDLIST(ROW, message) };       \
    const struct form_message form_##lower = {                                                     \
        #lower, lower##_fields, sizeof(lower##_fields) / sizeof(lower##_fields[0])                 \
    }

TABLE(trade, sluice_v1_Trade);
TABLE(quote, sluice_v1_Quote);
TABLE(orderbook, sluice_v1_OrderBook);
TABLE(level, sluice_v1_Level);
TABLE(custom, sluice_v1_Custom);
TABLE(enrichment, sluice_v1_Enrichment);

/* By hand: nanopb's list has the oneof and the map in a form of its own. */
static const struct form_field event_fields[] = {
    // clang-format off
    ROW(sluice_v1_Event, STATIC, SINGULAR, UENUM, type, 1)
    ROW(sluice_v1_Event, STATIC, SINGULAR, STRING, source, 2)
    ROW(sluice_v1_Event, STATIC, SINGULAR, BYTES, id, 3)
    ROW(sluice_v1_Event, STATIC, SINGULAR, FIXED64, timestamp_ns, 4)
    ROW(sluice_v1_Event, STATIC, SINGULAR, STRING, symbol, 5)
    ROW(sluice_v1_Event, STATIC, SINGULAR, BYTES, traceparent, 11)
    // clang-format on
};
const struct form_message form_event = { "event", event_fields,
                                         sizeof(event_fields) / sizeof(event_fields[0]) };

static const char *const type_names[] = { "EVENT_TYPE_UNSPECIFIED", "TRADE", "QUOTE", "ORDERBOOK" };
static const char *const side_names[] = { "SIDE_UNSPECIFIED", "BUY", "SELL" };
static const char *const session_names[] = { "SESSION_UNSPECIFIED", "CLOSED", "PRE_MARKET",
                                             "REGULAR", "POST_MARKET" };

_Static_assert(sizeof(type_names) / sizeof(type_names[0]) == _sluice_v1_EventType_ARRAYSIZE, "");
_Static_assert(sizeof(side_names) / sizeof(side_names[0]) == _sluice_v1_Side_ARRAYSIZE, "");
_Static_assert(sizeof(session_names) / sizeof(session_names[0]) == _sluice_v1_Session_ARRAYSIZE,
               "");

static const char *const *enum_names(const struct form_field *f, unsigned *ret_n)
{
    assert(f->kind == FORM_UENUM);
    if (strcmp(f->name, "type") == 0) {
        *ret_n = _sluice_v1_EventType_ARRAYSIZE;
        return type_names;
    }
    if (strcmp(f->name, "aggressor") == 0) {
        *ret_n = _sluice_v1_Side_ARRAYSIZE;
        return side_names;
    }
    assert(strcmp(f->name, "session") == 0);
    *ret_n = _sluice_v1_Session_ARRAYSIZE;
    return session_names;
}

const char *form_enum_name(const struct form_field *f, unsigned value)
{
    unsigned n;
    const char *const *names = enum_names(f, &n);

    return value < n ? names[value] : NULL;
}

const struct form_message *form_detail(pb_size_t tag)
{
    switch (tag) {
    case sluice_v1_Event_trade_tag:
        return &form_trade;
    case sluice_v1_Event_quote_tag:
        return &form_quote;
    case sluice_v1_Event_orderbook_tag:
        return &form_orderbook;
    case sluice_v1_Event_custom_tag:
        return &form_custom;
    default:
        return NULL;
    }
}

pb_size_t form_detail_tag(const char *name)
{
    for (pb_size_t tag = sluice_v1_Event_trade_tag; tag <= sluice_v1_Event_custom_tag; tag++)
        if (strcmp(form_detail(tag)->name, name) == 0)
            return tag;
    return 0;
}

pb_size_t form_detail_of_type(unsigned type)
{
    switch (type) {
    case sluice_v1_EventType_TRADE:
        return sluice_v1_Event_trade_tag;
    case sluice_v1_EventType_QUOTE:
        return sluice_v1_Event_quote_tag;
    case sluice_v1_EventType_ORDERBOOK:
        return sluice_v1_Event_orderbook_tag;
    default:
        return type >= 64 && type <= 127 ? sluice_v1_Event_custom_tag : 0;
    }
}

void form_camel(char ret[FORM_NAME_BYTES_MAX], const char *snake)
{
    size_t n = 0;

    for (; *snake; snake++) {
        bool up = *snake == '_' && snake[1] >= 'a' && snake[1] <= 'z';

        if (up)
            snake++;
        assert(n + 1 < FORM_NAME_BYTES_MAX);
        ret[n++] = up ? (char)(*snake - 'a' + 'A') : *snake;
    }
    ret[n] = '\0';
}

const struct form_field *form_find(const struct form_message *m, const char *name)
{
    char camel[FORM_NAME_BYTES_MAX];

    if (m == &form_event && strcmp(name, "timestamp") == 0)
        name = "timestamp_ns";
    for (size_t i = 0; i < m->fields; i++) {
        form_camel(camel, m->field[i].name);
        if (strcmp(m->field[i].name, name) == 0 || strcmp(camel, name) == 0)
            return &m->field[i];
    }
    return NULL;
}

bool form_is_size(const struct form_field *f)
{
    size_t bytes = strlen(f->name);

    return f->kind == FORM_UINT64 && bytes >= 4 && strcmp(f->name + bytes - 4, "size") == 0;
}

/* --- one field ------------------------------------------------------------------------------ */

void form_reset(struct form *f)
{
    f->event = (sluice_v1_Event)sluice_v1_Event_init_zero;
    f->decimals = 0;
    f->price_scale_given = f->size_scale_given = false;
    f->error[0] = '\0';
}

int form_fail(struct form *f, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(f->error, sizeof(f->error), format, args);
    va_end(args);
    return -EINVAL;
}

void *form_detail_begin(struct form *f, pb_size_t tag)
{
    if (f->event.which_detail && f->event.which_detail != tag) {
        form_fail(f, "has both %s and %s", form_detail(f->event.which_detail)->name,
                  form_detail(tag)->name);
        return NULL;
    }
    f->event.which_detail = tag;
    return &f->event.detail;
}

static int decimal_set(struct form *f, const struct form_field *field, void *at, const char *text,
                       size_t bytes)
{
    struct form_decimal *d = &f->decimal[f->decimals];

    if (f->decimals == FORM_DECIMALS_MAX)
        return form_fail(f, "has too many prices and sizes");
    *d =
        (struct form_decimal){ .at = at, .name = field->name, .price = field->kind == FORM_SINT64 };
    if (text_decimal(text, bytes, &d->negative, &d->digits, &d->scale, &d->point) < 0)
        return form_fail(f, "%s: \"%.*s\" is not a number of at most 18 decimals and 19 digits",
                         field->name, (int)(bytes < 40 ? bytes : 40), text);
    if (d->negative && !d->price)
        return form_fail(f, "%s: is negative", field->name);
    f->decimals++;
    return 0;
}

static int integer_set(struct form *f, const struct form_field *field, void *at, const char *text,
                       size_t bytes)
{
    uint64_t value, value_max = field->bytes == 4 ? UINT32_MAX : UINT64_MAX;
    int rc = text_uint64(text, bytes, &value);

    if (rc < 0 && field->kind == FORM_FIXED64)
        rc = text_time(text, bytes, &value);
    if (rc < 0 || value > value_max)
        return form_fail(f, "%s: \"%.*s\" is not %s", field->name, (int)(bytes < 40 ? bytes : 40),
                         text,
                         field->kind == FORM_FIXED64 ? "a time (nanoseconds, or RFC 3339)"
                                                     : "a whole number in its range");
    if (strcmp(field->name, "price_scale") == 0)
        f->price_scale_given = true;
    if (strcmp(field->name, "size_scale") == 0)
        f->size_scale_given = true;
    if (field->bytes == 4)
        *(uint32_t *)at = (uint32_t)value;
    else
        *(uint64_t *)at = value;
    return 0;
}

static int enum_set(struct form *f, const struct form_field *field, void *at, const char *text,
                    size_t bytes)
{
    unsigned n;
    const char *const *names = enum_names(field, &n);
    uint64_t value;

    for (unsigned i = 0; i < n; i++)
        if (strlen(names[i]) == bytes && strncasecmp(names[i], text, bytes) == 0) {
            memcpy(at, &i, sizeof(i));
            return 0;
        }
    if (text_uint64(text, bytes, &value) < 0 || value > INT32_MAX)
        return form_fail(f, "%s: \"%.*s\" is none of its names", field->name,
                         (int)(bytes < 40 ? bytes : 40), text);
    unsigned number = (unsigned)value;

    _Static_assert(sizeof(number) == sizeof(sluice_v1_EventType), "");
    memcpy(at, &number, sizeof(number));
    return 0;
}

static int string_set(struct form *f, const struct form_field *field, char *at, const char *text,
                      size_t bytes)
{
    if (bytes >= field->bytes)
        return form_fail(f, "%s: is %zu bytes long, at most %u fit", field->name, bytes,
                         field->bytes - 1);
    if (memchr(text, '\0', bytes) || !utf8_valid(text, bytes))
        return form_fail(f, "%s: is not UTF-8 text", field->name);
    memcpy(at, text, bytes);
    at[bytes] = '\0';
    return 0;
}

static bool has_prefix(const char **text, size_t *bytes, const char *prefix)
{
    size_t n = strlen(prefix);

    if (*bytes < n || memcmp(*text, prefix, n) != 0)
        return false;
    *text += n;
    *bytes -= n;
    return true;
}

static int bytes_set(struct form *f, const struct form_field *field, pb_bytes_array_t *at,
                     const char *text, size_t bytes)
{
    size_t max = field->bytes - offsetof(sluice_v1_Event_id_t, bytes);
    bool plain = f->text_ids;
    ssize_t n;

    if (field->offset == offsetof(sluice_v1_Event, traceparent) &&
        text_traceparent(text, bytes, at->bytes) == 0) {
        at->size = TEXT_TRACEPARENT_BYTES;
        return 0;
    }
    if (field->bytes < sizeof(sluice_v1_Event_id_t)) /* the alignment's rest is not room */
        max = sizeof(((sluice_v1_Event_traceparent_t *)0)->bytes);
    if (has_prefix(&text, &bytes, "hex:"))
        n = text_hex(text, bytes, at->bytes, max);
    else if (has_prefix(&text, &bytes, "base64:"))
        n = text_base64(text, bytes, at->bytes, max);
    else if (has_prefix(&text, &bytes, "text:") || plain) {
        n = bytes <= max ? (ssize_t)bytes : -EMSGSIZE;
        if (n >= 0)
            memcpy(at->bytes, text, bytes);
    } else
        n = text_base64(text, bytes, at->bytes, max);
    if (n == -EMSGSIZE)
        return form_fail(f, "%s: is longer than %zu bytes", field->name, max);
    if (n < 0)
        return form_fail(f, "%s: \"%.*s\" is not base64 (\"hex:...\" and \"text:...\" also go)",
                         field->name, (int)(bytes < 40 ? bytes : 40), text);
    at->size = (pb_size_t)n;
    return 0;
}

int form_set(struct form *f, const struct form_field *field, void *message, const char *text,
             size_t bytes)
{
    void *at = (uint8_t *)message + field->offset;

    switch (field->kind) {
    case FORM_SINT64:
        return decimal_set(f, field, at, text, bytes);
    case FORM_UINT64:
        if (form_is_size(field))
            return decimal_set(f, field, at, text, bytes);
        return integer_set(f, field, at, text, bytes);
    case FORM_UINT32:
    case FORM_FIXED64:
        return integer_set(f, field, at, text, bytes);
    case FORM_STRING:
        return string_set(f, field, at, text, bytes);
    case FORM_BYTES:
        return bytes_set(f, field, at, text, bytes);
    case FORM_UENUM:
        return enum_set(f, field, at, text, bytes);
    case FORM_BOOL:
        if ((bytes == 4 && strncasecmp(text, "true", 4) == 0) || (bytes == 1 && *text == '1'))
            *(bool *)at = true;
        else if ((bytes == 5 && strncasecmp(text, "false", 5) == 0) || (bytes == 1 && *text == '0'))
            *(bool *)at = false;
        else
            return form_fail(f, "%s: is neither true nor false", field->name);
        return 0;
    case FORM_MESSAGE:
        break;
    }
    return form_fail(f, "%s: cannot be one value", field->name);
}

sluice_v1_Level *form_level_add(struct form *f, pb_size_t side)
{
    sluice_v1_OrderBook *book = &f->event.detail.orderbook;
    pb_size_t *n = side == sluice_v1_OrderBook_bids_tag ? &book->bids_count : &book->asks_count;
    sluice_v1_Level *level = side == sluice_v1_OrderBook_bids_tag ? book->bids : book->asks;

    assert(f->event.which_detail == sluice_v1_Event_orderbook_tag);
    if (*n == sizeof(book->bids) / sizeof(book->bids[0])) {
        form_fail(f, "has more than 50 levels on one side");
        return NULL;
    }
    return &level[(*n)++];
}

int form_attribute_add(struct form *f, const char *key, const char *value)
{
    sluice_v1_Event_AttributesEntry *a = &f->event.attributes[f->event.attributes_count];
    struct form_field k = { "attributes: key", FORM_STRING, 0, sizeof(a->key) };
    struct form_field v = { "attributes: value", FORM_STRING, 0, sizeof(a->value) };

    for (pb_size_t i = 0; i < f->event.attributes_count; i++)
        if (strcmp(f->event.attributes[i].key, key) == 0)
            return form_fail(f, "attributes: \"%s\" is there twice", key);
    if (f->event.attributes_count == sizeof(f->event.attributes) / sizeof(*a))
        return form_fail(f, "has more than 16 attributes");
    if (string_set(f, &k, a->key, key, strlen(key)) < 0 ||
        string_set(f, &v, a->value, value, strlen(value)) < 0)
        return -EINVAL;
    f->event.attributes_count++;
    return 0;
}

/* --- the whole ------------------------------------------------------------------------------ */

static int decimal_apply(struct form *f, const struct form_decimal *d, bool scale_given, int scale)
{
    uint64_t v = d->digits;
    uint64_t max = d->price ? (uint64_t)INT64_MAX + d->negative : UINT64_MAX;

    /* Without a point and with a scale it is the scaled integer already. */
    for (int s = d->scale; (!scale_given || d->point) && s != scale; s += s < scale ? 1 : -1) {
        if (s < scale && __builtin_mul_overflow(v, 10ull, &v))
            return form_fail(f, "%s: too large at a scale of %d", d->name, scale);
        if (s > scale && v % 10)
            return form_fail(f, "%s: has more decimals than its scale of %d", d->name, scale);
        if (s > scale)
            v /= 10;
    }
    if (v > max)
        return form_fail(f, "%s: too large", d->name);
    if (d->price)
        *(int64_t *)d->at = (int64_t)(d->negative ? 0 - v : v);
    else
        *(uint64_t *)d->at = v;
    return 0;
}

static int scales_apply(struct form *f, bool price, bool given, uint32_t *scale)
{
    if (given && *scale > SCALE_MAX)
        return form_fail(f, "%s: is above 18", price ? "price_scale" : "size_scale");
    for (unsigned i = 0; i < f->decimals && !given; i++)
        if (f->decimal[i].price == price && f->decimal[i].scale > (int)*scale)
            *scale = (uint32_t)f->decimal[i].scale;
    for (unsigned i = 0; i < f->decimals; i++)
        if (f->decimal[i].price == price &&
            decimal_apply(f, &f->decimal[i], given, (int)*scale) < 0)
            return -EINVAL;
    return 0;
}

int form_finish(struct form *f)
{
    static const unsigned type_of_detail[] = {
        [sluice_v1_Event_trade_tag] = sluice_v1_EventType_TRADE,
        [sluice_v1_Event_quote_tag] = sluice_v1_EventType_QUOTE,
        [sluice_v1_Event_orderbook_tag] = sluice_v1_EventType_ORDERBOOK,
    };
    uint32_t *price_scale = NULL, *size_scale = NULL;

    switch (f->event.which_detail) {
    case sluice_v1_Event_trade_tag:
        price_scale = &f->event.detail.trade.price_scale;
        size_scale = &f->event.detail.trade.size_scale;
        break;
    case sluice_v1_Event_quote_tag:
        price_scale = &f->event.detail.quote.price_scale;
        size_scale = &f->event.detail.quote.size_scale;
        break;
    case sluice_v1_Event_orderbook_tag:
        price_scale = &f->event.detail.orderbook.price_scale;
        size_scale = &f->event.detail.orderbook.size_scale;
        break;
    }
    if (price_scale && (scales_apply(f, true, f->price_scale_given, price_scale) < 0 ||
                        scales_apply(f, false, f->size_scale_given, size_scale) < 0))
        return -EINVAL;
    if (f->event.type == 0 && price_scale)
        f->event.type = type_of_detail[f->event.which_detail];
    if (f->event.type == 0)
        return form_fail(f, "has no type");
    return 0;
}

ssize_t form_encode(const struct form *f, uint8_t *ret, size_t bytes_max)
{
    pb_ostream_t out = pb_ostream_from_buffer(ret, bytes_max);

    if (!pb_encode(&out, sluice_v1_Event_fields, &f->event))
        return -EMSGSIZE;
    return (ssize_t)out.bytes_written;
}
