/*
 * admin_fixture.h - an admin server on a socket of its own, a made-up daemon behind it, a client.
 *
 * The functions end the test when anything is not as it should be.
 */
#ifndef SLUICE_TESTS_ADMIN_FIXTURE_H
#define SLUICE_TESTS_ADMIN_FIXTURE_H

#include "cli/admin_client.h"
#include "tests/lib/fake_admin.h"

#define WAIT_MS 10000 /* until a test is given up */

struct fixture {
    char dir[64], path[96];
    struct fake_admin fake;
    struct admin_config config; /* may be changed until serve() */
    struct admin *admin;
    struct admin_client client;
    struct admin_response response;
};

int admin_fixture_setup(void **state);
int admin_fixture_teardown(void **state);

/* Opens the server; with its thread, and a client, when threaded. */
void serve(struct fixture *x, bool threaded);

void ask(struct fixture *x, const struct admin_request *r);
/* The next response, into x->response. */
void next(struct fixture *x);
/* Asks, and takes one answer that must be all. */
void call(struct fixture *x, const struct admin_request *r);

/* A plain socket to the server. */
int dial(const struct fixture *x);
void send_all(int fd, const void *data, size_t bytes);
/* From now on x->client reads what comes on fd. */
void adopt(struct fixture *x, int fd);

/* The event in x->response. */
struct admin_event event_of(struct fixture *x);

#endif
