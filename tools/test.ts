import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { missingPackages, runtimePackages } from '../bin/host-packages.ts'

/** What is read of Vitest's JSON report; `message` is of a file that failed outside its tests. */
interface Report {
  numPassedTests: number
  numPendingTests: number
  testResults: {
    name: string
    status: string
    message: string
    assertionResults: { status: string; fullName: string; failureMessages: string[] }[]
  }[]
}

/**
 * Run every test and end with the line `N passed, N failed`: first the checks of the tree, then the tests that need nothing, then those that run real
 * machines, in a namespace of their own that stands for a host.
 */
const root = join(import.meta.dirname, '..')
const vitest = join(root, 'node_modules/vitest/vitest.mjs')
const results = mkdtempSync(join(tmpdir(), 'berth-test-'))
const totals = { passed: 0, failed: 0, skipped: 0 }
const failures: string[] = []
const messageLines = 40

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
  if (failures.length > 0) console.log(`\n== What failed\n\n${failures.join('\n\n')}`)
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
  if (status === 0) {
    totals.passed++
    return
  }
  console.log(`${stdout}${stderr}`)
  fail(title, `${stdout}${stderr}`)
}

function run(title: string, argv: readonly string[]): void {
  console.log(`\n== ${title}`)
  const output = join(results, 'results.json')
  rmSync(output, { force: true })
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${output}`]
  const [command = '', ...args] = [...argv, ...reporters]
  const { status } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'], cwd: root })
  const before = totals.failed
  count(title, output)
  if (status !== 0 && totals.failed === before) fail(title, `it ended with ${status}, outside any test`)
}

function count(title: string, output: string): void {
  let report: Report
  try {
    report = JSON.parse(readFileSync(output, 'utf8'))
  } catch {
    fail(title, 'it ended without a report')
    return
  }
  totals.passed += report.numPassedTests
  totals.skipped += report.numPendingTests
  for (const file of report.testResults) {
    const failed = file.assertionResults.filter((each) => each.status === 'failed')
    for (const each of failed) fail(`${relative(root, file.name)} > ${each.fullName}`, each.failureMessages.join('\n'))
    if (file.status === 'failed' && failed.length === 0) fail(relative(root, file.name), file.message)
  }
}

/** Said again at the end, where one who reads only the end of a long log finds it. */
function fail(title: string, message: string): void {
  totals.failed++
  failures.push(`FAILED: ${title}\n${message.split('\n').slice(0, messageLines).join('\n')}`)
}

async function cannotRunMachines(): Promise<string | null> {
  if (process.getuid?.() !== 0) return 'they need root'
  const missing = await missingPackages(runtimePackages)
  return missing.length === 0 ? null : `${missing.map((each) => each.name).join(', ')} not installed`
}
