/*
 * test_fuzz_corpus.c - the seeds of the fuzz targets of log, peers and certificates are what this
 * code makes.
 *
 * With SLUICE_WRITE_CORPUS=1 they are written to tests/fuzz/corpus/ (run from the top directory).
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/log_private.h"
#include "cluster/member.h"
#include "cluster/orphan.h"
#include "cluster/peer_fetch.h"
#include "cluster/peer_forward.h"
#include "cluster/peer_recover.h"
#include "cluster/record.h"
#include "proto/wire.pb.h"
#include "tests/lib/certificate_rig.h"
#include "tests/lib/log_fixture.h"
#include "tests/lib/peer_wire.h"
#include "tests/lib/test_disk.h"

static uint8_t seed[64 << 10];

static void check_seed(const char *target, const char *name, size_t bytes)
{
    static uint8_t stored[sizeof seed + 1];
    char path[256];
    FILE *f;
    size_t n;

    snprintf(path, sizeof path, "tests/fuzz/corpus/%s/%s", target, name);
    if (getenv("SLUICE_WRITE_CORPUS") != NULL) {
        f = fopen(path, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(seed, 1, bytes, f), bytes);
        fclose(f);
    }
    f = fopen(path, "rb");
    if (f == NULL)
        fail_msg("%s: cannot be read", path);
    n = fread(stored, 1, sizeof stored, f);
    fclose(f);
    assert_int_equal(n, bytes);
    assert_memory_equal(stored, seed, bytes);
}

static struct disk *make_log(void)
{
    struct log_config config = fixture_config();
    struct disk *d = test_disk_make(1);
    char error[LOG_ERROR_BYTES];
    struct log *l;

    assert_int_equal(log_open(&l, d, &config, &fixture_origin, NULL, NULL, error), 0);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(
            fixture_append(l, FIXTURE_TERM, i == 3 ? LOG_SEAL : LOG_BARRIER, i * 900, 1), 0);
    log_close(l);
    return d;
}

static void segment_seeds(void **state)
{
    const size_t bytes = LOG_ALIGN * 5 + 2;
    struct disk *d = make_log();
    const uint8_t *p = test_disk_bytes(d, test_disk_name(d, 0), NULL);

    memset(seed, 0, sizeof seed);
    seed[1] = 4;
    memcpy(seed + 2, p, bytes - 2);
    check_seed("segment", "four_records", bytes);
    seed[1] = 2;
    seed[2 + 4 * LOG_ALIGN + 300] = 9;
    check_seed("segment", "torn_behind_the_mark", bytes);
    seed[1] = 4;
    check_seed("segment", "rotten_below_the_mark", bytes);
    seed[0] = 1;
    seed[2 + 2 * LOG_ALIGN + 90] ^= 0x40;
    check_seed("segment", "wrong_links_with_right_crcs", bytes);
    memset(seed + 2 + LOG_ALIGN, 0, bytes - 2 - LOG_ALIGN);
    seed[1] = 0;
    check_seed("segment", "no_record_yet", LOG_ALIGN + 2);
    test_disk_free(d);
}

static void twoslot_seeds(void **state)
{
    struct disk *d = make_log();
    const uint8_t *p = test_disk_bytes(d, SEGMENT_MARK, NULL);

    seed[0] = 0;
    memcpy(seed + 1, p, 8192);
    check_seed("twoslot", "both_good", 8193);
    seed[1 + 4096 + 30] ^= 1;
    check_seed("twoslot", "second_bad", 8193);
    seed[0] = 3;
    check_seed("twoslot", "two_values", 8193);
    seed[0] = 0;
    seed[1 + 4] ^= 1;
    check_seed("twoslot", "both_bad", 8193);
    check_seed("twoslot", "short", 100);
    test_disk_free(d);
}

/* Options, piece size, how often there is no memory; then a stream (fuzz_peer_frame.c). */
static void peer_frame_seeds(void **state)
{
    static const char *const name[PEER_TYPE_END] = {
        [PEER_REQUEST_VOTE] = "request_vote",
        [PEER_REQUEST_VOTE_RESULT] = "request_vote_result",
        [PEER_APPEND_ENTRIES] = "append_entries",
        [PEER_APPEND_ENTRIES_RESULT] = "append_entries_result",
        [PEER_INSTALL_SNAPSHOT] = "install_snapshot",
        [PEER_TIMEOUT_NOW] = "timeout_now",
        [PEER_PING] = "ping",
    };
    struct wire_stream all = { 0 };
    uint64_t random = 30;

    for (uint32_t type = PEER_REQUEST_VOTE; type < PEER_POST_FIRST; type++) {
        struct wire_sample s;
        size_t from = all.n;

        wire_sample_init(&s, (enum peer_type)type, &random, 6, 40);
        wire_stream_put(&all, &s);
        wire_sample_fini(&s);
        seed[0] = 1;
        seed[1] = seed[2] = (uint8_t)type;
        memcpy(seed + 3, all.bytes + from, all.n - from);
        check_seed("peer_frame", name[type], 3 + all.n - from);
    }
    memset(seed, 0, 3);
    memcpy(seed + 3, all.bytes, all.n);
    check_seed("peer_frame", "all", 3 + all.n);
    wire_stream_fini(&all);
}

/* Two entries, of which the first is packed (peer_pack.h). */
static void packed_seed(void **state)
{
    static uint8_t payload[1024];
    struct peer_packer packer = { .level = 1 };
    struct wire_stream all = { 0 };
    struct wire_sample s = { .type = PEER_APPEND_ENTRIES,
                             .epoch = 1,
                             .raft = { .type = RAFT_APPEND_ENTRIES } };

    (void)state;
    s.raft.append_entries = (struct raft_append_entries){
        .term = 9, .prev_log_index = 4, .prev_log_term = 8, .leader_commit = 3, .n_entries = 2
    };
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t bytes = i == 0 ? sizeof payload : 64;

        s.record[i] = (struct log_record){
            .index = 5 + i, .term = 9, .time_ns = 7, .type = LOG_EVENTS, .payload_bytes = bytes
        };
        s.entry[i] = (struct peer_entry){ .record = &s.record[i],
                                          .payload = payload,
                                          .payload_crc = crc32c(0, payload, bytes) };
        peer_pack(&packer, &s.entry[i], true);
        assert_int_equal(s.entry[i].packed_bytes > 0, i == 0);
    }
    wire_stream_put(&all, &s);
    seed[0] = 1;
    seed[1] = seed[2] = PEER_APPEND_ENTRIES;
    memcpy(seed + 3, all.bytes, all.n);
    check_seed("peer_frame", "packed", 3 + all.n);
    wire_stream_fini(&all);
    peer_packer_fini(&packer);
}

/* Options; then the head of a HELLO, WELCOME or REFUSE (fuzz_handshake.c). */
static void handshake_seeds(void **state)
{
    static uint8_t frame[HANDSHAKE_FRAME_MAX] __attribute__((aligned(8)));
    struct hello hello = { .magic = HANDSHAKE_MAGIC,
                           .version_min = 1,
                           .version_max = 1,
                           .process = 77,
                           .connection = 1,
                           .node = 2,
                           .dialled = 1,
                           .region = 1,
                           .zone_bytes = 4,
                           .zone = "rack" };
    struct welcome welcome = { .magic = HANDSHAKE_MAGIC, .version = 1, .node = 2 };
    struct refusal refusal = { .code = REFUSAL_NOT_ME, .sentence = "this is node 3" };
    size_t n;

    memset(hello.cluster_id, 1, sizeof hello.cluster_id);
    memset(hello.directory_id, 2, sizeof hello.directory_id);
    memset(welcome.directory_id, 2, sizeof welcome.directory_id);
    n = (size_t)handshake_put_hello(frame, sizeof frame, &hello) - PEER_HEADER_BYTES;
    seed[0] = 0;
    memcpy(seed + 1, frame + PEER_HEADER_BYTES, n);
    check_seed("handshake", "hello", 1 + n);
    seed[0] = 0x28;
    memset(seed + 1 + n, 9, 16);
    check_seed("handshake", "hello_of_a_later_version", 1 + n + 16);
    n = (size_t)handshake_put_welcome(frame, sizeof frame, 1, &welcome) - PEER_HEADER_BYTES;
    seed[0] = 1;
    memcpy(seed + 1, frame + PEER_HEADER_BYTES, n);
    check_seed("handshake", "welcome", 1 + n);
    n = (size_t)handshake_put_refusal(frame, sizeof frame, 1, &refusal) - PEER_HEADER_BYTES;
    seed[0] = 2;
    memcpy(seed + 1, frame + PEER_HEADER_BYTES, n);
    check_seed("handshake", "refuse", 1 + n);
}

/* Options; then the body of a FETCH or FETCHED (fuzz_peer_post.c). */
static void peer_post_seeds(void **state)
{
    static uint8_t body[4096] __attribute__((aligned(8))), payload[64];
    const struct member self = { .node = 1, .role = MEMBER_VOTER };
    const uint32_t type[] = { LOG_CHANGE, LOG_BARRIER, LOG_GENESIS, LOG_EVENTS, LOG_SEAL };
    static uint8_t zeros[1000];
    struct log_record r1000 = {
        .index = 7, .term = 1, .time_ns = 1, .type = LOG_SETTING, .payload_bytes = sizeof zeros
    };
    struct peer_entry long_one = { .record = &r1000, .payload = zeros };
    struct peer_packer packer = { .level = 3 };
    struct peer_fetch m = { .from = 7, .to = 9000, .bytes = 1 << 20 };
    struct peer_fetched got;
    size_t n;

    (void)state;
    memset(seed, 0, 8);
    peer_fetch_put(seed + 8, &m);
    check_seed("peer_post", "fetch", 8 + PEER_FETCH_BYTES);
    m.more = true;
    peer_fetch_put(seed + 8, &m);
    check_seed("peer_post", "fetch_more", 8 + PEER_FETCH_BYTES);
    n = peer_fetched_begin(body, 7, fixture_origin.digest);
    for (uint32_t i = 0; i < 5; i++) {
        struct log_record r = { .index = 7 + i,
                                .term = FIXTURE_TERM + i / 2,
                                .time_ns = 1000 + i,
                                .type = type[i],
                                .payload_bytes = i * 8 };
        struct peer_entry entry = { .record = &r, .payload = payload };

        memset(payload, (int)i, sizeof payload);
        if (r.type == LOG_CHANGE)
            r.payload_bytes = (uint32_t)members_encode(&self, 1, payload, sizeof payload);
        assert_in_range(r.payload_bytes, 0, sizeof payload);
        n = peer_fetched_add(body, n, &entry);
    }
    assert_null(peer_fetched_get(&got, body, n));
    seed[0] = 3;
    memcpy(seed + 8, body, n);
    check_seed("peer_post", "fetched", 8 + n);
    seed[0] = 5;
    n = peer_fetched_begin(body, 7, fixture_origin.digest);
    peer_pack(&packer, &long_one, false);
    assert_true(long_one.packed_bytes > 0);
    n = peer_fetched_add(body, n, &long_one);
    peer_packer_fini(&packer);
    memcpy(seed + 8, body, n);
    check_seed("peer_post", "fetched_packed", 8 + n);
}

/* Options; then the body of a FORWARD or a FORWARDED of node 2 (fuzz_peer_forward.c). */
static void peer_forward_seeds(void **state)
{
    struct peer_forwarded answer = { .process = 1,
                                     .id = 2,
                                     .index = 9,
                                     .term = 1ull << 20,
                                     .events = 4,
                                     .accepted = 2,
                                     .outcome = PEER_DECIDED,
                                     .exceptions = 2 };
    const struct peer_exception exception[2] = {
        { .first_index = 7, .position = 1, .reason = sluice_v1_Reason_DUPLICATE },
        { .first_index = 8,
          .position = 3,
          .first_slot = 5,
          .reason = sluice_v1_Reason_ID_CONFLICT },
    };
    struct block *b = calloc(1, sizeof *b);
    struct iovec iov[PEER_FORWARD_IOVS];
    struct peer_forward head;
    size_t n = 1;

    assert_non_null(b);
    assert_int_equal(block_init(b, 0), 0);
    for (uint32_t i = 0; i < 4; i++) {
        b->desc[i] = (struct block_desc){ .offset = b->bytes, .bytes = 20, .type = 1 };
        b->content[i] = i;
        memset(block_payload(b) + b->bytes, 'a' + (int)i, 20);
        b->bytes += 20;
        b->events++;
    }
    block_seal(b, 2, 1);
    peer_forward_put(&head, b, 1, 2, iov);
    seed[0] = 0;
    for (unsigned i = 0; i < PEER_FORWARD_IOVS; n += iov[i++].iov_len)
        memcpy(seed + n, iov[i].iov_base, iov[i].iov_len);
    check_seed("peer_forward", "block", n);
    seed[0] = 2;
    seed[1 + sizeof head + sizeof(struct block_header)] ^= 1;
    check_seed("peer_forward", "block_of_another_crc", n);
    memset(seed + 1 + sizeof head + offsetof(struct block_header, node), 0,
           sizeof(((struct block_header *)0)->node));
    check_seed("peer_forward", "block_put_in_again", n);
    block_fini(b);
    free(b);
    seed[0] = 1;
    memcpy(seed + 1, &answer, sizeof answer);
    memcpy(seed + 1 + sizeof answer, exception, sizeof exception);
    check_seed("peer_forward", "decided", 1 + sizeof answer + sizeof exception);
    answer = (struct peer_forwarded){ .process = 1, .id = 2, .events = 4, .outcome = PEER_AGAIN };
    memcpy(seed + 1, &answer, sizeof answer);
    check_seed("peer_forward", "again", 1 + sizeof answer);
}

/* Nothing; then the body of a RECOVER (fuzz_peer_recover.c). */
static void peer_recover_seeds(void **state)
{
    static const char *const name[][2] = { { "look", "look_answer" },
                                           { "promise", "promise_answer" },
                                           { "copy", "copy_answer" },
                                           { "finish", "finish_answer" } };
    static uint8_t change[256];
    const struct member self = { .node = 1, .role = MEMBER_VOTER };
    const uint32_t audit_bytes = 5;
    int change_bytes = members_encode(&self, 1, change, sizeof change);

    (void)state;
    assert_in_range(change_bytes, 1, sizeof change);
    for (unsigned i = 0; i < 8; i++) {
        struct peer_recover m = { .step = (uint16_t)(RECOVER_LOOK + i / 2),
                                  .answer = i % 2,
                                  .status = i == 3 ? -17 : 0,
                                  .epoch = 4,
                                  .attempt = 9,
                                  .index = 30,
                                  .term = FIXTURE_TERM,
                                  .source = i == 4 ? 2 : 0 };
        size_t n = 8 + sizeof m;

        memset(seed, 0, 4096);
        if (m.step == RECOVER_FINISH && m.answer == 0) {
            m.audit_bytes = audit_bytes;
            m.change_bytes = (uint32_t)change_bytes;
            memset(seed + n, 'a', audit_bytes);
            n += peer_recover_padded(audit_bytes);
            memcpy(seed + n, change, (size_t)change_bytes);
            n += peer_recover_padded((uint32_t)change_bytes);
        }
        memcpy(seed + 8, &m, sizeof m);
        check_seed("peer_recover", name[i / 2][i % 2], n);
    }
}

/* Options; then a file (fuzz_orphan.c): the records are those of a segment. */
static void orphan_seeds(void **state)
{
    const size_t bytes = LOG_ALIGN * 5, skipped = offsetof(struct orphan_head, node);
    struct disk *d = make_log();
    const uint8_t *p = test_disk_bytes(d, test_disk_name(d, 0), NULL);
    struct orphan_head h = { .magic = ORPHAN_MAGIC,
                             .version = ORPHAN_VERSION,
                             .node = 1,
                             .region = 1,
                             .epoch = FIXTURE_TERM >> 20,
                             .into = 3,
                             .first = 1,
                             .last = 4,
                             .entries = 4,
                             .bytes = bytes - LOG_ALIGN };

    (void)state;
    memcpy(h.before, fixture_origin.digest, SHA256_BYTES);
    record_digest((const struct record_header *)(p + 4 * LOG_ALIGN), h.after);
    h.crc = crc32c(0, (const uint8_t *)&h + skipped, sizeof h - skipped);
    memset(seed, 0, sizeof seed);
    memcpy(seed + 1, &h, sizeof h);
    memcpy(seed + 1 + LOG_ALIGN, p + LOG_ALIGN, bytes - LOG_ALIGN);
    check_seed("orphan", "four_records", 1 + bytes);
    check_seed("orphan", "short", 1 + bytes - 2 * LOG_ALIGN);
    check_seed("orphan", "head", 1 + sizeof h);
    seed[1 + 3 * LOG_ALIGN + 200] ^= 4;
    check_seed("orphan", "rotten_payload", 1 + bytes);
    seed[0] = 1;
    check_seed("orphan", "another_payload_with_right_crcs", 1 + bytes);
    test_disk_free(d);
}

static void certificate_seed(const char *name, const struct rig_certificate *c, bool pem)
{
    unsigned char *der = NULL;
    X509 *x = rig_certificate(c);
    size_t bytes;

    if (pem) {
        bytes = rig_pem(x, (char *)seed, sizeof seed);
    } else {
        bytes = (size_t)i2d_X509(x, &der);
        assert_in_range(bytes, 1, sizeof seed);
        memcpy(seed, der, bytes);
        OPENSSL_free(der);
    }
    check_seed("certificate", name, bytes);
    X509_free(x);
}

static void certificate_seeds(void **state)
{
    struct rig_certificate c = { .name = { RIG_NAME(GEN_URI, "urn:sluice:node:3:node-3"),
                                           RIG_NAME(GEN_DNS, "a.example"),
                                           RIG_NAME(GEN_IPADD, "\xc0\0\2\x0a") },
                                 .usage = "serverAuth,clientAuth" };

    certificate_seed("node", &c, false);
    certificate_seed("node.pem", &c, true);
    certificate_seed(
        "ca",
        &(struct rig_certificate){ .name = { RIG_NAME(GEN_URI, "urn:sluice:ca:sluice") },
                                   .basic = "critical,CA:TRUE,pathlen:0",
                                   .key_usage = "critical,keyCertSign,cRLSign" },
        false);
    certificate_seed("producer",
                     &(struct rig_certificate){
                         .name = { RIG_NAME(GEN_URI, "urn:sluice:client:producer:feed-a") },
                         .usage = "clientAuth" },
                     false);
    c.names_twice = true;
    certificate_seed("names_twice", &c, false);
    c.names_twice = false;
    c.more_names = 70;
    certificate_seed("many_names", &c, false);
    c.more_names = 0;
    c.name[1] = (struct rig_name)RIG_NAME(GEN_URI, "urn:sluice:client:admin:x");
    certificate_seed("two_roles", &c, false);
    c.name[1] = (struct rig_name)RIG_NAME(GEN_URI, "urn:sluice:node:3:x\0y");
    certificate_seed("nul", &c, false);
    c.version_1 = true;
    certificate_seed("version_1", &c, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segment_seeds),      cmocka_unit_test(twoslot_seeds),
        cmocka_unit_test(peer_frame_seeds),   cmocka_unit_test(packed_seed),
        cmocka_unit_test(handshake_seeds),    cmocka_unit_test(certificate_seeds),
        cmocka_unit_test(peer_post_seeds),    cmocka_unit_test(peer_forward_seeds),
        cmocka_unit_test(peer_recover_seeds), cmocka_unit_test(orphan_seeds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
