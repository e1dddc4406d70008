import type { Peer } from '@berth/agent/network/testing/peer.ts'
import { ipBytes } from './frames.ts'

/** What a name server answered (RFC 1035): its response code, 0 for success and 3 for no such name, and IPv4 addresses. */
export interface DnsAnswer {
  code: number
  addresses: string[]
}

type Type = 'A' | 'PTR'

interface Question {
  type?: Type
  protocol?: 'tcp' | 'udp'
}

/** Ask a name server for the IPv4 addresses of a name, as a guest does; null when it says nothing. */
export async function lookUp(
  peer: Peer,
  server: string,
  name: string,
  { type = 'A', protocol = 'udp' }: Question = {},
): Promise<DnsAnswer | null> {
  const message = dnsQuestion(name, type)
  const length = Buffer.from([0, message.length]) // before each message of TCP
  const sent = protocol === 'tcp' ? Buffer.concat([length, message]) : message
  const received = await peer.query(protocol, server, 53, sent)
  if (received === null) return null
  const answer = protocol === 'tcp' ? received.subarray(2) : received
  const addresses: string[] = []
  let at = 12 + question(name, type).length
  for (let left = answer.readUInt16BE(6); left > 0; left--) {
    // each record begins with a pointer to the name of the question
    const length = answer.readUInt16BE(at + 10)
    if (answer.readUInt16BE(at + 2) === 1) addresses.push([...answer.subarray(at + 12, at + 12 + length)].join('.'))
    at += 12 + length
  }
  return { code: answer.readUInt8(3) & 15, addresses: addresses.sort() }
}

/** A name server's answer to a question for one name, but for the first two bytes. */
export function dnsAnswer(name: string, address: string): Buffer {
  const head = Buffer.from('81800001000100000000', 'hex')
  const record = Buffer.concat([Buffer.from('c00c000100010000003c0004', 'hex'), ipBytes(address)])
  return Buffer.concat([head, question(name, 'A'), record])
}

/** A question for a name. */
export function dnsQuestion(name: string, type: Type = 'A'): Buffer {
  return Buffer.concat([Buffer.from('424201000001000000000000', 'hex'), question(name, type)])
}

/** The name as it stands in a packet. */
export function dnsName(name: string): Buffer {
  const labels = name.split('.').map((label) => Buffer.from([label.length, ...Buffer.from(label)]))
  return Buffer.concat([...labels, Buffer.from([0])])
}

function question(name: string, type: Type): Buffer {
  return Buffer.concat([dnsName(name), Buffer.from([0, type === 'A' ? 1 : 12, 0, 1])])
}
