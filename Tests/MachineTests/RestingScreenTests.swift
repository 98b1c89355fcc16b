import DeviceModel
import Display
import DisplayLink
import LinuxSystem
import Machine
import TestSupport
import Testing

/// A host without write-protecting userfaultfd looks again and again instead.
private let watchesMemory = (try? WriteWatch(MemoryMapping.shared(4096))) != nil

extension MemoryMapping {
  fileprivate static func shared(_ size: Int) throws -> MemoryMapping {
    try SharedMemory(name: "carrel-test", size: size).map()
  }
}

@Suite(
  "A screen that stands still",
  .needsKVM, .enabled(if: watchesMemory, "needs userfaultfd"),
  .timeLimit(.minutes(4)))
struct RestingScreenTests {
  /// A mode of 64 × 48 in 32 bits; then, for each key pressed and released, one of `changes` in turn.
  private func watched(_ changes: [(inout GuestProgram) -> Void]) throws -> Watched {
    var program = GuestProgram()
    let mode = [(4, 0), (1, 64), (2, 48), (3, 32), (4, 0x41)] as [(UInt16, UInt16)]
    for (index, value) in mode {
      program.outWord(0x1CE, index)
      program.outWord(0x1CF, value)
    }
    program.outByte(0x3C0, 0x20)  // the attribute controller: show the picture
    program.useRawKeyboard()
    program.send("r")
    for change in changes {
      // Set 2: one byte for the press, two for the release.
      for _ in 0..<3 { program.readKeyboardController() }
      change(&program)
    }
    program.send("e")
    program.stop()
    return try Watched(
      TestGuest(program) { configuration, _ in configuration.display = .standard })
  }

  private func pixel(_ x: Int, _ y: Int) -> UInt32 { 0xFD00_0000 + UInt32((y * 64 + x) * 4) }

  @Test("a write to the picture is seen, however often it stood still before")
  func write() throws {
    let rows = Array(0..<12)
    let watched = try watched(
      rows.map { row in { $0.store(0x00FF_FFFF, at: pixel(9, row)) } })
    for row in rows {
      try watched.awaitRest()
      watched.typeKey()
      try watched.awaitDamage(x: 9, y: row)
    }
  }

  @Test("a page flip, which writes no pixel, is seen")
  func register() throws {
    let watched = try watched([
      { program in
        program.outWord(0x1CE, 9)  // VBE_DISPI_INDEX_Y_OFFSET
        program.outWord(0x1CF, 48)
      }
    ])
    try watched.awaitRest()
    watched.typeKey()
    let surface = try watched.nextSurface()
    #expect(surface.scanout.offset == 64 * 4 * 48)
  }

  @Test("writes through the legacy window are seen one by one")
  func window() throws {
    let watched = try watched(
      (0..<3).map { row in { $0.store(0x00FF_FFFF, at: 0xA_0000 + UInt32((row * 64 + 5) * 4)) } })
    for row in 0..<3 {
      try watched.awaitRest()
      watched.typeKey()
      try watched.awaitDamage(x: 5, y: row)
    }
  }

  @Test("nothing that is drawn while rest begins is lost, and nobody waits for ever")
  func beginning() throws {
    let moments = Array(0..<36)
    let watched = try watched(
      moments.map { index in
        { program in
          // In turn through the window, whose writes pile up, and straight.
          let offset = UInt32((index * 64 + 5) * 4)
          program.store(0x00FF_FFFF, at: (index % 2 == 0 ? 0xA_0000 : 0xFD00_0000) + offset)
        }
      })
    for index in moments {
      try watched.pass(milliseconds: UInt64(90 + index))
      watched.typeKey()
      try watched.awaitDamage(x: 5, y: index)
    }
  }

  @Test("a machine can be reset, paused and ended while its picture rests")
  func lifecycle() throws {
    let watched = try watched([{ $0.store(0x00FF_FFFF, at: pixel(1, 1)) }])
    try watched.awaitRest()
    try watched.guest.machine.pause()
    try watched.awaitRest()
    try watched.guest.machine.resume()
    try watched.guest.machine.reset()
    try watched.guest.awaitOutput("rr")
    try watched.awaitRest()
    #expect(try watched.output.screenshot().width == 64)
    watched.guest.machine.quit()
    #expect(watched.guest.machine.waitForEnd() == .quit)
  }

  @Test("a machine that stands still ends while a writer is stopped")
  func endWithoutDisplay() throws {
    let watched = try watched([{ $0.store(0x00FF_FFFF, at: pixel(1, 1)) }])
    try watched.awaitRest()
    watched.typeKey()
    watched.guest.machine.quit()
    #expect(watched.guest.machine.waitForEnd() == .quit)
  }
}

/// A guest whose screen a display watches.
private final class Watched {
  let guest: TestGuest
  let output: DisplayOutput
  private let link: DisplayLinkClient
  private let poller: Poller

  init(_ guest: TestGuest) throws {
    self.guest = guest
    output = try DisplayOutput(of: guest.machine, path: nil)
    try guest.machine.resume()
    try guest.awaitOutput("r")
    link = try DisplayLinkClient(connected: try output.connect())
    poller = try Poller()
    try poller.add(link.descriptor, token: 0)
    _ = try nextSurface()
    link.requestDamage()
  }

  /// Not through the link, whose input makes the screen be looked at.
  func typeKey() {
    for pressed in [true, false] { guest.machine.send(.key(KeyCode(0x1E), pressed: pressed)) }
  }

  func awaitRest() throws {
    try eventually("rest") {
      _ = try events(within: 5)
      return output.isResting
    }
  }

  func nextSurface() throws -> DisplaySurface {
    var found: DisplaySurface?
    try eventually("a surface") {
      for case .surface(let surface) in try events(within: 100) { found = surface }
      return found != nil
    }
    return try #require(found)
  }

  /// Waits until this pixel is damaged, but not by damage of the whole picture.
  func awaitDamage(x: Int, y: Int) throws {
    try eventually("damage at \(x), \(y)") {
      try events(within: 100).contains { event in
        guard case .damage(let damage) = event else { return false }
        let isWhole = damage.contains(x: 0, y: 0) && damage.contains(x: 0, y: 47)
        return damage.contains(x: x, y: y) && !isWhole
      }
    }
  }

  /// Takes what comes meanwhile.
  func pass(milliseconds: UInt64) throws {
    let end = MonotonicClock.now + milliseconds * 1_000_000
    while MonotonicClock.now < end { _ = try events(within: 1) }
  }

  private func events(within milliseconds: Int32) throws -> [DisplayLinkClient.Event] {
    _ = try poller.wait(milliseconds: milliseconds)
    let events = link.process()
    if !events.isEmpty { link.requestDamage() }
    return events
  }
}

@Suite("Watching memory for writes", .enabled(if: watchesMemory, "needs userfaultfd"))
struct WriteWatchTests {
  @Test("a writer is stopped and told of, and goes on when it is let")
  func stops() throws {
    let mapping = try MemoryMapping.shared(16 * 4096)
    let watch = try WriteWatch(mapping)
    try watch.arm(4096..<8192)
    mapping.bytes[0] = 1
    #expect(!watch.disarm())
    try watch.arm(4096..<4097)
    let poller = try Poller()
    try poller.add(watch.descriptor, token: 0)
    let wrote = Guarded(false)
    let address = UInt(bitPattern: mapping.bytes.baseAddress) + 5000
    let writer = try Thread(name: "writer") {
      UnsafeMutablePointer<UInt8>(bitPattern: address)?.pointee = 7
      wrote.change { $0 = true }
    }
    try eventually("a stopped writer") { try !poller.wait(milliseconds: 0).isEmpty }
    #expect(!wrote.withLock { $0 })
    #expect(watch.disarm())
    writer.join()
    #expect(mapping.bytes[5000] == 7)
  }

  @Test("a writer goes on when the watch is given up")
  func givenUp() throws {
    let mapping = try MemoryMapping.shared(4096)
    var watch: WriteWatch? = try WriteWatch(mapping)
    try watch?.arm(0..<4096)
    let address = UInt(bitPattern: mapping.bytes.baseAddress)
    let writer = try Thread(name: "writer") {
      UnsafeMutablePointer<UInt8>(bitPattern: address)?.pointee = 7
    }
    watch = nil
    writer.join()
    #expect(mapping.bytes[0] == 7)
  }
}
