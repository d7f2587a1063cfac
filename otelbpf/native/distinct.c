/* SPDX-License-Identifier: Apache-2.0 */
/* The distinct ones among rows, each a key of one or several numbers, by a table with open addressing. */
#include "native.h"

/* The same numbers of all rows. */
struct column {
	const uint8_t *numbers;
	int64_t step; /* bytes from one to the next */
};

static inline uint64_t number_of(const struct column *column, int64_t row)
{
	uint64_t number;

	__builtin_memcpy(&number, column->numbers + row * column->step, sizeof(number));
	return number;
}

/* The finalizer of splitmix64 (Steele, Lea, Flood 2014): each bit of the sum moves each bit of the result. */
static inline uint64_t mixed(uint64_t sum)
{
	sum = (sum ^ (sum >> 30)) * 0xbf58476d1ce4e5b9;
	sum = (sum ^ (sum >> 27)) * 0x94d049bb133111eb;
	return sum ^ (sum >> 31);
}

static inline uint64_t hash_of(const struct column *columns, int64_t count, int64_t row, uint64_t seed)
{
	uint64_t hash = seed;

	for (int64_t at = 0; at < count; at++)
		hash = mixed(hash + number_of(&columns[at], row));
	return hash;
}

static inline bool is_same(const struct column *columns, int64_t count, int64_t row, int64_t other)
{
	for (int64_t at = 0; at < count; at++)
		if (number_of(&columns[at], row) != number_of(&columns[at], other))
			return false;
	return true;
}

/* How many distinct keys there are; `first` has the first row of each, `codes` which of them each row has. `table` is
 * zeros, twice as many as rows at least and a power of two, of which `mask` is one less. Nobody outside knows `seed`, so
 * nobody can send keys that all want one place. */
EXPORTED int64_t otelbpf_distinct(const struct column *columns, int64_t count, int64_t rows, uint64_t seed,
				  int32_t *table, uint64_t mask, int64_t *first, int64_t *codes)
{
	int32_t found = 0;

	for (int64_t row = 0; row < rows; row++) {
		uint64_t place = hash_of(columns, count, row, seed) & mask;

		while (table[place] && !is_same(columns, count, row, first[table[place] - 1]))
			place = (place + 1) & mask;
		if (!table[place]) {
			first[found] = row;
			table[place] = ++found;
		}
		codes[row] = table[place] - 1;
	}
	return found;
}
