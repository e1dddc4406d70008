import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { processIo } from '@berth/cli/io.ts'
import { clientCommands, setUpProgram } from '@berth/cli/program.ts'
import { Command } from 'commander'
import { expect, test } from 'vitest'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..')

/** Tells on standard error of each module that is loaded. */
const telling = `data:text/javascript,${encodeURIComponent(`
  import { registerHooks } from 'node:module'
  registerHooks({
    load(url, context, next) {
      process.stderr.write('loaded ' + url + '\\n')
      return next(url, context)
    },
  })
`)}`

async function loadedBy(...argv: string[]): Promise<string[]> {
  const { stderr } = await run(process.execPath, ['--import', telling, join(root, 'bin/berth.ts'), ...argv])
  return [...stderr.matchAll(/^loaded (.*)$/gm)].map(([, url = '']) => url)
}

// Each of them takes as long to load as everything else of a command, or longer.
const heavy = /node_modules\/(?:typebox|yaml|better-sqlite3|fastify|pino)\//

test.each([
  ['--help'],
  ['instance', '--help'],
  ['instance', 'create', '--help'],
  ['apply', '--help'],
  ['image', '--help'],
  ['dev', '--help'],
  ['completion', 'bash'],
  ['__complete', 'bash', '--', 'instance', 'create', '--'],
])('berth %s %s loads neither schemas nor YAML nor a database', async (...argv) => {
  const loaded = await loadedBy(...argv)
  expect(loaded.filter((url) => url.includes('/cli/')).length).toBeGreaterThan(3)
  expect(loaded.filter((url) => heavy.test(url))).toEqual([])
})

test('a command is loaded without the modules of the others', async () => {
  const loaded = await loadedBy('--server', 'http://127.0.0.1:7480', 'vpc', '--help')
  const resources = loaded.filter((url) => url.includes('/cli/resources/'))
  expect(resources.map((url) => url.split('/').at(-1))).toEqual(['vpcs.ts'])
})

test('every command is found by the name and the aliases that it has', async () => {
  const io = processIo()
  const sources = clientCommands(io)
  for (const source of sources) {
    const program = setUpProgram(new Command('berth'), io)
    await source.add(program, sources)
    expect(program.commands.map((command) => [command.name(), ...command.aliases()])).toEqual([source.names])
  }
})

test('berth runs from another directory, through a symbolic link', async () => {
  const elsewhere = await mkdtemp(join(tmpdir(), 'berth-link-'))
  try {
    await run('ln', ['-s', join(root, 'berth'), join(elsewhere, 'b')])
    const { stdout } = await run(join(elsewhere, 'b'), ['--version'], { cwd: elsewhere })
    expect(stdout).toBe('0.1.0\n')
    expect((await run('sh', ['berth', '--version'], { cwd: root })).stdout).toBe('0.1.0\n')
  } finally {
    await rm(elsewhere, { recursive: true })
  }
})
