/*
 * config_file.c - config files made in a test.
 */
#include "tests/lib/config_file.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

void config_file_takes(struct config *c, const char *text)
{
    char error[CONFIG_ERROR_BYTES];

    if (config_parse("f.yaml", text, strlen(text), c, error) != 0)
        fail_msg("refused:\n%s\n%s", text, error);
}

void config_file_refuses(const char *text, const char *place, const char *says)
{
    char error[CONFIG_ERROR_BYTES];
    struct config c;
    int result = config_parse("f.yaml", text, strlen(text), &c, error);

    config_fini(&c);
    if (result != -EINVAL)
        fail_msg("%d for:\n%s", result, text);
    if (strncmp(error, place, strlen(place)) != 0 || strstr(error, says) == NULL)
        fail_msg("for:\n%s\nexpected \"%s ... %s ...\" but got \"%s\"", text, place, says, error);
}

char *config_file_printed(const struct config *c, enum config_format format)
{
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);

    assert_int_equal(config_print(c, format, f), 0);
    fclose(f);
    return text;
}

void config_file_nest(char *text, size_t bytes, const char *path, const char *value)
{
    size_t used = 0, depth = 0;

    for (const char *s = path; *s != '\0'; s++) {
        used += (size_t)(*s == '.' ? snprintf(text + used, bytes - used, ": {")
                                   : snprintf(text + used, bytes - used, "%c", *s));
        depth += *s == '.';
        assert_true(used < bytes);
    }
    used += (size_t)snprintf(text + used, bytes - used, ": %s", value);
    assert_true(used + depth < bytes);
    memset(text + used, '}', depth);
    text[used + depth] = '\0';
}
