/*
 * admission.h - what is taken and what is not: the settings' policy and this node's allow list, in
 * the form that the workers and the program in the driver look at.
 *
 * Made once for every version of the settings; both apply the same one (bpf/policy.h).
 *
 * Thread:  plain data, read-only once it is made.
 * Memory:  the caller's, some 70 KB.
 */
#ifndef SLUICE_INGEST_ADMISSION_H
#define SLUICE_INGEST_ADMISSION_H

#include "base/config.h"
#include "base/settings.h"
#include "bpf/policy.h"

#define ADMISSION_RULES_MAX (SETTINGS_SOURCES_MAX + CONFIG_NETWORKS_MAX)

enum { POLICY_ACTIVE, POLICY_SHADOW, POLICY_N };

struct source_network {
    uint8_t ip[16]; /* IPv4 as a mapped address */
    uint8_t bits;   /* of the 128 */
    uint8_t rule;   /* enum source_rule */
    bool ipv4;
    uint64_t hi, lo, mask_hi, mask_lo;
};

struct source_rules {
    uint32_t n;
    bool denies;                                   /* one of them does */
    struct source_network at[ADMISSION_RULES_MAX]; /* the longest first */
};

struct admission {
    struct settings settings;
    struct policy policy[POLICY_N];
    struct source_rules sources[POLICY_N];
    bool floors; /* some type has to be durable in both regions */
    bool shadow; /* there is one; else it is like the active one */
};

/* A network that is in the settings too is what the settings say. */
void admission_init(struct admission *a, const struct settings *settings,
                    const struct config_networks *allow);

/* The rule of the longest network that holds ip, or 0. IPv6 networks hold no IPv4. */
unsigned admission_source(const struct source_rules *r, const struct in6_addr *ip);

#endif
