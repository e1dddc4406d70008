/*
 * Loaded before every test file: what a Berth server answers to `fetch`, which the SDK and so the CLI use, must be what
 * openapi.json promises, as with Stack.api. Only a Berth server sends x-request-id. The agent's own requests are left
 * out: they are hidden from the document, and an error would only make the agent try again.
 */
const plainFetch = globalThis.fetch

globalThis.fetch = async (input, init) => {
  const response = await plainFetch(input, init)
  const { pathname, search } = new URL(response.url)
  const streams = response.headers.get('content-type')?.startsWith('text/event-stream') === true
  if (!response.headers.has('x-request-id') || pathname.startsWith('/v1/agent/') || streams) return response
  const copy = response.clone()
  const text = await copy.text().catch(() => null)
  if (text === null) return response // it was cut short, which the caller will find out
  // only where it is needed: most test files fetch nothing
  const { checkResponse } = await import('./openapi/responses.ts')
  const method = init?.method ?? (input instanceof Request ? input.method : 'GET')
  checkResponse(method.toUpperCase(), pathname + search, {
    status: response.status,
    headers: Object.fromEntries(response.headers),
    text,
  })
  return response
}
