/*
 * test_xdp_delivery.c - where the XDP program sends what it takes: sockets by interface, queue and
 * class, or the kernel's way; the samples of what it drops; the switches in control.word.
 *
 * In a network namespace of its own, for an interface with several queues and frames of 64 KiB.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/message.h"
#include "tests/lib/xdp_expect.h"

#define QUEUES 72u /* more than the program knows */

static struct xdp_rig rig;
static _Alignas(8) uint8_t buf[8192];
static uint8_t payload[66000];
static unsigned device; /* with QUEUES queues */

static struct frame event_frame(unsigned type)
{
    struct frame f;

    payload[0] = 0x08;
    payload[1] = (uint8_t)type;
    frame_init(&f, payload, 2);
    return f;
}

static void socket_put(unsigned interface, unsigned queue, unsigned class, int fd)
{
    uint32_t key = socket_index(interface, queue, class);
    int map = bpf_map__fd(rig.skel->maps.sockets);

    if (fd >= 0)
        assert_int_equal(bpf_map_update_elem(map, &key, &fd, 0), 0);
    else
        assert_int_equal(bpf_map_delete_elem(map, &key), 0);
}

/* --- sockets --------------------------------------------------------------------------------- */

static struct xdp_counters passed_of(const struct frame *f, unsigned type, enum pass_reason reason)
{
    struct xdp_counters moved = { .arrived = 1, .bytes = f->bytes };

    moved.type_arrived[type] = 1;
    moved.passed[reason] = 1;
    return moved;
}

static void without_a_socket_it_goes_the_kernels_way(void **state)
{
    struct policy p;

    xdp_rig_policy(&p);
    for (unsigned t = 1; t <= 4; t++)
        p.type[t] = (struct policy_type){ .action = POLICY_ACCEPT, .class = (uint8_t)(t - 1) };
    xdp_rig_set_policy(&rig, &p, false);
    for (unsigned class = 0; class < XDP_CLASSES; class ++) {
        struct frame f = event_frame(class + 1);
        struct xdp_counters moved = passed_of(&f, class + 1, PASS_NO_SOCKET);

        expect_redirected(&rig, &f, class + 1, class);
        socket_put(0, 0, class, -1);
        expect(&rig, &f, XDP_PASS, &moved);
        for (unsigned other = 0; other < XDP_CLASSES; other++) {
            f = event_frame(other + 1);
            if (other != class)
                expect_redirected(&rig, &f, other + 1, other);
        }
        socket_put(0, 0, class, rig.socket[class]);
    }
}

static void without_af_xdp_all_goes_the_kernels_way(void **state)
{
    struct frame f = event_frame(1);
    struct xdp_counters moved = passed_of(&f, 1, PASS_NO_SOCKET);

    rig.control->interface[0].queues = 0;
    expect(&rig, &f, XDP_PASS, &moved);
    f = event_frame(9);
    expect_dropped(&rig, &f, 9, REASON_TYPE_UNKNOWN); /* but what is dropped is dropped */
    rig.control->interface[0].queues = 1;
}

static void what_is_too_long_for_a_frame_goes_the_kernels_way(void **state)
{
    const unsigned headers = 14 + 20 + 8;
    struct frame f = event_frame(1);
    struct xdp_counters moved;

    for (unsigned bytes = 1700; bytes < 1800; bytes++) {
        /* The event's type, and a field that fills it up. */
        f = event_frame(1);
        payload[2] = 0x12;
        payload[3] = (uint8_t)((bytes - headers - 5) | 0x80);
        payload[4] = (uint8_t)((bytes - headers - 5) >> 7);
        f.bytes = bytes - headers;
        moved = passed_of(&f, 1, PASS_OVERSIZE);
        if (bytes <= 1792)
            expect_redirected(&rig, &f, 1, 0);
        else
            expect(&rig, &f, XDP_PASS, &moved);
    }
    payload[1] = 9;
    expect_dropped(&rig, &f, 9, REASON_TYPE_UNKNOWN);
    f.bytes = 2;
    f.padding = 1792 - headers - 2; /* the frame counts, with what is behind IP */
    expect_dropped(&rig, &f, 9, REASON_TYPE_UNKNOWN);
    payload[1] = 1;
    expect_redirected(&rig, &f, 1, 0);
    f.padding++;
    moved = passed_of(&f, 1, PASS_OVERSIZE);
    expect(&rig, &f, XDP_PASS, &moved);
}

/* --- interfaces and queues ------------------------------------------------------------------- */

static int run_on(const struct frame *f, unsigned ifindex, unsigned queue)
{
    size_t bytes = frame_build(f, buf, sizeof buf);
    struct xdp_md ctx = { .data_end = (uint32_t)bytes,
                          .ingress_ifindex = ifindex,
                          .rx_queue_index = queue };
    LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = buf, .data_size_in = (uint32_t)bytes,
                .ctx_in = &ctx, .ctx_size_in = sizeof ctx, .repeat = 1);

    assert_int_equal(bpf_prog_test_run_opts(rig.fd, &opts), 0);
    return (int)opts.retval;
}

static uint64_t arrived_at(unsigned interface)
{
    uint32_t key = interface * 2 + (rig.control->word & WORD_BANK);
    struct xdp_cpu *all = calloc((size_t)rig.cpus, sizeof *all);
    uint64_t n = 0;

    assert_non_null(all);
    assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(rig.skel->maps.counters), &key, all), 0);
    for (int cpu = 0; cpu < rig.cpus; cpu++)
        n += all[cpu].count.arrived;
    free(all);
    return n;
}

static void every_interface_has_its_counters(void **state)
{
    struct frame f = event_frame(1);

    for (unsigned i = 1; i < XDP_INTERFACES_MAX; i++) {
        uint64_t was[XDP_INTERFACES_MAX];

        rig.control->interface[i] = (struct xdp_interface){ .ifindex = device, .mac = { 2, 0, 9 } };
        for (unsigned k = 0; k < XDP_INTERFACES_MAX; k++)
            was[k] = arrived_at(k);
        f.mac[0] = f.mac[2] = 0; /* loopback's: of another interface */
        assert_int_equal(run_on(&f, device, 0), XDP_PASS);
        f.mac[0] = 2;
        f.mac[2] = 9;
        assert_int_equal(run_on(&f, device, 0), XDP_PASS); /* no socket */
        for (unsigned k = 0; k < XDP_INTERFACES_MAX; k++)
            assert_int_equal(arrived_at(k), was[k] + (k == i));
        rig.control->interface[i].ifindex = 0;
        assert_int_equal(run_on(&f, device, 0), XDP_PASS);
        assert_int_equal(arrived_at(i), was[i] + 1);
    }
}

static void every_interface_queue_and_class_has_its_socket(void **state)
{
    static const unsigned queues[] = { 0, 1, 2, 31, 63 };
    struct policy p;

    xdp_rig_policy(&p);
    p.type[1].class = 2;
    xdp_rig_set_policy(&rig, &p, false);
    for (unsigned i = 0; i < 5; i++) {
        struct frame f = event_frame(1);

        rig.control->interface[7] =
            (struct xdp_interface){ .ifindex = device, .queues = 64, .frame_bytes_max = 1792 };
        socket_put(7, queues[i], 2, rig.socket[0]);
        for (unsigned queue = 0; queue < QUEUES; queue++)
            assert_int_equal(run_on(&f, device, queue),
                             queue == queues[i] ? XDP_REDIRECT : XDP_PASS);
        f = event_frame(2); /* class 1 */
        assert_int_equal(run_on(&f, device, queues[i]), XDP_PASS);
        socket_put(7, queues[i], 2, -1);
    }
    rig.control->interface[7].ifindex = 0;
    xdp_rig_policy(&p);
    xdp_rig_set_policy(&rig, &p, false);
}

/* --- control.word ---------------------------------------------------------------------------- */

static void a_bank_that_is_switched_off_stands_still(void **state)
{
    struct frame f = event_frame(1);
    struct xdp_counters before, after;

    xdp_rig_clear(&rig);
    f = event_frame(1);
    frame_build(&f, buf, sizeof buf);
    xdp_rig_run(&rig, buf, 44);
    xdp_rig_counters(&rig, &before);
    assert_int_equal(before.arrived, 1);
    rig.control->word ^= WORD_BANK;
    xdp_rig_clear(&rig);
    for (int i = 0; i < 5; i++)
        assert_int_equal(xdp_rig_run(&rig, buf, 44), XDP_REDIRECT);
    xdp_rig_counters(&rig, &after);
    assert_int_equal(after.arrived, 5);
    rig.control->word ^= WORD_BANK;
    xdp_rig_counters(&rig, &after);
    assert_memory_equal(&after, &before, sizeof after);
}

static void a_generation_has_its_own_policy(void **state)
{
    struct frame f = event_frame(1);
    uint32_t word = rig.control->word;
    struct policy p;

    xdp_rig_policy(&p);
    p.type[1] = (struct policy_type){ .action = POLICY_DROP };
    rig.control->word = word ^ WORD_GENERATION;
    xdp_rig_set_policy(&rig, &p, false);
    xdp_rig_rule(&rig, "192.0.2.0/24", SOURCE_ALLOW, false);
    for (uint32_t bank = 0; bank < 2; bank++) {
        rig.control->word = (word ^ WORD_GENERATION) ^ bank;
        expect_dropped(&rig, &f, 1, REASON_TYPE_DROPPED);
        rig.control->word = word ^ bank;
        expect_redirected(&rig, &f, 1, 0);
    }
    rig.control->word = word;
}

static void the_map_in_a_map_can_be_put_again(void **state)
{
    uint32_t key = 0;
    int inner = bpf_map__fd(rig.skel->maps.grace_inner);

    for (int i = 0; i < 3; i++)
        assert_int_equal(bpf_map_update_elem(bpf_map__fd(rig.skel->maps.grace), &key, &inner, 0),
                         0);
}

/* --- samples --------------------------------------------------------------------------------- */

struct samples {
    unsigned n;
    struct drop_sample last;
};

static int sample_take(void *to, void *data, size_t bytes)
{
    struct samples *s = to;

    assert_int_equal(bytes, sizeof s->last);
    memcpy(&s->last, data, bytes);
    s->n++;
    return 0;
}

static void samples_read(struct samples *s)
{
    struct ring_buffer *ring =
        ring_buffer__new(bpf_map__fd(rig.skel->maps.samples), sample_take, s, NULL);

    *s = (struct samples){ 0 };
    assert_non_null(ring);
    assert_true(ring_buffer__consume(ring) >= 0);
    ring_buffer__free(ring);
}

enum { ACCEPTED = 1, UNKNOWN = 9, DROPPED, SAMPLED, LIMITED };

/* A policy under which every reason comes up. */
static void reasons_begin(void)
{
    const uint64_t interval = 3600000000000u;
    struct bucket_key key = { .kind = BUCKET_DATAGRAMS };
    struct bucket used_up = { .tat_ns = policy_now_ns() + 1000000 * interval };
    struct in6_addr source = frame_address("192.0.2.99");
    struct policy p;

    xdp_rig_policy(&p);
    p.type[DROPPED].action = POLICY_DROP;
    p.type[SAMPLED] = (struct policy_type){ .action = POLICY_SAMPLE, .every = UINT32_MAX };
    p.type[LIMITED] = (struct policy_type){ .action = POLICY_RATE, .interval_ns = interval };
    p.source_interval_ns = interval;
    p.source_burst_ns = 1000000 * interval;
    xdp_rig_set_policy(&rig, &p, false);
    memset(rig.cells, 0, sizeof *rig.cells);
    rig.cells->at[0][SAMPLED].turn = 1;
    memcpy(&key.source, &source, sizeof source);
    assert_int_equal(bpf_map_update_elem(bpf_map__fd(rig.skel->maps.buckets), &key, &used_up, 0),
                     0);
}

static void reasons_end(void)
{
    struct policy p;

    xdp_rig_policy(&p);
    xdp_rig_set_policy(&rig, &p, false);
    rig.control->sample_mask = 0;
}

/* One frame that is dropped for `reason`, of at least `bytes`. */
static size_t frame_dropped_for(enum drop_reason reason, size_t bytes)
{
    static const unsigned type[REASONS] = { [REASON_TYPE_UNKNOWN] = UNKNOWN,
                                            [REASON_TYPE_DROPPED] = DROPPED,
                                            [REASON_SAMPLED_OUT] = SAMPLED,
                                            [REASON_TYPE_RATE] = LIMITED };
    struct frame f = event_frame(type[reason] ? type[reason] : ACCEPTED);

    if (reason == REASON_SOURCE_DENIED)
        f.source = frame_address("203.0.113.1");
    else if (reason == REASON_SOURCE_RATE)
        f.source = frame_address("192.0.2.99");
    else if (reason == REASON_LENGTH)
        f.udp_length = 1;
    else if (reason == REASON_EMPTY)
        f.bytes = 0;
    else if (reason == REASON_NOT_PROTOBUF)
        payload[0] = 7;
    else if (reason == REASON_EVENT_MALFORMED)
        f.bytes = 1;
    else if (reason == REASON_BATCH_MALFORMED)
        payload[0] = 0x0a;
    f.padding = bytes > 44 ? (unsigned)bytes - 44 : 0;
    return frame_build(&f, buf, sizeof buf);
}

static void a_dropped_frame_is_sampled_with_its_head(void **state)
{
    static const size_t sizes[] = { 0, 100, 255, 256, 257, 1500 };
    struct xdp_counters count;
    struct samples s;

    reasons_begin();
    samples_read(&s);
    for (unsigned reason = 0; reason < REASONS; reason++) {
        for (size_t i = 0; i < 6; i++) {
            size_t bytes = frame_dropped_for(reason, sizes[i]), head = bytes < 256 ? bytes : 256;
            uint64_t before = policy_now_ns();

            rig.control->sample_mask = 1u << reason;
            rig.control->sample_tat_ns = 0;
            xdp_rig_clear(&rig);
            assert_int_equal(xdp_rig_run(&rig, buf, bytes), XDP_DROP);
            samples_read(&s);
            assert_int_equal(s.n, 1);
            assert_int_equal(s.last.reason, reason);
            assert_int_equal(s.last.in_kernel, 1);
            assert_int_equal(s.last.ifindex, 1);
            assert_int_equal(s.last.queue, 0);
            assert_int_equal(s.last.frame_bytes, bytes);
            assert_int_equal(s.last.bytes, head);
            assert_memory_equal(s.last.data, buf, head);
            assert_in_range(s.last.time_ns, before, policy_now_ns());
            xdp_rig_counters(&rig, &count);
            assert_int_equal(count.dropped[reason], 1);
            assert_int_equal(count.sampled_bytes, head);
        }
    }
    reasons_end();
}

static void only_reasons_in_the_mask_are_sampled(void **state)
{
    struct samples s;

    reasons_begin();
    for (unsigned mask = 0; mask < 1u << REASONS; mask++) {
        rig.control->sample_mask = mask;
        rig.control->sample_tat_ns = 0;
        for (unsigned reason = 0; reason < REASONS; reason++) {
            size_t bytes = frame_dropped_for(reason, 0);

            assert_int_equal(xdp_rig_run(&rig, buf, bytes), XDP_DROP);
        }
        samples_read(&s);
        assert_int_equal(s.n, __builtin_popcount(mask));
    }
    reasons_end();
}

static void what_is_taken_or_not_ours_is_not_sampled(void **state)
{
    struct frame f = event_frame(1);
    struct samples s;

    rig.control->sample_mask = UINT32_MAX;
    rig.control->sample_tat_ns = 0;
    expect_redirected(&rig, &f, 1, 0);
    f.port = 9;
    expect_untouched(&rig, &f);
    samples_read(&s);
    assert_int_equal(s.n, 0);
    rig.control->sample_mask = 0;
}

static void samples_have_a_rate(void **state)
{
    size_t bytes = frame_dropped_for(REASON_TYPE_UNKNOWN, 0);
    struct xdp_counters count;
    uint64_t begun = policy_now_ns(), due;
    struct samples s;

    rig.control->sample_mask = UINT32_MAX;
    rig.control->sample_tat_ns = 0;
    xdp_rig_clear(&rig);
    for (int i = 0; i < 2000; i++)
        assert_int_equal(xdp_rig_run(&rig, buf, bytes), XDP_DROP);
    due = SAMPLE_BURST_NS / SAMPLE_INTERVAL_NS + (policy_now_ns() - begun) / SAMPLE_INTERVAL_NS + 1;
    samples_read(&s);
    assert_in_range(s.n, SAMPLE_BURST_NS / SAMPLE_INTERVAL_NS, due < 2000 ? due : 2000);
    xdp_rig_counters(&rig, &count);
    assert_int_equal(count.sampled_bytes, s.n * bytes);
    rig.control->sample_mask = 0;
}

static void a_full_ring_costs_samples_and_nothing_else(void **state)
{
    size_t bytes = frame_dropped_for(REASON_TYPE_UNKNOWN, 0);
    struct xdp_counters count;
    struct samples s;

    rig.control->sample_mask = UINT32_MAX;
    xdp_rig_clear(&rig);
    for (int i = 0; i < 2000; i++) {
        rig.control->sample_tat_ns = 0;
        assert_int_equal(xdp_rig_run(&rig, buf, bytes), XDP_DROP);
    }
    samples_read(&s);
    assert_in_range(s.n, 256 * 1024 / (sizeof s.last + 8) - 1, 256 * 1024 / sizeof s.last);
    xdp_rig_counters(&rig, &count);
    assert_int_equal(count.dropped[REASON_TYPE_UNKNOWN], 2000);
    assert_int_equal(count.sampled_bytes, s.n * bytes);
    rig.control->sample_mask = 0;
}

/* --- frames of 64 KiB ------------------------------------------------------------------------ */

static int udp_socket(const char *ip, uint16_t port)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(inet_pton(AF_INET, ip, &to.sin_addr), 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* A batch of n events of `each` bytes, with the types 1, 2, 3, 1, ... */
static size_t big_batch(unsigned n, unsigned each)
{
    static struct edit event, batch;
    static uint8_t text[60000];

    batch.bytes = 0;
    memset(text, 0xff, sizeof text); /* no field begins so */
    for (unsigned i = 0; i < n; i++) {
        event.bytes = 0;
        edit_number(&event, 1, 1 + i % 3);
        edit_bytes(&event, 2, text, each);
        edit_message(&batch, 1, &event);
    }
    memcpy(payload, batch.data, batch.bytes);
    return batch.bytes;
}

/* A single event with two fields of `each` bytes, and one that ends too late. */
static size_t big_event(unsigned each)
{
    static struct edit event;
    static uint8_t text[30000];

    event.bytes = 0;
    memset(text, 0xff, sizeof text);
    edit_number(&event, 1, 3);
    edit_bytes(&event, 2, text, each);
    edit_bytes(&event, 100, text, each);
    edit_bytes(&event, 5, text, each);
    memcpy(payload, event.data, event.bytes);
    return event.bytes - 1;
}

/* Sends it over loopback, where the program is attached, and waits until it is counted. */
static void send_big(int from, size_t bytes, struct xdp_counters *ret)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(FRAME_PORT) };
    uint64_t until = policy_now_ns() + 5000000000u;

    inet_pton(AF_INET, "198.51.100.1", &to.sin_addr);
    xdp_rig_clear(&rig);
    assert_int_equal(sendto(from, payload, bytes, 0, (struct sockaddr *)&to, sizeof to), bytes);
    do {
        xdp_rig_counters(&rig, ret);
        sched_yield();
    } while (ret->arrived == 0 && policy_now_ns() < until);
}

static void a_datagram_longer_than_the_walks_offsets_is_not_misread(void **state)
{
    int from = udp_socket("192.0.2.1", 5000), to = udp_socket("198.51.100.1", FRAME_PORT);
    struct xdp_counters count;

    assert_int_equal(bpf_xdp_attach(1, rig.fd, XDP_FLAGS_SKB_MODE, NULL), 0);
    for (unsigned each = 1000; each <= 31000; each += 1000) {
        size_t bytes = big_batch(63000 / each, each);

        send_big(from, bytes, &count);
        assert_int_equal(count.arrived, 1);
        assert_int_equal(count.bytes, bytes);
        assert_int_equal(count.type_arrived[1], 1);
        assert_int_equal(count.passed[PASS_OVERSIZE], 1);
        /* The walk ends before the event does, if it is long enough. */
        send_big(from, big_event(each / 2), &count);
        assert_int_equal(count.type_arrived[3], 1);
        assert_int_equal(count.passed[PASS_OVERSIZE], each / 2 * 2 > WALK_BYTES);
        assert_int_equal(count.dropped[REASON_EVENT_MALFORMED], each / 2 * 2 < WALK_BYTES);
    }
    assert_int_equal(bpf_xdp_detach(1, XDP_FLAGS_SKB_MODE, NULL), 0);
    close(from);
    close(to);
}

/* --- set up ---------------------------------------------------------------------------------- */

static int network_open(void)
{
    char command[512];

    if (unshare(CLONE_NEWNET) != 0)
        return -1;
    snprintf(command, sizeof command,
             "ip link set lo up && ip addr add 198.51.100.1/32 dev lo &&"
             " ip addr add 192.0.2.1/32 dev lo &&"
             " ip link add d0 numrxqueues %u type veth peer name d1 numtxqueues %u &&"
             " ip link set d0 up",
             QUEUES, QUEUES);
    if (system(command) != 0)
        return -1;
    device = if_nametoindex("d0");
    return device != 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_socket_it_goes_the_kernels_way),
        cmocka_unit_test(without_af_xdp_all_goes_the_kernels_way),
        cmocka_unit_test(what_is_too_long_for_a_frame_goes_the_kernels_way),
        cmocka_unit_test(every_interface_has_its_counters),
        cmocka_unit_test(every_interface_queue_and_class_has_its_socket),
        cmocka_unit_test(a_bank_that_is_switched_off_stands_still),
        cmocka_unit_test(a_generation_has_its_own_policy),
        cmocka_unit_test(the_map_in_a_map_can_be_put_again),
        cmocka_unit_test(a_dropped_frame_is_sampled_with_its_head),
        cmocka_unit_test(only_reasons_in_the_mask_are_sampled),
        cmocka_unit_test(what_is_taken_or_not_ours_is_not_sampled),
        cmocka_unit_test(samples_have_a_rate),
        cmocka_unit_test(a_full_ring_costs_samples_and_nothing_else),
        cmocka_unit_test(a_datagram_longer_than_the_walks_offsets_is_not_misread),
    };
    int rc;

    if (geteuid() == 0 && network_open() != 0) {
        puts("no network namespace with interfaces of its own can be made");
        return 77;
    }
    rc = xdp_rig_open(&rig);
    if (rc != 0)
        return rc;
    xdp_rig_sockets(&rig);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    xdp_rig_close(&rig);
    return rc;
}
