/*
 * regions_rig.c - see regions_rig.h.
 */
#include "tests/lib/regions_rig.h"

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

#include "tests/lib/quiet_app.h"

#define ENTRIES 8u /* in one message at most */

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

struct regions_node regions_node[ALL + 1];
static bool cut[ALL + 1][ALL + 1]; /* there is no connection */
static struct letter *letters, **letters_tail = &letters;
uint64_t regions_now_ns;
static uint64_t seed, next_event;
static struct cluster_bootstrap founders;

struct regions_outcome regions_outcome[ALL + 1];

/* --- nodes --------------------------------------------------------------------------------------
 */

static uint64_t env_monotonic(void *arg) { return (void)arg, regions_now_ns; }
static uint64_t env_unix(void *arg) { return (void)arg, 1790000000ull * NS_PER_S + regions_now_ns; }

static void env_random(void *arg, void *ret, size_t n)
{
    (void)arg;
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        ((uint8_t *)ret)[i] = (uint8_t)(seed >> 33);
    }
}

static struct letter *letter_new(const struct regions_node *from, unsigned to)
{
    struct letter *l = calloc(1, sizeof *l);

    assert_non_null(l);
    l->from = (unsigned)(from - regions_node);
    l->to = to;
    l->epoch = from->c->state.term >> CLUSTER_EPOCH_SHIFT;
    assert_true(to >= 1 && to <= ALL && to != l->from);
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
    struct regions_node *from = arg;
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
    struct regions_node *from = arg;
    struct letter *l;
    uint8_t *to;

    if (cut[from - regions_node][p->to] || regions_node[p->to].c == NULL)
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
    ((struct regions_node *)arg)->opened_at = last;
    *ret_covered = 0;
    return 0;
}

uint8_t regions_of(unsigned n) { return n <= NODES / 2 ? 1 : 2; }

void regions_start(unsigned n)
{
    const struct cluster_config config = {
        .dir = regions_node[n].dir,
        .node = (uint16_t)n,
        .region = regions_of(n),
        .segment_age_ns_max = 3600 * NS_PER_S,
        .log = { .segment_bytes = 1 << 20, .writes_max = 8, .mark_idle_ms = 1000 },
        .disk = regions_node[n].disk,
        .link = &regions_node[n].link,
        .links = 1,
        .bootstrap = n <= NODES ? &founders : NULL,
        .join_cluster_id = n > NODES ? founders.cluster_id : NULL,
        .join_epoch = n > NODES ? 2 : 0,
    };
    struct cluster_app app = quiet_app(&regions_node[n]);
    const struct node_environment environment = { env_monotonic, env_unix, env_random,
                                                  env_send,      env_post, &regions_node[n] };

    app.open = app_open;
    regions_node[n].c = node_new(&config, &app, &environment);
    assert_non_null(regions_node[n].c);
    regions_node[n].c->background = no_background;
    if (node_open(regions_node[n].c) < 0)
        fail_msg("node %u: %s", n, regions_node[n].c->error);
}

void regions_stop(unsigned n)
{
    node_free(regions_node[n].c);
    regions_node[n].c = NULL;
}

static void free_letter(struct letter *l)
{
    for (unsigned i = 0; i < ENTRIES; i++)
        proposal_free(l->entry[i]);
    free(l->body);
    free(l);
}

/* It has failed. */
static void end(unsigned n)
{
    struct regions_node *at = &regions_node[n];

    if (at->ends == NULL || strstr(at->c->error, at->ends) == NULL)
        fail_msg("node %u: %s", n, at->c->error);
    at->ends = NULL;
    regions_stop(n);
}

/* False: it is given again. */
static bool deliver(struct letter *l)
{
    struct cluster *c = regions_node[l->to].c;
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
        end(l->to);
    return true;
}

/* A millisecond. */
void regions_turn(void)
{
    struct letter *all = letters;

    letters = NULL;
    letters_tail = &letters;
    regions_now_ns += NS_PER_MS;
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
    for (unsigned n = 1; n <= ALL; n++) {
        int e = 1;

        for (unsigned i = 0; regions_node[n].c != NULL && e > 0 && i < 1000; i++)
            e = node_turn(regions_node[n].c);
        if (e < 0)
            end(n);
    }
}

void regions_pass_ms(unsigned ms)
{
    while (ms-- > 0)
        regions_turn();
}

void regions_cut_between(unsigned a, unsigned b, bool is) { cut[a][b] = cut[b][a] = is; }

void regions_cut_off(unsigned n, bool is)
{
    for (unsigned i = 1; i <= ALL; i++)
        regions_cut_between(n, i, is);
}

void regions_part(bool is)
{
    for (unsigned a = 1; a <= NODES / 2; a++) {
        for (unsigned b = NODES / 2 + 1; b <= NODES; b++)
            regions_cut_between(a, b, is);
    }
}

/* Of that region, or ANYWHERE; waits for one. */
unsigned regions_leader_of(unsigned region)
{
    for (unsigned ms = 0; ms < WAIT_MS; ms++, regions_turn()) {
        for (unsigned n = 1; n <= NODES; n++) {
            if (regions_node[n].c != NULL && (region == ANYWHERE || regions_of(n) == region) &&
                consensus_leads(regions_node[n].c) && regions_node[n].c->lead == LEAD_READY)
                return n;
        }
    }
    fail_msg("nobody leads");
    return 0;
}

/* By that node's worker; until it is answered. */
void regions_commit_block(unsigned n)
{
    struct block *b = NULL;

    node_rig_fill(&regions_node[n].block, (uint16_t)n, next_event);
    next_event += EVENTS;
    assert_true(ring_push(&regions_node[n].link.submit, &regions_node[n].block));
    for (unsigned ms = 0; ms < WAIT_MS && b == NULL; ms++) {
        regions_turn();
        b = ring_pop(&regions_node[n].link.answer);
    }
    assert_ptr_equal(b, &regions_node[n].block);
    assert_int_equal(b->refuse_reason, 0);
}

uint64_t regions_epoch_of(unsigned n)
{
    return regions_node[n].c->state.term >> CLUSTER_EPOCH_SHIFT;
}

/* Have they applied all of one log? */
static bool are_same(unsigned a, unsigned b)
{
    struct cluster *x = regions_node[a].c, *y = regions_node[b].c;
    uint8_t one[SHA256_BYTES], other[SHA256_BYTES];

    if (x->recovery.fenced || y->recovery.fenced || x->applied_index != y->applied_index ||
        x->applied_index != log_last_index(x->log) || x->applied_index != log_last_index(y->log))
        return false;
    log_digest(x->log, one);
    log_digest(y->log, other);
    assert_memory_equal(one, other, SHA256_BYTES);
    assert_int_equal(regions_epoch_of(a), regions_epoch_of(b));
    return true;
}

/* All from a to b that there are. */
void regions_settle(unsigned a, unsigned b)
{
    unsigned ms = 0;

    for (unsigned n = a + 1; n <= b; n++) {
        for (; regions_node[n].c != NULL && !are_same(a, n); ms++) {
            assert_true(ms < WAIT_MS);
            regions_turn();
        }
    }
}

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *f)
{
    return (void)s, (void)flag, (void)f, remove(path);
}

struct member regions_member(unsigned n)
{
    struct member m = { .node = (uint16_t)n,
                        .role = regions_of(n) == 1 ? MEMBER_VOTER : MEMBER_STANDBY,
                        .port = 7400,
                        .region = regions_of(n) };

    snprintf(m.host, sizeof m.host, "node%u", n);
    memset(m.directory_id, (int)n, sizeof m.directory_id);
    return m;
}

/* Members up to that node; the first region's vote. */
void regions_make(unsigned members)
{
    memset(regions_node, 0, sizeof regions_node);
    memset(cut, 0, sizeof cut);
    memset(regions_outcome, 0, sizeof regions_outcome);
    regions_now_ns = NS_PER_S;
    seed = 7;
    next_event = 1;
    founders = (struct cluster_bootstrap){ .cluster_id = { 1 }, .time_ns = 1 };
    for (unsigned n = 1; n <= members; n++)
        founders.member[founders.members++] = regions_member(n);
    for (unsigned n = 1; n <= ALL; n++) {
        regions_node[n].disk = test_disk_make(n);
        snprintf(regions_node[n].dir, sizeof regions_node[n].dir, "/tmp/sluice-failover-XXXXXX");
        assert_non_null(mkdtemp(regions_node[n].dir));
        assert_int_equal(ring_init(&regions_node[n].link.submit, 4), 0);
        assert_int_equal(ring_init(&regions_node[n].link.answer, 4), 0);
        assert_int_equal(wake_open(&regions_node[n].link.wake), 0);
        assert_int_equal(block_init(&regions_node[n].block, 0), 0);
        if (n <= members)
            regions_start(n);
    }
}

int regions_setup(void **state)
{
    (void)state;
    regions_make(NODES);
    (void)regions_leader_of(1);
    regions_commit_block(1);
    regions_settle(1, NODES);
    return 0;
}

int regions_teardown(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= ALL; n++) {
        if (regions_node[n].c != NULL)
            node_free(regions_node[n].c);
        test_disk_free(regions_node[n].disk);
        nftw(regions_node[n].dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
        ring_fini(&regions_node[n].link.submit);
        ring_fini(&regions_node[n].link.answer);
        wake_close(&regions_node[n].link.wake);
        block_fini(&regions_node[n].block);
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

void regions_told(void *arg, int result, const struct failover_report *report)
{
    unsigned n = (unsigned)((struct regions_node *)arg - regions_node);

    regions_outcome[n].told++;
    regions_outcome[n].result = result;
    regions_outcome[n].report = *report;
    assert_true(report->sentence[0] != '\0');
}

int regions_begin(unsigned at, struct failover_request r)
{
    memset(&regions_outcome[at], 0, sizeof regions_outcome[at]);
    snprintf(r.actor, sizeof r.actor, "uid 1000");
    return failover_begin(regions_node[at].c, &r, regions_told, &regions_node[at]);
}

int regions_finish(unsigned at)
{
    for (unsigned ms = 0; ms < WAIT_MS && regions_outcome[at].told == 0; ms++)
        regions_turn();
    assert_int_equal(regions_outcome[at].told, 1);
    return regions_outcome[at].result;
}

int regions_fail_over(unsigned at, uint8_t region)
{
    (void)regions_begin(at, (struct failover_request){ .region = region });
    return regions_finish(at);
}

void regions_assert_nothing_promised(void)
{
    for (unsigned n = 1; n <= NODES; n++) {
        assert_int_equal(regions_node[n].c->state.promised, 0);
        assert_false(regions_node[n].c->recovery.fenced);
        assert_int_equal(regions_epoch_of(n), 1);
    }
}
