import { type ErrorCode, errorCatalogue, type FieldError } from '@berth/contract/errors.ts'

/**
 * An error that may be answered to a caller. `message` is shown; `internal` is only logged. `errors` name the faults of
 * a body by JSON pointer.
 */
export class ApiError extends Error {
  readonly code: ErrorCode
  readonly errors: readonly FieldError[]
  readonly internal: string

  constructor(
    code: ErrorCode,
    message: string,
    options: { cause?: unknown; internal?: string; errors?: readonly FieldError[] } = {},
  ) {
    super(message, options.cause === undefined ? {} : { cause: options.cause })
    this.name = 'ApiError'
    this.code = code
    this.errors = options.errors ?? []
    this.internal = options.internal ?? ''
  }

  /** HTTP status of the catalogue. */
  get status(): number {
    return errorCatalogue[this.code].status
  }
}

/** A body whose fields are at fault. */
export function validationError(errors: readonly FieldError[]): ApiError {
  const summary = errors.map((error) => `${error.pointer}: ${error.message}`).join('; ')
  return new ApiError('validation_failed', summary.length > 1000 ? `${summary.slice(0, 1000)}…` : summary, { errors })
}

/** Users of a resource that are named in one answer. */
export const mostUsers = 10

/** A resource that cannot be deleted, with who uses it. */
export function inUse(what: string, users: readonly string[]): ApiError {
  const more = users.length > mostUsers ? ' and others' : ''
  return new ApiError(
    'in_use',
    `${what} is used by ${users.slice(0, mostUsers).join(', ')}${more}; delete or change them first.`,
  )
}
