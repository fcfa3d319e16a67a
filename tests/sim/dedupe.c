/*
 * dedupe.c - which events a node knows: exactly, and in memory.
 *
 * What is applied stays known, over power cuts too, as it is committed. What was admitted and is
 * not applied yet counts only while the node still leads the term in which it admitted it: it never
 * leads again in that term, and before it admits anything in another it has applied all it has.
 */
#include "tests/sim/sim.h"

#include <string.h>

#include "proto/wire.pb.h"

uint64_t event_in(const struct block_view *v, uint32_t slot)
{
    uint64_t number;

    memcpy(&number, v->payload + v->desc[slot].offset, sizeof number);
    return number % NUMBERS_MAX;
}

int dedupe_admit(struct sim_node *n, struct block *b, uint64_t index)
{
    uint16_t slot = 0;

    for (uint32_t i = 0; i < b->events; i++) {
        struct place *p = &n->seen[b->desc[i].key.lo % NUMBERS_MAX];

        if (!p->applied && p->term != n->c->state.term) {
            *p = (struct place){ index, n->c->state.term, slot++, false };
            continue;
        }
        b->verdict[i] = VERDICT_DUPLICATE;
        if (b->wait_index < p->index)
            b->wait_index = p->index;
        if (b->request_of[i] != REQUEST_NONE)
            b->exception[b->exceptions++] =
                (struct block_exception){ .first_index = p->index,
                                          .request = b->request_of[i],
                                          .position = b->position[i],
                                          .first_slot = p->slot,
                                          .reason = sluice_v1_Reason_DUPLICATE };
    }
    return slot;
}

void dedupe_apply(struct sim_node *n, const struct log_record *r, const struct block_view *v)
{
    for (uint32_t i = 0; i < v->header->events; i++)
        n->seen[event_in(v, i)] = (struct place){ r->index, r->term, (uint16_t)i, true };
}
