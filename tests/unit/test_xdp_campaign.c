/*
 * test_xdp_campaign.c - the XDP program against its model in user space (tests/lib/xdp_model.h) on
 * every cut and every flipped bit of valid frames, and on random frames: the verdict and every
 * counter after every single frame, and arrived = redirected + passed + dropped.
 *
 *   SLUICE_XDP_FRAMES  how many random ones (100000; in full mode 1000000)
 *   SLUICE_XDP_SEED    (1)
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/message.h"
#include "tests/lib/xdp_model.h"

static struct xdp_rig rig;
static struct xdp_model model;
static _Alignas(8) uint8_t frame[8192];
static _Alignas(8) uint8_t valid[8192];
static uint8_t payload[4096];

static struct message_maker maker;
static uint64_t frames, seed;

static unsigned below(unsigned limit) { return (unsigned)message_below(&maker, limit); }

/* --- valid frames, damaged ------------------------------------------------------------------- */

static const uint8_t all_extensions[] = { 0, 60, 43, 44, 51, 60 };

static void v6(struct frame *f)
{
    f->v6 = true;
    f->source = frame_address("2001:db8::1");
    f->destination = frame_address("2001:db8:1::1");
}

/* Nine kinds of frame; returns the bytes, 0 when there are no more. */
static size_t valid_frame(unsigned i)
{
    static const unsigned types[] = { 1, 2, 3, 0 };
    struct frame f;
    size_t bytes = i % 2 ? message_sample_batch(payload, sizeof payload, types, 3)
                         : message_sample_event(payload, sizeof payload, 1 + i % 3);

    frame_init(&f, payload, bytes);
    switch (i) {
    case 0:
    case 1:
        break;
    case 2:
        f.vlans = 2;
        f.vlan_type[0] = 0x88a8;
        break;
    case 3:
        f.options_bytes = 40;
        break;
    case 4:
    case 5:
        v6(&f);
        break;
    case 6:
        v6(&f);
        f.extensions = sizeof all_extensions;
        memcpy(f.extension, all_extensions, sizeof all_extensions);
        break;
    case 7:
        v6(&f);
        f.vlans = 1;
        f.extensions = 1;
        f.extension[0] = 44;
        break;
    case 8:
        f.protocol = IPPROTO_TCP;
        f.tcp_flags = 2;
        break;
    default:
        return 0;
    }
    return frame_build(&f, valid, sizeof valid);
}

static void every_valid_frame_is_taken(void **state)
{
    size_t bytes;

    for (unsigned i = 0; (bytes = valid_frame(i)) > 0; i++) {
        int verdict = xdp_model_check(&model, valid, bytes);

        assert_int_equal(verdict, i == 8 ? XDP_PASS : XDP_REDIRECT);
    }
}

static void every_cut_of_a_valid_frame_is_judged_as_the_model_says(void **state)
{
    size_t bytes;

    for (unsigned i = 0; (bytes = valid_frame(i)) > 0; i++) {
        for (size_t n = 14; n < bytes; n++) {
            int verdict = xdp_model_check(&model, valid, n);

            assert_true(verdict == XDP_PASS || verdict == XDP_DROP);
        }
        /* The kernel gives no program less than an Ethernet header. */
        for (size_t n = 0; n < 14; n++)
            assert_int_equal(xdp_model_verdict(&model, valid, n), XDP_PASS);
    }
}

static void every_flipped_bit_is_judged_as_the_model_says(void **state)
{
    size_t bytes;

    for (unsigned i = 0; (bytes = valid_frame(i)) > 0; i++) {
        for (size_t bit = 0; bit < bytes * 8; bit++) {
            int verdict;

            valid[bit / 8] ^= (uint8_t)(1u << bit % 8);
            verdict = xdp_model_check(&model, valid, bytes);
            valid[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_true(verdict == XDP_PASS || verdict == XDP_DROP || verdict == XDP_REDIRECT);
        }
    }
}

/* --- random frames --------------------------------------------------------------------------- */

static const char *const v4_sources[] = { "192.0.2.1",   "192.0.2.77",     "192.0.2.128",
                                          "203.0.113.9", "127.0.0.1",      "0.0.0.0",
                                          "224.0.0.1",   "255.255.255.255" };
static const char *const v6_sources[] = {
    "2001:db8::1", "2001:db8::2", "2001:db8:ffff::1", "fe80::1", "::1",
    "ff02::1",     "::",          "::ffff:192.0.2.1"
};
static const char *const networks[] = {
    "0.0.0.0/0", "192.0.2.0/24",  "192.0.2.64/26",   "192.0.2.1/32",
    "::/0",      "2001:db8::/32", "2001:db8::1/128", "2001:db8:8000::/33"
};

static void shape_v6(struct frame *f)
{
    static const uint8_t kinds[] = { 0, 43, 44, 51, 60 };

    v6(f);
    f->source = frame_address(v6_sources[below(3) ? below(2) : below(8)]);
    f->extensions = below(3) ? 0 : below(8);
    for (unsigned i = 0; i < f->extensions; i++)
        f->extension[i] = kinds[below(5)];
    f->segments_left = below(10) == 0;
}

static void shape(struct frame *f)
{
    f->vlans = below(4) ? 0 : below(4);
    for (unsigned i = 0; i < f->vlans; i++)
        f->vlan_type[i] = below(2) ? 0x88a8 : 0x8100;
    if (below(2)) {
        shape_v6(f);
    } else {
        f->source = frame_address(v4_sources[below(3) ? below(2) : below(8)]);
        f->options_bytes = below(3) ? 0 : 4 * below(11);
    }
    if (below(20) == 0)
        f->protocol = (uint8_t)below(256);
    else if (below(10) == 0)
        f->protocol = IPPROTO_TCP;
    if (below(20) == 0)
        f->port = (uint16_t)below(65536);
    if (below(20) == 0)
        f->fragment = (uint16_t)(below(2) ? 0x2000 : below(0x4000));
    if (below(20) == 0)
        f->udp_length = (int)below(below(2) ? 16 : 2000);
    if (below(20) == 0)
        f->ip_length = (int)below(below(2) ? 80 : 2000);
    if (below(10) == 0)
        f->padding = below(40);
    if (below(30) == 0)
        f->mac[below(6)] = 1;
    f->tcp_flags = (uint8_t)below(256);
}

static size_t random_frame(void)
{
    static struct edit message;
    struct frame f;
    size_t bytes;

    message_make(&maker, &message, below(4) ? 1400 : 3000);
    frame_init(&f, message.data, message.bytes);
    shape(&f);
    bytes = frame_build(&f, frame, sizeof frame);
    if (below(20) == 0)
        bytes = 14 + below((unsigned)bytes - 13);
    if (below(10) == 0) {
        for (unsigned n = 1 + below(3); n > 0; n--)
            frame[below(bytes < 90 ? (unsigned)bytes : 90)] ^= (uint8_t)(1u << below(8));
    }
    return bytes;
}

/* Everything but rates, which the model cannot foresee. */
static void random_policy(struct policy *p)
{
    static const uint8_t actions[] = { POLICY_ACCEPT, POLICY_ACCEPT, POLICY_DROP, POLICY_SAMPLE,
                                       POLICY_UNKNOWN };

    xdp_rig_policy(p);
    for (unsigned t = 0; t < POLICY_TYPES; t++) {
        if (below(3) == 0)
            continue;
        p->type[t].action = actions[below(5)];
        p->type[t].class = (uint8_t)below(4);
        p->type[t].every = below(4);
    }
}

static void change(void)
{
    struct policy p;

    for (int shadow = 0; shadow < 2; shadow++) {
        random_policy(&p);
        xdp_model_policy(&model, &p, shadow);
    }
    rig.control->shadow = (uint8_t)below(2);
    rig.control->interface[0].queues = below(4) != 0;
    rig.control->interface[0].frame_bytes_max = below(8) ? 1792 : 0;
    rig.control->interface[0].ifindex = below(16) ? 1 : 2;
    rig.control->port = below(16) ? htons(FRAME_PORT) : 0;
}

static void random_frames_are_judged_as_the_model_says(void **state)
{
    uint64_t verdicts[5] = { 0 };
    struct xdp_counters *c = &model.count;

    maker.state = seed;
    for (uint64_t i = 0; i < frames; i++) {
        size_t bytes;
        int verdict;

        if (i % 512 == 0)
            change();
        if (i % 128 == 0)
            xdp_model_rule(&model, networks[below(8)], 1 + below(2), below(2));
        bytes = random_frame();
        verdict = xdp_model_check(&model, frame, bytes);
        assert_in_range(verdict, XDP_DROP, XDP_REDIRECT);
        verdicts[verdict]++;
    }
    print_message("%" PRIu64 " frames: %" PRIu64 " dropped, %" PRIu64 " passed, %" PRIu64
                  " redirected; seed %" PRIu64 "\n",
                  frames, verdicts[XDP_DROP], verdicts[XDP_PASS], verdicts[XDP_REDIRECT], seed);
    /* Every kind must have come up. */
    for (unsigned r = 0; r < REASONS; r++)
        assert_int_equal(c->dropped[r] != 0, r != REASON_TYPE_RATE && r != REASON_SOURCE_RATE);
    for (unsigned n = 0; n < XDP_CLASSES; n++)
        assert_true(c->redirected[n] > 0);
    assert_true(c->passed[PASS_NO_SOCKET] > 0 && c->passed[PASS_OVERSIZE] > 0);
    assert_true(c->fragments > 0 && c->tcp[TCP_PASSED] > 0 && c->tcp[TCP_DENIED] > 0);
    assert_true(c->shadow_taken > 0 && c->shadow[REASON_TYPE_DROPPED] > 0);
}

/* --- set up ---------------------------------------------------------------------------------- */

static uint64_t env_number(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 10) : fallback;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_valid_frame_is_taken),
        cmocka_unit_test(every_cut_of_a_valid_frame_is_judged_as_the_model_says),
        cmocka_unit_test(every_flipped_bit_is_judged_as_the_model_says),
        cmocka_unit_test(random_frames_are_judged_as_the_model_says),
    };
    const char *mode = getenv("SLUICE_MODE");
    int rc = xdp_rig_open(&rig);

    if (rc != 0)
        return rc;
    xdp_rig_sockets(&rig);
    xdp_model_init(&model, &rig);
    frames = env_number("SLUICE_XDP_FRAMES", mode && !strcmp(mode, "full") ? 1000000 : 100000);
    seed = env_number("SLUICE_XDP_SEED", 1);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    xdp_rig_close(&rig);
    return rc;
}
