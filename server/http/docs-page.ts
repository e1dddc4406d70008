import Fastify from 'fastify'
import type { Api } from './api.ts'

/**
 * What the reference page may load and call: this server only. Its styles are made by its script, hence
 * 'unsafe-inline' for them; no script but the two below runs.
 */
const contentSecurityPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "font-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

/** All that would call another host is off: fonts, use statistics, assistants, the proxy, and what needs an account. */
const configuration = {
  url: '/openapi.json',
  servers: [{ url: '/' }],
  withDefaultFonts: false,
  telemetry: false,
  agent: { disabled: true },
  mcp: { disabled: true },
  hideClientButton: true,
  showDeveloperTools: 'never',
  proxyUrl: '',
  externalUrls: { dashboardUrl: '', registryUrl: '', proxyUrl: '', apiBaseUrl: '' },
}

const page = `<!doctype html>
<html lang="en">
  <head>
    <title>Berth API reference</title>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <link rel="icon" href="data:,">
  </head>
  <body>
    <div id="app"></div>
    <noscript>This page needs JavaScript. The same is in <a href="/openapi.json">openapi.json</a>.</noscript>
    <script src="/docs/scalar.js"></script>
    <script src="/docs/start.js"></script>
  </body>
</html>
`

const start = `Scalar.createApiReference('#app', ${JSON.stringify(configuration, null, 2)})\n`

/** /docs: the reference page of openapi.json. It works without any other host (docs/decisions/0015). */
export function docsRoutes(api: Api): void {
  let script: Promise<string> | null = null
  const files = {
    '/docs': { type: 'text/html; charset=utf-8', read: async () => page },
    '/docs/start.js': { type: 'text/javascript; charset=utf-8', read: async () => start },
    '/docs/scalar.js': {
      type: 'text/javascript; charset=utf-8',
      read: () => {
        script ??= loadScript().catch((error) => {
          script = null // the next reader tries afresh
          throw error
        })
        return script
      },
    },
  }
  for (const [path, file] of Object.entries(files)) {
    api.get(path, { schema: { hide: true } }, async (_request, reply) => {
      return reply
        .type(file.type)
        .header('content-security-policy', contentSecurityPolicy)
        .header('referrer-policy', 'no-referrer')
        .header('x-content-type-options', 'nosniff')
        .send(await file.read())
    })
  }
}

/**
 * The script of the page, 5 MB. The package gives it only through a plugin that serves it, and importing that takes long:
 * so it is asked for, once, by the first reader of the page.
 */
async function loadScript(): Promise<string> {
  const { default: scalar } = await import('@scalar/fastify-api-reference')
  const carrier = Fastify()
  try {
    await carrier.register(scalar, { routePrefix: '/docs', configuration: { url: '/openapi.json' } })
    const answer = await carrier.inject('/docs/js/scalar.js')
    if (answer.statusCode !== 200) throw new Error(`the reference page's script was answered with ${answer.statusCode}`)
    return answer.body
  } finally {
    await carrier.close()
  }
}
