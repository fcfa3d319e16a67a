/*
 * tls_internal.h - what tls.c (connections) and tls_context.c (files) share.
 */
#ifndef SLUICE_BASE_TLS_INTERNAL_H
#define SLUICE_BASE_TLS_INTERNAL_H

#include <openssl/ssl.h>

#include "base/tls.h"

struct tls_context {
    SSL_CTX *ctx; /* has a count of its users, so a connection can outlive us */
    struct certificate who;
};

/* The end of a sentence that begins with whose certificate it is. code: X509_V_ERR_*. */
const char *tls_verify_text(int code);

#endif
