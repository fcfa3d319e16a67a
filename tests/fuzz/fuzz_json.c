/*
 * fuzz_json.c - a JSON line of the input: it is an event or an error with words, and an event that
 * was printed is read back as the same bytes.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/print_event.h"
#include "cli/read_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void same_again(const struct form *f, const uint8_t *event, size_t bytes)
{
    static struct form again;
    static uint8_t encoded[65536];
    char *line = NULL;
    size_t line_bytes = 0;
    FILE *out = open_memstream(&line, &line_bytes);

    assert(out && event_print_json(out, event, bytes) == 0);
    fclose(out);
    char *marked = malloc(6 * line_bytes + 16);

    assert(marked && read_json_parse(&again, line, line_bytes, marked) == 0);
    assert(form_encode(&again, encoded, sizeof(encoded)) == (ssize_t)bytes);
    assert(memcmp(encoded, event, bytes) == 0);
    free(marked);
    free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct form f;
    static uint8_t event[65536];

    if (bytes > JSON_LINE_BYTES_MAX)
        return 0;
    char *marked = malloc(6 * bytes + 16);
    char *line = malloc(bytes + 1); /* so that a read behind its end is seen */

    assert(marked && line);
    if (bytes)
        memcpy(line, data, bytes);
    if (read_json_parse(&f, line, bytes, marked) == 0) {
        ssize_t n = form_encode(&f, event, sizeof(event));

        assert(n > 0);
        same_again(&f, event, (size_t)n);
    } else {
        assert(f.error[0]);
    }
    free(line);
    free(marked);
    return 0;
}
