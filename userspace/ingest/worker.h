/*
 * worker.h - one worker: its sockets and connections, its pipeline, its blocks.
 *
 * A thread that owns an io_uring (SINGLE_ISSUER, DEFER_TASKRUN) and runs to completion: receive an
 * array of datagrams and frames, highest class first, run the stages over them, seal a block when
 * it is full, old enough, or when the cluster thread has nothing of this worker's in flight; take
 * back answered blocks, write receipts, free the blocks. After worker_open() it allocates nothing,
 * but for connections over TLS.
 *
 * worker.c is the loop; receive.c datagrams, from socket.c and afxdp.c; listen.c, connection.c,
 * secure.c (TLS) and stream.c TCP; admit.c requests into blocks; ack.c the answers. They share
 * worker_internal.h.
 */
#ifndef SLUICE_INGEST_WORKER_H
#define SLUICE_INGEST_WORKER_H

#include "base/config.h"
#include "base/ledger.h"
#include "cluster/cluster.h"
#include "ingest/admission.h"
#include "ingest/limits.h"
#include "ingest/prefilter.h"

struct worker;

struct worker_config {
    const struct config *config;
    uint32_t id;                     /* 0.. */
    struct cluster_link *link;       /* ring_init()ed and wake_open()ed by the caller */
    void (*wake_cluster)(void *arg); /* after a push to link->submit */
    void *wake_arg;
    struct limits *limits;       /* shared by all workers */
    struct prefilter *prefilter; /* NULL: only the kernel's sockets */
    struct tls_context *tls;     /* NULL: TCP is plaintext; borrowed until worker_close() */
};

/* Opens and binds the sockets (so that errors come before threads start), allocates everything. On
 * error a sentence says which address or limit. An admission must be given before worker_start().
 */
int worker_open(struct worker **ret, const struct worker_config *config, char error[256]);

/* Gives the worker new settings; it uses them from its next turn on and says so: the ones before
 * may be freed when worker_admission_seen() returns the new ones. Any one thread. */
void worker_set_admission(struct worker *w, const struct admission *admission);
const struct admission *worker_admission_seen(struct worker *w);

/* cluster_id: 16 bytes; hash_key: HASH_KEY_BYTES. Both are copied. */
int worker_start(struct worker *w, const uint8_t *cluster_id, const uint8_t *hash_key);

/* Stops taking: no more reads or accepts, what is decoded is sealed and handed over. Returns at
 * once. */
void worker_drain(struct worker *w);
/* True when everything handed over has come back and been answered and written out (or the client
 * did not read it within ingest.tcp.output_s_max). */
bool worker_drained(struct worker *w);
/* Ends the thread and closes. The cluster must have given back this worker's blocks, or have
 * stopped. Safe on NULL. */
void worker_close(struct worker *w);

/* A consistent copy, made by the worker between two turns. Waits for it. Any one thread. */
struct worker_snapshot {
    struct ledger ledger;
    uint32_t connections, blocks_free, blocks;
    uint16_t udp_port, tcp_port; /* what was bound, for port 0 */
    bool udp_gro;
    char fallback[160]; /* why something is slower than it could be, or empty */
};
void worker_snapshot(struct worker *w, struct worker_snapshot *ret);

/* Which drops are sampled (bits of enum datagram_drop), and the samples since the last call, to one
 * reader at a time. SAMPLE_INTERVAL_NS bounds them. */
void worker_sample(struct worker *w, uint32_t drops);
void worker_samples(struct worker *w, void (*each)(void *arg, const struct drop_sample *s),
                    void *arg);

#endif
