/*
 * found.c - a new cluster: nodes that wait are asked who they are, and all given the same beginning
 * (struct cluster_bootstrap), from which each makes entry 1 of its log. The cluster thread's.
 *
 * The nodes in the region of the one that is asked become the voters, those of the other region
 * standbys: the active region is where the command is given.
 *
 * It may be begun again, at any of the nodes, wherever it was cut short: who has a beginning
 * already says it, and the others are given that one. Nothing is lost by a half that was made:
 * without a majority of its nodes a cluster takes nothing.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/report.h"
#include "cluster/handshake.h"
#include "cluster/internal.h"
#include "cluster/node_call.h"
#include "cluster/peer.h"

#define FOUND_NS_MAX (10 * NS_PER_S) /* for each of the two rounds */

static const uint8_t no_id[16];

/* --- a node that waits --------------------------------------------------------------------------
 */

static bool waits(const struct cluster *c) { return c->log == NULL && node_waits(c); }

static bool begins_with(const struct cluster *c, const sluice_v1_Bootstrap *b);

static void offer_answered(void *arg, const struct peer_answer *a)
{
    struct cluster *c = arg;
    sluice_v1_NodeReply reply;
    char sentence[LOG_ERROR_BYTES];

    assert(c->offer_asked);
    c->offer_asked = false;
    if (!waits(c) || c->bootstrap_given)
        return;
    if (node_reply_decode(&reply, a) == 0 && reply.has_status && reply.status.has_bootstrap &&
        begins_with(c, &reply.status.bootstrap) &&
        found_take(c, &reply.status.bootstrap, sentence) == 0)
        return;
    memcpy(c->join_id, c->offer_id, sizeof c->join_id);
    c->join_offered = true;
}

/* Who offers a place is asked what the cluster began with: one of those, which was not told in time
 * or died before it had begun, begins as they did. Otherwise none of them might have a majority. */
void node_offered(struct cluster *c, const struct hello *h)
{
    const sluice_v1_NodeRequest request = { .which_body = sluice_v1_NodeRequest_status_tag,
                                            .body.status.beginning = true };
    uint8_t bytes[sluice_v1_NodeRequest_size];
    int e;

    if (!waits(c) || memcmp(h->cluster_id, no_id, sizeof no_id) == 0 || c->bootstrap_given ||
        c->offer_asked || c->join_offered)
        return;
    report_info("join", "node %u is offered a place by node %u", c->config.node, h->node);
    memcpy(c->offer_id, h->cluster_id, sizeof c->offer_id);
    c->offer_epoch = h->epoch;
    c->offer_asked = true;
    e = peers_call(c->peers, h->node, h->address, bytes, node_request_encode(&request, bytes),
                   FOUND_NS_MAX, offer_answered, c);
    if (e < 0)
        offer_answered(c, &(struct peer_answer){ .status = e, .body = "" });
}

static int refuse(char sentence[LOG_ERROR_BYTES], int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int refuse(char sentence[LOG_ERROR_BYTES], int error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(sentence, LOG_ERROR_BYTES, format, args);
    va_end(args);
    return error;
}

static int from_wire(struct cluster_bootstrap *ret, const sluice_v1_Bootstrap *b)
{
    *ret = (struct cluster_bootstrap){ .time_ns = b->time_ns, .members = b->members_count };
    memcpy(ret->cluster_id, b->cluster_id, sizeof ret->cluster_id);
    for (unsigned i = 0; i < b->members_count; i++) {
        struct member *m = &ret->member[i];

        if (b->members[i].node == 0 || b->members[i].node > UINT16_MAX ||
            member_parse(b->members[i].address, m) != NULL || m->port == 0)
            return -EBADMSG;
        m->node = (uint16_t)b->members[i].node;
        m->role = b->members[i].voter ? MEMBER_VOTER : MEMBER_STANDBY;
    }
    return 0;
}

/* Is this node one of them, with this directory? */
static bool begins_with(const struct cluster *c, const sluice_v1_Bootstrap *b)
{
    struct cluster_bootstrap begin;
    const struct member *self;

    if (memcmp(b->cluster_id, c->offer_id, sizeof c->offer_id) != 0 || from_wire(&begin, b) < 0)
        return false;
    self = members_find(begin.member, begin.members, c->config.node);
    return self != NULL &&
           memcmp(self->directory_id, c->state.directory_id, sizeof self->directory_id) == 0;
}

void found_tell(struct cluster *c, sluice_v1_NodeStatus *ret)
{
    sluice_v1_Bootstrap *b = &ret->bootstrap;
    struct member member[CLUSTER_MEMBERS_MAX];
    struct peer_entry first;
    int n;

    ret->has_bootstrap = c->log != NULL;
    /* The first entry is the same on every node of a cluster, known as committed or not. */
    if (c->log == NULL || log_persisted_index(c->log) < 1 || node_entry(c, 1, &first) < 0 ||
        first.record->type != LOG_CHANGE)
        return;
    n = members_list(first.payload, first.record->payload_bytes, member);
    memcpy(b->cluster_id, c->state.cluster_id, sizeof b->cluster_id);
    b->time_ns = first.record->time_ns;
    node_tell_members(member, n, b->members, &b->members_count);
}

int found_take(struct cluster *c, const sluice_v1_Bootstrap *b, char sentence[LOG_ERROR_BYTES])
{
    struct cluster_bootstrap begin;
    const struct member *self;

    if (memcmp(b->cluster_id, c->state.cluster_id, sizeof c->state.cluster_id) == 0 && !waits(c))
        return 0;
    if (!waits(c) || c->join_offered)
        return refuse(sentence, -EEXIST, "node %u is of another cluster already", c->config.node);
    if (from_wire(&begin, b) < 0)
        return refuse(sentence, -EBADMSG, "the members cannot be read");
    self = members_find(begin.member, begin.members, c->config.node);
    if (self == NULL || self->region != c->config.region ||
        memcmp(self->directory_id, c->state.directory_id, sizeof self->directory_id) != 0)
        return refuse(sentence, -EINVAL, "node %u is not among the members as it is",
                      c->config.node);
    if (c->bootstrap_given)
        return memcmp(&begin, &c->bootstrap, sizeof begin) == 0
                   ? 0
                   : refuse(sentence, -EEXIST, "node %u is of another cluster already",
                            c->config.node);
    c->bootstrap = begin;
    c->bootstrap_given = true;
    return 0;
}

/* --- who makes it -------------------------------------------------------------------------------
 */

struct found {
    struct cluster *c;
    sluice_v1_Member member[CLUSTER_MEMBERS_MAX]; /* as the operator has named them */
    unsigned members, open;                       /* answers that are outstanding */
    bool telling;                                 /* the second round */
    sluice_v1_NodeStatus status[CLUSTER_MEMBERS_MAX];
    sluice_v1_Bootstrap begin;
    int result;
    char sentence[LOG_ERROR_BYTES];
    bool done, left; /* under c->lock; whoever comes last frees it */
};

struct answer {
    struct found *f;
    unsigned i;
};

static void found_end(struct found *f, int result)
{
    struct cluster *c = f->c;
    bool left;

    assert(c->found == f && f->open == 0 && result <= 0);
    c->found = NULL;
    pthread_mutex_lock(&c->lock);
    f->result = result;
    f->done = true;
    left = f->left;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    if (left)
        free(f);
}

/* "HOST:PORT" of a member's address. */
static void place_of(const char *address, char ret[sizeof((sluice_v1_Member *)0)->address])
{
    size_t n = strcspn(address, "/");

    memcpy(ret, address, n);
    ret[n] = '\0';
}

/* Are these the nodes that the operator has named? */
static bool found_matches(const struct found *f, const sluice_v1_Bootstrap *b)
{
    char place[sizeof f->member[0].address];

    if (b->members_count != f->members)
        return false;
    for (unsigned i = 0; i < f->members; i++) {
        bool there = false;

        for (unsigned j = 0; j < b->members_count; j++) {
            place_of(b->members[j].address, place);
            there = there || (b->members[j].node == f->member[i].node &&
                              strcmp(place, f->member[i].address) == 0);
        }
        if (!there)
            return false;
    }
    return true;
}

/* One that lost its beginning, and was offered its place by one of the others meanwhile? */
static bool is_offered(const struct found *f, const sluice_v1_NodeStatus *s)
{
    if (s->last_index != 0 || s->bootstrap.members_count != 0)
        return false;
    for (unsigned i = 0; i < f->members; i++) {
        const sluice_v1_Bootstrap *b = &f->status[i].bootstrap;

        if (b->members_count != 0 && memcmp(b->cluster_id, s->cluster_id, sizeof no_id) == 0)
            return true;
    }
    return false;
}

/* The beginning that one of them has already, or a new one. */
static int found_decide(struct found *f)
{
    struct cluster *c = f->c;
    const sluice_v1_Bootstrap *old = NULL;
    unsigned at = 0, voters = 0;

    for (unsigned i = 0; i < f->members; i++) {
        const sluice_v1_NodeStatus *s = &f->status[i];

        if (memcmp(s->cluster_id, no_id, sizeof no_id) == 0 || is_offered(f, s))
            continue;
        if (!s->has_bootstrap || !found_matches(f, &s->bootstrap))
            return refuse(f->sentence, -EEXIST,
                          "node %u is of a cluster with other members already", s->node);
        if (old != NULL && memcmp(old->cluster_id, s->bootstrap.cluster_id, sizeof no_id) != 0)
            return refuse(f->sentence, -EEXIST,
                          "the nodes are of different clusters: two were made at once; empty the "
                          "data directory of node %u",
                          s->node);
        old = &s->bootstrap;
    }
    if (old != NULL) {
        f->begin = *old;
        return 0;
    }
    node_random(c, f->begin.cluster_id, sizeof f->begin.cluster_id);
    f->begin.time_ns = node_unix_ns(c);
    f->begin.members_count = (pb_size_t)f->members;
    /* The active region's first: the first member's region says what epoch begins. */
    for (unsigned i = 0; i < 2 * f->members; i++) {
        const sluice_v1_Member *m = &f->member[i % f->members];
        const sluice_v1_NodeStatus *s = &f->status[i % f->members];
        sluice_v1_Member *to = &f->begin.members[at];
        bool active = s->region == c->config.region;

        if (active != (i < f->members))
            continue;
        if (!node_address(m->address, s, to->address))
            return refuse(f->sentence, -EINVAL, "node %u: %s is not HOST:PORT", s->node,
                          m->address);
        to->node = m->node;
        to->voter = active;
        voters += active;
        at++;
    }
    assert(at == f->members);
    if (voters < CLUSTER_VOTERS_MIN)
        return refuse(f->sentence, -EINVAL,
                      "in region %u, which is the active one since this node is in it, there are "
                      "%u of these nodes; it takes %u",
                      c->config.region, voters, CLUSTER_VOTERS_MIN);
    return 0;
}

static void found_round(struct found *f);

static void found_next(struct found *f)
{
    if (f->open > 0)
        return;
    if (f->result == 0 && !f->telling) {
        f->result = found_decide(f);
        f->telling = true;
        if (f->result == 0) {
            found_round(f);
            return;
        }
    } else if (f->result == 0) {
        f->result = found_take(f->c, &f->begin, f->sentence);
    }
    found_end(f, f->result);
}

static void found_answered(void *arg, const struct peer_answer *answered)
{
    struct answer *a = arg;
    struct found *f = a->f;
    const sluice_v1_Member *m = &f->member[a->i];
    sluice_v1_NodeReply reply;
    int status = node_reply_decode(&reply, answered);

    if (status < 0 && f->result == 0)
        f->result = refuse(f->sentence, status, "node %u at %s: %s", m->node, m->address,
                           reply.sentence[0] != '\0' ? reply.sentence : strerror(-status));
    if (status == 0 && !f->telling) {
        f->status[a->i] = reply.status;
        if (f->result == 0 && reply.status.node != m->node)
            f->result = refuse(f->sentence, -EINVAL, "at %s there is node %u, not node %u",
                               m->address, reply.status.node, m->node);
    }
    free(a);
    assert(f->open > 0);
    f->open--;
    found_next(f);
}

/* Asks each other node who it is, then tells each what it begins with. */
static void found_round(struct found *f)
{
    uint8_t bytes[sluice_v1_NodeRequest_size];
    sluice_v1_NodeRequest request = sluice_v1_NodeRequest_init_zero;
    size_t n;

    request.which_body =
        f->telling ? sluice_v1_NodeRequest_bootstrap_tag : sluice_v1_NodeRequest_status_tag;
    if (f->telling)
        request.body.bootstrap = f->begin;
    else
        request.body.status.beginning = true;
    n = node_request_encode(&request, bytes);
    f->open = 1; /* this function */
    for (unsigned i = 0; i < f->members; i++) {
        struct answer *a;
        int e;

        if (f->member[i].node == f->c->config.node) {
            node_tell_status(f->c, &f->status[i]);
            found_tell(f->c, &f->status[i]);
            continue;
        }
        a = malloc(sizeof *a);
        if (a == NULL) {
            f->result = refuse(f->sentence, -ENOMEM, "out of memory");
            break;
        }
        *a = (struct answer){ f, i };
        f->open++;
        e = peers_call(f->c->peers, (uint16_t)f->member[i].node, f->member[i].address, bytes, n,
                       FOUND_NS_MAX, found_answered, a);
        if (e < 0)
            found_answered(a, &(struct peer_answer){ .status = e, .body = "" });
    }
    f->open--;
    found_next(f);
}

static void found_run(void *arg)
{
    struct found *f = arg;

    if (f->c->found != NULL || f->c->peers == NULL) {
        refuse(f->sentence, -EBUSY, "%s",
               f->c->peers == NULL ? "this node has no peer.listen: it is a cluster of one"
                                   : "somebody else does that now");
        f->result = -EBUSY;
        f->done = true;
        return;
    }
    f->c->found = f;
    found_round(f);
}

int cluster_found(struct cluster *c, const sluice_v1_Member *member, unsigned members,
                  char sentence[LOG_ERROR_BYTES])
{
    struct found *f = calloc(1, sizeof *f);
    bool self = false, left;
    int e;

    if (f == NULL)
        return refuse(sentence, -ENOMEM, "out of memory");
    assert(members <= CLUSTER_MEMBERS_MAX);
    f->c = c;
    f->members = members;
    memcpy(f->member, member, members * sizeof *member);
    for (unsigned i = 0; i < members; i++)
        self = self || member[i].node == c->config.node;
    if (!self || members < CLUSTER_VOTERS_MIN) {
        free(f);
        return refuse(sentence, -EINVAL,
                      !self
                          ? "the node that is asked, node %u, is not among them"
                          : "fewer than three nodes survive the loss of none; node %u stays alone "
                            "without peer.listen",
                      c->config.node);
    }
    e = cluster_call(c, found_run, f);
    pthread_mutex_lock(&c->lock);
    while (e == 0 && !f->done && !c->ended && !c->interrupted)
        pthread_cond_wait(&c->changed, &c->lock);
    f->left = e == 0 && !f->done && !c->ended;
    if (e == 0)
        e = f->done ? f->result : -ESHUTDOWN;
    left = f->left;
    pthread_mutex_unlock(&c->lock);
    if (left)
        return refuse(sentence, e, "this node is being stopped");
    snprintf(sentence, LOG_ERROR_BYTES, "%s", f->sentence);
    free(f);
    return e;
}
