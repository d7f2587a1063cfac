/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the DNS client and server agree on: the first letter of a name says how it is answered.
 *   a-7.load.test  one address    c-…  a chain of one CNAME, then an address    n-…  NXDOMAIN    s-…  SERVFAIL
 *   r-…  REFUSED   d-…  never     t-…  truncated over UDP, an address over TCP
 */
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

#define DNS_BATCH 64
#define DNS_MESSAGE_BYTES 512
#define DNS_PACKED __attribute__((packed))

static const char dns_classes[] = "acnsrdt";
#define DNS_CLASSES (sizeof(dns_classes) - 1)

enum { DNS_A = 1, DNS_CNAME = 5, DNS_AAAA = 28, DNS_RCODES = 16 };
enum { DNS_NOERROR = 0, DNS_SERVFAIL = 2, DNS_NXDOMAIN = 3, DNS_REFUSED = 5 };
enum { DNS_RESPONSE = 0x8180, DNS_TRUNCATED = 0x0200 }; /* response, recursion desired and available */

struct dns_header {
	uint16_t id, flags, questions, answers, authorities, additionals;
} DNS_PACKED;

/* The class of the name that starts the question, or -1. */
static inline int dns_class(const unsigned char *message, size_t bytes)
{
	const char *found = NULL;

	if (bytes > sizeof(struct dns_header) + 2)
		found = memchr(dns_classes, message[sizeof(struct dns_header) + 1], DNS_CLASSES);
	return found ? found - dns_classes : -1;
}

/* Room for a whole window of answers: a datagram lost in a socket's queue would make the truth a guess. */
static inline void widen(int fd)
{
	int bytes = 32 << 20;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
}

static inline socklen_t dns_address(struct sockaddr_in6 *address, int family, const char *text, uint16_t port)
{
	struct sockaddr_in *v4 = (void *)address;

	memset(address, 0, sizeof(*address));
	address->sin6_port = htons(port);
	address->sin6_family = family == 4 ? AF_INET : AF_INET6;
	if (inet_pton(address->sin6_family, text, family == 4 ? (void *)&v4->sin_addr : (void *)&address->sin6_addr) !=
	    1)
		die("not an address: %s", text);
	return family == 4 ? sizeof(*v4) : sizeof(*address);
}
