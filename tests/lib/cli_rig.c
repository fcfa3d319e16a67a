/*
 * cli_rig.c - see cli_rig.h.
 */
#include "tests/lib/cli_rig.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct output got;
static char program[PATH_MAX];

bool cli_rig_find(const char *argv0)
{
    const char *bin = getenv("SLUICE_BIN"), *slash = strrchr(argv0, '/');
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%.*s/../sluice", slash ? (int)(slash - argv0) : 1,
             slash ? argv0 : ".");
    if (realpath(bin ? bin : path, program) != NULL && access(program, X_OK) == 0)
        return true;
    printf("skipped: there is no %s; SLUICE_BIN names the program\n", bin ? bin : path);
    return false;
}

int sluice(struct fixture *x, const char *format, ...)
{
    char args[1024], command[PATH_MAX + 2048], socket[128] = "";
    va_list list;
    size_t n;
    FILE *f;
    int status;

    va_start(list, format);
    vsnprintf(args, sizeof args, format, list);
    va_end(list);
    if (x != NULL)
        snprintf(socket, sizeof socket, "SLUICE_SOCKET=%s ", x->path);
    snprintf(command, sizeof command, "cd %s && %s timeout 20 %s %s 2>&1", x ? x->dir : "/", socket,
             program, args);
    f = popen(command, "r");
    assert_non_null(f);
    n = fread(got.text, 1, sizeof got.text - 1, f);
    got.text[n] = '\0';
    status = pclose(f);
    assert_true(WIFEXITED(status));
    got.code = WEXITSTATUS(status);
    return got.code;
}

void has(const char *text)
{
    if (strstr(got.text, text) == NULL)
        fail_msg("'%s' is not in:\n%s", text, got.text);
}

void has_not(const char *text)
{
    if (strstr(got.text, text) != NULL)
        fail_msg("'%s' is in:\n%s", text, got.text);
}

json_t *document(void)
{
    json_error_t error;
    json_t *j = json_loads(got.text, 0, &error);

    if (j == NULL)
        fail_msg("%s: %s", error.text, got.text);
    return j;
}

unsigned lines(void)
{
    unsigned n = 0;
    const char *p;

    for (p = got.text; *p; p++)
        n += *p == '\n';
    return n;
}
