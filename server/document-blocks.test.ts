import fc from 'fast-check'
import { expect, test } from 'vitest'
import { DocumentBlocks, type RenderedDocument } from './document-blocks.ts'

const blockBytes = 256
const ids = ['a', 'b', 'c', 'd', 'e', 'f'] as const
const body = fc.oneof(fc.string({ maxLength: 200 }), fc.string({ unit: 'grapheme', maxLength: 60 }))
const act = fc.oneof(
  fc.record({ id: fc.constantFrom(...ids), body, etag: fc.constantFrom('"1-0"', '"23-456"') }),
  fc.record({ id: fc.constantFrom(...ids) }),
)

test('a document comes back as it was set last, or not at all', () => {
  fc.assert(
    fc.property(fc.array(act, { minLength: 1, maxLength: 60 }), fc.integer({ min: 1, max: 4 }), (acts, count) => {
      const blocks = new DocumentBlocks(count * blockBytes, blockBytes)
      const last = new Map<string, RenderedDocument>()
      for (const each of acts) {
        if ('body' in each) {
          blocks.set(each)
          last.set(each.id, each)
          expect(blocks.get(each.id)).toEqual(fits(each) ? last.get(each.id) : null)
        } else {
          blocks.delete(each.id)
          last.delete(each.id)
        }
        for (const id of ids) expect([last.get(id), null]).toContainEqual(blocks.get(id))
      }
    }),
    { numRuns: 500 },
  )
})

/** Six bytes stand before each document. */
const fits = ({ body, etag }: { body: string; etag: string }) => 6 + etag.length + Buffer.byteLength(body) <= blockBytes

test('the documents set longest ago go first, and those that there is room for stay', () => {
  const blocks = new DocumentBlocks(3 * blockBytes, blockBytes)
  const set = (id: string) => blocks.set({ id, body: id.repeat(100), etag: '""' }) // two to a block
  const kept = () => [...ids, 'g'].filter((id) => blocks.get(id) !== null)
  for (const id of ids) set(id)
  expect(kept()).toEqual(['a', 'b', 'c', 'd', 'e', 'f'])
  set('g')
  expect(kept()).toEqual(['c', 'd', 'e', 'f', 'g'])
})
