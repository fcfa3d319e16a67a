/*
 * test_config.c - the config file: defaults, values, refusals with their place, relations, output.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/calendar.h"
#include "cluster/block.h"
#include "base/config_table.h"
#include "tests/lib/config_file.h"

#define SAMPLE "deploy/config/sluiced.yaml"

#define takes(text) config_file_takes(&config, text)
#define refuses     config_file_refuses

static struct config config;
static char error[CONFIG_ERROR_BYTES];

static char *read_all(const char *path)
{
    FILE *f = fopen(path, "r");
    char *text = calloc(1, 65536);

    if (f == NULL)
        fail_msg("%s: %s", path, strerror(errno));
    assert_true(fread(text, 1, 65535, f) > 0);
    fclose(f);
    return text;
}

static void defaults_are_what_the_documentation_says(void **state)
{
    char path[CONFIG_PATH_BYTES];

    assert_int_equal(config_init_defaults(&config), 0);
    assert_int_equal(config.node.id, 1);
    assert_string_equal(config.node.name, "node1");
    assert_string_equal(config.node.region_name, "local");
    assert_string_equal(config.data.dir, "./sluice-data");
    assert_int_equal(config.admin.uids.n, 0);
    assert_int_equal(config.ingest.workers, 1);
    assert_int_equal(config.ingest.port, 7400);
    assert_int_equal(config.ingest.address.n, 2);
    assert_true(config_address_is_loopback(&config.ingest.address.at[0].ip));
    assert_true(config_address_is_loopback(&config.ingest.address.at[1].ip));
    assert_false(config.ingest.insecure);
    assert_true(config.ingest.udp.enabled && config.ingest.tcp.enabled);
    assert_int_equal(config.ingest.udp.receive_buffer_bytes, 8 << 20);
    assert_int_equal(config.ingest.sources_max, 65536);
    assert_int_equal(config.ingest.xdp.mode, CONFIG_XDP_AUTO);
    assert_int_equal(config.ingest.xdp.interfaces.n, 0);
    assert_int_equal(config.ingest.xdp.ring, 8192);
    assert_int_equal(config.ingest.xdp.checksum, CONFIG_CHECKSUM_AUTO);
    assert_int_equal(config.ingest.tcp.frame_bytes_max, 65536);
    assert_int_equal(config.pipeline.block_bytes_max, 262144);
    assert_int_equal(config.pipeline.stage_ms_max.batch, 100);
    assert_int_equal(config.log.segment_bytes, 64 << 20);
    assert_int_equal(config.log.segment_age_s_max, 300);
    assert_int_equal(config.log.scrub_bytes_per_s, 10 << 20);
    assert_int_equal(config.log.scrub_pause_s, 3600);
    assert_int_equal(config.dedupe.memory_bytes_max, 256 << 20);
    assert_int_equal(config.log_level, 1);
    assert_int_equal(config.calendars->n, 1);
    config_admin_socket(&config, path);
    assert_string_equal(path, "./sluice-data/admin.sock");
    config_fini(&config);
}

static void an_empty_file_means_defaults(void **state)
{
    static const char *const texts[] = { "",      "\n",   "# only a comment\n",
                                         "---\n", "{}\n", "node:\ningest:\n  udp:\n" };
    struct config defaults;

    assert_int_equal(config_init_defaults(&defaults), 0);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        takes(texts[i]);
        assert_memory_equal(&config, &defaults, offsetof(struct config, calendars));
        config_fini(&config);
    }
    config_fini(&defaults);
}

static void the_sample_file_is_what_the_table_says(void **state)
{
    char *sample, *file = read_all(SAMPLE);

    assert_int_equal(config_init_defaults(&config), 0);
    sample = config_file_printed(&config, CONFIG_SAMPLE);
    assert_string_equal(file, sample);
    config_fini(&config);
    free(sample);
    free(file);
}

static void the_sample_states_every_key_at_its_default(void **state)
{
    struct config defaults;
    int result = config_load(SAMPLE, &config, error);

    if (result != 0)
        fail_msg("%s", error);
    assert_int_equal(config_init_defaults(&defaults), 0);
    assert_memory_equal(&config, &defaults, offsetof(struct config, calendars));
    assert_int_equal(config.calendars->n, 1);
    for (uint32_t i = 0; i < config_keys_n; i++)
        if (config.origin_line[i] == 0)
            fail_msg("%s is not in %s", config_keys[i].path, SAMPLE);
    config_fini(&config);
    config_fini(&defaults);
}

/* The calendar in the sample's last comment, taken out of the comment. */
static void the_sample_calendar_can_be_used(void **state)
{
    char *file = read_all(SAMPLE), *at = strstr(file, "#   - name: lse"), *next;
    char text[4096] = "calendars:\n";

    assert_non_null(at);
    for (char *l = strtok_r(at, "\n", &next); l[0] == '#'; l = strtok_r(NULL, "\n", &next)) {
        strcat(text, l + 2);
        strcat(text, "\n");
    }
    takes(text);
    assert_int_equal(config.calendars->n, 2);
    assert_int_equal(calendar_of_venue(config.calendars, "XLON", 4), 1);
    config_fini(&config);
    free(file);
}

static void every_default_passes_its_own_key(void **state)
{
    char text[CONFIG_VALUE_BYTES], file[CONFIG_VALUE_BYTES + 256];

    assert_int_equal(config_init_defaults(&config), 0);
    for (uint32_t i = 0; i < config_keys_n; i++) {
        const struct config_key *key = &config_keys[i];

        assert_true(strlen(key->help) > 10);
        if (key->type == TYPE_CALENDARS)
            continue;
        config_value_text(&config, key, text);
        if (key->type == TYPE_PATH || key->type == TYPE_ENDPOINT)
            snprintf(file, sizeof file, "\"%s\"", key->value_default);
        else
            snprintf(file, sizeof file, "%s", key->value_default);
        assert_string_equal(text, file);
        for (uint32_t j = 0; j < i; j++)
            assert_string_not_equal(key->path, config_keys[j].path);
    }
    config_fini(&config);
}

static void values_are_taken(void **state)
{
    takes("node: {id: 65535, name: ny-4, region: 2}\n"
          "data:\n  dir: \"/var/lib/sluice data\"\n"
          "admin: {uids: [0, 1000], socket: /run/s.sock}\n"
          "ingest:\n  workers: 2\n  address: [127.0.0.9]\n"
          "  udp: {receive_buffer_bytes: 1 MiB, buffers: 64, allow: []}\n"
          "  tcp: {frame_bytes_max: 192KiB}\n"
          "log: {segment_bytes: 1048576, disk_free_bytes_min: 1GiB}\n"
          "log_level: error\n");
    assert_int_equal(config.node.id, 65535);
    assert_string_equal(config.node.name, "ny-4");
    assert_string_equal(config.data.dir, "/var/lib/sluice data");
    assert_int_equal(config.admin.uids.n, 2);
    assert_int_equal(config.admin.uids.at[1], 1000);
    assert_int_equal(config.ingest.address.n, 1);
    assert_int_equal(config.ingest.udp.receive_buffer_bytes, 1 << 20);
    assert_int_equal(config.ingest.udp.allow.n, 0);
    assert_int_equal(config.ingest.tcp.frame_bytes_max, 196608);
    assert_int_equal(config.log.segment_bytes, 1 << 20);
    assert_int_equal(config.log.disk_free_bytes_min, 1 << 30);
    assert_int_equal(config.log_level, 3);
    assert_int_equal(config_workers(&config), 2);
    config_fini(&config);
    takes("ingest: {workers: 0}\n");
    assert_true(config_workers(&config) >= 1);
    config_fini(&config);
}

static void unknown_keys_name_the_nearest_one(void **state)
{
    refuses("node:\n  idd: 1\n", "f.yaml:2:3: ", "\"node.id\"");
    refuses("ingest:\n  prot: 1\n", "f.yaml:2:3: ", "\"ingest.port\"");
    refuses("nod:\n  id: 1\n", "f.yaml:1:1: ", "unknown key \"nod\"");
    refuses("port: 7400\n", "f.yaml:1:1: ", "\"ingest.port\"");
    refuses("ingest:\n  udp:\n    frame_bytes_max: 1\n",
            "f.yaml:3:5: ", "\"ingest.tcp.frame_bytes_max\"");
    refuses("loglevel: info\n", "f.yaml:1:1: ", "\"log_level\"");
    refuses("ingest.port: 7400\n", "f.yaml:1:1: ", "nested");
    refuses("\"\": 1\n", "f.yaml:1:1: ", "unknown key");
}

static void numbers_outside_their_range_name_the_range(void **state)
{
    char text[256], number[32];

    refuses("node: {id: 0}\n", "f.yaml:1:12: ", "node.id is 0; allowed is 1 to 65535");
    refuses("node: {id: 65536}\n", "f.yaml:1:12: ", "allowed is 1 to 65535");
    refuses("log:\n  segment_bytes: 5GiB\n", "f.yaml:2:18: ", "allowed is 1MiB to 4GiB");
    refuses("log:\n  segment_bytes: 18446744073709551615GiB\n", "f.yaml:2:18: ", "allowed is");
    refuses("log:\n  segment_bytes: 18446744073709551616\n", "f.yaml:2:18: ", "must be");
    /* and one beyond each end, for every number in the table */
    for (uint32_t i = 0; i < config_keys_n; i++) {
        const struct config_key *key = &config_keys[i];

        if (key->type != TYPE_NUMBER && key->type != TYPE_SIZE)
            continue;
        for (int end = key->min == 0; end < 2; end++) {
            snprintf(number, sizeof number, "%ju", (uintmax_t)(end ? key->max + 1 : key->min - 1));
            config_file_nest(text, sizeof text, key->path, number);
            refuses(text, "f.yaml:1:", "allowed is");
        }
    }
}

static void wrong_types_are_refused(void **state)
{
    refuses("node: {id: one}\n", "f.yaml:1:12: ", "whole number");
    refuses("node: {id: \"1\"}\n", "f.yaml:1:12: ", "in quotes");
    refuses("node: {id: 1.5}\n", "f.yaml:1:12: ", "whole number");
    refuses("node: {id: -1}\n", "f.yaml:1:12: ", "whole number");
    refuses("node: {id: 0x10}\n", "f.yaml:1:12: ", "whole number");
    refuses("node: {id: 010}\n", "f.yaml:1:12: ", "whole number");
    refuses("node: {id: 1KiB}\n", "f.yaml:1:12: ", "whole number");
    refuses("node: {id: [1]}\n", "f.yaml:1:12: ", "not a list");
    refuses("node:\n  {id: }\n", "f.yaml:2:", "needs a value");
    refuses("node:\n  {id}\n", "f.yaml:2:4: ", "needs a value");
    refuses("node:\n  id:\n", "f.yaml:2:", "needs a value");
    refuses("node: 1\n", "f.yaml:1:7: ", "is a group of keys");
    refuses("node: [id]\n", "f.yaml:1:7: ", "is a group of keys");
    refuses("- node\n", "f.yaml:1:1: ", "must be a group of keys");
    refuses("node\n", "f.yaml:1:1: ", "must be a group of keys");
    refuses("log: {segment_bytes: 64MB}\n", "f.yaml:1:22: ", "KiB, MiB and GiB");
    refuses("ingest: {insecure: yes}\n", "f.yaml:1:20: ", "true or false");
    refuses("ingest: {insecure: \"true\"}\n", "f.yaml:1:20: ", "true or false");
    refuses("ingest: {address: 127.0.0.1}\n", "f.yaml:1:19: ", "must be a list");
    refuses("ingest: {address: [localhost]}\n", "f.yaml:1:20: ", "not an IPv4 or IPv6 address");
    refuses("ingest: {address: [[127.0.0.1]]}\n", "f.yaml:1:20: ", "not a list");
    refuses("ingest: {address: [127.0.0.1, 127.0.0.1]}\n", "f.yaml:1:31: ", "twice");
    refuses("ingest: {address: [\"::ffff:1.2.3.4\"]}\n", "f.yaml:1:20: ", "IPv4 address");
    refuses("admin: {uids: [root]}\n", "f.yaml:1:16: ", "whole number");
    refuses("node: {name: \"a b\"}\n", "f.yaml:1:14: ", "letters");
    refuses("node: {name: ''}\n", "f.yaml:1:14: ", "letters");
    refuses("log_level: loud\n", "f.yaml:1:12: ", "debug, info, warn or error");
    refuses("calendars: lse\n", "f.yaml:1:12: ", "must be a list");
}

static void networks_are_checked(void **state)
{
    refuses("ingest: {udp: {allow: [10.0.0.0]}}\n", "f.yaml:1:24: ", "not a network");
    refuses("ingest: {udp: {allow: [10.0.0.0/33]}}\n", "f.yaml:1:24: ", "0 to 32");
    refuses("ingest: {udp: {allow: [10.0.0.0/]}}\n", "f.yaml:1:24: ", "0 to 32");
    refuses("ingest: {udp: {allow: [10.0.0.0/8x]}}\n", "f.yaml:1:24: ", "0 to 32");
    refuses("ingest: {udp: {allow: [\"::/129\"]}}\n", "f.yaml:1:24: ", "0 to 128");
    refuses("ingest: {udp: {allow: [10.1.0.0/8]}}\n", "f.yaml:1:24: ", "behind its prefix");
    refuses("ingest: {udp: {allow: [/8]}}\n", "f.yaml:1:24: ", "not an IPv4 or IPv6 address");
}

static bool matches(const char *networks, const char *ip)
{
    char text[256];
    struct in6_addr a = { 0 };
    bool yes;

    snprintf(text, sizeof text, "ingest: {udp: {allow: %s}}\n", networks);
    takes(text);
    if (strchr(ip, ':') == NULL) {
        a.s6_addr[10] = a.s6_addr[11] = 0xff;
        assert_int_equal(inet_pton(AF_INET, ip, a.s6_addr + 12), 1);
    } else {
        assert_int_equal(inet_pton(AF_INET6, ip, &a), 1);
    }
    yes = config_network_match(&config.ingest.udp.allow, &a);
    config_fini(&config);
    return yes;
}

static void networks_match_to_the_bit(void **state)
{
    assert_true(matches("[10.0.0.0/8]", "10.255.255.255"));
    assert_false(matches("[10.0.0.0/8]", "11.0.0.0"));
    assert_true(matches("[10.0.0.128/25]", "10.0.0.128"));
    assert_false(matches("[10.0.0.128/25]", "10.0.0.127"));
    assert_true(matches("[192.0.2.7/32]", "192.0.2.7"));
    assert_false(matches("[192.0.2.7/32]", "192.0.2.6"));
    assert_true(matches("[0.0.0.0/0]", "203.0.113.9"));
    assert_false(matches("[0.0.0.0/0]", "2001:db8::1"));
    assert_false(matches("[\"::/0\"]", "203.0.113.9"));
    assert_true(matches("[\"::/0\"]", "2001:db8::1"));
    assert_true(matches("[\"2001:db8::/33\"]", "2001:db8:7fff::1"));
    assert_false(matches("[\"2001:db8::/33\"]", "2001:db8:8000::1"));
    assert_true(matches("[10.0.0.0/8, \"::1/128\"]", "::1"));
    assert_false(matches("[]", "127.0.0.1"));
}

/* Every name of every enumeration is taken, stored as its place in the list, and shown again. */
static void each_choice_is_taken_and_shown(void **state)
{
    char text[256], value[CONFIG_VALUE_BYTES];
    uint32_t enumerations = 0;

    for (uint32_t i = 0; i < config_keys_n; i++) {
        const struct config_key *key = &config_keys[i];

        if (key->type != TYPE_CHOICE)
            continue;
        enumerations++;
        for (uint32_t j = 0; key->choices[j] != NULL; j++) {
            config_file_nest(text, sizeof text, key->path, key->choices[j]);
            takes(text);
            assert_int_equal(*(uint32_t *)((char *)&config + key->offset), j);
            config_value_text(&config, key, value);
            assert_string_equal(value, key->choices[j]);
            config_fini(&config);
        }
        config_file_nest(text, sizeof text, key->path, "other");
        refuses(text, "f.yaml:1:", "not \"other\"");
    }
    assert_true(enumerations > 1);
}

static void duplicate_keys_are_refused(void **state)
{
    refuses("node: {id: 1}\nlog: {writes_max: 1}\nnode: {id: 2}\n", "f.yaml:3:1: ", "line 1");
    refuses("node:\n  id: 1\n  id: 1\n", "f.yaml:3:3: ", "given twice");
}

static void yaml_that_could_grow_or_hide_is_refused(void **state)
{
    refuses("a: &x [1]\nb: [*x, *x]\n", "f.yaml:1:", "anchors");
    refuses("node: *x\n", "f.yaml:1:", "anchors");
    refuses("node: !!map {id: 1}\n", "f.yaml:1:", "tags");
    refuses("node: {id: 1}\n---\nnode: {id: 2}\n", "f.yaml:2:", "more than one document");
    refuses("node: {name: \"a\\u0001\"}\n", "f.yaml:1:14: ", "control characters");
    refuses("node: {name: a\x01}\n", "f.yaml:1:15: ", "control character U+0001");
    refuses("node: {name: a\xc2\x9b}\n", "f.yaml:1:15: ", "control character U+009B");
    refuses("data: {dir: \"\\u009b\"}\n", "f.yaml:1:13: ", "control characters");
    refuses("data: {dir: \"a\\nb\"}\n", "f.yaml:1:13: ", "control characters");
    refuses("node:\n  name: \xff\n", "f.yaml:2:9: ", "not UTF-8");
    refuses("# \xe2\x82\n", "f.yaml:1:3: ", "not UTF-8");
    refuses("%YAML 1.2\n---\nnode: {id: 1}\n", "f.yaml:1:1: ", "directives");
    refuses("? node:\t :\t*1 {[i\n", "f.yaml:1:1: ", "explicit keys");
    refuses("# what, ? no\nnode: {? id : 1}\n", "f.yaml:2:8: ", "explicit keys");
    refuses("a#: {? id : 1}\n", "f.yaml:1:6: ", "explicit keys");
    refuses("#YAML\xee\x9b\xff\xff.\x8e\xed", "f.yaml:1:6: ", "not UTF-8");
    refuses("{[1]: 2}\n", "f.yaml:1:", "key");
    refuses("node: {id: 1\n", "f.yaml:", "not valid YAML");
    refuses("node:\n\tid: 1\n", "f.yaml:2:", "not valid YAML");
    refuses("node: {id: 1}}\n", "f.yaml:1:", "not valid YAML");
    refuses("a: [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]\n", "f.yaml:1:", "nested deeper");
}

static void a_zero_byte_does_not_end_the_file(void **state)
{
    static const char text[] = "node: {id: 2}\n\0nod: 3\n";

    assert_int_equal(config_parse("f.yaml", text, sizeof text - 1, &config, error), -EINVAL);
    assert_non_null(strstr(error, "f.yaml:2:1: "));
    config_fini(&config);
}

static void too_large_files_are_refused(void **state)
{
    size_t bytes = YAML_BYTES_MAX + 1;
    char *text = malloc(bytes);

    memset(text, '#', bytes);
    assert_int_equal(config_parse("f.yaml", text, bytes, &config, error), -EFBIG);
    config_fini(&config);
    assert_int_equal(config_parse("f.yaml", text, bytes - 1, &config, error), 0);
    config_fini(&config);
    for (size_t i = 0; i < bytes - 1; i++)
        text[i] = i % 2 == 0 ? '1' : ',';
    memcpy(text, " [", 2);
    text[bytes - 2] = ']';
    assert_int_equal(config_parse("f.yaml", text, bytes - 1, &config, error), -EINVAL);
    if (strstr(error, "values") == NULL)
        fail_msg("%s", error);
    config_fini(&config);
    free(text);
}

static void relations_between_limits_are_checked(void **state)
{
    refuses("pipeline: {block_bytes_max: 64KiB}\n", "f.yaml:1:1: ", "ingest.tcp.frame_bytes_max");
    refuses("pipeline: {block_bytes_max: 68KiB}\ningest: {tcp: {frame_bytes_max: 65537}}\n",
            "f.yaml:2:33: ", "(65536)");
    takes("pipeline: {block_bytes_max: 68KiB}\ningest: {tcp: {frame_bytes_max: 65536}}\n");
    config_fini(&config);
    refuses("pipeline: {block_bytes_max: 16KiB}\ningest: {tcp: {frame_bytes_max: 8KiB}}\n",
            "f.yaml:1:1: ", "ingest.udp.datagram_bytes_max");
    refuses("ingest: {udp: {buffers: 1000}}\n", "f.yaml:1:25: ", "power of two");
    refuses("ingest: {udp: {buffers: 32768, datagram_bytes_max: 65507}}\n",
            "f.yaml:1:25: ", "1 GiB");
    refuses("log: {segment_bytes: 1048577}\n", "f.yaml:1:22: ", "multiple of 4096");
    refuses("ingest: {tcp: {frame_s_max: 301}}\n", "f.yaml:1:29: ", "idle_s_max");
    refuses("data: {dir: ''}\n", "f.yaml:1:13: ", "empty");
}

static void the_admin_socket_must_fit_its_address(void **state)
{
    char text[512];

    snprintf(text, sizeof text, "admin: {socket: /%0*d}\n", 106, 0);
    takes(text);
    config_fini(&config);
    snprintf(text, sizeof text, "admin: {socket: /%0*d}\n", 107, 0);
    refuses(text, "f.yaml:1:17: ", "at most 107");
    snprintf(text, sizeof text, "data: {dir: /%0*d}\n", 100, 0);
    refuses(text, "f.yaml:1:13: ", "admin.socket");
}

static void paths_that_are_too_long_are_refused(void **state)
{
    char *text = calloc(1, 2048);

    snprintf(text, 2048, "ingest: {tcp: {tokens_file: /%0*d}}\n", 1022, 0);
    takes(text);
    config_fini(&config);
    snprintf(text, 2048, "ingest: {tcp: {tokens_file: /%0*d}}\n", 1023, 0);
    refuses(text, "f.yaml:1:29: ", "at most 1023");
    free(text);
}

#define TLS_FILES "tls: {ca: a, cert: b, key: c}\n"

static void files_for_tls_are_given_all_or_none(void **state)
{
    refuses("tls: {ca: a}\n", "f.yaml:1:11: ", "tls.cert is missing");
    refuses("tls: {cert: a, key: b}\n", "f.yaml:1:13: ", "tls.ca is missing");
    refuses("tls: {ca: a, cert: b}\n", "f.yaml:1:11: ", "tls.key is missing");
    refuses("tls: {key: b}\n", "f.yaml:1:12: ", "tls.ca is missing");
    refuses("ingest: {tcp: {tls: true}}\n", "f.yaml:1:21: ", "needs tls.ca");
    refuses("admin: {listen: \"127.0.0.1:7402\"}\n", "f.yaml:1:17: ", "needs tls.ca");
    takes(TLS_FILES);
    assert_false(config.ingest.tcp.tls);
    assert_int_equal(config.admin.listen.port, 0);
    config_fini(&config);
    takes(TLS_FILES "ingest: {tcp: {tls: true}}\n");
    assert_true(config.ingest.tcp.tls);
    assert_string_equal(config.tls.key, "c");
    config_fini(&config);
}

static void an_endpoint_is_an_address_and_a_port(void **state)
{
    static const char *const bad[] = {
        "7402",        "127.0.0.1",   "127.0.0.1:",      "127.0.0.1:0",        "127.0.0.1:65536",
        ":7402",       "::1:7402",    "[::1]",           "[::1]7402",          "[127.0.0.1]:7402",
        "[]:7402",     "localhost:1", "127.0.0.1:7402 ", "127.0.0.1:+7402",    "127.0.0.1:07402",
        "[::1]:74020", "[::1:7402",   "1.2.3.4:5:6",     "[::ffff:1.2.3.4]:1",
    };
    char text[256];

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, TLS_FILES "admin: {listen: \"%s\"}\n", bad[i]);
        refuses(text, "f.yaml:2:17: ", "admin.listen: ");
    }
    takes(TLS_FILES "admin: {listen: \"0.0.0.0:7402\"}\n"); /* TLS, so it may be anywhere */
    assert_int_equal(config.admin.listen.port, 7402);
    assert_true(IN6_IS_ADDR_V4MAPPED(&config.admin.listen.ip));
    config_fini(&config);
    takes(TLS_FILES "admin: {listen: \"[fd00::1]:65535\"}\n");
    assert_int_equal(config.admin.listen.port, 65535);
    config_fini(&config);
    takes("admin: {listen: \"\"}\n");
    assert_int_equal(config.admin.listen.port, 0);
    config_fini(&config);
}

static void tls_is_enough_to_listen_anywhere(void **state)
{
    refuses(TLS_FILES "ingest: {address: [0.0.0.0], tcp: {tls: true}}\n",
            "f.yaml:2:19: ", "UDP is not encrypted: set ingest.udp.enabled: false");
    refuses(TLS_FILES "ingest: {address: [0.0.0.0], udp: {enabled: false}}\n",
            "f.yaml:2:19: ", "TCP without TLS is not encrypted: set ingest.tcp.tls: true");
    refuses(TLS_FILES
            "ingest: {address: [0.0.0.0], insecure: true, tcp: {tls: true}, udp: {allow: []}}\n",
            "f.yaml:2:77: ", "needs ingest.udp.allow");
    takes(TLS_FILES "ingest: {address: [0.0.0.0], tcp: {tls: true}, udp: {enabled: false}}\n");
    config_fini(&config);
}

static void listening_beyond_loopback_asks_for_consent(void **state)
{
    static const char *const beyond[] = { "0.0.0.0",   "\"::\"",      "10.0.0.1",
                                          "128.0.0.1", "\"fe80::1\"", "\"::2\"" };
    char text[256];

    for (size_t i = 0; i < sizeof beyond / sizeof *beyond; i++) {
        snprintf(text, sizeof text, "ingest:\n  address: [127.0.0.1, %s]\n", beyond[i]);
        refuses(text, "f.yaml:2:12: ", "ingest.insecure: true");
        strcat(text, "  insecure: true\n");
        refuses(text, "f.yaml:2:12: ", "needs ingest.udp.allow");
        strcat(text, "  udp: {enabled: false}\n");
        takes(text);
        config_fini(&config);
    }
    refuses("ingest: {address: [0.0.0.0], insecure: true, udp: {allow: []}}\n",
            "f.yaml:1:59: ", "needs ingest.udp.allow");
    takes("ingest: {address: [0.0.0.0], insecure: true, udp: {allow: [10.0.0.0/8]}}\n");
    config_fini(&config);
    takes("ingest: {address: [127.255.255.254]}\n");
    config_fini(&config);
    refuses("ingest: {address: []}\n", "f.yaml:1:19: ", "is empty");
    takes("ingest: {address: [], udp: {enabled: false}, tcp: {enabled: false}}\n");
    config_fini(&config);
}

static void lists_are_bounded(void **state)
{
    char text[4096] = "admin: {uids: [0";

    for (uint32_t i = 1; i < CONFIG_UIDS_MAX; i++)
        sprintf(text + strlen(text), ", %u", i);
    strcat(text, "]}\n");
    takes(text);
    assert_int_equal(config.admin.uids.n, CONFIG_UIDS_MAX);
    config_fini(&config);
    strcpy(text + strlen(text) - 3, ", 99]}\n");
    refuses(text, "f.yaml:1:", "more than 32 items");
}

static void only_listed_users_may_administer(void **state)
{
    takes("");
    assert_true(config_admin_allows(&config, 0, 7));
    assert_true(config_admin_allows(&config, 7, 7));
    assert_false(config_admin_allows(&config, 8, 7));
    config_fini(&config);
    takes("admin: {uids: [8]}\n");
    assert_true(config_admin_allows(&config, 8, 7));
    assert_false(config_admin_allows(&config, 7, 7));
    assert_false(config_admin_allows(&config, 0, 7));
    config_fini(&config);
}

static void json_shows_value_and_origin(void **state)
{
    json_t *root, *keys;
    json_error_t e;
    char *text;

    takes("node:\n  id: 7\ndata: {dir: \"/a\\\"\\u20ac\"}\nadmin: {uids: [5, 6]}\n"
          "calendars: [{name: x, zone: UTC0, sessions: {regular: [\"00:00\", \"24:00\"]}}]\n");
    text = config_file_printed(&config, CONFIG_JSON);
    root = json_loads(text, 0, &e);
    assert_non_null(root);
    assert_string_equal(json_string_value(json_object_get(root, "file")), "f.yaml");
    keys = json_object_get(root, "keys");
    assert_int_equal(json_object_size(keys), config_keys_n);
#define FIELD(key, field) json_object_get(json_object_get(keys, key), field)
    assert_int_equal(json_integer_value(FIELD("node.id", "value")), 7);
    assert_string_equal(json_string_value(FIELD("node.id", "origin")), "file");
    assert_int_equal(json_integer_value(FIELD("node.id", "line")), 2);
    assert_string_equal(json_string_value(FIELD("node.name", "origin")), "default");
    assert_null(FIELD("node.name", "line"));
    assert_string_equal(json_string_value(FIELD("data.dir", "value")), "/a\"\xe2\x82\xac");
    assert_int_equal(json_array_size(FIELD("admin.uids", "value")), 2);
    assert_int_equal(json_integer_value(json_array_get(FIELD("admin.uids", "value"), 1)), 6);
    assert_int_equal(json_array_size(FIELD("ingest.udp.allow", "value")), 2);
    assert_string_equal(json_string_value(json_array_get(FIELD("ingest.udp.allow", "value"), 1)),
                        "::1/128");
    assert_int_equal(json_array_size(FIELD("calendars", "value")), 1);
    assert_true(json_is_false(FIELD("ingest.insecure", "value")));
#undef FIELD
    json_decref(root);
    free(text);
    config_fini(&config);
}

static void text_shows_value_and_origin(void **state)
{
    char *text;

    takes("log_level: warn\n");
    text = config_file_printed(&config, CONFIG_TEXT);
    assert_non_null(strstr(
        text, "log_level                          warn                           file, line 1\n"));
    assert_non_null(strstr(text, "ingest.address                     [127.0.0.1, \"::1\"]"));
    for (uint32_t i = 0; i < config_keys_n; i++)
        assert_non_null(strstr(text, config_keys[i].path));
    free(text);
    config_fini(&config);
}

static void calendars_point_at_their_mistakes(void **state)
{
#define HEAD                                                                                       \
    "calendars:\n  - name: lse\n    zone: GMT0\n    sessions: {regular: [\"08:00\", \"16:30\"]}\n"
    takes(HEAD);
    config_fini(&config);
    refuses(HEAD "    holiday: []\n", "f.yaml:5:5: ", "\"holidays\"");
    refuses(HEAD "    holidays: [12-32]\n", "f.yaml:5:16: ", "12-32");
    refuses(HEAD "    holidays: 12-25\n", "f.yaml:5:15: ", "must be a list");
    refuses(HEAD "    early_closes: [{date: 12-24}]\n", "f.yaml:5:20: ", "date and close");
    refuses(HEAD "    early_closes: [{date: 12-24, close: 7}]\n", "f.yaml:5:20: ", "not a time");
    refuses(HEAD "    early_closes: [{date: 12-24, close: \"07:00\"}]\n", "f.yaml:2:5: ", "before");
    refuses(HEAD "    venues: [XNAS]\n", "f.yaml:5:14: ", "us_equities");
    refuses(HEAD "    venues: [xlon]\n", "f.yaml:5:14: ", "A-Z");
    refuses(HEAD "    days: [monday]\n", "f.yaml:5:12: ", "one of sun");
    refuses(HEAD "    days: []\n", "f.yaml:5:11: ", "empty");
    refuses("calendars: [{name: us_equities, zone: UTC0, sessions: {}}]\n",
            "f.yaml:1:20: ", "built in");
    refuses("calendars: [{name: x, zone: UTC0, sessions: {}}]\n", "f.yaml:1:", "no regular");
    refuses("calendars: [{name: x, zone: Europe/London, sessions: {}}]\n",
            "f.yaml:1:29: ", "POSIX");
    refuses("calendars: [{name: x, zone: UTC0}]\n", "f.yaml:1:", "needs name, zone and sessions");
    refuses("calendars: [{name: [x], zone: UTC0, sessions: {}}]\n", "f.yaml:1:20: ", "be text");
    refuses(HEAD "    early_closes: [{date: 12-24, close: \"12:00\", post_until: []}]\n",
            "f.yaml:5:", "be text");
    refuses(HEAD "    early_closes: [12-24]\n", "f.yaml:5:20: ", "group of keys");
    refuses(HEAD "    venues: [[XLON]]\n", "f.yaml:5:14: ", "be text");
    refuses("calendars: [x]\n", "f.yaml:1:13: ", "group of keys");
    refuses("calendars: [{name: x, zone: UTC0, sessions: {regular: [8, 9, 10]}}]\n",
            "f.yaml:1:", "two times");
    refuses("calendars: [{name: x, zone: UTC0, sessions: {regular: [\"09:00\", \"10:00\"], "
            "post: [\"09:59\", \"11:00\"]}}]\n",
            "f.yaml:1:", "overlaps");
#undef HEAD
}

static void a_session_may_have_a_break(void **state)
{
    takes("calendars: [{name: tse, zone: JST-9, sessions: {regular: [[\"09:00\", \"11:30\"], "
          "[\"12:30\", \"15:30\"]]}, venues: [XTKS]}]\n");
    assert_int_equal(config.calendars->calendar[1]->hours_n, 2);
    /* 2024-01-04 was a Thursday */
    uint64_t day = (uint64_t)calendar_days(2024, 1, 4) * 86400 - 9 * 3600;
    struct calendar *c = config.calendars->calendar[1];
    assert_int_equal(calendar_session(c, (day + 11 * 3600) * 1000000000), SESSION_REGULAR);
    assert_int_equal(calendar_session(c, (day + 12 * 3600) * 1000000000), SESSION_CLOSED);
    assert_int_equal(calendar_session(c, (day + 13 * 3600) * 1000000000), SESSION_REGULAR);
    config_fini(&config);
}

static void calendars_are_shown_in_full(void **state)
{
    json_t *root, *c;
    char *text;

    takes("calendars:\n"
          "  - {name: a, zone: UTC0, sessions: {regular: [\"00:00\", \"24:00\"]}}\n"
          "  - name: b\n    zone: CET-1CEST,M3.5.0,M10.5.0/3\n    days: [sun, thu]\n"
          "    sessions: {pre: [\"07:00\", \"09:00\"], regular: [\"09:00\", \"17:30\"]}\n"
          "    holidays: [easter-2, 12-26 next]\n"
          "    early_closes: [{date: 12-24, close: \"12:00\", post_until: \"13:05\"}]\n"
          "    venues: [XPAR, XAMS]\n");
    text = config_file_printed(&config, CONFIG_TEXT);
    assert_non_null(strstr(text, " [a, b] "));
    free(text);
    text = config_file_printed(&config, CONFIG_JSON);
    root = json_loads(text, 0, NULL);
    c = json_array_get(
        json_object_get(json_object_get(json_object_get(root, "keys"), "calendars"), "value"), 1);
    free(text);
    text = json_dumps(c, JSON_COMPACT | JSON_SORT_KEYS);
    assert_string_equal(
        text,
        "{\"days\":[\"sun\",\"thu\"],\"early_closes\":[{\"close\":\"12:00\",\"date\":\"12-24\","
        "\"post_until\":\"13:05\"}],\"holidays\":[\"easter-2\",\"12-26 next\"],\"name\":\"b\","
        "\"sessions\":{\"post\":[],\"pre\":[[\"07:00\",\"09:00\"]],\"regular\":[[\"09:00\","
        "\"17:30\"]]},\"venues\":[\"XPAR\",\"XAMS\"],\"zone\":\"CET-1CEST,M3.5.0,M10.5.0/3\"}");
    free(text);
    json_decref(root);
    config_fini(&config);
}

static void files_are_read_and_missing_ones_named(void **state)
{
    const char *tmp = getenv("TMPDIR");
    char dir[256], path[300];
    FILE *f;

    snprintf(dir, sizeof dir, "%s/sluice-config-XXXXXX", tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/c.yaml", dir);
    assert_int_equal(config_load(path, &config, error), -ENOENT);
    assert_non_null(strstr(error, "No such file"));
    config_fini(&config);
    assert_int_equal(config_load(dir, &config, error), -EISDIR);
    config_fini(&config);
    f = fopen(path, "w");
    fputs("node: {id: 9}\n", f);
    fclose(f);
    assert_int_equal(config_load(path, &config, error), 0);
    assert_int_equal(config.node.id, 9);
    assert_string_equal(config.file, path);
    config_fini(&config);
    f = fopen(path, "w");
    for (size_t i = 0; i < YAML_BYTES_MAX + 100; i++)
        fputc('\n', f);
    fclose(f);
    assert_int_equal(config_load(path, &config, error), -EFBIG);
    config_fini(&config);
    unlink(path);
    rmdir(dir);
}

static void limits_are_those_of_the_block(void **state)
{
    assert_int_equal(CONFIG_BLOCK_BYTES_MAX, BLOCK_BYTES_MAX);
    assert_true(CONFIG_BLOCK_ROOM_BYTES >
                LOG_HEADER_BYTES + sizeof(struct block_header) + sizeof(struct block_desc));
}

static void windows_lines_and_json_are_yaml_too(void **state)
{
    takes("\xef\xbb\xbfnode:\r\n  id: 2\r\n  name: x\r\n");
    assert_int_equal(config.node.id, 2);
    assert_string_equal(config.node.name, "x");
    config_fini(&config);
    takes("{\"node\": {\"id\": 5}}\n");
    assert_int_equal(config.node.id, 5);
    config_fini(&config);
}

static void distance_counts_edits(void **state)
{
    assert_int_equal(config_distance("", ""), 0);
    assert_int_equal(config_distance("abc", ""), 3);
    assert_int_equal(config_distance("", "abc"), 3);
    assert_int_equal(config_distance("port", "prot"), 1);
    assert_int_equal(config_distance("kitten", "sitting"), 3);
    assert_int_equal(config_distance("id", "idd"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_what_the_documentation_says),
        cmocka_unit_test(an_empty_file_means_defaults),
        cmocka_unit_test(the_sample_file_is_what_the_table_says),
        cmocka_unit_test(the_sample_states_every_key_at_its_default),
        cmocka_unit_test(the_sample_calendar_can_be_used),
        cmocka_unit_test(every_default_passes_its_own_key),
        cmocka_unit_test(values_are_taken),
        cmocka_unit_test(unknown_keys_name_the_nearest_one),
        cmocka_unit_test(numbers_outside_their_range_name_the_range),
        cmocka_unit_test(wrong_types_are_refused),
        cmocka_unit_test(networks_are_checked),
        cmocka_unit_test(networks_match_to_the_bit),
        cmocka_unit_test(each_choice_is_taken_and_shown),
        cmocka_unit_test(duplicate_keys_are_refused),
        cmocka_unit_test(yaml_that_could_grow_or_hide_is_refused),
        cmocka_unit_test(a_zero_byte_does_not_end_the_file),
        cmocka_unit_test(too_large_files_are_refused),
        cmocka_unit_test(relations_between_limits_are_checked),
        cmocka_unit_test(the_admin_socket_must_fit_its_address),
        cmocka_unit_test(paths_that_are_too_long_are_refused),
        cmocka_unit_test(listening_beyond_loopback_asks_for_consent),
        cmocka_unit_test(files_for_tls_are_given_all_or_none),
        cmocka_unit_test(an_endpoint_is_an_address_and_a_port),
        cmocka_unit_test(tls_is_enough_to_listen_anywhere),
        cmocka_unit_test(lists_are_bounded),
        cmocka_unit_test(only_listed_users_may_administer),
        cmocka_unit_test(json_shows_value_and_origin),
        cmocka_unit_test(text_shows_value_and_origin),
        cmocka_unit_test(calendars_point_at_their_mistakes),
        cmocka_unit_test(a_session_may_have_a_break),
        cmocka_unit_test(calendars_are_shown_in_full),
        cmocka_unit_test(files_are_read_and_missing_ones_named),
        cmocka_unit_test(limits_are_those_of_the_block),
        cmocka_unit_test(windows_lines_and_json_are_yaml_too),
        cmocka_unit_test(distance_counts_edits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
