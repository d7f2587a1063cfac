// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Answers the requests of tcp_client and counts exactly what it did. Prints "ready PORT PID..." when it listens
 * (the pids are those that serve) and one JSON line of counters after SIGTERM.
 */
#include <arpa/inet.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tcp.h"

#define MAX_WORKERS 64
#define BUFFER_BYTES 65536

struct counters {
	uint64_t accepted, received, sent, by_kind[KINDS];
};

static struct options {
	int family, port, backlog, workers, threads;
	const char *address, *truth;
} options = { .family = 4, .backlog = 4096, .threads = 1 };

struct server {
	int listener;
	FILE *truth;
	struct counters *counters; /* shared by all workers */
};

static int listen_here(void)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(options.port) };
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(options.port) };
	bool is_v4 = options.family == 4;
	int fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	if (options.address && inet_pton(is_v4 ? AF_INET : AF_INET6, options.address,
					 is_v4 ? (void *)&v4.sin_addr : (void *)&v6.sin6_addr) != 1)
		die("not an address: %s", options.address);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, is_v4 ? (void *)&v4 : (void *)&v6, is_v4 ? sizeof(v4) : sizeof(v6)) || listen(fd, options.backlog))
		die("cannot listen on port %d", options.port);
	return fd;
}

static uint16_t port_of(const struct sockaddr_in6 *address)
{
	return ntohs(address->sin6_port); /* at the same offset in sockaddr_in */
}

static void count(struct server *server, const struct request *request, uint64_t received, uint64_t sent)
{
	struct counters *counters = server->counters;

	__atomic_add_fetch(&counters->accepted, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&counters->received, received, __ATOMIC_RELAXED);
	__atomic_add_fetch(&counters->sent, sent, __ATOMIC_RELAXED);
	__atomic_add_fetch(&counters->by_kind[request->kind], 1, __ATOMIC_RELAXED);
}

/* Does what the request asks for and closes; returns the bytes sent. */
static uint32_t answer(int fd, const struct request *request, char *buffer)
{
	uint32_t sent = request->kind == SERVER_RESETS ? 0 : request->response_bytes;

	if (request->kind == SERVER_RESETS)
		reset_on_close(fd);
	if (request->kind == HALF_CLOSE && read_up_to(fd, 1, buffer, 1))
		die("bytes after the request");
	write_all(fd, sent, buffer, BUFFER_BYTES);
	if ((request->kind == NORMAL || request->kind == CLIENT_RESETS) && read_up_to(fd, 1, buffer, 1))
		die("bytes after the request");
	close(fd);
	return sent;
}

static void serve(struct server *server, int fd, uint16_t peer_port, char *buffer)
{
	struct request request;
	uint32_t received = read_up_to(fd, sizeof(request), (char *)&request, sizeof(request)), sent;

	if (received != sizeof(request) || request.kind >= KINDS)
		die("not a request: %u bytes", received);
	received += read_up_to(fd, request.request_bytes - received, buffer, BUFFER_BYTES);
	if (received != request.request_bytes)
		die("%u of %u bytes came", received, request.request_bytes);
	sent = answer(fd, &request, buffer);
	count(server, &request, received, sent);
	if (server->truth)
		fprintf(server->truth, "%u\t%d\t%s\t%u\t%u\n", peer_port, getpid(), kind_names[request.kind], received,
			sent);
}

static void *accept_loop(void *argument)
{
	struct server *server = argument;
	char *buffer = allocate(1, BUFFER_BYTES);

	for (;;) {
		struct sockaddr_in6 peer;
		socklen_t size = sizeof(peer);
		int fd = accept4(server->listener, (void *)&peer, &size, SOCK_CLOEXEC);

		if (fd < 0 && errno == EINVAL) /* the parent has shut the listener down */
			break;
		if (fd < 0)
			die("accept");
		serve(server, fd, port_of(&peer), buffer);
	}
	free(buffer);
	return NULL;
}

static void run_threads(struct server *server, pthread_t *threads)
{
	for (int i = 0; i < options.threads; i++)
		if (pthread_create(&threads[i], NULL, accept_loop, server))
			die("pthread_create");
}

static void join_threads(const pthread_t *threads)
{
	for (int i = 0; i < options.threads; i++)
		pthread_join(threads[i], NULL);
}

static pid_t start_worker(struct server *server, int number)
{
	pthread_t threads[options.threads];
	char path[4096];
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		die("fork");
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		exit(2);
	snprintf(path, sizeof(path), "%s.%d", options.truth ? options.truth : "", number);
	server->truth = open_truth(options.truth ? path : NULL);
	run_threads(server, threads);
	join_threads(threads);
	exit(0); /* flushes the truth */
}

static void print_counters(const struct counters *counters)
{
	printf("{\"accepted\": %lu, \"received\": %lu, \"sent\": %lu, \"cpu_s\": %.6f, \"by_kind\": {",
	       counters->accepted, counters->received, counters->sent,
	       cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN));
	for (int kind = 0; kind < KINDS; kind++)
		printf("%s\"%s\": %lu", kind ? ", " : "", kind_names[kind], counters->by_kind[kind]);
	printf("}}\n");
}

static void print_ready(int listener, const pid_t *workers)
{
	struct sockaddr_in6 own;
	socklen_t size = sizeof(own);

	getsockname(listener, (void *)&own, &size);
	printf("ready %u", port_of(&own));
	for (int i = 0; i < options.workers; i++)
		printf(" %d", workers[i]);
	if (!options.workers)
		printf(" %d", getpid());
	printf("\n");
	fflush(stdout);
}

static void parse(int argc, char **argv)
{
	for (int option; (option = getopt(argc, argv, "46a:p:b:w:t:o:")) != -1;) {
		switch (option) {
		case '4':
			options.family = 4;
			break;
		case '6':
			options.family = 6;
			break;
		case 'a':
			options.address = optarg;
			break;
		case 'p':
			options.port = atoi(optarg);
			break;
		case 'b':
			options.backlog = atoi(optarg);
			break;
		case 'w':
			options.workers = atoi(optarg);
			break;
		case 't':
			options.threads = atoi(optarg);
			break;
		case 'o':
			options.truth = optarg;
			break;
		default:
			die("usage: tcp_server [-4|-6] [-a ADDRESS] [-p PORT] [-b BACKLOG] [-w WORKERS] [-t THREADS] "
			    "[-o TRUTH]");
		}
	}
	if (options.workers > MAX_WORKERS)
		die("at most %d workers", MAX_WORKERS);
}

int main(int argc, char **argv)
{
	struct server server = { 0 };
	pid_t workers[MAX_WORKERS];
	sigset_t stop;
	int signal_number, status, failed = 0;

	parse(argc, argv);
	pthread_t threads[options.threads];
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigprocmask(SIG_BLOCK, &stop, NULL); /* the threads and workers inherit it: only sigwait sees it */
	server.counters =
		mmap(NULL, sizeof(*server.counters), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	server.listener = listen_here();
	for (int i = 0; i < options.workers; i++)
		workers[i] = start_worker(&server, i);
	if (!options.workers) {
		server.truth = open_truth(options.truth);
		run_threads(&server, threads);
	}
	print_ready(server.listener, workers);
	sigwait(&stop, &signal_number);
	shutdown(server.listener, SHUT_RD); /* wakes every accept of every worker */
	if (!options.workers)
		join_threads(threads);
	for (int i = 0; i < options.workers; i++)
		failed |= waitpid(workers[i], &status, 0) < 0 || status;
	print_counters(server.counters);
	return failed;
}
