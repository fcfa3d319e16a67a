/*
 * admission.c - see admission.h.
 *
 * Thread:  any.
 * Memory:  none.
 */
#include "ingest/admission.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

_Static_assert(SETTINGS_TYPES == POLICY_TYPES && SETTINGS_CLASSES == XDP_CLASSES, "one policy");
_Static_assert(ADMISSION_RULES_MAX <= XDP_RULES_MAX, "a trie holds them all");

static void type_init(struct policy_type *to, const struct settings_admit *from, bool known)
{
    static const uint8_t action[] = {
        [SETTINGS_ACCEPT] = POLICY_ACCEPT,
        [SETTINGS_DROP] = POLICY_DROP,
        [SETTINGS_SAMPLE] = POLICY_SAMPLE,
        [SETTINGS_RATE] = POLICY_RATE,
    };

    assert(from->action < sizeof action && from->class < XDP_CLASSES);
    *to = (struct policy_type){
        .action = known ? action[from->action] : POLICY_UNKNOWN,
        .class = from->class,
    };
    if (from->action == SETTINGS_SAMPLE)
        to->every = from->number;
    if (from->action == SETTINGS_RATE) {
        assert(from->number > 0);
        to->interval_ns = NS_PER_S / from->number;
        to->burst_ns = to->interval_ns * from->burst;
    }
}

static void limit_init(__u64 *interval_ns, __u64 *burst_ns, uint32_t per_s, uint32_t burst)
{
    *interval_ns = per_s > 0 ? NS_PER_S / per_s : 0;
    *burst_ns = *interval_ns * burst;
}

static void policy_init(struct policy *to, const struct settings *s,
                        const struct settings_policy *from)
{
    memset(to, 0, sizeof *to);
    for (unsigned t = 0; t < POLICY_TYPES; t++)
        type_init(&to->type[t], &from->type[t], s->known[t]);
    limit_init(&to->source_interval_ns, &to->source_burst_ns, from->source_per_s,
               from->source_burst);
    limit_init(&to->syn_interval_ns, &to->syn_burst_ns, from->syn_per_s, from->syn_burst);
}

static uint64_t be64_load(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof v);
    return be64toh(v);
}

static bool is_ipv4(const uint8_t ip[16], unsigned bits)
{
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

    return bits >= 96 && memcmp(ip, mapped, sizeof mapped) == 0;
}

static void rule_add(struct source_rules *r, const uint8_t ip[16], unsigned bits, unsigned rule)
{
    struct source_network *n = &r->at[r->n];

    assert(bits <= 128 && r->n < ADMISSION_RULES_MAX);
    for (uint32_t i = 0; i < r->n; i++) {
        if (r->at[i].bits == bits && memcmp(r->at[i].ip, ip, 16) == 0)
            return;
    }
    r->n++;
    memcpy(n->ip, ip, 16);
    n->bits = (uint8_t)bits;
    n->rule = (uint8_t)rule;
    n->ipv4 = is_ipv4(ip, bits);
    n->mask_hi = bits >= 64 ? UINT64_MAX : bits == 0 ? 0 : UINT64_MAX << (64 - bits);
    n->mask_lo = bits == 128 ? UINT64_MAX : bits <= 64 ? 0 : UINT64_MAX << (128 - bits);
    n->hi = be64_load(ip) & n->mask_hi;
    n->lo = be64_load(ip + 8) & n->mask_lo;
}

static int longer_first(const void *a, const void *b)
{
    const struct source_network *x = a, *y = b;

    return y->bits != x->bits ? y->bits - x->bits : memcmp(x->ip, y->ip, 16);
}

static void sources_init(struct source_rules *to, const struct settings_policy *from,
                         const struct config_networks *allow)
{
    to->n = 0;
    to->denies = false;
    for (uint32_t i = 0; i < from->sources; i++) {
        const struct settings_source *s = &from->source[i];

        to->denies |= s->verdict == SETTINGS_SOURCE_DENY;
        if (s->verdict != SETTINGS_SOURCE_NONE)
            rule_add(to, s->ip, s->bits,
                     s->verdict == SETTINGS_SOURCE_ALLOW ? SOURCE_ALLOW : SOURCE_DENY);
    }
    for (uint32_t i = 0; i < allow->n; i++) {
        struct in6_addr ip = allow->at[i].ip;

        /* The file may have bits behind the prefix; two networks must not differ in those. */
        for (unsigned bit = allow->at[i].bits; bit < 128; bit++)
            ip.s6_addr[bit / 8] &= (uint8_t) ~(0x80u >> bit % 8);
        rule_add(to, ip.s6_addr, allow->at[i].bits, SOURCE_ALLOW);
    }
    qsort(to->at, to->n, sizeof to->at[0], longer_first);
}

void admission_init(struct admission *a, const struct settings *settings,
                    const struct config_networks *allow)
{
    struct settings_policy shadow = settings->policy;

    a->settings = *settings;
    a->shadow = settings_shadow(settings, &shadow);
    a->floors = memchr(settings->durability, SETTINGS_REGION, sizeof settings->durability) != NULL;
    policy_init(&a->policy[POLICY_ACTIVE], settings, &settings->policy);
    policy_init(&a->policy[POLICY_SHADOW], settings, &shadow);
    sources_init(&a->sources[POLICY_ACTIVE], &settings->policy, allow);
    sources_init(&a->sources[POLICY_SHADOW], &shadow, allow);
}

unsigned admission_source(const struct source_rules *r, const struct in6_addr *ip)
{
    uint64_t hi = be64_load(ip->s6_addr), lo = be64_load(ip->s6_addr + 8);
    bool ipv4 = IN6_IS_ADDR_V4MAPPED(ip);

    for (uint32_t i = 0; i < r->n; i++) {
        const struct source_network *n = &r->at[i];

        if (n->ipv4 == ipv4 && (hi & n->mask_hi) == n->hi && (lo & n->mask_lo) == n->lo)
            return n->rule;
    }
    return 0;
}
