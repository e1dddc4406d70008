import { inNamespace } from '@berth/agent/network/namespace.ts'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { median } from '../figures.ts'
import { type Figure, ms } from '../table.ts'
import { VpcUnderTest } from './vpc-under-test.ts'

/** What every measurement gets. */
export interface NetworkBench {
  /** Short runs: a look, not a figure to quote. */
  quick: boolean
  /** Aborted when the benchmark is to end early. */
  signal: AbortSignal
}

/** Milliseconds that something takes. */
export async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await work()
  return performance.now() - start
}

/** Milliseconds that one command takes that does nothing in a namespace: what each step costs at least. */
export function oneCommand(namespace: string): Promise<number> {
  return timed(() => runCommand([...inNamespace(namespace), 'true']))
}

/** A time as a figure, compared with that of a command that does nothing; both in milliseconds. */
export function timeFigure(name: string, time: number, command: number, limit: number | null = null): Figure {
  return {
    name,
    measured: ms(time),
    comparedWith: `a command ${ms(command)}`,
    ratio: time / command,
    limit: limit === null ? '' : ms(limit),
    met: limit === null || time <= limit,
  }
}

/**
 * Have a VPC for each number of cards, with so many in it, and remove them all afterwards. Each has a host of its own, or
 * all are on one.
 */
export async function withVpcs<T>(
  counts: readonly number[],
  { signal }: NetworkBench,
  work: (vpcs: readonly { count: number; vpc: VpcUnderTest }[]) => Promise<T>,
  hosts: 'one each' | 'one' = 'one each',
): Promise<T> {
  const vpcs: { count: number; vpc: VpcUnderTest }[] = []
  try {
    for (const [index, count] of counts.entries()) {
      const vpc = await VpcUnderTest.open(`vpc-${index}-${count}`, signal, hosts === 'one' ? vpcs[0]?.vpc : undefined)
      vpcs.push({ count, vpc })
      await vpc.fill(count)
    }
    return await work(vpcs)
  } finally {
    for (const { vpc } of vpcs) await vpc.close()
  }
}

/** Medians of what several runs gave, by its name. */
export class Samples {
  readonly #values = new Map<string, number[]>()

  add(name: string, value: number): void {
    this.#values.set(name, [...(this.#values.get(name) ?? []), value])
  }

  median(name: string): number {
    return median(this.#values.get(name) ?? [])
  }
}
