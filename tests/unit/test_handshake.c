/*
 * test_handshake.c - who may speak to whom: every refusal has its code and its sentence, and a
 * HELLO of any later version is understood.
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

#define CLUSTER "\xc1\xc1\xc1\xc1\xc1\xc1\xc1\xc1\xc1\xc1\xc1\xc1\xc1\xc1\xc1\x01"
#define OURS    "\xd0\xd0\xd0\xd0\xd0\xd0\xd0\xd0\xd0\xd0\xd0\xd0\xd0\xd0\xd0\x03"
#define THEIRS  "\xd0\xd0\xd0\xd0\xd0\xd0\xd0\xd0\xd0\xd0\xd0\xd0\xd0\xd0\xd0\x02"

static struct handshake_self self;
static struct handshake_known known;
static struct hello hello;
static struct welcome welcome;
static struct refusal refusal;
static uint8_t buf[PEER_HEADER_BYTES + PEER_HANDSHAKE_MAX] __attribute__((aligned(8)));

/* Node 2 of region 1 dials node 3, in epoch 7, and node 3 knows it. */
static int start(void **state)
{
    self = (struct handshake_self){ .epoch = 7, .node = 3, .version_min = 2, .version_max = 4 };
    memcpy(self.cluster_id, CLUSTER, 16);
    memcpy(self.directory_id, OURS, 16);
    known = (struct handshake_known){ .node = 2, .region = 1, .directory_known = true };
    memcpy(known.directory_id, THEIRS, 16);
    hello = (struct hello){ .magic = HANDSHAKE_MAGIC,
                            .version_min = 1,
                            .version_max = 3,
                            .process = 0x0123456789abcdef,
                            .connection = 5,
                            .epoch = 7,
                            .node = 2,
                            .dialled = 3,
                            .region = 1,
                            .zone_bytes = 8,
                            .zone = "rack-1.b",
                            .address = "n2.example:7401" };
    memcpy(hello.cluster_id, CLUSTER, 16);
    memcpy(hello.directory_id, THEIRS, 16);
    welcome = (struct welcome){ .magic = HANDSHAKE_MAGIC, .version = 3, .node = 2 };
    memcpy(welcome.directory_id, THEIRS, 16);
    memset(&refusal, 0xee, sizeof refusal);
    return 0;
}

static void assert_taken(int notes)
{
    struct refusal untouched;

    memset(&untouched, 0xee, sizeof untouched);
    assert_int_equal(handshake_check(&self, &known, &hello, &refusal), notes);
    assert_memory_equal(&refusal, &untouched, sizeof refusal);
}

static void assert_refused(enum refusal_code code, const char *sentence)
{
    assert_int_equal(handshake_check(&self, &known, &hello, &refusal), -EACCES);
    assert_string_equal(refusal.sentence, sentence);
    assert_int_equal(refusal.code, code);
    start(NULL);
}

static void a_known_node_is_taken(void **state) { assert_taken(0); }

static void a_node_of_no_cluster_may_call_and_be_called(void **state)
{
    memset(hello.cluster_id, 0, sizeof hello.cluster_id);
    hello.epoch = 1; /* it has never heard of a newer one */
    assert_taken(HANDSHAKE_CALLS_ONLY);
    start(NULL);
    memset(self.cluster_id, 0, sizeof self.cluster_id);
    assert_taken(HANDSHAKE_CALLS_ONLY);
    memset(hello.cluster_id, 0, sizeof hello.cluster_id);
    assert_taken(HANDSHAKE_CALLS_ONLY);
    hello.dialled = 9; /* what does not depend on the cluster is looked at all the same */
    assert_refused(REFUSAL_NOT_ME, "node 2 dialled node 9, but this is node 3");
}

static void an_address_can_be_printed_or_is_refused(void **state)
{
    struct peer_frame f = { .type = PEER_HELLO, .head_bytes = HANDSHAKE_HELLO_BYTES };
    uint8_t *address = buf + PEER_HEADER_BYTES + HANDSHAKE_HELLO_BYTES - HANDSHAKE_ADDRESS_MAX;
    uint16_t *bytes = (uint16_t *)(void *)(address - 8);
    struct hello h;

    f.head = buf + PEER_HEADER_BYTES;
    assert_true(handshake_put_hello(buf, sizeof buf, &hello) > 0);
    assert_int_equal(*bytes, strlen(hello.address));
    assert_null(handshake_get_hello(&h, &f));
    address[3] = ' ';
    assert_string_equal(handshake_get_hello(&h, &f), "HELLO: the address cannot be printed");
    address[3] = 0;
    assert_string_equal(handshake_get_hello(&h, &f), "HELLO: the address cannot be printed");
    address[3] = 'e';
    *bytes = HANDSHAKE_ADDRESS_MAX + 1;
    assert_string_equal(handshake_get_hello(&h, &f), "HELLO: the address is too long");
}

static void the_first_contact_is_taken_and_to_be_remembered(void **state)
{
    known.directory_known = false;
    memset(known.directory_id, 0, sizeof known.directory_id);
    assert_taken(HANDSHAKE_REMEMBER);
}

/* What the two may say to each other is decided frame by frame (recovery_hears()). */
static void another_epoch_is_not_refused(void **state)
{
    hello.epoch = 8;
    assert_taken(0);
    hello.epoch = 6;
    assert_taken(0);
}

static void each_refusal_has_its_code_and_sentence(void **state)
{
    hello.magic = 0x20544547;
    assert_refused(REFUSAL_MAGIC,
                   "this is no HELLO of a Sluice node: it begins with 20544547, not 4b485053");
    hello.version_max = 1;
    assert_refused(REFUSAL_VERSION,
                   "node 2 speaks the protocol's versions 1 to 1, node 3 speaks 2 to 4");
    hello.version_min = hello.version_max = 5;
    assert_refused(REFUSAL_VERSION,
                   "node 2 speaks the protocol's versions 5 to 5, node 3 speaks 2 to 4");
    hello.cluster_id[15] = 2;
    assert_refused(REFUSAL_CLUSTER, "node 2 is of cluster c1c1c1c1c1c1c1c1c1c1c1c1c1c1c102, node 3 "
                                    "of cluster c1c1c1c1c1c1c1c1c1c1c1c1c1c1c101");
    hello.dialled = 4;
    assert_refused(REFUSAL_NOT_ME, "node 2 dialled node 4, but this is node 3");
    hello.directory_id[0] = 0;
    assert_refused(REFUSAL_DIRECTORY,
                   "node 2 has the directory 00d0d0d0d0d0d0d0d0d0d0d0d0d0d002, but is known with "
                   "d0d0d0d0d0d0d0d0d0d0d0d0d0d0d002: a new directory needs a new node id");
    hello.region = 2;
    assert_refused(REFUSAL_REGION, "node 2 says region 2, but is known in region 1");
}

static void a_node_that_is_not_known_is_refused(void **state)
{
    assert_int_equal(handshake_check(&self, NULL, &hello, &refusal), -EACCES);
    assert_int_equal(refusal.code, REFUSAL_UNKNOWN);
    assert_string_equal(refusal.sentence, "node 2 is not a node of this cluster that node 3 knows");
}

static void a_node_does_not_speak_to_itself_or_to_its_double(void **state)
{
    known.node = hello.node = 3;
    memcpy(hello.directory_id, OURS, 16);
    assert_refused(REFUSAL_MYSELF, "node 3 dialled itself, node 3");
    known.node = hello.node = 3;
    assert_refused(REFUSAL_MYSELF,
                   "two nodes have the id 3: one with directory d0d0d0d0d0d0d0d0d0d0d0d0d0d0d002, "
                   "this one with d0d0d0d0d0d0d0d0d0d0d0d0d0d0d003");
    memcpy(hello.directory_id, OURS, 16);
    known.directory_known = false; /* the first contact is no way around it */
    assert_refused(REFUSAL_MYSELF, "node 2 has the directory d0d0d0d0d0d0d0d0d0d0d0d0d0d0d003, "
                                   "which is that of node 3: was it copied?");
}

static void fields_that_cannot_be_are_refused(void **state)
{
    hello.version_min = 4;
    assert_refused(REFUSAL_MALFORMED, "versions from 4 to 3 cannot be");
    hello.version_min = 0;
    assert_refused(REFUSAL_MALFORMED, "versions from 0 to 3 cannot be");
    known.node = hello.node = 0;
    assert_int_equal(handshake_check(&self, NULL, &hello, &refusal), -EACCES);
    assert_int_equal(refusal.code, REFUSAL_MALFORMED);
    start(NULL);
    hello.dialled = 0;
    assert_refused(REFUSAL_MALFORMED,
                   "node 2, dialled node 0, connection 5: none of them can be 0");
    hello.connection = 0;
    assert_refused(REFUSAL_MALFORMED,
                   "node 2, dialled node 3, connection 0: none of them can be 0");
    hello.region = 0;
    assert_refused(REFUSAL_MALFORMED, "region 0 of node 2 is neither 1 nor 2");
    hello.region = 3;
    assert_refused(REFUSAL_MALFORMED, "region 3 of node 2 is neither 1 nor 2");
    hello.region = 257; /* 1, if cut to a byte */
    assert_refused(REFUSAL_MALFORMED, "region 257 of node 2 is neither 1 nor 2");
    memset(hello.directory_id, 0, sizeof hello.directory_id);
    assert_refused(REFUSAL_MALFORMED, "the directory id of node 2 is all zeros");
    hello.zone_bytes = 65;
    assert_refused(REFUSAL_MALFORMED, "the zone of node 2 has 65 bytes, more than 64");
    hello.zone_bytes = 7; /* there is one more */
    assert_refused(REFUSAL_MALFORMED,
                   "the zone of node 2 has other characters than A-Z a-z 0-9 . _ -");
    hello.zone_bytes = 9; /* a NUL */
    assert_refused(REFUSAL_MALFORMED,
                   "the zone of node 2 has other characters than A-Z a-z 0-9 . _ -");
}

static void a_zone_has_letters_digits_and_three_signs(void **state)
{
    static const char good[] = "ABCXYZabcxyz0129._-";

    for (int c = 0; c < 256; c++) {
        memset(hello.zone, 0, sizeof hello.zone);
        hello.zone[0] = (char)c;
        hello.zone_bytes = 1;
        if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
            (c != 0 && strchr("._-", c) != NULL))
            assert_taken(0);
        else
            assert_refused(REFUSAL_MALFORMED,
                           "the zone of node 2 has other characters than A-Z a-z 0-9 . _ -");
    }
    memset(hello.zone, 0, sizeof hello.zone);
    memcpy(hello.zone, good, sizeof good - 1);
    hello.zone_bytes = sizeof good - 1;
    assert_taken(0);
    memset(hello.zone, 'z', HANDSHAKE_ZONE_MAX);
    hello.zone_bytes = HANDSHAKE_ZONE_MAX;
    assert_taken(0);
    memset(hello.zone, 0, HANDSHAKE_ZONE_MAX);
    hello.zone_bytes = 0;
    assert_taken(0);
}

/* refuse() asserts that a sentence fits. */
static void a_sentence_holds_the_largest_numbers(void **state)
{
    hello.node = known.node = UINT16_MAX;
    hello.dialled = self.node = UINT16_MAX - 1;
    hello.directory_id[0] = 0xff;
    assert_int_equal(handshake_check(&self, &known, &hello, &refusal), -EACCES);
    assert_int_equal(refusal.code, REFUSAL_DIRECTORY);
    hello.directory_id[0] = 0xd0;
    hello.cluster_id[0] = 0xff;
    assert_int_equal(handshake_check(&self, &known, &hello, &refusal), -EACCES);
    assert_int_equal(refusal.code, REFUSAL_CLUSTER);
}

static void the_highest_common_version_is_chosen(void **state)
{
    static const struct {
        uint16_t min, max, chosen;
    } of[] = { { 1, 1, 0 }, { 1, 2, 2 }, { 1, 3, 3 }, { 3, 3, 3 },    { 2, 4, 4 },
               { 1, 9, 4 }, { 4, 9, 4 }, { 5, 9, 0 }, { 1, 65535, 4 } };

    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        hello.version_min = of[i].min;
        hello.version_max = of[i].max;
        assert_int_equal(handshake_version(&self, &hello), of[i].chosen);
    }
}

/* --- the dialler's side ---------------------------------------------------------------------- */

static void assert_welcome_refused(enum refusal_code code, const char *sentence)
{
    assert_int_equal(handshake_check_welcome(&self, &known, &welcome, &refusal), -EACCES);
    assert_string_equal(refusal.sentence, sentence);
    assert_int_equal(refusal.code, code);
    start(NULL);
}

static void a_welcome_of_another_node_is_refused(void **state)
{
    assert_int_equal(handshake_check_welcome(&self, &known, &welcome, &refusal), 0);
    known.directory_known = false;
    assert_int_equal(handshake_check_welcome(&self, &known, &welcome, &refusal),
                     HANDSHAKE_REMEMBER);
    start(NULL);
    welcome.magic = 1;
    assert_welcome_refused(
        REFUSAL_MAGIC,
        "this is no WELCOME of a Sluice node: it begins with 00000001, not 4b485053");
    welcome.version = 5;
    assert_welcome_refused(REFUSAL_VERSION,
                           "node 2 chose the protocol's version 5, node 3 speaks 2 to 4");
    welcome.version = 1;
    assert_welcome_refused(REFUSAL_VERSION,
                           "node 2 chose the protocol's version 1, node 3 speaks 2 to 4");
    welcome.node = 5;
    assert_welcome_refused(REFUSAL_NOT_ME, "node 2 was dialled, but node 5 answered");
    welcome.directory_id[0] = 0;
    assert_welcome_refused(
        REFUSAL_DIRECTORY,
        "node 2 has the directory 00d0d0d0d0d0d0d0d0d0d0d0d0d0d002, but is known with "
        "d0d0d0d0d0d0d0d0d0d0d0d0d0d0d002: a new directory needs a new node id");
}

/* --- bytes ----------------------------------------------------------------------------------- */

/* What the decoder makes of the frame in buf; the head stays in d. */
static int decode(struct peer_decoder *d, size_t n, uint32_t types)
{
    static struct wire_pool pool;
    struct peer_decoder_memory memory = wire_pool_memory(&pool);
    uint64_t seed = 3;
    size_t at = 0;

    assert_int_equal(peer_decoder_init(d, &memory, types), 0);
    return wire_feed(d, buf, n, &at, 5, &seed);
}

static void all_three_frames_arrive_as_they_were_sent(void **state)
{
    struct peer_decoder d;
    struct hello h;
    struct welcome w;
    struct refusal r;
    int n;

    n = handshake_put_hello(buf, sizeof buf, &hello);
    assert_int_equal(n, PEER_HEADER_BYTES + HANDSHAKE_HELLO_BYTES);
    assert_int_equal(decode(&d, (size_t)n, PEER_TYPES_FIRST), 1);
    assert_null(handshake_get_hello(&h, &peer_decoder_message(&d)->frame));
    assert_memory_equal(&h, &hello, sizeof h);
    peer_decoder_fini(&d);

    n = handshake_put_welcome(buf, sizeof buf, 9, &welcome);
    assert_int_equal(decode(&d, (size_t)n, PEER_TYPES_ANSWER), 1);
    assert_null(handshake_get_welcome(&w, &peer_decoder_message(&d)->frame));
    assert_memory_equal(&w, &welcome, sizeof w);
    assert_int_equal(d.message.frame.epoch, 9);
    peer_decoder_fini(&d);

    refusal = (struct refusal){ .code = REFUSAL_REGION };
    memset(refusal.sentence, '~', HANDSHAKE_SENTENCE_MAX);
    n = handshake_put_refusal(buf, sizeof buf, UINT64_MAX >> 20, &refusal);
    assert_int_equal(n, PEER_HEADER_BYTES + HANDSHAKE_REFUSE_BYTES);
    assert_int_equal(decode(&d, (size_t)n, PEER_TYPES_ANSWER), 1);
    assert_null(handshake_get_refusal(&r, &peer_decoder_message(&d)->frame));
    assert_memory_equal(&r, &refusal, sizeof r);
    assert_int_equal(d.message.frame.epoch, UINT64_MAX >> 20);
    peer_decoder_fini(&d);
    for (size_t cap = 0; cap < PEER_HEADER_BYTES + HANDSHAKE_REFUSE_BYTES; cap++)
        assert_int_equal(handshake_put_refusal(buf, cap, 1, &refusal), -ENOBUFS);
}

/* Version 9 may have more fields: they are behind ours, which have kept their places. */
static void a_hello_of_a_later_version_is_understood(void **state)
{
    struct peer_decoder d;
    struct hello h;

    for (uint32_t more = 8; more <= PEER_HANDSHAKE_MAX - HANDSHAKE_HELLO_BYTES; more += 8) {
        hello.version_max = 9;
        assert_true(handshake_put_hello(buf, sizeof buf, &hello) > 0);
        memset(buf + PEER_HEADER_BYTES + HANDSHAKE_HELLO_BYTES, 0xa7, more);
        peer_frame_put(buf, PEER_HELLO, hello.epoch, HANDSHAKE_HELLO_BYTES + more, 0);
        assert_int_equal(
            decode(&d, PEER_HEADER_BYTES + HANDSHAKE_HELLO_BYTES + more, PEER_TYPES_FIRST), 1);
        assert_null(handshake_get_hello(&h, &peer_decoder_message(&d)->frame));
        assert_memory_equal(&h, &hello, sizeof h);
        assert_int_equal(handshake_check(&self, &known, &h, &refusal), 0);
        assert_int_equal(handshake_version(&self, &h), 4);
        peer_decoder_fini(&d);
    }
}

static void every_flipped_bit_of_a_hello_is_an_error(void **state)
{
    struct peer_decoder d;
    int n = handshake_put_hello(buf, sizeof buf, &hello);

    for (int bit = 0; bit < n * 8; bit++) {
        buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(decode(&d, (size_t)n, PEER_TYPES_FIRST), -EBADMSG);
        peer_decoder_fini(&d);
        buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void a_head_that_is_too_short_is_said(void **state)
{
    struct peer_frame f = { .type = PEER_HELLO, .head = buf };
    struct refusal r;

    for (f.head_bytes = 0; f.head_bytes < HANDSHAKE_HELLO_BYTES; f.head_bytes += 8)
        assert_string_equal(handshake_get_hello(&hello, &f), "HELLO: too short");
    f.type = PEER_WELCOME;
    for (f.head_bytes = 0; f.head_bytes < HANDSHAKE_WELCOME_BYTES; f.head_bytes += 8)
        assert_string_equal(handshake_get_welcome(&welcome, &f), "WELCOME: too short");
    f.type = PEER_REFUSE;
    for (f.head_bytes = 0; f.head_bytes < HANDSHAKE_REFUSE_BYTES; f.head_bytes += 8)
        assert_string_equal(handshake_get_refusal(&r, &f), "REFUSE: too short");
}

static void a_refusal_that_cannot_be_printed_is_not_taken(void **state)
{
    struct peer_frame f = { .type = PEER_REFUSE,
                            .head = buf + PEER_HEADER_BYTES,
                            .head_bytes = HANDSHAKE_REFUSE_BYTES };
    uint8_t *head = buf + PEER_HEADER_BYTES;
    static const struct {
        uint32_t offset;
        uint8_t value;
        const char *sentence;
    } of[] = {
        { 0, 1, "REFUSE: not of a Sluice node" },
        { 4, 0, "REFUSE: no code, or no sentence" },
        { 6, 0, "REFUSE: no code, or no sentence" },
        { 6, 241, "REFUSE: no code, or no sentence" },
        { 6, 2, "REFUSE: the sentence cannot be printed" }, /* a third byte */
        { 6, 4, "REFUSE: the sentence cannot be printed" }, /* a NUL */
        { 9, 0x1b, "REFUSE: the sentence cannot be printed" },
        { 9, 0x7f, "REFUSE: the sentence cannot be printed" },
        { 9, 0xff, "REFUSE: the sentence cannot be printed" },
        { 247, 'x', "REFUSE: the sentence cannot be printed" },
    };
    struct refusal r;
    uint8_t was;

    refusal = (struct refusal){ .code = 11, .sentence = "no!" }; /* a code of a later version */
    assert_true(handshake_put_refusal(buf, sizeof buf, 1, &refusal) > 0);
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        was = head[of[i].offset];
        head[of[i].offset] = of[i].value;
        assert_string_equal(handshake_get_refusal(&r, &f), of[i].sentence);
        head[of[i].offset] = was;
    }
    assert_null(handshake_get_refusal(&r, &f));
    assert_int_equal(r.code, 11);
}

/* These bytes may never change: see handshake.h. */
static void the_bytes_of_a_hello_are_these(void **state)
{
    static const char hex[] =
        "534c43500804ac780100000090010000900100004a35777a07000000000000005350484b01000300"
        "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c101d0d0d0d0d0d0d0d0d0d0d0d0d0d0d002efcdab8967452301"
        "050000000000000002000300010008007261636b2d312e6200000000000000000000000000000000"
        "00000000000000000000000000000000000000000000000000000000000000000000000000000000"
        "0f000000000000006e322e6578616d706c653a37343031"; /* and zeros */
    char text[2 * (PEER_HEADER_BYTES + HANDSHAKE_HELLO_BYTES) + 1];
    int n = handshake_put_hello(buf, sizeof buf, &hello);

    assert_int_equal(n, sizeof text / 2);
    for (int i = 0; i < n; i++)
        snprintf(text + 2 * i, 3, "%02x", buf[i]);
    assert_memory_equal(text, hex, sizeof hex - 1);
    assert_int_equal(strspn(text + sizeof hex - 1, "0"), sizeof text - sizeof hex);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_known_node_is_taken, start),
        cmocka_unit_test_setup(a_node_of_no_cluster_may_call_and_be_called, start),
        cmocka_unit_test_setup(an_address_can_be_printed_or_is_refused, start),
        cmocka_unit_test_setup(the_first_contact_is_taken_and_to_be_remembered, start),
        cmocka_unit_test_setup(another_epoch_is_not_refused, start),
        cmocka_unit_test_setup(each_refusal_has_its_code_and_sentence, start),
        cmocka_unit_test_setup(a_node_that_is_not_known_is_refused, start),
        cmocka_unit_test_setup(a_node_does_not_speak_to_itself_or_to_its_double, start),
        cmocka_unit_test_setup(fields_that_cannot_be_are_refused, start),
        cmocka_unit_test_setup(a_zone_has_letters_digits_and_three_signs, start),
        cmocka_unit_test_setup(a_sentence_holds_the_largest_numbers, start),
        cmocka_unit_test_setup(the_highest_common_version_is_chosen, start),
        cmocka_unit_test_setup(a_welcome_of_another_node_is_refused, start),
        cmocka_unit_test_setup(all_three_frames_arrive_as_they_were_sent, start),
        cmocka_unit_test_setup(a_hello_of_a_later_version_is_understood, start),
        cmocka_unit_test_setup(every_flipped_bit_of_a_hello_is_an_error, start),
        cmocka_unit_test_setup(a_head_that_is_too_short_is_said, start),
        cmocka_unit_test_setup(a_refusal_that_cannot_be_printed_is_not_taken, start),
        cmocka_unit_test_setup(the_bytes_of_a_hello_are_these, start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
