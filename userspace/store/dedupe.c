/*
 * dedupe.c - the admitting thread's half of the dedupe index. Contract: dedupe.h; what it shares
 * with the other half: dedupe_internal.h.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "store/dedupe_internal.h"
#include "store/file.h"

int dedupe_fail(struct dedupe *d, int error)
{
    int none = 0;

    assert(error < 0);
    return atomic_compare_exchange_strong(&d->error, &none, error) ? error : none;
}

int dedupe_condemn(struct dedupe *d, const struct run *r, int error)
{
    char name[RUN_NAME_BYTES];

    run_name(name, r->info.seq, false);
    if (file_remove(d->dirfd, name) == 0)
        (void)file_sync_dir(d->dirfd);
    return dedupe_fail(d, error);
}

/* Takes up what the other thread has published. */
static void take_up(struct dedupe *d)
{
    const struct run_set *s = atomic_load_explicit(&d->published, memory_order_acquire);

    if (s == d->set)
        return;
    d->set = s;
    if (s->flushes == d->freezes)
        d->frozen = NULL;
    atomic_store_explicit(&d->acknowledged, s->generation, memory_order_release);
}

static const struct key128 *key_at(const struct key128 *key, size_t stride, size_t i)
{
    return (const void *)((const char *)key + i * stride);
}

static int find_on_disk(struct dedupe *d, const struct run *r, struct key128 key,
                        struct entry *ret)
{
    int e = run_find(r, key, d->page, ret);

    atomic_fetch_add_explicit(&d->disk_lookups, 1, memory_order_relaxed);
    return e < 0 ? dedupe_condemn(d, r, e) : e;
}

/* Looks n <= GROUP_KEYS keys up in the frozen table and the runs, asking for all the memory that
 * will be read before any of it is. found[i].place stays 0 where there is none. */
static int find_group(struct dedupe *d, const struct key128 *key, size_t stride, size_t n,
                      struct entry *found)
{
    const struct run_set *s = d->set;
    const struct entry *e;
    int r;

    for (size_t i = 0; i < n; i++) {
        found[i].place = 0;
        table_prefetch(d->active, *key_at(key, stride, i));
        if (d->frozen != NULL)
            table_prefetch(d->frozen, *key_at(key, stride, i));
    }
    for (uint32_t j = 0; j < s->count; j++) {
        uint64_t blocks = s->at[j].held->run.info.filter_blocks;

        for (size_t i = 0; s->at[j].filter != NULL && i < n; i++)
            __builtin_prefetch(s->at[j].filter +
                               filter_block(*key_at(key, stride, i), blocks) * FILTER_WORDS);
    }
    for (size_t i = 0; d->frozen != NULL && i < n; i++) {
        e = table_find(d->frozen, *key_at(key, stride, i));
        if (e != NULL)
            found[i] = *e;
    }
    for (uint32_t j = s->count; j-- > 0;) {
        const struct run *run = &s->at[j].held->run;
        const uint64_t *filter = s->at[j].filter;

        for (size_t i = 0; i < n; i++) {
            struct key128 k = *key_at(key, stride, i);

            if (found[i].place != 0 ||
                (filter != NULL &&
                 !filter_may_have(
                     filter + filter_block(k, run->info.filter_blocks) * FILTER_WORDS, k)))
                continue;
            r = find_on_disk(d, run, k, &found[i]);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

static void freeze(struct dedupe *d)
{
    struct table *full = d->active;

    assert(d->frozen == NULL && full->count > 0);
    d->active = full == &d->table[0] ? &d->table[1] : &d->table[0];
    assert(d->active->count == 0);
    d->frozen = full;
    d->freezes++;
    d->handed = full;
    d->handed_to = d->entered;
    atomic_store_explicit(&d->keys_frozen, full->count, memory_order_relaxed);
    atomic_store_explicit(&d->keys_active, 0, memory_order_relaxed);
    atomic_store_explicit(&d->spare, SPARE_FROZEN, memory_order_release);
}

int dedupe_ready(struct dedupe *d, size_t n)
{
    int error = atomic_load_explicit(&d->error, memory_order_relaxed);

    assert(n <= DEDUPE_EVENTS_MAX);
    if (error < 0)
        return error;
    take_up(d);
    if (table_fits(d->active, n))
        return 0;
    if (atomic_load_explicit(&d->spare, memory_order_acquire) == SPARE_FREE) {
        freeze(d);
        return 0;
    }
    return atomic_load_explicit(&d->no_space, memory_order_relaxed) ? -ENOSPC : -EAGAIN;
}

static uint8_t verdict_of(const struct entry *first, uint64_t content, struct dedupe_place *ret)
{
    *ret = (struct dedupe_place){ entry_index(first), entry_slot(first) };
    return first->content == content ? DEDUPE_DUPLICATE : DEDUPE_CONFLICT;
}

int dedupe_admit(struct dedupe *d, const struct key128 *key, size_t stride, const uint64_t *content,
                 size_t n, uint64_t index, uint8_t *ret_verdict, struct dedupe_place *ret_first)
{
    uint16_t slot = 0;
    int r = atomic_load_explicit(&d->error, memory_order_relaxed);

    if (r < 0)
        return r;
    assert(index > d->entered && index <= ENTRY_INDEX_MAX);
    assert(n <= DEDUPE_EVENTS_MAX && table_fits(d->active, n));
    take_up(d);
    /* What can fail comes first and changes nothing. */
    for (size_t i = 0; i < n; i += GROUP_KEYS) {
        r = find_group(d, key_at(key, stride, i), stride, n - i < GROUP_KEYS ? n - i : GROUP_KEYS,
                       d->found + i);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < n; i++) {
        struct entry e = { *key_at(key, stride, i), entry_place(index, slot), content[i] };
        const struct entry *first = d->found[i].place != 0 ? &d->found[i] : NULL;

        if (first == NULL)
            first = table_put(d->active, &e);
        if (first != NULL) {
            ret_verdict[i] = verdict_of(first, content[i], &ret_first[i]);
            continue;
        }
        ret_verdict[i] = DEDUPE_NEW;
        ret_first[i] = (struct dedupe_place){ index, slot++ };
    }
    if (slot > 0)
        d->entered = index;
    atomic_store_explicit(&d->keys_active, d->active->count, memory_order_relaxed);
    return slot;
}

static void commit_to(struct dedupe *d, uint64_t index)
{
    if (index > atomic_load_explicit(&d->committed, memory_order_relaxed))
        atomic_store_explicit(&d->committed, index, memory_order_release);
}

void dedupe_commit(struct dedupe *d, uint64_t index)
{
    if (index > d->entered)
        d->entered = index;
    commit_to(d, index);
}

/* Room for one more key, made by working. */
static int replay_ready(struct dedupe *d)
{
    unsigned idle = 0;
    int r;

    while ((r = dedupe_ready(d, 1)) == -EAGAIN || r == -ENOSPC) {
        r = dedupe_do_work(d);
        if (r < 0)
            return r;
        idle = r == 0 ? idle + 1 : 0;
        assert(idle < 16); /* there is no other thread that it could wait for */
    }
    return r;
}

int dedupe_replay(struct dedupe *d, struct key128 key, uint64_t content, struct dedupe_place place)
{
    struct entry e = { key, entry_place(place.index, place.slot), content }, found;
    int r = atomic_load_explicit(&d->error, memory_order_relaxed);

    if (r < 0)
        return r;
    assert(place.index > 0 && place.index <= ENTRY_INDEX_MAX);
    take_up(d);
    if (place.index - 1 > d->entered)
        d->entered = place.index - 1; /* of this index, more may follow */
    commit_to(d, place.index);
    if (place.index <= d->set->last) {
        r = find_group(d, &key, sizeof key, 1, &found);
        if (r < 0 || found.place != 0)
            return r;
    }
    r = replay_ready(d);
    if (r < 0)
        return r;
    if (d->frozen == NULL || table_find(d->frozen, key) == NULL)
        (void)table_put(d->active, &e);
    atomic_store_explicit(&d->keys_active, d->active->count, memory_order_relaxed);
    return 0;
}

int dedupe_lookup(struct dedupe *d, struct key128 key, struct dedupe_place *ret)
{
    struct entry found;
    const struct entry *e = &found;
    int r = atomic_load_explicit(&d->error, memory_order_relaxed);

    if (r < 0)
        return r;
    take_up(d);
    e = table_find(d->active, key);
    if (e == NULL) {
        r = find_group(d, &key, sizeof key, 1, &found);
        if (r < 0 || found.place == 0)
            return r;
        e = &found;
    }
    *ret = (struct dedupe_place){ entry_index(e), entry_slot(e) };
    return 1;
}

void dedupe_stats(struct dedupe *d, struct dedupe_stats *ret)
{
    uint64_t memory = atomic_load_explicit(&d->keys_active, memory_order_relaxed) +
                      atomic_load_explicit(&d->keys_frozen, memory_order_relaxed);

    *ret = (struct dedupe_stats){
        .keys = memory + atomic_load_explicit(&d->keys_runs, memory_order_relaxed),
        .keys_in_memory = memory,
        .runs = atomic_load_explicit(&d->runs, memory_order_relaxed),
        .disk_bytes = atomic_load_explicit(&d->disk_bytes, memory_order_relaxed),
        .memory_bytes = d->bytes + d->table[0].bytes + d->table[1].bytes +
                        atomic_load_explicit(&d->filter_bytes, memory_order_relaxed),
        .covered_index = atomic_load_explicit(&d->covered, memory_order_relaxed),
        .disk_lookups = atomic_load_explicit(&d->disk_lookups, memory_order_relaxed),
        .runs_unfiltered = atomic_load_explicit(&d->runs_unfiltered, memory_order_relaxed),
        .runs_damaged = d->runs_damaged,
    };
}

void dedupe_close(struct dedupe *d)
{
    if (d == NULL)
        return;
    dedupe_work_fini(d);
    table_fini(&d->table[0]);
    table_fini(&d->table[1]);
    if (d->dirfd >= 0)
        close(d->dirfd);
    free(d);
}
