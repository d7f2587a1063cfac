/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is alive: taken up when the agent starts, and counted again and again. Include once, after tcp_throttle.bpf.h and
 * before any program: programs are loaded in the order of their sections, and a walk that the kernel may refuse should be
 * refused before others have been verified in vain. */
#pragma once

/* One that lives. Nothing may be marked here: when its buffer is full the kernel calls again for the same element, and a
 * close on another CPU may come between. */
static __always_inline int tell_living(struct seq_file *seq, struct sock *sk, const struct connection *connection)
{
	struct tcp_connection event = {};
	struct tcp_sock *tcp;
	__u8 state;

	if (!connection || connection->summed || (!connection->start_ns && !connection->adopted))
		return 0;
	state = sk->__sk_common.skc_state;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp || state == TCP_CLOSE || state == TCP_LISTEN || state == TCP_SYN_SENT)
		return 0;
	if (unwanted(sk, tcp, &connection->owner))
		return 0;
	fill(&event, sk, tcp, connection, KIND_SNAPSHOT, bpf_ktime_get_boot_ns());
	bpf_seq_write(seq, &event, sizeof(event));
	return 0;
}

static __always_inline int snapshot_is_through(void)
{
	snapshot_until_ns = bpf_ktime_get_boot_ns() + CLOCK_SKEW_NS;
	return 0;
}

/* All connections that live, in every network namespace. */
SEC("iter/bpf_sk_storage_map")
int tcp_snapshot(struct bpf_iter__bpf_sk_storage_map *context)
{
	struct sock *sk = context->sk;

	if (!sk)
		return snapshot_is_through();
	return tell_living(context->meta->seq, sk, context->value);
}

static __always_inline struct sock *tcp_socket_of(struct file *file)
{
	struct socket *socket = bpf_sock_from_file(file);
	struct sock *sk = socket ? socket->sk : NULL;

	return sk && is_tcp(sk) ? sk : NULL;
}

/* The same where a kernel forbids iterators that could write to what they are shown: by the files that processes have
 * open, so once for each of them. What nobody has open is passed over: connections that wait to be accepted, or whose
 * last bytes leave after close(). */
SEC("iter/task_file")
int tcp_snapshot_of_files(struct bpf_iter__task_file *context)
{
	struct file *file = context->file;
	struct sock *sk;

	if (!context->task || !file)
		return snapshot_is_through();
	sk = tcp_socket_of(file);
	if (!sk)
		return 0;
	return tell_living(context->meta->seq, sk, bpf_sk_storage_get(&connections, sk, NULL, 0));
}

/* For a socket that is older than the agent; NULL if it is not connected and does not listen. */
static __always_inline struct connection *adopted(struct sock *sk)
{
	__u16 family = sk->__sk_common.skc_family;
	__u8 state = sk->__sk_common.skc_state;
	struct connection *connection;
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);

	if (!tcp || state == TCP_CLOSE || (family != AF_INET && family != AF_INET6))
		return NULL;
	connection = bpf_sk_storage_get(&connections, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!connection)
		return NULL;
	connection->adopted = 1;
	connection->tx_bytes_before = payload_sent(tcp);
	connection->rx_bytes_before = payload_received(sk, tcp);
	connection->retransmits_before = tcp->total_retrans;
	connection->role = state == TCP_LISTEN ? ROLE_SERVER : role_by_counters(tcp, state);
	return connection;
}

/* What exists when the agent starts: the first process that holds the socket is taken for its owner until one reads
 * or writes. Listeners too, so that what they accept has an owner. May be called again for the same file. */
SEC("iter/task_file")
int tcp_adopt(struct bpf_iter__task_file *context)
{
	struct task_struct *task = context->task;
	struct file *file = context->file;
	struct connection *connection;
	struct sock *sk;

	if (!task || !file)
		return 0;
	sk = tcp_socket_of(file);
	if (!sk || bpf_sk_storage_get(&connections, sk, NULL, 0))
		return 0;
	connection = adopted(sk);
	if (!connection)
		return 0;
	connection->owner.cgroup_id = cgroup_id_of(task);
	connection->owner.executable = executable_of(task);
	connection->owner.pid = task->tgid;
	connection->owner.netns = netns_of_socket(sk);
	bpf_core_read(connection->owner.comm, sizeof(connection->owner.comm), &task->comm);
	return 0;
}
