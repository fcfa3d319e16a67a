/*
 * utf8.h - is it UTF-8? What protobuf calls a string must be, and libraries refuse it otherwise.
 *
 * Any thread; no memory of its own.
 */
#ifndef SLUICE_BASE_UTF8_H
#define SLUICE_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* RFC 3629: no over-long forms, no surrogates, nothing above U+10FFFF. NUL is allowed. */
bool utf8_valid(const void *text, size_t bytes);

#endif
