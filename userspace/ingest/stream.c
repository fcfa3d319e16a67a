/*
 * stream.c - TCP: frames in and out of a connection.
 *
 * The first frame must be a Hello of protocol 1 with a token that ingest.tcp.tokens_file lists,
 * when one is configured. Then Batch and Ping frames; every Batch gets one Receipt, in order.
 * Whoever breaks the protocol gets the receipts that are due, an Error that says why, and is
 * closed.
 *
 * Thread:  the worker's.
 * Limits:  ingest.tcp.*; TURN_EVENTS_MAX events a turn, one buffer a connection and turn.
 * Counts:  frames, frames_malformed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ingest/worker_internal.h"

#define PROTOCOL 1u

/* --- frames out ---------------------------------------------------------------------------- */

static const char *error_text(unsigned code)
{
    switch (code) {
    case sluice_v1_ErrorCode_ERROR_MALFORMED_FRAME:
        return "the frame is not a ClientFrame with exactly one body";
    case sluice_v1_ErrorCode_ERROR_FRAME_TOO_LARGE:
        return "the frame is longer than Welcome.frame_bytes_max";
    case sluice_v1_ErrorCode_ERROR_HELLO_EXPECTED:
        return "the first frame, and only the first, is a Hello";
    case sluice_v1_ErrorCode_ERROR_PROTOCOL_VERSION:
        return "this server speaks protocol 1";
    case sluice_v1_ErrorCode_ERROR_UNAUTHENTICATED:
        return "the token is not accepted";
    case sluice_v1_ErrorCode_ERROR_TOO_MANY_CONNECTIONS:
        return "ingest.tcp.connections_max is reached: try again later";
    case sluice_v1_ErrorCode_ERROR_IDLE_TIMEOUT:
        return "no frame for ingest.tcp.idle_s_max";
    case sluice_v1_ErrorCode_ERROR_FRAME_TIMEOUT:
        return "a frame was not complete within ingest.tcp.frame_s_max";
    case sluice_v1_ErrorCode_ERROR_STOPPING:
        return "the server is stopping";
    case sluice_v1_ErrorCode_ERROR_NOT_PERMITTED:
        return "this certificate may not send events: its role is reader, or it has expired";
    case sluice_v1_ErrorCode_ERROR_TLS_REQUIRED:
        return "this port takes connections over TLS alone";
    default:
        assert(!"an error code");
        return "";
    }
}

size_t stream_error_frame(unsigned code, uint8_t frame[ERROR_BYTES_MAX])
{
    sluice_v1_Error e = sluice_v1_Error_init_zero;
    ssize_t n;

    e.code = (sluice_v1_ErrorCode)code;
    e.closing = true;
    snprintf(e.message, sizeof e.message, "%s", error_text(code));
    n = frame_put_error(frame, ERROR_BYTES_MAX, &e);
    assert(n > 0);
    return (size_t)n;
}

static void send_welcome(struct worker *w, struct connection *c)
{
    sluice_v1_Welcome m = sluice_v1_Welcome_init_zero;
    uint8_t frame[ERROR_BYTES_MAX];
    ssize_t n;

    m.protocol = PROTOCOL;
    m.node = w->config->node.id;
    m.region = w->config->node.region;
    m.frame_bytes_max = (uint32_t)w->config->ingest.tcp.frame_bytes_max;
    m.batch_events_max = w->tcp.batch_events_max;
    m.cluster_id.size = 16;
    memcpy(m.cluster_id.bytes, w->cluster_id, 16);
    n = frame_put_welcome(frame, sizeof frame, &m);
    assert(n > 0);
    connection_write(w, c, frame, (size_t)n);
}

static void send_pong(struct worker *w, struct connection *c, uint64_t nonce)
{
    uint8_t frame[ERROR_BYTES_MAX];
    ssize_t n = frame_put_pong(frame, sizeof frame, nonce);

    assert(n > 0);
    connection_write(w, c, frame, (size_t)n);
}

/* --- frames in ----------------------------------------------------------------------------- */

/* 0, or the ErrorCode to end with; TAKE_LATER: paused, the frame stays where it is. */
enum { TAKE_LATER = -1 };

/* Every token is compared in full, so that the time does not say how much of one was right. */
static bool token_known(const struct worker *w, const uint8_t *token, size_t bytes)
{
    const char *line = w->tcp.tokens, *end = line + w->tcp.tokens_bytes;
    bool known = false;

    while (line < end) {
        const char *eol = memchr(line, '\n', (size_t)(end - line));
        size_t n = (size_t)((eol ? eol : end) - line);
        unsigned differ = 0;

        while (n > 0 && (line[n - 1] == '\r' || line[n - 1] == ' '))
            n--;
        for (size_t i = 0; i < n; i++)
            differ |= (unsigned)((uint8_t)line[i] ^ (i < bytes ? token[i] : 0));
        known |= n > 0 && n == bytes && differ == 0;
        line = eol ? eol + 1 : end;
    }
    return known;
}

static int take_hello(struct worker *w, struct connection *c, const struct frame *f)
{
    sluice_v1_Hello hello = sluice_v1_Hello_init_zero;

    if (c->state != CONN_HELLO)
        return sluice_v1_ErrorCode_ERROR_HELLO_EXPECTED;
    if (frame_get_hello(&hello, f) < 0)
        return sluice_v1_ErrorCode_ERROR_MALFORMED_FRAME;
    if (hello.protocol != PROTOCOL)
        return sluice_v1_ErrorCode_ERROR_PROTOCOL_VERSION;
    if (w->tcp.tokens && !token_known(w, hello.token.bytes, hello.token.size))
        return sluice_v1_ErrorCode_ERROR_UNAUTHENTICATED;
    c->state = CONN_OPEN;
    send_welcome(w, c);
    return 0;
}

static int take_ping(struct worker *w, struct connection *c, const struct frame *f)
{
    uint64_t nonce;

    if (frame_get_ping(&nonce, f) < 0)
        return sluice_v1_ErrorCode_ERROR_MALFORMED_FRAME;
    if (!connection_has_room(w, c, ERROR_BYTES_MAX)) {
        connection_pause(w, c, PAUSE_OUTPUT);
        return TAKE_LATER;
    }
    send_pong(w, c, nonce);
    return 0;
}

/* The events were seen but not looked into: they are accounted for as of unknown type. */
static void count_too_large(struct worker *w, uint32_t events)
{
    w->ledger.decoded[0] += events;
    w->ledger.invalid[0] += events;
    w->ledger.reason[sluice_v1_Reason_BATCH_TOO_LARGE] += events;
}

static int take_batch(struct worker *w, struct connection *c, const struct frame *f)
{
    struct block_request request = {
        .connection = connection_slot(w, c),
        .generation = c->generation,
        .transport = TRANSPORT_TCP,
    };
    struct batch_walk walk = { 0 };
    struct frame_batch batch;
    bool too_large;
    enum admit a;
    int rc;

    if (frame_get_batch(&batch, f) < 0 || batch.durability > sluice_v1_Durability_REGION)
        return sluice_v1_ErrorCode_ERROR_MALFORMED_FRAME;
    rc = batch_walk(&walk, w->slices, w->tcp.batch_events_max, batch.batch, batch.batch_bytes);
    request.request = batch.request;
    request.durability = (uint8_t)batch.durability;
    if (rc < 0 && rc != -E2BIG)
        return sluice_v1_ErrorCode_ERROR_MALFORMED_FRAME;
    too_large = rc == -E2BIG;
    request.positions = (uint16_t)(walk.events < UINT16_MAX ? walk.events : UINT16_MAX);
    if (!connection_has_room(w, c, ack_bytes_max(too_large ? 1 : walk.events))) {
        connection_pause(w, c, PAUSE_OUTPUT);
        return TAKE_LATER;
    }
    a = too_large ? ADMIT_TOO_LARGE : admit_request(w, walk.events, walk.event_bytes, true);
    if (a == ADMIT_TOO_LARGE) {
        too_large = true;
        a = admit_request(w, 0, 0, true);
    }
    if (a == ADMIT_WAIT) {
        connection_pause(w, c, PAUSE_BLOCK);
        return TAKE_LATER;
    }
    request.bytes = ack_bytes_max(too_large ? 1 : walk.events);
    connection_reserve(c, request.bytes);
    w->tcp.turn_events += walk.events;
    if (too_large) {
        count_too_large(w, walk.events);
        admit_refused(w, &request, sluice_v1_Reason_BATCH_TOO_LARGE);
    } else {
        admit_events(w, w->slices, walk.events, &request);
    }
    return 0;
}

static int take_frame(struct worker *w, struct connection *c, const struct frame *f)
{
    if (c->state == CONN_HELLO && f->kind != CLIENT_HELLO)
        return sluice_v1_ErrorCode_ERROR_HELLO_EXPECTED;
    switch (f->kind) {
    case CLIENT_HELLO:
        return take_hello(w, c, f);
    case CLIENT_BATCH:
        return take_batch(w, c, f);
    default:
        assert(f->kind == CLIENT_PING);
        return take_ping(w, c, f);
    }
}

static void fail(struct worker *w, struct connection *c, unsigned error)
{
    w->ledger.frames_malformed++;
    connection_finish(w, c, error);
}

static bool takes(const struct connection *c)
{
    return (c->state == CONN_HELLO || c->state == CONN_OPEN) && c->pause == PAUSE_NONE;
}

static uint32_t frame_max(const struct worker *w)
{
    return (uint32_t)w->config->ingest.tcp.frame_bytes_max;
}

/* Takes the frames in data that can be taken now; returns how many bytes. */
static size_t take(struct worker *w, struct connection *c, const uint8_t *data, size_t bytes)
{
    size_t at = 0;

    while (at < bytes && takes(c)) {
        struct frame f;
        int error, rc = frame_parse_client(&f, data + at, bytes - at, frame_max(w));

        if (rc == -EAGAIN) {
            if (c->frame_ns == 0)
                c->frame_ns = w->now_ns;
            break;
        }
        error = rc == -EMSGSIZE ? sluice_v1_ErrorCode_ERROR_FRAME_TOO_LARGE
                : rc < 0        ? sluice_v1_ErrorCode_ERROR_MALFORMED_FRAME
                                : take_frame(w, c, &f);
        if (error == TAKE_LATER)
            break;
        if (error != 0) {
            fail(w, c, (unsigned)error);
            break;
        }
        w->ledger.frames++;
        w->tcp.turn_events++;
        c->active_ns = w->now_ns;
        c->frame_ns = 0;
        at += f.frame_bytes;
    }
    return at;
}

static void region_add(struct worker *w, struct connection *c, const uint8_t *data, size_t bytes)
{
    assert(c->in_end + bytes <= w->tcp.in_bytes);
    memcpy(connection_in(w, c) + c->in_end, data, bytes);
    c->in_end += (uint32_t)bytes;
    if (c->in_end > c->in_touched)
        c->in_touched = c->in_end;
}

/* Takes what it can from the region, and moves the rest to its front. */
static void region_take(struct worker *w, struct connection *c)
{
    uint8_t *in = connection_in(w, c);

    if (c->in_end == c->in_start)
        return;
    c->in_start += (uint32_t)take(w, c, in + c->in_start, c->in_end - c->in_start);
    if (c->in_start >= c->in_end) {
        c->in_start = c->in_end = 0; /* also when the connection has been finished */
    } else if (c->in_start > 0) {
        memmove(in, in + c->in_start, c->in_end - c->in_start);
        c->in_end -= c->in_start;
        c->in_start = 0;
    }
}

/* Bytes that the frame at the region's front still needs, or as many as can be said. */
static size_t region_misses(const struct worker *w, const struct connection *c)
{
    struct frame f = { 0 };

    if (frame_parse_client(&f, connection_in(w, c), c->in_end, frame_max(w)) == -EAGAIN &&
        f.frame_bytes > c->in_end)
        return f.frame_bytes - c->in_end;
    return 1;
}

void stream_bytes(struct worker *w, struct connection *c, const uint8_t *data, size_t bytes)
{
    size_t n;

    while (c->in_end > 0 && bytes > 0 && takes(c)) {
        n = region_misses(w, c);
        n = n < bytes ? n : bytes;
        region_add(w, c, data, n);
        data += n;
        bytes -= n;
        region_take(w, c);
    }
    if (takes(c)) {
        n = take(w, c, data, bytes);
        data += n;
        bytes -= n;
    }
    if (bytes > 0 && (c->state == CONN_HELLO || c->state == CONN_OPEN))
        region_add(w, c, data, bytes);
}

static void recycle(struct worker *w, uint32_t b)
{
    io_uring_buf_ring_add(w->tcp.ring, w->tcp.memory + (size_t)b * TCP_BUFFER_BYTES,
                          TCP_BUFFER_BYTES, (unsigned short)b, TCP_BUFFERS - 1, 0);
    io_uring_buf_ring_advance(w->tcp.ring, 1);
}

void stream_on_receive(struct worker *w, uint32_t slot, const struct io_uring_cqe *cqe)
{
    struct connection *c = &w->tcp.connection[slot];
    uint32_t b = cqe->flags >> IORING_CQE_BUFFER_SHIFT;

    assert(slot < w->tcp.connections_max && c->receiving);
    c->receiving = false;
    if (cqe->res > 0 && (cqe->flags & IORING_CQE_F_BUFFER))
        (c->tls ? secure_received : stream_bytes)(
            w, c, w->tcp.memory + (size_t)b * TCP_BUFFER_BYTES, (size_t)cqe->res);
    if (cqe->flags & IORING_CQE_F_BUFFER)
        recycle(w, b);
    if (c->state == CONN_DEAD) {
        connection_kill(w, c);
        return;
    }
    if (cqe->res == 0) {
        c->ended = true;
        if (c->state == CONN_LINGER)
            connection_kill(w, c);
        else
            connection_finish(w, c, 0);
        return;
    }
    /* No buffer was free, or a signal: try again with the next submission. */
    if (cqe->res < 0 && cqe->res != -ENOBUFS && cqe->res != -EINTR && cqe->res != -EAGAIN) {
        connection_kill(w, c);
        return;
    }
    connection_receive(w, c);
}

/* There may be room now for what had to wait. */
static void resume(struct worker *w, struct connection *c)
{
    connection_unpause(w, c);
    region_take(w, c);
    connection_receive(w, c);
}

void stream_output_freed(struct worker *w, struct connection *c)
{
    if (c->pause == PAUSE_OUTPUT && c->state == CONN_OPEN)
        resume(w, c);
    connection_settle(w, c);
}

void stream_on_send(struct worker *w, uint32_t slot, const struct io_uring_cqe *cqe)
{
    struct connection *c = &w->tcp.connection[slot];

    assert(slot < w->tcp.connections_max && c->sending);
    if (connection_sent(w, c, cqe->res))
        stream_output_freed(w, c);
}

bool stream_waiting(const struct worker *w) { return w->tcp.paused_head != NONE32; }

void stream_resume(struct worker *w)
{
    struct tcp *t = &w->tcp;
    uint32_t last = t->paused_tail;

    t->turn_events = 0;
    while (t->paused_head != NONE32 && blocks_ready(w) && t->turn_events < TURN_EVENTS_MAX) {
        uint32_t slot = t->paused_head;

        resume(w, &t->connection[slot]);
        if (slot == last)
            break;
    }
}
