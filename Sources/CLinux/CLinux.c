#define _GNU_SOURCE
#include "CLinux.h"
#include "Result.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int clinux_open(const char *path, int flags, unsigned mode) {
  RESULT(open(path, flags | O_CLOEXEC, mode));
}

int clinux_memfd_create(const char *name, int sealable) {
  RESULT(memfd_create(name, MFD_CLOEXEC | (sealable ? MFD_ALLOW_SEALING : 0)));
}

int clinux_memfd_seal_size(int fd) {
  RESULT(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
}

int clinux_memfd_seal_contents(int fd) {
  RESULT(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL));
}

int clinux_memfd_cannot_shrink(int fd) {
  int seals = fcntl(fd, F_GET_SEALS);
  return seals >= 0 && (seals & F_SEAL_SHRINK) != 0;
}

int clinux_ftruncate(int fd, int64_t size) { RESULT(ftruncate(fd, size)); }

ssize_t clinux_advise(const struct iovec *ranges, size_t count, int advice) {
  const int pidfd_self_thread_group = -10001;
  ssize_t done = process_madvise(pidfd_self_thread_group, ranges, count, advice, 0);
  return done < 0 ? -errno : done;
}

ssize_t clinux_random(void *buffer, size_t count) {
  ssize_t got;
  do {
    got = getrandom(buffer, count, 0);
  } while (got < 0 && errno == EINTR);
  return got < 0 ? -errno : got;
}

static int set_flag(int fd, int get, int set, int flag, int on) {
  int flags = fcntl(fd, get);
  if (flags < 0) return -errno;
  RESULT(fcntl(fd, set, on ? flags | flag : flags & ~flag));
}

int clinux_set_nonblocking(int fd, int on) {
  return set_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, on);
}

int clinux_set_close_on_exec(int fd, int on) {
  return set_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, on);
}

int clinux_duplicate(int fd) { RESULT(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

static ssize_t copy_some(int source, int target, off_t position, size_t count) {
  off_t from = position, to = position;
  ssize_t copied = copy_file_range(source, &from, target, &to, count, 0);
  if (copied >= 0 || (errno != EXDEV && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP))
    return copied;
  from = position;
  if (lseek(target, position, SEEK_SET) < 0) return -1;
  return sendfile(target, source, &from, count);
}

int clinux_copy_sparse(int source, int target, int64_t start, int64_t limit) {
  off_t position = start;
  while (position < limit) {
    off_t data = lseek(source, position, SEEK_DATA);
    if (data < 0 && errno == ENXIO) return 0;
    // A file system that knows no holes has data from here on.
    if (data >= 0) position = data;
    off_t end = lseek(source, position, SEEK_HOLE);
    if (end < 0 || end > limit) end = limit;
    while (position < end) {
      ssize_t copied = copy_some(source, target, position, (size_t)(end - position));
      if (copied < 0 && errno == EINTR) continue;
      if (copied < 0) return -errno;
      if (copied == 0) return -EIO;
      position += copied;
    }
  }
  return 0;
}

static int ofd(int fd, short type) {
  struct flock lock = {.l_type = type, .l_whence = SEEK_SET};
  RESULT(fcntl(fd, F_OFD_SETLK, &lock));
}

int clinux_ofd_lock(int fd, int exclusive) { return ofd(fd, exclusive ? F_WRLCK : F_RDLCK); }
int clinux_ofd_unlock(int fd) { return ofd(fd, F_UNLCK); }

int clinux_pipe(int ends[2]) { RESULT(pipe2(ends, O_CLOEXEC)); }

int clinux_eventfd(unsigned initial) { RESULT(eventfd(initial, EFD_CLOEXEC | EFD_NONBLOCK)); }

int clinux_eventfd_add(int fd, uint64_t value) { RESULT(eventfd_write(fd, value)); }

int clinux_eventfd_drain(int fd) {
  eventfd_t value;
  if (eventfd_read(fd, &value) == 0) return 1;
  return errno == EAGAIN ? 0 : -errno;
}

int clinux_timerfd(void) {
  RESULT(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
}

int clinux_timerfd_arm(int fd, uint64_t nanoseconds) {
  struct itimerspec when = {
    .it_value = {
      .tv_sec = (time_t)(nanoseconds / 1000000000), .tv_nsec = (long)(nanoseconds % 1000000000)}};
  RESULT(timerfd_settime(fd, TFD_TIMER_ABSTIME, &when, NULL));
}

int clinux_epoll_create(void) { RESULT(epoll_create1(EPOLL_CLOEXEC)); }

int clinux_epoll_control(int epoll, int operation, int fd, uint32_t events, uint64_t token) {
  struct epoll_event event = {.events = events, .data.u64 = token};
  RESULT(epoll_ctl(epoll, operation, fd, &event));
}

int clinux_epoll_wait(
  int epoll, uint32_t *events, uint64_t *tokens, int capacity, int milliseconds) {
  struct epoll_event buffer[64];
  if (capacity > 64) capacity = 64;
  int count = epoll_wait(epoll, buffer, capacity, milliseconds);
  if (count < 0) return -errno;
  for (int index = 0; index < count; index++) {
    events[index] = buffer[index].events;
    tokens[index] = buffer[index].data.u64;
  }
  return count;
}

static sigset_t set_of(const int *signals, size_t count) {
  sigset_t set;
  sigemptyset(&set);
  for (size_t index = 0; index < count; index++) sigaddset(&set, signals[index]);
  return set;
}

int clinux_block_signals(const int *signals, size_t count) {
  sigset_t set = set_of(signals, count);
  return -pthread_sigmask(SIG_BLOCK, &set, NULL);
}

int clinux_unblock_signal(int number) {
  sigset_t set = set_of(&number, 1);
  return -pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

int clinux_signalfd(const int *signals, size_t count) {
  sigset_t set = set_of(signals, count);
  RESULT(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

int clinux_signalfd_next(int fd) {
  struct signalfd_siginfo information;
  ssize_t count = read(fd, &information, sizeof information);
  if (count == sizeof information) return (int)information.ssi_signo;
  return count < 0 && errno == EAGAIN ? 0 : -errno;
}

int clinux_ignore_signal(int number) { return signal(number, SIG_IGN) == SIG_ERR ? -errno : 0; }

static void nothing(int number) { (void)number; }

int clinux_interrupting_signal(int number) {
  struct sigaction action = {.sa_handler = nothing};
  RESULT(sigaction(number, &action, NULL));
}

int clinux_thread_id(void) { return (int)syscall(SYS_gettid); }

int clinux_signal_thread(int thread, int number) {
  RESULT((int)syscall(SYS_tgkill, getpid(), thread, number));
}

int clinux_set_thread_name(const char *name) {
  RESULT(prctl(PR_SET_NAME, name, 0, 0, 0));
}

int clinux_pidfd_open(int pid) { RESULT((int)syscall(SYS_pidfd_open, pid, 0)); }

int clinux_pidfd_signal(int pidfd, int number) {
  RESULT((int)syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0));
}

int clinux_pidfd_wait(int pidfd, int block, int *code, int *status) {
  siginfo_t info = {0};
  if (waitid((idtype_t)3 /* P_PIDFD */, (id_t)pidfd, &info, WEXITED | (block ? 0 : WNOHANG)) < 0)
    return -errno;
  if (info.si_pid == 0) return 0;
  *code = info.si_code;
  *status = info.si_status;
  return 1;
}

int clinux_set_parent_death_signal(int number) {
  RESULT(prctl(PR_SET_PDEATHSIG, number, 0, 0, 0));
}

// Runs between fork and exec: async-signal-safe calls only.
static int become(const struct clinux_spawn *request, int parent) {
  if (request->parent_death_signal) {
    if (prctl(PR_SET_PDEATHSIG, request->parent_death_signal, 0, 0, 0) < 0) return errno;
    if (getppid() != parent) return ECHILD;
  }
  if (request->new_session && setsid() < 0) return errno;
  for (int number = 1; number < NSIG; number++) {
    if (number != SIGKILL && number != SIGSTOP) signal(number, SIG_DFL);
  }
  sigset_t none;
  sigemptyset(&none);
  if (sigprocmask(SIG_SETMASK, &none, NULL) < 0) return errno;
  if (request->directory && chdir(request->directory) < 0) return errno;
  if (syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC) < 0) return errno;
  int floor = 3;
  for (size_t index = 0; index < request->descriptor_count; index++) {
    if (request->targets[index] >= floor) floor = request->targets[index] + 1;
  }
  int moved[64];
  if (request->descriptor_count > 64) return E2BIG;
  for (size_t index = 0; index < request->descriptor_count; index++) {
    moved[index] = fcntl(request->sources[index], F_DUPFD_CLOEXEC, floor);
    if (moved[index] < 0) return errno;
  }
  for (size_t index = 0; index < request->descriptor_count; index++) {
    if (dup2(moved[index], request->targets[index]) < 0) return errno;
  }
  execve(request->path, request->arguments, request->environment);
  return errno;
}

int clinux_spawn(const struct clinux_spawn *request, int *pidfd) {
  int report[2];
  if (pipe2(report, O_CLOEXEC) < 0) return -errno;
  // The report must not sit on a number that the child's descriptors will take.
  int high = fcntl(report[1], F_DUPFD_CLOEXEC, 128);
  if (high >= 0) {
    close(report[1]);
    report[1] = high;
  }
  int parent = getpid();
  int child = fork();
  if (child == 0) {
    int error = become(request, parent);
    ssize_t ignored = write(report[1], &error, sizeof error);
    (void)ignored;
    _exit(127);
  }
  int failure = child < 0 ? errno : 0;
  close(report[1]);
  if (child > 0) {
    ssize_t count;
    do {
      count = read(report[0], &failure, sizeof failure);
    } while (count < 0 && errno == EINTR);
    if (count != sizeof failure) failure = 0;
  }
  close(report[0]);
  if (failure == 0) {
    *pidfd = (int)syscall(SYS_pidfd_open, child, 0);
    if (*pidfd >= 0) return child;
    failure = errno;
    kill(child, SIGKILL);
  }
  if (child > 0) {
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
    }
  }
  return -failure;
}

static int kind_of(int kind) { return kind == CLINUX_SEQPACKET ? SOCK_SEQPACKET : SOCK_STREAM; }

static int address_of(const char *path, struct sockaddr_un *address) {
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  if (strlen(path) >= sizeof address->sun_path) return -ENAMETOOLONG;
  strcpy(address->sun_path, path);
  return 0;
}

int clinux_unix_listen(const char *path, int kind, int backlog) {
  struct sockaddr_un address;
  int error = address_of(path, &address);
  if (error < 0) return error;
  int fd = socket(AF_UNIX, kind_of(kind) | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, backlog) < 0) {
    error = -errno;
    close(fd);
    return error;
  }
  return fd;
}

int clinux_unix_connect(const char *path, int kind, int blocking) {
  struct sockaddr_un address;
  int error = address_of(path, &address);
  if (error < 0) return error;
  int fd = socket(AF_UNIX, kind_of(kind) | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK), 0);
  if (fd < 0) return -errno;
  if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
    error = -errno;
    close(fd);
    return error;
  }
  return fd;
}

int clinux_socket_pair(int kind, int fds[2]) {
  RESULT(socketpair(AF_UNIX, kind_of(kind) | SOCK_CLOEXEC, 0, fds));
}

int clinux_accept(int fd) { RESULT(accept4(fd, NULL, NULL, SOCK_CLOEXEC)); }

int clinux_peer_credentials(int fd, int *pid, unsigned *uid, unsigned *gid) {
  struct ucred credentials;
  socklen_t size = sizeof credentials;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0) return -errno;
  *pid = credentials.pid;
  *uid = credentials.uid;
  *gid = credentials.gid;
  return 0;
}

enum { MAXIMUM_FDS = 16 };

ssize_t clinux_send(
  int fd, const void *bytes, size_t count, const int *fds, size_t fd_count, int blocking) {
  if (fd_count > MAXIMUM_FDS) return -E2BIG;
  struct iovec part = {.iov_base = (void *)bytes, .iov_len = count};
  _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * MAXIMUM_FDS)];
  memset(control, 0, sizeof control);
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (fd_count > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
    memcpy(CMSG_DATA(header), fds, sizeof(int) * fd_count);
  }
  ssize_t sent;
  do {
    sent = sendmsg(fd, &message, MSG_NOSIGNAL | (blocking ? 0 : MSG_DONTWAIT));
  } while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : sent;
}

ssize_t clinux_receive(
  int fd, void *bytes, size_t capacity, int *fds, size_t *fd_count, int *truncated,
  int blocking) {
  struct iovec part = {.iov_base = bytes, .iov_len = capacity};
  _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * MAXIMUM_FDS)];
  struct msghdr message = {
    .msg_iov = &part,
    .msg_iovlen = 1,
    .msg_control = control,
    .msg_controllen = sizeof control};
  ssize_t count;
  do {
    count = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | (blocking ? 0 : MSG_DONTWAIT));
  } while (count < 0 && errno == EINTR);
  if (count < 0) return -errno;
  size_t room = *fd_count;
  *fd_count = 0;
  *truncated = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t received = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t index = 0; index < received; index++) {
      int descriptor;
      memcpy(&descriptor, CMSG_DATA(header) + index * sizeof(int), sizeof(int));
      if (*fd_count < room) {
        fds[(*fd_count)++] = descriptor;
      } else {
        close(descriptor);
        *truncated = 1;
      }
    }
  }
  return count;
}

int clinux_send_queue(int fd) {
  int bytes = 0;
  return ioctl(fd, SIOCOUTQ, &bytes) < 0 ? -errno : bytes;
}

int clinux_shutdown(int fd, int both) { RESULT(shutdown(fd, both ? SHUT_RDWR : SHUT_WR)); }

int clinux_set_send_buffer(int fd, int bytes) {
  RESULT(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes));
}

uint64_t clinux_monotonic(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

int64_t clinux_wall_clock(uint32_t *nanoseconds) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  *nanoseconds = (uint32_t)now.tv_nsec;
  return now.tv_sec;
}

// SIGTTOU, blocked, does not stop a process in the background.
static int set_terminal(int fd, const struct termios *mode) {
  sigset_t output, before;
  sigemptyset(&output);
  sigaddset(&output, SIGTTOU);
  pthread_sigmask(SIG_BLOCK, &output, &before);
  int result = tcsetattr(fd, TCSANOW, mode) < 0 ? -errno : 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return result;
}

int clinux_terminal_make_raw(int fd, int keep_interrupt, struct termios *saved) {
  if (tcgetattr(fd, saved) < 0) return -errno;
  pid_t job = tcgetpgrp(fd);
  if (job >= 0 && job != getpgrp()) return 0;
  struct termios mode = *saved;
  cfmakeraw(&mode);
  if (keep_interrupt) {
    mode.c_oflag = saved->c_oflag;
    mode.c_lflag |= ISIG;
    mode.c_cc[VQUIT] = _POSIX_VDISABLE;
    mode.c_cc[VSUSP] = _POSIX_VDISABLE;
  }
  mode.c_cc[VMIN] = 1;
  mode.c_cc[VTIME] = 0;
  int result = set_terminal(fd, &mode);
  return result < 0 ? result : 1;
}

int clinux_terminal_restore(int fd, const struct termios *saved) { return set_terminal(fd, saved); }

int clinux_error_text(int error, char *buffer, size_t size) {
  const char *text = strerrordesc_np(error);
  if (!text || size == 0) return -EINVAL;
  snprintf(buffer, size, "%s", text);
  return 0;
}

void clinux_atomic_or_32(void *target, uint32_t bits) {
  __atomic_fetch_or((uint32_t *)target, bits, __ATOMIC_SEQ_CST);
}

void clinux_compare_exchange_64(void *target, void *expected, const void *desired) {
  uint64_t before, after;
  memcpy(&before, expected, 8);
  memcpy(&after, desired, 8);
  __atomic_compare_exchange_n(
      (uint64_t *)target, &before, after, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  memcpy(expected, &before, 8);
}

// The compiler's own would call a library that takes a lock, which guests do not.
void clinux_compare_exchange_128(void *target, void *expected, const void *desired) {
  uint64_t before[2], after[2];
  memcpy(before, expected, 16);
  memcpy(after, desired, 16);
  __asm__ volatile("lock cmpxchg16b %0"
                   : "+m"(*(unsigned __int128 *)target), "+a"(before[0]), "+d"(before[1])
                   : "b"(after[0]), "c"(after[1])
                   : "cc", "memory");
  memcpy(expected, before, 16);
}
