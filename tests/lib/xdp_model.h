/*
 * xdp_model.h - what the XDP program must do with a frame, worked out in user space by the same
 * headers (packet_parse(), walk_datagram(), policy_datagram()), and a check of one against the
 * other: the verdict, and every counter after every frame.
 *
 * The model does not know time: rates and samples of drops are not for it, sampling is.
 * Memory: a frame is copied to its exact size, so that a sanitizer sees a read past its end.
 */
#ifndef SLUICE_TESTS_XDP_MODEL_H
#define SLUICE_TESTS_XDP_MODEL_H

#include "xdp_rig.h"

#define XDP_FRAME_MAX   3400u /* that BPF_PROG_TEST_RUN gives to a program in one piece */
#define MODEL_RULES_MAX 32u

struct model_rule {
    uint8_t ip[16];
    unsigned bits, rule;
    bool v6, shadow;
};

struct xdp_model {
    struct xdp_rig *rig;
    struct policy policy[2]; /* active, shadow */
    struct policy_cells cells;
    struct xdp_counters count; /* as they must be now */
    struct model_rule rules[MODEL_RULES_MAX];
    unsigned rules_n;
    enum packet_kind kind; /* of the last frame */
    struct walk walk;      /* the same, if it was UDP and got so far */
    unsigned reason;
};

/* Of a rig that has just been opened. */
void xdp_model_init(struct xdp_model *m, struct xdp_rig *rig);
/* To the rig and to the model. */
void xdp_model_policy(struct xdp_model *m, const struct policy *p, bool shadow);
void xdp_model_rule(struct xdp_model *m, const char *network, unsigned rule, bool shadow);
/* The verdict that is due; moves m->count. */
int xdp_model_verdict(struct xdp_model *m, const void *frame, size_t bytes);
/* Runs the frame through both and fails where they differ or the account does not balance. Returns
 * the verdict. */
int xdp_model_check(struct xdp_model *m, const void *frame, size_t bytes);

/* arrived = redirected + passed + dropped, and the same by type. */
bool xdp_counters_balance(const struct xdp_counters *c);

#endif
