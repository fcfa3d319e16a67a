/*
 * test_change.c - members are added, removed and replaced, and the lead moves: five nodes in one
 * process, in the test's own time, on a network that loses only what the test takes away.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <ftw.h>
#include <pb_decode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cluster/internal.h"
#include "proto/wire.pb.h"
#include "tests/lib/quiet_app.h"
#include "tests/lib/test_disk.h"

#define NODES    5u
#define FOUNDERS 3u
#define WAIT_MS  20000u

struct letter {
    unsigned from, to;
    struct raft_message m;
    struct proposal *entry[PEER_ENTRIES_MAX];
    struct letter *next;
};

struct node {
    struct cluster *c;
    struct disk *disk;
    struct cluster_link link;
    struct block block;
    char dir[64];
    bool silent; /* hears nothing and says nothing */
    bool full;   /* its disk */
};

static struct node node[NODES + 1];
static struct letter *letters, **letters_tail = &letters;
static uint64_t time_ns, seed;
static struct cluster_bootstrap founders;

/* What the operation under way has come to. */
static struct {
    unsigned told;
    int result;
    char sentence[CHANGE_SENTENCE_BYTES];
} outcome;

/* --- nodes --------------------------------------------------------------------------------------
 */

static uint64_t env_monotonic(void *arg) { return (void)arg, time_ns; }
static uint64_t env_unix(void *arg) { return (void)arg, 1790000000ull * NS_PER_S + time_ns; }

static void env_random(void *arg, void *ret, size_t n)
{
    (void)arg;
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        ((uint8_t *)ret)[i] = (uint8_t)(seed >> 33);
    }
}

static struct proposal *copy_entry(struct cluster *c, uint64_t index)
{
    struct peer_entry e;
    struct proposal *p;

    assert_int_equal(node_entry(c, index, &e), 0);
    p = proposal_room(e.record->payload_bytes);
    assert_non_null(p);
    memcpy((uint8_t *)p->write.buf + LOG_HEADER_BYTES, e.payload, e.record->payload_bytes);
    p->write.record = *e.record;
    p->write.payload_crc = e.payload_crc;
    return p;
}

/* Logs are short here: all that the engine sends at once fits into one message. */
static int env_send(void *arg, const struct raft_message *m)
{
    struct node *from = arg;
    struct letter *l = calloc(1, sizeof *l);

    assert_non_null(l);
    l->from = (unsigned)(from - node);
    l->to = (unsigned)m->server_id;
    l->m = *m;
    assert_true(l->to >= 1 && l->to <= NODES && l->to != l->from);
    if (m->type == RAFT_APPEND_ENTRIES) {
        assert_true(m->append_entries.n_entries <= PEER_ENTRIES_MAX);
        for (unsigned i = 0; i < m->append_entries.n_entries; i++)
            l->entry[i] = copy_entry(from->c, m->append_entries.prev_log_index + 1 + i);
    }
    *letters_tail = l;
    letters_tail = &l->next;
    return 0;
}

static int no_background(struct cluster *c, void (*fn)(struct cluster *),
                         void (*done)(struct cluster *, int))
{
    return (void)c, (void)fn, (void)done, -1;
}

/* Blocks of those that do not lead go nowhere. */
static int env_post(void *arg, const struct node_post *p) { return (void)arg, (void)p, -EAGAIN; }

static int app_ready(void *arg, size_t n)
{
    return (void)n, ((struct node *)arg)->full ? -ENOSPC : 0;
}

static int app_open(void *arg, const uint8_t id[16], uint64_t last, uint64_t *ret_covered)
{
    (void)arg, (void)id, (void)last;
    *ret_covered = UINT64_MAX;
    return 0;
}

static struct member member(unsigned n)
{
    struct member m = { .node = (uint16_t)n, .role = MEMBER_VOTER, .port = 7400, .region = 1 };

    snprintf(m.host, sizeof m.host, "node%u", n);
    memset(m.directory_id, (int)n, sizeof m.directory_id);
    return m;
}

static void start(unsigned n)
{
    const struct cluster_config config = {
        .dir = node[n].dir,
        .node = (uint16_t)n,
        .region = 1,
        .segment_age_ns_max = 3600 * NS_PER_S,
        .log = { .segment_bytes = 1 << 20, .writes_max = 8, .mark_idle_ms = 1000 },
        .disk = node[n].disk,
        .link = &node[n].link,
        .links = 1,
        .bootstrap = n <= FOUNDERS ? &founders : NULL,
        .join_cluster_id = n > FOUNDERS ? founders.cluster_id : NULL,
    };
    struct cluster_app app = quiet_app(&node[n]);
    const struct node_environment environment = { env_monotonic, env_unix, env_random,
                                                  env_send,      env_post, &node[n] };

    app.ready = app_ready;
    app.open = app_open;
    node[n].c = node_new(&config, &app, &environment);
    assert_non_null(node[n].c);
    node[n].c->background = no_background;
    if (node_open(node[n].c) < 0)
        fail_msg("node %u: %s", n, node[n].c->error);
}

static void free_letter(struct letter *l)
{
    for (unsigned i = 0; i < PEER_ENTRIES_MAX; i++)
        proposal_free(l->entry[i]);
    free(l);
}

static void deliver(struct letter *l)
{
    struct cluster *c = node[l->to].c;
    unsigned taken = 0;
    int e = 0;

    l->m.server_id = l->from;
    l->m.server_address = "";
    if (c != NULL && !node[l->to].silent && !node[l->from].silent)
        e = consensus_receive(c, &l->m, l->entry, &taken);
    if (e < 0)
        fail_msg("node %u: %s", l->to, c->error);
    memset(l->entry, 0, taken * sizeof *l->entry);
    free_letter(l);
}

/* A millisecond. */
static void turn(void)
{
    struct letter *all = letters;

    letters = NULL;
    letters_tail = &letters;
    time_ns += NS_PER_MS;
    while (all != NULL) {
        struct letter *l = all;

        all = l->next;
        deliver(l);
    }
    for (unsigned n = 1; n <= NODES; n++) {
        int e = 1;

        while (node[n].c != NULL && e > 0)
            e = node_turn(node[n].c);
        if (e < 0)
            fail_msg("node %u: %s", n, node[n].c->error);
    }
}

static void pass_ms(unsigned ms)
{
    while (ms-- > 0)
        turn();
}

/* Of those that are heard. */
static unsigned leader(void)
{
    for (unsigned n = 1; n <= NODES; n++) {
        if (node[n].c != NULL && !node[n].silent && consensus_leads(node[n].c) &&
            node[n].c->lead == LEAD_READY)
            return n;
    }
    return 0;
}

static unsigned wait_leader(void)
{
    for (unsigned ms = 0; ms < WAIT_MS && leader() == 0; ms++)
        turn();
    assert_int_not_equal(leader(), 0);
    return leader();
}

/* A founder that does not lead. */
static unsigned follower(void)
{
    unsigned l = wait_leader();

    return l == 1 ? 2 : 1;
}

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *f)
{
    return (void)s, (void)flag, (void)f, remove(path);
}

static int setup(void **state)
{
    (void)state;
    memset(node, 0, sizeof node);
    time_ns = NS_PER_S;
    seed = 7;
    founders = (struct cluster_bootstrap){ .cluster_id = { 1 }, .time_ns = 1 };
    for (unsigned n = 1; n <= FOUNDERS; n++)
        founders.member[founders.members++] = member(n);
    for (unsigned n = 1; n <= NODES; n++) {
        node[n].disk = test_disk_make(n);
        snprintf(node[n].dir, sizeof node[n].dir, "/tmp/sluice-change-XXXXXX");
        assert_non_null(mkdtemp(node[n].dir));
        assert_int_equal(ring_init(&node[n].link.submit, 4), 0);
        assert_int_equal(ring_init(&node[n].link.answer, 4), 0);
        assert_int_equal(wake_open(&node[n].link.wake), 0);
        assert_int_equal(block_init(&node[n].block, 0), 0);
    }
    for (unsigned n = 1; n <= NODES; n++)
        start(n);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= NODES; n++) {
        if (node[n].c != NULL)
            node_free(node[n].c);
        test_disk_free(node[n].disk);
        nftw(node[n].dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
        ring_fini(&node[n].link.submit);
        ring_fini(&node[n].link.answer);
        wake_close(&node[n].link.wake);
        block_fini(&node[n].block);
    }
    while (letters != NULL) {
        struct letter *l = letters;

        letters = l->next;
        free_letter(l);
    }
    letters_tail = &letters;
    return 0;
}

/* --- operations ---------------------------------------------------------------------------------
 */

static void told(void *arg, int result, const char *sentence)
{
    (void)arg;
    outcome.told++;
    outcome.result = result;
    snprintf(outcome.sentence, sizeof outcome.sentence, "%s", sentence);
}

static void begin(unsigned at, struct change_request r)
{
    memset(&outcome, 0, sizeof outcome);
    snprintf(r.actor, sizeof r.actor, "uid 1000");
    (void)change_begin(node[at].c, &r, told, NULL);
}

static int finish(void)
{
    for (unsigned ms = 0; ms < WAIT_MS && outcome.told == 0; ms++)
        turn();
    assert_int_equal(outcome.told, 1);
    return outcome.result;
}

static int ask(unsigned at, struct change_request r)
{
    begin(at, r);
    return finish();
}

static struct change_request add(unsigned n)
{
    return (struct change_request){ .kind = CHANGE_ADD, .member = member(n), .timeout_ms = 5000 };
}

static struct change_request add_standby(unsigned n)
{
    struct change_request r = add(n);

    r.member.role = MEMBER_STANDBY;
    return r;
}

static struct change_request remove_node(unsigned n)
{
    return (
        struct change_request){ .kind = CHANGE_REMOVE, .node = (uint16_t)n, .timeout_ms = 5000 };
}

static struct change_request replace(unsigned old, unsigned new)
{
    struct change_request r = add(new);

    r.kind = CHANGE_REPLACE;
    r.node = (uint16_t)old;
    return r;
}

static struct change_request transfer(unsigned to)
{
    return (struct change_request){ .kind = CHANGE_TRANSFER, .node = (uint16_t)to };
}

/* By node n's committed configuration; -1: no member. */
static int role_at(unsigned n, unsigned of)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    int count = members_list(node[n].c->configuration, node[n].c->configuration_bytes, m);
    struct member *found;

    assert_true(count > 0);
    found = members_find(m, (unsigned)count, (uint16_t)of);
    return found != NULL ? (int)found->role : -1;
}

#define assert_said(word)                                                                          \
    do {                                                                                           \
        if (strstr(outcome.sentence, word) == NULL)                                                \
            fail_msg("said: %s", outcome.sentence);                                                \
    } while (0)

/* --- tests --------------------------------------------------------------------------------------
 */

static void the_log_begins_with_all_members_and_their_addresses(void **state)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    unsigned l = wait_leader();

    (void)state;
    pass_ms(500);
    for (unsigned n = 1; n <= FOUNDERS; n++) {
        struct member expected = member(n);

        assert_int_equal(node[n].c->configuration_bytes, node[l].c->configuration_bytes);
        assert_memory_equal(node[n].c->configuration, node[l].c->configuration,
                            node[l].c->configuration_bytes);
        assert_int_equal(members_list(node[n].c->configuration, node[n].c->configuration_bytes, m),
                         FOUNDERS);
        assert_true(member_same(&m[n - 1], &expected));
    }
    assert_int_equal(log_last_index(node[4].c->log), 0);
}

static void a_node_is_added_as_a_voter_and_asking_again_is_a_success(void **state)
{
    unsigned l = wait_leader();
    uint64_t changed;

    (void)state;
    assert_int_equal(ask(l, add(4)), 0);
    assert_said("node 4 is a voter");
    pass_ms(500);
    for (unsigned n = 1; n <= 4; n++)
        assert_int_equal(role_at(n, 4), MEMBER_VOTER);
    assert_int_equal(log_last_index(node[4].c->log), log_last_index(node[l].c->log));
    changed = node[l].c->configuration_index;
    assert_int_equal(ask(l, add(4)), 0);
    assert_int_equal(ask(l, add_standby(4)), 0); /* never back */
    assert_int_equal(node[l].c->configuration_index, changed);
    assert_int_equal(role_at(l, 4), MEMBER_VOTER);
}

static void a_standby_is_promoted_later_on_an_idle_log(void **state)
{
    unsigned l = wait_leader();

    (void)state;
    assert_int_equal(ask(l, add_standby(4)), 0);
    assert_said("node 4 is a standby");
    assert_int_equal(role_at(l, 4), MEMBER_STANDBY);
    pass_ms(2000);
    assert_int_equal(ask(l, add(4)), 0);
    assert_int_equal(role_at(l, 4), MEMBER_VOTER);
}

static void an_identity_that_is_taken_is_refused(void **state)
{
    unsigned l = wait_leader();
    struct change_request r = add(4);

    (void)state;
    assert_int_equal(ask(l, r), 0);
    r.member.directory_id[3]++;
    assert_int_equal(ask(l, r), -EEXIST);
    assert_said("node 4 is another: node4:7400/1/0404");
    r = add(4);
    r.member.port++;
    assert_int_equal(ask(l, r), -EEXIST);
    r = add(4);
    r.member.node = 5;
    r.member.port++;
    assert_int_equal(ask(l, r), -EEXIST);
    assert_said("that data directory is node 4's");
    r.member = member(5);
    memcpy(r.member.host, member(4).host, sizeof r.member.host);
    assert_int_equal(ask(l, r), -EEXIST);
    assert_said("node 4 listens at that address");
    assert_int_equal(role_at(l, 5), -1);
}

static void a_request_that_cannot_be_is_refused_at_once(void **state)
{
    struct change_request bad[] = { add(0),         add(4),        add(4), add(4),
                                    remove_node(0), replace(4, 4), add(4), add(4) };
    unsigned l = wait_leader();
    uint64_t last = log_last_index(node[l].c->log);

    (void)state;
    bad[1].member.host[0] = '\0';
    memset(bad[2].member.directory_id, 0, sizeof bad[2].member.directory_id);
    bad[3].member.region = 3;
    bad[6].member.role = (enum member_role)2; /* the engine's SPARE */
    bad[7].member.port = 0;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        begin(l, bad[i]);
        assert_int_equal(outcome.told, 1);
        assert_int_equal(outcome.result, -EINVAL);
        assert_int_not_equal(strlen(outcome.sentence), 0);
    }
    assert_int_equal(log_last_index(node[l].c->log), last);
}

static void three_voters_stay_and_strangers_are_not_removed(void **state)
{
    unsigned l = wait_leader();

    (void)state;
    assert_int_equal(ask(l, remove_node(follower())), -EPERM);
    assert_said("fewer than 3 voters");
    assert_int_equal(ask(l, remove_node(l)), -EPERM);
    assert_int_equal(ask(l, remove_node(5)), 0); /* it is none */
    assert_int_equal(ask(l, replace(4, 5)), -ENOENT);
    assert_int_equal(ask(l, transfer(4)), -ENOENT);
    assert_said("not another voter");
}

static void one_operation_at_a_time_and_only_the_leader_s(void **state)
{
    unsigned l = wait_leader(), f = follower();

    (void)state;
    begin(l, add(4));
    assert_int_equal(outcome.told, 0);
    begin(l, remove_node(4));
    assert_int_equal(outcome.result, -EBUSY);
    assert_said("add node 4, node4:7400/1/0404");
    assert_int_equal(outcome.told, 1);
    memset(&outcome, 0, sizeof outcome);
    assert_int_equal(finish(), 0); /* the first one's */
    begin(f, add(5));
    assert_int_equal(outcome.result, -EAGAIN);
    assert_said("leads; ask it");
}

static void a_removed_node_disturbs_nobody(void **state)
{
    unsigned l = wait_leader();
    uint64_t term, last;

    (void)state;
    assert_int_equal(ask(l, add(4)), 0);
    assert_int_equal(ask(l, remove_node(4)), 0);
    assert_said("node 4 is no member");
    term = node[l].c->state.term;
    pass_ms(5000);
    assert_int_equal(leader(), l);
    assert_int_equal(node[l].c->state.term, term);
    last = log_last_index(node[4].c->log);
    assert_true(last < log_last_index(node[l].c->log));
    assert_false(consensus_leads(node[4].c));
    assert_int_equal(ask(l, add(4)), 0); /* and may come back, with the log it has */
    pass_ms(500);
    assert_int_equal(log_last_index(node[4].c->log), log_last_index(node[l].c->log));
}

static void a_silent_voter_holds_a_change_up_until_it_is_replaced(void **state)
{
    unsigned l = wait_leader(), dead = follower();
    struct change_request r = add(4);

    (void)state;
    node[dead].silent = true;
    pass_ms(1000);
    r.timeout_ms = 2000;
    assert_int_equal(ask(l, r), -ETIMEDOUT);
    assert_said("does not answer");
    assert_int_equal(role_at(l, 4), -1);
    assert_int_equal(ask(l, replace(dead, 4)), 0);
    assert_said("in the place of node");
    assert_int_equal(role_at(l, 4), MEMBER_VOTER);
    assert_int_equal(role_at(l, dead), -1);
    assert_int_equal(ask(l, replace(dead, 4)), 0); /* it is */
}

static void what_was_done_before_the_deadline_stays_done(void **state)
{
    unsigned l = wait_leader();
    struct change_request r = add(4);

    (void)state;
    node[4].silent = true;
    r.timeout_ms = 2000;
    assert_int_equal(ask(l, r), -ETIMEDOUT);
    assert_said("node 4 does not have the log yet");
    assert_int_equal(role_at(l, 4), MEMBER_STANDBY);
    node[4].silent = false;
    assert_int_equal(ask(l, add(4)), 0);
    assert_int_equal(role_at(l, 4), MEMBER_VOTER);
}

static void the_lead_goes_to_whom_it_is_sent(void **state)
{
    unsigned l = wait_leader(), f = follower();

    (void)state;
    assert_int_equal(ask(l, transfer(f)), 0);
    assert_said("leads");
    assert_int_equal(wait_leader(), f);
    assert_int_equal(ask(f, transfer(f)), 0); /* it does */
    assert_int_equal(ask(f, transfer(0)), 0);
    assert_int_not_equal(wait_leader(), f);
}

static void hand_over_block(unsigned n)
{
    struct block *b = &node[n].block;

    block_reset(b);
    memset(block_payload(b) + b->bytes, 'x', 64);
    b->desc[0] = (struct block_desc){ .key = { 1, 2 }, .offset = b->bytes, .bytes = 64, .type = 1 };
    b->type[0] = 1;
    b->request_of[0] = REQUEST_NONE;
    b->by_type[1] = 1;
    b->bytes += 64;
    b->events = 1;
    b->verdict[0] = VERDICT_COMMITTED;
    block_seal(b, (uint16_t)n, 1);
    assert_true(ring_push(&node[n].link.submit, b));
}

static void blocks_wait_while_the_lead_moves_and_go_on_if_it_does_not(void **state)
{
    unsigned l = wait_leader(), f = follower();
    struct block *b = NULL;

    (void)state;
    pass_ms(100);
    node[f].silent = true;
    hand_over_block(l); /* the one that is silent does not get it */
    turn();
    assert_int_equal(node[l].c->appended_n, 1);
    begin(l, transfer(f));
    pass_ms(20);
    assert_true(change_quiet(node[l].c));
    assert_non_null(b = ring_pop(&node[l].link.answer));
    hand_over_block(l);
    pass_ms(100);
    assert_null(ring_pop(&node[l].link.answer));
    assert_int_equal(finish(), -ETIMEDOUT);
    assert_said("does not have the log in time");
    for (unsigned ms = 0; ms < WAIT_MS && (b = ring_pop(&node[l].link.answer)) == NULL; ms++)
        turn();
    assert_non_null(b);
    assert_int_equal(b->verdict[0], VERDICT_COMMITTED);
}

static void a_leader_whose_disk_is_full_hands_over_and_its_blocks_wait(void **state)
{
    unsigned l = wait_leader();

    (void)state;
    node[l].full = true;
    hand_over_block(l);
    pass_ms(200);
    assert_int_not_equal(wait_leader(), l);
    assert_null(
        ring_pop(&node[l].link.answer)); /* it is not refused: the next leader may take it */
}

static void where_all_disks_are_full_the_lead_goes_round_once_and_blocks_are_refused(void **state)
{
    unsigned led[NODES + 1] = { 0 }, last = 0, refused[NODES + 1] = { 0 };

    (void)state;
    wait_leader();
    for (unsigned n = 1; n <= FOUNDERS; n++) {
        node[n].full = true;
        hand_over_block(n);
    }
    for (unsigned ms = 0; ms < 5000; ms++) {
        unsigned l = leader();

        led[l] += l != last;
        last = l != 0 ? l : last;
        for (unsigned n = 1; n <= FOUNDERS; n++) {
            struct block *b = ring_pop(&node[n].link.answer);

            assert_true(b == NULL || b->refuse_reason == sluice_v1_Reason_DISK_FULL);
            refused[n] += b != NULL;
            if (b != NULL)
                hand_over_block(n); /* it comes again */
        }
        turn();
    }
    assert_int_equal(led[1] + led[2] + led[3], FOUNDERS + 1); /* it stays where it began */
    assert_true(refused[last] > 1000);
}

static void a_leader_hands_over_before_it_is_removed(void **state)
{
    unsigned l = wait_leader(), next;

    (void)state;
    assert_int_equal(ask(l, add(4)), 0);
    assert_int_equal(ask(l, remove_node(l)), -EAGAIN);
    assert_said("ask it to remove node");
    next = wait_leader();
    assert_int_not_equal(next, l);
    assert_int_equal(ask(next, remove_node(l)), 0);
    assert_int_equal(role_at(next, l), -1);
    pass_ms(3000);
    assert_int_equal(leader(), next);
}

static void a_lost_lead_ends_the_operation_and_the_next_leader_goes_on(void **state)
{
    unsigned l = wait_leader(), next;

    (void)state;
    node[4].silent = true;
    begin(l, add(4));
    pass_ms(300);
    assert_int_equal(role_at(l, 4), MEMBER_STANDBY);
    node[l].silent = true;
    for (unsigned ms = 0; ms < WAIT_MS && outcome.told == 0; ms++)
        turn();
    assert_int_equal(outcome.told, 1);
    assert_int_equal(outcome.result, -EAGAIN);
    assert_said("ask the next leader");
    next = wait_leader();
    node[l].silent = node[4].silent = false;
    assert_int_equal(ask(next, add(4)), 0);
    assert_int_equal(role_at(next, 4), MEMBER_VOTER);
}

static sluice_v1_Audit audit_at(struct cluster *c, uint64_t index)
{
    sluice_v1_Audit a = sluice_v1_Audit_init_zero;
    struct peer_entry e;
    pb_istream_t s;

    assert_int_equal(node_entry(c, index, &e), 0);
    assert_int_equal(e.record->type, LOG_AUDIT);
    s = pb_istream_from_buffer(e.payload, e.record->payload_bytes);
    assert_true(pb_decode_ex(&s, sluice_v1_Audit_fields, &a, PB_DECODE_NULLTERMINATED));
    return a;
}

static void the_log_says_what_was_asked_by_whom_and_how_it_went(void **state)
{
    unsigned l = wait_leader();
    uint64_t first = log_last_index(node[l].c->log) + 1;
    sluice_v1_Audit a;

    (void)state;
    assert_int_equal(ask(l, remove_node(follower())), -EPERM);
    assert_int_equal(log_last_index(node[l].c->log), first + 1);
    pass_ms(500);
    for (unsigned n = 1; n <= FOUNDERS; n++) {
        a = audit_at(node[n].c, first);
        assert_string_equal(a.actor, "uid 1000");
        assert_memory_equal(a.command, "remove node ", 12);
        assert_string_equal(a.result, "");
        assert_int_equal(a.error, 0);
        assert_true(a.time_ns > 1790000000ull * NS_PER_S);
        a = audit_at(node[n].c, first + 1);
        assert_memory_equal(a.command, "remove node ", 12);
        assert_string_equal(a.result, "fewer than 3 voters would be left; replace it");
        assert_int_equal(a.error, -EPERM);
    }
}

static void a_node_that_was_added_starts_again_with_its_log(void **state)
{
    unsigned l = wait_leader();
    uint64_t last;

    (void)state;
    assert_int_equal(ask(l, add(4)), 0);
    pass_ms(500);
    last = log_last_index(node[4].c->log);
    node_free(node[4].c);
    start(4);
    assert_int_equal(log_last_index(node[4].c->log), last);
    pass_ms(1000);
    assert_int_equal(leader(), l);
    assert_int_equal(node[4].c->commit_index, node[l].c->commit_index);
    assert_int_equal(role_at(4, 4), MEMBER_VOTER);
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        test(the_log_begins_with_all_members_and_their_addresses),
        test(a_node_is_added_as_a_voter_and_asking_again_is_a_success),
        test(a_standby_is_promoted_later_on_an_idle_log),
        test(an_identity_that_is_taken_is_refused),
        test(a_request_that_cannot_be_is_refused_at_once),
        test(three_voters_stay_and_strangers_are_not_removed),
        test(one_operation_at_a_time_and_only_the_leader_s),
        test(a_removed_node_disturbs_nobody),
        test(a_silent_voter_holds_a_change_up_until_it_is_replaced),
        test(what_was_done_before_the_deadline_stays_done),
        test(the_lead_goes_to_whom_it_is_sent),
        test(blocks_wait_while_the_lead_moves_and_go_on_if_it_does_not),
        test(a_leader_whose_disk_is_full_hands_over_and_its_blocks_wait),
        test(where_all_disks_are_full_the_lead_goes_round_once_and_blocks_are_refused),
        test(a_leader_hands_over_before_it_is_removed),
        test(a_lost_lead_ends_the_operation_and_the_next_leader_goes_on),
        test(the_log_says_what_was_asked_by_whom_and_how_it_went),
        test(a_node_that_was_added_starts_again_with_its_log),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
