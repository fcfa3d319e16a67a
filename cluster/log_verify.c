/*
 * log_verify.c - the offline check of a whole log, with one sentence for each finding.
 *
 * Unlike a start it checks each payload's SHA-256, parses blocks, looks behind the records of
 * sealed segments, and at the node's state, and goes on with the next segment after a finding. It
 * changes nothing.
 *
 * Thread:  any.  Memory:  one buffer of SCAN_BYTES.
 */
#include "cluster/block.h"
#include "cluster/log_private.h"
#include "cluster/state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct verify {
    struct disk *disk;
    void (*problem)(void *arg, const char *sentence);
    void *arg;
    struct log_verify_report *report;
    struct segment_list list;
    struct mark mark;
    struct node_state state;
    struct scan scan;
    void *buf;
    /* Behind the last good record; linked: false after a finding that breaks the chain. */
    bool linked;
    uint64_t index, previous_first, term, time_ns;
    uint8_t digest[SHA256_BYTES];
};

__attribute__((format(printf, 2, 3))) static void found(struct verify *v, const char *format, ...)
{
    char sentence[LOG_ERROR_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    v->report->problems++;
    v->problem(v->arg, sentence);
}

static void found_here(struct verify *v, uint64_t offset, uint64_t index, const char *why)
{
    char name[SEGMENT_NAME_BYTES];

    segment_name(&v->scan.segment, name);
    found(v, "%s, offset %" PRIu64 ", record %" PRIu64 ": %s", name, offset, index, why);
}

static int read_mark(struct verify *v)
{
    int r = twoslot_peek(v->disk, SEGMENT_MARK, MARK_MAGIC, &v->mark, sizeof v->mark);

    if (r == -EILSEQ)
        found(v, "%s, offset 0: both copies of the mark are bad", SEGMENT_MARK);
    else if (r == 1)
        found(v, "%s: one of the two copies of the mark is bad; a start repairs it", SEGMENT_MARK);
    else if (r == -ENOENT && v->list.n > 0)
        found(v, "%s: the mark is missing although there are segments", SEGMENT_MARK);
    return r == -EILSEQ || r == -ENOENT || r > 0 ? 0 : r;
}

/* Term and vote. Tools make logs without it. */
static int read_state(struct verify *v)
{
    const uint8_t zero[sizeof v->state.zero] = { 0 };
    int r = twoslot_peek(v->disk, STATE_NAME, STATE_MAGIC, &v->state, sizeof v->state);

    if (r == -EILSEQ)
        r = twoslot_peek(v->disk, STATE_NAME, STATE_MAGIC, &v->state, STATE_BYTES_BEFORE);

    assert(v->report->records == 0);
    if (r == -EILSEQ) {
        found(v, "%s, offset 0: both copies of term and vote are bad; a node must not start",
              STATE_NAME);
    } else if (r == 1) {
        found(v, "%s: one of the two copies of term and vote is bad; a start repairs it",
              STATE_NAME);
    }
    if (r >= 0 && (v->state.term >> TERM_EPOCH_SHIFT == 0 || v->state.node == 0 ||
                   memcmp(v->state.zero, zero, sizeof zero) != 0))
        found(v, "%s, offset 0: it contradicts itself", STATE_NAME);
    return r == -EILSEQ || r == -ENOENT || r > 0 ? 0 : r;
}

static void check_record(struct verify *v, const struct record_header *h)
{
    uint64_t offset = v->scan.offset - record_bytes(h->agreed.payload_bytes);
    uint8_t digest[SHA256_BYTES];
    struct block_view view;

    v->report->records++;
    if (v->report->first_index == 0)
        v->report->first_index = h->agreed.index;
    v->report->last_index = h->agreed.index;
    sha256(digest, h + 1, h->agreed.payload_bytes, NULL, 0);
    if (memcmp(digest, h->agreed.payload_sha256, SHA256_BYTES) != 0)
        found_here(v, offset, h->agreed.index, "the payload's SHA-256 does not match");
    if (h->agreed.type != LOG_EVENTS)
        return;
    if (block_view(&view, h + 1, h->agreed.payload_bytes) < 0)
        found_here(v, offset, h->agreed.index, "the payload is not a block");
    else
        v->report->events += view.header->events;
}

static enum scan_result read_records(struct verify *v)
{
    const struct record_header *h;
    enum scan_result r = SCAN_RECORD;

    while (r == SCAN_RECORD && (v->mark.cut_from == 0 || v->scan.index < v->mark.cut_from)) {
        r = scan_next(&v->scan, &h);
        if (r == SCAN_RECORD)
            check_record(v, h);
    }
    return r;
}

/* A segment with another one behind it is whole, and zero behind its last record. */
static void check_whole(struct verify *v, enum scan_result r, uint64_t next_first)
{
    struct scan_rest rest;

    assert(v->scan.file >= 0);
    v->linked = false;
    if (r == SCAN_BAD)
        found_here(v, v->scan.offset, v->scan.index, v->scan.why);
    else if (r == SCAN_NONE)
        found_here(v, v->scan.offset, v->scan.index, "the record is missing");
    else if (v->scan.index != next_first)
        found_here(v, v->scan.offset, v->scan.index, "the segment with this record is missing");
    else
        v->linked = true;
    if (!v->linked)
        return;
    scan_rest(&v->scan, &rest);
    if (rest.dirty_end > v->scan.offset)
        found_here(v, rest.dirty_end - LOG_ALIGN, v->scan.index,
                   "the bytes behind the segment's last record are not zero");
}

/* The last segment: rot, or what a start would cut? */
static void check_tail(struct verify *v, enum scan_result r)
{
    struct scan_rest rest;
    uint64_t durable = v->mark.durable;

    assert(v->scan.file >= 0);
    scan_rest(&v->scan, &rest);
    if (v->mark.cut_from == 0 && rest.durable > durable)
        durable = rest.durable;
    if (durable >= v->scan.index)
        found_here(v, v->scan.offset, v->scan.index,
                   r == SCAN_BAD ? v->scan.why : "the record is missing");
    else
        v->report->torn_tail = rest.dirty_end > v->scan.offset;
}

static bool check_segment_link(struct verify *v)
{
    const struct segment_header *h = &v->scan.header;

    if (h->previous_first != 0 && h->previous_first != v->previous_first) {
        found_here(v, 0, v->scan.index, "the segment before it is missing");
        v->linked = false;
    }
    if (v->linked && memcmp(h->before, v->digest, SHA256_BYTES) != 0) {
        found_here(v, 0, v->scan.index, "the segment does not link to the record before it");
        v->linked = false;
    }
    return v->linked;
}

static int check_segment(struct verify *v, size_t i, size_t keep)
{
    struct segment *s = &v->list.at[i];
    char name[SEGMENT_NAME_BYTES];
    enum scan_result result;
    int r = scan_open(&v->scan, v->disk, s, i + 1 == keep, v->buf);

    assert(i < keep && keep <= v->list.n);
    segment_name(s, name);
    v->report->segments++;
    v->report->bytes += v->scan.segment.bytes;
    if (r == -EILSEQ)
        found(v, "%s, offset 0, record %" PRIu64 ": %s", name, s->first, v->scan.why);
    if (r < 0) {
        v->linked = false;
        v->previous_first = s->first;
        return r == -EILSEQ ? 0 : r;
    }
    if (check_segment_link(v)) {
        v->scan.term = v->term;
        v->scan.time_ns = v->time_ns;
    }
    v->previous_first = s->first;
    result = read_records(v);
    if (i + 1 < keep)
        check_whole(v, result, v->list.at[i + 1].first);
    else
        check_tail(v, result);
    assert(v->scan.index >= s->first);
    v->index = v->scan.index;
    v->term = v->scan.term;
    v->time_ns = v->scan.time_ns;
    memcpy(v->digest, v->scan.digest, SHA256_BYTES);
    scan_close(&v->scan);
    return 0;
}

static int check_all(struct verify *v)
{
    size_t keep = v->list.n;
    int r = read_mark(v);

    if (r == 0)
        r = read_state(v);
    assert(v->report->problems <= 3 && v->report->records == 0);
    if (v->list.wrong[0] != '\0')
        found(v, "%s: not the name of a segment", v->list.wrong);
    /* A cut was interrupted: what it removes is no longer part of the log. */
    while (v->mark.cut_from != 0 && keep > 0 && v->list.at[keep - 1].first >= v->mark.cut_from)
        keep--;
    v->report->torn_tail = keep < v->list.n;
    for (size_t i = 0; r == 0 && i < keep; i++) {
        if (i > 0 && v->list.at[i].first == v->list.at[i - 1].first)
            found(v, "two segments begin at index %" PRIu64, v->list.at[i].first);
        r = check_segment(v, i, keep);
    }
    if (r == 0 && keep == 0 && v->mark.durable > 0)
        found(v, "there is no segment, but the mark says that record %" PRIu64 " was durable",
              v->mark.durable);
    memcpy(v->report->digest, v->digest, SHA256_BYTES);
    return r;
}

int log_verify_disk(struct disk *d, void (*problem)(void *arg, const char *sentence), void *arg,
                    struct log_verify_report *ret)
{
    struct verify v = { .disk = d, .problem = problem, .arg = arg, .report = ret };
    int r = segment_list_read(&v.list, d);

    assert(problem != NULL);
    *ret = (struct log_verify_report){ 0 };
    v.scan.file = -1;
    v.buf = aligned_alloc(LOG_ALIGN, SCAN_BYTES);
    if (r == 0)
        r = v.buf != NULL ? check_all(&v) : -ENOMEM;
    free(v.buf);
    segment_list_fini(&v.list);
    if (r == 0 && ret->problems > 0)
        r = -EILSEQ;
    return r;
}

int log_verify(const char *dir, void (*problem)(void *arg, const char *sentence), void *arg,
               struct log_verify_report *ret)
{
    struct disk *d;
    int r = disk_uring_open_read(&d, dir);

    if (r < 0)
        return r;
    r = log_verify_disk(d, problem, arg, ret);
    d->ops->fini(d);
    return r;
}
