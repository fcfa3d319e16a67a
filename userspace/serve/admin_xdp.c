/*
 * admin_xdp.c - the XDP prefilter for admin connections: its state, what its policy says of a
 * datagram, and `tap`, samples of what was dropped.
 *
 * Nobody wakes a tap: the source is asked every TAP_INTERVAL_NS while one is open. It is asked
 * whether or not the client reads, so that what comes is always what was dropped just now; samples
 * that find no room in the connection's output are lost.
 */
#include "serve/admin_connection.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"

#define TAP_INTERVAL_NS      (50 * NS_PER_MS)
#define TAP_SAMPLES_PER_TURN 64u

_Static_assert(sluice_v1_TapSample_size + 64u < ADMIN_OUT_BYTES - ADMIN_OUT_HIGH_BYTES,
               "a sample, and the tap's end");
_Static_assert(sluice_v1_XdpStatusResponse_size + 64u < ADMIN_RESPONSE_BYTES_MAX &&
                   sluice_v1_PolicyTestResponse_size + 64u < ADMIN_RESPONSE_BYTES_MAX,
               "one response");

void xdp_status_answer(struct admin_answerer *a, struct admin_connection *c, bool sources)
{
    size_t cap;
    uint8_t *to = admin_reserve(c, &cap);

    memset(&a->scratch, 0, sizeof a->scratch);
    a->source.xdp_status(a->source.arg, sources, &a->scratch.xdp_status);
    connection_answer(c, admin_response_encode(to, cap, true, ADMIN_BODY_XDP_STATUS,
                                               sluice_v1_XdpStatusResponse_fields,
                                               &a->scratch.xdp_status));
}

void policy_test_answer(struct admin_answerer *a, struct admin_connection *c,
                        const sluice_v1_PolicyTestRequest *request)
{
    char error[ADMIN_ERROR_BYTES] = "";
    size_t cap;
    uint8_t *to;
    int rc;

    memset(&a->scratch, 0, sizeof a->scratch);
    rc = a->source.policy_test(a->source.arg, request, &a->scratch.policy_test, error);
    if (rc < 0) {
        connection_fail(c, -rc, false, "%s", error[0] ? error : strerror(-rc));
        return;
    }
    to = admin_reserve(c, &cap);
    connection_answer(c, admin_response_encode(to, cap, true, ADMIN_BODY_POLICY_TEST,
                                               sluice_v1_PolicyTestResponse_fields,
                                               &a->scratch.policy_test));
}

void tap_begin(struct admin_answerer *a, struct admin_connection *c,
               const sluice_v1_TapRequest *request, uint64_t now_ns)
{
    char error[ADMIN_ERROR_BYTES] = "";
    int rc;

    if (a->tap != NULL) {
        connection_fail(c, EBUSY, false, "a tap is running already");
        return;
    }
    rc = a->source.tap_start(a->source.arg, request, error);
    if (rc < 0) {
        connection_fail(c, -rc, false, "%s", error[0] ? error : strerror(-rc));
        return;
    }
    a->tap = c;
    c->tap = (struct admin_tap){ .on = true,
                                 .next_ns = now_ns,
                                 .left = request->follow || request->count_max == 0
                                             ? UINT64_MAX
                                             : request->count_max };
}

void tap_stop(struct admin_answerer *a, struct admin_connection *c)
{
    assert(c->tap.on == (a->tap == c));
    if (!c->tap.on)
        return;
    a->source.tap_stop(a->source.arg);
    a->tap = NULL;
    c->tap.on = false;
}

static void put_sample(struct admin_connection *c, const sluice_v1_TapSample *s)
{
    size_t cap;
    uint8_t *to = admin_reserve(c, &cap);

    connection_answer(c, admin_response_encode(to, cap, false, ADMIN_BODY_TAP_SAMPLE,
                                               sluice_v1_TapSample_fields, s));
}

static void tap_end(struct admin_answerer *a, struct admin_connection *c)
{
    size_t cap;
    uint8_t *to = admin_reserve(c, &cap);
    int64_t n = admin_response_begin(to, cap, NULL, 0, true, ADMIN_BODY_NONE, 0);

    assert(n > 0);
    connection_commit(c, (size_t)n);
    tap_stop(a, c);
}

int tap_work(struct admin_answerer *a, struct admin_connection *c, uint64_t now_ns)
{
    sluice_v1_TapSample *sample = &a->scratch.tap_sample;
    unsigned n;

    assert(a->tap == c && c->tap.left > 0);
    for (n = 0; n < TAP_SAMPLES_PER_TURN; n++) {
        int rc;

        memset(sample, 0, sizeof *sample);
        rc = a->source.tap_next(a->source.arg, sample);
        if (rc == 0) {
            c->tap.next_ns = now_ns + TAP_INTERVAL_NS;
            break;
        }
        if (rc < 0) {
            tap_stop(a, c);
            connection_fail(c, -rc, false, "the tap has ended: %s", strerror(-rc));
            return (int)n + 1;
        }
        if (!connection_has_room(c))
            continue;
        put_sample(c, sample);
        if (--c->tap.left == 0) {
            tap_end(a, c);
            return (int)n + 1;
        }
    }
    return (int)n;
}
