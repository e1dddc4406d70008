import { mountsBelow } from '@berth/images/build.ts'
import { debianMirrors, renderAptConfiguration, renderSources } from '@berth/images/debian-packages.ts'
import { hostPackages } from '@berth/images/host-packages.ts'
import { librariesListed, modulePaths, parseModuleDependencies } from '@berth/images/micro.ts'
import { mmdebstrapArguments } from '@berth/images/mmdebstrap.ts'
import { describe, expect, test } from 'vitest'

const mirrors = { main: 'http://mirror.test/debian', security: 'http://mirror.test/debian-security' }

describe('the mirror', () => {
  test('is the given one before the one of the environment before Debian’s', () => {
    const env = { BERTH_DEBIAN_MIRROR: 'http://env.test/debian/' }
    expect(debianMirrors('http://mirror.test/debian/', env)).toEqual(mirrors)
    expect(debianMirrors(undefined, env).main).toBe('http://env.test/debian')
    expect(debianMirrors(undefined, {}).security).toBe('http://deb.debian.org/debian-security')
  })

  test('may keep its security fixes elsewhere', () => {
    expect(debianMirrors('http://a.test/d', { BERTH_DEBIAN_SECURITY_MIRROR: 'http://b.test/s' }).security).toBe(
      'http://b.test/s',
    )
  })

  test('is read for the suite, its updates and its security fixes', () => {
    expect(renderSources(mirrors, 'bookworm', 'signed-by=/key.gpg')).toEqual([
      'deb [signed-by=/key.gpg] http://mirror.test/debian bookworm main',
      'deb [signed-by=/key.gpg] http://mirror.test/debian bookworm-updates main',
      'deb [signed-by=/key.gpg] http://mirror.test/debian-security bookworm-security main',
    ])
  })
})

test('apt keeps to its directory and runs none of the host’s hooks', () => {
  const text = renderAptConfiguration('/work/apt')
  for (const line of text.split('\n').filter((line) => line.startsWith('Dir::') && !line.includes('/dev/null'))) {
    expect(line).toMatch(/^Dir::[A-Za-z:]+ "\/work\/apt\//)
  }
  expect(text).toContain('#clear APT::Update::Post-Invoke;')
})

test('mmdebstrap gets packages, hook, suite, root and sources as arguments of their own', () => {
  const argv = mmdebstrapArguments({
    suite: 'trixie',
    root: '/work/a b/root',
    packages: ['cloud-init', 'sudo'],
    mirrors,
    essentialHookPath: '/work/a b/essential-hook',
  })
  expect(argv).toContain('--include=cloud-init,sudo')
  expect(argv).toContain('--essential-hook=/work/a b/essential-hook')
  expect(argv.slice(-5, -3)).toEqual(['trixie', '/work/a b/root'])
})

test('the libraries of a program are read from the loader’s list', () => {
  const listed = [
    '\tlinux-vdso.so.1 (0x00007ffd)',
    '\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f00)',
    '\t/lib64/ld-linux-x86-64.so.2 (0x00007f01)',
    '',
  ].join('\n')
  expect(librariesListed(listed, '/bin/tool')).toEqual([
    '/lib/x86_64-linux-gnu/libc.so.6',
    '/lib64/ld-linux-x86-64.so.2',
  ])
})

test('a missing library is named with the program that needs it', () => {
  expect(() => librariesListed('\tlibz.so.1 => not found\n', '/bin/tool')).toThrow('/bin/tool needs libz.so.1')
})

test('modules come with what they need, each once, and built-in ones are skipped', () => {
  const dependencies = parseModuleDependencies(
    'kernel/a/virtio_pci.ko: kernel/a/virtio.ko kernel/a/virtio_ring.ko\nkernel/a/virtio.ko: kernel/a/virtio_ring.ko\nkernel/a/virtio_ring.ko:\nkernel/fs/nls-utf8.ko.xz:\n',
  )
  expect(modulePaths(dependencies, ['virtio_pci', 'virtio', 'nls_utf8', 'ext4'])).toEqual([
    'kernel/a/virtio_pci.ko',
    'kernel/a/virtio.ko',
    'kernel/a/virtio_ring.ko',
    'kernel/fs/nls-utf8.ko.xz',
  ])
})

test('mounts at or below a directory are found, whatever is in their names', () => {
  const mountinfo = [
    '21 1 8:1 / / rw - ext4 /dev/vda rw',
    '40 21 0:5 / /var/tmp/build-1/root/dev rw - devtmpfs udev rw',
    '41 21 0:6 / /var/tmp/build-1\\040x/proc rw - proc proc rw',
    '42 21 0:7 / /var/tmp/build-12/proc rw - proc proc rw',
    '',
  ].join('\n')
  expect(mountsBelow(mountinfo, '/var/tmp/build-1')).toEqual(['/var/tmp/build-1/root/dev'])
  expect(mountsBelow(mountinfo, '/var/tmp/build-1 x')).toEqual(['/var/tmp/build-1 x/proc'])
})

test('no recipe asks for a package that changes how the host boots or runs', () => {
  const names = Object.values(hostPackages).flatMap((packages) => packages.map((one) => one.name))
  for (const name of names) expect(name).not.toMatch(/^(linux-image|busybox|grub|dropbear|qemu-guest-agent|cloud-init)/)
})
