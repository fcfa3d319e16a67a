/*
 * ingest_rig.h - a worker on loopback with a fake cluster behind it, and what clients send.
 *
 * Conditions are waited for with a deadline (RIG_DEADLINE_S), never with a fixed sleep.
 */
#ifndef SLUICE_TESTS_INGEST_RIG_H
#define SLUICE_TESTS_INGEST_RIG_H

#include "base/tls.h"
#include "fake_cluster.h"
#include "ingest/worker.h"
#include "proto/event.pb.h"
#include "proto/wire.pb.h"

#define RIG_DEADLINE_S 20

struct rig {
    struct config config;
    struct admission admission; /* rig_set() before rig_open() */
    struct limits limits;
    struct fake_cluster cluster;
    struct worker *worker;
    struct tls_context *tls;     /* of the worker; NULL: plaintext */
    struct worker_snapshot snap; /* of the last rig_snapshot() */
    uint16_t udp_port, tcp_port;
};

/* Defaults for tests: 127.0.0.1 and ::1, port 0, few buffers. Change rig.config, then rig_open().
 */
void rig_init(struct rig *r);
void rig_set(struct rig *r, const char *key, const char *value);
void rig_open(struct rig *r);  /* sockets are bound */
void rig_start(struct rig *r); /* threads run */
/* Drains, checks that the ledger balances, closes. */
void rig_close(struct rig *r);
const struct ledger *rig_snapshot(struct rig *r);
/* The ledger equations hold, per type too. */
void rig_check_balance(const struct ledger *l);
/* True until the deadline that begins with the first call of a RIG_WAIT. */
bool rig_wait_more(uint64_t *deadline_ns);

/* Waits for a condition on the snapshot `l`; the test fails when the deadline passes. */
#define RIG_WAIT(rig, condition)                                                                   \
    do {                                                                                           \
        uint64_t deadline_ = 0;                                                                    \
        const struct ledger *l = rig_snapshot(rig);                                                \
        while (!(condition)) {                                                                     \
            if (!rig_wait_more(&deadline_)) {                                                      \
                rig_print(l);                                                                      \
                fail_msg("not within the deadline: %s", #condition);                               \
            }                                                                                      \
            l = rig_snapshot(rig);                                                                 \
        }                                                                                          \
    } while (0)

uint64_t rig_random(uint64_t *state);
void rig_print(const struct ledger *l);

/* A valid trade with this source number and id number; id 0 leaves the id out. Returns its bytes.
 */
size_t rig_event(uint8_t *buf, size_t cap, unsigned type, uint32_t source, uint64_t id);
/* A batch of n such events with ids id, id + 1, ...; step 0: no ids. */
size_t rig_batch(uint8_t *buf, size_t cap, unsigned type, uint32_t n, uint64_t id, uint64_t seq,
                 bool receipt);
/* Frames. */
size_t rig_frame(uint8_t *buf, unsigned body_tag, const uint8_t *body, size_t bytes);
size_t rig_hello(uint8_t *buf, uint32_t protocol, const char *token);
size_t rig_batch_frame(uint8_t *buf, size_t cap, uint64_t request, const uint8_t *batch,
                       size_t bytes);
size_t rig_ping(uint8_t *buf, uint64_t nonce);

int rig_udp(const struct rig *r, bool v6); /* connected sockets */
int rig_tcp(const struct rig *r, bool v6);
void rig_send(int fd, const void *data, size_t bytes);

/* The next datagram; the test fails at the deadline. */
size_t rig_answer(int fd, uint8_t *buf, size_t cap);

/* A received receipt, lists included. */
struct rig_receipt {
    sluice_v1_Receipt r;
    uint32_t exceptions, assigned;
    sluice_v1_Exception exception[1024];
    sluice_v1_AssignedId id[1024];
};
bool rig_receipt_decode(struct rig_receipt *ret, const uint8_t *data, size_t bytes);

/* The server's frames of one connection. */
struct rig_stream {
    int fd;
    struct tls *tls; /* NULL: plaintext */
    size_t bytes;
    uint8_t buf[1 << 20];
};
/* Over TLS, in blocking style; the test fails at the deadline. Returns tls_handshake()'s result. */
int rig_tls_handshake(struct rig_stream *s);
void rig_tls_send(struct rig_stream *s, const void *data, size_t bytes);
/* The next frame: its body's tag and bytes (until the next call); 0 at the end of the stream, -1
 * when it was reset. The test fails at the deadline. */
int rig_next(struct rig_stream *s, const uint8_t **ret, size_t *ret_bytes);

#endif
