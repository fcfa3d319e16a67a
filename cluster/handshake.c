/*
 * handshake.c - HELLO, WELCOME and REFUSE; see handshake.h. Any thread, no memory.
 */
#include "cluster/handshake.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/hex.h"

#define REGION_MAX 2u
#define ID_TEXT    (2 * HANDSHAKE_ID_BYTES + 1)

struct wire_hello {
    uint32_t magic;
    uint16_t version_min, version_max;
    uint8_t cluster_id[HANDSHAKE_ID_BYTES];
    uint8_t directory_id[HANDSHAKE_ID_BYTES];
    uint64_t process;
    uint64_t connection;
    uint16_t node, dialled;
    uint16_t region;
    uint16_t zone_bytes;
    char zone[HANDSHAKE_ZONE_MAX];
    uint16_t address_bytes;
    uint16_t zero[3];
    char address[HANDSHAKE_ADDRESS_MAX];
};
_Static_assert(sizeof(struct wire_hello) == HANDSHAKE_HELLO_BYTES, "sent");

struct wire_welcome {
    uint32_t magic;
    uint16_t version;
    uint16_t node;
    uint8_t directory_id[HANDSHAKE_ID_BYTES];
};
_Static_assert(sizeof(struct wire_welcome) == HANDSHAKE_WELCOME_BYTES, "sent");

struct wire_refuse {
    uint32_t magic;
    uint16_t code;
    uint16_t sentence_bytes;
    char sentence[HANDSHAKE_SENTENCE_MAX];
};
_Static_assert(sizeof(struct wire_refuse) == HANDSHAKE_REFUSE_BYTES, "sent");
_Static_assert(HANDSHAKE_REFUSE_BYTES <= HANDSHAKE_HELLO_BYTES &&
                   HANDSHAKE_HELLO_BYTES <= PEER_HANDSHAKE_MAX,
               "fits");

/* --- verdicts -------------------------------------------------------------------------------- */

static int refuse(struct refusal *ret, enum refusal_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int refuse(struct refusal *ret, enum refusal_code code, const char *format, ...)
{
    va_list args;
    int n;

    memset(ret, 0, sizeof *ret);
    ret->code = code;
    va_start(args, format);
    n = vsnprintf(ret->sentence, sizeof ret->sentence, format, args);
    va_end(args);
    assert(n > 0 && (size_t)n < sizeof ret->sentence);
    return -EACCES;
}

static const char *id_text(const uint8_t id[HANDSHAKE_ID_BYTES], char ret[ID_TEXT])
{
    return hex_put(ret, id, HANDSHAKE_ID_BYTES);
}

static bool id_equal(const uint8_t *a, const uint8_t *b)
{
    return memcmp(a, b, HANDSHAKE_ID_BYTES) == 0;
}

static bool id_is_zero(const uint8_t *id)
{
    static const uint8_t zero[HANDSHAKE_ID_BYTES];

    return id_equal(id, zero);
}

static bool zone_is_good(const struct hello *h)
{
    for (size_t i = 0; i < h->zone_bytes; i++) {
        char c = h->zone[i];

        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '_' || c == '-'))
            return false;
    }
    for (size_t i = h->zone_bytes; i < HANDSHAKE_ZONE_MAX; i++)
        if (h->zone[i] != 0)
            return false;
    return true;
}

uint16_t handshake_version(const struct handshake_self *self, const struct hello *hello)
{
    uint16_t low = self->version_min, high = self->version_max;

    assert(low > 0 && low <= high);
    if (hello->version_min > low)
        low = hello->version_min;
    if (hello->version_max < high)
        high = hello->version_max;
    return low <= high ? high : 0;
}

/* Is it a HELLO that this build can read, of fields that can be? */
static int check_form(const struct handshake_self *self, const struct hello *h, struct refusal *ret)
{
    if (h->magic != HANDSHAKE_MAGIC)
        return refuse(ret, REFUSAL_MAGIC,
                      "this is no HELLO of a Sluice node: it begins with %08" PRIx32
                      ", not %08" PRIx32,
                      h->magic, HANDSHAKE_MAGIC);
    if (h->version_min == 0 || h->version_min > h->version_max)
        return refuse(ret, REFUSAL_MALFORMED, "versions from %u to %u cannot be", h->version_min,
                      h->version_max);
    if (handshake_version(self, h) == 0)
        return refuse(ret, REFUSAL_VERSION,
                      "node %u speaks the protocol's versions %u to %u, node %u speaks %u to %u",
                      h->node, h->version_min, h->version_max, self->node, self->version_min,
                      self->version_max);
    if (h->node == 0 || h->dialled == 0 || h->connection == 0)
        return refuse(ret, REFUSAL_MALFORMED,
                      "node %u, dialled node %u, connection %" PRIu64 ": none of them can be 0",
                      h->node, h->dialled, h->connection);
    if (h->region == 0 || h->region > REGION_MAX)
        return refuse(ret, REFUSAL_MALFORMED, "region %u of node %u is neither 1 nor 2", h->region,
                      h->node);
    if (id_is_zero(h->directory_id))
        return refuse(ret, REFUSAL_MALFORMED, "the directory id of node %u is all zeros", h->node);
    if (h->zone_bytes > HANDSHAKE_ZONE_MAX)
        return refuse(ret, REFUSAL_MALFORMED, "the zone of node %u has %u bytes, more than %u",
                      h->node, h->zone_bytes, HANDSHAKE_ZONE_MAX);
    if (!zone_is_good(h))
        return refuse(ret, REFUSAL_MALFORMED,
                      "the zone of node %u has other characters than A-Z a-z 0-9 . _ -", h->node);
    return 0;
}

static int check_identity(const struct handshake_self *self, const struct hello *h,
                          struct refusal *ret)
{
    char theirs[ID_TEXT], ours[ID_TEXT];

    if (!id_equal(h->cluster_id, self->cluster_id) && !id_is_zero(h->cluster_id) &&
        !id_is_zero(self->cluster_id))
        return refuse(ret, REFUSAL_CLUSTER, "node %u is of cluster %s, node %u of cluster %s",
                      h->node, id_text(h->cluster_id, theirs), self->node,
                      id_text(self->cluster_id, ours));
    if (h->dialled != self->node)
        return refuse(ret, REFUSAL_NOT_ME, "node %u dialled node %u, but this is node %u", h->node,
                      h->dialled, self->node);
    if (h->node == self->node && id_equal(h->directory_id, self->directory_id))
        return refuse(ret, REFUSAL_MYSELF, "node %u dialled itself, node %u", h->node, self->node);
    if (h->node == self->node)
        return refuse(ret, REFUSAL_MYSELF,
                      "two nodes have the id %u: one with directory %s, this one with %s", h->node,
                      id_text(h->directory_id, theirs), id_text(self->directory_id, ours));
    if (id_equal(h->directory_id, self->directory_id))
        return refuse(ret, REFUSAL_MYSELF,
                      "node %u has the directory %s, which is that of node %u: was it copied?",
                      h->node, id_text(h->directory_id, theirs), self->node);
    return 0;
}

static int check_directory(const struct handshake_known *peer, const uint8_t *directory_id,
                           struct refusal *ret)
{
    char theirs[ID_TEXT], known[ID_TEXT];

    if (!peer->directory_known)
        return HANDSHAKE_REMEMBER;
    if (id_equal(directory_id, peer->directory_id))
        return 0;
    return refuse(ret, REFUSAL_DIRECTORY,
                  "node %u has the directory %s, but is known with %s: a new directory needs a new "
                  "node id",
                  peer->node, id_text(directory_id, theirs), id_text(peer->directory_id, known));
}

int handshake_check(const struct handshake_self *self, const struct handshake_known *peer,
                    const struct hello *hello, struct refusal *ret)
{
    assert(peer == NULL || (peer->node == hello->node && peer->node > 0));
    if (check_form(self, hello, ret) < 0 || check_identity(self, hello, ret) < 0)
        return -EACCES;
    if (id_is_zero(self->cluster_id) || id_is_zero(hello->cluster_id))
        return HANDSHAKE_CALLS_ONLY;
    if (peer == NULL)
        return refuse(ret, REFUSAL_UNKNOWN,
                      "node %u is not a node of this cluster that node %u knows", hello->node,
                      self->node);
    if (hello->region != peer->region)
        return refuse(ret, REFUSAL_REGION, "node %u says region %u, but is known in region %u",
                      hello->node, hello->region, peer->region);
    return check_directory(peer, hello->directory_id, ret);
}

int handshake_check_welcome(const struct handshake_self *self, const struct handshake_known *peer,
                            const struct welcome *welcome, struct refusal *ret)
{
    assert(peer->node != self->node);
    if (welcome->magic != HANDSHAKE_MAGIC)
        return refuse(ret, REFUSAL_MAGIC,
                      "this is no WELCOME of a Sluice node: it begins with %08" PRIx32
                      ", not %08" PRIx32,
                      welcome->magic, HANDSHAKE_MAGIC);
    if (welcome->version < self->version_min || welcome->version > self->version_max)
        return refuse(ret, REFUSAL_VERSION,
                      "node %u chose the protocol's version %u, node %u speaks %u to %u",
                      peer->node, welcome->version, self->node, self->version_min,
                      self->version_max);
    if (welcome->node != peer->node)
        return refuse(ret, REFUSAL_NOT_ME, "node %u was dialled, but node %u answered", peer->node,
                      welcome->node);
    return check_directory(peer, welcome->directory_id, ret);
}

/* --- bytes ----------------------------------------------------------------------------------- */

static int put(void *buf, size_t cap, enum peer_type type, uint64_t epoch, const void *head,
               uint32_t head_bytes)
{
    assert(((uintptr_t)buf & 7) == 0 && head_bytes % 8 == 0);
    if (cap < PEER_HEADER_BYTES + head_bytes)
        return -ENOBUFS;
    memcpy((uint8_t *)buf + PEER_HEADER_BYTES, head, head_bytes);
    peer_frame_put(buf, type, epoch, head_bytes, 0);
    return (int)(PEER_HEADER_BYTES + head_bytes);
}

int handshake_put_hello(void *buf, size_t cap, const struct hello *hello)
{
    struct wire_hello w = {
        .magic = hello->magic,
        .version_min = hello->version_min,
        .version_max = hello->version_max,
        .process = hello->process,
        .connection = hello->connection,
        .node = hello->node,
        .dialled = hello->dialled,
        .region = hello->region,
        .zone_bytes = hello->zone_bytes,
    };

    assert(hello->zone_bytes <= HANDSHAKE_ZONE_MAX && zone_is_good(hello));
    memcpy(w.cluster_id, hello->cluster_id, HANDSHAKE_ID_BYTES);
    memcpy(w.directory_id, hello->directory_id, HANDSHAKE_ID_BYTES);
    memcpy(w.zone, hello->zone, hello->zone_bytes);
    w.address_bytes = (uint16_t)strlen(hello->address);
    assert(w.address_bytes <= HANDSHAKE_ADDRESS_MAX);
    memcpy(w.address, hello->address, w.address_bytes);
    return put(buf, cap, PEER_HELLO, hello->epoch, &w, sizeof w);
}

int handshake_put_welcome(void *buf, size_t cap, uint64_t epoch, const struct welcome *welcome)
{
    struct wire_welcome w = {
        .magic = welcome->magic,
        .version = welcome->version,
        .node = welcome->node,
    };

    memcpy(w.directory_id, welcome->directory_id, HANDSHAKE_ID_BYTES);
    return put(buf, cap, PEER_WELCOME, epoch, &w, sizeof w);
}

int handshake_put_refusal(void *buf, size_t cap, uint64_t epoch, const struct refusal *refusal)
{
    size_t n = strlen(refusal->sentence);
    struct wire_refuse w = {
        .magic = HANDSHAKE_MAGIC,
        .code = (uint16_t)refusal->code,
        .sentence_bytes = (uint16_t)n,
    };

    assert(n <= HANDSHAKE_SENTENCE_MAX && refusal->code <= UINT16_MAX);
    memcpy(w.sentence, refusal->sentence, n);
    return put(buf, cap, PEER_REFUSE, epoch, &w, sizeof w);
}

const char *handshake_get_hello(struct hello *ret, const struct peer_frame *f)
{
    const struct wire_hello *w = f->head;

    assert(f->type == PEER_HELLO);
    if (f->head_bytes < sizeof *w)
        return "HELLO: too short";
    *ret = (struct hello){
        .magic = w->magic,
        .version_min = w->version_min,
        .version_max = w->version_max,
        .process = w->process,
        .connection = w->connection,
        .epoch = f->epoch,
        .node = w->node,
        .dialled = w->dialled,
        .region = w->region,
        .zone_bytes = w->zone_bytes,
    };
    memcpy(ret->cluster_id, w->cluster_id, HANDSHAKE_ID_BYTES);
    memcpy(ret->directory_id, w->directory_id, HANDSHAKE_ID_BYTES);
    memcpy(ret->zone, w->zone, HANDSHAKE_ZONE_MAX);
    if (w->address_bytes > HANDSHAKE_ADDRESS_MAX)
        return "HELLO: the address is too long";
    for (size_t i = 0; i < w->address_bytes; i++) {
        if (w->address[i] <= ' ' || w->address[i] > '~')
            return "HELLO: the address cannot be printed";
    }
    memcpy(ret->address, w->address, w->address_bytes);
    return NULL;
}

const char *handshake_get_welcome(struct welcome *ret, const struct peer_frame *f)
{
    const struct wire_welcome *w = f->head;

    assert(f->type == PEER_WELCOME);
    if (f->head_bytes < sizeof *w)
        return "WELCOME: too short";
    *ret = (struct welcome){ .magic = w->magic, .version = w->version, .node = w->node };
    memcpy(ret->directory_id, w->directory_id, HANDSHAKE_ID_BYTES);
    return NULL;
}

/* It will be printed, so it is looked at as any text from outside. */
const char *handshake_get_refusal(struct refusal *ret, const struct peer_frame *f)
{
    const struct wire_refuse *w = f->head;

    assert(f->type == PEER_REFUSE);
    if (f->head_bytes < sizeof *w)
        return "REFUSE: too short";
    if (w->magic != HANDSHAKE_MAGIC)
        return "REFUSE: not of a Sluice node";
    if (w->code == 0 || w->sentence_bytes == 0 || w->sentence_bytes > HANDSHAKE_SENTENCE_MAX)
        return "REFUSE: no code, or no sentence";
    for (size_t i = 0; i < HANDSHAKE_SENTENCE_MAX; i++) {
        char c = w->sentence[i];

        if (i < w->sentence_bytes ? c < ' ' || c > '~' : c != 0)
            return "REFUSE: the sentence cannot be printed";
    }
    memset(ret, 0, sizeof *ret);
    ret->code = w->code;
    memcpy(ret->sentence, w->sentence, w->sentence_bytes);
    return NULL;
}
