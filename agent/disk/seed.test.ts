import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { expectGolden } from '../../test/golden.ts'
import { desiredInstance } from '../testing/desired-instance.ts'
import { renderSeed, renderVendorData, writeSeed } from './seed.ts'

const instance = desiredInstance({
  id: 'inst-01m857kf7c8a5rzsw9t7',
  hostname: 'web-server-01',
  private_ip: '10.0.1.4',
  mac: '06:12:34:56:12:34',
  ssh_public_keys: [`ssh-rsa ${'A'.repeat(700)} long@example`, 'ssh-ed25519 AAAA: #not a comment'],
  user_data: Buffer.from('#!/bin/sh\nexit 0\n').toString('base64'),
})
const network = { prefixLength: 24, gateway: '10.0.1.1' }
const yaml = (text: string) => parse(text, { version: '1.1' })

test.each(['static', 'dhcp'] as const)('the files of an image with %s addresses', (mode) => {
  const files = renderSeed(instance, network, { network: mode }, '#!/bin/sh\n')
  expectGolden(import.meta.dirname, `seed-${mode}-network-config.yaml`, files['network-config'])
  expectGolden(import.meta.dirname, 'seed-meta-data.yaml', files['meta-data'])
  expect(files['vendor-data']).toBe('#!/bin/sh\n')
})

test('user data goes in byte for byte', () => {
  const bytes = Buffer.from(Array.from({ length: 512 }, (_, i) => i % 256))
  const files = renderSeed({ ...instance, user_data: bytes.toString('base64') }, network, { network: 'static' }, '')
  expect(files['user-data'].equals(bytes)).toBe(true)
  expect(renderSeed({ ...instance, user_data: '' }, network, { network: 'dhcp' }, '')['user-data'].length).toBe(0)
})

test('a name that YAML could take for something else stays a text', () => {
  for (const hostname of ['true', 'no', 'on', 'y', 'null', '123', '0x1f', '1e3', '012', '0b1', '1-2-3', '2026-01-01']) {
    const { 'meta-data': text } = renderSeed({ ...instance, hostname }, network, { network: 'static' }, '')
    expect(yaml(text)['local-hostname']).toBe(hostname)
  }
})

test('a MAC that YAML 1.1 could take for a number in base 60 stays a text', () => {
  for (const mac of ['06:00:00:00:00:01', '06:12:34:56:12:34', '06:59:59:59:59:59']) {
    const { 'network-config': text } = renderSeed({ ...instance, mac }, network, { network: 'static' }, '')
    expect(yaml(text).ethernets.nic0.match.macaddress).toBe(mac)
  }
})

test('no comment of a key can add anything to the metadata', () => {
  for (const comment of ['"', "'", ': x', '#', '\\n', '- a', '{a: b}', '&a', '*a', '!x', '%', '@', 'ü', '🔑']) {
    const key = `ssh-ed25519 AAAA ${comment}`
    const { 'meta-data': text } = renderSeed(
      { ...instance, ssh_public_keys: [key] },
      network,
      { network: 'static' },
      '',
    )
    expect(yaml(text)).toEqual({
      'instance-id': instance.id,
      'local-hostname': instance.hostname,
      'public-keys': [key],
    })
  }
})

test('vendor data is a script a shell can read, and carries the two files', async () => {
  const script = await renderVendorData(join(import.meta.dirname, '../guest'))
  expect(script.startsWith('#!/bin/sh\n')).toBe(true)
  expect(spawnSync('sh', ['-n'], { input: script }).status).toBe(0)
  const unit = /echo '(\S+)' \| base64 -d > \/etc\/systemd\/system\/berth-ready.service/.exec(script)?.[1] ?? ''
  expect(Buffer.from(unit, 'base64').toString()).toContain('[Service]')
})

const tools = ['mkfs.vfat', 'mcopy'].every((tool) => spawnSync('sh', ['-c', `command -v ${tool}`]).status === 0)

test.skipIf(!tools)('a written seed holds the files, also the largest user data, and leaves no scraps', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'berth-test-'))
  try {
    const file = join(directory, 'seed.img')
    const bytes = Buffer.alloc(65_536, 'x')
    const files = renderSeed({ ...instance, user_data: bytes.toString('base64') }, network, { network: 'static' }, 'v')
    await writeSeed(file, files)
    await writeSeed(file, files) // again, over the first
    expect(readdirSync(directory)).toEqual(['seed.img'])
    expect(execFileSync('mtype', ['-i', file, '::user-data']).equals(bytes)).toBe(true)
    expect(execFileSync('mtype', ['-i', file, '::meta-data']).toString()).toBe(files['meta-data'])
  } finally {
    rmSync(directory, { recursive: true })
  }
})
