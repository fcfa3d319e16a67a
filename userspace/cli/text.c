/*
 * text.c - see text.h.
 */
#include "cli/text.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/utf8.h"

#define SCALE_MAX 18

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

int text_uint64(const char *text, size_t bytes, uint64_t *ret)
{
    uint64_t v = 0;

    if (bytes == 0)
        return -EINVAL;
    for (size_t i = 0; i < bytes; i++) {
        if (!is_digit(text[i]) || __builtin_mul_overflow(v, 10ull, &v) ||
            __builtin_add_overflow(v, (uint64_t)(text[i] - '0'), &v))
            return -EINVAL;
    }
    *ret = v;
    return 0;
}

/* An exponent moves the point; zeros are added only where it moves out of the digits. */
static int decimal_shift(uint64_t *digits, int *scale)
{
    for (; *scale > SCALE_MAX && *digits % 10 == 0; --*scale) {
        if (*digits == 0) {
            *scale = 0;
            return 0;
        }
        *digits /= 10;
    }
    for (; *scale < 0; ++*scale) {
        if (*digits == 0) {
            *scale = 0;
            return 0;
        }
        if (__builtin_mul_overflow(*digits, 10ull, digits))
            return -EINVAL;
    }
    return *scale > SCALE_MAX ? -EINVAL : 0;
}

int text_decimal(const char *text, size_t bytes, bool *ret_negative, uint64_t *ret_digits,
                 int *ret_scale, bool *ret_point)
{
    uint64_t digits = 0, exponent = 0;
    int scale = 0;
    bool point = false, negative = false, any = false, exponent_negative = false;
    size_t i = 0;

    if (bytes && (text[0] == '-' || text[0] == '+'))
        negative = text[i++] == '-';
    for (; i < bytes && (is_digit(text[i]) || (text[i] == '.' && !point)); i++) {
        if (text[i] == '.') {
            point = true;
            continue;
        }
        any = true;
        if (__builtin_mul_overflow(digits, 10ull, &digits) ||
            __builtin_add_overflow(digits, (uint64_t)(text[i] - '0'), &digits))
            return -EINVAL;
        if (point && ++scale > 1000)
            return -EINVAL;
    }
    if (!any)
        return -EINVAL;
    if (i < bytes && (text[i] == 'e' || text[i] == 'E')) {
        i++;
        if (i < bytes && (text[i] == '-' || text[i] == '+'))
            exponent_negative = text[i++] == '-';
        if (text_uint64(text + i, bytes - i, &exponent) < 0 || exponent > 1000)
            return -EINVAL;
        scale += exponent_negative ? (int)exponent : -(int)exponent;
        point = true;
        i = bytes;
    }
    if (i != bytes || decimal_shift(&digits, &scale) < 0)
        return -EINVAL;
    *ret_negative = negative;
    *ret_digits = digits;
    *ret_scale = scale;
    *ret_point = point;
    return 0;
}

/* --- time ----------------------------------------------------------------------------------- */

static int fixed_digits(const char **at, const char *end, unsigned n, int *ret)
{
    int v = 0;

    for (; n; n--, (*at)++) {
        if (*at == end || !is_digit(**at))
            return -EINVAL;
        v = 10 * v + (**at - '0');
    }
    *ret = v;
    return 0;
}

static int fixed_char(const char **at, const char *end, const char *allowed)
{
    if (*at == end || **at == '\0' || !strchr(allowed, **at))
        return -EINVAL;
    (*at)++;
    return 0;
}

/* Z, or +hh:mm. */
static int time_zone(const char *at, const char *end, int *ret_s)
{
    int hours, minutes, sign;

    if (end - at == 1 && (*at == 'Z' || *at == 'z')) {
        *ret_s = 0;
        return 0;
    }
    if (end - at != 6 || (*at != '+' && *at != '-'))
        return -EINVAL;
    sign = *at++ == '-' ? -1 : 1;
    if (fixed_digits(&at, end, 2, &hours) < 0 || fixed_char(&at, end, ":") < 0 ||
        fixed_digits(&at, end, 2, &minutes) < 0 || hours > 23 || minutes > 59)
        return -EINVAL;
    *ret_s = sign * (hours * 3600 + minutes * 60);
    return 0;
}

int text_time(const char *text, size_t bytes, uint64_t *ret_ns)
{
    const char *at = text, *end = text + bytes;
    struct tm t = { 0 }, check;
    int zone_s;
    uint64_t fraction_ns = 0;

    if (fixed_digits(&at, end, 4, &t.tm_year) < 0 || fixed_char(&at, end, "-") < 0 ||
        fixed_digits(&at, end, 2, &t.tm_mon) < 0 || fixed_char(&at, end, "-") < 0 ||
        fixed_digits(&at, end, 2, &t.tm_mday) < 0 || fixed_char(&at, end, "Tt ") < 0 ||
        fixed_digits(&at, end, 2, &t.tm_hour) < 0 || fixed_char(&at, end, ":") < 0 ||
        fixed_digits(&at, end, 2, &t.tm_min) < 0 || fixed_char(&at, end, ":") < 0 ||
        fixed_digits(&at, end, 2, &t.tm_sec) < 0)
        return -EINVAL;
    if (at < end && *at == '.') {
        uint64_t unit_ns = NS_PER_S / 10;

        for (at++; at < end && is_digit(*at); at++, unit_ns /= 10) {
            if (unit_ns == 0)
                return -EINVAL;
            fraction_ns += (uint64_t)(*at - '0') * unit_ns;
        }
    }
    t.tm_year -= 1900;
    t.tm_mon -= 1;
    check = t;
    time_t s = timegm(&check);

    /* timegm() makes 3 March of 31 February: that is no date. */
    if (check.tm_year != t.tm_year || check.tm_mon != t.tm_mon || check.tm_mday != t.tm_mday ||
        check.tm_hour != t.tm_hour || check.tm_min != t.tm_min || check.tm_sec != t.tm_sec ||
        time_zone(at, end, &zone_s) < 0 || s - zone_s < 0 ||
        (uint64_t)(s - zone_s) > UINT64_MAX / NS_PER_S - 1)
        return -EINVAL;
    *ret_ns = (uint64_t)(s - zone_s) * NS_PER_S + fraction_ns;
    return 0;
}

void text_time_put(char ret[TEXT_TIME_BYTES_MAX], uint64_t ns)
{
    time_t s = (time_t)(ns / NS_PER_S);
    struct tm t;

    gmtime_r(&s, &t);
    size_t n = strftime(ret, TEXT_TIME_BYTES_MAX, "%Y-%m-%dT%H:%M:%S", &t);

    snprintf(ret + n, TEXT_TIME_BYTES_MAX - n, ".%09uZ", (unsigned)(ns % NS_PER_S));
}

/* --- bytes ---------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -EINVAL;
}

ssize_t text_hex(const char *text, size_t bytes, uint8_t *ret, size_t bytes_max)
{
    if (bytes % 2)
        return -EINVAL;
    if (bytes / 2 > bytes_max)
        return -EMSGSIZE;
    for (size_t i = 0; i < bytes; i += 2) {
        int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);

        if (high < 0 || low < 0)
            return -EINVAL;
        ret[i / 2] = (uint8_t)(high << 4 | low);
    }
    return (ssize_t)(bytes / 2);
}

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (is_digit(c))
        return c - '0' + 52;
    if (c == '+' || c == '-')
        return 62;
    if (c == '/' || c == '_')
        return 63;
    return -EINVAL;
}

ssize_t text_base64(const char *text, size_t bytes, uint8_t *ret, size_t bytes_max)
{
    uint32_t bits = 0;
    unsigned have = 0;
    size_t n = 0;

    if (bytes % 4 == 0)
        for (unsigned padding = 0; padding < 2 && bytes && text[bytes - 1] == '='; padding++)
            bytes--;
    if (bytes % 4 == 1)
        return -EINVAL;
    for (size_t i = 0; i < bytes; i++) {
        int digit = base64_digit(text[i]);

        if (digit < 0)
            return -EINVAL;
        bits = bits << 6 | (uint32_t)digit;
        have += 6;
        if (have < 8)
            continue;
        have -= 8;
        if (n == bytes_max)
            return -EMSGSIZE;
        ret[n++] = (uint8_t)(bits >> have);
    }
    /* Bits left over are nought, or two texts would be the same bytes. */
    return bits & ((1u << have) - 1) ? -EINVAL : (ssize_t)n;
}

void text_hex_print(FILE *out, const uint8_t *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        fprintf(out, "%02x", data[i]);
}

void text_base64_print(FILE *out, const uint8_t *data, size_t bytes)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char text[256];
    size_t at = 0;

    for (size_t i = 0; i < bytes; i += 3) {
        size_t n = bytes - i < 3 ? bytes - i : 3;
        uint32_t bits = (uint32_t)data[i] << 16 | (n > 1 ? (uint32_t)data[i + 1] << 8 : 0) |
                        (n > 2 ? data[i + 2] : 0);

        text[at++] = digit[bits >> 18];
        text[at++] = digit[bits >> 12 & 63];
        text[at++] = n > 1 ? digit[bits >> 6 & 63] : '=';
        text[at++] = n > 2 ? digit[bits & 63] : '=';
        if (at == sizeof(text)) {
            fwrite(text, 1, at, out);
            at = 0;
        }
    }
    /* cppcheck-suppress uninitvar ; the first `at` bytes are set */
    fwrite(text, 1, at, out);
}

/* Bytes at text that JSON takes as they are and that are no part of a longer character. */
static size_t json_plain_bytes(const char *text)
{
    size_t n = 0;

    while (text[n] >= 0x20 && text[n] < 0x7f && text[n] != '"' && text[n] != '\\')
        n++;
    return n;
}

void text_json_print(FILE *out, const char *text)
{
    size_t left = strlen(text), n;

    putc('"', out);
    for (; left > 0; text += n, left -= n) {
        n = json_plain_bytes(text);
        if (n > 0) {
            fwrite(text, 1, n, out);
            continue;
        }
        n = utf8_bytes(text, left);
        if (n == 0) {
            fputs("\\ufffd", out);
            n = 1;
        } else if (utf8_is_control(text, n)) {
            fprintf(out, "\\u%04x", (unsigned char)text[n - 1]);
        } else {
            fputs(*text == '"' || *text == '\\' ? "\\" : "", out);
            fwrite(text, 1, n, out);
        }
    }
    putc('"', out);
}

void text_plain_print(FILE *out, const char *text, size_t bytes)
{
    size_t n;

    for (; bytes > 0; text += n, bytes -= n) {
        n = utf8_bytes(text, bytes);
        if (n == 0 || utf8_is_control(text, n)) {
            putc('?', out);
            n += n == 0;
        } else {
            fwrite(text, 1, n, out);
        }
    }
}

int text_traceparent(const char *text, size_t bytes, uint8_t ret[TEXT_TRACEPARENT_BYTES])
{
    uint8_t parsed[TEXT_TRACEPARENT_BYTES];

    if (bytes != 55 || memcmp(text, "00-", 3) != 0 || text[35] != '-' || text[52] != '-' ||
        text_hex(text + 3, 32, parsed, 16) < 0 || text_hex(text + 36, 16, parsed + 16, 8) < 0 ||
        text_hex(text + 53, 2, parsed + 24, 1) < 0)
        return -EINVAL;
    memcpy(ret, parsed, sizeof(parsed));
    return 0;
}
