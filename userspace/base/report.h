/*
 * report.h - what the program says about itself, on stderr: one JSON object a line, or text on a
 * terminal.
 *
 * For main, pipeline.c and the edges of agents only; stages count instead.
 *
 * Thread:  report_init() before any thread starts; the rest from any thread, without locks: every
 *          line is one write(2) of at most REPORT_LINE_BYTES, so lines never mix in a pipe.
 * Memory:  the stack.
 * Limits:  a longer message is cut and ends in "...".
 * Errors:  none: what cannot be written is lost. Control characters and bytes that are not UTF-8
 *          are escaped, so nobody who is quoted in a message can forge a line or drive a terminal.
 */
#ifndef SLUICE_BASE_REPORT_H
#define SLUICE_BASE_REPORT_H

#include <stdatomic.h>
#include <stdint.h>

#define REPORT_LINE_BYTES 4096u /* PIPE_BUF */

enum report_level { REPORT_DEBUG, REPORT_INFO, REPORT_WARN, REPORT_ERROR, REPORT_LEVEL_N };
enum report_format { REPORT_AUTO, REPORT_JSON, REPORT_TEXT };

/* Lines below level are dropped. AUTO: text when fd is a terminal. Without this call: info, JSON,
 * fd 2. */
void report_init(enum report_level level, enum report_format format, int fd);

/* event: a stable name, [a-z0-9_]; format and what follows: a sentence for people. */
void report_debug(const char *event, const char *format, ...) __attribute__((format(printf, 2, 3)));
void report_info(const char *event, const char *format, ...) __attribute__((format(printf, 2, 3)));
void report_warn(const char *event, const char *format, ...) __attribute__((format(printf, 2, 3)));
void report_error(const char *event, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* One per call site, zeroed (static will do). */
struct report_limit {
    _Atomic uint64_t next_ns; /* monotonic */
    _Atomic uint64_t suppressed;
};

/* At most one line per interval_ns from this limit; the next line says how many were left out. */
void report_every(struct report_limit *limit, uint64_t interval_ns, enum report_level level,
                  const char *event, const char *format, ...) __attribute__((format(printf, 5, 6)));

/* By level; a NULL behind the last. */
extern const char *const report_level_names[REPORT_LEVEL_N + 1];

#endif
