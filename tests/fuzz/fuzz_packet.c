/*
 * fuzz_packet.c - a frame through packet_parse(), walk_datagram() and policy_datagram(), as the XDP
 * program takes it.
 *
 * Checks beside the sanitizers': the payload is within the frame, the walk within the datagram, and
 * the walk with its quick paths finds what steps alone find. The input is also walked as a bare
 * datagram, so that messages need no headers to be found.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "bpf/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* walk_step() alone, without a limit on steps: the quick ways take fewer. */
static void walk_by_steps(struct walk *w, const __u8 *data, __u32 bytes)
{
    if (walk_begin(w, data, data + bytes, bytes))
        return;
    for (__u32 i = 0; i <= 2 * bytes; i++) {
        __u32 at = w->at, event_end = w->event_end;
        int over = walk_step(w, data, data + bytes);

        assert(w->at <= w->end && w->event_end <= w->end);
        assert(w->at >= at);
        if (over)
            return;
        assert(w->at > at || w->event_end != event_end); /* it gets on */
    }
    assert(!"the walk ends");
}

static void walks_agree(const struct walk *quick, const struct walk *slow)
{
    assert(quick->events <= WALK_EVENTS && slow->events <= WALK_EVENTS);
    assert(quick->batch == slow->batch || slow->status != WALK_OK);
    /* One that has run out of steps has seen the beginning of what the other one has. */
    assert(quick->events <= slow->events);
    assert(memcmp(quick->type, slow->type, quick->events) == 0);
    if (quick->complete)
        assert(slow->complete && slow->status == WALK_OK && quick->events == slow->events);
    if (quick->status != WALK_OK)
        assert(slow->status == quick->status);
    if (slow->status != WALK_OK && quick->status == WALK_OK)
        assert(!quick->complete);
}

/* Types in turn: accepted, dropped, unknown, in all classes. */
static const struct policy *policy_of_turns(void)
{
    static struct policy p;
    static const __u8 actions[] = { POLICY_ACCEPT, POLICY_DROP, POLICY_UNKNOWN };

    for (unsigned t = 0; t < POLICY_TYPES; t++)
        p.type[t] = (struct policy_type){ .action = actions[t % 3], .class = t / 3 % XDP_CLASSES };
    return &p;
}

static void verdict_fits(const struct walk *w)
{
    const struct policy *p = policy_of_turns();
    struct policy_verdict v = policy_datagram(p, w);
    unsigned lowest = 0, taken = 0;

    assert(v.class < XDP_CLASSES && v.reason <= REASON_NONE);
    if (w->status != WALK_OK) {
        assert(v.reason == REASON_EMPTY || v.reason == REASON_NOT_PROTOBUF ||
               v.reason == (w->batch ? REASON_BATCH_MALFORMED : REASON_EVENT_MALFORMED));
        return;
    }
    for (unsigned i = 0; i < w->events; i++) {
        lowest = p->type[w->type[i]].class > lowest ? p->type[w->type[i]].class : lowest;
        taken += p->type[w->type[i]].action == POLICY_ACCEPT;
    }
    assert(v.class == (w->events ? lowest : XDP_CLASSES - 1));
    if (w->batch)
        assert((v.reason == REASON_NONE) == (taken > 0 || !w->complete || w->receipt));
    else
        assert((v.reason == REASON_NONE) == (taken > 0));
}

static void datagram(const __u8 *data, __u32 bytes)
{
    struct walk quick, slow;

    memset(&quick, 0, sizeof quick);
    memset(&slow, 0, sizeof slow);
    walk_datagram(&quick, data, bytes);
    walk_by_steps(&slow, data, bytes);
    walks_agree(&quick, &slow);
    assert(quick.status == WALK_OK || !quick.complete);
    verdict_fits(&quick);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const uint8_t *end = data + bytes;
    struct packet p;
    enum packet_kind kind;

    if (bytes > UINT16_MAX)
        return 0;
    datagram(data, (__u32)bytes);
    memset(&p, 0, sizeof p);
    kind = packet_parse(data, end, &p);
    if (kind == PACKET_OTHER)
        return 0;
    assert(p.mac == data && p.ip >= data + 14 && p.ip < end);
    assert(p.ipv4_header_bytes == 0 || (p.ipv4_header_bytes >= 20 && p.ipv4_header_bytes <= 60));
    (void)source_is_martian(&p.source, p.ipv4_header_bytes != 0);
    if (kind != PACKET_UDP && kind != PACKET_LENGTH)
        return 0;
    assert(p.udp >= p.ip + 20 && p.udp + 8 + p.payload_bytes <= end);
    if (kind == PACKET_UDP)
        datagram(p.udp + 8, p.payload_bytes);
    else
        assert(p.payload_bytes == 0);
    return 0;
}
