/*
 * pipeline_xdp.c - answers the admin server's questions about XDP, for a node without it: datagrams
 * come through the kernel's sockets, and nothing is dropped in the driver. Admin thread.
 */
#include <errno.h>
#include <stdio.h>

#include "pipeline_internal.h"

static void on_xdp_status(void *arg, bool sources, sluice_v1_XdpStatusResponse *r)
{
    snprintf(r->mode, sizeof r->mode, "socket");
    snprintf(r->note, sizeof r->note,
             "this node has no XDP: datagrams come through the kernel's sockets");
    r->balances = true; /* of nothing */
}

static int on_policy_test(void *arg, const sluice_v1_PolicyTestRequest *request,
                          sluice_v1_PolicyTestResponse *r, char error[ADMIN_ERROR_BYTES])
{
    snprintf(error, ADMIN_ERROR_BYTES, "not built yet");
    return -ENOSYS;
}

static int on_tap_start(void *arg, const sluice_v1_TapRequest *request,
                        char error[ADMIN_ERROR_BYTES])
{
    snprintf(error, ADMIN_ERROR_BYTES,
             "this node has no XDP, and what its sockets drop is not sampled");
    return -EOPNOTSUPP;
}

/* There is no tap to have samples, or to be stopped. */
static int on_tap_next(void *arg, sluice_v1_TapSample *r) { return 0; }
static void on_tap_stop(void *arg) {}

void pipeline_xdp_source(struct admin_source *ret)
{
    ret->xdp_status = on_xdp_status;
    ret->policy_test = on_policy_test;
    ret->tap_start = on_tap_start;
    ret->tap_next = on_tap_next;
    ret->tap_stop = on_tap_stop;
}
