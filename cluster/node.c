/*
 * node.c - a node as a state machine: opened, and then turned.
 *
 * A turn takes blocks, appends them, hands the writes to the disk, takes completions, tells the
 * engine, applies and answers. It never waits: what cannot be done yet is done in a later turn, and
 * node_deadline_ns() says when at the latest. Time, randomness and the work beside it come from
 * whoever drives it: the cluster thread (cluster.c), or a test in its own time.
 *
 * A node that has become leader first commits an entry of its own term, which commits all that is
 * before it, and the genesis where there is none; only then it takes blocks.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pb_encode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "cluster/internal.h"
#include "cluster/peer.h"

#define RETRY_NS        (1 * NS_PER_MS) /* work that waits for room, or for a table to be written */
#define CHANGE_RETRY_NS (5 * NS_PER_MS) /* a change of members, for what time alone changes */

/* --- start --------------------------------------------------------------------------------------
 */

/* A directory that this user may not read cannot be synced: whoever made what is in it did. */
static int node_sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), e = 0;

    if (fd < 0)
        return errno == EACCES ? 0 : -errno;
    if (fsync(fd) < 0)
        e = -errno;
    close(fd);
    return e;
}

/* Every start makes their names durable: the one that made them may have been cut short. */
static int node_make_dirs(struct cluster *c, char log_dir[PATH_MAX])
{
    char parent[PATH_MAX];
    int n = snprintf(parent, sizeof parent, "%s/..", c->config.dir), e;

    if (n > 0 && n < PATH_MAX)
        n = snprintf(log_dir, PATH_MAX, "%s/log", c->config.dir);
    if (n <= 0 || n >= PATH_MAX)
        return cluster_fail(c, -ENAMETOOLONG, "data directory: name too long");
    if (mkdir(c->config.dir, 0700) < 0 && errno != EEXIST)
        return cluster_fail(c, -errno, "%s: %s", c->config.dir, strerror(errno));
    if (mkdir(log_dir, 0700) < 0 && errno != EEXIST)
        return cluster_fail(c, -errno, "%s: %s", log_dir, strerror(errno));
    e = node_sync_dir(c->config.dir);
    if (e == 0)
        e = node_sync_dir(parent);
    return e < 0 ? cluster_fail(c, e, "%s: %s", c->config.dir, strerror(-e)) : 0;
}

static int node_open_disk(struct cluster *c, const char *log_dir)
{
    int e = 0;

    c->disk = c->config.disk;
    if (c->disk == NULL)
        e = disk_uring_open(&c->disk, log_dir, c->config.log.writes_max);
    if (e == -EBUSY)
        return cluster_fail(c, e, "%s is in use by another process", log_dir);
    if (e == -EOPNOTSUPP)
        return cluster_fail(c, e, "%s: this file system has no direct I/O (O_DIRECT)", log_dir);
    if (e == -ENOMEM)
        return cluster_fail(c, e, "%s: io_uring: %s (see the limit of locked memory, ulimit -l)",
                            log_dir, strerror(-e));
    if (e < 0)
        return cluster_fail(c, e, "%s: %s", log_dir, strerror(-e));
    c->disk_fd = c->disk->ops->event_fd(c->disk);
    return state_open(c);
}

/* One that died while it began, with a first segment and no first entry in it, waits again: what it
 * was to begin with is known only to the others. Alone it would begin a log that is not theirs. */
static int node_look_for_entry(struct cluster *c)
{
    struct log_record record;
    struct log_reader *reader;
    const void *payload;
    int e;

#ifdef PLANT_BEGINNING_FORGOTTEN
    return 0;
#endif
    if (c->config.peering == NULL || !c->segments_found || c->state.bootstrapped)
        return 0;
    e = log_reader_open_on(&reader, c->disk);
    if (e < 0)
        return cluster_fail(c, e, "log: %s", strerror(-e));
    e = log_reader_get(reader, 1, c->read_buf, LOG_RECORD_BYTES_MAX, &record, &payload);
    log_reader_close(reader);
    if (e == -ENOENT || e == -EILSEQ)
        c->segments_found = false;
    else if (e < 0)
        return cluster_fail(c, e, "log: index 1 cannot be read: %s", strerror(-e));
    return 0;
}

int node_prepare(struct cluster *c)
{
    char log_dir[PATH_MAX];
    int e = node_make_dirs(c, log_dir);

    if (e == 0)
        e = node_open_disk(c, log_dir);
    return e < 0 ? e : node_look_for_entry(c);
}

bool node_waits(const struct cluster *c)
{
    return c->config.peering != NULL && c->config.bootstrap == NULL &&
           c->config.join_cluster_id == NULL && !c->segments_found && !c->state.bootstrapped;
}

/* What there is to begin with. */
static int node_open_checkpoint(struct cluster *c, const char *log_dir)
{
    int e = snapshot_load(c);

    if (e < 0)
        return cluster_fail(c, e, "checkpoint: %s", strerror(-e));
    if (!c->segments_found && c->origin.index > 0)
        return cluster_fail(
            c, -EILSEQ,
            "%s: the log is empty, but there is a checkpoint of it at index %" PRIu64
            "; its files are gone",
            log_dir, c->origin.index);
    if (!c->segments_found && c->state.bootstrapped)
        return cluster_fail(
            c, -EILSEQ, "%s: the log is empty, but this node has written one; its files are gone",
            log_dir);
    return 0;
}

static int node_open_log(struct cluster *c, const char *log_dir)
{
    char error[LOG_ERROR_BYTES] = "";
    struct log_damage damage;
    int e;

    sha256(c->config.log.genesis, c->state.cluster_id, sizeof c->state.cluster_id, NULL, 0);
    consensus_forget_entries(c);
    e = log_open_damage(&c->log, c->disk, &c->config.log, &c->origin, consensus_collect, c, error,
                        &damage);
    if ((e == -EILSEQ || e == -EUCLEAN) && repair_begin(c, &damage, error) == 0)
        return 0;
    if (e < 0)
        return cluster_fail(c, e, "log: %s", error[0] ? error : strerror(-e));
    e = log_reader_open_on(&c->reader, c->disk);
    if (e < 0)
        return cluster_fail(c, e, "%s: %s", log_dir, strerror(-e));
    if (log_last_index(c->log) > 0)
        return 0;
    if (c->state.bootstrapped)
        return cluster_fail(
            c, -EILSEQ, "%s: the log is empty, but this node has written one; its files are gone",
            log_dir);
    if (snapshot_exists(c))
        return cluster_fail(c, -EILSEQ,
                            "%s: the log is empty, but there are checkpoints of one in "
                            "%s/checkpoint; is a file system not mounted? To begin a new log, "
                            "move that directory away",
                            log_dir, c->config.dir);
    return c->config.join_cluster_id != NULL ? 0 : consensus_bootstrap(c);
}

struct cluster *node_new(const struct cluster_config *config, const struct cluster_app *app,
                         const struct node_environment *environment)
{
    struct cluster *c = calloc(1, sizeof *c);

    assert(config->links <= CLUSTER_WORKERS_MAX);
    if (c == NULL)
        return NULL;
    c->config = *config;
    c->app = *app;
    c->environment = *environment;
    c->answers_tail = &c->answers;
    c->state_file.file = -1;
    c->recovery.orphan.file = -1;
    forward_init(c);
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->watch_lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    c->checkpoint = malloc(sizeof *c->checkpoint);
    c->read_buf = aligned_alloc(LOG_ALIGN, LOG_RECORD_BYTES_MAX);
    if (c->checkpoint != NULL && c->read_buf != NULL && propose_init(c) == 0)
        return c;
    node_free(c);
    return NULL;
}

void node_free(struct cluster *c)
{
    recovery_forget(c);
    repair_close(c);
    log_reader_close(c->reader);
    fetch_close(c);
    log_close(c->log);
    reconcile_close(c);
    consensus_close(c);
    twoslot_close(&c->state_file);
    if (c->disk != NULL && c->config.disk == NULL)
        c->disk->ops->fini(c->disk);
    propose_fini(c);
    forward_fini(c);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->watch_lock);
    pthread_cond_destroy(&c->changed);
    free(c->checkpoint);
    free(c->read_buf);
    free(c);
}

#define CHANGES_MAX                                                                                \
    64u /* configurations between two checkpoints that are told; of more, the last */

/* The places of the configurations that the app has seen committed, above the checkpoint. */
static unsigned node_kept_changes(const struct cluster *c, uint64_t ret[CHANGES_MAX])
{
    unsigned n = 0;

    for (size_t i = 0; c->kept.is && i < c->start_entries; i++) {
        uint64_t index = c->origin.index + 1 + i;

        if (c->start_entry[i].type != RAFT_CHANGE || index > c->kept.configuration_index)
            continue;
        if (n == CHANGES_MAX)
            memmove(ret, ret + 1, --n * sizeof *ret);
        ret[n++] = index;
    }
    return n;
}

/* What was in force when the log was closed. The engine begins at the checkpoint, and is told of
 * the configurations since. */
static int node_take_kept(struct cluster *c, const uint64_t *change, unsigned changes)
{
    const struct kept_app *k = &c->kept;
    const void *payload;

    assert(k->applied >= c->origin.index && k->applied <= log_last_index(c->log));
    for (unsigned i = 0; i < changes; i++) {
        int e = node_read(c, change[i], &payload);

        if (e < 0)
            return cluster_fail(c, e, "log: index %" PRIu64 " cannot be read: %s", change[i],
                                strerror(-e));
        e = consensus_changed(c, change[i], payload, c->read_record.payload_bytes);
        if (e < 0)
            return e;
    }
    c->applied_index = k->applied;
    if (c->commit_index < k->applied)
        c->commit_index = k->applied;
    c->setting_index = k->setting_index;
    c->last_time_ns = k->last_time_ns;
    c->events = k->events;
    memcpy(c->events_by_type, k->events_by_type, sizeof c->events_by_type);
    c->genesis = k->genesis;
    c->have_genesis = true;
    c->kept.is = false;
    c->app_open = true;
    return 0;
}

void node_drop_app(struct cluster *c)
{
    assert(!c->app_open);
    c->app.close(c->app.arg);
    c->kept.is = false;
    c->seal_due_ns = 0;
}

static void node_keep_app(struct cluster *c)
{
    struct kept_app *k = &c->kept;

    assert(c->app_open && c->have_genesis && !k->is);
    *k = (struct kept_app){ .is = true,
                            .applied = c->applied_index,
                            .setting_index = c->setting_index,
                            .last_time_ns = c->last_time_ns,
                            .configuration_index = c->configuration_index,
                            .events = c->events,
                            .genesis = c->genesis };
    memcpy(k->events_by_type, c->events_by_type, sizeof k->events_by_type);
    c->app_open = false;
}

static int node_open_app(struct cluster *c)
{
    uint64_t from, covered, change[CHANGES_MAX];
    unsigned changes = node_kept_changes(c, change);
    int e = consensus_start(c);

    if (e < 0)
        return e;
    if (c->kept.is)
        return node_take_kept(c, change, changes);
    e = c->app.open(c->app.arg, c->state.cluster_id, log_last_index(c->log), &covered);
    if (e < 0)
        return cluster_fail(c, e, "state: %s", strerror(-e));
    c->app_covered = covered;
    from = (covered < c->origin.index ? covered : c->origin.index) + 1;
    if (from < log_first_index(c->log))
        return cluster_fail(c, -EILSEQ,
                            "the log begins at index %" PRIu64 ", and what is known of the events "
                            "before it is lost up to index %" PRIu64,
                            log_first_index(c->log), covered);
    c->applied_index = from - 1;
    c->app_open = true;
    return 0;
}

/* What is below the checkpoint, and to be applied again, nobody has looked at yet. An old copy of a
 * segment has good records that were never committed, and only where it ends it does not fit: so
 * nothing is applied before all of them were seen to go on to the checkpoint. Returns 1: they do.
 */
static int node_check_replayed(struct cluster *c)
{
    uint64_t next = c->applied_index + 1;
    char rot[LOG_ERROR_BYTES];
    struct log_damage damage;
    int e = 0;

#ifdef PLANT_REPLAY_UNCHECKED
    return 1;
#endif
    while (e == 0 && next != 0 && next <= c->origin.index && next < log_segment_first(c->log)) {
        snprintf(rot, sizeof rot, "the segment of record %" PRIu64 " is damaged", next);
        e = log_check_segment(c->disk, next, c->config.log.segment_bytes, NULL, NULL, &damage,
                              &next);
    }
    if (e == -ENOENT) /* it is the last one that there is, which log_open() has looked at */
        return 1;
    if (e == -EILSEQ && repair_begin(c, &damage, rot) == 0)
        return 0;
    return e == 0 ? 1 : cluster_fail(c, e, "log: %s: %s", rot, strerror(-e));
}

/* Below the checkpoint a start reads only what the app has not kept. */
static int node_replay(struct cluster *c)
{
    char rot[LOG_ERROR_BYTES];
    struct log_damage damage;
    int e = node_check_replayed(c);

    if (e <= 0)
        return e;
    e = commit_replay(c, c->applied_index + 1);
    if (e == 0)
        c->app.opened(c->app.arg);
    if (e != -EILSEQ)
        return e;
    snprintf(rot, sizeof rot, "record %" PRIu64 " cannot be read", c->applied_index + 1);
    e = log_check_segment(c->disk, c->applied_index + 1, c->config.log.segment_bytes, NULL, NULL,
                          &damage, NULL);
    if (e == -EILSEQ && repair_begin(c, &damage, rot) == 0)
        return 0;
    return cluster_fail(c, e < 0 ? e : -EIO, "log: %s: %s", rot, strerror(e < 0 ? -e : EIO));
}

int node_go_on(struct cluster *c)
{
    char log_dir[PATH_MAX];
    int e = 0;

    c->repair.at_start = false;
    snprintf(log_dir, sizeof log_dir, "%s/log", c->config.dir);
    if (c->log == NULL)
        e = node_open_log(c, log_dir);
    if (e < 0 || c->repair.at_start)
        return e;
    if (recovery_is_promised(c)) {
        c->recovery.fenced = true;
        if (c->recovery.committed < c->origin.index) /* of a start, that is all that is known */
            c->recovery.committed = c->origin.index;
        if (c->recovery.note[0] == '\0')
            recovery_note(
                c, "fenced: it has promised epoch %" PRIu64 ", and waits to be brought into it",
                c->state.promised);
        return 0;
    }
    if (!c->app_open)
        e = node_open_app(c);
    region_opened(c);
    return e == 0 ? node_replay(c) : e;
}

int node_open(struct cluster *c)
{
    char log_dir[PATH_MAX];
    int e = c->disk == NULL ? node_prepare(c) : 0;

    if (e < 0)
        return e;
    snprintf(log_dir, sizeof log_dir, "%s/log", c->config.dir);
    e = node_open_checkpoint(c, log_dir);
    return e < 0 ? e : node_go_on(c);
}

/* What node_open() has made, and what the node has learned since; not what it has promised, or has
 * from its workers. */
static void node_shut(struct cluster *c)
{
    assert(!c->checkpoint_writing && log_persisted_index(c->log) == log_last_index(c->log));
    if (c->applied_index > c->own_counted)
        c->own_counted = c->applied_index;
    if (c->commit_index > c->recovery.committed)
        c->recovery.committed = c->commit_index;
    repair_close(c);
    fetch_close(c);
    log_reader_close(c->reader);
    c->reader = NULL;
    log_close(c->log);
    c->log = NULL;
    propose_reset(c);
    consensus_close(c);
    memset(&c->raft, 0, sizeof c->raft);
    if (c->app_open && c->have_genesis)
        node_keep_app(c);
    c->app_open = false;
    if (!c->kept.is)
        node_drop_app(c);
    c->lead = LEAD_NONE;
    c->lead_index = c->commit_index = c->applied_index = 0;
    c->raft_timeout_ms = c->heard_ms = c->ticked_ms = c->current_ms = 0;
    c->promise = (struct promise){ .ms = 0 };
    memset(c->heard, 0, sizeof c->heard);
    c->yield_ms = 0;
    c->apply_wait = 0;
    c->disk_full = false;
    c->origin = (struct log_origin){ .index = 0 };
    c->have_genesis = false;
    c->configuration_bytes = 0;
    c->configuration_index = c->checkpoint_index = 0;
    c->setting_index = c->setting_proposed = 0;
    c->events = 0;
    memset(c->events_by_type, 0, sizeof c->events_by_type);
    c->recovery.changed = false;
    peers_reopened(c->peers);
}

static void node_publish(struct cluster *c)
{
    atomic_store_explicit(&c->commit_public, c->recovery.fenced ? 0 : c->applied_index,
                          memory_order_release);
}

int node_reopen(struct cluster *c)
{
    int e = 0;

    while (e >= 0 && log_persisted_index(c->log) < log_last_index(c->log))
        e = log_wait(c->log, node_now_ns(c));
    if (e < 0)
        return cluster_fail(c, e, "log: write failed: %s", strerror(-e));
    node_shut(c);
    assert(c->log == NULL && !c->raft_open && c->appended_n == 0);
    c->segments_found = true;
    e = node_open(c);
    node_publish(c);
    return e;
}

int node_resume(struct cluster *c)
{
    int e;

    assert(c->log != NULL && !c->raft_open && !c->app_open && !recovery_is_promised(c));
    (void)propose_release(c, log_last_index(c->log));
    assert(c->appended_n == 0 && log_persisted_index(c->log) == log_last_index(c->log));
    peers_reopened(c->peers);
    e = node_go_on(c);
    node_publish(c);
    return e;
}

/* --- leading ------------------------------------------------------------------------------------
 */

static struct proposal *genesis_new(struct cluster *c)
{
    sluice_v1_Genesis g = { .created_ns = node_unix_ns(c), .format = BLOCK_VERSION };
    uint8_t bytes[sluice_v1_Genesis_size];
    pb_ostream_t s = pb_ostream_from_buffer(bytes, sizeof bytes);
    bool ok;

    memcpy(g.cluster_id, c->state.cluster_id, sizeof g.cluster_id);
    node_random(c, g.hash_key, sizeof g.hash_key);
    ok = pb_encode(&s, sluice_v1_Genesis_fields, &g);
    assert(ok);
    return proposal_new(LOG_GENESIS, bytes, s.bytes_written);
}

/* Returns 1 when it is appended, 0 when there is no room yet. */
static int lead_append(struct cluster *c, struct proposal *p)
{
    int e = p ? propose_entry(c, p) : -ENOMEM;

    if (e == 0) {
        assert(consensus_leads(c));
        c->lead_index = log_last_index(c->log);
        return 1;
    }
    if (e == -EAGAIN) {
        proposal_free(p);
        return 0;
    }
    proposal_failed(c, p);
    return cluster_fail(c, e, "start: the first entry of this term cannot be written: %s",
                        strerror(-e));
}

/* One step towards taking blocks. Returns the work done or a negative errno. */
static int lead_turn(struct cluster *c)
{
    int e;

    if (!consensus_leads(c) || c->lead == LEAD_READY || c->applied_index < c->lead_index)
        return 0;
    if (c->lead == LEAD_BEGUN && c->have_genesis) {
        c->lead = LEAD_READY;
        return 1;
    }
    e = lead_append(c, c->lead == LEAD_NONE ? proposal_new(LOG_BARRIER, NULL, 0) : genesis_new(c));
    if (e == 1)
        c->lead = LEAD_BEGUN;
    return e;
}

/* --- posts --------------------------------------------------------------------------------------
 */

int node_receive(struct cluster *c, uint16_t from, enum peer_type type, const void *body,
                 size_t bytes)
{
    int e;

    if (c->repair.at_start && type != PEER_FETCH && type != PEER_FETCHED && type != PEER_RECOVER)
        return 0;
    switch (type) {
    case PEER_FETCH:
        return fetch_asked(c, from, body, bytes);
    case PEER_RECOVER:
        return recovery_receive(c, from, body, bytes);
    case PEER_FETCHED:
        e = fetch_unpack(c, &body, &bytes);
        if (e < 0)
            return e;
        if (recovery_expects(c, from))
            return recovery_fetched(c, from, body, bytes);
        if (!c->fetch.active && repair_expects(c, from))
            return repair_received(c, from, body, bytes);
        return fetch_received(c, from, body, bytes);
    case PEER_FORWARD:
        return forward_receive(c, from, body, bytes);
    case PEER_FORWARDED:
        return forward_receive_answer(c, from, body, bytes);
    case PEER_REGION:
        return region_told(c, body, bytes);
    default:
        return -EBADMSG;
    }
}

/* --- entries for other nodes --------------------------------------------------------------------
 */

/* What is durable is cut by propose_withdraw() alone, and that takes another reader. */
int node_read(struct cluster *c, uint64_t index, const void **ret_payload)
{
    log_reader_bound(c->reader, log_persisted_index(c->log));
    return log_reader_get(c->reader, index, c->read_buf, LOG_RECORD_BYTES_MAX, &c->read_record,
                          ret_payload);
}

bool node_entry_kept(const struct cluster *c, uint64_t index)
{
    return c->appended_n > 0 && index >= c->appended[c->appended_head].write->record.index;
}

int node_entry(struct cluster *c, uint64_t index, struct peer_entry *ret)
{
    const struct appended *a = &c->appended[c->appended_head];
    int e;

    *ret = (struct peer_entry){ .record = NULL };
    if (node_entry_kept(c, index)) {
        uint64_t at = index - a->write->record.index;

        if (at >= c->appended_n)
            return -ENOENT;
        a = &c->appended[(c->appended_head + at) % c->appended_max];
        *ret = (struct peer_entry){ .record = &a->write->record,
                                    .payload = (const uint8_t *)a->write->buf + LOG_HEADER_BYTES,
                                    .payload_crc = a->write->payload_crc };
        return 0;
    }
    e = node_read(c, index, &ret->payload);
    if (e < 0)
        return e;
    ret->record = &c->read_record;
    ret->payload_crc = log_reader_crc(c->read_buf);
    return 0;
}

/* --- turns --------------------------------------------------------------------------------------
 */

/* The log was begun by another node's entries, or this one died between entry 1 and saying so. From
 * now on an empty one is a lost one. */
static int node_begun(struct cluster *c)
{
    if (c->state.bootstrapped || log_persisted_index(c->log) == 0)
        return 0;
    c->state.bootstrapped = 1;
    return state_write(c);
}

/* Of a node that is not open yet. */
static int node_repair_turn(struct cluster *c, uint64_t now_ns)
{
    int done = repair_turn(c, now_ns), e;

    if (done < 0 || !c->repair.at_start)
        return done;
    e = fetch_turn(c, now_ns);
    return e < 0 ? e : done + e;
}

/* Blocks wait, or are refused when they have waited for too long; other nodes are served from the
 * log; what was asked for is done. */
static int node_fenced_turn(struct cluster *c, uint64_t now_ns)
{
    int done = forward_turn(c, now_ns), e;

    assert(!c->raft_open && !c->app_open);
    if (done < 0)
        return done;
    e = fetch_turn(c, now_ns);
    if (e < 0)
        return e;
    done += e;
    e = log_do_work(c->log, node_now_ns(c)); /* it may have been waited for meanwhile */
    if (e < 0)
        return cluster_fail(c, e, "log: write failed: %s", strerror(-e));
    done += e;
    e = commit_turn(c);
    return e < 0 ? e : done + e;
}

int node_turn(struct cluster *c)
{
    uint64_t now = node_now_ns(c);
    int done, e;

    if (c->repair.at_start)
        return node_repair_turn(c, now);
    e = failover_turn(c, now);
    done = e < 0 ? e : recovery_turn(c, now);
    if (done < 0 || c->repair.at_start)
        return done;
    done += e;
    if (c->recovery.fenced) {
        e = node_fenced_turn(c, now);
        return e < 0 ? e : done + e;
    }
    e = lead_turn(c);
    if (e < 0)
        return e;
    done += e;
    e = change_turn(c);
    if (e < 0)
        return e;
    done += e;
    e = forward_turn(c, now);
    if (e < 0)
        return e;
    done += e;
    e = reconcile_turn(c, now);
    if (e < 0)
        return e;
    done += e;
    e = c->lead == LEAD_READY && !change_quiet(c) ? propose_turn(c, now) : 0;
    if (e < 0)
        return e;
    done += e;
    e = fetch_turn(c, now);
    if (e < 0)
        return e;
    done += e;
    e = repair_turn(c, now);
    if (e < 0)
        return e;
    done += e;
    e = log_do_work(c->log, node_now_ns(c));
    if (e < 0)
        return cluster_fail(c, e, "log: write failed: %s; nothing more is accepted or answered",
                            strerror(-e));
    done += e;
    e = node_begun(c);
    if (e == 0)
        e = consensus_persisted(c, log_persisted_index(c->log));
    if (e < 0)
        return e;
    e = consensus_tick(c);
    if (e < 0)
        return e;
    e = region_turn(c, now);
    if (e < 0)
        return e;
    done += e;
    e = commit_turn(c);
    return e < 0 ? e : done + e;
}

uint64_t node_deadline_ns(const struct cluster *c, uint64_t now_ns)
{
    uint64_t at = repair_deadline_ns(c, now_ns), fetch_at = fetch_deadline_ns(c, now_ns);
    uint64_t forward_at, log_at;
    bool waits;

    if (c->repair.at_start)
        return at < fetch_at ? at : fetch_at;
    if (recovery_deadline_ns(c, now_ns) < at)
        at = recovery_deadline_ns(c, now_ns);
    if (failover_deadline_ns(c, now_ns) < at)
        at = failover_deadline_ns(c, now_ns);
    if (!c->recovery.fenced && reconcile_deadline_ns(c, now_ns) < at)
        at = reconcile_deadline_ns(c, now_ns);
    forward_at = forward_deadline_ns(c);
    log_at = log_deadline_ns(c->log);
    waits =
        c->lead == LEAD_READY ? c->arrived != NULL || c->forward.waiting > 0 : consensus_leads(c);
    if (!c->recovery.fenced && c->raft_timeout_ms * NS_PER_MS < at)
        at = c->raft_timeout_ms * NS_PER_MS;
    if (log_at < at)
        at = log_at;
    if (fetch_at < at)
        at = fetch_at;
    if (forward_at < at)
        at = forward_at;
    if (region_deadline_ns(c) < at)
        at = region_deadline_ns(c);
    if (waits && now_ns + RETRY_NS < at)
        at = now_ns + RETRY_NS;
    if (c->apply_wait != 0 && c->apply_again_ns < at)
        at = c->apply_again_ns;
    if (c->change.step != CHANGE_NONE && now_ns + CHANGE_RETRY_NS < at)
        at = now_ns + CHANGE_RETRY_NS;
    /* Only a leader ends a segment. */
    if (c->lead == LEAD_READY && c->seal_due_ns != 0 && c->seal_due_ns < at)
        at = c->seal_due_ns;
    return at;
}
