/*
 * hash.c - CRC32C by instruction, SHA-256 by OpenSSL, SipHash by libsodium, XXH3 by xxHash.
 */
#define XXH_INLINE_ALL
#define OPENSSL_SUPPRESS_DEPRECATED
#include "base/hash.h"

#include <assert.h>
#include <openssl/sha.h>
#include <sodium.h>
#include <string.h>
#include <xxhash.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#define CRC8(c, v) ((uint32_t)_mm_crc32_u64((c), (v)))
#define CRC1(c, v) _mm_crc32_u8((c), (v))
#elif defined(__aarch64__)
#include <arm_acle.h>
#define CRC8(c, v) __crc32cd((c), (v))
#define CRC1(c, v) __crc32cb((c), (v))
#else
#error "no CRC32C instruction known for this machine"
#endif

uint32_t crc32c(uint32_t crc, const void *data, size_t bytes)
{
    const uint8_t *p = data;
    uint64_t word;

    crc = ~crc;
    for (; bytes >= 8; bytes -= 8, p += 8) {
        memcpy(&word, p, 8);
        crc = CRC8(crc, word);
    }
    for (; bytes > 0; bytes--, p++)
        crc = CRC1(crc, *p);
    return ~crc;
}

/* The functions below EVP, which OpenSSL 3 deprecates and keeps: EVP of the 3.0 that Debian 12 has
 * allocates a context on every EVP_DigestInit_ex2(), and this is called for every block. They use
 * the same instructions. */
void sha256(uint8_t ret_digest[SHA256_BYTES], const void *a, size_t a_bytes, const void *b,
            size_t b_bytes)
{
    SHA256_CTX c;
    int ok = SHA256_Init(&c);

    ok = ok && SHA256_Update(&c, a, a_bytes);
    if (b_bytes > 0)
        ok = ok && SHA256_Update(&c, b, b_bytes);
    ok = ok && SHA256_Final(ret_digest, &c);
    assert(ok);
}

struct key128 hash_event_key(const uint8_t key[HASH_KEY_BYTES], const void *source,
                             size_t source_bytes, const void *id, size_t id_bytes)
{
    uint8_t text[1 + 64 + 64];
    struct key128 out;

    assert(source_bytes <= 64 && id_bytes <= 64);
    text[0] = (uint8_t)source_bytes;
    memcpy(text + 1, source, source_bytes);
    memcpy(text + 1 + source_bytes, id, id_bytes);
    _Static_assert(sizeof out == crypto_shorthash_siphashx24_BYTES, "128 bits");
    crypto_shorthash_siphashx24((unsigned char *)&out, text, 1 + source_bytes + id_bytes, key);
    return out;
}

uint64_t hash_content(const uint8_t key[HASH_KEY_BYTES], const void *event, size_t bytes)
{
    uint64_t seed;

    memcpy(&seed, key, sizeof seed);
    return XXH3_64bits_withSeed(event, bytes, seed);
}

uint32_t hash_symbol(const void *symbol, size_t bytes)
{
    return (uint32_t)XXH3_64bits(symbol, bytes);
}
