import Fastify from 'fastify'
import { pino } from 'pino'
import { expect, test, vi } from 'vitest'
import { defaultLimits } from '../limits.ts'
import { enforceLimits } from './connection-limits.ts'

test('an answer that the kernel takes at once gets no timer of its own', async () => {
  const app = Fastify()
  const stalledAnswerMs = 12_345
  enforceLimits(app, { ...defaultLimits, stalledAnswerMs }, pino({ level: 'silent' }))
  const timers: number[] = []
  app.get('/:bytes', async (request) => {
    const { socket } = request.raw
    vi.spyOn(socket, 'setTimeout').mockImplementation((ms) => {
      timers.push(ms)
      return socket
    })
    return 'x'.repeat(Number((request.params as { bytes: string }).bytes))
  })
  try {
    const url = await app.listen({ host: '127.0.0.1', port: 0 })
    expect((await (await fetch(`${url}/1000`)).text()).length).toBe(1000)
    expect(timers).not.toContain(stalledAnswerMs)
    const large = 64 * 1024 * 1024 // more than the kernel's buffers take
    expect((await (await fetch(`${url}/${large}`)).text()).length).toBe(large)
    expect(timers).toContain(stalledAnswerMs)
  } finally {
    await app.close()
  }
})
