// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Answers DNS over UDP and TCP by the rule in dns.h and counts what it did. Prints "ready PORT PID" when it
 * listens and one JSON line of counters after SIGTERM.
 */
#include <getopt.h>
#include <pthread.h>
#include <signal.h>

#include "dns.h"

enum { LISTEN_BACKLOG = 1024, CNAME_TARGET_LABEL = 5, TTL_S = 60 };

static struct options {
	int family, port;
	const char *address;
} options = { .family = 4, .address = "127.0.0.1" };

struct counters {
	uint64_t queries, answers, by_class[DNS_CLASSES];
};

struct server {
	int udp, tcp;
	struct counters udp_counters, tcp_counters;
};

struct record {
	uint16_t name, type, class;
	uint32_t ttl;
	uint16_t bytes;
} DNS_PACKED;

/* Where the question ends (behind its class), or 0 when it is not whole. */
static size_t question_end(const unsigned char *message, size_t bytes)
{
	size_t at = sizeof(struct dns_header);

	while (at < bytes && message[at])
		at += message[at] + 1;
	return at + 5 <= bytes ? at + 5 : 0;
}

static size_t add_record(unsigned char *message, size_t at, uint16_t name, uint16_t type, const void *data,
			 size_t bytes)
{
	struct record record = { htons(0xc000 | name), htons(type), htons(1), htonl(TTL_S), htons(bytes) };

	memcpy(message + at, &record, sizeof(record));
	memcpy(message + at + sizeof(record), data, bytes);
	return at + sizeof(record) + bytes;
}

/* The address that belongs to the question: 10.x.y.z or fd00::x:y:z by a hash of its bytes. */
static size_t add_address(unsigned char *message, size_t at, size_t name, uint16_t type, size_t question_bytes)
{
	unsigned char address[16] = { 0xfd };
	uint32_t value = 2166136261u;

	for (size_t i = 0; i < question_bytes; i++)
		value = (value ^ message[sizeof(struct dns_header) + i]) * 16777619u;
	memcpy(address + 12, &value, 4);
	if (type == DNS_AAAA)
		return add_record(message, at, name, type, address, 16);
	address[12] = 10;
	return add_record(message, at, name, DNS_A, address + 12, 4);
}

static size_t add_answers(unsigned char *message, size_t at, char class, uint16_t type)
{
	size_t name = sizeof(struct dns_header), question_bytes = at - name - 4, target;
	/* "real." before the parent of the question's name, which a pointer to behind its first label gives */
	unsigned char cname[] = { 4, 'r', 'e', 'a', 'l', 0xc0, name + 1 + message[name] };
	struct dns_header *header = (void *)message;

	if (class == 'c') {
		target = at + sizeof(struct record);
		at = add_record(message, at, name, DNS_CNAME, cname, sizeof(cname));
		name = target;
	}
	header->answers = htons(class == 'c' ? 2 : 1);
	return add_address(message, at, name, type, question_bytes);
}

/* Turns a query into its answer in place; returns the bytes of the answer, 0 for none. */
static size_t answer(unsigned char *message, size_t bytes, bool udp, struct counters *counters)
{
	static const uint8_t rcodes[] = { ['n'] = DNS_NXDOMAIN, ['s'] = DNS_SERVFAIL, ['r'] = DNS_REFUSED, ['t'] = 0 };
	struct dns_header *header = (void *)message;
	int class = dns_class(message, bytes);
	size_t end = question_end(message, bytes);
	char letter;
	uint16_t type;

	if (class < 0 || !end)
		die("not a query of ours: %zu bytes", bytes);
	letter = dns_classes[class];
	counters->queries++;
	counters->by_class[class]++;
	if (letter == 'd')
		return 0;
	counters->answers++;
	header->additionals = header->authorities = 0;
	header->flags = htons(DNS_RESPONSE | rcodes[(int)letter] | (letter == 't' && udp ? DNS_TRUNCATED : 0));
	memcpy(&type, message + end - 4, 2);
	if (rcodes[(int)letter] || (letter == 't' && udp))
		return end;
	return add_answers(message, end, letter, ntohs(type));
}

struct batch {
	struct mmsghdr in[DNS_BATCH], out[DNS_BATCH];
	struct iovec vectors[DNS_BATCH], out_vectors[DNS_BATCH];
	struct sockaddr_in6 peers[DNS_BATCH];
	unsigned char messages[DNS_BATCH][DNS_MESSAGE_BYTES];
};

static int receive_batch(int fd, struct batch *batch)
{
	for (int i = 0; i < DNS_BATCH; i++) {
		batch->vectors[i] = (struct iovec){ batch->messages[i], DNS_MESSAGE_BYTES };
		batch->in[i].msg_hdr = (struct msghdr){ .msg_name = &batch->peers[i],
							.msg_namelen = sizeof(batch->peers[i]),
							.msg_iov = &batch->vectors[i],
							.msg_iovlen = 1 };
	}
	return recvmmsg(fd, batch->in, DNS_BATCH, MSG_WAITFORONE, NULL);
}

static void send_batch(int fd, struct batch *batch, int count)
{
	for (int sent = 0; sent < count;) {
		int now = sendmmsg(fd, batch->out + sent, count - sent, 0);

		if (now < 0)
			die("sendmmsg");
		sent += now;
	}
}

static void *serve_udp(void *argument)
{
	struct server *server = argument;
	struct batch *batch = allocate(1, sizeof(*batch));

	for (;;) {
		int received = receive_batch(server->udp, batch), answers = 0;

		if (received <= 0 || !batch->in[0].msg_len) /* shut down */
			break;
		for (int i = 0; i < received; i++) {
			size_t bytes = answer(batch->messages[i], batch->in[i].msg_len, true, &server->udp_counters);

			if (!bytes)
				continue;
			batch->out_vectors[answers] = (struct iovec){ batch->messages[i], bytes };
			batch->out[answers] = batch->in[i];
			batch->out[answers].msg_hdr.msg_iov = &batch->out_vectors[answers];
			answers++;
		}
		send_batch(server->udp, batch, answers);
	}
	free(batch);
	return NULL;
}

static bool read_exactly(int fd, void *buffer, size_t bytes)
{
	return recv(fd, buffer, bytes, MSG_WAITALL) == (ssize_t)bytes;
}

static void serve_connection(struct server *server, int fd)
{
	struct {
		uint16_t length;
		unsigned char message[DNS_MESSAGE_BYTES];
	} DNS_PACKED framed;

	while (read_exactly(fd, &framed.length, sizeof(framed.length))) {
		size_t bytes = ntohs(framed.length);

		if (bytes > DNS_MESSAGE_BYTES || !read_exactly(fd, framed.message, bytes))
			die("not a framed query: %zu bytes", bytes);
		bytes = answer(framed.message, bytes, false, &server->tcp_counters);
		framed.length = htons(bytes);
		if (bytes && send(fd, &framed, bytes + 2, MSG_NOSIGNAL) < 0)
			die("send");
	}
	close(fd);
}

static void *serve_tcp(void *argument)
{
	struct server *server = argument;

	for (;;) {
		int fd = accept4(server->tcp, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0 && errno == EINVAL) /* shut down */
			return NULL;
		if (fd < 0)
			die("accept");
		serve_connection(server, fd);
	}
}

/* TCP first: it takes a free port when none is given, and UDP then takes the same. */
static void open_sockets(struct server *server)
{
	struct sockaddr_in6 own;
	socklen_t size = dns_address(&own, options.family, options.address, options.port);
	int family = own.sin6_family, on = 1;

	server->tcp = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(server->tcp, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(server->tcp, (void *)&own, size) || listen(server->tcp, LISTEN_BACKLOG))
		die("cannot listen on port %d", options.port);
	getsockname(server->tcp, (void *)&own, &size);
	options.port = ntohs(own.sin6_port);
	server->udp = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	widen(server->udp);
	if (bind(server->udp, (void *)&own, size))
		die("cannot bind UDP port %d", options.port);
}

static void print_counters(const char *name, const struct counters *counters)
{
	printf("\"%s\": {\"queries\": %lu, \"answers\": %lu, \"by_class\": {", name, counters->queries,
	       counters->answers);
	for (size_t class = 0; class < DNS_CLASSES; class ++)
		printf("%s\"%c\": %lu", class ? ", " : "", dns_classes[class], counters->by_class[class]);
	printf("}}, ");
}

static void parse(int argc, char **argv)
{
	for (int option; (option = getopt(argc, argv, "46a:p:")) != -1;) {
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
		default:
			die("usage: dns_server [-4|-6] [-a ADDRESS] [-p PORT]");
		}
	}
}

int main(int argc, char **argv)
{
	struct server server = { 0 };
	pthread_t udp, tcp;
	sigset_t stop;
	int signal_number;

	parse(argc, argv);
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigprocmask(SIG_BLOCK, &stop, NULL);
	open_sockets(&server);
	if (pthread_create(&udp, NULL, serve_udp, &server) || pthread_create(&tcp, NULL, serve_tcp, &server))
		die("pthread_create");
	printf("ready %d %d\n", options.port, getpid());
	fflush(stdout);
	sigwait(&stop, &signal_number);
	shutdown(server.tcp, SHUT_RD);
	shutdown(server.udp, SHUT_RD); /* fails with ENOTCONN and wakes the reader all the same */
	pthread_join(udp, NULL);
	pthread_join(tcp, NULL);
	printf("{");
	print_counters("udp", &server.udp_counters);
	print_counters("tcp", &server.tcp_counters);
	printf("\"cpu_s\": %.6f}\n", cpu_seconds(RUSAGE_SELF));
	return 0;
}
