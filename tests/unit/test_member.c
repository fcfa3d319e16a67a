/*
 * test_member.c - members as strings, and in the engine's bytes.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <raft.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/member.h"
#include "cluster/peer_message.h"

#define DIRECTORY "00112233445566778899aabbccddeeff"

static const uint8_t directory[MEMBER_DIRECTORY_BYTES] = { 0x00, 0x11, 0x22, 0x33, 0x44, 0x55,
                                                           0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb,
                                                           0xcc, 0xdd, 0xee, 0xff };

static void an_address_is_read_and_written_again(void **state)
{
    static const struct {
        const char *address, *host;
        uint16_t port;
        uint8_t region;
    } good[] = {
        { "node3.example:7400/1/" DIRECTORY, "node3.example", 7400, 1 },
        { "10.0.0.3:1/2/" DIRECTORY, "10.0.0.3", 1, 2 },
        { "[fd00::3]:65535/1/" DIRECTORY, "fd00::3", 65535, 1 },
        { ":7400/1/" DIRECTORY, "", 7400, 1 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct member m = { .node = 9, .role = MEMBER_VOTER };
        char again[MEMBER_ADDRESS_BYTES];

        assert_null(member_parse(good[i].address, &m));
        assert_string_equal(m.host, good[i].host);
        assert_int_equal(m.port, good[i].port);
        assert_int_equal(m.region, good[i].region);
        assert_memory_equal(m.directory_id, directory, sizeof directory);
        assert_int_equal(m.node, 9);
        assert_int_equal(m.role, MEMBER_VOTER);
        assert_null(member_format(&m, again));
        assert_string_equal(again, good[i].address);
    }
}

static void a_node_on_its_own_has_an_empty_address(void **state)
{
    struct member m = { .node = 1, .port = 7, .region = 1 };
    char address[MEMBER_ADDRESS_BYTES] = "x";

    (void)state;
    assert_null(member_parse("", &m));
    assert_int_equal(m.region, 0);
    assert_int_equal(m.port, 0);
    assert_null(member_format(&m, address));
    assert_string_equal(address, "");
}

static void an_address_that_is_none_is_refused_in_words(void **state)
{
    static const struct {
        const char *address, *wrong;
    } bad[] = {
        { "node3", "the port is missing" },
        { "[fd00::3:7400/1/" DIRECTORY, "bracket is not closed" },
        { "[fd00::3]7400/1/" DIRECTORY, "the port is missing" },
        { "[node]:7400/1/" DIRECTORY, "no IPv6 address" },
        { "[]:7400/1/" DIRECTORY, "no IPv6 address" },
        { "fd00::3:7400/1/" DIRECTORY, "not a number" },
        { "a b:7400/1/" DIRECTORY, "characters that no name has" },
        { "a/b:7400/1/" DIRECTORY, "characters that no name has" },
        { "n:0/1/" DIRECTORY, "not a number from 1" },
        { "n:65536/1/" DIRECTORY, "not a number from 1" },
        { "n:99999999999999999999/1/" DIRECTORY, "not a number from 1" },
        { "n:/1/" DIRECTORY, "not a number from 1" },
        { "n:-1/1/" DIRECTORY, "not a number from 1" },
        { "n:7400", "no slash and region" },
        { "n:7400/", "neither 1 nor 2" },
        { "n:7400/0/" DIRECTORY, "neither 1 nor 2" },
        { "n:7400/3/" DIRECTORY, "neither 1 nor 2" },
        { "n:7400/12/" DIRECTORY, "neither 1 nor 2" },
        { "n:7400/1", "no slash and directory" },
        { "n:7400/1/", "not 32 hex digits" },
        { "n:7400/1/" DIRECTORY "0", "not 32 hex digits" },
        { "n:7400/1/0011223344556677889-aabbccddeeff", "not 32 hex digits" },
    };
    char lengthy[400];
    struct member m = { .node = 4, .port = 5 }, before = m;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *wrong = member_parse(bad[i].address, &m);

        assert_non_null(wrong);
        if (strstr(wrong, bad[i].wrong) == NULL)
            fail_msg("%s: %s", bad[i].address, wrong);
        assert_memory_equal(&m, &before, sizeof m);
    }
    memset(lengthy, 'n', sizeof lengthy);
    snprintf(lengthy + MEMBER_HOST_MAX + 1, sizeof lengthy - MEMBER_HOST_MAX - 1, ":7/1/%s",
             DIRECTORY);
    assert_non_null(strstr(member_parse(lengthy, &m), "longer than 253"));
    assert_null(member_parse(lengthy + 1, &m));
    assert_int_equal(strlen(m.host), MEMBER_HOST_MAX);
}

/* Bytes that came from anywhere: cut short, longer, and with any byte changed. */
static void any_string_can_be_read(void **state)
{
    char address[] = "[fd00::3]:7400/1/" DIRECTORY;
    size_t n = strlen(address);

    (void)state;
    for (size_t at = 0; at < n; at++) {
        char *copy = strdup(address), *begin = strndup(address, at);
        struct member m;

        assert_non_null(copy);
        assert_non_null(begin);
        assert_true((member_parse(begin, &m) == NULL) == (at == 0));
        free(begin);
        for (int byte = 0; byte < 256; byte++) {
            copy[at] = (char)byte;
            (void)member_parse(copy, &m);
        }
        free(copy);
    }
}

static struct member some_member(uint16_t node)
{
    struct member m = { .node = node, .role = MEMBER_VOTER, .port = 7400, .region = 1 };

    snprintf(m.host, sizeof m.host, "n%u", node);
    m.directory_id[0] = (uint8_t)node;
    return m;
}

static void members_become_the_engines_bytes_and_come_back(void **state)
{
    struct member m[CLUSTER_MEMBERS_MAX], again[CLUSTER_MEMBERS_MAX];
    uint8_t bytes[PEER_CONFIGURATION_BYTES_MAX];
    int n;

    (void)state;
    for (unsigned i = 0; i < CLUSTER_MEMBERS_MAX; i++)
        m[i] = some_member((uint16_t)(9 - i));
    m[2].role = MEMBER_STANDBY;
    memset(m[3].host, 'h', MEMBER_HOST_MAX);
    n = members_encode(m, CLUSTER_MEMBERS_MAX, bytes, sizeof bytes);
    assert_true(n > 0 && n % 8 == 0);
    assert_null(peer_configuration_check(bytes, (size_t)n));
    assert_int_equal(members_list(bytes, (size_t)n, again), CLUSTER_MEMBERS_MAX);
    for (unsigned i = 0; i < CLUSTER_MEMBERS_MAX; i++) {
        assert_true(member_same(&m[i], &again[i]));
        assert_int_equal(m[i].role, again[i].role);
    }
    assert_ptr_equal(members_find(again, CLUSTER_MEMBERS_MAX, 7), &again[2]);
    assert_null(members_find(again, CLUSTER_MEMBERS_MAX, 1));
    assert_int_equal(members_voters(again, CLUSTER_MEMBERS_MAX), CLUSTER_MEMBERS_MAX - 1);
    assert_int_equal(members_encode(m, 3, bytes, 10), -ENOBUFS);
}

/* What a cluster of one has begun with since its first version. */
static void a_cluster_of_one_has_the_bytes_that_it_always_had(void **state)
{
    const struct member self = { .node = 5, .role = MEMBER_VOTER };
    struct raft_configuration c;
    struct raft_buffer old;
    uint8_t bytes[64];
    struct member again[CLUSTER_MEMBERS_MAX];

    (void)state;
    raft_configuration_init(&c);
    assert_int_equal(raft_configuration_add(&c, 5, "", RAFT_VOTER), 0);
    assert_int_equal(raft_configuration_encode(&c, &old), 0);
    assert_int_equal(members_encode(&self, 1, bytes, sizeof bytes), old.len);
    assert_memory_equal(bytes, old.base, old.len);
    assert_int_equal(members_list(bytes, old.len, again), 1);
    assert_true(member_same(&self, &again[0]));
    raft_free(old.base);
    raft_configuration_close(&c);
}

static void members_that_cannot_be_are_not_encoded(void **state)
{
    struct member m[3] = { some_member(1), some_member(2), some_member(3) };
    uint8_t bytes[PEER_CONFIGURATION_BYTES_MAX];

    (void)state;
    assert_true(members_encode(m, 3, bytes, sizeof bytes) > 0);
    assert_int_equal(members_encode(m, 0, bytes, sizeof bytes), -EINVAL);
    m[2].node = 2; /* twice */
    assert_int_equal(members_encode(m, 3, bytes, sizeof bytes), -EINVAL);
    m[2] = some_member(3);
    memcpy(m[2].directory_id, m[0].directory_id, sizeof m[2].directory_id);
    assert_int_equal(members_encode(m, 3, bytes, sizeof bytes), -EINVAL);
    m[2] = m[1];
    m[2].node = 3; /* at the same address; both directories are not known */
    memset(m[1].directory_id, 0, sizeof m[1].directory_id);
    memset(m[2].directory_id, 0, sizeof m[2].directory_id);
    assert_int_equal(members_encode(m, 3, bytes, sizeof bytes), -EINVAL);
    m[2] = some_member(0);
    assert_int_equal(members_encode(m, 3, bytes, sizeof bytes), -EINVAL);
    m[2] = some_member(3);
    m[2].port = 0;
    assert_int_equal(members_encode(m, 3, bytes, sizeof bytes), -EINVAL);
    m[2] = some_member(3);
    snprintf(m[2].host, sizeof m[2].host, "a/b");
    assert_int_equal(members_encode(m, 3, bytes, sizeof bytes), -EINVAL);
}

static void a_configuration_that_is_not_ours_is_refused(void **state)
{
    static const struct {
        unsigned long long id;
        const char *address;
        int role;
    } bad[] = {
        { 65536, "n:7/1/" DIRECTORY, RAFT_VOTER },
        { 4, "n:7/1/" DIRECTORY, RAFT_SPARE },
        { 4, "elsewhere", RAFT_VOTER },
    };
    struct member m[CLUSTER_MEMBERS_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct raft_configuration c;
        struct raft_buffer b;

        raft_configuration_init(&c);
        assert_int_equal(raft_configuration_add(&c, bad[i].id, bad[i].address, bad[i].role), 0);
        assert_int_equal(raft_configuration_encode(&c, &b), 0);
        assert_null(peer_configuration_check(b.base, b.len));
        assert_int_equal(members_list(b.base, b.len, m), -EBADMSG);
        raft_free(b.base);
        raft_configuration_close(&c);
    }
}

static void more_members_than_there_may_be_are_refused(void **state)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    struct raft_configuration c;
    struct raft_buffer b;

    (void)state;
    raft_configuration_init(&c);
    for (unsigned i = 1; i <= CLUSTER_MEMBERS_MAX + 1; i++) {
        struct member one = some_member((uint16_t)i);
        char address[MEMBER_ADDRESS_BYTES];

        assert_null(member_format(&one, address));
        assert_int_equal(raft_configuration_add(&c, i, address, RAFT_VOTER), 0);
    }
    assert_int_equal(raft_configuration_encode(&c, &b), 0);
    assert_int_equal(members_list(b.base, b.len, m), -EBADMSG);
    raft_free(b.base);
    raft_configuration_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_is_read_and_written_again),
        cmocka_unit_test(a_node_on_its_own_has_an_empty_address),
        cmocka_unit_test(an_address_that_is_none_is_refused_in_words),
        cmocka_unit_test(any_string_can_be_read),
        cmocka_unit_test(members_become_the_engines_bytes_and_come_back),
        cmocka_unit_test(a_cluster_of_one_has_the_bytes_that_it_always_had),
        cmocka_unit_test(members_that_cannot_be_are_not_encoded),
        cmocka_unit_test(a_configuration_that_is_not_ours_is_refused),
        cmocka_unit_test(more_members_than_there_may_be_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
