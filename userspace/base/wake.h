/*
 * wake.h - wakes one sleeping thread by an eventfd, without a syscall while it is awake.
 *
 * The sleeper calls wake_prepare(), looks at its rings once more, and only then sleeps on the fd;
 * it calls wake_done() when it goes on. Whoever gave it work calls wake_up() afterwards. The two
 * full fences make sure that either the sleeper sees the work or the waker sees it asleep.
 */
#ifndef SLUICE_BASE_WAKE_H
#define SLUICE_BASE_WAKE_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct wake {
    _Alignas(64) _Atomic bool asleep;
    int fd; /* -1 until wake_open() */
};

/* Returns 0 or a negative errno. */
static inline int wake_open(struct wake *w)
{
    atomic_store(&w->asleep, false);
    w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return w->fd < 0 ? -errno : 0;
}

static inline void wake_close(struct wake *w)
{
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
}

static inline void wake_prepare(struct wake *w)
{
    atomic_store_explicit(&w->asleep, true, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
}

static inline void wake_done(struct wake *w)
{
    atomic_store_explicit(&w->asleep, false, memory_order_relaxed);
}

/* Clears what a wake_up() left in the fd, so that polling it sleeps again. */
static inline void wake_drain(struct wake *w)
{
    uint64_t n;

    while (read(w->fd, &n, sizeof n) == (ssize_t)sizeof n) {
    }
}

/* Any thread. */
static inline void wake_up(struct wake *w)
{
    uint64_t one = 1;

    atomic_thread_fence(memory_order_seq_cst);
    if (!atomic_load_explicit(&w->asleep, memory_order_relaxed))
        return;
    if (!atomic_exchange_explicit(&w->asleep, false, memory_order_acq_rel))
        return;
    /* Only a full counter can fail here, and then the fd is readable anyway. */
    if (write(w->fd, &one, sizeof one) < 0) {
    }
}

#endif
