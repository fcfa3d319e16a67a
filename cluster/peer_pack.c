/*
 * peer_pack.c - see peer_pack.h. The cluster thread's, or a decoder's owner's.
 */
#include "cluster/peer_pack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "cluster/block_lean.h"

void peer_packer_fini(struct peer_packer *p)
{
    for (unsigned i = 0; i < PACK_KEPT; i++)
        free(p->kept[i].data);
    (void)ZSTD_freeCCtx(p->context);
    free(p->lean);
    memset(p, 0, sizeof *p);
}

static bool is_of(const struct packed *k, const struct peer_entry *e)
{
    return k->index == e->record->index && k->term == e->record->term && k->crc == e->payload_crc &&
           k->payload_bytes == e->record->payload_bytes;
}

static bool make_room(struct packed *k, uint32_t bytes)
{
    if (k->cap >= bytes)
        return true;
    free(k->data);
    k->data = malloc(bytes);
    k->cap = k->data != NULL ? bytes : 0;
    return k->data != NULL;
}

/* In p->lean. Returns its bytes, 0: there is no such form of it. */
static uint32_t make_lean(struct peer_packer *p, const struct peer_entry *e)
{
    if (p->hash_key == NULL || e->record->type != LOG_EVENTS)
        return 0;
    if (p->lean == NULL)
        p->lean = malloc(PEER_PAYLOAD_MAX);
    return p->lean == NULL
               ? 0
               : block_lean_put(p->hash_key, e->payload, e->record->payload_bytes, p->lean);
}

/* Into k, unless it gets no shorter: what does not fit into less than the payload is an error to
 * zstd. */
static void pack(struct peer_packer *p, struct packed *k, const struct peer_entry *e)
{
    uint32_t all = e->record->payload_bytes, lean = make_lean(p, e);
    size_t n;

    *k = (struct packed){ .index = e->record->index,
                          .term = e->record->term,
                          .crc = e->payload_crc,
                          .payload_bytes = all,
                          .lean = lean > 0,
                          .cap = k->cap,
                          .data = k->data };
    if (p->context == NULL)
        p->context = ZSTD_createCCtx();
    if (p->context == NULL || !make_room(k, all))
        return;
    n = ZSTD_compressCCtx(p->context, k->data, all - 8, lean > 0 ? p->lean : e->payload,
                          lean > 0 ? lean : all, p->level);
    if (ZSTD_isError(n))
        return;
    k->bytes = ((uint32_t)n + 7) & ~7u;
    memset(k->data + n, 0, k->bytes - n);
    assert(k->bytes < all && k->bytes % 8 == 0);
}

void peer_pack(struct peer_packer *p, struct peer_entry *entry, bool knows)
{
    struct packed *k = &p->kept[entry->record->index % PACK_KEPT];

    if (p->level == 0 || entry->record->payload_bytes < PACK_BYTES_MIN)
        return;
    if (!is_of(k, entry) || (k->lean && !knows && p->hash_key == NULL))
        pack(p, k, entry);
    if (k->bytes == 0 || (k->lean && !knows))
        return;
    entry->packed = k->data;
    entry->packed_bytes = k->bytes;
}

void peer_unpacker_fini(struct peer_unpacker *u)
{
    (void)ZSTD_freeDCtx(u->context);
    free(u->buf);
    free(u->lean);
    memset(u, 0, sizeof *u);
}

uint8_t *peer_unpacker_buf(struct peer_unpacker *u)
{
    if (u->context == NULL)
        u->context = ZSTD_createDCtx();
    if (u->buf == NULL && u->context != NULL)
        u->buf = malloc(PEER_PAYLOAD_MAX);
    return u->buf;
}

static int unpack_lean(struct peer_unpacker *u, size_t n, size_t lean_bytes, void *to,
                       uint32_t payload_bytes)
{
    if (u->hash_key == NULL)
        return -EBADMSG;
    if (u->lean == NULL)
        u->lean = malloc(PEER_PAYLOAD_MAX);
    if (u->lean == NULL)
        return -ENOMEM;
    if (ZSTD_decompressDCtx(u->context, u->lean, lean_bytes, u->buf, n) != lean_bytes)
        return -EBADMSG;
    return block_lean_get(u->hash_key, u->lean, lean_bytes, to, payload_bytes);
}

int peer_unpack(struct peer_unpacker *u, uint32_t packed_bytes, void *to, uint32_t payload_bytes)
{
    size_t n = ZSTD_findFrameCompressedSize(u->buf, packed_bytes);
    unsigned long long is;

    assert(packed_bytes <= PEER_PAYLOAD_MAX && payload_bytes <= PEER_PAYLOAD_MAX);
    if (ZSTD_isError(n) || n > packed_bytes || packed_bytes - n >= 8)
        return -EBADMSG;
    for (size_t i = n; i < packed_bytes; i++) {
        if (u->buf[i] != 0)
            return -EBADMSG;
    }
    is = ZSTD_getFrameContentSize(u->buf, n);
    if (is < payload_bytes) /* what is not known, or no frame, is more than any */
        return unpack_lean(u, n, (size_t)is, to, payload_bytes);
    /* Into `to` at once: so zstd needs no window of its own, whatever size the frame asks for. */
    return ZSTD_decompressDCtx(u->context, to, payload_bytes, u->buf, n) == payload_bytes
               ? 0
               : -EBADMSG;
}
