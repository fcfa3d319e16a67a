/*
 * client.c - the functions of sluice.h, and the requests that wait for their receipts.
 *
 * Thread:  callers queue requests under the mutex; the client's thread sends and completes them.
 * Memory:  a request is one allocation, made before its caller waits for room: at most
 *          bytes_in_flight_max and one batch for each waiting caller.
 * Limits:  requests_in_flight_max, bytes_in_flight_max, and what the server's Welcome said.
 * Errors:  see sluice.h.
 */
#include "client/internal.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <pb_decode.h>

#include "base/clock.h"
#include "base/frame.h"
#include "proto/event.pb.h"
#include "proto/wire.pb.h"

/* --- requests ------------------------------------------------------------------------------- */

static struct request **bucket_of(struct sluice_client *c, uint64_t number)
{
    return &c->bucket[number & (c->buckets - 1)];
}

/* Behind all others, to be sent. */
static void list_append(struct sluice_client *c, struct request *r)
{
    r->prev = c->tail;
    r->next = NULL;
    if (c->tail)
        c->tail->next = r;
    else
        c->head = r;
    c->tail = r;
    if (!c->unsent)
        c->unsent = r;
}

static void list_remove(struct sluice_client *c, struct request *r)
{
    if (r->prev)
        r->prev->next = r->next;
    else
        c->head = r->next;
    if (r->next)
        r->next->prev = r->prev;
    else
        c->tail = r->prev;
    if (c->unsent == r)
        c->unsent = r->next;
}

static void waiting_remove(struct sluice_client *c, struct request *r)
{
    assert(r->waiting);
    if (r->prev)
        r->prev->next = r->next;
    else
        c->waiting = r->next;
    if (r->next)
        r->next->prev = r->prev;
    r->waiting = false;
}

static void request_link(struct sluice_client *c, struct request *r)
{
    struct request **bucket = bucket_of(c, r->number);

    r->hash_next = *bucket;
    *bucket = r;
    list_append(c, r);
    c->requests++;
    c->bytes += r->bytes;
}

static void request_unlink(struct sluice_client *c, struct request *r)
{
    struct request **at = bucket_of(c, r->number);

    while (*at != r)
        at = &(*at)->hash_next;
    *at = r->hash_next;
    if (r->waiting)
        waiting_remove(c, r);
    else
        list_remove(c, r);
    assert(c->requests > 0 && c->bytes >= r->bytes);
    c->requests--;
    c->bytes -= r->bytes;
}

void client_put_off(struct sluice_client *c, struct request *r, uint64_t due_ns)
{
    pthread_mutex_lock(&c->mutex);
    assert(!r->waiting && r != c->unsent);
    list_remove(c, r);
    r->waiting = true;
    r->due_ns = due_ns;
    r->connection = 0; /* no connection owes an answer */
    r->prev = NULL;
    r->next = c->waiting;
    if (c->waiting)
        c->waiting->prev = r;
    c->waiting = r;
    pthread_mutex_unlock(&c->mutex);
}

void client_resume(struct sluice_client *c, uint64_t now_ns)
{
    pthread_mutex_lock(&c->mutex);
    for (struct request *r = c->waiting, *next; r; r = next) {
        next = r->next;
        if (r->due_ns > now_ns)
            continue;
        waiting_remove(c, r);
        list_append(c, r);
    }
    pthread_mutex_unlock(&c->mutex);
}

uint64_t client_due_ns(struct sluice_client *c)
{
    uint64_t due_ns = UINT64_MAX;

    pthread_mutex_lock(&c->mutex);
    for (const struct request *r = c->waiting; r; r = r->next)
        due_ns = r->due_ns < due_ns ? r->due_ns : due_ns;
    pthread_mutex_unlock(&c->mutex);
    return due_ns;
}

struct request *client_find(struct sluice_client *c, uint64_t number)
{
    pthread_mutex_lock(&c->mutex);
    struct request *r = *bucket_of(c, number);

    while (r && r->number != number)
        r = r->hash_next;
    pthread_mutex_unlock(&c->mutex);
    return r;
}

static void count_outcomes(struct sluice_stats *stats, const struct sluice_receipt *receipt)
{
    stats->receipts += receipt->status == 0;
    for (size_t i = 0; i < receipt->outcomes; i++) {
        uint32_t reason = receipt->outcome[i].reason;

        if (reason == sluice_v1_Reason_REASON_NONE)
            stats->events_accepted++;
        else if (reason == sluice_v1_Reason_DUPLICATE)
            stats->events_duplicate++;
        else
            stats->events_refused++;
    }
}

void client_complete(struct sluice_client *c, struct request *r, struct sluice_receipt *receipt)
{
    receipt->request = r->number;
    receipt->user = r->user;
    receipt->attempts = r->attempts;
    receipt->latency_ns = r->attempts ? clock_monotonic_ns() - r->first_sent_ns : 0;
    /* Room first: the callback may send. sluice_flush() waits for `calling` too. */
    pthread_mutex_lock(&c->mutex);
    request_unlink(c, r);
    count_outcomes(&c->stats, receipt);
    c->calling = true;
    pthread_mutex_unlock(&c->mutex);
    c->options.on_receipt(c->options.arg, receipt);
    free(r->kept);
    free(r);
    pthread_mutex_lock(&c->mutex);
    c->calling = false;
    if (c->waiters)
        pthread_cond_broadcast(&c->room);
    pthread_mutex_unlock(&c->mutex);
}

void client_complete_all(struct sluice_client *c, int status)
{
    assert(status < 0);
    for (;;) {
        struct sluice_receipt receipt = { .status = status };

        pthread_mutex_lock(&c->mutex);
        struct request *r = c->head ? c->head : c->waiting;

        pthread_mutex_unlock(&c->mutex);
        if (!r)
            return;
        client_complete(c, r, &receipt);
    }
}

bool client_is_closing(struct sluice_client *c)
{
    pthread_mutex_lock(&c->mutex);
    bool closing = c->closing;

    pthread_mutex_unlock(&c->mutex);
    return closing;
}

void client_say(struct sluice_client *c, int connected, const char *format, ...)
{
    char sentence[CLIENT_SENTENCE_MAX];
    va_list args;

    if (!c->options.on_state)
        return;
    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    c->options.on_state(c->options.arg, connected, sentence);
}

int client_poll(struct sluice_client *c, int fd, short events, uint64_t deadline_ns)
{
    struct pollfd fds[2] = { { .fd = c->wake_fd, .events = POLLIN },
                             { .fd = fd, .events = events } };
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t wait_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
    struct timespec wait = { .tv_sec = (time_t)(wait_ns / NS_PER_S),
                             .tv_nsec = (long)(wait_ns % NS_PER_S) };
    uint64_t ignored;

    if (ppoll(fds, 2, &wait, NULL) <= 0)
        return 0;
    if (fds[0].revents && read(c->wake_fd, &ignored, sizeof(ignored)) < 0)
        assert(errno == EAGAIN);
    return fds[1].revents;
}

static void wake(struct sluice_client *c)
{
    uint64_t one = 1;

    /* Only a counter at its limit could refuse, and that one is readable already. */
    if (write(c->wake_fd, &one, sizeof(one)) < 0)
        assert(errno == EAGAIN);
}

/* --- sluice_send ---------------------------------------------------------------------------- */

static int event_check(const void *event, size_t bytes, bool id_needed)
{
    pb_istream_t in = pb_istream_from_buffer(event, bytes);
    bool has_type = false, has_source = false, has_id = false;

    while (in.bytes_left) {
        pb_wire_type_t wire_type;
        uint32_t tag, length = 0;
        uint64_t value = 0;
        bool eof = false;

        if (!pb_decode_tag(&in, &wire_type, &tag, &eof))
            return -EINVAL;
        if (tag == sluice_v1_Event_type_tag && wire_type == PB_WT_VARINT) {
            if (!pb_decode_varint(&in, &value))
                return -EINVAL;
            has_type = value != 0;
        } else if (wire_type == PB_WT_STRING) {
            if (!pb_decode_varint32(&in, &length) || !pb_read(&in, NULL, length))
                return -EINVAL;
            has_source |= tag == sluice_v1_Event_source_tag && length > 0;
            has_id |= tag == sluice_v1_Event_id_tag && length > 0;
        } else if (!pb_skip_field(&in, wire_type)) {
            return -EINVAL;
        }
    }
    return has_type && has_source && (has_id || !id_needed) ? 0 : -EINVAL;
}

/* Copies the events behind room for the header, whose request number is not known yet. */
static int request_make(struct request **ret, struct sluice_client *c, const void *const *event,
                        const size_t *event_bytes, size_t n, void *user)
{
    size_t body = 0;

    for (size_t i = 0; i < n; i++) {
        if (event_bytes[i] > CLIENT_FRAME_BYTES_MAX || body > CLIENT_FRAME_BYTES_MAX)
            return -EMSGSIZE;
        if (event_check(event[i], event_bytes[i], !c->options.allow_missing_ids) < 0)
            return -EINVAL;
        body += (size_t)frame_put_event_head(NULL, 0, (uint32_t)event_bytes[i]) + event_bytes[i];
    }
    if (body + FRAME_BATCH_HEAD_MAX > c->options.bytes_in_flight_max)
        return -EMSGSIZE;

    struct request *r = malloc(sizeof(*r) + FRAME_BATCH_HEAD_MAX + body);

    if (!r)
        return -ENOMEM;
    *r = (struct request){ .user = user, .events = (uint32_t)n, .bytes = body };
    uint8_t *at = r->data + FRAME_BATCH_HEAD_MAX;

    r->frame = at;
    for (size_t i = 0; i < n; i++) {
        at += frame_put_event_head(at, FRAME_EVENT_HEAD_MAX, (uint32_t)event_bytes[i]);
        memcpy(at, event[i], event_bytes[i]);
        at += event_bytes[i];
    }
    assert(at == r->frame + body);
    *ret = r;
    return 0;
}

/* Puts the header in front of the events that are there already. */
static void request_head(struct request *r, uint64_t number, int durability)
{
    uint8_t head[FRAME_BATCH_HEAD_MAX];
    struct frame_batch batch = { .request = number,
                                 .batch_bytes = (uint32_t)r->bytes,
                                 .durability = (uint32_t)durability };
    ssize_t bytes = frame_put_batch_head(head, sizeof(head), &batch);

    assert(bytes > 0 && r->frame == r->data + FRAME_BATCH_HEAD_MAX);
    memcpy(r->data + FRAME_BATCH_HEAD_MAX - bytes, head, (size_t)bytes);
    r->frame -= bytes;
    r->bytes += (size_t)bytes;
    r->number = number;
}

static struct timespec deadline_of(int timeout_ms)
{
    uint64_t ns = clock_monotonic_ns() + (uint64_t)timeout_ms * NS_PER_MS;

    return (struct timespec){ .tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S) };
}

/* One wait on `room`, with the mutex held. -ETIMEDOUT once the deadline has passed. */
static int wait_for_room(struct sluice_client *c, int timeout_ms, const struct timespec *deadline)
{
    int rc;

    if (timeout_ms == 0)
        return -ETIMEDOUT;
    c->waiters++;
    if (timeout_ms < 0)
        rc = pthread_cond_wait(&c->room, &c->mutex);
    else
        rc = pthread_cond_timedwait(&c->room, &c->mutex, deadline);
    c->waiters--;
    if (c->closing)
        pthread_cond_broadcast(&c->room); /* sluice_close() waits for the last of us */
    return -rc;
}

/* With the mutex held: 0 as soon as a request of body bytes may be queued. */
static int room_get(struct sluice_client *c, uint32_t events, size_t body, int timeout_ms)
{
    struct timespec deadline = { 0 };
    int rc;

    if (timeout_ms > 0)
        deadline = deadline_of(timeout_ms);
    for (;;) {
        if (c->closing)
            return -ECANCELED;
        if (c->failed)
            return c->failed;
        if (body + FRAME_BATCH_HEAD_MAX > c->frame_bytes_max || events > c->batch_events_max)
            return -EMSGSIZE;
        if (c->requests < c->options.requests_in_flight_max &&
            c->bytes + body + FRAME_BATCH_HEAD_MAX <= c->options.bytes_in_flight_max)
            return 0;
        rc = wait_for_room(c, timeout_ms, &deadline);
        if (rc < 0)
            return rc == -ETIMEDOUT ? -EAGAIN : rc;
    }
}

int sluice_send(struct sluice_client *c, const void *const *event, const size_t *event_bytes,
                size_t n, void *user, int timeout_ms, uint64_t *ret_request)
{
    struct request *r;
    int rc;

    if (n == 0)
        return -EINVAL;
    if (n > UINT32_MAX)
        return -EMSGSIZE;
    rc = request_make(&r, c, event, event_bytes, n, user);
    if (rc < 0)
        return rc;
    if (pthread_equal(pthread_self(), c->thread))
        timeout_ms = 0;
    pthread_mutex_lock(&c->mutex);
    rc = room_get(c, r->events, r->bytes, timeout_ms);
    if (rc == 0) {
        request_head(r, ++c->request_last, c->options.durability);
        if (ret_request)
            *ret_request = r->number;
        request_link(c, r);
        c->stats.requests++;
        if (c->asleep) {
            c->asleep = false;
            wake(c);
        }
    }
    pthread_mutex_unlock(&c->mutex);
    if (rc < 0)
        free(r);
    return rc;
}

int sluice_flush(struct sluice_client *c, int timeout_ms)
{
    struct timespec deadline = { 0 };
    int rc = 0;

    if (pthread_equal(pthread_self(), c->thread))
        return -EDEADLK;
    if (timeout_ms > 0)
        deadline = deadline_of(timeout_ms);
    pthread_mutex_lock(&c->mutex);
    while ((c->requests || c->calling) && !c->closing && rc == 0)
        rc = wait_for_room(c, timeout_ms, &deadline);
    if (c->requests == 0 && !c->calling)
        rc = 0;
    else if (c->closing)
        rc = -ECANCELED;
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

void sluice_stats(struct sluice_client *c, struct sluice_stats *ret)
{
    pthread_mutex_lock(&c->mutex);
    *ret = c->stats;
    ret->in_flight = c->requests;
    pthread_mutex_unlock(&c->mutex);
}

/* --- open and close ------------------------------------------------------------------------- */

void sluice_options_init(struct sluice_options *o)
{
    *o = (struct sluice_options){ .addresses = "127.0.0.1:7400",
                                  .requests_in_flight_max = 64,
                                  .bytes_in_flight_max = 16u << 20,
                                  .connect_timeout_ms = 3000,
                                  .receipt_timeout_ms = 10000,
                                  .backoff_ms_max = 2000,
                                  .retry_ms_max = 30000 };
}

/* With the files' names, which are not kept. */
static int tls_open(struct sluice_client *c, const struct sluice_options *o)
{
    const struct tls_files files = { o->ca, o->cert, o->key };
    char sentence[TLS_ERROR_BYTES];
    int rc;

    c->options.ca = c->options.cert = c->options.key = NULL;
    if (!o->ca && !o->cert && !o->key)
        return 0;
    if (!o->ca || !o->cert || !o->key)
        return -EINVAL;
    rc = tls_context_new(&c->tls, &files, sentence);
    if (rc < 0)
        client_say(c, 0, "%s", sentence);
    return rc;
}

static int options_copy(struct sluice_client *c, const struct sluice_options *o)
{
    c->options = *o;
    if (o->durability < SLUICE_TYPES_FLOOR || o->durability > SLUICE_REGION)
        return -EINVAL;
    if (!o->on_receipt || !o->addresses || o->requests_in_flight_max == 0 ||
        o->requests_in_flight_max > CLIENT_REQUESTS_MAX || o->bytes_in_flight_max == 0 ||
        o->connect_timeout_ms == 0 || o->receipt_timeout_ms == 0 ||
        o->token_bytes > CLIENT_TOKEN_BYTES_MAX || (o->token_bytes && !o->token) ||
        (o->producer && strlen(o->producer) > CLIENT_PRODUCER_MAX))
        return -EINVAL;
    if (o->producer)
        strcpy(c->producer, o->producer);
    if (o->token_bytes)
        memcpy(c->token, o->token, o->token_bytes);
    c->options.addresses = NULL;
    c->options.producer = c->producer;
    c->options.token = c->token;
    int rc = connect_parse(c, o->addresses);

    return rc < 0 ? rc : tls_open(c, o);
}

static void locks_init(struct sluice_client *c)
{
    pthread_condattr_t attr;

    /* None of these fails on Linux but for want of memory, which they do not use. */
    pthread_mutex_init(&c->mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->room, &attr);
    pthread_condattr_destroy(&attr);
}

static void client_free(struct sluice_client *c)
{
    if (c->wake_fd >= 0)
        close(c->wake_fd);
    pthread_cond_destroy(&c->room);
    pthread_mutex_destroy(&c->mutex);
    tls_context_free(c->tls);
    free(c->connection.input);
    free(c->outcome);
    free(c->bucket);
    free(c);
}

/* The application's signals are for the application's threads. */
static int thread_start(struct sluice_client *c)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    /* The thread compares itself with c->thread in callbacks: it must not run before it is set. */
    pthread_mutex_lock(&c->mutex);
    int rc = -pthread_create(&c->thread, NULL, connect_thread, c);

    pthread_mutex_unlock(&c->mutex);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int sluice_open(struct sluice_client **ret, const struct sluice_options *options)
{
    struct sluice_client *c = calloc(1, sizeof(*c));
    int rc;

    if (!c)
        return -ENOMEM;
    locks_init(c);
    c->connection.fd = -1;
    c->wake_fd = -1;
    c->frame_bytes_max = CLIENT_FRAME_BYTES_MAX;
    c->batch_events_max = UINT32_MAX;
    rc = options_copy(c, options);
    if (rc < 0)
        goto fail;
    for (c->buckets = 2; c->buckets < 2 * c->options.requests_in_flight_max; c->buckets *= 2)
        ;
    rc = -ENOMEM;
    c->bucket = calloc(c->buckets, sizeof(*c->bucket));
    c->connection.input_max = CLIENT_INPUT_BYTES_MIN;
    c->connection.input = malloc(c->connection.input_max);
    if (!c->bucket || !c->connection.input)
        goto fail;
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rc = -errno;
    if (c->wake_fd < 0)
        goto fail;
    c->random = clock_monotonic_ns() ^ (uintptr_t)c;
    rc = thread_start(c);
    if (rc < 0)
        goto fail;
    *ret = c;
    return 0;

fail:
    client_free(c);
    return rc;
}

void sluice_close(struct sluice_client *c)
{
    if (!c)
        return;
    assert(!pthread_equal(pthread_self(), c->thread));
    pthread_mutex_lock(&c->mutex);
    c->closing = true;
    wake(c);
    pthread_cond_broadcast(&c->room);
    while (c->waiters)
        pthread_cond_wait(&c->room, &c->mutex);
    pthread_mutex_unlock(&c->mutex);
    pthread_join(c->thread, NULL);
    assert(c->requests == 0);
    client_free(c);
}

/* --- reasons -------------------------------------------------------------------------------- */

const char *sluice_reason_name(uint32_t reason)
{
#define NAME(name) [sluice_v1_Reason_##name] = #name
    static const char *const names[] = {
        [sluice_v1_Reason_REASON_NONE] = "ACCEPTED",
        NAME(DECODE_MALFORMED),
        NAME(DECODE_BOUNDS),
        NAME(TYPE_UNKNOWN),
        NAME(TYPE_NOT_ADMITTED),
        NAME(TYPE_DETAIL_MISMATCH),
        NAME(SOURCE_MISSING),
        NAME(UTF8_INVALID),
        NAME(TIMESTAMP_MISSING),
        NAME(TIMESTAMP_PAST),
        NAME(TIMESTAMP_FUTURE),
        NAME(VALUE_OUT_OF_RANGE),
        NAME(ENRICHMENT_PRESENT),
        NAME(ID_CONFLICT),
        NAME(OVERLOADED),
        NAME(DISK_FULL),
        NAME(STOPPING),
        NAME(STAGE_TIMEOUT),
        NAME(BATCH_TOO_LARGE),
        NAME(FIELD_REPEATED),
        NAME(SAMPLED_OUT),
        NAME(RATE_LIMITED),
        NAME(NOT_LEADER),
        NAME(REGION_UNREACHABLE),
        NAME(PAUSED),
        NAME(DUPLICATE),
    };
#undef NAME

    _Static_assert(sizeof(names) / sizeof(names[0]) == _sluice_v1_Reason_MAX + 1,
                   "every reason has a name");
    if (reason < sizeof(names) / sizeof(names[0]) && names[reason])
        return names[reason];
    return "UNKNOWN";
}

int sluice_reason_is_transient(uint32_t reason)
{
    return reason == sluice_v1_Reason_NOT_LEADER || reason == sluice_v1_Reason_OVERLOADED ||
           reason == sluice_v1_Reason_DISK_FULL || reason == sluice_v1_Reason_STOPPING ||
           reason == sluice_v1_Reason_STAGE_TIMEOUT ||
           reason == sluice_v1_Reason_REGION_UNREACHABLE || reason == sluice_v1_Reason_PAUSED;
}
