/*
 * batch.c - last stage: the events' bytes and descriptors into the open block.
 *
 * The only copy that is made of an event's bytes. Refused events leave an exception where a request
 * waits for them.
 *
 * Thread:  the worker, which owns the open block.
 * Memory:  none; the caller has made sure that a run's events and exceptions fit.
 * Limits:  BLOCK_EVENTS_MAX, BLOCK_EXCEPTIONS_MAX, BLOCK_PAYLOAD_MAX.
 * Counts:  by_type of the block; what it refuses when its time is up.
 */
#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "ingest/stages.h"

#define REASON(name) sluice_v1_Reason_##name

/* Tag of field 3 and its length, as they stand before an id that we append. */
static const uint8_t id_head[2] = { sluice_v1_Event_id_tag << 3 | 2, ASSIGNED_ID_BYTES };
#define ID_FIELD_BYTES ((uint32_t)sizeof id_head + ASSIGNED_ID_BYTES)

static void payload_add(struct block *b, const struct event *ev)
{
    uint8_t *to = block_payload(b) + b->bytes;

    memcpy(to, ev->raw.data, ev->raw.bytes);
    if (ev->id_assigned) {
        memcpy(to + ev->raw.bytes, id_head, sizeof id_head);
        memcpy(to + ev->raw.bytes + sizeof id_head, ev->assigned_id, ASSIGNED_ID_BYTES);
    }
}

static uint32_t receive_delta(const struct block *b, const struct event *ev)
{
    uint64_t delta;

    /* Unix time may be set back between two events. */
    if (ev->receive_time_ns <= b->receive_time_ns)
        return 0;
    delta = ev->receive_time_ns - b->receive_time_ns;
    return delta < UINT32_MAX ? (uint32_t)delta : UINT32_MAX;
}

static void event_add(const struct stages *s, struct block *b, const struct event *ev)
{
    uint32_t i = b->events;
    uint32_t bytes = ev->raw.bytes + (ev->id_assigned ? ID_FIELD_BYTES : 0);

    assert(i < BLOCK_EVENTS_MAX);
    assert(b->bytes >= sizeof(struct block_header));
    assert(b->bytes + i * sizeof(struct block_desc) + block_event_cost(bytes) <= BLOCK_PAYLOAD_MAX);
    assert(ev->type != 0 && ev->type < BLOCK_TYPES);
    if (i == 0)
        b->receive_time_ns = ev->receive_time_ns;
    assert(bytes <= UINT16_MAX);
    payload_add(b, ev);
    b->desc[i] = (struct block_desc){
        .key = ev->key,
        .timestamp_ns = ev->timestamp_ns,
        .receive_delta_ns = receive_delta(b, ev),
        .offset = b->bytes,
        .bytes = (uint16_t)bytes,
        .type = ev->type,
        .session_flags = (uint8_t)(ev->session | (ev->id_assigned ? DESC_ID_ASSIGNED : 0)),
        .symbol_hash = hash_symbol(ev->symbol.bytes > 0 ? (const void *)ev->symbol.data : "",
                                   ev->symbol.bytes),
    };
    /* Of the bytes as they are stored, so that they can be sent again. */
    b->content[i] = ev->id_assigned ? hash_content(s->hash_key, block_payload(b) + b->bytes, bytes)
                                    : ev->content;
    b->position[i] = ev->position;
    b->request_of[i] = ev->request;
    b->type[i] = ev->type;
    b->verdict[i] = VERDICT_COMMITTED; /* until the cluster thread says otherwise */
    b->by_type[ev->type]++;
    b->bytes += bytes;
    b->events = i + 1;
}

static void exception_add(struct block *b, const struct event *ev)
{
    assert(b->exceptions < BLOCK_EXCEPTIONS_MAX);
    b->exception[b->exceptions++] = (struct block_exception){
        .request = ev->request,
        .position = ev->position,
        .reason = ev->reason,
    };
}

size_t batch_run(struct stages *s, struct event *ev, size_t n)
{
    uint64_t start_ns = n > 1 ? clock_monotonic_ns() : 0;
    struct block *b = s->open;
    size_t added = 0;

    assert(n <= EVENTS_RUN_MAX);
    if (n > 0 && b->events == 0 && b->exceptions == 0)
        b->opened_ns = clock_monotonic_ns();
    for (size_t i = 0; i < n; i++) {
        if (ev[i].reason == REASON(REASON_NONE) && i > 0 &&
            !stage_in_time(s, STAGE_BATCH, start_ns))
            event_refuse(s, &ev[i], REASON(STAGE_TIMEOUT));
        if (ev[i].reason == REASON(REASON_NONE)) {
            event_add(s, b, &ev[i]);
            added++;
        } else if (ev[i].request != REQUEST_NONE) {
            exception_add(b, &ev[i]);
        }
    }
    return added;
}
