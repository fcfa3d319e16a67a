/*
 * test_peers_strangers.c - three nodes in one process, and a connection of the test's own: who is
 * no member, or has said nothing yet, and what it is told.
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
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cluster/handshake.h"
#include "tests/lib/peers_rig.h"

static void receive(int fd, void *ret, size_t n)
{
    if (recv(fd, ret, n, MSG_WAITALL) != (ssize_t)n)
        fail_msg("the connection ends, or is silent");
}

static struct sockaddr_in place_of(int i)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        .sin_port = htons((uint16_t)strtoul(strchr(rig_peering[i].listen, ':') + 1, NULL, 10)),
    };
}

/* It says that it is of that cluster (NULL: of none) and epoch. */
static void stranger_says(int fd, int i, const uint8_t cluster_id[16], uint64_t epoch)
{
    struct hello h = { .magic = HANDSHAKE_MAGIC,
                       .version_min = PEER_VERSION_MIN,
                       .version_max = PEER_VERSION_MIN,
                       .directory_id = { 9 },
                       .process = 9,
                       .connection = 1,
                       .node = 9,
                       .dialled = (uint16_t)(i + 1),
                       .epoch = epoch,
                       .region = 1 };
    const struct sockaddr_in a = place_of(i);
    const struct timeval patience = { .tv_sec = 20 };
    uint8_t frame[HANDSHAKE_FRAME_MAX] __attribute__((aligned(8)));
    int n;

    if (cluster_id != NULL)
        memcpy(h.cluster_id, cluster_id, sizeof h.cluster_id);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    n = handshake_put_hello(frame, sizeof frame, &h);
    assert_int_equal(send(fd, frame, (size_t)n, 0), n);
}

static struct peer_header *receive_frame(int fd)
{
    static uint8_t frame[2048] __attribute__((aligned(8)));
    struct peer_header *head = (void *)frame;

    receive(fd, frame, PEER_HEADER_BYTES);
    assert_in_range(head->body_bytes, 0, sizeof frame - PEER_HEADER_BYTES);
    if (head->body_bytes > 0)
        receive(fd, frame + PEER_HEADER_BYTES, head->body_bytes);
    return head;
}

static void stranger_is_welcome(int fd) { assert_int_equal(receive_frame(fd)->type, PEER_WELCOME); }

static int dial_as_stranger(int i)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    stranger_says(fd, i, NULL, 0);
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
    peers_rig_start();
    peers_rig_found(0);
    lead = peers_rig_leader();
    fd = dial_as_stranger(lead);
    assert_int_equal(call(fd, &r, &reply), 0);
    assert_int_equal(reply.status.leader, lead + 1);
    cluster_status(rig_app[lead].cluster, &before);
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
    cluster_status(rig_app[lead].cluster, &after);
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
    peers_rig_start();
    peers_rig_found(0);
    lead = peers_rig_leader();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    none = (struct rlimit){ (rlim_t)fd + 1, before.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    stranger_says(fd, lead, NULL, 0);
    peers_rig_blocks(lead, 50, 0);
    assert_int_equal(recv(fd, &reply, 1, MSG_DONTWAIT), -1);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    stranger_is_welcome(fd);
    assert_int_equal(call(fd, &r, &reply), 0);
    close(fd);
}

/* A node whose place was in an epoch that was given up may know only this one, and has to hear of
 * the one that there is. */
static void who_leads_lets_in_a_stranger_of_an_earlier_epoch(void **state)
{
    sluice_v1_NodeStatus self;
    int lead;

    (void)state;
    for (int i = 0; i < NODES; i++)
        rig_app[i].region = 2;
    peers_rig_start();
    peers_rig_found(0);
    lead = peers_rig_leader();
    assert_int_equal(cluster_self(rig_app[lead].cluster, &self, NULL), 0);
    assert_int_equal(self.epoch, 2);
    for (uint64_t epoch = 1; epoch <= 3; epoch++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        stranger_says(fd, lead, self.cluster_id, epoch);
        assert_int_equal(receive_frame(fd)->type, epoch < 2 ? PEER_WELCOME : PEER_REFUSE);
        close(fd);
    }
}

/* Here to one that only welcomes it: whatever else it has to say, it tells its epoch. */
static void who_has_nothing_to_say_tells_its_epoch(void **state)
{
    const struct sockaddr_in a = place_of(2);
    const struct timeval patience = { .tv_sec = 20 };
    struct welcome w = { .magic = HANDSHAKE_MAGIC, .version = PEER_VERSION_MAX, .node = 3 };
    uint8_t frame[HANDSHAKE_FRAME_MAX] __attribute__((aligned(8)));
    sluice_v1_NodeStatus self;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), c, n;

    (void)state;
    peers_rig_start();
    peers_rig_found(0);
    peers_rig_together(peers_rig_leader());
    assert_int_equal(cluster_self(rig_app[2].cluster, &self, NULL), 0);
    memcpy(w.directory_id, self.directory_id, sizeof w.directory_id);
    test_app_stop(&rig_app[1]);
    test_app_stop(&rig_app[2]);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 8), 0);
    c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    assert_int_equal(setsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    for (int i = 0, pings = 0; pings < 2; i++) {
        assert_true(i < 100);
        const struct peer_header *head = receive_frame(c);

        assert_int_equal(head->epoch, 1);
        pings += head->type == PEER_PING;
        n = head->type == PEER_HELLO ? handshake_put_welcome(frame, sizeof frame, 1, &w) : 0;
        assert_int_equal(send(c, frame, (size_t)n, 0), n);
    }
    close(c);
    close(fd);
}

/* It has entry 1, and knows nothing as committed until it hears from a leader. */
static void a_beginning_is_known_before_anybody_leads(void **state)
{
    sluice_v1_NodeRequest r = { .which_body = sluice_v1_NodeRequest_status_tag };
    sluice_v1_NodeReply reply = sluice_v1_NodeReply_init_zero;
    int fd;

    (void)state;
    peers_rig_start();
    peers_rig_found(0);
    peers_rig_together(peers_rig_leader());
    for (int i = 0; i < NODES; i++)
        test_app_stop(&rig_app[i]);
    test_app_start(&rig_app[2]);
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
#define TEST(name) cmocka_unit_test_setup_teardown(name, peers_rig_setup, peers_rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_is_not_a_member_changes_nothing),
        TEST(who_leads_lets_in_a_stranger_of_an_earlier_epoch),
        TEST(who_calls_when_descriptors_are_short_is_answered_later),
        TEST(who_has_nothing_to_say_tells_its_epoch),
        TEST(a_beginning_is_known_before_anybody_leads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
