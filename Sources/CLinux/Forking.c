#include "CLinux.h"
#include "Result.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

int clinux_thread_count(void) {
  // A directory has a link of each of its own, besides two (proc_task_getattr).
  struct stat status;
  return stat("/proc/self/task", &status) < 0 ? -errno : (int)status.st_nlink - 2;
}

int clinux_fork(void) { RESULT(fork()); }

int clinux_new_session(void) { RESULT(setsid()); }

int clinux_put_descriptor(int source, int target) { RESULT(dup2(source, target)); }

int clinux_reap(int *status) {
  int child;
  do {
    child = waitpid(-1, status, WNOHANG);
  } while (child < 0 && errno == EINTR);
  return child < 0 ? (errno == ECHILD ? 0 : -errno) : child;
}
