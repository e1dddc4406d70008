import { median } from '../figures.ts'
import type { Figure } from '../table.ts'
import { type NetworkBench, oneCommand, Samples, timed, timeFigure, withVpcs } from './measurement.ts'

/** Cards of a host as large as one should be. */
const fleet = 200

/** Milliseconds of an attach to so many. */
const limitMs = 60

/** The network step of a create and of a delete, one at a time, by the number of cards that are in the VPC before. */
export async function measureAttach(bench: NetworkBench): Promise<Figure[]> {
  const counts = [0, 10, fleet, 1000]
  return withVpcs(counts, bench, async (vpcs) => {
    const samples = new Samples()
    for (let round = 0; round < (bench.quick ? 5 : 15); round++) {
      for (const { count, vpc } of vpcs) {
        const nic = vpc.card()
        samples.add(`attach ${count}`, await timed(() => vpc.attach(nic)))
        samples.add('command', await oneCommand(vpc.namespace))
        samples.add(`detach ${count}`, await timed(() => vpc.detach(nic)))
        if (count !== fleet) continue
        const full = { ...vpc.card(), bandwidth_mbps: 1000, public_ip: '203.0.113.7' }
        samples.add('attach full', await timed(() => vpc.attach(full)))
        await vpc.detach(full)
      }
    }
    const command = samples.median('command')
    const sameFor = (step: 'attach' | 'detach', count: number): Figure => {
      const [end, to] = step === 'attach' ? ['first', 'to'] : ['last', 'from']
      const which = count === 0 ? `the ${end} card` : `a card ${to} ${count}`
      const limit = step === 'attach' && count === fleet ? limitMs : null
      return timeFigure(`${step} ${which}`, samples.median(`${step} ${count}`), command, limit)
    }
    return [
      ...counts.flatMap((count) => [sameFor('attach', count), sameFor('detach', count)]),
      timeFigure(
        `attach one with bandwidth and public address to ${fleet}`,
        samples.median('attach full'),
        command,
        limitMs,
      ),
    ]
  })
}

/** 200 cards up and down in one VPC, all asked for at once. */
export async function measureFleet(bench: NetworkBench): Promise<Figure[]> {
  return withVpcs([0], bench, async ([only]) => {
    if (only === undefined) return []
    const { vpc } = only
    const nics = Array.from({ length: fleet }, () => vpc.card())
    const up = await timed(() => Promise.all(nics.map((nic) => vpc.attach(nic))))
    const commands: number[] = []
    for (let round = 0; round < 15; round++) commands.push(await oneCommand(vpc.namespace))
    const command = median(commands)
    const down = await timed(() => Promise.all(nics.map((nic) => vpc.detach(nic))))
    const each = (step: string, time: number) =>
      timeFigure(`${fleet} cards ${step} at once, for each`, time / fleet, command)
    return [each('up', up), each('down', down)]
  })
}
