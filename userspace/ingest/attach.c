/*
 * attach.c - the program's way into an interface and out again.
 *
 * By libxdp's dispatcher where the kernel takes BPF_PROG_TYPE_EXT and bpffs is mounted: programs of
 * others stay attached. Else alone, by a BPF link: the kernel detaches it when the process ends,
 * however it ends. A program of ours that a dead process has left behind (attached without a link,
 * or in a dispatcher) is taken over; a program of anybody else is left alone.
 *
 * Thread:  main.
 * Memory:  libbpf's and libxdp's objects, one a port.
 * Errors:  none that end anything: a port keeps to the kernel's sockets, with a note.
 */
#include <assert.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/if_link.h>
#include <linux/magic.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <xdp/libxdp.h>

#include "bpf/ingress.skel.h"
#include "ingest/prefilter_internal.h"

#define PROGRAM_NAME "sluice_ingress"
#define BPFFS_PATH   "/sys/fs/bpf"

static int silent_bpf(enum libbpf_print_level level, const char *format, va_list args)
{
    (void)level, (void)format, (void)args;
    return 0;
}

static int silent_xdp(enum libxdp_print_level level, const char *format, va_list args)
{
    (void)level, (void)format, (void)args;
    return 0;
}

void attach_silence(void)
{
    libbpf_set_print(silent_bpf);
    libxdp_set_print(silent_xdp);
}

/* Only who has that is given a program by its number: to find one in a dispatcher, and to leave. */
static bool may_administer(void)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2];

    return syscall(SYS_capget, &header, data) == 0 && (data[0].effective >> CAP_SYS_ADMIN & 1) != 0;
}

/* Why the dispatcher cannot be had, or NULL. */
static const char *dispatcher_refused(void)
{
    static int kernel = -2; /* asked for once: loading a program */
    struct statfs fs;

    if (statfs(BPFFS_PATH, &fs) < 0 || fs.f_type != BPF_FS_MAGIC)
        return "bpffs is not mounted";
    if (!may_administer())
        return "it takes CAP_SYS_ADMIN";
    if (kernel == -2)
        kernel = libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_EXT, NULL);
    return kernel == 1 ? NULL : "the kernel refuses BPF_PROG_TYPE_EXT";
}

static int reuse_maps(struct ingress *to, const struct ingress *from)
{
    struct bpf_map *map;

    bpf_object__for_each_map(map, to->obj)
    {
        struct bpf_map *other = bpf_object__find_map_by_name(from->obj, bpf_map__name(map));
        int rc = other ? bpf_map__reuse_fd(map, bpf_map__fd(other)) : -ENOENT;

        if (rc < 0)
            return rc;
    }
    return 0;
}

static struct ingress *open_program(struct prefilter *f)
{
    struct ingress *p = ingress__open();

    if (!p)
        return NULL;
    if ((f->maps && reuse_maps(p, f->maps) < 0) ||
        (!f->maps &&
         bpf_map__set_max_entries(p->maps.buckets, f->config->ingest.sources_max) < 0)) {
        ingress__destroy(p);
        return NULL;
    }
    return p;
}

static uint32_t flags_of(enum prefilter_mode mode)
{
    return mode == PREFILTER_NATIVE ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
}

static uint32_t program_id_of(int fd, char name[BPF_OBJ_NAME_LEN])
{
    struct bpf_prog_info info = { 0 };
    uint32_t bytes = sizeof info;

    name[0] = '\0';
    if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &bytes) < 0)
        return 0;
    memcpy(name, info.name, BPF_OBJ_NAME_LEN);
    return info.id;
}

/* Takes away what a dead process of ours has left, in whichever mode. With a link the kernel does
 * that itself, and refuses here: that one is alive. */
static void take_over(struct prefilter_port *port)
{
    LIBBPF_OPTS(bpf_xdp_attach_opts, opts);
    LIBBPF_OPTS(bpf_xdp_query_opts, there);
    char name[BPF_OBJ_NAME_LEN];
    uint32_t flags;
    int fd;

    if (bpf_xdp_query((int)port->ifindex, 0, &there) < 0 || there.prog_id == 0)
        return;
    flags = there.attach_mode == XDP_ATTACHED_SKB ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE;
    fd = bpf_prog_get_fd_by_id(there.prog_id);
    (void)program_id_of(fd, name);
    opts.old_prog_fd = fd;
    if (fd >= 0 && strcmp(name, PROGRAM_NAME) == 0)
        (void)bpf_xdp_detach((int)port->ifindex, flags | XDP_FLAGS_REPLACE, &opts);
    if (fd >= 0)
        close(fd);
}

/* The same in a dispatcher. */
static void take_over_multi(struct prefilter_port *port)
{
    struct xdp_multiprog *m = xdp_multiprog__get_from_ifindex((int)port->ifindex);
    struct xdp_program *p = NULL;

    if (libxdp_get_error(m) != 0)
        return;
    while (!xdp_multiprog__is_legacy(m) && (p = xdp_multiprog__next_prog(p, m)) != NULL) {
        if (strcmp(xdp_program__name(p), PROGRAM_NAME) != 0)
            continue;
        (void)xdp_program__detach(p, (int)port->ifindex, xdp_multiprog__attach_mode(m), 0);
        break;
    }
    xdp_multiprog__close(m);
}

static bool in_dispatcher(const struct prefilter_port *port)
{
    struct xdp_multiprog *m = xdp_multiprog__get_from_ifindex((int)port->ifindex);
    bool is = libxdp_get_error(m) == 0 && !xdp_multiprog__is_legacy(m);

    if (libxdp_get_error(m) == 0)
        xdp_multiprog__close(m);
    return is;
}

static enum xdp_attach_mode libxdp_mode(enum prefilter_mode mode)
{
    return mode == PREFILTER_NATIVE ? XDP_MODE_NATIVE : XDP_MODE_SKB;
}

/* Libxdp loads the program itself, as an extension of the dispatcher. */
static int attach_multi(struct prefilter *f, uint32_t i, enum prefilter_mode mode)
{
    struct prefilter_port *port = &f->port[i];
    struct xdp_program_opts opts = {
        .sz = sizeof opts,
        .obj = f->at[i].program->obj,
        .prog_name = PROGRAM_NAME,
    };
    struct xdp_program *p = xdp_program__create(&opts);
    int rc = (int)libxdp_get_error(p);

    if (rc != 0)
        return rc;
    take_over_multi(port);
    rc = xdp_program__attach(p, (int)port->ifindex, libxdp_mode(mode), 0);
    /* Where it finds no way to a dispatcher it attaches the program alone, and for good. */
    if (rc == 0 && !in_dispatcher(port)) {
        (void)xdp_program__detach(p, (int)port->ifindex, libxdp_mode(mode), 0);
        rc = -EOPNOTSUPP;
    }
    if (rc != 0) {
        xdp_program__close(p);
        return rc;
    }
    f->at[i].multi = p;
    port->dispatcher = true;
    return 0;
}

static int attach_alone(struct prefilter *f, uint32_t i, enum prefilter_mode mode)
{
    struct bpf_link_create_opts opts = { .sz = sizeof opts, .flags = flags_of(mode) };
    struct prefilter_port *port = &f->port[i];
    int rc = ingress__load(f->at[i].program), fd;

    if (rc < 0)
        return rc;
    fd = bpf_program__fd(f->at[i].program->progs.sluice_ingress);
    take_over(port);
    f->at[i].link = bpf_link_create(fd, (int)port->ifindex, BPF_XDP, &opts);
    return f->at[i].link < 0 ? -errno : 0;
}

static const char *reason_text(int rc)
{
    switch (-rc) {
    case EINVAL:
    case ENOEXEC:
        return "the kernel does not take the program; Linux 6.1 or newer is needed";
    case EPERM:
    case EACCES:
        return "it asks for CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN";
    case EBUSY:
    case EEXIST:
        return "another program is attached there";
    case EOPNOTSUPP:
        return "the driver cannot do that";
    case ERANGE:
    case E2BIG:
        return "its MTU, or its peer's, is too large for it";
    case ENOSPC: /* veth: its peer has more to send by */
        return "it has too few receive queues for it";
    default:
        return strerror(-rc);
    }
}

static int attach_by(struct prefilter *f, uint32_t i, enum prefilter_mode mode,
                     int (*way)(struct prefilter *, uint32_t, enum prefilter_mode))
{
    struct attachment *a = &f->at[i];
    int rc;

    a->program = open_program(f);
    if (!a->program)
        return errno ? -errno : -ENOMEM;
    rc = way(f, i, mode);
    if (rc < 0) {
        ingress__destroy(a->program);
        a->program = NULL;
    }
    return rc;
}

/* What libxdp comes to grief on need not concern the program alone. */
static int attach_in(struct prefilter *f, uint32_t i, enum prefilter_mode mode)
{
    const char *alone = dispatcher_refused();
    struct attachment *a = &f->at[i];
    int rc = alone ? -EOPNOTSUPP : attach_by(f, i, mode, attach_multi), multi = rc;

    if (rc < 0 && rc != -EBUSY && rc != -EEXIST)
        rc = attach_by(f, i, mode, attach_alone);
    if (rc < 0)
        return rc;
    if (!f->port[i].dispatcher)
        prefilter_note(&f->port[i], "without a dispatcher: %s", alone ? alone : strerror(-multi));
    if (!f->maps)
        f->maps = a->program;
    return 0;
}

void attach_port(struct prefilter *f, uint32_t i)
{
    struct prefilter_port *port = &f->port[i];
    uint32_t wanted = f->config->ingest.xdp.mode;
    char name[BPF_OBJ_NAME_LEN];
    int rc;

    assert(wanted != CONFIG_XDP_SOCKET && port->ifindex != 0);
    f->at[i].link = -1;
    for (int mode = PREFILTER_NATIVE; mode > PREFILTER_SOCKET; mode--) {
        if (wanted != CONFIG_XDP_AUTO &&
            (wanted == CONFIG_XDP_NATIVE) != (mode == PREFILTER_NATIVE))
            continue;
        if (mode == PREFILTER_GENERIC && port->virtual_device)
            prefilter_note(port,
                           "%s XDP on a virtual interface: datagrams that their sender has "
                           "joined (UDP_SEGMENT) %s be taken for one",
                           wanted == CONFIG_XDP_AUTO ? "no generic" : "generic",
                           wanted == CONFIG_XDP_AUTO ? "would" : "will");
        if (mode == PREFILTER_GENERIC && port->virtual_device && wanted == CONFIG_XDP_AUTO)
            return;
        rc = attach_in(f, i, mode);
        if (rc == 0) {
            port->mode = mode;
            port->attached = true;
            port->program_id =
                program_id_of(bpf_program__fd(f->at[i].program->progs.sluice_ingress), name);
            return;
        }
        prefilter_note(port, "no %s XDP: %s", prefilter_mode_name(mode), reason_text(rc));
    }
}

/* Without privileges no more can be seen of a dispatcher than that there is one: others come and go
 * in it, and each time it is another. */
bool attach_holds(const struct prefilter *f, uint32_t i)
{
    uint32_t id = 0;

    if (bpf_xdp_query_id((int)f->port[i].ifindex, 0, &id) < 0)
        return false;
    return f->at[i].multi ? id != 0 : id == f->port[i].program_id;
}

int leave_dispatcher(const struct prefilter *f, uint32_t i)
{
    const struct prefilter_port *port = &f->port[i];
    int rc;

    if (!f->at[i].multi)
        return 0;
    rc = xdp_program__detach(f->at[i].multi, (int)port->ifindex, libxdp_mode(port->mode), 0);
    /* Somebody has emptied the interface, or taken it away: what is in bpffs would stay for good.
     */
    return rc == -ENOENT ? libxdp_clean_references((int)port->ifindex) : rc;
}

void detach_port(struct prefilter *f, uint32_t i)
{
    struct attachment *a = &f->at[i];

    (void)leave_dispatcher(f, i); /* in vain, where the detacher has done it */
    if (a->multi)
        xdp_program__close(a->multi);
    if (a->link >= 0)
        close(a->link);
    a->multi = NULL;
    a->link = -1;
    f->port[i].mode = PREFILTER_SOCKET;
}
