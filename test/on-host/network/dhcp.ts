import { ethernet, etherType, everybody, ipBytes, ipv4, macBytes, udp } from './frames.ts'
import type { Guest } from './network-host.ts'

/** Message types of DHCP (RFC 2132, section 9.6). */
export const dhcp = { discover: 1, offer: 2, request: 3, decline: 4, ack: 5, refused: 6 } as const

export interface Lease {
  type: number
  address: string
  /** Options by their number (RFC 2132). */
  options: Map<number, Buffer>
}

interface Message {
  type: number
  /** The client it speaks of; its own MAC by default. */
  client?: string
  /** What the frame says it is from; its own MAC by default. */
  from?: string
  /** Requested address (option 50), and the address it has already. */
  requested?: string
  has?: string
  /** Server it is for (option 54). */
  server?: string
  /** Whom it is sent to; everybody by default. */
  to?: string
  /** What the client calls itself (option 12), and its id (option 61). */
  name?: Buffer
  clientId?: Buffer
}

/** A frame with a message of a DHCP client (RFC 2131). */
export function dhcpFrame(guest: Guest, message: Message): Buffer {
  const { type, client, from, requested, has, server, to, name, clientId } = message
  const options = [
    Buffer.from([53, 1, type]),
    ...(requested === undefined ? [] : [Buffer.from([50, 4]), ipBytes(requested)]),
    ...(server === undefined ? [] : [Buffer.from([54, 4]), ipBytes(server)]),
    ...(name === undefined ? [] : [Buffer.from([12, name.length]), name]),
    ...(clientId === undefined ? [] : [Buffer.from([61, clientId.length]), clientId]),
    Buffer.from([55, 5, 1, 3, 6, 15, 26, 255]), // asks for netmask, router, name servers, domain, MTU
  ]
  const body = bootp(1, client ?? guest.nic.mac, { has, options })
  const packet = ipv4(has ?? '0.0.0.0', to ?? '255.255.255.255', udp(68, 67, body))
  const gateway = '02:00:00:00:00:01'
  return ethernet(to === undefined ? everybody : gateway, from ?? guest.nic.mac, etherType.ipv4, packet)
}

/** The body of an offer that a guest who plays the server would make. */
export function forgedOffer(client: string, address: string): Buffer {
  return bootp(2, client, { your: address, options: [Buffer.from([53, 1, dhcp.offer, 255])] })
}

/** What a DHCP server said in these frames. */
export function leasesIn(frames: readonly Buffer[]): Lease[] {
  return frames.flatMap((frame) => {
    const isAnswer = frame.length > 282 && frame.readUInt16BE(12) === etherType.ipv4 && frame.readUInt16BE(34) === 67
    if (!isAnswer) return []
    const body = frame.subarray(42)
    const options = new Map<number, Buffer>()
    for (let at = 240; at < body.length && body[at] !== 255; ) {
      const code = body.readUInt8(at)
      const length = code === 0 ? -1 : body.readUInt8(at + 1)
      if (code !== 0) options.set(code, body.subarray(at + 2, at + 2 + length))
      at += 2 + length
    }
    return [{ type: options.get(53)?.[0] ?? 0, address: [...body.subarray(16, 20)].join('.'), options }]
  })
}

interface Body {
  has?: string | undefined
  your?: string
  options: readonly Buffer[]
}

function bootp(operation: number, client: string, { has, your, options }: Body): Buffer {
  const body = Buffer.alloc(240)
  Buffer.from([operation, 1, 6, 0, 0xbe, 0x27, 0x42, 0x42]).copy(body)
  ipBytes(has ?? '0.0.0.0').copy(body, 12)
  ipBytes(your ?? '0.0.0.0').copy(body, 16)
  macBytes(client).copy(body, 28)
  body.writeUInt32BE(0x63825363, 236)
  return Buffer.concat([body, ...options])
}
