/*
 * admin_frame.h - AdminRequest and AdminResponse on the wire (proto/admin.proto): a varint length,
 * then the message. The daemon and the CLI share this one reader and writer.
 *
 * The two messages are framed by hand, so that neither side keeps a union of every body in memory;
 * what is inside a body is nanopb's.
 *
 * Thread:  any; no state.
 * Memory:  the caller's. A decoded response points into the frame.
 * Limits:  ADMIN_REQUEST_BYTES_MAX, ADMIN_RESPONSE_BYTES_MAX, the delimiter not counted.
 * Errors:  -EAGAIN: more bytes are needed; -EMSGSIZE: over a limit; -EBADMSG: malformed.
 */
#ifndef SLUICE_BASE_ADMIN_FRAME_H
#define SLUICE_BASE_ADMIN_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/admin.pb.h"

#define ADMIN_REQUEST_BYTES_MAX  (64u * 1024u)
#define ADMIN_RESPONSE_BYTES_MAX (640u * 1024u)
#define ADMIN_DELIMITER_MAX      5u   /* a varint of 32 bits */
#define ADMIN_ERROR_BYTES        512u /* AdminResponse.error with its NUL */
/* The longest request that admin_request_encode() makes: a datagram for the policy. */
#define ADMIN_REQUEST_ENCODED_MAX (sluice_v1_PolicyTestRequest_size + 16u)

/* Field numbers of AdminRequest. */
enum admin_request_body {
    ADMIN_STATUS = 1,
    ADMIN_LEDGER = 2,
    ADMIN_GET = 3,
    ADMIN_TAIL = 4,
    ADMIN_SETTINGS = 5,
    ADMIN_SETTING_SET = 6,
    ADMIN_CONFIG_SHOW = 7,
    ADMIN_XDP_STATUS = 8,
    ADMIN_POLICY_TEST = 9,
    ADMIN_TAP = 10,
    ADMIN_CLUSTER_STATUS = 11,
    ADMIN_CLUSTER_INIT = 12,
    ADMIN_CLUSTER_CHANGE = 13,
    ADMIN_READ_POINT = 14,
    ADMIN_RECOVERY = 15,
};
#define ADMIN_REQUEST_BODY_MAX ADMIN_RECOVERY

/* Field numbers of AdminResponse. */
enum admin_response_body {
    ADMIN_BODY_NONE = 0,
    ADMIN_BODY_STATUS = 4,
    ADMIN_BODY_LEDGER = 5,
    ADMIN_BODY_EVENT = 6,
    ADMIN_BODY_SETTINGS = 7,
    ADMIN_BODY_SETTING = 8,
    ADMIN_BODY_CONFIG = 9,
    ADMIN_BODY_XDP_STATUS = 10,
    ADMIN_BODY_POLICY_TEST = 11,
    ADMIN_BODY_TAP_SAMPLE = 12,
    ADMIN_BODY_CLUSTER_STATUS = 13,
    ADMIN_BODY_CLUSTER_DONE = 14,
    ADMIN_BODY_READ_POINT = 15,
};
#define ADMIN_RESPONSE_BODY_MAX ADMIN_BODY_READ_POINT

struct admin_request {
    enum admin_request_body which;
    union {
        sluice_v1_StatusRequest status;
        sluice_v1_LedgerRequest ledger;
        sluice_v1_GetRequest get;
        sluice_v1_TailRequest tail;
        sluice_v1_SettingsRequest settings;
        sluice_v1_SettingSetRequest setting_set;
        sluice_v1_ConfigShowRequest config_show;
        sluice_v1_XdpStatusRequest xdp_status;
        sluice_v1_PolicyTestRequest policy_test;
        sluice_v1_TapRequest tap;
        sluice_v1_ClusterStatusRequest cluster_status;
        sluice_v1_ClusterInitRequest cluster_init;
        sluice_v1_MembershipRequest cluster_change;
        sluice_v1_ReadPointRequest read_point;
        sluice_v1_RecoveryRequest recovery;
    };
};

struct admin_response {
    char error[ADMIN_ERROR_BYTES]; /* empty: all is well */
    uint32_t code;                 /* positive errno */
    bool done;
    enum admin_response_body which;
    const uint8_t *body; /* points into the frame; NULL without a body */
    size_t body_bytes;
};

struct admin_event {
    const uint8_t *event; /* serialized sluice.v1.Event */
    size_t event_bytes;
    uint64_t index;
    uint32_t slot;
};

/* Is there a whole frame in data? 0: its message is ret_body bytes at data + ret_head. -EAGAIN,
 * -EMSGSIZE (longer than bytes_max) or -EBADMSG. */
int admin_frame_find(const uint8_t *data, size_t bytes, size_t bytes_max, size_t *ret_head,
                     size_t *ret_body);

/* Exactly one body must be there; other fields are skipped. Returns 0 or -EBADMSG. */
int admin_request_decode(struct admin_request *ret, const uint8_t *message, size_t bytes);

/* Writes the delimited frame; returns its bytes, or -EMSGSIZE when cap is too small. */
int64_t admin_request_encode(const struct admin_request *r, uint8_t *buf, size_t cap);

/* Returns 0 or -EBADMSG. */
int admin_response_decode(struct admin_response *ret, const uint8_t *message, size_t bytes);

/* Writes everything of a delimited response but its body, whose body_bytes the caller puts right
 * behind: the frame is complete then. Returns the bytes written, or -EMSGSIZE when the whole frame
 * would not fit cap or the limit. which ADMIN_BODY_NONE: no body. error may be NULL. */
int64_t admin_response_begin(uint8_t *buf, size_t cap, const char *error, uint32_t code, bool done,
                             enum admin_response_body which, size_t body_bytes);

/* The same with a body that nanopb encodes. Returns the whole frame's bytes. */
int64_t admin_response_encode(uint8_t *buf, size_t cap, bool done, enum admin_response_body which,
                              const pb_msgdesc_t *fields, const void *message);

/* A whole response that carries an event; the caller's write() of e->event_bytes goes to
 * *ret_event. Returns the frame's bytes or -EMSGSIZE. */
int64_t admin_response_event(uint8_t *buf, size_t cap, bool done, const struct admin_event *e,
                             uint8_t **ret_event);

/* The body of a response that carries an event. Returns 0 or -EBADMSG. */
int admin_event_decode(struct admin_event *ret, const uint8_t *body, size_t bytes);

#endif
