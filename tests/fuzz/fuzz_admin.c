/*
 * fuzz_admin.c - bytes from an admin connection, through the parser and the answers.
 *
 * The first byte says in which pieces the rest arrives. Behind the server stands a made-up daemon
 * with a small log. What comes out must be whole, well-formed responses.
 */
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "serve/admin_connection.h"
#include "tests/lib/fake_admin.h"

static struct fake_admin fake;
static struct admin_answerer answerer;
static struct wake wake;

static void setup(void)
{
    static bool done;

    if (done)
        return;
    done = true;
    fake_admin_init(&fake);
    fake_admin_append_other(&fake, LOG_GENESIS);
    fake_admin_block(&fake, 7);
    fake_admin_append_other(&fake, LOG_BARRIER);
    fake_admin_block(&fake, 3);
    fake_admin_source(&fake, &answerer.source);
    if (wake_open(&wake) < 0)
        abort();
    answerer.wake = &wake;
    atomic_store(&fake.xdp.tap_ready, 3);
}

/* Takes the output away, as a client that reads; every response must be one. */
static void drain(struct admin_connection *c)
{
    while (connection_pending(c) > 0) {
        struct admin_response response;
        struct admin_event event;
        size_t head, body;

        if (admin_frame_find(c->out + c->out_at, connection_pending(c), ADMIN_RESPONSE_BYTES_MAX,
                             &head, &body) != 0 ||
            admin_response_decode(&response, c->out + c->out_at + head, body) != 0)
            abort();
        if ((response.error[0] != '\0') != (response.code != 0))
            abort();
        if (response.which == ADMIN_BODY_EVENT &&
            admin_event_decode(&event, response.body, response.body_bytes) != 0)
            abort();
        c->out_at += head + body;
    }
    c->out_at = c->out_bytes = 0;
}

static void work(struct admin_connection *c)
{
    unsigned turns;

    for (turns = 0; turns < 10000; turns++) {
        while (c->operation != NULL && !operation_has_ended(c))
            sched_yield(); /* its thread asks the made-up daemon, which knows at once */
        if (connection_work(&answerer, c, turns) == 0)
            break;
        drain(c);
        connection_update(c, turns);
    }
    if (turns == 10000) /* no input asks for so much */
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct admin_connection *c;
    size_t piece, at;

    setup();
    if (bytes < 1 || bytes > 4096 || connection_open(&c, -1, 0, 0) < 0)
        return 0;
    piece = data[0] ? data[0] : bytes;
    for (at = 1; at < bytes && !c->closing && !c->tail.on && !c->tap.on; at += piece) {
        size_t n = bytes - at < piece ? bytes - at : piece;

        if (n > ADMIN_IN_BYTES - c->in_bytes)
            n = ADMIN_IN_BYTES - c->in_bytes;
        memcpy(c->in + c->in_bytes, data + at, n);
        c->in_bytes += n;
        work(c);
    }
    tap_stop(&answerer, c);
    operation_leave(c);
    connection_close(c);
    operations_end(&answerer);
    if (answerer.tap != NULL || atomic_load(&fake.xdp.tap_open))
        abort();
    atomic_store(&fake.xdp.tap_ready, 3);
    return 0;
}
