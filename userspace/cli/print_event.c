/*
 * print_event.c - see print_event.h. The names and the order of fields come from event_form's
 * tables; as in protobuf's JSON, a field with its default value is left out.
 */
#include "cli/print_event.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <pb_decode.h>

#include "cli/event_form.h"
#include "cli/text.h"
#include "proto/event.pb.h"

static int event_decode(sluice_v1_Event **ret, const uint8_t *event, size_t bytes)
{
    pb_istream_t in = pb_istream_from_buffer(event, bytes);
    sluice_v1_Event *e = malloc(sizeof(*e));

    if (!e)
        return -ENOMEM;
    if (!pb_decode(&in, sluice_v1_Event_fields, e)) {
        free(e);
        return -EBADMSG;
    }
    *ret = e;
    return 0;
}

/* --- JSON ----------------------------------------------------------------------------------- */

static void enum_print(FILE *out, const struct form_field *f, unsigned value)
{
    const char *name = form_enum_name(f, value);

    if (name)
        fprintf(out, "\"%s\"", name);
    else
        fprintf(out, "%u", value);
}

static uint64_t magnitude(int64_t v) { return v < 0 ? 0 - (uint64_t)v : (uint64_t)v; }

/* What fprintf() would write; an event has a dozen of these. */
static void number_print(FILE *out, uint64_t v, bool negative, bool quoted)
{
    char text[24];
    size_t at = sizeof(text);

    if (quoted)
        text[--at] = '"';
    do {
        text[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    if (negative)
        text[--at] = '-';
    if (quoted)
        text[--at] = '"';
    fwrite(text + at, 1, sizeof(text) - at, out);
}

/* The longest integer kinds are strings: JavaScript's numbers would round them. */
static void value_print(FILE *out, const struct form_field *f, const void *at)
{
    const pb_bytes_array_t *data = at;
    unsigned value;

    switch (f->kind) {
    case FORM_SINT64:
        number_print(out, magnitude(*(const int64_t *)at), *(const int64_t *)at < 0, true);
        break;
    case FORM_UINT64:
    case FORM_FIXED64:
        number_print(out, *(const uint64_t *)at, false, true);
        break;
    case FORM_UINT32:
        number_print(out, *(const uint32_t *)at, false, false);
        break;
    case FORM_STRING:
        text_json_print(out, at);
        break;
    case FORM_BYTES:
        putc('"', out);
        text_base64_print(out, data->bytes, data->size);
        putc('"', out);
        break;
    case FORM_BOOL:
        fputs("true", out);
        break;
    case FORM_UENUM:
        memcpy(&value, at, sizeof(value));
        enum_print(out, f, value);
        break;
    case FORM_MESSAGE:
        break;
    }
}

static bool is_default(const struct form_field *f, const void *at)
{
    static const uint8_t zeros[8];

    if (f->kind == FORM_STRING)
        return *(const char *)at == '\0';
    if (f->kind == FORM_BYTES)
        return ((const pb_bytes_array_t *)at)->size == 0;
    return f->kind == FORM_MESSAGE || memcmp(at, zeros, f->bytes) == 0;
}

static void name_print(FILE *out, const char *snake, bool *first)
{
    char text[FORM_NAME_BYTES_MAX + 4] = ",\"";
    size_t n;

    form_camel(text + 2, snake);
    n = strlen(text);
    text[n++] = '"';
    text[n++] = ':';
    fwrite(text + *first, 1, n - *first, out);
    *first = false;
}

static void fields_print(FILE *out, const struct form_message *m, const void *message, bool *first)
{
    for (size_t i = 0; i < m->fields; i++) {
        const struct form_field *f = &m->field[i];
        const void *at = (const uint8_t *)message + f->offset;

        if (is_default(f, at))
            continue;
        name_print(out, f->name, first);
        value_print(out, f, at);
    }
}

static void levels_print(FILE *out, const char *name, const sluice_v1_Level *level, pb_size_t n,
                         bool *first)
{
    if (n == 0)
        return;
    name_print(out, name, first);
    putc('[', out);
    for (pb_size_t i = 0; i < n; i++) {
        bool level_first = true;

        fputs(i ? ",{" : "{", out);
        fields_print(out, &form_level, &level[i], &level_first);
        putc('}', out);
    }
    putc(']', out);
}

static void detail_print(FILE *out, const sluice_v1_Event *e, bool *first)
{
    const struct form_message *m = form_detail(e->which_detail);
    bool inner = true;

    if (!m)
        return;
    name_print(out, m->name, first);
    putc('{', out);
    if (m == &form_orderbook) {
        const sluice_v1_OrderBook *book = &e->detail.orderbook;

        levels_print(out, "bids", book->bids, book->bids_count, &inner);
        levels_print(out, "asks", book->asks, book->asks_count, &inner);
    }
    fields_print(out, m, &e->detail, &inner);
    putc('}', out);
}

int event_print_json(FILE *out, const uint8_t *event, size_t bytes)
{
    sluice_v1_Event *e;
    bool first = true, inner = true;
    int rc = event_decode(&e, event, bytes);

    if (rc < 0)
        return rc;
    putc('{', out);
    fields_print(out, &form_event, e, &first);
    detail_print(out, e, &first);
    if (e->attributes_count) {
        name_print(out, "attributes", &first);
        for (pb_size_t i = 0; i < e->attributes_count; i++) {
            putc(i ? ',' : '{', out);
            text_json_print(out, e->attributes[i].key);
            putc(':', out);
            text_json_print(out, e->attributes[i].value);
        }
        putc('}', out);
    }
    if (e->has_enrichment) {
        name_print(out, "enrichment", &first);
        putc('{', out);
        fields_print(out, &form_enrichment, &e->enrichment, &inner);
        putc('}', out);
    }
    fputs("}\n", out);
    free(e);
    return ferror(out) ? -EIO : 0;
}

/* --- a line to read ------------------------------------------------------------------------- */

static void decimal_print(FILE *out, bool negative, uint64_t v, uint32_t scale)
{
    char digits[32];
    int n = snprintf(digits, sizeof(digits), "%" PRIu64, v);
    uint32_t whole = (uint32_t)n > scale ? (uint32_t)n - scale : 0;

    if (scale > 18) { /* a scale that no reader would believe: show what is there */
        fprintf(out, "%s%se-%" PRIu32, negative ? "-" : "", digits, scale);
        return;
    }
    fprintf(out, "%s%.*s", negative ? "-" : "", (int)whole, digits);
    if (whole == 0)
        putc('0', out);
    if (scale == 0)
        return;
    putc('.', out);
    for (uint32_t zeros = (uint32_t)n < scale ? scale - (uint32_t)n : 0; zeros; zeros--)
        putc('0', out);
    fputs(digits + whole, out);
}

static void price_print(FILE *out, int64_t v, uint32_t scale)
{
    decimal_print(out, v < 0, v < 0 ? 0 - (uint64_t)v : (uint64_t)v, scale);
}

static void id_print(FILE *out, const uint8_t *id, size_t bytes)
{
    bool readable = bytes > 0;

    for (size_t i = 0; i < bytes; i++)
        readable = readable && id[i] > 0x20 && id[i] < 0x7f;
    if (readable) {
        fwrite(id, 1, bytes, out);
        return;
    }
    fputs(bytes ? "hex:" : "-", out);
    text_hex_print(out, id, bytes);
}

static void pair_print(FILE *out, int64_t price, uint32_t price_scale, uint64_t size,
                       uint32_t size_scale)
{
    price_print(out, price, price_scale);
    fputs(" x ", out);
    decimal_print(out, false, size, size_scale);
}

static void side_print(FILE *out, const char *name, const sluice_v1_Level *level, pb_size_t n,
                       const sluice_v1_OrderBook *book)
{
    fprintf(out, " %s[%u]", name, (unsigned)n);
    if (n == 0)
        return;
    putc(' ', out);
    pair_print(out, level->price, book->price_scale, level->size, book->size_scale);
}

static void detail_text(FILE *out, const sluice_v1_Event *e)
{
    const sluice_v1_Trade *t = &e->detail.trade;
    const sluice_v1_Quote *q = &e->detail.quote;
    const sluice_v1_OrderBook *b = &e->detail.orderbook;

    switch (e->which_detail) {
    case sluice_v1_Event_trade_tag:
        putc(' ', out);
        pair_print(out, t->price, t->price_scale, t->size, t->size_scale);
        fputs(t->currency[0] ? " " : "", out);
        text_plain_print(out, t->currency, strlen(t->currency));
        fputs(t->venue[0] ? " at " : "", out);
        text_plain_print(out, t->venue, strlen(t->venue));
        break;
    case sluice_v1_Event_quote_tag:
        fputs(" bid ", out);
        pair_print(out, q->bid_price, q->price_scale, q->bid_size, q->size_scale);
        fputs(" ask ", out);
        pair_print(out, q->ask_price, q->price_scale, q->ask_size, q->size_scale);
        break;
    case sluice_v1_Event_orderbook_tag:
        fputs(b->is_snapshot ? " book" : " changes", out);
        side_print(out, "bids", b->bids, b->bids_count, b);
        side_print(out, "asks", b->asks, b->asks_count, b);
        break;
    case sluice_v1_Event_custom_tag:
        putc(' ', out);
        text_plain_print(out, e->detail.custom.schema, strlen(e->detail.custom.schema));
        fprintf(out, " %u bytes", (unsigned)e->detail.custom.body.size);
        break;
    }
}

int event_print_text(FILE *out, const uint8_t *event, size_t bytes)
{
    char time[TEXT_TIME_BYTES_MAX];
    sluice_v1_Event *e;
    int rc = event_decode(&e, event, bytes);

    if (rc < 0)
        return rc;
    const char *name = form_enum_name(&form_event.field[0], (unsigned)e->type);

    text_time_put(time, e->timestamp_ns);
    text_plain_print(out, e->has_enrichment ? e->enrichment.ingestion_id : "-",
                     e->has_enrichment ? strlen(e->enrichment.ingestion_id) : 1);
    fprintf(out, " %s ", time);
    if (name)
        fputs(name, out);
    else
        fprintf(out, "%u", (unsigned)e->type);
    putc(' ', out);
    text_plain_print(out, e->source, strlen(e->source));
    putc('/', out);
    id_print(out, e->id.bytes, e->id.size);
    putc(' ', out);
    text_plain_print(out, e->symbol[0] ? e->symbol : "-", e->symbol[0] ? strlen(e->symbol) : 1);
    detail_text(out, e);
    putc('\n', out);
    free(e);
    return ferror(out) ? -EIO : 0;
}
