/*
 * snapshot.c - checkpoints: the state that stands on the log, taken where a segment ends.
 *
 * File checkpoint-<index, 16 hex digits> in <dir>/checkpoint:
 *
 *   | magic 4 | version 4 | length 4 | CRC32C of the message 4 | sluice.v1.Checkpoint |
 *
 * Written under a temporary name, synced, renamed, the directory synced; the newest ones are kept.
 * A checkpoint is derived from the log: a damaged one is passed over for the one before, or for
 * none. It is written by a thread of libuv's pool, since the fsync would hold up every receipt
 * behind it.
 */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pb_decode.h>
#include <pb_encode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/internal.h"

#define CHECKPOINT_MAGIC   0x50434c53u /* "SLCP" */
#define CHECKPOINT_VERSION 1
#define CHECKPOINT_KEEP                                                                            \
    16 /* so far back a log is cut without being replayed from its beginning                       \
        */
#define CHECKPOINT_LIST_MAX  64
#define CHECKPOINT_BYTES_MAX (384u * 1024u)

struct checkpoint_header {
    uint32_t magic, version, bytes, crc;
};
_Static_assert(sizeof(struct checkpoint_header) == 16, "stored");
/* Encoded, a field takes at most twice its place in the struct: a number of 8 bytes, with its tag,
 * up to 11; and a setting has a tag and a length of two bytes before it. */
_Static_assert(sizeof(struct checkpoint_header) + 2 * sizeof(sluice_v1_Checkpoint) +
                       CLUSTER_SETTINGS_MAX * (3 + sluice_v1_Setting_size) <=
                   CHECKPOINT_BYTES_MAX,
               "the largest checkpoint can be written and read");

static int snapshot_path(const struct cluster *c, char ret[PATH_MAX], const char *name)
{
    int n = snprintf(ret, PATH_MAX, "%s/checkpoint%s%s", c->config.dir, *name ? "/" : "", name);

    return n > 0 && n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int snapshot_write_file(const char *path, const void *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int e = 0;

    if (fd < 0)
        return -errno;
    while (n > 0 && e == 0) {
        ssize_t w = write(fd, bytes, n);

        if (w < 0) {
            e = -errno;
        } else {
            bytes = (const uint8_t *)bytes + w;
            n -= (size_t)w;
        }
    }
    if (e == 0 && fsync(fd) < 0)
        e = -errno;
    if (close(fd) < 0 && e == 0)
        e = -errno;
    return e;
}

static int snapshot_sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int e;

    if (fd < 0)
        return -errno;
    e = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return e;
}

/* Newest first. Returns how many there are, at most max. */
static int snapshot_list(const struct cluster *c, uint64_t *ret, int max)
{
    char path[PATH_MAX];
    struct dirent *d;
    DIR *dir;
    int n = 0;

    if (snapshot_path(c, path, "") < 0 || (dir = opendir(path)) == NULL)
        return 0;
    while ((d = readdir(dir)) != NULL) {
        uint64_t index;
        int end = 0, at;

        if (sscanf(d->d_name, "checkpoint-%16" SCNx64 "%n", &index, &end) != 1 ||
            d->d_name[end] != '\0')
            continue;
        for (at = n; at > 0 && ret[at - 1] < index; at--) {
            if (at < max)
                ret[at] = ret[at - 1];
        }
        if (at < max)
            ret[at] = index;
        n = n < max ? n + 1 : max;
    }
    closedir(dir);
    return n;
}

static bool encode_settings(pb_ostream_t *s, const pb_field_t *field, void *const *arg)
{
    const struct cluster_checkpoint *k = *arg;

    assert(k->settings <= CLUSTER_SETTINGS_MAX);
    for (uint32_t i = 0; i < k->settings; i++) {
        if (!pb_encode_tag_for_field(s, field) ||
            !pb_encode_submessage(s, sluice_v1_Setting_fields, &k->setting[i]))
            return false;
    }
    return true;
}

/* Called for each of them. */
static bool decode_setting(pb_istream_t *s, const pb_field_t *field, void **arg)
{
    struct cluster_checkpoint *k = *arg;

    return k->settings < CLUSTER_SETTINGS_MAX &&
           pb_decode(s, sluice_v1_Setting_fields, &k->setting[k->settings++]);
}

static int snapshot_encode(struct cluster_checkpoint *k, uint8_t *buf, size_t *ret_bytes)
{
    struct checkpoint_header h = { .magic = CHECKPOINT_MAGIC, .version = CHECKPOINT_VERSION };
    pb_ostream_t s = pb_ostream_from_buffer(buf + sizeof h, CHECKPOINT_BYTES_MAX - sizeof h);

    k->message.settings = (pb_callback_t){ .funcs.encode = encode_settings, .arg = k };
    if (!pb_encode(&s, sluice_v1_Checkpoint_fields, &k->message))
        return -EMSGSIZE;
    h.bytes = (uint32_t)s.bytes_written;
    h.crc = crc32c(0, buf + sizeof h, h.bytes);
    memcpy(buf, &h, sizeof h);
    *ret_bytes = sizeof h + h.bytes;
    return 0;
}

/* Keeps the newest up to index, which has just been written. Those above it are of another log. */
static void snapshot_remove_others(const struct cluster *c, uint64_t index, uint64_t region)
{
    bool below = false; /* one that no failover can take away is kept, however old */
    uint64_t found[CHECKPOINT_LIST_MAX];
    char name[64], path[PATH_MAX];
    int n = snapshot_list(c, found, CHECKPOINT_LIST_MAX), kept = 0;

    for (int i = 0; i < n; i++) {
        bool first_below = found[i] <= region && !below;

        below = below || found[i] <= region;
        if (found[i] <= index && (kept++ < CHECKPOINT_KEEP || first_below))
            continue;
        snprintf(name, sizeof name, "checkpoint-%016" PRIx64, found[i]);
        if (snapshot_path(c, path, name) == 0)
            unlink(path);
    }
}

int snapshot_cut(const struct cluster *c, uint64_t last)
{
    uint64_t found[CHECKPOINT_LIST_MAX];
    char name[64], path[PATH_MAX];
    int n = snapshot_list(c, found, CHECKPOINT_LIST_MAX), e = 0;
    bool any = false;

    assert(n <= CHECKPOINT_LIST_MAX);
    for (int i = 0; i < n && e == 0; i++) {
        if (found[i] <= last)
            continue;
        snprintf(name, sizeof name, "checkpoint-%016" PRIx64, found[i]);
        e = snapshot_path(c, path, name);
        if (e == 0 && unlink(path) < 0)
            e = -errno;
        any = true;
    }
    assert(!c->checkpoint_writing);
    if (e == 0 && any)
        e = snapshot_path(c, path, "");
    return e == 0 && any ? snapshot_sync_dir(path) : e;
}

/* Beside the node: touches nothing of the cluster but what it was given. */
static void snapshot_work(struct cluster *c)
{
    char name[64], path[PATH_MAX], tmp[PATH_MAX], dir[PATH_MAX];
    uint8_t *buf = malloc(CHECKPOINT_BYTES_MAX);
    size_t bytes;
    int e = buf ? 0 : -ENOMEM;

    snprintf(name, sizeof name, "checkpoint-%016" PRIx64, c->checkpoint->message.index);
    if (e == 0)
        e = snapshot_path(c, dir, "");
    if (e == 0 && mkdir(dir, 0700) < 0 && errno != EEXIST)
        e = -errno;
    if (e == 0)
        e = snapshot_path(c, path, name);
    if (e == 0)
        e = snapshot_path(c, tmp, "new");
    if (e == 0)
        e = snapshot_encode(c->checkpoint, buf, &bytes);
    if (e == 0)
        e = snapshot_write_file(tmp, buf, bytes);
    /* cppcheck-suppress uninitvar ; still 0 only if both paths were made */
    if (e == 0 && rename(tmp, path) < 0)
        e = -errno;
    if (e == 0)
        e = snapshot_sync_dir(dir);
    free(buf);
    c->checkpoint_result = e;
    if (e == 0)
        snapshot_remove_others(c, c->checkpoint->message.index, c->checkpoint_region);
}

static void snapshot_done(struct cluster *c, int status)
{
    c->checkpoint_writing = false;
    if (!c->raft_open) /* the node failed, and is being taken down */
        return;
    /* A full disk only means that the next start replays more; the next segment's end tries again.
     */
    if (status == 0 && c->checkpoint_result == 0) {
        c->checkpoint_index = c->checkpoint->message.index;
        consensus_snapshot(c);
    } else if (c->checkpoint_result != -ENOSPC && c->checkpoint_result != -EDQUOT) {
        cluster_fail(c, c->checkpoint_result, "checkpoint: %s", strerror(-c->checkpoint_result));
    }
}

/* None, or ascending up to the checkpoint. */
static bool trail_is_whole(const sluice_v1_Checkpoint *m)
{
    pb_size_t n = m->trail_index_count;

    if (n != m->trail_term_count || (n == 0) != (m->trail_first == 0))
        return false;
    if (n == 0)
        return true;
    for (pb_size_t i = 1; i < n; i++) {
        if (m->trail_index[i] <= m->trail_index[i - 1] || m->trail_term[i] <= m->trail_term[i - 1])
            return false;
    }
    return m->trail_first <= m->trail_index[0] && m->trail_index[n - 1] == m->index &&
           m->trail_term[n - 1] == m->term;
}

/* The engine's records, the last of them that fit. Each has the last index of its term. */
static void snapshot_trail(const struct cluster *c, sluice_v1_Checkpoint *m)
{
    const struct raft_trail *t = &c->raft.trail;
    uint64_t before = t->offset;

    m->trail_first = 0;
    m->trail_index_count = m->trail_term_count = 0;
    for (unsigned i = t->front; i != t->back && before < m->index; i = (i + 1) % t->size) {
        uint64_t last = t->records[i].index < m->index ? t->records[i].index : m->index;

        if (m->trail_index_count == sizeof m->trail_index / sizeof *m->trail_index) {
            m->trail_first = m->trail_index[0] + 1;
            m->trail_index_count--;
            m->trail_term_count--;
            memmove(m->trail_index, m->trail_index + 1,
                    sizeof m->trail_index - sizeof *m->trail_index);
            memmove(m->trail_term, m->trail_term + 1, sizeof m->trail_term - sizeof *m->trail_term);
        } else if (m->trail_index_count == 0) {
            m->trail_first = before + 1;
        }
        m->trail_index[m->trail_index_count++] = last;
        m->trail_term[m->trail_term_count++] = t->records[i].term;
        before = last;
    }
}

/* Starts a checkpoint at the entry that has just been applied. While one is being written the next
 * segment's end goes without: the one after it will do. */
int snapshot_take(struct cluster *c, const struct appended *a)
{
    sluice_v1_Checkpoint *m = &c->checkpoint->message;

    assert(a->ends_segment && a->write->record.index == c->applied_index);
    if (c->checkpoint_writing || !c->have_genesis)
        return 0;
    memset(m, 0, sizeof *m);
    c->checkpoint->settings = 0;
    m->index = a->write->record.index;
    m->term = a->write->record.term;
    m->record_time_ns = a->write->record.time_ns;
    memcpy(m->digest, a->digest, sizeof m->digest);
    m->has_genesis = true;
    m->genesis = c->genesis;
    m->configuration.size = (pb_size_t)c->configuration_bytes;
    memcpy(m->configuration.bytes, c->configuration, c->configuration_bytes);
    m->configuration_index = c->configuration_index;
    m->events_by_type_count = BLOCK_TYPES;
    for (unsigned i = 0; i < BLOCK_TYPES; i++)
        m->events_by_type[i] = c->events_by_type[i];
    snapshot_trail(c, m);
    assert(trail_is_whole(m));
    c->app.save(c->app.arg, c->checkpoint);
    if (c->region.index > 0) /* else nobody has said yet */
        c->checkpoint_region = c->region.index;
    c->checkpoint_writing = true;
    if (c->background(c, snapshot_work, snapshot_done) != 0)
        c->checkpoint_writing = false;
    return 0;
}

static int snapshot_read(const struct cluster *c, uint64_t index, struct cluster_checkpoint *k)
{
    sluice_v1_Checkpoint *m = &k->message;
    struct checkpoint_header h;
    char name[64], path[PATH_MAX];
    uint8_t *buf = malloc(CHECKPOINT_BYTES_MAX + 1);
    pb_istream_t s;
    ssize_t n = -1;
    int fd, e = -EILSEQ;

    snprintf(name, sizeof name, "checkpoint-%016" PRIx64, index);
    if (buf == NULL || snapshot_path(c, path, name) < 0 ||
        (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0) {
        free(buf);
        return -ENOENT;
    }
    n = read(fd, buf, CHECKPOINT_BYTES_MAX + 1);
    close(fd);
    if (n < (ssize_t)sizeof h)
        goto out;
    memcpy(&h, buf, sizeof h);
    if (h.magic != CHECKPOINT_MAGIC || h.version != CHECKPOINT_VERSION ||
        h.bytes != (size_t)n - sizeof h || h.crc != crc32c(0, buf + sizeof h, h.bytes))
        goto out;
    s = pb_istream_from_buffer(buf + sizeof h, h.bytes);
    memset(m, 0, sizeof *m);
    m->settings = (pb_callback_t){ .funcs.decode = decode_setting, .arg = k };
    k->settings = 0;
    if (pb_decode(&s, sluice_v1_Checkpoint_fields, m) && m->index == index && m->has_genesis &&
        trail_is_whole(m) && m->events_by_type_count == BLOCK_TYPES && m->configuration.size > 0)
        e = 0;
out:
    free(buf);
    return e;
}

bool snapshot_exists(const struct cluster *c)
{
    uint64_t index;

    return snapshot_list(c, &index, 1) > 0;
}

/* The newest checkpoint that is whole and of this cluster; none is as good, only slower. */
int snapshot_load(struct cluster *c)
{
    const sluice_v1_Checkpoint *m = &c->checkpoint->message;
    uint64_t index[CHECKPOINT_LIST_MAX];
    int n = snapshot_list(c, index, CHECKPOINT_LIST_MAX);

    for (int i = 0; i < n; i++) {
        if (snapshot_read(c, index[i], c->checkpoint) < 0)
            continue;
        if (memcmp(m->genesis.cluster_id, c->state.cluster_id, sizeof m->genesis.cluster_id) != 0)
            continue;
        c->origin = (struct log_origin){ m->index, m->term, m->record_time_ns, { 0 } };
        memcpy(c->origin.digest, m->digest, sizeof m->digest);
        c->genesis = m->genesis;
        c->have_genesis = true;
        c->genesis_index = m->index;
        memcpy(c->genesis_hash_key, m->genesis.hash_key, sizeof c->genesis_hash_key);
        memcpy(c->configuration, m->configuration.bytes, m->configuration.size);
        c->configuration_bytes = m->configuration.size;
        c->configuration_index = m->configuration_index;
        for (unsigned t = 0; t < BLOCK_TYPES; t++) {
            c->events_by_type[t] = m->events_by_type[t];
            c->events += m->events_by_type[t];
        }
        c->checkpoint_index = m->index;
        c->last_time_ns = m->record_time_ns;
        if (m->history_count > 0)
            c->setting_index = m->history[m->history_count - 1].index;
        return c->kept.is ? 0 : c->app.load(c->app.arg, c->checkpoint);
    }
    sha256(c->origin.digest, c->state.cluster_id, sizeof c->state.cluster_id, NULL, 0);
    return 0;
}
