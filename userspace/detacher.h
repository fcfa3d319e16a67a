/*
 * detacher.h - a process of its own that takes the program out of libxdp's dispatchers at the end.
 *
 * For that the kernel is asked for programs by their numbers, which takes CAP_SYS_ADMIN: the daemon
 * is not to keep that, as it listens to the network. This process does nothing but wait for one
 * byte. When the daemon ends without asking, it ends too, and the program stays.
 *
 * Thread:  main, before any other is started (fork()), and after all others have ended.
 * Memory:  a copy of the daemon's as it is at the start; no file of it stays open.
 */
#ifndef SLUICE_DETACHER_H
#define SLUICE_DETACHER_H

#include <sys/types.h>

struct detacher {
    pid_t process; /* 0: none */
    int fd;
};

/* detach() is called in that process, with nothing but struct privileges' `detach`; 0 or a negative
 * errno. Returns 0 or a negative errno. */
int detacher_start(struct detacher *ret, int (*detach)(void *arg), void *arg);
/* Has it done, and the process is gone. Returns what detach() returned, or a negative errno. Safe
 * when none was started. */
int detacher_stop(struct detacher *d);

#endif
