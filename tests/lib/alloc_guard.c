/*
 * alloc_guard.c - malloc and its kin, defined here so that they come before the C library's.
 */
#include "alloc_guard.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <execinfo.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FRAMES_MAX 12

static _Atomic bool armed;
static _Atomic uint64_t calls;
static _Thread_local bool exempt;
static pid_t watched[ALLOC_GUARD_THREADS_MAX];
static unsigned watched_n;
static void *frame[FRAMES_MAX];
static int frames;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__clang__)

bool alloc_guard_works(void) { return false; }

#else

/* The C library's own, under their internal names. */
extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t n, size_t bytes);
extern void *__libc_realloc(void *p, size_t bytes);
extern void *__libc_memalign(size_t align, size_t bytes);

bool alloc_guard_works(void) { return true; }

static bool is_watched(void)
{
    pid_t self = gettid();

    for (unsigned i = 0; i < watched_n; i++) {
        if (watched[i] == self)
            return true;
    }
    return watched_n == 0;
}

static void count(void)
{
    if (!atomic_load_explicit(&armed, memory_order_relaxed) || exempt || !is_watched())
        return;
    if (atomic_fetch_add(&calls, 1) == 0)
        frames = backtrace(frame, FRAMES_MAX);
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

void *memalign(size_t align, size_t bytes);
void *memalign(size_t align, size_t bytes)
{
    count();
    return __libc_memalign(align, bytes);
}

void *aligned_alloc(size_t align, size_t bytes)
{
    count();
    return __libc_memalign(align, bytes);
}

int posix_memalign(void **ret, size_t align, size_t bytes)
{
    void *p;

    count();
    p = __libc_memalign(align, bytes);
    if (p == NULL)
        return ENOMEM;
    *ret = p;
    return 0;
}

#endif

void alloc_guard_watch(pid_t thread)
{
    assert(watched_n < ALLOC_GUARD_THREADS_MAX && !atomic_load(&armed));
    watched[watched_n++] = thread;
}

static bool is_named(const char *task, const char *name)
{
    char path[300], text[32] = "";
    FILE *f;

    snprintf(path, sizeof path, "/proc/self/task/%s/comm", task);
    f = fopen(path, "r");
    if (f == NULL)
        return false;
    if (fgets(text, sizeof text, f) != NULL)
        text[strcspn(text, "\n")] = '\0';
    fclose(f);
    return strcmp(text, name) == 0;
}

pid_t alloc_guard_thread(const char *name)
{
    DIR *dir = opendir("/proc/self/task");
    struct dirent *e;
    pid_t found = 0;
    unsigned n = 0;

    while (dir != NULL && (e = readdir(dir)) != NULL) {
        if (e->d_name[0] != '.' && is_named(e->d_name, name)) {
            found = (pid_t)atoi(e->d_name);
            n++;
        }
    }
    if (dir != NULL)
        closedir(dir);
    return n == 1 ? found : 0;
}

void alloc_guard_arm(void)
{
    void *warm[1];

    (void)backtrace(warm, 1); /* the first one loads a library, which allocates */
    exempt = true;
    frames = 0;
    atomic_store(&calls, 0);
    atomic_store(&armed, true);
}

uint64_t alloc_guard_disarm(void)
{
    atomic_store(&armed, false);
    watched_n = 0;
    return atomic_load(&calls);
}

void alloc_guard_print(void) { backtrace_symbols_fd(frame, frames, STDERR_FILENO); }
