/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ends of connections beyond the rate of their cgroup: added up instead of told. Include once, after tcp_record.bpf.h. */
#pragma once

/* Connections that were established up to then may have been counted in part by a snapshot, and only user space knows
 * how far: their ends are always told. User space sets it to the end of time, waits until no program runs that read
 * the old value, and takes the snapshot; tcp_snapshot() sets it to the time at which it was through. */
__u64 snapshot_until_ns SEC(".data") = 0;

#define CLOCK_SKEW_NS 1000000 /* of ktime_get_boot_ns() between CPUs while the kernel's clock is adjusted */

static __always_inline void add_up(struct bucket *over, const struct event_head *owner,
				   const struct tcp_connection *end)
{
	struct throttled_key key = {
		.cgroup_id = owner->cgroup_id,
		.executable = owner->executable,
		.kind = end->kind,
		.role = end->role,
		.error = end->kind == KIND_FAILED ? end->error : 0,
		.how = end->close_reason,
	};
	struct throttled *entry = sums_of(over, &key, owner->pid, owner->comm);

	if (!entry)
		return;
	__sync_fetch_and_add(&entry->sums.events, 1);
	__sync_fetch_and_add(&entry->sums.retransmits, end->retransmits);
	if (end->kind == KIND_FAILED)
		return;
	__sync_fetch_and_add(&entry->sums.tx_bytes, end->tx_bytes);
	__sync_fetch_and_add(&entry->sums.rx_bytes, end->rx_bytes);
	__sync_fetch_and_add(&entry->sums.tx_resets, end->tx_resets);
	__sync_fetch_and_add(&entry->sums.rx_resets, end->rx_resets);
}

/* Whether no snapshot has counted any of this connection, nor will. The mark comes before the look: a snapshot for which
 * the look was too early finds the mark, because user space waited for this program in between. */
static __always_inline bool is_whole(struct connection *connection)
{
	connection->summed = 1;
	asm volatile("" ::: "memory");
	return connection->start_ns > *(volatile __u64 *)&snapshot_until_ns;
}
