/*
 * test_send.c - `sluice send` from its arguments to its exit code, against servers on loopback.
 *
 * A thread answers: it accepts everything, refuses every nth event, or hangs up for good. What the
 * command prints goes to files in a directory of the test's own.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/frame.h"
#include "cli/send.h"
#include "ingest/stages.h"

#define EVENTS_MAX 2000
#define FRAME_MAX  (1u << 20)

/* --- a server ------------------------------------------------------------------------------- */

struct server {
    int fd, type;
    char address[32];
    pthread_t thread;
    unsigned refuse_every; /* 0: none */
    uint32_t events_max;
    sluice_v1_ErrorCode error; /* instead of a welcome */
    uint64_t events, batches, next_index;
    uint8_t in[FRAME_MAX];
    struct slice slices[EVENTS_MAX];
};

static struct server server;

static void receipt_make(struct server *s, struct receipt *r, struct receipt_exception *e,
                         uint32_t n)
{
    r->index = s->next_index++;
    for (uint32_t i = 0; i < n; i++)
        if (s->refuse_every && ++s->events % s->refuse_every == 0)
            e[r->exceptions++] =
                (struct receipt_exception){ .position = i, .reason = sluice_v1_Reason_OVERLOADED };
    r->exception = e;
    r->refused = r->exceptions;
    r->accepted = n - r->refused;
    if (!r->accepted)
        r->index = 0;
    if (!s->refuse_every)
        s->events += n;
    s->batches++;
}

static void batch_answer(struct server *s, int fd, const struct frame *f)
{
    static struct receipt_exception e[EVENTS_MAX];
    static uint8_t out[65536];
    struct frame_batch batch;
    struct batch_walk walk;
    struct receipt r = { 0 };

    assert_int_equal(frame_get_batch(&batch, f), 0);
    assert_int_equal(batch_walk(&walk, s->slices, EVENTS_MAX, batch.batch, batch.batch_bytes), 0);
    assert_true(walk.events <= s->events_max);
    r.request = batch.request;
    receipt_make(s, &r, e, walk.events);
    ssize_t bytes = frame_put_receipt(out, sizeof(out), &r);

    assert_int_equal(send(fd, out, (size_t)bytes, MSG_NOSIGNAL), bytes);
}

static void hello_answer(struct server *s, int fd)
{
    sluice_v1_Welcome welcome = { .protocol = 1,
                                  .frame_bytes_max = FRAME_MAX,
                                  .batch_events_max = s->events_max };
    sluice_v1_Error error = { .code = s->error, .closing = true };
    uint8_t out[256];
    ssize_t bytes = s->error ? frame_put_error(out, sizeof(out), &error)
                             : frame_put_welcome(out, sizeof(out), &welcome);

    assert_int_equal(send(fd, out, (size_t)bytes, MSG_NOSIGNAL), bytes);
}

/* One connection, to its end. */
static void *tcp_serve(void *arg)
{
    struct server *s = arg;
    int fd = accept(s->fd, NULL, NULL);
    size_t have = 0;
    ssize_t n;
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    while (fd >= 0 && (n = recv(fd, s->in + have, FRAME_MAX - have, 0)) > 0) {
        struct frame f;
        size_t at = 0;

        have += (size_t)n;
        while (frame_parse_client(&f, s->in + at, have - at, FRAME_MAX) == 0) {
            if (f.kind == CLIENT_HELLO)
                hello_answer(s, fd);
            else if (f.kind == CLIENT_BATCH)
                batch_answer(s, fd, &f);
            at += f.frame_bytes;
        }
        memmove(s->in, s->in + at, have - at);
        have -= at;
    }
    if (fd >= 0)
        close(fd);
    return NULL;
}

/* Until an empty datagram. */
static void *udp_serve(void *arg)
{
    static struct receipt_exception e[EVENTS_MAX];
    struct server *s = arg;
    struct sockaddr_in from;
    socklen_t from_bytes = sizeof(from);
    ssize_t n;

    while ((n = recvfrom(s->fd, s->in, FRAME_MAX, 0, (void *)&from, &from_bytes)) > 0) {
        struct batch_walk walk;
        struct receipt r = { 0 };
        uint8_t out[2048];

        if (s->in[0] == 8) {
            s->events++;
            s->batches++;
            continue;
        }
        assert_int_equal(batch_walk(&walk, s->slices, EVENTS_MAX, s->in, (size_t)n), 0);
        r.request = walk.seq;
        receipt_make(s, &r, e, walk.events);
        if (walk.receipt_wanted) {
            ssize_t bytes = frame_put_bare_receipt(out, sizeof(out), &r);

            sendto(s->fd, out, (size_t)bytes, 0, (void *)&from, from_bytes);
        }
    }
    return NULL;
}

static void server_start(int type)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t bytes = sizeof(a);
    int room = 4 << 20;

    server.type = type;
    server.next_index = 10;
    if (!server.events_max)
        server.events_max = 1000;
    server.fd = socket(AF_INET, type, 0);
    assert_int_equal(bind(server.fd, (void *)&a, sizeof(a)), 0);
    setsockopt(server.fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    if (type == SOCK_STREAM)
        assert_int_equal(listen(server.fd, 4), 0);
    assert_int_equal(getsockname(server.fd, (void *)&a, &bytes), 0);
    snprintf(server.address, sizeof(server.address), "127.0.0.1:%u", ntohs(a.sin_port));
    assert_int_equal(
        pthread_create(&server.thread, NULL, type == SOCK_STREAM ? tcp_serve : udp_serve, &server),
        0);
}

static void server_stop(void)
{
    struct sockaddr_in a;
    socklen_t bytes = sizeof(a);

    if (server.type == SOCK_DGRAM) {
        assert_int_equal(getsockname(server.fd, (void *)&a, &bytes), 0);
        sendto(server.fd, NULL, 0, 0, (void *)&a, bytes);
    } else {
        shutdown(server.fd, SHUT_RDWR); /* ends an accept() that nobody came to */
    }
    pthread_join(server.thread, NULL);
    close(server.fd);
}

/* --- the command ---------------------------------------------------------------------------- */

static char dir[256], out_name[300], err_name[300], file_name[300];
static char said[65536];

static int setup(void **state)
{
    const char *tmp = getenv("TMPDIR");

    memset(&server, 0, sizeof(server));
    snprintf(dir, sizeof(dir), "%s/test_send.XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(out_name, sizeof(out_name), "%s/out", dir);
    snprintf(err_name, sizeof(err_name), "%s/err", dir);
    snprintf(file_name, sizeof(file_name), "%s/file", dir);
    return 0;
}

static int teardown(void **state)
{
    unlink(out_name);
    unlink(err_name);
    unlink(file_name);
    return rmdir(dir);
}

static const char *contents(const char *name)
{
    FILE *f = fopen(name, "re");

    assert_non_null(f);
    said[fread(said, 1, sizeof(said) - 1, f)] = '\0';
    fclose(f);
    return said;
}

static void file_write(const char *text)
{
    FILE *f = fopen(file_name, "we");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* `sluice send` with its output in files. The arguments end with NULL. */
static int run(const char *first, ...)
{
    char *argv[40] = { "send" };
    int argc = 1;
    va_list args;

    va_start(args, first);
    for (const char *arg = first; arg; arg = va_arg(args, const char *))
        argv[argc++] = (char *)(uintptr_t)arg;
    va_end(args);
    fflush(NULL);
    int out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO);

    assert_non_null(freopen(out_name, "w", stdout));
    assert_non_null(freopen(err_name, "w", stderr));
    int rc = send_main(argc, argv);

    fflush(NULL);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    close(out);
    close(err);
    return rc;
}

static json_int_t figure(const char *name)
{
    json_error_t error;
    json_t *root = json_loads(contents(out_name), JSON_REJECT_DUPLICATES, &error);

    if (!root)
        fail_msg("no JSON: %s", said);
    json_int_t v = json_integer_value(json_object_get(root, name));

    json_decref(root);
    return v;
}

/* --- tests ---------------------------------------------------------------------------------- */

static void all_accepted_is_exit_code_0(void **state)
{
    server_start(SOCK_STREAM);
    int rc = run("--generate", "1050", "--address", server.address, "--batch", "100", "--quiet",
                 "--json-summary", NULL);

    server_stop();
    assert_int_equal(rc, SEND_OK);
    assert_int_equal(server.events, 1050);
    assert_int_equal(server.batches, 11);
    assert_int_equal(figure("sent"), 1050);
    assert_int_equal(figure("accepted"), 1050);
    assert_int_equal(figure("next_id"), 1050);
}

static void some_refused_is_exit_code_1_and_counted_by_reason(void **state)
{
    server.refuse_every = 10;
    server_start(SOCK_STREAM);
    int rc = run("--generate", "100", "--address", server.address, "--rate", "100000", "--batch",
                 "7", "--retry", "0", NULL);

    server_stop();
    assert_int_equal(rc, SEND_SOME_REFUSED);
    assert_non_null(strstr(contents(out_name), "accepted    90\nduplicates  0\nrefused     10\n"
                                               "  OVERLOADED             10\n"));
}

static void a_receipts_file_has_a_line_for_every_event(void **state)
{
    server.refuse_every = 3;
    server_start(SOCK_STREAM);
    int rc = run("--generate", "5", "--run", "255", "--start-id", "7", "--address", server.address,
                 "--receipts-file", file_name, "--retry", "0", NULL);

    server_stop();
    assert_int_equal(rc, SEND_SOME_REFUSED);
    assert_string_equal(contents(file_name), "ff-7 10 0 ACCEPTED\nff-8 10 1 ACCEPTED\n"
                                             "ff-9 0 0 OVERLOADED\nff-10 10 2 ACCEPTED\n"
                                             "ff-11 10 3 ACCEPTED\n");
}

static void a_batch_that_the_server_does_not_take_goes_in_parts(void **state)
{
    server.events_max = 30;
    server_start(SOCK_STREAM);
    int rc = run("--generate", "100", "--batch", "100", "--address", server.address, "--quiet",
                 "--json-summary", NULL);

    server_stop();
    assert_int_equal(rc, SEND_OK);
    assert_int_equal(figure("accepted"), 100);
    assert_int_equal(server.batches, 4);
}

static void lines_that_are_no_events_are_named(void **state)
{
    file_write("{\"type\":1,\"source\":\"s\",\"id\":\"aWQx\",\"timestampNs\":1}\n"
               "{\"type\":1,\"source\":\"s\",\"timestampNs\":1}\n"
               "{\"type\":1,\"source\":\"s\",\"id\":\"aWQy\",\"timestampNs\":1}\n");
    server_start(SOCK_STREAM);
    int rc = run("--json", file_name, "--address", server.address, "--json-summary", NULL);

    server_stop();
    assert_int_equal(rc, SEND_BAD_INPUT);
    assert_int_equal(server.events, 1); /* what stood before it */
    assert_int_equal(figure("bad_lines"), 1);
    assert_non_null(strstr(contents(err_name), "line 2: has no id"));
    server.events = 0;
    server_start(SOCK_STREAM);
    rc =
        run("--json", file_name, "--address", server.address, "--json-summary", "--skip-bad", NULL);
    server_stop();
    assert_int_equal(rc, SEND_BAD_INPUT);
    assert_int_equal(server.events, 2);
    server.events = 0;
    server_start(SOCK_STREAM);
    rc = run("--json", file_name, "--address", server.address, "--allow-missing-ids", NULL);
    server_stop();
    assert_int_equal(rc, SEND_OK);
    assert_int_equal(server.events, 3);
}

static void csv_is_sent_with_what_the_options_add(void **state)
{
    file_write("type,id,price\nTRADE,1,1.5\nTRADE,2,2.5\n");
    server_start(SOCK_STREAM);
    int rc = run("--csv", file_name, "--source", "s", "--now", "--address", server.address, NULL);

    server_stop();
    assert_int_equal(rc, SEND_OK);
    assert_int_equal(server.events, 2);
}

static void nobody_there_is_exit_code_3(void **state)
{
    server_start(SOCK_STREAM);
    server_stop(); /* a port that is free now */
    assert_int_equal(
        run("--generate", "1", "--address", server.address, "--connect-timeout", "0.1", NULL),
        SEND_UNREACHABLE);
    assert_non_null(strstr(contents(err_name), "Connection refused"));
}

static void a_refused_token_is_exit_code_3(void **state)
{
    server.error = sluice_v1_ErrorCode_ERROR_UNAUTHENTICATED;
    server_start(SOCK_STREAM);
    int rc = run("--generate", "1", "--address", server.address, "--connect-timeout", "0.2", NULL);

    server_stop();
    assert_int_equal(rc, SEND_UNREACHABLE);
    assert_non_null(strstr(contents(err_name), "error 5"));
}

static void over_udp_each_event_is_a_datagram_unless_batched(void **state)
{
    server_start(SOCK_DGRAM);
    int rc = run("--generate", "300", "--udp", "--address", server.address, "--quiet", NULL);

    server_stop();
    assert_int_equal(rc, SEND_OK);
    assert_int_equal(server.events, 300);
    assert_int_equal(server.batches, 300);
    memset(&server, 0, sizeof(server));
    server_start(SOCK_DGRAM);
    rc = run("--generate", "300", "--udp", "--batch", "100", "--size", "200", "--address",
             server.address, "--json-summary", NULL);
    server_stop();
    assert_int_equal(rc, SEND_OK);
    assert_int_equal(server.events, 300);
    assert_int_equal(figure("batches"), 51); /* 6 in 1,336 bytes: 17 to a hundred */
    assert_int_equal(server.batches, 51);
}

static void over_udp_receipts_are_counted_when_asked_for(void **state)
{
    server.refuse_every = 10;
    server_start(SOCK_DGRAM);
    int rc = run("--generate", "100", "--udp", "--receipts", "--batch", "5", "--wait", "20",
                 "--address", server.address, "--json-summary", NULL);

    server_stop();
    assert_int_equal(rc, SEND_SOME_REFUSED);
    assert_int_equal(figure("accepted"), 90);
    assert_int_equal(figure("refused"), 10);
    assert_int_equal(figure("unanswered"), 0);
}

static void options_that_cannot_be_are_exit_code_2(void **state)
{
    assert_int_equal(run(NULL, NULL), SEND_USAGE);
    assert_int_equal(run("--generate", "x", NULL), SEND_USAGE);
    assert_int_equal(run("--generate", "1", "--json", "f", NULL), SEND_USAGE);
    assert_int_equal(run("--generate", "1", "--batch", "0", NULL), SEND_USAGE);
    assert_int_equal(run("--generate", "1", "--address", "nowhere", NULL), SEND_USAGE);
    assert_int_equal(run("--generate", "1", "--receipts", NULL), SEND_USAGE);
    assert_int_equal(run("--generate", "1", "more", NULL), SEND_USAGE);
    assert_int_equal(run("--generate", NULL), SEND_USAGE);
    assert_int_equal(run("--nonsense", NULL), SEND_USAGE);
    assert_int_equal(run("--json", "/nowhere/at/all", NULL), SEND_USAGE);
    assert_int_equal(run("--help", NULL), SEND_OK);
    assert_non_null(strstr(contents(out_name), "Exit codes"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(all_accepted_is_exit_code_0),
        TEST(some_refused_is_exit_code_1_and_counted_by_reason),
        TEST(a_receipts_file_has_a_line_for_every_event),
        TEST(a_batch_that_the_server_does_not_take_goes_in_parts),
        TEST(lines_that_are_no_events_are_named),
        TEST(csv_is_sent_with_what_the_options_add),
        TEST(nobody_there_is_exit_code_3),
        TEST(a_refused_token_is_exit_code_3),
        TEST(over_udp_each_event_is_a_datagram_unless_batched),
        TEST(over_udp_receipts_are_counted_when_asked_for),
        TEST(options_that_cannot_be_are_exit_code_2),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
