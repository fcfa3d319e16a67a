/*
 * privileges.c - see privileges.h. By capset(2): a library would bring nothing but names.
 *
 * Memory:  none.
 */
#include "privileges.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct kept {
    unsigned capability;
    const char *name;
    size_t offset; /* in struct privileges: its reason */
};

static const struct kept kept[] = {
    { CAP_SYS_ADMIN, "CAP_SYS_ADMIN", offsetof(struct privileges, detach) },
    { CAP_NET_ADMIN, "CAP_NET_ADMIN", offsetof(struct privileges, detach) },
    { CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE", offsetof(struct privileges, files) },
    { CAP_FOWNER, "CAP_FOWNER", offsetof(struct privileges, files) },
};

static uint64_t keep_mask(const struct privileges *keep)
{
    uint64_t mask = 0;

    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        if (*(const bool *)((const char *)keep + kept[i].offset))
            mask |= 1ull << kept[i].capability;
    }
    return mask;
}

static void names_of(uint64_t mask, char *ret, size_t bytes)
{
    size_t used = 0;

    ret[0] = '\0';
    for (size_t i = 0; i < sizeof kept / sizeof kept[0] && used < bytes; i++) {
        if ((mask >> kept[i].capability & 1) != 0)
            used += (size_t)snprintf(ret + used, bytes - used, "%s%s", used > 0 ? ", " : "",
                                     kept[i].name);
    }
}

/* Not by modes and owners: those of every directory on the way count, and there are ACLs. */
static bool is_closed(const char *directory)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct now[2], none[2];
    bool closed;
    int rc;

    if (syscall(SYS_capget, &header, now) < 0)
        return false;
    memcpy(none, now, sizeof none);
    none[0].effective = none[1].effective = 0;
    rc = (int)syscall(SYS_capset, &header, none);
    closed = rc == 0 && faccessat(AT_FDCWD, directory, R_OK | W_OK | X_OK, AT_EACCESS) < 0 &&
             errno == EACCES;
    rc = rc < 0 ? rc : (int)syscall(SYS_capset, &header, now);
    assert(rc == 0);
    return closed;
}

bool privileges_opens(const char *directory)
{
    struct stat st;

    return stat(directory, &st) == 0 && (st.st_uid != geteuid() || is_closed(directory));
}

int privileges_drop(const struct privileges *keep, char *ret_kept, size_t bytes)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2];
    uint64_t mask = keep_mask(keep), may;

    if (syscall(SYS_capget, &header, data) < 0)
        return -errno;
    may = data[0].permitted | (uint64_t)data[1].permitted << 32;
    mask &= may;
    /* From the bounding set too, so that no program that is started gets them back; for that
     * CAP_SETPCAP is needed, which only some have. */
    for (unsigned c = 0; c <= CAP_LAST_CAP; c++) {
        if ((mask >> c & 1) == 0 && prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0)
            break;
    }
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (unsigned i = 0; i < 2; i++) {
        data[i].effective = data[i].permitted = (uint32_t)(mask >> (32 * i));
        data[i].inheritable = 0;
    }
    if (syscall(SYS_capset, &header, data) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    names_of(mask, ret_kept, bytes);
    return 0;
}
