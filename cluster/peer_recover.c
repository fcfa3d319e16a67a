/*
 * peer_recover.c - see peer_recover.h.
 */
#include "cluster/peer_recover.h"

#include <assert.h>
#include <string.h>

#include "cluster/peer_message.h"

static bool are_zeros(const uint8_t *p, size_t from, size_t to)
{
    for (; from < to; from++) {
        if (p[from] != 0)
            return false;
    }
    return true;
}

static const char *check_fields(const struct peer_recover *h)
{
    if (h->step < RECOVER_LOOK || h->step > RECOVER_FINISH || h->answer > 1 || h->status > 0 ||
        (h->answer == 0 && h->status != 0) || h->zero[0] != 0 || h->zero[1] != 0 || h->zero[2] != 0)
        return "a field that this build does not know";
    if (h->epoch > PEER_RECOVER_EPOCH_MAX || h->started > PEER_RECOVER_EPOCH_MAX ||
        h->promised > PEER_RECOVER_EPOCH_MAX)
        return "an epoch that no term can have";
    if (h->answer != 0 || h->step == RECOVER_LOOK)
        return NULL;
    if (h->epoch == 0 || h->attempt == 0)
        return "a RECOVER for no attempt";
    if (h->step == RECOVER_COPY && (h->index == 0 || h->source == 0))
        return "a COPY of nothing";
    return h->step == RECOVER_FINISH && (h->index == 0 || h->index > UINT64_MAX / 2)
               ? "a FINISH where no entry can be"
               : NULL;
}

const char *peer_recover_get(struct peer_recover_view *ret, const void *body, size_t bytes)
{
    const struct peer_recover *h = body;
    const uint8_t *entries = (const uint8_t *)body + sizeof *h;
    bool finish;
    size_t audit, change;
    const char *wrong;

    assert(((uintptr_t)body & 7) == 0);
    if (bytes < sizeof *h)
        return "a RECOVER of this length cannot be";
    audit = peer_recover_padded(h->audit_bytes);
    change = peer_recover_padded(h->change_bytes);
    if (h->audit_bytes > PEER_RECOVER_AUDIT_MAX || h->change_bytes > PEER_CONFIGURATION_BYTES_MAX ||
        bytes != sizeof *h + audit + change)
        return "a RECOVER of this length cannot be";
    wrong = check_fields(h);
    if (wrong != NULL)
        return wrong;
    finish = h->answer == 0 && h->step == RECOVER_FINISH;
    if (finish ? audit == 0 || change == 0 : audit + change != 0)
        return "entries where there can be none, or none where they must be";
    if (!are_zeros(entries, h->audit_bytes, audit) ||
        !are_zeros(entries + audit, h->change_bytes, change))
        return "something behind an entry";
    wrong = finish ? peer_configuration_check(entries + audit, h->change_bytes) : NULL;
    if (wrong != NULL)
        return wrong;
    *ret = (struct peer_recover_view){ *h, entries, entries + audit };
    return NULL;
}
