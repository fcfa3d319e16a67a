/*
 * cert_files.c - keys and certificates on disk; see cert.h.
 *
 * A file is written as .NAME.new, synced, linked to its name, which fails where there is a file
 * already, and unlinked. So under its name there is all of it or nothing, whenever the process is
 * killed. What a killed run left under the other name is removed by the next: the lock on the
 * directory, which the kernel gives back in any case, says that nobody is at it.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cert.h"

#define KEY_FILE_BYTES_MAX 4096u /* one on P-256 has 241 */

/* --- directories ---------------------------------------------------------------------------- */

static bool is_others(const struct stat *st) { return st->st_uid != geteuid() && st->st_uid != 0; }

/* Its entry in the directory above is to last, too. */
static void sync_above(int fd)
{
    int above = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (above < 0)
        return; /* who may not open it cannot sync it */
    fsync(above);
    close(above);
}

int cert_dir_open(struct cert_dir *d, const char *path, bool make)
{
    bool made = false;
    struct stat st;

    *d = (struct cert_dir){ .fd = -1, .path = path };
    if (make && mkdir(path, 0700) == 0)
        made = true;
    else if (make && errno != EEXIST)
        return cli_error(CLI_REFUSED, "%s cannot be made: %s", path, strerror(errno));
    d->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->fd < 0 && errno == ENOENT)
        return cli_error(CLI_REFUSED, "%s does not exist: `sluice cert create-ca` makes it", path);
    if (d->fd < 0 || fstat(d->fd, &st) < 0)
        return cli_error(CLI_REFUSED, "%s: %s", path, strerror(errno));
    if (made)
        sync_above(d->fd);
    if (is_others(&st))
        return cli_error(CLI_REFUSED, "%s belongs to another user, who could change the keys in it",
                         path);
    if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return cli_error(CLI_REFUSED, "others can write to %s: chmod go-w %s", path, path);
    return CLI_OK;
}

void cert_dir_close(struct cert_dir *d)
{
    if (d->fd >= 0)
        close(d->fd);
    d->fd = -1;
}

int cert_dir_lock(struct cert_dir *d)
{
    while (flock(d->fd, LOCK_EX) < 0)
        if (errno != EINTR)
            return cli_error(CLI_REFUSED, "%s cannot be locked: %s", d->path, strerror(errno));
    return CLI_OK;
}

bool cert_dir_has(const struct cert_dir *d, const char *name)
{
    struct stat st;

    /* What cannot be looked at is there. */
    return fstatat(d->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

/* --- writing -------------------------------------------------------------------------------- */

static int write_all(int fd, const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = write(fd, data, bytes);

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            data += n;
            bytes -= (size_t)n;
        }
    }
    return 0;
}

static void temporary_name(char ret[CERT_FILE_BYTES], const char *name)
{
    int n = snprintf(ret, CERT_FILE_BYTES, ".%s.new", name);

    assert(n > 0 && n < (int)CERT_FILE_BYTES);
}

void cert_dir_tidy(const struct cert_dir *d, const char *name)
{
    char temporary[CERT_FILE_BYTES];

    temporary_name(temporary, name);
    unlinkat(d->fd, temporary, 0);
}

static int write_file(const struct cert_dir *d, const char *name, BIO *content, mode_t mode)
{
    char temporary[CERT_FILE_BYTES], *data;
    long bytes = BIO_get_mem_data(content, &data);
    int fd, e = 0;

    assert(bytes > 0);
    temporary_name(temporary, name);
    fd = openat(d->fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0)
        return cli_error(CLI_REFUSED, "%s/%s cannot be written: %s", d->path, name,
                         strerror(errno));
    /* The umask may have taken bits away. */
    if (fchmod(fd, mode) < 0)
        e = -errno;
    if (e == 0)
        e = write_all(fd, data, (size_t)bytes);
    if (e == 0 && fsync(fd) < 0)
        e = -errno;
    if (close(fd) < 0 && e == 0)
        e = -errno;
    if (e == 0 && linkat(d->fd, temporary, d->fd, name, 0) < 0)
        e = -errno;
    unlinkat(d->fd, temporary, 0);
    if (e == 0 && fsync(d->fd) < 0)
        e = -errno;
    if (e == -EEXIST)
        return cli_error(CLI_REFUSED, "%s/%s exists already, and stays as it is", d->path, name);
    if (e < 0)
        return cli_error(CLI_REFUSED, "%s/%s cannot be written: %s", d->path, name, strerror(-e));
    return CLI_OK;
}

int cert_write_key(const struct cert_dir *d, const char *name, EVP_PKEY *key)
{
    BIO *b = BIO_new(BIO_s_secmem()); /* wiped when it is freed */
    int rc;

    /* PKCS #8 without a password: Java reads no other form without help. */
    if (b == NULL || PEM_write_bio_PKCS8PrivateKey(b, key, NULL, NULL, 0, NULL, NULL) != 1)
        rc = cli_error(CLI_REFUSED, "OpenSSL cannot write the key");
    else
        rc = write_file(d, name, b, 0600);
    BIO_free(b);
    return rc;
}

int cert_write_crt(const struct cert_dir *d, const char *name, X509 *x)
{
    BIO *b = BIO_new(BIO_s_mem());
    int rc;

    if (b == NULL || PEM_write_bio_X509(b, x) != 1)
        rc = cli_error(CLI_REFUSED, "OpenSSL cannot write the certificate");
    else
        rc = write_file(d, name, b, 0644);
    BIO_free(b);
    return rc;
}

/* --- reading -------------------------------------------------------------------------------- */

/* Opens a regular file of ours on which others have none of these bits. */
static int open_own(const struct cert_dir *d, const char *name, mode_t bits, int *ret_fd)
{
    /* O_NONBLOCK: a pipe must not keep us waiting. */
    int fd = openat(d->fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = CLI_OK;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        rc = cli_error(CLI_REFUSED, "%s/%s: %s", d->path, name, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        rc = cli_error(CLI_REFUSED, "%s/%s is not a regular file", d->path, name);
    else if (is_others(&st))
        rc = cli_error(CLI_REFUSED, "%s/%s belongs to another user", d->path, name);
    else if ((st.st_mode & bits) != 0)
        rc = cli_error(CLI_REFUSED, "others can %s %s/%s: if nobody has yet, chmod go-%s it",
                       (bits & S_IROTH) ? "read" : "write to", d->path, name,
                       (bits & S_IROTH) ? "rwx" : "w");
    if (rc == CLI_OK)
        *ret_fd = fd;
    else if (fd >= 0)
        close(fd);
    return rc;
}

/* OpenSSL would ask for a password on the terminal. */
static int no_password(char *ret, int bytes, int writing, void *arg) { return -1; }

int cert_load_key(const struct cert_dir *d, const char *name, EVP_PKEY **ret)
{
    char data[KEY_FILE_BYTES_MAX + 1];
    EVP_PKEY *key = NULL;
    ssize_t n;
    BIO *b;
    int fd, rc = open_own(d, name, S_IRWXG | S_IRWXO, &fd);

    if (rc != CLI_OK)
        return rc;
    n = read(fd, data, sizeof data);
    close(fd);
    if (n < 0)
        return cli_error(CLI_REFUSED, "%s/%s cannot be read", d->path, name);
    b = n <= (ssize_t)KEY_FILE_BYTES_MAX ? BIO_new_mem_buf(data, (int)n) : NULL;
    if (b != NULL)
        key = PEM_read_bio_PrivateKey(b, NULL, no_password, NULL);
    BIO_free(b);
    OPENSSL_cleanse(data, sizeof data);
    if (key == NULL)
        return cli_error(CLI_REFUSED, "%s/%s is no private key in PEM without a password", d->path,
                         name);
    if (!cert_is_our_key(key)) {
        EVP_PKEY_free(key);
        return cli_error(CLI_REFUSED, "%s/%s is not a key on P-256", d->path, name);
    }
    *ret = key;
    return CLI_OK;
}

int cert_load_ca(const struct cert_dir *d, const char *name, X509 **ret,
                 struct certificate *ret_who)
{
    const char *why;
    X509 *x = NULL;
    int fd, rc = open_own(d, name, S_IWGRP | S_IWOTH, &fd);

    if (rc != CLI_OK)
        return rc;
    rc = certificate_load_fd(fd, &x, &why);
    close(fd);
    if (rc == 0)
        rc = certificate_read(x, ret_who, &why);
    if (rc < 0)
        rc = cli_error(CLI_REFUSED, "%s/%s %s", d->path, name, why);
    else if (ret_who->role != CERTIFICATE_CA)
        rc = cli_error(CLI_REFUSED, "%s/%s is not a CA's certificate", d->path, name);
    if (rc == CLI_OK)
        *ret = x;
    else
        X509_free(x);
    return rc;
}
