// test_libsluice_cxx.cc - a C++ program that is linked with libsluice.a and what sluice.h names, no
// more: it sends to a port where nobody listens, and every batch comes back when it closes.
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "client/sluice.h"

static int canceled;

static void on_receipt(void *, const sluice_receipt *receipt)
{
    canceled += receipt->status == -ECANCELED;
}

int main()
{
    static const char event[] = "\x08\x01\x12\x01s\x1a\x01i";
    const void *events[] = { event };
    const size_t bytes[] = { sizeof(event) - 1 };
    sluice_options options;
    sluice_client *client = nullptr;

    sluice_options_init(&options);
    options.addresses = "127.0.0.1:1,[::1]:1";
    options.on_receipt = on_receipt;
    if (sluice_open(&client, &options) != 0) {
        std::fprintf(stderr, "sluice_open failed\n");
        return 1;
    }
    for (int i = 0; i < 3; i++)
        if (sluice_send(client, events, bytes, 1, nullptr, 0, nullptr) != 0) {
            std::fprintf(stderr, "sluice_send failed\n");
            return 1;
        }
    sluice_close(client);
    if (canceled != 3 || std::strcmp(sluice_reason_name(100), "DUPLICATE") != 0) {
        std::fprintf(stderr, "%d of 3 batches came back\n", canceled);
        return 1;
    }
    std::puts("libsluice links and runs with C++ alone");
    return 0;
}
