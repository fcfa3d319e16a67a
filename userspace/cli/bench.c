/*
 * bench.c - `sluice bench`: a load of new trades on a running daemon, and how long receipts take.
 *
 * Latency runs from when a batch was due, not from when it could be sent: a daemon that pushes back
 * is not measured by the batches that it did not take.
 *
 * Thread:  this one sends; each connection's receipts come on its client's thread, which alone
 *          writes its histogram until the client is closed.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pb_encode.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/histogram.h"
#include "cli/columns.h"
#include "client/sluice.h"
#include "proto/event.pb.h"

static const char help[] =
    "sluice bench [options]\n\n"
    "Sends new trades over TCP at a steady rate and measures how long each batch takes, from when\n"
    "it was due to its receipt (committed and on disk). The events are real: they stay in the "
    "log,\n"
    "under the source `bench`. Exit code 1 when any event was refused or got no receipt.\n\n"
    "Options:\n"
    "  --to ADDRESS     host:port of the daemon (default 127.0.0.1:7400)\n" CLI_TLS_HELP
    "  --rate N         events per second; 0: as fast as receipts allow (default 10000)\n"
    "  --seconds N      how long (default 5)\n"
    "  --batch N        events per batch, 1 to 500 (default 10)\n"
    "  --connections N  1 to 16 (default 1)\n"
    "  --json           machine-readable output\n"
    "  --help           this text\n"
    "\nExamples:\n"
    "  sluice bench\n"
    "  sluice bench --rate 200000 --batch 200 --connections 4 --seconds 10 --json\n"
    "\nExit codes: 0 ok, 1 events refused or without receipt, 2 usage, 3 cannot reach the "
    "daemon.\n";

#define BENCH_BATCH_MAX       500u
#define BENCH_CONNECTIONS_MAX 16u
#define BENCH_EVENT_BYTES     160u
#define CONNECT_MS_MAX        3000u
#define FLUSH_MS_MAX          15000

struct bench_connection {
    struct sluice_client *client;
    _Atomic bool connected;
    uint64_t batches, accepted, duplicate, refused, unanswered;
    struct histogram latency_ns; /* of batches */
    char sentence[200];          /* why it is not connected */
};

struct bench {
    const char *address;
    struct tls_files tls;
    uint64_t rate, seconds, batch, connections;
    bool json;
    struct bench_connection *connection[BENCH_CONNECTIONS_MAX];
    uint64_t run, sequence, sent_events, sent_ns, done_ns;
    uint8_t event[BENCH_BATCH_MAX][BENCH_EVENT_BYTES];
    const void *at[BENCH_BATCH_MAX];
    size_t bytes[BENCH_BATCH_MAX];
};

/* On the client's thread. user: when the batch was due, monotonic ns. */
static void on_receipt(void *arg, const struct sluice_receipt *receipt)
{
    struct bench_connection *c = arg;
    uint64_t ns = clock_monotonic_ns() - (uint64_t)(uintptr_t)receipt->user;
    size_t i;

    c->batches++;
    if (receipt->status != 0) {
        c->unanswered++;
        return;
    }
    histogram_add(&c->latency_ns, ns, 1);
    for (i = 0; i < receipt->outcomes; i++) {
        uint32_t reason = receipt->outcome[i].reason;

        c->accepted += reason == 0;
        c->duplicate += reason == 100;
        c->refused += reason != 0 && reason != 100;
    }
}

static void on_state(void *arg, int connected, const char *sentence)
{
    struct bench_connection *c = arg;

    if (connected)
        atomic_store(&c->connected, true);
    else if (!atomic_load(&c->connected))
        snprintf(c->sentence, sizeof c->sentence, "%s", sentence);
}

/* The next trade of this run: its id is the run's random number and a counter. */
static void bench_event(struct bench *b, unsigned slot)
{
    static const char *const symbols[] = { "AAPL", "MSFT", "NVDA", "AMZN", "GOOG", "META" };
    sluice_v1_Event e = sluice_v1_Event_init_zero;
    pb_ostream_t out = pb_ostream_from_buffer(b->event[slot], BENCH_EVENT_BYTES);
    uint64_t n = b->sequence++;
    bool ok;

    e.type = sluice_v1_EventType_TRADE;
    snprintf(e.source, sizeof e.source, "bench");
    memcpy(e.id.bytes, &b->run, 8);
    memcpy(e.id.bytes + 8, &n, 8);
    e.id.size = 16;
    e.timestamp_ns = clock_unix_ns();
    snprintf(e.symbol, sizeof e.symbol, "%s", symbols[n % (sizeof symbols / sizeof *symbols)]);
    e.which_detail = sluice_v1_Event_trade_tag;
    e.detail.trade.price = 1875000 + (int64_t)(n % 1000);
    e.detail.trade.price_scale = 4;
    e.detail.trade.size = 100 + n % 900;
    snprintf(e.detail.trade.venue, sizeof e.detail.trade.venue, "XNAS");
    snprintf(e.detail.trade.currency, sizeof e.detail.trade.currency, "USD");
    e.detail.trade.sequence = n + 1;
    ok = pb_encode(&out, sluice_v1_Event_fields, &e);
    assert(ok);
    b->at[slot] = b->event[slot];
    b->bytes[slot] = out.bytes_written;
}

static void sleep_until(uint64_t monotonic_ns)
{
    struct timespec t = { .tv_sec = (time_t)(monotonic_ns / NS_PER_S),
                          .tv_nsec = (long)(monotonic_ns % NS_PER_S) };

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
    }
}

static int bench_connect(struct bench *b)
{
    uint64_t i, give_up = clock_monotonic_ns() + CONNECT_MS_MAX * NS_PER_MS;

    for (i = 0; i < b->connections; i++) {
        struct bench_connection *c = b->connection[i] = calloc(1, sizeof *c);
        struct sluice_options options;
        int rc;

        if (c == NULL)
            return cli_error(CLI_REFUSED, "no memory");
        sluice_options_init(&options);
        options.addresses = b->address;
        options.producer = "sluice bench";
        options.ca = b->tls.ca;
        options.cert = b->tls.cert;
        options.key = b->tls.key;
        options.on_receipt = on_receipt;
        options.on_state = on_state;
        options.arg = c;
        rc = sluice_open(&c->client, &options);
        if (rc < 0)
            return cli_usage("bench", "%s: %s", c->sentence[0] ? c->sentence : b->address,
                             strerror(-rc));
    }
    for (i = 0; i < b->connections; i++) {
        struct bench_connection *c = b->connection[i];

        while (!atomic_load(&c->connected) && clock_monotonic_ns() < give_up)
            sleep_until(clock_monotonic_ns() + NS_PER_MS);
        if (atomic_load(&c->connected))
            continue;
        sluice_close(c->client); /* from here on the sentence is ours */
        c->client = NULL;
        return cli_error(CLI_UNREACHABLE, "no daemon answers at %s%s%s", b->address,
                         c->sentence[0] ? ": " : "", c->sentence);
    }
    return CLI_OK;
}

static int bench_send(struct bench *b)
{
    uint64_t start = clock_monotonic_ns(), end = start + b->seconds * NS_PER_S, due, batches;
    unsigned i;
    int rc = 0;

    for (batches = 0; rc == 0; batches++) {
        struct bench_connection *c = b->connection[batches % b->connections];

        due = clock_monotonic_ns();
        if (b->rate > 0) {
            /* Whole seconds first: the product would overflow in long runs. */
            uint64_t events = batches * b->batch;

            due = start + events / b->rate * NS_PER_S + events % b->rate * NS_PER_S / b->rate;
            sleep_until(due);
        }
        if (due >= end || clock_monotonic_ns() >= end)
            break;
        for (i = 0; i < b->batch; i++)
            bench_event(b, i);
        rc = sluice_send(c->client, b->at, b->bytes, b->batch, (void *)(uintptr_t)due, FLUSH_MS_MAX,
                         NULL);
        if (rc == 0)
            b->sent_events += b->batch;
    }
    b->sent_ns = clock_monotonic_ns() - start;
    for (i = 0; i < b->connections; i++)
        sluice_flush(b->connection[i]->client, FLUSH_MS_MAX);
    b->done_ns = clock_monotonic_ns() - start;
    for (i = 0; i < b->connections; i++) {
        sluice_close(b->connection[i]->client);
        b->connection[i]->client = NULL;
    }
    return rc == 0 ? CLI_OK
                   : cli_error(CLI_UNREACHABLE, "a batch was not taken: %s", strerror(-rc));
}

static void bench_sum(const struct bench *b, struct bench_connection *ret)
{
    uint64_t i;
    unsigned k;

    for (i = 0; i < b->connections; i++) {
        const struct bench_connection *c = b->connection[i];

        ret->batches += c->batches;
        ret->accepted += c->accepted;
        ret->duplicate += c->duplicate;
        ret->refused += c->refused;
        ret->unanswered += c->unanswered;
        ret->latency_ns.n += c->latency_ns.n;
        if (c->latency_ns.max > ret->latency_ns.max)
            ret->latency_ns.max = c->latency_ns.max;
        for (k = 0; k < HISTOGRAM_BUCKETS; k++)
            ret->latency_ns.bucket[k] += c->latency_ns.bucket[k];
    }
}

static void row(struct columns *t, const char *name, uint64_t n, const char *unit)
{
    columns_text(t, "%s", name);
    columns_number(t, n);
    columns_text(t, "%s", unit);
}

static void print_text(const struct bench *b, const struct bench_connection *sum)
{
    static const struct {
        const char *name;
        unsigned per_mille;
    } rows[] = { { "receipt p50", 500 },
                 { "receipt p90", 900 },
                 { "receipt p99", 990 },
                 { "receipt p99.9", 999 } };
    struct columns *t = calloc(1, sizeof *t);
    size_t i;

    if (t == NULL)
        return;
    columns_init(t, "lrl", isatty(STDOUT_FILENO));
    row(t, "events sent", b->sent_events, "");
    row(t, "accepted", sum->accepted, "");
    row(t, "duplicate", sum->duplicate, "");
    row(t, "refused", sum->refused, "");
    row(t, "batches", sum->batches, "");
    row(t, "without receipt", sum->unanswered, "batches");
    row(t, "rate", (uint64_t)((double)sum->accepted * 1e9 / (double)b->done_ns),
        "events/s accepted");
    for (i = 0; i < sizeof rows / sizeof *rows; i++)
        row(t, rows[i].name, histogram_percentile(&sum->latency_ns, rows[i].per_mille) / NS_PER_US,
            "us");
    row(t, "receipt max", sum->latency_ns.max / NS_PER_US, "us");
    columns_print(t, stdout, 0);
    free(t);
}

static int bench_print(const struct bench *b)
{
    struct bench_connection *sum = calloc(1, sizeof *sum);
    int rc = CLI_OK;

    if (sum == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    bench_sum(b, sum);
    if (sum->refused > 0 || sum->unanswered > 0 || sum->accepted + sum->duplicate != b->sent_events)
        rc = CLI_NEGATIVE;
    if (b->json)
        rc = cli_print_json(
            json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:{s:f, s:f, s:f, s:f, s:f}}",
                      "eventsSent", (json_int_t)b->sent_events, "accepted",
                      (json_int_t)sum->accepted, "duplicate", (json_int_t)sum->duplicate, "refused",
                      (json_int_t)sum->refused, "batches", (json_int_t)sum->batches,
                      "batchesWithoutReceipt", (json_int_t)sum->unanswered, "seconds",
                      (double)b->done_ns / 1e9, "acceptedPerSecond",
                      (double)sum->accepted * 1e9 / (double)b->done_ns, "receiptLatencyUs", "p50",
                      (double)histogram_percentile(&sum->latency_ns, 500) / 1e3, "p90",
                      (double)histogram_percentile(&sum->latency_ns, 900) / 1e3, "p99",
                      (double)histogram_percentile(&sum->latency_ns, 990) / 1e3, "p99.9",
                      (double)histogram_percentile(&sum->latency_ns, 999) / 1e3, "max",
                      (double)sum->latency_ns.max / 1e3),
            rc);
    else
        print_text(b, sum);
    free(sum);
    return cli_finish(rc);
}

/* Takes one option. Returns -1 to go on, or an exit code. */
static int bench_option(struct bench *b, int opt)
{
    static const struct {
        int opt;
        const char *name;
        uint64_t min, max;
        size_t offset;
    } numbers[] = {
        { 'r', "rate", 0, 100000000, offsetof(struct bench, rate) },
        { 's', "seconds", 1, 86400, offsetof(struct bench, seconds) },
        { 'b', "batch", 1, BENCH_BATCH_MAX, offsetof(struct bench, batch) },
        { 'c', "connections", 1, BENCH_CONNECTIONS_MAX, offsetof(struct bench, connections) },
    };
    struct cli_options common = { 0 };
    int rc;
    size_t i;

    for (i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        uint64_t *to = (uint64_t *)((char *)b + numbers[i].offset);

        if (opt != numbers[i].opt)
            continue;
        if (!cli_number(optarg, numbers[i].max, to) || *to < numbers[i].min)
            return cli_usage("bench", "--%s takes a number from %" PRIu64 " to %" PRIu64,
                             numbers[i].name, numbers[i].min, numbers[i].max);
        return -1;
    }
    if (opt == 't') {
        b->address = optarg;
        return -1;
    }
    if (cli_tls_option(&b->tls, opt))
        return -1;
    rc = cli_option(&common, opt, help);
    b->json |= common.json;
    return rc;
}

int bench_main(int argc, char **argv)
{
    static const struct option options[] = { { "to", required_argument, NULL, 't' },
                                             { "rate", required_argument, NULL, 'r' },
                                             { "seconds", required_argument, NULL, 's' },
                                             { "batch", required_argument, NULL, 'b' },
                                             { "connections", required_argument, NULL, 'c' },
                                             CLI_TLS_LONG_OPTIONS,
                                             { "json", no_argument, NULL, CLI_OPT_JSON },
                                             { "help", no_argument, NULL, CLI_OPT_HELP },
                                             { NULL, 0, NULL, 0 } };
    struct bench *b = calloc(1, sizeof *b);
    int opt, rc = -1;
    uint64_t i;

    if (b == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    b->address = "127.0.0.1:7400";
    b->rate = 10000;
    b->seconds = 5;
    b->batch = 10;
    b->connections = 1;
    while (rc < 0 && (opt = getopt_long(argc, argv, "", options, NULL)) != -1)
        rc = bench_option(b, opt);
    if (rc < 0 && optind < argc)
        rc = cli_usage("bench", "what is '%s' for?", argv[optind]);
    if (rc < 0 && cli_tls_files(&b->tls) % 3 != 0)
        rc = cli_usage("bench", "TLS needs all of --ca, --cert and --key");
    if (rc < 0 && getrandom(&b->run, sizeof b->run, 0) != (ssize_t)sizeof b->run)
        rc = cli_error(CLI_REFUSED, "no random numbers");
    if (rc < 0) {
        rc = bench_connect(b);
        if (rc == CLI_OK)
            rc = bench_send(b);
        if (rc == CLI_OK)
            rc = bench_print(b);
    }
    for (i = 0; i < BENCH_CONNECTIONS_MAX && b->connection[i] != NULL; i++) {
        sluice_close(b->connection[i]->client);
        free(b->connection[i]);
    }
    free(b);
    return rc;
}
