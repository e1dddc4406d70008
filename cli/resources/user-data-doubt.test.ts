import { gzipSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { userDataDoubt } from './user-data-doubt.ts'

const config = '#cloud-config\nruncmd: [echo it ran]\n'

test.each([
  ['nothing', ''],
  ['white space', ' \n\n'],
  ['a script', '#!/bin/sh\n'],
  ['a script with Windows line ends', '#!/bin/sh\r\necho\r\n'],
  ['a cloud-config', config],
  ['a cloud-config in capitals, behind an empty line', '\n#Cloud-Config\n{}\n'],
  ['a cloud-config whose first line goes on', '#cloud-config for web-1\n{}\n'],
  ['an archive', '#cloud-config-archive\n- {}\n'],
  ['an include', '#include\nhttps://example.com/\n'],
  ['a template', '## template: jinja\n#cloud-config\n{}\n'],
  ['a boothook', '#cloud-boothook\n#!/bin/sh\n'],
  ['a MIME message', 'Content-Type: multipart/mixed; boundary="x"\nMIME-Version: 1.0\n\n--x--\n'],
])('%s is not doubted, nor is it when it is packed', (_, text) => {
  expect(userDataDoubt(Buffer.from(text))).toBeNull()
  expect(userDataDoubt(gzipSync(text))).toBeNull()
})

test.each([
  ['a byte order mark', `\ufeff${config}`, /byte order mark/],
  ['base64', Buffer.from(config).toString('base64'), /base64 already/],
  [
    'base64 in lines',
    Buffer.from('#!/bin/sh\necho a longer line\n').toString('base64').replace(/.{16}/g, '$&\n'),
    /base64/,
  ],
  ['a document that another line begins', `---\n${config}`, /not as its first line/],
  ['a line before MIME headers are over', `HTTP/1.1 200 OK\n\n${config}`, /not as its first line/],
  [
    'a comment that only looks like it',
    '# cloud-config\nruncmd: []\n',
    /no form that cloud-init knows: .*#cloud-config/,
  ],
  ['JSON', '{"runcmd":[]}', /no form/],
  ['the name of a file', '@cloud-config.yaml\n', /no form/],
  ['PowerShell', '<powershell>\n</powershell>\n', /no form/],
  ['a script behind an empty line', '\n#!/bin/sh\n', /white space before #!/],
])('%s is doubted', (_, text, doubt) => {
  expect(userDataDoubt(Buffer.from(text))).toMatch(doubt)
})

test('UTF-16 and torn gzip are doubted', () => {
  expect(userDataDoubt(Buffer.from(`\ufeff${config}`, 'utf16le'))).toMatch(/UTF-16/)
  expect(userDataDoubt(gzipSync(config).subarray(0, 30))).toMatch(/cannot be unpacked/)
  // as a program writes gzip that takes it for text
  expect(userDataDoubt(Buffer.from(gzipSync(config).toString('latin1'), 'utf8'))).toMatch(/no form/)
})

test('what unpacks to gigabytes costs little', () => {
  expect(userDataDoubt(gzipSync(Buffer.alloc(32 * 1024 ** 2)))).toMatch(/cannot be unpacked/)
})
