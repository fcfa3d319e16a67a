/* hex.h - bytes as hex digits. Thread:  any. */
#ifndef SLUICE_BASE_HEX_H
#define SLUICE_BASE_HEX_H

#include <stddef.h>
#include <stdint.h>

/* Two lower-case digits for each of n bytes, and a NUL behind them: 2 * n + 1 characters. Returns
 * ret. */
static inline char *hex_put(char *ret, const void *data, size_t n)
{
    static const char digit[] = "0123456789abcdef";
    const uint8_t *bytes = data;

    for (size_t i = 0; i < n; i++) {
        ret[2 * i] = digit[bytes[i] >> 4];
        ret[2 * i + 1] = digit[bytes[i] & 15];
    }
    ret[2 * n] = '\0';
    return ret;
}

#endif
