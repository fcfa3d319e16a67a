/*
 * client.c - what is sent to the nodes, as a worker would hand it over, and what they must answer.
 *
 * An event is known by its number, which is its id. What was refused, or never answered, is sent
 * again, to any node, and so may be in flight twice; some events are sent again though they were
 * accepted, some of them with other bytes. What the committed log holds (history.c) decides what
 * an answer must say.
 */
#include "tests/sim/sim.h"

#include <assert.h>
#include <inttypes.h>
#include <pb_encode.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "proto/wire.pb.h"

#define TYPE 1

void client_event_write(uint8_t *to, struct sim_event e)
{
    memset(to, (int)(e.number & 0xff), EVENT_BYTES);
    memcpy(to, &e.number, sizeof e.number);
    to[sizeof e.number] = e.version;
}

struct sim_event client_event_read(const uint8_t *from)
{
    struct sim_event e = { .version = from[sizeof e.number] };

    memcpy(&e.number, from, sizeof e.number);
    if (e.number == 0 || e.number > sim.number)
        violation("the log has event %u, which nobody has sent", e.number);
    return e;
}

static struct sim_event draw_event(void)
{
    struct sim_event e = { 0 };

    if (sim.agains > 0 && chance(60)) {
        uint32_t at = (uint32_t)draw(sim.agains);

        e = sim.again[at];
        sim.again[at] = sim.again[--sim.agains];
        return e;
    }
    if (sim.number > 0 && chance(15)) {
        uint64_t back = chance(80) && sim.number > 300 ? 300 : sim.number;

        e.number = sim.number - (uint32_t)draw(back);
        e.version = chance(10);
        return e;
    }
    if (sim.number == NUMBERS_MAX)
        violation("more events than the simulator holds");
    e.number = ++sim.number;
    return e;
}

/* Of one request, of which the worker has refused an event or not. */
static void fill_block(const struct cluster *c, struct block *b, struct sent *sent)
{
    const uint8_t *key = c->genesis_hash_key;

    block_reset(b);
    b->requests = 1;
    b->request[0] = (struct block_request){ .events = (uint16_t)sent->events,
                                            .positions = (uint16_t)(sent->events + 1) };
    if (sent->refused)
        b->exception[b->exceptions++] =
            (struct block_exception){ .position = (uint16_t)sent->events,
                                      .reason = sluice_v1_Reason_SOURCE_MISSING };
    for (uint32_t i = 0; i < sent->events; i++) {
        uint8_t *to = block_payload(b) + b->bytes;
        uint32_t number = sent->event[i].number;

        client_event_write(to, sent->event[i]);
        b->desc[i] = (struct block_desc){
            .key = hash_event_key(key, "sim", 3, &number, sizeof number),
            .offset = b->bytes,
            .bytes = EVENT_BYTES,
            .type = TYPE,
        };
        b->content[i] = hash_content(key, to, EVENT_BYTES);
        b->type[i] = TYPE;
        b->position[i] = (uint16_t)i;
        b->request_of[i] = 0;
        b->by_type[TYPE]++;
        b->bytes += EVENT_BYTES;
        b->events++;
    }
    memset(b->verdict, VERDICT_COMMITTED, b->events);
    block_seal(b, c->config.node, c->config.region);
}

/* A setting, by whoever leads; it may be lost with its leader. */
static void send_setting(struct sim_node *n)
{
    sluice_v1_Setting s = sluice_v1_Setting_init_zero;
    uint8_t bytes[sluice_v1_Setting_size];
    pb_ostream_t out = pb_ostream_from_buffer(bytes, sizeof bytes);
    struct proposal *p;

    snprintf(s.key, sizeof s.key, "skew.past_ms");
    snprintf(s.value, sizeof s.value, "%u", 1000 + (unsigned)draw(1000));
    if (n->c == NULL || n->c->lead != LEAD_READY || !pb_encode(&out, sluice_v1_Setting_fields, &s))
        return;
    p = proposal_new(LOG_SETTING, bytes, out.bytes_written);
    if (propose_entry(n->c, p) < 0) {
        proposal_free(p); /* no room now */
        return;
    }
    n->turn_ns = sim.now_ns;
}

void client_send(void)
{
    struct sim_node *n = &sim.node[between(1, sim.nodes)], *leader = the_leader();

    sim.client_ns = sim.now_ns + between(NS_PER_MS, 20 * NS_PER_MS);
    if (leader != NULL && chance(sim.to_leader_percent))
        n = leader;
    if (chance(2))
        send_setting(n);
    /* The keys are hashed by a key of the log's. */
    for (unsigned i = 0; i < BLOCKS && n->c != NULL && n->c->have_genesis && !plan_runs(); i++) {
        struct sent *sent = &n->sent[i];

        if (sent->events != 0)
            continue;
        sent->events = (uint32_t)between(1, EVENTS_MAX);
        sent->refused = chance(10);
        sent->ns = sim.now_ns;
        for (uint32_t e = 0; e < sent->events; e++)
            sent->event[e] = draw_event();
        fill_block(n->c, n->block[i], sent);
        if (!ring_push(&n->link.submit, n->block[i]))
            assert(!"the ring holds all blocks");
        n->turn_ns = sim.now_ns;
        return;
    }
}

/* Most clients try again. */
static void send_again(const struct sent *sent)
{
    for (uint32_t i = 0; i < sent->events; i++) {
        if (sim.agains < AGAIN_MAX && chance(85))
            sim.again[sim.agains++] = sent->event[i];
    }
}

void client_lost(struct sim_node *n)
{
    for (unsigned i = 0; i < BLOCKS; i++) {
        send_again(&n->sent[i]);
        n->sent[i].events = 0;
    }
}

static void check_refused(struct sim_node *n, const struct block *b, const struct sent *sent)
{
    struct member m[CLUSTER_MEMBERS_MAX];

    for (uint32_t i = 0; i < b->events; i++) {
        if (b->verdict[i] != VERDICT_REFUSED)
            violation("node %u refuses a block, but not its event %u", number_of(n), i);
    }
    bool full = b->refuse_reason == sluice_v1_Reason_DISK_FULL && loss_may_be_full();

    if ((b->refuse_reason != sluice_v1_Reason_NOT_LEADER && !full) ||
        b->exceptions != sent->refused)
        violation("node %u refuses a block for reason %u with %u exceptions", number_of(n),
                  b->refuse_reason, b->exceptions);
    /* A leader that has left events out and loses its place cannot hand the block on. */
    if (sim.settled && !full && sent->ns > FAULTS_NS && n->led_ns < sent->ns &&
        n->epoch_ns < sent->ns &&
        members_find(m, (unsigned)newest_members(m), (uint16_t)number_of(n)) != NULL)
        violation("all is well again, but node %u refuses a block (%u)", number_of(n),
                  b->refuse_reason);
    sim.refused++;
    send_again(sent);
}

/* The place that the receipt says for event i, which is not new. */
static struct dedupe_place told_place(struct sim_node *n, const struct block *b, uint32_t i)
{
    uint16_t reason = b->verdict[i] == VERDICT_DUPLICATE ? sluice_v1_Reason_DUPLICATE
                                                         : sluice_v1_Reason_ID_CONFLICT;

    for (uint32_t x = 0; x < b->exceptions; x++) {
        const struct block_exception *e = &b->exception[x];

        if (e->position == i && e->reason == reason)
            return (struct dedupe_place){ e->first_index, e->first_slot };
    }
    violation("node %u says nothing of event %u of a block, which is not new", number_of(n), i);
}

static void check_answered(struct sim_node *n, const struct block *b, const struct sent *sent)
{
    struct history *h = history_of(n, b->term);
    uint16_t slot = 0;

    for (uint32_t i = 0; i < b->events; i++) {
        const struct sim_event *e = &sent->event[i];
        struct accepted *a = &h->event[e->number];
        struct dedupe_place told = { b->index, slot };

        if (b->verdict[i] == VERDICT_COMMITTED)
            slot++;
        else
            told = told_place(n, b, i);
        if (told.index == 0 || told.index != a->place.index || told.slot != a->place.slot)
            violation("node %u says %u of event %u at %" PRIu64 " slot %u; in the log it is at "
                      "%" PRIu64 " slot %u",
                      number_of(n), b->verdict[i], e->number, told.index, told.slot, a->place.index,
                      a->place.slot);
        if ((b->verdict[i] == VERDICT_CONFLICT) != (e->version != a->version))
            violation("node %u says %u of event %u of other bytes, or of the same", number_of(n),
                      b->verdict[i], e->number);
        a->receipted = a->receipted || b->verdict[i] != VERDICT_CONFLICT;
        sim.duplicates += b->verdict[i] == VERDICT_DUPLICATE;
        sim.conflicts += b->verdict[i] == VERDICT_CONFLICT;
    }
    if (b->exceptions != b->events - slot + sent->refused)
        violation("node %u: %u exceptions", number_of(n), b->exceptions);
    if (slot > 0 && h->entry[b->index].term != b->term)
        violation("node %u gives a receipt of term %" PRIx64, number_of(n), b->term);
    sim.receipts += slot > 0;
    n->receipts += sim.healing && slot > 0;
}

void client_answered(struct sim_node *n, unsigned at)
{
    const struct block *b = n->block[at];
    struct sent *sent = &n->sent[at];

    if (sent->events == 0)
        violation("node %u answers a block twice", number_of(n));
    assert(sent->events == b->events);
    if (b->verdict[0] == VERDICT_REFUSED)
        check_refused(n, b, sent);
    else
        check_answered(n, b, sent);
    sent->events = 0;
}
