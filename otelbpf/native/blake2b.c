/* SPDX-License-Identifier: Apache-2.0 */
/* Keyed BLAKE2b (RFC 7693) of many pairs of numbers: hashlib needs three calls for each. */
#include "native.h"

#define BLOCK_BYTES 128
#define DIGEST_BYTES 16
#define INPUT_BYTES 8
#define WORDS 8
#define ROUNDS 12

static const uint64_t initial[WORDS] = {
	0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
	0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};

static const uint8_t sigma[10][16] = {
	{ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 },
	{ 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3 },
	{ 11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4 },
	{ 7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8 },
	{ 9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13 },
	{ 2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9 },
	{ 12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11 },
	{ 13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10 },
	{ 6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5 },
	{ 10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0 },
};

static inline uint64_t turned(uint64_t word, int bits)
{
	return word >> bits | word << (64 - bits);
}

static inline void mix(uint64_t *v, int a, int b, int c, int d, uint64_t x, uint64_t y)
{
	v[a] += v[b] + x;
	v[d] = turned(v[d] ^ v[a], 32);
	v[c] += v[d];
	v[b] = turned(v[b] ^ v[c], 24);
	v[a] += v[b] + y;
	v[d] = turned(v[d] ^ v[a], 16);
	v[c] += v[d];
	v[b] = turned(v[b] ^ v[c], 63);
}

static void compress(uint64_t *state, const uint64_t *message, uint64_t bytes, bool is_last)
{
	uint64_t v[2 * WORDS];

	for (int at = 0; at < WORDS; at++) {
		v[at] = state[at];
		v[at + WORDS] = initial[at];
	}
	v[12] ^= bytes;
	v[14] ^= is_last ? ~0ULL : 0;
#pragma clang loop unroll(full)
	for (int round = 0; round < ROUNDS; round++) {
		const uint8_t *s = sigma[round % 10];

		mix(v, 0, 4, 8, 12, message[s[0]], message[s[1]]);
		mix(v, 1, 5, 9, 13, message[s[2]], message[s[3]]);
		mix(v, 2, 6, 10, 14, message[s[4]], message[s[5]]);
		mix(v, 3, 7, 11, 15, message[s[6]], message[s[7]]);
		mix(v, 0, 5, 10, 15, message[s[8]], message[s[9]]);
		mix(v, 1, 6, 11, 12, message[s[10]], message[s[11]]);
		mix(v, 2, 7, 8, 13, message[s[12]], message[s[13]]);
		mix(v, 3, 4, 9, 14, message[s[14]], message[s[15]]);
	}
	for (int at = 0; at < WORDS; at++)
		state[at] ^= v[at] ^ v[at + WORDS];
}

/* The hash of each 8 bytes of `inputs` on their own, 16 bytes long, with a key of at most 64 bytes. Both machines that
 * there are objects for have the byte order of the algorithm. */
EXPORTED void otelbpf_hash_each(const uint8_t *key, int64_t key_bytes, const uint64_t *inputs, int64_t count,
				uint8_t *digests)
{
	uint64_t keyed[WORDS], message[BLOCK_BYTES / 8] = {};
	uint64_t before = key_bytes ? BLOCK_BYTES : 0;

	__builtin_memcpy(keyed, initial, sizeof(keyed));
	keyed[0] ^= 0x01010000 | key_bytes << 8 | DIGEST_BYTES;
	if (key_bytes) {
		__builtin_memcpy(message, key, key_bytes);
		compress(keyed, message, BLOCK_BYTES, false);
		__builtin_memset(message, 0, sizeof(message));
	}
	for (int64_t row = 0; row < count; row++, digests += DIGEST_BYTES) {
		uint64_t state[WORDS];

		__builtin_memcpy(state, keyed, sizeof(state));
		message[0] = inputs[row];
		compress(state, message, before + INPUT_BYTES, true);
		__builtin_memcpy(digests, state, DIGEST_BYTES);
	}
}
