const anyUrl = /\b([a-z][a-z0-9+.-]{0,20}:\/\/)(?:[^\s/?#]*@)?([^\s?#]*)([?#]\S*?)?(?=[:;,)]*(?:\s|$))/gi

/**
 * A text in which no URL carries what may be a secret: the user and password before its host are gone, and what follows
 * its path (the signature of a presigned URL, for one) is `?…`. Pure.
 */
export function withoutUrlSecrets(text: string): string {
  return text.replaceAll(
    anyUrl,
    (_url, scheme: string, place: string, rest = '') => `${scheme}${place}${rest === '' ? '' : '?…'}`,
  )
}
