import { defaultAgentSettings, type HostStep, hostSteps } from '@berth/agent/config.ts'
import { InvalidArgumentError } from 'commander'

/** Longest deadline that can be set, seconds: a day. */
const longestSeconds = 86_400

/**
 * Deadlines of the host's steps in milliseconds, from `step=seconds[,step=seconds …]`; steps that are not named keep their
 * default. Throws InvalidArgumentError.
 */
export function parseStepDeadlines(text: string): Readonly<Record<HostStep, number>> {
  const deadlinesMs = { ...defaultAgentSettings.deadlinesMs }
  for (const part of text.split(',')) {
    const match = /^([a-z-]+)=(\d{1,5}(?:\.\d{1,3})?)$/.exec(part.trim())
    const step = hostSteps.find((candidate) => candidate === match?.[1])
    const seconds = Number(match?.[2])
    if (step === undefined) {
      throw new InvalidArgumentError(`"${part}" is not STEP=SECONDS; steps are ${hostSteps.join(', ')}.`)
    }
    if (seconds <= 0 || seconds > longestSeconds) {
      throw new InvalidArgumentError(`${step} must be above 0 and at most ${longestSeconds} seconds.`)
    }
    deadlinesMs[step] = Math.ceil(seconds * 1000)
  }
  return deadlinesMs
}
