/*
 * test_config_xdp.c - the config keys of the XDP receive path: values, names of interfaces, output.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "base/config_table.h"
#include "tests/lib/config_file.h"

#define takes(text) config_file_takes(&config, text)
#define refuses     config_file_refuses

static struct config config;

static void xdp_values_are_taken(void **state)
{
    static const struct {
        const char *text;
        enum config_xdp_mode mode;
    } modes[] = { { "auto", CONFIG_XDP_AUTO },
                  { "native", CONFIG_XDP_NATIVE },
                  { "generic", CONFIG_XDP_GENERIC },
                  { "socket", CONFIG_XDP_SOCKET } };
    static const struct {
        const char *text;
        enum config_xdp_checksum checksum;
    } checksums[] = { { "auto", CONFIG_CHECKSUM_AUTO },
                      { "always", CONFIG_CHECKSUM_ALWAYS },
                      { "never", CONFIG_CHECKSUM_NEVER } };
    char text[128];

    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        config_file_nest(text, sizeof text, "ingest.xdp.mode", modes[i].text);
        takes(text);
        assert_int_equal(config.ingest.xdp.mode, modes[i].mode);
        config_fini(&config);
    }
    for (size_t i = 0; i < sizeof checksums / sizeof *checksums; i++) {
        config_file_nest(text, sizeof text, "ingest.xdp.checksum", checksums[i].text);
        takes(text);
        assert_int_equal(config.ingest.xdp.checksum, checksums[i].checksum);
        config_fini(&config);
    }
    takes("ingest: {sources_max: 1024, xdp: {interfaces: [eth0, fifteen-letters], ring: 64}}\n");
    assert_int_equal(config.ingest.sources_max, 1024);
    assert_int_equal(config.ingest.xdp.ring, 64);
    assert_int_equal(config.ingest.xdp.interfaces.n, 2);
    assert_string_equal(config.ingest.xdp.interfaces.at[0], "eth0");
    assert_string_equal(config.ingest.xdp.interfaces.at[1], "fifteen-letters");
    config_fini(&config);
    takes("ingest: {sources_max: 1048576, xdp: {ring: 32768}}\n");
    assert_int_equal(config.ingest.sources_max, 1048576);
    assert_int_equal(config.ingest.xdp.ring, 32768);
    config_fini(&config);
}

static void xdp_values_are_checked(void **state)
{
    refuses("ingest: {xdp: {mode: fast}}\n",
            "f.yaml:1:22: ", "must be auto, native, generic or socket, not \"fast\"");
    refuses("ingest: {xdp: {mode: ''}}\n", "f.yaml:1:22: ", "native");
    refuses("ingest: {xdp: {mode: Native}}\n", "f.yaml:1:22: ", "native");
    refuses("ingest: {xdp: {mode: nat}}\n", "f.yaml:1:22: ", "native");
    refuses("ingest: {xdp: {mode: [auto]}}\n", "f.yaml:1:22: ", "not a list");
    refuses("ingest: {xdp: {checksum: true}}\n",
            "f.yaml:1:26: ", "must be auto, always or never, not \"true\"");
    refuses("ingest: {xdp: {ring: 32}}\n", "f.yaml:1:22: ", "allowed is 64 to 32768");
    refuses("ingest: {xdp: {ring: 65536}}\n", "f.yaml:1:22: ", "allowed is 64 to 32768");
    refuses("ingest: {xdp: {ring: 2047}}\n",
            "f.yaml:1:22: ", "ingest.xdp.ring must be a power of two, not 2047");
    refuses("ingest: {sources_max: 65535}\n",
            "f.yaml:1:23: ", "ingest.sources_max must be a power of two");
    refuses("ingest: {sources_max: 512}\n", "f.yaml:1:23: ", "allowed is 1024 to 1048576");
    refuses("ingest: {udp: {enabled: false}, xdp: {interfaces: [eth0]}}\n",
            "f.yaml:1:51: ", "ingest.udp.enabled is false");
    takes("ingest: {udp: {enabled: false}, xdp: {mode: native}}\n");
    config_fini(&config);
}

static void interfaces_have_names_that_the_kernel_takes(void **state)
{
    static const char *const bad[] = {
        "''", "sixteen-letters-", "eth0/1", "\"eth 0\"", "\" eth0\"", "\"eth0:1\"", ".", "..",
    };
    char text[256];

    assert_int_equal(CONFIG_INTERFACE_BYTES, IFNAMSIZ);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "ingest: {xdp: {interfaces: [eth1, %s]}}\n", bad[i]);
        refuses(text, "f.yaml:1:35: ", "is not an interface's name");
    }
    refuses("ingest: {xdp: {interfaces: [\"e\\0th\"]}}\n", "f.yaml:1:29: ", "control characters");
    refuses("ingest: {xdp: {interfaces: [\"e\\tth\"]}}\n", "f.yaml:1:29: ", "control characters");
    refuses("ingest: {xdp: {interfaces: eth0}}\n", "f.yaml:1:28: ", "must be a list");
    refuses("ingest: {xdp: {interfaces: [[eth0]]}}\n", "f.yaml:1:29: ", "not a list");
    refuses("ingest: {xdp: {interfaces: [null]}}\n", "f.yaml:1:29: ", "must be a value");
    refuses("ingest: {xdp: {interfaces: [eth0, eth1, eth0]}}\n",
            "f.yaml:1:41: ", "eth0 is given twice");
    takes("ingest: {xdp: {interfaces: [..., a, eth0.100, eth0.10]}}\n");
    assert_int_equal(config.ingest.xdp.interfaces.n, 4);
    config_fini(&config);
    strcpy(text, "ingest: {xdp: {interfaces: [if0");
    for (uint32_t i = 1; i < CONFIG_INTERFACES_MAX; i++)
        sprintf(text + strlen(text), ", if%u", i);
    strcat(text, "]}}\n");
    takes(text);
    assert_int_equal(config.ingest.xdp.interfaces.n, CONFIG_INTERFACES_MAX);
    config_fini(&config);
    strcpy(text + strlen(text) - 4, ", if8]}}\n");
    refuses(text, "f.yaml:1:", "more than 8 items");
}

/* A name may hold what YAML gives a meaning to: as text it must still be the same list. */
static void odd_interface_names_are_shown_as_they_are(void **state)
{
    static const char *const names[] = { "a,b",  "x]y[", "say\"no\"", "back\\slash",
                                         "null", "#1",   "-" };
    const uint32_t n = sizeof names / sizeof *names;
    char value[CONFIG_VALUE_BYTES], text[CONFIG_VALUE_BYTES];
    const struct config_key *key = config_keys;
    struct config_interfaces before;
    json_t *root, *list;
    char *json;

    while (strcmp(key->path, "ingest.xdp.interfaces") != 0)
        assert_true(++key < config_keys + config_keys_n);
    takes("ingest: {xdp: {interfaces: ['a,b', 'x]y[', 'say\"no\"', 'back\\slash', 'null', '#1', "
          "'-']}}\n");
    before = config.ingest.xdp.interfaces;
    assert_int_equal(before.n, n);
    config_value_text(&config, key, value);
    json = config_file_printed(&config, CONFIG_JSON);
    config_fini(&config);
    config_file_nest(text, sizeof text, key->path, value);
    takes(text);
    assert_memory_equal(&config.ingest.xdp.interfaces, &before, sizeof before);
    config_fini(&config);
    root = json_loads(json, 0, NULL);
    list = json_object_get(json_object_get(json_object_get(root, "keys"), key->path), "value");
    assert_int_equal(json_array_size(list), n);
    for (uint32_t i = 0; i < n; i++) {
        assert_string_equal(before.at[i], names[i]);
        assert_string_equal(json_string_value(json_array_get(list, i)), names[i]);
    }
    json_decref(root);
    free(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xdp_values_are_taken),
        cmocka_unit_test(xdp_values_are_checked),
        cmocka_unit_test(interfaces_have_names_that_the_kernel_takes),
        cmocka_unit_test(odd_interface_names_are_shown_as_they_are),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
