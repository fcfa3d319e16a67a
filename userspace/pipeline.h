/*
 * pipeline.h - the whole node: builds the threads and rings of pipeline.c's map, starts and stops
 * them.
 */
#ifndef SLUICE_PIPELINE_H
#define SLUICE_PIPELINE_H

#include "base/config.h"

struct pipeline;

#define PIPELINE_ERROR_BYTES 1536u

/* Recovers the log, opens the sockets, starts the threads. On error everything is undone and a
 * sentence says what went wrong. Borrows config until pipeline_stop(). */
int pipeline_start(struct pipeline **ret, const struct config *config,
                   char error[PIPELINE_ERROR_BYTES]);

/* Stops taking, commits and answers what was taken, writes ledger and mark, ends the threads.
 * Blocks for as long as the disk needs, and for clients at most ingest.tcp.output_s_max. */
void pipeline_stop(struct pipeline *p);

#endif
