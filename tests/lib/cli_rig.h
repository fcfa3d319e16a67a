/*
 * cli_rig.h - runs the program `sluice` against a server with a made-up daemon behind it.
 *
 * The functions end the test when anything is not as it should be. One thread.
 */
#ifndef SLUICE_TESTS_CLI_RIG_H
#define SLUICE_TESTS_CLI_RIG_H

#include <jansson.h>

#include "tests/lib/admin_fixture.h"

struct output {
    int code;
    char text[65536]; /* stdout and stderr */
};

extern struct output got;

/* The program is $SLUICE_BIN, or `sluice` beside the directory of the test argv0; false, after
 * saying so, without one. */
bool cli_rig_find(const char *argv0);

/* Runs `sluice` with these arguments (shell syntax), in the fixture's directory and on its socket.
 * Returns the exit code; the rest is in got. */
int sluice(struct fixture *x, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Is text in the output? */
void has(const char *text);
void has_not(const char *text);

/* The output as JSON; to be released. */
json_t *document(void);

/* Lines of the output. */
unsigned lines(void);

#endif
