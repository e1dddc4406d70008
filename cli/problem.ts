import type { Schemas } from '@berth/sdk/client.ts'
import { CliError, type ExitCode, exitCodes } from './exit-codes.ts'

type Problem = Schemas['Problem']

/** Whether an error body is a problem document (RFC 9457) of a Berth server. */
export function isProblem(body: unknown): body is Problem {
  if (typeof body !== 'object' || body === null) return false
  const { status, title, detail, code, request_id: requestId, errors } = body as Partial<Problem>
  const texts = [title, detail, code, requestId].every((text) => typeof text === 'string')
  return texts && typeof status === 'number' && Array.isArray(errors)
}

/** A refusal by the server, with the document that says why. */
export class ProblemError extends CliError {
  readonly problem: Problem

  constructor(problem: Problem, faults: readonly string[]) {
    // the detail of a body's faults is their list again
    const message = faults.length > 0 ? problem.title : problem.detail || problem.title
    super(exitCodeOf(problem), message, { details: [...faults, `request id: ${problem.request_id}`] })
    this.problem = problem
  }
}

/** A problem document as the error a command ends with: every fault on a line of its own, then the request id. */
export function problemError(problem: Problem): ProblemError {
  return new ProblemError(
    problem,
    problem.errors.map(({ pointer, message }) => `${pointer}: ${message}`),
  )
}

function exitCodeOf(problem: Problem): ExitCode {
  switch (problem.status) {
    case 404:
      return exitCodes.notFound
    case 409:
    case 412:
      return exitCodes.conflict
    case 503:
      return exitCodes.unreachable
    case 400:
    case 413:
      return exitCodes.usage
    case 422:
      // the arguments are at fault, unlike with no_addresses
      return problem.code === 'validation_failed' ? exitCodes.usage : exitCodes.failed
    default:
      return exitCodes.failed
  }
}
