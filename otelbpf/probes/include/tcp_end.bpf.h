/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What ended a connection, as its last state and its error tell. Include once, after tcp_record.bpf.h. */
#pragma once

/* No FIN of ours. */
static __always_inline bool is_open(int state)
{
	return state == TCP_ESTABLISHED || state == TCP_SYN_RECV || state == TCP_CLOSE_WAIT;
}

/* The application closes what has had our FIN, in a way that sends a reset: data unread, SO_LINGER 0. A normal end from
 * there needs the peer's FIN, or nobody who holds the socket. */
static __always_inline bool is_reset_after_fin(const struct sock *sk, int was)
{
	return (was == TCP_FIN_WAIT1 || was == TCP_FIN_WAIT2) && !is_orphan(sk) &&
	       !has_flag(sk, bpf_core_enum_value(enum sock_flags, SOCK_DONE));
}

/* `was` tells which FIN came first. A reset that ends a connection leaves no other trace than the error, and one that
 * we send when the application closes (unread data, SO_LINGER 0) is sent after this. One that we are about to send for
 * data that came after our FIN cannot be told from a received one here: the kernel ends the socket by the same path. */
static __always_inline void explain_end(struct tcp_connection *event, const struct sock *sk, int was)
{
	int error = sk->sk_err;
	bool reset = error == ECONNRESET || error == EPIPE;
	bool aborted = error == 0 || error == ECONNABORTED;
	bool open = was == TCP_ESTABLISHED || was == TCP_SYN_RECV;

	if (was == TCP_LAST_ACK || was == TCP_CLOSE_WAIT)
		event->close_reason = FIN_REMOTE;
	else if (!open)
		event->close_reason = FIN_LOCAL;
	else
		event->close_reason = reset ? RESET_REMOTE : aborted ? RESET_LOCAL : TIMEOUT;
	event->rx_resets = reset;
	if (error == 0 && !event->tx_resets && (is_open(was) || is_reset_after_fin(sk, was)))
		event->tx_resets = 1;
	if (event->close_reason == RESET_LOCAL)
		event->error = ECONNRESET; /* no normal end, though nobody had to be told */
	else if (error && !is_orphan(sk))
		event->error = reset || aborted ? ECONNRESET : ETIMEDOUT;
}
