import DeviceModel
import Display
import DisplayLink
import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("USB", .needsKVM)
struct USBTests {
  /// Where the guest program keeps what the controller reads.
  private enum Place {
    static let contextArray: UInt32 = 0x30_0000
    static let context: UInt32 = 0x30_1000
    static let input: UInt32 = 0x30_2000
    static let segments: UInt32 = 0x30_3000
    static let events: UInt32 = 0x30_4000
    static let commands: UInt32 = 0x30_5000
    static let control: UInt32 = 0x30_6000
    static let interrupt: UInt32 = 0x30_7000
    static let report: UInt32 = 0x30_8000
  }

  // mov [ebx + register], value
  private func set(_ program: inout GuestProgram, _ register: UInt32, _ value: UInt32) {
    program.emit(0xC7, 0x83)
    program.emit(word: register)
    program.emit(word: value)
  }

  private func put(_ program: inout GuestProgram, _ words: [UInt32], at place: UInt32) {
    for (index, word) in words.enumerated() {
      program.store(word, at: place + UInt32(index) * 4)
    }
  }

  /// Brings the controller up, and the device on `port` to where it is asked for a report.
  private func drive(port: UInt32) -> GuestProgram {
    var program = GuestProgram()
    // Device 14 of bus 0, whose registers the machine has assigned a place.
    program.outLong(0xCF8, 0x8000_7010)
    program.port(0xCFC)
    program.emit(0xED, 0x24, 0xF0, 0x89, 0xC3)  // in eax, dx; and al, 0f0h; mov ebx, eax
    program.outLong(0xCF8, 0x8000_7004)
    program.outWord(0xCFC, 0x0006)
    put(&program, [Place.context, 0], at: Place.contextArray + 8)
    put(&program, [Place.events, 0, 64, 0], at: Place.segments)
    for (register, value) in [
      (0x78, 1), (0x70, Place.contextArray), (0x74, 0), (0x58, Place.commands | 1), (0x5C, 0),
      (0x1028, 1), (0x1030, Place.segments), (0x1034, 0), (0x1038, Place.events), (0x103C, 0),
      (0x40, 1), (0x430 + port * 16, 0x210),
    ] as [(UInt32, UInt32)] {
      set(&program, register, value)
    }
    // Enable Slot, Address Device, Configure Endpoint.
    put(&program, [0, 3], at: Place.input)
    put(&program, [0x0830_0000, port << 16, 0, 0], at: Place.input + 0x20)
    put(&program, [0, 0x0040_0026, Place.control | 1, 0, 8], at: Place.input + 0x40)
    put(&program, [0, 0, 0, 9 << 10 | 1], at: Place.commands)
    put(&program, [Place.input, 0, 0, 1 << 24 | 11 << 10 | 1], at: Place.commands + 16)
    set(&program, 0x2000, 0)
    put(&program, [0, 9], at: Place.input)
    put(&program, [0x1830_0000], at: Place.input + 0x20)
    put(&program, [0, 0x0008_003E, Place.interrupt | 1, 0, 8], at: Place.input + 0x80)
    put(&program, [Place.input, 0, 0, 1 << 24 | 12 << 10 | 1], at: Place.commands + 32)
    set(&program, 0x2000, 0)
    // SET_CONFIGURATION, and a buffer for a report.
    put(&program, [0x0001_0900, 0, 8, 2 << 10 | 0x41], at: Place.control)
    put(&program, [0, 0, 0, 4 << 10 | 0x1_0001], at: Place.control + 16)
    set(&program, 0x2004, 1)
    program.store(0, at: Place.report)
    put(&program, [Place.report, 0, 8, 1 << 10 | 0x25], at: Place.interrupt)
    set(&program, 0x2004, 3)
    return program
  }

  /// Waits for the tablet's report, says "r" once it may come, and sends five bytes of it.
  private var tabletProgram: GuestProgram {
    var program = drive(port: 1)
    program.send("r")
    let start = program.bytes.count
    program.emit(0xA0)  // mov al, [report]
    program.emit(word: Place.report)
    program.emit(0x84, 0xC0)  // test al, al
    program.jump(0x74, to: start)
    for index in 0..<5 as Range<UInt32> {
      program.emit(0xA0)
      program.emit(word: Place.report + index)
      program.sendALWhenReady()
    }
    program.powerOff()
    return program
  }

  private func configure(_ configuration: inout MachineConfiguration, _: TemporaryDirectory) {
    configuration.hasUSB = true
  }

  private let event = InputEvent.absolutePointer(x: 0x8482, y: 0x8886, buttons: .left)

  @Test("a guest that drives the tablet is told where the pointer is")
  func tablet() throws {
    let guest = try TestGuest(tabletProgram, configure)
    try guest.machine.resume()
    try guest.awaitOutput("r")
    guest.machine.send(event)
    #expect(guest.machine.waitForEnd() == .guestShutdown)
    #expect(guest.output == "r\u{1}ABCD")
  }

  @Test("a transfer that waits in a saved machine is answered in the restored one")
  func restored() throws {
    let guest = try TestGuest(tabletProgram, configure)
    try guest.machine.resume()
    try guest.awaitOutput("r")
    let saved = try guest.machine.save()
    guest.machine.quit()
    let copy = try Machine(guest.machine.configuration, from: saved)
    try copy.resume()
    copy.send(event)
    #expect(copy.waitForEnd() == .guestShutdown)
    #expect(guest.output == "\u{1}ABCD")
  }

  @Test("the lights of a keyboard that the guest drives are those that displays know")
  func lights() throws {
    var program = drive(port: 2)
    // SET_REPORT of Caps Lock, in the TRB itself.
    put(&program, [0x0200_0921, 0x0001_0000, 8, 2 << 10 | 0x41], at: Place.control + 32)
    put(&program, [2, 0, 1, 3 << 10 | 0x41], at: Place.control + 48)
    put(&program, [0, 0, 0, 4 << 10 | 0x1_0001], at: Place.control + 64)
    set(&program, 0x2004, 1)
    program.stop()
    let guest = try TestGuest(program) { configuration, _ in
      configuration.hasUSB = true
      configuration.display = .standard
    }
    let output = try DisplayOutput(of: guest.machine, path: nil)
    let link = try DisplayLinkClient(connected: try output.connect())
    let poller = try Poller()
    try poller.add(link.descriptor, token: 0)
    try guest.machine.resume()
    var lights = KeyboardLEDs()
    let deadline = MonotonicClock.now + 60_000_000_000
    while lights != .capsLock {
      try #require(MonotonicClock.now < deadline)
      _ = try poller.wait(milliseconds: 2000)
      for case .leds(let new) in link.process() { lights = new }
    }
    #expect(output.displayCount == 1)
  }
}
