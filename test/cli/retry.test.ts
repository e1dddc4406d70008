import { CliStack, expectGolden } from '@berth/cli/testing/cli-stack.ts'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

let stack: CliStack
beforeEach(async () => {
  stack = await CliStack.start()
})
afterEach(() => stack.stop())

const create = ['vpc', 'create', '--cidr', '10.20.0.0/16']
const broken = () => new TypeError('fetch failed', { cause: Object.assign(new Error('reset'), { code: 'ECONNRESET' }) })
const refused = () =>
  new TypeError('fetch failed', { cause: Object.assign(new Error('refused'), { code: 'ECONNREFUSED' }) })

/** A fetch that does what each entry says for one request, then as usual; and the keys that it was given. */
function faulty(...faults: ((send: () => Promise<Response>) => Promise<Response>)[]) {
  const keys: (string | null)[] = []
  const send: typeof fetch = async (input, init) => {
    const request = new Request(input, init)
    keys.push(request.headers.get('idempotency-key'))
    const fault = faults.shift()
    return fault === undefined ? fetch(request) : fault(() => fetch(request))
  }
  return { keys, send }
}

const vpcs = async () => (await stack.run(['vpc', 'list', '-q'])).stdout.trim().split('\n')

describe('a POST', () => {
  test('whose answer is lost is sent again with the same key and makes one thing', async () => {
    const { keys, send } = faulty(
      async (send) => {
        await send() // it takes effect, and the answer does not come through
        throw broken()
      },
      async () => {
        throw refused() // the server starts anew
      },
    )
    const before = await vpcs()
    const run = await stack.run(create, { fetch: send })
    expect(run.code).toBe(0)
    expect(keys).toHaveLength(3)
    expect(new Set(keys).size).toBe(1)
    expect(keys[0]).toMatch(/^[0-9a-f-]{36}$/)
    expect(await vpcs()).toHaveLength(before.length + 1)
    await expectGolden('retried', run)
  })

  test('waits as long as a 503 asks for, but no longer than 10 s', async () => {
    const busy = (seconds: string) => async () =>
      new Response(null, { status: 503, headers: { 'retry-after': seconds } })
    const { send } = faulty(busy('3'), busy('3600'))
    const before = stack.now
    const run = await stack.run(create, { fetch: send })
    expect(run.code).toBe(0)
    expect(stack.now - before).toBe(13_000)
  })

  test('is given up after five attempts', async () => {
    const fail = async (): Promise<Response> => {
      throw broken()
    }
    const { keys, send } = faulty(fail, fail, fail, fail, fail, fail)
    const run = await stack.run(create, { fetch: send })
    expect(run.code).toBe(69)
    expect(keys).toHaveLength(5)
  })

  test('that reached nobody fails at once, and so does a GET', async () => {
    const post = faulty(async () => {
      throw refused()
    })
    expect((await stack.run(create, { fetch: post.send })).code).toBe(69)
    expect(post.keys).toHaveLength(1)
    const get = faulty(async () => {
      throw broken()
    })
    expect((await stack.run(['vpc', 'list'], { fetch: get.send })).code).toBe(69)
    expect(get.keys).toEqual([null])
  })

  test('of an instance has the key that is given, so that a second command makes no second one', async () => {
    const argv = ['instance', 'create', '--type', 'micro', '--image', 'micro', '--no-wait', '-q']
    const first = await stack.run([...argv, '--idempotency-key', 'build-17'])
    const second = await stack.run([...argv, '--idempotency-key', 'build-17'])
    expect(second.stdout).toBe(first.stdout)
    expect((await stack.run(['instance', 'list', '-q'])).stdout).toBe(first.stdout)
  })

  test.each([['start'], ['stop'], ['reboot']])('of the action %s carries a key too', async (action) => {
    await stack.createReady('web-1')
    const { keys, send } = faulty()
    await stack.run(['instance', action, 'web-1', '--no-wait'], { fetch: send })
    expect(keys.at(-1)).toMatch(/^[0-9a-f-]{36}$/)
  })
})
