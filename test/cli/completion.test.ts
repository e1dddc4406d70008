import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { CliStack, leafCommands } from '@berth/cli/testing/cli-stack.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const run = promisify(execFile)
const root = join(import.meta.dirname, '../..')

let stack: CliStack
let web1 = ''
beforeAll(async () => {
  stack = await CliStack.start()
  web1 = await stack.create('web-1')
  await stack.create('twin')
  await stack.create('twin')
})
afterAll(() => stack.stop())

const complete = async (...words: string[]) =>
  (await stack.run(['__complete', 'bash', '--', ...words])).stdout.split('\n').filter((line) => line !== '')

describe('what is completed', () => {
  test('commands, down to each that there is', async () => {
    for (const words of await leafCommands()) {
      const name = words.at(-1) ?? ''
      expect(await complete(...words.slice(0, -1), name.slice(0, 2)), words.join(' ')).toContain(name)
    }
    expect(await complete('instance', 'con')).toEqual(['console-log'])
    expect(await complete('__c')).toEqual([])
  })

  test('options, those only once that may be given only once', async () => {
    expect(await complete('instance', 'list', '--sta')).toEqual(['--state'])
    expect(await complete('instance', 'list', '--state', 'running', '--sta')).toEqual([])
    expect(await complete('instance', 'create', '--label', 'a=b', '--lab')).toEqual(['--label'])
    expect(await complete('vpc', 'show', '--serv')).toEqual(['--server'])
  })

  test('values of options, also behind =', async () => {
    expect(await complete('instance', 'list', '--state', 'st')).toEqual(['stopping', 'stopped'])
    expect(await complete('instance', 'list', '--state', '=', 'st')).toEqual(['stopping', 'stopped'])
    expect((await stack.run(['__complete', 'zsh', '--', 'instance', 'list', '--state=run'])).stdout).toBe(
      '--state=running\n',
    )
    expect(await complete('instance', 'create', '--subnet', 'subnet-d')).toEqual(['subnet-def456', 'subnet-default'])
    expect(await complete('instance', 'update', 'web-1', '--add-security-group', 'sg-w')).toEqual(['sg-web'])
    expect(await complete('operation', 'list', '--type', 'instance.d')).toEqual(['instance.delete'])
  })

  test('names of instances where they are unique, else ids', async () => {
    const found = await complete('instance', 'stop', '')
    expect(found).toContain('web-1')
    expect(found).not.toContain('twin')
    expect(found.filter((word) => word.startsWith('inst-'))).toHaveLength(2)
    expect(await complete('ssh', 'w')).toEqual(['web-1'])
    const described = await stack.run(['__complete', 'fish', '--', 'ssh', 'w'])
    expect(described.stdout).toBe(`web-1\t${web1}\n`)
  })

  test('ids of what a group is about, and files where a file is meant', async () => {
    expect(await complete('vpc', 'delete', '')).toEqual(['vpc-abc123', 'vpc-default'])
    expect(await complete('vpc', 'delete', 'vpc-abc123', '')).toEqual([])
    await stack.run(['public-ip', 'create', '--id', 'pip-a'])
    expect(await complete('public-ip', 'attach', 'pip-a')).toEqual(['pip-a'])
    expect(await complete('public-ip', 'attach', 'pip-a', 'w')).toEqual(['web-1'])
    expect(await complete('apply', '-f', 'x')).toEqual([':files'])
    expect(await complete('ssh', 'web-1', '--', 'una')).toEqual([])
  })

  test('nothing, and silently, when the server is away or answers nonsense', async () => {
    const away = await stack.run(['__complete', 'bash', '--', 'vpc', 'show', ''], {
      fetch: () => Promise.reject(new TypeError('fetch failed')),
    })
    const foreign = await stack.run(['__complete', 'bash', '--', 'vpc', 'show', ''], {
      fetch: async () => new Response('<html>'),
    })
    for (const each of [away, foreign]) expect(each).toMatchObject({ code: 0, stdout: '', stderr: '' })
  })

  test('in no more time than somebody who types has, when the server does not answer', async () => {
    const startedAt = performance.now()
    const hanging = await stack.run(['__complete', 'bash', '--', 'vpc', 'show', ''], {
      fetch: (input, init) =>
        new Promise((_, reject) => {
          const signals = [init?.signal, input instanceof Request ? input.signal : null]
          for (const signal of signals) signal?.addEventListener('abort', () => reject(signal.reason))
        }),
    })
    expect(hanging).toMatchObject({ code: 0, stdout: '' })
    expect(performance.now() - startedAt).toBeLessThan(5000)
  })
})

describe('the script for bash', () => {
  /** What bash would offer for a line, with the script loaded as people load it and the real program behind it. */
  async function offered(...words: string[]): Promise<string[]> {
    const script = join(stack.directory, 'complete.bash')
    await writeFile(
      script,
      `source <(berth completion bash)
complete -p berth >/dev/null || exit 1
COMP_WORDS=("$@") COMP_CWORD=$(( $# - 1 ))
_berth
(( \${#COMPREPLY[@]} )) && printf '%s\\n' "\${COMPREPLY[@]}"
exit 0
`,
    )
    const env = { PATH: `${root}:${process.env.PATH}`, BERTH_SERVER: stack.url, HOME: stack.directory }
    const { stdout, stderr } = await run('bash', ['--norc', script, 'berth', ...words], { env, cwd: stack.directory })
    expect(stderr).toBe('')
    return stdout.split('\n').filter((line) => line !== '')
  }

  test('completes commands, options, live names and files', async () => {
    expect(await offered('inst')).toEqual(['instance'])
    expect(await offered('instance', 'show', 'w')).toEqual(['web-1'])
    expect(await offered('instance', 'list', '--state', '=', 'run')).toEqual(['running'])
    expect(await offered('apply', '-f', 'compl')).toEqual(['complete.bash'])
    expect(await offered('--server', 'http://127.0.0.1:1', 'vpc', 'show', '')).toEqual([])
    // of the host itself, which are added to the program later
    expect(await offered('image', 'im')).toEqual(['import'])
  })
})

test('each shell has a script that calls the hidden command', async () => {
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { code, stdout } = await stack.run(['completion', shell])
    expect(code).toBe(0)
    expect(stdout).toContain(`__complete ${shell} -- `)
  }
  expect((await stack.run(['completion', 'tcsh'])).code).toBe(2)
})
