/*
 * recover.c - log_open(): reads what is there, and decides between a torn write and rot.
 *
 * A segment exists only after all before it was durable, so only the last one can hold a torn
 * write. In it, let i be the index of the first record that is bad or missing. It was durable once
 * if the mark says so, or if any whole record header behind it does: then it is rot, and the start
 * is refused with nothing changed, and what is bad is said in a way that lets it be mended from
 * other nodes (damage.c). Otherwise nobody was ever told that it is durable: it and all
 * behind it are cut, whatever they look like.
 *
 * Everything is decided before anything is changed.
 */
#include "cluster/log_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct recover {
    struct log *l;
    log_replay_fn replay;
    void *arg;
    char *error;
    void *buf;
    size_t keep; /* segments that an interrupted cut leaves */
    struct scan scan;
    struct scan_rest rest;
    /* Behind the last good record. */
    uint64_t index, term, time_ns; /* index: of the next */
    uint8_t digest[SHA256_BYTES];
    uint64_t previous_first;
    struct log_damage *damage;
};

__attribute__((format(printf, 3, 4))) static int refuse(struct recover *r, int e,
                                                        const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(r->error, LOG_ERROR_BYTES, format, args);
    va_end(args);
    return e;
}

/* Refuses for what lies in the segment that is being scanned. */
static int refuse_here(struct recover *r, const char *why, const char *proof)
{
    char name[SEGMENT_NAME_BYTES];

    assert(why != NULL && proof != NULL);
    segment_name(&r->scan.segment, name);
    return refuse(r, -EILSEQ,
                  "%s, offset %" PRIu64 ", record %" PRIu64
                  ": %s; it was durable once (%s), so this is rot and not a torn write",
                  name, r->scan.offset, r->scan.index, why, proof);
}

/* What is known where segment s should begin. */
static struct damage_place place_of(const struct recover *r, size_t i)
{
    const struct log *l = r->l;
    struct damage_place p = {
        .at = l->segments.at,
        .i = i,
        .keep = r->keep,
        .durable = l->mark.durable > l->origin.index ? l->mark.durable : l->origin.index,
        .segment_bytes = l->config.segment_bytes,
        .linked = i >= r->keep || r->index == l->segments.at[i].first,
        .term = r->term,
        .time_ns = r->time_ns,
    };

    memcpy(p.before, r->digest, SHA256_BYTES);
    return p;
}

/* The error e, unless the disk cannot even be asked what it is about. */
static int note(struct recover *r, int e, int asked)
{
    return asked < 0 ? refuse(r, asked, "%s", strerror(-asked)) : e;
}

/* All of the segment has to be made anew. */
static int note_segment(struct recover *r, int e, const struct segment *s)
{
    struct damage_place p = place_of(r, (size_t)(s - r->l->segments.at));

    if (e != -EILSEQ)
        return e;
    ahead_drop(&r->scan.ahead); /* the buffer is needed */
    return note(r, e, damage_of_segment(r->l->disk, &p, r->buf, r->damage));
}

/* Records from index `first` on are in no segment; next: the one behind, NULL: there is none. */
static int note_missing(struct recover *r, int e, uint64_t first, const struct segment *next)
{
    struct damage_place p = place_of(r, r->keep);
    uint64_t to = next != NULL ? next->first - 1 : p.durable;

    p.linked = first == r->index;
    if (e >= 0 || to < first)
        return e;
    ahead_drop(&r->scan.ahead);
    return note(r, e, damage_missing(r->l->disk, &p, first, to, next, r->buf, r->damage));
}

/* Where the segment before s ends, which was not read; or the log begins. Returns 1, 0: it is bad,
 * too; or the disk's error. */
static int end_before(struct recover *r, const struct segment *s, struct damage_place *p,
                      uint64_t *ret)
{
    const struct record_header *h;
    struct scan scan;
    int e;

    p->linked = true;
    if (s == r->l->segments.at) {
        p->term = p->time_ns = 0;
        memcpy(p->before, r->l->origin.index == 0 ? r->l->origin.digest : r->l->config.genesis,
               SHA256_BYTES);
        *ret = 1;
        return 1;
    }
    e = scan_open(&scan, r->l->disk, s - 1, false, r->buf);
    if (e < 0)
        return e == -EILSEQ ? 0 : e;
    while (scan_next(&scan, &h) == SCAN_RECORD) {
    }
    e = scan.ended;
    *ret = scan.index;
    p->term = scan.term;
    p->time_ns = scan.time_ns;
    memcpy(p->before, scan.digest, SHA256_BYTES);
    scan_close(&scan);
    return e;
}

/* One segment or more are gone in front of s: from the first of them on, so that each gets to know
 * the one before it. */
static int note_gap(struct recover *r, int e, const struct segment *s)
{
    struct damage_place p = place_of(r, r->keep);
    uint64_t first = 0;
    int asked;

    ahead_drop(&r->scan.ahead); /* the buffer is needed */
    asked = end_before(r, s, &p, &first);
    if (asked < 0)
        return note(r, e, asked);
    if (asked == 0 || first >= s->first)
        return note_missing(r, e, r->scan.header.previous_first, s);
    return note(r, e, damage_missing(r->l->disk, &p, first, s->first - 1, s, r->buf, r->damage));
}

/* From the place on where the scan stands. */
static int note_here(struct recover *r, int e, const struct segment *next)
{
    uint64_t durable = place_of(r, r->keep).durable;
    bool next_is_last = next != NULL && next == &r->l->segments.at[r->keep - 1];

    if (next == NULL && r->rest.durable > durable && r->l->mark.cut_from == 0)
        durable = r->rest.durable;
    if (e >= 0 || (next != NULL ? next->first <= r->scan.index : durable < r->scan.index))
        return e;
    return note(r, e, damage_in_segment(&r->scan, next, next_is_last, durable, r->damage));
}

static uint64_t mark_durable(const struct log *l)
{
#ifdef PLANT_LOG_NO_MARK
    return 0;
#endif
    return l->mark.durable;
}

static int check_names(struct recover *r)
{
    const struct segment_list *list = &r->l->segments;
    char name[SEGMENT_NAME_BYTES];

    if (list->wrong[0] != '\0')
        return refuse(r, -EILSEQ, "%s: not the name of a segment", list->wrong);
    for (size_t i = 1; i < list->n; i++) {
        segment_name(&list->at[i], name);
        if (list->at[i].first == list->at[i - 1].first)
            return refuse(r, -EILSEQ, "%s: a second segment that begins at index %" PRIu64, name,
                          list->at[i].first);
    }
    if (list->n > 0 && !list->has_mark)
        return refuse(r, -EILSEQ, "%s: the mark is missing although there are segments",
                      SEGMENT_MARK);
    return 0;
}

static int open_mark(struct recover *r)
{
    struct log *l = r->l;
    int e =
        twoslot_open(&l->mark_file, l->disk, SEGMENT_MARK, MARK_MAGIC, &l->mark, sizeof l->mark);

    if (e == -EILSEQ)
        return refuse(r, e, "%s, offset 0: both copies of the mark are bad", SEGMENT_MARK);
    if (e < 0)
        return refuse(r, e, "%s: %s", SEGMENT_MARK, strerror(-e));
    if (l->mark.cut_from != 0 && l->mark.cut_from != l->mark.durable + 1)
        return refuse(r, -EILSEQ, "%s, offset 0: the mark contradicts itself", SEGMENT_MARK);
    return 0;
}

static int open_segment(struct recover *r, struct segment *s)
{
    char name[SEGMENT_NAME_BYTES];
    bool last = s == &r->l->segments.at[r->keep - 1];
    int e = scan_open(&r->scan, r->l->disk, s, last, r->buf);

    segment_name(s, name);
    if (e == -EILSEQ) {
        refuse(r, e, "%s, offset 0, record %" PRIu64 ": %s", name, s->first, r->scan.why);
        return note_segment(r, e, s);
    }
    if (e < 0)
        return refuse(r, e, "%s: %s", name, strerror(-e));
    s->bytes = r->scan.segment.bytes;
    if (r->scan.header.previous_first != 0 && r->scan.header.previous_first != r->previous_first) {
        e = refuse(r, -EILSEQ,
                   "%s, offset 0, record %" PRIu64 ": the segment before it, which begins at index "
                   "%" PRIu64 ", is missing",
                   name, s->first, r->scan.header.previous_first);
        e = note_gap(r, e, s);
    }
    r->previous_first = s->first;
    if (e < 0)
        scan_close(&r->scan);
    return e;
}

/* Segments wholly below the origin: there, and the right ones? Returns the first to be read: the
 * one with the origin's record, since a cut just behind that reads it (cut.c), and rot there must
 * be met here, where it is mended. */
static int check_below_origin(struct recover *r, size_t *ret_first)
{
    struct segment *at = r->l->segments.at;
    uint64_t next = r->l->origin.index + 1;
    size_t i = 0;
    int e;

    if (r->keep > 0 && at[0].first > next) {
        e = open_segment(r, &at[0]); /* which says whether there was another before it */
        if (e < 0)
            return e;
        scan_close(&r->scan);
        e = refuse(r, -EILSEQ,
                   "the log begins at index %" PRIu64 ": the segment with record %" PRIu64
                   " is missing",
                   at[0].first, next);
        return note_missing(r, e, next, &at[0]);
    }
    assert(r->keep <= r->l->segments.n);
    for (; i + 1 < r->keep && at[i + 1].first < next; i++) {
        e = open_segment(r, &at[i]);
        if (e < 0)
            return e;
        scan_close(&r->scan);
    }
    *ret_first = i;
    return 0;
}

/* One good record. */
static int on_record(struct recover *r, const struct record_header *h)
{
    const struct log_origin *o = &r->l->origin;
    struct log_record record;

    if (h->agreed.index == o->index && memcmp(r->scan.digest, o->digest, SHA256_BYTES) != 0)
        return refuse_here(r, "the log differs from the checkpoint", "the checkpoint has it");
    if (h->agreed.index <= o->index || r->replay == NULL)
        return 0;
    record_decode(h, &record);
    return r->replay(r->arg, &record, h + 1);
}

/* Reads the open segment as far as it is good, or up to where a cut began. */
static int read_segment(struct recover *r, enum scan_result *ret)
{
    const struct record_header *h;
    uint64_t stop = r->l->mark.cut_from;
    int e = 0;

    *ret = SCAN_RECORD;
    while (e == 0 && *ret == SCAN_RECORD && (stop == 0 || r->scan.index < stop)) {
        *ret = scan_next(&r->scan, &h);
        if (*ret == SCAN_RECORD)
            e = on_record(r, h);
    }
    if (r->scan.index > r->scan.segment.first) {
        r->index = r->scan.index;
        r->term = r->scan.term;
        r->time_ns = r->scan.time_ns;
        memcpy(r->digest, r->scan.digest, SHA256_BYTES);
    }
    return e;
}

/* Does the open segment continue what was read before it? first: nothing was. */
static int check_link(struct recover *r, bool first)
{
    const struct log_origin *o = &r->l->origin;

    if (first && r->scan.index <= o->index) {
        r->index = r->scan.index;
        return 0; /* its own header says what it links to; the origin is checked inside it */
    }
    if (first && r->scan.index == o->index + 1)
        memcpy(r->digest, o->digest, SHA256_BYTES);
    if (memcmp(r->scan.header.before, r->digest, SHA256_BYTES) != 0)
        return refuse_here(r, "the segment does not link to the record before it",
                           "a segment begins when all before it is durable");
    /* Terms and times go on from the segment before. */
    r->scan.term = r->term;
    r->scan.time_ns = r->time_ns;
    return 0;
}

/* A segment that is not the last ends where the next begins. */
static int check_whole(struct recover *r, enum scan_result result, const struct segment *next)
{
    char proof[80];

    assert(next->first > r->scan.segment.first);
    snprintf(proof, sizeof proof, "a later segment begins at index %" PRIu64, next->first);
    if (result == SCAN_BAD)
        return note_here(r, refuse_here(r, r->scan.why, proof), next);
    if (result == SCAN_NONE)
        return note_here(r, refuse_here(r, "the record is missing", proof), next);
    if (r->scan.index < next->first)
        return note_missing(r, refuse_here(r, "the segment with this record is missing", proof),
                            r->scan.index, next);
    if (r->scan.index != next->first)
        return refuse_here(r, "a later segment begins before it", proof);
    return 0;
}

/* What was durable is bad: how can it be mended? */
static int note_tail(struct recover *r, int e, enum scan_result result)
{
#ifdef PLANT_REPAIR_CUTS
    return 0; /* the planted bug: it is cut as a torn write would be */
#endif
    if (result == SCAN_ENDED)
        return note_missing(r, e, r->scan.index, NULL);
    return note_here(r, e, NULL);
}

/* The last segment, from its first bad or missing record on: torn or rotten? */
static int judge_tail(struct recover *r, enum scan_result result)
{
    const char *why = result == SCAN_BAD ? r->scan.why : "the record is missing";
    uint64_t i = r->scan.index, durable = mark_durable(r->l);
    char proof[80];

    scan_rest(&r->scan, &r->rest);
    assert(r->rest.dirty_end >= r->scan.offset);
    if (durable >= i) {
        snprintf(proof, sizeof proof, "the mark says %" PRIu64, durable);
        return note_tail(r, refuse_here(r, why, proof), result);
    }
    if (r->l->mark.cut_from == 0 && r->rest.durable >= i) {
        snprintf(proof, sizeof proof, "a later record says %" PRIu64, r->rest.durable);
        return note_tail(r, refuse_here(r, why, proof), result);
    }
    if (result == SCAN_BAD && i <= r->l->origin.index)
        return note_tail(r, refuse_here(r, why, "the checkpoint has it"), result);
    return 0;
}

static int read_segments(struct recover *r)
{
    struct segment *at = r->l->segments.at;
    enum scan_result result;
    size_t first = 0;
    int e = check_below_origin(r, &first);

    for (size_t i = first; e == 0 && i < r->keep; i++) {
        if (i > first)
            scan_close(&r->scan);
        e = open_segment(r, &at[i]);
        if (e == 0) {
            e = check_link(r, i == first);
            e = note_segment(r, e, &at[i]);
        }
        if (e == 0)
            e = read_segment(r, &result);
        if (e == 0 && i + 1 < r->keep)
            e = check_whole(r, result, &at[i + 1]);
        else if (e == 0)
            e = judge_tail(r, result);
    }
    if (e == 0 && r->keep == 0 && mark_durable(r->l) >= r->index)
        e = refuse(r, -EILSEQ,
                   "the log has vanished: there is no segment, but the mark says that record "
                   "%" PRIu64 " was durable",
                   mark_durable(r->l));
    if (e == 0 && r->index <= r->l->origin.index) {
        e = refuse(r, -EUCLEAN,
                   "the log ends at index %" PRIu64 ", before the checkpoint at %" PRIu64,
                   r->index - 1, r->l->origin.index);
        if (r->keep > 0)
            e = note_tail(r, e, r->scan.ended ? SCAN_ENDED : SCAN_NONE);
    }
    return e;
}

/* The last segment is going to be removed. */
static int make_last(struct recover *r, struct segment *s)
{
    struct scan scan;
    int e;

    ahead_drop(&r->scan.ahead); /* it shares the buffer, and is done */
    e = scan_open(&scan, r->l->disk, s, false, r->buf);

    if (e < 0)
        return e;
    assert(scan.header.epoch == s->epoch && scan.header.first == s->first);
    e = cut_make_full(r->l, &scan, s);
    scan_close(&scan);
    return e;
}

/* What has to go: what a cut left over, a torn tail, a segment that has no record yet (its name
 * holds an epoch that may no longer be the next record's). */
static int cut_rest(struct recover *r)
{
    struct log *l = r->l;
    bool empty = r->keep > 0 && r->scan.index == r->scan.segment.first;
    struct cut c = { .from = r->index, .keep = r->keep - empty, .file = -1 };
    int e = 0;

    assert(r->index > l->origin.index); /* cutting what a checkpoint holds was refused */
    if (r->keep > 0 && !empty) {
        c.file = r->scan.file;
        c.offset = r->scan.offset;
        /* A cut that was interrupted may have left a file with holes, see cut.c. */
        c.dirty_end = l->mark.cut_from != 0 ? r->scan.segment.bytes : r->rest.dirty_end;
    }
    if (empty && c.keep > 0)
        e = make_last(r, &l->segments.at[c.keep - 1]);
    if (e == 0 && (l->mark.cut_from != 0 || c.keep < l->segments.n || c.offset < c.dirty_end))
        e = cut_run(l, &c);
    if (e == 0 && l->segments.has_next)
        e = l->disk->ops->remove(l->disk, SEGMENT_NEXT);
    if (e == 0 && l->segments.has_repair)
        e = l->disk->ops->remove(l->disk, SEGMENT_REPAIR);
    /* Also makes durable what was read, should a process have died before its writes completed. */
    if (e == 0)
        e = l->disk->ops->sync_dir(l->disk);
    if (e < 0)
        return refuse(r, e, "cannot cut the end of the log at index %" PRIu64 ": %s", c.from,
                      strerror(-e));
    if (c.file >= 0) {
        l->tail = (struct tail){ .file = scan_take_file(&r->scan),
                                 .seed = r->scan.seed,
                                 .offset = r->scan.offset,
                                 .bytes = r->scan.segment.bytes,
                                 .ended = r->scan.ended,
                                 .sealed = r->scan.sealed };
    }
    return 0;
}

static int recover(struct recover *r)
{
    struct log *l = r->l;
    int e = segment_list_read(&l->segments, l->disk);

    if (e < 0)
        return refuse(r, e, "cannot list the directory: %s", strerror(-e));
    e = check_names(r);
    if (e == 0)
        e = open_mark(r);
    if (e < 0)
        return e;
    r->keep = l->segments.n;
    while (l->mark.cut_from != 0 && r->keep > 0 &&
           l->segments.at[r->keep - 1].first >= l->mark.cut_from)
        r->keep--;
    e = read_segments(r);
    if (e == 0)
        e = cut_rest(r);
    scan_close(&r->scan);
    if (e != 0)
        return e;
    assert(r->index > l->origin.index && l->mark.cut_from == 0);
    l->last_index = l->persisted = r->index - 1;
    l->last_term = r->term;
    l->last_time_ns = r->time_ns;
    memcpy(l->digest, r->digest, SHA256_BYTES);
    return 0;
}

static int make_log(struct log **ret, struct disk *d, const struct log_config *config,
                    const struct log_origin *origin)
{
    struct log *l = calloc(1, sizeof *l);

    if (l == NULL)
        return -ENOMEM;
    l->disk = d;
    l->config = *config;
    l->origin = *origin;
    l->tail = (struct tail){ .file = -1, .ended = true };
    l->next_file = l->mark_file.file = -1;
    l->free_bytes = FREE_UNCHECKED;
    l->zeros = aligned_alloc(LOG_ALIGN, PREPARE_BYTES);
    l->page = aligned_alloc(LOG_ALIGN, LOG_ALIGN);
    if (l->zeros == NULL || l->page == NULL) {
        log_close(l);
        return -ENOMEM;
    }
    memset(l->zeros, 0, PREPARE_BYTES);
    *ret = l;
    return 0;
}

int log_open(struct log **ret, struct disk *d, const struct log_config *config,
             const struct log_origin *origin, log_replay_fn replay, void *arg,
             char error[LOG_ERROR_BYTES])
{
    struct log_damage damage;

    return log_open_damage(ret, d, config, origin, replay, arg, error, &damage);
}

int log_open_damage(struct log **ret, struct disk *d, const struct log_config *config,
                    const struct log_origin *origin, log_replay_fn replay, void *arg,
                    char error[LOG_ERROR_BYTES], struct log_damage *damage)
{
    struct recover r = {
        .replay = replay, .arg = arg, .error = error, .scan = { .file = -1 }, .damage = damage
    };
    int e;

    assert(config->writes_max > 0 && config->segment_bytes % LOG_ALIGN == 0);
    assert(config->segment_bytes >= SEGMENT_BYTES_MIN &&
           config->segment_bytes <= SEGMENT_BYTES_MAX);
    error[0] = '\0';
    *damage = (struct log_damage){ 0 };
    e = make_log(&r.l, d, config, origin);
    if (e < 0)
        return refuse(&r, e, "out of memory");
    r.index = origin->index + 1;
    r.term = origin->term;
    r.time_ns = origin->time_ns;
    memcpy(r.digest, origin->digest, SHA256_BYTES);
    r.buf = aligned_alloc(LOG_ALIGN, SCAN_BYTES);
    e = r.buf != NULL ? recover(&r) : refuse(&r, -ENOMEM, "out of memory");
    free(r.buf);
    if (e != 0) {
        log_fail(r.l, e < 0 ? e : -ECANCELED); /* so that closing writes no mark */
        log_close(r.l);
        return e;
    }
    *ret = r.l;
    return 0;
}
