/*
 * xdp.h - what the parts of `sluice xdp` share.
 *
 * xdp.c         the options, and which command is meant
 * xdp_status.c  `status`
 * xdp_top.c     `top`
 * xdp_policy.c  `policy get|set|promote|discard`
 * xdp_test.c    `policy test`
 */
#ifndef SLUICE_CLI_XDP_H
#define SLUICE_CLI_XDP_H

#include "cli/cli.h"
#include "cli/columns.h"

struct xdp_options {
    struct cli_options common;
    bool shadow;
    uint64_t interval_ms, count;           /* of top; count 0: for ever */
    const char *hex, *file, *event, *from; /* of policy test; NULL: not given */
    int args;
    char **arg; /* behind the command's words */
};

int xdp_status(const struct xdp_options *o);
int xdp_top(const struct xdp_options *o);
int xdp_policy_get(const struct xdp_options *o);
int xdp_policy_set(const struct xdp_options *o);
int xdp_policy_promote(const struct xdp_options *o);
int xdp_policy_discard(const struct xdp_options *o);
int xdp_policy_test(const struct xdp_options *o);

/* Asks for the state. Returns CLI_OK, or an exit code after saying why on stderr. */
int xdp_fetch(const struct xdp_options *o, bool sources, sluice_v1_XdpStatusResponse *ret);

#endif
