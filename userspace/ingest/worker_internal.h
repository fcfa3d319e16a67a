/*
 * worker_internal.h - what the files of one worker share: worker.c (loop), admit.c (blocks),
 * receive.c (datagrams), socket.c and afxdp.c (where they come from), stream.c, connection.c and
 * secure.c (TCP), ack.c and hold.c (answers).
 *
 * Thread:  everything here belongs to the worker's thread once it runs; the fields under "Control"
 *          are what other threads write.
 * Memory:  all of it is mapped or allocated in worker_open().
 */
#ifndef SLUICE_INGEST_WORKER_INTERNAL_H
#define SLUICE_INGEST_WORKER_INTERNAL_H

#include <liburing.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/frame.h"
#include "base/tls.h"
#include "ingest/enrich.h"
#include "bpf/packet.h"
#include "ingest/event.h"
#include "ingest/limits.h"
#include "ingest/stages.h"
#include "ingest/worker.h"

#define WORKER_CLASSES      4u    /* 0 is served first and dropped last */
#define TURN_CQES_MAX       512u  /* completions looked at in one turn */
#define TURN_EVENTS_MAX     4096u /* events run in one turn, UDP and TCP each */
#define UDP_PUBLISHED_MAX   256u  /* buffers that the kernel holds; the rest stay cold */
#define UDP_SEGMENTS_MAX    256u  /* the kernel joins at most 128 datagrams */
#define UDP_GRO_BYTES       65536u
#define TCP_BUFFERS         128u
#define TCP_BUFFER_BYTES    65536u
#define REGION_KEEP_BYTES   4096u /* a quiet connection gives back what is above */
#define RECEIPT_BYTES_BASE  96u   /* frame, and a receipt without lists */
#define RECEIPT_BYTES_EVENT 34u   /* an exception or an assigned id */
#define ERROR_BYTES_MAX     256u  /* always kept free in an output buffer */
#define RECEIPT_BYTES_MAX   (RECEIPT_BYTES_BASE + BATCH_EVENTS_MAX * RECEIPT_BYTES_EVENT)
#define SWEEP_INTERVAL_NS   (100 * NS_PER_MS)
#define BATCH_EVENTS_MAX    1024u /* of one request */
#define NONE32              UINT32_MAX

enum op { OP_WAKE = 1, OP_UDP, OP_RING, OP_ACCEPT, OP_RECV, OP_SEND, OP_IGNORED };
enum { GROUP_UDP = 0, GROUP_TCP = 1 };

struct listener {
    int fd;
    bool armed;
    struct in6_addr ip;
    uint32_t drops_seen; /* UDP: the kernel's counter so far */
};

/* Does a listener on this address take what comes to any address of its family? */
static inline bool listener_is_any(const struct in6_addr *ip)
{
    return IN6_IS_ADDR_V4MAPPED(ip) ? ip->s6_addr32[3] == 0 : IN6_IS_ADDR_UNSPECIFIED(ip);
}

/* The waiting datagrams of one class in one buffer: a buffer holds up to UDP_SEGMENTS_MAX. */
struct udp_node {
    uint64_t mask[UDP_SEGMENTS_MAX / 64];
    uint32_t next; /* buffer with the next node of this class */
};

struct udp_buffer {
    struct sockaddr_in6 peer;
    struct in6_addr local; /* where it was sent to, by a socket of every address; else :: */
    uint32_t offset, bytes, segment_bytes; /* payload in the buffer */
    uint16_t socket;
    uint16_t nodes; /* that still wait */
    struct udp_node node[WORKER_CLASSES];
};

struct udp_queue {
    uint32_t head, tail;
};

struct udp {
    struct listener at[CONFIG_ADDRESSES_MAX];
    uint32_t n;
    bool gro;
    bool stopped; /* draining and seen empty: what still comes is counted as STOPPING */
    uint64_t drain_until_ns;
    struct msghdr msg; /* the shape that multishot receives fill */
    struct io_uring_buf_ring *ring;
    uint32_t ring_entries;
    uint8_t *memory;
    size_t memory_bytes, stride;
    struct udp_buffer *buffer;
    uint32_t buffers, low_water;
    uint32_t *free; /* LIFO, so that warm buffers are used first */
    uint32_t free_n, published;
    struct udp_queue queue[WORKER_CLASSES];
};

/* A datagram on its way from where it came in to a block. */
struct datagram {
    struct slice bytes;
    const struct sockaddr_in6 *peer; /* from a socket: whose it is ... */
    const struct in6_addr *local;    /* ... and where it was sent to */
    const struct packet *packet;     /* from a ring: its headers */
    uint32_t socket, ifindex;
    bool decided; /* what the policy says of its event is done */
};

/* What the policies say of one source. */
struct source_verdict {
    struct in6_addr ip;
    uint8_t rule[POLICY_N]; /* enum source_rule */
};

struct afxdp;

struct rings {
    struct afxdp *at; /* the queues that are this worker's */
    uint32_t n;
    uint32_t turn[WORKER_CLASSES]; /* whose turn it is */
};

#define TAP_SAMPLES 64u

/* Samples of what the worker drops, for whoever looks: a ring of one writer and one reader. */
struct tap {
    _Atomic uint32_t mask; /* by enum datagram_drop */
    __u64 tat_ns;
    _Atomic uint32_t head, tail;
    struct drop_sample sample[TAP_SAMPLES];
};

enum connection_state {
    CONN_FREE,
    CONN_HELLO,  /* nothing but a Hello is taken */
    CONN_OPEN,   /* frames are taken */
    CONN_FINISH, /* no more reads; what is owed is written, then an Error if there is one */
    CONN_LINGER, /* our side is shut; waits for the client's end so that nothing is reset */
    CONN_DEAD,   /* waits for the kernel to give back its operations */
};

enum connection_pause { PAUSE_NONE, PAUSE_BLOCK, PAUSE_OUTPUT };

struct connection {
    int fd;
    uint32_t generation;
    uint8_t state; /* enum connection_state */
    uint8_t pause; /* enum connection_pause */
    uint8_t error; /* ErrorCode to be sent in CONN_FINISH */
    bool receiving, sending, ended /* the client's side */, failed_frame;
    uint32_t in_start, in_end; /* unread bytes in the region */
    uint32_t in_touched;       /* highest byte ever used since it was given back */
    uint32_t out_start, out_bytes, out_touched;
    struct tls *tls;                     /* NULL: plaintext */
    uint32_t cipher_start, cipher_bytes; /* over TLS: what is being sent, behind the output */
    uint32_t reserved;                   /* output that receipts to come may need */
    uint32_t requests;                   /* not answered yet */
    uint64_t active_ns;                  /* last whole frame or receipt */
    uint64_t frame_ns;                   /* 0, or since when a frame is begun */
    uint64_t output_ns;                  /* since when the client takes nothing */
    uint64_t linger_ns;                  /* CONN_LINGER: when to give up */
    uint32_t next, prev;                 /* in the free or the paused list */
};

struct tcp {
    struct listener at[CONFIG_ADDRESSES_MAX];
    uint32_t n;
    bool stopped;
    struct io_uring_buf_ring *ring;
    uint8_t *memory;
    struct connection *connection;
    uint32_t connections_max, connections, backlog;
    uint32_t free_head;
    uint32_t paused_head, paused_tail;
    uint8_t *in, *out;          /* regions, touched lazily */
    size_t in_bytes, out_bytes; /* of one connection */
    size_t cipher_at;           /* in the output's region, over TLS */
    uint8_t *plain;             /* over TLS: TCP_BUFFER_BYTES, for all connections in turn */
    uint32_t batch_events_max;
    uint32_t sweep_at;
    uint64_t sweep_ns;
    uint64_t accept_ns; /* not before, after descriptors ran out */
    char *tokens;       /* the file, one token a line */
    size_t tokens_bytes;
    uint32_t turn_events;
};

/* Scratch of ack.c: exceptions by request, and of one request by position. */
struct ack {
    uint16_t first[BLOCK_REQUESTS_MAX], next[BLOCK_EXCEPTIONS_MAX];
    struct block_exception by_position[BATCH_EVENTS_MAX];
    struct receipt_exception exception[BATCH_EVENTS_MAX];
    struct receipt_assigned assigned[BATCH_EVENTS_MAX];
};

#define HOLD_BYTES_MIN (1u << 20)

/* Receipts that wait for the other region: a ring of bytes, from head to tail. */
struct hold {
    uint8_t *ring;
    size_t bytes;
    uint64_t head, tail;
    uint64_t drain_ns; /* until then they may wait, once the worker is to end; 0: it is not */
};

struct snapshot_wait {
    pthread_mutex_t lock; /* callers among themselves; the worker never takes it */
    _Atomic bool wanted;
    sem_t done;
    struct worker_snapshot copy;
};

struct worker {
    struct worker_config wc;
    const struct config *config;
    struct cluster_link *link;
    struct io_uring ring;
    bool ring_open, started, wake_armed;
    pthread_t thread;
    sem_t begun;
    int begin_error;

    uint8_t cluster_id[16];
    uint64_t now_ns, now_unix_ns; /* of this turn */
    struct ledger ledger;
    struct stages stages;
    uint32_t turn_events;
    uint64_t share_ns; /* when a lower class goes first again, and which did last */
    uint32_t share_class;
    uint64_t class_ns[WORKER_CLASSES]; /* when something of it was last taken */
    bool datagrams_first;              /* TCP has left them no block */

    /* Blocks. */
    struct block *blocks;
    size_t blocks_bytes;
    uint32_t blocks_n, blocks_ready /* block_init()ed */, free_n;
    struct block *free_head;
    struct block **handed; /* FIFO of blocks that are not answered yet */
    bool *answered;        /* by block number: came back, waits for those before it */
    uint8_t *block_class;  /* by block number: the lowest class in it */
    uint8_t open_class;    /* the same of the open block */
    uint32_t class_at_cluster[WORKER_CLASSES]; /* blocks with the cluster, by that */
    uint64_t handed_head, handed_tail, handed_mask;
    uint32_t at_cluster;
    uint32_t block_bytes_max; /* of a payload */
    struct event run[EVENTS_RUN_MAX];
    uint32_t run_n, run_bytes;
    struct slice slices[BATCH_EVENTS_MAX];
    uint8_t scratch[RECEIPT_BYTES_MAX];
    struct ack ack;
    struct hold hold;
    struct calendars calendars;

    struct udp udp;
    struct rings rings;
    struct tcp tcp;
    struct tap tap;

    /* Control. */
    _Atomic(const struct admission *) admission_next;
    _Atomic(const struct admission *) admission_seen;
    _Atomic bool stop, drain, drained;
    bool draining;
    struct snapshot_wait snapshot;
    char fallback[160];
};

static inline uint64_t op_data(enum op op, uint32_t index) { return (uint64_t)op << 32 | index; }

/* worker.c */
struct io_uring_sqe *worker_sqe(struct worker *w); /* never NULL */
void worker_note(struct worker *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A socket bound to the i-th address. Returns the fd or a negative errno with the reason. */
int worker_bind(struct worker *w, unsigned i, int type, uint16_t port, char error[256]);
uint16_t worker_port_of(int fd);

/* admit.c: requests into blocks. */
enum admit { ADMIT_OK, ADMIT_WAIT /* no free block */, ADMIT_TOO_LARGE };

int blocks_open(struct worker *w, char error[256]);
void blocks_close(struct worker *w);
/* Is there a block that could take something now? */
bool blocks_ready(const struct worker *w);
/* Makes room for a request of n events of event_bytes bytes in the open block. */
enum admit admit_request(struct worker *w, uint32_t n, uint32_t event_bytes, bool answered);
/* After ADMIT_OK: runs slices[0..n) for the request, which may be NULL. */
void admit_events(struct worker *w, const struct slice *slices, uint32_t n,
                  const struct block_request *request);
/* After ADMIT_OK for one event that nobody waits for; it runs with the next ones. */
void admit_single(struct worker *w, struct slice event, bool decided);
void admit_flush(struct worker *w);
/* A request that is refused as a whole still has its turn among the receipts. */
void admit_refused(struct worker *w, const struct block_request *request, unsigned reason);
void blocks_turn_end(struct worker *w);
/* When the open block must be handed over, or UINT64_MAX. */
uint64_t blocks_deadline_ns(const struct worker *w);
/* Is the oldest block that was handed over back? */
bool blocks_answerable(const struct worker *w);
/* Takes back what the cluster has decided; answers and frees. Returns how many blocks. */
uint32_t blocks_collect(struct worker *w);

/* receive.c */
void receive_serve(struct worker *w);
/* Is there something that may be taken now? */
bool receive_waiting(const struct worker *w);
/* Does nothing wait, whether it may be taken or not? */
bool receive_empty(const struct worker *w);
/* May a class be taken now? Not while it would stand in a higher one's way at the log. */
bool receive_may(const struct worker *w, unsigned class);
void receive_count(struct worker *w, enum datagram_drop reason, uint32_t n);
void receive_drop(struct worker *w, enum datagram_drop reason, const struct datagram *d);
/* For a datagram that the program in the driver has not decided about: its class, or false when it
 * was dropped. */
bool receive_judge(struct worker *w, struct datagram *d, const struct source_verdict *source,
                   unsigned *ret_class);
void receive_source(const struct worker *w, const struct in6_addr *ip, struct source_verdict *ret);

/* tap.c */
void tap_sample(struct worker *w, enum datagram_drop reason, const struct datagram *d);

/* socket.c */
/* An IPv4 peer becomes a mapped address. */
void socket_peer_map(struct sockaddr_in6 *peer);
int udp_open(struct worker *w, char error[256]);
int udp_register(struct worker *w, char error[256]);
void udp_close(struct worker *w);
void udp_on_receive(struct worker *w, uint32_t at, const struct io_uring_cqe *cqe);
/* The first that waits in a class; udp_done() takes it away. Its bytes stay until the turn's end.
 */
bool udp_next(struct worker *w, unsigned class, struct datagram *ret);
void udp_done(struct worker *w, unsigned class);
void udp_shed(struct worker *w);
bool udp_waiting(const struct worker *w, unsigned class);
void udp_turn_end(struct worker *w);
void udp_count_kernel_drops(struct worker *w);
void udp_drain_step(struct worker *w);

/* afxdp.c: the same from the driver's rings. */
int afxdp_open(struct worker *w);
void afxdp_close(struct worker *w);
bool afxdp_next(struct worker *w, unsigned class, struct datagram *ret);
void afxdp_done(struct worker *w, unsigned class);
bool afxdp_waiting(const struct worker *w, unsigned class);
void afxdp_turn_end(struct worker *w);
void afxdp_arm(struct worker *w);
void afxdp_on_poll(struct worker *w, uint32_t index, int res);
/* Counts what the kernel has dropped since the last time; adds how many wait in the rings. */
void afxdp_count(struct worker *w, uint64_t ret_waiting[WORKER_CLASSES]);
void afxdp_stop(struct worker *w);

/* listen.c: listeners, deadlines. */
int stream_open(struct worker *w, char error[256]);
int stream_register(struct worker *w, char error[256]);
void stream_close(struct worker *w);
void stream_on_accept(struct worker *w, uint32_t at, const struct io_uring_cqe *cqe);
void stream_drain(struct worker *w);
void stream_turn_end(struct worker *w);
/* When a deadline has to be looked at, or UINT64_MAX. */
uint64_t stream_sweep_due_ns(const struct worker *w);

/* stream.c: frames. */
void stream_on_receive(struct worker *w, uint32_t slot, const struct io_uring_cqe *cqe);
void stream_on_send(struct worker *w, uint32_t slot, const struct io_uring_cqe *cqe);
/* Output or reserved output got less: goes on with what waited for that. */
void stream_output_freed(struct worker *w, struct connection *c);
/* Goes on with connections that wait for a block. */
void stream_resume(struct worker *w);
bool stream_waiting(const struct worker *w);
/* Bytes of the protocol, from a receive buffer or decrypted. */
void stream_bytes(struct worker *w, struct connection *c, const uint8_t *data, size_t bytes);
/* An Error frame that ends a connection. Returns its bytes. */
size_t stream_error_frame(unsigned code, uint8_t frame[ERROR_BYTES_MAX]);

/* connection.c: one connection's bytes in and out, and its end. */
void connection_start(struct worker *w, int fd, struct tls *tls);
/* Asks for the next bytes, if this connection takes any now. */
void connection_receive(struct worker *w, struct connection *c);
bool connection_has_room(const struct worker *w, const struct connection *c, size_t bytes);
/* Keeps room for the receipt of one request. */
void connection_reserve(struct connection *c, uint32_t bytes);
/* Gives it back; true when the connection still takes a receipt. */
bool connection_answered(struct connection *c, uint32_t bytes);
void connection_write(struct worker *w, struct connection *c, const uint8_t *data, size_t bytes);
/* So much of the output needs no more room. */
void connection_taken(struct worker *w, struct connection *c, uint32_t bytes);
/* Sends what waits, unless it is doing so. */
void connection_send(struct worker *w, struct connection *c);
/* Does something wait for the client to take it? */
static inline bool connection_owes(const struct connection *c)
{
    return c->out_bytes > 0 || c->cipher_bytes > 0;
}
/* After a send: false when that was the connection's end. */
bool connection_sent(struct worker *w, struct connection *c, int res);
void connection_pause(struct worker *w, struct connection *c, enum connection_pause why);
void connection_unpause(struct worker *w, struct connection *c);
/* No more frames; what is owed is written, then the Error if it is not 0. */
void connection_finish(struct worker *w, struct connection *c, unsigned error);
void connection_settle(struct worker *w, struct connection *c);
/* Ends it now. The slot is free when the kernel's operations have come back. */
void connection_kill(struct worker *w, struct connection *c);
void connection_trim(struct worker *w, struct connection *c);
uint32_t connection_slot(const struct worker *w, const struct connection *c);
uint8_t *connection_in(const struct worker *w, const struct connection *c);
uint8_t *connection_out(const struct worker *w, const struct connection *c);

/* secure.c: connections over TLS. */
void secure_received(struct worker *w, struct connection *c, const uint8_t *data, size_t bytes);
/* What to send next, encrypted; it stays until secure_sent(). Returns its bytes, or 0. */
uint32_t secure_output(struct worker *w, struct connection *c, const uint8_t **ret);
void secure_sent(struct connection *c, uint32_t bytes);

/* ack.c */
void ack_tally(struct worker *w, const struct block *b);
void ack_requests(struct worker *w, const struct block *b);
/* The encoded receipt of a request goes to who has asked; the room that was reserved is free. */
void ack_send(struct worker *w, const struct block_request *q, const uint8_t *receipt,
              size_t bytes);
/* In its place one that refuses all of it, whatever became of its events. */
void ack_refuse(struct worker *w, const struct block_request *q, unsigned reason);
/* What a receipt for n events may need, framed. */
static inline uint32_t ack_bytes_max(uint32_t n)
{
    return RECEIPT_BYTES_BASE + n * RECEIPT_BYTES_EVENT;
}

/* hold.c */
int hold_open(struct worker *w, char error[256]);
void hold_close(struct worker *w);
/* Has this receipt to wait until that index, of that epoch, is durable in both regions? */
bool hold_takes(const struct worker *w, const struct block_request *q, uint64_t index,
                uint64_t epoch);
void hold_add(struct worker *w, const struct block_request *q, uint64_t index, uint64_t epoch,
              const uint8_t *receipt, size_t bytes);
/* Sends what need not wait any more. */
void hold_turn(struct worker *w);
/* Is there any such? */
bool hold_due(const struct worker *w);
/* When the oldest is late, or UINT64_MAX. */
uint64_t hold_deadline_ns(const struct worker *w);
static inline bool hold_is_empty(const struct worker *w) { return w->hold.head == w->hold.tail; }

#endif
