// Linux system calls that Swift cannot call as they are (variadic, macro-built or
// without a libc wrapper). Every function returns a value, or -errno.
#ifndef CLINUX_H
#define CLINUX_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <termios.h>

// Files and memory.
int clinux_open(const char *path, int flags, unsigned mode);
int clinux_memfd_create(const char *name, int sealable);
int clinux_memfd_seal_size(int fd);
/// What it holds can never change either.
int clinux_memfd_seal_contents(int fd);
/// 1 for a memfd sealed against shrinking; 0 for anything else.
int clinux_memfd_cannot_shrink(int fd);
int clinux_ftruncate(int fd, int64_t size);
struct iovec;
/// madvise(2) of many ranges of this process at once. Returns how many bytes it was done for,
/// or -errno where the kernel cannot (before Linux 6.15).
ssize_t clinux_advise(const struct iovec *ranges, size_t count, int advice);
/* What of a range is in the page cache, up to the first byte that is not. */
int64_t clinux_read_now(int fd, void *buffer, size_t count, int64_t offset);
/// Lets go of, or zeroes, a part of a file, by FALLOC_FL_* of `mode`.
int clinux_fallocate(int fd, int mode, int64_t offset, int64_t count);
/* Where the next part that is, or is not, a hole begins. */
int64_t clinux_seek_data(int fd, int64_t offset);
int64_t clinux_seek_hole(int fd, int64_t offset);
/// getrandom(2): how many bytes it filled in.
ssize_t clinux_random(void *buffer, size_t count);
int clinux_set_nonblocking(int fd, int on);
int clinux_set_close_on_exec(int fd, int on);
int clinux_duplicate(int fd);
/// Copies the bytes from `start` up to `limit`, leaving holes out and sharing blocks
/// where the file system can. The target is empty there and has its size. -EIO: the
/// source is shorter.
int clinux_copy_sparse(int source, int target, int64_t start, int64_t limit);
/// Takes an OFD lock on the whole file without waiting; -EAGAIN when another holds one.
int clinux_ofd_lock(int fd, int exclusive);
int clinux_ofd_unlock(int fd);
/// A non-blocking userfaultfd that can report writes to shared memory, and with `untouched`
/// (Linux 6.4) also to private memory that nobody looked at yet.
int clinux_userfaultfd(int untouched);
/// Makes `fd` the one that is told of writes to these pages while they are protected.
int clinux_userfaultfd_watch(int fd, void *start, size_t length);
/// `on` 0 lets writers go on that were stopped.
int clinux_userfaultfd_protect(int fd, void *start, size_t length, int on);
/// Takes `watch` back, and has writers go on. The process's memory map is locked meanwhile.
int clinux_userfaultfd_forget(int fd, void *start, size_t length);
/// Where writers were stopped that nobody was told of yet; returns how many, 0 for none.
int clinux_userfaultfd_stopped(int fd, uint64_t *addresses, int capacity);

// Both ends of a pipe, closed on exec.
int clinux_pipe(int ends[2]);

// Memory that others write at the same time. Targets are aligned to their size.
void clinux_atomic_or_32(void *target, uint32_t bits);
/// Writes `desired` where `expected` is, which gets what was there.
void clinux_compare_exchange_64(void *target, void *expected, const void *desired);
void clinux_compare_exchange_128(void *target, void *expected, const void *desired);

// Readiness.
int clinux_eventfd(unsigned initial);
int clinux_eventfd_add(int fd, uint64_t value);
/// 1 when it had been signalled, 0 when not.
int clinux_eventfd_drain(int fd);
int clinux_timerfd(void);
/// Arms for an absolute CLOCK_MONOTONIC time; 0 disarms.
int clinux_timerfd_arm(int fd, uint64_t nanoseconds);
int clinux_epoll_create(void);
/// `operation` is 1 add, 2 remove, 3 modify.
int clinux_epoll_control(int epoll, int operation, int fd, uint32_t events, uint64_t token);
int clinux_epoll_wait(
  int epoll, uint32_t *events, uint64_t *tokens, int capacity, int milliseconds);

// Signals. Blocks `signals` in the calling thread and the threads it makes.
int clinux_block_signals(const int *signals, size_t count);
/// Lets `signal` through to the calling thread.
int clinux_unblock_signal(int signal);
int clinux_signalfd(const int *signals, size_t count);
/// The next signal's number, 0 when there is none.
int clinux_signalfd_next(int fd);
int clinux_ignore_signal(int signal);
/// Installs a handler that does nothing, without SA_RESTART: the signal only interrupts.
int clinux_interrupting_signal(int signal);

// Threads and processes.
int clinux_thread_id(void);
int clinux_signal_thread(int thread, int signal);
int clinux_set_thread_name(const char *name);
int clinux_pidfd_open(int pid);
int clinux_pidfd_signal(int pidfd, int signal);
/// Reaps the child behind `pidfd`. Returns 1 with `code`/`status` filled as in
/// siginfo, or 0 when it still runs and `block` is 0.
int clinux_pidfd_wait(int pidfd, int block, int *code, int *status);
int clinux_set_parent_death_signal(int signal);
/// Threads of this process.
int clinux_thread_count(void);
/// A copy of this process that goes on here, too: 0 in the copy.
int clinux_fork(void);
int clinux_new_session(void);
/// Makes `target` another number of what `source` is.
int clinux_put_descriptor(int source, int target);
/// Reaps a child that has ended: its number, or 0 when there is none; `*status` as waitpid has it.
int clinux_reap(int *status);

struct clinux_spawn {
  const char *path;
  char *const *arguments;
  char *const *environment;
  const char *directory;     // NULL: inherited
  const int *sources;        // descriptors given to the child …
  const int *targets;        // … under these numbers
  size_t descriptor_count;
  int new_session;
  int parent_death_signal;   // 0: none
};
/// Starts a program; everything but descriptors 0–2 and `targets` is closed in
/// it, signals are as by default. Returns the pid with `*pidfd` open.
int clinux_spawn(const struct clinux_spawn *request, int *pidfd);

// Sockets.
enum { CLINUX_STREAM = 0, CLINUX_SEQPACKET = 1 };
int clinux_unix_listen(const char *path, int kind, int backlog);
int clinux_unix_connect(const char *path, int kind, int blocking);
int clinux_socket_pair(int kind, int fds[2]);
int clinux_accept(int fd);
int clinux_peer_credentials(int fd, int *pid, unsigned *uid, unsigned *gid);
/// Never raises SIGPIPE.
ssize_t clinux_send(
  int fd, const void *bytes, size_t count, const int *fds, size_t fd_count, int blocking);
/// Received descriptors are close-on-exec. `*truncated` tells that the packet, or
/// its descriptors, did not fit.
ssize_t clinux_receive(
  int fd, void *bytes, size_t capacity, int *fds, size_t *fd_count, int *truncated,
  int blocking);
/// Bytes of this stream socket's output that the peer has not taken yet.
int clinux_send_queue(int fd);
/// Both directions, or only what is sent.
int clinux_shutdown(int fd, int both);
int clinux_set_send_buffer(int fd, int bytes);

/// A queue of a TAP interface, which is made if there is none; `several` as it was made, or
/// to make it so that it can have more than one. Each frame is behind a struct virtio_net_hdr
/// of CLINUX_TAP_HEADER bytes; those that are read have nothing left to do.
#define CLINUX_TAP_HEADER 12
int clinux_tap_open(const char *name, int several);
/// What may be left undone in frames that are read, on all queues: TUN_F_*.
int clinux_tap_set_offloads(int fd, unsigned offloads);
/// Has frames come to this queue, or not.
int clinux_tap_attach(int fd, int on);
/// One frame, not waited for: the bytes of both parts. `header` has CLINUX_TAP_HEADER bytes.
ssize_t clinux_tap_read(int fd, void *header, void *frame, size_t capacity);
ssize_t clinux_tap_write(int fd, const void *header, const void *frame, size_t count);
/// How many queues frames come to, whoever has them.
int clinux_tap_queues(const char *name);
/// Moves this thread into a new network namespace.
int clinux_new_network(void);
/// The addresses of this host's interfaces: an entry is the length in bytes, 4 or 16, and
/// the address. How many there are, also beyond `capacity`; SIZE_MAX with errno set.
#define CLINUX_ADDRESS_ENTRY 17
size_t clinux_host_addresses(uint8_t *entries, size_t capacity);
/// A descriptor that is readable after such addresses came or went.
int clinux_address_changes(void);

// Terminals.
/// Puts a terminal into raw input; `saved` gets what it was. With `keep_interrupt` its
/// interrupt character still sends SIGINT, and output is still processed. 1 when done;
/// 0 when it belongs to another job, which is left alone.
int clinux_terminal_make_raw(int fd, int keep_interrupt, struct termios *saved);
int clinux_terminal_restore(int fd, const struct termios *saved);

/// The message for `error`, NUL-terminated.
int clinux_error_text(int error, char *buffer, size_t size);

/// Nanoseconds of CLOCK_MONOTONIC.
uint64_t clinux_monotonic(void);
int64_t clinux_wall_clock(uint32_t *nanoseconds);

#endif
