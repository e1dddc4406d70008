import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Desired } from '@berth/contract/hosts/agent-protocol.ts'
import SqliteDatabase from 'better-sqlite3'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { newRecord } from './instance/record.ts'
import { Ledger } from './ledger.ts'
import { desiredInstance } from './testing/desired-instance.ts'

let directory = ''
let file = ''
let ledger: Ledger
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'berth-ledger-'))
  file = join(directory, 'ledger.db')
  ledger = new Ledger(file)
})
afterEach(async () => {
  ledger.close()
  await rm(directory, { recursive: true, force: true })
})

/** What is on the disk, as an agent finds it that is started after a crash. */
function found<T>(read: (ledger: Ledger) => T): T {
  const other = new Ledger(file)
  try {
    return read(other)
  } finally {
    other.close()
  }
}

const id = (number: number) => `inst-${String(number).padStart(20, '0')}` as const
const powers = () => found((other) => other.loadRecords()).map(({ power }) => power)

function desired(revision: number, names: readonly string[]): Desired {
  const instances = names.map((hostname, index) => desiredInstance({ id: id(index), hostname }))
  return { revision, instances, networks: [], images: [], security_groups: [], removed_images: [] }
}

test('a record is on disk when it is saved; one that is noted with the next save of any, as it is by then', () => {
  const noted = { ...newRecord(id(1), 0, 'vpc-a') }
  const saved = newRecord(id(2), 1, 'vpc-a')
  ledger.noteRecord(noted)
  Object.assign(noted, { power: 'running' })
  expect(powers()).toEqual([])
  ledger.saveRecord(saved)
  expect(powers()).toEqual(['running', 'off'])
})

test('what is noted is on disk after a flush, and when the ledger is closed', () => {
  const record = newRecord(id(1), 0, 'vpc-a')
  ledger.noteRecord(record)
  ledger.flush()
  expect(powers()).toEqual(['off'])
  ledger.noteRecord({ ...record, power: 'starting' })
  ledger.close()
  expect(powers()).toEqual(['starting'])
})

test('a record that is removed is not written again for having been noted before', () => {
  const record = newRecord(id(1), 0, 'vpc-a')
  ledger.saveRecord(record)
  ledger.noteRecord(record)
  ledger.removeRecord(record.id)
  ledger.flush()
  expect(powers()).toEqual([])
})

test('the desired state is found as it was saved last: changed, added and gone instances', () => {
  expect(ledger.loadDesired()).toBe(null)
  ledger.saveDesired(desired(1, ['web', 'db', 'mail']))
  expect(found((other) => other.loadDesired())).toEqual(desired(1, ['web', 'db', 'mail']))
  ledger.saveDesired(desired(2, ['web', 'data']))
  expect(found((other) => other.loadDesired())).toEqual(desired(2, ['web', 'data']))
  found((other) => other.saveDesired(desired(3, ['web', 'data', 'new'])))
  expect(found((other) => other.loadDesired())).toEqual(desired(3, ['web', 'data', 'new']))
})

test('the desired state of a version that kept it in one text is read, and replaced', () => {
  const raw = new SqliteDatabase(file)
  raw.prepare('insert into meta (key, value) values (?, ?)').run('desired', JSON.stringify(desired(1, ['web', 'db'])))
  raw.close()
  expect(ledger.loadDesired()).toEqual(desired(1, ['web', 'db']))
  ledger.saveDesired(desired(2, ['web']))
  expect(ledger.loadDesired()).toEqual(desired(2, ['web']))
})

test('of a desired state only what differs is written', () => {
  // a row that is written anew gets another number
  const rows = () => {
    const raw = new SqliteDatabase(file, { readonly: true })
    const numbers = raw.prepare<[], number>('select rowid from desired_instances order by id').pluck().all()
    raw.close()
    return numbers
  }
  ledger.saveDesired(desired(1, ['web', 'db', 'mail']))
  const [web, db, mail] = rows()
  ledger.saveDesired(desired(2, ['web', 'data', 'mail', 'new']))
  const [webAfter, data, mailAfter, ...added] = rows()
  expect([webAfter, mailAfter]).toEqual([web, mail])
  expect(data).not.toBe(db)
  expect(added).toHaveLength(1)
})

test('what a version stored whose checksums were all SHA-256 is understood', () => {
  const hex = 'ab'.repeat(32)
  const about = {
    title: 'Base',
    min_disk_gb: 1,
    architecture: 'x86_64',
    default_user: 'root',
    network: 'static',
  } as const
  const image = { id: 'base', ...about, source_url: 'https://a.example/base', registered: true } as const
  const desired = { revision: 7, instances: [], networks: [], security_groups: [] }
  const [before, now] = [{ sha256: hex }, { checksum: `sha256:${hex}` }]
  // as JSON, since this version has no words for it
  const stored: Desired = JSON.parse(
    JSON.stringify({
      ...desired,
      images: [{ ...image, ...before }],
      removed_images: [{ id: 'old', registered_sha256: hex }],
    }),
  )
  ledger.saveDesired(stored)
  expect(ledger.loadDesired()).toEqual({
    ...desired,
    images: [{ ...image, ...now }],
    removed_images: [{ id: 'old', registered_checksum: `sha256:${hex}` }],
  })
  const record = newRecord('inst-00000000000000000001', 0, 'vpc-a')
  ledger.saveRecord({ ...record, image: JSON.parse(JSON.stringify({ ...image, ...before })) })
  expect(ledger.loadRecords()).toEqual([{ ...record, image: { ...image, ...now } }])
})
