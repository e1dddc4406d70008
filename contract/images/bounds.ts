/** Seconds a guest gets to say that its first boot is over; the default where its image does not say. */
export const readyTimeoutSeconds = { minimum: 1, maximum: 86_400, default: 300 } as const
