#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

int clinux_tap_open(const char *name) {
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
  if (strlen(name) >= sizeof request.ifr_name) return -ENAMETOOLONG;
  strcpy(request.ifr_name, name);
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return -errno;
  if (ioctl(fd, TUNSETIFF, &request) < 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}

int clinux_new_network(void) { return unshare(CLONE_NEWNET) < 0 ? -errno : 0; }

size_t clinux_host_addresses(uint8_t *entries, size_t capacity) {
  struct ifaddrs *all;
  if (getifaddrs(&all) < 0) return SIZE_MAX;
  size_t count = 0;
  for (struct ifaddrs *one = all; one; one = one->ifa_next) {
    if (!one->ifa_addr) continue;
    const void *address;
    uint8_t length;
    if (one->ifa_addr->sa_family == AF_INET) {
      address = &((const struct sockaddr_in *)one->ifa_addr)->sin_addr;
      length = 4;
    } else if (one->ifa_addr->sa_family == AF_INET6) {
      address = &((const struct sockaddr_in6 *)one->ifa_addr)->sin6_addr;
      length = 16;
    } else {
      continue;
    }
    if (count < capacity) {
      entries[count * CLINUX_ADDRESS_ENTRY] = length;
      memcpy(entries + count * CLINUX_ADDRESS_ENTRY + 1, address, length);
    }
    count++;
  }
  freeifaddrs(all);
  return count;
}

int clinux_address_changes(void) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) return -errno;
  struct sockaddr_nl groups = {
      .nl_family = AF_NETLINK, .nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR};
  if (bind(fd, (struct sockaddr *)&groups, sizeof groups) < 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}
