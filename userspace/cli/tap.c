/*
 * tap.c - `sluice tap`: samples of datagrams that were dropped, as they come.
 *
 * What they hold came from anybody: it is shown as hexadecimal digits and printable ASCII alone.
 */
#include <inttypes.h>
#include <pb_decode.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/text.h"

static const char help[] =
    "sluice tap --dropped REASON|all [options]\n\n"
    "Prints samples of dropped datagrams: when, why, where they came in, from whom, and the first\n"
    "bytes of what they carry. Only one tap runs at a time. At most 1,000 samples a second are\n"
    "taken, and a tap that is not read loses some.\n"
    "A REASON that is none is answered with those that are.\n\n"
    "Options:\n"
    "  --dropped REASON only what was dropped for this; may be given again; all: everything\n"
    "  --count N        end after N samples (default: with Ctrl-C)\n" CLI_OPTIONS_HELP
    "\nExamples:\n"
    "  sluice tap --dropped all\n"
    "  sluice tap --dropped type_rate --dropped source_rate --count 20\n"
    "  sluice tap --dropped not_protobuf --json | jq -r .payload\n" CLI_EXIT_HELP;

#define LINE_BYTES 16u /* of a dump */

static unsigned get16(const uint8_t *at) { return (unsigned)at[0] << 8 | at[1]; }

/* Skips IPv6's extension headers. Returns where the UDP header begins, or 0. */
static size_t udp_of_ipv6(const uint8_t *data, size_t bytes, size_t at)
{
    unsigned next, n;

    if (bytes < at + 40 || data[at] >> 4 != 6)
        return 0;
    next = data[at + 6];
    at += 40;
    for (n = 0; n < 8 && next != 17; n++) {
        if ((next != 0 && next != 43 && next != 60) || bytes < at + 8)
            return 0;
        next = data[at];
        at += 8 + 8 * (size_t)data[at + 1];
    }
    return next == 17 ? at : 0;
}

static size_t udp_of_ipv4(const uint8_t *data, size_t bytes, size_t at)
{
    if (bytes < at + 20 || data[at] >> 4 != 4 || (data[at] & 15) < 5 || data[at + 9] != 17 ||
        (get16(data + at + 6) & 0x1fff) != 0)
        return 0;
    return at + 4u * (data[at] & 15);
}

struct payload {
    const uint8_t *data;
    size_t at, bytes; /* at 0: all of the sample */
};

/* The datagram's payload in a frame; where this is no frame with one, all of it. What came by a
 * socket is none, whatever its sender makes it look like. */
static struct payload payload_of(const sluice_v1_TapSample *s)
{
    const uint8_t *data = s->data.bytes;
    size_t bytes = s->data.size, at = 12;
    struct payload all = { data, 0, bytes }, p = all;
    unsigned type, n, length;

    if (s->interface[0] == '\0')
        return all;
    for (n = 0; n < 3; n++, at += 4) { /* two VLAN tags at most */
        if (bytes < at + 2)
            return all;
        type = get16(data + at);
        if (type != 0x8100 && type != 0x88a8)
            break;
    }
    at += 2;
    if (type == 0x0800)
        at = udp_of_ipv4(data, bytes, at);
    else
        at = type == 0x86dd ? udp_of_ipv6(data, bytes, at) : 0;
    if (at == 0 || bytes < at + 8)
        return all;
    length = get16(data + at + 4);
    p.at = at + 8;
    p.data += p.at;
    p.bytes -= p.at;
    /* Behind a short one is padding. */
    if (length >= 8 && length - 8 < p.bytes)
        p.bytes = length - 8;
    return p;
}

static void print_dump(const uint8_t *data, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += LINE_BYTES) {
        size_t n = bytes - at < LINE_BYTES ? bytes - at : LINE_BYTES;

        printf("  %04zx ", at);
        for (size_t i = 0; i < LINE_BYTES; i++) {
            if (i < n)
                printf("%s%02x", i == 8 ? "  " : " ", data[at + i]);
            else
                printf("%s  ", i == 8 ? "  " : " ");
        }
        fputs("  |", stdout);
        for (size_t i = 0; i < n; i++)
            putchar(data[at + i] >= 0x20 && data[at + i] < 0x7f ? data[at + i] : '.');
        fputs("|\n", stdout);
    }
}

static void print_text(const sluice_v1_TapSample *s)
{
    const char *source = s->source[0] ? s->source : "-";
    char time[TEXT_TIME_BYTES_MAX];
    struct payload p = payload_of(s);

    text_time_put(time, s->time_ns);
    printf("%s ", time);
    text_plain_print(stdout, s->reason, strlen(s->reason));
    putchar(' ');
    text_plain_print(stdout, s->interface, strlen(s->interface));
    printf(" queue %" PRIu32 " ", s->queue);
    text_plain_print(stdout, source, strlen(source));
    printf(" %" PRIu32 " bytes", s->frame_bytes);
    if (p.at > 0)
        printf(", payload at %zu", p.at);
    puts(s->in_kernel ? "" : ", by a worker");
    print_dump(p.data, p.bytes);
}

static void json_text(const char *key, const char *value)
{
    printf("\"%s\":", key);
    text_json_print(stdout, value);
    putchar(',');
}

static void print_json(const sluice_v1_TapSample *s)
{
    struct payload p = payload_of(s);

    printf("{\"timeNs\":%" PRIu64 ",", s->time_ns);
    json_text("reason", s->reason);
    json_text("interface", s->interface);
    printf("\"queue\":%" PRIu32 ",", s->queue);
    json_text("source", s->source);
    printf("\"inKernel\":%s,\"frameBytes\":%" PRIu32 ",\"payload\":\"",
           s->in_kernel ? "true" : "false", s->frame_bytes);
    text_hex_print(stdout, p.data, p.bytes);
    fputs("\",\"data\":\"", stdout);
    text_hex_print(stdout, s->data.bytes, s->data.size);
    fputs("\"}\n", stdout);
}

/* Prints what comes; flushes whenever there is nothing more to read at once. */
static int tap_print(struct admin_client *c, bool json)
{
    struct admin_response response;
    int rc;

    for (;;) {
        if (!admin_client_ready(c)) {
            rc = cli_finish(CLI_OK);
            if (rc != CLI_OK)
                return rc;
        }
        rc = cli_response(c, true, &response);
        if (rc != CLI_OK)
            return rc;
        if (response.which != ADMIN_BODY_NONE) {
            sluice_v1_TapSample s = sluice_v1_TapSample_init_zero;
            pb_istream_t in = pb_istream_from_buffer(response.body, response.body_bytes);

            if (response.which != ADMIN_BODY_TAP_SAMPLE ||
                !pb_decode(&in, sluice_v1_TapSample_fields, &s))
                return cli_error(CLI_REFUSED, "the daemon's answer is not of this version");
            (json ? print_json : print_text)(&s);
        }
        if (response.done)
            return CLI_OK;
    }
}

struct tap_options {
    struct cli_options common;
    bool dropped, all;
};

static int tap_option(struct tap_options *o, sluice_v1_TapRequest *r, int opt)
{
    switch (opt) {
    case 'd':
        o->dropped = true;
        if (strcmp(optarg, "all") == 0) {
            o->all = true;
            return -1;
        }
        if (optarg[0] == '\0' || strlen(optarg) >= sizeof r->reasons[0])
            return cli_usage("tap", "a reason has 1 to %zu bytes", sizeof r->reasons[0] - 1);
        if (r->reasons_count == sizeof r->reasons / sizeof r->reasons[0])
            return cli_usage("tap", "at most %u reasons", (unsigned)r->reasons_count);
        snprintf(r->reasons[r->reasons_count++], sizeof r->reasons[0], "%s", optarg);
        return -1;
    case 'c':
        if (!cli_number(optarg, UINT64_MAX, &r->count_max) || r->count_max == 0)
            return cli_usage("tap", "--count takes a number above 0");
        return -1;
    default:
        return cli_option(&o->common, opt, help);
    }
}

int tap_main(int argc, char **argv)
{
    static const struct option options[] = { { "dropped", required_argument, NULL, 'd' },
                                             { "count", required_argument, NULL, 'c' },
                                             CLI_LONG_OPTIONS };
    struct admin_request r = { .which = ADMIN_TAP };
    struct admin_client c = { .fd = -1 };
    struct tap_options o = { 0 };
    int opt, rc;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        rc = tap_option(&o, &r.tap, opt);
        if (rc >= 0)
            return rc;
    }
    if (optind < argc)
        return cli_usage("tap", "what is '%s' for?", argv[optind]);
    if (!o.dropped)
        return cli_usage("tap", "--dropped REASON, or --dropped all?");
    if (o.all)
        r.tap.reasons_count = 0;
    r.tap.follow = r.tap.count_max == 0;
    rc = cli_ask(&c, &o.common, &r);
    if (rc == CLI_OK)
        rc = tap_print(&c, o.common.json);
    admin_client_close(&c);
    return cli_finish(rc);
}
