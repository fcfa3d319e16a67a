/*
 * event_form.h - an event being put together from text, and the names of its fields.
 *
 * The tables are made from nanopb's field lists, so they know every field of event.proto under its
 * own name. A number with a decimal point ("187.50") becomes an integer and a scale, exactly or not
 * at all:
 *   - without a scale in the input, prices (or sizes) of the event get the smallest scale that
 * holds all of them;
 *   - with one, a number with a point is a value and must fit that scale; a number without a point
 *     is the scaled integer itself, as protobuf's JSON has it.
 * Thread:  one form, one thread.
 * Memory:  a form is about 30 KiB; nothing is allocated.
 * Errors:  -EINVAL and form.error, which says which field and what is wrong with it.
 */
#ifndef SLUICE_CLI_EVENT_FORM_H
#define SLUICE_CLI_EVENT_FORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/event.pb.h"

#define FORM_DECIMALS_MAX    200u /* an order book of 50 levels a side */
#define FORM_ERROR_BYTES_MAX 200u
#define FORM_NAME_BYTES_MAX  40u

enum form_kind {
    FORM_SINT64, /* a price */
    FORM_UINT64,
    FORM_UINT32,
    FORM_FIXED64, /* a time */
    FORM_STRING,
    FORM_BYTES,
    FORM_BOOL,
    FORM_UENUM,
    FORM_MESSAGE,
};

struct form_field {
    const char *name; /* snake_case, as in event.proto */
    enum form_kind kind;
    uint32_t offset, bytes;
};

struct form_message {
    const char *name;
    const struct form_field *field;
    size_t fields;
};

extern const struct form_message form_event; /* what is neither detail, attributes nor enrichment */
extern const struct form_message form_trade, form_quote, form_orderbook, form_level, form_custom;
extern const struct form_message form_enrichment;

/* The message of a detail's tag, or NULL. */
const struct form_message *form_detail(pb_size_t tag);
/* The tag of the detail with this name ("trade"), or 0. */
pb_size_t form_detail_tag(const char *name);
/* The detail that a type asks for: users' own types have Custom. 0 if none. */
pb_size_t form_detail_of_type(unsigned type);
/* name is snake_case or lowerCamelCase; "timestamp" is timestamp_ns. NULL if there is none. */
const struct form_field *form_find(const struct form_message *m, const char *name);
/* lowerCamelCase of snake_case. */
void form_camel(char ret[FORM_NAME_BYTES_MAX], const char *snake);
/* The name of an enum field's value, or NULL. */
const char *form_enum_name(const struct form_field *f, unsigned value);
bool form_is_size(const struct form_field *f);

struct form_decimal {
    void *at; /* the int64_t or uint64_t */
    const char *name;
    uint64_t digits;
    int scale;
    bool negative, point, price;
};

struct form {
    sluice_v1_Event event;
    struct form_decimal decimal[FORM_DECIMALS_MAX];
    unsigned decimals;
    bool price_scale_given, size_scale_given;
    bool text_ids; /* bytes are text unless they begin with "base64:"; else the other way round */
    char error[FORM_ERROR_BYTES_MAX];
};

/* Empties it; text_ids is kept. */
void form_reset(struct form *f);
__attribute__((format(printf, 2, 3))) int form_fail(struct form *f, const char *format, ...);

/* Chooses the detail; fails when there is another one already. Returns where it is in the event. */
void *form_detail_begin(struct form *f, pb_size_t tag);
/* Sets one field of message (which is in f->event) from text. Not for FORM_MESSAGE. Bytes take
 * "hex:...", "base64:...", "text:..."; a time takes nanoseconds or RFC 3339; a traceparent also its
 * W3C form; an enum its name or number. */
int form_set(struct form *f, const struct form_field *field, void *message, const char *text,
             size_t bytes);
/* A new level of a side (tag of bids or asks), or NULL when it is full. */
sluice_v1_Level *form_level_add(struct form *f, pb_size_t side);
int form_attribute_add(struct form *f, const char *key, const char *value);
/* Applies the scales, and takes the type from the detail when it was not given. */
int form_finish(struct form *f);
/* The event as protobuf: how many bytes, or -EMSGSIZE. */
ssize_t form_encode(const struct form *f, uint8_t *ret, size_t bytes_max);

#endif
