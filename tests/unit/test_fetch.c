/*
 * test_fetch.c - an empty node and one that has a log, without anything between them but the posts
 * that the test hands over: what is asked, what is given, and what is not believed.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cluster/internal.h"
#include "cluster/log_private.h"
#include "cluster/peer_fetch.h"
#include "tests/lib/log_fixture.h"
#include "tests/lib/quiet_app.h"
#include "tests/lib/test_disk.h"

#define OWNER   1
#define NEW     2
#define ENTRIES 600u
#define BYTES   2000u /* of a payload */
#define POSTS   64

struct post {
    uint16_t to;
    enum peer_type type;
    uint8_t *body;
    size_t bytes;
};

struct node {
    struct cluster *c;
    struct disk *disk;
    char dir[FIXTURE_DIR_BYTES];
    struct post post[POSTS]; /* what it has said and nobody has taken yet */
    unsigned posts;
    bool mute;                                /* there is no connection */
    struct raft_append_entries_result answer; /* the last one */
    unsigned answers;
};

static uint64_t now_ns;

static uint64_t test_now(void *arg) { return (void)arg, now_ns; }

static void test_random(void *arg, void *ret, size_t bytes) { memset(ret, *(char *)arg, bytes); }

static int test_send(void *arg, const struct raft_message *m)
{
    struct node *n = arg;

    if (m->type == RAFT_APPEND_ENTRIES_RESULT) {
        n->answer = m->append_entries_result;
        n->answers++;
    }
    return 0;
}

static int test_post(void *arg, const struct node_post *p)
{
    struct node *n = arg;
    struct post *to = &n->post[n->posts];

    if (n->mute)
        return -EAGAIN;
    assert_in_range(n->posts, 0, POSTS - 1);
    assert_int_equal(p->iovs, 1);
    *to = (struct post){ p->to, p->type, aligned_alloc(8, p->iov->iov_len), p->iov->iov_len };
    memcpy(to->body, p->iov->iov_base, to->bytes);
    n->posts++;
    return 0;
}

static int app_open(void *arg, const uint8_t id[16], uint64_t last, uint64_t *ret_covered)
{
    (void)arg, (void)id, (void)last;
    *ret_covered = UINT64_MAX;
    return 0;
}

static int not_now(struct cluster *c, void (*fn)(struct cluster *),
                   void (*done)(struct cluster *, int))
{
    return (void)c, (void)fn, (void)done, -EBUSY;
}

static struct node *node_make(uint16_t number, const uint8_t *join, uint64_t fetch_bytes_per_s)
{
    struct node *n = calloc(1, sizeof *n);
    struct cluster_config config = {
        .dir = n->dir,
        .node = number,
        .region = 1,
        .segment_age_ns_max = 3600 * NS_PER_S,
        .log = { .segment_bytes = 1 << 20, .writes_max = 8, .mark_idle_ms = 10 },
        .join_cluster_id = join,
        .fetch_bytes_per_s = fetch_bytes_per_s,
    };
    struct cluster_app app = quiet_app(n);
    const struct node_environment environment = { test_now,    test_now,
                                                  test_random, join != NULL ? test_send : NULL,
                                                  test_post,   n };

    fixture_dir_make(n->dir);
    config.disk = n->disk = test_disk_make(number);
    app.open = app_open;
    n->c = node_new(&config, &app, &environment);
    assert_non_null(n->c);
    n->c->background = not_now;
    assert_int_equal(node_open(n->c), 0);
    return n;
}

static void node_end(struct node *n)
{
    node_free(n->c);
    test_disk_free(n->disk);
    for (unsigned i = 0; i < n->posts; i++)
        free(n->post[i].body);
    fixture_dir_remove(n->dir);
    free(n);
}

/* Turns it until it has nothing to do, its disk included. Returns 0 or what it says. */
static int turn(struct node *n)
{
    int e;

    do
        e = node_turn(n->c);
    while (e > 0 || (e == 0 && test_disk_in_flight(n->disk) > 0));
    return e;
}

static void append(struct node *n, unsigned entries)
{
    static uint8_t payload[BYTES];

    for (unsigned i = 0; i < entries; i++) {
        struct proposal *p;
        int e;

        memset(payload, (int)i, sizeof payload);
        p = proposal_new(LOG_SETTING, payload, sizeof payload);
        while ((e = propose_entry(n->c, p)) == -EAGAIN)
            assert_int_equal(turn(n), 0);
        assert_int_equal(e, 0);
    }
    assert_int_equal(turn(n), 0);
    assert_int_equal(n->c->applied_index, log_last_index(n->c->log));
}

static struct node *owner_make(void)
{
    struct node *n;

    now_ns = 1000 * NS_PER_S;
    n = node_make(OWNER, NULL, 0);
    assert_int_equal(turn(n), 0);
    append(n, ENTRIES);
    return n;
}

static struct node *new_make(struct node *owner, uint64_t fetch_bytes_per_s)
{
    struct node *n = node_make(NEW, owner->c->state.cluster_id, fetch_bytes_per_s);

    assert_int_equal(turn(n), 0);
    assert_int_equal(log_last_index(n->c->log), 0);
    return n;
}

/* As the owner's engine would: everything up to there. */
static int offer_to(struct node *owner, struct node *n, uint64_t last)
{
    struct raft_message m = {
        .type = RAFT_INSTALL_SNAPSHOT,
        .server_id = OWNER,
        .server_address = "",
        .install_snapshot = { .version = 1,
                              .term = owner->c->state.term,
                              .last_index = last,
                              .last_term = owner->c->state.term,
                              .conf_index = 1 },
    };
    struct raft_install_snapshot *s = &m.install_snapshot;
    void *data = raft_malloc(SHA256_BYTES);
    unsigned taken;
    uint8_t digest[SHA256_BYTES];

    assert_int_equal(fetch_offer(owner->c, s), 0);
    assert_int_equal(recovery_digest(owner->c, last, digest), 0);
    assert_memory_equal(s->data.base, digest, sizeof digest);
    memcpy(data, s->data.base, SHA256_BYTES);
    s->data.base = data;
    return consensus_receive(n->c, &m, NULL, &taken);
}

static int offer(struct node *owner, struct node *n)
{
    return offer_to(owner, n, owner->c->applied_index);
}

/* The oldest that `from` has said goes to `to`. Returns what that says to it. */
static int hand_over(struct node *from, struct node *to)
{
    struct post p = from->post[0];
    int e;

    assert_in_range(from->posts, 1, POSTS);
    assert_int_equal(p.to, to->c->config.node);
    memmove(from->post, from->post + 1, --from->posts * sizeof p);
    e = node_receive(to->c, from->c->config.node, p.type, p.body, p.bytes);
    free(p.body);
    return e;
}

/* Until n has what it was offered; it never has less than that of it. */
static void follow(struct node *owner, struct node *n, uint64_t least)
{
    while (n->c->fetch.active) {
        assert_int_equal(n->answers, 0);
        assert_int_equal(turn(n), 0);
        while (n->posts > 0)
            assert_int_equal(hand_over(n, owner), 0);
        assert_int_equal(turn(owner), 0);
        for (unsigned i = 0; i < owner->posts; i++)
            assert_in_range(owner->post[i].bytes, 1, (256u << 10) + PEER_ENTRY_BYTES + BYTES);
        while (owner->posts > 0)
            assert_int_equal(hand_over(owner, n), 0);
        assert_int_equal(turn(n), 0);
        assert_true(log_last_index(n->c->log) >= least);
    }
}

static void an_empty_node_gets_the_log_of_another(void **state)
{
    struct node *owner = owner_make(), *n = new_make(owner, 0);
    uint8_t digest[2][SHA256_BYTES];

    (void)state;
    assert_int_equal(offer(owner, n), 0);
    follow(owner, n, 0);
    log_digest(owner->c->log, digest[0]);
    log_digest(n->c->log, digest[1]);
    assert_memory_equal(digest[0], digest[1], SHA256_BYTES);
    assert_int_equal(n->c->applied_index, owner->c->applied_index);
    assert_int_equal(log_persisted_index(n->c->log), owner->c->applied_index);
    assert_int_equal(n->answers, 1);
    assert_int_equal(n->answer.rejected, 0);
    assert_int_equal(n->answer.last_log_index, owner->c->applied_index);
    assert_true(n->c->have_genesis);
    assert_int_equal(n->c->state.bootstrapped, 1);
    node_end(n);
    node_end(owner);
}

/* As a leader before would have made it: the owner's, or another in its place. */
static void take(struct node *n, struct node *owner, uint64_t index, bool same)
{
    struct peer_entry entry;
    struct proposal *p;
    uint8_t payload[BYTES];

    assert_int_equal(node_entry(owner->c, index, &entry), 0);
    memcpy(payload, entry.payload, sizeof payload);
    payload[0] ^= !same;
    p = proposal_new(LOG_SETTING, payload, sizeof payload);
    p->write.record.index = index;
    p->write.record.term = entry.record->term;
    p->write.record.time_ns = entry.record->time_ns;
    assert_int_equal(propose_take(n->c, p, index), 0);
    assert_int_equal(turn(n), 0);
    assert_true(propose_release(n->c, index)); /* as after a start */
}

/* What it has of the offered log it may have been counted on for: only the rest is cut, wherever
 * that begins, also when its log is longer than what is offered. */
static void a_tail_is_cut_where_it_parts_and_not_before(void **state)
{
    const unsigned same[] = { 0, 1, 2, 7, 39, 38, 40, 0 }, other[] = { 1, 1, 5, 30, 1, 2, 20, 90 };
    const unsigned more = 40;

    (void)state;
    for (unsigned i = 0; i < sizeof same / sizeof *same; i++) {
        struct node *owner = owner_make(), *n = new_make(owner, 0);
        uint64_t had = log_last_index(owner->c->log);
        uint8_t digest[2][SHA256_BYTES];

        assert_int_equal(offer(owner, n), 0);
        follow(owner, n, 0);
        n->answers = 0;
        append(owner, more + 60);
        for (unsigned k = 1; k <= same[i] + other[i]; k++)
            take(n, owner, had + k, k <= same[i]);
        assert_int_equal(n->c->commit_index, had);
        assert_int_equal(offer_to(owner, n, had + more), 0);
        assert_true(n->c->fetch.active);
        follow(owner, n, had + (same[i] < more ? same[i] : more - 1));
        assert_int_equal(n->c->applied_index, had + more);
        assert_int_equal(recovery_digest(owner->c, had + more, digest[0]), 0);
        log_digest(n->c->log, digest[1]);
        assert_memory_equal(digest[0], digest[1], SHA256_BYTES);
        node_end(n);
        node_end(owner);
    }
}

/* n has been offered the log of one, and gets that of another. */
static void a_log_that_is_not_the_one_offered_ends_the_node(void **state)
{
    struct node *owner = owner_make(), *n = new_make(owner, 0);

    (void)state;
    assert_int_equal(offer(owner, n), 0);
    n->c->fetch.digest[7] ^= 1;
    assert_int_equal(turn(n), 0);
    assert_int_equal(hand_over(n, owner), 0);
    assert_int_equal(turn(owner), 0);
    while (owner->posts > 0)
        assert_int_equal(hand_over(owner, n), 0);
    assert_int_equal(turn(n), -EILSEQ);
    assert_non_null(strstr(n->c->error, "not the one that node 1 has offered"));
    assert_true(n->c->fetch.active);
    node_end(n);
    node_end(owner);
}

static void entries_that_do_not_go_on_from_what_is_committed_end_the_node(void **state)
{
    struct node *owner = owner_make(), *n = new_make(owner, 0);

    (void)state;
    assert_int_equal(offer(owner, n), 0);
    assert_int_equal(turn(n), 0);
    assert_int_equal(hand_over(n, owner), 0);
    assert_int_equal(turn(owner), 0);
    owner->post[0].body[20] ^= 1; /* the digest before the first entry, that of the cluster's id */
    assert_int_equal(hand_over(owner, n), 0);
    assert_int_equal(turn(n), -EILSEQ);
    assert_non_null(strstr(n->c->error, "differs from node 1's"));
    node_end(n);
    node_end(owner);
}

static void what_is_broken_is_not_believed_and_what_nobody_asked_for_is_dropped(void **state)
{
    struct node *owner = owner_make(), *n = new_make(owner, 0);
    struct post p;

    (void)state;
    assert_int_equal(offer(owner, n), 0);
    assert_int_equal(turn(n), 0);
    assert_int_equal(hand_over(n, owner), 0);
    assert_int_equal(turn(owner), 0);
    p = owner->post[0];
    p.body[p.bytes - 9] ^= 1; /* a payload's byte */
    assert_int_equal(node_receive(n->c, OWNER, p.type, p.body, p.bytes), -EBADMSG);
    p.body[p.bytes - 9] ^= 1;
    assert_int_equal(node_receive(n->c, OWNER, p.type, p.body, p.bytes - 8), -EBADMSG);
    assert_int_equal(node_receive(n->c, 3, p.type, p.body, p.bytes), 0); /* of another */
    assert_null(n->c->fetch.queue);
    assert_int_equal(node_receive(n->c, OWNER, p.type, p.body, p.bytes), 0);
    assert_non_null(n->c->fetch.queue);
    assert_int_equal(node_receive(n->c, OWNER, p.type, p.body, p.bytes), 0); /* again */
    assert_int_equal(n->c->fetch.queued, p.bytes);
    assert_int_equal(node_receive(owner->c, NEW, p.type, p.body, p.bytes),
                     0); /* it lacks nothing */
    assert_null(owner->c->fetch.queue);
    node_end(n);
    node_end(owner);
}

static int ask(struct node *owner, uint64_t from, uint64_t to, uint32_t bytes, uint32_t more)
{
    uint64_t body[3] = { from, to, bytes | (uint64_t)more << 32 };

    return node_receive(owner->c, NEW, PEER_FETCH, body, sizeof body);
}

static void only_what_is_applied_is_given_and_no_more_than_was_granted(void **state)
{
    struct node *owner = owner_make();
    uint64_t last = owner->c->applied_index;
    struct peer_fetched m;

    (void)state;
    assert_int_equal(ask(owner, 0, 5, 100, 0), -EBADMSG);
    assert_int_equal(ask(owner, 6, 5, 100, 0), -EBADMSG);
    assert_int_equal(ask(owner, 1, UINT64_MAX, 100, 0), -EBADMSG);
    assert_int_equal(ask(owner, 1, 5, 0, 0), -EBADMSG);
    assert_int_equal(ask(owner, 1, 5, UINT32_MAX, 0), -EBADMSG);
    assert_int_equal(ask(owner, 1, 5, 100, 12), -EBADMSG);
    assert_int_equal(ask(owner, 1, 5, 100, 16), -EBADMSG);
    assert_int_equal(ask(owner, 1, 5, 100, 1), 0); /* more of nothing */
    assert_int_equal(turn(owner), 0);
    assert_int_equal(owner->posts, 0);

    assert_int_equal(ask(owner, last + 1, last + 3, 100000, 0), 0);
    assert_int_equal(turn(owner), 0);
    assert_int_equal(owner->posts, 0);
    append(owner, 1);
    assert_int_equal(owner->posts, 1);
    assert_null(peer_fetched_get(&m, owner->post[0].body, owner->post[0].bytes));
    assert_int_equal(m.from, last + 1);
    assert_int_equal(m.entries, 1);

    assert_int_equal(ask(owner, 10, last, 5000, 0), 0); /* up to the entry that reaches it */
    assert_int_equal(turn(owner), 0);
    assert_int_equal(owner->posts, 2);
    assert_null(peer_fetched_get(&m, owner->post[1].body, owner->post[1].bytes));
    assert_int_equal(m.from, 10);
    assert_int_equal(m.entries, 3);
    assert_int_equal(ask(owner, 1, last, 5000, 1), 0);
    assert_int_equal(turn(owner), 0);
    assert_int_equal(owner->posts, 3);
    assert_null(peer_fetched_get(&m, owner->post[2].body, owner->post[2].bytes));
    assert_int_equal(m.from, 13);
    node_end(owner);
}

static void what_cannot_be_sent_now_is_sent_later_or_not_at_all(void **state)
{
    struct node *owner = owner_make();

    (void)state;
    owner->mute = true;
    assert_int_equal(ask(owner, 1, 5, 100000, 0), 0);
    assert_int_equal(turn(owner), 0);
    assert_in_range(node_deadline_ns(owner->c, now_ns), now_ns + 1, now_ns + 10 * NS_PER_MS);
    owner->mute = false;
    assert_int_equal(turn(owner), 0);
    assert_int_equal(owner->posts, 0);
    now_ns += 10 * NS_PER_MS;
    assert_int_equal(turn(owner), 0);
    assert_int_equal(owner->posts, 1);

    owner->mute = true;
    assert_int_equal(ask(owner, 1, 5, 100000, 0), 0);
    assert_int_equal(turn(owner), 0);
    now_ns += NS_PER_S;
    assert_int_equal(turn(owner), 0);
    owner->mute = false;
    now_ns += NS_PER_S;
    assert_int_equal(turn(owner), 0);
    assert_int_equal(owner->posts, 1);
    node_end(owner);
}

static void who_is_silent_is_followed_by_others_and_a_limit_is_kept(void **state)
{
    struct node *owner = owner_make(), *n = new_make(owner, 100000);
    uint64_t begun_ns = now_ns, bytes = 0;
    struct peer_fetch m;

    (void)state;
    assert_int_equal(offer(owner, n), 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(turn(n), 0);
        assert_int_equal(n->posts, i + 1);
        assert_null(peer_fetch_get(&m, n->post[i].body, n->post[i].bytes));
        assert_int_equal(m.from, 1);
        assert_false(m.more);
        assert_int_equal(n->post[i].to, OWNER); /* the only other one */
        now_ns += NS_PER_S - 1;
        assert_int_equal(turn(n), 0);
        assert_int_equal(n->posts, i + 1);
        now_ns += 1;
    }
    while (n->c->fetch.active) {
        assert_int_equal(turn(n), 0);
        while (n->posts > 0) {
            assert_null(peer_fetch_get(&m, n->post[0].body, n->post[0].bytes));
            bytes += m.bytes;
            assert_int_equal(hand_over(n, owner), 0);
        }
        assert_int_equal(turn(owner), 0);
        while (owner->posts > 0)
            assert_int_equal(hand_over(owner, n), 0);
        assert_int_equal(turn(n), 0);
        now_ns += 5 * NS_PER_MS;
    }
    assert_true(bytes >= (uint64_t)ENTRIES * BYTES);
    assert_true(bytes <= (now_ns - begun_ns) / 1000 * 100000 / 1000000 + 100000);
    node_end(n);
    node_end(owner);
}

/* E8 */
static void a_message_from_before_what_the_engine_remembers_is_answered(void **state)
{
    struct node *owner = owner_make(), *n = new_make(owner, 0);
    struct raft_message m = {
        .type = RAFT_APPEND_ENTRIES,
        .server_id = OWNER,
        .server_address = "",
        .append_entries = { .version = 1, .prev_log_index = 5 },
    };
    unsigned taken;

    (void)state;
    m.append_entries.term = m.append_entries.prev_log_term = owner->c->state.term;
    assert_int_equal(offer(owner, n), 0);
    while (n->c->fetch.active) {
        assert_int_equal(turn(n), 0);
        while (n->posts > 0)
            assert_int_equal(hand_over(n, owner), 0);
        assert_int_equal(turn(owner), 0);
        while (owner->posts > 0)
            assert_int_equal(hand_over(owner, n), 0);
        assert_int_equal(turn(n), 0);
    }
    assert_int_equal(consensus_term(n->c, 5), 0);
    n->answers = 0;
    assert_int_equal(consensus_receive(n->c, &m, NULL, &taken), 0);
    assert_int_equal(n->answers, 1);
    assert_int_equal(n->answer.rejected, 0);
    assert_int_equal(n->answer.last_log_index, owner->c->applied_index);
    node_end(n);
    node_end(owner);
}

/* Two entries of 8 bytes; what a body must not have, one after the other. */
#define PACKED 3u

/* Entries of 0, 1,000 and 4,000 bytes that pack well; the first is too short for it. */
static size_t body_with_packed(uint8_t *ret, size_t *ret_plain, uint8_t *plain)
{
    static const uint8_t before[SHA256_BYTES] = { 5 };
    static const uint32_t bytes[PACKED] = { 0, 1000, 4000 };
    static uint8_t payload[4000] __attribute__((aligned(8)));
    struct peer_packer packer = { .level = 3 };
    size_t n = peer_fetched_begin(ret, 7, before);

    *ret_plain = peer_fetched_begin(plain, 7, before);
    for (uint32_t i = 0; i < PACKED; i++) {
        struct log_record r = {
            .index = 7 + i, .term = 1, .time_ns = 1, .type = LOG_SETTING, .payload_bytes = bytes[i]
        };
        struct peer_entry entry = { .record = &r, .payload = payload };

        for (uint32_t k = 0; k < bytes[i]; k++)
            payload[k] = (uint8_t)(k / 50 + i);
        entry.payload_crc = crc32c(0, payload, bytes[i]);
        sha256(r.payload_sha256, payload, bytes[i], NULL, 0);
        *ret_plain = peer_fetched_add(plain, *ret_plain, &entry);
        peer_pack(&packer, &entry, true);
        assert_int_equal(entry.packed_bytes > 0, i > 0);
        n = peer_fetched_add(ret, n, &entry);
    }
    peer_packer_fini(&packer);
    assert_in_range(n, 1, *ret_plain - 3000);
    return n;
}

static void a_packed_body_is_unpacked_or_refused(void **state)
{
    uint8_t *body = aligned_alloc(8, PEER_POST_MAX), *plain = aligned_alloc(8, PEER_POST_MAX),
            *to = aligned_alloc(8, PEER_POST_MAX);
    struct peer_unpacker u = { NULL };
    struct peer_wire_entry *second = (void *)(body + PEER_FETCHED_BYTES + PEER_ENTRY_BYTES);
    struct peer_fetched m;
    unsigned refused = 0;
    size_t n_plain, got, n = body_with_packed(body, &n_plain, plain);

    (void)state;
    assert_non_null(peer_fetched_get(&m, body, n)); /* as it is, nobody takes it */
    assert_true(peer_fetched_is_packed(body, n));
    assert_int_equal(peer_fetched_unpack(&u, body, n, to, &got), 0);
    assert_int_equal(got, n_plain);
    assert_memory_equal(to, plain, n_plain);
    assert_null(peer_fetched_get(&m, to, got));
    assert_null(peer_fetched_check_payloads(&m));
    assert_false(peer_fetched_is_packed(plain, n_plain));
    assert_int_equal(peer_fetched_unpack(&u, plain, n_plain, to, &got), 0);
    assert_int_equal(got, n_plain);
    assert_memory_equal(to, plain, n_plain);
    for (size_t k = 8; k < n; k += 8)
        assert_int_equal(peer_fetched_unpack(&u, body, n - k, to, &got), -EBADMSG);
    for (size_t k = 0; k < n; k++) {
        size_t first = PEER_FETCHED_BYTES + 2 * PEER_ENTRY_BYTES,
               next = first + second->packed_bytes;
        bool in_payload = (k >= first && k < next) || k >= next + PEER_ENTRY_BYTES;
        int e;

        body[k] ^= 0x55;
        e = peer_fetched_unpack(&u, body, n, to, &got);
        if (e == 0 && in_payload)
            assert_true(peer_fetched_get(&m, to, got) != NULL ||
                        peer_fetched_check_payloads(&m) != NULL);
        refused += e < 0;
        body[k] ^= 0x55;
    }
    assert_true(refused > 50);
    /* It says that there is more in it than a body may have. */
    second->payload_bytes = PEER_PAYLOAD_MAX;
    assert_int_equal(peer_fetched_unpack(&u, body, n, to, &got), -EBADMSG);
    peer_unpacker_fini(&u);
    free(body);
    free(plain);
    free(to);
}

static void an_older_node_is_asked_for_what_it_knows(void **state)
{
    struct peer_fetch m = {
        .from = 7, .to = 9, .bytes = 100, .more = true, .recovers = true, .packs = FETCH_LEAN
    };
    uint64_t body[2][PEER_FETCH_BYTES / 8];

    (void)state;
    peer_fetch_put((uint8_t *)body[0], &m);
    assert_null(peer_fetch_get(&m, body[0], sizeof body[0]));
    assert_true(m.more && m.recovers && m.packs == FETCH_LEAN);
    peer_fetch_plain((uint8_t *)body[1], body[0]);
    assert_null(peer_fetch_get(&m, body[1], sizeof body[1]));
    assert_true(m.from == 7 && m.to == 9 && m.bytes == 100 && m.more);
    assert_false(m.recovers);
    assert_int_equal(m.packs, FETCH_PLAIN);
}

static void a_body_that_cannot_be_is_refused(void **state)
{
    static const struct {
        uint32_t at, value; /* 4 bytes of the body */
        const char *wrong;
    } broken[] = {
        { 0, 0, "entries that no log can have" },
        { 4, 0x80000000, "entries that no log can have" },
        { 8, 0, "entries that no log can have" },
        { 8, 1, "more bytes than its entries have" },
        { 8, 3, "fewer entries than it says" },
        { 8, UINT32_MAX, "fewer entries than it says" },
        { 12, 1, "reserved bytes are not 0" },
        { 48, 0, "the terms of the entries cannot be" },
        { 48, 9, "the terms of the entries cannot be" },
        { 56, 9, "the times of the entries go back" },
        { 64, 99, "an unknown type of entry" },
        { 64, LOG_CHANGE, "this is not a configuration" },
        { 68, 16, NULL },
        { 68, 12, "a payload whose length is not a multiple of 8" },
        { 68, 256, "a payload that is cut off" },
        { 68, UINT32_MAX & ~7u, "a payload longer than a record's may be" },
        { 76, 1, "a packed payload that is not shorter, or not a multiple of 8" },
    };
    static uint8_t body[PEER_POST_MAX] __attribute__((aligned(8)));
    const uint8_t before[SHA256_BYTES] = { 0 };
    const uint64_t payload = 0;
    uint8_t copy[256] __attribute__((aligned(8)));
    struct peer_fetched m;
    size_t n = peer_fetched_begin(body, 7, before);

    (void)state;
    for (uint64_t i = 7; i < 9; i++) {
        struct log_record r = {
            .index = i, .term = 5, .time_ns = 5, .type = LOG_SETTING, .payload_bytes = 8
        };

        n = peer_fetched_add(body, n, &(struct peer_entry){ .record = &r, .payload = &payload });
    }
    assert_in_range(n, 1, sizeof copy);
    assert_null(peer_fetched_get(&m, body, n));
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        const char *wrong;

        memcpy(copy, body, n);
        memcpy(copy + broken[i].at, &broken[i].value, 4);
        wrong = peer_fetched_get(&m, copy, n);
        assert_non_null(wrong);
        if (broken[i].wrong != NULL)
            assert_string_equal(wrong, broken[i].wrong);
    }
    for (size_t short_of = 1; short_of <= n; short_of++)
        assert_non_null(peer_fetched_get(&m, body, n - short_of));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_node_gets_the_log_of_another),
        cmocka_unit_test(a_tail_is_cut_where_it_parts_and_not_before),
        cmocka_unit_test(a_log_that_is_not_the_one_offered_ends_the_node),
        cmocka_unit_test(entries_that_do_not_go_on_from_what_is_committed_end_the_node),
        cmocka_unit_test(what_is_broken_is_not_believed_and_what_nobody_asked_for_is_dropped),
        cmocka_unit_test(only_what_is_applied_is_given_and_no_more_than_was_granted),
        cmocka_unit_test(what_cannot_be_sent_now_is_sent_later_or_not_at_all),
        cmocka_unit_test(who_is_silent_is_followed_by_others_and_a_limit_is_kept),
        cmocka_unit_test(a_packed_body_is_unpacked_or_refused),
        cmocka_unit_test(an_older_node_is_asked_for_what_it_knows),
        cmocka_unit_test(a_body_that_cannot_be_is_refused),
        cmocka_unit_test(a_message_from_before_what_the_engine_remembers_is_answered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
