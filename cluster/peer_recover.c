/*
 * peer_recover.c - see peer_recover.h.
 */
#include "cluster/peer_recover.h"

#include <assert.h>
#include <string.h>

#include "cluster/peer_message.h"

const char *peer_recover_get(struct peer_recover_view *ret, const void *body, size_t bytes)
{
    const struct peer_recover *h = body;
    size_t audit, change;

    assert(((uintptr_t)body & 7) == 0);
    if (bytes < sizeof *h)
        return "a RECOVER of this length cannot be";
    audit = peer_recover_padded(h->audit_bytes);
    change = peer_recover_padded(h->change_bytes);
    if (h->audit_bytes > PEER_RECOVER_AUDIT_MAX || h->change_bytes > PEER_CONFIGURATION_BYTES_MAX ||
        bytes != sizeof *h + audit + change)
        return "a RECOVER of this length cannot be";
    if (h->step < RECOVER_LOOK || h->step > RECOVER_FINISH || h->answer > 1 || h->status > 0 ||
        h->zero[0] != 0 || h->zero[1] != 0 || h->zero[2] != 0)
        return "a field that this build does not know";
    if (h->answer != 0 ? audit + change != 0
                       : (h->step == RECOVER_FINISH) != (audit > 0 && change > 0))
        return "entries where there can be none";
    if (h->answer == 0 && h->step != RECOVER_LOOK && (h->epoch == 0 || h->attempt == 0))
        return "a RECOVER for no attempt";
    *ret = (struct peer_recover_view){ .head = *h };
    ret->audit = (const uint8_t *)body + sizeof *h;
    ret->change = (const uint8_t *)ret->audit + audit;
    if (change > 0)
        return peer_configuration_check(ret->change, h->change_bytes);
    return NULL;
}
