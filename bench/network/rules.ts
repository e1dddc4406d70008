import type { Figure } from '../table.ts'
import { type NetworkBench, oneCommand, Samples, timed, timeFigure, withVpcs } from './measurement.ts'
import { lastOf } from './vpc-under-test.ts'

/** A changed rule of a group that all cards carry, until it is in force and connections were looked through. */
export async function measureRules(bench: NetworkBench): Promise<Figure[]> {
  const counts = [10, 200, 1000]
  return withVpcs(counts, bench, async (vpcs) => {
    const samples = new Samples()
    for (let round = 0; round < (bench.quick ? 5 : 15); round++) {
      for (const { count, vpc } of vpcs) {
        samples.add(`${count}`, await timed(() => vpc.setGroup(lastOf(2 + (round % 2)))))
        samples.add('command', await oneCommand(vpc.namespace))
      }
    }
    const command = samples.median('command')
    return counts.map((count) => timeFigure(`a changed rule with ${count} cards`, samples.median(`${count}`), command))
  })
}
