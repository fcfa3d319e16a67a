/*
 * hash.c - CRC32C by instruction, SHA-256 by OpenSSL, SipHash by libsodium, XXH3 by xxHash.
 */
#define XXH_INLINE_ALL
#include "base/hash.h"

#include <assert.h>
#include <openssl/evp.h>
#include <pthread.h>
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

static EVP_MD *sha256_md;
static pthread_key_t sha256_key;

static void sha256_free(void *context) { EVP_MD_CTX_free(context); }

static void sha256_fetch(void)
{
    int e = pthread_key_create(&sha256_key, sha256_free);

    assert(e == 0);
    sha256_md = EVP_MD_fetch(NULL, "SHA256", NULL);
    assert(sha256_md != NULL);
}

/* One context a thread, freed when it ends: EVP_MD_CTX_new() on every call would allocate. */
static EVP_MD_CTX *sha256_context(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    static __thread EVP_MD_CTX *context;

    if (context != NULL)
        return context;
    pthread_once(&once, sha256_fetch);
    context = EVP_MD_CTX_new();
    assert(context != NULL);
    pthread_setspecific(sha256_key, context);
    return context;
}

void sha256(uint8_t ret_digest[SHA256_BYTES], const void *a, size_t a_bytes, const void *b,
            size_t b_bytes)
{
    EVP_MD_CTX *c = sha256_context();
    int ok = EVP_DigestInit_ex2(c, sha256_md, NULL);

    ok = ok && EVP_DigestUpdate(c, a, a_bytes);
    if (b_bytes > 0)
        ok = ok && EVP_DigestUpdate(c, b, b_bytes);
    ok = ok && EVP_DigestFinal_ex(c, ret_digest, NULL);
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
