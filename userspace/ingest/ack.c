/*
 * ack.c - answered blocks: verdicts into the ledger, receipts to those who asked.
 *
 * A receipt says only what the block says: accepted events have consecutive slots from first_slot
 * on, every other event is an exception, in the order of positions. Over UDP a receipt is never
 * larger than the datagram that it answers: then the lists are left out (truncated), and when even
 * the counts do not fit nothing is sent and counted.
 *
 * A receipt whose events have to be durable in the other region, too, may have to wait: hold.c.
 *
 * Thread:  the worker's.
 * Memory:  encodes into the worker's scratch; TCP output has been reserved at admission.
 */
#include <string.h>

#include "ingest/worker_internal.h"

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

/* --- what a receipt says ------------------------------------------------------------------- */

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

static uint32_t end_of(const struct block_request *r) { return (uint32_t)r->first + r->events; }

/* The exceptions of request r, by position. */
static uint32_t exceptions_fill(struct ack *ack, const struct block *b, uint32_t r)
{
    const struct block_request *q = &b->request[r];
    uint32_t n = q->positions < BATCH_EVENTS_MAX ? q->positions : BATCH_EVENTS_MAX, count = 0;

    memset(ack->by_position, 0, n * sizeof *ack->by_position);
    for (uint16_t e = ack->first[r]; e != UINT16_MAX; e = ack->next[e]) {
        assert(b->exception[e].position < n);
        ack->by_position[b->exception[e].position] = b->exception[e];
    }
    /* What the cluster refused as a whole has no exceptions of its own, and no first place. */
    for (uint32_t i = q->first; i < end_of(q); i++) {
        if (b->verdict[i] == VERDICT_REFUSED)
            ack->by_position[b->position[i]] =
                (struct block_exception){ .reason = (uint16_t)b->refuse_reason };
    }
    for (uint32_t p = 0; p < n; p++) {
        const struct block_exception *e = &ack->by_position[p];

        if (e->reason == 0)
            continue;
        ack->exception[count++] = (struct receipt_exception){
            .first_index = e->first_index,
            .first_slot = e->first_slot,
            .position = p,
            .reason = e->reason,
        };
    }
    return count;
}

/* Descriptors are read where block_seal() wrote them: those of the accepted events alone. */
static struct block_desc desc_of_slot(const struct block *b, uint32_t slot)
{
    const uint8_t *payload = block_payload(b);
    struct block_header header;
    struct block_desc desc;

    memcpy(&header, payload, sizeof header);
    assert(slot < header.events && header.events == b->accepted);
    memcpy(&desc, payload + header.desc_offset + (size_t)slot * sizeof desc, sizeof desc);
    return desc;
}

static uint32_t assigned_fill(struct ack *ack, const struct block *b, const struct block_request *q,
                              uint32_t slot)
{
    uint32_t count = 0;

    for (uint32_t i = q->first; i < end_of(q); i++) {
        struct block_desc desc;

        if (b->verdict[i] != VERDICT_COMMITTED)
            continue;
        desc = desc_of_slot(b, slot++);
        if (!(desc.session_flags & DESC_ID_ASSIGNED))
            continue;
        ack->assigned[count++] = (struct receipt_assigned){
            .position = b->position[i],
            .id_bytes = ASSIGNED_ID_BYTES,
            .id = block_payload(b) + desc.offset + desc.bytes - ASSIGNED_ID_BYTES,
        };
    }
    return count;
}

/* Returns the accepted events, which are the slots that the request takes. */
static uint32_t receipt_fill(struct receipt *ret, struct ack *ack, const struct block *b,
                             uint32_t r, uint32_t slot)
{
    const struct block_request *q = &b->request[r];
    uint32_t verdicts[VERDICT_N] = { 0 };

    for (uint32_t i = q->first; i < end_of(q); i++)
        verdicts[b->verdict[i]]++;
    *ret = (struct receipt){
        .request = q->request,
        .accepted = verdicts[VERDICT_COMMITTED],
        .duplicates = verdicts[VERDICT_DUPLICATE],
        /* Refused here, before the cluster saw them, or there. */
        .refused =
            q->positions - q->events + verdicts[VERDICT_CONFLICT] + verdicts[VERDICT_REFUSED],
        .exceptions = exceptions_fill(ack, b, r),
        .exception = ack->exception,
        .assigned_id = ack->assigned,
    };
    if (ret->accepted == 0)
        return 0;
    ret->epoch = b->term >> CLUSTER_EPOCH_SHIFT;
    ret->term = b->term;
    ret->index = b->index;
    ret->first_slot = slot;
    ret->assigned = assigned_fill(ack, b, q, slot);
    return ret->accepted;
}

/* --- sending ------------------------------------------------------------------------------- */

/* From `local`, where the socket has more than one address; else it is ::. */
static bool send_from(int fd, const struct iovec *iov, const struct sockaddr_in6 *peer,
                      const struct in6_addr *local)
{
    bool v4 = IN6_IS_ADDR_V4MAPPED(&peer->sin6_addr);
    struct in6_pktinfo from6 = { .ipi6_addr = *local };
    struct sockaddr_in to4 = { .sin_family = AF_INET, .sin_port = peer->sin6_port };
    struct sockaddr_in6 to6 = *peer;
    struct in_pktinfo from4 = { 0 };
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof from6)] = { 0 };
    struct msghdr m = { .msg_iov = (struct iovec *)iov, .msg_iovlen = 1 };
    struct cmsghdr *c = (struct cmsghdr *)control;

    memcpy(&to4.sin_addr, peer->sin6_addr.s6_addr + 12, 4);
    memcpy(&from4.ipi_spec_dst, local->s6_addr + 12, 4);
    if (IN6_IS_ADDR_LINKLOCAL(local))
        from6.ipi6_ifindex = peer->sin6_scope_id;
    m.msg_name = v4 ? (void *)&to4 : (void *)&to6;
    m.msg_namelen = v4 ? sizeof to4 : sizeof to6;
    if (!IN6_IS_ADDR_UNSPECIFIED(local)) {
        c->cmsg_level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
        c->cmsg_type = v4 ? IP_PKTINFO : IPV6_PKTINFO;
        c->cmsg_len = CMSG_LEN(v4 ? sizeof from4 : sizeof from6);
        memcpy(CMSG_DATA(c), v4 ? (void *)&from4 : (void *)&from6,
               v4 ? sizeof from4 : sizeof from6);
        m.msg_control = control;
        m.msg_controllen = CMSG_SPACE(v4 ? sizeof from4 : sizeof from6);
    }
    return sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)iov->iov_len;
}

/* Returns its bytes, 0: not even the counts fit. */
static size_t encode(const struct block_request *q, struct receipt *receipt, uint8_t *to,
                     size_t cap)
{
    ssize_t bytes;

    if (q->transport == TRANSPORT_TCP) {
        bytes = frame_put_receipt(to, cap, receipt);
        assert(bytes > 0 && bytes <= q->bytes);
        return (size_t)bytes;
    }
    cap = q->bytes < cap ? q->bytes : cap;
    bytes = frame_put_bare_receipt(to, cap, receipt);
    if (bytes < 0) {
        receipt->truncated = true;
        receipt->exceptions = receipt->assigned = 0;
        bytes = frame_put_bare_receipt(to, cap, receipt);
    }
    return bytes > 0 ? (size_t)bytes : 0;
}

static void send_udp(struct worker *w, const struct block_request *q, const uint8_t *receipt,
                     size_t bytes)
{
    assert(q->connection < w->udp.n);
    if (bytes > 0 &&
        send_from(w->udp.at[q->connection].fd, &(struct iovec){ (void *)(uintptr_t)receipt, bytes },
                  &q->peer, &q->local))
        w->ledger.udp_receipts++;
    else
        w->ledger.udp_receipts_unsent++;
}

static void send_tcp(struct worker *w, const struct block_request *q, const uint8_t *receipt,
                     size_t bytes)
{
    struct connection *c = &w->tcp.connection[q->connection];

    assert(q->connection < w->tcp.connections_max);
    if (c->generation != q->generation || !connection_answered(c, q->bytes)) {
        w->ledger.receipts_undeliverable++;
        return;
    }
    connection_write(w, c, receipt, bytes);
    c->active_ns = w->now_ns;
    w->ledger.receipts++;
    stream_output_freed(w, c);
}

void ack_send(struct worker *w, const struct block_request *q, const uint8_t *receipt, size_t bytes)
{
    if (q->transport == TRANSPORT_TCP)
        send_tcp(w, q, receipt, bytes);
    else
        send_udp(w, q, receipt, bytes);
}

void ack_refuse(struct worker *w, const struct block_request *q, unsigned reason)
{
    const struct receipt_exception whole = { .reason = reason };
    struct receipt receipt = {
        .request = q->request, .refused = q->positions, .exceptions = 1, .exception = &whole
    };
    uint8_t refusal[RECEIPT_BYTES_BASE + RECEIPT_BYTES_EVENT]; /* in the scratch is another */

    ack_send(w, q, refusal, encode(q, &receipt, refusal, sizeof refusal));
}

/* The highest place in the log that it names. */
static uint64_t named_index(const struct receipt *r)
{
    uint64_t index = r->index;

    for (uint32_t i = 0; i < r->exceptions; i++) {
        if (r->exception[i].first_index > index)
            index = r->exception[i].first_index;
    }
    return index;
}

/* At once, or when the other region has it, too. */
static void send_or_hold(struct worker *w, const struct block_request *q, uint64_t epoch,
                         struct receipt *receipt)
{
    uint64_t index = named_index(receipt);
    size_t bytes;

    receipt->durability = index == 0 ? 0
                          : q->durability == sluice_v1_Durability_REGION
                              ? sluice_v1_Durability_REGION
                              : sluice_v1_Durability_QUORUM;
    bytes = encode(q, receipt, w->scratch, sizeof w->scratch);
#ifndef PLANT_REGION_NOT_HELD
    if (bytes > 0 && hold_takes(w, q, index, epoch)) {
        hold_add(w, q, index, epoch, w->scratch, bytes);
        return;
    }
#endif
    w->ledger.region_receipts += q->durability == sluice_v1_Durability_REGION && index > 0;
    ack_send(w, q, w->scratch, bytes);
}

void ack_requests(struct worker *w, const struct block *b)
{
    uint32_t event = 0, slot = 0;

    if (b->requests == 0)
        return;
    chain(&w->ack, b);
    for (uint32_t r = 0; r < b->requests; r++) {
        const struct block_request *q = &b->request[r];
        struct receipt receipt;

        assert(q->first >= event && end_of(q) <= b->events);
        for (; event < q->first; event++)
            slot += b->verdict[event] == VERDICT_COMMITTED;
        event = end_of(q);
        slot += receipt_fill(&receipt, &w->ack, b, r, slot);
        send_or_hold(w, q, b->term >> CLUSTER_EPOCH_SHIFT, &receipt);
    }
}
