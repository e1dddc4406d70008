import type { Figure } from '../table.ts'
import { ms } from '../table.ts'
import { type NetworkBench, oneCommand, Samples, timed, withVpcs } from './measurement.ts'

/** Bytes that the process holds besides its own, as an agent of many instances does. */
const ballastBytes = 256 * 1024 * 1024

/** Most that memory may add to a step: nothing, but for what two runs differ by. */
const limitRatio = 1.25

/** What a command and an attach cost an agent that holds much memory, beside one that does not, in turn. */
export async function measureMemory(bench: NetworkBench): Promise<Figure[]> {
  return withVpcs([10], bench, async ([only]) => {
    if (only === undefined) return []
    const { vpc } = only
    const samples = new Samples()
    for (let round = 0; round < (bench.quick ? 3 : 9); round++) {
      for (const size of ['small', 'large'] as const) {
        const ballast = new ArrayBuffer(size === 'large' ? ballastBytes : 0)
        new Uint8Array(ballast).fill(1) // so that there are pages
        await oneCommand(vpc.namespace) // not counted: filling took our share of the processor
        for (let time = 0; time < 5; time++) {
          samples.add(`command ${size}`, await oneCommand(vpc.namespace))
          const nic = vpc.card()
          samples.add(`attach ${size}`, await timed(() => vpc.attach(nic)))
          await vpc.detach(nic)
        }
        ballast.transfer(0) // now, not when it is collected
      }
    }
    const figure = (name: string, step: string): Figure => {
      const [small, large] = [samples.median(`${step} small`), samples.median(`${step} large`)]
      const ratio = large / small
      return {
        name: `${name}, with 256 MiB more`,
        measured: ms(large),
        comparedWith: `without ${ms(small)}`,
        ratio,
        limit: String(limitRatio),
        met: ratio <= limitRatio,
      }
    }
    return [figure('a command', 'command'), figure('attach a card to 10', 'attach')]
  })
}
