/*
 * peer_fetch.c - the bodies of FETCH and FETCHED; drawn in peer_fetch.h. Any thread, no memory.
 */
#include "cluster/peer_fetch.h"

#include <errno.h>
#include <string.h>

#define MORE_RECOVERS    2u
#define MORE_PACKS_SHIFT 2u
#define MORE_END         (1u << 4)

struct wire_fetch {
    uint64_t from;
    uint64_t to;
    uint32_t bytes;
    uint32_t more;
};
_Static_assert(sizeof(struct wire_fetch) == PEER_FETCH_BYTES, "sent");

struct wire_fetched {
    uint64_t from;
    uint32_t entries;
    uint32_t zero;
    uint8_t before[SHA256_BYTES];
};
_Static_assert(sizeof(struct wire_fetched) == PEER_FETCHED_BYTES, "sent");

void peer_fetch_put(uint8_t buf[PEER_FETCH_BYTES], const struct peer_fetch *m)
{
    struct wire_fetch w = { m->from, m->to, m->bytes,
                            (uint32_t)m->more | (m->recovers ? MORE_RECOVERS : 0) |
                                (uint32_t)m->packs << MORE_PACKS_SHIFT };

    assert(m->packs <= FETCH_LEAN);
    assert(m->from > 0 && m->to >= m->from && m->bytes > 0 && m->bytes <= PEER_FETCH_BYTES_MAX);
    memcpy(buf, &w, sizeof w);
}

void peer_fetch_plain(uint8_t buf[PEER_FETCH_BYTES], const void *body)
{
    struct wire_fetch w;

    memcpy(&w, body, sizeof w);
    w.more &= 1;
    memcpy(buf, &w, sizeof w);
}

const char *peer_fetch_get(struct peer_fetch *ret, const void *body, size_t bytes)
{
    const struct wire_fetch *w = body;

    if (bytes != sizeof *w)
        return "a FETCH of another length";
    if (w->from == 0 || w->to < w->from || w->to > INT64_MAX)
        return "entries that no log can have";
    if (w->bytes == 0 || w->bytes > PEER_FETCH_BYTES_MAX)
        return "a number of bytes that may not be asked for";
    if (w->more >= MORE_END || w->more >> MORE_PACKS_SHIFT > FETCH_LEAN)
        return "a wish that is not known";
    *ret = (struct peer_fetch){ .from = w->from,
                                .to = w->to,
                                .bytes = w->bytes,
                                .more = (w->more & 1) != 0,
                                .recovers = (w->more & MORE_RECOVERS) != 0,
                                .packs = (uint8_t)(w->more >> MORE_PACKS_SHIFT) };
    return NULL;
}

size_t peer_fetched_begin(uint8_t *buf, uint64_t from, const uint8_t before[SHA256_BYTES])
{
    struct wire_fetched w = { .from = from };

    assert(((uintptr_t)buf & 7) == 0 && from > 0);
    memcpy(w.before, before, sizeof w.before);
    memcpy(buf, &w, sizeof w);
    return sizeof w;
}

static uint32_t here(uint32_t packed_bytes, uint32_t payload_bytes)
{
    return packed_bytes > 0 ? packed_bytes : payload_bytes;
}

size_t peer_fetched_add(uint8_t *buf, size_t used, const struct peer_entry *entry)
{
    struct wire_fetched *head = (void *)buf;
    struct peer_wire_entry *w = (void *)(buf + used);
    size_t bytes = here(entry->packed_bytes, entry->record->payload_bytes);

    assert(used % 8 == 0 && used >= sizeof *head && used <= PEER_POST_MAX);
    assert(entry->record->index == head->from + head->entries);
    if (sizeof *w + bytes > PEER_POST_MAX - used)
        return used;
    peer_wire_entry_put(w, entry);
    assert(peer_wire_entry_check(w) == NULL);
    if (bytes > 0)
        memcpy(w + 1, entry->packed_bytes > 0 ? entry->packed : entry->payload, bytes);
    head->entries++;
    return used + sizeof *w + bytes;
}

/* An entry at `at` and its payload, packed or not, are within the body. */
static bool is_there(const uint8_t *body, size_t bytes, size_t at)
{
    const struct peer_wire_entry *w = (const void *)(body + at);

    return bytes - at >= sizeof *w && peer_wire_entry_check(w) == NULL &&
           here(w->packed_bytes, w->payload_bytes) <= bytes - at - sizeof *w;
}

bool peer_fetched_is_packed(const void *body, size_t bytes)
{
    const struct peer_wire_entry *w;

    if (bytes > PEER_POST_MAX)
        return false;

    for (size_t at = sizeof(struct wire_fetched); at <= bytes && is_there(body, bytes, at);
         at += sizeof *w + w->payload_bytes) {
        w = (const void *)((const uint8_t *)body + at);
        if (w->packed_bytes > 0)
            return true;
    }
    return false;
}

int peer_fetched_unpack(struct peer_unpacker *u, const void *body, size_t bytes, uint8_t *to,
                        size_t *ret_bytes)
{
    const struct wire_fetched *head = body;
    size_t at = sizeof *head, n = sizeof *head;

    assert(((uintptr_t)body & 7) == 0 && ((uintptr_t)to & 7) == 0);
    if (bytes < sizeof *head || bytes % 8 != 0 || bytes > PEER_POST_MAX)
        return -EBADMSG;
    memcpy(to, head, sizeof *head);
    for (uint32_t i = 0; i < head->entries; i++) {
        const struct peer_wire_entry *w = (const void *)((const uint8_t *)body + at);
        struct peer_wire_entry *out = (void *)(to + n);
        int e = 0;

        if (!is_there(body, bytes, at) || sizeof *w + w->payload_bytes > PEER_POST_MAX - n)
            return -EBADMSG;
        *out = *w;
        out->packed_bytes = 0;
        if (w->packed_bytes > 0 && peer_unpacker_buf(u) == NULL)
            return -ENOMEM;
        memcpy(w->packed_bytes > 0 ? u->buf : (uint8_t *)(out + 1), w + 1,
               here(w->packed_bytes, w->payload_bytes));
        if (w->packed_bytes > 0)
            e = peer_unpack(u, w->packed_bytes, out + 1, w->payload_bytes);
        if (e < 0)
            return e;
        at += sizeof *w + here(w->packed_bytes, w->payload_bytes);
        n += sizeof *w + w->payload_bytes;
    }
    if (at != bytes)
        return -EBADMSG;
    *ret_bytes = n;
    return 0;
}

/* The entry at `at`, which must end within the body. before: the one before it, or NULL. */
static const char *check_entry(const uint8_t *body, size_t bytes, size_t at,
                               const struct peer_wire_entry *before)
{
    const struct peer_wire_entry *w = (const void *)(body + at);
    const char *wrong;

    if (bytes - at < sizeof *w)
        return "fewer entries than it says";
    wrong = peer_wire_entry_check(w);
    if (wrong == NULL && w->packed_bytes != 0)
        wrong = "a packed payload, which may not be here";
    if (wrong != NULL)
        return wrong;
    if (w->payload_bytes > bytes - at - sizeof *w)
        return "a payload that is cut off";
    if (w->term == 0 || (before != NULL && w->term < before->term))
        return "the terms of the entries cannot be";
    if (before != NULL && w->time_ns < before->time_ns)
        return "the times of the entries go back";
    /* The engine believes its lengths. */
    return w->type == LOG_CHANGE ? peer_configuration_check(w + 1, w->payload_bytes) : NULL;
}

const char *peer_fetched_get(struct peer_fetched *ret, const void *body, size_t bytes)
{
    const struct wire_fetched *head = body;
    const struct peer_wire_entry *before = NULL;
    size_t at = sizeof *head;

    assert(((uintptr_t)body & 7) == 0);
    if (bytes < sizeof *head || bytes % 8 != 0 || bytes > PEER_POST_MAX)
        return "a FETCHED of another length";
    if (head->zero != 0)
        return "reserved bytes are not 0";
    if (head->from == 0 || head->entries == 0 || head->from > (uint64_t)INT64_MAX - head->entries)
        return "entries that no log can have";
    for (uint32_t i = 0; i < head->entries; i++) {
        const char *wrong = check_entry(body, bytes, at, before);

        if (wrong != NULL)
            return wrong;
        before = (const void *)((const uint8_t *)body + at);
        at += sizeof *before + before->payload_bytes;
    }
    if (at != bytes)
        return "more bytes than its entries have";
    *ret = (struct peer_fetched){ .from = head->from,
                                  .entries = head->entries,
                                  .before = head->before,
                                  .body = body,
                                  .at = sizeof *head };
    return NULL;
}

bool peer_fetched_next(struct peer_fetched *f, struct log_record *ret, struct peer_entry *ret_entry)
{
    const struct peer_wire_entry *w = (const void *)(f->body + f->at);

    assert(f->done <= f->entries && f->at % 8 == 0);
    if (f->done == f->entries)
        return false;
    peer_wire_entry_get(ret, w, f->from + f->done);
    *ret_entry = (struct peer_entry){ ret, w + 1, w->payload_crc, 0, NULL };
    f->done++;
    f->at += sizeof *w + w->payload_bytes;
    return true;
}

const char *peer_fetched_check_payloads(const struct peer_fetched *f)
{
    struct peer_fetched all = *f;
    struct log_record record;
    struct peer_entry entry;
    uint8_t sha256_of[SHA256_BYTES];

    while (peer_fetched_next(&all, &record, &entry)) {
        if (crc32c(0, entry.payload, record.payload_bytes) != entry.payload_crc)
            return "a payload that is not what its CRC says";
        sha256(sha256_of, entry.payload, record.payload_bytes, NULL, 0);
        if (memcmp(sha256_of, record.payload_sha256, SHA256_BYTES) != 0)
            return "a payload that is not what its SHA-256 says";
    }
    return NULL;
}
