/*
 * yaml.h - reads a small YAML file into a tree whose every node knows its line and column.
 *
 * The only file that knows libfyaml. It takes the part of YAML that a config file needs: one
 * document of mappings, sequences and scalars. Anchors, aliases, tags, further documents and
 * duplicate keys are refused, so a file cannot grow beyond what was typed.
 *
 * Thread:  any; nothing is shared.
 * Memory:  allocated in yaml_parse(), freed in yaml_fini(); nodes and texts live until then.
 * Limits:  YAML_BYTES_MAX, YAML_NODES_MAX, YAML_DEPTH_MAX.
 * Errors:  one sentence, `file:line:column: what is wrong`.
 */
#ifndef SLUICE_BASE_YAML_H
#define SLUICE_BASE_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define YAML_BYTES_MAX   (256u * 1024u)
#define YAML_NODES_MAX   8192u
#define YAML_DEPTH_MAX   12u
#define YAML_ERROR_BYTES 512u

enum yaml_type { YAML_SCALAR, YAML_SEQUENCE, YAML_MAPPING };

struct yaml_node {
    enum yaml_type type;
    bool plain;            /* a scalar without quotes */
    uint32_t line, column; /* from 1 */
    const char *text;      /* a scalar's, without control characters; "" for others */
    const char *name;      /* its key, when the parent is a mapping; NULL otherwise */
    uint32_t name_line, name_column;
    struct yaml_node *first, *last; /* children */
    struct yaml_node *next;         /* sibling */
};

struct yaml_doc {
    struct yaml_node *node; /* node[0] is the root; nodes is 0 for an empty document */
    uint32_t nodes, nodes_max;
    char *text;
    size_t text_bytes, text_bytes_max;
};

/* Parses bytes of text; file is the name that errors show. Returns 0, -EINVAL, -EFBIG or -ENOMEM;
 * doc needs yaml_fini() in every case. */
int yaml_parse(struct yaml_doc *doc, const char *file, const char *text, size_t bytes,
               char error[YAML_ERROR_BYTES]);
void yaml_fini(struct yaml_doc *doc);

/* `key:` with nothing behind it, or a plain null. */
bool yaml_is_null(const struct yaml_node *n);

/* The child of a mapping with that key, or NULL. */
const struct yaml_node *yaml_child(const struct yaml_node *mapping, const char *name);

const char *yaml_type_name(const struct yaml_node *n);

#endif
