#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>

int64_t clinux_read_now(int fd, void *buffer, size_t count, int64_t offset) {
  struct iovec piece = {.iov_base = buffer, .iov_len = count};
  ssize_t result = preadv2(fd, &piece, 1, offset, RWF_NOWAIT);
  return result < 0 ? -errno : result;
}

int clinux_fallocate(int fd, int mode, int64_t offset, int64_t count) {
  int result;
  do {
    result = fallocate(fd, mode, offset, count);
  } while (result < 0 && errno == EINTR);
  return result < 0 ? -errno : result;
}
