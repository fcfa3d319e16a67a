/*
 * connection.c - one TCP connection: its bytes in and out, its end.
 *
 * A receive is one at a time and takes a buffer only when there are bytes, so 65,536 idle
 * connections hold no buffer, and a connection that is not received from is back-pressure: TCP
 * itself stops the client. Frames are taken in the receive buffer; what cannot be taken yet (a part
 * of a frame, or frames that must wait) is copied to the connection's region, so no buffer is ever
 * kept from the others. Output is a circle of ingest.tcp.output_bytes_max in which every admitted
 * request has its receipt's room reserved, so writing never fails.
 *
 * Over TLS the circle holds what is not encrypted yet; secure.c encrypts from it into the space
 * behind it, and that is sent.
 *
 * Thread:  the worker's.
 * Memory:  two regions per connection inside two large mappings, touched when used and given back.
 * End:     FINISH writes what is owed, then an Error if there is one, then shuts our side; LINGER
 *          reads until the client ends, because closing with unread bytes would reset the
 *          connection and could destroy what we sent; DEAD waits for the kernel's operations.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ingest/worker_internal.h"

#define LINGER_NS (1 * NS_PER_S)

uint32_t connection_slot(const struct worker *w, const struct connection *c)
{
    assert(c >= w->tcp.connection && c < w->tcp.connection + w->tcp.connections_max);
    return (uint32_t)(c - w->tcp.connection);
}

uint8_t *connection_in(const struct worker *w, const struct connection *c)
{
    return w->tcp.in + connection_slot(w, c) * w->tcp.in_bytes;
}

uint8_t *connection_out(const struct worker *w, const struct connection *c)
{
    return w->tcp.out + connection_slot(w, c) * w->tcp.out_bytes;
}

static uint32_t out_cap(const struct worker *w)
{
    return (uint32_t)w->config->ingest.tcp.output_bytes_max;
}

bool connection_has_room(const struct worker *w, const struct connection *c, size_t bytes)
{
    return c->out_bytes + c->reserved + bytes + ERROR_BYTES_MAX <= out_cap(w);
}

void connection_receive(struct worker *w, struct connection *c)
{
    struct io_uring_sqe *sqe;

    if (c->receiving || c->ended || c->pause != PAUSE_NONE ||
        (c->state != CONN_HELLO && c->state != CONN_OPEN && c->state != CONN_LINGER))
        return;
    sqe = worker_sqe(w);
    io_uring_prep_recv(sqe, c->fd, NULL, TCP_BUFFER_BYTES, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = GROUP_TCP;
    io_uring_sqe_set_data64(sqe, op_data(OP_RECV, connection_slot(w, c)));
    c->receiving = true;
}

void connection_send(struct worker *w, struct connection *c)
{
    const uint8_t *from = connection_out(w, c) + c->out_start;
    uint32_t bytes = c->out_bytes, room = out_cap(w) - c->out_start;
    struct io_uring_sqe *sqe;

    if (c->sending || c->state == CONN_DEAD)
        return;
    bytes = bytes < room ? bytes : room;
    if (c->tls != NULL)
        bytes = secure_output(w, c, &from);
    if (bytes == 0)
        return;
    sqe = worker_sqe(w);
    io_uring_prep_send(sqe, c->fd, from, bytes, MSG_NOSIGNAL);
    io_uring_sqe_set_data64(sqe, op_data(OP_SEND, connection_slot(w, c)));
    c->sending = true;
}

void connection_write(struct worker *w, struct connection *c, const uint8_t *data, size_t bytes)
{
    uint32_t cap = out_cap(w), at = (c->out_start + c->out_bytes) % cap, tail = cap - at;

    assert(c->out_bytes + bytes <= cap);
    if (bytes < tail)
        tail = (uint32_t)bytes;
    memcpy(connection_out(w, c) + at, data, tail);
    memcpy(connection_out(w, c), data + tail, bytes - tail);
    if (c->out_bytes == 0)
        c->output_ns = w->now_ns;
    c->out_bytes += (uint32_t)bytes;
    if (at + tail > c->out_touched)
        c->out_touched = at + tail;
    connection_send(w, c);
}

void connection_taken(struct worker *w, struct connection *c, uint32_t bytes)
{
    assert(bytes <= c->out_bytes);
    c->out_start = (c->out_start + bytes) % out_cap(w);
    c->out_bytes -= bytes;
    if (c->out_bytes == 0)
        c->out_start = 0; /* small answers stay in the first page */
}

bool connection_sent(struct worker *w, struct connection *c, int res)
{
    c->sending = false;
    if (c->state == CONN_DEAD || (res <= 0 && res != -EINTR && res != -EAGAIN)) {
        connection_kill(w, c);
        return false;
    }
    if (res < 0)
        res = 0;
    if (c->tls != NULL)
        secure_sent(c, (uint32_t)res);
    else
        connection_taken(w, c, (uint32_t)res);
    if (res > 0)
        c->output_ns = w->now_ns;
    connection_send(w, c);
    return true;
}

void connection_reserve(struct connection *c, uint32_t bytes)
{
    c->reserved += bytes;
    c->requests++;
}

bool connection_answered(struct connection *c, uint32_t bytes)
{
    assert(c->requests > 0 && c->reserved >= bytes);
    c->requests--;
    c->reserved -= bytes;
    return c->state == CONN_OPEN || c->state == CONN_FINISH;
}

/* --- begin and end ------------------------------------------------------------------------- */

void connection_start(struct worker *w, int fd, struct tls *tls)
{
    struct tcp *t = &w->tcp;
    uint32_t slot = t->free_head;
    struct connection *c = &t->connection[slot];
    uint32_t generation = c->generation;

    assert(slot != NONE32 && c->state == CONN_FREE);
    t->free_head = c->next;
    t->connections++;
    *c = (struct connection){
        .fd = fd,
        .generation = generation,
        .state = CONN_HELLO,
        .tls = tls,
        .active_ns = w->now_ns,
        .next = NONE32,
        .prev = NONE32,
    };
    connection_receive(w, c);
}

void connection_pause(struct worker *w, struct connection *c, enum connection_pause why)
{
    struct tcp *t = &w->tcp;
    uint32_t slot = connection_slot(w, c);

    assert(c->pause == PAUSE_NONE && why != PAUSE_NONE);
    c->pause = (uint8_t)why;
    c->frame_ns = 0; /* it is us who are slow */
    w->ledger.receive_paused++;
    if (why != PAUSE_BLOCK)
        return;
    c->next = NONE32;
    c->prev = t->paused_tail;
    if (t->paused_tail == NONE32)
        t->paused_head = slot;
    else
        t->connection[t->paused_tail].next = slot;
    t->paused_tail = slot;
}

void connection_unpause(struct worker *w, struct connection *c)
{
    struct tcp *t = &w->tcp;

    if (c->pause == PAUSE_BLOCK) {
        if (c->prev == NONE32)
            t->paused_head = c->next;
        else
            t->connection[c->prev].next = c->next;
        if (c->next == NONE32)
            t->paused_tail = c->prev;
        else
            t->connection[c->next].prev = c->prev;
    }
    c->pause = PAUSE_NONE;
}

/* Gives pages back. */
void connection_trim(struct worker *w, struct connection *c)
{
    if (c->in_end == 0 && c->in_touched > REGION_KEEP_BYTES) {
        (void)madvise(connection_in(w, c), w->tcp.in_bytes, MADV_DONTNEED);
        c->in_touched = 0;
    }
    if (c->out_bytes == 0 && !c->sending && c->out_touched > REGION_KEEP_BYTES) {
        (void)madvise(connection_out(w, c), w->tcp.out_bytes, MADV_DONTNEED);
        c->out_touched = 0;
    }
}

static void release(struct worker *w, struct connection *c)
{
    struct tcp *t = &w->tcp;

    close(c->fd);
    c->fd = -1;
    c->in_start = c->in_end = c->out_bytes = c->cipher_bytes = 0;
    connection_trim(w, c);
    tls_free(c->tls);
    c->tls = NULL;
    c->state = CONN_FREE;
    c->generation++;
    c->next = t->free_head;
    t->free_head = connection_slot(w, c);
    assert(t->connections > 0);
    t->connections--;
    w->ledger.connections_closed++;
}

void connection_kill(struct worker *w, struct connection *c)
{
    if (c->state == CONN_FREE)
        return;
    if (c->state != CONN_DEAD) {
        connection_unpause(w, c);
        c->state = CONN_DEAD;
        /* Ends what the kernel still has in hand. */
        if (c->receiving || c->sending)
            (void)shutdown(c->fd, SHUT_RDWR);
    }
    if (!c->receiving && !c->sending)
        release(w, c);
}

void connection_finish(struct worker *w, struct connection *c, unsigned error)
{
    if (c->state != CONN_HELLO && c->state != CONN_OPEN)
        return;
    connection_unpause(w, c);
    c->state = CONN_FINISH;
    c->error = (uint8_t)error;
    c->in_start = c->in_end = 0;
    c->frame_ns = 0;
    connection_settle(w, c);
}

/* Goes on with an end that has begun, as far as it can. */
void connection_settle(struct worker *w, struct connection *c)
{
    if (c->state != CONN_FINISH || c->requests > 0)
        return;
    if (c->error != 0 && (c->tls == NULL || tls_is_ready(c->tls))) {
        uint8_t frame[ERROR_BYTES_MAX];
        size_t bytes = stream_error_frame(c->error, frame);

        c->error = 0;
        connection_write(w, c, frame, bytes);
    }
    if (c->tls != NULL && c->out_bytes == 0)
        (void)tls_close_notify(c->tls);
    connection_send(w, c);
    if (connection_owes(c) || c->sending)
        return;
    if (c->ended || shutdown(c->fd, SHUT_WR) < 0) {
        connection_kill(w, c);
        return;
    }
    c->state = CONN_LINGER;
    c->linger_ns = w->now_ns + LINGER_NS;
    connection_receive(w, c);
}
