/*
 * xdp_rig.c - see xdp_rig.h.
 */
#include "xdp_rig.h"

#include <arpa/inet.h>
#include <assert.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static void *map_shared(const struct bpf_map *map, size_t bytes)
{
    size_t pages = (bytes + 4095) & ~(size_t)4095;
    void *p = mmap(NULL, pages, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);

    return p == MAP_FAILED ? NULL : p;
}

static void address_set(struct address *a, const char *text)
{
    struct in6_addr ip = frame_address(text);

    memcpy(a, &ip, sizeof *a);
}

int xdp_rig_open(struct xdp_rig *r)
{
    struct policy p;

    memset(r, 0, sizeof *r);
    for (unsigned c = 0; c < XDP_CLASSES; c++)
        r->socket[c] = -1;
    if (geteuid() != 0) {
        puts("needs root, to load a program into the kernel");
        return 77;
    }
    r->skel = ingress__open_and_load();
    if (!r->skel) {
        printf("the kernel does not take the program: %s\n", strerror(errno));
        return errno == EPERM || errno == ENOSYS ? 77 : 1;
    }
    r->fd = bpf_program__fd(r->skel->progs.sluice_ingress);
    r->cpus = libbpf_num_possible_cpus();
    r->control = map_shared(r->skel->maps.control, sizeof *r->control);
    r->cells = map_shared(r->skel->maps.cells, sizeof *r->cells);
    assert(r->control && r->cells && r->cpus > 0);
    r->control->word = WORD_VERSION;
    r->control->port = htons(FRAME_PORT);
    r->control->addresses = 2;
    r->control->address_changes = 1;
    address_set(&r->control->address[0], "198.51.100.1");
    address_set(&r->control->address[1], "2001:db8:1::1");
    r->control->interface[0] = (struct xdp_interface){
        .ifindex = 1,
        .queues = 1,
        .frame_bytes_max = 1792,
    };
    xdp_rig_policy(&p);
    xdp_rig_set_policy(r, &p, false);
    xdp_rig_set_policy(r, &p, true);
    for (int shadow = 0; shadow < 2; shadow++) {
        xdp_rig_rule(r, "192.0.2.0/24", SOURCE_ALLOW, shadow);
        xdp_rig_rule(r, "2001:db8::/32", SOURCE_ALLOW, shadow);
    }
    return 0;
}

void xdp_rig_close(struct xdp_rig *r)
{
    for (unsigned c = 0; c < XDP_CLASSES; c++) {
        if (r->socket[c] >= 0)
            close(r->socket[c]);
    }
    if (r->control)
        munmap(r->control, (sizeof *r->control + 4095) & ~(size_t)4095);
    if (r->cells)
        munmap(r->cells, (sizeof *r->cells + 4095) & ~(size_t)4095);
    ingress__destroy(r->skel);
}

void xdp_rig_policy(struct policy *p)
{
    memset(p, 0, sizeof *p);
    for (unsigned t = 0; t < POLICY_TYPES; t++)
        p->type[t] = (struct policy_type){
            .action = t >= 1 && t <= 3 ? POLICY_ACCEPT : POLICY_UNKNOWN,
            .class = t >= 1 && t <= 3 ? (uint8_t)(t - 1) : 3,
        };
}

static uint32_t slot_of(const struct xdp_rig *r, bool shadow)
{
    return word_slot(r->control->word, shadow);
}

void xdp_rig_set_policy(struct xdp_rig *r, const struct policy *p, bool shadow)
{
    uint32_t key = slot_of(r, shadow);
    int rc = bpf_map__update_elem(r->skel->maps.policies, &key, sizeof key, p, sizeof *p, 0);

    if (rc != 0)
        abort();
}

static struct bpf_map *trie_of(struct xdp_rig *r, bool v6, bool shadow)
{
    struct bpf_map *v4_trie[] = { r->skel->maps.sources4_0, r->skel->maps.sources4_1,
                                  r->skel->maps.sources4_2, r->skel->maps.sources4_3 };
    struct bpf_map *v6_trie[] = { r->skel->maps.sources6_0, r->skel->maps.sources6_1,
                                  r->skel->maps.sources6_2, r->skel->maps.sources6_3 };

    return (v6 ? v6_trie : v4_trie)[slot_of(r, shadow)];
}

void xdp_rig_rule(struct xdp_rig *r, const char *network, unsigned rule, bool shadow)
{
    char text[64];
    const char *slash = strchr(network, '/');
    struct source_key6 key = { .bits = (uint32_t)atoi(slash + 1) };
    bool v6 = strchr(network, ':') != NULL;
    size_t bytes = v6 ? sizeof(struct source_key6) : sizeof(struct source_key4);
    struct bpf_map *trie = trie_of(r, v6, shadow);
    uint32_t value = rule;
    int rc;

    snprintf(text, sizeof text, "%.*s", (int)(slash - network), network);
    if (inet_pton(v6 ? AF_INET6 : AF_INET, text, key.ip) != 1)
        abort();
    if (rule == 0)
        rc = bpf_map__delete_elem(trie, &key, bytes, 0);
    else
        rc = bpf_map__update_elem(trie, &key, bytes, &value, sizeof value, 0);
    if (rc != 0)
        abort();
    r->control->word += WORD_VERSION; /* what a CPU keeps of the old rules is void */
}

void xdp_rig_sockets(struct xdp_rig *r)
{
    for (uint32_t c = 0; c < XDP_CLASSES; c++) {
        uint32_t key = socket_index(0, 0, c);

        r->socket[c] = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
        if (r->socket[c] < 0 || bpf_map__update_elem(r->skel->maps.sockets, &key, sizeof key,
                                                     &r->socket[c], sizeof r->socket[c], 0) != 0)
            abort();
    }
}

int xdp_rig_run(struct xdp_rig *r, const void *frame, size_t bytes)
{
    LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)bytes,
                .repeat = 1);

    if (bpf_prog_test_run_opts(r->fd, &opts) != 0)
        abort();
    return (int)opts.retval;
}

double xdp_rig_time(struct xdp_rig *r, int fd, const void *frame, size_t bytes, unsigned repeat)
{
    LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)bytes,
                .repeat = (int)repeat);

    if (bpf_prog_test_run_opts(fd, &opts) != 0)
        abort();
    return opts.duration;
}

static uint32_t bank_key(const struct xdp_rig *r) { return r->control->word & WORD_BANK; }

void xdp_rig_counters(struct xdp_rig *r, struct xdp_counters *ret)
{
    uint32_t key = bank_key(r);
    size_t bytes = sizeof(struct xdp_cpu) * (size_t)r->cpus;
    struct xdp_cpu *all = calloc(1, bytes);
    __u64 *to = (__u64 *)ret;

    memset(ret, 0, sizeof *ret);
    if (!all || bpf_map__lookup_elem(r->skel->maps.counters, &key, sizeof key, all, bytes, 0) != 0)
        abort();
    for (int cpu = 0; cpu < r->cpus; cpu++) {
        const __u64 *from = (const __u64 *)&all[cpu].count;

        for (size_t i = 0; i < sizeof *ret / sizeof *to; i++)
            to[i] += from[i];
    }
    free(all);
}

void xdp_rig_clear(struct xdp_rig *r)
{
    uint32_t key = bank_key(r);
    size_t bytes = sizeof(struct xdp_cpu) * (size_t)r->cpus;
    void *zero = calloc(1, bytes);

    if (!zero ||
        bpf_map__update_elem(r->skel->maps.counters, &key, sizeof key, zero, bytes, 0) != 0)
        abort();
    free(zero);
}
