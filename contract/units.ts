/** Bytes in one GiB. */
export const bytesPerGib = 1024 ** 3

/** RFC 3339 UTC with whole seconds and `Z`, the form every timestamp of the public contract has. */
export function toRfc3339(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`
}

/** As toRfc3339 but with milliseconds: for timelines, where boots are compared. */
export function toRfc3339Millis(ms: number): string {
  return new Date(ms).toISOString()
}
