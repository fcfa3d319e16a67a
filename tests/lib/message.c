/*
 * message.c - see message.h.
 */
#include "message.h"

#include "sample.h"

uint64_t message_below(struct message_maker *m, uint64_t limit)
{
    struct sample_random r = { m->state };
    uint64_t v = sample_below(&r, limit);

    m->state = r.state;
    return v;
}

/* A varint with up to 3 bytes more than it needs, which readers must take; rarely too many. */
static void varint_long(struct message_maker *m, struct edit *e, uint64_t v)
{
    size_t at = e->bytes, extra;

    edit_varint(e, v);
    if (message_below(m, 8) != 0)
        return;
    extra = message_below(m, 20) == 0 ? message_below(m, 12) : message_below(m, 4);
    while (extra > 0 && e->bytes > at) {
        e->data[e->bytes - 1] |= 0x80;
        e->data[e->bytes++] = 0;
        extra--;
    }
}

static uint64_t number(struct message_maker *m)
{
    static const uint64_t edge[] = { 0,     1,          127,        128,       16383,
                                     16384, UINT32_MAX, 1ull << 32, UINT64_MAX };

    return message_below(m, 2) ? edge[message_below(m, sizeof edge / sizeof edge[0])]
                               : message_below(m, 300);
}

/* What stands behind a tag of this wire type; 3, 4, 6 and 7 have nothing. */
static void value_add(struct message_maker *m, struct edit *e, unsigned wire, size_t bytes_max)
{
    size_t n;

    switch (wire) {
    case 0:
        varint_long(m, e, number(m));
        break;
    case 1:
    case 5:
        for (n = wire == 1 ? 8 : 4; n > 0; n--)
            e->data[e->bytes++] = (uint8_t)message_below(m, 256);
        break;
    case 2:
        n = message_below(m, 12) == 0 ? message_below(m, bytes_max + 1) : message_below(m, 12);
        if (message_below(m, 60) == 0) /* not true */
            varint_long(m, e, message_below(m, 2) ? number(m) : n + 1 + message_below(m, 40));
        else
            varint_long(m, e, n);
        for (; n > 0; n--)
            e->data[e->bytes++] = (uint8_t)(message_below(m, 2) ? 'a' : message_below(m, 256));
        break;
    default:
        break;
    }
}

/* A field that nobody knows: in valid messages with a wire type that there is. */
static void unknown_add(struct message_maker *m, struct edit *e)
{
    static const unsigned good[] = { 0, 1, 2, 5 };
    static const uint32_t fields[] = { 12, 13, 14, 16, 31, 100, 2047, 2048, 70000, (1u << 29) - 1 };
    uint32_t field = fields[message_below(m, sizeof fields / sizeof fields[0])];
    unsigned wire = good[message_below(m, 4)];

    if (message_below(m, 60) == 0)
        wire = (unsigned)message_below(m, 8);
    if (message_below(m, 100) == 0)
        field = 0;
    varint_long(m, e, (uint64_t)field << 3 | wire);
    value_add(m, e, wire, 300);
}

static void type_add(struct message_maker *m, struct edit *e)
{
    static const unsigned few[] = { 0, 1, 2, 3, 64, 100, 127 };
    uint64_t type = few[message_below(m, 7)];

    if (message_below(m, 16) == 0)
        type = number(m);
    if (message_below(m, 40) == 0)
        edit_bytes(e, 1, "ab", 2); /* the wrong wire type */
    e->data[e->bytes++] = 0x08;
    varint_long(m, e, type);
}

static void known_add(struct message_maker *m, struct edit *e, unsigned which)
{
    switch (which) {
    case 0:
        edit_text(e, 2, "feed");
        break;
    case 1:
        edit_text(e, 3, "id");
        break;
    case 2:
        edit_fixed64(e, 4, SAMPLE_TIME_NS);
        break;
    case 3:
        edit_text(e, 5, "AAPL");
        break;
    case 4:
        edit_bytes(e, 6 + (uint32_t)message_below(m, 4), "", 0);
        break;
    case 5:
        edit_bytes(e, 10, "\x0a\x01k\x12\x01v", 6);
        break;
    default:
        edit_text(e, 11, "1234567890123456789012345");
        break;
    }
}

static void event_odd(struct message_maker *m, struct edit *e)
{
    unsigned order[7], n = 7, type_at;

    for (unsigned i = 0; i < n; i++)
        order[i] = i;
    if (message_below(m, 3) == 0) {
        for (unsigned i = n - 1; i > 0; i--) {
            unsigned j = (unsigned)message_below(m, i + 1), was = order[i];

            order[i] = order[j];
            order[j] = was;
        }
    }
    n = (unsigned)message_below(m, 8);
    type_at = message_below(m, 3) ? 0 : (unsigned)message_below(m, n + 2); /* n + 1: nowhere */
    for (unsigned i = 0; i <= n; i++) {
        if (i == type_at)
            type_add(m, e);
        while (message_below(m, 4) == 0)
            unknown_add(m, e);
        if (i < n)
            known_add(m, e, order[i]);
    }
    if (message_below(m, 40) == 0)
        type_add(m, e);
    if (message_below(m, 40) == 0) /* more than the walk takes */
        for (unsigned i = 0; i < 40; i++)
            unknown_add(m, e);
}

size_t message_sample_event(uint8_t *buf, size_t buf_bytes, unsigned type)
{
    return sample_event(buf, buf_bytes, &(struct sample){ .type = type });
}

size_t message_sample_batch(uint8_t *buf, size_t buf_bytes, const unsigned *types, size_t n)
{
    return sample_batch(buf, buf_bytes, types, n, 1, false);
}

void message_event(struct message_maker *m, struct edit *e, bool odd)
{
    static const unsigned types[] = { 1, 2, 3, SAMPLE_CUSTOM };

    e->bytes = 0;
    if (odd)
        event_odd(m, e);
    else
        e->bytes = sample_event(e->data, sizeof e->data,
                                &(struct sample){ .type = types[message_below(m, 4)],
                                                  .n = message_below(m, 1000),
                                                  .without_id = message_below(m, 4) == 0,
                                                  .attributes = message_below(m, 4) == 0 });
}

static void batch_rest(struct message_maker *m, struct edit *e)
{
    switch (message_below(m, 12)) {
    case 0:
        edit_text(e, 2, "producer");
        break;
    case 1:
        edit_number(e, 3, number(m));
        break;
    case 2:
        edit_number(e, 4, message_below(m, 2));
        break;
    case 3:
        if (message_below(m, 10) == 0) /* one of the batch's own, with any wire type */
            edit_varint(e, (1 + message_below(m, 4)) << 3 | message_below(m, 6));
        break;
    default:
        if (message_below(m, 6) == 0)
            unknown_add(m, e);
        break;
    }
}

static void batch_make(struct message_maker *m, struct edit *e, size_t bytes_max)
{
    static struct edit event;
    uint64_t n = message_below(m, 4) ? message_below(m, 6) : message_below(m, 40);

    e->bytes = 0;
    if (message_below(m, 12) == 0)
        batch_rest(m, e);
    for (uint64_t i = 0; i < n || (i == 0 && message_below(m, 8)); i++) {
        message_event(m, &event, message_below(m, 3) != 0);
        if (message_below(m, 10) == 0)
            message_mutate(m, &event);
        if (message_below(m, 20) == 0)
            event.bytes = message_below(m, 3);
        if (e->bytes + event.bytes + 400 > bytes_max)
            break;
        e->data[e->bytes++] = 0x0a;
        varint_long(m, e, event.bytes);
        memcpy(e->data + e->bytes, event.data, event.bytes);
        e->bytes += event.bytes;
        batch_rest(m, e);
    }
}

/* n bytes of anything at `at`. */
static void insert(struct message_maker *m, struct edit *e, size_t at, size_t n)
{
    memmove(e->data + at + n, e->data + at, e->bytes - at);
    for (size_t i = 0; i < n; i++)
        e->data[at + i] = (uint8_t)message_below(m, 256);
    e->bytes += n;
}

void message_mutate(struct message_maker *m, struct edit *e)
{
    static struct edit other;
    size_t at = message_below(m, e->bytes + 1), left = e->bytes - at, n;

    /* Most often near the front, where the walk looks. */
    if (message_below(m, 2) && e->bytes > 24) {
        at = message_below(m, 24);
        left = e->bytes - at;
    }
    switch (message_below(m, 7)) {
    case 0:
        e->bytes = at;
        break;
    case 1:
        insert(m, e, at, 1 + message_below(m, 4));
        break;
    case 2:
        n = message_below(m, left + 1) % 8;
        memmove(e->data + at, e->data + at + n, left - n);
        e->bytes -= n;
        break;
    case 3: /* a piece twice */
        n = message_below(m, left + 1) % 64;
        memmove(e->data + at + n, e->data + at, left);
        e->bytes += n;
        break;
    case 4:
        message_event(m, &other, message_below(m, 2));
        n = message_below(m, other.bytes + 1);
        memcpy(e->data + at, other.data + n, other.bytes - n);
        e->bytes = at + other.bytes - n;
        break;
    default:
        for (n = 1 + message_below(m, 2); n > 0 && e->bytes > 0; n--) {
            at = message_below(m, 2) ? message_below(m, e->bytes)
                                     : message_below(m, e->bytes < 24 ? e->bytes : 24);
            e->data[at] ^= (uint8_t)(1u << message_below(m, 8));
        }
    }
}

void message_make(struct message_maker *m, struct edit *e, size_t bytes_max)
{
    if (message_below(m, 2))
        message_event(m, e, message_below(m, 4) != 0);
    else
        batch_make(m, e, bytes_max);
    if (message_below(m, 5) < 3)
        for (uint64_t n = message_below(m, 4); n > 0; n--)
            message_mutate(m, e);
    if (message_below(m, 200) == 0)
        e->bytes = message_below(m, 3);
    if (e->bytes > bytes_max)
        e->bytes = bytes_max;
}
