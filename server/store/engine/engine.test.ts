import { expect, test } from 'vitest'
import { isStorageFull, isStorageUnavailable } from './engine.ts'

const coded = (code: unknown) => Object.assign(new Error('x'), { code })

test('a database that is away, restarting or busy is told from one that refuses', () => {
  for (const code of ['SQLITE_BUSY', 'ECONNREFUSED', 'ENOENT', 'CONNECTION_LOST', '08006', '57P01', '57P03', '53300']) {
    expect({ code, unavailable: isStorageUnavailable(coded(code)) }).toEqual({ code, unavailable: true })
    expect(isStorageFull(coded(code))).toBe(false)
  }
  for (const code of ['23505', '22021', 'SQLITE_CONSTRAINT_UNIQUE', '57014', '', 8, undefined]) {
    expect({ code, unavailable: isStorageUnavailable(coded(code)) }).toEqual({ code, unavailable: false })
  }
  expect(isStorageUnavailable({ code: '08006' })).toBe(false)
  expect(isStorageUnavailable(null)).toBe(false)
})

test('a full disk is neither', () => {
  for (const code of ['SQLITE_FULL', 'SQLITE_IOERR_WRITE', '53100']) {
    expect({ code, full: isStorageFull(coded(code)) }).toEqual({ code, full: true })
    expect(isStorageUnavailable(coded(code))).toBe(false)
  }
})
