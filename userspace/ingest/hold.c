/*
 * hold.c - receipts that wait until their events are durable in the other region, too.
 *
 * The events are committed: what waits is only the answer, encoded already, so no block is kept for
 * it. How far both regions are the cluster thread says (struct cluster_link). What is not confirmed
 * in time, region.wait_ms, is answered by region.unreachable: that it is durable in the active
 * region alone (degrade), or that it is to be sent again (wait, fail): then it will be a duplicate,
 * and its receipt waits as this one did. While the other region is known to be out of reach,
 * `degrade` and `fail` do not wait. One of an epoch that has passed, by a forced failover, is to be
 * sent again, whatever the policy: its events may be among those that the failover has lost.
 *
 *   | struct held | receipt | zeros to a multiple of 8 |  one after the other, oldest first, in a
 *                                                       ring; none of them goes around its end
 *
 * Thread:  the worker's.
 * Memory:  mapped in hold_open(), touched when it is first needed.
 * Limits:  pipeline.held_bytes_max. What finds no room makes the oldest late, unless that only
 *          waits for its turn: who wants both regions pays for it, not who does not.
 * Order:   that of the requests that want both regions.
 * Counts:  region_receipts, region_degraded, region_late.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "ingest/worker_internal.h"

#define DRAIN_NS (1 * NS_PER_S) /* a worker that ends waits no longer */

struct held {
    uint32_t bytes;         /* of all this */
    uint32_t receipt_bytes; /* 0: nothing, up to the ring's end */
    uint64_t index, epoch;  /* what it waits for, and in which epoch */
    uint64_t deadline_ns;
    struct block_request request;
};
_Static_assert(sizeof(struct held) % 8 == 0, "they are aligned");
_Static_assert(HOLD_BYTES_MIN >= 2 * (sizeof(struct held) + RECEIPT_BYTES_MAX + 8),
               "any receipt can be held");

int hold_open(struct worker *w, char error[256])
{
    struct hold *h = &w->hold;

    h->bytes = w->config->pipeline.held_bytes_max & ~(uint64_t)7;
    assert(h->bytes >= HOLD_BYTES_MIN);
    h->ring = mmap(NULL, h->bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (h->ring != MAP_FAILED)
        return 0;
    h->ring = NULL;
    snprintf(error, 256, "no memory for pipeline.held_bytes_max = %zu", h->bytes);
    return -ENOMEM;
}

void hold_close(struct worker *w)
{
    if (w->hold.ring)
        munmap(w->hold.ring, w->hold.bytes);
}

static struct held *oldest(const struct hold *h)
{
    return (struct held *)(h->ring + h->head % h->bytes);
}

static void pop(struct hold *h)
{
    h->head += oldest(h)->bytes;
    assert(h->head <= h->tail);
    if (h->head == h->tail)
        h->head = h->tail = 0; /* warm memory first */
}

/* The index first: whoever sees one of a new epoch sees that, too. */
static uint64_t region_index(const struct worker *w)
{
    return atomic_load_explicit(&w->link->region_index, memory_order_acquire);
}

static bool is_of_now(const struct worker *w, uint64_t epoch)
{
#ifdef PLANT_HELD_ACROSS_EPOCHS
    return true;
#endif
    return atomic_load_explicit(&w->link->region_epoch, memory_order_relaxed) == epoch;
}

static bool is_confirmed(const struct worker *w, uint64_t index, uint64_t epoch)
{
    return index <= region_index(w) && (index == 0 || is_of_now(w, epoch));
}

static bool region_is_reached(const struct worker *w)
{
    return atomic_load_explicit(&w->link->region_reached, memory_order_relaxed);
}

static enum settings_unreachable policy(const struct worker *w)
{
    return (enum settings_unreachable)w->stages.admission->settings.region_unreachable;
}

/* Is the active region to go on no more? */
static bool is_lost_too_long(const struct worker *w)
{
    uint64_t since = atomic_load_explicit(&w->link->region_lost_ns, memory_order_relaxed);
    uint32_t s = w->stages.admission->settings.region_stop_after_s;

    return s != 0 && since != 0 && w->now_ns >= since + s * NS_PER_S;
}

/* --- answering ---------------------------------------------------------------------------------
 */

/* Not by both regions. */
static void release_late(struct worker *w)
{
    struct held *e = oldest(&w->hold);
    uint8_t *receipt = (uint8_t *)(e + 1);

    if (policy(w) == SETTINGS_REGION_DEGRADE && is_of_now(w, e->epoch)) {
        frame_set_durability(receipt, e->receipt_bytes, e->request.transport == TRANSPORT_UDP,
                             sluice_v1_Durability_DEGRADED);
        w->ledger.region_degraded++;
        ack_send(w, &e->request, receipt, e->receipt_bytes);
    } else {
        w->ledger.region_late++;
        ack_refuse(w, &e->request, sluice_v1_Reason_REGION_UNREACHABLE);
    }
    pop(&w->hold);
}

static void release_confirmed(struct worker *w)
{
    struct held *e = oldest(&w->hold);

    w->ledger.region_receipts += e->index > 0;
    ack_send(w, &e->request, (const uint8_t *)(e + 1), e->receipt_bytes);
    pop(&w->hold);
}

/* The oldest waits no longer, whatever became of it. */
static void release(struct worker *w)
{
    const struct held *e = oldest(&w->hold);

    if (is_confirmed(w, e->index, e->epoch))
        release_confirmed(w);
    else
        release_late(w);
}

/* When the oldest is late. */
static uint64_t late_ns(const struct worker *w)
{
    const struct held *e = oldest(&w->hold);

    if (e->index > 0 && !is_of_now(w, e->epoch))
        return 0;
    if (policy(w) != SETTINGS_REGION_WAIT && !region_is_reached(w))
        return 0;
    return w->draining && w->hold.drain_ns < e->deadline_ns ? w->hold.drain_ns : e->deadline_ns;
}

static void skip_end(struct hold *h)
{
    if (h->head < h->tail && oldest(h)->receipt_bytes == 0)
        pop(h);
}

void hold_turn(struct worker *w)
{
    struct hold *h = &w->hold;

    w->stages.region_stops = is_lost_too_long(w);
    w->stages.region_fails = policy(w) == SETTINGS_REGION_FAIL && !region_is_reached(w);
    if (w->draining && h->drain_ns == 0)
        h->drain_ns = w->now_ns + DRAIN_NS;
    for (; h->head < h->tail; skip_end(h)) {
        if (oldest(h)->index > region_index(w) && w->now_ns < late_ns(w))
            break;
        release(w);
    }
    atomic_store_explicit(&w->link->holds, h->head < h->tail, memory_order_relaxed);
}

bool hold_due(const struct worker *w)
{
    const struct hold *h = &w->hold;

    return h->head < h->tail && (oldest(h)->index <= region_index(w) || late_ns(w) == 0);
}

uint64_t hold_deadline_ns(const struct worker *w)
{
    return hold_is_empty(w) ? UINT64_MAX : late_ns(w);
}

/* --- holding -----------------------------------------------------------------------------------
 */

/* So many bytes, one after the other. */
static struct held *hold_room(struct worker *w, size_t bytes)
{
    struct hold *h = &w->hold;
    size_t left = h->bytes - h->tail % h->bytes, all = bytes <= left ? bytes : left + bytes;
    struct held *e;

    while (h->tail + all - h->head > h->bytes && h->head < h->tail) {
        release(w);
        skip_end(h);
    }
    if (h->head == h->tail) /* pop() has begun anew */
        left = h->bytes;
    e = (struct held *)(h->ring + h->tail % h->bytes);
    if (bytes > left) {
        e->bytes = (uint32_t)left;
        e->receipt_bytes = 0;
        h->tail += left;
        e = (struct held *)h->ring;
    }
    h->tail += bytes;
    return e;
}

bool hold_takes(const struct worker *w, const struct block_request *q, uint64_t index,
                uint64_t epoch)
{
    return q->durability == sluice_v1_Durability_REGION &&
           (!hold_is_empty(w) || !is_confirmed(w, index, epoch));
}

void hold_add(struct worker *w, const struct block_request *q, uint64_t index, uint64_t epoch,
              const uint8_t *receipt, size_t bytes)
{
    size_t padded = (sizeof(struct held) + bytes + 7) & ~(size_t)7;
    uint64_t wait_ns = w->stages.admission->settings.region_wait_ms * NS_PER_MS;
    struct held *e = hold_room(w, padded);

    assert(bytes > 0 && padded <= w->hold.bytes / 2);
    *e = (struct held){ .bytes = (uint32_t)padded,
                        .receipt_bytes = (uint32_t)bytes,
                        .index = index,
                        .epoch = epoch,
                        .deadline_ns = w->now_ns + wait_ns,
                        .request = *q };
    memcpy(e + 1, receipt, bytes);
    atomic_store_explicit(&w->link->holds, true, memory_order_relaxed);
}
