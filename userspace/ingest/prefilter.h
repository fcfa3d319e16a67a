/*
 * prefilter.h - the program in the driver (bpf/), as the daemon sees it: on which interfaces it
 * runs, the policy that it follows, what it has counted.
 *
 * Opened while the process still has its privileges; everything afterwards is map access, for which
 * the kernel asks for none (Linux >= 6.1). What cannot be had is no error: an interface then stays
 * with the kernel's sockets, and its note says why.
 *
 *   attach.c     loads the program, and attaches it: by libxdp's dispatcher where the kernel has
 *                what that takes, else alone, by a link that ends with the process
 *   prefilter.c  policy, addresses, counters, samples
 *   afxdp.c      the AF_XDP sockets that it sends datagrams to
 *
 * Thread:  prefilter_open() to prefilter_go() and prefilter_close() main; prefilter_push(),
 *          _refresh() and _count() any, one at a time (a lock); the sampling functions the admin
 *          thread. The program itself runs beside all of them.
 * Memory:  allocated in prefilter_open(); maps are the kernel's.
 * Limits:  XDP_INTERFACES_MAX, XDP_QUEUES_MAX, XDP_ADDRESSES_MAX; ingest.sources_max.
 */
#ifndef SLUICE_INGEST_PREFILTER_H
#define SLUICE_INGEST_PREFILTER_H

#include "base/config.h"
#include "base/ledger.h"
#include "bpf/shared.h"
#include "ingest/admission.h"

#define PREFILTER_NOTE_BYTES 200u

struct prefilter;

enum prefilter_mode { PREFILTER_SOCKET, PREFILTER_GENERIC, PREFILTER_NATIVE };

/* One of ingest.xdp.interfaces. */
struct prefilter_port {
    char name[CONFIG_INTERFACE_BYTES];
    uint32_t ifindex;    /* 0: it was not there */
    uint32_t program_id; /* of our program there */
    uint32_t mtu;
    uint32_t queues;       /* receive queues, at most XDP_QUEUES_MAX */
    uint32_t frame_bytes;  /* a frame of its UMEMs */
    bool virtual_device;   /* senders on this machine may leave checksums unfinished, and hand over
                            * joined datagrams */
    bool dispatcher;       /* attached beside others' programs */
    bool zero_copy;        /* of the last socket that was opened */
    bool rings;            /* it has AF_XDP sockets in all queues */
    _Atomic bool attached; /* as of the last prefilter_refresh() */
    enum prefilter_mode mode;
    char note[PREFILTER_NOTE_BYTES]; /* why it is not better, or empty */
};

/* Loads and attaches, by ingest.xdp. Nothing is ours to the program before prefilter_go(). *ret is
 * NULL when no interface is named or the mode is `socket`. Returns 0 or -ENOMEM. */
int prefilter_open(struct prefilter **ret, const struct config *config);
/* Detaches; but out of a dispatcher only a process with its privileges comes. Safe on NULL. */
void prefilter_close(struct prefilter *f);

/* Is the program in a dispatcher anywhere? That has to be made anew to leave it, which takes
 * CAP_SYS_ADMIN and CAP_NET_ADMIN. */
bool prefilter_in_dispatcher(const struct prefilter *f);
/* Leaves them all; the prefilter's own files may be closed. Returns 0 or a negative errno. */
int prefilter_leave_dispatchers(const struct prefilter *f);

uint32_t prefilter_ports(const struct prefilter *f);
struct prefilter_port *prefilter_port(struct prefilter *f, uint32_t port);
/* Adds to why a port is not better. */
__attribute__((format(printf, 2, 3))) void prefilter_note(struct prefilter_port *port,
                                                          const char *format, ...);

/* The program's cells for sampling and rates; NULL when it runs nowhere. */
struct policy_cells *prefilter_cells(struct prefilter *f);

/* The AF_XDP socket of (port, queue, class). 0 or a negative errno. */
int prefilter_add_socket(struct prefilter *f, uint32_t port, uint32_t queue, uint32_t class,
                         int fd);

/* From now on datagrams to this UDP port are the program's, and those of ports with rings go there.
 * prefilter_stop() hands all back to the kernel, and waits until no packet is on the other way. */
void prefilter_go(struct prefilter *f, uint16_t udp_port);
void prefilter_stop(struct prefilter *f);

/* Puts a policy in force: every packet sees all of the old or all of the new one. Returns 0, or a
 * negative errno; then the old one stays. */
int prefilter_push(struct prefilter *f, const struct admission *a);

/* Once a second or so: addresses, MAC addresses, and whether the program is still there. */
void prefilter_refresh(struct prefilter *f);

/* Everything since prefilter_open(), exactly: a moment between two packets. By port. */
void prefilter_count(struct prefilter *f, struct xdp_counters ret[XDP_INTERFACES_MAX]);

/* Adds what was counted to a ledger: the program's terms, and its drops to the datagrams'. */
void prefilter_ledger(const struct xdp_counters *c, struct ledger *l);

/* The sources that rates are kept for, most datagrams first. Returns how many. */
struct prefilter_source {
    struct in6_addr ip;
    uint64_t taken, dropped;
};
size_t prefilter_sources(struct prefilter *f, struct prefilter_source *ret, size_t max);

/* Samples of drops: which reasons (bits of enum drop_reason). */
void prefilter_sample(struct prefilter *f, uint32_t reasons);
/* Calls each() for those that are there: SAMPLE_INTERVAL_NS bounds them. */
void prefilter_samples(struct prefilter *f, void (*each)(void *arg, const struct drop_sample *s),
                       void *arg);

/* Which drop of the ledger a reason is. */
enum datagram_drop prefilter_drop(enum drop_reason reason);
const char *prefilter_mode_name(enum prefilter_mode mode);

#endif
