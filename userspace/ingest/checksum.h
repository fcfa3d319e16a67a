/*
 * checksum.h - the Internet checksum (RFC 1071) of datagrams that the kernel has not looked at.
 */
#ifndef SLUICE_INGEST_CHECKSUM_H
#define SLUICE_INGEST_CHECKSUM_H

#include <stdbool.h>

#include "bpf/packet.h"

/* Are the IPv4 header's and UDP's checksums right? IPv4 lets UDP's be 0, for none. unfinished: on a
 * virtual interface a sender on the same machine may have left it to a device that is not there; it
 * is then the sum of the pseudo header, and good enough, as there was no wire. */
bool checksum_ok(const struct packet *p, bool unfinished);

#endif
