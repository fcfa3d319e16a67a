/*
 * fuzz_yaml.c - any bytes as a YAML file: a tree within its limits or a refusal with a place, and
 * always an end.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* libfyaml 0.7.12 leaks a buffer when it refuses some quoted scalars. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libfyaml.so\n"; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char error[YAML_ERROR_BYTES];
    struct yaml_doc doc;
    int result = yaml_parse(&doc, "f", (const char *)data, bytes, error);

    assert(result == 0 || result == -EINVAL || result == -EFBIG);
    assert((result != 0) == (error[0] != '\0'));
    assert(result == 0 || strncmp(error, "f:", 2) == 0);
    assert(doc.nodes <= YAML_NODES_MAX && doc.text_bytes <= doc.text_bytes_max);
    for (uint32_t i = 0; i < doc.nodes && result == 0; i++) {
        const struct yaml_node *n = &doc.node[i];

        assert(n->line > 0 && n->column > 0);
        assert(n->type == YAML_SCALAR ? n->first == NULL : n->text[0] == '\0');
        for (const struct yaml_node *c = n->first; c != NULL; c = c->next)
            assert((c->name != NULL) == (n->type == YAML_MAPPING));
    }
    yaml_fini(&doc);
    return 0;
}
