/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a process runs and how it ends: one event an exec, one event the end of a whole thread group, whether it ever
 * called exec or not. Arguments are not read, but argv[0]: they carry secrets. */
#include "kernel.bpf.h"
#include "event.bpf.h"
#include "filter.bpf.h"

/* What the counters need of processes that are not told one by one. */
struct throttled_sums {
	__u64 events;
};
#include "throttle.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define FILENAME_BYTES 256
#define COMMAND_BYTES 128
#define NAME_BYTES 256 /* NAME_MAX and its NUL */
#define PATH_DEPTH 32  /* components and mounts crossed; 256 bytes seldom hold more */
#define SIGNAL_GROUP_EXIT 4
#define CORE_DUMPED 0x80

enum process_kind { PROCESS_EXEC = 1, PROCESS_EXIT = 2 };
enum exit_class { EXIT_OK = 1, EXIT_ERROR = 2, EXIT_SIGNAL = 3, EXIT_OOM = 4 };

struct process {
	struct event_head head;
	__u64 start_ns; /* creation */
	__u64 parent_executable;
	__u32 parent_pid;
	__u32 uid; /* effective */
	__u8 kind;
	__u8 exit_code;
	__u8 exit_signal;
	__u8 oom;
	char parent_comm[16];
	char filename[FILENAME_BYTES]; /* exec: path of the file that runs (of a script: the interpreter's) */
	char command[COMMAND_BYTES];   /* exec: argv[0] */
};
EVENT(process);

typedef struct {
	int counter;
} atomic_t;
typedef struct {
	__u32 val;
} kuid_t;
struct cred {
	kuid_t euid;
} KERNEL;
struct signal_struct {
	atomic_t live;
	int group_exit_code;
	unsigned int flags;
	struct mm_struct *oom_mm;
} KERNEL;
struct task_struct___process {
	int tgid;
	int exit_code;
	unsigned long long start_boottime;
	struct mm_struct *mm;
	struct task_struct___process *real_parent;
	struct task_struct___process *group_leader;
	struct signal_struct *signal;
	const struct cred *cred;
	char comm[16];
} KERNEL;

struct qstr {
	const unsigned char *name;
} KERNEL;
struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
} KERNEL;
struct vfsmount {
	struct dentry *mnt_root;
} KERNEL;
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
} KERNEL;
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
} KERNEL;
struct file___path {
	struct path f_path;
} KERNEL;

/* A path grows from its end, so it needs room for the longest name before what fits the event. */
struct scratch {
	char path[FILENAME_BYTES + NAME_BYTES];
	char name[NAME_BYTES];
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

/* Thread groups whose end has been told; only where the kernel does not say which thread is the last. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u8);
} ended SEC(".maps");

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return (void *)mnt - bpf_core_field_offset(struct mount, mnt);
}

/* The path of an open file as /proc/PID/exe shows it, but without a race: the process may live a millisecond.
 * What the caller asked to run is no substitute: it may be relative, a symbolic link or a script.
 * Of a path that does not fit the end is kept, without a '/' before it. */
static __always_inline void path_of(struct file___path *file, char *to)
{
	__u32 zero = 0, at = FILENAME_BYTES - 1;
	struct scratch *room = bpf_map_lookup_elem(&scratch, &zero);
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);
	struct mount *mount = mount_of(BPF_CORE_READ(file, f_path.mnt));

	if (!room || !dentry)
		return;
	room->path[at] = 0;
	for (int depth = 0; depth < PATH_DEPTH; depth++) {
		struct dentry *parent = BPF_CORE_READ(dentry, d_parent);

		if (dentry == BPF_CORE_READ(mount, mnt.mnt_root)) {
			struct mount *below = BPF_CORE_READ(mount, mnt_parent);

			if (below == mount) {
				dentry = NULL;
				break;
			}
			dentry = BPF_CORE_READ(mount, mnt_mountpoint);
			mount = below;
			continue;
		}
		/* With the NUL, in whose place goes the '/' before it. */
		long size = bpf_probe_read_kernel_str(room->name, NAME_BYTES, BPF_CORE_READ(dentry, d_name.name));

		if (size < 2 || size > at)
			break;
		at -= size;
		asm volatile("%0 &= 0xff" : "+r"(at));
		asm volatile("" : "+r"(size));
		room->path[at] = '/';
		bpf_probe_read_kernel(room->path + at + 1, (size - 1) & (NAME_BYTES - 1), room->name);
		if (parent == dentry) { /* a file without a place, such as a memfd */
			dentry = NULL;
			break;
		}
		dentry = parent;
	}
	if (dentry)
		at++;
	bpf_probe_read_kernel_str(to, FILENAME_BYTES, room->path + (at & (FILENAME_BYTES - 1)));
}

static __always_inline void fill_common(struct process *event, struct event_head *head,
					struct task_struct___process *task, enum process_kind kind)
{
	struct task_struct___process *leader = task->group_leader;
	struct task_struct___process *parent = leader->real_parent;

	event->head = *head;
	event->kind = kind;
	event->start_ns = leader->start_boottime;
	event->uid = task->cred->euid.val;
	event->parent_pid = parent->tgid;
	event->parent_executable = executable_of((struct task_struct *)parent);
	bpf_probe_read_kernel_str(event->parent_comm, sizeof(event->parent_comm), parent->comm);
}

static __always_inline void add_up(struct bucket *over, const struct event_head *head, enum process_kind kind,
				   enum exit_class exit_class)
{
	struct throttled_key key = {
		.cgroup_id = head->cgroup_id, .executable = head->executable, .kind = kind, .how = exit_class
	};
	struct throttled *entry = sums_of(over, &key, head->pid, head->comm);

	if (entry)
		__sync_fetch_and_add(&entry->sums.events, 1);
}

/* Room for an event, or NULL and why is counted. `exit_class` is 0 of an exec. */
static __always_inline struct process *begin(struct event_head *head, enum process_kind kind,
					     enum exit_class exit_class)
{
	struct bucket *over;

	head_of_current(head);
	COUNT(seen);
	if (filtered_owner(head)) {
		COUNT(filtered);
		return NULL;
	}
	over = over_rate(head->cgroup_id, head->time_ns);
	if (over) {
		add_up(over, head, kind, exit_class);
		return NULL;
	}
	return event_reserve(sizeof(struct process), sizeof(struct process));
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(executed, struct task_struct___process *task)
{
	struct event_head head;
	struct process *event = begin(&head, PROCESS_EXEC, 0);

	if (!event)
		return 0;
	fill_common(event, &head, task, PROCESS_EXEC);
	path_of((struct file___path *)task->mm->exe_file, event->filename);
	bpf_probe_read_user_str(event->command, COMMAND_BYTES, (void *)task->mm->arg_start);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

static __always_inline __u8 signal_of(int status)
{
	return status & (CORE_DUMPED - 1);
}

static __always_inline enum exit_class exit_class_of(int status, bool oom)
{
	if (oom)
		return EXIT_OOM;
	if (signal_of(status))
		return EXIT_SIGNAL;
	return status >> 8 & 0xff ? EXIT_ERROR : EXIT_OK;
}

static __always_inline int tell_exit(struct task_struct___process *task)
{
	struct event_head head;
	struct signal_struct *signal = task->signal;
	struct task_struct___process *leader = task->group_leader;
	int status = signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code : leader->exit_code;
	bool oom = signal->oom_mm != NULL;
	struct process *event = begin(&head, PROCESS_EXIT, exit_class_of(status, oom));

	if (!event)
		return 0;
	fill_common(event, &head, task, PROCESS_EXIT);
	/* The last thread may have a name of its own. */
	bpf_probe_read_kernel_str(event->head.comm, sizeof(event->head.comm), leader->comm);
	event->exit_code = status >> 8;
	event->exit_signal = signal_of(status);
	event->oom = oom;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* Since 6.16 ("exit: move and extend sched_process_exit() tracepoint"): says which thread is the last one, and fires
 * while the memory map is still there. Older kernels refuse the second argument, and the next way is taken. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(exited, struct task_struct___process *task, bool group_dead)
{
	return group_dead ? tell_exit(task) : 0;
}

/* Before: two threads that end at once may both see that none lives; the first of them tells. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(exited_by_count, struct task_struct___process *task)
{
	__u64 group = (__u64)task->group_leader->start_boottime << 22 ^ task->tgid;
	__u8 told = 1;

	if (task->signal->live.counter != 0 || bpf_map_update_elem(&ended, &group, &told, BPF_NOEXIST))
		return 0;
	return tell_exit(task);
}
