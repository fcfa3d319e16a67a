/*
 * test_admission.c - the policy of settings and file in the form that is looked at: which network
 * decides, and what becomes of every action, limit and shadow.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "ingest/admission.h"
#include "tests/lib/frames.h"
#include "tests/lib/ingest_rig.h"
#include "tests/lib/settings_rig.h"

static struct settings settings;
static struct config_networks file;
static struct admission admission;

static int set_up(void **state)
{
    settings_init(&settings);
    memset(&file, 0, sizeof file);
    memset(&admission, 0xa5, sizeof admission); /* admission_init() leaves nothing of it */
    return 0;
}

static void set(const char *key, const char *value) { settings_takes(&settings, key, value); }

/* bits: as people write them, so an IPv4 /8 is 8. */
static void file_allows(const char *address, unsigned bits)
{
    assert_true(file.n < CONFIG_NETWORKS_MAX);
    file.at[file.n++] = (struct config_network){
        .ip = frame_address(address),
        .bits = strchr(address, ':') ? bits : bits + 96,
    };
}

static void make(void) { admission_init(&admission, &settings, &file); }

static unsigned rule_of(unsigned which, const char *address)
{
    struct in6_addr ip = frame_address(address);

    return admission_source(&admission.sources[which], &ip);
}

static unsigned rule(const char *address) { return rule_of(POLICY_ACTIVE, address); }

/* --- sources ------------------------------------------------------------------------------------
 */

static void without_networks_nobody_is_listed(void **state)
{
    (void)state;
    make();
    assert_int_equal(admission.sources[POLICY_ACTIVE].n, 0);
    assert_int_equal(rule("127.0.0.1"), 0);
    assert_int_equal(rule("::1"), 0);
}

static void the_longest_network_decides_in_whatever_order_they_come(void **state)
{
    static const char *const keys[] = {
        "source.10.0.0.0/8",      "source.10.1.0.0/16",   "source.10.1.2.0/24",
        "source.10.1.2.128/25",   "source.10.1.2.200/32", "source.2001:db8::/32",
        "source.2001:db8:1::/48", "source.2001:db8:1::5",
    };
    enum { N = sizeof keys / sizeof keys[0] };
    uint64_t seed = 1;

    (void)state;
    for (unsigned round = 0; round < 20; round++) {
        const char *order[N];

        set_up(NULL);
        memcpy(order, keys, sizeof order);
        for (unsigned i = N; i > 1; i--) { /* Fisher-Yates */
            unsigned j = (unsigned)(rig_random(&seed) % i);
            const char *k = order[j];

            order[j] = order[i - 1];
            order[i - 1] = k;
        }
        for (unsigned i = 0; i < N; i++) {
            unsigned place = 0;

            while (strcmp(keys[place], order[i]) != 0)
                place++;
            set(order[i], (place < 5 ? place : place - 5) % 2 == 0 ? "allow" : "deny");
        }
        make();
        assert_int_equal(rule("9.255.255.255"), 0);
        assert_int_equal(rule("10.0.0.0"), SOURCE_ALLOW);
        assert_int_equal(rule("10.255.255.255"), SOURCE_ALLOW);
        assert_int_equal(rule("10.1.0.1"), SOURCE_DENY); /* deny in allow */
        assert_int_equal(rule("10.1.2.127"), SOURCE_ALLOW);
        assert_int_equal(rule("10.1.2.128"), SOURCE_DENY);
        assert_int_equal(rule("10.1.2.200"), SOURCE_ALLOW);
        assert_int_equal(rule("10.1.2.201"), SOURCE_DENY);
        assert_int_equal(rule("11.0.0.0"), 0);
        assert_int_equal(rule("2001:db8::1"), SOURCE_ALLOW);
        assert_int_equal(rule("2001:db8:1::4"), SOURCE_DENY);
        assert_int_equal(rule("2001:db8:1::5"), SOURCE_ALLOW);
        assert_int_equal(rule("2001:db9::"), 0);
    }
}

static void ipv6_networks_hold_no_ipv4_and_the_other_way_round(void **state)
{
    (void)state;
    set("source.::/0", "allow");
    make();
    assert_int_equal(rule("2001:db8::1"), SOURCE_ALLOW);
    assert_int_equal(rule("::1"), SOURCE_ALLOW);
    assert_int_equal(rule("192.0.2.1"), 0);
    assert_int_equal(rule("0.0.0.0"), 0);
    set("source.0.0.0.0/0", "deny");
    make();
    assert_int_equal(rule("192.0.2.1"), SOURCE_DENY);
    assert_int_equal(rule("2001:db8::1"), SOURCE_ALLOW);
    assert_int_equal(rule("::"), SOURCE_ALLOW);
    set_up(NULL);
    /* The file says the same in its own form; one IPv6 network that ends in the mapped prefix. */
    file_allows("::", 0);
    make();
    assert_int_equal(rule("192.0.2.1"), 0);
    assert_int_equal(rule("2001:db8::1"), SOURCE_ALLOW);
    file_allows("::", 80);
    make();
    assert_int_equal(rule("192.0.2.1"), 0);
    file_allows("0.0.0.0", 0);
    make();
    assert_int_equal(rule("192.0.2.1"), SOURCE_ALLOW);
}

static void of_one_network_in_both_the_settings_count(void **state)
{
    (void)state;
    file_allows("192.0.2.0", 24);
    file_allows("2001:db8::", 32);
    set("source.192.0.2.0/24", "deny");
    make();
    assert_int_equal(admission.sources[POLICY_ACTIVE].n, 2);
    assert_int_equal(rule("192.0.2.9"), SOURCE_DENY);
    assert_int_equal(rule("2001:db8::9"), SOURCE_ALLOW);
    /* A longer one of the file is not the same network. */
    file_allows("192.0.2.8", 29);
    make();
    assert_int_equal(rule("192.0.2.7"), SOURCE_DENY);
    assert_int_equal(rule("192.0.2.9"), SOURCE_ALLOW);
    assert_int_equal(rule("192.0.2.16"), SOURCE_DENY);
    set("source.192.0.2.0/24", "");
    make();
    assert_int_equal(rule("192.0.2.7"), SOURCE_ALLOW);
}

static void bits_behind_the_prefix_in_the_file_mean_nothing(void **state)
{
    (void)state;
    file_allows("192.0.2.77", 24);
    file_allows("192.0.2.78", 24); /* the same one again */
    file_allows("2001:db8::dead:beef", 32);
    file_allows("203.0.113.255", 0);
    make();
    assert_int_equal(admission.sources[POLICY_ACTIVE].n, 3);
    assert_int_equal(rule("192.0.2.1"), SOURCE_ALLOW);
    assert_int_equal(rule("2001:db8:ffff::"), SOURCE_ALLOW);
    assert_int_equal(rule("8.8.8.8"), SOURCE_ALLOW);
    set("source.192.0.2.0/24", "deny");
    make();
    assert_int_equal(admission.sources[POLICY_ACTIVE].n, 3);
    assert_int_equal(rule("192.0.2.77"), SOURCE_DENY);
}

static void that_something_is_denied_is_known(void **state)
{
    (void)state;
    file_allows("127.0.0.1", 32);
    set("source.10.0.0.0/8", "allow");
    make();
    assert_false(admission.sources[POLICY_ACTIVE].denies);
    set("shadow.source.10.0.0.0/8", "deny");
    make();
    assert_false(admission.sources[POLICY_ACTIVE].denies);
    assert_true(admission.sources[POLICY_SHADOW].denies);
    set("shadow", "promote");
    make();
    assert_true(admission.sources[POLICY_ACTIVE].denies);
}

/* A prefix compared bit by bit, over all that there are. */
struct plain {
    unsigned bits, rule;
    struct in6_addr ip;
};

static bool holds(const struct plain *p, const struct in6_addr *ip)
{
    if (p->bits >= 96 && IN6_IS_ADDR_V4MAPPED(&p->ip) ? !IN6_IS_ADDR_V4MAPPED(ip)
                                                      : IN6_IS_ADDR_V4MAPPED(ip))
        return false;
    for (unsigned i = 0; i < p->bits; i++) {
        if ((p->ip.s6_addr[i / 8] ^ ip->s6_addr[i / 8]) & 0x80 >> i % 8)
            return false;
    }
    return true;
}

static unsigned plain_rule(const struct plain *p, unsigned n, const struct in6_addr *ip)
{
    unsigned rule = 0, bits = 0;

    for (unsigned i = 0; i < n; i++) {
        if (holds(&p[i], ip) && (rule == 0 || p[i].bits > bits)) {
            rule = p[i].rule;
            bits = p[i].bits;
        }
    }
    return rule;
}

/* Few different addresses, so that networks lie within one another. */
static struct in6_addr address_random(uint64_t *seed)
{
    struct in6_addr ip = frame_address(rig_random(seed) % 2 ? "2001:db8::" : "10.0.0.0");

    for (unsigned i = IN6_IS_ADDR_V4MAPPED(&ip) ? 13 : 4; i < 16; i++) {
        if (rig_random(seed) % 3 == 0)
            ip.s6_addr[i] = (uint8_t)(rig_random(seed) % 4 * 0x55);
    }
    return ip;
}

/* As many as the settings and the file hold. Returns how many, the settings' first. */
static unsigned networks_random(uint64_t *seed, struct plain *plain)
{
    unsigned n = 0;

    while (settings.policy.sources < SETTINGS_SOURCES_MAX) {
        struct in6_addr ip = address_random(seed);
        bool v4 = IN6_IS_ADDR_V4MAPPED(&ip);
        unsigned bits = (unsigned)(rig_random(seed) % (v4 ? 33 : 129)) + (v4 ? 96 : 0);
        char text[INET6_ADDRSTRLEN], key[SETTINGS_KEY_BYTES];
        uint32_t before = settings.policy.sources;

        for (unsigned i = bits; i < 128; i++)
            ip.s6_addr[i / 8] &= (uint8_t) ~(0x80 >> i % 8);
        config_address_text(&ip, text);
        snprintf(key, sizeof key, "source.%s/%u", text, v4 ? bits - 96 : bits);
        plain[n] = (struct plain){ bits, 1 + (unsigned)(rig_random(seed) % 2), ip };
        if (settings_listed(&settings, key) != NULL)
            continue;
        set(key, plain[n].rule == SOURCE_ALLOW ? "allow" : "deny");
        n += settings.policy.sources > before;
    }
    while (file.n < CONFIG_NETWORKS_MAX) {
        struct in6_addr ip = address_random(seed);
        bool v4 = IN6_IS_ADDR_V4MAPPED(&ip);
        unsigned bits = (unsigned)(rig_random(seed) % (v4 ? 33 : 129)) + (v4 ? 96 : 0);

        file.at[file.n++] = (struct config_network){ ip, bits };
        plain[n++] = (struct plain){ bits, SOURCE_ALLOW, ip };
    }
    return n;
}

static void many_networks_decide_as_a_search_bit_by_bit_would(void **state)
{
    static struct plain plain[ADMISSION_RULES_MAX];
    unsigned seen[3] = { 0 };
    uint64_t seed = 7;
    unsigned n;

    (void)state;
    n = networks_random(&seed, plain);
    make();
    assert_int_equal(n, ADMISSION_RULES_MAX);
    for (unsigned i = 0; i < 20000; i++) {
        struct in6_addr ip = address_random(&seed);
        unsigned expected = plain_rule(plain, n, &ip);

        assert_int_equal(admission_source(&admission.sources[POLICY_ACTIVE], &ip), expected);
        seen[expected]++;
    }
    assert_true(seen[SOURCE_ALLOW] > 1000 && seen[SOURCE_DENY] > 1000);
}

/* --- types and limits ---------------------------------------------------------------------------
 */

static const struct policy_type *type(unsigned which, unsigned t)
{
    return &admission.policy[which].type[t];
}

static void fresh_settings_accept_what_is_built_in(void **state)
{
    (void)state;
    make();
    for (unsigned t = 0; t < POLICY_TYPES; t++) {
        bool built_in = t >= 1 && t <= 3;

        assert_int_equal(type(POLICY_ACTIVE, t)->action, built_in ? POLICY_ACCEPT : POLICY_UNKNOWN);
        assert_int_equal(type(POLICY_ACTIVE, t)->class, built_in ? t - 1 : 3);
    }
    assert_int_equal(admission.policy[POLICY_ACTIVE].source_interval_ns, 0);
    assert_int_equal(admission.policy[POLICY_ACTIVE].syn_interval_ns, 0);
    assert_false(admission.shadow);
    assert_memory_equal(&admission.policy[0], &admission.policy[1], sizeof admission.policy[0]);
    assert_memory_equal(&admission.settings, &settings, sizeof settings);
}

static void every_action_comes_with_its_numbers(void **state)
{
    (void)state;
    set("admit.trade", "drop");
    set("admit.quote", "sample 250");
    set("admit.orderbook", "rate 3");
    set("class.orderbook", "0");
    set("type.news", "70");
    set("admit.news", "rate 10000000 burst 10000000");
    set("admit.71", "rate 1 burst 10000000"); /* without a name it stays unknown */
    make();
    assert_int_equal(type(POLICY_ACTIVE, 1)->action, POLICY_DROP);
    assert_int_equal(type(POLICY_ACTIVE, 2)->action, POLICY_SAMPLE);
    assert_int_equal(type(POLICY_ACTIVE, 2)->every, 250);
    assert_int_equal(type(POLICY_ACTIVE, 3)->action, POLICY_RATE);
    assert_int_equal(type(POLICY_ACTIVE, 3)->class, 0);
    assert_int_equal(type(POLICY_ACTIVE, 3)->interval_ns, NS_PER_S / 3);
    assert_int_equal(type(POLICY_ACTIVE, 3)->burst_ns, NS_PER_S / 3); /* at least one */
    assert_int_equal(type(POLICY_ACTIVE, 70)->interval_ns, 100);
    assert_int_equal(type(POLICY_ACTIVE, 70)->burst_ns, NS_PER_S);
    assert_int_equal(type(POLICY_ACTIVE, 71)->action, POLICY_UNKNOWN);
    set("type.slow", "71");
    make();
    assert_int_equal(type(POLICY_ACTIVE, 71)->action, POLICY_RATE);
    assert_int_equal(type(POLICY_ACTIVE, 71)->burst_ns, 10000000 * NS_PER_S);
    set("type.slow", "");
    make();
    assert_int_equal(type(POLICY_ACTIVE, 71)->action, POLICY_UNKNOWN);
}

static void limits_are_intervals_and_zero_is_none(void **state)
{
    const struct policy *p = &admission.policy[POLICY_ACTIVE];

    (void)state;
    set("limit.source_per_s", "2000");
    set("limit.source_burst", "500");
    set("limit.syn_per_s", "1");
    make();
    assert_int_equal(p->source_interval_ns, 500000);
    assert_int_equal(p->source_burst_ns, 500 * 500000);
    assert_int_equal(p->syn_interval_ns, NS_PER_S);
    assert_int_equal(p->syn_burst_ns, 100 * NS_PER_S);
    set("limit.source_per_s", "0");
    make();
    assert_int_equal(p->source_interval_ns, 0);
}

static void the_shadow_is_what_is_in_force_with_its_changes(void **state)
{
    (void)state;
    file_allows("192.0.2.0", 24);
    file_allows("198.51.100.0", 24);
    set("source.10.0.0.0/8", "allow");
    set("source.192.0.2.7", "deny");
    set("admit.quote", "sample 4");
    set("shadow.source.10.1.0.0/16", "deny");
    set("shadow.source.192.0.2.7", "none");
    set("shadow.source.198.51.100.0/24", "none");
    set("shadow.admit.trade", "drop");
    set("shadow.class.quote", "0");
    set("shadow.limit.source_per_s", "100");
    make();
    assert_true(admission.shadow);
    assert_int_equal(rule("10.1.0.1"), SOURCE_ALLOW);
    assert_int_equal(rule_of(POLICY_SHADOW, "10.1.0.1"), SOURCE_DENY);
    assert_int_equal(rule_of(POLICY_SHADOW, "10.2.0.1"), SOURCE_ALLOW);
    assert_int_equal(rule("192.0.2.7"), SOURCE_DENY);
    assert_int_equal(rule_of(POLICY_SHADOW, "192.0.2.7"), SOURCE_ALLOW); /* by the file */
    /* "none" is not to be listed by the settings: the file's networks stay. */
    assert_int_equal(rule_of(POLICY_SHADOW, "198.51.100.1"), SOURCE_ALLOW);
    assert_int_equal(type(POLICY_ACTIVE, 1)->action, POLICY_ACCEPT);
    assert_int_equal(type(POLICY_SHADOW, 1)->action, POLICY_DROP);
    assert_int_equal(type(POLICY_SHADOW, 2)->every,
                     4); /* a change of something else shows through */
    assert_int_equal(type(POLICY_ACTIVE, 2)->class, 1);
    assert_int_equal(type(POLICY_SHADOW, 2)->class, 0);
    assert_int_equal(admission.policy[POLICY_ACTIVE].source_interval_ns, 0);
    assert_int_equal(admission.policy[POLICY_SHADOW].source_interval_ns, NS_PER_S / 100);
    set("shadow", "discard");
    make();
    assert_false(admission.shadow);
    assert_memory_equal(&admission.policy[0], &admission.policy[1], sizeof admission.policy[0]);
    assert_int_equal(rule_of(POLICY_SHADOW, "10.1.0.1"), SOURCE_ALLOW);
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(without_networks_nobody_is_listed),
        TEST(the_longest_network_decides_in_whatever_order_they_come),
        TEST(ipv6_networks_hold_no_ipv4_and_the_other_way_round),
        TEST(of_one_network_in_both_the_settings_count),
        TEST(bits_behind_the_prefix_in_the_file_mean_nothing),
        TEST(that_something_is_denied_is_known),
        TEST(many_networks_decide_as_a_search_bit_by_bit_would),
        TEST(fresh_settings_accept_what_is_built_in),
        TEST(every_action_comes_with_its_numbers),
        TEST(limits_are_intervals_and_zero_is_none),
        TEST(the_shadow_is_what_is_in_force_with_its_changes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
