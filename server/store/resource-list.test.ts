import { expect, test } from 'vitest'
import { listMatching, mostLookedAt } from './resource-list.ts'

const key = (n: number) => String(n).padStart(6, '0')

/** A table of so many rows; `read` is how often it was read. */
function table(size: number) {
  const reads: number[] = []
  const read = async (after: string | undefined, limit: number) => {
    reads.push(limit)
    const first = after === undefined ? 0 : Number(after) + 1
    return Array.from({ length: Math.max(0, Math.min(limit, size - first)) }, (_, i) => ({ id: key(first + i) }))
  }
  return { read, reads }
}

test('a look for what matches ends after so many rows, and says where to go on', async () => {
  const { read, reads } = table(2 * mostLookedAt)
  const wanted = key(mostLookedAt + 7)
  const matches = ({ id }: { id: string }) => id === wanted
  const first = await listMatching({ limit: 10 }, matches, read)
  expect(first).toEqual({ items: [], behind: key(mostLookedAt - 1) })
  expect(reads.reduce((sum, rows) => sum + rows, 0)).toBe(mostLookedAt)
  const second = await listMatching({ limit: 10, after: first.behind ?? '' }, matches, read)
  expect(second.items).toEqual([{ id: wanted }])
  const full = await listMatching({ limit: 1, after: first.behind ?? '' }, matches, read)
  expect(full).toEqual({ items: [{ id: wanted }], behind: null })
})

test('others get their turn while a look goes on', async () => {
  const { read } = table(2 * mostLookedAt)
  let turns = 0
  const turn = () => {
    turns++
    again = setImmediate(turn)
  }
  let again = setImmediate(turn)
  await listMatching({ limit: 1 }, () => false, read)
  clearImmediate(again)
  expect(turns).toBeGreaterThan(2)
})

test('a list without conditions is read once, and its end is its end', async () => {
  const { read, reads } = table(3)
  expect(await listMatching({ limit: 10 }, null, read)).toEqual({
    items: [0, 1, 2].map((n) => ({ id: key(n) })),
    behind: null,
  })
  expect(reads).toEqual([10])
  expect(await listMatching({ limit: 10 }, () => false, read)).toEqual({ items: [], behind: null })
})
