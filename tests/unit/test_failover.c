/*
 * test_failover.c - two regions of three nodes in one process, in the test's own time, on a network
 * that loses only what the test takes away: one region goes on without the other, and that one
 * comes back; and what is refused.
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

#include "tests/lib/node_rig.h"
#include "tests/lib/quiet_app.h"

#define NODES    6u
#define WAIT_MS  70000u
#define ENTRIES  8u /* in one message at most */
#define ANYWHERE 0u

struct letter {
    unsigned from, to;
    uint64_t epoch; /* of the sender, by then */
    enum peer_type type;
    struct raft_message m; /* of the engine's types */
    struct proposal *entry[ENTRIES];
    uint8_t *body; /* of a post */
    size_t bytes;
    struct letter *next;
};

struct node {
    struct cluster *c;
    struct disk *disk;
    struct cluster_link link;
    struct block block;
    char dir[64];
    uint64_t opened_at; /* what the app was told of the log's end last */
};

static struct node node[NODES + 1];
static bool cut[NODES + 1][NODES + 1]; /* there is no connection */
static struct letter *letters, **letters_tail = &letters;
static uint64_t time_ns, seed, next_event;
static struct cluster_bootstrap founders;

/* What the failovers that were asked of each node have come to. */
static struct {
    unsigned told;
    int result;
    struct failover_report report;
} outcome[NODES + 1];

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

static struct letter *letter_new(const struct node *from, unsigned to)
{
    struct letter *l = calloc(1, sizeof *l);

    assert_non_null(l);
    l->from = (unsigned)(from - node);
    l->to = to;
    l->epoch = from->c->state.term >> CLUSTER_EPOCH_SHIFT;
    assert_true(to >= 1 && to <= NODES && to != l->from);
    *letters_tail = l;
    letters_tail = &l->next;
    return l;
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

static int env_send(void *arg, const struct raft_message *m)
{
    static const enum peer_type type[] = {
        [RAFT_APPEND_ENTRIES] = PEER_APPEND_ENTRIES,
        [RAFT_APPEND_ENTRIES_RESULT] = PEER_APPEND_ENTRIES_RESULT,
        [RAFT_REQUEST_VOTE] = PEER_REQUEST_VOTE,
        [RAFT_REQUEST_VOTE_RESULT] = PEER_REQUEST_VOTE_RESULT,
        [RAFT_INSTALL_SNAPSHOT] = PEER_INSTALL_SNAPSHOT,
        [RAFT_TIMEOUT_NOW] = PEER_TIMEOUT_NOW,
    };
    struct node *from = arg;
    struct letter *l = letter_new(from, (unsigned)m->server_id);

    l->m = *m;
    l->type = type[m->type];
    assert_true(l->type != 0 && l->type != PEER_INSTALL_SNAPSHOT); /* logs are short here */
    if (m->type == RAFT_APPEND_ENTRIES) {
        if (l->m.append_entries.n_entries > ENTRIES)
            l->m.append_entries.n_entries = ENTRIES;
        for (unsigned i = 0; i < l->m.append_entries.n_entries; i++)
            l->entry[i] = copy_entry(from->c, m->append_entries.prev_log_index + 1 + i);
    }
    return 0;
}

static int env_post(void *arg, const struct node_post *p)
{
    struct node *from = arg;
    struct letter *l;
    uint8_t *to;

    if (cut[from - node][p->to] || node[p->to].c == NULL)
        return -EAGAIN;
    l = letter_new(from, p->to);
    l->type = p->type;
    for (unsigned i = 0; i < p->iovs; i++)
        l->bytes += p->iov[i].iov_len;
    l->body = to = malloc(l->bytes);
    assert_non_null(to);
    for (unsigned i = 0; i < p->iovs; to += p->iov[i++].iov_len)
        memcpy(to, p->iov[i].iov_base, p->iov[i].iov_len);
    return 0;
}

static int no_background(struct cluster *c, void (*fn)(struct cluster *),
                         void (*done)(struct cluster *, int))
{
    return (void)c, (void)fn, (void)done, -1;
}

static int app_open(void *arg, const uint8_t id[16], uint64_t last, uint64_t *ret_covered)
{
    (void)id;
    ((struct node *)arg)->opened_at = last;
    *ret_covered = 0;
    return 0;
}

static uint8_t region_of(unsigned n) { return n <= NODES / 2 ? 1 : 2; }

static void start(unsigned n)
{
    const struct cluster_config config = {
        .dir = node[n].dir,
        .node = (uint16_t)n,
        .region = region_of(n),
        .segment_age_ns_max = 3600 * NS_PER_S,
        .log = { .segment_bytes = 1 << 20, .writes_max = 8, .mark_idle_ms = 1000 },
        .disk = node[n].disk,
        .link = &node[n].link,
        .links = 1,
        .bootstrap = &founders,
    };
    struct cluster_app app = quiet_app(&node[n]);
    const struct node_environment environment = { env_monotonic, env_unix, env_random,
                                                  env_send,      env_post, &node[n] };

    app.open = app_open;
    node[n].c = node_new(&config, &app, &environment);
    assert_non_null(node[n].c);
    node[n].c->background = no_background;
    if (node_open(node[n].c) < 0)
        fail_msg("node %u: %s", n, node[n].c->error);
}

static void stop(unsigned n)
{
    node_free(node[n].c);
    node[n].c = NULL;
}

static void free_letter(struct letter *l)
{
    for (unsigned i = 0; i < ENTRIES; i++)
        proposal_free(l->entry[i]);
    free(l->body);
    free(l);
}

/* False: it is given again. */
static bool deliver(struct letter *l)
{
    struct cluster *c = node[l->to].c;
    unsigned taken = 0;
    int e = 0;

    if (c == NULL || cut[l->from][l->to] ||
        !recovery_hears(c, (uint16_t)l->from, l->type, l->epoch))
        return true;
    if (l->body != NULL) {
        e = node_receive(c, (uint16_t)l->from, l->type, l->body, l->bytes);
        if (e == -EAGAIN)
            return false;
    } else {
        l->m.server_id = l->from;
        l->m.server_address = "";
        e = consensus_receive(c, &l->m, l->entry, &taken);
        memset(l->entry, 0, taken * sizeof *l->entry);
        if (e == -EAGAIN)
            return true; /* the engine sends it again */
    }
    if (e < 0)
        fail_msg("node %u, type %u: %d, %s", l->to, l->type, e, c->error);
    return true;
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
        l->next = NULL;
        if (deliver(l)) {
            free_letter(l);
        } else {
            *letters_tail = l;
            letters_tail = &l->next;
        }
    }
    for (unsigned n = 1; n <= NODES; n++) {
        int e = 1;

        for (unsigned i = 0; node[n].c != NULL && e > 0 && i < 1000; i++)
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

static void cut_between(unsigned a, unsigned b, bool is) { cut[a][b] = cut[b][a] = is; }

static void cut_off(unsigned n, bool is)
{
    for (unsigned i = 1; i <= NODES; i++)
        cut_between(n, i, is);
}

static void cut_regions(bool is)
{
    for (unsigned a = 1; a <= NODES / 2; a++) {
        for (unsigned b = NODES / 2 + 1; b <= NODES; b++)
            cut_between(a, b, is);
    }
}

/* Of that region, or ANYWHERE; waits for one. */
static unsigned leader_of(unsigned region)
{
    for (unsigned ms = 0; ms < WAIT_MS; ms++, turn()) {
        for (unsigned n = 1; n <= NODES; n++) {
            if (node[n].c != NULL && (region == ANYWHERE || region_of(n) == region) &&
                consensus_leads(node[n].c) && node[n].c->lead == LEAD_READY)
                return n;
        }
    }
    fail_msg("nobody leads");
    return 0;
}

/* By that node's worker; until it is answered. */
static void commit_block(unsigned n)
{
    struct block *b = NULL;

    node_rig_fill(&node[n].block, (uint16_t)n, next_event);
    next_event += EVENTS;
    assert_true(ring_push(&node[n].link.submit, &node[n].block));
    for (unsigned ms = 0; ms < WAIT_MS && b == NULL; ms++) {
        turn();
        b = ring_pop(&node[n].link.answer);
    }
    assert_ptr_equal(b, &node[n].block);
    assert_int_equal(b->refuse_reason, 0);
}

static uint64_t epoch_of(unsigned n) { return node[n].c->state.term >> CLUSTER_EPOCH_SHIFT; }

/* Have they applied all of one log? */
static bool are_same(unsigned a, unsigned b)
{
    struct cluster *x = node[a].c, *y = node[b].c;
    uint8_t one[SHA256_BYTES], other[SHA256_BYTES];

    if (x->recovery.fenced || y->recovery.fenced || x->applied_index != y->applied_index ||
        x->applied_index != log_last_index(x->log) || x->applied_index != log_last_index(y->log))
        return false;
    log_digest(x->log, one);
    log_digest(y->log, other);
    assert_memory_equal(one, other, SHA256_BYTES);
    assert_int_equal(epoch_of(a), epoch_of(b));
    return true;
}

/* All from a to b. */
static void settle(unsigned a, unsigned b)
{
    unsigned ms = 0;

    for (unsigned n = a + 1; n <= b; n++) {
        for (; !are_same(a, n); ms++) {
            assert_true(ms < WAIT_MS);
            turn();
        }
    }
}

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *f)
{
    return (void)s, (void)flag, (void)f, remove(path);
}

/* Members up to that node; the first region's vote. */
static void make(unsigned members)
{
    memset(node, 0, sizeof node);
    memset(cut, 0, sizeof cut);
    memset(outcome, 0, sizeof outcome);
    time_ns = NS_PER_S;
    seed = 7;
    next_event = 1;
    founders = (struct cluster_bootstrap){ .cluster_id = { 1 }, .time_ns = 1 };
    for (unsigned n = 1; n <= members; n++) {
        struct member *m = &founders.member[founders.members++];

        *m = (struct member){ .node = (uint16_t)n,
                              .role = region_of(n) == 1 ? MEMBER_VOTER : MEMBER_STANDBY,
                              .port = 7400,
                              .region = region_of(n) };
        snprintf(m->host, sizeof m->host, "node%u", n);
        memset(m->directory_id, (int)n, sizeof m->directory_id);
    }
    for (unsigned n = 1; n <= NODES; n++) {
        node[n].disk = test_disk_make(n);
        snprintf(node[n].dir, sizeof node[n].dir, "/tmp/sluice-failover-XXXXXX");
        assert_non_null(mkdtemp(node[n].dir));
        assert_int_equal(ring_init(&node[n].link.submit, 4), 0);
        assert_int_equal(ring_init(&node[n].link.answer, 4), 0);
        assert_int_equal(wake_open(&node[n].link.wake), 0);
        assert_int_equal(block_init(&node[n].block, 0), 0);
        if (n <= members)
            start(n);
    }
}

static int setup(void **state)
{
    (void)state;
    make(NODES);
    (void)leader_of(1);
    commit_block(1);
    settle(1, NODES);
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

/* --- failovers ----------------------------------------------------------------------------------
 */

static void told(void *arg, int result, const struct failover_report *report)
{
    unsigned n = (unsigned)((struct node *)arg - node);

    outcome[n].told++;
    outcome[n].result = result;
    outcome[n].report = *report;
    assert_true(report->sentence[0] != '\0');
}

static int begin(unsigned at, struct failover_request r)
{
    memset(&outcome[at], 0, sizeof outcome[at]);
    snprintf(r.actor, sizeof r.actor, "uid 1000");
    return failover_begin(node[at].c, &r, told, &node[at]);
}

static int finish(unsigned at)
{
    for (unsigned ms = 0; ms < WAIT_MS && outcome[at].told == 0; ms++)
        turn();
    assert_int_equal(outcome[at].told, 1);
    return outcome[at].result;
}

static int fail_over(unsigned at, uint8_t region)
{
    (void)begin(at, (struct failover_request){ .region = region });
    return finish(at);
}

static int refused(unsigned at, uint8_t region)
{
    int e = begin(at, (struct failover_request){ .region = region });

    assert_int_equal(outcome[at].told, 1);
    assert_int_equal(outcome[at].result, e);
    assert_int_equal(node[at].c->failover.step, FAILOVER_NONE);
    return e;
}

static void assert_nothing_was_promised(void)
{
    for (unsigned n = 1; n <= NODES; n++) {
        assert_int_equal(node[n].c->state.promised, 0);
        assert_false(node[n].c->recovery.fenced);
        assert_int_equal(epoch_of(n), 1);
    }
}

static void the_next_epoch_is_the_regions_lowest_above_all_that_were_seen(void **state)
{
    (void)state;
    for (uint8_t region = 1; region <= 2; region++) {
        for (uint64_t seen = 0; seen < 50; seen++) {
            uint64_t next = seen + 1;

            while (next < region || (next - region) % 2 != 0)
                next++;
            assert_int_equal(failover_next_epoch(seen, region), next);
        }
    }
}

static void what_cannot_be_is_refused_at_once(void **state)
{
    const struct failover_request again = { .region = 2 };

    (void)state;
    assert_int_equal(refused(4, 0), -EINVAL);
    assert_int_equal(refused(4, 3), -EINVAL);
    assert_non_null(strstr(outcome[4].report.sentence, "1 or 2"));
    assert_int_equal(refused(4, 255), -EINVAL);
    assert_int_equal(refused(4, 1), -EINVAL); /* it is of region 2 */
    assert_non_null(strstr(outcome[4].report.sentence, "region 2"));
    assert_int_equal(refused(1, 2), -EINVAL);
    node[4].c->environment.post = NULL;
    assert_int_equal(refused(4, 2), -ENXIO);
    node[4].c->environment.post = env_post;
    (void)begin(4, (struct failover_request){ .region = 2, .dry_run = true });
    assert_int_equal(failover_begin(node[4].c, &again, told, &node[5]), -EBUSY);
    assert_int_equal(outcome[5].result, -EBUSY);
    assert_int_equal(outcome[4].told, 0);
    assert_int_equal(finish(4), 0); /* the first goes on */
    assert_nothing_was_promised();
}

static void one_that_would_vote_alone_is_not_made(void **state)
{
    assert_int_equal(teardown(state), 0);
    make(4);
    (void)leader_of(1);
    settle(1, 4);
    assert_int_equal(refused(4, 2), -EPERM);
    assert_non_null(strstr(outcome[4].report.sentence, "1 members"));
    assert_int_equal(node[4].c->state.promised, 0);
}

static void a_region_that_is_led_has_nothing_to_fail_over(void **state)
{
    (void)state;
    assert_int_equal(fail_over(2, 1), -EPERM);
    pass_ms(1000);
    assert_nothing_was_promised();
}

static void a_dry_run_says_what_there_is_and_changes_nothing(void **state)
{
    uint64_t last = log_last_index(node[4].c->log);

    (void)state;
    (void)begin(4, (struct failover_request){ .region = 2, .dry_run = true });
    assert_int_equal(finish(4), 0);
    assert_int_equal(outcome[4].report.epoch, 2);
    assert_int_equal(outcome[4].report.index, last);
    assert_int_equal(outcome[4].report.term, log_last_term(node[4].c->log));
    assert_int_equal(outcome[4].report.committed, last);
    assert_int_equal(outcome[4].report.events, EVENTS);
    assert_int_equal(outcome[4].report.answering, 3);
    assert_int_equal(outcome[4].report.others, 3);
    assert_int_equal(outcome[4].report.old_leader, leader_of(1)); /* and may be accepting */
    cut_regions(true);
    pass_ms(1500);
    (void)begin(4, (struct failover_request){ .region = 2, .dry_run = true });
    assert_int_equal(finish(4), 0);
    assert_int_equal(outcome[4].report.others, 0);
    assert_int_equal(outcome[4].report.old_leader, 0);
    assert_in_range(outcome[4].report.silent_ms, 1400, 10000);
    assert_nothing_was_promised();
}

static void a_minority_of_the_region_changes_nothing(void **state)
{
    uint64_t begun_ns = time_ns;

    (void)state;
    cut_off(5, true);
    cut_off(6, true);
    assert_int_equal(fail_over(4, 2), -EHOSTUNREACH);
    assert_true(time_ns >= begun_ns + NS_PER_S);
    assert_nothing_was_promised();
}

static void commits_go_on(unsigned at, uint64_t epoch)
{
    unsigned l = leader_of(region_of(at));

    commit_block(at);
    assert_int_equal(epoch_of(l), epoch);
}

/* Node 6 has an entry that 4 and 5 lack; it was not there when the old region had committed more.
 */
static void the_region_goes_on_with_its_best_log(void **state)
{
    uint64_t had;
    struct member m[CLUSTER_MEMBERS_MAX];
    int n;

    (void)state;
    for (unsigned i = 1; i <= 3; i++) {
        cut_between(i, 4, true);
        cut_between(i, 5, true);
    }
    commit_block(1);
    settle(1, 3);
    pass_ms(100);
    cut_regions(true);
    commit_block(1);
    had = log_last_index(node[6].c->log);
    assert_true(had > log_last_index(node[4].c->log) && had < log_last_index(node[1].c->log));
    assert_int_equal(fail_over(4, 2), 0);
    assert_int_equal(outcome[4].report.epoch, 2);
    assert_int_equal(outcome[4].report.node, 6);
    assert_int_equal(outcome[4].report.index, had);
    assert_int_equal(region_of(outcome[4].report.leader), 2);
    assert_int_equal(outcome[4].report.leader, leader_of(2));
    settle(4, 6);
    for (unsigned i = 4; i <= 6; i++) {
        assert_int_equal(epoch_of(i), 2);
        assert_int_equal(node[i].c->events, 2 * EVENTS);
        n = recovery_members(node[i].c, m);
        assert_int_equal(n, NODES);
        for (int j = 0; j < n; j++)
            assert_int_equal(m[j].role, m[j].region == 2 ? MEMBER_VOTER : MEMBER_STANDBY);
    }
    commits_go_on(5, 2);
    settle(4, 6);
}

static void reconciled(void *arg, int result, const struct reconcile_report *report)
{
    assert_int_equal(result, 0);
    *(struct reconcile_report *)arg = *report;
}

/* Set aside once on each of its nodes; offered again, and in the log. */
static void the_old_region_comes_back_and_loses_nothing(void **state)
{
    static struct orphan_file file[4];
    uint64_t same = log_last_index(node[4].c->log), last;

    (void)state;
    cut_regions(true);
    commit_block(1);
    commit_block(2);
    settle(1, 3);
    last = log_last_index(node[1].c->log);
    assert_int_equal(fail_over(5, 2), 0);
    commits_go_on(4, 2);
    assert_int_equal(epoch_of(1), 1);
    cut_regions(false);
    settle(1, NODES);
    for (unsigned i = 1; i <= NODES; i++) {
        int n = orphan_list(node[i].dir, file, 4);

        assert_int_equal(epoch_of(i), 2);
        assert_int_equal(node[i].c->events, 2 * EVENTS);
        assert_int_equal(n, i <= 3);
        if (i > 3)
            continue;
        assert_int_equal(file[0].error, 0);
        assert_int_equal(file[0].head.node, i);
        assert_int_equal(file[0].head.first, same + 1);
        assert_int_equal(file[0].head.last, last);
        assert_int_equal(file[0].head.events, 2 * EVENTS);
        assert_int_equal(file[0].head.committed, last);
        assert_int_equal(file[0].head.into, 2);
    }
    assert_int_equal(leader_of(ANYWHERE), leader_of(2));
    for (unsigned i = 1; i <= 3; i += 2) {
        struct reconcile_report report = { .files = 0 };

        reconcile_begin(node[i].c, reconciled, &report);
        for (unsigned ms = 0; ms < WAIT_MS && report.sentence[0] == '\0'; ms++)
            turn();
        assert_int_equal(report.files, 1);
        assert_int_equal(report.accepted, 2 * EVENTS); /* this app takes all for new */
        assert_int_equal(report.duplicates + report.conflicts, 0);
        assert_int_equal(orphan_list(node[i].dir, file, 4), 1);
        assert_true(file[0].reconciled);
        report.files = 9;
        report.sentence[0] = '\0';
        reconcile_begin(node[i].c, reconciled, &report);
        pass_ms(10);
        assert_int_equal(report.files, 0); /* there is nothing more to offer */
    }
    settle(1, NODES);
    assert_int_equal(node[6].c->events, 6 * EVENTS);
}

/* What stands on the entries that go is rolled back first: the app is told how far. */
static void the_app_is_told_how_far_the_log_goes_back(void **state)
{
    uint64_t same = log_last_index(node[4].c->log), lowest = UINT64_MAX;

    (void)state;
    cut_regions(true);
    commit_block(1);
    settle(1, 3);
    assert_int_equal(fail_over(4, 2), 0);
    cut_regions(false);
    node[2].opened_at = UINT64_MAX;
    for (unsigned ms = 0; ms < WAIT_MS && epoch_of(2) == 1; ms++) {
        turn();
        if (node[2].opened_at < lowest)
            lowest = node[2].opened_at;
        if (node[2].c->recovery.copy == COPY_FETCH)
            assert_int_equal(node[2].opened_at, same);
    }
    assert_int_equal(lowest, same);
    settle(1, NODES);
}

static unsigned fenced(unsigned from, unsigned to)
{
    unsigned n = 0;

    for (unsigned i = from; i <= to; i++)
        n += node[i].c->recovery.fenced;
    return n;
}

/* The one that leads the others is gone in the middle: a promise is never taken back, and the next
 * attempt takes a higher epoch, at a node that has heard of neither. */
static void an_attempt_that_ends_in_the_middle_is_followed_by_another(void **state)
{
    (void)state;
    cut_regions(true);
    cut_off(6, true);
    (void)begin(4, (struct failover_request){ .region = 2, .timeout_ms = 5000 });
    for (unsigned ms = 0; ms < WAIT_MS && fenced(4, 6) < 2; ms++)
        turn();
    assert_int_equal(fenced(4, 5), 2);
    cut_off(4, true);
    assert_int_equal(finish(4), -ETIMEDOUT);
    assert_non_null(strstr(outcome[4].report.sentence, "promised"));
    for (unsigned i = 4; i <= 5; i++) {
        stop(i);
        start(i);
        assert_true(node[i].c->recovery.fenced);
        assert_int_equal(node[i].c->state.promised, 2);
        assert_int_equal(epoch_of(i), 1);
    }
    pass_ms(5000);
    assert_int_equal(fenced(4, 5), 2);
    assert_int_equal(node[6].c->state.promised, 0);
    cut_between(5, 6, false);
    assert_int_equal(fail_over(6, 2), 0);
    assert_int_equal(outcome[6].report.epoch, 4);
    commits_go_on(5, 4);
    assert_true(node[4].c->recovery.fenced);
    cut_off(4, false);
    cut_off(6, false);
    cut_regions(false);
    settle(1, NODES);
    assert_int_equal(epoch_of(4), 4);
    assert_int_equal(epoch_of(1), 4);
}

/* Of two at once one has a majority, or none; whoever asks again comes to an end. */
static void of_two_attempts_at_once_at_most_one_begins_an_epoch(void **state)
{
    int one, other;

    for (unsigned round = 0; round < 4; round++) {
        if (round > 0) {
            assert_int_equal(teardown(state), 0);
            assert_int_equal(setup(state), 0);
        }
        cut_regions(true);
        (void)begin(4, (struct failover_request){ .region = 2, .timeout_ms = 10000 });
        pass_ms(round);
        (void)begin(6, (struct failover_request){ .region = 2, .timeout_ms = 10000 });
        one = finish(4);
        other = finish(6);
        assert_true(one < 0 || other < 0);
        if (one < 0 && other < 0)
            assert_int_equal(fail_over(5, 2), 0);
        commits_go_on(5, epoch_of(leader_of(2)));
        cut_regions(false);
        settle(1, NODES);
    }
}

/* And back: the first region takes the next of its own. */
static void a_region_may_fail_over_again_and_back(void **state)
{
    (void)state;
    cut_regions(true);
    assert_int_equal(fail_over(4, 2), 0);
    cut_regions(false);
    settle(1, NODES);
    assert_int_equal(fail_over(4, 2), -EPERM); /* it is the active one */
    cut_regions(true);
    commit_block(4);
    settle(4, 6);
    assert_int_equal(fail_over(1, 1), 0);
    assert_int_equal(outcome[1].report.epoch, 3);
    commits_go_on(2, 3);
    cut_regions(false);
    settle(1, NODES);
    assert_int_equal(epoch_of(5), 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_epoch_is_the_regions_lowest_above_all_that_were_seen),
        TEST(what_cannot_be_is_refused_at_once),
        TEST(one_that_would_vote_alone_is_not_made),
        TEST(a_region_that_is_led_has_nothing_to_fail_over),
        TEST(a_dry_run_says_what_there_is_and_changes_nothing),
        TEST(a_minority_of_the_region_changes_nothing),
        TEST(the_region_goes_on_with_its_best_log),
        TEST(the_old_region_comes_back_and_loses_nothing),
        TEST(the_app_is_told_how_far_the_log_goes_back),
        TEST(an_attempt_that_ends_in_the_middle_is_followed_by_another),
        TEST(of_two_attempts_at_once_at_most_one_begins_an_epoch),
        TEST(a_region_may_fail_over_again_and_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
