import { collectDefaultMetrics, Registry } from 'prom-client'

/**
 * What the process itself uses: CPU, memory, file descriptors, event loop, garbage collection. Whoever owns the process
 * calls this once: it begins to observe, and that does not end before the process does.
 */
export function processMetrics(): Registry {
  const register = new Registry()
  collectDefaultMetrics({ register })
  return register
}
