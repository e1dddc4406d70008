import { dirname } from 'node:path'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { archiveKeyring, renderSources } from './debian-packages.ts'
import type { DebianMirrors } from './recipe.ts'

export interface MmdebstrapOptions {
  suite: string
  root: string
  packages: readonly string[]
  mirrors: DebianMirrors
  /** An executable run with the root as its argument before the named packages are installed. */
  essentialHookPath: string
  /** Called with each line in which mmdebstrap says what it does. */
  onProgress: (line: string) => void
  signal: AbortSignal
}

/** Where mmdebstrap leaves the options it was given; they are about the build and not for the guest. */
export const mmdebstrapLeftovers: readonly string[] = [
  'etc/apt/apt.conf.d/99mmdebstrap',
  'etc/dpkg/dpkg.cfg.d/99mmdebstrap',
]

/** The command line that installs a Debian tree. Pure. */
export function mmdebstrapArguments(options: Omit<MmdebstrapOptions, 'onProgress' | 'signal'>): string[] {
  const aptOptions = [
    'APT::Install-Recommends "false"',
    'Acquire::Languages "none"',
    'Acquire::Retries "3"',
    // The work directory is root's alone, so the unprivileged download user of apt could not reach it.
    'APT::Sandbox::User "root"',
  ]
  const dpkgOptions = [
    'path-exclude=/usr/share/man/*',
    'path-exclude=/usr/share/info/*',
    'path-exclude=/usr/share/doc/*',
    'path-include=/usr/share/doc/*/copyright',
    'path-exclude=/usr/share/locale/*',
    'path-include=/usr/share/locale/locale.alias',
    'force-unsafe-io',
  ]
  return [
    ...['mmdebstrap', '--mode=root', '--variant=minbase', '--architectures=amd64', '--format=directory'],
    `--include=${options.packages.join(',')}`,
    ...aptOptions.map((option) => `--aptopt=${option}`),
    ...dpkgOptions.map((option) => `--dpkgopt=${option}`),
    `--essential-hook=${options.essentialHookPath}`,
    options.suite,
    options.root,
    ...renderSources(options.mirrors, options.suite, `signed-by=${archiveKeyring}`),
  ]
}

/**
 * Install a Debian tree with mmdebstrap in mount and process namespaces of its own: its mounts never show on the host,
 * and when it is killed half-way, everything it started dies with it and the mounts are gone.
 */
export async function runMmdebstrap(options: MmdebstrapOptions): Promise<void> {
  const namespaces = ['unshare', '--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child']
  await runCommand([...namespaces, ...mmdebstrapArguments(options)], {
    signal: options.signal,
    timeoutMs: 45 * 60_000,
    // its temporary files go with the build's own directory, also when it is killed
    env: { ...process.env, LC_ALL: 'C.UTF-8', TMPDIR: dirname(options.root) },
    onLine: (line) => {
      if (line.startsWith('I: ')) options.onProgress(line.slice(3))
    },
  })
}
