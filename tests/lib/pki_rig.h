/*
 * pki_rig.h - a CA in a temporary directory, and files that it has signed: what `sluice cert` would
 * make, with dates as a test wants them, and certificates that it never would.
 *
 * The functions end the test when anything is not as it should be. One thread.
 */
#ifndef SLUICE_TESTS_PKI_RIG_H
#define SLUICE_TESTS_PKI_RIG_H

#include "base/tls.h"
#include "tests/lib/certificate_rig.h"
#include "tests/lib/log_fixture.h"

#define PKI_PATH_BYTES 600

struct pki {
    char dir[FIXTURE_DIR_BYTES];
    X509 *ca;
    EVP_PKEY *ca_key;
};

/* DIR/ca.crt, good for ten years. */
void pki_open(struct pki *p);
void pki_close(struct pki *p);

/* DIR/FILE.crt and .key, good from now + from_s until now + until_s. */
void pki_add_dated(struct pki *p, const char *file, enum certificate_role role, uint16_t node,
                   int64_t from_s, int64_t until_s);
/* For a year. Its name is that of the file. */
void pki_add(struct pki *p, const char *file, enum certificate_role role, uint16_t node);
/* As it is described, with the key of certificate_rig.h. */
void pki_add_as(struct pki *p, const char *file, struct rig_certificate *c);

struct pki_files {
    struct tls_files files; /* points into the rest */
    char ca[PKI_PATH_BYTES], cert[PKI_PATH_BYTES], key[PKI_PATH_BYTES];
};
/* Paths of a file's certificate and key, and of p's CA. */
const struct tls_files *pki_files(const struct pki *p, const char *file, struct pki_files *ret);

/* A context of these files. */
struct tls_context *pki_context(const struct pki *p, const char *file);

#endif
