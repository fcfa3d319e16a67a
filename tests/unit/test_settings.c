/*
 * test_settings.c - the replicated settings: what is taken, what is refused, that the shadow is
 * laid over what is in force as its changes one by one would be, and that applying is
 * deterministic.
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

static void durability_has_a_floor_for_each_type(void **state)
{
    lists("durability.trade", "quorum");
    lists("region.unreachable", "wait");
    lists("region.wait_ms", "2000");
    lists("region.stop_after_s", "0");
    takes("durability.trade", "region");
    lists("durability.trade", "region");
    assert_int_equal(s.durability[1], SETTINGS_REGION);
    assert_int_equal(s.durability[2], SETTINGS_QUORUM);
    assert_null(settings_listed(&s, "durability.99"));
    takes("durability.99", "region");
    takes("type.news", "99");
    lists("durability.news", "region");
    takes("durability.news", "");
    lists("durability.news", "quorum");
    refuses("durability.trade", "both", "must be quorum or region, not \"both\"");
    refuses("durability.nothing", "region", "there is no type of that name");
    refuses("shadow.durability.trade", "quorum", "there is no setting");
    takes("region.unreachable", "degrade");
    assert_int_equal(s.region_unreachable, SETTINGS_REGION_DEGRADE);
    refuses("region.unreachable", "lose", "must be wait, fail or degrade, not \"lose\"");
    takes("region.unreachable", "fail");
    takes("region.wait_ms", "60000");
    refuses("region.wait_ms", "9", "must be a number from 10 to 60000");
    settings_rebuild(&s);
    takes("region.unreachable", "");
    lists("region.unreachable", "wait");
}

static void defaults_are_as_documented(void **state)
{
    static struct settings_policy shadow;

    for (uint32_t t = 0; t < SETTINGS_TYPES; t++) {
        const struct settings_admit *a = &s.policy.type[t];

        assert_int_equal(s.known[t], t >= 1 && t <= 3);
        assert_int_equal(a->class, t >= 1 && t <= 3 ? t - 1 : 3);
        assert_true(a->action == SETTINGS_ACCEPT && a->number == 0 && a->burst == 0);
    }
    assert_int_equal(s.policy.source_per_s, 0);
    assert_int_equal(s.policy.source_burst, 1000);
    assert_int_equal(s.policy.syn_per_s, 0);
    assert_int_equal(s.policy.syn_burst, 100);
    assert_int_equal(s.policy.sources, 0);
    assert_false(settings_shadow(&s, &shadow));
    assert_string_equal(s.name[2], "quote");
    assert_int_equal(s.skew_past_ms, 604800000);
    assert_int_equal(s.skew_future_ms, 5000);
    assert_int_equal(s.event_bytes_max, 16384);
}

static void a_type_gets_a_name_and_loses_it(void **state)
{
    takes("type.news", "64");
    assert_int_equal(s.known[64], 1);
    assert_int_equal(settings_type(&s, "news"), 64);
    assert_int_equal(settings_type(&s, "64"), 64);
    takes("type.news", "64"); /* again is no error */
    takes("type.news", "");
    assert_int_equal(s.known[64], 0);
    assert_int_equal(settings_type(&s, "news"), -ENOENT);
    assert_int_equal(settings_type(&s, "64"), -ENOENT);
    takes("type.weather", "64");
    takes("type.last_one", "127");
}

static void names_and_numbers_of_types_are_checked(void **state)
{
    refuses("type.news", "63", "64 to 127");
    refuses("type.news", "128", "64 to 127");
    refuses("type.news", "064", "64 to 127");
    refuses("type.news", "-64", "64 to 127");
    refuses("type.news", "64 ", "64 to 127");
    refuses("type.news", "99999999999999999999999", "64 to 127");
    refuses("type.", "64", "type's name");
    refuses("type.News", "64", "type's name");
    refuses("type.1news", "64", "type's name");
    refuses("type.a-b", "64", "type's name");
    refuses("type.abcdefghijklmnopqrstuvwxyz012345", "64", "type's name");
    takes("type.abcdefghijklmnopqrstuvwxyz01234", "64");
    refuses("type.trade", "64", "built in");
    refuses("type.quote", "", "built in");
    refuses("type.orderbook", "70", "built in");
    refuses("type.nobody", "", "no type named");
}

static void two_names_cannot_share_a_number_nor_two_numbers_a_name(void **state)
{
    takes("type.news", "64");
    refuses("type.weather", "64", "named news already");
    refuses("type.news", "65", "type 64 already");
    takes("type.weather", "65");
    takes("type.news", "");
    takes("type.news", "66");
    assert_int_equal(settings_type(&s, "news"), 66);
}

static void classes_and_admission_are_by_type(void **state)
{
    takes("class.trade", "3");
    takes("admit.quote", "drop");
    takes("type.news", "70");
    takes("class.news", "0");
    takes("class.71", "1");
    takes("admit.71", "drop");
    assert_int_equal(s.policy.type[1].class, 3);
    assert_int_equal(s.policy.type[2].action, SETTINGS_DROP);
    assert_int_equal(s.policy.type[70].class, 0);
    assert_int_equal(s.policy.type[71].class, 1);
    assert_int_equal(s.policy.type[71].action, SETTINGS_DROP);
    takes("class.trade", "");
    takes("class.news", "");
    takes("admit.quote", "");
    takes("admit.71", "accept");
    assert_int_equal(s.policy.type[1].class, 0);
    assert_int_equal(s.policy.type[70].class, 3);
    assert_int_equal(s.policy.type[2].action, SETTINGS_ACCEPT);
    assert_int_equal(s.policy.type[71].action, SETTINGS_ACCEPT);
    refuses("class.trade", "4", "0 (dropped last) to 3");
    refuses("class.trade", "x", "0 (dropped last) to 3");
    refuses("class.weather", "1", "no type of that name");
    refuses("class.1", "1", "no type of that name");
    refuses("class.128", "1", "no type of that name");
    refuses("class.", "1", "no type of that name");
    refuses("admit.weather", "drop", "no type of that name");
}

static void admits(const char *value, enum settings_action action, uint32_t number, uint32_t burst)
{
    const struct settings_admit *a = &s.policy.type[2];

    takes("admit.quote", value);
    assert_int_equal(a->action, action);
    assert_int_equal(a->number, number);
    assert_int_equal(a->burst, burst);
    assert_int_equal(a->class, 0);
}

static void admission_is_by_sample_and_by_rate_too(void **state)
{
    static const char *const bad[] = {
        "yes",
        "Accept",
        "accept ",
        " drop",
        "drop 1",
        "sample",
        "sample ",
        "sample 0",
        "sample 1",
        "sample 1000001",
        "sample 010",
        "sample -2",
        "sample 99999999999999999999",
        "sample  2",
        "sample 2 ",
        "sample 2 burst 3",
        "sample2",
        "rate",
        "rate ",
        "rate 0",
        "rate 10000001",
        "rate 5 ",
        "rate 5 burst",
        "rate 5 burst ",
        "rate 5 burst 0",
        "rate 5 burst 10000001",
        "rate 5  burst 1",
        "rate 5 burst 1 ",
        "rate 5 burst 1 burst 2",
        "rate burst 5",
        "rate 5 4",
        "burst 5",
    };

    takes("class.quote", "0"); /* stays, whatever is admitted */
    admits("sample 2", SETTINGS_SAMPLE, 2, 0);
    admits("sample 1000000", SETTINGS_SAMPLE, 1000000, 0);
    admits("rate 1", SETTINGS_RATE, 1, 1);
    admits("rate 9", SETTINGS_RATE, 9, 1);
    admits("rate 19", SETTINGS_RATE, 19, 1);
    admits("rate 20", SETTINGS_RATE, 20, 2);
    admits("rate 10000000", SETTINGS_RATE, 10000000, 1000000);
    admits("rate 7 burst 1", SETTINGS_RATE, 7, 1);
    admits("rate 1 burst 10000000", SETTINGS_RATE, 1, 10000000);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refuses("admit.quote", bad[i], "accept, drop, sample N");
    admits("drop", SETTINGS_DROP, 0, 0);
    admits("rate 5", SETTINGS_RATE, 5, 1);
    admits("", SETTINGS_ACCEPT, 0, 0);
}

static void numbers_have_ranges(void **state)
{
    takes("skew.past_ms", "0");
    takes("skew.past_ms", "31622400000");
    assert_int_equal(s.skew_past_ms, 31622400000);
    refuses("skew.past_ms", "31622400001", "0 to 31622400000");
    takes("skew.past_ms", "");
    assert_int_equal(s.skew_past_ms, 604800000);
    takes("skew.future_ms", "86400000");
    refuses("skew.future_ms", "86400001", "0 to 86400000");
    refuses("skew.future_ms", "5s", "must be a number");
    takes("event.bytes_max", "256");
    takes("event.bytes_max", "65535");
    assert_int_equal(s.event_bytes_max, 65535);
    refuses("event.bytes_max", "65536", "256 to 65535");
    refuses("event.bytes_max", "255", "256 to 65535");
    takes("event.bytes_max", "");
    assert_int_equal(s.event_bytes_max, 16384);
}

static void limits_of_a_source_have_ranges(void **state)
{
    static const struct {
        const char *key;
        const uint32_t *is;
        const char *min, *max, *under, *over;
        uint32_t is_min, is_max, is_default;
    } rows[] = {
        { "limit.source_per_s", &s.policy.source_per_s, "0", "10000000", "-1", "10000001", 0,
          10000000, 0 },
        { "limit.source_burst", &s.policy.source_burst, "1", "10000000", "0", "10000001", 1,
          10000000, 1000 },
        { "limit.syn_per_s", &s.policy.syn_per_s, "0", "1000000", "-1", "1000001", 0, 1000000, 0 },
        { "limit.syn_burst", &s.policy.syn_burst, "1", "1000000", "0", "1000001", 1, 1000000, 100 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        takes(rows[i].key, rows[i].min);
        assert_int_equal(*rows[i].is, rows[i].is_min);
        takes(rows[i].key, rows[i].max);
        assert_int_equal(*rows[i].is, rows[i].is_max);
        refuses(rows[i].key, rows[i].under, rows[i].max);
        refuses(rows[i].key, rows[i].over, rows[i].max);
        refuses(rows[i].key, "4294967297", rows[i].max);
        refuses(rows[i].key, "many", rows[i].max);
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        takes(rows[i].key, "");
        assert_int_equal(*rows[i].is, rows[i].is_default);
    }
}

static void unknown_keys_are_refused(void **state)
{
    char long_key[300], long_value[300];

    refuses("", "1", "no setting");
    refuses("skew", "1", "no setting");
    refuses("skew.past_msx", "1", "no setting");
    refuses("type", "64", "no setting");
    refuses("SKEW.past_ms", "1", "no setting");
    refuses("limit", "1", "no setting");
    refuses("limit.", "1", "no setting");
    refuses("limit.source_per_sx", "1", "no setting");
    refuses("limit.source_per_", "1", "no setting");
    refuses("source", "allow", "no setting");
    refuses("shadow.", "promote", "no setting");
    refuses("shadow.type.news", "64", "no setting");
    refuses("shadow.skew.past_ms", "1", "no setting");
    refuses("shadow.event.bytes_max", "256", "no setting");
    refuses("shadow.shadow", "promote", "no setting");
    refuses("shadow.shadow.admit.trade", "drop", "no setting");
    refuses("shadow.limit.burst", "1", "no setting");
    refuses("shadows", "promote", "no setting");
    memset(long_key, 'a', 63); /* its sentence is whole */
    long_key[63] = '\0';
    refuses(long_key, "1", "class, admit, source or limit");
    memset(long_key, 'a', sizeof long_key);
    memset(long_value, '1', sizeof long_value);
    long_key[sizeof long_key - 1] = long_value[sizeof long_value - 1] = '\0';
    refuses(long_key, "1", "at most 63");
    refuses("skew.past_ms", long_value, "at most 127");
    refuses("type.\xff\x01", "64", "type's name");
}

/* --- listing -----------------------------------------------------------------------------------
 */

static void fill_durability(void)
{
    char key[SETTINGS_KEY_BYTES];

    takes("durability.trade", "region");
    takes("durability.quote", "region");
    takes("durability.orderbook", "region");
    for (uint32_t t = 64; t < SETTINGS_TYPES; t++) {
        snprintf(key, sizeof key, "durability.%u", t);
        takes(key, "region");
    }
}

static void fill_types(const char *before, const char *class, const char *admit)
{
    static const char *const built_in[] = { "trade", "quote", "orderbook" };
    char key[SETTINGS_KEY_BYTES];

    for (uint32_t i = 0; i < 3; i++) {
        snprintf(key, sizeof key, "%sclass.%s", before, built_in[i]);
        takes(key, class);
        snprintf(key, sizeof key, "%sadmit.%s", before, built_in[i]);
        takes(key, admit);
    }
    for (uint32_t t = 64; t < SETTINGS_TYPES; t++) {
        snprintf(key, sizeof key, "%sclass.%u", before, t);
        takes(key, class);
        snprintf(key, sizeof key, "%sadmit.%u", before, t);
        takes(key, admit);
    }
}

static void as_many_lines_as_there_can_be_build_the_same_settings_again(void **state)
{
    static const char *const limits[] = { "limit.source_per_s", "limit.source_burst",
                                          "limit.syn_per_s", "limit.syn_burst" };
    char key[SETTINGS_KEY_BYTES], value[8];

    for (uint32_t t = 64; t < SETTINGS_TYPES; t++) {
        snprintf(key, sizeof key, "type.the_longest_name_of_a_type_%u", t);
        snprintf(value, sizeof value, "%u", t);
        takes(key, value);
    }
    fill_types("", "1", "rate 10000000 burst 10000000");
    fill_types("shadow.", "0", "sample 1000000");
    fill_durability();
    takes("skew.past_ms", "31622400000");
    takes("event.bytes_max", "999");
    for (size_t i = 0; i < 4; i++) {
        takes(limits[i], "77");
        snprintf(key, sizeof key, "shadow.%s", limits[i]);
        takes(key, "78");
    }
    for (uint32_t i = 0; i < SETTINGS_SOURCES_MAX; i++) {
        snprintf(key, sizeof key, "source.fd00:1111:2222:3333:4444:5555:6666:7%x", 0x100 + i);
        takes(key, "deny");
        snprintf(key, sizeof key, "shadow.source.fd00:1111:2222:3333:4444:5555:6666:7%x",
                 0x100 + i);
        takes(key, "none");
    }
    assert_int_equal(settings_lines(&s)->n, SETTINGS_LINES_MAX);
    settings_rebuild(&s);
    takes("type.the_longest_name_of_a_type_80", ""); /* its class and admission stay, by number */
    assert_int_equal(settings_lines(&s)->n, SETTINGS_LINES_MAX - 1);
    lists("class.80", "1");
    lists("shadow.admit.80", "sample 1000000");
    settings_rebuild(&s);
}

static void the_list_of_defaults_is_short_and_says_so(void **state)
{
    static const char *const keys[] = {
        "class.trade",        "class.quote",        "class.orderbook",     "admit.trade",
        "admit.quote",        "admit.orderbook",    "skew.past_ms",        "skew.future_ms",
        "event.bytes_max",    "durability.trade",   "durability.quote",    "durability.orderbook",
        "region.unreachable", "region.wait_ms",     "region.stop_after_s", "ingest.paused",
        "limit.source_per_s", "limit.source_burst", "limit.syn_per_s",     "limit.syn_burst",
    };
    const struct settings_lines *l = settings_lines(&s);

    assert_int_equal(l->n, sizeof keys / sizeof *keys);
    for (uint32_t i = 0; i < l->n; i++) {
        assert_string_equal(l->at[i].key, keys[i]);
        assert_string_equal(l->at[i].value, l->at[i].value_default);
    }
    assert_string_equal(l->at[8].value, "16384");
    assert_string_equal(l->at[17].value, "1000");
}

static void values_are_listed_in_one_form(void **state)
{
    takes("type.news", "64");
    takes("admit.trade", "sample 10");
    takes("admit.64", "rate 500");
    takes("shadow.admit.64", "rate 7 burst 3");
    takes("shadow.class.news", "3"); /* as it is: a change all the same */
    takes("shadow.admit.quote", "accept");
    takes("shadow.limit.syn_per_s", "0");
    lists("type.news", "64");
    lists("admit.trade", "sample 10");
    lists("admit.quote", "accept");
    lists("admit.news", "rate 500 burst 50");
    lists("shadow.admit.news", "rate 7 burst 3");
    lists("shadow.class.news", "3");
    lists("shadow.admit.quote", "accept");
    lists("shadow.limit.syn_per_s", "0");
    assert_null(settings_listed(&s, "shadow.admit.trade"));
    assert_null(settings_listed(&s, "shadow.class.quote"));
    assert_null(settings_listed(&s, "shadow.limit.syn_burst"));
    assert_null(settings_listed(&s, "shadow"));
    settings_rebuild(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(defaults_are_as_documented, set_up),
        cmocka_unit_test_setup(durability_has_a_floor_for_each_type, set_up),
        cmocka_unit_test_setup(a_type_gets_a_name_and_loses_it, set_up),
        cmocka_unit_test_setup(names_and_numbers_of_types_are_checked, set_up),
        cmocka_unit_test_setup(two_names_cannot_share_a_number_nor_two_numbers_a_name, set_up),
        cmocka_unit_test_setup(classes_and_admission_are_by_type, set_up),
        cmocka_unit_test_setup(admission_is_by_sample_and_by_rate_too, set_up),
        cmocka_unit_test_setup(numbers_have_ranges, set_up),
        cmocka_unit_test_setup(limits_of_a_source_have_ranges, set_up),
        cmocka_unit_test_setup(unknown_keys_are_refused, set_up),
        cmocka_unit_test_setup(as_many_lines_as_there_can_be_build_the_same_settings_again, set_up),
        cmocka_unit_test_setup(the_list_of_defaults_is_short_and_says_so, set_up),
        cmocka_unit_test_setup(values_are_listed_in_one_form, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
