import { readdirSync, statSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { missingPackages, runtimePackages } from '../bin/host-packages.ts'
import { TestRun } from './test-run.ts'

/**
 * Run every test and end with the line `N passed, N failed`: first the checks of the tree, then the tests that need nothing, then those that run real
 * machines, each file in a namespace of its own that stands for a host. Prints before that what took how long.
 *
 *   node tools/test.ts          what each change has to pass
 *   node tools/test.ts --long   the random tests of it again, at length
 */
const root = join(import.meta.dirname, '..')
const vitest = [process.execPath, join(root, 'node_modules/vitest/vitest.mjs'), 'run'] as const
const onHost = [process.execPath, join(root, 'tools/on-host.ts')] as const

/**
 * Test hosts that run side by side: one more than there are cores. A machine that boots by emulation keeps one core busy while its test waits for it;
 * those that send packets to where none may arrive mostly wait.
 */
const testHosts = Math.min(5, availableParallelism() + 1)

const run = new TestRun(root)
try {
  if (process.argv.includes('--long')) await atLength()
  else await everyKind()
} finally {
  process.exitCode = run.end()
}

async function everyKind(): Promise<void> {
  await run.part('checks of the tree', 2, [
    { check: 'formatting and lint', argv: bin('biome', 'check', '.') },
    { check: 'types', argv: bin('tsc', '--noEmit') },
    { check: 'unused code', argv: bin('knip', '--no-config-hints') },
    { check: 'generated files', argv: bin('node', 'tools/gen.ts', '--check') },
    { check: 'OpenAPI document', argv: bin('redocly', 'lint', 'openapi.json') },
  ])
  await run.part('unit and system tests', 1, [{ tests: 'unit and system tests', argv: vitest }])
  const reason = await cannotRunMachines()
  if (reason === null) {
    await run.part('on-host tests (real machines)', testHosts, onHostFiles().map(onHostTests))
  } else {
    console.log(`\n!!!! ON-HOST TESTS NOT RUN: ${reason}. Nothing below says that a real machine boots. !!!!\n`)
  }
}

/** What `npm test` does by a few random choices, by many; a failure has the seed that repeats it. */
async function atLength(): Promise<void> {
  const more = [
    ['50,000 schedules of the model (test/model/)', { BERTH_MODEL_SCHEDULES: '50000' }, ['test/model']],
    ['100,000 requests of the fuzz test', { BERTH_FUZZ_REQUESTS: '100000' }, ['test/openapi/fuzz.test.ts']],
  ] as const
  for (const [title, env, files] of more) {
    await run.part(title, 1, [{ tests: title, argv: [...vitest, ...files], env }])
  }
  const crash = [process.execPath, 'test/crash/main.ts', '--seconds', '600']
  await run.part('kills of real processes, ten minutes', 1, [
    { check: 'npm run test:crash -- --seconds 600', argv: crash },
  ])
}

function bin(command: string, ...args: readonly string[]): readonly string[] {
  return [join(root, 'node_modules/.bin', command), ...args]
}

/** Those that take long first, as near as their size tells, so that no long one is left to run alone at the end. */
function onHostFiles(): string[] {
  const files = readdirSync(join(root, 'test/on-host'), { recursive: true, encoding: 'utf8' })
  const sizes = files
    .filter((file) => file.endsWith('.test.ts'))
    .map((file) => ({ file: join('test/on-host', file), bytes: statSync(join(root, 'test/on-host', file)).size }))
  return sizes.sort((a, b) => b.bytes - a.bytes).map(({ file }) => file)
}

function onHostTests(file: string) {
  return { tests: file, argv: [...onHost, ...vitest, '--config', 'test/on-host/vitest.config.ts', file] }
}

async function cannotRunMachines(): Promise<string | null> {
  if (process.getuid?.() !== 0) return 'they need root'
  const missing = await missingPackages(runtimePackages)
  return missing.length === 0 ? null : `${missing.map((each) => each.name).join(', ')} not installed`
}
