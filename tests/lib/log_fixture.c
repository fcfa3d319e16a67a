/*
 * log_fixture.c - see log_fixture.h.
 */
#include "tests/lib/log_fixture.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cluster/record.h"

const struct log_origin fixture_origin = { .index = 0, .digest = { 1, 2, 3 } };

void fixture_dir_make(char ret[FIXTURE_DIR_BYTES])
{
    const char *tmp = getenv("TMPDIR");

    snprintf(ret, FIXTURE_DIR_BYTES, "%s/sluice-XXXXXX", tmp ? tmp : "/tmp");
    if (mkdtemp(ret) == NULL)
        abort();
}

const char *fixture_path(const char *dir, const char *name)
{
    static char path[FIXTURE_DIR_BYTES + 256];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

void fixture_dir_remove(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *e;

    while (d != NULL && (e = readdir(d)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlink(fixture_path(dir, e->d_name));
    if (d != NULL)
        closedir(d);
    rmdir(dir);
}

struct log_config fixture_config(void)
{
    return (struct log_config){ .segment_bytes = 1u << 20, .writes_max = 16, .mark_idle_ms = 10 };
}

static uint8_t payload_byte(uint64_t index, uint32_t salt, uint32_t at)
{
    return (uint8_t)((index * 2654435761u + salt * 40503u + at * 31u) >> 3);
}

static void on_done(struct log_write *w)
{
    struct fixture_write *f = w->owner;

    assert(!f->done);
    f->done = true;
}

struct fixture_write *fixture_write_make(uint64_t index, uint64_t term, uint32_t type,
                                         uint32_t payload_bytes, uint32_t salt)
{
    struct fixture_write *f = calloc(1, sizeof *f);
    uint8_t *p;

    assert(f != NULL);
    f->write.record = (struct log_record){ .index = index,
                                           .term = term,
                                           .time_ns = index * 1000,
                                           .type = type,
                                           .payload_bytes = payload_bytes };
    f->write.buf = aligned_alloc(LOG_ALIGN, record_bytes(payload_bytes));
    assert(f->write.buf != NULL);
    f->write.done = on_done;
    f->write.owner = f;
    p = (uint8_t *)f->write.buf + LOG_HEADER_BYTES;
    for (uint32_t i = 0; i < payload_bytes; i++)
        p[i] = payload_byte(index, salt, i);
    log_write_seal(&f->write);
    return f;
}

void fixture_write_free(struct fixture_write *w)
{
    if (w != NULL)
        free(w->write.buf);
    free(w);
}

bool fixture_payload_is(const void *payload, uint32_t bytes, uint64_t index, uint32_t salt)
{
    const uint8_t *p = payload;

    for (uint32_t i = 0; i < bytes; i++)
        if (p[i] != payload_byte(index, salt, i))
            return false;
    return true;
}

int fixture_turn(struct log *l)
{
    static uint64_t now_ns;

    now_ns += 1000000;
    return log_do_work(l, now_ns);
}

int fixture_reserve(struct log *l, uint32_t payload_bytes)
{
    int r;

    while ((r = log_reserve(l, payload_bytes)) == -EAGAIN) {
        r = fixture_turn(l);
        if (r < 0)
            return r;
    }
    return r;
}

int fixture_append(struct log *l, uint64_t term, uint32_t type, uint32_t payload_bytes,
                   uint32_t salt)
{
    struct fixture_write *f;
    int r = fixture_reserve(l, payload_bytes);

    if (r < 0)
        return r;
    f = fixture_write_make(log_last_index(l) + 1, term, type, payload_bytes, salt);
    r = log_append(l, &f->write);
    while (r >= 0 && !f->done)
        r = fixture_turn(l);
    fixture_write_free(f);
    return r < 0 ? r : 0;
}
