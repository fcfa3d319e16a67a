/*
 * fuzz_handshake.c - any bytes as the head of a HELLO, a WELCOME or a REFUSE.
 *
 * byte 0: its two lowest bits: which of them; the next: no node is known, it is but without a
 * directory, this node's epoch is 1, its versions go up to 9; rest: the head. Checks beside the
 * sanitizers': who is refused gets a sentence that the other side takes as it is; who is not is the
 * node that was known, and its HELLO, written again, reads the same.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "cluster/handshake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static uint8_t in[PEER_HEADER_BYTES + PEER_HANDSHAKE_MAX] __attribute__((aligned(8)));
static uint8_t out[HANDSHAKE_FRAME_MAX] __attribute__((aligned(8)));

static struct peer_frame frame_at(uint8_t *buf, enum peer_type type, size_t head_bytes,
                                  uint64_t epoch)
{
    return (struct peer_frame){ .type = type,
                                .head = buf + PEER_HEADER_BYTES,
                                .head_bytes = (uint32_t)head_bytes,
                                .body_bytes = (uint32_t)head_bytes,
                                .epoch = epoch };
}

static void refusal_travels(const struct refusal *refusal)
{
    struct refusal again;
    int n = handshake_put_refusal(out, sizeof out, 1, refusal);
    struct peer_frame f = frame_at(out, PEER_REFUSE, HANDSHAKE_REFUSE_BYTES, 1);
    const char *wrong = handshake_get_refusal(&again, &f);

    assert(n == (int)(PEER_HEADER_BYTES + HANDSHAKE_REFUSE_BYTES) && wrong == NULL);
    assert(memcmp(&again, refusal, sizeof again) == 0);
}

static void on_hello(const struct peer_frame *f, const struct handshake_self *self,
                     const struct handshake_known *known, bool unknown)
{
    static const uint8_t no_id[HANDSHAKE_ID_BYTES];
    struct hello hello, again;
    struct refusal refusal;
    struct peer_frame back;
    int r;

    if (handshake_get_hello(&hello, f) != NULL)
        return;
    if (hello.node != known->node)
        unknown = true;
    r = handshake_check(self, unknown ? NULL : known, &hello, &refusal);
    if (r < 0) {
        assert(r == -EACCES && refusal.code >= REFUSAL_MAGIC && refusal.code <= REFUSAL_REGION);
        refusal_travels(&refusal);
        return;
    }
    assert(hello.dialled == self->node && handshake_version(self, &hello) > 0);
    assert((r == HANDSHAKE_CALLS_ONLY) == (memcmp(hello.cluster_id, no_id, sizeof no_id) == 0));
    if (r != HANDSHAKE_CALLS_ONLY) {
        assert(!unknown && hello.region == known->region);
        assert(((r & HANDSHAKE_REMEMBER) != 0) == !known->directory_known);
    }
    r = handshake_put_hello(out, sizeof out, &hello);
    back = frame_at(out, PEER_HELLO, HANDSHAKE_HELLO_BYTES, hello.epoch);
    assert(r == (int)(PEER_HEADER_BYTES + HANDSHAKE_HELLO_BYTES));
    assert(handshake_get_hello(&again, &back) == NULL);
    assert(memcmp(&again, &hello, sizeof hello) == 0);
}

static void on_welcome(const struct peer_frame *f, const struct handshake_self *self,
                       const struct handshake_known *known)
{
    struct welcome welcome;
    struct refusal refusal;
    int r;

    if (handshake_get_welcome(&welcome, f) != NULL)
        return;
    r = handshake_check_welcome(self, known, &welcome, &refusal);
    if (r < 0)
        refusal_travels(&refusal);
    else
        assert(welcome.node == known->node && welcome.version <= self->version_max);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct handshake_self self = { .node = 1, .version_min = 1, .version_max = 1 };
    struct handshake_known known = { .node = 2, .region = 1 };
    struct refusal refusal;
    struct peer_frame f;
    size_t head_bytes;
    unsigned options;

    if (bytes < 1)
        return 0;
    options = data[0] >> 2;
    head_bytes = bytes - 1 < PEER_HANDSHAKE_MAX ? bytes - 1 : PEER_HANDSHAKE_MAX;
    memcpy(in + PEER_HEADER_BYTES, data + 1, head_bytes);
    memset(self.cluster_id, 1, sizeof self.cluster_id);
    memset(self.directory_id, 3, sizeof self.directory_id);
    memset(known.directory_id, 2, sizeof known.directory_id);
    known.directory_known = (options & 2) == 0;
    self.epoch = (options >> 2) & 1;
    if (options & 8)
        self.version_max = 9;
    f = frame_at(in, (enum peer_type)(PEER_HELLO + data[0] % 4 % 3), head_bytes, options >> 4);
    if (f.type == PEER_HELLO)
        on_hello(&f, &self, &known, options & 1);
    else if (f.type == PEER_WELCOME)
        on_welcome(&f, &self, &known);
    else if (handshake_get_refusal(&refusal, &f) == NULL)
        refusal_travels(&refusal);
    return 0;
}
