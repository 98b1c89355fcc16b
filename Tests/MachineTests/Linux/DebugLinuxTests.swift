import Machine
import TestSupport
import Testing

@Suite(
  "The small Linux's debug variant", .needsKVM, .isSlow, .serialized,
  .enabled(
    if: SmallLinux.isBuiltToDebug,
    "needs the debug variant: 'make guest-linux GUEST_LINUX_VARIANT=debug' builds it"))
struct DebugLinuxTests {
  @Test("its kernel finds nothing wrong with what drivers and devices do")
  func checks() throws {
    let linux = try SmallLinux.debugging()
    let options = try linux.run("dmesg | grep -E 'Lock dependency validator|DMA-API'")
    #expect(options.contains("Lock dependency validator") && options.contains("DMA-API"))
    try linux.run("dd if=/dev/sda of=/dev/vda bs=64k conv=fsync 2>&1", seconds: 600)
    try linux.put(Array(repeating: 7, count: 50_000), in: "/tmp/file")
    try linux.run("ip link set eth0 up", seconds: 600)
    try linux.run(
      "desktop aplay -D hw:0 -q -t raw -f S16_LE -c 2 -r 48000 /tmp/file 2>&1", seconds: 600)
    // Drivers let go of everything, and take it again.
    let devices = try linux.run("cd /sys/bus/virtio/drivers; ls -1d */virtio*").split(
      separator: "\n")
    #expect(devices.count > 5)
    for device in devices where !device.contains("blk") {
      let (driver, name) = (device.split(separator: "/")[0], device.split(separator: "/")[1])
      try linux.run("cd /sys/bus/virtio/drivers/\(driver); echo \(name) >unbind", seconds: 600)
      try linux.run("cd /sys/bus/virtio/drivers/\(driver); echo \(name) >bind", seconds: 600)
    }
    try linux.expectKnownLog()
  }
}
