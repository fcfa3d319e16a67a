/*
 * fuzz_datagram.c - a datagram through the walk, the four stages, and into a sealed block.
 *
 * Checks beside the sanitizers': the ledger balances, every refused event left its exception, what
 * is in the block is what was sent, the block can be read back, and an event that was stored is
 * accepted again under the same identity.
 */
#include <assert.h>
#include <string.h>

#include "tests/lib/line.h"
#include "tests/lib/sample.h"

#define BATCH_EVENTS_MAX 512u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Every event in turn, as the worker does: runs of at most EVENTS_RUN_MAX. */
static size_t run_all(struct line *l, const struct slice *event, size_t n)
{
    size_t added = 0;

    for (size_t at = 0, run; at < n; at += run) {
        run = n - at < EVENTS_RUN_MAX ? n - at : EVENTS_RUN_MAX;
        for (size_t i = 0; i < run; i++) {
            line_receive(l, i, event[at + i].data, event[at + i].bytes, SAMPLE_TIME_NS);
            l->ev[i].request = 0;
            l->ev[i].position = (uint16_t)(at + i);
        }
        added += stages_run(&l->stages, l->ev, run);
    }
    return added;
}

/* The block's last event comes once more. */
static void run_again(struct line *l, const struct block_view *view)
{
    static uint8_t copy[UINT16_MAX];
    const struct block_desc *d = &view->desc[view->header->events - 1];
    struct key128 key = d->key;
    struct slice event = { copy, d->bytes };
    size_t added;

    memcpy(copy, view->payload + d->offset, d->bytes);
    line_reset(l);
    added = run_all(l, &event, 1);
    /* With the assigned id it may be too long now; else it is the same event to us. */
    assert(added == 1 || l->ev[0].reason == sluice_v1_Reason_DECODE_BOUNDS);
    assert(added == 0 || (l->ev[0].key.lo == key.lo && l->ev[0].key.hi == key.hi));
    assert(!l->ev[0].id_assigned);
}

static void block_check(struct line *l, const struct slice *event)
{
    struct block *b = &l->block;
    struct block_view view;
    int r;

    block_seal(b, 1, 1);
    r = block_view(&view, block_payload(b), b->write.record.payload_bytes);
    assert(r == 0 && view.header->events == b->events);
    for (uint32_t i = 0; i < view.header->events; i++) {
        const struct slice *raw = &event[b->position[i]];
        const struct block_desc *d = &view.desc[i];
        bool assigned = (d->session_flags & DESC_ID_ASSIGNED) != 0;

        assert(d->bytes == raw->bytes + (assigned ? 18 : 0));
        assert(memcmp(view.payload + d->offset, raw->data, raw->bytes) == 0);
    }
    run_again(l, &view);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct slice event[BATCH_EVENTS_MAX];
    static struct line *l;
    struct batch_walk walk;
    size_t n = 1, added;

    if (l == NULL)
        l = line_new();
    line_reset(l);
    if (bytes == 0 || bytes > UINT16_MAX)
        return 0;
    event[0] = (struct slice){ data, (uint32_t)bytes };
    if (data[0] == 0x0a) {
        if (batch_walk(&walk, event, BATCH_EVENTS_MAX, data, bytes) != 0)
            return 0;
        assert(walk.events <= BATCH_EVENTS_MAX && walk.event_bytes <= bytes);
        n = walk.events;
    }
    added = run_all(l, event, n);
    assert(added == l->block.events);
    assert(l->block.exceptions == n - added);
    assert(line_balances(l));
    if (added > 0)
        block_check(l, event);
    return 0;
}
