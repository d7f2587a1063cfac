/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The record of a TCP connection, and what is remembered in its socket until then. Include once. */
#pragma once

#include "kernel.bpf.h"
#include "event.bpf.h"
#include "filter.bpf.h"
#include "tcp.bpf.h"

/* What the counters need of ends that are not told one by one. */
struct throttled_sums {
	__u64 events;
	__u64 tx_bytes;
	__u64 rx_bytes;
	__u64 retransmits;
	__u64 tx_resets;
	__u64 rx_resets;
};
#include "throttle.bpf.h"

#define ROLE_CLIENT 1
#define ROLE_SERVER 2
#define KIND_CLOSED 1
#define KIND_FAILED 2
#define KIND_SNAPSHOT 3
#define FIN_LOCAL 1
#define FIN_REMOTE 2
#define RESET_LOCAL 3
#define RESET_REMOTE 4
#define TIMEOUT 5
#define NO_RTT 0xffffffff

struct tcp_connection {
	struct event_head head; /* the owner; the time of the end, the failure or the snapshot */
	__u64 cookie;
	__u64 start_ns;     /* ESTABLISHED; a failed one: its connect; 0 = before the agent */
	__u64 handshake_ns; /* 0 = not seen */
	__u64 tx_bytes;     /* payload, repeats not counted */
	__u64 rx_bytes;
	__u64 tx_bytes_before; /* of these, before it was adopted */
	__u64 rx_bytes_before;
	__u32 tx_segments;
	__u32 rx_segments;
	__u32 retransmits; /* a failed one: of its SYN */
	__u32 retransmits_before;
	__u32 srtt_us;
	__u32 min_rtt_us; /* 0 = none */
	__u32 client_isn; /* both 0 = unknown */
	__u32 server_isn;
	__u8 local_address[16];
	__u8 remote_address[16];
	__u16 local_port;
	__u16 remote_port;
	__u16 error;       /* errno that the application was told; of a reset that it sent, ECONNRESET too */
	__u8 family;       /* 4 or 6; a mapped address is 4 */
	__u8 role;         /* ROLE_…, 0 = unknown */
	__u8 kind;         /* KIND_… */
	__u8 close_reason; /* which end ended it first; 0 = unknown */
	__u8 adopted;      /* older than the agent */
	__u8 tx_resets;
	__u8 rx_resets;
};
EVENT(tcp_connection);

/* What the socket itself does not know. */
struct connection {
	struct event_head owner; /* time_ns: of the connect */
	__u64 start_ns;
	__u64 handshake_ns;
	__u8 role;
	__u8 adopted;
	__u8 owned; /* the owner is final */
	__u8 tx_resets;
	__u8 summed;              /* a snapshot passes it over: its end is in the sums */
	__u32 retransmits_before; /* what there was when it was adopted */
	__u64 tx_bytes_before;
	__u64 rx_bytes_before;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct connection);
} connections SEC(".maps");

static __always_inline void owned_by_current(struct connection *connection, const struct sock *sk)
{
	head_of_current(&connection->owner);
	connection->owner.netns = netns_of_socket(sk);
}

/* In close() or shutdown(), which is all that is seen of a process that never read or wrote, or spliced what came. The
 * kernel's own threads close what is not theirs, as MPTCP does with the connections that it is made of. */
static __always_inline void owned_by_closer(struct connection *connection, struct sock *sk)
{
	struct tcp_sock *tcp;

	if (connection->owned || is_kernel_thread(bpf_get_current_task_btf()))
		return;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp || is_mptcp(tcp))
		return;
	owned_by_current(connection, sk);
	connection->owned = 1;
}

/* A client's SYN is in our_first_sequence() but not in its payload; a server has no such difference. Holds until our
 * FIN is sent. Another CPU may be changing these numbers: what is neither is unknown. */
static __always_inline __u8 role_by_counters(const struct tcp_sock *tcp, __u8 state)
{
	__u32 difference = tcp->snd_nxt - (__u32)payload_sent(tcp) - our_first_sequence(tcp);

	if (state != TCP_ESTABLISHED && state != TCP_CLOSE_WAIT)
		return 0;
	return difference == 1 ? ROLE_CLIENT : difference == 0 ? ROLE_SERVER : 0;
}

static __always_inline void fill(struct tcp_connection *event, struct sock *sk, const struct tcp_sock *tcp,
				 const struct connection *connection, __u8 kind, __u64 now)
{
	__u32 ours = our_first_sequence(tcp), theirs = their_first_sequence(tcp);
	__u32 min_rtt_us = tcp->rtt_min.s[0].v;

	event->head = connection->owner;
	event->head.time_ns = now;
	event->cookie = bpf_get_socket_cookie(sk);
	event->start_ns = connection->start_ns;
	event->handshake_ns = connection->handshake_ns;
	event->tx_bytes = payload_sent(tcp);
	event->rx_bytes = payload_received(sk, tcp);
	if (connection->adopted) {
		event->tx_bytes_before = connection->tx_bytes_before;
		event->rx_bytes_before = connection->rx_bytes_before;
		event->retransmits_before = connection->retransmits_before;
	}
	event->tx_segments = tcp->segs_out;
	event->rx_segments = tcp->segs_in;
	event->retransmits = tcp->total_retrans;
	event->srtt_us = tcp->srtt_us >> 3;
	event->min_rtt_us = min_rtt_us == NO_RTT ? 0 : min_rtt_us;
	if (kind != KIND_FAILED && connection->role) {
		event->client_isn = connection->role == ROLE_CLIENT ? ours : theirs;
		event->server_isn = connection->role == ROLE_CLIENT ? theirs : ours - 1;
	}
	local_address_of(sk, (__u32 *)event->local_address);
	remote_address_of(sk, (__u32 *)event->remote_address);
	event->local_port = bpf_ntohs(tcp->inet_conn.icsk_inet.inet_sport);
	event->remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
	event->family = is_mapped((__u32 *)event->remote_address) ? 4 : 6;
	event->role = connection->role;
	event->kind = kind;
	event->adopted = connection->adopted;
	event->tx_resets = connection->tx_resets;
}

static __always_inline bool unwanted(const struct sock *sk, const struct tcp_sock *tcp, const struct event_head *owner)
{
	__u32 remote[4];

	remote_address_of(sk, remote);
	return filtered(owner, (__u8 *)remote, bpf_ntohs(tcp->inet_conn.icsk_inet.inet_sport),
			bpf_ntohs(sk->__sk_common.skc_dport));
}

/* Whether to go on with this connection; counts it. */
static __always_inline bool wanted(const struct sock *sk, const struct tcp_sock *tcp, const struct event_head *owner)
{
	COUNT(seen);
	if (!unwanted(sk, tcp, owner))
		return true;
	COUNT(filtered);
	return false;
}

/* Room for a record of this connection, filled, or NULL and the loss is counted. */
static __always_inline struct tcp_connection *record(struct sock *sk, const struct tcp_sock *tcp,
						     const struct connection *connection, __u8 kind, __u64 now)
{
	struct tcp_connection *event = event_reserve(sizeof(*event), sizeof(*event));

	if (event)
		fill(event, sk, tcp, connection, kind, now);
	return event;
}
