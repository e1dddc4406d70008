/** Exit code after a second signal: 128 + SIGINT. */
const interruptedTwice = 130

/**
 * Aborted when the user or the system asks the process to stop, so that it can end in order. The listeners stay: where
 * one is removed as it is called (`once`), the clean-up of a running command takes itself for the only listener and ends
 * the process at once.
 */
export function interruption(): AbortSignal {
  const controller = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(interruptedTwice) // who asks again wants it at once
      controller.abort(new Error(`stopped by ${name}`))
    })
  }
  return controller.signal
}
