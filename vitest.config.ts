import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    setupFiles: ['./test/fetched-responses.ts'],
    include: ['{contract,server,agent,images,cli,bin,test}/**/*.test.ts'],
    exclude: ['test/on-host/**', 'test/guest-images/**', '**/node_modules/**'],
    // bounds for what hangs; no test is about its own time
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
})
