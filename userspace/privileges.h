/*
 * privileges.h - what the process may do once its sockets are bound and its program is attached.
 *
 * Thread:  a process's only one: those that it starts later inherit what is left.
 */
#ifndef SLUICE_PRIVILEGES_H
#define SLUICE_PRIVILEGES_H

#include <stdbool.h>
#include <stddef.h>

/* Why a capability is kept; everything else goes, from all sets. */
struct privileges {
    bool detach; /* CAP_SYS_ADMIN (which stands for CAP_BPF and CAP_PERFMON, too), CAP_NET_ADMIN:
                  * libxdp's dispatcher is made anew at the end; detacher.h */
    bool files;  /* CAP_DAC_OVERRIDE, CAP_FOWNER: for a directory, privileges_opens() */
};

/* Does the directory ask for some: is it another user's, or behind one that is closed to us? False
 * when it is not there. */
bool privileges_opens(const char *directory);

/* Also sets no_new_privs. Returns 0 or a negative errno. ret_kept: names, "" for none. */
int privileges_drop(const struct privileges *keep, char *ret_kept, size_t bytes);

#endif
