import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { processIo } from '@berth/cli/io.ts'
import { CliStack } from '@berth/cli/testing/cli-stack.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const netns = 'berth-abc123-0123456789ab'

describe('ssh', () => {
  let stack: CliStack
  let id: string
  let data: string
  let here: { netnsDirectory: string; env: Record<string, string> }

  beforeAll(async () => {
    stack = await CliStack.start()
    id = await stack.createReady('web-1')
    data = join(stack.directory, 'data of 100%')
    here = { netnsDirectory: join(stack.directory, 'here'), env: { BERTH_SERVER: stack.url, BERTH_DATA_DIR: data } }
    await mkdir(join(data, 'keys'), { recursive: true })
    await writeFile(join(data, 'keys', 'key-001'), '')
    await mkdir(here.netnsDirectory)
    await writeFile(join(here.netnsDirectory, netns), '')
  })
  afterAll(() => stack.stop())

  const options = (...keyOptions: string[]) => [
    ...['-o', `HostKeyAlias=${id}`],
    ...['-o', `UserKnownHostsFile="${join(stack.directory, 'data of 100%%', 'known_hosts')}"`],
    ...['-o', 'StrictHostKeyChecking=accept-new', '-o', 'ConnectTimeout=10'],
    ...keyOptions,
  ]
  const nsenter = () => ['nsenter', `--net=${join(here.netnsDirectory, netns)}`, '--', 'ssh']

  test('enters the namespace of the instance with the example key and the user of its image', async () => {
    const run = await stack.run(['ssh', 'web-1'], here)
    const key = ['-o', 'IdentitiesOnly=yes', '-i', join(data, 'keys', 'key-001')]
    expect(run.spawned).toEqual([[...nsenter(), ...options(...key), '--', 'root@10.64.0.4']])
  })

  test('takes another key, user and data directory, and passes the words after -- on as they are', async () => {
    const argv = ['ssh', '-i', '~/key', '-l', 'debian', '--data-dir', join(stack.directory, 'none'), id]
    const run = await stack.run([...argv, '--', 'ls', '-l', '--server', '$HOME', 'a b'], here)
    const words = ['--', 'debian@10.64.0.4', 'ls', '-l', '--server', '$HOME', 'a b']
    expect(run.spawned[0]?.slice(-11)).toEqual(['-o', 'IdentitiesOnly=yes', '-i', '~/key', ...words])
    // without a data directory the user's own known_hosts serves
    expect(run.spawned[0]?.join(' ')).not.toContain('UserKnownHostsFile')
    const plain = await stack.run(['ssh', 'web-1', '--', 'ls', '-l'], here)
    expect(plain.spawned[0]?.slice(-3)).toEqual(['root@10.64.0.4', 'ls', '-l'])
  })

  test.each([0, 1, 42, 255])('ends with exit code %i as ssh did, without a word', async (code) => {
    const run = await stack.run(['ssh', 'web-1'], { ...here, spawnInherit: async () => code })
    expect(run).toMatchObject({ code, stdout: '', stderr: '' })
  })

  test('77 with the line to run when it needs root', async () => {
    const run = await stack.run(['ssh', 'web-1', '--', 'echo', "it's"], { ...here, isRoot: false })
    expect(run).toMatchObject({ code: 77, spawned: [] })
    expect(run.stderr).toContain(
      `  sudo --preserve-env=BERTH_SERVER,BERTH_DATA_DIR berth ssh web-1 -- echo 'it'\\''s'\n`,
    )
  })

  test('goes to the public address from another machine, which needs no root', async () => {
    const run = await stack.run(['ssh', 'web-1'], { env: here.env, isRoot: false })
    expect(run.spawned.map((argv) => [argv[0], argv.at(-1)])).toEqual([['ssh', 'root@203.0.113.1']])
  })

  test('says where the instance is when it cannot be reached from this machine', async () => {
    const own = (await stack.run(['public-ip', 'list', '-q'])).stdout.trim()
    expect(await stack.run(['public-ip', 'detach', own])).toMatchObject({ code: 0 })
    const run = await stack.run(['ssh', 'web-1'], { isRoot: false })
    expect(run).toMatchObject({ code: 1, spawned: [] })
    expect(run.stderr).toContain(`its network is on host ${stack.host.id}`)
  })

  test('5 when the instance does not run, 4 when there is none, 2 for a user that is none', async () => {
    await stack.create('new')
    expect(await stack.run(['ssh', 'new'], here)).toMatchObject({ code: 5, spawned: [] })
    expect(await stack.run(['ssh', 'nobody'], here)).toMatchObject({ code: 4, spawned: [] })
    expect(await stack.run(['ssh', '-l', '-oProxyCommand=id', 'web-1'], here)).toMatchObject({ code: 2, spawned: [] })
  })

  const forged = [
    ['a namespace', (status: Status) => ({ ...status, network: { netns: '../../etc/passwd', interface: '' } })],
    ['an address', (status: Status) => ({ ...status, private_ip: '-oProxyCommand=id' })],
  ] as const
  test.each(forged)('refuses %s of another form from a server', async (_what, forge) => {
    const run = await stack.run(['ssh', id], {
      ...here,
      fetch: async (input, init) => {
        const document = await (await fetch(input, init)).json()
        const status: unknown = Reflect.get(Object(document), 'status')
        return Response.json({ ...Object(document), status: forge(status as Status) })
      },
    })
    expect(run).toMatchObject({ code: 1, spawned: [] })
    expect(run.stderr).toContain('of an unknown form')
  })
})

interface Status {
  private_ip: string
  network: { netns: string; interface: string }
}

describe('a program run on the terminal', () => {
  test('gives its exit code, or 128 and the signal', async () => {
    const io = processIo()
    expect(await io.spawnInherit(['sh', '-c', 'exit 7'])).toBe(7)
    expect(await io.spawnInherit(['sh', '-c', 'kill -TERM $$'])).toBe(143)
    await expect(io.spawnInherit(['/nonexistent/ssh'])).rejects.toThrow('cannot be run')
  })
})
