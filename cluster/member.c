/*
 * member.c - members as strings and as the engine's bytes; see member.h. Any thread; memory is the
 * caller's, and the engine's while it decodes.
 */
#include "cluster/member.h"

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <raft.h>
#include <stdio.h>
#include <string.h>

#include "base/hex.h"
#include "cluster/peer_frame.h"

_Static_assert((int)MEMBER_VOTER == RAFT_VOTER && (int)MEMBER_STANDBY == RAFT_STANDBY,
               "a role is the engine's");
_Static_assert(CLUSTER_MEMBERS_MAX *(MEMBER_ADDRESS_BYTES + 9) + 16 < PEER_CONFIGURATION_BYTES_MAX,
               "all members fit into a configuration");

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool host_is_ipv6(const char *host)
{
    struct in6_addr address;

    return inet_pton(AF_INET6, host, &address) == 1;
}

static bool host_is_name(const char *host)
{
    for (; *host != '\0'; host++) {
        if (!isalnum((unsigned char)*host) && *host != '.' && *host != '-' && *host != '_')
            return false;
    }
    return true;
}

/* Up to the colon before the port. Returns that, or NULL and what is wrong. */
static const char *parse_host(const char *s, char ret[MEMBER_HOST_MAX + 1], const char **ret_wrong)
{
    bool brackets = *s == '[';
    const char *begin = s + brackets, *end = strchr(begin, brackets ? ']' : ':');
    size_t n;

    if (end == NULL) {
        *ret_wrong = brackets ? "the bracket is not closed" : "the port is missing";
        return NULL;
    }
    n = (size_t)(end - begin);
    if (n > MEMBER_HOST_MAX) {
        *ret_wrong = "the host's name is longer than 253 characters";
        return NULL;
    }
    memcpy(ret, begin, n);
    ret[n] = '\0';
    if (brackets && !host_is_ipv6(ret)) {
        *ret_wrong = "no IPv6 address is in the brackets";
        return NULL;
    }
    if (!brackets && !host_is_name(ret)) {
        *ret_wrong = "the host has characters that no name has";
        return NULL;
    }
    end += brackets;
    if (*end != ':') {
        *ret_wrong = "the port is missing";
        return NULL;
    }
    return end;
}

/* Up to the slash behind it. */
static const char *parse_port(const char *s, uint16_t *ret, const char **ret_wrong)
{
    uint32_t port = 0;
    const char *at = s;

    for (; *at >= '0' && *at <= '9' && port <= UINT16_MAX; at++)
        port = port * 10 + (uint32_t)(*at - '0');
    if (at == s || port == 0 || port > UINT16_MAX || *at != '/') {
        *ret_wrong = "the port is not a number from 1 to 65535, or no slash and region follow it";
        return NULL;
    }
    *ret = (uint16_t)port;
    return at;
}

const char *member_parse(const char *address, struct member *ret)
{
    struct member m = *ret;
    const char *at, *wrong = NULL;

    m.port = 0;
    m.region = 0;
    memset(m.host, 0, sizeof m.host);
    memset(m.directory_id, 0, sizeof m.directory_id);
    if (*address != '\0') {
        at = parse_host(address, m.host, &wrong);
        at = at != NULL ? parse_port(at + 1, &m.port, &wrong) : NULL;
        if (at == NULL)
            return wrong;
        if ((at[1] != '1' && at[1] != '2') || at[2] != '/')
            return "the region is neither 1 nor 2, or no slash and directory follow it";
        m.region = (uint8_t)(at[1] - '0');
        at += 3;
        if (strlen(at) != sizeof m.directory_id * 2)
            return "the directory is not 32 hex digits";
        for (size_t i = 0; i < sizeof m.directory_id; i++) {
            int high = hex_digit(at[2 * i]), low = hex_digit(at[2 * i + 1]);

            if (high < 0 || low < 0)
                return "the directory is not 32 hex digits";
            m.directory_id[i] = (uint8_t)(high << 4 | low);
        }
    }
    *ret = m;
    return NULL;
}

const char *member_format(const struct member *m, char ret[MEMBER_ADDRESS_BYTES])
{
    bool ipv6 = strchr(m->host, ':') != NULL;
    size_t at;

    if (m->region == 0) {
        ret[0] = '\0';
        return NULL;
    }
    if (m->region > 2)
        return "the region is neither 1 nor 2";
    if (m->port == 0)
        return "the port is 0";
    if (strnlen(m->host, sizeof m->host) == sizeof m->host)
        return "the host's name is longer than 253 characters";
    if (ipv6 ? !host_is_ipv6(m->host) : !host_is_name(m->host))
        return "the host is neither a name nor an address";
    at = (size_t)snprintf(ret, MEMBER_ADDRESS_BYTES, ipv6 ? "[%s]:%u/%u/" : "%s:%u/%u/", m->host,
                          m->port, m->region);
    assert(at + 2 * sizeof m->directory_id < MEMBER_ADDRESS_BYTES);
    hex_put(ret + at, m->directory_id, sizeof m->directory_id);
    return NULL;
}

bool member_same(const struct member *a, const struct member *b)
{
    return a->node == b->node && a->port == b->port && a->region == b->region &&
           strcmp(a->host, b->host) == 0 &&
           memcmp(a->directory_id, b->directory_id, sizeof a->directory_id) == 0;
}

struct member *members_find(struct member *m, unsigned n, uint16_t node)
{
    for (unsigned i = 0; i < n; i++) {
        if (m[i].node == node)
            return &m[i];
    }
    return NULL;
}

unsigned members_voters(const struct member *m, unsigned n)
{
    unsigned voters = 0;

    for (unsigned i = 0; i < n; i++)
        voters += m[i].role == MEMBER_VOTER;
    return voters;
}

static bool member_of_server(const struct raft_server *s, struct member *ret)
{
    if (s->id == 0 || s->id > UINT16_MAX || (s->role != RAFT_VOTER && s->role != RAFT_STANDBY))
        return false;
    *ret = (struct member){ .node = (uint16_t)s->id, .role = (enum member_role)s->role };
    return member_parse(s->address, ret) == NULL;
}

int members_list(const void *configuration, size_t bytes, struct member ret[CLUSTER_MEMBERS_MAX])
{
    struct raft_buffer b = { (void *)(uintptr_t)configuration, bytes };
    struct raft_configuration c;
    int n;

    raft_configuration_init(&c);
    n = raft_configuration_decode(&b, &c);
    if (n != 0)
        return n == RAFT_NOMEM ? -ENOMEM : -EBADMSG;
    n = c.n <= CLUSTER_MEMBERS_MAX ? (int)c.n : -EBADMSG;
    for (int i = 0; i < n; i++) {
        if (!member_of_server(&c.servers[i], &ret[i]))
            n = -EBADMSG;
    }
    raft_configuration_close(&c);
    return n;
}

/* Two of one directory are one node twice. */
static bool directories_differ(const struct member *m, unsigned n)
{
    static const uint8_t unknown[MEMBER_DIRECTORY_BYTES];

    for (unsigned i = 0; i < n; i++) {
        for (unsigned j = 0; j < i; j++) {
            if (memcmp(m[i].directory_id, m[j].directory_id, sizeof unknown) == 0 &&
                memcmp(m[i].directory_id, unknown, sizeof unknown) != 0)
                return false;
        }
    }
    return true;
}

int members_encode(const struct member *m, unsigned n, void *ret, size_t cap)
{
    char address[MEMBER_ADDRESS_BYTES];
    struct raft_buffer encoded = { NULL, 0 };
    struct raft_configuration c;
    int e = 0;

    if (n == 0 || n > CLUSTER_MEMBERS_MAX || !directories_differ(m, n))
        return -EINVAL;
    raft_configuration_init(&c);
    for (unsigned i = 0; i < n && e == 0; i++) {
        if (m[i].node == 0 || (m[i].role != MEMBER_VOTER && m[i].role != MEMBER_STANDBY) ||
            member_format(&m[i], address) != NULL)
            e = RAFT_BADID;
        else
            e = raft_configuration_add(&c, m[i].node, address, (int)m[i].role);
    }
    if (e == 0)
        e = raft_configuration_encode(&c, &encoded);
    raft_configuration_close(&c);
    if (e != 0)
        return e == RAFT_NOMEM ? -ENOMEM : -EINVAL;
    e = encoded.len <= cap ? (int)encoded.len : -ENOBUFS;
    if (e > 0)
        memcpy(ret, encoded.base, encoded.len);
    raft_free(encoded.base);
    return e;
}
