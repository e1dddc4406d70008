import { createPublicKey, verify } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { expectGolden } from '../../test/golden.ts'
import type { ReadyMarker } from '../console/ready-marker.ts'
import { renderSeed } from '../disk/seed.ts'
import { testGuest } from '../testing/guest.ts'
import { type AnswerSources, answerGuest, type MetadataRequest } from './answer.ts'
import { seedSecret } from './credentials.ts'
import { ec2Versions } from './ec2-tree.ts'
import type { Guest } from './guest.ts'
import { deriveKeys, identityPublicKey } from './keys.ts'

const keys = deriveKeys(Buffer.alloc(32, 7))
const guest = testGuest({
  user_data: Buffer.from('#!/bin/sh\necho hi\n').toString('base64'),
  ssh_public_keys: ['ssh-ed25519 AAAA one', 'ssh-ed25519 BBBB two'],
})
const seedOf = ({ instance, image }: Guest) =>
  renderSeed(instance, { prefixLength: 24, gateway: '10.0.1.1' }, image, '#!/bin/sh\necho vendor\n')

const clock = { ms: 1_700_000_000_000 }
const marks: [string, ReadyMarker][] = []
const sources: AnswerSources = {
  desk: {
    hostId: 'host-00000000000000000000',
    find: () => guest,
    ready: (id, marker) => marks.push([id, marker]),
    count() {},
  },
  keys,
  renderSeed: seedOf,
  now: () => clock.ms,
}

function ask(url: string, request: Partial<MetadataRequest> = {}, who: Guest = guest) {
  const answer = answerGuest({ method: 'GET', url, headers: {}, body: Buffer.alloc(0), ...request }, who, sources)
  return { ...answer, text: answer.body.toString() }
}

function takeToken(seconds = 21_600, who: Guest = guest): string {
  const headers = { 'x-aws-ec2-metadata-token-ttl-seconds': String(seconds) }
  return ask('/latest/api/token', { method: 'PUT', headers }, who).text
}

function read(path: string, token = takeToken(), who: Guest = guest) {
  return ask(path, { headers: { 'x-aws-ec2-metadata-token': token } }, who)
}

/** Every value of the tree, as a program finds it that follows the listings. */
function crawl(path: string, who: Guest = guest): string[] {
  const { status, text } = read(path, takeToken(60, who), who)
  expect(status, path).toBe(200)
  return text.split('\n').flatMap((entry) => {
    const [number, named] = entry.split('=')
    if (named !== undefined) return [`${path}${number}/openssh-key: ${read(`${path}${number}/openssh-key`).text}`]
    if (entry.endsWith('/')) return crawl(`${path}${entry}`, who)
    return [`${path}${entry}: ${read(`${path}${entry}`, takeToken(60, who), who).text.replaceAll('\n', ' | ')}`]
  })
}

describe('tokens', () => {
  test('are needed for everything of EC2’s interface', () => {
    for (const path of [
      '/',
      '/latest',
      '/latest/meta-data/',
      '/2009-04-04/user-data',
      '/latest/dynamic/',
      '/latest/x',
    ]) {
      expect(ask(path).status, path).toBe(401)
      expect(read(path).status, path).not.toBe(401)
    }
  })

  test.each(['0', '21601', '-1', '1.5', '', 'six', '00000060', '1e3'])('are not given for %j seconds', (seconds) => {
    const headers = { 'x-aws-ec2-metadata-token-ttl-seconds': seconds }
    expect(ask('/latest/api/token', { method: 'PUT', headers }).status).toBe(400)
  })

  test('are not given without a time, nor by another method', () => {
    expect(ask('/latest/api/token', { method: 'PUT' }).status).toBe(400)
    const { status, headers } = ask('/latest/api/token', { method: 'GET' })
    expect([status, headers.allow]).toEqual([405, 'PUT'])
  })

  test('are refused with X-Forwarded-For, as is every request', () => {
    const headers = { 'x-aws-ec2-metadata-token-ttl-seconds': '60', 'x-forwarded-for': '10.0.1.9' }
    expect(ask('/latest/api/token', { method: 'PUT', headers }).status).toBe(403)
    const proxied = { 'x-aws-ec2-metadata-token': takeToken(), 'x-forwarded-for': '10.0.1.9' }
    expect(ask('/latest/meta-data/', { headers: proxied }).status).toBe(403)
  })

  test('end when their time is over', () => {
    const token = takeToken(60)
    expect(read('/latest/meta-data/', token).status).toBe(200)
    clock.ms += 60_000
    expect(read('/latest/meta-data/', token).status).toBe(401)
  })

  test('of another instance, made up or changed are worth nothing', () => {
    const other = testGuest({ id: 'inst-11111111111111111111' })
    const token = takeToken()
    const [expiry = '', random = '', mac = ''] = token.split('.')
    const longer = `${Number(expiry) + 1}.${random}.${mac}`
    const upper = `${expiry}.${random}.${mac.toLowerCase()}`
    for (const bad of [
      takeToken(60, other),
      '',
      'x',
      longer,
      upper,
      `${token}.`,
      `${token},${token}`,
      'ü'.repeat(43),
    ]) {
      expect(read('/latest/meta-data/', bad).status, bad).toBe(401)
    }
  })

  test('of a service with the same secret go on, with another secret not', () => {
    const token = takeToken()
    const headers = { 'x-aws-ec2-metadata-token': token }
    const request = { method: 'GET', url: '/latest/meta-data/mac', headers, body: Buffer.alloc(0) }
    const status = (secret: number) =>
      answerGuest(request, guest, { ...sources, keys: deriveKeys(Buffer.alloc(32, secret)) }).status
    expect([status(7), status(8)]).toEqual([200, 401])
  })

  test('are all different', () => {
    expect(takeToken()).not.toBe(takeToken())
  })
})

describe('the tree of EC2', () => {
  test('holds what is known of the instance', () => {
    expectGolden(import.meta.dirname, 'meta-data.txt', `${crawl('/latest/meta-data/').join('\n')}\n`)
  })

  test('has a public address only where there is one', () => {
    const withPublic = testGuest({}, { public_ip: '203.0.113.7' })
    const lines = crawl('/latest/meta-data/', withPublic).filter((line) => line.includes('public'))
    expect(lines).toEqual([
      `/latest/meta-data/network/interfaces/macs/${guest.nic.mac}/public-ipv4s: 203.0.113.7`,
      '/latest/meta-data/public-ipv4: 203.0.113.7',
    ])
  })

  test('is the same in each version, and the versions are listed', () => {
    expect(read('/').text.split('\n')).toEqual([...ec2Versions])
    for (const version of ec2Versions) {
      expect(read(`/${version}/meta-data/instance-id`).text).toBe(guest.instance.id)
      expect(read(`/${version}/`).text).toBe('dynamic\nmeta-data\nuser-data')
    }
    expect(read('/2030-01-01/meta-data/instance-id').status).toBe(404)
  })

  test('gives user data as it was given, and 404 where there is none', () => {
    expect(read('/latest/user-data').text).toBe('#!/bin/sh\necho hi\n')
    const without = testGuest()
    expect(read('/latest/user-data', takeToken(60, without), without).status).toBe(404)
    expect(read('/latest/', takeToken(60, without), without).text).toBe('dynamic\nmeta-data')
  })

  test.each([
    '/latest/meta-data/nothing',
    '/latest/meta-data/mac/x',
    '/latest/meta-data/__proto__',
    '/latest/meta-data/constructor',
    '/latest/meta-data/..%2f..',
    '/latest/meta-data/../user-data',
    '/latest/user-data/x',
    '/latest/dynamic/x',
    '/favicon.ico',
    'http://169.254.169.254/latest/meta-data/',
    '*',
  ])('has nothing at %s', (path) => {
    expect(read(path).status).toBe(404)
  })

  test('is only read', () => {
    const headers = { 'x-aws-ec2-metadata-token': takeToken() }
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
      expect(ask('/latest/meta-data/', { method, headers }).status, method).toBe(405)
    }
    expect(ask('/latest/meta-data/', { method: 'HEAD', headers }).status).toBe(200)
  })
})

describe('the identity document', () => {
  test('names the instance, and its signature is checked with the public key beside it', () => {
    const at = '/latest/dynamic/instance-identity'
    expect(read(`${at}/`).text.split('\n')).toEqual(['document', 'public-key', 'signature'])
    const document = read(`${at}/document`).text
    expect(JSON.parse(document)).toMatchObject({
      instanceId: guest.instance.id,
      imageId: 'micro',
      instanceType: 'micro',
      privateIp: '10.0.1.4',
      hostId: 'host-00000000000000000000',
      pendingTime: '2026-03-04T05:06:07Z',
    })
    const key = createPublicKey(read(`${at}/public-key`).text)
    const signature = Buffer.from(read(`${at}/signature`).text, 'base64')
    expect(verify(null, Buffer.from(document), key, signature)).toBe(true)
    expect(verify(null, Buffer.from(document.replace('micro', 'macro')), key, signature)).toBe(false)
    expect(identityPublicKey(keys)).toBe(read(`${at}/public-key`).text)
  })
})

describe('the seed in the network', () => {
  const secret = seedSecret(keys.nocloud, guest.instance.id)

  test('is that of the disk, under the secret of the instance', () => {
    for (const [name, content] of Object.entries(seedOf(guest))) {
      expect(ask(`/nocloud/${secret}/${name}`)).toMatchObject({ status: 200, text: content.toString() })
    }
  })

  test.each([
    ['the secret of another instance', seedSecret(keys.nocloud, 'inst-11111111111111111111')],
    ['no secret', ''],
    ['a part of it', secret.slice(0, -1)],
    ['more than it', `${secret}0`],
    ['it in other letters', secret.toUpperCase()],
    ['other characters', 'ü'.repeat(20)],
  ])('is not there for %s', (_what, given) => {
    expect(ask(`/nocloud/${given}/user-data`).status).toBe(404)
  })

  test('has no other files, and is only read', () => {
    for (const file of ['', 'toString', 'meta-data/x', '../user-data']) {
      expect(ask(`/nocloud/${secret}/${file}`).status, file).toBe(404)
    }
    expect(ask(`/nocloud/${secret}/user-data`, { method: 'POST' }).status).toBe(405)
  })

  test('has a secret of 160 bits that is another one for each instance and each host', () => {
    expect(secret).toMatch(/^[0-9a-f]{40}$/)
    expect(seedSecret(deriveKeys(Buffer.alloc(32, 8)).nocloud, guest.instance.id)).not.toBe(secret)
  })
})

describe('the ready report', () => {
  const report = { boot_id: 'b-1', user_data: 'failed', exit_code: 3, output_tail: 'no' }
  const post = (body: string, token = takeToken()) =>
    ask('/berth/v1/ready', { method: 'POST', headers: { 'x-aws-ec2-metadata-token': token }, body: Buffer.from(body) })

  test('reaches the agent in the name of who sent it', () => {
    marks.length = 0
    expect(post(JSON.stringify(report)).status).toBe(204)
    expect(marks).toEqual([[guest.instance.id, report]])
  })

  test('needs a token, a body that is one, and POST', () => {
    marks.length = 0
    expect(post(JSON.stringify(report), 'x').status).toBe(401)
    const long = { ...report, output_tail: 'x'.repeat(4097) }
    for (const body of ['', '{', '[]', '{}', JSON.stringify(long), JSON.stringify({ ...report, user_data: 'maybe' })]) {
      expect(post(body).status, body.slice(0, 40)).toBe(400)
    }
    expect(read('/berth/v1/ready').status).toBe(405)
    expect(read('/berth/v1/').status).toBe(404)
    expect(marks).toEqual([])
  })
})
