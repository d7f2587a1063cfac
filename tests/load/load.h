/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What every load program needs: a clock, a pace, a reproducible hash, percentiles, a way to fail. */
#pragma once

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define NS_PER_S 1000000000ULL

/* A failure of the generator itself would make its truth worthless: it ends at once. */
static inline __attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...)
{
	int error = errno;
	va_list arguments;

	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fprintf(stderr, " (%s)\n", strerror(error));
	exit(2);
}

static inline uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* splitmix64: the same seed and index give the same value on every machine. */
static inline uint64_t hash(uint64_t seed, uint64_t index)
{
	uint64_t value = seed * 0x9e3779b97f4a7c15ULL + (index + 1) * 0xbf58476d1ce4e5b9ULL;

	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
	return value ^ (value >> 31);
}

/* Sleeps until event *index* is due at *rate* a second since *start_ns*; a rate of 0 never waits. */
static inline void pace(uint64_t start_ns, uint64_t index, uint64_t rate)
{
	uint64_t due_ns;
	struct timespec due;

	if (!rate)
		return;
	due_ns = start_ns + index * NS_PER_S / rate;
	if (due_ns <= now_ns())
		return;
	due.tv_sec = due_ns / NS_PER_S;
	due.tv_nsec = due_ns % NS_PER_S;
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

static inline int ascending(const void *left, const void *right)
{
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

	return (a > b) - (a < b);
}

/* The value below which *permille* of the sorted *values* lie. */
static inline uint32_t percentile(const uint32_t *values, size_t count, unsigned permille)
{
	return count ? values[(count - 1) * permille / 1000] : 0;
}

static inline double cpu_seconds(int who)
{
	struct rusage usage;

	getrusage(who, &usage);
	return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static inline void *allocate(size_t count, size_t size)
{
	void *memory = calloc(count ? count : 1, size);

	if (!memory)
		die("no memory for %zu x %zu bytes", count, size);
	return memory;
}

static inline FILE *open_truth(const char *path)
{
	FILE *file = path ? fopen(path, "w") : NULL;

	if (path && !file)
		die("cannot write %s", path);
	return file;
}
