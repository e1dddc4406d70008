import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { HostError } from '@berth/agent/host-driver.ts'
import { beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { processMetrics } from '../../bin/process/metrics.ts'
import { baseName, type Scrape, scrape } from '../observability/metrics-text.ts'
import { startStack, until } from '../stack.ts'

const docs = join(import.meta.dirname, '../../docs')
const guide = join(docs, 'observability.md')

/** What /metrics says after all that it counts has happened at least once. */
let said: Scrape

beforeAll(async () => {
  await using stack = await startStack({
    otherMetrics: [processMetrics()],
    agentSettings: { usageEveryMs: 20 },
  })
  stack.host.failNext('disk', new HostError('disk_failed', 'no', { retryable: false }))
  await stack.ended((await stack.create()).operation_id)
  const { id } = await stack.createReady()
  for (const action of ['reboot', 'stop', 'start'] as const) await stack.ended(await stack.act(id, action))
  await stack.ended(await stack.delete(id))
  await stack.createReady()
  said = await until(
    () => scrape(stack),
    (now) => now.labelsOf('berth_agent_instance_memory_bytes').size > 0,
  )
})

interface Usage {
  where: string
  metric: string
  labels: Set<string>
}

/** Every metric that a PromQL expression names, with the labels it picks by and groups by. */
function usages(where: string, expression: string): Usage[] {
  const grouped = [...expression.matchAll(/\bby \(([^)]*)\)/g)].flatMap((match) => names(match[1] ?? ''))
  const selectors = [...expression.matchAll(/\b((?:berth|process|nodejs)_[a-z0-9_]+)(?:\{([^}]*)\})?/g)]
  return selectors.map((match) => {
    const picked = [...(match[2] ?? '').matchAll(/([a-z_]+)\s*(?:=~|!~|!=|=)/g)].map((label) => label[1] ?? '')
    return { where, metric: match[1] ?? '', labels: new Set([...picked, ...grouped]) }
  })
}

const names = (list: string) => list.split(',').map((name) => name.trim())

/** Prometheus adds these two to what it scrapes; `le` is in every histogram. */
const everywhere = new Set(['job', 'instance', 'le'])

function faultsOf({ where, metric, labels }: Usage): string[] {
  const base = said.types.has(metric) ? metric : baseName(metric)
  const type = said.types.get(base)
  if (type === undefined) return [`${where}: there is no metric ${metric}`]
  if (base !== metric && type !== 'histogram') return [`${where}: ${base} is a ${type} and has no ${metric}`]
  const known = said.labelsOf(base)
  return [...labels]
    .filter((label) => !everywhere.has(label) && !known.has(label))
    .map((label) => `${where}: ${base} has no label ${label}`)
}

describe('the dashboard', () => {
  const dashboard: unknown = JSON.parse(readFileSync(join(docs, 'grafana-dashboard.json'), 'utf8'))
  const panels = (dashboard as { panels: { id: number; title: string; targets?: { expr: string }[] }[] }).panels
  const used = panels.flatMap(({ title, targets = [] }) => targets.flatMap(({ expr }) => usages(title, expr)))

  test('asks only for metrics and labels that /metrics has', () => {
    expect(used.length).toBeGreaterThan(50)
    expect(used.flatMap(faultsOf)).toEqual([])
  })

  test('shows every metric of Berth', () => {
    const shown = new Set(used.map(({ metric }) => (said.types.has(metric) ? metric : baseName(metric))))
    expect([...said.types.keys()].filter((name) => name.startsWith('berth_') && !shown.has(name))).toEqual([])
  })

  test('has a panel of its own for every id', () => {
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length)
  })

  test.each([
    ['sum(rate(berth_no_such_thing_total[5m]))', 'x: there is no metric berth_no_such_thing_total'],
    ['berth_instances{colour="red"}', 'x: berth_instances has no label colour'],
    ['sum by (step) (berth_instances)', 'x: berth_instances has no label step'],
    ['berth_instances_count', 'x: berth_instances is a gauge and has no berth_instances_count'],
  ])('would fail for %s', (expression, fault) => {
    expect(usages('x', expression).flatMap(faultsOf)).toEqual([fault])
  })
})

describe('docs/observability.md', () => {
  const text = readFileSync(guide, 'utf8')
  const begin = text.indexOf('-->', text.indexOf('<!-- metrics:')) + '-->\n'.length
  const end = text.indexOf('<!-- end of metrics -->')

  test('has a row for each metric of Berth, with its type, labels and meaning', () => {
    expect(end).toBeGreaterThanOrEqual(begin)
    const table = renderTable(said)
    if (process.env.UPDATE_GOLDEN === '1') writeFileSync(guide, `${text.slice(0, begin)}${table}${text.slice(end)}`)
    const now = readFileSync(guide, 'utf8')
    expect(now.slice(begin, now.indexOf('<!-- end of metrics -->')), 'UPDATE_GOLDEN=1 rewrites it').toBe(table)
  })

  test('has alerts that ask only for metrics and labels that /metrics has', () => {
    const block = /```yaml\n(groups:[\s\S]*?)```/.exec(text)?.[1] ?? ''
    const { groups } = parse(block) as { groups: { rules: { alert: string; expr: string }[] }[] }
    const rules = groups.flatMap((group) => group.rules)
    expect(rules.length).toBeGreaterThan(10)
    expect(rules.flatMap(({ alert, expr }) => usages(alert, expr)).flatMap(faultsOf)).toEqual([])
  })
})

describe('metrics', () => {
  test('are named by the conventions: the unit last, _total for counters and for nothing else', () => {
    for (const [name, type] of said.types) {
      if (!name.startsWith('berth_')) continue
      expect(name.endsWith('_total'), name).toBe(type === 'counter')
      expect(name, 'base units are seconds and bytes').not.toMatch(/_(ms|milliseconds|minutes|mb|gb|kb|percent)(_|$)/)
      if (/duration/.test(name)) expect(name).toMatch(/_seconds$/)
      if (/memory|disk/.test(name)) expect(name).toMatch(/_bytes(_total)?$/)
      expect(said.helps.get(name), name).toMatch(/^\S.{10,}/)
    }
  })

  test('have no label whose values callers make up', async () => {
    const values = said.samples
      // the figures of an instance have its id: there are as many as the host has instances
      .filter(({ name }) => name.startsWith('berth_') && !name.startsWith('berth_agent_instance_'))
      .flatMap(({ labels }) => Object.values(labels))
    expect(values.filter((value) => /^(inst|op|req|host|vpc|subnet|sg|key)-[0-9a-z]{6,}/.test(value))).toEqual([])
  })

  test('come without those of the process twice, and the process has its own', async () => {
    expect(said.samples.filter(({ name }) => name === 'process_cpu_seconds_total')).toHaveLength(1)
    expect(said.value('process_resident_memory_bytes')).toBeGreaterThan(10_000_000)
  })
})

test('the line of a host that went away turns to unreachable in the figures', async () => {
  let ahead = 0
  await using stack = await startStack({ now: () => Date.now() + ahead })
  await until(
    () => scrape(stack),
    (now) => now.value('berth_hosts', { state: 'ready', schedulable: 'true' }) === 1,
  )
  await stack.stopAgent()
  ahead = 10 * 60_000
  const now = await scrape(stack)
  expect(now.value('berth_hosts', { state: 'unreachable', schedulable: 'true' })).toBe(1)
  expect(now.value('berth_hosts_capacity_vcpus', { state: 'ready' })).toBe(0)
  expect(now.value('berth_hosts_capacity_vcpus', { state: 'unreachable' })).toBe(1000)
})

function renderTable(from: Scrape): string {
  const rows = [...from.types]
    .filter(([name]) => name.startsWith('berth_'))
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, type]) => {
      const labels = [...from.labelsOf(name)].map((label) => `\`${label}\``).join(', ')
      return `| \`${name}\` | ${type} | ${labels} | ${from.helps.get(name)} |\n`
    })
  return `| metric | type | labels | what it is |\n|---|---|---|---|\n${rows.join('')}`
}
