import { stripVTControlCharacters } from 'node:util'

/**
 * Text that is safe to print on a terminal: escape sequences and control characters other than tab and newline are left
 * out, and so are those that turn the direction of text. Names and messages of the API can carry what a guest wrote,
 * which could rewrite what the operator sees.
 */
export function printable(text: string): string {
  return stripVTControlCharacters(text)
    .replaceAll(/\r\n/g, '\n')
    .replaceAll(/(?![\n\t])\p{Cc}|[\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, '')
}

/** The same on one line. */
export function printableLine(text: string): string {
  return printable(text.replaceAll(/\s+/g, ' ').trim())
}
