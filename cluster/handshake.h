/*
 * handshake.h - the first frames of a connection between nodes: who dials whom, and whether the
 * two may speak.
 *
 *   dialler  -> HELLO
 *   acceptor -> WELCOME or REFUSE, and then nothing but answers to the dialler's CALLs: a
 * connection carries one node's messages
 *
 * Heads (peer_frame.h draws the frame; the sender's epoch is in its header):
 *
 *   HELLO    | magic u32 | version_min u16 | version_max u16 | cluster_id[16] | directory_id[16] |
 *            | process u64 | connection u64 | node u16 | dialled u16 | region u16 |
 *            | zone_bytes u16 | zone[64], zeros behind its end |
 *            | address_bytes u16 | zero[6] | address[264], zeros behind its end |   400 bytes
 *   WELCOME  | magic u32 | version u16 | node u16 | directory_id[16] |          24 bytes
 *   REFUSE   | magic u32 | code u16 | sentence_bytes u16 | sentence[240], zeros | 248 bytes
 *
 * For ever: these fields keep their places and their meaning. A later version adds behind them, up
 * to PEER_HANDSHAKE_MAX bytes, and what a reader does not know there it leaves alone (the CRC
 * covers it). So any version can read who is there, say which versions it speaks, and refuse in a
 * sentence that the other side can print. The version of a connection is the highest that both
 * know.
 *
 * A node that is of no cluster yet says zeros for its id. It may be told one (a CALL), and ask; its
 * other messages nobody takes. `address` is where the dialler can be dialled itself, HOST:PORT: who
 * lags behind may not know it from its own log yet.
 *
 * `process` is random, drawn once in a node's process life, and `connection` grows with each dial
 * in it: what still arrives on an older connection of the same process, or on one of another
 * process after a newer one was welcomed, can be told and dropped.
 *
 * Nothing here allocates or does I/O; any thread.
 */
#ifndef SLUICE_CLUSTER_HANDSHAKE_H
#define SLUICE_CLUSTER_HANDSHAKE_H

#include <stdbool.h>

#include "cluster/peer_frame.h"

#define HANDSHAKE_MAGIC        0x4b485053u /* "SPHK" */
#define HANDSHAKE_ID_BYTES     16u
#define HANDSHAKE_ZONE_MAX     64u
#define HANDSHAKE_ADDRESS_MAX  264u
#define HANDSHAKE_SENTENCE_MAX 240u

#define HANDSHAKE_HELLO_BYTES   400u
#define HANDSHAKE_WELCOME_BYTES 24u
#define HANDSHAKE_REFUSE_BYTES  248u
#define HANDSHAKE_FRAME_MAX     (PEER_HEADER_BYTES + HANDSHAKE_HELLO_BYTES) /* of what we write */

struct hello {
    uint32_t magic;
    uint16_t version_min, version_max;
    uint8_t cluster_id[HANDSHAKE_ID_BYTES];
    uint8_t directory_id[HANDSHAKE_ID_BYTES];
    uint64_t process;
    uint64_t connection;
    uint64_t epoch;
    uint16_t node;
    uint16_t dialled; /* the node that the sender believes it is dialling */
    uint16_t region;
    uint16_t zone_bytes;
    char zone[HANDSHAKE_ZONE_MAX];           /* [A-Za-z0-9._-]; may be empty */
    char address[HANDSHAKE_ADDRESS_MAX + 1]; /* printable, no spaces; may be empty */
};

struct welcome {
    uint32_t magic;
    uint16_t version;
    uint16_t node;
    uint8_t directory_id[HANDSHAKE_ID_BYTES];
};

/* Sent; never given another meaning. */
enum refusal_code {
    REFUSAL_MAGIC = 1,     /* no HELLO of Sluice */
    REFUSAL_VERSION = 2,   /* no version in common */
    REFUSAL_MALFORMED = 3, /* a field that cannot be */
    REFUSAL_CLUSTER = 4,   /* of another cluster */
    REFUSAL_NOT_ME = 5,    /* another node was dialled */
    REFUSAL_MYSELF = 6,    /* this node, or one with its id or its directory */
    REFUSAL_UNKNOWN = 7,   /* no such node in this cluster */
    REFUSAL_DIRECTORY = 8, /* a known node with another data directory */
    REFUSAL_REGION = 9,    /* a known node with another region */
};

struct refusal {
    uint32_t code; /* enum refusal_code; of a later version another number */
    char sentence[HANDSHAKE_SENTENCE_MAX + 1];
};

struct handshake_self {
    uint8_t cluster_id[HANDSHAKE_ID_BYTES]; /* zeros: of no cluster yet */
    uint8_t directory_id[HANDSHAKE_ID_BYTES];
    uint64_t epoch;
    uint16_t node;
    uint16_t version_min, version_max; /* PEER_VERSION_MIN and _MAX */
};

/* What this node knows of another. */
struct handshake_known {
    uint16_t node;
    uint8_t region;
    bool directory_known; /* false until the first contact */
    uint8_t directory_id[HANDSHAKE_ID_BYTES];
};

/* What a handshake that was not refused asks of the caller; a set. */
enum handshake_note {
    HANDSHAKE_REMEMBER = 1,   /* first contact: the directory id is to be remembered */
    HANDSHAKE_CALLS_ONLY = 4, /* one of the two is of no cluster: nothing but CALLs */
};

/* May the dialler speak to this node? peer is what is known of hello->node, NULL: nothing. Returns
 * a set of enum handshake_note, 0 when there is nothing to note; or -EACCES, and ret says why. */
int handshake_check(const struct handshake_self *self, const struct handshake_known *peer,
                    const struct hello *hello, struct refusal *ret);

/* The dialler's side: is this the node it dialled? As handshake_check(). */
int handshake_check_welcome(const struct handshake_self *self, const struct handshake_known *peer,
                            const struct welcome *welcome, struct refusal *ret);

/* The highest version that both know; 0: none. */
uint16_t handshake_version(const struct handshake_self *self, const struct hello *hello);

/* Whole frames; buf is aligned to 8. Return the size, or -ENOBUFS. hello->magic and welcome->magic
 * are HANDSHAKE_MAGIC. */
int handshake_put_hello(void *buf, size_t cap, const struct hello *hello);
int handshake_put_welcome(void *buf, size_t cap, uint64_t epoch, const struct welcome *welcome);
int handshake_put_refusal(void *buf, size_t cap, uint64_t epoch, const struct refusal *refusal);

/* Of a frame of that type. What a HELLO or a WELCOME says is judged by the checks above. Return
 * NULL, or what is wrong: too short; of a refusal, too, that it is none, or cannot be printed. */
const char *handshake_get_hello(struct hello *ret, const struct peer_frame *f);
const char *handshake_get_welcome(struct welcome *ret, const struct peer_frame *f);
const char *handshake_get_refusal(struct refusal *ret, const struct peer_frame *f);

#endif
