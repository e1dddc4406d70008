import { type Figure, ms } from '../api/figure.ts'
import { type NetworkBench, oneCommand, Samples, timed, withVpcs } from './measurement.ts'

/** The look for damage that each VPC has every ten seconds, when nothing is wrong. */
export async function measureHealing(bench: NetworkBench): Promise<Figure[]> {
  const figures: Figure[] = []
  for (const count of [10, 200, 1000]) {
    const { look, command } = await withVpcs([count], bench, async ([only]) => {
      const samples = new Samples()
      if (only === undefined) throw new Error('there is no VPC')
      await only.vpc.heal() // what `fill` leaves to do
      for (let round = 0; round < (bench.quick ? 5 : 15); round++) {
        samples.add('look', await timed(() => expectWhole(only.vpc.heal())))
        samples.add('command', await oneCommand(only.vpc.namespace))
      }
      return { look: samples.median('look'), command: samples.median('command') }
    })
    figures.push({
      name: `a look for damage at ${count} cards`,
      measured: ms(look),
      comparedWith: `a command ${ms(command)}`,
      ratio: look / command,
      limit: '',
      met: true,
    })
  }
  return figures
}

async function expectWhole(repairs: Promise<readonly string[]>): Promise<void> {
  const done = await repairs
  if (done.length > 0) throw new Error(`nothing was wrong, and yet there were repairs: ${done.slice(0, 3).join('; ')}`)
}
