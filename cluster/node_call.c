/*
 * node_call.c - what an operator asks of a node, or one node of another: status, settings, members,
 * a barrier. Any node can be asked: what only the leader can do is passed on to it.
 *
 * A request from elsewhere (a CALL) is answered by its REPLY, one of this process by a struct ask,
 * for which a thread waits.
 */
#include "cluster/node_call.h"

#include <assert.h>
#include <errno.h>
#include <pb_decode.h>
#include <pb_encode.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "cluster/peer.h"

#define RETRY_NS       (50 * NS_PER_MS) /* until there is a leader again, say */
#define SETTING_NS_MAX (10 * NS_PER_S)

/* A request of this process. Whoever comes last, the waiting thread or the answer, frees it. */
struct ask {
    struct cluster *c;
    sluice_v1_NodeRequest request;
    uint16_t node; /* 0: the leader */
    uint64_t timeout_ns;
    sluice_v1_NodeReply reply;
    int status;
    bool answered, left; /* under c->lock */
    struct ask *next;    /* of those that are under way here; the cluster thread's */
};

/* --- answers ------------------------------------------------------------------------------------
 */

int node_reply_decode(sluice_v1_NodeReply *ret, const struct peer_answer *a)
{
    pb_istream_t in = pb_istream_from_buffer(a->body, a->bytes);

    *ret = (sluice_v1_NodeReply)sluice_v1_NodeReply_init_zero;
    if (!a->there) { /* what the connection complains of */
        snprintf(ret->sentence, sizeof ret->sentence, "%.*s", (int)a->bytes, (const char *)a->body);
        return a->status;
    }
    if (pb_decode(&in, sluice_v1_NodeReply_fields, ret))
        return a->status;
    *ret = (sluice_v1_NodeReply)sluice_v1_NodeReply_init_zero;
    snprintf(ret->sentence, sizeof ret->sentence, "its answer cannot be read");
    return -EBADMSG;
}

static void ask_answered(struct ask *a, int status)
{
    struct cluster *c = a->c;
    struct ask **at;
    bool left;

    assert(!a->answered && status <= 0);
    for (at = &c->asks; *at != NULL && *at != a; at = &(*at)->next) {
    }
    assert(*at == a);
    *at = a->next;
    pthread_mutex_lock(&c->lock);
    a->status = status;
    a->answered = true;
    left = a->left;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    if (left)
        free(a);
}

void node_answer(const struct node_caller *to, int status, const sluice_v1_NodeReply *reply)
{
    uint8_t bytes[sluice_v1_NodeReply_size];
    pb_ostream_t out = pb_ostream_from_buffer(bytes, sizeof bytes);
    bool ok;

    if (to->ask != NULL) {
        to->ask->reply = *reply;
        ask_answered(to->ask, status);
        return;
    }
    ok = pb_encode(&out, sluice_v1_NodeReply_fields, reply);
    assert(ok);
    peers_reply(to->c->peers, &to->remote, status, bytes, out.bytes_written);
}

void node_refuse(const struct node_caller *to, int status, const char *format, ...)
{
    sluice_v1_NodeReply reply = sluice_v1_NodeReply_init_zero;
    va_list args;

    va_start(args, format);
    vsnprintf(reply.sentence, sizeof reply.sentence, format, args);
    va_end(args);
    node_answer(to, status, &reply);
}

/* --- status -------------------------------------------------------------------------------------
 */

static const char *role_of(const struct cluster *c)
{
    if (c->repair.at_start)
        return "repairing";
    if (c->log == NULL)
        return "waiting";
    if (c->recovery.fenced)
        return "fenced";
    return consensus_leads(c) ? "leader" : "follower";
}

void node_tell_members(const struct member *m, int n, sluice_v1_Member ret[CLUSTER_MEMBERS_MAX],
                       pb_size_t *ret_n)
{
    *ret_n = 0;
    for (int i = 0; i < n; i++) {
        sluice_v1_Member *to = &ret[*ret_n];

        to->node = m[i].node;
        to->voter = m[i].role == MEMBER_VOTER;
        if (member_format(&m[i], to->address) == NULL)
            (*ret_n)++;
    }
}

void node_tell_status(struct cluster *c, sluice_v1_NodeStatus *ret)
{
    const struct cluster_peering *peering = c->config.peering;
    struct member member[CLUSTER_MEMBERS_MAX];
    int64_t free_bytes = c->disk->ops->free_bytes(c->disk);

    *ret = (sluice_v1_NodeStatus)sluice_v1_NodeStatus_init_zero;
    ret->node = c->config.node;
    ret->region = c->config.region;
    ret->term = c->state.term;
    ret->epoch = c->state.term >> CLUSTER_EPOCH_SHIFT;
    ret->disk_free_bytes = free_bytes > 0 ? (uint64_t)free_bytes : 0;
    memcpy(ret->directory_id, c->state.directory_id, sizeof ret->directory_id);
    snprintf(ret->role, sizeof ret->role, "%s", role_of(c));
    snprintf(ret->version, sizeof ret->version, "%s", c->config.version ? c->config.version : "");
    if (peering != NULL) {
        snprintf(ret->zone, sizeof ret->zone, "%s", peering->zone);
        snprintf(ret->address, sizeof ret->address, "%s",
                 peering->advertise[0] != '\0' ? peering->advertise : peering->listen);
        if (peering->tls != NULL)
            ret->certificate_until_s = tls_context_identity(peering->tls)->until_s;
    }
    snprintf(ret->note, sizeof ret->note, "%s",
             c->recovery.note[0] != '\0' ? c->recovery.note : c->repair.note);
    if (c->log != NULL || c->repair.at_start)
        memcpy(ret->cluster_id, c->state.cluster_id, sizeof ret->cluster_id);
    if (c->log == NULL)
        return;
    ret->first_index = log_first_index(c->log);
    ret->last_index = log_last_index(c->log);
    ret->persisted_index = log_persisted_index(c->log);
    ret->commit_index = c->commit_index;
    ret->applied_index = c->applied_index;
    ret->log_bytes = log_disk_bytes(c->log);
    ret->disk_full = c->disk_full;
    ret->last_time_ns = c->last_time_ns;
    ret->leader = consensus_leader(c);
    ret->region_index = c->region.index;
    log_digest(c->log, ret->digest);
    node_tell_members(member, recovery_members(c, member), ret->members, &ret->members_count);
    change_tell_status(c, ret->change, sizeof ret->change);
}

static void do_status(const struct node_caller *to, const sluice_v1_NodeStatusRequest *request)
{
    sluice_v1_NodeReply reply = sluice_v1_NodeReply_init_zero;

    reply.has_status = true;
    node_tell_status(to->c, &reply.status);
    if (request->beginning)
        found_tell(to->c, &reply.status);
    node_answer(to, 0, &reply);
}

/* --- what the leader does -----------------------------------------------------------------------
 */

/* A certificate of a node is no leave to change a cluster: also one of another cluster has it, and
 * one that was removed. Those may ask who this node is, or give it a beginning while it waits. */
static bool leads(const struct node_caller *to)
{
    struct cluster *c = to->c;

    if (to->ask == NULL && !to->remote.member && c->log != NULL && consensus_leads(c)) {
        node_refuse(to, -EACCES, "node %u is not a member of this cluster", to->remote.node);
        return false;
    }
    if (c->log != NULL && consensus_leads(c) && c->lead == LEAD_READY)
        return true;
    if (c->repair.at_start)
        node_refuse(to, -EAGAIN, "node %u repairs its log", c->config.node);
    else if (c->log == NULL)
        node_refuse(to, -ENXIO, "node %u is of no cluster yet", c->config.node);
    else if (c->recovery.fenced)
        node_refuse(to, -EAGAIN, "node %u is %s; ask a node of the active region", c->config.node,
                    c->recovery.note);
    else if (consensus_leads(c))
        node_refuse(to, -EAGAIN,
                    "node %u leads only just now, and has to commit what was before it",
                    c->config.node);
    else if (consensus_leader(c) == 0)
        node_refuse(to, -EAGAIN, "node %u knows of no leader", c->config.node);
    else
        node_refuse(to, -EAGAIN, "node %u does not lead", c->config.node);
    return false;
}

static void on_committed(struct proposal *p, int64_t index_or_error)
{
    struct node_caller *to = p->arg;
    sluice_v1_NodeReply reply = sluice_v1_NodeReply_init_zero;

    if (index_or_error > 0)
        reply.index = (uint64_t)index_or_error;
    else
        snprintf(reply.sentence, sizeof reply.sentence,
                 "another node leads now; it may be committed all the same");
    node_answer(to, index_or_error > 0 ? 0 : (int)index_or_error, &reply);
    free(to);
}

/* Returns true when it is on its way; otherwise the answer is given. */
static bool do_propose(const struct node_caller *to, enum log_type type, const void *bytes,
                       size_t n)
{
    struct proposal *p;
    struct node_caller *kept;
    int e;

    if (!leads(to))
        return false;
    assert(to->c->log != NULL && n <= PEER_PAYLOAD_MAX);
    p = proposal_new(type, bytes, n);
    kept = malloc(sizeof *kept);
    if (p == NULL || kept == NULL) {
        proposal_free(p);
        free(kept);
        node_refuse(to, -ENOMEM, "out of memory");
        return false;
    }
    *kept = *to;
    p->committed = on_committed;
    p->arg = kept;
    e = propose_entry(to->c, p);
    if (e == 0)
        return true;
    p->committed = NULL;
    free(kept);
    if (e == -EAGAIN || e == -ENOSPC)
        proposal_free(p);
    else
        proposal_failed(to->c, p);
    node_refuse(to, e, "%s", e == -ENOSPC ? "disk full: nothing was changed" : strerror(-e));
    return false;
}

/* Each names the one before it, so they are made one after the other. */
static void do_setting(const struct node_caller *to, const sluice_v1_Setting *asked)
{
    uint8_t bytes[sluice_v1_Setting_size];
    pb_ostream_t out = pb_ostream_from_buffer(bytes, sizeof bytes);
    sluice_v1_Setting setting = *asked;
    bool ok;

    if (to->c->log != NULL && to->c->applied_index < to->c->setting_proposed) {
        node_refuse(to, -EAGAIN, "another setting is being changed");
        return;
    }
    setting.previous = to->c->setting_index;
    ok = pb_encode(&out, sluice_v1_Setting_fields, &setting);
    assert(ok);
    if (do_propose(to, LOG_SETTING, bytes, out.bytes_written))
        to->c->setting_proposed = log_last_index(to->c->log);
}

static void on_changed(void *arg, int result, const char *sentence)
{
    struct node_caller *to = arg;
    sluice_v1_NodeReply reply = sluice_v1_NodeReply_init_zero;

    snprintf(reply.sentence, sizeof reply.sentence, "%s", sentence);
    node_answer(to, result < 0 ? result : 0, &reply);
    free(to);
}

/* A change that waits for what the new node says of itself. */
struct newcomer {
    struct node_caller to;
    sluice_v1_MembershipRequest request;
};

static const enum change_kind change_of[] = {
    [sluice_v1_MembershipRequest_Kind_ADD] = CHANGE_ADD,
    [sluice_v1_MembershipRequest_Kind_REMOVE] = CHANGE_REMOVE,
    [sluice_v1_MembershipRequest_Kind_REPLACE] = CHANGE_REPLACE,
    [sluice_v1_MembershipRequest_Kind_TRANSFER] = CHANGE_TRANSFER,
    [sluice_v1_MembershipRequest_Kind_SWITCHOVER] = CHANGE_SWITCHOVER,
};

static void begin_change(const struct node_caller *to, const sluice_v1_MembershipRequest *m,
                         const struct member *newcomer)
{
    bool replaces = m->kind == sluice_v1_MembershipRequest_Kind_REPLACE;
    struct change_request r = {
        .kind = change_of[m->kind],
        .node = (uint16_t)(replaces ? m->old : m->node),
        .region = (uint8_t)m->region,
        .dead = m->dead,
    };
    struct node_caller *kept = malloc(sizeof *kept);

    if (kept == NULL) {
        node_refuse(to, -ENOMEM, "out of memory");
        return;
    }
    if (newcomer != NULL)
        r.member = *newcomer;
    snprintf(r.actor, sizeof r.actor, "%s", m->actor);
    *kept = *to;
    (void)change_begin(to->c, &r, on_changed, kept);
}

bool node_address(const char *place, const sluice_v1_NodeStatus *s,
                  char ret[sizeof((sluice_v1_Member *)0)->address])
{
    struct member m = { 0 };
    char text[MEMBER_ADDRESS_BYTES];
    int n = snprintf(text, sizeof text, "%s/%u/%032u", place, s->region, 0);

    if (n <= 0 || n >= (int)sizeof text || member_parse(text, &m) != NULL)
        return false;
    memcpy(m.directory_id, s->directory_id, sizeof m.directory_id);
    return member_format(&m, text) == NULL && snprintf(ret, MEMBER_ADDRESS_BYTES, "%s", text) > 0;
}

const char *node_newcomer(const struct cluster *c, uint32_t node, const char *place,
                          const sluice_v1_NodeStatus *s, struct member *ret)
{
    static const uint8_t no_id[sizeof s->cluster_id];
    char address[sizeof((sluice_v1_Member *)0)->address];

    if (s->node != node)
        return "another node is there";
    if (memcmp(s->cluster_id, no_id, sizeof no_id) != 0 &&
        memcmp(s->cluster_id, c->state.cluster_id, sizeof no_id) != 0)
        return "it is of another cluster";
    if (!node_address(place, s, address) || member_parse(address, ret) != NULL)
        return "the address is not HOST:PORT";
    ret->node = (uint16_t)node;
    return NULL;
}

static const char *newcomer_check(const struct cluster *c, const sluice_v1_MembershipRequest *m,
                                  const sluice_v1_NodeStatus *s, struct member *ret)
{
    const char *wrong = node_newcomer(c, m->node, m->address, s, ret);

    /* Only the active region's vote, which is where this node, the leader, is. */
    if (wrong == NULL)
        ret->role = m->standby || ret->region != c->config.region ? MEMBER_STANDBY : MEMBER_VOTER;
    return wrong;
}

static void on_newcomer(void *arg, const struct peer_answer *a)
{
    struct newcomer *w = arg;
    sluice_v1_NodeReply reply;
    struct member member = { 0 };
    const char *wrong;

    if (!a->there)
        node_refuse(&w->to, -EHOSTUNREACH, "node %u at %s does not answer: %.*s", w->request.node,
                    w->request.address, (int)a->bytes, (const char *)a->body);
    else if (node_reply_decode(&reply, a) < 0 || !reply.has_status)
        node_refuse(&w->to, -EBADMSG, "node %u at %s: its answer cannot be read", w->request.node,
                    w->request.address);
    else if ((wrong = newcomer_check(w->to.c, &w->request, &reply.status, &member)) != NULL)
        node_refuse(&w->to, -EINVAL, "node %u at %s: %s", w->request.node, w->request.address,
                    wrong);
    else if (leads(&w->to))
        begin_change(&w->to, &w->request, &member);
    free(w);
}

static void add_self(const struct node_caller *to, const sluice_v1_MembershipRequest *m)
{
    sluice_v1_NodeStatus self;
    struct member member = { 0 };
    const char *wrong;

    node_tell_status(to->c, &self);
    wrong = newcomer_check(to->c, m, &self, &member);
    if (wrong != NULL)
        node_refuse(to, -EINVAL, "node %u at %s: %s", m->node, m->address, wrong);
    else
        begin_change(to, m, &member);
}

size_t node_request_encode(const sluice_v1_NodeRequest *request,
                           uint8_t ret[sluice_v1_NodeRequest_size])
{
    pb_ostream_t out = pb_ostream_from_buffer(ret, sluice_v1_NodeRequest_size);
    bool ok = pb_encode(&out, sluice_v1_NodeRequest_fields, request);

    assert(ok);
    return out.bytes_written;
}

static void do_membership(const struct node_caller *to, const sluice_v1_MembershipRequest *m)
{
    const sluice_v1_NodeRequest status = { .which_body = sluice_v1_NodeRequest_status_tag };
    uint8_t bytes[sluice_v1_NodeRequest_size];
    struct newcomer *w;
    int e;

    if (m->kind <= sluice_v1_MembershipRequest_Kind_NONE ||
        m->kind > sluice_v1_MembershipRequest_Kind_SWITCHOVER || m->region > 2 ||
        m->node > UINT16_MAX || m->old > UINT16_MAX) {
        node_refuse(to, -EINVAL, "no such change");
        return;
    }
    if (!leads(to))
        return;
    if (m->kind == sluice_v1_MembershipRequest_Kind_REMOVE ||
        m->kind == sluice_v1_MembershipRequest_Kind_TRANSFER ||
        m->kind == sluice_v1_MembershipRequest_Kind_SWITCHOVER) {
        begin_change(to, m, NULL);
        return;
    }
    if (to->c->peers == NULL) {
        node_refuse(to, -ENOTSUP, "a cluster of one does not grow: it has no peer.listen");
        return;
    }
    if (m->node == to->c->config.node) { /* nobody dials itself */
        add_self(to, m);
        return;
    }
    w = malloc(sizeof *w);
    if (w == NULL) {
        node_refuse(to, -ENOMEM, "out of memory");
        return;
    }
    *w = (struct newcomer){ *to, *m };
    e = peers_call(to->c->peers, (uint16_t)m->node, m->address, bytes,
                   node_request_encode(&status, bytes), NEWCOMER_NS_MAX, on_newcomer, w);
    if (e < 0) {
        free(w);
        node_refuse(to, e, "node %u at %s cannot be asked: %s", m->node, m->address, strerror(-e));
    }
}

static void node_do(const struct node_caller *to, const sluice_v1_NodeRequest *request)
{
    sluice_v1_NodeReply reply = sluice_v1_NodeReply_init_zero;
    int e;

    switch (request->which_body) {
    case sluice_v1_NodeRequest_status_tag:
        do_status(to, &request->body.status);
        break;
    case sluice_v1_NodeRequest_bootstrap_tag:
        e = found_take(to->c, &request->body.bootstrap, reply.sentence);
        node_answer(to, e, &reply);
        break;
    case sluice_v1_NodeRequest_setting_tag:
        do_setting(to, &request->body.setting);
        break;
    case sluice_v1_NodeRequest_membership_tag:
        do_membership(to, &request->body.membership);
        break;
    case sluice_v1_NodeRequest_barrier_tag:
        (void)do_propose(to, LOG_BARRIER, NULL, 0);
        break;
    case sluice_v1_NodeRequest_failover_tag:
    case sluice_v1_NodeRequest_orphans_tag:
    case sluice_v1_NodeRequest_reconcile_tag:
        node_do_recovery(to, request);
        break;
    default:
        node_refuse(to, -EOPNOTSUPP, "node %u does not know this request", to->c->config.node);
        break;
    }
}

void node_called(struct cluster *c, const struct peer_caller *from, const void *body, size_t bytes)
{
    const struct node_caller to = { .c = c, .remote = *from };
    sluice_v1_NodeRequest request = sluice_v1_NodeRequest_init_zero;
    pb_istream_t in = pb_istream_from_buffer(body, bytes);

    if (!pb_decode(&in, sluice_v1_NodeRequest_fields, &request))
        node_refuse(&to, -EBADMSG, "the request cannot be read: %s", PB_GET_ERROR(&in));
    else
        node_do(&to, &request);
}

/* --- asking -------------------------------------------------------------------------------------
 */

static void on_reply(void *arg, const struct peer_answer *answered)
{
    struct ask *a = arg;

    ask_answered(a, node_reply_decode(&a->reply, answered));
}

static void ask_run(void *arg)
{
    struct ask *a = arg;
    struct cluster *c = a->c;
    const struct node_caller self = { .c = c, .ask = a };
    uint16_t node = a->node;
    uint8_t bytes[sluice_v1_NodeRequest_size];
    int e;

    a->next = c->asks;
    c->asks = a;
    a->reply = (sluice_v1_NodeReply)sluice_v1_NodeReply_init_zero;
    if (node == 0 && c->log != NULL)
        node = consensus_leader(c);
    if (node == 0 || node == c->config.node || c->peers == NULL) {
        node_do(&self, &a->request);
        return;
    }
    e = peers_call(c->peers, node, NULL, bytes, node_request_encode(&a->request, bytes),
                   a->timeout_ns, on_reply, a);
    if (e < 0) {
        const char *said = peers_said(c->peers, node);

        node_refuse(&self, e == -ENOTCONN || e == -ENOENT ? -ENOTCONN : e,
                    "there is no connection to node %u%s%s", node, *said != '\0' ? ": " : "", said);
    }
}

/* Waits for the answer; false: it is not there in time, and a is somebody else's. With the lock. */
static bool ask_wait(struct ask *a, uint64_t until_ns)
{
    struct cluster *c = a->c;
    struct timespec until = { (time_t)(until_ns / NS_PER_S), (long)(until_ns % NS_PER_S) };

    while (!a->answered && !c->ended && !c->interrupted) {
        if (pthread_cond_clockwait(&c->changed, &c->lock, CLOCK_MONOTONIC, &until) == ETIMEDOUT)
            break;
    }
    a->left = !a->answered && !c->ended;
    return !a->left;
}

/* A request once. a is not to be used any more after -ETIMEDOUT of the waiting itself. */
static int ask_once(struct cluster *c, uint16_t node, const sluice_v1_NodeRequest *request,
                    uint64_t until_ns, sluice_v1_NodeReply *ret)
{
    struct ask *a = calloc(1, sizeof *a);
    uint64_t now = clock_monotonic_ns();
    bool there, over;
    int e;

    if (a == NULL)
        return -ENOMEM;
    *a = (struct ask){ .c = c, .request = *request, .node = node };
    a->timeout_ns = until_ns > now ? until_ns - now : 1;
    e = cluster_call(c, ask_run, a);
    if (e < 0) {
        free(a);
        return e;
    }
    pthread_mutex_lock(&c->lock);
    there = ask_wait(a, until_ns + NS_PER_MS);
    over = c->interrupted;
    pthread_mutex_unlock(&c->lock);
    if (!there && over)
        return -ESHUTDOWN;
    if (!there) {
        snprintf(ret->sentence, sizeof ret->sentence, "no answer in time; it may be done yet");
        return -ETIMEDOUT;
    }
    *ret = a->reply;
    e = a->answered ? a->status : -ESHUTDOWN;
    free(a);
    return e;
}

int cluster_ask(struct cluster *c, const sluice_v1_NodeRequest *request, uint64_t timeout_ns,
                sluice_v1_NodeReply *ret)
{
    const uint64_t until = clock_monotonic_ns() + timeout_ns;
    const struct timespec pause = { .tv_nsec = (long)RETRY_NS };
    int e;

    for (;;) {
        *ret = (sluice_v1_NodeReply)sluice_v1_NodeReply_init_zero;
        e = ask_once(c, 0, request, until, ret);
        if ((e != -EAGAIN && e != -ENOTCONN) || clock_monotonic_ns() + RETRY_NS > until)
            break;
        if (cluster_is_over(c))
            return -ESHUTDOWN;
        nanosleep(&pause, NULL);
    }
    return e;
}

int cluster_ask_node(struct cluster *c, uint16_t node, const sluice_v1_NodeRequest *request,
                     uint64_t timeout_ns, sluice_v1_NodeReply *ret)
{
    *ret = (sluice_v1_NodeReply)sluice_v1_NodeReply_init_zero;
    return ask_once(c, node != 0 ? node : c->config.node, request,
                    clock_monotonic_ns() + timeout_ns, ret);
}

int64_t cluster_propose_setting(struct cluster *c, const sluice_v1_Setting *setting,
                                char sentence[LOG_ERROR_BYTES])
{
    sluice_v1_NodeRequest request = { .which_body = sluice_v1_NodeRequest_setting_tag };
    sluice_v1_NodeReply reply;
    int e;

    request.body.setting = *setting;
    e = cluster_ask(c, &request, SETTING_NS_MAX, &reply);
    /* What was changed holds here, too, when it is said. */
    if (e == 0)
        e = cluster_wait(c, reply.index, SETTING_NS_MAX);
    snprintf(sentence, LOG_ERROR_BYTES, "%s",
             e < 0 && !reply.sentence[0] ? strerror(-e) : reply.sentence);
    return e < 0 ? e : (int64_t)reply.index;
}

/* --- this node ----------------------------------------------------------------------------------
 */

struct self {
    struct cluster *c;
    sluice_v1_NodeStatus *ret;
    uint64_t *connected_ns;
};

static void self_run(void *arg)
{
    const struct self *s = arg;

    node_tell_status(s->c, s->ret);
    for (unsigned i = 0; s->connected_ns != NULL && i < s->ret->members_count; i++)
        s->connected_ns[i] =
            s->c->peers == NULL
                ? 0
                : peers_connected_ns(s->c->peers, (uint16_t)s->ret->members[i].node);
}

int cluster_self(struct cluster *c, sluice_v1_NodeStatus *ret,
                 uint64_t ret_connected_ns[CLUSTER_MEMBERS_MAX])
{
    struct self s = { c, ret, ret_connected_ns };

    return cluster_call(c, self_run, &s);
}

/* --- all members --------------------------------------------------------------------------------
 */

struct all {
    struct cluster *c;
    sluice_v1_Member member[CLUSTER_MEMBERS_MAX];
    unsigned members;
};

static void all_run(void *arg)
{
    struct all *a = arg;
    sluice_v1_NodeStatus status;

    node_tell_status(a->c, &status);
    a->members = status.members_count;
    memcpy(a->member, status.members, sizeof a->member);
}

struct all_start {
    struct ask *ask[CLUSTER_MEMBERS_MAX];
    unsigned n;
};

static void all_ask(void *arg)
{
    struct all_start *s = arg;

    for (unsigned i = 0; i < s->n; i++)
        ask_run(s->ask[i]);
}

int cluster_members(struct cluster *c, uint64_t timeout_ns,
                    sluice_v1_Member member[CLUSTER_MEMBERS_MAX],
                    sluice_v1_NodeReply ret[CLUSTER_MEMBERS_MAX])
{
    const uint64_t until = clock_monotonic_ns() + timeout_ns;
    struct all all = { .c = c };
    struct all_start start = { .n = 0 };
    int e = cluster_call(c, all_run, &all);

    if (e < 0)
        return e;
    for (unsigned i = 0; i < all.members; i++) {
        struct ask *a = calloc(1, sizeof *a);

        if (a == NULL)
            break;
        *a = (struct ask){ .c = c, .timeout_ns = timeout_ns, .node = (uint16_t)all.member[i].node };
        a->request.which_body = sluice_v1_NodeRequest_status_tag;
        start.ask[start.n++] = a;
    }
    e = cluster_call(c, all_ask, &start);
    for (unsigned i = 0; i < start.n; i++) {
        struct ask *a = start.ask[i];
        bool there;

        member[i] = all.member[i];
        ret[i] = (sluice_v1_NodeReply)sluice_v1_NodeReply_init_zero;
        pthread_mutex_lock(&c->lock);
        there = e < 0 || ask_wait(a, until + NS_PER_MS);
        pthread_mutex_unlock(&c->lock);
        if (there) {
            ret[i] = a->reply;
            free(a);
        }
        if (!ret[i].has_status && ret[i].sentence[0] == '\0')
            snprintf(ret[i].sentence, sizeof ret[i].sentence, "no answer");
    }
    return e < 0 ? e : (int)start.n;
}

void node_calls_end(struct cluster *c)
{
    propose_abandon(c);
    while (c->asks != NULL)
        ask_answered(c->asks, -ESHUTDOWN);
}
