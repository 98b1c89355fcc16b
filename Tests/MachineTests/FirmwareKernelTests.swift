import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("Kernels that firmware starts", .needsKVM)
struct FirmwareKernelTests {
  /// Sends its segment registers, SP and flags; the header's fields from type_of_loader on;
  /// the start of its command line; and, which takes the firmware's service for it, that of
  /// the kernel and of the RAM disk.
  private static let setup: [UInt8] = [
    [0x9C, 0x54],  // pushf; push sp
    [0x0E, 0x1E, 0x06],  // push cs, ds, es
    [0x0F, 0xA0, 0x0F, 0xA8, 0x16],  // push fs, gs, ss
    [0xFC, 0xBA, 0xF8, 0x03],  // cld; mov dx, 3F8h
    [0x89, 0xE6, 0xB9, 0x10, 0x00, 0xF3, 0x6E],  // mov si, sp; mov cx, 16; rep outsb
    [0xBE, 0x10, 0x02, 0xB9, 0x1C, 0x00, 0xF3, 0x6E],  // mov si, 210h; mov cx, 28; rep outsb
    [0x66, 0xA1, 0x28, 0x02],  // mov eax, [228h]
    [0x66, 0xC1, 0xE8, 0x04, 0x8E, 0xE0],  // shr eax, 4; mov fs, ax
    [0x31, 0xF6, 0xB9, 0x0D, 0x00],  // xor si, si; mov cx, 13
    [0x64, 0xF3, 0x6E],  // rep fs outsb
    [0xE8, 0x1F, 0x00],  // call below
    [0x66, 0xA1, 0x18, 0x02],  // mov eax, [218h]
    [0xA3, 0xE6, 0x02],  // mov [the source's base], ax
    [0x66, 0xC1, 0xE8, 0x10],  // shr eax, 16
    [0xA2, 0xE8, 0x02, 0x88, 0x26, 0xEB, 0x02],  // mov [its high bytes], al, ah
    [0xE8, 0x0A, 0x00],  // call below
    [0xBA, 0x04, 0x06, 0xB8, 0x00, 0x20, 0xEF],  // out 604h, 2000h: ACPI S5
    [0xF4, 0xEB, 0xFD],  // hlt; jmp back
    // Move block: two words by the table at ES:SI; and send them.
    [0xBE, 0xD4, 0x02, 0xB9, 0x02, 0x00],  // mov si, the table; mov cx, 2
    [0xB4, 0x87, 0xCD, 0x15],  // mov ah, 87h; int 15h
    [0xBE, 0x00, 0x90, 0xBA, 0xF8, 0x03],  // mov si, 9000h; mov dx, 3F8h
    [0xB9, 0x04, 0x00, 0xFC, 0xF3, 0x6E],  // mov cx, 4; cld; rep outsb
    [0xC3],  // ret
    // The table: source at 1 MiB, target at 9000h of the segment.
    [UInt8](repeating: 0, count: 16),
    [0xFF, 0xFF, 0x00, 0x00, 0x10, 0x93, 0, 0], [0xFF, 0xFF, 0x00, 0x90, 0x01, 0x93, 0, 0],
    [UInt8](repeating: 0, count: 16),
  ].flatMap { $0 }

  private func guest(
    _ kernel: SyntheticKernel, memory: UInt64 = 16 << 20, underFirmware: Bool = false
  ) throws -> TestGuest {
    try TestGuest(GuestProgram()) { configuration, directory in
      configuration.memory = memory
      configuration.boot = .kernel(
        path: try directory.write(kernel.bytes, to: "bzImage"),
        initialRAMDisk: try directory.write(
          [4, 3, 2, 1] + [UInt8](repeating: 9, count: 5000), to: "disk"),
        commandLine: "from real mode", underFirmware: underFirmware)
    }
  }

  @Test(
    "are entered in real mode with all that they are given: for want of another entry, or if asked",
    arguments: [(0, false, 16), (0x10_0000, true, 64)] as [(UInt32, Bool, UInt64)])
  func entry(code32Start: UInt32, underFirmware: Bool, memory: UInt64) throws {
    var program = GuestProgram()
    program.emit(0xDE, 0xC0, 0xAD, 0x0B)
    let kernel = SyntheticKernel(
      code32Start: code32Start, setup: Self.setup, program: program)
    let guest = try guest(kernel, memory: memory << 20, underFirmware: underFirmware)
    #expect(try guest.run() == .guestShutdown)
    let bytes = try guest.directory.read("serial")
    try #require(bytes.count == 65)
    func number(_ offset: Int, _ count: Int = 2) -> Int {
      bytes[offset..<offset + count].reversed().reduce(0) { $0 << 8 | Int($1) }
    }
    // SS, GS, FS, ES, DS, CS, SP after one push, flags without IF.
    #expect((0..<6).map { number($0 * 2) } == Array(repeating: 0x1000, count: 5) + [0x1020])
    #expect(number(12) == 0xFFF0 - 2 && number(14) & 0x200 == 0)
    #expect(number(16, 1) == 0xFF, "type_of_loader")
    #expect(number(17, 1) == 0x81, "loadflags")
    let disk = number(24, 4)
    #expect(disk % 4096 == 0 && disk + 5004 <= memory << 20 && disk > 0x10_0000)
    #expect(number(28, 4) == 5004, "ramdisk_size")
    #expect(number(36) == 0xFE00, "heap_end_ptr")
    #expect(number(40, 4) == 0x2_0000, "cmd_line_ptr")
    #expect(String(decoding: bytes[44..<57], as: UTF8.self) == "from real mod")
    #expect(Array(bytes[57...]) == [0xDE, 0xC0, 0xAD, 0x0B, 4, 3, 2, 1])
  }

  @Test("are started anew after a reset")
  func reset() throws {
    // Counts in the last byte of CMOS RAM.
    let setup: [UInt8] = [
      [0xB0, 0x7F, 0xE6, 0x70],  // mov al, 7Fh; out 70h, al
      [0xE4, 0x71, 0xFE, 0xC0, 0xE6, 0x71],  // in al, 71h; inc al; out 71h, al
      [0x04, 0x30, 0xBA, 0xF8, 0x03, 0xEE],  // add al, '0'; out 3F8h, al
      [0x3C, 0x31, 0x75, 0x07],  // cmp al, '1'; jne below
      [0xBA, 0xF9, 0x0C, 0xB0, 0x06, 0xEE, 0xF4],  // out CF9h, 6: a reset; hlt
      [0xBA, 0x04, 0x06, 0xB8, 0x00, 0x20, 0xEF, 0xF4],  // out 604h, 2000h: ACPI S5; hlt
    ].flatMap { $0 }
    let guest = try guest(.init(code32Start: 0, setup: setup))
    #expect(try guest.run() == .guestShutdown)
    #expect(guest.output == "12")
  }

  /// Its real-mode code is another one than iPXE's or the test's.
  @Test(
    "Debian's memory tester starts at its entry for real mode", arguments: ["x64", "ia32"])
  func memoryTester(architecture: String) throws {
    let guest = try TestGuest(GuestProgram()) { configuration, _ in
      configuration.display = .standard
      configuration.boot = .kernel(
        path: "/boot/memtest86+\(architecture).bin", initialRAMDisk: nil,
        commandLine: "console=ttyS0,115200", underFirmware: true)
    }
    try guest.machine.resume()
    try eventually("the tester to clear its terminal") {
      guest.output.hasPrefix("\u{1B}[2J\u{1B}[?25l")
    }
  }

  @Test("that it cannot start are refused with the reason")
  func refused() throws {
    func problem(_ body: () throws -> TestGuest) throws -> String {
      let error = #expect(throws: MachineError.self) { try body() }
      return error?.context ?? ""
    }
    #expect(
      try problem { try guest(.init(setupSectors: 64, code32Start: 0)) }.contains(
        "has 33280 bytes of code for real mode, by setup_sects; there may be 32768"))
    #expect(
      try problem { try guest(.init(code32Start: 0, initialSize: 0x100_0000)) }.contains(
        "needs memory up to 0x1100000, which firmware does not leave it in 16 MiB"))
    #expect(
      try problem { try guest(.init(code32Start: 0, ramDiskMaximum: 0x10_0FFF)) }.contains(
        "the initial RAM disk of 0 MiB does not fit"))
    let elf = try problem {
      try TestGuest(GuestProgram()) { configuration, _ in
        guard case .kernel(let path, _, _, _) = configuration.boot else { return }
        configuration.boot = .kernel(
          path: path, initialRAMDisk: nil, commandLine: "", underFirmware: true)
      }
    }
    #expect(elf.contains("is an ELF file, which firmware cannot start"))
  }

  @Test("with any numbers in their header are put where there is room, or refused")
  func anyHeader() throws {
    let directory = try TemporaryDirectory()
    var random = SystemRandomNumberGenerator()
    var outcomes = (made: 0, refused: 0)
    for _ in 0..<400 {
      var kernel = SyntheticKernel(version: 0x020F, isRelocatable: Bool.random())
      let values: [UInt32] = [0, 1, 0x10_0000, 0x70_0000, 0xBFFF_F000, 0xFFFF_FFFF, random.next()]
      kernel.code32Start = values.randomElement() ?? 0
      kernel.initialSize = values.randomElement() ?? 0
      kernel.ramDiskMaximum = values.randomElement() ?? 0
      kernel.preferredAddress = values.randomElement().map { UInt64($0) << UInt64($0 & 32) } ?? 0
      kernel.longFlags = UInt16.random(in: 0...1)
      var bytes = kernel.bytes
      bytes[[0x1F1, 0x201, 0x211].randomElement() ?? 0x211] = UInt8.random(in: 0...255)
      var configuration = MachineConfiguration()
      configuration.memory = 16 << 20
      configuration.display = .none
      configuration.boot = .kernel(
        path: try directory.write(bytes, to: "bzImage"),
        initialRAMDisk: try directory.write([1, 2, 3], to: "disk"), commandLine: "",
        underFirmware: Bool.random())
      do {
        try Machine(configuration).tearDown()
        outcomes.made += 1
      } catch let error as MachineError {
        #expect(error.kind == .image)
        outcomes.refused += 1
      }
    }
    #expect(outcomes.made > 0 && outcomes.refused > 0)
  }
}
