import DeviceModel
import Display
import DisplayLink
import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("Saving a machine with its screen", .needsKVM)
struct SavedScreenTests {
  /// Screens of a paused machine and of one made from it.
  private func screens(
    _ machine: Machine, _ output: DisplayOutput, serial: String? = nil
  ) throws -> [Screenshot] {
    try machine.pause()
    let before = try output.screenshot()
    var configuration = machine.configuration
    if let serial { configuration.serial = .socket(serial) }
    let second = try Machine(configuration, from: try machine.save())
    defer { second.tearDown() }
    let secondOutput = try DisplayOutput(of: second, path: nil)
    let restored = try secondOutput.screenshot()
    try second.resume()
    try second.pause()
    let later = try secondOutput.screenshot()
    return [before, restored, later]
  }

  @Test("text of the firmware looks the same in the restored machine")
  func text() throws {
    let guest = try TestGuest(GuestProgram()) { configuration, directory in
      configuration.boot = .firmware
      configuration.display = .standard
      configuration.memory = 32 << 20
      configuration.serial = .socket(directory.path("line"))
      let sector: [UInt8] = [
        0xB4, 0x01, 0xB9, 0x00, 0x20, 0xCD, 0x10,  // no cursor: mov ah, 1; mov cx, 2000h; int 10h
        0xB8, 0x43, 0x0E, 0xBB, 0x07, 0x00, 0xCD, 0x10,  // mov ax, 0E43h; mov bx, 7; int 10h
        0xBA, 0xF8, 0x03, 0xB0, 0x72, 0xEE, 0xFA, 0xF4,  // mov dx, 3F8h; mov al, 'r'; out; cli; hlt
      ]
      let disk = sector + [UInt8](repeating: 0, count: 510 - sector.count) + [0x55, 0xAA]
      let path = try directory.write(
        disk + [UInt8](repeating: 0, count: (1 << 20) - 512), to: "disk")
      configuration.disks = [.init(path: path, isReadOnly: true)]
    }
    let output = try DisplayOutput(of: guest.machine, path: nil)
    let line = try SerialPeer(guest.machine.configuration)
    try guest.machine.resume()
    #expect(try line.read(1) == Array("r".utf8))
    let screens = try screens(guest.machine, output, serial: guest.directory.path("line2"))
    #expect(screens[0].width == 720 && screens[0].height == 400)
    #expect(screens[0].pixels.contains { $0 != 0 })
    for screen in screens.dropFirst() {
      let isSame = screen.ppm == screens[0].ppm
      #expect(isSame)
    }
  }

  @Test("a VBE mode looks the same, and its guest draws on in the restored machine")
  func extended() throws {
    var program = GuestProgram()
    program.setMode()
    program.send("r")
    program.readKeyboardController()
    program.store(0x00FF_8001, at: 0xFD00_0000 + (10 * 64 + 7) * 4)
    program.send("k")
    program.stop()
    let guest = try TestGuest(program) { configuration, _ in configuration.display = .standard }
    let output = try DisplayOutput(of: guest.machine, path: nil)
    try guest.machine.resume()
    try guest.awaitOutput("r")
    let screens = try screens(guest.machine, output)
    #expect(screens[0].width == 64 && screens[0].height == 48)
    #expect(Array(screens[0].pixels.prefix(3)) == [0x11, 0x22, 0x33])
    for screen in screens.dropFirst() {
      let isSame = screen.ppm == screens[0].ppm
      #expect(isSame)
    }

    let second = try Machine(guest.machine.configuration, from: try guest.machine.save())
    let secondOutput = try DisplayOutput(of: second, path: nil)
    try second.resume()
    second.send(.key(KeyCode(0x1E), pressed: true))
    try guest.awaitOutput("k")
    let drawn = try secondOutput.screenshot()
    #expect(Array(drawn.pixels[((10 * 64 + 7) * 3)...].prefix(3)) == [0xFF, 0x80, 0x01])
    #expect(Array(drawn.pixels.prefix(3)) == [0x11, 0x22, 0x33])
  }
}
