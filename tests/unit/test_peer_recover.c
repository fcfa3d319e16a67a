/*
 * test_peer_recover.c - the body of a RECOVER: every good form is read as it was written, whatever
 * cannot be is refused, field by field, and nothing behind the body is looked at.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/member.h"
#include "cluster/peer_frame.h"
#include "cluster/peer_recover.h"

#define AUDIT_BYTES 21u

static struct {
    struct peer_recover head;
    uint8_t rest[PEER_RECOVER_AUDIT_MAX + PEER_CONFIGURATION_BYTES_MAX + 64];
} body __attribute__((aligned(8)));
static size_t bytes;
static uint8_t audit[PEER_RECOVER_AUDIT_MAX + 8], change[PEER_CONFIGURATION_BYTES_MAX + 8];
static uint32_t change_bytes;

/* In memory that ends where the body does, which a sanitizer sees. */
static const char *get(struct peer_recover_view *ret)
{
    uint8_t *exact = malloc(bytes > 0 ? bytes : 1);
    const char *e;

    assert_non_null(exact);
    memcpy(exact, &body, bytes);
    memset(ret, 0x77, sizeof *ret);
    e = peer_recover_get(ret, exact, bytes);
    if (e == NULL) {
        assert_memory_equal(&ret->head, exact, sizeof ret->head);
        assert_int_equal(((uintptr_t)ret->audit & 7) | ((uintptr_t)ret->change & 7), 0);
        assert_memory_equal(ret->audit, audit, ret->head.audit_bytes);
        assert_memory_equal(ret->change, change, ret->head.change_bytes);
    } else {
        assert_true(strlen(e) > 0);
    }
    free(exact);
    return e;
}

static void put_entries(uint32_t audit_n, uint32_t change_n)
{
    body.head.audit_bytes = audit_n;
    body.head.change_bytes = change_n;
    memset(body.rest, 0, sizeof body.rest);
    memcpy(body.rest, audit, audit_n);
    memcpy(body.rest + peer_recover_padded(audit_n), change, change_n);
    bytes = sizeof body.head + peer_recover_padded(audit_n) + peer_recover_padded(change_n);
}

static void make(enum recover_step step, bool answer)
{
    struct member m[3] = { { .node = 1 }, { .node = 2 }, { .node = 3 } };
    int n;

    for (uint16_t i = 0; i < 3; i++) {
        m[i].role = i < 2 ? MEMBER_VOTER : MEMBER_STANDBY;
        m[i].port = (uint16_t)(7001 + i);
        m[i].region = i < 2 ? 2 : 1;
        memset(m[i].directory_id, i + 1, sizeof m[i].directory_id);
        memcpy(m[i].host, "h", 2);
    }
    n = members_encode(m, 3, change, sizeof change);
    assert_in_range(n, 1, PEER_CONFIGURATION_BYTES_MAX);
    change_bytes = (uint32_t)n;
    for (unsigned i = 0; i < sizeof audit; i++)
        audit[i] = (uint8_t)(i + 1);
    memset(&body, 0, sizeof body);
    body.head = (struct peer_recover){ .step = (uint16_t)step,
                                       .answer = answer,
                                       .epoch = 4,
                                       .attempt = 9,
                                       .index = 30,
                                       .term = 3 << 20,
                                       .time_ns = 5,
                                       .started = 3,
                                       .promised = 4,
                                       .settled = 29,
                                       .committed = 28,
                                       .silent_ms = UINT64_MAX,
                                       .events = 7,
                                       .leader = 2,
                                       .source = 2 };
    memset(body.head.digest, 0x21, sizeof body.head.digest);
    memset(body.head.settled_digest, 0x43, sizeof body.head.settled_digest);
    bytes = sizeof body.head;
    if (step == RECOVER_FINISH && !answer)
        put_entries(AUDIT_BYTES, change_bytes);
}

static void assert_good(void)
{
    struct peer_recover_view v;
    const char *e = get(&v);

    if (e != NULL)
        fail_msg("step %u, answer %u: %s", body.head.step, body.head.answer, e);
}

static void assert_bad(const char *what)
{
    struct peer_recover_view v, as_it_was;

    memset(&as_it_was, 0x77, sizeof as_it_was);
    if (get(&v) == NULL)
        fail_msg("step %u, answer %u: %s", body.head.step, body.head.answer, what);
    assert_memory_equal(&v, &as_it_was, sizeof v);
}

#define EACH(step, answer)                                                                         \
    for (unsigned step = RECOVER_LOOK; step <= RECOVER_FINISH; step++)                             \
        for (unsigned answer = 0; answer < 2; answer++)

static void every_form_is_read_as_it_was_written(void **state)
{
    (void)state;
    EACH(step, answer)
    {
        make(step, answer);
        assert_good();
    }
    make(RECOVER_LOOK, false); /* of a node that looks for a later epoch, and leads nothing */
    body.head.epoch = body.head.attempt = 0;
    assert_good();
    make(RECOVER_LOOK, true);
    body.head.epoch = body.head.attempt = 0;
    assert_good();
    EACH(step, answer)
    {
        make(step, answer);
        if (!answer)
            continue;
        body.head.status = -EEXIST;
        assert_good();
        body.head.status = INT32_MIN;
        assert_good();
    }
}

/* Whatever their length, what is behind the audit is where it was put. */
static void the_entries_of_a_finish_may_be_of_any_length_up_to_the_largest(void **state)
{
    (void)state;
    make(RECOVER_FINISH, false);
    for (uint32_t n = 1; n <= PEER_RECOVER_AUDIT_MAX; n += n < 20 ? 1 : 67) {
        put_entries(n, change_bytes);
        assert_good();
    }
    put_entries(PEER_RECOVER_AUDIT_MAX, change_bytes);
    assert_good();
    put_entries(PEER_RECOVER_AUDIT_MAX + 1, change_bytes);
    assert_bad("a longer audit entry");
    /* The room is there, what it says is not. */
    make(RECOVER_FINISH, false);
    body.head.audit_bytes = AUDIT_BYTES + 3; /* in the same eight bytes */
    memset(audit + AUDIT_BYTES, 0, 3);
    assert_int_equal(peer_recover_padded(AUDIT_BYTES + 3), peer_recover_padded(AUDIT_BYTES));
    assert_good();
}

static void another_length_is_no_recover(void **state)
{
    const uint32_t most[] = { UINT32_MAX,
                              UINT32_MAX - 7,
                              UINT32_MAX - 8,
                              1u << 31,
                              PEER_CONFIGURATION_BYTES_MAX + 1,
                              (1u << 16) + 16,
                              PEER_RECOVER_AUDIT_MAX + 8 };

    (void)state;
    EACH(step, answer)
    {
        make(step, answer);
        for (size_t whole = bytes, n = 0; n < whole; n++) {
            bytes = n;
            assert_bad("a shorter body");
        }
        make(step, answer);
        for (size_t whole = bytes, n = 1; n <= 16; n++) {
            bytes = whole + n;
            assert_bad("a longer body");
        }
        for (unsigned i = 0; i < sizeof most / sizeof *most; i++) {
            make(step, answer);
            body.head.audit_bytes = most[i];
            assert_bad("an audit entry beyond the body");
            make(step, answer);
            body.head.change_bytes = most[i];
            assert_bad("a configuration beyond the body");
            make(step, answer);
            body.head.audit_bytes = body.head.change_bytes = most[i];
            assert_bad("two entries beyond the body");
        }
    }
    make(RECOVER_FINISH, false);
    put_entries(8, 8);
    body.head.audit_bytes = 16; /* their sum is the body's */
    body.head.change_bytes = 0;
    assert_bad("one entry in the place of two");
}

#define BREAK(field, value)                                                                        \
    do {                                                                                           \
        make(step, answer);                                                                        \
        body.head.field = (value);                                                                 \
        assert_bad(#field " = " #value);                                                           \
    } while (0)

static void a_field_that_cannot_be_is_not_believed(void **state)
{
    (void)state;
    EACH(step, answer)
    {
        BREAK(step, 0);
        BREAK(step, RECOVER_FINISH + 1);
        BREAK(step, UINT16_MAX);
        BREAK(answer, 2);
        BREAK(answer, UINT16_MAX);
        BREAK(status, 1);
        BREAK(status, INT32_MAX);
        BREAK(zero[0], 1);
        BREAK(zero[1], 1);
        BREAK(zero[2], 1);
        BREAK(zero[2], 0x100);
    }
}

static void only_a_look_is_of_no_attempt(void **state)
{
    (void)state;
    for (unsigned step = RECOVER_PROMISE; step <= RECOVER_FINISH; step++) {
        const bool answer = false;

        BREAK(epoch, 0);
        BREAK(attempt, 0);
    }
    make(RECOVER_LOOK, false);
    body.head.attempt = 0;
    assert_good();
    make(RECOVER_LOOK, false);
    body.head.epoch = 0;
    assert_good();
}

/* What a node would end with, or never come out of. */
static void what_no_node_asks_for_is_refused(void **state)
{
    (void)state;
    make(RECOVER_COPY, false);
    body.head.index = 0;
    assert_bad("a COPY of an empty log");
    make(RECOVER_COPY, false);
    body.head.source = 0;
    assert_bad("a COPY from nobody");
    make(RECOVER_PROMISE, false);
    body.head.epoch = PEER_RECOVER_EPOCH_MAX;
    assert_good();
    body.head.epoch++;
    assert_bad("an epoch that no term can have");
    make(RECOVER_LOOK, true);
    body.head.started = PEER_RECOVER_EPOCH_MAX + 1;
    assert_bad("an epoch that no node can be of");
    make(RECOVER_PROMISE, true);
    body.head.promised = UINT64_MAX;
    assert_bad("a promise that nobody can go beyond");
    make(RECOVER_LOOK, false);
    body.head.status = -1;
    assert_bad("a request with a result");
}

static void a_finish_has_both_entries_and_nothing_else_has_them(void **state)
{
    (void)state;
    EACH(step, answer)
    {
        make(step, answer);
        put_entries(AUDIT_BYTES, change_bytes);
        if (step == RECOVER_FINISH && !answer)
            assert_good();
        else
            assert_bad("entries");
        if (step == RECOVER_FINISH && !answer)
            continue;
        put_entries(AUDIT_BYTES, 0);
        assert_bad("an audit entry where there can be none");
        put_entries(0, change_bytes);
        assert_bad("a configuration where there can be none");
    }
    make(RECOVER_FINISH, false);
    put_entries(0, change_bytes);
    assert_bad("a FINISH without an audit entry");
    put_entries(AUDIT_BYTES, 0);
    assert_bad("a FINISH without a configuration");
    put_entries(0, 0);
    assert_bad("a FINISH without entries");
}

static void a_configuration_that_cannot_be_is_not_taken(void **state)
{
    struct peer_recover_view v;
    uint32_t whole;

    (void)state;
    make(RECOVER_FINISH, false);
    whole = change_bytes;
    for (uint32_t n = 1; n < whole; n++) {
        put_entries(AUDIT_BYTES, n);
        if (peer_recover_padded(n) < peer_recover_padded(whole))
            assert_non_null(get(&v));
        else
            (void)get(&v); /* the zeros behind it may be taken for its end */
    }
    make(RECOVER_FINISH, false);
    memset(change, 0xff, sizeof change);
    put_entries(AUDIT_BYTES, PEER_CONFIGURATION_BYTES_MAX);
    assert_non_null(get(&v));
    for (unsigned i = 0; i < 9; i++) { /* its format, and how many servers it has */
        make(RECOVER_FINISH, false);
        change[i] ^= 0x40;
        put_entries(AUDIT_BYTES, change_bytes);
        assert_non_null(get(&v));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_is_read_as_it_was_written),
        cmocka_unit_test(the_entries_of_a_finish_may_be_of_any_length_up_to_the_largest),
        cmocka_unit_test(another_length_is_no_recover),
        cmocka_unit_test(a_field_that_cannot_be_is_not_believed),
        cmocka_unit_test(only_a_look_is_of_no_attempt),
        cmocka_unit_test(what_no_node_asks_for_is_refused),
        cmocka_unit_test(a_finish_has_both_entries_and_nothing_else_has_them),
        cmocka_unit_test(a_configuration_that_cannot_be_is_not_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
