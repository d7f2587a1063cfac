// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Asks a number of questions of known classes and prints one JSON line of what was asked and what came back.
 * Ways to ask: socket (a socket a query), window (one socket, some queries under way), mmsg (one socket, 64 a call),
 * tcp (a connection a query). With -o, one line a question: index, name, type, local port, id, answer code or -1.
 */
#include <getopt.h>
#include <poll.h>

#include "dns.h"

#define MAX_WINDOW 1024
#define IDS 65536

enum way { SOCKET, WINDOW, MMSG, TCP };

static struct options {
	enum way way;
	int family;
	const char *address, *truth;
	uint16_t port;
	uint64_t count, rate, names, seed, weights[DNS_CLASSES], weight;
	uint32_t window, wait_ms;
	bool aaaa; /* every second question */
} options = {
	.family = 4,
	.address = "127.0.0.1",
	.count = 1,
	.names = 997, /* prime: an id never meets the same name soon */
	.window = 32,
	.wait_ms = 1000,
	.weights = { 1 },
	.weight = 1,
};

struct question {
	uint64_t index;
	uint16_t id, type;
	uint8_t class;
	uint16_t bytes;
	bool pending;
	char name[48];
	unsigned char message[96];
};

struct client {
	uint64_t sent[DNS_CLASSES], unanswered[DNS_CLASSES], answered[DNS_CLASSES][DNS_RCODES], truncated, strangers;
	uint32_t *latency_ns;
	uint64_t latencies, pending;
	struct question *by_id[IDS];
	struct sockaddr_in6 server;
	socklen_t server_size;
	FILE *truth;
};

static uint8_t class_of(uint64_t index)
{
	uint64_t point = hash(options.seed, index) % options.weight;
	uint8_t class = 0;

	while (point >= options.weights[class])
		point -= options.weights[class ++];
	return class;
}

static size_t put_name(unsigned char *to, const char *name)
{
	unsigned char *at = to;

	for (;;) {
		size_t label = strcspn(name, ".");

		*at = label;
		memcpy(at + 1, name, label);
		at += label + 1;
		name += label;
		if (!*name++)
			break;
	}
	*at++ = 0;
	return at - to;
}

static void ask(struct question *question, uint64_t index)
{
	struct dns_header header = { .id = htons(index), .flags = htons(0x0100), .questions = htons(1) };
	uint16_t tail[2];
	unsigned char *at = question->message + sizeof(header);

	question->index = index;
	question->id = index;
	question->class = class_of(index);
	question->type = options.aaaa && index % 2 ? DNS_AAAA : DNS_A;
	question->pending = true;
	snprintf(question->name, sizeof(question->name), "%c-%u.load.test", dns_classes[question->class],
		 (unsigned)(index % options.names));
	memcpy(question->message, &header, sizeof(header));
	at += put_name(at, question->name);
	tail[0] = htons(question->type);
	tail[1] = htons(1);
	memcpy(at, tail, sizeof(tail));
	question->bytes = at + sizeof(tail) - question->message;
}

static uint16_t local_port(int fd)
{
	struct sockaddr_in6 own = { 0 };
	socklen_t size = sizeof(own);

	getsockname(fd, (void *)&own, &size);
	return ntohs(own.sin6_port);
}

/* *rcode* is -1 when no answer came. */
static void settle(struct client *client, struct question *question, int fd, int rcode)
{
	question->pending = false;
	if (rcode < 0)
		client->unanswered[question->class]++;
	else
		client->answered[question->class][rcode]++;
	if (client->truth)
		fprintf(client->truth, "%lu\t%s\t%u\t%u\t%u\t%d\n", question->index, question->name, question->type,
			local_port(fd), question->id, rcode);
}

static bool matches(const struct question *question, const unsigned char *message, size_t bytes)
{
	size_t question_bytes = question->bytes - sizeof(struct dns_header);

	return bytes >= question->bytes && !memcmp(message, &(uint16_t){ htons(question->id) }, 2) &&
	       !memcmp(message + sizeof(struct dns_header), question->message + sizeof(struct dns_header),
		       question_bytes);
}

/* Takes one answer; false when it belongs to nothing that is pending. */
static bool take(struct client *client, int fd, const unsigned char *message, size_t bytes)
{
	const struct dns_header *header = (const void *)message;
	struct question *question;

	if (bytes < sizeof(*header))
		return false;
	question = client->by_id[ntohs(header->id)];
	if (!question || !question->pending || !matches(question, message, bytes)) {
		client->strangers++;
		return false;
	}
	client->truncated += !!(ntohs(header->flags) & DNS_TRUNCATED);
	settle(client, question, fd, ntohs(header->flags) & 0xf);
	return true;
}

static int open_socket(struct client *client, int type)
{
	int fd = socket(client->server.sin6_family, type | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (void *)&client->server, client->server_size))
		die("cannot reach the server");
	return fd;
}

static bool readable(int fd, uint32_t wait_ms)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

	return poll(&poll_fd, 1, wait_ms) > 0;
}

static void lookup_udp(struct client *client, struct question *question)
{
	unsigned char message[DNS_MESSAGE_BYTES];
	int fd = open_socket(client, SOCK_DGRAM);
	ssize_t bytes;

	if (send(fd, question->message, question->bytes, 0) < 0)
		die("send");
	if (!readable(fd, options.wait_ms))
		settle(client, question, fd, -1);
	else if ((bytes = recv(fd, message, sizeof(message), 0)) < 0 || !take(client, fd, message, bytes))
		die("a wrong answer to %s", question->name);
	close(fd);
}

static void lookup_tcp(struct client *client, struct question *question)
{
	unsigned char message[DNS_MESSAGE_BYTES + 2];
	int fd = open_socket(client, SOCK_STREAM);
	ssize_t bytes;

	message[0] = question->bytes >> 8;
	message[1] = question->bytes;
	memcpy(message + 2, question->message, question->bytes);
	if (send(fd, message, question->bytes + 2, 0) < 0)
		die("send");
	if (!readable(fd, options.wait_ms))
		settle(client, question, fd, -1);
	else if ((bytes = recv(fd, message, sizeof(message), 0)) < 2 || !take(client, fd, message + 2, bytes - 2))
		die("a wrong answer to %s", question->name);
	close(fd);
}

/* One question after the other. */
static void run_single(struct client *client, void (*lookup)(struct client *, struct question *))
{
	uint64_t start_ns = now_ns();
	struct question question;

	for (uint64_t index = 0; index < options.count; index++) {
		uint64_t asked_ns;

		pace(start_ns, index, options.rate);
		ask(&question, index);
		client->by_id[question.id] = &question;
		client->sent[question.class]++;
		asked_ns = now_ns();
		lookup(client, &question);
		client->latency_ns[client->latencies++] = now_ns() - asked_ns;
	}
}

/* Everything that is pending will not come any more. */
static void give_up(struct client *client, int fd, struct question *questions, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (questions[i].pending)
			settle(client, &questions[i], fd, -1);
	client->pending = 0;
}

static void receive_some(struct client *client, int fd, int flags)
{
	static unsigned char messages[DNS_BATCH][DNS_MESSAGE_BYTES];
	static struct iovec vectors[DNS_BATCH];
	static struct mmsghdr headers[DNS_BATCH];
	int received;

	for (int i = 0; i < DNS_BATCH; i++) {
		vectors[i] = (struct iovec){ messages[i], DNS_MESSAGE_BYTES };
		headers[i].msg_hdr = (struct msghdr){ .msg_iov = &vectors[i], .msg_iovlen = 1 };
	}
	received = recvmmsg(fd, headers, DNS_BATCH, flags, NULL);
	for (int i = 0; i < received; i++)
		client->pending -= take(client, fd, messages[i], headers[i].msg_len);
}

static void send_some(int fd, struct question *questions, uint32_t count)
{
	static struct iovec vectors[DNS_BATCH];
	static struct mmsghdr headers[DNS_BATCH];
	uint32_t sent = 0;

	for (uint32_t i = 0; i < count; i++) {
		vectors[i] = (struct iovec){ questions[i].message, questions[i].bytes };
		headers[i].msg_hdr = (struct msghdr){ .msg_iov = &vectors[i], .msg_iovlen = 1 };
	}
	while (sent < count) {
		int now = sendmmsg(fd, headers + sent, count - sent, 0);

		if (now < 0)
			die("sendmmsg");
		sent += now;
	}
}

/* One socket; batches of *size* questions, each sent in one call and answered before the next. */
static void run_batches(struct client *client, uint32_t size)
{
	struct question *questions = allocate(size, sizeof(*questions));
	int fd = open_socket(client, SOCK_DGRAM);
	uint64_t start_ns = now_ns();

	widen(fd);
	for (uint64_t index = 0; index < options.count; index += size) {
		uint64_t left = options.count - index, droppable = 0;
		uint32_t count = left < size ? left : size;

		pace(start_ns, index, options.rate);
		for (uint32_t i = 0; i < count; i++) {
			ask(&questions[i], index + i);
			client->by_id[questions[i].id] = &questions[i];
			client->sent[questions[i].class]++;
			droppable += dns_classes[questions[i].class] == 'd';
		}
		client->pending = count;
		send_some(fd, questions, count);
		while (client->pending > droppable && readable(fd, options.wait_ms))
			receive_some(client, fd, MSG_DONTWAIT);
		give_up(client, fd, questions, count);
	}
	free(questions);
	close(fd);
}

static void drop_oldest(struct client *client, int fd, struct question *question)
{
	if (!question->pending)
		return;
	if (dns_classes[question->class] != 'd') { /* a slow answer: everything that comes now is waited for */
		while (question->pending && readable(fd, options.wait_ms))
			receive_some(client, fd, MSG_DONTWAIT);
		if (!question->pending)
			return;
	}
	settle(client, question, fd, -1);
	client->pending--;
}

/* One socket, at most *window* questions under way, each sent and received by itself. */
static void run_window(struct client *client)
{
	struct question *questions = allocate(options.window, sizeof(*questions));
	int fd = open_socket(client, SOCK_DGRAM);
	uint64_t start_ns = now_ns();

	widen(fd);
	for (uint64_t index = 0; index < options.count; index++) {
		struct question *question = &questions[index % options.window];

		pace(start_ns, index, options.rate);
		drop_oldest(client, fd, question);
		ask(question, index);
		client->by_id[question->id] = question;
		client->sent[question->class]++;
		client->pending++;
		if (send(fd, question->message, question->bytes, 0) < 0)
			die("send");
		receive_some(client, fd, MSG_DONTWAIT);
	}
	for (uint32_t i = 0; i < options.window && i < options.count; i++)
		drop_oldest(client, fd, &questions[i]);
	free(questions);
	close(fd);
}

static void print_counters(struct client *client, uint64_t elapsed_ns)
{
	qsort(client->latency_ns, client->latencies, sizeof(*client->latency_ns), ascending);
	printf("{\"questions\": %lu, \"pid\": %d, \"elapsed_s\": %.6f, \"cpu_s\": %.6f, \"p50_ns\": %u, \"p99_ns\": "
	       "%u, "
	       "\"truncated\": %lu, \"strangers\": %lu",
	       options.count, getpid(), elapsed_ns / 1e9, cpu_seconds(RUSAGE_SELF),
	       percentile(client->latency_ns, client->latencies, 500),
	       percentile(client->latency_ns, client->latencies, 990), client->truncated, client->strangers);
	printf(", \"by_class\": {");
	for (size_t class = 0; class < DNS_CLASSES; class ++) {
		printf("%s\"%c\": {\"sent\": %lu, \"unanswered\": %lu", class ? ", " : "", dns_classes[class],
		       client->sent[class], client->unanswered[class]);
		for (int rcode = 0; rcode < DNS_RCODES; rcode++)
			if (client->answered[class][rcode])
				printf(", \"%d\": %lu", rcode, client->answered[class][rcode]);
		printf("}");
	}
	printf("}}\n");
}

/* "a=8,n=1" */
static void parse_mix(char *text)
{
	memset(options.weights, 0, sizeof(options.weights));
	options.weight = 0;
	for (char *part = strtok(text, ","); part; part = strtok(NULL, ",")) {
		const char *class = strchr(dns_classes, part[0]);

		if (!class || !part[0] || (part[1] && part[1] != '='))
			die("no such class: %s", part);
		options.weights[class - dns_classes] = part[1] ? strtoull(part + 2, NULL, 10) : 1;
		options.weight += options.weights[class - dns_classes];
	}
	if (!options.weight)
		die("an empty mix");
}

static void parse_way(const char *text)
{
	static const char *const ways[] = { "socket", "window", "mmsg", "tcp" };

	for (enum way way = SOCKET; way <= TCP; way++)
		if (!strcmp(text, ways[way])) {
			options.way = way;
			return;
		}
	die("no such way: %s", text);
}

static void parse(int argc, char **argv)
{
	for (int option; (option = getopt(argc, argv, "46a:p:n:r:N:S:m:x:w:W:Do:")) != -1;) {
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
		case 'n':
			options.count = strtoull(optarg, NULL, 10);
			break;
		case 'r':
			options.rate = strtoull(optarg, NULL, 10);
			break;
		case 'N':
			options.names = strtoull(optarg, NULL, 10);
			break;
		case 'S':
			options.seed = strtoull(optarg, NULL, 10);
			break;
		case 'm':
			parse_mix(optarg);
			break;
		case 'x':
			parse_way(optarg);
			break;
		case 'w':
			options.window = atoi(optarg);
			break;
		case 'W':
			options.wait_ms = atoi(optarg);
			break;
		case 'D':
			options.aaaa = true;
			break;
		case 'o':
			options.truth = optarg;
			break;
		default:
			die("usage: see tests/load/dns.py");
		}
	}
	if (options.window < 1 || options.window > MAX_WINDOW)
		die("a window of 1 to %d", MAX_WINDOW);
}

int main(int argc, char **argv)
{
	static struct client client;
	uint64_t start_ns;

	parse(argc, argv);
	client.server_size = dns_address(&client.server, options.family, options.address, options.port);
	client.latency_ns = allocate(options.count, sizeof(*client.latency_ns));
	client.truth = open_truth(options.truth);
	start_ns = now_ns();
	switch (options.way) {
	case SOCKET:
		run_single(&client, lookup_udp);
		break;
	case TCP:
		run_single(&client, lookup_tcp);
		break;
	case MMSG:
		run_batches(&client, DNS_BATCH);
		break;
	case WINDOW:
		run_window(&client);
		break;
	}
	print_counters(&client, now_ns() - start_ns);
	return 0; /* exit flushes the truth */
}
