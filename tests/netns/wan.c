/*
 * wan.c - a line between two network namespaces that takes its time: every packet arrives DELAY
 * later, in order, or not at all.
 *
 *   wan DEVICE NAMESPACE NAMESPACE     the paths of two namespaces (/proc/PID/fd/N)
 *
 * Makes a TUN device of that name in each, says "ready", and carries IP packets between them until
 * its standard input ends. There it takes, a line each, and answers each with one:
 *
 *   delay US      one way, from now on: "ok"
 *   loss N        of 1000 packets, each way: "ok"
 *   cut WAY       0: what the first sends is lost, 1: what the second sends, 2: both, 3: nothing
 *                 any more: "ok"
 *   stats         "stats BYTES PACKETS LOST BYTES PACKETS LOST": what the first has sent, then the
 *                 second
 *
 * What is under way takes at most QUEUE_BYTES each way; what does not fit is lost, as on any line.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

#include "base/clock.h"

#define QUEUE_BYTES (64u << 20)
#define PACKET_MAX  65536u
#define TURN        64 /* packets of one way before the other's turn */

struct packet {
    uint64_t due_ns;
    uint32_t bytes; /* 0: nothing, up to the ring's end */
    uint32_t zero;
};

/* What comes out of one device, on its way into the other. */
struct way {
    int from, to;
    bool cut;
    uint8_t *ring; /* QUEUE_BYTES, and room for one packet more */
    uint64_t head, tail;
    uint64_t bytes, packets, lost;
};

static uint64_t delay_ns, random_state = 88172645463325252ull;
static unsigned loss;

__attribute__((noreturn)) static void fail(const char *what)
{
    fprintf(stderr, "wan: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int device(const char *name, const char *namespace)
{
    struct ifreq r = { .ifr_flags = IFF_TUN | IFF_NO_PI };
    int ns = open(namespace, O_RDONLY | O_CLOEXEC), fd;

    if (ns < 0 || setns(ns, CLONE_NEWNET) < 0)
        fail(namespace);
    close(ns);
    fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        fail("/dev/net/tun");
    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    if (ioctl(fd, TUNSETIFF, &r) < 0)
        fail("TUNSETIFF");
    return fd;
}

static bool is_lost(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return loss > 0 && random_state % 1000 < loss;
}

static struct packet *at(const struct way *w, uint64_t place)
{
    return (struct packet *)(w->ring + place % QUEUE_BYTES);
}

/* Takes what has come. */
static void take(struct way *w)
{
    static uint8_t buf[PACKET_MAX];

    for (int i = 0; i < TURN; i++) {
        ssize_t n = read(w->from, buf, sizeof buf);
        size_t room = n < 0 ? 0 : (sizeof(struct packet) + (size_t)n + 15) & ~(size_t)15;
        struct packet *p;

        if (n < 0 && errno != EAGAIN && errno != EINTR)
            fail("read");
        if (n <= 0)
            return;
        w->bytes += (uint64_t)n;
        w->packets++;
        if (w->cut || is_lost() || w->tail + room - w->head > QUEUE_BYTES) {
            w->lost++;
            continue;
        }
        /* A packet may reach beyond the ring's end, where there is room for one. */
        p = at(w, w->tail);
        p->due_ns = clock_monotonic_ns() + delay_ns;
        p->bytes = (uint32_t)n;
        memcpy(p + 1, buf, (size_t)n);
        w->tail += room;
        if (w->tail % QUEUE_BYTES < room) /* it did: the next begins at the ring's begin */
            w->tail -= w->tail % QUEUE_BYTES;
    }
}

/* Gives what is due. Returns when the next is, or UINT64_MAX. */
static uint64_t give(struct way *w)
{
    while (w->head < w->tail) {
        const struct packet *p = at(w, w->head);
        size_t room = (sizeof *p + p->bytes + 15) & ~(size_t)15;

        if (clock_monotonic_ns() < p->due_ns)
            return p->due_ns;
        if (write(w->to, p + 1, p->bytes) < 0 && errno != EAGAIN && errno != EINTR && errno != EIO)
            fail("write");
        w->head += room;
        if (w->head % QUEUE_BYTES < room)
            w->head -= w->head % QUEUE_BYTES;
    }
    return UINT64_MAX;
}

static void command(struct way way[2], const char *line)
{
    unsigned n = 0;

    if (sscanf(line, "delay %u", &n) == 1) {
        delay_ns = n * NS_PER_US;
    } else if (sscanf(line, "loss %u", &n) == 1) {
        loss = n;
    } else if (sscanf(line, "cut %u", &n) == 1) {
        way[0].cut = n == 0 || n == 2;
        way[1].cut = n == 1 || n == 2;
    } else if (strncmp(line, "stats", 5) == 0) {
        printf("stats");
        for (int i = 0; i < 2; i++)
            printf(" %ju %ju %ju", (uintmax_t)way[i].bytes, (uintmax_t)way[i].packets,
                   (uintmax_t)way[i].lost);
        printf("\n");
        return;
    } else {
        printf("what is '%.40s'?\n", line);
        return;
    }
    printf("ok\n");
}

int main(int argc, char **argv)
{
    struct way way[2] = { { .from = -1 } };
    char line[128];

    if (argc != 4) {
        fprintf(stderr, "wan DEVICE NAMESPACE NAMESPACE\n");
        return 2;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < 2; i++) {
        way[i].from = device(argv[1], argv[2 + i]);
        way[i].ring = malloc(QUEUE_BYTES + PACKET_MAX + sizeof(struct packet));
        if (way[i].ring == NULL)
            fail("memory");
    }
    way[0].to = way[1].from;
    way[1].to = way[0].from;
    printf("ready\n");
    for (;;) {
        struct pollfd p[3] = { { way[0].from, POLLIN, 0 },
                               { way[1].from, POLLIN, 0 },
                               { 0, POLLIN, 0 } };
        uint64_t due = give(&way[0]), other = give(&way[1]), now = clock_monotonic_ns();
        struct timespec wait;

        due = other < due ? other : due;
        due = due == UINT64_MAX ? 3600 * NS_PER_S : due > now ? due - now : 0;
        wait = (struct timespec){ (time_t)(due / NS_PER_S), (long)(due % NS_PER_S) };
        if (ppoll(p, 3, &wait, NULL) < 0 && errno != EINTR)
            fail("poll");
        for (int i = 0; i < 2; i++)
            take(&way[i]);
        if (p[2].revents == 0)
            continue;
        if (fgets(line, sizeof line, stdin) == NULL)
            return 0;
        command(way, line);
    }
}
