/*
 * fake_xdp.c - the part of the made-up daemon that answers about XDP; see fake_admin.h.
 *
 * Counters grow by the same amount with every look, so that differences are known.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/fake_admin.h"

static const char *const reasons[] = { "source_denied", "length",          "empty",
                                       "not_protobuf",  "event_malformed", "batch_malformed",
                                       "type_unknown",  "type_dropped",    "sampled_out",
                                       "type_rate",     "source_rate",     "checksum" };
#define REASONS_N (sizeof reasons / sizeof *reasons)

static void count(sluice_v1_LedgerDrop *list, pb_size_t *n, const char *reason, uint64_t value)
{
    snprintf(list[*n].reason, sizeof list[*n].reason, "%s", reason);
    list[(*n)++].count = value;
}

static void fake_interfaces(uint64_t look, sluice_v1_XdpStatusResponse *r)
{
    r->interfaces[0] = (sluice_v1_XdpInterface){ .name = "eth0",
                                                 .ifindex = 2,
                                                 .mode = "native",
                                                 .attach = "dispatcher",
                                                 .program_id = 41,
                                                 .queues = 4,
                                                 .zero_copy = true,
                                                 .arrived = 1000 * look,
                                                 .redirected = 900 * look,
                                                 .passed = 30 * look,
                                                 .dropped = 70 * look,
                                                 .fragments = 5,
                                                 .tcp_passed = 60,
                                                 .tcp_denied = 7,
                                                 .tcp_syn_rate = 8,
                                                 .bytes = 200000 * look,
                                                 .attached = true };
    r->interfaces[1] = (sluice_v1_XdpInterface){ .name = "eth1",
                                                 .ifindex = 3,
                                                 .mode = "generic",
                                                 .attach = "single",
                                                 .program_id = 42,
                                                 .queues = 1,
                                                 .note = "its driver has no XDP",
                                                 .attached = true };
    r->interfaces_count = 2;
}

static void fake_xdp_status(void *arg, bool sources, sluice_v1_XdpStatusResponse *r)
{
    struct fake_admin *f = arg;
    uint64_t look = atomic_fetch_add(&f->xdp.looks, 1) + 1;

    strcpy(r->mode, "native");
    strcpy(r->note, "eth1 is slower than it could be");
    fake_interfaces(look, r);
    count(r->drops, &r->drops_count, "source_denied", 50 * look);
    count(r->drops, &r->drops_count, "type_rate", 20 * look);
    count(r->shadow, &r->shadow_count, "sampled_out", 11);
    r->shadow_taken = 12;
    r->shadow_on = true;
    r->types[0] = (sluice_v1_XdpType){ 1, "trade", 600 * look, 10 * look };
    r->types[1] = (sluice_v1_XdpType){ 64, "news", 400 * look, 60 * look };
    r->types_count = 2;
    for (uint32_t class = 0; class < 4; class ++)
        r->classes[class] =
            (sluice_v1_XdpClass){ class, 225 * look, class, 225 * look - class - 1, 1 };
    r->classes_count = 4;
    if (sources) {
        r->sources[0] = (sluice_v1_XdpSource){ "192.0.2.9", 90000 + 100 * look, 5 };
        r->sources[1] = (sluice_v1_XdpSource){ "2001:db8::7", 80000 + 400 * look, 6 * look };
        /* Comes into the list with the second look. */
        r->sources[2] = (sluice_v1_XdpSource){ "198.51.100.4", 70000, 0 };
        r->sources_count = look > 1 ? 3 : 2;
    }
    r->fill_empty = 3;
    r->balances = !atomic_load(&f->xdp.unbalanced);
    r->policy_version = 7;
}

/* A datagram from 192.0.2.0/24 is taken, any other dropped; an empty one is dropped too. */
static int fake_policy_test(void *arg, const sluice_v1_PolicyTestRequest *q,
                            sluice_v1_PolicyTestResponse *r, char error[ADMIN_ERROR_BYTES])
{
    struct fake_admin *f = arg;
    struct in6_addr ip;
    bool allowed = strncmp(q->from, "192.0.2.", 8) == 0;

    if (inet_pton(AF_INET, q->from, &ip) != 1 && inet_pton(AF_INET6, q->from, &ip) != 1) {
        snprintf(error, ADMIN_ERROR_BYTES, "\"%s\" is not an address", q->from);
        return -EINVAL;
    }
    f->xdp.tested = *q;
    strcpy(r->verdict, allowed && q->datagram.size > 0 ? "accept" : "drop");
    strcpy(r->reason, !allowed ? "source_denied" : q->datagram.size == 0 ? "empty" : "");
    strcpy(r->rule, allowed ? "allow" : "none");
    strcpy(r->format, "batch");
    strcpy(r->note, "a made-up one");
    r->class = 1;
    r->complete = true;
    r->events[0] = (sluice_v1_PolicyTestEvent){ 1, "trade", "accept", 0 };
    r->events[1] = (sluice_v1_PolicyTestEvent){ 2, "quote", "sample 10", 1 };
    r->events_count = 2;
    return 0;
}

static int fake_tap_start(void *arg, const sluice_v1_TapRequest *q, char error[ADMIN_ERROR_BYTES])
{
    struct fake_admin *f = arg;
    size_t k, at;

    if (atomic_load(&f->xdp.tap_open))
        abort(); /* the server asks for one only */
    for (pb_size_t i = 0; i < q->reasons_count; i++) {
        for (k = 0; k < REASONS_N && strcmp(reasons[k], q->reasons[i]) != 0; k++) {
        }
        if (k < REASONS_N)
            continue;
        at = (size_t)snprintf(error, ADMIN_ERROR_BYTES, "there is no reason %s; known are",
                              q->reasons[i]);
        for (k = 0; k < REASONS_N; k++)
            at += (size_t)snprintf(error + at, ADMIN_ERROR_BYTES - at, " %s", reasons[k]);
        return -EINVAL;
    }
    f->xdp.tapped = *q;
    atomic_fetch_add(&f->xdp.tap_starts, 1);
    atomic_store(&f->xdp.tap_open, true);
    return 0;
}

static int fake_tap_next(void *arg, sluice_v1_TapSample *r)
{
    struct fake_admin *f = arg;
    uint64_t n = atomic_load(&f->xdp.tap_ready);
    int error = atomic_load(&f->xdp.tap_error);

    if (!atomic_load(&f->xdp.tap_open))
        abort();
    if (error != 0)
        return error;
    if (n == 0)
        return 0;
    if (n != UINT64_MAX)
        atomic_fetch_sub(&f->xdp.tap_ready, 1);
    *r = f->xdp.sample;
    r->time_ns = TEST_RECEIVE_NS + atomic_fetch_add(&f->xdp.tap_given, 1);
    return 1;
}

static void fake_tap_stop(void *arg)
{
    struct fake_admin *f = arg;

    if (!atomic_exchange(&f->xdp.tap_open, false))
        abort();
}

int fake_xdp_settings(admin_setting_fn each, void *each_arg)
{
    static const sluice_v1_SettingEntry entries[] = {
        { .key = "type.news", .value = "64" },
        { .key = "class.trade", .value = "0", .is_default = true },
        { .key = "class.quote", .value = "1", .is_default = true },
        { .key = "class.news", .value = "2" },
        { .key = "admit.trade", .value = "accept", .is_default = true },
        { .key = "admit.quote", .value = "rate 500 burst 50" },
        { .key = "admit.news", .value = "accept", .is_default = true },
        { .key = "skew.past_ms", .value = "1000" },
        { .key = "source.192.0.2.0/24", .value = "allow" },
        { .key = "source.2001:db8::/32", .value = "allow" },
        { .key = "limit.source_per_s", .value = "0", .is_default = true },
        { .key = "limit.source_burst", .value = "1000", .is_default = true },
        { .key = "limit.syn_per_s", .value = "20" },
        { .key = "limit.syn_burst", .value = "100", .is_default = true },
        { .key = "shadow.class.news", .value = "3" },
        { .key = "shadow.admit.trade", .value = "sample 10" },
        { .key = "shadow.source.192.0.2.0/24", .value = "none" },
        { .key = "shadow.source.198.51.100.4", .value = "deny" },
        { .key = "shadow.limit.source_per_s", .value = "5000" },
    };

    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        int rc = each(each_arg, &entries[i]);

        if (rc != 0)
            return rc;
    }
    return 0;
}

void fake_xdp_ledger(const struct fake_admin *f, sluice_v1_XdpLedger *r)
{
    if (!atomic_load(&f->xdp.present))
        return;
    *r = (sluice_v1_XdpLedger){ .present = true,
                                .arrived = 10000,
                                .dropped = 700,
                                .redirected = 9000,
                                .passed = 300,
                                .ring_taken = 8900,
                                .ring_dropped = 60,
                                .ring_waiting = 40,
                                .fragments = 5,
                                .tcp_passed = 66,
                                .tcp_denied = 7,
                                .tcp_syn_rate = 8,
                                .balances = !atomic_load(&f->xdp.unbalanced),
                                .rings_agree = !atomic_load(&f->xdp.rings_differ) };
    count(r->drops, &r->drops_count, "source_denied", 500);
    count(r->drops, &r->drops_count, "type_rate", 200);
}

void fake_xdp_source(struct admin_source *ret)
{
    ret->xdp_status = fake_xdp_status;
    ret->policy_test = fake_policy_test;
    ret->tap_start = fake_tap_start;
    ret->tap_next = fake_tap_next;
    ret->tap_stop = fake_tap_stop;
}
