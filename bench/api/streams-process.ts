import { serveParent } from './child.ts'
import { StreamClient } from './stream-client.ts'

export interface StreamsArgument {
  url: string
  streams: number
}

/** What the streams have received; times are milliseconds UTC. */
export interface StreamsReport {
  /** Streams that have every event from the first to the last that were asked for, in order. */
  whole: number
  events: number
  bytes: number
  /** When the slowest stream had the last event. */
  lastAt: number
}

/** Many clients of the event stream. */
await serveParent<StreamsArgument>(async ({ url, streams }) => {
  const clients: StreamClient[] = []
  for (let n = 0; n < streams; n++) clients.push(await StreamClient.open(url))
  return {
    ready: {},
    answers: {
      received: async ({ first, last }: { first: number; last: number }): Promise<StreamsReport> => {
        await Promise.all(clients.map((client) => client.has(last)))
        return {
          whole: clients.filter((client) => client.hasAll(first, last)).length,
          events: clients.reduce((sum, client) => sum + client.events, 0),
          bytes: clients.reduce((sum, client) => sum + client.bytes, 0),
          lastAt: Math.max(...clients.map((client) => client.lastAt)),
        }
      },
    },
    stop: async () => {
      for (const client of clients) client.close()
    },
  }
})
