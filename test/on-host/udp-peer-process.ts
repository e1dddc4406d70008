import { createSocket } from 'node:dgram'
import { setTimeout as delay } from 'node:timers/promises'

/**
 * One end of a stream of numbered datagrams, as a process of its own in a guest's network namespace.
 *
 *   node udp-peer-process.ts echo PORT             says "ready", then sends back what comes, until its input ends
 *   node udp-peer-process.ts send ADDRESS PORT     says "ready" with the first answer, sends one each 2 ms until its input ends,
 *                                          and prints { sent, answered } as JSON
 */
const [mode, ...args] = process.argv.slice(2)
const socket = createSocket('udp4')
const { promise: over, resolve: end } = Promise.withResolvers<void>()
process.stdin.resume().on('end', end)

if (mode === 'echo') {
  socket.on('message', (data, from) => socket.send(data, from.port, from.address))
  socket.bind(Number(args[0]), () => process.stdout.write('ready\n'))
  await over
} else {
  const [address = '', port = ''] = args
  const answered = new Set<number>()
  let sent = 0
  let stopped = false
  socket.on('message', (data) => {
    if (answered.size === 0) process.stdout.write('ready\n')
    answered.add(data.readUInt32BE())
  })
  void over.then(() => {
    stopped = true
  })
  const send = (number: number) => {
    const data = Buffer.alloc(64)
    data.writeUInt32BE(number)
    socket.send(data, Number(port), address)
  }
  while (answered.size === 0 && !stopped) {
    send(0) // until the way is there; it is not counted
    await delay(50)
  }
  while (!stopped) {
    send(++sent)
    await delay(2)
  }
  await delay(500)
  answered.delete(0)
  process.stdout.write(`${JSON.stringify({ sent, answered: answered.size })}\n`)
}
socket.close()
process.stdin.destroy()
