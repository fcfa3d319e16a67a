/*
 * test_admin_remote.c - the admin server over mutual TLS: who may ask for what, and that strangers
 * keep nobody out.
 *
 * As in test_admin.c the server mostly runs on its own thread; what is about time turns it by hand.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pb_decode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/lib/admin_fixture.h"
#include "tests/lib/pki_rig.h"

static struct pki pki, others;
static struct tls_context *node;

static int open_files(void **state)
{
    pki_open(&pki);
    pki_open(&others);
    pki_add(&pki, "node-3", CERTIFICATE_NODE, 3);
    pki_add(&pki, "alice", CERTIFICATE_ADMIN, 0);
    pki_add(&pki, "bob", CERTIFICATE_READER, 0);
    pki_add(&pki, "feed", CERTIFICATE_PRODUCER, 0);
    pki_add(&others, "alice", CERTIFICATE_ADMIN, 0);
    node = pki_context(&pki, "node-3");
    return 0;
}

static int close_files(void **state)
{
    tls_context_free(node);
    pki_close(&pki);
    pki_close(&others);
    return 0;
}

/* On loopback, any port. */
static void serve_remote(struct fixture *x, bool threaded)
{
    x->config.tls = node;
    x->config.ip.s6_addr[10] = x->config.ip.s6_addr[11] = 0xff;
    x->config.ip.s6_addr[12] = 127;
    x->config.ip.s6_addr[15] = 1;
    serve(x, threaded);
    assert_int_not_equal(admin_port(x->admin), 0);
    admin_client_close(&x->client); /* that of the socket */
}

static int open_as(struct fixture *x, const struct pki *p, const char *who, char *error)
{
    char address[32];
    struct pki_files f;

    snprintf(address, sizeof address, "127.0.0.1:%u", admin_port(x->admin));
    admin_client_close(&x->client);
    return admin_client_open_tls(&x->client, address, pki_files(p, who, &f), error);
}

static void connect_as(struct fixture *x, const char *who)
{
    char error[ADMIN_CLIENT_ERROR_BYTES];

    if (open_as(x, &pki, who, error) < 0)
        fail_msg("%s", error);
}

static int dial_tcp(const struct fixture *x)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(admin_port(x->admin)) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

/* The answer to a request of this kind: 0, or the error's code. */
static int answer_to(struct fixture *x, uint32_t which)
{
    struct admin_request r = { .which = which };

    if (which == ADMIN_GET)
        strcpy(r.get.ingestion_id, "3-2-1");
    if (which == ADMIN_TAIL)
        r.tail.from_index = 1000;
    if (which == ADMIN_SETTING_SET) {
        strcpy(r.setting_set.key, "class.trade");
        strcpy(r.setting_set.value, "2");
    }
    if (which == ADMIN_POLICY_TEST)
        strcpy(r.policy_test.from, "10.0.0.1");
    if (which == ADMIN_TAP)
        r.tap.count_max = 1;
    ask(x, &r);
    next(x);
    assert_int_equal(x->response.code != 0, x->response.error[0] != '\0');
    return (int)x->response.code;
}

static const struct {
    uint32_t which;
    bool reads;
} requests[] = {
    { ADMIN_STATUS, true },
    { ADMIN_LEDGER, true },
    { ADMIN_GET, true },
    { ADMIN_TAIL, true },
    { ADMIN_SETTINGS, true },
    { ADMIN_XDP_STATUS, true },
    { ADMIN_SETTING_SET, false },
    { ADMIN_TAP, false },
    { ADMIN_POLICY_TEST, false },
    { ADMIN_CONFIG_SHOW, false },
    { ADMIN_CLUSTER_STATUS, true },
    { ADMIN_READ_POINT, true },
    { ADMIN_CLUSTER_INIT, false },
    { ADMIN_CLUSTER_CHANGE, false },
    { ADMIN_RECOVERY, false },
};

#define REQUESTS (sizeof requests / sizeof *requests)

_Static_assert(REQUESTS == ADMIN_REQUEST_BODY_MAX, "every request is here");

static void start_with_events(struct fixture *x)
{
    fake_admin_append_other(&x->fake, LOG_GENESIS);
    fake_admin_block(&x->fake, 5);
    serve_remote(x, true);
}

static void an_admin_may_ask_for_all(void **state)
{
    struct fixture *x = *state;

    start_with_events(x);
    atomic_store(&x->fake.xdp.tap_ready, 1);
    for (size_t i = 0; i < REQUESTS; i++) {
        connect_as(x, "alice");
        if (answer_to(x, requests[i].which) == EACCES)
            fail_msg("request %u: %s", requests[i].which, x->response.error);
    }
    assert_string_equal(x->fake.set_value, "2");
    assert_int_equal(x->fake.set_uid, UINT32_MAX);
    assert_string_equal(x->fake.set_by, "alice");
    assert_string_equal(x->fake.cluster.asker.name, "alice");
}

static void a_reader_may_read(void **state)
{
    struct fixture *x = *state;

    start_with_events(x);
    connect_as(x, "bob");
    for (size_t i = 0; i < REQUESTS; i++) { /* on one connection: a refusal does not end it */
        int code = answer_to(x, requests[i].which);

        if ((code == EACCES) != !requests[i].reads)
            fail_msg("request %u: %d %s", requests[i].which, code, x->response.error);
    }
    assert_string_equal(x->fake.cluster.asker.name, "");
    assert_string_equal(x->response.error, "bob, whose role is reader, may not ask for this");
    assert_string_equal(x->fake.set_value, "");
}

static void other_roles_may_nothing(void **state)
{
    static const char *const who[] = { "feed", "node-3" };
    struct fixture *x = *state;

    start_with_events(x);
    for (unsigned k = 0; k < 2; k++) {
        connect_as(x, who[k]);
        for (size_t i = 0; i < REQUESTS; i++)
            assert_int_equal(answer_to(x, requests[i].which), EACCES);
        assert_non_null(strstr(x->response.error, who[k]));
    }
}

static void another_ca_is_refused_on_both_sides(void **state)
{
    char error[ADMIN_CLIENT_ERROR_BYTES];
    struct fixture *x = *state;

    serve_remote(x, true);
    assert_int_equal(open_as(x, &others, "alice", error), -EACCES);
    assert_non_null(strstr(error, "the peer's certificate is not signed by our CA"));
    connect_as(x, "alice");
    assert_int_equal(answer_to(x, ADMIN_STATUS), 0);
}

static void plaintext_is_refused(void **state)
{
    struct admin_request r = { .which = ADMIN_STATUS };
    uint8_t frame[ADMIN_REQUEST_ENCODED_MAX];
    struct fixture *x = *state;
    int64_t n = admin_request_encode(&r, frame, sizeof frame);
    struct pollfd p = { .events = POLLIN };

    serve_remote(x, true);
    p.fd = dial_tcp(x);
    send_all(p.fd, "GET / HTTP/1.1\r\n", 16);
    send_all(p.fd, frame, (size_t)n);
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    assert_true(recv(p.fd, frame, sizeof frame, 0) <= 0);
    close(p.fd);
}

static void strangers_keep_nobody_out(void **state)
{
    struct fixture *x = *state;
    int fd[12];

    x->config.connections_max = 4;
    serve_remote(x, true);
    for (int i = 0; i < 12; i++)
        fd[i] = dial_tcp(x); /* and not a word */
    connect_as(x, "alice");
    assert_int_equal(answer_to(x, ADMIN_STATUS), 0);
    for (int i = 0; i < 12; i++)
        close(fd[i]);
    /* Those who are known keep their places, and the socket has its own. */
    for (int i = 0; i < 2; i++)
        fd[i] = dial_tcp(x);
    assert_int_equal(answer_to(x, ADMIN_STATUS), 0);
    admin_client_close(&x->client);
    assert_int_equal(admin_client_open(&x->client, x->path), 0);
    assert_int_equal(answer_to(x, ADMIN_SETTING_SET), 0);
    assert_string_equal(x->fake.set_by, "");
    close(fd[0]);
    close(fd[1]);
}

static void a_handshake_has_as_long_as_a_request(void **state)
{
    struct fixture *x = *state;
    int fd, turns = 0;
    char byte;

    x->config.request_ms_max = 50;
    serve_remote(x, false);
    fd = dial_tcp(x);
    send_all(fd, "\x16\x03\x01\x02\x00\x01", 6);
    for (; turns < 1000 && recv(fd, &byte, 1, MSG_DONTWAIT) < 0; turns++)
        admin_do_work(x->admin, 10);
    assert_true(turns > 0 && turns < 1000);
    assert_int_equal(admin_connections(x->admin), 0);
    close(fd);
}

/* More than sockets and TLS hold at once, to a client that does not read at first. */
static void a_long_tail_arrives_whole(void **state)
{
    struct admin_request r = { .which = ADMIN_TAIL };
    struct fixture *x = *state;
    unsigned n = 0;

    for (unsigned i = 0; i < 100; i++)
        fake_admin_block(&x->fake, 200);
    serve_remote(x, true);
    connect_as(x, "bob");
    r.tail.from_index = 1;
    ask(x, &r);
    for (next(x); !x->response.done; next(x), n++) {
        struct admin_event e = event_of(x);

        assert_int_equal(e.index, 1 + n / 200);
        assert_int_equal(e.slot, n % 200);
    }
    assert_int_equal(n, 100 * 200);
}

static void a_follower_that_has_gone_is_noticed(void **state)
{
    struct admin_request r = { .which = ADMIN_TAIL };
    struct fixture *x = *state;

    fake_admin_block(&x->fake, 1);
    serve_remote(x, true);
    connect_as(x, "bob");
    r.tail.follow = true;
    r.tail.from_index = 1;
    ask(x, &r);
    next(x);
    fake_admin_block(&x->fake, 1);
    next(x);
    assert_int_equal(event_of(x).index, 2);
    assert_int_equal(admin_connections(x->admin), 1);
    admin_client_close(&x->client);
    for (unsigned i = 0; i < WAIT_MS && admin_connections(x->admin) > 0; i++)
        (void)poll(NULL, 0, 1);
    assert_int_equal(admin_connections(x->admin), 0);
}

/* To the second: it follows the log, and gets nothing more when its time is over. */
static void a_follower_goes_with_its_certificate(void **state)
{
    struct admin_request r = { .which = ADMIN_TAIL };
    struct fixture *x = *state;
    /* time(), which dates the certificate, may still say the second before. */
    const uint64_t until = clock_unix_ns() / NS_PER_S + 3;
    unsigned n = 0;

    pki_add_dated(&pki, "carol", CERTIFICATE_READER, 0, -300, 3);
    serve_remote(x, true);
    connect_as(x, "carol");
    r.tail.follow = true;
    r.tail.from_index = 1;
    ask(x, &r);
    for (;; n++) {
        fake_admin_block(&x->fake, 1);
        next(x);
        if (x->response.code != 0)
            break;
        assert_true(clock_unix_ns() / NS_PER_S <= until + 3);
        (void)poll(NULL, 0, 100);
    }
    assert_true(n > 0 && clock_unix_ns() / NS_PER_S >= until);
    assert_int_equal(x->response.code, EACCES);
    assert_string_equal(x->response.error, "your certificate has expired");
    for (unsigned i = 0; i < WAIT_MS && admin_connections(x->admin) > 0; i++)
        (void)poll(NULL, 0, 1);
    assert_int_equal(admin_connections(x->admin), 0);
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, admin_fixture_setup, admin_fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_admin_may_ask_for_all),
        TEST(a_reader_may_read),
        TEST(other_roles_may_nothing),
        TEST(another_ca_is_refused_on_both_sides),
        TEST(plaintext_is_refused),
        TEST(strangers_keep_nobody_out),
        TEST(a_handshake_has_as_long_as_a_request),
        TEST(a_long_tail_arrives_whole),
        TEST(a_follower_that_has_gone_is_noticed),
        TEST(a_follower_goes_with_its_certificate),
    };

    return cmocka_run_group_tests(tests, open_files, close_files);
}
