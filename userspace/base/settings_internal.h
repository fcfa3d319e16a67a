/*
 * settings_internal.h - what settings.c (the table, types, numbers) shares with settings_policy.c
 * (admit, class, limit, the shadow), settings_source.c (networks) and settings_region.c
 * (durability).
 */
#ifndef SLUICE_BASE_SETTINGS_INTERNAL_H
#define SLUICE_BASE_SETTINGS_INTERNAL_H

#include <stddef.h>

#include "base/settings.h"

#define SETTINGS_SHADOW_PREFIX "shadow."

struct settings_change {
    const char *key;  /* as written, for sentences */
    const char *rest; /* of the key, behind the family's prefix */
    const char *value;
    bool shadow; /* of the overlay, not of what is in force */
    char *error;
};

struct settings_listing {
    void (*line)(void *arg, const struct setting_line *line);
    void *arg;
    bool shadow;
};

struct settings_family {
    const char *prefix; /* ends with a dot: many keys; otherwise the whole key */
    /* Makes the change in s, or says why not. */
    int (*set)(struct settings *s, const struct settings_family *f,
               const struct settings_change *c);
    void (*list)(const struct settings *s, const struct settings_family *f,
                 const struct settings_listing *l); /* NULL: never listed */
    bool policy;                                    /* the shadow has it, too */
    bool wide;                                      /* uint64_t, not uint32_t */
    size_t offset; /* numbers: where in struct settings; limits: in struct settings_policy */
    uint64_t min, max, value_default;
};

/* settings_region.c */
int settings_set_durability(struct settings *s, const struct settings_family *f,
                            const struct settings_change *c);
void settings_list_durability(const struct settings *s, const struct settings_family *f,
                              const struct settings_listing *l);
int settings_set_unreachable(struct settings *s, const struct settings_family *f,
                             const struct settings_change *c);
void settings_list_unreachable(const struct settings *s, const struct settings_family *f,
                               const struct settings_listing *l);

/* settings.c */
__attribute__((format(printf, 2, 3))) int settings_refuse(char *error, const char *format, ...);
/* Decimal digits alone, at most 19, without a leading zero. */
bool settings_read_number(const char *s, uint64_t *ret);
/* The type of a key of classes or admission, or -EINVAL and a sentence. */
int settings_find_type(const struct settings *s, const struct settings_change *c);
uint8_t settings_class_default(uint32_t type);
/* The key of a type's line. */
void settings_type_key(const struct settings *s, const char *before, const char *prefix,
                       uint32_t type, struct setting_line *line);
/* Has this type lines of what is in force? */
bool settings_type_listed(const struct settings *s, uint32_t type);

/* settings_policy.c */
int settings_set_class(struct settings *s, const struct settings_family *f,
                       const struct settings_change *c);
int settings_set_admit(struct settings *s, const struct settings_family *f,
                       const struct settings_change *c);
int settings_set_limit(struct settings *s, const struct settings_family *f,
                       const struct settings_change *c);
int settings_set_shadow(struct settings *s, const struct settings_family *f,
                        const struct settings_change *c);
void settings_list_class(const struct settings *s, const struct settings_family *f,
                         const struct settings_listing *l);
void settings_list_admit(const struct settings *s, const struct settings_family *f,
                         const struct settings_listing *l);
void settings_list_limit(const struct settings *s, const struct settings_family *f,
                         const struct settings_listing *l);

/* settings_source.c */
int settings_set_source(struct settings *s, const struct settings_family *f,
                        const struct settings_change *c);
void settings_list_source(const struct settings *s, const struct settings_family *f,
                          const struct settings_listing *l);
/* Makes the changes of an overlay's sources in p. */
void settings_overlay_sources(const struct settings_policy *overlay, struct settings_policy *p);

static inline const char *settings_before(bool shadow)
{
    return shadow ? SETTINGS_SHADOW_PREFIX : "";
}

#endif
