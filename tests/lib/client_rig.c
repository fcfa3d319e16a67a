/*
 * client_rig.c - see client_rig.h.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>

#include "tests/lib/client_rig.h"

/* --- what the client reports ---------------------------------------------------------------- */

struct reports reports;

size_t event_make(uint8_t *ret, const char *id)
{
    sluice_v1_Event e = sluice_v1_Event_init_zero;
    pb_ostream_t out = pb_ostream_from_buffer(ret, EVENT_MAX);

    e.type = sluice_v1_EventType_TRADE;
    strcpy(e.source, "test");
    e.id.size = (pb_size_t)strlen(id);
    memcpy(e.id.bytes, id, e.id.size);
    assert_true(pb_encode(&out, sluice_v1_Event_fields, &e));
    return out.bytes_written;
}

/* n events, named after the batch. */
int batch_send(struct sluice_client *c, unsigned batch, size_t n, int timeout_ms,
               uint64_t *ret_request)
{
    uint8_t data[4][EVENT_MAX];
    const void *event[4];
    size_t bytes[4];

    for (size_t i = 0; i < n; i++) {
        char id[32];

        snprintf(id, sizeof(id), "%u.%zu", batch, i);
        bytes[i] = event_make(data[i], id);
        event[i] = data[i];
    }
    return sluice_send(c, event, bytes, n, (void *)(uintptr_t)batch, timeout_ms, ret_request);
}

void on_receipt(void *arg, const struct sluice_receipt *receipt)
{
    uintptr_t user = (uintptr_t)receipt->user;

    pthread_mutex_lock(&reports.mutex);
    assert_true(user < RESULTS_MAX);
    struct result *r = &reports.result[user];

    r->reports++;
    r->status = receipt->status;
    r->attempts = receipt->attempts;
    r->durability = receipt->durability;
    r->outcomes = receipt->outcomes;
    for (size_t i = 0; i < receipt->outcomes && i < 4; i++)
        r->outcome[i] = receipt->outcome[i];
    if (receipt->outcomes && receipt->outcome[0].id)
        memcpy(r->id, receipt->outcome[0].id, receipt->outcome[0].id_bytes);
    struct sluice_client *c = reports.send_from_callback;

    reports.send_from_callback = NULL;
    reports.n++;
    pthread_cond_broadcast(&reports.changed);
    pthread_mutex_unlock(&reports.mutex);
    if (c) {
        assert_int_equal(sluice_flush(c, -1), -EDEADLK);
        int first = batch_send(c, 1000, 1, -1, NULL);
        int second = batch_send(c, 1001, 1, -1, NULL);

        pthread_mutex_lock(&reports.mutex);
        reports.sent_from_callback = first == 0 && second == -EAGAIN;
        pthread_mutex_unlock(&reports.mutex);
    }
}

void reports_wait(unsigned n)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&reports.mutex);
    while (reports.n < n)
        assert_int_equal(pthread_cond_timedwait(&reports.changed, &reports.mutex, &until), 0);
    pthread_mutex_unlock(&reports.mutex);
}

/* --- the server ----------------------------------------------------------------------------- */

void server_listen(struct server *s)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct timeval patience = { .tv_sec = PATIENCE_S };
    socklen_t bytes = sizeof(a);

    *s = (struct server){ .fd = -1, .in = malloc(FRAME_MAX) };
    s->listen_fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(s->in && s->listen_fd >= 0);
    assert_int_equal(bind(s->listen_fd, (void *)&a, sizeof(a)), 0);
    assert_int_equal(listen(s->listen_fd, 8), 0);
    assert_int_equal(getsockname(s->listen_fd, (void *)&a, &bytes), 0);
    /* accept() obeys it too: a client that never comes fails the test instead of hanging it. */
    setsockopt(s->listen_fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    snprintf(s->address, sizeof(s->address), "127.0.0.1:%u", ntohs(a.sin_port));
}

static void tls_wait(struct server *s)
{
    struct pollfd p = { .fd = s->fd, .events = tls_wants(s->tls) };

    assert_int_equal(poll(&p, 1, 1000 * PATIENCE_S), 1);
}

static ssize_t bytes_read(struct server *s, void *to, size_t room)
{
    ssize_t n;

    if (!s->tls)
        return recv(s->fd, to, room, 0);
    while ((n = tls_read(s->tls, to, room)) == -EAGAIN)
        tls_wait(s);
    errno = n < 0 ? (int)-n : 0;
    return n < 0 ? -1 : n;
}

void server_drop(struct server *s)
{
    tls_free(s->tls);
    s->tls = NULL;
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    s->in_bytes = s->taken = 0;
}

void server_end(struct server *s)
{
    server_drop(s);
    close(s->listen_fd);
    free(s->in);
}

void server_accept(struct server *s)
{
    struct timeval patience = { .tv_sec = PATIENCE_S };

    server_drop(s);
    s->fd = accept(s->listen_fd, NULL, NULL);
    assert_true(s->fd >= 0);
    setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (!s->context)
        return;
    assert_int_equal(tls_new_fd(&s->tls, s->context, true, s->fd), 0);
    while ((s->handshake = tls_handshake(s->tls)) == -EAGAIN)
        tls_wait(s);
}

/* The next frame that is no ping; valid until the next call. False: the client has left. */
bool server_read(struct server *s, struct frame *f)
{
    for (;;) {
        memmove(s->in, s->in + s->taken, s->in_bytes - s->taken);
        s->in_bytes -= s->taken;
        s->taken = 0;
        int rc = frame_parse_client(f, s->in, s->in_bytes, FRAME_MAX);

        if (rc == 0) {
            s->taken = f->frame_bytes;
            if (f->kind != CLIENT_PING)
                return true;
            continue;
        }
        assert_int_equal(rc, -EAGAIN);
        ssize_t n = bytes_read(s, s->in + s->in_bytes, FRAME_MAX - s->in_bytes);

        if (n <= 0) {
            assert_true(n == 0 || errno == ECONNRESET);
            return false;
        }
        s->in_bytes += (size_t)n;
    }
}

uint64_t server_read_batch(struct server *s, struct frame *f)
{
    struct frame_batch batch;

    assert_true(server_read(s, f));
    assert_int_equal(f->kind, CLIENT_BATCH);
    assert_int_equal(frame_get_batch(&batch, f), 0);
    return batch.request;
}

void server_write(struct server *s, const void *data, ssize_t bytes)
{
    struct iovec iov = { (void *)(uintptr_t)data, (size_t)bytes };

    assert_true(bytes > 0);
    if (s->tls) {
        assert_int_equal(tls_writev(s->tls, &iov, 1), bytes);
        return;
    }
    assert_int_equal(send(s->fd, data, (size_t)bytes, MSG_NOSIGNAL), bytes);
}

void server_hello(struct server *s)
{
    sluice_v1_Hello hello;
    struct frame f;

    assert_true(server_read(s, &f));
    assert_int_equal(f.kind, CLIENT_HELLO);
    assert_int_equal(frame_get_hello(&hello, &f), 0);
    assert_int_equal(hello.protocol, 1);
}

void server_welcome_limits(struct server *s, uint32_t frame_bytes_max, uint32_t events_max)
{
    sluice_v1_Welcome welcome = { .protocol = 1,
                                  .frame_bytes_max = frame_bytes_max,
                                  .batch_events_max = events_max };
    uint8_t buf[128];

    server_hello(s);
    server_write(s, buf, frame_put_welcome(buf, sizeof(buf), &welcome));
}

void server_welcome(struct server *s)
{
    server_accept(s);
    server_welcome_limits(s, FRAME_MAX, 1000);
}

void server_receipt(struct server *s, uint64_t request, uint32_t accepted)
{
    struct receipt r = { .request = request, .index = 1000 + request, .accepted = accepted };
    uint8_t buf[128];

    server_write(s, buf, frame_put_receipt(buf, sizeof(buf), &r));
}

void server_error(struct server *s, sluice_v1_ErrorCode code)
{
    sluice_v1_Error error = { .code = code, .message = "because", .closing = true };
    uint8_t buf[128];

    server_write(s, buf, frame_put_error(buf, sizeof(buf), &error));
}

/* --- set up --------------------------------------------------------------------------------- */

struct server server;

int client_rig_setup(void **state)
{
    memset(&reports, 0, sizeof(reports));
    pthread_mutex_init(&reports.mutex, NULL);
    pthread_cond_init(&reports.changed, NULL);
    server_listen(&server);
    return 0;
}

int client_rig_teardown(void **state)
{
    server_end(&server);
    pthread_cond_destroy(&reports.changed);
    pthread_mutex_destroy(&reports.mutex);
    return 0;
}

struct sluice_options options_make(void)
{
    struct sluice_options o;

    sluice_options_init(&o);
    o.addresses = server.address;
    o.on_receipt = on_receipt;
    o.backoff_ms_max = 20;
    o.receipt_timeout_ms = 1000 * PATIENCE_S;
    o.connect_timeout_ms = 1000 * PATIENCE_S;
    return o;
}

struct sluice_client *client_open(const struct sluice_options *o)
{
    struct sluice_client *c;

    assert_int_equal(sluice_open(&c, o), 0);
    return c;
}

struct sluice_client *client_open_default(void)
{
    struct sluice_options o = options_make();

    return client_open(&o);
}

/* Answers one batch properly on a new connection: whatever came before was not believed. */
void settle_on_a_new_connection(struct sluice_client *c, uint64_t request)
{
    struct frame f;

    server_welcome(&server);
    assert_int_equal(server_read_batch(&server, &f), request);
    assert_int_equal(reports.n, 0);
    server_receipt(&server, request, 2);
    reports_wait(1);
    assert_int_equal(reports.result[1].reports, 1);
    assert_int_equal(reports.result[1].status, 0);
    sluice_close(c);
}

uint64_t batch_of_two(struct sluice_client *c)
{
    struct frame f;

    assert_int_equal(batch_send(c, 1, 2, -1, NULL), 0);
    server_welcome(&server);
    return server_read_batch(&server, &f);
}
