/*
 * print_event.h - prints a serialized sluice.v1.Event as one JSON line, or as a line to read.
 *
 * The JSON is protobuf's own mapping (lowerCamelCase, 64-bit integers and enums as strings, bytes
 * as base64), so `sluice send --json` and any protobuf library read it back. Output is buffered by
 * the FILE and never flushed here.
 * Thread:  any; allocates and frees one decoded event (about 22 KiB) a call.
 * Errors:  -EBADMSG: the bytes are no Event (nothing is printed), -ENOMEM, -EIO: the FILE refused.
 */
#ifndef SLUICE_CLI_PRINT_EVENT_H
#define SLUICE_CLI_PRINT_EVENT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* One line of JSON with a newline behind it. */
int event_print_json(FILE *out, const uint8_t *event, size_t bytes);

/* One line: ingestion id, time, type, source/id, symbol, and the detail's most telling fields. */
int event_print_text(FILE *out, const uint8_t *event, size_t bytes);

#endif
