/*
 * nats.c - NATS JetStream under the load of drive.h: three servers, a stream with three replicas
 * and file storage, publishers at the server that leads the stream.
 *
 * The client's protocol is spoken here, as it is a few lines of text: PUB with a subject for the
 * answer, and MSG with the acknowledgement, `{"stream":...,"seq":N}`. So no library's threads and
 * queues cost what is measured, on a machine that is shared with the servers. A message has no
 * Nats-Msg-Id, so nothing is deduplicated; a batch is one message of so many events' bytes.
 *
 * In the end the stream must hold as many messages as were acknowledged, and all replicas must be
 * current, or this fails.
 */
#include <assert.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/bench/peers/drive.h"

#define WAIT_NS   (60 * NS_PER_S)
#define REPLY     "_INBOX.%03u." /* of a connection, by its number */
#define REPLY_N   11u
#define HEAD_MAX  128u
#define API_BYTES (64u << 10)
#define STREAM_NEW                                                                                 \
    "{\"name\":\"bench\",\"subjects\":[\"bench\"],\"retention\":\"limits\",\"max_consumers\":-1,"  \
    "\"max_msgs\":-1,\"max_bytes\":-1,\"max_age\":0,\"max_msg_size\":-1,\"storage\":\"file\","     \
    "\"discard\":\"old\",\"num_replicas\":3,\"duplicate_window\":120000000000}"

static uint8_t *payload; /* of a message, and the end of its line */
static size_t payload_bytes;

/* --- the protocol ----------------------------------------------------------------------------- */

static unsigned inbox(const struct drive_connection *c) { return (unsigned)(uintptr_t)c->state; }

static void put(struct drive_connection *c, uint64_t n)
{
    char head[HEAD_MAX];
    int bytes = snprintf(head, sizeof head, "PUB bench " REPLY "%llu %zu\r\n", inbox(c),
                         (unsigned long long)n, payload_bytes);

    memcpy(payload, &n, sizeof n); /* no two messages are alike */
    drive_put(c, head, (size_t)bytes);
    drive_put(c, payload, payload_bytes + 2);
}

/* One line, or a MSG with its payload, of *ret_bytes. NULL: not all of it is there. */
static const char *parse(const uint8_t *data, size_t bytes, size_t *ret_bytes,
                         const char **ret_payload)
{
    const char *line = (const char *)data, *end = memchr(data, '\n', bytes), *at;
    unsigned long n;

    if (end == NULL)
        return NULL;
    *ret_bytes = (size_t)(end - line) + 1;
    *ret_payload = NULL;
    if (strncmp(line, "MSG ", 4) != 0)
        return line;
    for (at = end; at > line && *at != ' '; at--) {
    }
    n = strtoul(at, NULL, 10) + 2;
    if (n > bytes - *ret_bytes)
        return NULL;
    *ret_payload = end + 1;
    *ret_bytes += n;
    return line;
}

static size_t take(struct drive_connection *c, const uint8_t *data, size_t bytes)
{
    const char *line, *body;
    size_t at = 0, n;

    while (at < bytes && (line = parse(data + at, bytes - at, &n, &body)) != NULL) {
        if (strncmp(line, "PING", 4) == 0)
            drive_put(c, "PONG\r\n", 6);
        else if (strncmp(line, "-ERR", 4) == 0)
            drive_fail("nats: %.80s", line);
        else if (body != NULL && strncmp(line, "MSG _INBOX.", 11) == 0) {
            if (strncmp(body, "{\"stream\":\"bench\"", 17) != 0 ||
                memmem(body, 60, "\"seq\"", 5) == NULL)
                drive_fail("nats: %.120s", body);
            drive_answered(c, strtoull(line + 4 + REPLY_N, NULL, 10));
        }
        at += n;
    }
    return at;
}

static int dial(uint16_t port, unsigned number)
{
    char buf[8192];
    size_t n = 0;
    int fd = drive_dial(port);

    if (dprintf(fd,
                "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"c\",\"version\":\"1\","
                "\"protocol\":1}\r\nSUB " REPLY "* 1\r\nPING\r\n",
                number) < 0)
        drive_fail("nats: not sent");
    while (n < 6 || memmem(buf, n, "PONG\r\n", 6) == NULL) {
        ssize_t r = recv(fd, buf + n, sizeof buf - n, 0);

        if (r <= 0)
            drive_fail("nats: no PONG");
        n += (size_t)r;
    }
    return fd;
}

/* --- the stream ------------------------------------------------------------------------------- */

/* A request to the servers; its answer, or NULL if none comes in a second. */
static json_t *api(int fd, const char *subject, const char *body)
{
    static uint8_t in[API_BYTES];
    static unsigned asked;
    const uint64_t until = clock_monotonic_ns() + NS_PER_S;
    char head[256], reply[64];
    size_t have = 0;

    snprintf(reply, sizeof reply, REPLY "%u ", 0u, ++asked);
    snprintf(head, sizeof head, "PUB %s %s%zu\r\n", subject, reply, strlen(body));
    if (dprintf(fd, "%s%s\r\n", head, body) < 0)
        drive_fail("nats: not sent");
    while (clock_monotonic_ns() < until) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        const char *line, *json;
        ssize_t r = poll(&p, 1, 100) == 1 ? recv(fd, in + have, sizeof in - have, 0) : 0;
        size_t n;

        assert(r >= 0 && have + (size_t)r < sizeof in);
        have += (size_t)r;
        while (have > 0 && (line = parse(in, have, &n, &json)) != NULL) {
            json_t *j = NULL;

            if (strncmp(line, "PING", 4) == 0)
                (void)dprintf(fd, "PONG\r\n");
            if (json != NULL && strncmp(line + 4, reply, strlen(reply)) == 0)
                j = json_loadb(json, (size_t)((const char *)in + n - 2 - json), 0, NULL);
            memmove(in, in + n, have - n);
            have -= n;
            if (j != NULL)
                return j;
        }
    }
    return NULL;
}

/* The port of the server that leads the stream, which is made. Servers are named by their port. */
static uint16_t stream_make(int fd)
{
    const uint64_t until = clock_monotonic_ns() + WAIT_NS;
    unsigned leader = 0;

    while (leader == 0) {
        json_t *j = api(fd, "$JS.API.STREAM.CREATE.bench", STREAM_NEW);
        json_t *cluster = json_object_get(j, "cluster");
        const char *name = json_string_value(json_object_get(cluster, "leader"));

        if (name != NULL && json_array_size(json_object_get(cluster, "replicas")) == 2)
            leader = (unsigned)atoi(name);
        else if (clock_monotonic_ns() > until)
            drive_fail("nats: no stream: %s", j != NULL ? json_dumps(j, 0) : "no answer");
        json_decref(j);
    }
    return (uint16_t)leader;
}

static bool replicas_current(const json_t *info)
{
    json_t *replicas = json_object_get(json_object_get(info, "cluster"), "replicas"), *r;
    size_t i, current = 0;

    json_array_foreach(replicas, i, r) current +=
        json_is_true(json_object_get(r, "current")) &&
        json_integer_value(json_object_get(r, "lag")) == 0;
    return current == 2;
}

static void stream_check(int fd, uint64_t messages)
{
    const uint64_t until = clock_monotonic_ns() + WAIT_NS;

    for (;; (void)poll(NULL, 0, 100)) {
        json_t *j = api(fd, "$JS.API.STREAM.INFO.bench", "");
        json_t *state = json_object_get(j, "state");
        uint64_t has = (uint64_t)json_integer_value(json_object_get(state, "messages"));

        if (has == messages && replicas_current(j)) {
            json_decref(j);
            return;
        }
        if (clock_monotonic_ns() > until)
            drive_fail("nats: %llu messages were acknowledged: %s", (unsigned long long)messages,
                       j != NULL ? json_dumps(j, JSON_COMPACT) : "no answer");
        json_decref(j);
    }
}

int main(int argc, char **argv)
{
    static const struct drive_program program = { .put = put, .take = take };
    static struct drive_connection c[DRIVE_CONNECTIONS_MAX];
    struct drive_options o;
    uint64_t messages;
    uint16_t leader;
    int fd;

    drive_options(&o, argc, argv);
    payload_bytes = (size_t)o.events * DRIVE_EVENT_BYTES;
    payload = malloc(payload_bytes + 2);
    assert(payload != NULL);
    drive_payload(payload, payload_bytes);
    memcpy(payload + payload_bytes, "\r\n", 2);
    fd = dial(o.port[0], 0);
    leader = stream_make(fd);
    for (unsigned i = 0; i < o.connections; i++) {
        c[i].fd = dial(leader, i + 1);
        c[i].state = (void *)(uintptr_t)(i + 1);
    }
    messages = drive_run(&o, &program, c);
    stream_check(fd, messages);
    return 0;
}
