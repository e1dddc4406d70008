import { printableLine } from './terminal-text.ts'

/** A column of a table: its header, in upper case, and the cell of an item; "" is shown as "-". */
export interface Column<Item> {
  header: string
  cell: (item: Item) => string
}

/** Lines with aligned columns under a header, without a trailing blank; just the header when there are no items. */
export function renderTable<Item>(columns: readonly Column<Item>[], items: readonly Item[]): string {
  const rows = items.map((item) => columns.map((column) => printableLine(column.cell(item)) || '-'))
  return renderRows([columns.map((column) => column.header), ...rows])
}

/** One thing as lines of name and value; "" is shown as "-". */
export function renderFields(fields: readonly (readonly [name: string, value: string])[]): string {
  return renderRows(fields.map(([name, value]) => [name, printableLine(value) || '-']))
}

function renderRows(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)))
  return rows.map((row) => renderRow(row, widths)).join('')
}

/** One line of cells that are at least so wide. */
export function renderRow(cells: readonly string[], widths: readonly number[]): string {
  return `${cells
    .map((cell, i) => cell.padEnd(widths[i] ?? 0))
    .join('  ')
    .trimEnd()}\n`
}

const ageUnits = [
  ['d', 86_400],
  ['h', 3600],
  ['m', 60],
  ['s', 1],
] as const

/** Time since an RFC 3339 timestamp in its largest whole unit: `3m`, `2d`; "" when the timestamp is "". */
export function formatAge(timestamp: string, nowMs: number): string {
  const at = Date.parse(timestamp)
  if (Number.isNaN(at)) return ''
  const seconds = Math.max(0, Math.floor((nowMs - at) / 1000))
  const [unit, size] = ageUnits.find(([, size]) => seconds >= size) ?? ['s', 1]
  return `${Math.floor(seconds / size)}${unit}`
}

/** `1.5 s` between two timestamps; "" when one is not known. */
export function formatDuration(from: string | null, to: string | null): string {
  const ms = Date.parse(to ?? '') - Date.parse(from ?? '')
  return Number.isNaN(ms) ? '' : formatSeconds(ms)
}

/** Milliseconds as seconds with one decimal. */
export function formatSeconds(ms: number): string {
  return `${(Math.max(0, ms) / 1000).toFixed(1)} s`
}

/** Bytes as MiB with one decimal; "" for none. */
export function formatMib(bytes: number): string {
  return bytes === 0 ? '' : `${(bytes / 1024 ** 2).toFixed(1)} MiB`
}

/** MiB as GiB where that is a whole number. */
export function formatMemory(mib: number): string {
  return mib > 0 && mib % 1024 === 0 ? `${mib / 1024} GiB` : `${mib} MiB`
}

/** Labels as `a=b,c=d`, by key. */
export function formatLabels(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${value}`)
    .join(',')
}
