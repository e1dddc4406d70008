import { type Figure, renderTable } from './table.ts'

/** Measurements by their names, and what `--help` prints of them. */
export interface Suite<B> {
  help: string
  measurements: Readonly<Record<string, (bench: B) => Promise<Figure[]>>>
}

/** Options that every suite has, for `parseArgs`. */
export function suiteOptions({ measurements }: Suite<never>) {
  return {
    only: { type: 'string', default: Object.keys(measurements).join(',') },
    quick: { type: 'boolean', default: false },
    check: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  } as const
}

/**
 * Print the help, or make the measurements that were asked for and print their table; with `check` a missed limit is exit
 * code 1. `use` prepares what the measurements get, has them made with it, and cleans up.
 */
export async function runSuite<B>(
  { help, measurements }: Suite<B>,
  asked: { only: string; check: boolean; help: boolean },
  use: (measure: (bench: B) => Promise<void>) => Promise<void>,
): Promise<void> {
  if (asked.help) {
    console.log(help)
    return
  }
  const names = asked.only.split(',')
  const unknown = names.filter((name) => !Object.hasOwn(measurements, name))
  if (unknown.length > 0)
    throw new Error(`there is no ${unknown.join(', ')}; there are ${Object.keys(measurements).join(', ')}`)
  const figures: Figure[] = []
  await use(async (bench) => {
    for (const name of names) {
      console.error(`measuring ${name} …`)
      figures.push(...((await measurements[name]?.(bench)) ?? []))
    }
  })
  console.log(renderTable(figures))
  if (asked.check && figures.some((figure) => !figure.met)) process.exitCode = 1
}
