/*
 * frames.c - see frames.h.
 */
#include "frames.h"

#include <arpa/inet.h>
#include <assert.h>
#include <string.h>

struct in6_addr frame_address(const char *text)
{
    struct in6_addr a = IN6ADDR_ANY_INIT;

    if (strchr(text, ':')) {
        int ok = inet_pton(AF_INET6, text, &a);

        assert(ok == 1);
        return a;
    }
    a.s6_addr[10] = a.s6_addr[11] = 0xff;
    if (inet_pton(AF_INET, text, a.s6_addr + 12) != 1)
        assert(!"an IPv4 address");
    return a;
}

void frame_init(struct frame *f, const void *payload, size_t bytes)
{
    *f = (struct frame){
        .protocol = IPPROTO_UDP,
        .source = frame_address("192.0.2.1"),
        .destination = frame_address("198.51.100.1"),
        .source_port = 5000,
        .port = FRAME_PORT,
        .udp_length = -1,
        .ip_length = -1,
        .checksum = -1,
        .payload = payload,
        .bytes = bytes,
    };
}

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static uint32_t sum(uint32_t s, const uint8_t *p, size_t bytes)
{
    for (size_t i = 0; i + 1 < bytes; i += 2)
        s += (uint32_t)(p[i] << 8 | p[i + 1]);
    if (bytes % 2)
        s += (uint32_t)p[bytes - 1] << 8;
    return s;
}

static uint16_t fold(uint32_t s)
{
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return (uint16_t)s;
}

static uint32_t pseudo(const struct frame *f, uint32_t l4_bytes)
{
    unsigned skip = f->v6 ? 0 : 12;
    uint32_t s = sum(0, f->source.s6_addr + skip, 16 - skip);

    s = sum(s, f->destination.s6_addr + skip, 16 - skip);
    return s + f->protocol + l4_bytes;
}

static size_t put_udp(const struct frame *f, uint8_t *p)
{
    uint32_t bytes = (uint32_t)(8 + f->bytes);
    uint16_t c;

    put16(p, f->source_port);
    put16(p + 2, f->port);
    put16(p + 4, f->udp_length >= 0 ? (unsigned)f->udp_length : bytes);
    put16(p + 6, 0);
    memcpy(p + 8, f->payload, f->bytes);
    if (f->checksum == -2) {
        c = fold(pseudo(f, bytes));
    } else if (f->checksum == -1) {
        c = (uint16_t)~fold(sum(pseudo(f, bytes), p, bytes));
        c = c ? c : 0xffff;
    } else {
        c = (uint16_t)f->checksum;
    }
    put16(p + 6, c);
    return bytes;
}

static size_t put_tcp(const struct frame *f, uint8_t *p)
{
    memset(p, 0, 20);
    put16(p, f->source_port);
    put16(p + 2, f->port);
    p[12] = 5 << 4;
    p[13] = f->tcp_flags;
    memcpy(p + 20, f->payload, f->bytes);
    return 20 + f->bytes;
}

static size_t put_l4(const struct frame *f, uint8_t *p)
{
    return f->protocol == IPPROTO_TCP ? put_tcp(f, p) : put_udp(f, p);
}

static size_t put_v4(const struct frame *f, uint8_t *p)
{
    size_t header = 20 + f->options_bytes, bytes = header + put_l4(f, p + header);

    memset(p, 0, header);
    p[0] = (uint8_t)(0x40 | header / 4);
    put16(p + 2, f->ip_length >= 0 ? (unsigned)f->ip_length : (unsigned)bytes);
    put16(p + 6, f->fragment);
    p[8] = 64;
    p[9] = f->protocol;
    memcpy(p + 12, f->source.s6_addr + 12, 4);
    memcpy(p + 16, f->destination.s6_addr + 12, 4);
    memset(p + 20, 1, f->options_bytes); /* no-operation */
    put16(p + 10, (uint16_t)~fold(sum(0, p, header)));
    return bytes;
}

static size_t put_extension(const struct frame *f, uint8_t *p, uint8_t kind, uint8_t next)
{
    memset(p, 0, 16);
    p[0] = next;
    switch (kind) {
    case 44:
        put16(p + 2, (f->fragment & 0x1fffu) << 3 | (f->fragment & 0x2000 ? 1 : 0));
        return 8;
    case 51:
        p[1] = 2; /* 16 bytes */
        return 16;
    case 43:
        p[3] = f->segments_left;
        return 8;
    default:
        p[2] = 1; /* PadN */
        p[3] = 4;
        return 8;
    }
}

static size_t put_v6(const struct frame *f, uint8_t *p)
{
    size_t at = 40;

    memset(p, 0, 40);
    p[0] = 0x60;
    p[7] = 64;
    p[6] = f->extensions > 0 ? f->extension[0] : f->protocol;
    memcpy(p + 8, f->source.s6_addr, 16);
    memcpy(p + 24, f->destination.s6_addr, 16);
    for (unsigned i = 0; i < f->extensions; i++)
        at += put_extension(f, p + at, f->extension[i],
                            i + 1 < f->extensions ? f->extension[i + 1] : f->protocol);
    at += put_l4(f, p + at);
    put16(p + 4, f->ip_length >= 0 ? (unsigned)f->ip_length : (unsigned)(at - 40));
    return at;
}

size_t frame_build(const struct frame *f, uint8_t *out, size_t cap)
{
    size_t at = 12;

    assert(cap >= 14 + 12 + 40 + 8 * 16 + 20 + f->bytes + f->padding);
    assert(((uintptr_t)out & 1) == 0);
    memset(out, 0, 12);
    memcpy(out, f->mac, 6);
    for (unsigned i = 0; i < f->vlans; i++, at += 4) {
        put16(out + at, f->vlan_type[i] ? f->vlan_type[i] : 0x8100);
        put16(out + at + 2, 5 + i);
    }
    put16(out + at, f->v6 ? 0x86dd : 0x0800);
    at += 2;
    at += f->v6 ? put_v6(f, out + at) : put_v4(f, out + at);
    memset(out + at, 0, f->padding);
    return at + f->padding;
}
