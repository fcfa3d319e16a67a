/*
 * damage.c - what of a segment is bad, what is known of it all the same, and what it takes to mend
 * it (struct log_damage): for rebuild.c, and whoever gets the records.
 *
 * Of a record that is bad, the chain's digest before it is known from the record before, and the
 * digest behind it from the next whole record header, in this segment or the next one's header. So
 * as little as possible has to come from elsewhere, and whether it is right can be told.
 *
 * Thread:  any, one owner of the disk.  Memory:  SCAN_BYTES.
 */
#include "cluster/log_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What the header of a segment says about the record before it. Returns 1, 0: it is bad, too; or
 * the disk's error. */
static int read_header(struct disk *d, const struct segment *s, bool last, void *buf,
                       struct segment_header *ret)
{
    struct scan scan;
    int e = scan_open(&scan, d, s, last, buf);

    if (e == -ENOENT || e == -EILSEQ)
        return 0;
    if (e < 0)
        return e;
    *ret = scan.header;
    scan_close(&scan);
    return 1;
}

static int anchor_at(struct disk *d, const struct segment *next, bool last, void *buf,
                     struct log_damage *ret)
{
    struct segment_header header;
    int e = read_header(d, next, last, buf, &header);

    assert(next->first > 1);
    ret->to = next->first - 1;
    if (e <= 0)
        return e;
    ret->anchored = true;
    memcpy(ret->after, header.before, SHA256_BYTES);
    return 1;
}

/* Where the file goes on behind what is bad, by its own records. */
static bool anchor_inside(struct scan *s, uint64_t above, uint64_t limit, struct log_damage *ret)
{
    struct scan_anchor a;

    if (!scan_anchor(s, above, limit, &a))
        return false;
    assert(a.index > above && a.index < limit && a.offset >= s->offset);
    ret->to = a.index - 1;
    ret->rest = a.offset;
    ret->bytes = s->segment.bytes;
    ret->anchored = true;
    memcpy(ret->after, a.before, SHA256_BYTES);
    return true;
}

static struct log_damage whole(const struct damage_place *p)
{
    const struct segment *s = &p->at[p->i];
    struct log_damage m = {
        .epoch = s->epoch,
        .first = s->first,
        .last = p->i + 1 == p->keep,
        .from = s->first,
        .offset = LOG_ALIGN,
        .segment_bytes = p->segment_bytes,
        .previous_first = p->i > 0 ? p->at[p->i - 1].first : 0,
        .linked = p->linked,
        .term = p->linked ? p->term : 0,
        .time_ns = p->linked ? p->time_ns : 0,
    };

    assert(p->i < p->keep);
    memcpy(m.before, p->before, SHA256_BYTES);
    return m;
}

/* What the first record says of the one before its segment, if its header is whole by that: a start
 * that has a checkpoint does not read so far back. Returns 1, 0 or the disk's error. */
static int link_by_record(struct disk *d, const struct segment *s, void *buf,
                          uint8_t ret[SHA256_BYTES])
{
    const struct record_header *h = buf;
    char name[SEGMENT_NAME_BYTES];
    int64_t n;
    int file;

    segment_name(s, name);
    file = d->ops->open(d, name, false);
    if (file < 0)
        return file == -ENOENT ? 0 : file;
    n = d->ops->read(d, file, buf, LOG_ALIGN, LOG_ALIGN);
    d->ops->close(d, file);
    if (n != LOG_ALIGN || h->agreed.index != s->first ||
        record_check_header(h, record_seed(h->agreed.before), LOG_ALIGN) != NULL)
        return n < 0 && n != -EIO ? (int)n : 0;
    memcpy(ret, h->agreed.before, SHA256_BYTES);
    return 1;
}

/* The last one, of which the records may be whole although its header is not. */
static int last_segment(struct disk *d, const struct damage_place *p, void *buf,
                        struct log_damage *ret)
{
    struct log_damage m = whole(p);
    struct scan scan;
    int e;

    m.to = p->durable;
    if (!p->linked) {
        e = link_by_record(d, &p->at[p->i], buf, m.before);
        if (e <= 0)
            return e;
        m.linked = true;
    }
    e = scan_open_headless(&scan, d, &p->at[p->i], m.before, buf);
    if (e < 0 && e != -ENOENT)
        return e;
    if (e == 0) {
        struct scan_rest rest;

        if (!anchor_inside(&scan, m.first - 1, UINT64_MAX, &m)) {
            scan_rest(&scan, &rest);
            if (rest.durable > m.to)
                m.to = rest.durable;
        }
        scan_close(&scan);
    }
    /* Nothing of it was ever durable: it is there by name only. */
    if (m.to + 1 < m.first)
        m.to = m.first - 1;
    *ret = m;
    return 0;
}

int damage_of_segment(struct disk *d, const struct damage_place *p, void *buf,
                      struct log_damage *ret)
{
    struct damage_place at = *p;
    int e = 0;

    *ret = (struct log_damage){ 0 };
    if (p->i + 1 == p->keep)
        return last_segment(d, p, buf, ret);
    for (; at.i + 1 < at.keep; at.i++) {
        struct log_damage m = whole(&at);

        e = anchor_at(d, &at.at[at.i + 1], at.i + 2 == at.keep, buf, &m);
        if (e < 0)
            return e;
        if (e == 1 || at.linked)
            *ret = m;
        if (e == 1 || at.linked)
            return 0;
        /* Where it ends is not known either: the next one first, if it is known where that does. */
        at.linked = false;
    }
    return 0;
}

int damage_in_segment(struct scan *s, const struct segment *next, bool next_is_last,
                      uint64_t durable, struct log_damage *ret)
{
    struct log_damage m = {
        .epoch = s->segment.epoch,
        .first = s->segment.first,
        .last = next == NULL,
        .from = s->index,
        .to = durable,
        .offset = s->offset,
        .seed = s->seed,
        .segment_bytes = s->header.segment_bytes,
        .previous_first = s->header.previous_first,
        .linked = true,
        .term = s->index > s->segment.first ? s->term : 0,
        .time_ns = s->index > s->segment.first ? s->time_ns : 0,
        .bytes = s->segment.bytes,
    };

    assert(s->file >= 0 && (next == NULL || next->first > s->index));
    memcpy(m.before, s->digest, SHA256_BYTES);
    if (!anchor_inside(s, s->index, next != NULL ? next->first : UINT64_MAX, &m) && next != NULL) {
        int e;

        ahead_drop(&s->ahead); /* the next one is read into the same buffer */
        e = anchor_at(s->disk, next, next_is_last, s->ahead.buf, &m);
        if (e < 0)
            return e;
    }
    assert(m.to >= m.from);
    *ret = m;
    return 0;
}

int damage_missing(struct disk *d, const struct damage_place *p, uint64_t first, uint64_t to,
                   const struct segment *next, void *buf, struct log_damage *ret)
{
    struct log_damage m = {
        .first = first,
        .missing = true,
        .last = next == NULL,
        .from = first,
        .to = to,
        .offset = LOG_ALIGN,
        .segment_bytes = p->segment_bytes,
        .linked = p->linked,
        .term = p->linked ? p->term : 0,
        .time_ns = p->linked ? p->time_ns : 0,
    };
    int e = 0;

    for (size_t i = 0; i < p->keep && p->at[i].first < first; i++)
        m.previous_first = p->at[i].first;
    memcpy(m.before, p->before, SHA256_BYTES);
    if (next != NULL)
        e = anchor_at(d, next, next == &p->at[p->keep - 1], buf, &m);
    *ret = (struct log_damage){ 0 };
    if (e < 0)
        return e;
    assert(next == NULL || m.to == to);
    if (m.linked || m.anchored)
        *ret = m;
    return 0;
}

/* --- a look at one segment ----------------------------------------------------------------------
 */

struct check {
    struct disk *disk;
    struct segment_list list;
    uint64_t segment_bytes;
    bool (*pace)(void *arg, uint64_t bytes);
    void *arg;
    void *buf;
};

#define PACE_BYTES (256u << 10)

/* Reads up to where it is bad, or ends. */
static int read_on(const struct check *c, struct scan *s, enum scan_result *ret)
{
    const struct record_header *h;
    uint64_t told = 0;

    *ret = SCAN_RECORD;
    while (*ret == SCAN_RECORD) {
        *ret = scan_next(s, &h);
        if (c->pace == NULL || (*ret == SCAN_RECORD && s->offset - told < PACE_BYTES))
            continue;
        if (!c->pace(c->arg, s->offset - told))
            return -ECANCELED;
        told = s->offset;
    }
    return 0;
}

/* Does the segment behind go on where this one ends? Not if one of them is an old copy. */
static int check_next(const struct check *c, size_t i, const struct scan *s, struct log_damage *ret)
{
    struct damage_place place = {
        .at = c->list.at, .i = i, .keep = c->list.n, .segment_bytes = c->segment_bytes
    };
    struct segment_header header;
    int e = read_header(c->disk, &c->list.at[i + 1], i + 2 == c->list.n, c->buf, &header);

    if (e <= 0 || memcmp(header.before, s->digest, SHA256_BYTES) == 0)
        return e < 0 ? e : 0; /* a header that is bad is found with its segment */
    e = damage_of_segment(c->disk, &place, c->buf, ret);
    return e < 0 ? e : -EILSEQ;
}

static int check_one(const struct check *c, size_t i, struct log_damage *ret)
{
    const struct segment *at = c->list.at, *next = &at[i + 1];
    struct damage_place place = {
        .at = at, .i = i, .keep = c->list.n, .segment_bytes = c->segment_bytes
    };
    struct scan scan;
    enum scan_result result;
    int e = scan_open(&scan, c->disk, &at[i], false, c->buf);

    assert(i + 1 < c->list.n);
    if (e == -EILSEQ) {
        e = damage_of_segment(c->disk, &place, c->buf, ret);
        return e < 0 ? e : -EILSEQ;
    }
    if (e < 0)
        return e;
    e = read_on(c, &scan, &result);
    if (e == 0 && scan.index < next->first) {
        place.linked = true;
        place.term = scan.term;
        place.time_ns = scan.time_ns;
        memcpy(place.before, scan.digest, SHA256_BYTES);
        ahead_drop(&scan.ahead);
        if (result == SCAN_ENDED)
            e = damage_missing(c->disk, &place, scan.index, next->first - 1, next, c->buf, ret);
        else
            e = damage_in_segment(&scan, next, i + 2 == c->list.n, 0, ret);
        e = e < 0 ? e : -EILSEQ;
    } else if (e == 0 && scan.index == next->first) {
        ahead_drop(&scan.ahead); /* the buffer is needed */
        e = check_next(c, i, &scan, ret);
    }
    scan_close(&scan);
    return e;
}

int log_check_segment(struct disk *d, uint64_t index, uint64_t segment_bytes,
                      bool (*pace)(void *arg, uint64_t bytes), void *arg, struct log_damage *damage,
                      uint64_t *ret_next)
{
    struct check c = { .disk = d, .segment_bytes = segment_bytes, .pace = pace, .arg = arg };
    size_t i = 0;
    int e;

    *damage = (struct log_damage){ 0 };
    if (ret_next != NULL)
        *ret_next = 0;
    c.buf = aligned_alloc(LOG_ALIGN, SCAN_BYTES);
    e = c.buf != NULL ? segment_list_read(&c.list, d) : -ENOMEM;
    if (e == 0) {
        while (i + 1 < c.list.n && c.list.at[i + 1].first <= index)
            i++;
        if (ret_next != NULL && i + 1 < c.list.n)
            *ret_next = c.list.at[i + 1].first;
        e = i + 1 < c.list.n ? check_one(&c, i, damage) : -ENOENT;
        segment_list_fini(&c.list);
    }
    free(c.buf);
    return e;
}

/* --- more than was thought ----------------------------------------------------------------------
 */

int log_damage_whole(struct disk *d, uint64_t segment_bytes, struct log_damage *damage)
{
    struct damage_place place = { .segment_bytes = segment_bytes };
    struct segment_list list;
    void *buf;
    int e;

    assert(damage->first > 0);
    if (damage->from == damage->first && damage->rest == 0)
        return -ENOENT;
    buf = aligned_alloc(LOG_ALIGN, SCAN_BYTES);
    e = buf != NULL ? segment_list_read(&list, d) : -ENOMEM;
    if (e == 0) {
        while (place.i < list.n && list.at[place.i].first != damage->first)
            place.i++;
        place.at = list.at;
        place.keep = list.n;
        e = place.i + 1 < list.n ? damage_of_segment(d, &place, buf, damage) : -ENOENT;
        segment_list_fini(&list);
    }
    free(buf);
    return e < 0 || damage->first > 0 ? e : -ENOENT;
}

struct widen {
    struct disk *disk;
    struct segment_list list;
    size_t keep; /* those that an interrupted cut leaves */
    struct twoslot mark_file;
    struct mark mark;
    uint64_t claimed; /* the highest index that may have been acknowledged */
    void *buf;
};

static void claim(struct widen *w, uint64_t index)
{
    if (index > w->claimed)
        w->claimed = index;
}

/* By the records of the last segment, which are the only ones that nothing else speaks of. */
static int claim_last(struct widen *w)
{
    struct scan_rest rest;
    struct scan scan;
    int e;

    claim(w, w->mark.durable);
    if (w->keep == 0)
        return 0;
    claim(w, w->list.at[w->keep - 1].first - 1);
    e = scan_open(&scan, w->disk, &w->list.at[w->keep - 1], false, w->buf);
    if (e == -EILSEQ)
        return 0;
    if (e < 0)
        return e;
    scan_rest(&scan, &rest);
    claim(w, rest.highest);
    scan_close(&scan);
    return 0;
}

/* Removes all but the first n; each durably before the one before. */
static int keep_segments(struct widen *w, size_t n)
{
    char name[SEGMENT_NAME_BYTES];
    int e = 0;

    assert(n <= w->list.n);
    while (e == 0 && w->list.n > n) {
        segment_name(&w->list.at[w->list.n - 1], name);
        e = w->disk->ops->remove(w->disk, name);
        if (e == 0)
            e = w->disk->ops->sync_dir(w->disk);
        if (e == 0)
            w->list.n--;
    }
    return e;
}

/* All of a segment, with nothing behind it, when what is behind it did not fit; otherwise the one
 * before it, and the header of that says what it begins with. Returns 0 or -EUCLEAN, and how many
 * segments stay. */
static int choose(const struct widen *w, const struct log_origin *origin, struct log_damage *m,
                  size_t *ret_keep)
{
    /* One that was asked for by its end alone, which does not fit, is begun anew by its header. */
    const bool whole = m->from == m->first && (m->linked || !m->anchored);
    size_t i = w->keep;
    struct segment_header header;
    const struct segment *s;

    while (i > 0 && w->list.at[i - 1].first > m->first)
        i--;
    *ret_keep = i;
    if (whole && m->anchored) {
        m->anchored = false;
        m->rest = 0;
        return m->linked && m->first > origin->index ? 0 : -EUCLEAN;
    }
    if (i > 0 && whole && w->list.at[i - 1].first == m->first)
        i--;
    if (i == 0 || w->list.at[i - 1].first <= origin->index)
        return -EUCLEAN;
    s = &w->list.at[i - 1];
    /* It may have been cut behind its seal, and become the last one since. */
    if (read_header(w->disk, s, false, w->buf, &header) <= 0)
        return -EUCLEAN;
    *m = (struct log_damage){ .epoch = s->epoch,
                              .first = s->first,
                              .from = s->first,
                              .to = m->to,
                              .offset = LOG_ALIGN,
                              .segment_bytes = header.segment_bytes,
                              .previous_first = header.previous_first,
                              .linked = true };
    memcpy(m->before, header.before, SHA256_BYTES);
    *ret_keep = i;
    return 0;
}

static int widen(struct widen *w, const struct log_origin *origin, struct log_damage *damage)
{
    struct log_damage m = *damage;
    size_t keep = 0;
    int e =
        twoslot_open(&w->mark_file, w->disk, SEGMENT_MARK, MARK_MAGIC, &w->mark, sizeof w->mark);

    if (e < 0)
        return e;
    w->keep = w->list.n;
    while (w->mark.cut_from != 0 && w->keep > 0 &&
           w->list.at[w->keep - 1].first >= w->mark.cut_from)
        w->keep--;
    e = choose(w, origin, &m, &keep);
    if (e == 0)
        e = w->mark.cut_from == 0 ? claim_last(w) : 0;
    if (e < 0)
        return e;
    claim(w, m.to);
    claim(w, w->mark.durable);
    e = keep_segments(w, w->keep);
    w->mark = (struct mark){ .durable = w->claimed };
    if (e == 0)
        e = twoslot_write(&w->mark_file, &w->mark, sizeof w->mark);
    if (e == 0)
        e = keep_segments(w, keep);
    if (e < 0)
        return e;
    m.last = true;
    m.to = w->claimed;
    assert(m.linked && !m.anchored && m.to >= damage->to && m.first <= damage->first);
    *damage = m;
    return 0;
}

int log_damage_widen(struct disk *d, const struct log_origin *origin, struct log_damage *damage)
{
    struct widen w = { .disk = d, .buf = aligned_alloc(LOG_ALIGN, SCAN_BYTES) };
    int e = w.buf != NULL ? segment_list_read(&w.list, d) : -ENOMEM;

    assert(damage->first > 0);
    w.mark_file.file = -1;
    if (e == 0) {
        e = widen(&w, origin, damage);
        twoslot_close(&w.mark_file);
        segment_list_fini(&w.list);
    }
    free(w.buf);
    return e;
}
