CREATE TABLE "console_chunks" (
  "id" integer not null primary key,
  "instance_id" text not null references "instances" ("id") on delete cascade,
  "offset" integer not null,
  "length" integer not null,
  "data" blob not null,
  constraint "console_chunks_offset" unique ("instance_id", "offset")
) strict;

CREATE TABLE "events" (
  "sequence" integer primary key autoincrement,
  "at" integer not null,
  "type" text not null,
  "resource_id" text not null,
  "detail" text not null
) strict;

CREATE TABLE "host_orphans" (
  "host_id" text not null primary key references "hosts" ("id"),
  "looked_at" integer not null,
  "orphans" text not null
) strict;

CREATE TABLE "host_usage" (
  "host_id" text not null primary key references "hosts" ("id"),
  "figures" text not null
) strict;

CREATE TABLE "hosts" (
  "id" text not null primary key,
  "name" text not null,
  "labels" text not null,
  "created_at" integer not null,
  "schedulable" integer default 1 not null,
  "generation" integer default 1 not null,
  "desired_revision" integer default 1 not null,
  "agent_session" integer default 0 not null,
  "sequence" integer default 0 not null,
  "agent_version" text default '' not null,
  "hypervisor" text default '' not null,
  "accelerator" text default '' not null,
  "accelerator_reason" text default '' not null,
  "capacity_vcpus" integer default 0 not null,
  "capacity_memory_mb" integer default 0 not null,
  "capacity_disk_gb" integer default 0 not null,
  "allocated_vcpus" integer default 0 not null,
  "allocated_memory_mb" integer default 0 not null,
  "allocated_disk_gb" integer default 0 not null,
  "images" text default '[]' not null,
  "last_seen_at" integer default 0 not null,
  "silent" integer default 0 not null,
  "last_repair" integer default 0 not null,
  "uid" text default '' not null,
  constraint "hosts_allocated_not_negative" check (allocated_vcpus >= 0 and allocated_memory_mb >= 0 and allocated_disk_gb >= 0)
) strict;

CREATE INDEX "hosts_name" on "hosts" ("name", "id");

CREATE TABLE "idempotency_keys" (
  "key" text not null primary key,
  "fingerprint" text not null,
  "status" integer not null,
  "location" text not null,
  "body" text not null,
  "created_at" integer not null
) strict;

CREATE INDEX "idempotency_keys_age" on "idempotency_keys" ("created_at");

CREATE TABLE "images" (
  "id" text not null primary key,
  "name" text not null,
  "labels" text not null,
  "created_at" integer not null,
  "generation" integer not null,
  "title" text not null,
  "source_url" text not null,
  "checksum" text not null,
  "min_disk_gb" integer not null,
  "default_user" text not null,
  "network" text not null,
  "datasource" text not null,
  "uid" text default '' not null,
  "ready_timeout_seconds" integer
) strict;

CREATE TABLE "instance_labels" (
  "instance_id" text not null references "instances" ("id") on delete cascade,
  "key" text not null,
  "value" text not null,
  constraint "instance_labels_pk" primary key ("instance_id", "key")
) strict;

CREATE INDEX "instance_labels_key" on "instance_labels" ("key", "instance_id");

CREATE INDEX "instance_labels_key_value" on "instance_labels" ("key", "value", "instance_id");

CREATE TABLE "instance_security_groups" (
  "instance_id" text not null references "instances" ("id") on delete cascade,
  "security_group_id" text not null references "security_groups" ("id"),
  constraint "instance_security_groups_pk" primary key ("instance_id", "security_group_id")
) strict;

CREATE INDEX "instance_security_groups_used_by" on "instance_security_groups" ("security_group_id");

CREATE TABLE "instance_ssh_keys" (
  "instance_id" text not null references "instances" ("id") on delete cascade,
  "ssh_key_id" text not null references "ssh_keys" ("id"),
  constraint "instance_ssh_keys_pk" primary key ("instance_id", "ssh_key_id")
) strict;

CREATE INDEX "instance_ssh_keys_used_by" on "instance_ssh_keys" ("ssh_key_id");

CREATE TABLE "instances" (
  "id" text not null primary key,
  "name" text not null,
  "labels" text not null,
  "created_at" integer not null,
  "type" text not null,
  "image" text not null,
  "vcpus" integer not null,
  "memory_mb" integer not null,
  "disk_gb" integer not null,
  "vpc_id" text not null,
  "subnet_id" text not null,
  "private_ip" text not null,
  "mac" text not null unique,
  "security_groups" text not null,
  "ssh_key_ids" text not null,
  "user_data" text not null,
  "desired" text not null,
  "generation" integer not null,
  "grace_seconds" integer not null,
  "reboots" integer not null,
  "reboot_grace_seconds" integer not null,
  "host_id" text references "hosts" ("id"),
  "scheduled_at" integer,
  "refusal" text not null,
  "report" text,
  "reason" text not null,
  "message" text not null,
  "terminated_at" integer,
  "operation_id" text not null,
  "state" text default 'provisioning' not null,
  "on_capacity" text default 'queue' not null,
  "metadata_revision" integer default 0 not null,
  "public_ip" text default '' not null,
  "on_panic" text default 'restart' not null check (on_panic in ('restart', 'stop', 'none')),
  constraint "instances_desired" check (desired in ('running', 'stopped', 'deleted'))
) strict;

CREATE INDEX "instances_host_id" on "instances" ("host_id", "id");

CREATE INDEX "instances_image" on "instances" ("image", "id") where "terminated_at" is null;

CREATE INDEX "instances_name" on "instances" ("name", "id");

CREATE UNIQUE INDEX "instances_public_ip" on "instances" ("public_ip") where "public_ip" != '';

CREATE INDEX "instances_state" on "instances" ("state", "id");

CREATE INDEX "instances_subnet_id" on "instances" ("subnet_id", "id");

CREATE INDEX "instances_terminated_at" on "instances" ("terminated_at");

CREATE INDEX "instances_vpc_id" on "instances" ("vpc_id", "id");

CREATE TABLE "operations" (
  "id" text not null primary key,
  "type" text not null,
  "resource_id" text not null,
  "status" text not null,
  "steps" text not null,
  "error" text,
  "generation" integer not null,
  "created_at" integer not null,
  "deadline_at" integer not null,
  "finished_at" integer
) strict;

CREATE INDEX "operations_finished" on "operations" ("finished_at");

CREATE INDEX "operations_open" on "operations" ("deadline_at") where "finished_at" is null;

CREATE INDEX "operations_resource" on "operations" ("resource_id", "id");

CREATE INDEX "operations_status" on "operations" ("status", "id");

CREATE TABLE "public_addresses" (
  "number" integer not null primary key,
  "public_ip_id" text unique,
  "freed_at" integer not null
) strict;

CREATE INDEX "public_addresses_freed" on "public_addresses" ("freed_at") where "public_ip_id" is null;

CREATE TABLE "public_ips" (
  "id" text not null primary key,
  "name" text not null,
  "labels" text not null,
  "created_at" integer not null,
  "pool" text not null,
  "address" text not null unique,
  "instance_id" text unique references "instances" ("id"),
  "auto_assigned" integer not null,
  "generation" integer not null,
  "uid" text default '' not null
) strict;

CREATE INDEX "public_ips_name" on "public_ips" ("name", "id");

CREATE TABLE "security_groups" (
  "id" text not null primary key,
  "name" text not null,
  "labels" text not null,
  "created_at" integer not null,
  "description" text not null,
  "rules" text not null,
  "generation" integer default 1 not null,
  "uid" text default '' not null
) strict;

CREATE INDEX "security_groups_name" on "security_groups" ("name", "id");

CREATE TABLE "ssh_keys" (
  "id" text not null primary key,
  "name" text not null,
  "labels" text not null,
  "created_at" integer not null,
  "public_key" text not null,
  "fingerprint" text not null,
  "generation" integer default 1 not null,
  "uid" text default '' not null
) strict;

CREATE INDEX "ssh_keys_name" on "ssh_keys" ("name", "id");

CREATE TABLE "subnet_addresses" (
  "subnet_id" text not null references "subnets" ("id"),
  "address" text not null,
  "instance_id" text unique,
  "freed_at" integer not null,
  constraint "subnet_addresses_pk" primary key ("subnet_id", "address")
) strict;

CREATE INDEX "subnet_addresses_freed" on "subnet_addresses" ("subnet_id", "freed_at") where "instance_id" is null;

CREATE TABLE "subnets" (
  "id" text not null primary key,
  "name" text not null,
  "labels" text not null,
  "created_at" integer not null,
  "vpc_id" text not null references "vpcs" ("id"),
  "cidr" text not null,
  "next_offset" integer not null,
  "generation" integer default 1 not null,
  "auto_assign_public_ip" integer default 0 not null,
  "uid" text default '' not null
) strict;

CREATE INDEX "subnets_name" on "subnets" ("name", "id");

CREATE INDEX "subnets_vpc" on "subnets" ("vpc_id");

CREATE TABLE "vpcs" (
  "id" text not null primary key,
  "name" text not null,
  "labels" text not null,
  "created_at" integer not null,
  "cidr" text not null,
  "is_default" integer default 0 not null,
  "generation" integer default 1 not null,
  "uid" text default '' not null
) strict;

CREATE INDEX "vpcs_name" on "vpcs" ("name", "id");
