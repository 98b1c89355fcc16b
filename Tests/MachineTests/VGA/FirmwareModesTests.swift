import LinuxSystem
import Machine
import TestSupport
import Testing

/// SeaBIOS and its VGA BIOS set modes and write text, on our machine and on QEMU,
/// from the same disk. What is on the screens must be the same.
@Suite(
  "Modes set by real firmware", .needsKVM, .needsQEMU,
  .serialized)
struct FirmwareModesTests {
  /// Text, CGA, EGA and VGA modes, then VBE modes with linear frame buffer. Not mode 7:
  /// the VGA BIOS programs its CRTC before it moves it to 3B4h, so nothing arrives.
  private static let modes: [UInt16] = [
    0x03, 0x01, 0x04, 0x06, 0x0D, 0x0E, 0x0F, 0x10, 0x11, 0x12, 0x13, 0x4101, 0x4110, 0x4111,
    0x4112, 0x4142, 0x03,
  ]

  @Test("every mode looks as on QEMU, to the pixel")
  func modes() throws {
    let directory = try TemporaryDirectory()
    let disk = try directory.write(Self.bootSector, to: "disk")
    let (ours, theirs) = try UnixSocket.pair(kind: .stream)
    let qemu = try QEMU(
      [
        "-machine", "pc", "-accel", "tcg", "-m", "32", "-vga", "std",
        "-drive", "file=\(disk),format=raw,if=ide", "-chardev", "socket,id=serial,fd=4",
        "-serial", "chardev:serial",
      ], descriptors: [4: theirs.descriptor])
    let peer = ModeSetter(ours)

    var configuration = MachineConfiguration()
    configuration.memory = 32 << 20
    configuration.disks = [.init(path: disk, isReadOnly: true)]
    configuration.serial = .socket(directory.path("serial"))
    let machine = try Machine(configuration)
    defer { machine.tearDown() }
    let display = try DisplayOutput(of: machine, path: nil)
    let guest = ModeSetter(
      try UnixSocket.connect(to: directory.path("serial"), kind: .stream))
    try machine.resume()
    try peer.waitUntilReady()
    try guest.waitUntilReady()
    for mode in Self.modes {
      try peer.set(mode)
      try guest.set(mode)
      let expected = try qemu.screendump()
      let picture = try display.screenshot()
      let name = "mode \(String(mode, radix: 16))"
      #expect(picture.pixels.contains { $0 != 0 }, "\(name) is empty")
      // Not compared within the macro, which would search for the shortest edit.
      let difference = Self.difference(picture.ppm, expected, isFiveBits: mode == 0x4110)
      #expect(difference == nil, "\(name), \(picture.width)x\(picture.height)")
    }
  }

  /// QEMU leaves the low bits of 15-bit colours clear, where pixman repeats the high.
  private static func difference(
    _ ours: [UInt8], _ theirs: [UInt8], isFiveBits: Bool
  ) -> String? {
    if ours == theirs { return nil }
    let places = zip(ours, theirs).enumerated().filter { offset, bytes in
      isFiveBits && offset >= 15 ? (bytes.0 ^ bytes.1) & 0xF8 != 0 : bytes.0 != bytes.1
    }
    if places.isEmpty && ours.count == theirs.count { return nil }
    return "\(ours.count) against \(theirs.count) bytes, of which \(places.count) differ,"
      + " the first at \(places.first?.offset ?? -1)"
  }

  /// QEMU is no model for VBE modes of four planes: what its sequencer has in VBE modes
  /// is never written by the guest, and nothing or the wrong appears. Mode 12h is one.
  @Test("a VBE mode of four planes looks as the VGA's own, in a larger picture")
  func planes() throws {
    let directory = try TemporaryDirectory()
    var configuration = MachineConfiguration()
    configuration.memory = 32 << 20
    configuration.disks = [.init(path: try directory.write(Self.bootSector, to: "disk"))]
    configuration.serial = .socket(directory.path("serial"))
    let machine = try Machine(configuration)
    defer { machine.tearDown() }
    let display = try DisplayOutput(of: machine, path: nil)
    let guest = ModeSetter(
      try UnixSocket.connect(to: directory.path("serial"), kind: .stream))
    try machine.resume()
    try guest.waitUntilReady()
    try guest.set(0x12)
    let small = try display.screenshot()
    try guest.set(0x4101)
    try guest.set(0x0102)
    let large = try display.screenshot()
    #expect(small.width == 640 && large.width == 800 && large.height == 600)
    for row in 0..<480 {
      let ours = large.pixels[(row * 800 * 3)...].prefix(640 * 3)
      let isSame = ours.elementsEqual(small.pixels[(row * 640 * 3)...].prefix(640 * 3))
      #expect(isSame, "row \(row)")
    }
    #expect(small.pixels.contains { $0 != 0 })
  }

  /// Reads a mode number from the serial port, sets that mode, switches the cursor
  /// off, writes 12 characters, answers with a dot, and so on.
  private static let bootSector: [UInt8] = {
    let code: [UInt8] = [
      0xFA,  // cli
      0x31, 0xC0,  // xor ax, ax
      0x8E, 0xD8, 0x8E, 0xC0, 0x8E, 0xD0,  // mov ds, ax; mov es, ax; mov ss, ax
      0xBC, 0x00, 0x7C,  // mov sp, 7C00h
      0xFB,  // sti
      0xEB, 0x30,  // jmp done
      // next:
      0xE8, 0x35, 0x00, 0x88, 0xC3,  // call receive; mov bl, al
      0xE8, 0x30, 0x00, 0x88, 0xC7,  // call receive; mov bh, al
      0x89, 0xD8,  // mov ax, bx
      0x80, 0xFF, 0x00, 0x74, 0x03,  // cmp bh, 0; je set
      0xB8, 0x02, 0x4F,  // mov ax, 4F02h
      // set:
      0xCD, 0x10,  // int 10h
      0xB8, 0x00, 0x01, 0xB9, 0x00, 0x20, 0xCD, 0x10,  // mov ax, 100h; mov cx, 2000h; int 10h
      0xB9, 0x0C, 0x00,  // mov cx, 12
      // character:
      0x51, 0x88, 0xC8, 0x04, 0x21,  // push cx; mov al, cl; add al, '!'
      0xB4, 0x0E, 0xBB, 0x0B, 0x00, 0xCD, 0x10,  // mov ah, 0Eh; mov bx, 11; int 10h
      0x59, 0xE2, 0xF1,  // pop cx; loop character
      // done:
      0xBA, 0xF8, 0x03, 0xB0, 0x2E, 0xEE,  // mov dx, 3F8h; mov al, '.'; out dx, al
      0xEB, 0xC8,  // jmp next
      // receive:
      0xBA, 0xFD, 0x03,  // mov dx, 3FDh
      0xEC, 0xA8, 0x01, 0x74, 0xFB,  // again: in al, dx; test al, 1; jz again
      0xBA, 0xF8, 0x03, 0xEC, 0xC3,  // mov dx, 3F8h; in al, dx; ret
    ]
    let sector = code + [UInt8](repeating: 0, count: 510 - code.count) + [0x55, 0xAA]
    return sector + [UInt8](repeating: 0, count: (1 << 20) - sector.count)
  }()
}

/// The host's end of the boot sector's serial line.
private struct ModeSetter {
  private let socket: UnixSocket

  init(_ socket: UnixSocket) { self.socket = socket }

  func set(_ mode: UInt16) throws {
    try socket.descriptor.writeAll([UInt8(mode & 0xFF), UInt8(mode >> 8)])
    try waitUntilReady()
  }

  func waitUntilReady() throws {
    let poller = try Poller()
    try poller.add(socket.descriptor, token: 0)
    while true {
      guard try !poller.wait(milliseconds: 60_000).isEmpty else {
        throw QEMU.Failure(description: "the boot sector does not answer")
      }
      let message = try socket.receive()
      if message.bytes.contains(UInt8(ascii: ".")) { return }
      if message.isEnd { throw QEMU.Failure(description: "the guest went away") }
    }
  }
}
