/*
 * tap.c - samples of the datagrams that a worker drops, while somebody looks.
 *
 * Thread:  tap_sample() the worker; worker_sample() and worker_samples() one other.
 * Memory:  TAP_SAMPLES in struct worker. A full ring takes no more: samples are not evidence.
 * Limits:  SAMPLE_INTERVAL_NS, SAMPLE_BURST_NS.
 */
#include <string.h>

#include "ingest/worker_internal.h"

void tap_sample(struct worker *w, enum datagram_drop reason, const struct datagram *d)
{
    struct tap *t = &w->tap;
    uint32_t tail = atomic_load_explicit(&t->tail, memory_order_relaxed);
    struct drop_sample *s = &t->sample[tail % TAP_SAMPLES];
    struct slice whole = d->bytes;

    if (tail - atomic_load_explicit(&t->head, memory_order_acquire) == TAP_SAMPLES ||
        !rate_take(&t->tat_ns, w->now_ns, SAMPLE_INTERVAL_NS, SAMPLE_BURST_NS))
        return;
    /* What came by a ring is still behind its headers. */
    if (d->packet && whole.data != d->packet->mac) {
        whole.bytes += (uint32_t)(whole.data - d->packet->mac);
        whole.data = d->packet->mac;
    }
    *s = (struct drop_sample){
        .time_ns = w->now_ns,
        .ifindex = d->ifindex,
        .queue = w->wc.id,
        .frame_bytes = whole.bytes,
        .reason = (uint8_t)reason,
    };
    if (d->peer) {
        memcpy(&s->source, &d->peer->sin6_addr, sizeof s->source);
        s->source_port = d->peer->sin6_port;
    } else if (d->packet) {
        s->source = d->packet->source;
        s->source_port = d->packet->source_port;
    }
    s->bytes = (uint16_t)(whole.bytes < DROP_SAMPLE_BYTES ? whole.bytes : DROP_SAMPLE_BYTES);
    memcpy(s->data, whole.data, s->bytes);
    atomic_store_explicit(&t->tail, tail + 1, memory_order_release);
}

void worker_sample(struct worker *w, uint32_t drops)
{
    atomic_store_explicit(&w->tap.mask, drops, memory_order_relaxed);
}

void worker_samples(struct worker *w, void (*each)(void *arg, const struct drop_sample *s),
                    void *arg)
{
    struct tap *t = &w->tap;
    uint32_t head = atomic_load_explicit(&t->head, memory_order_relaxed);
    uint32_t tail = atomic_load_explicit(&t->tail, memory_order_acquire);

    for (; head != tail; head++)
        each(arg, &t->sample[head % TAP_SAMPLES]);
    atomic_store_explicit(&t->head, head, memory_order_release);
}
