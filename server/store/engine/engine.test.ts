import { expect, test } from 'vitest'
import { isStorageFull, isStorageUnavailable } from './engine.ts'

const coded = (code: unknown) => Object.assign(new Error('x'), { code })

test('a database that is away, restarting, busy or a standby is told from one that refuses', () => {
  const busySqlite = ['SQLITE_BUSY', 'SQLITE_BUSY_SNAPSHOT', 'SQLITE_BUSY_RECOVERY', 'SQLITE_LOCKED', 'SQLITE_PROTOCOL']
  const connections = ['CONNECTION_LOST', '08006', '08P01', '57P01', '57P03', '57P05', '53300', '53200', '58030']
  const within = ['25006', '25P03', '25P04', '40001', '40003', '40P01', '55000', '55006', '55P03', '57014']
  for (const code of [...busySqlite, ...connections, ...within]) {
    expect({ code, unavailable: isStorageUnavailable(coded(code)) }).toEqual({ code, unavailable: true })
    expect(isStorageFull(coded(code))).toBe(false)
  }
  const refusals = ['23505', '22021', '25P02', '40002', '42P01', '42501', 'XX001', 'SQLITE_CONSTRAINT_UNIQUE']
  // what a file or a socket of somebody else says is not the database's word
  const others = ['ENOENT', 'ECONNREFUSED', '53', '08', '57P', '580300', '', 8, undefined]
  for (const code of [...refusals, ...others]) {
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
