/*
 * config.c - the table of keys, and the walk that lays a file's tree over it.
 *
 * A value's own syntax and range are checked in config_value.c, calendars in config_calendar.c,
 * relations between values here, in check_relations().
 */
#include "base/config.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/calendar.h"
#include "base/config_table.h"
#include "base/report.h"

#define KiB 1024ull
#define MiB (1024ull * KiB)
#define GiB (1024ull * MiB)

#define AT_CHOICE(field, choices)                                                                  \
    (uint32_t) offsetof(struct config, field), (uint32_t)sizeof((struct config *)0)->field, choices
#define AT(field) AT_CHOICE(field, NULL)
#define NONE      0, 0

static const char *const xdp_modes[] = {
    [CONFIG_XDP_AUTO] = "auto",
    [CONFIG_XDP_NATIVE] = "native",
    [CONFIG_XDP_GENERIC] = "generic",
    [CONFIG_XDP_SOCKET] = "socket",
    NULL,
};

static const char *const xdp_checksums[] = {
    [CONFIG_CHECKSUM_AUTO] = "auto",
    [CONFIG_CHECKSUM_ALWAYS] = "always",
    [CONFIG_CHECKSUM_NEVER] = "never",
    NULL,
};

const struct config_key config_keys[] = {
    { "node.id", TYPE_NUMBER, AT(node.id), 1, 65535, "1",
      "This node's number, unique in the cluster." },
    { "node.name", TYPE_NAME, AT(node.name), NONE, "node1", "This node's name, for people." },
    { "node.region", TYPE_NUMBER, AT(node.region), 1, 2, "1", "The region's number: 1 or 2." },
    { "node.region_name", TYPE_NAME, AT(node.region_name), NONE, "local",
      "The region's name, for people." },

    { "node.zone", TYPE_NAME, AT(node.zone), NONE, "default",
      "What this node shares with others that may fail together with it: a rack, a building." },

    { "peer.listen", TYPE_ENDPOINT, AT(peer.listen), NONE, "",
      "ADDRESS:PORT, by custom port 7401, where the other nodes of a cluster reach this one. "
      "Empty: "
      "this node is a cluster of its own. Otherwise a new node waits for `sluice cluster init`, or "
      "to be added." },
    { "peer.advertise", TYPE_PATH, AT(peer.advertise), NONE, "",
      "HOST:PORT under which they do, if it is not what peer.listen says." },
    { "peer.insecure", TYPE_BOOL, AT(peer.insecure), NONE, "false",
      "Listen beyond loopback without TLS: whoever reaches the port is taken for a node." },
    { "peer.pack_level", TYPE_NUMBER, AT(peer.pack_level), 0, 9, "1",
      "How hard zstd tries on what is sent to the other region; 0: it is sent as it is." },
    { "peer.user_timeout_ms", TYPE_NUMBER, AT(peer.user_timeout_ms), 500, 60000, "5000",
      "A connection on which nothing gets through for so long is given up." },
    { "peer.election_ms", TYPE_NUMBER, AT(peer.election_ms), 50, 10000, "300",
      "Without a word from the leader for so long, and up to twice that, another node stands for "
      "election. The same on all nodes." },
    { "peer.fetch_bytes_per_s", TYPE_SIZE, AT(peer.fetch_bytes_per_s), 0, 16 * GiB, "0",
      "How fast a node that is far behind, or new, fetches the log from the others, so that these "
      "and the network have room for events. 0: as fast as it can." },

    { "data.dir", TYPE_PATH, AT(data.dir), NONE, "./sluice-data",
      "Where the log and everything else is kept. A relative path starts at the daemon's working "
      "directory." },

    { "tls.ca", TYPE_PATH, AT(tls.ca), NONE, "",
      "Certificate of the CA that has signed those of this node and of all who talk to it, as "
      "`sluice cert` makes them. PEM. Give all three of ca, cert and key, or none." },
    { "tls.cert", TYPE_PATH, AT(tls.cert), NONE, "", "This node's certificate." },
    { "tls.key", TYPE_PATH, AT(tls.key), NONE, "",
      "Its key, which other users may not read. All three are read when the daemon starts." },

    { "admin.socket", TYPE_PATH, AT(admin.socket), NONE, "",
      "The Unix socket that the CLI talks to. Empty: admin.sock in data.dir." },
    { "admin.uids", TYPE_UIDS, AT(admin.uids), NONE, "[]",
      "Users (by number) who may use it. Empty: root and the daemon's own user." },
    { "admin.listen", TYPE_ENDPOINT, AT(admin.listen), NONE, "",
      "ADDRESS:PORT, by custom port 7402, where the CLI is answered from other machines, over "
      "TLS alone: who has a certificate as admin may do all, a reader may read. Empty: nowhere." },
    { "admin.connections_max", TYPE_NUMBER, AT(admin.connections_max), 1, 1024, "16",
      "Connections at one time." },

    { "ingest.workers", TYPE_NUMBER, AT(ingest.workers), 0, CONFIG_WORKERS_MAX, "1",
      "Threads that take events in. 0: half of the cores, at least 1." },
    { "ingest.address", TYPE_ADDRESSES, AT(ingest.address), NONE, "[127.0.0.1, \"::1\"]",
      "Addresses to listen on. Anything but loopback asks for tcp.tls: true and no UDP, or for "
      "insecure: true." },
    { "ingest.port", TYPE_NUMBER, AT(ingest.port), 1, 65535, "7400", "UDP and TCP port." },
    { "ingest.insecure", TYPE_BOOL, AT(ingest.insecure), NONE, "false",
      "Listen beyond loopback although UDP, or TCP without TLS, is neither encrypted nor "
      "authenticated." },
    { "ingest.sources_max", TYPE_NUMBER, AT(ingest.sources_max), 1024, 1048576, "65536",
      "Sources that per-source rates remember; a power of two." },
    { "ingest.udp.enabled", TYPE_BOOL, AT(ingest.udp.enabled), NONE, "true", "Take datagrams." },
    { "ingest.udp.allow", TYPE_NETWORKS, AT(ingest.udp.allow), NONE, "[127.0.0.0/8, \"::1/128\"]",
      "Networks whose datagrams are taken and answered; empty admits nobody. Must be stated when "
      "UDP listens beyond loopback. A sender can forge its address: this is no authentication." },
    { "ingest.udp.receive_buffer_bytes", TYPE_SIZE, AT(ingest.udp.receive_buffer_bytes), 64 * KiB,
      GiB, "8MiB",
      "Kernel buffer of each UDP socket (SO_RCVBUF; the kernel's rmem_max limits it)." },
    { "ingest.udp.buffers", TYPE_NUMBER, AT(ingest.udp.buffers), 8, 32768, "4096",
      "Datagrams that a worker can hold; a power of two." },
    { "ingest.udp.datagram_bytes_max", TYPE_SIZE, AT(ingest.udp.datagram_bytes_max), 1500, 65507,
      "16KiB", "A larger datagram is dropped and counted." },
    { "ingest.xdp.mode", TYPE_CHOICE, AT_CHOICE(ingest.xdp.mode, xdp_modes), NONE, "auto",
      "How frames are taken in. auto: native (in the driver), if it cannot be had generic (in the "
      "kernel's network core; not on virtual interfaces, where it would take what a sender has "
      "joined for one datagram), and else the kernel's sockets alone. native, generic: this or the "
      "sockets; `sluice status` says why it is the sockets. XDP is used only on the interfaces "
      "named in ingest.xdp.interfaces." },
    { "ingest.xdp.interfaces", TYPE_INTERFACES, AT(ingest.xdp.interfaces), NONE, "[]",
      "Network interfaces, by name, on which XDP is used; at most 8. Empty: sockets only. What is "
      "taken there has passed neither the host's packet filter (nftables) nor rp_filter, and comes "
      "with any VLAN tag: ingest.udp.allow and the policy's sources decide alone." },
    { "ingest.xdp.ring", TYPE_NUMBER, AT(ingest.xdp.ring), 64, 32768, "8192",
      "Frames that may wait for a worker, for each queue and class; a power of two. Memory locked "
      "for each queue of an interface: 8 KiB a descriptor and 10 MiB (8,192: 74 MiB)." },
    { "ingest.xdp.checksum", TYPE_CHOICE, AT_CHOICE(ingest.xdp.checksum, xdp_checksums), NONE,
      "auto",
      "UDP checksums of frames that come by AF_XDP. auto: they are verified, and on virtual "
      "interfaces (veth, virtio) what a sender on the same machine has left unfinished is taken "
      "too. always: all of them are verified. never: the device is trusted." },
    { "ingest.tcp.enabled", TYPE_BOOL, AT(ingest.tcp.enabled), NONE, "true",
      "Take TCP connections." },
    { "ingest.tcp.tls", TYPE_BOOL, AT(ingest.tcp.tls), NONE, "false",
      "Take TCP over TLS alone, from clients with a certificate as producer, admin or node. Needs "
      "tls.ca, tls.cert and tls.key." },
    { "ingest.tcp.connections_max", TYPE_NUMBER, AT(ingest.tcp.connections_max), 1, 65536, "4096",
      "Connections of one worker at one time." },
    { "ingest.tcp.frame_bytes_max", TYPE_SIZE, AT(ingest.tcp.frame_bytes_max), 4 * KiB, 192 * KiB,
      "64KiB", "A client that sends a larger frame is refused and closed." },
    { "ingest.tcp.output_bytes_max", TYPE_SIZE, AT(ingest.tcp.output_bytes_max), 64 * KiB, 16 * MiB,
      "256KiB", "Answers that wait for one connection's client to read them." },
    { "ingest.tcp.idle_s_max", TYPE_NUMBER, AT(ingest.tcp.idle_s_max), 1, 86400, "300",
      "A connection on which nothing happens is closed after that." },
    { "ingest.tcp.frame_s_max", TYPE_NUMBER, AT(ingest.tcp.frame_s_max), 1, 3600, "10",
      "A frame that has begun must be complete by then." },
    { "ingest.tcp.output_s_max", TYPE_NUMBER, AT(ingest.tcp.output_s_max), 1, 3600, "10",
      "A client that does not read its answers is closed after that." },
    { "ingest.tcp.backlog", TYPE_NUMBER, AT(ingest.tcp.backlog), 1, 65535, "1024",
      "Connections that wait to be accepted (the kernel's somaxconn limits it)." },
    { "ingest.tcp.tokens_file", TYPE_PATH, AT(ingest.tcp.tokens_file), NONE, "",
      "File of the tokens that clients must show. Empty: none is asked for." },

    { "pipeline.blocks", TYPE_NUMBER, AT(pipeline.blocks), 2, 4096, "64",
      "Blocks of events that a worker can have under way." },
    { "pipeline.block_bytes_max", TYPE_SIZE, AT(pipeline.block_bytes_max), 16 * KiB,
      CONFIG_BLOCK_BYTES_MAX, "256KiB", "A block is full at this size." },
    { "pipeline.block_age_us_max", TYPE_NUMBER, AT(pipeline.block_age_us_max), 1, 1000000, "2000",
      "A block that is not full is sent on after that." },
    { "pipeline.held_bytes_max", TYPE_SIZE, AT(pipeline.held_bytes_max), MiB, GiB, "16MiB",
      "Receipts of a worker that wait for the other region; it is used only for those." },
    { "pipeline.stage_ms_max.decode", TYPE_NUMBER, AT(pipeline.stage_ms_max.decode), 1, 60000,
      "100", "A stage that works longer than this on one round is reported." },
    { "pipeline.stage_ms_max.validate", TYPE_NUMBER, AT(pipeline.stage_ms_max.validate), 1, 60000,
      "100", "The same for the stage that follows." },
    { "pipeline.stage_ms_max.enrich", TYPE_NUMBER, AT(pipeline.stage_ms_max.enrich), 1, 60000,
      "100", "The same for the stage that follows." },
    { "pipeline.stage_ms_max.batch", TYPE_NUMBER, AT(pipeline.stage_ms_max.batch), 1, 60000, "100",
      "The same for the stage that follows." },

    { "log.segment_bytes", TYPE_SIZE, AT(log.segment_bytes), MiB, 4 * GiB, "64MiB",
      "Size of a segment file: a multiple of 4 KiB, the same on all nodes." },
    { "log.writes_max", TYPE_NUMBER, AT(log.writes_max), 1, 256, "32",
      "Writes to the disk at one time." },
    { "log.mark_idle_ms", TYPE_NUMBER, AT(log.mark_idle_ms), 1, 10000, "10",
      "When nothing was written for so long, the log marks how far it is durable." },
    { "log.disk_free_bytes_min", TYPE_SIZE, AT(log.disk_free_bytes_min), 0, 1024 * GiB, "64MiB",
      "With less free space, new events are refused until there is more." },
    { "log.segment_age_s_max", TYPE_NUMBER, AT(log.segment_age_s_max), 1, 86400, "300",
      "An older segment is sealed although it is not full." },
    { "log.scrub_bytes_per_s", TYPE_SIZE, AT(log.scrub_bytes_per_s), 0, 16 * GiB, "10MiB",
      "How fast old segments are read in the background to find bits that have flipped; what is "
      "damaged is fetched from another node. 0: not at all." },
    { "log.scrub_pause_s", TYPE_NUMBER, AT(log.scrub_pause_s), 1, 2592000, "3600",
      "From the end of one such pass to the next." },

    { "dedupe.memory_bytes_max", TYPE_SIZE, AT(dedupe.memory_bytes_max), 16 * MiB, 1024 * GiB,
      "256MiB", "Memory for recognising events that were sent before." },
    { "ledger.save_ms", TYPE_NUMBER, AT(ledger.save_ms), 10, 60000, "1000",
      "How often the counters of what was seen are saved." },
    { "log_level", TYPE_CHOICE, AT_CHOICE(log_level, report_level_names), NONE, "info",
      "What is reported." },
    { "calendars", TYPE_CALENDARS, AT(calendars), NONE, "[]",
      "Market sessions besides us_equities, which is built in. A holiday is a date (2026-04-03), a "
      "day of every year (12-25), easter-2, or third monday january; nearest, monday or next "
      "behind "
      "it moves it off a weekend, from and until bound its years. One that could stand here:\n"
      "  - name: lse\n"
      "    zone: \"GMT0BST,M3.5.0/1,M10.5.0\"   # a POSIX time zone, in quotes\n"
      "    days: [mon, tue, wed, thu, fri]\n"
      "    sessions:\n"
      "      pre: [\"05:05\", \"07:50\"]\n"
      "      regular: [\"08:00\", \"16:30\"]\n"
      "      post: [\"16:40\", \"17:15\"]\n"
      "    holidays: [01-01 next, easter-2, easter+1, first monday may, last monday may,\n"
      "               last monday august, 12-25 next, 12-26 next]\n"
      "    early_closes:\n"
      "      - {date: \"12-24 if mon,tue,wed,thu,fri\", close: \"12:30\"}\n"
      "      - {date: \"12-31 if mon,tue,wed,thu,fri\", close: \"12:30\"}\n"
      "    venues: [XLON]" },
};

const uint32_t config_keys_n = sizeof config_keys / sizeof *config_keys;
_Static_assert(sizeof config_keys / sizeof *config_keys <= CONFIG_KEYS_MAX, "origin_line[]");

int config_refuse(char error[CONFIG_ERROR_BYTES], const char *file, uint32_t line, uint32_t column,
                  const char *format, ...)
{
    va_list args;
    int n = snprintf(error, CONFIG_ERROR_BYTES, "%.200s:%u:%u: ", file, line, column);

    assert(n > 0 && (size_t)n < CONFIG_ERROR_BYTES);
    va_start(args, format);
    vsnprintf(error + n, CONFIG_ERROR_BYTES - (size_t)n, format, args);
    va_end(args);
    return -EINVAL;
}

/* --- laying the tree over the table ------------------------------------------------------------
 */

struct walk {
    struct config *c;
    const char *file;
    char *error;
    uint32_t column[CONFIG_KEYS_MAX]; /* of the values that the file gives */
};

static const char *last_part(const char *path)
{
    const char *dot = strrchr(path, '.');

    return dot != NULL ? dot + 1 : path;
}

/* The known key or group that looks most like path: a wrong letter, or a right key in the wrong
 * group. */
static const char *nearest_key(const char *path, char best[CONFIG_NAME_BYTES])
{
    uint32_t best_distance = UINT32_MAX;

    for (uint32_t i = 0; i < config_keys_n; i++) {
        uint32_t whole = config_distance(path, config_keys[i].path);
        uint32_t part = config_distance(last_part(path), last_part(config_keys[i].path)) + 1;
        uint32_t distance = whole < part ? whole : part;

        if (distance < best_distance) {
            best_distance = distance;
            snprintf(best, CONFIG_NAME_BYTES, "%s", config_keys[i].path);
        }
        /* A group: what stands before one of the dots. */
        for (const char *dot = strchr(config_keys[i].path, '.'); dot; dot = strchr(dot + 1, '.')) {
            char group[CONFIG_NAME_BYTES];

            snprintf(group, sizeof group, "%.*s", (int)(dot - config_keys[i].path),
                     config_keys[i].path);
            distance = config_distance(path, group);
            if (distance < best_distance) {
                best_distance = distance;
                snprintf(best, CONFIG_NAME_BYTES, "%s", group);
            }
        }
    }
    return best;
}

static bool is_group(const char *path)
{
    size_t bytes = strlen(path);

    for (uint32_t i = 0; i < config_keys_n; i++)
        if (strncmp(config_keys[i].path, path, bytes) == 0 && config_keys[i].path[bytes] == '.')
            return true;
    return false;
}

static int set_key(struct walk *w, uint32_t i, const struct yaml_node *n)
{
    const struct config_key *key = &config_keys[i];
    int error;

    assert(i < config_keys_n && n->name != NULL && n->name_line > 0);
    if (key->type == TYPE_CALENDARS)
        error = config_calendars_set(w->c->calendars, n, w->file, w->error);
    else
        error = config_value_set(w->c, key, n, w->file, w->error);
    w->c->origin_line[i] = n->name_line;
    w->column[i] = n->column;
    return error;
}

static int walk_group(struct walk *w, const struct yaml_node *group, const char *prefix)
{
    for (const struct yaml_node *n = group->first; n != NULL; n = n->next) {
        char path[128], nearest[CONFIG_NAME_BYTES];
        uint32_t i = 0;
        int error;

        if (snprintf(path, sizeof path, "%s%s%.64s", prefix, *prefix ? "." : "", n->name) >=
            (int)sizeof path)
            return config_refuse(w->error, w->file, n->name_line, n->name_column,
                                 "the key is too long");
        while (i < config_keys_n && strcmp(config_keys[i].path, path) != 0)
            i++;
        if (i < config_keys_n && strchr(n->name, '.') == NULL) {
            error = set_key(w, i, n);
        } else if (is_group(path) && strchr(n->name, '.') == NULL) {
            if (n->type != YAML_MAPPING && !yaml_is_null(n))
                return config_refuse(w->error, w->file, n->line, n->column,
                                     "%s is a group of keys, not %s", path, yaml_type_name(n));
            error = walk_group(w, n, path);
        } else if (i < config_keys_n || is_group(path)) {
            return config_refuse(w->error, w->file, n->name_line, n->name_column,
                                 "write \"%s\" as nested keys, one a line, without dots", n->name);
        } else {
            return config_refuse(w->error, w->file, n->name_line, n->name_column,
                                 "unknown key \"%s\"; the nearest one is \"%s\"", path,
                                 nearest_key(path, nearest));
        }
        if (error != 0)
            return error;
    }
    return 0;
}

/* --- relations ---------------------------------------------------------------------------------
 */

/* A relation names a key; its line is where the error points, or line 1 when it is a default. */
__attribute__((format(printf, 3, 4))) static int broken(struct walk *w, const char *path,
                                                        const char *format, ...)
{
    char sentence[CONFIG_ERROR_BYTES - 256];
    uint32_t i = 0;
    va_list args;

    while (i < config_keys_n && strcmp(config_keys[i].path, path) != 0)
        i++;
    assert(i < config_keys_n);
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    if (w->c->origin_line[i] == 0)
        return config_refuse(w->error, w->file, 1, 1, "%s", sentence);
    return config_refuse(w->error, w->file, w->c->origin_line[i], w->column[i], "%s", sentence);
}

static bool is_stated(const struct config *c, const char *path)
{
    for (uint32_t i = 0; i < config_keys_n; i++)
        if (strcmp(config_keys[i].path, path) == 0)
            return c->origin_line[i] != 0;
    assert(false && "no such key");
    return false;
}

/* What may listen where. */
static int check_listening(struct walk *w)
{
    const struct config_ingest *in = &w->c->ingest;
    char text[INET6_ADDRSTRLEN];

    if ((in->udp.enabled || in->tcp.enabled) && in->address.n == 0)
        return broken(w, "ingest.address",
                      "ingest.address is empty: give at least one address, "
                      "or switch ingest.udp.enabled and ingest.tcp.enabled off");
    for (uint32_t i = 0; i < in->address.n; i++) {
        if (config_address_is_loopback(&in->address.at[i].ip))
            continue;
        config_address_text(&in->address.at[i].ip, text);
        if (!in->insecure && (in->udp.enabled || (in->tcp.enabled && !in->tcp.tls)))
            return broken(w, "ingest.address",
                          "ingest.address %s is reachable from other machines, and %s is not "
                          "encrypted: %s, or set ingest.insecure: true to accept that",
                          text, in->tcp.enabled && !in->tcp.tls ? "TCP without TLS" : "UDP",
                          in->tcp.enabled && !in->tcp.tls ? "set ingest.tcp.tls: true"
                                                          : "set ingest.udp.enabled: false");
        if (!in->udp.enabled)
            continue;
        if (in->udp.allow.n == 0 || !is_stated(w->c, "ingest.udp.allow"))
            return broken(w, in->udp.allow.n == 0 ? "ingest.udp.allow" : "ingest.address",
                          "UDP on %s needs ingest.udp.allow: list the networks whose datagrams "
                          "are taken, or set ingest.udp.enabled: false",
                          text);
    }
    return 0;
}

/* What asks for the files of TLS has them. */
static int check_tls(struct walk *w)
{
    const struct config *c = w->c;
    const char *missing = c->tls.ca[0] == '\0'     ? "tls.ca"
                          : c->tls.cert[0] == '\0' ? "tls.cert"
                                                   : "tls.key";
    bool some = c->tls.ca[0] != '\0' || c->tls.cert[0] != '\0' || c->tls.key[0] != '\0';

    if (config_has_tls(c))
        return 0;
    if (some)
        return broken(w,
                      c->tls.ca[0] != '\0'     ? "tls.ca"
                      : c->tls.cert[0] != '\0' ? "tls.cert"
                                               : "tls.key",
                      "%s is missing: give all of tls.ca, tls.cert and tls.key, or none", missing);
    if (c->ingest.tcp.tls)
        return broken(w, "ingest.tcp.tls",
                      "ingest.tcp.tls needs tls.ca, tls.cert and tls.key: `sluice cert` makes "
                      "such files");
    if (c->peer.listen.port != 0 && !c->peer.insecure &&
        !config_address_is_loopback(&c->peer.listen.ip))
        return broken(w, "peer.listen",
                      "peer.listen is reachable from other machines and needs tls.ca, tls.cert and "
                      "tls.key: `sluice cert` makes such files; or set peer.insecure: true");
    if (c->admin.listen.port != 0)
        return broken(w, "admin.listen",
                      "admin.listen needs tls.ca, tls.cert and tls.key: `sluice cert` makes such "
                      "files");
    return 0;
}

static int check_powers(struct walk *w)
{
    const struct config_ingest *in = &w->c->ingest;
    const struct {
        const char *path;
        uint32_t number;
    } power[] = {
        { "ingest.sources_max", in->sources_max },
        { "ingest.udp.buffers", in->udp.buffers },
        { "ingest.xdp.ring", in->xdp.ring },
    };

    for (size_t i = 0; i < sizeof power / sizeof *power; i++)
        if ((power[i].number & (power[i].number - 1)) != 0)
            return broken(w, power[i].path, "%s must be a power of two, not %u", power[i].path,
                          power[i].number);
    return 0;
}

static int check_relations(struct walk *w)
{
    const struct config *c = w->c;
    uint64_t room = c->pipeline.block_bytes_max - CONFIG_BLOCK_ROOM_BYTES;
    struct sockaddr_un sun;
    char path[CONFIG_PATH_BYTES];
    int error;

    assert(c->pipeline.block_bytes_max > CONFIG_BLOCK_ROOM_BYTES);
    if (c->data.dir[0] == '\0')
        return broken(w, "data.dir", "data.dir is empty");
    config_admin_socket(c, path);
    if (strlen(path) >= sizeof sun.sun_path)
        return broken(w, c->admin.socket[0] != '\0' ? "admin.socket" : "data.dir",
                      "the admin socket's path has %zu bytes and at most %zu are possible; set a "
                      "shorter admin.socket",
                      strlen(path), sizeof sun.sun_path - 1);
    if (c->ingest.tcp.frame_bytes_max > room)
        return broken(w, "ingest.tcp.frame_bytes_max",
                      "ingest.tcp.frame_bytes_max (%ju) must be at most pipeline.block_bytes_max "
                      "less %u (%ju): a frame's events go into one block",
                      (uintmax_t)c->ingest.tcp.frame_bytes_max, CONFIG_BLOCK_ROOM_BYTES,
                      (uintmax_t)room);
    if (c->ingest.udp.datagram_bytes_max > room)
        return broken(w, "ingest.udp.datagram_bytes_max",
                      "ingest.udp.datagram_bytes_max (%ju) must be at most "
                      "pipeline.block_bytes_max less %u (%ju): a datagram's events go into one "
                      "block",
                      (uintmax_t)c->ingest.udp.datagram_bytes_max, CONFIG_BLOCK_ROOM_BYTES,
                      (uintmax_t)room);
    if (c->ingest.udp.buffers * c->ingest.udp.datagram_bytes_max > GiB)
        return broken(w, "ingest.udp.buffers",
                      "ingest.udp.buffers times ingest.udp.datagram_bytes_max is more than 1 GiB "
                      "a worker");
    if (c->log.segment_bytes % 4096 != 0)
        return broken(w, "log.segment_bytes", "log.segment_bytes must be a multiple of 4096");
    if (c->ingest.tcp.frame_s_max > c->ingest.tcp.idle_s_max)
        return broken(w, "ingest.tcp.frame_s_max",
                      "ingest.tcp.frame_s_max (%u) must be at most ingest.tcp.idle_s_max (%u)",
                      c->ingest.tcp.frame_s_max, c->ingest.tcp.idle_s_max);
    if (c->ingest.xdp.interfaces.n > 0 && !c->ingest.udp.enabled)
        return broken(w, "ingest.xdp.interfaces",
                      "ingest.xdp.interfaces names an interface although ingest.udp.enabled is "
                      "false: XDP has nothing to take there");
    error = check_powers(w);
    if (error == 0)
        error = check_tls(w);
    return error != 0 ? error : check_listening(w);
}

/* --- the face ----------------------------------------------------------------------------------
 */

int config_init_defaults(struct config *c)
{
    char error[CONFIG_ERROR_BYTES];

    _Static_assert(CONFIG_BLOCK_ROOM_BYTES < 16 * KiB, "less than the smallest block");
    memset(c, 0, sizeof *c);
    c->calendars = malloc(sizeof *c->calendars);
    if (c->calendars == NULL || calendar_set_init(c->calendars) != 0) {
        free(c->calendars);
        c->calendars = NULL;
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < config_keys_n; i++) {
        const char *text = config_keys[i].value_default;
        struct yaml_doc doc;
        int result;

        if (config_keys[i].type == TYPE_CALENDARS)
            continue;
        if (*text == '\0')
            continue; /* an empty path: zeroed already */
        result = yaml_parse(&doc, config_keys[i].path, text, strlen(text), error);
        if (result == 0)
            result = config_value_set(c, &config_keys[i], &doc.node[0], config_keys[i].path, error);
        yaml_fini(&doc);
        if (result == -ENOMEM)
            return result;
        assert(result == 0 && "a default that its own key refuses");
    }
    return 0;
}

int config_parse(const char *file, const char *text, size_t bytes, struct config *c,
                 char error[CONFIG_ERROR_BYTES])
{
    struct walk w = { .c = c, .file = file, .error = error };
    struct yaml_doc doc;
    int result;

    _Static_assert(CONFIG_ERROR_BYTES >= YAML_ERROR_BYTES, "yaml_parse() writes into error");
    error[0] = '\0';
    result = config_init_defaults(c);
    if (result != 0) {
        snprintf(error, CONFIG_ERROR_BYTES, "%.200s: out of memory", file);
        return result;
    }
    snprintf(c->file, sizeof c->file, "%s", file);
    result = yaml_parse(&doc, file, text, bytes, error);
    if (result == 0 && doc.nodes > 0 && !yaml_is_null(&doc.node[0])) {
        if (doc.node[0].type != YAML_MAPPING)
            result = config_refuse(error, file, doc.node[0].line, doc.node[0].column,
                                   "the file must be a group of keys, not %s",
                                   yaml_type_name(&doc.node[0]));
        else
            result = walk_group(&w, &doc.node[0], "");
    }
    if (result == 0)
        result = check_relations(&w);
    yaml_fini(&doc);
    return result;
}

/* Reads up to cap bytes. Returns their number or a negative errno. */
static ssize_t read_file(const char *file, char *buf, size_t cap)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    size_t bytes = 0;
    ssize_t n = 1;

    if (fd < 0)
        return -errno;
    while (bytes < cap && n != 0) {
        n = read(fd, buf + bytes, cap - bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            n = -errno;
            close(fd);
            return n;
        }
        bytes += (size_t)n;
    }
    close(fd);
    return (ssize_t)bytes;
}

int config_load(const char *file, struct config *c, char error[CONFIG_ERROR_BYTES])
{
    char *buf = malloc(YAML_BYTES_MAX + 1); /* one more than allowed: yaml_parse() refuses it */
    ssize_t bytes = buf != NULL ? read_file(file, buf, YAML_BYTES_MAX + 1) : -ENOMEM;
    int result;

    memset(c, 0, sizeof *c);
    if (bytes < 0) {
        snprintf(error, CONFIG_ERROR_BYTES, "%.200s: %s", file, strerror((int)-bytes));
        result = (int)bytes;
    } else {
        result = config_parse(file, buf, (size_t)bytes, c, error);
    }
    free(buf);
    return result;
}

void config_fini(struct config *c)
{
    if (c->calendars != NULL)
        calendar_set_fini(c->calendars);
    free(c->calendars);
    c->calendars = NULL;
}

uint32_t config_workers(const struct config *c)
{
    cpu_set_t cores;
    int n;

    if (c->ingest.workers > 0)
        return c->ingest.workers;
    n = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 2;
    return n < 4 ? 1 : n / 2 > (int)CONFIG_WORKERS_MAX ? CONFIG_WORKERS_MAX : (uint32_t)n / 2;
}

void config_admin_socket(const struct config *c, char ret_path[CONFIG_PATH_BYTES])
{
    if (c->admin.socket[0] != '\0')
        snprintf(ret_path, CONFIG_PATH_BYTES, "%s", c->admin.socket);
    else
        snprintf(ret_path, CONFIG_PATH_BYTES, "%.*s/admin.sock", (int)CONFIG_PATH_BYTES - 12,
                 c->data.dir);
}

bool config_admin_allows(const struct config *c, uid_t peer, uid_t self)
{
    for (uint32_t i = 0; i < c->admin.uids.n; i++)
        if (c->admin.uids.at[i] == peer)
            return true;
    return c->admin.uids.n == 0 && (peer == 0 || peer == self);
}

bool config_network_match(const struct config_networks *w, const struct in6_addr *ip)
{
    assert(w->n <= CONFIG_NETWORKS_MAX);
    for (uint32_t i = 0; i < w->n; i++) {
        const struct config_network *net = &w->at[i];
        uint32_t whole = net->bits / 8, rest = net->bits % 8;

        assert(net->bits <= 128);
        if (IN6_IS_ADDR_V4MAPPED(&net->ip) != IN6_IS_ADDR_V4MAPPED(ip))
            continue;
        if (memcmp(net->ip.s6_addr, ip->s6_addr, whole) != 0)
            continue;
        if (rest == 0 || ((net->ip.s6_addr[whole] ^ ip->s6_addr[whole]) >> (8 - rest)) == 0)
            return true;
    }
    return false;
}

bool config_has_tls(const struct config *c)
{
    return c->tls.ca[0] != '\0' && c->tls.cert[0] != '\0' && c->tls.key[0] != '\0';
}

bool config_address_is_loopback(const struct in6_addr *ip)
{
    return IN6_IS_ADDR_LOOPBACK(ip) || (IN6_IS_ADDR_V4MAPPED(ip) && ip->s6_addr[12] == 127);
}

void config_address_text(const struct in6_addr *ip, char ret_text[INET6_ADDRSTRLEN])
{
    const char *text = IN6_IS_ADDR_V4MAPPED(ip)
                           ? inet_ntop(AF_INET, ip->s6_addr + 12, ret_text, INET6_ADDRSTRLEN)
                           : inet_ntop(AF_INET6, ip, ret_text, INET6_ADDRSTRLEN);

    assert(text != NULL);
}
