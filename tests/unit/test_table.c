/*
 * test_table.c - the dedupe index's table against a plain list: what is in it, where it lies, and
 * what fits, while entries come and go.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "store/table.h"

#define KEYS_MAX 3000u

static uint64_t seed;
static struct entry list[KEYS_MAX];
static size_t listed;

static uint64_t draw(uint64_t below)
{
    uint64_t z = (seed += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (z ^ (z >> 31)) % below;
}

/* Keys that share homes: of `homes` different ones, the last one among them. */
static struct key128 draw_key(const struct table *t, unsigned homes)
{
    uint64_t step = UINT64_MAX / t->slots, home = draw(homes) * (t->slots / homes);

    if (draw(8) == 0)
        return (struct key128){ UINT64_MAX - draw(1000), draw(4) }; /* into the tail */
    return (struct key128){ home * step + draw(step), draw(4) };
}

static struct entry *listed_entry(struct key128 key)
{
    for (size_t i = 0; i < listed; i++)
        if (entry_compare(&list[i].key, &key) == 0)
            return &list[i];
    return NULL;
}

/* Every rule that table.h states. */
static void check(const struct table *t)
{
    const struct entry *before = NULL;
    uint64_t gap = 0, count = 0; /* gap: the first slot behind the last empty one */

    for (uint64_t i = 0; i < t->room; i++) {
        const struct entry *e = &t->entries[i];

        if (e->place == 0) {
            gap = i + 1;
            continue;
        }
        assert_true(i < t->top && entry_index(e) <= t->last);
        assert_true(entry_scale(e->key.lo, t->slots) <= i);
        assert_true(entry_scale(e->key.lo, t->slots) >= gap);
        if (before != NULL)
            assert_true(entry_compare(&before->key, &e->key) < 0);
        before = e;
        count++;
    }
    assert_int_equal(count, t->count);
    assert_int_equal(count, listed);
    if (t->top > t->slots)
        assert_true(t->entries[t->top - 1].place != 0);
    for (size_t i = 0; i < listed; i++) {
        const struct entry *e = table_find(t, list[i].key);

        assert_non_null(e);
        assert_memory_equal(e, &list[i], sizeof *e);
    }
}

static void put(struct table *t, struct entry e)
{
    const struct entry *old = listed_entry(e.key), *was = table_put(t, &e);

    if (old != NULL) {
        assert_memory_equal(was, old, sizeof *was);
        return;
    }
    assert_null(was);
    list[listed++] = e;
}

static void take(struct table *t, size_t at)
{
    struct entry other = list[at];

    other.place++;
    assert_false(table_remove(t, &other)); /* the key, but at another place */
    assert_true(table_remove(t, &list[at]));
    assert_false(table_remove(t, &list[at]));
    assert_null(table_find(t, list[at].key));
    list[at] = list[--listed];
}

/* Fills and empties it by turns, checking after every step. */
static void campaign(unsigned keys_max, unsigned homes, unsigned steps)
{
    struct table t;
    bool filling = true;

    listed = 0;
    assert_int_equal(table_init(&t, keys_max), 0);
    for (unsigned i = 0; i < steps; i++) {
        if (draw(30) == 0)
            filling = !filling;
        if (listed == 0 || (filling ? draw(4) > 0 : draw(4) == 0)) {
            if (table_fits(&t, 1))
                put(&t, (struct entry){ draw_key(&t, homes), entry_place(1 + i, 0), draw(99) });
        } else {
            take(&t, draw(listed));
        }
        check(&t);
    }
    while (listed > 0)
        take(&t, draw(listed));
    check(&t);
    assert_true(table_fits(&t, TABLE_TAIL_SLOTS)); /* as if it were new */
    assert_true(t.top <= t.slots);
    for (uint64_t i = 0; i < t.room; i++)
        assert_int_equal(t.entries[i].place, 0);
    table_fini(&t);
}

static void entries_come_and_go_and_the_rules_hold_after_each(void **state)
{
    for (seed = 1; seed <= 40; seed++)
        campaign(40, 1 + (unsigned)draw(40), 300);
}

static void long_chains_and_the_tail_close_up_when_one_is_taken_out(void **state)
{
    seed = 77;
    campaign(400, 1, 1500);
    campaign(400, 3, 1500);
}

static void a_cut_lowers_the_last_index_and_nothing_else(void **state)
{
    struct table t;
    struct entry e[3] = { { { 1, 1 }, entry_place(5, 0), 1 },
                          { { 2, 1 }, entry_place(7, 0), 2 },
                          { { 3, 1 }, entry_place(6, 0), 3 } };

    assert_int_equal(table_init(&t, 100), 0);
    for (int i = 0; i < 3; i++)
        assert_null(table_put(&t, &e[i]));
    assert_int_equal(t.last, 7);
    assert_true(table_remove(&t, &e[1]));
    table_cut(&t, 7);
    assert_int_equal(t.last, 6);
    table_cut(&t, 9);
    assert_int_equal(t.last, 6);
    assert_int_equal(t.count, 2);
    table_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_come_and_go_and_the_rules_hold_after_each),
        cmocka_unit_test(long_chains_and_the_tail_close_up_when_one_is_taken_out),
        cmocka_unit_test(a_cut_lowers_the_last_index_and_nothing_else),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
