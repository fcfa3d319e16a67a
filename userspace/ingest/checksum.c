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

static uint64_t load(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

/* Four sums at a time: an addition with its carry waits for the one before it. */
static uint64_t sum_of(uint64_t sum, const uint8_t *p, size_t bytes)
{
    uint64_t a = 0, b = 0, c = 0, v = 0;

    for (; bytes >= 4 * sizeof v; p += 4 * sizeof v, bytes -= 4 * sizeof v) {
        sum = add(sum, load(p));
        a = add(a, load(p + 8));
        b = add(b, load(p + 16));
        c = add(c, load(p + 24));
    }
    sum = add(add(sum, a), add(b, c));
    for (; bytes >= sizeof v; p += sizeof v, bytes -= sizeof v)
        sum = add(sum, load(p));
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
