import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { defaultSettings } from '@berth/server/config.ts'
import { EventFeed } from '@berth/server/feed/event-feed.ts'
import { WaitSlots } from '@berth/server/feed/waiting.ts'
import { ServerMetrics } from '@berth/server/metrics/server-metrics.ts'
import { Readiness } from '@berth/server/readiness.ts'
import { buildApi } from '@berth/server/routes/all.ts'
import { Store } from '@berth/server/store/store.ts'
import { pino } from 'pino'
import { renderErrorCatalogue } from './error-catalogue.ts'

/**
 * Write the files that follow from the contract: `openapi.json`, `sdk/schema.d.ts` and `docs/errors.md`. With `--check` nothing is
 * written; it fails when one of them is stale.
 */
const root = join(import.meta.dirname, '..')
const work = mkdtempSync(join(tmpdir(), 'berth-gen-'))
const check = process.argv.includes('--check')
try {
  const openapi = join(work, 'openapi.json')
  const types = join(work, 'schema.d.ts')
  writeFileSync(openapi, await renderOpenapi())
  execFileSync(process.execPath, [join(root, 'sdk/node_modules/openapi-typescript/bin/cli.js'), openapi, '-o', types], {
    stdio: ['ignore', 'ignore', 'inherit'],
    cwd: work, // it would read redocly.yaml of the root, which is for a newer linter than the one in it
  })
  const errors = join(work, 'errors.md')
  writeFileSync(errors, renderErrorCatalogue())
  const stale = [
    place(openapi, join(root, 'openapi.json')),
    place(types, join(root, 'sdk/schema.d.ts')),
    place(errors, join(root, 'docs/errors.md')),
  ]
  if (check && stale.includes(true)) {
    console.error('generated files are stale: run `npm run gen` and commit what changed')
    process.exitCode = 1
  }
} finally {
  rmSync(work, { recursive: true, force: true })
}

async function renderOpenapi(): Promise<string> {
  const store = await Store.open(join(work, 'empty.db'))
  const log = pino({ level: 'silent' })
  const feed = await EventFeed.open(store, log)
  const ctx = {
    store,
    feed,
    log,
    metrics: new ServerMetrics(),
    readiness: new Readiness(store, defaultSettings.readyBoundMs),
    requestId: '',
    now: Date.now,
    settings: defaultSettings,
    waitSlots: new WaitSlots(0),
    images: new Map(),
    instanceTypes: new Map(),
    publicPools: [],
  }
  const app = await buildApi(ctx, [])
  const document = app.swagger()
  await app.close()
  feed.close()
  await store.close()
  return `${JSON.stringify(document, null, 2)}\n`
}

/** Put a generated file in its place; true when what stood there was another. */
function place(from: string, to: string): boolean {
  const fresh = readFileSync(from, 'utf8')
  const differs = fresh !== readIfThere(to)
  if (differs && !check) writeFileSync(to, fresh)
  if (differs) console.log(`${check ? 'stale' : 'wrote'}: ${to.slice(root.length + 1)}`)
  return differs
}

function readIfThere(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}
