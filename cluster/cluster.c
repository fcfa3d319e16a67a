/*
 * cluster.c - the cluster thread: a libuv loop around a node's turns.
 *
 * A turn (node.c) runs before the loop would sleep. The loop sleeps on the disk's eventfd, the
 * thread's own wake and one timer (the engine's, the log's, or a retry).
 *
 * Failure of disk, log, engine or dedupe ends the node at once: app.failed() is called and does not
 * return to any work. Nothing is answered after it.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/report.h"
#include "cluster/internal.h"
#include "cluster/node_call.h"
#include "cluster/peer.h"

#define DRAIN_NS_MAX (3 * NS_PER_S)
#define WAIT_NS      (100 * NS_PER_MS) /* a wait for an index looks so often if all is over */

int cluster_fail(struct cluster *c, int error, const char *format, ...)
{
    va_list a;

    assert(error < 0);
    pthread_mutex_lock(&c->lock);
    if (c->run_state != CLUSTER_FAILED) {
        va_start(a, format);
        vsnprintf(c->error, sizeof c->error, format, a);
        va_end(a);
        c->run_state = CLUSTER_FAILED;
    }
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    return error;
}

static void cluster_set_state(struct cluster *c, enum cluster_state s)
{
    if (c->told_state == s)
        return;
    c->told_state = s;
    pthread_mutex_lock(&c->lock);
    if (c->run_state != CLUSTER_FAILED)
        c->run_state = s;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static bool cluster_failed(struct cluster *c)
{
    bool failed;

    pthread_mutex_lock(&c->lock);
    failed = c->run_state == CLUSTER_FAILED;
    pthread_mutex_unlock(&c->lock);
    return failed;
}

static int cluster_run_calls(struct cluster *c)
{
    int n = 0;

    pthread_mutex_lock(&c->lock);
    while (c->calls != NULL) {
        struct call *call = c->calls;

        c->calls = call->next;
        pthread_mutex_unlock(&c->lock);
        call->fn(call->arg);
        pthread_mutex_lock(&c->lock);
        call->done = true;
        pthread_cond_broadcast(&c->changed);
        n++;
    }
    pthread_mutex_unlock(&c->lock);
    return n;
}

static void on_timer(uv_timer_t *t) { (void)t; /* the turn before the next sleep does the work */ }
static void on_idle(uv_idle_t *i) { (void)i; }
static void on_disk(uv_poll_t *p, int status, int events) { (void)p, (void)status, (void)events; }

static void on_wake(uv_poll_t *p, int status, int events)
{
    struct cluster *c = p->data;

    (void)status, (void)events;
    wake_drain(&c->wake);
}

/* Or does it wait to be of a cluster? */
static bool node_is_there(const struct cluster *c) { return c->log != NULL || c->repair.at_start; }

/* Sleeps until the engine's, the log's or a connection's next deadline, or a retry when something
 * waits for room. */
static void cluster_arm(struct cluster *c)
{
    uint64_t now = clock_monotonic_ns();
    uint64_t at = node_is_there(c) ? node_deadline_ns(c, now) : UINT64_MAX;

    if (c->peers != NULL && peers_deadline_ns(c->peers) < at)
        at = peers_deadline_ns(c->peers);
    if (at > now + NS_PER_S)
        at = now + NS_PER_S;

    uv_update_time(&c->loop);
    uv_timer_start(&c->timer, on_timer, at > now ? (at - now + NS_PER_MS - 1) / NS_PER_MS : 0, 0);
}

/* A cluster of one has started when it takes blocks; others when the node is open. */
static void cluster_note_state(struct cluster *c)
{
    bool leads = c->lead == LEAD_READY;

    if (c->repair.at_start) {
        cluster_set_state(c, CLUSTER_REPAIRING);
        return;
    }
    if (c->recovery.fenced) {
        cluster_set_state(c, CLUSTER_FENCED);
        return;
    }
    if (!c->begun && c->have_genesis && (leads || c->peers != NULL)) {
        c->begun = true;
        if (c->config.begun != NULL)
            c->config.begun(c->config.begun_arg);
    }
    if (!c->started && !leads && c->peers == NULL)
        return;
    if (!c->started)
        c->start_ns = clock_monotonic_ns() - c->begun_ns;
    c->started = true;
    cluster_set_state(c, leads ? CLUSTER_LEADER : CLUSTER_FOLLOWER);
}

/* A node that waits has been given a cluster, to begin with the others or to be added to. */
static int cluster_begin(struct cluster *c)
{
    int e;

    if (c->bootstrap_given)
        c->config.bootstrap = &c->bootstrap;
    else if (c->join_offered)
        c->config.join_cluster_id = c->join_id;
    else
        return 0;
    state_enter(&c->state, c->bootstrap_given ? c->bootstrap.cluster_id : c->join_id,
                c->bootstrap_given ? 0 : c->offer_epoch);
    e = state_write(c);
    return e < 0 ? e : node_open(c);
}

static void on_handed_over(void *arg, int result, const char *sentence)
{
    (void)arg;
    if (result < 0)
        report_info("lead_kept", "the lead is not handed over: %s", sentence);
}

/* The others need not wait for an election timeout. */
static void cluster_hand_over(struct cluster *c)
{
    const struct change_request r = { .kind = CHANGE_TRANSFER, .actor = "stop" };

    if (consensus_leads(c) && c->lead == LEAD_READY && c->change.step == CHANGE_NONE)
        (void)change_begin(c, &r, on_handed_over, c);
}

/* Before a stop, what is not committed in time is refused: its producers ask again, elsewhere. The
 * blocks go back to their workers, so nothing may be written from them any more. */
static int cluster_drain_turn(struct cluster *c)
{
    int e = 0;

    if (!atomic_load(&c->drain_wanted) || c->log == NULL || c->repair.at_start)
        return 0;
    if (c->drain_ns == 0) {
        c->drain_ns = clock_monotonic_ns() + DRAIN_NS_MAX;
        cluster_hand_over(c);
    }
    if (clock_monotonic_ns() < c->drain_ns || (c->answers == NULL && propose_idle(c)))
        return 0;
    while (e >= 0 && log_persisted_index(c->log) < log_last_index(c->log))
        e = log_wait(c->log, clock_monotonic_ns());
    if (e < 0)
        return cluster_fail(c, e, "log: write failed: %s", strerror(-e));
    forward_give_up(c);
    return commit_turn(c);
}

/* Returns the work done, or a negative errno. */
static int cluster_turn(struct cluster *c)
{
    int done = cluster_run_calls(c), e = 0;

    if (!node_is_there(c))
        e = cluster_begin(c);
    if (e == 0 && node_is_there(c)) {
        e = node_turn(c);
        if (e >= 0) {
            done += e;
            cluster_note_state(c);
            e = cluster_drain_turn(c);
        }
    }
    if (e >= 0 && c->peers != NULL) {
        e = peers_turn(c->peers, clock_monotonic_ns());
        done += e;
    }
    return e < 0 ? e : done;
}

static bool cluster_may_stop(const struct cluster *c)
{
    if (c->log == NULL || c->repair.at_start)
        return true;
    if (c->change.step != CHANGE_NONE && clock_monotonic_ns() < c->drain_ns)
        return false;
    return propose_idle(c) && c->answers == NULL && (c->peers != NULL || commit_idle(c));
}

static void on_prepare(uv_prepare_t *p)
{
    struct cluster *c = p->data;
    bool more;
    int done;

    wake_done(&c->wake);
    done = cluster_turn(c);
    if (done < 0 || cluster_failed(c)) {
        uv_stop(&c->loop);
        return;
    }
    if (atomic_load(&c->stop_wanted) && cluster_may_stop(c)) {
        uv_stop(&c->loop);
        return;
    }
    wake_prepare(&c->wake);
    more = done > 0 ||
           (c->log != NULL && !change_quiet(c) && !propose_idle(c) && c->arrived == NULL) ||
           (c->disk_fd < 0 && c->appended_n > 0);
    if (!more) {
        pthread_mutex_lock(&c->lock);
        more = c->calls != NULL;
        pthread_mutex_unlock(&c->lock);
    }
    if (more) {
        wake_done(&c->wake);
        uv_idle_start(&c->idle, on_idle);
    } else {
        uv_idle_stop(&c->idle);
        cluster_arm(c);
    }
}

static int cluster_loop_init(struct cluster *c)
{
    int e = uv_loop_init(&c->loop);

    if (e < 0)
        return e;
    c->loop.data = c; /* says that the loop is to be closed */
    uv_prepare_init(&c->loop, &c->prepare);
    uv_idle_init(&c->loop, &c->idle);
    uv_timer_init(&c->loop, &c->timer);
    c->prepare.data = c->idle.data = c->timer.data = c;
    e = uv_poll_init(&c->loop, &c->wake_poll, c->wake.fd);
    c->wake_poll.data = c;
    if (e == 0)
        e = uv_poll_start(&c->wake_poll, UV_READABLE, on_wake);
    if (e == 0 && c->disk_fd >= 0) {
        e = uv_poll_init(&c->loop, &c->disk_poll, c->disk_fd);
        c->disk_poll.data = c;
        if (e == 0)
            e = uv_poll_start(&c->disk_poll, UV_READABLE, on_disk);
    }
    if (e == 0)
        e = uv_prepare_start(&c->prepare, on_prepare);
    return e;
}

static void close_handle(uv_handle_t *h, void *arg)
{
    (void)arg;
    if (!uv_is_closing(h))
        uv_close(h, NULL);
}

static void cluster_loop_fini(struct cluster *c)
{
    uv_walk(&c->loop, close_handle, NULL);
    while (uv_run(&c->loop, UV_RUN_DEFAULT) != 0) {
    }
    uv_loop_close(&c->loop);
}

/* --- what a node gets from its driver -----------------------------------------------------------
 */

static uint64_t system_monotonic_ns(void *arg) { return (void)arg, clock_monotonic_ns(); }
static uint64_t system_unix_ns(void *arg) { return (void)arg, clock_unix_ns(); }
static void system_random(void *arg, void *ret, size_t n) { (void)arg, randombytes_buf(ret, n); }

static const struct node_environment system_environment = {
    .monotonic_ns = system_monotonic_ns,
    .unix_ns = system_unix_ns,
    .random = system_random,
};

static const struct node_environment peered_environment = {
    .monotonic_ns = system_monotonic_ns,
    .unix_ns = system_unix_ns,
    .random = system_random,
    .send = peers_send,
    .post = peers_post,
};

static void background_work(uv_work_t *work)
{
    struct cluster *c = work->data;

    c->background_fn(c);
}

static void background_done(uv_work_t *work, int status)
{
    struct cluster *c = work->data;

    c->background_done(c, status);
}

static int cluster_background(struct cluster *c, void (*fn)(struct cluster *),
                              void (*done)(struct cluster *, int))
{
    c->background_fn = fn;
    c->background_done = done;
    c->background_request.data = c;
    return uv_queue_work(&c->loop, &c->background_request, background_work, background_done);
}

static int cluster_open(struct cluster *c)
{
    char error[LOG_ERROR_BYTES] = "";
    int e = node_prepare(c);

    if (e == 0)
        e = cluster_loop_init(c);
    if (e == 0 && c->config.peering != NULL) {
        e = peers_open(&c->peers, c, error);
        if (e < 0)
            return cluster_fail(c, e, "%s", error[0] != '\0' ? error : strerror(-e));
        c->environment.arg = c->peers;
    }
    if (e == 0 && node_waits(c))
        cluster_set_state(c, CLUSTER_WAITING);
    else if (e == 0)
        e = node_open(c);
    return e;
}

static void *cluster_main(void *arg)
{
    struct cluster *c = arg;
    int e;

    pthread_setname_np(pthread_self(), "sluice-cluster");
    c->begun_ns = clock_monotonic_ns();
    c->begun_unix_ns = clock_unix_ns();
    e = cluster_open(c);
    if (e < 0) {
        cluster_fail(c, e, "start: %s", strerror(-e)); /* keeps the first sentence */
    } else {
        uv_run(&c->loop, UV_RUN_DEFAULT);
        if (cluster_failed(c)) {
            if (c->started || c->peers != NULL)
                c->app.failed(c->app.arg, c->error);
        } else {
            uv_prepare_stop(&c->prepare);
            while (c->checkpoint_writing)
                uv_run(&c->loop, UV_RUN_ONCE);
            cluster_set_state(c, CLUSTER_STOPPED);
        }
    }
    peers_close(c->peers);
    node_calls_end(c);
    pthread_mutex_lock(&c->lock);
    c->ended = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static void cluster_free(struct cluster *c)
{
    consensus_close(c); /* a checkpoint that ends now has nobody to tell */
    if (c->loop.data == c)
        cluster_loop_fini(c);
    peers_free(c->peers);
    wake_close(&c->wake);
    node_free(c);
}

/* Without it the node is as good as it can be. */
static void cluster_scrub(struct cluster *c)
{
    int e;

    if (c->config.scrub_bytes_per_s == 0 || c->config.disk != NULL)
        return;
    e = scrub_start(&c->scrub, c);
    if (e < 0)
        report_warn("scrub", "old segments are not looked at: %s", strerror(-e));
}

int cluster_start(struct cluster **ret, const struct cluster_config *config,
                  const struct cluster_app *app, char error[LOG_ERROR_BYTES])
{
    const struct node_environment *environment =
        config->peering != NULL ? &peered_environment : &system_environment;
    struct cluster *c = sodium_init() < 0 ? NULL : node_new(config, app, environment);
    int e;

    if (c == NULL) {
        snprintf(error, LOG_ERROR_BYTES, "start: %s", strerror(ENOMEM));
        return -ENOMEM;
    }
    c->background = cluster_background;
    c->wake.fd = -1;
    e = wake_open(&c->wake);
    if (e == 0)
        e = -pthread_create(&c->thread, NULL, cluster_main, c);
    if (e < 0) {
        snprintf(error, LOG_ERROR_BYTES, "start: %s", strerror(-e));
        cluster_free(c);
        return e;
    }
    pthread_mutex_lock(&c->lock);
    while (c->run_state == CLUSTER_STARTING)
        pthread_cond_wait(&c->changed, &c->lock);
    e = c->run_state == CLUSTER_FAILED ? -EIO : 0;
    pthread_mutex_unlock(&c->lock);
    if (e == 0) {
        cluster_scrub(c);
        *ret = c;
        return 0;
    }
    pthread_join(c->thread, NULL);
    snprintf(error, LOG_ERROR_BYTES, "%s", c->error);
    cluster_free(c);
    return e;
}

void cluster_wake(struct cluster *c) { wake_up(&c->wake); }

void cluster_drain(struct cluster *c)
{
    if (c == NULL || c->peers == NULL)
        return;
    atomic_store(&c->drain_wanted, true);
    cluster_wake(c);
}

void cluster_stop(struct cluster *c)
{
    if (c == NULL)
        return;
    scrub_stop(c->scrub);
    atomic_store(&c->stop_wanted, true);
    cluster_wake(c);
    pthread_join(c->thread, NULL);
    cluster_free(c);
}

const uint8_t *cluster_hash_key(const struct cluster *c) { return c->genesis_hash_key; }
const uint8_t *cluster_id(const struct cluster *c) { return c->state.cluster_id; }

uint64_t cluster_commit_index(const struct cluster *c)
{
    return atomic_load_explicit(&c->commit_public, memory_order_acquire);
}

uint64_t cluster_history(const struct cluster *c)
{
    return atomic_load_explicit(&c->history_public, memory_order_acquire);
}

int cluster_call(struct cluster *c, void (*fn)(void *arg), void *arg)
{
    struct call call = { .fn = fn, .arg = arg }, **end;
    int e = 0;

    assert(!pthread_equal(pthread_self(), c->thread));
    pthread_mutex_lock(&c->lock);
    for (end = &c->calls; *end != NULL; end = &(*end)->next) {
    }
    if (!c->ended)
        *end = &call;
    pthread_mutex_unlock(&c->lock);
    cluster_wake(c);
    pthread_mutex_lock(&c->lock);
    while (!call.done && !c->ended)
        pthread_cond_wait(&c->changed, &c->lock);
    if (!call.done) {
        for (end = &c->calls; *end != NULL; end = &(*end)->next) {
            if (*end == &call) {
                *end = call.next;
                break;
            }
        }
        e = -ESHUTDOWN;
    }
    pthread_mutex_unlock(&c->lock);
    return e;
}

struct status_call {
    struct cluster *c;
    struct cluster_status *ret;
};

static void status_fill(void *arg)
{
    struct status_call *s = arg;
    struct cluster *c = s->c;
    struct cluster_status *r = s->ret;

    r->start_ns = c->start_ns;
    memcpy(r->cluster_id, c->state.cluster_id, sizeof r->cluster_id);
    r->term = c->state.term;
    r->lag_ns = UINT64_MAX;
    r->epoch = c->state.term >> CLUSTER_EPOCH_SHIFT;
    int64_t free_bytes = c->disk->ops->free_bytes(c->disk);
    r->disk_free_bytes = free_bytes > 0 ? (uint64_t)free_bytes : 0;
    snprintf(r->note, sizeof r->note, "%s",
             c->recovery.note[0] != '\0' ? c->recovery.note : c->repair.note);
    r->repaired_segments = c->repair.segments;
    r->scrub_passes = atomic_load(&c->scrub_passes);
    if (c->log == NULL)
        return;
    r->first_index = log_first_index(c->log);
    r->last_index = log_last_index(c->log);
    r->persisted_index = log_persisted_index(c->log);
    r->commit_index = c->commit_index;
    r->applied_index = c->applied_index;
    r->checkpoint_index = c->checkpoint_index;
    r->log_bytes = log_disk_bytes(c->log);
    r->replayed_entries = c->replayed_entries;
    r->events = c->events;
    r->events_own = c->events_own;
    r->events_doubtful = c->events_doubtful;
    r->events_orphaned = c->events_orphaned;
    r->leader = consensus_leader(c);
    r->lag_ns = lag_ms(c) == UINT64_MAX ? UINT64_MAX : lag_ms(c) * NS_PER_MS;
    if (r->leader != c->config.node && c->heard_ms != 0)
        r->leader_heard_ns = node_now_ns(c) - c->heard_ms * NS_PER_MS;
    r->last_time_ns = c->last_time_ns;
    memcpy(r->events_by_type, c->events_by_type, sizeof r->events_by_type);
    log_digest(c->log, r->digest);
    /* Refusals set it, and what cannot be applied; without new blocks only asking again can tell
     * that there is room. */
    if (c->disk_full && c->app_open && c->apply_wait != -ENOSPC &&
        log_reserve(c->log, 0) != -ENOSPC && c->app.ready(c->app.arg, 1) != -ENOSPC)
        c->disk_full = false;
    r->disk_full = c->disk_full;
}

void cluster_status(struct cluster *c, struct cluster_status *ret)
{
    struct status_call s = { c, ret };

    memset(ret, 0, sizeof *ret);
    cluster_call(c, status_fill, &s);
    pthread_mutex_lock(&c->lock);
    ret->state = c->run_state;
    memcpy(ret->error, c->error, sizeof ret->error);
    pthread_mutex_unlock(&c->lock);
    ret->node = c->config.node;
    ret->region = c->config.region;
}

void cluster_interrupt(struct cluster *c)
{
    if (c == NULL)
        return;
    pthread_mutex_lock(&c->lock);
    c->interrupted = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

bool cluster_is_over(struct cluster *c)
{
    bool over;

    pthread_mutex_lock(&c->lock);
    over = c->ended || c->interrupted;
    pthread_mutex_unlock(&c->lock);
    return over;
}

int cluster_wait(struct cluster *c, uint64_t index, uint64_t timeout_ns)
{
    const uint64_t until = clock_monotonic_ns() + timeout_ns;
    struct wake w;
    int e = wake_open(&w);

    if (e == 0)
        e = cluster_watch(c, &w);
    while (e == 0) {
        struct pollfd p = { .fd = w.fd, .events = POLLIN };
        uint64_t now = clock_monotonic_ns();

        wake_prepare(&w);
        if (cluster_commit_index(c) >= index)
            break;
        if (now >= until)
            e = -ETIMEDOUT;
        else if (cluster_is_over(c))
            e = -ESHUTDOWN;
        else
            (void)poll(&p, 1,
                       until - now < WAIT_NS ? (int)((until - now) / NS_PER_MS + 1)
                                             : (int)(WAIT_NS / NS_PER_MS));
        wake_done(&w);
        wake_drain(&w);
    }
    cluster_unwatch(c, &w);
    wake_close(&w);
    return e;
}

int cluster_watch(struct cluster *c, struct wake *watcher)
{
    int e = -EUSERS;

    pthread_mutex_lock(&c->watch_lock);
    for (unsigned i = 0; i < CLUSTER_WATCHERS_MAX && e != 0; i++) {
        if (c->watcher[i] == NULL) {
            c->watcher[i] = watcher;
            e = 0;
        }
    }
    pthread_mutex_unlock(&c->watch_lock);
    return e;
}

void cluster_unwatch(struct cluster *c, struct wake *watcher)
{
    pthread_mutex_lock(&c->watch_lock);
    for (unsigned i = 0; i < CLUSTER_WATCHERS_MAX; i++) {
        if (c->watcher[i] == watcher)
            c->watcher[i] = NULL;
    }
    pthread_mutex_unlock(&c->watch_lock);
}
