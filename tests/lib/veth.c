/*
 * veth.c - see veth.h.
 */
#include "tests/lib/veth.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const uint8_t sender_mac[6] = { 2, 0, 0, 0, 0, 1 }, daemon_mac[6] = { 2, 0, 0, 0, 0, 2 };

__attribute__((noreturn)) static void die(const char *what)
{
    fprintf(stderr, "network namespaces: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int current(void)
{
    int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        die("/proc/thread-self/ns/net");
    return fd;
}

static int fresh(void)
{
    if (unshare(CLONE_NEWNET) < 0)
        die("unshare");
    return current();
}

void veth_enter(int netns)
{
    if (setns(netns, CLONE_NEWNET) < 0)
        die("setns");
}

int veth_run(int netns, const char *format, ...)
{
    char command[1024];
    int home = current(), status;
    va_list a;

    va_start(a, format);
    vsnprintf(command, sizeof command, format, a);
    va_end(a);
    veth_enter(netns);
    status = system(command);
    veth_enter(home);
    close(home);
    return status >= 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void must(int netns, const char *command)
{
    if (veth_run(netns, "%s", command) != 0) {
        fprintf(stderr, "network namespaces: this failed: %s\n", command);
        exit(1);
    }
}

static uint32_t index_of(int netns, int home, const char *name)
{
    uint32_t index;

    veth_enter(netns);
    index = if_nametoindex(name);
    veth_enter(home);
    if (index == 0)
        die(name);
    return index;
}

static const char *mac_text(const uint8_t mac[6])
{
    static char text[2][18];
    static unsigned turn;
    char *t = text[turn++ % 2];

    snprintf(t, sizeof text[0], "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
             mac[4], mac[5]);
    return t;
}

void veth_open(struct veth *n)
{
    char command[512];

    n->home = current();
    n->daemon = fresh();
    n->sender = fresh();
    memcpy(n->daemon_mac, daemon_mac, sizeof daemon_mac);
    /* ip(8) finds the other namespace by this process's descriptor. */
    snprintf(command, sizeof command,
             "ip link add s0 address %s type veth peer name d0 address %s netns /proc/%d/fd/%d",
             mac_text(sender_mac), mac_text(daemon_mac), (int)getpid(), n->daemon);
    must(n->sender, command);
    veth_enter(n->home);
    must(n->sender, "ip link set lo up && ip link set s0 up && "
                    "ip address add " VETH_SENDER_IP "/24 dev s0");
    must(n->daemon, "ip link set lo up && ip link set d0 up && "
                    "ip address add " VETH_DAEMON_IP "/24 dev d0 && ethtool -K d0 gro on");
    snprintf(command, sizeof command, "ip neighbour replace %s lladdr %s dev s0 nud permanent",
             VETH_DAEMON_IP, mac_text(daemon_mac));
    must(n->sender, command);
    snprintf(command, sizeof command, "ip neighbour replace %s lladdr %s dev d0 nud permanent",
             VETH_SENDER_IP, mac_text(sender_mac));
    must(n->daemon, command);
    n->sender_ifindex = index_of(n->sender, n->home, "s0");
    n->daemon_ifindex = index_of(n->daemon, n->home, "d0");
}

void veth_close(struct veth *n)
{
    close(n->sender);
    close(n->daemon);
    close(n->home);
}
