/*
 * peer_wire.c - random messages of the engine, and what became of them; see peer_wire.h.
 */
#include "tests/lib/peer_wire.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/record.h"

uint64_t wire_random(uint64_t *seed)
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint32_t wire_below(uint64_t *seed, uint32_t n) { return (uint32_t)(wire_random(seed) % n); }

/* Small, large and all-ones numbers, all below or at max. */
static uint64_t number(uint64_t *seed, uint64_t max)
{
    uint32_t shift = wire_below(seed, 64);
    uint64_t n = wire_random(seed) >> shift;

    if (wire_below(seed, 8) == 0)
        return max;
    return n > max ? n % (max + 1) : n;
}

/* Index and term of a place, both 0 now and then. */
static void place(uint64_t *seed, uint64_t term, raft_index *ret_index, raft_term *ret_term)
{
    *ret_index = number(seed, INT64_MAX - PEER_ENTRIES_MAX);
    *ret_term = *ret_index == 0 ? 0 : 1 + number(seed, term - 1);
}

static void make_configuration(struct wire_sample *s, uint64_t *seed,
                               struct raft_configuration *ret)
{
    unsigned n = 1 + wire_below(seed, WIRE_SERVERS_MAX);

    for (unsigned i = 0; i < n; i++) {
        snprintf(s->address[i], sizeof s->address[i], "%.*s%u", (int)wire_below(seed, 50),
                 "a-host-with-a-name-of-many-characters.example:7100", i);
        s->server[i] = (struct raft_server){ .id = i + 1,
                                             .address = s->address[i],
                                             .role = (int)wire_below(seed, 3) };
    }
    *ret = (struct raft_configuration){ s->server, n };
}

static void make_entries(struct wire_sample *s, uint64_t *seed, uint32_t n, uint32_t payload_max)
{
    struct raft_append_entries *m = &s->raft.append_entries;
    uint64_t term = m->prev_log_term > 0 ? m->prev_log_term : 1, time_ns = number(seed, 1u << 30);
    struct raft_configuration configuration;
    size_t used = 0;

    s->memory = malloc((size_t)n * payload_max + 1);
    assert_non_null(s->memory);
    make_configuration(s, seed, &configuration);
    assert_int_equal(raft_configuration_encode(&configuration, &s->configuration), 0);
    for (uint32_t i = 0; i < n; i++) {
        struct log_record *r = &s->record[i];

        if (wire_below(seed, 4) == 0)
            term += number(seed, m->term - term);
        *r = (struct log_record){ .index = m->prev_log_index + 1 + i,
                                  .term = term,
                                  .time_ns = time_ns += wire_below(seed, 1000),
                                  .type = LOG_EVENTS + wire_below(seed, LOG_TYPE_END - LOG_EVENTS),
                                  .payload_bytes = wire_below(seed, payload_max + 1) & ~7u };
        s->entry[i] = (struct peer_entry){ .record = r, .payload = s->memory + used };
        if (r->type == LOG_CHANGE) {
            r->payload_bytes = (uint32_t)s->configuration.len;
            s->entry[i].payload = s->configuration.base;
        } else {
            for (uint32_t k = 0; k < r->payload_bytes; k++)
                s->memory[used + k] = (uint8_t)wire_random(seed);
            used += r->payload_bytes;
        }
        s->entry[i].payload_crc = crc32c(0, s->entry[i].payload, r->payload_bytes);
        sha256(r->payload_sha256, s->entry[i].payload, r->payload_bytes, NULL, 0);
    }
    m->n_entries = n;
}

static void make_snapshot(struct wire_sample *s, uint64_t *seed, uint64_t term, uint32_t bytes_max)
{
    struct raft_install_snapshot *m = &s->raft.install_snapshot;
    uint32_t bytes = wire_below(seed, bytes_max + 1);

    *m = (struct raft_install_snapshot){
        .version = (uint8_t)number(seed, 255),
        .term = term,
        .last_index = 1 + number(seed, INT64_MAX - 1),
        .last_term = 1 + number(seed, term - 1),
    };
    m->conf_index = 1 + number(seed, m->last_index - 1);
    make_configuration(s, seed, &m->conf);
    s->memory = malloc(bytes + 1);
    assert_non_null(s->memory);
    for (uint32_t i = 0; i < bytes; i++)
        s->memory[i] = (uint8_t)wire_random(seed);
    m->data = (struct raft_buffer){ s->memory, bytes };
}

static void make_request_vote(struct raft_request_vote *m, uint64_t *seed, uint64_t term)
{
    *m = (struct raft_request_vote){
        .version = (uint8_t)number(seed, 255),
        .term = term,
        .candidate_id = 1 + number(seed, UINT64_MAX - 1),
        .disrupt_leader = wire_below(seed, 2),
        .pre_vote = wire_below(seed, 2),
    };
    place(seed, term, &m->last_log_index, &m->last_log_term);
}

static void make_results(struct wire_sample *s, uint64_t *seed, uint64_t term)
{
    if (s->type == PEER_REQUEST_VOTE_RESULT)
        s->raft.request_vote_result = (struct raft_request_vote_result){
            .version = (uint8_t)number(seed, 255),
            .term = wire_below(seed, 4) == 0 ? 0 : term,
            .vote_granted = wire_below(seed, 2),
            .pre_vote = wire_below(seed, 2),
            .features = (uint16_t)number(seed, UINT16_MAX),
            .capacity = (uint16_t)number(seed, UINT16_MAX),
        };
    else
        s->raft.append_entries_result = (struct raft_append_entries_result){
            .version = (uint8_t)number(seed, 255),
            .term = wire_below(seed, 4) == 0 ? 0 : term,
            .rejected = number(seed, INT64_MAX),
            .last_log_index = number(seed, INT64_MAX),
            .features = (uint16_t)number(seed, UINT16_MAX),
            .capacity = (uint16_t)number(seed, UINT16_MAX),
        };
}

void wire_sample_init(struct wire_sample *s, enum peer_type type, uint64_t *seed,
                      uint32_t entries_max, uint32_t payload_max)
{
    static const enum raft_message_type raft_type[PEER_TYPE_END] = {
        [PEER_REQUEST_VOTE] = RAFT_REQUEST_VOTE,
        [PEER_REQUEST_VOTE_RESULT] = RAFT_REQUEST_VOTE_RESULT,
        [PEER_APPEND_ENTRIES] = RAFT_APPEND_ENTRIES,
        [PEER_APPEND_ENTRIES_RESULT] = RAFT_APPEND_ENTRIES_RESULT,
        [PEER_INSTALL_SNAPSHOT] = RAFT_INSTALL_SNAPSHOT,
        [PEER_TIMEOUT_NOW] = RAFT_TIMEOUT_NOW,
    };
    uint64_t term = 2 + number(seed, UINT64_MAX - 2);

    memset(s, 0, sizeof *s);
    s->type = type;
    s->epoch = number(seed, UINT64_MAX >> 20);
    s->raft.type = raft_type[type];
    switch (type) {
    case PEER_REQUEST_VOTE:
        make_request_vote(&s->raft.request_vote, seed, term);
        break;
    case PEER_REQUEST_VOTE_RESULT:
    case PEER_APPEND_ENTRIES_RESULT:
        make_results(s, seed, term);
        break;
    case PEER_APPEND_ENTRIES:
        s->raft.append_entries = (struct raft_append_entries){
            .version = (uint8_t)number(seed, 255),
            .term = term,
            .leader_commit = number(seed, INT64_MAX),
        };
        place(seed, term, &s->raft.append_entries.prev_log_index,
              &s->raft.append_entries.prev_log_term);
        make_entries(s, seed, wire_below(seed, entries_max + 1), payload_max);
        break;
    case PEER_INSTALL_SNAPSHOT:
        make_snapshot(s, seed, term, payload_max);
        break;
    case PEER_TIMEOUT_NOW:
        s->raft.timeout_now =
            (struct raft_timeout_now){ .version = (uint8_t)number(seed, 255), .term = term };
        place(seed, term, &s->raft.timeout_now.last_log_index, &s->raft.timeout_now.last_log_term);
        break;
    default:
        assert_int_equal(type, PEER_PING);
    }
}

void wire_sample_fini(struct wire_sample *s)
{
    raft_free(s->configuration.base);
    free(s->memory);
}

void wire_stream_put_bytes(struct wire_stream *to, const void *bytes, size_t n)
{
    if (to->n + n > to->cap) {
        to->cap = (to->n + n) * 2;
        to->bytes = realloc(to->bytes, to->cap);
        assert_non_null(to->bytes);
    }
    memcpy(to->bytes + to->n, bytes, n);
    to->n += n;
}

void wire_stream_put(struct wire_stream *to, const struct wire_sample *s)
{
    static uint8_t buf[PEER_HEADER_BYTES + PEER_HEAD_MAX] __attribute__((aligned(8)));
    struct iovec iov[1 + PEER_ENTRIES_MAX];
    ssize_t n;

    if (s->type == PEER_APPEND_ENTRIES) {
        n = peer_encode_append_entries(buf, sizeof buf, s->epoch, &s->raft.append_entries, s->entry,
                                       iov, 1 + PEER_ENTRIES_MAX);
        assert_true(n >= 1);
        for (ssize_t i = 0; i < n; i++)
            wire_stream_put_bytes(to, iov[i].iov_base, iov[i].iov_len);
        return;
    }
    n = s->type == PEER_PING ? peer_encode_ping(buf, sizeof buf, s->epoch)
                             : peer_encode(buf, sizeof buf, s->epoch, &s->raft);
    assert_true(n >= (ssize_t)PEER_HEADER_BYTES);
    wire_stream_put_bytes(to, buf, (size_t)n);
}

void wire_stream_fini(struct wire_stream *s) { free(s->bytes); }

void wire_frame_mend(uint8_t *p)
{
    struct peer_header h;

    memcpy(&h, p, sizeof h);
    h.head_crc = crc32c(0, p + sizeof h, h.head_bytes);
    memcpy(p, &h, sizeof h);
    h.crc = crc32c(0, p + offsetof(struct peer_header, type),
                   sizeof h - offsetof(struct peer_header, type));
    memcpy(p, &h, sizeof h);
}

static int pool_alloc(void *arg, const struct log_record *record, struct log_write **ret)
{
    struct wire_pool *p = arg;
    struct log_write *w;

    if (p->error != 0)
        return p->error;
    if (p->again > 0) {
        p->again--;
        return -EAGAIN;
    }
    w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->buf = aligned_alloc(LOG_ALIGN, record_bytes(record->payload_bytes));
    assert_non_null(w->buf);
    w->owner = p;
    p->live++;
    p->last = w;
    *ret = w;
    return 0;
}

void wire_pool_free(struct wire_pool *p, struct log_write *w)
{
    assert_ptr_equal(w->owner, p);
    assert_true(p->live > 0);
    p->live--;
    free(w->buf);
    free(w);
}

static void pool_free(void *arg, struct log_write *w) { wire_pool_free(arg, w); }

struct peer_decoder_memory wire_pool_memory(struct wire_pool *p)
{
    return (struct peer_decoder_memory){ pool_alloc, pool_free, p };
}

int wire_feed(struct peer_decoder *d, const uint8_t *bytes, size_t n, size_t *at,
              uint32_t piece_max, uint64_t *seed)
{
    void *to;
    int r = 0;

    while (r == 0 && *at < n) {
        size_t piece = peer_decoder_want(d, &to);

        if (piece == 0)
            break;
        if (piece > n - *at)
            piece = n - *at;
        if (piece_max > 0 && piece > 1 + wire_below(seed, piece_max))
            piece = 1 + wire_below(seed, piece_max) % (uint32_t)piece;
        memcpy(to, bytes + *at, piece);
        *at += piece;
        r = peer_decoder_got(d, piece);
    }
    return r;
}

static void assert_entries(const struct peer_message *m, const struct wire_sample *s)
{
    for (unsigned i = 0; i < m->raft.append_entries.n_entries; i++) {
        const struct log_write *w = m->write[i];
        struct raft_entry e = peer_raft_entry(w);

        assert_memory_equal(&w->record, &s->record[i], sizeof w->record);
        assert_int_equal(w->payload_crc, s->entry[i].payload_crc);
        assert_int_equal(e.term, w->record.term);
        assert_int_equal(e.buf.len, w->record.payload_bytes);
        assert_ptr_equal(e.buf.base, (uint8_t *)w->buf + LOG_HEADER_BYTES);
        if (e.buf.len > 0)
            assert_memory_equal(e.buf.base, s->entry[i].payload, e.buf.len);
    }
}

static void assert_snapshot(const struct peer_message *m, const struct wire_sample *s)
{
    const struct raft_install_snapshot *sent = &s->raft.install_snapshot;
    struct raft_install_snapshot got;

    assert_int_equal(peer_snapshot_take(&got, m), 0);
    assert_int_equal(got.version, sent->version);
    assert_int_equal(got.term, sent->term);
    assert_int_equal(got.last_index, sent->last_index);
    assert_int_equal(got.last_term, sent->last_term);
    assert_int_equal(got.conf_index, sent->conf_index);
    assert_int_equal(got.data.len, sent->data.len);
    if (got.data.len > 0)
        assert_memory_equal(got.data.base, sent->data.base, got.data.len);
    assert_int_equal(got.conf.n, sent->conf.n);
    for (unsigned i = 0; i < got.conf.n; i++) {
        assert_int_equal(got.conf.servers[i].id, sent->conf.servers[i].id);
        assert_int_equal(got.conf.servers[i].role, sent->conf.servers[i].role);
        assert_string_equal(got.conf.servers[i].address, sent->conf.servers[i].address);
    }
    raft_free(got.data.base);
    raft_configuration_close(&got.conf);
}

static void assert_vote(const struct raft_message *a, const struct raft_message *b)
{
    if (a->type == RAFT_REQUEST_VOTE) {
        const struct raft_request_vote *m = &a->request_vote, *s = &b->request_vote;

        assert_int_equal(m->version, s->version);
        assert_int_equal(m->term, s->term);
        assert_int_equal(m->candidate_id, s->candidate_id);
        assert_int_equal(m->last_log_index, s->last_log_index);
        assert_int_equal(m->last_log_term, s->last_log_term);
        assert_int_equal(m->disrupt_leader, s->disrupt_leader);
        assert_int_equal(m->pre_vote, s->pre_vote);
    } else {
        const struct raft_request_vote_result *m = &a->request_vote_result,
                                              *s = &b->request_vote_result;

        assert_int_equal(m->version, s->version);
        assert_int_equal(m->term, s->term);
        assert_int_equal(m->vote_granted, s->vote_granted);
        assert_int_equal(m->pre_vote, s->pre_vote);
        assert_int_equal(m->features, s->features);
        assert_int_equal(m->capacity, s->capacity);
    }
}

static void assert_append(const struct raft_message *a, const struct raft_message *b)
{
    if (a->type == RAFT_APPEND_ENTRIES) {
        const struct raft_append_entries *m = &a->append_entries, *s = &b->append_entries;

        assert_int_equal(m->version, s->version);
        assert_int_equal(m->term, s->term);
        assert_int_equal(m->prev_log_index, s->prev_log_index);
        assert_int_equal(m->prev_log_term, s->prev_log_term);
        assert_int_equal(m->leader_commit, s->leader_commit);
        assert_int_equal(m->n_entries, s->n_entries);
    } else {
        const struct raft_append_entries_result *m = &a->append_entries_result,
                                                *s = &b->append_entries_result;

        assert_int_equal(m->version, s->version);
        assert_int_equal(m->term, s->term);
        assert_int_equal(m->rejected, s->rejected);
        assert_int_equal(m->last_log_index, s->last_log_index);
        assert_int_equal(m->features, s->features);
        assert_int_equal(m->capacity, s->capacity);
    }
}

void wire_assert_equal(const struct peer_message *m, const struct wire_sample *s)
{
    assert_int_equal(m->frame.type, s->type);
    assert_int_equal(m->frame.epoch, s->epoch);
    if (s->type == PEER_PING)
        return;
    assert_int_equal(m->raft.type, s->raft.type);
    switch (m->raft.type) {
    case RAFT_REQUEST_VOTE:
    case RAFT_REQUEST_VOTE_RESULT:
        assert_vote(&m->raft, &s->raft);
        break;
    case RAFT_APPEND_ENTRIES:
    case RAFT_APPEND_ENTRIES_RESULT:
        assert_append(&m->raft, &s->raft);
        if (m->raft.type == RAFT_APPEND_ENTRIES)
            assert_entries(m, s);
        break;
    case RAFT_INSTALL_SNAPSHOT:
        assert_snapshot(m, s);
        break;
    case RAFT_TIMEOUT_NOW:
        assert_int_equal(m->raft.timeout_now.version, s->raft.timeout_now.version);
        assert_int_equal(m->raft.timeout_now.term, s->raft.timeout_now.term);
        assert_int_equal(m->raft.timeout_now.last_log_index, s->raft.timeout_now.last_log_index);
        assert_int_equal(m->raft.timeout_now.last_log_term, s->raft.timeout_now.last_log_term);
        break;
    }
}

void wire_free_entries(struct wire_pool *p, const struct peer_message *m)
{
    if (m->frame.type != PEER_APPEND_ENTRIES)
        return;
    for (unsigned i = 0; i < m->raft.append_entries.n_entries; i++)
        wire_pool_free(p, m->write[i]);
}
