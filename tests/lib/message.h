/*
 * message.h - protobuf messages for tests, from a seed: valid events and batches, such as no
 * serializer would write, and broken ones.
 *
 * The same state gives the same message.
 */
#ifndef SLUICE_TESTS_MESSAGE_H
#define SLUICE_TESTS_MESSAGE_H

#include <stdbool.h>

#include "edit.h"

struct message_maker {
    uint64_t state;
};

uint64_t message_below(struct message_maker *m, uint64_t limit);

/* One event; `odd` fields: unknown ones of every wire type, in any order, the type late, twice or
 * not at all, over-long varints, and now and then what no reader takes. */
void message_event(struct message_maker *m, struct edit *e, bool odd);
/* Any message, mutated or not, of at most bytes_max. */
void message_make(struct message_maker *m, struct edit *e, size_t bytes_max);
/* A cut, a flip, an insert, a delete, a repeat or a splice. */
void message_mutate(struct message_maker *m, struct edit *e);
/* An event as a feed sends it, or a batch of n of them with the types in turn (0 ends them). */
size_t message_sample_event(uint8_t *buf, size_t buf_bytes, unsigned type);
size_t message_sample_batch(uint8_t *buf, size_t buf_bytes, const unsigned *types, size_t n);

#endif
