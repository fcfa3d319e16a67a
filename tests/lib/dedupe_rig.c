/*
 * dedupe_rig.c - see dedupe_rig.h.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/dedupe_rig.h"

#define RIG_CALL_MAX 1024u

void dedupe_rig_make(struct rig *g)
{
    const char *tmp = getenv("TMPDIR");

    *g = (struct rig){ .seed = 1 };
    snprintf(g->dir, sizeof g->dir, "%s/dedupe-XXXXXX", tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(g->dir));
    g->config.dir = g->dir;
    g->config.memory_bytes_max = DEDUPE_MEMORY_BYTES_MIN;
}

void dedupe_rig_open_only(struct rig *g)
{
    g->config.log_last_index = g->index;
    assert_int_equal(dedupe_open(&g->d, &g->config, &g->covered), 0);
}

void dedupe_rig_replay(struct rig *g, uint64_t above)
{
    for (uint64_t i = 0; i < g->count; i++) {
        struct dedupe_rig_event *e = &g->log[i];

        if (e->place.index > above)
            assert_int_equal(dedupe_replay(g->d, e->event.key, e->event.content, e->place), 0);
    }
    if (g->index > 0)
        dedupe_commit(g->d, g->index);
}

void dedupe_rig_open(struct rig *g)
{
    dedupe_rig_open_only(g);
    dedupe_rig_replay(g, g->covered);
}

void dedupe_rig_close(struct rig *g)
{
    dedupe_close(g->d);
    g->d = NULL;
}

void dedupe_rig_restart(struct rig *g)
{
    dedupe_rig_close(g);
    dedupe_rig_open(g);
}

void dedupe_rig_fini(struct rig *g)
{
    char name[2 * RIG_DIR_BYTES + 256];
    DIR *dir = opendir(g->dir);
    struct dirent *e;

    dedupe_rig_close(g);
    assert_non_null(dir);
    while ((e = readdir(dir)) != NULL) {
        snprintf(name, sizeof name, "%s/%s", g->dir, e->d_name);
        (void)unlink(name);
    }
    closedir(dir);
    assert_int_equal(rmdir(g->dir), 0);
    free(g->log);
}

/* splitmix64: a bijection, so numbers that differ give keys that differ. */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

uint64_t dedupe_rig_random(struct rig *g) { return mix(g->seed++); }

struct key128 dedupe_rig_key(uint64_t number)
{
    return (struct key128){ mix(number), mix(number ^ 0x5555555555555555ull) };
}

void dedupe_rig_remember(struct rig *g, struct dedupe_event e, struct dedupe_place p)
{
    if (g->count == g->room) {
        g->room = g->room * 2 + 1024;
        g->log = realloc(g->log, g->room * sizeof *g->log);
        assert_non_null(g->log);
    }
    g->log[g->count++] = (struct dedupe_rig_event){ e, p };
    if (g->config.table_keys_max > 0)
        g->runs_written = g->count / g->config.table_keys_max;
}

static void wait_ready(struct rig *g, size_t n)
{
    int r;

    while ((r = dedupe_ready(g->d, n)) == -EAGAIN) {
        dedupe_commit(g->d, g->index);
        assert_true(dedupe_do_work(g->d) >= 0);
    }
    assert_int_equal(r, 0);
}

int dedupe_rig_admit(struct rig *g, struct key128 key, uint64_t content)
{
    uint8_t verdict;
    int r;

    wait_ready(g, 1);
    r = dedupe_admit(g->d, &key, sizeof key, &content, 1, g->index + 1, &verdict, &g->first);
    assert_int_equal(r, verdict == DEDUPE_NEW);
    if (r == 1)
        dedupe_rig_remember(g, (struct dedupe_event){ key, content },
                            (struct dedupe_place){ ++g->index, 0 });
    return verdict;
}

static struct dedupe_event random_event(struct rig *g, struct dedupe_rig_event **ret_old)
{
    uint64_t kind = dedupe_rig_random(g) % 8;
    struct dedupe_event e;

    *ret_old = NULL;
    if (kind > 2 || g->count == 0) {
        e.key = dedupe_rig_key(dedupe_rig_random(g) >> 20);
        e.content = e.key.lo ^ 1;
        return e;
    }
    *ret_old = &g->log[dedupe_rig_random(g) % g->count];
    e = (*ret_old)->event;
    e.content ^= kind == 2;
    return e;
}

void dedupe_rig_admit_random(struct rig *g, size_t n)
{
    struct dedupe_event e[RIG_CALL_MAX];
    struct dedupe_rig_event *old[RIG_CALL_MAX];
    uint64_t content[RIG_CALL_MAX];
    uint8_t verdict[RIG_CALL_MAX];
    struct dedupe_place first[RIG_CALL_MAX];
    uint16_t slot = 0;

    assert_true(n <= RIG_CALL_MAX);
    for (size_t i = 0; i < n; i++) {
        e[i] = random_event(g, &old[i]);
        content[i] = e[i].content;
    }
    wait_ready(g, n);
    assert_int_equal(
        dedupe_admit(g->d, &e[0].key, sizeof e[0], content, n, g->index + 1, verdict, first) >= 0,
        1);
    for (size_t i = 0; i < n; i++) {
        struct dedupe_place want = { g->index + 1, slot };

        if (old[i] != NULL) {
            want = old[i]->place;
            assert_int_equal(verdict[i], content[i] == old[i]->event.content ? DEDUPE_DUPLICATE
                                                                             : DEDUPE_CONFLICT);
        } else {
            assert_int_equal(verdict[i], DEDUPE_NEW);
            slot++;
        }
        assert_int_equal(first[i].index, want.index);
        assert_int_equal(first[i].slot, want.slot);
    }
    slot = 0;
    for (size_t i = 0; i < n; i++)
        if (verdict[i] == DEDUPE_NEW)
            dedupe_rig_remember(g, e[i], (struct dedupe_place){ g->index + 1, slot++ });
    g->index += slot > 0;
}

void dedupe_rig_commit(struct rig *g, uint64_t index)
{
    if (index > 0 && index <= g->index)
        dedupe_commit(g->d, index);
}

void dedupe_rig_work(struct rig *g) { assert_true(dedupe_do_work(g->d) >= 0); }

void dedupe_rig_settle(struct rig *g)
{
    int r;

    dedupe_commit(g->d, g->index);
    do {
        struct dedupe_place p;

        r = dedupe_do_work(g->d);
        assert_true(r >= 0);
        assert_true(dedupe_lookup(g->d, dedupe_rig_key(0), &p) >= 0); /* acknowledges */
        r += dedupe_do_work(g->d);
    } while (r > 0);
}

void dedupe_rig_check_all(struct rig *g)
{
    struct dedupe_place p;

    for (uint64_t i = 0; i < g->count; i++) {
        assert_int_equal(dedupe_lookup(g->d, g->log[i].event.key, &p), 1);
        assert_int_equal(p.index, g->log[i].place.index);
        assert_int_equal(p.slot, g->log[i].place.slot);
    }
}

struct dedupe_stats dedupe_rig_stats(struct rig *g)
{
    struct dedupe_stats s;

    dedupe_stats(g->d, &s);
    return s;
}

unsigned dedupe_rig_files(struct rig *g)
{
    DIR *dir = opendir(g->dir);
    struct dirent *e;
    unsigned n = 0;

    assert_non_null(dir);
    while ((e = readdir(dir)) != NULL)
        n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}
