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

static int find_on_disk(struct dedupe *d, const struct run *r, struct key128 key, struct entry *ret)
{
    int e = run_find(r, key, d->page, ret);

    atomic_fetch_add_explicit(&d->disk_lookups, 1, memory_order_relaxed);
    return e < 0 ? dedupe_condemn(d, r, e) : e;
}

/* A group of keys that is looked up together, so that the memory it needs comes together. */
struct group {
    size_t n;
    struct key128 key[GROUP_KEYS];
    struct filter_bits bits[GROUP_KEYS];
    bool summarised[GROUP_KEYS]; /* may be in the frozen table and the summarised runs */
};

static uint64_t *summary_block(const struct dedupe *d, struct key128 key)
{
    return d->summary + filter_block(key, d->summary_blocks) * FILTER_WORDS;
}

static void group_init(struct group *g, const struct key128 *key, size_t stride, size_t n)
{
    assert(n <= GROUP_KEYS);
    g->n = n;
    for (size_t i = 0; i < n; i++)
        g->key[i] = *key_at(key, stride, i);
}

/* Asks for the blocks of one filter; of a summarised run for those keys alone that matter. */
static void group_prefetch(const struct group *g, const struct run_ref *ref)
{
    uint64_t blocks = ref->held->run.info.filter_blocks;

    for (size_t i = 0; ref->filter != NULL && i < g->n; i++)
        if (!ref->summarised || g->summarised[i])
            __builtin_prefetch(ref->filter + filter_block(g->key[i], blocks) * FILTER_WORDS);
}

static int group_find_in_run(struct dedupe *d, const struct group *g, const struct run_ref *ref,
                             struct entry *found)
{
    const struct run *run = &ref->held->run;
    const uint64_t *filter = ref->filter;
    uint64_t blocks = run->info.filter_blocks;
    int r;

    for (size_t i = 0; i < g->n; i++) {
        if (ref->summarised && !g->summarised[i])
            continue;
        if (filter != NULL &&
            !filter_may_have(filter + filter_block(g->key[i], blocks) * FILTER_WORDS, &g->bits[i]))
            continue;
        if (found[i].place != 0)
            continue;
        r = find_on_disk(d, run, g->key[i], &found[i]);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Looks into the summary, and for what it may know into the frozen table. */
static void group_find_frozen(const struct dedupe *d, struct group *g, struct entry *found)
{
    for (size_t i = 0; i < g->n; i++)
        __builtin_prefetch(summary_block(d, g->key[i]));
    for (size_t i = 0; i < g->n; i++)
        g->bits[i] = filter_bits(g->key[i]);
    for (size_t i = 0; i < g->n; i++) {
        g->summarised[i] = filter_may_have(summary_block(d, g->key[i]), &g->bits[i]);
        if (g->summarised[i] && d->frozen != NULL)
            table_prefetch(d->frozen, g->key[i]);
    }
    for (size_t i = 0; i < g->n; i++) {
        const struct entry *e = NULL;

        if (g->summarised[i] && d->frozen != NULL)
            e = table_find(d->frozen, g->key[i]);
        found[i].place = 0;
        if (e != NULL)
            found[i] = *e;
    }
}

/* Looks keys up in the frozen table and the runs, newest first; found[i].place is 0 where there is
 * none. What comes next is asked of the memory before what has come is looked at: one step ahead,
 * for all keys of the group. Further ahead is no better: filters of one size put the lines of one
 * key into the same set of the cache. */
static int group_find(struct dedupe *d, struct group *g, struct entry *found)
{
    const struct run_set *s = d->set;
    int r = 0;

    group_find_frozen(d, g, found);
    if (s->count > 0)
        group_prefetch(g, &s->at[s->count - 1]);
    for (uint32_t j = s->count; j-- > 0 && r == 0;) {
        if (j > 0)
            group_prefetch(g, &s->at[j - 1]);
        r = group_find_in_run(d, g, &s->at[j], found);
    }
    return r;
}

/* Enters e unless its key is in the active table; returns what is there then. */
static const struct entry *enter(struct dedupe *d, const struct entry *e)
{
    const struct entry *first = table_put(d->active, e);

    if (first == NULL)
        filter_set(summary_block(d, e->key), e->key);
    return first;
}

static int find_one(struct dedupe *d, struct key128 key, struct entry *found)
{
    struct group g;

    group_init(&g, &key, sizeof key, 1);
    return group_find(d, &g, found);
}

static uint64_t frozen_needs(const struct dedupe *d)
{
    return d->handed_to > d->frozen->last ? d->handed_to : d->frozen->last;
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
    atomic_store_explicit(&d->handed_needs, frozen_needs(d), memory_order_release);
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
    struct group g;
    int r = atomic_load_explicit(&d->error, memory_order_relaxed);

    if (r < 0)
        return r;
    assert(index > d->entered && index <= ENTRY_INDEX_MAX);
    assert(n <= DEDUPE_EVENTS_MAX && table_fits(d->active, n));
    take_up(d);
    /* What can fail comes first and changes nothing. */
    for (size_t i = 0; i < n; i += GROUP_KEYS) {
        group_init(&g, key_at(key, stride, i), stride, n - i < GROUP_KEYS ? n - i : GROUP_KEYS);
        r = group_find(d, &g, d->found + i);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < n; i++) {
        struct entry e = { *key_at(key, stride, i), entry_place(index, slot), content[i] };
        const struct entry *first = d->found[i].place != 0 ? &d->found[i] : NULL;

        if (i + PREFETCH_AHEAD < n)
            table_prefetch(d->active, *key_at(key, stride, i + PREFETCH_AHEAD));
        if (first == NULL)
            first = enter(d, &e);
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

/* The frozen table without what was withdrawn from `index` on. Nothing of it was written yet, as
 * `index` is not committed, or it holds nothing from there on. */
static void frozen_cut(struct dedupe *d, uint64_t index)
{
    struct table *t = d->frozen;

    if (frozen_needs(d) < index)
        return;
    table_cut(t, index);
    if (d->handed_to >= index)
        d->handed_to = index - 1;
    atomic_store_explicit(&d->keys_frozen, t->count, memory_order_relaxed);
    if (t->count > 0) {
        atomic_store_explicit(&d->handed_needs, frozen_needs(d), memory_order_release);
        return;
    }
    /* There is no run without a key: the table is the spare one again. */
    atomic_store_explicit(&d->handed_needs, UINT64_MAX, memory_order_release);
    table_clear(t);
    d->frozen = NULL;
    d->freezes--;
    atomic_store_explicit(&d->spare, SPARE_FREE, memory_order_release);
}

void dedupe_withdraw(struct dedupe *d, const struct key128 *key, size_t stride,
                     const uint8_t *verdict, size_t n, uint64_t index)
{
    uint16_t slot = 0;

    assert(index > atomic_load_explicit(&d->committed, memory_order_relaxed));
    assert(index <= d->entered && n <= DEDUPE_EVENTS_MAX);
#ifdef PLANT_DEDUPE_KEPT_AFTER_CUT
    n = 0;
#endif
    for (size_t i = 0; i < n; i++) {
        struct entry e = { *key_at(key, stride, i), entry_place(index, slot), 0 };
        bool removed;

        if (verdict[i] != DEDUPE_NEW)
            continue;
        removed = table_remove(d->active, &e) || (d->frozen && table_remove(d->frozen, &e));
        assert(removed);
        slot++;
    }
    atomic_store_explicit(&d->keys_active, d->active->count, memory_order_relaxed);
}

void dedupe_cut(struct dedupe *d, uint64_t from)
{
    uint64_t committed = atomic_load_explicit(&d->committed, memory_order_relaxed);

#ifdef PLANT_DEDUPE_CUT_FORGOTTEN
    return;
#endif
    if (from <= committed)
        from = committed + 1;
    if (d->entered >= from)
        d->entered = from - 1;
    table_cut(d->active, from);
    if (d->frozen != NULL)
        frozen_cut(d, from);
}

/* Looks for the keys of an entry of the log; d->found[i].place is 0 where there is none. Returns
 * how many are not there, or a negative errno. */
static int64_t enter_find(struct dedupe *d, const struct key128 *key, size_t stride, size_t n,
                          uint64_t index)
{
    bool in_runs = index <= d->set->last; /* else no run has any of it */
    int64_t missing = 0;
    struct group g;
    int r = 0;

    for (size_t i = 0; i < n && r == 0; i += GROUP_KEYS) {
        group_init(&g, key_at(key, stride, i), stride, n - i < GROUP_KEYS ? n - i : GROUP_KEYS);
        if (in_runs)
            r = group_find(d, &g, d->found + i);
        else
            group_find_frozen(d, &g, d->found + i);
    }
    for (size_t i = 0; i < n && r == 0; i++) {
        const struct entry *e;

        if (i + PREFETCH_AHEAD < n)
            table_prefetch(d->active, *key_at(key, stride, i + PREFETCH_AHEAD));
        if (d->found[i].place != 0)
            continue;
        e = table_find(d->active, *key_at(key, stride, i));
        if (e != NULL)
            d->found[i] = *e;
        else
            missing++;
    }
    return r < 0 ? r : missing;
}

int dedupe_enter(struct dedupe *d, const struct key128 *key, size_t stride, const uint64_t *content,
                 size_t n, uint64_t index)
{
    int64_t missing;
    int r = atomic_load_explicit(&d->error, memory_order_relaxed);

    if (r < 0)
        return r;
    assert(index > 0 && index <= ENTRY_INDEX_MAX && n <= DEDUPE_EVENTS_MAX);
    take_up(d);
    if (index <= set_covered(d->set))
        return 0;
    missing = enter_find(d, key, stride, n, index);
    /* What is there already needs no room: a table may wait for just this entry to be committed. */
    if (missing > 0)
        missing = dedupe_ready(d, (size_t)missing);
    if (missing < 0)
        return (int)missing;
    for (size_t i = 0; i < n; i++) {
        struct entry e = { *key_at(key, stride, i), entry_place(index, (uint16_t)i), content[i] };

        if (d->found[i].place == 0)
            (void)enter(d, &e);
    }
    atomic_store_explicit(&d->keys_active, d->active->count, memory_order_relaxed);
    return 0;
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
        r = find_one(d, key, &found);
        if (r < 0 || found.place != 0)
            return r;
    }
    r = replay_ready(d);
    if (r < 0)
        return r;
    if (d->frozen == NULL || table_find(d->frozen, key) == NULL)
        (void)enter(d, &e);
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
        r = find_one(d, key, &found);
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
                        d->summary_blocks * FILTER_BLOCK_BYTES +
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
    table_unmap(d->summary, d->summary_blocks * FILTER_BLOCK_BYTES);
    if (d->dirfd >= 0)
        close(d->dirfd);
    free(d);
}
