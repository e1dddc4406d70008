#!/usr/bin/perl
# Starts commands for another process (spawner.ts, which has the protocol; docs/decisions/0037). It stays small, and what it
# forks is small, however large that process grows. Needs nothing but perl-base. It ends when its standard input does,
# and ends the commands then that are not detached.
use strict;
use warnings;
use Fcntl qw(F_GETFL F_SETFL O_ACCMODE O_APPEND O_NONBLOCK O_RDONLY O_WRONLY);
use POSIX qw(:signal_h WNOHANG);

my $most_read = 65_536;

# What was left open by whoever started our client is nobody's.
opendir my $inherited, '/proc/self/fd' or die "spawner: /proc/self/fd: $!\n";
my @inherited = grep { /^\d+$/ && $_ > 2 } readdir $inherited;
closedir $inherited;
POSIX::close($_) for @inherited;

# Descriptors 3 to 31 are kept for what commands are given: nothing of ours is in the way of a dup2. All above 2 are
# closed by exec.
my @reserved;
while (1) {
  open my $file, '<', '/dev/null' or die "spawner: /dev/null: $!\n";
  if (fileno $file > 31) { last }
  push @reserved, $file;
}

my $client = getppid;
my %commands; # by id: pid, streams by kind, input, pending, ended, status, killed

# SIGCHLD is never let in: it is read from a descriptor (signalfd(2)), so that no handler runs in the middle of our work.
my %signalfd4 = (x86_64 => 289, aarch64 => 74);
my $machine = (POSIX::uname())[4];
my $sigchld = POSIX::SigSet->new(SIGCHLD);
sigprocmask(SIG_BLOCK, $sigchld);
my $number = $signalfd4{$machine} or die "spawner: signalfd4 has no number for $machine\n";
my $mask = pack 'Q', 1 << SIGCHLD - 1;
my $cloexec_nonblock = 0x80800;
my $signals = syscall $number, -1, $mask, length $mask, $cloexec_nonblock;
open my $woken, '<&=', $signals or die "spawner: signalfd4: $!\n";
$SIG{PIPE} = 'IGNORE';

my $requests = '';
while (1) {
  my ($readable, $writable) = ('', '');
  vec($readable, fileno $_, 1) = 1 for *STDIN, $woken, map { values %{ $_->{streams} } } values %commands;
  for (values %commands) { vec($writable, fileno $_->{input}, 1) = 1 if $_->{input} && length $_->{pending} }
  next if select($readable, $writable, undef, undef) < 0;

  my $all = '';
  sysread $woken, $all, $most_read if vec $readable, fileno $woken, 1;
  for my $id (keys %commands) {
    my $command = $commands{$id};
    feed($command) if $command->{input} && vec $writable, fileno $command->{input}, 1;
    for my $kind (keys %{ $command->{streams} }) {
      follow($id, $command, $kind) if vec $readable, fileno $command->{streams}{$kind}, 1;
    }
  }
  reap();
  if (vec $readable, fileno STDIN, 1) {
    my $read = sysread STDIN, $requests, $most_read, length $requests;
    end_all() if !$read;
    while (length $requests >= 4 && length $requests >= 4 + unpack 'N', $requests) {
      my ($type, $id, $body) = unpack 'a N a*', unpack 'N/a', $requests;
      $requests = substr $requests, 4 + unpack 'N', $requests;
      take($type, $id, $body);
    }
  }
}

sub take {
  my ($type, $id, $body) = @_;
  return start($id, unpack 'C C N/a N/a N/a N/a', $body) if $type eq 'S';
  my $command = $commands{$id} or return; # it ended meanwhile
  if ($type eq 'I') { $command->{pending} .= $body if $command->{input} }
  elsif ($type eq 'E') { $command->{ended} = 1 }
  elsif ($type eq 'K') {
    $command->{killed} = 1;
    # a process of ours that was not reaped yet keeps its number
    kill unpack('C', $body), $command->{detached} ? $command->{pid} : -$command->{pid} if !defined $command->{status};
    finish($id, $command);
  }
  feed($command) if $command->{input};
}

sub start {
  my ($id, $detached, $has_input, $cwd, $argv, $env, $descriptors) = @_;
  end_all() if getppid != $client; # its number may be another's by now
  my @descriptors = unpack 'N*', $descriptors;
  my ($in, $input, %theirs, %streams);
  my $made = pipe $streams{F}, $theirs{F};
  $made &&= pipe $in, $input if $has_input;
  if (!$detached) { for my $kind ('O', 'R') { $made &&= pipe $streams{$kind}, $theirs{$kind} } }
  my $pid = $made ? fork : undef;
  return report('F', $id, "$!") if !defined $pid;
  if ($pid == 0) {
    eval { become($detached, $in, \%theirs, $cwd, [unpack '(N/a)*', $argv], {unpack '(N/a)*', $env}, \@descriptors) };
    syswrite $theirs{F}, $@;
    POSIX::_exit(127);
  }
  POSIX::setpgid($pid, $pid) if !$detached; # here too: it may be killed before it has done so itself
  unblock_io($input) if $has_input;
  $commands{$id} =
    { pid => $pid, detached => $detached, streams => \%streams, input => $input, pending => '', failure => '' };
}

# In the new process: give it what was asked for, and run the command. Dies with the cause when that cannot be.
sub become {
  my ($detached, $in, $theirs, $cwd, $argv, $env, $descriptors) = @_;
  $detached ? POSIX::setsid() : POSIX::setpgid(0, 0);
  $SIG{PIPE} = $SIG{CHLD} = 'DEFAULT';
  sigprocmask(SIG_UNBLOCK, $sigchld);
  if (!$in) { open $in, '<', '/dev/null' or die "/dev/null: $!" }
  my @given = ($in, $theirs->{O}, $theirs->{R});
  my @opened = map { reopen($_) } @$descriptors;
  @given[1, 2] = (shift @opened) x 2 if $detached; # the first is both of its outputs
  push @given, @opened;
  for my $index (0 .. $#given) { defined POSIX::dup2(fileno $given[$index], $index) or die "dup2: $!\n" }
  if (length $cwd) { chdir $cwd or die "chdir $cwd: $!\n" }
  %ENV = %$env;
  no warnings 'exec';
  exec { $argv->[0] } @$argv or die "$!\n";
}

# A file that our client has open, opened anew in the same way (proc(5)): descriptors cannot be sent to us.
sub reopen {
  my ($descriptor) = @_;
  open my $info, '<', "/proc/$client/fdinfo/$descriptor" or die "descriptor $descriptor: $!\n";
  my ($flags) = join('', <$info>) =~ /^flags:\s+([0-7]+)/m;
  sysopen my $file, "/proc/$client/fd/$descriptor", oct($flags) & (O_ACCMODE | O_APPEND)
    or die "descriptor $descriptor: $!\n";
  return $file;
}

# Read what a command wrote; F is no stream of its own but says why it could not be started, or closes at exec.
sub follow {
  my ($id, $command, $kind) = @_;
  my $data = '';
  my $read = sysread $command->{streams}{$kind}, $data, $most_read;
  if ($read) {
    if ($kind eq 'F') { $command->{failure} .= $data }
    else { report($kind, $id, $data) }
    return;
  }
  close delete $command->{streams}{$kind};
  report('P', $id, pack 'N', $command->{pid}) if $kind eq 'F' && !length $command->{failure};
  finish($id, $command);
}

# Give a command of its input what it takes now. What it does not want is dropped.
sub feed {
  my ($command) = @_;
  if (length $command->{pending}) {
    my $written = syswrite $command->{input}, $command->{pending};
    if (defined $written) { $command->{pending} = substr $command->{pending}, $written }
    elsif (!$!{EAGAIN}) { @$command{'pending', 'ended'} = ('', 1) }
  }
  close delete $command->{input} if $command->{ended} && !length $command->{pending};
}

sub reap {
  while ((my $pid = waitpid -1, WNOHANG) > 0) {
    my $status = $?;
    my ($id) = grep { $commands{$_}{pid} == $pid } keys %commands;
    next if !defined $id;
    $commands{$id}{status} = $status;
    finish($id, $commands{$id});
  }
}

# A command is over when it has ended and nobody can write for it any more; one that was killed is not waited for so.
sub finish {
  my ($id, $command) = @_;
  return if !defined $command->{status} || (%{ $command->{streams} } && !$command->{killed});
  delete $commands{$id};
  if (length $command->{failure}) { report('F', $id, $command->{failure}) }
  else { report('X', $id, pack 'C C', $command->{status} >> 8, $command->{status} & 127) }
}

sub report {
  my ($type, $id, $data) = @_;
  my $frame = pack 'N/a', pack 'a N a*', $type, $id, $data;
  while (length $frame) {
    my $written = syswrite STDOUT, $frame;
    if (!defined $written) { end_all() }
    $frame = substr $frame, $written;
  }
}

sub end_all {
  for (values %commands) { kill 'KILL', -$_->{pid} if !$_->{detached} && !defined $_->{status} }
  POSIX::_exit(0);
}

sub unblock_io {
  my ($file) = @_;
  fcntl $file, F_SETFL, fcntl($file, F_GETFL, 0) | O_NONBLOCK or die "spawner: fcntl: $!\n";
}
