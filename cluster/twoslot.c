/*
 * twoslot.c - two copies of a small value; see twoslot.h.
 */
#include "cluster/twoslot.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

#define SLOT_BYTES   4096u
#define SLOT_VERSION 1u

struct slot {
    uint32_t magic;
    uint32_t crc; /* of the whole slot, this field as zero */
    uint32_t version;
    uint32_t bytes;
    uint64_t sequence;
    uint8_t payload[SLOT_BYTES - 24];
};
_Static_assert(sizeof(struct slot) == SLOT_BYTES, "stored");
_Static_assert(TWOSLOT_PAYLOAD_MAX <= SLOT_BYTES - 24, "fits");

static uint32_t slot_crc(struct slot *s)
{
    uint32_t stored = s->crc, crc;

    s->crc = 0;
    crc = crc32c(0, s, sizeof *s);
    s->crc = stored;
    return crc;
}

static void slot_fill(struct slot *s, uint32_t magic, uint64_t sequence, const void *payload,
                      size_t bytes)
{
    memset(s, 0, sizeof *s);
    s->magic = magic;
    s->version = SLOT_VERSION;
    s->bytes = (uint32_t)bytes;
    s->sequence = sequence;
    memcpy(s->payload, payload, bytes);
    s->crc = slot_crc(s);
}

/* The slot's sequence, or 0 when the slot is no good; ret_payload is filled if it is. */
static uint64_t slot_read(struct twoslot *t, int which, uint32_t magic, void *ret_payload,
                          size_t bytes)
{
    struct slot *s = t->page;
    int64_t n = t->disk->ops->read(t->disk, t->file, s, SLOT_BYTES, (uint64_t)which * SLOT_BYTES);

    if (n != SLOT_BYTES || s->magic != magic || s->version != SLOT_VERSION ||
        s->crc != slot_crc(s) || s->bytes != bytes)
        return 0;
    if (s->sequence > INT64_MAX) /* never written; one more must not be none */
        return 0;
    memcpy(ret_payload, s->payload, bytes);
    return s->sequence;
}

static int slot_write(struct twoslot *t, int which)
{
    return t->disk->ops->write_now(t->disk, t->file, t->page, SLOT_BYTES,
                                   (uint64_t)which * SLOT_BYTES);
}

static int write_both(struct twoslot *t)
{
    int r = slot_write(t, 0);

    return r < 0 ? r : slot_write(t, 1);
}

/* The file gets its name when it is whole. */
static int create(struct twoslot *t, const char *name, uint32_t magic, const void *payload,
                  size_t bytes)
{
    struct disk *d = t->disk;
    char tmp[80];
    int r = snprintf(tmp, sizeof tmp, "%s.tmp", name);

    assert(r > 0 && (size_t)r < sizeof tmp);
    r = d->ops->remove(d, tmp);
    if (r < 0 && r != -ENOENT)
        return r;
    t->file = d->ops->open(d, tmp, true);
    if (t->file < 0)
        return t->file;
    t->sequence = 1;
    slot_fill(t->page, magic, t->sequence, payload, bytes);
    r = write_both(t);
    if (r == 0)
        r = d->ops->rename(d, tmp, name);
    return r < 0 ? r : d->ops->sync_dir(d);
}

/* Reads both slots and makes them equal again. */
static int load(struct twoslot *t, uint32_t magic, void *payload, size_t bytes)
{
    uint8_t value[2][TWOSLOT_PAYLOAD_MAX];
    uint64_t sequence[2];
    int best, r;

    for (int i = 0; i < 2; i++)
        sequence[i] = slot_read(t, i, magic, value[i], bytes);
    best = sequence[1] > sequence[0];
    if (sequence[best] == 0)
        return -EILSEQ;
    memcpy(payload, value[best], bytes);
    t->sequence = sequence[best];
    slot_fill(t->page, magic, t->sequence, payload, bytes);
    if (sequence[0] == sequence[1])
        return 0;
    r = slot_write(t, !best);
    return r < 0 ? r : 1;
}

int twoslot_open(struct twoslot *t, struct disk *d, const char *name, uint32_t magic, void *payload,
                 size_t bytes)
{
    int r;

    assert(bytes > 0 && bytes <= TWOSLOT_PAYLOAD_MAX && magic != 0);
    *t = (struct twoslot){ .disk = d, .file = -1 };
    t->page = aligned_alloc(SLOT_BYTES, SLOT_BYTES);
    if (t->page == NULL)
        return -ENOMEM;
    t->file = d->ops->open(d, name, false);
    if (t->file >= 0)
        r = load(t, magic, payload, bytes);
    else if (t->file == -ENOENT)
        r = create(t, name, magic, payload, bytes);
    else
        r = t->file;
    if (r < 0)
        twoslot_close(t);
    return r;
}

int twoslot_write(struct twoslot *t, const void *payload, size_t bytes)
{
    struct slot *s = t->page;

    assert(t->file >= 0 && s->bytes <= bytes && bytes <= TWOSLOT_PAYLOAD_MAX && s->magic != 0);
    t->sequence++;
    slot_fill(s, s->magic, t->sequence, payload, bytes);
    return write_both(t);
}

void twoslot_close(struct twoslot *t)
{
    if (t->file >= 0)
        t->disk->ops->close(t->disk, t->file);
    free(t->page);
    t->file = -1;
    t->page = NULL;
}

/* For the offline check: the value, without changing anything. */
int twoslot_peek(struct disk *d, const char *name, uint32_t magic, void *payload, size_t bytes)
{
    struct twoslot t = { .disk = d, .file = -1 };
    uint8_t value[TWOSLOT_PAYLOAD_MAX];
    uint64_t best = 0, other;
    int bad = 0;

    assert(bytes > 0 && bytes <= TWOSLOT_PAYLOAD_MAX);
    t.page = aligned_alloc(SLOT_BYTES, SLOT_BYTES);
    if (t.page == NULL)
        return -ENOMEM;
    t.file = d->ops->open(d, name, false);
    if (t.file < 0) {
        free(t.page);
        return t.file;
    }
    for (int i = 0; i < 2; i++) {
        other = slot_read(&t, i, magic, value, bytes);
        if (other > best)
            memcpy(payload, value, bytes);
        bad += other == 0;
        best = other > best ? other : best;
    }
    twoslot_close(&t);
    return bad == 2 ? -EILSEQ : bad;
}
