/*
 * test_xdp_walk.c - the walk to the events' types (bpf/protobuf.h) on messages written by hand:
 * what it says in user space, and that the program in the kernel says the same.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/edit.h"
#include "tests/lib/xdp_expect.h"
#include "tests/lib/xdp_model.h"

static struct xdp_rig rig;
static struct xdp_model model;

/* Through both; the user-space walk reads an exact copy. */
static struct walk walk_of(const void *data, size_t bytes)
{
    static _Alignas(8) uint8_t frame[8192];
    struct frame f;

    frame_init(&f, data, bytes);
    xdp_model_check(&model, frame, frame_build(&f, frame, sizeof frame));
    return model.walk;
}

#define WALK(text) walk_of(text, sizeof(text) - 1)

static void is_ok(struct walk w, bool complete, unsigned events, const uint8_t *types)
{
    assert_int_equal(w.status, WALK_OK);
    assert_int_equal(w.complete, complete);
    assert_int_equal(w.events, events);
    for (unsigned i = 0; i < events && i < WALK_EVENTS; i++)
        assert_int_equal(w.type[i], types[i]);
}

#define OK(text, complete, n, ...)                                                                 \
    is_ok(WALK(text), complete, n, (const uint8_t[WALK_EVENTS]){ __VA_ARGS__ })

/* --- single events --------------------------------------------------------------------------- */

static void an_events_type_is_its_first_field(void **state)
{
    OK("\x08\x00", true, 1, 0);
    OK("\x08\x01", true, 1, 1);
    OK("\x08\x7f", true, 1, 127);
    OK("\x08\x80\x01", true, 1, 0);
    OK("\x08\x81\x00", true, 1, 1); /* over-long */
    OK("\x08\x83\x80\x80\x80\x80\x80\x80\x80\x80\x00", true, 1, 3);
    OK("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", true, 1, 0);
    OK("\x08\x01\x12\x04"
       "feed",
       true, 1, 1);
    OK("\x08\x01\x08\x02", true, 1, 1); /* the worker refuses it */
    OK("\x08\x01\x0a\x02\x08\x03", true, 1, 1);
}

static void every_wire_type_of_an_unknown_field_is_passed_over(void **state)
{
    OK("\x08\x01\x60\x05", true, 1, 1);
    OK("\x08\x01\x60\x85\x80\x80\x80\x80\x80\x80\x80\x80\x01", true, 1, 1);
    OK("\x08\x01\x61"
       "12345678",
       true, 1, 1);
    OK("\x08\x01\x62\x03"
       "abc",
       true, 1, 1);
    OK("\x08\x01\x65"
       "1234",
       true, 1, 1);
    OK("\x08\x01\xf8\xff\xff\xff\x0f\x05", true, 1, 1);  /* field 2^29 - 1 */
    OK("\x08\x01\xe2\x80\x80\x80\x00\x01x", true, 1, 1); /* a tag of five bytes for two */
}

static void an_event_that_does_not_add_up_is_malformed(void **state)
{
    static const struct {
        const char *data;
        size_t bytes;
    } bad[] = {
        { "\x08", 1 },
        { "\x08\x80", 2 },
        { "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11 },     /* 65 bits */
        { "\x08\x81\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 12 }, /* 11 bytes */
        { "\x08\x01\x12", 3 },
        { "\x08\x01\x12\x01", 4 },
        { "\x08\x01\x12\x80", 4 },
        { "\x08\x01\x12\xff\xff\xff\xff\x0f", 8 },
        { "\x08\x01\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 13 },
        { "\x08\x01\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 12 },
        { "\x08\x01\x61"
          "1234567",
          10 },
        { "\x08\x01\x65"
          "123",
          6 },
        { "\x08\x01\x00\x00", 4 },                     /* field 0 */
        { "\x08\x01\x02\x00", 4 },                     /* ... */
        { "\x08\x01\x63\x64", 4 },                     /* a group */
        { "\x08\x01\x64", 3 },                         /* its end */
        { "\x08\x01\x66\x00", 4 },                     /* wire types 6 */
        { "\x08\x01\x67\x00", 4 },                     /* ... and 7 */
        { "\x08\x01\xe0\x80\x80\x80\x80\x00\x01", 9 }, /* a tag of six bytes */
        { "\x08\x01\x80\x80\x80\x80\x10\x00", 8 },     /* field 2^29 */
        { "\x08\x01\x12\x00\x00", 5 },
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct walk w = walk_of(bad[i].data, bad[i].bytes);

        assert_int_equal(w.status, WALK_MALFORMED);
        assert_int_equal(w.batch, 0);
        assert_int_equal(model.reason, REASON_EVENT_MALFORMED);
    }
}

static void an_event_of_more_fields_than_steps_is_left_to_the_worker(void **state)
{
    struct edit e = { 0 };

    edit_number(&e, 1, 2);
    for (unsigned fields = 0; fields < 60; fields++) {
        is_ok(walk_of(e.data, e.bytes), fields <= WALK_STEPS, 1, (const uint8_t[]){ 2 });
        edit_number(&e, fields % 2 ? 20 : 3, 5);
    }
}

/* --- batches --------------------------------------------------------------------------------- */

static void a_batchs_types_are_those_of_its_events(void **state)
{
    OK("\x0a\x02\x08\x01", true, 1, 1);
    OK("\x0a\x02\x08\x01\x0a\x02\x08\x02\x0a\x02\x08\x7f", true, 3, 1, 2, 127);
    OK("\x0a\x03\x08\x80\x01\x0a\x02\x08\x02", true, 2, 0, 2);
    OK("\x0a\x82\x00\x08\x01\x0a\x82\x80\x80\x00\x08\x03", true, 2, 1, 3); /* over-long */
    OK("\x0a\x02\x08\x01\x12\x03"
       "abc\x18\x05\x20\x01\x0a\x02\x08\x02",
       true, 2, 1, 2);
    OK("\x0a\x02\x08\x01\x62\x01x\x65"
       "1234\x61"
       "12345678\x60\x01\x0a\x02\x08\x02",
       true, 2, 1, 2);
}

static void an_empty_event_or_one_without_a_type_has_type_0(void **state)
{
    OK("\x0a\x00", true, 1, 0);
    OK("\x0a\x00\x0a\x00\x0a\x02\x08\x03", true, 3, 0, 0, 3);
    OK("\x0a\x03\x12\x01x", true, 1, 0);
    OK("\x0a\x03\x12\x01x\x0a\x02\x08\x03", true, 2, 0, 3);
}

static void a_type_behind_other_fields_is_found(void **state)
{
    OK("\x0a\x05\x12\x01x\x08\x02", true, 1, 2);
    OK("\x0a\x0e\x21"
       "12345678\x12\x01x\x08\x03\x0a\x02\x08\x01",
       true, 2, 3, 1);
    OK("\x0a\x06\x0a\x02zz\x08\x03", true, 1, 3); /* type with a wrong wire type is not it */
}

/* Whatever is wrong inside one event is that event's trouble, wherever it stands. */
static void a_broken_event_has_type_0_and_the_others_their_own(void **state)
{
    static const char *const broken[] = {
        "\x08\x80", "\x08",     "\x12\x05x",
        "\x63\x01", "\x07\x00", "\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"
    };
    struct edit e;

    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        for (unsigned at = 0; at < 3; at++) {
            uint8_t types[3] = { 1, 2, 3 };

            e.bytes = 0;
            for (unsigned k = 0; k < 3; k++) {
                const uint8_t good[] = { 0x08, types[k] };

                if (k == at)
                    edit_text(&e, 1, broken[i]);
                else
                    edit_bytes(&e, 1, good, 2);
            }
            types[at] = 0;
            is_ok(walk_of(e.data, e.bytes), true, 3, types);
        }
    }
    OK("\x0a\x01\x08", true, 1, 0);
}

static void sixteen_events_are_walked_and_a_broken_last_one_is_no_more(void **state)
{
    uint8_t types[WALK_EVENTS];
    struct edit e;

    for (unsigned events = 14; events < 20; events++) {
        for (unsigned bad = 0; bad <= events; bad++) {
            unsigned n = events < WALK_EVENTS ? events : WALK_EVENTS;

            e.bytes = 0;
            for (unsigned i = 0; i < events; i++) {
                const uint8_t event[] = { i == bad ? 0x09 : 0x08, (uint8_t)(i % 3 + 1) };

                edit_bytes(&e, 1, event, 2);
                if (i < WALK_EVENTS)
                    types[i] = i == bad ? 0 : event[1];
            }
            is_ok(walk_of(e.data, e.bytes), events <= WALK_EVENTS, n, types);
        }
    }
}

static void a_batch_that_does_not_add_up_is_malformed(void **state)
{
    static const struct {
        const char *data;
        size_t bytes;
    } bad[] = {
        { "\x0a", 1 },
        { "\x0a\x01", 2 },
        { "\x0a\x80", 2 },
        { "\x0a\x03\x08\x01", 4 },
        { "\x0a\xff\xff\xff\xff\x0f\x08\x01", 8 },
        { "\x0a\x82\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00\x08\x01", 14 },
        { "\x0a\x02\x08\x01\x0a", 5 },
        { "\x0a\x02\x08\x01\x00\x00", 6 },
        { "\x0a\x02\x08\x01\x13\x14", 6 },
        { "\x0a\x02\x08\x01\x16", 5 },
        { "\x0a\x02\x08\x01\x08\x01", 6 }, /* the batch's fields with other wire types */
        { "\x0a\x02\x08\x01\x0d"
          "1234",
          9 },
        { "\x0a\x02\x08\x01\x10\x01", 6 },
        { "\x0a\x02\x08\x01\x1a\x01x", 7 },
        { "\x0a\x02\x08\x01\x22\x01x", 7 },
        { "\x0a\x02\x08\x01\x12\x05x", 7 },
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct walk w = walk_of(bad[i].data, bad[i].bytes);

        assert_int_equal(w.status, WALK_MALFORMED);
        assert_int_equal(w.batch, 1);
        assert_int_equal(model.reason, REASON_BATCH_MALFORMED);
    }
}

static void what_is_behind_the_walk_is_not_looked_at(void **state)
{
    struct edit e = { 0 };
    uint8_t types[WALK_EVENTS];

    for (unsigned i = 0; i < WALK_EVENTS; i++) {
        edit_bytes(&e, 1, "\x08\x01", 2);
        types[i] = 1;
    }
    edit_bytes(&e, 0, "x", 1);
    is_ok(walk_of(e.data, e.bytes), false, WALK_EVENTS, types);
    /* As many other fields before the second event. */
    e.bytes = 0;
    edit_bytes(&e, 1, "\x08\x01", 2);
    for (unsigned i = 0; i < WALK_STEPS; i++)
        edit_number(&e, 3, i);
    edit_bytes(&e, 0, "x", 1);
    is_ok(walk_of(e.data, e.bytes), false, 1, types);
    /* An event that is nothing but fields: not one type is known. */
    struct edit event = { 0 };

    e.bytes = 0;
    for (unsigned i = 0; i < 2 * WALK_STEPS; i++)
        edit_number(&event, 3, i);
    edit_message(&e, 1, &event);
    is_ok(walk_of(e.data, e.bytes), false, 0, types);
    assert_int_equal(model.reason, REASON_NONE);
}

/* --- the datagram's end ---------------------------------------------------------------------- */

/* What stands behind the datagram (Ethernet's padding, IP's rest) would complete it. */
static void nothing_behind_the_datagram_is_read(void **state)
{
    static const char whole[] = "\x08\x01\x12\x03"
                                "abc\x60\x81\x01",
                      batch[] = "\x0a\x02\x08\x01\x0a\x82\x00\x08\x02\x12\x01x";
    static _Alignas(8) uint8_t frame[4096];

    for (size_t i = 0; i < 2; i++) {
        const char *data = i ? batch : whole;
        size_t all = i ? sizeof batch - 1 : sizeof whole - 1;

        for (size_t cut = 1; cut <= all; cut++) {
            struct frame f;
            size_t frame_bytes;

            frame_init(&f, data, cut);
            frame_bytes = frame_build(&f, frame, sizeof frame);
            memcpy(frame + frame_bytes, data + cut, all - cut);
            memset(frame + frame_bytes + all - cut, 0, 32);
            xdp_model_check(&model, frame, frame_bytes + all - cut + 32);
            if (cut == all)
                assert_int_equal(model.walk.complete, 1);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_events_type_is_its_first_field),
        cmocka_unit_test(every_wire_type_of_an_unknown_field_is_passed_over),
        cmocka_unit_test(an_event_that_does_not_add_up_is_malformed),
        cmocka_unit_test(an_event_of_more_fields_than_steps_is_left_to_the_worker),
        cmocka_unit_test(a_batchs_types_are_those_of_its_events),
        cmocka_unit_test(an_empty_event_or_one_without_a_type_has_type_0),
        cmocka_unit_test(a_type_behind_other_fields_is_found),
        cmocka_unit_test(a_broken_event_has_type_0_and_the_others_their_own),
        cmocka_unit_test(sixteen_events_are_walked_and_a_broken_last_one_is_no_more),
        cmocka_unit_test(a_batch_that_does_not_add_up_is_malformed),
        cmocka_unit_test(what_is_behind_the_walk_is_not_looked_at),
        cmocka_unit_test(nothing_behind_the_datagram_is_read),
    };
    int rc = xdp_rig_open(&rig);

    if (rc != 0)
        return rc;
    xdp_rig_sockets(&rig);
    xdp_model_init(&model, &rig);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    xdp_rig_close(&rig);
    return rc;
}
