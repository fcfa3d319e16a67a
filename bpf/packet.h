/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * packet.h - from an Ethernet frame to a UDP datagram or TCP segment; compiled for the kernel and
 * for the daemon, which reads the frames that it gets by AF_XDP with the same code.
 *
 * Ethernet, up to two VLAN tags, IPv4 with options, IPv6 with extension headers. What is not
 * understood is PACKET_OTHER: the kernel's business. A fragment is never taken for a datagram.
 *
 * Memory: borrows the frame. Every byte is checked against its end before it is read.
 */
#ifndef SLUICE_BPF_PACKET_H
#define SLUICE_BPF_PACKET_H

#include "shared.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#define PACKET_VLANS_MAX      2
#define PACKET_EXTENSIONS_MAX 6

#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17

enum packet_kind {
    PACKET_OTHER,
    PACKET_FRAGMENT, /* of UDP; source and destination are there */
    PACKET_TCP,      /* `flags` is there */
    PACKET_UDP,
    PACKET_LENGTH, /* UDP, whose lengths do not fit its frame: no payload */
};

struct packet {
    struct address source, destination;
    __u16 source_port, port; /* network order */
    __u16 checksum;          /* UDP's, as in the packet */
    __u8 flags;              /* TCP's */
    __u8 ipv4_header_bytes;  /* 0: IPv6 */
    const __u8 *mac;         /* the destination's */
    const __u8 *ip;          /* the IP header */
    const __u8 *udp;         /* the UDP header */
    __u32 payload_bytes;     /* behind it */
};

static __always_inline __u16 load_be16(const __u8 *p) { return (__u16)(p[0] << 8 | p[1]); }

/* For clang's BPF, memcpy() is a load a byte; the machines that it is for load unaligned words. */
#ifdef __bpf__
#define LOAD_RAW(type, p) (*(const type *)(const void *)(p))
#else
#define LOAD_RAW(type, p)                                                                          \
    __extension__({                                                                                \
        type v_;                                                                                   \
        __builtin_memcpy(&v_, (p), sizeof v_);                                                     \
        v_;                                                                                        \
    })
#endif

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "addresses are put together so");
#define MAPPED_PREFIX 0xffff0000ull /* bytes 8..11 of ::ffff:0:0/96 */

/* The transport header at `at`; the IP payload from there on has l4_bytes. */
static __always_inline enum packet_kind
packet_transport(const __u8 *at, const __u8 *end, __u8 protocol, __u32 l4_bytes, struct packet *p)
{
    __u16 bytes;

    if (protocol == PROTOCOL_TCP) {
        if (at + 14 > end)
            return PACKET_OTHER;
        p->source_port = LOAD_RAW(__u16, at);
        p->port = LOAD_RAW(__u16, at + 2);
        p->flags = at[13];
        return PACKET_TCP;
    }
    if (protocol != PROTOCOL_UDP || at + 8 > end)
        return PACKET_OTHER;
    p->source_port = LOAD_RAW(__u16, at);
    p->port = LOAD_RAW(__u16, at + 2);
    p->checksum = LOAD_RAW(__u16, at + 6);
    p->udp = at;
    bytes = load_be16(at + 4);
    p->payload_bytes = 0;
    /* IP's length, too, must be within the frame: the kernel takes no other. */
    if (bytes < 8 || bytes > l4_bytes || at + (__u16)l4_bytes > end)
        return PACKET_LENGTH;
    p->payload_bytes = bytes - 8u;
    return PACKET_UDP;
}

static __always_inline enum packet_kind packet_ipv4(const __u8 *at, const __u8 *end,
                                                    struct packet *p)
{
    __u32 header, total;

    if (at + 20 > end || at[0] >> 4 != 4)
        return PACKET_OTHER;
    header = (at[0] & 0xfu) * 4;
    total = load_be16(at + 2);
    if (header < 20 || total < header || (at[9] != PROTOCOL_UDP && at[9] != PROTOCOL_TCP))
        return PACKET_OTHER;
    p->ip = at;
    p->ipv4_header_bytes = (__u8)header;
    p->source.half[0] = p->destination.half[0] = 0;
    p->source.half[1] = (__u64)LOAD_RAW(__u32, at + 12) << 32 | MAPPED_PREFIX;
    p->destination.half[1] = (__u64)LOAD_RAW(__u32, at + 16) << 32 | MAPPED_PREFIX;
    /* More fragments, or an offset. */
    if ((load_be16(at + 6) & 0x3fff) != 0)
        return at[9] == PROTOCOL_UDP ? PACKET_FRAGMENT : PACKET_OTHER;
    return packet_transport(at + header, end, at[9], total - header, p);
}

enum extension {
    EXT_HOPS = 0,
    EXT_ROUTING = 43,
    EXT_FRAGMENT = 44,
    EXT_AUTH = 51,
    EXT_OPTIONS = 60
};

static __always_inline enum packet_kind packet_ipv6(const __u8 *at, const __u8 *end,
                                                    struct packet *p)
{
    __u32 left, bytes;
    __u8 next;

    if (at + 40 > end || at[0] >> 4 != 6)
        return PACKET_OTHER;
    left = load_be16(at + 4);
    next = at[6];
    p->ip = at;
    p->ipv4_header_bytes = 0;
    p->source.half[0] = LOAD_RAW(__u64, at + 8);
    p->source.half[1] = LOAD_RAW(__u64, at + 16);
    p->destination.half[0] = LOAD_RAW(__u64, at + 24);
    p->destination.half[1] = LOAD_RAW(__u64, at + 32);
    /* A mapped address is not for the wire: it would look like one of our IPv4 addresses. */
    if (p->destination.half[0] == 0 && (__u32)p->destination.half[1] == MAPPED_PREFIX)
        return PACKET_OTHER;
    at += 40;
    for (int i = 0; i <= PACKET_EXTENSIONS_MAX; i++) {
        if (next == PROTOCOL_UDP || next == PROTOCOL_TCP)
            return packet_transport(at, end, next, left, p);
        if (i == PACKET_EXTENSIONS_MAX || at + 8 > end)
            return PACKET_OTHER;
        if (next == EXT_FRAGMENT) {
            /* An offset, or more to come; else it is whole (an atomic fragment). */
            if ((load_be16(at + 2) & 0xfff9) != 0)
                return at[0] == PROTOCOL_UDP ? PACKET_FRAGMENT : PACKET_OTHER;
            bytes = 8;
        } else if (next == EXT_AUTH) {
            bytes = (at[1] + 2u) * 4;
        } else if (next == EXT_HOPS || next == EXT_OPTIONS || next == EXT_ROUTING) {
            /* With segments left, this is not where it goes. */
            if (next == EXT_ROUTING && at[3] != 0)
                return PACKET_OTHER;
            bytes = (at[1] + 1u) * 8;
        } else {
            return PACKET_OTHER;
        }
        /* No change; but all of these ways look alike to the verifier from here on. */
        bytes &= 0xffc;
        if (bytes > left)
            return PACKET_OTHER;
        next = at[0];
        left -= bytes;
        at += bytes;
    }
    return PACKET_OTHER;
}

static __always_inline enum packet_kind packet_parse(const __u8 *at, const __u8 *end,
                                                     struct packet *p)
{
    __u16 protocol;

    if (at + 14 > end)
        return PACKET_OTHER;
    p->mac = at;
    protocol = load_be16(at + 12);
    at += 14;
    for (int i = 0; i < PACKET_VLANS_MAX; i++) {
        if (protocol != 0x8100 && protocol != 0x88a8)
            break;
        if (at + 4 > end)
            return PACKET_OTHER;
        protocol = load_be16(at + 2);
        at += 4;
    }
    if (protocol == 0x0800)
        return packet_ipv4(at, end, p);
    if (protocol == 0x86dd)
        return packet_ipv6(at, end, p);
    return PACKET_OTHER;
}

/* Addresses that no packet from outside can have as its source: unspecified, loopback, multicast
 * and broadcast. The kernel would not take them either. */
static __always_inline int source_is_martian(const struct address *source, int ipv4)
{
    __u8 first = (__u8)(ipv4 ? source->half[1] >> 32 : source->half[0]);

    if (ipv4)
        return first == 0 || first == 127 || first >= 224;
    if (first == 0xff)
        return 1;
    /* ::, ::1, and IPv4 that is mapped: that is not for the wire. */
    if (source->half[0] != 0)
        return 0;
    return source->half[1] == 0 || source->half[1] == 1ull << 56 ||
           (__u32)source->half[1] == MAPPED_PREFIX;
}

#endif
