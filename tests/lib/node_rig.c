/*
 * node_rig.c - see node_rig.h.
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

#include "proto/wire.pb.h"
#include "tests/lib/node_rig.h"
#include "tests/lib/quiet_app.h"

struct node_rig t;

/* --- what the node gets -------------------------------------------------------------------------
 */

static uint64_t now(void *arg) { return (void)arg, t.now_ns; }
static uint64_t unix_now(void *arg) { return (void)arg, 1790000000ull * NS_PER_S + t.now_ns; }
static void fixed(void *arg, void *ret, size_t n) { (void)arg, memset(ret, 0x5a, n); }
static int drop(void *arg, const struct raft_message *m)
{
    return (void)arg, (void)m, t.send_error;
}

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

static int app_apply(void *arg, const struct log_record *r, const void *payload,
                     enum cluster_apply how)
{
    (void)arg, (void)payload;
    t.applied_ours += r->type == LOG_EVENTS && how == APPLY_OURS;
    return 0;
}

static void app_withdraw(void *arg, const struct block *b)
{
    (void)arg;
    assert_true(t.withdrawn_index == 0 || b->index < t.withdrawn_index); /* newest first */
    assert_int_equal(b->verdict[EVENTS - 1], VERDICT_COMMITTED);
    t.withdrawn_index = b->index;
    t.withdrawn++;
}

static void app_cut(void *arg, uint64_t from)
{
    (void)arg;
    assert_true(t.withdrawn_index == 0 || from <= t.withdrawn_index);
    t.cut_from = from;
}

void node_rig_turn(void)
{
    for (unsigned idle = 0; idle < 32; idle++) {
        int e = node_turn(t.c);

        if (e < 0)
            fail_msg("the node failed: %s", t.c->error);
        if (e > 0)
            idle = 0;
    }
}

void node_rig_later_ms(uint64_t ms)
{
    t.now_ns += ms * NS_PER_MS;
    node_rig_turn();
}

void node_rig_start(bool alone)
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
    struct cluster_app app = quiet_app(NULL);
    const struct node_environment environment = { now, unix_now, fixed, drop, post, NULL };

    app.ready = app_ready;
    app.admit = app_admit;
    app.withdraw = app_withdraw;
    app.cut = app_cut;
    app.apply = app_apply;
    t.c = node_new(&config, &app, &environment);
    assert_non_null(t.c);
    if (node_open(t.c) < 0)
        fail_msg("the node does not start: %s", t.c->error);
    node_rig_turn();
}

int node_rig_setup(void **state)
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

int node_rig_teardown(void **state)
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

void node_rig_fill(struct block *b, uint16_t node, uint64_t first)
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

void node_rig_submit(unsigned i)
{
    node_rig_fill(t.block[i], SELF, 1000 * (i + 1));
    assert_true(ring_push(&t.link.submit, t.block[i]));
}

struct block *node_rig_answer(void) { return ring_pop(&t.link.answer); }

void node_rig_follow(uint16_t leader)
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
    node_rig_turn();
}
