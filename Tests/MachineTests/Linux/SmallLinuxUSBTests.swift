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

  private struct Event: Equatable {
    var type: Int
    var code: Int
    var value: Int
  }

  /// The events that a device tells once `act` was done.
  private func events(_ count: Int, _ device: String, _ linux: SmallLinux, _ act: () -> Void)
    throws -> [Event]
  {
    // The reader says that it has opened the device, and then what it read: struct
    // input_event, whose first half is the time.
    try linux.tell(
      "(echo OPEN >&2; head -c \(count * 24)) < /dev/input/\(device)"
        + " | hexdump -v -e '24/1 \"%02x\" \"\\n\"'; echo DONE")
    _ = try linux.peer.read(until: "OPEN\n", seconds: 120)
    act()
    let text = try linux.peer.read(until: "DONE\n", seconds: 120)
    return text.split(separator: "\n").map { line in
      let digits = Array(line)
      func number(_ bytes: Range<Int>) -> Int {
        bytes.reversed().reduce(0) { value, byte in
          guard byte * 2 + 1 < digits.count else { return -1 }
          return value << 8 | (Int(String(digits[byte * 2...byte * 2 + 1]), radix: 16) ?? 0)
        }
      }
      return Event(type: number(16..<18), code: number(18..<20), value: number(20..<24))
    }
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
    #expect(
      keys.filter { $0.type == 1 }
        == [Event(type: 1, code: 105, value: 1), Event(type: 1, code: 105, value: 0)])
    let moves = try events(5, tablet, linux) {
      linux.machine.send(.absolutePointer(x: 0x2000, y: 0x4002, buttons: .left))
    }
    for event in [(3, 0, 0x1000), (3, 1, 0x2001), (1, 0x110, 1)] {
      #expect(moves.contains(Event(type: event.0, code: event.1, value: event.2)), "\(moves)")
    }
    let log = try linux.run("dmesg | grep -iE 'xhci|usb' ; true")
    #expect(!log.contains("error") && !log.contains("WARN"), "\(log)")
    try linux.expectKnownLog()
  }
}
