import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { missingPackages, runtimePackages } from '../bin/host-packages.ts'

/**
 * Run every test and end with the line `N passed, N failed`: first the checks of the tree, then the tests that need nothing, then those that run real
 * machines, in a namespace of their own that stands for a host.
 */
const root = join(import.meta.dirname, '..')
const vitest = join(root, 'node_modules/vitest/vitest.mjs')
const results = mkdtempSync(join(tmpdir(), 'berth-test-'))
const totals = { passed: 0, failed: 0, skipped: 0 }

try {
  check('formatting and lint', ['biome', 'check', '.'])
  check('types', ['tsc', '--noEmit'])
  check('unused code', ['knip', '--no-config-hints'])
  check('generated files', ['node', 'tools/gen.ts', '--check'])
  check('OpenAPI document', ['redocly', 'lint', 'openapi.json'])
  run('unit and system tests', [process.execPath, vitest, 'run'])
  const reason = await cannotRunMachines()
  if (reason === null) {
    const onHost = [process.execPath, join(root, 'tools/on-host.ts'), process.execPath, vitest, 'run']
    run('on-host tests (real machines)', [...onHost, '--config', 'test/on-host/vitest.config.ts'])
  } else {
    console.log(`\n!!!! ON-HOST TESTS NOT RUN: ${reason}. Nothing below says that a real machine boots. !!!!\n`)
  }
  const skipped = totals.skipped > 0 ? `, ${totals.skipped} skipped` : ''
  console.log(`\n${totals.passed} passed, ${totals.failed} failed${skipped}`)
  process.exitCode = totals.failed > 0 || totals.passed === 0 ? 1 : 0
} finally {
  rmSync(results, { recursive: true, force: true })
}

/** A check of the tree itself counts as one test. */
function check(title: string, argv: readonly [string, ...string[]]): void {
  const [command, ...args] = argv
  const options = { cwd: root, encoding: 'utf8' as const }
  const { status, stdout, stderr } = spawnSync(join(root, 'node_modules/.bin', command), args, options)
  console.log(`${status === 0 ? 'ok' : 'FAILED'}: ${title} (${argv.join(' ')})`)
  if (status !== 0) console.log(`${stdout}${stderr}`)
  if (status === 0) totals.passed++
  else totals.failed++
}

function run(title: string, argv: readonly string[]): void {
  console.log(`\n== ${title}`)
  const output = join(results, 'results.json')
  rmSync(output, { force: true })
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${output}`]
  const [command = '', ...args] = [...argv, ...reporters]
  const { status } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'], cwd: root })
  const before = totals.failed
  count(output)
  if (status !== 0 && totals.failed === before) totals.failed++ // it failed outside any test
}

function count(output: string): void {
  try {
    const report = JSON.parse(readFileSync(output, 'utf8'))
    totals.passed += report.numPassedTests
    totals.failed += report.numFailedTests
    totals.skipped += report.numPendingTests
  } catch {
    totals.failed++ // a run without a report is a failure
  }
}

async function cannotRunMachines(): Promise<string | null> {
  if (process.getuid?.() !== 0) return 'they need root'
  const missing = await missingPackages(runtimePackages)
  return missing.length === 0 ? null : `${missing.map((each) => each.name).join(', ')} not installed`
}
