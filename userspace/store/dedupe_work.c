/*
 * dedupe_work.c - the working thread's half of the dedupe index: writes frozen tables, merges runs,
 * keeps the filters of the smaller runs in memory. Contract: dedupe.h; what it shares with the
 * other half, and how sets are handed over: dedupe_internal.h.
 *
 * A run has a level, the logarithm to base 4 of its size in tables. Four neighbours of one level,
 * with what lies between them, are merged; small merges go before large ones, so a large one does
 * not hold up the small. Near DEDUPE_RUNS_MAX the cheapest neighbours are merged whatever they are.
 *
 * Order on disk, for a flush as for a merge: the new run is durable under its name; then MANIFEST
 * names it instead of the old ones; then the old ones are removed. What a crash leaves over is not
 * in MANIFEST and is removed when the index is opened.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "store/dedupe_internal.h"
#include "store/file.h"

#define STEP_ENTRIES     65536u /* of one call: 2 MiB */
#define STEP_SLOTS       (4u * STEP_ENTRIES)
#define MERGE_INPUTS_MIN 4u
#define RUNS_MANY        (DEDUPE_RUNS_MAX - 4u)

struct held_run *dedupe_hold(struct dedupe *d)
{
    for (uint32_t i = 0; i < RUNS_HELD_MAX; i++) {
        if (!d->held[i].used) {
            d->held[i].used = true;
            d->held[i].busy = false;
            return &d->held[i];
        }
    }
    assert(!"more runs than RUNS_HELD_MAX");
    return NULL;
}

static void let_go(struct held_run *h)
{
    run_close(&h->run);
    h->used = false;
}

static bool filter_fits(const struct dedupe *d, const struct run *r)
{
    uint64_t taken = atomic_load_explicit(&d->filter_bytes, memory_order_relaxed);

    return taken + table_map_bytes(run_filter_bytes(&r->info)) <= d->filter_bytes_max;
}

int dedupe_load_filter(struct dedupe *d, const struct run *r, uint64_t **ret)
{
    uint64_t bytes = run_filter_bytes(&r->info), *filter;
    int e;

    *ret = NULL;
    if (!filter_fits(d, r))
        return 0;
    filter = table_map(bytes);
    if (filter == NULL)
        return 0;
    atomic_fetch_add_explicit(&d->filter_bytes, table_map_bytes(bytes), memory_order_relaxed);
    e = run_read_filter(r, filter);
    if (e < 0)
        dedupe_drop_filter(d, r, filter);
    else
        *ret = filter;
    return e;
}

void dedupe_drop_filter(struct dedupe *d, const struct run *r, uint64_t *filter)
{
    uint64_t bytes = run_filter_bytes(&r->info);

    if (filter == NULL)
        return;
    table_unmap(filter, bytes);
    atomic_fetch_sub_explicit(&d->filter_bytes, table_map_bytes(bytes), memory_order_relaxed);
}

void dedupe_describe(struct dedupe *d, struct run_set *s)
{
    uint64_t keys = 0, bytes = 0, unfiltered = 0;

    s->last = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        const struct run_info *r = &s->at[i].held->run.info;

        keys += r->count;
        bytes += run_file_bytes(r);
        unfiltered += s->at[i].filter == NULL;
        s->last = r->last > s->last ? r->last : s->last;
    }
    atomic_store_explicit(&d->keys_runs, keys, memory_order_relaxed);
    atomic_store_explicit(&d->disk_bytes, bytes, memory_order_relaxed);
    atomic_store_explicit(&d->runs_unfiltered, unfiltered, memory_order_relaxed);
    atomic_store_explicit(&d->runs, s->count, memory_order_relaxed);
    atomic_store_explicit(&d->covered, set_covered(s), memory_order_relaxed);
}

void dedupe_manifest(const struct dedupe *d, const struct run_set *s, struct manifest *ret)
{
    *ret = (struct manifest){ .log_id = d->log_id, .seq_next = d->seq_next, .count = s->count };
    for (uint32_t i = 0; i < s->count; i++) {
        const struct run_info *r = &s->at[i].held->run.info;

        ret->run[i] = (struct manifest_run){ r->seq, r->from, r->to, r->header_crc, 0 };
    }
}

static const struct run_set *set_now(struct dedupe *d)
{
    return atomic_load_explicit(&d->published, memory_order_relaxed);
}

/* A copy of the set to be changed; only when the one before is acknowledged. */
static struct run_set *set_copy(struct dedupe *d)
{
    const struct run_set *now = set_now(d);
    struct run_set *next = now == &d->sets[0] ? &d->sets[1] : &d->sets[0];

    assert(d->old == NULL);
    *next = *now;
    next->generation++;
    return next;
}

static void publish(struct dedupe *d, struct run_set *next)
{
    d->old = atomic_load_explicit(&d->published, memory_order_relaxed);
    dedupe_describe(d, next);
    atomic_store_explicit(&d->published, next, memory_order_release);
}

/* Gives up what the old set alone had, once the other thread has left it. */
static int reclaim(struct dedupe *d)
{
    const struct run_set *now = set_now(d);

    if (d->old == NULL ||
        atomic_load_explicit(&d->acknowledged, memory_order_acquire) != now->generation)
        return 0;
    for (uint32_t i = 0; i < d->old->count; i++) {
        struct run_ref *o = &d->old->at[i];
        bool run_stays = false, filter_stays = false;

        for (uint32_t j = 0; j < now->count; j++) {
            run_stays = run_stays || now->at[j].held == o->held;
            filter_stays = filter_stays || now->at[j].filter == o->filter;
        }
        if (!filter_stays)
            dedupe_drop_filter(d, &o->held->run, o->filter);
        if (!run_stays)
            let_go(o->held);
    }
    d->old = NULL;
    if (d->clear_frozen) {
        table_clear(d->handed);
        d->clear_frozen = false;
        atomic_store_explicit(&d->spare, SPARE_FREE, memory_order_release);
    }
    return 1;
}

static int job_start(struct dedupe *d, struct job *j, uint64_t count_max, uint64_t from,
                     uint64_t to)
{
    struct run_info info = { .log_id = d->log_id, .seq = d->seq_next, .from = from, .to = to };
    int e;

    assert(!j->active);
    j->out = dedupe_hold(d);
    e = run_writer_start(&j->writer, &j->out->run, d->dirfd, count_max, &info);
    if (e < 0) {
        let_go(j->out);
        return e;
    }
    d->seq_next++;
    j->active = true;
    j->written = false;
    return 1;
}

static void job_abort(struct job *j)
{
    run_writer_abort(&j->writer);
    let_go(j->out);
    j->active = false;
}

/* Takes back a run that is complete but could not be made part of the set. */
static void job_discard(struct dedupe *d, struct job *j, uint64_t *filter)
{
    char name[RUN_NAME_BYTES];

    run_name(name, j->out->run.info.seq, false);
    (void)file_remove(d->dirfd, name);
    dedupe_drop_filter(d, &j->out->run, filter);
    let_go(j->out);
    j->active = false;
}

/* Makes j's run part of the set in place of the n runs from `at` on, on disk and in memory. */
static int job_install(struct dedupe *d, struct job *j, uint32_t at, uint32_t n)
{
    struct run_set *next = set_copy(d);
    struct manifest m;
    uint64_t *filter = NULL;
    bool summarised = true; /* a frozen table is */
    char name[RUN_NAME_BYTES];
    int e;

    assert(at + n <= next->count && next->count - n < DEDUPE_RUNS_MAX);
    e = run_writer_finish(&j->writer);
    if (e < 0) {
        job_abort(j);
        return e;
    }
    e = dedupe_load_filter(d, &j->out->run, &filter);
    for (uint32_t i = at; i < at + n; i++)
        summarised = summarised && next->at[i].summarised;
    memmove(&next->at[at + 1], &next->at[at + n], (next->count - at - n) * sizeof next->at[0]);
    next->at[at] = (struct run_ref){ j->out, filter, summarised };
    next->count = next->count - n + 1;
    dedupe_manifest(d, next, &m);
    if (e == 0)
        e = manifest_write(d->dirfd, &m);
    if (e < 0) {
        job_discard(d, j, filter);
        return e;
    }
    j->active = false;
    if (j == &d->flush.job) {
        next->flushes++;
        d->clear_frozen = true;
    }
    for (uint32_t i = at; i < at + n && e == 0; i++) {
        run_name(name, set_now(d)->at[i].held->run.info.seq, false);
        e = file_remove(d->dirfd, name);
    }
    publish(d, next);
    return e < 0 ? e : 1;
}

static int flush_start(struct dedupe *d)
{
    const struct run_set *s = set_now(d);
    uint64_t committed = atomic_load_explicit(&d->committed, memory_order_acquire);

    if (committed < atomic_load_explicit(&d->handed_needs, memory_order_acquire) ||
        s->count == DEDUPE_RUNS_MAX)
        return 0;
    d->flush.at = 0;
    return job_start(d, &d->flush.job, d->handed->count, set_covered(s), d->handed_to);
}

static int flush_step(struct dedupe *d)
{
    struct flush_job *f = &d->flush;
    const struct table *t = d->handed;
    uint64_t end = f->at + STEP_SLOTS < t->top ? f->at + STEP_SLOTS : t->top;
    int e = 0;

    for (; f->at < end && e == 0; f->at++)
        if (t->entries[f->at].place != 0)
            e = run_writer_add(&f->job.writer, &t->entries[f->at]);
    f->job.written = f->at == t->top;
    if (e < 0)
        job_abort(&f->job);
    return e < 0 ? e : 1;
}

static int flush_do_work(struct dedupe *d)
{
    int r;

    if (d->clear_frozen || atomic_load_explicit(&d->spare, memory_order_acquire) != SPARE_FROZEN)
        return 0;
    if (!d->flush.job.active)
        r = flush_start(d);
    else if (!d->flush.job.written)
        r = flush_step(d);
    else
        r = d->old != NULL ? 0 : job_install(d, &d->flush.job, set_now(d)->count, 0);
    if (r != 0) /* what a merge meets does not stand in the way of admission */
        atomic_store_explicit(&d->no_space, r == -ENOSPC, memory_order_relaxed);
    if (r > 0 && d->clear_frozen)
        atomic_store_explicit(&d->keys_frozen, 0, memory_order_relaxed);
    return r;
}

static uint32_t level_of(const struct dedupe *d, const struct run_ref *r)
{
    uint32_t level = 0;

    for (uint64_t n = r->held->run.info.count; n > 2 * d->table[0].count_max; n /= 4)
        level++;
    return level;
}

/* Neighbours from `at` on that are free and not above level; how many up to the last one of it. */
static uint32_t merge_window(const struct dedupe *d, const struct run_set *s, uint32_t at,
                             uint32_t level)
{
    uint32_t same = 0, end = at;

    for (uint32_t i = at; i < s->count && i < at + MERGE_INPUTS_MAX; i++) {
        uint32_t l = level_of(d, &s->at[i]);

        if (s->at[i].held->busy || l > level)
            break;
        if (l == level) {
            same++;
            end = i + 1;
        }
    }
    return same >= MERGE_INPUTS_MIN ? end - at : 0;
}

/* The cheapest pair of free neighbours. */
static uint32_t merge_pair(const struct run_set *s, uint32_t *ret_at)
{
    uint64_t least = UINT64_MAX;

    for (uint32_t i = 0; i + 1 < s->count; i++) {
        const struct held_run *a = s->at[i].held, *b = s->at[i + 1].held;

        if (!a->busy && !b->busy && a->run.info.count + b->run.info.count < least) {
            least = a->run.info.count + b->run.info.count;
            *ret_at = i;
        }
    }
    return least == UINT64_MAX ? 0 : 2;
}

static uint32_t merge_pick(const struct dedupe *d, const struct run_set *s, bool idle,
                           uint32_t *ret_at)
{
    for (uint32_t level = 0; level < 20; level++) {
        for (uint32_t at = 0; at < s->count; at++) {
            uint32_t n = level_of(d, &s->at[at]) == level ? merge_window(d, s, at, level) : 0;

            *ret_at = at;
            if (n > 0)
                return n;
        }
    }
    return idle && s->count >= RUNS_MANY ? merge_pair(s, ret_at) : 0;
}

static void merge_release(struct merge_job *m)
{
    for (uint32_t i = 0; i < m->inputs; i++)
        m->input[i]->busy = false;
}

static int merge_start(struct dedupe *d, struct merge_job *m, uint32_t at, uint32_t n)
{
    const struct run_set *s = set_now(d);
    int r;

    m->inputs = n;
    m->keys = 0;
    for (uint32_t i = 0; i < n; i++) {
        m->input[i] = s->at[at + i].held;
        m->keys += m->input[i]->run.info.count;
    }
    for (uint32_t i = 0; i < n; i++) {
        r = run_cursor_init(&m->cursor[i], &m->input[i]->run);
        if (r < 0)
            return dedupe_condemn(d, &m->input[i]->run, r);
    }
    r = job_start(d, &m->job, m->keys, m->input[0]->run.info.from, m->input[n - 1]->run.info.to);
    for (uint32_t i = 0; i < n && r > 0; i++)
        m->input[i]->busy = true;
    return r;
}

/* The cursor with the least key; of equal ones the oldest. NULL: all are at their end. */
static struct run_cursor *merge_least(struct merge_job *m)
{
    struct run_cursor *least = NULL;

    for (uint32_t i = 0; i < m->inputs; i++) {
        struct run_cursor *c = &m->cursor[i];

        if (c->entry != NULL &&
            (least == NULL || entry_compare(&c->entry->key, &least->entry->key) < 0))
            least = c;
    }
    return least;
}

/* Adds the least key and moves every cursor past it. 0 at the end. */
static int merge_one(struct dedupe *d, struct merge_job *m)
{
    struct run_cursor *least = merge_least(m);
    struct key128 key;
    int e;

    if (least == NULL)
        return 0;
    key = least->entry->key;
    e = run_writer_add(&m->job.writer, least->entry);
    if (e < 0)
        return e;
    for (uint32_t i = 0; i < m->inputs; i++) {
        struct run_cursor *c = &m->cursor[i];

        if (c->entry == NULL || entry_compare(&c->entry->key, &key) != 0)
            continue;
        e = run_cursor_next(c);
        if (e < 0)
            return dedupe_condemn(d, c->run, e);
    }
    return 1;
}

static int merge_step(struct dedupe *d, struct merge_job *m)
{
    int r = 1;

    for (uint32_t i = 0; i < STEP_ENTRIES && r > 0; i++)
        r = merge_one(d, m);
    /* Damage past the entries would show here: all pages, in order, are what was written. */
    for (uint32_t i = 0; i < m->inputs && r == 0; i++)
        if (m->cursor[i].pages_crc != m->input[i]->run.info.pages_crc)
            r = dedupe_condemn(d, &m->input[i]->run, -EILSEQ);
    m->job.written = r == 0;
    if (r < 0) {
        job_abort(&m->job);
        merge_release(m);
        return r;
    }
    return 1;
}

static int merge_install(struct dedupe *d, struct merge_job *m)
{
    const struct run_set *s = set_now(d);
    uint32_t at = 0;
    int r;

    while (s->at[at].held != m->input[0])
        at++;
    assert(at + m->inputs <= s->count && s->at[at + m->inputs - 1].held == m->input[m->inputs - 1]);
    r = job_install(d, &m->job, at, m->inputs);
    merge_release(m);
    return r;
}

/* Works on the smallest merge that can go on, having started all that there is to start. */
static int merge_do_work(struct dedupe *d)
{
    struct merge_job *m = NULL, *spare = NULL;
    bool idle = true;
    uint32_t at, n;

    for (uint32_t i = 0; i < MERGE_JOBS; i++) {
        struct merge_job *j = &d->merge[i];

        if (!j->job.active) {
            spare = j;
            continue;
        }
        idle = false;
        if (j->job.written && d->old != NULL)
            continue;
        if (m == NULL || j->keys < m->keys)
            m = j;
    }
    n = spare != NULL ? merge_pick(d, set_now(d), idle, &at) : 0;
    if (n > 0)
        return merge_start(d, spare, at, n);
    if (m == NULL)
        return 0;
    return m->job.written ? merge_install(d, m) : merge_step(d, m);
}

/* Gives the smallest run without a filter one, when need be in place of that of the largest. */
static int filter_do_work(struct dedupe *d)
{
    const struct run_set *s = set_now(d);
    struct run_set *next;
    uint32_t want = s->count, most = s->count;
    int e;

    if (d->old != NULL)
        return 0;
    for (uint32_t i = 0; i < s->count; i++) {
        uint32_t *which = s->at[i].filter == NULL ? &want : &most;
        uint64_t keys = s->at[i].held->run.info.count;

        if (*which == s->count || (which == &want) == (keys < s->at[*which].held->run.info.count))
            *which = i;
    }
    if (want == s->count)
        return 0;
    if (filter_fits(d, &s->at[want].held->run)) {
        next = set_copy(d);
        e = dedupe_load_filter(d, &next->at[want].held->run, &next->at[want].filter);
        if (e < 0)
            return dedupe_condemn(d, &next->at[want].held->run, e);
        if (next->at[want].filter == NULL)
            return 0;
        publish(d, next);
        return 1;
    }
    if (most == s->count || s->at[most].held->run.info.count <= s->at[want].held->run.info.count)
        return 0;
    next = set_copy(d);
    next->at[most].filter = NULL;
    publish(d, next);
    return 1;
}

int dedupe_do_work(struct dedupe *d)
{
    int r = atomic_load_explicit(&d->error, memory_order_relaxed);

    if (r < 0)
        return r;
    r = reclaim(d);
    if (r == 0)
        r = flush_do_work(d);
    if (r == 0)
        r = filter_do_work(d);
    if (r == 0)
        r = merge_do_work(d);
    if (r < 0 && r != -ENOSPC)
        return dedupe_fail(d, r);
    return r;
}

void dedupe_work_fini(struct dedupe *d)
{
    const struct run_set *s[2] = { atomic_load(&d->published), d->old };

    if (d->flush.job.active)
        job_abort(&d->flush.job);
    for (uint32_t i = 0; i < MERGE_JOBS; i++)
        if (d->merge[i].job.active)
            job_abort(&d->merge[i].job);
    for (int k = 0; k < 2; k++) {
        for (uint32_t i = 0; s[k] != NULL && i < s[k]->count; i++) {
            bool twice = false;

            for (uint32_t j = 0; k == 1 && j < s[0]->count; j++)
                twice = twice || s[0]->at[j].filter == s[k]->at[i].filter;
            if (!twice)
                dedupe_drop_filter(d, &s[k]->at[i].held->run, s[k]->at[i].filter);
        }
    }
    for (uint32_t i = 0; i < RUNS_HELD_MAX; i++)
        if (d->held[i].used)
            let_go(&d->held[i]);
}
