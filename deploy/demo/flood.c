/*
 * flood.c - sends datagrams that a node must get rid of, as fast as it is told to, and says on one
 * line of JSON how many of each kind it has sent, exactly.
 *
 *   flood INTERFACE MAC ADDRESS:PORT NETWORK RUN RATE SECONDS KIND=SHARE...
 *
 *   INTERFACE    where the frames go out; MAC, ADDRESS:PORT are the node's there
 *   NETWORK      A.B: the node takes datagrams from A.B.0.0/16, and from nowhere else
 *   RUN          a number, part of the events' ids: those of kind K are K<RUN>-<n>, their source K
 *   RATE         datagrams a second, all kinds together
 *   SECONDS      then it ends, or at SIGTERM before that; either way with its line of JSON
 *
 * Whole frames go to a packet socket, so that each has the source that it likes: any of 32,768
 * addresses of the network, any of four billion others, or always the same. A frame counts as sent
 * when the interface has taken it; one that it refuses is sent again.
 *
 * Thread:  one.
 * Memory:  BURST frames; built once a kind, then only addresses, ids, times and checksums change.
 * Limits:  RATE_MAX, SECONDS_MAX.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BURST       32u /* a veth pair's ring holds 256 */
#define FRAME_BYTES 256u
#define ID_DIGITS   9u
#define SHARES_MAX  1000u
#define RATE_MAX    2000000u
#define SECONDS_MAX 600u
#define REFUSED_MAX 1000000u /* in a row: the interface is gone, or as good as */
#define NS          1000000000ull
#define PAUSE_NS    20000

/* Where things are in a frame: Ethernet, IPv4 without options, UDP. */
#define AT_IP           14u
#define AT_IP_BYTES     16u
#define AT_IP_ID        18u
#define AT_IP_CHECKSUM  24u
#define AT_SOURCE       26u
#define AT_UDP          34u
#define AT_UDP_BYTES    38u
#define AT_UDP_CHECKSUM 40u

enum senders { ANY_ALLOWED, ANY_OTHER, ALWAYS_ONE };

struct kind {
    const char *name;
    unsigned type; /* of the event; 0: no event */
    enum senders senders;
    bool cut; /* its last field says that it goes on */
    uint64_t made, sent;
    /* The template. */
    uint8_t frame[FRAME_BYTES];
    unsigned bytes, id_at, time_at;
};

/* What a node is to do with each of them is its settings' business (xdp.sh). */
static struct kind kinds[] = {
    { .name = "news", .type = 64, .senders = ANY_ALLOWED },
    { .name = "debug", .type = 65, .senders = ANY_ALLOWED },
    { .name = "telemetry", .type = 66, .senders = ALWAYS_ONE },
    { .name = "depth", .type = 67, .senders = ANY_ALLOWED },
    { .name = "unnamed", .type = 99, .senders = ANY_ALLOWED },
    { .name = "spoofed", .type = 1, .senders = ANY_OTHER },
    { .name = "malformed", .type = 1, .senders = ANY_ALLOWED, .cut = true },
    { .name = "junk", .type = 0, .senders = ANY_ALLOWED },
};
#define KINDS (sizeof kinds / sizeof kinds[0])

struct flood {
    int fd;
    uint8_t network[2];
    uint64_t seed, begun_ns, sent, refused, rate, seconds;
    uint16_t wheel[SHARES_MAX]; /* kinds, as often as their shares */
    unsigned wheel_n;
    uint8_t frame[BURST][FRAME_BYTES];
    struct iovec iov[BURST];
    struct mmsghdr message[BURST];
    unsigned kind[BURST];
};

static volatile sig_atomic_t ended;

static void on_signal(int signal) { ended = signal; }

__attribute__((noreturn)) static void die(const char *what, const char *why)
{
    fprintf(stderr, "flood: %s: %s\n", what, why);
    exit(1);
}

static uint64_t now_ns(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

/* xorshift64: who is first and where from must only be cheap. */
static uint64_t chance(struct flood *f)
{
    f->seed ^= f->seed << 13;
    f->seed ^= f->seed >> 7;
    f->seed ^= f->seed << 17;
    return f->seed;
}

/* --- frames -------------------------------------------------------------------------------------
 */

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void add(struct kind *k, const void *data, unsigned bytes)
{
    assert(k->bytes + bytes <= FRAME_BYTES);
    memcpy(k->frame + k->bytes, data, bytes);
    k->bytes += bytes;
}

/* A field of bytes, below 128 of them. */
static unsigned add_field(struct kind *k, unsigned field, const void *data, unsigned bytes)
{
    add(k, (const uint8_t[]){ (uint8_t)(field << 3 | 2), (uint8_t)bytes }, 2);
    add(k, data, bytes);
    return k->bytes - bytes;
}

/* proto/event.proto: type, source, id, time, symbol, and a trade's or a custom detail. */
static void add_event(struct kind *k, unsigned run)
{
    static const uint8_t trade[] = { 0x08, 0xfc, 0xa4, 0x02, 0x10, 0x02, 0x18, 0x64 };
    static const uint8_t custom[] = { 0x12, 0x08, 'a', ' ', 'd', 'e', 't', 'a', 'i', 'l' };
    char id[64];
    int bytes = snprintf(id, sizeof id, "%s%u-%0*u", k->name, run, (int)ID_DIGITS, 0u);

    add(k, (const uint8_t[]){ 0x08, (uint8_t)k->type }, 2);
    add_field(k, 2, k->name, (unsigned)strlen(k->name));
    k->id_at = add_field(k, 3, id, (unsigned)bytes) + (unsigned)bytes - ID_DIGITS;
    add(k, (const uint8_t[9]){ 4 << 3 | 1 }, 9);
    k->time_at = k->bytes - 8;
    add_field(k, 5, "AAPL", 4);
    if (k->type < 64)
        add_field(k, 6, trade, sizeof trade);
    else
        add_field(k, 9, custom, sizeof custom);
    if (k->cut)
        k->bytes -= 3;
}

static void frame_make(struct kind *k, const uint8_t mac[2][6], const struct sockaddr_in *to,
                       unsigned run)
{
    static const char junk[] =
        "M-SEARCH * HTTP/1.1\r\nST: ssdp:all\r\nMAN: \"ssdp:discover\"\r\n\r\n";

    add(k, mac, 12);
    add(k, (const uint8_t[]){ 0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, IPPROTO_UDP, 0, 0 },
        14);
    add(k, (const uint8_t[4]){ 0 }, 4); /* the source */
    add(k, &to->sin_addr, 4);
    add(k, (const uint8_t[2]){ 0 }, 2);
    add(k, &to->sin_port, 2);
    add(k, (const uint8_t[4]){ 0 }, 4);
    if (k->type == 0)
        add(k, junk, sizeof junk - 1);
    else
        add_event(k, run);
    put16(k->frame + AT_IP_BYTES, k->bytes - AT_IP);
    put16(k->frame + AT_UDP_BYTES, k->bytes - AT_UDP);
}

static uint32_t sum_of(const uint8_t *p, unsigned bytes, uint32_t sum)
{
    for (unsigned i = 0; i + 1 < bytes; i += 2)
        sum += (uint32_t)p[i] << 8 | p[i + 1];
    return bytes % 2 != 0 ? sum + ((uint32_t)p[bytes - 1] << 8) : sum;
}

static unsigned fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum + (sum >> 16)) & 0xffff;
}

static void checksums(uint8_t *frame, unsigned bytes)
{
    unsigned udp = bytes - AT_UDP, sum;

    put16(frame + AT_IP_CHECKSUM, 0);
    put16(frame + AT_IP_CHECKSUM, ~fold(sum_of(frame + AT_IP, 20, 0)) & 0xffff);
    put16(frame + AT_UDP_CHECKSUM, 0);
    /* The pseudo-header: both addresses, the protocol, the length. */
    sum = sum_of(frame + AT_SOURCE, 8, IPPROTO_UDP + udp);
    sum = ~fold(sum_of(frame + AT_UDP, udp, sum)) & 0xffff;
    put16(frame + AT_UDP_CHECKSUM, sum == 0 ? 0xffff : sum);
}

static void source_set(struct flood *f, const struct kind *k, uint8_t *source)
{
    uint32_t random = (uint32_t)(chance(f) >> 16);

    memcpy(source, &random, 4);
    if (k->senders == ANY_OTHER) {
        /* None of the network's. */
        source[1] ^= source[0] == f->network[0] && source[1] == f->network[1];
        return;
    }
    memcpy(source, f->network, 2);
    source[2] |= 1; /* A.B.0.x is for others */
    if (k->senders == ALWAYS_ONE)
        memcpy(source + 2, (const uint8_t[]){ 0, 66 }, 2);
}

/* Numbers, times and addresses into the slot's copy of its kind. */
static void slot_fill(struct flood *f, unsigned slot, uint64_t unix_ns)
{
    unsigned which = f->wheel[chance(f) % f->wheel_n];
    struct kind *k = &kinds[which];
    uint8_t *frame = f->frame[slot];
    uint64_t n = k->made++;

    memcpy(frame, k->frame, k->bytes);
    source_set(f, k, frame + AT_SOURCE);
    put16(frame + AT_IP_ID, (unsigned)n & 0xffff);
    put16(frame + AT_UDP, 1024 + (unsigned)(chance(f) % 60000));
    if (k->type != 0) {
        for (unsigned i = ID_DIGITS; i-- > 0; n /= 10)
            frame[k->id_at + i] = (uint8_t)('0' + n % 10);
        memcpy(frame + k->time_at, &unix_ns, 8); /* little-endian, as protobuf's */
    }
    checksums(frame, k->bytes);
    f->iov[slot].iov_len = k->bytes;
    f->kind[slot] = which;
}

/* --- sending ------------------------------------------------------------------------------------
 */

/* All of them: which frame an interface has refused is known, since it is the first that was not
 * taken. */
static void burst_send(struct flood *f, unsigned n)
{
    unsigned refused = 0;

    for (unsigned done = 0; done < n;) {
        int taken = sendmmsg(f->fd, f->message + done, n - done, 0);

        if (taken < 0 && errno != ENOBUFS && errno != EAGAIN && errno != EINTR)
            die("sending", strerror(errno));
        if (taken <= 0) {
            if (++refused == REFUSED_MAX)
                die("sending", "the interface takes nothing more");
            f->refused++;
            nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
            continue;
        }
        refused = 0;
        for (int i = 0; i < taken; i++)
            kinds[f->kind[done + (unsigned)i]].sent++;
        done += (unsigned)taken;
        f->sent += (unsigned)taken;
    }
}

static void run(struct flood *f)
{
    uint64_t number_max = f->rate * f->seconds;

    f->begun_ns = now_ns(CLOCK_MONOTONIC);
    while (!ended && f->sent < number_max) {
        uint64_t passed_ns = now_ns(CLOCK_MONOTONIC) - f->begun_ns;
        uint64_t due = (uint64_t)((double)passed_ns / (double)NS * (double)f->rate);
        uint64_t unix_ns = now_ns(CLOCK_REALTIME), left = number_max - f->sent;
        unsigned n = left < BURST ? (unsigned)left : BURST;

        if (passed_ns >= f->seconds * NS)
            break;
        if (due < f->sent + n) {
            nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
            continue;
        }
        for (unsigned i = 0; i < n; i++)
            slot_fill(f, i, unix_ns);
        burst_send(f, n);
    }
}

static void report(const struct flood *f)
{
    double s = (double)(now_ns(CLOCK_MONOTONIC) - f->begun_ns) / (double)NS;

    printf("{\"sent\": %" PRIu64 ", \"seconds\": %.3f, \"per_s\": %.0f, \"refused\": %" PRIu64
           ", \"kinds\": {",
           f->sent, s, (double)f->sent / s, f->refused);
    for (unsigned i = 0; i < KINDS; i++)
        printf("%s\"%s\": %" PRIu64, i > 0 ? ", " : "", kinds[i].name, kinds[i].sent);
    printf("}}\n");
}

/* --- opening ------------------------------------------------------------------------------------
 */

static uint64_t number(const char *text, uint64_t max, const char *what)
{
    char *end;
    unsigned long long v = strtoull(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0' || v > max)
        die(what, "is no number, or too large");
    return v;
}

static void share_add(struct flood *f, const char *text)
{
    size_t name = strcspn(text, "=");
    unsigned i = 0;

    while (i < KINDS && (strlen(kinds[i].name) != name || memcmp(kinds[i].name, text, name) != 0))
        i++;
    if (i == KINDS || text[name] != '=')
        die(text, "is no KIND=SHARE");
    for (uint64_t n = number(text + name + 1, SHARES_MAX, text); n > 0; n--) {
        if (f->wheel_n == SHARES_MAX)
            die(text, "all shares together are at most 1000");
        f->wheel[f->wheel_n++] = (uint16_t)i;
    }
}

/* Returns the interface's own MAC address too. */
static void interface_open(struct flood *f, const char *name, uint8_t ret_mac[6])
{
    struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(name) };
    socklen_t bytes = sizeof at;

    /* Protocol 0: nothing is received. */
    f->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (f->fd < 0 || at.sll_ifindex == 0 || bind(f->fd, (struct sockaddr *)&at, sizeof at) < 0 ||
        getsockname(f->fd, (struct sockaddr *)&at, &bytes) < 0)
        die(name, strerror(errno));
    memcpy(ret_mac, at.sll_addr, 6);
    for (unsigned i = 0; i < BURST; i++) {
        f->iov[i].iov_base = f->frame[i];
        f->message[i].msg_hdr = (struct msghdr){ .msg_iov = &f->iov[i], .msg_iovlen = 1 };
    }
}

static struct sockaddr_in address_read(char *text)
{
    struct sockaddr_in to = { .sin_family = AF_INET };
    char *colon = strrchr(text, ':');

    if (!colon)
        die(text, "is no ADDRESS:PORT");
    *colon = '\0';
    to.sin_port = htons((uint16_t)number(colon + 1, 65535, "the port"));
    if (inet_pton(AF_INET, text, &to.sin_addr) != 1)
        die(text, "is no IPv4 address");
    return to;
}

int main(int argc, char **argv)
{
    static struct flood f = { .seed = 88172645463325252ull };
    struct sockaddr_in to;
    uint8_t mac[2][6];
    unsigned run_number;

    if (argc < 9)
        die("usage", "flood INTERFACE MAC ADDRESS:PORT NETWORK RUN RATE SECONDS KIND=SHARE...");
    interface_open(&f, argv[1], mac[1]);
    if (sscanf(argv[2], "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", &mac[0][0], &mac[0][1], &mac[0][2],
               &mac[0][3], &mac[0][4], &mac[0][5]) != 6)
        die(argv[2], "is no MAC address");
    to = address_read(argv[3]);
    if (sscanf(argv[4], "%3hhu.%3hhu", &f.network[0], &f.network[1]) != 2)
        die(argv[4], "is no A.B of a network");
    run_number = (unsigned)number(argv[5], 1000, "the run");
    f.rate = number(argv[6], RATE_MAX, "the rate");
    f.seconds = number(argv[7], SECONDS_MAX, "the seconds");
    for (int i = 8; i < argc; i++)
        share_add(&f, argv[i]);
    if (f.wheel_n == 0)
        die("usage", "nothing has a share");
    for (unsigned i = 0; i < KINDS; i++)
        frame_make(&kinds[i], (const uint8_t(*)[6])mac, &to, run_number);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    run(&f);
    report(&f);
    return 0;
}
