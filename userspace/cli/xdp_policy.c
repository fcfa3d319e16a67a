/*
 * xdp_policy.c - `sluice xdp policy get|set|promote|discard`: the admission policy, which is part
 * of the replicated settings (base/settings.h has the keys).
 *
 * What is set is checked by the daemon, in whose log the rules are; here only the words are put
 * together.
 */
#include <errno.h>
#include <inttypes.h>
#include <pb_decode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/field_walk.h"
#include "cli/xdp.h"

#define SHADOW_PREFIX "shadow."

/* --- get ----------------------------------------------------------------------------------------
 */

#define RULES_MAX (COLUMNS_ROWS_MAX - 1u) /* several times what the settings hold */

/* One setting of the policy. */
struct rule {
    char key[sizeof((sluice_v1_SettingEntry *)0)->key];
    char value[sizeof((sluice_v1_SettingEntry *)0)->value];
    bool shadow; /* what it would be, and is not */
};

struct policy_view {
    bool shadow, shadow_found;
    unsigned rules;
    struct rule rule[RULES_MAX];
};

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static const char *const families[] = { "admit.", "class.", "source.", "limit." };

static struct rule *find_rule(struct policy_view *v, const char *key)
{
    for (unsigned i = 0; i < v->rules; i++) {
        if (strcmp(v->rule[i].key, key) == 0)
            return &v->rule[i];
    }
    return NULL;
}

/* The shadow's settings come behind those in force, and are laid over them. */
static int view_add(struct policy_view *v, const sluice_v1_SettingEntry *e)
{
    bool shadow = starts_with(e->key, SHADOW_PREFIX), wanted = false;
    const char *key = shadow ? e->key + strlen(SHADOW_PREFIX) : e->key;
    struct rule *r;

    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        wanted |= starts_with(key, families[i]);
    v->shadow_found |= shadow && wanted;
    if (!wanted || (shadow && !v->shadow))
        return 0;
    r = find_rule(v, key);
    if (r == NULL) {
        if (v->rules == RULES_MAX)
            return -EMSGSIZE;
        r = &v->rule[v->rules++];
        memset(r, 0, sizeof *r);
        snprintf(r->key, sizeof r->key, "%s", key);
    }
    snprintf(r->value, sizeof r->value, "%s", e->value);
    r->shadow = shadow;
    return 0;
}

static int view_fetch(const struct xdp_options *o, struct policy_view *v)
{
    struct admin_request r = { .which = ADMIN_SETTINGS };
    struct admin_response response;
    struct admin_client c;
    struct field_walk walk;
    struct field f;
    int bad = 0, rc = cli_ask(&c, &o->common, &r);

    if (rc == CLI_OK)
        rc = cli_response(&c, false, &response);
    if (rc == CLI_OK) {
        field_walk_init(&walk, response.body, response.body_bytes);
        while (bad == 0 && (bad = field_walk_next(&walk, &f)) > 0) {
            sluice_v1_SettingEntry e = sluice_v1_SettingEntry_init_zero;
            pb_istream_t in;

            bad = 0;
            if (f.tag != sluice_v1_SettingsResponse_settings_tag || f.wire != PB_WT_STRING)
                continue;
            in = pb_istream_from_buffer(f.data, f.bytes);
            bad = pb_decode(&in, sluice_v1_SettingEntry_fields, &e) ? view_add(v, &e) : -EBADMSG;
        }
    }
    if (rc == CLI_OK && bad < 0)
        rc = cli_error(CLI_REFUSED, "the daemon's answer is not of this version");
    admin_client_close(&c);
    return rc;
}

/* The rule of the same type in the other family. */
static const struct rule *sibling(struct policy_view *v, const char *family, const char *type)
{
    char key[sizeof v->rule->key];

    snprintf(key, sizeof key, "%s%s", family, type);
    return find_rule(v, key);
}

/* Calls each() for every type, in the daemon's order; one of the rules may be missing. */
static void each_type(struct policy_view *v,
                      void (*each)(void *arg, const char *type, const struct rule *admit,
                                   const struct rule *class),
                      void *arg)
{
    for (unsigned i = 0; i < v->rules; i++) {
        const struct rule *r = &v->rule[i];

        if (starts_with(r->key, "admit."))
            each(arg, r->key + 6, r, sibling(v, "class.", r->key + 6));
    }
    for (unsigned i = 0; i < v->rules; i++) {
        const struct rule *r = &v->rule[i];

        if (starts_with(r->key, "class.") && sibling(v, "admit.", r->key + 6) == NULL)
            each(arg, r->key + 6, NULL, r);
    }
}

static void type_json(void *arg, const char *type, const struct rule *admit,
                      const struct rule *class)
{
    uint64_t number = 0;
    bool known = class != NULL && cli_number(class->value, UINT32_MAX, &number);

    json_array_append_new(
        arg,
        json_pack("{s:s, s:s, s:o, s:b}", "type", type, "action", admit ? admit->value : "accept",
                  "class", known ? json_integer((json_int_t)number) : json_null(), "shadow",
                  (admit != NULL && admit->shadow) || (class != NULL && class->shadow)));
}

static json_t *view_json(struct policy_view *v)
{
    json_t *types = json_array(), *limits = json_object(), *sources = json_array();

    each_type(v, type_json, types);
    for (unsigned i = 0; i < v->rules; i++) {
        const struct rule *r = &v->rule[i];
        uint64_t number;

        if (starts_with(r->key, "limit.") && cli_number(r->value, UINT32_MAX, &number))
            json_object_set_new(limits, r->key + 6, json_integer((json_int_t)number));
        if (starts_with(r->key, "source."))
            json_array_append_new(sources, json_pack("{s:s, s:s, s:b}", "network", r->key + 7,
                                                     "rule", r->value, "shadow", r->shadow));
    }
    return json_pack("{s:b, s:o, s:o, s:o}", "shadow", v->shadow, "types", types, "limits", limits,
                     "sources", sources);
}

static const char *mark(bool shadow) { return shadow ? "shadow" : ""; }

static void type_row(void *arg, const char *type, const struct rule *admit,
                     const struct rule *class)
{
    struct columns *t = arg;

    columns_text(t, "%s", type);
    columns_text(t, "%s", admit ? admit->value : "accept");
    columns_text(t, "%s", class ? class->value : "");
    columns_text(t, "%s",
                 mark((admit != NULL && admit->shadow) || (class != NULL && class->shadow)));
}

static void print_family(struct policy_view *v, struct columns *t, const char *family,
                         const char *title, const char *second)
{
    size_t prefix = strlen(family);

    columns_init(t, "lll", false);
    columns_text(t, "%s", title);
    columns_text(t, "%s", second);
    columns_text(t, "%s", "");
    for (unsigned i = 0; i < v->rules; i++) {
        const struct rule *r = &v->rule[i];

        if (!starts_with(r->key, family))
            continue;
        columns_text(t, "%s", r->key + prefix);
        columns_text(t, "%s", r->value);
        columns_text(t, "%s", mark(r->shadow));
    }
    if (t->cells > t->columns) {
        printf("\n");
        columns_print(t, stdout, 0);
    }
    columns_fini(t);
}

static void view_print(struct policy_view *v)
{
    struct columns *t = calloc(1, sizeof *t);

    if (t == NULL)
        return;
    columns_init(t, "llll", false);
    columns_text(t, "type");
    columns_text(t, "action");
    columns_text(t, "class");
    columns_text(t, "%s", "");
    each_type(v, type_row, t);
    columns_print(t, stdout, 0);
    print_family(v, t, "limit.", "limit", "value");
    print_family(v, t, "source.", "source", "rule");
    if (v->shadow_found && !v->shadow)
        printf("\nThere is a shadow policy: --shadow shows it.\n");
    free(t);
}

int xdp_policy_get(const struct xdp_options *o)
{
    struct policy_view *v = calloc(1, sizeof *v);
    int rc;

    if (v == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    v->shadow = o->shadow;
    rc = view_fetch(o, v);
    if (rc == CLI_OK && v->shadow && !v->shadow_found)
        rc = cli_error(CLI_NEGATIVE, "there is no shadow policy");
    if (rc == CLI_OK && o->common.json) {
        rc = cli_print_json(view_json(v), CLI_OK);
    } else if (rc == CLI_OK) {
        view_print(v);
        rc = cli_finish(CLI_OK);
    }
    free(v);
    return rc;
}

/* --- set ----------------------------------------------------------------------------------------
 */

/* Sends the change and shows it; `what` says what is so then, NULL: the key and its value. */
static int change(const struct xdp_options *o, const sluice_v1_SettingSetRequest *set,
                  const char *what)
{
    struct admin_request r = { .which = ADMIN_SETTING_SET, .setting_set = *set };
    sluice_v1_SettingEntry e = sluice_v1_SettingEntry_init_zero;
    int rc = cli_call(&o->common, &r, ADMIN_BODY_SETTING, sluice_v1_SettingEntry_fields, &e);

    if (rc != CLI_OK)
        return rc;
    if (o->common.json)
        return cli_print_json(json_pack("{s:s, s:s, s:I}", "key", e.key, "value", e.value, "index",
                                        (json_int_t)e.index),
                              CLI_OK);
    if (what != NULL)
        printf("%s from log index %" PRIu64 " on\n", what, (uint64_t)e.index);
    else if (e.value[0] != '\0')
        printf("%s is %s from log index %" PRIu64 " on\n", e.key, e.value, (uint64_t)e.index);
    else
        printf("%s is %s from log index %" PRIu64 " on\n", e.key,
               starts_with(e.key, SHADOW_PREFIX) ? "as without the shadow" : "at its default",
               (uint64_t)e.index);
    return cli_finish(CLI_OK);
}

/* Appends to a key or value; false when there is no room. */
static bool append(char *to, size_t cap, const char *text)
{
    size_t at = strlen(to), bytes = strlen(text);

    if (bytes >= cap - at)
        return false;
    memcpy(to + at, text, bytes + 1);
    return true;
}

/* The key, and how many words it took. */
static bool set_key(const struct xdp_options *o, sluice_v1_SettingSetRequest *set, int *ret_words)
{
    const char *family = "admit.", *name = o->arg[0];

    *ret_words = 1;
    if (strcmp(o->arg[0], "source") == 0 || strcmp(o->arg[0], "limit") == 0) {
        family = o->arg[0][0] == 's' ? "source." : "limit.";
        name = o->arg[1];
        *ret_words = 2;
    } else if (strcmp(o->arg[1], "class") == 0) {
        family = "class.";
        *ret_words = 2;
    } else if (starts_with(o->arg[1], "class ")) { /* in one word, as "sample 10" may be */
        family = "class.";
    }
    return append(set->key, sizeof set->key, o->shadow ? SHADOW_PREFIX : "") &&
           append(set->key, sizeof set->key, family) && append(set->key, sizeof set->key, name);
}

/* Words that ask for what holds when nothing is set. In the shadow the first two are settings: what
 * is in force may be something else. */
static bool means_default(const sluice_v1_SettingSetRequest *set, bool shadow)
{
    if (strcmp(set->value, "default") == 0)
        return true;
    return !shadow && ((strcmp(set->value, "accept") == 0 && starts_with(set->key, "admit.")) ||
                       (strcmp(set->value, "none") == 0 && starts_with(set->key, "source.")));
}

int xdp_policy_set(const struct xdp_options *o)
{
    sluice_v1_SettingSetRequest set = sluice_v1_SettingSetRequest_init_zero;
    bool fits;
    int words;

    if (o->args < 2)
        return cli_usage("xdp", "policy set takes a type, source NETWORK or limit NAME, and what "
                                "it is to be");
    fits = set_key(o, &set, &words);
    if (words == o->args)
        return cli_usage("xdp", "policy set %s %s: what is it to be?", o->arg[0], o->arg[1]);
    if (words == 1 && starts_with(o->arg[1], "class "))
        o->arg[1] += sizeof "class " - 1;
    for (int i = words; i < o->args; i++)
        fits = fits && append(set.value, sizeof set.value, i > words ? " " : "") &&
               append(set.value, sizeof set.value, o->arg[i]);
    if (!fits)
        return cli_usage("xdp", "a key has at most %zu bytes, a value %zu", sizeof set.key - 1,
                         sizeof set.value - 1);
    if (set.value[0] == '\0')
        return cli_usage("xdp", "policy set takes no empty words; default takes %s back", set.key);
    if (means_default(&set, o->shadow))
        set.value[0] = '\0';
    return change(o, &set, NULL);
}

int xdp_policy_promote(const struct xdp_options *o)
{
    static const sluice_v1_SettingSetRequest set = { .key = "shadow", .value = "promote" };

    return change(o, &set, "the shadow policy is in force");
}

int xdp_policy_discard(const struct xdp_options *o)
{
    static const sluice_v1_SettingSetRequest set = { .key = "shadow", .value = "discard" };

    return change(o, &set, "there is no shadow policy");
}
