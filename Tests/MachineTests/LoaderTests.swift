import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("Kernel images", .needsKVM)
struct LoaderTests {
  private func failure(_ bytes: [UInt8], memory: UInt64 = 16 << 20) throws -> MachineError? {
    let directory = try TemporaryDirectory()
    var configuration = MachineConfiguration()
    configuration.memory = memory
    configuration.boot = .kernel(
      path: try directory.write(bytes, to: "kernel"), initialRAMDisk: nil, commandLine: "")
    return #expect(throws: MachineError.self) { try Machine(configuration) }
  }

  @Test("a file that is not ELF is refused, with what to give instead")
  func notELF() throws {
    let error = try failure(Array("#!/bin/sh\n".utf8))
    #expect(error?.kind == .image)
    #expect(error?.context.contains("not an ELF file") == true)
  }

  @Test("an ELF file that was cut off anywhere is refused as truncated", arguments: [20, 60, 200])
  func truncated(count: Int) throws {
    var program = GuestProgram()
    program.powerOff()
    let error = try failure(Array(program.elf().prefix(count)))
    #expect(error?.kind == .image)
    #expect(error?.context.contains("truncated") == true)
  }

  @Test(
    "a segment outside of RAM is refused, whatever its address",
    arguments: [0x2000_0000, 0xA_0000, 0xFFFF_FFFF_FFFF_F000, 0xFF_F000] as [UInt64])
  func outsideRAM(address: UInt64) throws {
    var program = GuestProgram()
    program.powerOff()
    let error = try failure(program.elf(at: address))
    #expect(error?.kind == .image)
    #expect(error?.context.contains("not RAM") == true)
    #expect(error?.context.contains("memory") == true)
  }

  @Test(
    "a segment where the machine puts something of its own is refused, and what that is is named",
    arguments: [
      (true, 0x6000, "start information"), (true, 0x1_F800, "command line"),
      (true, 0xE_0000, "ACPI root pointer"), (true, 0xD_F800, "ACPI root pointer"),
      (true, 0xE_0800, "ACPI tables"), (false, 0x500, "descriptor table"),
      (false, 0x6800, "boot parameters"), (false, 0xE000, "page tables"),
    ] as [(Bool, UInt64, String)])
  func conflict(isPVH: Bool, address: UInt64, what: String) throws {
    var program = GuestProgram()
    program.powerOff()
    let error = try failure(program.elf(isPVH: isPVH, at: address))
    #expect(error?.kind == .image)
    #expect(error?.context.contains("a segment at 0x\(String(address, radix: 16)) to ") == true)
    #expect(error?.context.contains(what) == true, "\(error?.context ?? "")")
    #expect(error?.context.contains("link the kernel elsewhere") == true)
  }

  @Test("a segment where only the other boot protocol has something is loaded")
  func noConflict() throws {
    var program = GuestProgram()
    program.send("x")
    program.powerOff()
    let guest = try TestGuest(program) { configuration, directory in
      configuration.boot = .kernel(
        path: try directory.write(program.elf(at: 0x9000), to: "low"), initialRAMDisk: nil,
        commandLine: "")
    }
    #expect(try guest.run() == .guestShutdown)
    #expect(guest.output == "x")
  }

  @Test("a kernel that is not there is named")
  func missing() throws {
    var configuration = MachineConfiguration()
    configuration.boot = .kernel(
      path: "/nonexistent/vmlinux", initialRAMDisk: nil, commandLine: "")
    let error = #expect(throws: MachineError.self) { try Machine(configuration) }
    #expect(error?.context.contains("/nonexistent/vmlinux") == true)
  }

  @Test("an initial RAM disk that does not fit is refused")
  func largeRAMDisk() throws {
    let directory = try TemporaryDirectory()
    var program = GuestProgram()
    program.powerOff()
    var configuration = MachineConfiguration()
    configuration.memory = 4 << 20
    configuration.boot = .kernel(
      path: try directory.write(program.elf(), to: "kernel"),
      initialRAMDisk: try directory.write([UInt8](repeating: 1, count: 4 << 20), to: "initrd"),
      commandLine: "")
    let error = #expect(throws: MachineError.self) { try Machine(configuration) }
    #expect(error?.context.contains("initial RAM disk") == true)
  }

  @Test("a PVH kernel finds magic number, command line, module and memory map")
  func pvh() throws {
    var program = GuestProgram()
    program.emit(0x8B, 0x03)  // mov eax, [ebx]
    program.emit(0x3D)  // cmp eax, magic
    program.emit(word: 0x336E_C578)
    program.emit(0x75, 0x20)  // jne to the end
    program.emit(0x8B, 0x73, 0x18)  // mov esi, [ebx+24]: command line
    program.emit(0xBA)
    program.emit(word: 0x3F8)
    program.emit(0xB9)
    program.emit(word: 5)
    program.emit(0xFC, 0xF3, 0x6E)  // cld; rep outsb
    program.emit(0x8B, 0x73, 0x10)  // mov esi, [ebx+16]: modules
    program.emit(0x8B, 0x36)  // mov esi, [esi]: the first one's address
    program.emit(0xB1, 0x04, 0xF3, 0x6E)  // mov cl, 4; rep outsb
    program.powerOff()
    let guest = try TestGuest(program) { configuration, directory in
      guard case .kernel(let path, _, _, _) = configuration.boot else { return }
      configuration.boot = .kernel(
        path: path, initialRAMDisk: try directory.write(Array("disk".utf8), to: "initrd"),
        commandLine: "hello world")
    }
    #expect(try guest.run() == .guestShutdown)
    #expect(guest.output == "hellodisk")
  }

  @Test("a 64-bit kernel is entered in long mode with the boot parameters in RSI")
  func linux64() throws {
    var program = GuestProgram()
    program.emit(0x8B, 0x86)  // mov eax, [rsi+0x202]
    program.emit(word: 0x202)
    program.emit(0x49, 0x89, 0xF0)  // mov r8, rsi: only long mode has it
    program.emit(0x45, 0x8B, 0x88)  // mov r9d, [r8+0x228]
    program.emit(word: 0x228)
    program.emit(0x44, 0x89, 0xCE)  // mov esi, r9d
    program.emit(0xBA)
    program.emit(word: 0x3F8)
    program.emit(0xB9)
    program.emit(word: 7)
    program.emit(0xFC, 0xF3, 0x6E)  // cld; rep outsb
    program.outByte(0x3F8, 0x3D)
    program.powerOff()
    let guest = try TestGuest(program, isPVH: false) { configuration, _ in
      guard case .kernel(let path, _, _, _) = configuration.boot else { return }
      configuration.boot = .kernel(path: path, initialRAMDisk: nil, commandLine: "quiet=1")
    }
    #expect(try guest.run() == .guestShutdown)
    #expect(guest.output == "quiet=1=")
  }
}
