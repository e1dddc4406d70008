/** Bytes of packets, written out by hand so that they can be wrong in any way a test wants. */

/** EtherTypes (IEEE 802). */
export const etherType = {
  ipv4: 0x0800,
  arp: 0x0806,
  vlan: 0x8100,
  qinq: 0x88a8,
  ipv6: 0x86dd,
  mpls: 0x8847,
  pppoe: 0x8863,
  lldp: 0x88cc,
} as const

export const everybody = 'ff:ff:ff:ff:ff:ff'

export function ethernet(to: string, from: string, type: number, payload: Buffer): Buffer {
  return Buffer.concat([macBytes(to), macBytes(from), uint16(type), payload])
}

/** An ARP packet (RFC 826): 1 asks, 2 answers. */
export function arp(
  operation: 1 | 2,
  sender: { mac: string; ip: string },
  target: { mac: string; ip: string },
): Buffer {
  const ends = [sender, target].flatMap(({ mac, ip }) => [macBytes(mac), ipBytes(ip)])
  return Buffer.concat([Buffer.from(`000108000604000${operation}`, 'hex'), ...ends])
}

interface Ipv4Options {
  /** Bytes of the whole datagram before this fragment, a multiple of 8. */
  offset?: number
  moreFragments?: boolean
  /** What the fragments of one datagram have in common. */
  id?: number
  /** IANA protocol number; UDP by default. */
  protocol?: number
}

/** An IPv4 packet (RFC 791). */
export function ipv4(from: string, to: string, payload: Buffer, options: Ipv4Options = {}): Buffer {
  const { offset = 0, moreFragments = false, id = 0, protocol = 17 } = options
  const head = Buffer.alloc(20)
  head.writeUInt8(0x45, 0)
  head.writeUInt16BE(20 + payload.length, 2)
  head.writeUInt16BE(id, 4)
  head.writeUInt16BE((moreFragments ? 0x2000 : 0) | (offset / 8), 6)
  head.writeUInt8(64, 8)
  head.writeUInt8(protocol, 9)
  ipBytes(from).copy(head, 12)
  ipBytes(to).copy(head, 16)
  head.writeUInt16BE(checksum(head), 10)
  return Buffer.concat([head, payload])
}

/** A UDP datagram without a checksum, which IPv4 allows (RFC 768). */
export function udp(sourcePort: number, port: number, payload: string | Buffer): Buffer {
  const data = Buffer.from(payload)
  return Buffer.concat([uint16(sourcePort), uint16(port), uint16(8 + data.length), uint16(0), data])
}

/** An ICMP message about a packet that did not arrive (RFC 792). `rest` is the second word, such as the next hop's MTU. */
export function icmpError(type: number, code: number, packet: Buffer, rest = 0): Buffer {
  const head = Buffer.alloc(8)
  head.writeUInt8(type, 0)
  head.writeUInt8(code, 1)
  head.writeUInt32BE(rest, 4)
  const message = Buffer.concat([head, packet])
  message.writeUInt16BE(checksum(message), 2)
  return message
}

export function macBytes(mac: string): Buffer {
  return Buffer.from(mac.replaceAll(':', ''), 'hex')
}

export function ipBytes(ip: string): Buffer {
  return Buffer.from(ip.split('.').map(Number))
}

function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value)
  return bytes
}

/** The Internet checksum (RFC 1071). */
function checksum(bytes: Buffer): number {
  const padded = bytes.length % 2 === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(1)])
  let sum = 0
  for (let at = 0; at < padded.length; at += 2) sum += padded.readUInt16BE(at)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}
