/*
 * send_tcp.c - `sluice send` over TCP: batches to libsluice, receipts into totals and a file.
 *
 * Thread:  batches come from the caller's, receipts on the client's; totals are under a mutex.
 * Memory:  one small allocation for each batch in flight.
 */
#include "cli/send.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "cli/text.h"
#include "client/sluice.h"
#include "proto/wire.pb.h"

#define SEND_WAIT_MS      100 /* how often a blocked sender looks whether to give up */
#define TOKEN_BYTES_MAX   512
#define FINISH_PATIENCE_S 10

/* What a receipt is matched with. */
struct pending {
    uint64_t due_ns;
    size_t n;
    struct {
        uint8_t bytes;
        uint8_t data[SEND_ID_BYTES_MAX];
    } id[]; /* with a receipts file only */
};

struct send_tcp {
    const struct send_options *options;
    struct sluice_client *client;
    FILE *receipts;
    pthread_mutex_t mutex;
    bool connected, ever_connected;
    uint64_t lost_ns;   /* since when it is not connected */
    char sentence[512]; /* the client's last one */
    struct send_totals totals;
};

/* --- on the client's thread ----------------------------------------------------------------- */

static void id_print(FILE *out, const uint8_t *id, size_t bytes)
{
    bool readable = bytes > 0;

    for (size_t i = 0; i < bytes; i++)
        readable = readable && id[i] > 0x20 && id[i] < 0x7f;
    if (readable) {
        fwrite(id, 1, bytes, out);
        return;
    }
    fputs("hex:", out);
    text_hex_print(out, id, bytes);
}

/* `id index slot reason`, a line an event; flushed, so that it outlives a kill of this process. */
static void receipts_write(struct send_tcp *t, const struct pending *p,
                           const struct sluice_receipt *r)
{
    for (size_t i = 0; i < p->n; i++) {
        const struct sluice_outcome none = { 0 };
        const struct sluice_outcome *o = r->status == 0 ? &r->outcome[i] : &none;

        if (o->id)
            id_print(t->receipts, o->id, o->id_bytes);
        else
            id_print(t->receipts, p->id[i].data, p->id[i].bytes);
        fprintf(t->receipts, " %llu %u %s\n", (unsigned long long)o->index, o->slot,
                r->status == 0 ? sluice_reason_name(o->reason) : "NO_RECEIPT");
    }
    fflush(t->receipts);
}

static void on_receipt(void *arg, const struct sluice_receipt *r)
{
    struct send_tcp *t = arg;
    struct pending *p = r->user;
    uint64_t now_ns = clock_monotonic_ns();

    pthread_mutex_lock(&t->mutex);
    if (r->status == 0) {
        t->totals.answered += r->outcomes;
        /* From when it was due: a server that pushes back is not measured by what it did not take.
         */
        histogram_add(&t->totals.latency_ns, now_ns - p->due_ns, 1);
    } else {
        t->totals.unanswered += p->n;
    }
    for (size_t i = 0; i < r->outcomes; i++) {
        uint32_t reason = r->outcome[i].reason;

        if (r->durability == SLUICE_DEGRADED &&
            (reason == 0 || reason == sluice_v1_Reason_DUPLICATE))
            t->totals.degraded++;
        t->totals.by_reason[reason < SEND_REASONS ? reason : SEND_REASONS - 1]++;
        if (reason == 0)
            t->totals.accepted++;
        else if (reason == sluice_v1_Reason_DUPLICATE)
            t->totals.duplicates++;
        else
            t->totals.refused++;
    }
    pthread_mutex_unlock(&t->mutex);
    if (t->receipts)
        receipts_write(t, p, r);
    free(p);
}

static void on_state(void *arg, int connected, const char *sentence)
{
    struct send_tcp *t = arg;

    pthread_mutex_lock(&t->mutex);
    if (t->connected && !connected)
        t->lost_ns = clock_monotonic_ns();
    /* The first word on a loss, and on the way back; not on each attempt between. */
    if (t->ever_connected && t->connected != (connected != 0) && !t->options->quiet)
        fprintf(stderr, "sluice send: %s\n", sentence);
    t->connected = connected;
    t->ever_connected |= connected != 0;
    snprintf(t->sentence, sizeof(t->sentence), "%s", sentence);
    pthread_mutex_unlock(&t->mutex);
}

/* --- on the caller's ------------------------------------------------------------------------ */

static int unreachable(struct send_tcp *t, const char *what)
{
    pthread_mutex_lock(&t->mutex);
    fprintf(stderr, "sluice send: %s%s%s\n", what, t->sentence[0] ? ": " : "", t->sentence);
    pthread_mutex_unlock(&t->mutex);
    return SEND_UNREACHABLE;
}

/* True when there has been no connection for too long. */
static bool is_lost(struct send_tcp *t, bool *ret_connected)
{
    double patience_s = t->options->give_up_s;

    pthread_mutex_lock(&t->mutex);
    if (!t->ever_connected)
        patience_s = t->options->connect_timeout_s;
    bool lost = !t->connected && patience_s > 0 &&
                (double)(clock_monotonic_ns() - t->lost_ns) > patience_s * NS_PER_S;

    if (ret_connected)
        *ret_connected = t->connected;
    pthread_mutex_unlock(&t->mutex);
    return lost;
}

static int wait_connected(struct send_tcp *t)
{
    bool connected = false;

    while (!is_lost(t, &connected) && !connected && !send_is_interrupted()) {
        struct timespec pause = { .tv_nsec = 1000000 };

        nanosleep(&pause, NULL);
    }
    return connected ? 0 : unreachable(t, "cannot connect");
}

static int token_read(const char *name, uint8_t *token, size_t *ret_bytes)
{
    FILE *f = fopen(name, "re");

    if (!f)
        return -errno;
    *ret_bytes = fread(token, 1, TOKEN_BYTES_MAX + 1, f);
    int rc = ferror(f) ? -EIO : *ret_bytes > TOKEN_BYTES_MAX ? -EMSGSIZE : 0;

    fclose(f);
    if (rc == 0 && *ret_bytes && token[*ret_bytes - 1] == '\n')
        --*ret_bytes;
    return rc;
}

static int client_open(struct send_tcp *t)
{
    const struct send_options *o = t->options;
    struct sluice_options options;
    uint8_t token[TOKEN_BYTES_MAX + 1];

    sluice_options_init(&options);
    if (o->token_file) {
        int rc = token_read(o->token_file, token, &options.token_bytes);

        if (rc < 0) {
            fprintf(stderr, "sluice send: %s: %s\n", o->token_file, strerror(-rc));
            return SEND_USAGE;
        }
        options.token = token;
    }
    options.addresses = o->address;
    options.ca = o->tls.ca;
    options.cert = o->tls.cert;
    options.key = o->tls.key;
    options.retry_ms_max = (uint32_t)(o->retry_s * 1000);
    options.producer = o->producer;
    options.durability = o->durability;
    options.requests_in_flight_max = o->requests_in_flight;
    options.allow_missing_ids = o->allow_missing_ids;
    options.on_receipt = on_receipt;
    options.on_state = on_state;
    options.arg = t;
    t->lost_ns = clock_monotonic_ns();
    int rc = sluice_open(&t->client, &options);

    if (rc == 0)
        return 0;
    if (t->sentence[0]) { /* of the files for TLS */
        fprintf(stderr, "sluice send: %s\n", t->sentence);
        return SEND_USAGE;
    }
    fprintf(stderr, "sluice send: --address %s: %s\n", o->address,
            rc == -EINVAL ? "is not HOST:PORT[,HOST:PORT...]" : strerror(-rc));
    return SEND_USAGE;
}

int send_tcp_open(struct send_tcp **ret, const struct send_options *o)
{
    struct send_tcp *t = calloc(1, sizeof(*t));
    int rc;

    *ret = t;
    if (!t) {
        fprintf(stderr, "sluice send: no memory\n");
        return SEND_USAGE;
    }
    t->options = o;
    pthread_mutex_init(&t->mutex, NULL);
    if (o->receipts_file) {
        t->receipts = strcmp(o->receipts_file, "-") == 0 ? stdout : fopen(o->receipts_file, "ae");
        if (!t->receipts) {
            fprintf(stderr, "sluice send: %s: %s\n", o->receipts_file, strerror(errno));
            return SEND_USAGE;
        }
    }
    rc = client_open(t);
    return rc ? rc : wait_connected(t);
}

static struct pending *pending_make(const struct send_tcp *t, const struct send_batch *batch,
                                    size_t from, size_t n)
{
    size_t ids = t->receipts ? n : 0;
    struct pending *p = malloc(sizeof(*p) + ids * sizeof(p->id[0]));

    if (!p)
        return NULL;
    p->due_ns = batch->due_ns;
    p->n = n;
    for (size_t i = 0; i < ids; i++) {
        p->id[i].bytes = batch->id_bytes[from + i];
        memcpy(p->id[i].data, batch->id[from + i], batch->id_bytes[from + i]);
    }
    return p;
}

/* Events from .. from + n of the batch; in halves when this server takes no more at once. */
static int part_send(struct send_tcp *t, const struct send_batch *batch, size_t from, size_t n)
{
    struct pending *p = pending_make(t, batch, from, n);
    int rc = p ? -EAGAIN : -ENOMEM;

    while (rc == -EAGAIN && !is_lost(t, NULL) && !send_is_interrupted())
        rc = sluice_send(t->client, batch->event + from, batch->event_bytes + from, n, p,
                         SEND_WAIT_MS, NULL);
    if (rc < 0)
        free(p);
    if (rc == -EMSGSIZE && n > 1) {
        rc = part_send(t, batch, from, n / 2);
        return rc < 0 ? rc : part_send(t, batch, from + n / 2, n - n / 2);
    }
    pthread_mutex_lock(&t->mutex);
    if (rc == 0) {
        t->totals.batches++;
        t->totals.events += n;
        for (size_t i = from; i < from + n; i++)
            t->totals.bytes += batch->event_bytes[i];
    } else {
        t->totals.unsent += n;
    }
    pthread_mutex_unlock(&t->mutex);
    return rc;
}

int send_tcp_batch(struct send_tcp *t, const struct send_batch *batch)
{
    int rc = part_send(t, batch, 0, batch->n);

    if (rc == 0 || (rc == -EAGAIN && send_is_interrupted()))
        return 0;
    if (rc == -EAGAIN)
        return unreachable(t, "the connection is lost");
    if (rc == -EACCES || rc == -EPROTO)
        return unreachable(t, "refused for good");
    fprintf(stderr, "sluice send: a batch of %zu events, %zu bytes: %s\n", batch->n, batch->bytes,
            strerror(-rc));
    return SEND_SOME_REFUSED;
}

int send_tcp_finish(struct send_tcp *t)
{
    uint64_t until_ns = clock_monotonic_ns() + FINISH_PATIENCE_S * NS_PER_S;
    int rc = 0;

    /* It waits for all receipts as long as there is a connection; when interrupted, not so long. */
    while (sluice_flush(t->client, SEND_WAIT_MS) == -ETIMEDOUT) {
        if (is_lost(t, NULL)) {
            rc = unreachable(t, "the connection is lost");
            break;
        }
        if (send_is_interrupted() && clock_monotonic_ns() > until_ns)
            break;
    }
    sluice_close(t->client);
    t->client = NULL;
    return rc;
}

void send_tcp_totals(struct send_tcp *t, struct send_totals *ret)
{
    pthread_mutex_lock(&t->mutex);
    *ret = t->totals;
    pthread_mutex_unlock(&t->mutex);
}

void send_tcp_close(struct send_tcp *t)
{
    if (!t)
        return;
    sluice_close(t->client);
    t->client = NULL;
    if (t->receipts && t->receipts != stdout)
        fclose(t->receipts);
    t->receipts = NULL;
    pthread_mutex_destroy(&t->mutex);
    free(t);
}
