/*
 * fuzz_peer_forward.c - any bytes as the body of a FORWARD or a FORWARDED of node 2.
 *
 * byte 0: its lowest bit: which of them; the next: the payload's CRC is made right; rest: the body.
 * Checks beside the sanitizers': of what is believed every byte that it names can be read, and it
 * says what the leader, or the node that forwards, relies on.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "cluster/peer_forward.h"
#include "proto/wire.pb.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define FROM     2
#define BODY_MAX (64u << 10)

static uint8_t in[BODY_MAX] __attribute__((aligned(8)));

static void on_forward(size_t bytes, bool with_crc)
{
    struct peer_forward *h = (struct peer_forward *)in;
    struct peer_forward_view v;
    uint32_t crc = 0;

    if (with_crc && bytes >= sizeof *h && h->payload_bytes <= bytes - sizeof *h)
        h->payload_crc = crc32c(0, in + sizeof *h, h->payload_bytes);
    if (peer_forward_get(&v, FROM, in, bytes) < 0)
        return;
    assert(v.head == h && v.block.payload == in + sizeof *h && h->id > 0);
    /* A block of a reconciled orphan is of no node. */
    assert(v.block.header->node == FROM || v.block.header->node == 0);
    assert(v.block.header->events == h->events);
    assert(v.block.header->region == 1 || v.block.header->region == 2);
    assert(h->events > 0 && h->events <= BLOCK_EVENTS_MAX);
    for (uint32_t i = 0; i < h->events; i++) {
        assert(v.block.desc[i].type < BLOCK_TYPES);
        crc = crc32c(crc, v.block.payload + v.block.desc[i].offset, v.block.desc[i].bytes);
        crc = crc32c(crc, &v.content[i], sizeof v.content[i]);
    }
    assert((const uint8_t *)(v.content + h->events) == in + bytes);
    (void)crc;
}

static void on_forwarded(size_t bytes)
{
    bool seen[BLOCK_EVENTS_MAX] = { false };
    const struct peer_exception *x;
    const struct peer_forwarded *h;

    if (peer_forwarded_get(&h, &x, in, bytes) < 0)
        return;
    assert(h->id > 0 && h->outcome >= PEER_DECIDED && h->outcome < PEER_OUTCOME_END);
    assert((const uint8_t *)(x + h->exceptions) == in + bytes);
    if (h->outcome == PEER_DECIDED)
        assert(h->accepted + h->exceptions == h->events && (h->accepted > 0) == (h->index > 0));
    else
        assert(h->accepted == 0 && h->exceptions == 0 && h->index == 0);
    for (uint32_t i = 0; i < h->exceptions; i++) {
        assert(x[i].position < h->events && !seen[x[i].position] && x[i].first_index > 0);
        assert(x[i].reason == sluice_v1_Reason_DUPLICATE ||
               x[i].reason == sluice_v1_Reason_ID_CONFLICT);
        seen[x[i].position] = true;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < 1 || bytes - 1 > sizeof in)
        return 0;
    memcpy(in, data + 1, bytes - 1);
    if (data[0] & 1)
        on_forwarded(bytes - 1);
    else
        on_forward(bytes - 1, data[0] & 2);
    return 0;
}
