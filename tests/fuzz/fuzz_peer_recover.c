/*
 * fuzz_peer_recover.c - any bytes as the body of a RECOVER.
 *
 * bytes 0 to 7: nothing; rest: the body. Checks beside the sanitizers': what is believed has the
 * head that it was read from, its entries are the rest of the body, one behind the other, and it
 * says what a node relies on that is asked.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/member.h"
#include "cluster/peer_message.h"
#include "cluster/peer_recover.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void on_recover(const uint8_t *body, size_t bytes)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    struct peer_recover_view v;
    const struct peer_recover *h = &v.head;
    const uint8_t *at = body + sizeof *h;

    if (peer_recover_get(&v, body, bytes) != NULL)
        return;
    assert(bytes >= sizeof *h && memcmp(h, body, sizeof *h) == 0);
    assert(h->step >= RECOVER_LOOK && h->step <= RECOVER_FINISH);
    assert(h->answer <= 1 && h->status <= 0);
    assert(h->audit_bytes <= PEER_RECOVER_AUDIT_MAX);
    assert(h->change_bytes <= PEER_CONFIGURATION_BYTES_MAX);
    assert(v.audit == at);
    at += peer_recover_padded(h->audit_bytes);
    assert(v.change == at);
    at += peer_recover_padded(h->change_bytes);
    assert(at == body + bytes);
    if (h->answer != 0) {
        assert(bytes == sizeof *h);
        return;
    }
    assert(h->step == RECOVER_LOOK || (h->epoch > 0 && h->attempt > 0));
    if (h->step == RECOVER_FINISH) {
        assert(h->audit_bytes > 0 && h->change_bytes > 0);
        /* Members or not: it may be asked. */
        assert(members_list(v.change, h->change_bytes, m) <= (int)CLUSTER_MEMBERS_MAX);
    }
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
    on_recover(body, n);
    free(body);
    return 0;
}
