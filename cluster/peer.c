/*
 * peer.c - the table of the other nodes: who is dialled, who is let in, and a turn for each of
 * them. The cluster thread's; see peer.h.
 */
#include "cluster/peer.h"

#include <assert.h>
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cluster/member.h"
#include "cluster/peer_fetch.h"
#include "cluster/peer_internal.h"

#define ACCEPTS_MAX     16u /* in one turn */
#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)

struct handshake_self peers_self(const struct peers *p)
{
    const struct cluster *c = p->c;
    struct handshake_self self = {
        .node = c->config.node,
        .version_min = PEER_VERSION_MIN,
        .version_max = PEER_VERSION_MAX,
    };

    if (c->log != NULL || c->repair.at_start) { /* otherwise it waits */
        self.epoch = c->state.term >> CLUSTER_EPOCH_SHIFT;
        memcpy(self.cluster_id, c->state.cluster_id, sizeof self.cluster_id);
    }
    memcpy(self.directory_id, c->state.directory_id, sizeof self.directory_id);
    return self;
}

struct peer_out *peers_out(const struct peers *p, uint16_t node)
{
    for (unsigned i = 0; i < PEER_OUT_MAX; i++) {
        struct peer_out *o = p->out[i];

        if (o != NULL && o->known.node == node && o->call == 0)
            return o;
    }
    return NULL;
}

uint64_t peers_connected_ns(const struct peers *p, uint16_t node)
{
    const struct peer_out *o = peers_out(p, node);

    return o != NULL && o->state == OUT_UP ? o->up_ns : 0;
}

/* --- who there is -------------------------------------------------------------------------------
 */

static struct peer_out *peers_add(struct peers *p, uint16_t node)
{
    for (unsigned i = 0; i < PEER_OUT_MAX; i++) {
        if (p->out[i] != NULL)
            continue;
        p->out[i] = out_new(p);
        if (p->out[i] != NULL)
            p->out[i]->known = (struct handshake_known){ .node = node };
        return p->out[i];
    }
    return NULL;
}

static void out_readdress(struct peer_out *o, const char *host, uint16_t port)
{
    if (strcmp(o->host, host) == 0 && o->port == port)
        return;
    snprintf(o->host, sizeof o->host, "%s", host);
    o->port = port;
    o->backoff_ms = PEER_BACKOFF_MS_MIN;
    if (o->state != OUT_IDLE)
        out_lost(o, NULL);
    o->dial_ns = 0;
}

void peers_introduced(struct peers *p, const struct hello *h)
{
    struct peer_out *o = peers_out(p, h->node);
    char host[PEER_HOST_BYTES];
    uint16_t port;

    if ((o != NULL && o->member) || link_split(h->address, host, &port) < 0)
        return;
    if (o == NULL)
        o = peers_add(p, h->node);
    if (o == NULL)
        return;
    o->introduced = true;
    o->known.region = (uint8_t)h->region;
    out_readdress(o, host, port);
}

static int peers_take_member(struct peers *p, const struct member *m)
{
    struct peer_out *o = peers_out(p, m->node);

    if (o == NULL)
        o = peers_add(p, m->node);
    if (o == NULL)
        return cluster_fail(p->c, -ENOMEM, "peers: out of memory");
    o->member = true;
    o->known.region = m->region;
    o->known.directory_known = true;
    memcpy(o->known.directory_id, m->directory_id, sizeof m->directory_id);
    out_readdress(o, m->host, m->port);
    return 0;
}

void peers_reopened(struct peers *p)
{
    if (p == NULL)
        return;
    p->seen_committed = p->seen_uncommitted = UINT64_MAX;
    p->seen_closed = false;
}

/* A node whose log is damaged, or whose engine stands still: by what it can read. */
static int peers_configure_closed(struct peers *p)
{
    const struct repair *r = &p->c->repair;
    struct member m[CLUSTER_MEMBERS_MAX];
    int n = 0, e = 0;

    if (!p->seen_closed)
        n = r->at_start ? members_list(r->configuration, r->configuration_bytes, m)
                        : recovery_members(p->c, m);
    p->seen_closed = p->seen_closed || n > 0;
    for (int i = 0; i < n && e == 0; i++)
        e = m[i].node == p->c->config.node ? 0 : peers_take_member(p, &m[i]);
    return e;
}

/* The engine's configuration, the uncommitted one, too: a new member has to be reached before it
 * can be committed. */
static int peers_configure(struct peers *p)
{
    const struct raft *r = &p->c->raft;

    if (p->c->repair.at_start || p->c->recovery.fenced)
        return peers_configure_closed(p);
    if (!p->c->raft_open || (r->configuration_committed_index == p->seen_committed &&
                             r->configuration_uncommitted_index == p->seen_uncommitted))
        return 0;
    p->seen_committed = r->configuration_committed_index;
    p->seen_uncommitted = r->configuration_uncommitted_index;
    for (unsigned i = 0; i < PEER_OUT_MAX; i++) {
        if (p->out[i] != NULL)
            p->out[i]->member = false;
    }
    for (unsigned i = 0; i < r->configuration.n; i++) {
        const struct raft_server *s = &r->configuration.servers[i];
        struct member m = { .node = (uint16_t)s->id };
        int e;

        if (s->id == p->c->config.node)
            continue;
        if (member_parse(s->address, &m) != NULL)
            return cluster_fail(p->c, -EBADMSG, "configuration: node %llu has the address '%s'",
                                (unsigned long long)s->id, s->address);
        e = peers_take_member(p, &m);

        if (e < 0)
            return e;
    }
    return 0;
}

/* --- letting in ---------------------------------------------------------------------------------
 */

/* Whoever comes without being a node shall not keep the nodes out: the one that has said nothing
 * for longest makes room. */
static bool peers_make_room(struct peers *p)
{
    struct peer_in *oldest = NULL;

    for (unsigned i = 0; i < PEER_IN_MAX; i++) {
        struct peer_in *in = p->in[i];

        if (in == NULL)
            return true;
        if (in->state != IN_UP && (oldest == NULL || in->number < oldest->number))
            oldest = in;
    }
    if (oldest == NULL)
        return false;
    in_close(oldest, "others want to come in");
    return true;
}

/* Of descriptors or memory there are none: the connection stays where it is, for a moment. */
static void peers_accept_later(struct peers *p, int error)
{
    report_every(&p->accept_report, NS_PER_S, REPORT_WARN, "peer_refused",
                 "a connection cannot be accepted: %s", strerror(error));
    uv_poll_stop(&p->listen);
    p->accept_ns = node_now_ns(p->c) + ACCEPT_PAUSE_NS;
}

static void on_listen(uv_poll_t *h, int status, int events)
{
    struct peers *p = h->data;

    (void)status, (void)events;
    for (unsigned i = 0; i < ACCEPTS_MAX; i++) {
        int fd = accept4(p->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
            peers_accept_later(p, errno);
        if (fd < 0)
            return;
        if (peers_make_room(p))
            in_accept(p, fd);
        else
            close(fd);
    }
}

static int peers_listen(struct peers *p, char error[LOG_ERROR_BYTES])
{
    const char *text = p->c->config.peering->listen;
    struct sockaddr_storage a;
    char host[PEER_HOST_BYTES];
    const int on = 1;
    uint16_t port;
    socklen_t n;

    if (link_split(p->advertise, host, &port) < 0) {
        snprintf(error, LOG_ERROR_BYTES, "peer.advertise: %s is not HOST:PORT", p->advertise);
        return -EINVAL;
    }
    if (link_split(text, host, &port) < 0 || link_address(host, port, &a, &n) < 0) {
        snprintf(error, LOG_ERROR_BYTES, "peer.listen: %s is not ADDRESS:PORT", text);
        return -EINVAL;
    }
    p->fd = socket(a.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (p->fd >= 0)
        (void)setsockopt(p->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (p->fd < 0 || bind(p->fd, (struct sockaddr *)&a, n) < 0 || listen(p->fd, PEER_IN_MAX) < 0) {
        int e = -errno;

        snprintf(error, LOG_ERROR_BYTES, "peer.listen: %s: %s", text, strerror(-e));
        return e;
    }
    return 0;
}

int peers_open(struct peers **ret, struct cluster *c, char error[LOG_ERROR_BYTES])
{
    struct peers *p = calloc(1, sizeof *p);
    const struct cluster_peering *peering = c->config.peering;
    int e;

    if (p == NULL)
        return -ENOMEM;
    p->c = c;
    p->loop = &c->loop;
    p->fd = -1;
    p->packer.level = (int)peering->pack_level;
    p->seen_committed = p->seen_uncommitted = UINT64_MAX;
    snprintf(p->advertise, sizeof p->advertise, "%s",
             peering->advertise[0] != '\0' ? peering->advertise : peering->listen);
    node_random(c, &p->process, sizeof p->process);
    e = peers_listen(p, error);
    if (e == 0)
        e = uv_poll_init(p->loop, &p->listen, p->fd);
    if (e < 0) {
        if (p->fd >= 0)
            close(p->fd);
        free(p);
        return e;
    }
    p->listen.data = p;
    uv_poll_start(&p->listen, UV_READABLE, on_listen);
    *ret = p;
    return 0;
}

void peers_close(struct peers *p)
{
    if (p == NULL || p->closing)
        return;
    p->closing = true;
    for (unsigned i = 0; i < PEER_IN_MAX; i++) {
        if (p->in[i] != NULL)
            in_close(p->in[i], NULL);
    }
    for (unsigned i = 0; i < PEER_CALLS_MAX; i++)
        p->call[i].deadline_ns = 0;
    call_turn(p, UINT64_MAX);
    for (unsigned i = 0; i < PEER_OUT_MAX; i++) {
        if (p->out[i] != NULL)
            out_free(p->out[i]);
        p->out[i] = NULL;
    }
    uv_poll_stop(&p->listen);
    uv_close((uv_handle_t *)&p->listen, NULL);
}

void peers_free(struct peers *p)
{
    if (p == NULL)
        return;
    close(p->fd);
    peer_packer_fini(&p->packer);
    free(p);
}

/* --- messages and turns -------------------------------------------------------------------------
 */

/* One of an earlier epoch does not hear what it is sent, until it has come into this one; the
 * engine sends it the same again and again. Without the entries it is enough to be answered then.
 */
static bool is_behind(const struct peer_out *o, uint64_t epoch)
{
    return o->epoch != 0 && o->epoch < epoch;
}

int peers_send(void *arg, const struct raft_message *m)
{
    _Alignas(8) uint8_t frame[PEER_HEADER_BYTES + PEER_SNAPSHOT_HEAD_MAX];
    struct peers *p = arg;
    struct peer_out *o = peers_out(p, (uint16_t)m->server_id);
    uint64_t epoch = p->c->state.term >> CLUSTER_EPOCH_SHIFT;
    struct iovec iov;
    ssize_t n;
    int e;

    assert(m->server_id != 0 && m->server_id != p->c->config.node);
    if (o == NULL || o->state != OUT_UP)
        return 0; /* lost, which a message may be */
    if (m->type == RAFT_APPEND_ENTRIES && m->append_entries.n_entries > 0 && !is_behind(o, epoch)) {
        e = out_entries(o, &m->append_entries);
    } else if (m->type == RAFT_APPEND_ENTRIES) {
        struct raft_append_entries beat = m->append_entries;

        beat.n_entries = 0;
        n = peer_encode_append_entries(frame, sizeof frame, epoch, &beat, NULL, &iov, 1);
        if (n < 0)
            return (int)n;
        e = out_frame(o, frame, iov.iov_len);
    } else {
        n = peer_encode(frame, sizeof frame, epoch, m);
        if (n < 0)
            return (int)n;
        e = out_frame(o, frame, (size_t)n);
    }
    /* Not one message alone may be lost: what follows would overtake it. */
    if (e < 0)
        out_lost(o, "more waits for it than it may");
    return 0;
}

int peers_post(void *arg, const struct node_post *post)
{
    struct peers *p = arg;
    struct peer_out *o = peers_out(p, post->to);
    size_t n = PEER_HEADER_BYTES;
    uint8_t *frame, plain[PEER_FETCH_BYTES];
    struct iovec iov = { plain, sizeof plain };
    struct node_post known;

    if (o != NULL && post->type == PEER_FETCH && o->version < PEER_VERSION_RECOVER) {
        peer_fetch_plain(plain, post->iov->iov_base);
        known = *post;
        known.iov = &iov;
        post = &known;
    }
    for (unsigned i = 0; i < post->iovs; i++)
        n += post->iov[i].iov_len;
    assert(n > PEER_HEADER_BYTES && n <= PEER_HEADER_BYTES + PEER_POST_MAX);
    assert(post->type >= PEER_POST_FIRST && post->to != p->c->config.node);
    if (o == NULL || o->state != OUT_UP || o->bytes + n > PEER_QUEUE_BYTES_MAX)
        return -EAGAIN;
    if ((post->type == PEER_REGION && o->version < PEER_VERSION_REGION) ||
        (post->type == PEER_RECOVER && o->version < PEER_VERSION_RECOVER))
        return -EAGAIN; /* for as long as it is of that version, it knows nothing of these */
    frame = malloc(n);
    if (frame == NULL)
        return -EAGAIN;
    peer_frame_put_post(frame, post->type, p->c->state.term >> CLUSTER_EPOCH_SHIFT, post->iov,
                        post->iovs);
    n = PEER_HEADER_BYTES;
    for (unsigned i = 0; i < post->iovs; i++) {
        memcpy(frame + n, post->iov[i].iov_base, post->iov[i].iov_len);
        n += post->iov[i].iov_len;
    }
    if (out_frame_owned(o, frame, n) < 0) {
        free(frame);
        return -EAGAIN;
    }
    return 0;
}

static bool peers_listened_to(const struct peers *p, uint16_t node)
{
    for (unsigned i = 0; i < PEER_IN_MAX; i++) {
        const struct peer_in *in = p->in[i];

        if (in != NULL && in->state == IN_UP && !in->calls_only && in->node == node)
            return true;
    }
    return false;
}

/* Those that nobody needs any more. */
static void peers_tidy(struct peers *p)
{
    for (unsigned i = 0; i < PEER_OUT_MAX; i++) {
        struct peer_out *o = p->out[i];

        if (o == NULL || o->member || (o->call != 0 && o->call != UINT64_MAX) ||
            (o->introduced && peers_listened_to(p, o->known.node)))
            continue;
        p->out[i] = NULL;
        out_free(o);
    }
}

int peers_turn(struct peers *p, uint64_t now_ns)
{
    int done = 0, e = peers_configure(p);

    if (e < 0)
        return e;
    if (p->accept_ns != 0 && now_ns >= p->accept_ns) {
        p->accept_ns = 0;
        uv_poll_start(&p->listen, UV_READABLE, on_listen);
    }
    for (unsigned i = 0; i < PEER_IN_MAX; i++) {
        e = p->in[i] != NULL ? in_turn(p->in[i], now_ns) : 0;
        if (e < 0)
            return e;
        done += e;
    }
    for (unsigned i = 0; i < PEER_OUT_MAX; i++) {
        e = p->out[i] != NULL ? out_turn(p->out[i], now_ns) : 0;
        if (e < 0)
            return e;
        done += e;
    }
    call_turn(p, now_ns);
    peers_tidy(p);
    return done;
}

uint64_t peers_deadline_ns(const struct peers *p)
{
    uint64_t at = p->accept_ns != 0 ? p->accept_ns : UINT64_MAX;

    for (unsigned i = 0; i < PEER_OUT_MAX; i++) {
        if (p->out[i] != NULL && out_deadline_ns(p->out[i]) < at)
            at = out_deadline_ns(p->out[i]);
    }
    for (unsigned i = 0; i < PEER_IN_MAX; i++) {
        if (p->in[i] != NULL && p->in[i]->state != IN_UP && p->in[i]->deadline_ns < at)
            at = p->in[i]->deadline_ns;
    }
    for (unsigned i = 0; i < PEER_CALLS_MAX; i++) {
        if (p->call[i].id != 0 && p->call[i].deadline_ns < at)
            at = p->call[i].deadline_ns;
    }
    return at;
}
