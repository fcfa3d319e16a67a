/*
 * test_report.c - report lines: valid JSON whatever is quoted, one write a line, rate limits.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/report.h"

/* A packet pipe: one read(2) gives what one write(2) gave. */
static int pipe_fd[2];

static int set_up(void **state)
{
    assert_int_equal(pipe2(pipe_fd, O_DIRECT | O_NONBLOCK | O_CLOEXEC), 0);
    return 0;
}

static int tear_down(void **state)
{
    close(pipe_fd[0]);
    close(pipe_fd[1]);
    report_init(REPORT_INFO, REPORT_JSON, STDERR_FILENO);
    return 0;
}

/* The next line, "" when there is none. */
static const char *line(void)
{
    static char text[REPORT_LINE_BYTES + 1];
    ssize_t n = read(pipe_fd[0], text, REPORT_LINE_BYTES);

    text[n > 0 ? n : 0] = '\0';
    if (n > 0)
        assert_ptr_equal(strchr(text, '\n'), text + n - 1); /* one line, and a whole one */
    return text;
}

static json_t *json_line(void)
{
    json_error_t e;
    const char *text = line();
    json_t *j = json_loads(text, 0, &e);

    if (j == NULL)
        fail_msg("not JSON (%s): %s", e.text, text);
    return j;
}

static const char *field(json_t *j, const char *name)
{
    return json_string_value(json_object_get(j, name));
}

static void a_line_has_time_level_event_and_message(void **state)
{
    json_t *j;

    report_init(REPORT_INFO, REPORT_JSON, pipe_fd[1]);
    errno = ENOSPC;
    report_warn("disk_full", "%d bytes left on %s", 7, "/data");
    assert_int_equal(errno, ENOSPC);
    j = json_line();
    assert_string_equal(field(j, "level"), "warn");
    assert_string_equal(field(j, "event"), "disk_full");
    assert_string_equal(field(j, "message"), "7 bytes left on /data");
    assert_int_equal(strlen(field(j, "time")), 27);
    assert_int_equal(field(j, "time")[26], 'Z');
    assert_int_equal(json_object_size(j), 4);
    json_decref(j);
    assert_string_equal(line(), "");
}

static void lines_below_the_level_are_dropped(void **state)
{
    struct report_limit limit = { 0 };

    report_init(REPORT_WARN, REPORT_JSON, pipe_fd[1]);
    report_debug("x", "x");
    report_info("x", "x");
    report_every(&limit, 1, REPORT_INFO, "x", "x");
    assert_string_equal(line(), "");
    report_error("x", "x");
    assert_non_null(strstr(line(), "\"level\":\"error\""));
}

static void text_is_for_people(void **state)
{
    const char *text;

    report_init(REPORT_DEBUG, REPORT_TEXT, pipe_fd[1]);
    report_debug("started", "node %d", 3);
    text = line();
    assert_non_null(strstr(text, " debug started: node 3\n"));
    report_init(REPORT_INFO, REPORT_AUTO, pipe_fd[1]); /* no terminal */
    report_info("started", "node");
    assert_int_equal(line()[0], '{');
}

static void nothing_quoted_can_forge_a_line_or_reach_the_terminal(void **state)
{
    char all[256];
    const char *text;
    json_t *j;

    for (int i = 1; i < 256; i++)
        all[i - 1] = (char)i;
    all[255] = '\0';
    report_init(REPORT_INFO, REPORT_JSON, pipe_fd[1]);
    report_info("bytes", "%s", all);
    j = json_line();
    assert_non_null(field(j, "message"));
    json_decref(j);
    report_info("forged", "%s", "x\"}\n{\"level\":\"error\"");
    j = json_line();
    assert_string_equal(field(j, "message"), "x\"}\n{\"level\":\"error\"");
    json_decref(j);
    report_info("terminal", "\x1b[2J \xc2\x9b"
                            "31m \x7f");
    text = line();
    assert_null(strpbrk(text, "\x1b\x7f\xc2\x9b"));
    report_init(REPORT_INFO, REPORT_TEXT, pipe_fd[1]);
    report_info("terminal",
                "%s\x1b[2J\r\n\xc2\x9b"
                "31m",
                all);
    text = line();
    for (const char *p = text; p[1] != '\0'; p++)
        assert_true((unsigned char)*p >= 0x20 && (unsigned char)*p < 0x7f);
}

static void valid_utf8_stays_and_the_rest_is_replaced(void **state)
{
    static const struct {
        const char *in, *out;
    } text[] = {
        { "\xe2\x82\xac \xf0\x9f\x93\x88", "\xe2\x82\xac \xf0\x9f\x93\x88" },
        { "a\xffz", "a\xef\xbf\xbdz" },
        { "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd" },                 /* overlong */
        { "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" }, /* surrogate */
        { "\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
        { "\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd" }, /* cut off */
        { "back\\slash", "back\\slash" },
    };

    report_init(REPORT_INFO, REPORT_JSON, pipe_fd[1]);
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        json_t *j;

        report_info("x", "%s", text[i].in);
        j = json_line();
        assert_string_equal(field(j, "message"), text[i].out);
        json_decref(j);
    }
}

static void long_messages_are_cut_and_the_line_stays_whole(void **state)
{
    for (size_t bytes = 900; bytes < 3000; bytes += 7)
        for (int kind = 0; kind < 3; kind++) {
            char *long_one = malloc(bytes + 1);
            const char *message;
            json_t *j;

            memset(long_one, "a\x01\xff"[kind], bytes);
            long_one[bytes] = '\0';
            report_init(REPORT_INFO, REPORT_JSON, pipe_fd[1]);
            report_info("long", "%s", long_one);
            j = json_line();
            message = field(j, "message");
            if (bytes >= 2048)
                assert_string_equal(message + strlen(message) - 3, "...");
            json_decref(j);
            report_init(REPORT_INFO, REPORT_TEXT, pipe_fd[1]);
            report_info("long", "%s", long_one);
            assert_non_null(strstr(line(), " info long: "));
            free(long_one);
        }
}

static void a_limit_lets_one_through_and_counts_the_rest(void **state)
{
    struct report_limit limit = { 0 };
    json_t *j;

    report_init(REPORT_INFO, REPORT_JSON, pipe_fd[1]);
    for (int i = 0; i < 5; i++)
        report_every(&limit, UINT64_MAX / 2, REPORT_WARN, "often", "number %d", i);
    j = json_line();
    assert_string_equal(field(j, "message"), "number 0");
    assert_null(json_object_get(j, "suppressed"));
    json_decref(j);
    assert_string_equal(line(), "");
    atomic_store(&limit.next_ns, 0); /* the interval is over */
    report_every(&limit, UINT64_MAX / 2, REPORT_WARN, "often", "again");
    j = json_line();
    assert_string_equal(field(j, "message"), "again");
    assert_int_equal(json_integer_value(json_object_get(j, "suppressed")), 4);
    json_decref(j);
    assert_int_equal(atomic_load(&limit.suppressed), 0);
    report_init(REPORT_INFO, REPORT_TEXT, pipe_fd[1]);
    report_every(&limit, 1, REPORT_WARN, "often", "x");
    atomic_store(&limit.next_ns, 0);
    report_every(&limit, 1, REPORT_WARN, "often", "x");
    assert_non_null(strstr(line(), "(1 more like this left out)"));
}

#define THREADS 4
#define LINES   200

static struct report_limit shared;

static void *writer(void *arg)
{
    for (int i = 0; i < LINES; i++) {
        report_info("thread", "%d %0500d", *(int *)arg, i);
        report_every(&shared, UINT64_MAX / 2, REPORT_INFO, "limited", "x");
    }
    return NULL;
}

static void lines_of_threads_do_not_mix(void **state)
{
    pthread_t thread[THREADS];
    int number[THREADS], lines[THREADS] = { 0 }, limited = 0;
    FILE *f = tmpfile(), *in;
    char text[REPORT_LINE_BYTES + 1];
    int fd = dup(fileno(f));

    assert_int_equal(fcntl(fd, F_SETFL, O_APPEND), 0);
    report_init(REPORT_INFO, REPORT_JSON, fd);
    for (int i = 0; i < THREADS; i++) {
        number[i] = i;
        assert_int_equal(pthread_create(&thread[i], NULL, writer, &number[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    in = f;
    rewind(in);
    while (fgets(text, sizeof text, in) != NULL) {
        json_t *j = json_loads(text, 0, NULL);

        assert_non_null(j);
        if (strcmp(field(j, "event"), "thread") == 0)
            lines[atoi(field(j, "message"))]++;
        else
            limited++;
        json_decref(j);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(lines[i], LINES);
    assert_int_equal(limited, 1);
    assert_int_equal(atomic_load(&shared.suppressed), THREADS * LINES - 1);
    close(fd);
    fclose(f);
}

static void an_unwritable_fd_is_no_harm(void **state)
{
    int fd = open("/dev/full", O_WRONLY);

    assert_true(fd >= 0);
    report_init(REPORT_INFO, REPORT_JSON, fd);
    report_info("lost", "x");
    close(fd);
    report_info("lost", "x");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_line_has_time_level_event_and_message),
        TEST(lines_below_the_level_are_dropped),
        TEST(text_is_for_people),
        TEST(nothing_quoted_can_forge_a_line_or_reach_the_terminal),
        TEST(valid_utf8_stays_and_the_rest_is_replaced),
        TEST(long_messages_are_cut_and_the_line_stays_whole),
        TEST(a_limit_lets_one_through_and_counts_the_rest),
        TEST(lines_of_threads_do_not_mix),
        TEST(an_unwritable_fd_is_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
