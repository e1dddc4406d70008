import type { Figure } from '../table.ts'
import { type NetworkBench, oneCommand, Samples, timed, timeFigure, withVpcs } from './measurement.ts'
import type { VpcUnderTest } from './vpc-under-test.ts'

/** VPCs of the host with many. */
const many = 20

/** The look for damage that a host has every ten seconds, when nothing is wrong. */
export async function measureHealing(bench: NetworkBench): Promise<Figure[]> {
  const figures: Figure[] = []
  for (const count of [10, 200, 1000]) {
    figures.push(
      await withVpcs([count], bench, async (vpcs) => {
        const { look, command } = await measure(vpcs, bench)
        return timeFigure(`a look for damage at ${count} cards`, look, command)
      }),
    )
  }
  figures.push(
    await withVpcs(
      Array.from({ length: many }, () => 1),
      bench,
      async (vpcs) => {
        const { look, command } = await measure(vpcs, bench)
        return timeFigure(`the same at ${many} VPCs of one card, for each`, look / many, command)
      },
      'one',
    ),
  )
  return figures
}

/** `vpcs` are those of one host. */
async function measure(vpcs: readonly { vpc: VpcUnderTest }[], bench: NetworkBench) {
  const [first, ...others] = vpcs.map(({ vpc }) => vpc)
  if (first === undefined) throw new Error('there is no VPC')
  const samples = new Samples()
  await first.heal(others) // what `fill` leaves to do
  for (let round = 0; round < (bench.quick ? 5 : 15); round++) {
    samples.add('look', await timed(() => expectWhole(first.heal(others))))
    samples.add('command', await oneCommand(first.namespace))
  }
  return { look: samples.median('look'), command: samples.median('command') }
}

async function expectWhole(repairs: Promise<readonly string[]>): Promise<void> {
  const done = await repairs
  if (done.length > 0) throw new Error(`nothing was wrong, and yet there were repairs: ${done.slice(0, 3).join('; ')}`)
}
