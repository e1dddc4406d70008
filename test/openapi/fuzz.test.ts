import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Stack, startStack } from '../stack.ts'
import { operations } from './document.ts'
import { anyRequest, collectionsOf, type FuzzRequest, mayBeHeld, streams } from './requests.ts'
import { validatorOf } from './responses.ts'
import { fillTokens } from './values.ts'

/*
 * Requests made from openapi.json against a real server. Stack.api throws when an answer is not in the document; here
 * any 5xx is a failure, too, and so is a success in spite of a body that breaks its schema. A failure has the seed and
 * the request in it. Again, and longer:
 *
 *   BERTH_FUZZ_SEED=-123 BERTH_FUZZ_REQUESTS=100000 npx vitest run test/openapi/fuzz.test.ts
 */
const wanted = Number(process.env.BERTH_FUZZ_REQUESTS ?? 3000)
const seed = Number(process.env.BERTH_FUZZ_SEED ?? Date.now() % 2 ** 31)

/** Requests that are under way at the same time. */
const batch = 25

/** After so long the caller of a read that waits hangs up, milliseconds. */
const patienceMs = 300

/** Any other request is answered within this time, milliseconds. */
const deadlineMs = 60_000

const holding = new Set(operations.filter(mayBeHeld).map(({ method, path }) => `${method} ${path}`))
const collections = collectionsOf(operations)
const ids = new Map<string, string[]>()
/** Answers per operation and status. */
const answered = new Map<string, Map<number, number>>()
let held = 0

let stack: Stack
beforeAll(async () => {
  stack = await startStack({ publicPools: [{ name: 'default', cidr: '203.0.113.0/24' }] })
  await replenish()
  await stack.createReady()
})
afterAll(() => stack.close())

/** Make anew what was deleted, and read which resources there are; the newest of each collection are used. */
async function replenish(): Promise<void> {
  await stack.ensureExamples({ whereFree: true }) // a subnet that was made since may be in the way of the example's
  for (let missing = 5 - (await stack.list()).length; missing > 0; missing--) await stack.create()
  for (const collection of collections) {
    const { body } = await stack.api<{ items: { id: string }[] }>('GET', collection)
    ids.set(collection, body.items.map((item) => item.id).slice(-20))
  }
}

/** Whether openapi.json does not allow this body for an operation. */
function breaksSchema(operation: string, body: string | Buffer | undefined): boolean {
  const requestBody = operations.find(({ method, path }) => `${method} ${path}` === operation)?.requestBody
  const schema = requestBody?.content['application/json']?.schema
  if (schema === undefined || Buffer.isBuffer(body)) return false
  return body === undefined ? requestBody?.required === true : !validatorOf(schema)(JSON.parse(body))
}

async function send(request: FuzzRequest): Promise<void> {
  const fill = (text: string) => fillTokens(text, (collection) => ids.get(collection) ?? [])
  const { method, operation } = request
  const path = fill(request.path)
  const body = typeof request.body === 'string' ? fill(request.body) : request.body
  const headers = Object.fromEntries(
    Object.entries(request.headers).map(([name, value]) => [name, value === null ? null : fill(value)]),
  )
  const mayWait = holding.has(operation)
  const signal = AbortSignal.timeout(mayWait ? patienceMs : deadlineMs)
  try {
    const { status, text } = await stack.api(method, path, body, headers, { signal })
    if (status >= 500) throw new Error(`${method} ${path.slice(0, 300)} was answered with ${status}: ${text}`)
    if (status < 300 && request.kind === 'nearly valid' && breaksSchema(operation, body)) {
      throw new Error(`${method} ${path} was answered with ${status}, though its body breaks the schema`)
    }
    const statuses = answered.get(operation) ?? new Map<number, number>()
    answered.set(operation, statuses.set(status, (statuses.get(status) ?? 0) + 1))
  } catch (error) {
    if (mayWait && signal.aborted) {
      held++
      return
    }
    const sent = `\nheaders: ${JSON.stringify(headers)}\nbody: ${String(body).slice(0, 2000)}`
    throw new Error(`${operation}, ${request.kind}: ${error instanceof Error ? error.message : error}${sent}`)
  }
}

/** The requests of the batch would fill pages. */
function reportFailure(run: fc.RunDetails<[FuzzRequest[]]>): void {
  if (!run.failed) return
  throw new Error(`BERTH_FUZZ_SEED=${run.seed}, batch ${run.numRuns}: ${Object(run.errorInstance).message}`)
}

test('no request makes the server fail or answer what openapi.json does not list', {
  timeout: 600_000 + wanted * 200,
}, async () => {
  const requests = fc.array(anyRequest(operations), { minLength: batch, maxLength: batch, size: 'max' })
  console.log(`${wanted} requests of BERTH_FUZZ_SEED=${seed}`)
  let batches = 0
  await fc.assert(
    fc.asyncProperty(requests, async (together) => {
      if (batches++ % 4 === 0) await replenish()
      const results = await Promise.allSettled(together.map(send))
      const health = await stack.api('GET', '/healthz', undefined, {}, { signal: AbortSignal.timeout(deadlineMs) })
      expect(health.status).toBe(200)
      const failures = results.flatMap((result) => (result.status === 'rejected' ? [result.reason.message] : []))
      if (failures.length > 0) throw new Error(failures.join('\n\n'))
    }),
    // the message has the very request, so nothing is gained by smaller ones
    { seed, numRuns: Math.ceil(wanted / batch), endOnFailure: true, reporter: reportFailure },
  )
  expect(Object.hasOwn(Object.prototype, 'polluted')).toBe(false)
})

test.runIf(wanted >= 3000)('the requests reached every operation, and most of them with success', () => {
  if (process.env.BERTH_FUZZ_REPORT !== undefined) {
    for (const [operation, statuses] of answered) console.log(operation, Object.fromEntries(statuses))
    console.log(`held: ${held}, seed: ${seed}`)
  }
  const reachable = operations.filter((operation) => !streams(operation)).map(({ method, path }) => `${method} ${path}`)
  const succeeded = reachable.filter((name) => [...(answered.get(name)?.keys() ?? [])].some((status) => status < 300))
  expect([...answered.keys()].sort()).toEqual(reachable.sort())
  expect(succeeded.length).toBeGreaterThan(reachable.length * 0.8)
  expect(held).toBeLessThan(wanted * 0.1)
})
