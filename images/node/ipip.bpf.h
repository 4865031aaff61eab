/* SPDX-License-Identifier: GPL-2.0 */
/* What both programs of ipip.bpf.c need: counters, IPv4 headers, copies for captures. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define TUNNEL_INDEX 0x6970 /* agent/ipip.py creates the device with it */
#define LOOPBACK_INDEX 1
#define AF_INET 2
#define PACKET_HOST 0
#define DONT_FRAGMENT bpf_htons(0x4000)
#define FRAGMENT bpf_htons(0x3fff) /* more fragments, or an offset */
#define ECN 3
#define ECT_0 2
#define CE 3
#define MIRRORED TUNNEL_INDEX /* tc_index of copies */

/* agent/ipip.py has the names in the same order. */
enum counter {
	TX_PACKETS,
	TX_BYTES,
	TX_MIRRORED,
	TX_FRAG_NEEDED,
	TX_NOT_IPV4,
	TX_NO_ROUTE,
	TX_NO_REMOTE,
	TX_LOOP,
	TX_ERRORS,
	RX_PACKETS,
	RX_BYTES,
	RX_TO_STACK,
	RX_FRAGMENTS,
	RX_MALFORMED,
	RX_ECN,
	RX_ERRORS,
	COUNTERS
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(enum counter which, __u64 amount)
{
	__u32 key = which;
	__u64 *value = bpf_map_lookup_elem(&counters, &key);

	if (value)
		*value += amount;
}

static __always_inline int drop(enum counter why)
{
	count(why, 1);
	return TC_ACT_SHOT;
}

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline __u16 header_checksum(const struct iphdr *ip)
{
	const __u16 *words = (const void *)ip;
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += words[i];
	return fold(sum);
}

/* The IPv4 header at `offset`, with `more` bytes readable after it; NULL if it is shorter. */
static __always_inline struct iphdr *header(struct __sk_buff *skb, __u32 offset, __u32 more)
{
	__u32 end = offset + sizeof(struct iphdr) + more;
	void *data = (void *)(long)skb->data;

	if (data + end > (void *)(long)skb->data_end) {
		if (bpf_skb_pull_data(skb, end))
			return NULL;
		data = (void *)(long)skb->data;
		if (data + end > (void *)(long)skb->data_end)
			return NULL;
	}
	return data + offset;
}

/* An egress program that redirects hides its packets from packet sockets, whose tap comes later:
 * `tcpdump -i tunl0` would see one direction only. While somebody listens, a copy goes out through
 * the device, where the agent reads and discards it. The listeners are the kernel's own list
 * (kernel 6.2+; those of `-i any` since 6.15). */
struct list_head {
	struct list_head *next;
} __attribute__((preserve_access_index));
struct net {
	struct list_head ptype_all;
} __attribute__((preserve_access_index));
typedef struct {
	struct net *net;
} __attribute__((preserve_access_index)) possible_net_t;
struct net_device {
	struct list_head ptype_all;
	possible_net_t nd_net;
} __attribute__((preserve_access_index));
struct sk_buff {
	struct net_device *dev;
} __attribute__((preserve_access_index));
extern void *bpf_cast_to_kern_ctx(void *) __ksym __attribute__((weak));

static __always_inline int listened_to(struct __sk_buff *skb)
{
	struct list_head *next;
	struct sk_buff *kernel;

	if (!bpf_cast_to_kern_ctx)
		return 0;
	kernel = bpf_cast_to_kern_ctx(skb);
	next = kernel->dev->ptype_all.next; /* an empty list points to itself */
	if (next && next != next->next)
		return 1;
	if (!bpf_core_field_exists(((struct net *)0)->ptype_all))
		return 0;
	next = kernel->dev->nd_net.net->ptype_all.next;
	return next && next != next->next;
}

static __always_inline void mirror(struct __sk_buff *skb)
{
	if (!listened_to(skb))
		return;
	skb->tc_index = MIRRORED;
	bpf_clone_redirect(skb, TUNNEL_INDEX, 0);
	skb->tc_index = 0;
	count(TX_MIRRORED, 1);
}
