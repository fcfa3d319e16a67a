/*
 * test_cli_xdp.c - `sluice xdp`, `sluice tap`, and what `ledger` says of XDP, against a server with
 * a made-up daemon behind it: text, JSON, exit codes. Without the program the test is skipped.
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
#include <unistd.h>

#include "tests/lib/cli_rig.h"
#include "tests/lib/frames.h"

static json_t *in(const json_t *object, const char *key)
{
    json_t *j = json_object_get(object, key);

    if (j == NULL)
        fail_msg("there is no %s in:\n%s", key, got.text);
    return j;
}

static void is_text(const json_t *object, const char *key, const char *text)
{
    assert_string_equal(json_string_value(in(object, key)), text);
}

static void is_number(const json_t *object, const char *key, json_int_t n)
{
    assert_int_equal(json_integer_value(in(object, key)), n);
}

static void wrong_usage_ends_with_2(void **state)
{
    static const char *const bad[] = {
        "xdp",
        "xdp nonsense",
        "xdp status extra",
        "xdp status --shadow",
        "xdp status --count 1",
        "xdp top extra",
        "xdp top --count 0",
        "xdp top --interval 9",
        "xdp top --interval 3600001",
        "xdp top --from 192.0.2.1",
        "xdp policy",
        "xdp policy nonsense",
        "xdp policy get extra",
        "xdp policy set",
        "xdp policy set quote",
        "xdp policy set source 192.0.2.0/24",
        "xdp policy set limit source_per_s",
        "xdp policy set quote class",
        "xdp policy set quote ''",
        "xdp policy set quote drop --count 1",
        "xdp policy set $(printf 'q%.0s' $(seq 64)) drop",
        "xdp policy set quote $(printf 'd%.0s' $(seq 200))",
        "xdp policy promote extra",
        "xdp policy promote --shadow",
        "xdp policy test",
        "xdp policy test --hex 00",
        "xdp policy test --from 192.0.2.1",
        "xdp policy test --hex 0 --from 192.0.2.1",
        "xdp policy test --hex zz --from 192.0.2.1",
        "xdp policy test --hex 00 --file x --from 192.0.2.1",
        "xdp policy test --hex 00 --from nowhere",
        "xdp policy test --hex 00 --from 192.0.2.1:80",
        "xdp policy test --file ./nowhere --from 192.0.2.1",
        "xdp policy test --file . --from 192.0.2.1",
        "xdp policy test --event '{\"nonsense\":1}' --from 192.0.2.1",
        "xdp policy test --event nonsense --from 192.0.2.1",
        "xdp policy test --file /dev/zero --from 192.0.2.1",
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (sluice(NULL, "%s", bad[i]) != 2)
            fail_msg("sluice %s ended with %d: %s", bad[i], got.code, got.text);
        has("sluice");
    }
}

static void without_a_daemon_it_ends_with_3(void **state)
{
    struct fixture *x = *state;

    assert_int_equal(sluice(x, "xdp status"), 3);
    assert_int_equal(sluice(x, "xdp top --count 1"), 3);
    assert_int_equal(sluice(x, "xdp policy get"), 3);
    assert_int_equal(sluice(x, "xdp policy set quote drop"), 3);
    assert_int_equal(sluice(x, "xdp policy test --hex 00 --from 192.0.2.1"), 3);
    assert_int_equal(sluice(x, "tap --dropped all"), 3);
    has("does not exist");
}

static void status_says_how_packets_come_in_and_whether_it_balances(void **state)
{
    struct fixture *x = *state;
    json_t *j;

    serve(x, true);
    assert_int_equal(sluice(x, "xdp status"), 0);
    has("eth0  native   dispatcher  ");
    has("eth1  generic  single      ");
    has("eth1: its driver has no XDP");
    has("version 7, and a shadow that is counted");
    has("source_denied         50");
    has("sampled_out");
    has("would have taken it: 12");
    has("news ");
    has("balances");
    has_not("DOES NOT");
    assert_int_equal(sluice(x, "xdp status --json"), 0);
    j = document();
    assert_true(json_is_true(in(j, "balances")));
    is_text(j, "mode", "native");
    is_number(json_array_get(in(j, "interfaces"), 0), "arrived", 2000);
    is_text(json_array_get(in(j, "interfaces"), 1), "note", "its driver has no XDP");
    is_number(json_array_get(in(j, "classes"), 3), "ringFull", 3);
    is_number(in(j, "drops"), "type_rate", 40);
    is_number(in(j, "shadow"), "taken", 12);
    is_number(in(in(j, "shadow"), "drops"), "sampled_out", 11);
    is_number(json_array_get(in(j, "types"), 1), "dropped", 120);
    json_decref(j);
    atomic_store(&x->fake.xdp.unbalanced, true);
    assert_int_equal(sluice(x, "xdp status"), 1);
    has("DOES NOT BALANCE");
    assert_int_equal(sluice(x, "xdp status --json"), 1);
    j = document();
    assert_true(json_is_false(in(j, "balances")));
    json_decref(j);
}

/* rate times seconds is what was counted between two looks. */
static void is_rate(const json_t *block, const json_t *row, const char *key, double count)
{
    double n = json_number_value(in(row, key)) * json_number_value(in(block, "seconds"));

    if (n < count - 0.01 || n > count + 0.01)
        fail_msg("%s: %f and not %f in:\n%s", key, n, count, got.text);
}

static void top_shows_the_rates_between_two_looks(void **state)
{
    struct fixture *x = *state;
    const json_t *row;
    json_t *j;

    serve(x, true);
    assert_int_equal(sluice(x, "xdp top --interval 20 --count 1 --json"), 0);
    assert_int_equal(lines(), 1);
    j = document();
    assert_true(json_number_value(in(j, "seconds")) >= 0.02);
    row = json_array_get(in(j, "interfaces"), 0);
    is_rate(j, row, "arrived", 1000);
    is_rate(j, row, "bytes", 200000);
    row = json_array_get(in(j, "classes"), 2);
    is_rate(j, row, "taken", 225);
    is_rate(j, row, "ringFull", 0);
    is_rate(j, in(j, "drops"), "source_denied", 50);
    is_rate(j, json_array_get(in(j, "types"), 1), "dropped", 60);
    /* The busier one first; the one that was not there the last time has no rate. */
    row = json_array_get(in(j, "sources"), 0);
    is_text(row, "address", "2001:db8::7");
    is_rate(j, row, "takenPerS", 400);
    is_rate(j, row, "droppedPerS", 6);
    is_text(json_array_get(in(j, "sources"), 1), "address", "192.0.2.9");
    row = json_array_get(in(j, "sources"), 2);
    assert_true(json_is_null(in(row, "takenPerS")));
    is_number(row, "taken", 70000);
    json_decref(j);
}

static void top_prints_blocks_where_there_is_no_terminal(void **state)
{
    struct fixture *x = *state;
    unsigned blocks = 0;

    serve(x, true);
    assert_int_equal(sluice(x, "xdp top --interval 20 --count 3"), 0);
    for (const char *at = got.text; (at = strstr(at, "policy version 7")) != NULL; at++)
        blocks++;
    assert_int_equal(blocks, 3);
    assert_int_equal(atomic_load(&x->fake.xdp.looks), 4);
    has("arrived/s");
    has("2001:db8::7");
    has_not("\033");
    atomic_store(&x->fake.xdp.unbalanced, true);
    assert_int_equal(sluice(x, "xdp top --interval 20 --count 1"), 0);
    has("DOES NOT BALANCE");
    assert_int_equal(sluice(x, "xdp top --interval 20 --count 1 >/dev/full"), 4);
}

static void a_counter_that_began_anew_is_not_negative(void **state)
{
    struct fixture *x = *state;
    json_t *j;

    /* Two looks from here the counters wrap to what they were at first. */
    atomic_store(&x->fake.xdp.looks, UINT32_MAX - 1);
    serve(x, true);
    assert_int_equal(sluice(x, "xdp top --interval 20 --count 1 --json"), 0);
    j = document();
    is_rate(j, json_array_get(in(j, "interfaces"), 0), "arrived", 0);
    json_decref(j);
    assert_int_equal(sluice(x, "xdp top --interval 20 --count 1 --json"), 0);
    j = document();
    is_rate(j, json_array_get(in(j, "interfaces"), 0), "arrived", 1000);
    json_decref(j);
}

static void the_policy_is_a_table_of_types_limits_and_sources(void **state)
{
    struct fixture *x = *state;
    json_t *j;

    serve(x, true);
    assert_int_equal(sluice(x, "xdp policy get --shadow"), 1);
    has("there is no shadow policy");
    x->fake.policy = true;
    assert_int_equal(sluice(x, "xdp policy get"), 0);
    has("trade  accept             0\n");
    has("quote  rate 500 burst 50  1\n");
    has("news   accept             2\n");
    has("192.0.2.0/24   allow\n");
    has("syn_per_s     20\n");
    has("There is a shadow policy");
    has_not("198.51.100.4");
    has_not("skew");
    assert_int_equal(sluice(x, "xdp policy get --json"), 0);
    j = document();
    assert_int_equal(json_array_size(in(j, "types")), 3);
    is_text(json_array_get(in(j, "types"), 1), "action", "rate 500 burst 50");
    is_number(json_array_get(in(j, "types"), 2), "class", 2);
    is_number(in(j, "limits"), "syn_per_s", 20);
    assert_int_equal(json_array_size(in(j, "sources")), 2);
    json_decref(j);
}

static void the_shadow_policy_shows_what_it_changes(void **state)
{
    struct fixture *x = *state;
    json_t *j;

    serve(x, true);
    x->fake.policy = true;
    assert_int_equal(sluice(x, "xdp policy get --shadow"), 0);
    has("trade  sample 10          0      shadow\n");
    has("quote  rate 500 burst 50  1\n");
    has("news   accept             3      shadow\n");
    has("source_per_s  5000   shadow\n");
    has("192.0.2.0/24   none   shadow\n");
    has("2001:db8::/32  allow\n");
    has("198.51.100.4   deny   shadow\n");
    assert_int_equal(sluice(x, "xdp policy get --shadow --json"), 0);
    j = document();
    assert_true(json_is_true(in(j, "shadow")));
    assert_true(json_is_true(in(json_array_get(in(j, "types"), 0), "shadow")));
    assert_true(json_is_false(in(json_array_get(in(j, "types"), 1), "shadow")));
    is_number(in(j, "limits"), "source_per_s", 5000);
    is_text(json_array_get(in(j, "sources"), 0), "rule", "none");
    json_decref(j);
}

static void a_change_of_the_policy_is_one_setting(void **state)
{
    static const struct {
        const char *words, *key, *value, *says;
    } cases[] = {
        { "quote rate 500 burst 50", "admit.quote", "rate 500 burst 50",
          "admit.quote is rate 500 burst 50 from log index 42 on\n" },
        { "quote 'rate 500 burst 50'", "admit.quote", "rate 500 burst 50", "42" },
        { "quote sample 10", "admit.quote", "sample 10", "42" },
        { "70 drop", "admit.70", "drop", "admit.70 is drop from" },
        { "quote accept", "admit.quote", "",
          "admit.quote is at its default from log index 42 on\n" },
        { "quote default", "admit.quote", "", "default" },
        { "quote class 2", "class.quote", "2", "class.quote is 2" },
        { "quote class default", "class.quote", "", "default" },
        { "source 10.1.0.0/16 deny", "source.10.1.0.0/16", "deny", "is deny" },
        { "source 2001:db8::/32 none", "source.2001:db8::/32", "", "default" },
        { "source 10.1.0.0/16 default", "source.10.1.0.0/16", "", "default" },
        { "limit syn_burst 7", "limit.syn_burst", "7", "is 7" },
        { "limit syn_burst default", "limit.syn_burst", "", "default" },
        { "--shadow quote accept", "shadow.admit.quote", "accept", "is accept" },
        { "--shadow quote default", "shadow.admit.quote", "",
          "shadow.admit.quote is as without the shadow from log index 42 on\n" },
        { "source 10.1.0.0/16 none --shadow", "shadow.source.10.1.0.0/16", "none", "is none" },
        { "--shadow limit source_per_s default", "shadow.limit.source_per_s", "", "without" },
        { "--shadow quote class 0", "shadow.class.quote", "0", "is 0" },
    };
    struct fixture *x = *state;
    json_t *j;

    serve(x, true);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        strcpy(x->fake.set_key, "none");
        assert_int_equal(sluice(x, "xdp policy set %s", cases[i].words), 0);
        assert_string_equal(x->fake.set_key, cases[i].key);
        assert_string_equal(x->fake.set_value, cases[i].value);
        has(cases[i].says);
    }
    assert_int_equal(sluice(x, "xdp policy set quote drop --json"), 0);
    j = document();
    is_text(j, "key", "admit.quote");
    is_number(j, "index", 42);
    json_decref(j);
    /* The daemon's own words. */
    atomic_store(&x->fake.refuse, true);
    assert_int_equal(sluice(x, "xdp policy set quote frobnicate"), 4);
    assert_string_equal(got.text, "sluice: admit.quote must be something else\n");
}

static void a_shadow_is_promoted_and_discarded(void **state)
{
    struct fixture *x = *state;

    serve(x, true);
    assert_int_equal(sluice(x, "xdp policy promote"), 0);
    assert_string_equal(x->fake.set_key, "shadow");
    assert_string_equal(x->fake.set_value, "promote");
    has("the shadow policy is in force from log index 42 on\n");
    assert_int_equal(sluice(x, "xdp policy discard --json"), 0);
    assert_string_equal(x->fake.set_value, "discard");
    json_decref(document());
}

static void a_datagram_that_would_be_dropped_ends_with_1(void **state)
{
    struct fixture *x = *state;
    json_t *j;

    serve(x, true);
    assert_int_equal(sluice(x, "xdp policy test --hex 0a020801 --from 192.0.2.9"), 0);
    has("accept");
    has("quote (2)  sample 10  1\n");
    assert_int_equal(x->fake.xdp.tested.datagram.size, 4);
    assert_memory_equal(x->fake.xdp.tested.datagram.bytes, "\x0a\x02\x08\x01", 4);
    assert_false(x->fake.xdp.tested.shadow);
    assert_int_equal(sluice(x, "xdp policy test --hex 0801 --from 2001:db8::1 --shadow"), 1);
    has("drop: source_denied (by the shadow policy)\n");
    assert_string_equal(x->fake.xdp.tested.from, "2001:db8::1");
    assert_true(x->fake.xdp.tested.shadow);
    assert_int_equal(sluice(x, "xdp policy test --hex '' --from 192.0.2.9 --json"), 1);
    j = document();
    is_text(j, "reason", "empty");
    is_text(json_array_get(in(j, "events"), 1), "action", "sample 10");
    json_decref(j);
}

static void a_datagram_comes_from_a_file_or_an_event_too(void **state)
{
    struct fixture *x = *state;
    static sluice_v1_Event e;
    pb_istream_t stream;

    serve(x, true);
    assert_int_equal(sluice(x, "xdp policy test --event '{\"trade\":{\"price\":\"1.5\"},\"source\":"
                               "\"a\"}' --from 192.0.2.9"),
                     0);
    stream =
        pb_istream_from_buffer(x->fake.xdp.tested.datagram.bytes, x->fake.xdp.tested.datagram.size);
    assert_true(pb_decode(&stream, sluice_v1_Event_fields, &e));
    assert_int_equal(e.type, sluice_v1_EventType_TRADE);
    assert_int_equal(e.detail.trade.price, 15);
    /* Through a pipe, and at the bound. */
    assert_int_equal(
        sluice(x, "help >x; head -c 16384 /dev/zero >max; head -c 16385 /dev/zero >big"), 0);
    assert_int_equal(sluice(x, "xdp policy test --file max --from 192.0.2.9"), 0);
    assert_int_equal(x->fake.xdp.tested.datagram.size, 16384);
    assert_int_equal(sluice(x, "xdp policy test --file - --from 192.0.2.9 <max"), 0);
    assert_int_equal(sluice(x, "xdp policy test --file big --from 192.0.2.9"), 2);
    has("at most 16384 bytes");
    sluice(x, "help; rm -f x max big");
}

/* The frame of a datagram becomes what the tap has to give. */
static void make_sample(struct fixture *x, const struct frame *f)
{
    sluice_v1_TapSample *s = &x->fake.xdp.sample;
    uint8_t frame[2048] __attribute__((aligned(2)));
    size_t bytes = frame_build(f, frame, sizeof frame);

    s->frame_bytes = (uint32_t)bytes;
    s->data.size = (pb_size_t)(bytes < sizeof s->data.bytes ? bytes : sizeof s->data.bytes);
    memcpy(s->data.bytes, frame, s->data.size);
    strcpy(s->reason, "type_rate");
    strcpy(s->interface, "eth0");
    strcpy(s->source, "192.0.2.1:5000");
    s->queue = 3;
    s->in_kernel = true;
}

/* ESC, CSI as C1, U+009B, and letters. */
static const char hostile[] = "\x08\x01\x1b[2J\x9b\xc2\x9bhello \x7f~|world";

static void a_sample_shows_its_payload_and_nothing_that_drives_a_terminal(void **state)
{
    struct fixture *x = *state;
    struct frame f;

    frame_init(&f, hostile, sizeof hostile - 1);
    make_sample(x, &f);
    strcpy(x->fake.xdp.sample.interface, "e\xc2\x9bth\x1b");
    atomic_store(&x->fake.xdp.tap_ready, 2);
    serve(x, true);
    assert_int_equal(sluice(x, "tap --dropped type_rate --count 2"), 0);
    has("Z type_rate e?th? queue 3 192.0.2.1:5000 65 bytes, payload at 42\n"
        "  0000  08 01 1b 5b 32 4a 9b c2  9b 68 65 6c 6c 6f 20 7f  |...[2J...hello .|\n"
        "  0010  7e 7c 77 6f 72 6c 64 ");
    has("|~|world|\n");
    for (const char *at = got.text; *at != '\0'; at++)
        assert_true(*at == '\n' || (*at >= 0x20 && *at < 0x7f));
    assert_int_equal(x->fake.xdp.tapped.reasons_count, 1);
    assert_int_equal(x->fake.xdp.tapped.count_max, 2);
    assert_false(x->fake.xdp.tapped.follow);
}

/* The payload in a sample's JSON, as hexadecimal digits. */
static void payload_is(struct fixture *x, const char *hex)
{
    json_t *j;

    atomic_store(&x->fake.xdp.tap_ready, 1);
    assert_int_equal(sluice(x, "tap --dropped all --count 1 --json"), 0);
    assert_int_equal(lines(), 1);
    j = document();
    is_text(j, "payload", hex);
    assert_int_equal(json_string_length(in(j, "data")), 2 * x->fake.xdp.sample.data.size);
    json_decref(j);
}

static void the_payload_is_found_behind_headers_of_every_kind(void **state)
{
    struct fixture *x = *state;
    struct frame f;

    serve(x, true);
    frame_init(&f, "\x08\x01", 2);
    make_sample(x, &f);
    payload_is(x, "0801");
    assert_int_equal(x->fake.xdp.tapped.reasons_count, 0);
    f.padding = 16; /* as Ethernet does with short ones */
    f.options_bytes = 8;
    f.vlans = 2;
    f.vlan_type[0] = 0x88a8;
    make_sample(x, &f);
    payload_is(x, "0801");
    frame_init(&f, "\x08\x01", 2);
    f.v6 = true;
    f.source = frame_address("2001:db8::1");
    f.destination = frame_address("2001:db8:1::1");
    f.extensions = 2;
    f.extension[0] = 0;
    f.extension[1] = 60;
    make_sample(x, &f);
    payload_is(x, "0801");
    frame_init(&f, "\x08\x01", 2);
    f.udp_length = 3; /* is wrong, and hides nothing */
    make_sample(x, &f);
    payload_is(x, "0801");
}

static void what_is_no_frame_is_shown_as_it_is(void **state)
{
    struct fixture *x = *state;
    sluice_v1_TapSample *s = &x->fake.xdp.sample;
    struct frame f;

    serve(x, true);
    frame_init(&f, "\x08\x01", 2);
    make_sample(x, &f);
    for (pb_size_t bytes = s->data.size - 3; bytes > 30; bytes -= 8) { /* cut before its payload */
        char hex[2 * sizeof s->data.bytes + 1] = "";

        s->data.size = bytes;
        for (pb_size_t i = 0; i < bytes; i++)
            snprintf(hex + 2 * i, 3, "%02x", s->data.bytes[i]);
        payload_is(x, hex);
    }
    s->data.size = 3;
    memcpy(s->data.bytes, "\x0a\x00\x1b", 3);
    s->in_kernel = false;
    s->source[0] = '\0';
    payload_is(x, "0a001b");
    atomic_store(&x->fake.xdp.tap_ready, 1);
    assert_int_equal(sluice(x, "tap --dropped all --count 1"), 0);
    has("queue 3 - 44 bytes, by a worker\n  0000  0a 00 1b ");
    s->data.size = 0;
    payload_is(x, "");
}

static void a_tap_is_refused_in_the_daemons_words(void **state)
{
    struct fixture *x = *state;

    serve(x, true);
    assert_int_equal(sluice(x, "tap --dropped nonsense"), 4);
    has("there is no reason nonsense; known are source_denied length empty");
    has("checksum\n");
    assert_int_equal(lines(), 1);
    atomic_store(&x->fake.xdp.tap_error, -EIO);
    assert_int_equal(sluice(x, "tap --dropped all --dropped empty"), 4);
    has("the tap has ended");
    assert_int_equal(x->fake.xdp.tapped.reasons_count, 0); /* all is all */
    assert_true(x->fake.xdp.tapped.follow);
}

static void the_ledger_has_an_account_of_xdp_where_there_is_xdp(void **state)
{
    struct fixture *x = *state;
    json_t *j;

    serve(x, true);
    assert_int_equal(sluice(x, "ledger"), 0);
    has_not("xdp");
    assert_int_equal(sluice(x, "ledger --json"), 0);
    j = document();
    assert_null(json_object_get(j, "xdp"));
    json_decref(j);
    atomic_store(&x->fake.xdp.present, true);
    assert_int_equal(sluice(x, "ledger"), 0);
    has("\nxdp\n");
    has("dropped: type_rate");
    has_not("DOES NOT");
    assert_int_equal(sluice(x, "ledger --json"), 0);
    j = document();
    is_number(in(j, "xdp"), "redirected", 9000);
    is_number(in(in(j, "xdp"), "drops"), "source_denied", 500);
    is_number(in(in(j, "xdp"), "rings"), "full", 60);
    is_number(in(in(j, "xdp"), "tcp"), "denied", 7);
    json_decref(j);
    atomic_store(&x->fake.xdp.rings_differ, true);
    assert_int_equal(sluice(x, "ledger"), 1);
    has("DOES NOT BALANCE");
    atomic_store(&x->fake.xdp.rings_differ, false);
    atomic_store(&x->fake.xdp.unbalanced, true);
    assert_int_equal(sluice(x, "ledger --json"), 1);
    j = document();
    assert_true(json_is_false(in(j, "balances")));
    assert_true(json_is_false(in(in(j, "xdp"), "balance")));
    assert_true(json_is_true(in(in(in(j, "xdp"), "rings"), "agree")));
    json_decref(j);
}

#define SERVED(f) cmocka_unit_test_setup_teardown(f, admin_fixture_setup, admin_fixture_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_usage_ends_with_2),
        SERVED(without_a_daemon_it_ends_with_3),
        SERVED(status_says_how_packets_come_in_and_whether_it_balances),
        SERVED(top_shows_the_rates_between_two_looks),
        SERVED(top_prints_blocks_where_there_is_no_terminal),
        SERVED(a_counter_that_began_anew_is_not_negative),
        SERVED(the_policy_is_a_table_of_types_limits_and_sources),
        SERVED(the_shadow_policy_shows_what_it_changes),
        SERVED(a_change_of_the_policy_is_one_setting),
        SERVED(a_shadow_is_promoted_and_discarded),
        SERVED(a_datagram_that_would_be_dropped_ends_with_1),
        SERVED(a_datagram_comes_from_a_file_or_an_event_too),
        SERVED(a_sample_shows_its_payload_and_nothing_that_drives_a_terminal),
        SERVED(the_payload_is_found_behind_headers_of_every_kind),
        SERVED(what_is_no_frame_is_shown_as_it_is),
        SERVED(a_tap_is_refused_in_the_daemons_words),
        SERVED(the_ledger_has_an_account_of_xdp_where_there_is_xdp),
    };

    if (!cli_rig_find(argv[0]))
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
