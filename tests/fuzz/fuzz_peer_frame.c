/*
 * fuzz_peer_frame.c - any bytes, in any pieces, as the stream of a peer.
 *
 * byte 0: bit 0: CRCs are made right first; byte 1: the largest piece; byte 2: every how many times
 * there is no memory for an entry; rest: the stream. Checks beside the sanitizers': memory is asked
 * for only as the bytes arrive, every entry is given back once, and a message that was taken,
 * encoded again, is the bytes that it was read from.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/peer_decoder.h"
#include "cluster/record.h"

#define STREAM_MAX (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

struct memory {
    unsigned live, asked, again_every;
};

static int entry_alloc(void *arg, const struct log_record *record, struct log_write **ret)
{
    struct memory *m = arg;
    struct log_write *w;

    if (m->again_every > 0 && ++m->asked % m->again_every == 0)
        return -EAGAIN;
    w = calloc(1, sizeof *w);
    assert(w != NULL && record->index > 0);
    w->buf = aligned_alloc(LOG_ALIGN, record_bytes(record->payload_bytes));
    assert(w->buf != NULL);
    m->live++;
    *ret = w;
    return 0;
}

static void entry_free(void *arg, struct log_write *w)
{
    struct memory *m = arg;

    assert(m->live > 0);
    m->live--;
    free(w->buf);
    free(w);
}

/* Makes the CRCs of all frames right, as far as their lengths go. */
static void mend(uint8_t *p, size_t bytes)
{
    struct peer_header h;
    size_t at = 0;

    while (bytes - at >= sizeof h) {
        memcpy(&h, p + at, sizeof h);
        if (h.head_bytes > h.body_bytes || h.body_bytes > bytes - at - sizeof h)
            break;
        if (h.type == PEER_APPEND_ENTRIES && h.head_bytes >= PEER_APPEND_BYTES) {
            size_t payload = at + sizeof h + h.head_bytes;
            const size_t end = at + sizeof h + h.body_bytes;

            for (size_t e = PEER_APPEND_BYTES; e + PEER_ENTRY_BYTES <= h.head_bytes;
                 e += PEER_ENTRY_BYTES) {
                uint8_t *entry = p + at + sizeof h + e;
                uint32_t n, packed, crc;

                memcpy(&n, entry + 20, 4);
                memcpy(&packed, entry + 28, 4);
                if ((packed != 0 ? packed : n) > end - payload)
                    break;
                if (packed != 0) { /* the CRC is of what comes out */
                    payload += packed;
                    continue;
                }
                crc = crc32c(0, p + payload, n);
                memcpy(entry + 24, &crc, 4);
                payload += n;
            }
        }
        h.magic = PEER_MAGIC;
        h.head_crc = crc32c(0, p + at + sizeof h, h.head_bytes);
        h.crc = crc32c(0, &h.type, sizeof h - offsetof(struct peer_header, type));
        memcpy(p + at, &h, sizeof h);
        at += sizeof h + h.body_bytes;
    }
}

static void same_append(const struct peer_message *m, const uint8_t *from, size_t bytes)
{
    static uint8_t buf[PEER_APPEND_BUF(PEER_ENTRIES_MAX)] __attribute__((aligned(8)));
    const unsigned n = m->raft.append_entries.n_entries;
    struct peer_entry entry[PEER_ENTRIES_MAX];
    struct iovec iov[1 + PEER_ENTRIES_MAX];
    const uint8_t *packed = from + PEER_APPEND_BUF(n);
    int r;

    for (unsigned i = 0; i < n; i++) {
        struct log_record record;
        uint32_t crc, packed_bytes;

        peer_entry_get(&record, &crc, &packed_bytes, m, i);
        entry[i] = (struct peer_entry){ .record = &m->write[i]->record,
                                        .payload = peer_raft_entry(m->write[i]).buf.base,
                                        .payload_crc = m->write[i]->payload_crc,
                                        .packed_bytes = packed_bytes,
                                        .packed = packed };
        packed += packed_bytes != 0 ? packed_bytes : record.payload_bytes;
    }
    assert(peer_entries_fit(entry, n) == n);
    r = peer_encode_append_entries(buf, sizeof buf, m->frame.epoch, &m->raft.append_entries, entry,
                                   iov, 1 + PEER_ENTRIES_MAX);
    assert(r > 0);
    for (int i = 0; i < r; i++) {
        assert(iov[i].iov_len <= bytes && memcmp(iov[i].iov_base, from, iov[i].iov_len) == 0);
        from += iov[i].iov_len;
        bytes -= iov[i].iov_len;
    }
    assert(bytes == 0);
}

static void same_bytes(const struct peer_message *m, const uint8_t *from, size_t bytes)
{
    static uint8_t buf[PEER_HEADER_BYTES + PEER_HEAD_MAX] __attribute__((aligned(8)));
    struct raft_message raft = m->raft;
    ssize_t n;

    assert(bytes == PEER_HEADER_BYTES + m->frame.body_bytes);
    if (m->frame.type < PEER_REQUEST_VOTE) /* fuzz_handshake.c */
        return;
    if (m->frame.type == PEER_APPEND_ENTRIES) {
        same_append(m, from, bytes);
        return;
    }
    if (m->frame.type >= PEER_POST_FIRST) {
        const struct iovec body = { (void *)(uintptr_t)m->frame.head, m->frame.head_bytes };

        peer_frame_put_post(buf, (enum peer_type)m->frame.type, m->frame.epoch, &body, 1);
        assert(memcmp(buf, from, PEER_HEADER_BYTES) == 0);
        assert(memcmp(m->frame.head, from + PEER_HEADER_BYTES, m->frame.head_bytes) == 0);
        return;
    }
    if (m->frame.type == PEER_PING) {
        n = peer_encode_ping(buf, sizeof buf, m->frame.epoch);
    } else {
        if (m->frame.type == PEER_INSTALL_SNAPSHOT) {
            int r = peer_snapshot_take(&raft.install_snapshot, m);

            assert(r == 0);
        }
        n = peer_encode(buf, sizeof buf, m->frame.epoch, &raft);
        if (m->frame.type == PEER_INSTALL_SNAPSHOT) {
            raft_configuration_close(&raft.install_snapshot.conf);
            raft_free(raft.install_snapshot.data.base);
        }
    }
    assert(n == (ssize_t)bytes && memcmp(buf, from, bytes) == 0);
}

static void take(struct peer_decoder *d, struct memory *memory, const uint8_t *from, size_t bytes)
{
    const struct peer_message *m = peer_decoder_message(d);

    same_bytes(m, from, bytes);
    if (m->frame.type == PEER_APPEND_ENTRIES)
        for (unsigned i = 0; i < m->raft.append_entries.n_entries; i++)
            entry_free(memory, m->write[i]);
    assert(memory->live == 0);
}

static void run(const uint8_t *stream, size_t bytes, size_t piece_max, unsigned again_every)
{
    struct memory memory = { .again_every = again_every };
    struct peer_decoder d;
    size_t at = 0, begin = 0;
    int r = peer_decoder_init(&d, &(struct peer_decoder_memory){ entry_alloc, entry_free, &memory },
                              UINT32_MAX);

    assert(r == 0);
    d.unpacker.hash_key = (const uint8_t *)"a fuzzer's key..";
    while (r >= 0) {
        void *to;
        size_t n = peer_decoder_want(&d, &to);

        if (n > piece_max)
            n = piece_max;
        if (n > bytes - at)
            n = bytes - at;
        if (n == 0 && d.state != PEER_DECODER_ENTRY)
            break;
        if (n > 0) /* where nothing is wanted, `to` is not set */
            memcpy(to, stream + at, n);
        at += n;
        r = peer_decoder_got(&d, n);
        if (r == 1) {
            take(&d, &memory, stream + begin, at - begin);
            begin = at;
        }
    }
    assert(r >= 0 ? at == bytes : peer_decoder_error(&d)[0] != 0);
    peer_decoder_fini(&d);
    assert(memory.live == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    uint8_t *stream;

    if (bytes < 3 || bytes > STREAM_MAX)
        return 0;
    stream = malloc(bytes - 3 + 1);
    assert(stream != NULL);
    memcpy(stream, data + 3, bytes - 3);
    if (data[0] & 1)
        mend(stream, bytes - 3);
    run(stream, bytes - 3, 1 + (size_t)data[1] * 3, data[2] > 1 ? data[2] : 0);
    free(stream);
    return 0;
}
