// SPDX-License-Identifier: GPL-2.0
// IP-in-IP (RFC 2003) by two tc programs, for kernels without the ipip driver.
//
// "encapsulate" is attached to the egress of the tunnel device, a TUN; "decapsulate" to the ingress
// of the uplink. Outer headers are those of the kernel's fallback device tunl0 (ip_tunnel_xmit()
// with `ttl inherit`, `tos 0`, `nopmtudisc`). Nothing is configured but routes: the remote end is
// the gateway of the inner packet's route, and the outer source that of the route to it. The
// tunnel device has the same ifindex in every node, so that no map has to tell it.
#include "ipip.bpf.h"

#define QUOTED 128 /* bytes of the refused packet in an ICMP error */

/* This file's own: linux/icmp.h does not compile for this target without 32 bit C headers. */
struct frag_needed {
	struct iphdr ip;
	__u8 type, code;
	__u16 checksum, unused, mtu;
};

/* Answer the inner packet with ICMP "fragmentation needed", received from the tunnel device. Its
 * source is the inner destination: one of the node's own addresses would be a martian there. */
static __always_inline int frag_needed(struct __sk_buff *skb, __u32 source, __u32 destination,
				       __u16 mtu)
{
	struct frag_needed answer = {};
	const __u32 icmp = sizeof(struct iphdr), quote = sizeof(answer);
	void *data;

	count(TX_FRAG_NEEDED, 1);
	if (skb->len < QUOTED || bpf_skb_change_tail(skb, QUOTED, 0) ||
	    bpf_skb_adjust_room(skb, sizeof(answer), BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_NO_CSUM_RESET))
		return drop(TX_ERRORS);
	answer.ip.version = 4;
	answer.ip.ihl = 5;
	answer.ip.tos = 0xc0; /* internetwork control, as the kernel's ICMP errors */
	answer.ip.tot_len = bpf_htons(sizeof(answer) + QUOTED);
	answer.ip.id = bpf_get_prandom_u32();
	answer.ip.ttl = 64;
	answer.ip.protocol = IPPROTO_ICMP;
	answer.ip.saddr = destination;
	answer.ip.daddr = source;
	answer.ip.check = header_checksum(&answer.ip);
	answer.type = 3;
	answer.code = 4;
	answer.mtu = bpf_htons(mtu);
	if (bpf_skb_store_bytes(skb, 0, &answer, sizeof(answer), 0))
		return drop(TX_ERRORS);
	data = (void *)(long)skb->data;
	if (data + quote + QUOTED > (void *)(long)skb->data_end)
		return drop(TX_ERRORS);
	answer.checksum = fold((__u32)bpf_csum_diff(0, 0, data + icmp, quote - icmp + QUOTED, 0));
	bpf_skb_store_bytes(skb, 0, &answer, sizeof(answer), 0);
	return bpf_redirect(TUNNEL_INDEX, BPF_F_INGRESS);
}

/* The length of the packet, or of the longest one that it will be segmented into; 0: unreadable.
 * gso_segs says nothing: it is 0 after decapsulation. */
static __always_inline __u32 segment_length(struct __sk_buff *skb)
{
	struct tcp {
		__u8 before[12], offset, after[7];
	} *tcp;
	struct iphdr *ip = header(skb, 0, 0);

	if (!ip)
		return 0;
	if (!skb->gso_size)
		return bpf_ntohs(ip->tot_len);
	ip = header(skb, 0, sizeof(*tcp));
	if (!ip)
		return 0;
	tcp = (void *)(ip + 1);
	return skb->gso_size + sizeof(*ip) +
	       (ip->protocol == IPPROTO_TCP ? (tcp->offset >> 4) * 4 : 8);
}

/* The route that a packet of the node's own would take. NO_NEIGH: found, MAC address unknown. */
static __always_inline long route(struct __sk_buff *skb, struct bpf_fib_lookup *found, __u32 remote,
				  __u16 length)
{
	long result;

	__builtin_memset(found, 0, sizeof(*found));
	found->family = AF_INET;
	found->l4_protocol = IPPROTO_IPIP;
	found->ipv4_dst = remote;
	found->ifindex = LOOPBACK_INDEX;
	found->tot_len = length;
	result = bpf_fib_lookup(skb, found, sizeof(*found), 1U << 4 /* BPF_FIB_LOOKUP_SRC */);
	return result == BPF_FIB_LKUP_RET_NO_NEIGH ? BPF_FIB_LKUP_RET_SUCCESS : result;
}

/* The remote end: the gateway of the inner packet's route, or without one its destination. */
static __always_inline long find_remote(struct __sk_buff *skb, const struct iphdr *ip,
					__u32 *remote)
{
	struct bpf_fib_lookup found = {};
	long result;

	found.family = AF_INET;
	found.l4_protocol = ip->protocol;
	found.tos = ip->tos;
	found.ipv4_src = ip->saddr;
	found.ipv4_dst = ip->daddr;
	found.ifindex = TUNNEL_INDEX;
	result = bpf_fib_lookup(skb, &found, sizeof(found), BPF_FIB_LOOKUP_OUTPUT);
	*remote = found.ipv4_dst;
	/* without a length, "fragmentation needed" comes after the route was found */
	return result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH &&
	       result != BPF_FIB_LKUP_RET_FRAG_NEEDED;
}

/* Put the outer header before the packet, and room for a MAC header before that: without it,
 * bpf_redirect_neigh() drops the packet. */
static __always_inline int push(struct __sk_buff *skb, const struct iphdr *outer)
{
	const __u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;
	const __u32 size = sizeof(*outer);

	if (bpf_skb_change_head(skb, ETH_HLEN, 0))
		return -1;
	/* A packet that "decapsulate" made still counts as encapsulated, with the right offsets:
	 * the first try then fails with EALREADY, and only the room is missing. */
	if (bpf_skb_adjust_room(skb, size, BPF_ADJ_ROOM_MAC,
				flags | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4) &&
	    bpf_skb_adjust_room(skb, size, BPF_ADJ_ROOM_MAC, flags))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_HLEN, outer, size, 0);
}

/* What the outer header has of the inner one. */
static __always_inline void inherit(struct iphdr *outer, const struct iphdr *ip)
{
	outer->version = 4;
	outer->ihl = 5;
	outer->tos = (ip->tos & ECN) == CE ? ECT_0 : ip->tos & ECN; /* INET_ECN_encapsulate() */
	outer->frag_off = ip->frag_off & DONT_FRAGMENT;
	outer->ttl = ip->ttl;
	outer->protocol = IPPROTO_IPIP;
}

SEC("tc/encapsulate")
int ipip_encapsulate(struct __sk_buff *skb)
{
	struct bpf_fib_lookup uplink;
	struct iphdr *ip, outer = {};
	__u32 remote, source, destination, length;
	__u32 packet = skb->len;
	long result;

	if (skb->tc_index == MIRRORED)
		return TC_ACT_OK;
	mirror(skb);
	ip = skb->protocol == bpf_htons(ETH_P_IP) ? header(skb, 0, 0) : NULL;
	if (!ip || ip->version != 4)
		return drop(TX_NOT_IPV4);
	source = ip->saddr;
	destination = ip->daddr;
	inherit(&outer, ip);
	if (find_remote(skb, ip, &remote))
		return drop(TX_NO_ROUTE);
	length = segment_length(skb);
	if (!length)
		return drop(TX_ERRORS);
	result = route(skb, &uplink, remote, length + sizeof(outer));
	if (result == BPF_FIB_LKUP_RET_FRAG_NEEDED) {
		if (outer.frag_off)
			return frag_needed(skb, source, destination,
					   uplink.mtu_result - sizeof(outer));
		/* A router may fragment it. That answer holds no route: ask again. */
		result = route(skb, &uplink, remote, 0);
	}
	if (result != BPF_FIB_LKUP_RET_SUCCESS)
		return drop(TX_NO_REMOTE);
	if (uplink.ifindex == TUNNEL_INDEX)
		return drop(TX_LOOP);
	outer.tot_len = bpf_htons(packet + sizeof(outer));
	outer.id = bpf_get_prandom_u32();
	outer.saddr = uplink.ipv4_src;
	outer.daddr = remote;
	outer.check = header_checksum(&outer);
	if (push(skb, &outer))
		return drop(TX_ERRORS);
	count(TX_PACKETS, 1);
	count(TX_BYTES, packet);
	/* No explicit next hop: the packet would keep the inner route, and be lost when it waits
	 * for the answer to an ARP request. */
	return bpf_redirect_neigh(uplink.ifindex, NULL, 0, 0);
}

/* RFC 6040: a congestion mark on the outer header moves to the inner one. */
static __always_inline void mark_congestion(struct __sk_buff *skb, const struct iphdr *inner)
{
	const __u32 offset = ETH_HLEN + sizeof(*inner);
	__u16 was = *(const __u16 *)inner, now = was | bpf_htons(CE);

	bpf_skb_store_bytes(skb, offset, &now, sizeof(now), BPF_F_RECOMPUTE_CSUM);
	bpf_l3_csum_replace(skb, offset + __builtin_offsetof(struct iphdr, check), was, now, 2);
}

/* What is left to the stack reaches the agent's raw socket, if it is for this node: fragments,
 * reassembled by then, and packets to an address that this node would not use for answers. */
SEC("tc/decapsulate")
int ipip_decapsulate(struct __sk_buff *skb)
{
	struct bpf_fib_lookup back;
	struct iphdr *ip, *inner;
	__u32 local, packet = skb->len - ETH_HLEN - sizeof(*ip);
	long result;

	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->pkt_type != PACKET_HOST)
		return TC_ACT_UNSPEC;
	ip = header(skb, ETH_HLEN, 0);
	if (!ip || ip->protocol != IPPROTO_IPIP)
		return TC_ACT_UNSPEC;
	if (ip->frag_off & FRAGMENT) {
		count(RX_FRAGMENTS, 1);
		return TC_ACT_UNSPEC;
	}
	ip = header(skb, ETH_HLEN, sizeof(*inner));
	if (!ip || ip->version != 4 || ip->ihl != 5 || header_checksum(ip))
		return drop(RX_MALFORMED);
	local = ip->daddr;
	result = route(skb, &back, ip->saddr, 0);
	if ((result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_FRAG_NEEDED) ||
	    back.ipv4_src != local) {
		count(RX_TO_STACK, 1);
		return TC_ACT_UNSPEC;
	}
	inner = ip + 1;
	if (inner->version != 4 || inner->ihl < 5)
		return drop(RX_MALFORMED);
	if ((ip->tos & ECN) == CE && (inner->tos & ECN) != CE) {
		if (!(inner->tos & ECN))
			return drop(RX_ECN);
		mark_congestion(skb, inner);
	}
	if (bpf_skb_adjust_room(skb, -(int)sizeof(*ip), BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET))
		return drop(RX_ERRORS);
	count(RX_PACKETS, 1);
	count(RX_BYTES, packet);
	return bpf_redirect(TUNNEL_INDEX, BPF_F_INGRESS);
}

char licence[] SEC("license") = "GPL";
