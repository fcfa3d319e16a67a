/*
 * pipeline_manifest.c - the loss manifest: what a failover has lost, as JSON that this node has
 * signed (base/signed.h).
 *
 * There are two, by "kind":
 *
 *   estimate  of a failover that is done: where the kept log ends and since when nobody leads it.
 *             How many events were receipted behind that nobody here can know. "dead": who was
 *             declared lost for good; then receipts for `region` may be among them. It is kept in
 *             <data.dir>/failovers/epoch-<epoch>.pem.
 *   losses    by what the members have set aside (cluster/orphan.h): for each end of a log that was
 *             cut, how many events of it were receipted. At least those that one of its nodes knew
 *             to be committed, since without that there is no receipt; at most those in the longest
 *             file. "complete": every member was asked, and is of the last epoch.
 *
 * Thread: the admin server's. Memory: the caller's. Errors: a negative errno.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hex.h"
#include "base/report.h"
#include "base/signed.h"
#include "pipeline_internal.h"
#include "store/file.h"

#define VERSION    1
#define LOSSES_MAX 24u /* ends of logs in one manifest: of so many failovers, mostly */
#define KEPT       "failovers"

struct text {
    char at[SIGNED_TEXT_BYTES_MAX];
    size_t n; /* sizeof at: it was too long */
};

__attribute__((format(printf, 2, 3))) static void add(struct text *t, const char *format, ...)
{
    va_list a;
    int n;

    va_start(a, format);
    n = vsnprintf(t->at + t->n, sizeof t->at - t->n, format, a);
    va_end(a);
    t->n = n < 0 || (size_t)n >= sizeof t->at - t->n ? sizeof t->at : t->n + (size_t)n;
}

static void begin(struct text *t, const struct pipeline *p, const char *kind)
{
    char id[33];

    add(t,
        "{\"kind\": \"%s\", \"version\": %d, \"clusterId\": \"%s\", \"node\": %u, "
        "\"timeNs\": %" PRIu64,
        kind, VERSION, hex_put(id, cluster_id(p->cluster), 16), p->config->node.id,
        clock_unix_ns());
}

static int sign(const struct pipeline *p, struct text *t, sluice_v1_ClusterDone *done)
{
    char *pem;
    int n;

    add(t, "}\n");
    n = t->n < sizeof t->at ? signed_make(&pem, p->tls, t->at, t->n) : -EFBIG;
    if (n < 0)
        return n;
    if ((size_t)n >= sizeof done->manifest) {
        free(pem);
        return -EFBIG;
    }
    memcpy(done->manifest, pem, (size_t)n + 1);
    free(pem);
    return 0;
}

/* --- an estimate --------------------------------------------------------------------------------
 */

static int keep_in(int dirfd, const char *name, const char *pem)
{
    int fd = file_create(dirfd, "new"), e;

    if (fd < 0)
        return fd;
    e = file_write(fd, pem, strlen(pem), 0);
    if (e == 0)
        e = file_sync(fd);
    close(fd);
    if (e == 0)
        e = file_rename(dirfd, "new", name);
    return e == 0 ? file_sync_dir(dirfd) : e;
}

static int keep(const struct pipeline *p, uint64_t epoch, const char *pem)
{
    int data = open(p->config->data.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), dir = -1, e = 0;
    char name[48];

    snprintf(name, sizeof name, "epoch-%" PRIu64 ".pem", epoch);
    if (data < 0 || (mkdirat(data, KEPT, 0700) < 0 && errno != EEXIST) ||
        (dir = openat(data, KEPT, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        e = -errno;
    if (e == 0)
        e = file_sync_dir(data);
    if (e == 0)
        e = keep_in(dir, name, pem);
    if (data >= 0)
        close(data);
    if (dir >= 0)
        close(dir);
    return e;
}

int manifest_of_failover(struct pipeline *p, const sluice_v1_RecoveryRequest *asked,
                         sluice_v1_ClusterDone *done)
{
    const sluice_v1_FailoverReport *r = &done->failover;
    struct text *t = calloc(1, sizeof *t);
    int e;

    if (t == NULL)
        return -ENOMEM;
    begin(t, p, "estimate");
    add(t,
        ", \"region\": %" PRIu32 ", \"epoch\": %" PRIu64 ", \"index\": %" PRIu64
        ", \"term\": %" PRIu64 ", \"logOf\": %" PRIu32 ", \"lastTimeNs\": %" PRIu64
        ", \"knownCommitted\": %" PRIu64,
        asked->region, (uint64_t)r->epoch, (uint64_t)r->index, (uint64_t)r->term, r->node,
        (uint64_t)r->last_time_ns, (uint64_t)r->committed);
    if (r->silent_ms != UINT64_MAX)
        add(t, ", \"silentMs\": %" PRIu64, (uint64_t)r->silent_ms);
    for (pb_size_t i = 0; i < asked->dead_count; i++)
        add(t, "%s%" PRIu32 "%s", i == 0 ? ", \"dead\": [" : ", ", asked->dead[i],
            i + 1 == asked->dead_count ? "]" : "");
    e = sign(p, t, done);
    free(t);
    return e == 0 ? keep(p, r->epoch, done->manifest) : e;
}

/* --- losses -------------------------------------------------------------------------------------
 */

/* An end of a log that was cut: the files of several nodes that begin at the same entry. */
struct loss {
    uint64_t into, epoch, first;
    uint64_t committed, last; /* indexes; committed: below first if nothing is known to be */
    uint64_t least, most;     /* events */
    uint64_t first_time_ns, last_time_ns;
    unsigned files, reconciled;
};

static struct loss *loss_of(struct loss *l, unsigned *n, const sluice_v1_Orphan *o)
{
    for (unsigned i = 0; i < *n; i++) {
        if (l[i].into == o->into && l[i].epoch == o->epoch && l[i].first == o->first)
            return &l[i];
    }
    if (*n == LOSSES_MAX)
        return NULL;
    l[*n] = (struct loss){ .into = o->into,
                           .epoch = o->epoch,
                           .first = o->first,
                           .committed = o->first - 1,
                           .first_time_ns = o->first_time_ns };
    return &l[(*n)++];
}

static void add_file(struct loss *l, const sluice_v1_Orphan *o)
{
    const uint64_t known = o->committed < o->last ? o->committed : o->last;

    if (known > l->committed)
        l->committed = known;
    if (o->events_committed > l->least)
        l->least = o->events_committed;
    if (o->events > l->most)
        l->most = o->events;
    if (o->last > l->last) {
        l->last = o->last;
        l->last_time_ns = o->last_time_ns;
    }
    l->files++;
    l->reconciled += o->reconciled;
}

int manifest_of_losses(struct pipeline *p, bool complete, sluice_v1_ClusterDone *done)
{
    struct loss loss[LOSSES_MAX];
    struct text *t = calloc(1, sizeof *t);
    unsigned n = 0;
    int e;

    if (t == NULL)
        return -ENOMEM;
    for (pb_size_t i = 0; i < done->orphans_count; i++) {
        const sluice_v1_Orphan *o = &done->orphans[i];
        struct loss *l = o->error[0] == '\0' ? loss_of(loss, &n, o) : NULL;

        if (l != NULL)
            add_file(l, o);
        else
            complete = false;
    }
    begin(t, p, "losses");
    add(t, ", \"complete\": %s, \"losses\": [", complete ? "true" : "false");
    for (unsigned i = 0; i < n; i++) {
        const struct loss *l = &loss[i];

        add(t,
            "%s\n  {\"epoch\": %" PRIu64 ", \"into\": %" PRIu64 ", \"first\": %" PRIu64
            ", \"committed\": %" PRIu64 ", \"last\": %" PRIu64 ", \"eventsAtLeast\": %" PRIu64
            ", \"eventsAtMost\": %" PRIu64 ", \"firstTimeNs\": %" PRIu64
            ", \"lastTimeNs\": %" PRIu64 ", \"files\": %u, \"reconciled\": %u}",
            i > 0 ? "," : "", l->epoch, l->into, l->first, l->committed, l->last, l->least, l->most,
            l->first_time_ns, l->last_time_ns, l->files, l->reconciled);
    }
    add(t, "]");
    e = sign(p, t, done);
    free(t);
    return e;
}
