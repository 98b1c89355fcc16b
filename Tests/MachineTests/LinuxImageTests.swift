import LinuxSystem
import Machine
import TestSupport
import Testing

/// A kernel with a setup header, and what it says of itself.
struct SyntheticKernel {
  var version: UInt16 = 0x020C
  var setupSectors: UInt8 = 1
  var loadFlags: UInt8 = 1
  var jump: UInt8 = 0x6A
  var code32Start: UInt32 = 0x10_0000
  var isRelocatable = false
  var longFlags: UInt16 = 0
  var preferredAddress: UInt64 = 0
  var initialSize: UInt32 = 0x1_0000
  var ramDiskMaximum: UInt32 = 0x7FFF_FFFF
  var commandLineSize: UInt32 = 2047
  /// For real mode, at 0x26C of its segment, where `jump` leads.
  var setup: [UInt8] = []
  var program = GuestProgram()

  var bytes: [UInt8] {
    var file = [UInt8](repeating: 0, count: (Int(setupSectors) + 1) * 512)
    func put(_ value: some FixedWidthInteger, _ offset: Int) {
      for index in 0..<value.bitWidth / 8 {
        file[offset + index] = UInt8(truncatingIfNeeded: value >> (index * 8))
      }
    }
    put(setupSectors, 0x1F1)
    put(UInt16(0xAA55), 0x1FE)
    put(UInt8(0xEB), 0x200)
    put(jump, 0x201)
    put(UInt32(0x5372_6448), 0x202)
    put(version, 0x206)
    put(loadFlags, 0x211)
    put(code32Start, 0x214)
    put(ramDiskMaximum, 0x22C)
    put(UInt8(isRelocatable ? 1 : 0), 0x234)
    put(longFlags, 0x236)
    put(commandLineSize, 0x238)
    put(preferredAddress, 0x258)
    put(initialSize, 0x260)
    file.replaceSubrange(0x26C..<0x26C + setup.count, with: setup)
    let entry = longFlags & 1 == 0 ? [] : [UInt8](repeating: 0xF4, count: 0x200)
    return file + entry + program.bytes + [0xF4]
  }
}

@Suite("Kernels with Linux's setup header", .needsKVM)
struct LinuxImageTests {
  /// Sends the start of its command line, then the words of the boot parameters.
  private func program(showing words: UInt32...) -> GuestProgram {
    var program = GuestProgram()
    program.emit(0x8B, 0x9E)  // mov ebx, [esi + 0x228]
    program.emit(word: 0x228)
    for _ in 0..<3 {
      program.emit(0x8A, 0x03)  // mov al, [ebx]
      program.sendAL()
      program.emit(0x83, 0xC3, 0x01)  // add ebx, 1
    }
    for word in words {
      program.emit(0x8B, 0x86)  // mov eax, [esi + word]
      program.emit(word: word)
      for _ in 0..<4 {
        program.sendAL()
        program.emit(0xC1, 0xE8, 0x08)  // shr eax, 8
      }
    }
    program.powerOff()
    return program
  }

  private func output(
    of kernel: SyntheticKernel, ramDisk: [UInt8]? = nil, commandLine: String = "xyz and more"
  ) throws -> [UInt8] {
    let guest = try TestGuest(GuestProgram()) { configuration, directory in
      configuration.endsOnReset = true
      configuration.boot = .kernel(
        path: try directory.write(kernel.bytes, to: "bzImage"),
        initialRAMDisk: try ramDisk.map { try directory.write($0, to: "ramdisk") },
        commandLine: commandLine)
    }
    #expect(try guest.run() == .guestShutdown)
    return try guest.directory.read("serial")
  }

  @Test("are entered in protected mode, or in long mode where they offer it")
  func entries() throws {
    let program = program(showing: 0x202)
    for longFlags: UInt16 in [0, 1] {
      let kernel = SyntheticKernel(longFlags: longFlags, program: program)
      #expect(try output(of: kernel) == Array("xyzHdrS".utf8))
    }
  }

  @Test("lie where they prefer to if they may be moved, else where they must")
  func places() throws {
    for (isRelocatable, place) in [(true, 0x40_0000), (false, 0x20_0000)] as [(Bool, UInt32)] {
      var program = GuestProgram()
      program.emit(0xE8)  // call the next instruction
      program.emit(word: 0)
      program.emit(0x58)  // pop eax
      for _ in 0..<4 {
        program.sendAL()
        program.emit(0xC1, 0xE8, 0x08)
      }
      program.powerOff()
      let kernel = SyntheticKernel(
        code32Start: 0x20_0000, isRelocatable: isRelocatable, preferredAddress: 0x40_0000,
        program: program)
      let bytes = try output(of: kernel)
      #expect(bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) } == place + 5)
    }
  }

  @Test("find their RAM disk below the limit that they set")
  func ramDisk() throws {
    let kernel = SyntheticKernel(
      ramDiskMaximum: 0x7F_FFFF, program: program(showing: 0x218, 0x21C))
    let bytes = try output(of: kernel, ramDisk: Array(repeating: 7, count: 5000))
    #expect(Array(bytes[3..<7]) == [0x00, 0xE0, 0x7F, 0x00])
    #expect(Array(bytes[7..<11]) == [0x88, 0x13, 0, 0])
  }

  /// It times the processor with the x87's arithmetic, which not every host's KVM emulates.
  @Test(
    "Debian's memory tester starts at its 64-bit and its 32-bit entry, and tests",
    arguments: ["x64", "ia32"])
  func memoryTester(architecture: String) throws {
    let guest = try TestGuest(GuestProgram()) { configuration, _ in
      configuration.display = .standard
      configuration.boot = .kernel(
        path: "/boot/memtest86+\(architecture).bin", initialRAMDisk: nil,
        commandLine: "console=ttyS0,115200")
    }
    try guest.machine.resume()
    try eventually("the tester to clear its terminal") {
      guest.output.hasPrefix("\u{1B}[2J\u{1B}[?25l")
    }
    try eventually("its first test", seconds: 300) {
      guest.machine.stuckReason != nil || guest.output.contains("Address test")
    }
    #expect(guest.machine.stuckReason == nil)
  }

  @Test("that no loader can start are refused, and the field is named")
  func refused() throws {
    let directory = try TemporaryDirectory()
    func problem(
      _ kernel: SyntheticKernel, commandLine: String = "", cut: Int = 0
    ) throws -> String {
      var configuration = MachineConfiguration()
      configuration.memory = 16 << 20
      configuration.boot = .kernel(
        path: try directory.write(kernel.bytes.dropLast(cut), to: "bzImage"),
        initialRAMDisk: nil, commandLine: commandLine)
      let error = #expect(throws: MachineError.self) { try Machine(configuration) }
      return error?.context ?? ""
    }
    #expect(try problem(.init(version: 0x0201)).contains("boot protocol 2.1"))
    #expect(try problem(.init(loadFlags: 0)).contains("zImage"))
    #expect(try problem(.init(setupSectors: 60), cut: 500).contains("setup_sects says 60"))
    #expect(try problem(.init(jump: 2)).contains("setup header ends at 0x204"))
    #expect(try problem(.init(code32Start: 0xF000_0000)).contains("lie at 0xf0000000, where"))
    #expect(
      try problem(.init(initialSize: 0x4000_0000)).contains("needs 1024 MiB at 0x100000"))
    let long = String(repeating: "x", count: 100)
    #expect(
      try problem(.init(commandLineSize: 99), commandLine: long).contains(
        "has 100 bytes; it may have 99"))
  }
}
