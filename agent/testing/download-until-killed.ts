// A tiny process for the test that kills one: ensures an image and writes every progress as a line.
// Arguments: directory, URL, SHA-256.
import pino from 'pino'
import { ImageStore } from '../image/store.ts'

const [directory = '', url = '', sha256 = ''] = process.argv.slice(2)
const store = new ImageStore({
  directory,
  log: pino({ level: 'silent' }),
  clock: { now: () => Date.now() },
  allowPrivateSources: ['127.0.0.1'],
})
await store.ensure(
  {
    id: 'killed',
    title: 'Killed',
    min_disk_gb: 1,
    architecture: 'x86_64',
    default_user: 'debian',
    network: 'static',
    source_url: url,
    checksum: `sha256:${sha256}`,
  },
  {
    signal: AbortSignal.timeout(60_000),
    onProgress: ({ receivedBytes }) => process.stdout.write(`${receivedBytes}\n`),
  },
)
