/*
 * test_record.c - a record is accepted as it was written, and in no other way or place.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/segment.h"

#define PAYLOAD 5000u

static uint8_t buf[8192] __attribute__((aligned(4096)));
static uint8_t before[SHA256_BYTES] = { 9, 8, 7 };
static const struct log_record record = {
    .index = 7, .term = 3, .time_ns = 11, .type = LOG_EVENTS, .payload_bytes = PAYLOAD
};

static struct record_header *encode(void)
{
    memset(buf, 0xaa, sizeof buf);
    record_encode(buf, 5, 4096, before, &record, crc32c(0, buf + LOG_HEADER_BYTES, PAYLOAD), 6);
    return (struct record_header *)buf;
}

static bool accepted(const struct record_header *h)
{
    return record_check_header(h, 5, 4096) == NULL && record_check_payload(h) == NULL;
}

static void a_record_reads_back_as_it_was_written(void **state)
{
    struct record_header *h = encode();
    struct log_record back;

    assert_true(accepted(h));
    record_decode(h, &back);
    assert_memory_equal(&back, &record, sizeof back);
    assert_int_equal(h->durable, 6);
    assert_true(record_is_zero(buf + 5168, 8192 - 5168));
}

static void a_flipped_bit_anywhere_is_seen(void **state)
{
    struct record_header *h = encode();

    for (size_t bit = 0; bit < sizeof buf * 8; bit += bit < 4096 ? 1 : 7) {
        buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
        /* A longer payload than the buffer holds is stopped by the header's CRC. */
        assert_false(accepted(h));
        buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_true(accepted(h));
}

static void a_record_at_another_place_is_none(void **state)
{
    struct record_header *h = encode();

    assert_null(record_check_header(h, 5, 4096));
    assert_non_null(record_check_header(h, 5, 8192));
    assert_non_null(record_check_header(h, 6, 4096));
}

static void the_digest_covers_the_record_before_and_nothing_of_the_node(void **state)
{
    struct record_header *h = encode();
    uint8_t a[SHA256_BYTES], b[SHA256_BYTES];

    record_digest(h, a);
    h->durable--;
    h->payload_crc++;
    record_digest(h, b);
    assert_memory_equal(a, b, SHA256_BYTES);
    h->agreed.before[31] ^= 1;
    record_digest(h, b);
    assert_memory_not_equal(a, b, SHA256_BYTES);
}

static void sizes_round_up_to_blocks(void **state)
{
    assert_int_equal(record_bytes(0), 4096);
    assert_int_equal(record_bytes(4096 - LOG_HEADER_BYTES), 4096);
    assert_int_equal(record_bytes(4097 - LOG_HEADER_BYTES), 8192);
    assert_int_equal(record_bytes(LOG_RECORD_BYTES_MAX - LOG_HEADER_BYTES), LOG_RECORD_BYTES_MAX);
}

static void a_segment_ends_by_its_content_alone(void **state)
{
    const uint64_t bytes = 1u << 20, last = bytes - LOG_RECORD_BYTES_MAX;

    assert_true(segment_ends(bytes, 8192, LOG_SEAL));
    assert_false(segment_ends(bytes, 8192, LOG_EVENTS));
    assert_false(segment_ends(bytes, last, LOG_EVENTS));
    assert_true(segment_ends(bytes, last + 4096, LOG_EVENTS));
    assert_true(segment_ends(bytes, bytes, LOG_BARRIER));
}

static void only_a_segments_own_name_is_taken(void **state)
{
    static const char *const wrong[] = { ".seg",
                                         "1-1.seg",
                                         "0000000000000001-0000000000000000.seg",
                                         "000000000000000A-0000000000000001.seg",
                                         "0000000000000001-0000000000000001x.seg",
                                         "0000000000000001 0000000000000001.seg",
                                         "-000000000000001-0000000000000001.seg",
                                         "0x00000000000001-0000000000000001.seg",
                                         "0000000000000001-0000000000000001.seg.seg" };
    struct segment s = { .epoch = 0xabc, .first = UINT64_MAX }, back;
    char name[SEGMENT_NAME_BYTES];

    segment_name(&s, name);
    assert_string_equal(name, "0000000000000abc-ffffffffffffffff.seg");
    assert_int_equal(segment_parse_name(name, &back), 1);
    assert_true(back.epoch == s.epoch && back.first == s.first);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(segment_parse_name(wrong[i], &back), -EINVAL);
    assert_int_equal(segment_parse_name("mark", &back), 0);
    assert_int_equal(segment_parse_name("next.tmp", &back), 0);
}

static void a_segment_header_is_refused_after_any_flip(void **state)
{
    static struct segment_header h;
    struct segment s = { .epoch = 2, .first = 10 };
    uint8_t *p = (uint8_t *)&h;

    segment_encode(&h, &s, 4, 1u << 20, before);
    assert_null(segment_check(&h, &s, 1u << 20));
    assert_non_null(segment_check(&h, &s, 2u << 20));
    for (size_t bit = 0; bit < sizeof h * 8; bit += 3) {
        p[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_non_null(segment_check(&h, &s, 1u << 20));
        p[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    s.first = 11;
    assert_non_null(segment_check(&h, &s, 1u << 20));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_reads_back_as_it_was_written),
        cmocka_unit_test(a_flipped_bit_anywhere_is_seen),
        cmocka_unit_test(a_record_at_another_place_is_none),
        cmocka_unit_test(the_digest_covers_the_record_before_and_nothing_of_the_node),
        cmocka_unit_test(sizes_round_up_to_blocks),
        cmocka_unit_test(a_segment_ends_by_its_content_alone),
        cmocka_unit_test(only_a_segments_own_name_is_taken),
        cmocka_unit_test(a_segment_header_is_refused_after_any_flip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
