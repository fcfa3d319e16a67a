/*
 * table.c - ordered linear probing; the contract and the invariant are in table.h.
 */
#include "store/table.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_BYTES     (2u << 20)
#define HUGE_BYTES_MIN (1u << 20)
#define PAGE_BYTES     4096u

size_t table_map_bytes(size_t bytes)
{
    size_t unit = bytes >= HUGE_BYTES_MIN ? HUGE_BYTES : PAGE_BYTES;

    return (bytes + unit - 1) / unit * unit;
}

/* Maps more addresses than needed and gives back the ends: huge pages want their alignment. */
void *table_map(size_t bytes)
{
    size_t size = table_map_bytes(bytes), align = size >= HUGE_BYTES ? HUGE_BYTES : PAGE_BYTES;
    char *p = mmap(NULL, size + align, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    size_t head;

    if (p == MAP_FAILED)
        return NULL;
    head = (align - (uintptr_t)p % align) % align;
    if (head > 0)
        munmap(p, head);
    if (align > head)
        munmap(p + head + size, align - head);
    if (align == HUGE_BYTES)
        (void)madvise(p + head, size, MADV_HUGEPAGE); /* no more than a wish */
    return p + head;
}

void table_unmap(void *p, size_t bytes)
{
    if (p != NULL)
        munmap(p, table_map_bytes(bytes));
}

static uint64_t slots_for(uint64_t keys_max) { return (keys_max * 4 + 2) / 3; }

size_t table_bytes(uint64_t keys_max)
{
    return table_map_bytes((slots_for(keys_max) + TABLE_TAIL_SLOTS) * sizeof(struct entry));
}

uint64_t table_keys(size_t bytes)
{
    uint64_t room = bytes / sizeof(struct entry);

    return room > TABLE_TAIL_SLOTS ? (room - TABLE_TAIL_SLOTS) * 3 / 4 : 0;
}

int table_init(struct table *t, uint64_t keys_max)
{
    assert(keys_max > 0);
    *t = (struct table){ .slots = slots_for(keys_max), .count_max = keys_max };
    t->room = t->slots + TABLE_TAIL_SLOTS;
    t->bytes = table_bytes(keys_max);
    t->entries = table_map(t->bytes);
    if (t->entries == NULL)
        return -ENOMEM;
    memset(t->entries, 0, t->bytes); /* touched now, so that no event waits for a page */
    return 0;
}

void table_fini(struct table *t)
{
    table_unmap(t->entries, t->bytes);
    t->entries = NULL;
}

void table_clear(struct table *t)
{
    memset(t->entries, 0, t->top * sizeof *t->entries);
    t->count = 0;
    t->top = 0;
    t->last = 0;
}

bool table_fits(const struct table *t, size_t n)
{
    uint64_t top = t->top > t->slots ? t->top : t->slots;

    assert(n <= TABLE_TAIL_SLOTS);
    /* A put moves top by one at most, or into the homes. */
    return top + n <= t->room && (t->count == 0 || t->count + n <= t->count_max);
}

/* The first slot from key's home on that is empty or not before key. */
static struct entry *table_seek(const struct table *t, struct key128 key)
{
    struct entry *e = t->entries + entry_scale(key.lo, t->slots);
    const struct entry *end = t->entries + t->room;

    while (e < end && e->place != 0 && entry_compare(&e->key, &key) < 0)
        e++;
    return e;
}

const struct entry *table_find(const struct table *t, struct key128 key)
{
    const struct entry *e = table_seek(t, key);

    if (e == t->entries + t->room || e->place == 0 || entry_compare(&e->key, &key) != 0)
        return NULL;
    return e;
}

bool table_remove(struct table *t, const struct entry *e)
{
    struct entry *at = table_seek(t, e->key), *next;
    const struct entry *end = t->entries + t->room;

    if (at == end || at->place != e->place || entry_compare(&at->key, &e->key) != 0)
        return false;
    for (next = at + 1; next < end && next->place != 0; next++) {
        if (entry_scale(next->key.lo, t->slots) == (uint64_t)(next - t->entries))
            break;
    }
    memmove(at, at + 1, (size_t)(next - at - 1) * sizeof *at);
    next[-1] = (struct entry){ 0 };
    t->count--;
    while (t->top > t->slots && t->entries[t->top - 1].place == 0)
        t->top--;
    return true;
}

const struct entry *table_put(struct table *t, const struct entry *e)
{
    struct entry *at = table_seek(t, e->key), *empty = at;
    const struct entry *end = t->entries + t->room;

    assert(at < end && e->place != 0);
    if (at->place != 0 && entry_compare(&at->key, &e->key) == 0)
        return at;
    while (empty->place != 0) {
        empty++;
        assert(empty < end);
    }
    memmove(at + 1, at, (size_t)(empty - at) * sizeof *at);
    *at = *e;
    t->count++;
    if ((uint64_t)(empty - t->entries) >= t->top)
        t->top = (uint64_t)(empty - t->entries) + 1;
    if (entry_index(e) > t->last)
        t->last = entry_index(e);
    return NULL;
}
