/*
 * veth.h - two network namespaces with a veth pair between them: a sender's and a daemon's.
 *
 * The namespaces have no names: with the last process in them they are gone, however it ended, and
 * with them the interfaces. The sender has s0, 10.99.0.1; the daemon d0, 10.99.0.2; each knows the
 * other's address, and d0 takes frames as a driver with NAPI does. Needs root, ip and ethtool.
 *
 * Thread:  veth_open() main; a thread enters for itself.
 * Errors:  a sentence on stderr, and exit(1).
 */
#ifndef SLUICE_TESTS_VETH_H
#define SLUICE_TESTS_VETH_H

#include <stdbool.h>
#include <stdint.h>

#define VETH_SENDER_IP "10.99.0.1"
#define VETH_DAEMON_IP "10.99.0.2"

struct veth {
    int home, sender, daemon; /* fds of namespaces */
    uint32_t sender_ifindex, daemon_ifindex;
    uint8_t daemon_mac[6];
};

void veth_open(struct veth *n);
void veth_close(struct veth *n);
/* The calling thread and what it starts are in that namespace from now on. */
void veth_enter(int netns);
/* Runs a command of the shell there. Returns its exit code. */
__attribute__((format(printf, 2, 3))) int veth_run(int netns, const char *format, ...);

#endif
