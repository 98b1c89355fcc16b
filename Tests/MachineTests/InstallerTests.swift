import LinuxSystem
import Machine
import TestSupport
import Testing

/// As a desktop has it that a pool gives an installer and an empty disk to: the disk first.
@Suite("Installing from an ISO to an empty disk under SeaBIOS", .needsKVM, .serialized)
struct InstallerTests {
  /// At 7C00h, from the disc: writes what is behind it in the image to the disk, and resets.
  private static let installer: [UInt8] = [
    [0xFA, 0xFC],  // cli; cld
    [0x31, 0xC0, 0x8E, 0xD8, 0x8E, 0xC0, 0x8E, 0xD0],  // xor ax, ax; mov ds, es, ss, ax
    [0xBC, 0x00, 0x7C, 0xFB],  // mov sp, 7C00h; sti
    [0xB4, 0x43, 0xB0, 0x00, 0xB2, 0x80],  // mov ah, 43h; mov al, 0; mov dl, 80h: the first disk
    [0xBE, 0x80, 0x7C, 0xCD, 0x13],  // mov si, 7C80h; int 13h
    [0x72, 0x0D],  // jc 28
    [0xBE, 0x90, 0x7C, 0xE8, 0x0F, 0x00],  // mov si, 7C90h; call 30
    [0xB0, 0xFE, 0xE6, 0x64],  // mov al, FEh; out 64h, al: the keyboard controller's reset line
    [0xF4, 0xEB, 0xFD],  // 25: hlt; jmp 25
    [0xBE, 0xB0, 0x7C, 0xE8, 0x02, 0x00],  // 28: mov si, 7CB0h; call 30
    [0xEB, 0xF5],  // jmp 25
    [0xAC, 0x84, 0xC0, 0x74, 0x09],  // 30: lodsb; test al, al; jz 3E
    [0xB4, 0x0E, 0xBB, 0x07, 0x00, 0xCD, 0x10],  // mov ah, 0Eh; mov bx, 7; int 10h
    [0xEB, 0xF2, 0xC3],  // jmp 30; 3E: ret
  ].flatMap { $0 }

  /// At 7C00h, from the disk: reads its second sector, says what is in it, and is switched off
  /// by a key.
  private static let bootSector: [UInt8] = [
    [0xFA, 0xFC],  // cli; cld
    [0x31, 0xC0, 0x8E, 0xD8, 0x8E, 0xC0, 0x8E, 0xD0],  // xor ax, ax; mov ds, es, ss, ax
    [0xBC, 0x00, 0x7C, 0xFB],  // mov sp, 7C00h; sti
    [0xB4, 0x42, 0xBE, 0x80, 0x7C, 0xCD, 0x13],  // mov ah, 42h; mov si, 7C80h; int 13h
    [0x72, 0x11, 0xBE, 0x00, 0x80],  // jc 28; mov si, 8000h
    [0xAC, 0x84, 0xC0, 0x74, 0x09],  // 1A: lodsb; test al, al; jz 28
    [0xB4, 0x0E, 0xBB, 0x07, 0x00, 0xCD, 0x10, 0xEB, 0xF2],  // int 10h, as above; jmp 1A
    [0x30, 0xE4, 0xCD, 0x16],  // 28: xor ah, ah; int 16h
    [0xBA, 0x04, 0x06, 0xB8, 0x00, 0x20, 0xEF],  // mov dx, 604h; mov ax, 2000h; out dx, ax
    [0xF4, 0xEB, 0xFD],  // 33: hlt; jmp 33
  ].flatMap { $0 }

  /// The disk address packet of interrupt 13h (Enhanced Disk Drive Specification 3.0).
  private static func packet(_ sectors: UInt8, at address: UInt16, from sector: UInt8) -> [UInt8] {
    [16, 0, sectors, 0, UInt8(truncatingIfNeeded: address), UInt8(address >> 8), 0, 0, sector]
      + [UInt8](repeating: 0, count: 7)
  }

  /// One sector of parts at their offsets.
  private static func sector(_ parts: (offset: Int, bytes: [UInt8])...) -> [UInt8] {
    var sector = [UInt8](repeating: 0, count: 512)
    for part in parts {
      sector.replaceSubrange(part.offset..<part.offset + part.bytes.count, with: part.bytes)
    }
    return sector
  }

  private func makeDisc(_ files: TemporaryDirectory, saying text: String) throws {
    let loader =
      Self.sector(
        (0, Self.installer), (0x80, Self.packet(2, at: 0x7E00, from: 0)),
        (0x90, Array("It is installed.\r\n\0".utf8)), (0xB0, Array("It failed.\r\n\0".utf8)))
      + Self.sector(
        (0, Self.bootSector), (0x80, Self.packet(1, at: 0x8000, from: 1)), (510, [0x55, 0xAA]))
      + Self.sector((0, Array("\(text)\r\n\0".utf8))) + Self.sector()
    #expect(try files.run("mkdir tree").status == 0)
    try files.write(loader, to: "tree/loader.bin")
    let (status, output) = try files.run(
      "xorriso -as mkisofs -quiet -o installer.iso -b loader.bin -c boot.cat -no-emul-boot"
        + " -boot-load-size 4 tree 2>&1")
    #expect(status == 0, "\(output)")
  }

  @Test(
    "what the installer put on the disk is booted after the reset, and by the next machine",
    .needs("xorriso"), arguments: MachineConfiguration.Disk.Bus.allCases)
  func installed(bus: MachineConfiguration.Disk.Bus) throws {
    let files = try TemporaryDirectory()
    let text = "This is the disk, on \(bus.rawValue)."
    try makeDisc(files, saying: text)
    try files.write([UInt8](repeating: 0, count: 1 << 20), to: "disk.raw")
    for isEmpty in [true, false] {
      var configuration = MachineConfiguration()
      configuration.memory = 64 << 20
      configuration.disks = [.init(path: files.path("disk.raw"), bus: bus)]
      configuration.cdrom = files.path("installer.iso")
      configuration.bootOrder = [.disk, .cdrom]
      configuration.sendScreen(to: files.path("serial"))
      let machine = try Machine(configuration)
      defer { machine.tearDown() }
      let console = Console(try SerialPeer(configuration))
      try machine.resume()
      // SeaBIOS keeps the last character to itself until another comes.
      if isEmpty { try console.wait(for: "It is installed", on: machine) }
      let before = try console.wait(for: text, on: machine)
      #expect(!before.contains("installed"), "the installer came again: \(before)")
      machine.type("\n")
      #expect(machine.waitForEnd() == .guestShutdown)
    }
    let disk = try files.read("disk.raw")
    #expect(disk[510..<512] == [0x55, 0xAA] && disk[1024...].allSatisfy { $0 == 0 })
  }
}
