/*
 * generate.c - see generate.h.
 *
 * All chance is a hash of (seed, n, what for). A price at n is the sum of smooth noises of doubling
 * period and growing height, which wanders as a random walk does and can be had at any n without
 * those before it.
 */
#include "cli/generate.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pb_encode.h>

#include "base/clock.h"
#include "cli/text.h"
#include "proto/event.pb.h"

#define NOISE_OCTAVE_FIRST 6u  /* periods of 64 ... */
#define NOISE_OCTAVE_LAST  18u /* ... to 262,144 events */
#define PRICE_SCALE        4u
#define TICK               100 /* a cent, at that scale */
#define BOOK_LEVELS_MAX    10u
#define ROOM_FOR_BOOK      400u /* a shorter exact size has one level a side */
#define ATTRIBUTE_MAX      168u /* 32 bytes of key, 128 of value, and their lengths */
#define ATTRIBUTE_MIN      12u

/* What a hash is for: no two draws of one event are the same. */
enum draw {
    DRAW_TYPE = 1,
    DRAW_SYMBOL,
    DRAW_BASE,
    DRAW_NOISE,
    DRAW_SPREAD,
    DRAW_SIZE,
    DRAW_VENUE,
    DRAW_CONDITION,
    DRAW_ATTRIBUTE,
    DRAW_LEVEL,
    DRAW_BODY,
};

struct generate {
    struct generate_options options;
    char source[65];
    uint32_t shares;
    sluice_v1_Event event; /* only what this event has is set: clearing all of it would be 20 KiB */
};

static const char *const venues[] = {
    "XNAS", "XNYS", "ARCX", "BATS", "IEXG", "EDGX", "MEMX", "XBOS"
};
static const char *const conditions[] = { "@", "@", "@", "@F", "@I", "@ FT", "@ I", "@O" };

/* splitmix64's finish over the inputs. */
static uint64_t draw(const struct generate *g, enum draw what, uint64_t a, uint64_t b)
{
    uint64_t x = g->options.seed * 0x9E3779B97F4A7C15ull + (uint64_t)what * 0xD1B54A32D192ED03ull;

    x ^= a * 0x8CB92BA72F3D8DD7ull + b * 0xABC98388FB8FAC03ull;
    for (int i = 0; i < 2; i++) {
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ull;
        x = (x ^ x >> 27) * 0x94D049BB133111EBull;
        x ^= x >> 31;
    }
    return x;
}

void generate_options_init(struct generate_options *o)
{
    *o = (struct generate_options){ .source = "generate",
                                    .seed = 1,
                                    .run = 1,
                                    .symbols = 100,
                                    .trades = 30,
                                    .quotes = 60,
                                    .books = 10,
                                    .custom_type = 64 };
}

int generate_parse_mix(struct generate_options *o, const char *text)
{
    static const char *const names[] = { "trade", "quote", "book", "custom" };
    uint32_t share[4] = { 0 };

    while (*text) {
        size_t bytes = strcspn(text, ","), name = strcspn(text, ":,");
        uint64_t value = 1;
        unsigned i = 0;

        while (i < 4 && (strlen(names[i]) != name || memcmp(names[i], text, name) != 0))
            i++;
        if (i == 4 ||
            (name < bytes && text_uint64(text + name + 1, bytes - name - 1, &value) < 0) ||
            value > 1000000)
            return -EINVAL;
        share[i] = (uint32_t)value;
        text += bytes + (text[bytes] == ',');
    }
    if (share[0] + share[1] + share[2] + share[3] == 0)
        return -EINVAL;
    o->trades = share[0];
    o->quotes = share[1];
    o->books = share[2];
    o->customs = share[3];
    return 0;
}

int generate_open(struct generate **ret, const struct generate_options *options)
{
    struct generate *g;

    if (!options->source[0] || strlen(options->source) > 64 || options->symbols == 0 ||
        options->symbols > GENERATE_SYMBOLS_MAX || options->custom_type < 64 ||
        options->custom_type > 127 || options->event_bytes > GENERATE_EVENT_BYTES_MAX)
        return -EINVAL;
    g = calloc(1, sizeof(*g));
    if (!g)
        return -ENOMEM;
    g->options = *options;
    g->shares = options->trades + options->quotes + options->books + options->customs;
    if (g->shares == 0) {
        free(g);
        return -EINVAL;
    }
    strcpy(g->source, options->source);
    g->options.source = g->source;
    strcpy(g->event.source, g->source);
    *ret = g;
    return 0;
}

void generate_close(struct generate *g) { free(g); }

size_t generate_id(const struct generate *g, uint64_t n, char ret[GENERATE_ID_BYTES_MAX])
{
    return (size_t)snprintf(ret, GENERATE_ID_BYTES_MAX, "%llx-%llu",
                            (unsigned long long)g->options.run, (unsigned long long)n);
}

/* --- prices --------------------------------------------------------------------------------- */

/* The middle of the market of a symbol at n, in ticks. */
static int64_t price_ticks(const struct generate *g, uint64_t symbol, uint64_t n)
{
    int64_t base = 1000 + (int64_t)(draw(g, DRAW_BASE, symbol, 0) % 49000); /* 10 to 500 */
    int64_t walk = 0;

    for (unsigned octave = NOISE_OCTAVE_FIRST; octave <= NOISE_OCTAVE_LAST; octave += 2) {
        uint64_t cell = n >> octave, in_cell = n & ((1ull << octave) - 1);
        uint64_t key = symbol << 8 | octave;
        int64_t height = 1ll << (octave / 2), period = 1ll << octave;
        int64_t from = (int64_t)(draw(g, DRAW_NOISE, key, cell) >> 33) % (2 * height + 1) - height;
        int64_t to =
            (int64_t)(draw(g, DRAW_NOISE, key, cell + 1) >> 33) % (2 * height + 1) - height;

        walk += (from * (period - (int64_t)in_cell) + to * (int64_t)in_cell) / period;
    }
    /* In ten thousandths of the price, and at least one tick. */
    base += base * walk / 10000;
    return base > 2 * (int64_t)BOOK_LEVELS_MAX ? base : 2 * (int64_t)BOOK_LEVELS_MAX;
}

static uint64_t lots(const struct generate *g, uint64_t n, uint64_t what)
{
    uint64_t x = draw(g, DRAW_SIZE, n, what);

    /* Mostly one or a few round lots, now and then a large one. */
    return x % 50 == 0 ? 5000 + x / 50 % 95000 : 100 * (1 + x / 50 % 8);
}

static const char *venue(const struct generate *g, uint64_t n, uint64_t what)
{
    return venues[draw(g, DRAW_VENUE, n, what) % (sizeof(venues) / sizeof(venues[0]))];
}

/* --- details -------------------------------------------------------------------------------- */

struct market {
    int64_t bid, ask; /* ticks */
    uint64_t time_ns;
};

static void trade_make(struct generate *g, uint64_t n, const struct market *m)
{
    sluice_v1_Trade *t = &g->event.detail.trade;
    bool buy = draw(g, DRAW_TYPE, n, 1) & 1;

    g->event.which_detail = sluice_v1_Event_trade_tag;
    *t = (sluice_v1_Trade){ .price = TICK * (buy ? m->ask : m->bid),
                            .price_scale = PRICE_SCALE,
                            .size = lots(g, n, 0),
                            .sequence = n + 1,
                            .aggressor = buy ? sluice_v1_Side_BUY : sluice_v1_Side_SELL,
                            .currency = "USD",
                            .venue_timestamp_ns = m->time_ns };
    strcpy(t->venue, venue(g, n, 0));
    strcpy(t->conditions, conditions[draw(g, DRAW_CONDITION, n, 0) % 8]);
    snprintf(t->trade_id, sizeof(t->trade_id), "%llu", (unsigned long long)n + 1);
}

static void quote_make(struct generate *g, uint64_t n, const struct market *m)
{
    sluice_v1_Quote *q = &g->event.detail.quote;

    g->event.which_detail = sluice_v1_Event_quote_tag;
    *q = (sluice_v1_Quote){ .bid_price = TICK * m->bid,
                            .bid_size = lots(g, n, 0),
                            .ask_price = TICK * m->ask,
                            .ask_size = lots(g, n, 1),
                            .price_scale = PRICE_SCALE,
                            .conditions = "R",
                            .sequence = n + 1,
                            .currency = "USD",
                            .venue_timestamp_ns = m->time_ns };
    strcpy(q->bid_venue, venue(g, n, 0));
    strcpy(q->ask_venue, venue(g, n, 1));
}

static void book_make(struct generate *g, uint64_t n, const struct market *m)
{
    sluice_v1_OrderBook *b = &g->event.detail.orderbook;
    uint32_t exact = g->options.event_bytes;
    unsigned levels = exact && exact < ROOM_FOR_BOOK
                          ? 1
                          : 1 + (unsigned)(draw(g, DRAW_LEVEL, n, 0) % BOOK_LEVELS_MAX);

    g->event.which_detail = sluice_v1_Event_orderbook_tag;
    b->bids_count = b->asks_count = (pb_size_t)levels;
    for (unsigned i = 0; i < levels; i++) {
        uint32_t orders = 1 + (uint32_t)(draw(g, DRAW_LEVEL, n, 1 + i) % 20);

        b->bids[i] = (sluice_v1_Level){ TICK * (m->bid - (int)i), lots(g, n, 2 * i), orders };
        b->asks[i] = (sluice_v1_Level){ TICK * (m->ask + (int)i), lots(g, n, 2 * i + 1), orders };
    }
    b->price_scale = PRICE_SCALE;
    b->size_scale = 0;
    b->sequence = n + 1;
    b->is_snapshot = levels > 1;
    b->venue_timestamp_ns = m->time_ns;
    strcpy(b->venue, venue(g, n, 0));
    strcpy(b->currency, "USD");
}

static void custom_make(struct generate *g, uint64_t n)
{
    sluice_v1_Custom *c = &g->event.detail.custom;

    g->event.which_detail = sluice_v1_Event_custom_tag;
    strcpy(c->schema, "generate/1");
    c->body.size = (pb_size_t)(16 + draw(g, DRAW_BODY, n, 0) % 48);
    for (pb_size_t i = 0; i < c->body.size; i++)
        c->body.bytes[i] = (uint8_t)(draw(g, DRAW_BODY, n, i / 8) >> 8 * (i % 8));
}

static void detail_make(struct generate *g, uint64_t n, const struct market *m)
{
    const struct generate_options *o = &g->options;
    uint64_t pick = draw(g, DRAW_TYPE, n, 0) % g->shares;

    if (pick < o->trades) {
        g->event.type = sluice_v1_EventType_TRADE;
        trade_make(g, n, m);
    } else if (pick < o->trades + o->quotes) {
        g->event.type = sluice_v1_EventType_QUOTE;
        quote_make(g, n, m);
    } else if (pick < o->trades + o->quotes + o->books) {
        g->event.type = sluice_v1_EventType_ORDERBOOK;
        book_make(g, n, m);
    } else {
        memcpy(&g->event.type, &o->custom_type, sizeof(o->custom_type));
        custom_make(g, n);
    }
}

/* --- exact sizes ---------------------------------------------------------------------------- */

static size_t varint_bytes(size_t v)
{
    size_t n = 1;

    for (; v >= 0x80; v >>= 7)
        n++;
    return n;
}

/* What one attribute takes in an Event. */
static size_t attribute_bytes(size_t key, size_t value)
{
    size_t inner = 2 + key + 1 + varint_bytes(value) + value;

    return 1 + varint_bytes(inner) + inner;
}

static void attribute_put(struct generate *g, size_t key, size_t value)
{
    sluice_v1_Event_AttributesEntry *a = &g->event.attributes[g->event.attributes_count];

    memset(a->key, 'x', key);
    memcpy(a->key, "pad", 3);
    a->key[3] = (char)('a' + g->event.attributes_count);
    a->key[key] = '\0';
    memset(a->value, '.', value);
    a->value[value] = '\0';
    g->event.attributes_count++;
}

/* Lengths jump where a length gets a second byte: another length of key goes round the gap. */
static bool attribute_fit(struct generate *g, size_t bytes)
{
    for (size_t key = 4; key <= 32; key++)
        for (size_t over = 6; over <= 8; over++) {
            size_t value = bytes - key - over;

            if (bytes > key + over && value <= 128 && attribute_bytes(key, value) == bytes) {
                attribute_put(g, key, value);
                return true;
            }
        }
    return false;
}

static int attributes_pad(struct generate *g, size_t missing)
{
    while (missing) {
        /* Leave nothing that is too little for one more. */
        size_t bytes = missing <= ATTRIBUTE_MAX ? missing : ATTRIBUTE_MAX;

        if (missing > bytes && missing - bytes < ATTRIBUTE_MIN)
            bytes -= ATTRIBUTE_MIN;
        if (g->event.attributes_count == 16 || bytes < ATTRIBUTE_MIN)
            return -EMSGSIZE;
        /* 130 cannot be had at once: a length of 128 takes two bytes. */
        if (!attribute_fit(g, bytes)) {
            bytes -= ATTRIBUTE_MIN;
            if (!attribute_fit(g, bytes))
                return -EMSGSIZE;
        }
        missing -= bytes;
    }
    return 0;
}

/* A custom event grows in its body as far as that goes. */
static void body_pad(struct generate *g, size_t missing)
{
    sluice_v1_Custom *c = &g->event.detail.custom;
    size_t room = sizeof(c->body.bytes) - c->body.size;
    /* The lengths of body and detail grow by at most four bytes; attributes take up the rest. */
    size_t grow = missing > ATTRIBUTE_MIN + 4 ? missing - ATTRIBUTE_MIN - 4 : 0;

    if (grow > room)
        grow = room;
    memset(c->body.bytes + c->body.size, 0x5a, grow);
    c->body.size = (pb_size_t)(c->body.size + grow);
}

static int size_get(struct generate *g, size_t *ret)
{
    return pb_get_encoded_size(ret, sluice_v1_Event_fields, &g->event) ? 0 : -EMSGSIZE;
}

static int exact_size(struct generate *g)
{
    size_t wanted = g->options.event_bytes, bytes;

    if (size_get(g, &bytes) < 0 || bytes > wanted)
        return -EMSGSIZE;
    if (g->event.which_detail == sluice_v1_Event_custom_tag) {
        body_pad(g, wanted - bytes);
        if (size_get(g, &bytes) < 0)
            return -EMSGSIZE;
        assert(bytes <= wanted);
    }
    if (wanted - bytes > 0 && wanted - bytes < ATTRIBUTE_MIN && g->event.symbol[0]) {
        /* Too little for an attribute: the symbol grows instead. */
        size_t n = strlen(g->event.symbol);

        memset(g->event.symbol + n, '.', wanted - bytes);
        g->event.symbol[n + wanted - bytes] = '\0';
        return 0;
    }
    return attributes_pad(g, wanted - bytes);
}

/* --- events --------------------------------------------------------------------------------- */

static void attributes_make(struct generate *g, uint64_t n)
{
    g->event.attributes_count = 0;
    if (g->options.event_bytes || draw(g, DRAW_ATTRIBUTE, n, 0) % 16)
        return;
    g->event.attributes_count = 1;
    strcpy(g->event.attributes[0].key, "feed");
    strcpy(g->event.attributes[0].value, draw(g, DRAW_ATTRIBUTE, n, 1) & 1 ? "cqs" : "uqdf");
}

ssize_t generate_event(struct generate *g, uint64_t n, uint8_t *buf)
{
    static const uint64_t letters = 26;
    const struct generate_options *o = &g->options;
    uint64_t symbol = draw(g, DRAW_SYMBOL, n, 0) % o->symbols;
    uint64_t time_ns = o->time_from_ns ? o->time_from_ns + n * NS_PER_US : clock_unix_ns();
    int64_t mid = price_ticks(g, symbol, n);
    int64_t half = 1 + (int64_t)(draw(g, DRAW_SPREAD, n, 0) % 3);
    struct market market = { mid - half, mid + half, time_ns };
    char id[GENERATE_ID_BYTES_MAX];

    g->event.timestamp_ns = time_ns;
    g->event.id.size = 0;
    if (!o->without_ids) {
        g->event.id.size = (pb_size_t)generate_id(g, n, id);
        memcpy(g->event.id.bytes, id, g->event.id.size);
    }
    /* AAA, AAB, ...: 17,576 are enough for GENERATE_SYMBOLS_MAX. */
    snprintf(g->event.symbol, sizeof(g->event.symbol), "%c%c%c",
             (char)('A' + symbol / letters / letters), (char)('A' + symbol / letters % letters),
             (char)('A' + symbol % letters));
    attributes_make(g, n);
    detail_make(g, n, &market);
    if (o->event_bytes && exact_size(g) < 0)
        return -EMSGSIZE;

    pb_ostream_t out = pb_ostream_from_buffer(buf, GENERATE_EVENT_BYTES_MAX);

    if (!pb_encode(&out, sluice_v1_Event_fields, &g->event))
        return -EMSGSIZE;
    assert(o->event_bytes == 0 || out.bytes_written == o->event_bytes);
    return (ssize_t)out.bytes_written;
}
