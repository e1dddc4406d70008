import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Desired } from '@berth/contract/hosts/agent-protocol.ts'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { newRecord } from './instance/record.ts'
import { Ledger } from './ledger.ts'

let directory: string
let ledger: Ledger

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'berth-ledger-'))
  ledger = new Ledger(join(directory, 'ledger.db'))
})

afterEach(async () => {
  ledger.close()
  await rm(directory, { recursive: true, force: true })
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
