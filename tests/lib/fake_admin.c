/*
 * fake_admin.c - see fake_admin.h.
 */
#include "tests/lib/fake_admin.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/event_out.h"

void fake_admin_init(struct fake_admin *f)
{
    memset(f, 0, sizeof *f);
    f->first = 1;
}

void fake_admin_fini(struct fake_admin *f)
{
    uint64_t i;

    for (i = 0; i <= f->last; i++)
        free(f->record[i]);
}

struct test_record *fake_admin_append(struct fake_admin *f)
{
    assert(f->last + 1 < FAKE_RECORDS_MAX);
    f->last++;
    f->record[f->last] = test_record_open(f->last, FAKE_TERM);
    assert(f->record[f->last] != NULL);
    return f->record[f->last];
}

void fake_admin_append_other(struct fake_admin *f, uint32_t type)
{
    struct test_record *r = fake_admin_append(f);

    r->record.type = type;
    r->payload_bytes = 0;
}

void fake_admin_commit(struct fake_admin *f)
{
    struct wake *w;
    uint64_t i;

    for (i = atomic_load(&f->commit) + 1; i <= f->last; i++) {
        if (f->record[i]->record.type == LOG_EVENTS)
            test_record_seal(f->record[i]);
    }
    atomic_store(&f->commit, f->last);
    w = atomic_load(&f->watcher);
    if (w != NULL)
        wake_up(w);
}

void fake_admin_block(struct fake_admin *f, uint32_t n)
{
    struct test_record *r = fake_admin_append(f);
    uint32_t i;

    for (i = 0; i < n; i++) {
        char source[16], id[32], symbol[16];
        uint8_t event[256];
        size_t bytes;

        snprintf(source, sizeof source, "feed-%u", i % 2);
        snprintf(id, sizeof id, "%u-%u", (unsigned)f->last, i);
        snprintf(symbol, sizeof symbol, "S%u", i % 4);
        bytes = test_trade(event, sizeof event, source, id, symbol);
        test_record_add(r, event, bytes, 1 + i % 3, symbol, false);
    }
    fake_admin_commit(f);
}

static void fake_status(void *arg, sluice_v1_StatusResponse *ret)
{
    struct fake_admin *f = arg;

    strcpy(ret->version, "0.1.0");
    strcpy(ret->role, "leader");
    strcpy(ret->node_name, "fake");
    strcpy(ret->region_name, "here");
    strcpy(ret->data_dir, "/nowhere");
    ret->node = 7;
    ret->term = FAKE_TERM;
    ret->epoch = FAKE_TERM >> 20;
    ret->uptime_ns = 3723000000000ull;
    ret->first_index = f->first;
    ret->last_index = ret->commit_index = atomic_load(&f->commit);
    ret->events = 1234567;
    ret->digest.size = 32;
    ret->workers_count = 1;
    ret->workers[0].blocks = 8;
    ret->notes_count = 1;
    strcpy(ret->notes[0], "no XDP: \"socket\" mode");
    ret->listening_count = 1;
    strcpy(ret->listening[0], "udp 127.0.0.1:7400");
    strcpy(ret->xdp, "native on eth0 (4 queues), generic on eth1");
}

static void fake_ledger(void *arg, sluice_v1_LedgerResponse *ret)
{
    struct fake_admin *f = arg;

    ret->datagrams_seen = 1000;
    ret->datagrams_delivered = 990;
    ret->drops_count = 1;
    strcpy(ret->drops[0].reason, "kernel");
    ret->drops[0].count = 10;
    ret->datagrams_balance = true;
    ret->types_count = 1;
    ret->types[0] = (sluice_v1_LedgerType){ .type = 1,
                                            .name = "trade",
                                            .decoded = 1234567,
                                            .invalid = 7,
                                            .committed = 1234560,
                                            .balances = true };
    ret->has_total = true;
    ret->total = ret->types[0];
    strcpy(ret->total.name, "total");
    ret->reasons_count = 1;
    strcpy(ret->reasons[0].reason, "source_missing");
    ret->reasons[0].count = 7;
    ret->events_balance = !f->unbalanced;
    ret->total.balances = !f->unbalanced;
    ret->log_events = 1234560;
    ret->log_agrees = true;
    ret->since_ns = TEST_RECEIVE_NS;
    fake_xdp_ledger(f, &ret->xdp);
}

static int fake_read(void *arg, uint64_t index, struct admin_record *ret)
{
    struct fake_admin *f = arg;

    atomic_fetch_add(&f->reads, 1);
    if (index > atomic_load(&f->commit))
        return -EAGAIN;
    if (index < f->first)
        return -ENOENT;
    if (atomic_load(&f->rot))
        return -EILSEQ;
    ret->record = f->record[index]->record;
    ret->payload = f->record[index]->payload;
    return 0;
}

static int fake_find(void *arg, const char *source, const void *id, size_t id_bytes,
                     struct admin_place *ret)
{
    struct fake_admin *f = arg;
    uint64_t i, commit = atomic_load(&f->commit);

    for (i = f->first; i <= commit; i++) {
        struct block_view v;
        uint32_t slot;

        if (f->record[i]->record.type != LOG_EVENTS ||
            block_view(&v, f->record[i]->payload, f->record[i]->payload_bytes) < 0)
            continue;
        for (slot = 0; slot < v.header->events; slot++) {
            struct event_names n;

            if (event_names_find(&n, v.payload + v.desc[slot].offset, v.desc[slot].bytes) == 0 &&
                n.source_bytes == strlen(source) && n.id_bytes == id_bytes &&
                memcmp(n.source, source, n.source_bytes) == 0 && memcmp(n.id, id, id_bytes) == 0) {
                *ret = (struct admin_place){ .index = i, .slot = slot };
                return 0;
            }
        }
    }
    return -ENOENT;
}

static uint64_t fake_first(void *arg) { return ((struct fake_admin *)arg)->first; }
static uint64_t fake_history(void *arg) { return (void)arg, 0; }

static uint64_t fake_commit_index(void *arg)
{
    return atomic_load(&((struct fake_admin *)arg)->commit);
}

static int fake_watch(void *arg, struct wake *w)
{
    struct fake_admin *f = arg;

    if (atomic_load(&f->watch_fails))
        return -EBUSY;
    assert(atomic_load(&f->watcher) == NULL);
    atomic_store(&f->watcher, w);
    return 0;
}

static void fake_unwatch(void *arg, struct wake *w)
{
    struct fake_admin *f = arg;

    assert(atomic_load(&f->watcher) == w);
    atomic_store(&f->watcher, NULL);
}

static int fake_settings(void *arg, bool history, admin_setting_fn each, void *each_arg)
{
    sluice_v1_SettingEntry e = sluice_v1_SettingEntry_init_zero;
    int i, rc;

    if (((struct fake_admin *)arg)->policy && !history)
        return fake_xdp_settings(each, each_arg);
    for (i = 0; i < (history ? 3 : 2); i++) {
        snprintf(e.key, sizeof e.key, i == 0 ? "type.news" : "class.trade");
        snprintf(e.value, sizeof e.value, "%d", i == 0 ? 64 : i);
        e.is_default = false;
        e.index = history ? (uint64_t)i + 10 : 0;
        e.time_ns = history ? TEST_RECEIVE_NS : 0;
        rc = each(each_arg, &e);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int fake_setting_set(struct fake_admin *f, const sluice_v1_SettingSetRequest *r,
                            const struct admin_asker *asker, sluice_v1_SettingEntry *ret,
                            char error[ADMIN_ERROR_BYTES])
{
    if (strncmp(r->key, "no.", 3) == 0) {
        snprintf(error, ADMIN_ERROR_BYTES, "there is no setting %s", r->key);
        return -EINVAL;
    }
    if (atomic_load(&f->refuse)) {
        snprintf(error, ADMIN_ERROR_BYTES, "%s must be something else", r->key);
        return -EINVAL;
    }
    snprintf(f->set_key, sizeof f->set_key, "%s", r->key);
    snprintf(f->set_value, sizeof f->set_value, "%s", r->value);
    f->set_uid = asker->uid;
    snprintf(f->set_by, sizeof f->set_by, "%s", asker->name);
    *ret = (sluice_v1_SettingEntry){ .index = 42, .is_default = r->value[0] == '\0' };
    memcpy(ret->key, r->key, sizeof ret->key);
    memcpy(ret->value, r->value, sizeof ret->value);
    return 0;
}

static int fake_config(void *arg, bool json, FILE *out)
{
    fputs(json ? "{\"file\":\"x\"}" : "node.id 1 default\n", out);
    return 0;
}

/* Changes are held, looks never. */
static int fake_operate(void *arg, const struct admin_request *request,
                        const struct admin_asker *asker, union admin_operation_answer *ret,
                        char error[ADMIN_ERROR_BYTES])
{
    struct fake_cluster_state *c = &((struct fake_admin *)arg)->cluster;
    bool change = request->which == ADMIN_CLUSTER_CHANGE || request->which == ADMIN_CLUSTER_INIT;
    const struct timespec pause = { .tv_nsec = 1000000 };

    atomic_fetch_add(&c->calls, change ? 1 : 0);
    while ((change || request->which == ADMIN_SETTING_SET) && atomic_load(&c->hold))
        nanosleep(&pause, NULL);
    if (request->which == ADMIN_SETTING_SET)
        return fake_setting_set(arg, &request->setting_set, asker, &ret->setting, error);
    if (atomic_load(&c->error) < 0) {
        snprintf(error, ADMIN_ERROR_BYTES, "it cannot be done");
        return atomic_load(&c->error);
    }
    if (request->which == ADMIN_CLUSTER_STATUS) {
        ret->status = c->status;
    } else if (request->which == ADMIN_READ_POINT) {
        ret->read_point = c->point;
    } else {
        c->asked = *request;
        c->asker = *asker;
        snprintf(ret->done.sentence, sizeof ret->done.sentence, "it is done");
    }
    return 0;
}

void fake_admin_source(struct fake_admin *f, struct admin_source *ret)
{
    *ret = (struct admin_source){ .arg = f,
                                  .status = fake_status,
                                  .ledger = fake_ledger,
                                  .find = fake_find,
                                  .read = fake_read,
                                  .first_index = fake_first,
                                  .commit_index = fake_commit_index,
                                  .history = fake_history,
                                  .watch = fake_watch,
                                  .unwatch = fake_unwatch,
                                  .settings = fake_settings,
                                  .config = fake_config,
                                  .operate = fake_operate };
    fake_xdp_source(ret);
}
