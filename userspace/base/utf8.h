/*
 * utf8.h - walks text that may hold anything, one UTF-8 character at a time.
 */
#ifndef SLUICE_BASE_UTF8_H
#define SLUICE_BASE_UTF8_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

/* Bytes of the UTF-8 character at s, of which `left` (>= 1) bytes are readable; 0 when it is none.
 * Surrogates and overlong forms are none (RFC 3629, section 4). */
static inline size_t utf8_bytes(const void *text, size_t left)
{
    const unsigned char *s = text;
    size_t n;

    assert(left > 0);
    n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (s[0] > 0xf4 || n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return n;
}

/* Is all of it UTF-8? What protobuf calls a string must be, and libraries refuse it otherwise. NUL
 * is a character like others. text may be NULL when bytes is 0. */
bool utf8_valid(const void *text, size_t bytes);

/* Is the character of n bytes at s a control character, U+0080 to U+009F included? Terminals obey
 * those too. */
static inline bool utf8_is_control(const void *text, size_t n)
{
    const unsigned char *s = text;

    if (n == 1)
        return s[0] < 0x20 || s[0] == 0x7f;
    return n == 2 && s[0] == 0xc2 && s[1] < 0xa0;
}

#endif
