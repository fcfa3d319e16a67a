/*
 * fake_cluster.c - see fake_cluster.h.
 */
#include "fake_cluster.h"

#include <poll.h>
#include <string.h>

#include "proto/wire.pb.h"

int fake_cluster_open(struct fake_cluster *f)
{
    int rc;

    memset(f, 0, sizeof *f);
    f->wake.fd = f->link.wake.fd = -1;
    rc = ring_init(&f->link.submit, 4096);
    if (rc == 0)
        rc = ring_init(&f->link.answer, 4096);
    if (rc == 0)
        rc = wake_open(&f->wake);
    if (rc == 0)
        rc = wake_open(&f->link.wake);
    return rc;
}

void fake_cluster_wake(void *arg)
{
    struct fake_cluster *f = arg;

    wake_up(&f->wake);
}

void fake_cluster_verdict(struct block *b, uint32_t i, enum verdict verdict, uint64_t first_index,
                          uint16_t first_slot)
{
    assert(i < b->events);
    b->verdict[i] = (uint8_t)verdict;
    if (verdict == VERDICT_COMMITTED || verdict == VERDICT_REFUSED ||
        b->request_of[i] == REQUEST_NONE)
        return;
    assert(b->exceptions < BLOCK_EXCEPTIONS_MAX);
    b->exception[b->exceptions++] = (struct block_exception){
        .request = b->request_of[i],
        .position = b->position[i],
        .first_index = first_index,
        .first_slot = first_slot,
        .reason = verdict == VERDICT_DUPLICATE ? sluice_v1_Reason_DUPLICATE
                                               : sluice_v1_Reason_ID_CONFLICT,
    };
}

static void give_back(struct fake_cluster *f, struct block *b)
{
    bool changed = false;

    if (f->decide)
        f->decide(f->arg, b);
    for (uint32_t i = 0; i < b->events; i++)
        changed |= b->verdict[i] != VERDICT_COMMITTED;
    if (changed)
        block_seal(b, 1, 1);
    b->term = FAKE_TERM;
    if (b->accepted > 0)
        b->index = ++f->index;
    if (f->seen)
        f->seen(f->arg, b);
    atomic_fetch_add(&f->events, b->events);
    atomic_fetch_add(&f->blocks, 1);
    if (b->events > atomic_load(&f->events_max))
        atomic_store(&f->events_max, b->events);
    if (!ring_push(&f->link.answer, b))
        assert(!"the ring holds all blocks");
    wake_up(&f->link.wake);
}

static void *run(void *arg)
{
    struct fake_cluster *f = arg;
    struct block *b;

    for (;;) {
        bool stop = atomic_load(&f->stop);

        while ((b = ring_pop(&f->link.submit))) {
            assert(f->pending_n < 4096);
            f->pending[f->pending_n++] = b;
        }
        atomic_store(&f->held, f->pending_n);
        if (stop || !atomic_load(&f->hold)) {
            for (uint32_t i = 0; i < f->pending_n; i++)
                give_back(f, f->pending[i]);
            f->pending_n = 0;
            atomic_store(&f->held, 0);
        }
        if (stop && ring_empty(&f->link.submit))
            return NULL;
        wake_prepare(&f->wake);
        if (ring_empty(&f->link.submit) && !atomic_load(&f->stop) &&
            (f->pending_n == 0 || atomic_load(&f->hold))) {
            struct pollfd p = { .fd = f->wake.fd, .events = POLLIN };

            (void)poll(&p, 1, -1);
        }
        wake_done(&f->wake);
        wake_drain(&f->wake);
    }
}

int fake_cluster_start(struct fake_cluster *f)
{
    int rc = -pthread_create(&f->thread, NULL, run, f);

    f->started = rc == 0;
    return rc;
}

void fake_cluster_hold(struct fake_cluster *f, bool hold)
{
    atomic_store(&f->hold, hold);
    wake_up(&f->wake);
}

void fake_cluster_region(struct fake_cluster *f, uint64_t index, bool reached)
{
    atomic_store(&f->link.region_reached, reached);
    atomic_store(&f->link.region_epoch, FAKE_EPOCH);
    atomic_store(&f->link.region_index, index);
    if (atomic_load(&f->link.holds))
        wake_up(&f->link.wake);
}

void fake_cluster_stop(struct fake_cluster *f)
{
    if (!f->started)
        return;
    atomic_store(&f->stop, true);
    wake_up(&f->wake);
    pthread_join(f->thread, NULL);
    f->started = false;
}

void fake_cluster_close(struct fake_cluster *f)
{
    fake_cluster_stop(f);
    ring_fini(&f->link.submit);
    ring_fini(&f->link.answer);
    wake_close(&f->wake);
    wake_close(&f->link.wake);
}
