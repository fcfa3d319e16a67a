/*
 * test_admin_frame.c - requests and responses of the admin socket: there and back, cut anywhere,
 * too long.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/admin_frame.h"

static struct admin_request request_of(enum admin_request_body which)
{
    struct admin_request r = { .which = which };

    switch (which) {
    case ADMIN_GET:
        memcpy(r.get.source, "feed", 5);
        r.get.id.size = 3;
        memcpy(r.get.id.bytes, "\0\1\2", 3);
        memcpy(r.get.ingestion_id, "1-2-3", 6);
        break;
    case ADMIN_TAIL:
        r.tail = (sluice_v1_TailRequest){ .from_index = UINT64_MAX,
                                          .follow = true,
                                          .count_max = 7,
                                          .types_count = 2,
                                          .types = { 1, 127 },
                                          .source = "s",
                                          .symbol = "AAPL" };
        break;
    case ADMIN_SETTINGS:
        r.settings.history = true;
        break;
    case ADMIN_SETTING_SET:
        memset(r.setting_set.key, 'k', sizeof r.setting_set.key - 1);
        memset(r.setting_set.value, 'v', sizeof r.setting_set.value - 1);
        break;
    case ADMIN_XDP_STATUS:
        r.xdp_status.sources = true;
        break;
    case ADMIN_POLICY_TEST: /* the longest of all */
        r.policy_test.datagram.size = sizeof r.policy_test.datagram.bytes;
        memset(r.policy_test.datagram.bytes, 0xff, sizeof r.policy_test.datagram.bytes);
        memset(r.policy_test.from, 'f', sizeof r.policy_test.from - 1);
        r.policy_test.shadow = true;
        break;
    case ADMIN_TAP:
        r.tap.reasons_count = sizeof r.tap.reasons / sizeof r.tap.reasons[0];
        memset(r.tap.reasons[r.tap.reasons_count - 1], 'r', sizeof r.tap.reasons[0] - 1);
        r.tap.count_max = UINT64_MAX;
        r.tap.follow = true;
        break;
    default:
        break;
    }
    return r;
}

static void every_request_comes_back_as_it_went(void **state)
{
    int which;

    for (which = ADMIN_STATUS; which <= ADMIN_REQUEST_BODY_MAX; which++) {
        struct admin_request r = request_of(which), back;
        uint8_t frame[ADMIN_REQUEST_ENCODED_MAX];
        size_t head, body;
        int64_t n = admin_request_encode(&r, frame, sizeof frame);

        assert_true(n > 0);
        assert_int_equal(admin_frame_find(frame, (size_t)n, ADMIN_REQUEST_BYTES_MAX, &head, &body),
                         0);
        assert_int_equal(head + body, n);
        assert_int_equal(admin_request_decode(&back, frame + head, body), 0);
        assert_int_equal(back.which, which);
        assert_memory_equal(&back.get, &r.get, sizeof back - offsetof(struct admin_request, get));
    }
}

static void a_request_cut_anywhere_is_waited_for_and_never_taken(void **state)
{
    int which;

    for (which = ADMIN_STATUS; which <= ADMIN_REQUEST_BODY_MAX; which++) {
        struct admin_request r = request_of(which), back;
        uint8_t frame[ADMIN_REQUEST_ENCODED_MAX];
        size_t head = 0, body = 0, cut;
        int64_t n = admin_request_encode(&r, frame, sizeof frame);

        for (cut = 0; cut < (size_t)n; cut++) {
            uint8_t *exact = malloc(cut ? cut : 1); /* so that a byte too far is found */

            memcpy(exact, frame, cut);
            assert_int_equal(admin_frame_find(exact, cut, ADMIN_REQUEST_BYTES_MAX, &head, &body),
                             -EAGAIN);
            if (cut > head && head > 0)
                assert_int_equal(admin_request_decode(&back, exact + head, cut - head), -EBADMSG);
            free(exact);
        }
    }
}

static void a_buffer_too_small_by_a_byte_is_told(void **state)
{
    struct admin_request r = request_of(ADMIN_TAIL);
    uint8_t frame[ADMIN_REQUEST_ENCODED_MAX];
    int64_t n = admin_request_encode(&r, frame, sizeof frame);

    assert_int_equal(admin_request_encode(&r, frame, (size_t)n), n);
    assert_int_equal(admin_request_encode(&r, frame, (size_t)n - 1), -EMSGSIZE);
}

static void lengths_at_the_limit_are_taken_and_above_are_not(void **state)
{
    static const uint8_t at_limit[] = { 0x80, 0x80, 0x04 }, above[] = { 0x81, 0x80, 0x04 };
    static const uint8_t wide[] = { 0x82, 0x80, 0x80, 0x80, 0x00 };
    static const uint8_t widest[] = { 0x80, 0x80, 0x80, 0x80, 0x80, 0x00 };
    size_t head, body;

    assert_int_equal(admin_frame_find(at_limit, 3, ADMIN_REQUEST_BYTES_MAX, &head, &body), -EAGAIN);
    assert_int_equal(body, ADMIN_REQUEST_BYTES_MAX);
    assert_int_equal(admin_frame_find(above, 3, ADMIN_REQUEST_BYTES_MAX, &head, &body), -EMSGSIZE);
    assert_int_equal(admin_frame_find(wide, 5, ADMIN_REQUEST_BYTES_MAX, &head, &body), -EAGAIN);
    assert_int_equal(head, 5);
    assert_int_equal(body, 2);
    assert_int_equal(admin_frame_find(widest, 6, ADMIN_REQUEST_BYTES_MAX, &head, &body), -EBADMSG);
    assert_int_equal(admin_frame_find(widest, 4, ADMIN_REQUEST_BYTES_MAX, &head, &body), -EAGAIN);
    assert_int_equal(admin_frame_find(widest, 5, ADMIN_REQUEST_BYTES_MAX, &head, &body), -EBADMSG);
}

static void an_error_comes_back_cut_to_its_bound(void **state)
{
    char sentence[2000];
    struct admin_response r;
    uint8_t frame[1024];
    size_t head, body;
    int64_t n;

    memset(sentence, 'x', sizeof sentence - 1);
    sentence[sizeof sentence - 1] = '\0';
    n = admin_response_begin(frame, sizeof frame, sentence, EACCES, true, ADMIN_BODY_NONE, 0);
    assert_true(n > 0);
    assert_int_equal(admin_frame_find(frame, (size_t)n, ADMIN_RESPONSE_BYTES_MAX, &head, &body), 0);
    assert_int_equal(admin_response_decode(&r, frame + head, body), 0);
    assert_int_equal(strlen(r.error), ADMIN_ERROR_BYTES - 1);
    assert_int_equal(r.code, EACCES);
    assert_true(r.done);
    assert_int_equal(r.which, ADMIN_BODY_NONE);
}

static void an_event_comes_back_with_its_place(void **state)
{
    struct admin_event e = { .event_bytes = 5, .index = UINT64_MAX, .slot = 2047 }, back;
    struct admin_response r;
    uint8_t frame[128], *event = NULL;
    size_t head, body, cut;
    int64_t n = admin_response_event(frame, sizeof frame, false, &e, &event);

    assert_true(n > 0);
    assert_ptr_equal(event + 5, frame + n); /* the event is last */
    memcpy(event, "hello", 5);
    assert_int_equal(admin_frame_find(frame, (size_t)n, ADMIN_RESPONSE_BYTES_MAX, &head, &body), 0);
    assert_int_equal(admin_response_decode(&r, frame + head, body), 0);
    assert_false(r.done);
    assert_int_equal(admin_event_decode(&back, r.body, r.body_bytes), 0);
    assert_true(back.index == UINT64_MAX && back.slot == 2047);
    assert_int_equal(back.event_bytes, 5);
    assert_memory_equal(back.event, "hello", 5);
    for (cut = 0; cut < r.body_bytes; cut++)
        assert_int_equal(admin_event_decode(&back, r.body, cut), -EBADMSG);
    assert_int_equal(admin_response_event(frame, (size_t)n - 1, false, &e, &event), -EMSGSIZE);
}

static void a_response_over_the_limit_is_not_begun(void **state)
{
    size_t cap = 2 * ADMIN_RESPONSE_BYTES_MAX;
    uint8_t *buf = malloc(cap);

    assert_non_null(buf);
    assert_true(admin_response_begin(buf, cap, NULL, 0, true, ADMIN_BODY_SETTINGS,
                                     ADMIN_RESPONSE_BYTES_MAX - 16) > 0);
    assert_int_equal(admin_response_begin(buf, cap, NULL, 0, true, ADMIN_BODY_SETTINGS,
                                          ADMIN_RESPONSE_BYTES_MAX),
                     -EMSGSIZE);
    free(buf);
}

static void fields_of_later_versions_are_skipped(void **state)
{
    static const uint8_t request[] = { 0xa2, 0x01, 1, 'x', 0x0a, 0, 0xa8, 0x01, 5 };
    static const uint8_t response[] = { 0xa2, 0x01, 1, 'x', 0x18, 1 };
    static const uint8_t two_bodies[] = { 0x22, 0, 0x2a, 0 };
    struct admin_request q;
    struct admin_response r;

    assert_int_equal(admin_request_decode(&q, request, sizeof request), 0);
    assert_int_equal(q.which, ADMIN_STATUS);
    assert_int_equal(admin_response_decode(&r, response, sizeof response), 0);
    assert_true(r.done);
    assert_int_equal(admin_response_decode(&r, two_bodies, sizeof two_bodies), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_request_comes_back_as_it_went),
        cmocka_unit_test(a_request_cut_anywhere_is_waited_for_and_never_taken),
        cmocka_unit_test(a_buffer_too_small_by_a_byte_is_told),
        cmocka_unit_test(lengths_at_the_limit_are_taken_and_above_are_not),
        cmocka_unit_test(an_error_comes_back_cut_to_its_bound),
        cmocka_unit_test(an_event_comes_back_with_its_place),
        cmocka_unit_test(a_response_over_the_limit_is_not_begun),
        cmocka_unit_test(fields_of_later_versions_are_skipped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
