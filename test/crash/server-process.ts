// A tiny process for the tests that kill one: the server alone, until SIGTERM. Argument: JSON of ServerProcessOptions.
import type { Settings } from '@berth/server/config.ts'
import { startServer } from '@berth/server/main.ts'
import { pino } from 'pino'
import { loadInstanceTypes } from '../../bin/catalogues.ts'
import { testImages } from '../stack.ts'

export interface ServerProcessOptions {
  port: number
  databaseFile: string
  hostId: string
  credential: string
  settings?: Partial<Settings>
}

const options: ServerProcessOptions = JSON.parse(process.argv[2] ?? '{}')
const server = await startServer(
  {
    listen: { host: '127.0.0.1', port: options.port },
    database: options.databaseFile,
    hosts: [{ hostId: options.hostId, credential: options.credential }],
    images: testImages,
    instanceTypes: await loadInstanceTypes(),
    settings: options.settings ?? {},
  },
  pino({ level: 'error' }, pino.destination({ fd: 2, sync: true })),
)
process.once('SIGTERM', () => void server.stop())
