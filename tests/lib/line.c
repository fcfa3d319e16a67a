/*
 * line.c - the four stages with all that they need.
 */
#include "tests/lib/line.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "tests/lib/sample.h"

struct line *line_new(void)
{
    struct line *l = calloc(1, sizeof *l);
    struct settings settings;
    int r;

    assert(l != NULL);
    settings_init(&settings);
    admission_init(&l->admission, &settings, &(struct config_networks){ 0 });
    line_set(l, "type.signal", "64");
    r = limits_open(&l->limits, NULL, 1024);
    assert(r == 0);
    r = calendar_set_init(&l->set);
    assert(r == 0);
    calendars_init(&l->calendars, &l->set);
    r = block_init(&l->block, 0);
    assert(r == 0);
    l->stages = (struct stages){
        .admission = &l->admission,
        .limits = &l->limits,
        .ledger = &l->ledger,
        .stage_ns_max = { NS_PER_S, NS_PER_S, NS_PER_S, NS_PER_S },
        .hash_key = "0123456789abcdef",
        .node = 1,
        .region = 1,
        .id_prefix = { 1, 2, 3, 4, 5, 6, 7, 8 },
        .calendars = &l->calendars,
        .open = &l->block,
    };
    line_reset(l);
    return l;
}

void line_free(struct line *l)
{
    block_fini(&l->block);
    calendar_set_fini(&l->set);
    limits_close(&l->limits);
    free(l);
}

void line_set(struct line *l, const char *key, const char *value)
{
    struct settings changed = l->admission.settings;
    int r = settings_apply(&changed, key, value);

    assert(r == 0);
    (void)r;
    admission_init(&l->admission, &changed, &(struct config_networks){ 0 });
}

void line_reset(struct line *l)
{
    block_reset(&l->block);
    memset(&l->ledger, 0, sizeof l->ledger);
}

void line_receive(struct line *l, size_t i, const void *data, size_t bytes, uint64_t time_ns)
{
    assert(i < EVENTS_RUN_MAX);
    l->ev[i].raw = (struct slice){ data, (uint32_t)bytes };
    l->ev[i].receive_time_ns = time_ns + NS_PER_MS;
    l->ev[i].request = REQUEST_NONE;
    l->ev[i].position = (uint16_t)i;
    l->ev[i].decided = false;
    l->ev[i].reason = 0;
}

unsigned line_decode(struct line *l, const void *data, size_t bytes)
{
    line_receive(l, 0, data, bytes, SAMPLE_TIME_NS);
    decode_run(&l->stages, l->ev, 1);
    return l->ev[0].reason;
}

unsigned line_validate(struct line *l, const void *data, size_t bytes)
{
    line_decode(l, data, bytes);
    validate_run(&l->stages, l->ev, 1);
    return l->ev[0].reason;
}

unsigned line_run(struct line *l, const void *data, size_t bytes)
{
    line_receive(l, 0, data, bytes, SAMPLE_TIME_NS);
    if (l->block.events == BLOCK_EVENTS_MAX ||
        l->block.bytes + (l->block.events + 1) * sizeof(struct block_desc) +
                block_event_cost((uint32_t)bytes + 18) >
            BLOCK_PAYLOAD_MAX)
        line_reset(l);
    stages_run(&l->stages, l->ev, 1);
    return l->ev[0].reason;
}

bool line_balances(const struct line *l)
{
    struct ledger copy = l->ledger;
    struct ledger_sums sums;

    for (unsigned t = 0; t < BLOCK_TYPES; t++)
        copy.in_flight[t] = l->block.by_type[t];
    ledger_check(&copy, &sums);
    return sums.events_balance;
}
