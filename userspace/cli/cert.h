/*
 * cert.h - the parts of `sluice cert`: cert.c takes the words and options apart and says in which
 * order things are made, cert_make.c makes keys and certificates, cert_files.c is their way to the
 * disk and back, cert_show.c prints them.
 *
 * Functions that return an exit code have said why it is not CLI_OK. One thread.
 */
#ifndef SLUICE_CLI_CERT_H
#define SLUICE_CLI_CERT_H

#include <openssl/types.h>

#include "base/certificate.h"
#include "cli/cli.h"

#define CERT_FILE_BYTES 96u /* producer-NAME.crt, and what a temporary name adds */

/* --- cert_files.c --- */

struct cert_dir {
    int fd;
    const char *path; /* as it was given, for sentences; borrowed */
};

/* Opens a directory that nobody else may write to. make: it is made when it is not there. */
int cert_dir_open(struct cert_dir *d, const char *path, bool make);
void cert_dir_close(struct cert_dir *d);

/* Waits for every other `sluice cert` that makes something in d. */
int cert_dir_lock(struct cert_dir *d);

/* Under the lock: removes what a killed run has left of this file under its other name. */
void cert_dir_tidy(const struct cert_dir *d, const char *name);

bool cert_dir_has(const struct cert_dir *d, const char *name);

/* Under the lock. The file is there with all of its bytes or not at all, and a file that is there
 * stays as it is. */
int cert_write_key(const struct cert_dir *d, const char *name, EVP_PKEY *key);
int cert_write_crt(const struct cert_dir *d, const char *name, X509 *x);

/* A key that nobody else can read. To be freed. */
int cert_load_key(const struct cert_dir *d, const char *name, EVP_PKEY **ret);
/* A CA's certificate that nobody else can write. To be freed. ret_who may be set on failure. */
int cert_load_ca(const struct cert_dir *d, const char *name, X509 **ret,
                 struct certificate *ret_who);

/* --- cert_make.c --- */

struct cert_order {
    const struct certificate *who; /* all of it, the dates too */
    const struct certificate_hosts *hosts;
    EVP_PKEY *key;
    X509 *ca; /* NULL: it signs itself */
    EVP_PKEY *ca_key;
};

/* NULL when OpenSSL cannot. To be freed. */
EVP_PKEY *cert_make_key(void);
X509 *cert_make(const struct cert_order *o);

/* Is it of the one kind that cert_make_key() makes? */
bool cert_is_our_key(const EVP_PKEY *key);

/* --- cert_show.c --- */

#define CERT_TIME_BYTES 32u

/* Unix time as ISO 8601 to the second, UTC. */
const char *cert_time(char ret[CERT_TIME_BYTES], int64_t unix_s);

/* Prints it. files: NULL, or the two that were written, key first. name: for sentences. */
int cert_print(X509 *x, const char *name, bool json, const char *const files[2]);
/* `sluice cert show`. */
int cert_show(const char *path, bool json);

#endif
