/*
 * daemon.h - a real sluiced on loopback, in a directory and on a port of its own.
 *
 * The directory lies in ${SLUICE_BENCH_DIR:-/tmp}, the programs in ${SLUICE_BIN:-build/release}.
 * daemon_close() kills the process and removes the directory; it must run however the program ends
 * (daemon_close_at_exit()). Should the program be killed, the kernel kills the process. Several
 * that are one cluster: trio.h.
 *
 * Thread:  one.
 * Errors:  a sentence on stderr, and exit(1).
 */
#ifndef SLUICE_TESTS_DAEMON_H
#define SLUICE_TESTS_DAEMON_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/admin.pb.h"

struct daemon {
    pid_t pid; /* 0: not running */
    uint16_t port;
    int netns; /* -1: where this program is */
    const char *ingest;
    char more[1400]; /* further lines of its config */
    char dir[256];   /* of all */
    char data[280];  /* data.dir; the log is in log/ */
    char file[280];  /* config */
};

/* Makes the directory and starts the process; returns when it answers as leader. */
void daemon_open(struct daemon *d);
/* The same in a network namespace, with these lines below `ingest:` of its config. */
void daemon_open_in(struct daemon *d, int netns, uint16_t port, const char *ingest);
/* Only makes the directory; daemon_configure() comes next, then daemon_launch(). */
void daemon_make(struct daemon *d);
/* With these lines in the config besides. */
void daemon_configure(struct daemon *d, const char *more);
/* Starts it again on what it has. */
void daemon_start(struct daemon *d);
/* The same, but returns as soon as it answers, whatever it is by then. */
void daemon_launch(struct daemon *d);
void daemon_kill(struct daemon *d); /* SIGKILL, and waits */
void daemon_close(struct daemon *d);
/* Closes d when the program ends, by a signal too. */
void daemon_close_at_exit(struct daemon *d);

uint16_t daemon_port_free(void);
/* Runs a program of the build, the first of argv, and waits; it must succeed. */
void daemon_call(const char *const argv[]);

void daemon_status(const struct daemon *d, sluice_v1_StatusResponse *ret);
/* False when it does not answer. */
bool daemon_try_status(const struct daemon *d, sluice_v1_StatusResponse *ret);
/* Processor time of all its threads so far. */
uint64_t daemon_cpu_ns(const struct daemon *d);
/* All of its threads, and those that they start. */
void daemon_run_on(const struct daemon *d, const cpu_set_t *processors);
/* A line for each thread on stderr: processor time, and how often it slept. */
void daemon_print_threads(const struct daemon *d);

/* A connected TCP socket. */
int daemon_dial(const struct daemon *d);
/* -1: nobody listens. */
int daemon_try_dial(const struct daemon *d);

#endif
