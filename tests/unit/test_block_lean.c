/*
 * test_block_lean.c - blocks as workers make them, without what their events say, and back: the
 * same bytes, or an error, whatever comes.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cluster/block_lean.h"
#include "cluster/peer_pack.h"
#include "tests/lib/ingest_rig.h"

#define BLOCKS_MAX 8

static struct {
    uint8_t *payload;
    uint32_t bytes;
} taken[BLOCKS_MAX];
static _Atomic unsigned blocks;
static const uint8_t *const key = (const uint8_t *)"a test's hashkey"; /* the rig's */
static uint8_t lean[BLOCK_PAYLOAD_MAX] __attribute__((aligned(8)));
static uint8_t again[BLOCK_PAYLOAD_MAX] __attribute__((aligned(8)));

static void keep(void *arg, const struct block *b)
{
    unsigned i = atomic_load(&blocks);

    (void)arg;
    if (i == BLOCKS_MAX || b->accepted == 0)
        return;
    taken[i].bytes = b->write.record.payload_bytes;
    taken[i].payload = malloc(taken[i].bytes);
    assert_non_null(taken[i].payload);
    memcpy(taken[i].payload, block_payload(b), taken[i].bytes);
    atomic_store(&blocks, i + 1);
}

/* Events with ids and without, which then get one, of several types. */
static int make_blocks(void **state)
{
    static uint8_t batch[1 << 16];
    static struct rig r;
    uint64_t sent = 0;
    int fd;

    rig_init(&r);
    rig_open(&r);
    r.cluster.seen = keep;
    rig_start(&r);
    fd = rig_udp(&r, false);
    for (unsigned i = 0; i < 8; i++) {
        rig_send(
            fd, batch,
            rig_batch(batch, sizeof batch, 1 + i % 3, 100, i % 2 ? 1000 * (i + 1) : 0, i, false));
        sent += 100;
        RIG_WAIT(&r, l->committed[1] + l->committed[2] + l->committed[3] + l->invalid[1] +
                             l->invalid[2] + l->invalid[3] ==
                         sent);
    }
    close(fd);
    rig_close(&r);
    assert_true(atomic_load(&blocks) > 0);
    return 0;
}

static int free_blocks(void **state)
{
    for (unsigned i = 0; i < atomic_load(&blocks); i++)
        free(taken[i].payload);
    return 0;
}

static void a_block_comes_back_as_it_was(void **state)
{
    for (unsigned i = 0; i < atomic_load(&blocks); i++) {
        const struct block_header *h = (const struct block_header *)taken[i].payload;
        uint32_t n = block_lean_put(key, taken[i].payload, taken[i].bytes, lean);

        assert_int_equal(n, taken[i].bytes - h->events * 33);
        memset(again, 0xee, sizeof again);
        assert_int_equal(block_lean_get(key, lean, n, again, taken[i].bytes), 0);
        assert_memory_equal(again, taken[i].payload, taken[i].bytes);
    }
}

static void what_is_not_as_its_events_say_stays_as_it_is(void **state)
{
    struct block_header *h = (struct block_header *)taken[0].payload;
    struct block_desc *d = (struct block_desc *)(taken[0].payload + h->desc_offset);
    const uint8_t *other = (const uint8_t *)"another hash key";

    assert_int_equal(block_lean_put(other, taken[0].payload, taken[0].bytes, lean), 0);
    d->timestamp_ns++;
    assert_int_equal(block_lean_put(key, taken[0].payload, taken[0].bytes, lean), 0);
    d->timestamp_ns--;
    assert_int_equal(block_lean_put(key, taken[0].payload, taken[0].bytes - 8, lean), 0);
    assert_true(block_lean_put(key, taken[0].payload, taken[0].bytes, lean) > 0);
}

static void whatever_comes_is_a_block_or_an_error(void **state)
{
    uint32_t n = block_lean_put(key, taken[0].payload, taken[0].bytes, lean);
    uint8_t *copy = malloc(n); /* so that a sanitizer sees its end */
    uint64_t seed = 7;
    unsigned bad = 0;

    assert_non_null(copy);
    for (uint32_t cut = 0; cut < n; cut += 1 + cut / 64)
        assert_int_equal(block_lean_get(key, lean, cut, again, taken[0].bytes), -EBADMSG);
    assert_int_equal(block_lean_get(key, lean, n, again, taken[0].bytes - 40), -EBADMSG);
    assert_int_equal(block_lean_get(key, lean, n, again, taken[0].bytes + 40), -EBADMSG);
    for (unsigned round = 0; round < 20000; round++) {
        memcpy(copy, lean, n);
        for (unsigned i = 0; i <= round % 4; i++) {
            uint64_t at = rig_random(&seed);

            /* The header and the columns more often than the events. */
            copy[at % 3 == 0   ? at / 3 % sizeof(struct block_header)
                 : at % 3 == 1 ? n - 1 - at / 3 % (n / 8)
                               : at / 3 % n] ^= (uint8_t)(1 + rig_random(&seed) % 255);
        }
        bad += block_lean_get(key, copy, n, again, taken[0].bytes) < 0;
    }
    assert_in_range(bad, 100, 19999);
    free(copy);
}

/* As it goes over the line. */
static void packing_leaves_out_what_it_can(void **state)
{
    struct peer_packer with = { .level = 1, .hash_key = key }, without = { .level = 1 };
    struct peer_unpacker u = { .hash_key = key }, knows_nothing = { .hash_key = NULL };
    struct log_record record = {
        .index = 5, .term = 9, .type = LOG_EVENTS, .payload_bytes = taken[0].bytes
    };
    struct peer_entry entry = { .record = &record, .payload = taken[0].payload };
    uint32_t plain;

    peer_pack(&without, &entry, true);
    plain = entry.packed_bytes;
    assert_true(plain > 0);
    entry.packed_bytes = 0;
    peer_pack(&with, &entry, true);
    assert_true(entry.packed_bytes > 0 && entry.packed_bytes < plain * 3 / 4);
    assert_non_null(peer_unpacker_buf(&u));
    memcpy(u.buf, entry.packed, entry.packed_bytes);
    assert_int_equal(peer_unpack(&u, entry.packed_bytes, again, taken[0].bytes), 0);
    assert_memory_equal(again, taken[0].payload, taken[0].bytes);
    assert_non_null(peer_unpacker_buf(&knows_nothing));
    memcpy(knows_nothing.buf, entry.packed, entry.packed_bytes);
    assert_int_equal(peer_unpack(&knows_nothing, entry.packed_bytes, again, taken[0].bytes),
                     -EBADMSG);
    /* Who does not know the key gets it as it is. */
    entry.packed_bytes = 0;
    peer_pack(&with, &entry, false);
    assert_int_equal(entry.packed_bytes, 0);
    peer_packer_fini(&with);
    peer_packer_fini(&without);
    peer_unpacker_fini(&u);
    peer_unpacker_fini(&knows_nothing);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_comes_back_as_it_was),
        cmocka_unit_test(what_is_not_as_its_events_say_stays_as_it_is),
        cmocka_unit_test(whatever_comes_is_a_block_or_an_error),
        cmocka_unit_test(packing_leaves_out_what_it_can),
    };

    return cmocka_run_group_tests(tests, make_blocks, free_blocks);
}
