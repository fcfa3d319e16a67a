/*
 * pipeline_policy.c - the settings' way to those who act on them: the workers, and the program in
 * the driver.
 *
 * The cluster thread makes a version of each change; the workers see it in their next turn. The
 * keeper pushes it into the driver, because that waits for packets on their way. A version is freed
 * when every worker has seen a newer one and it is not being pushed.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/report.h"
#include "pipeline_internal.h"

/* With policy_lock. */
static void versions_free_unseen(struct pipeline *p)
{
    struct policy_version **v = &p->policy->older;

    for (unsigned i = 0; i < p->workers; i++) {
        if (p->worker[i] == NULL || worker_admission_seen(p->worker[i]) != &p->policy->admission)
            return;
    }
    while (*v != NULL) {
        struct policy_version *gone = *v;

        if (gone == p->pushing) {
            v = &gone->older;
            continue;
        }
        *v = gone->older;
        free(gone);
    }
}

int policy_publish(struct pipeline *p, const struct settings *settings)
{
    struct policy_version *v = calloc(1, sizeof *v);

    if (v == NULL)
        return -1;
    admission_init(&v->admission, settings, &p->config->ingest.udp.allow);
    pthread_mutex_lock(&p->policy_lock);
    if (p->policy != NULL) {
        versions_free_unseen(p);
        v->number = p->policy->number + 1;
    }
    v->older = p->policy;
    p->policy = v;
    for (unsigned i = 0; i < p->workers; i++) {
        if (p->worker[i] != NULL)
            worker_set_admission(p->worker[i], &v->admission);
    }
    pthread_cond_broadcast(&p->keeper_wake);
    pthread_mutex_unlock(&p->policy_lock);
    return 0;
}

bool policy_pending(const struct pipeline *p)
{
    return p->prefilter != NULL && p->pushed != p->policy->number + 1;
}

void policy_push(struct pipeline *p)
{
    static struct report_limit limit;
    struct policy_version *v;
    int e;

    pthread_mutex_lock(&p->policy_lock);
    v = p->pushing = p->policy;
    pthread_mutex_unlock(&p->policy_lock);
    e = prefilter_push(p->prefilter, &v->admission);
    if (e < 0)
        report_every(&limit, 60 * NS_PER_S, REPORT_WARN, "policy_not_pushed",
                     "the policy in the driver stays the one before: %s", strerror(-e));
    pthread_mutex_lock(&p->policy_lock);
    p->pushing = NULL;
    /* One that cannot be pushed is not tried again; the next change is. */
    p->pushed = v->number + 1;
    p->push_error = e;
    pthread_cond_broadcast(&p->pushed_wake);
    pthread_mutex_unlock(&p->policy_lock);
}

int policy_wait(struct pipeline *p)
{
    uint64_t deadline = clock_monotonic_ns() + POLICY_PUSH_S_MAX * NS_PER_S;
    struct timespec until = { (time_t)(deadline / NS_PER_S), (long)(deadline % NS_PER_S) };
    int e = 0;

    pthread_mutex_lock(&p->policy_lock);
    while (policy_pending(p) && e == 0)
        e = pthread_cond_timedwait(&p->pushed_wake, &p->policy_lock, &until);
    e = e != 0 ? -e : p->push_error;
    pthread_mutex_unlock(&p->policy_lock);
    return e;
}

void policy_free(struct pipeline *p)
{
    while (p->policy != NULL) {
        struct policy_version *v = p->policy;

        p->policy = v->older;
        free(v);
    }
}
