/** One line of the benchmark's table. */
export interface Figure {
  name: string
  measured: string
  /** What it is compared with in the same run; "" for an absolute figure. */
  comparedWith: string
  /** Measured by compared; null for an absolute figure. */
  ratio: number | null
  limit: string
  met: boolean
}

/** The figures as a table. */
export function renderTable(figures: readonly Figure[]): string {
  const rows = figures.map(({ name, measured, comparedWith, ratio, limit, met }) => [
    name,
    measured,
    comparedWith,
    ratio === null ? '' : ratio.toFixed(2),
    limit,
    met ? 'ok' : 'missed',
  ])
  const table = [['figure', 'measured', 'compared with', 'ratio', 'limit', ''], ...rows]
  const widths = table[0]?.map((_, column) => Math.max(...table.map((row) => row[column]?.length ?? 0))) ?? []
  return table
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

export const perSecond = (value: number) => `${Math.round(value)}/s`
export const ms = (value: number) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`
export const mib = (bytes: number) => `${Math.round(bytes / 1024 ** 2)} MiB`
