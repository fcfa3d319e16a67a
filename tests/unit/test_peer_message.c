/*
 * test_peer_message.c - the engine's messages arrive as they were sent, without a copy of their
 * payloads, and one that cannot be is neither sent nor taken.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/entry_type.h"
#include "tests/lib/peer_wire.h"

static struct wire_sample sample;
static struct wire_stream stream;
static struct wire_pool pool;
static uint8_t buf[PEER_HEADER_BYTES + PEER_HEAD_MAX] __attribute__((aligned(8)));
static struct iovec iov[1 + PEER_ENTRIES_MAX];

static void make(enum peer_type type, uint64_t seed, uint32_t entries_max, uint32_t payload_max)
{
    wire_sample_init(&sample, type, &seed, entries_max, payload_max);
    stream.n = 0;
    wire_stream_put(&stream, &sample);
}

/* What the decoder says to the stream; the sentence of an error is in ret. */
static int decode(char ret[PEER_ERROR_BYTES])
{
    struct peer_decoder_memory memory = wire_pool_memory(&pool);
    struct peer_decoder d;
    uint64_t seed = 0;
    size_t at = 0;
    int r;

    assert_int_equal(peer_decoder_init(&d, &memory, PEER_TYPES_WELCOMED), 0);
    r = wire_feed(&d, stream.bytes, stream.n, &at, 0, &seed);
    if (r == 1) {
        assert_int_equal(at, stream.n);
        wire_assert_equal(peer_decoder_message(&d), &sample);
        wire_free_entries(&pool, &d.message);
    } else if (r < 0) {
        strcpy(ret, peer_decoder_error(&d));
    }
    peer_decoder_fini(&d);
    assert_int_equal(pool.live, 0);
    return r;
}

static void every_message_arrives_as_it_was_sent(void **state)
{
    static const struct {
        uint32_t entries_max, payload_max;
    } bounds[] = { { 0, 0 }, { 3, 4096 }, { PEER_ENTRIES_MAX, 64 }, { 8, PEER_PAYLOAD_MAX } };
    char error[PEER_ERROR_BYTES];

    for (uint64_t round = 0; round < 400; round++)
        for (uint32_t type = PEER_REQUEST_VOTE; type < PEER_POST_FIRST; type++) {
            size_t b = round % 4;

            if (b == 3 && round > 20)
                b = 1;
            make((enum peer_type)type, round * PEER_TYPE_END + type, bounds[b].entries_max,
                 type == PEER_INSTALL_SNAPSHOT && b == 3 ? PEER_SNAPSHOT_BYTES_MAX
                                                         : bounds[b].payload_max);
            assert_int_equal(decode(error), 1);
            wire_sample_fini(&sample);
        }
}

/* n entries of `bytes` bytes; the payload is one and the same. */
static void make_entries(uint32_t n, uint32_t bytes)
{
    struct raft_append_entries *m = &sample.raft.append_entries;

    memset(&sample, 0, sizeof sample);
    sample.type = PEER_APPEND_ENTRIES;
    sample.raft.type = RAFT_APPEND_ENTRIES;
    sample.memory = calloc(1, bytes + 1);
    assert_non_null(sample.memory);
    memset(sample.memory, 0x33, bytes);
    *m = (struct raft_append_entries){
        .term = 9, .prev_log_index = 4, .prev_log_term = 8, .leader_commit = 3, .n_entries = n
    };
    for (uint32_t i = 0; i < n && i < PEER_ENTRIES_MAX; i++) {
        sample.record[i] = (struct log_record){
            .index = 5 + i, .term = 9, .time_ns = 7, .type = LOG_EVENTS, .payload_bytes = bytes
        };
        sample.entry[i] = (struct peer_entry){ .record = &sample.record[i],
                                               .payload = sample.memory,
                                               .payload_crc = crc32c(0, sample.memory, bytes) };
    }
}

static int encode_entries(size_t cap, unsigned iov_max)
{
    return peer_encode_append_entries(buf, cap, 1, &sample.raft.append_entries, sample.entry, iov,
                                      iov_max);
}

static void payloads_are_pointed_at_and_not_copied(void **state)
{
    make_entries(3, 4096);
    sample.record[1].payload_bytes = 0;
    sample.entry[1].payload = NULL;
    sample.entry[1].payload_crc = 0;
    assert_int_equal(encode_entries(PEER_APPEND_BUF(3), 4), 3);
    assert_ptr_equal(iov[0].iov_base, buf);
    assert_int_equal(iov[0].iov_len, PEER_APPEND_BUF(3));
    assert_ptr_equal(iov[1].iov_base, sample.memory);
    assert_int_equal(iov[1].iov_len, 4096);
    assert_ptr_equal(iov[2].iov_base, sample.memory);
    assert_int_equal(iov[2].iov_len, 4096);
    wire_sample_fini(&sample);
}

static void a_message_holds_64_small_entries_or_16_of_the_largest(void **state)
{
    char error[PEER_ERROR_BYTES];

    make_entries(PEER_ENTRIES_MAX, 4096);
    assert_int_equal(peer_entries_fit(sample.entry, 1000), PEER_ENTRIES_MAX);
    stream.n = 0;
    wire_stream_put(&stream, &sample);
    assert_int_equal(decode(error), 1);
    sample.raft.append_entries.n_entries++;
    assert_int_equal(encode_entries(sizeof buf, 100), -EMSGSIZE);
    wire_sample_fini(&sample);

    make_entries(17, PEER_PAYLOAD_MAX);
    assert_int_equal(peer_entries_fit(sample.entry, 17), 16);
    assert_int_equal(encode_entries(sizeof buf, 100), -EMSGSIZE);
    sample.raft.append_entries.n_entries = 16;
    stream.n = 0;
    wire_stream_put(&stream, &sample);
    assert_int_equal(decode(error), 1);
    assert_int_equal(peer_entries_fit(sample.entry, 1), 1);
    assert_int_equal(peer_entries_fit(sample.entry, 0), 0);
    wire_sample_fini(&sample);
}

/* --- packed ---------------------------------------------------------------------------------- */

static struct peer_packer packer;

/* n entries of `bytes` bytes each, packed, in the stream. */
static void make_packed(uint32_t n, uint32_t bytes)
{
    make_entries(n, bytes);
    for (uint32_t i = 0; i < n; i++)
        peer_pack(&packer, &sample.entry[i], true);
    stream.n = 0;
    wire_stream_put(&stream, &sample);
}

static void packed_payloads_arrive_as_they_were(void **state)
{
    char error[PEER_ERROR_BYTES];
    const void *first;

    packer.level = 1;
    make_packed(8, 64 * 1024);
    assert_in_range(stream.n, PEER_APPEND_BUF(8), PEER_APPEND_BUF(8) + 8 * 1024);
    assert_int_equal(decode(error), 1);
    /* What was packed for one node is there for the next. */
    first = sample.entry[0].packed;
    sample.entry[0].packed_bytes = 0;
    memset(sample.memory, 0x44, 64 * 1024); /* which is not looked at */
    peer_pack(&packer, &sample.entry[0], true);
    assert_ptr_equal(sample.entry[0].packed, first);
    assert_true(sample.entry[0].packed_bytes > 0);
    wire_sample_fini(&sample);
    /* Another entry in that place is not taken for it. */
    make_entries(1, 64 * 1024);
    memset(sample.memory, 0x55, 64 * 1024);
    sample.entry[0].payload_crc = crc32c(0, sample.memory, 64 * 1024);
    peer_pack(&packer, &sample.entry[0], true);
    stream.n = 0;
    wire_stream_put(&stream, &sample);
    assert_int_equal(decode(error), 1);
    wire_sample_fini(&sample);
    make_packed(16, PEER_PAYLOAD_MAX);
    assert_int_equal(decode(error), 1);
    wire_sample_fini(&sample);
    peer_packer_fini(&packer);
}

static void what_does_not_get_shorter_goes_as_it_is(void **state)
{
    char error[PEER_ERROR_BYTES];
    uint64_t seed = 5;

    packer.level = 1;
    make_entries(2, 4096);
    for (uint32_t i = 0; i < 4096; i++)
        ((uint8_t *)sample.memory)[i] = (uint8_t)(wire_random(&seed) >> 24);
    for (uint32_t i = 0; i < 2; i++) {
        sample.entry[i].payload_crc = crc32c(0, sample.memory, 4096);
        peer_pack(&packer, &sample.entry[i], true);
        assert_int_equal(sample.entry[i].packed_bytes, 0);
    }
    stream.n = 0;
    wire_stream_put(&stream, &sample);
    assert_int_equal(stream.n, PEER_APPEND_BUF(2) + 2 * 4096);
    assert_int_equal(decode(error), 1);
    wire_sample_fini(&sample);
    make_entries(1, 256); /* too short to be worth it */
    peer_pack(&packer, &sample.entry[0], true);
    assert_int_equal(sample.entry[0].packed_bytes, 0);
    wire_sample_fini(&sample);
    packer.level = 0;
    make_entries(1, 4096);
    peer_pack(&packer, &sample.entry[0], true);
    assert_int_equal(sample.entry[0].packed_bytes, 0);
    wire_sample_fini(&sample);
    peer_packer_fini(&packer);
}

/* The head of entry 0 in the stream. */
static struct peer_wire_entry *wire_entry(void)
{
    return (struct peer_wire_entry *)(stream.bytes + PEER_HEADER_BYTES + PEER_APPEND_BYTES);
}

static void a_packed_payload_is_exactly_that(void **state)
{
    static const char no_frame[] = "APPEND_ENTRIES: entry 5: a packed payload that is not one";
    uint8_t *packed;
    char error[PEER_ERROR_BYTES];

    packer.level = 1;
    for (unsigned what = 0; what < 6; what++) {
        make_packed(1, 8192);
        packed = stream.bytes + PEER_APPEND_BUF(1);
        assert_true(wire_entry()->packed_bytes >= 24);
        switch (what) {
        case 0:
            packed[0] ^= 1; /* no frame of zstd's */
            break;
        case 1:
            packed[12] ^= 0x40; /* a broken one */
            break;
        case 2:
            wire_entry()->payload_bytes = 4096; /* more comes out than there may */
            break;
        case 3:
            wire_entry()->payload_bytes = 16384; /* less */
            break;
        case 4:
            memset(packed, 0, wire_entry()->packed_bytes);
            break;
        default:
            wire_entry()->payload_crc ^= 1; /* the CRC is of what came out */
            break;
        }
        wire_frame_mend(stream.bytes);
        assert_int_equal(decode(error), -EBADMSG);
        if (what == 5)
            assert_string_equal(error, "APPEND_ENTRIES: entry 5: the payload's CRC does not match");
        else if (what != 1) /* which may come out as something else */
            assert_string_equal(error, no_frame);
        wire_sample_fini(&sample);
    }
    peer_packer_fini(&packer);
}

static void too_small_a_buffer_is_said(void **state)
{
    ssize_t n;

    make_entries(2, 8);
    assert_int_equal(encode_entries(PEER_APPEND_BUF(2) - 1, 3), -ENOBUFS);
    assert_int_equal(encode_entries(PEER_APPEND_BUF(2), 2), -ENOBUFS);
    assert_int_equal(encode_entries(PEER_APPEND_BUF(2), 3), 3);
    wire_sample_fini(&sample);
    assert_int_equal(peer_encode_ping(buf, PEER_HEADER_BYTES - 1, 1), -ENOBUFS);
    for (uint32_t type = PEER_REQUEST_VOTE; type < PEER_PING; type++) {
        if (type == PEER_APPEND_ENTRIES)
            continue;
        make((enum peer_type)type, type, 0, 100);
        n = (ssize_t)stream.n;
        assert_int_equal(peer_encode(buf, (size_t)n, 1, &sample.raft), n);
        for (size_t cap = 0; cap < (size_t)n; cap++)
            assert_int_equal(peer_encode(buf, cap, 1, &sample.raft), -ENOBUFS);
        wire_sample_fini(&sample);
    }
    sample.raft.type = RAFT_APPEND_ENTRIES;
    assert_int_equal(peer_encode(buf, sizeof buf, 1, &sample.raft), -EINVAL);
}

/* Changes bytes of a head with right CRCs; the decoder must say the sentence. */
struct change {
    enum peer_type type;
    uint32_t offset; /* in the head */
    uint32_t bytes;
    uint64_t value;
    const char *sentence;
};

static const struct change changes[] = {
    { PEER_REQUEST_VOTE, 0, 8, 0, "term 0" },
    { PEER_REQUEST_VOTE, 9, 1, 2, "a bool that is neither 0 nor 1" },
    { PEER_REQUEST_VOTE, 10, 1, 255, "a bool that is neither 0 nor 1" },
    { PEER_REQUEST_VOTE, 11, 1, 1, "reserved bytes are not 0" },
    { PEER_REQUEST_VOTE, 15, 1, 1, "reserved bytes are not 0" },
    { PEER_REQUEST_VOTE, 16, 8, 0, "candidate 0" },
    { PEER_REQUEST_VOTE, 24, 8, 0, "an index without a term, or a term without an index" },
    { PEER_REQUEST_VOTE, 32, 8, 0, "an index without a term, or a term without an index" },
    { PEER_REQUEST_VOTE, 24, 8, 1ull << 63, "an index that no log can have" },
    { PEER_REQUEST_VOTE, 32, 8, 11, "a term in the log above the sender's" },
    { PEER_REQUEST_VOTE_RESULT, 9, 1, 2, "a bool that is neither 0 nor 1" },
    { PEER_REQUEST_VOTE_RESULT, 10, 1, 3, "a bool that is neither 0 nor 1" },
    { PEER_REQUEST_VOTE_RESULT, 11, 1, 1, "reserved bytes are not 0" },
    { PEER_APPEND_ENTRIES, 0, 8, 0, "term 0" },
    { PEER_APPEND_ENTRIES, 9, 1, 1, "reserved bytes are not 0" },
    { PEER_APPEND_ENTRIES, 12, 4, 65, "more entries than a message may have" },
    { PEER_APPEND_ENTRIES, 12, 4, UINT32_MAX, "more entries than a message may have" },
    { PEER_APPEND_ENTRIES, 12, 4, 1, "not as many entries as the frame's length says" },
    { PEER_APPEND_ENTRIES, 12, 4, 3, "not as many entries as the frame's length says" },
    { PEER_APPEND_ENTRIES, 16, 8, 0, "an index without a term, or a term without an index" },
    { PEER_APPEND_ENTRIES, 16, 8, INT64_MAX - 1, "an index that no log can have" },
    { PEER_APPEND_ENTRIES, 24, 8, 0, "an index without a term, or a term without an index" },
    { PEER_APPEND_ENTRIES, 24, 8, 11, "a term in the log above the sender's" },
    { PEER_APPEND_ENTRIES, 24, 8, 10, "the terms of the entries cannot be" },
    { PEER_APPEND_ENTRIES, 32, 8, UINT64_MAX, "an index that no log can have" },
    { PEER_APPEND_ENTRIES, 40, 8, 0, "the terms of the entries cannot be" },
    { PEER_APPEND_ENTRIES, 40, 8, 11, "the terms of the entries cannot be" },
    { PEER_APPEND_ENTRIES, 104, 8, 7, "the terms of the entries cannot be" },
    { PEER_APPEND_ENTRIES, 48, 8, 8, "the times of the entries go back" },
    { PEER_APPEND_ENTRIES, 56, 4, 0, "an unknown type of entry" },
    { PEER_APPEND_ENTRIES, 56, 4, LOG_TYPE_END, "an unknown type of entry" },
    { PEER_APPEND_ENTRIES, 60, 4, 8, "the payloads are not as long as the frame says" },
    { PEER_APPEND_ENTRIES, 60, 4, 17, "a payload whose length is not a multiple of 8" },
    { PEER_APPEND_ENTRIES, 60, 4, PEER_PAYLOAD_MAX + 8, "a payload longer than a record's may be" },
    { PEER_APPEND_ENTRIES, 60, 4, UINT32_MAX - 7, "a payload longer than a record's may be" },
    { PEER_APPEND_ENTRIES, 68, 1, 1,
      "a packed payload that is not shorter, or not a multiple of 8" },
    { PEER_APPEND_ENTRIES_RESULT, 9, 1, 1, "reserved bytes are not 0" },
    { PEER_APPEND_ENTRIES_RESULT, 16, 8, 1ull << 63, "an index that no log can have" },
    { PEER_APPEND_ENTRIES_RESULT, 24, 8, UINT64_MAX, "an index that no log can have" },
    { PEER_INSTALL_SNAPSHOT, 0, 8, 0, "term 0 or index 0" },
    { PEER_INSTALL_SNAPSHOT, 15, 1, 1, "reserved bytes are not 0" },
    { PEER_INSTALL_SNAPSHOT, 16, 8, 0, "term 0 or index 0" },
    { PEER_INSTALL_SNAPSHOT, 24, 8, 0, "an index without a term, or a term without an index" },
    { PEER_INSTALL_SNAPSHOT, 24, 8, 11, "a term in the log above the sender's" },
    { PEER_INSTALL_SNAPSHOT, 32, 8, 0, "the index of the configuration cannot be" },
    { PEER_INSTALL_SNAPSHOT, 32, 8, 6, "the index of the configuration cannot be" },
    { PEER_INSTALL_SNAPSHOT, 40, 4, 4097, "configuration or data are too long" },
    { PEER_INSTALL_SNAPSHOT, 44, 4, 65537, "configuration or data are too long" },
    { PEER_INSTALL_SNAPSHOT, 44, 4, 9, "configuration and data are not as long as the frame says" },
    { PEER_INSTALL_SNAPSHOT, 44, 4, 2, "the bytes of the padding are not 0" },
    { PEER_INSTALL_SNAPSHOT, 40, 4, 16,
      "configuration and data are not as long as the frame says" },
    { PEER_INSTALL_SNAPSHOT, 40, 4, 22, "this is not a configuration" },
    { PEER_INSTALL_SNAPSHOT, 48, 1, 2, "this is not a configuration" },
    { PEER_TIMEOUT_NOW, 0, 8, 0, "term 0" },
    { PEER_TIMEOUT_NOW, 9, 1, 1, "reserved bytes are not 0" },
    { PEER_TIMEOUT_NOW, 16, 8, 0, "an index without a term, or a term without an index" },
    { PEER_TIMEOUT_NOW, 24, 8, 11, "a term in the log above the sender's" },
};

static struct raft_server one_server = { 1, "a:1", RAFT_VOTER };

/* Term 10, a place at 5 of term 8; two entries of 16 bytes; a snapshot of one server and 3 bytes.
 */
static void make_plain(enum peer_type type)
{
    uint64_t seed = 1;

    if (type == PEER_APPEND_ENTRIES) {
        make_entries(2, 16);
        sample.raft.append_entries.term = 10;
        sample.record[1].term = 10;
    } else {
        wire_sample_init(&sample, type, &seed, 0, 0);
    }
    if (type == PEER_REQUEST_VOTE)
        sample.raft.request_vote = (struct raft_request_vote){
            .term = 10, .candidate_id = 1, .last_log_index = 5, .last_log_term = 8
        };
    if (type == PEER_TIMEOUT_NOW)
        sample.raft.timeout_now =
            (struct raft_timeout_now){ .term = 10, .last_log_index = 5, .last_log_term = 8 };
    if (type == PEER_INSTALL_SNAPSHOT)
        sample.raft.install_snapshot = (struct raft_install_snapshot){
            .term = 10,
            .last_index = 5,
            .last_term = 8,
            .conf = { &one_server, 1 },
            .conf_index = 2,
            .data = { "abc", 3 },
        };
    stream.n = 0;
    wire_stream_put(&stream, &sample);
}

static void what_cannot_be_is_refused_with_a_sentence(void **state)
{
    char error[PEER_ERROR_BYTES], expected[PEER_ERROR_BYTES];

    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        const struct change *c = &changes[i];

        make_plain(c->type);
        assert_int_equal(decode(error), 1);
        memcpy(stream.bytes + PEER_HEADER_BYTES + c->offset, &c->value, c->bytes);
        wire_frame_mend(stream.bytes);
        assert_int_equal(decode(error), -EBADMSG);
        snprintf(expected, sizeof expected, "%s: %s", peer_type_name(c->type), c->sentence);
        assert_string_equal(error, expected);
        wire_sample_fini(&sample);
    }
}

static void assert_not_sent(void)
{
    int r = sample.type == PEER_APPEND_ENTRIES ? encode_entries(sizeof buf, 1 + PEER_ENTRIES_MAX)
                                               : (int)peer_encode(buf, sizeof buf, 1, &sample.raft);

    assert_int_equal(r, -EINVAL);
    wire_sample_fini(&sample);
}

static void what_cannot_be_is_not_sent(void **state)
{
    make_plain(PEER_REQUEST_VOTE);
    sample.raft.request_vote.candidate_id = 0;
    assert_not_sent();
    make_plain(PEER_APPEND_ENTRIES);
    sample.raft.append_entries.term = 0;
    assert_not_sent();
    make_plain(PEER_APPEND_ENTRIES);
    sample.record[1].index++; /* not the entry that the engine speaks of */
    assert_not_sent();
    make_plain(PEER_APPEND_ENTRIES);
    sample.record[1].time_ns = 1;
    assert_not_sent();
    make_plain(PEER_APPEND_ENTRIES);
    sample.record[0].payload_bytes = 12;
    assert_not_sent();
    make_plain(PEER_APPEND_ENTRIES_RESULT);
    sample.raft.append_entries_result.last_log_index = UINT64_MAX;
    assert_not_sent();
    make_plain(PEER_TIMEOUT_NOW);
    sample.raft.timeout_now.last_log_term = 11;
    assert_not_sent();
    make_plain(PEER_INSTALL_SNAPSHOT);
    sample.raft.install_snapshot.conf.n = 0;
    assert_not_sent();
    make_plain(PEER_INSTALL_SNAPSHOT);
    sample.raft.install_snapshot.conf_index = 6;
    assert_not_sent();
    make_plain(PEER_INSTALL_SNAPSHOT);
    sample.raft.install_snapshot.data.len = PEER_SNAPSHOT_BYTES_MAX + 1;
    assert_int_equal(peer_encode(buf, sizeof buf, 1, &sample.raft), -EMSGSIZE);
    wire_sample_fini(&sample);
}

static void a_configuration_that_the_engine_would_not_survive_is_refused(void **state)
{
    struct raft_server server[] = { { 1, "one:1", RAFT_VOTER },
                                    { 2, "two:22", RAFT_STANDBY },
                                    { 3, "three:3", RAFT_SPARE } };
    struct raft_configuration c = { server, 3 };
    struct raft_buffer encoded;
    uint8_t *copy;

    assert_int_equal(raft_configuration_encode(&c, &encoded), 0);
    assert_null(peer_configuration_check(encoded.base, encoded.len));
    /* An exact copy, so that a sanitizer sees every byte that is read behind the end. */
    for (size_t n = 0; n < encoded.len; n++) {
        copy = malloc(n + !n);
        assert_non_null(copy);
        memcpy(copy, encoded.base, n);
        assert_non_null(peer_configuration_check(copy, n));
        free(copy);
    }
    copy = malloc(encoded.len);
    assert_non_null(copy);
    for (size_t bit = 0; bit < encoded.len * 8; bit++) {
        memcpy(copy, encoded.base, encoded.len);
        copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (peer_configuration_check(copy, encoded.len) != NULL)
            continue;
        /* What is taken is one: the engine makes the same bytes of it. */
        struct raft_buffer in = { copy, encoded.len }, again;

        assert_int_equal(raft_configuration_decode(&in, &c), 0);
        assert_int_equal(raft_configuration_encode(&c, &again), 0);
        assert_int_equal(again.len, encoded.len);
        assert_memory_equal(again.base, copy, encoded.len);
        raft_free(again.base);
        raft_configuration_close(&c);
    }
    memcpy(copy, encoded.base, encoded.len);
    copy[1 + 8 + 8 + 6 + 1] = 1; /* the second server's id */
    assert_string_equal(peer_configuration_check(copy, encoded.len),
                        "a configuration that the engine does not take");
    free(copy);
    raft_free(encoded.base);
}

static void a_change_is_checked_when_its_payload_is_there(void **state)
{
    char error[PEER_ERROR_BYTES];

    make_entries(2, 16);
    sample.record[1].type = LOG_CHANGE;
    stream.n = 0;
    wire_stream_put(&stream, &sample);
    assert_int_equal(decode(error), -EBADMSG);
    assert_string_equal(error, "APPEND_ENTRIES: entry 6: this is not a configuration");
    wire_sample_fini(&sample);
    make_entries(1, PEER_CONFIGURATION_BYTES_MAX + 8);
    sample.record[0].type = LOG_CHANGE;
    assert_int_equal(encode_entries(sizeof buf, 2), -EINVAL);
    wire_sample_fini(&sample);
}

static unsigned heap_left; /* allocations that succeed */

static void *heap_malloc(void *data, size_t size)
{
    return heap_left-- > 0 ? malloc(size) : (heap_left = 0, NULL);
}
static void heap_free(void *data, void *p) { free(p); }
static void *heap_calloc(void *data, size_t n, size_t size)
{
    return heap_left-- > 0 ? calloc(n, size) : (heap_left = 0, NULL);
}
static void *heap_realloc(void *data, void *p, size_t size)
{
    return heap_left-- > 0 ? realloc(p, size) : (heap_left = 0, NULL);
}

static void a_snapshot_without_memory_leaks_nothing(void **state)
{
    struct raft_heap heap = {
        .malloc = heap_malloc, .free = heap_free, .calloc = heap_calloc, .realloc = heap_realloc
    };
    struct peer_frame frame = { .type = PEER_INSTALL_SNAPSHOT };
    struct raft_install_snapshot taken;
    struct peer_message m;
    unsigned failures = 0;
    int e;

    make_plain(PEER_INSTALL_SNAPSHOT);
    memcpy(buf, stream.bytes, stream.n);
    frame.head = buf + PEER_HEADER_BYTES;
    frame.head_bytes = frame.body_bytes = (uint32_t)stream.n - PEER_HEADER_BYTES;
    assert_null(peer_message_get(&m, &frame));
    raft_heap_set(&heap);
    for (unsigned n = 0;; n++, failures++) {
        heap_left = n;
        e = peer_snapshot_take(&taken, &m);
        if (e == 0)
            break;
        assert_int_equal(e, -ENOMEM);
    }
    assert_true(failures >= 2);
    raft_free(taken.data.base);
    raft_configuration_close(&taken.conf);
    heap_left = 0;
    assert_int_equal(peer_encode(buf, sizeof buf, 1, &sample.raft), -ENOMEM);
    assert_string_equal(peer_configuration_check(m.configuration, m.configuration_bytes),
                        "out of memory");
    raft_heap_set_default();
    wire_sample_fini(&sample);
}

static void the_engines_type_follows_from_the_logs(void **state)
{
    assert_int_equal(entry_type(LOG_EVENTS), RAFT_COMMAND);
    assert_int_equal(entry_type(LOG_SETTING), RAFT_COMMAND);
    assert_int_equal(entry_type(LOG_GENESIS), RAFT_COMMAND);
    assert_int_equal(entry_type(LOG_SEAL), RAFT_COMMAND);
    assert_int_equal(entry_type(LOG_BARRIER), RAFT_BARRIER);
    assert_int_equal(entry_type(LOG_CHANGE), RAFT_CHANGE);
}

/* A change of these bytes is a new version of the protocol. */
static void the_bytes_of_an_append_entries_are_these(void **state)
{
    static const char hex[] =
        "534c43502df4a24506000000c8000000a8000000c68c077603000000000000000500300000000000"
        "01000000020000001111000000000000040030000000000010110000000000000500300000000000"
        "8877665544332211010000001000000012c20ec900000000a088eff91e38dff1bbed9bacdb152267"
        "1eabab26b8ec76130efba0dbb9e67c6a050030000000000089776655443322110200000010000000"
        "12c20ec900000000a088eff91e38dff1bbed9bacdb1522671eabab26b8ec76130efba0dbb9e67c6a"
        "3333333333333333333333333333333333333333333333333333333333333333";
    char *text;

    make_entries(2, 16);
    sample.epoch = 3;
    sample.raft.append_entries = (struct raft_append_entries){
        .version = 1,
        .term = 0x300005,
        .prev_log_index = 0x1111,
        .prev_log_term = 0x300004,
        .leader_commit = 0x1110,
        .n_entries = 2,
    };
    for (uint32_t i = 0; i < 2; i++) {
        sample.record[i].index = 0x1112 + i;
        sample.record[i].term = 0x300005;
        sample.record[i].time_ns = 0x1122334455667788 + i;
        sha256(sample.record[i].payload_sha256, sample.memory, 16, NULL, 0);
    }
    sample.record[1].type = LOG_SETTING;
    stream.n = 0;
    wire_stream_put(&stream, &sample);
    text = malloc(2 * stream.n + 1);
    assert_non_null(text);
    for (size_t i = 0; i < stream.n; i++)
        snprintf(text + 2 * i, 3, "%02x", stream.bytes[i]);
    assert_string_equal(text, hex);
    free(text);
    wire_sample_fini(&sample);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_arrives_as_it_was_sent),
        cmocka_unit_test(payloads_are_pointed_at_and_not_copied),
        cmocka_unit_test(a_message_holds_64_small_entries_or_16_of_the_largest),
        cmocka_unit_test(packed_payloads_arrive_as_they_were),
        cmocka_unit_test(what_does_not_get_shorter_goes_as_it_is),
        cmocka_unit_test(a_packed_payload_is_exactly_that),
        cmocka_unit_test(too_small_a_buffer_is_said),
        cmocka_unit_test(what_cannot_be_is_refused_with_a_sentence),
        cmocka_unit_test(what_cannot_be_is_not_sent),
        cmocka_unit_test(a_configuration_that_the_engine_would_not_survive_is_refused),
        cmocka_unit_test(a_change_is_checked_when_its_payload_is_there),
        cmocka_unit_test(a_snapshot_without_memory_leaks_nothing),
        cmocka_unit_test(the_engines_type_follows_from_the_logs),
        cmocka_unit_test(the_bytes_of_an_append_entries_are_these),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    wire_stream_fini(&stream);
    return failed;
}
