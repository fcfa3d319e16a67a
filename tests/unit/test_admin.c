/*
 * test_admin.c - the admin server over its real socket: requests, access, bad input.
 *
 * Most tests run the server on its own thread and speak through the CLI's client; those about time
 * and fairness turn it by hand, so that nothing depends on how fast this machine is.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pb_decode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/admin_fixture.h"

static void a_status_request_gets_the_status(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_STATUS };
    static sluice_v1_StatusResponse s;
    pb_istream_t in;

    serve(x, true);
    call(x, &r);
    assert_int_equal(x->response.which, ADMIN_BODY_STATUS);
    in = pb_istream_from_buffer(x->response.body, x->response.body_bytes);
    assert_true(pb_decode(&in, sluice_v1_StatusResponse_fields, &s));
    assert_string_equal(s.role, "leader");
    assert_int_equal(s.events, 1234567);
}

static void a_ledger_request_gets_the_ledger(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_LEDGER };
    static sluice_v1_LedgerResponse l;
    pb_istream_t in;

    serve(x, true);
    call(x, &r);
    in = pb_istream_from_buffer(x->response.body, x->response.body_bytes);
    assert_true(pb_decode(&in, sluice_v1_LedgerResponse_fields, &l));
    assert_int_equal(l.datagrams_seen, 1000);
    assert_int_equal(l.types_count, 1);
    assert_int_equal(l.types[0].committed, 1234560);
}

static void many_requests_on_one_connection_are_answered_in_order(void **state)
{
    struct fixture *x = *state;
    struct admin_request status = { .which = ADMIN_STATUS }, ledger = { .which = ADMIN_LEDGER };
    int i;

    serve(x, true);
    for (i = 0; i < 20; i++)
        ask(x, i % 2 ? &ledger : &status);
    for (i = 0; i < 20; i++) {
        next(x);
        assert_int_equal(x->response.which, i % 2 ? ADMIN_BODY_LEDGER : ADMIN_BODY_STATUS);
    }
}

static void get_finds_an_event_by_source_and_id_and_by_ingestion_id(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_GET };
    static sluice_v1_Event event;
    struct admin_event e;
    pb_istream_t in;

    fake_admin_append_other(&x->fake, LOG_GENESIS);
    fake_admin_block(&x->fake, 5);
    serve(x, true);
    strcpy(r.get.source, "feed-1");
    r.get.id.size = 3;
    memcpy(r.get.id.bytes, "2-3", 3);
    call(x, &r);
    e = event_of(x);
    assert_int_equal(e.index, 2);
    assert_int_equal(e.slot, 3);
    in = pb_istream_from_buffer(e.event, e.event_bytes);
    assert_true(pb_decode(&in, sluice_v1_Event_fields, &event));
    assert_string_equal(event.enrichment.ingestion_id, "3-2-3");
    assert_string_equal(event.symbol, "S3");

    memset(&r.get, 0, sizeof r.get);
    strcpy(r.get.ingestion_id, "3-2-4");
    call(x, &r);
    assert_int_equal(event_of(x).slot, 4);
}

static void get_says_no_to_places_that_hold_no_such_event(void **state)
{
    static const struct {
        const char *id;
        int code;
    } cases[] = {
        { "3-2-5", ENOENT }, /* slot behind the last */
        { "3-1-0", ENOENT }, /* not a block */
        { "3-9-0", ENOENT }, /* not committed */
        { "4-2-0", ENOENT }, /* another epoch */
        { "3-2", EINVAL },      { "x", EINVAL },      { "3-2-0 ", EINVAL },
        { "3-2-2048", EINVAL }, { "3-02-0", EINVAL },
    };
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_GET };
    size_t i;

    fake_admin_append_other(&x->fake, LOG_GENESIS);
    fake_admin_block(&x->fake, 5);
    serve(x, true);
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        strcpy(r.get.ingestion_id, cases[i].id);
        call(x, &r);
        assert_int_equal(x->response.code, cases[i].code);
        assert_true(x->response.error[0] != '\0');
    }
    r.get.ingestion_id[0] = '\0';
    call(x, &r);
    assert_int_equal(x->response.code, EINVAL);
    strcpy(r.get.source, "feed-1");
    r.get.id.size = 4;
    memcpy(r.get.id.bytes, "none", 4);
    call(x, &r);
    assert_int_equal(x->response.code, ENOENT);
}

static void rot_is_told_and_not_served(void **state)
{
    struct fixture *x = *state;
    struct admin_request get = { .which = ADMIN_GET }, tail = { .which = ADMIN_TAIL };

    fake_admin_block(&x->fake, 5);
    atomic_store(&x->fake.rot, true);
    serve(x, true);
    strcpy(get.get.ingestion_id, "3-1-0");
    call(x, &get);
    assert_int_equal(x->response.code, EILSEQ);
    assert_non_null(strstr(x->response.error, "damaged"));
    tail.tail.from_index = 1;
    call(x, &tail);
    assert_int_equal(x->response.code, EILSEQ);
}

static void settings_are_listed_and_set_with_the_peers_uid(void **state)
{
    struct fixture *x = *state;
    struct admin_request list = { .which = ADMIN_SETTINGS };
    struct admin_request set = { .which = ADMIN_SETTING_SET };
    sluice_v1_SettingEntry entry = sluice_v1_SettingEntry_init_zero;
    size_t list_bytes;
    pb_istream_t in;

    serve(x, true);
    x->fake.set_uid = 12345;
    call(x, &list);
    assert_int_equal(x->response.which, ADMIN_BODY_SETTINGS);
    list_bytes = x->response.body_bytes;
    assert_true(list_bytes > 0);
    list.settings.history = true;
    call(x, &list);
    assert_true(x->response.body_bytes > list_bytes);

    strcpy(set.setting_set.key, "class.trade");
    strcpy(set.setting_set.value, "2");
    call(x, &set);
    assert_int_equal(x->response.which, ADMIN_BODY_SETTING);
    in = pb_istream_from_buffer(x->response.body, x->response.body_bytes);
    assert_true(pb_decode(&in, sluice_v1_SettingEntry_fields, &entry));
    assert_int_equal(entry.index, 42);
    assert_string_equal(x->fake.set_value, "2");
    assert_int_equal(x->fake.set_uid, geteuid());
    assert_string_equal(x->fake.set_by, "");

    strcpy(set.setting_set.key, "no.such");
    call(x, &set);
    assert_int_equal(x->response.code, EINVAL);
    assert_string_equal(x->response.error, "there is no setting no.such");
}

static void the_configuration_comes_as_text_and_json(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_CONFIG_SHOW };

    serve(x, true);
    call(x, &r);
    assert_int_equal(x->response.which, ADMIN_BODY_CONFIG);
    assert_non_null(memmem(x->response.body, x->response.body_bytes, "node.id 1", 9));
    assert_non_null(memmem(x->response.body, x->response.body_bytes, "{\"file\"", 7));
}

static void garbage_gets_one_sentence_and_the_door(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        int code;
    } cases[] = {
        { "\xff\xff\xff\xff\xff\xff", 6, EBADMSG }, /* no length */
        { "\x80\x80\x08", 3, EMSGSIZE },            /* 128 KiB */
        { "\x00", 1, EBADMSG },                     /* no body */
        { "\x02\x0a\x05", 3, EBADMSG },             /* body longer than the message */
        { "\x04\x0a\x00\x12\x00", 5, EBADMSG },     /* two bodies */
        { "\x02\x08\x01", 3, EBADMSG },             /* body with another wire type */
        { "\x03\x82\x01\x00", 4, EBADMSG },         /* a body of the future */
        { "\x05GET /", 6, EBADMSG },
    };
    struct fixture *x = *state;
    size_t i;

    serve(x, true);
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd = dial(x);

        send_all(fd, cases[i].bytes, cases[i].n);
        adopt(x, fd);
        next(x);
        assert_int_equal(x->response.code, cases[i].code);
        assert_true(x->response.done && x->response.error[0] != '\0');
        assert_int_equal(admin_client_next(&x->client, WAIT_MS, &x->response), -ECONNRESET);
    }
}

static void a_request_longer_than_its_field_is_refused(void **state)
{
    struct fixture *x = *state;
    uint8_t frame[2 + 2 + 2 + 100] = { 104, 0x1a, 102, 0x0a, 100 }; /* get.source of 100 bytes */

    serve(x, true);
    memset(frame + 5, 'a', 100);
    send_all(x->client.fd, frame, 105);
    next(x);
    assert_int_equal(x->response.code, EBADMSG);
}

static void a_request_may_come_byte_by_byte(void **state)
{
    static const uint8_t frame[] = { 2, 0x0a, 0 };
    struct fixture *x = *state;
    size_t i;
    int turn;

    serve(x, false);
    assert_int_equal(admin_client_open(&x->client, x->path), 0);
    for (i = 0; i < sizeof frame; i++) {
        send_all(x->client.fd, frame + i, 1);
        for (turn = 0; turn < 3; turn++)
            admin_do_work(x->admin, 0);
    }
    next(x);
    assert_int_equal(x->response.which, ADMIN_BODY_STATUS);
}

static void half_a_request_is_not_waited_for_for_ever(void **state)
{
    struct fixture *x = *state;

    x->config.request_ms_max = 30;
    serve(x, true);
    send_all(x->client.fd, "\x05\x0a", 2);
    next(x);
    assert_int_equal(x->response.code, ETIMEDOUT);
    assert_int_equal(admin_client_next(&x->client, WAIT_MS, &x->response), -ECONNRESET);
}

static void an_idle_connection_is_closed(void **state)
{
    struct fixture *x = *state;

    x->config.idle_ms_max = 30;
    serve(x, true);
    assert_int_equal(admin_client_next(&x->client, WAIT_MS, &x->response), -ECONNRESET);
}

static void more_connections_than_allowed_are_turned_away_with_a_sentence(void **state)
{
    enum { N = 6 };
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_STATUS };
    struct admin_client c[N];
    unsigned i;

    x->config.connections_max = N;
    serve(x, true);
    admin_client_close(&x->client);
    for (i = 0; i < N; i++) {
        int rc;

        /* The first may still find the fixture's own connection being closed. */
        do {
            assert_int_equal(admin_client_open(&c[i], x->path), 0);
            assert_int_equal(admin_client_send(&c[i], &r), 0);
            rc = admin_client_next(&c[i], WAIT_MS, &x->response);
            if (rc == 0 && x->response.code == EBUSY)
                admin_client_close(&c[i]);
        } while (rc == 0 && x->response.code == EBUSY);
        assert_int_equal(rc, 0);
        assert_int_equal(x->response.which, ADMIN_BODY_STATUS);
    }
    assert_int_equal(admin_client_open(&x->client, x->path), 0);
    next(x);
    assert_int_equal(x->response.code, EBUSY);
    assert_non_null(strstr(x->response.error, "6 admin connections"));
    /* Those who are in are still served. */
    for (i = 0; i < N; i++) {
        assert_int_equal(admin_client_send(&c[i], &r), 0);
        assert_int_equal(admin_client_next(&c[i], WAIT_MS, &x->response), 0);
        admin_client_close(&c[i]);
    }
}

static void a_user_who_is_not_allowed_is_refused_with_a_sentence(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_STATUS };

    /* The one who runs this test; so it works without root too. */
    x->fake.refused_uid = geteuid() ? geteuid() : 65534;
    x->config.shared = true;
    serve(x, false);
    assert_int_equal(admin_start(x->admin), 0);
    if (geteuid() != 0) {
        assert_int_equal(admin_client_open(&x->client, x->path), 0);
        assert_int_equal(admin_client_send(&x->client, &r), 0);
        next(x);
        assert_int_equal(x->response.code, EACCES);
        assert_non_null(strstr(x->response.error, "may not administer"));
        return;
    }
    assert_int_equal(chmod(x->dir, 0755), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct admin_response response;

        if (setgid(65534) < 0 || setuid(65534) < 0 || admin_client_open(&x->client, x->path) < 0 ||
            admin_client_send(&x->client, &r) < 0 ||
            admin_client_next(&x->client, WAIT_MS, &response) < 0)
            _exit(1);
        _exit(response.code == EACCES && strstr(response.error, "user 65534 may not") ? 0 : 2);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void the_socket_belongs_to_its_owner_alone(void **state)
{
    struct fixture *x = *state;
    struct stat st;

    serve(x, false);
    assert_int_equal(lstat(x->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    admin_close(x->admin);
    x->admin = NULL;
    assert_int_equal(lstat(x->path, &st), -1);
}

static void a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not(void **state)
{
    struct fixture *x = *state;
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    char error[ADMIN_OPEN_ERROR_BYTES];
    struct admin_source source;
    struct admin *second = NULL;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(a.sun_path, sizeof a.sun_path, "%s", x->path);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    close(fd); /* nobody answers there any more */
    serve(x, true);

    fake_admin_source(&x->fake, &source);
    assert_int_equal(admin_open(&second, &x->config, &source, error), -EADDRINUSE);
    assert_non_null(strstr(error, "a daemon answers on"));
    /* The first is untouched. */
    struct admin_request r = { .which = ADMIN_STATUS };
    call(x, &r);
}

static void a_file_that_is_no_socket_is_never_removed(void **state)
{
    struct fixture *x = *state;
    char error[ADMIN_OPEN_ERROR_BYTES];
    struct admin_source source;
    FILE *f = fopen(x->path, "w");

    assert_non_null(f);
    fclose(f);
    fake_admin_source(&x->fake, &source);
    assert_int_equal(admin_open(&x->admin, &x->config, &source, error), -EEXIST);
    assert_int_equal(access(x->path, F_OK), 0);
    x->admin = NULL;
}

static void a_successors_socket_is_left_alone(void **state)
{
    struct fixture *x = *state;
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd;

    serve(x, false);
    assert_int_equal(unlink(x->path), 0);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", x->path);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    admin_close(x->admin);
    x->admin = NULL;
    assert_int_equal(access(x->path, F_OK), 0);
    close(fd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, admin_fixture_setup, admin_fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_status_request_gets_the_status),
        TEST(a_ledger_request_gets_the_ledger),
        TEST(many_requests_on_one_connection_are_answered_in_order),
        TEST(get_finds_an_event_by_source_and_id_and_by_ingestion_id),
        TEST(get_says_no_to_places_that_hold_no_such_event),
        TEST(rot_is_told_and_not_served),
        TEST(settings_are_listed_and_set_with_the_peers_uid),
        TEST(the_configuration_comes_as_text_and_json),
        TEST(garbage_gets_one_sentence_and_the_door),
        TEST(a_request_longer_than_its_field_is_refused),
        TEST(a_request_may_come_byte_by_byte),
        TEST(half_a_request_is_not_waited_for_for_ever),
        TEST(an_idle_connection_is_closed),
        TEST(more_connections_than_allowed_are_turned_away_with_a_sentence),
        TEST(a_user_who_is_not_allowed_is_refused_with_a_sentence),
        TEST(the_socket_belongs_to_its_owner_alone),
        TEST(a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not),
        TEST(a_file_that_is_no_socket_is_never_removed),
        TEST(a_successors_socket_is_left_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
