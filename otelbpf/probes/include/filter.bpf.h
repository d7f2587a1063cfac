/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the user does not want to see, decided where it costs least. Include once, after event.bpf.h.
 * The lists may change while programs run; one that is not used costs the test of a bit. */
#pragma once

#define FILTER_INCLUDE 1
#define FILTER_EXCLUDE 2
#define FILTER_ENTRIES 2048 /* twice what user space puts in: a new list is there before the former one goes */

/* The agent's thread group in the initial pid namespace: what it sends is not news. 0 = off. */
const volatile __u32 self_pid = 0;

/* The lists that are used. A pair for each kind: something of the one list must match, nothing of the other may. Cgroups
 * that are to be included are chosen in user space: a list here would lose the first events of each new one. */
#define PORTS_INCLUDE 1
#define PORTS_EXCLUDE 2
#define ADDRESSES_INCLUDE 4
#define ADDRESSES_EXCLUDE 8
#define CGROUPS_EXCLUDE 16
#define PORTS (PORTS_INCLUDE | PORTS_EXCLUDE)
#define ADDRESSES (ADDRESSES_INCLUDE | ADDRESSES_EXCLUDE)

/* Not in .bss: that is where all CPUs count. */
__u32 filter_lists SEC(".data") = 0;

struct filter_prefix {
	__u32 length;     /* bits, 96 more than an IPv4 prefix has */
	__u8 address[16]; /* IPv4 as ::ffff:a.b.c.d */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, FILTER_ENTRIES);
	__type(key, __u16);
	__type(value, __u8);
} filter_ports SEC(".maps");

/* The longest prefix decides. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, FILTER_ENTRIES);
	__type(key, struct filter_prefix);
	__type(value, __u8);
} filter_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, FILTER_ENTRIES);
	__type(key, __u64); /* as in head.cgroup_id */
	__type(value, __u8);
} filter_cgroups SEC(".maps");

static __always_inline bool filter_says(const __u8 *verdict, __u8 wanted)
{
	return verdict && *verdict == wanted;
}

static __always_inline bool filtered_ports(__u32 lists, __u16 local, __u16 remote)
{
	const __u8 *one = bpf_map_lookup_elem(&filter_ports, &local);
	const __u8 *other = bpf_map_lookup_elem(&filter_ports, &remote);

	if (filter_says(one, FILTER_EXCLUDE) || filter_says(other, FILTER_EXCLUDE))
		return true;
	return lists & PORTS_INCLUDE && !filter_says(one, FILTER_INCLUDE) && !filter_says(other, FILTER_INCLUDE);
}

static __always_inline bool filtered_cgroup(__u64 cgroup_id)
{
	return filter_says(bpf_map_lookup_elem(&filter_cgroups, &cgroup_id), FILTER_EXCLUDE);
}

static __always_inline bool filtered_address(__u32 lists, const __u8 remote[16])
{
	struct filter_prefix prefix = { .length = 128 };
	const __u8 *verdict;

	__builtin_memcpy(prefix.address, remote, sizeof(prefix.address));
	verdict = bpf_map_lookup_elem(&filter_addresses, &prefix);
	return filter_says(verdict, FILTER_EXCLUDE) ||
	       (lists & ADDRESSES_INCLUDE && !filter_says(verdict, FILTER_INCLUDE));
}

/* For events that belong to a process only. */
static __always_inline bool filtered_owner(const struct event_head *head)
{
	if (self_pid && head->pid == self_pid)
		return true;
	return filter_lists & CGROUPS_EXCLUDE && filtered_cgroup(head->cgroup_id);
}

/* Whoever it belongs to. Ports in host order. */
static __always_inline bool filtered_ends(const __u8 remote[16], __u16 local_port, __u16 remote_port)
{
	__u32 lists = filter_lists;

	if (lists & PORTS && filtered_ports(lists, local_port, remote_port))
		return true;
	return lists & ADDRESSES && filtered_address(lists, remote);
}

/* Whether the user does not want this event; the caller counts it (`COUNT(filtered)`). */
static __always_inline bool filtered(const struct event_head *head, const __u8 remote[16], __u16 local_port,
				     __u16 remote_port)
{
	return filtered_owner(head) || filtered_ends(remote, local_port, remote_port);
}
