/*
 * peer_message.c - the engine's messages as bytes; drawn in peer_message.h. Any thread; memory is
 * the caller's, but for what the engine is to own.
 */
#include "cluster/peer_message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/entry_type.h"

#define CONFIGURATION_FORMAT 1u

struct wire_request_vote {
    uint64_t term;
    uint8_t version;
    uint8_t disrupt_leader;
    uint8_t pre_vote;
    uint8_t zero[5];
    uint64_t candidate_id;
    uint64_t last_log_index;
    uint64_t last_log_term;
};
_Static_assert(sizeof(struct wire_request_vote) == PEER_REQUEST_VOTE_BYTES, "sent");

struct wire_vote_result {
    uint64_t term;
    uint8_t version;
    uint8_t vote_granted;
    uint8_t pre_vote;
    uint8_t zero[1];
    uint16_t features;
    uint16_t capacity;
};
_Static_assert(sizeof(struct wire_vote_result) == PEER_VOTE_RESULT_BYTES, "sent");

struct wire_append {
    uint64_t term;
    uint8_t version;
    uint8_t zero[3];
    uint32_t entries;
    uint64_t prev_log_index;
    uint64_t prev_log_term;
    uint64_t leader_commit;
};
_Static_assert(sizeof(struct wire_append) == PEER_APPEND_BYTES, "sent");

struct wire_append_result {
    uint64_t term;
    uint8_t version;
    uint8_t zero[3];
    uint16_t features;
    uint16_t capacity;
    uint64_t rejected;
    uint64_t last_log_index;
};
_Static_assert(sizeof(struct wire_append_result) == PEER_APPEND_RESULT_BYTES, "sent");

struct wire_snapshot {
    uint64_t term;
    uint8_t version;
    uint8_t zero[7];
    uint64_t last_index;
    uint64_t last_term;
    uint64_t conf_index;
    uint32_t configuration_bytes;
    uint32_t data_bytes;
};
_Static_assert(sizeof(struct wire_snapshot) == PEER_SNAPSHOT_BYTES, "sent");

struct wire_timeout_now {
    uint64_t term;
    uint8_t version;
    uint8_t zero[7];
    uint64_t last_log_index;
    uint64_t last_log_term;
};
_Static_assert(sizeof(struct wire_timeout_now) == PEER_TIMEOUT_NOW_BYTES, "sent");

static uint32_t pad8(uint32_t bytes) { return (bytes + 7) & ~7u; }

/* --- what may be in a message; the same on both sides ---------------------------------------- */

static bool all_zero(const uint8_t *p, size_t bytes)
{
    uint8_t any = 0;

    for (size_t i = 0; i < bytes; i++)
        any |= p[i];
    return any == 0;
}

/* A place in a log whose owner is in this term: index 0 has term 0, and nothing else has. */
static const char *check_place(uint64_t index, uint64_t place_term, uint64_t term)
{
    if (index > INT64_MAX)
        return "an index that no log can have";
    if ((index == 0) != (place_term == 0))
        return "an index without a term, or a term without an index";
    return place_term > term ? "a term in the log above the sender's" : NULL;
}

static const char *check_request_vote(const struct wire_request_vote *w)
{
    if (w->disrupt_leader > 1 || w->pre_vote > 1)
        return "a bool that is neither 0 nor 1";
    if (!all_zero(w->zero, sizeof w->zero))
        return "reserved bytes are not 0";
    if (w->term == 0)
        return "term 0";
    if (w->candidate_id == 0)
        return "candidate 0";
    return check_place(w->last_log_index, w->last_log_term, w->term);
}

/* The answer of a node that has no term yet has term 0. */
static const char *check_vote_result(const struct wire_vote_result *w)
{
    if (w->vote_granted > 1 || w->pre_vote > 1)
        return "a bool that is neither 0 nor 1";
    return w->zero[0] != 0 ? "reserved bytes are not 0" : NULL;
}

static const char *check_append(const struct wire_append *w)
{
    if (!all_zero(w->zero, sizeof w->zero))
        return "reserved bytes are not 0";
    if (w->term == 0)
        return "term 0";
    if (w->entries > PEER_ENTRIES_MAX)
        return "more entries than a message may have";
    if (w->leader_commit > INT64_MAX || w->prev_log_index > (uint64_t)INT64_MAX - w->entries)
        return "an index that no log can have";
    return check_place(w->prev_log_index, w->prev_log_term, w->term);
}

const char *peer_wire_entry_check(const struct peer_wire_entry *w)
{
    if (w->type < LOG_EVENTS || w->type >= LOG_TYPE_END)
        return "an unknown type of entry";
    if (w->payload_bytes > PEER_PAYLOAD_MAX)
        return "a payload longer than a record's may be";
    if (w->payload_bytes % 8 != 0)
        return "a payload whose length is not a multiple of 8";
    if (w->packed_bytes % 8 != 0 || (w->packed_bytes > 0 && w->packed_bytes >= w->payload_bytes))
        return "a packed payload that is not shorter, or not a multiple of 8";
    if (w->type == LOG_CHANGE && w->payload_bytes > PEER_CONFIGURATION_BYTES_MAX)
        return "a configuration that is too long";
    return NULL;
}

/* Terms and times never go back in a log, and none is above the leader's term. */
static const char *check_entries(const struct wire_append *w, const struct peer_wire_entry *entry,
                                 uint32_t payload_bytes)
{
    uint64_t term = w->prev_log_term, time_ns = 0, sum = 0, all = 0;
    const char *wrong;

    for (uint32_t i = 0; i < w->entries; i++) {
        wrong = peer_wire_entry_check(&entry[i]);
        if (wrong != NULL)
            return wrong;
        if (entry[i].term == 0 || entry[i].term < term || entry[i].term > w->term)
            return "the terms of the entries cannot be";
        if (entry[i].time_ns < time_ns)
            return "the times of the entries go back";
        term = entry[i].term;
        time_ns = entry[i].time_ns;
        all += entry[i].payload_bytes;
        sum += entry[i].packed_bytes > 0 ? entry[i].packed_bytes : entry[i].payload_bytes;
    }
    if (all > PEER_BODY_MAX)
        return "more bytes than a message may have, once they are unpacked";
    return sum != payload_bytes ? "the payloads are not as long as the frame says" : NULL;
}

static const char *check_append_result(const struct wire_append_result *w)
{
    if (!all_zero(w->zero, sizeof w->zero))
        return "reserved bytes are not 0";
    if (w->rejected > INT64_MAX || w->last_log_index > INT64_MAX)
        return "an index that no log can have";
    return NULL;
}

/* w is the head of a frame of head_bytes. */
static const char *check_snapshot(const struct wire_snapshot *w, uint32_t head_bytes)
{
    const uint8_t *configuration = (const uint8_t *)(w + 1), *data;
    uint32_t padded;

    if (!all_zero(w->zero, sizeof w->zero))
        return "reserved bytes are not 0";
    if (w->term == 0 || w->last_index == 0)
        return "term 0 or index 0";
    if (w->conf_index == 0 || w->conf_index > w->last_index)
        return "the index of the configuration cannot be";
    if (w->configuration_bytes > PEER_CONFIGURATION_BYTES_MAX ||
        w->data_bytes > PEER_SNAPSHOT_BYTES_MAX)
        return "configuration or data are too long";
    padded = pad8(w->configuration_bytes);
    if (sizeof *w + padded + pad8(w->data_bytes) != head_bytes)
        return "configuration and data are not as long as the frame says";
    data = configuration + padded;
    if (!all_zero(configuration + w->configuration_bytes, padded - w->configuration_bytes) ||
        !all_zero(data + w->data_bytes, pad8(w->data_bytes) - w->data_bytes))
        return "the bytes of the padding are not 0";
    return check_place(w->last_index, w->last_term, w->term);
}

static const char *check_timeout_now(const struct wire_timeout_now *w)
{
    if (!all_zero(w->zero, sizeof w->zero))
        return "reserved bytes are not 0";
    if (w->term == 0)
        return "term 0";
    return check_place(w->last_log_index, w->last_log_term, w->term);
}

/* Format, count, and for each server: id, address with its NUL, role; zeros to a multiple of 8. */
static bool configuration_fits(const uint8_t *p, size_t bytes)
{
    const size_t head_bytes = 1 + sizeof(uint64_t);
    uint64_t servers, id;
    const uint8_t *nul;

    if (bytes < head_bytes || bytes % 8 != 0 || p[0] != CONFIGURATION_FORMAT)
        return false;
    memcpy(&servers, p + 1, sizeof servers);
    p += head_bytes;
    bytes -= head_bytes;
    if (servers == 0 || servers > bytes)
        return false;
    for (; servers > 0; servers--) {
        if (bytes < sizeof id)
            return false;
        memcpy(&id, p, sizeof id);
        nul = memchr(p + sizeof id, 0, bytes - sizeof id);
        if (id == 0 || nul == NULL || nul + 1 == p + bytes || nul[1] > RAFT_SPARE)
            return false;
        bytes -= (size_t)(nul + 2 - p);
        p = nul + 2;
    }
    return bytes < 8 && all_zero(p, bytes);
}

/* The engine's decoder reads as many servers as the bytes say, beyond their end too, and what it
 * then does not take ends the node. So first that they fit, then its own word. */
const char *peer_configuration_check(const void *data, size_t bytes)
{
    struct raft_buffer buf = { (void *)(uintptr_t)data, bytes };
    struct raft_configuration configuration;
    int e;

    if (bytes > PEER_CONFIGURATION_BYTES_MAX || !configuration_fits(data, bytes))
        return "this is not a configuration";
    e = raft_configuration_decode(&buf, &configuration);
    if (e == RAFT_NOMEM)
        return "out of memory";
    if (e != 0)
        return "a configuration that the engine does not take";
    raft_configuration_close(&configuration);
    return NULL;
}

/* --- encoding -------------------------------------------------------------------------------- */

unsigned peer_entries_fit(const struct peer_entry *entry, unsigned n)
{
    uint64_t bytes = PEER_APPEND_BYTES;
    unsigned i;

    for (i = 0; i < n && i < PEER_ENTRIES_MAX; i++) {
        bytes += PEER_ENTRY_BYTES + entry[i].record->payload_bytes;
        if (bytes > PEER_BODY_MAX && i > 0)
            break;
    }
    return i;
}

void peer_wire_entry_put(struct peer_wire_entry *ret, const struct peer_entry *entry)
{
    const struct log_record *r = entry->record;

    *ret = (struct peer_wire_entry){
        .term = r->term,
        .time_ns = r->time_ns,
        .type = r->type,
        .payload_bytes = r->payload_bytes,
        .payload_crc = entry->payload_crc,
        .packed_bytes = entry->packed_bytes,
    };
    memcpy(ret->payload_sha256, r->payload_sha256, SHA256_BYTES);
}

static int fill_entries(struct peer_wire_entry *w, const struct raft_append_entries *m,
                        const struct peer_entry *entry, uint64_t *ret_payload_bytes)
{
    for (unsigned i = 0; i < m->n_entries; i++) {
        const struct log_record *r = entry[i].record;

        if (r->index != m->prev_log_index + 1 + i)
            return -EINVAL;
        peer_wire_entry_put(&w[i], &entry[i]);
        *ret_payload_bytes += entry[i].packed_bytes > 0 ? entry[i].packed_bytes : r->payload_bytes;
    }
    return 0;
}

int peer_encode_append_entries(void *buf, size_t cap, uint64_t epoch,
                               const struct raft_append_entries *m, const struct peer_entry *entry,
                               struct iovec *iov, unsigned iov_max)
{
    struct wire_append *w = (void *)((uint8_t *)buf + PEER_HEADER_BYTES);
    uint32_t head_bytes;
    uint64_t payload_bytes = 0;
    int n = 0, rc;

    assert(((uintptr_t)buf & 7) == 0);
    if (m->n_entries > PEER_ENTRIES_MAX)
        return -EMSGSIZE;
    if (cap < PEER_APPEND_BUF(m->n_entries) || iov_max < 1 + m->n_entries)
        return -ENOBUFS;
    head_bytes = PEER_APPEND_BUF(m->n_entries) - PEER_HEADER_BYTES;
    *w = (struct wire_append){
        .term = m->term,
        .version = m->version,
        .entries = m->n_entries,
        .prev_log_index = m->prev_log_index,
        .prev_log_term = m->prev_log_term,
        .leader_commit = m->leader_commit,
    };
    if (check_append(w) != NULL)
        return -EINVAL;
    rc = fill_entries((struct peer_wire_entry *)(w + 1), m, entry, &payload_bytes);
    if (rc < 0)
        return rc;
    if (head_bytes + payload_bytes > PEER_BODY_MAX)
        return -EMSGSIZE;
    if (check_entries(w, (struct peer_wire_entry *)(w + 1), (uint32_t)payload_bytes) != NULL)
        return -EINVAL;
    peer_frame_put(buf, PEER_APPEND_ENTRIES, epoch, head_bytes, (uint32_t)payload_bytes);
    iov[n++] = (struct iovec){ buf, PEER_HEADER_BYTES + head_bytes };
    for (unsigned i = 0; i < m->n_entries; i++) {
        const struct peer_entry *e = &entry[i];

        if (e->packed_bytes > 0)
            iov[n++] = (struct iovec){ (void *)(uintptr_t)e->packed, e->packed_bytes };
        else if (e->record->payload_bytes > 0)
            iov[n++] = (struct iovec){ (void *)(uintptr_t)e->payload, e->record->payload_bytes };
    }
    return n;
}

static ssize_t put_request_vote(uint8_t *head, size_t cap, const struct raft_request_vote *m)
{
    struct wire_request_vote w = {
        .term = m->term,
        .version = m->version,
        .disrupt_leader = m->disrupt_leader,
        .pre_vote = m->pre_vote,
        .candidate_id = m->candidate_id,
        .last_log_index = m->last_log_index,
        .last_log_term = m->last_log_term,
    };

    if (check_request_vote(&w) != NULL)
        return -EINVAL;
    if (cap < sizeof w)
        return -ENOBUFS;
    memcpy(head, &w, sizeof w);
    return sizeof w;
}

static ssize_t put_vote_result(uint8_t *head, size_t cap, const struct raft_request_vote_result *m)
{
    struct wire_vote_result w = {
        .term = m->term,
        .version = m->version,
        .vote_granted = m->vote_granted,
        .pre_vote = m->pre_vote,
        .features = m->features,
        .capacity = m->capacity,
    };

    if (cap < sizeof w)
        return -ENOBUFS;
    assert(check_vote_result(&w) == NULL);
    memcpy(head, &w, sizeof w);
    return sizeof w;
}

static ssize_t put_append_result(uint8_t *head, size_t cap,
                                 const struct raft_append_entries_result *m)
{
    struct wire_append_result w = {
        .term = m->term,
        .version = m->version,
        .features = m->features,
        .capacity = m->capacity,
        .rejected = m->rejected,
        .last_log_index = m->last_log_index,
    };

    if (check_append_result(&w) != NULL)
        return -EINVAL;
    if (cap < sizeof w)
        return -ENOBUFS;
    memcpy(head, &w, sizeof w);
    return sizeof w;
}

static ssize_t put_timeout_now(uint8_t *head, size_t cap, const struct raft_timeout_now *m)
{
    struct wire_timeout_now w = {
        .term = m->term,
        .version = m->version,
        .last_log_index = m->last_log_index,
        .last_log_term = m->last_log_term,
    };

    if (check_timeout_now(&w) != NULL)
        return -EINVAL;
    if (cap < sizeof w)
        return -ENOBUFS;
    memcpy(head, &w, sizeof w);
    return sizeof w;
}

static ssize_t put_snapshot_with(uint8_t *head, size_t cap, const struct raft_install_snapshot *m,
                                 const struct raft_buffer *configuration)
{
    struct wire_snapshot *w = (void *)head;
    uint8_t *p = head + sizeof *w;
    size_t bytes;

    if (configuration->len > PEER_CONFIGURATION_BYTES_MAX || m->data.len > PEER_SNAPSHOT_BYTES_MAX)
        return -EMSGSIZE;
    bytes = sizeof *w + pad8((uint32_t)configuration->len) + pad8((uint32_t)m->data.len);
    if (cap < bytes)
        return -ENOBUFS;
    memset(head, 0, bytes);
    *w = (struct wire_snapshot){
        .term = m->term,
        .version = m->version,
        .last_index = m->last_index,
        .last_term = m->last_term,
        .conf_index = m->conf_index,
        .configuration_bytes = (uint32_t)configuration->len,
        .data_bytes = (uint32_t)m->data.len,
    };
    memcpy(p, configuration->base, configuration->len);
    if (m->data.len > 0)
        memcpy(p + pad8((uint32_t)configuration->len), m->data.base, m->data.len);
    if (check_snapshot(w, (uint32_t)bytes) != NULL ||
        peer_configuration_check(p, configuration->len) != NULL)
        return -EINVAL;
    return (ssize_t)bytes;
}

static ssize_t put_snapshot(uint8_t *head, size_t cap, const struct raft_install_snapshot *m)
{
    struct raft_buffer configuration;
    ssize_t n;

    if (m->conf.n == 0)
        return -EINVAL;
    if (raft_configuration_encode(&m->conf, &configuration) != 0)
        return -ENOMEM;
    n = put_snapshot_with(head, cap, m, &configuration);
    raft_free(configuration.base);
    return n;
}

static ssize_t finish_frame(void *buf, enum peer_type type, uint64_t epoch, ssize_t head_bytes)
{
    if (head_bytes < 0)
        return head_bytes;
    peer_frame_put(buf, type, epoch, (uint32_t)head_bytes, 0);
    return (ssize_t)PEER_HEADER_BYTES + head_bytes;
}

ssize_t peer_encode(void *buf, size_t cap, uint64_t epoch, const struct raft_message *m)
{
    uint8_t *head = (uint8_t *)buf + PEER_HEADER_BYTES;

    assert(((uintptr_t)buf & 7) == 0);
    if (cap < PEER_HEADER_BYTES)
        return -ENOBUFS;
    cap -= PEER_HEADER_BYTES;
    switch (m->type) {
    case RAFT_REQUEST_VOTE:
        return finish_frame(buf, PEER_REQUEST_VOTE, epoch,
                            put_request_vote(head, cap, &m->request_vote));
    case RAFT_REQUEST_VOTE_RESULT:
        return finish_frame(buf, PEER_REQUEST_VOTE_RESULT, epoch,
                            put_vote_result(head, cap, &m->request_vote_result));
    case RAFT_APPEND_ENTRIES_RESULT:
        return finish_frame(buf, PEER_APPEND_ENTRIES_RESULT, epoch,
                            put_append_result(head, cap, &m->append_entries_result));
    case RAFT_INSTALL_SNAPSHOT:
        return finish_frame(buf, PEER_INSTALL_SNAPSHOT, epoch,
                            put_snapshot(head, cap, &m->install_snapshot));
    case RAFT_TIMEOUT_NOW:
        return finish_frame(buf, PEER_TIMEOUT_NOW, epoch,
                            put_timeout_now(head, cap, &m->timeout_now));
    default: /* APPEND_ENTRIES has its own way */
        return -EINVAL;
    }
}

ssize_t peer_encode_ping(void *buf, size_t cap, uint64_t epoch)
{
    if (cap < PEER_HEADER_BYTES)
        return -ENOBUFS;
    return finish_frame(buf, PEER_PING, epoch, 0);
}

/* --- decoding -------------------------------------------------------------------------------- */

static const char *get_request_vote(struct peer_message *ret, const struct peer_frame *f)
{
    const struct wire_request_vote *w = f->head;

    ret->raft.type = RAFT_REQUEST_VOTE;
    ret->raft.request_vote = (struct raft_request_vote){
        .version = w->version,
        .term = w->term,
        .candidate_id = w->candidate_id,
        .last_log_index = w->last_log_index,
        .last_log_term = w->last_log_term,
        .disrupt_leader = w->disrupt_leader == 1,
        .pre_vote = w->pre_vote == 1,
    };
    return check_request_vote(w);
}

static const char *get_vote_result(struct peer_message *ret, const struct peer_frame *f)
{
    const struct wire_vote_result *w = f->head;

    ret->raft.type = RAFT_REQUEST_VOTE_RESULT;
    ret->raft.request_vote_result = (struct raft_request_vote_result){
        .version = w->version,
        .term = w->term,
        .vote_granted = w->vote_granted == 1,
        .pre_vote = w->pre_vote == 1,
        .features = w->features,
        .capacity = w->capacity,
    };
    return check_vote_result(w);
}

static const char *get_append(struct peer_message *ret, const struct peer_frame *f)
{
    const struct wire_append *w = f->head;
    const char *wrong = check_append(w);

    if (wrong != NULL)
        return wrong;
    if (f->head_bytes != PEER_APPEND_BYTES + w->entries * PEER_ENTRY_BYTES)
        return "not as many entries as the frame's length says";
    ret->raft.type = RAFT_APPEND_ENTRIES;
    ret->raft.append_entries = (struct raft_append_entries){
        .version = w->version,
        .term = w->term,
        .prev_log_index = w->prev_log_index,
        .prev_log_term = w->prev_log_term,
        .leader_commit = w->leader_commit,
        .n_entries = w->entries,
    };
    return check_entries(w, (const struct peer_wire_entry *)(w + 1), f->body_bytes - f->head_bytes);
}

static const char *get_append_result(struct peer_message *ret, const struct peer_frame *f)
{
    const struct wire_append_result *w = f->head;

    ret->raft.type = RAFT_APPEND_ENTRIES_RESULT;
    ret->raft.append_entries_result = (struct raft_append_entries_result){
        .version = w->version,
        .term = w->term,
        .rejected = w->rejected,
        .last_log_index = w->last_log_index,
        .features = w->features,
        .capacity = w->capacity,
    };
    return check_append_result(w);
}

static const char *get_snapshot(struct peer_message *ret, const struct peer_frame *f)
{
    const struct wire_snapshot *w = f->head;
    const uint8_t *configuration = (const uint8_t *)(w + 1);
    const char *wrong = check_snapshot(w, f->head_bytes);

    if (wrong != NULL)
        return wrong;
    ret->raft.type = RAFT_INSTALL_SNAPSHOT;
    ret->raft.install_snapshot = (struct raft_install_snapshot){
        .version = w->version,
        .term = w->term,
        .last_index = w->last_index,
        .last_term = w->last_term,
        .conf_index = w->conf_index,
    };
    ret->configuration = configuration;
    ret->configuration_bytes = w->configuration_bytes;
    ret->data = configuration + pad8(w->configuration_bytes);
    ret->data_bytes = w->data_bytes;
    return peer_configuration_check(ret->configuration, ret->configuration_bytes);
}

static const char *get_timeout_now(struct peer_message *ret, const struct peer_frame *f)
{
    const struct wire_timeout_now *w = f->head;

    ret->raft.type = RAFT_TIMEOUT_NOW;
    ret->raft.timeout_now = (struct raft_timeout_now){
        .version = w->version,
        .term = w->term,
        .last_log_index = w->last_log_index,
        .last_log_term = w->last_log_term,
    };
    return check_timeout_now(w);
}

const char *peer_message_get(struct peer_message *ret, const struct peer_frame *f)
{
    static const char *(*const get[PEER_TYPE_END])(struct peer_message *,
                                                   const struct peer_frame *) = {
        [PEER_REQUEST_VOTE] = get_request_vote, [PEER_REQUEST_VOTE_RESULT] = get_vote_result,
        [PEER_APPEND_ENTRIES] = get_append,     [PEER_APPEND_ENTRIES_RESULT] = get_append_result,
        [PEER_INSTALL_SNAPSHOT] = get_snapshot, [PEER_TIMEOUT_NOW] = get_timeout_now,
    };
    struct peer_message m = { .frame = *f };
    const char *wrong = NULL;

    assert(f->type > 0 && f->type < PEER_TYPE_END && ((uintptr_t)f->head & 7) == 0);
    if (get[f->type] != NULL)
        wrong = get[f->type](&m, f);
    if (wrong == NULL)
        *ret = m;
    return wrong;
}

void peer_wire_entry_get(struct log_record *ret, const struct peer_wire_entry *w, uint64_t index)
{
    *ret = (struct log_record){
        .index = index,
        .term = w->term,
        .time_ns = w->time_ns,
        .type = w->type,
        .payload_bytes = w->payload_bytes,
    };
    memcpy(ret->payload_sha256, w->payload_sha256, SHA256_BYTES);
}

void peer_entry_get(struct log_record *ret, uint32_t *ret_payload_crc, uint32_t *ret_packed_bytes,
                    const struct peer_message *m, unsigned i)
{
    const struct raft_append_entries *args = &m->raft.append_entries;
    const struct wire_append *head = m->frame.head;
    const struct peer_wire_entry *w = (const struct peer_wire_entry *)(head + 1) + i;

    assert(m->frame.type == PEER_APPEND_ENTRIES && i < args->n_entries);
    peer_wire_entry_get(ret, w, args->prev_log_index + 1 + i);
    *ret_payload_crc = w->payload_crc;
    *ret_packed_bytes = w->packed_bytes;
}

struct raft_entry peer_raft_entry(const struct log_write *w)
{
    return (struct raft_entry){
        .term = w->record.term,
        .type = entry_type(w->record.type),
        .buf = { (uint8_t *)w->buf + LOG_HEADER_BYTES, w->record.payload_bytes },
    };
}

int peer_snapshot_take(struct raft_install_snapshot *ret, const struct peer_message *m)
{
    struct raft_buffer configuration = { (void *)(uintptr_t)m->configuration,
                                         m->configuration_bytes };
    struct raft_install_snapshot s = m->raft.install_snapshot;
    int e;

    assert(m->frame.type == PEER_INSTALL_SNAPSHOT);
    s.data.len = m->data_bytes;
    s.data.base = raft_malloc(m->data_bytes > 0 ? m->data_bytes : 1);
    if (s.data.base == NULL)
        return -ENOMEM;
    memcpy(s.data.base, m->data, m->data_bytes);
    e = raft_configuration_decode(&configuration, &s.conf);
    if (e != 0) {
        assert(e == RAFT_NOMEM); /* peer_configuration_check() has taken it */
        raft_free(s.data.base);
        return -ENOMEM;
    }
    *ret = s;
    return 0;
}
