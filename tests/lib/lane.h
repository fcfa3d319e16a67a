/*
 * lane.h - producers for benches: connections that send batches of events over TCP, without TLS,
 * and hold the daemon to its receipts.
 *
 * A lane keeps a circle of frames, serialized beforehand, that all have the same size; only the
 * events' ids are written anew when a frame is sent for the first time. So the sender costs little
 * of the machine that it shares with what it measures. Every receipt must say that all of its batch
 * was accepted, in the order of the frames; anything else ends the bench.
 *
 * A lane that may reconnect dials another daemon when its own is gone, refuses what it sends or
 * says nothing, and sends again what was not answered, the same bytes. Then a duplicate counts as
 * accepted, for it is one that a node before had committed.
 *
 * Thread:  one for all lanes.
 * Errors:  a sentence on stderr, and exit(1).
 */
#ifndef SLUICE_TESTS_LANE_H
#define SLUICE_TESTS_LANE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/lib/daemon.h"

#define LANES_MAX       16u
#define LANE_WINDOW_MAX 8192u
#define LANE_IN_BYTES   65536u

struct lane_kind {
    uint32_t event_bytes; /* of each */
    uint32_t batch;       /* events in a frame */
    uint32_t window;      /* frames in flight at most */
    bool custom;          /* not trades, which have some 128 bytes, but SAMPLE_CUSTOM */
};

struct lane {
    struct lane_kind kind;
    const struct daemon *to; /* [tos] of them that it may be connected to */
    unsigned tos, at;
    bool reconnects;
    int fd; /* -1: not connected */
    uint8_t *frames;
    size_t frame_bytes;
    size_t id_at, event_stride; /* the first event's id in a frame; from one event to the next */
    uint64_t sent, answered, wanted; /* frames */
    uint64_t renewed;                /* frames that have been given ids: all below */
    size_t part;                     /* bytes of frame `sent` that are sent */
    uint64_t redial_ns, silent_ns;   /* not before; nothing was heard since */
    uint64_t *due_ns;                /* [window] */
    uint64_t connects;
    size_t in_bytes;
    uint8_t in[LANE_IN_BYTES];
};

/* Connected to to[at], which another daemon may take the place of if tos > 1. */
struct lane *lane_open(const struct lane_kind *kind, const struct daemon *to, unsigned tos,
                       unsigned at);
void lane_close(struct lane *l);

/* To another of its daemons, of a lane that may go there. */
void lane_move(struct lane *l, unsigned at);

/* Sends what the window and limit admit, or part of it. False when the socket is full. */
bool lane_send(struct lane *l, uint64_t limit);
/* What has come. latency_ns: NULL, or where the time since due goes, by frame. */
void lane_receive(struct lane *l, uint64_t *latency_ns);

/* One round of all: sends up to `wanted` of each, waits until something comes, timeout_ms at most,
 * and takes it. False, at once, when all that is wanted is answered. */
bool lanes_turn(struct lane *const lane[], unsigned lanes, int timeout_ms);
/* Until seconds have passed, then no more is wanted and all is awaited. Returns the events answered
 * in *ret_ns, from the first that is sent to the last receipt. */
uint64_t lanes_run(struct lane *const lane[], unsigned lanes, double seconds, uint64_t *ret_ns);

/* An open loop: `per_s` frames a second, each due at its time whatever the daemon does; ns[i] is
 * from when frame i was due to its receipt. What a full window holds back counts as late. */
void lane_pace(struct lane *l, uint64_t per_s, uint64_t frames, uint64_t *ns);

/* Sorts; the value below which `part` of n lie. */
double lane_quantile(uint64_t *ns, uint64_t n, double part);

#endif
