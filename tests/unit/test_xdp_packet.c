/*
 * test_xdp_packet.c - the XDP program on headers: what is ours, what is not, what is broken. Each
 * frame's verdict is written down here, and that no counter but the ones named moves.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/xdp_expect.h"

#define MORE_FRAGMENTS 0x2000
#define SYN            0x02

static struct xdp_rig rig;
static _Alignas(8) uint8_t buf[8192];

static struct frame udp_frame(bool v6)
{
    struct frame f;

    frame_init(&f, EVENT_1, sizeof EVENT_1 - 1);
    if (v6)
        frame_v6(&f);
    return f;
}

static struct frame tcp_frame(bool v6, uint8_t flags)
{
    struct frame f = udp_frame(v6);

    f.protocol = IPPROTO_TCP;
    f.tcp_flags = flags;
    return f;
}

/* --- ours or not ----------------------------------------------------------------------------- */

static void an_event_to_our_port_is_redirected(void **state)
{
    for (int v6 = 0; v6 < 2; v6++) {
        struct frame f = udp_frame(v6);

        expect_redirected(&rig, &f, 1, 0);
    }
}

static void another_address_or_mac_is_not_ours(void **state)
{
    static const char *const other4[] = { "198.51.100.2", "198.51.101.1", "255.255.255.255",
                                          "0.0.0.0", "192.0.2.1" };
    static const char *const other6[] = { "2001:db8:1::2", "2001:db8::1", "::",
                                          "ff02::1",       "::c633:6401", "::ffff:198.51.100.1" };
    struct frame f = udp_frame(false);

    for (size_t i = 0; i < sizeof other4 / sizeof other4[0]; i++) {
        f.destination = frame_address(other4[i]);
        expect_untouched(&rig, &f);
    }
    f = udp_frame(true);
    for (size_t i = 0; i < sizeof other6 / sizeof other6[0]; i++) {
        f.destination = frame_address(other6[i]);
        expect_untouched(&rig, &f);
    }
    for (unsigned bit = 0; bit < 48; bit++) {
        f = udp_frame(bit % 2);
        f.mac[bit / 8] = (uint8_t)(1u << bit % 8);
        expect_untouched(&rig, &f);
    }
}

static void every_one_of_the_addresses_is_ours(void **state)
{
    struct xdp_control was = *rig.control;
    struct frame f = udp_frame(false);
    struct in6_addr ip;

    for (unsigned i = 0; i < XDP_ADDRESSES_MAX; i++) {
        ip = frame_address("203.0.113.0");
        ip.s6_addr[15] = (uint8_t)i;
        memcpy(&rig.control->address[i], &ip, sizeof ip);
    }
    for (unsigned n = 0; n <= XDP_ADDRESSES_MAX; n += 16) {
        rig.control->addresses = n;
        rig.control->address_changes++;
        for (unsigned i = 0; i < XDP_ADDRESSES_MAX; i++) {
            f.destination = frame_address("203.0.113.0");
            f.destination.s6_addr[15] = (uint8_t)i;
            if (i < n)
                expect_redirected(&rig, &f, 1, 0);
            else
                expect_untouched(&rig, &f);
        }
    }
    was.address_changes = rig.control->address_changes + 1;
    *rig.control = was;
}

/* A CPU keeps the last address of ours, and the last source, which may become ours. */
static void an_address_that_comes_or_goes_does_so_for_the_next_packet(void **state)
{
    for (int v6 = 0; v6 < 2; v6++) {
        struct frame to = udp_frame(v6), from = udp_frame(v6);
        struct xdp_control *c = rig.control;
        struct address was = c->address[v6];

        memcpy(&c->address[2], &from.source, sizeof c->address[2]);
        for (int i = 0; i < 4; i++) {
            expect_redirected(&rig, &to, 1, 0);
            c->address[v6].half[0] ^= 1ull << 63;
            c->address_changes++;
            expect_untouched(&rig, &to);
            c->address[v6] = was;
            c->addresses = 3;
            c->address_changes++;
            expect_dropped(&rig, &from, 1, REASON_SOURCE_DENIED);
            c->addresses = 2;
            c->address_changes++;
        }
    }
}

static void with_no_interface_or_no_port_nothing_is_ours(void **state)
{
    struct frame f[] = { udp_frame(false), udp_frame(true), tcp_frame(false, 0) };

    for (size_t i = 0; i < 3; i++) {
        struct frame zero = f[i];

        rig.control->interface[0].ifindex = 7;
        expect_untouched(&rig, &f[i]);
        rig.control->interface[0].ifindex = 1;
        rig.control->port = 0;
        expect_untouched(&rig, &f[i]);
        zero.port = 0;
        expect_untouched(&rig, &zero);
        rig.control->port = htons(FRAME_PORT);
    }
}

static void another_protocol_is_not_ours(void **state)
{
    for (int v6 = 0; v6 < 2; v6++) {
        for (unsigned p = 0; p < 256; p++) {
            struct frame f = udp_frame(v6);

            f.protocol = (uint8_t)p;
            if (p != IPPROTO_UDP && p != IPPROTO_TCP)
                expect_untouched(&rig, &f);
        }
    }
}

static void another_ethertype_is_not_ours(void **state)
{
    struct frame f[] = { udp_frame(false), udp_frame(true) };

    for (int v6 = 0; v6 < 2; v6++) {
        size_t bytes = frame_build(&f[v6], buf, sizeof buf);

        for (unsigned type = 0; type < 65536; type += type % 256 == 0xff ? 1 : 1 + type % 7) {
            buf[12] = (uint8_t)(type >> 8);
            buf[13] = (uint8_t)type;
            if (type != (v6 ? 0x86ddu : 0x0800u))
                expect_frame(&rig, buf, bytes, XDP_PASS, &(struct xdp_counters){ 0 });
        }
    }
}

static void a_version_that_is_not_its_ethertypes_is_not_ours(void **state)
{
    for (int v6 = 0; v6 < 2; v6++) {
        struct frame f = udp_frame(v6);
        size_t bytes = frame_build(&f, buf, sizeof buf);

        for (unsigned version = 0; version < 16; version++) {
            buf[14] = (uint8_t)(version << 4 | (buf[14] & 15));
            if (version != (v6 ? 6u : 4u))
                expect_frame(&rig, buf, bytes, XDP_PASS, &(struct xdp_counters){ 0 });
        }
    }
}

/* A port, network order, into a frame that has been built. */
static void run_all_ports(struct frame f, struct xdp_counters *ret)
{
    size_t bytes = frame_build(&f, buf, sizeof buf), at = 14 + (f.v6 ? 40 : 20) + 2;
    int due = f.protocol == IPPROTO_UDP ? XDP_REDIRECT : XDP_PASS;

    xdp_rig_clear(&rig);
    for (unsigned port = 0; port < 65536; port++) {
        buf[at] = (uint8_t)(port >> 8);
        buf[at + 1] = (uint8_t)port;
        assert_int_equal(xdp_rig_run(&rig, buf, bytes), port == FRAME_PORT ? due : XDP_PASS);
    }
    xdp_rig_counters(&rig, ret);
}

static void of_all_ports_only_ours_is_ours(void **state)
{
    struct xdp_counters count, udp = { .arrived = 1, .bytes = sizeof EVENT_1 - 1 };
    struct xdp_counters tcp = { .tcp = { [TCP_PASSED] = 1 } };

    udp.type_arrived[1] = udp.redirected[0] = 1;
    for (int v6 = 0; v6 < 2; v6++) {
        run_all_ports(udp_frame(v6), &count);
        assert_memory_equal(&count, &udp, sizeof count);
        run_all_ports(tcp_frame(v6, 0), &count);
        assert_memory_equal(&count, &tcp, sizeof count);
    }
}

/* --- martian sources ------------------------------------------------------------------------- */

static void a_source_that_cannot_be_is_denied(void **state)
{
    static const struct {
        const char *ip;
        bool taken;
    } v4[] = { { "0.0.0.0", false },    { "0.1.2.3", false },        { "1.0.0.0", true },
               { "126.255.1.1", true }, { "127.0.0.1", false },      { "127.255.255.255", false },
               { "128.0.0.1", true },   { "223.255.255.255", true }, { "224.0.0.1", false },
               { "239.1.1.1", false },  { "240.0.0.1", false },      { "255.255.255.255", false } },
      v6[] = { { "::", false },
               { "::1", false },
               { "::2", true },
               { "ff02::1", false },
               { "ffff::", false },
               { "fe80::1", true },
               { "::1:0:0:0", true },
               { "::ffff:192.0.2.1", false },
               { "::fffe:c000:201", true },
               { "100::", true },
               { "::0100", true },
               { "::ffff:0:0", false } };

    xdp_rig_rule(&rig, "0.0.0.0/0", SOURCE_ALLOW, false);
    xdp_rig_rule(&rig, "::/0", SOURCE_ALLOW, false);
    for (size_t i = 0; i < 2 * sizeof v4 / sizeof v4[0]; i++) {
        struct frame f = udp_frame(i % 2);
        bool taken = i % 2 ? v6[i / 2].taken : v4[i / 2].taken;

        f.source = frame_address(i % 2 ? v6[i / 2].ip : v4[i / 2].ip);
        if (taken)
            expect_redirected(&rig, &f, 1, 0);
        else
            expect_dropped(&rig, &f, 1, REASON_SOURCE_DENIED);
    }
    xdp_rig_rule(&rig, "0.0.0.0/0", 0, false);
    xdp_rig_rule(&rig, "::/0", 0, false);
}

/* --- lengths --------------------------------------------------------------------------------- */

static void lengths_that_do_not_agree_are_dropped(void **state)
{
    for (int v6 = 0; v6 < 2; v6++) {
        struct frame f = udp_frame(v6);
        int l4 = 8 + (int)f.bytes, header = v6 ? 0 : 20; /* IPv6 does not count its own */

        for (f.udp_length = 0; f.udp_length < 8; f.udp_length++)
            expect_dropped(&rig, &f, 0, REASON_LENGTH);
        /* Past IP's end, and so past the frame's. */
        for (f.udp_length = l4 + 1; f.udp_length < 65536; f.udp_length += 1 + f.udp_length)
            expect_dropped(&rig, &f, 0, REASON_LENGTH);
        f.padding = 18; /* in the frame, but past IP's end */
        f.udp_length = l4 + 1;
        expect_dropped(&rig, &f, 0, REASON_LENGTH);
        f.udp_length = -1;
        f.ip_length = header + l4 + 18; /* now it is IP's, and UDP needs not all of it */
        expect_redirected(&rig, &f, 1, 0);
    }
}

static void an_ip_length_past_the_frame_is_dropped(void **state)
{
    for (int v6 = 0; v6 < 2; v6++) {
        struct frame f = udp_frame(v6);
        int right = 8 + (int)f.bytes + (v6 ? 0 : 20);

        for (f.ip_length = right + 1; f.ip_length < 65536; f.ip_length += f.ip_length)
            expect_dropped(&rig, &f, 0, REASON_LENGTH);
        f.ip_length = 65535;
        expect_dropped(&rig, &f, 0, REASON_LENGTH);
    }
}

static void an_ip_length_below_its_content_is_dropped_or_not_ours(void **state)
{
    struct frame f = udp_frame(false);

    for (f.ip_length = 0; f.ip_length < 20; f.ip_length++)
        expect_untouched(&rig, &f); /* shorter than IP's header: the kernel's business */
    for (; f.ip_length < 28 + (int)f.bytes; f.ip_length++)
        expect_dropped(&rig, &f, 0, REASON_LENGTH);
    f = udp_frame(true);
    for (f.ip_length = 0; f.ip_length < 8 + (int)f.bytes; f.ip_length++)
        expect_dropped(&rig, &f, 0, REASON_LENGTH);
}

static void a_udp_length_below_ips_leaves_bytes_behind(void **state)
{
    struct xdp_counters moved = { .arrived = 1, .bytes = 2, .redirected = { 1 } };

    moved.type_arrived[1] = 1;
    for (int v6 = 0; v6 < 2; v6++) {
        struct frame f = udp_frame(v6);

        f.udp_length = 8;
        expect_dropped_bytes(&rig, &f, 0, REASON_EMPTY, 0);
        f.udp_length = 9;
        expect_dropped_bytes(&rig, &f, 0, REASON_EVENT_MALFORMED, 1);
        f.udp_length = 10;
        expect(&rig, &f, XDP_REDIRECT, &moved);
        f.udp_length = 11; /* ends in the next field's tag */
        expect_dropped_bytes(&rig, &f, 1, REASON_EVENT_MALFORMED, 3);
    }
}

static void padding_behind_ip_is_nothing(void **state)
{
    for (int v6 = 0; v6 < 2; v6++) {
        struct frame f = udp_frame(v6);

        for (f.padding = 0; f.padding < 64; f.padding++)
            expect_redirected(&rig, &f, 1, 0);
    }
}

static void an_empty_datagram_is_dropped(void **state)
{
    for (int v6 = 0; v6 < 2; v6++) {
        struct frame f = udp_frame(v6);

        f.bytes = 0;
        expect_dropped(&rig, &f, 0, REASON_EMPTY);
    }
}

static void a_frame_too_short_for_its_headers_is_not_ours(void **state)
{
    struct frame f[] = { udp_frame(false), udp_frame(true), tcp_frame(false, SYN),
                         tcp_frame(true, SYN) };

    for (size_t i = 0; i < 4; i++) {
        size_t transport = 14 + (f[i].v6 ? 40 : 20), header = i < 2 ? 8 : 14;

        frame_build(&f[i], buf, sizeof buf);
        for (size_t n = 14; n < transport + header; n++)
            expect_frame(&rig, buf, n, XDP_PASS, &(struct xdp_counters){ 0 });
    }
}

/* --- VLAN, options, extension headers -------------------------------------------------------- */

static void two_vlan_tags_are_passed_over_and_a_third_is_not(void **state)
{
    for (unsigned i = 0; i < 64; i++) {
        struct frame f = udp_frame(i & 1);

        f.vlans = i >> 1 & 3;
        for (unsigned tag = 0; tag < 3; tag++)
            f.vlan_type[tag] = i >> (3 + tag) & 1 ? 0x88a8 : 0x8100;
        if (f.vlans < 3)
            expect_redirected(&rig, &f, 1, 0);
        else
            expect_untouched(&rig, &f);
    }
}

static void a_frame_that_ends_in_a_vlan_tag_is_not_ours(void **state)
{
    struct frame f = udp_frame(false);

    f.vlans = 2;
    frame_build(&f, buf, sizeof buf);
    for (size_t n = 14; n < 22; n++)
        expect_frame(&rig, buf, n, XDP_PASS, &(struct xdp_counters){ 0 });
}

static void ipv4_options_of_every_length_are_passed_over(void **state)
{
    struct frame f = udp_frame(false);

    for (f.options_bytes = 0; f.options_bytes <= 40; f.options_bytes += 4)
        expect_redirected(&rig, &f, 1, 0);
}

static void an_ipv4_header_below_20_bytes_is_not_ours(void **state)
{
    struct frame f = udp_frame(false);
    size_t bytes = frame_build(&f, buf, sizeof buf);

    for (unsigned words = 0; words < 5; words++) {
        buf[14] = (uint8_t)(0x40 | words);
        expect_frame(&rig, buf, bytes, XDP_PASS, &(struct xdp_counters){ 0 });
    }
}

static void every_extension_header_is_passed_over(void **state)
{
    static const uint8_t kinds[] = { 0, 43, 44, 51, 60 };
    struct frame f = udp_frame(true);

    for (unsigned k = 0; k < sizeof kinds; k++) {
        memset(f.extension, kinds[k], sizeof f.extension);
        for (f.extensions = 0; f.extensions <= 8; f.extensions++) {
            if (f.extensions <= PACKET_EXTENSIONS_MAX)
                expect_redirected(&rig, &f, 1, 0);
            else
                expect_untouched(&rig, &f);
        }
    }
    /* One after the other, and no others. */
    memcpy(f.extension, (const uint8_t[]){ 0, 60, 43, 44, 51, 60 }, 6);
    f.extensions = 6;
    expect_redirected(&rig, &f, 1, 0);
    f.extensions = 1;
    for (unsigned kind = 0; kind < 256; kind++) {
        f.extension[0] = (uint8_t)kind;
        if (memchr(kinds, (int)kind, sizeof kinds) || kind == 6 || kind == 17)
            continue;
        expect_untouched(&rig, &f);
    }
}

static void an_extension_header_past_ips_end_is_not_ours(void **state)
{
    struct frame f = udp_frame(true);
    size_t bytes;

    f.extensions = 1;
    f.extension[0] = 60;
    bytes = frame_build(&f, buf, sizeof buf);
    for (unsigned units = 3; units < 256; units++) {
        buf[14 + 40 + 1] = (uint8_t)units;
        expect_frame(&rig, buf, bytes, XDP_PASS, &(struct xdp_counters){ 0 });
    }
    /* Cut within it. */
    buf[14 + 40 + 1] = 0;
    for (size_t n = 14; n < 14 + 40 + 8 + 8; n++)
        expect_frame(&rig, buf, n, XDP_PASS, &(struct xdp_counters){ 0 });
}

static void a_route_that_is_not_at_its_end_is_not_ours(void **state)
{
    struct frame f = udp_frame(true);

    f.extensions = 1;
    f.extension[0] = 43;
    expect_redirected(&rig, &f, 1, 0);
    for (unsigned left = 1; left < 256; left++) {
        f.segments_left = (uint8_t)left;
        expect_untouched(&rig, &f);
    }
}

/* --- fragments ------------------------------------------------------------------------------- */

static void fragments_pass_and_are_counted(void **state)
{
    static const uint16_t parts[] = { MORE_FRAGMENTS, MORE_FRAGMENTS | 100, 100, 1, 0x1fff };
    struct xdp_counters one = { .fragments = 1 };

    for (int v6 = 0; v6 < 2; v6++) {
        struct frame f = udp_frame(v6);

        f.extensions = v6;
        f.extension[0] = 44;
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
            f.fragment = parts[i];
            f.port = (uint16_t)(i % 2 ? FRAME_PORT : 99); /* which is not looked at */
            f.protocol = IPPROTO_UDP;
            expect(&rig, &f, XDP_PASS, &one);
            f.protocol = IPPROTO_TCP;
            expect_untouched(&rig, &f);
        }
        f.protocol = IPPROTO_UDP;
        f.destination = frame_address(v6 ? "2001:db8:1::2" : "198.51.100.2");
        expect_untouched(&rig, &f);
    }
}

static void an_atomic_fragment_is_a_whole_datagram(void **state)
{
    struct frame f = udp_frame(true);

    f.extensions = 1;
    f.extension[0] = 44;
    expect_redirected(&rig, &f, 1, 0);
}

static void do_not_fragment_and_the_evil_bit_are_no_fragment(void **state)
{
    struct frame f = udp_frame(false);

    f.fragment = 0x4000;
    expect_redirected(&rig, &f, 1, 0);
    f.fragment = 0xc000;
    expect_redirected(&rig, &f, 1, 0);
}

static void a_fragment_counts_whatever_is_behind_its_ip_header(void **state)
{
    struct xdp_counters one = { .fragments = 1 };
    struct frame f = udp_frame(false);

    f.fragment = 100;
    f.bytes = 0;
    frame_build(&f, buf, sizeof buf);
    expect_frame(&rig, buf, 14 + 20, XDP_PASS, &one);
    expect_frame(&rig, buf, 14 + 20 + 3, XDP_PASS, &one);
}

/* --- TCP ------------------------------------------------------------------------------------- */

static void tcp_passes_unless_its_source_is_denied(void **state)
{
    struct xdp_counters passed = { .tcp = { [TCP_PASSED] = 1 } };
    struct xdp_counters denied = { .tcp = { [TCP_DENIED] = 1 } };

    for (int v6 = 0; v6 < 2; v6++) {
        const char *network = v6 ? "2001:db8::1/128" : "192.0.2.1/32";

        for (unsigned flags = 0; flags < 256; flags += 3) {
            struct frame f = tcp_frame(v6, (uint8_t)flags);

            expect(&rig, &f, XDP_PASS, &passed);
            f.source = frame_address(v6 ? "fe80::1" : "203.0.113.1"); /* nobody has named it */
            expect(&rig, &f, XDP_PASS, &passed);
            f.source = frame_address(v6 ? "2001:db8::1" : "192.0.2.1");
            xdp_rig_rule(&rig, network, SOURCE_DENY, false);
            expect(&rig, &f, XDP_DROP, &denied);
            xdp_rig_rule(&rig, network, 0, false);
        }
    }
}

static void tcp_needs_no_more_than_its_flags(void **state)
{
    struct xdp_counters passed = { .tcp = { [TCP_PASSED] = 1 } };
    struct frame f = tcp_frame(false, SYN);

    frame_build(&f, buf, sizeof buf);
    expect_frame(&rig, buf, 14 + 20 + 14, XDP_PASS, &passed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_to_our_port_is_redirected),
        cmocka_unit_test(another_address_or_mac_is_not_ours),
        cmocka_unit_test(every_one_of_the_addresses_is_ours),
        cmocka_unit_test(an_address_that_comes_or_goes_does_so_for_the_next_packet),
        cmocka_unit_test(with_no_interface_or_no_port_nothing_is_ours),
        cmocka_unit_test(another_protocol_is_not_ours),
        cmocka_unit_test(another_ethertype_is_not_ours),
        cmocka_unit_test(a_version_that_is_not_its_ethertypes_is_not_ours),
        cmocka_unit_test(of_all_ports_only_ours_is_ours),
        cmocka_unit_test(a_source_that_cannot_be_is_denied),
        cmocka_unit_test(lengths_that_do_not_agree_are_dropped),
        cmocka_unit_test(an_ip_length_past_the_frame_is_dropped),
        cmocka_unit_test(an_ip_length_below_its_content_is_dropped_or_not_ours),
        cmocka_unit_test(a_udp_length_below_ips_leaves_bytes_behind),
        cmocka_unit_test(padding_behind_ip_is_nothing),
        cmocka_unit_test(an_empty_datagram_is_dropped),
        cmocka_unit_test(a_frame_too_short_for_its_headers_is_not_ours),
        cmocka_unit_test(two_vlan_tags_are_passed_over_and_a_third_is_not),
        cmocka_unit_test(a_frame_that_ends_in_a_vlan_tag_is_not_ours),
        cmocka_unit_test(ipv4_options_of_every_length_are_passed_over),
        cmocka_unit_test(an_ipv4_header_below_20_bytes_is_not_ours),
        cmocka_unit_test(every_extension_header_is_passed_over),
        cmocka_unit_test(an_extension_header_past_ips_end_is_not_ours),
        cmocka_unit_test(a_route_that_is_not_at_its_end_is_not_ours),
        cmocka_unit_test(fragments_pass_and_are_counted),
        cmocka_unit_test(an_atomic_fragment_is_a_whole_datagram),
        cmocka_unit_test(do_not_fragment_and_the_evil_bit_are_no_fragment),
        cmocka_unit_test(a_fragment_counts_whatever_is_behind_its_ip_header),
        cmocka_unit_test(tcp_passes_unless_its_source_is_denied),
        cmocka_unit_test(tcp_needs_no_more_than_its_flags),
    };
    int rc = xdp_rig_open(&rig);

    if (rc != 0)
        return rc;
    xdp_rig_sockets(&rig);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    xdp_rig_close(&rig);
    return rc;
}
