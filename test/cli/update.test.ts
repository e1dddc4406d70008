import { CliStack, expectGolden } from '@berth/cli/testing/cli-stack.ts'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

let stack: CliStack
beforeEach(async () => {
  stack = await CliStack.start()
})
afterEach(() => stack.stop())

const json = async (...argv: string[]) => JSON.parse((await stack.run([...argv, '-o', 'json'])).stdout)

describe('update', () => {
  test('changes name, labels and groups of an instance, and leaves the rest', async () => {
    await stack.createReady('web-1', '--label', 'env=prod', '--label', 'team=a', '--security-group', 'sg-web')
    const run = await stack.run([
      ...['instance', 'update', 'web-1', '--name', 'web-2', '--label', 'env=test', '--remove-label', 'team'],
      ...['--add-security-group', 'sg-ssh', '--remove-security-group', 'sg-web'],
    ])
    expect(run.code).toBe(0)
    const instance = await json('instance', 'show', 'web-2')
    expect(instance.metadata).toMatchObject({ name: 'web-2', labels: { env: 'test' } })
    expect(instance.spec.security_groups).toEqual(['sg-ssh'])
    await stack.run(['instance', 'update', 'web-2', '--security-group', 'sg-web', '--security-group', 'sg-ssh'])
    expect((await json('instance', 'show', 'web-2')).spec.security_groups).toEqual(['sg-web', 'sg-ssh'])
  })

  test('of another version than --if-match names is a conflict and changes nothing', async () => {
    const etag = (await stack.run(['vpc', 'show', 'vpc-abc123', '--etag'])).stdout.trim()
    const first = await stack.run(['vpc', 'update', 'vpc-abc123', '--name', 'first', '--if-match', etag])
    const second = await stack.run(['vpc', 'update', 'vpc-abc123', '--name', 'second', '--if-match', etag])
    expect([first.code, second.code]).toEqual([0, 5])
    expect((await json('vpc', 'show', 'vpc-abc123')).metadata.name).toBe('first')
    const bare = (await stack.run(['vpc', 'show', 'vpc-abc123', '--etag'])).stdout.trim().replaceAll('"', '')
    expect((await stack.run(['vpc', 'update', 'vpc-abc123', '--name', 'third', '--if-match', bare])).code).toBe(0)
    await expectGolden('update', first, second)
  })

  test('of the rules of a group keeps what another change has added in between', async () => {
    await stack.run(['security-group', 'create', '--id', 'sg-api', '--allow-in', 'tcp:80:any'])
    let collided = false
    const run = await stack.run(['security-group', 'update', 'sg-api', '--add-allow-in', 'tcp:22:any'], {
      fetch: async (input, init) => {
        const request = new Request(input, init)
        if (request.method === 'PATCH' && !collided) {
          collided = true
          await stack.run(['security-group', 'update', 'sg-api', '--add-allow-in', 'udp:53:sg-web'])
        }
        return fetch(request)
      },
    })
    expect(run.code).toBe(0)
    const { rules } = (await json('security-group', 'show', 'sg-api')).spec
    expect(rules.map(({ port_from: port }: { port_from: number }) => port)).toEqual([80, 53, 22])
  })

  test('cordons a host by its name, so that nothing new is placed there', async () => {
    await stack.run(['host', 'update', stack.host.id, '--name', 'rack-3'])
    const cordoned = await stack.run(['host', 'cordon', 'rack-3'])
    const dry = await stack.run([
      'instance',
      'create',
      '--name',
      'a',
      '--type',
      'micro',
      '--image',
      'micro',
      '--dry-run',
    ])
    const failing = await stack.run([
      ...['instance', 'create', '--type', 'micro', '--image', 'micro', '--dry-run', '--on-capacity', 'fail', '-q'],
    ])
    const uncordoned = await stack.run(['host', 'uncordon', stack.host.id])
    const fits = await stack.run(['instance', 'create', '--type', 'micro', '--image', 'micro', '--dry-run'])
    expect([cordoned.code, dry.code, failing.code, uncordoned.code, fits.code]).toEqual([0, 0, 1, 0, 0])
    expect((await stack.run(['instance', 'list', '-q'])).stdout).toBe('')
    await expectGolden('cordon', cordoned, dry, failing, uncordoned, fits)
  })

  const faults = [
    ['vpc', 'update', 'vpc-abc123'],
    ['vpc', 'update', 'vpc-abc123', '--label', 'a=b', '--remove-label', 'a'],
    ['vpc', 'update', 'vpc-abc123', '--name', 'a', '--if-match', 'two words'],
    ['security-group', 'update', 'sg-web', '--clear-rules', '--add-allow-in', 'tcp:80:any'],
    ['security-group', 'update', 'sg-web', '--remove-allow-in', 'tcp:8080:any'],
    ['security-group', 'create', '--allow-in', 'http'],
    ['security-group', 'create', '--allow-in', 'tcp:90-80:any'],
    ['security-group', 'create', '--allow-in', 'icmp:8:any'],
    ['security-group', 'create', '--allow-out', 'tcp:80:everywhere'],
    ['host', 'cordon', 'nobody'],
    ['instance', 'list', '-l', 'a in (b'],
    ['instance', 'list', '-q', '-o', 'json'],
    ['instance', 'list', '--watch', '--limit', '2'],
    ['event', 'watch', '--type', 'instance.exploded'],
    ['apply', '-f', '-', '--prune'],
    ['apply', '-f', '-', '-l', 'a=b'],
    ['apply', '-f', '-', '--prune', '-l', 'a!=b,!c'],
  ]
  test('says what is wrong with what is asked for', async () => {
    const runs = []
    for (const argv of faults) runs.push(await stack.run(argv, { stdin: 'kind: Vpc' }))
    expect(runs.map(({ code }) => code).filter((code) => code !== 2 && code !== 4)).toEqual([])
    await expectGolden('update-errors', ...runs)
  })
})

test('-q prints only the id, also of what was deleted', async () => {
  const id = await stack.createReady('web-1')
  expect((await stack.run(['instance', 'show', 'web-1', '-q'])).stdout).toBe(`${id}\n`)
  const gone = async () =>
    stack.host.report(await stack.host.wanted(({ power }) => power === 'deleted'), { power: 'absent' })
  const run = await stack.run(['instance', 'delete', 'web-1', '-q'], { onWait: [gone] })
  expect(run).toMatchObject({ code: 0, stdout: `${id}\n` })
})

describe('a security group', () => {
  test('is made of rules as people write them', async () => {
    const created = await stack.run([
      ...['security-group', 'create', '--id', 'sg-api', '--description', 'the API', '--label', 'team=api'],
      ...[
        '--allow-in',
        'tcp:80-90:0.0.0.0/0',
        '--allow-in',
        'udp:53:10.0.0.0/8 resolvers',
        '--allow-in',
        'tcp:22:sg-ssh',
      ],
      ...['--allow-out', 'any:any', '--allow-in', 'icmp:sg-api'],
    ])
    const shown = await stack.run(['security-group', 'show', 'sg-api'])
    const deleted = await stack.run(['security-group', 'delete', 'sg-api'])
    expect([created.code, shown.code, deleted.code]).toEqual([0, 0, 0])
    await expectGolden('security-group', created, shown, deleted)
  })
})

describe('lists', () => {
  test('are narrowed by labels, host, network and their number', async () => {
    const a = await stack.createReady('a', '--label', 'env=prod', '--subnet', 'subnet-def456')
    const b = await stack.createReady('b', '--label', 'env=test')
    const c = await stack.create('c', '--label', 'env=test', '--label', 'old=')
    const ids = async (...argv: string[]) =>
      (await stack.run(['instance', 'list', '-q', ...argv])).stdout.split('\n').filter((line) => line !== '')
    expect(await ids('-l', 'env in (test)')).toEqual([b, c])
    expect(await ids('-l', 'env!=prod,!old')).toEqual([b])
    expect(await ids('--subnet', 'subnet-def456')).toEqual([a])
    expect(await ids('--vpc', 'vpc-default', '--state', 'running')).toEqual([b])
    expect(await ids('--host', stack.host.id)).toContain(a)
    expect(await ids('--limit', '2')).toEqual([a, b])
    const part = JSON.parse((await stack.run(['instance', 'list', '--limit', '2', '-o', 'json'])).stdout)
    expect(await ids('--cursor', part.next_cursor)).toEqual([c])
    const noted = await stack.run(['instance', 'list', '--limit', '1'])
    expect(noted.stderr).toMatch(/^there are more; go on with --cursor \S+\n$/)
    const operations = await stack.run(['operation', 'list', '--instance', 'c', '--status', 'succeeded', '-q'])
    expect(operations.stdout).toBe('')
    const subnets = await stack.run(['subnet', 'list', '--vpc', 'vpc-abc123', '-q'])
    expect(subnets.stdout).toBe('subnet-def456\n')
  })
})
