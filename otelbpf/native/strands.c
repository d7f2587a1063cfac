/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of unequal length, one behind the other: those of a batch are laid like ropes, from strands that run through
 * all of them. `otelbpf_measure` looks at everything first and refuses what would lead out of the memory that it was
 * given; `otelbpf_write` relies on that. */
#include "native.h"

#define MAX_DEPTH 4
#define REFUSED (-1)

enum kind {
	WORD,    /* the word */
	INTEGER, /* the word is a number of 64 bits: as a varint, whose bytes count in two lengths of the head */
	HEX,     /* the word in hexadecimal digits */
	OPEN,    /* a length of `step` bytes: that of what follows, up to its CLOSE */
	CLOSE,
};

/* What stands at one place of every message: the head, then of row i the word codes[i]. */
struct strand {
	uint64_t kind;
	const uint8_t *head;
	int64_t head_length;
	const uint8_t *words;
	int64_t step;           /* bytes from one word to the next */
	int64_t count;          /* of words; of rows where there are no codes */
	const int64_t *lengths; /* of each word; NULL: all of them are `step` long */
	const int64_t *codes;   /* NULL: row i has word i */
	const uint8_t *known;   /* the rows that have head and word; NULL: all */
};

static inline int64_t word_of(const struct strand *strand, int64_t row)
{
	return strand->codes ? strand->codes[row] : row;
}

static inline int64_t length_of(const struct strand *strand, int64_t word)
{
	return strand->lengths ? strand->lengths[word] : strand->step;
}

static inline uint64_t number_of(const struct strand *strand, int64_t word)
{
	uint64_t number;

	__builtin_memcpy(&number, strand->words + word * strand->step, sizeof(number));
	return number;
}

static inline int64_t varint_length(uint64_t number)
{
	return (70 - __builtin_clzll(number | 1)) / 7;
}

static inline bool fits(int64_t length, int64_t width)
{
	return width >= 1 && width <= 8 && !(length >> (7 * width));
}

/* The bytes of a row's word. */
static inline int64_t measured(const struct strand *strand, int64_t row)
{
	int64_t word, length;

	if (!strand->words)
		return 0;
	word = word_of(strand, row);
	if (word < 0 || word >= strand->count)
		return REFUSED;
	if (strand->kind == INTEGER)
		return varint_length(number_of(strand, word));
	length = length_of(strand, word);
	if (length < 0 || length > strand->step)
		return REFUSED;
	return strand->kind == HEX ? 2 * length : length;
}

static int64_t measured_row(const struct strand *strands, int64_t count, int64_t row)
{
	int64_t total = 0, begun[MAX_DEPTH], width[MAX_DEPTH], depth = 0;

	for (const struct strand *strand = strands; strand < strands + count; strand++) {
		int64_t length;

		if (strand->known && !strand->known[row])
			continue;
		total += strand->head_length;
		if (strand->kind == OPEN) {
			if (depth == MAX_DEPTH)
				return REFUSED;
			total += strand->step;
			width[depth] = strand->step;
			begun[depth++] = total;
		} else if (strand->kind == CLOSE) {
			if (!depth || !fits(total - begun[depth - 1], width[depth - 1]))
				return REFUSED;
			depth--;
		} else {
			length = measured(strand, row);
			if (length < 0)
				return REFUSED;
			total += length;
		}
	}
	return depth ? REFUSED : total;
}

/* Short runs are most: a call for each would take longer than the copy. */
static inline uint8_t *copied(uint8_t *to, const uint8_t *from, int64_t length)
{
	uint64_t first, last;

	if (length >= 8 && length <= 16) {
		__builtin_memcpy(&first, from, 8);
		__builtin_memcpy(&last, from + length - 8, 8);
		__builtin_memcpy(to, &first, 8);
		__builtin_memcpy(to + length - 8, &last, 8);
	} else if (length < 8) {
		for (int64_t at = 0; at < length; at++)
			to[at] = from[at];
	} else {
		__builtin_memcpy(to, from, length);
	}
	return to + length;
}

/* A KeyValue whose value is an integer: the lengths of the field and of its AnyValue are at two places of the head. */
static inline uint8_t *integer_written(uint8_t *to, const struct strand *strand, uint64_t number)
{
	int64_t length = varint_length(number);
	uint8_t *head = to;

	to = copied(to, strand->head, strand->head_length);
	head[1] += length;
	to[-2] += length;
	for (; number > 0x7f; number >>= 7)
		*to++ = number | 0x80;
	*to++ = number;
	return to;
}

static inline uint8_t *hex_written(uint8_t *to, const uint8_t *word, int64_t length)
{
	static const char digits[16] = "0123456789abcdef";

	for (int64_t at = 0; at < length; at++) {
		*to++ = digits[word[at] >> 4];
		*to++ = digits[word[at] & 15];
	}
	return to;
}

/* In all of its `width` bytes: a varint may be longer than it needs to be. */
static inline void length_written(uint8_t *to, int64_t width, uint64_t length)
{
	for (int64_t at = 0; at < width - 1; at++, length >>= 7)
		to[at] = length | 0x80;
	to[width - 1] = length & 0x7f;
}

static uint8_t *row_written(const struct strand *strands, int64_t count, int64_t row, uint8_t *to)
{
	uint8_t *begun[MAX_DEPTH];
	int64_t width[MAX_DEPTH], depth = 0;

	for (const struct strand *strand = strands; strand < strands + count; strand++) {
		int64_t word;

		if (strand->known && !strand->known[row])
			continue;
		if (strand->kind == CLOSE) {
			depth--;
			length_written(begun[depth] - width[depth], width[depth], to - begun[depth]);
			continue;
		}
		if (strand->kind == INTEGER) {
			to = integer_written(to, strand, number_of(strand, word_of(strand, row)));
			continue;
		}
		to = copied(to, strand->head, strand->head_length);
		if (strand->kind == OPEN) {
			to += strand->step;
			width[depth] = strand->step;
			begun[depth++] = to;
		} else if (strand->words) {
			word = word_of(strand, row);
			if (strand->kind == HEX)
				to = hex_written(to, strand->words + word * strand->step, length_of(strand, word));
			else
				to = copied(to, strand->words + word * strand->step, length_of(strand, word));
		}
	}
	return to;
}

/* The bytes of each of so many rows; REFUSED if a strand is not what it should be. */
EXPORTED int64_t otelbpf_measure(const struct strand *strands, int64_t count, int64_t rows, int64_t *lengths)
{
	for (int64_t row = 0; row < rows; row++) {
		lengths[row] = measured_row(strands, count, row);
		if (lengths[row] < 0)
			return REFUSED;
	}
	return 0;
}

/* The rows from `first` to before `last`, which take as many bytes as they were measured. */
EXPORTED void otelbpf_write(const struct strand *strands, int64_t count, int64_t first, int64_t last, uint8_t *to)
{
	for (int64_t row = first; row < last; row++)
		to = row_written(strands, count, row, to);
}
