/*
 * checksum.c - see checksum.h.
 *
 * The sum of 16-bit words in one's complement is the same in any byte order and at any width, so
 * eight bytes are added at a time and folded at the end.
 *
 * Thread:  any.
 * Memory:  borrows the frame.
 */
#include "ingest/checksum.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>

static uint64_t add(uint64_t sum, uint64_t v)
{
    sum += v;
    return sum + (sum < v);
}

static uint64_t sum_of(uint64_t sum, const uint8_t *p, size_t bytes)
{
    uint64_t v;

    for (; bytes >= sizeof v; p += sizeof v, bytes -= sizeof v) {
        memcpy(&v, p, sizeof v);
        sum = add(sum, v);
    }
    v = 0;
    memcpy(&v, p, bytes);
    return add(sum, v);
}

static uint16_t fold(uint64_t sum)
{
    sum = (sum & UINT32_MAX) + (sum >> 32);
    sum = (sum & UINT32_MAX) + (sum >> 32);
    sum = (sum & UINT16_MAX) + (sum >> 16);
    sum = (sum & UINT16_MAX) + (sum >> 16);
    return (uint16_t)sum;
}

static uint64_t pseudo_header(const struct packet *p)
{
    uint32_t bytes = p->payload_bytes + 8;
    uint64_t sum = (uint64_t)htons(PROTOCOL_UDP) + htons((uint16_t)bytes);

    if (p->ipv4_header_bytes != 0)
        return sum_of(sum, p->ip + 12, 8);
    return sum_of(sum, p->ip + 8, 32);
}

bool checksum_ok(const struct packet *p, bool unfinished)
{
    uint64_t sum;

    if (p->ipv4_header_bytes != 0 && fold(sum_of(0, p->ip, p->ipv4_header_bytes)) != UINT16_MAX)
        return false;
    if (p->checksum == 0)
        return p->ipv4_header_bytes != 0;
    sum = pseudo_header(p);
    if (fold(sum_of(sum, p->udp, p->payload_bytes + 8)) == UINT16_MAX)
        return true;
    return unfinished && fold(sum) == p->checksum;
}
