/*
 * test_checksum.c - checksum_ok() against plain sums of 16-bit words over whole packets, of every
 * length and alignment, and with every single bit flipped.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "ingest/checksum.h"
#include "tests/lib/frames.h"
#include "tests/lib/ingest_rig.h"

#define BYTES_MAX 1500u
#define FRAME_MAX (BYTES_MAX + 400u)
#define ETHERNET  14u

static _Alignas(8) uint8_t built[FRAME_MAX];
static uint8_t payload[BYTES_MAX];
static uint64_t seed;

/* RFC 1071, as it is written there: a word at a time, the carries added at the end. */
static uint16_t plain_sum(uint32_t sum, const uint8_t *p, size_t bytes)
{
    for (; bytes > 1; p += 2, bytes -= 2)
        sum += (uint32_t)p[0] << 8 | p[1];
    if (bytes > 0)
        sum += (uint32_t)p[0] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

/* RFC 768 and RFC 8200 8.1; of a UDP packet without extension headers. */
static bool reference(const uint8_t *ip, bool unfinished)
{
    bool v4 = ip[0] >> 4 == 4;
    size_t header = v4 ? (ip[0] & 15u) * 4u : 40;
    const uint8_t *udp = ip + header;
    uint32_t bytes = (uint32_t)udp[4] << 8 | udp[5], pseudo;

    if (v4 && plain_sum(0, ip, header) != 0xffff)
        return false;
    if (udp[6] == 0 && udp[7] == 0)
        return v4;
    pseudo = plain_sum(IPPROTO_UDP + bytes, v4 ? ip + 12 : ip + 8, v4 ? 8 : 32);
    return plain_sum(pseudo, udp, bytes) == 0xffff ||
           (unfinished && pseudo == ((uint32_t)udp[6] << 8 | udp[7]));
}

/* A copy that ends where the frame does, so that ASan sees what is read behind it. */
struct copy {
    uint8_t *memory, *frame;
    size_t bytes;
};

static struct copy copy_of(size_t bytes, unsigned misaligned)
{
    struct copy c = { .memory = malloc(bytes + misaligned), .bytes = bytes };

    assert_non_null(c.memory);
    c.frame = c.memory + misaligned;
    memcpy(c.frame, built, bytes);
    return c;
}

static bool is_ok(const struct copy *c, bool unfinished)
{
    struct packet p;

    return packet_parse(c->frame, c->frame + c->bytes, &p) == PACKET_UDP &&
           checksum_ok(&p, unfinished);
}

static void randomize(uint8_t *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        p[i] = (uint8_t)rig_random(&seed);
}

/* A packet with random addresses, ports, options and payload. */
static void frame_random(struct frame *f, bool v6, size_t bytes)
{
    randomize(payload, bytes);
    frame_init(f, payload, bytes);
    f->v6 = v6;
    if (v6)
        f->source = frame_address("2001:db8::"), f->destination = frame_address("2001:db8::");
    randomize(f->source.s6_addr + (v6 ? 4 : 12), v6 ? 12 : 4);
    randomize(f->destination.s6_addr + (v6 ? 4 : 12), v6 ? 12 : 4);
    f->source_port = (uint16_t)rig_random(&seed);
    f->options_bytes = v6 ? 0 : 4 * (unsigned)(rig_random(&seed) % 11);
}

static size_t build(const struct frame *f) { return frame_build(f, built, sizeof built); }

static void what_is_right_is_taken_whatever_its_length_and_alignment(void **state)
{
    struct frame f;

    (void)state;
    seed = 1;
    for (size_t bytes = 0; bytes <= BYTES_MAX; bytes++) {
        for (unsigned v6 = 0; v6 < 2; v6++) {
            size_t frame_bytes;

            frame_random(&f, v6, bytes);
            frame_bytes = build(&f);
            assert_true(reference(built + ETHERNET, false));
            for (unsigned misaligned = 0; misaligned < 8; misaligned++) {
                struct copy c = copy_of(frame_bytes, misaligned);

                assert_true(is_ok(&c, false));
                assert_true(is_ok(&c, true));
                free(c.memory);
            }
        }
    }
}

static void what_is_said_is_what_plain_sums_say(void **state)
{
    unsigned right = 0;
    struct frame f;

    (void)state;
    seed = 2;
    for (unsigned i = 0; i < 30000; i++) {
        static const int checksum[4] = { -1, -2, 0, -1 };
        bool v6 = i % 2, unfinished = i / 2 % 2, expected;
        struct copy c;

        frame_random(&f, v6, rig_random(&seed) % 64);
        /* Right, unfinished, none, or nearly right. */
        f.checksum = checksum[i / 4 % 4];
        c = copy_of(build(&f), (unsigned)rig_random(&seed) % 8);
        if (i / 4 % 4 == 3)
            c.frame[ETHERNET + (v6 ? 40 : 20 + f.options_bytes) + 7] ^=
                (uint8_t)(rig_random(&seed) % 4);
        expected = reference(c.frame + ETHERNET, unfinished);
        if (is_ok(&c, unfinished) != expected)
            fail_msg("packet %u: %d", i, expected);
        right += expected;
        free(c.memory);
    }
    assert_true(right > 5000 && right < 25000);
}

/* IPv6 has no checksum of its own header: of that only the addresses, which are in UDP's. */
static bool covered(bool v6, size_t at) { return at >= ETHERNET && !(v6 && at < ETHERNET + 8); }

static void every_single_flipped_bit_is_found(void **state)
{
    static const size_t lengths[] = { 0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 64, 333 };
    struct frame f;

    (void)state;
    seed = 3;
    for (unsigned i = 0; i < 2 * sizeof lengths / sizeof lengths[0]; i++) {
        bool v6 = i % 2;
        size_t frame_bytes, sum_at;
        struct copy c;

        frame_random(&f, v6, lengths[i / 2]);
        frame_bytes = build(&f);
        sum_at = frame_bytes - f.bytes - 2;
        c = copy_of(frame_bytes, i % 8);
        assert_true(is_ok(&c, false));
        for (size_t bit = 0; bit < frame_bytes * 8; bit++) {
            bool none;

            if (!covered(v6, bit / 8))
                continue;
            c.frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
            none = !v6 && c.frame[sum_at] == 0 && c.frame[sum_at + 1] == 0;
            if (is_ok(&c, false) != none)
                fail_msg("%zu bytes, IPv%d: bit %zu of byte %zu", f.bytes, v6 ? 6 : 4, bit % 8,
                         bit / 8);
            c.frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        free(c.memory);
    }
}

static void only_ipv4_may_go_without(void **state)
{
    struct frame f;
    struct copy c;

    (void)state;
    seed = 4;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        frame_random(&f, v6, 50);
        f.checksum = 0;
        c = copy_of(build(&f), 1);
        assert_int_equal(is_ok(&c, false), !v6);
        assert_int_equal(is_ok(&c, true), !v6);
        c.frame[c.bytes - 1] ^= 1; /* nobody has summed it up */
        assert_int_equal(is_ok(&c, false), !v6);
        /* The IPv4 header's own is never absent. */
        c.frame[ETHERNET + 8] ^= 1;
        assert_int_equal(is_ok(&c, false), false);
        free(c.memory);
    }
}

/* A sum of zero is sent as ffff, which is the same number and does not mean that there is none. */
static void a_sum_of_zero_is_sent_as_all_ones(void **state)
{
    struct frame f;
    struct copy c;

    (void)state;
    seed = 5;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        unsigned word = 0;
        size_t sum_at;

        frame_random(&f, v6, 2);
        do {
            assert_true(word < 65536);
            payload[0] = (uint8_t)(word >> 8);
            payload[1] = (uint8_t)word++;
            c.bytes = build(&f);
            sum_at = c.bytes - 4;
        } while (built[sum_at] != 0xff || built[sum_at + 1] != 0xff);
        c = copy_of(c.bytes, 3);
        assert_true(is_ok(&c, false));
        memset(c.frame + sum_at, 0, 2);
        assert_int_equal(is_ok(&c, false), !v6);
        free(c.memory);
    }
}

/* What a sender on this machine has left to a device holds for addresses and length alone. */
static void an_unfinished_one_is_taken_only_where_that_can_be(void **state)
{
    struct frame f;

    (void)state;
    seed = 6;
    for (unsigned i = 0; i < 200; i++) {
        bool v6 = i % 2;
        struct copy c;

        frame_random(&f, v6, 20 + i);
        f.checksum = -2;
        c = copy_of(build(&f), i % 8);
        assert_true(is_ok(&c, true));
        assert_false(is_ok(&c, false));
        c.frame[c.bytes - 1] ^= 0x10; /* of the payload it says nothing */
        assert_true(is_ok(&c, true));
        c.frame[ETHERNET + (v6 ? 39 : 19)] ^= 0x10; /* of the destination it does */
        assert_false(is_ok(&c, true));
        free(c.memory);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_right_is_taken_whatever_its_length_and_alignment),
        cmocka_unit_test(what_is_said_is_what_plain_sums_say),
        cmocka_unit_test(every_single_flipped_bit_is_found),
        cmocka_unit_test(only_ipv4_may_go_without),
        cmocka_unit_test(a_sum_of_zero_is_sent_as_all_ones),
        cmocka_unit_test(an_unfinished_one_is_taken_only_where_that_can_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
