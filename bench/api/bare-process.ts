import { once } from 'node:events'
import { createServer } from 'node:http'
import { serveParent } from './child.ts'

/** An answer as `node:http` takes it. */
export interface BareArgument {
  headers: Record<string, string>
  body: string
}

/** The least that `node:http` can do: the same headers and the same body to every request. */
await serveParent<BareArgument>(async ({ headers, body }) => {
  const server = createServer((_request, response) => {
    response.writeHead(200, headers)
    response.end(body)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return {
    ready: { url: `http://127.0.0.1:${port}` },
    answers: {},
    stop: async () => server.closeAllConnections(),
  }
})
