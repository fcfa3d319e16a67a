/*
 * apply.h - the state that stands on the log: which events it holds, and the settings.
 *
 * The functions that store_app() names run on the cluster thread (cluster.h, struct cluster_app):
 * admit decides about a block before it enters the log, apply takes what is committed. A thread of
 * its own (sluice-store) writes and merges the dedupe index's runs, so that no fsync of theirs
 * holds up a receipt.
 *
 * Thread:  store_settings(), store_history() and store_lookup() on the cluster thread
 * (cluster_call()). Memory:  as dedupe.h, and the last STORE_HISTORY_MAX changes of settings.
 */
#ifndef SLUICE_STORE_APPLY_H
#define SLUICE_STORE_APPLY_H

#include "base/settings.h"
#include "cluster/cluster.h"
#include "proto/entry.pb.h"
#include "store/dedupe.h"

#define STORE_HISTORY_MAX 32u /* = max_count of Checkpoint.history */

struct store;

struct store_config {
    const char *dir; /* of the dedupe index */
    uint64_t dedupe_memory_bytes_max;
    /* 0: as many as the memory allows. Less, in tests, makes more and smaller runs. */
    uint64_t dedupe_table_keys_max, dedupe_summary_bytes_max, dedupe_filter_bytes_max;
    /* On the cluster thread, after each change and once at start; borrows. */
    void (*on_settings)(void *arg, const struct settings *settings);
    /* The store thread met an error that ends the node. */
    void (*failed)(void *arg, const char *sentence);
    void *arg;
};

/* Returns 0 or -ENOMEM. Starts nothing: the index is opened when the cluster says which log it is.
 */
int store_init(struct store **ret, const struct store_config *config);

/* Fills in admit, apply and the others but for failed(). */
void store_app(struct store *s, struct cluster_app *ret);

/* After cluster_start(): starts the store thread, which works once the cluster's start is over (a
 * node may wait for its cluster). Returns 0 or a negative errno. */
int store_start(struct store *s);

/* One step of what that thread does, for who has none. As dedupe_do_work(). */
int store_do_work(struct store *s);

/* After cluster_stop(). Safe on NULL. */
void store_fini(struct store *s);

const struct settings *store_settings(const struct store *s);
/* The last STORE_HISTORY_MAX changes in the order of the log; those before them are found in the
 * log, by Setting.previous of the first. */
const sluice_v1_Setting *store_history(const struct store *s, size_t *ret_n);
/* Returns 1 and the place, 0 when no such event was accepted, or a negative errno. */
int store_lookup(struct store *s, const void *source, size_t source_bytes, const void *id,
                 size_t id_bytes, struct dedupe_place *ret);
/* Any thread. All zero before the cluster's start is over. */
void store_stats(struct store *s, struct dedupe_stats *ret);

#endif
