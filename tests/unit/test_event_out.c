/*
 * test_event_out.c - an event as readers get it: what was stored, and the right enrichment.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pb_decode.h>
#include <pb_encode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/event_out.h"
#include "tests/lib/test_block.h"

#define TERM ((3ull << 20) | 5)

/* A sealed block of two trades, the second with an assigned id appended as the pipeline does. */
static struct test_record *two_trades(struct block_view *view)
{
    struct test_record *r = test_record_open(1042, TERM);
    uint8_t event[256];
    size_t bytes;

    assert_non_null(r);
    bytes = test_trade(event, sizeof event, "feed", "order-1", "AAPL");
    test_record_add(r, event, bytes, 1, "AAPL", false);
    bytes = test_trade(event, sizeof event, "feed", "", "MSFT");
    event[bytes++] = 0x1a;
    event[bytes++] = ASSIGNED_ID_BYTES;
    memset(event + bytes, 0xab, ASSIGNED_ID_BYTES);
    bytes += ASSIGNED_ID_BYTES;
    test_record_add(r, event, bytes, 1, "MSFT", true);
    test_record_seal(r);
    assert_int_equal(block_view(view, r->payload, r->payload_bytes), 0);
    return r;
}

static uint8_t *event_bytes(const struct test_record *r, const struct block_view *view,
                            uint32_t slot, size_t *ret_bytes)
{
    struct event_out out;
    uint8_t *buf;

    event_out_init(&out, &r->record, view, slot);
    *ret_bytes = event_out_bytes(&out);
    buf = malloc(*ret_bytes); /* exactly: a byte more would be found */
    assert_non_null(buf);
    event_out_write(&out, buf);
    return buf;
}

static void an_event_comes_out_as_it_was_stored_and_enriched(void **state)
{
    struct block_view view;
    struct test_record *r = two_trades(&view);
    static sluice_v1_Event e;
    size_t bytes;
    uint8_t *buf = event_bytes(r, &view, 0, &bytes);
    pb_istream_t in = pb_istream_from_buffer(buf, bytes);

    assert_memory_equal(buf, view.payload + view.desc[0].offset, view.desc[0].bytes);
    assert_true(pb_decode(&in, sluice_v1_Event_fields, &e));
    assert_string_equal(e.source, "feed");
    assert_true(e.has_enrichment);
    assert_string_equal(e.enrichment.ingestion_id, "3-1042-0");
    assert_int_equal(e.enrichment.receive_time_ns, TEST_RECEIVE_NS);
    assert_int_equal(e.enrichment.record_time_ns, TEST_RECEIVE_NS + 1042);
    assert_int_equal(e.enrichment.node, 7);
    assert_int_equal(e.enrichment.region, 2);
    assert_int_equal(e.enrichment.session, sluice_v1_Session_REGULAR);
    assert_false(e.enrichment.id_assigned);
    free(buf);
    free(r);
}

static void an_assigned_id_is_shown_as_such(void **state)
{
    struct block_view view;
    struct test_record *r = two_trades(&view);
    static sluice_v1_Event e;
    size_t bytes;
    uint8_t *buf = event_bytes(r, &view, 1, &bytes);
    pb_istream_t in = pb_istream_from_buffer(buf, bytes);

    assert_true(pb_decode(&in, sluice_v1_Event_fields, &e));
    assert_string_equal(e.enrichment.ingestion_id, "3-1042-1");
    assert_int_equal(e.enrichment.receive_time_ns, TEST_RECEIVE_NS + 1);
    assert_true(e.enrichment.id_assigned);
    assert_int_equal(e.id.size, ASSIGNED_ID_BYTES);
    assert_int_equal(e.id.bytes[15], 0xab);
    free(buf);
    free(r);
}

static void the_widest_enrichment_fits(void **state)
{
    struct block_view view;
    struct test_record *r = test_record_open(UINT64_MAX, UINT64_MAX);
    struct block_header *h = (struct block_header *)r->payload;
    struct event_out out;
    uint8_t event[256];
    size_t bytes = test_trade(event, sizeof event, "feed", "x", "S"), i;

    for (i = 0; i < BLOCK_EVENTS_MAX; i++)
        test_record_add(r, event, 40, 127, "S", true);
    (void)bytes;
    r->record.time_ns = UINT64_MAX;
    test_record_seal(r);
    h->node = UINT16_MAX;
    h->region = UINT8_MAX;
    h->receive_time_ns = UINT64_MAX - BLOCK_EVENTS_MAX;
    assert_int_equal(block_view(&view, r->payload, r->payload_bytes), 0);
    event_out_init(&out, &r->record, &view, BLOCK_EVENTS_MAX - 1);
    assert_true(out.enrichment_bytes <= EVENT_OUT_ENRICHMENT_MAX);
    assert_memory_equal(out.enrichment + 4, "17592186044415-18446744073709551615-2047", 40);
    free(r);
}

/* The reference implementation of protobuf reads what comes out. */
static void googles_protobuf_reads_it_too(void **state)
{
    static const char script[] =
        "import sys\n"
        "try:\n"
        "    from google.protobuf import json_format\n"
        "except ImportError:\n"
        "    sys.exit(77)\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import event_pb2\n"
        "e = event_pb2.Event.FromString(open(sys.argv[1] + '/event.bin', 'rb').read())\n"
        "assert e.source == 'feed' and e.id == b'order-1' and e.symbol == 'AAPL', e\n"
        "assert e.trade.price == 1875000 and e.trade.size == 100, e\n"
        "assert e.enrichment.ingestion_id == '3-1042-0', e\n"
        "assert e.enrichment.receive_time_ns == 1700000000000000000, e\n"
        "assert e.enrichment.record_time_ns == 1700000000000001042, e\n"
        "assert e.enrichment.node == 7 and e.enrichment.region == 2, e\n"
        "assert e.enrichment.session == event_pb2.REGULAR, e\n";
    struct block_view view;
    struct test_record *r = two_trades(&view);
    const char *tmp = getenv("TMPDIR");
    char dir[64], path[96], command[512];
    size_t bytes;
    uint8_t *buf = event_bytes(r, &view, 0, &bytes);
    FILE *f;
    int status;

    snprintf(dir, sizeof dir, "%s/event-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/event.bin", dir);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(buf, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
    snprintf(path, sizeof path, "%s/read.py", dir);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(script, f);
    assert_int_equal(fclose(f), 0);
    snprintf(command, sizeof command,
             "protoc -Iproto --python_out=%s event.proto && /usr/bin/python3 %s/read.py %s; rc=$?; "
             "rm -rf %s; exit $rc",
             dir, dir, dir, dir);
    status = system(command);
    free(buf);
    free(r);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("skipped: python3 has no protobuf\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void an_ingestion_id_is_read_in_one_form_only(void **state)
{
    static const char *const bad[] = {
        "",
        "-",
        "1",
        "1-2",
        "1-2-",
        "-1-2-3",
        "1--2-3",
        "1-2-3-4",
        " 1-2-3",
        "1-2-3 ",
        "+1-2-3",
        "01-2-3",
        "1-02-3",
        "1-2-03",
        "1-0-0",
        "0x1-2-3",
        "1-2-2048",
        "a-b-c",
        "1.0-2-3",
        "1-2-3\n",
        "17592186044416-1-0",
        "1-18446744073709551616-0",
        "1-99999999999999999999-0",
    };
    struct ingestion_id id;
    size_t i;

    assert_int_equal(ingestion_id_parse(&id, "3-1042-7"), 0);
    assert_int_equal(id.epoch, 3);
    assert_int_equal(id.index, 1042);
    assert_int_equal(id.slot, 7);
    assert_int_equal(ingestion_id_parse(&id, "17592186044415-18446744073709551615-2047"), 0);
    assert_true(id.index == UINT64_MAX);
    assert_int_equal(ingestion_id_parse(&id, "0-1-0"), 0);
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (ingestion_id_parse(&id, bad[i]) != -EINVAL)
            fail_msg("'%s' was taken", bad[i]);
    }
}

static void the_names_are_found_and_the_last_one_counts(void **state)
{
    static const uint8_t event[] = { 0x08, 1, 0x12, 2, 'a', 'b', 0x1a, 1, 'x', 0x21, 1, 2,
                                     3,    4, 5,    6, 7,   8,   0x2a, 1, 'S', 0x12, 1, 'z' };
    struct event_names n;
    size_t i;

    assert_int_equal(event_names_find(&n, event, sizeof event), 0);
    assert_int_equal(n.source_bytes, 1);
    assert_int_equal(n.source[0], 'z');
    assert_int_equal(n.id[0], 'x');
    assert_int_equal(n.symbol[0], 'S');
    assert_int_equal(event_names_find(&n, NULL, 0), 0);
    assert_null(n.source);
    /* Every truncation is either at a field's end or told. */
    for (i = 0; i < sizeof event; i++) {
        int whole = i == 0 || i == 2 || i == 6 || i == 9 || i == 18 || i == 21;

        assert_int_equal(event_names_find(&n, event, i), whole ? 0 : -EBADMSG);
    }
}

static void what_is_no_protobuf_is_told(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
    } bad[] = {
        { "\x00", 1 }, /* field 0 */
        { "\x0b", 1 }, /* a group */
        { "\x0f", 1 }, /* no wire type */
        { "\x12\x05"
          "ab",
          4 },                                                  /* past the end */
        { "\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11 }, /* far past the end */
        { "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12 },
        { "\x21\x01\x02", 3 },
    };
    struct event_names n;
    size_t i;

    for (i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(event_names_find(&n, (const uint8_t *)bad[i].bytes, bad[i].n), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_comes_out_as_it_was_stored_and_enriched),
        cmocka_unit_test(an_assigned_id_is_shown_as_such),
        cmocka_unit_test(the_widest_enrichment_fits),
        cmocka_unit_test(googles_protobuf_reads_it_too),
        cmocka_unit_test(an_ingestion_id_is_read_in_one_form_only),
        cmocka_unit_test(the_names_are_found_and_the_last_one_counts),
        cmocka_unit_test(what_is_no_protobuf_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
