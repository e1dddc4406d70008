import { EventStreamParser } from '@berth/cli/live/event-stream.ts'
import { CliStack, expectGolden, type RunOptions } from '@berth/cli/testing/cli-stack.ts'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

let stack: CliStack
beforeEach(async () => {
  stack = await CliStack.start()
})
afterEach(() => stack.stop())

/**
 * Run a command that goes on until Ctrl-C. Each step waits until what was printed so far has its text, then acts; after
 * the last one comes the Ctrl-C.
 */
async function interact(
  argv: string[],
  steps: { when: RegExp; act?: () => Promise<unknown> }[],
  options: RunOptions = {},
) {
  const stop = new AbortController()
  const left = [...steps]
  let acting = false
  let printed = ''
  const look = () => {
    const step = left[0]
    if (acting || step === undefined || !step.when.test(printed)) return
    acting = true
    left.shift()
    void (step.act?.() ?? Promise.resolve()).then(() => {
      acting = false
      if (left.length === 0) stop.abort()
      else look()
    })
  }
  const onOutput = (stdout: string) => {
    printed = stdout
    look()
  }
  const run = await stack.run(argv, { signal: stop.signal, onOutput, ...options })
  expect(left, `printed: ${run.stdout}${run.stderr}`).toEqual([])
  return run
}

describe('a list with --watch', () => {
  test('prints a line for each row that comes, changes and goes, and ends with 0 on Ctrl-C', async () => {
    await stack.createReady('web-1')
    const run = await interact(
      ['instance', 'list', '--watch'],
      [
        { when: /listed .* web-1/, act: () => stack.create('web-2') },
        {
          when: /added .* web-2/,
          act: async () => stack.host.report(await stack.host.wanted(undefined, 'web-2'), stack.host.running('true')),
        },
        {
          when: /changed .* web-2 .* running +yes/,
          act: () => stack.run(['instance', 'delete', 'web-1', '--no-wait']),
        },
        {
          when: /changed .* web-1 .* stopping/,
          act: async () =>
            stack.host.report(await stack.host.wanted(({ power }) => power === 'deleted', 'web-1'), {
              power: 'absent',
            }),
        },
        { when: /removed .* web-1/ },
      ],
    )
    expect(run.code).toBe(0)
    await expectGolden('watch-lines', run)
  })

  test('shows only what its filters let through', async () => {
    await stack.createReady('web-1', '--label', 'env=prod')
    const run = await interact(
      ['instance', 'list', '--watch', '-l', 'env=prod', '-o', 'json'],
      [
        { when: /"listed"/, act: () => stack.create('other', '--label', 'env=test') },
        { when: /"listed"/, act: () => stack.run(['instance', 'update', 'web-1', '--label', 'env=test']) },
        { when: /"removed"/ },
      ],
    )
    const changes = run.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(changes.map(({ change, item }) => `${change} ${item.metadata.name}`)).toEqual([
      'listed web-1',
      'removed web-1',
    ])
  })

  test('is drawn anew in place on a terminal', async () => {
    const run = await interact(
      ['vpc', 'list', '-w'],
      [
        { when: /vpc-abc123/, act: () => stack.run(['vpc', 'create', '--id', 'vpc-b', '--cidr', '10.2.0.0/16']) },
        { when: /vpc-b/, act: () => stack.run(['vpc', 'update', 'vpc-b', '--name', 'shop']) },
        { when: /vpc-b +shop/, act: () => stack.run(['vpc', 'delete', 'vpc-b']) },
        { when: /shop.*\[3A.*vpc-abc123.*\[J$/s },
      ],
      { tty: true },
    )
    expect(run.code).toBe(0)
    await expectGolden('watch-terminal', run)
  })

  test('follows numbers that others change', async () => {
    const run = await interact(
      ['vpc', 'list', '--watch'],
      [
        {
          when: /listed +vpc-abc123/,
          act: () => stack.run(['subnet', 'create', '--vpc', 'vpc-abc123', '--cidr', '10.0.2.0/24']),
        },
        { when: /changed +vpc-abc123 +example +10.0.0.0\/16 +2/ },
      ],
    )
    expect(run.code).toBe(0)
  })

  test('is current again after the stream broke, without a request that polls', async () => {
    let breakStream: (() => void) | null = null
    const requests: string[] = []
    const run = await interact(
      ['ssh-key', 'list', '--watch'],
      [
        {
          when: /key-001/,
          act: async () => {
            breakStream?.()
            await stack.run(['ssh-key', 'update', 'key-001', '--name', 'renamed'])
          },
        },
        { when: /changed +key-001 +renamed/ },
      ],
      {
        fetch: async (input, init) => {
          const request = new Request(input, init)
          requests.push(`${request.method} ${new URL(request.url).pathname}`)
          if (!request.url.endsWith('/v1/events')) return fetch(request)
          const cut = new AbortController()
          breakStream = () => cut.abort()
          return fetch(request, { signal: AbortSignal.any([request.signal, cut.signal]) })
        },
      },
    )
    expect(run.stderr).toBe('the event stream broke; connecting again in 1.0 s\n')
    expect(requests).toEqual(['GET /v1/events', 'GET /v1/ssh-keys', 'GET /v1/events', 'GET /v1/ssh-keys/key-001'])
  })
})

describe('event watch', () => {
  test('prints events as they come', async () => {
    const create = async () => {
      await stack.run(['vpc', 'create', '--id', 'vpc-a', '--cidr', '10.9.0.0/16'])
      await stack.run(['vpc', 'update', 'vpc-a', '--name', 'shop'])
      await stack.run(['vpc', 'delete', 'vpc-a'])
    }
    const run = await interact(
      ['events', '--type', 'vpc'],
      [{ when: /SEQUENCE/, act: create }, { when: /vpc.deleted/ }],
      {
        fetch: async (input, init) => fetch(input, init),
      },
    )
    expect(run.code).toBe(0)
    expect(run.stdout.match(/vpc\.\w+/g)).toEqual(['vpc.created', 'vpc.updated', 'vpc.deleted'])
  })

  test('goes on behind the last event after each broken connection: none is missing, none comes twice', async () => {
    await stack.createReady('web-1')
    const whole = await stack.run(['event', 'watch', '--after', '0', '--count', '12', '-o', 'json'])
    const resumed: (string | null)[] = []
    const broken = await stack.run(['event', 'watch', '--after', '0', '--count', '12', '-o', 'json'], {
      fetch: async (input, init) => {
        const request = new Request(input, init)
        resumed.push(request.headers.get('last-event-id'))
        const response = await fetch(request)
        return new Response(twoEventsOf(response), { headers: response.headers })
      },
    })
    expect(whole.stdout.trim().split('\n')).toHaveLength(12)
    expect(broken.stdout).toBe(whole.stdout)
    expect(resumed).toEqual(['0', '2', '4', '6', '8', '10'])
  })

  test('begins where the server was, also when the connection breaks before the first event', async () => {
    let connections = 0
    const run = await stack.run(['event', 'watch', '--count', '1', '-o', 'json'], {
      fetch: async (input, init) => {
        connections += 1
        if (connections > 1) return fetch(input, init)
        const response = await fetch(input, init)
        const reader = response.body?.getReader()
        const first = await reader?.read()
        await reader?.cancel()
        await stack.run(['vpc', 'create', '--id', 'vpc-between', '--cidr', '10.9.0.0/16'])
        return new Response(Buffer.from(first?.value ?? []), { headers: response.headers })
      },
    })
    expect(JSON.parse(run.stdout)).toMatchObject({ type: 'vpc.created', resource_id: 'vpc-between' })
  })

  test('tells of events that the server no longer has', async () => {
    const argv = ['event', 'watch', '--after', '999999', '--count', '1', '-o', 'json']
    const run = await interact(argv, [
      { when: /"reset"/, act: () => stack.run(['vpc', 'create', '--cidr', '10.9.0.0/16']) },
      { when: /vpc.created/ },
    ])
    expect(run.stderr).toBe('events are missing here; list what you follow anew\n')
  })

  test('gives up when no server answers', async () => {
    const run = await stack.run(['event', 'watch'], {
      fetch: () => Promise.reject(new TypeError('fetch failed')),
    })
    expect(run.code).toBe(69)
  })
})

/** The head of a stream, up to its second event. */
function twoEventsOf(response: Response): ReadableStream<Uint8Array> {
  let seen = ''
  const cut = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      const before = seen.length
      seen += Buffer.from(chunk).toString('latin1')
      const ends = [...seen.matchAll(/\ndata: .*\n\n/g)].map((match) => match.index + match[0].length)
      const end = ends[1]
      if (end === undefined) return controller.enqueue(chunk)
      controller.enqueue(chunk.subarray(0, end - before))
      controller.terminate()
    },
  })
  return (response.body ?? new ReadableStream()).pipeThrough(cut)
}

describe('EventStreamParser', () => {
  test('puts messages together from pieces that are cut anywhere', () => {
    const text =
      'retry: 1\nid: 3\n: hello\n\nid: 4\nevent: a.b\ndata: {"x":\ndata: 1}\n\n:keep\n\nevent: c\r\ndata:y\r\n\r\n'
    const whole = new EventStreamParser().feed(text)
    expect(whole).toEqual([
      { id: 3, type: '', data: '' },
      { id: 4, type: 'a.b', data: '{"x":\n1}' },
      { id: null, type: 'c', data: 'y' },
    ])
    for (let cut = 1; cut < text.length; cut++) {
      const parser = new EventStreamParser()
      expect([...parser.feed(text.slice(0, cut)), ...parser.feed(text.slice(cut))], `cut at ${cut}`).toEqual(whole)
    }
  })

  test('refuses a message without an end', () => {
    const parser = new EventStreamParser()
    expect(() => {
      for (let i = 0; i < 200; i++) parser.feed('x'.repeat(10_000))
    }).toThrow(RangeError)
  })
})
