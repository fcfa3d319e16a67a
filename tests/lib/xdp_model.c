/*
 * xdp_model.c - see xdp_model.h.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "xdp_model.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void rule_put(struct xdp_model *m, const char *network, unsigned rule, bool shadow)
{
    const char *slash = strchr(network, '/');
    struct model_rule r = { .rule = rule, .shadow = shadow };
    char text[64];
    int ok;

    snprintf(text, sizeof text, "%.*s", (int)(slash - network), network);
    r.v6 = strchr(network, ':') != NULL;
    r.bits = (unsigned)atoi(slash + 1);
    ok = inet_pton(r.v6 ? AF_INET6 : AF_INET, text, r.ip);
    assert(ok == 1);
    for (unsigned i = 0; i < m->rules_n; i++) {
        struct model_rule *at = &m->rules[i];

        if (at->bits == r.bits && at->v6 == r.v6 && at->shadow == shadow &&
            memcmp(at->ip, r.ip, sizeof r.ip) == 0) {
            at->rule = rule;
            return;
        }
    }
    assert(m->rules_n < MODEL_RULES_MAX);
    m->rules[m->rules_n++] = r;
}

void xdp_model_init(struct xdp_model *m, struct xdp_rig *rig)
{
    memset(m, 0, sizeof *m);
    m->rig = rig;
    xdp_rig_policy(&m->policy[0]);
    xdp_rig_policy(&m->policy[1]);
    for (int shadow = 0; shadow < 2; shadow++) {
        rule_put(m, "192.0.2.0/24", SOURCE_ALLOW, shadow);
        rule_put(m, "2001:db8::/32", SOURCE_ALLOW, shadow);
    }
}

void xdp_model_policy(struct xdp_model *m, const struct policy *p, bool shadow)
{
    m->policy[shadow] = *p;
    xdp_rig_set_policy(m->rig, p, shadow);
}

void xdp_model_rule(struct xdp_model *m, const char *network, unsigned rule, bool shadow)
{
    rule_put(m, network, rule, shadow);
    xdp_rig_rule(m->rig, network, rule, shadow);
}

static bool prefix_covers(const struct model_rule *r, const uint8_t *ip)
{
    for (unsigned bit = 0; bit < r->bits; bit++) {
        if (((ip[bit / 8] ^ r->ip[bit / 8]) >> (7 - bit % 8) & 1) != 0)
            return false;
    }
    return true;
}

static bool has_address(const struct xdp_model *m, const struct address *a)
{
    const struct xdp_control *c = m->rig->control;

    for (unsigned i = 0; i < c->addresses; i++) {
        if (memcmp(&c->address[i], a, sizeof *a) == 0)
            return true;
    }
    return false;
}

static unsigned source_rule(const struct xdp_model *m, const struct packet *p, bool shadow)
{
    const uint8_t *ip = (const uint8_t *)&p->source + (p->ipv4_header_bytes ? 12 : 0);
    const struct model_rule *best = NULL;

    if (source_is_martian(&p->source, p->ipv4_header_bytes != 0) || has_address(m, &p->source))
        return SOURCE_DENY;
    for (unsigned i = 0; i < m->rules_n; i++) {
        const struct model_rule *r = &m->rules[i];

        if (r->rule != 0 && r->shadow == shadow && r->v6 == (p->ipv4_header_bytes == 0) &&
            prefix_covers(r, ip) && (!best || r->bits > best->bits))
            best = r;
    }
    return best ? best->rule : 0;
}

static bool goes_to_ring(const struct xdp_model *m, size_t bytes)
{
    const struct xdp_interface *i = &m->rig->control->interface[0];

    return i->queues > 0 && bytes <= i->frame_bytes_max;
}

static unsigned judge(struct xdp_model *m, const struct packet *p, size_t bytes, bool shadow,
                      unsigned *class)
{
    struct policy_verdict v;

    assert(m->policy[shadow].source_interval_ns == 0);
    if (source_rule(m, p, shadow) != SOURCE_ALLOW)
        return REASON_SOURCE_DENIED;
    v = policy_datagram(&m->policy[shadow], &m->walk);
    *class = v.class;
    if (v.reason != REASON_NONE || m->walk.batch || !goes_to_ring(m, bytes))
        return v.reason;
    return policy_event(&m->policy[shadow].type[m->walk.type[0]],
                        &m->cells.at[shadow][m->walk.type[0]]);
}

static int deliver(struct xdp_model *m, unsigned class, size_t bytes)
{
    if (m->rig->control->interface[0].queues > 0 && !goes_to_ring(m, bytes)) {
        m->count.passed[PASS_OVERSIZE]++;
        return XDP_PASS;
    }
    if (goes_to_ring(m, bytes) && m->rig->socket[class] >= 0) {
        m->count.redirected[class]++;
        return XDP_REDIRECT;
    }
    m->count.passed[PASS_NO_SOCKET]++;
    return XDP_PASS;
}

static int udp(struct xdp_model *m, const struct packet *p, size_t bytes)
{
    unsigned class = XDP_CLASSES - 1, other_class, reason, shadow, type;

    m->walk = (struct walk){ 0 };
    m->count.arrived++;
    m->count.bytes += p->payload_bytes;
    if (m->kind == PACKET_LENGTH) {
        reason = REASON_LENGTH;
    } else {
        walk_datagram(&m->walk, p->udp + 8, p->payload_bytes);
        reason = judge(m, p, bytes, false, &class);
        /* What goes the kernel's way the worker counts. */
        if (m->rig->control->shadow && (goes_to_ring(m, bytes) || reason != REASON_NONE)) {
            shadow = judge(m, p, bytes, true, &other_class);
            if (reason == REASON_NONE && shadow != REASON_NONE)
                m->count.shadow[shadow]++;
            m->count.shadow_taken += reason != REASON_NONE && shadow == REASON_NONE;
        }
    }
    m->reason = reason;
    type = m->walk.type[0];
    m->count.type_arrived[type]++;
    if (reason == REASON_NONE)
        return deliver(m, class, bytes);
    m->count.dropped[reason]++;
    m->count.type_dropped[type]++;
    return XDP_DROP;
}

static bool is_ours(const struct xdp_model *m, const struct packet *p)
{
    const struct xdp_control *c = m->rig->control;

    return has_address(m, &p->destination) && c->port != 0 &&
           (m->kind == PACKET_FRAGMENT || p->port == c->port) && c->interface[0].ifindex == 1 &&
           memcmp(p->mac, c->interface[0].mac, 6) == 0;
}

static int verdict(struct xdp_model *m, const uint8_t *frame, size_t bytes)
{
    struct packet p;

    m->reason = REASON_NONE;
    m->kind = packet_parse(frame, frame + bytes, &p);
    if (m->kind == PACKET_OTHER || !is_ours(m, &p))
        return XDP_PASS;
    if (m->kind == PACKET_FRAGMENT) {
        m->count.fragments++;
        return XDP_PASS;
    }
    if (m->kind != PACKET_TCP)
        return udp(m, &p, bytes);
    assert(m->policy[0].syn_interval_ns == 0);
    if (source_rule(m, &p, false) == SOURCE_DENY) {
        m->count.tcp[TCP_DENIED]++;
        return XDP_DROP;
    }
    m->count.tcp[TCP_PASSED]++;
    return XDP_PASS;
}

int xdp_model_verdict(struct xdp_model *m, const void *frame, size_t bytes)
{
    uint8_t *exact = malloc(bytes > 0 ? bytes : 1);
    int action;

    assert(exact);
    memcpy(exact, frame, bytes);
    action = verdict(m, exact, bytes);
    free(exact);
    return action;
}

bool xdp_counters_balance(const struct xdp_counters *c)
{
    uint64_t gone = 0, dropped = 0, by_type = 0, dropped_by_type = 0;

    for (unsigned i = 0; i < XDP_CLASSES; i++)
        gone += c->redirected[i];
    for (unsigned i = 0; i < PASSES; i++)
        gone += c->passed[i];
    for (unsigned i = 0; i < REASONS; i++)
        dropped += c->dropped[i];
    for (unsigned i = 0; i < POLICY_TYPES; i++) {
        by_type += c->type_arrived[i];
        dropped_by_type += c->type_dropped[i];
        if (c->type_dropped[i] > c->type_arrived[i])
            return false;
    }
    return c->arrived == gone + dropped && by_type == c->arrived && dropped_by_type == dropped;
}

static void show(const void *frame, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        fprintf(stderr, "%02x", ((const uint8_t *)frame)[i]);
    fprintf(stderr, "\n");
}

static void show_difference(const struct xdp_counters *is, const struct xdp_counters *due)
{
    const __u64 *a = (const __u64 *)is, *b = (const __u64 *)due;

    for (size_t i = 0; i < sizeof *is / sizeof *a; i++) {
        if (a[i] != b[i])
            fprintf(stderr, "counter %zu is %llu and not %llu\n", i, (unsigned long long)a[i],
                    (unsigned long long)b[i]);
    }
}

int xdp_model_check(struct xdp_model *m, const void *frame, size_t bytes)
{
    int due = xdp_model_verdict(m, frame, bytes), is = xdp_rig_run(m->rig, frame, bytes);
    struct xdp_counters count;
    bool balance;

    xdp_rig_counters(m->rig, &count);
    balance = xdp_counters_balance(&count);
    if (is == due && balance && memcmp(&count, &m->count, sizeof count) == 0)
        return is;
    show(frame, bytes);
    show_difference(&count, &m->count);
    fail_msg("verdict %d, due %d; balance %d; kind %d, walk's status %d, reason %u", is, due,
             balance, m->kind, m->walk.status, m->reason);
    return is;
}
