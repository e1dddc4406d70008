import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { CommandSource } from '@berth/cli/command/on-demand.ts'
import { processIo, runProgram } from '@berth/cli/io.ts'
import { clientCommands, setUpProgram } from '@berth/cli/program.ts'
import { CliStack, expectGolden, leafCommands } from '@berth/cli/testing/cli-stack.ts'
import { Command } from 'commander'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const publicKey = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHT0Zz0VZ0d4eG9vb29vb29vb29vb29vb29vb29vb29v laptop'

describe('help', async () => {
  let stack: CliStack
  beforeAll(async () => {
    stack = await CliStack.start()
  })
  afterAll(() => stack.stop())

  test('of the program names every group and the exit codes', async () => {
    await expectGolden('help', await stack.run(['--help']))
  })

  const groups = [
    ...['instance', 'ssh', 'ssh-key', 'image', 'type', 'vpc', 'subnet', 'security-group', 'public-ip', 'host'],
    ...['operation', 'apply', 'event', 'status', 'completion'],
  ]
  test.each(groups)('of %s has a description of each command and examples', async (group) => {
    const run = await stack.run([group, '--help'])
    expect(run.stdout).toContain('Examples:')
    await expectGolden(`help-${group}`, run)
  })

  const leaves = await leafCommands()
  test.each(groups.filter((group) => leaves.some(([first, second]) => first === group && second !== undefined)))(
    'of the commands of %s names every option and has examples',
    async (group) => {
      const runs = []
      for (const words of leaves) {
        if (words[0] !== group) continue
        const run = await stack.run([...words, '--help'])
        expect(run.stdout, words.join(' ')).toContain(`\n\nExamples:\n  `)
        runs.push(run)
      }
      await expectGolden(`help-${group}-commands`, ...runs)
    },
  )

  test('is printed on standard error, as a usage error, for a group without a command', async () => {
    const run = await stack.run(['instance'])
    expect(run).toMatchObject({ code: 2, stdout: '' })
    expect(run.stderr).toContain('Usage: berth instance')
  })
})

describe('tables and documents', () => {
  let stack: CliStack
  beforeAll(async () => {
    stack = await CliStack.start()
    await stack.createReady('web-1', '--label', 'env=production', '--label', 'team=platform', '--ssh-key', 'key-001')
    await stack.create('web-2', '--subnet', 'subnet-def456', '--security-group', 'sg-web', '--security-group', 'sg-ssh')
    const waiting = await stack.host.wanted(undefined, 'web-2')
    await stack.host.report(waiting, { power: 'starting', steps: [stack.host.step('image', 500, null)] })
    await stack.run(['public-ip', 'create', '--id', 'pip-office', '--name', 'office', '--label', 'env=test'])
    stack.advance(200_000)
    await stack.host.heartbeat()
  })
  afterAll(() => stack.stop())

  test('lists of every resource', async () => {
    const runs = []
    const groups = ['instance', 'ssh-key', 'image', 'type', 'vpc', 'subnet', 'security-group', 'public-ip', 'host']
    for (const group of groups) {
      runs.push(await stack.run([group, 'list']))
    }
    await expectGolden('lists', ...runs)
  })

  test('one of every resource', async () => {
    await expectGolden(
      'shows',
      await stack.run(['instance', 'show', 'web-1']),
      await stack.run(['ssh-key', 'show', 'key-001']),
      await stack.run(['image', 'show', 'ubuntu-22.04']),
      await stack.run(['type', 'show', 'cx31']),
      await stack.run(['vpc', 'show', 'vpc-abc123']),
      await stack.run(['subnet', 'show', 'subnet-def456']),
      await stack.run(['security-group', 'show', 'sg-web']),
      await stack.run(['public-ip', 'show', 'pip-office']),
      await stack.run(['host', 'show', stack.host.id]),
    )
  })

  test('operations of an instance, by its name', async () => {
    const list = await stack.run(['operation', 'list', '--instance', 'web-2'])
    const id = /op-\S+/.exec(list.stdout)?.[0] ?? ''
    await expectGolden('operations', list, await stack.run(['operation', 'show', id]))
  })

  test('what passes between instances, and what is missing when it does not', async () => {
    await expectGolden(
      'network-explain',
      await stack.run(['network', 'explain', 'web-2', '198.51.100.9', 'tcp/443']),
      await stack.run(['network', 'explain', 'web-1', '10.0.1.200', 'icmp']),
      await stack.run(['network', 'explain', 'web-1', 'web-2', 'tcp/8080']),
      await stack.run(['network', 'explain', 'web-1', 'nobody', 'tcp/8080']),
      await stack.run(['network', 'explain', 'web-1', 'web-2', 'tcp/0']),
      await stack.run(['network', 'explain', 'web-1', 'web-2', 'gre/1']),
    )
  })

  test('a list can be narrowed by state and name', async () => {
    const running = await stack.run(['instance', 'list', '--state', 'running', '-o', 'json'])
    expect(JSON.parse(running.stdout).items.map((each: { metadata: { name: string } }) => each.metadata.name)).toEqual([
      'web-1',
    ])
    const named = await stack.run(['instance', 'list', '--name', 'web-2', '-o', 'json'])
    expect(JSON.parse(named.stdout).items).toHaveLength(1)
    const none = await stack.run(['instance', 'list', '--state', 'terminated'])
    expect(none.stdout.split('\n')).toHaveLength(2)
  })

  test('-o json is the document of the API', async () => {
    const documents = [
      [['instance', 'list'], '/v1/instances'],
      [['vpc', 'show', 'vpc-abc123'], '/v1/vpcs/vpc-abc123'],
      [['host', 'list'], '/v1/hosts'],
    ] as const
    for (const [argv, path] of documents) {
      const run = await stack.run([...argv, '-o', 'json'])
      const document: unknown = await (await fetch(`${stack.url}${path}`)).json()
      expect(run).toMatchObject({ code: 0, stderr: '', stdout: `${JSON.stringify(document, null, 2)}\n` })
    }
  })

  test('a list is followed to its end', async () => {
    const pages: string[] = []
    const run = await stack.run(['instance', 'list', '-o', 'json'], {
      fetch: (input, init) => {
        const url = new URL(input instanceof Request ? input.url : input)
        url.searchParams.set('limit', '1')
        pages.push(url.search)
        return fetch(url, init)
      },
    })
    const list = JSON.parse(run.stdout)
    expect(list.items).toHaveLength(2)
    expect(list.next_cursor).toBeUndefined()
    expect(pages).toHaveLength(2)
  })

  test('a server with a path before /v1 and the option after the command', async () => {
    const seen: string[] = []
    const run = await stack.run(['host', 'list', '--server', 'http://proxy.example/berth/'], {
      env: {},
      fetch: async (input) => {
        seen.push(input instanceof Request ? input.url : String(input))
        return Response.json({ items: [] })
      },
    })
    expect(run.code).toBe(0)
    expect(seen).toEqual(['http://proxy.example/berth/v1/hosts'])
  })
})

describe('resources that are created and deleted', () => {
  let stack: CliStack
  beforeAll(async () => {
    stack = await CliStack.start()
  })
  afterAll(() => stack.stop())

  test('the checksum of an image is read from a checksum file, or given in one form', async () => {
    const url = 'https://images.example/bookworm/disk.qcow2'
    const about = ['--min-disk-gb', '1', '--default-user', 'admin', '--url', url]
    const create = (...more: string[]) => ['image', 'create', ...about, '-o', 'json', ...more]
    const digest = 'AB'.repeat(64)
    const sums = `\ufeff${'cd'.repeat(64)}  other.qcow2\r\n${digest} *disk.qcow2\r\n`
    const made = await stack.run(create('--id', 'summed', '--checksum-file', '-'), { stdin: sums })
    expect(made).toMatchObject({ code: 0 })
    expect(JSON.parse(made.stdout).spec).toMatchObject({ checksum: `sha512:${digest.toLowerCase()}`, sha256: '' })
    const other = await stack.run(create('--id', 'other', '--checksum-file', '-'), { stdin: 'no sums\n' })
    expect(other).toMatchObject({ code: 2, stderr: 'berth: - names no SHA-256 or SHA-512 of disk.qcow2\n' })
    const short = await stack.run(create('--id', 'other', '--checksum', digest.slice(1)))
    expect(short.stderr).toContain('has 127 hexadecimal digits; sha256 has 64, sha512 has 128')
    const none = { code: 2, stderr: 'berth: give one of --checksum, --checksum-file and --sha256\n' }
    expect(await stack.run(create('--id', 'other'))).toMatchObject(none)
    expect(await stack.run(create('--id', 'other', '--checksum', 'a', '--sha256', 'b'))).toMatchObject(none)
  })

  test('an SSH key, from a file or standard input', async () => {
    const file = join(stack.directory, 'laptop.pub')
    await writeFile(file, `${publicKey}\n`)
    const created = await stack.run(['ssh-key', 'create', '--id', 'key-laptop', '--name', 'laptop', '--file', file])
    expect(created.code).toBe(0)
    expect(created.stdout).toContain('key-laptop  laptop  SHA256:')
    const piped = await stack.run(['ssh-key', 'create', '--file', '-', '-o', 'json'], { stdin: publicKey })
    expect(JSON.parse(piped.stdout).spec.public_key).toBe(publicKey)
    expect(await stack.run(['ssh-key', 'delete', 'key-laptop'])).toMatchObject({
      code: 0,
      stderr: 'deleted key-laptop\n',
    })
  })

  test('a private key is refused before anything is sent', async () => {
    const run = await stack.run(['ssh-key', 'create', '--file', '-'], {
      stdin: '-----BEGIN OPENSSH PRIVATE KEY-----\n',
      fetch: () => Promise.reject(new Error('nothing may be sent')),
    })
    expect(run).toMatchObject({ code: 2, stderr: 'berth: - is a private key; give the .pub file\n' })
  })

  test('a VPC with a subnet', async () => {
    const vpc = ['vpc', 'create', '--id', 'vpc-shop', '--cidr', '10.20.0.0/16', '--label', 'a=b']
    expect((await stack.run(vpc)).code).toBe(0)
    const subnet = ['subnet', 'create', '--id', 'subnet-shop', '--vpc', 'vpc-shop', '--cidr', '10.20.1.0/24']
    expect((await stack.run(subnet)).code).toBe(0)
    const inUse = await stack.run(['vpc', 'delete', 'vpc-shop'])
    expect((await stack.run(['subnet', 'delete', 'subnet-shop'])).code).toBe(0)
    expect((await stack.run(['vpc', 'delete', 'vpc-shop'])).code).toBe(0)
    await expectGolden('conflicts', inUse, await stack.run([...vpc.slice(0, 3), 'vpc-abc123', ...vpc.slice(4)]))
    expect(inUse.code).toBe(5)
  })

  test('a public address goes from one instance to another', async () => {
    for (const name of ['web-1', 'web-2']) await stack.createReady(name)
    const golden = [
      await stack.run(['public-ip', 'create', '--id', 'pip-web', '--instance', 'web-1']),
      await stack.run(['public-ip', 'attach', 'pip-web', 'web-2']),
      await stack.run(['public-ip', 'list', '--instance', 'web-2']),
      await stack.run(['public-ip', 'attach', 'pip-web', 'web-1', '--if-match', '"1"']),
      await stack.run(['public-ip', 'delete', 'pip-web']),
      await stack.run(['public-ip', 'detach', 'pip-web']),
      await stack.run(['public-ip', 'delete', 'pip-web']),
      await stack.run(['public-ip', 'create', '--pool', 'none']),
    ]
    await expectGolden('public-ip', ...golden)
    expect(golden.map(({ code }) => code)).toEqual([0, 0, 0, 5, 5, 0, 0, 2])
  })

  test('a subnet that assigns public addresses, until it does not', async () => {
    const subnet = ['--vpc', 'vpc-abc123', '--cidr', '10.0.9.0/24', '--auto-assign-public-ip', '-o', 'json']
    const created = await stack.run(['subnet', 'create', '--id', 'subnet-web', ...subnet])
    expect(JSON.parse(created.stdout).spec.auto_assign_public_ip).toBe(true)
    const update = (option: string) => stack.run(['subnet', 'update', 'subnet-web', option, '-o', 'json'])
    for (const [option, expected] of [
      ['--no-auto-assign-public-ip', false],
      ['--auto-assign-public-ip', true],
    ] as const) {
      expect(JSON.parse((await update(option)).stdout).spec.auto_assign_public_ip).toBe(expected)
    }
    const named = await stack.run(['subnet', 'update', 'subnet-web', '--name', 'web', '-o', 'json'])
    expect(JSON.parse(named.stdout).spec.auto_assign_public_ip).toBe(true)
  })

  test('an instance with everything that can be said of it', async () => {
    const script = '#!/bin/sh\necho hello\n'
    const run = await stack.run(
      [
        ...['instance', 'create', '--name', 'full', '--type', 'cx31', '--image', 'ubuntu-22.04', '--wait', 'none'],
        ...[
          '--vcpus',
          '1',
          '--memory-mb',
          '512',
          '--disk-gb',
          '10',
          '--vpc',
          'vpc-abc123',
          '--subnet',
          'subnet-def456',
        ],
        ...['--security-group', 'sg-web', '--security-group', 'sg-ssh', '--ssh-key', 'key-001'],
        ...['--label', 'a=1', '--label', 'b/c=', '--on-panic', 'stop', '--user-data-file', '-', '-o', 'json'],
      ],
      { stdin: script },
    )
    expect(run.code).toBe(0)
    const document = JSON.parse(run.stdout)
    expect(document.metadata).toMatchObject({ name: 'full', labels: { a: '1', 'b/c': '' } })
    expect(document.spec).toEqual({
      type: 'cx31',
      image: 'ubuntu-22.04',
      vcpus: 1,
      memory_mb: 512,
      disk_gb: 10,
      vpc_id: 'vpc-abc123',
      subnet_id: 'subnet-def456',
      security_groups: ['sg-web', 'sg-ssh'],
      ssh_key_ids: ['key-001'],
      user_data: Buffer.from(script).toString('base64'),
      on_panic: 'stop',
    })
  })

  test('user data that no guest will understand is warned of before it is sent, and is sent', async () => {
    const file = join(stack.directory, 'user-data')
    await writeFile(file, '---\n#cloud-config\n')
    const argv = ['instance', 'create', '--type', 'micro', '--image', 'micro', '--no-wait']
    const warning = 'berth: warning: user data has #cloud-config, but not as its first line\n'
    const given = await stack.run([...argv, '--user-data-file', file])
    expect(given.code).toBe(0)
    expect(given.stderr.startsWith(`${warning}creating `)).toBe(true)

    const declared = `{ "spec": { "user_data": "${Buffer.from('---\n#cloud-config\n').toString('base64')}" } }`
    const fromFile = await stack.run([...argv, '--file', '-'], { stdin: declared })
    expect(fromFile).toMatchObject({ code: 0, stderr: expect.stringContaining(warning) })

    await writeFile(file, '#cloud-config\n')
    expect((await stack.run([...argv, '--user-data-file', file])).stderr).not.toContain('warning')
  })

  test('user data of more than 64 KiB is refused before anything is sent', async () => {
    const file = join(stack.directory, 'large')
    const argv = ['instance', 'create', '--type', 'micro', '--image', 'micro', '--no-wait', '--user-data-file', file]
    await writeFile(file, Buffer.alloc(64 * 1024 + 1, 'x'))
    const large = await stack.run(argv)
    expect(large.code).toBe(2)
    expect(large.stderr).toBe(`berth: ${file} has more than 65536 bytes\n`)
    await writeFile(file, Buffer.alloc(64 * 1024, 'x'))
    expect((await stack.run(argv)).code).toBe(0)
    expect((await stack.run([...argv.slice(0, -1), join(stack.directory, 'absent')])).code).toBe(2)
  })
})

describe('exit codes', () => {
  let stack: CliStack
  beforeAll(async () => {
    stack = await CliStack.start()
  })
  afterAll(() => stack.stop())

  const create = ['instance', 'create', '--type', 'micro', '--image', 'micro']
  const faulty = [
    ['an unknown command', ['instance', 'lst']],
    ['an unknown group', ['instances']],
    ['an unknown option', ['instance', 'list', '--stat', 'running']],
    ['a missing option', ['instance', 'create', '--type', 'micro']],
    ['a missing argument', ['instance', 'show']],
    ['one argument too many', ['instance', 'show', 'a', 'b']],
    ['a value that is not one of the choices', ['instance', 'list', '--state', 'up']],
    ['a number that is none', [...create, '--vcpus', '2.5']],
    ['a number out of range', [...create, '--memory-mb', '1']],
    ['a label without =', [...create, '--label', 'env']],
    ['a label with other characters', [...create, '--label', 'env=a b']],
    ['a label given twice', [...create, '--label', 'a=1', '--label', 'a=2']],
    ['a name that cannot be one', ['instance', 'show', 'Web_1']],
    ['an id that cannot be one', ['vpc', 'show', '../instances']],
    ['a server that is no URL', ['host', 'list', '--server', 'localhost:7480']],
    ['a server URL with a password', ['host', 'list', '--server', 'http://a:b@127.0.0.1:7480']],
    ['a request the server finds faulty', ['instance', 'create', '--type', 'huge', '--image', 'nothing']],
  ] as const

  test('2 for usage: each fault says what is wrong', async () => {
    const runs = []
    for (const [fault, argv] of faulty) {
      const run = await stack.run(argv)
      expect(run, fault).toMatchObject({ code: 2, stdout: '' })
      expect(run.stderr, fault).toMatch(/^berth: /)
      runs.push(run)
    }
    await expectGolden('usage-errors', ...runs)
  })

  test('2 also for a command that is not of the client', async () => {
    let written = ''
    const stderr = { write: (text: string) => (written += text), isTTY: false, columns: 80 }
    const io = { ...processIo(), stderr }
    const program = setUpProgram(new Command('berth'), io)
    const dev: CommandSource = { names: ['dev'], add: async () => void program.command('dev').option('--down') }
    expect(await runProgram(program, [dev, ...clientCommands(io)], ['node', 'berth', 'dev', '--dwon'], io)).toBe(2)
    expect(written).toBe("berth: unknown option '--dwon'\n(Did you mean --down?)\n")
  })

  test('4 when there is no such thing', async () => {
    await expectGolden(
      'not-found',
      await stack.run(['instance', 'show', 'nobody']),
      await stack.run(['instance', 'show', 'inst-00000000000000000000']),
      await stack.run(['vpc', 'delete', 'vpc-nothing']),
    )
  })

  test('5 when several instances have the name, with their ids', async () => {
    await stack.create('twin')
    await stack.create('twin')
    const run = await stack.run(['instance', 'delete', 'twin'])
    expect(run.code).toBe(5)
    await expectGolden('ambiguous', run)
  })

  test('5 for an action after a delete', async () => {
    const id = await stack.createReady('gone')
    expect((await stack.run(['instance', 'delete', id, '--no-wait'])).code).toBe(0)
    const run = await stack.run(['instance', 'start', id])
    expect(run.code).toBe(5)
  })

  test('69 when no server answers, with its URL and what to do', async () => {
    const gone = await CliStack.start()
    await gone.stop()
    const run = await gone.run(['host', 'list'])
    expect(run.code).toBe(69)
    await expectGolden('unreachable', run)
  })

  test('69 when something else than Berth answers', async () => {
    const answers = [
      new Response('<html>', { headers: { 'content-type': 'text/html' } }),
      new Response('no', { status: 404 }),
      new Response('{', { headers: { 'content-type': 'application/json' } }),
      Response.json({ error: 'no' }, { status: 500 }),
    ]
    for (const answer of answers) {
      const run = await stack.run(['host', 'list'], { fetch: async () => answer })
      expect(run, run.stderr).toMatchObject({ code: 69, stdout: '' })
      expect(run.stderr).toContain('is not a Berth server')
    }
  })

  test('130 when the user gives up', async () => {
    const interrupted = new AbortController()
    const run = await stack.run(['host', 'list'], {
      signal: interrupted.signal,
      fetch: (input, init) => {
        interrupted.abort()
        return fetch(input, init)
      },
    })
    expect(run).toMatchObject({ code: 130, stderr: 'berth: interrupted\n' })
  })
})

describe('what a guest writes', () => {
  let stack: CliStack
  beforeAll(async () => {
    stack = await CliStack.start()
  })
  afterAll(() => stack.stop())

  test('reaches a file as it is and a terminal without escape sequences', async () => {
    const id = await stack.createReady('noisy')
    expect(await stack.run(['instance', 'console-log', 'noisy'])).toMatchObject({
      code: 0,
      stdout: '',
      stderr: 'it has written nothing yet\n',
    })
    await stack.host.writeConsole(id, 'first\r\n\u001b]0;owned\u0007second\r\n')
    const file = await stack.run(['instance', 'console-log', 'noisy'])
    expect(file.stdout).toBe('first\r\n\u001b]0;owned\u0007second\r\n')
    const terminal = await stack.run(['instance', 'console-log', id, '--tail', '1'], { tty: true })
    expect(terminal.stdout).toBe('second\n')
  })
})
