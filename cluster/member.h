/*
 * member.h - the members of a cluster: who they are, where they listen, and what they may do.
 *
 * A member is a server of the engine's configuration, whose address string says the rest:
 *
 *   HOST:PORT/REGION/DIRECTORY      node3.example:7400/1/00112233445566778899aabbccddeeff
 *
 * HOST is a name or an IPv4 address, or an IPv6 address in brackets; it is empty where nothing is
 * dialled. DIRECTORY is the id of the node's data directory, 32 hex digits; all zeros: not known. A
 * node that has made a cluster of its own names nothing: its address is the empty string, and its
 * region here is 0.
 *
 * Any thread; the caller's memory. Every string and configuration may be parsed, whatever is in it.
 */
#ifndef SLUICE_CLUSTER_MEMBER_H
#define SLUICE_CLUSTER_MEMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLUSTER_MEMBERS_MAX 8u /* three in each of two regions, and those that replace some */
#define CLUSTER_VOTERS_MIN  3u /* fewer survive the loss of none */

#define MEMBER_DIRECTORY_BYTES 16u
#define MEMBER_HOST_MAX        253u /* of a name (RFC 1035) */
#define MEMBER_ADDRESS_BYTES                                                                       \
    (MEMBER_HOST_MAX + sizeof "[]:65535/2/" + 2 * MEMBER_DIRECTORY_BYTES) /* with the end's 0 */

/* The engine's roles; its third is never used (E13). */
enum member_role {
    MEMBER_STANDBY = 0, /* has the log, does not vote */
    MEMBER_VOTER = 1,
};

struct member {
    uint16_t node; /* 1.. */
    enum member_role role;
    uint16_t port;
    uint8_t region; /* 1 or 2; 0: the address is empty */
    uint8_t directory_id[MEMBER_DIRECTORY_BYTES];
    char host[MEMBER_HOST_MAX + 1]; /* IPv6 without brackets */
};

/* Reads host, port, region and directory of an address. Returns NULL, or what is wrong with it; ret
 * is then as it was. */
const char *member_parse(const char *address, struct member *ret);

/* What member_parse() reads. Returns NULL, or what is wrong with m. */
const char *member_format(const struct member *m, char ret[MEMBER_ADDRESS_BYTES]);

/* Same node at the same place; roles may differ. */
bool member_same(const struct member *a, const struct member *b);

/* Of n members, the one with this id, or NULL. */
struct member *members_find(struct member *m, unsigned n, uint16_t node);

unsigned members_voters(const struct member *m, unsigned n);

/* From the engine's encoding, in its order. Foreign bytes have to pass peer_configuration_check()
 * first. Returns how many there are, or -EBADMSG: this is no configuration of ours; or -ENOMEM. */
int members_list(const void *configuration, size_t bytes, struct member ret[CLUSTER_MEMBERS_MAX]);

/* The engine's encoding of n members, in their order: the same bytes everywhere. Returns its size,
 * or -EINVAL (one that cannot be, or two with one id, address or directory), -ENOBUFS, -ENOMEM. */
int members_encode(const struct member *m, unsigned n, void *ret, size_t cap);

#endif
