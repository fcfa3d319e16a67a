/*
 * apply.c - see apply.h.
 */
#include "store/apply.h"

#include <assert.h>
#include <errno.h>
#include <pb_decode.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/wake.h"
#include "proto/wire.pb.h"

_Static_assert((int)DEDUPE_NEW == (int)VERDICT_COMMITTED, "verdicts are stored as they come");
_Static_assert((int)DEDUPE_DUPLICATE == (int)VERDICT_DUPLICATE, "verdicts are stored as they come");
_Static_assert((int)DEDUPE_CONFLICT == (int)VERDICT_CONFLICT, "verdicts are stored as they come");
_Static_assert(BLOCK_EVENTS_MAX <= DEDUPE_EVENTS_MAX, "a block is admitted by one call");
_Static_assert(sizeof((sluice_v1_Setting *)0)->key == SETTINGS_KEY_BYTES &&
                   sizeof((sluice_v1_Setting *)0)->value == SETTINGS_VALUE_BYTES,
               "entry.options");
_Static_assert(SETTINGS_LINES_MAX <= CLUSTER_SETTINGS_MAX, "a checkpoint holds every setting");

#define STORE_RETRY_MS 200 /* after a full disk */
/* A table takes a core for a tenth of a second and may take longer; the rings in front of the
 * workers hold less than that. So the others go first, but not so far first that tables fall
 * behind. */
#define STORE_NICE 5

struct store {
    struct store_config config;
    struct dedupe *dedupe;
    uint8_t hash_key[HASH_KEY_BYTES];
    bool have_hash_key;
    struct settings settings;
    bool settings_told; /* since it was closed; at first, the defaults are known */
    uint64_t log_end; /* when it was opened: there the settings are what they were, if not newer */
    sluice_v1_Setting history[STORE_HISTORY_MAX];
    size_t history_n;
    uint64_t loaded_index; /* settings up to here came with the checkpoint */
    struct dedupe_place first[BLOCK_EVENTS_MAX];
    uint64_t content[BLOCK_EVENTS_MAX]; /* of the entry content_index */
    uint64_t content_index;
    struct wake wake;
    pthread_t thread;
    bool thread_started;
    atomic_bool opened, stop_wanted;
    /* Who uses the index, but for the cluster thread, reads; who opens and closes it writes. */
    pthread_rwlock_t lock;
};

/* --- settings ----------------------------------------------------------------------------------
 */

static void history_add(struct store *s, const sluice_v1_Setting *change)
{
    if (s->history_n == STORE_HISTORY_MAX) {
        memmove(&s->history[0], &s->history[1], (STORE_HISTORY_MAX - 1) * sizeof s->history[0]);
        s->history_n--;
    }
    s->history[s->history_n++] = *change;
}

static void tell_settings(struct store *s)
{
    s->settings_told = true;
    s->config.on_settings(s->config.arg, &s->settings);
}

static int apply_setting(struct store *s, const struct log_record *r, const void *payload)
{
    pb_istream_t in = pb_istream_from_buffer(payload, r->payload_bytes);
    sluice_v1_Setting change = sluice_v1_Setting_init_zero;

    if (!pb_decode_ex(&in, sluice_v1_Setting_fields, &change, PB_DECODE_NULLTERMINATED))
        return -EBADMSG;
    /* Checked before it was proposed; two that were checked at the same time may exclude each
     * other, and then the later one changes nothing, on every node alike. */
    if (settings_apply(&s->settings, change.key, change.value) < 0)
        return 0;
    change.index = r->index;
    history_add(s, &change);
    tell_settings(s);
    return 0;
}

static int apply_genesis(struct store *s, const struct log_record *r, const void *payload)
{
    pb_istream_t in = pb_istream_from_buffer(payload, r->payload_bytes);
    sluice_v1_Genesis g = sluice_v1_Genesis_init_zero;

    if (!pb_decode_ex(&in, sluice_v1_Genesis_fields, &g, PB_DECODE_NULLTERMINATED))
        return -EBADMSG;
    memcpy(s->hash_key, g.hash_key, sizeof s->hash_key);
    s->have_hash_key = true;
    return 0;
}

/* --- struct cluster_app --------------------------------------------------------------------------
 */

static int store_open(void *arg, const uint8_t cluster_id[16], uint64_t last_index,
                      uint64_t *ret_covered)
{
    struct store *s = arg;
    struct dedupe_config config = {
        .dir = s->config.dir,
        .memory_bytes_max = s->config.dedupe_memory_bytes_max,
        .log_last_index = last_index,
        .table_keys_max = s->config.dedupe_table_keys_max,
        .summary_bytes_max = s->config.dedupe_summary_bytes_max,
        .filter_bytes_max = s->config.dedupe_filter_bytes_max,
    };

    int e;

    s->log_end = last_index;
    memcpy(&config.log_id, cluster_id, sizeof config.log_id);
    pthread_rwlock_wrlock(&s->lock);
    e = dedupe_open(&s->dedupe, &config, ret_covered);
    pthread_rwlock_unlock(&s->lock);
    return e;
}

/* The settings that were in force stay so for the workers until the log has been applied again. */
static void store_close(void *arg)
{
    struct store *s = arg;

    pthread_rwlock_wrlock(&s->lock);
    atomic_store(&s->opened, false);
    dedupe_close(s->dedupe);
    s->dedupe = NULL;
    pthread_rwlock_unlock(&s->lock);
    settings_init(&s->settings);
    s->history_n = 0;
    s->loaded_index = s->content_index = 0;
    s->have_hash_key = s->settings_told = false;
}

static void store_opened(void *arg)
{
    struct store *s = arg;

    atomic_store(&s->opened, true);
    wake_up(&s->wake);
}

static int store_ready(void *arg, size_t n)
{
    struct store *s = arg;
    int e = dedupe_ready(s->dedupe, n);

    if (e == -EAGAIN)
        wake_up(&s->wake);
    return e;
}

/* The worker left room for one exception per event that somebody is to be answered for. */
static void admit_exception(struct block *b, uint32_t i, const struct dedupe_place *first)
{
    struct block_exception *x;
    bool duplicate = b->verdict[i] == VERDICT_DUPLICATE;

    if (b->request_of[i] == REQUEST_NONE)
        return;
    assert(b->exceptions < BLOCK_EXCEPTIONS_MAX);
    x = &b->exception[b->exceptions++];
    *x = (struct block_exception){
        .request = b->request_of[i],
        .position = b->position[i],
        .reason = duplicate ? sluice_v1_Reason_DUPLICATE : sluice_v1_Reason_ID_CONFLICT,
        .first_index = first->index,
        .first_slot = first->slot,
    };
}

static int store_admit(void *arg, struct block *b, uint64_t index)
{
    struct store *s = arg;
    int left;

#ifdef PLANT_DEDUPE_OFF
    return (int)b->events;
#endif
    if (b->events == 0)
        return 0;
    left = dedupe_admit(s->dedupe, &b->desc[0].key, sizeof b->desc[0], b->content, b->events, index,
                        b->verdict, s->first);
    if (left < 0 || (uint32_t)left == b->events)
        return left;
    for (uint32_t i = 0; i < b->events; i++) {
        if (b->verdict[i] == VERDICT_COMMITTED)
            continue;
        admit_exception(b, i, &s->first[i]);
        if (b->wait_index < s->first[i].index)
            b->wait_index = s->first[i].index;
    }
    return left;
}

static void store_withdraw(void *arg, const struct block *b)
{
    struct store *s = arg;

    _Static_assert(sizeof b->verdict[0] == 1, "verdicts are given as they are");
    assert(b->index > 0 && b->accepted > 0);
    dedupe_withdraw(s->dedupe, &b->desc[0].key, sizeof b->desc[0], b->verdict, b->events, b->index);
}

static void store_cut(void *arg, uint64_t from)
{
    struct store *s = arg;

    s->content_index = 0; /* another entry may come to that place */
    dedupe_cut(s->dedupe, from);
}

/* At a start there is no thread yet: room is made by working. */
static int replay_block(struct store *s, uint64_t index, const struct block_view *v)
{
    for (uint32_t i = 0; i < v->header->events; i++) {
        int e = dedupe_replay(s->dedupe, v->desc[i].key, s->content[i],
                              (struct dedupe_place){ index, (uint16_t)i });

        if (e < 0)
            return e;
    }
    return 0;
}

/* A block that was not admitted here. It may be given again and again until there is room. */
static int apply_block(struct store *s, const struct log_record *r, const void *payload,
                       enum cluster_apply how)
{
    struct block_view v;
    int e;

#ifdef PLANT_DEDUPE_NOT_APPLIED
    if (how == APPLY_OTHERS)
        return 0;
#endif
    if (!s->have_hash_key || block_view(&v, payload, r->payload_bytes) < 0)
        return -EBADMSG;
    for (uint32_t i = 0; i < v.header->events && s->content_index != r->index; i++)
        s->content[i] = hash_content(s->hash_key, v.payload + v.desc[i].offset, v.desc[i].bytes);
    s->content_index = r->index;
    if (how == APPLY_START)
        return replay_block(s, r->index, &v);
    e = dedupe_enter(s->dedupe, &v.desc[0].key, sizeof v.desc[0], s->content, v.header->events,
                     r->index);
    if (e == -EAGAIN)
        wake_up(&s->wake);
    return e;
}

static int store_apply(void *arg, const struct log_record *r, const void *payload,
                       enum cluster_apply how)
{
    struct store *s = arg;
    int e = 0;

    if (r->type == LOG_EVENTS && how != APPLY_OURS)
        e = apply_block(s, r, payload, how);
    else if (r->type == LOG_SETTING && r->index > s->loaded_index)
        e = apply_setting(s, r, payload);
    else if (r->type == LOG_GENESIS)
        e = apply_genesis(s, r, payload);
    if (e == 0 && !s->settings_told && r->index >= s->log_end)
        tell_settings(s); /* what was in force has been rolled back, and there was no other */
    if (e == 0)
        dedupe_commit(s->dedupe, r->index);
    return e;
}

static void save_setting(void *arg, const struct setting_line *line)
{
    struct cluster_checkpoint *c = arg;
    sluice_v1_Setting *to = &c->setting[c->settings];

    if (strcmp(line->value, line->value_default) == 0)
        return;
    assert(c->settings < CLUSTER_SETTINGS_MAX);
    *to = (sluice_v1_Setting){ 0 };
    snprintf(to->key, sizeof to->key, "%s", line->key);
    snprintf(to->value, sizeof to->value, "%s", line->value);
    c->settings++;
}

static void store_save(void *arg, struct cluster_checkpoint *c)
{
    sluice_v1_Checkpoint *m = &c->message;
    struct store *s = arg;

    _Static_assert(STORE_HISTORY_MAX == sizeof m->history / sizeof m->history[0], "entry.options");
    settings_list(&s->settings, save_setting, c);
    m->history_count = (pb_size_t)s->history_n;
    memcpy(m->history, s->history, s->history_n * sizeof s->history[0]);
}

static int store_load(void *arg, const struct cluster_checkpoint *c)
{
    const sluice_v1_Checkpoint *m = &c->message;
    struct store *s = arg;

    memcpy(s->hash_key, m->genesis.hash_key, sizeof s->hash_key);
    s->have_hash_key = true;
    s->loaded_index = m->index;
    for (uint32_t i = 0; i < c->settings; i++) {
        if (settings_apply(&s->settings, c->setting[i].key, c->setting[i].value) < 0)
            return -EBADMSG;
    }
    s->history_n = m->history_count;
    memcpy(s->history, m->history, m->history_count * sizeof s->history[0]);
    tell_settings(s);
    return 0;
}

void store_app(struct store *s, struct cluster_app *ret)
{
    *ret = (struct cluster_app){
        .arg = s,
        .ready = store_ready,
        .admit = store_admit,
        .withdraw = store_withdraw,
        .cut = store_cut,
        .apply = store_apply,
        .open = store_open,
        .opened = store_opened,
        .close = store_close,
        .save = store_save,
        .load = store_load,
    };
}

/* --- the store thread ---------------------------------------------------------------------------
 */

int store_do_work(struct store *s)
{
    int e;

    pthread_rwlock_rdlock(&s->lock);
    e = atomic_load(&s->opened) ? dedupe_do_work(s->dedupe) : 0;
    pthread_rwlock_unlock(&s->lock);
    return e;
}

static void *store_main(void *arg)
{
    struct store *s = arg;
    char sentence[256];

    pthread_setname_np(pthread_self(), "sluice-store");
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), STORE_NICE);
    while (!atomic_load(&s->stop_wanted)) {
        struct pollfd p = { .fd = s->wake.fd, .events = POLLIN };
        int e = store_do_work(s);

        if (e > 0)
            continue;
        if (e < 0 && e != -ENOSPC) {
            snprintf(sentence, sizeof sentence, "dedupe index: %s", strerror(-e));
            s->config.failed(s->config.arg, sentence);
            return NULL;
        }
        wake_prepare(&s->wake);
        if (!atomic_load(&s->stop_wanted))
            poll(&p, 1, STORE_RETRY_MS);
        wake_done(&s->wake);
        wake_drain(&s->wake);
    }
    return NULL;
}

int store_init(struct store **ret, const struct store_config *config)
{
    struct store *s = calloc(1, sizeof *s);

    if (s == NULL)
        return -ENOMEM;
    s->config = *config;
    settings_init(&s->settings);
    s->settings_told = true;
    pthread_rwlock_init(&s->lock, NULL);
    *ret = s;
    return wake_open(&s->wake);
}

int store_start(struct store *s)
{
    int e = pthread_create(&s->thread, NULL, store_main, s);

    s->thread_started = e == 0;
    return -e;
}

void store_fini(struct store *s)
{
    if (s == NULL)
        return;
    if (s->thread_started) {
        atomic_store(&s->stop_wanted, true);
        wake_up(&s->wake);
        pthread_join(s->thread, NULL);
    }
    dedupe_close(s->dedupe);
    wake_close(&s->wake);
    pthread_rwlock_destroy(&s->lock);
    free(s);
}

const struct settings *store_settings(const struct store *s) { return &s->settings; }

const sluice_v1_Setting *store_history(const struct store *s, size_t *ret_n)
{
    *ret_n = s->history_n;
    return s->history;
}

int store_lookup(struct store *s, const void *source, size_t source_bytes, const void *id,
                 size_t id_bytes, struct dedupe_place *ret)
{
    if (s->dedupe == NULL) /* it waits for its cluster */
        return 0;
    return dedupe_lookup(s->dedupe, hash_event_key(s->hash_key, source, source_bytes, id, id_bytes),
                         ret);
}

void store_stats(struct store *s, struct dedupe_stats *ret)
{
    *ret = (struct dedupe_stats){ 0 };
    pthread_rwlock_rdlock(&s->lock);
    if (atomic_load(&s->opened))
        dedupe_stats(s->dedupe, ret);
    pthread_rwlock_unlock(&s->lock);
}
