import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    setupFiles: ['./test/fetched-responses.ts'],
    include: ['{contract,server,agent,images,cli,bin,test}/**/*.test.ts'],
    exclude: ['test/on-host/**', 'test/guest-images/**', '**/node_modules/**'],
    // Vitest leaves one core to itself, which is half of a machine with two; it has next to nothing to do
    maxWorkers: availableParallelism(),
    // bounds for what hangs, also where eight others compute; no test is about its own time
    testTimeout: 180_000,
    hookTimeout: 180_000,
  },
})
