/*
 * dedupe_open.c - opening the dedupe index: what of it is sound is kept, the rest removed.
 *
 * A run counts only if all before it are sound: then what is kept covers the log without a gap, and
 * the log is replayed from there. MANIFEST is rewritten before a file is removed.
 *
 * Memory, all of memory_bytes_max: this struct with its buffers; two tables of an eighth each, in
 * whole huge pages; the summary a quarter; the runs' filters have the rest.
 */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/dedupe_internal.h"
#include "store/file.h"

#define TABLE_UNIT_BYTES (2ull << 20)

static int plan_memory(struct dedupe *d, const struct dedupe_config *c)
{
    uint64_t max = c->memory_bytes_max;
    uint64_t table = max / 8 / TABLE_UNIT_BYTES * TABLE_UNIT_BYTES;
    uint64_t keys = table_keys(table), summary = max / 4 / TABLE_UNIT_BYTES * TABLE_UNIT_BYTES;
    int r;

    if (c->table_keys_max > 0 && c->table_keys_max < keys)
        keys = c->table_keys_max;
    if (c->summary_bytes_max > 0 && c->summary_bytes_max < summary)
        summary = (c->summary_bytes_max + RUN_PAGE_BYTES - 1) / RUN_PAGE_BYTES * RUN_PAGE_BYTES;
    summary = table_map_bytes(summary);
    assert(keys > 0 && table_bytes(keys) <= table);
    assert(d->bytes + 2 * table + summary < max);
    d->filter_bytes_max = max - d->bytes - 2 * table - summary;
    if (c->filter_bytes_max > 0 && c->filter_bytes_max < d->filter_bytes_max)
        d->filter_bytes_max = c->filter_bytes_max;
    assert(d->bytes + 2 * table_bytes(keys) + summary + d->filter_bytes_max <= max);
    d->summary_blocks = summary / FILTER_BLOCK_BYTES;
    d->summary = table_map(summary);
    if (d->summary == NULL)
        return -ENOMEM;
    memset(d->summary, 0, summary); /* touched now, so that no event waits for a page */
    r = table_init(&d->table[0], keys);
    return r < 0 ? r : table_init(&d->table[1], keys);
}

static int open_dir(struct dedupe *d, const char *dir)
{
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return -errno;
    d->dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return d->dirfd < 0 ? -errno : 0;
}

/* What a disk says of a file that is lost, as opposed to what stands in the way of any file. */
static bool is_damage(int error) { return error == -ENOENT || error == -EILSEQ || error == -EIO; }

static int open_run(struct dedupe *d, const struct dedupe_config *c, const struct manifest_run *m,
                    struct run_ref *ref)
{
    struct run *r;
    int e;

    ref->held = dedupe_hold(d);
    ref->filter = NULL;
    ref->summarised = false;
    r = &ref->held->run;
    e = run_open(r, d->dirfd, m->seq);
    if (e == 0 && (r->info.header_crc != m->header_crc || r->info.from != m->from ||
                   r->info.to != m->to || r->info.log_id != c->log_id ||
                   r->info.last > c->log_last_index || r->info.to > c->log_last_index))
        e = -EILSEQ;
    if (e == 0 && c->verify)
        e = run_verify(r, d->found);
    if (e < 0) {
        run_close(r);
        ref->held->used = false;
    }
    return e;
}

static void close_from(struct dedupe *d, struct run_set *s, uint32_t first)
{
    while (s->count > first) {
        struct run_ref *ref = &s->at[--s->count];

        dedupe_drop_filter(d, &ref->held->run, ref->filter);
        run_close(&ref->held->run);
        ref->held->used = false;
    }
}

/* Opens the runs of m up to the first that is damaged. */
static int open_runs(struct dedupe *d, const struct dedupe_config *c, const struct manifest *m,
                     struct run_set *s)
{
    int e = 0;

    _Static_assert(sizeof d->found >= 2 * RUN_PAGE_BYTES, "run_verify() works there");
    for (uint32_t i = 0; i < m->count; i++) {
        e = open_run(d, c, &m->run[i], &s->at[i]);
        if (e < 0)
            break;
        s->count++;
    }
    if (e < 0 && !is_damage(e))
        return e;
    /* Newest first: the largest may go without. */
    for (uint32_t i = s->count; i-- > 0;) {
        e = dedupe_load_filter(d, &s->at[i].held->run, &s->at[i].filter);
        if (e < 0 && !is_damage(e))
            return e;
        if (e < 0)
            close_from(d, s, i);
    }
    return 0;
}

/* True for files that the index writes and that s does not have. */
static bool is_stray(const struct run_set *s, const char *name)
{
    const char *end = strrchr(name, '.');
    char own[RUN_NAME_BYTES];

    if (end == NULL || (strcmp(end, ".run") != 0 && strcmp(end, ".tmp") != 0))
        return false;
    for (uint32_t i = 0; i < s->count; i++) {
        run_name(own, s->at[i].held->run.info.seq, false);
        if (strcmp(own, name) == 0)
            return false;
    }
    return true;
}

static int remove_strays(struct dedupe *d, const struct run_set *s)
{
    int fd = openat(d->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), e = 0;
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (dir == NULL) {
        e = -errno;
        if (fd >= 0)
            close(fd);
        return e;
    }
    while (e == 0 && (entry = readdir(dir)) != NULL)
        if (is_stray(s, entry->d_name))
            e = file_remove(d->dirfd, entry->d_name);
    closedir(dir);
    return e;
}

/* Reads MANIFEST; when that is of no use, says that there are no runs. */
static int read_manifest(struct dedupe *d, const struct dedupe_config *c, struct manifest *m,
                         bool *ret_usable)
{
    int e = manifest_read(d->dirfd, m);

    *ret_usable = e == 0 && m->log_id == c->log_id;
    if (*ret_usable)
        return 0;
    if (e < 0 && !is_damage(e))
        return e;
    *m = (struct manifest){ .log_id = c->log_id, .seq_next = 1 };
    return 0;
}

static int open_files(struct dedupe *d, const struct dedupe_config *c)
{
    struct run_set *s = &d->sets[0];
    struct manifest m, kept;
    bool usable;
    int e = read_manifest(d, c, &m, &usable);

    atomic_store(&d->published, s); /* dedupe_close() finds there what was opened */
    if (e < 0)
        return e;
    d->seq_next = m.seq_next;
    e = open_runs(d, c, &m, s);
    if (e < 0)
        return e;
    d->runs_damaged = m.count - s->count;
    s->generation = 1;
    dedupe_describe(d, s);
    dedupe_manifest(d, s, &kept);
    if (!usable || s->count != m.count)
        e = manifest_write(d->dirfd, &kept);
    if (e == 0)
        e = remove_strays(d, s);
    atomic_store(&d->acknowledged, s->generation);
    d->set = s;
    d->entered = set_covered(s);
    atomic_store(&d->committed, d->entered);
    return e;
}

int dedupe_open(struct dedupe **ret, const struct dedupe_config *config, uint64_t *ret_covered)
{
    size_t bytes = (sizeof(struct dedupe) + RUN_PAGE_BYTES - 1) / RUN_PAGE_BYTES * RUN_PAGE_BYTES;
    struct dedupe *d;
    int e;

    if (config->memory_bytes_max < DEDUPE_MEMORY_BYTES_MIN)
        return -EINVAL;
    d = aligned_alloc(RUN_PAGE_BYTES, bytes);
    if (d == NULL)
        return -ENOMEM;
    memset(d, 0, bytes);
    d->bytes = bytes;
    d->dirfd = -1;
    d->log_id = config->log_id;
    for (uint32_t i = 0; i < RUNS_HELD_MAX; i++)
        d->held[i].run.fd = -1;
    d->flush.job.writer.fd = -1;
    for (uint32_t i = 0; i < MERGE_JOBS; i++)
        d->merge[i].job.writer.fd = -1;
    e = plan_memory(d, config);
    d->active = &d->table[0];
    if (e == 0)
        e = open_dir(d, config->dir);
    if (e == 0)
        e = open_files(d, config);
    if (e < 0) {
        dedupe_close(d);
        return e;
    }
    *ret = d;
    *ret_covered = d->entered;
#ifdef PLANT_DEDUPE_NO_REBUILD
    *ret_covered = config->log_last_index;
#endif
    return 0;
}
