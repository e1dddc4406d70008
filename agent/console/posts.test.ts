import {
  type ConsoleChunk,
  consoleChunkBytes,
  consolePostBytes,
  consolePostChunks,
} from '@berth/contract/hosts/agent-protocol.ts'
import { expect, test } from 'vitest'
import { ConsolePosts } from './posts.ts'

const chunk = (n: number, bytes = 3): ConsoleChunk => ({
  instance_id: `inst-${String(n).padStart(20, '0')}`,
  offset: 100 * n,
  data: Buffer.alloc(bytes).toString('base64'),
})

/** A server that answers each post when it is told to. */
class SlowServer {
  readonly posts: { chunks: readonly ConsoleChunk[]; answer: (next: (number | null)[]) => void; fail: () => void }[] =
    []
  readonly #arrivals: (() => void)[] = []

  readonly post = (chunks: readonly ConsoleChunk[]) => {
    const { promise, resolve, reject } = Promise.withResolvers<(number | null)[]>()
    this.posts.push({ chunks, answer: resolve, fail: () => reject(new Error('the connection was reset')) })
    for (const arrived of this.#arrivals.splice(0)) arrived()
    return promise
  }

  /** The post with this number, as soon as it is there. */
  async nth(n: number) {
    while (this.posts[n] === undefined) await new Promise<void>((resolve) => this.#arrivals.push(resolve))
    return this.posts[n]
  }
}

test('what is handed over at the same moment goes in one post, and each chunk gets its own answer', async () => {
  const server = new SlowServer()
  const posts = new ConsolePosts(server.post)
  const handed = [posts.add(chunk(1)), posts.add(chunk(2)), posts.add(chunk(3))]
  const first = await server.nth(0)
  expect(first.chunks).toEqual([chunk(1), chunk(2), chunk(3)])
  first.answer([103, null, 303])
  expect(await Promise.allSettled(handed)).toMatchObject([
    { status: 'fulfilled', value: 103 },
    {
      status: 'rejected',
      reason: { message: `the server does not know instance ${chunk(2).instance_id} on this host` },
    },
    { status: 'fulfilled', value: 303 },
  ])
})

test('what comes while a post is under way waits for its answer and goes with the next', async () => {
  const server = new SlowServer()
  const posts = new ConsolePosts(server.post)
  const before = posts.add(chunk(1))
  const first = await server.nth(0)
  const meanwhile = [posts.add(chunk(2)), posts.add(chunk(3))]
  expect(server.posts).toHaveLength(1)
  first.answer([103])
  expect(await before).toBe(103)
  const second = await server.nth(1)
  expect(second.chunks).toEqual([chunk(2), chunk(3)])
  second.answer([203, 303])
  expect(await Promise.all(meanwhile)).toEqual([203, 303])
})

test('a post that fails fails each of its chunks and none of the next', async () => {
  const server = new SlowServer()
  const posts = new ConsolePosts(server.post)
  const lost = Promise.allSettled([posts.add(chunk(1)), posts.add(chunk(2))])
  const first = await server.nth(0)
  const next = posts.add(chunk(3))
  first.fail()
  expect(await lost).toMatchObject([{ reason: { message: 'the connection was reset' } }, { status: 'rejected' }])
  ;(await server.nth(1)).answer([303])
  expect(await next).toBe(303)
})

test('no post has more chunks or more bytes than the server takes', async () => {
  const server = new SlowServer()
  const posts = new ConsolePosts(server.post)
  const full = consolePostBytes / consoleChunkBytes
  const handed = [
    ...Array.from({ length: full + 1 }, (_, n) => posts.add(chunk(n, consoleChunkBytes))),
    ...Array.from({ length: consolePostChunks + 1 }, (_, n) => posts.add(chunk(n))),
  ]
  const counts: number[] = []
  for (let n = 0, left = handed.length; left > 0; n++) {
    const { chunks, answer } = await server.nth(n)
    counts.push(chunks.length)
    left -= chunks.length
    answer(chunks.map(() => 0))
  }
  await Promise.all(handed)
  expect(counts).toEqual([full, consolePostChunks, 2])
})
