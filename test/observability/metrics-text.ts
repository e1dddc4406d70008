import type { Stack } from '../stack.ts'

/** One line of Prometheus' text format. */
export interface Sample {
  name: string
  labels: Record<string, string>
  value: number
}

/** What GET /metrics said: its samples, and of each metric the type and the help that stand above them. */
export class Scrape {
  readonly samples: readonly Sample[]
  readonly types: ReadonlyMap<string, string>
  readonly helps: ReadonlyMap<string, string>

  /** Throws on a line that is neither a comment nor a sample (https://prometheus.io/docs/instrumenting/exposition_formats/). */
  constructor(text: string) {
    const lines = text.split('\n').filter((line) => line !== '')
    const commented = (word: string) =>
      new Map(
        lines.flatMap((line) => {
          const match = new RegExp(`^# ${word} (\\S+) (.*)$`).exec(line)
          return match === null ? [] : [[match[1] ?? '', match[2] ?? '']]
        }),
      )
    this.types = commented('TYPE')
    this.helps = commented('HELP')
    this.samples = lines.filter((line) => !line.startsWith('#')).map(parseSample)
  }

  /** The value of the one sample that has these labels; 0 when there is none, as a counter that never counted. */
  value(name: string, labels: Record<string, string> = {}): number {
    const found = this.samples.filter(
      (sample) =>
        sample.name === name && Object.entries(labels).every(([label, value]) => sample.labels[label] === value),
    )
    if (found.length > 1) throw new Error(`${found.length} samples of ${name} have ${JSON.stringify(labels)}`)
    return found[0]?.value ?? 0
  }

  /** Names of the labels that samples of a metric carry, without `le`. */
  labelsOf(metric: string): Set<string> {
    const own = this.samples.filter(({ name }) => name === metric || baseName(name) === metric)
    return new Set(own.flatMap(({ labels }) => Object.keys(labels)).filter((label) => label !== 'le'))
  }
}

/** The metric that a line of a histogram or summary belongs to. */
export function baseName(name: string): string {
  return name.replace(/_(bucket|sum|count)$/, '')
}

/** Ask a server for its metrics. Throws unless it answers them. */
export async function scrape(stack: Stack): Promise<Scrape> {
  const answer = await stack.api('GET', '/metrics')
  if (answer.status !== 200) throw new Error(`answered with ${answer.status}: ${answer.text}`)
  return new Scrape(answer.text)
}

function parseSample(line: string): Sample {
  const match = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/.exec(line)
  if (match === null) throw new Error(`not a sample: ${line}`)
  const labels = [...(match[2] ?? '').matchAll(/([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"/g)]
  const value = Number((match[3] ?? '').replace('+Inf', 'Infinity').replace('-Inf', '-Infinity'))
  return { name: match[1] ?? '', labels: Object.fromEntries(labels.map((label) => [label[1], label[2] ?? ''])), value }
}
