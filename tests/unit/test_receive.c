/*
 * test_receive.c - datagrams before they are events: which class is served first and what is left
 * for a lower one, what the policy drops of them, and what the shadow would have. Real sockets, the
 * worker's thread, a fake cluster's.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/lib/ingest_rig.h"

#define TRADE sluice_v1_EventType_TRADE /* class 0 */
#define QUOTE sluice_v1_EventType_QUOTE /* class 3 where two classes meet */
#define LOWER 128u                      /* that a lower class has in a block beside a higher one */
#define SHARE 64u                       /* events of a lower class that go first in its turn */

static void send_events(int fd, unsigned type, unsigned n)
{
    static uint64_t id;
    uint8_t event[512];

    for (unsigned i = 0; i < n; i++)
        rig_send(fd, event, rig_event(event, sizeof event, type, 1, ++id));
}

/* --- classes ------------------------------------------------------------------------------------
 */

/* What the cluster has been given, in order; written by its thread. */
struct order {
    _Atomic uint32_t n;
    uint8_t type[4096];
};

static void note_order(void *arg, const struct block *b)
{
    struct order *o = arg;
    uint32_t n = atomic_load(&o->n);

    assert_true(n + b->events <= sizeof o->type);
    memcpy(o->type + n, b->type, b->events);
    atomic_store(&o->n, n + b->events);
}

/* Every snapshot is a turn of the worker's, and in each it takes what has come. */
static void turns(struct rig *r, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        (void)rig_snapshot(r);
}

/* Sends trades until one finds no block. Returns how many. */
static unsigned fill_blocks(struct rig *r, int fd)
{
    unsigned sent = 0;

    do {
        send_events(fd, TRADE, 1);
        sent++;
        turns(r, 20);
        assert_true(sent < 1000);
    } while (r->snap.ledger.datagrams_seen == sent);
    return sent;
}

static void a_higher_class_that_came_later_goes_first(void **state)
{
    enum { TRADES = 100, QUOTES = 300 };
    static struct order order;
    uint32_t last_trade = 0, quotes_before = 0, filled;
    struct rig r;
    int fd;

    (void)state;
    rig_init(&r);
    rig_set(&r, "class.quote", "3");
    r.config.ingest.udp.buffers = 1024;
    r.config.pipeline.blocks = 2;
    r.config.pipeline.block_bytes_max = 64 * 1024; /* all the trades and a share of quotes */
    rig_open(&r);
    r.cluster.seen = note_order;
    r.cluster.arg = &order;
    fake_cluster_hold(&r.cluster, true);
    rig_start(&r);
    fd = rig_udp(&r, false);
    filled = fill_blocks(&r, fd);
    send_events(fd, QUOTE, QUOTES);
    send_events(fd, TRADE, TRADES);
    turns(&r, 100);
    assert_int_equal(r.snap.ledger.datagrams_seen, filled - 1);
    fake_cluster_hold(&r.cluster, false);
    RIG_WAIT(&r, l->committed[TRADE] == filled + TRADES && l->committed[QUOTE] == QUOTES);
    assert_int_equal(atomic_load(&order.n), filled + TRADES + QUOTES);
    for (uint32_t i = 0; i < order.n; i++)
        last_trade = order.type[i] == TRADE ? i : last_trade;
    for (uint32_t i = 0; i < last_trade; i++)
        quotes_before += order.type[i] == QUOTE;
    assert_in_range(quotes_before, 0, SHARE);
    close(fd);
    rig_close(&r);
}

/* Lets one block through for each token. */
struct gate {
    sem_t tokens;
    _Atomic bool open;
};

static void gate_wait(void *arg, struct block *b)
{
    struct gate *g = arg;

    (void)b;
    while (!atomic_load(&g->open) && sem_wait(&g->tokens) < 0) {
    }
}

static void gate_open(struct gate *g)
{
    atomic_store(&g->open, true);
    assert_int_equal(sem_post(&g->tokens), 0);
}

/* Trades always wait, more than one block holds; quotes wait for their share. */
static void a_lower_class_has_its_turn_while_a_higher_one_fills_every_block(void **state)
{
    enum { TRADES_WAITING = 400, QUOTES = 300, STEPS_MAX = 1000 };
    static struct gate gate;
    unsigned trades, step = 0;
    struct rig r;
    int fd;

    (void)state;
    assert_int_equal(sem_init(&gate.tokens, 0, 0), 0);
    rig_init(&r);
    rig_set(&r, "class.quote", "3");
    r.config.ingest.udp.buffers = 1024;
    r.config.pipeline.blocks = 2;
    r.config.pipeline.block_bytes_max = 16 * 1024;
    rig_open(&r);
    r.cluster.decide = gate_wait;
    r.cluster.arg = &gate;
    rig_start(&r);
    fd = rig_udp(&r, false);
    trades = fill_blocks(&r, fd);
    send_events(fd, QUOTE, QUOTES);
    while (r.snap.ledger.decoded[QUOTE] < 2 * SHARE) {
        uint64_t before = r.snap.ledger.decoded[QUOTE];
        unsigned more = TRADES_WAITING - (trades - (unsigned)r.snap.ledger.decoded[TRADE]);

        assert_true(step < STEPS_MAX && more < TRADES_WAITING);
        send_events(fd, TRADE, more);
        trades += more;
        turns(&r, 20 + step % 8); /* the share is a lower class's in turn */
        assert_int_equal(sem_post(&gate.tokens), 0);
        step++;
        RIG_WAIT(&r, l && atomic_load(&r.cluster.blocks) >= step);
        turns(&r, 20);
        assert_in_range(r.snap.ledger.decoded[QUOTE] - before, 0, SHARE);
    }
    assert_int_equal(r.snap.ledger.datagrams_seen, r.snap.ledger.datagrams_delivered);
    gate_open(&gate);
    RIG_WAIT(&r, l->committed[TRADE] == trades && l->committed[QUOTE] == QUOTES);
    close(fd);
    rig_close(&r);
    sem_destroy(&gate.tokens);
}

/* --- policy -------------------------------------------------------------------------------------
 */

/* Quotes that are taken while the log is held, of QUOTES_SENT; a trade came before, or not. */
enum { QUOTES_SENT = 3000 };

static uint64_t quotes_taken(bool trade_before, uint64_t *ret_ms)
{
    uint64_t taken, begun_ns;
    struct rig r;
    int fd;

    rig_init(&r);
    rig_set(&r, "class.quote", "3");
    r.config.ingest.udp.buffers = 8192;
    r.config.ingest.udp.receive_buffer_bytes = 8 << 20;
    r.config.pipeline.blocks = 16;
    r.config.pipeline.block_age_us_max = 1000000; /* a slow sender is not to use up the blocks */
    rig_open(&r);
    fake_cluster_hold(&r.cluster, true);
    rig_start(&r);
    fd = rig_udp(&r, false);
    send_events(fd, TRADE, trade_before);
    RIG_WAIT(&r, l->decoded[TRADE] == (trade_before ? 1 : 0));
    begun_ns = clock_monotonic_ns();
    send_events(fd, QUOTE, QUOTES_SENT);
    turns(&r, 80);
    taken = r.snap.ledger.decoded[QUOTE];
    *ret_ms = (clock_monotonic_ns() - begun_ns) / NS_PER_MS;
    /* And what is higher still finds its place. */
    send_events(fd, TRADE, 1);
    RIG_WAIT(&r, l->decoded[TRADE] == (trade_before ? 2 : 1));
    fake_cluster_hold(&r.cluster, false);
    RIG_WAIT(&r, l->committed[QUOTE] == QUOTES_SENT);
    close(fd);
    rig_close(&r);
    return taken;
}

static void while_a_higher_class_is_in_use_a_lower_one_does_not_fill_the_log(void **state)
{
    uint64_t taken, ms;

    (void)state;
    assert_int_equal(quotes_taken(false, &ms), QUOTES_SENT);
    taken = quotes_taken(true, &ms);
    /* A block at the log, what is in the open one, and a share every third millisecond. */
    assert_in_range(taken, SHARE, 4 * LOWER + SHARE * (ms / 3 + 2));
}

static void a_batch_is_dropped_whole_only_if_nobody_waits_and_nothing_in_it_is_taken(void **state)
{
    static const uint8_t unknown[] = { 0x0a, 0x02, 0x08, 0x04, 0x0a, 0x00 };
    static const uint8_t asks[] = { 0x0a, 0x02, 0x08, 0x04, 0x0a, 0x00, 0x20, 0x01 };
    static uint8_t batch[4096], reply[4096];
    uint8_t trade[512];
    struct rig r;
    size_t bytes;
    int fd;

    (void)state;
    rig_init(&r);
    rig_set(&r, "admit.quote", "drop");
    rig_open(&r);
    rig_start(&r);
    fd = rig_udp(&r, false);
    rig_send(fd, unknown, sizeof unknown);
    rig_send(fd, batch, rig_batch(batch, sizeof batch, QUOTE, 5, 1, 0, false));
    RIG_WAIT(&r, l->datagrams_seen == 2);
    assert_int_equal(r.snap.ledger.datagram_drop[DROP_TYPE_UNKNOWN], 1);
    assert_int_equal(r.snap.ledger.datagram_drop[DROP_TYPE_DROPPED], 1);
    assert_int_equal(r.snap.ledger.stage_events[0], 0);
    /* The same again, with somebody who waits. */
    rig_send(fd, asks, sizeof asks);
    assert_true(rig_answer(fd, reply, sizeof reply) <= sizeof asks);
    rig_send(fd, batch, rig_batch(batch, sizeof batch, QUOTE, 5, 1, 7, true));
    (void)rig_answer(fd, reply, sizeof reply);
    RIG_WAIT(&r, l->udp_receipts == 2);
    assert_int_equal(r.snap.ledger.reason[sluice_v1_Reason_TYPE_UNKNOWN], 2);
    assert_int_equal(r.snap.ledger.reason[sluice_v1_Reason_TYPE_NOT_ADMITTED], 5);
    /* And with one good event behind five of the dropped type. */
    bytes = rig_batch(batch, sizeof batch, QUOTE, 5, 1, 0, false);
    batch[bytes++] = 0x0a;
    batch[bytes] = (uint8_t)rig_event(trade, sizeof trade, TRADE, 1, 1);
    assert_true(batch[bytes] < 0x80);
    memcpy(batch + bytes + 1, trade, batch[bytes]);
    rig_send(fd, batch, bytes + 1 + batch[bytes]);
    RIG_WAIT(&r, l->committed[TRADE] == 1);
    assert_int_equal(r.snap.ledger.reason[sluice_v1_Reason_TYPE_NOT_ADMITTED], 10);
    assert_int_equal(r.snap.ledger.datagrams_delivered, 3);
    close(fd);
    rig_close(&r);
}

/* A datagram has used up its turn when it arrives: its event is not asked again. */
static void an_event_alone_is_sampled_once(void **state)
{
    static uint8_t batch[8192];
    struct rig r;
    int fd;

    (void)state;
    rig_init(&r);
    rig_set(&r, "admit.trade", "sample 4");
    rig_open(&r);
    rig_start(&r);
    fd = rig_udp(&r, false);
    send_events(fd, TRADE, 100);
    RIG_WAIT(&r, l->datagrams_seen == 100 && l->committed[TRADE] == 25);
    assert_int_equal(r.snap.ledger.datagram_drop[DROP_SAMPLED_OUT], 75);
    assert_int_equal(r.snap.ledger.refused[TRADE], 0);
    for (unsigned i = 0; i < 10; i++)
        rig_send(fd, batch, rig_batch(batch, sizeof batch, TRADE, 10, 1000 + 10 * i, 0, false));
    RIG_WAIT(&r, l->committed[TRADE] == 50);
    assert_int_equal(r.snap.ledger.reason[sluice_v1_Reason_SAMPLED_OUT], 75);
    assert_int_equal(r.snap.ledger.datagram_drop[DROP_SAMPLED_OUT], 75);
    close(fd);
    rig_close(&r);
}

static void the_shadow_counts_and_changes_nothing(void **state)
{
    static uint8_t batch[4096];
    struct rig r;
    int fd;

    (void)state;
    rig_init(&r);
    rig_set(&r, "admit.quote", "drop");
    rig_set(&r, "shadow.admit.quote", "accept");
    rig_set(&r, "shadow.admit.trade", "sample 10");
    rig_set(&r, "shadow.source.::1", "deny");
    rig_open(&r);
    rig_start(&r);
    fd = rig_udp(&r, false);
    send_events(fd, TRADE, 100);
    send_events(fd, QUOTE, 30);
    RIG_WAIT(&r, l->datagrams_seen == 130 && l->committed[TRADE] == 100);
    assert_int_equal(r.snap.ledger.datagram_drop[DROP_TYPE_DROPPED], 30);
    assert_int_equal(r.snap.ledger.datagram_drop[DROP_SAMPLED_OUT], 0);
    assert_int_equal(r.snap.ledger.shadow_drop[DROP_SAMPLED_OUT], 90);
    assert_int_equal(r.snap.ledger.shadow_taken, 30);
    /* Event by event: its reasons for what was taken, and what it would have taken. */
    rig_send(fd, batch, rig_batch(batch, sizeof batch, TRADE, 20, 5000, 0, false));
    rig_send(fd, batch, rig_batch(batch, sizeof batch, QUOTE, 5, 6000, 1, true));
    RIG_WAIT(&r, l->udp_receipts == 1);
    assert_int_equal(r.snap.ledger.shadow_refused[sluice_v1_Reason_SAMPLED_OUT], 18);
    assert_int_equal(r.snap.ledger.shadow_refused[sluice_v1_Reason_REASON_NONE], 2);
    assert_int_equal(r.snap.ledger.shadow_admitted, 5);
    close(fd);
    fd = rig_udp(&r, true);
    send_events(fd, TRADE, 3);
    RIG_WAIT(&r, l->datagrams_seen == 135);
    assert_int_equal(r.snap.ledger.shadow_drop[DROP_SOURCE_DENIED], 3);
    assert_int_equal(r.snap.ledger.datagram_drop[DROP_SOURCE_DENIED], 0);
    close(fd);
    rig_close(&r);
}

static void a_sources_rate_is_of_datagrams_and_of_each_source_alone(void **state)
{
    static uint8_t batch[4096];
    uint64_t begun = clock_monotonic_ns(), passed_s;
    struct rig r;

    (void)state;
    rig_init(&r);
    rig_set(&r, "limit.source_burst", "10");
    rig_set(&r, "limit.source_per_s", "1");
    rig_open(&r);
    rig_start(&r);
    for (int v6 = 0; v6 < 2; v6++) {
        int fd = rig_udp(&r, v6);

        send_events(fd, TRADE, 5);
        for (unsigned i = 0; i < 15; i++)
            rig_send(fd, batch, rig_batch(batch, sizeof batch, QUOTE, 5, 1 + 5 * i, 0, false));
        close(fd);
    }
    RIG_WAIT(&r, l->datagrams_seen == 40);
    passed_s = (clock_monotonic_ns() - begun) / NS_PER_S;
    assert_in_range(r.snap.ledger.datagram_drop[DROP_SOURCE_RATE], 20 - 2 * passed_s, 20);
    RIG_WAIT(&r, l->committed[TRADE] == 10 && l->committed[QUOTE] >= 2 * 5 * 5);
    rig_close(&r);
}

static void a_source_over_its_rate_uses_up_nobody_elses(void **state)
{
    uint64_t begun = clock_monotonic_ns(), passed_s;
    struct rig r;

    (void)state;
    rig_init(&r);
    rig_set(&r, "limit.source_burst", "5");
    rig_set(&r, "limit.source_per_s", "1");
    rig_set(&r, "admit.trade", "rate 1 burst 20");
    rig_open(&r);
    rig_start(&r);
    for (int v6 = 0; v6 < 2; v6++) {
        int fd = rig_udp(&r, v6);

        send_events(fd, TRADE, 100);
        RIG_WAIT(&r, l->datagrams_seen == 100u * (unsigned)(v6 + 1));
        close(fd);
    }
    passed_s = (clock_monotonic_ns() - begun) / NS_PER_S;
    assert_int_equal(r.snap.ledger.datagram_drop[DROP_TYPE_RATE], 0);
    assert_in_range(r.snap.ledger.datagram_drop[DROP_SOURCE_RATE], 190 - 2 * passed_s, 190);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_higher_class_that_came_later_goes_first),
        cmocka_unit_test(while_a_higher_class_is_in_use_a_lower_one_does_not_fill_the_log),
        cmocka_unit_test(a_lower_class_has_its_turn_while_a_higher_one_fills_every_block),
        cmocka_unit_test(a_batch_is_dropped_whole_only_if_nobody_waits_and_nothing_in_it_is_taken),
        cmocka_unit_test(an_event_alone_is_sampled_once),
        cmocka_unit_test(the_shadow_counts_and_changes_nothing),
        cmocka_unit_test(a_sources_rate_is_of_datagrams_and_of_each_source_alone),
        cmocka_unit_test(a_source_over_its_rate_uses_up_nobody_elses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
