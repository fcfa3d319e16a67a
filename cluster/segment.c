/*
 * segment.c - names and headers of segment files; the layout is drawn in segment.h.
 */
#include "cluster/segment.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void segment_name(const struct segment *s, char ret[SEGMENT_NAME_BYTES])
{
    int n =
        snprintf(ret, SEGMENT_NAME_BYTES, "%016" PRIx64 "-%016" PRIx64 ".seg", s->epoch, s->first);

    assert(n == 37);
}

int segment_parse_name(const char *name, struct segment *ret)
{
    size_t length = strlen(name);
    char again[SEGMENT_NAME_BYTES];
    struct segment s = { 0 };

    if (length < 4 || strcmp(name + length - 4, ".seg") != 0)
        return 0;
    if (sscanf(name, "%16" SCNx64 "-%16" SCNx64 ".seg", &s.epoch, &s.first) != 2)
        return -EINVAL;
    segment_name(&s, again);
    if (strcmp(name, again) != 0 || s.first == 0)
        return -EINVAL;
    *ret = s;
    return 1;
}

static uint32_t header_crc(const struct segment_header *h)
{
    const uint32_t zero = 0;
    const size_t at = offsetof(struct segment_header, crc);
    uint32_t crc = crc32c(0, h, at);

    crc = crc32c(crc, &zero, sizeof zero);
    return crc32c(crc, (const uint8_t *)h + at + sizeof zero, sizeof *h - at - sizeof zero);
}

void segment_encode(struct segment_header *h, const struct segment *s, uint64_t previous_first,
                    uint64_t segment_bytes, const uint8_t before[SHA256_BYTES])
{
    assert(segment_bytes >= SEGMENT_BYTES_MIN && segment_bytes % LOG_ALIGN == 0);
    assert(previous_first < s->first);
    *h = (struct segment_header){
        .magic = SEGMENT_MAGIC,
        .version = SEGMENT_VERSION,
        .epoch = s->epoch,
        .first = s->first,
        .previous_first = previous_first,
        .segment_bytes = segment_bytes,
    };
    memcpy(h->before, before, SHA256_BYTES);
    h->crc = header_crc(h);
}

const char *segment_check(const struct segment_header *h, const struct segment *s,
                          uint64_t file_bytes)
{
    if (h->magic != SEGMENT_MAGIC)
        return "no segment header";
    if (h->crc != header_crc(h))
        return "the segment header's CRC does not match";
    if (h->version != SEGMENT_VERSION)
        return "a segment version that this build does not know";
    if (h->epoch != s->epoch || h->first != s->first)
        return "the file's name does not match its header";
    if (h->segment_bytes < SEGMENT_BYTES_MIN || h->segment_bytes > SEGMENT_BYTES_MAX ||
        h->segment_bytes % LOG_ALIGN != 0)
        return "the segment header states an impossible size";
    if (h->segment_bytes != file_bytes)
        return "the file is not as long as its header says";
    if (h->previous_first >= h->first)
        return "the segment header names a later segment as the one before";
    return NULL;
}

/* Does the file end with the record that sealed the segment? */
static int ends_sealed(struct disk *d, int file, const struct segment *s, uint32_t seed, void *page)
{
    const struct record_header *h = page;
    uint64_t offset = s->bytes - LOG_ALIGN;
    int64_t n;

    assert(s->bytes >= 2 * LOG_ALIGN && offset % LOG_ALIGN == 0);
    n = d->ops->read(d, file, page, LOG_ALIGN, offset);
    if (n != LOG_ALIGN)
        return n < 0 ? (int)n : -EIO;
    return record_check_header(h, seed, offset) == NULL && h->agreed.type == LOG_SEAL &&
           record_bytes(h->agreed.payload_bytes) == LOG_ALIGN && record_check_payload(h) == NULL;
}

int segment_read(struct disk *d, int file, const struct segment *s, bool last, void *page,
                 struct segment_header *ret, const char **ret_why)
{
    int64_t n = d->ops->read(d, file, page, LOG_ALIGN, 0);
    bool cut;
    int r = 1;

    assert(((uintptr_t)page & (LOG_ALIGN - 1)) == 0);
    *ret_why = "the segment header cannot be read";
    if (n != LOG_ALIGN)
        return n < 0 ? (int)n : -EILSEQ;
    memcpy(ret, page, sizeof *ret);
    cut = !last && s->bytes < ret->segment_bytes && s->bytes % LOG_ALIGN == 0 &&
          s->bytes >= 2 * LOG_ALIGN;
    *ret_why = segment_check(ret, s, cut ? ret->segment_bytes : s->bytes);
    if (*ret_why != NULL)
        return -EILSEQ;
    if (cut)
        r = ends_sealed(d, file, s, record_seed(ret->before), page);
    if (r <= 0)
        *ret_why = "the file is not as long as its header says";
    return r > 0 ? 0 : r < 0 ? r : -EILSEQ;
}

int segment_list_add(struct segment_list *list, struct segment s)
{
    if (list->n == list->room) {
        size_t room = list->room ? list->room * 2 : 64;
        struct segment *at = realloc(list->at, room * sizeof *at);

        if (at == NULL)
            return -ENOMEM;
        list->at = at;
        list->room = room;
    }
    list->at[list->n++] = s;
    return 0;
}

static int take_name(void *arg, const char *name)
{
    struct segment_list *list = arg;
    struct segment s = { 0 };
    int r = segment_parse_name(name, &s);

    if (strcmp(name, SEGMENT_MARK) == 0)
        list->has_mark = true;
    if (strcmp(name, SEGMENT_NEXT) == 0)
        list->has_next = true;
    if (strcmp(name, SEGMENT_REPAIR) == 0)
        list->has_repair = true;
    if (r < 0)
        snprintf(list->wrong, sizeof list->wrong, "%s", name);
    return r == 1 ? segment_list_add(list, s) : 0;
}

static int by_first(const void *a, const void *b)
{
    const struct segment *x = a, *y = b;

    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return (x->epoch > y->epoch) - (x->epoch < y->epoch);
}

int segment_list_read(struct segment_list *list, struct disk *d)
{
    int r;

    *list = (struct segment_list){ 0 };
    r = d->ops->list(d, take_name, list);
    if (r < 0) {
        segment_list_fini(list);
        return r;
    }
    if (list->n > 0)
        qsort(list->at, list->n, sizeof *list->at, by_first);
    return 0;
}

void segment_list_fini(struct segment_list *list)
{
    free(list->at);
    *list = (struct segment_list){ 0 };
}
