import DeviceModel
import Devices
import Snapshot
import Testing

@Suite("VGA state")
struct VGAStateTests {
  private func restored(_ machine: VGAMachine) throws -> VGAMachine {
    let bytes = try StateEncoder().encode(machine.vga.saveState())
    let state = try StateDecoder().decode(VGA.State.self, from: bytes)
    let copy = try VGAMachine(videoMemory: machine.videoMemory, state: state)
    copy.clock.now = machine.clock.now
    return copy
  }

  @Test("latches, flip-flops and half-written DAC entries survive save and restore")
  func halfway() throws {
    var first = RegisterScript()
    first.set(.planar640x480)
    first.setColors()
    first.fillPlanes(4000)
    first.steps += [
      .read(0xA0010, 1),  // loads the latches
      .touch(0x3DA), .out8(0x3C0, 0x33),  // index written, data to come
      .out8(0x3C8, 5), .out8(0x3C9, 0x11), .out8(0x3C9, 0x22),  // blue to come
      .out16(0x1CE, 6),
    ]
    var second = RegisterScript()
    second.steps += [.out8(0x3C0, 0x05), .out8(0x3C9, 0x33)]
    second.graphics(5, 1)
    second.write(0xA0020, [0])
    second.graphics(5, 0)
    for plane: UInt8 in 0..<4 {
      second.graphics(4, plane)
      second.steps.append(.read(0xA0020, 1))
    }
    second.steps += [.in16(0x1CF), .out8(0x3C7, 5), .in8(0x3C9), .in8(0x3C9), .in8(0x3C9)]
    second.readEveryRegister()

    let machine = try VGAMachine()
    _ = machine.run(first)
    let copy = try restored(machine)
    #expect(copy.run(second) == machine.run(second))
    #expect(copy.picture() == machine.picture())
  }

  @Test("an extended mode with its PCI registers survives save and restore")
  func extendedMode() throws {
    let machine = try VGAMachine()
    _ = machine.run(try #require(ExtendedCase.all.first { $0.name.contains("virtual") }).script)
    let copy = try restored(machine)
    #expect(copy.refresh().scanout == machine.refresh().scanout)
    var reads = RegisterScript()
    reads.readEveryVBERegister()
    #expect(copy.run(reads) == machine.run(reads))
  }

  @Test("the monitor is of the size that a viewer gave it, as far as memory goes, and stays so")
  func monitor() throws {
    let machine = try VGAMachine()
    #expect(preferredMode(machine) == [1024, 768])
    for (asked, has) in [
      ([1288, 900], [1288, 900]), ([1285, 901], [1280, 901]), ([1, 1], [320, 200]),
      ([5000, 100], [4088, 200]), ([Int.min, Int.max], [320, 4095]),
      // 8 MiB of the 16: 2,097,152 pixels.
      ([1920, 1080], [1920, 1080]), ([4096, 2048], [2040, 1025]),
    ] {
      machine.vga.resize(width: asked[0], height: asked[1])
      #expect(preferredMode(machine) == has)
      let copy = try restored(machine)
      #expect(preferredMode(copy) == has)
      copy.vga.reset()
      #expect(preferredMode(copy) == has)
    }
  }

  /// Of the first detailed timing, in a block whose bytes add up to nothing.
  private func preferredMode(_ machine: VGAMachine) -> [Int] {
    var script = RegisterScript()
    script.steps = (0..<128).map { .mmioRead($0, width: 1) }
    let block = machine.run(script).map { Int($0) }
    #expect(block.reduce(0, +) % 256 == 0)
    return [block[0x38] | (block[0x3A] & 0xF0) << 4, block[0x3B] | (block[0x3D] & 0xF0) << 4]
  }

  @Test("reset brings back a blank screen and power-on registers, and keeps VRAM")
  func reset() throws {
    let machine = try VGAMachine()
    _ = machine.run(ExtendedCase.all[5].script)
    _ = machine.refresh()
    let byte = machine.videoMemory.bytes[1000]
    machine.vga.reset()
    let update = machine.refresh()
    #expect(update.scanout.source == .rendered)
    #expect(update.damage.count == 1)
    #expect(machine.picture().pixels.allSatisfy { $0 == 0 })
    #expect(machine.videoMemory.bytes[1000] == byte)
    var reads = RegisterScript()
    reads.readEveryVBERegister()
    #expect(machine.run(reads) == (try VGAMachine()).run(reads))
  }

  @Test("memory of an unusable size and damaged states are refused with the remedy")
  func refusals() throws {
    #expect {
      try VGAMachine(size: 3 << 20)
    } throws: {
      ($0 as? VGAError)?.kind == .videoMemory && "\($0)".contains("power of two")
    }
    let small = try TestBytes(4096)
    #expect {
      try VGA(
        videoMemory: try TestBytes(16 << 20), renderedSurface: small, clock: SettableClock())
    } throws: {
      ($0 as? VGAError)?.kind == .surface
    }
    var state = try VGAMachine().vga.saveState()
    state.version = 9
    #expect {
      try VGAMachine(state: state)
    } throws: {
      ($0 as? VGAError)?.kind == .state
    }
  }

  @Test("the size of VRAM shows in BAR 0 and in the 64 KiB register", arguments: [1, 16, 64])
  func sizes(megabytes: Int) throws {
    let machine = try VGAMachine(size: megabytes << 20)
    var script = RegisterScript()
    script.steps += [.out16(0x1CE, 10), .in16(0x1CF)]
    #expect(machine.run(script) == [UInt64(megabytes * 16)])
    let space = FakeAddressSpace()
    let host = PCIHost(addressSpace: space, interruptRouter: FakeRouter(), state: nil)
    let slot = PCISlot(device: 2)
    host.insert(machine.vga.function, at: slot)
    #expect(host.readConfiguration(slot, offset: 0, width: 4) == 0x1111_1234)
    #expect(host.readConfiguration(slot, offset: 0x0A, width: 2) == 0x0300)
    host.writeConfiguration(slot, offset: 0x10, width: 4, value: .max)
    let mask = UInt32(truncatingIfNeeded: ~((megabytes << 20) - 1))
    #expect(host.readConfiguration(slot, offset: 0x10, width: 4) == mask | 8)
    host.writeConfiguration(slot, offset: 0x10, width: 4, value: 0xE000_0000)
    host.writeConfiguration(slot, offset: 0x18, width: 4, value: 0xFEBF_0000)
    host.writeConfiguration(slot, offset: 0x04, width: 2, value: 2)
    #expect(space.address(of: "VGA BAR0") == 0xE000_0000)
    #expect(space.address(of: "VGA BAR2") == 0xFEBF_0000)
  }
}

@Suite("EDID")
struct EDIDTests {
  @Test("the block has its header, a valid checksum and the preferred mode first")
  func block() throws {
    let machine = try VGAMachine()
    let script = RegisterScript(steps: (0..<128).map { .mmioRead($0, width: 1) })
    let bytes = machine.run(script)
    #expect(bytes == EDID().bytes.map { UInt64($0) })
    #expect(bytes.prefix(8) == [0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0])
    #expect(bytes.reduce(0, +) % 256 == 0)
    #expect(bytes[0x38] | (bytes[0x3A] >> 4) << 8 == 1024)
    #expect(bytes[0x3B] | (bytes[0x3D] >> 4) << 8 == 768)
  }

  @Test(
    "the detailed timing runs at 60 Hz, with sync inside the blanking",
    arguments: [
      EDID.Mode(width: 1024, height: 768), .init(width: 1920, height: 1080),
      .init(width: 3840, height: 2160), .init(width: 0, height: 0),
      .init(width: 100_000, height: 100_000),
    ])
  func timing(mode: EDID.Mode) {
    let bytes = EDID(preferred: mode).bytes.map { Int($0) }
    #expect(bytes.reduce(0, +) % 256 == 0)
    let detail = Array(bytes[0x36..<0x48])
    let clock = (detail[0] | detail[1] << 8) * 10_000
    let width = detail[2] | (detail[4] >> 4) << 8
    let hBlank = detail[3] | (detail[4] & 15) << 8
    let height = detail[5] | (detail[7] >> 4) << 8
    let vBlank = detail[6] | (detail[7] & 15) << 8
    let hSyncEnd = detail[8] | (detail[11] >> 6) << 8 + detail[9] | (detail[11] >> 4 & 3) << 8
    #expect(hSyncEnd <= hBlank || width < 16)
    if mode.width <= 4095 && mode.width > 0 {
      #expect(width == mode.width && height == mode.height)
      let rate = Double(clock) / Double((width + hBlank) * (height + vBlank))
      #expect((59.5...60.5).contains(rate) || clock == 655_350_000)
    }
  }

  @Test("standard modes are those that can be encoded, at most eight")
  func standardModes() {
    let modes = [EDID.Mode(width: 1024, height: 700)] + EDID.standardModes + EDID.standardModes
    let bytes = EDID(modes: modes).bytes
    #expect(bytes[0x26..<0x36].elementsEqual(EDID().bytes[0x26..<0x36]))
    #expect(bytes[0x26] == UInt8(1920 / 8 - 31) && bytes[0x27] == 0xC0)
    #expect(EDID(modes: []).bytes[0x26..<0x36].allSatisfy { $0 == 0x01 })
  }
}
