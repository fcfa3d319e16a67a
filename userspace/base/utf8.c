/*
 * utf8.c - eight ASCII bytes at a time; the table of RFC 3629, section 4, for the rest.
 */
#include "base/utf8.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

/* Bytes of the sequence that starts at p, 0 if it is not one. */
static size_t utf8_sequence(const uint8_t *p, size_t left)
{
    uint8_t low = 0x80, high = 0xbf; /* of the second byte */
    size_t n;

    assert(left > 0);
    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4) /* a continuation, over-long, or above U+10FFFF */
        return 0;
    n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (p[0] == 0xe0)
        low = 0xa0;
    if (p[0] == 0xed) /* surrogates */
        high = 0x9f;
    if (p[0] == 0xf0)
        low = 0x90;
    if (p[0] == 0xf4)
        high = 0x8f;
    if (left < n || p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return n;
}

bool utf8_valid(const void *text, size_t bytes)
{
    const uint8_t *p = text;
    uint64_t word;
    size_t n;

    assert(text != NULL || bytes == 0);
    while (bytes > 0) {
        if (bytes >= 8) {
            memcpy(&word, p, 8);
            if ((word & 0x8080808080808080ull) == 0) {
                p += 8;
                bytes -= 8;
                continue;
            }
        }
        n = utf8_sequence(p, bytes);
        if (n == 0)
            return false;
        p += n;
        bytes -= n;
    }
    return true;
}
