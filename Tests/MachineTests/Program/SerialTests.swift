import Glibc
import LinuxSystem
import TestSupport
import Testing

@Suite("The serial port of a running program", .needsKVM, .serialized)
struct SerialTests {
  /// Sends `count` bytes, 0, 1, 2 …, each when the transmitter is empty.
  private static func counting(_ count: UInt32) -> GuestProgram {
    var program = GuestProgram()
    program.emit(0x31, 0xDB)  // xor ebx, ebx
    let loop = program.bytes.count
    program.emit(0x88, 0xD8)  // mov al, bl
    program.sendALWhenReady()
    program.emit(0x43, 0x81, 0xFB)  // inc ebx; cmp ebx, count
    program.emit(word: count)
    program.jump(0x75, to: loop)
    program.powerOff()
    return program
  }

  /// Adds up `count` bytes, with a while of idling after each, and sends the sum.
  private static func adding(_ count: UInt32) -> GuestProgram {
    var program = GuestProgram()
    program.emit(0x31, 0xDB, 0xB9)  // xor ebx, ebx; mov ecx, count
    program.emit(word: count)
    let loop = program.bytes.count
    program.waitForSerial()
    program.emit(0x0F, 0xB6, 0xC0, 0x01, 0xC3)  // movzx eax, al; add ebx, eax
    program.emit(0xC1, 0xC3, 0x01)  // rol ebx, 1
    program.emit(0x49)  // dec ecx
    program.jump(0x75, to: loop)
    program.emit(0x89, 0xD8)  // mov eax, ebx
    for _ in 0..<4 {
      program.emit(0x89, 0xC6)  // mov esi, eax
      program.sendALWhenReady()
      program.emit(0x89, 0xF0, 0xC1, 0xE8, 0x08)  // mov eax, esi; shr eax, 8
    }
    program.powerOff()
    return program
  }

  private static let input = (0..<65_536).map { UInt8(truncatingIfNeeded: $0 &* 11 ^ $0 >> 8) }

  private static var sum: [UInt8] {
    let sum = input.reduce(UInt32(0)) {
      let sum = $0 &+ UInt32($1)
      return sum << 1 | sum >> 31
    }
    return (0..<4).map { UInt8(truncatingIfNeeded: sum >> ($0 * 8)) }
  }

  @Test("a pipe that nobody reads holds up the guest's output, and nothing else")
  func unreadPipe() throws {
    let pipe = try Pipe()
    let program = try RunningProgram(
      Self.counting(20_000), ["--serial", "stdio", "--vga", "none"],
      descriptors: [1: pipe.writing])
    let control = try program.control()
    try pipe.waitUntilFull()
    #expect(try control.execute("query-status")["status"] == "running")
    try control.execute("stop")
    try control.execute("cont")
    pipe.closeWriting()
    var bytes: [UInt8] = []
    while true {
      let part = try pipe.reading.read(upTo: 4096)
      if part.isEmpty { break }
      bytes += part
    }
    let isComplete = bytes == (0..<20_000).map { UInt8(truncatingIfNeeded: $0) }
    #expect(isComplete, "\(bytes.count) bytes")
    #expect(try program.process.wait() == .exited(0))
  }

  @Test("a debug console that nobody reads holds up nothing")
  func unreadDebugConsole() throws {
    let pipe = try Pipe()
    var guest = GuestProgram()
    guest.emit(0xB9)  // mov ecx, 20000
    guest.emit(word: 20_000)
    guest.port(0x402)
    guest.emit(0xB0, 0x0A, 0xEE, 0x49, 0x75, 0xFA)  // mov al, 10; out dx, al; dec ecx; jnz
    guest.powerOff()
    let program = try RunningProgram(
      guest, ["--debug-console", "--vga", "none"], descriptors: [2: pipe.writing])
    #expect(try program.process.wait() == .exited(0))
  }

  @Test("64 KiB reach a slow guest through a socket, all of them")
  func socketInput() throws {
    let guest = try TestGuest(Self.adding(65_536)) { configuration, directory in
      configuration.serial = .socket(directory.path("line"))
    }
    let peer = try UnixSocket.connect(to: guest.directory.path("line"), kind: .stream)
    try guest.machine.resume()
    try peer.descriptor.writeAll(Self.input)
    var answer: [UInt8] = []
    while answer.count < 4 { answer += try peer.receive().bytes }
    #expect(answer == Self.sum)
    #expect(guest.machine.waitForEnd() == .guestShutdown)
  }

  @Test("a regular file as standard input is read to its end, as fast as the guest takes it")
  func fileInput() throws {
    let directory = try TemporaryDirectory()
    let output = try FileDescriptor.open(directory.path("output"), [.writeOnly, .create])
    let program = try RunningProgram(
      Self.adding(65_536), ["--serial", "stdio", "--vga", "none"], in: directory,
      descriptors: [
        0: try FileDescriptor.open(try directory.write(Self.input, to: "input")), 1: output,
      ])
    #expect(try program.process.wait() == .exited(0))
    #expect(try directory.read("output") == Self.sum)
  }

  @Test("output goes to a file")
  func fileOutput() throws {
    let program = try RunningProgram(
      Self.counting(100), ["--serial", "@/serial", "--vga", "none"])
    #expect(try program.process.wait() == .exited(0))
    #expect(try program.directory.read("serial") == Array(0..<100))
  }

  @Test("a terminal passes keys on raw and unechoed, and is as before after a signal")
  func terminal() throws {
    var guest = GuestProgram()
    let loop = guest.bytes.count
    guest.waitForSerial()
    guest.sendALWhenReady()
    guest.jump(0xEB, to: loop)
    let terminal = try PseudoTerminal()
    let before = terminal.mode
    #expect(before & tcflag_t(ICANON | ECHO) == tcflag_t(ICANON | ECHO))
    let program = try RunningProgram(
      guest, ["--serial", "stdio", "--vga", "none"],
      descriptors: [0: terminal.user, 1: terminal.user])
    // Answered once the machine runs, and the terminal was set before.
    let control = try program.control()
    #expect(try control.execute("query-status")["status"] == "running")
    #expect(terminal.mode & tcflag_t(ICANON | ECHO) == 0)
    for key: [UInt8] in [[0x61], [0x0D], [0x1A], [0x04], [0x1B, 0x5B, 0x41]] {
      try terminal.host.writeAll(key)
      var answer: [UInt8] = []
      while answer.count < key.count { answer += try terminal.host.read(upTo: 16) }
      #expect(answer == key)
    }
    try program.process.handle.send(.terminate)
    #expect(try program.process.wait() == .exited(0))
    #expect(terminal.mode == before)
  }

  @Test("the terminal's interrupt key ends the machine, and the terminal is as before")
  func interruptKey() throws {
    var guest = GuestProgram()
    guest.stop()
    let terminal = try PseudoTerminal()
    let before = terminal.mode
    // setsid makes the terminal the process's own, so that it gets the signal.
    let directory = try TemporaryDirectory()
    let image = try directory.write(guest.elf(), to: "program")
    var request = ChildProcess.Request(
      "/usr/bin/setsid",
      [
        "--ctty", "--wait", Programs.built("carrel-vmm"), "run", "--memory", "16M", "--kernel",
        image, "--serial", "stdio", "--vga", "none", "--control", directory.path("control"),
      ])
    request.descriptors = [0: terminal.user, 1: terminal.user, 2: terminal.user]
    request.parentDeathSignal = .kill
    let process = try ChildProcess(request)
    let control = try ControlClient(
      try UnixSocket.connect(
        to: directory.path("control"), kind: .stream, offeredBy: process.handle))
    #expect(try control.execute("query-status")["running"] == true)
    try terminal.host.writeAll([0x03])
    while try control.nextEvent().name != "SHUTDOWN" {}
    #expect(try process.wait() == .exited(0))
    #expect(terminal.mode == before)
  }
}

/// A pipe whose writing end goes to another process.
private final class Pipe {
  let reading: FileDescriptor
  private var writingEnd: FileDescriptor?

  init() throws {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { throw SystemError(code: errno, "make a pipe") }
    reading = FileDescriptor(owning: ends[0])
    writingEnd = FileDescriptor(owning: ends[1])
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    // F_SETPIPE_SZ, which Glibc's module leaves out: as small as it can be.
    guard fcntl(reading.raw, 1031, 4096) >= 0 else {
      throw SystemError(code: errno, "make a pipe small")
    }
  }

  var writing: FileDescriptor { writingEnd ?? reading }

  func closeWriting() { writingEnd = nil }

  /// Until a byte more would not fit: a pipe has no event for that.
  func waitUntilFull() throws {
    var watched = pollfd(fd: writing.raw, events: Int16(POLLOUT), revents: 0)
    while poll(&watched, 1, 0) == 1 { sched_yield() }
  }
}

/// A terminal without a window.
private final class PseudoTerminal {
  /// The end of whoever types.
  let host: FileDescriptor
  /// The end of the program.
  let user: FileDescriptor

  init() throws {
    host = try FileDescriptor.open("/dev/ptmx", [.writable, .noTerminal])
    var locked: Int32 = 0
    var number: UInt32 = 0
    // TIOCSPTLCK and TIOCGPTN, which Glibc's module leaves out.
    guard ioctl(host.raw, 0x4004_5431, &locked) == 0, ioctl(host.raw, 0x8004_5430, &number) == 0
    else { throw SystemError(code: errno, "make a terminal") }
    user = try FileDescriptor.open("/dev/pts/\(number)", [.writable, .noTerminal])
  }

  /// The local modes.
  var mode: tcflag_t {
    var settings = termios()
    tcgetattr(user.raw, &settings)
    return settings.c_lflag
  }
}
