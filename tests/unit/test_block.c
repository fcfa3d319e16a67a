/*
 * test_block.c - sealing a block with and without duplicates; every malformed payload is refused.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/block.h"

static struct block block;

static int setup(void **state) { return block_init(&block, 3); }

static int teardown(void **state)
{
    block_fini(&block);
    return 0;
}

/* Event i is i % 7 + 1 bytes of the value i. */
static void fill(uint32_t events)
{
    block_reset(&block);
    block.receive_time_ns = 1000;
    for (uint32_t i = 0; i < events; i++) {
        uint16_t bytes = (uint16_t)(i % 7 + 1);

        block.desc[i] = (struct block_desc){
            .key = { i, ~i }, .offset = block.bytes, .bytes = bytes, .type = (uint8_t)(i % 100)
        };
        memset(block_payload(&block) + block.bytes, (int)i & 0xff, bytes);
        block.bytes += bytes;
        block.verdict[i] = VERDICT_COMMITTED;
        block.events++;
    }
}

static void check_events(uint32_t step)
{
    struct block_view v;
    uint32_t n = 0;

    assert_int_equal(block_view(&v, block_payload(&block), block.write.record.payload_bytes), 0);
    for (uint32_t i = 0; i < block.events; i++) {
        if (step != 0 && i % step == 0)
            continue;
        assert_int_equal(v.desc[n].key.lo, i);
        assert_int_equal(v.desc[n].bytes, i % 7 + 1);
        for (uint32_t k = 0; k < v.desc[n].bytes; k++)
            assert_int_equal(v.payload[v.desc[n].offset + k], i & 0xff);
        n++;
    }
    assert_int_equal(v.header->events, n);
    assert_int_equal(block.accepted, n);
    assert_int_equal(v.header->node, 7);
    assert_int_equal(v.header->region, 1);
    assert_int_equal(v.header->receive_time_ns, 1000);
}

static void a_sealed_block_reads_back_as_it_was_filled(void **state)
{
    static uint8_t before[BLOCK_BYTES_MAX];

    for (uint32_t events = 1; events <= BLOCK_EVENTS_MAX; events = events * 2 + 1) {
        fill(events);
        memcpy(before, block.buf, BLOCK_BYTES_MAX);
        block_seal(&block, 7, 1);
        check_events(0);
        /* No event was moved. */
        assert_memory_equal(block_payload(&block) + 64, before + LOG_HEADER_BYTES + 64,
                            block.bytes - 64);
    }
}

static void duplicates_are_left_out_and_the_rest_closes_up(void **state)
{
    for (uint32_t step = 2; step < 12; step++) {
        fill(300);
        for (uint32_t i = 0; i < 300; i += step)
            block.verdict[i] = i % 2 ? VERDICT_DUPLICATE : VERDICT_CONFLICT;
        block_seal(&block, 7, 1);
        check_events(step);
        assert_int_equal(block.desc[299].offset + block.desc[299].bytes, block.bytes);
    }
}

static void a_block_of_duplicates_only_has_nothing_to_append(void **state)
{
    struct block_view v;

    fill(5);
    memset(block.verdict, VERDICT_REFUSED, 5);
    block_seal(&block, 7, 1);
    assert_int_equal(block.accepted, 0);
    assert_int_equal(block_view(&v, block_payload(&block), block.write.record.payload_bytes),
                     -EBADMSG);
}

static void sealing_states_length_crc_and_digest(void **state)
{
    uint8_t digest[SHA256_BYTES];

    fill(20);
    block_seal(&block, 7, 1);
    sha256(digest, block_payload(&block), block.write.record.payload_bytes, NULL, 0);
    assert_memory_equal(digest, block.write.record.payload_sha256, SHA256_BYTES);
    assert_int_equal(block.write.payload_crc,
                     crc32c(0, block_payload(&block), block.write.record.payload_bytes));
    assert_int_equal(block.write.record.type, LOG_EVENTS);
    assert_ptr_equal(block.write.buf, block.buf);
}

static void a_full_block_fits_exactly(void **state)
{
    const uint32_t desc = sizeof(struct block_desc);
    uint32_t left;

    block_reset(&block);
    while ((left = BLOCK_PAYLOAD_MAX - block.bytes - block.events * desc) > desc) {
        uint32_t bytes = left - desc < 60000 ? left - desc : 60000;

        block.desc[block.events] =
            (struct block_desc){ .offset = block.bytes, .bytes = (uint16_t)bytes };
        block.verdict[block.events++] = VERDICT_COMMITTED;
        block.bytes += bytes;
    }
    block_seal(&block, 7, 1);
    assert_int_equal(block.write.record.payload_bytes, BLOCK_PAYLOAD_MAX);
}

static uint8_t good[4096] __attribute__((aligned(8)));
static uint8_t bad[4096] __attribute__((aligned(8)));
static uint32_t good_bytes;

static struct block_header *spoil(void)
{
    memcpy(bad, good, sizeof bad);
    return (struct block_header *)bad;
}

static struct block_desc *bad_desc(uint32_t i)
{
    return (struct block_desc *)(bad + ((struct block_header *)good)->desc_offset) + i;
}

static void refused(uint32_t bytes)
{
    struct block_view v;

    assert_int_equal(block_view(&v, bad, bytes), -EBADMSG);
}

static void every_length_but_the_right_one_is_refused(void **state)
{
    spoil();
    for (uint32_t n = 0; n < sizeof bad; n++)
        if (n != good_bytes)
            refused(n);
    refused(UINT32_MAX);
}

#define REFUSE(change)                                                                             \
    do {                                                                                           \
        struct block_header *h = spoil();                                                          \
        change;                                                                                    \
        (void)h;                                                                                   \
        refused(good_bytes);                                                                       \
    } while (0)

static void every_malformed_field_is_refused(void **state)
{
    REFUSE(h->magic++);
    REFUSE(h->version++);
    REFUSE(h->events++);
    REFUSE(h->events--);
    REFUSE(h->events = 0);
    REFUSE(h->events = UINT32_MAX);
    REFUSE(h->events = BLOCK_EVENTS_MAX + 1);
    REFUSE(h->desc_offset += 8);
    REFUSE(h->desc_offset -= 8);
    REFUSE(h->desc_offset += 40; h->events--);
    REFUSE(h->desc_offset = 0);
    REFUSE(h->desc_offset = 64);
    REFUSE(h->desc_offset = UINT32_MAX);
    REFUSE(bad_desc(0)->offset = 0);
    REFUSE(bad_desc(0)->offset = UINT32_MAX);
    REFUSE(bad_desc(1)->offset--);
    REFUSE(bad_desc(9)->offset++);
    REFUSE(bad_desc(4)->bytes = 0);
    REFUSE(bad_desc(4)->bytes = UINT16_MAX);
    REFUSE(bad_desc(9)->bytes += 7);
    REFUSE(bad_desc(2)->type = BLOCK_TYPES);
    REFUSE(bad[h->desc_offset - 1] = 1);
}

static void every_reserved_byte_has_to_be_zero(void **state)
{
    for (size_t i = 0; i < sizeof((struct block_header *)0)->zero; i++)
        REFUSE(h->zero[i] = 1);
}

static int make_good(void **state)
{
    if (block_init(&block, 0) != 0)
        return -1;
    fill(10);
    block_seal(&block, 7, 1);
    good_bytes = block.write.record.payload_bytes;
    memcpy(good, block_payload(&block), good_bytes);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_sealed_block_reads_back_as_it_was_filled, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(duplicates_are_left_out_and_the_rest_closes_up, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_block_of_duplicates_only_has_nothing_to_append, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(sealing_states_length_crc_and_digest, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_block_fits_exactly, setup, teardown),
        cmocka_unit_test_setup_teardown(every_length_but_the_right_one_is_refused, make_good,
                                        teardown),
        cmocka_unit_test_setup_teardown(every_malformed_field_is_refused, make_good, teardown),
        cmocka_unit_test_setup_teardown(every_reserved_byte_has_to_be_zero, make_good, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
