#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static int set_name(struct ifreq *request, const char *name) {
  if (strlen(name) >= sizeof request->ifr_name) return -ENAMETOOLONG;
  strcpy(request->ifr_name, name);
  return 0;
}

int clinux_tap_open(const char *name, int several) {
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
  if (several) request.ifr_flags |= IFF_MULTI_QUEUE;
  int error = set_name(&request, name);
  if (error < 0) return error;
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return -errno;
  // The interface may remember what its last user wanted.
  int header = CLINUX_TAP_HEADER;
  if (ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header) < 0 ||
      ioctl(fd, TUNSETOFFLOAD, 0UL) < 0) {
    error = errno;
    close(fd);
    return -error;
  }
  return fd;
}

int clinux_tap_set_offloads(int fd, unsigned offloads) {
  return ioctl(fd, TUNSETOFFLOAD, (unsigned long)offloads) < 0 ? -errno : 0;
}

int clinux_tap_attach(int fd, int on) {
  struct ifreq request = {.ifr_flags = on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};
  return ioctl(fd, TUNSETQUEUE, &request) < 0 ? -errno : 0;
}

ssize_t clinux_tap_read(int fd, void *header, void *frame, size_t capacity) {
  struct iovec parts[] = {{header, CLINUX_TAP_HEADER}, {frame, capacity}};
  ssize_t count;
  do count = readv(fd, parts, 2);
  while (count < 0 && errno == EINTR);
  return count < 0 ? -errno : count;
}

ssize_t clinux_tap_write(int fd, const void *header, const void *frame, size_t count) {
  struct iovec parts[] = {{(void *)header, CLINUX_TAP_HEADER}, {(void *)frame, count}};
  ssize_t written;
  do written = writev(fd, parts, 2);
  while (written < 0 && errno == EINTR);
  return written < 0 ? -errno : written;
}

int clinux_tap_queues(const char *name) {
  struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
  struct ifreq request = {.ifr_data = (void *)&channels};
  int error = set_name(&request, name);
  if (error < 0) return error;
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  error = ioctl(fd, SIOCETHTOOL, &request) < 0 ? -errno : 0;
  close(fd);
  return error < 0 ? error : (int)channels.combined_count;
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
