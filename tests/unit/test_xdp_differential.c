/*
 * test_xdp_differential.c - four readings of the same messages, held against each other: the XDP
 * program's in the kernel, the same walk's in user space, the worker's (batch_walk(), decode), and
 * nanopb's.
 *
 *   - the program drops nothing as broken of which the worker would take an event
 *   - what the walk calls malformed is malformed to the worker and to nanopb. nanopb is more
 *     lenient in three points: a tag may have up to ten bytes and 64 bits of which it drops the
 *     upper half, a varint that it skips may be of any length, and a field that is read by a
 *     callback, as EventBatch.events is, may be of any wire type.
 *   - an event that the worker decodes has the type that the walk has found
 *
 *   SLUICE_DIFFERENTIAL_MESSAGES  how many (150000; in full mode 1500000)
 *   SLUICE_DIFFERENTIAL_SEED      (1)
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <inttypes.h>
#include <pb_decode.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/line.h"
#include "tests/lib/message.h"
#include "tests/lib/xdp_model.h"

#define EVENTS_MAX        2048u
#define MESSAGE_BYTES_MAX 3000u

static struct xdp_rig rig;
static struct xdp_model model;
static struct line *line;
static struct message_maker maker;
static uint64_t messages, seed;

static struct tally {
    uint64_t events, batches, decoded, malformed, complete, behind, lenient_tag, lenient_varint,
        first_peeked, dropped_by_type;
} tally;

/* --- a reading of the wire by the book ------------------------------------------------------- */

enum fault { WELL, CUT, LONG_TAG, FIELD_0, WRONG_WIRE, LONG_VARINT, LONG_LENGTH, GROUP };

struct plain {
    const uint8_t *data;
    size_t at, end;
    uint64_t value;
    unsigned bytes; /* of the varint read last */
    bool over;      /* that has more than 64 bits */
};

static bool plain_varint(struct plain *p)
{
    p->value = 0;
    p->bytes = 0;
    p->over = false;
    while (p->at < p->end) {
        uint8_t byte = p->data[p->at++];

        if (p->bytes < 9)
            p->value |= (uint64_t)(byte & 0x7f) << (7 * p->bytes);
        else if (p->bytes == 9)
            p->value |= (uint64_t)(byte & 1) << 63;
        if (p->bytes > 9 || (p->bytes == 9 && (byte & 0x7e) != 0))
            p->over = true;
        p->bytes++;
        if (byte < 0x80)
            return true;
    }
    return false;
}

static enum fault plain_value(struct plain *p, unsigned wire)
{
    uint64_t bytes = wire == 1 ? 8 : 4;

    if (wire == 3 || wire == 4 || wire > 5)
        return GROUP;
    if (wire == 0 || wire == 2) {
        if (!plain_varint(p))
            return CUT;
        if (p->bytes > 10 || p->over)
            return wire == 0 ? LONG_VARINT : LONG_LENGTH;
        bytes = wire == 2 ? p->value : 0;
    }
    if (bytes > p->end - p->at)
        return CUT;
    p->at += bytes;
    return WELL;
}

/* The first thing that is wrong at the top level, and in which field. */
static enum fault fault_of(const uint8_t *data, size_t bytes, bool batch, uint32_t *ret_field)
{
    static const unsigned batch_wire[] = { 9, 2, 2, 0, 0 };
    struct plain p = { .data = data, .end = bytes };

    while (p.at < p.end) {
        unsigned wire;
        enum fault fault;

        *ret_field = 0;
        if (!plain_varint(&p))
            return p.bytes >= 10 ? LONG_TAG : CUT;
        if (p.bytes > 5 || p.value > UINT32_MAX)
            return LONG_TAG;
        *ret_field = (uint32_t)p.value >> 3;
        wire = p.value & 7;
        if (*ret_field == 0)
            return FIELD_0;
        if (batch && *ret_field <= 4 && wire != batch_wire[*ret_field])
            return WRONG_WIRE;
        fault = plain_value(&p, wire);
        if (fault != WELL)
            return fault;
    }
    return WELL;
}

/* --- nanopb ---------------------------------------------------------------------------------- */

static bool events_skip(pb_istream_t *in, const pb_field_t *field, void **arg)
{
    return pb_read(in, NULL, in->bytes_left);
}

static bool nanopb_takes(const struct edit *e, bool batch)
{
    static sluice_v1_Event event;
    sluice_v1_EventBatch b = { .events.funcs.decode = events_skip };
    pb_istream_t in = pb_istream_from_buffer(e->data, e->bytes);

    return batch ? pb_decode(&in, sluice_v1_EventBatch_fields, &b)
                 : pb_decode(&in, sluice_v1_Event_fields, &event);
}

static bool nanopb_knows(bool batch, uint32_t field)
{
    return batch ? field <= 4 : field <= 11 || field == 15;
}

/* --- one message ----------------------------------------------------------------------------- */

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            disagree(#condition, e, i);                                                            \
    } while (0)

static void disagree(const char *what, const struct edit *e, uint64_t i)
{
    for (size_t k = 0; k < e->bytes; k++)
        print_message("%02x", e->data[k]);
    fail_msg(" does not hold: %s (seed %" PRIu64 ", message %" PRIu64
             "); walk: status %d, %d events, complete %d",
             what, seed, i, model.walk.status, model.walk.events, model.walk.complete);
}

/* The worker's: REASON_NONE or not, and the type. */
static bool decodes(const uint8_t *data, size_t bytes, unsigned *ret_type)
{
    bool well = line_decode(line, data, bytes) == sluice_v1_Reason_REASON_NONE;

    *ret_type = line->ev[0].type;
    tally.decoded += well;
    return well;
}

static bool refuses(unsigned type)
{
    return model.policy[0].type[type].action == POLICY_DROP ||
           model.policy[0].type[type].action == POLICY_UNKNOWN;
}

static void malformed_to_all(const struct edit *e, uint64_t i)
{
    bool batch = model.walk.batch;
    struct slice slices[1];
    struct batch_walk w;
    uint32_t field;
    enum fault fault = fault_of(e->data, e->bytes, batch, &field);
    unsigned type;

    tally.malformed++;
    CHECK(fault != WELL);
    if (batch)
        CHECK(batch_walk(&w, slices, 0, e->data, e->bytes) == -EBADMSG);
    else
        CHECK(!decodes(e->data, e->bytes, &type));
    if (!nanopb_takes(e, batch))
        return;
    CHECK(fault == LONG_TAG || (fault == LONG_VARINT && !nanopb_knows(batch, field)) ||
          (fault == WRONG_WIRE && field == sluice_v1_EventBatch_events_tag));
    tally.lenient_tag += fault == LONG_TAG;
    tally.lenient_varint += fault == LONG_VARINT;
}

static void events_agree(const struct edit *e, uint64_t i)
{
    static struct slice slices[EVENTS_MAX];
    const struct walk *w = &model.walk;
    struct batch_walk b;
    int rc = batch_walk(&b, slices, EVENTS_MAX, e->data, e->bytes);
    unsigned type;

    tally.batches++;
    tally.behind += !w->complete;
    if (rc != 0)
        return;
    CHECK(w->events <= b.events && w->events <= WALK_EVENTS);
    CHECK(!w->complete || w->events == b.events);
    for (uint32_t k = 0; k < b.events; k++) {
        if (!decodes(slices[k].data, slices[k].bytes, &type))
            continue;
        if (k < w->events)
            CHECK(w->type[k] == type);
        /* Dropped as a whole: then every event in it must be one to drop. */
        CHECK(model.reason == REASON_NONE || refuses(type));
    }
    tally.dropped_by_type += model.reason != REASON_NONE;
}

static void event_agrees(const struct edit *e, uint64_t i)
{
    unsigned type;

    tally.events++;
    if (!decodes(e->data, e->bytes, &type))
        return;
    CHECK(model.walk.events == 1 && model.walk.type[0] == type);
    CHECK((model.reason != REASON_NONE) == refuses(type));
}

static void message_check(const struct edit *e, uint64_t i)
{
    static _Alignas(8) uint8_t frame[8192];
    const struct walk *w = &model.walk;
    uint32_t field;
    struct frame f;
    unsigned first;

    frame_init(&f, e->data, e->bytes);
    if (i % 2)
        f.padding = 40; /* bytes behind it */
    xdp_model_check(&model, frame, frame_build(&f, frame, sizeof frame));
    switch (w->status) {
    case WALK_EMPTY:
        CHECK(e->bytes == 0);
        return;
    case WALK_NOT_PROTOBUF:
        CHECK(e->data[0] != 0x08 && e->data[0] != 0x0a);
        return;
    case WALK_MALFORMED:
        malformed_to_all(e, i);
        return;
    default:
        break;
    }
    tally.complete += w->complete;
    if (w->complete)
        CHECK(fault_of(e->data, e->bytes, w->batch, &field) == WELL);
    first = w->batch ? 0 : event_peek_type(e->data, e->bytes);
    if (first != 0)
        CHECK(w->events > 0 && w->type[0] == first);
    tally.first_peeked += first != 0;
    if (w->batch)
        events_agree(e, i);
    else
        event_agrees(e, i);
}

/* Types get actions and classes at random, so that all of the walk's types show in what the program
 * does. */
static void policy_change(void)
{
    static const uint8_t actions[] = { POLICY_ACCEPT, POLICY_ACCEPT, POLICY_DROP, POLICY_UNKNOWN };
    struct policy p;

    memset(&p, 0, sizeof p);
    for (unsigned t = 0; t < POLICY_TYPES; t++)
        p.type[t] = (struct policy_type){ .action = actions[message_below(&maker, 4)],
                                          .class = (uint8_t)message_below(&maker, XDP_CLASSES) };
    xdp_model_policy(&model, &p, false);
}

static void four_readers_agree(void **state)
{
    static struct edit e;

    for (uint64_t i = 0; i < messages; i++) {
        maker.state = seed * 0x100000001b3ull + i * 0x9e3779b9ull;
        if (i % 200 == 0)
            policy_change();
        message_make(&maker, &e, MESSAGE_BYTES_MAX);
        message_check(&e, i);
    }
    print_message("%" PRIu64 " messages, seed %" PRIu64 ": %" PRIu64 " events and %" PRIu64
                  " batches walked, %" PRIu64 " to the end, %" PRIu64 " malformed, %" PRIu64
                  " batches dropped by type, %" PRIu64 " longer than the walk; %" PRIu64
                  " events decoded; nanopb took %" PRIu64 " long tags and %" PRIu64
                  " long varints\n",
                  messages, seed, tally.events, tally.batches, tally.complete, tally.malformed,
                  tally.dropped_by_type, tally.behind, tally.decoded, tally.lenient_tag,
                  tally.lenient_varint);
    /* There must have been enough of everything. */
    assert_true(tally.events > messages / 10 && tally.batches > messages / 10);
    assert_true(tally.decoded > messages / 4 && tally.malformed > messages / 20);
    assert_true(tally.complete > messages / 4 && tally.behind > messages / 500);
    assert_true(tally.dropped_by_type > messages / 200);
    assert_true(tally.lenient_tag > 0 && tally.lenient_varint > 0);
}

/* What the comparison allows nanopb, so that it is known to be so. */
static void nanopb_takes_long_tags_and_skips_long_varints(void **state)
{
    static const struct {
        const char *data;
        size_t bytes;
        bool takes;
    } message[] = {
        { "\x08\x01\xe0\x80\x80\x80\x80\x00\x01", 9, true }, /* a tag of six bytes */
        { "\x08\x01\xf8\xff\xff\xff\x7f\x01", 8, true },     /* of 35 bits */
        { "\x08\x01\xe0\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00\x01", 14, false }, /* of 11 bytes */
        { "\x08\x01\x60\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 15, true },
        { "\x08\x01\x60\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 13, true },
        { "\x08\x01\x62\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 14, false }, /* a length */
        { "\x08\x81\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 12, false },         /* the type */
        { "\x08\x01\x01\x00", 4, false },                                          /* field 0 */
        { "\x08\x01\x63\x64", 4, false },                                          /* a group */
    };

    for (size_t i = 0; i < sizeof message / sizeof message[0]; i++) {
        struct edit e;

        e.bytes = message[i].bytes;
        memcpy(e.data, message[i].data, e.bytes);
        assert_int_equal(nanopb_takes(&e, false), message[i].takes);
        message_check(&e, i);
        assert_int_equal(model.walk.status, WALK_MALFORMED);
    }
}

static uint64_t env_number(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 10) : fallback;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nanopb_takes_long_tags_and_skips_long_varints),
        cmocka_unit_test(four_readers_agree),
    };
    const char *mode = getenv("SLUICE_MODE");
    int rc = xdp_rig_open(&rig);

    if (rc != 0)
        return rc;
    messages = env_number("SLUICE_DIFFERENTIAL_MESSAGES",
                          mode && !strcmp(mode, "full") ? 1500000 : 150000);
    seed = env_number("SLUICE_DIFFERENTIAL_SEED", 1);
    xdp_rig_sockets(&rig);
    rig.control->interface[0].frame_bytes_max = 8192;
    xdp_model_init(&model, &rig);
    line = line_new();
    memset(line->admission.settings.known, true, sizeof line->admission.settings.known);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    line_free(line);
    xdp_rig_close(&rig);
    return rc;
}
