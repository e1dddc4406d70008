import { type DestinationStream, type Logger, pino } from 'pino'

/** Causes of causes that are logged. */
const deepestCause = 5

/** JSON lines, one an event, to `destination`. Errors are logged without what they carry besides their words. */
export function createLogger(level: string, destination: DestinationStream): Logger {
  return pino({ level, serializers: { err: errorFields } }, destination)
}

/**
 * Name, message, code and stack of an error, and of its causes. Nothing else of it, since others put into their errors
 * what must not be in a log: the database, for one, the row that it refused.
 */
export function errorFields(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) return typeof error === 'string' ? error : undefined
  const code: unknown = Reflect.get(error, 'code')
  return {
    type: error.name,
    message: error.message,
    ...(typeof code === 'string' ? { code } : {}),
    stack: error.stack,
    ...(error.cause === undefined || depth === deepestCause ? {} : { cause: errorFields(error.cause, depth + 1) }),
  }
}
