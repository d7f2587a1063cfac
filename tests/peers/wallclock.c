// Lets a program read a wall clock that a test sets: CLOCK_REALTIME is ahead by the seconds in the file that
// WALL_CLOCK_AHEAD names. Loaded with LD_PRELOAD; all other clocks are the kernel's.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static long long ahead_s(void)
{
	const char *path = getenv("WALL_CLOCK_AHEAD");
	FILE *file = path ? fopen(path, "re") : NULL;
	long long seconds = 0;

	if (!file)
		return 0;
	if (fscanf(file, "%lld", &seconds) != 1)
		seconds = 0;
	fclose(file);
	return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	static int (*real)(clockid_t, struct timespec *);

	if (!real)
		real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	int failed = real(clock, now);

	if (!failed && clock == CLOCK_REALTIME)
		now->tv_sec += ahead_s();
	return failed;
}
