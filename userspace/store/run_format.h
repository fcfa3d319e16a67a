/*
 * run_format.h - what run.c (reads) and run_write.c (writes) share; the format is drawn in run.c.
 */
#ifndef SLUICE_STORE_RUN_FORMAT_H
#define SLUICE_STORE_RUN_FORMAT_H

#include "store/run.h"

#define RUN_MAGIC           0x4e5552454c535544ull /* "DUSLERUN" */
#define RUN_VERSION         1u
#define RUN_COUNT_MAX       (1ull << 40)
#define RUN_DIRECTORY_BYTES (RUN_DIRECTORY * 8u)
#define RUN_FILTER_OFFSET   (RUN_PAGE_BYTES + RUN_DIRECTORY_BYTES)
#define RUN_CRC_OFFSET      (RUN_PAGE_BYTES - 4u)

struct run_header {
    uint64_t magic;
    uint32_t version, zero;
    struct run_info info; /* header_crc is 0 here */
    uint8_t zeros[RUN_CRC_OFFSET - 16 - sizeof(struct run_info)];
    uint32_t crc;
};
_Static_assert(sizeof(struct run_info) == 72, "stored");
_Static_assert(sizeof(struct run_header) == RUN_PAGE_BYTES, "stored");

struct run_page {
    struct entry entry[RUN_PAGE_ENTRIES];
    uint64_t seq, page;
    uint32_t count, zeros[2], crc;
};
_Static_assert(sizeof(struct run_page) == RUN_PAGE_BYTES, "stored");

static inline uint64_t run_pages_offset(const struct run_info *i)
{
    return RUN_FILTER_OFFSET + run_filter_bytes(i);
}

#endif
