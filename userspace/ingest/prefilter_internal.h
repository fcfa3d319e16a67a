/*
 * prefilter_internal.h - struct prefilter, for prefilter.c (maps) and attach.c (programs).
 */
#ifndef SLUICE_INGEST_PREFILTER_INTERNAL_H
#define SLUICE_INGEST_PREFILTER_INTERNAL_H

#include <pthread.h>

#include "ingest/prefilter.h"

struct ingress;
struct ring_buffer;
struct xdp_program;

/* What is in the tries of one slot (generation, shadow). */
struct slot_rules {
    uint32_t n;
    struct source_network at[ADMISSION_RULES_MAX];
};

struct attachment {
    struct ingress *program;   /* of this port; all share the maps of the first */
    struct xdp_program *multi; /* by the dispatcher */
    int link;                  /* alone; -1 */
};

struct prefilter {
    const struct config *config;
    uint32_t ports;
    struct prefilter_port port[XDP_INTERFACES_MAX];
    struct attachment at[XDP_INTERFACES_MAX];
    struct ingress *maps; /* the first program that was loaded; NULL: none */
    struct xdp_control *control;
    struct policy_cells *cells;
    uint32_t sockets[XDP_INTERFACES_MAX]; /* that were added */
    struct ring_buffer *samples;
    void (*sample_each)(void *arg, const struct drop_sample *s);
    void *sample_arg;
    int cpus;
    struct xdp_cpu *scratch; /* cpus of them */

    pthread_mutex_t lock;
    struct slot_rules slot[4];
    struct xdp_counters total[XDP_INTERFACES_MAX];
};

/* attach.c: loads the program for a port and attaches it in the best mode that the config allows.
 * Leaves port->mode at PREFILTER_SOCKET, with a note, when there is none. */
void attach_port(struct prefilter *f, uint32_t port);
void detach_port(struct prefilter *f, uint32_t port);
/* Only out of its dispatcher, where it is in one. */
int leave_dispatcher(const struct prefilter *f, uint32_t port);
void attach_silence(void); /* of both libraries: the notes say it in a sentence */
/* Is our program still there? Asks for no privileges. */
bool attach_holds(const struct prefilter *f, uint32_t port);

#endif
