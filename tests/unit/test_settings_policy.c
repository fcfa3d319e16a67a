/*
 * test_settings_policy.c - the settings' networks and their shadow: one key a network, at most so
 * many, the shadow laid over what is in force as its changes one by one would be; and thousands of
 * random changes of any kind, which are deterministic, can be listed and can be taken back.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/settings.h"
#include "tests/lib/settings_rig.h"

static struct settings s;

static int set_up(void **state)
{
    settings_init(&s);
    return 0;
}

static void takes(const char *key, const char *value) { settings_takes(&s, key, value); }

static void refuses(const char *key, const char *value, const char *says)
{
    settings_refuses(&s, key, value, says);
}

static void lists(const char *key, const char *value)
{
    const char *is = settings_listed(&s, key);

    if (is == NULL)
        fail_msg("%s is not listed", key);
    assert_string_equal(is, value);
}

/* --- sources -----------------------------------------------------------------------------------
 */

/* Sorted, no two alike, nothing behind them; and the padding is zero. */
static void sources_are_in_order(const struct settings_policy *p, bool none_is_there)
{
    static const uint8_t zero[sizeof p->source];

    assert_true(p->sources <= SETTINGS_SOURCES_MAX);
    for (uint32_t i = 0; i < p->sources; i++) {
        const struct settings_source *x = &p->source[i];
        int order = i == 0 ? -1 : memcmp(x[-1].ip, x->ip, sizeof x->ip);

        assert_true(order < 0 || (order == 0 && x[-1].bits < x->bits));
        assert_true(x->bits <= 128 && x->verdict <= SETTINGS_SOURCE_DENY);
        assert_true(x->verdict != SETTINGS_SOURCE_NONE || none_is_there);
        assert_true(x->zero[0] == 0 && x->zero[1] == 0);
    }
    assert_memory_equal(&p->source[p->sources], zero,
                        (SETTINGS_SOURCES_MAX - p->sources) * sizeof *p->source);
}

static void a_network_has_one_key_however_it_is_written(void **state)
{
    static const struct {
        const char *written, *same, *listed;
        uint8_t bits;
    } rows[] = {
        { "source.10.0.0.0/8", "source.10.0.0.0/8", "source.10.0.0.0/8", 104 },
        { "source.0.0.0.0/0", "source.0.0.0.0/0", "source.0.0.0.0/0", 96 },
        { "source.192.0.2.7", "source.192.0.2.7/32", "source.192.0.2.7/32", 128 },
        { "source.2001:DB8::/32", "source.2001:db8:0:0::/32", "source.2001:db8::/32", 32 },
        { "source.2001:0db8:0:0:0:0:0:1", "source.2001:db8::1/128", "source.2001:db8::1/128", 128 },
        { "source.::/0", "source.0:0:0:0:0:0:0:0/0", "source.::/0", 0 },
        { "source.::1", "source.0::1/128", "source.::1/128", 128 },
        { "source.::fffe:0:0/95", "source.::fffe:0:0/95", "source.::fffe:0:0/95", 95 },
        { "source.ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
          "source.ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255",
          "source.ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", 128 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        takes(rows[i].written, "allow");
        assert_int_equal(s.policy.sources, 1);
        assert_int_equal(s.policy.source[0].verdict, SETTINGS_SOURCE_ALLOW);
        assert_int_equal(s.policy.source[0].bits, rows[i].bits);
        takes(rows[i].same, "deny");
        assert_int_equal(s.policy.sources, 1);
        assert_int_equal(s.policy.source[0].verdict, SETTINGS_SOURCE_DENY);
        lists(rows[i].listed, "deny");
        settings_rebuild(&s);
        takes(rows[i].same, "");
        sources_are_in_order(&s.policy, false);
        assert_int_equal(s.policy.sources, 0);
        takes(rows[i].written, ""); /* not listed: nothing to take back, and no error */
    }
    takes("source.192.0.2.7", "deny");
    assert_memory_equal(s.policy.source[0].ip, "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\7", 16);
}

static void what_is_no_network_is_refused_with_what_it_would_be(void **state)
{
    static const char *const none[] = { "source.",
                                        "source.10",
                                        "source.10.0.0",
                                        "source.10.0.0.256",
                                        "source./8",
                                        "source.10.0.0.0.0/8",
                                        "source.010.0.0.0/8",
                                        "source.example.com",
                                        "source.fe80::1%eth0",
                                        "source.::g",
                                        "source.1:2:3:4:5:6:7:8:9",
                                        "source. 10.0.0.0/8",
                                        "shadow.source.x" };

    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        refuses(none[i], "allow", "not an IPv4 or IPv6 address or network");
    refuses("source.10.0.0.0/33", "allow", "0 to 32 bits, not \"33\"");
    refuses("source.10.0.0.0/", "allow", "0 to 32 bits");
    refuses("source.10.0.0.0/08", "allow", "0 to 32 bits");
    refuses("source.10.0.0.0/8/8", "allow", "0 to 32 bits");
    refuses("source.10.0.0.0/-1", "allow", "0 to 32 bits");
    refuses("source.fd00::/129", "allow", "0 to 128 bits");
    refuses("source.fd00::/18446744073709551617", "allow", "0 to 128 bits");
    refuses("source.10.0.0.1/8", "allow", "it would be source.10.0.0.0/8");
    refuses("source.255.255.255.255/0", "allow", "it would be source.0.0.0.0/0");
    refuses("source.192.0.2.3/31", "allow", "it would be source.192.0.2.2/31");
    refuses("source.2001:db8::1/127", "", "it would be source.2001:db8::/127");
    refuses("shadow.source.fd00:1::/16", "none", "it would be shadow.source.fd00::/16");
    refuses("source.::ffff:10.0.0.0/104", "allow", "as IPv4");
    refuses("source.::ffff:a00:1", "allow", "as IPv4");
    refuses("source.::ffff:0:0/96", "allow", "as IPv4");
    refuses("source.::ffff:1.2.3.4/64", "allow", "as IPv4");
    refuses("source.10.0.0.0/8", "none", "must be allow or deny");
    refuses("source.10.0.0.0/8", "Allow", "must be allow or deny");
    refuses("shadow.source.10.0.0.0/8", "drop", "must be allow, deny or none");
}

static void sources_are_sorted_whatever_order_they_come_in(void **state)
{
    static const char *const keys[] = { "source.10.0.0.0/8", "source.10.0.0.0/16",
                                        "source.fd00::/8",   "source.10.0.0.0",
                                        "source.::/0",       "source.9.9.9.9",
                                        "source.fd00::/16",  "source.0.0.0.0/0" };
    static const char *const sorted[] = { "source.::/0",        "source.0.0.0.0/0",
                                          "source.9.9.9.9/32",  "source.10.0.0.0/8",
                                          "source.10.0.0.0/16", "source.10.0.0.0/32",
                                          "source.fd00::/8",    "source.fd00::/16" };
    const struct settings_lines *l;

    for (size_t i = 0; i < 8; i++)
        takes(keys[i], i % 2 ? "allow" : "deny");
    sources_are_in_order(&s.policy, false);
    l = settings_lines(&s);
    assert_int_equal(l->n, 20 + 8);
    for (size_t i = 0; i < 8; i++) {
        assert_string_equal(l->at[16 + i].key, sorted[i]);
        assert_string_equal(l->at[16 + i].value_default, "");
    }
    takes("source.10.0.0.0/16", "");
    assert_int_equal(s.policy.sources, 7);
    assert_null(settings_listed(&s, "source.10.0.0.0/16"));
    lists("source.10.0.0.0/8", "deny");
    lists("source.10.0.0.0/32", "allow");
    sources_are_in_order(&s.policy, false);
}

static void a_full_list_takes_changes_of_what_it_has_and_no_more(void **state)
{
    char key[SETTINGS_KEY_BYTES];

    for (uint32_t i = 0; i < SETTINGS_SOURCES_MAX; i++) { /* half of them in the shadow alone */
        snprintf(key, sizeof key, "%ssource.10.%u.0.0/16", i % 2 ? "shadow." : "", i);
        takes(key, "deny");
    }
    refuses("source.11.0.0.0/8", "allow", "there are 256 networks");
    refuses("shadow.source.11.0.0.0/8", "none", "there are 256 networks");
    takes("source.11.0.0.0/8", ""); /* is not there, and needs no room */
    takes("source.10.0.0.0/16", "allow");
    takes("shadow.source.10.0.0.0/16", "allow"); /* each network counts once */
    takes("source.10.1.0.0/16", "allow");
    takes("shadow.source.10.1.0.0/16", "none");
    refuses("source.11.0.0.0/8", "allow", "there are 256 networks");
    settings_rebuild(&s);
    takes("source.10.1.0.0/16", "");
    refuses("source.11.0.0.0/8", "allow", "there are 256 networks"); /* the shadow has it still */
    takes("shadow.source.10.1.0.0/16", "");
    takes("source.11.0.0.0/8", "allow");
    refuses("shadow.source.12.0.0.0/8", "allow", "there are 256 networks");
    takes("shadow", "promote");
    assert_int_equal(s.policy.sources, SETTINGS_SOURCES_MAX);
    sources_are_in_order(&s.policy, false);
    refuses("source.12.0.0.0/8", "allow", "there are 256 networks");
    refuses("shadow.source.12.0.0.0/8", "allow", "there are 256 networks");
    settings_rebuild(&s);
}

/* --- the shadow --------------------------------------------------------------------------------
 */

static struct settings_policy shadow_of(const struct settings *of)
{
    struct settings_policy p;

    assert_true(settings_shadow(of, &p));
    return p;
}

static void the_shadow_is_laid_over_what_is_in_force_then(void **state)
{
    struct settings_policy before = s.policy, p;

    takes("shadow.admit.trade", "sample 4");
    takes("shadow.class.quote", "3");
    takes("shadow.limit.source_per_s", "500");
    assert_memory_equal(&s.policy, &before, sizeof before); /* nothing of it is in force */
    takes("class.trade", "2");                              /* later changes show through ... */
    takes("admit.quote", "drop");
    takes("limit.source_burst", "5");
    takes("admit.trade", "rate 9"); /* ... but not where the shadow says something */
    p = shadow_of(&s);
    assert_int_equal(p.type[1].action, SETTINGS_SAMPLE);
    assert_int_equal(p.type[1].number, 4);
    assert_int_equal(p.type[1].burst, 0);
    assert_int_equal(p.type[1].class, 2);
    assert_int_equal(p.type[2].action, SETTINGS_DROP);
    assert_int_equal(p.type[2].class, 3);
    assert_int_equal(p.source_per_s, 500);
    assert_int_equal(p.source_burst, 5);
    takes("shadow.admit.trade", "");
    p = shadow_of(&s);
    assert_int_equal(p.type[1].action, SETTINGS_RATE);
    takes("shadow.class.quote", "");
    takes("shadow.limit.source_per_s", "");
    assert_false(settings_shadow(&s, &p));
    assert_int_equal(p.type[1].action, SETTINGS_RATE); /* untouched */
    refuses("shadow.admit.trade", "sample 1", "shadow.admit.trade must be accept, drop");
    refuses("shadow.class.trade", "4", "shadow.class.trade must be 0");
    refuses("shadow.class.weather", "1", "shadow.class.weather: there is no type");
    refuses("shadow.limit.syn_burst", "0", "shadow.limit.syn_burst must be a number from 1");
    refuses("shadow.limit.syn_per_s", "1000001", "from 0 to 1000000");
}

static void the_shadow_of_sources_adds_changes_and_removes(void **state)
{
    struct settings_policy p;

    takes("source.10.0.0.0/8", "allow");
    takes("source.10.1.0.0/16", "deny");
    takes("source.10.2.0.0/16", "deny");
    takes("shadow.source.10.1.0.0/16", "none");
    takes("shadow.source.10.2.0.0/16", "allow");
    takes("shadow.source.10.0.0.0/16", "deny");
    takes("shadow.source.192.0.2.0/24", "none"); /* not listed: nothing to remove yet */
    p = shadow_of(&s);
    assert_int_equal(p.sources, 3);
    sources_are_in_order(&p, false);
    assert_int_equal(p.source[1].bits, 112);
    assert_int_equal(p.source[1].verdict, SETTINGS_SOURCE_DENY);
    assert_int_equal(p.source[2].verdict, SETTINGS_SOURCE_ALLOW);
    assert_int_equal(s.policy.sources, 3);
    lists("shadow.source.192.0.2.0/24", "none");
    takes("source.192.0.2.0/24", "allow"); /* now there is, and the shadow removes it */
    p = shadow_of(&s);
    assert_int_equal(p.sources, 3);
    takes("shadow.source.192.0.2.0/24", "");
    p = shadow_of(&s);
    assert_int_equal(p.sources, 4);
    takes("shadow", "promote");
    assert_memory_equal(&s.policy, &p, sizeof p);
}

static void promote_takes_all_of_it_and_discard_none(void **state)
{
    static const char *const keys[] = { "admit.trade", "class.64",        "source.fd00::/8",
                                        "admit.quote", "limit.syn_per_s", "limit.source_burst" };
    static const char *const values[] = { "drop", "1", "deny", "rate 100 burst 7", "9", "8" };
    struct settings_policy before, p;
    struct settings one_by_one;
    char key[SETTINGS_KEY_BYTES];

    refuses("shadow", "promote", "there is no shadow to promote");
    takes("shadow", "discard");
    takes("limit.syn_per_s", "3");
    before = s.policy;
    for (int round = 0; round < 2; round++) {
        one_by_one = s;
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
            snprintf(key, sizeof key, "shadow.%s", keys[i]);
            takes(key, values[i]);
            assert_int_equal(settings_apply(&one_by_one, keys[i], values[i]), 0);
        }
        assert_memory_equal(&s.policy, &before, sizeof before);
        takes("shadow", round == 0 ? "discard" : "promote");
        assert_false(settings_shadow(&s, &p));
        assert_null(settings_listed(&s, "shadow.admit.trade"));
        if (round == 0)
            assert_memory_equal(&s.policy, &before, sizeof before);
    }
    assert_memory_equal(&s, &one_by_one, sizeof s);
    refuses("shadow", "promote", "there is no shadow to promote");
    refuses("shadow", "", "promote or discard");
    refuses("shadow", "Promote", "promote or discard");
    refuses("shadow", "promote ", "promote or discard");
}

/* --- random changes ----------------------------------------------------------------------------
 */

static const char *pick(const char *const *from, size_t n) { return from[(size_t)rand() % n]; }
#define PICK(array) pick(array, sizeof(array) / sizeof *(array))

static void random_network(char *ret, size_t bytes)
{
    unsigned v4_bits = 8 + (unsigned)rand() % 3 * 8, v6_bits = 16 + (unsigned)rand() % 3 * 16;

    switch (rand() % 4) {
    case 0:
        snprintf(ret, bytes, "10.%d.%d.0/24", rand() % 4, rand() % 40);
        break;
    case 1:
        snprintf(ret, bytes, "%d.0.0.0/%u", rand() % 40, v4_bits);
        break;
    case 2:
        snprintf(ret, bytes, "FD%02x::/%u", rand() % 40, v6_bits);
        break;
    default:
        snprintf(ret, bytes, "fd00::%x", rand() % 40);
    }
}

static void random_change(char key[SETTINGS_KEY_BYTES], const char **ret_value)
{
    static const char *const names[] = { "a", "b", "trade", "orderbook", "64", "65", "99" };
    static const char *const admissions[] = { "accept", "drop",           "sample 3", "rate 30",
                                              "rate 1", "rate 8 burst 9", "",         "x" };
    static const char *const classes[] = { "0", "1", "2", "3", "4", "" };
    static const char *const verdicts[] = { "allow", "deny", "deny", "none", "" };
    static const char *const limits[] = { "limit.source_per_s", "limit.source_burst",
                                          "limit.syn_per_s", "limit.syn_burst", "limit.x" };
    static const char *const numbers[] = { "64", "65", "", "0", "5000", "x" };
    static const char *const others[] = { "type.a",         "type.b",          "skew.past_ms",
                                          "skew.future_ms", "event.bytes_max", "nonsense" };
    const char *before = rand() % 2 ? "shadow." : "";
    char network[SETTINGS_KEY_BYTES / 2];

    switch (rand() % 10) {
    case 0:
        snprintf(key, SETTINGS_KEY_BYTES, "%sadmit.%s", before, PICK(names));
        *ret_value = PICK(admissions);
        break;
    case 1:
        snprintf(key, SETTINGS_KEY_BYTES, "%sclass.%s", before, PICK(names));
        *ret_value = PICK(classes);
        break;
    case 2:
        snprintf(key, SETTINGS_KEY_BYTES, "%s%s", before, PICK(limits));
        *ret_value = PICK(numbers);
        break;
    case 3:
        snprintf(key, SETTINGS_KEY_BYTES, "%s", PICK(others));
        *ret_value = PICK(numbers);
        break;
    default:
        random_network(network, sizeof network);
        snprintf(key, SETTINGS_KEY_BYTES, "%ssource.%s", before, network);
        *ret_value = PICK(verdicts);
    }
}

/* The shadow is what its lines, one by one, would make of what is in force. */
static void the_shadow_is_its_lines(void)
{
    static struct settings one_by_one;
    static struct settings_policy p;
    const struct settings_lines *l = settings_lines(&s);
    uint32_t changes = 0;

    one_by_one = s;
    assert_int_equal(settings_apply(&one_by_one, "shadow", "discard"), 0);
    for (uint32_t i = 0; i < l->n; i++) {
        const char *value = strcmp(l->at[i].value, "none") == 0 ? "" : l->at[i].value;

        if (strncmp(l->at[i].key, "shadow.", 7) != 0)
            continue;
        assert_int_equal(settings_apply(&one_by_one, l->at[i].key + 7, value), 0);
        changes++;
    }
    assert_int_equal(settings_shadow(&s, &p), changes > 0);
    if (changes > 0)
        assert_memory_equal(&one_by_one.policy, &p, sizeof p);
    if (changes > 0 && rand() % 50 == 0) {
        takes("shadow", "promote");
        assert_memory_equal(&s, &one_by_one, sizeof s);
    }
}

/* Whatever happened before, taking every line back leads to the defaults. */
static void take_all_back(void)
{
    static struct settings fresh;
    static struct settings_lines l;

    l = *settings_lines(&s);
    for (uint32_t i = l.n; i > 0; i--) /* the names last */
        takes(l.at[i - 1].key, "");
    settings_init(&fresh);
    assert_memory_equal(&s, &fresh, sizeof s);
}

static void random_changes_are_deterministic_can_be_listed_and_taken_back(void **state)
{
    char error[SETTINGS_ERROR_BYTES];
    static struct settings other;
    uint32_t taken = 0, full = 0;

    settings_init(&other);
    srand(7);
    for (int i = 0; i < 20000; i++) {
        char key[SETTINGS_KEY_BYTES];
        const char *value;
        int checked;

        random_change(key, &value);
        checked = settings_check(&s, key, value, error);
        assert_int_equal(settings_apply(&s, key, value), checked);
        assert_int_equal(settings_apply(&other, key, value), checked);
        assert_memory_equal(&s, &other, sizeof s);
        taken += checked == 0;
        full += checked != 0 && strstr(error, "there are 256 networks") != NULL;
        if (i % 8 != 0)
            continue;
        sources_are_in_order(&s.policy, false);
        sources_are_in_order(&s.shadow.value, true);
        settings_rebuild(&s);
        the_shadow_is_its_lines();
        other = s;
        if (i % 4000 == 3992) {
            take_all_back();
            settings_init(&other);
        }
    }
    assert_true(taken > 10000);
    assert_true(full > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_network_has_one_key_however_it_is_written, set_up),
        cmocka_unit_test_setup(what_is_no_network_is_refused_with_what_it_would_be, set_up),
        cmocka_unit_test_setup(sources_are_sorted_whatever_order_they_come_in, set_up),
        cmocka_unit_test_setup(a_full_list_takes_changes_of_what_it_has_and_no_more, set_up),
        cmocka_unit_test_setup(the_shadow_is_laid_over_what_is_in_force_then, set_up),
        cmocka_unit_test_setup(the_shadow_of_sources_adds_changes_and_removes, set_up),
        cmocka_unit_test_setup(promote_takes_all_of_it_and_discard_none, set_up),
        cmocka_unit_test_setup(random_changes_are_deterministic_can_be_listed_and_taken_back,
                               set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
