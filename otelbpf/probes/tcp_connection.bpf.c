/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* TCP connections: one record when a connection ends, one when a connect fails; nothing in between.
 *
 * What must be remembered meanwhile lives in the socket (`connections`), is freed with it, and is copied by the kernel
 * from a listener to every socket it accepts. So a server's connection has an owner before anybody has accepted it,
 * and the process that first reads or writes, or else the one that closes, takes it over: with a prefork server that is
 * the worker. */
#include "tcp_record.bpf.h"
#include "tcp_end.bpf.h"
#include "tcp_unsent.bpf.h"
#include "tcp_throttle.bpf.h"
#include "tcp_alive.bpf.h"

#define MSG_PEEK 2

static __always_inline bool summed_close(struct sock *sk, const struct tcp_sock *tcp, struct connection *connection,
					 int was, __u64 now)
{
	struct bucket *over = over_rate(connection->owner.cgroup_id, now);
	struct tcp_connection end = {};

	if (!over || !is_whole(connection))
		return false;
	end.kind = KIND_CLOSED;
	end.role = connection->role;
	end.tx_bytes = payload_sent(tcp);
	end.rx_bytes = payload_received(sk, tcp);
	end.retransmits = tcp->total_retrans;
	end.tx_resets = connection->tx_resets;
	explain_end(&end, sk, was);
	add_up(over, &connection->owner, &end);
	return true;
}

static __always_inline void closed(struct sock *sk, struct connection *connection, int was)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
	struct tcp_connection *event;
	__u64 now = bpf_ktime_get_boot_ns();

	if (!tcp || (!connection->start_ns && !connection->adopted))
		return; /* never established */
	if (!connection->role)
		connection->role = role_by_counters(tcp, was);
	if (is_open(was) && !sk->sk_err)
		owned_by_closer(connection, sk); /* with a reset: nothing else gets here without an error */
	if (!wanted(sk, tcp, &connection->owner) || summed_close(sk, tcp, connection, was, now))
		return;
	event = record(sk, tcp, connection, KIND_CLOSED, now);
	if (!event)
		return;
	explain_end(event, sk, was);
	bpf_ringbuf_submit(event, 0);
}

static __always_inline bool summed_failure(const struct event_head *owner, __u32 retransmits, __u16 error, __u64 now)
{
	struct bucket *over = over_rate(owner->cgroup_id, now);
	struct tcp_connection end = {
		.kind = KIND_FAILED, .role = ROLE_CLIENT, .retransmits = retransmits, .error = error
	};

	if (over)
		add_up(over, owner, &end);
	return over;
}

static __always_inline void failed(struct sock *sk, struct connection *connection)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
	struct tcp_connection *event;
	__u64 now = bpf_ktime_get_boot_ns();
	__u16 error = sk->sk_err ?: sk->sk_err_soft ?: ECANCELED;

	if (!tcp || !tcp->segs_out)
		return; /* no SYN was sent: connect() itself will return the error */
	remember_told(sk, error);
	if (!wanted(sk, tcp, &connection->owner) || summed_failure(&connection->owner, tcp->total_retrans, error, now))
		return;
	event = record(sk, tcp, connection, KIND_FAILED, now);
	if (!event)
		return;
	event->role = ROLE_CLIENT;
	event->start_ns = connection->owner.time_ns; /* 0 when adopted */
	event->handshake_ns = event->start_ns ? event->head.time_ns - event->start_ns : 0;
	event->error = error;
	bpf_ringbuf_submit(event, 0);
}

/* A client that got the SYN of its peer, both having connected at once, and no answer to its own. */
static __always_inline bool is_unanswered(const struct connection *connection, int was)
{
	return was == TCP_SYN_RECV && connection->role == ROLE_CLIENT && !connection->start_ns;
}

/* In the context of connect() or listen(). A socket may be used again after a disconnect. */
static __always_inline void begin(struct sock *sk, __u8 role)
{
	struct connection *connection = bpf_sk_storage_get(&connections, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);

	if (!connection)
		return;
	owned_by_current(connection, sk);
	connection->start_ns = 0;
	connection->handshake_ns = 0;
	connection->role = role;
	connection->adopted = 0;
	connection->owned = role == ROLE_CLIENT;
	connection->tx_resets = 0;
	connection->summed = 0;
}

/* SYN-ACK → ACK is the first sample of the round trip. After a SYN cookie or a repeated SYN-ACK the kernel takes it from
 * TCP timestamps instead, in whole milliseconds, and a cookie hides other things in those: not known then. */
static __always_inline __u64 server_handshake_ns(struct sock *sk)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
	__u32 rtt_us = tcp ? tcp->srtt_us >> 3 : 0;

	return rtt_us % 1000 ? rtt_us * 1000ULL : 0;
}

/* Creates only where the listener could not be adopted. */
static __always_inline void established(struct sock *sk, int was)
{
	struct connection *connection = bpf_sk_storage_get(&connections, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);

	if (!connection)
		return;
	connection->start_ns = bpf_ktime_get_boot_ns();
	if (!connection->role) {
		connection->role = was == TCP_SYN_SENT ? ROLE_CLIENT : ROLE_SERVER;
		connection->owner.netns = netns_of_socket(sk);
	}
	if (connection->role == ROLE_SERVER)
		connection->handshake_ns = server_handshake_ns(sk);
	else if (!connection->adopted)
		connection->handshake_ns = connection->start_ns - connection->owner.time_ns;
	connection->adopted = 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_state_changed, struct sock *sk, int was, int is)
{
	struct connection *connection;

	if (!is_tcp(sk))
		return 0;
	if (is == TCP_SYN_SENT || is == TCP_LISTEN) {
		begin(sk, is == TCP_SYN_SENT ? ROLE_CLIENT : ROLE_SERVER);
	} else if (is == TCP_ESTABLISHED) {
		established(sk, was);
	} else if (is == TCP_FIN_WAIT1 || is == TCP_LAST_ACK) {
		connection = bpf_sk_storage_get(&connections, sk, NULL, 0);
		if (connection)
			owned_by_closer(connection, sk);
	} else if (is == TCP_CLOSE && was != TCP_LISTEN && was != TCP_CLOSE) {
		connection = bpf_sk_storage_get(&connections, sk, NULL, 0);
		if (connection && (was == TCP_SYN_SENT || is_unanswered(connection, was)))
			failed(sk, connection);
		else if (connection)
			closed(sk, connection, was);
	}
	return 0;
}

/* Those that end a connection are sent after its record and are counted there. */
SEC("tp_btf/tcp_send_reset")
int BPF_PROG(tcp_reset_sent, struct sock *sk)
{
	struct connection *connection;

	if (!sk || sk->__sk_common.skc_state == TCP_CLOSE)
		return 0;
	connection = bpf_sk_storage_get(&connections, sk, NULL, 0);
	if (connection && connection->tx_resets < 255)
		connection->tx_resets++;
	return 0;
}

/* In the process that reads or writes, after the call. Every send and receive of the machine comes by. What the
 * adoption could not find, since no process had it open (not yet accepted, on its way to another), is adopted here. */
static __always_inline int used(struct sock *sk)
{
	struct connection *connection;

	if (!is_tcp(sk))
		return 0;
	connection = bpf_sk_storage_get(&connections, sk, NULL, 0) ?: adopted(sk);
	if (!connection || connection->owned || sk->__sk_common.skc_state == TCP_LISTEN)
		return 0;
	owned_by_current(connection, sk);
	connection->owned = 1;
	return 0;
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(tcp_received, struct sock *sk, int result, int flags)
{
	return flags & MSG_PEEK ? 0 : used(sk); /* who only looks may hand it on */
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(tcp_sent, struct sock *sk)
{
	return used(sk);
}

/* A connect() that failed before a SYN was sent (no route, no free port, not allowed) changes no state, or tells no
 * error when it does. What failed after it was told by the state change. io_uring does not come by here. */
SEC("tracepoint/syscalls/sys_exit_connect")
int connect_returned(struct trace_event_raw_sys_exit *context)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tcp_connection *event, unsent = {};
	long error = -context->ret;
	struct sock *sk;

	if (tells_no_failure(error))
		return 0;
	sk = connected_socket(task);
	if (!sk || BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP || !read_peer(&unsent, task))
		return 0;
	if (error == EINVAL && !is_whole_address(sk, task))
		return 0;
	unsent.cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	if (was_told(sk, unsent.cookie, error) || follows_a_syn(error))
		return 0;
	COUNT(seen);
	head_of_current(&unsent.head);
	unsent.head.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	read_local(&unsent, sk);
	if (filtered(&unsent.head, unsent.remote_address, unsent.local_port, unsent.remote_port)) {
		COUNT(filtered);
		return 0;
	}
	if (summed_failure(&unsent.head, 0, error, unsent.head.time_ns))
		return 0;
	unsent.start_ns = unsent.head.time_ns;
	unsent.error = error;
	unsent.role = ROLE_CLIENT;
	unsent.kind = KIND_FAILED;
	event = event_reserve(sizeof(*event), 0);
	if (!event)
		return 0;
	*event = unsent;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
