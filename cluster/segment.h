/*
 * segment.h - a segment file: its name and its first 4 KiB.
 *
 *   name: <epoch>-<first index>.seg, 16 hex digits each; epoch = term >> 20 of the first record
 *
 *   0                  4096
 *   | segment header   | records, each on a 4 KiB boundary ... | zeros to segment_bytes |
 *
 * A segment gets its name only after everything before its first record is durable: that it exists
 * is proof that all records below its first index once were. Until then it is `next.tmp`.
 *
 * When a segment that a LOG_SEAL record ends has been left for the next one, its file is cut behind
 * that record: the rest would only hold space. So a file is as long as its header says, or, unless
 * it is the last segment's, ends with its LOG_SEAL record; no other length is right.
 *
 * It ends after a LOG_SEAL record, or when less than LOG_RECORD_BYTES_MAX is left behind a record.
 * Both are facts of the content, known when the record is appended.
 */
#ifndef SLUICE_CLUSTER_SEGMENT_H
#define SLUICE_CLUSTER_SEGMENT_H

#include "cluster/record.h"

#define SEGMENT_MAGIC      0x474553454349554cull /* "LUICESEG" */
#define SEGMENT_VERSION    1u
#define SEGMENT_BYTES_MIN  (1ull << 20)
#define SEGMENT_BYTES_MAX  (1ull << 36)
#define SEGMENT_NAME_BYTES 40u
#define SEGMENT_NEXT       "next.tmp"   /* being prepared */
#define SEGMENT_REPAIR     "repair.tmp" /* being made anew */
#define SEGMENT_MARK       "mark"
#define TERM_EPOCH_SHIFT   20

struct segment_header {
    uint64_t magic;
    uint32_t crc; /* of the 4 KiB, this field as zero */
    uint32_t version;
    uint64_t epoch;
    uint64_t first;
    uint64_t previous_first; /* of the segment before; 0: not known */
    uint64_t segment_bytes;
    uint8_t before[SHA256_BYTES]; /* digest of record first - 1 */
    uint8_t zero[4016];
};
_Static_assert(sizeof(struct segment_header) == LOG_ALIGN, "stored");

/* One in memory. */
struct segment {
    uint64_t epoch, first;
    uint64_t bytes; /* size of its file, once it was opened */
};

static inline uint64_t segment_epoch(uint64_t term) { return term >> TERM_EPOCH_SHIFT; }

/* Does a segment end behind a record of this type that ends at offset? */
static inline bool segment_ends(uint64_t segment_bytes, uint64_t offset, uint32_t type)
{
    assert(offset <= segment_bytes);
    return type == LOG_SEAL || segment_bytes - offset < LOG_RECORD_BYTES_MAX;
}

void segment_name(const struct segment *s, char ret[SEGMENT_NAME_BYTES]);

/* Returns 1 for a segment's name, 0 for another kind of file, -EINVAL for `*.seg` that is none. */
int segment_parse_name(const char *name, struct segment *ret);

void segment_encode(struct segment_header *h, const struct segment *s, uint64_t previous_first,
                    uint64_t segment_bytes, const uint8_t before[SHA256_BYTES]);

/* Returns NULL or what is wrong. file_bytes is the file's size. */
const char *segment_check(const struct segment_header *h, const struct segment *s,
                          uint64_t file_bytes);

/* Reads the header of an open segment file of s->bytes bytes into ret and checks it, and the file's
 * length: whole, or (unless s is the last segment) cut behind the record that sealed it. page is
 * LOG_ALIGN bytes, aligned to that. Returns 0, -EILSEQ or the disk's error; ret_why then says what
 * is wrong. */
int segment_read(struct disk *d, int file, const struct segment *s, bool last, void *page,
                 struct segment_header *ret, const char **ret_why);

/* The segments of a directory, in order of first index. */
struct segment_list {
    struct segment *at;
    size_t n, room;
    char wrong[64]; /* a name that ends in .seg and is none; "" if there was none */
    bool has_mark, has_next, has_repair;
};

/* Returns 0 or a negative errno. */
int segment_list_read(struct segment_list *list, struct disk *d);
int segment_list_add(struct segment_list *list, struct segment s);
void segment_list_fini(struct segment_list *list);

#endif
