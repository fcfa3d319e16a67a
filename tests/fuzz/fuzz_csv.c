/*
 * fuzz_csv.c - a CSV file: every row is an event or an error that names its line, and the reader
 * gets to the end.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/print_event.h"
#include "cli/read_csv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct form f;
    static uint8_t event[65536];
    struct read_csv r;
    size_t rows = 0;
    int rc;

    if (bytes == 0)
        return 0;
    FILE *in = fmemopen((void *)(uintptr_t)data, bytes, "r");

    assert(in);
    rc = read_csv_init(&r, in);
    assert(rc == 0 || strncmp(r.error, "line ", 5) == 0);
    while (rc == 0 || rc == -22) {
        if (r.columns == 0)
            break;
        int next = read_csv_next(&r, &f);

        assert(++rows <= bytes + 2);
        if (next == 0)
            break;
        if (next == 1)
            assert(form_encode(&f, event, sizeof(event)) > 0);
        else
            assert(next == -22 && strncmp(r.error, "line ", 5) == 0);
    }
    read_csv_fini(&r);
    fclose(in);
    return 0;
}
