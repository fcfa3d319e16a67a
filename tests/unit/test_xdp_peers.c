/*
 * test_xdp_peers.c - frames put together and read by scapy, with payloads by Google's protobuf for
 * Python (tests/e2e/xdp_frames.py): packet_parse() and the XDP program see in them what scapy sees.
 *
 *   SLUICE_XDP_PEERS_FRAMES  how many (2000; in full mode 20000)
 *   SLUICE_XDP_PEERS_SEED    (1)
 *
 * Runs in the source tree's root. Skipped (77) where Python has no scapy or no protobuf.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/xdp_expect.h"

#define PYTHON "/usr/bin/python3"
#define SCRIPT "tests/e2e/xdp_frames.py"

enum kind { NOT_OURS, FRAGMENT, TCP_SEGMENT, DATAGRAM, LENGTH, KINDS };
enum message { NEITHER, EVENT, BATCH };

struct __attribute__((packed)) record {
    uint32_t frame_bytes;
    uint8_t kind;
    uint16_t port;
    uint8_t flags;
    uint16_t payload_bytes;
    uint8_t message, types;
};

static struct xdp_rig rig;
static char path[256];
static uint64_t frames, seed;

static bool run(const char *command)
{
    fflush(stdout);
    return system(command) == 0;
}

/* --- what must come of a frame --------------------------------------------------------------- */

static void parse_agrees(const struct record *r, const uint8_t *payload, const uint8_t *frame)
{
    static const enum packet_kind kinds[] = { [FRAGMENT] = PACKET_FRAGMENT,
                                              [TCP_SEGMENT] = PACKET_TCP,
                                              [DATAGRAM] = PACKET_UDP,
                                              [LENGTH] = PACKET_LENGTH };
    uint8_t *exact = malloc(r->frame_bytes);
    enum packet_kind kind;
    struct packet p;

    assert_non_null(exact);
    memcpy(exact, frame, r->frame_bytes);
    kind = packet_parse(exact, exact + r->frame_bytes, &p);
    if (r->kind != NOT_OURS) { /* which may be a whole datagram to another port */
        assert_int_equal(kind, kinds[r->kind]);
        if (r->kind != FRAGMENT)
            assert_int_equal(ntohs(p.port), r->port);
        if (r->kind == TCP_SEGMENT)
            assert_int_equal(p.flags, r->flags);
    }
    if (r->kind == DATAGRAM) {
        assert_int_equal(p.payload_bytes, r->payload_bytes);
        assert_memory_equal(p.udp + 8, payload, r->payload_bytes);
    }
    free(exact);
}

/* Of the policy below: types in turn through the classes. */
static int due(const struct record *r, const uint8_t *types, struct xdp_counters *moved)
{
    unsigned class = 0;

    *moved = (struct xdp_counters){ .bytes = r->payload_bytes };
    if (r->kind == FRAGMENT)
        moved->fragments = 1;
    if (r->kind == TCP_SEGMENT)
        moved->tcp[TCP_PASSED] = 1;
    if (r->kind != DATAGRAM && r->kind != LENGTH)
        return XDP_PASS;
    moved->arrived = 1;
    if (r->kind == LENGTH || r->message == NEITHER) {
        moved->dropped[r->kind == LENGTH ? REASON_LENGTH : REASON_NOT_PROTOBUF] = 1;
        moved->type_arrived[0] = moved->type_dropped[0] = 1;
        return XDP_DROP;
    }
    for (unsigned i = 0; i < r->types; i++)
        class = types[i] % XDP_CLASSES > class ? types[i] % XDP_CLASSES : class;
    moved->type_arrived[types[0]] = 1;
    moved->redirected[class] = 1;
    return XDP_REDIRECT;
}

static void the_program_sees_what_scapy_sees(void **state)
{
    static uint8_t types[256], payload[4096];
    static _Alignas(8) uint8_t frame[8192];
    uint64_t n = 0, of_kind[KINDS] = { 0 };
    struct xdp_counters moved;
    struct record r;
    char command[512];
    FILE *f;

    snprintf(command, sizeof command, PYTHON " " SCRIPT " %s . %" PRIu64 " %" PRIu64, path, frames,
             seed);
    assert_true(run(command));
    f = fopen(path, "rb");
    assert_non_null(f);
    while (fread(&r, sizeof r, 1, f) == 1) {
        int verdict;

        assert_true(r.kind < KINDS && r.frame_bytes <= sizeof frame);
        assert_true(r.payload_bytes <= sizeof payload);
        assert_int_equal(fread(types, 1, r.types, f), r.types);
        assert_int_equal(fread(payload, 1, r.payload_bytes, f), r.payload_bytes);
        assert_int_equal(fread(frame, 1, r.frame_bytes, f), r.frame_bytes);
        parse_agrees(&r, payload, frame);
        verdict = due(&r, types, &moved);
        expect_frame(&rig, frame, r.frame_bytes, verdict, &moved);
        of_kind[r.kind]++;
        n++;
    }
    fclose(f);
    assert_int_equal(n, frames);
    print_message("%" PRIu64 " frames, seed %" PRIu64 ": %" PRIu64 " not ours, %" PRIu64
                  " fragments, %" PRIu64 " TCP, %" PRIu64 " datagrams, %" PRIu64 " of bad length\n",
                  n, seed, of_kind[NOT_OURS], of_kind[FRAGMENT], of_kind[TCP_SEGMENT],
                  of_kind[DATAGRAM], of_kind[LENGTH]);
    for (unsigned k = 0; k < KINDS; k++)
        assert_true(of_kind[k] > n / 200);
    assert_true(of_kind[DATAGRAM] > n / 4);
}

/* --- set up ---------------------------------------------------------------------------------- */

static uint64_t env_number(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 10) : fallback;
}

static bool file_open(void)
{
    const char *tmp = getenv("TMPDIR");
    int fd;

    snprintf(path, sizeof path, "%s/sluice-frames-XXXXXX", tmp ? tmp : "/tmp");
    fd = mkstemp(path);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(the_program_sees_what_scapy_sees) };
    const char *mode = getenv("SLUICE_MODE");
    struct policy p;
    int rc;

    if (!run(PYTHON
             " -c 'import scapy.all, scapy.layers.ipsec, google.protobuf' >/dev/null 2>&1")) {
        printf("skipped: %s has no scapy or no protobuf (python3-scapy, python3-protobuf)\n",
               PYTHON);
        return 77;
    }
    rc = xdp_rig_open(&rig);
    if (rc != 0)
        return rc;
    frames = env_number("SLUICE_XDP_PEERS_FRAMES", mode && !strcmp(mode, "full") ? 20000 : 2000);
    seed = env_number("SLUICE_XDP_PEERS_SEED", 1);
    if (!file_open()) {
        perror(path);
        return 1;
    }
    xdp_rig_policy(&p);
    for (unsigned t = 0; t < POLICY_TYPES; t++)
        p.type[t] = (struct policy_type){ .class = (uint8_t)(t % XDP_CLASSES) };
    xdp_rig_set_policy(&rig, &p, false);
    xdp_rig_sockets(&rig);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    xdp_rig_close(&rig);
    return rc;
}
