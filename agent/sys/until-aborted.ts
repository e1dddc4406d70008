/** `promise`, or the signal's reason as soon as it is aborted. What `promise` brings after that is dropped. */
export function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: raced, resolve, reject } = Promise.withResolvers<T>()
  const abort = () => reject(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  if (signal.aborted) abort()
  promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  return raced
}
