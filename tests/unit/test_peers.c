/*
 * test_peers.c - three nodes in one process, over real connections on loopback: a cluster is made,
 * takes blocks, loses its leader, and gets it back.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <pb_decode.h>
#include <pb_encode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "cluster/handshake.h"
#include "cluster/segment.h"
#include "tests/lib/pki_rig.h"
#include "tests/lib/test_app.h"

#define NODES   3
#define YEAR_S  (365ll * 86400)
#define WAIT_NS (20 * NS_PER_S)

static struct test_app app[NODES];
static struct cluster_peering peering[NODES];
static sluice_v1_Member member[NODES];

/* One that nobody listens on now. */
static unsigned port_free(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static int start(void **state)
{
    (void)state;
    memset(member, 0, sizeof member);
    memset(peering, 0, sizeof peering);
    for (int i = 0; i < NODES; i++) {
        test_app_init(&app[i]);
        app[i].node = (uint16_t)(i + 1);
        app[i].peering = &peering[i];
        snprintf(peering[i].listen, sizeof peering[i].listen, "127.0.0.1:%u", port_free());
        snprintf(peering[i].zone, sizeof peering[i].zone, "rack%d", i);
        peering[i].user_timeout_ms = 5000;
        member[i].node = (uint32_t)i + 1;
        memcpy(member[i].address, peering[i].listen, sizeof peering[i].listen);
    }
    return 0;
}

static int stop(void **state)
{
    (void)state;
    for (int i = 0; i < NODES; i++)
        test_app_fini(&app[i]);
    for (int i = 0; i < NODES; i++)
        tls_context_free(peering[i].tls);
    return 0;
}

/* Node 3 has the certificate of this node, for so long. */
static void secure(uint16_t third, int64_t third_s)
{
    static const char *const file[NODES] = { "n1", "n2", "n3" };
    struct pki pki;

    pki_open(&pki);
    for (int i = 0; i < NODES; i++) {
        pki_add_dated(&pki, file[i], CERTIFICATE_NODE, (uint16_t)(i < 2 ? i + 1 : third), -300,
                      i < 2 ? YEAR_S : third_s);
        peering[i].tls = pki_context(&pki, file[i]);
    }
    pki_close(&pki);
}

static enum cluster_state state_of(int i)
{
    struct cluster_status s;

    cluster_status(app[i].cluster, &s);
    return s.state;
}

static void pause_briefly(void)
{
    const struct timespec ms = { .tv_nsec = 5000000 };

    nanosleep(&ms, NULL);
}

/* The node that leads and takes blocks. */
static int leader(void)
{
    uint64_t until = clock_monotonic_ns() + WAIT_NS;

    while (clock_monotonic_ns() < until) {
        for (int i = 0; i < NODES; i++) {
            if (app[i].cluster != NULL && state_of(i) == CLUSTER_LEADER)
                return i;
        }
        pause_briefly();
    }
    for (int i = 0; i < NODES; i++) {
        struct cluster_status s = { .term = 0 };

        if (app[i].cluster != NULL)
            cluster_status(app[i].cluster, &s);
        print_error("node %d: state %d, term %llx, log to %llu, committed %llu %s\n", i + 1,
                    s.state, (unsigned long long)s.term, (unsigned long long)s.last_index,
                    (unsigned long long)s.commit_index, s.error);
    }
    fail_msg("no node leads");
    return -1;
}

static void found_at(int i)
{
    char sentence[LOG_ERROR_BYTES] = "";
    int e = cluster_found(app[i].cluster, member, NODES, sentence);

    if (e < 0)
        fail_msg("no cluster is made: %s (%s)", sentence, strerror(-e));
}

static void start_all(void)
{
    for (int i = 0; i < NODES; i++) {
        test_app_start(&app[i]);
        assert_int_equal(state_of(i), CLUSTER_WAITING);
    }
}

/* All nodes that run have applied what this one has, and have the same chain. */
static void assert_together(int as)
{
    struct cluster_status first, other;

    cluster_status(app[as].cluster, &first);
    for (int i = 0; i < NODES; i++) {
        if (app[i].cluster == NULL)
            continue;
        assert_int_equal(cluster_wait(app[i].cluster, first.applied_index, WAIT_NS), 0);
        cluster_status(app[i].cluster, &other);
        if (other.last_index == first.last_index)
            assert_memory_equal(other.digest, first.digest, sizeof first.digest);
        assert_false(app[i].out_of_order);
    }
}

static void blocks_at(int i, unsigned n, uint64_t first)
{
    for (unsigned b = 0; b < n; b++) {
        struct block *answer;

        test_app_fill(&app[i], 0, 10, 200, first + 10ull * b);
        test_app_submit(&app[i], 0);
        answer = test_app_answer(&app[i]);
        assert_int_equal(answer->verdict[0], VERDICT_COMMITTED);
        assert_int_equal(answer->accepted, 10);
    }
}

static void three_nodes_become_a_cluster_and_take_blocks(void **state)
{
    int lead;

    (void)state;
    start_all();
    found_at(0);
    lead = leader();
    blocks_at(lead, 100, 0);
    assert_together(lead);
    for (int i = 0; i < NODES; i++)
        assert_true(app[i].seen[999] <= 1);
    found_at(2); /* again, elsewhere: it is there */
}

static void the_active_region_has_three_nodes(void **state)
{
    char sentence[LOG_ERROR_BYTES] = "";

    (void)state;
    app[0].region = 2;
    start_all();
    assert_int_equal(cluster_found(app[1].cluster, member, NODES, sentence), -EINVAL);
    assert_string_equal(sentence, "in region 1, which is the active one since this node is in it, "
                                  "there are 2 of these nodes; it takes 3");
    assert_int_equal(state_of(1), CLUSTER_WAITING);
}

static void a_cluster_begins_in_its_region_s_epoch(void **state)
{
    struct cluster_status s;

    (void)state;
    for (int i = 0; i < NODES; i++)
        app[i].region = 2;
    start_all();
    found_at(1);
    blocks_at(leader(), 3, 0);
    assert_together(leader());
    cluster_status(app[1].cluster, &s);
    assert_int_equal(s.epoch, 2);
}

static void over_tls_it_is_the_same(void **state)
{
    sluice_v1_Member listed[CLUSTER_MEMBERS_MAX];
    sluice_v1_NodeReply reply[CLUSTER_MEMBERS_MAX];
    int lead;

    (void)state;
    secure(3, YEAR_S);
    start_all();
    found_at(0);
    lead = leader();
    for (unsigned i = 0; i < 20; i++) {
        test_app_fill(&app[lead], 0, 100, 2000, 100ull * i);
        test_app_submit(&app[lead], 0);
        assert_int_equal(test_app_answer(&app[lead])->accepted, 100);
    }
    assert_together(lead);
    assert_int_equal(cluster_members(app[lead].cluster, 5 * NS_PER_S, listed, reply), NODES);
    assert_true(reply[0].status.certificate_until_s > (int64_t)(clock_unix_ns() / NS_PER_S));
}

static void a_certificate_of_another_node_is_refused(void **state)
{
    char sentence[LOG_ERROR_BYTES];

    (void)state;
    secure(7, YEAR_S);
    start_all();
    assert_true(cluster_found(app[0].cluster, member, NODES, sentence) < 0);
    assert_non_null(strstr(sentence, "its certificate is that of another node"));
}

static uint64_t last_of(int i)
{
    struct cluster_status s;

    cluster_status(app[i].cluster, &s);
    return s.last_index;
}

/* The others close what they have with it, in both directions, and take nothing new from it. */
static void a_node_whose_certificate_expires_is_cut_off(void **state)
{
    const uint64_t until = clock_unix_ns() + 3 * NS_PER_S;
    static sluice_v1_NodeReply reply[CLUSTER_MEMBERS_MAX];
    sluice_v1_Member listed[CLUSTER_MEMBERS_MAX];
    uint64_t first = 0;

    (void)state;
    secure(3, 3);
    start_all();
    found_at(0);
    (void)leader();
    blocks_at(0, 1, first);
    assert_together(0);
    while (last_of(0) < last_of(2) + 50) {
        assert_true(clock_unix_ns() < until + WAIT_NS);
        blocks_at(0, 1, first += 10);
        pause_briefly();
    }
    assert_true(clock_unix_ns() >= until);
    assert_int_not_equal(leader(), 2);
    /* And who asks is told why. */
    assert_int_equal(cluster_members(app[0].cluster, 5 * NS_PER_S, listed, reply), NODES);
    assert_false(reply[2].has_status);
    assert_non_null(strstr(reply[2].sentence, "there is no connection to node 3: "));
    assert_non_null(strstr(reply[2].sentence, "certificate"));
}

static void without_its_leader_it_goes_on_and_the_old_one_follows(void **state)
{
    int old, lead;

    (void)state;
    start_all();
    found_at(1);
    old = leader();
    blocks_at(old, 20, 0);
    test_app_stop(&app[old]);
    lead = leader();
    assert_int_not_equal(lead, old);
    blocks_at(lead, 20, 1000);
    test_app_start(&app[old]);
    blocks_at(lead, 20, 2000);
    assert_together(lead);
}

/* Wherever they come from; and while the leader goes, what it had in hand goes to the next. */
static void blocks_may_come_to_any_node(void **state)
{
    int old, lead;

    (void)state;
    start_all();
    found_at(0);
    old = leader();
    for (int i = 0; i < NODES; i++)
        blocks_at(i, 30, 1000ull * (uint64_t)i);
    assert_together(old);
    for (int i = 0; i < NODES; i++) {
        for (unsigned e = 0; e < 300; e++)
            assert_int_equal(app[old].seen[1000 * i + e], 1);
    }
    for (int i = 0; i < NODES; i++) {
        for (int b = 0; b < TEST_APP_BLOCKS && i != old; b++) {
            test_app_fill(&app[i], b, 10, 200, 5000 + 100ull * (uint64_t)(i * TEST_APP_BLOCKS + b));
            test_app_submit(&app[i], b);
        }
    }
    test_app_stop(&app[old]);
    for (int i = 0; i < NODES; i++) {
        for (int b = 0; b < TEST_APP_BLOCKS && i != old; b++)
            assert_int_equal(test_app_answer(&app[i])->accepted, 10);
    }
    lead = leader();
    assert_int_not_equal(lead, old);
    blocks_at(lead, 5, 9000);
    assert_together(lead);
}

static void members_say_what_they_are(void **state)
{
    sluice_v1_Member listed[CLUSTER_MEMBERS_MAX];
    sluice_v1_NodeReply reply[CLUSTER_MEMBERS_MAX];
    int lead, n;

    (void)state;
    start_all();
    assert_int_equal(cluster_members(app[0].cluster, NS_PER_S, listed, reply), 0);
    found_at(0);
    lead = leader();
    assert_together(lead);
    n = cluster_members(app[(lead + 1) % NODES].cluster, 5 * NS_PER_S, listed, reply);
    assert_int_equal(n, NODES);
    for (int i = 0; i < n; i++) {
        if (!reply[i].has_status)
            fail_msg("node %u: %s", listed[i].node, reply[i].sentence);
        assert_int_equal(reply[i].status.node, listed[i].node);
        assert_string_equal(reply[i].status.role,
                            (int)listed[i].node == lead + 1 ? "leader" : "follower");
        assert_int_equal(reply[i].status.leader, lead + 1);
        assert_int_equal(reply[i].status.members_count, NODES);
        assert_string_equal(reply[i].status.zone, peering[listed[i].node - 1].zone);
    }
}

static void a_setting_can_be_changed_at_any_node(void **state)
{
    sluice_v1_Setting s = sluice_v1_Setting_init_zero;
    char sentence[LOG_ERROR_BYTES];
    int64_t last = 0;
    int lead;

    (void)state;
    start_all();
    found_at(0);
    lead = leader();
    snprintf(s.key, sizeof s.key, "skew.past_ms");
    for (int i = 0; i < NODES; i++) {
        int64_t index;

        snprintf(s.value, sizeof s.value, "%d", 1000 + i);
        index = cluster_propose_setting(app[i].cluster, &s, sentence);
        if (index < 0)
            fail_msg("node %d: %s", i + 1, sentence);
        assert_true(index > last);
        assert_true(cluster_commit_index(app[i].cluster) >= (uint64_t)index);
        last = index;
    }
    assert_together(lead);
}

/* --- a node that is none of them ---------------------------------------------------------------
 */

static void receive(int fd, void *ret, size_t n)
{
    if (recv(fd, ret, n, MSG_WAITALL) != (ssize_t)n)
        fail_msg("the connection ends, or is silent");
}

/* It says that it is of no cluster. */
static void stranger_connects(int fd, int i)
{
    struct hello h = { .magic = HANDSHAKE_MAGIC,
                       .version_min = PEER_VERSION_MIN,
                       .version_max = PEER_VERSION_MIN,
                       .directory_id = { 9 },
                       .process = 9,
                       .connection = 1,
                       .node = 9,
                       .dialled = (uint16_t)(i + 1),
                       .region = 1 };
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    const struct timeval patience = { .tv_sec = 20 };
    uint8_t frame[HANDSHAKE_FRAME_MAX] __attribute__((aligned(8)));
    int n;

    a.sin_port = htons((uint16_t)strtoul(strchr(peering[i].listen, ':') + 1, NULL, 10));
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    n = handshake_put_hello(frame, sizeof frame, &h);
    assert_int_equal(send(fd, frame, (size_t)n, 0), n);
}

static void stranger_is_welcome(int fd)
{
    uint8_t frame[HANDSHAKE_FRAME_MAX] __attribute__((aligned(8)));
    struct peer_header *head = (void *)frame;

    receive(fd, frame, PEER_HEADER_BYTES + HANDSHAKE_WELCOME_BYTES);
    assert_int_equal(head->type, PEER_WELCOME);
}

static int dial_as_stranger(int i)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    stranger_connects(fd, i);
    stranger_is_welcome(fd);
    return fd;
}

/* Returns the status of the reply; frames as in peer_call.c. */
static int call(int fd, const sluice_v1_NodeRequest *request, sluice_v1_NodeReply *ret)
{
    uint64_t frame[512] = { 0 };
    struct peer_header *head = (void *)frame;
    uint64_t *body = frame + PEER_HEADER_BYTES / sizeof *frame;
    pb_ostream_t out = pb_ostream_from_buffer((uint8_t *)(body + 2), sizeof frame - 48);
    pb_istream_t in;
    uint32_t word[2];

    assert_true(pb_encode(&out, sluice_v1_NodeRequest_fields, request));
    body[0] = 1;
    body[1] = out.bytes_written;
    peer_frame_put(frame, PEER_CALL, 1, (uint32_t)(16 + ((out.bytes_written + 7) & ~7ull)), 0);
    assert_true(send(fd, frame, PEER_HEADER_BYTES + head->head_bytes, 0) > 0);
    receive(fd, head, PEER_HEADER_BYTES);
    assert_int_equal(head->type, PEER_REPLY);
    assert_in_range(head->head_bytes, 16, sizeof frame - PEER_HEADER_BYTES);
    receive(fd, body, head->head_bytes);
    memcpy(word, &body[1], sizeof word);
    in = pb_istream_from_buffer((uint8_t *)(body + 2), word[1]);
    assert_true(pb_decode(&in, sluice_v1_NodeReply_fields, ret));
    return (int)word[0];
}

static void who_is_not_a_member_changes_nothing(void **state)
{
    sluice_v1_NodeRequest r = { .which_body = sluice_v1_NodeRequest_status_tag };
    sluice_v1_NodeReply reply = sluice_v1_NodeReply_init_zero;
    struct cluster_status before, after;
    int lead, fd;

    (void)state;
    start_all();
    found_at(0);
    lead = leader();
    fd = dial_as_stranger(lead);
    assert_int_equal(call(fd, &r, &reply), 0);
    assert_int_equal(reply.status.leader, lead + 1);
    cluster_status(app[lead].cluster, &before);
    r.which_body = sluice_v1_NodeRequest_barrier_tag;
    assert_int_equal(call(fd, &r, &reply), -EACCES);
    assert_non_null(strstr(reply.sentence, "not a member"));
    r.which_body = sluice_v1_NodeRequest_setting_tag;
    r.body.setting = (sluice_v1_Setting){ .key = "skew.past_ms", .value = "1" };
    assert_int_equal(call(fd, &r, &reply), -EACCES);
    r.which_body = sluice_v1_NodeRequest_membership_tag;
    r.body.membership =
        (sluice_v1_MembershipRequest){ .kind = sluice_v1_MembershipRequest_Kind_TRANSFER };
    assert_int_equal(call(fd, &r, &reply), -EACCES);
    close(fd);
    cluster_status(app[lead].cluster, &after);
    assert_int_equal(after.state, CLUSTER_LEADER);
    assert_int_equal(after.last_index, before.last_index);
}

/* Its process has no descriptor left when somebody calls: nobody is hurt, and later it answers. */
static void who_calls_when_descriptors_are_short_is_answered_later(void **state)
{
    sluice_v1_NodeRequest r = { .which_body = sluice_v1_NodeRequest_status_tag };
    sluice_v1_NodeReply reply = sluice_v1_NodeReply_init_zero;
    struct rlimit before, none;
    int fd, lead;

    (void)state;
    start_all();
    found_at(0);
    lead = leader();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    none = (struct rlimit){ (rlim_t)fd + 1, before.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    stranger_connects(fd, lead);
    blocks_at(lead, 50, 0);
    assert_int_equal(recv(fd, &reply, 1, MSG_DONTWAIT), -1);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    stranger_is_welcome(fd);
    assert_int_equal(call(fd, &r, &reply), 0);
    close(fd);
}

static void what_cannot_become_a_cluster_is_refused(void **state)
{
    char sentence[LOG_ERROR_BYTES];

    (void)state;
    start_all();
    assert_int_equal(cluster_found(app[0].cluster, member, 2, sentence), -EINVAL);
    assert_int_equal(cluster_found(app[0].cluster, member + 1, 2, sentence), -EINVAL);
    snprintf(member[1].address, sizeof member[1].address, "nowhere");
    assert_int_equal(cluster_found(app[0].cluster, member, NODES, sentence), -EINVAL);
    snprintf(member[1].address, sizeof member[1].address, "%s", member[2].address);
    assert_true(cluster_found(app[0].cluster, member, NODES, sentence) < 0);
    assert_non_null(strstr(sentence, "node 2"));
    for (int i = 0; i < NODES; i++)
        assert_int_equal(state_of(i), CLUSTER_WAITING);
}

/* What a node leaves that dies between the name of its first segment and its first entry. */
static void leave_empty_segment(const struct test_app *a)
{
    const struct segment s = { .epoch = 1, .first = 1, .bytes = SEGMENT_BYTES_MIN };
    const uint8_t before[SHA256_BYTES] = { 0 };
    struct segment_header h;
    char dir[128], name[SEGMENT_NAME_BYTES], path[256];
    struct disk *d;
    FILE *f;

    snprintf(dir, sizeof dir, "%s/log", a->dir);
    segment_encode(&h, &s, 0, SEGMENT_BYTES_MIN, before);
    segment_name(&s, name);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(&h, sizeof h, 1, f), 1);
    assert_int_equal(ftruncate(fileno(f), SEGMENT_BYTES_MIN), 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(disk_uring_open(&d, dir, 8), 0);
    assert_int_equal(log_mark_init(d, 0), 0);
    d->ops->fini(d);
}

static void one_that_died_while_it_began_waits_again(void **state)
{
    (void)state;
    test_app_start(&app[0]);
    assert_int_equal(state_of(0), CLUSTER_WAITING);
    test_app_stop(&app[0]);
    leave_empty_segment(&app[0]);
    test_app_start(&app[0]);
    assert_int_equal(state_of(0), CLUSTER_WAITING);
}

/* It has entry 1, and knows nothing as committed until it hears from a leader. */
/* Here to one that only welcomes it: whatever else it has to say, it tells its epoch. */
static void who_has_nothing_to_say_tells_its_epoch(void **state)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    const struct timeval patience = { .tv_sec = 20 };
    struct welcome w = { .magic = HANDSHAKE_MAGIC, .version = PEER_VERSION_MAX, .node = 3 };
    uint8_t frame[2048] __attribute__((aligned(8)));
    const struct peer_header *head = (void *)frame;
    sluice_v1_NodeStatus self;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), c, n;

    (void)state;
    start_all();
    found_at(0);
    assert_together(leader());
    assert_int_equal(cluster_self(app[2].cluster, &self, NULL), 0);
    memcpy(w.directory_id, self.directory_id, sizeof w.directory_id);
    test_app_stop(&app[1]);
    test_app_stop(&app[2]);
    a.sin_port = htons((uint16_t)strtoul(strchr(peering[2].listen, ':') + 1, NULL, 10));
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 8), 0);
    c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    assert_int_equal(setsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    for (int i = 0, pings = 0; pings < 2; i++) {
        assert_true(i < 100);
        receive(c, frame, PEER_HEADER_BYTES);
        assert_in_range(head->body_bytes, 0, sizeof frame - PEER_HEADER_BYTES);
        if (head->body_bytes > 0)
            receive(c, frame + PEER_HEADER_BYTES, head->body_bytes);
        assert_int_equal(head->epoch, 1);
        pings += head->type == PEER_PING;
        n = head->type == PEER_HELLO ? handshake_put_welcome(frame, sizeof frame, 1, &w) : 0;
        assert_int_equal(send(c, frame, (size_t)n, 0), n);
    }
    close(c);
    close(fd);
}

static void a_beginning_is_known_before_anybody_leads(void **state)
{
    sluice_v1_NodeRequest r = { .which_body = sluice_v1_NodeRequest_status_tag };
    sluice_v1_NodeReply reply = sluice_v1_NodeReply_init_zero;
    int fd;

    (void)state;
    start_all();
    found_at(0);
    assert_together(leader());
    for (int i = 0; i < NODES; i++)
        test_app_stop(&app[i]);
    test_app_start(&app[2]);
    fd = dial_as_stranger(2);
    assert_int_equal(call(fd, &r, &reply), 0);
    assert_string_equal(reply.status.role, "follower");
    assert_int_equal(reply.status.leader, 0);
    assert_false(reply.status.has_bootstrap); /* which is read from the disk, for who asks */
    r.body.status.beginning = true;
    assert_int_equal(call(fd, &r, &reply), 0);
    assert_true(reply.status.has_bootstrap);
    assert_int_equal(reply.status.bootstrap.members_count, NODES);
    close(fd);
}

/* A call to a node at its address takes nothing from the connection that there is. */
static void a_member_can_be_added_again_and_again(void **state)
{
    sluice_v1_NodeRequest request = { .which_body = sluice_v1_NodeRequest_membership_tag };
    sluice_v1_MembershipRequest *m = &request.body.membership;
    sluice_v1_NodeReply reply;
    sluice_v1_NodeStatus self;
    uint64_t connected[CLUSTER_MEMBERS_MAX], after[CLUSTER_MEMBERS_MAX];
    int lead;

    (void)state;
    start_all();
    found_at(0);
    lead = leader();
    assert_together(lead);
    m->kind = sluice_v1_MembershipRequest_Kind_ADD;
    m->node = (uint32_t)((lead + 1) % NODES) + 1;
    snprintf(m->address, sizeof m->address, "%s", peering[m->node - 1].listen);
    assert_int_equal(cluster_self(app[lead].cluster, &self, connected), 0);
    for (int i = 0; i < 3; i++) {
        if (cluster_ask(app[lead].cluster, &request, WAIT_NS, &reply) < 0)
            fail_msg("added again: %s", reply.sentence);
    }
    m->node = (uint32_t)lead + 1; /* the leader itself */
    snprintf(m->address, sizeof m->address, "%s", peering[lead].listen);
    if (cluster_ask(app[(lead + 1) % NODES].cluster, &request, WAIT_NS, &reply) < 0)
        fail_msg("the leader, added again: %s", reply.sentence);
    assert_int_equal(cluster_self(app[lead].cluster, &self, after), 0);
    assert_memory_equal(after, connected, self.members_count * sizeof *after);
}

/* What follows is behind by a heartbeat or so, and knows it; who waits, knows nothing. */
static void how_far_a_node_is_behind_is_known(void **state)
{
    struct cluster_status s;
    uint64_t until = clock_monotonic_ns() + WAIT_NS;
    int lead;

    (void)state;
    start_all();
    cluster_status(app[1].cluster, &s);
    assert_true(s.lag_ns == UINT64_MAX);
    found_at(0);
    lead = leader();
    assert_together(lead);
    cluster_status(app[lead].cluster, &s);
    assert_int_equal(s.leader, lead + 1);
    assert_int_equal(s.lag_ns, 0);
    for (int i = 0; i < NODES; i++) {
        do {
            cluster_status(app[i].cluster, &s);
        } while (s.lag_ns == UINT64_MAX && clock_monotonic_ns() < until);
        assert_true(s.lag_ns < WAIT_NS);
        assert_int_equal(s.leader, lead + 1);
    }
    /* Without a leader it grows. */
    for (int i = 0; i < NODES; i++) {
        if (i != (lead + 1) % NODES)
            test_app_stop(&app[i]);
    }
    do {
        pause_briefly();
        cluster_status(app[(lead + 1) % NODES].cluster, &s);
    } while (s.lag_ns < NS_PER_S && clock_monotonic_ns() < until);
    assert_true(s.lag_ns >= NS_PER_S && s.lag_ns < WAIT_NS);
}

/* Of blocks taken here, since this start: not those of others, nor of an earlier run. */
static void own_events_are_counted_apart(void **state)
{
    struct cluster_status s;
    int lead, other;

    (void)state;
    start_all();
    found_at(0);
    lead = leader();
    other = (lead + 1) % NODES;
    blocks_at(lead, 5, 0);
    blocks_at(other, 3, 1000); /* forwarded */
    assert_together(lead);
    cluster_status(app[lead].cluster, &s);
    assert_int_equal(s.events, 80);
    assert_int_equal(s.events_own, 50);
    cluster_status(app[other].cluster, &s);
    assert_int_equal(s.events, 80);
    assert_int_equal(s.events_own, 30);
    test_app_stop(&app[other]);
    test_app_start(&app[other]);
    assert_int_equal(cluster_wait(app[other].cluster, s.commit_index, WAIT_NS), 0);
    cluster_status(app[other].cluster, &s);
    assert_int_equal(s.events, 80);
    assert_int_equal(s.events_own, 0);
}

static void who_waits_for_an_answer_is_let_go_before_a_stop(void **state)
{
    sluice_v1_NodeRequest request = { .which_body = sluice_v1_NodeRequest_barrier_tag };
    sluice_v1_NodeReply reply;
    char sentence[LOG_ERROR_BYTES];

    (void)state;
    test_app_start(&app[0]);
    assert_int_equal(cluster_ask(app[0].cluster, &request, WAIT_NS, &reply), -ENXIO);
    cluster_interrupt(app[0].cluster);
    assert_int_equal(cluster_wait(app[0].cluster, 1, WAIT_NS), -ESHUTDOWN);
    assert_int_equal(cluster_found(app[0].cluster, member, NODES, sentence), -ESHUTDOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(three_nodes_become_a_cluster_and_take_blocks, start, stop),
        cmocka_unit_test_setup_teardown(the_active_region_has_three_nodes, start, stop),
        cmocka_unit_test_setup_teardown(a_cluster_begins_in_its_region_s_epoch, start, stop),
        cmocka_unit_test_setup_teardown(over_tls_it_is_the_same, start, stop),
        cmocka_unit_test_setup_teardown(a_certificate_of_another_node_is_refused, start, stop),
        cmocka_unit_test_setup_teardown(a_node_whose_certificate_expires_is_cut_off, start, stop),
        cmocka_unit_test_setup_teardown(blocks_may_come_to_any_node, start, stop),
        cmocka_unit_test_setup_teardown(without_its_leader_it_goes_on_and_the_old_one_follows,
                                        start, stop),
        cmocka_unit_test_setup_teardown(members_say_what_they_are, start, stop),
        cmocka_unit_test_setup_teardown(a_setting_can_be_changed_at_any_node, start, stop),
        cmocka_unit_test_setup_teardown(who_is_not_a_member_changes_nothing, start, stop),
        cmocka_unit_test_setup_teardown(who_calls_when_descriptors_are_short_is_answered_later,
                                        start, stop),
        cmocka_unit_test_setup_teardown(what_cannot_become_a_cluster_is_refused, start, stop),
        cmocka_unit_test_setup_teardown(one_that_died_while_it_began_waits_again, start, stop),
        cmocka_unit_test_setup_teardown(who_has_nothing_to_say_tells_its_epoch, start, stop),
        cmocka_unit_test_setup_teardown(a_beginning_is_known_before_anybody_leads, start, stop),
        cmocka_unit_test_setup_teardown(a_member_can_be_added_again_and_again, start, stop),
        cmocka_unit_test_setup_teardown(how_far_a_node_is_behind_is_known, start, stop),
        cmocka_unit_test_setup_teardown(own_events_are_counted_apart, start, stop),
        cmocka_unit_test_setup_teardown(who_waits_for_an_answer_is_let_go_before_a_stop, start,
                                        stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
