/**
 * Wait for all of these, which run at once, to end, also when one fails: what comes after them never meets one that still
 * runs. Then gives their results, or throws one's error: of those that failed, the first in this order.
 */
export async function together<const T extends readonly Promise<unknown>[]>(
  ...works: T
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  await Promise.allSettled(works)
  return Promise.all(works)
}
