/*
 * quiet_app.c - see quiet_app.h.
 */
#include "tests/lib/quiet_app.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

static int app_ready(void *arg, size_t n) { return (void)arg, (void)n, 0; }

static int app_admit(void *arg, struct block *b, uint64_t index)
{
    return (void)arg, (void)index, (int)b->events;
}

static void app_withdraw(void *arg, const struct block *b) { (void)arg, (void)b; }
static void app_cut(void *arg, uint64_t from) { (void)arg, (void)from; }

static int app_apply(void *arg, const struct log_record *r, const void *payload,
                     enum cluster_apply how)
{
    return (void)arg, (void)r, (void)payload, (void)how, 0;
}

static int app_open(void *arg, const uint8_t id[16], uint64_t last, uint64_t *ret_covered)
{
    (void)arg, (void)id, (void)last;
    *ret_covered = 0;
    return 0;
}

static void app_opened(void *arg) { (void)arg; }
static void app_close(void *arg) { (void)arg; }
static void app_failed(void *arg, const char *sentence)
{
    (void)arg;
    fail_msg("%s", sentence);
}

static void app_save(void *arg, struct cluster_checkpoint *k) { (void)arg, k->settings = 0; }
static int app_load(void *arg, const struct cluster_checkpoint *k) { return (void)arg, (void)k, 0; }

struct cluster_app quiet_app(void *arg)
{
    return (struct cluster_app){ .arg = arg,
                                 .ready = app_ready,
                                 .admit = app_admit,
                                 .withdraw = app_withdraw,
                                 .cut = app_cut,
                                 .apply = app_apply,
                                 .open = app_open,
                                 .opened = app_opened,
                                 .close = app_close,
                                 .failed = app_failed,
                                 .save = app_save,
                                 .load = app_load };
}
