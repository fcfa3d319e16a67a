/*
 * test_xdp_source.c - the XDP program on sources: rules by longest prefix, the rule that a CPU
 * keeps of its last source, and the rates of datagrams and SYNs.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/lib/xdp_expect.h"

#define SECOND 1000000000ull
#define LONG   (3600 * SECOND) /* no test takes that long */
#define SYN    0x02
#define ACK    0x10

static struct xdp_rig rig;

static struct frame event_from(const char *source)
{
    struct frame f;

    frame_init(&f, EVENT_1, sizeof EVENT_1 - 1);
    if (strchr(source, ':'))
        frame_v6(&f);
    f.source = frame_address(source);
    return f;
}

static void allowed_is(const char *source, bool allowed)
{
    struct frame f = event_from(source);

    if (allowed)
        expect_redirected(&rig, &f, 1, 0);
    else
        expect_dropped(&rig, &f, 1, REASON_SOURCE_DENIED);
}

static int send_one(const struct frame *f)
{
    static _Alignas(8) uint8_t frame[4096];

    return xdp_rig_run(&rig, frame, frame_build(f, frame, sizeof frame));
}

/* --- rules ----------------------------------------------------------------------------------- */

static const char *const nested[][2] = {
    { "0.0.0.0/0", "::/0" },
    { "192.0.2.64/26", "2001:db8:0:40::/58" },
    { "192.0.2.72/29", "2001:db8:0:48::/61" },
    { "192.0.2.74/32", "2001:db8:0:48::1/128" },
};

static void nested_rules(bool on)
{
    for (size_t i = 0; i < 4; i++) {
        for (int v6 = 0; v6 < 2; v6++)
            xdp_rig_rule(&rig, nested[i][v6], on ? (i % 2 ? SOURCE_DENY : SOURCE_ALLOW) : 0, false);
    }
    /* Over all, and again inside of it: deny, allow, deny, allow, deny. */
    for (int v6 = 0; v6 < 2 && on; v6++)
        xdp_rig_rule(&rig, nested[0][v6], SOURCE_DENY, false);
}

static void the_longest_prefix_decides(void **state)
{
    nested_rules(true);
    allowed_is("203.0.113.1", false);
    allowed_is("192.0.1.255", false);
    allowed_is("192.0.3.0", false);
    allowed_is("192.0.2.0", true);
    allowed_is("192.0.2.255", true);
    allowed_is("192.0.2.63", true);
    allowed_is("192.0.2.64", false);
    allowed_is("192.0.2.71", false);
    allowed_is("192.0.2.72", true);
    allowed_is("192.0.2.73", true);
    allowed_is("192.0.2.74", false);
    allowed_is("192.0.2.75", true);
    allowed_is("192.0.2.80", false);
    allowed_is("192.0.2.128", true);
    allowed_is("2001:db7:ffff::1", false);
    allowed_is("2001:db8::1", true);
    allowed_is("2001:db8:0:3f::1", true);
    allowed_is("2001:db8:0:40::1", false);
    allowed_is("2001:db8:0:48::", true);
    allowed_is("2001:db8:0:48::1", false);
    allowed_is("2001:db8:0:48::2", true);
    allowed_is("2001:db8:0:50::", false);
    allowed_is("2001:db8:0:80::", true);
    allowed_is("2001:db9::", false);
    nested_rules(false);
}

static void without_a_rule_a_source_is_denied(void **state)
{
    allowed_is("192.0.2.1", true);
    allowed_is("2001:db8::1", true);
    allowed_is("203.0.113.1", false);
    allowed_is("2001:db9::1", false);
    allowed_is("fe80::1", false);
}

/* Allowed for who is on this machine: from outside the kernel does not take it either. */
static void nothing_comes_from_outside_with_an_address_of_ours(void **state)
{
    for (int v6 = 0; v6 < 2; v6++) {
        struct frame f = event_from(v6 ? "2001:db8::1" : "192.0.2.1");

        f.source = f.destination;
        xdp_rig_rule(&rig, v6 ? "::/0" : "0.0.0.0/0", SOURCE_ALLOW, false);
        expect_dropped(&rig, &f, 1, REASON_SOURCE_DENIED);
        xdp_rig_rule(&rig, v6 ? "::/0" : "0.0.0.0/0", 0, false);
    }
}

static void a_rule_for_all_of_ipv6_does_not_cover_ipv4(void **state)
{
    static const char *const all6[] = { "::/0", "::/80", "::ffff:0:0/96",
                                        "::ffff:203.0.113.1/128" };

    for (size_t i = 0; i < 4; i++) {
        xdp_rig_rule(&rig, all6[i], SOURCE_ALLOW, false);
        allowed_is("203.0.113.1", false);
        xdp_rig_rule(&rig, all6[i], 0, false);
    }
    xdp_rig_rule(&rig, "0.0.0.0/0", SOURCE_ALLOW, false);
    allowed_is("203.0.113.1", true);
    allowed_is("2001:db9::1", false);
    xdp_rig_rule(&rig, "0.0.0.0/0", 0, false);
}

static void a_rule_of_each_length_covers_its_own_and_no_more(void **state)
{
    char network[64];

    for (unsigned bits = 1; bits <= 32; bits++) {
        /* 101.x, where no other rule is; its last covered bit is set, and then not. */
        uint32_t ip = 0x65c8a5f1u >> (32 - bits) << (32 - bits), other = ip ^ 1u << (32 - bits);
        char in[32], out[32];

        snprintf(network, sizeof network, "%u.%u.%u.%u/%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255,
                 ip & 255, bits);
        snprintf(in, sizeof in, "101.%u.%u.%u", 0xc8, 0xa5, 0xf1);
        snprintf(out, sizeof out, "%u.%u.%u.%u", other >> 24, other >> 16 & 255, other >> 8 & 255,
                 other & 255);
        xdp_rig_rule(&rig, network, SOURCE_ALLOW, false);
        allowed_is(in, true);
        if (other >> 24 != 0 && other >> 24 != 127 && other >> 24 < 224)
            allowed_is(out, false);
        xdp_rig_rule(&rig, network, 0, false);
        allowed_is(in, false);
    }
}

/* --- the rule that is kept ------------------------------------------------------------------- */

static void stay_on_one_cpu(void)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
}

static void a_rule_that_changes_holds_for_the_next_datagram(void **state)
{
    struct frame f = event_from("192.0.2.9");

    for (int i = 0; i < 8; i++) {
        xdp_rig_rule(&rig, "192.0.2.9/32", SOURCE_DENY, false);
        assert_int_equal(send_one(&f), XDP_DROP);
        assert_int_equal(send_one(&f), XDP_DROP);
        xdp_rig_rule(&rig, "192.0.2.9/32", i % 2 ? 0 : SOURCE_ALLOW, false);
        assert_int_equal(send_one(&f), XDP_REDIRECT);
        assert_int_equal(send_one(&f), XDP_REDIRECT);
    }
    xdp_rig_rule(&rig, "192.0.2.9/32", SOURCE_DENY, false);
    xdp_rig_rule(&rig, "192.0.2.9/32", 0, false);
}

static void a_generation_has_its_own_rules(void **state)
{
    struct frame f = event_from("192.0.2.9");
    uint32_t word = rig.control->word;
    struct policy p;

    xdp_rig_policy(&p);
    assert_int_equal(send_one(&f), XDP_REDIRECT);
    rig.control->word = word ^ WORD_GENERATION;
    xdp_rig_set_policy(&rig, &p, false);
    assert_int_equal(send_one(&f), XDP_DROP);
    rig.control->word = word;
    assert_int_equal(send_one(&f), XDP_REDIRECT);
    xdp_rig_rule(&rig, "192.0.2.9/32", SOURCE_DENY, true); /* of the shadow: not asked */
    assert_int_equal(send_one(&f), XDP_REDIRECT);
    xdp_rig_rule(&rig, "192.0.2.9/32", 0, true);
}

static void sources_in_turn_keep_their_rules(void **state)
{
    struct frame yes = event_from("192.0.2.1"), no = event_from("203.0.113.1");
    struct frame yes6 = event_from("2001:db8::1"), no6 = event_from("2001:db9::1");

    for (int i = 0; i < 50; i++) {
        assert_int_equal(send_one(&yes), XDP_REDIRECT);
        assert_int_equal(send_one(&no), XDP_DROP);
        assert_int_equal(send_one(&yes6), XDP_REDIRECT);
        assert_int_equal(send_one(&no6), XDP_DROP);
    }
}

/* A segment over IPv6 may name a mapped address as its source: that cannot be, and says nothing of
 * the IPv4 source. */
static void a_mapped_source_lends_no_rule(void **state)
{
    struct frame f = event_from("192.0.2.1"), tcp = event_from("::ffff:192.0.2.1");

    tcp.protocol = IPPROTO_TCP;
    xdp_rig_rule(&rig, "192.0.2.1/32", SOURCE_DENY, false);
    xdp_rig_rule(&rig, "::/0", SOURCE_ALLOW, false);
    assert_int_equal(send_one(&tcp), XDP_DROP);
    assert_int_equal(send_one(&f), XDP_DROP);
    xdp_rig_rule(&rig, "192.0.2.1/32", SOURCE_ALLOW, false);
    assert_int_equal(send_one(&tcp), XDP_DROP);
    assert_int_equal(send_one(&f), XDP_REDIRECT);
    assert_int_equal(send_one(&tcp), XDP_DROP);
    xdp_rig_rule(&rig, "192.0.2.1/32", 0, false);
    xdp_rig_rule(&rig, "::/0", 0, false);
}

/* --- the rate of a source -------------------------------------------------------------------- */

static void rate_is(uint64_t interval_ns, unsigned burst, bool shadow)
{
    struct policy p;

    xdp_rig_policy(&p);
    p.source_interval_ns = interval_ns;
    p.source_burst_ns = burst * interval_ns;
    xdp_rig_set_policy(&rig, &p, shadow);
}

static bool bucket_of(const struct frame *f, enum bucket_kind kind, struct bucket *ret)
{
    struct bucket_key key = { .kind = kind };
    int rc;

    memcpy(&key.source, &f->source, sizeof key.source);
    rc = bpf_map__lookup_elem(rig.skel->maps.buckets, &key, sizeof key, ret, sizeof *ret, 0);
    assert_true(rc == 0 || rc == -ENOENT);
    return rc == 0;
}

static void buckets_forget(void)
{
    int fd = bpf_map__fd(rig.skel->maps.buckets);
    struct bucket_key key;

    while (bpf_map_get_next_key(fd, NULL, &key) == 0)
        assert_int_equal(bpf_map_delete_elem(fd, &key), 0);
}

static unsigned taken_of(const struct frame *f, unsigned n)
{
    unsigned taken = 0;

    for (unsigned i = 0; i < n; i++)
        taken += send_one(f) != XDP_DROP;
    return taken;
}

static void a_source_has_its_burst_and_no_more(void **state)
{
    struct frame f = event_from("192.0.2.20");
    struct bucket b;

    for (unsigned burst = 1; burst <= 64; burst *= 2) {
        buckets_forget();
        rate_is(LONG, burst, false);
        for (unsigned i = 0; i < burst; i++)
            expect_redirected(&rig, &f, 1, 0);
        for (unsigned i = 0; i < 3; i++)
            expect_dropped(&rig, &f, 1, REASON_SOURCE_RATE);
        assert_true(bucket_of(&f, BUCKET_DATAGRAMS, &b));
        assert_int_equal(b.taken, burst);
        assert_int_equal(b.dropped, 3);
    }
    rate_is(0, 0, false);
}

static void sources_have_a_rate_each(void **state)
{
    char text[64];

    rate_is(LONG, 3, false);
    for (int round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 100; i++) {
            struct frame f;

            snprintf(text, sizeof text, i % 2 ? "2001:db8::%u" : "192.0.2.%u", 100 + i);
            f = event_from(text);
            assert_int_equal(taken_of(&f, 2), round == 0 ? 2 : 1);
        }
    }
    buckets_forget();
    rate_is(0, 0, false);
}

static void what_is_dropped_anyway_uses_up_no_rate(void **state)
{
    struct frame f = event_from("192.0.2.21"), denied = event_from("203.0.113.1");
    struct frame unknown = f, broken = f, tcp = f, fragment = f, length = f;
    struct bucket b;

    rate_is(LONG, 1, false);
    unknown.payload = "\x08\x09";
    unknown.bytes = 2;
    broken.bytes = 3;
    tcp.protocol = IPPROTO_TCP;
    fragment.fragment = 1;
    length.udp_length = 7;
    send_one(&denied);
    send_one(&unknown);
    send_one(&broken);
    send_one(&tcp);
    send_one(&fragment);
    send_one(&length);
    assert_false(bucket_of(&f, BUCKET_DATAGRAMS, &b));
    assert_false(bucket_of(&denied, BUCKET_DATAGRAMS, &b));
    expect_redirected(&rig, &f, 1, 0);
    expect_dropped(&rig, &f, 1, REASON_SOURCE_RATE);
    expect_dropped(&rig, &unknown, 9, REASON_TYPE_UNKNOWN);
    buckets_forget();
    rate_is(0, 0, false);
}

/* One source alone must not take what a type may have of all. */
static void a_source_over_its_rate_uses_up_no_types_rate(void **state)
{
    struct frame greedy = event_from("192.0.2.22"), other = event_from("192.0.2.23");
    struct policy p;

    xdp_rig_policy(&p);
    p.source_interval_ns = LONG;
    p.source_burst_ns = 2 * LONG;
    p.type[1].action = POLICY_RATE;
    p.type[1].interval_ns = LONG;
    p.type[1].burst_ns = 4 * LONG;
    memset(rig.cells, 0, sizeof *rig.cells);
    xdp_rig_set_policy(&rig, &p, false);
    assert_int_equal(taken_of(&greedy, 100), 2);
    assert_int_equal(taken_of(&other, 2), 2);
    expect_dropped(&rig, &greedy, 1, REASON_SOURCE_RATE);
    greedy = event_from("192.0.2.24");
    expect_dropped(&rig, &greedy, 1, REASON_TYPE_RATE);
    memset(rig.cells, 0, sizeof *rig.cells);
    buckets_forget();
    rate_is(0, 0, false);
}

static void without_a_rate_nothing_is_remembered(void **state)
{
    struct frame f = event_from("192.0.2.25");
    struct bucket b;

    assert_int_equal(taken_of(&f, 100), 100);
    assert_false(bucket_of(&f, BUCKET_DATAGRAMS, &b));
    rate_is(LONG, 1, false);
    rig.control->interface[0].queues = 0;
    assert_int_equal(taken_of(&f, 100), 100);
    assert_false(bucket_of(&f, BUCKET_DATAGRAMS, &b));
    rig.control->interface[0].queues = 1;
    rate_is(0, 0, false);
}

static uint64_t now_ns(void) { return policy_now_ns(); }

static void wait_until(uint64_t ns)
{
    struct timespec t = { (time_t)(ns / SECOND), (long)(ns % SECOND) };

    while (now_ns() < ns)
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

/* How many more a bucket must take at this time. */
static uint64_t due(const struct bucket *b, uint64_t at_ns, uint64_t interval_ns, uint64_t burst_ns)
{
    uint64_t ahead = b->tat_ns > at_ns ? b->tat_ns - at_ns : 0;

    return ahead > burst_ns ? 0 : (burst_ns - ahead) / interval_ns;
}

static void what_a_source_may_send_comes_back_with_time(void **state)
{
    const uint64_t interval = SECOND / 4, burst = 4 * interval;
    struct frame f = event_from("192.0.2.30");
    struct bucket b;

    buckets_forget();
    rate_is(interval, 4, false);
    assert_in_range(taken_of(&f, 20), 4, 5);
    for (unsigned wait = 1; wait <= 3; wait++) {
        uint64_t before, after, taken;

        assert_true(bucket_of(&f, BUCKET_DATAGRAMS, &b));
        wait_until(b.tat_ns - burst + wait * interval);
        before = now_ns();
        taken = taken_of(&f, 20);
        after = now_ns();
        assert_in_range(taken, due(&b, before, interval, burst), due(&b, after, interval, burst));
        assert_true(taken >= wait);
    }
    rate_is(0, 0, false);
    buckets_forget();
}

static void more_sources_than_are_remembered_are_all_served(void **state)
{
    static _Alignas(8) uint8_t frame[512];
    struct frame f = event_from("2001:db8::1");
    size_t bytes = frame_build(&f, frame, sizeof frame);

    rate_is(LONG, 1, false);
    for (uint32_t i = 0; i < XDP_SOURCES_MAX * 5 / 4; i++) {
        memcpy(frame + 14 + 8 + 12, &i, sizeof i);
        assert_int_equal(xdp_rig_run(&rig, frame, bytes), XDP_REDIRECT);
    }
    /* The last one has not been forgotten. */
    assert_int_equal(xdp_rig_run(&rig, frame, bytes), XDP_DROP);
    buckets_forget();
    rate_is(0, 0, false);
}

/* --- SYN ------------------------------------------------------------------------------------- */

static void syns_have_a_rate_of_their_own(void **state)
{
    struct xdp_counters passed = { .tcp = { [TCP_PASSED] = 1 } };
    struct xdp_counters dropped = { .tcp = { [TCP_SYN_RATE] = 1 } };
    struct policy p;

    xdp_rig_policy(&p);
    p.syn_interval_ns = p.source_interval_ns = LONG;
    p.syn_burst_ns = 3 * LONG;
    p.source_burst_ns = 2 * LONG;
    xdp_rig_set_policy(&rig, &p, false);
    for (int v6 = 0; v6 < 2; v6++) {
        /* Also of a source that no rule names. */
        struct frame f = event_from(v6 ? "fe80::9" : "203.0.113.9"), udp = event_from("192.0.2.40");
        static const uint8_t others[] = { ACK, SYN | ACK, 0, 0x11, 0x04 };

        f.protocol = IPPROTO_TCP;
        for (unsigned i = 0; i < 5; i++) {
            f.tcp_flags = SYN | (i % 2 ? 0xc0 : 0); /* ECN's bits do not matter */
            expect(&rig, &f, i < 3 ? XDP_PASS : XDP_DROP, i < 3 ? &passed : &dropped);
            for (size_t k = 0; k < sizeof others; k++) {
                f.tcp_flags = others[k];
                expect(&rig, &f, XDP_PASS, &passed);
            }
        }
        assert_int_equal(taken_of(&udp, 5), v6 ? 0 : 2);
        udp.protocol = IPPROTO_TCP;
        udp.tcp_flags = SYN;
        assert_int_equal(taken_of(&udp, 5), v6 ? 0 : 3);
    }
    buckets_forget();
    rate_is(0, 0, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_longest_prefix_decides),
        cmocka_unit_test(without_a_rule_a_source_is_denied),
        cmocka_unit_test(nothing_comes_from_outside_with_an_address_of_ours),
        cmocka_unit_test(a_rule_for_all_of_ipv6_does_not_cover_ipv4),
        cmocka_unit_test(a_rule_of_each_length_covers_its_own_and_no_more),
        cmocka_unit_test(a_rule_that_changes_holds_for_the_next_datagram),
        cmocka_unit_test(a_generation_has_its_own_rules),
        cmocka_unit_test(sources_in_turn_keep_their_rules),
        cmocka_unit_test(a_mapped_source_lends_no_rule),
        cmocka_unit_test(a_source_has_its_burst_and_no_more),
        cmocka_unit_test(sources_have_a_rate_each),
        cmocka_unit_test(what_is_dropped_anyway_uses_up_no_rate),
        cmocka_unit_test(a_source_over_its_rate_uses_up_no_types_rate),
        cmocka_unit_test(without_a_rate_nothing_is_remembered),
        cmocka_unit_test(what_a_source_may_send_comes_back_with_time),
        cmocka_unit_test(more_sources_than_are_remembered_are_all_served),
        cmocka_unit_test(syns_have_a_rate_of_their_own),
    };
    int rc = xdp_rig_open(&rig);

    if (rc != 0)
        return rc;
    xdp_rig_sockets(&rig);
    stay_on_one_cpu();
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    xdp_rig_close(&rig);
    return rc;
}
