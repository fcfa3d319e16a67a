/*
 * etcd.c - etcd under the load of drive.h: three members, puts of new keys at the one that leads.
 *
 * gRPC is spoken by libnghttp2: a put is one stream, many of them on a connection at a time. A key
 * has 16 bytes; a batch is one value of so many events' bytes.
 *
 * In the end every member must hold as many keys as were acknowledged, and all must have the same
 * hash of them (Maintenance/HashKV), or this fails.
 */
#include <assert.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/bench/peers/drive.h"

#define WAIT_NS    (60 * NS_PER_S)
#define KEY_BYTES  16u
#define BODY_MAX   (128u << 10)
#define ANSWER_MAX 4096u
#define STATUS     "grpc-status"

/* A session, and what is asked by call() on it. */
struct channel {
    nghttp2_session *session;
    struct drive_connection *c; /* NULL: of call() */
    uint64_t number;            /* of this channel: the first half of its keys */
    uint8_t body[512], answer[ANSWER_MAX];
    size_t body_bytes, answer_bytes;
    bool closed;
};

static uint8_t *put_body; /* a gRPC message: the key is written anew each time */
static size_t put_bytes, key_at;

/* --- protobuf --------------------------------------------------------------------------------- */

static size_t varint_put(uint8_t *buf, uint64_t v)
{
    size_t n = 0;

    for (; v >= 0x80; v >>= 7)
        buf[n++] = (uint8_t)(v | 0x80);
    buf[n++] = (uint8_t)v;
    return n;
}

static uint64_t varint_get(const uint8_t *buf, size_t bytes, size_t *at)
{
    uint64_t v = 0;

    for (unsigned shift = 0; *at < bytes && shift < 64; shift += 7) {
        v |= (uint64_t)(buf[*at] & 0x7f) << shift;
        if ((buf[(*at)++] & 0x80) == 0)
            break;
    }
    return v;
}

/* The number in this field, or 0; of a field with bytes, where they are in *ret_at. */
static uint64_t field_get(const uint8_t *buf, size_t bytes, uint64_t field, size_t *ret_at)
{
    for (size_t at = 0; at < bytes;) {
        uint64_t tag = varint_get(buf, bytes, &at), v = varint_get(buf, bytes, &at);

        if ((tag & 7) != 0 && (tag & 7) != 2)
            break;
        if (tag >> 3 == field) {
            *ret_at = at;
            return v;
        }
        at += (tag & 7) == 2 ? v : 0;
    }
    return 0;
}

/* PutRequest: key, value. */
static void put_body_make(size_t value_bytes)
{
    uint8_t *at;

    put_body = malloc(64 + KEY_BYTES + value_bytes);
    assert(put_body != NULL);
    at = put_body + 5;
    *at++ = 0x0a;
    at += varint_put(at, KEY_BYTES);
    key_at = (size_t)(at - put_body);
    at += KEY_BYTES;
    *at++ = 0x12;
    at += varint_put(at, value_bytes);
    drive_payload(at, value_bytes);
    put_bytes = (size_t)(at - put_body) + value_bytes;
    put_body[0] = 0; /* not compressed */
    for (unsigned i = 0; i < 4; i++)
        put_body[1 + i] = (uint8_t)((put_bytes - 5) >> (24 - 8 * i));
    assert(put_bytes < BODY_MAX);
}

/* --- gRPC ------------------------------------------------------------------------------------- */

/* A put fits into one frame, unless the window is smaller: then it comes in parts. */
static ssize_t on_body(nghttp2_session *s, int32_t stream, uint8_t *buf, size_t room,
                       uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    struct channel *h = arg;
    uint64_t n = (uint64_t)(uintptr_t)nghttp2_session_get_stream_user_data(s, stream);
    const uint8_t *body = h->c != NULL ? put_body : h->body;
    size_t bytes = h->c != NULL ? put_bytes : h->body_bytes, part;

    /* How much of it is out: nghttp2 has no more than this to keep it in. */
    part = (size_t)source->fd;
    if (h->c != NULL) { /* each time: a part may end within the key */
        memcpy(put_body + key_at, &h->number, sizeof h->number);
        memcpy(put_body + key_at + 8, &n, sizeof n);
    }
    if (room > bytes - part)
        room = bytes - part;
    memcpy(buf, body + part, room);
    source->fd = (int)(part + room);
    if (part + room == bytes)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)room;
}

static int on_header(nghttp2_session *s, const nghttp2_frame *f, const uint8_t *name, size_t n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
    (void)s, (void)f, (void)flags, (void)arg;
    if (n == sizeof STATUS - 1 && memcmp(name, STATUS, n) == 0 && (value_n != 1 || *value != '0'))
        drive_fail("etcd: status %.*s", (int)value_n, (const char *)value);
    return 0;
}

static int on_data(nghttp2_session *s, uint8_t flags, int32_t stream, const uint8_t *data, size_t n,
                   void *arg)
{
    struct channel *h = arg;

    (void)s, (void)flags, (void)stream;
    if (h->c == NULL) {
        assert(h->answer_bytes + n <= sizeof h->answer);
        memcpy(h->answer + h->answer_bytes, data, n);
        h->answer_bytes += n;
    }
    return 0;
}

static int on_closed(nghttp2_session *s, int32_t stream, uint32_t error, void *arg)
{
    struct channel *h = arg;

    if (error != 0)
        drive_fail("etcd: a stream was closed for %u", error);
    h->closed = true;
    if (h->c != NULL)
        drive_answered(h->c, (uint64_t)(uintptr_t)nghttp2_session_get_stream_user_data(s, stream));
    return 0;
}

static void request(struct channel *h, const char *path, uint64_t n)
{
#define NV(name, value)                                                                            \
    {                                                                                              \
        (uint8_t *)(uintptr_t)(name), (uint8_t *)(uintptr_t)(value), strlen(name), strlen(value),  \
            NGHTTP2_NV_FLAG_NONE                                                                   \
    }
    const nghttp2_nv head[] = { NV(":method", "POST"), NV(":scheme", "http"),
                                NV(":path", path),     NV(":authority", "localhost"),
                                NV("te", "trailers"),  NV("content-type", "application/grpc") };
    nghttp2_data_provider body = { .source.fd = 0, .read_callback = on_body };

    if (nghttp2_submit_request(h->session, NULL, head, sizeof head / sizeof *head, &body,
                               (void *)(uintptr_t)n) < 0)
        drive_fail("etcd: no stream");
}

static struct channel *channel_open(struct drive_connection *c, uint64_t number)
{
    static nghttp2_session_callbacks *callbacks;
    const nghttp2_settings_entry settings[] = { { NGHTTP2_SETTINGS_ENABLE_PUSH, 0 } };
    struct channel *h = calloc(1, sizeof *h);

    assert(h != NULL);
    h->c = c;
    h->number = number;
    if (callbacks == NULL) {
        (void)nghttp2_session_callbacks_new(&callbacks);
        nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_closed);
    }
    if (nghttp2_session_client_new(&h->session, callbacks, h) < 0 ||
        nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings, 1) < 0)
        drive_fail("etcd: no session");
    return h;
}

/* --- the load --------------------------------------------------------------------------------- */

static void flush(struct channel *h)
{
    const uint8_t *data;
    ssize_t n;

    while ((n = nghttp2_session_mem_send(h->session, &data)) > 0)
        drive_put(h->c, data, (size_t)n);
    if (n < 0)
        drive_fail("etcd: %s", nghttp2_strerror((int)n));
}

static void put(struct drive_connection *c, uint64_t n)
{
    request(c->state, "/etcdserverpb.KV/Put", n);
    flush(c->state);
}

static size_t take(struct drive_connection *c, const uint8_t *data, size_t bytes)
{
    struct channel *h = c->state;
    ssize_t n = nghttp2_session_mem_recv(h->session, data, bytes);

    if (n < 0)
        drive_fail("etcd: %s", nghttp2_strerror((int)n));
    flush(h);
    return (size_t)n;
}

/* --- what the members say --------------------------------------------------------------------- */

/* One request on a connection of its own; returns the message that is the answer. */
static size_t call(uint16_t port, const char *path, const void *body, size_t bytes,
                   uint8_t ret[ANSWER_MAX])
{
    struct channel *h = channel_open(NULL, 0);
    int fd = drive_dial(port);
    uint8_t in[4096];
    const uint8_t *data;
    size_t got;
    ssize_t n;

    h->body_bytes = 5 + bytes;
    h->body[4] = (uint8_t)bytes;
    memcpy(h->body + 5, body, bytes);
    request(h, path, 0);
    while (!h->closed) {
        while ((n = nghttp2_session_mem_send(h->session, &data)) > 0) {
            if (send(fd, data, (size_t)n, MSG_NOSIGNAL) != n)
                drive_fail("etcd: not sent");
        }
        if (h->closed)
            break;
        n = recv(fd, in, sizeof in, 0);
        if (n <= 0 || nghttp2_session_mem_recv(h->session, in, (size_t)n) < 0)
            drive_fail("etcd: port %u has hung up", port);
    }
    got = h->answer_bytes > 5 ? h->answer_bytes - 5 : 0;
    memcpy(ret, h->answer + 5, got);
    nghttp2_session_del(h->session);
    free(h);
    close(fd);
    return got;
}

/* The port of the member that leads. */
static uint16_t leader(const struct drive_options *o)
{
    const uint64_t until = clock_monotonic_ns() + WAIT_NS;

    for (unsigned i = 0;; i = (i + 1) % 3) {
        uint8_t a[ANSWER_MAX];
        size_t n = call(o->port[i], "/etcdserverpb.Maintenance/Status", "", 0, a), at = 0, none;
        uint64_t head = field_get(a, n, 1, &at), lead = field_get(a, n, 4, &none);

        if (lead != 0 && field_get(a + at, head, 2, &none) == lead)
            return o->port[i];
        if (clock_monotonic_ns() > until)
            drive_fail("etcd: no member leads");
        if (i == 2)
            (void)poll(NULL, 0, 100);
    }
}

static void check(const struct drive_options *o, uint64_t keys)
{
    /* RangeRequest: all keys, as this member has them, only their number. */
    static const uint8_t count[] = { 0x0a, 1, 0, 0x12, 1, 0, 0x38, 1, 0x48, 1 };
    const uint64_t until = clock_monotonic_ns() + WAIT_NS;
    uint64_t hash[3];

    for (unsigned i = 0; i < 3; i++) {
        uint8_t a[ANSWER_MAX];
        size_t n, at;

        for (;;) {
            n = call(o->port[i], "/etcdserverpb.KV/Range", count, sizeof count, a);
            if (field_get(a, n, 4, &at) == keys)
                break;
            if (clock_monotonic_ns() > until)
                drive_fail("etcd: a member has another number of keys than were acknowledged");
            (void)poll(NULL, 0, 100);
        }
        n = call(o->port[i], "/etcdserverpb.Maintenance/HashKV", "", 0, a);
        hash[i] = field_get(a, n, 2, &at);
    }
    if (hash[0] == 0 || hash[0] != hash[1] || hash[0] != hash[2])
        drive_fail("etcd: the members' hashes differ");
}

int main(int argc, char **argv)
{
    static const struct drive_program program = { .put = put, .take = take };
    static struct drive_connection c[DRIVE_CONNECTIONS_MAX];
    struct drive_options o;
    uint16_t port;

    drive_options(&o, argc, argv);
    put_body_make((size_t)o.events * DRIVE_EVENT_BYTES);
    port = leader(&o);
    for (unsigned i = 0; i < o.connections; i++) {
        c[i].fd = drive_dial(port);
        c[i].state = channel_open(&c[i], i);
    }
    check(&o, drive_run(&o, &program, c));
    return 0;
}
