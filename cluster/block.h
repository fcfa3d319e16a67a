/*
 * block.h - a block: the events that enter the log as one entry.
 *
 * On disk (little-endian; every offset is from the payload's first byte):
 *
 *   0                64                          desc_offset
 *   | block_header   | event bytes, back to back, zeros to a multiple of 8 | block_desc[events] |
 *
 * Event bytes are what the producer sent, unchanged; where the producer gave no id, `1a 10` and the
 * 16 bytes of the assigned id are appended, which protobuf reads as the field. Enrichment is in
 * header and descriptor, and becomes Event.enrichment when an event is read.
 *
 * In memory `struct block` travels: worker (fills) -> cluster thread (admits, appends, commits) ->
 * worker (answers, frees). It has one owner at any time. The record header of cluster/log.h is
 * written in the LOG_HEADER_BYTES in front of the payload, so a block is never copied.
 */
#ifndef SLUICE_CLUSTER_BLOCK_H
#define SLUICE_CLUSTER_BLOCK_H

#include <assert.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"
#include "cluster/log.h"

#define BLOCK_MAGIC          0x4b4c4253u /* "SBLK" */
#define BLOCK_VERSION        1
#define BLOCK_BYTES_MAX      (256u * 1024u) /* record header and padding included */
#define BLOCK_PAYLOAD_MAX    (BLOCK_BYTES_MAX - LOG_HEADER_BYTES)
#define BLOCK_EVENTS_MAX     2048u
#define BLOCK_REQUESTS_MAX   512u
#define BLOCK_EXCEPTIONS_MAX 4096u
#define BLOCK_TYPES          128u /* event types are 0..127 */
#define ASSIGNED_ID_BYTES    16u

struct block_header {
    uint32_t magic;
    uint16_t version;
    uint16_t node; /* that has made it; 0: it was offered again, after a failover */
    uint32_t events;
    uint32_t desc_offset;
    uint64_t receive_time_ns; /* Unix time of the block's first event */
    uint8_t region;
    uint8_t zero[39];
};
_Static_assert(sizeof(struct block_header) == 64, "stored");

enum { DESC_ID_ASSIGNED = 0x10 }; /* desc.session_flags: low four bits are the session */

struct block_desc {
    struct key128 key;
    uint64_t timestamp_ns;
    uint32_t receive_delta_ns; /* after the header's receive_time_ns */
    uint32_t offset;
    uint16_t bytes;
    uint8_t type;
    uint8_t session_flags;
    uint32_t symbol_hash;
};
_Static_assert(sizeof(struct block_desc) == 40, "stored");

/* What became of an event; indexes struct block's verdict[]. */
enum verdict {
    VERDICT_COMMITTED = 0,
    VERDICT_DUPLICATE,
    VERDICT_CONFLICT,
    VERDICT_REFUSED,
    VERDICT_N,
};

enum block_transport { TRANSPORT_UDP = 1, TRANSPORT_TCP = 2 };

/* Who is to be answered for a run of events of this block. All events of a request are in one
 * block. */
struct block_request {
    uint64_t request;    /* repeated in the receipt */
    uint32_t connection; /* TCP: slot ... */
    uint32_t generation; /* ... and its generation: the slot may have a new tenant by then */
    uint32_t bytes;      /* UDP: the answer must not be larger */
    uint16_t first;      /* first event in original order */
    uint16_t events;     /* events of the request that are in this block */
    uint16_t positions;  /* events the request had, refused ones included */
    uint8_t transport;
    uint8_t durability;       /* enum Durability: REGION, or none in particular */
    struct sockaddr_in6 peer; /* UDP; IPv4 as a mapped address */
    struct in6_addr local;    /* UDP: whom it asked, and so who answers; ::, the socket's address */
};

struct block_exception {
    uint64_t first_index; /* DUPLICATE: where the first one is */
    uint16_t request;     /* index into request[] */
    uint16_t position;    /* in the request */
    uint16_t first_slot;
    uint16_t reason; /* enum Reason of wire.proto */
};

/* How a node that does not lead keeps a block that another one decides about (forward.c). */
struct block_forward {
    uint64_t id;         /* 0: it does not */
    uint64_t arrived_ns; /* from the worker, monotonic */
    uint64_t due_ns;     /* when it is sent, or sent again */
    uint64_t term;       /* in which it was sent */
    uint32_t delay_ms;   /* before it is sent again, when it was not taken */
    uint16_t to;         /* whose answer is waited for; 0: nobody's */
    bool sent, again;    /* at least once; more than once */
};

struct block {
    /* Set once. */
    uint8_t *buf; /* BLOCK_BYTES_MAX bytes, 4 KiB aligned: record header, payload */
    uint32_t worker;

    /* Filled by the worker, in the order of arrival ("original order"). */
    uint32_t events;          /* original count */
    uint32_t bytes;           /* cursor: header and event bytes so far, without descriptors;
                                 bytes + events * sizeof(block_desc) <= BLOCK_PAYLOAD_MAX */
    uint64_t opened_ns;       /* monotonic */
    uint64_t receive_time_ns; /* Unix */
    uint32_t requests;
    uint32_t exceptions;
    struct block_desc desc[BLOCK_EVENTS_MAX];
    uint64_t content[BLOCK_EVENTS_MAX];
    uint16_t position[BLOCK_EVENTS_MAX];   /* in its request */
    uint16_t request_of[BLOCK_EVENTS_MAX]; /* REQUEST_NONE: nobody is to be answered */
    uint8_t type[BLOCK_EVENTS_MAX];
    uint16_t by_type[BLOCK_TYPES];
    struct block_request request[BLOCK_REQUESTS_MAX];
    struct block_exception exception[BLOCK_EXCEPTIONS_MAX];

    /* Filled by the cluster thread. */
    uint8_t verdict[BLOCK_EVENTS_MAX]; /* by original order */
    uint32_t exceptions_before;        /* admission: the worker's own */
    uint32_t accepted;                 /* events that stay: the entry's count */
    uint32_t refuse_reason;            /* VERDICT_REFUSED: why (enum Reason) */
    uint64_t index, term;              /* index 0: nothing of it entered the log */
    uint64_t wait_index;               /* answered once this index is committed */
    struct log_write write;
    struct block_forward forward;
    struct block *next; /* in the one list that its owner keeps it in */
};

#define REQUEST_NONE UINT16_MAX

static inline uint8_t *block_payload(const struct block *b) { return b->buf + LOG_HEADER_BYTES; }

/* Bytes that another event of `bytes` bytes needs, its descriptor included. */
static inline uint32_t block_event_cost(uint32_t bytes)
{
    return bytes + (uint32_t)sizeof(struct block_desc);
}

/* Allocates buf. Returns 0 or -ENOMEM. */
int block_init(struct block *b, uint32_t worker);
void block_fini(struct block *b);

/* Empties the block for new events. */
void block_reset(struct block *b);

/* Writes header and descriptors behind the event bytes and fills b->write (payload length, CRC,
 * digest). Events whose verdict is not VERDICT_COMMITTED are left out and the rest closes up; in
 * the usual case, none, nothing moves. b->desc stays in original order, with the offsets from
 * before. Sets b->accepted; when that is 0 there is nothing to append (and block_view() refuses
 * it). */
void block_seal(struct block *b, uint16_t node, uint8_t region);

/* A parsed block borrows its payload. */
struct block_view {
    const struct block_header *header;
    const struct block_desc *desc;
    const uint8_t *payload;
    uint32_t payload_bytes;
};

/* As a worker would hand it over that had got these events; `content` are the hashes of their
 * bytes. One request covers all of them, so each that is left out gets an exception. It has the
 * payload as it is, and is not sealed. */
void block_fill(struct block *b, const struct block_view *v, const uint64_t *content);

/* Checks every bound that a reader relies on; payload is aligned to 8. Returns 0, or -EBADMSG for
 * anything else than a block. */
int block_view(struct block_view *ret, const void *payload, uint32_t payload_bytes);

#endif
