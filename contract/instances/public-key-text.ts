export interface KeyParts {
  type: string
  /** Of the blob, with its padding. */
  base64: string
  /** All of it in the form in which a key is stored, shown and handed to guests: one space between the parts. */
  line: string
}

/**
 * The parts of a public key line, whose key is not looked at. A file may have spaces and tabs between them, and line ends
 * or a byte order mark around them; sshd does not read base64 without its padding. Pure.
 */
export function keyParts(text: string): KeyParts {
  const [type = '', bare = '', ...words] = text.trim().split(/[ \t]+/)
  const base64 = bare.padEnd(bare.length + ((4 - (bare.length % 4)) % 4), '=')
  const comment = words.join(' ')
  return { type, base64, line: [type, base64, comment].filter((part) => part !== '').join(' ') }
}

/** Whether a text holds a private key, which is to stay where it is: of OpenSSH, PEM or PuTTY. Pure. */
export function holdsPrivateKey(text: string): boolean {
  return /^\s*(?:-----BEGIN [A-Z0-9 ]*PRIVATE KEY|PuTTY-User-Key-File)/m.test(text)
}
