/*
 * entry_type.h - the engine's type of an entry of the log.
 *
 * The engine tells apart only what it must treat differently; for all else the log's own type
 * counts, which is what is stored and sent.
 */
#ifndef SLUICE_CLUSTER_ENTRY_TYPE_H
#define SLUICE_CLUSTER_ENTRY_TYPE_H

#include <raft.h>
#include <stdint.h>

#include "cluster/log.h"

static inline enum raft_entry_type entry_type(uint32_t log_type)
{
    switch (log_type) {
    case LOG_BARRIER:
        return RAFT_BARRIER;
    case LOG_CHANGE:
        return RAFT_CHANGE;
    default:
        return RAFT_COMMAND;
    }
}

#endif
