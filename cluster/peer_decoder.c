/*
 * peer_decoder.c - cuts the stream of a peer into messages; see peer_decoder.h. One thread; memory
 * for heads at init, for entries from the caller.
 */
#include "cluster/peer_decoder.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int decoder_fail(struct peer_decoder *d, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int decoder_fail(struct peer_decoder *d, int error, const char *format, ...)
{
    va_list args;

    assert(error < 0);
    va_start(args, format);
    vsnprintf(d->error, sizeof d->error, format, args);
    va_end(args);
    d->state = PEER_DECODER_FAILED;
    d->failure = error;
    return error;
}

static void decoder_begin(struct peer_decoder *d, enum peer_decoder_state state, uint32_t bytes)
{
    d->state = state;
    d->at = 0;
    d->bytes = bytes;
}

int peer_decoder_init(struct peer_decoder *d, const struct peer_decoder_memory *memory,
                      uint32_t types)
{
    *d = (struct peer_decoder){ .memory = *memory, .types = types };
    d->head = malloc(PEER_HEAD_MAX);
    if (d->head == NULL)
        return -ENOMEM;
    decoder_begin(d, PEER_DECODER_HEADER, PEER_HEADER_BYTES);
    return 0;
}

static void decoder_free_entries(struct peer_decoder *d)
{
    for (; d->begun > 0; d->begun--)
        d->memory.entry_free(d->memory.arg, d->write[d->begun - 1]);
}

void peer_decoder_fini(struct peer_decoder *d)
{
    decoder_free_entries(d);
    peer_unpacker_fini(&d->unpacker);
    free(d->head);
    d->head = NULL;
}

void peer_decoder_reset(struct peer_decoder *d, uint32_t types)
{
    decoder_free_entries(d);
    d->types = types;
    d->failure = 0;
    d->error[0] = 0;
    decoder_begin(d, PEER_DECODER_HEADER, PEER_HEADER_BYTES);
}

void peer_decoder_accept(struct peer_decoder *d, uint32_t types) { d->types = types; }

static uint8_t *payload_of(const struct log_write *w)
{
    return (uint8_t *)w->buf + LOG_HEADER_BYTES;
}

static int decoder_header(struct peer_decoder *d)
{
    const struct peer_header *h = &d->header;
    const char *wrong = peer_frame_check(h, d->types);

    if (wrong != NULL && (h->magic != PEER_MAGIC || h->type == 0 || h->type >= PEER_TYPE_END))
        return decoder_fail(d, -EBADMSG, "%s", wrong);
    if (wrong != NULL)
        return decoder_fail(d, -EBADMSG, "%s: %s", peer_type_name(h->type), wrong);
    assert(h->head_bytes <= PEER_HEAD_MAX && h->head_bytes <= h->body_bytes);
    decoder_begin(d, PEER_DECODER_HEAD, h->head_bytes);
    return 0;
}

static int decoder_head(struct peer_decoder *d)
{
    const struct peer_header *h = &d->header;
    const struct peer_frame frame = {
        .type = h->type,
        .body_bytes = h->body_bytes,
        .head_bytes = h->head_bytes,
        .epoch = h->epoch,
        .head = d->head,
    };
    const char *wrong = "the head's CRC does not match";

    if (crc32c(0, d->head, h->head_bytes) == h->head_crc)
        wrong = peer_message_get(&d->message, &frame);
    if (wrong != NULL)
        return decoder_fail(d, -EBADMSG, "%s: %s", peer_type_name(h->type), wrong);
    d->message.write = d->write;
    assert(d->begun == 0);
    decoder_begin(d, PEER_DECODER_ENTRY, 0);
    return 0;
}

static unsigned decoder_entries(const struct peer_decoder *d)
{
    return d->message.frame.type == PEER_APPEND_ENTRIES ? d->message.raft.append_entries.n_entries
                                                        : 0;
}

/* Asks for the next entry's memory; 1: not now. */
static int decoder_entry(struct peer_decoder *d)
{
    struct log_record record;
    struct log_write *w = NULL;
    uint32_t payload_crc;
    int e;

    if (d->begun == decoder_entries(d)) {
        decoder_begin(d, PEER_DECODER_MESSAGE, 0);
        return 0;
    }
    peer_entry_get(&record, &payload_crc, &d->packed_bytes, &d->message, d->begun);
    if (d->packed_bytes > 0 && peer_unpacker_buf(&d->unpacker) == NULL)
        return decoder_fail(d, -ENOMEM, "APPEND_ENTRIES: no memory to unpack entry %" PRIu64,
                            record.index);
    e = d->memory.entry_alloc(d->memory.arg, &record, &w);
    if (e == -EAGAIN)
        return 1;
    if (e < 0)
        return decoder_fail(d, e, "APPEND_ENTRIES: no memory for entry %" PRIu64 ": %s",
                            record.index, strerror(-e));
    assert(w != NULL && ((uintptr_t)w->buf & (LOG_ALIGN - 1)) == 0);
    w->record = record;
    w->payload_crc = payload_crc;
    d->write[d->begun++] = w;
    d->crc = 0;
    decoder_begin(d, PEER_DECODER_PAYLOAD,
                  d->packed_bytes > 0 ? d->packed_bytes : record.payload_bytes);
    return 0;
}

static int decoder_payload(struct peer_decoder *d)
{
    const struct log_write *w = d->write[d->begun - 1];
    const char *wrong = NULL;

    if (d->packed_bytes > 0) {
        if (peer_unpack(&d->unpacker, d->packed_bytes, payload_of(w), w->record.payload_bytes) < 0)
            wrong = "a packed payload that is not one";
        else
            d->crc = crc32c(0, payload_of(w), w->record.payload_bytes);
    }
#ifndef PLANT_PEER_SKIP_CRC
    if (wrong == NULL && d->crc != w->payload_crc)
        wrong = "the payload's CRC does not match";
#endif
    if (wrong == NULL && w->record.type == LOG_CHANGE)
        wrong = peer_configuration_check(payload_of(w), w->record.payload_bytes);
    if (wrong != NULL)
        return decoder_fail(d, -EBADMSG, "APPEND_ENTRIES: entry %" PRIu64 ": %s", w->record.index,
                            wrong);
    decoder_begin(d, PEER_DECODER_ENTRY, 0);
    return 0;
}

/* As far as the bytes that are there go. Ends: from a header to its message it is at most two turns
 * for each of PEER_ENTRIES_MAX entries, and three more. */
static int decoder_advance(struct peer_decoder *d)
{
    int r = 0;

    while (r == 0) {
        if (d->at < d->bytes)
            return 0;
        switch (d->state) {
        case PEER_DECODER_HEADER:
            r = decoder_header(d);
            break;
        case PEER_DECODER_HEAD:
            r = decoder_head(d);
            break;
        case PEER_DECODER_ENTRY:
            r = decoder_entry(d);
            break;
        case PEER_DECODER_PAYLOAD:
            r = decoder_payload(d);
            break;
        case PEER_DECODER_MESSAGE:
            return 1;
        case PEER_DECODER_FAILED:
            return d->failure;
        }
    }
    return r < 0 ? r : 0;
}

size_t peer_decoder_want(struct peer_decoder *d, void **ret)
{
    uint8_t *to;

    switch (d->state) {
    case PEER_DECODER_HEADER:
        to = (uint8_t *)&d->header;
        break;
    case PEER_DECODER_HEAD:
        to = d->head;
        break;
    case PEER_DECODER_PAYLOAD:
        to = d->packed_bytes > 0 ? d->unpacker.buf : payload_of(d->write[d->begun - 1]);
        break;
    default:
        return 0;
    }
    assert(d->at < d->bytes); /* else decoder_advance() would have gone on */
    *ret = to + d->at;
    return d->bytes - d->at;
}

int peer_decoder_got(struct peer_decoder *d, size_t n)
{
    assert(n == 0 || (d->state <= PEER_DECODER_PAYLOAD && n <= d->bytes - d->at));
    if (d->state == PEER_DECODER_PAYLOAD && d->packed_bytes == 0)
        d->crc = crc32c(d->crc, payload_of(d->write[d->begun - 1]) + d->at, n);
    d->at += (uint32_t)n;
    return decoder_advance(d);
}

const struct peer_message *peer_decoder_message(struct peer_decoder *d)
{
    assert(d->state == PEER_DECODER_MESSAGE && d->begun == decoder_entries(d));
    d->begun = 0; /* the caller's now */
    decoder_begin(d, PEER_DECODER_HEADER, PEER_HEADER_BYTES);
    return &d->message;
}

const char *peer_decoder_error(const struct peer_decoder *d)
{
    assert(d->state == PEER_DECODER_FAILED);
    return d->error;
}
