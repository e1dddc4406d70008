/**
 * The catalogue of error codes: what a caller may rely on. `code` is stable, `title` is for people, `status` is the
 * HTTP status it is answered with.
 */
export const errorCatalogue = {
  invalid_request: { status: 400, title: 'This is not a valid HTTP request' },
  invalid_json: { status: 400, title: 'The body is not valid JSON' },
  invalid_path: { status: 400, title: 'The path is not valid' },
  invalid_query: { status: 400, title: 'A query parameter is not valid' },
  invalid_header: { status: 400, title: 'A request header is not valid' },
  unauthorized: { status: 401, title: 'The credential is missing or not known' },
  forbidden_origin: { status: 403, title: 'Requests from other web pages are refused' },
  not_found: { status: 404, title: 'There is no such resource' },
  route_not_found: { status: 404, title: 'There is no such route' },
  request_timeout: { status: 408, title: 'The request did not arrive in time' },
  already_exists: { status: 409, title: 'A resource with this id exists' },
  in_use: { status: 409, title: 'The resource is in use' },
  invalid_state: { status: 409, title: 'The instance is in a state that does not allow this' },
  stale_report: { status: 409, title: 'A newer report of this host was received already' },
  read_only: { status: 409, title: 'The resource is not managed through the API' },
  precondition_failed: { status: 412, title: 'The resource is another version than If-Match names' },
  body_too_large: { status: 413, title: 'The body is too large' },
  uri_too_long: { status: 414, title: 'The URI is too long' },
  unsupported_media_type: { status: 415, title: 'The content type must be application/json' },
  validation_failed: { status: 422, title: 'The request is not valid' },
  idempotency_key_reused: { status: 422, title: 'The Idempotency-Key belongs to another request' },
  image_needs_uefi: { status: 422, title: 'The image boots by UEFI only' },
  no_addresses: { status: 422, title: 'The subnet has no free address' },
  no_public_addresses: { status: 422, title: 'The pool has no free public address' },
  too_many_waits: { status: 429, title: 'Too many requests wait at the same time' },
  header_too_large: { status: 431, title: 'The request headers are too large' },
  internal: { status: 500, title: 'The server failed; the request id finds the cause in its log' },
  unavailable: { status: 503, title: 'The server cannot serve this now; try again' },
  storage_full: { status: 507, title: 'The disk that holds the state is full' },
} as const satisfies Record<string, { status: number; title: string }>

export type ErrorCode = keyof typeof errorCatalogue

/** One fault of a body: a JSON pointer (RFC 6901) into it and what is wrong there. */
export interface FieldError {
  pointer: string
  message: string
}

/**
 * The codes a failed operation or a condition carries as its cause; `hint` says what the caller can do. Shown in
 * `operation.error`, in `status.reason` and in conditions.
 */
export const failureCatalogue = {
  superseded: 'A later request replaced this one; nothing needs to be done.',
  deadline_exceeded: 'The step took longer than its deadline. Look at the console log and the host, then try again.',
  step_deadline_exceeded:
    'A step hung on the host and was given up; the message names it. Look at the load and the agent log of the host.',
  image_deadline_exceeded:
    'The image did not come in time. Bring it with `berth image import`, or try again: a download goes on where it was.',
  boot_deadline_exceeded: 'QEMU was started and did not answer. See qemu.log of the instance and the load of the host.',
  power_off_failed:
    'The process of the machine does not end, not even by SIGKILL; it is tried again. Look at the disks of the host.',
  clean_up_failed: 'Something of the instance cannot be removed from its host; it is tried again. See the message.',
  no_host_fits: 'No host is large enough for this size. Choose a smaller type or add a larger host.',
  no_capacity: 'No host has room now. Delete instances, add a host, or ask with on_capacity "queue" to wait for room.',
  no_public_addresses:
    'The instance was made without the public address that its subnet gives. Release one that is not needed, or start with a larger pool, then attach one.',
  image_download_failed: 'Check that the host can reach the URL, or bring the image with `berth image import`.',
  image_bad_checksum: 'The bytes at the source are not the ones the catalogue promises. Check the source.',
  image_not_built: 'Build the image on the host with the command shown, then create the instance again.',
  image_not_available: 'Import the image on the host with `berth image import`, then create the instance again.',
  image_needs_uefi:
    'The image boots by UEFI only, which instances do not have. Use one that boots by BIOS, or by both.',
  image_invalid: 'The image cannot be used. Import one that is a plain qcow2 or raw disk.',
  disk_failed: 'The disk could not be made. Check the free space of the data directory on the host.',
  network_failed: 'The network of the instance could not be set up. See the agent log on the host.',
  tap_lost:
    'The network card of the running machine was removed on the host, and it has no network. `reboot` connects it again.',
  rules_not_in_force:
    'Rules of a security group cannot be loaded on the host and let nothing pass; the message names them. PATCH the group.',
  public_address_taken:
    'Something else on the host, another installation of Berth for one, has a route to the public address; the message names it. The address comes as soon as that lets go of it; or release it and take another.',
  vmm_start_failed: 'QEMU could not be started. See qemu.log of the instance on the host.',
  vmm_crashed: 'QEMU ended unexpectedly; it is started again with growing pauses.',
  host_restarted: 'The host was restarted; what should run is started again.',
  powered_off: 'The instance is off. `start` boots it again.',
  guest_panicked:
    "The kernel of the guest panicked. See the console log for the cause; what follows is the instance's `on_panic`.",
  internal_error:
    "QEMU cannot go on with the guest. See qemu.log of the instance; what follows is the instance's `on_panic`.",
  suspended: 'The guest has gone to sleep. `reboot` starts it again; the power button of a `stop` wakes it, too.',
  paused: 'Something on the host besides Berth has paused the machine over its QMP socket. `cont` there, or `reboot`.',
  io_error:
    'A disk of the machine cannot be read or written, and the guest waits. It goes on when the disk works again. Look at the disks of the host.',
  storage_full:
    'The disk of the host is full, and the guest waits to write. It goes on by itself when there is room; nothing is lost.',
  unreachable:
    'QEMU does not answer the agent of its host, so it is not known what the guest does. The machine is left as it is; `stop` and DELETE end it by a signal after their grace.',
  crash_loop: 'QEMU ended soon after its start too often. See the console log; `start` tries again.',
  guest_shutdown: 'The guest powered itself off. `start` boots it again.',
  nothing_heard:
    'The guest has not said within `ready_timeout_seconds` of its image that its first boot is over. See the console log; an image without the ready marker never says it.',
  user_data_failed: 'The first-boot script ended with an error; the message carries the end of its output.',
  user_data_ignored:
    'The guest did not understand the user data, or a part of it; the message says which. Correct it and create the instance anew.',
  deleted: 'The instance was deleted.',
} as const satisfies Record<string, string>
