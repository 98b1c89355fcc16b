#define _GNU_SOURCE
#include "CLinux.h"
#include "Result.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int clinux_userfaultfd(int untouched) {
  // The device can be given to a process by its permissions; the system call, which
  // is older, wants CAP_SYS_PTRACE or a sysctl.
  int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  int fd = device >= 0 ? ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK)
                       : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
  int error = fd < 0 ? -errno : 0;
  if (device >= 0) close(device);
  if (error) return error;
  struct uffdio_api api = {
    .api = UFFD_API,
    .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
                (untouched ? 1u << 13 : 0)};  // UFFD_FEATURE_WP_UNPOPULATED
  if (ioctl(fd, UFFDIO_API, &api) == 0) return fd;
  error = -errno;
  close(fd);
  return error;
}

int clinux_userfaultfd_watch(int fd, void *start, size_t length) {
  struct uffdio_register request = {
    .range = {.start = (uintptr_t)start, .len = length}, .mode = UFFDIO_REGISTER_MODE_WP};
  RESULT(ioctl(fd, UFFDIO_REGISTER, &request));
}

int clinux_userfaultfd_protect(int fd, void *start, size_t length, int on) {
  struct uffdio_writeprotect request = {
    .range = {.start = (uintptr_t)start, .len = length},
    .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0};
  RESULT(ioctl(fd, UFFDIO_WRITEPROTECT, &request));
}

int clinux_userfaultfd_forget(int fd, void *start, size_t length) {
  struct uffdio_range range = {.start = (uintptr_t)start, .len = length};
  int result = ioctl(fd, UFFDIO_UNREGISTER, &range) < 0 ? -errno : 0;
  // The kernel itself wakes only those that wait for pages to be there.
  ioctl(fd, UFFDIO_WAKE, &range);
  return result;
}

int clinux_userfaultfd_stopped(int fd, uint64_t *addresses, int capacity) {
  struct uffd_msg messages[32];
  if (capacity > 32) capacity = 32;
  ssize_t size = read(fd, messages, (size_t)capacity * sizeof *messages);
  if (size < 0) return errno == EAGAIN || errno == EINTR ? 0 : -errno;
  int count = 0;
  for (size_t index = 0; index < size / sizeof *messages; index++) {
    if (messages[index].event != UFFD_EVENT_PAGEFAULT) continue;
    addresses[count++] = messages[index].arg.pagefault.address;
  }
  return count;
}
