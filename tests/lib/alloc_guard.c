/*
 * alloc_guard.c - malloc and its kin, defined here so that they come before the C library's.
 */
#include "alloc_guard.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

static _Atomic bool armed;
static _Atomic uint64_t calls;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__clang__)

bool alloc_guard_works(void) { return false; }
static _Thread_local bool exempt;

#else

static _Thread_local bool exempt;

/* The C library's own, under their internal names. */
extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t n, size_t bytes);
extern void *__libc_realloc(void *p, size_t bytes);

bool alloc_guard_works(void) { return true; }

static void count(void)
{
    if (atomic_load_explicit(&armed, memory_order_relaxed) && !exempt)
        atomic_fetch_add(&calls, 1);
}

void *malloc(size_t bytes)
{
    count();
    return __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes)
{
    count();
    return __libc_calloc(n, bytes);
}

void *realloc(void *p, size_t bytes)
{
    count();
    return __libc_realloc(p, bytes);
}

#endif

void alloc_guard_arm(void)
{
    exempt = true;
    atomic_store(&calls, 0);
    atomic_store(&armed, true);
}

uint64_t alloc_guard_disarm(void)
{
    atomic_store(&armed, false);
    return atomic_load(&calls);
}
