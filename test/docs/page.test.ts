import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Stack, startStack } from '../stack.ts'

let stack: Stack
beforeAll(async () => {
  stack = await startStack({ agent: false })
})
afterAll(() => stack.close())

/** URLs of other hosts: with a scheme, or from `//` on. */
const outside = /[a-z]+:\/\/|["'(=\s]\/\/[a-z0-9]/i

test('the reference page loads everything from this server', async () => {
  const page = await stack.api('GET', '/docs')
  expect(page.status).toBe(200)
  expect(page.headers['content-type']).toBe('text/html; charset=utf-8')
  expect(page.text).not.toMatch(outside)
  const scripts = [...page.text.matchAll(/<script[^>]*>/g)].map(([tag]) => tag.match(/src="(\/[^"]+)"/)?.[1])
  expect(scripts).toEqual(['/docs/scalar.js', '/docs/start.js'])
  for (const path of scripts) {
    const script = await stack.api('GET', path ?? '')
    expect({ path, status: script.status }).toEqual({ path, status: 200 })
    expect(script.headers['content-type']).toBe('text/javascript; charset=utf-8')
    expect(script.text).toContain('createApiReference')
  }
})

test('its configuration names this server alone, and the document is there', async () => {
  const { text } = await stack.api('GET', '/docs/start.js')
  expect(text).not.toMatch(outside)
  const configuration = JSON.parse(text.slice(text.indexOf('{'), text.lastIndexOf('}') + 1))
  expect(configuration).toMatchObject({ telemetry: false, withDefaultFonts: false, agent: { disabled: true } })
  const document = await stack.api<{ openapi: string; paths: object }>('GET', configuration.url)
  expect(document.body.openapi).toBe('3.1.0')
  expect(Object.keys(document.body.paths)).toContain('/v1/instances')
})

test('the browser is told to load and call nothing else', async () => {
  for (const path of ['/docs', '/docs/start.js', '/docs/scalar.js']) {
    const policy = String((await stack.api('GET', path)).headers['content-security-policy'])
    const rules = new Map(policy.split('; ').map((rule) => [rule.split(' ')[0], rule.split(' ').slice(1)]))
    expect(rules.get('default-src')).toEqual(["'none'"])
    expect(rules.get('script-src')).toEqual(["'self'"])
    expect(rules.get('connect-src')).toEqual(["'self'"])
    const allowed = new Set([...rules.values()].flat())
    expect([...allowed].sort()).toEqual(["'none'", "'self'", "'unsafe-inline'", 'data:'])
  }
})

test('pages of other sites cannot load it', async () => {
  const answer = await stack.api('GET', '/docs/scalar.js', undefined, { 'sec-fetch-site': 'cross-site' })
  expect(answer.status).toBe(403)
})
