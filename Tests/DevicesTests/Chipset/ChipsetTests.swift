import DeviceModel
import Devices
import Testing

@Suite("i440FX and PIIX3")
struct ChipsetTests {
  final class FakeShadow: ShadowControl {
    var segments: [ShadowSegment] = []
    func setShadow(_ segments: [ShadowSegment]) { self.segments = segments }
  }

  final class FakeSpeakerTimer: SpeakerTimer {
    var gate = false
    var output = false
    var reload: UInt16 = 1193
  }

  let machine = FakeMachine()
  let space = FakeAddressSpace()

  @Test("PAM registers open the thirteen segments one by one")
  func attributes() {
    let shadow = FakeShadow()
    let bridge = HostBridge(shadow: shadow, state: nil)
    let host = PCIHost(addressSpace: space, interruptRouter: FakeRouter(), state: nil)
    let slot = PCISlot(device: 0)
    host.insert(bridge.function, at: slot)
    #expect(host.readConfiguration(slot, offset: 0, width: 4) == 0x1237_8086)
    #expect(host.readConfiguration(slot, offset: 0x2C, width: 4) == 0x1100_1AF4)
    #expect(shadow.segments.count == 13)
    #expect(shadow.segments.allSatisfy { !$0.readsRAM && !$0.writesRAM })
    host.writeConfiguration(slot, offset: 0x59, width: 1, value: 0x30)
    #expect(
      shadow.segments.last
        == ShadowSegment(base: 0xF0000, size: 0x10000, readsRAM: true, writesRAM: true))
    host.writeConfiguration(slot, offset: 0x5A, width: 1, value: 0x21)
    #expect(
      shadow.segments[0]
        == ShadowSegment(base: 0xC0000, size: 0x4000, readsRAM: true, writesRAM: false))
    #expect(
      shadow.segments[1]
        == ShadowSegment(base: 0xC4000, size: 0x4000, readsRAM: false, writesRAM: true))
    host.writeConfiguration(slot, offset: 0x5F, width: 1, value: 0x33)
    #expect(shadow.segments[11].base == 0xEC000 && shadow.segments[11].writesRAM)
    let copy = HostBridge(shadow: shadow, state: bridge.saveState())
    #expect(copy.segments == bridge.segments)
    bridge.reset()
    #expect(shadow.segments.allSatisfy { !$0.readsRAM })
  }

  @Test("segments tile the space from 768 KiB to 1 MiB")
  func tiling() {
    let segments = HostBridge(shadow: nil, state: nil).segments
    var next: UInt64 = 0xC0000
    for segment in segments {
      #expect(segment.base == next)
      next += segment.size
    }
    #expect(next == 0x10_0000)
  }

  @Test("PIRQs reach the routed lines, shared ones until the last is released")
  func routing() {
    let lines = (0..<16).map { _ in FakeLine() }
    let inputs = Dictionary(uniqueKeysWithValues: lines.enumerated().map { ($0, $1) })
    let bridge = ISABridge(interrupts: inputs, state: nil)
    let host = PCIHost(addressSpace: space, interruptRouter: bridge, state: nil)
    let slot = PCISlot(device: 1)
    host.insert(bridge.function, at: slot)
    bridge.setInterrupt(device: 2, pin: 0, asserted: true)
    #expect(lines.allSatisfy { !$0.level })
    // INTA# of device 2 is PIRQB#.
    host.writeConfiguration(slot, offset: 0x61, width: 1, value: 11)
    #expect(lines[11].level)
    host.writeConfiguration(slot, offset: 0x60, width: 1, value: 11)
    bridge.setInterrupt(device: 1, pin: 0, asserted: true)
    bridge.setInterrupt(device: 2, pin: 0, asserted: false)
    #expect(lines[11].level)
    host.writeConfiguration(slot, offset: 0x60, width: 1, value: 10)
    #expect(!lines[11].level && lines[10].level)
    let copyLines = (0..<16).map { _ in FakeLine() }
    let copy = ISABridge(
      interrupts: Dictionary(uniqueKeysWithValues: copyLines.enumerated().map { ($0, $1) }),
      state: bridge.saveState())
    #expect(copyLines.map(\.level) == lines.map(\.level))
    copy.setInterrupt(device: 1, pin: 0, asserted: false)
    #expect(!copyLines[10].level)
    host.writeConfiguration(slot, offset: 0x60, width: 1, value: 13)
    #expect(!lines[10].level && !lines[13].level)
    bridge.reset()
    #expect(lines.allSatisfy { !$0.level })
  }

  @Test("a machine without firmware gets its regions, routes and PM registers")
  func setup() {
    let bridge = ISABridge(interrupts: [:], state: nil)
    let power = PowerManagement(
      interrupt: FakeLine(), clock: FakeClock(now: 0), machine: machine, state: nil)
    let registers = FakeRegisters()
    let card = PCIFunction(
      name: "card",
      identity: PCIIdentity(vendor: 1, device: 2, classCode: 0x030000, interruptPin: 1))
    card.addBAR(0, size: 16 << 20, prefetchable: true, .memory(registers))
    card.addBAR(2, size: 4096, .memory(registers))
    card.addBAR(4, size: 16, .io(registers))
    let host = PCIHost(addressSpace: space, interruptRouter: bridge, state: nil)
    host.insert(bridge.function, at: PCISlot(device: 1))
    host.insert(power.function, at: PCISlot(device: 1, function: 3))
    host.insert(card, at: PCISlot(device: 2))
    PlatformSetup.run(
      host, isaBridge: PCISlot(device: 1), powerManagement: PCISlot(device: 1, function: 3),
      io: 0xC000..<0xD000, memory: 0xE010_0000..<0xFEC0_0000)
    #expect(space.address(of: "card BAR0") == 0xE100_0000)
    #expect(space.address(of: "card BAR2") == 0xE200_0000)
    #expect(space.address(of: "card BAR4") == 0xC000)
    #expect(space.mappings.contains { $0.address == 0x600 && $0.size == 64 })
    #expect(host.readConfiguration(PCISlot(device: 2), offset: 0x3C, width: 1) == 10)
    #expect(host.readConfiguration(PCISlot(device: 1), offset: 0x60, width: 4) == 0x0B0B_0A0A)
  }

  @Test("0xCF9 and port 0x92 reset on a rising bit only")
  func resets() {
    let control = ResetControl(machine: machine, state: nil)
    control.write(offset: 0, width: 1, value: 2)
    #expect(machine.powerOffs == 0 && machine.resets.isEmpty)
    control.write(offset: 0, width: 1, value: 6)
    control.write(offset: 0, width: 1, value: 6)
    #expect(machine.resets == [.resetControlRegister])
    #expect(control.read(offset: 0, width: 1) == 6)
    let port = SystemControlPortA(machine: machine, state: nil)
    #expect(port.read(offset: 0, width: 1) == 2)
    port.write(offset: 0, width: 1, value: 0xFC)
    #expect(machine.resets.count == 1)
    #expect(port.read(offset: 0, width: 1) == 0)
    port.write(offset: 0, width: 1, value: 1)
    #expect(machine.resets.last == .systemControlPort)
    let copy = SystemControlPortA(machine: machine, state: port.saveState())
    copy.write(offset: 0, width: 1, value: 1)
    #expect(machine.resets.count == 2)
  }

  @Test("port 0x61 gates the timer, beeps, and shows OUT2 and a refresh that toggles")
  func speaker() {
    let timer = FakeSpeakerTimer()
    var tones: [Int?] = []
    let port = SystemControlPortB(timer: timer, speaker: { tones.append($0) }, state: nil)
    port.write(offset: 0, width: 1, value: 0xF1)
    #expect(timer.gate && tones.isEmpty)
    port.write(offset: 0, width: 1, value: 0x03)
    port.write(offset: 0, width: 1, value: 0x03)
    #expect(tones == [1000])
    timer.output = true
    let first = port.read(offset: 0, width: 1)
    let second = port.read(offset: 0, width: 1)
    #expect(first ^ second == 0x10)
    #expect(first & 0x2F == 0x23)
    port.write(offset: 0, width: 1, value: 0)
    #expect(tones == [1000, nil])
    #expect(!timer.gate)
  }

  @Test("the debug console answers 0xE9 and passes bytes on")
  func debugPort() {
    var bytes: [UInt8] = []
    let port = DebugPort(readValue: 0xE9) { bytes.append($0) }
    let bus = Bus(name: "ports")
    #expect(throws: Never.self) { try bus.map(port, name: "debug", at: 0x402, size: 1) }
    bus.write(address: 0x402, width: 1, value: 0x41)
    #expect(bytes == [0x41] && port.last == 0x41)
    #expect(bus.read(address: 0x402, width: 1) == 0xE9)
  }

  @Test("a junction holds its output while any input is asserted")
  func junction() {
    let line = FakeLine()
    let junction = InterruptJunction(output: line)
    let first = junction.makeInput()
    let second = junction.makeInput()
    first.setLevel(true)
    second.setLevel(true)
    first.setLevel(false)
    first.setLevel(false)
    #expect(line.level)
    second.setLevel(false)
    #expect(!line.level)
    #expect(line.edges == 1)
  }
}
