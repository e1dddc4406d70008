import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ImageDownloadError } from '@berth/agent/image/download-error.ts'
import { getSource } from '@berth/agent/image/request.ts'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { rejection } from '@berth/agent/testing/rejection.ts'
import type { PrivateSources } from '@berth/contract/images/source.ts'
import { afterAll, beforeAll, expect, test } from 'vitest'

/** Addresses that no rule forbids but that they are this machine's own. */
const own = '10.9.8.7'
const ownIpv6 = 'fd00:9:8::7'

let seen: string[] = []
const service = createServer((request, response) => {
  seen.push(request.url ?? '')
  const to = /^\/to\/(.*)/.exec(request.url ?? '')?.[1]
  response.writeHead(to === undefined ? 200 : 302, to === undefined ? {} : { location: decodeURIComponent(to) })
  response.end('secret of a service on this host')
})
let port: number
let directory: string

beforeAll(async () => {
  const { promise, resolve } = Promise.withResolvers<void>()
  service.listen(0, '::', resolve)
  await promise
  const address = service.address()
  port = typeof address === 'object' && address !== null ? address.port : 0
  directory = await mkdtemp(join(tmpdir(), 'berth-hosts-'))
  await writeFile(join(directory, 'hosts'), `127.0.0.1 localhost\n${own} service.example\n10.9.8.6 other.example\n`)
  await runCommand(['mount', '--bind', join(directory, 'hosts'), '/etc/hosts'])
  await runCommand(['ip', 'address', 'add', '10.9.8.6/32', 'dev', 'lo'])
})

afterAll(async () => {
  service.close()
  await runCommand(['umount', '/etc/hosts'])
  for (const address of ['10.9.8.6/32', `${own}/32`, `${ownIpv6}/128`]) {
    await runCommand(['ip', 'address', 'del', address, 'dev', 'lo'])
  }
  await rm(directory, { recursive: true, force: true })
})

async function get(url: string, allowPrivateSources: PrivateSources = ['10.9.8.6']): Promise<string> {
  const options = { allowPrivateSources, stallMs: 5000, maxRedirects: 3, keepTls: false }
  const response = await getSource(url, { ...options, signal: AbortSignal.timeout(20_000) })
  let text = ''
  for await (const chunk of response.read()) text += chunk.toString()
  return text
}

test('no image comes from an address that the host has by then, however it is named', async () => {
  // the second address comes only now: what counts are the addresses at the moment of connecting
  await runCommand(['ip', 'address', 'add', `${own}/32`, 'dev', 'lo'])
  await runCommand(['ip', 'address', 'add', `${ownIpv6}/128`, 'dev', 'lo', 'nodad'])
  expect(await get(`http://10.9.8.6:${port}/allowed`)).toContain('secret')
  expect(await get(`http://other.example:${port}/allowed`)).toContain('secret')
  seen = []
  const names = [own, String(0x0a_09_08_07), '0x0a.9.8.7', '012.9.8.7', 'service.example', `[::ffff:${own}]`]
  for (const name of [...names, `[${ownIpv6}]`]) {
    const { code, message } = await rejection(get(`http://${name}:${port}/direct`), ImageDownloadError)
    expect(code, name).toBe('forbidden_address')
    expect(message).toContain("this host's own address")
  }
  expect(seen).toEqual([])
  for (const name of [own, 'service.example', `[${ownIpv6}]`]) {
    const redirect = `http://10.9.8.6:${port}/to/${encodeURIComponent(`http://${name}:${port}/direct`)}`
    expect((await rejection(get(redirect), ImageDownloadError)).code, name).toBe('forbidden_address')
  }
  expect(seen.filter((path) => path === '/direct')).toEqual([])
  expect(await get(`http://service.example:${port}/direct`, [own])).toContain('secret')
})
