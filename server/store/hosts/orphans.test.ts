import { describe, expect, test } from 'vitest'
import { engines } from '../testing/engines.ts'
import { storesOn } from '../testing/stores.ts'
import { checks, findOrphans } from './orphans.ts'

describe.each(engines)('orphans on $name', (engine) => {
  const openStore = storesOn(engine)

  test('are looked for in the whole of a table, in pieces between which others have their turn', async () => {
    const store = await openStore()
    const numbers = Array.from({ length: 1000 }, (_, index) => index)
    await store.write(async (tx) => {
      // nothing is wrong with these: an address that is free again belongs to nobody
      await tx.db
        .insertInto('public_addresses')
        .values(numbers.map((number) => ({ number, public_ip_id: null, freed_at: 1 })))
        .execute()
      await tx.db
        .insertInto('public_addresses')
        .values({ number: 5000, public_ip_id: 'pip-gone', freed_at: 0 })
        .execute()
    })
    let turns = 0
    let looking = true
    const count = () => {
      turns++
      if (looking) setImmediate(count)
    }
    setImmediate(count)
    const found = []
    for (const check of checks) found.push(...(await findOrphans(check, store.read, { keysBefore: 0 }, 100)))
    looking = false
    expect(found).toMatchObject([{ kind: 'public_address', name: '0.0.19.136' }])
    expect(turns).toBeGreaterThanOrEqual(4)
  })

  test('are told of only so many of', async () => {
    const store = await openStore()
    const numbers = Array.from({ length: 600 }, (_, index) => index)
    await store.write(async (tx) => {
      await tx.db
        .insertInto('public_addresses')
        .values(numbers.map((number) => ({ number, public_ip_id: `pip-${number}`, freed_at: 0 })))
        .execute()
    })
    const found = []
    for (const check of checks) found.push(...(await findOrphans(check, store.read, { keysBefore: 0 }, 260)))
    expect(found).toHaveLength(260)
    expect(new Set(found.map(({ name }) => name)).size).toBe(260)
  })
})
