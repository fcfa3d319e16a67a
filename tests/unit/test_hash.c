/*
 * test_hash.c - the hashes against published vectors.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/hash.h"

/* RFC 3720, B.4. */
static void crc32c_gives_the_published_values(void **state)
{
    uint8_t b[32];

    (void)state;
    memset(b, 0, sizeof b);
    assert_int_equal(crc32c(0, b, sizeof b), 0x8a9136aau);
    memset(b, 0xff, sizeof b);
    assert_int_equal(crc32c(0, b, sizeof b), 0x62a8ab43u);
    for (unsigned i = 0; i < sizeof b; i++)
        b[i] = (uint8_t)i;
    assert_int_equal(crc32c(0, b, sizeof b), 0x46dd794eu);
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283u);
}

static void crc32c_of_pieces_is_that_of_the_whole(void **state)
{
    const char text[] = "The quick brown fox jumps over the lazy dog, twice over.";

    (void)state;
    for (size_t cut = 0; cut <= sizeof text; cut++)
        assert_int_equal(crc32c(crc32c(0, text, cut), text + cut, sizeof text - cut),
                         crc32c(0, text, sizeof text));
}

/* FIPS 180-2, appendix B.1. */
static void sha256_gives_the_published_value_in_one_piece_or_two(void **state)
{
    static const uint8_t abc[SHA256_BYTES] = {
        0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40,
        0xde, 0x5d, 0xae, 0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17,
        0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad,
    };
    uint8_t got[SHA256_BYTES];

    (void)state;
    sha256(got, "abc", 3, NULL, 0);
    assert_memory_equal(got, abc, sizeof abc);
    sha256(got, "a", 1, "bc", 2);
    assert_memory_equal(got, abc, sizeof abc);
}

static int same(struct key128 a, struct key128 b) { return a.lo == b.lo && a.hi == b.hi; }

static void an_event_key_depends_on_where_source_ends_and_on_the_secret(void **state)
{
    const uint8_t key[HASH_KEY_BYTES] = { 1 }, other[HASH_KEY_BYTES] = { 2 };
    struct key128 k = hash_event_key(key, "ab", 2, "c", 1);

    (void)state;
    assert_true(same(k, hash_event_key(key, "ab", 2, "c", 1)));
    assert_false(same(k, hash_event_key(key, "a", 1, "bc", 2)));
    assert_false(same(k, hash_event_key(key, "ab", 2, "d", 1)));
    assert_false(same(k, hash_event_key(key, "ab", 2, "c\0", 2)));
    assert_false(same(k, hash_event_key(other, "ab", 2, "c", 1)));
}

static void content_depends_on_every_byte_and_on_the_secret(void **state)
{
    const uint8_t key[HASH_KEY_BYTES] = { 1 }, other[HASH_KEY_BYTES] = { 2 };
    uint8_t event[200];
    uint64_t h;

    (void)state;
    memset(event, 7, sizeof event);
    h = hash_content(key, event, sizeof event);
    assert_true(h != hash_content(other, event, sizeof event));
    assert_true(h != hash_content(key, event, sizeof event - 1));
    for (size_t i = 0; i < sizeof event; i++) {
        event[i] ^= 1;
        assert_true(h != hash_content(key, event, sizeof event));
        event[i] ^= 1;
    }
    assert_true(h == hash_content(key, event, sizeof event));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc32c_gives_the_published_values),
        cmocka_unit_test(crc32c_of_pieces_is_that_of_the_whole),
        cmocka_unit_test(sha256_gives_the_published_value_in_one_piece_or_two),
        cmocka_unit_test(an_event_key_depends_on_where_source_ends_and_on_the_secret),
        cmocka_unit_test(content_depends_on_every_byte_and_on_the_secret),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
