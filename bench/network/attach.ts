import { type Figure, ms } from '../api/figure.ts'
import { median } from '../figures.ts'
import { type NetworkBench, oneCommand, Samples, timed, withVpcs } from './measurement.ts'

/** Milliseconds of an attach with 200 cards in its VPC. */
const limitMs = 60

/** The network step of a create and of a delete, one at a time, by the number of cards that are in the VPC before. */
export async function measureAttach(bench: NetworkBench): Promise<Figure[]> {
  const counts = [0, 10, 200, 1000]
  return withVpcs(counts, bench, async (vpcs) => {
    const samples = new Samples()
    for (let round = 0; round < (bench.quick ? 5 : 15); round++) {
      for (const { count, vpc } of vpcs) {
        const nic = vpc.card()
        samples.add(`attach ${count}`, await timed(() => vpc.attach(nic)))
        samples.add('command', await oneCommand(vpc.namespace))
        samples.add(`detach ${count}`, await timed(() => vpc.detach(nic)))
      }
    }
    const command = samples.median('command')
    return counts.flatMap((count) =>
      ['attach', 'detach'].map((step): Figure => {
        const time = samples.median(`${step} ${count}`)
        const limited = step === 'attach' && count === 200
        const which = count === 0 ? (step === 'attach' ? 'the first card' : 'the last card') : `a card to ${count}`
        return {
          name: step === 'attach' ? `attach ${which}` : `detach ${which.replace(' to ', ' from ')}`,
          measured: ms(time),
          comparedWith: `a command ${ms(command)}`,
          ratio: time / command,
          limit: limited ? ms(limitMs) : '',
          met: !limited || time <= limitMs,
        }
      }),
    )
  })
}

/** 200 cards up and down in one VPC, all asked for at once. */
export async function measureFleet(bench: NetworkBench): Promise<Figure[]> {
  const size = 200
  return withVpcs([0], bench, async ([only]) => {
    if (only === undefined) return []
    const { vpc } = only
    const nics = Array.from({ length: size }, () => vpc.card())
    const up = await timed(() => Promise.all(nics.map((nic) => vpc.attach(nic))))
    const commands: number[] = []
    for (let round = 0; round < 15; round++) commands.push(await oneCommand(vpc.namespace))
    const command = median(commands)
    const down = await timed(() => Promise.all(nics.map((nic) => vpc.detach(nic))))
    return [
      { step: 'up', time: up },
      { step: 'down', time: down },
    ].map(({ step, time }) => ({
      name: `${size} cards ${step} at once, for each`,
      measured: ms(time / size),
      comparedWith: `a command ${ms(command)}`,
      ratio: time / size / command,
      limit: '',
      met: true,
    }))
  })
}
