import { createServer } from 'node:net'

/**
 * A program that the agent starts inside a namespace: listens at an address and hands the socket to its parent. A socket
 * stays in the namespace it was opened in, so the agent then serves there from outside.
 *
 *   nsenter --net=/run/netns/NAME -- node open-listener.ts ADDRESS PORT
 */
const [host, port] = process.argv.slice(2)
const server = createServer({ pauseOnConnect: true })
server.once('error', (error: NodeJS.ErrnoException) => {
  process.send?.({ error: error.message }, () => process.exit(1))
})
server.listen({ host, port: Number(port) }, () => {
  process.send?.({ error: null }, server, () => process.exit(0))
})
