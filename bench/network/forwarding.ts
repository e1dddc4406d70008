import { ipBatch } from '@berth/agent/network/namespace.ts'
import { makeGuestNamespace } from '@berth/agent/network/testing/guest-namespace.ts'
import { Peer } from '@berth/agent/network/testing/peer.ts'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { median } from '../figures.ts'
import type { Figure } from '../table.ts'
import { type NetworkBench, Samples, withVpcs } from './measurement.ts'
import { lastOf, type VpcUnderTest } from './vpc-under-test.ts'

/** Two processes in namespaces of their own, and the address of the second. */
interface Pair {
  from: Peer
  to: Peer
  address: string
}

const ports = { stream: 5001, echo: 5002 }

/** What two guests of a VPC get of each other, compared with two namespaces that a veth pair joins. */
export async function measureForwarding(bench: NetworkBench): Promise<Figure[]> {
  const cases = { 'with 2 cards and 1 rule': [0, 1], 'with 200 cards, by the last of 500 rules': [198, 500] } as const
  const counts = Object.values(cases).map(([cards]) => cards)
  return withVpcs(counts, bench, async (vpcs) => {
    const made: string[] = []
    const pairs: Record<string, Pair> = {}
    try {
      for (const [name, [cards, rules]] of Object.entries(cases)) {
        const vpc = vpcs.find(({ count }) => count === cards)?.vpc
        if (vpc === undefined) continue
        await vpc.setGroup(lastOf(rules))
        pairs[name] = await guests(vpc, made)
      }
      pairs.bare = await barePair(made)
      return await compare(pairs, Object.keys(cases), bench)
    } finally {
      for (const { from, to } of Object.values(pairs)) await Promise.all([from.end(), to.end()])
      for (const namespace of made) await runCommand(['ip', 'netns', 'del', namespace]).catch(() => undefined)
    }
  })
}

async function compare(pairs: Record<string, Pair>, cases: readonly string[], bench: NetworkBench): Promise<Figure[]> {
  const samples = new Samples()
  for (const { to } of Object.values(pairs)) await to.listen('tcp', ports.echo)
  for (let round = 0; round < (bench.quick ? 3 : 7); round++) {
    for (const [name, { from, to, address }] of Object.entries(pairs)) {
      bench.signal.throwIfAborted()
      samples.add(`bits ${name}`, await from.throughput(to, address, ports.stream, bench.quick ? 0.5 : 2))
      samples.add(`trip ${name}`, median(await from.roundTrips(address, ports.echo, bench.quick ? 500 : 2000)))
    }
  }
  return cases.flatMap((name) => {
    const [bits, bareBits] = [samples.median(`bits ${name}`), samples.median('bits bare')]
    const [trip, bareTrip] = [samples.median(`trip ${name}`), samples.median('trip bare')]
    return [
      figure(`throughput ${name}`, gigabits(bits), gigabits(bareBits), bits / bareBits),
      figure(`round trip ${name}`, microseconds(trip), microseconds(bareTrip), trip / bareTrip),
    ]
  })
}

/** Two guests, attached as any other; their namespaces are added to `made`. */
async function guests(vpc: VpcUnderTest, made: string[]): Promise<Pair> {
  const [first, second] = [vpc.card(), vpc.card()]
  const peers: Peer[] = []
  for (const nic of [first, second]) {
    const namespace = `guest-of-${nic.tap}`
    made.push(namespace)
    await makeGuestNamespace(namespace, vpc.namespace, nic)
    await vpc.attach(nic)
    peers.push(new Peer(namespace))
  }
  return pairOf(peers, second.ip)
}

/** Two namespaces and a veth pair between them: no routing, no rules. */
async function barePair(made: string[]): Promise<Pair> {
  const names = ['bare-0', 'bare-1'] as const
  made.push(...names)
  for (const name of names) await runCommand(['ip', 'netns', 'add', name])
  await ipBatch(names[0], [`link add eth0 type veth peer name eth0 netns ${names[1]}`])
  for (const [index, name] of names.entries()) {
    await ipBatch(name, ['link set lo up', 'link set eth0 mtu 1450 up', `addr add 10.9.0.${index + 1}/24 dev eth0`])
  }
  return pairOf(
    names.map((name) => new Peer(name)),
    '10.9.0.2',
  )
}

function pairOf([from, to]: readonly Peer[], address: string): Pair {
  if (from === undefined || to === undefined) throw new Error('a pair is two')
  return { from, to, address }
}

function figure(name: string, measured: string, bare: string, ratio: number): Figure {
  return { name, measured, comparedWith: `bare veth ${bare}`, ratio, limit: '', met: true }
}

const gigabits = (bits: number) => `${(bits / 1e9).toFixed(1)} Gbit/s`
const microseconds = (seconds: number) => `${Math.round(seconds * 1e6)} µs`
