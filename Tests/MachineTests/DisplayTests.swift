import DeviceModel
import Display
import DisplayLink
import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("A machine's screen", .needsKVM)
struct DisplayTests {
  /// A mode of 64 × 48 in 32 bits, one pixel, and another for each key event.
  private var program: GuestProgram {
    var program = GuestProgram()
    program.setMode()
    program.send("r")
    program.readKeyboardController()
    program.store(0x00FF_8001, at: 0xFD00_0000 + (10 * 64 + 7) * 4)
    program.send("k")
    program.stop()
    return program
  }

  private func guest() throws -> TestGuest {
    try TestGuest(program) { configuration, _ in configuration.display = .standard }
  }

  @Test("a display on the link sees the guest's mode, its pixels, and what a key changes")
  func link() throws {
    let guest = try guest()
    let output = try DisplayOutput(of: guest.machine, path: nil)
    try guest.machine.resume()
    try guest.awaitOutput("r")
    let link = try DisplayLinkClient(connected: try output.connect())
    let poller = try Poller()
    try poller.add(link.descriptor, token: 0)
    var surface: DisplaySurface?
    var damage = Region()
    func process() throws {
      _ = try poller.wait(milliseconds: 2000)
      for event in link.process() {
        switch event {
        case .surface(let new): surface = new
        case .damage(let region): damage.formUnion(region)
        default: break
        }
      }
      link.requestDamage()
    }
    while surface == nil { try process() }
    let shown = try #require(surface)
    #expect(shown.scanout.width == 64)
    #expect(shown.scanout.height == 48)
    #expect(Array(shown.bytes.prefix(3)) == [0x33, 0x22, 0x11])
    link.send(.key(KeyCode(0x1E), pressed: true))
    while damage.isEmpty { try process() }
    #expect(damage.contains(x: 7, y: 10))
    #expect(shown.bytes[(10 * 64 + 7) * 4 + 1] == 0x80)
    #expect(output.displayCount == 1)
  }

  @Test("a screenshot has the pixels, as PNG and as PPM")
  func screenshot() throws {
    let guest = try guest()
    let output = try DisplayOutput(of: guest.machine, path: nil)
    try guest.machine.resume()
    try guest.awaitOutput("r")
    let picture = try output.screenshot()
    #expect(picture.width == 64)
    #expect(picture.height == 48)
    #expect(Array(picture.pixels.prefix(6)) == [0x11, 0x22, 0x33, 0, 0, 0])
    #expect(Array(picture.ppm.prefix(16)) == Array("P6\n64 48\n255\n".utf8) + [0x11, 0x22, 0x33])
    let png = try picture.png()
    #expect(Array(png.prefix(8)) == [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A])
    let path = try guest.directory.write(png, to: "screen.png")
    let (status, text) = try guest.directory.run("identify -format '%wx%h' \(path)")
    #expect(status == 0)
    #expect(text.contains("64x48"))
  }

  @Test("a guest that moves its frame buffer is seen before, meanwhile and after")
  func moving() throws {
    var program = GuestProgram()
    program.setMode()
    program.send("r")
    program.readKeyboardController()
    program.store(0x00FF_8001, at: 0xFD00_0000 + (10 * 64 + 7) * 4)
    // That was not looked at yet when the buffer moves.
    program.outLong(0xCF8, 0x8000_1010)
    program.outLong(0xCFC, 0xE000_0000)
    program.send("m")
    program.store(0x0012_3456, at: 0xE000_0000 + (20 * 64 + 9) * 4)
    program.store(0x0065_4321, at: 0xFD00_0000 + (30 * 64 + 9) * 4)  // nothing there now
    program.send("d")
    program.stop()
    let guest = try TestGuest(program) { configuration, _ in configuration.display = .standard }
    let output = try DisplayOutput(of: guest.machine, path: nil)
    try guest.machine.resume()
    try guest.awaitOutput("r")
    let link = try DisplayLinkClient(connected: try output.connect())
    let poller = try Poller()
    try poller.add(link.descriptor, token: 0)
    var surface: DisplaySurface?
    var damage = Region()
    func process() throws {
      try #require(try !poller.wait(milliseconds: 10_000).isEmpty, "no damage came")
      for event in link.process() {
        switch event {
        case .surface(let new): surface = new
        case .damage(let region): damage.formUnion(region)
        default: break
        }
      }
      link.requestDamage()
    }
    while surface == nil { try process() }
    damage = Region()
    link.send(.key(KeyCode(0x1E), pressed: true))
    while !damage.contains(x: 7, y: 10) || !damage.contains(x: 9, y: 20) { try process() }
    try guest.awaitOutput("rmd")
    let shown = try #require(surface)
    #expect(Array(shown.bytes[((10 * 64 + 7) * 4)...].prefix(3)) == [0x01, 0x80, 0xFF])
    #expect(Array(shown.bytes[((20 * 64 + 9) * 4)...].prefix(3)) == [0x56, 0x34, 0x12])
    #expect(Array(shown.bytes[((30 * 64 + 9) * 4)...].prefix(3)) == [0, 0, 0])
    let picture = try output.screenshot()
    #expect(Array(picture.pixels[((20 * 64 + 9) * 3)...].prefix(3)) == [0x12, 0x34, 0x56])
  }

  @Test("a machine that was reset has lost its picture")
  func reset() throws {
    let guest = try guest()
    let output = try DisplayOutput(of: guest.machine, path: nil)
    try guest.machine.resume()
    try guest.awaitOutput("r")
    #expect(try output.screenshot().pixels.contains { $0 != 0 })
    try guest.machine.pause()
    try guest.machine.reset()
    #expect(try output.screenshot().pixels.allSatisfy { $0 == 0 })
  }

  @Test("two machines cannot publish at the same path")
  func pathInUse() throws {
    let guest = try guest()
    let path = guest.directory.path("link")
    let output = try DisplayOutput(of: guest.machine, path: path)
    let error = #expect(throws: SystemError.self) {
      try DisplayOutput(of: guest.machine, path: path)
    }
    #expect(error?.kind == .addressInUse)
    withExtendedLifetime(output) {}
  }
}

extension GuestProgram {
  /// A mode of 64 × 48 in 32 bits with one pixel; the keyboard is enabled.
  mutating func setMode() {
    for (index, value) in [(4, 0), (1, 64), (2, 48), (3, 32), (4, 0x41)] as [(UInt16, UInt16)] {
      outWord(0x1CE, index)
      outWord(0x1CF, value)
    }
    outByte(0x3C0, 0x20)  // the attribute controller: show the picture
    store(0x0011_2233, at: 0xFD00_0000)
    outByte(0x64, 0xAE)  // enable the keyboard
  }
}

@Suite("Firmware", .needsKVM)
struct FirmwareTests {
  /// Sends a letter and switches off.
  static func bootSector(_ letter: Character) -> [UInt8] {
    let sector: [UInt8] = [
      0xBA, 0xF8, 0x03, 0xB0, letter.asciiValue ?? 0, 0xEE,  // mov dx,0x3f8; mov al; out dx,al
      0xBA, 0x04, 0x06, 0xB8, 0x00, 0x20, 0xEF,  // mov dx,0x604; mov ax,0x2000; out dx,ax
      0xF4, 0xEB, 0xFD,
    ]
    return sector + [UInt8](repeating: 0, count: 510 - sector.count) + [0x55, 0xAA]
  }

  @Test("SeaBIOS given as a ROM image finds the VGA BIOS, too")
  func romWithDisplay() throws {
    let guest = try TestGuest(GuestProgram()) { configuration, _ in
      configuration.boot = .rom(path: configuration.firmwareDirectory + "/bios-256k.bin")
      configuration.display = .standard
      configuration.memory = 32 << 20
      configuration.cdrom = nil
    }
    let output = try DisplayOutput(of: guest.machine, path: nil)
    try guest.machine.resume()
    // Its first lines; without the VGA BIOS there is never a picture.
    var picture = try output.screenshot()
    while picture.width != 720 || picture.pixels.allSatisfy({ $0 == 0 }) {
      try #require(guest.machine.status == .running)
      picture = try output.screenshot()
    }
    #expect(picture.height == 400)
  }

  @Test("SeaBIOS finds the disk and runs its boot sector")
  func bootSector() throws {
    let disk = Self.bootSector("B") + [UInt8](repeating: 0, count: (1 << 20) - 512)
    let guest = try TestGuest(GuestProgram()) { configuration, directory in
      configuration.boot = .firmware
      configuration.display = .standard
      configuration.memory = 32 << 20
      configuration.disks = [.init(path: try directory.write(disk, to: "disk"))]
    }
    #expect(try guest.run() == .guestShutdown)
    #expect(guest.output == "B")
  }

  @Test("a missing BIOS is named with the package that has it")
  func missingFirmware() {
    var configuration = MachineConfiguration()
    configuration.firmwareDirectory = "/nonexistent"
    let error = #expect(throws: MachineError.self) { try Machine(configuration) }
    #expect(error?.context.contains("package seabios") == true)
  }

  @Test("a missing ISO is named, and nothing is left behind")
  func missingISO() {
    var configuration = MachineConfiguration()
    configuration.cdrom = "/nonexistent/boot.iso"
    let error = #expect(throws: (any Error).self) { try Machine(configuration) }
    #expect(error.map { "\($0)".contains("/nonexistent/boot.iso") } == true)
  }
}
