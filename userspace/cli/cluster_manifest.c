/*
 * cluster_manifest.c - loss manifests: `sluice cluster manifest`, and --manifest of others.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/signed.h"
#include "cli/cluster.h"

/* --- one that a node has sent -------------------------------------------------------------------
 */

int cluster_manifest_create(const struct cluster_options *o, int *ret)
{
    *ret = -1;
    if (o->manifest == NULL)
        return CLI_OK;
    *ret = open(o->manifest, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    return *ret >= 0 ? CLI_OK : cli_error(CLI_USAGE, "%s: %s", o->manifest, strerror(errno));
}

int cluster_manifest_save(const struct cluster_options *o, int fd, int rc, const char *pem)
{
    const size_t n = strlen(pem);

    if (fd < 0)
        return rc;
    if (rc == CLI_OK && n == 0)
        rc = cli_error(CLI_NEGATIVE, "there is no manifest: that node has no TLS, so nothing to "
                                     "sign with");
    else if (rc == CLI_OK && (write(fd, pem, n) != (ssize_t)n || fsync(fd) < 0))
        rc = cli_error(CLI_REFUSED, "%s cannot be written: %s", o->manifest, strerror(errno));
    close(fd);
    if (rc != CLI_OK)
        (void)unlink(o->manifest);
    return rc;
}

/* --- one that was kept --------------------------------------------------------------------------
 */

static int read_all(const char *path, char ret[SIGNED_BYTES_MAX + 1], size_t *ret_bytes)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rbe");
    int e = 0;

    if (f == NULL)
        return cli_error(CLI_USAGE, "%s: %s", path, strerror(errno));
    *ret_bytes = fread(ret, 1, SIGNED_BYTES_MAX + 1, f);
    if (ferror(f))
        e = cli_error(CLI_USAGE, "%s cannot be read: %s", path, strerror(errno));
    if (f != stdin)
        fclose(f);
    return e;
}

static int show(const struct cluster_options *o, const char *text, const struct certificate *signer,
                int64_t time_s)
{
    char time[CLI_TIME_BYTES];
    json_t *manifest;

    if (!o->common.json) {
        fputs(text, stdout);
        fprintf(stderr, "signed by node %u (%s) at %s\n", signer->node, signer->name,
                cli_time(time, (uint64_t)time_s * 1000000000u));
        return cli_finish(CLI_OK);
    }
    manifest = json_loads(text, 0, NULL);
    if (manifest == NULL)
        return cli_error(CLI_NEGATIVE, "%s: what was signed is not JSON", o->arg[0]);
    return cli_print_json(json_pack("{s:i, s:s, s:I, s:o}", "signedBy", (int)signer->node, "name",
                                    signer->name, "signedS", (json_int_t)time_s, "manifest",
                                    manifest),
                          CLI_OK);
}

int cluster_manifest(const struct cluster_options *o)
{
    struct tls_files files = o->common.tls;
    char error[TLS_ERROR_BYTES], *pem, *text;
    struct certificate signer;
    int64_t time_s;
    size_t bytes = 0;
    int rc;

    (void)cli_tls_files(&files);
    if (files.ca == NULL)
        return cli_usage("cluster", "manifest needs --ca, the CA's certificate, or $SLUICE_CA");
    pem = malloc(SIGNED_BYTES_MAX + 1);
    if (pem == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    rc = read_all(o->arg[0], pem, &bytes);
    if (rc == CLI_OK) {
        int n = signed_open(&text, &signer, &time_s, pem, bytes, files.ca, error);

        if (n < 0) {
            rc = cli_error(n == -ENOENT ? CLI_USAGE : CLI_NEGATIVE, "%s is refused: %s", o->arg[0],
                           error);
        } else {
            rc = show(o, text, &signer, time_s);
            free(text);
        }
    }
    free(pem);
    return rc;
}
