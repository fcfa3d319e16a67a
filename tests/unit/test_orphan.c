/*
 * test_orphan.c - what a node has at its log's end is set aside in a file, and read back as it was;
 * a file that is damaged, wherever, is found to be so, and nothing else happens.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hex.h"
#include "cluster/record.h"
#include "tests/lib/log_fixture.h"
#include "tests/lib/node_rig.h"

#define TERM  ((1ull << CLUSTER_EPOCH_SHIFT) | 1)
#define FIRST 3u /* of what is set aside mostly */
#define INTO  2u
#define FILES 8
#define KNOWN 2u /* committed */

static uint8_t *file; /* an orphan's bytes, and its name */
static size_t file_bytes;
static char name[ORPHAN_NAME_BYTES];

static void append(struct log *l, enum log_type type, const void *payload, uint32_t bytes)
{
    struct fixture_write *f;

    assert_int_equal(fixture_reserve(l, bytes), 0);
    f = fixture_write_make(log_last_index(l) + 1, TERM, type, bytes, 1);
    if (payload != NULL)
        memcpy((uint8_t *)f->write.buf + LOG_HEADER_BYTES, payload, bytes);
    log_write_seal(&f->write);
    assert_int_equal(log_append(l, &f->write), 0);
    while (!f->done)
        assert_true(fixture_turn(l) >= 0);
    fixture_write_free(f);
}

static void append_block(struct log *l, uint16_t node, uint64_t first)
{
    node_rig_fill(t.foreign, node, first);
    append(l, LOG_EVENTS, block_payload(t.foreign), t.foreign->write.record.payload_bytes);
}

/* Entries behind the first that the node has, as another leader might have sent them. */
static void append_all(unsigned large)
{
    struct log_config config = { .segment_bytes = 1 << 20, .writes_max = 64, .mark_idle_ms = 10 };
    struct log_origin origin = { .index = 0 };
    char error[LOG_ERROR_BYTES] = "";
    struct log *l;

    sha256(config.genesis, t.bootstrap.cluster_id, sizeof t.bootstrap.cluster_id, NULL, 0);
    memcpy(origin.digest, config.genesis, sizeof origin.digest);
    assert_int_equal(log_open(&l, t.disk, &config, &origin, NULL, NULL, error), 0);
    append(l, LOG_BARRIER, NULL, 0);
    append_block(l, SELF, 1000);
    append(l, LOG_SETTING, NULL, 9000);
    append_block(l, OTHER, 2000);
    append(l, LOG_AUDIT, NULL, 96);
    append(l, LOG_SETTING, NULL, LOG_ALIGN - LOG_HEADER_BYTES); /* without a zero behind it */
    append_block(l, SELF, 3000);
    for (unsigned i = 0; i < large; i++)
        append(l, LOG_SETTING, NULL, LOG_RECORD_BYTES_MAX - LOG_HEADER_BYTES);
    while (fixture_turn(l) > 0)
        ;
    log_close(l);
}

static void start_with(unsigned large)
{
    node_rig_start(false);
    node_free(t.c);
    t.c = NULL;
    append_all(large);
    node_rig_start(false);
    assert_int_equal(log_last_index(t.c->log), 8 + large);
    assert_int_equal(log_persisted_index(t.c->log), 8 + large);
    t.c->recovery.committed = KNOWN;
}

static char *path_of(const char *of)
{
    static char path[256];

    snprintf(path, sizeof path, "%s/orphans/%s", t.dir, of);
    return path;
}

static struct orphan_file listed[FILES];

static int list(void) { return orphan_list(t.dir, listed, FILES); }

static void put_file(const char *as, const void *bytes, size_t n)
{
    int fd = open(path_of(as), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
    close(fd);
}

static void keep_file(const char *of)
{
    struct stat s;
    int fd = open(path_of(of), O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &s), 0);
    free(file);
    file_bytes = (size_t)s.st_size;
    file = malloc(file_bytes);
    assert_non_null(file);
    assert_int_equal(read(fd, file, file_bytes), file_bytes);
    close(fd);
    snprintf(name, sizeof name, "%s", of);
}

/* The log's entries from there on. */
static void set_aside(uint64_t first)
{
    uint64_t last = log_last_index(t.c->log);
    int e = orphan_create(t.c, first, last, INTO);

    assert_int_equal(e, 0);
    while ((e = orphan_write(t.c)) == 1)
        ;
    assert_int_equal(e, 0);
    assert_int_equal(t.c->recovery.orphan.file, -1);
}

static void make_one(void)
{
    start_with(0);
    set_aside(FIRST);
    assert_int_equal(list(), 1);
    keep_file(listed[0].name);
}

/* All of a file. Returns 0 or the first error; what came before that is counted. */
static int read_all(const char *of, unsigned *ret_records)
{
    struct orphan_reader *r = NULL;
    struct log_record record;
    const void *payload;
    unsigned n = 0;
    int e = orphan_reader_open(&r, t.dir, of);

    assert_true((e == 0) == (r != NULL));
    if (e == 0) {
        while ((e = orphan_reader_next(r, &record, &payload)) == 1)
            n++;
        orphan_reader_close(r);
    }
    if (ret_records != NULL)
        *ret_records = n;
    return e;
}

static int teardown(void **state)
{
    free(file);
    file = NULL;
    return node_rig_teardown(state);
}

/* --- what is set aside --------------------------------------------------------------------------
 */

static void assert_as_in_the_log(const char *of, uint64_t first)
{
    struct orphan_reader *r;
    struct log_record record;
    struct peer_entry entry;
    const void *payload;

    assert_int_equal(orphan_reader_open(&r, t.dir, of), 0);
    assert_int_equal(orphan_reader_head(r)->first, first);
    for (uint64_t i = first; i <= log_last_index(t.c->log); i++) {
        assert_int_equal(orphan_reader_next(r, &record, &payload), 1);
        assert_int_equal(node_entry(t.c, i, &entry), 0);
        assert_int_equal(record.index, i);
        assert_int_equal(record.term, entry.record->term);
        assert_int_equal(record.time_ns, entry.record->time_ns);
        assert_int_equal(record.type, entry.record->type);
        assert_int_equal(record.payload_bytes, entry.record->payload_bytes);
        assert_memory_equal(record.payload_sha256, entry.record->payload_sha256, SHA256_BYTES);
        assert_memory_equal(payload, entry.payload, record.payload_bytes);
    }
    assert_int_equal(orphan_reader_next(r, &record, &payload), 0);
    assert_int_equal(orphan_reader_next(r, &record, &payload), 0);
    orphan_reader_close(r);
}

/* A manifest of losses goes by these: without them nothing was receipted. */
static void those_known_as_committed_are_counted(void **state)
{
    static const uint64_t known[] = { FIRST - 1, FIRST, 5, 6, 7, 8, 100 };

    (void)state;
    start_with(0);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint64_t events = 0;

        for (uint64_t at = FIRST; at <= 8 && at <= known[i]; at++) {
            struct peer_entry entry;
            struct block_view v;

            assert_int_equal(node_entry(t.c, at, &entry), 0);
            if (entry.record->type == LOG_EVENTS) {
                assert_int_equal(block_view(&v, entry.payload, entry.record->payload_bytes), 0);
                events += v.header->events;
            }
        }
        t.c->recovery.committed = known[i];
        set_aside(FIRST);
        assert_int_equal(list(), 1);
        assert_int_equal(listed[0].head.committed, known[i]);
        assert_int_equal(listed[0].head.events_committed, events);
    }
    assert_int_equal(listed[0].head.events_committed, 3 * EVENTS);
}

static void what_is_set_aside_is_read_back_as_it_was_in_the_log(void **state)
{
    uint8_t before[SHA256_BYTES], after[SHA256_BYTES];
    const struct orphan_head *h = &listed[0].head;
    char hex[2 * SHA256_BYTES + 1], begins[64];
    struct peer_entry entry;

    (void)state;
    make_one();
    assert_int_equal(listed[0].error, 0);
    assert_false(listed[0].reconciled);
    assert_int_equal(h->magic, ORPHAN_MAGIC);
    assert_int_equal(h->version, ORPHAN_VERSION);
    assert_int_equal(h->node, SELF);
    assert_int_equal(h->region, 1);
    assert_memory_equal(h->cluster_id, t.bootstrap.cluster_id, sizeof h->cluster_id);
    assert_int_equal(h->epoch, 1);
    assert_int_equal(h->into, INTO);
    assert_int_equal(h->first, FIRST);
    assert_int_equal(h->last, 8);
    assert_int_equal(h->entries, 6);
    assert_int_equal(h->events, 3 * EVENTS);
    assert_int_equal(h->bytes, file_bytes - LOG_ALIGN);
    assert_int_equal(h->committed, KNOWN);
    assert_int_equal(h->events_committed, 0);
    assert_int_equal(h->set_aside_ns, node_unix_ns(t.c));
    assert_int_equal(recovery_digest(t.c, FIRST - 1, before), 0);
    assert_memory_equal(h->before, before, SHA256_BYTES);
    log_digest(t.c->log, after);
    assert_memory_equal(h->after, after, SHA256_BYTES);
    assert_int_equal(node_entry(t.c, FIRST, &entry), 0);
    assert_int_equal(h->first_time_ns, entry.record->time_ns);
    assert_int_equal(h->last_time_ns, log_last_time_ns(t.c->log));
    snprintf(begins, sizeof begins, "orphan-1-3-8-");
    assert_memory_equal(name, begins, strlen(begins));
    hex_put(hex, after, SHA256_BYTES);
    assert_true(strlen(name) >= strlen(begins) + 16);
    assert_memory_equal(name + strlen(begins), hex, strlen(name + strlen(begins)));
    assert_as_in_the_log(name, FIRST);
}

/* The log is what it was, and it may be done again: from another place, or the same. */
static void files_are_listed_by_name_and_nothing_else_is(void **state)
{
    struct orphan_file *f = listed;

    (void)state;
    start_with(0);
    set_aside(8);
    set_aside(1);
    set_aside(4);
    assert_int_equal(list(), 3);
    set_aside(4);
    assert_int_equal(list(), 3);
    assert_int_equal(mkdir(path_of("orphan-a-directory"), 0700), 0);
    put_file("new", "x", 1);
    put_file("orphans", "x", 1);
    put_file("an-orphan-1", "x", 1);
    put_file("reconcile", "x", 1);
    put_file("orphan-1-0", "x", 1);
    put_file("orphan-1-5-89012345678901234567890123456789012345678901234567890123456789"
             "012345678901234567890123456789",
             "x", 1); /* longer than a name is */
    assert_int_equal(list(), 5);
    for (unsigned i = 1; i < 5; i++)
        assert_true(strcmp(f[i - 1].name, f[i].name) < 0);
    assert_string_equal(f[0].name, "orphan-1-0");
    assert_int_equal(f[0].error, -EILSEQ);
    assert_int_equal(f[1].head.first, 1);
    assert_int_equal(f[2].head.first, 4);
    assert_int_equal(f[3].head.first, 8);
    assert_string_equal(f[4].name, "orphan-a-directory");
    assert_true(f[4].error < 0);
    for (unsigned i = 1; i < 4; i++) {
        assert_int_equal(f[i].error, 0);
        assert_as_in_the_log(f[i].name, f[i].head.first);
    }
    assert_int_equal(orphan_list(t.dir, listed, 0), 0);
    assert_int_equal(orphan_mark_reconciled(t.dir, f[1].name), 0);
    assert_int_equal(orphan_mark_reconciled(t.dir, f[2].name), 0);
    assert_int_equal(orphan_list(t.dir, listed, 3), 3); /* of more, those that are to be done */
    for (unsigned i = 0; i < 3; i++)
        assert_false(listed[i].reconciled);
    assert_int_equal(list(), 5);
}

static void a_directory_that_is_not_there_has_none(void **state)
{
    struct orphan_reader *r = NULL;

    (void)state;
    start_with(0);
    assert_int_equal(list(), 0);
    assert_int_equal(orphan_list("/tmp/no/such/directory", listed, FILES), 0);
    assert_int_equal(orphan_reader_open(&r, t.dir, "orphan-1"), -ENOENT);
    assert_int_equal(orphan_mark_reconciled(t.dir, "orphan-1"), -ENOENT);
    set_aside(FIRST);
    assert_int_equal(orphan_reader_open(&r, t.dir, "orphan-1"), -ENOENT);
    assert_null(r);
}

/* It takes several turns, and until the last of them there is no file of that name. */
static void a_file_has_its_name_only_when_all_of_it_is_there(void **state)
{
    const unsigned large = 40; /* 10 MiB */
    unsigned turns = 0;

    (void)state;
    start_with(large);
    assert_int_equal(orphan_create(t.c, FIRST, 8 + large, INTO), 0);
    while (orphan_write(t.c) == 1) {
        assert_int_equal(list(), 0);
        turns++;
    }
    assert_in_range(turns, 2, 8);
    assert_int_equal(list(), 1);
    assert_int_equal(listed[0].head.entries, 6 + large);
    assert_as_in_the_log(listed[0].name, FIRST);
}

/* What was left in the middle is begun anew, shorter or not. */
static void what_was_given_up_is_done_again(void **state)
{
    const unsigned large = 40;

    (void)state;
    start_with(large);
    assert_int_equal(orphan_create(t.c, FIRST, 8 + large, INTO), 0);
    assert_int_equal(orphan_write(t.c), 1);
    orphan_close(&t.c->recovery.orphan);
    assert_int_equal(t.c->recovery.orphan.file, -1);
    orphan_close(&t.c->recovery.orphan);
    assert_int_equal(list(), 0);
    set_aside(8 + large);
    assert_int_equal(list(), 1);
    assert_int_equal(listed[0].head.bytes, LOG_RECORD_BYTES_MAX);
    keep_file(listed[0].name);
    assert_int_equal(file_bytes, LOG_ALIGN + LOG_RECORD_BYTES_MAX);
    assert_as_in_the_log(listed[0].name, 8 + large);
}

static void rot_in_the_log_is_not_set_aside(void **state)
{
    const char *segment = NULL;
    uint8_t *p;

    (void)state;
    start_with(0);
    for (size_t n = 0; segment == NULL || strstr(segment, ".seg") == NULL; n++)
        assert_non_null(segment = test_disk_name(t.disk, n));
    p = test_disk_bytes(t.disk, segment, NULL);
    assert_non_null(p);
    p[LOG_ALIGN * 4 + LOG_HEADER_BYTES + 7] ^= 1; /* entry 4: behind a head, and three of a page */
    assert_int_equal(orphan_create(t.c, FIRST, 8, INTO), 0);
    assert_int_equal(orphan_write(t.c), -EILSEQ);
    assert_int_equal(t.c->recovery.orphan.file, -1);
    assert_int_equal(t.c->recovery.orphan.next, 4);
    assert_int_equal(list(), 0);
    p[LOG_ALIGN * 4 + LOG_HEADER_BYTES + 7] ^= 1;
    set_aside(FIRST);
    assert_int_equal(list(), 1);
    assert_as_in_the_log(listed[0].name, FIRST);
}

static void where_there_can_be_no_file_nothing_is_begun(void **state)
{
    char path[256];

    (void)state;
    start_with(0);
    snprintf(path, sizeof path, "%s/orphans", t.dir);
    close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    assert_true(orphan_create(t.c, FIRST, 8, INTO) < 0);
    assert_int_equal(t.c->recovery.orphan.file, -1);
    assert_true(list() < 0);
    assert_int_equal(unlink(path), 0);
    set_aside(FIRST);
    assert_int_equal(list(), 1);
}

/* --- reconciled ---------------------------------------------------------------------------------
 */

static void one_that_was_offered_again_has_another_name_and_is_as_it_was(void **state)
{
    char open_name[ORPHAN_NAME_BYTES];

    (void)state;
    make_one();
    set_aside(5);
    snprintf(open_name, sizeof open_name, "%s", name);
    assert_int_equal(orphan_mark_reconciled(t.dir, open_name), 0);
    assert_int_equal(list(), 2);
    assert_false(listed[0].reconciled);
    assert_int_equal(listed[0].head.first, 5);
    assert_true(listed[1].reconciled);
    assert_int_equal(listed[1].head.first, FIRST);
    assert_int_equal(listed[1].error, 0);
    assert_memory_equal(listed[1].name, "reconciled-", 11);
    assert_string_equal(listed[1].name + 11, open_name + 7);
    assert_as_in_the_log(listed[1].name, FIRST);
    assert_int_equal(orphan_mark_reconciled(t.dir, listed[1].name), 0);
    assert_int_equal(orphan_mark_reconciled(t.dir, open_name), -ENOENT);
    assert_int_equal(list(), 2);
}

static void no_other_name_leads_to_a_file(void **state)
{
    const char *const no[] = { "../log/state",     "/etc/passwd",      "orphan-/",
                               "orphan-/../../x",  "orphans/orphan-1", "./orphan-1",
                               "orphan-1/orphan-1" };
    const char *const neither[] = { "", ".", "..", "new", "orphan", "x-orphan-1" };
    struct orphan_reader *r = NULL;
    char path[256];

    (void)state;
    make_one();
    put_file("new", file, file_bytes);
    for (unsigned i = 0; i < sizeof no / sizeof *no; i++) {
        assert_int_equal(orphan_reader_open(&r, t.dir, no[i]), -EINVAL);
        assert_int_equal(orphan_mark_reconciled(t.dir, no[i]), -EINVAL);
    }
    for (unsigned i = 0; i < sizeof neither / sizeof *neither; i++)
        assert_int_equal(orphan_mark_reconciled(t.dir, neither[i]), -EINVAL);
    for (unsigned i = 0; i < 3; i++)
        assert_true(orphan_reader_open(&r, t.dir, neither[i]) < 0);
    snprintf(path, sizeof path, "../orphans/%s", name);
    assert_int_equal(orphan_reader_open(&r, t.dir, path), -EINVAL);
    assert_null(r);
    assert_int_equal(list(), 1);
    assert_string_equal(listed[0].name, name);
}

/* --- damage -------------------------------------------------------------------------------------
 */

/* The file with these bytes in it: is it known to be damaged? */
static void assert_damaged(const char *what, size_t at)
{
    int e;

    put_file(name, file, file_bytes);
    e = read_all(name, NULL);
    if (e != -EILSEQ)
        fail_msg("%s at %zu: %d", what, at, e);
}

static void flip(const char *what, size_t at)
{
    assert_true(at < file_bytes);
    file[at] ^= 0x20;
    assert_damaged(what, at);
    file[at] ^= 0x20;
}

static void assert_sound(void)
{
    unsigned n;

    put_file(name, file, file_bytes);
    assert_int_equal(read_all(name, &n), 0);
    assert_int_equal(n, 6);
}

static void damage_of_the_head_is_found_before_anything_is_read(void **state)
{
    struct orphan_reader *r = NULL;

    (void)state;
    make_one();
    set_aside(5);
    for (size_t at = 0; at < sizeof(struct orphan_head); at++) {
        flip("the head", at);
        assert_int_equal(orphan_reader_open(&r, t.dir, name), -EILSEQ);
        assert_null(r);
        assert_int_equal(list(), 2);
        assert_string_equal(listed[0].name, name);
        assert_int_equal(listed[0].error, -EILSEQ);
        assert_int_equal(listed[1].error, 0);
    }
    assert_sound();
}

static size_t record_at(uint64_t index)
{
    size_t at = LOG_ALIGN;

    for (uint64_t i = FIRST; i < index; i++)
        at += record_bytes(((struct record_header *)(file + at))->agreed.payload_bytes);
    assert_int_equal(((struct record_header *)(file + at))->agreed.index, index);
    return at;
}

/* Before this record is given to anybody. */
static void flip_early(uint64_t index, const char *what, size_t at)
{
    unsigned n;

    flip(what, at);
    assert_int_equal(read_all(name, &n), -EILSEQ);
    assert_int_equal(n, index - FIRST);
}

/* Of the node's own part only the payload's CRC is needed here. */
static void damage_of_a_record_is_found_by_the_end_at_the_latest(void **state)
{
    (void)state;
    make_one();
    for (uint64_t i = FIRST; i <= 8; i++) {
        const struct record_header *h = (const struct record_header *)(file + record_at(i));
        size_t at = record_at(i), end = at + record_bytes(h->agreed.payload_bytes);

        for (size_t n = 0; n < sizeof h->magic; n++)
            flip_early(i, "the magic number", at + n);
        for (size_t n = 0; n < sizeof h->payload_crc; n++)
            flip_early(i, "the CRC", at + offsetof(struct record_header, payload_crc) + n);
        for (size_t n = 0; n < sizeof h->agreed; n++)
            flip("the agreed part", at + offsetof(struct record_header, agreed) + n);
        for (size_t n = at + LOG_HEADER_BYTES; n < end; n += n < at + 400 ? 1 : 211)
            flip_early(i, "a payload, or what is behind it", n);
        for (size_t n = 0; n < sizeof h->agreed.before + sizeof h->agreed.index; n++)
            flip_early(i, "its place", at + offsetof(struct record_header, agreed.before) + n);
        flip_early(i, "the last byte", end - 1);
    }
    assert_sound();
}

static void set_u32(size_t at, uint32_t value)
{
    uint32_t was;

    memcpy(&was, file + at, sizeof was);
    memcpy(file + at, &value, sizeof value);
    assert_damaged("a length", at);
    memcpy(file + at, &was, sizeof was);
}

static void a_record_says_nothing_that_leads_out_of_its_file(void **state)
{
    const uint32_t most[] = { UINT32_MAX,
                              UINT32_MAX - LOG_HEADER_BYTES,
                              LOG_RECORD_BYTES_MAX,
                              LOG_RECORD_BYTES_MAX - LOG_HEADER_BYTES + 1,
                              LOG_RECORD_BYTES_MAX - LOG_HEADER_BYTES,
                              LOG_ALIGN };

    (void)state;
    make_one();
    for (uint64_t i = FIRST; i <= 8; i++) {
        for (unsigned n = 0; n < sizeof most / sizeof *most; n++)
            set_u32(record_at(i) + offsetof(struct record_header, agreed.payload_bytes), most[n]);
    }
    assert_sound();
}

static void a_file_that_is_cut_anywhere_is_damaged(void **state)
{
    size_t whole;
    unsigned n;

    (void)state;
    make_one();
    whole = file_bytes;
    for (file_bytes = 0; file_bytes < whole; file_bytes += file_bytes < 600 ? 1 : 173)
        assert_damaged("a cut", file_bytes);
    for (file_bytes = LOG_ALIGN; file_bytes < whole; file_bytes += LOG_ALIGN)
        assert_damaged("a cut between pages", file_bytes);
    file_bytes = whole - 1;
    assert_damaged("a cut", file_bytes);
    /* What came before the cut is read first. */
    file_bytes = record_at(6);
    put_file(name, file, file_bytes);
    assert_int_equal(read_all(name, &n), -EILSEQ);
    assert_int_equal(n, 6 - FIRST);
    file_bytes = whole;
    assert_sound();
}

/* Of two files that are each sound. */
static void records_of_another_file_or_in_another_order_are_not_taken(void **state)
{
    uint8_t *one, *page;
    size_t one_bytes, at;

    (void)state;
    make_one();
    one = malloc(file_bytes);
    page = malloc(LOG_ALIGN);
    assert_true(one != NULL && page != NULL);
    memcpy(one, file, file_bytes);
    one_bytes = file_bytes;
    set_aside(5);
    assert_int_equal(list(), 2);
    keep_file(listed[1].name);
    memcpy(file, one, LOG_ALIGN);
    assert_damaged("the head of another", 0);
    keep_file(listed[0].name);
    assert_int_equal(file_bytes, one_bytes);
    at = record_at(6);
    memcpy(page, file + at, LOG_ALIGN); /* an audit entry, and one of a page behind it */
    memcpy(file + at, file + at + LOG_ALIGN, LOG_ALIGN);
    memcpy(file + at + LOG_ALIGN, page, LOG_ALIGN);
    assert_damaged("two in the place of each other", at);
    memcpy(file + at + LOG_ALIGN, file + at, LOG_ALIGN);
    memcpy(file + at, page, LOG_ALIGN);
    assert_sound();
    memmove(file + at, file + at + LOG_ALIGN, file_bytes - at - LOG_ALIGN);
    file_bytes -= LOG_ALIGN;
    assert_damaged("one that is missing", at);
    free(one);
    free(page);
}

static void a_file_of_another_kind_under_an_orphans_name_is_damaged(void **state)
{
    const char *segment = NULL;
    uint64_t n;
    uint8_t *p;

    (void)state;
    make_one();
    for (size_t i = 0; segment == NULL || strstr(segment, ".seg") == NULL; i++)
        assert_non_null(segment = test_disk_name(t.disk, i));
    p = test_disk_bytes(t.disk, segment, &n);
    put_file("orphan-1-1-8-00", p, n);
    assert_int_equal(list(), 2);
    assert_string_equal(listed[0].name, "orphan-1-1-8-00");
    assert_int_equal(listed[0].error, -EILSEQ);
    assert_int_equal(read_all("orphan-1-1-8-00", NULL), -EILSEQ);
    put_file("orphan-1-1-8-00", "", 0);
    assert_int_equal(read_all("orphan-1-1-8-00", NULL), -EILSEQ);
    assert_int_equal(unlink(path_of("orphan-1-1-8-00")), 0);
    assert_sound();
}

/* With a CRC that is right. */
static void a_head_that_cannot_be_is_damaged_whatever_its_crc_says(void **state)
{
    const size_t skipped = offsetof(struct orphan_head, node);
    const uint64_t range[][2] = { { 0, 8 }, { 0, 0 }, { 8, 3 }, { 4, 8 }, { 3, 9 }, { 3, 7 } };
    struct orphan_head *h, was;

    (void)state;
    make_one();
    h = (struct orphan_head *)file;
    was = *h;
    assert_int_equal(h->crc, crc32c(0, file + skipped, sizeof *h - skipped));
    for (unsigned i = 0; i < sizeof range / sizeof *range; i++) {
        h->first = range[i][0];
        h->last = range[i][1];
        h->crc = crc32c(0, file + skipped, sizeof *h - skipped);
        assert_damaged("a range", i);
        assert_int_equal(list(), 1);
        assert_int_equal(listed[0].error, i < 3 ? -EILSEQ : 0); /* of the others it is the end */
        *h = was;
    }
    h->last = UINT64_MAX;
    h->crc = crc32c(0, file + skipped, sizeof *h - skipped);
    assert_damaged("a range", UINT64_MAX);
    *h = was;
    h->before[5] ^= 1;
    h->crc = crc32c(0, file + skipped, sizeof *h - skipped);
    assert_damaged("the digest before it", 0);
    *h = was;
    h->after[31] ^= 1;
    h->crc = crc32c(0, file + skipped, sizeof *h - skipped);
    assert_damaged("the last digest", 0);
    *h = was;
    assert_sound();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, node_rig_setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(those_known_as_committed_are_counted),
        TEST(what_is_set_aside_is_read_back_as_it_was_in_the_log),
        TEST(files_are_listed_by_name_and_nothing_else_is),
        TEST(a_directory_that_is_not_there_has_none),
        TEST(a_file_has_its_name_only_when_all_of_it_is_there),
        TEST(what_was_given_up_is_done_again),
        TEST(rot_in_the_log_is_not_set_aside),
        TEST(where_there_can_be_no_file_nothing_is_begun),
        TEST(one_that_was_offered_again_has_another_name_and_is_as_it_was),
        TEST(no_other_name_leads_to_a_file),
        TEST(damage_of_the_head_is_found_before_anything_is_read),
        TEST(damage_of_a_record_is_found_by_the_end_at_the_latest),
        TEST(a_record_says_nothing_that_leads_out_of_its_file),
        TEST(a_file_that_is_cut_anywhere_is_damaged),
        TEST(records_of_another_file_or_in_another_order_are_not_taken),
        TEST(a_file_of_another_kind_under_an_orphans_name_is_damaged),
        TEST(a_head_that_cannot_be_is_damaged_whatever_its_crc_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
