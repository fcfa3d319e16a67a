/*
 * admit.c - requests into blocks, and blocks to the cluster and back.
 *
 * All events of a request go into one block, so that one receipt can name them. A block is handed
 * over when the next request does not fit, when it is old enough, and, if a client waits for a
 * receipt or it has BLOCK_WORTH_EVENTS, at the end of a turn while fewer than BLOCKS_AHEAD of this
 * worker's are with the cluster: so batches grow by themselves when the log is slower than the
 * network.
 *
 * Thread:  the worker's.
 * Memory:  the blocks are mapped in blocks_open(); free ones form a LIFO, so warm ones go first.
 * Limits:  pipeline.blocks, block_bytes_max, block_age_us_max; BLOCK_*_MAX.
 * Order:   blocks are answered in the order in which they were handed over, whatever the cluster
 *          does, because a connection's receipts must be in the order of its requests.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "ingest/worker_internal.h"

#define BLOCKS_AHEAD       2u
#define BLOCK_WORTH_EVENTS 128u
#define ASSIGNED_ID_ROOM   18u /* tag, length, id */
#define BLOCK_PADDING_ROOM 32u

static uint32_t block_number(const struct worker *w, const struct block *b)
{
    assert(b >= w->blocks && b < w->blocks + w->blocks_n);
    return (uint32_t)(b - w->blocks);
}

static void free_push(struct worker *w, struct block *b)
{
    b->next = w->free_head;
    w->free_head = b;
    w->free_n++;
    assert(w->free_n <= w->blocks_n);
}

static size_t pow2_above(size_t n)
{
    size_t p = 1;

    while (p < n)
        p <<= 1;
    return p;
}

int blocks_open(struct worker *w, char error[256])
{
    size_t fifo = pow2_above(w->config->pipeline.blocks);

    w->blocks_n = w->config->pipeline.blocks;
    w->blocks_bytes = (size_t)w->blocks_n * sizeof(struct block);
    w->blocks =
        mmap(NULL, w->blocks_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (w->blocks == MAP_FAILED) {
        w->blocks = NULL;
        goto fail;
    }
    (void)madvise(w->blocks, w->blocks_bytes, MADV_HUGEPAGE);
    w->handed = calloc(fifo, sizeof *w->handed);
    w->answered = calloc(w->blocks_n, sizeof *w->answered);
    w->block_class = calloc(w->blocks_n, sizeof *w->block_class);
    if (!w->handed || !w->answered || !w->block_class)
        goto fail;
    w->handed_mask = fifo - 1;
    w->block_bytes_max = (uint32_t)w->config->pipeline.block_bytes_max - LOG_HEADER_BYTES;
    assert(w->block_bytes_max <= BLOCK_PAYLOAD_MAX);
    for (; w->blocks_ready < w->blocks_n; w->blocks_ready++) {
        if (block_init(&w->blocks[w->blocks_ready], w->wc.id) < 0)
            goto fail;
        free_push(w, &w->blocks[w->blocks_ready]);
    }
    return 0;

fail:
    snprintf(error, 256, "no memory for pipeline.blocks = %u blocks", w->config->pipeline.blocks);
    return -ENOMEM;
}

void blocks_close(struct worker *w)
{
    while (w->blocks_ready > 0)
        block_fini(&w->blocks[--w->blocks_ready]);
    if (w->blocks)
        munmap(w->blocks, w->blocks_bytes);
    free(w->handed);
    free(w->answered);
    free(w->block_class);
}

bool blocks_ready(const struct worker *w) { return w->stages.open || w->free_head; }

static struct block *open_take(struct worker *w)
{
    struct block *b = w->free_head;

    assert(!w->stages.open);
    if (!b)
        return NULL;
    w->free_head = b->next;
    w->free_n--;
    block_reset(b);
    b->opened_ns = w->now_ns;
    w->open_class = 0;
    w->stages.open = b;
    return b;
}

/* Gives the open block to the cluster. One without events has nothing for the log: it only waits
 * for its turn to be answered. */
static void hand_over(struct worker *w)
{
    struct block *b = w->stages.open;

    admit_flush(w);
    if (!b || (b->events == 0 && b->requests == 0))
        return;
    w->stages.open = NULL;
    assert(w->handed_tail - w->handed_head <= w->handed_mask);
    w->handed[w->handed_tail++ & w->handed_mask] = b;
    if (b->events == 0) {
        w->answered[block_number(w, b)] = true;
        return;
    }
    w->at_cluster++;
    w->block_class[block_number(w, b)] = w->open_class;
    w->class_at_cluster[w->open_class]++;
    /* Nothing is decided yet; block_seal() would leave out what the last tenant's verdicts say. */
    memset(b->verdict, VERDICT_COMMITTED, b->events);
    block_seal(b, (uint16_t)w->config->node.id, (uint8_t)w->config->node.region);
    if (!ring_push(&w->link->submit, b))
        assert(!"the ring holds all blocks");
    w->wc.wake_cluster(w->wc.wake_arg);
}

static bool fits(const struct worker *w, uint32_t events, uint32_t bytes, uint32_t requests,
                 uint32_t exceptions, uint32_t n, uint32_t event_bytes, bool answered)
{
    uint64_t payload = (uint64_t)bytes + event_bytes + (uint64_t)n * ASSIGNED_ID_ROOM +
                       (uint64_t)(events + n) * sizeof(struct block_desc) + BLOCK_PADDING_ROOM;

    if (payload > w->block_bytes_max || events + n > BLOCK_EVENTS_MAX)
        return false;
    if (!answered)
        return true;
    /* Every event may still become an exception, here or at the cluster. */
    return requests < BLOCK_REQUESTS_MAX && exceptions + events + n < BLOCK_EXCEPTIONS_MAX;
}

enum admit admit_request(struct worker *w, uint32_t n, uint32_t event_bytes, bool answered)
{
    struct block *b = w->stages.open;

    if (b && fits(w, b->events + w->run_n, b->bytes + w->run_bytes, b->requests, b->exceptions, n,
                  event_bytes, answered))
        return ADMIT_OK;
    if (!fits(w, 0, sizeof(struct block_header), 0, 0, n, event_bytes, answered))
        return ADMIT_TOO_LARGE;
    hand_over(w);
    /* Still open: all that it held was refused, so it is as good as empty. */
    if (w->stages.open || open_take(w))
        return ADMIT_OK;
    return ADMIT_WAIT;
}

static void run_add(struct worker *w, struct slice raw, uint16_t request, uint16_t position,
                    bool decided)
{
    struct event *ev = &w->run[w->run_n++];

    ev->raw = raw;
    ev->receive_time_ns = w->now_unix_ns;
    ev->request = request;
    ev->position = position;
    ev->decided = decided;
    ev->reason = sluice_v1_Reason_REASON_NONE;
}

void admit_flush(struct worker *w)
{
    if (w->run_n == 0)
        return;
    assert(w->stages.open);
    w->stages.now_unix_ns = w->now_unix_ns;
    (void)stages_run(&w->stages, w->run, w->run_n);
    w->run_n = 0;
    w->run_bytes = 0;
}

void admit_single(struct worker *w, struct slice event, bool decided)
{
    run_add(w, event, REQUEST_NONE, 0, decided);
    w->run_bytes += event.bytes + ASSIGNED_ID_ROOM;
    if (w->run_n == EVENTS_RUN_MAX)
        admit_flush(w);
}

static uint16_t request_add(struct worker *w, const struct block_request *request)
{
    struct block *b = w->stages.open;

    assert(b && b->requests < BLOCK_REQUESTS_MAX);
    b->request[b->requests] = *request;
    b->request[b->requests].first = (uint16_t)b->events;
    b->request[b->requests].events = 0;
    return (uint16_t)b->requests++;
}

/* The highest floor of the events' types, and what was asked for. */
static uint8_t durability_of(const struct worker *w, const struct block *b,
                             const struct block_request *q)
{
    const uint8_t *floor = w->stages.admission->settings.durability;

    for (uint32_t i = q->first; w->stages.admission->floors && i < b->events; i++) {
        if (floor[b->type[i]] == SETTINGS_REGION)
            return sluice_v1_Durability_REGION;
    }
    return q->durability;
}

void admit_events(struct worker *w, const struct slice *slices, uint32_t n,
                  const struct block_request *request)
{
    uint16_t index = REQUEST_NONE;
    struct block *b = w->stages.open;

    admit_flush(w);
    if (request)
        index = request_add(w, request);
    w->stages.region_wanted = request && request->durability == sluice_v1_Durability_REGION;
    for (uint32_t i = 0; i < n; i++) {
        run_add(w, slices[i], index, (uint16_t)i, false);
        if (w->run_n == EVENTS_RUN_MAX)
            admit_flush(w);
    }
    admit_flush(w);
    w->stages.region_wanted = false;
    if (!request)
        return;
    b->request[index].events = (uint16_t)(b->events - b->request[index].first);
    b->request[index].durability = durability_of(w, b, &b->request[index]);
}

void admit_refused(struct worker *w, const struct block_request *request, unsigned reason)
{
    struct block *b = w->stages.open;
    uint16_t index;

    admit_flush(w);
    index = request_add(w, request);
    assert(b->exceptions < BLOCK_EXCEPTIONS_MAX);
    b->exception[b->exceptions++] = (struct block_exception){
        .request = index,
        .reason = (uint16_t)reason,
    };
}

/* Somebody waits for what is in it, or there is enough of it: a write costs the same for one event
 * as for a hundred. */
static bool open_is_wanted(const struct worker *w)
{
    return w->stages.open->requests > 0 || w->stages.open->events >= BLOCK_WORTH_EVENTS;
}

/* The block may have been opened in this turn, after its now_ns. */
static bool open_is_old(const struct worker *w)
{
    return w->now_ns >=
           w->stages.open->opened_ns + w->config->pipeline.block_age_us_max * NS_PER_US;
}

static bool open_is_used(const struct worker *w)
{
    const struct block *b = w->stages.open;

    return b && (b->events > 0 || b->requests > 0);
}

void blocks_turn_end(struct worker *w)
{
    admit_flush(w);
    if (!open_is_used(w))
        return;
    if ((w->at_cluster < BLOCKS_AHEAD && open_is_wanted(w)) || w->draining || open_is_old(w))
        hand_over(w);
}

uint64_t blocks_deadline_ns(const struct worker *w)
{
    if (!open_is_used(w))
        return UINT64_MAX;
    return w->stages.open->opened_ns + w->config->pipeline.block_age_us_max * NS_PER_US;
}

bool blocks_answerable(const struct worker *w)
{
    return w->handed_head < w->handed_tail &&
           w->answered[block_number(w, w->handed[w->handed_head & w->handed_mask])];
}

uint32_t blocks_collect(struct worker *w)
{
    uint32_t n = 0;
    struct block *b;

    hold_turn(w);

    while ((b = ring_pop(&w->link->answer))) {
        assert(!w->answered[block_number(w, b)] && w->at_cluster > 0);
        w->answered[block_number(w, b)] = true;
        w->at_cluster--;
        assert(w->class_at_cluster[w->block_class[block_number(w, b)]] > 0);
        w->class_at_cluster[w->block_class[block_number(w, b)]]--;
    }
    while (blocks_answerable(w)) {
        b = w->handed[w->handed_head & w->handed_mask];
        w->answered[block_number(w, b)] = false;
        w->handed_head++;
        ack_tally(w, b);
        ack_requests(w, b);
        free_push(w, b);
        n++;
    }
    return n;
}
