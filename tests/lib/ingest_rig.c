/*
 * ingest_rig.c - see ingest_rig.h.
 */
#include "ingest_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <pb_decode.h>
#include <pb_encode.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

static const uint8_t cluster_id_bytes[16] = "a test's cluster";
static const uint8_t hash_key_bytes[16] = "a test's hashkey";

void rig_init(struct rig *r)
{
    struct settings settings;

    memset(r, 0, sizeof *r);
    assert_int_equal(config_init_defaults(&r->config), 0);
    settings_init(&settings);
    admission_init(&r->admission, &settings, &r->config.ingest.udp.allow);
    r->config.ingest.port = 0;
    r->config.ingest.udp.buffers = 512;
    r->config.ingest.tcp.connections_max = 64;
    r->config.pipeline.blocks = 8;
    /* On a busy machine a run may take long without being at fault. */
    r->config.pipeline.stage_ms_max = (struct config_stage_ms_max){ 60000, 60000, 60000, 60000 };
}

void rig_set(struct rig *r, const char *key, const char *value)
{
    struct settings changed = r->admission.settings;

    assert_int_equal(settings_apply(&changed, key, value), 0);
    admission_init(&r->admission, &changed, &r->config.ingest.udp.allow);
}

void rig_open(struct rig *r)
{
    struct worker_config wc = {
        .config = &r->config,
        .link = &r->cluster.link,
        .wake_cluster = fake_cluster_wake,
        .wake_arg = &r->cluster,
        .limits = &r->limits,
        .tls = r->tls,
    };
    struct settings settings;
    char error[256];

    assert_int_equal(fake_cluster_open(&r->cluster), 0);
    assert_int_equal(limits_open(&r->limits, NULL, 1024), 0);
    if (worker_open(&r->worker, &wc, error) != 0)
        fail_msg("%s", error);
    settings = r->admission.settings; /* the config may have changed since rig_init() */
    admission_init(&r->admission, &settings, &r->config.ingest.udp.allow);
    worker_set_admission(r->worker, &r->admission);
    (void)rig_snapshot(r);
    r->udp_port = r->snap.udp_port;
    r->tcp_port = r->snap.tcp_port;
}

void rig_start(struct rig *r)
{
    assert_int_equal(fake_cluster_start(&r->cluster), 0);
    assert_int_equal(worker_start(r->worker, cluster_id_bytes, hash_key_bytes), 0);
}

void rig_close(struct rig *r)
{
    uint64_t deadline = 0;

    fake_cluster_hold(&r->cluster, false);
    worker_drain(r->worker);
    while (!worker_drained(r->worker)) {
        if (!rig_wait_more(&deadline))
            fail_msg("not drained within the deadline");
    }
    rig_check_balance(rig_snapshot(r));
    assert_int_equal(r->snap.blocks_free + (r->snap.blocks_free < r->snap.blocks ? 1 : 0),
                     r->snap.blocks);
    assert_int_equal(r->snap.connections, 0);
    for (unsigned t = 0; t < LEDGER_TYPES; t++)
        assert_int_equal(r->snap.ledger.in_flight[t], 0);
    worker_close(r->worker);
    limits_close(&r->limits);
    fake_cluster_close(&r->cluster);
    config_fini(&r->config);
}

const struct ledger *rig_snapshot(struct rig *r)
{
    worker_snapshot(r->worker, &r->snap);
    return &r->snap.ledger;
}

void rig_check_balance(const struct ledger *l)
{
    struct ledger_sums sums;

    ledger_check(l, &sums);
    if (!sums.datagrams_balance || !sums.events_balance)
        rig_print(l);
    assert_true(sums.datagrams_balance);
    assert_true(sums.events_balance);
    for (unsigned t = 0; t < LEDGER_TYPES; t++)
        assert_true(sums.type_balances[t]);
}

bool rig_wait_more(uint64_t *deadline_ns)
{
    uint64_t now = clock_monotonic_ns();
    struct timespec pause = { .tv_nsec = 1000000 };

    if (*deadline_ns == 0)
        *deadline_ns = now + RIG_DEADLINE_S * NS_PER_S;
    nanosleep(&pause, NULL);
    return now < *deadline_ns;
}

void rig_print(const struct ledger *l)
{
    struct ledger_sums s;

    ledger_check(l, &s);
    fprintf(stderr, "datagrams: seen %ju delivered %ju", (uintmax_t)l->datagrams_seen,
            (uintmax_t)l->datagrams_delivered);
    for (unsigned i = 0; i < DROP_N; i++)
        fprintf(stderr, " %s %ju", datagram_drop_name(i), (uintmax_t)l->datagram_drop[i]);
    fprintf(
        stderr,
        "\nevents: decoded %ju invalid %ju refused %ju duplicate %ju conflict %ju in flight %ju "
        "committed %ju\n",
        (uintmax_t)s.decoded, (uintmax_t)s.invalid, (uintmax_t)s.refused, (uintmax_t)s.duplicate,
        (uintmax_t)s.conflict, (uintmax_t)s.in_flight, (uintmax_t)s.committed);
    fprintf(stderr,
            "tcp: accepted %ju refused %ju closed %ju timed out %ju frames %ju malformed %ju "
            "receipts %ju undeliverable %ju paused %ju udp receipts %ju unsent %ju\n",
            (uintmax_t)l->connections_accepted, (uintmax_t)l->connections_refused,
            (uintmax_t)l->connections_closed, (uintmax_t)l->connections_timed_out,
            (uintmax_t)l->frames, (uintmax_t)l->frames_malformed, (uintmax_t)l->receipts,
            (uintmax_t)l->receipts_undeliverable, (uintmax_t)l->receive_paused,
            (uintmax_t)l->udp_receipts, (uintmax_t)l->udp_receipts_unsent);
    for (unsigned i = 1; i < LEDGER_REASONS; i++) {
        if (l->reason[i] > 0)
            fprintf(stderr, "reason %s %ju\n", reason_name(i), (uintmax_t)l->reason[i]);
    }
}

/* splitmix64 */
uint64_t rig_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* --- what clients send --------------------------------------------------------------------- */

size_t rig_event(uint8_t *buf, size_t cap, unsigned type, uint32_t source, uint64_t id)
{
    pb_ostream_t stream = pb_ostream_from_buffer(buf, cap);
    static _Thread_local sluice_v1_Event e;

    e = (sluice_v1_Event)sluice_v1_Event_init_zero;
    e.type = (sluice_v1_EventType)type;
    snprintf(e.source, sizeof e.source, "feed-%u", source);
    if (id != 0) {
        e.id.size = 8;
        memcpy(e.id.bytes, &id, 8);
    }
    e.timestamp_ns = clock_unix_ns();
    snprintf(e.symbol, sizeof e.symbol, "ACME");
    if (type == sluice_v1_EventType_QUOTE) {
        e.which_detail = sluice_v1_Event_quote_tag;
        e.detail.quote.bid_price = 1000;
        e.detail.quote.ask_price = 1001;
        e.detail.quote.bid_size = e.detail.quote.ask_size = 5;
    } else {
        e.which_detail = sluice_v1_Event_trade_tag;
        e.detail.trade.price = 1875000;
        e.detail.trade.price_scale = 4;
        e.detail.trade.size = 100;
        snprintf(e.detail.trade.venue, sizeof e.detail.trade.venue, "XNAS");
    }
    if (!pb_encode(&stream, sluice_v1_Event_fields, &e))
        fail_msg("an event does not fit into %zu bytes", cap);
    return stream.bytes_written;
}

static size_t put_varint(uint8_t *at, uint64_t v)
{
    size_t n = 0;

    for (; v >= 0x80; v >>= 7)
        at[n++] = (uint8_t)(v | 0x80);
    at[n++] = (uint8_t)v;
    return n;
}

size_t rig_batch(uint8_t *buf, size_t cap, unsigned type, uint32_t n, uint64_t id, uint64_t seq,
                 bool receipt)
{
    uint8_t event[512];
    size_t at = 0;

    for (uint32_t i = 0; i < n; i++) {
        size_t bytes = rig_event(event, sizeof event, type, 1, id == 0 ? 0 : id + i);

        assert_true(at + bytes + 32 < cap);
        buf[at++] = 0x0a;
        at += put_varint(buf + at, bytes);
        memcpy(buf + at, event, bytes);
        at += bytes;
    }
    if (seq != 0) {
        buf[at++] = sluice_v1_EventBatch_seq_tag << 3;
        at += put_varint(buf + at, seq);
    }
    if (receipt) {
        buf[at++] = sluice_v1_EventBatch_receipt_wanted_tag << 3;
        buf[at++] = 1;
    }
    return at;
}

size_t rig_frame(uint8_t *buf, unsigned body_tag, const uint8_t *body, size_t bytes)
{
    uint8_t head[16];
    size_t head_bytes = 0, at;

    head[head_bytes++] = (uint8_t)(body_tag << 3 | 2);
    head_bytes += put_varint(head + head_bytes, bytes);
    at = put_varint(buf, head_bytes + bytes);
    memmove(buf + at + head_bytes, body, bytes);
    memcpy(buf + at, head, head_bytes);
    return at + head_bytes + bytes;
}

size_t rig_hello(uint8_t *buf, uint32_t protocol, const char *token)
{
    sluice_v1_Hello m = sluice_v1_Hello_init_zero;
    uint8_t body[sluice_v1_Hello_size];
    pb_ostream_t stream = pb_ostream_from_buffer(body, sizeof body);

    m.protocol = protocol;
    snprintf(m.producer, sizeof m.producer, "test");
    m.token.size = (pb_size_t)(token ? strlen(token) : 0);
    memcpy(m.token.bytes, token ? token : "", m.token.size);
    assert_true(pb_encode(&stream, sluice_v1_Hello_fields, &m));
    return rig_frame(buf, 1, body, stream.bytes_written);
}

size_t rig_batch_frame(uint8_t *buf, size_t cap, uint64_t request, const uint8_t *batch,
                       size_t bytes)
{
    static _Thread_local uint8_t body[1 << 20];
    size_t at = 0;

    assert_true(bytes + 64 < sizeof body && bytes + 64 < cap);
    body[at++] = sluice_v1_Batch_request_tag << 3;
    at += put_varint(body + at, request);
    body[at++] = sluice_v1_Batch_batch_tag << 3 | 2;
    at += put_varint(body + at, bytes);
    memcpy(body + at, batch, bytes);
    return rig_frame(buf, 2, body, at + bytes);
}

size_t rig_ping(uint8_t *buf, uint64_t nonce)
{
    uint8_t body[16] = { sluice_v1_Ping_nonce_tag << 3 };

    return rig_frame(buf, 3, body, 1 + put_varint(body + 1, nonce));
}

static int connect_to(int type, bool v6, uint16_t port)
{
    struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_port = htons(port) };
    struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
    const struct sockaddr *to = v6 ? (const struct sockaddr *)&a6 : (const struct sockaddr *)&a4;
    int fd = socket(v6 ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC, 0);

    a4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a6.sin6_addr = in6addr_loopback;
    assert_true(fd >= 0);
    if (connect(fd, to, v6 ? sizeof a6 : sizeof a4) < 0)
        fail_msg("connect: %s", strerror(errno));
    return fd;
}

int rig_udp(const struct rig *r, bool v6) { return connect_to(SOCK_DGRAM, v6, r->udp_port); }

int rig_tcp(const struct rig *r, bool v6) { return connect_to(SOCK_STREAM, v6, r->tcp_port); }

void rig_send(int fd, const void *data, size_t bytes)
{
    const uint8_t *p = data;

    while (bytes > 0) {
        ssize_t n = send(fd, p, bytes, MSG_NOSIGNAL);

        if (n < 0)
            fail_msg("send: %s", strerror(errno));
        p += n;
        bytes -= (size_t)n;
    }
}

/* --- what clients receive ------------------------------------------------------------------ */

static bool decode_exception(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    struct rig_receipt *ret = *arg;

    return ret->exceptions < 1024 &&
           pb_decode(stream, sluice_v1_Exception_fields, &ret->exception[ret->exceptions++]);
}

static bool decode_assigned(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    struct rig_receipt *ret = *arg;

    return ret->assigned < 1024 &&
           pb_decode(stream, sluice_v1_AssignedId_fields, &ret->id[ret->assigned++]);
}

bool rig_receipt_decode(struct rig_receipt *ret, const uint8_t *data, size_t bytes)
{
    pb_istream_t stream = pb_istream_from_buffer(data, bytes);

    memset(ret, 0, sizeof *ret);
    ret->r.exceptions.funcs.decode = decode_exception;
    ret->r.exceptions.arg = ret;
    ret->r.assigned.funcs.decode = decode_assigned;
    ret->r.assigned.arg = ret;
    return pb_decode(&stream, sluice_v1_Receipt_fields, &ret->r);
}

/* poll() rather than SO_RCVTIMEO: the end of an earlier ring interrupts this thread (a ring is made
 * by the thread that opens the worker), and a receive with a timeout is then not restarted. */
size_t rig_answer(int fd, uint8_t *buf, size_t cap)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    ssize_t n;

    if (poll(&p, 1, RIG_DEADLINE_S * 1000) != 1)
        fail_msg("no datagram within the deadline");
    n = recv(fd, buf, cap, MSG_DONTWAIT);
    if (n < 0)
        fail_msg("recv: %s", strerror(errno));
    return (size_t)n;
}

/* A varint at the front, or 0 bytes when it is not all there. */
static size_t get_varint(const uint8_t *at, size_t bytes, uint64_t *ret)
{
    *ret = 0;
    for (size_t i = 0; i < bytes && i < 10; i++) {
        *ret |= (uint64_t)(at[i] & 0x7f) << (7 * i);
        if (!(at[i] & 0x80))
            return i + 1;
    }
    return 0;
}

/* Until what TLS waits for has come. */
static void tls_wait(struct rig_stream *s)
{
    struct pollfd p = { .fd = s->fd, .events = tls_wants(s->tls) };

    if (poll(&p, 1, RIG_DEADLINE_S * 1000) != 1)
        fail_msg("nothing came within the deadline");
}

int rig_tls_handshake(struct rig_stream *s)
{
    int rc;

    while ((rc = tls_handshake(s->tls)) == -EAGAIN)
        tls_wait(s);
    return rc;
}

void rig_tls_send(struct rig_stream *s, const void *data, size_t bytes)
{
    struct iovec iov = { (void *)(uintptr_t)data, bytes };

    while (iov.iov_len > 0) {
        ssize_t n = tls_writev(s->tls, &iov, 1);

        if (n < 0 && n != -EAGAIN)
            fail_msg("tls_writev: %s", tls_error(s->tls));
        if (n < 0) {
            tls_wait(s);
            continue;
        }
        iov.iov_base = (uint8_t *)iov.iov_base + n;
        iov.iov_len -= (size_t)n;
    }
}

/* More bytes, 0 at the end, negative after a reset. */
static ssize_t stream_read(struct rig_stream *s)
{
    struct pollfd p = { .fd = s->fd, .events = POLLIN };
    ssize_t n;

    if (s->tls == NULL) {
        if (poll(&p, 1, RIG_DEADLINE_S * 1000) != 1)
            fail_msg("no frame within the deadline");
        return recv(s->fd, s->buf + s->bytes, sizeof s->buf - s->bytes, 0);
    }
    while ((n = tls_read(s->tls, s->buf + s->bytes, sizeof s->buf - s->bytes)) == -EAGAIN)
        tls_wait(s);
    return n;
}

int rig_next(struct rig_stream *s, const uint8_t **ret, size_t *ret_bytes)
{
    static _Thread_local uint8_t frame[1 << 20];
    uint64_t length, body;

    for (;;) {
        size_t head = get_varint(s->buf, s->bytes, &length), inner;
        ssize_t n;

        if (head > 0 && s->bytes >= head + length) {
            memcpy(frame, s->buf + head, length);
            s->bytes -= head + length;
            memmove(s->buf, s->buf + head + length, s->bytes);
            inner = get_varint(frame + 1, length - 1, &body);
            assert_int_equal(1 + inner + body, length);
            *ret = frame + 1 + inner;
            *ret_bytes = body;
            return frame[0] >> 3;
        }
        n = stream_read(s);
        if (n < 0)
            return -1;
        if (n == 0) {
            assert_int_equal(s->bytes, 0);
            return 0;
        }
        s->bytes += (size_t)n;
    }
}
