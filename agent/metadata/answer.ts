import type { IncomingHttpHeaders } from 'node:http'
import { parseReadyReport } from '../console/ready-marker.ts'
import type { SeedFiles } from '../disk/seed.ts'
import { isSeedSecret, issueToken, isToken, tokenSeconds } from './credentials.ts'
import { ec2Versions, lookUp, renderDynamic, renderMetaData } from './ec2-tree.ts'
import type { Guest, GuestDesk, RequestPart } from './guest.ts'
import type { MetadataKeys } from './keys.ts'

/** A request that has been read to its end. */
export interface MetadataRequest {
  method: string
  /** Path and query, as sent. */
  url: string
  headers: IncomingHttpHeaders
  body: Buffer
}

export interface MetadataAnswer {
  part: RequestPart
  status: number
  headers: Record<string, string>
  body: string | Buffer
}

/** What answers are made from. */
export interface AnswerSources {
  desk: GuestDesk
  keys: MetadataKeys
  renderSeed: (guest: Guest) => SeedFiles
  /** Milliseconds UTC. */
  now: () => number
}

const tokenHeader = 'x-aws-ec2-metadata-token'
const tokenTtlHeader = `${tokenHeader}-ttl-seconds`

/**
 * What a guest is answered. Nothing but its own data can be in it: all of it is rendered from `guest`, and tokens and
 * secrets are those of its instance (docs/metadata.md).
 */
export function answerGuest(request: MetadataRequest, guest: Guest, sources: AnswerSources): MetadataAnswer {
  const [path = ''] = request.url.split('?')
  const segments = path.split('/').filter((segment) => segment !== '')
  const part = partOf(segments)
  // somebody's proxy in the guest must not hand metadata to who asks it
  if (request.headers['x-forwarded-for'] !== undefined) return plain(part, 403)
  if (segments[0] === 'nocloud') return answerNocloud(request, segments, guest, sources)
  if (part === 'token') return answerToken(request, guest, sources)
  if (part === 'other' && segments.length > 0 && !isVersion(segments[0])) return plain(part, 404)
  if (!hasToken(request, guest, sources)) return plain(part, 401)
  if (part === 'ready') return answerReady(request, guest, sources)
  if (!isRead(request.method)) return plain(part, 405, { allow: 'GET, HEAD' })
  const body = readEc2(segments, guest, sources)
  return body === null ? plain(part, 404) : { part, status: 200, headers: textType, body }
}

/** Which part of the service a path belongs to. */
function partOf([first, second, third, ...rest]: readonly string[]): RequestPart {
  if (first === 'nocloud') return 'nocloud'
  if (first === 'berth') return second === 'v1' && third === 'ready' && rest.length === 0 ? 'ready' : 'other'
  if (!isVersion(first)) return 'other'
  if (second === 'api' && third === 'token' && rest.length === 0) return 'token'
  return second === 'meta-data' || second === 'user-data' || second === 'dynamic' ? second : 'other'
}

function answerToken(request: MetadataRequest, guest: Guest, { keys, now }: AnswerSources): MetadataAnswer {
  if (request.method !== 'PUT') return plain('token', 405, { allow: 'PUT' })
  const text = request.headers[tokenTtlHeader]
  const seconds = typeof text === 'string' && /^\d{1,5}$/.test(text) ? Number(text) : 0
  if (seconds < tokenSeconds.least || seconds > tokenSeconds.most) return plain('token', 400)
  const body = issueToken(keys.token, guest.instance.id, Math.floor(now() / 1000) + seconds)
  return { part: 'token', status: 200, headers: { ...textType, [tokenTtlHeader]: String(seconds) }, body }
}

function hasToken(request: MetadataRequest, guest: Guest, { keys, now }: AnswerSources): boolean {
  const token = request.headers[tokenHeader]
  return typeof token === 'string' && isToken(keys.token, guest.instance.id, token, now() / 1000)
}

/** What is at a path of EC2's interface; null when there is nothing. */
function readEc2([version, part, ...rest]: readonly string[], guest: Guest, sources: AnswerSources) {
  const { desk, keys } = sources
  if (version === undefined) return ec2Versions.join('\n')
  switch (part) {
    case undefined:
      return ['dynamic', 'meta-data', ...(guest.instance.user_data === '' ? [] : ['user-data'])].join('\n')
    case 'meta-data':
      return lookUp(renderMetaData(guest, desk.hostId), rest)
    case 'dynamic':
      return lookUp(renderDynamic(guest, desk.hostId, keys), rest)
    case 'user-data': {
      const { user_data: userData } = guest.instance
      return userData === '' || rest.length > 0 ? null : Buffer.from(userData, 'base64')
    }
    default:
      return null
  }
}

/** The files of the guest's seed, for cloud-init's NoCloud, which knows a URL and no token. */
function answerNocloud(
  request: MetadataRequest,
  [, secret = '', file = '', ...rest]: readonly string[],
  guest: Guest,
  sources: AnswerSources,
): MetadataAnswer {
  if (!isSeedSecret(sources.keys.nocloud, guest.instance.id, secret) || rest.length > 0) return plain('nocloud', 404)
  if (!isRead(request.method)) return plain('nocloud', 405, { allow: 'GET, HEAD' })
  const files = sources.renderSeed(guest)
  if (!Object.hasOwn(files, file)) return plain('nocloud', 404)
  return { part: 'nocloud', status: 200, headers: textType, body: files[file as keyof SeedFiles] }
}

/** The guest's own word that its first boot is over; it says the same on its serial line. */
function answerReady(request: MetadataRequest, guest: Guest, { desk }: AnswerSources): MetadataAnswer {
  if (request.method !== 'POST') return plain('ready', 405, { allow: 'POST' })
  const marker = parseReadyReport(request.body)
  if (marker === null) return plain('ready', 400)
  desk.ready(guest.instance.id, marker)
  return { part: 'ready', status: 204, headers: {}, body: '' }
}

const textType = { 'content-type': 'text/plain; charset=utf-8' }

const words: Record<number, string> = {
  400: 'bad request',
  401: 'a token is needed: PUT /latest/api/token',
  403: 'requests are not taken through a proxy',
  404: 'not found',
  405: 'method not allowed',
}

function plain(part: RequestPart, status: number, headers: Record<string, string> = {}): MetadataAnswer {
  return { part, status, headers: { ...textType, ...headers }, body: `${words[status] ?? ''}\n` }
}

const isRead = (method: string) => method === 'GET' || method === 'HEAD'

function isVersion(segment: string | undefined): boolean {
  return ec2Versions.some((version) => version === segment)
}
