/*
 * peer.c - see peer.h.
 */
#include "tests/lib/peer.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

#define RSYSLOGD    "/usr/sbin/rsyslogd"
#define START_S_MAX 10u

__attribute__((noreturn)) static void die(const char *what)
{
    fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* --- xdp-filter --------------------------------------------------------------------------------
 */

/* Its maps are pinned in a bpffs that only it sees. */
bool peer_xdp_filter_open(const struct veth *v, uint16_t source_port)
{
    if (access("/usr/sbin/xdp-filter", X_OK) < 0)
        return false;
    return veth_run(v->daemon,
                    "exec unshare -m sh -c '{ mount -t bpf bpf /sys/fs/bpf && "
                    "LIBXDP_SKIP_DISPATCHER=1 xdp-filter load -m native -p allow -f udp d0 && "
                    "xdp-filter port -p udp -m src %u; } >/dev/null 2>&1'",
                    source_port) == 0;
}

int peer_xdp_filter_program(const struct veth *v)
{
    int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), rc;
    uint32_t id = 0;

    veth_enter(v->daemon);
    rc = bpf_xdp_query_id((int)v->daemon_ifindex, 0, &id);
    veth_enter(home);
    close(home);
    return rc == 0 && id != 0 ? bpf_prog_get_fd_by_id(id) : -1;
}

void peer_xdp_filter_close(const struct veth *v)
{
    (void)veth_run(v->daemon, "ip link set dev d0 xdp off");
}

/* --- rsyslog -----------------------------------------------------------------------------------
 */

static void write_config(const struct peer_rsyslog *r, const char *path, uint16_t port)
{
    FILE *f = fopen(path, "w");

    if (!f)
        die(path);
    fprintf(f,
            "global(workDirectory=\"%s\")\n"
            "module(load=\"imudp\" threads=\"1\" batchSize=\"128\" timeRequery=\"8\")\n"
            "template(name=\"whole\" type=\"string\" string=\"%%rawmsg%%\\n\")\n"
            "ruleset(name=\"in\" queue.type=\"FixedArray\" queue.size=\"500000\"\n"
            "        queue.dequeueBatchSize=\"4096\" queue.workerThreads=\"1\") {\n"
            "  action(type=\"omfile\" file=\"%s\" template=\"whole\" ioBufferSize=\"256k\"\n"
            "         asyncWriting=\"off\")\n"
            "}\n"
            "input(type=\"imudp\" port=\"%u\" ruleset=\"in\" rcvbufSize=\"8m\")\n",
            r->dir, r->file, port);
    if (fclose(f) != 0)
        die(path);
}

static bool listens(const struct veth *v, uint16_t port)
{
    return veth_run(v->daemon, "grep -q ':%04X ' /proc/net/udp", port) == 0;
}

bool peer_rsyslog_open(struct peer_rsyslog *r, const struct veth *v, const char *dir, uint16_t port)
{
    uint64_t until = clock_monotonic_ns() + START_S_MAX * NS_PER_S;
    char config[320], pid[320];

    memset(r, 0, sizeof *r);
    if (access(RSYSLOGD, X_OK) < 0)
        return false;
    snprintf(r->dir, sizeof r->dir, "%s/rsyslog-XXXXXX", dir);
    if (mkdtemp(r->dir) == NULL)
        die(r->dir);
    snprintf(r->file, sizeof r->file, "%s/lines", r->dir);
    snprintf(config, sizeof config, "%s/conf", r->dir);
    snprintf(pid, sizeof pid, "%s/pid", r->dir);
    write_config(r, config, port);
    r->pid = fork();
    if (r->pid < 0)
        die("fork");
    if (r->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        veth_enter(v->daemon);
        execl(RSYSLOGD, RSYSLOGD, "-n", "-f", config, "-i", pid, (char *)NULL);
        _exit(127);
    }
    while (!listens(v, port)) {
        if (waitpid(r->pid, NULL, WNOHANG) == r->pid || clock_monotonic_ns() > until) {
            fputs("peer: rsyslogd did not start\n", stderr);
            exit(1);
        }
        poll(NULL, 0, 10);
    }
    return true;
}

uint64_t peer_rsyslog_lines(const struct peer_rsyslog *r)
{
    static char buf[1 << 20];
    int fd = open(r->file, O_RDONLY | O_CLOEXEC);
    uint64_t lines = 0;
    ssize_t n;

    if (fd < 0)
        return 0;
    while ((n = read(fd, buf, sizeof buf)) > 0) {
        for (const char *p = buf; (p = memchr(p, '\n', (size_t)(buf + n - p))) != NULL; p++)
            lines++;
    }
    close(fd);
    return lines;
}

void peer_rsyslog_close(struct peer_rsyslog *r)
{
    char path[320];

    if (r->pid > 0) {
        kill(r->pid, SIGKILL);
        waitpid(r->pid, NULL, 0);
    }
    r->pid = 0;
    if (r->dir[0] != '\0') {
        snprintf(path, sizeof path, "%s/conf", r->dir);
        unlink(path);
        snprintf(path, sizeof path, "%s/pid", r->dir);
        unlink(path);
        unlink(r->file);
        rmdir(r->dir);
    }
    r->dir[0] = '\0';
}
