/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the TCP client and server agree on. A request begins with this header, in host order (one machine). */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

enum kind { NORMAL, SERVER_CLOSES, REFUSED, CLIENT_RESETS, SERVER_RESETS, HALF_CLOSE, ABANDONED, TIMED_OUT, KINDS };

static const char *const kind_names[KINDS] = {
	"normal", "server_closes", "refused", "client_resets", "server_resets", "half_close", "abandoned", "timed_out",
};

struct request {
	uint32_t request_bytes; /* this header included */
	uint32_t response_bytes;
	uint32_t kind;
};

/* The next close() sends a reset instead of a FIN. */
static inline void reset_on_close(int fd)
{
	struct linger now = { .l_onoff = 1, .l_linger = 0 };

	if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)))
		die("SO_LINGER");
}

static inline void write_all(int fd, uint32_t bytes, char *buffer, size_t buffer_bytes)
{
	while (bytes) {
		ssize_t sent = send(fd, buffer, bytes < buffer_bytes ? bytes : buffer_bytes, MSG_NOSIGNAL);

		if (sent < 0)
			die("send");
		bytes -= sent;
	}
}

/* Reads until *bytes* have come, the end or an error; returns what came. errno is 0 at the end of the stream. */
static inline uint32_t read_up_to(int fd, uint32_t bytes, char *buffer, size_t buffer_bytes)
{
	uint32_t received = 0;

	while (received < bytes) {
		size_t wanted = bytes - received;
		ssize_t got = read(fd, buffer, wanted < buffer_bytes ? wanted : buffer_bytes);

		if (got <= 0) {
			errno = got ? errno : 0;
			break;
		}
		received += got;
	}
	return received;
}
