/** Bytes in one GiB. */
export const bytesPerGib = 1024 ** 3

/** RFC 3339 UTC with whole seconds and `Z`, the form every timestamp of the public contract has. */
export function toRfc3339(ms: number): string {
  return `${toRfc3339Millis(ms).slice(0, -5)}Z`
}

/** As toRfc3339 but with milliseconds: for timelines, where boots are compared. Throws RangeError for what is no time. */
export function toRfc3339Millis(ms: number): string {
  const day = Math.floor(ms / msPerDay)
  if (day !== lastDay) {
    lastDate = new Date(day * msPerDay).toISOString().slice(0, -13)
    lastDay = day
  }
  const rest = Math.floor(ms - day * msPerDay)
  const seconds = Math.floor(rest / 1000)
  const minutes = Math.floor(seconds / 60)
  const hours = Math.floor(minutes / 60)
  return `${lastDate}${digits[hours]}:${digits[minutes % 60]}:${digits[seconds % 60]}.${milliseconds[rest % 1000]}Z`
}

const msPerDay = 24 * 60 * 60 * 1000

/** Numbers as a time of day has them: making these texts anew is most of what a list of instances would cost. */
const digits = Array.from({ length: 60 }, (_, n) => String(n).padStart(2, '0'))
const milliseconds = Array.from({ length: 1000 }, (_, n) => String(n).padStart(3, '0'))

/** Days since 1970 that the last time asked for was on, and its date up to the `T`: most times are on one day. */
let lastDay = Number.NaN
let lastDate = ''
