import { type Command, InvalidArgumentError, Option } from 'commander'
import type { DevFlags } from './flags.ts'
import { parseInterface, parsePublicPool } from './public-network.ts'
import { parseStepDeadlines } from './step-deadlines.ts'

/** `berth dev`: everything on this machine in one process. */
export function addDevCommand(program: Command): void {
  program
    .command('dev')
    .description('run server and agent for this machine in the foreground')
    .addOption(
      new Option('--listen <host:port>', 'address of the API; loopback only, it needs no token')
        .env('BERTH_LISTEN')
        .argParser(parseListen)
        .default({ host: '127.0.0.1', port: 7480 }, '127.0.0.1:7480'),
    )
    .addOption(
      new Option(
        '--data-dir <dir>',
        'where state, images and disks are kept (default: ./.berth, or ./.berth-simulated)',
      ).env('BERTH_DATA_DIR'),
    )
    .addOption(
      new Option('--hypervisor <name>', 'simulated runs no real machines; it is for tests and development')
        .env('BERTH_HYPERVISOR')
        .choices(['qemu', 'simulated'])
        .default('qemu'),
    )
    .addOption(
      new Option('--database <url>', 'state in a PostgreSQL database (postgres://…) instead of the data directory')
        .env('BERTH_DATABASE')
        .argParser(parseDatabase),
    )
    .addOption(new Option('--image-catalogue <file>', 'images that can be had').env('BERTH_IMAGE_CATALOGUE'))
    .addOption(
      new Option(
        '--allow-private-image-sources',
        'download images also from loopback, link-local and shared addresses, and those of this host',
      )
        .env('BERTH_ALLOW_PRIVATE_IMAGE_SOURCES')
        .default(false),
    )
    .addOption(
      new Option(
        '--public-pool <name=cidr>',
        'public addresses for instances, as office=203.0.113.0/24; may be repeated (default: a /20 of 198.18.0.0/15)',
      )
        .env('BERTH_PUBLIC_POOL')
        .argParser(parsePublicPool),
    )
    .addOption(
      new Option(
        '--public-interface <name>',
        'interface to announce the public addresses on, as eth0; without it only this host reaches them',
      )
        .env('BERTH_PUBLIC_INTERFACE')
        .argParser(parseInterface),
    )
    .addOption(
      new Option('--step-deadlines <step=seconds,…>', 'how long a step may take on this host, such as boot=60,disk=120')
        .env('BERTH_STEP_DEADLINES')
        .argParser(parseStepDeadlines),
    )
    .addOption(
      new Option('--log-level <level>', 'what is logged, as JSON on standard error')
        .env('BERTH_LOG_LEVEL')
        .choices(['debug', 'info', 'warn', 'error', 'silent'])
        .default('warn'),
    )
    .option('--down', 'stop a running berth dev, delete all instances and all it made on this machine', false)
    .option('--purge', 'with --down: remove database, keys and images as well', false)
    .addHelpText(
      'after',
      `\nExamples:\n  berth dev\n  berth dev --listen 127.0.0.1:8000 --data-dir /var/lib/berth\n  berth dev --public-pool office=192.168.1.192/27 --public-interface eth0\n  berth dev --down`,
    )
    .action(async (given: Omit<DevFlags, 'dataDir'> & { dataDir?: string }) => {
      // real and simulated machines never share a directory
      const usual = given.hypervisor === 'simulated' ? './.berth-simulated' : './.berth'
      const flags = { ...given, dataDir: given.dataDir ?? usual }
      const { down, up } = await import('./run.ts') // server and agent are loaded for this command only
      process.exitCode = flags.down ? await down(flags) : await up(flags)
    })
}

function parseListen(text: string): { host: string; port: number } {
  const match = /^(127\.0\.0\.1|localhost|\[::1\]):(\d{1,5})$/.exec(text)
  const port = Number(match?.[2])
  if (match?.[1] === undefined || port > 65_535) {
    throw new InvalidArgumentError('must be 127.0.0.1:PORT, localhost:PORT or [::1]:PORT: there are no tokens yet.')
  }
  return { host: match[1] === '[::1]' ? '::1' : match[1], port }
}

function parseDatabase(text: string): string {
  if (!/^postgres(ql)?:\/\/./.test(text) || !URL.canParse(text)) {
    throw new InvalidArgumentError('must be a URL such as postgres://user@host/database; without it SQLite is used.')
  }
  return text
}
