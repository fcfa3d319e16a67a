/*
 * report.c - formats one line on the stack and writes it with one write(2).
 */
#include "base/report.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/utf8.h"

#define MESSAGE_BYTES 2048u

static struct {
    enum report_level level;
    bool text;
    int fd;
} report = { .level = REPORT_INFO, .text = false, .fd = STDERR_FILENO };

const char *const report_level_names[] = { "debug", "info", "warn", "error", NULL };

void report_init(enum report_level level, enum report_format format, int fd)
{
    assert(level < REPORT_LEVEL_N && fd >= 0);
    report.level = level;
    report.fd = fd;
    report.text = format == REPORT_TEXT || (format == REPORT_AUTO && isatty(fd));
}

/* A line under construction; `room` keeps space for what closes it. */
struct line {
    char at[REPORT_LINE_BYTES];
    size_t bytes;
    size_t room;
};

static bool line_add(struct line *l, const char *s, size_t bytes)
{
    assert(l->bytes + l->room <= sizeof l->at);
    if (bytes > sizeof l->at - l->room - l->bytes)
        return false;
    memcpy(l->at + l->bytes, s, bytes);
    l->bytes += bytes;
    return true;
}

static bool line_puts(struct line *l, const char *s) { return line_add(l, s, strlen(s)); }

/* Adds s so that it can neither end the line nor the JSON string, nor reach a terminal as a
 * command; C1 controls (U+0080..U+009F) are such commands too. */
static bool line_escape(struct line *l, const char *s, bool json)
{
    size_t left = strlen(s);
    char e[8];

    while (left > 0) {
        const unsigned char *u = (const unsigned char *)s;
        size_t n = utf8_bytes(s, left);
        unsigned c = n == 2 && u[0] == 0xc2 ? u[1] : u[0];
        bool ok;

        if (n == 0) {
            snprintf(e, sizeof e, json ? "\\ufffd" : "\\x%02x", u[0]);
            ok = line_puts(l, e);
        } else if (utf8_is_control(s, n)) {
            snprintf(e, sizeof e, json ? "\\u%04x" : "\\x%02x", c);
            ok = line_puts(l, *s == '\n' ? "\\n" : *s == '\t' ? "\\t" : e);
        } else if (c == '\\' || (c == '"' && json)) {
            ok = line_add(l, (char[]){ '\\', *s }, 2);
        } else {
            ok = line_add(l, s, n);
        }
        if (!ok)
            return false;
        n += n == 0;
        s += n;
        left -= n;
    }
    return true;
}

static void line_time(struct line *l)
{
    uint64_t now = clock_unix_ns();
    time_t s = (time_t)(now / NS_PER_S);
    struct tm t;
    char text[64];

    gmtime_r(&s, &t);
    snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%06uZ", t.tm_year + 1900,
             t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec,
             (unsigned)(now % NS_PER_S / NS_PER_US));
    line_puts(l, text);
}

static void report_write(struct line *l)
{
    size_t done = 0;

    while (done < l->bytes) {
        ssize_t n = write(report.fd, l->at + done, l->bytes - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        done += (size_t)n;
    }
}

__attribute__((format(printf, 4, 0))) static void report_line(enum report_level level,
                                                              const char *event,
                                                              uint64_t suppressed,
                                                              const char *format, va_list args)
{
    bool text = report.text;
    int error = errno; /* callers report and then go on to use it */
    char message[MESSAGE_BYTES], tail[96];
    struct line l = { .room = sizeof tail + 4 };
    int n;

    assert(event != NULL && level < REPORT_LEVEL_N);
    n = vsnprintf(message, sizeof message, format, args);
    if (n < 0)
        message[0] = '\0';
    line_puts(&l, text ? "" : "{\"time\":\"");
    line_time(&l);
    line_puts(&l, text ? " " : "\",\"level\":\"");
    line_puts(&l, report_level_names[level]);
    line_puts(&l, text ? " " : "\",\"event\":\"");
    line_escape(&l, event, !text);
    line_puts(&l, text ? ": " : "\",\"message\":\"");
    if (!line_escape(&l, message, !text) || n >= (int)sizeof message) {
        l.room -= 4;
        line_puts(&l, "...");
    }
    l.room = 0;
    tail[0] = '\0';
    if (suppressed > 0)
        snprintf(tail, sizeof tail, text ? " (%ju more like this left out)" : ",\"suppressed\":%ju",
                 (uintmax_t)suppressed);
    line_puts(&l, text ? "" : "\"");
    line_puts(&l, tail);
    line_puts(&l, text ? "\n" : "}\n");
    assert(l.bytes > 0 && l.at[l.bytes - 1] == '\n');
    report_write(&l);
    errno = error;
}

#define REPORT_BODY(level_)                                                                        \
    do {                                                                                           \
        va_list args;                                                                              \
        if ((level_) < report.level)                                                               \
            return;                                                                                \
        va_start(args, format);                                                                    \
        report_line((level_), event, 0, format, args);                                             \
        va_end(args);                                                                              \
    } while (0)

void report_debug(const char *event, const char *format, ...) { REPORT_BODY(REPORT_DEBUG); }
void report_info(const char *event, const char *format, ...) { REPORT_BODY(REPORT_INFO); }
void report_warn(const char *event, const char *format, ...) { REPORT_BODY(REPORT_WARN); }
void report_error(const char *event, const char *format, ...) { REPORT_BODY(REPORT_ERROR); }

void report_every(struct report_limit *limit, uint64_t interval_ns, enum report_level level,
                  const char *event, const char *format, ...)
{
    uint64_t now = clock_monotonic_ns();
    uint64_t next = atomic_load_explicit(&limit->next_ns, memory_order_relaxed);
    va_list args;

    if (level < report.level)
        return;
    /* Of several threads that find the interval over, the one that moves it on writes the line. */
    if (now < next || !atomic_compare_exchange_strong(&limit->next_ns, &next, now + interval_ns)) {
        atomic_fetch_add_explicit(&limit->suppressed, 1, memory_order_relaxed);
        return;
    }
    va_start(args, format);
    report_line(level, event, atomic_exchange(&limit->suppressed, 0), format, args);
    va_end(args);
}
