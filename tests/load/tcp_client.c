// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Makes a number of TCP connections of known kinds, sizes and ends, and prints one JSON line of what it really did.
 * Kind and sizes of connection i depend on the seed and i alone. With -o, one line a connection:
 * index, kind, local port, peer address, bytes sent, bytes received, errno of connect, nanoseconds.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>

#include "tcp.h"

#define BUFFER_BYTES 65536
#define MAX_THREADS 64

enum family { V4, V6, MAPPED };

static struct options {
	enum family family;
	const char *address, *truth;
	uint16_t port, refused_port, full_port;
	uint32_t request_bytes, response_bytes, spread, wait_ms;
	uint64_t count, rate, seed, peers, weights[KINDS], weight;
	int threads;
} options = {
	.address = "127.0.0.1",
	.refused_port = 1,
	.request_bytes = 64,
	.response_bytes = 64,
	.wait_ms = 200,
	.count = 1,
	.peers = 1,
	.threads = 1,
	.weights = { [NORMAL] = 1 },
	.weight = 1,
};

struct counters {
	uint64_t made[KINDS], failed[KINDS], sent, received;
};

struct client {
	int number;
	uint64_t start_ns, latencies;
	uint32_t *latency_ns;
	struct counters counters;
	FILE *truth;
	char buffer[BUFFER_BYTES];
};

struct connection {
	uint64_t index;
	enum kind kind;
	int error; /* of connect */
	uint16_t local_port;
	uint32_t sent, received;
	struct request request;
	struct sockaddr_in6 peer;
	socklen_t peer_size;
};

static enum kind kind_of(uint64_t index)
{
	uint64_t point = hash(options.seed, index) % options.weight;
	int kind = 0;

	while (point >= options.weights[kind])
		point -= options.weights[kind++];
	return kind;
}

static uint16_t port_for(enum kind kind)
{
	if (kind == REFUSED)
		return options.refused_port;
	return kind == ABANDONED || kind == TIMED_OUT ? options.full_port : options.port;
}

/* Connection *index* goes to the given address plus index modulo *peers*. */
static void choose_peer(struct connection *connection)
{
	uint32_t offset = connection->index % options.peers;
	struct sockaddr_in *v4 = (void *)&connection->peer;
	struct sockaddr_in6 *v6 = &connection->peer;
	struct in_addr address;

	memset(v6, 0, sizeof(*v6));
	connection->peer_size = options.family == V4 ? sizeof(*v4) : sizeof(*v6);
	v6->sin6_family = options.family == V4 ? AF_INET : AF_INET6;
	v6->sin6_port = htons(port_for(connection->kind));
	if (options.family == V6) {
		if (inet_pton(AF_INET6, options.address, &v6->sin6_addr) != 1)
			die("not an address: %s", options.address);
		return;
	}
	if (inet_pton(AF_INET, options.address, &address) != 1)
		die("not an address: %s", options.address);
	address.s_addr = htonl(ntohl(address.s_addr) + offset);
	if (options.family == V4) {
		v4->sin_addr = address;
		return;
	}
	v6->sin6_addr.s6_addr[10] = v6->sin6_addr.s6_addr[11] = 0xff;
	memcpy(v6->sin6_addr.s6_addr + 12, &address, 4);
}

static struct connection plan(uint64_t index)
{
	struct connection connection = { .index = index, .kind = kind_of(index) };
	uint32_t spread = options.spread + 1;

	connection.request = (struct request){
		.kind = connection.kind,
		.request_bytes = options.request_bytes + hash(options.seed + 1, index) % spread,
		.response_bytes = options.response_bytes + hash(options.seed + 2, index) % spread,
	};
	choose_peer(&connection);
	return connection;
}

/* Gives up after wait_ms although nothing has been refused. */
static int connect_and_abandon(int fd, const struct connection *connection)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLOUT };

	fcntl(fd, F_SETFL, O_NONBLOCK);
	if (!connect(fd, (void *)&connection->peer, connection->peer_size) || errno != EINPROGRESS)
		die("the full listener took a connection");
	return poll(&poll_fd, 1, options.wait_ms) ? EIO : EINPROGRESS;
}

static int try_connect(int fd, const struct connection *connection)
{
	int one_repeat = 1;

	if (connection->kind == ABANDONED)
		return connect_and_abandon(fd, connection);
	if (connection->kind == TIMED_OUT)
		setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &one_repeat, sizeof(one_repeat));
	return connect(fd, (void *)&connection->peer, connection->peer_size) ? errno : 0;
}

static void note_local_port(int fd, struct connection *connection)
{
	struct sockaddr_in6 own = { 0 };
	socklen_t size = sizeof(own);

	getsockname(fd, (void *)&own, &size);
	connection->local_port = ntohs(own.sin6_port);
}

static void exchange(int fd, struct connection *connection, char *buffer)
{
	struct request *request = &connection->request;
	bool whole_stream = connection->kind == SERVER_CLOSES || connection->kind == HALF_CLOSE;

	memcpy(buffer, request, sizeof(*request));
	write_all(fd, request->request_bytes, buffer, BUFFER_BYTES);
	connection->sent = request->request_bytes;
	if (connection->kind == HALF_CLOSE)
		shutdown(fd, SHUT_WR);
	if (connection->kind == SERVER_RESETS) {
		if (read_up_to(fd, 1, buffer, 1) || errno != ECONNRESET)
			die("no reset came");
		return;
	}
	connection->received = read_up_to(fd, request->response_bytes + whole_stream, buffer, BUFFER_BYTES);
	if (connection->received != request->response_bytes)
		die("%u of %u bytes came", connection->received, request->response_bytes);
	if (connection->kind == CLIENT_RESETS)
		reset_on_close(fd);
}

static void write_truth(FILE *truth, const struct connection *connection, uint64_t duration_ns)
{
	const struct sockaddr_in6 *v6 = &connection->peer;
	const void *address = options.family == V4 ? (const void *)&((const struct sockaddr_in *)v6)->sin_addr
						   : (const void *)&v6->sin6_addr;
	char text[INET6_ADDRSTRLEN];

	inet_ntop(v6->sin6_family, address, text, sizeof(text));
	fprintf(truth, "%lu\t%s\t%u\t%s\t%u\t%u\t%u\t%d\t%lu\n", connection->index, kind_names[connection->kind],
		connection->local_port, text, ntohs(v6->sin6_port), connection->sent, connection->received,
		connection->error, duration_ns);
}

static void count(struct client *client, const struct connection *connection, uint64_t duration_ns)
{
	bool expected_error =
		connection->kind == REFUSED || connection->kind == ABANDONED || connection->kind == TIMED_OUT;

	if (connection->error && !expected_error) {
		errno = connection->error;
		die("connection %lu failed", connection->index);
	}
	client->counters.made[connection->kind]++;
	client->counters.failed[connection->kind] += connection->error != 0;
	client->counters.sent += connection->sent;
	client->counters.received += connection->received;
	if (connection->kind == NORMAL)
		client->latency_ns[client->latencies++] = duration_ns > UINT32_MAX ? UINT32_MAX : duration_ns;
}

static void make_connection(struct client *client, uint64_t index)
{
	struct connection connection = plan(index);
	int fd = socket(options.family == V4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint64_t start_ns, duration_ns;

	if (fd < 0)
		die("socket");
	start_ns = now_ns();
	connection.error = try_connect(fd, &connection);
	if (client->truth)
		note_local_port(fd, &connection);
	if (!connection.error)
		exchange(fd, &connection, client->buffer);
	close(fd);
	duration_ns = now_ns() - start_ns;
	count(client, &connection, duration_ns);
	if (client->truth)
		write_truth(client->truth, &connection, duration_ns);
}

static void *run(void *argument)
{
	struct client *client = argument;

	for (uint64_t index = client->number; index < options.count; index += options.threads) {
		pace(client->start_ns, index, options.rate);
		make_connection(client, index);
	}
	return NULL;
}

static void add(struct counters *total, const struct counters *part)
{
	for (int kind = 0; kind < KINDS; kind++) {
		total->made[kind] += part->made[kind];
		total->failed[kind] += part->failed[kind];
	}
	total->sent += part->sent;
	total->received += part->received;
}

static void print_by_kind(const char *name, const uint64_t *values)
{
	printf(", \"%s\": {", name);
	for (int kind = 0; kind < KINDS; kind++)
		printf("%s\"%s\": %lu", kind ? ", " : "", kind_names[kind], values[kind]);
	printf("}");
}

static void print_counters(const struct counters *total, uint32_t *latency_ns, size_t latencies, uint64_t elapsed_ns)
{
	qsort(latency_ns, latencies, sizeof(*latency_ns), ascending);
	printf("{\"connections\": %lu, \"sent\": %lu, \"received\": %lu, \"pid\": %d, \"elapsed_s\": %.6f, \"cpu_s\": "
	       "%.6f, "
	       "\"p50_ns\": %u, \"p99_ns\": %u",
	       options.count, total->sent, total->received, getpid(), elapsed_ns / 1e9, cpu_seconds(RUSAGE_SELF),
	       percentile(latency_ns, latencies, 500), percentile(latency_ns, latencies, 990));
	print_by_kind("by_kind", total->made);
	print_by_kind("failed", total->failed);
	printf("}\n");
}

/* "normal=8,refused=1" */
static void parse_mix(char *text)
{
	memset(options.weights, 0, sizeof(options.weights));
	options.weight = 0;
	for (char *part = strtok(text, ","); part; part = strtok(NULL, ",")) {
		char *equals = strchr(part, '=');
		int kind = 0;

		if (equals)
			*equals = 0;
		while (kind < KINDS && strcmp(part, kind_names[kind]))
			kind++;
		if (kind == KINDS)
			die("no such kind: %s", part);
		options.weights[kind] = equals ? strtoull(equals + 1, NULL, 10) : 1;
		options.weight += options.weights[kind];
	}
	if (!options.weight)
		die("an empty mix");
}

static void parse_family(const char *text)
{
	options.family = !strcmp(text, "4") ? V4 : !strcmp(text, "6") ? V6 : MAPPED;
}

static void parse(int argc, char **argv)
{
	for (int option; (option = getopt(argc, argv, "f:a:p:R:F:n:r:t:P:q:s:d:S:w:m:o:")) != -1;) {
		switch (option) {
		case 'f':
			parse_family(optarg);
			break;
		case 'a':
			options.address = optarg;
			break;
		case 'p':
			options.port = atoi(optarg);
			break;
		case 'R':
			options.refused_port = atoi(optarg);
			break;
		case 'F':
			options.full_port = atoi(optarg);
			break;
		case 'n':
			options.count = strtoull(optarg, NULL, 10);
			break;
		case 'r':
			options.rate = strtoull(optarg, NULL, 10);
			break;
		case 't':
			options.threads = atoi(optarg);
			break;
		case 'P':
			options.peers = strtoull(optarg, NULL, 10);
			break;
		case 'q':
			options.request_bytes = atoi(optarg);
			break;
		case 's':
			options.response_bytes = atoi(optarg);
			break;
		case 'd':
			options.spread = atoi(optarg);
			break;
		case 'S':
			options.seed = strtoull(optarg, NULL, 10);
			break;
		case 'w':
			options.wait_ms = atoi(optarg);
			break;
		case 'm':
			parse_mix(optarg);
			break;
		case 'o':
			options.truth = optarg;
			break;
		default:
			die("usage: see tests/load/tcp.py");
		}
	}
	if (options.threads > MAX_THREADS || options.threads < 1 || options.request_bytes < sizeof(struct request))
		die("1 to %d threads, requests of at least %zu bytes", MAX_THREADS, sizeof(struct request));
}

static FILE *truth_of(int thread)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s.%d", options.truth ? options.truth : "", thread);
	return open_truth(options.truth ? path : NULL);
}

int main(int argc, char **argv)
{
	struct counters total = { 0 };
	pthread_t threads[MAX_THREADS];
	uint64_t start_ns, elapsed_ns, latencies = 0;

	parse(argc, argv);
	struct client *clients = allocate(options.threads, sizeof(*clients));
	uint32_t *latency_ns = allocate(options.count + options.threads, sizeof(*latency_ns));
	start_ns = now_ns();
	for (int i = 0; i < options.threads; i++) {
		clients[i].number = i;
		clients[i].start_ns = start_ns;
		clients[i].truth = truth_of(i);
		clients[i].latency_ns = latency_ns + i * (options.count / options.threads + 1);
		if (pthread_create(&threads[i], NULL, run, &clients[i]))
			die("pthread_create");
	}
	for (int i = 0; i < options.threads; i++)
		pthread_join(threads[i], NULL);
	elapsed_ns = now_ns() - start_ns;
	for (int i = 0; i < options.threads; i++) {
		add(&total, &clients[i].counters);
		memmove(latency_ns + latencies, clients[i].latency_ns, clients[i].latencies * sizeof(*latency_ns));
		latencies += clients[i].latencies;
	}
	print_counters(&total, latency_ns, latencies, elapsed_ns);
	return 0; /* exit flushes the truth */
}
