/*
 * test_settings.c - the replicated settings: what is taken, what is refused, and that applying is
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

static struct settings s;
static char error[SETTINGS_ERROR_BYTES];

static int set_up(void **state)
{
    settings_init(&s);
    return 0;
}

static void takes(const char *key, const char *value)
{
    if (settings_check(&s, key, value, error) != 0)
        fail_msg("%s = %s: %s", key, value, error);
    assert_int_equal(settings_apply(&s, key, value), 0);
}

/* Refused by check and by apply, with a sentence, and nothing changes. */
static void refuses(const char *key, const char *value, const char *says)
{
    struct settings before = s;

    error[0] = '\0';
    if (settings_check(&s, key, value, error) != -EINVAL)
        fail_msg("taken: %s = %s", key, value);
    if (strstr(error, says) == NULL)
        fail_msg("%s = %s: \"%s\" does not say \"%s\"", key, value, error, says);
    assert_int_equal(settings_apply(&s, key, value), -EINVAL);
    assert_memory_equal(&s, &before, sizeof s);
}

static void defaults_are_as_documented(void **state)
{
    for (uint32_t t = 0; t < SETTINGS_TYPES; t++) {
        assert_int_equal(s.known[t], t >= 1 && t <= 3);
        assert_int_equal(s.admitted[t], 1);
        assert_int_equal(s.class[t], t >= 1 && t <= 3 ? t - 1 : 3);
    }
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
    assert_int_equal(s.class[1], 3);
    assert_int_equal(s.admitted[2], 0);
    assert_int_equal(s.class[70], 0);
    assert_int_equal(s.class[71], 1);
    assert_int_equal(s.admitted[71], 0);
    takes("class.trade", "");
    takes("class.news", "");
    takes("admit.quote", "");
    takes("admit.71", "accept");
    assert_int_equal(s.class[1], 0);
    assert_int_equal(s.class[70], 3);
    assert_int_equal(s.admitted[2], 1);
    assert_int_equal(s.admitted[71], 1);
    refuses("class.trade", "4", "0 (dropped last) to 3");
    refuses("class.trade", "x", "0 (dropped last) to 3");
    refuses("class.weather", "1", "no type of that name");
    refuses("class.1", "1", "no type of that name");
    refuses("class.128", "1", "no type of that name");
    refuses("class.", "1", "no type of that name");
    refuses("admit.trade", "yes", "accept or drop");
    refuses("admit.weather", "drop", "no type of that name");
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

static void unknown_keys_are_refused(void **state)
{
    char long_key[300], long_value[300];

    refuses("", "1", "no setting");
    refuses("skew", "1", "no setting");
    refuses("skew.past_msx", "1", "no setting");
    refuses("type", "64", "no setting");
    refuses("SKEW.past_ms", "1", "no setting");
    memset(long_key, 'a', sizeof long_key);
    memset(long_value, '1', sizeof long_value);
    long_key[sizeof long_key - 1] = long_value[sizeof long_value - 1] = '\0';
    refuses(long_key, "1", "at most 63");
    refuses("skew.past_ms", long_value, "at most 127");
    refuses("type.\xff\x01", "64", "type's name");
}

struct lines {
    uint32_t n;
    struct setting_line at[256];
};

static void collect(void *arg, const struct setting_line *line)
{
    struct lines *l = arg;

    assert_true(l->n < 256);
    l->at[l->n++] = *line;
}

static void the_list_builds_the_same_settings_again(void **state)
{
    static struct lines l;
    struct settings again;
    char key[32], value[8];

    for (uint32_t t = 64; t < SETTINGS_TYPES; t++) { /* as many lines as there can be */
        snprintf(key, sizeof key, "type.t%u", t);
        snprintf(value, sizeof value, "%u", t);
        takes(key, value);
        snprintf(key, sizeof key, "class.t%u", t);
        takes(key, t % 2 ? "1" : "2");
        snprintf(key, sizeof key, "admit.%u", t);
        takes(key, "drop");
    }
    takes("type.t80", ""); /* its class and admission stay, by number */
    takes("skew.past_ms", "31622400000");
    takes("event.bytes_max", "999");
    l.n = 0;
    settings_list(&s, collect, &l);
    assert_int_equal(l.n, 63 + 67 + 67 + 3);
    settings_init(&again);
    for (uint32_t i = 0; i < l.n; i++)
        if (settings_apply(&again, l.at[i].key, l.at[i].value) != 0)
            fail_msg("%s = %s is listed but refused", l.at[i].key, l.at[i].value);
    assert_memory_equal(&s, &again, sizeof s);
}

static void the_list_of_defaults_is_short_and_says_so(void **state)
{
    static struct lines l;

    l.n = 0;
    settings_list(&s, collect, &l);
    assert_int_equal(l.n, 9);
    for (uint32_t i = 0; i < l.n; i++)
        assert_string_equal(l.at[i].value, l.at[i].value_default);
    assert_string_equal(l.at[0].key, "class.trade");
    assert_string_equal(l.at[8].key, "event.bytes_max");
    assert_string_equal(l.at[8].value, "16384");
}

/* Whatever happened before, taking every setting back leads to the defaults; the same changes lead
 * to the same bytes. */
static void random_changes_are_deterministic_and_can_be_taken_back(void **state)
{
    static const char *const keys[] = { "type.a",          "type.b",         "type.c",
                                        "class.a",         "class.b",        "admit.a",
                                        "class.trade",     "admit.64",       "class.64",
                                        "skew.past_ms",    "skew.future_ms", "event.bytes_max",
                                        "admit.orderbook", "nonsense" };
    static const char *const values[] = { "64", "65", "", "0", "3", "accept", "drop", "5000", "x" };
    struct settings other, fresh;
    uint32_t taken = 0;

    settings_init(&other);
    settings_init(&fresh);
    srand(7);
    for (int i = 0; i < 20000; i++) {
        const char *key = keys[(size_t)rand() % (sizeof keys / sizeof *keys)];
        const char *value = values[(size_t)rand() % (sizeof values / sizeof *values)];
        int checked = settings_check(&s, key, value, error);

        assert_int_equal(settings_apply(&s, key, value), checked);
        assert_int_equal(settings_apply(&other, key, value), checked);
        assert_memory_equal(&s, &other, sizeof s);
        assert_true(s.class[64] < SETTINGS_CLASSES);
        taken += checked == 0;
    }
    assert_true(taken > 1000);
    for (size_t i = 3; i < sizeof keys / sizeof *keys; i++)
        settings_apply(&s, keys[i], "");
    settings_apply(&s, "class.65", "");
    settings_apply(&s, "admit.65", "");
    for (size_t i = 0; i < 3; i++)
        settings_apply(&s, keys[i], "");
    assert_memory_equal(&s, &fresh, sizeof s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(defaults_are_as_documented, set_up),
        cmocka_unit_test_setup(a_type_gets_a_name_and_loses_it, set_up),
        cmocka_unit_test_setup(names_and_numbers_of_types_are_checked, set_up),
        cmocka_unit_test_setup(two_names_cannot_share_a_number_nor_two_numbers_a_name, set_up),
        cmocka_unit_test_setup(classes_and_admission_are_by_type, set_up),
        cmocka_unit_test_setup(numbers_have_ranges, set_up),
        cmocka_unit_test_setup(unknown_keys_are_refused, set_up),
        cmocka_unit_test_setup(the_list_builds_the_same_settings_again, set_up),
        cmocka_unit_test_setup(the_list_of_defaults_is_short_and_says_so, set_up),
        cmocka_unit_test_setup(random_changes_are_deterministic_and_can_be_taken_back, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
