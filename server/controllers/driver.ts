import type { Logger } from 'pino'
import type { ServerMetrics } from '../metrics/server-metrics.ts'

/** One pass of a controller: takes no input, looks at the store, gives a line about what it did or null for nothing. */
export type ControllerPass = () => Promise<string | null>

export interface Controller {
  /** Look soon. Wakes that come during a pass are folded into one pass after it. */
  wake(): void
  /** Finish the pass that runs and start no other. */
  stop(): Promise<void>
}

/**
 * Run a pass whenever it is woken and at least once a period, which repairs lost wakes; never two at once. A pass that
 * throws is logged and tried again with the next wake or period.
 */
export function startController(
  name: string,
  about: { periodMs: number; log: Logger; metrics: ServerMetrics },
  pass: ControllerPass,
): Controller {
  const { log, metrics } = about
  metrics.passFailures.inc({ controller: name }, 0)
  let stopped = false
  let dirty = true
  let running: Promise<void> | null = null

  const run = async () => {
    while (dirty && !stopped) {
      dirty = false
      const startedAt = performance.now()
      try {
        const did = await pass()
        if (did !== null) log.info({ controller: name }, did)
        metrics.passSuccess.setToCurrentTime({ controller: name })
      } catch (error) {
        metrics.passFailures.inc({ controller: name })
        log.error({ controller: name, err: error }, 'the pass failed; it is tried again')
      }
      metrics.passDurations.observe({ controller: name }, (performance.now() - startedAt) / 1000)
    }
    running = null
  }
  const wake = () => {
    dirty = true
    if (!stopped) running ??= run()
  }
  const timer = setInterval(wake, about.periodMs)
  timer.unref()
  wake()
  return {
    wake,
    async stop() {
      stopped = true
      clearInterval(timer)
      await running
    },
  }
}
