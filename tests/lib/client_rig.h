/*
 * client_rig.h - a scripted server on loopback, and what libsluice reports, for tests of the
 * client.
 *
 * The test's own thread is the server: it accepts, reads frames and answers step by step, so
 * nothing depends on timing. What the client reports is collected under a mutex.
 */
#ifndef SLUICE_TEST_CLIENT_RIG_H
#define SLUICE_TEST_CLIENT_RIG_H

#include <arpa/inet.h>
#include <errno.h>
#include <pb_encode.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/frame.h"
#include "client/internal.h"
#include "proto/event.pb.h"

#define RESULTS_MAX 4096
#define PATIENCE_S  20
#define FRAME_MAX   (1u << 20)
#define EVENT_MAX   256

struct result {
    unsigned reports;
    int status;
    uint32_t attempts;
    int durability;
    size_t outcomes;
    struct sluice_outcome outcome[4];
    uint8_t id[16];
};

struct reports {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    unsigned n;
    struct result result[RESULTS_MAX]; /* by user */
    struct sluice_client *send_from_callback;
    int sent_from_callback;
};

struct server {
    int listen_fd, fd;
    struct tls_context *context; /* NULL: plaintext; set it before a client comes */
    struct tls *tls;
    int handshake; /* what the last one came to */
    char address[32];
    size_t in_bytes, taken; /* taken: of the frame read last */
    uint8_t *in;
};

extern struct reports reports;
extern struct server server;

size_t event_make(uint8_t *ret, const char *id);
int batch_send(struct sluice_client *c, unsigned batch, size_t n, int timeout_ms,
               uint64_t *ret_request);
void on_receipt(void *arg, const struct sluice_receipt *receipt);
void reports_wait(unsigned n);
void server_listen(struct server *s);
void server_drop(struct server *s);
void server_end(struct server *s);
void server_accept(struct server *s);
bool server_read(struct server *s, struct frame *f);
uint64_t server_read_batch(struct server *s, struct frame *f);
void server_write(struct server *s, const void *data, ssize_t bytes);
void server_hello(struct server *s);
void server_welcome_limits(struct server *s, uint32_t frame_bytes_max, uint32_t events_max);
void server_welcome(struct server *s);
void server_receipt(struct server *s, uint64_t request, uint32_t accepted);
void server_error(struct server *s, sluice_v1_ErrorCode code);
int client_rig_setup(void **state);
int client_rig_teardown(void **state);
struct sluice_options options_make(void);
struct sluice_client *client_open(const struct sluice_options *o);
struct sluice_client *client_open_default(void);
void settle_on_a_new_connection(struct sluice_client *c, uint64_t request);
uint64_t batch_of_two(struct sluice_client *c);

#endif
