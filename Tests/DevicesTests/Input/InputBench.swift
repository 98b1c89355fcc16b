import DeviceModel
import Snapshot

import Devices

/// A keyboard controller with a driver's view of it.
final class InputBench {
  let clock = FakeClock()
  let keyboardLine = FakeLine()
  let mouseLine = FakeLine()
  let machine = FakeMachine()
  private(set) var leds: [KeyboardLEDs] = []
  private(set) var controller: I8042

  init(_ state: I8042.State? = nil) {
    controller = I8042(
      machine: machine, clock: clock, keyboardInterrupt: keyboardLine,
      auxiliaryInterrupt: mouseLine, state: state)
    controller.onLEDs = { [unowned self] in leds.append($0) }
  }

  /// A new bench whose controller took this one's state through bytes.
  func moved() throws -> InputBench {
    let bytes = try StateEncoder().encode(controller.saveState())
    return InputBench(try StateDecoder().decode(I8042.State.self, from: bytes))
  }

  var status: UInt8 {
    UInt8(truncatingIfNeeded: controller.commandPort.read(offset: 0, width: 1))
  }
  var isFull: Bool { status & 0x01 != 0 }
  var isAuxiliary: Bool { status & 0x20 != 0 }

  func command(_ byte: UInt8) {
    controller.commandPort.write(offset: 0, width: 1, value: UInt64(byte))
  }

  func data(_ byte: UInt8) { controller.dataPort.write(offset: 0, width: 1, value: UInt64(byte)) }

  func read() -> UInt8 {
    UInt8(truncatingIfNeeded: controller.dataPort.read(offset: 0, width: 1))
  }

  /// Reads until the buffer stays empty.
  func drain() -> [UInt8] {
    var bytes: [UInt8] = []
    while isFull && bytes.count < 100_000 { bytes.append(read()) }
    return bytes
  }

  func ask(_ command: UInt8) -> [UInt8] {
    self.command(command)
    return drain()
  }

  func configure(_ byte: UInt8) {
    command(0x60)
    data(byte)
  }

  /// Sends bytes to the keyboard, reading the answer to each.
  func keyboard(_ bytes: UInt8...) -> [UInt8] {
    bytes.flatMap { byte in
      data(byte)
      return drain()
    }
  }

  func mouse(_ bytes: UInt8...) -> [UInt8] {
    bytes.flatMap { byte in
      command(0xD4)
      data(byte)
      return drain()
    }
  }

  /// Lets the mouse's next sample come due, and reads everything.
  func nextPackets(milliseconds: Int = 200) -> [UInt8] {
    var bytes = drain()
    for _ in 0..<milliseconds {
      clock.advance(milliseconds: 1)
      bytes += drain()
    }
    return bytes
  }

  func press(_ key: UInt16) { controller.deliver(.key(KeyCode(key), pressed: true)) }
  func release(_ key: UInt16) { controller.deliver(.key(KeyCode(key), pressed: false)) }

  func type(_ key: UInt16) -> [UInt8] {
    press(key)
    release(key)
    return drain()
  }

  func move(
    _ x: Int, _ y: Int, wheel: Int = 0, _ buttons: PointerButtons = []
  ) {
    controller.deliver(
      .relativePointer(x: x, y: y, wheel: wheel, horizontalWheel: 0, buttons: buttons))
  }

  func point(_ x: UInt16, _ y: UInt16, _ buttons: PointerButtons = []) {
    controller.deliver(.absolutePointer(x: x, y: y, buttons: buttons))
  }
}

/// The movements in 3-byte packets, `y` upwards.
func movements(_ bytes: [UInt8]) -> [(x: Int, y: Int)] {
  stride(from: 0, to: bytes.count - 2, by: 3).map { at in
    let x = Int(bytes[at + 1]) - (bytes[at] & 0x10 != 0 ? 256 : 0)
    let y = Int(bytes[at + 2]) - (bytes[at] & 0x20 != 0 ? 256 : 0)
    return (x, y)
  }
}

/// Where a pointer without acceleration ends up, stopped by the edges.
func follow(
  _ bytes: [UInt8], from start: (x: Int, y: Int), width: Int, height: Int
) -> (x: Int, y: Int) {
  movements(bytes).reduce(start) { place, step in
    (min(max(place.x + step.x, 0), width - 1), min(max(place.y - step.y, 0), height - 1))
  }
}
