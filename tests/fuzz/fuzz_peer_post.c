/*
 * fuzz_peer_post.c - any bytes as the body of a FETCH or a FETCHED.
 *
 * byte 0: bit 0: a FETCHED; bit 1: the CRC and SHA-256 of its payloads are made right first; bit 2:
 * it is unpacked first; bytes 1 to 7: nothing; rest: the body. Checks beside the sanitizers': a
 * body that was taken, written again, is the bytes that it was read from, and its payloads are what
 * they say once that was made so.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/peer_fetch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static uint8_t again[PEER_POST_MAX] __attribute__((aligned(8)));
static uint8_t unpacked[PEER_POST_MAX] __attribute__((aligned(8)));

/* As far as their lengths go. */
static void mend(uint8_t *body, size_t bytes)
{
    struct peer_wire_entry w;
    size_t at = PEER_FETCHED_BYTES;

    while (at <= bytes && bytes - at >= sizeof w) {
        memcpy(&w, body + at, sizeof w);
        if (w.payload_bytes > bytes - at - sizeof w)
            break;
        w.payload_crc = crc32c(0, body + at + sizeof w, w.payload_bytes);
        sha256(w.payload_sha256, body + at + sizeof w, w.payload_bytes, NULL, 0);
        memcpy(body + at, &w, sizeof w);
        at += sizeof w + w.payload_bytes;
    }
}

static void on_fetch(const uint8_t *body, size_t bytes)
{
    struct peer_fetch m;

    if (peer_fetch_get(&m, body, bytes) != NULL)
        return;
    peer_fetch_put(again, &m);
    assert(bytes == PEER_FETCH_BYTES && memcmp(again, body, bytes) == 0);
}

static void on_fetched(const uint8_t *body, size_t bytes, bool mended, bool packed)
{
    static const uint8_t key[16] = { 1 };
    static struct peer_unpacker unpacker = { .hash_key = key };
    struct peer_fetched m;
    struct log_record record;
    struct peer_entry entry;
    size_t used, before;

    if (packed) {
        bool is = peer_fetched_is_packed(body, bytes);

        if (peer_fetched_unpack(&unpacker, body, bytes, unpacked, &bytes) != 0)
            return;
        assert(is || memcmp(body, unpacked, bytes) == 0);
        assert(bytes <= sizeof unpacked);
        body = unpacked;
        mended = false;
    }
    if (peer_fetched_get(&m, body, bytes) != NULL)
        return;
    assert(peer_fetched_check_payloads(&m) == NULL || !mended);
    used = peer_fetched_begin(again, m.from, m.before);
    for (uint64_t index = m.from; peer_fetched_next(&m, &record, &entry); index++) {
        assert(record.index == index);
        before = used;
        used = peer_fetched_add(again, used, &entry);
        assert(used > before);
    }
    assert(m.done == m.entries && used == bytes && memcmp(again, body, bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    uint8_t *body;
    size_t n;

    if (bytes < 8 || bytes - 8 > PEER_POST_MAX)
        return 0;
    n = bytes - 8;
    body = malloc(n > 0 ? n : 1); /* an exact copy, aligned */
    assert(body != NULL);
    memcpy(body, data + 8, n);
    if (data[0] & 2)
        mend(body, n);
    if (data[0] & 1)
        on_fetched(body, n, data[0] & 2, data[0] & 4);
    else
        on_fetch(body, n);
    free(body);
    return 0;
}
