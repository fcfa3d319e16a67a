/*
 * ledger_file.h - the account of earlier runs, kept in <data>/ledger.
 *
 *   | magic 4 | version 4 | closed 4 | CRC32C of what follows 4 | since 8 | struct ledger |
 *
 * Written under a temporary name, synced and renamed. It is saved from time to time and, closed, at
 * a clean stop. After a crash it says what was in flight at the last save: those events are carried
 * on as `unaccounted`. What was counted after the last save is lost with the process, in every term
 * alike, so the account still balances; the log itself says what is committed.
 *
 * Thread: one at a time.
 */
#ifndef SLUICE_BASE_LEDGER_FILE_H
#define SLUICE_BASE_LEDGER_FILE_H

#include <limits.h>

#include "base/ledger.h"

struct ledger_file {
    char path[PATH_MAX], tmp[PATH_MAX];
};

/* Reads <dir>/ledger into ret and ret_since_ns (left alone when there is none yet). ret_lost:
 * events that became unaccounted because the run before did not close its account. Returns 0,
 * -EILSEQ for a damaged file (ret is then zero), or the disk's error. */
int ledger_file_open(struct ledger_file *f, const char *dir, struct ledger *ret,
                     uint64_t *ret_since_ns, uint64_t *ret_lost);

int ledger_file_save(struct ledger_file *f, const struct ledger *l, uint64_t since_ns, bool closed);

#endif
