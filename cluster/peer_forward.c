/*
 * peer_forward.c - see peer_forward.h. Any thread, no memory; every length of a sender's is checked
 * before it is used.
 */
#include "cluster/peer_forward.h"

#include <errno.h>
#include <string.h>

#include "proto/wire.pb.h"

void peer_forward_put(struct peer_forward *head, const struct block *b, uint64_t process,
                      uint64_t id, struct iovec iov[PEER_FORWARD_IOVS])
{
    const struct log_record *r = &b->write.record;

    assert(b->events > 0 && b->accepted == b->events && r->payload_bytes <= BLOCK_PAYLOAD_MAX);
    *head = (struct peer_forward){ .process = process,
                                   .id = id,
                                   .events = b->events,
                                   .payload_bytes = r->payload_bytes,
                                   .payload_crc = b->write.payload_crc };
    memcpy(head->payload_sha256, r->payload_sha256, sizeof head->payload_sha256);
    iov[0] = (struct iovec){ head, sizeof *head };
    iov[1] = (struct iovec){ block_payload(b), r->payload_bytes };
    iov[2] = (struct iovec){ (void *)(uintptr_t)b->content, b->events * sizeof b->content[0] };
}

int peer_forward_get(struct peer_forward_view *ret, uint16_t from, const void *body, size_t bytes)
{
    const struct peer_forward *h = body;
    const uint8_t *payload = (const uint8_t *)(h + 1);
    struct block_view v;

    assert(((uintptr_t)body & 7) == 0);
    if (bytes < sizeof *h)
        return -EBADMSG;
    if (h->zero != 0 || h->id == 0 || h->events == 0 || h->events > BLOCK_EVENTS_MAX ||
        h->payload_bytes % 8 != 0 || h->payload_bytes > BLOCK_PAYLOAD_MAX)
        return -EBADMSG;
    if (bytes != sizeof *h + h->payload_bytes + h->events * sizeof(uint64_t))
        return -EBADMSG;
    if (block_view(&v, payload, h->payload_bytes) < 0 || v.header->events != h->events)
        return -EBADMSG;
    if ((v.header->node != from && v.header->node != 0) || v.header->region < 1 ||
        v.header->region > 2)
        return -EBADMSG;
    if (crc32c(0, payload, h->payload_bytes) != h->payload_crc)
        return -EBADMSG;
    *ret = (struct peer_forward_view){ .head = h,
                                       .block = v,
                                       .content = (const uint64_t *)(payload + h->payload_bytes) };
    return 0;
}

static bool exception_is_good(const struct peer_exception *x, uint32_t after, uint32_t events)
{
    return x->position >= after && x->position < events && x->zero == 0 && x->first_index > 0 &&
           x->first_slot < BLOCK_EVENTS_MAX &&
           (x->reason == sluice_v1_Reason_DUPLICATE || x->reason == sluice_v1_Reason_ID_CONFLICT);
}

int peer_forwarded_get(const struct peer_forwarded **ret,
                       const struct peer_exception **ret_exception, const void *body, size_t bytes)
{
    const struct peer_forwarded *h = body;
    const struct peer_exception *x = (const struct peer_exception *)(h + 1);
    uint32_t after = 0;

    assert(((uintptr_t)body & 7) == 0);
    if (bytes < sizeof *h)
        return -EBADMSG;
    if (h->id == 0 || h->outcome == 0 || h->outcome >= PEER_OUTCOME_END || h->events == 0 ||
        h->events > BLOCK_EVENTS_MAX || h->exceptions > h->events)
        return -EBADMSG;
    if (bytes != sizeof *h + h->exceptions * sizeof *x)
        return -EBADMSG;
    if (h->outcome == PEER_DECIDED ? h->accepted != h->events - h->exceptions ||
                                         (h->accepted > 0) != (h->index > 0) || h->term == 0
                                   : (h->accepted | h->exceptions | h->index | h->term) != 0)
        return -EBADMSG;
    for (uint32_t i = 0; i < h->exceptions; i++) {
        if (!exception_is_good(&x[i], after, h->events))
            return -EBADMSG;
        after = x[i].position + 1u;
    }
    *ret = h;
    *ret_exception = x;
    return 0;
}
