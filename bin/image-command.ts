import { basename, resolve } from 'node:path'
import { CliError, exitCodes } from '@berth/cli/exit-codes.ts'
import { imageIdPattern } from '@berth/contract/ids.ts'
import { readyTimeoutSeconds } from '@berth/contract/images/bounds.ts'
import { hostPackages } from '@berth/images/host-packages.ts'
import { recipeIds } from '@berth/images/recipe.ts'
import { Argument, type Command, InvalidArgumentError, Option } from 'commander'
import { ensurePackages } from './host-packages.ts'
import { interruption } from './process/interruption.ts'

const dataDirOption = () =>
  new Option('--data-dir <dir>', 'data directory of the host').env('BERTH_DATA_DIR').default('./.berth')

/** `berth image build` and `berth image import`: what is done on the host itself, beside a running agent. */
export function addHostImageCommands(image: Command): void {
  image
    .command('build')
    .description('build an image from Debian packages on this host; installs what that takes. Needs root')
    .addHelpText(
      'after',
      '\nExamples:\n  berth image build debian-12\n  sudo berth image build micro --data-dir /var/lib/berth',
    )
    .addArgument(new Argument('<recipe>').choices(recipeIds))
    .addOption(dataDirOption())
    .addOption(new Option('--mirror <url>', 'Debian mirror to take packages from').env('BERTH_DEBIAN_MIRROR'))
    .action(async (recipe: (typeof recipeIds)[number], flags: { dataDir: string; mirror?: string }) => {
      if (process.getuid?.() !== 0) {
        throw new CliError(exitCodes.needsRoot, `building an image needs root: sudo berth image build ${recipe}`)
      }
      await ensurePackages(hostPackages[recipe], { say: (line) => process.stderr.write(`${line}\n`) })
      const { buildImage } = await import('@berth/images/build.ts')
      const built = await buildImage(recipe, {
        imagesDirectory: await imagesOf(flags.dataDir),
        signal: interruption(),
        onProgress: ({ step, detail, seconds }) =>
          process.stderr.write(
            `${seconds.toFixed(1).padStart(6)} s  ${step}${detail === undefined ? '' : ` (${detail})`}\n`,
          ),
        ...(flags.mirror === undefined ? {} : { mirror: flags.mirror }),
      })
      process.stdout.write(`${built.id}: ${(built.size_bytes / 1e6).toFixed(1)} MB, sha256 ${built.sha256}\n`)
    })

  image
    .command('import')
    .description('take a qcow2 or raw disk image into this host')
    .addHelpText(
      'after',
      '\nExamples:\n  berth image import disk.qcow2 --id my-image --default-user admin --min-disk-gb 10',
    )
    .argument('<file>', 'the disk image')
    .addOption(new Option('--id <id>', 'id of the image').argParser(parseImageId).makeOptionMandatory())
    .option('--title <text>', 'what people see')
    .option('--default-user <name>', 'account that gets the SSH keys', 'root')
    .addOption(
      new Option('--network <how>', 'how the guest is told its address').choices(['static', 'dhcp']).default('static'),
    )
    .addOption(
      new Option('--datasource <where>', 'where the guest finds its seed: a disk of its own, or the metadata service')
        .choices(['disk', 'network'])
        .default('disk'),
    )
    .option('--min-disk-gb <n>', 'smallest disk it fits on, GiB', parseGib)
    .option(
      '--ready-timeout-seconds <n>',
      `time its guests have for their first boot; ${readyTimeoutSeconds.default} when absent`,
      parseSeconds,
    )
    .addOption(dataDirOption())
    .action(async (file: string, flags: ImportFlags) => {
      const { importImage } = await import('@berth/agent/image/files.ts')
      const imported = await importImage(
        resolve(file),
        {
          id: flags.id,
          title: flags.title ?? basename(file),
          default_user: flags.defaultUser,
          network: flags.network,
          datasource: flags.datasource,
          ...(flags.minDiskGb === undefined ? {} : { min_disk_gb: flags.minDiskGb }),
          ...(flags.readyTimeoutSeconds === undefined ? {} : { ready_timeout_seconds: flags.readyTimeoutSeconds }),
        },
        await imagesOf(flags.dataDir),
        { signal: interruption() },
      )
      if (imported.firmware === 'uefi') {
        process.stderr.write(
          `${imported.id} boots by UEFI only, which instances do not have: a create with it is refused\n`,
        )
      }
      process.stdout.write(`${imported.id}: ${(imported.size_bytes / 1e6).toFixed(1)} MB, sha256 ${imported.sha256}\n`)
    })
}

interface ImportFlags {
  id: string
  title?: string
  defaultUser: string
  network: 'static' | 'dhcp'
  datasource: 'disk' | 'network'
  minDiskGb?: number
  readyTimeoutSeconds?: number
  dataDir: string
}

async function imagesOf(dataDir: string): Promise<string> {
  const { dataPaths } = await import('./data-directory.ts')
  return dataPaths(resolve(dataDir)).images
}

function parseImageId(text: string): string {
  if (!new RegExp(imageIdPattern).test(text)) throw new InvalidArgumentError(`must match ${imageIdPattern}`)
  return text
}

function parseGib(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1 || value > 65_536) throw new InvalidArgumentError('must be a number of GiB')
  return value
}

function parseSeconds(text: string): number {
  const value = Number(text)
  const { minimum, maximum } = readyTimeoutSeconds
  if (!Number.isInteger(value) || value < minimum || value > maximum) {
    throw new InvalidArgumentError(`must be a number of seconds from ${minimum} to ${maximum}`)
  }
  return value
}
