/*
 * ack.c - answered blocks: verdicts into the ledger, receipts to those who asked.
 *
 * A receipt says only what the block says: accepted events have consecutive slots from first_slot
 * on, every other event is an exception, in the order of positions. Over UDP a receipt is never
 * larger than the datagram that it answers: then the lists are left out (truncated), and when even
 * the counts do not fit nothing is sent and counted.
 *
 * Thread:  the worker's.
 * Memory:  encodes into the worker's scratch; TCP output has been reserved at admission.
 */
#include <errno.h>
#include <pb_encode.h>
#include <string.h>

#include "ingest/worker_internal.h"

/* What one request gets to know. */
struct answer {
    const struct worker *w;
    const struct block *b;
    const struct block_request *request;
    uint32_t first_slot, accepted, duplicates;
};

void ack_tally(struct worker *w, const struct block *b)
{
    struct ledger *l = &w->ledger;

    for (uint32_t i = 0; i < b->events; i++) {
        unsigned type = b->type[i];

        switch ((enum verdict)b->verdict[i]) {
        case VERDICT_COMMITTED:
            l->committed[type]++;
            break;
        case VERDICT_DUPLICATE:
            l->duplicate[type]++;
            break;
        case VERDICT_CONFLICT:
            l->conflict[type]++;
            break;
        case VERDICT_REFUSED:
            assert(b->refuse_reason > 0 && b->refuse_reason < LEDGER_REASONS);
            l->refused[type]++;
            l->reason[b->refuse_reason]++;
            break;
        case VERDICT_N:
            assert(!"a verdict");
        }
    }
}

/* --- encoding ------------------------------------------------------------------------------ */

static bool encode_exceptions(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const struct answer *a = *arg;
    const struct ack *ack = &a->w->ack;

    for (uint32_t p = 0; p < a->request->positions && p < BATCH_EVENTS_MAX; p++) {
        const struct block_exception *e = &ack->exception[p];
        sluice_v1_Exception message = sluice_v1_Exception_init_zero;

        if (e->reason == 0)
            continue;
        message.position = p;
        message.reason = (sluice_v1_Reason)e->reason;
        message.has_first = e->reason == sluice_v1_Reason_DUPLICATE;
        message.first.index = e->first_index;
        message.first.slot = e->first_slot;
        if (!pb_encode_tag_for_field(stream, field) ||
            !pb_encode_submessage(stream, sluice_v1_Exception_fields, &message))
            return false;
    }
    return true;
}

/* Descriptors are read where block_seal() wrote them: those of the accepted events alone. */
static const struct block_desc *desc_of_slot(const struct block *b, uint32_t slot,
                                             struct block_desc *ret)
{
    const uint8_t *payload = block_payload(b);
    struct block_header header;

    memcpy(&header, payload, sizeof header);
    assert(slot < header.events && header.events == b->accepted);
    memcpy(ret, payload + header.desc_offset + (size_t)slot * sizeof *ret, sizeof *ret);
    return ret;
}

static bool encode_assigned(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const struct answer *a = *arg;
    const struct block *b = a->b;
    uint32_t slot = a->first_slot;

    for (uint32_t i = a->request->first; i < (uint32_t)a->request->first + a->request->events;
         i++) {
        sluice_v1_AssignedId message = sluice_v1_AssignedId_init_zero;
        struct block_desc desc;

        if (b->verdict[i] != VERDICT_COMMITTED)
            continue;
        desc_of_slot(b, slot++, &desc);
        if (!(desc.session_flags & DESC_ID_ASSIGNED))
            continue;
        message.position = b->position[i];
        message.id.size = ASSIGNED_ID_BYTES;
        memcpy(message.id.bytes, block_payload(b) + desc.offset + desc.bytes - ASSIGNED_ID_BYTES,
               ASSIGNED_ID_BYTES);
        if (!pb_encode_tag_for_field(stream, field) ||
            !pb_encode_submessage(stream, sluice_v1_AssignedId_fields, &message))
            return false;
    }
    return true;
}

/* Returns the bytes written to buf, 0 when they do not fit. */
static size_t encode(const struct answer *a, bool lists, uint8_t *buf, size_t cap)
{
    pb_ostream_t stream = pb_ostream_from_buffer(buf, cap);
    sluice_v1_Receipt receipt = sluice_v1_Receipt_init_zero;
    void *arg = (void *)(uintptr_t)a;

    receipt.request = a->request->request;
    receipt.accepted = a->accepted;
    receipt.duplicates = a->duplicates;
    receipt.refused = a->request->positions - a->accepted - a->duplicates;
    receipt.truncated = !lists;
    if (a->accepted > 0) {
        receipt.epoch = a->b->term >> CLUSTER_EPOCH_SHIFT;
        receipt.term = a->b->term;
        receipt.index = a->b->index;
        receipt.first_slot = a->first_slot;
        receipt.durability = sluice_v1_Durability_QUORUM;
    }
    if (lists) {
        receipt.exceptions.funcs.encode = encode_exceptions;
        receipt.exceptions.arg = arg;
        receipt.assigned.funcs.encode = encode_assigned;
        receipt.assigned.arg = arg;
    }
    return pb_encode(&stream, sluice_v1_Receipt_fields, &receipt) ? stream.bytes_written : 0;
}

/* --- sending ------------------------------------------------------------------------------- */

static void send_udp(struct worker *w, const struct answer *a)
{
    const struct block_request *r = a->request;
    size_t cap = r->bytes < sizeof w->scratch ? r->bytes : sizeof w->scratch;
    size_t bytes = encode(a, true, w->scratch, cap);
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = r->peer.sin6_port };
    const struct sockaddr *to = (const struct sockaddr *)&r->peer;
    socklen_t len = sizeof r->peer;

    if (bytes == 0)
        bytes = encode(a, false, w->scratch, cap);
    if (IN6_IS_ADDR_V4MAPPED(&r->peer.sin6_addr)) {
        memcpy(&v4.sin_addr, r->peer.sin6_addr.s6_addr + 12, 4);
        to = (const struct sockaddr *)&v4;
        len = sizeof v4;
    }
    assert(r->connection < w->udp.n);
    if (bytes > 0 && sendto(w->udp.at[r->connection].fd, w->scratch, bytes,
                            MSG_DONTWAIT | MSG_NOSIGNAL, to, len) == (ssize_t)bytes)
        w->ledger.udp_receipts++;
    else
        w->ledger.udp_receipts_unsent++;
}

static void send_tcp(struct worker *w, const struct answer *a)
{
    const struct block_request *r = a->request;
    struct connection *c = &w->tcp.connection[r->connection];
    uint8_t *at = w->scratch + FRAME_ROOM;
    size_t bytes;

    assert(r->connection < w->tcp.connections_max);
    if (c->generation != r->generation || !connection_answered(c, r->bytes)) {
        w->ledger.receipts_undeliverable++;
        return;
    }
    bytes = encode(a, true, at, sizeof w->scratch - FRAME_ROOM);
    assert(bytes > 0 && bytes + FRAME_ROOM <= r->bytes);
    at = stream_frame_wrap(at, SERVER_RECEIPT, &bytes);
    connection_write(w, c, at, bytes);
    c->active_ns = w->now_ns;
    w->ledger.receipts++;
    stream_output_freed(w, c);
}

/* --- per block ----------------------------------------------------------------------------- */

/* Chains every exception to its request, so that each is looked at once. */
static void chain(struct ack *ack, const struct block *b)
{
    for (uint32_t r = 0; r < b->requests; r++)
        ack->first[r] = UINT16_MAX;
    for (uint32_t e = b->exceptions; e-- > 0;) {
        uint16_t r = b->exception[e].request;

        assert(r < b->requests);
        ack->next[e] = ack->first[r];
        ack->first[r] = (uint16_t)e;
    }
}

static void spread(struct ack *ack, const struct answer *a, uint32_t r)
{
    const struct block *b = a->b;
    uint32_t n =
        a->request->positions < BATCH_EVENTS_MAX ? a->request->positions : BATCH_EVENTS_MAX;

    memset(ack->exception, 0, n * sizeof *ack->exception);
    for (uint16_t e = ack->first[r]; e != UINT16_MAX; e = ack->next[e]) {
        assert(b->exception[e].position < n);
        ack->exception[b->exception[e].position] = b->exception[e];
    }
    /* What the cluster refused as a whole has no exceptions of its own. */
    for (uint32_t i = a->request->first; i < (uint32_t)a->request->first + a->request->events;
         i++) {
        if (b->verdict[i] == VERDICT_REFUSED)
            ack->exception[b->position[i]].reason = (uint16_t)b->refuse_reason;
    }
}

void ack_requests(struct worker *w, const struct block *b)
{
    uint32_t event = 0, slot = 0;

    if (b->requests == 0)
        return;
    chain(&w->ack, b);
    for (uint32_t r = 0; r < b->requests; r++) {
        struct answer a = { .w = w, .b = b, .request = &b->request[r] };
        uint32_t end = (uint32_t)a.request->first + a.request->events;

        assert(a.request->first >= event && end <= b->events);
        for (; event < a.request->first; event++)
            slot += b->verdict[event] == VERDICT_COMMITTED;
        a.first_slot = slot;
        for (; event < end; event++) {
            a.accepted += b->verdict[event] == VERDICT_COMMITTED;
            a.duplicates += b->verdict[event] == VERDICT_DUPLICATE;
        }
        slot += a.accepted;
        spread(&w->ack, &a, r);
        if (a.request->transport == TRANSPORT_TCP)
            send_tcp(w, &a);
        else
            send_udp(w, &a);
    }
}
