import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { missingPackages, testPackages } from '../../bin/host-packages.ts'
import { startStack } from '../stack.ts'

const file = join(import.meta.dirname, '../../docs/api.md')

/** A block of commands, and the block of what they printed that follows it, if any. */
const example = /```sh\n([\s\S]*?)```\n(?:\n```text\n([\s\S]*?)```\n)?/g

/**
 * The documentation's commands, run in their order in one shell against one server. What they print stands in the page;
 * UPDATE_GOLDEN=1 writes it there.
 */
const missing = await missingPackages(testPackages)
if (missing.length > 0) {
  console.log(
    `!!!! ${missing.map((each) => each.name).join(', ')} not installed: THE EXAMPLES OF docs/api.md ARE NOT RUN !!!!`,
  )
}

test.skipIf(missing.length > 0)('the examples of docs/api.md print what the page says', async () => {
  await using stack = await startStack({ publicPools: [{ name: 'default', cidr: '203.0.113.0/24' }] })
  await stack.ensureExamples()
  const directory = mkdtempSync(join(tmpdir(), 'berth-test-'))
  const shell = new Shell(directory, stack.url)
  try {
    const page = readFileSync(file, 'utf8')
    const names = new Names(stack.url)
    let fresh = ''
    let end = 0
    for (const match of page.matchAll(example)) {
      const output = names.fixed(await shell.run(match[1] ?? ''))
      fresh += `${page.slice(end, match.index)}\`\`\`sh\n${match[1]}\`\`\`\n\n\`\`\`text\n${output}\`\`\`\n`
      end = match.index + match[0].length
    }
    fresh += page.slice(end)
    if (process.env.UPDATE_GOLDEN === '1') writeFileSync(file, fresh)
    expect(fresh, 'UPDATE_GOLDEN=1 rewrites the page').toBe(readFileSync(file, 'utf8'))
    expect(fresh.match(example)?.length).toBeGreaterThan(10)
  } finally {
    await shell.close()
    rmSync(directory, { recursive: true, force: true })
  }
})

/** A bash that keeps its variables from one block to the next. */
class Shell {
  readonly #bash: ChildProcessWithoutNullStreams
  #output = ''
  #heard: () => void = () => {}

  constructor(directory: string, url: string) {
    this.#bash = spawn('bash', ['-s'], { cwd: directory, env: { ...process.env, BERTH: url, LC_ALL: 'C.UTF-8' } })
    const hear = (chunk: Buffer) => {
      this.#output += chunk.toString()
      this.#heard()
    }
    this.#bash.stdout.on('data', hear)
    this.#bash.stderr.on('data', hear)
    this.#bash.on('exit', () => this.#heard())
    this.#bash.stdin.on('error', () => undefined) // a bash that has gone is noticed by its exit code
    this.#bash.stdin.write('exec 2>&1\n')
  }

  /** What a block prints; throws when its last command fails. */
  async run(block: string): Promise<string> {
    this.#output = ''
    this.#bash.stdin.write(`${block}\nprintf '\\n==end %s==\\n' $?\n`)
    for (;;) {
      const end = /\n==end (\d+)==\n$/.exec(this.#output)
      if (end !== null) {
        const printed = this.#output.slice(0, end.index)
        if (end[1] !== '0') throw new Error(`${block}\nfailed with ${end[1]}: ${printed}`)
        return printed === '' || printed.endsWith('\n') ? printed : `${printed}\n`
      }
      if (this.#bash.exitCode !== null) throw new Error(`bash ended: ${this.#output}`)
      await new Promise<void>((resolve) => {
        this.#heard = resolve
      })
    }
  }

  async close(): Promise<void> {
    const gone = new Promise((resolve) => this.#bash.once('exit', resolve))
    this.#bash.stdin.end()
    if (this.#bash.exitCode === null) await gone
  }
}

/** Gives what differs from run to run names that do not. */
class Names {
  readonly #url: string
  readonly #known = new Map<string, string>()

  constructor(url: string) {
    this.#url = url
  }

  fixed(text: string): string {
    return text
      .replaceAll(this.#url, 'http://127.0.0.1:7480')
      .replaceAll(/\b(inst|op|host|vpc|subnet|sg|key|pip)-[0-9a-hjkmnp-tv-z]{20}\b/g, (id, prefix) =>
        this.#id(id, prefix),
      )
      .replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, '2026-11-24T12:00:00Z')
      .replaceAll(/req-[0-9a-f]{20}/g, 'req-00000000000000000000')
  }

  #id(id: string, prefix: string): string {
    const known = this.#known.get(id) ?? `${prefix}-01m8${String(this.#known.size).padStart(16, '0')}`
    this.#known.set(id, known)
    return known
  }
}
