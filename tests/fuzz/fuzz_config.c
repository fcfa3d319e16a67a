/*
 * fuzz_config.c - any bytes as a config file: refused with a place and a sentence, or taken; what
 * is taken keeps every relation and can be printed, and its JSON is valid. Then the same bytes,
 * line by line, as replicated settings, which can be listed and whose shadow can be promoted, and
 * as rules and zones of a calendar.
 */
#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/calendar.h"
#include "base/config.h"
#include "base/settings.h"
#include "tests/lib/settings_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* libfyaml 0.7.12 leaks a buffer when it refuses some quoted scalars. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libfyaml.so\n"; }

static void check_taken(const struct config *c)
{
    struct calendar_cursor cursor = { 0 };
    size_t text_bytes;
    char *text = NULL;
    json_t *root;
    FILE *f = open_memstream(&text, &text_bytes);

    assert(c->node.id >= 1 && c->node.id <= 65535);
    assert(c->ingest.tcp.frame_bytes_max + CONFIG_BLOCK_ROOM_BYTES <= c->pipeline.block_bytes_max);
    for (uint32_t i = 0; i < c->ingest.address.n; i++)
        assert(c->ingest.insecure || config_address_is_loopback(&c->ingest.address.at[i].ip) ||
               ((c->ingest.tcp.tls || !c->ingest.tcp.enabled) && !c->ingest.udp.enabled));
    assert(config_has_tls(c) || (!c->ingest.tcp.tls && c->admin.listen.port == 0));
    assert((c->ingest.xdp.ring & (c->ingest.xdp.ring - 1)) == 0 && c->ingest.xdp.ring >= 64);
    assert(c->ingest.xdp.interfaces.n == 0 || c->ingest.udp.enabled);
    for (uint32_t i = 0; i < c->ingest.xdp.interfaces.n; i++) {
        size_t length = strnlen(c->ingest.xdp.interfaces.at[i], CONFIG_INTERFACE_BYTES);

        assert(length > 0 && length < CONFIG_INTERFACE_BYTES);
        assert(strpbrk(c->ingest.xdp.interfaces.at[i], "/: ") == NULL);
    }
    for (uint32_t i = 0; i < c->calendars->n; i++)
        for (uint64_t at = 1700000000000000000; at < 1702000000000000000; at = cursor.until_ns)
            calendar_seek(c->calendars->calendar[i], &cursor, at);
    assert(config_print(c, CONFIG_JSON, f) == 0);
    fclose(f);
    root = json_loads(text, 0, NULL);
    assert(root != NULL);
    json_decref(root);
    free(text);
}

static void try_settings(char *text)
{
    static struct settings_policy shadow;
    static struct settings s;
    char error[SETTINGS_ERROR_BYTES], *next;

    settings_init(&s);
    for (char *l = strtok_r(text, "\n", &next); l != NULL; l = strtok_r(NULL, "\n", &next)) {
        char *value = strrchr(l, ':'); /* an IPv6 network has more of them */
        int checked;

        if (value == NULL)
            continue;
        *value++ = '\0';
        value += *value == ' ';
        checked = settings_check(&s, l, value, error);
        assert(checked == 0 || (checked == -EINVAL && error[0] != '\0'));
        assert(settings_apply(&s, l, value) == checked);
    }
    assert(s.event_bytes_max >= 256 && s.event_bytes_max <= 65535);
    settings_rebuild(&s);
    if (settings_shadow(&s, &shadow)) {
        assert(settings_apply(&s, "shadow", "promote") == 0);
        assert(memcmp(&s.policy, &shadow, sizeof shadow) == 0);
    }
}

static void try_calendar_texts(const char *text)
{
    char error[CALENDAR_ERROR_BYTES];
    struct calendar c = { 0 };

    if (calendar_add_zone(&c, text, error) == 0)
        for (int64_t t = 0; t < 86400ll * 365; t += 86400 * 13)
            assert(labs(calendar_offset_s(&c, t)) <= 25 * 3600 + 3600);
    calendar_add_holiday(&c, text, error);
    assert(c.rules <= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char error[CONFIG_ERROR_BYTES];
    static struct config c;
    char *text = malloc(bytes + 1);
    int result = config_parse("f", (const char *)data, bytes, &c, error);

    assert(result == 0 || result == -EINVAL || result == -EFBIG);
    assert((result != 0) == (error[0] != '\0'));
    assert(result == 0 || strncmp(error, "f:", 2) == 0);
    if (result == 0)
        check_taken(&c);
    config_fini(&c);
    memcpy(text, data, bytes);
    text[bytes] = '\0';
    try_calendar_texts(text);
    try_settings(text);
    free(text);
    return 0;
}
