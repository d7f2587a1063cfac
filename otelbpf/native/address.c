/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses and ports as text, a column at a time. */
#include "native.h"

#define ADDRESS_BYTES 16
#define GROUPS 8
#define ADDRESS_CELL 48
#define PORT_CELL 8

static uint8_t *decimal(uint8_t *to, uint32_t number)
{
	uint8_t digits[10];
	int count = 0;

	do
		digits[count++] = '0' + number % 10;
	while (number /= 10);
	while (count)
		*to++ = digits[--count];
	return to;
}

static uint8_t *octets(uint8_t *to, const uint8_t *address)
{
	for (int at = 0; at < 4; at++) {
		if (at)
			*to++ = '.';
		to = decimal(to, address[at]);
	}
	return to;
}

/* Without zeros in front. */
static uint8_t *hexadecimal(uint8_t *to, uint16_t group)
{
	static const char digits[16] = "0123456789abcdef";
	int shift = group > 0xfff ? 12 : group > 0xff ? 8 : group > 0xf ? 4 : 0;

	for (; shift >= 0; shift -= 4)
		*to++ = digits[group >> shift & 15];
	return to;
}

struct run {
	int start, length;
};

/* The first of the longest runs of zeros, of two groups at least (RFC 5952, 4.2). */
static struct run longest_zeros(const uint16_t *groups)
{
	struct run longest = { GROUPS, 1 };

	for (int start = 0; start < GROUPS; start++) {
		int end = start;

		while (end < GROUPS && !groups[end])
			end++;
		if (end - start > longest.length)
			longest = (struct run){ start, end - start };
		if (end > start)
			start = end;
	}
	return longest;
}

static uint8_t *colons(uint8_t *to, const uint8_t *address)
{
	uint16_t groups[GROUPS];
	struct run zeros;

	for (int at = 0; at < GROUPS; at++)
		groups[at] = address[2 * at] << 8 | address[2 * at + 1];
	zeros = longest_zeros(groups);
	for (int at = 0; at < GROUPS; at++) {
		if (at == zeros.start) {
			*to++ = ':';
			at += zeros.length - 1;
			if (at == GROUPS - 1)
				*to++ = ':';
			continue;
		}
		if (at)
			*to++ = ':';
		to = hexadecimal(to, groups[at]);
	}
	return to;
}

static bool is_zero(const uint8_t *bytes, int count)
{
	uint8_t any = 0;

	while (count)
		any |= bytes[--count];
	return !any;
}

static bool is_mapped(const uint8_t *address)
{
	return is_zero(address, 10) && address[10] == 0xff && address[11] == 0xff;
}

/* The text of each address of 16 bytes in a cell of 48, and its length: 0 for the unspecified one. */
EXPORTED void otelbpf_address_words(const uint8_t *addresses, int64_t count, bool bracketed, uint8_t *cells,
				    int64_t *lengths)
{
	for (int64_t row = 0; row < count; row++, addresses += ADDRESS_BYTES, cells += ADDRESS_CELL) {
		bool mapped = is_mapped(addresses), long_form = !mapped && !is_zero(addresses, ADDRESS_BYTES);
		uint8_t *to = cells;

		if (long_form && bracketed)
			*to++ = '[';
		if (mapped && !is_zero(addresses + 12, 4))
			to = octets(to, addresses + 12);
		else if (long_form)
			to = colons(to, addresses);
		if (long_form && bracketed)
			*to++ = ']';
		lengths[row] = to - cells;
	}
}

/* The decimal digits of each port in a cell of 8, and how many they are. */
EXPORTED void otelbpf_port_words(const uint16_t *ports, int64_t count, uint8_t *cells, int64_t *lengths)
{
	for (int64_t row = 0; row < count; row++, cells += PORT_CELL)
		lengths[row] = decimal(cells, ports[row]) - cells;
}
