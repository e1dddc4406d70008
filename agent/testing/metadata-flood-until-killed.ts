import { connect } from 'node:net'

/**
 * A guest that gives the metadata service all the work it can: on 16 connections at a time it sends requests without
 * waiting for answers, and connects anew as soon as one ends.
 *
 *   node metadata-flood-until-killed.ts LOCAL-ADDRESS PORT
 */
const [localAddress = '', port] = process.argv.slice(2)
const requests = Buffer.from('GET /latest/meta-data/ HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(500))

function flood(): void {
  const socket = connect({ host: '127.0.0.1', port: Number(port), localAddress })
  const send = () => {
    while (socket.writable && socket.write(requests));
  }
  socket.once('connect', () => {
    process.send?.('flooding')
    send()
  })
  socket.on('drain', send)
  socket.on('error', () => undefined)
  socket.resume()
  socket.once('close', () => setTimeout(flood, 100)) // 160 a second: three times what the rules of a namespace let through
}

process.once('disconnect', () => process.exit())
for (let connection = 0; connection < 16; connection++) flood()
