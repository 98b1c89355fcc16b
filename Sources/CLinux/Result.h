#pragma once

#include <errno.h>

// What a call of the C library comes to, for the kernel's own way to tell of errors.
#define RESULT(call) \
  do { \
    int result_ = (call); \
    return result_ < 0 ? -errno : result_; \
  } while (0)
