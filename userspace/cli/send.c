/*
 * send.c - `sluice send`: options, the loop that paces, the summary.
 *
 * Thread:  the main one; over TCP the client has its own.
 * Memory:  one batch.
 * Errors:  exit codes as in --help.
 */
#include "cli/send.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/text.h"
#include "client/sluice.h"
#include "proto/wire.pb.h"

static const char help[] =
    "sluice send (--json FILE | --csv FILE | --generate N) [options]\n\n"
    "Sends events and says what became of them. FILE may be - for standard input.\n\n"
    "Where events come from:\n"
    "  --json FILE          JSON lines in protobuf's mapping, as `sluice tail --json` prints "
    "them;\n"
    "                       prices may be decimals (\"price\": 187.50); bytes are base64, hex:... "
    "or\n"
    "                       text:...\n"
    "  --csv FILE           the first line names the columns, as proto/event.proto names the\n"
    "                       fields: type,source,id,timestamp,symbol,price,size,venue,...; and\n"
    "                       attributes.KEY\n"
    "  --generate N         N made-up events; 0: until interrupted\n"
    "  --count N            at most N events (0: all)\n"
    "  --source NAME        of generated events, and of events that have none\n"
    "  --now                the present for events that have no timestamp\n"
    "  --text-ids           with --json: bytes are text unless they begin with base64: or hex:\n"
    "  --allow-missing-ids  send events without an id: Sluice assigns one, and cannot recognise\n"
    "                       the event when it comes again\n"
    "  --skip-bad           go on behind lines that are no events\n\n"
    "Of the generator (the same options make the same events):\n"
    "  --types MIX          shares, as trade:30,quote:60,book:10,custom:5\n"
    "  --custom-type N      64 to 127, for custom events (default 64)\n"
    "  --size BYTES         every event exactly so long\n"
    "  --symbols N          how many (default 100)\n"
    "  --seed N             of all chance (default 1)\n"
    "  --run N              part of every id (default: random, so that no run repeats another)\n"
    "  --start-id N         number of the first event (default 0)\n"
    "  --time-from TIME     event n happens n microseconds after TIME (RFC 3339 or nanoseconds), "
    "so\n"
    "                       that the same run is the same bytes again; default: now\n"
    "  --no-ids             events without ids\n\n"
    "How:\n"
    "  --tcp, --udp         (default TCP)\n"
    "  --address HOST:PORT  default 127.0.0.1:7400; with TCP several, by commas\n"
    "  --rate N             events per second, paced whether or not answers come; default: as "
    "fast\n"
    "                       as it goes\n"
    "  --batch N            events per batch or datagram, 1 to 1000 (default 100, UDP 1)\n"
    "  --in-flight N        batches without receipt over TCP (default 64)\n"
    "  --producer NAME      what the server is told of us\n"
    "  --token-file FILE    what the server wants to see\n"
    "  --ca FILE --cert FILE --key FILE  over TCP: TLS, with the CA's certificate, one of your "
    "own\n"
    "                       and its key (default: $SLUICE_CA, $SLUICE_CERT, $SLUICE_KEY; without\n"
    "                       them no TLS)\n"
    "  --connect-timeout S  default 5\n"
    "  --give-up S          over TCP: when there is no connection for so long (default 30, 0: "
    "never)\n"
    "  --retry S            over TCP: events that the server cannot take now are sent again for "
    "so\n"
    "                       long (default 30, 0: they count as refused)\n"
    "  --durability D       over TCP: quorum or region: where events are to be durable before "
    "they\n"
    "                       count as accepted; of that and the types' floors, the higher counts\n"
    "  --receipts           over UDP: ask for receipts and count them\n"
    "  --wait S             over UDP: for receipts at the end (default 2)\n"
    "  --datagram-bytes N   largest datagram of more than one event (default 1432)\n\n"
    "What it says:\n"
    "  --receipts-file FILE over TCP: append `id index slot reason` for every event (- is stdout)\n"
    "  --json-summary       the summary as JSON\n"
    "  --quiet              no progress, no words on lost connections\n"
    "  --help               this text\n"
    "\nExamples:\n"
    "  sluice send --json trades.jsonl\n"
    "  zcat day.csv.gz | sluice send --csv - --source replay --rate 5000\n"
    "  sluice send --generate 1000000 --rate 50000 --batch 50\n"
    "  sluice send --generate 0 --udp --rate 100000 --types trade:1 --size 128\n"
    "  sluice send --generate 500 --run 7 --time-from 2026-01-05T14:30:00Z --receipts-file r.txt\n"
    "\nExit codes: 0 all accepted (over UDP: sent), 1 some refused or without receipt, 2 usage,\n"
    "3 cannot connect or connection lost, 4 a line of the input is no event.\n";

enum option_code {
    OPT_JSON = 256,
    OPT_CSV,
    OPT_GENERATE,
    OPT_COUNT,
    OPT_SOURCE,
    OPT_NOW,
    OPT_TEXT_IDS,
    OPT_ALLOW_MISSING_IDS,
    OPT_SKIP_BAD,
    OPT_TYPES,
    OPT_CUSTOM_TYPE,
    OPT_SIZE,
    OPT_SYMBOLS,
    OPT_SEED,
    OPT_RUN,
    OPT_START_ID,
    OPT_TIME_FROM,
    OPT_NO_IDS,
    OPT_TCP,
    OPT_UDP,
    OPT_ADDRESS,
    OPT_RATE,
    OPT_BATCH,
    OPT_IN_FLIGHT,
    OPT_PRODUCER,
    OPT_TOKEN_FILE,
    OPT_CONNECT_TIMEOUT,
    OPT_GIVE_UP,
    OPT_RETRY,
    OPT_DURABILITY,
    OPT_RECEIPTS,
    OPT_WAIT,
    OPT_DATAGRAM_BYTES,
    OPT_RECEIPTS_FILE,
    OPT_JSON_SUMMARY,
    OPT_QUIET,
    OPT_HELP,
};

// clang-format off
static const struct option long_options[] = {
    { "json", required_argument, NULL, OPT_JSON },
    { "csv", required_argument, NULL, OPT_CSV },
    { "generate", required_argument, NULL, OPT_GENERATE },
    { "count", required_argument, NULL, OPT_COUNT },
    { "source", required_argument, NULL, OPT_SOURCE },
    { "now", no_argument, NULL, OPT_NOW },
    { "text-ids", no_argument, NULL, OPT_TEXT_IDS },
    { "allow-missing-ids", no_argument, NULL, OPT_ALLOW_MISSING_IDS },
    { "skip-bad", no_argument, NULL, OPT_SKIP_BAD },
    { "types", required_argument, NULL, OPT_TYPES },
    { "custom-type", required_argument, NULL, OPT_CUSTOM_TYPE },
    { "size", required_argument, NULL, OPT_SIZE },
    { "symbols", required_argument, NULL, OPT_SYMBOLS },
    { "seed", required_argument, NULL, OPT_SEED },
    { "run", required_argument, NULL, OPT_RUN },
    { "start-id", required_argument, NULL, OPT_START_ID },
    { "time-from", required_argument, NULL, OPT_TIME_FROM },
    { "no-ids", no_argument, NULL, OPT_NO_IDS },
    { "tcp", no_argument, NULL, OPT_TCP },
    { "udp", no_argument, NULL, OPT_UDP },
    { "address", required_argument, NULL, OPT_ADDRESS },
    { "rate", required_argument, NULL, OPT_RATE },
    { "batch", required_argument, NULL, OPT_BATCH },
    { "in-flight", required_argument, NULL, OPT_IN_FLIGHT },
    { "producer", required_argument, NULL, OPT_PRODUCER },
    { "token-file", required_argument, NULL, OPT_TOKEN_FILE },
    { "connect-timeout", required_argument, NULL, OPT_CONNECT_TIMEOUT },
    { "give-up", required_argument, NULL, OPT_GIVE_UP },
    { "retry", required_argument, NULL, OPT_RETRY },
    CLI_TLS_LONG_OPTIONS,
    { "durability", required_argument, NULL, OPT_DURABILITY },
    { "receipts", no_argument, NULL, OPT_RECEIPTS },
    { "wait", required_argument, NULL, OPT_WAIT },
    { "datagram-bytes", required_argument, NULL, OPT_DATAGRAM_BYTES },
    { "receipts-file", required_argument, NULL, OPT_RECEIPTS_FILE },
    { "json-summary", no_argument, NULL, OPT_JSON_SUMMARY },
    { "quiet", no_argument, NULL, OPT_QUIET },
    { "help", no_argument, NULL, OPT_HELP },
    { NULL, 0, NULL, 0 },
};
// clang-format on

/* --- options -------------------------------------------------------------------------------- */

static bool number(uint64_t min, uint64_t max, uint64_t *ret)
{
    return text_uint64(optarg, strlen(optarg), ret) == 0 && *ret >= min && *ret <= max;
}

static bool number32(uint64_t min, uint32_t max, uint32_t *ret)
{
    uint64_t v;

    if (!number(min, max, &v))
        return false;
    *ret = (uint32_t)v;
    return true;
}

static bool seconds(double *ret)
{
    char *end;

    *ret = strtod(optarg, &end);
    return end != optarg && *end == '\0' && *ret >= 0 && *ret <= 1e9;
}

static bool from_take(struct send_options *o, enum send_from from)
{
    if (o->from != SEND_FROM_NONE)
        return false;
    o->from = from;
    o->file = optarg;
    return from != SEND_FROM_GENERATOR || number(0, UINT64_MAX, &o->count);
}

static bool time_take(uint64_t *ret_ns)
{
    size_t bytes = strlen(optarg);

    return text_uint64(optarg, bytes, ret_ns) == 0 || text_time(optarg, bytes, ret_ns) == 0;
}

/* What the generator's options and those of the source say. */
static bool source_option(struct send_options *o, int opt)
{
    switch (opt) {
    case OPT_JSON:
        return from_take(o, SEND_FROM_JSON);
    case OPT_CSV:
        return from_take(o, SEND_FROM_CSV);
    case OPT_GENERATE:
        return from_take(o, SEND_FROM_GENERATOR);
    case OPT_COUNT:
        return number(0, UINT64_MAX, &o->count);
    case OPT_SOURCE:
        o->source = o->generate.source = optarg;
        return *optarg && strlen(optarg) <= 64;
    case OPT_TYPES:
        return generate_parse_mix(&o->generate, optarg) == 0;
    case OPT_CUSTOM_TYPE:
        return number32(64, 127, &o->generate.custom_type);
    case OPT_SIZE:
        return number32(1, GENERATE_EVENT_BYTES_MAX, &o->generate.event_bytes);
    case OPT_SYMBOLS:
        return number32(1, GENERATE_SYMBOLS_MAX, &o->generate.symbols);
    case OPT_SEED:
        return number(0, UINT64_MAX, &o->generate.seed);
    case OPT_RUN:
        return number(0, INT64_MAX, &o->generate.run);
    case OPT_START_ID:
        return number(0, UINT64_MAX, &o->start);
    case OPT_TIME_FROM:
        return time_take(&o->generate.time_from_ns);
    default:
        return false;
    }
}

static bool way_option(struct send_options *o, int opt)
{
    switch (opt) {
    case OPT_ADDRESS:
        o->address = optarg;
        return true;
    case OPT_RATE:
        return seconds(&o->rate);
    case OPT_BATCH:
        return number32(1, SEND_BATCH_EVENTS_MAX, &o->batch);
    case OPT_IN_FLIGHT:
        return number32(1, 65536, &o->requests_in_flight);
    case OPT_PRODUCER:
        o->producer = optarg;
        return strlen(optarg) <= 64;
    case OPT_TOKEN_FILE:
        o->token_file = optarg;
        return true;
    case OPT_CONNECT_TIMEOUT:
        return seconds(&o->connect_timeout_s) && o->connect_timeout_s > 0;
    case OPT_GIVE_UP:
        return seconds(&o->give_up_s);
    case OPT_RETRY:
        return seconds(&o->retry_s) && o->retry_s <= 86400;
    case OPT_DURABILITY:
        o->durability = strcmp(optarg, "region") == 0   ? SLUICE_REGION
                        : strcmp(optarg, "quorum") == 0 ? SLUICE_QUORUM
                                                        : -1;
        return o->durability > 0;
    case OPT_WAIT:
        return seconds(&o->wait_s);
    case OPT_DATAGRAM_BYTES:
        return number32(256, 65507, &o->datagram_bytes);
    case OPT_RECEIPTS_FILE:
        o->receipts_file = optarg;
        return true;
    default:
        return cli_tls_option(&o->tls, opt) || source_option(o, opt);
    }
}

/* The flag that an option without argument sets, or NULL. */
static bool *flag_of(struct send_options *o, int opt)
{
    switch (opt) {
    case OPT_NOW:
        return &o->now;
    case OPT_TEXT_IDS:
        return &o->text_ids;
    case OPT_ALLOW_MISSING_IDS:
        return &o->allow_missing_ids;
    case OPT_SKIP_BAD:
        return &o->skip_bad;
    case OPT_UDP:
        return &o->udp;
    case OPT_RECEIPTS:
        return &o->udp_receipts;
    case OPT_JSON_SUMMARY:
        return &o->json_summary;
    case OPT_QUIET:
        return &o->quiet;
    default:
        return NULL;
    }
}

static int usage(const char *what)
{
    fprintf(stderr, "sluice send: %s\nTry: sluice send --help\n", what);
    return SEND_USAGE;
}

static int options_check(struct send_options *o)
{
    if (o->from == SEND_FROM_NONE)
        return usage("one of --json, --csv and --generate says what to send");
    if (o->udp_receipts && !o->udp)
        return usage("--receipts is for --udp: over TCP there always are receipts");
    if (o->durability != 0 && o->udp)
        return usage("--durability is for TCP; the setting durability.TYPE is for both");
    if (o->receipts_file && o->udp)
        return usage("--receipts-file is for TCP");
    if (o->udp && (o->tls.ca || o->tls.cert || o->tls.key))
        return usage("--ca, --cert and --key are for TCP");
    if (!o->udp && cli_tls_files(&o->tls) % 3 != 0)
        return usage("TLS needs all of --ca, --cert and --key (or $SLUICE_CA, $SLUICE_CERT, "
                     "$SLUICE_KEY)");
    if (o->batch == 0)
        o->batch = o->udp ? 1 : 100;
    if (o->generate.without_ids || o->udp)
        o->allow_missing_ids = true;
    return 0;
}

/* -1 to go on, or the exit code. */
static int options_parse(struct send_options *o, int argc, char **argv)
{
    char what[128];
    int opt, at = 0;

    optind = 0; /* another command may have used getopt before */
    while ((opt = getopt_long(argc, argv, ":", long_options, &at)) >= 0) {
        bool *flag = flag_of(o, opt);

        if (opt == OPT_HELP) {
            fputs(help, stdout);
            return SEND_OK;
        }
        if (opt == '?' || opt == ':') {
            snprintf(what, sizeof(what), "%.60s %s", argv[optind - 1],
                     opt == '?' ? "is no option" : "wants an argument");
            return usage(what);
        }
        if (flag)
            *flag = true;
        else if (opt == OPT_TCP)
            o->udp = false;
        else if (opt == OPT_NO_IDS)
            o->generate.without_ids = 1;
        else if (!way_option(o, opt)) {
            snprintf(what, sizeof(what), "bad value '%.60s' for --%s", optarg,
                     long_options[at].name);
            return usage(what);
        }
    }
    if (optind < argc) {
        snprintf(what, sizeof(what), "%.60s: there are no arguments besides options", argv[optind]);
        return usage(what);
    }
    int rc = options_check(o);

    return rc ? rc : -1;
}

/* --- the run -------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void on_signal(int signal_number) { interrupted = 1; }

bool send_is_interrupted(void) { return interrupted; }

struct run {
    const struct send_options *options;
    struct send_events events;
    struct send_tcp *tcp;
    struct send_udp *udp;
    struct send_batch *batch;
    uint64_t made, lines_bad;
    uint64_t start_ns, end_ns, progress_ns;
    bool progress;
};

static void totals_get(const struct run *r, struct send_totals *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (r->tcp)
        send_tcp_totals(r->tcp, ret);
    if (r->udp)
        send_udp_totals(r->udp, ret);
    ret->lines_bad = r->lines_bad;
}

static void progress_print(struct run *r)
{
    static struct send_totals t; /* too large for the stack, and there is one run */
    uint64_t now_ns = clock_monotonic_ns();

    if (!r->progress || now_ns - r->progress_ns < NS_PER_S)
        return;
    r->progress_ns = now_ns;
    totals_get(r, &t);
    fprintf(stderr, "\r%" PRIu64 " sent, %" PRIu64 " answered, %" PRIu64 " refused, %.0f/s \033[K",
            t.events, t.answered, t.refused,
            (double)t.events / ((double)(now_ns - r->start_ns) / NS_PER_S));
}

/* Fills the batch. 1: there is something in it; 0: the input has ended; else an exit code, negated:
 * what is in the batch then is still to be sent. */
static int batch_fill(struct run *r)
{
    const struct send_options *o = r->options;

    r->batch->n = r->batch->bytes = 0;
    while (r->batch->n < o->batch &&
           r->batch->bytes < SEND_BATCH_BYTES_MAX - SEND_EVENT_BYTES_MAX && !interrupted) {
        if (o->count && r->made == o->count)
            break;
        int rc = send_events_next(&r->events, r->batch);

        if (rc == 0)
            break;
        if (rc > 0) {
            r->made++;
            continue;
        }
        fprintf(stderr, "sluice send: %s%s%s\n",
                o->file && o->from != SEND_FROM_GENERATOR ? o->file : "",
                o->from != SEND_FROM_GENERATOR ? ": " : "", r->events.error);
        r->lines_bad++;
        if (rc == -EINVAL && o->skip_bad)
            continue;
        return o->from == SEND_FROM_GENERATOR ? -SEND_USAGE : -SEND_BAD_INPUT;
    }
    return r->batch->n > 0;
}

/* Until the next batch is due. Held datagrams leave before that. */
static int pace(struct run *r, uint64_t sent)
{
    double rate = r->options->rate;
    struct timespec due;
    int rc;

    if (rate <= 0) {
        r->batch->due_ns = clock_monotonic_ns();
        return 0;
    }
    r->batch->due_ns = r->start_ns + (uint64_t)((double)sent / rate * (double)NS_PER_S);
    if (clock_monotonic_ns() >= r->batch->due_ns)
        return 0;
    if (r->udp && (rc = send_udp_flush(r->udp)) != 0)
        return rc;
    due = (struct timespec){ .tv_sec = (time_t)(r->batch->due_ns / NS_PER_S),
                             .tv_nsec = (long)(r->batch->due_ns % NS_PER_S) };
    while (!interrupted && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR)
        ;
    return 0;
}

/* Sends it all. 0, or the exit code of what ended it early. */
static int run_all(struct run *r)
{
    uint64_t sent = 0;
    int more = 1, rc = 0;

    while (more > 0 && rc == 0) {
        rc = pace(r, sent); /* before the events are made: their time is when they leave */
        if (rc)
            return rc;
        uint64_t due_ns = r->batch->due_ns;

        more = batch_fill(r);
        r->batch->due_ns = due_ns;
        if (r->batch->n)
            rc = r->tcp ? send_tcp_batch(r->tcp, r->batch) : send_udp_batch(r->udp, r->batch);
        sent += r->batch->n;
        progress_print(r);
    }
    return rc ? rc : -more;
}

/* --- the summary ---------------------------------------------------------------------------- */

static void summary_json(const struct run *r, const struct send_totals *t, double s)
{
    const char *comma = "";

    printf("{\"sent\":%" PRIu64 ",\"batches\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"accepted\":%" PRIu64 ",\"duplicates\":%" PRIu64 ",\"refused\":%" PRIu64
           ",\"unanswered\":%" PRIu64 ",\"unsent\":%" PRIu64 ",\"bad_lines\":%" PRIu64,
           t->events, t->batches, t->bytes, t->accepted, t->duplicates, t->refused, t->unanswered,
           t->unsent, t->lines_bad);
    printf(",\"refused_by_reason\":{");
    for (unsigned i = 1; i < SEND_REASONS; i++)
        if (t->by_reason[i] && i != sluice_v1_Reason_DUPLICATE) {
            printf("%s\"%s\":%" PRIu64, comma, sluice_reason_name(i), t->by_reason[i]);
            comma = ",";
        }
    printf("},\"degraded\":%" PRIu64 ",\"seconds\":%.6f,\"events_per_s\":%.1f", t->degraded, s,
           s > 0 ? (double)t->events / s : 0);
    if (t->latency_ns.n)
        printf(",\"receipt_latency_us\":{\"p50\":%.1f,\"p99\":%.1f,\"p99.9\":%.1f,\"max\":%.1f}",
               (double)histogram_percentile(&t->latency_ns, 500) / 1e3,
               (double)histogram_percentile(&t->latency_ns, 990) / 1e3,
               (double)histogram_percentile(&t->latency_ns, 999) / 1e3,
               (double)t->latency_ns.max / 1e3);
    if (r->options->from == SEND_FROM_GENERATOR)
        printf(",\"run\":%" PRIu64 ",\"next_id\":%" PRIu64, r->options->generate.run,
               r->events.next);
    printf("}\n");
}

static void summary_text(const struct run *r, const struct send_totals *t, double s)
{
    bool receipts = r->tcp || r->options->udp_receipts;

    printf("sent        %" PRIu64 " events in %" PRIu64 " %s, %" PRIu64
           " bytes, in %.3f s: %.0f/s\n",
           t->events, t->batches, r->tcp ? "batches" : "datagrams", t->bytes, s,
           s > 0 ? (double)t->events / s : 0);
    if (receipts)
        printf("accepted    %" PRIu64 "\nduplicates  %" PRIu64 "\nrefused     %" PRIu64 "\n",
               t->accepted, t->duplicates, t->refused);
    for (unsigned i = 1; i < SEND_REASONS; i++)
        if (t->by_reason[i] && i != sluice_v1_Reason_DUPLICATE)
            printf("  %-22s %" PRIu64 "\n", sluice_reason_name(i), t->by_reason[i]);
    if (t->degraded)
        printf("degraded    %" PRIu64 " (durable in the active region alone)\n", t->degraded);
    if (t->truncated)
        printf("  (%" PRIu64 " receipts had no room for reasons)\n", t->truncated);
    if (t->unanswered)
        printf("unanswered  %" PRIu64 "\n", t->unanswered);
    if (t->unsent)
        printf("not sent    %" PRIu64 "\n", t->unsent);
    if (t->lines_bad)
        printf("bad lines   %" PRIu64 "%s\n", t->lines_bad,
               r->options->skip_bad ? "" : " (nothing behind it was sent; --skip-bad goes on)");
    if (t->latency_ns.n)
        printf("receipts    p50 %.3f ms, p99 %.3f ms, p99.9 %.3f ms, max %.3f ms\n",
               (double)histogram_percentile(&t->latency_ns, 500) / 1e6,
               (double)histogram_percentile(&t->latency_ns, 990) / 1e6,
               (double)histogram_percentile(&t->latency_ns, 999) / 1e6,
               (double)t->latency_ns.max / 1e6);
}

static int summary(struct run *r, int rc)
{
    static struct send_totals t;
    double s = (double)(r->end_ns - r->start_ns) / NS_PER_S;

    totals_get(r, &t);
    if (r->progress && r->progress_ns != r->start_ns)
        fputs("\r\033[K", stderr);
    if (r->options->json_summary)
        summary_json(r, &t, s);
    else
        summary_text(r, &t, s);
    if (fflush(stdout) != 0 || ferror(stdout))
        fprintf(stderr, "sluice send: the summary cannot be written: %s\n", strerror(errno));
    if (rc)
        return rc;
    if (t.lines_bad)
        return SEND_BAD_INPUT;
    /* What was made up and not sent when the user said stop is missed by nobody. */
    if (t.unsent && !(interrupted && r->options->from == SEND_FROM_GENERATOR))
        return SEND_SOME_REFUSED;
    return t.refused || t.unanswered ? SEND_SOME_REFUSED : SEND_OK;
}

/* --- main ----------------------------------------------------------------------------------- */

static void defaults(struct send_options *o)
{
    *o = (struct send_options){ .address = "127.0.0.1:7400",
                                .producer = "sluice send",
                                .datagram_bytes = 1432,
                                .requests_in_flight = 64,
                                .connect_timeout_s = 5,
                                .give_up_s = 30,
                                .retry_s = 30,
                                .wait_s = 2 };
    generate_options_init(&o->generate);
    if (getrandom(&o->generate.run, sizeof(o->generate.run), 0) != sizeof(o->generate.run))
        o->generate.run = clock_unix_ns();
    o->generate.run >>= 24; /* 40 bits: short ids, and still no two runs alike */
}

static void signals_take(void)
{
    /* The second one ends the process in the ordinary way. */
    struct sigaction a = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };

    interrupted = 0;
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

static int run_open(struct run *r)
{
    int rc = send_events_open(&r->events, r->options);

    if (rc)
        return rc;
    return r->options->udp ? send_udp_open(&r->udp, r->options)
                           : send_tcp_open(&r->tcp, r->options);
}

int send_main(int argc, char **argv)
{
    struct send_options options;
    int rc, finish;

    defaults(&options);
    rc = options_parse(&options, argc, argv);
    if (rc >= 0)
        return rc;

    struct run *r = calloc(1, sizeof(*r));
    struct send_batch *batch = r ? calloc(1, sizeof(*batch)) : NULL;

    if (!batch) {
        free(r);
        return usage("no memory");
    }
    r->options = &options;
    r->batch = batch;
    r->progress = !options.quiet && isatty(STDERR_FILENO);
    signals_take();
    rc = run_open(r);
    if (rc == 0) {
        r->start_ns = r->progress_ns = clock_monotonic_ns();
        rc = run_all(r);
        finish = r->tcp ? send_tcp_finish(r->tcp) : send_udp_finish(r->udp);
        r->end_ns = clock_monotonic_ns();
        rc = summary(r, rc ? rc : finish);
    }
    send_tcp_close(r->tcp);
    send_udp_close(r->udp);
    send_events_close(&r->events);
    free(batch);
    free(r);
    return rc;
}
