/*
 * test_client_tls.c - libsluice over mutual TLS: the same promises, and who does not trust whom.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/lib/client_rig.h"
#include "tests/lib/pki_rig.h"

static struct pki pki, others;
static struct tls_context *node, *stranger;
static struct pki_files producer;

static int open_files(void **state)
{
    pki_open(&pki);
    pki_open(&others);
    pki_add(&pki, "node", CERTIFICATE_NODE, 1);
    pki_add(&pki, "producer", CERTIFICATE_PRODUCER, 0);
    pki_add(&others, "node", CERTIFICATE_NODE, 1);
    node = pki_context(&pki, "node");
    stranger = pki_context(&others, "node");
    pki_files(&pki, "producer", &producer);
    return 0;
}

static int close_files(void **state)
{
    tls_context_free(node);
    tls_context_free(stranger);
    pki_close(&pki);
    pki_close(&others);
    return 0;
}

static struct sluice_options options_tls(void)
{
    struct sluice_options o = options_make();

    o.ca = producer.files.ca;
    o.cert = producer.files.cert;
    o.key = producer.files.key;
    return o;
}

static void after_a_break_what_has_no_receipt_goes_out_again(void **state)
{
    struct sluice_options o = options_tls();
    uint64_t request[6];
    struct frame f;

    server.context = node;
    struct sluice_client *c = client_open(&o);

    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(batch_send(c, i, 2, -1, NULL), 0);
    server_welcome(&server);
    assert_string_equal(tls_peer(server.tls)->name, "producer");
    for (unsigned i = 0; i < 6; i++)
        request[i] = server_read_batch(&server, &f);
    server_receipt(&server, request[0], 2);
    server_receipt(&server, request[3], 2);
    reports_wait(2);
    server_welcome(&server); /* drops the first connection, without a word */
    static const unsigned left[] = { 1, 2, 4, 5 };

    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(server_read_batch(&server, &f), request[left[i]]);
        server_receipt(&server, request[left[i]], 2);
    }
    assert_int_equal(sluice_flush(c, -1), 0);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(reports.result[i].reports, 1);
    /* An idle connection ends in good order. */
    sluice_close(c);
    assert_false(server_read(&server, &f));
    assert_int_equal(tls_read(server.tls, &(char){ 0 }, 1), 0);
}

/* More than a socket takes at once: writes are left half done. */
static void much_arrives_whole(void **state)
{
    enum { BATCHES = 40, BYTES = 200000 };
    struct sluice_options o = options_tls();
    static uint8_t event[BYTES];
    const void *events[] = { event };
    const size_t bytes[] = { BYTES };
    struct frame f;

    /* A trade whose last field is one that nobody knows, and long. */
    size_t at = event_make(event, "long");

    memset(event + at, 0x55, BYTES - at);
    memcpy(event + at, "\xfa\x01", 2);
    for (size_t rest = BYTES - at - 5, i = 0; i < 3; i++, rest >>= 7)
        event[at + 2 + i] = (uint8_t)((rest & 0x7f) | (i < 2 ? 0x80 : 0));
    server.context = node;
    struct sluice_client *c = client_open(&o);

    for (unsigned i = 0; i < BATCHES; i++)
        assert_int_equal(sluice_send(c, events, bytes, 1, (void *)(uintptr_t)i, -1, NULL), 0);
    server_welcome(&server);
    for (unsigned i = 0; i < BATCHES; i++) {
        struct frame_batch batch;

        assert_int_equal(server_read_batch(&server, &f), i + 1);
        assert_int_equal(frame_get_batch(&batch, &f), 0);
        assert_memory_equal(batch.batch + batch.batch_bytes - BYTES, event, BYTES);
        server_receipt(&server, i + 1, 1);
    }
    assert_int_equal(sluice_flush(c, -1), 0);
    sluice_close(c);
}

/* Nobody else is there to ask. */
static void a_server_of_another_ca_ends_the_client(void **state)
{
    struct sluice_options o = options_tls();

    server.context = stranger;
    struct sluice_client *c = client_open(&o);

    assert_int_equal(batch_send(c, 1, 1, -1, NULL), 0);
    server_accept(&server);
    assert_true(server.handshake < 0);
    assert_int_equal(sluice_flush(c, -1), 0);
    assert_int_equal(reports.result[1].status, -EACCES);
    assert_int_equal(batch_send(c, 2, 1, -1, NULL), -EACCES);
    sluice_close(c);
}

static void another_address_may_be_trusted(void **state)
{
    struct sluice_options o = options_tls();
    struct server other;
    char addresses[80];
    struct frame f;

    server_listen(&other);
    other.context = stranger;
    server.context = node;
    snprintf(addresses, sizeof(addresses), "%s,%s", other.address, server.address);
    o.addresses = addresses;
    struct sluice_client *c = client_open(&o);

    assert_int_equal(batch_send(c, 1, 2, -1, NULL), 0);
    server_accept(&other);
    assert_true(other.handshake < 0);
    server_welcome(&server);
    server_receipt(&server, server_read_batch(&server, &f), 2);
    assert_int_equal(sluice_flush(c, -1), 0);
    assert_int_equal(reports.result[1].status, 0);
    sluice_close(c);
    server_end(&other);
}

static char said[1024];

static void on_state_keep(void *arg, int connected, const char *sentence)
{
    strncat(said, sentence, sizeof(said) - strlen(said) - 1);
}

static void files_that_are_not_right_are_told_at_once(void **state)
{
    struct sluice_options o = options_tls();
    struct sluice_client *c;
    struct pki_files f;

    said[0] = '\0';
    o.on_state = on_state_keep;
    o.key = NULL;
    assert_int_equal(sluice_open(&c, &o), -EINVAL);
    o.key = pki_files(&pki, "node", &f)->key;
    assert_int_equal(sluice_open(&c, &o), -EINVAL);
    assert_non_null(strstr(said, "/node.key is not the key of "));
    o.key = "/nowhere/x.key";
    assert_int_equal(sluice_open(&c, &o), -ENOENT);
    assert_non_null(strstr(said, "/nowhere/x.key: "));
}

/* Each to the other's port. */
static void with_and_without_tls_do_not_meet(void **state)
{
    struct sluice_options o = options_tls();
    struct frame f;

    said[0] = '\0';
    o.on_state = on_state_keep;
    struct sluice_client *c = client_open(&o);

    for (unsigned i = 0; i < 2; i++) { /* it tries again */
        server_accept(&server);
        server_write(&server, "\x12\x04nope", 6);
        while (recv(server.fd, &(char){ 0 }, 1, 0) > 0)
            ;
    }
    sluice_close(c);
    assert_non_null(strstr(said, "the peer does not speak TLS"));

    said[0] = '\0';
    o.ca = o.cert = o.key = NULL;
    c = client_open(&o);
    server_accept(&server);
    server_hello(&server);
    server_error(&server, sluice_v1_ErrorCode_ERROR_TLS_REQUIRED);
    assert_false(server_read(&server, &f));
    int rc = batch_send(c, 1, 1, -1, NULL);

    if (rc == 0) { /* it has closed the connection, and not said yet that it has ended */
        assert_int_equal(sluice_flush(c, -1), 0);
        rc = reports.result[1].status;
    }
    assert_int_equal(rc, -EPROTO);
    sluice_close(c);
}

static void a_handshake_that_never_ends_is_left(void **state)
{
    struct sluice_options o = options_tls();

    o.connect_timeout_ms = 50;
    struct sluice_client *c = client_open(&o);

    for (unsigned i = 0; i < 2; i++) {
        server_accept(&server); /* in plaintext, and says nothing */
        while (recv(server.fd, &(char){ 0 }, 1, 0) > 0)
            ;
    }
    sluice_close(c);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, client_rig_setup, client_rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(after_a_break_what_has_no_receipt_goes_out_again),
        TEST(much_arrives_whole),
        TEST(a_server_of_another_ca_ends_the_client),
        TEST(another_address_may_be_trusted),
        TEST(files_that_are_not_right_are_told_at_once),
        TEST(with_and_without_tls_do_not_meet),
        TEST(a_handshake_that_never_ends_is_left),
    };

    return cmocka_run_group_tests(tests, open_files, close_files);
}
