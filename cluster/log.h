/*
 * log.h - the durable log: segment files of hash-chained records on one disk.
 *
 * A segment file `<epoch>-<first index>.seg` (16 hex digits each) is preallocated with zeros and
 * only ever appended to; one that a LOG_SEAL has ended is cut to its content once the next one has
 * begun. Its first 4 KiB are the segment header; every record starts on a 4 KiB
 * boundary:
 *
 *   | record header, 160 bytes | payload | zeros to the next 4 KiB boundary |
 *
 * so no two writes ever touch one 4 KiB block. The header has two parts: what the whole cluster
 * agrees on (covered by the chain: index, term, type, time, payload length, payload SHA-256, and
 * the digest of the record before), and what is this node's own (the highest index that was durable
 * here when the record was written; the CRCs). h[i] = SHA-256(h[i-1] || agreed part of record i),
 * where h[0] is SHA-256 of the cluster id. A record is valid only if it links to the one before.
 *
 * Thread:  the owner of struct log only (the cluster thread); struct log_reader is for other
 * threads. Memory:  append borrows the caller's buffer until the write's callback. Errors:  any
 * write error is final: log_append() and log_do_work() then return it for ever, and the node must
 * stop. ENOSPC comes from log_reserve() only, before anything was changed.
 */
#ifndef SLUICE_CLUSTER_LOG_H
#define SLUICE_CLUSTER_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "cluster/disk.h"

#define LOG_ALIGN            4096u
#define LOG_HEADER_BYTES     160u
#define LOG_RECORD_BYTES_MAX (256u * 1024u)
#define LOG_ERROR_BYTES      512u

/* Entry types. BARRIER and CHANGE are the engine's, too; the others are its COMMAND. */
enum log_type {
    LOG_EVENTS = 1,  /* a block (cluster/block.h) */
    LOG_SETTING = 2, /* sluice.v1.Setting */
    LOG_GENESIS = 3, /* sluice.v1.Genesis */
    LOG_SEAL = 4,    /* empty: the segment ends after this record */
    LOG_BARRIER = 5, /* empty */
    LOG_CHANGE = 6,  /* the engine's encoded configuration */
    LOG_AUDIT = 7,   /* sluice.v1.Audit */
    LOG_TYPE_END
};

struct log_record {
    uint64_t index;
    uint64_t term;
    uint64_t time_ns; /* record time: Unix, never below the record before */
    uint32_t type;    /* enum log_type */
    uint32_t payload_bytes;
    uint8_t payload_sha256[SHA256_BYTES];
};

/* One append in flight; the caller's memory until done() ran. */
struct log_write {
    struct log_record record;
    uint32_t payload_crc;
    void *buf; /* 4 KiB aligned; payload at buf + LOG_HEADER_BYTES; room up to the next 4 KiB
                  boundary */
    void (*done)(struct log_write *w); /* durable, and all before it too; in index order */
    void *owner;
    /* the log's own */
    struct disk_write io;
    bool complete;
    struct log_write *next;
};

struct log_config {
    uint64_t segment_bytes; /* size of a segment file; the same on all nodes; >= 1 MiB, multiple of
                               4 KiB */
    uint64_t disk_free_bytes_min; /* log_reserve() refuses when less would be left free */
    uint32_t writes_max;          /* appends in flight */
    uint32_t mark_idle_ms; /* mark file is written this long after the last append completed */
    uint8_t genesis[SHA256_BYTES]; /* the chain's digest before record 1 */
};

/* Where a start begins: a checkpoint, or {index 0} and the digest of the cluster id. Records up to
 * index are trusted and not read. */
struct log_origin {
    uint64_t index, term, time_ns;
    uint8_t digest[SHA256_BYTES];
};

struct log;

/* Called in index order for every record above the origin. The payload is borrowed. Nonzero ends
 * log_open() with that value. */
typedef int (*log_replay_fn)(void *arg, const struct log_record *record, const void *payload);

/* Opens, checks and recovers the log on disk d: finishes an interrupted cut, cuts a torn tail,
 * refuses rot (and then has changed nothing but, at most, made the mark's two copies equal again).
 * Payloads are checked by CRC; their SHA-256 by log_verify() only. A directory with segments but
 * without a mark is refused: log_mark_init() is for tools that build one. The disk stays the
 * caller's, who ends it after log_close(). Returns 0; -EILSEQ for rot, -EUCLEAN for a log that does
 * not reach origin, another negative errno of the disk; error then says what is wrong, in which
 * file and at which offset. */
int log_open(struct log **ret, struct disk *d, const struct log_config *config,
             const struct log_origin *origin, log_replay_fn replay, void *arg,
             char error[LOG_ERROR_BYTES]);

/* Records that were durable here once, and are bad or gone: what a segment needs to be whole again.
 * At most one segment's, the first that was met: what else there is shows when that is mended. */
struct log_damage {
    uint64_t epoch, first; /* names the segment; first 0: nothing that could be mended */
    bool missing;          /* there is no such file, and its epoch is not known */
    bool last;             /* no segment is behind it */
    uint64_t from, to;     /* have to come from another node; from == to + 1: none of them */
    uint64_t offset;       /* of record `from`: all before it is good, unless from == first */
    uint64_t rest;         /* where record to + 1 is in the file; 0: what is behind is not used */
    uint64_t bytes;        /* of the file */
    uint32_t seed;         /* of the file's records, if from > first */
    uint64_t segment_bytes, previous_first;
    uint64_t term, time_ns;       /* of record from - 1; 0: not known */
    bool linked, anchored;        /* is this known? One of them is. */
    uint8_t before[SHA256_BYTES]; /* the chain's digest at from - 1 */
    uint8_t after[SHA256_BYTES];  /* and at `to` */
};

/* The same as log_open(); after -EILSEQ or -EUCLEAN damage says what other nodes could mend. */
int log_open_damage(struct log **ret, struct disk *d, const struct log_config *config,
                    const struct log_origin *origin, log_replay_fn replay, void *arg,
                    char error[LOG_ERROR_BYTES], struct log_damage *damage);

/* Looks at the segment of record index, which is not the last one. pace (may be NULL) is told how
 * many bytes were read since it was told last; false ends that: -ECANCELED. Returns 0; -EILSEQ: it
 * is bad, in the way that damage says; -ENOENT, or the disk's error. *ret_next (may be NULL): the
 * first index of the next one, 0: there is none. Beside the log's owner too, by a disk of its own;
 * what is being cut then may look bad. */
int log_check_segment(struct disk *d, uint64_t index, uint64_t segment_bytes,
                      bool (*pace)(void *arg, uint64_t bytes), void *arg, struct log_damage *damage,
                      uint64_t *ret_next);

/* What other nodes have committed does not go on where a segment that is not the last one is good:
 * an old copy of it may have come back, with records that were never committed. All of it has to
 * come then, and the segment behind it says whether it is right. Returns 0, -ENOENT: there is none
 * behind it, or that is asked for already; -ENOMEM or the disk's error. */
int log_damage_whole(struct disk *d, uint64_t segment_bytes, struct log_damage *damage);

/* Of a log that is not open: other nodes have committed other records than there are here in front
 * of the damage, or behind it. So those were never committed, and go; what took their places has to
 * come up to the highest index that may have been acknowledged from here, which the mark says from
 * now on. damage then is a whole segment, the last one: the one that it was in, or, if that was it
 * already, the one before. Returns 0, -EUCLEAN when that lies below the origin (nothing was
 * changed), -ENOMEM or the disk's error. */
int log_damage_widen(struct disk *d, const struct log_origin *origin, struct log_damage *damage);

/* Makes a segment anew, beside what is there: what is good of it, and records from elsewhere, which
 * have to fit the chain at both ends as far as those are known. A crash at any moment leaves the
 * old file or the new one. log_rebuild_step() copies a piece; it returns 1: again; 0:
 * log_rebuild_next() says which record it needs, or 0: log_rebuild_commit(). Each also returns the
 * disk's errors, -ENOSPC is one. log_rebuild_add() takes the next record; before: what its sender
 * says of the digest in front of it, NULL if it has sent that one, too. Returns 1: more; 0: there
 * is no more to add: it ended the segment, or was the last one needed; -EILSEQ: it does not fit the
 * chain. log_rebuild_commit() gives it the segment's name. log_rebuild_close() leaves things as
 * they were, before that. */
struct log_rebuild;
int log_rebuild_open(struct log_rebuild **ret, struct disk *d, const struct log_damage *damage);
int log_rebuild_step(struct log_rebuild *r);
uint64_t log_rebuild_next(const struct log_rebuild *r);
uint64_t log_rebuild_term(const struct log_rebuild *r); /* of the last one added */
int log_rebuild_add(struct log_rebuild *r, const uint8_t *before, const struct log_record *record,
                    const void *payload, uint32_t payload_crc);
int log_rebuild_commit(struct log_rebuild *r);
void log_rebuild_close(struct log_rebuild *r);

/* For tools that put segments into a directory that had no log: writes its mark, saying that all
 * up to durable is there. Returns 0, -EEXIST when there is a mark, or the disk's error. */
int log_mark_init(struct disk *d, uint64_t durable);

/* Waits for the writes in flight, writes the mark. Safe on NULL. */
void log_close(struct log *l);

/* Makes sure that a record of payload_bytes can be appended now without needing new space. Returns
 * 0; -ENOSPC (disk full: refuse the event, try again later; log_do_work() looks at the disk again
 * every 100 ms), -EAGAIN (writes_max in flight; or the last segment has ended, and the next is
 * being prepared or writes are still in flight: call log_do_work() and try again), or the final
 * error. Changes nothing. A new, empty log says -EAGAIN until its first segment is prepared. */
int log_reserve(struct log *l, uint32_t payload_bytes);

/* Fills payload_crc and record.payload_sha256 from buf and record.payload_bytes, as log_append()
 * needs them. Any thread. */
void log_write_seal(struct log_write *w);

/* The same for an entry of the node's own (a barrier, a setting): it may use what
 * disk_free_bytes_min keeps from events. */
int log_reserve_own(struct log *l, uint32_t payload_bytes);

/* Queues the record w->record.index = log_last_index() + 1, after a log_reserve() that said 0 for
 * each single append; term and time not below the last record's; log_write_seal() was done.
 * Writes the record's header in front of the payload and zeros behind it. Borrows w and w->buf
 * until w->done; after an error done never runs, and log_close() ends the borrowing. Begins the
 * next segment when the last one has ended: that takes the latency of two synchronous writes of the
 * disk (header; name), once a segment, and that of cutting the file of one that was sealed. Returns
 * 0 or the final error. */
int log_append(struct log *l, struct log_write *w);

/* Hands queued writes to the disk in one submission, collects completions, prepares segments,
 * writes the mark when idle. now_ns is monotonic. Returns the number of things done, or the final
 * error. The mark is written on this thread (two synchronous writes), but only when nothing has
 * been in flight for mark_idle_ms: the cost falls on an event that comes at that very moment. */
int log_do_work(struct log *l, uint64_t now_ns);

/* The same, but blocks until one thing in flight has completed, if anything is. */
int log_wait(struct log *l, uint64_t now_ns);

/* When log_do_work() wants to be called again if nothing completes (monotonic ns), UINT64_MAX:
 * never. */
uint64_t log_deadline_ns(const struct log *l);

uint64_t log_last_index(const struct log *l); /* appended */
uint64_t log_last_term(const struct log *l);
uint64_t log_last_time_ns(const struct log *l);
uint64_t log_persisted_index(const struct log *l); /* durable, and all before it */
uint64_t log_first_index(const struct log *l);
void log_digest(const struct log *l, uint8_t ret[SHA256_BYTES]); /* of the last record appended */

/* True when the last record appended ended its segment: the place for a checkpoint. A record ends
 * its segment if it is a LOG_SEAL, or if less than LOG_RECORD_BYTES_MAX is left in the file behind
 * it (segment_ends()). Known as soon as it is appended, and the same on every node that has the
 * same content from a segment's first record on. False for a log without a record. */
bool log_at_segment_end(const struct log *l);

/* First index of the segment that the next append goes to; the next index if it begins one. */
uint64_t log_segment_first(const struct log *l);

/* Bytes of segment files on disk. */
uint64_t log_disk_bytes(const struct log *l);

/* Removes records from index `from` to the end, durably; nothing may be in flight. Blocks for
 * reading the segment of record from - 1 and for writing zeros. Returns 0, -EINVAL (from is at or
 * below the origin, or beyond the end), -ENOMEM, -ENOSPC (a segment would need the space back that
 * it gave away when it was sealed; nothing was cut), or the final error; -EILSEQ: rot below `from`,
 * nothing was cut. */
int log_truncate(struct log *l, uint64_t from);

/* Is there room to cut the log so, and to append a record behind it? Asked before anything is done
 * that the cut has to follow. Returns 0 or -ENOSPC. */
int log_cut_room(struct log *l, uint64_t from);

/* Reads and checks (both CRCs and the index; not the SHA-256) the record at index into buf (cap
 * bytes, 4 KiB aligned); *ret_payload points into buf. Returns 0, -ENOENT, -EILSEQ, -ENOBUFS or the
 * disk's error. Any thread may own a reader, while the log's owner goes on. Ask up to
 * log_persisted_index() only: a record whose write is in flight may be -ENOENT or -EILSEQ. What is
 * asked for in order is read ahead, so what is in memory may be older than a log_truncate(): it is
 * believed up to the bound that log_reader_bound() had told before it was read, and a record above
 * that is read anew. A segment that is met for the first time is walked up to the record, the ways
 * to the last few are kept. */
struct log_reader;
int log_reader_open(struct log_reader **ret, const char *dir);
/* On a disk that is open already; borrows it, and so belongs to its thread. */
int log_reader_open_on(struct log_reader **ret, struct disk *d);
void log_reader_close(struct log_reader *r);
/* No record up to this index is ever cut: the commit index, or what its owner knows. One that is
 * lower than before says nothing new. Where what was committed is cut all the same, after a forced
 * failover, a reader is closed (cluster_history()). */
void log_reader_bound(struct log_reader *r, uint64_t index);
int log_reader_get(struct log_reader *r, uint64_t index, void *buf, size_t cap,
                   struct log_record *ret, const void **ret_payload);
/* The CRC of the payload of the record that log_reader_get() has checked, and put into buf. */
uint32_t log_reader_crc(const void *buf);

/* What `sluice log verify` prints. */
struct log_verify_report {
    uint64_t segments, records, bytes, first_index, last_index;
    uint64_t events; /* in blocks */
    uint8_t digest[SHA256_BYTES];
    uint64_t problems;
    bool torn_tail; /* ends in a write that was never acknowledged: a start would cut it */
};

/* Checks everything under dir offline: every segment, record, CRC, SHA-256, block, the chain,
 * the mark and the node's state. Changes nothing. Calls problem() with one sentence (what, file,
 * offset, index) for each finding. Returns 0 if there was none, -EILSEQ if there was, -EBUSY while
 * a process has dir open, another negative errno if dir cannot be read. */
int log_verify(const char *dir, void (*problem)(void *arg, const char *sentence), void *arg,
               struct log_verify_report *ret);

/* The same on an open disk, without a log on it. */
int log_verify_disk(struct disk *d, void (*problem)(void *arg, const char *sentence), void *arg,
                    struct log_verify_report *ret);

#endif
