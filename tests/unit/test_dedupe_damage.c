/*
 * test_dedupe_damage.c - the dedupe index when its files are lost, rotten, stale or cut off in the
 * middle of any step: it says from where the log is to be replayed, and then knows everything.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/file.h"
#include "tests/lib/dedupe_rig.h"

#define FILES_MAX 32u

/* Every operation and every trial with SLUICE_MODE=full, a fixed third of them otherwise. */
static unsigned stride(void)
{
    const char *mode = getenv("SLUICE_MODE");

    return mode != NULL && strcmp(mode, "full") == 0 ? 1 : 3;
}

struct image {
    char name[FILES_MAX][64];
    uint8_t *data[FILES_MAX];
    size_t bytes[FILES_MAX];
    unsigned count;
};

static void path_of(const struct rig *g, const char *name, char ret[512])
{
    snprintf(ret, 512, "%s/%s", g->dir, name);
}

static void image_take(const struct rig *g, struct image *m)
{
    DIR *dir = opendir(g->dir);
    struct dirent *e;
    char path[512];
    struct stat st;
    int fd;

    m->count = 0;
    assert_non_null(dir);
    while ((e = readdir(dir)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        assert_true(m->count < FILES_MAX && strlen(e->d_name) < 64);
        path_of(g, e->d_name, path);
        fd = open(path, O_RDONLY);
        assert_true(fd >= 0 && fstat(fd, &st) == 0);
        strcpy(m->name[m->count], e->d_name);
        m->bytes[m->count] = (size_t)st.st_size;
        m->data[m->count] = malloc(m->bytes[m->count]);
        assert_int_equal(read(fd, m->data[m->count], m->bytes[m->count]), st.st_size);
        close(fd);
        m->count++;
    }
    closedir(dir);
}

static void write_file(const struct rig *g, const char *name, const void *data, size_t bytes)
{
    char path[512];
    int fd;

    path_of(g, name, path);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, bytes), bytes);
    close(fd);
}

static void image_put(const struct rig *g, const struct image *m)
{
    struct image now;
    char path[512];

    image_take(g, &now);
    for (unsigned i = 0; i < now.count; i++) {
        path_of(g, now.name[i], path);
        assert_int_equal(unlink(path), 0);
        free(now.data[i]);
    }
    for (unsigned i = 0; i < m->count; i++)
        write_file(g, m->name[i], m->data[i], m->bytes[i]);
}

static void image_free(struct image *m)
{
    for (unsigned i = 0; i < m->count; i++)
        free(m->data[i]);
}

static int skip_syncs(enum file_op op, int fd) { return op == FILE_SYNC || op == FILE_SYNC_DIR; }

/* Some runs of several sizes, closed. */
static void make_runs(struct rig *g, unsigned keys)
{
    file_fault = skip_syncs;
    dedupe_rig_make(g);
    g->config.table_keys_max = 300;
    dedupe_rig_open(g);
    for (unsigned i = 0; i < keys; i++) {
        assert_int_equal(dedupe_rig_admit(g, dedupe_rig_key(i), i), DEDUPE_NEW);
        if (i % 100 == 0)
            dedupe_rig_settle(g); /* so that merges do not fall behind and then make one of all */
    }
    dedupe_rig_settle(g);
    assert_true(dedupe_rig_stats(g).runs >= 3);
    g->covered = dedupe_rig_stats(g).covered_index;
    dedupe_rig_close(g);
}

/* Opens what may be damaged, and again whenever a damaged page was met, until all keys are found.
 * Returns the number of opens that said they lack something. */
static unsigned recover(struct rig *g, uint64_t covered_before)
{
    struct dedupe_place p;
    unsigned lowered = 0;
    int r = 0;

    for (int turn = 0; turn < 5; turn++) {
        g->config.log_last_index = g->index;
        assert_int_equal(dedupe_open(&g->d, &g->config, &g->covered), 0);
        lowered += g->covered < covered_before;
        r = 0;
        for (uint64_t i = g->covered; i < g->count && r == 0; i++)
            r = dedupe_replay(g->d, g->log[i].event.key, g->log[i].event.content, g->log[i].place);
        for (uint64_t i = 0; i < g->count && r >= 0; i++) {
            r = dedupe_lookup(g->d, g->log[i].event.key, &p);
            assert_int_not_equal(r, 0); /* forgotten */
            assert_true(r < 0 || p.index == g->log[i].place.index);
        }
        if (r > 0)
            break;
        assert_int_equal(r, -EILSEQ);
        assert_int_equal(dedupe_ready(g->d, 1), -EILSEQ); /* final */
        assert_int_equal(dedupe_do_work(g->d), -EILSEQ);
        dedupe_rig_close(g);
    }
    assert_true(r > 0);
    dedupe_rig_check_all(g);
    dedupe_rig_close(g);
    return lowered;
}

static void flip_everywhere(bool verify, unsigned trials)
{
    struct image m;
    struct rig g;
    unsigned met = 0;
    uint64_t covered;

    make_runs(&g, 3300);
    covered = g.covered;
    image_take(&g, &m);
    g.config.verify = verify;
    for (unsigned t = 0; t < trials; t += stride()) {
        unsigned f = t / stride() % m.count;
        size_t at = dedupe_rig_random(&g) % m.bytes[f];
        unsigned lowered;

        if (t / m.count < 64) /* every structure's first bytes, too */
            at = t / m.count * 8 % m.bytes[f];
        image_put(&g, &m);
        m.data[f][at] ^= (uint8_t)(1 << t % 8);
        write_file(&g, m.name[f], m.data[f], m.bytes[f]);
        m.data[f][at] ^= (uint8_t)(1 << t % 8);
        lowered = recover(&g, covered);
        met += lowered > 0;
        assert_true(!verify || lowered == 1);
    }
    assert_true(met * stride() > trials / 2);
    image_free(&m);
    dedupe_rig_fini(&g);
}

static void any_flipped_bit_is_found_at_open_when_asked_to_verify(void **state)
{
    flip_everywhere(true, 900);
}

static void a_flipped_bit_never_makes_the_index_forget(void **state)
{
    flip_everywhere(false, 600);
}

static void a_short_long_or_missing_file_lowers_the_covered_index(void **state)
{
    struct image m;
    struct rig g;
    uint64_t covered;

    make_runs(&g, 3300);
    covered = g.covered;
    image_take(&g, &m);
    for (unsigned f = 0; f < m.count; f++) {
        for (unsigned how = 0; how < 6; how++) {
            size_t bytes[] = { 0, 1, 4095, m.bytes[f] / 2, m.bytes[f] - 1, m.bytes[f] - 4096 };
            char path[512];

            image_put(&g, &m);
            path_of(&g, m.name[f], path);
            assert_int_equal(truncate(path, (off_t)bytes[how]), 0);
            assert_int_equal(recover(&g, covered), 1);
        }
        image_put(&g, &m);
        {
            char path[512];

            path_of(&g, m.name[f], path);
            assert_int_equal(truncate(path, (off_t)m.bytes[f] + 1), 0);
            assert_int_equal(recover(&g, covered), 1);
            image_put(&g, &m);
            assert_int_equal(unlink(path), 0);
            assert_int_equal(recover(&g, covered), 1);
        }
    }
    image_free(&m);
    dedupe_rig_fini(&g);
}

static void an_older_copy_of_a_file_is_not_taken_for_the_newer(void **state)
{
    struct image old, new;
    struct rig g;
    uint64_t covered;

    make_runs(&g, 2000);
    image_take(&g, &old);
    dedupe_rig_open(&g);
    for (unsigned i = 2000; i < 9000; i++)
        assert_int_equal(dedupe_rig_admit(&g, dedupe_rig_key(i), i), DEDUPE_NEW);
    dedupe_rig_settle(&g);
    covered = dedupe_rig_stats(&g).covered_index;
    dedupe_rig_close(&g);
    image_take(&g, &new);
    for (unsigned f = 0; f < old.count; f++) {
        image_put(&g, &new);
        write_file(&g, old.name[f], old.data[f], old.bytes[f]);
        /* MANIFEST of then, or a run that is no longer one: found, or removed as a stray. */
        assert_int_equal(recover(&g, covered), strcmp(old.name[f], "MANIFEST") == 0);
    }
    for (unsigned f = 0; f < new.count; f++) {
        image_put(&g, &new);
        if (strcmp(new.name[f], "MANIFEST") == 0)
            continue;
        /* Another run's content under this name. */
        write_file(&g, new.name[f], old.data[0], old.bytes[0]);
        assert_int_equal(recover(&g, covered), 1);
    }
    image_put(&g, &old); /* all of then */
    assert_int_equal(recover(&g, covered), 1);
    image_free(&old);
    image_free(&new);
    dedupe_rig_fini(&g);
}

/* Replays the log to the end with the index at work, as a node does. Returns the first error that
 * is not -ENOSPC. */
static int run_log(struct rig *g)
{
    int r = 0;

    g->config.log_last_index = g->index;
    r = dedupe_open(&g->d, &g->config, &g->covered);
    for (uint64_t i = r == 0 ? g->covered : g->count; i < g->count; i++) {
        do
            r = dedupe_replay(g->d, g->log[i].event.key, g->log[i].event.content, g->log[i].place);
        while (r == -ENOSPC);
        if (r == 0)
            r = dedupe_do_work(g->d);
        if (r < 0 && r != -ENOSPC)
            break;
        r = 0;
    }
    return r;
}

static struct {
    unsigned step, stop_at;
    bool power_loss;
    int error;
    bool dirty[1024];
} fault;

/* Stops the process before operation stop_at; with a power loss, what was not synced is torn. */
static int stop_here(enum file_op op, int fd)
{
    if (++fault.step == fault.stop_at) {
        for (int f = 0; fault.power_loss && f < 1024; f++) {
            struct stat st;

            if (fault.dirty[f] && fstat(f, &st) == 0 && ftruncate(f, st.st_size / 2) == 0)
                (void)!ftruncate(f, st.st_size);
        }
        _exit(42);
    }
    if (op == FILE_WRITE || op == FILE_SYNC || op == FILE_ALLOCATE)
        fault.dirty[fd] = op != FILE_SYNC;
    return op == FILE_SYNC || op == FILE_SYNC_DIR;
}

static void make_log(struct rig *g, unsigned keys)
{
    file_fault = skip_syncs;
    dedupe_rig_make(g);
    g->config.table_keys_max = 100;
    for (unsigned i = 0; i < keys; i++)
        dedupe_rig_remember(g, (struct dedupe_event){ dedupe_rig_key(i), i },
                            (struct dedupe_place){ ++g->index, 0 });
}

static void empty_dir(struct rig *g)
{
    struct image none = { .count = 0 };

    image_put(g, &none);
}

static void crash_everywhere(bool power_loss)
{
    struct rig g;
    unsigned stops = 0;

    make_log(&g, 1400);
    for (unsigned n = 1;; n += stride(), stops++) {
        pid_t pid;
        int status;

        empty_dir(&g);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            fault.stop_at = n;
            fault.power_loss = power_loss;
            file_fault = stop_here;
            _exit(run_log(&g) == 0 ? 0 : 1);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 0)
            break;
        assert_int_equal(WEXITSTATUS(status), 42);
        g.config.verify = true;
        dedupe_rig_open(&g);
        assert_int_equal(dedupe_rig_stats(&g).runs_damaged,
                         0); /* MANIFEST never named an unsynced file */
        assert_true(dedupe_rig_stats(&g).covered_index >= g.covered);
        g.config.verify = false;
        dedupe_rig_check_all(&g);
        dedupe_rig_close(&g);
    }
    assert_true(stops * stride() > 200);
    dedupe_rig_fini(&g);
}

static void a_kill_between_any_two_operations_forgets_nothing(void **state)
{
    crash_everywhere(false);
}

static void a_power_loss_between_any_two_operations_forgets_nothing(void **state)
{
    crash_everywhere(true);
}

static int fail_here(enum file_op op, int fd)
{
    bool can = fault.error != -ENOSPC || op == FILE_CREATE || op == FILE_ALLOCATE ||
               op == FILE_WRITE || op == FILE_RENAME;

    if (++fault.step == fault.stop_at && can)
        return fault.error;
    return op == FILE_SYNC || op == FILE_SYNC_DIR;
}

static void no_space_at_any_operation_is_recovered_from(void **state)
{
    struct rig g;

    make_log(&g, 1400);
    for (unsigned n = 10; n == 10 || fault.step >= fault.stop_at; n += stride()) {
        empty_dir(&g);
        fault.step = 0;
        fault.stop_at = n;
        fault.error = -ENOSPC;
        file_fault = fail_here;
        assert_int_equal(run_log(&g), 0);
        dedupe_rig_settle(&g);
        assert_int_equal(dedupe_rig_files(&g),
                         dedupe_rig_stats(&g).runs + 1); /* nothing left over */
        dedupe_rig_check_all(&g);
        dedupe_rig_close(&g);
    }
    file_fault = skip_syncs;
    dedupe_rig_fini(&g);
}

static void an_error_at_any_operation_is_final_and_a_new_start_forgets_nothing(void **state)
{
    struct rig g;
    unsigned errors = 0;

    make_log(&g, 1400);
    for (unsigned n = 1; n == 1 || fault.step >= fault.stop_at; n += stride()) {
        int r;

        empty_dir(&g);
        fault.step = 0;
        fault.stop_at = n;
        fault.error = -EIO;
        file_fault = fail_here;
        r = run_log(&g);
        assert_true(r == 0 || r == -EIO);
        if (g.d != NULL && r < 0)
            assert_int_equal(dedupe_ready(g.d, 1), -EIO);
        errors += r < 0;
        file_fault = skip_syncs;
        dedupe_rig_close(&g);
        dedupe_rig_open(&g);
        dedupe_rig_check_all(&g);
        dedupe_rig_close(&g);
    }
    assert_true(errors * stride() > 200);
    dedupe_rig_fini(&g);
}

static void a_table_that_was_not_written_is_not_covered(void **state)
{
    struct rig g;

    make_log(&g, 150);
    assert_int_equal(run_log(&g), 0);
    dedupe_rig_settle(&g);
    dedupe_rig_restart(&g);
    assert_true(g.covered < 150); /* so the rest was replayed */
    dedupe_rig_check_all(&g);
    dedupe_rig_fini(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_that_was_not_written_is_not_covered),
        cmocka_unit_test(any_flipped_bit_is_found_at_open_when_asked_to_verify),
        cmocka_unit_test(a_flipped_bit_never_makes_the_index_forget),
        cmocka_unit_test(a_short_long_or_missing_file_lowers_the_covered_index),
        cmocka_unit_test(an_older_copy_of_a_file_is_not_taken_for_the_newer),
        cmocka_unit_test(a_kill_between_any_two_operations_forgets_nothing),
        cmocka_unit_test(a_power_loss_between_any_two_operations_forgets_nothing),
        cmocka_unit_test(no_space_at_any_operation_is_recovered_from),
        cmocka_unit_test(an_error_at_any_operation_is_final_and_a_new_start_forgets_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
