/*
 * test_certificate.c - who a certificate says its holder is: what is good, and everything else.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/certificate.h"
#include "tests/lib/certificate_rig.h"
#include "tests/lib/log_fixture.h"

#define BOTH   "serverAuth,clientAuth"
#define CLIENT "clientAuth"

/* 64 characters */
#define LONGEST "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789ABCDEF"

static void check_good(const struct rig_certificate *c, enum certificate_role role, uint16_t node,
                       const char *name)
{
    char uri[CERTIFICATE_URI_BYTES];
    struct certificate who;
    const char *why = NULL;
    X509 *x = rig_certificate(c);

    memset(&who, 0x5a, sizeof who);
    if (certificate_read(x, &who, &why) < 0)
        fail_msg("%s: it %s", c->name[0].data, why);
    assert_null(why);
    assert_int_equal(who.role, role);
    assert_int_equal(who.node, node);
    assert_string_equal(who.name, name);
    assert_int_equal(who.from_s, RIG_FROM_S);
    assert_int_equal(who.until_s, RIG_UNTIL_S);
    certificate_uri(&who, uri);
    assert_string_equal(uri, c->name[0].data);
    X509_free(x);
}

/* Refused, for that reason, and nothing is written. */
static void check_bad(const struct rig_certificate *c, const char *reason)
{
    struct certificate who, untouched;
    const char *why = NULL;
    X509 *x = rig_certificate(c);

    memset(&who, 0x5a, sizeof who);
    memset(&untouched, 0x5a, sizeof untouched);
    if (certificate_read(x, &who, &why) != -EINVAL)
        fail_msg("taken: %s, which is wanted to be: %s", c->name[0].data, reason);
    assert_memory_equal(&who, &untouched, sizeof who);
    assert_non_null(why);
    if (strstr(why, reason) == NULL)
        fail_msg("%s: '%s' is not the reason '%s'", c->name[0].data, why, reason);
    assert_int_equal(ERR_peek_error(), 0);
    X509_free(x);
}

static void every_role_is_read_with_node_and_name(void **state)
{
    check_good(&(struct rig_certificate){ .name = { RIG_NAME(GEN_URI, "urn:sluice:ca:sluice") },
                                          .basic = "critical,CA:TRUE,pathlen:0",
                                          .key_usage = "critical,keyCertSign,cRLSign" },
               CERTIFICATE_CA, 0, "sluice");
    check_good(&(struct rig_certificate){ .name = { RIG_NAME(GEN_URI, "urn:sluice:node:3:node-3"),
                                                    RIG_NAME(GEN_DNS, "a.example") },
                                          .usage = BOTH },
               CERTIFICATE_NODE, 3, "node-3");
    check_good(
        &(struct rig_certificate){ .name = { RIG_NAME(GEN_URI, "urn:sluice:node:65535:" LONGEST) },
                                   .usage = BOTH },
        CERTIFICATE_NODE, 65535, LONGEST);
    check_good(&(struct rig_certificate){ .name = { RIG_NAME(GEN_URI, "urn:sluice:node:1:7") },
                                          .usage = "clientAuth,serverAuth" },
               CERTIFICATE_NODE, 1, "7");
    check_good(
        &(struct rig_certificate){ .name = { RIG_NAME(GEN_URI, "urn:sluice:client:admin:a.B_c-9") },
                                   .usage = CLIENT },
        CERTIFICATE_ADMIN, 0, "a.B_c-9");
    check_good(
        &(struct rig_certificate){
            .name = { RIG_NAME(GEN_URI, "urn:sluice:client:producer:" LONGEST) }, .usage = CLIENT },
        CERTIFICATE_PRODUCER, 0, LONGEST);
    check_good(
        &(struct rig_certificate){ .name = { RIG_NAME(GEN_URI, "urn:sluice:client:reader:-") },
                                   .usage = CLIENT },
        CERTIFICATE_READER, 0, "-");
}

static void names_of_others_do_not_matter(void **state)
{
    check_good(
        &(struct rig_certificate){ .name = { RIG_NAME(GEN_URI, "urn:sluice:client:reader:r"),
                                             RIG_NAME(GEN_URI, "spiffe://example.org/sluice"),
                                             RIG_NAME(GEN_URI, "urn:sluicegate:node:3:x"),
                                             RIG_NAME(GEN_EMAIL, "urn:sluice:node:3:x"),
                                             RIG_NAME(GEN_DNS, "urn:sluice:node:3:x") },
                                   .usage = CLIENT },
        CERTIFICATE_READER, 0, "r");
    check_good(
        &(struct rig_certificate){ .name = { RIG_NAME(GEN_URI, "urn:sluice:client:reader:r") },
                                   .usage = CLIENT,
                                   .more_names = CERTIFICATE_NAMES_MAX - 1 },
        CERTIFICATE_READER, 0, "r");
}

static void a_uri_that_is_not_written_as_we_write_it_is_refused(void **state)
{
    static const struct rig_name bad[] = {
        RIG_NAME(GEN_URI, "urn:sluice:"),
        RIG_NAME(GEN_URI, "urn:sluice:node:"),
        RIG_NAME(GEN_URI, "urn:sluice:node:3"),
        RIG_NAME(GEN_URI, "urn:sluice:node:3:"),
        RIG_NAME(GEN_URI, "urn:sluice:node::x"),
        RIG_NAME(GEN_URI, "urn:sluice:node:x"),
        RIG_NAME(GEN_URI, "urn:sluice:node:0:x"),
        RIG_NAME(GEN_URI, "urn:sluice:node:03:x"),
        RIG_NAME(GEN_URI, "urn:sluice:node:00003:x"),
        RIG_NAME(GEN_URI, "urn:sluice:node:65536:x"),
        RIG_NAME(GEN_URI, "urn:sluice:node:65539:x"),
        RIG_NAME(GEN_URI, "urn:sluice:node:4294967299:x"),
        RIG_NAME(GEN_URI, "urn:sluice:node:18446744073709551619:x"),
        RIG_NAME(GEN_URI, "urn:sluice:node:+3:x"),
        RIG_NAME(GEN_URI, "urn:sluice:node: 3:x"),
        RIG_NAME(GEN_URI, "urn:sluice:node:-3:x"),
        RIG_NAME(GEN_URI, "urn:sluice:node:0x3:x"),
        RIG_NAME(GEN_URI, "urn:sluice:node:3:x:y"),
        RIG_NAME(GEN_URI, "urn:sluice:node:3:x y"),
        RIG_NAME(GEN_URI, "urn:sluice:node:3:x/y"),
        RIG_NAME(GEN_URI, "urn:sluice:node:3:x%41"),
        RIG_NAME(GEN_URI, "urn:sluice:node:3:x\n"),
        RIG_NAME(GEN_URI, "urn:sluice:node:3:\xc3\xa9"),
        RIG_NAME(GEN_URI, "urn:sluice:node:3:" LONGEST "x"),
        RIG_NAME(GEN_URI, "urn:sluice:node:3:" LONGEST LONGEST LONGEST),
        RIG_NAME(GEN_URI, "URN:sluice:node:3:x"),
        RIG_NAME(GEN_URI, "urn:Sluice:node:3:x"),
        RIG_NAME(GEN_URI, "urn:sluice:Node:3:x"),
        RIG_NAME(GEN_URI, "urn:sluice:nodes:3:x"),
        RIG_NAME(GEN_URI, "urn:sluice:client:x"),
        RIG_NAME(GEN_URI, "urn:sluice:client:node:3:x"),
        RIG_NAME(GEN_URI, "urn:sluice:client:ca:x"),
        RIG_NAME(GEN_URI, "urn:sluice:client::x"),
        RIG_NAME(GEN_URI, "urn:sluice:admin:x"),
        RIG_NAME(GEN_URI, "urn:sluice:client:admin:"),
        RIG_NAME(GEN_URI, "urn:sluice:ca:"),
        RIG_NAME(GEN_URI, "urn:sluice:ca:x?=y"),
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rig_certificate c = { .name = { bad[i] }, .usage = BOTH };

        check_bad(&c, "names no role, node or name");
    }
}

static void a_nul_in_any_uri_is_refused(void **state)
{
    static const struct rig_name bad[] = {
        RIG_NAME(GEN_URI, "urn:sluice:node:3:x\0"), RIG_NAME(GEN_URI, "urn:sluice:node:3:x\0.evil"),
        RIG_NAME(GEN_URI, "urn:sluice:node:3\0:x"), RIG_NAME(GEN_URI, "\0urn:sluice:node:3:x"),
        RIG_NAME(GEN_URI, "urn:slu\0ice:node:3:x"),
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rig_certificate c = { .name = { bad[i] }, .usage = BOTH };

        check_bad(&c, "NUL");
        c.name[1] = (struct rig_name)RIG_NAME(GEN_URI, "urn:sluice:node:3:x");
        check_bad(&c, "NUL");
    }
}

static void two_roles_are_refused_even_if_they_are_the_same(void **state)
{
    static const struct rig_name second[] = {
        RIG_NAME(GEN_URI, "urn:sluice:node:3:x"), RIG_NAME(GEN_URI, "urn:sluice:node:4:x"),
        RIG_NAME(GEN_URI, "urn:sluice:ca:x"),     RIG_NAME(GEN_URI, "urn:sluice:client:admin:x"),
        RIG_NAME(GEN_URI, "URN:SLUICE:NODE:3:X"), RIG_NAME(GEN_URI, "urn:sluice:nonsense"),
    };

    for (size_t i = 0; i < sizeof second / sizeof *second; i++) {
        struct rig_certificate c = { .name = { RIG_NAME(GEN_URI, "urn:sluice:node:3:x"),
                                               RIG_NAME(GEN_DNS, "a.example"), second[i] },
                                     .usage = BOTH };

        check_bad(&c, "more than one role");
    }
}

static void without_a_role_it_is_refused(void **state)
{
    check_bad(&(struct rig_certificate){ .usage = BOTH }, "no role of Sluice");
    check_bad(
        &(struct rig_certificate){ .name = { RIG_NAME(GEN_DNS, "a.example") }, .usage = BOTH },
        "no role of Sluice");
    check_bad(&(struct rig_certificate){ .name = { RIG_NAME(GEN_DNS, "urn:sluice:node:3:x") },
                                         .usage = BOTH },
              "no role of Sluice");
    check_bad(&(struct rig_certificate){ .name = { RIG_NAME(GEN_URI, "") }, .usage = BOTH },
              "no role of Sluice");
    check_bad(&(struct rig_certificate){ .version_1 = true }, "extensions");
}

static void usage_that_contradicts_the_role_is_refused(void **state)
{
    static const struct rig_name node = RIG_NAME(GEN_URI, "urn:sluice:node:3:x"),
                                 client = RIG_NAME(GEN_URI, "urn:sluice:client:producer:x"),
                                 ca = RIG_NAME(GEN_URI, "urn:sluice:ca:x");

    check_bad(&(struct rig_certificate){ .name = { node }, .basic = "CA:TRUE", .usage = BOTH },
              "its role is not ca");
    check_bad(&(struct rig_certificate){ .name = { client }, .basic = "CA:TRUE", .usage = CLIENT },
              "its role is not ca");
    check_bad(&(struct rig_certificate){ .name = { ca } }, "may not sign others");
    check_bad(&(struct rig_certificate){ .name = { ca },
                                         .basic = "CA:TRUE",
                                         .key_usage = "digitalSignature" },
              "may not sign others");
    check_bad(&(struct rig_certificate){ .name = { node } }, "extended key usage");
    check_bad(&(struct rig_certificate){ .name = { node }, .usage = CLIENT }, "extended key usage");
    check_bad(&(struct rig_certificate){ .name = { node }, .usage = "serverAuth" },
              "extended key usage");
    check_bad(&(struct rig_certificate){ .name = { node }, .usage = "anyExtendedKeyUsage" },
              "extended key usage");
    check_bad(&(struct rig_certificate){ .name = { client } }, "extended key usage");
    check_bad(&(struct rig_certificate){ .name = { client }, .usage = BOTH }, "extended key usage");
    check_bad(&(struct rig_certificate){ .name = { client }, .usage = CLIENT ",codeSigning" },
              "extended key usage");
}

static void extensions_that_are_there_twice_or_too_long_are_refused(void **state)
{
    static const struct rig_name node = RIG_NAME(GEN_URI, "urn:sluice:node:3:x");

    check_bad(&(struct rig_certificate){ .name = { node }, .usage = BOTH, .names_twice = true },
              "twice");
    check_bad(&(struct rig_certificate){ .name = { node }, .usage = BOTH, .usage_twice = true },
              "twice");
    check_bad(&(struct rig_certificate){ .name = { node },
                                         .usage = BOTH,
                                         .more_names = CERTIFICATE_NAMES_MAX },
              "more than 64");
    check_bad(
        &(struct rig_certificate){
            .name = { node }, .usage = BOTH, .from_s = RIG_UNTIL_S, .until_s = RIG_FROM_S },
        "dates");
}

/* --- hosts ---------------------------------------------------------------------------------- */

static void hosts_are_read_in_one_form(void **state)
{
    struct certificate_hosts h = { .n = 99 };
    const char *why = NULL;
    X509 *x = rig_certificate(&(struct rig_certificate){
        .name = { RIG_NAME(GEN_URI, "urn:sluice:node:3:x"), RIG_NAME(GEN_DNS, "A.Example"),
                  RIG_NAME(GEN_IPADD, "\xc0\0\2\x0a"),
                  RIG_NAME(GEN_IPADD, "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"),
                  RIG_NAME(GEN_EMAIL, "me@example.org") },
        .usage = BOTH });

    assert_int_equal(certificate_read_hosts(x, &h, &why), 0);
    assert_int_equal(h.n, 3);
    assert_string_equal(h.at[0], "a.example");
    assert_string_equal(h.at[1], "192.0.2.10");
    assert_string_equal(h.at[2], "2001:db8::1");
    X509_free(x);
}

static void hosts_of_a_certificate_that_are_none_are_refused(void **state)
{
    static const struct rig_name bad[] = {
        RIG_NAME(GEN_DNS, "a.example\0.evil.example"),
        RIG_NAME(GEN_DNS, ""),
        RIG_NAME(GEN_DNS, "*.example"),
        RIG_NAME(GEN_DNS, "10.0.0.1"),
        RIG_NAME(GEN_DNS, "::1"),
        RIG_NAME(GEN_IPADD, "\x0a\0\0\1\0"),
        RIG_NAME(GEN_IPADD, ""),
        RIG_NAME(GEN_DNS, "good.example"),
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct certificate_hosts h = { .n = 99 };
        const char *why = NULL;
        X509 *x = rig_certificate(
            &(struct rig_certificate){ .name = { RIG_NAME(GEN_DNS, "good.example"), bad[i] } });

        assert_int_equal(certificate_read_hosts(x, &h, &why), -EINVAL);
        assert_non_null(strstr(why, "host names"));
        assert_int_equal(h.n, 99);
        X509_free(x);
    }
    X509 *x = rig_certificate(&(struct rig_certificate){ .more_names = CERTIFICATE_HOSTS_MAX + 1 });
    struct certificate_hosts h;
    const char *why;

    assert_int_equal(certificate_read_hosts(x, &h, &why), -EINVAL);
    X509_free(x);
}

static int add(struct certificate_hosts *h, const char *text)
{
    const char *why = NULL;
    int rc = certificate_hosts_add(h, text, strlen(text), &why);

    assert_true((rc == 0) == (why == NULL));
    return rc;
}

static void hosts_of_people_are_names_or_addresses(void **state)
{
    static const char *const bad[] = {
        "",      ".",    "a.",           ".a",         "a..b",      "-a",
        "a-",    "a-.b", "a.-b",         "a_b",        "a b",       "a/b",
        "*",     "*.a",  "10.0.0.300",   "1.2.3",      "7",         "a.7",
        "[::1]", "::g",  "fe80::1%eth0", "1.2.3.4.5",  "a\xc3\xa9", "http://a",
        "a:80",  "a\n",  "::1/64",       "10.0.0.1/8", LONGEST,     "x." LONGEST ".y",
    };
    static const char label[] = "123456789012345678901234567890123456789012345678901234567890123";
    struct certificate_hosts h = { .n = 0 };
    char long_name[300];

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (add(&h, bad[i]) != -EINVAL)
            fail_msg("'%s' is taken for a host", bad[i]);
    assert_int_equal(h.n, 0);
    assert_int_equal(add(&h, "localhost"), 0);
    assert_int_equal(add(&h, "3com.Example"), 0);
    assert_int_equal(add(&h, "xn--mnchen-3ya.example"), 0);
    assert_int_equal(add(&h, "0:0:0:0:0:0:0:1"), 0);
    assert_string_equal(h.at[1], "3com.example");
    assert_string_equal(h.at[3], "::1");
    assert_int_equal(add(&h, "::1"), -EEXIST);
    assert_int_equal(add(&h, "LOCALHOST"), -EEXIST);
    /* 253 characters fit, 254 do not. */
    snprintf(long_name, sizeof long_name, "%s.%s.%s.a%.60s", label, label, label, label);
    assert_int_equal(strlen(long_name), 253);
    assert_int_equal(add(&h, long_name), 0);
    snprintf(long_name, sizeof long_name, "%s.%s.%s.a%.61s", label, label, label, label);
    assert_int_equal(add(&h, long_name), -EINVAL);
    for (unsigned i = h.n; i < CERTIFICATE_HOSTS_MAX; i++) {
        char name[16];

        snprintf(name, sizeof name, "h%u", i);
        assert_int_equal(add(&h, name), 0);
    }
    assert_int_equal(add(&h, "one-more"), -E2BIG);
}

/* --- files ---------------------------------------------------------------------------------- */

static struct {
    char dir[FIXTURE_DIR_BYTES], path[FIXTURE_DIR_BYTES + 16];
    char pem[8192];
    size_t pem_bytes;
} file;

static int setup(void **state)
{
    X509 *x = rig_certificate(&(struct rig_certificate){
        .name = { RIG_NAME(GEN_URI, "urn:sluice:client:reader:r") }, .usage = CLIENT });

    file.pem_bytes = rig_pem(x, file.pem, sizeof file.pem);
    X509_free(x);
    fixture_dir_make(file.dir);
    snprintf(file.path, sizeof file.path, "%s/x.crt", file.dir);
    return 0;
}

static int teardown(void **state)
{
    fixture_dir_remove(file.dir);
    return 0;
}

static void put(const char *data, size_t bytes)
{
    FILE *f = fopen(file.path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    fclose(f);
}

/* Loads file.path: it must end so, for that reason. */
static void load(int wanted, const char *reason)
{
    const char *why = NULL;
    X509 *x = NULL;
    int rc = certificate_load(file.path, &x, &why);

    if (rc != wanted || (rc < 0 && strstr(why, reason) == NULL))
        fail_msg("%d, '%s' instead of %d, '%s'", rc, rc < 0 ? why : "", wanted, reason);
    assert_true((x != NULL) == (rc == 0));
    assert_int_equal(ERR_peek_error(), 0);
    X509_free(x);
}

static void a_file_with_one_certificate_is_loaded(void **state)
{
    static char text[CERTIFICATE_FILE_BYTES_MAX + 1];
    const char *why;
    X509 *x;

    put(file.pem, file.pem_bytes);
    load(0, NULL);
    /* What openssl x509 -text writes before it, and another kind of block. */
    snprintf(text, sizeof text, "Certificate:\n    Data: 1\n%s%s", file.pem,
             "-----BEGIN OTHER-----\nAAAA\n-----END OTHER-----\n");
    put(text, strlen(text));
    load(0, NULL);
    /* Just as long as it may be. */
    memset(text, '\n', sizeof text);
    memcpy(text, file.pem, file.pem_bytes);
    assert_int_equal(certificate_parse(text, CERTIFICATE_FILE_BYTES_MAX, &x, &why), 0);
    X509_free(x);
    put(text, CERTIFICATE_FILE_BYTES_MAX);
    load(0, NULL);
    put(text, CERTIFICATE_FILE_BYTES_MAX + 1);
    load(-EFBIG, "longer than 64 KiB");
}

static void a_file_with_none_or_two_is_refused(void **state)
{
    static char text[3 * sizeof file.pem];

    put("", 0);
    load(-EBADMSG, "no certificate");
    put("hello\n", 6);
    load(-EBADMSG, "no certificate");
    put(file.pem, file.pem_bytes / 2);
    load(-EBADMSG, "no certificate");
    put("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 59);
    load(-EBADMSG, "no certificate");
    put("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 59);
    load(-EBADMSG, "broken");
    snprintf(text, sizeof text, "%s%s", file.pem, file.pem);
    put(text, strlen(text));
    load(-EBADMSG, "more than one");
}

static void bytes_behind_a_certificate_are_refused(void **state)
{
    unsigned char *der = NULL, longer[4096];
    const char *why;
    BIO *b = BIO_new(BIO_s_mem());
    char *data;
    long bytes;
    X509 *x;
    int n;

    assert_int_equal(certificate_parse(file.pem, file.pem_bytes, &x, &why), 0);
    n = i2d_X509(x, &der);
    assert_true(n > 0 && n < (int)sizeof longer);
    memcpy(longer, der, (size_t)n);
    longer[n] = 0;
    PEM_write_bio(b, PEM_STRING_X509, "", longer, n + 1);
    bytes = BIO_get_mem_data(b, &data);
    put(data, (size_t)bytes);
    load(-EBADMSG, "broken");
    BIO_free(b);
    OPENSSL_free(der);
    X509_free(x);
}

static void what_is_no_file_is_refused_at_once(void **state)
{
    load(-ENOENT, "does not exist");
    assert_int_equal(mkfifo(file.path, 0600), 0);
    load(-EBADMSG, "not a regular file");
    unlink(file.path);
    assert_int_equal(mkdir(file.path, 0700), 0);
    load(-EBADMSG, "not a regular file");
    rmdir(file.path);
    assert_int_equal(symlink("x.crt", file.path), 0);
    load(-ELOOP, "cannot be opened");
    unlink(file.path);
}

#define WITH_FILE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_role_is_read_with_node_and_name),
        cmocka_unit_test(names_of_others_do_not_matter),
        cmocka_unit_test(a_uri_that_is_not_written_as_we_write_it_is_refused),
        cmocka_unit_test(a_nul_in_any_uri_is_refused),
        cmocka_unit_test(two_roles_are_refused_even_if_they_are_the_same),
        cmocka_unit_test(without_a_role_it_is_refused),
        cmocka_unit_test(usage_that_contradicts_the_role_is_refused),
        cmocka_unit_test(extensions_that_are_there_twice_or_too_long_are_refused),
        cmocka_unit_test(hosts_are_read_in_one_form),
        cmocka_unit_test(hosts_of_a_certificate_that_are_none_are_refused),
        cmocka_unit_test(hosts_of_people_are_names_or_addresses),
        WITH_FILE(a_file_with_one_certificate_is_loaded),
        WITH_FILE(a_file_with_none_or_two_is_refused),
        WITH_FILE(bytes_behind_a_certificate_are_refused),
        WITH_FILE(what_is_no_file_is_refused_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
