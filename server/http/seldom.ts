/**
 * A function that passes its calls on at most once in `everyMs` milliseconds; the last argument says how many calls were
 * left out before.
 */
export function seldom<Args extends unknown[]>(
  everyMs: number,
  then: (...args: [...Args, skipped: number]) => void,
): (...args: Args) => void {
  let lastAt = Number.NEGATIVE_INFINITY
  let skipped = 0
  return (...args) => {
    if (performance.now() - lastAt < everyMs) {
      skipped++
      return
    }
    lastAt = performance.now()
    then(...args, skipped)
    skipped = 0
  }
}
