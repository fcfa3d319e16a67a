/*
 * xdp_rig.h - the XDP program in the kernel, run by BPF_PROG_TEST_RUN on frames of a test.
 *
 * Needs root. As BPF_PROG_TEST_RUN does by default, frames come in on loopback, queue 0. After
 * xdp_rig_open() 192.0.2.0/24 and 2001:db8::/32 are allowed, frame.h's destinations are ours, port
 * FRAME_PORT, and the policy is that of fresh settings.
 */
#ifndef SLUICE_TESTS_XDP_RIG_H
#define SLUICE_TESTS_XDP_RIG_H

#include "bpf/ingress.skel.h"
#include "frames.h"

#include "bpf/policy.h"

struct xdp_rig {
    struct ingress *skel;
    struct xdp_control *control;
    struct policy_cells *cells;
    int fd; /* of the program */
    int cpus;
    int socket[XDP_CLASSES]; /* AF_XDP sockets, unbound, of queue 0; -1 */
};

/* 77 when the kernel or the rights are not there, with a reason on stdout; 0. */
int xdp_rig_open(struct xdp_rig *r);
void xdp_rig_close(struct xdp_rig *r);
/* The policy of fresh settings. */
void xdp_rig_policy(struct policy *p);
/* Into the generation that is in use. */
void xdp_rig_set_policy(struct xdp_rig *r, const struct policy *p, bool shadow);
/* "192.0.2.0/24"; rule 0 takes it out. */
void xdp_rig_rule(struct xdp_rig *r, const char *network, unsigned rule, bool shadow);
/* An AF_XDP socket in every class of queue 0, so that the program redirects. */
void xdp_rig_sockets(struct xdp_rig *r);
/* Returns the program's verdict (XDP_PASS, ...). */
int xdp_rig_run(struct xdp_rig *r, const void *frame, size_t bytes);
/* Nanoseconds a run over `repeat` runs. */
double xdp_rig_time(struct xdp_rig *r, int fd, const void *frame, size_t bytes, unsigned repeat);
/* Sums over all CPUs of the interface's bank in use. */
void xdp_rig_counters(struct xdp_rig *r, struct xdp_counters *ret);
void xdp_rig_clear(struct xdp_rig *r);

#endif
