/*
 * test_peer_frame.c - a stream of frames gives its messages however it is cut, and no other ones
 * when it is damaged.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/peer_wire.h"

#define MESSAGES_MAX 64u

static struct wire_sample sample[MESSAGES_MAX];
static struct wire_stream stream;
static size_t end_of[MESSAGES_MAX]; /* in the stream */
static struct wire_pool pool;
static struct peer_decoder decoder;

/* n messages, each type in turn. */
static void make_stream(uint32_t n, uint64_t seed, uint32_t entries_max, uint32_t payload_max)
{
    const uint32_t types = PEER_POST_FIRST - PEER_REQUEST_VOTE;

    assert_true(n <= MESSAGES_MAX);
    stream.n = 0;
    for (uint32_t i = 0; i < n; i++) {
        wire_sample_init(&sample[i], (enum peer_type)(PEER_REQUEST_VOTE + i % types), &seed,
                         entries_max, payload_max);
        wire_stream_put(&stream, &sample[i]);
        end_of[i] = stream.n;
    }
}

static void free_stream(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        wire_sample_fini(&sample[i]);
}

/* Takes every message of the bytes and compares it; returns how many, *ret is what the decoder said
 * last. */
static uint32_t take_all(const uint8_t *bytes, size_t n, uint32_t piece_max, uint64_t *seed,
                         int *ret)
{
    uint32_t taken = 0;
    size_t at = 0;

    while ((*ret = wire_feed(&decoder, bytes, n, &at, piece_max, seed)) == 1) {
        const struct peer_message *m = peer_decoder_message(&decoder);

        assert_true(taken < MESSAGES_MAX);
        wire_assert_equal(m, &sample[taken++]);
        wire_free_entries(&pool, m);
    }
    assert_true(*ret < 0 || at == n);
    return taken;
}

static int start(void **state)
{
    struct peer_decoder_memory memory = wire_pool_memory(&pool);

    pool = (struct wire_pool){ 0 };
    assert_int_equal(peer_decoder_init(&decoder, &memory, PEER_TYPES_WELCOMED), 0);
    return 0;
}

static int stop(void **state)
{
    peer_decoder_fini(&decoder);
    assert_int_equal(pool.live, 0);
    return 0;
}

static void a_stream_gives_the_same_messages_in_pieces_of_any_size(void **state)
{
    static const uint32_t piece_max[] = { 0, 1, 2, 7, 33, 300, 100000 };
    uint64_t seed = 11;
    int r;

    for (uint64_t round = 0; round < 20; round++) {
        make_stream(21, round, PEER_ENTRIES_MAX, 900);
        for (size_t i = 0; i < sizeof piece_max / sizeof piece_max[0]; i++) {
            assert_int_equal(take_all(stream.bytes, stream.n, piece_max[i], &seed, &r), 21);
            assert_int_equal(r, 0);
            assert_int_equal(decoder.state, PEER_DECODER_HEADER);
        }
        free_stream(21);
    }
}

static void a_truncated_stream_gives_what_is_whole_and_waits(void **state)
{
    uint64_t seed = 1;
    uint32_t whole = 0;
    int r;

    make_stream(14, 3, 5, 64);
    for (size_t n = 0; n <= stream.n; n++) {
        while (whole < 14 && end_of[whole] <= n)
            whole++;
        assert_int_equal(take_all(stream.bytes, n, 0, &seed, &r), whole);
        assert_int_equal(r, 0);
        peer_decoder_reset(&decoder, PEER_TYPES_WELCOMED);
        assert_int_equal(pool.live, 0);
    }
    assert_int_equal(whole, 14);
    free_stream(14);
}

/* Not one bit may be flipped: the header has a CRC, the head has one, and each payload. What was
 * before the flip still arrives. */
static void every_flipped_bit_is_an_error_of_its_own_message(void **state)
{
    uint64_t seed = 1;
    uint32_t whole = 0;
    int r;

    make_stream(14, 8, 4, 48);
    assert_true(sample[2].raft.append_entries.n_entries > 1);
    for (size_t bit = 0; bit < stream.n * 8; bit++) {
        while (end_of[whole] <= bit / 8)
            whole++;
        stream.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(take_all(stream.bytes, stream.n, 0, &seed, &r), whole);
        assert_int_equal(r, -EBADMSG);
        stream.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        peer_decoder_reset(&decoder, PEER_TYPES_WELCOMED);
    }
    assert_int_equal(whole, 13);
    free_stream(14);
}

static void garbage_is_refused_within_its_first_header(void **state)
{
    uint8_t garbage[PEER_HEADER_BYTES * 2];
    uint64_t seed = 4;
    size_t at;

    for (int round = 0; round < 1000; round++) {
        for (size_t i = 0; i < sizeof garbage; i++)
            garbage[i] = (uint8_t)wire_random(&seed);
        at = 0;
        assert_int_equal(wire_feed(&decoder, garbage, sizeof garbage, &at, 0, &seed), -EBADMSG);
        assert_int_equal(at, PEER_HEADER_BYTES);
        assert_string_equal(peer_decoder_error(&decoder), "this is not a frame of a Sluice node");
        peer_decoder_reset(&decoder, PEER_TYPES_WELCOMED);
    }
}

/* A header with right CRCs; then one field is changed. */
static struct peer_header header_of(enum peer_type type, uint32_t head_bytes,
                                    uint32_t payload_bytes)
{
    static uint8_t buf[PEER_HEADER_BYTES + PEER_HEAD_MAX] __attribute__((aligned(8)));
    struct peer_header h;

    peer_frame_put(buf, type, 5, head_bytes, payload_bytes);
    memcpy(&h, buf, sizeof h);
    return h;
}

static void assert_refused(struct peer_header h, const char *sentence)
{
    uint64_t seed = 0;
    size_t at = 0;

    h.crc = crc32c(0, &h.type, sizeof h - offsetof(struct peer_header, type));
    assert_int_equal(wire_feed(&decoder, (uint8_t *)&h, sizeof h, &at, 0, &seed), -EBADMSG);
    assert_string_equal(peer_decoder_error(&decoder), sentence);
    peer_decoder_reset(&decoder, PEER_TYPES_WELCOMED);
}

static void a_header_that_cannot_be_is_refused_before_its_body(void **state)
{
    struct peer_header h = header_of(PEER_PING, 0, 0);

    h.type = 0;
    assert_refused(h, "a type that this build does not know");
    h.type = PEER_TYPE_END;
    assert_refused(h, "a type that this build does not know");
    h = header_of(PEER_PING, 0, 0);
    h.flags = 1;
    assert_refused(h, "PING: flags that this build does not know");
    h = header_of(PEER_PING, 0, 0);
    h.body_bytes = h.head_bytes = 8;
    assert_refused(h, "PING: no frame of this type has a head of this length");
    h = header_of(PEER_PING, 0, 0);
    h.body_bytes = 8;
    assert_refused(h, "PING: there is something behind the head");
    h = header_of(PEER_PING, 0, 0);
    h.epoch = (UINT64_MAX >> 20) + 1;
    assert_refused(h, "PING: an epoch that no term can have");
    h = header_of(PEER_APPEND_ENTRIES, PEER_APPEND_HEAD_MAX, 0);
    h.head_bytes = h.body_bytes += PEER_ENTRY_BYTES;
    assert_refused(h, "APPEND_ENTRIES: no frame of this type has a head of this length");
    h = header_of(PEER_APPEND_ENTRIES, PEER_APPEND_HEAD_MAX, 0);
    h.head_bytes -= 8;
    assert_refused(h, "APPEND_ENTRIES: no frame of this type has a head of this length");
    h = header_of(PEER_APPEND_ENTRIES, PEER_APPEND_HEAD_MAX, PEER_BODY_MAX - PEER_APPEND_HEAD_MAX);
    h.body_bytes += 8;
    assert_refused(h, "APPEND_ENTRIES: the body is longer than a frame's may be");
    h = header_of(PEER_APPEND_ENTRIES, PEER_APPEND_HEAD_MAX, 8);
    h.body_bytes -= 4;
    assert_refused(h, "APPEND_ENTRIES: the body's length cannot be");
    h.body_bytes = 8;
    assert_refused(h, "APPEND_ENTRIES: the body's length cannot be");
    h = header_of(PEER_INSTALL_SNAPSHOT, PEER_SNAPSHOT_HEAD_MAX, 0);
    h.head_bytes = h.body_bytes += 8;
    assert_refused(h, "INSTALL_SNAPSHOT: no frame of this type has a head of this length");
    h = header_of(PEER_TIMEOUT_NOW, 32, 0);
    h.head_bytes = h.body_bytes = 24;
    assert_refused(h, "TIMEOUT_NOW: no frame of this type has a head of this length");
}

static void only_the_types_that_were_named_may_come(void **state)
{
    assert_refused(header_of(PEER_HELLO, 128, 0), "HELLO: a frame of this type may not come here");
    peer_decoder_reset(&decoder, PEER_TYPES_FIRST);
    assert_refused(header_of(PEER_PING, 0, 0), "PING: a frame of this type may not come here");
    peer_decoder_reset(&decoder, PEER_TYPES_ANSWER);
    assert_refused(header_of(PEER_HELLO, 128, 0), "HELLO: a frame of this type may not come here");
    peer_decoder_accept(&decoder, 0);
    assert_refused(header_of(PEER_WELCOME, 24, 0),
                   "WELCOME: a frame of this type may not come here");
    peer_decoder_accept(&decoder, PEER_TYPES_FIRST);
    peer_decoder_accept(&decoder, PEER_TYPES_WELCOMED);
    assert_refused(header_of(PEER_REFUSE, 24, 0), "REFUSE: a frame of this type may not come here");
}

static void a_stream_that_failed_stays_so(void **state)
{
    uint8_t garbage[PEER_HEADER_BYTES] = { 1 };
    uint64_t seed = 0;
    size_t at = 0;
    void *to;

    assert_int_equal(wire_feed(&decoder, garbage, sizeof garbage, &at, 0, &seed), -EBADMSG);
    assert_int_equal(peer_decoder_want(&decoder, &to), 0);
    assert_int_equal(peer_decoder_got(&decoder, 0), -EBADMSG);
    assert_string_equal(peer_decoder_error(&decoder), "this is not a frame of a Sluice node");
}

/* A sample of n entries of `bytes` bytes each. */
static void make_entries(struct wire_sample *s, uint32_t n, uint32_t bytes)
{
    uint64_t seed = 1;

    wire_sample_init(s, PEER_APPEND_ENTRIES, &seed, 0, 0);
    free(s->memory);
    s->memory = calloc(1, bytes + 1);
    assert_non_null(s->memory);
    memset(s->memory, 0x5a, bytes);
    s->raft.append_entries.n_entries = n;
    for (uint32_t i = 0; i < n; i++) {
        s->record[i] = (struct log_record){ .index = s->raft.append_entries.prev_log_index + 1 + i,
                                            .term = s->raft.append_entries.term,
                                            .type = LOG_EVENTS,
                                            .payload_bytes = bytes };
        s->entry[i] = (struct peer_entry){ .record = &s->record[i],
                                           .payload = s->memory,
                                           .payload_crc = crc32c(0, s->memory, bytes) };
    }
    stream.n = 0;
    wire_stream_put(&stream, s);
}

static void a_slow_disk_holds_the_stream_up_and_nothing_is_lost(void **state)
{
    static const uint32_t bytes[] = { 64, 0 };
    uint64_t seed = 0;
    size_t at;
    void *to;
    int r;

    for (size_t i = 0; i < 2; i++) {
        make_entries(&sample[0], 3, bytes[i]);
        at = 0;
        for (unsigned held = 0;; held++) {
            pool.again = 2;
            r = wire_feed(&decoder, stream.bytes, stream.n, &at, 0, &seed);
            if (r == 1) /* with no bytes to come, only asking again gets this far */
                break;
            assert_int_equal(r, 0);
            assert_int_equal(peer_decoder_want(&decoder, &to), 0);
            assert_int_equal(pool.live, held);
            assert_int_equal(peer_decoder_got(&decoder, 0), 0);
            assert_int_equal(peer_decoder_want(&decoder, &to), 0);
            r = peer_decoder_got(&decoder, 0);
            if (r == 1)
                break;
            assert_int_equal(r, 0);
        }
        assert_int_equal(at, stream.n);
        assert_int_equal(pool.live, 3);
        assert_int_equal(peer_decoder_got(&decoder, 0), 1);
        assert_int_equal(peer_decoder_want(&decoder, &to), 0);
        wire_assert_equal(peer_decoder_message(&decoder), &sample[0]);
        assert_int_equal(peer_decoder_want(&decoder, &to), PEER_HEADER_BYTES);
        wire_free_entries(&pool, &decoder.message);
        free_stream(1);
    }
}

static void a_payload_is_read_to_where_the_disk_writes_it_from(void **state)
{
    const size_t head = PEER_APPEND_BUF(1);
    uint64_t seed = 0;
    size_t at = 0;
    void *to;

    make_entries(&sample[0], 1, 8192);
    assert_int_equal(wire_feed(&decoder, stream.bytes, head, &at, 0, &seed), 0);
    assert_int_equal(pool.live, 1);
    assert_int_equal(peer_decoder_want(&decoder, &to), 8192);
    assert_ptr_equal(to, (uint8_t *)pool.last->buf + LOG_HEADER_BYTES);
    memcpy(to, stream.bytes + head, 100);
    assert_int_equal(peer_decoder_got(&decoder, 100), 0);
    assert_int_equal(peer_decoder_want(&decoder, &to), 8092);
    assert_ptr_equal(to, (uint8_t *)pool.last->buf + LOG_HEADER_BYTES + 100);
    memcpy(to, stream.bytes + head + 100, 8092);
    assert_int_equal(peer_decoder_got(&decoder, 8092), 1);
    assert_ptr_equal(peer_decoder_message(&decoder)->write[0], pool.last);
    wire_free_entries(&pool, &decoder.message);
    free_stream(1);
}

static void a_wrong_payload_names_its_entry(void **state)
{
    char sentence[PEER_ERROR_BYTES];
    uint64_t seed = 0;
    size_t at = 0;

    make_entries(&sample[0], 2, 64);
    stream.bytes[stream.n - 1] ^= 1;
    assert_int_equal(wire_feed(&decoder, stream.bytes, stream.n, &at, 0, &seed), -EBADMSG);
    assert_int_equal(at, stream.n);
    snprintf(sentence, sizeof sentence,
             "APPEND_ENTRIES: entry %llu: the payload's CRC does not match",
             sample[0].raft.append_entries.prev_log_index + 2);
    assert_string_equal(peer_decoder_error(&decoder), sentence);
    assert_int_equal(pool.live, 2); /* until fini */
    free_stream(1);
}

static void no_memory_for_an_entry_ends_the_connection(void **state)
{
    uint64_t seed = 0;
    size_t at = 0;

    make_entries(&sample[0], 1, 64);
    pool.error = -ENOMEM;
    assert_int_equal(wire_feed(&decoder, stream.bytes, stream.n, &at, 0, &seed), -ENOMEM);
    assert_non_null(strstr(peer_decoder_error(&decoder), "no memory for entry "));
    free_stream(1);
}

static void entries_that_were_not_taken_are_freed_and_taken_ones_are_not(void **state)
{
    const struct peer_message *m;
    uint64_t seed = 0;
    size_t at = 0;

    make_entries(&sample[0], 4, 64);
    assert_int_equal(wire_feed(&decoder, stream.bytes, stream.n - 1, &at, 0, &seed), 0);
    assert_int_equal(pool.live, 4);
    peer_decoder_reset(&decoder, PEER_TYPES_WELCOMED);
    assert_int_equal(pool.live, 0);
    at = 0;
    assert_int_equal(wire_feed(&decoder, stream.bytes, stream.n, &at, 0, &seed), 1);
    peer_decoder_reset(&decoder, PEER_TYPES_WELCOMED);
    assert_int_equal(pool.live, 0);
    at = 0;
    assert_int_equal(wire_feed(&decoder, stream.bytes, stream.n, &at, 0, &seed), 1);
    m = peer_decoder_message(&decoder);
    peer_decoder_reset(&decoder, PEER_TYPES_WELCOMED);
    assert_int_equal(pool.live, 4);
    wire_free_entries(&pool, m);
    free_stream(1);
}

static void a_post_arrives_whole_or_is_refused(void **state)
{
    static uint8_t body[PEER_POST_MAX] __attribute__((aligned(8)));
    uint64_t header[PEER_HEADER_BYTES / 8], seed = 3;
    const struct iovec iov[] = { { body, 24 }, { body + 24, sizeof body - 24 } };
    const struct peer_message *m;
    size_t at = 0;

    for (size_t i = 0; i < sizeof body; i++)
        body[i] = (uint8_t)(i * 7 + i / 251);
    peer_frame_put_post(header, PEER_FETCHED, 9, iov, 2);
    stream.n = 0;
    wire_stream_put_bytes(&stream, header, sizeof header);
    wire_stream_put_bytes(&stream, body, sizeof body);
    assert_int_equal(wire_feed(&decoder, stream.bytes, stream.n, &at, 5000, &seed), 1);
    assert_int_equal(at, stream.n);
    m = peer_decoder_message(&decoder);
    assert_int_equal(m->frame.type, PEER_FETCHED);
    assert_int_equal(m->frame.epoch, 9);
    assert_int_equal(m->frame.head_bytes, sizeof body);
    assert_memory_equal(m->frame.head, body, sizeof body);

    stream.bytes[PEER_HEADER_BYTES + sizeof body / 2] ^= 4;
    at = 0;
    assert_int_equal(wire_feed(&decoder, stream.bytes, stream.n, &at, 5000, &seed), -EBADMSG);
    assert_string_equal(peer_decoder_error(&decoder), "FETCHED: the head's CRC does not match");
    peer_decoder_reset(&decoder, PEER_TYPES_WELCOMED);
    struct peer_header h = header_of(PEER_FETCHED, PEER_POST_MAX, 0);
    h.head_bytes = h.body_bytes += 8;
    assert_refused(h, "FETCHED: no frame of this type has a head of this length");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_post_arrives_whole_or_is_refused, start, stop),
        cmocka_unit_test_setup_teardown(a_stream_gives_the_same_messages_in_pieces_of_any_size,
                                        start, stop),
        cmocka_unit_test_setup_teardown(a_truncated_stream_gives_what_is_whole_and_waits, start,
                                        stop),
        cmocka_unit_test_setup_teardown(every_flipped_bit_is_an_error_of_its_own_message, start,
                                        stop),
        cmocka_unit_test_setup_teardown(garbage_is_refused_within_its_first_header, start, stop),
        cmocka_unit_test_setup_teardown(a_header_that_cannot_be_is_refused_before_its_body, start,
                                        stop),
        cmocka_unit_test_setup_teardown(only_the_types_that_were_named_may_come, start, stop),
        cmocka_unit_test_setup_teardown(a_stream_that_failed_stays_so, start, stop),
        cmocka_unit_test_setup_teardown(a_slow_disk_holds_the_stream_up_and_nothing_is_lost, start,
                                        stop),
        cmocka_unit_test_setup_teardown(a_payload_is_read_to_where_the_disk_writes_it_from, start,
                                        stop),
        cmocka_unit_test_setup_teardown(a_wrong_payload_names_its_entry, start, stop),
        cmocka_unit_test_setup_teardown(no_memory_for_an_entry_ends_the_connection, start, stop),
        cmocka_unit_test_setup_teardown(
            entries_that_were_not_taken_are_freed_and_taken_ones_are_not, start, stop),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    wire_stream_fini(&stream);
    return failed;
}
