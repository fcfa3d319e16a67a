/*
 * admin_fixture.c - see admin_fixture.h.
 */
#include "tests/lib/admin_fixture.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static bool allows(void *arg, uid_t uid)
{
    const struct fake_admin *f = arg;

    return f->refused_uid == 0 || uid != f->refused_uid;
}

int admin_fixture_setup(void **state)
{
    struct fixture *x = calloc(1, sizeof *x);
    const char *tmp = getenv("TMPDIR");

    assert_non_null(x);
    snprintf(x->dir, sizeof x->dir, "%s/admin-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(x->dir));
    snprintf(x->path, sizeof x->path, "%s/admin.sock", x->dir);
    fake_admin_init(&x->fake);
    x->config = (struct admin_config){ .path = x->path, .allows = allows, .allows_arg = &x->fake };
    x->client.fd = -1;
    *state = x;
    return 0;
}

int admin_fixture_teardown(void **state)
{
    struct fixture *x = *state;

    admin_client_close(&x->client);
    admin_close(x->admin);
    fake_admin_fini(&x->fake);
    unlink(x->path);
    assert_int_equal(rmdir(x->dir), 0);
    free(x);
    return 0;
}

/* Opens the server; with its thread, and a client, when threaded. */
void serve(struct fixture *x, bool threaded)
{
    struct admin_source source;
    char error[ADMIN_OPEN_ERROR_BYTES];

    fake_admin_source(&x->fake, &source);
    assert_int_equal(admin_open(&x->admin, &x->config, &source, error), 0);
    if (!threaded)
        return;
    assert_int_equal(admin_start(x->admin), 0);
    assert_int_equal(admin_client_open(&x->client, x->path), 0);
}

void ask(struct fixture *x, const struct admin_request *r)
{
    assert_int_equal(admin_client_send(&x->client, r), 0);
}

void next(struct fixture *x)
{
    assert_int_equal(admin_client_next(&x->client, WAIT_MS, &x->response), 0);
}

/* Asks, and takes one answer that must be all. */
void call(struct fixture *x, const struct admin_request *r)
{
    ask(x, r);
    next(x);
    assert_true(x->response.done);
}

/* A plain socket to the server. */
int dial(const struct fixture *x)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", x->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

void send_all(int fd, const void *data, size_t bytes)
{
    assert_int_equal(send(fd, data, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
}

/* The client that reads what comes on fd. */
void adopt(struct fixture *x, int fd)
{
    admin_client_close(&x->client);
    x->client.fd = fd;
    x->client.buf = malloc(ADMIN_RESPONSE_BYTES_MAX + ADMIN_DELIMITER_MAX);
    assert_non_null(x->client.buf);
}

struct admin_event event_of(struct fixture *x)
{
    struct admin_event e;

    assert_string_equal(x->response.error, "");
    assert_int_equal(x->response.which, ADMIN_BODY_EVENT);
    assert_int_equal(admin_event_decode(&e, x->response.body, x->response.body_bytes), 0);
    return e;
}
