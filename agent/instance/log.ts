import type { Logger } from 'pino'

/**
 * The log of one instance: each line carries its id, and the id of the operation that was opened last, by which a
 * caller's request is followed from the server to here (docs/observability.md). `operationId` is asked at each line.
 */
export function logOf(log: Logger, instanceId: string, operationId: () => string | undefined): Logger {
  return log.child(
    { instance_id: instanceId },
    {
      formatters: {
        log: (fields) => {
          const id = operationId()
          return id === undefined ? fields : { operation_id: id, ...fields }
        },
      },
    },
  )
}
