/*
 * alloc_guard.h - counts what is allocated by other threads while it is armed.
 *
 * Not in sanitizer builds, which have an allocator of their own: alloc_guard_works() is false then.
 */
#ifndef SLUICE_TESTS_ALLOC_GUARD_H
#define SLUICE_TESTS_ALLOC_GUARD_H

#include <stdbool.h>
#include <stdint.h>

bool alloc_guard_works(void);
/* Counts calls of malloc and its kin by all threads but the one that arms. */
void alloc_guard_arm(void);
/* Returns the calls counted. */
uint64_t alloc_guard_disarm(void);

#endif
