/*
 * frames.h - Ethernet frames for tests: headers of every kind around a payload.
 *
 * Memory: the caller's buffer; frame_build() returns the frame's bytes. Checksums are right unless
 *         asked otherwise. Defaults (frame_init()): from 192.0.2.1 or 2001:db8::1 port 5000 to
 *         198.51.100.1 or 2001:db8:1::1 port 7400, MAC addresses all zero, as on loopback.
 */
#ifndef SLUICE_TESTS_FRAMES_H
#define SLUICE_TESTS_FRAMES_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_PORT 7400u

struct frame {
    uint8_t mac[6];        /* the destination's */
    unsigned vlans;        /* 0..3 tags */
    uint16_t vlan_type[3]; /* 0: 0x8100 */
    bool v6;
    uint8_t protocol;                    /* 17 UDP, 6 TCP, or what is wanted */
    struct in6_addr source, destination; /* IPv4 as a mapped address */
    uint16_t source_port, port;
    unsigned options_bytes; /* of IPv4, a multiple of 4, at most 40 */
    uint8_t extension[8];   /* IPv6 headers in order: 0, 43, 44, 51, 60 */
    unsigned extensions;
    uint8_t segments_left; /* of a routing header */
    uint16_t fragment;     /* flags and offset as IPv4 writes them: 0x2000 is "more" */
    uint8_t tcp_flags;
    int udp_length;   /* -1: right */
    int ip_length;    /* -1: right */
    int checksum;     /* of UDP: -1 right, -2 only the pseudo header's, else this value */
    unsigned padding; /* bytes behind the IP packet */
    const void *payload;
    size_t bytes;
};

void frame_init(struct frame *f, const void *payload, size_t bytes);
/* "192.0.2.1" or "2001:db8::1". */
struct in6_addr frame_address(const char *text);
/* out must be 2-byte aligned. */
size_t frame_build(const struct frame *f, uint8_t *out, size_t cap);

#endif
