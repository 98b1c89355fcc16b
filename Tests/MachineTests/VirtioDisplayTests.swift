import DeviceModel
import Display
import DisplayLink
import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("A machine's virtio graphics card", .needsKVM)
struct VirtioDisplayTests {
  private enum Place {
    static let rings: UInt32 = 0x30_0000
    static let request: UInt32 = 0x30_3000
    static let answer: UInt32 = 0x30_4000
    static let pixels: UInt32 = 0x31_0000
  }

  private static let width: UInt32 = 64
  private static let height: UInt32 = 48

  /// Counts its commands, as the ring's index does.
  private struct Driver {
    var program = GuestProgram()
    private var count: UInt32 = 0

    init() {}

    mutating func command(_ type: UInt32, _ words: [UInt32]) {
      count += 1
      for (index, word) in ([type, 0, 0, 0, 0, 0] + words).enumerated() {
        program.store(word, at: Place.request + UInt32(index * 4))
      }
      program.describe(
        [(Place.request, UInt32(24 + words.count * 4), false), (Place.answer, 512, true)],
        rings: Place.rings)
      program.notifyVirtio(number: count, rings: Place.rings)
      program.awaitUsed(number: count, rings: Place.rings)
    }

    /// Shows a picture of one pixel.
    mutating func show() {
      program.findVirtio(slot: 2 << 3)
      program.startVirtio(rings: Place.rings)
      command(0x101, [1, 2, width, height])
      command(0x106, [1, 1, Place.pixels, 0, width * height * 4, 0])
      paint(0x0011_2233, x: 0, y: 0)
      command(0x103, [0, 0, width, height, 0, 1])
    }

    mutating func paint(_ color: UInt32, x: UInt32, y: UInt32) {
      let offset = (y * width + x) * 4
      program.store(color, at: Place.pixels + offset)
      command(0x105, [x, y, 1, 1, offset, 0, 1, 0])
      command(0x104, [x, y, 1, 1, 1, 0])
    }
  }

  private func guest(_ program: GuestProgram) throws -> TestGuest {
    try TestGuest(program) { configuration, directory in
      configuration.display = .virtio(outputs: 1)
      configuration.serial = .socket(directory.path("serial"))
    }
  }

  private func display(_ output: DisplayOutput) throws -> LinkedDisplay {
    try LinkedDisplay(try output.connect())
  }

  @Test("shows its picture and each flush, and tells the guest what size a viewer wants")
  func card() throws {
    var driver = Driver()
    driver.program.waitForSerial()
    driver.show()
    driver.program.send("s")
    driver.program.waitForSerial()
    driver.paint(0x00FF_8001, x: 7, y: 10)
    driver.program.send("p")
    // events_read, until it is there.
    let start = driver.program.bytes.count
    driver.program.emit(0x8B, 0x83)  // mov eax, [ebx + 2000h]
    driver.program.emit(word: 0x2000)
    driver.program.emit(0x85, 0xC0)  // test eax, eax
    driver.program.jump(0x74, to: start)
    driver.command(0x100, [])
    for offset in [UInt32(0), 1, 32, 33, 36, 37] {
      driver.program.emit(0xA0)  // mov al, [answer + offset]
      driver.program.emit(word: Place.answer + offset)
      driver.program.sendALWhenReady()
    }
    driver.program.powerOff()
    let guest = try guest(driver.program)
    let output = try DisplayOutput(of: guest.machine, path: nil)
    let display = try display(output)
    let peer = try SerialPeer(guest.machine.configuration)
    try guest.machine.resume()
    try display.process { $0?.scanout.source == .rendered }
    try peer.socket.send([1])
    #expect(try peer.read(1) == Array("s".utf8))
    try display.process { $0?.scanout.source == .graphicsMemory }
    let shown = try #require(display.surface)
    #expect(shown.scanout.width == 64 && shown.scanout.height == 48)
    #expect(Array(shown.bytes.prefix(4)) == [0x33, 0x22, 0x11, 0])
    while !output.isResting { try display.process() }
    try peer.socket.send([1])
    try display.process { _ in display.damage.contains(x: 7, y: 10) }
    #expect(shown.bytes[(10 * 64 + 7) * 4 + 1] == 0x80)
    #expect(try output.screenshot().width == 64)
    display.link.send(.resize(width: 1600, height: 900))
    #expect(try peer.read(7) == Array("p".utf8) + [0x01, 0x11, 0x40, 0x06, 0x84, 0x03])
    #expect(guest.machine.waitForEnd() == .guestShutdown)
  }

  @Test("has the same picture after it was saved and restored, and is a VGA after a reset")
  func restored() throws {
    var driver = Driver()
    driver.show()
    driver.program.send("s")
    driver.program.waitForSerial()
    driver.paint(0x0065_4321, x: 1, y: 0)
    driver.program.send("p")
    driver.program.stop()
    let guest = try guest(driver.program)
    let first = try SerialPeer(guest.machine.configuration)
    try guest.machine.resume()
    #expect(try first.read(1) == Array("s".utf8))
    let saved = try guest.machine.save()
    guest.machine.tearDown()
    var configuration = guest.machine.configuration
    configuration.serial = .socket(guest.directory.path("again"))
    let machine = try Machine(configuration, from: saved)
    defer { machine.tearDown() }
    let output = try DisplayOutput(of: machine, path: nil)
    let before = try output.screenshot()
    #expect(before.width == 64 && Array(before.pixels.prefix(6)) == [0x11, 0x22, 0x33, 0, 0, 0])
    let peer = try SerialPeer(configuration)
    try machine.resume()
    try peer.socket.send([1])
    #expect(try peer.read(1) == Array("p".utf8))
    #expect(
      Array(try output.screenshot().pixels.prefix(6)) == [0x11, 0x22, 0x33, 0x65, 0x43, 0x21])
    // Before the guest shows it again.
    try machine.pause()
    try machine.reset()
    #expect(try output.screenshot().width != 64)
  }

  @Test("shows the firmware's text, as its VGA does")
  func firmware() throws {
    let directory = try TemporaryDirectory()
    var pictures: [Screenshot] = []
    for display in [MachineConfiguration.Display.standard, .virtio(outputs: 1)] {
      var configuration = MachineConfiguration()
      configuration.memory = 32 << 20
      configuration.display = display
      configuration.serial = .file(directory.path("serial"))
      // Writes a line on the screen and a byte to the serial port, and halts.
      let code: [UInt8] =
        "virtio".utf8.flatMap { [0xB8, $0, 0x0E, 0xBB, 0x07, 0x00, 0xCD, 0x10] as [UInt8] }
        + [0xBA, 0xF8, 0x03, 0xB0, 0x21, 0xEE, 0xFA, 0xF4, 0xEB, 0xFC]
      let sector = code + [UInt8](repeating: 0, count: 510 - code.count) + [0x55, 0xAA]
      configuration.disks = [
        .init(
          path: try directory.write(
            sector + [UInt8](repeating: 0, count: (1 << 20) - 512), to: "disk"))
      ]
      let machine = try Machine(configuration)
      defer { machine.tearDown() }
      let output = try DisplayOutput(of: machine, path: nil)
      try machine.resume()
      try eventually("the guest to write on its screen") {
        (try? directory.read("serial")) == [0x21]
      }
      pictures.append(try output.screenshot())
    }
    #expect(pictures[0].width == 720 && pictures[0].height == 400)
    #expect(pictures[1].width == 720 && pictures[1].height == 400)
    #expect(pictures[0].pixels.contains { $0 > 0x80 })
  }
}

/// A display on the link, and what it was told.
private final class LinkedDisplay {
  let link: DisplayLinkClient
  private(set) var surface: DisplaySurface?
  private(set) var damage = Region()
  private let poller: Poller

  init(_ socket: UnixSocket) throws {
    link = try DisplayLinkClient(connected: socket)
    poller = try Poller()
    try poller.add(link.descriptor, token: 0)
  }

  /// Takes what comes next, or nothing for some time.
  func process() throws {
    _ = try poller.wait(milliseconds: 50)
    for event in link.process() {
      switch event {
      case .surface(let new):
        surface = new
        damage = Region()
      case .damage(let region): damage.formUnion(region)
      default: break
      }
    }
    link.requestDamage()
  }

  func process(until condition: (DisplaySurface?) -> Bool) throws {
    let deadline = MonotonicClock.now + 20_000_000_000
    while !condition(surface) {
      try #require(MonotonicClock.now < deadline, "it was not shown in time")
      try process()
    }
  }
}
