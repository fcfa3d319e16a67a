/*
 * send_events.c - where `sluice send` has its events from: JSON lines, CSV, or the generator.
 */
#include "cli/send.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"

static int file_open(struct send_events *e)
{
    const char *name = e->options->file;

    if (strcmp(name, "-") == 0) {
        e->file = stdin;
        return 0;
    }
    e->file = fopen(name, "re");
    if (e->file)
        return 0;
    fprintf(stderr, "sluice send: %s: %s\n", name, strerror(errno));
    return SEND_USAGE;
}

int send_events_open(struct send_events *e, const struct send_options *o)
{
    int rc;

    memset(e, 0, sizeof(*e));
    e->options = o;
    e->next = o->start;
    e->form.text_ids = o->text_ids;
    if (o->from == SEND_FROM_GENERATOR) {
        rc = generate_open(&e->generate, &o->generate);
        if (rc == 0)
            return 0;
        fprintf(stderr, "sluice send: the generator cannot do that: %s\n", strerror(-rc));
        return SEND_USAGE;
    }
    rc = file_open(e);
    if (rc)
        return rc;
    if (o->from == SEND_FROM_JSON) {
        rc = read_json_init(&e->json, e->file);
        if (rc < 0)
            fprintf(stderr, "sluice send: %s\n", strerror(-rc));
    } else {
        rc = read_csv_init(&e->csv, e->file);
        if (rc < 0)
            fprintf(stderr, "sluice send: %s: %s\n", o->file,
                    e->csv.error[0] ? e->csv.error : strerror(-rc));
    }
    return rc < 0 ? SEND_BAD_INPUT : 0;
}

void send_events_close(struct send_events *e)
{
    generate_close(e->generate);
    if (e->options->from == SEND_FROM_JSON)
        read_json_fini(&e->json);
    if (e->options->from == SEND_FROM_CSV)
        read_csv_fini(&e->csv);
    if (e->file && e->file != stdin)
        fclose(e->file);
}

static void batch_took(struct send_batch *batch, size_t bytes, const void *id, size_t id_bytes)
{
    batch->event[batch->n] = batch->data + batch->bytes;
    batch->event_bytes[batch->n] = bytes;
    batch->id_bytes[batch->n] = (uint8_t)id_bytes;
    memcpy(batch->id[batch->n], id, id_bytes);
    batch->bytes += bytes;
    batch->n++;
}

static int generated_next(struct send_events *e, struct send_batch *batch)
{
    char id[GENERATE_ID_BYTES_MAX];
    ssize_t bytes = generate_event(e->generate, e->next, batch->data + batch->bytes);

    if (bytes < 0) {
        snprintf(e->error, sizeof(e->error), "event %llu cannot be %u bytes long",
                 (unsigned long long)e->next, e->options->generate.event_bytes);
        return -EMSGSIZE;
    }
    size_t id_bytes = e->options->generate.without_ids ? 0 : generate_id(e->generate, e->next, id);

    batch_took(batch, (size_t)bytes, id, id_bytes);
    e->next++;
    return 1;
}

/* What the options add to an event from a file, and what it must have. */
static int form_complete(struct send_events *e, const char *where)
{
    const struct send_options *o = e->options;
    sluice_v1_Event *event = &e->form.event;
    const char *missing = NULL;

    if (!event->source[0] && o->source)
        strcpy(event->source, o->source);
    if (event->timestamp_ns == 0 && o->now)
        event->timestamp_ns = clock_unix_ns();
    if (!event->source[0])
        missing = "source (--source NAME gives one to all that have none)";
    else if (event->timestamp_ns == 0)
        missing = "timestamp (--now gives the present to all that have none)";
    else if (event->id.size == 0 && !o->allow_missing_ids)
        missing = "id, so it could not be recognised if it were sent twice "
                  "(--allow-missing-ids sends it all the same)";
    if (!missing)
        return 0;
    snprintf(e->error, sizeof(e->error), "%s: has no %s", where, missing);
    return -EINVAL;
}

int send_events_next(struct send_events *e, struct send_batch *batch)
{
    bool json = e->options->from == SEND_FROM_JSON;
    char where[48];

    if (e->generate)
        return generated_next(e, batch);
    int rc = json ? read_json_next(&e->json, &e->form) : read_csv_next(&e->csv, &e->form);

    if (rc == 0)
        return 0;
    if (rc < 0) {
        snprintf(e->error, sizeof(e->error), "%s",
                 rc == -EIO ? "cannot be read"
                 : json     ? e->json.error
                            : e->csv.error);
        return rc;
    }
    snprintf(where, sizeof(where), "line %llu",
             (unsigned long long)(json ? e->json.line_number : e->csv.row_line_number));
    rc = form_complete(e, where);
    if (rc < 0)
        return rc;
    ssize_t bytes = form_encode(&e->form, batch->data + batch->bytes, SEND_EVENT_BYTES_MAX);

    if (bytes < 0) {
        snprintf(e->error, sizeof(e->error), "%s: longer than %u bytes as protobuf", where,
                 SEND_EVENT_BYTES_MAX);
        return -EINVAL;
    }
    batch_took(batch, (size_t)bytes, e->form.event.id.bytes, e->form.event.id.size);
    return 1;
}
