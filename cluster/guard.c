/*
 * guard.c - what the host must add so that the engine (libraft 0.22) is safe; one function a rule.
 *
 * A rule is here with its reason, and tests/unit/test_guard.c has a test that fails without it.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "cluster/internal.h"

/* A sole voter elects itself inside START without raising its term. After a crash it would lead the
 * same term twice, and what it wrote the first time and lost could be confused with what it writes
 * now. So the term is raised, with the vote for itself, and durable before START. Within one epoch
 * the counter has 20 bits; the term must never run into the next epoch. */
int guard_start_term(struct cluster *c, bool sole_voter)
{
    const uint64_t counter_max = (1u << CLUSTER_EPOCH_SHIFT) - 1;

    if (!sole_voter)
        return 0;
    if ((c->state.term & counter_max) == counter_max)
        return cluster_fail(c, -EOVERFLOW, "the terms of epoch %" PRIu64 " are used up",
                            c->state.term >> CLUSTER_EPOCH_SHIFT);
#ifndef PLANT_GUARD_TERM
    c->state.term++;
#endif
    c->state.voted_for = c->config.node;
    assert(c->state.term >> CLUSTER_EPOCH_SHIFT > 0);
    return state_write(c);
}

/* START formats "N entries (first^term..last^term)" into 64 bytes, with or without a tracer, and
 * the overflow aborts the process: that node could never start again. Returns 0 or -EOVERFLOW. */
int guard_start_digits(uint64_t snapshot_index, uint64_t first, uint64_t first_term, uint64_t last,
                       uint64_t last_term)
{
    const int bytes_max = 64;
    int n;

    assert(last + 1 >= first);
    n = snprintf(NULL, 0, "%" PRIu64 " entries (%" PRIu64 "^%" PRIu64 "..%" PRIu64 "^%" PRIu64 ")",
                 last - first + 1, first, first_term, last, last_term);
    if (n >= bytes_max)
        return -EOVERFLOW;
    n = snprintf(NULL, 0, "1 snapshot (%" PRIu64 "^%" PRIu64 ")", snapshot_index, last_term);
    return n >= bytes_max ? -EOVERFLOW : 0;
}
