import createClient from 'openapi-fetch'
import type { components, paths } from './schema.d.ts'

/** Documents of the API, by the names they have in openapi.json. */
export type Schemas = components['schemas']

/** A typed client of the API; every path, parameter and body is checked against openapi.json at compile time. */
export function createBerthClient(serverUrl: string, fetch: typeof globalThis.fetch = globalThis.fetch) {
  return createClient<paths>({ baseUrl: serverUrl, fetch })
}

export type BerthClient = ReturnType<typeof createBerthClient>
