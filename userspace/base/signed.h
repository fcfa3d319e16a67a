/*
 * signed.h - a text that a node has signed, to be kept and shown where nobody knows the node.
 *
 * PEM of a CMS SignedData (RFC 5652) that has the text, the node's certificate and the time of
 * signing in it, so that the CA's certificate alone is enough to check it, and others can:
 *
 *   openssl cms -verify -inform PEM -in FILE -CAfile ca.pem -purpose any
 *
 * The certificate must have been good when it was signed, by the time in it; it may have expired
 * since.
 *
 * Thread: any. Memory: *ret is malloc()ed and terminated. Limits: SIGNED_BYTES_MAX. Errors: -EACCES
 * for one that our CA does not vouch for, -EBADMSG for what is none, -EFBIG, -ENOMEM, or the
 * system's; error is one sentence without a full stop.
 */
#ifndef SLUICE_BASE_SIGNED_H
#define SLUICE_BASE_SIGNED_H

#include "base/tls.h"

#define SIGNED_TEXT_BYTES_MAX 8192u
#define SIGNED_BYTES_MAX      16384u /* in PEM */

/* With the key and the certificate of the context. Returns the bytes of *ret. */
int signed_make(char **ret, const struct tls_context *x, const char *text, size_t bytes);

/* Checks it by a CA's certificate, in PEM. Returns the bytes of *ret, the text. */
int signed_open(char **ret, struct certificate *ret_signer, int64_t *ret_time_s, const char *pem,
                size_t bytes, const char *ca_path, char error[TLS_ERROR_BYTES]);

#endif
