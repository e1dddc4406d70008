// A tiny process for the test that kills one: publishes a disk as the image `killed` and kills itself at a point.
// Arguments: directory, partial file in it, point.
import { publishImage } from '../image/files.ts'

const [directory = '', partial = '', point = ''] = process.argv.slice(2)
const about = {
  id: 'killed',
  title: 'Killed',
  min_disk_gb: 1,
  architecture: 'x86_64',
  default_user: 'debian',
  network: 'static',
  origin: 'built',
  source_url: '',
} as const
await publishImage(directory, partial, about, {
  reached: (reached) => {
    if (reached === point) process.kill(process.pid, 'SIGKILL')
  },
})
