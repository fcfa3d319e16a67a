/*
 * alloc_guard.h - counts what is allocated by other threads while it is armed.
 *
 * Not in sanitizer builds, which have an allocator of their own: alloc_guard_works() is false then.
 */
#ifndef SLUICE_TESTS_ALLOC_GUARD_H
#define SLUICE_TESTS_ALLOC_GUARD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define ALLOC_GUARD_THREADS_MAX 8u

bool alloc_guard_works(void);
/* Counts calls of malloc and its kin by all threads but the one that arms; after
 * alloc_guard_watch(), by the watched threads alone. */
void alloc_guard_arm(void);
/* Returns the calls counted, and forgets the watched threads. */
uint64_t alloc_guard_disarm(void);
/* On stderr: where the first call came from. */
void alloc_guard_print(void);

/* Adds a thread of this process to the watched ones; at most ALLOC_GUARD_THREADS_MAX. */
void alloc_guard_watch(pid_t thread);
/* The only thread of this process that has this name; 0: there is none, or more than one. */
pid_t alloc_guard_thread(const char *name);

#endif
