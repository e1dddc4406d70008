import { expect, test } from 'vitest'
import { checkResponse, type ReceivedResponse } from './responses.ts'

const id = 'vpc-abc123'
const vpc = {
  id,
  metadata: { name: 'a', labels: {}, created_at: '2026-01-02T03:04:05Z', generation: 1 },
  spec: { cidr: '10.0.0.0/16' },
  status: { subnets: 0, instances: 0 },
}
const requestId = 'req-00000000000000000000'
const problem = {
  type: 'urn:berth:problem:not_found',
  title: 'There is no such resource',
  status: 404,
  detail: 'There is no VPC.',
  code: 'not_found',
  request_id: requestId,
  errors: [],
}

const sent = { date: 'Thu, 01 Jan 2026 00:00:00 GMT', 'x-request-id': requestId }

function answer(status: number, body: object | string, headers: Record<string, string> = {}): ReceivedResponse {
  const type = status < 400 ? 'application/json; charset=utf-8' : 'application/problem+json'
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  return { status, headers: { ...sent, 'content-type': type, ...headers }, text }
}

const created = { location: `/v1/vpcs/${id}` }
test.each<[string, string, string, ReceivedResponse]>([
  ['a document', 'GET', `/v1/vpcs/${id}`, answer(200, vpc)],
  ['a path whose letters are encoded', 'GET', '/v1/v%70cs/x?', answer(404, problem)],
  ['what was created', 'POST', '/v1/vpcs', answer(201, vpc, created)],
  ['an error of the route', 'GET', `/v1/vpcs/${id}`, answer(404, problem)],
  ['no body', 'DELETE', `/v1/vpcs/${id}`, { status: 204, headers: sent, text: '' }],
  ['the head of a document', 'HEAD', `/v1/vpcs/${id}`, answer(200, '')],
  ['a route that does not exist', 'GET', '/v1/nothing', answer(404, { ...problem, code: 'route_not_found' })],
])('%s is allowed', (_name, method, path, response) => {
  expect(() => checkResponse(method, path, response)).not.toThrow()
})

const noDate = answer(404, problem)
delete noDate.headers.date
const noRequestId = answer(200, vpc)
delete noRequestId.headers['x-request-id']
test.each<[string, string, string, ReceivedResponse, RegExp]>([
  ['a status', 'GET', `/v1/vpcs/${id}`, answer(202, vpc), /answered with 202, which openapi.json does not list/],
  ['an error', 'GET', `/v1/vpcs/${id}`, answer(409, problem), /409, which openapi.json does not list/],
  ['a code', 'GET', `/v1/vpcs/${id}`, answer(404, { ...problem, code: 'in_use' }), /code must be equal to one of/],
  ['a field', 'GET', `/v1/vpcs/${id}`, answer(200, { ...vpc, owner: 'x' }), /additional properties/],
  ['an id', 'GET', `/v1/vpcs/${id}`, answer(200, { ...vpc, id: 'x' }), /id must match pattern/],
  [
    'a date that does not exist',
    'GET',
    `/v1/vpcs/${id}`,
    answer(200, { ...vpc, metadata: { ...vpc.metadata, created_at: '2026-02-30T03:04:05Z' } }),
    /created_at must match format/,
  ],
  [
    'a content type',
    'GET',
    `/v1/vpcs/${id}`,
    answer(200, vpc, { 'content-type': 'text/html' }),
    /content type text\/html/,
  ],
  ['text that is not JSON', 'GET', `/v1/vpcs/${id}`, answer(200, '{'), /not JSON/],
  ['a header', 'GET', `/v1/vpcs/${id}`, answer(200, vpc, { server: 'x' }), /with the header server/],
  ['a missing header', 'POST', '/v1/vpcs', answer(201, vpc), /without the header location/],
  ['a missing request id', 'GET', `/v1/vpcs/${id}`, noRequestId, /without the header x-request-id/],
  ['a wrong header', 'POST', '/v1/vpcs', answer(201, vpc, { location: 'x' }), /header location breaks/],
  ['an error without a date', 'GET', `/v1/vpcs/${id}`, noDate, /only a parser/],
  ['a body with a 204', 'DELETE', `/v1/vpcs/${id}`, answer(204, '{}'), /should not have/],
  ['an answer of a path that is not listed', 'GET', '/v1/secrets', answer(200, {}), /no such path and method/],
  ['one of a method that is not listed', 'PUT', '/v1/vpcs', answer(404, problem), /not_found, where openapi.json/],
])('%s that the document does not list is refused', (_name, method, path, response, message) => {
  expect(() => checkResponse(method, path, response)).toThrow(message)
})
