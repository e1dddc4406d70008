import { open, readFile } from 'node:fs/promises'
import { expect, test, vi } from 'vitest'
import { rejection } from '../testing/rejection.ts'
import { CommandError, runCommand } from './run-command.ts'

const failureOf = (running: Promise<unknown>) => rejection(running, CommandError)
const sh = (script: string) => ['sh', '-c', script]

test('gives both streams, whole, and characters that two reads cut in two', async () => {
  const output = await runCommand(sh('printf "\\303"; sleep 0.1; printf "\\244\\n"; echo why >&2'))
  expect(output).toEqual({ stdout: 'ä\n', stderr: 'why\n' })
})

test('passes arguments as they are, and an input of a megabyte', async () => {
  expect((await runCommand(['printf', '%s', '$(id); "\n'])).stdout).toBe('$(id); "\n')
  const input = 'x'.repeat(2 ** 20)
  expect((await runCommand(['cat'], { input })).stdout).toBe(input)
})

test('without an input it reads nothing, and one that reads none of its input is judged by its exit code', async () => {
  expect((await runCommand(['cat'])).stdout).toBe('')
  const input = 'x'.repeat(2 ** 20)
  expect((await runCommand(['true'], { input })).stdout).toBe('')
  expect((await failureOf(runCommand(['false'], { input }))).exitCode).toBe(1)
})

test('an exit code other than 0 is an error that carries what was written', async () => {
  const error = await failureOf(runCommand(sh('echo some; echo because >&2; exit 3')))
  expect(error).toMatchObject({ exitCode: 3, signal: null, stderrTail: 'because', stdoutTail: 'some\n' })
  expect(error.message).toBe('sh exited with code 3: because')
})

test('a signal that ends it is named', async () => {
  expect(await failureOf(runCommand(sh('kill -9 $$')))).toMatchObject({
    message: 'sh was killed by SIGKILL',
    exitCode: null,
    signal: 'SIGKILL',
  })
})

test.for([['/nowhere/at-all'], ['/'], ['a\0b'], ['true', 'x'.repeat(2 ** 22)]])(
  'what cannot be started is said to be so: %.20s',
  async (argv) => {
    const error = await failureOf(runCommand(argv))
    expect(error.message).toMatch(/could not be started \(.+\)$/s)
    expect(error).toMatchObject({ exitCode: null, signal: null })
  },
)

test('it is ended when its time is over, by SIGKILL when it will not go', async () => {
  const quick = await failureOf(runCommand(['sleep', '60'], { timeoutMs: 100 }))
  expect(quick).toMatchObject({ message: 'sleep did not finish within 100 ms', signal: 'SIGTERM' })
  const stubborn = await failureOf(
    runCommand(sh('trap "" TERM; echo here; while :; do sleep 0.1; done'), { timeoutMs: 300 }),
  )
  expect(stubborn).toMatchObject({
    message: 'sh did not finish within 300 ms',
    signal: 'SIGKILL',
    stdoutTail: 'here\n',
  })
})

test('it is ended when it is aborted, and not begun when it was before', async () => {
  const abort = new AbortController()
  const running = failureOf(runCommand(['sleep', '60'], { signal: abort.signal }))
  abort.abort()
  expect((await running).message).toBe('sleep was cancelled')
  const never = failureOf(runCommand(['sh', '-c', 'echo ran >&2'], { signal: abort.signal }))
  expect((await never).message).toBe('sh was cancelled')
})

test('it is ended when it writes too much, and what is kept is bounded', async () => {
  const error = await failureOf(runCommand(['yes'], { maxOutputBytes: 1000 }))
  expect(error.message).toMatch(/^yes wrote more than 1000 bytes/)
  expect(error.stdoutTail).toBe('y\n'.repeat(500))
  expect((await runCommand(sh('printf %1000d 0'), { maxOutputBytes: 1000 })).stdout).toHaveLength(1000)
})

test('each line of both streams is told as it comes, also one without an end', async () => {
  const lines: string[] = []
  await runCommand(sh('echo one; sleep 0.1; echo two >&2; sleep 0.1; printf three'), {
    onLine: (line) => lines.push(line),
  })
  expect(lines).toEqual(['one', 'two', 'three'])
})

test('nothing of our environment reaches a command but what it needs', async () => {
  vi.stubEnv('BERTH_DATABASE', 'postgres://berth:secret@db/berth')
  try {
    const { stdout } = await runCommand(['env'])
    expect(stdout).toContain(`PATH=${process.env.PATH}\n`)
    expect(stdout.split('\n').filter((line) => !/^(?:PATH|LC_ALL|TZ|)(?:=|$)/.test(line))).toEqual([])
  } finally {
    vi.unstubAllEnvs()
  }
})

test('the environment and the directory are those given', async () => {
  const { stdout } = await runCommand(['/bin/sh', '-c', 'pwd; echo $A-$HOME'], { cwd: '/', env: { A: 'a' } })
  expect(stdout).toBe('/\na-\n')
})

test('descriptors are passed on, and errors are of the command that another one runs', async () => {
  const handle = await open(import.meta.filename)
  try {
    const { stdout } = await runCommand(['cat', '/proc/self/fd/3'], { fds: [handle.fd], through: ['nice', '-n', '1'] })
    expect(stdout).toBe(await readFile(import.meta.filename, 'utf8'))
  } finally {
    await handle.close()
  }
  const error = await failureOf(runCommand(['cat', '/nowhere'], { through: ['nice'] }))
  expect(error.message).toMatch(/^cat exited with code 1: /)
})
