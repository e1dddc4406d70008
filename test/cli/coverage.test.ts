import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CliStack, leafCommands } from '@berth/cli/testing/cli-stack.ts'
import { afterAll, beforeAll, expect, test } from 'vitest'

/** Operations of the API that no command needs, each with its reason. The list may only shrink. */
const withoutCommand: Readonly<Record<string, string>> = {}

/** Commands that send nothing to the server, or nothing besides what others send. */
const withoutRequest = new Set(['ssh', 'apply', 'completion'])

let stack: CliStack
beforeAll(async () => {
  stack = await CliStack.start()
})
afterAll(() => stack.stop())

test('every operation of the API is reached by a command', async () => {
  const document = JSON.parse(await readFile(join(import.meta.dirname, '../../openapi.json'), 'utf8'))
  const operations = operationsOf(document)
  const leaves = await leafCommands()
  const used = new Set<string>()
  const ran = new Set<string>()
  const run = async (...argv: string[]) => {
    const result = await stack.run(argv, {
      stdin: 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHT0Zz0VZ0d4eG9vb29vb29vb29vb29vb29vb29vb29v laptop',
      fetch: (input, init) => {
        const request = new Request(input, init)
        const path = new URL(request.url).pathname
        const found = operations.find(({ method, pattern }) => method === request.method && pattern.test(path))
        if (found !== undefined) used.add(found.id)
        return fetch(request)
      },
    })
    expect(result.code, `berth ${argv.join(' ')}: ${result.stderr}`).toBe(0)
    ran.add(leaves.find((words) => words.every((word, i) => argv[i] === word))?.join(' ') ?? '')
    return result.stdout
  }

  await run('status')
  await run('type', 'list')
  await run('type', 'show', 'cx31')
  await run('image', 'list')
  await run('image', 'show', 'micro')
  await run('vpc', 'create', '--id', 'vpc-a', '--cidr', '10.9.0.0/16')
  await run('subnet', 'create', '--id', 'subnet-a', '--vpc', 'vpc-a', '--cidr', '10.9.1.0/24')
  await run('ssh-key', 'create', '--id', 'key-a', '--file', '-')
  const source = ['--url', 'https://images.example/a.qcow2', '--sha256', 'ab'.repeat(32)]
  await run('image', 'create', '--id', 'base-a', ...source, '--min-disk-gb', '1', '--default-user', 'root')
  await run('security-group', 'create', '--id', 'sg-a', '--allow-in', 'tcp:80:any')
  await run('public-ip', 'create', '--id', 'pip-a')
  const owned = [
    ['vpc', 'vpc-a'],
    ['subnet', 'subnet-a'],
    ['ssh-key', 'key-a'],
    ['security-group', 'sg-a'],
    ['image', 'base-a'],
    ['public-ip', 'pip-a'],
    ['host', stack.host.id],
  ] as const
  for (const [group, id] of owned) {
    await run(group, 'list')
    await run(group, 'show', id)
    await run(group, 'update', id, '--label', 'a=b')
  }
  await run('host', 'cordon', stack.host.id)
  await run('host', 'uncordon', stack.host.id)
  await run('instance', 'create', '--name', 'one', '--type', 'micro', '--image', 'micro', '--no-wait')
  await stack.host.report(await stack.host.wanted(), stack.host.running('true'))
  await run('instance', 'list')
  await run('instance', 'show', 'one')
  await run('instance', 'wait', 'one', '--for', 'running')
  await run('instance', 'update', 'one', '--label', 'a=b')
  await run('public-ip', 'attach', 'pip-a', 'one')
  await run('public-ip', 'detach', 'pip-a')
  await run('instance', 'console-log', 'one')
  await run('instance', 'metrics', 'one')
  await run('network', 'explain', 'one', '192.0.2.1', 'tcp/443')
  for (const action of ['stop', 'start', 'reboot', 'delete']) await run('instance', action, 'one', '--no-wait')
  await stack.host.report(await stack.host.wanted(({ power }) => power === 'deleted'), { power: 'absent' })
  const operation = await run('operation', 'list', '--type', 'instance.delete', '-q')
  await run('operation', 'show', operation.trim())
  await run('operation', 'wait', operation.trim())
  await run('metrics')
  await run('orphans')
  await run('event', 'watch', '--after', '0', '--count', '1')
  for (const [group, id] of owned.toReversed()) if (group !== 'host') await run(group, 'delete', id)

  const missing = operations.map(({ id }) => id).filter((id) => !used.has(id) && !(id in withoutCommand))
  expect(missing, 'add a command in cli/ that uses it, and call it here').toEqual([])
  expect(
    Object.keys(withoutCommand).filter((id) => used.has(id)),
    'has a command now; take it off the list',
  ).toEqual([])
  const notRun = leaves.map((words) => words.join(' '))
  expect(notRun.filter((command) => !ran.has(command) && !withoutRequest.has(command))).toEqual([])
})

function operationsOf(document: { paths: Record<string, Record<string, { operationId?: string }>> }) {
  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).flatMap(([method, { operationId: id }]) =>
      id === undefined
        ? []
        : [{ id, method: method.toUpperCase(), pattern: new RegExp(`^${path.replaceAll(/\{\w+\}/g, '[^/]+')}$`) }],
    ),
  )
}
