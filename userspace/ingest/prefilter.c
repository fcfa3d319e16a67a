/*
 * prefilter.c - the program's maps: policy in, counters and samples out.
 *
 * A change of the policy is written into the generation that no packet looks at, then the word that
 * names the generation is changed, then every packet that may have read the old word is waited
 * for. Counting is the same the other way round: the bank is switched, packets in the old one are
 * waited for, and then it stands still.
 *
 * Thread:  see prefilter.h; the lock keeps push, count and refresh apart.
 * Memory:  prefilter_open() allocates; the control block and the cells are the kernel's pages.
 */
#include "ingest/prefilter.h"

#include <arpa/inet.h>
#include <assert.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <ifaddrs.h>
#include <limits.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bpf/ingress.skel.h"
#include "ingest/prefilter_internal.h"

#define FRAME_HEADROOM  256u  /* XDP_PACKET_HEADROOM, which AF_XDP leaves free in every frame */
#define LINK_BYTES      22u   /* Ethernet header and two VLAN tags */
#define SOURCES_LOOKED  4096u /* at a time */
#define FRAME_BYTES     2048u
#define FRAME_BYTES_BIG 4096u

void prefilter_note(struct prefilter_port *port, const char *format, ...)
{
    size_t used = strlen(port->note);
    char text[PREFILTER_NOTE_BYTES];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    if (strstr(port->note, text) == NULL)
        snprintf(port->note + used, sizeof port->note - used, "%s%s", used > 0 ? "; " : "", text);
}

const char *prefilter_mode_name(enum prefilter_mode mode)
{
    static const char *const name[] = {
        [PREFILTER_SOCKET] = "socket",
        [PREFILTER_GENERIC] = "generic",
        [PREFILTER_NATIVE] = "native",
    };

    assert((unsigned)mode < sizeof name / sizeof name[0]);
    return name[mode];
}

enum datagram_drop prefilter_drop(enum drop_reason reason)
{
    static const uint8_t drop[REASONS] = {
        [REASON_SOURCE_DENIED] = DROP_SOURCE_DENIED,
        [REASON_LENGTH] = DROP_LENGTH,
        [REASON_EMPTY] = DROP_EMPTY,
        [REASON_NOT_PROTOBUF] = DROP_NOT_PROTOBUF,
        [REASON_EVENT_MALFORMED] = DROP_EVENT_MALFORMED,
        [REASON_BATCH_MALFORMED] = DROP_BATCH_MALFORMED,
        [REASON_TYPE_UNKNOWN] = DROP_TYPE_UNKNOWN,
        [REASON_TYPE_DROPPED] = DROP_TYPE_DROPPED,
        [REASON_SAMPLED_OUT] = DROP_SAMPLED_OUT,
        [REASON_TYPE_RATE] = DROP_TYPE_RATE,
        [REASON_SOURCE_RATE] = DROP_SOURCE_RATE,
    };

    assert((unsigned)reason < REASONS);
    return (enum datagram_drop)drop[reason];
}

/* --- interfaces ---------------------------------------------------------------------------------
 */

static uint32_t queues_of(int fd, const char *name)
{
    struct ethtool_channels c = { .cmd = ETHTOOL_GCHANNELS };
    struct ifreq r = { .ifr_data = (char *)&c };

    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    if (ioctl(fd, SIOCETHTOOL, &r) < 0 || c.rx_count + c.combined_count == 0)
        return 1;
    return c.rx_count + c.combined_count;
}

/* Virtio, and what is on no bus: an address there has digits in it, and in its place others have
 * nothing (veth), "N/A" (bridge) or "tun". */
static bool device_is_virtual(int fd, const char *name)
{
    struct ethtool_drvinfo d = { .cmd = ETHTOOL_GDRVINFO };
    struct ifreq r = { .ifr_data = (char *)&d };

    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    return ioctl(fd, SIOCETHTOOL, &r) < 0 || strncmp(d.driver, "virtio", 6) == 0 ||
           strpbrk(d.bus_info, "0123456789") == NULL;
}

static bool device_is_loopback(int fd, const char *name)
{
    struct ifreq r = { 0 };

    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    return ioctl(fd, SIOCGIFFLAGS, &r) == 0 && (r.ifr_flags & IFF_LOOPBACK) != 0;
}

static void port_look(struct prefilter_port *port, const char *name)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq r = { 0 };

    snprintf(port->name, sizeof port->name, "%s", name);
    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    port->ifindex = if_nametoindex(name);
    if (port->ifindex == 0 || fd < 0 || ioctl(fd, SIOCGIFMTU, &r) < 0) {
        prefilter_note(port, "there is no interface %s", name);
        port->ifindex = 0;
    } else if (device_is_loopback(fd, name)) {
        prefilter_note(port, "no XDP on loopback: nothing there comes from outside");
        port->ifindex = 0;
    } else {
        port->mtu = (uint32_t)r.ifr_mtu;
        port->queues = queues_of(fd, name);
        port->virtual_device = device_is_virtual(fd, name);
        port->frame_bytes =
            port->mtu + LINK_BYTES <= FRAME_BYTES - FRAME_HEADROOM ? FRAME_BYTES : FRAME_BYTES_BIG;
    }
    if (port->queues > XDP_QUEUES_MAX) {
        prefilter_note(port, "the first %u of %u queues", XDP_QUEUES_MAX, port->queues);
        port->queues = XDP_QUEUES_MAX;
    }
    if (fd >= 0)
        close(fd);
}

/* --- start and end ------------------------------------------------------------------------------
 */

static void *map_shared(const struct bpf_map *map, size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);

    return p == MAP_FAILED ? NULL : p;
}

static int on_sample(void *arg, void *data, size_t bytes);

static int maps_open(struct prefilter *f)
{
    f->control = map_shared(f->maps->maps.control, sizeof *f->control);
    f->cells = map_shared(f->maps->maps.cells, sizeof *f->cells);
    f->samples = ring_buffer__new(bpf_map__fd(f->maps->maps.samples), on_sample, f, NULL);
    f->cpus = libbpf_num_possible_cpus();
    if (!f->control || !f->cells || !f->samples || f->cpus <= 0)
        return -ENOMEM;
    f->scratch = calloc((size_t)f->cpus, sizeof *f->scratch);
    if (!f->scratch)
        return -ENOMEM;
    f->control->word = WORD_VERSION;
    f->control->address_changes = 1;
    return 0;
}

int prefilter_open(struct prefilter **ret, const struct config *config)
{
    const struct config_xdp *x = &config->ingest.xdp;
    struct prefilter *f;
    int rc = 0;

    *ret = NULL;
    if (x->mode == CONFIG_XDP_SOCKET || x->interfaces.n == 0)
        return 0;
    f = calloc(1, sizeof *f);
    if (!f)
        return -ENOMEM;
    f->config = config;
    pthread_mutex_init(&f->lock, NULL);
    attach_silence();
    f->ports = x->interfaces.n;
    for (uint32_t i = 0; i < f->ports; i++) {
        f->at[i].link = -1;
        port_look(&f->port[i], x->interfaces.at[i]);
        if (f->port[i].ifindex != 0)
            attach_port(f, i);
    }
    if (f->maps)
        rc = maps_open(f);
    if (rc < 0) {
        prefilter_close(f);
        return rc;
    }
    *ret = f;
    return 0;
}

void prefilter_close(struct prefilter *f)
{
    if (!f)
        return;
    for (uint32_t i = 0; i < f->ports; i++)
        detach_port(f, i);
    for (uint32_t i = 0; i < f->ports; i++)
        ingress__destroy(f->at[i].program);
    if (f->control)
        munmap(f->control, sizeof *f->control);
    if (f->cells)
        munmap(f->cells, sizeof *f->cells);
    ring_buffer__free(f->samples);
    free(f->scratch);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

bool prefilter_in_dispatcher(const struct prefilter *f)
{
    for (uint32_t i = 0; f && i < f->ports; i++) {
        if (f->port[i].dispatcher)
            return true;
    }
    return false;
}

int prefilter_leave_dispatchers(const struct prefilter *f)
{
    int rc = 0;

    for (uint32_t i = 0; i < f->ports; i++) {
        int one = leave_dispatcher(f, i);

        if (rc == 0)
            rc = one;
    }
    return rc;
}

uint32_t prefilter_ports(const struct prefilter *f) { return f ? f->ports : 0; }

struct prefilter_port *prefilter_port(struct prefilter *f, uint32_t port)
{
    assert(port < f->ports);
    return &f->port[port];
}

struct policy_cells *prefilter_cells(struct prefilter *f) { return f ? f->cells : NULL; }

int prefilter_add_socket(struct prefilter *f, uint32_t port, uint32_t queue, uint32_t class, int fd)
{
    uint32_t key = socket_index(port, queue, class);

    int rc;

    assert(port < f->ports && queue < XDP_QUEUES_MAX && class < XDP_CLASSES);
    rc = bpf_map__update_elem(f->maps->maps.sockets, &key, sizeof key, &fd, sizeof fd, 0);
    if (rc == 0)
        f->sockets[port]++;
    return rc;
}

/* --- the control block --------------------------------------------------------------------------
 */

/* Returns when every program that ran when it was called has ended: the kernel waits for that
 * before it is done with an update of a map of maps. */
static void grace(struct prefilter *f)
{
    int inner = bpf_map__fd(f->maps->maps.grace_inner);
    uint32_t key = 0;
    int rc =
        bpf_map__update_elem(f->maps->maps.grace, &key, sizeof key, &inner, sizeof inner, BPF_ANY);

    assert(rc == 0);
    (void)rc;
}

static void word_set(struct prefilter *f, uint32_t word)
{
    __atomic_store_n(&f->control->word, word, __ATOMIC_RELEASE);
}

static void mac_refresh(struct prefilter *f, uint32_t port, int fd)
{
    struct ifreq r = { 0 };

    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", f->port[port].name);
    if (ioctl(fd, SIOCGIFHWADDR, &r) == 0)
        memcpy(f->control->interface[port].mac, r.ifr_hwaddr.sa_data, 6);
}

/* Loopback's are not for the wire: the kernel would not take what comes to them from outside. */
static void address_add(struct xdp_control *c, uint32_t *n, const struct in6_addr *ip)
{
    struct address a;

    if (IN6_IS_ADDR_LOOPBACK(ip) || (IN6_IS_ADDR_V4MAPPED(ip) && ip->s6_addr[12] == 127))
        return;
    memcpy(&a, ip, sizeof a);
    for (uint32_t i = 0; i < *n; i++) {
        if (memcmp(&c->address[i], &a, sizeof a) == 0)
            return;
    }
    if (*n < XDP_ADDRESSES_MAX)
        c->address[(*n)++] = a;
}

/* For a socket that listens on every address of a family: those that this host has. */
static void address_add_local(struct xdp_control *c, uint32_t *n, int family,
                              const struct ifaddrs *list)
{
    for (const struct ifaddrs *a = list; a; a = a->ifa_next) {
        struct in6_addr ip = { .s6_addr = { [10] = 0xff, [11] = 0xff } };

        if (!a->ifa_addr || a->ifa_addr->sa_family != family)
            continue;
        if (family == AF_INET)
            memcpy(ip.s6_addr + 12, &((const struct sockaddr_in *)a->ifa_addr)->sin_addr, 4);
        else
            ip = ((const struct sockaddr_in6 *)a->ifa_addr)->sin6_addr;
        address_add(c, n, &ip);
    }
}

/* Builds the list anew beside the one in use. A packet that sees a mixture takes an address of ours
 * for one that is not, and goes the kernel's way. */
static void addresses_refresh(struct prefilter *f)
{
    const struct config_addresses *a = &f->config->ingest.address;
    static const struct in6_addr any4 = { .s6_addr = { [10] = 0xff, [11] = 0xff } };
    struct xdp_control fresh = { 0 };
    struct ifaddrs *list = NULL;
    uint32_t n = 0;

    if (getifaddrs(&list) < 0)
        list = NULL;
    for (uint32_t i = 0; i < a->n; i++) {
        if (memcmp(&a->at[i].ip, &any4, sizeof any4) == 0)
            address_add_local(&fresh, &n, AF_INET, list);
        else if (IN6_IS_ADDR_UNSPECIFIED(&a->at[i].ip))
            address_add_local(&fresh, &n, AF_INET6, list);
        else
            address_add(&fresh, &n, &a->at[i].ip);
    }
    if (list)
        freeifaddrs(list);
    if (n == f->control->addresses &&
        memcmp(f->control->address, fresh.address, n * sizeof fresh.address[0]) == 0)
        return;
    if (n < f->control->addresses)
        f->control->addresses = n;
    memcpy(f->control->address, fresh.address, n * sizeof fresh.address[0]);
    __atomic_store_n(&f->control->addresses, n, __ATOMIC_RELEASE);
    __atomic_add_fetch(&f->control->address_changes, 1, __ATOMIC_RELEASE);
}

void prefilter_refresh(struct prefilter *f)
{
    int fd = f && f->maps ? socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;

    if (fd < 0)
        return;
    pthread_mutex_lock(&f->lock);
    addresses_refresh(f);
    for (uint32_t i = 0; i < f->ports; i++) {
        struct prefilter_port *port = &f->port[i];

        if (port->mode == PREFILTER_SOCKET)
            continue;
        mac_refresh(f, i, fd);
        port->attached = attach_holds(f, i);
    }
    pthread_mutex_unlock(&f->lock);
    close(fd);
}

void prefilter_go(struct prefilter *f, uint16_t udp_port)
{
    if (!f || !f->maps)
        return;
    prefilter_refresh(f);
    for (uint32_t i = 0; i < f->ports; i++) {
        struct prefilter_port *port = &f->port[i];
        struct xdp_interface *to = &f->control->interface[i];

        if (port->mode == PREFILTER_SOCKET)
            continue;
        port->rings = f->sockets[i] == port->queues * XDP_CLASSES;
        to->queues = port->rings ? (uint16_t)port->queues : 0;
        to->frame_bytes_max = port->rings ? port->frame_bytes - FRAME_HEADROOM : 0;
        __atomic_store_n(&to->ifindex, port->ifindex, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&f->control->port, htons(udp_port), __ATOMIC_RELEASE);
}

void prefilter_stop(struct prefilter *f)
{
    if (!f || !f->maps)
        return;
    __atomic_store_n(&f->control->port, 0, __ATOMIC_RELEASE);
    grace(f);
}

/* --- counters -----------------------------------------------------------------------------------
 */

static void counters_add(struct xdp_counters *to, const struct xdp_counters *from)
{
    /* Not uint64_t: that is another type to the compiler, which then need not see the additions. */
    __u64 *t = (__u64 *)to;
    const __u64 *s = (const __u64 *)from;

    _Static_assert(sizeof *to % sizeof *t == 0, "counters only");
    for (size_t i = 0; i < sizeof *to / sizeof *t; i++)
        t[i] += s[i];
}

/* The bank that nothing counts in any more goes into the totals and starts anew. Where that cannot
 * be done (no memory) it stays as it is, for the next time. */
static void bank_take(struct prefilter *f, uint32_t bank)
{
    size_t bytes = sizeof *f->scratch * (size_t)f->cpus;

    for (uint32_t i = 0; i < f->ports; i++) {
        struct xdp_counters sum = { 0 };
        uint32_t key = i * 2 + bank;

        if (bpf_map__lookup_elem(f->maps->maps.counters, &key, sizeof key, f->scratch, bytes, 0) <
            0)
            continue;
        for (int cpu = 0; cpu < f->cpus; cpu++)
            counters_add(&sum, &f->scratch[cpu].count);
        memset(f->scratch, 0, bytes);
        if (bpf_map__update_elem(f->maps->maps.counters, &key, sizeof key, f->scratch, bytes,
                                 BPF_ANY) == 0)
            counters_add(&f->total[i], &sum);
    }
}

/* With f->lock. */
static void counters_take(struct prefilter *f)
{
    uint32_t bank = f->control->word & WORD_BANK;

    word_set(f, f->control->word ^ WORD_BANK);
    grace(f);
    bank_take(f, bank);
}

void prefilter_count(struct prefilter *f, struct xdp_counters ret[XDP_INTERFACES_MAX])
{
    memset(ret, 0, sizeof *ret * XDP_INTERFACES_MAX);
    if (!f || !f->maps)
        return;
    pthread_mutex_lock(&f->lock);
    counters_take(f);
    memcpy(ret, f->total, sizeof f->total);
    pthread_mutex_unlock(&f->lock);
}

void prefilter_ledger(const struct xdp_counters *c, struct ledger *l)
{
    for (unsigned r = 0; r < REASONS; r++) {
        enum datagram_drop d = prefilter_drop((enum drop_reason)r);

        l->datagrams_seen += c->dropped[r];
        l->datagram_drop[d] += c->dropped[r];
        l->xdp_drop[d] += c->dropped[r];
        l->shadow_drop[d] += c->shadow[r];
    }
    l->shadow_taken += c->shadow_taken;
    l->xdp_arrived += c->arrived;
    for (unsigned i = 0; i < XDP_CLASSES; i++)
        l->xdp_redirected[i] += c->redirected[i];
    for (unsigned i = 0; i < PASSES; i++)
        l->xdp_passed += c->passed[i];
    l->xdp_fragments += c->fragments;
    l->xdp_tcp_passed += c->tcp[TCP_PASSED];
    l->xdp_tcp_denied += c->tcp[TCP_DENIED];
    l->xdp_tcp_syn_rate += c->tcp[TCP_SYN_RATE];
}

/* --- the policy ---------------------------------------------------------------------------------
 */

static struct bpf_map *trie_of(struct prefilter *f, bool ipv4, uint32_t slot)
{
    struct bpf_map *trie[2][4] = {
        { f->maps->maps.sources6_0, f->maps->maps.sources6_1, f->maps->maps.sources6_2,
          f->maps->maps.sources6_3 },
        { f->maps->maps.sources4_0, f->maps->maps.sources4_1, f->maps->maps.sources4_2,
          f->maps->maps.sources4_3 },
    };

    assert(slot < 4);
    return trie[ipv4][slot];
}

/* rule 0 takes the network out. */
static int trie_set(struct prefilter *f, uint32_t slot, const struct source_network *n,
                    uint32_t rule)
{
    struct bpf_map *trie = trie_of(f, n->ipv4, slot);
    struct source_key4 key4 = { .bits = n->bits - 96u };
    struct source_key6 key6 = { .bits = n->bits };
    const void *key = n->ipv4 ? (const void *)&key4 : &key6;
    size_t bytes = n->ipv4 ? sizeof key4 : sizeof key6;

    memcpy(key4.ip, n->ip + 12, sizeof key4.ip);
    memcpy(key6.ip, n->ip, sizeof key6.ip);
    if (rule == 0)
        return bpf_map__delete_elem(trie, key, bytes, 0);
    return bpf_map__update_elem(trie, key, bytes, &rule, sizeof rule, BPF_ANY);
}

static int rules_push(struct prefilter *f, uint32_t slot, const struct source_rules *rules)
{
    struct slot_rules *there = &f->slot[slot];
    int rc;

    while (there->n > 0) {
        rc = trie_set(f, slot, &there->at[there->n - 1], 0);
        if (rc < 0 && rc != -ENOENT)
            return rc;
        there->n--;
    }
    for (uint32_t i = 0; i < rules->n; i++) {
        rc = trie_set(f, slot, &rules->at[i], rules->at[i].rule);
        if (rc < 0)
            return rc;
        there->at[there->n++] = rules->at[i];
    }
    return 0;
}

static int slot_push(struct prefilter *f, uint32_t slot, const struct policy *p,
                     const struct source_rules *rules)
{
    int rc =
        bpf_map__update_elem(f->maps->maps.policies, &slot, sizeof slot, p, sizeof *p, BPF_ANY);

    return rc < 0 ? rc : rules_push(f, slot, rules);
}

/* Before a new shadow policy: what is counted of the last one is no count of this one. */
static void shadow_begin(struct prefilter *f)
{
    counters_take(f);
    for (uint32_t i = 0; i < f->ports; i++) {
        memset(f->total[i].shadow, 0, sizeof f->total[i].shadow);
        f->total[i].shadow_taken = 0;
    }
}

int prefilter_push(struct prefilter *f, const struct admission *a)
{
    uint32_t word;
    int rc = 0;

    if (!f || !f->maps)
        return 0;
    pthread_mutex_lock(&f->lock);
    word = (f->control->word + WORD_VERSION) ^ WORD_GENERATION;
    for (uint32_t i = 0; i < POLICY_N && rc == 0; i++)
        rc = slot_push(f, word_slot(word, i), &a->policy[i], &a->sources[i]);
    if (rc == 0) {
        if (a->shadow && !f->control->shadow) {
            shadow_begin(f);
            word ^= WORD_BANK;
        }
        word_set(f, word);
        f->control->shadow = a->shadow;
        grace(f);
    }
    pthread_mutex_unlock(&f->lock);
    return rc;
}

/* --- sources and samples ------------------------------------------------------------------------
 */

/* Keeps ret[0..n) sorted, the most datagrams first. */
static size_t source_insert(struct prefilter_source *ret, size_t n, size_t max,
                            const struct prefilter_source *s)
{
    size_t at = n < max ? n : max;

    while (at > 0 && ret[at - 1].taken + ret[at - 1].dropped < s->taken + s->dropped) {
        if (at < max)
            ret[at] = ret[at - 1];
        at--;
    }
    if (at == max)
        return n;
    ret[at] = *s;
    return n < max ? n + 1 : n;
}

size_t prefilter_sources(struct prefilter *f, struct prefilter_source *ret, size_t max)
{
    static struct bucket_key key[SOURCES_LOOKED];
    static struct bucket value[SOURCES_LOOKED];
    LIBBPF_OPTS(bpf_map_batch_opts, opts);
    uint64_t at = 0;
    bool first = true;
    size_t n = 0, looked = 0;
    int rc = 0;

    if (!f || !f->maps || max == 0)
        return 0;
    pthread_mutex_lock(&f->lock);
    while (rc == 0 && looked < f->config->ingest.sources_max) {
        uint32_t count = SOURCES_LOOKED;

        rc = bpf_map_lookup_batch(bpf_map__fd(f->maps->maps.buckets), first ? NULL : &at, &at, key,
                                  value, &count, &opts);
        if (rc < 0 && rc != -ENOENT)
            break;
        first = false;
        looked += count;
        for (uint32_t i = 0; i < count; i++) {
            struct prefilter_source s = { .taken = value[i].taken, .dropped = value[i].dropped };

            memcpy(&s.ip, &key[i].source, sizeof s.ip);
            if (key[i].kind == BUCKET_DATAGRAMS)
                n = source_insert(ret, n, max, &s);
        }
    }
    pthread_mutex_unlock(&f->lock);
    return n;
}

void prefilter_sample(struct prefilter *f, uint32_t reasons)
{
    if (f && f->maps)
        __atomic_store_n(&f->control->sample_mask, reasons, __ATOMIC_RELEASE);
}

static int on_sample(void *arg, void *data, size_t bytes)
{
    struct prefilter *f = arg;

    if (bytes >= sizeof(struct drop_sample) && f->sample_each)
        f->sample_each(f->sample_arg, data);
    return 0;
}

void prefilter_samples(struct prefilter *f, void (*each)(void *arg, const struct drop_sample *s),
                       void *arg)
{
    if (!f || !f->maps)
        return;
    f->sample_each = each;
    f->sample_arg = arg;
    (void)ring_buffer__consume(f->samples);
    f->sample_each = NULL;
}
