/*
 * settings_source.c - the networks that sources are allowed or denied by.
 */
#include "base/settings_internal.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define MAPPED_BITS   96u /* of the prefix that makes an IPv4 address a mapped one */
#define IP_BYTES      40u /* 8 groups of 4; decimal ones come behind zeros, which are not written */
#define NETWORK_BYTES (IP_BYTES + sizeof "/128" - 1)
_Static_assert(sizeof "shadow.source." - 1 + NETWORK_BYTES <= SETTINGS_KEY_BYTES, "every key fits");

/* --- their text --------------------------------------------------------------------------------
 */

static bool is_mapped(const struct settings_source *x)
{
    struct in6_addr ip;

    memcpy(&ip, x->ip, sizeof ip);
    return IN6_IS_ADDR_V4MAPPED(&ip);
}

static void print_network(const struct settings_source *x, char ret[NETWORK_BYTES])
{
    bool v4 = is_mapped(x);
    const char *text = inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? x->ip + 12 : x->ip, ret, IP_BYTES);
    size_t bytes;

    assert(text == ret && x->bits <= 128 && (!v4 || x->bits >= MAPPED_BITS));
    bytes = strlen(ret);
    snprintf(ret + bytes, NETWORK_BYTES - bytes, "/%u", x->bits - (v4 ? MAPPED_BITS : 0u));
}

/* Into ip and bits; an address without bits is a network of one. Every network has one form here:
 * IPv4 is not to be written as IPv6, and a network has no host bits. */
static int read_network(const struct settings_change *c, struct settings_source *ret)
{
    char text[SETTINGS_KEY_BYTES] = "", network[NETWORK_BYTES];
    const char *slash = strchr(c->rest, '/');
    struct settings_source x = { 0 };
    uint64_t bits, bits_max;
    bool host_bits = false;

    assert(strlen(c->rest) < sizeof text);
    memcpy(text, c->rest, slash != NULL ? (size_t)(slash - c->rest) : strlen(c->rest));
    if (inet_pton(AF_INET, text, x.ip + 12) == 1) {
        x.ip[10] = x.ip[11] = 0xff;
        bits_max = 32;
    } else if (inet_pton(AF_INET6, text, x.ip) == 1) {
        bits_max = 128;
    } else {
        return settings_refuse(c->error,
                               "%s: \"%s\" is not an IPv4 or IPv6 address or network, like "
                               "10.0.0.0/8 or 2001:db8::/32",
                               c->key, c->rest);
    }
    if (bits_max == 128 && is_mapped(&x))
        return settings_refuse(c->error, "%s: write \"%s\" as IPv4, like 10.0.0.0/8", c->key,
                               c->rest);
    bits = bits_max;
    if (slash != NULL && (!settings_read_number(slash + 1, &bits) || bits > bits_max))
        return settings_refuse(c->error, "%s: the prefix must be 0 to %u bits, not \"%s\"", c->key,
                               (unsigned)bits_max, slash + 1);
    x.bits = (uint8_t)(bits + 128 - bits_max);
    for (unsigned i = x.bits; i < 128; i++) {
        uint8_t bit = (uint8_t)(0x80 >> i % 8);

        host_bits = host_bits || (x.ip[i / 8] & bit) != 0;
        x.ip[i / 8] &= (uint8_t)~bit;
    }
    if (host_bits) {
        print_network(&x, network);
        return settings_refuse(c->error, "%s has bits behind its prefix: it would be %ssource.%s",
                               c->key, settings_before(c->shadow), network);
    }
    *ret = x;
    return 0;
}

/* --- sorted lists of them ----------------------------------------------------------------------
 */

static int compare(const struct settings_source *a, const struct settings_source *b)
{
    return memcmp(a, b, offsetof(struct settings_source, verdict)); /* ip, then bits */
}
_Static_assert(offsetof(struct settings_source, verdict) == 17, "compared as bytes");

/* Where x is, or would be. */
static bool find(const struct settings_policy *p, const struct settings_source *x, uint32_t *ret_at)
{
    uint32_t low = 0, high = p->sources;

    assert(p->sources <= SETTINGS_SOURCES_MAX);
    while (low < high) {
        uint32_t middle = (low + high) / 2;

        if (compare(&p->source[middle], x) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_at = low;
    return low < p->sources && compare(&p->source[low], x) == 0;
}

static void put(struct settings_policy *p, const struct settings_source *x)
{
    uint32_t at;

    if (!find(p, x, &at)) {
        assert(p->sources < SETTINGS_SOURCES_MAX);
        memmove(&p->source[at + 1], &p->source[at], (p->sources - at) * sizeof *x);
        p->sources++;
    }
    p->source[at] = *x;
}

static void take(struct settings_policy *p, const struct settings_source *x)
{
    uint32_t at;

    if (!find(p, x, &at))
        return;
    p->sources--;
    memmove(&p->source[at], &p->source[at + 1], (p->sources - at) * sizeof *x);
    memset(&p->source[p->sources], 0, sizeof *x);
}

void settings_overlay_sources(const struct settings_policy *overlay, struct settings_policy *p)
{
    for (uint32_t i = 0; i < overlay->sources; i++) {
        if (overlay->source[i].verdict == SETTINGS_SOURCE_NONE)
            take(p, &overlay->source[i]);
        else
            put(p, &overlay->source[i]);
    }
}

/* --- the family --------------------------------------------------------------------------------
 */

/* Of what is in force and of the shadow, each network once: so the shadow can always be laid over
 * what is in force, and taking something back never fails for lack of room. */
static uint32_t networks(const struct settings *s)
{
    uint32_t n = s->policy.sources, at;

    for (uint32_t i = 0; i < s->shadow.value.sources; i++)
        n += !find(&s->policy, &s->shadow.value.source[i], &at);
    assert(n <= SETTINGS_SOURCES_MAX);
    return n;
}

static bool read_verdict(const char *value, bool shadow, uint8_t *ret)
{
    if (strcmp(value, "allow") == 0)
        *ret = SETTINGS_SOURCE_ALLOW;
    else if (strcmp(value, "deny") == 0)
        *ret = SETTINGS_SOURCE_DENY;
    else if (strcmp(value, "none") == 0 && shadow)
        *ret = SETTINGS_SOURCE_NONE;
    else
        return false;
    return true;
}

int settings_set_source(struct settings *s, const struct settings_family *f,
                        const struct settings_change *c)
{
    struct settings_policy *p = c->shadow ? &s->shadow.value : &s->policy;
    struct settings_source x = { 0 };
    int e = read_network(c, &x);
    uint32_t at;

    if (e < 0)
        return e;
    if (*c->value == '\0') {
        take(p, &x);
        return 0;
    }
    if (!read_verdict(c->value, c->shadow, &x.verdict))
        return settings_refuse(c->error, "%s must be %s, not \"%.40s\"", c->key,
                               c->shadow ? "allow, deny or none" : "allow or deny", c->value);
    if (!find(&s->policy, &x, &at) && !find(&s->shadow.value, &x, &at) &&
        networks(s) == SETTINGS_SOURCES_MAX)
        return settings_refuse(c->error,
                               "%s: there are %u networks, in force and in the shadow, and no more "
                               "can be listed; take one back first",
                               c->key, SETTINGS_SOURCES_MAX);
    put(p, &x);
    return 0;
}

void settings_list_source(const struct settings *s, const struct settings_family *f,
                          const struct settings_listing *l)
{
    static const char *const verdict[] = { [SETTINGS_SOURCE_NONE] = "none",
                                           [SETTINGS_SOURCE_ALLOW] = "allow",
                                           [SETTINGS_SOURCE_DENY] = "deny" };
    const struct settings_policy *p = l->shadow ? &s->shadow.value : &s->policy;

    for (uint32_t i = 0; i < p->sources; i++) {
        struct setting_line line = { 0 };
        char network[NETWORK_BYTES];

        assert(p->source[i].verdict <= SETTINGS_SOURCE_DENY);
        print_network(&p->source[i], network);
        snprintf(line.key, sizeof line.key, "%s%s%s", settings_before(l->shadow), f->prefix,
                 network);
        snprintf(line.value, sizeof line.value, "%s", verdict[p->source[i].verdict]);
        l->line(l->arg, &line);
    }
}
