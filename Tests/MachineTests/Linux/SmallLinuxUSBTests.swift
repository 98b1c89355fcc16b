import DeviceModel
import Machine
import TestSupport
import Testing

@Suite("The small Linux and USB", .needsKVM, .needsSmallLinux, .serialized)
struct SmallLinuxUSBTests {
  /// The event device that Linux calls `name`.
  private func device(_ name: String, _ linux: SmallLinux) throws -> String {
    let path = try linux.run("grep -l '\(name)' /sys/class/input/event*/device/name")
    let parts = path.split(separator: "/")
    return try #require(parts.first { $0.hasPrefix("event") }.map(String.init))
  }

  /// The events that a device told, each as type, code and value in hexadecimal digits.
  private func events(_ count: Int, _ device: String, _ linux: SmallLinux, _ act: () -> Void)
    throws -> [[String]]
  {
    // The reader says that it has opened the device, and then what it read.
    try linux.tell(
      "(echo OPEN >&2; head -c \(count * 24)) < /dev/input/\(device)"
        + " | hexdump -v -e '16/1 \"\" 2/2 \"%x \" 1/4 \"%x\\n\"'; echo DONE")
    _ = try linux.peer.read(until: "OPEN\n", seconds: 120)
    act()
    let text = try linux.peer.read(until: "DONE\n", seconds: 120)
    return text.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
  }

  @Test("xhci_hcd and usbhid drive the keyboard and the tablet, and hear of input")
  func input() throws {
    let linux = try SmallLinux()
    let driver = try linux.run("ls /sys/bus/pci/drivers/xhci_hcd")
    #expect(driver.contains("0000:00:0e.0"))
    let keyboard = try device("Carrel USB Keyboard", linux)
    let tablet = try device("Carrel USB Tablet", linux)
    // Without drivers for what comes before USB.
    _ = try linux.run(
      "cd /sys/bus/virtio/drivers/virtio_input && for d in virtio*; do"
        + " echo $d > unbind; done; cd /; echo -n none > /sys/bus/serio/devices/serio1/drvctl")
    let keys = try events(6, keyboard, linux) {
      linux.machine.send(.key(KeyCode(0xE04B), pressed: true))
      linux.machine.send(.key(KeyCode(0xE04B), pressed: false))
    }
    #expect(keys.filter { $0.first == "1" } == [["1", "69", "1"], ["1", "69", "0"]])
    let moves = try events(5, tablet, linux) {
      linux.machine.send(.absolutePointer(x: 0x2000, y: 0x4002, buttons: .left))
    }
    #expect(moves.contains(["3", "0", "1000"]) && moves.contains(["3", "1", "2001"]))
    #expect(moves.contains(["1", "110", "1"]))
    let log = try linux.run("dmesg | grep -iE 'xhci|usb' ; true")
    #expect(!log.contains("error") && !log.contains("WARN"), "\(log)")
  }
}
