/*
 * fuzz_frame.c - streams of frames as server and client read them, and bare receipts.
 *
 * The first byte picks the reader. Checks beside the sanitizers': a frame lies within the stream, a
 * receipt that was accepted can be walked over and holds as many entries as it says, and written
 * again it reads the same.
 */
#include <assert.h>
#include <string.h>

#include "base/frame.h"
#include "ingest/stages.h"

#define FRAME_MAX 65536u
#define LIST_MAX  8192u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static bool receipt_equal(const struct receipt *a, const struct receipt *b)
{
    return a->request == b->request && a->epoch == b->epoch && a->term == b->term &&
           a->index == b->index && a->first_slot == b->first_slot &&
           a->durability == b->durability && a->accepted == b->accepted &&
           a->duplicates == b->duplicates && a->refused == b->refused &&
           a->truncated == b->truncated && a->exceptions == b->exceptions &&
           a->assigned == b->assigned;
}

static bool exception_equal(const struct receipt_exception *a, const struct receipt_exception *b)
{
    return a->position == b->position && a->reason == b->reason &&
           a->first_index == b->first_index && a->first_slot == b->first_slot;
}

static void receipt_check(const uint8_t *data, size_t bytes)
{
    static struct receipt_exception exception[LIST_MAX], e;
    static struct receipt_assigned assigned[LIST_MAX], a;
    static uint8_t buf[FRAME_MAX * 4];
    struct receipt r, again;
    uint32_t exceptions = 0, ids = 0;
    ssize_t size;
    int got;

    if (frame_get_receipt(&r, data, bytes) != 0)
        return;
    for (size_t at = 0; receipt_next_exception(&r, &at, &e); exceptions++)
        exception[exceptions % LIST_MAX] = e;
    for (size_t at = 0; receipt_next_assigned(&r, &at, &a); ids++)
        assigned[ids % LIST_MAX] = a;
    assert(exceptions == r.exceptions && ids == r.assigned);
    if (exceptions > LIST_MAX || ids > LIST_MAX)
        return;
    r.exception = exception;
    r.assigned_id = assigned;
    size = frame_put_bare_receipt(buf, sizeof buf, &r);
    assert(size >= 0 && size == frame_put_bare_receipt(NULL, 0, &r));
    got = frame_get_receipt(&again, buf, (size_t)size);
    assert(got == 0 && receipt_equal(&r, &again));
    exceptions = 0;
    for (size_t at = 0; receipt_next_exception(&again, &at, &e); exceptions++)
        assert(exception_equal(&e, &exception[exceptions]));
}

static void client_body(const struct frame *f)
{
    static struct slice event[1024];
    static sluice_v1_Hello hello;
    struct frame_batch batch;
    struct batch_walk walk;
    uint64_t nonce;

    switch (f->kind) {
    case CLIENT_HELLO:
        frame_get_hello(&hello, f);
        break;
    case CLIENT_BATCH:
        if (frame_get_batch(&batch, f) == 0)
            batch_walk(&walk, event, 1024, batch.batch, batch.batch_bytes);
        break;
    default:
        assert(f->kind == CLIENT_PING);
        frame_get_ping(&nonce, f);
    }
}

static void server_body(const struct frame *f)
{
    sluice_v1_Welcome welcome;
    sluice_v1_Error error;
    uint64_t nonce;

    switch (f->kind) {
    case SERVER_WELCOME:
        frame_get_welcome(&welcome, f);
        break;
    case SERVER_RECEIPT:
        receipt_check(f->body, f->body_bytes);
        break;
    case SERVER_ERROR:
        frame_get_error(&error, f);
        break;
    default:
        assert(f->kind == SERVER_PONG);
        frame_get_pong(&nonce, f);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    bool server;
    int r = 0;

    if (bytes == 0)
        return 0;
    if (data[0] % 3 == 2) {
        receipt_check(data + 1, bytes - 1);
        return 0;
    }
    server = data[0] % 3 == 1;
    for (size_t at = 1; r == 0 && at < bytes;) {
        struct frame f;

        r = server ? frame_parse_server(&f, data + at, bytes - at, FRAME_MAX)
                   : frame_parse_client(&f, data + at, bytes - at, FRAME_MAX);
        if (r != 0)
            break;
        assert(f.frame_bytes <= bytes - at && f.body + f.body_bytes <= data + at + f.frame_bytes);
        if (server)
            server_body(&f);
        else
            client_body(&f);
        at += f.frame_bytes;
    }
    return 0;
}
