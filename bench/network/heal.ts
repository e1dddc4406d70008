import { type Figure, ms } from '../api/figure.ts'
import { type NetworkBench, oneCommand, Samples, timed, withVpcs } from './measurement.ts'
import { VpcUnderTest } from './vpc-under-test.ts'

/** VPCs of the host with many. */
const many = 20

/** The look for damage that a host has every ten seconds, when nothing is wrong. */
export async function measureHealing(bench: NetworkBench): Promise<Figure[]> {
  const figures: Figure[] = []
  for (const count of [10, 200, 1000]) {
    const measured = await withVpcs([count], bench, async ([only]) => {
      if (only === undefined) throw new Error('there is no VPC')
      return measure(only.vpc, [], bench)
    })
    figures.push(figure(`a look for damage at ${count} cards`, measured, 1))
  }
  return [...figures, figure(`the same at ${many} VPCs of one card, for each`, await measureMany(bench), many)]
}

async function measureMany(bench: NetworkBench): Promise<Measured> {
  const vpcs: VpcUnderTest[] = []
  try {
    for (let number = 0; number < many; number++) {
      const vpc = await VpcUnderTest.open(`vpc-of-many-${number}`, bench.signal, vpcs[0])
      vpcs.push(vpc)
      await vpc.fill(1)
    }
    const [first, ...others] = vpcs
    if (first === undefined) throw new Error('there is no VPC')
    return await measure(first, others, bench)
  } finally {
    for (const vpc of vpcs) await vpc.close()
  }
}

interface Measured {
  look: number
  command: number
}

async function measure(vpc: VpcUnderTest, others: readonly VpcUnderTest[], bench: NetworkBench): Promise<Measured> {
  const samples = new Samples()
  await vpc.heal(others) // what `fill` leaves to do
  for (let round = 0; round < (bench.quick ? 5 : 15); round++) {
    samples.add('look', await timed(() => expectWhole(vpc.heal(others))))
    samples.add('command', await oneCommand(vpc.namespace))
  }
  return { look: samples.median('look'), command: samples.median('command') }
}

async function expectWhole(repairs: Promise<readonly string[]>): Promise<void> {
  const done = await repairs
  if (done.length > 0) throw new Error(`nothing was wrong, and yet there were repairs: ${done.slice(0, 3).join('; ')}`)
}

function figure(name: string, { look, command }: Measured, divisor: number): Figure {
  return {
    name,
    measured: ms(look / divisor),
    comparedWith: `a command ${ms(command)}`,
    ratio: look / divisor / command,
    limit: '',
    met: true,
  }
}
