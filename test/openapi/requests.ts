import { METHODS } from 'node:http'
import fc, { type Arbitrary } from 'fast-check'
import type { RequestHeaders } from '../stack.ts'
import type { Operation, Parameter } from './document.ts'
import { idToken, type Json, ValueGenerator } from './values.ts'

/*
 * Requests made from openapi.json alone: such that fit it, such that miss it by one fault, and hostile ones.
 */

export interface FuzzRequest {
  kind: 'valid' | 'nearly valid' | 'hostile'
  /** What it was made from. */
  operation: string
  method: string
  /** With the query, percent-encoded; may hold tokens. */
  path: string
  headers: RequestHeaders
  /** Text may hold tokens. */
  body: string | Buffer | undefined
}

/** Paths of the lists whose items have ids: those with a path for one item below them. */
export function collectionsOf(operations: readonly Operation[]): string[] {
  const gets = operations.filter((operation) => operation.method === 'get').map((operation) => operation.path)
  return gets.filter((path) => gets.some((other) => other.startsWith(`${path}/{`)))
}

/** Whether an operation answers with a stream that does not end. */
export function streams(operation: Operation): boolean {
  return Object.values(operation.responses).some(({ content }) => content?.['text/event-stream'] !== undefined)
}

/** Whether a request of this operation may be held by the server: a read with a parameter that counts seconds. */
export function mayBeHeld(operation: Operation): boolean {
  return (
    operation.method === 'get' &&
    operation.parameters.some(
      (parameter) => parameter.in === 'query' && /\bseconds?\b/i.test(parameter.description ?? ''),
    )
  )
}

/** Requests of all three kinds for one of the operations, each operation as often as any other. */
export function anyRequest(operations: readonly Operation[]): Arbitrary<FuzzRequest> {
  const collections = collectionsOf(operations)
  const makers = operations.filter((operation) => !streams(operation)).map((each) => ofOperation(each, collections))
  return fc.oneof(...makers)
}

function ofOperation(operation: Operation, collections: readonly string[]): Arbitrary<FuzzRequest> {
  const own = collections.find((path) => operation.path === path || operation.path.startsWith(`${path}/`)) ?? null
  const values = new ValueGenerator(collections, own)
  const schema = operation.requestBody?.content['application/json']?.schema
  const jsonOf = (body: Arbitrary<Json>) => body.map((value) => JSON.stringify(value))
  const optional = operation.requestBody?.required === true ? [] : [fc.constant(undefined)]
  const validBody = schema === undefined ? fc.constant(undefined) : fc.oneof(jsonOf(values.valid(schema)), ...optional)
  const brokenBody = schema === undefined ? fc.constant('{}') : jsonOf(values.nearly(schema))
  const valid: Parts = {
    method: fc.constant(operation.method.toUpperCase()),
    path: pathOf(operation, own),
    query: queryOf(operation.parameters, values),
    headers: headersOf(operation.parameters, values),
    body: validBody,
  }
  // one part is at fault, so that the others do not hide it
  const with_ = (part: Partial<Parts>) => requestOf({ ...valid, ...part })
  const nearly = fc.oneof(
    with_({ query: brokenQuery(operation.parameters, values) }),
    with_({ path: brokenPath(operation) }),
    ...Array.from({ length: schema === undefined ? 1 : 6 }, () => with_({ body: brokenBody })),
  )
  const hostile = fc.oneof(
    with_({ path: hostilePath(operation) }),
    with_({ query: hostileQuery(operation.parameters) }),
    with_({ headers: hostileHeaders }),
    with_({ method: fc.constantFrom(...METHODS.filter((method) => method !== 'CONNECT')) }),
    with_({ body: hostileBody(validBody) }),
    with_({ body: hostileBody(validBody), headers: hostileHeaders }),
  )
  const name = `${operation.method} ${operation.path}`
  const marked = (kind: FuzzRequest['kind'], requests: Arbitrary<Unmarked>) =>
    requests.map((request) => ({ kind, operation: name, ...request }))
  return fc.oneof(
    { weight: 4, arbitrary: marked('valid', requestOf(valid)) },
    { weight: 3, arbitrary: marked('nearly valid', nearly) },
    { weight: 3, arbitrary: marked('hostile', hostile) },
  )
}

type Unmarked = Omit<FuzzRequest, 'kind' | 'operation'>

interface Parts {
  method: Arbitrary<string>
  path: Arbitrary<string>
  /** Without the question mark. */
  query: Arbitrary<string>
  headers: Arbitrary<RequestHeaders>
  body: Arbitrary<string | Buffer | undefined>
}

function requestOf({ query, ...parts }: Parts): Arbitrary<Unmarked> {
  return fc
    .record({ ...parts, query })
    .map(({ query: text, ...rest }) => ({ ...rest, path: text === '' ? rest.path : `${rest.path}?${text}` }))
}

/** Percent-encoded but for tokens, also what encodeURIComponent refuses. */
function encode(text: string): string {
  return /^«[^«»]+»$/.test(text)
    ? text
    : Buffer.from(text).reduce((all, byte) => {
        const character = String.fromCharCode(byte)
        return all + (/[\w.~-]/.test(character) ? character : `%${byte.toString(16).padStart(2, '0')}`)
      }, '')
}

/** A path of the template; its parameter is mostly the id of something that exists. */
function pathOf(operation: Operation, own: string | null): Arbitrary<string> {
  const segments = operation.path.split('/').map((segment): Arbitrary<string> => {
    if (!segment.startsWith('{')) return fc.constant(segment)
    const { schema } = operation.parameters.find((each) => `{${each.name}}` === segment) ?? { schema: {} }
    const made = new ValueGenerator([], null).valid(schema).map((value) => encode(String(value)))
    return own === null ? made : fc.oneof({ weight: 9, arbitrary: idToken(own) }, { weight: 1, arbitrary: made })
  })
  return fc.tuple(...segments).map((parts) => parts.join('/'))
}

function queryOf(parameters: readonly Parameter[], values: ValueGenerator): Arbitrary<string> {
  return recordOf(parameters, 'query', values).map((fields) =>
    Object.entries(fields)
      .map(([name, value]) => `${encode(name)}=${encode(textOf(value))}`)
      .join('&'),
  )
}

function headersOf(parameters: readonly Parameter[], values: ValueGenerator): Arbitrary<RequestHeaders> {
  return recordOf(parameters, 'header', values).map((fields) =>
    Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, headerText(textOf(value))])),
  )
}

function recordOf(parameters: readonly Parameter[], place: Parameter['in'], values: ValueGenerator) {
  const here = parameters.filter((parameter) => parameter.in === place)
  const fields = here.map(({ name, schema }) => [name, values.valid(schema, name)] as const)
  const requiredKeys = here.filter((parameter) => parameter.required === true).map(({ name }) => name)
  return fc.record(Object.fromEntries(fields), { requiredKeys })
}

const textOf = (value: Json | undefined) => (typeof value === 'string' ? value : JSON.stringify(value ?? null))

/** Only what Node's client sends in a header; tokens stay. */
const headerText = (text: string) => text.replaceAll(/[^\t\x20-\x7e\xa0-\xff]/g, '').trim()

function brokenQuery(parameters: readonly Parameter[], values: ValueGenerator): Arbitrary<string> {
  const here = parameters.filter((parameter) => parameter.in === 'query')
  const unknown = fc.constantFrom('frobnicate=1', 'limits=5', 'Limit=5', '__proto__=1', 'constructor=x', 'a[b]=c')
  const wrong = here.flatMap(({ name, schema }) => [
    values.nearly(schema).map((value) => `${encode(name)}=${encode(textOf(value).slice(0, 3000))}`),
    values.valid(schema, name).map((value) => `${name}=${encode(textOf(value))}&${name}=${encode(textOf(value))}`),
    fc.constantFrom(name, `${name}=`, `${name}[]=1`, `${name}%00=1`, `${name.toUpperCase()}=1`),
  ])
  return fc.oneof(unknown, ...wrong)
}

function brokenPath(operation: Operation): Arbitrary<string> {
  const wrong = fc
    .constantFrom('INST-1', '-', '.', 'a_b', 'x'.repeat(64), 'é', ' ', '«', 'null', '../x', 'x\0')
    .map(encode)
  return wrong.map((text) => operation.path.replaceAll(/\{[^}]+\}/g, text))
}

const oddSegments = [
  '',
  '.',
  '..',
  '%',
  '%zz',
  '%c0%ae',
  '%ff',
  '%u0041',
  '%00',
  '%0d%0aX:1',
  '%2e%2e%2f',
  '..%2f..%2fetc%2fpasswd',
  '%25%32%66',
  '%F0%9F%92%A9',
  '%ed%a0%80',
  '__proto__',
  'constructor',
  '*',
  ':id',
  '{id}',
  ';',
  '\\',
  '%5c',
  '\xe9',
  'a'.repeat(600),
  'a'.repeat(6000),
]

function hostilePath(operation: Operation): Arbitrary<string> {
  const odd = fc.oneof(fc.constantFrom(...oddSegments), fc.string({ unit: 'binary', maxLength: 40 }).map(encode))
  const asId = odd.map((text) => operation.path.replaceAll(/\{[^}]+\}/g, () => text))
  const added = odd.map((text) => `${operation.path}/${text}`)
  const letters = fc.constant(operation.path.replace('v1', '%76%31').replace('{', '').replace('}', ''))
  const shape = fc
    .constantFrom('//', '/v1//', '/./', '/v1/../', '#', '?', '*')
    .map((text) => (text.startsWith('/') ? operation.path.replace('/', text) : `${operation.path}${text}`))
  return fc.oneof(asId, added, letters, shape)
}

function hostileQuery(parameters: readonly Parameter[]): Arbitrary<string> {
  const names = [...parameters.filter((each) => each.in === 'query').map((each) => each.name), 'x']
  const odd = fc.constantFrom(
    '%',
    '%zz',
    '%00',
    '%ff',
    '%ed%a0%80',
    '__proto__',
    '1e999',
    '0x10',
    ' 1',
    '+1',
    '١',
    'NaN',
  )
  const pair = fc
    .tuple(fc.constantFrom(...names), odd)
    .map(([name, value]) => `${name}=${value.replaceAll(/[^!-~]/g, encode)}`)
  const junk = fc.constantFrom(
    '&',
    '&&&=&',
    '=',
    '%',
    '?',
    '#',
    'a'.repeat(6000),
    '__proto__[x]=1',
    `${'x=1&'.repeat(1500)}y`,
  )
  const binary = fc.string({ unit: 'binary', maxLength: 60 }).map(encode)
  return fc.oneof(
    pair,
    junk,
    binary,
    fc.tuple(pair, pair).map((pairs) => pairs.join('&')),
  )
}

const hostileHeaders: Arbitrary<RequestHeaders> = fc
  .array(
    fc.oneof(
      fc
        .constantFrom(
          'text/plain',
          'application/xml',
          '',
          'application/json;',
          'application/json; charset=utf-16',
          ';',
          'a/b',
        )
        .map((value) => ['content-type', value] as const),
      fc
        .constantFrom(
          'application/jsonx',
          'APPLICATION/JSON',
          'multipart/form-data',
          'application/json,text/plain',
          'json',
        )
        .map((value) => ['content-type', value] as const),
      fc
        .tuple(
          fc.constantFrom(
            'if-match',
            'if-none-match',
            'idempotency-key',
            'last-event-id',
            'authorization',
            'x-request-id',
          ),
          fc.oneof(fc.string({ maxLength: 300 }), fc.constantFrom('"', 'W/"1"', '*', '\xff\xfe', 'a'.repeat(5000))),
        )
        .map(([name, value]) => [name, headerText(value)] as const),
      fc.constantFrom<readonly [string, string]>(
        ['accept', 'text/html;q=nonsense'],
        ['accept-encoding', 'gzip, br, nonsense'],
        ['content-encoding', 'gzip'],
        ['expect', '100-continue'],
        ['expect', 'nonsense'],
        ['upgrade', 'websocket'],
        ['range', 'bytes=0-0'],
        ['origin', 'https://evil.example'],
        ['host', 'evil.example'],
        ['sec-fetch-site', 'cross-site'],
        ['x-http-method-override', 'DELETE'],
        ['x-forwarded-for', '::::'],
        ['cookie', 'a=b;;;=;'],
        ['__proto__', 'x'],
        ['constructor', 'x'],
      ),
    ),
    { minLength: 1, maxLength: 4 },
  )
  .map((pairs) => Object.fromEntries(pairs))

function hostileBody(valid: Arbitrary<string | undefined>): Arbitrary<string | Buffer | undefined> {
  const text = valid.map((body) => body ?? '{}')
  const cut = fc.tuple(text, fc.nat()).map(([body, at]) => body.slice(0, at % Math.max(1, body.length)))
  const bytes = fc.uint8Array({ maxLength: 200 }).map((data) => Buffer.from(data))
  const fixed = fc.constantFrom(
    'null',
    'true',
    '0',
    '""',
    '[]',
    '   ',
    '{}',
    '{}{}',
    "{'a':1}",
    '{"a":1,}',
    'NaN',
    '[1e999]',
    '{"spec":1e999}',
    '{"spec":null,"spec":{}}',
    '{"__proto__":{"polluted":true}}',
    '{"constructor":{"prototype":{"polluted":true}}}',
    '{"spec":{"__proto__":null}}',
    '{"\\u0000":"\\ud800"}',
    '"\\ud800"',
    '\ufeff{}',
    '['.repeat(100_000),
    '['.repeat(100_000) + ']'.repeat(100_000),
    `${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}`,
    `{"metadata":{"labels":{${Array.from({ length: 2000 }, (_, i) => `"k${i}":"v"`).join(',')}}}}`,
    `{"spec":{"user_data":"${'A'.repeat(900_000)}"}}`,
    `{"spec":${'9'.repeat(100_000)}}`,
    `{"x":"${'x'.repeat(1_100_000)}"}`,
  )
  const wrapped = text.map((body) => `[${body}]`)
  const bom = text.map((body) => Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), Buffer.from(body)]))
  const utf16 = text.map((body) => Buffer.from(body, 'utf16le'))
  const doubled = text.map((body) =>
    body.startsWith('{') ? `${body.slice(0, -1)},${body.slice(1)}`.replace(',}', '}') : body,
  )
  return fc.oneof(cut, cut, bytes, fixed, fixed, fixed, wrapped, bom, utf16, doubled)
}
