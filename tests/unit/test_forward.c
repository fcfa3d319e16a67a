/*
 * test_forward.c - one node by itself, as the follower that forwards or as the leader that is
 * forwarded to; the other side is played by the test, post by post.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cluster/internal.h"
#include "cluster/peer_forward.h"
#include "proto/wire.pb.h"
#include "tests/lib/alloc_guard.h"
#include "tests/lib/test_disk.h"

#define SELF   1
#define OTHER  2
#define THIRD  3
#define BLOCKS 16
#define POSTS  64u
#define EVENTS 12u

struct sent {
    uint16_t to;
    enum peer_type type;
    size_t bytes;
    uint64_t body[256];
};

static struct {
    struct cluster *c;
    struct disk *disk;
    struct cluster_link link;
    struct block *block[BLOCKS], *foreign;
    struct cluster_bootstrap bootstrap;
    char dir[64];
    uint64_t now_ns;
    struct sent sent[POSTS];
    unsigned posts;
    int post_error;
    uint32_t duplicates; /* this many of a block's first events are taken for duplicates ... */
    uint32_t conflicts;  /* ... and of those behind them for conflicts */
    int ready;
    unsigned admitted;
} t;

/* --- what the node gets -------------------------------------------------------------------------
 */

static uint64_t now(void *arg) { return (void)arg, t.now_ns; }
static uint64_t unix_now(void *arg) { return (void)arg, 1790000000ull * NS_PER_S + t.now_ns; }
static void fixed(void *arg, void *ret, size_t n) { (void)arg, memset(ret, 0x5a, n); }
static int drop(void *arg, const struct raft_message *m) { return (void)arg, (void)m, 0; }

static int post(void *arg, const struct node_post *p)
{
    struct sent *s = &t.sent[t.posts];
    uint8_t *to;

    (void)arg;
    if (t.post_error != 0)
        return t.post_error;
    assert_true(t.posts < POSTS);
    s->to = p->to;
    s->type = p->type;
    s->bytes = 0;
    for (unsigned i = 0; i < p->iovs; i++)
        s->bytes += p->iov[i].iov_len;
    assert_int_equal(s->bytes % 8, 0);
    assert_in_range(s->bytes, 8, sizeof s->body);
    to = (uint8_t *)s->body;
    for (unsigned i = 0; i < p->iovs; to += p->iov[i++].iov_len)
        memcpy(to, p->iov[i].iov_base, p->iov[i].iov_len);
    t.posts++;
    return 0;
}

static int app_ready(void *arg, size_t n) { return (void)arg, (void)n, t.ready; }

static int app_admit(void *arg, struct block *b, uint64_t index)
{
    (void)arg, (void)index;
    t.admitted++;
    for (uint32_t i = 0; i < t.duplicates + t.conflicts; i++) {
        bool duplicate = i < t.duplicates;

        b->verdict[i] = duplicate ? VERDICT_DUPLICATE : VERDICT_CONFLICT;
        if (b->request_of[i] != REQUEST_NONE)
            b->exception[b->exceptions++] = (struct block_exception){
                .first_index = 1,
                .request = b->request_of[i],
                .position = b->position[i],
                .first_slot = (uint16_t)(i + 100),
                .reason = duplicate ? sluice_v1_Reason_DUPLICATE : sluice_v1_Reason_ID_CONFLICT,
            };
    }
    return (int)(b->events - t.duplicates - t.conflicts);
}

static int app_apply(void *arg, const struct log_record *r, const void *payload, bool ours)
{
    return (void)arg, (void)r, (void)payload, (void)ours, 0;
}

static int app_open(void *arg, const uint8_t id[16], uint64_t last_index, uint64_t *ret_covered)
{
    (void)arg, (void)id, (void)last_index;
    *ret_covered = 0;
    return 0;
}

static void app_failed(void *arg, const char *sentence) { (void)arg, (void)sentence; }
static void app_save(void *arg, struct cluster_checkpoint *k) { (void)arg, k->settings = 0; }
static int app_load(void *arg, const struct cluster_checkpoint *k) { return (void)arg, (void)k, 0; }

/* Until there is nothing more to do; the disk completes something about every other time. */
static void turn(void)
{
    for (unsigned idle = 0; idle < 32; idle++) {
        int e = node_turn(t.c);

        if (e < 0)
            fail_msg("the node failed: %s", t.c->error);
        if (e > 0)
            idle = 0;
    }
}

static void later_ms(uint64_t ms)
{
    t.now_ns += ms * NS_PER_MS;
    turn();
}

static void start(bool alone)
{
    const struct cluster_config config = {
        .dir = t.dir,
        .node = SELF,
        .region = 1,
        .segment_age_ns_max = 300 * NS_PER_S,
        .log = { .segment_bytes = 1 << 20, .writes_max = 64, .mark_idle_ms = 10 },
        .disk = t.disk,
        .link = &t.link,
        .links = 1,
        .bootstrap = alone ? NULL : &t.bootstrap,
        .election_ms = 60000, /* nobody stands for election by chance */
    };
    const struct cluster_app app = { NULL,     app_ready,  app_admit, app_apply,
                                     app_open, app_failed, app_save,  app_load };
    const struct node_environment environment = { now, unix_now, fixed, drop, post, NULL };

    t.c = node_new(&config, &app, &environment);
    assert_non_null(t.c);
    if (node_open(t.c) < 0)
        fail_msg("the node does not start: %s", t.c->error);
    turn();
}

static int setup(void **state)
{
    (void)state;
    memset(&t, 0, sizeof t);
    t.now_ns = 1000 * NS_PER_S;
    t.disk = test_disk_make(1);
    snprintf(t.dir, sizeof t.dir, "/tmp/sluice-forward-XXXXXX");
    assert_non_null(mkdtemp(t.dir));
    assert_int_equal(ring_init(&t.link.submit, BLOCKS), 0);
    assert_int_equal(ring_init(&t.link.answer, BLOCKS), 0);
    assert_int_equal(wake_open(&t.link.wake), 0);
    for (unsigned i = 0; i <= BLOCKS; i++) {
        struct block *b = calloc(1, sizeof *b);

        assert_non_null(b);
        assert_int_equal(block_init(b, 0), 0);
        *(i < BLOCKS ? &t.block[i] : &t.foreign) = b;
    }
    t.bootstrap = (struct cluster_bootstrap){ .cluster_id = { 1 }, .time_ns = 1, .members = 3 };
    for (uint16_t i = 0; i < 3; i++) {
        t.bootstrap.member[i] = (struct member){
            .node = (uint16_t)(i + 1),
            .role = MEMBER_VOTER,
            .port = (uint16_t)(7001 + i),
            .region = 1,
            .host = "h",
        };
        memset(t.bootstrap.member[i].directory_id, i + 1, MEMBER_DIRECTORY_BYTES);
    }
    return 0;
}

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *f)
{
    (void)s, (void)flag, (void)f;
    return remove(path);
}

static int teardown(void **state)
{
    (void)state;
    test_disk_stall(t.disk, false);
    if (t.c != NULL)
        node_free(t.c);
    test_disk_free(t.disk);
    for (unsigned i = 0; i <= BLOCKS; i++) {
        struct block *b = i < BLOCKS ? t.block[i] : t.foreign;

        block_fini(b);
        free(b);
    }
    ring_fini(&t.link.submit);
    ring_fini(&t.link.answer);
    wake_close(&t.link.wake);
    nftw(t.dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    return 0;
}

/* --- the worker's side --------------------------------------------------------------------------
 */

/* Events of 9 bytes and more, so that what is left has to move; three requests, of which the first
 * event of each has none. */
static void fill(struct block *b, uint16_t node, uint64_t first)
{
    block_reset(b);
    for (uint32_t i = 0; i < EVENTS; i++) {
        uint64_t number = first + i;
        uint32_t bytes = 9 + i % 3;

        memset(block_payload(b) + b->bytes, 'a' + (int)i, bytes);
        memcpy(block_payload(b) + b->bytes, &number, sizeof number);
        b->desc[i] = (struct block_desc){
            .key = { number, 7 }, .offset = b->bytes, .bytes = (uint16_t)bytes, .type = 1
        };
        b->content[i] = number * 3;
        b->type[i] = 1;
        b->position[i] = (uint16_t)(i % 4);
        b->request_of[i] = i % 4 == 0 ? REQUEST_NONE : (uint16_t)(i / 4);
        b->verdict[i] = VERDICT_COMMITTED;
        b->bytes += bytes;
        b->events++;
    }
    b->requests = 3;
    block_seal(b, node, 1);
}

static void submit(unsigned i)
{
    fill(t.block[i], SELF, 1000 * (i + 1));
    assert_true(ring_push(&t.link.submit, t.block[i]));
}

static struct block *answer(void) { return ring_pop(&t.link.answer); }

/* --- the other node's side ----------------------------------------------------------------------
 */

/* It is the leader of a later term than any so far. */
static void follow(uint16_t leader)
{
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES, .server_id = leader };
    unsigned taken;

    m.server_address = "";
    m.append_entries = (struct raft_append_entries){
        .term = t.c->state.term + 1,
        .prev_log_index = log_last_index(t.c->log),
        .prev_log_term = log_last_term(t.c->log),
        .leader_commit = 1,
    };
    assert_int_equal(consensus_receive(t.c, &m, NULL, &taken), 0);
    assert_int_equal(consensus_leader(t.c), leader);
    turn();
}

static const struct peer_forward *forward_sent(unsigned i)
{
    struct peer_forward_view v;

    assert_true(i < t.posts);
    assert_int_equal(t.sent[i].type, PEER_FORWARD);
    assert_int_equal(peer_forward_get(&v, SELF, t.sent[i].body, t.sent[i].bytes), 0);
    return v.head;
}

static struct {
    struct peer_forwarded head;
    struct peer_exception exception[EVENTS];
} word;

/* Of the i-th post; exceptions are in word.exception already. */
static int say(unsigned i, uint16_t from, enum peer_outcome outcome, uint32_t exceptions)
{
    const struct peer_forward *f = forward_sent(i);

    word.head = (struct peer_forwarded){
        .process = f->process, .id = f->id, .events = f->events, .outcome = outcome
    };
    if (outcome == PEER_DECIDED) {
        word.head.exceptions = exceptions;
        word.head.accepted = f->events - exceptions;
        word.head.index = word.head.accepted > 0 ? 70 + i : 0;
        word.head.term = t.c->state.term;
    }
    return node_receive(t.c, from, PEER_FORWARDED, &word,
                        sizeof word.head + exceptions * sizeof word.exception[0]);
}

/* --- a node that follows ------------------------------------------------------------------------
 */

static void a_block_goes_to_the_leader_as_its_worker_has_sealed_it(void **state)
{
    struct peer_forward_view v;
    struct block *b = t.block[0];

    (void)state;
    start(false);
    submit(0);
    turn();
    assert_int_equal(t.posts, 0); /* nobody is known to lead */
    follow(OTHER);
    assert_int_equal(t.posts, 1);
    assert_int_equal(t.sent[0].to, OTHER);
    assert_int_equal(peer_forward_get(&v, SELF, t.sent[0].body, t.sent[0].bytes), 0);
    assert_int_equal(v.block.payload_bytes, b->write.record.payload_bytes);
    assert_memory_equal(v.block.payload, block_payload(b), v.block.payload_bytes);
    assert_memory_equal(v.content, b->content, EVENTS * sizeof b->content[0]);
    assert_memory_equal(v.head->payload_sha256, b->write.record.payload_sha256, SHA256_BYTES);
    assert_null(answer());
    assert_int_equal(say(0, OTHER, PEER_DECIDED, 0), 0);
    turn();
    assert_ptr_equal(answer(), b);
    assert_int_equal(b->index, 70);
    assert_int_equal(b->term, t.c->state.term);
    assert_int_equal(b->accepted, EVENTS);
    assert_int_equal(b->exceptions, 0);
    assert_true(t.c->applied_index < 70);
    assert_int_equal(t.admitted, 0);
    assert_int_equal(t.c->forward.waiting, 0);
}

/* 2 and 3 are of request 0, 4 is nobody's, 9 of request 2. */
static void what_was_left_out_is_an_exception_of_the_request_that_waits_for_it(void **state)
{
    static const uint16_t left_out[] = { 2, 3, 4, 9 };
    struct block *b = t.block[0], *same = t.foreign;

    (void)state;
    start(false);
    follow(OTHER);
    submit(0);
    turn();
    for (unsigned i = 0; i < 4; i++)
        word.exception[i] = (struct peer_exception){
            .first_index = 40 + i,
            .position = left_out[i],
            .first_slot = (uint16_t)(5 + i),
            .reason = i == 1 ? sluice_v1_Reason_ID_CONFLICT : sluice_v1_Reason_DUPLICATE,
        };
    b->exception[b->exceptions++] = (struct block_exception){ .request = 1, .reason = 3 };
    assert_int_equal(say(0, OTHER, PEER_DECIDED, 4), 0);
    turn();
    assert_ptr_equal(answer(), b);
    assert_int_equal(b->exceptions, 4); /* the worker's own, and three of four */
    assert_int_equal(b->exception[1].request, 0);
    assert_int_equal(b->exception[1].position, 2);
    assert_int_equal(b->exception[1].first_index, 40);
    assert_int_equal(b->exception[1].first_slot, 5);
    assert_int_equal(b->exception[1].reason, sluice_v1_Reason_DUPLICATE);
    assert_int_equal(b->exception[2].position, 3);
    assert_int_equal(b->exception[2].reason, sluice_v1_Reason_ID_CONFLICT);
    assert_int_equal(b->exception[3].request, 2);
    assert_int_equal(b->exception[3].position, 1);
    assert_int_equal(b->exception[3].first_slot, 8);
    assert_int_equal(b->verdict[3], VERDICT_CONFLICT);
    assert_int_equal(b->verdict[4], VERDICT_DUPLICATE);
    assert_int_equal(b->accepted, EVENTS - 4);
    /* Its payload is by now what the leader has in the log: assigned ids are read from it. */
    fill(same, SELF, 1000);
    for (unsigned i = 0; i < 4; i++)
        same->verdict[left_out[i]] = VERDICT_DUPLICATE;
    block_seal(same, SELF, 1);
    assert_memory_equal(block_payload(b), block_payload(same), same->write.record.payload_bytes);
}

static void nothing_of_a_block_may_be_new(void **state)
{
    struct block *b = t.block[0];

    (void)state;
    start(false);
    follow(OTHER);
    submit(0);
    turn();
    for (unsigned i = 0; i < EVENTS; i++)
        word.exception[i] = (struct peer_exception){ .first_index = 9,
                                                     .position = (uint16_t)i,
                                                     .reason = sluice_v1_Reason_DUPLICATE };
    assert_int_equal(say(0, OTHER, PEER_DECIDED, EVENTS), 0);
    turn();
    assert_ptr_equal(answer(), b);
    assert_int_equal(b->accepted, 0);
    assert_int_equal(b->index, 0);
    assert_int_equal(b->exceptions, EVENTS - 3);
}

static void answers_leave_in_the_order_of_the_blocks(void **state)
{
    (void)state;
    start(false);
    follow(OTHER);
    for (unsigned i = 0; i < 3; i++)
        submit(i);
    turn();
    assert_int_equal(say(2, OTHER, PEER_DECIDED, 0), 0);
    assert_int_equal(say(1, OTHER, PEER_DISK_FULL, 0), 0);
    turn();
    assert_null(answer());
    assert_int_equal(say(0, OTHER, PEER_DECIDED, 0), 0);
    turn();
    for (unsigned i = 0; i < 3; i++) {
        assert_ptr_equal(answer(), t.block[i]);
        assert_int_equal(t.block[i]->verdict[0], i == 1 ? VERDICT_REFUSED : VERDICT_COMMITTED);
        assert_int_equal(t.block[i]->index, i == 1 ? 0 : 70 + i);
    }
    assert_int_equal(t.block[1]->refuse_reason, sluice_v1_Reason_DISK_FULL);
}

static void what_does_not_fit_into_the_window_waits(void **state)
{
    (void)state;
    start(false);
    follow(OTHER);
    for (unsigned i = 0; i < BLOCKS; i++)
        submit(i);
    turn();
    assert_int_equal(t.posts, CLUSTER_FORWARD_WINDOW);
    assert_non_null(t.c->arrived);
    assert_int_equal(say(3, OTHER, PEER_DECIDED, 0), 0);
    turn();
    assert_int_equal(t.posts, CLUSTER_FORWARD_WINDOW + 1);
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (i != 3)
            assert_int_equal(say(i, OTHER, PEER_DECIDED, 0), 0);
        turn();
    }
    for (unsigned i = 0; i < BLOCKS; i++)
        assert_ptr_equal(answer(), t.block[i]);
    assert_int_equal(t.posts, BLOCKS);
}

static void without_an_answer_the_same_block_is_sent_again(void **state)
{
    (void)state;
    start(false);
    follow(OTHER);
    submit(0);
    turn();
    later_ms(900);
    assert_int_equal(t.posts, 1);
    assert_true(node_deadline_ns(t.c, t.now_ns) <= t.now_ns + 100 * NS_PER_MS);
    later_ms(100);
    assert_int_equal(t.posts, 2);
    assert_int_equal(t.sent[1].bytes, t.sent[0].bytes);
    assert_memory_equal(t.sent[1].body, t.sent[0].body, t.sent[0].bytes);
    assert_int_equal(t.c->forward.resent, 1);
    follow(THIRD); /* at once, to another leader */
    assert_int_equal(t.posts, 3);
    assert_int_equal(t.sent[2].to, THIRD);
    assert_memory_equal(t.sent[2].body, t.sent[0].body, t.sent[0].bytes);
    /* The first one's word is as good. */
    assert_int_equal(say(0, OTHER, PEER_DECIDED, 0), 0);
    turn();
    assert_ptr_equal(answer(), t.block[0]);
    assert_int_equal(say(2, THIRD, PEER_DECIDED, 0), 0);
    turn();
    assert_null(answer());
}

static void one_that_does_not_take_it_is_asked_again_more_and_more_rarely(void **state)
{
    static const unsigned delay_ms[] = { 20, 40, 80, 160, 160 };

    (void)state;
    start(false);
    follow(OTHER);
    submit(0);
    turn();
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(say(i, THIRD, PEER_AGAIN, 0), 0); /* of no interest */
        assert_int_equal(say(i, OTHER, PEER_AGAIN, 0), 0);
        turn();
        later_ms(delay_ms[i] - 1);
        assert_int_equal(t.posts, i + 1);
        later_ms(1);
        assert_int_equal(t.posts, i + 2);
    }
    assert_int_equal(t.c->forward.resent, 0);
}

static void without_a_connection_it_is_tried_again(void **state)
{
    (void)state;
    start(false);
    follow(OTHER);
    t.post_error = -EAGAIN;
    submit(0);
    turn();
    t.post_error = 0;
    turn();
    assert_int_equal(t.posts, 0);
    assert_true(node_deadline_ns(t.c, t.now_ns) <= t.now_ns + 20 * NS_PER_MS);
    later_ms(20);
    assert_int_equal(t.posts, 1);
}

static void a_block_that_nobody_decides_about_is_refused_in_the_end(void **state)
{
    (void)state;
    start(false);
    follow(OTHER);
    for (unsigned i = 0; i < CLUSTER_FORWARD_WINDOW + 1; i++)
        submit(i);
    turn();
    later_ms(CLUSTER_FORWARD_MS - 1);
    assert_null(answer());
    assert_int_equal(node_deadline_ns(t.c, t.now_ns), t.now_ns + NS_PER_MS);
    later_ms(1);
    for (unsigned i = 0; i < CLUSTER_FORWARD_WINDOW + 1; i++) {
        assert_ptr_equal(answer(), t.block[i]);
        assert_int_equal(t.block[i]->verdict[EVENTS - 1], VERDICT_REFUSED);
        assert_int_equal(t.block[i]->refuse_reason, sluice_v1_Reason_NOT_LEADER);
    }
    assert_int_equal(t.c->forward.waiting, 0);
    /* Its memory may be another's by now. */
    submit(0);
    turn();
    assert_int_equal(say(0, OTHER, PEER_DECIDED, 0), 0);
    turn();
    assert_null(answer());
}

static void an_answer_is_for_one_block_of_one_process(void **state)
{
    (void)state;
    start(false);
    follow(OTHER);
    submit(0);
    submit(1);
    turn();
    assert_int_equal(say(0, OTHER, PEER_DECIDED, 0), 0);
    turn();
    assert_ptr_equal(answer(), t.block[0]);
    assert_int_equal(say(0, OTHER, PEER_DECIDED, 0), 0);
    word.head.id = forward_sent(1)->id;
    word.head.process++;
    assert_int_equal(node_receive(t.c, OTHER, PEER_FORWARDED, &word, sizeof word.head), 0);
    turn();
    assert_null(answer());
    word.head.process--;
    word.head.events = word.head.accepted = EVENTS - 1;
    assert_int_equal(node_receive(t.c, OTHER, PEER_FORWARDED, &word, sizeof word.head), -EBADMSG);
    turn();
    assert_null(answer());
}

/* --- a node that leads --------------------------------------------------------------------------
 */

static struct {
    struct peer_forward head;
    uint8_t rest[PEER_FORWARD_MAX - sizeof(struct peer_forward)];
} asked __attribute__((aligned(8)));
static size_t asked_bytes;

static void make_forward(uint16_t from, uint64_t process, uint64_t id)
{
    struct iovec iov[PEER_FORWARD_IOVS];
    struct peer_forward head;
    uint8_t *to = (uint8_t *)&asked;

    fill(t.foreign, from, id * 1000);
    peer_forward_put(&head, t.foreign, process, id, iov);
    for (unsigned i = 0; i < PEER_FORWARD_IOVS; to += iov[i++].iov_len)
        memcpy(to, iov[i].iov_base, iov[i].iov_len);
    asked_bytes = (size_t)(to - (uint8_t *)&asked);
}

static int ask(uint64_t process, uint64_t id)
{
    make_forward(OTHER, process, id);
    return node_receive(t.c, OTHER, PEER_FORWARD, &asked, asked_bytes);
}

static const struct peer_forwarded *told(unsigned i, const struct peer_exception **ret)
{
    const struct peer_exception *x;
    const struct peer_forwarded *h;

    assert_true(i < t.posts);
    assert_int_equal(t.sent[i].to, OTHER);
    assert_int_equal(t.sent[i].type, PEER_FORWARDED);
    assert_int_equal(peer_forwarded_get(&h, &x, t.sent[i].body, t.sent[i].bytes), 0);
    if (ret != NULL)
        *ret = x;
    return h;
}

static void lead(void)
{
    start(true);
    for (unsigned i = 0; i < 1000 && t.c->lead != LEAD_READY; i++)
        later_ms(1);
    assert_int_equal(t.c->lead, LEAD_READY);
}

static void a_forwarded_block_is_answered_when_it_is_committed(void **state)
{
    uint64_t last;
    const struct peer_forwarded *h;
    struct peer_entry e;

    (void)state;
    lead();
    last = log_last_index(t.c->log);
    test_disk_stall(t.disk, true);
    assert_int_equal(ask(5, 1), 0);
    turn();
    assert_int_equal(log_last_index(t.c->log), last + 1);
    assert_int_equal(t.posts, 0);
    test_disk_stall(t.disk, false);
    turn();
    assert_int_equal(t.posts, 1);
    h = told(0, NULL);
    assert_int_equal(h->outcome, PEER_DECIDED);
    assert_int_equal(h->process, 5);
    assert_int_equal(h->id, 1);
    assert_int_equal(h->index, last + 1);
    assert_int_equal(h->term, t.c->state.term);
    assert_int_equal(h->accepted, EVENTS);
    assert_int_equal(h->exceptions, 0);
    assert_int_equal(node_entry(t.c, last + 1, &e), 0);
    assert_int_equal(e.record->payload_bytes, t.foreign->write.record.payload_bytes);
    assert_memory_equal(e.payload, block_payload(t.foreign), e.record->payload_bytes);
    assert_null(answer()); /* no worker of this node has to do with it */
}

static void every_event_that_is_left_out_is_named(void **state)
{
    const struct peer_exception *x;
    const struct peer_forwarded *h;
    struct block_view v;
    struct peer_entry e;

    (void)state;
    lead();
    t.duplicates = 3;
    t.conflicts = 1;
    assert_int_equal(ask(5, 1), 0);
    turn();
    h = told(0, &x);
    assert_int_equal(h->accepted, EVENTS - 4);
    assert_int_equal(h->exceptions, 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(x[i].position, i);
        assert_int_equal(x[i].first_index, 1);
        assert_int_equal(x[i].first_slot, 100 + i);
        assert_int_equal(x[i].reason,
                         i < 3 ? sluice_v1_Reason_DUPLICATE : sluice_v1_Reason_ID_CONFLICT);
    }
    assert_int_equal(node_entry(t.c, h->index, &e), 0);
    assert_int_equal(block_view(&v, e.payload, e.record->payload_bytes), 0);
    assert_int_equal(v.header->events, EVENTS - 4);
    assert_int_equal(v.header->node, OTHER); /* and not of this node */
    t.duplicates = EVENTS - 1;
    assert_int_equal(ask(5, 2), 0);
    turn();
    h = told(1, &x);
    assert_int_equal(h->accepted, 0);
    assert_int_equal(h->index, 0);
    assert_int_equal(h->exceptions, EVENTS);
}

static void a_block_that_comes_twice_is_taken_once(void **state)
{
    (void)state;
    lead();
    test_disk_stall(t.disk, true);
    assert_int_equal(ask(5, 1), 0);
    turn();
    assert_int_equal(ask(5, 1), 0);
    turn();
    assert_int_equal(t.admitted, 1);
    t.post_error = -EAGAIN; /* and the connection is gone when it could be answered */
    test_disk_stall(t.disk, false);
    turn();
    assert_int_equal(t.posts, 0);
    t.post_error = 0;
    assert_int_equal(ask(5, 1), 0);
    assert_int_equal(t.posts, 1);
    turn();
    assert_int_equal(t.admitted, 1);
    assert_int_equal(t.posts, 1);
    /* Once the answer is given, it is forgotten: it is a block with events that are known. */
    assert_int_equal(ask(5, 1), 0);
    turn();
    assert_int_equal(t.admitted, 2);
}

static void an_answer_waits_for_the_connection_but_not_for_ever(void **state)
{
    (void)state;
    lead();
    t.post_error = -EAGAIN;
    assert_int_equal(ask(5, 1), 0);
    turn();
    assert_int_equal(t.c->forward.unsent, 1);
    assert_true(node_deadline_ns(t.c, t.now_ns) <= t.now_ns + 20 * NS_PER_MS);
    t.post_error = 0;
    later_ms(20);
    assert_int_equal(t.posts, 1);
    assert_int_equal(told(0, NULL)->outcome, PEER_DECIDED);
    assert_int_equal(t.c->forward.unsent, 0);
    t.post_error = -EAGAIN;
    assert_int_equal(ask(5, 2), 0);
    turn();
    later_ms(CLUSTER_FORWARD_MS);
    assert_int_equal(t.c->forward.unsent, 0);
    /* Nor when its process is no more. */
    assert_int_equal(ask(5, 3), 0);
    turn();
    assert_int_equal(t.c->forward.unsent, 1);
    t.post_error = 0;
    assert_int_equal(ask(6, 3), 0);
    later_ms(20);
    assert_int_equal(t.posts, 2);
    assert_int_equal(told(1, NULL)->process, 6);
    assert_int_equal(t.c->forward.unsent, 0);
}

static void there_is_room_for_one_nodes_window(void **state)
{
    (void)state;
    lead();
    t.ready = -EAGAIN;
    for (uint64_t id = 1; id <= CLUSTER_FORWARD_WINDOW; id++)
        assert_int_equal(ask(5, id), 0);
    turn();
    assert_int_equal(t.posts, 0);
    assert_int_equal(ask(5, CLUSTER_FORWARD_WINDOW + 1), 0);
    assert_int_equal(t.posts, 1);
    assert_int_equal(told(0, NULL)->outcome, PEER_AGAIN);
    assert_int_equal(told(0, NULL)->id, CLUSTER_FORWARD_WINDOW + 1);
    t.ready = -ENOSPC;
    turn();
    assert_int_equal(t.posts, 1 + CLUSTER_FORWARD_WINDOW);
    for (unsigned i = 1; i < t.posts; i++)
        assert_int_equal(told(i, NULL)->outcome, PEER_DISK_FULL);
    t.ready = 0;
    assert_int_equal(ask(5, CLUSTER_FORWARD_WINDOW + 1), 0);
    turn();
    assert_int_equal(told(t.posts - 1, NULL)->outcome, PEER_DECIDED);
}

static void who_does_not_lead_takes_nothing(void **state)
{
    (void)state;
    start(false);
    assert_int_equal(ask(5, 1), 0);
    follow(THIRD);
    assert_int_equal(ask(5, 2), 0);
    turn();
    assert_int_equal(t.posts, 2);
    assert_int_equal(told(1, NULL)->outcome, PEER_AGAIN);
    t.post_error = -EAGAIN; /* the other will ask again */
    assert_int_equal(ask(5, 3), 0);
    turn();
    assert_int_equal(t.c->forward.unsent, 0);
}

/* Both ways, with the pool and all that the engine needs in place. */
static void nothing_is_allocated_in_between(void **state)
{
    (void)state;
    lead();
    for (uint64_t id = 1; id <= 120; id++) {
        if (id == 60) {
            alloc_guard_watch(gettid());
            alloc_guard_arm();
        }
        t.posts = 0;
        assert_int_equal(ask(5, id), 0);
        turn();
        assert_int_equal(t.posts, 1);
    }
    if (alloc_guard_disarm() > 0 && alloc_guard_works()) {
        alloc_guard_print();
        fail_msg("the leader allocates");
    }
}

static void nor_by_the_one_that_forwards(void **state)
{
    (void)state;
    start(false);
    follow(OTHER);
    for (unsigned i = 0; i < 200; i++) {
        if (i == 100) {
            alloc_guard_watch(gettid());
            alloc_guard_arm();
        }
        t.posts = 0;
        submit(0);
        turn();
        assert_int_equal(say(0, OTHER, PEER_DECIDED, 0), 0);
        turn();
        assert_ptr_equal(answer(), t.block[0]);
    }
    if (alloc_guard_disarm() > 0 && alloc_guard_works()) {
        alloc_guard_print();
        fail_msg("the node that forwards allocates");
    }
}

static void what_is_not_believed_is_said_so(void **state)
{
    (void)state;
    lead();
    make_forward(THIRD, 5, 1);
    assert_int_equal(node_receive(t.c, OTHER, PEER_FORWARD, &asked, asked_bytes), -EBADMSG);
    memset(&word, 0, sizeof word);
    assert_int_equal(node_receive(t.c, OTHER, PEER_FORWARDED, &word, sizeof word), -EBADMSG);
    turn();
    assert_int_equal(t.posts, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_block_goes_to_the_leader_as_its_worker_has_sealed_it),
        TEST(what_was_left_out_is_an_exception_of_the_request_that_waits_for_it),
        TEST(nothing_of_a_block_may_be_new),
        TEST(answers_leave_in_the_order_of_the_blocks),
        TEST(what_does_not_fit_into_the_window_waits),
        TEST(without_an_answer_the_same_block_is_sent_again),
        TEST(one_that_does_not_take_it_is_asked_again_more_and_more_rarely),
        TEST(without_a_connection_it_is_tried_again),
        TEST(a_block_that_nobody_decides_about_is_refused_in_the_end),
        TEST(an_answer_is_for_one_block_of_one_process),
        TEST(a_forwarded_block_is_answered_when_it_is_committed),
        TEST(every_event_that_is_left_out_is_named),
        TEST(a_block_that_comes_twice_is_taken_once),
        TEST(an_answer_waits_for_the_connection_but_not_for_ever),
        TEST(there_is_room_for_one_nodes_window),
        TEST(who_does_not_lead_takes_nothing),
        TEST(nothing_is_allocated_in_between),
        TEST(nor_by_the_one_that_forwards),
        TEST(what_is_not_believed_is_said_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
