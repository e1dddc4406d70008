import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseReadyReport, type ReadyMarker } from '../console/ready-marker.ts'
import { guestCondition } from '../instance/guest-condition.ts'

const script = join(import.meta.dirname, 'berth-ready')
const schemaFile = 'usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-cloud-config-v1.json'

let directory = ''
let roots = 0
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'berth-ready-'))
})
afterAll(() => rmSync(directory, { recursive: true }))

/** What cloud-init left in a guest after one user data: its files by path, and what `cloud-init schema --system` said. */
type Left = Record<string, string>

/**
 * What `testing/README.md` tells of. A file begins with its path in a line of its own, `=== path`.
 */
function left(version: string, name: string): Left {
  const text = readFileSync(join(import.meta.dirname, 'testing', `cloud-init-${version}`, `${name}.txt`), 'utf8')
  return Object.fromEntries(
    text
      .split(/^=== /m)
      .slice(1)
      .map((part) => {
        const end = part.indexOf('\n')
        const [path = '', encoding] = part.slice(0, end).split(' (')
        const content = part.slice(end + 1)
        return [path, encoding === 'base64)' ? Buffer.from(content, 'base64').toString('latin1') : content]
      }),
  )
}

/** What the script says in a guest that has these files. */
function examine(files: Left): ReadyMarker {
  const root = join(directory, `${roots++}`)
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), content, 'latin1')
  }
  // the schema of each version has these names in it, and far more
  mkdirSync(dirname(join(root, schemaFile)), { recursive: true })
  writeFileSync(join(root, schemaFile), '{"runcmd": {}, "write_files": {}, "users": {}, "packages": {}}')
  const schema = files['cloud-init schema --system']
  const command = join(root, 'bin/cloud-init')
  mkdirSync(dirname(command))
  writeFileSync(command, `#!/bin/sh\ncat "$0.said" >&2\n${schema === undefined ? 'exit 1' : ''}\n`)
  writeFileSync(`${command}.said`, schema ?? '')
  chmodSync(command, 0o755)
  const env = { ...process.env, PATH: `${dirname(command)}:${process.env.PATH}` }
  const json = execFileSync('sh', [script, 'examine', root], { encoding: 'utf8', env })
  const marker = parseReadyReport(Buffer.from(JSON.stringify({ boot_id: 'b-1', ...JSON.parse(json) })))
  if (marker === null) throw new Error(`it is no marker: ${json}`)
  return marker
}

const conditionOf = (version: string, name: string) => guestCondition(examine(left(version, name)))

describe.each(['22.4', '25.1'])('after cloud-init %s', (version) => {
  test.each([
    ['misindented', /Failed loading yaml blob\. Invalid format at line 3 column 3: .*line 4, column 4/s],
    ['badly-indented-block', /Failed loading yaml blob/],
    ['dashes-first', /Unhandled non-multipart \(text\/x-not-multipart\) userdata: 'b'---'/],
    ['base64-twice', /Unhandled non-multipart .*'b'I2Nsb3VkLWNvbmZpZwp/],
    ['bom', /Unhandled non-multipart .*ufeff#cloud-config/],
    ['gzip-truncated', /Unhandled non-multipart/],
    ['list-root', /Failed loading yaml blob.*got list instead/],
    ['mime-broken-part', /Failed loading yaml blob.*Failed at merging in cloud config part from f1/s],
    ['mime-only-unknown', /Unhandled unknown content-type \(text\/x-shellscrpt\)/],
    ['archive-broken', /Failed loading yaml blob/],
    ['jsonp-broken', /Failed at merging in cloud config part.*can't replace a non-existent object/s],
    ['part-handler-broken', /Failed at registering python file.*No module named 'nosuchmodule'/s],
    ['jinja-broken', /unexpected end of template/],
  ])('user data that was not understood is told with the warning: %s', (name, warning) => {
    const condition = conditionOf(version, name)
    expect(condition).toMatchObject({ status: 'false', reason: 'user_data_ignored' })
    expect(condition.message).toMatch(warning)
  })

  test.each([
    ['script-exit-3', ' with exit code 3: cannot reach the "mirror"\n'],
    ['runcmd-fails', ' with exit code 7: trying\n'],
    ['script-killed', ' with exit code 137 (signal 9): before\n'],
    ['script-no-interpreter', /No such file or directory/],
    ['newline-then-script', /Exec format error/],
    [
      'packages-missing',
      /Failure when attempting to install packages|Unable to locate package no-such-package-of-berth/,
    ],
    ['boothook-fails', /Boothooks script .* execution error/],
    ['include-unreachable', /Failed to establish a new connection: .* for url: http:\/\/127\.0\.0\.1:1\/nothing/],
  ])('a failure is told with its lines and without the tables around them: %s', (name, lines) => {
    const condition = conditionOf(version, name)
    expect(condition).toMatchObject({ status: 'false', reason: 'user_data_failed' })
    if (typeof lines === 'string') expect(condition.message.startsWith(`user_data failed${lines}`)).toBe(true)
    else expect(condition.message).toMatch(lines)
    expect(condition.message).not.toMatch(/ci-info|SSH HOST KEY|key pair|<module|randomart|\[WARNING\]/)
  })

  test.each([
    ['misspelt-key', /write_file\b/],
    ['users-wrong', /users: 5 is not of type/],
    ['jinja-unknown', /Could not render jinja template variables .*'nothing_here'/],
    ['mime-unknown-part', /Unhandled unknown content-type \(text\/x-foo\)/],
    ['empty-config', /empty cloud config/],
  ])('what was carried out with a warning is ready, and says so: %s', (name, warning) => {
    const condition = conditionOf(version, name)
    expect(condition).toMatchObject({ status: 'true', reason: 'user_data_ok' })
    expect(condition.message).toMatch(warning)
  })

  test.each(['crlf-config', 'gzip', 'empty-script', 'trailing-text'])('%s is ready without a word', (name) => {
    expect(conditionOf(version, name)).toEqual({ status: 'true', reason: 'user_data_ok', message: '' })
  })

  test('warnings of an earlier boot of the disk do not count', () => {
    const good = left(version, 'empty-script')
    const log = `${left(version, 'misindented')['var/log/cloud-init.log']}${good['var/log/cloud-init.log']}`
    expect(guestCondition(examine({ ...good, 'var/log/cloud-init.log': log })).message).toBe('')
  })

  test('a guest whose cloud-init did not come to its end has failed', () => {
    const { 'run/cloud-init/result.json': _, ...files } = left(version, 'empty-script')
    const condition = guestCondition(examine(files))
    expect(condition).toMatchObject({ status: 'false', reason: 'user_data_failed' })
    expect(condition.message).toContain('cloud-init did not come to its end')
  })
})

test('without user data there is nothing to tell, unless there was no data source', () => {
  const result = (datasource: string) => ({
    'run/cloud-init/result.json': `{\n "v1": {\n  "datasource": "${datasource}",\n  "errors": []\n }\n}\n`,
    'var/lib/cloud/instance/user-data.txt': ' \n\n',
  })
  expect(guestCondition(examine(result('DataSourceNoCloud [seed=/dev/vdb]'))).status).toBe('true')
  const lost = guestCondition(examine(result('DataSourceNone')))
  expect(lost).toMatchObject({ status: 'false', reason: 'user_data_failed' })
  expect(lost.message).toContain('found no data source')
})

test('what a guest printed and was warned of is cut to what a marker may carry, at its end', () => {
  const files = left('22.4', 'script-exit-3')
  const long = Array.from({ length: 4000 }, (_, i) => `line ${i} €`).join('\n')
  const output = files['var/log/cloud-init-output.log']?.replace(
    'cannot reach',
    () => `${Buffer.from(long).toString('latin1')}\ncannot reach`,
  )
  const { output_tail: tail } = examine({ ...files, 'var/log/cloud-init-output.log': output ?? '' })
  expect(Buffer.byteLength(tail)).toBeLessThanOrEqual(2048)
  expect(tail).not.toContain('\ufffd')
  expect(tail).toContain('line 3999 €\ncannot reach the "mirror"\n')
  expect(tail).toContain('Runparts: 1 failures (part-001)')

  const warned = left('22.4', 'misspelt-key')
  const keys = Array.from({ length: 500 }, (_, i) => `unknown_${i}: 1\n`).join('')
  const { warnings } = examine({ ...warned, 'var/lib/cloud/instance/cloud-config.txt': keys })
  expect(warnings).toHaveLength(1024)
})
