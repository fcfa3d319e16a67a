/*
 * config.h - the node-local configuration: one YAML file, one table of keys (config.c).
 *
 * The table drives parsing, defaults, `config show` and the sample file, so no key can be in one
 * of them alone. What affects admission on every node is not here but in the replicated settings
 * (settings.h).
 *
 * Thread:  filled before any thread starts, read-only afterwards.
 * Memory:  no pointers but `calendars`; config_fini() frees what config_load() made.
 * Limits:  every number has a range in the table; relations between them are checked too.
 * Errors:  one sentence, `file:line:column: what is wrong`.
 */
#ifndef SLUICE_BASE_CONFIG_H
#define SLUICE_BASE_CONFIG_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define CONFIG_NAME_BYTES      64u
#define CONFIG_PATH_BYTES      1024u
#define CONFIG_ADDRESSES_MAX   16u
#define CONFIG_WORKERS_MAX     64u
#define CONFIG_NETWORKS_MAX    64u
#define CONFIG_UIDS_MAX        32u
#define CONFIG_INTERFACES_MAX  8u
#define CONFIG_INTERFACE_BYTES 16u /* IFNAMSIZ */
#define CONFIG_KEYS_MAX        64u
#define CONFIG_ERROR_BYTES     512u
#define CONFIG_VALUE_BYTES     4096u
#define CONFIG_ITEM_BYTES      56u            /* the longest item of a list, as text */
#define CONFIG_BLOCK_BYTES_MAX (256u * 1024u) /* = BLOCK_BYTES_MAX of cluster/block.h */
/* What a block needs beside one request's bytes: record and block header, descriptors. */
#define CONFIG_BLOCK_ROOM_BYTES 4096u

struct calendar_set; /* calendar.h */

/* IPv4 is kept as a mapped address, as sockets that take both deliver it. */
struct config_address {
    struct in6_addr ip;
};

struct config_network {
    struct in6_addr ip;
    uint32_t bits; /* of the 128; an IPv4 /8 is 104 */
};

struct config_addresses {
    uint32_t n;
    struct config_address at[CONFIG_ADDRESSES_MAX];
};

struct config_networks {
    uint32_t n;
    struct config_network at[CONFIG_NETWORKS_MAX];
};

struct config_uids {
    uint32_t n;
    uint32_t at[CONFIG_UIDS_MAX];
};

struct config_interfaces {
    uint32_t n;
    char at[CONFIG_INTERFACES_MAX][CONFIG_INTERFACE_BYTES];
};

struct config_node {
    uint32_t id;
    char name[CONFIG_NAME_BYTES];
    uint32_t region;
    char region_name[CONFIG_NAME_BYTES];
    char zone[CONFIG_NAME_BYTES];
};

struct config_endpoint {
    struct in6_addr ip;
    uint32_t port; /* 0: none */
};

/* Paths; all of them are given, or none is. */
struct config_tls {
    char ca[CONFIG_PATH_BYTES], cert[CONFIG_PATH_BYTES], key[CONFIG_PATH_BYTES];
};

struct config_peer {
    struct config_endpoint listen;     /* none: a cluster of one */
    char advertise[CONFIG_PATH_BYTES]; /* "": as listen */
    bool insecure;
    uint32_t user_timeout_ms;
    uint32_t pack_level;
    uint32_t election_ms;
    uint64_t fetch_bytes_per_s; /* 0: no limit */
};

struct config_admin {
    char socket[CONFIG_PATH_BYTES]; /* "": see config_admin_socket() */
    struct config_endpoint listen;  /* over TLS */
    struct config_uids uids;        /* see config_admin_allows() */
    uint32_t connections_max;
};

struct config_udp {
    bool enabled;
    struct config_networks allow; /* empty admits nobody; see config_network_match() */
    uint64_t receive_buffer_bytes;
    uint32_t buffers; /* per worker, a power of two */
    uint64_t datagram_bytes_max;
};

enum config_xdp_mode { CONFIG_XDP_AUTO, CONFIG_XDP_NATIVE, CONFIG_XDP_GENERIC, CONFIG_XDP_SOCKET };

enum config_xdp_checksum { CONFIG_CHECKSUM_AUTO, CONFIG_CHECKSUM_ALWAYS, CONFIG_CHECKSUM_NEVER };

struct config_xdp {
    uint32_t mode;                       /* enum config_xdp_mode */
    struct config_interfaces interfaces; /* empty: sockets only */
    uint32_t ring;                       /* descriptors of one (queue, class); a power of two */
    uint32_t checksum;                   /* enum config_xdp_checksum */
};

struct config_tcp {
    bool enabled, tls;
    uint32_t connections_max; /* per worker */
    uint64_t frame_bytes_max;
    uint64_t output_bytes_max; /* per connection */
    uint32_t idle_s_max;
    uint32_t frame_s_max;  /* a frame that has begun must be complete by then */
    uint32_t output_s_max; /* a client that does not read is closed after that */
    uint32_t backlog;
    char tokens_file[CONFIG_PATH_BYTES]; /* "": no token is asked for */
};

struct config_ingest {
    uint32_t workers; /* 0: see config_workers() */
    struct config_addresses address;
    uint32_t port;
    bool insecure;
    uint32_t sources_max; /* that per-source rates remember; a power of two */
    struct config_udp udp;
    struct config_xdp xdp;
    struct config_tcp tcp;
};

struct config_stage_ms_max {
    uint32_t decode, validate, enrich, batch;
};

struct config_pipeline {
    uint32_t blocks; /* per worker */
    uint64_t block_bytes_max;
    uint32_t block_age_us_max;
    uint64_t held_bytes_max;
    struct config_stage_ms_max stage_ms_max;
};

struct config_log {
    uint64_t segment_bytes; /* a multiple of 4 KiB */
    uint32_t writes_max;
    uint32_t mark_idle_ms;
    uint64_t disk_free_bytes_min;
    uint32_t segment_age_s_max;
    uint64_t scrub_bytes_per_s;
    uint32_t scrub_pause_s;
};

struct config {
    struct config_node node;
    struct {
        char dir[CONFIG_PATH_BYTES];
    } data;
    struct config_tls tls;
    struct config_peer peer;
    struct config_admin admin;
    struct config_ingest ingest;
    struct config_pipeline pipeline;
    struct config_log log;
    struct {
        uint64_t memory_bytes_max;
    } dedupe;
    struct {
        uint32_t save_ms;
    } ledger;
    uint32_t log_level;             /* enum report_level of report.h */
    struct calendar_set *calendars; /* never NULL after config_init_defaults(); owned */

    char file[CONFIG_PATH_BYTES];          /* "" when all values are defaults */
    uint32_t origin_line[CONFIG_KEYS_MAX]; /* by key; 0: default */
};

enum config_format {
    CONFIG_TEXT,   /* key, value and origin, one line a key */
    CONFIG_JSON,   /* {"file":..., "keys":{"node.id":{"value":1,"origin":"default"},...}} */
    CONFIG_SAMPLE, /* a commented YAML file of every key, as in deploy/config/sluiced.yaml */
};

/* Every key at its default. Returns 0 or -ENOMEM. */
int config_init_defaults(struct config *c);

/* Defaults, then the file. Returns 0; -EINVAL for what the file says, -EFBIG, -ENOMEM, or the
 * negative errno of opening or reading it. error then says what is wrong and where. c needs
 * config_fini() in every case. */
int config_load(const char *file, struct config *c, char error[CONFIG_ERROR_BYTES]);

/* The same from memory; file is the name that errors show. */
int config_parse(const char *file, const char *text, size_t bytes, struct config *c,
                 char error[CONFIG_ERROR_BYTES]);

/* Accepts a zeroed or half-built config. */
void config_fini(struct config *c);

/* Writes the effective values. Returns 0, -EIO or -ENOMEM. */
int config_print(const struct config *c, enum config_format format, FILE *f);

/* Workers to start: ingest.workers, or half of the cores that this process may use, at least 1. */
uint32_t config_workers(const struct config *c);

/* Where the admin socket is; config_load() made sure that it fits into sun_path. */
void config_admin_socket(const struct config *c, char ret_path[CONFIG_PATH_BYTES]);

/* May a peer with this uid administer? An empty list admits root and self (geteuid()). */
bool config_admin_allows(const struct config *c, uid_t peer, uid_t self);

/* Is ip (IPv4 as a mapped address) in one of the networks? ::/0 does not cover IPv4. */
bool config_network_match(const struct config_networks *w, const struct in6_addr *ip);

/* Are the files for TLS given? */
bool config_has_tls(const struct config *c);

bool config_address_is_loopback(const struct in6_addr *ip);

/* The address as people write it; IPv4 dotted. */
void config_address_text(const struct in6_addr *ip, char ret_text[INET6_ADDRSTRLEN]);

/* ADDRESS:PORT, or nothing. */
void config_endpoint_text(const struct config_endpoint *e, char ret_text[CONFIG_ITEM_BYTES]);

#endif
