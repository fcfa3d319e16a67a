/*
 * test_ledger.c - every imbalance is found, and every reason and drop has a name.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/ledger.h"
#include "proto/wire.pb.h"

/* One of everything, balanced. */
static struct ledger balanced(void)
{
    struct ledger l = { .datagrams_seen = DROP_N + 5, .datagrams_delivered = 5 };

    for (unsigned i = 0; i < DROP_N; i++)
        l.datagram_drop[i] = 1;
    for (unsigned t = 0; t < LEDGER_TYPES; t++) {
        l.decoded[t] = 6 + t;
        l.invalid[t] = l.refused[t] = l.duplicate[t] = l.conflict[t] = l.in_flight[t] = 1;
        l.committed[t] = 1 + t;
    }
    l.reason[sluice_v1_Reason_DECODE_MALFORMED] = LEDGER_TYPES;
    l.reason[sluice_v1_Reason_OVERLOADED] = LEDGER_TYPES;
    return l;
}

static void a_balanced_ledger_balances(void **state)
{
    struct ledger l = balanced();
    struct ledger_sums s;

    ledger_check(&l, &s);
    assert_true(s.datagrams_balance);
    assert_true(s.events_balance);
    for (unsigned t = 0; t < LEDGER_TYPES; t++)
        assert_true(s.type_balances[t]);
    assert_int_equal(s.dropped, DROP_N);
    assert_int_equal(s.invalid, LEDGER_TYPES);
    assert_int_equal(s.refused, LEDGER_TYPES);
    assert_int_equal(s.duplicate, LEDGER_TYPES);
    assert_int_equal(s.conflict, LEDGER_TYPES);
    assert_int_equal(s.in_flight, LEDGER_TYPES);
    assert_int_equal(s.committed, LEDGER_TYPES * (LEDGER_TYPES + 1) / 2);
    assert_int_equal(s.decoded,
                     s.invalid + s.refused + s.duplicate + s.conflict + s.in_flight + s.committed);
}

static void an_empty_ledger_balances(void **state)
{
    struct ledger l = { 0 };
    struct ledger_sums s;

    ledger_check(&l, &s);
    assert_true(s.datagrams_balance && s.events_balance);
}

/* Every counter of the two equations, one too many and one too few. */
static void any_counter_that_is_off_by_one_is_found(void **state)
{
    static const size_t first = offsetof(struct ledger, datagrams_seen) / 8;
    static const size_t events = offsetof(struct ledger, decoded) / 8;
    static const size_t end =
        (offsetof(struct ledger, reason) + sizeof(uint64_t[LEDGER_REASONS])) / 8;
    struct ledger_sums s;

    for (size_t i = first; i < end; i++) {
        for (int by = -1; by <= 1; by += 2) {
            struct ledger l = balanced();
            uint64_t *word = (uint64_t *)&l + i;

            *word += (uint64_t)by;
            ledger_check(&l, &s);
            assert_int_equal(s.datagrams_balance, i >= events);
            assert_int_equal(s.events_balance, i < events);
        }
    }
}

static void a_count_under_the_wrong_type_is_found(void **state)
{
    struct ledger l = balanced();
    struct ledger_sums s;

    l.committed[1]++;
    l.committed[2]--;
    ledger_check(&l, &s);
    assert_false(s.events_balance);
    assert_false(s.type_balances[1]);
    assert_false(s.type_balances[2]);
    assert_true(s.type_balances[3]);
}

static void what_a_crash_left_unaccounted_must_be_missing_exactly(void **state)
{
    struct ledger l = balanced();
    struct ledger_sums s;

    l.committed[1] -= 1;
    l.committed[3] -= 2;
    l.unaccounted[1] = 1;
    l.unaccounted[3] = 2;
    ledger_check(&l, &s);
    assert_true(s.events_balance);
    assert_int_equal(s.unaccounted, 3);
    l.unaccounted[3] = 1;
    ledger_check(&l, &s);
    assert_false(s.events_balance);
    /* A surplus of one type must not pay for what another lacks. */
    l.unaccounted[1] = 2;
    ledger_check(&l, &s);
    assert_false(s.events_balance);
    assert_false(s.type_balances[1]);
    assert_false(s.type_balances[3]);
}

static void adding_adds_every_counter(void **state)
{
    struct ledger a, b;
    uint64_t *x = (uint64_t *)&a, *y = (uint64_t *)&b;

    for (size_t i = 0; i < sizeof a / 8; i++) {
        x[i] = i;
        y[i] = 1000000 + 3 * i;
    }
    ledger_add(&a, &b);
    for (size_t i = 0; i < sizeof a / 8; i++) {
        assert_int_equal(x[i], 1000000 + 4 * i);
        assert_int_equal(y[i], 1000000 + 3 * i);
    }
}

static void names_are_there_and_differ(void **state)
{
    for (unsigned i = 0; i <= sluice_v1_Reason_PAUSED; i++) {
        assert_string_not_equal(reason_name(i), "unknown");
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(reason_name(i), reason_name(j));
    }
    assert_string_equal(reason_name(sluice_v1_Reason_DUPLICATE), "duplicate");
    assert_string_equal(reason_name(sluice_v1_Reason_DUPLICATE + 1), "unknown");
    assert_string_equal(reason_name(sluice_v1_Reason_PAUSED + 1), "unknown");
    assert_string_equal(reason_name(UINT32_MAX), "unknown");
    for (unsigned i = 0; i < DROP_N; i++) {
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(datagram_drop_name(i), datagram_drop_name(j));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_balanced_ledger_balances),
        cmocka_unit_test(an_empty_ledger_balances),
        cmocka_unit_test(any_counter_that_is_off_by_one_is_found),
        cmocka_unit_test(a_count_under_the_wrong_type_is_found),
        cmocka_unit_test(what_a_crash_left_unaccounted_must_be_missing_exactly),
        cmocka_unit_test(adding_adds_every_counter),
        cmocka_unit_test(names_are_there_and_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
