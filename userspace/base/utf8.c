/*
 * utf8.c - whole texts: eight ASCII bytes at a time, characters one by one.
 */
#include "base/utf8.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

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
        n = utf8_bytes(p, bytes);
        if (n == 0)
            return false;
        p += n;
        bytes -= n;
    }
    return true;
}
