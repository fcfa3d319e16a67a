/*
 * pipeline_xdp.c - answers the admin server's questions about the program in the driver, the policy
 * and what is dropped. Admin thread.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "pipeline_internal.h"

#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))

/* --- status and ledger --------------------------------------------------------------------------
 */

static void add_drop(sluice_v1_LedgerDrop *list, pb_size_t *n, size_t max, const char *name,
                     uint64_t count)
{
    if (*n == max)
        return;
    snprintf(list[*n].reason, sizeof list[*n].reason, "%s", name);
    list[(*n)++].count = count;
}

static void interface_fill(const struct prefilter_port *port, const struct xdp_counters *c,
                           sluice_v1_XdpInterface *r)
{
    snprintf(r->name, sizeof r->name, "%s", port->name);
    r->ifindex = port->ifindex;
    snprintf(r->mode, sizeof r->mode, "%s", prefilter_mode_name(port->mode));
    if (port->mode != PREFILTER_SOCKET)
        snprintf(r->attach, sizeof r->attach, "%s", port->dispatcher ? "dispatcher" : "single");
    r->program_id = port->program_id;
    r->queues = port->queues;
    r->zero_copy = port->zero_copy;
    r->attached = port->attached;
    snprintf(r->note, sizeof r->note, "%s%s%s",
             port->mode != PREFILTER_SOCKET && !port->attached
                 ? "the program is no longer attached: datagrams come by the sockets; "
                 : "",
             port->mode != PREFILTER_SOCKET && !port->rings ? "no AF_XDP; " : "", port->note);
    r->arrived = c->arrived;
    for (unsigned i = 0; i < XDP_CLASSES; i++)
        r->redirected += c->redirected[i];
    for (unsigned i = 0; i < PASSES; i++)
        r->passed += c->passed[i];
    for (unsigned i = 0; i < REASONS; i++)
        r->dropped += c->dropped[i];
    r->fragments = c->fragments;
    r->tcp_passed = c->tcp[TCP_PASSED];
    r->tcp_denied = c->tcp[TCP_DENIED];
    r->tcp_syn_rate = c->tcp[TCP_SYN_RATE];
    r->bytes = c->bytes;
}

/* The best mode in use. */
static const char *best_mode(struct pipeline *p)
{
    enum prefilter_mode best = PREFILTER_SOCKET;

    for (uint32_t i = 0; i < prefilter_ports(p->prefilter); i++) {
        const struct prefilter_port *port = prefilter_port(p->prefilter, i);

        if (port->attached && port->mode > best)
            best = port->mode;
    }
    return prefilter_mode_name(best);
}

static void types_fill(struct pipeline *p, const struct xdp_counters *ports, uint32_t n,
                       sluice_v1_XdpStatusResponse *r)
{
    pthread_mutex_lock(&p->policy_lock);
    for (unsigned t = 0; t < POLICY_TYPES; t++) {
        sluice_v1_XdpType *row = &r->types[r->types_count];
        uint64_t arrived = 0, dropped = 0;

        for (uint32_t i = 0; i < n; i++) {
            arrived += ports[i].type_arrived[t];
            dropped += ports[i].type_dropped[t];
        }
        if (arrived + dropped == 0)
            continue;
        *row = (sluice_v1_XdpType){ .number = t, .arrived = arrived, .dropped = dropped };
        pipeline_type_name(&p->policy->admission.settings, t, row->name, sizeof row->name);
        r->types_count++;
    }
    pthread_mutex_unlock(&p->policy_lock);
}

static void sources_fill(struct pipeline *p, sluice_v1_XdpStatusResponse *r)
{
    struct prefilter_source top[COUNT_OF(r->sources)];

    r->sources_count = (pb_size_t)prefilter_sources(p->prefilter, top, COUNT_OF(top));
    for (pb_size_t i = 0; i < r->sources_count; i++) {
        config_address_text(&top[i].ip, r->sources[i].address);
        r->sources[i].taken = top[i].taken;
        r->sources[i].dropped = top[i].dropped;
    }
}

static void shadow_fill(struct pipeline *p, const struct ledger *run,
                        sluice_v1_XdpStatusResponse *r)
{
    for (unsigned d = 0; d < DROP_N; d++) {
        if (run->shadow_drop[d] > 0)
            add_drop(r->shadow, &r->shadow_count, COUNT_OF(r->shadow),
                     datagram_drop_name((enum datagram_drop)d), run->shadow_drop[d]);
    }
    for (unsigned i = 1; i < LEDGER_REASONS; i++) {
        if (run->shadow_refused[i] > 0)
            add_drop(r->shadow_events, &r->shadow_events_count, COUNT_OF(r->shadow_events),
                     reason_name(i), run->shadow_refused[i]);
    }
    r->shadow_taken = run->shadow_taken;
    r->shadow_events_admitted = run->shadow_admitted;
    pthread_mutex_lock(&p->policy_lock);
    r->shadow_on = p->policy->admission.shadow;
    r->policy_version = p->pushed;
    if (p->push_error < 0)
        snprintf(r->note, sizeof r->note, "the policy in the driver is an older one: %s",
                 strerror(-p->push_error));
    pthread_mutex_unlock(&p->policy_lock);
}

static void on_xdp_status(void *arg, bool sources, sluice_v1_XdpStatusResponse *r)
{
    static struct xdp_counters ports[XDP_INTERFACES_MAX]; /* the admin thread's alone */
    static struct ledger run;
    struct pipeline *p = arg;
    uint32_t n = prefilter_ports(p->prefilter);
    struct ledger_sums sums;

    pipeline_ledger(p, &run, ports);
    ledger_check(&run, &sums);
    snprintf(r->mode, sizeof r->mode, "%s", best_mode(p));
    if (n == 0)
        snprintf(r->note, sizeof r->note, "%s",
                 p->config->ingest.xdp.mode == CONFIG_XDP_SOCKET
                     ? "ingest.xdp.mode is socket: datagrams come by the kernel's sockets"
                     : "no interface is named in ingest.xdp.interfaces: datagrams come by the "
                       "kernel's sockets");
    for (uint32_t i = 0; i < n; i++)
        interface_fill(prefilter_port(p->prefilter, i), &ports[i], &r->interfaces[i]);
    r->interfaces_count = (pb_size_t)n;
    for (unsigned i = 0; i < REASONS && n > 0; i++) {
        enum datagram_drop d = prefilter_drop((enum drop_reason)i);

        add_drop(r->drops, &r->drops_count, COUNT_OF(r->drops), datagram_drop_name(d),
                 run.xdp_drop[d]);
    }
    for (unsigned c = 0; c < LEDGER_CLASSES && n > 0; c++)
        r->classes[r->classes_count++] = (sluice_v1_XdpClass){
            c,
            run.xdp_redirected[c],
            run.datagram_drop[DROP_RING_FULL_0 + c],
            run.ring_taken[c],
            run.ring_waiting[c],
        };
    for (unsigned d = 0; d < DROP_N; d++) {
        if (run.datagram_drop[d] > run.xdp_drop[d])
            add_drop(r->worker_drops, &r->worker_drops_count, COUNT_OF(r->worker_drops),
                     datagram_drop_name((enum datagram_drop)d),
                     run.datagram_drop[d] - run.xdp_drop[d]);
    }
    r->fill_empty = run.datagram_drop[DROP_FILL_EMPTY];
    r->balances = sums.xdp_balances;
    types_fill(p, ports, n, r);
    shadow_fill(p, &run, r);
    if (sources)
        sources_fill(p, r);
}

void pipeline_xdp_line(struct pipeline *p, char *ret, size_t bytes)
{
    size_t used = 0;

    ret[0] = '\0';
    for (uint32_t i = 0; i < prefilter_ports(p->prefilter) && used < bytes; i++) {
        const struct prefilter_port *port = prefilter_port(p->prefilter, i);

        used += (size_t)snprintf(
            ret + used, bytes - used, "%s%s on %s", used > 0 ? ", " : "",
            prefilter_mode_name(port->attached ? port->mode : PREFILTER_SOCKET), port->name);
        if (port->rings && used < bytes)
            used += (size_t)snprintf(ret + used, bytes - used, " (%u %s)", port->queues,
                                     port->queues == 1 ? "queue" : "queues");
    }
}

void pipeline_xdp_ledger(struct pipeline *p, const struct ledger *run, const struct ledger *all,
                         sluice_v1_XdpLedger *r)
{
    static struct xdp_counters ports[XDP_INTERFACES_MAX]; /* the admin thread's alone */
    struct ledger_sums sums, run_sums;
    uint64_t later = 0, out;

    r->present = p->prefilter != NULL || all->xdp_arrived > 0;
    if (!r->present)
        return;
    ledger_check(all, &sums);
    ledger_check(run, &run_sums);
    /* What the program had redirected before the rings were looked at is in them or has come out
     * of them then, and nothing else. At rest the two pin down equality. */
    prefilter_count(p->prefilter, ports);
    for (uint32_t i = 0; i < prefilter_ports(p->prefilter); i++) {
        for (unsigned c = 0; c < XDP_CLASSES; c++)
            later += ports[i].redirected[c];
    }
    out = run_sums.ring_taken + run_sums.ring_dropped + run_sums.ring_waiting;
    r->rings_agree = run_sums.xdp_redirected <= out && out <= later;
    r->arrived = all->xdp_arrived;
    r->dropped = sums.xdp_dropped;
    r->redirected = sums.xdp_redirected;
    r->passed = all->xdp_passed;
    r->ring_taken = sums.ring_taken;
    r->ring_dropped = sums.ring_dropped;
    r->ring_waiting = sums.ring_waiting;
    r->fragments = all->xdp_fragments;
    r->tcp_passed = all->xdp_tcp_passed;
    r->tcp_denied = all->xdp_tcp_denied;
    r->tcp_syn_rate = all->xdp_tcp_syn_rate;
    r->balances = sums.xdp_balances;
    for (unsigned d = 0; d < DROP_N; d++) {
        if (all->xdp_drop[d] > 0)
            add_drop(r->drops, &r->drops_count, COUNT_OF(r->drops),
                     datagram_drop_name((enum datagram_drop)d), all->xdp_drop[d]);
    }
}

/* --- what would become of a datagram ------------------------------------------------------------
 */

static bool address_read(const char *text, struct in6_addr *ret)
{
    *ret = (struct in6_addr){ .s6_addr = { [10] = 0xff, [11] = 0xff } };
    return inet_pton(AF_INET, text, ret->s6_addr + 12) == 1 || inet_pton(AF_INET6, text, ret) == 1;
}

static void action_text(const struct settings_admit *a, bool known, char *ret, size_t bytes)
{
    if (!known)
        snprintf(ret, bytes, "unknown type");
    else if (a->action == SETTINGS_SAMPLE)
        snprintf(ret, bytes, "sample %u", a->number);
    else if (a->action == SETTINGS_RATE)
        snprintf(ret, bytes, "rate %u burst %u", a->number, a->burst);
    else
        snprintf(ret, bytes, "%s", a->action == SETTINGS_DROP ? "drop" : "accept");
}

static void events_fill(const struct settings *s, const struct settings_policy *p,
                        const struct walk *w, sluice_v1_PolicyTestResponse *r)
{
    for (unsigned i = 0; i < w->events && i < COUNT_OF(r->events); i++) {
        sluice_v1_PolicyTestEvent *e = &r->events[r->events_count++];

        e->type = w->type[i];
        pipeline_type_name(s, e->type, e->name, sizeof e->name);
        action_text(&p->type[e->type], s->known[e->type], e->action, sizeof e->action);
        e->class = p->type[e->type].class;
    }
}

/* What is left to say: what depends on what came before, and who decides. */
static void note_fill(const struct settings_policy *p, const struct walk *w,
                      const struct in6_addr *ip, sluice_v1_PolicyTestResponse *r)
{
    const struct settings_admit *a = &p->type[w->type[0]];
    struct address source;

    memcpy(&source, ip, sizeof source);
    if (strcmp(r->verdict, "drop") != 0 && source_is_martian(&source, IN6_IS_ADDR_V4MAPPED(ip)))
        snprintf(r->note, sizeof r->note,
                 "in the driver it is dropped: nothing can come from there from outside");
    else if (w->batch && w->receipt && w->complete)
        snprintf(r->note, sizeof r->note, "it wants a receipt, so that every event is answered");
    else if (!w->batch && a->action == SETTINGS_SAMPLE && strcmp(r->verdict, "accept") == 0)
        snprintf(r->note, sizeof r->note, "if it is the one in %u of its type", a->number);
    else if (!w->batch && a->action == SETTINGS_RATE && strcmp(r->verdict, "accept") == 0)
        snprintf(r->note, sizeof r->note, "while there are no more than %u of its type a second",
                 a->number);
    else if (p->source_per_s > 0 && strcmp(r->verdict, "drop") != 0)
        snprintf(r->note, sizeof r->note, "while its source sends no more than %u a second",
                 p->source_per_s);
}

static const char *format_text(const struct walk *w)
{
    switch ((enum walk_status)w->status) {
    case WALK_EMPTY:
        return "empty";
    case WALK_NOT_PROTOBUF:
        return "not protobuf";
    case WALK_MALFORMED:
        return w->batch ? "malformed batch" : "malformed event";
    default:
        return w->batch ? "batch" : "event";
    }
}

static const char *rule_text(unsigned rule)
{
    return rule == SOURCE_ALLOW ? "allow" : rule == SOURCE_DENY ? "deny" : "none";
}

static int on_policy_test(void *arg, const sluice_v1_PolicyTestRequest *request,
                          sluice_v1_PolicyTestResponse *r, char error[ADMIN_ERROR_BYTES])
{
    static struct settings_policy effective; /* the admin thread's alone */
    unsigned which = request->shadow ? POLICY_SHADOW : POLICY_ACTIVE, rule;
    enum drop_reason reason = REASON_SOURCE_DENIED;
    struct pipeline *p = arg;
    struct policy_verdict v;
    struct in6_addr ip;
    struct walk w;

    if (!address_read(request->from, &ip)) {
        snprintf(error, ADMIN_ERROR_BYTES, "\"%.60s\" is no IPv4 or IPv6 address", request->from);
        return -EINVAL;
    }
    memset(&w, 0, sizeof w);
    walk_datagram(&w, request->datagram.bytes, request->datagram.size);
    pthread_mutex_lock(&p->policy_lock);
    const struct admission *a = &p->policy->admission;
    effective = a->settings.policy;
    if (request->shadow)
        (void)settings_shadow(&a->settings, &effective);
    rule = admission_source(&a->sources[which], &ip);
    v = policy_datagram(&a->policy[which], &w);
    events_fill(&a->settings, &effective, &w, r);
    pthread_mutex_unlock(&p->policy_lock);
    if (rule == SOURCE_ALLOW)
        reason = v.reason;
    snprintf(r->rule, sizeof r->rule, "%s", rule_text(rule));
    snprintf(r->format, sizeof r->format, "%s", format_text(&w));
    snprintf(r->verdict, sizeof r->verdict, "%s",
             reason != REASON_NONE ? "drop"
             : w.batch             ? "by event"
                                   : "accept");
    if (reason != REASON_NONE)
        snprintf(r->reason, sizeof r->reason, "%s", datagram_drop_name(prefilter_drop(reason)));
    r->class = v.class;
    r->complete = w.complete;
    note_fill(&effective, &w, &ip, r);
    return 0;
}

/* --- samples of what is dropped -----------------------------------------------------------------
 */

#define TAP_QUEUE 2048u

/* The admin thread's alone, and one tap at a time. */
static struct {
    struct drop_sample sample[TAP_QUEUE];
    uint32_t head, tail;
} tap;

static void tap_add(void *arg, const struct drop_sample *s)
{
    (void)arg;
    if (tap.tail - tap.head < TAP_QUEUE)
        tap.sample[tap.tail++ % TAP_QUEUE] = *s;
}

static void tap_set(struct pipeline *p, uint32_t drops)
{
    uint32_t reasons = 0;

    for (unsigned r = 0; r < REASONS; r++) {
        if ((drops >> prefilter_drop((enum drop_reason)r) & 1) != 0)
            reasons |= 1u << r;
    }
    prefilter_sample(p->prefilter, reasons);
    for (unsigned i = 0; i < p->workers; i++)
        worker_sample(p->worker[i], drops);
}

/* Drops that happen before anybody has the datagram leave nothing to show. */
static bool tap_shows(enum datagram_drop d)
{
    return d != DROP_KERNEL && (d < DROP_RING_FULL_0 || d > DROP_FILL_EMPTY);
}

static int tap_reason(const char *name, uint32_t *drops, char error[ADMIN_ERROR_BYTES])
{
    size_t used;

    for (unsigned d = 0; d < DROP_N; d++) {
        if (tap_shows((enum datagram_drop)d) &&
            strcmp(name, datagram_drop_name((enum datagram_drop)d)) == 0) {
            *drops |= 1u << d;
            return 0;
        }
    }
    used =
        (size_t)snprintf(error, ADMIN_ERROR_BYTES, "there is no reason \"%.31s\"; known are", name);
    for (unsigned d = 0; d < DROP_N && used < ADMIN_ERROR_BYTES; d++) {
        if (tap_shows((enum datagram_drop)d))
            used += (size_t)snprintf(error + used, ADMIN_ERROR_BYTES - used, " %s",
                                     datagram_drop_name((enum datagram_drop)d));
    }
    return -EINVAL;
}

static int on_tap_start(void *arg, const sluice_v1_TapRequest *request,
                        char error[ADMIN_ERROR_BYTES])
{
    struct pipeline *p = arg;
    uint32_t drops = 0;

    _Static_assert(DROP_N <= 32, "a bit each");
    for (pb_size_t i = 0; i < request->reasons_count; i++) {
        int e = tap_reason(request->reasons[i], &drops, error);

        if (e < 0)
            return e;
    }
    tap.head = tap.tail = 0;
    tap_set(p, request->reasons_count == 0 ? UINT32_MAX : drops);
    return 0;
}

static void tap_fill(struct pipeline *p, const struct drop_sample *s, sluice_v1_TapSample *r)
{
    enum datagram_drop d =
        s->in_kernel ? prefilter_drop((enum drop_reason)s->reason) : (enum datagram_drop)s->reason;
    char ip[INET6_ADDRSTRLEN];
    struct in6_addr source;

    memcpy(&source, &s->source, sizeof source);
    config_address_text(&source, ip);
    r->time_ns = clock_unix_ns() - (clock_monotonic_ns() - s->time_ns);
    snprintf(r->reason, sizeof r->reason, "%s", datagram_drop_name(d));
    for (uint32_t i = 0; i < prefilter_ports(p->prefilter) && s->ifindex != 0; i++) {
        if (prefilter_port(p->prefilter, i)->ifindex == s->ifindex)
            snprintf(r->interface, sizeof r->interface, "%s",
                     prefilter_port(p->prefilter, i)->name);
    }
    r->queue = s->queue;
    r->in_kernel = s->in_kernel;
    r->frame_bytes = s->frame_bytes;
    r->data.size = s->bytes;
    memcpy(r->data.bytes, s->data, s->bytes);
    snprintf(r->source, sizeof r->source, IN6_IS_ADDR_V4MAPPED(&source) ? "%s:%u" : "[%s]:%u", ip,
             ntohs(s->source_port));
}

static int on_tap_next(void *arg, sluice_v1_TapSample *r)
{
    struct pipeline *p = arg;

    if (tap.head == tap.tail) {
        prefilter_samples(p->prefilter, tap_add, NULL);
        for (unsigned i = 0; i < p->workers; i++)
            worker_samples(p->worker[i], tap_add, NULL);
    }
    if (tap.head == tap.tail)
        return 0;
    tap_fill(p, &tap.sample[tap.head++ % TAP_QUEUE], r);
    return 1;
}

/* Samples that are left are thrown away: the next tap is about what happens then. */
static void on_tap_stop(void *arg)
{
    sluice_v1_TapSample ignored;

    tap_set(arg, 0);
    while (on_tap_next(arg, &ignored) > 0) {
    }
}

void pipeline_xdp_source(struct admin_source *ret)
{
    ret->xdp_status = on_xdp_status;
    ret->policy_test = on_policy_test;
    ret->tap_start = on_tap_start;
    ret->tap_next = on_tap_next;
    ret->tap_stop = on_tap_stop;
}
