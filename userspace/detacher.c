/*
 * detacher.c - see detacher.h.
 */
#include "detacher.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "privileges.h"

#define FD          3 /* of the socket, in the process */
#define WAIT_MS_MAX 30000

/* What the daemon has open must end with the daemon: the lock on its data, links, sockets. */
static _Noreturn void child(int fd, int (*detach)(void *), void *arg)
{
    const struct privileges keep = { .detach = true };
    char names[128], asked;
    ssize_t n;
    int rc;

    (void)prctl(PR_SET_NAME, "sluice-detacher");
    if ((fd != FD && dup2(fd, FD) < 0) || close_range(FD + 1, ~0u, 0) < 0)
        _exit(1);
    if (privileges_drop(&keep, names, sizeof names) < 0)
        _exit(1);
    do {
        n = read(FD, &asked, 1);
    } while (n < 0 && errno == EINTR);
    if (n == 1) {
        rc = detach(arg);
        (void)send(FD, &rc, sizeof rc, MSG_NOSIGNAL);
    }
    _exit(0);
}

int detacher_start(struct detacher *ret, int (*detach)(void *arg), void *arg)
{
    sigset_t all, before;
    pid_t process;
    int pair[2];

    assert(ret->process == 0);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    /* There it stays so: a signal to the whole group is the daemon's business. */
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    process = fork();
    if (process == 0)
        child(pair[1], detach, arg);
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(pair[1]);
    if (process < 0) {
        int e = -errno;

        close(pair[0]);
        return e;
    }
    *ret = (struct detacher){ .process = process, .fd = pair[0] };
    return 0;
}

int detacher_stop(struct detacher *d)
{
    struct pollfd p = { .fd = d->fd, .events = POLLIN };
    int rc = -ESRCH, n;

    if (d->process == 0)
        return 0;
    if (send(d->fd, "d", 1, MSG_NOSIGNAL) == 1) {
        do {
            n = poll(&p, 1, WAIT_MS_MAX);
        } while (n < 0 && errno == EINTR);
        if (n == 0)
            rc = -ETIMEDOUT;
        else if (recv(d->fd, &rc, sizeof rc, MSG_DONTWAIT) != sizeof rc)
            rc = -ESRCH;
    }
    close(d->fd);
    kill(d->process, SIGKILL);
    waitpid(d->process, NULL, 0);
    *d = (struct detacher){ 0 };
    return rc;
}
