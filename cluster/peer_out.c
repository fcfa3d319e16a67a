/*
 * peer_out.c - a node that this one dials: its queue of messages, and when to dial it again. The
 * cluster thread's; limits and memory are in peer.h.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cluster/peer_internal.h"

#define FRAMES_MAX   32u        /* in one write */
#define TURN_BYTES   (4u << 20) /* written to one node before the next one's turn */
#define COMPLAIN_NS  (10 * NS_PER_S)
#define ANSWER_BYTES (16u << 10) /* read at once of what comes back */

/* A name that is being looked up; outlives its node, whose `resolving` points to it. */
struct resolving {
    uv_getaddrinfo_t request;
    struct peer_out *out; /* NULL: nobody waits for it any more */
};

static const struct peer_decoder_memory no_entries; /* answers have none */

struct peer_out *out_new(struct peers *p)
{
    struct peer_out *o = calloc(1, sizeof *o);

    if (o == NULL)
        return NULL;
    o->p = p;
    o->backoff_ms = PEER_BACKOFF_MS_MIN;
    o->item = calloc(PEER_QUEUE_MAX, sizeof *o->item);
    if (o->item != NULL && peer_decoder_init(&o->decoder, &no_entries, PEER_TYPES_ANSWER) == 0)
        return o;
    free(o->item);
    free(o);
    return NULL;
}

static struct peer_item *out_first(struct peer_out *o) { return &o->item[o->item_head]; }

static void out_pop(struct peer_out *o)
{
    struct peer_item *item = out_first(o);

    assert(o->items > 0 && (item->bytes == NULL || o->bytes >= item->n));
    if (item->bytes != NULL)
        o->bytes -= item->n;
    free(item->bytes);
    item->bytes = NULL;
    o->item_head = (o->item_head + 1) % PEER_QUEUE_MAX;
    o->items--;
}

static void out_forget(struct peer_out *o)
{
    while (o->items > 0)
        out_pop(o);
    o->rest_at = o->rest_n = 0;
}

void out_free(struct peer_out *o)
{
    out_lost(o, NULL);
    free(o->first);
    peer_decoder_fini(&o->decoder);
    free(o->rest);
    free(o->item);
    free(o);
}

void out_lost(struct peer_out *o, const char *error)
{
    uint64_t now = node_now_ns(o->p->c), wait_ms;

    if (o->state == OUT_UP && now - o->up_ns > NS_PER_S)
        o->backoff_ms = PEER_BACKOFF_MS_MIN;
    link_close(o->link);
    o->link = NULL;
    if (o->resolving != NULL) {
        o->resolving->out = NULL;
        (void)uv_cancel((uv_req_t *)&o->resolving->request);
        o->resolving = NULL;
    }
    o->state = OUT_IDLE;
    out_forget(o);
    /* Half of it by chance, so that nodes do not dial in step. */
    node_random(o->p->c, &wait_ms, sizeof wait_ms);
    wait_ms = o->backoff_ms / 2 + wait_ms % (o->backoff_ms / 2 + 1);
    o->dial_ns = now + wait_ms * NS_PER_MS;
    o->backoff_ms =
        o->backoff_ms * 2 < PEER_BACKOFF_MS_MAX ? o->backoff_ms * 2 : PEER_BACKOFF_MS_MAX;
    call_lost(o->p, o);
    if (error == NULL)
        return;
    /* The same complaint not with every attempt. */
    if (strcmp(error, o->said) != 0)
        o->report = (struct report_limit){ 0 };
    snprintf(o->said, sizeof o->said, "%s", error);
    report_every(&o->report, COMPLAIN_NS, REPORT_WARN, "peer_out", "node %u at %s port %u: %s",
                 o->known.node, o->host, o->port, o->said);
}

static void out_failed(struct peer_out *o, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void out_failed(struct peer_out *o, const char *format, ...)
{
    char sentence[HANDSHAKE_SENTENCE_MAX + 1];
    va_list args;

    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    out_lost(o, sentence);
}

/* --- connecting ---------------------------------------------------------------------------------
 */

static void out_hello(struct peer_out *o)
{
    _Alignas(8) uint8_t frame[HANDSHAKE_FRAME_MAX];
    const struct cluster *c = o->p->c;
    const struct handshake_self self = peers_self(o->p);
    struct hello h = {
        .magic = HANDSHAKE_MAGIC,
        .version_min = self.version_min,
        .version_max = self.version_max,
        .process = o->p->process,
        .connection = ++o->p->connection,
        .epoch = self.epoch,
        .node = self.node,
        .dialled = o->known.node,
        .region = c->config.region,
        .zone_bytes = (uint16_t)strlen(c->config.peering->zone),
    };
    struct iovec iov = { frame, 0 };
    int n;

    /* One that is dialled for a call alone says that it is of no cluster: it offers no place, and
     * takes none from the connection for messages that there may be. */
    if (o->call == 0)
        memcpy(h.cluster_id, self.cluster_id, sizeof h.cluster_id);
    memcpy(h.directory_id, self.directory_id, sizeof h.directory_id);
    memcpy(h.zone, c->config.peering->zone, h.zone_bytes);
    memcpy(h.address, o->p->advertise, sizeof h.address);
    n = handshake_put_hello(frame, sizeof frame, &h);
    assert(n > 0);
    iov.iov_len = (size_t)n;
    /* The first bytes of a connection always find room. */
    if (link_writev(o->link, &iov, 1) != n) {
        out_lost(o, "it takes no HELLO");
        return;
    }
    o->state = OUT_HELLO;
    peer_decoder_reset(&o->decoder, PEER_TYPES_ANSWER);
    link_poll(o->link, UV_READABLE);
}

static void out_secure(struct peer_out *o)
{
    int e = link_handshake(o->link);
    const char *wrong;

    if (e == -EAGAIN)
        return;
    wrong = e < 0 ? link_error(o->link, e) : link_identity(o->link, o->known.node);
    if (wrong == NULL) {
        out_hello(o);
        return;
    }
    out_failed(o, "%s", wrong);
    if (e == 0)
        call_refused(o->p, o); /* it is another, and remains it */
}

static void out_welcomed(struct peer_out *o, const struct peer_frame *f)
{
    struct handshake_self self = peers_self(o->p);
    struct refusal refusal;
    struct welcome w;
    const char *wrong = handshake_get_welcome(&w, f);

    if (o->call != 0) /* as its HELLO said */
        memset(self.cluster_id, 0, sizeof self.cluster_id);
    if (wrong == NULL && handshake_check_welcome(&self, &o->known, &w, &refusal) < 0)
        wrong = refusal.sentence;
    if (wrong != NULL) {
        out_failed(o, "%s", wrong);
        call_refused(o->p, o);
        return;
    }
    /* It waits: our HELLO has offered it a place, and messages are for when it has begun. */
    if (o->call == 0 && f->epoch == 0) {
        out_lost(o, NULL);
        return;
    }
    if (!o->known.directory_known) {
        memcpy(o->known.directory_id, w.directory_id, sizeof o->known.directory_id);
        o->known.directory_known = true;
    }
    assert(o->state == OUT_HELLO && o->items == 0 && o->rest_n == 0);
    o->state = OUT_UP;
    if (o->call == 0)
        (void)recovery_hears(o->p->c, o->known.node, PEER_WELCOME, f->epoch);
    o->version = w.version;
    o->up_ns = node_now_ns(o->p->c);
    o->stuck_ns = 0;
    o->said[0] = '\0';
    peer_decoder_accept(&o->decoder, PEER_TYPE_SET(PEER_REPLY) | PEER_TYPE_SET(PEER_REFUSE));
    /* Once: whether it was done before a connection was lost is not known. */
    if (o->first != NULL && out_frame_owned(o, o->first, o->first_n) == 0)
        o->first = NULL;
    if (o->call == 0)
        report_info("peer_up", "node %u at %s port %u, protocol version %u", o->known.node, o->host,
                    o->port, w.version);
}

static void out_told(struct peer_out *o, const struct peer_message *m)
{
    struct refusal refusal;
    const char *wrong;

    switch (m->frame.type) {
    case PEER_WELCOME:
        out_welcomed(o, &m->frame);
        break;
    case PEER_REPLY:
        call_answered(o->p, o, m->frame.head, m->frame.head_bytes);
        break;
    default:
        wrong = handshake_get_refusal(&refusal, &m->frame);
        out_failed(o, "it refuses: %s", wrong != NULL ? wrong : refusal.sentence);
        call_refused(o->p, o);
        break;
    }
}

/* What came back. */
static void out_read(struct peer_out *o)
{
    struct peer_link *link = o->link;
    size_t done = 0;

    while (o->link == link && done < PEER_READ_BYTES) {
        void *to;
        size_t want = peer_decoder_want(&o->decoder, &to);
        ssize_t n;
        int e;

        assert(want > 0);
        n = link_read(link, to, want < ANSWER_BYTES ? want : ANSWER_BYTES);
        if (n == -EAGAIN)
            return;
        if (n <= 0) {
            out_failed(o, "%s", link_error(link, n));
            return;
        }
        done += (size_t)n;
        e = peer_decoder_got(&o->decoder, (size_t)n);
        if (e < 0)
            out_failed(o, "%s", peer_decoder_error(&o->decoder));
        else if (e == 1)
            out_told(o, peer_decoder_message(&o->decoder));
    }
}

static void out_ready(struct peer_link *l, int events)
{
    struct peer_out *o = l->owner;
    socklen_t n = sizeof(int);
    int error = 0;

    assert(o->link == l);
    switch (o->state) {
    case OUT_CONNECTING:
        (void)getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &error, &n);
        if (error != 0) {
            out_failed(o, "%s", strerror(error));
            return;
        }
        o->state = OUT_TLS;
        out_secure(o);
        break;
    case OUT_TLS:
        out_secure(o);
        break;
    case OUT_HELLO:
    case OUT_UP:
        if (events & (UV_READABLE | UV_DISCONNECT))
            out_read(o);
        if (o->link == l && (events & UV_WRITABLE))
            link_poll(l, UV_READABLE); /* the next turn writes */
        break;
    default:
        break;
    }
}

static void out_connect(struct peer_out *o, const struct sockaddr *a, socklen_t n)
{
    int fd = socket(a->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert(o->link == NULL);
    if (fd < 0) {
        out_failed(o, "socket: %s", strerror(errno));
        return;
    }
    if (connect(fd, a, n) < 0 && errno != EINPROGRESS) {
        out_failed(o, "%s", strerror(errno));
        close(fd);
        return;
    }
    o->link = link_new(o->p, fd, false, out_ready, o);
    if (o->link == NULL) {
        out_lost(o, "no memory");
        return;
    }
    o->state = OUT_CONNECTING;
    link_poll(o->link, UV_WRITABLE);
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct resolving *r = request->data;
    struct peer_out *o = r->out;

    assert(o == NULL || (o->resolving == r && o->state == OUT_RESOLVING));
    if (o != NULL) {
        o->resolving = NULL;
        if (status < 0 || found == NULL)
            out_failed(o, "its name is not found: %s", uv_strerror(status));
        else
            out_connect(o, found->ai_addr, found->ai_addrlen);
    }
    uv_freeaddrinfo(found);
    free(r);
}

static void out_dial(struct peer_out *o, uint64_t now_ns)
{
    static const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct sockaddr_storage a;
    struct resolving *r;
    char service[8];
    socklen_t n;

    o->deadline_ns = now_ns + PEER_HELLO_MS * NS_PER_MS;
    if (link_address(o->host, o->port, &a, &n) == 0) {
        out_connect(o, (struct sockaddr *)&a, n);
        return;
    }
    snprintf(service, sizeof service, "%u", o->port);
    r = calloc(1, sizeof *r);
    if (r == NULL ||
        uv_getaddrinfo(o->p->loop, &r->request, on_resolved, o->host, service, &hints) < 0) {
        free(r);
        out_lost(o, "its name cannot be looked up");
        return;
    }
    r->request.data = r;
    r->out = o;
    o->resolving = r;
    o->state = OUT_RESOLVING;
}

/* --- the queue ----------------------------------------------------------------------------------
 */

static struct peer_item *out_room(struct peer_out *o)
{
    if (o->state != OUT_UP || o->items == PEER_QUEUE_MAX)
        return NULL;
    return &o->item[(o->item_head + o->items) % PEER_QUEUE_MAX];
}

int out_entries(struct peer_out *o, const struct raft_append_entries *a)
{
    struct peer_item *item = out_room(o);

    if (item == NULL)
        return -EAGAIN;
    assert(a->n_entries > 0 && consensus_leads(o->p->c));
    item->term = o->p->c->state.term;
    item->a = *a;
    item->bytes = NULL;
    item->n = 0;
    o->items++;
    return 0;
}

int out_frame_owned(struct peer_out *o, uint8_t *frame, size_t n)
{
    struct peer_item *item = out_room(o);

    assert(n > 0 && n <= PEER_HEADER_BYTES + PEER_BODY_MAX);
    if (item == NULL || (o->bytes > 0 && o->bytes + n > PEER_QUEUE_BYTES_MAX))
        return -EAGAIN;
    item->bytes = frame;
    item->n = (uint32_t)n;
    o->items++;
    o->bytes += n;
    return 0;
}

int out_frame(struct peer_out *o, const void *frame, size_t n)
{
    struct peer_item *item = out_room(o);
    uint8_t *copy;
    int e;

    if (item == NULL)
        return -EAGAIN;
    if (n <= sizeof item->small) {
        memcpy(item->small, frame, n);
        item->bytes = NULL;
        item->n = (uint32_t)n;
        o->items++;
        return 0;
    }
    copy = malloc(n);
    if (copy == NULL)
        return -EAGAIN;
    memcpy(copy, frame, n);
    e = out_frame_owned(o, copy, n);
    if (e < 0)
        free(copy);
    return e;
}

/* --- writing ------------------------------------------------------------------------------------
 */

/* What of the frames in iov, of which `sent` bytes went, is still to go. */
static int out_keep(struct peer_out *o, const struct iovec *iov, unsigned iovs, size_t sent)
{
    size_t total = 0;

    for (unsigned i = 0; i < iovs; i++)
        total += iov[i].iov_len;
    if (sent == total)
        return 0;
    assert(o->rest_n == 0);
    if (o->rest_cap < total - sent) {
        free(o->rest);
        o->rest_cap = total - sent;
        o->rest = malloc(o->rest_cap);
        if (o->rest == NULL) {
            o->rest_cap = 0;
            out_lost(o, "no memory");
            return -EAGAIN;
        }
    }
    for (unsigned i = 0; i < iovs; i++) {
        size_t skip = sent < iov[i].iov_len ? sent : iov[i].iov_len;

        memcpy(o->rest + o->rest_n, (const uint8_t *)iov[i].iov_base + skip, iov[i].iov_len - skip);
        o->rest_n += iov[i].iov_len - skip;
        sent -= skip;
    }
    return -EAGAIN;
}

/* Returns the bytes written, or -EAGAIN: no more now. The frames are this function's to finish. */
static ssize_t out_write(struct peer_out *o, const struct iovec *iov, unsigned iovs)
{
    ssize_t n = link_writev(o->link, iov, (int)iovs);

    if (n < 0 && n != -EAGAIN) {
        out_failed(o, "%s", link_error(o->link, n));
        return -EAGAIN;
    }
    if (n > 0)
        o->stuck_ns = 0;
    if (out_keep(o, iov, iovs, n > 0 ? (size_t)n : 0) < 0)
        return -EAGAIN;
    return n;
}

static ssize_t out_write_rest(struct peer_out *o)
{
    struct iovec iov = { o->rest + o->rest_at, o->rest_n - o->rest_at };
    ssize_t n = link_writev(o->link, &iov, 1);

    if (n < 0) {
        if (n != -EAGAIN)
            out_failed(o, "%s", link_error(o->link, n));
        return -EAGAIN;
    }
    o->stuck_ns = 0;
    o->rest_at += (size_t)n;
    if (o->rest_at < o->rest_n)
        return -EAGAIN;
    o->rest_at = o->rest_n = 0;
    return n;
}

static ssize_t out_write_frames(struct peer_out *o)
{
    struct iovec iov[FRAMES_MAX] = { { NULL, 0 } };
    unsigned n = 0;
    size_t bytes = 0;
    ssize_t e;

    while (n < FRAMES_MAX && n < o->items && bytes < PEER_FRAME_BYTES) {
        struct peer_item *item = &o->item[(o->item_head + n) % PEER_QUEUE_MAX];

        if (item->n == 0)
            break;
        iov[n++] = (struct iovec){ item->bytes != NULL ? item->bytes : item->small, item->n };
        bytes += item->n;
    }
    assert(n > 0);
    e = out_write(o, iov, n);
    if (o->state == OUT_UP) {
        for (; n > 0; n--)
            out_pop(o);
    }
    return e;
}

/* The entries of the first item that go into one frame: from memory as many as fit, from the log's
 * files one, since the next reading ends it. Returns how many, -EILSEQ: it has rotted, or another
 * error, which is final. */
static int out_gather(struct peer_out *o, struct peer_entry entry[PEER_ENTRIES_MAX])
{
    struct cluster *c = o->p->c;
    const struct raft_append_entries *a = &out_first(o)->a;
    /* The key is in the log's first entries; who is here for a second has applied them. If not, it
     * ends the connection, and all comes again. */
    const bool knows_key = node_now_ns(c) >= o->up_ns + NS_PER_S;
    size_t bytes = 0;
    unsigned n = 0;
    bool kept = true;

    o->p->packer.hash_key = c->have_genesis ? c->genesis_hash_key : NULL;
    while (kept && n < a->n_entries && n < PEER_ENTRIES_MAX && bytes < PEER_FRAME_BYTES) {
        uint64_t index = a->prev_log_index + 1 + n;
        int e;

        kept = node_entry_kept(c, index);
        if (!kept && n > 0)
            break;
        e = node_entry(c, index, &entry[n]);
        if (e == -EILSEQ)
            return e;
        if (e < 0)
            return cluster_fail(c, e, "log: index %" PRIu64 " cannot be read for node %u: %s",
                                index, o->known.node, strerror(-e));
        /* One packed payload takes another's place: no more than are kept at once. */
        if (o->known.region != c->config.region && o->version >= PEER_VERSION_REGION)
            peer_pack(&o->p->packer, &entry[n], knows_key);
        bytes += entry[n++].record->payload_bytes;
    }
    return (int)n;
}
_Static_assert(PEER_ENTRIES_MAX <= PACK_KEPT, "the entries of one frame are kept");

static ssize_t out_write_entries(struct peer_out *o)
{
    _Alignas(8) uint8_t head[PEER_APPEND_BUF(PEER_ENTRIES_MAX)];
    struct peer_entry entry[PEER_ENTRIES_MAX];
    struct iovec iov[PEER_ENTRIES_MAX + 1];
    struct peer_item *item = out_first(o);
    struct raft_append_entries a = item->a;
    uint64_t last_term;
    ssize_t written;
    int n, iovs;

    /* Who does not lead that term any more may have had its entries cut. */
    if (item->term != o->p->c->state.term || !consensus_leads(o->p->c)) {
        out_pop(o);
        return 0;
    }
    n = out_gather(o, entry);
    if (n == -EILSEQ) { /* until it is mended, it gets nothing from here on */
        atomic_store(&o->p->c->scrub_wanted, a.prev_log_index + 1);
        out_failed(o, "entry %llu is damaged here, and cannot be sent", a.prev_log_index + 1);
        return -EAGAIN;
    }
    if (n < 0)
        return o->p->final = n;
    a.n_entries = peer_entries_fit(entry, (unsigned)n);
    assert(a.n_entries > 0 && a.n_entries <= item->a.n_entries);
    last_term = entry[a.n_entries - 1].record->term;
    iovs = peer_encode_append_entries(head, sizeof head, a.term >> CLUSTER_EPOCH_SHIFT, &a, entry,
                                      iov, PEER_ENTRIES_MAX + 1);
    if (iovs < 0)
        return o->p->final = cluster_fail(o->p->c, iovs, "entry %llu cannot be sent: %s",
                                          a.prev_log_index + 1, strerror(-iovs));
    written = out_write(o, iov, (unsigned)iovs);
    if (o->state != OUT_UP)
        return written;
    item->a.prev_log_index += a.n_entries;
    item->a.prev_log_term = last_term;
    item->a.n_entries -= a.n_entries;
    if (item->a.n_entries == 0)
        out_pop(o);
    return written;
}

static int out_flush(struct peer_out *o, uint64_t now_ns)
{
    size_t done = 0;
    int work = 0;

    while (o->state == OUT_UP && done < TURN_BYTES && (o->rest_n > 0 || o->items > 0)) {
        ssize_t n = o->rest_n > 0          ? out_write_rest(o)
                    : out_first(o)->n == 0 ? out_write_entries(o)
                                           : out_write_frames(o);

        if (o->p->final < 0)
            return o->p->final;
        if (n < 0)
            break;
        done += (size_t)n;
        work = 1;
    }
    if (o->state != OUT_UP)
        return work;
    if (o->rest_n == 0 && o->items == 0) {
        o->stuck_ns = 0;
        link_poll(o->link, UV_READABLE);
    } else {
        if (o->stuck_ns == 0)
            o->stuck_ns = now_ns;
        link_poll(o->link, UV_READABLE | UV_WRITABLE);
    }
    return work;
}

/* Whoever has nothing else to say tells its epoch: a node that stands still may know as members
 * only such who have nothing to send to it. */
static void out_ping(struct peer_out *o, uint64_t now_ns)
{
    const uint64_t epoch = o->p->c->state.term >> CLUSTER_EPOCH_SHIFT;
    _Alignas(8) uint8_t frame[PEER_HEADER_BYTES];
    ssize_t n;

    if (o->state != OUT_UP || o->call != 0 || now_ns < o->ping_ns)
        return;
    o->ping_ns = now_ns + PEER_PING_MS * NS_PER_MS;
    if (epoch == 0 || o->items > 0)
        return;
    n = peer_encode_ping(frame, sizeof frame, epoch);
    assert(n > 0);
    (void)out_frame(o, frame, (size_t)n); /* without memory the next one says it */
}

int out_turn(struct peer_out *o, uint64_t now_ns)
{
    const uint64_t patience_ns = o->p->c->config.peering->user_timeout_ms * NS_PER_MS;

    if (o->state == OUT_IDLE && now_ns >= o->dial_ns) {
        out_dial(o, now_ns);
        return 1;
    }
    if (o->state != OUT_IDLE && o->state != OUT_UP && now_ns >= o->deadline_ns) {
        out_lost(o, o->state == OUT_HELLO ? "no answer to the HELLO" : "no connection in time");
        return 1;
    }
    if (o->state == OUT_UP && o->stuck_ns != 0 && now_ns >= o->stuck_ns + patience_ns) {
        out_lost(o, "it reads nothing");
        return 1;
    }
    if (o->state == OUT_UP && link_expired(o->link, o->p->c)) {
        out_lost(o, "its certificate has expired");
        return 1;
    }
    out_ping(o, now_ns);
    return out_flush(o, now_ns);
}

uint64_t out_deadline_ns(const struct peer_out *o)
{
    if (o->state == OUT_IDLE)
        return o->dial_ns;
    if (o->state != OUT_UP)
        return o->deadline_ns;
    if (o->stuck_ns != 0)
        return o->stuck_ns + o->p->c->config.peering->user_timeout_ms * NS_PER_MS;
    return o->call == 0 ? o->ping_ns : UINT64_MAX;
}
