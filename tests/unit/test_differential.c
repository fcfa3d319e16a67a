/*
 * test_differential.c - decode and validate against Google's protobuf for Python.
 *
 * Whatever they accept, Python accepts with the same values, field by field. Messages are samples,
 * samples with mutations, and messages put together from fields at random, all from one seed.
 *
 *   SLUICE_DIFFERENTIAL_MESSAGES  how many (20000)
 *   SLUICE_DIFFERENTIAL_SEED      (1)
 *
 * Runs in the source tree's root. Skipped (77) where Python has no protobuf.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <spawn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/edit.h"
#include "tests/lib/line.h"
#include "tests/lib/sample.h"

#define PYTHON     "/usr/bin/python3"
#define SCRIPT     "tests/e2e/differential.py"
#define LINE_BYTES 16384u

extern char **environ;

static char dir[256];
static uint64_t seed, messages;

/* --- making messages ------------------------------------------------------------------------ */

static struct sample_random rng;

static uint64_t below(uint64_t limit) { return sample_below(&rng, limit); }

static void sample_make(struct edit *e)
{
    static const unsigned types[] = { 1, 2, 3, SAMPLE_CUSTOM };

    e->bytes = sample_event(e->data, sizeof e->data,
                            &(struct sample){ .type = types[below(4)],
                                              .n = below(100000),
                                              .without_id = below(4) == 0,
                                              .attributes = below(2) == 0 });
}

/* Text at and around what UTF-8 allows, and around the bounds of fields. */
static void text_add(struct edit *e, uint32_t field)
{
    static const char *const piece[] = {
        "a",    "AAPL",         "\xc3\xbc",     "\xe2\x82\xac",     "\xf0\x9f\x98\x80", "xxxxxxxx",
        "\x7f", "\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf", "\xc2\x80"
    };
    static const char *const bad[] = { "\xff",     "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                       "\xe2\x82", "\xf5" };
    char text[64] = "";
    size_t n = below(4);

    for (size_t i = 0; i < n; i++)
        strcat(text, piece[below(sizeof piece / sizeof piece[0])]);
    if (below(12) == 0)
        strcat(text, bad[below(sizeof bad / sizeof bad[0])]);
    /* Sometimes with a NUL in it. */
    if (n > 0 && below(12) == 0)
        text[below(strlen(text))] = 0;
    edit_bytes(e, field, text, text[0] != 0 ? strlen(text) : below(3));
}

static uint64_t number(void)
{
    static const uint64_t edge[] = { 0,         1,          18,         19,        127,       128,
                                     INT32_MAX, UINT32_MAX, 1ull << 32, INT64_MAX, UINT64_MAX };

    return below(3) == 0 ? edge[below(sizeof edge / sizeof edge[0])] : below(19);
}

/* A detail of numbered fields: 's' text, 'n' number, 'f' fixed64, 'l' levels, 'b' bool. */
static void detail_make(struct edit *e, const char *fields)
{
    struct edit level;

    e->bytes = 0;
    for (uint32_t i = 0; fields[i] != 0; i++) {
        if (below(3) == 0)
            continue;
        switch (fields[i]) {
        case 's':
            text_add(e, i + 1);
            break;
        case 'n':
            edit_number(e, i + 1, number());
            break;
        case 'f':
            edit_fixed64(e, i + 1, sample_random(&rng));
            break;
        default:
            for (uint64_t n = below(4); n > 0; n--) {
                level.bytes = 0;
                edit_number(&level, 1, 100 + below(100));
                edit_number(&level, 2, number());
                edit_number(&level, below(8) == 0 ? 4 : 3, number());
                edit_message(e, i + 1, &level);
            }
        }
    }
    if (below(8) == 0)
        edit_number(e, 1 + (uint32_t)below(16), number());
}

static void fields_make(struct edit *e)
{
    static const char *const fields[] = { "nnnnssnsnsf", "nnnnnnsssnsf", "llnnsnnsf", "ss" };
    static struct edit inner;
    unsigned detail = (unsigned)below(4), type = detail < 3 ? detail + 1 : SAMPLE_CUSTOM;

    e->bytes = 0;
    edit_number(e, 1, below(12) == 0 ? number() : type);
    text_add(e, 2);
    if (below(2) == 0)
        text_add(e, 3);
    edit_fixed64(e, 4, SAMPLE_TIME_NS + below(1000));
    if (below(2) == 0)
        text_add(e, 5);
    detail_make(&inner, fields[detail]);
    edit_message(e, detail + 6, &inner);
    for (uint64_t n = below(3); n > 0; n--) {
        detail_make(&inner, "ss");
        edit_message(e, 10, &inner);
    }
    if (below(8) == 0)
        edit_text(e, 11, "1234567890123456789012345");
    if (below(8) == 0)
        edit_number(e, 16 + (uint32_t)below(2000), number());
    if (below(20) == 0)
        text_add(e, 1 + (uint32_t)below(16));
}

static void mutate(struct edit *e)
{
    size_t at = below(e->bytes + 1), n, left = e->bytes - at;
    static struct edit other;

    switch (below(6)) {
    case 0: /* cut */
        e->bytes = at;
        break;
    case 1: /* a piece twice */
        n = below(left + 1);
        memmove(e->data + at + n, e->data + at, left);
        e->bytes += n;
        break;
    case 2: /* a piece away */
        n = below(left + 1) % 16;
        memmove(e->data + at, e->data + at + n, left - n);
        e->bytes -= n;
        break;
    case 3: /* the end of another one */
        sample_make(&other);
        n = below(other.bytes);
        memcpy(e->data + at, other.data + n, other.bytes - n);
        e->bytes = at + other.bytes - n;
        break;
    default: /* bits */
        for (n = 1 + below(2); n > 0 && e->bytes > 0; n--)
            e->data[below(e->bytes)] ^= (uint8_t)(1u << below(8));
    }
}

/* The i-th message; the same for the same seed. */
static void message_make(struct edit *e, uint64_t i)
{
    rng.state = seed * 0x100000001b3ull + i;
    if (below(3) == 0)
        fields_make(e);
    else
        sample_make(e);
    if (i % 8 != 0)
        for (uint64_t n = below(3); n > 0; n--)
            mutate(e);
}

/* --- what we read, as differential.py prints it --------------------------------------------- */

static char *hex(char *to, const void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        to += sprintf(to, "%02x", ((const uint8_t *)data)[i]);
    *to = 0;
    return to;
}

static char *word(char *to, const char *text)
{
    to = hex(to, text, strlen(text));
    return to + sprintf(to, " ");
}

static char *trade_print(char *to, const sluice_v1_Trade *t)
{
    to += sprintf(to, "trade %" PRId64 " %u %" PRIu64 " %u ", t->price, t->price_scale, t->size,
                  t->size_scale);
    to = word(word(to, t->venue), t->conditions);
    to += sprintf(to, "%" PRIu64 " ", t->sequence);
    to = word(to, t->trade_id);
    to = word(to + sprintf(to, "%d ", (int)t->aggressor), t->currency);
    return to + sprintf(to, "%" PRIu64, t->venue_timestamp_ns);
}

static char *quote_print(char *to, const sluice_v1_Quote *q)
{
    to += sprintf(to, "quote %" PRId64 " %" PRIu64 " %" PRId64 " %" PRIu64 " %u %u ", q->bid_price,
                  q->bid_size, q->ask_price, q->ask_size, q->price_scale, q->size_scale);
    to = word(word(word(to, q->bid_venue), q->ask_venue), q->conditions);
    to = word(to + sprintf(to, "%" PRIu64 " ", q->sequence), q->currency);
    return to + sprintf(to, "%" PRIu64, q->venue_timestamp_ns);
}

static char *levels_print(char *to, const sluice_v1_Level *l, size_t n)
{
    to += sprintf(to, "[");
    for (size_t i = 0; i < n; i++)
        to += sprintf(to, "%s%" PRId64 ":%" PRIu64 ":%u", i > 0 ? " " : "", l[i].price, l[i].size,
                      l[i].orders);
    return to + sprintf(to, "] ");
}

static char *orderbook_print(char *to, const sluice_v1_OrderBook *b)
{
    to += sprintf(to, "orderbook ");
    to = levels_print(to, b->bids, b->bids_count);
    to = levels_print(to, b->asks, b->asks_count);
    to = word(to + sprintf(to, "%u %u ", b->price_scale, b->size_scale), b->venue);
    to = word(to + sprintf(to, "%" PRIu64 " %d ", b->sequence, b->is_snapshot), b->currency);
    return to + sprintf(to, "%" PRIu64, b->venue_timestamp_ns);
}

static char *detail_print(char *to, const struct event *ev)
{
    switch (ev->detail) {
    case sluice_v1_Event_trade_tag:
        return trade_print(to, &ev->trade);
    case sluice_v1_Event_quote_tag:
        return quote_print(to, &ev->quote);
    case sluice_v1_Event_orderbook_tag:
        return orderbook_print(to, &ev->orderbook);
    case sluice_v1_Event_custom_tag:
        to += sprintf(to, "custom ");
        return hex(to, ev->schema.data, ev->schema.bytes);
    default:
        return to + sprintf(to, "none");
    }
}

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

static char *attributes_print(char *to, const struct event *ev)
{
    static char entry[EVENT_ATTRIBUTES_MAX][400];
    char *at;

    for (size_t i = 0; i < ev->attributes; i++) {
        at = hex(entry[i], ev->attribute_key[i].data, ev->attribute_key[i].bytes);
        at += sprintf(at, "=");
        hex(at, ev->attribute_value[i].data, ev->attribute_value[i].bytes);
    }
    qsort(entry, ev->attributes, sizeof entry[0], by_text);
    for (size_t i = 0; i < ev->attributes; i++)
        to += sprintf(to, "%s%s", i > 0 ? " " : "", entry[i]);
    return to;
}

static void event_print(char *to, const struct event *ev)
{
    to += sprintf(to, "%u|%" PRIu64 "|", ev->type, ev->timestamp_ns);
    to = hex(to, ev->source.data, ev->source.bytes);
    to = hex(to + sprintf(to, "|"), ev->id.data, ev->id.bytes);
    to = hex(to + sprintf(to, "|"), ev->symbol.data, ev->symbol.bytes);
    to = detail_print(to + sprintf(to, "|"), ev);
    to = attributes_print(to + sprintf(to, "|"), ev);
    to = hex(to + sprintf(to, "|"), ev->traceparent.data, ev->traceparent.bytes);
    sprintf(to, "\n");
}

/* --- Python --------------------------------------------------------------------------------- */

static void path_in_dir(char *to, size_t to_bytes, const char *name)
{
    assert_in_range(snprintf(to, to_bytes, "%s/%s", dir, name), 1, to_bytes - 1);
}

static int python_run(char *const argv[], const char *in, const char *out)
{
    posix_spawn_file_actions_t actions;
    int status, r;
    pid_t pid;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, in, O_RDONLY, 0);
    if (out != NULL)
        posix_spawn_file_actions_addopen(&actions, 1, out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    r = posix_spawn(&pid, PYTHON, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (r != 0)
        return -r;
    if (waitpid(pid, &status, 0) != pid)
        return -errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -ECHILD;
}

static void messages_write(const char *path)
{
    static struct edit e;
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    for (uint64_t i = 0; i < messages; i++) {
        uint64_t n;

        message_make(&e, i);
        for (n = e.bytes; n >= 0x80; n >>= 7)
            putc((int)(n & 0x7f) | 0x80, f);
        putc((int)n, f);
        assert_int_equal(fwrite(e.data, 1, e.bytes, f), e.bytes);
    }
    assert_int_equal(fclose(f), 0);
}

static void mismatch(uint64_t i, const struct edit *e, const char *ours, const char *theirs)
{
    static char text[2 * sizeof e->data + 1];

    hex(text, e->data, e->bytes);
    fail_msg("seed %" PRIu64 ", message %" PRIu64 ": %s\n  ours:   %s  python: %s", seed, i, text,
             ours, theirs);
}

static void what_we_accept_python_reads_alike(void **state)
{
    static char ours[LINE_BYTES], theirs[LINE_BYTES];
    static struct edit e;
    char in[300], out[300];
    char *const argv[] = { PYTHON, SCRIPT, dir, ".", NULL };
    uint64_t accepted = 0, stricter = 0;
    struct line *l = line_new();
    unsigned reason;
    FILE *f;

    path_in_dir(in, sizeof in, "messages");
    path_in_dir(out, sizeof out, "lines");
    messages_write(in);
    assert_int_equal(python_run(argv, in, out), 0);
    f = fopen(out, "r");
    assert_non_null(f);
    for (uint64_t i = 0; i < messages; i++) {
        message_make(&e, i);
        assert_non_null(fgets(theirs, sizeof theirs, f));
        reason = line_validate(l, e.data, e.bytes);
        if (reason != 0) {
            stricter += theirs[0] != '-';
            continue;
        }
        accepted++;
        event_print(ours, &l->ev[0]);
        if (strcmp(ours, theirs) != 0)
            mismatch(i, &e, ours, theirs);
    }
    assert_null(fgets(theirs, sizeof theirs, f));
    fclose(f);
    print_message("%" PRIu64 " messages, %" PRIu64 " accepted by both, %" PRIu64
                  " by Python alone, seed %" PRIu64 "\n",
                  messages, accepted, stricter, seed);
    /* The comparison must have had something to compare. */
    assert_true(accepted > messages / 10);
    assert_true(accepted < messages - messages / 10);
    line_free(l);
}

/* --- set up --------------------------------------------------------------------------------- */

static uint64_t env_number(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);

    return text != NULL && *text != 0 ? strtoull(text, NULL, 10) : fallback;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(what_we_accept_python_reads_alike) };
    char *const probe[] = { PYTHON, "-c", "import google.protobuf", NULL };
    const char *tmp = getenv("TMPDIR");
    int failed;

    if (access(PYTHON, X_OK) != 0 || python_run(probe, "/dev/null", NULL) != 0) {
        printf("skipped: %s has no protobuf (package python3-protobuf)\n", PYTHON);
        return 77;
    }
    messages = env_number("SLUICE_DIFFERENTIAL_MESSAGES", 20000);
    seed = env_number("SLUICE_DIFFERENTIAL_SEED", 1);
    snprintf(dir, sizeof dir, "%s/sluice-differential-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(dir) == NULL) {
        perror(dir);
        return 1;
    }
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    return failed;
}
