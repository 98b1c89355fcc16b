#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

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

int64_t clinux_seek_data(int fd, int64_t offset) {
  off_t result = lseek(fd, offset, SEEK_DATA);
  return result < 0 ? -errno : result;
}

int64_t clinux_seek_hole(int fd, int64_t offset) {
  off_t result = lseek(fd, offset, SEEK_HOLE);
  return result < 0 ? -errno : result;
}
