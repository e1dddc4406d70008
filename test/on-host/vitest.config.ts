import { defineConfig } from 'vitest/config'

// one file after the other on this host; tools/test.ts gives each file a host of its own
export default defineConfig({
  test: {
    setupFiles: ['./test/fetched-responses.ts'],
    include: ['test/on-host/**/*.test.ts'],
    fileParallelism: false,
    // bounds for what hangs, also where eight others compute; no test is about its own time
    testTimeout: 900_000,
    hookTimeout: 900_000,
  },
})
