import DeviceModel
import Devices
import Snapshot
import Testing

private final class FakeProcessor: CallingProcessor {
  var registers = CallingRegisters()

  func readRegisters() -> CallingRegisters { registers }
  func writeRegisters(_ registers: CallingRegisters) { self.registers = registers }
}

@Suite struct VMwareBackdoorTests {
  private let processor = FakeProcessor()
  private let input = InputBench()

  private func device(_ state: VMwareBackdoor.State? = nil) -> VMwareBackdoor {
    VMwareBackdoor(processor: processor, nudge: input.controller.nudgeMouse, state: state)
  }

  /// IN EAX, DX as a driver does it.
  private func call(
    _ device: VMwareBackdoor, _ command: UInt32, _ argument: UInt32 = 0
  ) -> CallingRegisters {
    processor.registers = CallingRegisters(
      eax: 0x564D_5868, ebx: argument, ecx: command, edx: 0x5658, esi: 7, edi: 8)
    let eax = device.read(offset: 0, width: 4)
    processor.registers.eax = UInt32(truncatingIfNeeded: eax)
    return processor.registers
  }

  private func enabled() -> VMwareBackdoor {
    let device = device()
    _ = call(device, 0x29, 0x4541_4552)
    #expect(call(device, 0x28).eax == 1)
    #expect(call(device, 0x27, 1).eax == 0x3442_554A)
    _ = call(device, 0x29, 0x5342_4152)
    return device
  }

  @Test("the version call returns the magic number")
  func version() {
    let registers = call(device(), 0x0A)
    #expect(registers.eax == 6)
    #expect(registers.ebx == 0x564D_5868)
    #expect(registers.esi == 7 && registers.edi == 8)
  }

  @Test("without the magic number, or not 32 bits wide, nothing happens")
  func noMagic() {
    let device = device()
    processor.registers = CallingRegisters(eax: 5, ebx: 0x4541_4552, ecx: 0x29)
    #expect(device.read(offset: 0, width: 4) == 5)
    #expect(device.read(offset: 0, width: 1) == .max)
    #expect(device.read(offset: 2, width: 4) == .max)
    #expect(processor.registers == CallingRegisters(eax: 5, ebx: 0x4541_4552, ecx: 0x29))
    #expect(call(device, 0x28).eax == 0xFFFF_0000)
    #expect(call(device, 0x7777).eax == 0xFFFF_FFFF)
  }

  @Test("Linux's driver finds it, enables it and reads positions and buttons")
  func linux() {
    let device = enabled()
    _ = input.mouse(0xF4)
    #expect(device.accepts(.absolutePointer(x: 1, y: 1, buttons: [])))
    device.deliver(.absolutePointer(x: 0x1234, y: 0xFEDC, buttons: [.left, .middle]))
    #expect(input.mouseLine.level)
    #expect(input.drain() == [0x08, 0, 0])
    #expect(call(device, 0x28).eax == 4)
    let packet = call(device, 0x27, 4)
    #expect(packet.eax == 0x28)
    #expect(packet.ebx == 0x1234)
    #expect(packet.ecx == 0xFEDC)
    #expect(packet.edx == 0)
    #expect(packet.esi == 7)
    #expect(call(device, 0x28).eax == 0)
  }

  @Test("the interrupt comes at once for each position, whatever the sample rate")
  func prompt() {
    let device = enabled()
    _ = input.mouse(0xF3, 10, 0xF4)
    for index: UInt16 in 0..<5 {
      device.deliver(.absolutePointer(x: index, y: 0, buttons: []))
      #expect(input.drain() == [0x08, 0, 0])
      #expect(call(device, 0x27, 4).ebx == UInt32(index))
    }
  }

  @Test("the wheel travels with the last position, and movement as a relative packet")
  func wheel() {
    let device = enabled()
    device.deliver(.absolutePointer(x: 10, y: 20, buttons: []))
    _ = call(device, 0x27, 4)
    device.deliver(.relativePointer(x: 0, y: 0, wheel: 1, horizontalWheel: 0, buttons: .right))
    let packet = call(device, 0x27, 4)
    #expect(packet.eax == 0x10 && packet.ebx == 10 && packet.ecx == 20)
    #expect(packet.edx == UInt32(bitPattern: -1))
    device.deliver(.relativePointer(x: 3, y: 4, wheel: 0, horizontalWheel: 0, buttons: []))
    let relative = call(device, 0x27, 4)
    #expect(relative.eax == 0x0001_0000 && relative.ebx == 3)
    #expect(relative.ecx == UInt32(bitPattern: -4))
  }

  @Test("keys, and positions before absolute mode, go to other devices")
  func refuses() {
    let device = device()
    #expect(!device.accepts(.absolutePointer(x: 0, y: 0, buttons: [])))
    _ = call(device, 0x29, 0x4541_4552)
    #expect(!device.accepts(.absolutePointer(x: 0, y: 0, buttons: [])))
    #expect(!device.accepts(.key(KeyCode(1), pressed: true)))
    #expect(device.accepts(.relativePointer(x: 0, y: 0, wheel: 0, horizontalWheel: 0, buttons: [])))
    _ = call(device, 0x29, 0x5342_4152)
    #expect(device.accepts(.absolutePointer(x: 0, y: 0, buttons: [])))
    _ = call(device, 0x29, 0x4C45_5252)
    #expect(!device.accepts(.absolutePointer(x: 0, y: 0, buttons: [])))
    _ = call(device, 0x29, 0xF5)
    #expect(call(device, 0x28).eax == 0xFFFF_0000)
  }

  @Test(
    "asking for no words, too many, or more than there are disables it",
    arguments: [0, 7, 5, 0xFFFF_FFFF] as [UInt32])
  func lost(count: UInt32) {
    let device = enabled()
    device.deliver(.absolutePointer(x: 1, y: 2, buttons: []))
    #expect(call(device, 0x27, count).eax == 0xFFFF_0000)
    #expect(call(device, 0x28).eax == 0xFFFF_0000)
    #expect(!device.accepts(.absolutePointer(x: 0, y: 0, buttons: [])))
  }

  @Test("a driver that does not read keeps the last position, in a bounded queue")
  func bounded() {
    let device = enabled()
    for index: UInt16 in 0..<2000 {
      device.deliver(.absolutePointer(x: index, y: 0, buttons: []))
    }
    let words = Int(call(device, 0x28).eax)
    #expect(words == 1024)
    var last: UInt32 = 0
    for _ in 0..<words / 4 { last = call(device, 0x27, 4).ebx }
    #expect(last == 1999)
  }

  @Test("a half-read queue survives save and restore")
  func saved() throws {
    let device = enabled()
    device.deliver(.absolutePointer(x: 10, y: 20, buttons: .left))
    #expect(call(device, 0x27, 1).eax == 0x20)
    let bytes = try StateEncoder().encode(device.saveState())
    let other = self.device(try StateDecoder().decode(VMwareBackdoor.State.self, from: bytes))
    #expect(call(other, 0x28).eax == 3)
    let rest = call(other, 0x27, 3)
    #expect(rest.eax == 10 && rest.ebx == 20 && rest.ecx == 0)
    other.reset()
    #expect(call(other, 0x28).eax == 0xFFFF_0000)
  }
}
