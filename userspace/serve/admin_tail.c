/*
 * admin_tail.c - events out of the log for admin connections: `get` one, `tail` many.
 *
 * A tail remembers only the index it reads next; it works through whole blocks, a bounded number of
 * records in a turn, and only while its connection's output has room. So a slow reader costs its
 * buffer and nothing else, and misses nothing.
 */
#include "serve/admin_connection.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "cluster/cluster.h"
#include "store/event_out.h"

#define TAIL_RECORDS_PER_TURN 16u
#define TAIL_BYTES_PER_TURN   (1024u * 1024u) /* of payload read */

_Static_assert(EVENT_OUT_ENRICHMENT_MAX + 40u <= ADMIN_EVENT_EXTRA, "heads of a response");

/* Returns 0, or -EMSGSIZE for a block whose events overlap, which no sealed block's do. */
static int put_event(struct admin_connection *c, const struct log_record *record,
                     const struct block_view *view, uint32_t slot, bool done)
{
    struct event_out out;
    struct admin_event e;
    size_t cap;
    uint8_t *to = admin_reserve(c, &cap), *event = NULL;
    int64_t bytes;

    event_out_init(&out, record, view, slot);
    e = (struct admin_event){ .event_bytes = event_out_bytes(&out),
                              .index = record->index,
                              .slot = slot };
    bytes = admin_response_event(to, cap, done, &e, &event);
    if (bytes < 0)
        return (int)bytes;
    event_out_write(&out, event);
    connection_commit(c, (size_t)bytes);
    return 0;
}

static bool bytes_equal(const uint8_t *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    return a_bytes == b_bytes && (a_bytes == 0 || memcmp(a, b, a_bytes) == 0);
}

static bool tail_wants(const struct admin_tail *t, const struct block_view *view, uint32_t slot)
{
    const struct block_desc *d = &view->desc[slot];
    struct event_names names;
    pb_size_t i;

    for (i = 0; i < t->request.types_count && t->request.types[i] != d->type; i++) {
    }
    if (t->request.types_count > 0 && i == t->request.types_count)
        return false;
    if (t->symbol_bytes > 0 && d->symbol_hash != t->symbol_hash)
        return false;
    if (t->symbol_bytes == 0 && t->source_bytes == 0)
        return true;
    if (event_names_find(&names, view->payload + d->offset, d->bytes) < 0)
        return false;
    return (t->source_bytes == 0 ||
            bytes_equal(names.source, names.source_bytes, t->request.source, t->source_bytes)) &&
           (t->symbol_bytes == 0 ||
            bytes_equal(names.symbol, names.symbol_bytes, t->request.symbol, t->symbol_bytes));
}

static void tail_end(struct admin_connection *c)
{
    size_t cap;
    uint8_t *to = admin_reserve(c, &cap);
    int64_t n = admin_response_begin(to, cap, NULL, 0, true, ADMIN_BODY_NONE, 0);

    assert(n > 0);
    connection_commit(c, (size_t)n);
    c->tail.on = false;
}

void tail_begin(struct admin_answerer *a, struct admin_connection *c,
                const sluice_v1_TailRequest *request)
{
    uint64_t commit = a->source.commit_index(a->source.arg);
    uint64_t first = a->source.first_index(a->source.arg);
    struct admin_tail *t = &c->tail;

    if (request->from_index != 0 && request->from_index < first) {
        connection_fail(c, ENOENT, false,
                        "index %" PRIu64 " is no longer in the log, which begins at %" PRIu64,
                        (uint64_t)request->from_index, first);
        return;
    }
    *t = (struct admin_tail){ .on = true, .request = *request };
    t->history = a->source.history(a->source.arg);
    t->next = request->from_index ? request->from_index : commit + 1;
    t->last = request->follow ? UINT64_MAX : commit;
    t->source_bytes = strlen(request->source);
    t->symbol_bytes = strlen(request->symbol);
    t->symbol_hash = hash_symbol(request->symbol, t->symbol_bytes);
}

/* Sends what is wanted of one block. */
static int tail_block(struct admin_connection *c, const struct admin_record *r,
                      const struct block_view *view)
{
    struct admin_tail *t = &c->tail;
    uint32_t slot;

    for (slot = 0; slot < view->header->events; slot++) {
        if (!tail_wants(t, view, slot))
            continue;
        if (put_event(c, &r->record, view, slot, false) < 0)
            return -EBADMSG;
        t->sent++;
        if (t->request.count_max > 0 && t->sent == t->request.count_max)
            break;
    }
    return 0;
}

static void tail_broken(struct admin_connection *c, int rc)
{
    connection_fail(c, -rc, false, "index %" PRIu64 " cannot be read: %s", c->tail.next,
                    rc == -EILSEQ || rc == -EBADMSG ? "what is on disk is damaged" : strerror(-rc));
    c->tail.on = false;
}

/* A forced failover: from some index on the log has other records now, and which of them were told
 * nobody here knows. */
static void tail_cut(struct admin_connection *c)
{
    connection_fail(
        c, ESTALE, false,
        "a failover has cut the log of this node: what was told last may not be in it any "
        "more; follow it again from an index that both regions have");
    c->tail.on = false;
}

int tail_work(struct admin_answerer *a, struct admin_connection *c)
{
    struct admin_tail *t = &c->tail;
    size_t bytes = 0;
    unsigned n;

    for (n = 0; n < TAIL_RECORDS_PER_TURN && bytes < TAIL_BYTES_PER_TURN; n++) {
        struct admin_record r;
        struct block_view view;
        int rc;

        if (t->next > t->last || (t->request.count_max > 0 && t->sent >= t->request.count_max)) {
            tail_end(c);
            return (int)n + 1;
        }
        if (!connection_has_room(c))
            break;
        rc = a->source.read(a->source.arg, t->next, &r);
        if (a->source.history(a->source.arg) != t->history) {
            tail_cut(c);
            return (int)n + 1;
        }
        if (rc == -EAGAIN)
            break;
        if (rc == 0 && r.record.type == LOG_EVENTS)
            rc = block_view(&view, r.payload, r.record.payload_bytes);
        assert(rc < 0 || r.record.index == t->next);
        if (rc == 0 && r.record.type == LOG_EVENTS)
            rc = tail_block(c, &r, &view);
        if (rc < 0) {
            tail_broken(c, rc);
            return (int)n + 1;
        }
        bytes += r.record.payload_bytes;
        t->next++;
    }
    return (int)n;
}

/* Where is it? 0, or a negative errno after an answer was given. */
static int get_place(struct admin_answerer *a, struct admin_connection *c,
                     const sluice_v1_GetRequest *request, struct admin_place *ret,
                     struct ingestion_id *ret_id)
{
    int rc;

    if (request->ingestion_id[0] != '\0') {
        if (ingestion_id_parse(ret_id, request->ingestion_id) < 0) {
            connection_fail(c, EINVAL, false, "an ingestion id is <epoch>-<index>-<slot>");
            return -EINVAL;
        }
        *ret = (struct admin_place){ .index = ret_id->index, .slot = ret_id->slot };
        return 0;
    }
    if (request->source[0] == '\0' || request->id.size == 0) {
        connection_fail(c, EINVAL, false, "an ingestion id, or source and id, must be given");
        return -EINVAL;
    }
    rc = a->source.find(a->source.arg, request->source, request->id.bytes, request->id.size, ret);
    if (rc < 0)
        connection_fail(c, -rc, false, "%s",
                        rc == -ENOENT ? "there is no such event" : strerror(-rc));
    return rc;
}

void get_answer(struct admin_answerer *a, struct admin_connection *c,
                const sluice_v1_GetRequest *request)
{
    struct ingestion_id id = { 0 };
    struct admin_place place;
    struct admin_record r;
    struct block_view view;
    int rc;

    if (a->source.commit_index(a->source.arg) == 0) {
        connection_fail(c, EAGAIN, false,
                        "this node has no log open that is known as committed (see sluice status): "
                        "ask another");
        return;
    }
    if (get_place(a, c, request, &place, &id) < 0)
        return;
    rc = a->source.read(a->source.arg, place.index, &r);
    /* An id that names the same place in another epoch names another event. */
    if (rc == -EAGAIN || rc == -ENOENT ||
        (rc == 0 && (r.record.type != LOG_EVENTS ||
                     (id.index != 0 && id.epoch != r.record.term >> CLUSTER_EPOCH_SHIFT)))) {
        connection_fail(c, ENOENT, false, "there is no such event");
        return;
    }
    if (rc == 0)
        rc = block_view(&view, r.payload, r.record.payload_bytes);
    if (rc == 0 && place.slot >= view.header->events) {
        connection_fail(c, ENOENT, false, "there is no such event");
        return;
    }
    if (rc == 0)
        rc = put_event(c, &r.record, &view, place.slot, true);
    if (rc < 0)
        connection_fail(c, -rc, false, "index %" PRIu64 " cannot be read: %s", place.index,
                        rc == -EILSEQ || rc == -EBADMSG ? "what is on disk is damaged"
                                                        : strerror(-rc));
}
