/*
 * admin_operation.c - requests that wait for other nodes: a thread for each, so that nobody else's
 * request waits for it.
 *
 * A connection that has asked for one is answered when it has ended. Who goes away meanwhile does
 * not end it; who asks for the same change again is answered with the one that is under way. Other
 * changes are refused until then: one at a time from this node.
 *
 * Thread:  the server's; what it shares with an operation's thread is `ended`. After that, all of
 * it is the server's again. Memory:  an operation is allocated when it begins, and freed when it
 * has ended and nobody waits. Limits:  ADMIN_OPERATIONS_MAX.
 */
#include "serve/admin_connection.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct admin_operation {
    const struct admin_source *source;
    struct wake *wake;
    struct admin_request request;
    struct admin_asker asker;
    pthread_t thread;
    _Atomic bool ended;
    unsigned waiting; /* connections */
    int result;
    char error[ADMIN_ERROR_BYTES];
    union admin_operation_answer answer;
};

_Static_assert(sluice_v1_ClusterStatusResponse_size + 64u < ADMIN_RESPONSE_BYTES_MAX,
               "one response");

static bool is_change(const struct admin_request *r)
{
    return r->which == ADMIN_CLUSTER_INIT || r->which == ADMIN_CLUSTER_CHANGE ||
           (r->which == ADMIN_RECOVERY &&
            r->recovery.kind != sluice_v1_RecoveryRequest_Kind_ORPHANS && !r->recovery.dry_run);
}

static void *operation_main(void *arg)
{
    struct admin_operation *o = arg;

    pthread_setname_np(pthread_self(), "sluice-operator");
    o->result = o->source->operate(o->source->arg, &o->request, &o->asker, &o->answer, o->error);
    atomic_store(&o->ended, true);
    wake_up(o->wake);
    return NULL;
}

/* The change that is under way; NULL: none. */
static struct admin_operation *find_change(const struct admin_answerer *a)
{
    for (unsigned i = 0; i < ADMIN_OPERATIONS_MAX; i++) {
        struct admin_operation *o = a->operation[i];

        if (o != NULL && is_change(&o->request) && !atomic_load(&o->ended))
            return o;
    }
    return NULL;
}

static int operation_start(struct admin_answerer *a, struct admin_connection *c,
                           const struct admin_request *r)
{
    struct admin_operation *o;
    unsigned i;
    int rc;

    for (i = 0; i < ADMIN_OPERATIONS_MAX && a->operation[i] != NULL; i++) {
    }
    if (i == ADMIN_OPERATIONS_MAX)
        return -EAGAIN;
    o = calloc(1, sizeof *o);
    if (o == NULL)
        return -ENOMEM;
    o->source = &a->source;
    o->wake = a->wake;
    o->request = *r;
    o->asker.uid = c->uid;
    memcpy(o->asker.name, c->name, sizeof o->asker.name);
    rc = pthread_create(&o->thread, NULL, operation_main, o);
    if (rc != 0) {
        free(o);
        return -rc;
    }
    o->waiting = 1;
    a->operation[i] = c->operation = o;
    return 0;
}

void operation_begin(struct admin_answerer *a, struct admin_connection *c,
                     const struct admin_request *r)
{
    struct admin_operation *other;
    int rc;

    assert(c->operation == NULL);
    operations_reap(a);
    other = is_change(r) ? find_change(a) : NULL;
    if (other != NULL && memcmp(&other->request, r, sizeof *r) == 0) {
        other->waiting++;
        c->operation = other;
        return;
    }
    if (other != NULL) {
        connection_fail(c, EBUSY, false,
                        "this node carries out another change; sluice cluster status says which");
        return;
    }
    rc = operation_start(a, c, r);
    if (rc == -EAGAIN)
        connection_fail(c, EBUSY, false, "%u requests of this kind are under way already",
                        ADMIN_OPERATIONS_MAX);
    else if (rc < 0)
        connection_fail(c, -rc, false, "the request cannot be begun: %s", strerror(-rc));
}

bool operation_has_ended(const struct admin_connection *c)
{
    return atomic_load(&c->operation->ended);
}

static int64_t put_answer(uint8_t *to, size_t cap, const struct admin_operation *o)
{
    switch (o->request.which) {
    case ADMIN_CLUSTER_STATUS:
        return admin_response_encode(to, cap, true, ADMIN_BODY_CLUSTER_STATUS,
                                     sluice_v1_ClusterStatusResponse_fields, &o->answer.status);
    case ADMIN_READ_POINT:
        return admin_response_encode(to, cap, true, ADMIN_BODY_READ_POINT,
                                     sluice_v1_ReadPoint_fields, &o->answer.read_point);
    case ADMIN_SETTING_SET:
        return admin_response_encode(to, cap, true, ADMIN_BODY_SETTING,
                                     sluice_v1_SettingEntry_fields, &o->answer.setting);
    default:
        return admin_response_encode(to, cap, true, ADMIN_BODY_CLUSTER_DONE,
                                     sluice_v1_ClusterDone_fields, &o->answer.done);
    }
}

int operation_work(struct admin_answerer *a, struct admin_connection *c)
{
    const struct admin_operation *o = c->operation;
    size_t cap;
    uint8_t *to;

    if (!operation_has_ended(c))
        return 0;
    if (o->result < 0) {
        connection_fail(c, -o->result, false, "%s",
                        o->error[0] != '\0' ? o->error : strerror(-o->result));
    } else {
        to = admin_reserve(c, &cap);
        connection_answer(c, put_answer(to, cap, o));
    }
    operation_leave(c);
    operations_reap(a);
    return 1;
}

void operation_leave(struct admin_connection *c)
{
    if (c->operation == NULL)
        return;
    assert(c->operation->waiting > 0);
    c->operation->waiting--;
    c->operation = NULL;
}

static void operation_free(struct admin_answerer *a, unsigned i)
{
    pthread_join(a->operation[i]->thread, NULL);
    free(a->operation[i]);
    a->operation[i] = NULL;
}

void operations_reap(struct admin_answerer *a)
{
    for (unsigned i = 0; i < ADMIN_OPERATIONS_MAX; i++) {
        if (a->operation[i] != NULL && a->operation[i]->waiting == 0 &&
            atomic_load(&a->operation[i]->ended))
            operation_free(a, i);
    }
}

void operations_end(struct admin_answerer *a)
{
    for (unsigned i = 0; i < ADMIN_OPERATIONS_MAX; i++) {
        if (a->operation[i] != NULL)
            operation_free(a, i);
    }
}
