/*
 * test_frame.c - frames and receipts: what is put is got, in exactly the stated size; nothing else
 * is taken.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/frame.h"
#include "base/utf8.h"
#include "base/wire.h"

#define MAX         65536u
#define BYTES(text) (text), sizeof(text) - 1

static uint8_t *exact(const void *data, size_t bytes)
{
    uint8_t *p = malloc(bytes > 0 ? bytes : 1);

    assert_non_null(p);
    memcpy(p, data, bytes);
    return p;
}

typedef ssize_t (*put_fn)(uint8_t *buf, size_t buf_bytes, const void *what);

/* The size is told beforehand, is what is written, and one byte less is refused without a write
 * past the end. */
static size_t put_checked(uint8_t *buf, size_t buf_bytes, put_fn put, const void *what)
{
    ssize_t size = put(NULL, 0, what);
    uint8_t *p;

    assert_in_range(size, 1, buf_bytes);
    assert_int_equal(put(buf, (size_t)size, what), size);
    for (size_t less = 0; less < (size_t)size; less += less < 64 ? 1 : 977) {
        p = exact(buf, less);
        assert_int_equal(put(p, less, what), -ENOBUFS);
        free(p);
    }
    p = exact(buf, (size_t)size - 1);
    assert_int_equal(put(p, (size_t)size - 1, what), -ENOBUFS);
    free(p);
    return (size_t)size;
}

/* Every proper prefix asks for more, and says how much as soon as it is known. */
static struct frame parse_checked(int (*parse)(struct frame *, const void *, size_t, uint32_t),
                                  const uint8_t *buf, size_t bytes)
{
    struct frame f = { 0 };
    uint8_t *p;

    for (size_t cut = 0; cut < bytes; cut += cut < 64 ? 1 : 977) {
        p = exact(buf, cut);
        assert_int_equal(parse(&f, p, cut, MAX), -EAGAIN);
        assert_true(f.frame_bytes == bytes || (f.frame_bytes == 0 && cut < 5));
        free(p);
    }
    assert_int_equal(parse(&f, buf, bytes, MAX), 0);
    assert_int_equal(f.frame_bytes, bytes);
    return f;
}

static ssize_t put_hello(uint8_t *b, size_t n, const void *w) { return frame_put_hello(b, n, w); }
static ssize_t put_ping(uint8_t *b, size_t n, const void *w)
{
    return frame_put_ping(b, n, *(const uint64_t *)w);
}
static ssize_t put_pong(uint8_t *b, size_t n, const void *w)
{
    return frame_put_pong(b, n, *(const uint64_t *)w);
}
static ssize_t put_head(uint8_t *b, size_t n, const void *w)
{
    return frame_put_batch_head(b, n, w);
}
static ssize_t put_welcome(uint8_t *b, size_t n, const void *w)
{
    return frame_put_welcome(b, n, w);
}
static ssize_t put_error(uint8_t *b, size_t n, const void *w) { return frame_put_error(b, n, w); }
static ssize_t put_receipt(uint8_t *b, size_t n, const void *w)
{
    return frame_put_receipt(b, n, w);
}
static ssize_t put_bare(uint8_t *b, size_t n, const void *w)
{
    return frame_put_bare_receipt(b, n, w);
}

static void hello_ping_and_pong_come_back_as_sent(void **state)
{
    sluice_v1_Hello hello = { .protocol = 1, .producer = "f\xc3\xbcnf", .token = { .size = 512 } };
    sluice_v1_Hello got;
    uint8_t buf[1024];
    struct frame f;
    uint64_t nonce;
    size_t n;

    memset(hello.token.bytes, 0x5a, 512);
    n = put_checked(buf, sizeof buf, put_hello, &hello);
    f = parse_checked(frame_parse_client, buf, n);
    assert_int_equal(f.kind, CLIENT_HELLO);
    assert_int_equal(frame_get_hello(&got, &f), 0);
    assert_int_equal(got.protocol, 1);
    assert_string_equal(got.producer, hello.producer);
    assert_int_equal(got.token.size, 512);
    assert_memory_equal(got.token.bytes, hello.token.bytes, 512);

    for (unsigned bit = 0; bit <= 64; bit++) {
        uint64_t sent = bit == 64 ? UINT64_MAX : bit == 63 ? 0 : 1ull << bit;

        n = put_checked(buf, sizeof buf, put_ping, &sent);
        f = parse_checked(frame_parse_client, buf, n);
        assert_int_equal(frame_get_ping(&nonce, &f), 0);
        assert_true(nonce == sent);
        n = put_checked(buf, sizeof buf, put_pong, &sent);
        f = parse_checked(frame_parse_server, buf, n);
        assert_int_equal(f.kind, SERVER_PONG);
        assert_int_equal(frame_get_pong(&nonce, &f), 0);
        assert_true(nonce == sent);
    }
}

static void a_batch_follows_its_head(void **state)
{
    static uint8_t buf[MAX + 64];
    struct frame_batch batch = { .durability = 1 }, got;
    struct frame f;
    size_t head;

    for (uint32_t bytes = 0; bytes < MAX - 64; bytes = bytes * 5 + 1) {
        for (unsigned shift = 0; shift < 64; shift += 7) {
            batch.request = 1ull << shift;
            batch.batch_bytes = bytes;
            head = put_checked(buf, FRAME_BATCH_HEAD_MAX, put_head, &batch);
            memset(buf + head, 0x77, bytes);
            f = parse_checked(frame_parse_client, buf, head + bytes);
            assert_int_equal(f.kind, CLIENT_BATCH);
            assert_int_equal(frame_get_batch(&got, &f), 0);
            assert_int_equal(got.request, batch.request);
            assert_int_equal(got.durability, 1);
            assert_int_equal(got.batch_bytes, bytes);
            assert_ptr_equal(got.batch, buf + head);
        }
    }
    assert_true(frame_put_batch_head(NULL, 0,
                                     &(struct frame_batch){ .request = UINT64_MAX,
                                                            .durability = UINT32_MAX,
                                                            .batch_bytes = INT32_MAX }) <=
                (ssize_t)FRAME_BATCH_HEAD_MAX);
    assert_int_equal(frame_put_event_head(buf, sizeof buf, 300), 3);
    assert_memory_equal(buf, "\x0a\xac\x02", 3);
    assert_int_equal(frame_put_event_head(buf, 2, 300), -ENOBUFS);
    assert_true(frame_put_event_head(NULL, 0, UINT32_MAX) <= (ssize_t)FRAME_EVENT_HEAD_MAX);
}

static void welcome_and_error_come_back_as_sent(void **state)
{
    sluice_v1_Welcome welcome = { .protocol = 1,
                                  .node = 3,
                                  .region = 2,
                                  .frame_bytes_max = MAX,
                                  .batch_events_max = 1000,
                                  .cluster_id = { .size = 16 } };
    sluice_v1_Error error = { .code = sluice_v1_ErrorCode_ERROR_IDLE_TIMEOUT, .closing = true };
    sluice_v1_Welcome welcome_got;
    sluice_v1_Error error_got;
    uint8_t buf[512];
    struct frame f;

    memset(welcome.cluster_id.bytes, 9, 16);
    f = parse_checked(frame_parse_server, buf, put_checked(buf, sizeof buf, put_welcome, &welcome));
    assert_int_equal(f.kind, SERVER_WELCOME);
    assert_int_equal(frame_get_welcome(&welcome_got, &f), 0);
    assert_int_equal(welcome_got.batch_events_max, 1000);
    assert_memory_equal(welcome_got.cluster_id.bytes, welcome.cluster_id.bytes, 16);

    memset(error.message, 'm', sizeof error.message - 1);
    f = parse_checked(frame_parse_server, buf, put_checked(buf, sizeof buf, put_error, &error));
    assert_int_equal(f.kind, SERVER_ERROR);
    assert_int_equal(frame_get_error(&error_got, &f), 0);
    assert_int_equal(error_got.code, error.code);
    assert_true(error_got.closing);
    assert_string_equal(error_got.message, error.message);
}

#define EXCEPTIONS 2000u

static void a_receipt_comes_back_with_all_exceptions_and_ids(void **state)
{
    static struct receipt_exception exception[EXCEPTIONS], e;
    static struct receipt_assigned assigned[EXCEPTIONS], a;
    static uint8_t id[EXCEPTIONS][16], buf[MAX * 4];
    struct receipt r = { .request = UINT64_MAX,
                         .epoch = 2,
                         .term = 2ull << 20 | 3,
                         .index = 1ull << 40,
                         .first_slot = 70000,
                         .durability = 1,
                         .accepted = 5,
                         .duplicates = 6,
                         .refused = 7,
                         .truncated = true,
                         .exceptions = EXCEPTIONS,
                         .assigned = EXCEPTIONS,
                         .exception = exception,
                         .assigned_id = assigned };
    struct receipt got;
    struct frame f;
    size_t bytes, at = 0;

    for (uint32_t i = 0; i < EXCEPTIONS; i++) {
        exception[i] = (struct receipt_exception){ .position = i * i,
                                                   .reason = i % 101,
                                                   .first_index = i % 3 ? 1ull << i % 64 : 0,
                                                   .first_slot = i % 5 ? i : 0 };
        memset(id[i], (int)i, 16);
        assigned[i] = (struct receipt_assigned){ .position = i, .id = id[i], .id_bytes = i % 17 };
    }
    bytes = put_checked(buf, sizeof buf, put_receipt, &r);
    assert_int_equal(frame_parse_server(&f, buf, bytes, sizeof buf), 0);
    assert_int_equal(f.kind, SERVER_RECEIPT);
    assert_int_equal(frame_get_receipt(&got, f.body, f.body_bytes), 0);
    assert_true(got.request == r.request && got.epoch == r.epoch && got.term == r.term);
    assert_true(got.index == r.index && got.first_slot == r.first_slot && got.truncated);
    assert_true(got.durability == 1 && got.accepted == 5 && got.duplicates == 6);
    assert_int_equal(got.refused, 7);
    assert_int_equal(got.exceptions, EXCEPTIONS);
    assert_int_equal(got.assigned, EXCEPTIONS);
    for (uint32_t i = 0; i < EXCEPTIONS; i++) {
        assert_true(receipt_next_exception(&got, &at, &e));
        assert_int_equal(e.position, exception[i].position);
        assert_int_equal(e.reason, exception[i].reason);
        assert_true(e.first_index == exception[i].first_index);
        assert_int_equal(e.first_slot, exception[i].first_slot);
    }
    assert_false(receipt_next_exception(&got, &at, &e));
    assert_false(receipt_next_exception(&got, &at, &e));
    at = 0;
    for (uint32_t i = 0; i < EXCEPTIONS; i++) {
        assert_true(receipt_next_assigned(&got, &at, &a));
        assert_int_equal(a.position, i);
        assert_int_equal(a.id_bytes, i % 17);
        assert_memory_equal(a.id, id[i], a.id_bytes);
    }
    assert_false(receipt_next_assigned(&got, &at, &a));
}

static void a_bare_receipt_is_the_body_of_the_framed_one(void **state)
{
    struct receipt_exception e = { .position = 4, .reason = 100, .first_index = 9 };
    struct receipt r = { .request = 300, .index = 7, .exceptions = 1, .exception = &e }, got;
    uint8_t bare[64], framed[64];
    struct frame f;
    size_t bytes = put_checked(bare, sizeof bare, put_bare, &r);

    f = parse_checked(frame_parse_server, framed,
                      put_checked(framed, sizeof framed, put_receipt, &r));
    assert_int_equal(f.body_bytes, bytes);
    assert_memory_equal(f.body, bare, bytes);
    /* An empty one is no bytes at all, and a receipt. */
    assert_int_equal(frame_put_bare_receipt(bare, 0, &(struct receipt){ 0 }), 0);
    assert_int_equal(frame_get_receipt(&got, NULL, 0), 0);
    assert_int_equal(got.exceptions, 0);
}

static void what_is_not_a_frame_is_refused(void **state)
{
    struct frame f;

    assert_int_equal(frame_parse_client(&f, NULL, 0, MAX), -EAGAIN);
    assert_int_equal(f.frame_bytes, 0);
    assert_int_equal(frame_parse_client(&f, BYTES("\x00"), MAX), -EBADMSG); /* no body */
    assert_int_equal(frame_parse_client(&f, BYTES("\x80\x80\x80\x80\x80"), MAX), -EBADMSG);
    assert_int_equal(frame_parse_client(&f, BYTES("\xff\xff\xff\xff\x0f"), MAX), -EMSGSIZE);
    assert_int_equal(frame_parse_client(&f, BYTES("\xff\xff\xff\xff\x7f"), MAX), -EMSGSIZE);
    assert_int_equal(frame_parse_client(&f, BYTES("\x81\x80\x04"), MAX), -EMSGSIZE);
    assert_int_equal(frame_parse_client(&f, BYTES("\x80\x80\x04"), MAX), -EAGAIN);
    assert_int_equal(f.frame_bytes, 65536 + 3);
    assert_int_equal(frame_parse_client(&f, BYTES("\x02\x08\x01"), MAX), -EBADMSG);
    assert_int_equal(frame_parse_client(&f, BYTES("\x02\x22\x00"), MAX), -EBADMSG); /* server's */
    assert_int_equal(frame_parse_server(&f, BYTES("\x02\x22\x00"), MAX), 0);
    assert_int_equal(frame_parse_client(&f, BYTES("\x04\x0a\x00\x1a\x00"), MAX), -EBADMSG);
    assert_int_equal(frame_parse_client(&f, BYTES("\x04\x0a\x00\x0a\x00"), MAX), -EBADMSG);
    assert_int_equal(frame_parse_client(&f, BYTES("\x03\x0a\x02\x00"), MAX), -EBADMSG);
    assert_int_equal(frame_parse_client(&f, BYTES("\x02\x0b\x0c"), MAX), -EBADMSG);
    assert_int_equal(frame_parse_client(&f, BYTES("\x06\xa2\x06\x01z\x1a\x00"), MAX), 0);
    assert_int_equal(f.kind, CLIENT_PING);
}

static void what_is_not_a_batch_hello_or_ping_is_refused(void **state)
{
    static const char *const bad_batch[] = {
        "\x04\x12\x02\x12\x05", "\x06\x12\x04\x12\x00\x12\x00", "\x06\x12\x04\x08\x01\x08\x01",
        "\x04\x12\x02\x0a\x00", "\x04\x12\x02\x0b\x0c",         "\x04\x12\x02\x10\x01"
    };
    struct frame_batch b;
    sluice_v1_Hello hello;
    struct frame f;
    uint64_t nonce;

    for (size_t i = 0; i < sizeof bad_batch / sizeof bad_batch[0]; i++) {
        const char *p = bad_batch[i];

        assert_int_equal(frame_parse_client(&f, p, (size_t)p[0] + 1, MAX), 0);
        assert_int_equal(frame_get_batch(&b, &f), -EBADMSG);
    }
    assert_int_equal(frame_parse_client(&f, BYTES("\x02\x12\x00"), MAX), 0);
    assert_int_equal(frame_get_batch(&b, &f), 0);
    assert_int_equal(b.batch_bytes, 0);
    assert_int_equal(frame_parse_client(&f, BYTES("\x05\x0a\x03\x12\x01\xff"), MAX), 0);
    assert_int_equal(frame_get_hello(&hello, &f), -EBADMSG);
    assert_int_equal(frame_parse_client(&f, BYTES("\x04\x0a\x02\x12\x05"), MAX), 0);
    assert_int_equal(frame_get_hello(&hello, &f), -EBADMSG);
    assert_int_equal(frame_parse_client(&f, BYTES("\x03\x1a\x01\x08"), MAX), 0);
    assert_int_equal(frame_get_ping(&nonce, &f), -EBADMSG);
    assert_int_equal(frame_parse_client(&f, BYTES("\x04\x1a\x02\x0a\x00"), MAX), 0);
    assert_int_equal(frame_get_ping(&nonce, &f), -EBADMSG);
}

/* Whatever is accepted can be walked over to its end, and holds as many as it says. */
static void walk_over(const struct receipt *r)
{
    struct receipt_exception e;
    struct receipt_assigned a;
    uint32_t exceptions = 0, assigned = 0;

    for (size_t at = 0; receipt_next_exception(r, &at, &e);)
        exceptions++;
    for (size_t at = 0; receipt_next_assigned(r, &at, &a);) {
        assert_in_range(a.id_bytes, 0, FRAME_RECEIPT_IDS_MAX);
        assigned++;
    }
    assert_int_equal(exceptions, r->exceptions);
    assert_int_equal(assigned, r->assigned);
}

static void a_receipt_cut_or_flipped_anywhere_is_survived(void **state)
{
    static const uint8_t id[16] = "0123456789abcdef";
    struct receipt_exception e[] = {
        { .position = 1, .reason = 100, .first_index = 300, .first_slot = 4 },
        { .position = 2, .reason = 3 }
    };
    struct receipt_assigned a = { .position = 3, .id = id, .id_bytes = 16 };
    struct receipt r = { .request = 1,
                         .index = 5,
                         .accepted = 3,
                         .exceptions = 2,
                         .assigned = 1,
                         .exception = e,
                         .assigned_id = &a };
    uint8_t buf[128], *p;
    size_t bytes = put_checked(buf, sizeof buf, put_bare, &r);
    struct receipt got;

    for (size_t cut = 0; cut <= bytes; cut++) {
        p = exact(buf, cut);
        if (frame_get_receipt(&got, p, cut) == 0)
            walk_over(&got);
        free(p);
    }
    for (size_t bit = 0; bit < bytes * 8; bit++) {
        p = exact(buf, bytes);
        p[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (frame_get_receipt(&got, p, bytes) == 0)
            walk_over(&got);
        free(p);
    }
    assert_int_equal(frame_get_receipt(&got, BYTES("\x62\x13\x12\x11"
                                                   "0123456789abcdefg")),
                     -EBADMSG);
    assert_int_equal(frame_get_receipt(&got, BYTES("\x28\x80\x80\x80\x80\x10")), -EBADMSG);
    assert_int_equal(frame_get_receipt(&got, BYTES("\x0a\x00")), -EBADMSG);
    assert_int_equal(frame_get_receipt(&got, BYTES("\x58\x00")), -EBADMSG);
}

static void utf8_is_what_rfc_3629_says(void **state)
{
    assert_true(utf8_valid(BYTES("plain ascii, more than eight bytes")));
    assert_true(utf8_valid(NULL, 0));
    assert_true(utf8_valid(BYTES("\0")));
    assert_true(utf8_valid(BYTES("\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80")));
    assert_true(utf8_valid(BYTES("\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"
                                 "aaaaaaaaa")));
    assert_false(utf8_valid(BYTES("\x80")));
    assert_false(utf8_valid(BYTES("\xc0\x80")));
    assert_false(utf8_valid(BYTES("\xc1\xbf")));
    assert_false(utf8_valid(BYTES("\xe0\x9f\xbf")));
    assert_false(utf8_valid(BYTES("\xed\xa0\x80")));
    assert_false(utf8_valid(BYTES("\xf0\x8f\xbf\xbf")));
    assert_false(utf8_valid(BYTES("\xf4\x90\x80\x80")));
    assert_false(utf8_valid(BYTES("\xf5\x80\x80\x80")));
    assert_false(utf8_valid(BYTES("aaaaaaaa\xc3")));
    assert_false(utf8_valid(BYTES("\xe2\x82")));
    assert_false(utf8_valid(BYTES("\xf0\x9f\x98")));
    assert_false(utf8_valid(BYTES("\xe2\x28\xa1")));
    assert_false(utf8_valid(BYTES("\xe2\x82\x28")));
}

static void varints_take_the_bytes_that_are_foretold(void **state)
{
    for (unsigned bit = 0; bit < 64; bit++) {
        for (int by = -1; by <= 1; by++) {
            uint64_t v = (1ull << bit) + (uint64_t)(int64_t)by, got;
            uint8_t buf[10];
            size_t n = 0;

            do {
                buf[n] = (uint8_t)(v >> 7 * n | 0x80);
                n++;
            } while (n < 10 && v >> 7 * n);
            buf[n - 1] &= 0x7f;
            assert_int_equal(n, wire_varint_bytes(v));

            struct wire w = wire_init(buf, n);

            assert_true(wire_varint(&w, &got));
            assert_true(got == v);
            assert_int_equal(wire_left(&w), 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_ping_and_pong_come_back_as_sent),
        cmocka_unit_test(a_batch_follows_its_head),
        cmocka_unit_test(welcome_and_error_come_back_as_sent),
        cmocka_unit_test(a_receipt_comes_back_with_all_exceptions_and_ids),
        cmocka_unit_test(a_bare_receipt_is_the_body_of_the_framed_one),
        cmocka_unit_test(what_is_not_a_frame_is_refused),
        cmocka_unit_test(what_is_not_a_batch_hello_or_ping_is_refused),
        cmocka_unit_test(a_receipt_cut_or_flipped_anywhere_is_survived),
        cmocka_unit_test(utf8_is_what_rfc_3629_says),
        cmocka_unit_test(varints_take_the_bytes_that_are_foretold),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
