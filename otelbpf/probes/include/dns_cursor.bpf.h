/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The messages at one place of a DNS stream, each behind its length: whole, or gathered from several segments. Only the
 * beginning of a message is gathered; the rest is stepped over.
 * Include once, after dns_packet.bpf.h; message_seen() is its caller's. */
#pragma once

#define LENGTH_BYTES 2
#define MESSAGES_OF_SEGMENT 128 /* what a program sends at once may be one segment here */

int message_seen(struct __sk_buff *skb, struct message *message);

enum order {
	NEW,
	IN_ORDER,
	LOST, /* where the next message begins is not known; a segment that begins with one shows it */
};

/* One direction of a connection. */
struct stream {
	__u32 next; /* sequence number of the first byte that has not been looked at */
	__u16 gathered;
	__u8 order;
	bool taken;
};

/* What has come of a message that is not there as far as it is wanted. */
struct part {
	__u8 bytes[2 *
		   (LENGTH_BYTES + MESSAGE_BYTES)]; /* the first half: the verifier adds the longest to the longest */
};

/* The bytes of a segment, or of one that was held, from `at` to `end`. */
struct cursor {
	__u64 memory; /* 0: in the packet */
	__u32 at;
	__u32 end;
	__u32 zero; /* sequence number of where `at` is 0 */
	__u32 step; /* to the end of the message that was found */
};

static __always_inline long read_cursor(struct __sk_buff *skb, const struct cursor *cursor, void *to, __u64 bytes)
{
	if (cursor->memory)
		return bpf_probe_read_kernel(to, bytes, (void *)(cursor->memory + cursor->at));
	return bpf_skb_load_bytes(skb, cursor->at, to, bytes);
}

static __always_inline __u32 wanted_of(__u32 bytes)
{
	return bytes < MESSAGE_BYTES ? bytes : MESSAGE_BYTES;
}

enum turn { MORE, FOUND, DONE, NO_ROOM };

/* A message that lies at the cursor as far as it is wanted. */
static __always_inline enum turn whole_message(struct __sk_buff *skb, struct message *message, struct cursor *cursor,
					       struct stream *stream)
{
	__u32 left = cursor->end - cursor->at;
	__be16 length;

	if (left < LENGTH_BYTES || read_cursor(skb, cursor, &length, sizeof(length)))
		return MORE;
	message->bytes = bpf_ntohs(length);
	left -= LENGTH_BYTES;
	message->present = message->bytes < left ? message->bytes : left;
	message->unsure = stream->order == LOST;
	if (left < wanted_of(message->bytes) && !message->unsure)
		return MORE;
	message->memory = cursor->memory ? cursor->memory + cursor->at + LENGTH_BYTES : 0;
	message->offset = cursor->at + LENGTH_BYTES;
	message->sequence = cursor->zero + cursor->at;
	cursor->step = LENGTH_BYTES + message->bytes; /* maybe beyond the end: what follows is stepped over */
	return FOUND;
}

/* Adds what there is to the message that is being gathered. */
static __always_inline enum turn gather(struct __sk_buff *skb, struct message *message, struct cursor *cursor,
					struct stream *stream, struct part *part)
{
	__u64 gathered = stream->gathered, left = cursor->end - cursor->at;
	__u32 bytes = part->bytes[0] << 8 | part->bytes[1];
	__s64 missing = (gathered < LENGTH_BYTES ? LENGTH_BYTES : LENGTH_BYTES + wanted_of(bytes)) - gathered;

	if (missing > (__s64)left)
		missing = left;
	OPAQUE(missing);
	OPAQUE(gathered);
	if (missing > MESSAGE_BYTES || gathered > LENGTH_BYTES + MESSAGE_BYTES ||
	    (missing > 0 && read_cursor(skb, cursor, part->bytes + gathered, missing)))
		return DONE;
	stream->gathered = gathered += missing;
	cursor->at += missing;
	bytes = part->bytes[0] << 8 | part->bytes[1];
	if (gathered < LENGTH_BYTES || gathered < LENGTH_BYTES + wanted_of(bytes))
		return MORE;
	message->memory = (__u64)(long)part->bytes + LENGTH_BYTES;
	message->bytes = bytes;
	message->present = wanted_of(bytes);
	message->unsure = false;
	message->sequence = cursor->zero + cursor->at;
	stream->gathered = 0;
	cursor->step = bytes - wanted_of(bytes);
	return FOUND;
}

/* The next message at the cursor, or a part of it. */
__noinline int next_message(struct __sk_buff *skb, struct message *message, struct cursor *cursor,
			    struct stream *stream, struct part *part)
{
	if (!message || !cursor || !stream || (__s32)(cursor->end - cursor->at) <= 0)
		return DONE;
	if (!stream->gathered && whole_message(skb, message, cursor, stream) == FOUND)
		return FOUND;
	if (stream->order == LOST)
		return DONE;
	return part ? gather(skb, message, cursor, stream, part) : NO_ROOM;
}

/* Looks at all messages at the cursor. */
__noinline int consume(struct __sk_buff *skb, struct message *message, struct cursor *cursor, struct stream *stream,
		       struct part *part)
{
	if (!message || !cursor || !stream)
		return DONE;
	for (int i = 0; i < MESSAGES_OF_SEGMENT; i++) {
		int turn = next_message(skb, message, cursor, stream, part);

		if (turn == FOUND) {
			if (message_seen(skb, message) && message->unsure)
				return DONE;
			stream->order = IN_ORDER;
			cursor->at += cursor->step;
		} else if (turn != MORE) {
			return turn;
		}
	}
	return DONE;
}
