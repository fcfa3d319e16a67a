/*
 * config_value.c - one value of the config: from the tree into struct config, and back to text.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/config_table.h"

/* Where a value stands and whom to tell: what every setter needs. */
struct value {
    const struct config_key *key;
    const struct yaml_node *node; /* the value, or the item of a list */
    const char *file;
    char *error;
};

#define REFUSE(v, ...)                                                                             \
    config_refuse((v)->error, (v)->file, (v)->node->line, (v)->node->column, __VA_ARGS__)

static const struct {
    const char *suffix;
    uint32_t shift;
} size_suffix[] = { { "KiB", 10 }, { "MiB", 20 }, { "GiB", 30 } };

static void size_text(uint64_t bytes, char *ret_text, size_t ret_bytes)
{
    for (size_t i = 3; i-- > 0;) {
        uint32_t shift = size_suffix[i].shift;

        if (bytes != 0 && (bytes & ((1ull << shift) - 1)) == 0) {
            snprintf(ret_text, ret_bytes, "%ju%s", (uintmax_t)(bytes >> shift),
                     size_suffix[i].suffix);
            return;
        }
    }
    snprintf(ret_text, ret_bytes, "%ju", (uintmax_t)bytes);
}

void config_number_text(const struct config_key *key, uint64_t number, char *ret_text,
                        size_t ret_bytes)
{
    if (key->type == TYPE_SIZE)
        size_text(number, ret_text, ret_bytes);
    else
        snprintf(ret_text, ret_bytes, "%ju", (uintmax_t)number);
}

/* Decimal digits, with no sign, space or leading zero. Returns what follows them, NULL when there
 * are none or the number does not fit. */
static const char *read_number(const char *s, uint64_t *ret)
{
    uint64_t n = 0;

    if (*s < '0' || *s > '9' || (s[0] == '0' && s[1] >= '0' && s[1] <= '9'))
        return NULL;
    for (; *s >= '0' && *s <= '9'; s++) {
        uint64_t digit = (uint64_t)(*s - '0');

        if (n > (UINT64_MAX - digit) / 10)
            return NULL;
        n = n * 10 + digit;
    }
    assert(*s < '0' || *s > '9');
    *ret = n;
    return s;
}

/* A number within the key's range; sizes may end in KiB, MiB, GiB. */
static int parse_number(const struct value *v, bool size, uint64_t min, uint64_t max, uint64_t *ret)
{
    const char *rest = v->node->plain ? read_number(v->node->text, ret) : NULL;
    char low[32], high[32];

    assert(min <= max);
    if (size && rest != NULL && *rest != '\0') {
        rest += *rest == ' ';
        for (size_t i = 0; i < sizeof size_suffix / sizeof *size_suffix; i++)
            if (strcmp(rest, size_suffix[i].suffix) == 0) {
                bool fits = *ret <= UINT64_MAX >> size_suffix[i].shift;

                *ret = fits ? *ret << size_suffix[i].shift : UINT64_MAX;
                rest = "";
            }
    }
    config_number_text(v->key, min, low, sizeof low);
    config_number_text(v->key, max, high, sizeof high);
    if (rest == NULL || *rest != '\0')
        return REFUSE(v, "%s must be %s from %s to %s%s, not \"%.60s\"%s", v->key->path,
                      size ? "a number of bytes" : "a whole number", low, high,
                      size ? " (KiB, MiB and GiB may follow)" : "", v->node->text,
                      v->node->plain ? "" : " in quotes");
    if (*ret < min || *ret > max)
        return REFUSE(v, "%s is %.60s; allowed is %s to %s", v->key->path, v->node->text, low,
                      high);
    return 0;
}

static int set_bool(const struct value *v, bool *to)
{
    const char *s = v->node->text;

    if (!v->node->plain || (strcmp(s, "true") != 0 && strcmp(s, "false") != 0))
        return REFUSE(v, "%s must be true or false, not \"%.60s\"%s", v->key->path, s,
                      v->node->plain ? "" : " in quotes");
    *to = s[0] == 't';
    return 0;
}

void config_choices_text(const struct config_key *key, char *ret_text, size_t ret_bytes)
{
    size_t used = 0;

    assert(key->type == TYPE_CHOICE && key->choices != NULL);
    for (const char *const *name = key->choices; *name != NULL; name++) {
        const char *before = name == key->choices ? "" : name[1] == NULL ? " or " : ", ";
        int n = snprintf(ret_text + used, ret_bytes - used, "%s%s", before, *name);

        assert(n > 0 && (size_t)n < ret_bytes - used);
        used += (size_t)n;
    }
}

static int set_choice(const struct value *v, uint32_t *to)
{
    char choices[128];

    for (uint32_t i = 0; v->key->choices[i] != NULL; i++)
        if (strcmp(v->node->text, v->key->choices[i]) == 0) {
            *to = i;
            return 0;
        }
    config_choices_text(v->key, choices, sizeof choices);
    return REFUSE(v, "%s must be %s, not \"%.60s\"", v->key->path, choices, v->node->text);
}

static int set_text(const struct value *v, char *to)
{
    const char *s = v->node->text;
    size_t bytes = strlen(s);

    if (bytes >= v->key->bytes)
        return REFUSE(v, "%s has %zu bytes; at most %u are allowed", v->key->path, bytes,
                      v->key->bytes - 1);
    if (v->key->type == TYPE_NAME &&
        (bytes == 0 || strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                 "._-") != bytes))
        return REFUSE(v,
                      "%s must be made of letters, digits, \".\", \"_\" and \"-\", not \"%.60s\"",
                      v->key->path, s);
    memset(to, 0, v->key->bytes);
    memcpy(to, s, bytes);
    return 0;
}

/* IPv4 becomes a mapped address; one that is written as a mapped address is refused, so that every
 * address has one form. */
static int parse_ip(const struct value *v, const char *text, struct in6_addr *ret, bool *ret_v4)
{
    struct in_addr v4;

    *ret_v4 = inet_pton(AF_INET, text, &v4) == 1;
    if (*ret_v4) {
        memset(ret, 0, sizeof *ret);
        ret->s6_addr[10] = ret->s6_addr[11] = 0xff;
        memcpy(ret->s6_addr + 12, &v4, 4);
        return 0;
    }
    if (inet_pton(AF_INET6, text, ret) != 1)
        return REFUSE(v, "%s: \"%.60s\" is not an IPv4 or IPv6 address", v->key->path, text);
    if (IN6_IS_ADDR_V4MAPPED(ret))
        return REFUSE(v, "%s: write \"%.60s\" as an IPv4 address", v->key->path, text);
    return 0;
}

static int parse_network(const struct value *v, struct config_network *ret)
{
    char text[INET6_ADDRSTRLEN + 1] = "";
    const char *slash = strchr(v->node->text, '/');
    uint64_t bits = 0;
    const char *rest;
    bool v4;
    int error;

    if (slash == NULL || (size_t)(slash - v->node->text) >= sizeof text)
        return REFUSE(v, "%s: \"%.60s\" is not a network like 10.0.0.0/8 or fd00::/8", v->key->path,
                      v->node->text);
    memcpy(text, v->node->text, (size_t)(slash - v->node->text));
    error = parse_ip(v, text, &ret->ip, &v4);
    if (error != 0)
        return error;
    rest = read_number(slash + 1, &bits);
    if (rest == NULL || *rest != '\0' || bits > (v4 ? 32 : 128))
        return REFUSE(v, "%s: the prefix of \"%.60s\" must be 0 to %d", v->key->path, v->node->text,
                      v4 ? 32 : 128);
    ret->bits = (uint32_t)bits + (v4 ? 96 : 0);
    for (uint32_t i = ret->bits; i < 128; i++)
        if (ret->ip.s6_addr[i / 8] & (0x80 >> i % 8))
            return REFUSE(v, "%s: \"%.60s\" has bits behind its prefix of %ju", v->key->path,
                          v->node->text, (uintmax_t)bits);
    return 0;
}

/* 10.0.0.1:7402, [fd00::1]:7402, or nothing. */
static int set_endpoint(const struct value *v, struct config_endpoint *to)
{
    const char *text = v->node->text, *colon = strrchr(text, ':'), *host = text, *rest;
    char address[INET6_ADDRSTRLEN + 1] = "";
    uint64_t port = 0;
    size_t bytes;
    bool v4;
    int error;

    memset(to, 0, sizeof *to);
    if (text[0] == '\0')
        return 0;
    rest = colon != NULL ? read_number(colon + 1, &port) : NULL;
    bytes = colon != NULL ? (size_t)(colon - text) : 0;
    if (bytes > 2 && host[0] == '[' && host[bytes - 1] == ']') {
        host++;
        bytes -= 2;
    } else if (memchr(host, ':', bytes) != NULL) {
        rest = NULL; /* IPv6 without brackets: whose colon is the last? */
    }
    if (rest == NULL || *rest != '\0' || port == 0 || port > 65535 || bytes == 0 ||
        bytes >= sizeof address)
        return REFUSE(v, "%s: \"%.60s\" is not ADDRESS:PORT, like 10.0.0.1:7402 or [fd00::1]:7402",
                      v->key->path, text);
    memcpy(address, host, bytes);
    error = parse_ip(v, address, &to->ip, &v4);
    if (error == 0 && v4 != (host == text))
        return REFUSE(v, "%s: \"%.60s\" is not ADDRESS:PORT: brackets are for IPv6 alone",
                      v->key->path, text);
    to->port = error == 0 ? (uint32_t)port : 0;
    return error;
}

static int add_address(const struct value *v, struct config_addresses *to)
{
    struct in6_addr *ip = &to->at[to->n].ip; /* set_list() keeps n below the limit */
    bool v4;
    int error = parse_ip(v, v->node->text, ip, &v4);

    if (error != 0)
        return error;
    for (uint32_t i = 0; i < to->n; i++)
        if (memcmp(&to->at[i].ip, ip, sizeof *ip) == 0)
            return REFUSE(v, "%s: %.60s is given twice", v->key->path, v->node->text);
    to->n++;
    return 0;
}

/* What the kernel takes for a name (its dev_valid_name()). */
static bool is_interface_name(const char *s)
{
    size_t bytes = strlen(s);

    return bytes > 0 && bytes < CONFIG_INTERFACE_BYTES && strcspn(s, "/: \t\n\v\f\r") == bytes &&
           strcmp(s, ".") != 0 && strcmp(s, "..") != 0;
}

static int add_interface(const struct value *v, struct config_interfaces *to)
{
    const char *name = v->node->text;

    assert(to->n < CONFIG_INTERFACES_MAX);
    if (!is_interface_name(name))
        return REFUSE(
            v,
            "%s: \"%.60s\" is not an interface's name, which has 1 to %u bytes, no space, "
            "\"/\" or \":\", and is not \".\" or \"..\"",
            v->key->path, name, CONFIG_INTERFACE_BYTES - 1);
    for (uint32_t i = 0; i < to->n; i++)
        if (strcmp(to->at[i], name) == 0)
            return REFUSE(v, "%s: %s is given twice", v->key->path, name);
    memcpy(to->at[to->n++], name, strlen(name)); /* set_list() zeroed what follows */
    return 0;
}

static int add_item(const struct value *v, void *to)
{
    uint64_t uid;
    int error;

    if (v->node->type != YAML_SCALAR || yaml_is_null(v->node))
        return REFUSE(v, "an item of %s must be a value, not %s", v->key->path,
                      yaml_type_name(v->node));
    if (v->key->type == TYPE_ADDRESSES)
        return add_address(v, to);
    if (v->key->type == TYPE_INTERFACES)
        return add_interface(v, to);
    if (v->key->type == TYPE_NETWORKS) {
        struct config_networks *w = to;

        assert(w->n < CONFIG_NETWORKS_MAX);
        error = parse_network(v, &w->at[w->n]);
        w->n += error == 0;
        return error;
    }
    assert(v->key->type == TYPE_UIDS);
    error = parse_number(v, false, 0, UINT32_MAX - 1, &uid);
    if (error == 0) {
        struct config_uids *u = to;

        assert(u->n < CONFIG_UIDS_MAX);
        u->at[u->n++] = (uint32_t)uid;
    }
    return error;
}

/* How many items a list may have; 0: the type is no list. */
static uint32_t list_max(enum config_type type)
{
    switch (type) {
    case TYPE_ADDRESSES:
        return CONFIG_ADDRESSES_MAX;
    case TYPE_NETWORKS:
        return CONFIG_NETWORKS_MAX;
    case TYPE_UIDS:
        return CONFIG_UIDS_MAX;
    case TYPE_INTERFACES:
        return CONFIG_INTERFACES_MAX;
    default:
        return 0;
    }
}

static int set_list(const struct value *v, void *to)
{
    uint32_t max = list_max(v->key->type), n = 0;

    memset(to, 0, v->key->bytes);
    for (const struct yaml_node *i = v->node->first; i != NULL; i = i->next, n++) {
        struct value item = { .key = v->key, .node = i, .file = v->file, .error = v->error };
        int error;

        if (n == max)
            return REFUSE(&item, "%s has more than %u items", v->key->path, max);
        error = add_item(&item, to);
        if (error != 0)
            return error;
    }
    return 0;
}

int config_value_set(struct config *c, const struct config_key *key, const struct yaml_node *n,
                     const char *file, char error[CONFIG_ERROR_BYTES])
{
    struct value v = { .key = key, .node = n, .file = file, .error = error };
    void *to = (char *)c + key->offset;
    uint64_t number = 0;
    int result;

    assert(key->offset + key->bytes <= sizeof *c);
    if (list_max(key->type) > 0) {
        if (n->type != YAML_SEQUENCE)
            return REFUSE(&v, "%s must be a list like %s, not %s", key->path, key->value_default,
                          yaml_type_name(n));
        return set_list(&v, to);
    }
    if (n->type != YAML_SCALAR || yaml_is_null(n))
        return REFUSE(&v, "%s needs a value, not %s", key->path, yaml_type_name(n));
    switch (key->type) {
    case TYPE_NUMBER:
        assert(key->bytes == sizeof(uint32_t) && key->max <= UINT32_MAX);
        result = parse_number(&v, false, key->min, key->max, &number);
        if (result == 0)
            *(uint32_t *)to = (uint32_t)number;
        return result;
    case TYPE_SIZE:
        assert(key->bytes == sizeof(uint64_t));
        result = parse_number(&v, true, key->min, key->max, &number);
        if (result == 0)
            *(uint64_t *)to = number;
        return result;
    case TYPE_BOOL:
        assert(key->bytes == sizeof(bool));
        return set_bool(&v, to);
    case TYPE_CHOICE:
        assert(key->bytes == sizeof(uint32_t));
        return set_choice(&v, to);
    case TYPE_NAME:
    case TYPE_PATH:
        return set_text(&v, to);
    case TYPE_ENDPOINT:
        assert(key->bytes == sizeof(struct config_endpoint));
        return set_endpoint(&v, to);
    default:
        assert(false && "a type without a setter");
        return -EINVAL;
    }
}

/* --- back to text ------------------------------------------------------------------------------
 */

__attribute__((format(printf, 2, 3))) static void text_add(char *text, const char *format, ...)
{
    size_t used = strlen(text);
    va_list args;

    va_start(args, format);
    vsnprintf(text + used, CONFIG_VALUE_BYTES - used, format, args);
    va_end(args);
}

static void text_add_quoted(char *text, const char *s)
{
    text_add(text, "\"");
    for (; *s != '\0'; s++)
        text_add(text, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
    text_add(text, "\"");
}

void config_item_text(const struct config *c, const struct config_key *key, uint32_t i,
                      char ret_text[CONFIG_ITEM_BYTES])
{
    const void *from = (const char *)c + key->offset;
    const struct config_networks *w = from;
    const struct config_interfaces *x = from;
    char ip[INET6_ADDRSTRLEN];

    _Static_assert(INET6_ADDRSTRLEN + sizeof "/128" <= CONFIG_ITEM_BYTES, "a network fits");
    _Static_assert(CONFIG_INTERFACE_BYTES <= CONFIG_ITEM_BYTES, "an interface fits");
    assert(i < list_max(key->type));
    switch (key->type) {
    case TYPE_ADDRESSES:
        config_address_text(&((const struct config_addresses *)from)->at[i].ip, ret_text);
        return;
    case TYPE_NETWORKS:
        config_address_text(&w->at[i].ip, ip);
        snprintf(ret_text, CONFIG_ITEM_BYTES, "%s/%u", ip,
                 w->at[i].bits - (IN6_IS_ADDR_V4MAPPED(&w->at[i].ip) ? 96 : 0));
        return;
    case TYPE_INTERFACES:
        snprintf(ret_text, CONFIG_ITEM_BYTES, "%s", x->at[i]);
        return;
    default:
        assert(key->type == TYPE_UIDS);
        snprintf(ret_text, CONFIG_ITEM_BYTES, "%u", ((const struct config_uids *)from)->at[i]);
    }
}

uint32_t config_count_items(const struct config *c, const struct config_key *key)
{
    _Static_assert(offsetof(struct config_networks, n) == 0, "every list begins with n");
    _Static_assert(offsetof(struct config_addresses, n) == 0, "every list begins with n");
    _Static_assert(offsetof(struct config_uids, n) == 0, "every list begins with n");
    _Static_assert(offsetof(struct config_interfaces, n) == 0, "every list begins with n");
    assert(list_max(key->type) > 0);
    return *(const uint32_t *)((const char *)c + key->offset);
}

void config_endpoint_text(const struct config_endpoint *e, char ret_text[CONFIG_ITEM_BYTES])
{
    char ip[INET6_ADDRSTRLEN];

    ret_text[0] = '\0';
    if (e->port == 0)
        return;
    config_address_text(&e->ip, ip);
    snprintf(ret_text, CONFIG_ITEM_BYTES, strchr(ip, ':') != NULL ? "[%s]:%u" : "%s:%u", ip,
             e->port);
}

/* As a flow list. A colon would make an item a key, so it is quoted; so is an interface's name,
 * which may hold almost anything. */
static void list_text(const struct config *c, const struct config_key *key, char *text)
{
    uint32_t n = config_count_items(c, key);
    char item[CONFIG_ITEM_BYTES];

    text_add(text, "[");
    for (uint32_t i = 0; i < n; i++) {
        config_item_text(c, key, i, item);
        text_add(text, i == 0 ? "" : ", ");
        if (key->type == TYPE_INTERFACES || strchr(item, ':') != NULL)
            text_add_quoted(text, item);
        else
            text_add(text, "%s", item);
    }
    text_add(text, "]");
}

void config_value_text(const struct config *c, const struct config_key *key,
                       char ret_text[CONFIG_VALUE_BYTES])
{
    const void *from = (const char *)c + key->offset;
    char item[CONFIG_ITEM_BYTES];
    const char *s = from;

    _Static_assert(CONFIG_NETWORKS_MAX * (INET6_ADDRSTRLEN + 8) < CONFIG_VALUE_BYTES, "fits");
    _Static_assert(CONFIG_PATH_BYTES * 2 + 8 < CONFIG_VALUE_BYTES, "fits");
    ret_text[0] = '\0';
    switch (key->type) {
    case TYPE_NUMBER:
        text_add(ret_text, "%u", *(const uint32_t *)from);
        return;
    case TYPE_SIZE:
        size_text(*(const uint64_t *)from, ret_text, CONFIG_VALUE_BYTES);
        return;
    case TYPE_BOOL:
        text_add(ret_text, "%s", *(const bool *)from ? "true" : "false");
        return;
    case TYPE_CHOICE:
        text_add(ret_text, "%s", key->choices[*(const uint32_t *)from]);
        return;
    case TYPE_NAME:
        text_add(ret_text, "%s", s);
        return;
    case TYPE_PATH: /* quoted: it may hold anything */
        text_add_quoted(ret_text, s);
        return;
    case TYPE_ENDPOINT: /* quoted: a colon */
        config_endpoint_text(from, item);
        text_add_quoted(ret_text, item);
        return;
    default:
        list_text(c, key, ret_text);
    }
}
