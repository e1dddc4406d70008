import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import type { DebianMirrors } from './recipe.ts'

/** The keys of the Debian archive, where the package debian-archive-keyring puts them. */
export const archiveKeyring = '/usr/share/keyrings/debian-archive-keyring.gpg'
const downloadTimeoutMs = 15 * 60_000

/** The Debian mirrors to use: an explicit one, else BERTH_DEBIAN_MIRROR, else Debian's own. */
export function debianMirrors(mirror: string | undefined, env: NodeJS.ProcessEnv = process.env): DebianMirrors {
  const main = (mirror ?? env.BERTH_DEBIAN_MIRROR ?? 'http://deb.debian.org/debian').replace(/\/+$/, '')
  const security = (env.BERTH_DEBIAN_SECURITY_MIRROR ?? `${main}-security`).replace(/\/+$/, '')
  return { main, security }
}

/** The lines of a sources.list for one suite, its updates and its security fixes; `options` go into the brackets. */
export function renderSources(mirrors: DebianMirrors, suite: string, options = ''): string[] {
  const deb = options === '' ? 'deb' : `deb [${options}]`
  return [
    `${deb} ${mirrors.main} ${suite} main`,
    `${deb} ${mirrors.main} ${suite}-updates main`,
    `${deb} ${mirrors.security} ${suite}-security main`,
  ]
}

/**
 * The configuration that keeps apt inside `directory`. The host's own configuration is read first (a proxy set there
 * must work), so its hooks, which are about the host, are cleared.
 */
export function renderAptConfiguration(directory: string): string {
  const hooks = ['Pre-Invoke', 'Post-Invoke', 'Post-Invoke-Success']
  return [
    ...hooks.map((hook) => `#clear APT::Update::${hook};`),
    `Dir::Etc::SourceList "${join(directory, 'sources.list')}";`,
    'Dir::Etc::SourceParts "/dev/null";',
    `Dir::State "${join(directory, 'state')}";`,
    `Dir::State::Status "${join(directory, 'status')}";`,
    `Dir::Cache "${join(directory, 'cache')}";`,
    'APT::Architecture "amd64";',
    '#clear APT::Architectures;',
    'APT::Architectures { "amd64"; };',
    // The directory is root's alone, so the unprivileged download user of apt could not write there.
    'APT::Sandbox::User "root";',
    'Acquire::Languages "none";',
    'Acquire::Retries "3";',
    '',
  ].join('\n')
}

/** An apt of our own, beside the host's: nothing is installed and the host's package lists stay as they are. */
export class DebianPackages {
  readonly #directory: string
  readonly #signal: AbortSignal

  private constructor(directory: string, signal: AbortSignal) {
    this.#directory = directory
    this.#signal = signal
  }

  /** Fetch the signed package lists of a suite into `directory`, which is made. */
  static async open(
    directory: string,
    mirrors: DebianMirrors,
    suite: string,
    signal: AbortSignal,
  ): Promise<DebianPackages> {
    for (const name of ['state/lists/partial', 'cache/archives/partial', 'packages']) {
      await mkdir(join(directory, name), { recursive: true })
    }
    await writeFile(join(directory, 'status'), '')
    const sources = renderSources(mirrors, suite, `signed-by=${archiveKeyring}`)
    await writeFile(join(directory, 'sources.list'), `${sources.join('\n')}\n`)
    await writeFile(join(directory, 'apt.conf'), renderAptConfiguration(directory))
    const packages = new DebianPackages(directory, signal)
    // "any": a mirror that cannot be reached is an error, not a warning followed by stale lists.
    await packages.#apt('apt-get', ['update', '--error-on=any'])
    return packages
  }

  /** The names of a package's direct dependencies, for packages that only point to the current version. */
  async dependencies(name: string): Promise<string[]> {
    const { stdout } = await this.#apt('apt-cache', ['depends', name])
    return [...stdout.matchAll(/^\s*Depends: (\S+)$/gm)].flatMap((match) => match[1] ?? [])
  }

  /** Download exactly these packages, without what they depend on, and unpack them into `root`. */
  async extract(names: readonly string[], root: string): Promise<void> {
    const store = join(this.#directory, 'packages')
    await this.#apt('apt-get', ['download', ...names], store)
    await mkdir(root, { recursive: true })
    for (const file of (await readdir(store)).filter((name) => name.endsWith('.deb')).sort()) {
      await runCommand(['dpkg-deb', '--extract', join(store, file), root], { signal: this.#signal, timeoutMs: 120_000 })
    }
  }

  #apt(program: string, args: readonly string[], cwd: string = this.#directory) {
    return runCommand([program, '--config-file', join(this.#directory, 'apt.conf'), ...args], {
      cwd,
      signal: this.#signal,
      timeoutMs: downloadTimeoutMs,
      env: { ...process.env, LC_ALL: 'C.UTF-8' },
    })
  }
}
