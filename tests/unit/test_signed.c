/*
 * test_signed.c - texts that a node has signed: which are taken, and why others are not; and that
 * OpenSSL's own command takes them, too.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <openssl/ssl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/signed.h"
#include "tests/lib/pki_rig.h"

#define DAY_S 86400

static const char text[] = "{\"kind\": \"losses\",\n \"events\": 780}\n";

static struct pki pki, others;
static char *pem; /* text, by node 3 */
static int pem_bytes;

static char *sign_as(const struct pki *p, const char *file, int *ret_bytes)
{
    struct tls_context *x = pki_context(p, file);
    char *ret;

    *ret_bytes = signed_make(&ret, x, text, sizeof text - 1);
    assert_true(*ret_bytes > 0);
    assert_int_equal(*ret_bytes, strlen(ret));
    tls_context_free(x);
    return ret;
}

static int open_files(void **state)
{
    pki_open(&pki);
    pki_open(&others);
    pki_add(&pki, "node", CERTIFICATE_NODE, 3);
    pki_add(&pki, "admin", CERTIFICATE_ADMIN, 0);
    pki_add(&others, "node", CERTIFICATE_NODE, 3);
    pem = sign_as(&pki, "node", &pem_bytes);
    return 0;
}

static int close_files(void **state)
{
    free(pem);
    pki_close(&pki);
    pki_close(&others);
    return 0;
}

static const char *ca_of(const struct pki *p)
{
    static char path[PKI_PATH_BYTES];

    snprintf(path, sizeof path, "%s/ca.crt", p->dir);
    return path;
}

static void takes(const char *bytes, size_t n)
{
    char error[TLS_ERROR_BYTES], *got;
    struct certificate who;
    int64_t at;

    assert_int_equal(signed_open(&got, &who, &at, bytes, n, ca_of(&pki), error), sizeof text - 1);
    assert_string_equal(got, text);
    assert_int_equal(who.role, CERTIFICATE_NODE);
    assert_int_equal(who.node, 3);
    assert_string_equal(who.name, "node");
    assert_in_range(at, time(NULL) - 600, time(NULL) + 1);
    free(got);
}

static void refuses(const char *bytes, size_t n, const struct pki *ca, int code, const char *why)
{
    char error[TLS_ERROR_BYTES] = "", *got;
    struct certificate who;
    int64_t at;

    assert_int_equal(signed_open(&got, &who, &at, bytes, n, ca_of(ca), error), code);
    if (strstr(error, why) == NULL)
        fail_msg("'%s' does not say '%s'", error, why);
}

static void what_a_node_has_signed_is_taken(void **state) { takes(pem, (size_t)pem_bytes); }

static void nobody_elses_signature_is(void **state)
{
    int n;
    char *by = sign_as(&others, "node", &n);

    refuses(by, (size_t)n, &pki, -EACCES, "no certificate of this CA");
    refuses(pem, (size_t)pem_bytes, &others, -EACCES, "no certificate of this CA");
    free(by);
    by = sign_as(&pki, "admin", &n);
    refuses(by, (size_t)n, &pki, -EACCES, "one whose role is admin");
    free(by);
}

/* Whatever byte is another: the text, its length, the signature, the certificate. */
static void a_changed_one_is_refused(void **state)
{
    const char *first = strchr(pem, '\n') + 1, *last = strstr(pem, "-----END");
    char error[TLS_ERROR_BYTES], *copy = strdup(pem), *got;
    unsigned refused = 0;

    assert_non_null(copy);
    for (size_t at = (size_t)(first - pem); at < (size_t)(last - pem); at++) {
        struct certificate who;
        int64_t time_s;

        if (copy[at] == '\n' || copy[at] == '=')
            continue;
        copy[at] = copy[at] == 'A' ? 'B' : 'A';
        int n = signed_open(&got, &who, &time_s, copy, (size_t)pem_bytes, ca_of(&pki), error);

        if (n >= 0) { /* a byte that says nothing; never another text */
            assert_int_equal(n, sizeof text - 1);
            assert_string_equal(got, text);
            free(got);
        } else {
            refused++;
        }
        copy[at] = pem[at];
    }
    assert_true(refused > 1000);
    free(copy);
}

static void what_is_none_is_refused(void **state)
{
    static char long_one[SIGNED_BYTES_MAX + 1];

    refuses("", 0, &pki, -EBADMSG, "no text that one has signed");
    refuses(text, sizeof text - 1, &pki, -EBADMSG, "no text that one has signed");
    refuses(pem, (size_t)pem_bytes / 2, &pki, -EBADMSG, "no text that one has signed");
    memset(long_one, 'A', sizeof long_one);
    refuses(long_one, sizeof long_one, &pki, -EFBIG, "longer than");
}

static void too_long_a_text_is_not_signed(void **state)
{
    static char long_one[SIGNED_TEXT_BYTES_MAX + 1];
    struct tls_context *x = pki_context(&pki, "node");
    char *got;

    memset(long_one, 'x', sizeof long_one);
    assert_int_equal(signed_make(&got, x, long_one, sizeof long_one), -EFBIG);
    assert_in_range(signed_make(&got, x, long_one, sizeof long_one - 1), 1, SIGNED_BYTES_MAX);
    free(got);
    tls_context_free(x);
}

/* It says that it was signed when its certificate was not good: by nobody who could. */
static void a_certificate_counts_in_its_time(void **state)
{
    struct tls_context *x;
    int n;
    char *by;

    pki_add_dated(&pki, "brief", CERTIFICATE_NODE, 3, -DAY_S, 1);
    x = pki_context(&pki, "brief");
    n = signed_make(&by, x, text, sizeof text - 1);
    assert_true(n > 0);
    free(by);
    for (time_t end = time(NULL) + 3; time(NULL) < end;)
        sched_yield();
    n = signed_make(&by, x, text, sizeof text - 1);
    assert_true(n > 0);
    refuses(by, (size_t)n, &pki, -EACCES, "signature is wrong");
    free(by);
    tls_context_free(x);
}

static void others_take_it(void **state)
{
    char path[PKI_PATH_BYTES], out[PKI_PATH_BYTES], command[4 * PKI_PATH_BYTES], got[sizeof text];
    FILE *f;

    snprintf(path, sizeof path, "%s/text.pem", pki.dir);
    snprintf(out, sizeof out, "%s/text.out", pki.dir);
    f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(pem, 1, (size_t)pem_bytes, f), pem_bytes);
    assert_int_equal(fclose(f), 0);
    snprintf(command, sizeof command,
             "openssl cms -verify -binary -inform PEM -in %s -CAfile %s -purpose any -out %s "
             "2>/dev/null",
             path, ca_of(&pki), out);
    assert_int_equal(system(command), 0); // NOLINT(cert-env33-c)
    f = fopen(out, "re");
    assert_non_null(f);
    assert_int_equal(fread(got, 1, sizeof got, f), sizeof text - 1);
    assert_memory_equal(got, text, sizeof text - 1);
    fclose(f);
    unlink(path);
    unlink(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_node_has_signed_is_taken),
        cmocka_unit_test(nobody_elses_signature_is),
        cmocka_unit_test(a_changed_one_is_refused),
        cmocka_unit_test(what_is_none_is_refused),
        cmocka_unit_test(too_long_a_text_is_not_signed),
        cmocka_unit_test(a_certificate_counts_in_its_time),
        cmocka_unit_test(others_take_it),
    };
    return cmocka_run_group_tests(tests, open_files, close_files);
}
