/*
 * text.h - small conversions between text and values, each exact or refused.
 *
 * Any thread; nothing is allocated. Texts are not terminated unless said so.
 * Errors: -EINVAL; -EMSGSIZE when the result does not fit.
 */
#ifndef SLUICE_CLI_TEXT_H
#define SLUICE_CLI_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define TEXT_TRACEPARENT_BYTES 25u
#define TEXT_TIME_BYTES_MAX    40u

/* Decimal digits alone. */
int text_uint64(const char *text, size_t bytes, uint64_t *ret);
/* [-+]digits[.digits][e[-+]digits]: digits / 10^scale, 0 <= scale <= 18. *ret_point: written with a
 * point or an exponent. */
int text_decimal(const char *text, size_t bytes, bool *ret_negative, uint64_t *ret_digits,
                 int *ret_scale, bool *ret_point);
/* RFC 3339 with up to nine decimals, from 1970 on, as Unix nanoseconds. */
int text_time(const char *text, size_t bytes, uint64_t *ret_ns);
/* The other way, in UTC, with nine decimals, terminated. */
void text_time_put(char ret[TEXT_TIME_BYTES_MAX], uint64_t ns);

/* These return how many bytes. base64 takes both alphabets, with and without padding. */
ssize_t text_hex(const char *text, size_t bytes, uint8_t *ret, size_t bytes_max);
ssize_t text_base64(const char *text, size_t bytes, uint8_t *ret, size_t bytes_max);
void text_hex_print(FILE *out, const uint8_t *data, size_t bytes);
void text_base64_print(FILE *out, const uint8_t *data, size_t bytes);
/* Quoted and escaped for JSON, control characters too. text is terminated. */
void text_json_print(FILE *out, const char *text);
/* Text that came from anybody, for a terminal: control characters, U+0080 to U+009F among them, and
 * what is not UTF-8 become question marks. */
void text_plain_print(FILE *out, const char *text, size_t bytes);

/* W3C: 00-<trace id>-<parent id>-<flags>. Nothing is written on failure. */
int text_traceparent(const char *text, size_t bytes, uint8_t ret[TEXT_TRACEPARENT_BYTES]);

#endif
