/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of unequal length, one behind the other: those of a batch are laid like ropes, from strands that run through
 * all of them. `otelbpf_measure` looks at everything first and refuses what would lead out of the memory that it was
 * given; `otelbpf_lay` relies on that. */
#include "native.h"

#define MAX_DEPTH 4
#define BLOCK_ROWS 16
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
	const int64_t *starts;  /* where each word begins; NULL: they are `step` apart */
	int64_t size;           /* bytes of all words that have `starts` */
	const int64_t *codes;   /* NULL: row i has word i */
	const uint8_t *known;   /* the rows that have head and word; NULL: all */
};

/* What was measured. */
struct messages {
	const struct strand *strands;
	int64_t count;          /* of strands */
	const int64_t *lengths; /* of each message */
};

static inline int64_t word_of(const struct strand *strand, int64_t row)
{
	return strand->codes ? strand->codes[row] : row;
}

static inline int64_t length_of(const struct strand *strand, int64_t word)
{
	return strand->lengths ? strand->lengths[word] : strand->step;
}

static inline const uint8_t *place_of(const struct strand *strand, int64_t word)
{
	return strand->words + (strand->starts ? strand->starts[word] : word * strand->step);
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
	return width >= 1 && !(length >> (7 * width));
}

static inline bool is_within(const struct strand *strand, int64_t word, int64_t length)
{
	if (!strand->starts)
		return length <= strand->step;
	return strand->starts[word] >= 0 && strand->starts[word] <= strand->size &&
	       length <= strand->size - strand->starts[word];
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
	if (length < 0 || !is_within(strand, word, length))
		return REFUSED;
	return strand->kind == HEX ? 2 * length : length;
}

/* Whether all rows have as many bytes of the strand. */
static inline bool is_constant(const struct strand *strand)
{
	return !strand->known && (!strand->words || (strand->kind != INTEGER && !strand->lengths && !strand->codes));
}

/* Adds the bytes of each row's head and word. */
static bool added(const struct strand *strand, int64_t rows, int64_t *lengths)
{
	for (int64_t row = 0; row < rows; row++) {
		int64_t length;

		if (strand->known && !strand->known[row])
			continue;
		length = measured(strand, row);
		if (length < 0)
			return false;
		lengths[row] += strand->head_length + length;
	}
	return true;
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

/* Rows that are written together, strand by strand: what a strand is like is looked at once for all of them, and what
 * they take stays in the cache nearest to the core. */
struct block {
	int64_t first, rows, depth;
	uint8_t *at[BLOCK_ROWS];
	uint8_t *begun[MAX_DEPTH][BLOCK_ROWS];
	int64_t width[MAX_DEPTH];
};

static void words_written(const struct strand *strand, struct block *block)
{
	for (int64_t index = 0, row = block->first; index < block->rows; index++, row++) {
		uint8_t *to = block->at[index];
		int64_t word;

		if (strand->known && !strand->known[row])
			continue;
		to = copied(to, strand->head, strand->head_length);
		if (strand->words) {
			word = word_of(strand, row);
			to = copied(to, place_of(strand, word), length_of(strand, word));
		}
		block->at[index] = to;
	}
}

static void hexes_written(const struct strand *strand, struct block *block)
{
	for (int64_t index = 0, row = block->first; index < block->rows; index++, row++) {
		uint8_t *to = block->at[index];
		int64_t word;

		if (strand->known && !strand->known[row])
			continue;
		word = word_of(strand, row);
		to = copied(to, strand->head, strand->head_length);
		block->at[index] = hex_written(to, place_of(strand, word), length_of(strand, word));
	}
}

static void integers_written(const struct strand *strand, struct block *block)
{
	for (int64_t index = 0, row = block->first; index < block->rows; index++, row++) {
		if (strand->known && !strand->known[row])
			continue;
		block->at[index] = integer_written(block->at[index], strand, number_of(strand, word_of(strand, row)));
	}
}

static void opened(const struct strand *strand, struct block *block)
{
	for (int64_t index = 0; index < block->rows; index++) {
		block->at[index] = copied(block->at[index], strand->head, strand->head_length) + strand->step;
		block->begun[block->depth][index] = block->at[index];
	}
	block->width[block->depth++] = strand->step;
}

static void closed(const struct strand *strand, struct block *block)
{
	int64_t width = block->width[--block->depth];

	for (int64_t index = 0; index < block->rows; index++) {
		uint8_t *begun = block->begun[block->depth][index];

		length_written(begun - width, width, block->at[index] - begun);
		block->at[index] = copied(block->at[index], strand->head, strand->head_length);
	}
}

static void block_written(const struct strand *strands, int64_t count, struct block *block)
{
	for (const struct strand *strand = strands; strand < strands + count; strand++) {
		switch (strand->kind) {
		case OPEN:
			opened(strand, block);
			break;
		case CLOSE:
			closed(strand, block);
			break;
		case INTEGER:
			integers_written(strand, block);
			break;
		case HEX:
			hexes_written(strand, block);
			break;
		default:
			words_written(strand, block);
		}
	}
}

/* The rows from `first` to before `last`, which take as many bytes as they were measured. */
static uint8_t *rows_written(const struct messages *messages, int64_t first, int64_t last, uint8_t *to)
{
	for (; first < last; first += BLOCK_ROWS) {
		struct block block;

		block.first = first;
		block.rows = last - first < BLOCK_ROWS ? last - first : BLOCK_ROWS;
		block.depth = 0;
		for (int64_t index = 0; index < block.rows; index++) {
			block.at[index] = to;
			to += messages->lengths[first + index];
		}
		block_written(messages->strands, messages->count, &block);
	}
	return to;
}

/* Whether each OPEN has its CLOSE; if so, the fewest bytes that a length has. */
static int64_t narrowest_width(const struct strand *strands, int64_t count)
{
	int64_t depth = 0, narrowest = 8;

	for (const struct strand *strand = strands; strand < strands + count; strand++) {
		if (strand->kind > CLOSE || ((strand->kind == INTEGER || strand->kind == HEX) && !strand->words))
			return REFUSED;
		if (strand->kind != OPEN && strand->kind != CLOSE)
			continue;
		depth += strand->kind == OPEN ? 1 : -1;
		if (depth < 0 || depth > MAX_DEPTH || strand->known || strand->words)
			return REFUSED;
		if (strand->kind == OPEN && (strand->step < 1 || strand->step > 8))
			return REFUSED;
		if (strand->kind == OPEN && strand->step < narrowest)
			narrowest = strand->step;
	}
	return depth ? REFUSED : narrowest;
}

/* The bytes of each of so many rows; REFUSED if a strand is not what it should be, or a message is longer than the
 * shortest of its lengths can say. */
EXPORTED int64_t otelbpf_measure(const struct strand *strands, int64_t count, int64_t rows, int64_t *lengths)
{
	int64_t constant = 0, width = narrowest_width(strands, count);

	for (int64_t row = 0; row < rows; row++)
		lengths[row] = 0;
	for (const struct strand *strand = strands; strand < strands + count; strand++) {
		if (!is_constant(strand)) {
			if (!added(strand, rows, lengths))
				return REFUSED;
		} else if (strand->words && strand->count < rows) {
			return REFUSED;
		} else {
			constant += strand->head_length;
			constant += !strand->words ? 0 : strand->kind == HEX ? 2 * strand->step : strand->step;
			constant += strand->kind == OPEN ? strand->step : 0;
		}
	}
	for (int64_t row = 0; row < rows; row++) {
		lengths[row] += constant;
		if (!fits(lengths[row], width))
			return REFUSED;
	}
	return 0;
}

/* So many bytes of the text, then those rows. */
struct run {
	int64_t text_length;
	struct messages messages;
	int64_t first, last;
};

/* The runs one behind the other. The text and the rows, as they were measured, together are as long as the memory. */
EXPORTED void otelbpf_lay(const struct run *runs, int64_t count, const uint8_t *text, uint8_t *to)
{
	for (const struct run *run = runs; run < runs + count; run++) {
		__builtin_memcpy(to, text, run->text_length);
		text += run->text_length;
		to = rows_written(&run->messages, run->first, run->last, to + run->text_length);
	}
}
