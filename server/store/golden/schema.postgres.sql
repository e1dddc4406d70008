create table console_chunks (
  id bigint not null default nextval('console_chunks_id_seq'::regclass),
  instance_id text not null,
  "offset" bigint not null,
  length bigint not null,
  data bytea not null,
  constraint console_chunks_instance_id_fkey FOREIGN KEY (instance_id) REFERENCES instances(id) ON DELETE CASCADE,
  constraint console_chunks_offset UNIQUE (instance_id, "offset"),
  constraint console_chunks_pkey PRIMARY KEY (id)
);


create table events (
  sequence bigint not null default nextval('events_sequence_seq'::regclass),
  at bigint not null,
  type text not null,
  resource_id text not null,
  detail text not null,
  constraint events_pkey PRIMARY KEY (sequence)
);


create table host_orphans (
  host_id text not null,
  looked_at bigint not null,
  orphans text not null,
  constraint host_audits_host_id_fkey FOREIGN KEY (host_id) REFERENCES hosts(id),
  constraint host_audits_pkey PRIMARY KEY (host_id)
);


create table host_usage (
  host_id text not null,
  figures text not null,
  constraint host_usage_host_id_fkey FOREIGN KEY (host_id) REFERENCES hosts(id),
  constraint host_usage_pkey PRIMARY KEY (host_id)
);


create table hosts (
  id text not null,
  name text not null,
  labels text not null,
  created_at bigint not null,
  schedulable bigint not null default 1,
  generation bigint not null default 1,
  desired_revision bigint not null default 1,
  agent_session bigint not null default 0,
  sequence bigint not null default 0,
  agent_version text not null default ''::text,
  hypervisor text not null default ''::text,
  accelerator text not null default ''::text,
  accelerator_reason text not null default ''::text,
  capacity_vcpus bigint not null default 0,
  capacity_memory_mb bigint not null default 0,
  capacity_disk_gb bigint not null default 0,
  allocated_vcpus bigint not null default 0,
  allocated_memory_mb bigint not null default 0,
  allocated_disk_gb bigint not null default 0,
  images text not null default '[]'::text,
  last_seen_at bigint not null default 0,
  silent bigint not null default 0,
  last_repair bigint not null default 0,
  uid text not null default ''::text,
  constraint hosts_allocated_not_negative CHECK (((allocated_vcpus >= 0) AND (allocated_memory_mb >= 0) AND (allocated_disk_gb >= 0))),
  constraint hosts_pkey PRIMARY KEY (id)
);
CREATE INDEX hosts_name ON public.hosts USING btree (name, id);

create table idempotency_keys (
  key text not null,
  fingerprint text not null,
  status bigint not null,
  location text not null,
  body text not null,
  created_at bigint not null,
  constraint idempotency_keys_pkey PRIMARY KEY (key)
);
CREATE INDEX idempotency_keys_age ON public.idempotency_keys USING btree (created_at);

create table images (
  id text not null,
  name text not null,
  labels text not null,
  created_at bigint not null,
  generation bigint not null,
  title text not null,
  source_url text not null,
  checksum text not null,
  min_disk_gb bigint not null,
  default_user text not null,
  network text not null,
  datasource text not null,
  uid text not null default ''::text,
  ready_timeout_seconds integer,
  constraint images_pkey PRIMARY KEY (id)
);


create table instance_labels (
  instance_id text not null,
  key text not null,
  value text not null,
  constraint instance_labels_instance_id_fkey FOREIGN KEY (instance_id) REFERENCES instances(id) ON DELETE CASCADE,
  constraint instance_labels_pk PRIMARY KEY (instance_id, key)
);
CREATE INDEX instance_labels_key ON public.instance_labels USING btree (key, instance_id);
CREATE INDEX instance_labels_key_value ON public.instance_labels USING btree (key, value, instance_id);

create table instance_security_groups (
  instance_id text not null,
  security_group_id text not null,
  constraint instance_security_groups_instance_id_fkey FOREIGN KEY (instance_id) REFERENCES instances(id) ON DELETE CASCADE,
  constraint instance_security_groups_pk PRIMARY KEY (instance_id, security_group_id),
  constraint instance_security_groups_security_group_id_fkey FOREIGN KEY (security_group_id) REFERENCES security_groups(id)
);
CREATE INDEX instance_security_groups_used_by ON public.instance_security_groups USING btree (security_group_id);

create table instance_ssh_keys (
  instance_id text not null,
  ssh_key_id text not null,
  constraint instance_ssh_keys_instance_id_fkey FOREIGN KEY (instance_id) REFERENCES instances(id) ON DELETE CASCADE,
  constraint instance_ssh_keys_pk PRIMARY KEY (instance_id, ssh_key_id),
  constraint instance_ssh_keys_ssh_key_id_fkey FOREIGN KEY (ssh_key_id) REFERENCES ssh_keys(id)
);
CREATE INDEX instance_ssh_keys_used_by ON public.instance_ssh_keys USING btree (ssh_key_id);

create table instances (
  id text not null,
  name text not null,
  labels text not null,
  created_at bigint not null,
  type text not null,
  image text not null,
  vcpus bigint not null,
  memory_mb bigint not null,
  disk_gb bigint not null,
  vpc_id text not null,
  subnet_id text not null,
  private_ip text not null,
  mac text not null,
  security_groups text not null,
  ssh_key_ids text not null,
  user_data text not null,
  desired text not null,
  generation bigint not null,
  grace_seconds bigint not null,
  reboots bigint not null,
  reboot_grace_seconds bigint not null,
  host_id text,
  scheduled_at bigint,
  refusal text not null,
  report text,
  reason text not null,
  message text not null,
  terminated_at bigint,
  operation_id text not null,
  state text not null default 'provisioning'::text,
  on_capacity text not null default 'queue'::text,
  metadata_revision bigint not null default 0,
  public_ip text not null default ''::text,
  on_panic text not null default 'restart'::text,
  constraint instances_desired CHECK ((desired = ANY (ARRAY['running'::text, 'stopped'::text, 'deleted'::text]))),
  constraint instances_host_id_fkey FOREIGN KEY (host_id) REFERENCES hosts(id),
  constraint instances_mac_key UNIQUE (mac),
  constraint instances_on_panic_check CHECK ((on_panic = ANY (ARRAY['restart'::text, 'stop'::text, 'none'::text]))),
  constraint instances_pkey PRIMARY KEY (id)
);
CREATE INDEX instances_host_id ON public.instances USING btree (host_id, id);
CREATE INDEX instances_image ON public.instances USING btree (image, id) WHERE (terminated_at IS NULL);
CREATE INDEX instances_name ON public.instances USING btree (name, id);
CREATE UNIQUE INDEX instances_public_ip ON public.instances USING btree (public_ip) WHERE (public_ip <> ''::text);
CREATE INDEX instances_state ON public.instances USING btree (state, id);
CREATE INDEX instances_subnet_id ON public.instances USING btree (subnet_id, id);
CREATE INDEX instances_terminated_at ON public.instances USING btree (terminated_at);
CREATE INDEX instances_vpc_id ON public.instances USING btree (vpc_id, id);

create table operations (
  id text not null,
  type text not null,
  resource_id text not null,
  status text not null,
  steps text not null,
  error text,
  generation bigint not null,
  created_at bigint not null,
  deadline_at bigint not null,
  finished_at bigint,
  constraint operations_pkey PRIMARY KEY (id)
);
CREATE INDEX operations_finished ON public.operations USING btree (finished_at);
CREATE INDEX operations_open ON public.operations USING btree (deadline_at) WHERE (finished_at IS NULL);
CREATE INDEX operations_resource ON public.operations USING btree (resource_id, id);
CREATE INDEX operations_status ON public.operations USING btree (status, id);

create table public_addresses (
  number bigint not null,
  public_ip_id text,
  freed_at bigint not null,
  constraint public_addresses_pkey PRIMARY KEY (number),
  constraint public_addresses_public_ip_id_key UNIQUE (public_ip_id)
);
CREATE INDEX public_addresses_freed ON public.public_addresses USING btree (freed_at) WHERE (public_ip_id IS NULL);

create table public_ips (
  id text not null,
  name text not null,
  labels text not null,
  created_at bigint not null,
  pool text not null,
  address text not null,
  instance_id text,
  auto_assigned bigint not null,
  generation bigint not null,
  uid text not null default ''::text,
  constraint public_ips_address_key UNIQUE (address),
  constraint public_ips_instance_id_fkey FOREIGN KEY (instance_id) REFERENCES instances(id),
  constraint public_ips_instance_id_key UNIQUE (instance_id),
  constraint public_ips_pkey PRIMARY KEY (id)
);
CREATE INDEX public_ips_name ON public.public_ips USING btree (name, id);

create table security_groups (
  id text not null,
  name text not null,
  labels text not null,
  created_at bigint not null,
  description text not null,
  rules text not null,
  generation bigint not null default 1,
  uid text not null default ''::text,
  constraint security_groups_pkey PRIMARY KEY (id)
);
CREATE INDEX security_groups_name ON public.security_groups USING btree (name, id);

create table ssh_keys (
  id text not null,
  name text not null,
  labels text not null,
  created_at bigint not null,
  public_key text not null,
  fingerprint text not null,
  generation bigint not null default 1,
  uid text not null default ''::text,
  constraint ssh_keys_pkey PRIMARY KEY (id)
);
CREATE INDEX ssh_keys_name ON public.ssh_keys USING btree (name, id);

create table subnet_addresses (
  subnet_id text not null,
  address text not null,
  instance_id text,
  freed_at bigint not null,
  constraint subnet_addresses_instance_id_key UNIQUE (instance_id),
  constraint subnet_addresses_pk PRIMARY KEY (subnet_id, address),
  constraint subnet_addresses_subnet_id_fkey FOREIGN KEY (subnet_id) REFERENCES subnets(id)
);
CREATE INDEX subnet_addresses_freed ON public.subnet_addresses USING btree (subnet_id, freed_at) WHERE (instance_id IS NULL);

create table subnets (
  id text not null,
  name text not null,
  labels text not null,
  created_at bigint not null,
  vpc_id text not null,
  cidr text not null,
  next_offset bigint not null,
  generation bigint not null default 1,
  auto_assign_public_ip bigint not null default 0,
  uid text not null default ''::text,
  constraint subnets_pkey PRIMARY KEY (id),
  constraint subnets_vpc_id_fkey FOREIGN KEY (vpc_id) REFERENCES vpcs(id)
);
CREATE INDEX subnets_name ON public.subnets USING btree (name, id);
CREATE INDEX subnets_vpc ON public.subnets USING btree (vpc_id);

create table vpcs (
  id text not null,
  name text not null,
  labels text not null,
  created_at bigint not null,
  cidr text not null,
  is_default bigint not null default 0,
  generation bigint not null default 1,
  uid text not null default ''::text,
  constraint vpcs_pkey PRIMARY KEY (id)
);
CREATE INDEX vpcs_name ON public.vpcs USING btree (name, id);
